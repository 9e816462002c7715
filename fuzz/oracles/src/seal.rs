//! Seals: what is sealed holds, nobody's changes hold, and what is read is written back as it was.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::billing::ledger::Hash;
use mesh_core::billing::ledger::seal::{Head, Seal, SealKey};
use mesh_core::ids::AccountId;
use mesh_core::time::UnixMillis;

#[derive(Debug, Arbitrary)]
struct Script {
    at: u64,
    heads: Vec<(u8, u64, u8)>,
    edits: Vec<(u16, u8)>,
    cut: Option<u16>,
}

fn key(seed: u8) -> SealKey {
    match SealKey::from_seed(&[seed; 32]) {
        Some(key) => key,
        None => unreachable!("every 32 bytes are a key"),
    }
}

fn written(seal: &Seal) -> String {
    match serde_json::to_string(seal) {
        Ok(text) => text,
        Err(error) => unreachable!("{error}"),
    }
}

/// Somebody's text: what it reads as is written back and read again without a change, and no key but
/// the one that it names has signed it.
fn anybodys(seal: &Seal) {
    let text = written(seal);
    let again: Result<Seal, _> = serde_json::from_str(&text);
    assert_eq!(again.ok().as_ref(), Some(seal));
    let holds = seal.check(None).is_ok();
    // A key that was not there when the seal was made.
    let other = key(0xEE).public();
    assert!(seal.check(Some(&other)).is_err() || (holds && other == seal.key));
    assert_eq!(seal.check(Some(&seal.key)).is_ok(), holds);
    let entries: u128 = seal
        .heads
        .values()
        .map(|head| u128::from(head.entries))
        .sum();
    assert_eq!(u128::from(seal.entries()), entries.min(u64::MAX.into()));
}

fn ours(script: &Script) {
    let heads: BTreeMap<AccountId, Head> = script
        .heads
        .iter()
        .map(|&(account, entries, byte)| {
            let hash = Hash([byte; 32]);
            (AccountId::from_u128(account.into()), Head { entries, hash })
        })
        .collect();
    let seal = Seal::new(UnixMillis(script.at), heads, &key(7));
    assert_eq!(seal.check(Some(&key(7).public())), Ok(()));
    assert!(seal.check(Some(&key(8).public())).is_err());
    anybodys(&seal);

    let mut bytes = written(&seal).into_bytes();
    for &(at, byte) in &script.edits {
        let at = usize::from(at) % bytes.len();
        bytes[at] = byte;
    }
    if let Some(cut) = script.cut {
        bytes.truncate(usize::from(cut));
    }
    let Ok(changed) = serde_json::from_slice::<Seal>(&bytes) else {
        return;
    };
    anybodys(&changed);
    // Whatever still holds says the same: only the spelling of its signature may be another.
    if changed.check(Some(&key(7).public())).is_ok() {
        let same = Seal {
            signature: changed.signature.clone(),
            ..seal.clone()
        };
        assert_eq!(changed, same, "a change holds");
        assert!(changed.signature.eq_ignore_ascii_case(&seal.signature));
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    if let Ok(seal) = serde_json::from_slice::<Seal>(data) {
        return anybodys(&seal);
    }
    if let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) {
        ours(&script);
    }
}
