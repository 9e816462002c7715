//! Model servers: carries the core's requests to them and their bytes back.
//!
//! ```text
//!   core: Ask::Call ──▶ Upstreams::call ──▶ task ──▶ http | loopback
//!   core: Credit    ──▶ Call::credit    ──▶  │
//!   core: Abandon   ──▶ drop(Call)      ──▶  │
//!                              sink ◀── News: Head, Body …, End (exactly one)
//! ```
//!
//! Nothing is decided here: deadlines, retries and what bytes mean are the core's. The one time-out
//! of this side is for connecting.
//!
//! # Invariants
//!
//! 1. Every call ends with exactly one [`News::End`], abandoned or not.
//! 2. At most one piece of a body more than the credit granted is read from a model server; behind
//!    that, TCP's own flow control slows it down.
//! 3. Keys are in no `Debug`, no log and no error.

pub mod discover;
pub mod http;
pub mod loopback;
pub mod models;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_core::dialect::exchange::{Broken, Head};
use mesh_core::dialect::{MaxTokensField, ModelRequest};
use mesh_core::wire::message::DialectName;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub(crate) use self::http::is_loopback_url;
use self::http::{HttpProvider, HttpUpstreams};

/// The name under which the built-in echo model is always there.
pub const LOOPBACK: &str = "loopback";

/// A provider's key. `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderKey(String);

impl ProviderKey {
    /// Takes a key as the operator gave it; surrounding white space (a file's last line feed) is no
    /// part of it. `None` when nothing is left.
    #[must_use]
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(key.to_owned()))
    }
}

impl ProviderKey {
    /// Whether a header can carry it.
    pub(super) fn fits_a_header(&self) -> bool {
        self.0.bytes().all(|byte| (0x21..0x7F).contains(&byte))
    }

    /// The key itself, to be sealed and for nothing else.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

/// With whose key a provider is called.
pub enum CallKey {
    /// The one in the gateway's configuration.
    Configured,
    /// The one that this finds; none refuses the call.
    Found(Pin<Box<dyn Future<Output = Option<ProviderKey>> + Send>>),
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallKey(..)")
    }
}

impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderKey(..)")
    }
}

/// In which header a provider takes its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStyle {
    /// `Authorization: Bearer …`
    Bearer,
    /// `x-api-key: …`
    XApiKey,
}

impl AuthStyle {
    /// What servers of a format usually take.
    #[must_use]
    pub const fn usual(dialect: DialectName) -> Self {
        match dialect {
            DialectName::Openai => Self::Bearer,
            DialectName::Anthropic => Self::XApiKey,
        }
    }
}

/// One provider, as the operator configured or the environment showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// What the model table calls it.
    pub name: String,
    /// What it speaks.
    pub dialect: DialectName,
    /// Where it is: with `/v1` for OpenAI's format, without for Anthropic's.
    pub base_url: String,
    /// What it wants to see.
    pub key: Option<ProviderKey>,
    /// Where it wants to see it.
    pub auth: AuthStyle,
    /// How it wants to be told the longest answer.
    pub max_tokens_field: MaxTokensField,
}

impl ProviderConfig {
    /// A provider with the usual settings of its format.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        dialect: DialectName,
        base_url: impl Into<String>,
        key: Option<ProviderKey>,
    ) -> Self {
        Self {
            name: name.into(),
            dialect,
            base_url: base_url.into(),
            key,
            auth: AuthStyle::usual(dialect),
            max_tokens_field: MaxTokensField::default(),
        }
    }
}

/// Why a provider cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The URL is none, or of another scheme.
    #[error(
        "provider {name}: base_url must be an http:// or https:// URL without user, query or fragment"
    )]
    BaseUrl {
        /// Whose.
        name: String,
    },
    /// A key would travel readable for everyone on the way.
    #[error("provider {name}: a key is only sent over https://, or over http:// to this machine")]
    PlainKey {
        /// Whose.
        name: String,
    },
    /// The key has characters that no header can carry.
    #[error("provider {name}: the key has characters that no HTTP header can carry")]
    Key {
        /// Whose.
        name: String,
    },
    /// Two providers of one name, or one that is called as the echo model is.
    #[error("provider {name}: the name is taken")]
    Name {
        /// Which.
        name: String,
    },
    /// TLS could not be set up.
    #[error("TLS for model servers cannot be set up: {0}")]
    Tls(String),
}

