use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use mesh_core::gateway::Transcript;

use mesh_core::billing::account::{Denied, Lose};
use mesh_core::billing::ledger::seal::{Seal, SealKey};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::limits::STORE_QUEUE_MAX;
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

/// A call that keeps the writer busy until the sender is dropped.
fn occupy(store: &Store) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (free, wait) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let store = store.clone();
    let call = tokio::spawn(async move {
        let work = move |_: &mut writer::Work<'_>| {
            begun.send(()).unwrap();
            let _: Result<(), _> = wait.recv();
            Ok(())
        };
        writer_of(&store).submit(work).await.unwrap();
    });
    tokio::task::block_in_place(|| has_begun.recv().unwrap());
    (free, call)
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
async fn one_changed_byte_in_the_file_names_its_entry() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    for request in 1..=5 {
        charge(&store, request).await;
    }
    drop(store);
    let mut bytes = std::fs::read(folder.file()).unwrap();
    let text = b"{\"sequence\":3,";
    let at = bytes
        .windows(text.len())
        .position(|window| window == text)
        .unwrap();
    let digit = at + text.len() + 60;
    bytes[digit] ^= 1;
    std::fs::write(folder.file(), bytes).unwrap();
    assert_eq!(
        folder.only_fault(),
        (3, "altered, or not the one that followed")
    );
}

#[tokio::test]
async fn a_row_that_was_changed_cut_or_taken_out_is_named() {
    let missing = "missing, or out of order";
    let cut = "missing: the account knows of more entries, or of others";
    let balance = "what the account says it spent is not what its entries add up to";
    for (change, found) in [
        ("DELETE FROM entries WHERE sequence = 2", (2, missing)),
        ("DELETE FROM entries WHERE sequence = 5", (5, cut)),
        ("DELETE FROM entries", (0, cut)),
        (
            "UPDATE entries SET sequence = 9 WHERE sequence = 5",
            (5, missing),
        ),
        (
            "UPDATE accounts SET state = json_set(state, '$.spent', 1)",
            (6, balance),
        ),
        (
            "UPDATE accounts SET state = json_set(state, '$.owed', 1)",
            (6, balance),
        ),
        (
            "UPDATE accounts SET state = json_set(state, '$.tier.markup_bps', 0)",
            (6, balance),
        ),
        ("UPDATE accounts SET state = NULL", (6, balance)),
        (
            "UPDATE entries SET canonical = replace(canonical, '10815000', '10815001') \
             WHERE sequence = 4",
            (4, "altered, or not the one that followed"),
        ),
        (
            "UPDATE entries SET hash = zeroblob(32) WHERE sequence = 1",
            (1, "altered, or not the one that followed"),
        ),
    ] {
        let folder = Folder::new();
        let store = folder.gateway();
        furnish(&store).await;
        for request in 1..=5 {
            charge(&store, request).await;
        }
        drop(store);
        folder.by_hand().execute_batch(change).unwrap();
        assert_eq!(folder.only_fault(), found, "{change}");
    }
}

#[tokio::test]
async fn an_account_that_was_taken_out_leaves_its_entries_behind() {
    let folder = Folder::new();
    furnish(&folder.gateway()).await;
    let remove = "PRAGMA foreign_keys = OFF; DELETE FROM accounts";
    folder.by_hand().execute_batch(remove).unwrap();
    assert_eq!(
        folder.only_fault(),
        (0, "the account that it belongs to is missing")
    );
}

