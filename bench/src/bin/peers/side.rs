//! Those that are measured: how each is started, asked, and what its processes have used.

use std::any::Any;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_tests::cluster::Setup;
use mesh_tests::endpoint::World;
use mesh_tests::process::Process;
use mesh_tests::upstream::FakeUpstream;
use serde_json::{Value, json};

use crate::Failure;
use crate::upstream::{SLOWLY, TOKEN_BYTES, TOKENS};

/// Linux shows processor time in hundredths of a second (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;
/// LiteLLM takes half a minute to start beside other work.
const PATIENCE: Duration = Duration::from_secs(90);

/// From asking to the first content, and to the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) first: Duration,
    pub(crate) total: Duration,
}

/// Something that speaks OpenAI's API, and the processes that it consists of.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) client: Asker,
    /// With their children; none for the model server itself, which everybody needs.
    processes: Vec<u32>,
    /// Ends them when dropped.
    _kept: Option<Box<dyn Any>>,
}

impl Side {
    /// The model server, asked directly.
    pub(crate) fn direct(upstream: SocketAddr) -> Result<Self, Failure> {
        Ok(Self {
            name: "direct",
            client: Asker::new(&upstream.to_string(), &[])?,
            processes: Vec::new(),
            _kept: None,
        })
    }

    /// A device's endpoint, its tunnel over loopback, and a gateway.
    pub(crate) async fn ours(upstream: SocketAddr) -> Result<Self, Failure> {
        let setup = Setup::with_upstream_at(upstream)
            .logging("warn")
            .set("answers.device_per_minute", "10000000")
            .set("answers.account_per_minute", "10000000");
        let world = World::of(setup, FakeUpstream::start().await?, "").await;
        let ids = [world.agent.id(), world.cluster.gateway().id()];
        Ok(Self {
            name: "Synesis",
            client: Asker::new(
                &world.address,
                &[("authorization", &format!("Bearer {}", world.key))],
            )?,
            processes: ids.into_iter().flatten().collect(),
            _kept: Some(Box::new(world)),
        })
    }

    /// LiteLLM's proxy with one worker, without a key, a database or a log.
    pub(crate) async fn litellm(installed: &Path, upstream: SocketAddr) -> Result<Self, Failure> {
        let port = free_port()?;
        let config = tempfile::NamedTempFile::with_suffix(".yaml")?;
        // JSON is YAML.
        let settings = json!({
            "model_list": [{"model_name": "openai", "litellm_params": {
                "model": "openai/scripted", "api_key": "none",
                "api_base": format!("http://{upstream}/v1"),
            }}],
            "litellm_settings": {"telemetry": false},
        });
        std::fs::write(config.path(), settings.to_string())?;
        // Otherwise a line for each request.
        let log = tempfile::NamedTempFile::with_suffix(".json")?;
        let quiet = json!({
            "version": 1, "disable_existing_loggers": false,
            "loggers": {"uvicorn.access": {"level": "WARNING"}},
        });
        std::fs::write(log.path(), quiet.to_string())?;
        let mut command = Command::new(installed.join("python/bin/litellm"));
        command
            .args(["--host", "127.0.0.1", "--num_workers", "1", "--port"])
            .arg(port.to_string())
            .arg("--config")
            .arg(config.path())
            .arg("--log_config")
            .arg(log.path())
            .env("LITELLM_MODE", "PRODUCTION")
            .env("LITELLM_LOG", "ERROR")
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
        Self::theirs("LiteLLM", command, port, &[]).await
    }

    /// Portkey's gateway.
    pub(crate) async fn portkey(installed: &Path, upstream: SocketAddr) -> Result<Self, Failure> {
        let port = free_port()?;
        let program = "node_modules/@portkey-ai/gateway/build/start-server.js";
        let mut command = Command::new("node");
        command
            .arg(installed.join(program))
            .arg(format!("--port={port}"))
            .arg("--headless")
            .env("NODE_ENV", "production");
        let headers = [
            ("x-portkey-provider", "openai"),
            ("x-portkey-custom-host", &format!("http://{upstream}/v1")),
            ("authorization", "Bearer none"),
        ];
        Self::theirs("Portkey", command, port, &headers).await
    }

