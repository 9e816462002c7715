//! What an answer is told and what it says.

use crate::billing::account::Denied;
use crate::dialect::ModelRequest;
use crate::dialect::exchange::{Broken, Head};
use crate::gateway::outside::Settled;
use crate::wire::message::{Message, TokensUsed};

/// What an answer is told.
#[derive(Debug)]
pub(in crate::gateway) enum Input<'a> {
    /// The store's word on the hold; `None` when it did not answer in time.
    Held(Option<Result<(), Denied>>),
    /// The upstream's status line and the headers that matter.
    Head(Head),
    /// Bytes of the upstream's body.
    Body(&'a [u8]),
    /// The upstream is over.
    Ended(Result<(), Broken>),
    /// The settle was written (`Some`), or the store was not there.
    Settled(Option<Settled>),
    /// The account's rules say no to the settle, for good.
    SettleDenied(Denied),
    /// Whether a checkpoint was written.
    Checkpointed(bool),
    /// Whether the release was written.
    Released(bool),
    /// Whether the loss was written.
    Lost(bool),
    /// The gateway goes away and can wait no longer.
    Interrupted,
    /// The device no longer wants the answer (`Cancel`, or a stopped stream).
    Cancelled,
    /// The device has not come back for it in time.
    Forsaken,
    /// What it says can no longer be kept.
    Crowded,
    /// What it has said is taken: `room` bytes may be said.
    Room(usize),
    /// The deadline of [`Answer::deadline`](super::Answer::deadline) has come.
    Timeout,
}

/// What an answer asks of its parent.
#[derive(Debug)]
pub(in crate::gateway) enum Output {
    /// Set the worst case aside.
    Hold,
    /// Call the model; bytes come as [`Input::Head`], [`Input::Body`], [`Input::Ended`].
    Call(ModelRequest),
    /// Stop the upstream: what it still says is not wanted.
    Abandon,
    /// So many more bytes of the upstream may be read.
    Credit(usize),
    /// Remember what has been used so far.
    Checkpoint(TokensUsed),
    /// Charge what was used and void the rest.
    Settle {
        /// What was used.
        tokens: TokensUsed,
        /// Whether the provider counted it.
        estimated: bool,
    },
    /// Book what was used as the operator's loss, and void the hold.
    Lose(TokensUsed),
    /// Void the hold.
    Release,
    /// Say to the device.
    Send(Message),
    /// Nothing more comes: the answer can be dropped.
    Over,
}
