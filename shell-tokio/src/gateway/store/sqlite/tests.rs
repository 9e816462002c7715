mod batches;
mod damage;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use mesh_core::billing::account::{Command, Denied, Lose, Release};
use mesh_core::billing::ledger::seal::{Seal, SealKey};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::gateway::{Keep, Recalled, Transcript};
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::limits::STORE_QUEUE_MAX;
use mesh_core::time::UnixMillis;
use rusqlite::Connection;
use tempfile::TempDir;

use super::writer;
use crate::gateway::store::conformance::{
    self, ACCOUNT, CERTIFICATE, CHARGED, DEVICE, HELD, KEY, NOW,
};
use crate::gateway::store::conformance::{charge, charge_and_keep, furnish, hold, recall, settle};
use crate::gateway::store::*;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("synesis.db")
    }

    fn gateway(&self) -> Store {
        Store::open(&self.file(), Role::Gateway).unwrap()
    }

    /// The file as anybody can open it, its guards taken off.
    fn by_hand(&self) -> Connection {
        let connection = Connection::open(self.file()).unwrap();
        let guards = "DROP TRIGGER entries_are_never_changed; \
                      DROP TRIGGER entries_are_never_deleted";
        connection.execute_batch(guards).unwrap();
        connection
    }

    fn verify(&self) -> Report {
        verify(&self.file(), None).unwrap()
    }

    fn only_fault(&self) -> (u64, &'static str) {
        let report = self.verify();
        assert!(!report.is_sound());
        let [fault] = *report.faults().collect::<Vec<_>>() else {
            panic!("{report:?}")
        };
        assert_eq!(fault.account, ACCOUNT);
        (fault.sequence, fault.what)
    }
}

macro_rules! conforms {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let folder = Folder::new();
                let store = folder.gateway();
                conformance::$name(store).await;
                assert!(folder.verify().is_sound());
            }
        )+
    };
}

conformance::every_case!(conforms);

fn writer_of(store: &Store) -> &writer::Writer {
    match &store.0 {
        Kind::Sqlite(sqlite) => &sqlite.0,
        Kind::Postgres(_) => panic!("not a file"),
    }
}

#[tokio::test]
async fn what_was_settled_survives_and_what_was_held_does_not() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    charge(&store, 1).await;
    store.hold(ACCOUNT, hold(2), NOW).await.unwrap();
    assert_eq!(
        store.admit(DEVICE, CERTIFICATE, NOW).await.unwrap().epoch,
        1
    );
    drop(store);
    let store = folder.gateway();
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.spent, summary.held), (Nanos(CHARGED), Nanos(0)));
    assert_eq!(
        store.admit(DEVICE, CERTIFICATE, NOW).await.unwrap().epoch,
        2
    );
    store.hold(ACCOUNT, hold(2), NOW).await.unwrap();
    assert!(folder.verify().is_sound());
}

#[tokio::test]
async fn a_crash_loses_no_settle_that_was_answered() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    for request in 1..=5 {
        charge(&store, request).await;
        // What the disk has at this moment is what a crash would leave.
        let crashed = Folder::new();
        for suffix in ["", "-wal"] {
            let name = format!("synesis.db{suffix}");
            let (from, to) = (folder.0.path().join(&name), crashed.0.path().join(&name));
            std::fs::copy(from, to).unwrap();
        }
        let after = crashed.gateway();
        let spent = after.summary(ACCOUNT, NOW).await.unwrap().spent;
        assert_eq!(spent, Nanos(CHARGED * i64::try_from(request).unwrap()));
        assert_eq!(
            crashed.verify().entries(),
            u64::try_from(request).unwrap() + 1
        );
    }
}

#[tokio::test]
async fn there_is_one_gateway_at_a_time() {
    let folder = Folder::new();
    let first = folder.gateway();
    let second = Store::open(&folder.file(), Role::Gateway).unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    drop(first);
    folder.gateway();
}

