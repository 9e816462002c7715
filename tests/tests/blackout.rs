//! A bad network between device and gateway, and what the agent says of it: black-outs, loss, a NAT
//! that forgets, a gateway that is killed.
//!
//! The devices give a silent gateway up after [`SILENCE_SECS`] instead of twenty, so that a black-out
//! with several attempts in it fits into a run; how long they really wait is tested in virtual time.
//! Black-outs of 60 s and 150 s with the real figure run when `TEST_SLOW` is set.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::escalation::context::Question;
use mesh_core::ids::RequestId;
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::{PATIENCE, Process};
use mesh_tests::relay::{Conditions, Counts, Way};
use mesh_tests::upstream::{Answer, Event, FakeUpstream, Gate};
use mesh_tokio::device::control::AgentLink;
use tokio::time::{Instant, sleep_until, timeout};

/// Quiet: these tests measure time.
const LOG: &str = "warn";
/// The longest pause between two attempts of an agent.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// After how long of probing the devices of the quick tests seek another session.
const SILENCE_SECS: u64 = 3;
/// What that is when nothing is said.
const SILENCE_SECS_DEFAULT: u64 = 20;
/// Bytes of the bulk transfer: some seconds of the link, so that the black-out is in the middle.
const BULK_BYTES: u64 = 24_000_000;
/// Bytes of each of its questions.
const BULK_QUESTION_BYTES: usize = 4_000_000;
/// The link's rate during the bulk transfer, bytes per second each way.
const BULK_RATE: u64 = 8_000_000;

/// The agent's state as it prints it, with when.
struct Timeline {
    agent: Process,
}

impl Timeline {
    /// The states printed so far, without their reasons.
    fn states(&self) -> Vec<String> {
        states(&self.agent.printed().stderr)
    }

    /// Waits until the states printed so far end in `wanted`.
    async fn ends_in(&self, wanted: &str) {
        let mut printed = self.agent.output();
        let ends = printed.wait_for(|printed| {
            states(&printed.stderr)
                .last()
                .is_some_and(|last| last == wanted)
        });
        ends.await.unwrap();
    }
}

/// A state is a line of its own, with its reason behind a colon.
fn states(stderr: &str) -> Vec<String> {
    const STATES: [&str; 5] = [
        "Connected",
        "Connecting",
        "Reconnecting",
        "Disconnected",
        "Failed",
    ];
    let lines = stderr
        .lines()
        .map(|line| line.split(": ").next().unwrap_or_default());
    lines
        .filter(|line| STATES.iter().any(|state| line.starts_with(state)))
        .map(str::to_owned)
        .collect()
}

/// A cluster behind a relay, and a device whose tunnel is up.
struct Scene {
    cluster: Cluster,
    timeline: Timeline,
    link: Arc<AgentLink>,
    _upstream: FakeUpstream,
}

impl Scene {
    async fn new(silence_secs: u64) -> Self {
        let upstream = FakeUpstream::start().await.unwrap();
        let setup = Setup::with_upstream(&upstream)
            .priced("free")
            .logging(LOG)
            .environment("SYNESIS_TUNNEL_SILENCE", &silence_secs.to_string())
            .through_relay();
        let cluster = Cluster::start(setup).await;
        cluster.enrol("laptop").await;
        let agent = cluster.agent("laptop").await;
        let link = AgentLink::find(&cluster.device_folder("laptop"))
            .await
            .unwrap()
            .unwrap();
        link.ping().await.unwrap();
        let timeline = Timeline { agent };
        Self {
            cluster,
            timeline,
            link: Arc::new(link),
            _upstream: upstream,
        }
    }

    /// Asks the gateway for a sign of life until there is one.
    async fn answers(&self) {
        let mut printed = self.timeline.agent.output();
        while self.link.ping().await.is_err() {
            // Without a tunnel a ping fails at once: wait for the agent's next word.
            let _ = printed.changed().await;
        }
    }

    /// A black-out of so many seconds, with a ping under way so that the silence is noticed.
    /// How long after its end the tunnel answered.
    async fn black_out(&self, secs: u64, within: Duration) -> Duration {
        self.cluster.relay().go_black().await;
        let heals_at = Instant::now() + Duration::from_secs(secs);
        let link = Arc::clone(&self.link);
        let unanswered = tokio::spawn(async move { link.ping().await });
        sleep_until(heals_at).await;
        self.cluster.relay().heal().await;
        let healed = Instant::now();
        let answered = timeout(within + PATIENCE, self.answers()).await;
        let took = healed.elapsed();
        let states = self.timeline.states();
        println!("black for {secs} s: answered after {took:?}; the agent said {states:?}");
        assert!(
            answered.is_ok() && took <= within,
            "{secs} s: {took:?} > {within:?}, {states:?}"
        );
        let _ = unanswered.await;
        timeout(PATIENCE, self.timeline.ends_in("Connected"))
            .await
            .unwrap();
        took
    }
}

