//! Which way a question on the local endpoint goes: to the model server of this machine, or through
//! the tunnel.
//!
//! ```text
//!   local/NAME ──────────────────────────────▶ local      it never leaves the device
//!   cloud/NAME, NAME ────────────────────────▶ cloud
//!   auto ── no server set up ────────────────▶ cloud
//!        ── missing, or the GPU is busy ─────▶ cloud, and says why
//!        ── otherwise ───────────────────────▶ local ── fails before its first piece ──▶ cloud, and says why
//! ```
//!
//! # Invariants
//!
//! 1. A question for `local/NAME` never goes to the cloud, whatever fails.
//! 2. Once a piece of an answer was shown, nothing takes another way.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dialect::failure::{FailureKind, UpstreamFailure};
use crate::vitals;
use crate::wire::message::Vitals;

/// What is before the names of the cloud's models, if anything.
pub const CLOUD: &str = "cloud/";
/// What is before the names of this device's models.
pub const LOCAL: &str = "local/";
/// Whichever can.
pub const AUTO: &str = "auto";

/// The way that an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// The model server of this device.
    Local,
    /// The tunnel.
    #[default]
    Cloud,
}

impl Route {
    /// The route's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cloud => "cloud",
        }
    }

    /// Whether it is the tunnel.
    #[must_use]
    pub(crate) const fn is_cloud(&self) -> bool {
        matches!(self, Self::Cloud)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a question for `auto` did not stay here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The local server does not answer, or has no model.
    Missing,
    /// The GPU is over the threshold of the pre-warm signal.
    Busy,
    /// The local server failed, or refused the question.
    Failed,
    /// The local server's first piece did not come in time.
    Late,
}

impl Why {
    /// One word for a header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Late => "late",
        }
    }
}

/// What is known of the local server.
#[derive(Clone, Copy, Debug)]
pub enum Server<'a> {
    /// None is set up.
    None,
    /// It does not answer.
    Silent,
    /// It answers.
    There {
        /// Its models, if it tells them.
        models: Option<&'a [String]>,
    },
}

/// Where to go first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// To the local server.
    Local {
        /// The server's own name of the model.
        model: String,
        /// Whether the cloud is asked if that fails.
        or_cloud: bool,
    },
    /// Through the tunnel.
    Cloud {
        /// The gateway's name of the model.
        model: String,
        /// Why not to the local server, if that was to be first.
        why: Option<Why>,
    },
    /// There is no such model on this device.
    Unknown,
}

/// Whether the local server has to be looked at before [`plan`].
#[must_use]
pub fn may_be_local(model: &str) -> bool {
    model == AUTO || model.starts_with(LOCAL)
}

/// Where a question for a model goes first. `usual` is the local model that `auto` means, if one was
/// set; otherwise it is the first of the server's list.
#[must_use]
pub fn plan(model: &str, server: Server<'_>, usual: Option<&str>, vitals: &Vitals) -> Plan {
    if let Some(name) = model.strip_prefix(LOCAL) {
        return match server {
            Server::None => Plan::Unknown,
            Server::There {
                models: Some(models),
            } if !models.iter().any(|known| is_called(known, name)) => Plan::Unknown,
            // What is silent is asked all the same: it may be there by then, and says why not.
            Server::Silent | Server::There { .. } => Plan::Local {
                model: name.to_owned(),
                or_cloud: false,
            },
        };
    }
    let cloud = |why| Plan::Cloud {
        model: model.strip_prefix(CLOUD).unwrap_or(model).to_owned(),
        why,
    };
    if model != AUTO {
        return cloud(None);
    }
    let models = match server {
        Server::None => return cloud(None),
        Server::Silent => return cloud(Some(Why::Missing)),
        Server::There { models } => models.unwrap_or_default(),
    };
    if vitals::strain(vitals).is_some() {
        return cloud(Some(Why::Busy));
    }
    match usual.or(models.first().map(String::as_str)) {
        Some(name) => Plan::Local {
            model: name.to_owned(),
            or_cloud: true,
        },
        None => cloud(Some(Why::Missing)),
    }
}

/// Ollama lists `llama3:latest` and is asked for `llama3`.
fn is_called(known: &str, name: &str) -> bool {
    known == name || known.strip_suffix(":latest") == Some(name)
}