#[tokio::test]
async fn administration_beside_a_running_gateway_counts_at_once() {
    let folder = Folder::new();
    let gateway = folder.gateway();
    furnish(&gateway).await;
    let admin = Store::open(&folder.file(), Role::Administration).unwrap();
    let held = admin.hold(ACCOUNT, hold(1), NOW).await;
    assert_eq!(held, Err(StoreError::NotTheGateway));
    admin.revoke_key(KEY, true, NOW).await.unwrap();
    assert_eq!(gateway.key([6; 32]).await, Err(StoreError::KeyRevoked));
    assert_eq!(gateway.revocations(0).await.unwrap()[0].device, DEVICE);
    let refused = gateway.admit(DEVICE, CERTIFICATE, NOW).await.unwrap_err();
    assert_eq!(refused.to_string(), "the device was revoked");
}

#[tokio::test]
async fn what_is_locked_by_another_program_changes_nothing() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    let wait_no_time = |work: &mut writer::Work<'_>| {
        Ok(work.connection.busy_timeout(std::time::Duration::ZERO)?)
    };
    writer_of(&store).submit(wait_no_time).await.unwrap();
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(
        store.hold(ACCOUNT, hold(1), NOW).await,
        Err(StoreError::Locked)
    );
    other.execute_batch("ROLLBACK").unwrap();
    store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    let again = store.hold(ACCOUNT, hold(1), NOW).await;
    assert_eq!(again, Err(StoreError::Denied(Denied::InProgress)));
}

#[test]
fn a_newer_foreign_or_broken_file_is_refused_and_left_alone() {
    let folder = Folder::new();
    drop(folder.gateway());
    Connection::open(folder.file())
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let newer = Store::open(&folder.file(), Role::Gateway).unwrap_err();
    assert!(
        matches!(
            newer,
            OpenError::Newer {
                found: 99,
                known: 6,
                ..
            }
        ),
        "{newer}"
    );

    let folder = Folder::new();
    Connection::open(folder.file())
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    let foreign = Store::open(&folder.file(), Role::Gateway).unwrap_err();
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");

    let folder = Folder::new();
    let text = "Dear diary, ".repeat(100);
    std::fs::write(folder.file(), &text).unwrap();
    let foreign = Store::open(&folder.file(), Role::Gateway).unwrap_err();
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
    assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), text);

    let folder = Folder::new();
    drop(folder.gateway());
    let whole = std::fs::read(folder.file()).unwrap();
    std::fs::write(folder.file(), &whole[..whole.len() / 2]).unwrap();
    let broken = Store::open(&folder.file(), Role::Gateway).unwrap_err();
    assert!(broken.to_string().contains("damaged"), "{broken}");

    let folder = Folder::new();
    assert!(matches!(
        verify(&folder.file(), None),
        Err(AuditError::Open(_))
    ));
}

#[tokio::test]
async fn a_file_of_the_first_schema_is_brought_up_from_its_ledger() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    for request in 1..=3 {
        charge(&store, request).await;
    }
    let before = store.summary(ACCOUNT, NOW).await.unwrap();
    drop(store);

    let old = Folder::new();
    let connection = Connection::open(old.file()).unwrap();
    connection
        .execute_batch(&format!(
            "{schema}; PRAGMA application_id = 0x53594E45; PRAGMA user_version = 1; \
             ATTACH '{new}' AS new; \
             INSERT INTO accounts SELECT id, name, created_at, '{{\"tier\":\"managed\",\"markup_bps\":300}}', \
             100000000000, 0, 0, 0, 0, entries, head FROM new.accounts; \
             INSERT INTO entries SELECT account, sequence, canonical, hash FROM new.entries",
            schema = include_str!("schema/0001.sql"),
            new = folder.file().display(),
        ))
        .unwrap();
    drop(connection);

    let store = old.gateway();
    assert_eq!(store.summary(ACCOUNT, NOW).await, Ok(before));
    charge(&store, 4).await;
    let report = old.verify();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.entries(), 5);
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    for entry in std::fs::read_dir(folder.0.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

fn lose(request: u128) -> Lose {
    let settle = settle(request);
    Lose {
        request: settle.request,
        body: settle.body,
        tier: Tier::MANAGED,
        model: settle.model,
        price: settle.price,
        tokens: settle.tokens,
        device: Some(DEVICE),
    }
}

#[tokio::test]
async fn an_answer_that_a_crash_cut_off_is_the_operators_loss_and_free_for_the_account() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    for request in 1..=3 {
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
        store.checkpoint(ACCOUNT, lose(request)).await.unwrap();
    }
    // One is settled and one released in time; what nobody holds is not remembered.
    store.settle(ACCOUNT, settle(2), NOW).await.unwrap();
    let release = Release {
        request: RequestId::from_u128(3),
        hold: hold(3).id,
    };
    store.release(ACCOUNT, release, NOW).await.unwrap();
    store.checkpoint(ACCOUNT, lose(3)).await.unwrap();
    drop(store);
    let store = folder.gateway();
    // Nobody holds it, and nothing is booked yet.
    assert_eq!(recall(&store, 1, NOW).await, Recalled::Nothing);
    assert_eq!(store.lose_all(NOW).await, Ok(1));
    assert_eq!(store.lose_all(NOW).await, Ok(0));
    assert_eq!(recall(&store, 1, NOW).await, Recalled::Lost);
    let (stranger, request) = (DeviceId::from_u128(8), RequestId::from_u128(1));
    let strangers = store.recall(ACCOUNT, stranger, request, NOW).await;
    assert_eq!(strangers, Ok(Recalled::NotYours));
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.spent, summary.held), (Nanos(CHARGED), Nanos(0)));
    for denied in [
        store.hold(ACCOUNT, hold(1), NOW).await.map(drop),
        store.settle(ACCOUNT, settle(1), NOW).await.map(drop),
    ] {
        let Err(StoreError::Denied(Denied::Interrupted { loss })) = denied else {
            panic!("{denied:?}")
        };
        assert_eq!(loss.base, Nanos(10_500_000));
    }
    store.hold(ACCOUNT, hold(3), NOW).await.unwrap();
    assert!(folder.verify().is_sound());
}

