//! What of the settings a running gateway takes, and what needs a new start.

use super::{Config, Stripe};

impl Config {
    /// The settings, by their names in the file, that differ and that a running gateway cannot take.
    #[must_use]
    pub fn fixed_settings_that_differ(&self, new: &Self) -> Vec<&'static str> {
        let differ = [
            ("data_dir", self.data_dir != new.data_dir),
            ("[store]", self.database != new.database),
            ("tunnel.listen", self.tunnel.listen != new.tunnel.listen),
            (
                "tunnel.public_address",
                self.tunnel.public_address != new.tunnel.public_address,
            ),
            ("[http]", self.http != new.http),
            ("[stripe]", stripe(self) != stripe(new)),
            ("ledger.seals_dir", self.seals_dir != new.seals_dir),
        ];
        let differ = differ.into_iter().filter(|(_, differs)| *differs);
        differ.map(|(name, _)| name).collect()
    }

    /// The new settings, with those of the old that cannot be changed.
    #[must_use]
    pub fn with_changes_of(&self, new: Self) -> Self {
        let old = self.clone();
        let mut tunnel = old.tunnel;
        tunnel.tunnels_max = new.tunnel.tunnels_max;
        Self {
            data_dir: old.data_dir,
            database: old.database,
            tunnel,
            http: old.http,
            stripe: old.stripe,
            seals_dir: old.seals_dir,
            echo_pace: old.echo_pace,
            ..new
        }
    }
}

/// Of the payments' settings everything but the secrets, which cannot be compared.
fn stripe(config: &Config) -> Option<impl PartialEq> {
    let Stripe {
        key: _,
        webhook_secret,
        api_base,
        success_url,
        cancel_url,
        meter,
    } = config.stripe.as_ref()?;
    let pages = (success_url.clone(), cancel_url.clone());
    let webhooks = webhook_secret.is_some();
    Some((api_base.clone(), pages, meter.clone(), webhooks))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Sources;
    use super::*;

    fn read(text: &str) -> Config {
        let sources = Sources {
            env: &|_| None,
            flags: &[],
            data_dir: Path::new("/data"),
        };
        Config::parse(text, sources).unwrap()
    }

    const OLD: &str = "[tunnel]\ntunnels_max = 5";
    const NEW: &str = r#"
        data_dir = "/elsewhere"
        default_model = "house"
        store.url = "postgres://localhost/synesis"
        billing.markup_bps = 500
        ledger.seals_dir = "/seals"
        drain.limit_secs = 7
        log.filter = "debug"
        stripe.api_base = "https://stripe.example"
        [tunnel]
        listen = "127.0.0.1:1"
        public_address = "gateway:1"
        tunnels_max = 6
        [http]
        public_url = "http://gateway:1"
        [[provider]]
        name = "workstation"
        dialect = "openai"
        base_url = "http://127.0.0.1:8080/v1"
        [[model]]
        name = "house"
        provider = "workstation"
        model = "qwen3"
        price = "free"
    "#;

    #[test]
    fn what_needs_a_new_start_is_named_and_stays_as_it_is() {
        let (old, new) = (read(OLD), read(NEW));
        assert_eq!(
            old.fixed_settings_that_differ(&new),
            [
                "data_dir",
                "[store]",
                "tunnel.listen",
                "tunnel.public_address",
                "[http]",
                "ledger.seals_dir",
            ]
        );
        let live = old.with_changes_of(new);
        assert!(old.fixed_settings_that_differ(&live).is_empty());
    }

    #[test]
    fn everything_else_is_taken() {
        let live = read(OLD).with_changes_of(read(NEW));
        assert_eq!(live.tunnel.tunnels_max, 6);
        assert_eq!(live.default_model.as_deref(), Some("house"));
        assert_eq!((live.providers.len(), live.models.len()), (1, 1));
        assert_eq!(live.drain.limit.as_secs(), 7);
        assert_eq!(live.log_filter.as_deref(), Some("debug"));
        assert_eq!(live.billing, read(NEW).billing);
    }
}
