//! Certificates: as DER, whose device they name; as PEM, what of a text is loaded.

use mesh_core::identity::{DEVICE_DOMAIN, device_id_of};
use mesh_tokio::tls::{Identity, certificates, https_server, tunnel_client, tunnel_server};

use crate::memory;

/// Errors and the list while it grows.
const MEMORY_FIXED: usize = 16 * 1024;
/// Each byte of base64 is decoded once, into a buffer that grows.
const MEMORY_PER_BYTE: usize = 8;

/// See the module documentation.
pub fn run(data: &[u8]) {
    der(data);
    if let Ok(text) = std::str::from_utf8(data) {
        pem(text);
    }
}

/// What is read as a device's name stands in the certificate, letter for letter.
fn der(data: &[u8]) {
    assert_eq!(DEVICE_DOMAIN, "device.synesis.internal");
    let (read, used) = memory::used(|| device_id_of(data));
    assert!(
        used.peak <= MEMORY_FIXED + MEMORY_PER_BYTE * data.len(),
        "{used:?}"
    );
    if let Ok(device) = read {
        let uuid = device.to_string();
        let name = format!("{}.device.synesis.internal", &uuid["device-".len()..]);
        let found = data
            .windows(name.len())
            .any(|window| window == name.as_bytes());
        assert!(found, "{device} is not in the certificate");
    }
}

fn pem(text: &str) {
    let (read, used) = memory::used(|| certificates(text, "fuzzed certificate"));
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * text.len();
    assert!(used.peak <= allowed, "{used:?} for {} bytes", text.len());
    let begins = text.matches("-----BEGIN ").count();
    match read {
        Err(error) => assert!(error.to_string().len() < 200, "{error}"),
        Ok(all) => {
            assert!((1..=begins).contains(&all.len()));
            // Four letters of base64 are three bytes.
            let bytes: usize = all.iter().map(|der| der.len()).sum();
            assert!(bytes <= text.len() / 4 * 3);
            all.iter().for_each(|certificate| der(certificate));
            let written: String = all.iter().map(|der| armoured(der)).collect();
            assert!(certificates(&written, "written").is_ok_and(|again| again == all));
            let own = Identity {
                certificates: text.to_owned(),
                key: text.to_owned(),
            };
            let usable = [
                tunnel_client(&own, text).is_ok(),
                tunnel_server(&own, text).is_ok(),
                https_server(&own).is_ok(),
            ];
            let has_key = text.contains(" PRIVATE KEY-----");
            assert!(has_key || usable == [false; 3], "TLS without a key");
            assert_eq!(format!("{own:?}"), "Identity(..)");
        }
    }
}

/// RFC 7468, from RFC 4648 §4.
fn armoured(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (at, three) in der.chunks(3).enumerate() {
        let bits = three
            .iter()
            .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for letter in 0..4 {
            let index = (bits >> (18 - 6 * letter) & 63) as usize;
            let padded = letter as usize > three.len();
            text.push(if padded {
                '='
            } else {
                char::from(ALPHABET[index])
            });
        }
        if at % 16 == 15 {
            text.push('\n');
        }
    }
    text + "\n-----END CERTIFICATE-----\n"
}
