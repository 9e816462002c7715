//! Certificate requests, as an enrolling device sends them: of a request only the key counts, and
//! what is signed names the device that the gateway chose.

use std::sync::OnceLock;

use mesh_core::identity::{Fingerprint, device_id_of};
use mesh_core::ids::DeviceId;
use mesh_tokio::gateway::ca::CertificateAuthority;
use mesh_tokio::tls;

use crate::{memory, steps};

const DEVICE: DeviceId = DeviceId::from_u128(0xDE71CE);
/// Longer requests are refused before they are read.
const CSR_BYTES_MAX: usize = 16 * 1024;
/// The gateway's issuer, the certificate and its PEM.
const MEMORY_FIXED: usize = 64 * 1024;
const MEMORY_PER_BYTE: usize = 64;

/// One authority for all inputs: its keys are fresh in every process, and nothing depends on them.
fn authority() -> Option<&'static CertificateAuthority> {
    static AUTHORITY: OnceLock<Option<CertificateAuthority>> = OnceLock::new();
    let made = AUTHORITY.get_or_init(|| {
        let folder = tempfile::tempdir().ok()?;
        CertificateAuthority::open_or_make(folder.path(), steps::origin().wall).ok()
    });
    made.as_ref()
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let (Ok(pem), Some(authority)) = (std::str::from_utf8(data), authority()) else {
        return;
    };
    let wall = steps::origin().wall;
    let (signed, used) = memory::used(|| authority.sign_device(pem, DEVICE, wall));
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * pem.len().min(CSR_BYTES_MAX);
    assert!(used.peak <= allowed, "{used:?} for {} bytes", pem.len());
    match signed {
        Err(refused) => assert!(refused.to_string().len() < 200, "{refused}"),
        Ok(signed) => {
            assert!(pem.len() <= CSR_BYTES_MAX && pem.contains("-----BEGIN "));
            let Ok(certificates) = tls::certificates(&signed.pem, "signed") else {
                unreachable!("what was signed is no PEM");
            };
            let [certificate] = certificates.as_slice() else {
                unreachable!("{} certificates for one request", certificates.len());
            };
            assert_eq!(device_id_of(certificate), Ok(DEVICE));
            assert_eq!(Fingerprint::of(certificate), signed.fingerprint);
            // A year from now.
            assert_eq!(signed.not_after.0 - wall.0, 365 * 86_400_000);
        }
    }
}
