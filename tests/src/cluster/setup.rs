//! What a cluster is started with.

use std::net::SocketAddr;

use crate::stripe::{FakeStripe, SECRET_KEY, WEBHOOK_SECRET};
use crate::upstream::{Dialect, FakeUpstream};

/// What a cluster is started with.
#[derive(Debug, Default)]
pub struct Setup {
    pub(super) upstream: Option<SocketAddr>,
    pub(super) relay: bool,
    pub(super) price: Option<&'static str>,
    pub(super) log: Option<&'static str>,
    pub(super) settings: Vec<(&'static str, String)>,
    /// What the gateway's process has in its environment besides.
    pub(super) secrets: Vec<(&'static str, &'static str)>,
    /// What all processes have in their environment besides.
    pub(super) environment: Vec<(&'static str, String)>,
}

impl Setup {
    /// A gateway whose models `openai` (also `auto`) and `anthropic` are `upstream`'s in its two
    /// formats, at claude_sonnet's price ($3 and $15 per million tokens; cache reads $0.30, writes
    /// $3.75).
    #[must_use]
    pub fn with_upstream(upstream: &FakeUpstream) -> Self {
        Self::with_upstream_at(upstream.address())
    }

    /// The same, for a server that speaks both formats at an address.
    #[must_use]
    pub fn with_upstream_at(upstream: SocketAddr) -> Self {
        Self {
            upstream: Some(upstream),
            ..Self::default()
        }
    }

    /// A gateway with the built-in echo model only.
    #[must_use]
    pub fn with_echo() -> Self {
        Self::default()
    }

    /// Puts a relay between the devices and the gateway.
    #[must_use]
    pub fn through_relay(mut self) -> Self {
        self.relay = true;
        self
    }

    /// Charges the models by another of the built-in prices.
    #[must_use]
    pub fn priced(mut self, price: &'static str) -> Self {
        self.price = Some(price);
        self
    }

    /// Logs by another filter than [`LOG`](super::LOG).
    #[must_use]
    pub fn logging(mut self, filter: &'static str) -> Self {
        self.log = Some(filter);
        self
    }

    /// Sets one of the gateway's settings by its path, `tunnel.listen`.
    #[must_use]
    pub fn set(mut self, path: &'static str, value: &str) -> Self {
        self.settings.push((path, value.to_owned()));
        self
    }

    /// Sets a variable in the environment of all processes.
    #[must_use]
    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// The same, unless it is set already.
    #[must_use]
    pub fn or(self, path: &'static str, value: &str) -> Self {
        match self.settings.iter().any(|(set, _)| *set == path) {
            true => self,
            false => self.set(path, value),
        }
    }

    /// Lets accounts pay in through a small Stripe.
    #[must_use]
    pub fn paid_through(mut self, stripe: &FakeStripe) -> Self {
        self.secrets.push(("STRIPE_SECRET_KEY", SECRET_KEY));
        self.secrets.push(("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET));
        self.set("stripe.api_base", &stripe.base())
    }

    pub(super) fn config(&self) -> String {
        let Some(upstream) = self.upstream else {
            return "default_model = \"loopback\"\n".to_owned();
        };
        let price = self.price.unwrap_or("claude_sonnet");
        let mut config = "default_model = \"openai\"\n".to_owned();
        for (name, dialect) in [
            ("openai", Dialect::OpenAi),
            ("anthropic", Dialect::Anthropic),
        ] {
            let url = dialect.base_url(upstream);
            config += &format!(
                "[[provider]]\nname = \"{name}-provider\"\ndialect = \"{name}\"\n\
                 base_url = \"{url}\"\napi_key_env = \"TEST_PROVIDER_KEY\"\n\
                 [[model]]\nname = \"{name}\"\nprovider = \"{name}-provider\"\n\
                 model = \"scripted-{name}\"\nprice = \"{price}\"\n"
            );
        }
        config
    }
}
