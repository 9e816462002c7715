//! Where a store is: a file, or a database on a PostgreSQL server.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mesh_core::billing::lease::Term;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::error::Error;

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In one file.
    File(PathBuf),
    /// On a server that several gateways share.
    Database(Database),
}

impl Place {
    /// Whether there is a store to look at: opening one makes it. What is on a server is seen there.
    ///
    /// # Errors
    ///
    /// [`Error`] with where one may be, or why it cannot be seen.
    pub fn is_there(&self) -> Result<(), Error> {
        let Self::File(path) = self else {
            return Ok(());
        };
        std::fs::metadata(path).map(drop).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            Error::file(path, if missing { no_store() } else { error })
        })
    }
}

fn no_store() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "no gateway has kept a ledger here; --data-dir or --config say where one has",
    )
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Database(database) => database.fmt(f),
        }
    }
}

/// A database and who asks: everything of its URL. The password is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    config: Box<Config>,
    ca_file: Option<PathBuf>,
    term: Term,
    shown: String,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.shown).finish()
    }
}

/// Nothing of the URL is in it: a password may be anywhere in one that cannot be read.
const UNREADABLE: &str = "this is not the URL of a PostgreSQL database, like \
     postgres://user:password@host:5432/database (in a password, all but letters and digits are \
     written as %XX)";

impl Database {
    /// Reads a URL. Connections to other machines are encrypted and the server is checked, by the
    /// authority in `ca_file` or those that the system trusts, unless `sslmode=disable` is said and
    /// allowed.
    ///
    /// # Errors
    ///
    /// What is wrong and what to do, without anything of the URL.
    pub fn parse(url: &str, ca_file: Option<&Path>, allow_plain: bool) -> Result<Self, String> {
        let known = ["postgres://", "postgresql://"];
        if !known.iter().any(|scheme| url.starts_with(scheme)) {
            return Err(UNREADABLE.to_owned());
        }
        let mut config: Config = url.parse().map_err(|_| UNREADABLE.to_owned())?;
        if config.get_hosts().is_empty() {
            return Err(UNREADABLE.to_owned());
        }
        let mode = match (is_local(&config), config.get_ssl_mode()) {
            (true, SslMode::Require) => SslMode::Require,
            (false, SslMode::Disable) if allow_plain => SslMode::Disable,
            (true, _) => SslMode::Disable,
            (false, SslMode::Disable) => {
                return Err(
                    "the database is on another machine, and with sslmode=disable its password and \
                     everything in it travel readable: leave sslmode out, or set \
                     store.allow_plain = true if the network between is yours alone"
                        .to_owned(),
                );
            }
            (false, _) => SslMode::Require,
        };
        config.ssl_mode(mode);
        Ok(Self {
            shown: shown(&config),
            ca_file: ca_file.map(Path::to_owned),
            term: Term::default(),
            config: Box::new(config),
        })
    }

    /// The same, with another term of a gateway's lease.
    #[must_use]
    pub const fn with_term(mut self, term: Term) -> Self {
        self.term = term;
        self
    }

    /// How long a gateway's lease lasts.
    pub(super) const fn term(&self) -> Term {
        self.term
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }
}

/// Whether nothing leaves this machine.
fn is_local(config: &Config) -> bool {
    let host = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(host)
        && config
            .get_hostaddrs()
            .iter()
            .all(std::net::IpAddr::is_loopback)
}

/// The URL without what is nobody's business.
fn shown(config: &Config) -> String {
    let port = |at: usize| {
        let ports = config.get_ports();
        ports.get(at).or(ports.first()).copied().unwrap_or(5432)
    };
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            #[cfg(unix)]
            Host::Unix(folder) => folder.display().to_string(),
        })
        .collect();
    let database = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or_default();
    format!("postgres://{}/{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Database, String> {
        Database::parse(url, None, false)
    }

    #[test]
    fn a_file_that_is_not_there_is_not_made_and_where_it_may_be_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sqlite");
        let place = Place::File(path.clone());
        let refused = place.is_there().unwrap_err().to_string();
        assert!(refused.contains("--data-dir"), "{refused}");
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        assert!(place.is_there().is_ok());
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let database = parse("postgres://ada:canary-secret@db.example.org/mesh").unwrap();
        assert_eq!(database.to_string(), "postgres://db.example.org:5432/mesh");
        let place = Place::Database(database);
        assert!(!format!("{place:?} {place:#?} {place}").contains("canary"));
        for broken in [
            "postgres://ada:canary-secret@db:port/mesh",
            "postgres://ada:canary-secret@db/mesh?canary=1",
            "canary-secret",
            "host=db password=canary-secret",
            "mysql://ada:canary-secret@db/mesh",
            "postgres://",
        ] {
            let refused = parse(broken).unwrap_err();
            assert!(!refused.contains("canary"), "{broken}: {refused}");
        }
    }

    #[test]
    fn what_goes_to_another_machine_is_encrypted_unless_that_is_allowed() {
        let mode = |url: &str, allowed| {
            Database::parse(url, None, allowed).map(|database| database.config.get_ssl_mode())
        };
        for remote in [
            "postgres://a@db.example.org/x",
            "postgres://a@db.example.org/x?sslmode=prefer",
            "postgres://a@10.0.0.7/x?sslmode=require",
            "postgres://a@localhost,db.example.org/x",
            "postgres://a@localhost/x?hostaddr=10.0.0.7",
        ] {
            assert_eq!(mode(remote, false), Ok(SslMode::Require), "{remote}");
        }
        for local in [
            "postgres://a@localhost/x",
            "postgres://a@127.0.0.1/x",
            "postgres://a@[::1]/x",
            "postgres://a@%2Ftmp/x",
        ] {
            assert_eq!(mode(local, false), Ok(SslMode::Disable), "{local}");
        }
        let plain = "postgres://a@db.example.org/x?sslmode=disable";
        assert!(
            mode(plain, false)
                .unwrap_err()
                .contains("store.allow_plain")
        );
        assert_eq!(mode(plain, true), Ok(SslMode::Disable));
        let checked = "postgres://a@localhost/x?sslmode=require";
        assert_eq!(mode(checked, false), Ok(SslMode::Require));
    }
}
