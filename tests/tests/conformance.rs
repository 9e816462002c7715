//! What every shell must do, one list of cases, each run for each shell against a real gateway: a
//! shell is one file of the same core machine's errands, and none may run them in its own way.
//!
//! A new case is one function and its name in the list; a new shell is one variant of [`Shell`].

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mesh_core::billing::money::Nanos;
use mesh_tests::cluster::{ACCOUNT, Cluster, Setup};
use mesh_tests::forge::{alter, another_ca, device_certificate, gateways_ca, show};
use mesh_tests::process::{Ended, PATIENCE, Process};
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate, Usage};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

/// The one device of a case.
const DEVICE: &str = "laptop";
/// How long a network is gone: less than a session lives without a sign of life.
const BLACK: Duration = Duration::from_secs(5);
/// How long after that the answer may take, whichever side has something to send: it probes every
/// second.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);

/// How long an answer is held up by a router that has forgotten its device: the device, which has nothing
/// to say meanwhile, probes after three seconds of silence.
const MOVED_WITHIN: Duration = Duration::from_secs(6);

/// Which shell a case is played with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shell {
    /// `synesis`, on tokio.
    Synesis,
    /// `synesis-lite`, on smol.
    Lite,
}

impl Shell {
    /// The long-running agent, once its tunnel is up.
    async fn agent(self, cluster: &Cluster) -> Process {
        let agent = self.start_agent(cluster);
        agent.line(|line| line.trim() == "Connected").await;
        agent
    }

    fn start_agent(self, cluster: &Cluster) -> Process {
        self.spawn(cluster, &["agent"], &["run"], &[], None)
    }

    /// One question; the answer goes to standard output.
    fn ask(self, cluster: &Cluster, arguments: &[&str], stdin: Option<&str>) -> Process {
        self.spawn(cluster, &["cloud", "ask"], &["ask"], arguments, stdin)
    }

    /// The report on tunnel and account.
    async fn status(self, cluster: &Cluster) -> Value {
        let (synesis, lite) = (&["cloud", "status"], &["status"]);
        let status = self.spawn(cluster, synesis, lite, &["--json"], None);
        serde_json::from_str(&status.ended().await.succeeded().stdout).unwrap()
    }

    fn spawn(
        self,
        cluster: &Cluster,
        synesis: &[&str],
        lite: &[&str],
        arguments: &[&str],
        stdin: Option<&str>,
    ) -> Process {
        let mut command = self.command(cluster);
        command.args(match self {
            Self::Synesis => synesis,
            Self::Lite => lite,
        });
        command.args(arguments);
        cluster.spawn(&format!("{self:?}"), command, stdin)
    }

    fn command(self, cluster: &Cluster) -> Command {
        match self {
            Self::Synesis => cluster.command(DEVICE),
            Self::Lite => cluster.lite_command(DEVICE),
        }
    }
}

/// Runs every case for every shell, under the shell's name. Those of the second list wait, for networks
/// that are gone or silent, far more than they work: they run side by side, as one test.
macro_rules! cases {
    ([$($case:ident),+ $(,)?], $together:ident: [$($waiting:ident),+ $(,)?]) => {
        cases! { @of synesis Synesis [$($case),+] $together [$($waiting),+] }
        cases! { @of synesis_lite Lite [$($case),+] $together [$($waiting),+] }
    };
    (@of $name:ident $shell:ident [$($case:ident),+] $together:ident [$($waiting:ident),+]) => {
        mod $name {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Shell::$shell).await;
            })+

            #[tokio::test(flavor = "multi_thread")]
            async fn $together() {
                let cases = [$((
                    stringify!($waiting),
                    tokio::spawn(super::$waiting(super::Shell::$shell)),
                )),+];
                let mut failed = Vec::new();
                for (case, running) in cases {
                    if running.await.is_err() {
                        failed.push(case);
                    }
                }
                assert!(failed.is_empty(), "failed: {failed:?}");
            }
        }
    };
}

