//! Real processes: where the programs are, and one running process with all that it prints.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;

/// Longer than anything that is not broken takes, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The `synesis` binary, in the profile of the running test: what `SYNESIS_BIN` names, else built
/// here, once for each test process (quick when it is fresh).
///
/// # Panics
///
/// When it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("SYNESIS_BIN") {
        Some(path) => path.into(),
        None => build("mesh-tokio", "synesis"),
    })
}

/// The `synesis-lite` binary, the same way: what `SYNESIS_LITE_BIN` names, else built here.
///
/// # Panics
///
/// When it cannot be built.
pub fn lite_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("SYNESIS_LITE_BIN") {
        Some(path) => path.into(),
        None => build("mesh-smol", "synesis-lite"),
    })
}

/// Builds a binary of the workspace into the target folder that the running program came from.
///
/// # Panics
///
/// When it cannot be built.
#[must_use]
pub fn build(package: &str, name: &str) -> PathBuf {
    let profile_folder = std::env::current_exe().ok().and_then(|running| {
        let folder = running.parent()?;
        // Tests are in `deps`, programs beside it.
        let folder = if folder.ends_with("deps") {
            folder.parent()?
        } else {
            folder
        };
        Some(folder.to_path_buf())
    });
    let Some((target, folder)) = profile_folder
        .as_ref()
        .and_then(|folder| Some((folder.parent()?, folder.file_name()?.to_str()?)))
    else {
        panic!("the running program is not in a target folder");
    };
    let profile = if folder == "debug" { "dev" } else { folder };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--package",
        package,
        "--bin",
        name,
        "--profile",
        profile,
    ]);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    // What cargo sets for the running test would make build scripts believe that they are stale.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| {
            [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_BIN_",
                "CARGO_CRATE_",
                "CARGO_TARGET_TMP",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        }) {
            cargo.env_remove(name);
        }
    }
    cargo
        .env_remove("LD_LIBRARY_PATH")
        .env("CARGO_TARGET_DIR", target);
    let built = cargo.status();
    assert!(
        built.as_ref().is_ok_and(ExitStatus::success),
        "cannot build {name}: {built:?}"
    );
    profile_folder
        .unwrap_or_default()
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION)
}

/// What a process has printed so far, and whether there can be more.
#[derive(Clone, Debug, Default)]
pub struct Printed {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    open: u8,
}

impl Printed {
    fn line(&self, wanted: &mut impl FnMut(&str) -> bool) -> Option<String> {
        let mut lines = self.stdout.lines().chain(self.stderr.lines());
        lines.find(|line| wanted(line)).map(str::to_owned)
    }
}

/// How a process ended, and everything it printed.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// The same, once it has succeeded.
    ///
    /// # Panics
    ///
    /// When it has not, with all that it printed.
    #[must_use]
    #[track_caller]
    pub fn succeeded(self) -> Self {
        let Self {
            code,
            stdout,
            stderr,
        } = &self;
        assert!(
            *code == Some(0),
            "exit {code:?}\nstdout:\n{stdout}\nstderr:\n{stderr}"
        );
        self
    }
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    printed: watch::Receiver<Printed>,
}

