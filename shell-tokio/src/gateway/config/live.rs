//! What of the settings a running gateway takes, and what needs a new start.

use ring::digest::{Context, SHA256};

use super::{Config, Http, HttpTls, Stripe};

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
            (
                "the secret key of [stripe]",
                both(self, new).is_some_and(|(old, new)| old.key != new.key),
            ),
            (
                "the webhook secret of [stripe]",
                both(self, new).is_some_and(|(old, new)| old.webhook_secret != new.webhook_secret),
            ),
            ("ledger.seals_dir", self.seals_dir != new.seals_dir),
        ];
        names(differ)
    }

    /// Those that differ and that a running gateway takes.
    #[must_use]
    pub fn live_settings_that_differ(&self, new: &Self) -> Vec<&'static str> {
        names([
            ("default_model", self.default_model != new.default_model),
            (
                "tunnel.tunnels_max",
                self.tunnel.tunnels_max != new.tunnel.tunnels_max,
            ),
            ("[billing]", self.billing != new.billing),
            ("[answers]", self.answers != new.answers),
            ("[drain]", self.drain != new.drain),
            ("log.filter", self.log_filter != new.log_filter),
            ("[[provider]]", self.providers != new.providers),
            (
                "[[model]]",
                self.models != new.models || self.prices != new.prices,
            ),
        ])
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

impl Http {
    /// SHA-256 of the operator's certificate and its key, as they are at this moment; `None` where there are
    /// none, or they cannot be read.
    #[must_use]
    pub fn certificate_seen(&self) -> Option<[u8; 32]> {
        let HttpTls::Files { certificate, key } = &self.tls else {
            return None;
        };
        let mut digest = Context::new(&SHA256);
        for path in [certificate, key] {
            digest.update(&std::fs::read(path).ok()?);
            digest.update(b"\n");
        }
        digest.finish().as_ref().try_into().ok()
    }
}

fn names<const N: usize>(differ: [(&'static str, bool); N]) -> Vec<&'static str> {
    let differ = differ.into_iter().filter(|(_, differs)| *differs);
    differ.map(|(name, _)| name).collect()
}

/// The payments' settings of before and after, where there are both.
const fn both<'a>(old: &'a Config, new: &'a Config) -> Option<(&'a Stripe, &'a Stripe)> {
    match (&old.stripe, &new.stripe) {
        (Some(old), Some(new)) => Some((old, new)),
        (_, _) => None,
    }
}

/// Of the payments' settings everything but the secrets, which have names of their own.
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
    fn secrets_that_were_replaced_are_named_and_not_shown() {
        let paid = |key: &'static str, signing: &'static str| {
            let env = move |name: &str| match name {
                "STRIPE_SECRET_KEY" => Some(key.to_owned()),
                "STRIPE_WEBHOOK_SECRET" => Some(signing.to_owned()),
                _ => None,
            };
            let sources = Sources {
                env: &env,
                flags: &[],
                data_dir: Path::new("/data"),
            };
            Config::parse("", sources).unwrap()
        };
        let old = paid("sk_test_a", "whsec_a");
        let differ = |new: &Config| old.fixed_settings_that_differ(new);
        assert!(differ(&paid("sk_test_a", "whsec_a")).is_empty());
        let key = "the secret key of [stripe]";
        assert_eq!(differ(&paid("sk_test_b", "whsec_a")), [key]);
        let signing = "the webhook secret of [stripe]";
        assert_eq!(differ(&paid("sk_test_a", "whsec_b")), [signing]);
        assert_eq!(differ(&paid("sk_test_b", "whsec_b")), [key, signing]);
        assert_eq!(differ(&read("")), ["[stripe]"]);
    }

    #[test]
    fn a_certificate_that_was_replaced_under_its_name_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["a.pem", "a.key"].map(|name| folder.path().join(name));
        let http = |tls| Http {
            tls,
            ..read("").http
        };
        assert_eq!(http(HttpTls::Own).certificate_seen(), None);
        let files = http(HttpTls::Files {
            certificate: certificate.clone(),
            key: key.clone(),
        });
        assert_eq!(files.certificate_seen(), None, "not there yet");
        std::fs::write(&certificate, "one").unwrap();
        std::fs::write(&key, "two").unwrap();
        let first = files.certificate_seen();
        assert!(first.is_some());
        assert_eq!(files.certificate_seen(), first);
        std::fs::write(&key, "three").unwrap();
        assert_ne!(files.certificate_seen(), first);
    }

    #[test]
    fn everything_else_is_taken() {
        let (old, new) = (read(OLD), read(NEW));
        assert_eq!(
            old.live_settings_that_differ(&new),
            [
                "default_model",
                "tunnel.tunnels_max",
                "[billing]",
                "[drain]",
                "log.filter",
                "[[provider]]",
                "[[model]]",
            ]
        );
        assert!(new.live_settings_that_differ(&new).is_empty());
        let live = read(OLD).with_changes_of(read(NEW));
        assert_eq!(live.tunnel.tunnels_max, 6);
        assert_eq!(live.default_model.as_deref(), Some("house"));
        assert_eq!((live.providers.len(), live.models.len()), (1, 1));
        assert_eq!(live.drain.limit.as_secs(), 7);
        assert_eq!(live.log_filter.as_deref(), Some("debug"));
        assert_eq!(live.billing, read(NEW).billing);
    }
}
