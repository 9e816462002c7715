//! The long-running device: one tunnel, kept up for ever, that other programs ask through.

use std::path::Path;

use super::client::{Client, Options};
use super::control::{self, ControlSocket};
use super::credentials::{Credentials, not_enrolled};
use super::endpoint::Endpoint;
use super::endpoint::keys::Keys;
use super::settings::Settings;
use crate::error::Error;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    client: Client,
    socket: ControlSocket,
    endpoint: Option<Result<Endpoint, Error>>,
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
        let settings = Settings::load(folder)?;
        let options = Options {
            persistent: true,
            vitals_of: Some(folder.to_owned()),
            privacy: settings.privacy.clone(),
            terms: settings.terms,
            keeps: Some(folder.to_owned()),
        };
        let client = Client::start(credentials, options)?;
        Ok(Self::serving(client, socket, folder, &settings))
    }

    /// Lets other programs ask through a tunnel that is there already.
    ///
    /// # Errors
    ///
    /// When another agent runs for the folder, or the system refuses.
    pub fn of(client: Client, folder: &Path) -> Result<Self, Error> {
        let socket = ControlSocket::bind(folder)?;
        let settings = Settings::load(folder)?;
        Ok(Self::serving(client, socket, folder, &settings))
    }

    /// With the endpoint, if it can be had: a port that is taken is no reason to be without a tunnel.
    fn serving(client: Client, socket: ControlSocket, folder: &Path, settings: &Settings) -> Self {
        let adopting = client.clone();
        tokio::spawn(async move {
            // It says itself what cannot be used; a client that is closed has no use for any of it.
            let _closed = adopting.adopt().await;
        });
        let wanted = settings.endpoint.is_some() || settings.socket.is_some();
        let endpoint = wanted.then(|| {
            let keys = Keys::open(folder)?;
            Endpoint::start(settings, client.clone(), keys)
        });
        Self {
            client,
            socket,
            endpoint,
        }
    }

    /// The local endpoint, or why there is none; `None` when none is wanted.
    #[must_use]
    pub const fn endpoint(&self) -> Option<&Result<Endpoint, Error>> {
        self.endpoint.as_ref()
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
