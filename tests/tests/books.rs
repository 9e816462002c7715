//! What people see of their money: usage, invoices, the ledger's export and seals, refunds, tiers and
//! keys of their own.

use mesh_tests::cluster::{ACCOUNT, Cluster, Setup};
use mesh_tests::process::Ended;
use mesh_tests::upstream::{Answer, FakeUpstream, Gate, Usage};
use serde_json::Value;

/// What the scripted answer costs: 12 × $3/M + 4 × $15/M = $0.000096, and 3 % on it.
const BASE_NANOS: i64 = 96_000;
const CHARGE_NANOS: i64 = 98_880;

async fn cloud(cluster: &Cluster, arguments: &[&str], stdin: Option<&str>) -> Ended {
    let mut command = cluster.command("laptop");
    command.arg("cloud").args(arguments);
    cluster.spawn("cloud", command, stdin).ended().await
}

async fn cloud_json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let ended = cloud(cluster, &[arguments, &["--json"]].concat(), None).await;
    serde_json::from_str(&ended.succeeded().stdout).unwrap_or_default()
}

#[tokio::test]
async fn usage_and_the_ledgers_export_tell_base_markup_and_charge_apart() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let nothing = cloud(&cluster, &["usage"], None).await.succeeded();
    assert!(nothing.stderr.contains("Nothing was used"), "{nothing:?}");
    for _ in 0..2 {
        let _ = cluster.ask("laptop", "Why?", &[]).await.ended.succeeded();
    }
    let usage = cloud_json(&cluster, &["usage", "--by", "model"]).await;
    let total = &usage["total"];
    assert_eq!(total["requests"], 2);
    assert_eq!(total["base"], 2 * BASE_NANOS);
    assert_eq!(total["markup"], 2 * (CHARGE_NANOS - BASE_NANOS));
    assert_eq!(total["charge"], 2 * CHARGE_NANOS);
    assert_eq!(usage["lines"][0]["label"], "openai");
    let devices = cloud_json(&cluster, &["usage", "--by", "device", "--period", "day"]).await;
    assert_eq!(devices["lines"][0]["label"], cluster.device_id("laptop"));
    // A fraction of a cent is shown whole, in the table and to a spreadsheet.
    let table = cloud(&cluster, &["usage"], None).await.succeeded();
    assert!(table.stdout.contains("$0.00019776"), "{}", table.stdout);
    let csv = cloud(&cluster, &["usage", "--csv"], None).await.succeeded();
    assert!(
        csv.stdout.contains(",0.000192,0.00000576,0.00,0.00019776,"),
        "{}",
        csv.stdout
    );

    let export = cluster.at_gateway("ledger", &["export"]).await.succeeded();
    let lines: Vec<Value> = export
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["price"]["base_nanos"], BASE_NANOS);
    assert_eq!(lines[1]["price"]["charge_nanos"], CHARGE_NANOS);
    assert_eq!(lines[1]["entry"]["record"]["kind"], "charged");
    let csv = cluster
        .at_gateway("ledger", &["export", "--format", "csv"])
        .await
        .succeeded();
    assert!(csv.stdout.contains(",charged,req_"), "{}", csv.stdout);

    let open = cloud(&cluster, &["invoice"], None).await;
    assert!(
        open.stderr.contains("no month has been invoiced yet"),
        "{open:?}"
    );
    let odd = cloud(&cluster, &["invoice", "2026-13"], None).await;
    assert!(odd.stderr.contains("is no month"), "{odd:?}");
    let balance = cloud_json(&cluster, &["balance"]).await;
    assert_eq!(balance["next_invoice"], 2 * CHARGE_NANOS);
}

#[tokio::test]
async fn a_seal_that_was_kept_elsewhere_is_checked_and_a_forged_one_is_refused() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let _ = cluster.ask("laptop", "Why?", &[]).await.ended.succeeded();
    let head = cluster
        .at_gateway("ledger", &["head", "--json"])
        .await
        .succeeded();
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("seal.json");
    std::fs::write(&path, &head.stdout).unwrap();
    let seal = path.display().to_string();
    let _ = cluster.ask("laptop", "Why?", &[]).await.ended.succeeded();
    let verify = ["verify", "--seal", &seal];
    let checked = cluster.at_gateway("ledger", &verify).await.succeeded();
    assert!(
        checked.stderr.contains("1 entries came after it"),
        "{checked:?}"
    );
    let more = head.stdout.replace("\"entries\": 2", "\"entries\": 1");
    assert_ne!(more, head.stdout);
    for (text, words) in [
        (more.as_str(), "altered"),
        ("{}", "no seal to check against"),
        ("", "no seal to check against"),
    ] {
        std::fs::write(&path, text).unwrap();
        let refused = cluster.at_gateway("ledger", &verify).await;
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
}

