//! `synesis-lite run`: keeps the tunnel up until it is told to stop, and lets other programs ask
//! through it.

use mesh_core::device::State;
use smol::future::FutureExt as _;

use super::output::{note, tunnel_line};
use super::{Interrupts, Scene, Stop};
use crate::device::client::Client;
use crate::device::control::{self, ControlSocket};
use crate::device::credentials;

/// Runs it.
pub(super) async fn run(scene: &Scene<'_>) -> Result<(), Stop> {
    let enrolment = credentials::load(&scene.folder)?;
    let socket = ControlSocket::bind(&scene.folder)?;
    let mut interrupts = Interrupts::new()?;
    let client = Client::start_agent(scene.executor, &enrolment, &scene.folder)?;
    for words in client.adopt().await? {
        note(&words);
    }
    if scene.events {
        scene.watch(&client);
    } else {
        let about = client.about();
        note(&format!(
            "Agent for {} at {}. Ctrl-C stops.",
            about.device, about.gateway
        ));
        let client = client.clone();
        let told = async move { tell(&client).await };
        scene.executor.spawn(told).detach();
    }
    let serving = control::serve(scene.executor, &socket, &client);
    interrupts.next().or(serving).await;
    client.close().await;
    Ok(())
}

/// Tells the tunnel's states, for people.
async fn tell(client: &Client) {
    // Not worth a word: it is connecting in the next moment.
    let mut shown = State::Disconnected.to_string();
    loop {
        let standing = client
            .wait_for(|standing| tunnel_line(standing) != shown)
            .await;
        shown = tunnel_line(&standing);
        note(&shown);
    }
}
