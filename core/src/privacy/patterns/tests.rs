use super::*;

/// Kinds and texts of what is found.
fn finds(text: &str) -> Vec<(Kind, &str)> {
    found(&Patterns::default(), text)
}

fn strict(text: &str) -> Vec<(Kind, &str)> {
    found(&Patterns::new(true, Vec::new()).unwrap(), text)
}

fn found<'a>(patterns: &Patterns, text: &'a str) -> Vec<(Kind, &'a str)> {
    let finds = patterns.find(text).into_iter();
    finds.map(|f| (f.kind, &text[f.range])).collect()
}

/// A text with one thing to find in it, marked by `«»`.
fn one(kind: Kind, marked: &str) {
    one_of(&Patterns::default(), kind, marked);
}

fn one_of(patterns: &Patterns, kind: Kind, marked: &str) {
    let text = marked.replace(['«', '»'], "");
    let inside = marked.split_once('«').unwrap().1.split_once('»').unwrap().0;
    assert_eq!(found(patterns, &text), [(kind, inside)], "{marked}");
}

fn nothing(text: &str) {
    assert_eq!(finds(text), [], "{text}");
}

#[test]
fn e_mail_addresses_are_found_whole_in_any_surroundings() {
    for marked in [
        "«ada@example.com»",
        "to <«Ada.Lovelace+x@mail.example.co.uk»>, please",
        "mailto:«o'neil_7%x@sub-domain.example.org».",
        "'«jürgen.müller@bücher.example»'",
        "(«a@b.co»)",
        "email=«a-b@c-d.info»&x=1",
        "«a@b.co».1 and more",
        "«a@b.co»...x",
        "请写信给 «ada@example.com»。",
    ] {
        one(Kind::Email, marked);
    }
    for none in [
        "a@b",
        "@example.com",
        "a @ b.com",
        "git@",
        "x@.com",
        "x@a..b.",
        "@media (min-width: 3px)",
        "user@localhost",
        "a@1.2",
        "@a@b",
    ] {
        nothing(none);
    }
}

#[test]
fn phone_numbers_are_found_as_people_write_them() {
    for marked in [
        "call «(415) 555-2671» now",
        "call «(415)555-2671».",
        "«415-555-2671»",
        "tel:«415.555.2671»",
        "my phone is «415 555 2671»",
        "«1-415-555-2671»",
        "«1 (415) 555-2671»",
        "«+1 (415) 555-2671», ext. 9",
        "«+14155552671»",
        "«+44 20 7946 0958».",
        "Tel. «+49 (0)30/901820»",
        "«0049 171 1234567» mobil",
        "«+81-3-1234-5678»",
    ] {
        one(Kind::Phone, marked);
    }
    for none in [
        "256 512 1024",
        "2026-11-26",
        "1793491200000",
        "10.11.12",
        "192.168.100.1",
        "+1 is enough",
        "v1.415.555.26",
        "015-555-2671",
        "415-055-2671",
        "a415-555-2671",
        "415-555-26712",
        "00000000000",
    ] {
        nothing(none);
    }
    // Two numbers with a space between are more digits than one can have.
    let two = finds("+49 30 1234567 4111 1111 1111 1111");
    assert_eq!(two.len(), 1);
    assert_eq!(two[0].1, "+49 30 1234567 4111 1111 1111 1111");
}

#[test]
fn social_security_numbers_are_those_that_can_have_been_given_out() {
    one(Kind::Ssn, "ssn «078-05-1120»");
    one(Kind::Ssn, "«123 45 6789», of 1999");
    for none in [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "123-45-0000",
        "1123-45-6789",
        "123-45-67890",
        "123-45 6789",
        "2-123-45-6789",
        "123-45-6789-1",
    ] {
        nothing(none);
    }
}

#[test]
fn cards_are_what_passes_luhn_and_begins_as_a_network_does() {
    for marked in [
        "pay with «4242 4242 4242 4242» 12/29",
        "«4242424242424242»",
        "«3782-822463-10005»",
        "«6011111111111117», again",
        "«4222222222222»",
        "«5555 5555 5555 4444» 123",
    ] {
        one(Kind::Card, marked);
    }
    for none in [
        "4242 4242 4242 4241",
        "1234567812345670",
        "0000 0000 0000 0000",
        "a4242424242424242",
        "42424242424242421",
        "42424242  42424242",
    ] {
        nothing(none);
    }
}

#[test]
fn account_numbers_have_their_countrys_length_and_sum() {
    for marked in [
        "IBAN «DE89 3704 0044 0532 0130 00» by Friday",
        "«GB29NWBK60161331926819»",
        "«FR14 2004 1010 0505 0001 3M02 606»!",
        "«de89370400440532013000»",
    ] {
        one(Kind::Iban, marked);
    }
    for none in [
        "DE88 3704 0044 0532 0130 00",
        "DE8937040044053201300",
        "DE893704004405320130000",
        "XDE89370400440532013000",
        "US89370400440532013000",
    ] {
        nothing(none);
    }
}

