use std::sync::Arc;

use mesh_core::error::{ErrorClass, ErrorCode};
use mesh_core::identity::api_key::{ApiKey, Scope, Scopes};
use mesh_core::ids::{AccountId, DeviceId, KeyId};
use mesh_core::rng::Seed;
use mesh_core::time::UnixMillis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::driver::Clock;
use crate::gateway::ca::CertificateAuthority;
use crate::gateway::http::{self, Serving, State};
use crate::gateway::store::{NewAccount, NewKey, Role, Store};

const ACCOUNT: AccountId = AccountId::from_u128(1);
const KEY: KeyId = KeyId::from_u128(2);

struct Gateway {
    http: Serving,
    state: State,
    https: bool,
    _folder: tempfile::TempDir,
}

fn api_key(number: u8) -> ApiKey {
    ApiKey::random(&mut Seed::new([number; 32]).secret("key"))
}

fn now() -> UnixMillis {
    Clock::new().now().wall
}

impl Gateway {
    async fn start(https: bool) -> Self {
        Self::with_tunnel(https, "gw.example:4141").await
    }

    /// With [`api_key`] 1, which may enrol, and 2, which may only read.
    async fn with_tunnel(https: bool, tunnel: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store"), Role::Gateway).unwrap();
        let ca = CertificateAuthority::open_or_make(&folder.path().join("ca"), now()).unwrap();
        store
            .create_account(NewAccount::managed(ACCOUNT, "ada"), now())
            .await
            .unwrap();
        let reader = Scopes::of([Scope::Read]);
        for (id, number, scopes) in [(KEY, 1, Scopes::DEFAULT), (KeyId::from_u128(3), 2, reader)] {
            let key = NewKey {
                id,
                account: ACCOUNT,
                label: "laptop".to_owned(),
                hash: api_key(number).hash(),
                scopes,
            };
            store.create_key(key, now()).await.unwrap();
        }
        let identity = ca.gateway_identity(now()).unwrap();
        let server = https.then(|| tls::https_server(&identity).unwrap());
        let state = State {
            going: Arc::default(),
            payments: None,
            store,
            ca: Arc::new(ca),
            tunnel_address: tunnel.to_owned(),
        };
        let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self {
            http: http::serve(listener, server, state.clone()).unwrap(),
            state,
            https,
            _folder: folder,
        }
    }

    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.http.local_addr())
    }

    fn join(&self, key: u8, ca: Option<Fingerprint>) -> JoinLine {
        JoinLine {
            url: self.url(),
            key: api_key(key),
            ca,
        }
    }

    fn pin(&self) -> Fingerprint {
        self.state.ca.server_ca_fingerprint().unwrap()
    }
}

#[tokio::test]
async fn a_device_enrols_over_https_with_nothing_but_a_pin() {
    let gateway = Gateway::start(true).await;
    let join = gateway.join(1, Some(gateway.pin()));
    let credentials = enrol(&join).await.unwrap();
    assert_eq!(credentials.tunnel_address(), "gw.example:4141");
    assert_eq!(credentials.gateway_ca(), gateway.state.ca.server_ca());
    assert_eq!(credentials.http_ca(), join.ca);
    assert_eq!(credentials.http_url(), join.url);
    credentials.check(now()).unwrap();
    let [row] = &*gateway.state.store.devices(Some(ACCOUNT)).await.unwrap() else {
        panic!("one device")
    };
    assert_eq!(row.id, credentials.device_id());
    assert_eq!(row.not_after, credentials.not_after());
    let folder = tempfile::tempdir().unwrap();
    credentials.save(folder.path()).unwrap();
    let read = Credentials::load(folder.path()).unwrap().unwrap();
    assert_eq!(read.device_id(), credentials.device_id());
    gateway.http.shutdown().await;
}

#[tokio::test]
async fn a_device_enrols_in_the_clear_with_its_own_machine() {
    let gateway = Gateway::start(false).await;
    enrol(&gateway.join(1, None)).await.unwrap();
    let mut by_name = gateway.join(1, Some(gateway.pin()));
    by_name.url = format!("http://localhost:{}/", gateway.http.local_addr().port());
    enrol(&by_name).await.unwrap();
    assert_eq!(gateway.state.store.devices(None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_the_gateway_refuses_is_told_in_its_words() {
    let gateway = Gateway::start(true).await;
    let refused = async |key: u8| {
        let error = enrol(&gateway.join(key, Some(gateway.pin())))
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth);
        assert!(!format!("{error} {error:?}").contains(api_key(key).reveal()));
        (error.code(), error.to_string())
    };
    let (code, words) = refused(9).await;
    assert_eq!(code, Some(ErrorCode::Unauthorized));
    assert!(words.contains("does not know"), "{words}");
    let (code, words) = refused(2).await;
    assert_eq!(code, Some(ErrorCode::Forbidden));
    assert!(words.contains("write"), "{words}");
    gateway
        .state
        .store
        .revoke_key(KEY, false, now())
        .await
        .unwrap();
    let (code, words) = refused(1).await;
    assert_eq!(code, Some(ErrorCode::Unauthorized));
    assert!(words.contains("revoked"), "{words}");
    assert_eq!(gateway.state.store.devices(None).await.unwrap(), []);
}

#[tokio::test]
async fn another_gateway_than_the_pinned_one_is_not_told_the_key() {
    let gateway = Gateway::start(true).await;
    let error = enrol(&gateway.join(1, Some(Fingerprint([9; 32]))))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Certificate, "{error}");
    assert!(error.to_string().contains("join line"), "{error}");
    assert_eq!(gateway.state.store.devices(None).await.unwrap(), []);
}

#[tokio::test]
async fn an_answer_that_names_another_ca_than_the_pin_is_refused() {
    let gateway = Gateway::start(false).await;
    let error = enrol(&gateway.join(1, Some(Fingerprint([9; 32]))))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Certificate, "{error}");
}

