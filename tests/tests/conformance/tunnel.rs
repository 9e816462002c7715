//! The tunnel of an agent, and what a running answer makes of it: other addresses, networks that are gone, gateways that
//! are gone.

use std::time::Duration;

use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::PATIENCE;
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{DEVICE, Shell, scene, sessions};

/// How long a network is gone: less than a session lives without a sign of life.
const BLACK: Duration = Duration::from_secs(5);
/// How long after that the answer may take, whichever side has something to send: it probes every
/// second.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer is held up by a router that has forgotten its device: the device, which has nothing
/// to say meanwhile, probes after three seconds of silence.
const MOVED_WITHIN: Duration = Duration::from_secs(6);

pub(crate) async fn an_agent_connects_once_and_says_goodbye(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let agent = shell.agent(&cluster).await;
    cluster.gateway().line_with("tunnel up").await;
    agent.terminate();
    assert_eq!(agent.ended().await.code, Some(0));
    cluster.gateway().line_with("tunnel down").await;
    assert_eq!(sessions(&cluster), 1);
}

pub(crate) async fn a_heartbeat_is_acknowledged(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let agent = shell.agent(&cluster).await;
    // The first beat goes out with the session: it is acknowledged a round trip later.
    let acked = async {
        loop {
            let report = shell.status(&cluster).await;
            assert_eq!(report["agent_pid"].as_u64(), agent.id().map(u64::from));
            let statistics = &report["statistics"];
            if statistics["heartbeats_acked"] == 1 {
                assert_eq!(statistics["heartbeats_sent"], 1);
                return;
            }
        }
    };
    timeout(PATIENCE, acked).await.unwrap();
}

