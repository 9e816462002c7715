//! `synesis gateway`: runs until Ctrl-C or a polite kill, and reads its settings anew at SIGHUP.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::Gateway;
use super::{Scene, Stop};
use crate::error::Error;
use crate::gateway::config::{Config, DOCUMENTED, Sources};
use crate::gateway::server::{Reloaded, Server};
use crate::log;

/// Runs it.
pub(super) async fn run(gateway: &Gateway, scene: &Scene) -> Result<(), Stop> {
    if gateway.print_config {
        return scene.output.piece(DOCUMENTED);
    }
    let config = settings(gateway, scene)?;
    follow_log(&config, scene);
    // From here on no signal is missed.
    let mut signals = Signals::new()?;
    let folder = config.data_dir.clone();
    let mut server = Server::start(config, |name| std::env::var(name).ok()).await?;
    let output = scene.output;
    for finding in server.findings() {
        output.note(&format!("· {finding}"));
    }
    output.note(&format!("model   auto is {}", server.default_model()));
    output.note(&format!("data    {}", folder.display()));
    output.note(&format!("http    {}", server.http_url()));
    output.note(&format!("tunnel  {} (UDP)", server.tunnel_addr()));
    if server
        .store()
        .accounts()
        .await
        .is_ok_and(|accounts| accounts.is_empty())
    {
        output.note(
            "No accounts yet. In another terminal:\n  \
             synesis admin account create --name home\n  \
             synesis admin key create --account home",
        );
    }
    output.note("Ready. Ctrl-C stops.");
    while signals.next().await == Asked::Reload {
        reload(&mut server, gateway, scene).await;
    }
    output.note("Stopping: answers under way are finished. Once more stops at once.");
    server.drain().await;
    loop {
        tokio::select! {
            () = server.ended() => break,
            asked = signals.next() => if asked == Asked::Stop {
                output.note("Stopping now.");
                server.stop_now().await;
            }
        }
    }
    let unbooked = server.unbooked();
    server.stop().await;
    if unbooked > 0 {
        return Err(Stop::Failed(Error::Billing(format!(
            "the store stayed away: the ends of {unbooked} answers are not written down. Their accounts \
             are charged nothing; when a gateway is there again, what they used is booked as a loss"
        ))));
    }
    Ok(())
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

/// Ctrl-C and the signals of service managers.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|error| Error::io("listening for signals", error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

/// Reads the settings anew. Those that are wrong change nothing.
async fn reload(server: &mut Server, gateway: &Gateway, scene: &Scene) {
    let env = |name: &str| std::env::var(name).ok();
    let taken = match settings(gateway, scene) {
        Ok(config) => {
            let log = config.clone();
            let taken = server.reload(config, env).await;
            taken.inspect(|_| follow_log(&log, scene))
        }
        Err(Stop::Failed(error)) => Err(error),
        Err(_) => return,
    };
    match taken {
        Ok(Reloaded { taken, fixed }) => {
            let changed = match taken[..] {
                [] => "nothing".to_owned(),
                _ => taken.join(", "),
            };
            tracing::info!(changed, "the settings were read anew and are in force");
            for setting in fixed {
                tracing::warn!(setting, "changed, but needs a new start of the gateway");
            }
        }
        Err(error) => {
            tracing::error!(%error, "the settings were read anew and cannot be used; the old ones stay in force");
        }
    }
}

/// Logs as the settings say, unless the command line does.
fn follow_log(config: &Config, scene: &Scene) {
    if !scene.log_by_flags {
        // It was checked when it was read.
        let _checked = log::change(config.log_filter.as_deref());
    }
}

fn settings(gateway: &Gateway, scene: &Scene) -> Result<Config, Stop> {
    let mut flags: Vec<(&str, String)> = gateway
        .set
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    if let Some(address) = &gateway.public_address {
        flags.push(("tunnel.public_address", address.clone()));
    }
    load(gateway.config.as_deref(), &flags, scene)
}

/// The gateway's settings: file, environment, flags.
pub(super) fn load(
    path: Option<&Path>,
    flags: &[(&str, String)],
    scene: &Scene,
) -> Result<Config, Stop> {
    let env = |name: &str| std::env::var(name).ok();
    let sources = Sources {
        env: &env,
        flags,
        data_dir: &scene.paths.gateway(),
    };
    Ok(Config::load(path, sources)?)
}