async fn idle(silence: u64, secs: u64, within_ms: u64) -> Vec<String> {
    let scene = Scene::new(silence).await;
    scene
        .black_out(secs, Duration::from_millis(within_ms))
        .await;
    scene.timeline.states()
}

/// Black-outs that end before anybody noticed, while the session is in doubt, and after several
/// attempts to make another.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_black_out_the_tunnel_answers_at_once() {
    let (one, two, eleven) = tokio::join!(
        idle(SILENCE_SECS, 1, 500),
        idle(SILENCE_SECS, 2, 1500),
        idle(SILENCE_SECS, 11, 3000)
    );
    says_what_it_should(&one, &two, &eleven);
}

fn says_what_it_should(unnoticed: &[String], in_doubt: &[String], given_up: &[String]) {
    for short in [unnoticed, in_doubt] {
        assert!(
            short.iter().all(|state| state.starts_with("Connect")),
            "{short:?}"
        );
    }
    assert_eq!(
        &in_doubt[in_doubt.len() - 2..],
        ["Connected (in doubt)", "Connected"]
    );
    let place = |wanted: &str| given_up.iter().position(|state| state == wanted).unwrap();
    assert!(
        place("Connected (in doubt)") < place("Reconnecting (1)")
            && place("Reconnecting (1)") < place("Reconnecting (2)"),
        "{given_up:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_is_noticed_after_the_silence_that_is_set() {
    let scene = Scene::new(SILENCE_SECS).await;
    scene.cluster.relay().go_black().await;
    let black = Instant::now();
    let link = Arc::clone(&scene.link);
    tokio::spawn(async move { link.ping().await });
    timeout(PATIENCE, scene.timeline.ends_in("Connected (in doubt)"))
        .await
        .unwrap();
    let doubted = black.elapsed();
    timeout(PATIENCE, scene.timeline.ends_in("Reconnecting (1)"))
        .await
        .unwrap();
    let gave_up = black.elapsed();
    println!("in doubt after {doubted:?}, reconnecting after {gave_up:?}");
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&doubted));
    let probed = gave_up - doubted;
    assert!((Duration::from_millis(2500)..Duration::from_secs(6)).contains(&probed));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_black_out_longer_than_the_session_lives_the_tunnel_comes_back() {
    if std::env::var_os("TEST_SLOW").is_none() {
        println!("skipped: TEST_SLOW is not set");
        return;
    }
    let silence = SILENCE_SECS_DEFAULT;
    let (one, ten, sixty) = tokio::join!(
        idle(silence, 1, 500),
        idle(silence, 10, 1500),
        idle(silence, 60, 3000)
    );
    says_what_it_should(&one, &ten, &sixty);
    let within = u64::try_from((BACKOFF_MAX + Duration::from_secs(5)).as_millis()).unwrap();
    let (idle, busy) = tokio::join!(idle(silence, 150, within), bulk(silence, 150, within));
    for states in [idle, busy] {
        assert!(
            states.iter().any(|state| state == "Reconnecting (1)"),
            "{states:?}"
        );
    }
}

