//! What is refused, in which words and with which exit code.

use mesh_tests::forge::{alter, another_ca, device_certificate, gateways_ca, show};
use serde_json::{Value, json};

use crate::{DEVICE, Shell, refused, scene};

pub(crate) async fn a_device_that_is_not_enrolled_is_told_to_enrol(shell: Shell) {
    let (upstream, cluster) = scene().await;
    std::fs::remove_file(cluster.device_folder(DEVICE).join("credentials.json")).unwrap();
    refused(shell, &cluster, 18, "synesis cloud login").await;
    assert_eq!(upstream.questions().len(), 0);
}

pub(crate) async fn a_certificate_of_another_ca_is_refused(shell: Shell) {
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

pub(crate) async fn an_expired_certificate_is_refused(shell: Shell) {
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

pub(crate) async fn a_revoked_device_is_refused(shell: Shell) {
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

pub(crate) async fn a_gateway_that_is_not_the_one_enrolled_with_is_not_trusted(shell: Shell) {
    let (upstream, cluster) = scene().await;
    let (ca, _) = another_ca();
    alter(&cluster, DEVICE, |kept| kept["gateway_ca"] = json!(ca));
    let words = "not the one this device was enrolled with";
    refused(shell, &cluster, 12, words).await;
    assert_eq!(upstream.questions().len(), 0);
}

pub(crate) async fn a_refusal_of_the_gateway_has_its_exit_code(shell: Shell) {
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

pub(crate) async fn a_second_agent_is_refused(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let _agent = shell.agent(&cluster).await;
    for second in [Shell::Synesis, Shell::Lite] {
        let ended = second.start_agent(&cluster).ended().await;
        assert_eq!(ended.code, Some(20), "{second:?}: {ended:#?}");
        assert!(ended.stderr.contains("already running"), "{ended:#?}");
    }
}

pub(crate) async fn a_wrong_command_line_has_its_exit_code(shell: Shell) {
    let (_upstream, cluster) = scene().await;
    let ended = shell.ask(&cluster, &["--jsn"], None).ended().await;
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("--jsn"), "{ended:#?}");
}
