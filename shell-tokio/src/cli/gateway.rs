//! `synesis gateway`: runs until Ctrl-C or a polite kill.

use std::path::Path;

use super::args::Gateway;
use super::{Scene, Stop};
use crate::gateway::config::{Config, DOCUMENTED, Sources};
use crate::gateway::server::Server;

/// Runs it.
pub(super) async fn run(gateway: &Gateway, scene: &Scene) -> Result<(), Stop> {
    if gateway.print_config {
        return scene.output.piece(DOCUMENTED);
    }
    let mut flags: Vec<(&str, String)> = gateway
        .set
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    if let Some(address) = &gateway.public_address {
        flags.push(("tunnel.public_address", address.clone()));
    }
    let config = load(gateway.config.as_deref(), &flags, scene)?;
    let folder = config.data_dir.clone();
    let server = Server::start(config, |name| std::env::var(name).ok()).await?;
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
    super::until_stopped().await;
    output.note("Stopping: answers under way are settled.");
    server.stop().await;
    Ok(())
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
