use std::pin::pin;
use std::time::Duration;

use axum::body::to_bytes;
use mesh_core::api::Enrolled;
use mesh_core::identity::api_key::{ApiKey, Scope, Scopes};
use mesh_core::identity::device_id_of;
use mesh_core::ids::{AccountId, KeyId};
use mesh_core::rng::Seed;
use mesh_core::time::UnixMillis;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::serve::{Patience, serve_with};
use super::*;
use crate::gateway::store::{NewAccount, NewKey, Role};

/// 2026-11-18T11:06:40Z.
const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
const ACCOUNT: AccountId = AccountId::from_u128(1);
const KEY: KeyId = KeyId::from_u128(2);

struct Gateway {
    http: Serving,
    state: State,
    key: ApiKey,
    _folder: tempfile::TempDir,
}

fn api_key(number: u8) -> ApiKey {
    ApiKey::random(&mut Seed::new([number; 32]).secret("key"))
}

fn new_key(id: KeyId, key: &ApiKey, scopes: Scopes) -> NewKey {
    NewKey {
        id,
        account: ACCOUNT,
        label: "laptop".to_owned(),
        hash: key.hash(),
        scopes,
    }
}

impl Gateway {
    async fn plain() -> Self {
        Self::with(Patience::default(), false).await
    }

    async fn with(patience: Patience, https: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store"), Role::Gateway).unwrap();
        let ca = CertificateAuthority::open_or_make(&folder.path().join("ca"), NOW).unwrap();
        store
            .create_account(NewAccount::managed(ACCOUNT, "ada"), NOW)
            .await
            .unwrap();
        let key = api_key(1);
        store
            .create_key(new_key(KEY, &key, Scopes::DEFAULT), NOW)
            .await
            .unwrap();
        let identity = ca.gateway_identity(NOW).unwrap();
        let tls = https.then(|| crate::tls::https_server(&identity).unwrap());
        let state = State {
            going: Arc::default(),
            payments: None,
            store,
            ca: Arc::new(ca),
            tunnel_address: "gw.example:4141".to_owned(),
        };
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let http = serve_with(listener, tls, state.clone(), patience).unwrap();
        Self {
            http,
            state,
            key,
            _folder: folder,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.http.local_addr()).await.unwrap()
    }

    /// Status, head and body of the answer.
    async fn send(&self, request: &str) -> (u16, String, String) {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (status, _, body) = self.send(&request).await;
        (status, body)
    }

