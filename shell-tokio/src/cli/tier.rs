//! `synesis cloud tier` and `synesis cloud provider-key`: how this account is charged, and with whose
//! keys providers are paid.

use std::io::Read as _;

use mesh_core::api::account::{ProviderKeyQuery, ProviderKeySet, TierQuery, Tiers};
use mesh_core::api::{Method, Params};
use mesh_core::limits::PROVIDER_KEY_BYTES_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::link::Link;
use super::status::tier as in_words;
use super::{Scene, Stop, args};
use crate::error::Error;

/// Shows or changes the tier.
pub(super) async fn run(wish: &args::Tier, scene: &Scene) -> Result<(), Stop> {
    let query = TierQuery {
        change_to: wish.change_to,
    };
    let tiers: Tiers = call(Method::AccountTier, &query, scene).await?;
    if wish.json {
        return scene.output.json(&tiers);
    }
    scene.output.line(&in_words(tiers.tier))?;
    if wish.change_to.is_none() {
        let names: Vec<&str> = tiers.choices.iter().map(|tier| tier.name()).collect();
        scene.output.note(&if names.is_empty() {
            "The gateway's operator chooses the tier.".to_owned()
        } else {
            format!("Can be chosen: {}.", names.join(", "))
        });
    }
    Ok(())
}

/// Gives the gateway a provider's key, or has it forget one.
pub(super) async fn provider_key(command: &args::ProviderKey, scene: &Scene) -> Result<(), Stop> {
    let (query, json) = match command {
        args::ProviderKey::Set { provider, json } => {
            let query = ProviderKeyQuery {
                provider: provider.clone(),
                key: Some(key_from_stdin()?),
            };
            (query, *json)
        }
        args::ProviderKey::Clear { provider, json } => {
            let query = ProviderKeyQuery {
                provider: provider.clone(),
                key: None,
            };
            (query, *json)
        }
    };
    let done: ProviderKeySet = call(Method::AccountProviderKey, &query, scene).await?;
    if json {
        return scene.output.json(&done);
    }
    let provider = &done.provider;
    scene.output.line(&if done.set {
        format!("the gateway has this account's key for {provider}; it is never shown again")
    } else {
        format!("the gateway has no key of this account's for {provider}")
    })
}

fn key_from_stdin() -> Result<String, Stop> {
    let mut key = String::new();
    let most = u64::try_from(PROVIDER_KEY_BYTES_MAX).unwrap_or(u64::MAX);
    std::io::stdin()
        .lock()
        .take(most + 1)
        .read_to_string(&mut key)
        .map_err(|error| Error::io("reading the key from stdin", error))?;
    if key.len() > PROVIDER_KEY_BYTES_MAX {
        return Err(Stop::invalid(
            "stdin is too long for a provider's key".to_owned(),
        ));
    }
    let key = key.trim();
    if key.is_empty() {
        let words = "give the key on stdin: synesis cloud provider-key set anthropic < key.txt";
        return Err(Stop::invalid(words.to_owned()));
    }
    Ok(key.to_owned())
}

async fn call<T: DeserializeOwned>(
    method: Method,
    query: &impl Serialize,
    scene: &Scene,
) -> Result<T, Stop> {
    let params = Params::new(query).map_err(Error::from)?;
    let spinner = scene.output.spinner("asking the gateway");
    let link = Link::open(scene).await?;
    let asked = link.call(method, params).await;
    drop(spinner);
    link.close().await;
    Ok(asked?)
}
