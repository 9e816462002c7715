//! One answer's life at the gateway: hold the money, call the model, pass the pieces on, settle.
//!
//! ```text
//!            Held            first attempts          end, cancel, failure after a piece
//!  Holding ───────▶ Calling ◀──────────▶ Resting    ────────────▶ Settling ──▶ Over
//!     │ refused        │ failure before the first piece                  ▲ │ store down
//!     ▼                ▼                                                 └─┘ (again, for ever)
//!   Over  ◀──────── Releasing
//! ```
//!
//! `Resting` is the pause before the next attempt. An answer that its gateway cuts off goes from
//! `Calling` to `Losing`, and is over once its loss is booked. An answer speaks by [`Output`] and is told by
//! [`Input`]; who carries its requests out, and who listens to what it says, is the parent's business.
//!
//! # Invariants
//!
//! 1. At most one upstream attempt runs at a time, and none starts after the first piece.
//! 2. A hold that was granted ends in exactly one settle, release or loss, also when the grant comes
//!    after the device has gone.
//! 3. A settle repeats until it is acknowledged; the device learns the charge only after that.
//! 4. What it says is a prefix of what the upstream produced.
//! 5. No more of an upstream is asked for than it is given room for, plus a fixed lead.

mod interrupt;
mod pieces;
mod report;
mod usage;
mod words;

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use self::usage::Checkpoint;
pub(super) use self::words::{Input, Output};
use crate::billing::account::Denied;
use crate::dialect::ModelRequest;
use crate::dialect::chat::reply::Composer;
use crate::dialect::exchange::{self, Exchange};
use crate::dialect::failure::UpstreamFailure;
use crate::escalation::request::first_piece_timeout;
use crate::gateway::outside::Settled;
use crate::gateway::terms;
use crate::gateway::transcript::Bill;
use crate::ids::RequestId;
use crate::limits;
use crate::time::Now;
use crate::wire::message::{
    DialectName, ErrorMessage, EscalationRequest, FinishReason, Message, TokensUsed,
};

#[derive(Debug)]
enum Stage {
    Holding,
    Calling(Box<Exchange>),
    Resting { until: Instant },
    Settling { verdict: Verdict, pause: Pause },
    Releasing { ending: Ending, pause: Pause },
    Losing { pause: Pause },
    Over,
}

/// The wait before the store is asked again.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    fn begin(&mut self, now: Now) {
        let wait = limits::SETTLE_RETRY_BASE * 2u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now.instant + wait.min(limits::SETTLE_RETRY_MAX));
    }

    fn is_over(&mut self, now: Now) -> bool {
        let over = self.until.is_some_and(|until| now.instant >= until);
        if over {
            self.until = None;
        }
        over
    }
}

/// How the answer will be reported once the money is settled.
#[derive(Clone, Debug)]
enum Verdict {
    Finished(FinishReason),
    Failed(ErrorMessage),
}

/// How the answer will be reported once the hold is void.
#[derive(Clone, Debug)]
enum Ending {
    Refused(ErrorMessage),
    Cancelled,
}

/// See the module documentation.
pub(super) struct Answer {
    request_id: RequestId,
    streamed: bool,
    sources: Vec<String>,
    dialect: DialectName,
    provider: String,
    call: ModelRequest,
    /// The longest answer that was asked for.
    output_tokens_max: u64,

    stage: Stage,
    arrived: Instant,
    first_piece_by: Instant,
    end_by: Instant,
    /// The upstream has been silent too long then, unless it is us who do not read on.
    idle_by: Instant,
    attempts: u32,
    /// The attempt's upstream has not ended.
    upstream_open: bool,

    sequence: u64,
    produced: bool,
    produced_bytes: u64,
    /// Text that is not sent yet: all of it when unstreamed, what came in this step when streamed.
    text: String,
    /// The dialect of the client whose own body was asked with.
    client: Option<DialectName>,
    /// What such a client is answered with, when unstreamed.
    composer: Composer,
    model_used: String,
    usage: Option<TokensUsed>,
    /// Whether `usage` is the provider's last word on a whole answer.
    counted: bool,
    /// How it ends, if that was said before there was anything to stop.
    unwanted: Option<Ending>,

    checkpoint: Checkpoint,
    credit_owed: usize,
    outputs: VecDeque<Output>,
}

