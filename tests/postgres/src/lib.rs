//! A PostgreSQL server of a test's own: made from the installed binaries in a temporary folder, reached
//! over a unix socket in it, gone with the process that started it.
//!
//! ```text
//!   test ──pipe──▶ keeper (sh) ──▶ postgres
//!                    └ at the end of the pipe: stops the server, removes the folder
//! ```
//!
//! The keeper sees the pipe's end however the test ends: by dropping [`Server`], by a panic, by being
//! killed. PostgreSQL refuses to run as root, so that root starts it as another user.
//!
//! # Invariants
//!
//! 1. No server outlives the process that started it, and none leaves a file behind.
//! 2. Where there are no binaries a test is left out, and says so; not where `TEST_POSTGRES=required`.

use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Set to `required`, missing binaries fail a test instead of leaving it out.
pub const REQUIRED: &str = "TEST_POSTGRES";
/// What is printed for a test that is left out.
pub const SKIPPED: &str = "skipped: no PostgreSQL server binaries found (install postgresql; TEST_POSTGRES=required to fail)";
/// The superuser of a server; no password.
const USER: &str = "synesis";
/// Users that root may start a server as, the first that exists.
const OTHERS: [&str; 2] = ["postgres", "nobody"];
/// Starts the server, says so, waits for the end of its input, and tidies up.
const KEEPER: &str = r#"
trap '' INT TERM HUP
cd /
"$1/pg_ctl" -w -D "$2/data" -l "$2/log" -o "$3" start >/dev/null || { cat "$2/log"; exit 1; }
echo ready
read -r _
"$1/pg_ctl" -w -D "$2/data" -m immediate stop >/dev/null 2>&1
rm -rf "$2"
"#;

/// What becomes of the data at a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Nothing waits for the disk: quick, for tests.
    Unsafe,
    /// As an operator's server: a commit is on disk before it is answered.
    Safe,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    binaries: PathBuf,
    folder: PathBuf,
    user: Option<(u32, u32)>,
    options: String,
    /// On loopback, where it is reached by TCP and TLS.
    port: Option<u16>,
    keeper: Child,
    databases: AtomicU32,
}

impl Server {
    /// Starts one, if there are binaries for it.
    ///
    /// # Panics
    ///
    /// When it does not start, and when there are no binaries although they are required.
    #[must_use]
    pub fn start(disk: Disk) -> Option<Self> {
        Self::start_with(disk, None)
    }

    /// Starts one that is reached at `localhost` and over TLS, with a certificate and its key (PEM).
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    #[must_use]
    pub fn start_encrypted(certificate: &str, key: &str) -> Option<Self> {
        Self::start_with(Disk::Unsafe, Some((certificate, key)))
    }

    fn start_with(disk: Disk, tls: Option<(&str, &str)>) -> Option<Self> {
        let Some(binaries) = binaries() else {
            let required = std::env::var(REQUIRED).is_ok_and(|said| said == "required");
            assert!(!required, "{SKIPPED}");
            // Past the capture of a test's output: it is to be seen.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("{SKIPPED}\n").as_bytes(),
            );
            return None;
        };
        // Short: the path of a unix socket has room for about a hundred bytes.
        let made = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp");
        let folder = must(made, "a temporary folder").keep();
        let user = other_user(&folder);
        let fsync = if disk == Disk::Safe { "on" } else { "off" };
        let port = tls.map(|(certificate, key)| {
            private(&folder.join("tls.crt"), certificate, user);
            private(&folder.join("tls.key"), key, user);
            free_port()
        });
        let tcp = port.map_or_else(
            || "-c listen_addresses=".to_owned(),
            |port| {
                let folder = folder.display();
                format!(
                    "-c listen_addresses=localhost -c port={port} -c ssl=on \
                     -c ssl_cert_file={folder}/tls.crt -c ssl_key_file={folder}/tls.key"
                )
            },
        );
        let options = format!(
            "{tcp} -c unix_socket_directories={} -c fsync={fsync} \
             -c max_connections=200 -c shared_buffers=64MB -c logging_collector=off",
            folder.display()
        );
        let mut init = as_user(&binaries.join("initdb"), user);
        init.args([
            "-A",
            "trust",
            "-U",
            USER,
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ])
        .arg("-D")
        .arg(folder.join("data"));
        run(&mut init);
        let keeper = keeper(&binaries, &folder, &options, user);
        Some(Self {
            binaries,
            folder,
            user,
            options,
            port,
            keeper,
            databases: AtomicU32::new(0),
        })
    }

    /// The one server that the tests of a process share.
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    #[must_use]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Disk::Unsafe)).as_ref()
    }

    /// Where a database of it is reached.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        if let Some(port) = self.port {
            return format!(
                "postgres://{USER}:{PASSWORD}@localhost:{port}/{database}?sslmode=require"
            );
        }
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{USER}:{PASSWORD}@{folder}/{database}")
    }

    /// Makes an empty database, and says where it is reached.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// Runs statements by hand in the database of a URL of this server's or of that name, and gives
    /// what they print.
    ///
    /// # Panics
    ///
    /// When one fails.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let name = database.rsplit('/').next().unwrap_or(database);
        let name = name.split('?').next().unwrap_or(name);
        let mut psql = Command::new(self.binaries.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER])
            .arg("-h")
            .arg(&self.folder)
            .args(["-p", &self.port.unwrap_or(5432).to_string()])
            .args(["-d", name, "-c", sql]);
        run(&mut psql)
    }

    /// Stops it as a power cut would.
    ///
    /// # Panics
    ///
    /// When it cannot be stopped.
    pub fn crash(&self) {
        run(self.control().args(["-m", "immediate", "stop"]));
    }

    /// Starts it again.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&self) {
        let log = self.folder.join("log");
        let mut start = self.control();
        start
            .arg("-l")
            .arg(log)
            .args(["-o", &self.options, "start"]);
        run(&mut start);
    }

    fn control(&self) -> Command {
        let mut control = as_user(&self.binaries.join("pg_ctl"), self.user);
        control.arg("-w").arg("-D").arg(self.folder.join("data"));
        control
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It ends by itself; waiting keeps its process from staying behind.
        let _ = self.keeper.wait();
    }
}

