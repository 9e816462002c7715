//! The gateway's outside world: a script of model servers, and a store with the real rules.

use super::*;

/// What a model server does with one call.
#[derive(Clone, Debug)]
pub(in crate::device::tests) enum Upstream {
    /// Answers with these pieces of text, then says what it counted: 1 000 in, 500 out.
    Whole(&'static [&'static str]),
    /// Sends these pieces and then nothing.
    Hang(&'static [&'static str]),
    /// Sends these pieces, then its connection breaks.
    Break(&'static [&'static str]),
    /// Answers with an error status.
    Status(u16),
}

/// The gateway's outside world.
pub(in crate::device::tests) struct Outside {
    pub(in crate::device::tests) admission: Result<(), NotAdmitted>,
    pub(in crate::device::tests) account: Account,
    pub(in crate::device::tests) ledger: BTreeMap<RequestId, Charge>,
    /// What finished answers said, as long as it is kept.
    pub(in crate::device::tests) kept: BTreeMap<RequestId, Transcript>,
    /// Whether another gateway has what nobody has ended.
    pub(in crate::device::tests) elsewhere: bool,
    pub(in crate::device::tests) lost: BTreeMap<RequestId, Loss>,
    pub(in crate::device::tests) upstreams: VecDeque<Upstream>,
    /// Holds and settles are left to the test while this is set.
    pub(in crate::device::tests) silent: bool,
    pub(in crate::device::tests) unanswered: Vec<(AskId, Ask)>,
    /// While this is set admissions are decided and kept back in `late`.
    pub(in crate::device::tests) admits_late: bool,
    pub(in crate::device::tests) late: Vec<gateway::Input>,
    /// What was asked besides admissions, in order.
    pub(in crate::device::tests) asked: Vec<&'static str>,
    pub(in crate::device::tests) events: Vec<gateway::Event>,
    pub(in crate::device::tests) warmed: usize,
    pub(in crate::device::tests) stopped: bool,
    pub(super) calls: Vec<AskId>,
    epoch: u64,
}

impl Outside {
    pub(super) fn new() -> Self {
        let tier = Tier::Managed { markup_bps: 300 };
        Self {
            admission: Ok(()),
            account: Account::new(tier, Nanos(100_000_000_000)),
            ledger: BTreeMap::new(),
            kept: BTreeMap::new(),
            elsewhere: false,
            lost: BTreeMap::new(),
            upstreams: VecDeque::new(),
            silent: false,
            unanswered: Vec::new(),
            admits_late: false,
            late: Vec::new(),
            asked: Vec::new(),
            events: Vec::new(),
            warmed: 0,
            stopped: false,
            calls: Vec::new(),
            epoch: 0,
        }
    }

    fn prior(&self, request: RequestId) -> Option<Prior> {
        let charged = self.ledger.get(&request).cloned().map(Prior::Charged);
        charged.or_else(|| self.lost.get(&request).cloned().map(Prior::Lost))
    }

    /// Decides and applies, as a store does in one transaction.
    pub(in crate::device::tests) fn command(
        &mut self,
        request: RequestId,
        command: Command,
    ) -> Result<(), Denied> {
        let facts = Facts {
            now: WALL,
            prior: self.prior(request),
            provider_key: true,
        };
        for entry in account::decide(&self.account, &facts, command)? {
            account::apply(&mut self.account, WALL, &entry)?;
            match entry {
                Entry::Charged(charge) => drop(self.ledger.insert(request, charge)),
                Entry::Lost(loss) => drop(self.lost.insert(request, loss)),
                Entry::Held(..) | Entry::Released(_) => {}
            }
        }
        Ok(())
    }

