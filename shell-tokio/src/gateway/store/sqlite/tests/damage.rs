//! Files that were altered, cut short or taken from: what is noticed, and where.

use super::*;

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
