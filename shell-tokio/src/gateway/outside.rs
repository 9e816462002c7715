//! What the root machine asks of the world outside, carried out: each question a task of the driver's
//! thread, each answer a command to the driver.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_core::gateway::{
    Ask, AskId, Config as Rules, Drain, Event, Gateway, Input, KeyOf, Output, Progress, Told,
};
use mesh_core::ids::DeviceId;
use mesh_core::machine::Machine as _;
use mesh_core::quic::Quic;
use mesh_core::time::Now;
use tokio::sync::mpsc;

use super::config::Billing;
use super::keys::Keys;
use super::services::Services;
use super::store::StoreError;
use super::upstream::{Call, CallKey, News, Upstreams};
use crate::driver::{Host, Request};

/// What the driver's host is told.
#[derive(Debug)]
pub(super) enum Command {
    Progress(AskId, Progress),
    Told(AskId, Told),
    Revoked(DeviceId),
    Reload(Box<Terms>),
    Drain(Drain),
    Stop,
}

/// What a gateway may change while it runs.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) rules: Rules,
    pub(super) upstreams: Upstreams,
    pub(super) billing: Billing,
}

/// Carries out what the machine asks for.
pub(super) struct Outside {
    services: Services,
    keys: Arc<Keys>,
    upstreams: Upstreams,
    calls: BTreeMap<AskId, Call>,
    inbox: mpsc::Sender<Command>,
    unbooked: Arc<AtomicUsize>,
}

impl Outside {
    /// With nothing under way; what is asked outside is told through the `inbox`.
    pub(super) fn new(
        services: Services,
        keys: Arc<Keys>,
        upstreams: Upstreams,
        inbox: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            services,
            keys,
            upstreams,
            calls: BTreeMap::new(),
            inbox,
            unbooked: Arc::default(),
        }
    }

    /// How many answers' ends could not be written down, as it is counted.
    pub(super) fn unbooked(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.unbooked)
    }

    fn ask(&mut self, now: Now, id: AskId, ask: Ask) {
        if let Ask::Call {
            provider,
            key,
            call,
        } = ask
        {
            let (sink, key) = (self.inbox.clone(), self.key(&provider, key));
            let news = move |news| match news {
                News::Head(head) => Command::Progress(id, Progress::Head(head)),
                News::Body(bytes) => Command::Progress(id, Progress::Body(bytes)),
                News::End(end) => Command::Told(id, Told::Called(end)),
            };
            let call = self.upstreams.call(&provider, key, call, sink, news);
            self.calls.insert(id, call);
            return;
        }
        let (services, inbox) = (self.services.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let told = ask_outside(&services, now, ask).await;
            // The driver has ended: nobody is left to be told.
            let _ended = inbox.send(Command::Told(id, told)).await;
        });
    }
}

impl Outside {
    /// From now on; calls under way are not touched, and answers that call a provider again find it.
    fn take_terms(&mut self, upstreams: Upstreams, billing: Billing) {
        self.services.accounts.providers = upstreams.with_keys();
        self.services.accounts.billing = billing;
        let old = std::mem::replace(&mut self.upstreams, upstreams);
        self.upstreams.inherit(old);
    }

    /// The key that a call goes with; an account's own is looked up when it is needed, and not kept.
    fn key(&self, provider: &str, of: KeyOf) -> CallKey {
        let KeyOf::Account(account) = of else {
            return CallKey::Configured;
        };
        let (store, keys) = (self.services.store.clone(), Arc::clone(&self.keys));
        let provider = provider.to_owned();
        CallKey::Found(Box::pin(async move {
            let sealed = store.provider_key(account, provider.clone()).await;
            let sealed = sealed.inspect_err(|error| {
                tracing::warn!(%account, %error, "a provider's key cannot be read");
            });
            let key = keys.open(account, &provider, &sealed.ok()??);
            if key.is_none() {
                tracing::error!(%account, provider, "the sealed key is not one of this gateway's");
            }
            key
        }))
    }
}

