//! Whole handshakes, in memory: who gets in, who does not, and in which words each side hears of it.

use mesh_core::ids::DeviceId;
use mesh_core::time::UnixMillis;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{AlertDescription, ClientConnection, ConnectionCommon, Error, ServerConnection};

use super::*;
use crate::gateway::ca::CertificateAuthority;

const DEVICE: DeviceId = DeviceId::from_u128(7);
const MINUTE_MS: u64 = 60 * 1000;
const YEAR_MS: u64 = 365 * 24 * 60 * MINUTE_MS;

/// rustls reads the system's clock.
fn now() -> UnixMillis {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

fn ago(millis: u64) -> UnixMillis {
    UnixMillis(now().0 - millis)
}

struct Deployment {
    ca: CertificateAuthority,
    _folder: tempfile::TempDir,
}

impl Deployment {
    fn new() -> Self {
        let _folder = tempfile::tempdir().unwrap();
        // Older than every certificate of these tests.
        let ca = CertificateAuthority::open_or_make(&_folder.path().join("ca"), ago(10 * YEAR_MS));
        Self {
            ca: ca.unwrap(),
            _folder,
        }
    }

    fn device(&self, at: UnixMillis) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        Identity {
            certificates: self.ca.sign_device(&request, DEVICE, at).unwrap().pem,
            key: key.serialize_pem(),
        }
    }

    fn gateway(&self) -> Identity {
        self.ca.gateway_identity(now()).unwrap()
    }

    fn tunnel(&self) -> Arc<ServerConfig> {
        tunnel_server(&self.gateway(), self.ca.device_ca()).unwrap()
    }

    /// What a device and this gateway make of each other.
    fn meet(&self, device: &Identity) -> Met {
        let client = tunnel_client(device, self.ca.server_ca()).unwrap();
        shake(client, self.tunnel(), GATEWAY_NAME)
    }

    fn pin(&self) -> Arc<ClientConfig> {
        let ca = self.ca.server_ca_fingerprint().unwrap();
        Arc::new(pinned_client(ca).unwrap())
    }
}

struct Met {
    client: Result<ClientConnection, Error>,
    server: Result<ServerConnection, Error>,
}

impl Met {
    fn both(self) -> (ClientConnection, ServerConnection) {
        (self.client.unwrap(), self.server.unwrap())
    }

    /// The server's reason, and the alert that the client got.
    fn refused_by_server(self) -> (Error, AlertDescription) {
        match (self.client, self.server) {
            (Err(Error::AlertReceived(alert)), Err(reason)) => (reason, alert),
            (client, server) => panic!("{:?} {:?}", client.err(), server.err()),
        }
    }

    fn refused_by_client(self) -> Error {
        let reason = self.client.unwrap_err();
        assert!(!matches!(reason, Error::AlertReceived(_)), "{reason}");
        reason
    }
}

fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: &'static str) -> Met {
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    while client.wants_write() || server.wants_write() {
        carry(&mut client, &mut server, &mut server_error);
        carry(&mut server, &mut client, &mut client_error);
    }
    Met {
        client: client_error.map_or(Ok(client), Err),
        server: server_error.map_or(Ok(server), Err),
    }
}

fn carry<A, B>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
    error: &mut Option<Error>,
) {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = &bytes[..];
    while !bytes.is_empty() && error.is_none() {
        to.read_tls(&mut bytes).unwrap();
        *error = to.process_new_packets().err();
    }
}

fn certificate_error(error: &Error) -> &CertificateError {
    let Error::InvalidCertificate(reason) = error else {
        panic!("{error}");
    };
    reason
}

#[test]
fn a_device_and_its_gateway_agree_on_tls_1_3_and_our_protocol() {
    let deployment = Deployment::new();
    let (client, server) = deployment.meet(&deployment.device(now())).both();
    assert_eq!(
        server.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let shown = server.peer_certificates().unwrap();
    assert_eq!(mesh_core::identity::device_id_of(&shown[0]), Ok(DEVICE));
}

#[test]
fn a_device_without_a_certificate_is_refused() {
    let deployment = Deployment::new();
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(deployment.ca.server_ca(), "CA").unwrap())
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let met = shake(Arc::new(client), deployment.tunnel(), GATEWAY_NAME);
    let (reason, alert) = met.refused_by_server();
    assert_eq!(reason, Error::NoCertificatesPresented);
    assert_eq!(alert, AlertDescription::CertificateRequired);
}

#[test]
fn a_device_of_another_deployment_is_refused() {
    let deployment = Deployment::new();
    let stranger = Deployment::new().device(now());
    let (reason, alert) = deployment.meet(&stranger).refused_by_server();
    assert_eq!(certificate_error(&reason), &CertificateError::UnknownIssuer);
    assert_eq!(alert, AlertDescription::UnknownCA);
}

#[test]
fn an_expired_device_is_refused_and_hears_that_it_is_expired() {
    let deployment = Deployment::new();
    let in_its_last_minute = deployment.device(ago(YEAR_MS - MINUTE_MS));
    deployment.meet(&in_its_last_minute).both();
    let expired = deployment.device(ago(YEAR_MS + MINUTE_MS));
    let (_, alert) = deployment.meet(&expired).refused_by_server();
    assert_eq!(alert, AlertDescription::CertificateExpired);
}

#[test]
fn a_gateway_whose_clock_is_four_minutes_late_lets_a_new_device_in_and_one_six_minutes_late_does_not()
 {
    let deployment = Deployment::new();
    let signed_at = |ahead| deployment.device(UnixMillis(now().0 + ahead * MINUTE_MS));
    deployment.meet(&signed_at(4)).both();
    let (_, alert) = deployment.meet(&signed_at(6)).refused_by_server();
    assert_eq!(alert, AlertDescription::CertificateExpired);
}

