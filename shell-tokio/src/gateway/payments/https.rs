//! Stripe over HTTPS.

use std::fmt;

use bytes::{Bytes, BytesMut};
use mesh_core::billing::stripe::request::{Failure, Request, VERSION, judge};
use mesh_core::limits::{PAYMENT_ATTEMPT_TIMEOUT, PAYMENT_BODY_BYTES_MAX, STRIPE_SECRET_BYTES_MAX};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};

use super::port::{Exchange, PaymentProvider};
use crate::error::Error;
use crate::gateway::upstream::http::{base_client, is_loopback, local_client};

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Stripe's secret key, `sk_…` or a restricted one, `rk_…`. `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(HeaderValue);

impl SecretKey {
    /// Takes a key as the operator gave it; surrounding white space is no part of it. `None` for what
    /// is none.
    #[must_use]
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        let secret = key
            .strip_prefix("sk_")
            .or_else(|| key.strip_prefix("rk_"))?;
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).ok()?;
        value.set_sensitive(true);
        let fits = !secret.is_empty() && key.len() <= STRIPE_SECRET_BYTES_MAX;
        (fits && key.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Self(value))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Https {
    client: Client,
    base: String,
    headers: HeaderMap,
}

impl Https {
    /// Opens no connection.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for an address that is none or would carry the key readable over a
    /// network.
    pub fn new(base: &str, key: &SecretKey) -> Result<Self, Error> {
        let wrong = |words: &str| Error::Validation(format!("stripe.api_base {words}"));
        let url = Url::parse(base.trim_end_matches('/'))
            .ok()
            .filter(|url| url.has_host() && url.query().is_none() && url.username().is_empty())
            .ok_or_else(|| wrong("must be like https://api.stripe.com"))?;
        let local = is_loopback(&url);
        let client = match url.scheme() {
            "https" => base_client().build(),
            "http" if local => local_client(),
            _ => {
                return Err(wrong(
                    "must begin with https://, or the key would travel readable",
                ));
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, key.0.clone());
        headers.insert(STRIPE_VERSION, HeaderValue::from_static(VERSION));
        Ok(Self {
            client: client.map_err(|error| wrong(&format!("cannot be used: {error}")))?,
            base: url.as_str().trim_end_matches('/').to_owned(),
            headers,
        })
    }

    async fn attempt(&self, request: &Request) -> Result<Bytes, Failure> {
        let mut url = format!("{}{}", self.base, request.path);
        let building = if request.post {
            let mut headers = self.headers.clone();
            headers.insert(CONTENT_TYPE, FORM);
            if let Some(key) = &request.idempotency_key
                && let Ok(key) = HeaderValue::try_from(key)
            {
                headers.insert(IDEMPOTENCY_KEY, key);
            }
            let body = request.form.clone();
            self.client.post(url).headers(headers).body(body)
        } else {
            if !request.form.is_empty() {
                url = format!("{url}?{}", request.form);
            }
            self.client.get(url).headers(self.headers.clone())
        };
        let unknown = |error: reqwest::Error| {
            // Without the address: it names who pays.
            tracing::debug!(error = %error.without_url(), "the exchange with Stripe broke");
            Failure::Unknown
        };
        let mut response = building.send().await.map_err(unknown)?;
        let status = response.status().as_u16();
        let body = whole(&mut response).await.map_err(unknown)?;
        let Some(body) = body else {
            return Err(if response.status().is_success() {
                Failure::NotUnderstood
            } else {
                Failure::Unknown
            });
        };
        judge(status, &body)?;
        Ok(body)
    }
}

impl PaymentProvider for Https {
    fn exchange<'a>(&'a self, request: &'a Request) -> Exchange<'a> {
        Box::pin(async move {
            let attempt = tokio::time::timeout(PAYMENT_ATTEMPT_TIMEOUT, self.attempt(request));
            attempt.await.unwrap_or(Err(Failure::Unknown))
        })
    }
}

/// A body, unless it is larger than any of Stripe's.
async fn whole(response: &mut Response) -> reqwest::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > PAYMENT_BODY_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_stripes_secret_one_and_is_not_shown() {
        let key = SecretKey::new(" sk_live_51Canary\n").unwrap();
        assert_eq!(format!("{key:?}"), "SecretKey(..)");
        assert!(SecretKey::new("rk_test_x").is_some());
        for bad in [
            "",
            "sk_",
            "pk_live_x",
            "whsec_x",
            "sk_a b",
            "sk_a\nb",
            "sk_ü",
        ] {
            assert!(SecretKey::new(bad).is_none(), "{bad:?}");
        }
        let https = Https::new("https://api.stripe.com/", &key).unwrap();
        assert!(!format!("{https:?}").contains("Canary"), "{https:?}");
    }

    #[test]
    fn a_key_never_travels_readable_over_a_network() {
        let key = SecretKey::new("sk_test_x").unwrap();
        for good in [
            "https://api.stripe.com",
            "http://127.0.0.1:1",
            "http://localhost:1/sub/",
        ] {
            assert!(Https::new(good, &key).is_ok(), "{good}");
        }
        for bad in [
            "",
            "stripe",
            "http://api.stripe.com",
            "ftp://x",
            "https://u@x",
            "https://x/?y",
        ] {
            assert!(Https::new(bad, &key).is_err(), "{bad}");
        }
    }
}