/// Why the cloud is asked after the local server has failed.
#[must_use]
pub const fn after(failure: &UpstreamFailure) -> Why {
    match failure.kind {
        FailureKind::Connect => Why::Missing,
        FailureKind::Timeout => Why::Late,
        FailureKind::Unauthorized
        | FailureKind::RateLimited { .. }
        | FailureKind::Overloaded { .. }
        | FailureKind::Server { .. }
        | FailureKind::Rejected { .. }
        | FailureKind::Malformed
        | FailureKind::Truncated
        | FailureKind::TooLarge => Why::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> Vitals {
        Vitals {
            gpu_usage: Some(0.8),
            ..Vitals::default()
        }
    }

    fn local(model: &str, or_cloud: bool) -> Plan {
        let model = model.to_owned();
        Plan::Local { model, or_cloud }
    }

    fn cloud(model: &str, why: Option<Why>) -> Plan {
        let model = model.to_owned();
        Plan::Cloud { model, why }
    }

    #[test]
    fn a_model_of_this_device_never_goes_to_the_cloud() {
        let models = ["tiny".to_owned(), "llama3:latest".to_owned()];
        let there = Server::There {
            models: Some(&models),
        };
        let unlisted = Server::There { models: None };
        let hot = Vitals {
            gpu_usage: Some(0.81),
            ..Vitals::default()
        };
        for server in [there, unlisted, Server::Silent] {
            for vitals in [&idle(), &hot] {
                let planned = plan("local/tiny", server, None, vitals);
                assert_eq!(planned, local("tiny", false), "{server:?}");
            }
        }
        let ask = |name, server| plan(name, server, Some("tiny"), &idle());
        assert_eq!(ask("local/llama3", there), local("llama3", false));
        assert_eq!(
            ask("local/llama3:latest", there),
            local("llama3:latest", false)
        );
        for unknown in ["local/", "local/nobody", "local/tin", "local/auto"] {
            assert_eq!(ask(unknown, there), Plan::Unknown, "{unknown}");
        }
        assert_eq!(ask("local/tiny", Server::None), Plan::Unknown);
    }

    #[test]
    fn a_model_of_the_cloud_never_waits_for_the_local_server() {
        let models = ["tiny".to_owned()];
        let there = Server::There {
            models: Some(&models),
        };
        for server in [there, Server::Silent, Server::None] {
            let ask = |name| plan(name, server, Some("tiny"), &idle());
            assert_eq!(ask("cloud/claude"), cloud("claude", None));
            assert_eq!(ask("claude"), cloud("claude", None));
            assert_eq!(ask("cloud/auto"), cloud("auto", None));
            assert_eq!(ask("tiny"), cloud("tiny", None));
        }
    }

    #[test]
    fn whichever_can_is_the_local_server_unless_it_cannot() {
        let models = ["tiny".to_owned(), "big".to_owned()];
        let there = Server::There {
            models: Some(&models),
        };
        let auto = |server, usual, vitals: &Vitals| plan("auto", server, usual, vitals);
        assert_eq!(auto(there, None, &idle()), local("tiny", true));
        assert_eq!(auto(there, Some("big"), &idle()), local("big", true));
        assert_eq!(auto(Server::None, None, &idle()), cloud("auto", None));
        assert_eq!(
            auto(Server::Silent, Some("big"), &idle()),
            cloud("auto", Some(Why::Missing))
        );
        for models in [None, Some(&[][..])] {
            let bare = Server::There { models };
            assert_eq!(auto(bare, None, &idle()), cloud("auto", Some(Why::Missing)));
            assert_eq!(auto(bare, Some("big"), &idle()), local("big", true));
        }
        for hot in [
            Vitals {
                gpu_usage: Some(0.81),
                ..Vitals::default()
            },
            Vitals {
                gpu_temp_celsius: Some(80.5),
                ..Vitals::default()
            },
        ] {
            assert_eq!(auto(there, None, &hot), cloud("auto", Some(Why::Busy)));
        }
        // What has no GPU is never too busy for its own model.
        assert_eq!(auto(there, None, &Vitals::default()), local("tiny", true));
    }

    #[test]
    fn why_the_cloud_was_asked_follows_what_failed() {
        for (kind, why) in [
            (FailureKind::Connect, "missing"),
            (FailureKind::Timeout, "late"),
            (FailureKind::Server { status: 500 }, "failed"),
            (FailureKind::Rejected { status: 400 }, "failed"),
            (FailureKind::Malformed, "failed"),
        ] {
            assert_eq!(after(&UpstreamFailure::from(kind)).as_str(), why);
        }
    }
}