/// How many times something stands in the store's file and in its log.
fn occurrences(folder: &Folder, wanted: &str) -> usize {
    let files = [folder.file(), folder.file().with_extension("db-wal")];
    let count = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        let windows = bytes.windows(wanted.len());
        windows
            .filter(|window| *window == wanted.as_bytes())
            .count()
    };
    files.iter().map(count).sum()
}

#[tokio::test]
async fn a_finished_answer_survives_its_gateway_and_at_its_end_nothing_of_it_is_left_in_the_file() {
    const CANARY: &str = "canary-answer-6c2e91";
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    let seconds = |secs: u64| UnixMillis(NOW.0 + secs * 1000);
    // Small ones that share a page, large ones that take many, and ends out of their order.
    for request in 1..=300_u128 {
        let text = CANARY.repeat(if request % 7 == 0 {
            2000
        } else {
            1 + request as usize % 40
        });
        let keep = Keep {
            transcript: Transcript::from_bytes(Bytes::from(text)),
            kept: Duration::from_secs(if request % 3 == 0 { 30 } else { 10 }),
        };
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
        let keep = Some(Box::new(keep));
        let settled = store.settle_and_keep(ACCOUNT, settle(request), keep, NOW);
        settled.await.unwrap();
    }
    drop(store);
    let store = folder.gateway();
    for (now, request, kept) in [(9, 1, true), (10, 1, false), (29, 3, true), (30, 3, false)] {
        let recalled = recall(&store, request, seconds(now)).await;
        assert_eq!(matches!(recalled, Recalled::Kept { .. }), kept, "{now} s");
    }
    assert!(occurrences(&folder, CANARY) > 100);
    assert_eq!(store.forget_answers(seconds(10)).await, Ok(200));
    assert_eq!(store.forget_answers(seconds(29)).await, Ok(0));
    charge_and_keep(&store, 999, Duration::from_secs(3600)).await;
    assert_eq!(store.forget_answers(seconds(30)).await, Ok(100));
    assert_eq!(occurrences(&folder, CANARY), 0);
    assert!(
        occurrences(&folder, "The sky") > 0,
        "what is kept still is there"
    );
    assert!(folder.verify().is_sound());
}

#[tokio::test]
async fn a_log_that_somebody_reads_is_emptied_when_they_have_gone() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    charge_and_keep(&store, 1, Duration::ZERO).await;
    let reader = folder.by_hand();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM answers")
        .unwrap();
    assert_eq!(store.forget_answers(NOW).await, Ok(1));
    assert!(occurrences(&folder, "The sky") > 0);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(store.forget_answers(NOW).await, Ok(0));
    assert_eq!(occurrences(&folder, "The sky"), 0);
}
