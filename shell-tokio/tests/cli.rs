//! The binary as a user runs it: what it prints where, and how it exits.

mod common;

use std::process::Stdio;

use common::{Gateway, Home, Stalled};

#[test]
fn each_kind_of_failure_has_its_documented_exit_code() {
    let home = Home::new();
    let binary = home.file("photo.png", b"\x89PNG\0");
    let binary = binary.to_str().unwrap();
    for (args, code, words) in [
        (&[][..], 2, "Usage"),
        (&["cloud", "ask", "--no-such-flag"], 2, "--no-such-flag"),
        (&["cloud", "ask", "why?"], 18, "cloud login"),
        (&["cloud", "status"], 18, "cloud login"),
        (&["agent"], 18, "cloud login"),
        (&["cloud", "ask", "  "], 20, "the question is empty"),
        (
            &["cloud", "ask", "why?", "--max-tokens", "0"],
            20,
            "max_tokens",
        ),
        (
            &["cloud", "ask", "why?", "--timeout", "601"],
            20,
            "timeout_secs",
        ),
        (
            &["cloud", "ask", "why?", "--session", "../x"],
            20,
            "session",
        ),
        (
            &["cloud", "ask", "why?", "--context", binary],
            20,
            "photo.png is not text",
        ),
        (
            &["cloud", "ask", "--context", "why?"],
            20,
            "before --context",
        ),
        (&["cloud", "login", "nonsense"], 20, "join line"),
        (
            &[
                "cloud",
                "login",
                "--gateway",
                "http://10.0.0.1:1",
                "--api-key",
                "x",
            ],
            20,
            "API key",
        ),
        (
            &[
                "cloud",
                "login",
                "--gateway",
                "http://127.0.0.1:1",
                "--api-key-file",
                "none",
            ],
            14,
            "none",
        ),
        (&["gateway", "--set", "no.such=1"], 20, "no.such"),
        (&["gateway", "--config", "none.toml"], 14, "none.toml"),
        (&["--log", "mesh=loudest", "doctor"], 20, "loudest"),
        (&["ledger", "verify"], 14, "gateway.sqlite"),
        (&["ledger", "head"], 14, "gateway.sqlite"),
        (&["ledger", "export"], 14, "gateway.sqlite"),
    ] {
        let ended = home.run(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{args:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{args:?}: errors belong to stderr");
    }
    assert!(
        !home.path().join("data/gateway").exists(),
        "who looks makes nothing"
    );
}

/// A copy of the books is looked at on another machine, which has none of the gateway's keys.
#[test]
fn books_without_their_keys_are_looked_at_and_no_keys_are_made_for_them() {
    let gateway = Gateway::start();
    let home = &gateway.home;
    let seal = home.run(&["ledger", "head", "--json"]).ok();
    let elsewhere = home.path().join("seal.json");
    std::fs::write(&elsewhere, seal).unwrap();
    let ca = home.path().join("data/gateway/ca");
    std::fs::rename(&ca, home.path().join("away")).unwrap();
    let seal = elsewhere.display().to_string();
    for args in [
        &["ledger", "head"][..],
        &["ledger", "verify", "--seal", &seal],
    ] {
        let ended = home.run(args);
        assert_eq!(ended.code, Some(14), "{ended:?}");
        assert!(ended.stderr.contains("books.json"), "{ended:?}");
        assert!(ended.stderr.contains("missing here"), "{ended:?}");
    }
    assert!(!ca.exists());
    assert!(home.run(&["ledger", "export"]).ok().contains("opened"));
}

#[test]
fn up_answers_on_stdout_and_gives_a_verified_receipt_on_stderr() {
    let home = Home::new();
    let ended = home.run(&["up", "--ask", "Why is the sky blue?"]);
    assert!(
        ended.stderr.contains("ledger") && ended.stderr.contains("verified"),
        "{ended:?}"
    );
    for line in [
        "model",
        "tokens",
        "base",
        "markup",
        "charge",
        "claude_sonnet",
        "handshake",
    ] {
        assert!(ended.stderr.contains(line), "{line}: {ended:?}");
    }
    let answer = ended.ok();
    assert!(
        answer.contains("Why is the sky blue?") && !answer.contains("receipt"),
        "{answer}"
    );
    assert!(!answer.contains('\u{1b}'), "no colours in a pipe");
    // Once more over what the first run left: same gateway, same device, a longer chain.
    let again = home.run(&["up", "--ask", "And at dusk?"]);
    assert!(again.stderr.contains("entry 2 of 3 verified"), "{again:?}");
    again.ok();
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let home = Home::new();
    for args in [
        &["completions", "bash"][..],
        &["up", "--ask", "why?"],
        &["gateway", "--print-config"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home
            .command(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert!(
            !stderr.contains("panicked") && !stderr.contains("error"),
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn colours_come_when_asked_for_and_go_when_not_wanted() {
    let home = Home::new();
    let colored = |args: &[&str], no_color: bool| {
        let mut command = home.command(args);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let output = command.output().unwrap();
        output.stdout.contains(&0x1b)
    };
    assert!(!colored(&["doctor"], false));
    assert!(colored(&["--color", "always", "doctor"], false));
    assert!(!colored(&["--color", "never", "doctor"], false));
    assert!(!colored(&["doctor"], true));
}

#[test]
fn doctors_codes_are_stable_and_its_failures_say_what_to_do() {
    let home = Home::new();
    let ended = home.run(&["doctor", "--json"]);
    assert_eq!(ended.code, Some(21), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let codes: Vec<&str> = checks
        .iter()
        .map(|check| check["code"].as_str().unwrap())
        .collect();
    let documented = [
        "enrolment",
        "certificate",
        "dns",
        "gateway",
        "clock",
        "udp",
        "udp_buffers",
    ];
    assert_eq!(codes, documented);
    for check in checks
        .iter()
        .filter(|c| c["status"] == "failed" || c["status"] == "warning")
    {
        assert!(check["action"].is_string(), "{check}");
    }
    assert_eq!(report["ok"], false);
}

#[test]
fn a_key_that_is_wrong_is_refused_without_being_repeated() {
    let gateway = Gateway::start();
    let home = Home::new();
    let wrong = gateway.key.chars().rev().collect::<String>();
    let revoked = &gateway.key;
    gateway
        .home
        .run(&["admin", "key", "revoke", &gateway.key_id])
        .ok();
    for (key, code) in [(wrong.as_str(), 20), (revoked.as_str(), 18)] {
        let file = home.file("key", key.as_bytes());
        let file = file.to_str().unwrap();
        let args = [
            "-vv",
            "cloud",
            "login",
            "--gateway",
            gateway.url.as_str(),
            "--api-key-file",
            file,
        ];
        let ended = home.run(&args);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(
            !ended.stderr.contains(key) && !ended.stdout.contains(key),
            "{ended:?}"
        );
    }
}

#[test]
fn a_question_goes_through_the_agent_if_one_runs_and_through_its_own_tunnel_if_not() {
    let gateway = Gateway::start();
    let device = gateway.device();
    let own = device.run(&["cloud", "ask", "one?", "--json"]).json();
    assert!(own["content"].as_str().unwrap().contains("one?"));
    assert_eq!(
        (&own["charge"], &own["finish_reason"]),
        (&"$0.00".into(), &"stop".into())
    );

    let mut agent = device.start(&["agent"]);
    agent.wait_for("Connected");
    let second = device.run(&["agent"]);
    assert_eq!(second.code, Some(20), "{second:?}");
    assert!(second.stderr.contains("already running"), "{second:?}");

    let answer = device
        .run_with_stdin(&["cloud", "ask", "-"], b"two?\n")
        .ok();
    assert!(
        answer.contains("two?") && answer.ends_with('\n'),
        "{answer}"
    );
    let status = device.run(&["cloud", "status", "--json"]).json();
    assert_eq!(status["state"], "connected");
    assert_eq!(status["account"]["tier"], "managed");
    assert_eq!(
        status["statistics"]["requests_succeeded"], 1,
        "the agent's, not the first one's"
    );
    assert!(status["agent_pid"].is_u64());
    let ping = device
        .run(&["cloud", "ping", "--count", "2", "--json"])
        .json();
    assert_eq!(ping["count"], 2);

    agent.interrupt();
    assert_eq!(agent.ended().0, Some(0));
    device.run(&["cloud", "ask", "three?"]).ok();
    device.run(&["cloud", "logout"]).ok();
    assert_eq!(device.run(&["cloud", "ask", "four?"]).code, Some(18));
}

#[test]
fn a_revoked_device_is_told_so() {
    let gateway = Gateway::start();
    let device = gateway.device();
    let mut agent = device.start(&["agent"]);
    agent.wait_for("Connected");
    let devices = gateway
        .home
        .run(&["admin", "device", "list", "--json"])
        .json();
    let id = devices[0]["id"].as_str().unwrap().to_owned();
    gateway.home.run(&["admin", "device", "revoke", &id]).ok();
    agent.wait_for("Failed");
    let status = device.run(&["cloud", "status"]);
    assert_eq!(status.code, Some(21), "{status:?}");
    assert!(status.stdout.contains("revoked"), "{status:?}");
    let ask = device.run(&["cloud", "ask", "why?"]);
    assert_eq!(ask.code, Some(12), "{ask:?}");
}

#[test]
fn a_session_goes_on_where_it_stopped_and_a_file_goes_along() {
    let gateway = Gateway::start();
    let device = gateway.device();
    let ask = |question: &str, more: &[&str]| {
        let args = [&["cloud", "ask", question, "--session", "trip"], more].concat();
        device.run(&args).ok()
    };
    ask("Where to in May?", &[]);
    let manual = device.file("manual.txt", b"Valve B opens at 4 bar.");
    let second = ask(
        "And with children?",
        &["--context", manual.to_str().unwrap()],
    );
    assert!(
        second.contains("2 turns of the conversation came"),
        "the echo counts what came before: {second}"
    );
    assert!(second.contains("Valve B opens at 4 bar."), "{second}");
    let kept = device.path().join("data/device/sessions/trip.json");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept["turns"].as_array().unwrap().len(), 4);
}

#[test]
fn an_interrupt_cancels_at_the_provider_too_and_exits_with_130() {
    let upstream = Stalled::start();
    let gateway = Gateway::configured(&upstream.settings());
    let device = gateway.device();
    let interrupted = || {
        let mut ask = device.start(&["cloud", "ask", "why?", "--model", "stalled"]);
        ask.wait_for("Well,");
        ask.interrupt();
        let (code, lines) = ask.ended();
        assert_eq!(code, Some(130), "{lines:?}");
        assert!(
            lines.iter().any(|line| line.contains("cancelled")),
            "{lines:?}"
        );
        upstream.wait_for_hang_up();
    };
    interrupted();
    let mut agent = device.start(&["agent"]);
    agent.wait_for("Connected");
    interrupted();
}

#[test]
fn a_second_interrupt_leaves_at_once() {
    let upstream = Stalled::start();
    let gateway = Gateway::configured(&upstream.settings());
    let device = gateway.device();
    let mut ask = device.start(&["cloud", "ask", "why?", "--model", "stalled"]);
    upstream.wait_for_question();
    // A gateway that cannot answer the cancellation.
    gateway.process.suspend();
    ask.interrupt();
    ask.wait_for("Ctrl-C again");
    ask.interrupt();
    let (code, lines) = ask.ended();
    gateway.process.resume();
    assert_eq!(code, Some(130), "{lines:?}");
}

#[test]
fn the_ledger_is_verified_and_a_change_behind_its_back_is_found() {
    let gateway = Gateway::start();
    let device = gateway.device();
    device.run(&["cloud", "ask", "why?"]).ok();
    let sound = gateway.home.run(&["ledger", "verify", "--json"]).json();
    assert_eq!(sound["sound"], true);
    assert_eq!(
        sound["accounts"][0]["entries"], 2,
        "the account's opening and one charge"
    );

    let store = gateway.home.path().join("data/gateway/gateway.sqlite");
    let connection = rusqlite::Connection::open(store).unwrap();
    // Whoever can do this can also drop what guards against it.
    let triggers: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for trigger in triggers {
        connection
            .execute_batch(&format!("DROP TRIGGER {trigger}"))
            .unwrap();
    }
    let changed = connection
        .execute(
            "UPDATE entries SET canonical = replace(canonical, 'loopback', 'loopbaek')",
            [],
        )
        .unwrap();
    assert!(changed > 0);
    let ended = gateway.home.run(&["ledger", "verify"]);
    assert_eq!(ended.code, Some(17), "{ended:?}");
    assert!(ended.stdout.contains("altered"), "{ended:?}");
}

#[test]
fn every_shell_gets_its_completions() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            home.run(&["completions", shell]).ok().contains("synesis"),
            "{shell}"
        );
    }
}
