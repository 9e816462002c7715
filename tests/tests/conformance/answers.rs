//! Answers, what they cost, and how many a device may ask for.

use mesh_core::billing::money::Nanos;
use mesh_tests::cluster::{ACCOUNT, Cluster, Setup};
use mesh_tests::process::Process;
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate, Usage};
use serde_json::Value;

use crate::{DEVICE, Shell, scene, sessions};

pub(crate) async fn an_answer_is_streamed_and_charged_exactly(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let gate = Gate::closed();
    upstream.once(Answer::of(&["first ", "second"]).gated(&gate).into());
    let asking = shell.ask(&cluster, &["-"], Some("Why?"));
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    // The second piece is still held: what is seen now came as a stream.
    asking.line_with("first").await;
    assert_eq!(asking.printed().stdout, "first ");
    gate.open();
    let ended = asking.ended().await.succeeded();
    assert_eq!(ended.stdout, "first second\n");
    assert!(ended.stderr.contains("scripted-openai"), "{}", ended.stderr);

    for arguments in [&["Why?", "--json"][..], &["Why?", "--json", "--no-stream"]] {
        let ended = shell.ask(&cluster, arguments, None).ended().await;
        let json: Value = serde_json::from_str(&ended.succeeded().stdout).unwrap();
        assert_eq!(json["content"], Answer::default().text());
        // 12 × $3/M + 4 × $15/M, and 3 % on it.
        assert_eq!(json["base_nanos"], 96_000, "{json}");
        assert_eq!(json["charge_nanos"], 98_880, "{json}");
    }
    assert_eq!(cluster.charges().await.len(), 3);
}

pub(crate) async fn one_agent_serves_programs_of_either_shell(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let _agent = shell.agent(&cluster).await;
    let asking: Vec<Process> = [Shell::Synesis, Shell::Lite]
        .into_iter()
        .cycle()
        .take(8)
        .map(|program| program.ask(&cluster, &["Why?"], None))
        .collect();
    for asking in asking {
        let ended = asking.ended().await.succeeded();
        assert_eq!(ended.stdout.trim_end(), Answer::default().text());
    }
    let charges = cluster.charges().await;
    let mut requests: Vec<_> = charges.iter().map(|charge| charge.request).collect();
    requests.sort_unstable();
    requests.dedup();
    assert_eq!(requests.len(), 8);
    assert_eq!(sessions(&cluster), 1, "all through the agent");
}

pub(crate) async fn a_cancelled_answer_is_charged_once_for_what_was_produced(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let gate = Gate::closed();
    upstream.once(
        Answer::of(&["twelve bytes", "never seen"])
            .gated(&gate)
            .into(),
    );
    let asking = shell.ask(&cluster, &["Why?", "--model", "anthropic"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("twelve bytes").await;
    asking.interrupt();
    upstream.wait_for(Event::Disconnected(0)).await;
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    assert_eq!(ended.stdout, "twelve bytes\n");
    let charges = cluster.charges().await;
    assert_eq!(charges.len(), 1);
    // Twelve bytes are three tokens by the estimate of four bytes each; the provider had counted
    // the prompt: 12 × 3 000 + 3 × 15 000 = 81 000; × 1.03 = 83 430.
    assert_eq!(charges[0].tokens.completion, 3);
    assert_eq!(charges[0].charge, Nanos(83_430));
}

pub(crate) async fn a_limit_that_comes_near_is_told_with_the_answer(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let ceiling = |dollars| ["account", "ceiling", ACCOUNT, dollars];
    let _ = cluster.admin(&ceiling("0.0078")).await.succeeded();
    let usage = Usage {
        prompt: 400,
        completion: 4,
        ..Usage::default()
    };
    let answer = Answer {
        usage: Some(usage),
        ..Answer::default()
    };
    upstream.always(answer.into());
    let _agent = shell.agent(&cluster).await;
    let mut told = Vec::new();
    // (400 × 3 000 + 4 × 15 000) × 1.03 = 1 297 800 nano-dollars each: the fifth passes 80 % of
    // 7 800 000.
    for number in 1..=6 {
        if number == 6 {
            let _ = cluster.admin(&ceiling("1")).await.succeeded();
        }
        let arguments = ["Why?", "--json", "--max-tokens", "10"];
        let ended = shell.ask(&cluster, &arguments, None).ended().await;
        let ended = ended.succeeded();
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        for notice in report["notices"].as_array().into_iter().flatten() {
            assert_eq!(notice["percent"], 80, "{report}");
            assert!(ended.stderr.contains("80 %"), "{ended:#?}");
            told.push(number);
        }
    }
    assert_eq!(told, [5]);
}

pub(crate) async fn over_its_limits_a_device_waits_its_turn_or_is_refused_at_no_cost(shell: Shell) {
    let upstream = FakeUpstream::start().await.unwrap();
    let setup = Setup::with_upstream(&upstream)
        .set("answers.device_at_once", "1")
        .set("answers.device_per_minute", "2");
    let cluster = Cluster::start(setup).await;
    cluster.enrol(DEVICE).await;
    let _agent = shell.agent(&cluster).await;
    let gate = Gate::closed();
    upstream.once(Answer::of(&["first"]).gated(&gate).into());
    let first = shell.ask(&cluster, &["One?"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    // One answer is under way: the next is told to wait, and its device asks again by itself.
    let second = shell.ask(&cluster, &["Two?"], None);
    cluster.gateway_says("RATE_LIMITED").await;
    assert_eq!(upstream.questions().len(), 1);
    gate.open();
    assert_eq!(first.ended().await.succeeded().stdout.trim_end(), "first");
    let answered = second.ended().await;
    assert_eq!(
        answered.succeeded().stdout.trim_end(),
        Answer::default().text()
    );
    // That was what a minute allows, and the next turn comes later than this one can wait.
    let third = ["Three?", "--timeout", "2", "--json"];
    let refused = shell.ask(&cluster, &third, None).ended().await;
    assert_eq!(refused.code, Some(19), "{refused:#?}");
    let json: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(json["error"]["code"], "RATE_LIMITED");
    assert_eq!(upstream.questions().len(), 2);
    assert_eq!(cluster.charges().await.len(), 2);
}

pub(crate) async fn status_shows_the_tunnel_and_the_account(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let report = shell.status(&cluster).await;
    assert_eq!(report["state"], "connected");
    assert_eq!(report["device_id"], cluster.device_id(DEVICE));
    for positive in ["handshake_us", "latency_us", "epoch"] {
        assert!(
            report[positive].as_u64().unwrap() > 0,
            "{positive}: {report}"
        );
    }
    assert!(report["account"]["available"].is_number(), "{report}");
    assert!(report.get("agent_pid").is_none(), "{report}");
}
