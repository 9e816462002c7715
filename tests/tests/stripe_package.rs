//! Our signatures against Stripe's own package from PyPI: each side accepts what the other makes, and
//! nothing that was changed.
//!
//! `TEST_STRIPE_PYTHON` names a Python that has the package; without it the test is skipped, and says
//! so, unless `TEST_STRIPE` is `required`. `.ci/run` installs the package and sets both.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_core::billing::stripe::signature::{BadSignature, WebhookSecret, sign, verify};
use mesh_core::time::UnixMillis;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const PYTHON: &str = "TEST_STRIPE_PYTHON";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

struct Case {
    at: u64,
    body: String,
    /// Ours, or what becomes of it on the way.
    header: String,
    good: bool,
}

/// Bodies that a JSON writer and a shell would rather not see.
fn bodies() -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut bodies = vec![
        String::new(),
        "{}".to_owned(),
        json!({"id": "evt_1", "name": "Grüße, 世界 \u{1f980}", "n": [1, 2.50]}).to_string(),
        "{\n  \"id\": \"evt_1\",\n  \"spaces\":   true\r\n}\n".to_owned(),
        "a.b.c,t=1,v1=00".to_owned(),
    ];
    for length in [1, 63, 64, 65, 1000, 20_000] {
        let characters = (0..length).map(|_| rng.random_range('\u{1}'..'\u{2ff}'));
        bodies.push(characters.collect());
    }
    bodies
}

fn cases(secret: &WebhookSecret, now: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (ago, body) in (0..).zip(bodies()) {
        let at = now - ago;
        let header = sign(secret, UnixMillis(at * 1000), body.as_bytes());
        let changed = header.replacen("t=1", "t=2", 1);
        let other = sign(secret, UnixMillis(at * 1000), format!("{body} ").as_bytes());
        let several = header.replace(",v1=", &format!(",v0=ff,v1={},v1=", "0".repeat(64)));
        let good = |header: &str| Case {
            at,
            body: body.clone(),
            header: header.to_owned(),
            good: true,
        };
        let bad = |header: &str| Case {
            good: false,
            ..good(header)
        };
        cases.extend([good(&header), good(&several), bad(&changed), bad(&other)]);
    }
    cases
}

#[test]
fn each_side_accepts_what_the_other_signs_and_nothing_that_was_changed() {
    let Ok(python) = std::env::var(PYTHON) else {
        let required = std::env::var("TEST_STRIPE").is_ok_and(|value| value == "required");
        assert!(!required, "{PYTHON} does not say where Stripe's package is");
        // Past the harness, which keeps what tests print to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: signatures against Stripe's own package; set {PYTHON} to a Python that has it"
        );
        return;
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let secret = WebhookSecret::new(SECRET).unwrap();
    let cases = cases(&secret, now);
    let task: Vec<Value> = cases
        .iter()
        .map(|case| json!({"at": case.at, "body": case.body, "header": case.header}))
        .collect();
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/stripe_package.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let task = json!({"secret": SECRET, "cases": task}).to_string();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(task.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), cases.len());
    let moment = UnixMillis(now * 1000);
    for (case, answer) in cases.iter().zip(&answers) {
        let body = case.body.as_bytes();
        let theirs = answer["header"].as_str().unwrap();
        assert_eq!(theirs, sign(&secret, UnixMillis(case.at * 1000), body));
        assert_eq!(verify(&secret, theirs, body, moment), Ok(()));
        let ours = verify(&secret, &case.header, body, moment);
        assert_eq!(
            ours,
            if case.good {
                Ok(())
            } else {
                Err(BadSignature::Mismatch)
            }
        );
        assert_eq!(answer["accepts"], case.good, "{}", case.header);
        assert_eq!(answer["in_time"], case.good, "{}", case.header);
    }
}