/// What comes back from a model server.
#[derive(Debug)]
pub enum News {
    /// The response's head; at most once, first.
    Head(Head),
    /// The next bytes of its body.
    Body(Bytes),
    /// Nothing more comes: the body's end, or how it broke. Exactly once, last.
    End(Result<(), Broken>),
}

/// A call that is under way; dropping it stops it.
#[derive(Debug)]
pub struct Call {
    credit: Arc<Semaphore>,
    _abandon: oneshot::Sender<()>,
}

impl Call {
    /// Lets so many more bytes of the body be read.
    pub fn credit(&self, bytes: usize) {
        let room = Semaphore::MAX_PERMITS - self.credit.available_permits();
        self.credit.add_permits(bytes.min(room));
    }
}

/// What a server's list of models says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// The server does not answer.
    Silent,
    /// It has no list.
    Unlisted,
    /// The names in it.
    Models(Vec<String>),
}

/// Where a call's task puts its news.
struct Outlet<T, F> {
    sink: mpsc::Sender<T>,
    wrap: F,
    credit: Arc<Semaphore>,
}

/// Nobody reads the news any more.
struct NobodyReads;

impl<T, F: Fn(News) -> T> Outlet<T, F> {
    async fn send(&self, news: News) -> Result<(), NobodyReads> {
        self.sink
            .send((self.wrap)(news))
            .await
            .map_err(|_| NobodyReads)
    }

    /// Sends a piece of the body and waits until there is credit for it, so that the next is not
    /// read before.
    async fn body(&self, bytes: Bytes) -> Result<(), NobodyReads> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.send(News::Body(bytes)).await?;
        let paid = self.credit.acquire_many(length).await;
        paid.map_err(|_| NobodyReads)?.forget();
        Ok(())
    }
}

enum Upstream {
    Loopback,
    Http(Box<HttpProvider>),
}

/// All providers of one gateway.
pub struct Upstreams {
    http: HttpUpstreams,
    providers: BTreeMap<String, Upstream>,
    formats: BTreeMap<String, (DialectName, MaxTokensField)>,
    echo_pace: Duration,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.providers.keys()).finish()
    }
}

impl Upstreams {
    /// Takes the configured providers; the echo model is there besides. Opens no connection.
    ///
    /// # Errors
    ///
    /// The first provider that cannot be used as it is.
    pub fn new(configs: impl IntoIterator<Item = ProviderConfig>) -> Result<Self, UpstreamError> {
        let mut providers = BTreeMap::from([(LOOPBACK.to_owned(), Upstream::Loopback)]);
        let echo = (DialectName::Openai, MaxTokensField::default());
        let mut formats = BTreeMap::from([(LOOPBACK.to_owned(), echo)]);
        let mut http = HttpUpstreams::new()?;
        for config in configs {
            if providers.contains_key(&config.name) {
                return Err(UpstreamError::Name { name: config.name });
            }
            let name = config.name.clone();
            formats.insert(name.clone(), (config.dialect, config.max_tokens_field));
            providers.insert(name, Upstream::Http(Box::new(http.provider(config)?)));
        }
        Ok(Self {
            http,
            providers,
            formats,
            echo_pace: Duration::ZERO,
        })
    }

    /// Whether there is a provider of that name.
    #[must_use]
    pub fn has(&self, provider: &str) -> bool {
        self.providers.contains_key(provider)
    }

    /// The providers that take a key.
    #[must_use]
    pub fn with_keys(&self) -> Vec<String> {
        let takes = |(name, upstream): (&String, &Upstream)| match upstream {
            Upstream::Http(_) => Some(name.clone()),
            Upstream::Loopback => None,
        };
        self.providers.iter().filter_map(takes).collect()
    }