impl Process {
    /// Starts `command` with both its outputs read, and `stdin` as its input.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(name: &str, command: Command, stdin: Option<&str>) -> Self {
        let input = if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        Self::launch(name, command, input, stdin)
    }

    fn launch(name: &str, command: Command, input: Stdio, stdin: Option<&str>) -> Self {
        let mut command = tokio::process::Command::from(command);
        command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => panic!("cannot start {name}: {e}"),
        };
        if let Some(text) = stdin.map(str::to_owned)
            && let Some(mut pipe) = child.stdin.take()
        {
            tokio::spawn(async move { pipe.write_all(text.as_bytes()).await });
        }
        let (print, printed) = watch::channel(Printed {
            open: 2,
            ..Printed::default()
        });
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(read(stdout, print.clone(), |printed| &mut printed.stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(read(stderr, print, |printed| &mut printed.stderr));
        }
        Self {
            name: name.to_owned(),
            child,
            printed,
        }
    }

    /// What it has printed so far.
    #[must_use]
    pub fn printed(&self) -> Printed {
        self.printed.borrow().clone()
    }

    /// The same with an input that stays open and empty until the handle is dropped: for programs
    /// that run as long as there may be something to read.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start_with_input(name: &str, command: Command) -> Self {
        Self::launch(name, command, Stdio::piped(), None)
    }

    /// What it prints, to be looked at also after its end.
    #[must_use]
    pub fn output(&self) -> watch::Receiver<Printed> {
        self.printed.clone()
    }

    /// Waits for a line of either output.
    ///
    /// # Panics
    ///
    /// When the process ends without printing it, or [`PATIENCE`] runs out.
    pub async fn line(&self, mut wanted: impl FnMut(&str) -> bool) -> String {
        let mut printed = self.printed.clone();
        let mut found = None;
        let search = printed.wait_for(|printed| {
            found = printed.line(&mut wanted);
            found.is_some() || printed.open == 0
        });
        let timed_out = tokio::time::timeout(PATIENCE, search).await.is_err();
        match found {
            Some(line) => line,
            None => {
                let Printed { stdout, stderr, .. } = self.printed();
                let why = if timed_out {
                    "did not print in time"
                } else {
                    "ended without"
                };
                panic!(
                    "{} {why} the line\nstdout:\n{stdout}\nstderr:\n{stderr}",
                    self.name
                )
            }
        }
    }

    /// Waits for a line that contains `text`.
    ///
    /// # Panics
    ///
    /// As [`Self::line`].
    pub async fn line_with(&self, text: &str) -> String {
        self.line(|line| line.contains(text)).await
    }

    /// The operating system's number of it, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks it to end, as a service manager does (SIGTERM).
    #[cfg(unix)]
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Asks it to end, as Ctrl-C does (SIGINT).
    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Asks it to read its settings anew (SIGHUP).
    #[cfg(unix)]
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends it without a chance to tidy up (SIGKILL), and waits until it is gone.
    pub async fn kill(mut self) -> Ended {
        self.end_now().await;
        self.ended().await
    }

    /// The same, keeping the handle.
    pub async fn end_now(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When [`PATIENCE`] runs out.
    pub async fn ended(mut self) -> Ended {
        self.wait().await
    }

    /// The same, keeping the handle.
    ///
    /// # Panics
    ///
    /// When [`PATIENCE`] runs out.
    pub async fn wait(&mut self) -> Ended {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(status) = status else {
            let Printed { stdout, stderr, .. } = self.printed();
            panic!(
                "{} does not end\nstdout:\n{stdout}\nstderr:\n{stderr}",
                self.name
            )
        };
        let mut printed = self.printed.clone();
        // A grandchild may hold the pipes open: what is printed then no longer matters.
        let read = printed.wait_for(|printed| printed.open == 0);
        let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
        let Printed { stdout, stderr, .. } = self.printed();
        Ended {
            code: status.ok().and_then(|status| status.code()),
            stdout,
            stderr,
        }
    }
}

async fn read(
    pipe: impl AsyncRead + Unpin,
    print: watch::Sender<Printed>,
    part: fn(&mut Printed) -> &mut String,
) {
    let mut pipe = BufReader::new(pipe);
    // The start of a character whose rest has not come yet.
    let mut unread = Vec::new();
    loop {
        // Whatever has come so far, so that a prompt or a half-printed answer is seen too.
        let length = match pipe.fill_buf().await {
            Ok(bytes) if !bytes.is_empty() => {
                unread.extend_from_slice(bytes);
                bytes.len()
            }
            Ok(_) | Err(_) => break,
        };
        pipe.consume(length);
        let whole = match std::str::from_utf8(&unread) {
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            Ok(_) | Err(_) => unread.len(),
        };
        let text: Vec<u8> = unread.drain(..whole).collect();
        print.send_modify(|printed| part(printed).push_str(&String::from_utf8_lossy(&text)));
    }
    print.send_modify(|printed| printed.open -= 1);
}
