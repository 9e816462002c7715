//! Looks for model servers that are there without being configured: keys in the environment, and
//! the usual servers on this machine's loopback address.
//!
//! # Invariants
//!
//! 1. Nothing but loopback addresses is ever probed, and no key is sent anywhere.
//! 2. Nobody waits longer than [`PROBE_TIMEOUT`] for it.

use std::time::Duration;

use mesh_core::wire::message::DialectName;
use reqwest::{Client, Url};
use serde::Deserialize;

use super::http::{is_loopback, local_client};
use super::models::{ModelRow, PRICE_FREE};
use super::{ProviderConfig, ProviderKey};

/// To the whole answer of a local server. One that is there answers within a few milliseconds.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// What is read of an answer to a probe; a larger one is no list of models.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Models kept of one server.
const MODELS_MAX: usize = 100;

const ANTHROPIC_URL: &str = "https://api.anthropic.com";
const OPENAI_URL: &str = "https://api.openai.com/v1";

/// The ports on which local servers usually listen, with what usually listens there.
pub const USUAL_PORTS: [(u16, &str); 3] = [(11434, "Ollama"), (8080, "llama.cpp"), (8000, "vLLM")];

/// A model server on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalServer {
    /// What it is, for a person.
    pub label: String,
    /// The provider that it would be.
    pub provider: ProviderConfig,
    /// Its models, in its own order.
    pub models: Vec<String>,
}

impl LocalServer {
    /// The first model that can answer questions.
    #[must_use]
    pub fn chat_model(&self) -> Option<&str> {
        let no_chat = |name: &&String| {
            let name = name.to_lowercase();
            ["embed", "rerank", "whisper", "bge-"]
                .iter()
                .any(|part| name.contains(part))
        };
        self.models
            .iter()
            .find(|name| !no_chat(name))
            .map(String::as_str)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Servers on this machine, the likeliest first.
    pub local: Vec<LocalServer>,
    /// Providers elsewhere that the environment has a key or an address of. Not probed.
    pub remote: Vec<ProviderConfig>,
}

impl Found {
    /// The server and model that a gateway without configuration uses; the echo model if `None`.
    #[must_use]
    pub fn choice(&self) -> Option<(&LocalServer, &str)> {
        self.local
            .iter()
            .find_map(|server| Some((server, server.chat_model()?)))
    }

    /// The row of the model table for a model of a server here: free, under its own name.
    #[must_use]
    pub fn row(server: &LocalServer, model: &str) -> ModelRow {
        ModelRow::new(model, server.provider.name.as_str(), model, PRICE_FREE)
    }

    /// What was found, one sentence each, for the gateway to say on start.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for server in &self.local {
            let at = &server.provider.base_url;
            words.push(match (server.chat_model(), server.models.len()) {
                (Some(model), count) => {
                    format!(
                        "found {} at {at} with {count} models, {model} among them",
                        server.label
                    )
                }
                (None, _) => format!("found {} at {at}, but it has no model to ask", server.label),
            });
        }
        for provider in &self.remote {
            words.push(format!(
                "found {} for {} in the environment; it is used only when configured or asked for \
                 with --model",
                if provider.key.is_some() {
                    "a key"
                } else {
                    "an address"
                },
                provider.base_url
            ));
        }
        if self.local.is_empty() {
            words.push("found no model server on this machine".to_owned());
        }
        words
    }
}

/// Looks at the environment, given as a function from name to value, and at the loopback `ports`.
pub async fn discover(env: impl Fn(&str) -> Option<String>, ports: &[(u16, &str)]) -> Found {
    let key = |name: &str| env(name).as_deref().and_then(ProviderKey::new);
    let mut found = Found::default();
    let mut candidates: Vec<(String, ProviderConfig)> = Vec::new();
    if let Some(key) = key("ANTHROPIC_API_KEY") {
        let dialect = DialectName::Anthropic;
        found.remote.push(ProviderConfig::new(
            "anthropic",
            dialect,
            ANTHROPIC_URL,
            Some(key),
        ));
    }
    let address = env("OPENAI_BASE_URL").filter(|address| !address.trim().is_empty());
    let openai_key = key("OPENAI_API_KEY");
    if address.is_some() || openai_key.is_some() {
        let base_url = address
            .as_deref()
            .unwrap_or(OPENAI_URL)
            .trim()
            .trim_end_matches('/');
        let provider = ProviderConfig::new("openai", DialectName::Openai, base_url, openai_key);
        if Url::parse(base_url).is_ok_and(|url| is_loopback(&url)) {
            candidates.push(("OPENAI_BASE_URL".to_owned(), provider));
        } else {
            found.remote.push(provider);
        }
    }
    for (port, label) in ports {
        let base_url = format!("http://127.0.0.1:{port}/v1");
        // Named after what usually is there, as a configuration would name it.
        let name = label.to_lowercase().replace('.', "");
        let provider = ProviderConfig::new(name, DialectName::Openai, base_url, None);
        candidates.push(((*label).to_owned(), provider));
    }
    let Ok(client) = local_client() else {
        return found;
    };
    let mut probes = tokio::task::JoinSet::new();
    for (order, (label, provider)) in candidates.into_iter().enumerate() {
        let client = client.clone();
        probes.spawn(async move { (order, probe(&client, label, provider).await) });
    }
    let mut answers = probes.join_all().await;
    answers.sort_unstable_by_key(|(order, _)| *order);
    found.local = answers
        .into_iter()
        .filter_map(|(_, server)| server)
        .collect();
    found
}

