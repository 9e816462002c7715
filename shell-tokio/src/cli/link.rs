//! The way to the gateway: through the running agent if there is one, else a tunnel of our own.

use std::time::Duration;

use mesh_core::api::{Method, Params};
use mesh_core::device::unfinished::Listed;
use mesh_core::ids::RequestId;
use mesh_core::limits::PERSON_TIMEOUT;
use mesh_core::tunnel::FailureKind;
use mesh_core::wire::message::EscalationRequest;
use serde::de::DeserializeOwned;

use super::Scene;
use crate::device::answer::Answer;
use crate::device::client::{Client, Options};
use crate::device::control::AgentLink;
use crate::device::credentials::{Credentials, not_enrolled};
use crate::device::settings::Settings;
use crate::device::status::Status;
use crate::error::Error;

/// See the module documentation.
#[derive(Debug)]
pub(super) enum Link {
    /// Through the agent.
    Agent(AgentLink),
    /// Our own tunnel, which ends with the command.
    Own(Client),
}

impl Link {
    /// Finds the agent, or connects.
    ///
    /// # Errors
    ///
    /// When this device is not enrolled, or the gateway cannot be reached.
    pub(super) async fn open(scene: &Scene) -> Result<Self, Error> {
        let link = Self::start(scene).await?;
        let Self::Own(client) = &link else {
            return Ok(link);
        };
        match tokio::time::timeout(PERSON_TIMEOUT, client.connected()).await {
            Ok(connected) => connected.map(|()| link),
            Err(_) => {
                let failure = client.subscribe().borrow().last_failure.clone();
                Err(failure
                    .unwrap_or_else(|| FailureKind::TimedOut.into())
                    .into())
            }
        }
    }

    /// Finds the agent, or starts to connect: what is kept on this device can be had without a
    /// gateway.
    ///
    /// # Errors
    ///
    /// When this device is not enrolled.
    pub(super) async fn start(scene: &Scene) -> Result<Self, Error> {
        let folder = scene.paths.device();
        if let Some(agent) = AgentLink::find(&folder).await? {
            return Ok(Self::Agent(agent));
        }
        let Some(credentials) = Credentials::load(&folder)? else {
            return Err(not_enrolled());
        };
        let settings = Settings::load(&folder)?;
        let options = Options {
            privacy: settings.privacy,
            terms: settings.terms,
            keeps: Some(folder),
            ..Options::default()
        };
        Client::start(credentials, options).map(Self::Own)
    }

    /// Questions that are unfinished on this device, and what is to be said of files that cannot be
    /// used.
    pub(super) async fn unfinished(&self) -> Result<(Vec<Listed>, Vec<String>), Error> {
        match self {
            Self::Agent(agent) => Ok((agent.unfinished().await?, Vec::new())),
            Self::Own(client) => {
                let trouble = client.adopt().await?;
                Ok((client.unfinished().await?, trouble))
            }
        }
    }

    /// The answer to one of them, from its first word on.
    pub(super) async fn resume(&self, id: RequestId) -> Result<Answer, Error> {
        match self {
            Self::Agent(agent) => agent.resume(id).await,
            Self::Own(client) => client.resume(id).await,
        }
    }

    /// Asks a question.
    pub(super) async fn ask(&self, request: EscalationRequest) -> Result<Answer, Error> {
        match self {
            Self::Agent(agent) => agent.ask(request).await,
            Self::Own(client) => client.ask(request).await,
        }
    }

    /// One round trip.
    pub(super) async fn ping(&self) -> Result<Duration, Error> {
        match self {
            Self::Agent(agent) => agent.ping().await,
            Self::Own(client) => client.ping().await,
        }
    }

    /// A typed call.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        params: Params,
    ) -> Result<T, Error> {
        match self {
            Self::Agent(agent) => agent.call(method, params).await,
            Self::Own(client) => client.call(method, params).await,
        }
    }

    /// How the tunnel is, and the account.
    pub(super) async fn status(&self) -> Result<Status, Error> {
        match self {
            Self::Agent(agent) => agent.status().await,
            Self::Own(client) => Ok(client.status().await),
        }
    }

    /// Which way it is, for people.
    pub(super) const fn path(&self) -> &'static str {
        match self {
            Self::Agent(_) => "through the agent",
            Self::Own(_) => "through a tunnel of this command's own",
        }
    }

    /// Says goodbye to the gateway, if the tunnel is ours.
    pub(super) async fn close(self) {
        match self {
            Self::Agent(_) => {}
            Self::Own(client) => client.close().await,
        }
    }
}