    /// Starts it and waits until it answers.
    async fn theirs(
        name: &'static str,
        mut command: Command,
        port: u16,
        headers: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy).env_remove(proxy.to_lowercase());
        }
        let process = Process::start(name, command, None);
        let client = Asker::new(&format!("127.0.0.1:{port}"), headers)?;
        let started = Instant::now();
        while let Err(error) = client.ask(false).await {
            if started.elapsed() > PATIENCE {
                let printed = process.printed();
                return Err(format!(
                    "{name} does not answer: {error}\n{}{}",
                    printed.stdout, printed.stderr
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(Self {
            name,
            client,
            processes: process.id().into_iter().collect(),
            _kept: Some(Box::new(process)),
        })
    }

    /// What all its processes have used of processors so far, user and system, seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let mut ticks = 0;
        for process in family(&self.processes)? {
            // Of what follows the name: utime and stime are the 12th and 13th (proc_pid_stat(5)).
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
            let fields: Vec<&str> = after_name(&stat).split_whitespace().collect();
            for at in [11, 12] {
                ticks += fields.get(at).ok_or("a short stat")?.parse::<u32>()?;
            }
        }
        Ok(f64::from(ticks) / TICKS_A_SECOND)
    }

    /// Resident memory of all its processes, KiB; pages that they share count for each.
    pub(crate) fn resident_kib(&self) -> Result<u32, Failure> {
        let mut sum = 0;
        for process in family(&self.processes)? {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let number = line.and_then(|line| line.split_whitespace().next());
            sum += number.ok_or("no VmRSS")?.parse::<u32>()?;
        }
        Ok(sum)
    }
}

/// These processes and all that descend from them.
fn family(roots: &[u32]) -> Result<BTreeSet<u32>, Failure> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let parent = after_name(&stat).split_whitespace().nth(1);
        if let Some(parent) = parent.and_then(|parent| parent.parse::<u32>().ok()) {
            parents.push((process, parent));
        }
    }
    let mut family: BTreeSet<u32> = roots.iter().copied().collect();
    loop {
        let before = family.len();
        for (process, parent) in &parents {
            if family.contains(parent) {
                family.insert(*process);
            }
        }
        if family.len() == before {
            return Ok(family);
        }
    }
}

/// The fields after the name, which may have spaces and brackets of its own.
fn after_name(stat: &str) -> &str {
    stat.rsplit_once(") ").map_or("", |(_, fields)| fields)
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An ordinary HTTP client, its connections kept alive.
#[derive(Clone)]
pub(crate) struct Asker {
    client: reqwest::Client,
    url: String,
    headers: Vec<(String, String)>,
}

impl Asker {
    fn new(address: &str, headers: &[(&str, &str)]) -> Result<Self, Failure> {
        let headers = headers.iter();
        Ok(Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .tcp_nodelay(true)
                .build()?,
            url: format!("http://{address}/v1/chat/completions"),
            headers: headers
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// Asks, reads every event as a client must, and checks that the whole answer came.
    pub(crate) async fn ask(&self, slowly: bool) -> Result<Took, Failure> {
        let pace = if slowly { SLOWLY } else { "at once" };
        let body = json!({
            "model": "openai", "stream": true, "stream_options": {"include_usage": true},
            "max_tokens": 256,
            "messages": [{"role": "user", "content": format!("Why is the sky blue? Say it {pace}.")}],
        });
        let asked = Instant::now();
        let mut post = self.client.post(&self.url);
        post = post.header("content-type", "application/json");
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        let mut response = post.body(body.to_string()).send().await?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("{status}: {}", response.text().await?).into());
        }
        let (mut first, mut bytes) = (None, 0);
        let mut unread = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            unread.extend_from_slice(&chunk);
            while let Some(end) = unread.windows(2).position(|window| window == b"\n\n") {
                let event: Vec<u8> = unread.drain(..end + 2).collect();
                let piece = content(&event);
                if piece > 0 {
                    first.get_or_insert_with(|| asked.elapsed());
                    bytes += piece;
                }
            }
        }
        let total = asked.elapsed();
        match first {
            Some(first) if bytes == TOKENS * TOKEN_BYTES => Ok(Took { first, total }),
            Some(_) | None => Err(format!("an answer of {bytes} bytes").into()),
        }
    }
}

/// Bytes of text in one event.
fn content(event: &[u8]) -> usize {
    let data = event.strip_prefix(b"data: ").unwrap_or_default();
    let parsed: Value = serde_json::from_slice(data).unwrap_or_default();
    let text = parsed["choices"][0]["delta"]["content"].as_str();
    text.map_or(0, str::len)
}