    /// What a provider speaks, and how it wants to be told the longest answer.
    #[must_use]
    pub fn format(&self, provider: &str) -> Option<(DialectName, MaxTokensField)> {
        self.formats.get(provider).copied()
    }

    /// Starts a call. `wrap` makes of its news what the `sink` takes (with the call's own id in it,
    /// say); a full sink holds the call back. Must be called inside a tokio runtime.
    pub fn call<T, F>(
        &self,
        provider: &str,
        key: CallKey,
        request: ModelRequest,
        sink: mpsc::Sender<T>,
        wrap: F,
    ) -> Call
    where
        T: Send + 'static,
        F: Fn(News) -> T + Send + Sync + 'static,
    {
        let credit = Arc::new(Semaphore::new(0));
        let (abandon, abandoned) = oneshot::channel();
        let outlet = Outlet {
            sink,
            wrap,
            credit: Arc::clone(&credit),
        };
        match self.providers.get(provider) {
            Some(Upstream::Http(provider)) => {
                let start = self.http.start(provider, &key, request);
                spawn(outlet, abandoned, |outlet| async move {
                    match http::authorize(start, key).await {
                        Some(start) => http::carry(start, outlet).await,
                        None => http::refuse(outlet).await,
                    }
                });
            }
            Some(Upstream::Loopback) => {
                let pace = self.echo_pace;
                spawn(outlet, abandoned, move |outlet| {
                    loopback::carry(request, pace, outlet)
                });
            }
            None => {
                tracing::error!(
                    provider,
                    "the model table names a provider that does not exist"
                );
                spawn(outlet, abandoned, |_| async { Err(Broken::Connect) });
            }
        }
        Call {
            credit,
            _abandon: abandon,
        }
    }

    /// The same with an echo model that takes so long for each word.
    #[must_use]
    pub const fn with_echo_pace(mut self, pace: Duration) -> Self {
        self.echo_pace = pace;
        self
    }

    /// Takes over what an older set has beyond this one: warm connections, and providers that are no
    /// longer configured, for answers that began with them.
    pub fn inherit(&mut self, old: Self) {
        self.http.inherit(old.http);
        for (name, upstream) in old.providers {
            self.providers.entry(name).or_insert(upstream);
        }
    }

    /// What a provider's list of models says; `Silent` when there is no such provider.
    pub async fn list(&self, provider: &str, within: Duration) -> Listed {
        match self.providers.get(provider) {
            Some(Upstream::Http(provider)) => self.http.list(provider, within).await,
            Some(Upstream::Loopback) => Listed::Models(vec![LOOPBACK.to_owned()]),
            None => Listed::Silent,
        }
    }

    /// Has a connection to the provider ready, if it does not have one from a moment ago.
    pub fn warm(&self, provider: &str) {
        if let Some(Upstream::Http(provider)) = self.providers.get(provider) {
            // It ends by itself, and nobody waits for it.
            drop(self.http.warm(provider));
        }
    }
}

/// Runs a transfer to its end or until its [`Call`] is dropped, then sends the one last word.
fn spawn<T, F, C, Fut>(outlet: Outlet<T, F>, abandoned: oneshot::Receiver<()>, transfer: C)
where
    T: Send + 'static,
    F: Fn(News) -> T + Send + Sync + 'static,
    C: FnOnce(Arc<Outlet<T, F>>) -> Fut,
    Fut: Future<Output = Result<(), Broken>> + Send + 'static,
{
    let outlet = Arc::new(outlet);
    let transfer = transfer(Arc::clone(&outlet));
    tokio::spawn(async move {
        let end = tokio::select! {
            end = transfer => end,
            // Nothing is ever sent: this is the drop of the call.
            _ = abandoned => Err(Broken::Reset),
        };
        // A reader that is gone needs no last word.
        let _ = outlet.send(News::End(end)).await;
    });
}
