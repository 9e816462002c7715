//! A file of unfinished questions: what is not whole, or not ours, is none; what is one is written back
//! as it was, and a device goes on with it whatever is in it.

use std::fmt::Write as _;

use mesh_core::device::unfinished::{Unfinished, Unreadable};
use mesh_core::device::{AnswerEvent, Attempts, Config, Device, Input, Output, State, Terms};
use mesh_core::ids::{DeviceId, RequestId};
use mesh_core::machine::Machine as _;
use mesh_core::privacy::Policy;
use mesh_core::rng::Seed;
use sha2::{Digest as _, Sha256};

use crate::steps;
use crate::wire::Wire;

const DEVICE: DeviceId = DeviceId::from_u128(7);
/// A sixth of the longest file, and what surely fits all limits.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The same content under a header that fits it.
fn under_header(body: &[u8]) -> Vec<u8> {
    let mut sum = String::new();
    for byte in Sha256::digest(body) {
        let _never = write!(sum, "{byte:02x}");
    }
    let head = format!(
        "{{\"format\":\"synesis-unfinished\",\"version\":1,\"device\":\"{DEVICE}\",\"sha256\":\"{sum}\"}}\n"
    );
    [head.as_bytes(), body].concat()
}

fn written(unfinished: &Unfinished, device: DeviceId) -> Vec<u8> {
    match unfinished.encode(device) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("{error}"),
    }
}

fn goes_around(unfinished: &Unfinished) {
    let bytes = written(unfinished, DEVICE);
    let again = Unfinished::decode(&bytes, DEVICE);
    assert_eq!(again.as_ref(), Ok(unfinished));
    assert_eq!(bytes, written(unfinished, DEVICE));
    let others = written(unfinished, DeviceId::from_u128(8));
    assert_eq!(
        Unfinished::decode(&others, DEVICE),
        Err(Unreadable::Foreign)
    );
    let cut = bytes.len() / 2;
    assert!(Unfinished::decode(&bytes[..cut], DEVICE).is_err());
    let mut changed = bytes;
    if let Some(byte) = changed.get_mut(cut) {
        *byte ^= 1;
    }
    assert!(Unfinished::decode(&changed, DEVICE).is_err());
    let mut twice = unfinished.clone();
    twice.add(unfinished.clone());
    assert_eq!(twice.len(), unfinished.len());
}

/// Ends that somebody was told, and bytes of text.
fn drain(device: &mut Device<Wire>) -> (usize, usize) {
    let (mut ends, mut bytes) = (0, 0);
    while let Some(output) = device.poll_output() {
        match output {
            Output::Answer { event, .. } => match event {
                AnswerEvent::Chunk(text) => bytes += text.len(),
                AnswerEvent::Ended(_) | AnswerEvent::Whole(_) | AnswerEvent::Failed(_) => ends += 1,
                AnswerEvent::Delta(_)
                | AnswerEvent::Cut
                | AnswerEvent::Notice(_)
                | AnswerEvent::Resumed { .. } => {}
            },
            Output::Keep(unfinished) => {
                assert_eq!(
                    Unfinished::decode(&written(&unfinished, DEVICE), DEVICE),
                    Ok(unfinished)
                );
            }
            Output::Resolve { .. }
            | Output::Changed { .. }
            | Output::Doubt(_)
            | Output::Replied { .. }
            | Output::Notice(_)
            | Output::Rebind
            | Output::Stopped => {}
        }
    }
    (ends, bytes)
}

/// Each question is told to end at most once to whoever wants it, and nothing of it to anybody else.
fn goes_on(unfinished: &Unfinished, connects: bool) {
    let config = Config {
        device_id: DEVICE,
        agent: "fuzz/1".to_owned(),
        attempts: Attempts::Forever,
        privacy: Policy::default(),
        terms: Terms {
            keeps: true,
            ..Terms::default()
        },
    };
    let mut device = Device::new(Wire::default(), config, &Seed::new([7; 32]));
    let now = steps::origin();
    let give = |device: &mut Device<Wire>, input| {
        assert_eq!(device.handle_input(now, input), Ok(()));
        drain(device)
    };
    if connects {
        give(&mut device, Input::Connect);
    }
    let told = give(&mut device, Input::Restore(unfinished.clone()));
    assert_eq!(told, (0, 0), "nobody has asked for it");
    let listed = device.unfinished();
    for one in &listed {
        let (ends, bytes) = give(&mut device, Input::Attach(one.id));
        let lives = !matches!(device.state(), State::Disconnected);
        assert!(ends == 1 || (ends == 0 && one.open && lives));
        assert!(bytes as u64 <= one.bytes);
    }
    let nobody = give(&mut device, Input::Attach(RequestId::from_u128(u128::MAX)));
    assert_eq!(nobody, (1, 0));
    for id in unfinished.ids() {
        give(&mut device, Input::Taken(id));
        give(&mut device, Input::Cancel(id));
    }
    assert!(device.unfinished().iter().all(|one| one.open));
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    if let Ok(unfinished) = Unfinished::decode(data, DEVICE) {
        goes_around(&unfinished);
    }
    let body = data.get(..BODY_BYTES_MAX).unwrap_or(data);
    if let Ok(unfinished) = Unfinished::decode(&under_header(body), DEVICE) {
        goes_around(&unfinished);
        goes_on(&unfinished, true);
        goes_on(&unfinished, false);
    }
}
