//! `synesis agent`: keeps the tunnel up until it is told to stop.

use mesh_core::tunnel::State;

use super::{Scene, Stop, until_stopped};
use crate::device::agent::Agent;

/// Where programs of this machine can ask.
pub(super) fn say_endpoint(agent: &Agent, scene: &Scene) {
    match agent.endpoint() {
        Some(Ok(endpoint)) => {
            if let Some(address) = endpoint.address() {
                scene.output.note(&format!(
                    "Endpoint http://{address}/v1 for OpenAI's and Anthropic's clients; `synesis env` has the key."
                ));
            }
            if let Some(socket) = endpoint.socket() {
                scene.output.note(&format!(
                    "Endpoint on the Unix socket {}, without a key.",
                    socket.display()
                ));
            }
        }
        Some(Err(error)) => scene.output.note(&format!("No endpoint: {error}")),
        None => {}
    }
}

/// Runs it.
pub(super) async fn run(scene: &Scene) -> Result<(), Stop> {
    let output = scene.output;
    let agent = Agent::start(&scene.paths.device())?;
    output.note(&format!(
        "Agent for {} at {}. Ctrl-C stops.",
        agent.client().device_id(),
        agent.client().gateway()
    ));
    say_endpoint(&agent, scene);
    let mut standing = agent.client().subscribe();
    let report = async {
        // Not worth a word: it is connecting in the next moment.
        let mut shown = Some((State::Disconnected, None));
        loop {
            let now = {
                let standing = standing.borrow_and_update();
                let reason = standing
                    .last_failure
                    .as_ref()
                    .filter(|_| !standing.is_connected());
                (standing.state, reason.map(ToString::to_string))
            };
            if shown.as_ref() != Some(&now) {
                let (state, reason) = &now;
                let reason = reason
                    .as_ref()
                    .map_or(String::new(), |reason| format!(": {reason}"));
                output.note(&format!("{state}{reason}"));
                shown = Some(now);
            }
            if standing.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        // First, so that signals are listened for before anything is said.
        biased;
        () = until_stopped() => {}
        () = report => {}
        () = agent.serve() => {}
    }
    agent.stop().await;
    Ok(())
}
