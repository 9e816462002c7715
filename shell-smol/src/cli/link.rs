//! The way to the gateway: through the running agent if there is one, else a tunnel of our own.

use mesh_core::device::control::Part;
use mesh_core::device::status::Status;
use mesh_core::device::unfinished::Listed;
use mesh_core::ids::RequestId;
use mesh_core::wire::message::{EscalationRequest, StreamEnd};

use super::Scene;
use crate::device::answer::Answer;
use crate::device::client::Client;
use crate::device::control::{AgentAnswer, AgentLink};
use crate::device::credentials;
use crate::error::Error;

/// See the module documentation.
#[derive(Debug)]
pub(super) enum Link {
    /// Through the agent.
    Agent(AgentLink),
    /// Our own tunnel, which ends with the command.
    Own(Client),
}

/// An answer by either way.
#[derive(Debug)]
pub(super) enum Asked {
    /// Through the agent.
    Agent(AgentAnswer),
    /// Through our own tunnel.
    Own(Answer),
}

impl Link {
    /// Finds the agent, or connects.
    ///
    /// # Errors
    ///
    /// When this device is not enrolled, or the gateway cannot be reached.
    pub(super) async fn open(scene: &Scene<'_>) -> Result<Self, Error> {
        let link = Self::start(scene).await?;
        if let Self::Own(client) = &link {
            client.connected().await?;
        }
        Ok(link)
    }

    /// Finds the agent, or starts to connect: what is kept on this device can be had without a
    /// gateway.
    ///
    /// # Errors
    ///
    /// When this device is not enrolled.
    pub(super) async fn start(scene: &Scene<'_>) -> Result<Self, Error> {
        if let Some(agent) = AgentLink::find(&scene.folder).await? {
            return Ok(Self::Agent(agent));
        }
        let enrolment = credentials::load(&scene.folder)?;
        let client = Client::start(scene.executor, &enrolment, &scene.folder)?;
        scene.watch(&client);
        Ok(Self::Own(client))
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
    pub(super) async fn resume(&self, id: RequestId) -> Result<Asked, Error> {
        Ok(match self {
            Self::Agent(agent) => Asked::Agent(agent.resume(id).await?),
            Self::Own(client) => Asked::Own(client.resume(id).await?),
        })
    }

    /// Asks a question.
    pub(super) async fn ask(&self, question: EscalationRequest) -> Result<Asked, Error> {
        Ok(match self {
            Self::Agent(agent) => Asked::Agent(agent.ask(question).await?),
            Self::Own(client) => Asked::Own(client.ask(question).await?),
        })
    }

    /// How the tunnel is, and the account.
    pub(super) async fn status(&self) -> Result<Status, Error> {
        match self {
            Self::Agent(agent) => agent.status().await,
            Self::Own(client) => Ok(client.status().await),
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

impl Asked {
    /// The next piece of the text, or what became of the tunnel; `None` when the answer is whole.
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Error> {
        match self {
            Self::Agent(answer) => answer.next().await,
            Self::Own(answer) => answer.next().await,
        }
    }

    /// Asks for no more; the receipt still comes.
    pub(super) async fn cancel(&self) {
        match self {
            Self::Agent(answer) => answer.cancel().await,
            Self::Own(answer) => answer.cancel().await,
        }
    }

    /// Usage and charge, once the answer is whole.
    pub(super) fn receipt(&self) -> Option<&StreamEnd> {
        match self {
            Self::Agent(answer) => answer.receipt(),
            Self::Own(answer) => answer.receipt(),
        }
    }
}
