//! Opening the file: the gateway's lock, whose file it is, its schema.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::gateway::store::Role;
use crate::gateway::store::error::{OpenError, StoreError};

/// `SYNE` in ASCII: SQLite's own field for whose file it is.
const APPLICATION_ID: i32 = 0x5359_4E45;
/// How long to wait for another process's transaction; less than the gateway waits for its store.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The steps from nothing to the present schema. Forward only; a step is never changed.
const MIGRATIONS: [&str; 6] = [
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
];

/// The step that made where an account stands one text.
const STATE_SINCE: u32 = 2;
/// The step that brought the sums of what was used.
const USAGE_SINCE: u32 = 4;

/// A connection, and the lock that goes with it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    // After the connection: it is let go when the file is closed.
    #[expect(dead_code, reason = "held, not used: dropping it lets the lock go")]
    lock: Option<File>,
}

pub(super) fn open(path: &Path, role: Role) -> Result<Opened, OpenError> {
    let lock = match role {
        Role::Gateway => Some(lock(path)?),
        Role::Administration => None,
    };
    private_file(path).map_err(|error| OpenError::refused(path, error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let refused = |error: rusqlite::Error| OpenError::refused(path, error);
    let mut connection = Connection::open_with_flags(path, flags).map_err(refused)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
    check_owner(&connection, path)?;
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .and_then(|()| {
            // What is deleted is overwritten: answers are kept for a time, and then nowhere.
            connection.execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON",
            )
        })
        .map_err(refused)?;
    migrate(&mut connection, path)?;
    Ok(Opened { connection, lock })
}

/// A second connection that only looks.
pub(super) fn open_to_look(path: &Path) -> Result<Connection, OpenError> {
    let refused = |error: rusqlite::Error| OpenError::refused(path, error);
    // Reading a write-ahead log needs write access to its index.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(refused)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
    connection
        .execute_batch("PRAGMA query_only = ON")
        .map_err(refused)?;
    if check_owner(&connection, path)? == 0 {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    Ok(connection)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = PathBuf::from(format!("{}.lock", path.display()));
    let file = private_file(&lock_path).map_err(|error| OpenError::refused(&lock_path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(OpenError::refused(&lock_path, error)),
    }
}

/// Opens a file, or makes one that only its owner may read. SQLite gives its log the same mode.
fn private_file(path: &Path) -> Result<File, std::io::Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The schema that the file has; 0 if it is empty. Anybody else's file is refused.
fn check_owner(connection: &Connection, path: &Path) -> Result<u32, OpenError> {
    let read = || -> Result<(i32, u32, u32), rusqlite::Error> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        let tables =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0));
        Ok((pragma("application_id")?, version(connection)?, tables?))
    };
    let (owner, found, tables) = match read() {
        Ok(read) => read,
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(OpenError::refused(path, error)),
    };
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    match (owner, tables) {
        (0, 0) => Ok(0),
        (APPLICATION_ID, _) if found > known => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        }),
        (APPLICATION_ID, _) => Ok(found),
        _ => Err(OpenError::Foreign {
            path: path.to_owned(),
        }),
    }
}

fn version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Takes every step that the file has not taken, each in a transaction of its own. Another process
/// may be doing the same: the version is read again inside.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let mut step = |number: u32, sql: &str| -> Result<(), StoreError> {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version(&tx)? < number {
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", number)?;
            if number >= STATE_SINCE {
                super::books::restate(&tx, number >= USAGE_SINCE)?;
            }
        }
        Ok(tx.commit()?)
    };
    for (number, sql) in (1..).zip(MIGRATIONS) {
        step(number, sql).map_err(|error| OpenError::refused(path, error))?;
    }
    Ok(())
}
