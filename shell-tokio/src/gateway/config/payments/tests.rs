#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::gateway::config::Config;

const KEY: &str = "sk_test_canary51Key";
const SIGNING: &str = "whsec_canarySigning";
const BOTH: [(&str, &str); 2] = [
    (SECRET_KEY_VARIABLE, KEY),
    (WEBHOOK_SECRET_VARIABLE, SIGNING),
];

fn read(text: &str, env: &[(&str, &str)]) -> Result<Option<Stripe>, String> {
    let env = |name: &str| {
        let mut env = env.iter();
        env.find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let sources = Sources {
        env: &env,
        flags: &[],
        data_dir: Path::new("/data"),
    };
    Config::parse(text, sources).map(|config| config.stripe)
}

/// What is said of settings that are wrong; never the secrets.
fn refused(text: &str, env: &[(&str, &str)]) -> String {
    let error = read(text, env).unwrap_err();
    assert!(!error.contains("canary"), "{error}");
    error
}

#[test]
fn without_a_secret_key_nobody_pays_whatever_else_is_set() {
    let settings = "[stripe]\nmeter_event_name = \"cents\"\nmeter_id = \"mtr_1\"\n\
                    success_url = \"https://example.org/paid\"";
    for text in ["", "[stripe]", settings] {
        assert!(read(text, &[]).unwrap().is_none(), "{text}");
        assert!(read(text, &[(SECRET_KEY_VARIABLE, "")]).unwrap().is_none());
        assert!(read(text, &BOTH[1..]).unwrap().is_none());
    }
}

#[test]
fn secrets_come_from_the_environment_and_show_nowhere() {
    let stripe = read("", &BOTH[..1]).unwrap().unwrap();
    assert!(stripe.webhook_secret.is_none());
    assert_eq!(stripe.api_base, "https://api.stripe.com");
    assert_eq!(
        (stripe.meter.clone(), stripe.success_url.clone()),
        (None, None)
    );
    let stripe = read("", &BOTH).unwrap().unwrap();
    assert!(stripe.webhook_secret.is_some());
    let shown = format!("{stripe:?}");
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("SecretKey(..)") && shown.contains("WebhookSecret(..)"));
}

#[test]
fn secrets_come_from_private_files_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let keep = |text: &[u8], mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    let named = format!(
        "[stripe]\nsecret_key_file = {:?}",
        path.display().to_string()
    );
    keep(format!("{KEY}\n").as_bytes(), 0o600);
    // Though the environment's is none.
    assert!(
        read(&named, &[(SECRET_KEY_VARIABLE, "canary")])
            .unwrap()
            .is_some()
    );
    keep(KEY.as_bytes(), 0o644);
    assert!(refused(&named, &BOTH).contains("others may read it (mode 644)"));
    for (text, said) in [
        (&b""[..], "begins with sk_"),
        (b" \n", "begins with sk_"),
        (b"sk_canary\xFF", "UTF-8"),
        (&vec![b'x'; (16 << 20) + 1], "too large"),
    ] {
        keep(text, 0o600);
        let error = refused(&named, &[]);
        assert!(error.contains(said), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = refused(&named, &BOTH);
    assert!(
        error.contains("stripe.secret_key_file") && error.contains("secret"),
        "{error}"
    );
    let signing = named.replace("secret_key_file", "webhook_secret_file");
    assert!(refused(&signing, &BOTH).contains("stripe.webhook_secret_file"));
}

#[test]
fn what_is_no_secret_of_stripes_is_refused_and_not_repeated() {
    let long = format!("sk_canary{}", "x".repeat(512));
    for key in [
        "canary",
        "pk_test_canary",
        "sk_",
        "sk_can ary",
        "sk_canary\u{7}",
        "sk_canaryä",
        &long,
    ] {
        let error = refused("", &[(SECRET_KEY_VARIABLE, key)]);
        assert!(
            error.contains("secret key") && error.contains("sk_"),
            "{error}"
        );
    }
    let long = long.replace("sk_", "whsec_");
    for signing in ["canary", "whsec_", "whsec_can ary", "whsec_canaryä", &long] {
        let error = refused("", &[BOTH[0], (WEBHOOK_SECRET_VARIABLE, signing)]);
        assert!(error.contains("whsec_"), "{error}");
    }
}

#[test]
fn a_meter_is_named_whole_or_not_at_all() {
    let meter = |name: &str, id: &str| {
        let text = format!("[stripe]\nmeter_event_name = {name:?}\nmeter_id = {id:?}");
        read(&text, &BOTH).map(|stripe| stripe.unwrap().meter)
    };
    let expected = Meter {
        event_name: "synesis_cents".to_owned(),
        id: "mtr_1".parse().unwrap(),
    };
    assert_eq!(meter("synesis_cents", "mtr_1"), Ok(Some(expected)));
    assert_eq!(meter("", ""), Ok(None));
    for (name, id) in [("synesis_cents", ""), ("", "mtr_1")] {
        assert!(meter(name, id).unwrap_err().contains("both or none"));
    }
    let long = "x".repeat(101);
    for (name, id, said) in [
        (long.as_str(), "mtr_1", "meter_event_name has 1 to 100"),
        ("two words", "mtr_1", "meter_event_name"),
        ("cents\u{7f}", "mtr_1", "meter_event_name"),
        ("cents", "mtr/../1", "meter_id"),
        ("cents", "mtr_1 ", "meter_id"),
        ("cents", &"m".repeat(10_000), "meter_id"),
    ] {
        let error = meter(name, id).unwrap_err();
        assert!(error.contains(said), "{name} {id}: {error}");
    }
}

#[test]
fn pages_are_web_addresses_and_unknown_or_misshapen_settings_are_refused_by_line() {
    for page in ["success_url", "cancel_url"] {
        let with = |url: &str| read(&format!("[stripe]\n{page} = {url:?}"), &BOTH);
        assert!(with("https://example.org/paid?x=1").is_ok());
        for url in [
            "example.org",
            "javascript:alert(1)",
            "https://",
            "https://a b",
            "ftp://x",
        ] {
            assert!(with(url).unwrap_err().contains(page), "{url}");
        }
        let long = format!("https://example.org/{}", "x".repeat(1 << 16));
        assert!(with(&long).unwrap_err().contains(page));
    }
    for (line, said) in [
        ("secret_key = \"sk_canary\"", "line 2"),
        ("webhook_secret = \"whsec_canary\"", "line 2"),
        ("secret_key_file = [\"rk_canary\"]", "line 2"),
        ("secret_key_file = 5", "line 2"),
        ("api_base = [\"https://x\"]", "line 2"),
        ("meter_id = { id = 1 }", "line 2"),
    ] {
        let error = refused(&format!("[stripe]\n{line}"), &BOTH);
        assert!(error.contains(said), "{line}: {error}");
    }
    assert!(refused("stripe = 1", &BOTH).contains("stripe"));
}

#[test]
fn the_address_of_stripe_is_encrypted_or_on_this_machine() {
    use crate::gateway::payments::Https;
    let key = SecretKey::new(KEY).unwrap();
    for fine in [
        "https://api.stripe.com",
        "https://api.stripe.com/",
        "http://127.0.0.1:1",
    ] {
        assert!(Https::new(fine, &key).is_ok(), "{fine}");
    }
    for wrong in [
        "",
        "api.stripe.com",
        "http://api.stripe.com",
        "ftp://x",
        "https://canary@x",
        "https://x?canary",
    ] {
        let error = Https::new(wrong, &key).unwrap_err().to_string();
        assert!(
            error.contains("stripe.api_base") && !error.contains("canary"),
            "{error}"
        );
    }
}
