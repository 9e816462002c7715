//! What a run looked like from outside, as rows: for who wants to see it, not only to judge it.
//!
//! A world has a recorder only when one is asked for. It draws no chance and says nothing to the
//! trace: a recorded history is the same history.
//!
//! # Invariants
//!
//! 1. Datagrams outside the window are not kept; within it, as many as there is room for. Those left
//!    out are counted.
//! 2. Rows are in the order of time; a state's row is there only where the state changes.

use std::collections::{BTreeMap, VecDeque};

use mesh_core::billing::ledger::Charge;
use mesh_core::billing::money::Nanos;
use mesh_core::gateway::{Ask, HoldFailed, Told};
use mesh_core::ids::{AccountId, RequestId};

use crate::net::{Lost, Passage};
use crate::queue::Micros;

/// Datagrams kept at most.
const DATAGRAMS_MAX: usize = 500_000;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// By index.
    Device(usize),
    /// By index.
    Gateway(usize),
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(at) => write!(f, "device {at}"),
            Self::Gateway(at) => write!(f, "gateway {at}"),
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is, or was at the end, on its way.
    Arrives(Micros),
    /// It arrived, and was heard.
    Heard(Micros),
    /// It arrived where nobody was, or at a port that the translator no longer lets in.
    Unheard(Micros),
    /// It never arrived.
    Lost(Lost),
}

/// One datagram, or its second copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramRow {
    /// When it was sent.
    pub sent: Micros,
    /// By whom.
    pub from: Node,
    /// To whom.
    pub to: Node,
    /// UDP payload, bytes.
    pub bytes: usize,
    /// Whether a bit of it was flipped.
    pub damaged: bool,
    /// What became of it.
    pub fate: Fate,
}

/// How a device or a gateway is, as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its process is dead.
    Dead,
    /// It sleeps.
    Asleep,
    /// Nobody wants a tunnel.
    Disconnected,
    /// The first attempt is under way.
    Connecting,
    /// There is a session; a living gateway is this too.
    Connected,
    /// There is a session, and its path may be dead.
    Doubt,
    /// Attempts are made to get a session back.
    Reconnecting,
    /// Nothing more is tried.
    Failed,
}

/// A change of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseRow {
    /// When.
    pub at: Micros,
    /// Whose.
    pub node: Node,
    /// Which it is from then on.
    pub phase: Phase,
}

/// What happened to the text of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// The model server has produced so many bytes at this attempt.
    Produced(usize),
    /// The device has been given so many bytes.
    Delivered(usize),
    /// The question ended.
    Ended,
}

/// One step of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextRow {
    /// When.
    pub at: Micros,
    /// Of which.
    pub request: RequestId,
    /// What.
    pub text: Text,
}

/// What happened to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Money {
    /// So much was set aside.
    Held(Nanos),
    /// Nothing was set aside, for this reason.
    Denied(String),
    /// So much was charged.
    Charged(Box<Charge>),
    /// What was set aside is free again.
    Released,
    /// The store could not do what it was asked.
    Unavailable,
}

/// One word of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoneyRow {
    /// When.
    pub at: Micros,
    /// Whose money.
    pub account: AccountId,
    /// For which question.
    pub request: RequestId,
    /// What.
    pub money: Money,
}

/// Where an account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Whose.
    pub account: AccountId,
    /// What may be spent in a month.
    pub ceiling: Nanos,
    /// Spent.
    pub spent: Nanos,
    /// Set aside.
    pub held: Nanos,
    /// Charged beyond a hold.
    pub owed: Nanos,
    /// Charges in its ledger.
    pub charges: usize,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Recorder {
    window: (Micros, Micros),
    /// Datagrams sent in the window.
    pub datagrams: Vec<DatagramRow>,
    /// Those that there was no room for.
    pub left_out: u64,
    /// Changes of phase.
    pub phases: Vec<PhaseRow>,
    /// Steps of questions.
    pub texts: Vec<TextRow>,
    /// Words of the store.
    pub money: Vec<MoneyRow>,
    on_their_way: BTreeMap<(Micros, Node), VecDeque<usize>>,
    now: BTreeMap<Node, Phase>,
}

impl Recorder {
    /// One that keeps the datagrams sent from `from` to `to`, virtual µs.
    #[must_use]
    pub const fn new(from: Micros, to: Micros) -> Self {
        Self {
            window: (from, to),
            datagrams: Vec::new(),
            left_out: 0,
            phases: Vec::new(),
            texts: Vec::new(),
            money: Vec::new(),
            on_their_way: BTreeMap::new(),
            now: BTreeMap::new(),
        }
    }

    /// A datagram was sent.
    pub fn sent(
        &mut self,
        now: Micros,
        from: Node,
        to: Node,
        bytes: usize,
        passage: Result<Passage, Lost>,
    ) {
        if !(self.window.0..=self.window.1).contains(&now) {
            return;
        }
        let row = |damaged, fate| DatagramRow {
            sent: now,
            from,
            to,
            bytes,
            damaged,
            fate,
        };
        match passage {
            Err(lost) => self.keep(row(false, Fate::Lost(lost))),
            Ok(passage) => {
                let damaged = passage.damaged_bit.is_some();
                for at in [Some(passage.at), passage.again].into_iter().flatten() {
                    self.keep(row(damaged, Fate::Arrives(at)));
                }
            }
        }
    }

