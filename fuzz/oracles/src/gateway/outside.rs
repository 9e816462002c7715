//! The outside world of a fuzzed gateway: a store that does, refuses or loses what it is asked, and
//! model servers that say anything.

use bytes::Bytes;
use mesh_core::api;
use mesh_core::billing::account::{self, Command, Denied, Entry, Facts, Prior};
use mesh_core::dialect::exchange::{Broken, Head};
use mesh_core::gateway::{
    Admitted, Ask, AskId, Granted, HoldFailed, Input, NotAdmitted, Progress, Recalled,
    SettleFailed, Settled, Told, Unavailable,
};
use mesh_core::ids::{DeviceId, RequestId};

use super::script::{Failure, How, Upstream, end, of, piece, query_in};
use super::{ACCOUNT, Call, World};

impl World {
    pub(super) fn asked(&mut self, id: AskId, ask: Ask) {
        if let Ask::Call { call, .. } = &ask {
            let body = String::from_utf8_lossy(&call.body).into_owned();
            let held = self
                .account
                .holds
                .keys()
                .any(|request| body.contains(&of(*request)));
            assert!(held, "a model is called and no money is held");
            let same = |other: &&Call| {
                !other.over && !other.abandoned && query_in(&other.body) == query_in(&body)
            };
            assert_eq!(
                self.calls.values().filter(same).count(),
                0,
                "two calls at once"
            );
            let call = Call {
                dialect: call.dialect,
                body,
                pieces: 0,
                garbled: false,
                head: false,
                abandoned: false,
                over: false,
            };
            self.calls.insert(id, call);
        }
        assert!(
            self.pending.insert(id, ask).is_none(),
            "an ask's name came again"
        );
    }

    pub(super) fn prior(&self, request: RequestId) -> Option<Prior> {
        let charged = self.ledger.get(&request).cloned().map(Prior::Charged);
        charged.or_else(|| self.lost.get(&request).cloned().map(Prior::Lost))
    }

