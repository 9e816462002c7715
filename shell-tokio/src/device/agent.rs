//! The long-running device: one tunnel, kept up for ever, that other programs ask through.

use std::path::Path;

use super::client::{Client, Options};
use super::control::{self, ControlSocket};
use super::credentials::{Credentials, not_enrolled};
use super::settings::Settings;
use crate::error::Error;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    client: Client,
    socket: ControlSocket,
}

impl Agent {
    /// Takes the data folder's lock, opens the control socket and starts to connect.
    ///
    /// # Errors
    ///
    /// When the device is not enrolled, another agent runs, or the system refuses.
    pub fn start(folder: &Path) -> Result<Self, Error> {
        let credentials = Credentials::load(folder)?.ok_or_else(not_enrolled)?;
        let socket = ControlSocket::bind(folder)?;
        let options = Options {
            persistent: true,
            vitals_of: Some(folder.to_owned()),
            privacy: Settings::load(folder)?.privacy,
        };
        Ok(Self {
            client: Client::start(credentials, options)?,
            socket,
        })
    }

    /// Lets other programs ask through a tunnel that is there already.
    ///
    /// # Errors
    ///
    /// When another agent runs for the folder, or the system refuses.
    pub fn of(client: Client, folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            client,
            socket: ControlSocket::bind(folder)?,
        })
    }

    /// The agent's tunnel.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Serves other programs until dropped.
    pub async fn serve(&self) {
        control::serve(&self.socket, &self.client).await;
    }

    /// Says goodbye to the gateway and takes the socket away.
    pub async fn stop(self) {
        self.client.close().await;
    }
}