    async fn post(&self, authorization: &str, body: &str) -> (u16, String, String) {
        let length = body.len();
        self.send(&format!(
            "POST /v2/devices HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             {authorization}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    async fn enrol(&self, key: &ApiKey, body: &str) -> (u16, String, String) {
        self.post(&format!("Authorization: Bearer {}\r\n", key.reveal()), body)
            .await
    }

    /// Code and message of the refusal.
    async fn refused(&self, key: &ApiKey, body: &str) -> (u16, String, String) {
        let (status, _, body) = self.enrol(key, body).await;
        let (code, message) = error(&body);
        (status, code, message)
    }
}

fn error(body: &str) -> (String, String) {
    let error: Value = serde_json::from_str(body).unwrap();
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    assert!(error["retryable"].is_boolean());
    (text("code"), text("message"))
}

fn request_with(key: &KeyPair) -> String {
    let params = CertificateParams::new(vec!["whatever".to_owned()]).unwrap();
    let csr = params.serialize_request(key).unwrap().pem().unwrap();
    json!({ "csr": csr, "name": "laptop" }).to_string()
}

fn request() -> String {
    request_with(&KeyPair::generate_for(&PKCS_ED25519).unwrap())
}

#[tokio::test]
async fn a_key_that_may_write_enrols_a_device_and_the_store_knows_it() {
    let gateway = Gateway::plain().await;
    let (status, head, body) = gateway.enrol(&gateway.key, &request()).await;
    assert_eq!(status, 201, "{body}");
    assert!(head.contains("content-type: application/json"));
    let enrolled: Enrolled = serde_json::from_str(&body).unwrap();
    let chain = crate::tls::certificates(&enrolled.certificate, "answer").unwrap();
    assert_eq!(device_id_of(&chain[0]), Ok(enrolled.device_id));
    assert_eq!(enrolled.gateway_ca, gateway.state.ca.server_ca());
    assert_eq!(enrolled.tunnel_address, "gw.example:4141");
    let [row] = &*gateway.state.store.devices(Some(ACCOUNT)).await.unwrap() else {
        panic!("one device")
    };
    assert_eq!((row.id, row.key), (enrolled.device_id, KEY));
    assert_eq!(row.not_after, enrolled.not_after);
    assert_eq!(
        row.certificate,
        mesh_core::identity::Fingerprint::of(&chain[0])
    );
    gateway.http.shutdown().await;
}

#[tokio::test]
async fn unknown_missing_and_revoked_keys_are_nobody() {
    let gateway = Gateway::plain().await;
    let (status, code, message) = gateway.refused(&api_key(9), &request()).await;
    assert_eq!((status, &*code), (401, "UNAUTHORIZED"));
    assert!(message.contains("does not know"), "{message}");
    for odd in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Basic YTpi\r\n",
    ] {
        assert_eq!(gateway.post(odd, &request()).await.0, 401, "{odd}");
    }
    gateway
        .state
        .store
        .revoke_key(KEY, false, NOW)
        .await
        .unwrap();
    let (status, code, message) = gateway.refused(&gateway.key, &request()).await;
    assert_eq!((status, &*code), (401, "UNAUTHORIZED"));
    assert!(message.contains("revoked"), "{message}");
    assert!(!message.contains(gateway.key.reveal()));
    assert_eq!(gateway.state.store.devices(None).await.unwrap(), []);
}

#[tokio::test]
async fn a_key_without_write_is_somebody_who_may_not() {
    let gateway = Gateway::plain().await;
    let reader = api_key(3);
    let scopes = Scopes::of([Scope::Read, Scope::Escalate]);
    let new = new_key(KeyId::from_u128(3), &reader, scopes);
    gateway.state.store.create_key(new, NOW).await.unwrap();
    let (status, code, message) = gateway.refused(&reader, &request()).await;
    assert_eq!((status, &*code), (403, "FORBIDDEN"));
    assert!(message.contains("read,escalate"), "{message}");
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused() {
    let gateway = Gateway::plain().await;
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"csr":5}"#,
        "{\"csr\":\"\"} s3cret",
        "s3cret",
    ] {
        let (status, code, message) = gateway.refused(&gateway.key, body).await;
        assert_eq!((status, &*code), (400, "INVALID_REQUEST"), "{body}");
        assert!(!message.contains("s3cret"), "{message}");
    }
    let damaged = json!({ "csr": "-----BEGIN CERTIFICATE REQUEST-----" }).to_string();
    assert_eq!(gateway.refused(&gateway.key, &damaged).await.0, 400);
    let ecdsa = request_with(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    let (status, _, message) = gateway.refused(&gateway.key, &ecdsa).await;
    assert_eq!(status, 400);
    assert!(message.contains("Ed25519"), "{message}");
    let (status, code, _) = gateway
        .refused(&gateway.key, &"x".repeat(16 * 1024 + 1))
        .await;
    assert_eq!((status, &*code), (413, "TOO_LARGE"));
    assert_eq!(gateway.state.store.devices(None).await.unwrap(), []);
}

#[tokio::test]
async fn health_readiness_and_wrong_turns() {
    let gateway = Gateway::plain().await;
    assert_eq!(gateway.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(gateway.get("/readyz").await, (200, "ready\n".to_owned()));
    let (status, body) = gateway.get("/v2/nothing").await;
    assert_eq!((status, error(&body).0.as_str()), (404, "NOT_FOUND"));
    let (status, body) = gateway.get("/v2/devices").await;
    assert_eq!((status, error(&body).0.as_str()), (405, "INVALID_REQUEST"));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_ready() {
    assert_eq!(readiness(Ok(0)).status(), 200);
    let response = readiness(Err(StoreError::Full));
    assert_eq!(response.status(), 503);
    let body = to_bytes(response.into_body(), 1024).await.unwrap();
    let (code, message) = error(std::str::from_utf8(&body).unwrap());
    assert_eq!(code, "INTERNAL");
    assert!(message.contains("disk is full"), "{message}");
}

#[tokio::test]
async fn after_twenty_bad_keys_an_address_is_not_listened_to_even_with_a_good_one() {
    let gateway = Gateway::plain().await;
    for number in 100..120 {
        assert_eq!(gateway.enrol(&api_key(number), "{}").await.0, 401);
    }
    let (status, head, body) = gateway.enrol(&gateway.key, &request()).await;
    assert_eq!((status, error(&body).0.as_str()), (429, "RATE_LIMITED"));
    let wait: Value = serde_json::from_str(&body).unwrap();
    let secs = wait["retry_after_secs"].as_u64().unwrap();
    assert!((1..=60).contains(&secs), "{secs}");
    assert!(head.contains(&format!("retry-after: {secs}")), "{head}");
    assert_eq!(gateway.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn a_slow_peer_loses_its_connection_and_others_notice_nothing() {
    let patience = Patience {
        header: Duration::from_millis(50),
        ..Patience::default()
    };
    let gateway = Gateway::with(patience, false).await;
    for start in [
        "",
        "GET /healthz HT",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n",
    ] {
        let mut slow = gateway.connect().await;
        slow.write_all(start.as_bytes()).await.unwrap();
        assert_eq!(gateway.get("/healthz").await.0, 200);
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).await.unwrap();
        assert!(!rest.windows(3).any(|bytes| bytes == b"200"), "{start:?}");
    }
}

#[tokio::test]
async fn a_connection_does_not_live_for_ever() {
    let patience = Patience {
        life: Duration::from_millis(50),
        ..Patience::default()
    };
    let gateway = Gateway::with(patience, false).await;
    let mut idle = gateway.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_silent_tls_peer_is_cut_off() {
    let patience = Patience {
        tls: Duration::from_millis(50),
        ..Patience::default()
    };
    let gateway = Gateway::with(patience, true).await;
    let mut silent = gateway.connect().await;
    let mut nothing = Vec::new();
    silent.read_to_end(&mut nothing).await.unwrap();
    assert_eq!(nothing, b"");
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_frees_the_address() {
    let gateway = Gateway::plain().await;
    let mut idle = gateway.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    let address = gateway.http.local_addr();
    gateway.http.shutdown().await;
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn with_every_place_taken_a_newcomer_waits_for_one() {
    let gateway = Gateway::plain().await;
    let mut guests = Vec::new();
    for _ in 0..mesh_core::limits::HTTP_CONNECTIONS_MAX {
        let mut guest = gateway.connect().await;
        guest
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        guest.read_exact(&mut first).await.unwrap();
        guests.push(guest);
    }
    let mut newcomer = pin!(gateway.get("/healthz"));
    let early = tokio::time::timeout(Duration::from_millis(50), newcomer.as_mut()).await;
    assert!(early.is_err(), "no place is free");
    guests.pop();
    assert_eq!(newcomer.await.0, 200);
}

#[test]
fn a_refusal_has_its_codes_status() {
    for code in ErrorCode::ALL {
        let response = Refusal::new(code, "words").into_response();
        assert_eq!(response.status().as_u16(), code.http_status());
    }
}