/// A black-out in the middle of many large questions.
async fn bulk(silence: u64, secs: u64, within_ms: u64) -> Vec<String> {
    let scene = Scene::new(silence).await;
    let slow = Conditions {
        rate: Some(BULK_RATE),
        ..Conditions::default()
    };
    scene.cluster.relay().set(slow).await;
    let sent = Arc::new(AtomicU64::new(0));
    let black = Arc::new(AtomicBool::new(false));
    let transfer = tokio::spawn({
        let (link, sent) = (Arc::clone(&scene.link), Arc::clone(&sent));
        let passage = "0123456789abcdef".repeat(BULK_QUESTION_BYTES / 16);
        let printed = scene.timeline.agent.output();
        async move {
            let mut id = 1;
            while sent.load(Ordering::Relaxed) < BULK_BYTES {
                let question = Question::new("What of it?").timeout_secs(600);
                let question = question.knowledge("bulk", passage.clone(), 1.0);
                let request = question.into_request(RequestId::from_u128(id));
                id += 1;
                let asked = link.ask(request).await;
                match async { asked?.collect().await }.await {
                    Ok(_) => {
                        sent.fetch_add(BULK_QUESTION_BYTES as u64, Ordering::Relaxed);
                    }
                    // The black-out ended the session it ran on: ask anew when there is another.
                    Err(_) => {
                        let _ = printed.clone().changed().await;
                    }
                }
            }
        }
    });
    let relay = scene.cluster.relay();
    relay
        .wait_until(Way::Up, |counts| counts.bytes > BULK_BYTES / 5)
        .await;
    relay.go_black().await;
    black.store(true, Ordering::Relaxed);
    let heals_at = Instant::now() + Duration::from_secs(secs);
    sleep_until(heals_at).await;
    relay.set(slow).await;
    let healed = Instant::now();
    let within = Duration::from_millis(within_ms);
    let answered = timeout(within + PATIENCE, scene.answers()).await;
    let took = healed.elapsed();
    let states = scene.timeline.states();
    println!("bulk, black for {secs} s: answered after {took:?}; the agent said {states:?}");
    assert!(
        answered.is_ok() && took <= within,
        "{secs} s: {took:?} > {within:?}, {}",
        scene.timeline.agent.printed().stderr
    );
    timeout(PATIENCE * 3, transfer).await.unwrap().unwrap();
    assert!(relay.counts(Way::Up).bytes >= BULK_BYTES);
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_black_out_in_a_bulk_transfer_the_tunnel_answers_at_once() {
    let (one, two, seven) = tokio::join!(
        bulk(SILENCE_SECS, 1, 500),
        bulk(SILENCE_SECS, 2, 1500),
        bulk(SILENCE_SECS, 7, 3000)
    );
    for short in [&one, &two] {
        assert!(
            short.iter().all(|state| state.starts_with("Connect")),
            "{short:?}"
        );
    }
    assert!(
        seven.iter().any(|state| state == "Reconnecting (1)"),
        "{seven:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_delay_duplicates_reordering_and_damage_cost_time_only() {
    let scene = Scene::new(SILENCE_SECS).await;
    let bad = Conditions {
        drop: 0.1,
        duplicate: 0.15,
        reorder: 0.15,
        corrupt: 0.02,
        delay: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        ..Conditions::default()
    };
    scene.cluster.relay().set(bad).await;
    let answers: Vec<_> = (0..20)
        .map(|n| {
            let link = Arc::clone(&scene.link);
            tokio::spawn(async move {
                let question = Question::new("Why?").timeout_secs(60);
                let request = question.into_request(RequestId::from_u128(n));
                link.ask(request).await?.collect().await
            })
        })
        .collect();
    for answer in answers {
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.content, Answer::default().text());
    }
    let [up, down] = [Way::Up, Way::Down].map(|way| scene.cluster.relay().counts(way));
    let each = |count: fn(&Counts) -> u64| count(&up) + count(&down);
    // Some 150 datagrams: that none of them is hit has a chance of less than one in ten million.
    assert!(each(|c| c.dropped) > 0 && each(|c| c.duplicated) > 0 && each(|c| c.reordered) > 0);
    assert_eq!(scene.cluster.charges().await.len(), 20);
    let states = scene.timeline.states();
    assert!(
        states.iter().all(|state| state.starts_with("Connect")),
        "{states:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_when_the_devices_address_changes() {
    let upstream = FakeUpstream::start().await.unwrap();
    let gate = Gate::closed();
    upstream.always(Answer::of(&["before ", "after"]).gated(&gate).into());
    let cluster = Cluster::start(Setup::with_upstream(&upstream).through_relay()).await;
    cluster.enrol("laptop").await;
    let agent = cluster.agent("laptop").await;
    let mut command = cluster.command("laptop");
    command.args(["cloud", "ask", "Why?"]);
    let asking = cluster.spawn("ask", command, None);
    upstream.wait_for(Event::Waiting(0)).await;
    gate.let_through(1);
    asking.line_with("before").await;
    cluster.relay().rebind().await;
    gate.open();
    assert_eq!(asking.ended().await.succeeded().stdout, "before after\n");
    let states = states(&agent.printed().stderr);
    assert!(
        states.iter().all(|state| state.starts_with("Connect")),
        "{states:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_is_found_again_at_once() {
    let upstream = FakeUpstream::start().await.unwrap();
    let setup = Setup::with_upstream(&upstream).through_relay();
    let mut cluster = Cluster::start(setup).await;
    cluster.enrol("laptop").await;
    let agent = cluster.agent("laptop").await;
    let timeline = Timeline { agent };
    let _ = cluster
        .ask("laptop", "Before?", &[])
        .await
        .ended
        .succeeded();
    cluster.restart_gateway().await;
    let restarted = Instant::now();
    let link = AgentLink::find(&cluster.device_folder("laptop"))
        .await
        .unwrap()
        .unwrap();
    // The restarted gateway resets the session it does not know; the first retry is immediate.
    let _ = link.ping().await;
    timeout(PATIENCE, timeline.ends_in("Connected"))
        .await
        .unwrap();
    let _ = cluster.ask("laptop", "After?", &[]).await.ended.succeeded();
    assert!(
        restarted.elapsed() < Duration::from_secs(10),
        "{:?}",
        restarted.elapsed()
    );
    assert_eq!(cluster.charges().await.len(), 2);
    let _ = cluster.at_gateway("ledger", &["verify"]).await.succeeded();
}
