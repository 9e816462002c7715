//! Servers that die, databases that were changed by hand, and those that are refused.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_repeated_over_a_crash_of_the_server_is_charged_once() {
    let Some(server) = Server::start(Disk::Unsafe) else {
        return;
    };
    let database = Database::parse(&server.database(), None, false).unwrap();
    let place = Place::Database(database);
    let store = Store::open_at(&place, Role::Gateway).await.unwrap();
    furnish(&store).await;
    for request in 1..=200 {
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    }
    charge(&store, 1000).await;
    let next = Arc::new(AtomicU64::new(1));
    let (half, mut is_half) = tokio::sync::watch::channel(0_u32);
    let half = Arc::new(half);
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let (store, next, half) = (store.clone(), Arc::clone(&next), Arc::clone(&half));
        clients.spawn(async move {
            let mut failed = 0;
            loop {
                let request = next.fetch_add(1, Ordering::Relaxed);
                if request > 200 {
                    return failed;
                }
                // As a gateway does.
                loop {
                    match store.settle(ACCOUNT, settle(request.into()), NOW).await {
                        Ok(settled) => {
                            assert_eq!(settled.charge.overage, Nanos(0));
                            half.send_modify(|done| *done += 1);
                            break;
                        }
                        Err(error) => {
                            assert!(error.is_unavailable(), "{error}");
                            failed += 1;
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
        });
    }
    is_half.wait_for(|done| *done >= 40).await.unwrap();
    server.crash();
    let refused = store.hold(ACCOUNT, hold(2000), NOW).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    assert!(!refused.to_string().contains(PASSWORD), "{refused}");
    server.restart();
    let all = tokio::time::timeout(Duration::from_secs(60), clients.join_all());
    let failed: u64 = all.await.unwrap().iter().sum();
    assert!(failed > 0, "the crash was in the middle");
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!(
        (summary.held, summary.spent),
        (Nanos(0), Nanos(201 * CHARGED))
    );
    let report = verify_at(&place, None).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.entries(), 202);
}

#[tokio::test]
async fn a_row_that_was_changed_cut_or_taken_out_is_named() {
    let missing = "missing, or out of order";
    let cut = "missing: the account knows of more entries, or of others";
    let balance = "what the account says it spent is not what its entries add up to";
    let altered = "altered, or not the one that followed";
    let fresh = fresh!();
    let store = fresh.gateway().await;
    furnish(&store).await;
    for request in 1..=5 {
        charge(&store, request).await;
    }
    drop(store);
    for (change, found) in [
        ("DELETE FROM entries WHERE sequence = 2", (2, missing)),
        ("DELETE FROM entries WHERE sequence = 5", (5, cut)),
        ("DELETE FROM entries", (0, cut)),
        (
            "UPDATE entries SET sequence = 9 WHERE sequence = 5",
            (5, missing),
        ),
        (
            "UPDATE accounts SET state = replace(state, '\"spent\":', '\"spent\":1')",
            (6, balance),
        ),
        ("UPDATE accounts SET state = ''", (6, balance)),
        (
            "UPDATE entries SET canonical = replace(canonical, '10815000', '10815001') \
             WHERE sequence = 4",
            (4, altered),
        ),
        (
            "UPDATE entries SET canonical = overlay(canonical placing ' ' from 12 for 0) \
             WHERE sequence = 3",
            (3, altered),
        ),
        (
            "UPDATE entries SET hash = set_byte(hash, 7, 255 - get_byte(hash, 7)) \
             WHERE sequence = 1",
            (1, altered),
        ),
    ] {
        fresh.sql(&format!(
            "SET search_path = synesis; CREATE TABLE e AS SELECT * FROM entries; \
             CREATE TABLE a AS SELECT * FROM accounts; \
             ALTER TABLE entries DISABLE TRIGGER ALL; {change}"
        ));
        assert_eq!(fresh.only_fault().await, found, "{change}");
        fresh.sql(
            "SET search_path = synesis; DELETE FROM entries; \
             INSERT INTO entries SELECT account, sequence, canonical, hash FROM e; \
             UPDATE accounts SET state = a.state FROM a WHERE a.id = accounts.id; \
             ALTER TABLE entries ENABLE TRIGGER ALL; DROP TABLE e, a",
        );
        assert!(fresh.verify().await.is_sound());
    }
}

#[tokio::test]
async fn an_account_that_was_taken_out_leaves_its_entries_behind() {
    let fresh = fresh!();
    furnish(&fresh.gateway().await).await;
    fresh.sql(
        "SET search_path = synesis; ALTER TABLE accounts DISABLE TRIGGER USER; \
         DELETE FROM devices; DELETE FROM keys; DELETE FROM accounts",
    );
    assert_eq!(
        fresh.only_fault().await,
        (0, "the account that it belongs to is missing")
    );
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_its_ledger() {
    let fresh = fresh!();
    furnish(&fresh.gateway().await).await;
    for change in [
        "UPDATE synesis.entries SET sequence = 7",
        "DELETE FROM synesis.entries",
        "TRUNCATE synesis.entries",
        "DELETE FROM synesis.accounts",
    ] {
        let refused = format!(
            "DO $$ BEGIN {change}; RAISE 'it was done'; \
             EXCEPTION WHEN raise_exception THEN RAISE NOTICE '%', sqlerrm; \
             IF sqlerrm <> 'the ledger is append only' THEN RAISE; END IF; END $$"
        );
        fresh.sql(&refused);
    }
}

#[tokio::test]
async fn a_schema_that_is_newer_or_somebody_elses_is_refused() {
    let fresh = fresh!();
    drop(fresh.gateway().await);
    fresh.sql("UPDATE synesis.about SET version = 99");
    for refused in [
        Store::open_at(&fresh.place(), Role::Gateway)
            .await
            .unwrap_err(),
        match verify_at(&fresh.place(), None).await {
            Err(AuditError::Open(error)) => error,
            other => panic!("{other:?}"),
        },
    ] {
        assert!(
            matches!(&refused, OpenError::Newer { found: 99, .. }),
            "{refused}"
        );
        assert!(!refused.to_string().contains(PASSWORD), "{refused}");
    }
    for theirs in [
        "CREATE SCHEMA synesis; CREATE TABLE synesis.orders (n int)",
        "CREATE SCHEMA synesis; CREATE TABLE synesis.about (n int)",
    ] {
        let other = fresh!();
        other.sql(theirs);
        let refused = Store::open_at(&other.place(), Role::Gateway)
            .await
            .unwrap_err();
        assert!(
            matches!(refused, OpenError::ForeignSchema { .. }),
            "{refused}"
        );
        let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'synesis'::regnamespace";
        assert_eq!(other.sql(tables).trim(), "1", "nothing was added");
    }
    // Other schemas of the database are nobody's business; an empty one of our name is filled.
    let beside = fresh!();
    beside.sql("CREATE SCHEMA synesis; CREATE TABLE public.accounts (n int)");
    furnish(&beside.gateway().await).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_without_the_password() {
    let url = format!("postgres://ada:{PASSWORD}@%2Fnowhere/mesh");
    let place = Place::Database(Database::parse(&url, None, false).unwrap());
    let refused = Store::open_at(&place, Role::Gateway).await.unwrap_err();
    let shown = format!("{refused} {refused:?} {place:?}");
    assert!(shown.contains("cannot be reached"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[tokio::test]
async fn a_server_of_a_known_authority_is_reached_over_tls_and_another_is_not() {
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), rcgen::Issuer::new(parameters, key))
    };
    let (known, issuer) = authority("known");
    let (stranger, _) = authority("stranger");
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    let Some(server) = Server::start_encrypted(&certificate.pem(), &key.serialize_pem()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, authority: &str, url: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, authority).unwrap();
        Place::Database(Database::parse(url, Some(&file), false).unwrap())
    };
    let url = server.database();
    let store = Store::open_at(&place("known", &known, &url), Role::Gateway)
        .await
        .unwrap();
    furnish(&store).await;
    charge(&store, 1).await;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'synesis' AND NOT ssl";
    assert_eq!(server.sql(&url, encrypted).trim(), "0");

    let elsewhere = url.replace("localhost", "127.0.0.1");
    for refused in [
        place("stranger", &stranger, &url),
        place("known", &known, &elsewhere),
        place("nobody", "", &url),
    ] {
        let refused = Store::open_at(&refused, Role::Gateway).await.unwrap_err();
        let words = refused.to_string();
        assert!(words.contains("certificate"), "{words}");
        assert!(!words.contains(PASSWORD), "{words}");
    }
}