cases![[
    an_agent_connects_once_and_says_goodbye,
    a_heartbeat_is_acknowledged,
    an_answer_is_streamed_and_charged_exactly,
    one_agent_serves_programs_of_either_shell,
    a_cancelled_answer_is_charged_once_for_what_was_produced,
    the_agents_tunnel_outlives_a_change_of_address,
    a_question_outlives_the_process_that_asked_it,
    a_question_outlives_the_agent_it_was_asked_through,
    a_file_that_is_not_understood_is_set_aside,
    a_limit_that_comes_near_is_told_with_the_answer,
    over_its_limits_a_device_waits_its_turn_or_is_refused_at_no_cost,
    a_restarted_gateway_is_found_again,
    an_answer_finished_while_away_is_delivered_after_the_gateways_restart,
    a_gateway_that_goes_away_lets_a_running_answer_end,
    a_device_follows_its_gateway_to_the_alternate_and_comes_home,
    a_device_that_is_not_enrolled_is_told_to_enrol,
    a_certificate_of_another_ca_is_refused,
    an_expired_certificate_is_refused,
    a_revoked_device_is_refused,
    a_gateway_that_is_not_the_one_enrolled_with_is_not_trusted,
    a_refusal_of_the_gateway_has_its_exit_code,
    a_second_agent_is_refused,
    a_wrong_command_line_has_its_exit_code,
    status_shows_the_tunnel_and_the_account,
], a_bad_network_costs_time_only: [
    an_answer_goes_on_when_the_devices_address_changes,
    an_answer_comes_through_after_a_black_hole,
    a_question_asked_in_a_black_hole_is_answered_soon_after_it,
    an_answer_survives_the_loss_of_its_tunnel,
]];

/// A gateway behind a relay, with a scripted model and the device enrolled.
async fn scene() -> (FakeUpstream, Cluster) {
    let upstream = FakeUpstream::start().await.unwrap();
    let cluster = Cluster::start(Setup::with_upstream(&upstream).through_relay()).await;
    cluster.enrol(DEVICE).await;
    (upstream, cluster)
}

/// The sessions that the gateway has established so far.
fn sessions(cluster: &Cluster) -> usize {
    let printed = cluster.gateway().printed().stderr;
    printed
        .lines()
        .filter(|line| line.contains("tunnel up"))
        .count()
}

async fn refused(shell: Shell, cluster: &Cluster, code: i32, words: &str) -> Ended {
    let ended = shell.ask(cluster, &["Let me in?"], None).ended().await;
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    assert!(ended.stderr.contains(words), "wanted {words:?}: {ended:#?}");
    assert_eq!(ended.stdout, "");
    ended
}

async fn an_agent_connects_once_and_says_goodbye(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let agent = shell.agent(&cluster).await;
    cluster.gateway().line_with("tunnel up").await;
    agent.terminate();
    assert_eq!(agent.ended().await.code, Some(0));
    cluster.gateway().line_with("tunnel down").await;
    assert_eq!(sessions(&cluster), 1);
}