#[tokio::test]
async fn the_file_itself_refuses_to_change_its_ledger() {
    let folder = Folder::new();
    furnish(&folder.gateway()).await;
    let connection = Connection::open(folder.file()).unwrap();
    for change in ["UPDATE entries SET sequence = 7", "DELETE FROM entries"] {
        let refused = connection.execute_batch(change).unwrap_err().to_string();
        assert!(refused.contains("append only"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_written_in_one_transaction_and_in_its_order() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    for request in 1..=64 {
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    }
    let (free, busy) = occupy(&store);
    let before = store.load();
    let mut waiting = Vec::new();
    for request in 1..=64 {
        let settling = store.clone();
        // Polled once each, in order, so that they stand in the queue in that order.
        let mut call =
            Box::pin(async move { settling.settle(ACCOUNT, settle(request), NOW).await });
        assert!(poll_once(&mut call).is_none());
        waiting.push(call);
    }
    drop(free);
    for call in waiting {
        call.await.unwrap();
    }
    busy.await.unwrap();
    let after = store.load();
    assert_eq!(
        (after.batches - before.batches, after.calls - before.calls),
        (1, 64)
    );
    for request in 1..=64 {
        let booked = store
            .booked(ACCOUNT, RequestId::from_u128(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(u128::from(booked.sequence), request);
    }
}

fn poll_once<T>(call: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(call).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_the_newcomer_and_loses_nobody() {
    let folder = Folder::new();
    let store = folder.gateway();
    let (free, busy) = occupy(&store);
    let mut waiting: Vec<_> = (0..STORE_QUEUE_MAX)
        .map(|_| {
            let store = store.clone();
            Box::pin(async move { store.accounts().await })
        })
        .collect();
    for call in &mut waiting {
        assert!(poll_once(call).is_none());
    }
    assert_eq!(store.accounts().await, Err(StoreError::Busy));
    drop(free);
    for call in waiting {
        assert_eq!(call.await, Ok(vec![]));
    }
    busy.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_takes_none_of_its_batch_along() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    let (free, busy) = occupy(&store);
    let failing = writer_of(&store).submit(|work: &mut writer::Work<'_>| {
        work.carry_out(ACCOUNT, Command::Settle(settle(1)), NOW)?;
        work.carry_out(ACCOUNT, Command::Hold(hold(2)), NOW)?;
        Err::<(), _>(StoreError::Locked)
    });
    let mut failing = Box::pin(failing);
    assert!(poll_once(&mut failing).is_none());
    let third = Box::pin(store.hold(ACCOUNT, hold(3), NOW));
    drop(free);
    let (failed, held) = tokio::join!(failing, third);
    assert_eq!((failed, held.map(drop)), (Err(StoreError::Locked), Ok(())));
    busy.await.unwrap();
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.spent, summary.held), (Nanos(0), Nanos(2 * HELD)));
    store.settle(ACCOUNT, settle(1), NOW).await.unwrap();
    assert!(folder.verify().is_sound());
}

#[tokio::test]
async fn a_full_disk_is_said_and_the_store_goes_on_when_there_is_room() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    let pages = |most: i64| {
        writer_of(&store).submit(move |work: &mut writer::Work<'_>| {
            let set = format!("PRAGMA max_page_count = {most}");
            Ok(work
                .connection
                .query_row(&set, [], |row| row.get::<_, i64>(0))?)
        })
    };
    // Never less than the file has: so nothing more fits.
    pages(1).await.unwrap();
    let mut request = 0;
    let full = loop {
        request += 1;
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
        match store.settle(ACCOUNT, settle(request), NOW).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(full, StoreError::Full);
    assert_eq!(store.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(HELD));
    pages(i64::from(u32::MAX) - 1).await.unwrap();
    store.settle(ACCOUNT, settle(request), NOW).await.unwrap();
    let spent = store.summary(ACCOUNT, NOW).await.unwrap().spent;
    assert_eq!(spent, Nanos(CHARGED * i64::try_from(request).unwrap()));
    assert!(folder.verify().is_sound());
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

#[tokio::test]
async fn a_ledger_that_was_cut_short_or_rewritten_is_noticed_by_its_last_seal() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    charge(&store, 1).await;
    charge(&store, 2).await;
    let key = SealKey::from_seed(&[7; 32]).unwrap();
    let seal = Seal::new(NOW, store.heads().await.unwrap(), &key);
    charge(&store, 3).await;
    drop(store);
    let against = |seal: &Seal| {
        let report = verify(&folder.file(), Some(seal)).unwrap();
        let mut faults = report.faults();
        faults.next().map(|fault| (fault.sequence, fault.what))
    };
    assert_eq!(against(&seal), None);
    // Somebody who can write the whole file cuts the last two entries off, and mends everything else.
    let connection = folder.by_hand();
    let cut = "DELETE FROM entries WHERE sequence > 1; DELETE FROM usage; \
               UPDATE accounts SET entries = 2, head = (SELECT hash FROM entries WHERE sequence = 1)";
    connection.execute_batch(cut).unwrap();
    drop(connection);
    let (sequence, what) = against(&seal).unwrap();
    assert_eq!(sequence, 2);
    assert!(what.starts_with("cut off"), "{what}");
    let mut other = seal.heads.clone();
    other.values_mut().for_each(|head| head.entries = 2);
    let (sequence, what) = against(&Seal::new(NOW, other, &key)).unwrap();
    assert_eq!(sequence, 1);
    assert!(what.starts_with("rewritten"), "{what}");
    let stranger = AccountId::from_u128(77);
    let heads = [(stranger, seal.heads[&ACCOUNT])].into();
    let report = verify(&folder.file(), Some(&Seal::new(NOW, heads, &key))).unwrap();
    assert!(report.faults().any(|fault| fault.account == stranger));
}

#[tokio::test]
async fn sums_of_usage_that_were_changed_are_noticed() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    charge(&store, 1).await;
    drop(store);
    let connection = folder.by_hand();
    connection
        .execute_batch("UPDATE usage SET charge = charge - 1")
        .unwrap();
    drop(connection);
    let (_, what) = folder.only_fault();
    assert!(what.contains("sums of what was used"), "{what}");
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