    fn keep(&mut self, row: DatagramRow) {
        if self.datagrams.len() >= DATAGRAMS_MAX {
            self.left_out += 1;
            return;
        }
        if let Fate::Arrives(at) = row.fate {
            let waiting = self.on_their_way.entry((at, row.to)).or_default();
            waiting.push_back(self.datagrams.len());
        }
        self.datagrams.push(row);
    }

    /// A datagram arrived, and was heard or not. Those that arrive at one moment arrive in the order
    /// in which they were sent.
    pub fn arrived(&mut self, now: Micros, to: Node, heard: bool) {
        let Some(waiting) = self.on_their_way.get_mut(&(now, to)) else {
            return;
        };
        let index = waiting.pop_front();
        if waiting.is_empty() {
            self.on_their_way.remove(&(now, to));
        }
        if let Some(row) = index.and_then(|index| self.datagrams.get_mut(index)) {
            row.fate = if heard {
                Fate::Heard(now)
            } else {
                Fate::Unheard(now)
            };
        }
    }

    /// A node was looked at.
    pub fn phase(&mut self, at: Micros, node: Node, phase: Phase) {
        if self.now.insert(node, phase) != Some(phase) {
            self.phases.push(PhaseRow { at, node, phase });
        }
    }

    /// A question went on.
    pub fn text(&mut self, at: Micros, request: RequestId, text: Text) {
        self.texts.push(TextRow { at, request, text });
    }

    /// The store gave its word; `held` is what is set aside for the request now.
    pub fn told(&mut self, at: Micros, ask: &Ask, told: &Told, held: Option<Nanos>) {
        let (account, request) = match ask {
            Ask::Hold { account, hold } => (*account, hold.request),
            Ask::Settle {
                account, settle, ..
            } => (*account, settle.request),
            Ask::Release { account, release } => (*account, release.request),
            Ask::Admit { .. }
            | Ask::Service { .. }
            | Ask::Checkpoint { .. }
            | Ask::Lose { .. }
            | Ask::Call { .. }
            | Ask::Recall { .. } => {
                return;
            }
        };
        let money = match told {
            Told::Held(Ok(_)) => Money::Held(held.unwrap_or(Nanos::ZERO)),
            Told::Held(Err(HoldFailed::Denied(denied))) => Money::Denied(denied.to_string()),
            Told::Settled(Ok(settled)) => Money::Charged(settled.charge.clone()),
            Told::Released(Ok(())) => Money::Released,
            Told::Held(Err(_)) | Told::Settled(Err(_)) | Told::Released(Err(_)) => {
                Money::Unavailable
            }
            Told::Admitted(_)
            | Told::Served(_)
            | Told::Checkpointed(_)
            | Told::Lost(_)
            | Told::Called(_)
            | Told::Recalled(_) => return,
        };
        self.money.push(MoneyRow {
            at,
            account,
            request,
            money,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(at: Micros, again: Option<Micros>) -> Result<Passage, Lost> {
        Ok(Passage {
            at,
            again,
            damaged_bit: None,
        })
    }

    #[test]
    fn each_datagram_learns_its_own_fate() {
        let (device, gateway) = (Node::Device(0), Node::Gateway(0));
        let mut recorder = Recorder::new(10, 100);
        recorder.sent(9, device, gateway, 1, passage(50, None));
        recorder.sent(10, device, gateway, 2, passage(50, Some(60)));
        recorder.sent(11, device, gateway, 3, Err(Lost::Cut));
        recorder.sent(12, device, gateway, 4, passage(50, None));
        recorder.arrived(50, gateway, true);
        recorder.arrived(50, gateway, false);
        recorder.arrived(60, gateway, true);
        recorder.arrived(61, gateway, true);
        let fates: Vec<_> = recorder
            .datagrams
            .iter()
            .map(|row| (row.bytes, row.fate))
            .collect();
        assert_eq!(
            fates,
            [
                (2, Fate::Heard(50)),
                (2, Fate::Heard(60)),
                (3, Fate::Lost(Lost::Cut)),
                (4, Fate::Unheard(50)),
            ]
        );
    }

    #[test]
    fn a_phase_is_a_row_only_where_it_changes() {
        let mut recorder = Recorder::new(0, 1);
        for (at, phase) in [
            (0, Phase::Connecting),
            (5, Phase::Connecting),
            (9, Phase::Connected),
        ] {
            recorder.phase(at, Node::Device(1), phase);
        }
        let rows: Vec<_> = recorder
            .phases
            .iter()
            .map(|row| (row.at, row.phase))
            .collect();
        assert_eq!(rows, [(0, Phase::Connecting), (9, Phase::Connected)]);
    }
}
