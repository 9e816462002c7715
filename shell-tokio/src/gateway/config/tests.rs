use super::*;

fn read_with(text: &str, env: &[(&str, &str)], flags: &[(&str, String)]) -> Result<Config, String> {
    let env = |name: &str| {
        env.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let sources = Sources {
        env: &env,
        flags,
        data_dir: Path::new("/data"),
    };
    Config::parse(text, sources)
}

fn read(text: &str) -> Result<Config, String> {
    read_with(text, &[], &[])
}

#[test]
fn the_documented_defaults_are_a_gateway_on_loopback() {
    for text in ["", DOCUMENTED] {
        let config = read(text).unwrap();
        assert_eq!(config.tunnel.listen, "127.0.0.1:4443".parse().unwrap());
        assert_eq!(config.http.listen, "127.0.0.1:4140".parse().unwrap());
        assert_eq!(config.http.tls, HttpTls::Off);
        assert_eq!(config.billing.ceiling, Nanos(100_000_000_000));
        assert_eq!(config.billing.tier, Tier::MANAGED);
        assert_eq!(config.store().to_string(), "/data/gateway.sqlite");
        assert_eq!(config.default_model, None);
    }
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let text = "[tunnel]\nlisten = \"127.0.0.1:1\"\ntunnels_max = 5";
    let listen = |config: &Config| config.tunnel.listen.port();
    assert_eq!(listen(&read(text).unwrap()), 1);
    let env = [("SYNESIS_GATEWAY_TUNNEL_LISTEN", "127.0.0.1:2")];
    let config = read_with(text, &env, &[]).unwrap();
    assert_eq!((listen(&config), config.tunnel.tunnels_max), (2, 5));
    let flags = [("tunnel.listen", "127.0.0.1:3".to_owned())];
    assert_eq!(listen(&read_with(text, &env, &flags).unwrap()), 3);
    let bad = [("SYNESIS_GATEWAY_TUNNEL_TUNNELS_MAX", "many")];
    let error = read_with("", &bad, &[]).unwrap_err();
    assert!(
        error.contains("TUNNELS_MAX") && error.contains("number"),
        "{error}"
    );
}

#[test]
fn a_database_is_named_by_its_url_and_its_password_is_shown_nowhere() {
    let url = "postgres://ada:canary-secret@db.example.org/mesh";
    let written = format!("[store]\nurl = \"{url}\"");
    let env = [("SYNESIS_GATEWAY_STORE_URL", url)];
    for config in [read(&written), read_with("", &env, &[])] {
        let config = config.unwrap();
        let place = config.store().to_string();
        assert_eq!(place, "postgres://db.example.org:5432/mesh");
        assert!(!format!("{config:?}").contains("canary"));
    }
    for broken in [
        format!("[store]\nurl = \"{url}"),
        format!("[store]\nurl = {url}"),
        format!("[store]\nuri = \"{url}\""),
        format!("[store]\nallow_plain = \"{url}\""),
        format!("[store]\nurl = \"{url}?canary\""),
        format!("[store]\nurl = \"{url}?sslmode=disable\""),
    ] {
        let error = read(&broken).unwrap_err();
        assert!(!error.contains("canary"), "{error}");
        assert!(
            error.contains("line 2") || error.contains("store.url"),
            "{error}"
        );
    }
    let plain = format!("{written}\nallow_plain = true").replace("mesh", "mesh?sslmode=disable");
    assert!(read(&plain).is_ok());
    assert!(read("[store]\nlease_secs = 15").is_ok());
    for bad in [0, 14, 3601] {
        let error = read(&format!("[store]\nlease_secs = {bad}")).unwrap_err();
        assert!(error.contains("from 15 to 3600"), "{error}");
    }
}

#[test]
fn what_is_no_setting_is_refused_with_its_line() {
    for (text, expected) in [
        ("\nnonsense = 1", "line 2"),
        ("[tunnel]\nlisten = 5", "line 2"),
        ("[http]\ntls = \"maybe\"", "line 2"),
        ("[tunnel", "line 1"),
        ("[[model]]\nname = \"x\"", "model"),
    ] {
        let error = read(text).err().unwrap();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn a_public_address_needs_tls_and_a_name() {
    let public = "[tunnel]\nlisten = \"0.0.0.0:4443\"\n[http]\nlisten = \"0.0.0.0:4140\"\n";
    assert!(read(public).unwrap_err().contains("public_address"));
    let named = "[tunnel]\nlisten = \"0.0.0.0:4443\"\npublic_address = \"gw.example:4443\"\n\
                 [http]\nlisten = \"0.0.0.0:4140\"\n";
    let config = read(named).unwrap();
    assert_eq!(config.http.tls, HttpTls::Own);
    let url = config.http_url("0.0.0.0:4140".parse().unwrap());
    assert_eq!(url, "https://gw.example:4140");
    let plain = format!("{named}tls = \"off\"\n");
    assert!(read(&plain).unwrap_err().contains("allow_plain"));
    assert_eq!(
        read(&format!("{plain}allow_plain = true\n"))
            .unwrap()
            .http
            .tls,
        HttpTls::Off
    );
    assert!(
        read(&format!("{named}tls = \"files\"\n"))
            .unwrap_err()
            .contains("http.certificate")
    );
    assert!(
        read("[tunnel]\npublic_address = \"gw.example\"")
            .unwrap_err()
            .contains("host:port")
    );
}

#[test]
fn providers_take_their_keys_from_the_environment_or_a_private_file() {
    let text = "[[provider]]\nname = \"p\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1/v1\"\n\
                api_key_env = \"KEY\"\n";
    let config = read_with(text, &[("KEY", "s3cret")], &[]).unwrap();
    assert!(config.providers[0].key.is_some());
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(read(text).unwrap_err().contains("no KEY"));
    let both = format!("{text}api_key_file = \"/nowhere\"\n");
    assert!(
        read_with(&both, &[("KEY", "x")], &[])
            .unwrap_err()
            .contains("one of them")
    );
    let file = text.replace("api_key_env = \"KEY\"", "api_key_file = \"/nowhere\"");
    assert!(read(&file).unwrap_err().contains("/nowhere"));
}

#[test]
fn prices_are_read_exactly_from_their_text() {
    let model = "[[model]]\nname = \"m\"\nprovider = \"p\"\nmodel = \"x\"\n";
    let text = format!("{model}input_per_million = \"0.075\"\noutput_per_million = \"0.30\"\n");
    let config = read(&text).unwrap();
    let price = config.price(&config.models[0].price).unwrap();
    assert_eq!(
        (
            price.rates.input,
            price.rates.output,
            price.rates.cache_read
        ),
        (75_000, 300_000, 75_000)
    );
    assert!(config.price("claude_sonnet").is_some());
    for (wrong, expected) in [
        (model.to_owned(), "either price"),
        (format!("{model}price = \"gold\"\n"), "no price"),
        (text.replace("0.075", "0.0000001"), "six decimals"),
        (text.replace("0.075", "-1"), "six decimals"),
        (format!("{text}retires = \"soon\"\n"), "retires"),
    ] {
        assert!(read(&wrong).unwrap_err().contains(expected), "{wrong}");
    }
}

#[test]
fn a_price_may_come_from_a_file_in_the_published_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prices.json");
    let text = |price: &str| {
        format!(
            "[billing]\nprice_file = {:?}\n[[model]]\nname = \"m\"\nprovider = \"p\"\nmodel = \"x\"\n\
             price = \"{price}\"\n",
            file.display().to_string()
        )
    };
    assert!(read(&text("gpt-4o")).unwrap_err().contains("prices.json"));
    let models = r#"{"gpt-4o": {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05},
        "gemini": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6,
                   "input_cost_per_token_above_128k_tokens": 5e-7}}"#;
    std::fs::write(&file, models).unwrap();
    let config = read(&text("gpt-4o")).unwrap();
    let price = config.price(&config.models[0].price).unwrap();
    assert_eq!(
        (price.rates.input, price.rates.output),
        (2_500_000, 10_000_000)
    );
    assert_ne!(price.version, Price::CLAUDE_SONNET.version);
    assert!(read(&text("claude_sonnet")).is_ok(), "built-in ones stay");
    assert!(read(&text("gold")).unwrap_err().contains("no price"));
    assert!(read(&text("gemini")).unwrap_err().contains("long contexts"));
    for damaged in ["", "{", "[]", r#"{"a":{},"a":{}}"#] {
        std::fs::write(&file, damaged).unwrap();
        assert!(
            read(&text("free"))
                .unwrap_err()
                .contains("not a price table")
        );
    }
    std::fs::write(&file, [0xFF, 0xFE]).unwrap();
    assert!(read(&text("free")).unwrap_err().contains("UTF-8"));
}

