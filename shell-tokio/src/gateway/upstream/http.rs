//! Model servers over HTTP/1.1: one pool of kept-alive connections, TLS by rustls and ring.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mesh_core::dialect::ModelRequest;
use mesh_core::dialect::exchange::{Broken, Head};
use mesh_core::limits::MODELS_LISTED_MAX;
use mesh_core::time::UnixMillis;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder, Url, redirect};
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::{AuthStyle, CallKey, Listed, News, Outlet, ProviderConfig, ProviderKey, UpstreamError};

/// To a connection that is ready for a request, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept: longer than the minute between two pre-warm signals.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// A provider that was warmed this recently is warm.
const WARM_FOR: Duration = Duration::from_secs(30);
/// For the whole of the exchange that warms a connection.
const WARM_TIMEOUT: Duration = Duration::from_secs(10);

/// Over it: as if the server had no list of models.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A list of models, as either format has it.
#[derive(Deserialize)]
struct List {
    data: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

/// The clients for model servers on this machine and elsewhere.
#[derive(Debug)]
pub struct HttpUpstreams {
    /// Never goes through a proxy and needs no certificate authorities.
    local: Client,
    /// Made when the first provider elsewhere is configured: a machine without certificate
    /// authorities can still use its own model server.
    remote: Option<Client>,
}

/// One provider, ready to be called.
#[derive(Debug)]
pub struct HttpProvider {
    name: String,
    local: bool,
    base: Url,
    auth: HeaderMap,
    style: AuthStyle,
    warmed: Arc<Mutex<Option<Instant>>>,
}

/// A call that has not been sent yet.
pub(super) struct Start {
    provider: String,
    request: RequestBuilder,
    /// Where a key of the account's own goes; `None` where it would be readable on the way.
    style: Option<AuthStyle>,
}

impl HttpUpstreams {
    /// Goes on with the connections of an older one.
    pub(super) fn inherit(&mut self, old: Self) {
        self.local = old.local;
        self.remote = old.remote.or(self.remote.take());
    }

    /// Opens no connection.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Tls`].
    pub fn new() -> Result<Self, UpstreamError> {
        Ok(Self {
            local: local_client().map_err(|error| tls(&error))?,
            remote: None,
        })
    }

    /// Checks a provider's settings and makes it ready to be called.
    ///
    /// # Errors
    ///
    /// See [`UpstreamError`].
    pub fn provider(&mut self, config: ProviderConfig) -> Result<HttpProvider, UpstreamError> {
        let name = config.name;
        let base = Url::parse(config.base_url.trim_end_matches('/'))
            .ok()
            .filter(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
                    && url.fragment().is_none()
            });
        let Some(base) = base else {
            return Err(UpstreamError::BaseUrl { name });
        };
        let local = is_loopback(&base);
        let mut auth = HeaderMap::new();
        if let Some(key) = &config.key {
            if base.scheme() == "http" && !local {
                return Err(UpstreamError::PlainKey { name });
            }
            let Some((header, value)) = header(config.auth, key) else {
                return Err(UpstreamError::Key { name });
            };
            auth.insert(header, value);
        }
        if !local && self.remote.is_none() {
            self.remote = Some(base_client().build().map_err(|error| tls(&error))?);
        }
        Ok(HttpProvider {
            name,
            local,
            base,
            auth,
            style: config.auth,
            warmed: Arc::default(),
        })
    }

    fn client(&self, provider: &HttpProvider) -> &Client {
        match &self.remote {
            Some(remote) if !provider.local => remote,
            Some(_) | None => &self.local,
        }
    }

