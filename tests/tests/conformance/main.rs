//! What every shell must do, one list of cases, each run for each shell against a real gateway: a
//! shell is one file of the same core machine's errands, and none may run them in its own way.
//!
//! A new case is one function in the file of its story, and its name in the list; a new shell is one variant of [`Shell`].

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod refusals;
mod tunnel;
mod unfinished;

use std::process::Command;

use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::{Ended, Process};
use mesh_tests::upstream::FakeUpstream;
use serde_json::Value;

use answers::*;
use refusals::*;
use tunnel::*;
use unfinished::*;

/// The one device of a case.
const DEVICE: &str = "laptop";

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
