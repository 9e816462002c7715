//! One connection: how it is made, what every session of it is set to, what its errors mean.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use mesh_core::billing::lease::Term;
use mesh_core::limits::{
    STORE_CONNECT_TIMEOUT, STORE_RECONNECT_BASE, STORE_RECONNECT_MAX, STORE_TRANSACTION_TIMEOUT,
};
use tokio::time::Instant;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, NoTls};
use tokio_postgres::{Client, Socket, Statement};

use super::schema;
use super::tls::Tls;
use crate::gateway::store::error::StoreError;
use crate::gateway::store::place::Database;

/// What every session starts with. Plans are made once, and never by reading whole tables: a plan that
/// was made while they were empty would be kept; nor by bitmaps, which find the ends of holds that are gone
/// again and again until the next vacuum, where a plain walk through the index marks them. A gateway that stops in the middle of a transaction
/// holds nobody up for long.
const SESSION: &str = "SET search_path = synesis; \
     SET default_transaction_isolation = 'read committed'; \
     SET idle_in_transaction_session_timeout = '10s'; \
     SET statement_timeout = '7s'; \
     SET plan_cache_mode = force_generic_plan; \
     SET enable_seqscan = off; SET enable_bitmapscan = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; \
     SET jit = off; \
     SELECT set_config('synchronous_commit', 'on', false) \
       WHERE current_setting('synchronous_commit') = 'off'";

/// A connection, and the statements that it has seen.
pub(super) struct Link {
    pub(super) client: Client,
    /// How long the lease of the gateway at this end lasts.
    pub(super) term: Term,
    statements: BTreeMap<&'static str, Statement>,
}

impl Link {
    /// Connects; the other half runs as a task of its own until this one is dropped.
    pub(super) async fn connect(database: &Database) -> Result<Self, StoreError> {
        let mut config = database.config().clone();
        config
            .application_name("synesis")
            .connect_timeout(STORE_CONNECT_TIMEOUT)
            .keepalives_idle(Duration::from_secs(15))
            .tcp_user_timeout(STORE_TRANSACTION_TIMEOUT);
        let term = database.term();
        let connecting = async {
            if config.get_ssl_mode() == SslMode::Disable {
                Self::connect_with(&config, NoTls, term).await
            } else {
                Self::connect_with(&config, Tls::trusting(database.ca_file())?, term).await
            }
        };
        // Also where the server accepts, and says no more.
        let late = |_| StoreError::Unreachable("it did not answer in time".to_owned());
        let connected = tokio::time::timeout(2 * STORE_CONNECT_TIMEOUT, connecting);
        connected.await.map_err(late)?
    }

    async fn connect_with<T>(
        config: &tokio_postgres::Config,
        tls: T,
        term: Term,
    ) -> Result<Self, StoreError>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, connection) = config.connect(tls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the database ended");
            }
        });
        client.batch_execute(SESSION).await?;
        let statements = BTreeMap::new();
        Ok(Self {
            client,
            term,
            statements,
        })
    }

    /// The statement, as the server knows it; read by it once.
    pub(super) async fn statement(&mut self, sql: &'static str) -> Result<Statement, StoreError> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// The way to a connection that works: made when it is needed, and again when it broke, not at every
/// call while the server is away.
pub(super) struct Door {
    database: Database,
    link: Option<Link>,
    failures: u32,
    /// Not before this, and why not.
    closed: Option<(Instant, StoreError)>,
}

impl Door {
    pub(super) const fn new(database: Database) -> Self {
        Self {
            database,
            link: None,
            failures: 0,
            closed: None,
        }
    }

    /// A connection.
    pub(super) async fn open(&mut self) -> Result<&mut Link, StoreError> {
        self.link = self.link.take().filter(|link| !link.client.is_closed());
        let link = match self.link.take() {
            Some(link) => link,
            None => self.connect().await?,
        };
        Ok(self.link.insert(link))
    }

    /// Lets the connection go: nobody knows what state it is in.
    pub(super) fn shut(&mut self) {
        self.link = None;
    }

    async fn connect(&mut self) -> Result<Link, StoreError> {
        if let Some((until, why)) = &self.closed
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        let connected = async {
            let mut link = Link::connect(&self.database).await?;
            schema::check(&mut link).await?;
            Ok::<_, StoreError>(link)
        };
        match connected.await {
            Ok(link) => {
                if self.failures > 0 {
                    tracing::info!(database = %self.database, "the database is reached again");
                }
                (self.failures, self.closed) = (0, None);
                Ok(link)
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!(database = %self.database, %error, "no connection to the database");
                }
                let wait = STORE_RECONNECT_BASE.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                let until = Instant::now() + wait.min(STORE_RECONNECT_MAX);
                self.closed = Some((until, error.clone()));
                Err(error)
            }
        }
    }
}

/// Whether a transaction was refused for others' sake, so that it may be run again at once.
pub(super) fn is_crowded(error: &tokio_postgres::Error) -> bool {
    let crowds = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| crowds.contains(code))
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            let source = std::error::Error::source(&error);
            let broken = source.is_some_and(|source| source.is::<io::Error>());
            let words = source.map_or_else(|| error.to_string(), ToString::to_string);
            return if error.is_closed() || broken {
                Self::Unreachable(words)
            } else {
                // A value was not what the schema promises, or TLS failed.
                Self::Failed(format!("{error}: {words}"))
            };
        };
        let (code, words) = (said.code(), said.message().to_owned());
        // Class 08: connection; 57P: the operator intervened; 53: out of something.
        if *code == SqlState::DISK_FULL {
            Self::Full
        } else if [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED].contains(code) {
            Self::Locked
        } else if ["08", "53", "57P"]
            .iter()
            .any(|class| code.code().starts_with(class))
        {
            Self::Unreachable(words)
        } else if code.code().starts_with("XX") {
            Self::Damaged(words)
        } else {
            Self::Failed(words)
        }
    }
}