/// A list of models as `/v1/models` gives it.
#[derive(Deserialize)]
struct ModelList {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
    #[serde(default)]
    owned_by: Option<String>,
}

async fn probe(client: &Client, label: String, provider: ProviderConfig) -> Option<LocalServer> {
    let list = tokio::time::timeout(PROBE_TIMEOUT, list_models(client, &provider.base_url));
    let list = list.await.ok()??;
    // Whoever listens on the usual port may be somebody else, and llama.cpp and vLLM say who.
    let owner = list
        .data
        .first()
        .and_then(|model| model.owned_by.as_deref());
    let label = match owner {
        Some("llamacpp") => "llama.cpp".to_owned(),
        Some("vllm") => "vLLM".to_owned(),
        Some(_) | None => label,
    };
    let models = list
        .data
        .into_iter()
        .take(MODELS_MAX)
        .map(|model| model.id)
        .collect();
    Some(LocalServer {
        label,
        provider,
        models,
    })
}

async fn list_models(client: &Client, base_url: &str) -> Option<ModelList> {
    let mut response = client.get(format!("{base_url}/models")).send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.ok()? {
        if body.len() + bytes.len() > ANSWER_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&bytes);
    }
    serde_json::from_slice(&body).ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A list of models from a real llama.cpp server.
    const REAL_LIST: &str = include_str!("testdata/llama-cpp-models.json");

    /// A server that answers every request with `body` and keeps what it was asked.
    async fn serve(body: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let length_field = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length_field}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (port, task)
    }

    /// A port of this machine on which nobody listens.
    async fn closed_port() -> u16 {
        TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    #[tokio::test]
    async fn a_local_server_is_found_by_its_list_of_models() {
        let (port, asked) = serve(REAL_LIST).await;
        let closed = closed_port().await;
        let found = discover(|_| None, &[(closed, "Ollama"), (port, "vLLM")]).await;
        let (server, model) = found.choice().unwrap();
        assert_eq!((server.label.as_str(), model), ("llama.cpp", "tiny"));
        assert_eq!(
            server.provider.base_url,
            format!("http://127.0.0.1:{port}/v1")
        );
        assert_eq!(found.local.len(), 1);
        assert!(
            asked
                .await
                .unwrap()
                .starts_with("GET /v1/models HTTP/1.1\r\n")
        );
    }

    #[tokio::test]
    async fn what_is_no_model_server_and_what_is_silent_is_not_found() {
        let (page, _) = serve("<html>").await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent_port = silent.local_addr().unwrap().port();
        let found = discover(|_| None, &[(page, "llama.cpp"), (silent_port, "vLLM")]).await;
        assert_eq!(found, Found::default());
        assert_eq!(found.in_words(), ["found no model server on this machine"]);
    }

    #[tokio::test]
    async fn keys_are_named_and_neither_used_nor_printed() {
        let env = |name: &str| match name {
            "ANTHROPIC_API_KEY" => Some("sk-ant-canary\n".to_owned()),
            "OPENAI_API_KEY" => Some(" ".to_owned()),
            "OPENAI_BASE_URL" => Some("https://llm.example/v1/".to_owned()),
            _ => None,
        };
        let found = discover(env, &[]).await;
        let seen: Vec<(&str, &str, bool)> = found
            .remote
            .iter()
            .map(|p| (p.name.as_str(), p.base_url.as_str(), p.key.is_some()))
            .collect();
        assert_eq!(
            seen,
            [
                ("anthropic", "https://api.anthropic.com", true),
                ("openai", "https://llm.example/v1", false)
            ]
        );
        assert!(found.choice().is_none());
        let printed = format!("{found:?} {:?}", found.in_words());
        assert!(!printed.contains("canary"), "{printed}");
    }

    #[tokio::test]
    async fn an_address_of_this_machine_in_the_environment_is_probed_first() {
        let (port, _) = serve(r#"{"data":[{"id":"nomic-embed-text"},{"id":"llama3"}]}"#).await;
        let base_url = format!("http://localhost:{port}/v1");
        let env = |name: &str| (name == "OPENAI_BASE_URL").then(|| base_url.clone());
        let found = discover(env, &[]).await;
        let (server, model) = found.choice().unwrap();
        assert_eq!((server.provider.name.as_str(), model), ("openai", "llama3"));
        assert!(found.remote.is_empty());
    }
}