impl fmt::Debug for Answer {
    /// Shows nothing of the question or the answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("request_id", &self.request_id)
            .field("stage", &self.stage)
            .field("attempts", &self.attempts)
            .field("sequence", &self.sequence)
            .field("produced_bytes", &self.produced_bytes)
            .field("usage", &self.usage)
            .field("credit_owed", &self.credit_owed)
            .field("outputs", &self.outputs.len())
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// A validated request whose model call is prepared. Its first output is [`Output::Hold`].
    pub(super) fn new(
        now: Now,
        request: &EscalationRequest,
        dialect: DialectName,
        provider: String,
        call: ModelRequest,
    ) -> Self {
        let mut sources: Vec<String> = Vec::new();
        for passage in &request.context.local_knowledge {
            if !sources.contains(&passage.source) {
                sources.push(passage.source.clone());
            }
        }
        Self {
            request_id: request.request_id,
            streamed: request.stream,
            sources,
            dialect,
            provider,
            call,
            output_tokens_max: u64::from(request.max_tokens),
            stage: Stage::Holding,
            arrived: now.instant,
            first_piece_by: now.instant + first_piece_timeout(request),
            end_by: now.instant + limits::ESCALATION_TOTAL,
            idle_by: now.instant + limits::ESCALATION_TOTAL,
            attempts: 0,
            upstream_open: false,
            sequence: 0,
            produced: false,
            produced_bytes: 0,
            text: String::new(),
            client: request.chat.as_ref().map(|chat| chat.dialect),
            composer: Composer::default(),
            model_used: String::new(),
            usage: None,
            counted: false,
            unwanted: None,
            checkpoint: Checkpoint::default(),
            credit_owed: 0,
            outputs: VecDeque::from([Output::Hold]),
        }
    }

    pub(super) const fn request_id(&self) -> RequestId {
        self.request_id
    }

    pub(super) fn provider(&self) -> &str {
        &self.provider
    }

    /// Whether [`Input::Room`] would let the upstream be read further.
    pub(super) const fn wants_room(&self) -> bool {
        self.credit_owed > 0 && matches!(self.stage, Stage::Calling(_))
    }

    /// Whether more text may come.
    pub(super) const fn is_growing(&self) -> bool {
        matches!(self.stage, Stage::Calling(_))
    }