#[test]
fn how_a_gateway_goes_away_can_be_said() {
    let drain = read("").unwrap().drain;
    assert_eq!((drain.limit.as_secs(), drain.spread.as_secs()), (60, 10));
    assert!(drain.alternates.is_empty());
    let said = "[drain]\nlimit_secs = 5\nspread_secs = 0\nalternates = [\"gw2:4443\", \"[::1]:1\"]";
    let drain = read(said).unwrap().drain;
    assert_eq!((drain.limit.as_secs(), drain.spread.as_secs()), (5, 0));
    assert_eq!(drain.alternates, ["gw2:4443", "[::1]:1"]);
    for bad in ["gw2", "gw2:0", ":1", "gw2:65536", ""] {
        let error = read(&format!("[drain]\nalternates = [{bad:?}]")).unwrap_err();
        assert!(
            error.contains("drain.alternates") && error.contains("host:port"),
            "{error}"
        );
    }
    assert!(read("[drain]\nlimit_secs = -1").is_err());
}

#[test]
fn a_log_filter_that_is_none_is_refused_when_it_is_read() {
    assert_eq!(read("").unwrap().log_filter, None);
    let filter = read("log.filter = \"debug\"").unwrap().log_filter;
    assert_eq!(filter.as_deref(), Some("debug"));
    let error = read("log.filter = \"mesh=loudest\"").unwrap_err();
    assert!(error.contains("log.filter"), "{error}");
}