#[test]
fn keys_are_known_by_their_first_letters() {
    let random = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";
    for (kind, prefix) in [
        (Kind::GithubToken, "ghp_"),
        (Kind::GithubToken, "github_pat_"),
        (Kind::SlackToken, "xoxb-"),
        (Kind::StripeKey, "sk_live_"),
        (Kind::StripeKey, "whsec_"),
        (Kind::SynesisKey, "si_live_"),
        (Kind::AnthropicKey, "sk-ant-api03-"),
        (Kind::OpenaiKey, "sk-proj-"),
        (Kind::OpenaiKey, "sk-"),
        (Kind::GoogleKey, "AIza"),
    ] {
        one(kind, &format!("KEY=«{prefix}{random}» # mine"));
        one(kind, &format!("\"«{prefix}{random}»\""));
        nothing(&format!("x{prefix}{random}"));
        nothing(&format!("{prefix}short"));
    }
    for prefix in ["AKIA", "ASIA"] {
        one(Kind::AwsKey, &format!("«{prefix}IOSFODNN7EXAMPLE»"));
        nothing(&format!("{prefix}IOSFODNN7"));
    }
    nothing("sk-learn-is-a-library-for-machine-learning");
    nothing("task-force-2024-development-team");
}

#[test]
fn tokens_and_key_blocks_are_found_to_their_ends() {
    // RFC 7519 §3.1 and §6.1 (an unsecured one).
    one(
        Kind::Jwt,
        "Bearer «eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk».",
    );
    one(
        Kind::Jwt,
        "«eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODB9».",
    );
    nothing("eyJ0eXAiOiJKV1Qi is half of one");
    let block = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIE+/=\nAAAA\n-----END RSA PRIVATE KEY-----";
    one(Kind::PrivateKey, &format!("key:\n«{block}»\nend"));
    one(
        Kind::PrivateKey,
        &format!("«{}»", block.replace('\n', "\\n")),
    );
    one(
        Kind::PrivateKey,
        "«-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0B\n»…",
    );
    one(
        Kind::PrivateKey,
        "«-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOY\n-----END PGP PRIVATE KEY BLOCK-----»",
    );
    nothing("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----");
    nothing("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----");
}

#[test]
fn what_is_called_a_secret_is_one() {
    for marked in [
        "password=«hunter2!»",
        "Password: «correct-horse».",
        "DB_PASSWORD: \"«two words»\"",
        "'passwd' => '«abcdef»',",
        "{\"client_secret\":\"«x9y8z7»\"}",
        "{\\\"password\\\": \\\"«hunter22»\\\"}",
        "?user=a&pwd=«swordfish1»&next=/",
        "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»",
        "**API-key**: «q1w2e3r4t5»",
        "BOT_TOKEN=«123456:AAExample»",
        "if password == \"«hunter2»\"",
    ] {
        one(Kind::Secret, marked);
    }
    for none in [
        "password: str",
        "password: Option<String>",
        "let password = read_password()?;",
        "password=$DB_PASSWORD",
        "password: ${{ secrets.DB }}",
        "password: <your password>",
        "password: ********",
        "secret: null,",
        "token: the next word",
        "max_tokens: 10240000",
        "The secret of success",
        "keyboard: qwerty1",
        "password:",
    ] {
        nothing(none);
    }
}

#[test]
fn a_urls_credentials_are_hidden_and_its_host_is_not() {
    one(Kind::UrlCredentials, "postgres://«app:s3cret»@db/main");
    one(Kind::UrlCredentials, "https://«u:p%40ss»@10.0.0.1:8080/x");
    one(Kind::UrlCredentials, "redis://«:only-password»@cache");
    one(Kind::UrlCredentials, "ftp://«a:b@c»@host/");
    for none in [
        "https://example.com/a:b@c",
        "ssh://git@host/x.git",
        "http://a:@b/",
        "see: //a:b@c",
    ] {
        nothing(none);
    }
}

#[test]
fn addresses_and_paths_count_only_if_strict() {
    let patterns = Patterns::new(true, Vec::new()).unwrap();
    for (kind, marked) in [
        (Kind::Ipv4, "ping «192.168.1.254», then"),
        (Kind::Ipv6, "at «2001:db8::8a2e:370:7334»."),
        (Kind::Ipv6, "[«fe80::1»]:80"),
        (Kind::Ipv6, "«::ffff:192.0.2.1»"),
        (Kind::UnixPath, "in «/home/ada/notes.txt»."),
        (Kind::UnixPath, "cat «~/.ssh/config»"),
        (Kind::WindowsPath, "open «C:\\Users\\ada\\x.doc», please"),
        (Kind::WindowsPath, "«\\\\server\\share»"),
    ] {
        let text = marked.replace(['«', '»'], "");
        nothing(&text);
        if kind == Kind::Ipv6 && text.contains("192") {
            // The address at its end is one too, and a part of it.
            assert_eq!(strict(&text), [(kind, text.as_str())]);
        } else {
            one_of(&patterns, kind, marked);
        }
    }
    for none in [
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "std::vec",
        "a::b::c",
        "12:30:45",
        "::",
        "and/or",
        "http://a.b/c",
        "/usr",
        "\\n \\d+",
    ] {
        assert_eq!(strict(none), [], "{none}");
    }
}