/// In every URL, to be looked for where it must not be. A server of a test's own asks for none.
pub const PASSWORD: &str = "canary-database-password-71c0";

/// The folder of `initdb`: the newest of Debian's, or one on the path.
fn binaries() -> Option<PathBuf> {
    let whole = |folder: &PathBuf| {
        ["initdb", "pg_ctl", "postgres", "psql"]
            .iter()
            .all(|name| folder.join(name).is_file())
    };
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let mut versions: Vec<(u32, PathBuf)> = versions
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .map(|(version, path)| (version, path.join("bin")))
        .filter(|(_, folder)| whole(folder))
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let newest = versions.pop().map(|(_, folder)| folder);
    newest.or_else(|| std::env::split_paths(&path).find(whole))
}

/// Whom root starts a server as; the folder becomes theirs.
fn other_user(folder: &Path) -> Option<(u32, u32)> {
    if must(std::fs::metadata(folder), "the temporary folder").uid() != 0 {
        return None;
    }
    let known = must(std::fs::read_to_string("/etc/passwd"), "/etc/passwd");
    let ids = |name: &&str| {
        let line = known
            .lines()
            .find(|line| line.split(':').next() == Some(*name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let Some((user, group)) = OTHERS.iter().find_map(ids) else {
        fail("there is no user but root to run PostgreSQL as")
    };
    must(chown(folder, Some(user), Some(group)), "chown");
    Some((user, group))
}

/// A file that only the server may read.
fn private(path: &Path, text: &str, user: Option<(u32, u32)>) {
    must(std::fs::write(path, text), "a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    must(std::fs::set_permissions(path, mode), "its mode");
    if let Some((user, group)) = user {
        must(chown(path, Some(user), Some(group)), "chown");
    }
}

fn free_port() -> u16 {
    let listener = must(std::net::TcpListener::bind(("127.0.0.1", 0)), "a free port");
    must(listener.local_addr(), "a free port").port()
}

fn as_user(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
        .current_dir("/")
        .env("LC_ALL", "C")
        .env_remove("PGDATA");
    command
}

fn keeper(binaries: &Path, folder: &Path, options: &str, user: Option<(u32, u32)>) -> Child {
    let mut command = as_user(Path::new("/bin/sh"), user);
    command
        .args(["-c", KEEPER, "keeper"])
        .arg(binaries)
        .arg(folder)
        .arg(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A Ctrl-C of the person at the terminal is not meant for it.
        .process_group(0);
    let mut keeper = must(command.spawn(), "the keeper");
    let Some(output) = keeper.stdout.take() else {
        fail("the keeper has no output")
    };
    let (mut output, mut said) = (BufReader::new(output), String::new());
    must(output.read_line(&mut said), "the keeper");
    if said.trim() != "ready" {
        let _ = output.read_to_string(&mut said);
        fail(&format!("PostgreSQL does not start: {said}"));
    }
    keeper
}

/// Runs to the end, and gives what was printed.
fn run(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    // Files, not pipes: a server that `pg_ctl` leaves behind would hold those open.
    let (mut out, mut err) = (
        must(tempfile::tempfile(), "a temporary file"),
        must(tempfile::tempfile(), "a temporary file"),
    );
    command
        .stdin(Stdio::null())
        .stdout(must(out.try_clone(), "a temporary file"))
        .stderr(must(err.try_clone(), "a temporary file"));
    let status = must(command.status(), &name);
    let read = |file: &mut std::fs::File| {
        let mut text = String::new();
        let _ = std::io::Seek::rewind(file);
        let _ = file.read_to_string(&mut text);
        text
    };
    let said = read(&mut out);
    if !status.success() {
        fail(&format!("{name}: {status}: {said}{}", read(&mut err)));
    }
    said
}

fn must<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fail(&format!("{what}: {error}")),
    }
}

#[expect(clippy::panic, reason = "a test's own tool")]
fn fail(what: &str) -> ! {
    panic!("{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_starts_crashes_starts_again_and_leaves_nothing() {
        let Some(server) = Server::start(Disk::Safe) else {
            return;
        };
        let url = server.database();
        server.sql(&url, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)");
        server.crash();
        server.restart();
        assert_eq!(server.sql(&url, "SELECT n FROM t").trim(), "7");
        let folder = server.folder.clone();
        drop(server);
        assert!(!folder.exists());
    }
}