    /// What the world says to an ask, in order.
    pub(super) fn reply(&mut self, id: AskId, ask: Ask) -> Vec<gateway::Input> {
        let told = match ask {
            Ask::Admit { .. } => {
                self.epoch += 1;
                let (account, epoch) = (ACCOUNT, self.epoch);
                let word = self.admission.map(|()| Admitted { account, epoch });
                if self.admits_late {
                    self.late.push(told(id, Told::Admitted(word)));
                    return Vec::new();
                }
                Told::Admitted(word)
            }
            Ask::Hold { ref hold, .. } => {
                self.asked.push("hold");
                if self.silent {
                    self.unanswered.push((id, ask));
                    return Vec::new();
                }
                let held = self.command(hold.request, Command::Hold(hold.clone()));
                let tier = self.account.tier;
                Told::Held(held.map(|()| Granted { tier }).map_err(HoldFailed::Denied))
            }
            Ask::Settle {
                ref settle,
                ref keep,
                ..
            } => {
                self.asked.push("settle");
                if self.silent {
                    return vec![told(id, Told::Settled(Err(SettleFailed::Unavailable)))];
                }
                let request = settle.request;
                let before = Mark::of(&self.account);
                self.command(request, Command::Settle(settle.clone()))
                    .unwrap();
                let alert = Alert::passed(before, &self.account);
                let charge = Box::new(self.ledger[&request].clone());
                let keep = keep.clone();
                self.kept
                    .extend(keep.map(|keep| (request, keep.transcript)));
                Told::Settled(Ok(Settled { charge, alert }))
            }
            Ask::Release { release, .. } => {
                self.asked.push("release");
                if self.silent {
                    return vec![told(id, Told::Released(Err(Unavailable)))];
                }
                self.command(release.request, Command::Release(release))
                    .unwrap();
                Told::Released(Ok(()))
            }
            Ask::Recall {
                request, device, ..
            } => {
                self.asked.push("recall");
                Told::Recalled(Ok(self.recall(request, device)))
            }
            Ask::Lose { lose, .. } => {
                self.asked.push("lose");
                if self.silent {
                    return vec![told(id, Told::Lost(Err(Unavailable)))];
                }
                self.command(lose.request, Command::Lose(lose)).unwrap();
                Told::Lost(Ok(()))
            }
            Ask::Checkpoint { .. } => {
                self.asked.push("checkpoint");
                Told::Checkpointed(Ok(()))
            }
            Ask::Service { method, .. } => {
                assert_eq!(method, Method::AccountSummary);
                Told::Served(api::encode(&self.account.summary(WALL).unwrap()))
            }
            Ask::Call { provider, .. } => {
                assert_eq!(provider, "provider", "as the model's row says");
                self.asked.push("call");
                self.calls.push(id);
                return self.call(id);
            }
        };
        vec![self::told(id, told)]
    }

    /// A gateway that is new holds nothing.
    fn recall(&self, request: RequestId, device: DeviceId) -> Recalled {
        if let Some(loss) = self.lost.get(&request) {
            return if loss.device == Some(device) {
                Recalled::Lost
            } else {
                Recalled::NotYours
            };
        }
        let Some(charge) = self.ledger.get(&request) else {
            return if self.elsewhere {
                Recalled::Elsewhere
            } else {
                Recalled::Nothing
            };
        };
        if charge.device != Some(device) {
            return Recalled::NotYours;
        }
        let charge = Box::new(charge.clone());
        match self.kept.get(&request).cloned() {
            Some(transcript) => Recalled::Kept { charge, transcript },
            None => Recalled::Charged(charge),
        }
    }

    pub(super) fn call(&mut self, id: AskId) -> Vec<gateway::Input> {
        let upstream = self.upstreams.pop_front().expect("a scripted upstream");
        let progress = |piece| gateway::Input::Progress { id, piece };
        let head = |status| {
            progress(Progress::Head(Head {
                status,
                content_type: None,
                retry_after: None,
            }))
        };
        let text = |piece: &&str| progress(Progress::Body(sse_text(piece)));
        match upstream {
            Upstream::Whole(pieces) => {
                let mut said = vec![head(200)];
                said.extend(pieces.iter().map(text));
                said.push(progress(Progress::Body(Bytes::from_static(SSE_END))));
                said.push(told(id, Told::Called(Ok(()))));
                said
            }
            Upstream::Hang(pieces) => {
                let mut said = vec![head(200)];
                said.extend(pieces.iter().map(text));
                said
            }
            Upstream::Break(pieces) => {
                let mut said = vec![head(200)];
                said.extend(pieces.iter().map(text));
                said.push(told(id, Told::Called(Err(Broken::Reset))));
                said
            }
            Upstream::Status(status) => {
                let body = Bytes::from_static(br#"{"error":{"message":"no"}}"#);
                vec![
                    head(status),
                    progress(Progress::Body(body)),
                    told(id, Told::Called(Ok(()))),
                ]
            }
        }
    }
}

pub(super) fn told(id: AskId, told: Told) -> gateway::Input {
    gateway::Input::Told { id, told }
}

pub(super) fn sse_text(piece: &str) -> Bytes {
    let text = serde_json::to_string(piece).unwrap();
    let event = format!(
        "data: {{\"model\":\"sonnet-real\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}}}}]}}\n\n"
    );
    Bytes::from(event)
}

pub(super) const SSE_END: &[u8] =
    b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":500}}\n\n\
data: [DONE]\n\n";