#[tokio::test]
async fn a_refund_goes_back_once_and_a_payment_taken_back_is_owed() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let _ = cluster
        .admin(&["credit", ACCOUNT, "0.0001", "--reference", "pay-1"])
        .await
        .succeeded();
    let answered = cluster.ask("laptop", "Why?", &[]).await;
    let id = answered.json["request_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let refund = ["refund", ACCOUNT, &id, "0.00005", "--reference", "sorry"];
    for repeated in [false, true] {
        let ended = cluster
            .admin(&[&refund[..], &["--json"]].concat())
            .await
            .succeeded();
        let shown: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(shown["repeated"], repeated);
    }
    let balance = cloud_json(&cluster, &["balance"]).await;
    assert_eq!(balance["balance"], 100_000 - CHARGE_NANOS + 50_000);
    let too_much = cluster.admin(&["refund", ACCOUNT, &id, "1"]).await;
    assert!(
        too_much.stderr.contains("is left to be given back"),
        "{too_much:?}"
    );
    let never = "req_00000000000000000000000000000001";
    let unknown = cluster.admin(&["refund", ACCOUNT, never]).await;
    assert!(unknown.stderr.contains("never charged"), "{unknown:?}");

    let _ = cluster
        .admin(&["reverse", ACCOUNT, "pay-1", "0.0001"])
        .await
        .succeeded();
    let balance = cloud_json(&cluster, &["balance"]).await;
    assert_eq!(
        (&balance["balance"], &balance["owed"]),
        (&0.into(), &48_880.into())
    );
    let blocked = cluster.ask("laptop", "Why?", &[]).await;
    assert_eq!(blocked.code(), Some("PAYMENT_REQUIRED"), "{blocked:?}");
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
}