#[test]
fn a_gateway_cannot_pass_for_a_device_nor_a_device_for_the_gateway() {
    let deployment = Deployment::new();
    let of_the_other_kind = |reason: &Error| {
        let reason = certificate_error(reason);
        assert!(
            matches!(reason, CertificateError::InvalidPurposeContext { .. }),
            "{reason:?}"
        );
    };
    let (reason, _) = deployment.meet(&deployment.gateway()).refused_by_server();
    of_the_other_kind(&reason);
    let device = deployment.device(now());
    let client = tunnel_client(&device, deployment.ca.server_ca()).unwrap();
    let posing = tunnel_server(&device, deployment.ca.device_ca()).unwrap();
    of_the_other_kind(&shake(client, posing, GATEWAY_NAME).refused_by_client());
}

#[test]
fn a_device_refuses_a_gateway_of_another_deployment() {
    let (own, other) = (Deployment::new(), Deployment::new());
    let client = tunnel_client(&own.device(now()), own.ca.server_ca()).unwrap();
    let reason = shake(client, other.tunnel(), GATEWAY_NAME).refused_by_client();
    assert_eq!(certificate_error(&reason), &CertificateError::UnknownIssuer);
}

#[test]
fn another_protocol_is_refused_in_the_tunnel() {
    let deployment = Deployment::new();
    let client = tunnel_client(&deployment.device(now()), deployment.ca.server_ca()).unwrap();
    let mut client = Arc::unwrap_or_clone(client);
    client.alpn_protocols = vec![b"h3".to_vec()];
    let met = shake(Arc::new(client), deployment.tunnel(), GATEWAY_NAME);
    let (reason, alert) = met.refused_by_server();
    assert_eq!(reason, Error::NoApplicationProtocol);
    assert_eq!(alert, AlertDescription::NoApplicationProtocol);
}

#[test]
fn the_pin_accepts_its_own_gateway_under_any_address() {
    let deployment = Deployment::new();
    let server = https_server(&deployment.gateway()).unwrap();
    for address in ["10.0.0.1", "workshop.example", GATEWAY_NAME] {
        shake(deployment.pin(), Arc::clone(&server), address).both();
    }
}

#[test]
fn the_pin_refuses_every_other_gateway() {
    let (own, other) = (Deployment::new(), Deployment::new());
    let refused = |server: &Identity| {
        let server = https_server(server).unwrap();
        shake(own.pin(), server, "10.0.0.1").refused_by_client()
    };
    let reason = refused(&other.gateway());
    assert_eq!(certificate_error(&reason), &CertificateError::UnknownIssuer);

    // The pinned CA's certificate is no secret: whoever appends it must not pass for its gateway.
    let leaf_of = |identity: &Identity| {
        let end = "-----END CERTIFICATE-----\n";
        let at = identity.certificates.find(end).unwrap() + end.len();
        identity.certificates[..at].to_owned()
    };
    let mut posing = other.gateway();
    posing.certificates = leaf_of(&posing) + own.ca.server_ca();
    certificate_error(&refused(&posing));

    let mut device = own.device(now());
    device.certificates.push_str(own.ca.server_ca());
    certificate_error(&refused(&device));

    let mut without_ca = own.gateway();
    without_ca.certificates = leaf_of(&without_ca);
    let reason = refused(&without_ca);
    assert_eq!(certificate_error(&reason), &CertificateError::UnknownIssuer);
}

#[test]
fn the_pin_refuses_an_expired_gateway() {
    let deployment = Deployment::new();
    let expired = deployment.ca.gateway_identity(ago(6 * YEAR_MS)).unwrap();
    let met = shake(
        deployment.pin(),
        https_server(&expired).unwrap(),
        "10.0.0.1",
    );
    let reason = met.refused_by_client();
    assert!(reason.to_string().contains("expired"), "{reason}");
}

#[test]
fn what_is_damaged_is_named_and_not_shown() {
    let deployment = Deployment::new();
    let device = deployment.device(now());
    let other = deployment.device(now());
    let said = |certificates: &str, key: &str, ca: &str| {
        let identity = Identity {
            certificates: certificates.to_owned(),
            key: key.to_owned(),
        };
        let error = tunnel_client(&identity, ca).unwrap_err().to_string();
        let secret = device.key.lines().nth(1).unwrap();
        assert!(!error.contains(secret), "{error}");
        error
    };
    let (certificates, key, ca) = (&device.certificates, &device.key, deployment.ca.server_ca());
    let half = |text: &str| text[..text.len() / 2].to_owned();
    assert_eq!(
        said(&half(certificates), key, ca),
        "the device certificate is damaged or not PEM"
    );
    assert_eq!(
        said("", key, ca),
        "the device certificate is damaged or not PEM"
    );
    assert_eq!(
        said(certificates, &half(key), ca),
        "the device key is damaged or not PEM"
    );
    assert_eq!(
        said(certificates, certificates, ca),
        "the device key is damaged or not PEM"
    );
    assert_eq!(
        said(certificates, key, "rubbish"),
        "the gateway's CA certificate is damaged or not PEM"
    );
    let mixed = said(certificates, &other.key, ca);
    assert!(
        mixed.starts_with("the device certificate cannot be used"),
        "{mixed}"
    );
    assert_eq!(format!("{device:?}"), "Identity(..)");
}
