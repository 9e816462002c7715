use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use mesh_core::identity::device_id_of;
use rustls::pki_types::CertificateSigningRequestDer;

use super::*;

const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
const DEVICE: DeviceId = DeviceId::from_u128(5);

fn authority() -> (tempfile::TempDir, CertificateAuthority) {
    let folder = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::open_or_make(&folder.path().join("ca"), NOW).unwrap();
    (folder, ca)
}

fn request(key: &KeyPair, name: &str) -> String {
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn it_is_made_once_kept_private_and_opened_again() {
    let (folder, ca) = authority();
    let folder = folder.path().join("ca");
    for entry in fs::read_dir(&folder).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let mode = fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let beside = fs::read_dir(folder.parent().unwrap()).unwrap();
    assert_eq!(beside.count(), 1, "nothing of the making is left");
    let again = CertificateAuthority::open_or_make(&folder, UnixMillis(0)).unwrap();
    assert_eq!(again.device_ca(), ca.device_ca());
    assert_eq!(again.reset_key(), ca.reset_key());
    assert_ne!(ca.reset_key(), ca.token_key());
    assert_eq!(again.fingerprint().unwrap(), ca.fingerprint().unwrap());
    let (_folder, other) = authority();
    assert_ne!(other.fingerprint().unwrap(), ca.fingerprint().unwrap());
    assert_eq!(
        again.server_ca_fingerprint().unwrap(),
        ca.server_ca_fingerprint().unwrap()
    );
}

#[test]
fn a_damaged_or_incomplete_authority_is_refused_and_not_written_over() {
    for name in [
        "device-ca.pem",
        "device-ca.key",
        "server-ca.key",
        "shared.keys",
    ] {
        let (root, _) = authority();
        let folder = root.path().join("ca");
        files::write_private(&folder.join(name), "rubbish").unwrap();
        let error = CertificateAuthority::open_or_make(&folder, NOW).unwrap_err();
        assert!(matches!(error, CaError::Damaged { .. }), "{name}: {error}");
        fs::remove_file(folder.join(name)).unwrap();
        let error = CertificateAuthority::open_or_make(&folder, NOW).unwrap_err();
        assert!(
            matches!(error, CaError::Incomplete { .. }),
            "{name}: {error}"
        );
        assert!(!folder.join(name).exists());
    }
}

#[test]
fn a_device_gets_a_certificate_under_its_own_name_whatever_it_asks_for() {
    let (_folder, ca) = authority();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let signed = ca
        .sign_device(&request(&key, GATEWAY_NAME), DEVICE, NOW)
        .unwrap();
    let der = CertificateDer::from_pem_slice(signed.pem.as_bytes()).unwrap();
    assert_eq!(device_id_of(&der), Ok(DEVICE));
    assert_eq!(Fingerprint::of(&der), signed.fingerprint);
    let own = Identity {
        certificates: signed.pem,
        key: key.serialize_pem(),
    };
    crate::tls::tunnel_client(&own, ca.server_ca()).unwrap();
    let gateway = ca.gateway_identity(NOW).unwrap();
    crate::tls::tunnel_server(&gateway, ca.device_ca()).unwrap();
    crate::tls::https_server(&gateway).unwrap();
}

/// A key beside another's certificate would sign what no gateway accepts.
#[test]
fn the_key_of_another_authority_is_refused() {
    for name in ["device-ca.key", "server-ca.key"] {
        let (own, _) = authority();
        let (foreign, _) = authority();
        let [own, foreign] = [own, foreign].map(|root| (root.path().join("ca"), root));
        let key = fs::read_to_string(foreign.0.join(name)).unwrap();
        files::write_private(&own.0.join(name), key).unwrap();
        let error = CertificateAuthority::open_or_make(&own.0, NOW).unwrap_err();
        assert!(
            matches!(&error, CaError::Mismatched { path } if path.ends_with(name)),
            "{error}"
        );
    }
}

#[test]
fn a_key_that_others_may_read_is_refused_with_what_to_do() {
    let (root, _) = authority();
    let folder = root.path().join("ca");
    let open = fs::Permissions::from_mode(0o640);
    fs::set_permissions(folder.join("server-ca.key"), open).unwrap();
    let error = CertificateAuthority::open_or_make(&folder, NOW).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn an_authority_is_not_made_over_what_is_not_one() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("ca");
    files::make_private_dir(&folder).unwrap();
    let empty = CertificateAuthority::open_or_make(&folder, NOW);
    assert!(empty.is_ok(), "an empty folder is as good as none");
    let folder = root.path().join("mine");
    files::make_private_dir(&folder).unwrap();
    fs::write(folder.join("letters.txt"), "dear").unwrap();
    let error = CertificateAuthority::open_or_make(&folder, NOW).unwrap_err();
    assert!(matches!(error, CaError::Io { .. }), "{error}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn those_who_make_it_at_once_get_the_same_one() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("ca");
    let make = || CertificateAuthority::open_or_make(&folder, NOW).unwrap();
    let made = std::thread::scope(|scope| {
        let makers = [0; 4].map(|_| scope.spawn(make));
        makers.map(|maker| maker.join().unwrap().server_ca().to_owned())
    });
    assert!(made.iter().all(|ca| *ca == made[0]));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_request_for_more_than_a_device_may_have_gets_what_a_device_has() {
    let (_folder, ca) = authority();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(vec![GATEWAY_NAME.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
        .distinguished_name
        .push(DnType::CommonName, "device-another");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let signed = ca.sign_device(&request, DEVICE, NOW).unwrap();
    let der = CertificateDer::from_pem_slice(signed.pem.as_bytes()).unwrap();
    assert_eq!(device_id_of(&der), Ok(DEVICE));
    let mut roots = rustls::RootCertStore::empty();
    let anchor = CertificateDer::from_pem_slice(ca.device_ca().as_bytes()).unwrap();
    roots.add(anchor).unwrap();
    let as_a_gateway = rustls::client::verify_server_cert_signed_by_trust_anchor(
        &rustls::server::ParsedCertificate::try_from(&der).unwrap(),
        &roots,
        &[],
        rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(NOW.0)),
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .all,
    );
    let error = as_a_gateway.unwrap_err().to_string();
    assert!(error.contains("extended key usage"), "{error}");
}

#[test]
fn hostile_requests_are_refused() {
    let (_folder, ca) = authority();
    let sign = |pem: &str| ca.sign_device(pem, DEVICE, NOW).unwrap_err();
    let ecdsa = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    assert_eq!(sign(&request(&ecdsa, "x")), CsrRefused::NotEd25519);
    assert_eq!(sign(RSA_REQUEST), CsrRefused::NotEd25519);
    let good = request(&KeyPair::generate_for(&PKCS_ED25519).unwrap(), "x");
    assert_eq!(sign(&good[..good.len() / 2]), CsrRefused::Damaged);
    assert_eq!(sign(""), CsrRefused::Damaged);
    assert_eq!(sign(ca.device_ca()), CsrRefused::Damaged);
    assert_eq!(sign(&"A".repeat(CSR_BYTES_MAX + 1)), CsrRefused::TooLarge);
    assert_eq!(sign(&"A".repeat(CSR_BYTES_MAX)), CsrRefused::Damaged);
}

/// Whoever changes a request, or puts another's key into it, has not shown to hold that key.
#[test]
fn a_request_changed_anywhere_in_what_is_signed_or_in_the_signature_is_refused() {
    let (_folder, ca) = authority();
    let good = request(&KeyPair::generate_for(&PKCS_ED25519).unwrap(), "x");
    let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    // RFC 2986 §4.2: a header of three bytes, what is signed, 7 bytes that name the algorithm, and
    // the signature behind the 3 bytes of its own header.
    let signature = der.len() - 64;
    for at in (3..signature - 10).chain(signature..der.len()) {
        let mut changed = der.to_vec();
        changed[at] ^= 1 << (at % 8);
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            base64::engine::general_purpose::STANDARD.encode(&changed)
        );
        let refused = ca.sign_device(&pem, DEVICE, NOW).map(|_| ());
        assert_eq!(refused, Err(CsrRefused::Damaged), "byte {at}");
    }
}

/// openssl req -new -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=x
const RSA_REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIICUTCCATkCAQAwDDEKMAgGA1UEAwwBeDCCASIwDQYJKoZIhvcNAQEBBQADggEP
ADCCAQoCggEBAOCu3+RAozLEb9HU3Eywm+aP5+XbriVS/BU8aqZD9HB8gJVKy2GH
HQC8q6krgJ5wHpzdgQOlCHpU0fkGphI8EV6zSn/SMxZWqqMh63xunaRS4/zuNfS9
MdAk1t0cSF7SaQ9Xcv7PkcRj96XW0ZcGLfFh/jA+IvCNSkaA6HMn0p9YqDJxfgqq
rOfS4CGaaeOfDFtMy9N7JPOn2+15xWCzLP8e3qWVJhTbt/s22cETO5RIDjZUKg/M
6PkIZbDl5WO3PQ39xZLgLAhDoDU49MF1D7lHXoTdNreUa76Elipx8w8GMX4/NlI2
W7CqBWvRT7aAGPfFdbjfR621T1MGcj2og6UCAwEAAaAAMA0GCSqGSIb3DQEBCwUA
A4IBAQBRit1qHfRWx37i9JNqyArFRHz/+N/UiiWyPIVyQ5+WFrjKgAxBN5jFkCJM
MsKDRULcTpSznfpKRHmJW30LtTpKaXYAVPRokubTDjAF9I5Hl2YeVbLJMIeZUPxb
vHRrZ/1+CyNPc9lUYhhUJVHUpwpRkgy7mbV3PVodRNON5BMABMPmYgOttUUkZ1UV
In5ZgbArGOjUhDIs/coyuMeHmERB6oMsWMkcmcOUsqSoxjeOvhRJZwVr+6m6PAmJ
ntt8uXjX+pcj5l8kKaawP7Fd2JS9zfsEb8GVNpev6gc8BCOetjPGF21MjJYvwxL/
XejCo9Bvewnr7JriRXrYi3HY2rrG
-----END CERTIFICATE REQUEST-----
";
