//! Running the built binary as a user would, with an environment of its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything that is not broken takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of a test's own, and commands that know no other.
pub(crate) struct Home(tempfile::TempDir);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A file with this content.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synesis"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.path())
            .env("SYNESIS_DATA_DIR", self.path().join("data"))
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    pub(crate) fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ended {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // A command that does not want all of it may close it early.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap().into()
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::of(self.command(args).spawn().unwrap())
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Its stdout, after a success.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

/// A command that runs, and what it prints; killed when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn of(mut child: Child) -> Self {
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            child: Some(child),
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line on either output that contains this.
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("no {part:?} ({error}) in {:#?}", self.seen),
            }
        }
    }

    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    pub(crate) fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end: the exit code and all lines.
    pub(crate) fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.take().unwrap().wait().unwrap();
        let mut seen = std::mem::take(&mut self.seen);
        seen.extend(self.lines.iter());
        (status.code(), seen)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A gateway process on free ports, with an account and a key.
pub(crate) struct Gateway {
    pub(crate) home: Home,
    pub(crate) process: Running,
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) key_id: String,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Self::configured("")
    }

    pub(crate) fn configured(settings: &str) -> Self {
        let home = Home::new();
        let config = home.file("gateway.toml", settings.as_bytes());
        let config = config.to_str().unwrap();
        let mut process = home.start(&[
            "gateway",
            "--config",
            config,
            "--set",
            "tunnel.listen=127.0.0.1:0",
            "--set",
            "http.listen=127.0.0.1:0",
        ]);
        let url = process
            .wait_for("http    ")
            .trim_start_matches("http")
            .trim()
            .to_owned();
        process.wait_for("Ready");
        home.run(&["admin", "account", "create", "--name", "home"])
            .ok();
        let made = home
            .run(&["admin", "key", "create", "--account", "home", "--json"])
            .json();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let (key, key_id) = (text("key"), text("id"));
        Self {
            home,
            process,
            url,
            key,
            key_id,
        }
    }

    /// A device that is enrolled here.
    pub(crate) fn device(&self) -> Home {
        let device = Home::new();
        let key = device.file("key", self.key.as_bytes());
        let key = key.to_str().unwrap();
        device
            .run(&[
                "cloud",
                "login",
                "--gateway",
                &self.url,
                "--api-key-file",
                key,
            ])
            .ok();
        device
    }
}

/// An OpenAI-compatible server that answers every question with one line and then falls silent,
/// until whoever asked hangs up.
pub(crate) struct Stalled {
    pub(crate) port: u16,
    asked: mpsc::Receiver<()>,
    hung_up: mpsc::Receiver<()>,
}

impl Stalled {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked_sender, asked) = mpsc::channel();
        let (hung_up_sender, hung_up) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asked, hung_up) = (asked_sender.clone(), hung_up_sender.clone());
                std::thread::spawn(move || {
                    if stall(stream, &asked).is_some() {
                        let _ = hung_up.send(());
                    }
                });
            }
        });
        Self {
            port,
            asked,
            hung_up,
        }
    }

    /// The settings of a gateway whose model `stalled` this is.
    pub(crate) fn settings(&self) -> String {
        format!(
            "[[provider]]\nname = \"stalled\"\ndialect = \"openai\"\n\
             base_url = \"http://127.0.0.1:{}/v1\"\n\
             [[model]]\nname = \"stalled\"\nprovider = \"stalled\"\nmodel = \"m\"\nprice = \"free\"\n",
            self.port
        )
    }

    /// Waits until a question has had its one line.
    pub(crate) fn wait_for_question(&self) {
        self.asked.recv_timeout(PATIENCE).unwrap();
    }

    /// Waits until a question was given up.
    pub(crate) fn wait_for_hang_up(&self) {
        self.hung_up.recv_timeout(PATIENCE).unwrap();
    }
}

/// `None` for anything that is not a question.
fn stall(mut stream: TcpStream, asked: &mpsc::Sender<()>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"POST") {
        return None;
    }
    let event = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
                 \"choices\":[{\"index\":0,\"delta\":{\"content\":\"Well,\\n\"},\"finish_reason\":null}]}\n\n";
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{event}\r\n",
        event.len()
    )
    .ok()?;
    asked.send(()).ok()?;
    // The rest of the question, then nothing until the other side hangs up.
    let mut rest = [0; 4096];
    while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
    Some(())
}