#[tokio::test]
async fn a_gateway_without_a_usable_tunnel_address_is_refused() {
    for tunnel in ["", "gw.example", ":4141", "gw.example:0", "gw.example:http"] {
        let gateway = Gateway::with_tunnel(false, tunnel).await;
        let error = enrol(&gateway.join(1, None)).await.unwrap_err();
        assert_eq!(
            error.class(),
            ErrorClass::Serialization,
            "{tunnel}: {error}"
        );
    }
}

#[tokio::test]
async fn nothing_is_sent_in_the_clear_to_another_machine() {
    let join = |url: &str| JoinLine {
        url: url.to_owned(),
        key: api_key(1),
        ca: None,
    };
    for (url, plain) in [
        ("http://10.0.0.5:4140", true),
        ("http://localhost.example", true),
        ("http://127.0.0.1.example", true),
        ("http://localhost@gw.example", false),
        ("https://user:pass@gw.example", false),
        ("https://gw.example?q", false),
        ("https://gw.example#si_live_x", false),
        ("ftp://gw.example", false),
        ("gateway", false),
    ] {
        let error = enrol(&join(url)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Validation, "{url}");
        let words = error.to_string();
        assert_eq!(words.contains("plain HTTP"), plain, "{words}");
        assert!(
            !words.contains("pass@") && !words.contains("si_live"),
            "{words}"
        );
    }
    for fine in [
        "https://gw.example:4140",
        "http://127.0.0.1:4140/",
        "http://[::1]:1",
    ] {
        assert!(base_url(fine).is_ok(), "{fine}");
    }
}

/// Answers one request with these bytes and hangs up.
async fn stranger(answer: Vec<u8>) -> JoinLine {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _bytes = stream.read(&mut request).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    });
    JoinLine {
        url,
        key: api_key(1),
        ca: None,
    }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn whoever_is_no_gateway_is_told_apart() {
    let ends = async |bytes| enrol(&stranger(bytes).await).await.unwrap_err();
    let error = ends(answer("502 Bad Gateway", "<html>")).await;
    assert!(error.to_string().contains("502"), "{error}");
    assert_eq!(error.class(), ErrorClass::Api);
    let error = ends(answer("200 OK", "{}")).await;
    assert_eq!(error.class(), ErrorClass::Serialization);
    let error = ends(answer("201 Created", &" ".repeat(ANSWER_BYTES_MAX + 1))).await;
    assert!(error.to_string().contains("more than"), "{error}");
    let redirect = "HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let error = ends(redirect.into()).await;
    assert!(error.to_string().contains("307"), "{error}");
    let error = ends(Vec::new()).await;
    assert_eq!(error.class(), ErrorClass::TunnelConnection, "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_key_is_refused() {
    let gateway = Gateway::start(false).await;
    let theirs = enrol(&gateway.join(1, None)).await.unwrap();
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let csr = CertificateParams::new(Vec::new())
        .unwrap()
        .serialize_request(&other)
        .unwrap();
    let device = DeviceId::from_u128(8);
    let signed = gateway
        .state
        .ca
        .sign_device(&csr.pem().unwrap(), device, now())
        .unwrap();
    let enrolled = Enrolled {
        device_id: device,
        certificate: signed.pem,
        not_after: signed.not_after,
        gateway_ca: theirs.gateway_ca().to_owned(),
        tunnel_address: "gw.example:4141".to_owned(),
    };
    let body = serde_json::to_string(&enrolled).unwrap();
    let error = enrol(&stranger(answer("201 Created", &body)).await)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Tls, "{error}");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_said_to_be_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = health(&url, None).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::TunnelConnection);
    assert!(
        error.to_string().contains("is the gateway running"),
        "{error}"
    );
}

#[tokio::test]
async fn a_healthy_gateway_tells_its_clock() {
    let gateway = Gateway::start(true).await;
    let health = health(&gateway.url(), Some(gateway.pin())).await.unwrap();
    let clock = health
        .clock
        .unwrap()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(clock.as_secs().abs_diff(now().as_secs()) <= 2);
}