async fn ask_outside(services: &Services, now: Now, ask: Ask) -> Told {
    fn logged<T, E: From<StoreError>>(result: Result<T, StoreError>) -> Result<T, E> {
        result.map_err(|error| {
            tracing::debug!(%error, "the store says no");
            error.into()
        })
    }
    let (store, wall) = (&services.store, now.wall);
    match ask {
        Ask::Admit {
            device,
            certificate,
        } => Told::Admitted(logged(store.admit(device, certificate, wall).await)),
        Ask::Hold { account, hold } => Told::Held(logged(store.hold(account, hold, wall).await)),
        Ask::Settle {
            account,
            settle,
            keep,
        } => {
            let settled = store.settle_and_keep(account, settle, keep, wall);
            Told::Settled(logged(settled.await))
        }
        Ask::Release { account, release } => {
            Told::Released(logged(store.release(account, release, wall).await))
        }
        Ask::Lose { account, lose } => Told::Lost(logged(store.cut_off(account, lose, wall).await)),
        Ask::Checkpoint { account, lose } => {
            let request = lose.request;
            let kept = store.checkpoint(account, lose).await;
            tracing::debug!(%account, %request, kept = kept.is_ok(), "checkpoint");
            Told::Checkpointed(logged(kept))
        }
        Ask::Service {
            account,
            device,
            method,
            params,
        } => {
            let served = services.serve(account, method, params, wall).await;
            if let Err(refused) = &served {
                tracing::debug!(%device, method = method.as_str(), code = %refused.code, "a call was refused");
            }
            Told::Served(served)
        }
        Ask::Recall {
            account,
            device,
            request,
        } => {
            let recalled = store.recall(account, device, request, wall).await;
            if let Ok(known) = &recalled {
                let known = known.name();
                tracing::info!(%device, %request, known, "asked for an answer that is not here");
            }
            Told::Recalled(logged(recalled))
        }
        // Carried out by `Outside::ask`; here for completeness of the match.
        Ask::Call { .. } => Told::Called(Err(mesh_core::dialect::exchange::Broken::Connect)),
    }
}

impl Host for Outside {
    type Machine = Gateway<Quic>;
    type Command = Command;

    fn command(&mut self, now: Now, machine: &mut Gateway<Quic>, command: Command) -> Request {
        let input = match command {
            Command::Progress(id, piece) => Input::Progress { id, piece },
            Command::Told(id, told) => {
                self.calls.remove(&id);
                Input::Told { id, told }
            }
            Command::Revoked(device) => Input::Revoked(device),
            Command::Reload(terms) => {
                let Terms {
                    rules,
                    upstreams,
                    billing,
                } = *terms;
                self.take_terms(upstreams, billing);
                Input::Configured(rules)
            }
            Command::Drain(drain) => {
                let (tunnels, answers) = (machine.sessions(), machine.answers_under_way());
                let limit_secs = drain.limit.as_secs();
                tracing::info!(tunnels, answers, limit_secs, "going away");
                Input::Drain(drain)
            }
            Command::Stop => Input::Stop,
        };
        if let Err(rejected) = machine.handle_input(now, input) {
            tracing::error!(%rejected, "the gateway would not take an input: a bug");
        }
        Request::None
    }

    fn output(
        &mut self,
        now: Now,
        _machine: &Gateway<Quic>,
        output: Output,
    ) -> ControlFlow<(), Request> {
        match output {
            Output::Ask { id, ask } => self.ask(now, id, ask),
            Output::Credit { id, bytes } => {
                if let Some(call) = self.calls.get(&id) {
                    call.credit(bytes);
                }
            }
            Output::Abandon { id } => {
                self.calls.remove(&id);
            }
            Output::Warm { provider } => self.upstreams.warm(&provider),
            Output::Event(event) => {
                if matches!(event, Event::Unbooked { .. }) {
                    self.unbooked.fetch_add(1, Ordering::Relaxed);
                }
                log(&event);
            }
            Output::Stopped => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(Request::None)
    }

    /// The machine's own timers are late by as much; QUIC notices by itself.
    fn woke(&mut self, _now: Now, _machine: &mut Gateway<Quic>, asleep: Duration) -> Request {
        tracing::info!(secs = asleep.as_secs(), "the machine slept");
        Request::None
    }
}

fn log(event: &Event) {
    match event {
        Event::HandshakeRefused { remote } => tracing::info!(%remote, "handshake refused"),
        Event::TunnelUp {
            device,
            account,
            epoch,
            remote,
            handshake,
        } => {
            let handshake_us = handshake.as_micros();
            tracing::info!(%device, %account, epoch, %remote, handshake_us, "tunnel up");
        }
        Event::TunnelDown { device, reason } => tracing::info!(?device, reason, "tunnel down"),
        Event::SentAway {
            device,
            reconnect_in,
        } => {
            let in_ms = reconnect_in.as_millis();
            tracing::debug!(%device, in_ms, "told to go elsewhere");
        }
        Event::Charged {
            account,
            device,
            request,
            charge,
        } => tracing::info!(%account, %device, %request, charge = %charge.charge, "charged"),
        Event::Failed {
            device,
            request,
            code,
        } => tracing::info!(%device, %request, %code, "refused or failed"),
        Event::Detached { device, request } => {
            tracing::info!(%device, %request, "its stream is lost; the answer goes on");
        }
        Event::Attached {
            device,
            request,
            how,
            from,
            running,
        } => tracing::info!(%device, %request, ?how, from, running, "came back to its answer"),
        Event::Forgotten { device, request } => {
            tracing::debug!(%device, %request, "the answer's text is no longer kept");
        }
        Event::Unbooked { device, request } => tracing::error!(
            %device, %request,
            "the store stayed away: how this answer ended is not written down, and left as after a crash"
        ),
        Event::LateAnswer => tracing::warn!("the store or a model server answered too late"),
    }
}