async fn a_heartbeat_is_acknowledged(shell: Shell) {
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

async fn an_answer_is_streamed_and_charged_exactly(shell: Shell) {
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

async fn one_agent_serves_programs_of_either_shell(shell: Shell) {
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

async fn a_cancelled_answer_is_charged_once_for_what_was_produced(shell: Shell) {
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

async fn an_answer_goes_on_when_the_devices_address_changes(shell: Shell) {
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

async fn the_agents_tunnel_outlives_a_change_of_address(shell: Shell) {
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

async fn an_answer_comes_through_after_a_black_hole(shell: Shell) {
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

async fn a_question_asked_in_a_black_hole_is_answered_soon_after_it(shell: Shell) {
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

/// What is in the folder of unfinished questions.
fn unfinished(cluster: &Cluster) -> Vec<PathBuf> {
    let folder = cluster.device_folder(DEVICE).join("unfinished");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Whether one of the files, wholly written, is as wanted.
fn is_written(cluster: &Cluster, wanted: impl Fn(&str) -> bool) -> bool {
    unfinished(cluster).iter().any(|path| {
        let whole = path.extension().is_some_and(|end| end == "json");
        whole && std::fs::read_to_string(path).is_ok_and(|kept| wanted(&kept))
    })
}

/// Waits until one of them is.
async fn written(cluster: &Cluster, wanted: impl Fn(&str) -> bool) {
    let written = async {
        while !is_written(cluster, &wanted) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
}

async fn resumed(shell: Shell, cluster: &Cluster) -> Ended {
    shell
        .ask(cluster, &["--resume", "--json"], None)
        .ended()
        .await
}

async fn a_question_outlives_the_process_that_asked_it(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let gate = Gate::closed();
    let answer = Answer::of(&["to ada@", "example.com"]);
    upstream.once(answer.clone().gated(&gate).into());
    let asking = shell.ask(&cluster, &["Whom? ada@example.com"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("to ada@").await;
    written(&cluster, |kept| kept.contains("to ada@")).await;
    let _ = asking.kill().await;
    gate.open();
    let ended = resumed(shell, &cluster).await.succeeded();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["content"], answer.text());
    assert_eq!(upstream.questions().len(), 1);
    let charges = cluster.charges().await;
    assert_eq!(charges.len(), 1);
    assert_eq!(report["charge_nanos"], charges[0].charge.0);
    assert_eq!(unfinished(&cluster), Vec::<PathBuf>::new());

    let nothing = resumed(shell, &cluster).await;
    assert_eq!(nothing.code, Some(20), "{nothing:#?}");
    assert!(nothing.stderr.contains("nothing to resume"), "{nothing:#?}");
}

async fn a_question_outlives_the_agent_it_was_asked_through(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let gates = [Gate::closed(), Gate::closed()];
    let answer = Answer::of(&["first ", "second ", "third"]);
    for gate in &gates {
        upstream.once(answer.clone().gated(gate).into());
    }
    let agent = shell.agent(&cluster).await;
    let asking = shell.ask(&cluster, &["One?"], None);
    upstream.wait_for(Event::Waiting(0)).await;
    let other = shell.ask(&cluster, &["Two?"], None);
    upstream.wait_for(Event::Waiting(1)).await;
    for gate in &gates {
        gate.let_through(1);
    }
    asking.line_with("first").await;
    other.line_with("first").await;
    written(&cluster, |kept| kept.matches("first ").count() == 2).await;
    let _ = agent.kill().await;
    assert_ne!(asking.ended().await.code, Some(0));
    assert_ne!(other.ended().await.code, Some(0));

    let _agent = shell.agent(&cluster).await;
    let several = resumed(shell, &cluster).await;
    assert_eq!(several.code, Some(20), "{several:#?}");
    let listed: Value = serde_json::from_str(&several.stdout).unwrap();
    let listed = listed["unfinished"].as_array().unwrap().clone();
    assert_eq!(listed[0]["title"], "One?");
    for gate in &gates {
        gate.open();
    }
    for one in &listed {
        let arguments = ["--resume", one["id"].as_str().unwrap()];
        let ended = shell.ask(&cluster, &arguments, None).ended().await;
        assert_eq!(ended.succeeded().stdout.trim_end(), answer.text());
    }
    assert_eq!(upstream.questions().len(), 2);
    assert_eq!(cluster.charges().await.len(), 2);
}

async fn a_file_that_is_not_understood_is_set_aside(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let folder = cluster.device_folder(DEVICE).join("unfinished");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("0.json");
    std::fs::write(&file, "{\"half\": \"s3cret").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    let ended = resumed(shell, &cluster).await;
    assert_eq!(ended.code, Some(20), "{ended:#?}");
    assert!(ended.stderr.contains("damaged"), "{ended:#?}");
    assert!(!ended.stderr.contains("s3cret"), "{ended:#?}");
    assert_eq!(unfinished(&cluster), [folder.join("0.json.set-aside")]);
    let ended = shell.ask(&cluster, &["Why?"], None).ended().await;
    assert_eq!(
        ended.succeeded().stdout.trim_end(),
        Answer::default().text()
    );
}

async fn a_limit_that_comes_near_is_told_with_the_answer(shell: Shell) {
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

async fn over_its_limits_a_device_waits_its_turn_or_is_refused_at_no_cost(shell: Shell) {
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

async fn an_answer_survives_the_loss_of_its_tunnel(shell: Shell) {
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

async fn a_restarted_gateway_is_found_again(shell: Shell) {
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

async fn an_answer_finished_while_away_is_delivered_after_the_gateways_restart(shell: Shell) {
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

async fn a_gateway_that_goes_away_lets_a_running_answer_end(shell: Shell) {
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

async fn a_device_follows_its_gateway_to_the_alternate_and_comes_home(shell: Shell) {
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

async fn a_device_that_is_not_enrolled_is_told_to_enrol(shell: Shell) {
    let (upstream, cluster) = scene().await;
    std::fs::remove_file(cluster.device_folder(DEVICE).join("credentials.json")).unwrap();
    refused(shell, &cluster, 18, "synesis cloud login").await;
    assert_eq!(upstream.questions().len(), 0);
}

async fn a_certificate_of_another_ca_is_refused(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let (_, another) = another_ca();
    let device = cluster.device_id(DEVICE);
    show(
        &cluster,
        DEVICE,
        device_certificate(&device, &another, 2020..2090),
    );
    refused(shell, &cluster, 12, "of a CA the gateway does not know").await;
    assert_eq!(upstream.questions().len(), 0);
}

async fn an_expired_certificate_is_refused(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let device = cluster.device_id(DEVICE);
    // The gateway's own signature, and a device that does not know that its time is over.
    let ca = gateways_ca(&cluster);
    show(
        &cluster,
        DEVICE,
        device_certificate(&device, &ca, 2020..2021),
    );
    refused(shell, &cluster, 12, "expired").await;
    assert_eq!(upstream.questions().len(), 0);
}

async fn a_revoked_device_is_refused(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let agent = shell.agent(&cluster).await;
    let device = cluster.device_id(DEVICE);
    let revoked = cluster.admin(&["device", "revoke", &device]).await;
    let _ = revoked.succeeded();
    agent
        .line(|line| line.starts_with("Failed") && line.contains("revoked"))
        .await;
    agent.terminate();
    assert_eq!(agent.ended().await.code, Some(0));
    refused(shell, &cluster, 12, "revoked").await;
    assert_eq!(upstream.questions().len(), 0);
}

async fn a_gateway_that_is_not_the_one_enrolled_with_is_not_trusted(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let (ca, _) = another_ca();
    alter(&cluster, DEVICE, |kept| kept["gateway_ca"] = json!(ca));
    let words = "not the one this device was enrolled with";
    refused(shell, &cluster, 12, words).await;
    assert_eq!(upstream.questions().len(), 0);
}

async fn a_refusal_of_the_gateway_has_its_exit_code(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let arguments = ["Why?", "--model", "no-such-model", "--json"];
    let ended = shell.ask(&cluster, &arguments, None).ended().await;
    assert_eq!(ended.code, Some(20), "{ended:#?}");
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["error"]["code"], "INVALID_REQUEST");
    assert_eq!(json["error"]["class"], "Validation");
    // What breaks a rule is refused before anything is sent.
    let broken = ["Why?", "--max-tokens", "0"];
    let ended = shell.ask(&cluster, &broken, None).ended().await;
    assert_eq!(ended.code, Some(20), "{ended:#?}");
    assert_eq!(upstream.questions().len(), 0);
}

async fn a_second_agent_is_refused(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let _agent = shell.agent(&cluster).await;
    for second in [Shell::Synesis, Shell::Lite] {
        let ended = second.start_agent(&cluster).ended().await;
        assert_eq!(ended.code, Some(20), "{second:?}: {ended:#?}");
        assert!(ended.stderr.contains("already running"), "{ended:#?}");
    }
}

async fn a_wrong_command_line_has_its_exit_code(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let ended = shell.ask(&cluster, &["--jsn"], None).ended().await;
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("--jsn"), "{ended:#?}");
}

async fn status_shows_the_tunnel_and_the_account(shell: Shell) {
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
