//! Certificates that are not what they should be, for devices that should not be let in.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh_core::identity::device_dns_name;
use mesh_core::ids::DeviceId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ED25519, date_time_ymd,
};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A device certificate and its key as the gateway makes them, but from `issuer` and for these
/// years.
///
/// # Panics
///
/// When it cannot be made.
#[must_use]
pub fn device_certificate(
    device: &str,
    issuer: &Issuer<'_, KeyPair>,
    years: std::ops::Range<i32>,
) -> (String, String) {
    let id: DeviceId = device.parse().unwrap();
    let mut params = CertificateParams::new(vec![device_dns_name(id)]).unwrap();
    params.distinguished_name.push(DnType::CommonName, device);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(years.start, 1, 1);
    params.not_after = date_time_ymd(years.end, 1, 1);
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    (
        params.signed_by(&key, issuer).unwrap().pem(),
        key.serialize_pem(),
    )
}

/// An authority that nobody knows: its certificate, and what it signs with.
///
/// # Panics
///
/// When it cannot be made.
#[must_use]
pub fn another_ca() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "another CA");
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

/// The gateway's own authority for devices, from its folder.
///
/// # Panics
///
/// When it is not there.
#[must_use]
pub fn gateways_ca(cluster: &Cluster) -> Issuer<'static, KeyPair> {
    let folder = cluster.store_path().parent().unwrap().join("ca");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("device-ca.key")).unwrap();
    Issuer::from_ca_cert_pem(&read("device-ca.pem"), key).unwrap()
}

/// Changes what a device keeps of its enrolment.
///
/// # Panics
///
/// When it was not enrolled.
pub fn alter(cluster: &Cluster, device: &str, change: impl FnOnce(&mut Value)) {
    let file = cluster.device_folder(device).join("credentials.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    change(&mut kept);
    std::fs::write(&file, kept.to_string()).unwrap();
}

/// Has a device show another certificate than it was given.
///
/// # Panics
///
/// When it was not enrolled.
pub fn show(cluster: &Cluster, device: &str, (certificate, key): (String, String)) {
    alter(cluster, device, |kept| {
        kept["certificates"] = json!(certificate);
        kept["key"] = json!(key);
    });
}