    /// What a store does in one transaction.
    fn command(&mut self, request: RequestId, command: Command) -> Result<(), Denied> {
        let facts = Facts {
            now: self.now.wall,
            prior: self.prior(request),
            provider_key: true,
        };
        for entry in account::decide(&self.account, &facts, command)? {
            account::apply(&mut self.account, self.now.wall, &entry)?;
            match entry {
                Entry::Charged(charge) => {
                    let before = self.ledger.insert(request, charge);
                    assert!(before.is_none(), "charged twice");
                }
                Entry::Lost(loss) => {
                    let before = self.lost.insert(request, loss);
                    assert!(before.is_none(), "lost twice");
                }
                Entry::Held(..) | Entry::Released(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn outside(&mut self, number: u8, how: How) {
        let count = self.pending.len().max(1);
        let Some(&id) = self.pending.keys().nth(usize::from(number) % count) else {
            return;
        };
        let Some(ask) = self.pending.remove(&id) else {
            return;
        };
        let told = self.word(&ask, how);
        let Some(told) = told else {
            // A call ends by its upstream.
            self.pending.insert(id, ask);
            return;
        };
        self.fine(Input::Told { id, told });
    }

    fn word(&mut self, ask: &Ask, how: How) -> Option<Told> {
        let lost = !matches!(how, How::Well | How::NotAdmitted);
        let done = !matches!(how, How::Unavailable);
        Some(match ask {
            Ask::Admit { .. } => Told::Admitted(match how {
                How::Well | How::WellButLost => {
                    self.epoch += 1;
                    Ok(Admitted {
                        account: ACCOUNT,
                        epoch: self.epoch,
                    })
                }
                How::Unavailable => Err(NotAdmitted::Unavailable),
                How::NotAdmitted => Err(NotAdmitted::Revoked),
            }),
            // Unavailable means that nothing was held.
            Ask::Hold { .. } if lost => Told::Held(Err(HoldFailed::Unavailable)),
            Ask::Hold { hold, .. } => {
                let held = self.command(hold.request, Command::Hold(hold.clone()));
                let tier = self.account.tier;
                Told::Held(held.map(|()| Granted { tier }).map_err(HoldFailed::Denied))
            }
            Ask::Settle { settle, keep, .. } => {
                let request = settle.request;
                if done {
                    let keep = keep.clone().map(|keep| (request, keep.transcript));
                    let first = keep.filter(|_| !self.ledger.contains_key(&request));
                    self.kept.extend(first);
                    assert_eq!(
                        self.command(request, Command::Settle(settle.clone())),
                        Ok(())
                    );
                }
                let charge = self.ledger.get(&request).filter(|_| !lost);
                let settled = charge.cloned().map(|charge| Settled {
                    charge: Box::new(charge),
                    alert: None,
                });
                Told::Settled(settled.ok_or(SettleFailed::Unavailable))
            }
            Ask::Release { release, .. } => {
                if done {
                    let release = *release;
                    let word = self.command(release.request, Command::Release(release));
                    assert_eq!(word, Ok(()));
                }
                Told::Released(if lost { Err(Unavailable) } else { Ok(()) })
            }
            Ask::Lose { lose, .. } => {
                assert!(
                    self.sent_away,
                    "only a gateway that goes away cuts an answer off"
                );
                if done {
                    let word = self.command(lose.request, Command::Lose(lose.clone()));
                    assert_eq!(word, Ok(()));
                }
                Told::Lost(if lost { Err(Unavailable) } else { Ok(()) })
            }
            Ask::Checkpoint { .. } => {
                Told::Checkpointed(if lost { Err(Unavailable) } else { Ok(()) })
            }
            Ask::Service { .. } => {
                let summary = self.account.summary(self.now.wall).ok();
                let summary = summary.filter(|_| !lost).ok_or(Unavailable.in_words());
                Told::Served(summary.and_then(|summary| api::encode(&summary)))
            }
            Ask::Recall {
                request, device, ..
            } => {
                let recalled = if matches!(how, How::NotAdmitted) {
                    Recalled::Lost
                } else {
                    self.recall(*request, *device)
                };
                Told::Recalled(if lost { Err(Unavailable) } else { Ok(recalled) })
            }
            Ask::Call { .. } => return None,
        })
    }

    /// What a store knows of a question; what was said is kept for ever.
    fn recall(&self, request: RequestId, device: DeviceId) -> Recalled {
        match self.ledger.get(&request) {
            Some(charge) if charge.device != Some(device) => Recalled::NotYours,
            Some(charge) => {
                let charge = Box::new(charge.clone());
                match self.kept.get(&request).cloned() {
                    Some(transcript) => Recalled::Kept { charge, transcript },
                    None => Recalled::Charged(charge),
                }
            }
            None if self.lost.contains_key(&request) => Recalled::Lost,
            None if self.account.holds.contains_key(&request) => Recalled::Elsewhere,
            None => Recalled::Nothing,
        }
    }

    pub(super) fn upstream(&mut self, number: u8, what: &Upstream) {
        let open: Vec<AskId> = self
            .calls
            .iter()
            .filter(|(_, call)| !call.over)
            .map(|(id, _)| *id)
            .collect();
        let Some(&id) = open.get(usize::from(number) % open.len().max(1)) else {
            return;
        };
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if let Upstream::Over { broken } = what {
            call.over = true;
            self.pending.remove(&id);
            let told = Told::Called(broken.map_or(Ok(()), |failure| {
                Err(match failure {
                    Failure::Connect => Broken::Connect,
                    Failure::Timeout => Broken::Timeout,
                    Failure::Reset => Broken::Reset,
                })
            }));
            return self.fine(Input::Told { id, told });
        }
        if !std::mem::replace(&mut call.head, true) {
            let status = match what {
                Upstream::Head { status } => [200, 429, 500, 401][usize::from(status % 4)],
                Upstream::Text
                | Upstream::Finish
                | Upstream::Garbage { .. }
                | Upstream::Over { .. } => 200,
            };
            let head = Head {
                status,
                content_type: None,
                retry_after: None,
            };
            let piece = Progress::Head(head);
            self.fine(Input::Progress { id, piece });
        }
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let body = match what {
            Upstream::Head { .. } | Upstream::Over { .. } => return,
            Upstream::Garbage { bytes } => {
                call.garbled = true;
                bytes.to_vec()
            }
            Upstream::Text => {
                let text = format!("{}.{};", id.0, call.pieces);
                call.pieces += 1;
                piece(call.dialect, &text)
            }
            Upstream::Finish => end(call.dialect),
        };
        let piece = Progress::Body(Bytes::from(body));
        self.fine(Input::Progress { id, piece });
    }
}