#[tokio::test]
async fn an_account_may_pay_its_provider_with_a_key_of_its_own_which_is_never_seen_again() {
    const KEY: &str = "sk-own-canary-77d1";
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let forbidden = cloud(&cluster, &["tier", "byok"], None).await;
    assert!(
        forbidden.stderr.contains("none can be chosen"),
        "{forbidden:?}"
    );
    let _ = cluster
        .admin(&["account", "tier", ACCOUNT, "byok"])
        .await
        .succeeded();
    let keyless = cluster.ask("laptop", "Why?", &[]).await;
    assert_eq!(keyless.code(), Some("PAYMENT_REQUIRED"), "{keyless:?}");
    assert!(upstream.questions().is_empty(), "refused before any call");

    let set = ["provider-key", "set", "openai-provider"];
    let unknown = cloud(&cluster, &["provider-key", "set", "nobody"], Some(KEY)).await;
    assert!(unknown.stderr.contains("openai-provider"), "{unknown:?}");
    for (stdin, words) in [
        ("", "on stdin"),
        ("a b", "no provider's key"),
        (&"k".repeat(5000), "too long"),
    ] {
        let refused = cloud(&cluster, &set, Some(stdin)).await;
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    let _ = cloud(&cluster, &set, Some(&format!("{KEY}\n")))
        .await
        .succeeded();
    let answered = cluster.ask("laptop", "Why?", &[]).await;
    let _ = answered.ended.clone().succeeded();
    // 30 % of $0.000096; the provider is paid by the key that came along.
    assert_eq!(answered.charge_nanos(), Some(28_800));
    let bearer = format!("Bearer {KEY}");
    let questions = upstream.questions();
    assert_eq!(questions[0].header("authorization"), Some(&*bearer));
    let usage = cloud_json(&cluster, &["usage"]).await;
    assert_eq!(usage["total"]["licence_fee"], 28_800);

    let _ = cloud(
        &cluster,
        &["provider-key", "clear", "openai-provider"],
        None,
    )
    .await
    .succeeded();
    let keyless = cluster.ask("laptop", "Why?", &[]).await;
    assert_eq!(keyless.code(), Some("PAYMENT_REQUIRED"), "{keyless:?}");
    assert!(!cluster.everything_printed().contains(KEY));
    let folder = cluster.store_path();
    let folder = folder.parent().unwrap();
    for file in std::fs::read_dir(folder).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        let found = bytes
            .windows(KEY.len())
            .any(|window| window == KEY.as_bytes());
        assert!(!found, "{}", file.path().display());
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_after_three_pieces_is_charged_for_them_once() {
    let upstream = FakeUpstream::start().await.unwrap();
    let gate = Gate::closed();
    let answer = Answer::of(&["1234", "1234", "1234", "1234", "1234"]);
    upstream.always(answer.gated(&gate).into());
    let cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let mut command = cluster.command("laptop");
    command.args(["cloud", "ask", "Why?"]);
    let asking = cluster.spawn("ask", command, None);
    gate.let_through(3);
    let mut output = asking.output();
    let three = output.wait_for(|printed| printed.stdout.contains("123412341234"));
    drop(three.await.unwrap());
    asking.interrupt();
    let _ = asking.ended().await;
    cluster
        .gateway()
        .line(|line| line.contains("charged"))
        .await;
    let charges = cluster.charges().await;
    let [charge] = &charges[..] else {
        panic!("{charges:?}")
    };
    // Three pieces of four bytes are three tokens by estimate: the provider never came to count.
    assert_eq!((charge.tokens.completion, charge.estimated), (3, true));
    assert_eq!(upstream.questions().len(), 1);
    let balance = cloud_json(&cluster, &["balance"]).await;
    assert_eq!(
        (&balance["held"], &balance["spent"]),
        (&0.into(), &charge.charge.0.into())
    );
}

#[tokio::test]
async fn an_answer_that_the_gateways_death_cut_off_is_free_and_booked_as_the_operators_loss() {
    let upstream = FakeUpstream::start().await.unwrap();
    let gate = Gate::closed();
    let answer = Answer::of(&["1234", "1234", "1234"]);
    upstream.once(answer.gated(&gate).into());
    let mut cluster = Cluster::start(Setup::with_upstream(&upstream)).await;
    cluster.enrol("laptop").await;
    let asking = cluster.asking("laptop", "Why?", &[]);
    gate.let_through(2);
    cluster
        .gateway()
        .line(|line| line.contains("checkpoint"))
        .await;
    cluster.restart_gateway().await;
    drop(asking.kill().await);
    assert!(cluster.charges().await.is_empty());
    let export = cluster.at_gateway("ledger", &["export"]).await.succeeded();
    let lost: Vec<&str> = export
        .stdout
        .lines()
        .filter(|line| line.contains("\"lost\""))
        .collect();
    let [lost] = lost[..] else {
        panic!("{}", export.stdout)
    };
    let lost: Value = serde_json::from_str(lost).unwrap();
    let movements = &lost["entry"]["movements"];
    assert_eq!(movements[0]["book"], "losses");
    assert!(movements[0]["amount"].as_i64() > Some(0));
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
}

#[tokio::test]
async fn a_person_is_told_once_when_a_limit_comes_near() {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream).priced("gpt4_turbo")).await;
    cluster.enrol("laptop").await;
    // 500 tokens at $10/M and one at $30/M are $0.00503, and 3 % on it: 86 % of the ceiling.
    let mut answer = Answer::of(&["yes"]);
    answer.usage = Some(Usage {
        prompt: 500,
        completion: 1,
        ..Usage::default()
    });
    upstream.always(answer.into());
    let ceiling = ["account", "ceiling", ACCOUNT, "0.006"];
    let _ = cluster.admin(&ceiling).await.succeeded();
    let agent = cluster.agent("laptop").await;
    let asked = cluster.ask("laptop", "?", &["--max-tokens", "1"]).await;
    let told = |printed: &str| printed.matches("80 % of the ceiling").count();
    assert_eq!(told(&asked.ended.succeeded().stderr), 1, "who asked");
    agent
        .line(|line| line.contains("80 % of the ceiling"))
        .await;
    assert_eq!(told(&agent.printed().stderr), 1, "the agent's log");
    assert_eq!(told(&cluster.everything_printed()), 2, "and nobody else");
}