#[test]
fn a_devices_own_patterns_bear_its_names_and_give_way_to_none_below_them() {
    let own = Custom::new("PROJECT", r"(?i)\bproject-[a-z]+\b").unwrap();
    let patterns = Patterns::new(false, vec![own]).unwrap();
    one_of(
        &patterns,
        Kind::Custom(0),
        "about «Project-Falcon», you know",
    );
    assert_eq!(patterns.label(Kind::Custom(0)), "PROJECT");
    // An address that holds it goes with it.
    one_of(&patterns, Kind::Custom(0), "«project-falcon@example.com»");
    let byte = Custom::new("X", r"(?-u:\xc3)").unwrap();
    let cuts = Patterns::new(false, vec![byte]).unwrap();
    assert_eq!(found(&cuts, "aéb"), [(Kind::Custom(0), "é")]);
}

#[test]
fn a_pattern_that_cannot_be_used_is_refused_with_the_reason() {
    for name in ["", "email", "1A", "A-B", &"A".repeat(33)] {
        assert!(
            matches!(Custom::new(name, "x"), Err(BadPattern::Name(_))),
            "{name}"
        );
    }
    assert!(matches!(
        Custom::new("A", "("),
        Err(BadPattern::Regex { .. })
    ));
    assert!(matches!(
        Custom::new("A", "(a{1000}){1000}"),
        Err(BadPattern::Regex { .. })
    ));
    assert_eq!(
        Custom::new("A", "x*").unwrap_err(),
        BadPattern::Empty("A".to_owned())
    );
    let many = vec![Custom::new("A", "x").unwrap(); 65];
    assert_eq!(Patterns::new(false, many).unwrap_err(), BadPattern::TooMany);
}

#[test]
fn finds_that_overlap_are_hidden_together_as_the_first_of_their_kinds() {
    let key = format!("ghp_{}", "a1".repeat(18));
    // The key is the password, and the password with its host would be an address.
    let url = format!("https://ada:{key}@git.example.com/x");
    assert_eq!(finds(&url), [(Kind::GithubToken, &url[8..url.len() - 2])]);
    assert_eq!(
        finds(&format!("token={key}")),
        [(Kind::GithubToken, key.as_str())]
    );
}

#[test]
fn ordinary_text_and_code_have_nothing_private() {
    for text in [
        "The meeting on 2026-11-26 at 14:30 was about RFC 9110, section 15.5.1.",
        "commit 8f3c2a7d5e9b1f0a6c4d3e2b1a0f9e8d7c6b5a43, build 20261126.4",
        "550e8400-e29b-41d4-a716-446655440000 is a UUID; 1,234,567.89 a number; 3:2 a ratio.",
        "for i in 0..100 { let x: u64 = map[&key] as u64 - 1; total += x * 10_000; }",
        "def f(a: int = 5, *, b: str = 'x') -> dict[str, int]: return {'a': a - 1}",
        "<a href=\"https://example.com/path?x=1&y=2#z\">text</a> © 2026 – “quoted”, 50 %",
        "SELECT id, name FROM t WHERE created_at > '2026-01-01 00:00:00' AND n = 42;",
        "npm i react@18.2.0 @types/node@20.1.0; cargo add serde@1.0",
        "E = mc², π ≈ 3.14159265358979, 6.02214076e23",
        "sequence 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987 1597 2584 4181 6765",
    ] {
        nothing(text);
    }
}

/// Text that makes every pattern look far, over and over: the time per byte must not grow.
#[test]
fn hostile_text_takes_no_more_looks_for_each_byte() {
    for unit in [
        "@",
        "a@",
        "a.a@",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN A PRIVATE KEY-----\n\\n",
        "eyJ",
        "eyJaaaaaaaaaa.",
        "sk-",
        "ghp_",
        "password=",
        "://a:",
        "1-",
        "1 ",
        "+1(",
        "00",
        "DE89 ",
        "AKIA",
        "AIza",
        "[",
        "é@é.",
        "sk-ant-",
        "/a",
        "\\",
        "::",
        "1.",
        "-----BEGIN PRIVATE KEY----------END ",
    ] {
        let looks = |bytes: usize| {
            let text = unit.repeat(bytes / unit.len());
            scan::looked_at(&text, true)
        };
        let (small, large) = (looks(20_000), looks(320_000));
        // Sixteen times the text; a quadratic search would look 256 times as often.
        assert!(
            large <= small * 17 + 1000,
            "{unit:?}: {small}, then {large}"
        );
        // Nineteen digits from each place on, for each of the patterns made of digits.
        assert!(large <= 320_000 * 64, "{unit:?}: {large}");
    }
}