    pub(super) fn start(
        &self,
        provider: &HttpProvider,
        key: &CallKey,
        request: ModelRequest,
    ) -> Start {
        let mut headers = match key {
            CallKey::Configured => provider.auth.clone(),
            CallKey::Found(_) => HeaderMap::new(),
        };
        for (name, value) in request.headers {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let url = format!(
            "{}{}",
            provider.base.as_str().trim_end_matches('/'),
            request.path
        );
        let post = self.client(provider).post(url);
        Start {
            provider: provider.name.clone(),
            request: post.headers(headers).body(request.body),
            style: (provider.local || provider.base.scheme() == "https").then_some(provider.style),
        }
    }

    /// The names in a provider's list of models.
    pub(super) async fn list(&self, provider: &HttpProvider, within: Duration) -> Listed {
        let base = provider.base.as_str().trim_end_matches('/');
        let path = match provider.style {
            AuthStyle::Bearer => "/models",
            AuthStyle::XApiKey => "/v1/models",
        };
        let asked = self.client(provider).get(format!("{base}{path}"));
        let asked = asked.headers(provider.auth.clone()).timeout(within);
        let Ok(mut response) = asked.send().await else {
            return Listed::Silent;
        };
        let mut body = Vec::new();
        while let Ok(Some(bytes)) = response.chunk().await {
            if body.len() + bytes.len() > LIST_BYTES_MAX {
                return Listed::Unlisted;
            }
            body.extend_from_slice(&bytes);
        }
        match serde_json::from_slice::<List>(&body) {
            Ok(list) if response.status().is_success() => {
                let names = list.data.into_iter().map(|model| model.id);
                Listed::Models(names.take(MODELS_LISTED_MAX).collect())
            }
            Ok(_) | Err(_) => Listed::Unlisted,
        }
    }

    /// Opens a connection in the background unless one was opened a moment ago. What is asked on it
    /// (`HEAD` of the base URL, without the key) does not matter: the connection is kept.
    pub(super) fn warm(&self, provider: &HttpProvider) -> Option<JoinHandle<()>> {
        {
            // A poisoned lock holds a time all the same.
            let mut warmed = provider
                .warmed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if warmed.is_some_and(|at| at.elapsed() < WARM_FOR) {
                return None;
            }
            *warmed = Some(Instant::now());
        }
        let name = provider.name.clone();
        let head = self
            .client(provider)
            .head(provider.base.clone())
            .timeout(WARM_TIMEOUT);
        Some(tokio::spawn(async move {
            match head.send().await {
                Ok(_) => tracing::debug!(provider = name, "a connection is warm"),
                Err(error) => {
                    tracing::debug!(provider = name, error = %reason(&error), "not warmed")
                }
            }
        }))
    }
}

/// The header that a provider takes its key in; `None` when the key has characters that none can carry.
fn header(style: AuthStyle, key: &ProviderKey) -> Option<(HeaderName, HeaderValue)> {
    let (header, value) = match style {
        AuthStyle::Bearer => (AUTHORIZATION, format!("Bearer {}", key.0)),
        AuthStyle::XApiKey => (HeaderName::from_static("x-api-key"), key.0.clone()),
    };
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some((header, value))
}

/// Adds the account's own key, where the call goes with one; `None` when there is none to be had.
pub(super) async fn authorize(start: Start, key: CallKey) -> Option<Start> {
    let CallKey::Found(key) = key else {
        return Some(start);
    };
    let (header, value) = header(start.style?, &key.await?)?;
    Some(Start {
        request: start.request.header(header, value),
        ..start
    })
}

/// What a provider says to a key that is none, without asking it.
pub(super) async fn refuse<T, F: Fn(News) -> T>(outlet: Arc<Outlet<T, F>>) -> Result<(), Broken> {
    let head = Head {
        status: 401,
        content_type: Some("application/json".to_owned()),
        retry_after: None,
    };
    let words = r#"{"error":{"message":"the account's own key cannot be used here"}}"#;
    let unread = |_| Broken::Reset;
    outlet.send(News::Head(head)).await.map_err(unread)?;
    outlet
        .body(Bytes::from_static(words.as_bytes()))
        .await
        .map_err(unread)
}

/// Sends the request and carries the response back.
pub(super) async fn carry<T, F: Fn(News) -> T>(
    start: Start,
    outlet: Arc<Outlet<T, F>>,
) -> Result<(), Broken> {
    let Start {
        provider, request, ..
    } = start;
    let broken = |error: reqwest::Error| {
        tracing::warn!(provider, error = %reason(&error), "the exchange with the model server broke");
        if error.is_connect() {
            Broken::Connect
        } else if error.is_timeout() {
            Broken::Timeout
        } else {
            Broken::Reset
        }
    };
    let mut response = request.send().await.map_err(broken)?;
    let headers = response.headers();
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let head = Head::from_fields(response.status().as_u16(), field, wall_clock());
    let unread = |_| Broken::Reset;
    outlet.send(News::Head(head)).await.map_err(unread)?;
    while let Some(bytes) = response.chunk().await.map_err(broken)? {
        outlet.body(bytes).await.map_err(unread)?;
    }
    Ok(())
}

/// For other machines: no redirects, a kept connection, certificates of public authorities.
pub(in crate::gateway) fn base_client() -> ClientBuilder {
    // Another part of the process may have installed the same one before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        // A redirect could carry the key to somebody else.
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .user_agent(concat!("synesis/", env!("CARGO_PKG_VERSION")))
}

/// For addresses of this machine: no proxy whatever the environment says, and no certificate
/// authorities.
pub(in crate::gateway) fn local_client() -> reqwest::Result<Client> {
    base_client().no_proxy().tls_certs_only([]).build()
}

/// Whether a URL's host is this machine by its very name, without asking any resolver.
pub(in crate::gateway) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// The same of a text, which may be no URL.
pub(crate) fn is_loopback_url(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| is_loopback(&url))
}

fn tls(error: &reqwest::Error) -> UpstreamError {
    UpstreamError::Tls(reason(error))
}

/// An error and its causes in one line, without the URL.
fn reason(error: &reqwest::Error) -> String {
    let mut reason = if error.is_connect() {
        "cannot connect".to_owned()
    } else if error.is_timeout() {
        "timed out".to_owned()
    } else {
        "broke off".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        reason.push_str(": ");
        reason.push_str(&error.to_string());
        cause = error.source();
    }
    reason
}

fn wall_clock() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