    /// Text that has come and is not said yet, bytes.
    pub(super) const fn unsaid_bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Calling(_) => {
                let by = match self.produced {
                    // Its silence is ours while we do not read on.
                    true if self.credit_owed == 0 => self.end_by.min(self.idle_by),
                    true => self.end_by,
                    false => self.first_piece_by.min(self.end_by),
                };
                Some(self.checkpoint.due.map_or(by, |due| due.min(by)))
            }
            Stage::Resting { until } => Some((*until).min(self.first_piece_by)),
            Stage::Settling { pause, .. }
            | Stage::Releasing { pause, .. }
            | Stage::Losing { pause } => pause.until,
            Stage::Holding | Stage::Over => None,
        }
    }

    /// Takes one step. Inputs that no longer matter (a late byte, a second cancel) are ignored.
    pub(super) fn handle_input(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Held(word) => self.held(now, word),
            Input::Head(head) => self.exchange(now, |exchange| exchange.handle_head(&head)),
            Input::Body(bytes) => {
                self.credit_owed += bytes.len();
                self.idle_by = now.instant + limits::UPSTREAM_IDLE;
                self.exchange(now, |exchange| exchange.handle_body(bytes));
            }
            Input::Ended(result) => {
                self.upstream_open = false;
                self.exchange(now, |exchange| exchange.handle_end(result));
            }
            Input::Settled(receipt) => self.settled(now, receipt),
            Input::SettleDenied(denied) => {
                if matches!(self.stage, Stage::Settling { .. }) {
                    self.over_with(terms::denied(&denied, self.request_id));
                }
            }
            Input::Checkpointed(written) => {
                self.checkpoint.open = false;
                // What is not written down is news still.
                if !written {
                    self.checkpoint.bytes = None;
                }
            }
            Input::Released(written) => self.released(now, written),
            Input::Lost(written) => self.lost(now, written),
            Input::Interrupted => self.interrupt(),
            Input::Cancelled => self.cancel(),
            Input::Forsaken => self.forsaken(),
            Input::Crowded => self.crowded(),
            Input::Room(room) => self.give_credit(now, room),
            Input::Timeout => self.timeout(now),
        }
    }

    fn held(&mut self, now: Now, word: Option<Result<(), Denied>>) {
        if !matches!(self.stage, Stage::Holding) {
            return;
        }
        match word {
            Some(Ok(())) => match self.unwanted.take() {
                Some(ending) => self.release(ending),
                None => self.attempt(now),
            },
            Some(Err(denied)) => self.over_with(terms::denied(&denied, self.request_id)),
            None => self.over_with(terms::store_unavailable(self.request_id)),
        }
    }

    fn attempt(&mut self, now: Now) {
        if now.instant >= self.first_piece_by {
            self.release(self.too_slow());
            return;
        }
        self.attempts += 1;
        self.upstream_open = true;
        self.credit_owed = 0;
        self.checkpoint.due = Some(now.instant + limits::CHECKPOINT_EVERY);
        self.stage = Stage::Calling(Box::new(Exchange::new(self.dialect)));
        self.outputs.push_back(Output::Call(self.call.clone()));
        self.outputs
            .push_back(Output::Credit(limits::ANSWER_AHEAD_BYTES));
    }

    /// Feeds the exchange and carries out what it says.
    fn exchange(&mut self, now: Now, feed: impl FnOnce(&mut Exchange)) {
        let Stage::Calling(exchange) = &mut self.stage else {
            return;
        };
        feed(exchange);
        while let Stage::Calling(exchange) = &mut self.stage {
            match exchange.poll() {
                Some(exchange::Output::Piece(piece)) => self.piece(piece),
                Some(exchange::Output::Finished { reason, usage }) => {
                    self.usage = usage.or(self.usage);
                    self.counted = usage.is_some();
                    self.settle(Verdict::Finished(reason));
                }
                Some(exchange::Output::Failed(failure)) => self.failed(now, &failure),
                None => break,
            }
        }
        if self.streamed && matches!(self.stage, Stage::Calling(_)) {
            self.send_text(false);
        }
    }

    fn failed(&mut self, now: Now, failure: &UpstreamFailure) {
        // It failed by what it said and may say more, which the next attempt must not be told.
        if self.upstream_open {
            self.outputs.push_back(Output::Abandon);
        }
        let error = terms::upstream(failure, &self.provider, self.request_id);
        if self.produced {
            self.settle(Verdict::Failed(error));
            return;
        }
        match self.retry_at(now, failure) {
            Some(until) => self.stage = Stage::Resting { until },
            None => self.release(Ending::Refused(error)),
        }
    }

    /// When the next attempt may start, if there may be one.
    fn retry_at(&self, now: Now, failure: &UpstreamFailure) -> Option<Instant> {
        if !failure.is_transient() || self.attempts >= limits::UPSTREAM_ATTEMPTS_MAX {
            return None;
        }
        let backoff = limits::UPSTREAM_RETRY_BASE * 2u32.saturating_pow(self.attempts - 1);
        let wait = failure
            .kind
            .retry_after()
            .map_or(backoff, |asked| backoff.max(asked));
        let until = now.instant.checked_add(wait)?;
        (until < self.first_piece_by).then_some(until)
    }

    fn cancel(&mut self) {
        match &self.stage {
            // The hold may yet be granted: the answer to it decides what is given back.
            Stage::Holding => self.unwanted = Some(Ending::Cancelled),
            Stage::Calling(_) => {
                self.outputs.push_back(Output::Abandon);
                if self.produced {
                    self.settle(Verdict::Finished(FinishReason::Cancelled));
                } else {
                    self.release(Ending::Cancelled);
                }
            }
            Stage::Resting { .. } => self.release(Ending::Cancelled),
            Stage::Settling { .. }
            | Stage::Releasing { .. }
            | Stage::Losing { .. }
            | Stage::Over => {}
        }
    }

    fn forsaken(&mut self) {
        if self.is_growing() && self.produced {
            self.cut_short(terms::stayed_away(self.request_id));
        } else {
            self.cancel();
        }
    }

    fn crowded(&mut self) {
        let error = terms::unkeepable(self.request_id);
        if self.is_growing() {
            return self.cut_short(error);
        }
        // The end had come, and what came with it did not fit.
        if let Stage::Settling { verdict, .. } = &mut self.stage {
            *verdict = Verdict::Failed(error);
        }
    }

    /// Ends it with what there is.
    fn cut_short(&mut self, error: ErrorMessage) {
        self.outputs.push_back(Output::Abandon);
        self.settle(Verdict::Failed(error));
    }

    fn timeout(&mut self, now: Now) {
        if matches!(self.stage, Stage::Calling(_)) {
            self.checkpoint(now);
        }
        match &mut self.stage {
            Stage::Calling(_) if self.produced => {
                if now.instant >= self.end_by {
                    self.cut_short(terms::total_timeout(self.request_id));
                } else if self.credit_owed == 0 && now.instant >= self.idle_by {
                    self.cut_short(terms::fell_silent(&self.provider, self.request_id));
                }
            }
            Stage::Calling(_) => {
                if now.instant >= self.first_piece_by {
                    self.outputs.push_back(Output::Abandon);
                    self.release(self.too_slow());
                }
            }
            Stage::Resting { until } => {
                if now.instant >= *until {
                    self.attempt(now);
                }
            }
            Stage::Settling { pause, .. } => {
                if pause.is_over(now) {
                    self.ask_to_settle();
                }
            }
            Stage::Releasing { pause, .. } => {
                if pause.is_over(now) {
                    self.outputs.push_back(Output::Release);
                }
            }
            Stage::Losing { pause } => {
                if pause.is_over(now) {
                    self.ask_to_lose();
                }
            }
            Stage::Holding | Stage::Over => {}
        }
    }

    fn settle(&mut self, verdict: Verdict) {
        // Of an answer that will not be whole, the text so far is all that there will be.
        if self.streamed || matches!(verdict, Verdict::Failed(_)) {
            self.send_text(false);
        }
        self.stage = Stage::Settling {
            verdict,
            pause: Pause::default(),
        };
        self.ask_to_settle();
    }

    fn ask_to_settle(&mut self) {
        let (tokens, estimated) = self.tokens();
        self.outputs.push_back(Output::Settle { tokens, estimated });
    }

    fn settled(&mut self, now: Now, settled: Option<Settled>) {
        let Stage::Settling { verdict, pause } = &mut self.stage else {
            return;
        };
        let Some(Settled { charge, alert }) = settled else {
            return pause.begin(now);
        };
        let bill = Bill {
            alert,
            ..Bill::of(&charge)
        };
        let verdict = verdict.clone();
        match verdict {
            Verdict::Finished(reason) => {
                self.report_finished(now, reason, &bill);
            }
            Verdict::Failed(error) => {
                let error = terms::with_bill(error, &bill);
                self.send(Message::Error(error));
            }
        }
        self.over();
    }

    fn give_credit(&mut self, now: Now, room: usize) {
        if room > 0 && self.wants_room() {
            let credit = std::mem::take(&mut self.credit_owed);
            self.idle_by = now.instant + limits::UPSTREAM_IDLE;
            self.outputs.push_back(Output::Credit(credit));
        }
    }

    fn release(&mut self, ending: Ending) {
        self.stage = Stage::Releasing {
            ending,
            pause: Pause::default(),
        };
        self.outputs.push_back(Output::Release);
    }

    fn released(&mut self, now: Now, written: bool) {
        let Stage::Releasing { ending, pause } = &mut self.stage else {
            return;
        };
        if !written {
            return pause.begin(now);
        }
        match ending.clone() {
            Ending::Refused(error) => self.over_with(error),
            Ending::Cancelled => {
                self.report_finished(now, FinishReason::Cancelled, &Bill::default());
                self.over();
            }
        }
    }

    fn too_slow(&self) -> Ending {
        Ending::Refused(terms::upstream_timeout(&self.provider, self.request_id))
    }

    fn over_with(&mut self, error: ErrorMessage) {
        self.send(Message::Error(error));
        self.over();
    }

    fn over(&mut self) {
        self.stage = Stage::Over;
        self.outputs.push_back(Output::Over);
    }

    fn send(&mut self, message: Message) {
        self.outputs.push_back(Output::Send(message));
    }
}

#[cfg(test)]
mod tests;
