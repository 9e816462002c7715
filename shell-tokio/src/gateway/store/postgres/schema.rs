//! Opening the database: whose schema it is, and how far it has come.

use super::connection::Link;
use crate::gateway::store::error::{OpenError, StoreError};
use crate::gateway::store::place::Database;

/// The steps from nothing to the present schema. Forward only; a step is never changed.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
];
/// The lock under which steps are taken: `SYNE` in ASCII, twice.
const MIGRATING: i64 = 0x5359_4E45_5359_4E45;
/// The oldest server with everything that the schema needs, which its makers still mend.
const SERVER_MIN: i32 = 140_000;

fn known() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// What is there under our schema's name.
enum Found {
    /// Nothing, or an empty schema that the operator made.
    Nothing,
    /// Somebody else's tables.
    Foreign,
    /// Our tables, after this step.
    Ours(u32),
}

async fn find(link: &Link) -> Result<Found, StoreError> {
    let sql = "SELECT to_regclass('synesis.about') IS NOT NULL, \
               (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('synesis'))";
    let row = link.client.query_one(sql, &[]).await?;
    let (ours, tables): (bool, i64) = (row.try_get(0)?, row.try_get(1)?);
    if !ours {
        return Ok(if tables == 0 {
            Found::Nothing
        } else {
            Found::Foreign
        });
    }
    // Whatever it is that has this name.
    let sql = "SELECT version::integer FROM synesis.about WHERE program = 'synesis'";
    let version = link.client.query_opt(sql, &[]).await;
    Ok(match version {
        Ok(Some(row)) => Found::Ours(u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or(0)),
        Ok(None) => Found::Foreign,
        Err(error) if error.as_db_error().is_some() => Found::Foreign,
        Err(error) => return Err(error.into()),
    })
}

/// Takes every step that the database has not taken, under a lock: others may be doing the same.
pub(super) async fn migrate(link: &mut Link, database: &Database) -> Result<(), OpenError> {
    let refused = |reason: StoreError| refused(database, reason);
    too_old(link).await.map_err(refused)?;
    let result = in_one_transaction(link, database).await;
    if result.is_err() {
        // What failed is said; the connection ends with this.
        let _ = link.client.batch_execute("ROLLBACK").await;
    }
    result
}

async fn in_one_transaction(link: &mut Link, database: &Database) -> Result<(), OpenError> {
    let refused = |error: tokio_postgres::Error| refused(database, error.into());
    // Another's steps, which it waits for, and its own may take long on a large ledger.
    let lock = format!(
        "BEGIN; SET LOCAL statement_timeout = '10min'; SELECT pg_advisory_xact_lock({MIGRATING})"
    );
    link.client.batch_execute(&lock).await.map_err(refused)?;
    let found = find(link)
        .await
        .map_err(|error| self::refused(database, error))?;
    let taken = match found {
        Found::Nothing => {
            let sql = "CREATE SCHEMA IF NOT EXISTS synesis";
            link.client.batch_execute(sql).await.map_err(refused)?;
            0
        }
        Found::Ours(found) if found > known() => {
            return Err(OpenError::Newer {
                path: database.to_string().into(),
                found,
                known: known(),
            });
        }
        Found::Ours(found) => found,
        Found::Foreign => {
            return Err(OpenError::ForeignSchema {
                place: database.to_string(),
            });
        }
    };
    for (number, step) in (1_u32..).zip(MIGRATIONS) {
        if number > taken {
            let advance = format!("{step}; UPDATE about SET version = {number}");
            link.client.batch_execute(&advance).await.map_err(refused)?;
        }
    }
    link.client.batch_execute("COMMIT").await.map_err(refused)
}

/// Whether the schema is still the one that this program writes: a newer gateway may have come.
pub(super) async fn check(link: &mut Link) -> Result<(), StoreError> {
    match find(link).await? {
        Found::Ours(found) if found == known() => Ok(()),
        Found::Ours(found) => Err(StoreError::Failed(format!(
            "the database's schema is {found} now, this synesis knows {}; upgrade this one",
            known()
        ))),
        Found::Nothing | Found::Foreign => Err(StoreError::Failed(
            "the database's schema has gone".to_owned(),
        )),
    }
}

/// Opens it to look only.
pub(super) async fn open_to_look(database: &Database) -> Result<Link, OpenError> {
    let refused = |reason: StoreError| refused(database, reason);
    let link = Link::connect(database).await.map_err(refused)?;
    match find(&link).await.map_err(refused)? {
        Found::Ours(found) if found == known() => Ok(link),
        Found::Ours(found) if found > known() => Err(OpenError::Newer {
            path: database.to_string().into(),
            found,
            known: known(),
        }),
        Found::Ours(_) => Err(refused(StoreError::Failed(
            "its schema is older than this synesis; start the gateway once".to_owned(),
        ))),
        Found::Nothing | Found::Foreign => Err(OpenError::ForeignSchema {
            place: database.to_string(),
        }),
    }
}

async fn too_old(link: &Link) -> Result<(), StoreError> {
    let sql = "SELECT current_setting('server_version_num')::integer, \
               current_setting('server_version'), current_setting('fsync')";
    let row = link.client.query_one(sql, &[]).await?;
    let (number, version, fsync): (i32, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if number < SERVER_MIN {
        return Err(StoreError::Failed(format!(
            "this is PostgreSQL {version}; synesis needs {} or newer",
            SERVER_MIN / 10_000
        )));
    }
    if fsync == "off" {
        tracing::warn!("the database runs with fsync = off: a power cut loses charges");
    }
    Ok(())
}

pub(super) fn refused(database: &Database, reason: StoreError) -> OpenError {
    OpenError::Refused {
        path: database.to_string().into(),
        reason,
    }
}
