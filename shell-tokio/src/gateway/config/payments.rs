//! `[stripe]`: being paid.

use std::path::{Path, PathBuf};

use mesh_core::billing::stripe::id::MeterId;
use mesh_core::billing::stripe::object::is_web_address;
use mesh_core::billing::stripe::signature::WebhookSecret;
use mesh_core::limits::METER_NAME_BYTES_MAX;
use serde::Deserialize;

use super::{Sources, non_empty};
use crate::files;
use crate::gateway::payments::SecretKey;

/// Where the secrets are when no file is named.
const SECRET_KEY_VARIABLE: &str = "STRIPE_SECRET_KEY";
const WEBHOOK_SECRET_VARIABLE: &str = "STRIPE_WEBHOOK_SECRET";

/// Being paid through Stripe. Its secrets show nothing.
#[derive(Clone, Debug)]
pub struct Stripe {
    /// What Stripe is asked with.
    pub key: SecretKey,
    /// What webhooks are signed with, if they come.
    pub webhook_secret: Option<WebhookSecret>,
    /// Where Stripe is.
    pub api_base: String,
    /// Where whoever has paid is sent; a page of the gateway's if `None`.
    pub success_url: Option<String>,
    /// Where whoever has given up is sent.
    pub cancel_url: Option<String>,
    /// What month's invoices are counted on, if they are collected.
    pub meter: Option<Meter>,
}

/// A meter of Stripe's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// What its events are called.
    pub event_name: String,
    /// Its own id.
    pub id: MeterId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    secret_key_file: PathBuf,
    webhook_secret_file: PathBuf,
    api_base: String,
    success_url: String,
    cancel_url: String,
    meter_event_name: String,
    meter_id: String,
}

/// See [`super::Partial`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape counts")]
pub(super) struct Partial {
    secret_key_file: Option<PathBuf>,
    webhook_secret_file: Option<PathBuf>,
    api_base: Option<String>,
    success_url: Option<String>,
    cancel_url: Option<String>,
    meter_event_name: Option<String>,
    meter_id: Option<String>,
}

pub(super) fn stripe(file: File, sources: Sources<'_>) -> Result<Option<Stripe>, String> {
    let key = secret(
        "secret_key_file",
        &file.secret_key_file,
        SECRET_KEY_VARIABLE,
        sources,
    )?;
    let Some(key) = key else {
        return Ok(None);
    };
    let key = SecretKey::new(&key).ok_or(
        "the Stripe secret key is none: it begins with sk_ or rk_ (not pk_, which is public)",
    )?;
    let variable = WEBHOOK_SECRET_VARIABLE;
    let signing = secret(
        "webhook_secret_file",
        &file.webhook_secret_file,
        variable,
        sources,
    )?;
    let webhook_secret = match signing {
        None => None,
        Some(text) => Some(
            WebhookSecret::new(&text)
                .ok_or("the Stripe webhook secret is none: it begins with whsec_")?,
        ),
    };
    let page = |name: &str, url: String| match non_empty(url) {
        Some(url) if !is_web_address(&url) => Err(format!(
            "stripe.{name} must be an address like https://example.org/paid"
        )),
        url => Ok(url),
    };
    let meter = match (non_empty(file.meter_event_name), non_empty(file.meter_id)) {
        (None, None) => None,
        (Some(event_name), Some(_)) if !is_meter_name(&event_name) => {
            return Err(format!(
                "stripe.meter_event_name has 1 to {METER_NAME_BYTES_MAX} characters of ASCII, \
                 without spaces"
            ));
        }
        (Some(event_name), Some(id)) => Some(Meter {
            event_name,
            id: id
                .parse()
                .map_err(|_| "stripe.meter_id must be like mtr_…")?,
        }),
        (_, _) => {
            return Err(
                "stripe.meter_event_name and stripe.meter_id: give both or none".to_owned(),
            );
        }
    };
    Ok(Some(Stripe {
        key,
        webhook_secret,
        api_base: file.api_base,
        success_url: page("success_url", file.success_url)?,
        cancel_url: page("cancel_url", file.cancel_url)?,
        meter,
    }))
}

fn is_meter_name(name: &str) -> bool {
    name.len() <= METER_NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A secret from its file, or else from the environment.
fn secret(
    setting: &str,
    path: &Path,
    variable: &str,
    sources: Sources<'_>,
) -> Result<Option<String>, String> {
    if path.as_os_str().is_empty() {
        return Ok((sources.env)(variable).and_then(non_empty));
    }
    let read = files::read_private(path)
        .map_err(|error| format!("stripe.{setting}: {}: {error}", path.display()))?;
    Ok(Some(read))
}

#[cfg(all(test, unix))]
mod tests;