pub(crate) async fn an_answer_goes_on_when_the_devices_address_changes(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let gate = Gate::closed();
    upstream.once(Answer::of(&["before ", "after"]).gated(&gate).into());
    let asking = shell.ask(&cluster, &["Why?"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("before").await;
    cluster.relay().rebind().await;
    gate.open();
    let moved = Instant::now();
    assert_eq!(asking.ended().await.succeeded().stdout, "before after\n");
    let took = moved.elapsed();
    println!("{shell:?}: answered {took:?} after the address had changed");
    assert!(took < MOVED_WITHIN, "{took:?}");
    assert_eq!(sessions(&cluster), 1, "the tunnel is still the first");
}

pub(crate) async fn the_agents_tunnel_outlives_a_change_of_address(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let agent = shell.agent(&cluster).await;
    let before = shell.status(&cluster).await;
    cluster.relay().rebind().await;
    let ended = shell.ask(&cluster, &["Why?"], None).ended().await;
    assert_eq!(
        ended.succeeded().stdout.trim_end(),
        Answer::default().text()
    );
    let after = shell.status(&cluster).await;
    assert_eq!(after["epoch"], before["epoch"]);
    assert_eq!(after["statistics"]["reconnections"], 0);
    assert_eq!(sessions(&cluster), 1);
    let said = agent.printed().stderr;
    assert!(!said.contains("Reconnecting"), "{said}");
}

pub(crate) async fn an_answer_comes_through_after_a_black_hole(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let gate = Gate::closed();
    upstream.once(Answer::of(&["before ", "after"]).gated(&gate).into());
    let asking = shell.ask(&cluster, &["Why?", "--timeout", "60"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("before").await;
    cluster.relay().go_black().await;
    gate.open();
    sleep_until(Instant::now() + BLACK).await;
    cluster.relay().heal().await;
    let healed = Instant::now();
    let ended = asking.ended().await.succeeded();
    let took = healed.elapsed();
    println!("{shell:?}: answered {took:?} after a black hole of {BLACK:?}");
    assert_eq!(ended.stdout, "before after\n");
    assert!(took < NOTICED_WITHIN, "{took:?}");
    assert_eq!(sessions(&cluster), 1, "the tunnel is still the first");
    assert_eq!(cluster.charges().await.len(), 1);
}

pub(crate) async fn a_question_asked_in_a_black_hole_is_answered_soon_after_it(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let agent = shell.agent(&cluster).await;
    cluster.relay().go_black().await;
    let heals_at = Instant::now() + BLACK;
    let asking = shell.ask(&cluster, &["Why?", "--timeout", "60"], None);
    agent.line_with("in doubt").await;
    sleep_until(heals_at).await;
    cluster.relay().heal().await;
    let healed = Instant::now();
    let ended = asking.ended().await.succeeded();
    let took = healed.elapsed();
    println!("{shell:?}: asked in a black hole, answered {took:?} after it");
    assert_eq!(ended.stdout.trim_end(), Answer::default().text());
    assert!(took < NOTICED_WITHIN, "{took:?}");
    assert_eq!(sessions(&cluster), 1, "the tunnel is still the first");
    assert_eq!(cluster.charges().await.len(), 1);
}

pub(crate) async fn an_answer_survives_the_loss_of_its_tunnel(shell: Shell) {
    let upstream = FakeUpstream::start().await.unwrap();
    // Instead of the usual twenty seconds, which are waited for in virtual time.
    let setup = Setup::with_upstream(&upstream)
        .environment("SYNESIS_TUNNEL_SILENCE", "2")
        .through_relay();
    let cluster = Cluster::start(setup).await;
    cluster.enrol(DEVICE).await;
    let pieces: Vec<String> = (0..200).map(|n| format!("piece{n} ")).collect();
    let shown: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let gate = Gate::closed();
    upstream.once(Answer::of(&shown).gated(&gate).into());
    let asking = shell.ask(&cluster, &["Why?", "--timeout", "60"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(100);
    asking.line_with("piece99").await;
    cluster.relay().sever().await;
    gate.open();
    let ended = asking.ended().await.succeeded();
    assert_eq!(ended.stdout.trim_end(), pieces.concat().trim_end());
    for words in ["The tunnel is lost", "goes on at piece"] {
        assert!(ended.stderr.contains(words), "{ended:#?}");
    }
    assert_eq!(sessions(&cluster), 2, "it was another tunnel");
    assert_eq!(upstream.questions().len(), 1);
    assert_eq!(cluster.charges().await.len(), 1);
}

pub(crate) async fn a_restarted_gateway_is_found_again(shell: Shell) {
    let (_upstream, mut cluster) = scene().await;
    let agent = shell.agent(&cluster).await;
    let before = shell.status(&cluster).await;
    cluster.restart_gateway().await;
    // The restarted gateway resets the session that it does not know once it hears of it.
    let _lost = shell.ask(&cluster, &["Still there?"], None).ended().await;
    agent.line_with("Reconnecting (1)").await;
    let ended = shell.ask(&cluster, &["And now?"], None).ended().await;
    assert_eq!(
        ended.succeeded().stdout.trim_end(),
        Answer::default().text()
    );
    let after = shell.status(&cluster).await;
    assert!(
        after["epoch"].as_u64() > before["epoch"].as_u64(),
        "{after}"
    );
    assert_eq!(after["statistics"]["reconnections"], 1);
}

pub(crate) async fn an_answer_finished_while_away_is_delivered_after_the_gateways_restart(
    shell: Shell,
) {
    let (upstream, mut cluster) = scene().await;
    let _agent = shell.agent(&cluster).await;
    let gate = Gate::closed();
    upstream.once(
        Answer::of(&["before ", "and ", "after"])
            .gated(&gate)
            .into(),
    );
    let asking = shell.ask(&cluster, &["Why?", "--timeout", "60"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("before").await;
    cluster.relay().go_black().await;
    gate.open();
    cluster.gateway_says("charged").await;
    cluster.restart_gateway().await;
    cluster.relay().heal().await;
    // The restarted gateway resets the session that it does not know once it hears of it.
    let _poke = shell.spawn(
        &cluster,
        &["cloud", "status"],
        &["status"],
        &["--json"],
        None,
    );
    let ended = asking.ended().await.succeeded();
    assert_eq!(ended.stdout.trim_end(), "before and after");
    assert_eq!(upstream.questions().len(), 1);
    assert_eq!(cluster.charges().await.len(), 1);
}

pub(crate) async fn a_gateway_that_goes_away_lets_a_running_answer_end(shell: Shell) {
    let (upstream, mut cluster) = scene().await;
    let gate = Gate::closed();
    upstream.once(Answer::of(&["first ", "second"]).gated(&gate).into());
    let asking = shell.ask(&cluster, &["Why?"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("first").await;
    cluster.gateway().terminate();
    cluster.gateway_says("going away").await;
    gate.open();
    assert_eq!(asking.ended().await.succeeded().stdout, "first second\n");
    assert_eq!(cluster.gateway_ended().await.code, Some(0));
    assert_eq!(cluster.charges().await.len(), 1);
}

pub(crate) async fn a_device_follows_its_gateway_to_the_alternate_and_comes_home(shell: Shell) {
    let (_upstream, mut cluster) = scene().await;
    let second = cluster.second_gateway().await;
    cluster.add_config(&format!("[drain]\nalternates = [\"{}\"]\n", second.tunnel));
    cluster.reload_gateway().await;
    let _agent = shell.agent(&cluster).await;
    assert_eq!(cluster.stop_gateway().await.code, Some(0));
    second.process.line_with("tunnel up").await;
    let answered = shell.ask(&cluster, &["Why?"], None).ended().await;
    assert_eq!(
        answered.succeeded().stdout,
        format!("{}\n", Answer::default().text())
    );

    cluster.restart_gateway().await;
    second.process.terminate();
    assert_eq!(second.process.ended().await.code, Some(0));
    cluster.gateway_says("tunnel up").await;
}
