//! Gateways of one store have the same certificate authorities, or do not start.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_test_postgres::{Disk, Server};
use mesh_tests::cluster::{Cluster, Setup};
use mesh_tests::process::{Ended, Process};

/// The exit code of certificates, from docs/errors.md.
const CERTIFICATE: Option<i32> = Some(12);

/// Where a machine of the cluster keeps its authorities.
fn authorities(cluster: &Cluster, machine: &str) -> PathBuf {
    let store = cluster.store_path();
    let own = store.parent().unwrap();
    let root = own.parent().unwrap().parent().unwrap();
    root.join(machine).join("gateway/ca")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A gateway on another machine, with the same settings.
fn gateway(cluster: &Cluster, machine: &str) -> Process {
    let mut command = cluster.command(machine);
    command.arg("gateway").arg("--config").arg(cluster.config());
    cluster.spawn("gateway", command, None)
}

fn adopting(cluster: &Cluster, machine: &str) -> Command {
    let mut command = cluster.command(machine);
    command.args(["admin", "adopt-ca", "--config"]);
    command.arg(cluster.config());
    command
}

fn refused(ended: &Ended, why: &str) {
    assert_eq!(ended.code, CERTIFICATE, "{ended:?}");
    for said in [why, "copy the folder", "synesis admin adopt-ca"] {
        assert!(ended.stderr.contains(said), "{said}: {ended:?}");
    }
}

#[tokio::test]
async fn a_gateway_with_other_authorities_is_refused_on_a_shared_database_until_they_are_adopted() {
    let Some(server) = Server::start(Disk::Unsafe) else {
        return;
    };
    let setup = Setup::with_echo().set("store.url", &server.database());
    let mut cluster = Cluster::start(setup).await;

    // One that has none makes none, so that nothing is in the way of a copy.
    let ended = gateway(&cluster, "second").ended().await;
    refused(&ended, "has no certificate authorities");
    assert!(!authorities(&cluster, "second").exists());
    copy(
        &authorities(&cluster, "gateway"),
        &authorities(&cluster, "second"),
    );
    gateway(&cluster, "second").line_with("Ready.").await;

    // One that began with a store of its own.
    let mut own = adopting(&cluster, "third");
    own.env_remove("SYNESIS_GATEWAY_STORE_URL");
    let _ = cluster.spawn("admin", own, None).ended().await.succeeded();
    let ended = gateway(&cluster, "third").ended().await;
    refused(&ended, "has other certificate authorities");

    // Its authorities become everybody's: it starts, and the others do not any more.
    cluster.stop_gateway().await;
    let adopted = cluster.spawn("admin", adopting(&cluster, "third"), None);
    let adopted = adopted.ended().await.succeeded();
    assert!(adopted.stdout.contains("enrol again"), "{adopted:?}");
    gateway(&cluster, "third").line_with("Ready.").await;
    let ended = cluster.try_gateway().await;
    refused(&ended, "has other certificate authorities");
}

#[tokio::test]
async fn a_gateway_that_lost_its_authorities_does_not_silently_begin_anew() {
    let mut cluster = Cluster::start(Setup::with_echo()).await;
    cluster.enrol("laptop").await;
    cluster.stop_gateway().await;
    let folder = authorities(&cluster, "gateway");
    let aside = folder.with_file_name("aside");
    std::fs::rename(&folder, &aside).unwrap();
    let ended = cluster.try_gateway().await;
    refused(&ended, "has no certificate authorities");
    assert!(!folder.exists());

    // Back from the backup, all is as it was.
    copy(&aside, &folder);
    cluster.restart_gateway().await;
    cluster.stop_gateway().await;

    std::fs::remove_dir_all(&folder).unwrap();
    let adopted = cluster.admin(&["adopt-ca", "--json"]).await.succeeded();
    assert!(adopted.stdout.contains("fingerprint"), "{adopted:?}");
    cluster.restart_gateway().await;
    // Under the new authorities a device enrols as ever.
    cluster.enrol("desk").await;
    let answered = cluster.ask("desk", "Hello?", &[]).await;
    assert_eq!(answered.ended.code, Some(0), "{answered:?}");
}
