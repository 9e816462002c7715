//! What account, model, ledger, usage and invoices have to agree on.

use std::collections::BTreeMap;

use mesh_core::billing::account::Month;
use mesh_core::billing::invoice::invoice;
use mesh_core::billing::ledger::{self, Invoiced, Record};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::billing::usage::{self, By, Key, Sums};
use mesh_core::wire::message::TokensUsed;

use super::model::{Place, fits, month};
use super::{ACCOUNT, World};

impl World {
    /// All that is set aside is there: in credits that have not ended, in advance, or within the ceiling.
    pub(super) fn enough_is_there(&self, new: Nanos) {
        let model = &self.model;
        // What costs nothing is let in also where funds have gone since the holds before it.
        if matches!(model.tier, Tier::Free { .. }) || new.is_zero() {
            return;
        }
        let held = model.holds.values().map(|hold| i128::from(hold.charge));
        let held: i128 = held.sum();
        let month = model.judged(month(self.now_ms()));
        let within = i128::from(model.ceiling) - model.sum(Place::Spent(month));
        let funds = model.usable(self.now_ms()) + model.sum(Place::Prepaid);
        assert!(held <= funds + within.max(0), "more is held than there is");
    }

    pub(super) fn agree(&self) {
        let (account, model) = (&self.account, &self.model);
        let month = account.month.index();
        let pairs = [
            (account.spent, Place::Spent(month)),
            (account.used, Place::Used(month)),
            (account.owed, Place::Owed),
            (account.balance, Place::Prepaid),
            (account.invoiced, Place::Invoiced),
        ];
        for (found, place) in pairs {
            assert_eq!(i128::from(found.0), model.sum(place), "{place:?}");
            assert!(found.0 >= 0, "{place:?}");
        }
        let residue = i128::from(account.residue.0);
        assert_eq!(residue, model.sum(Place::Residue));
        let open = |(month, open): (&Month, &Nanos)| (month.index(), i128::from(open.0));
        let unbilled: BTreeMap<_, _> = account.unbilled.iter().map(open).collect();
        assert_eq!(unbilled, model.open());
        let credits = account
            .credits
            .iter()
            .map(|credit| i128::from(credit.left.0));
        let given = model
            .credits
            .iter()
            .map(|given| Place::Credit(given.number));
        let given: Vec<i128> = given.map(|place| model.sum(place)).collect();
        assert!(given.iter().all(|left| *left >= 0));
        assert_eq!(credits.collect::<Vec<_>>(), given);
        assert_eq!(account.closed.index(), model.closed);
        assert_eq!(
            (account.tier, account.ceiling.0),
            (model.tier, model.ceiling)
        );
        assert_eq!(account.holds.len(), model.holds.len());
        assert!(
            account
                .holds
                .values()
                .all(|h| h.charge.0 >= 0 && h.base.0 >= 0)
        );
        self.says_what_there_is();
    }

    fn says_what_there_is(&self) {
        let (account, model, now_ms) = (&self.account, &self.model, self.now_ms());
        let judged = model.judged(month(now_ms));
        let expected = (
            model.sum(Place::Spent(judged)),
            model.sum(Place::Used(judged)),
        );
        match (account.summary(self.now()), model.available(now_ms)) {
            (Ok(summary), Ok(available)) => {
                assert_eq!(summary.available.0, available);
                let sums = (i128::from(summary.spent.0), i128::from(summary.used.0));
                assert_eq!(sums, expected);
                assert!(summary.held.0 >= 0);
                let shown = format!("{:04}-{:02}", judged / 12, judged % 12 + 1);
                assert_eq!(summary.month, shown);
            }
            (found, expected) => assert_eq!(found.is_err(), expected.is_err()),
        }
    }

    /// What was used, added up as entries came, is what was charged and given back.
    pub(super) fn add_up(&self) {
        if self.too_much() {
            return;
        }
        let Ok(report) =
            usage::report(&self.usage.clone().into_iter().collect::<Vec<_>>(), By::Day)
        else {
            unreachable!("sums that fit do not");
        };
        let total = report.total.sums;
        let charges = self.model.charged.values().map(|(_, charge)| charge);
        assert_eq!(total.requests, self.model.charged.len() as u64);
        let charged: i128 = charges.map(|charge| i128::from(charge.charge.0)).sum();
        assert_eq!(i128::from(total.charge.0), charged);
        let invoiced = self.records.iter().filter_map(|(_, record)| {
            let Record::Invoiced(invoiced) = record else {
                return None;
            };
            Some(i128::from(invoiced.cents.0) * 10_000_000)
        });
        let open: i128 = self.model.open().into_values().sum();
        let carried = self.model.sum(Place::Residue);
        assert_eq!(
            i128::from(total.postpaid.0),
            invoiced.sum::<i128>() + open + carried
        );
    }

    /// An invoice's lines are what was used, and add up.
    pub(super) fn invoice(&self, invoiced: &Invoiced) {
        let of = |key: &Key| invoiced.after < key.month && key.month <= invoiced.month;
        let rows: Vec<(Key, Sums)> = self
            .usage
            .iter()
            .filter(|(key, _)| of(key))
            .map(|(key, sums)| (key.clone(), *sums))
            .collect();
        let Ok(invoice) = invoice(invoiced, &rows) else {
            return;
        };
        let cents: i128 = invoice.lines.iter().map(|l| i128::from(l.cents.0)).sum();
        assert_eq!(cents, i128::from(invoiced.cents.0), "lines are another sum");
        let spent: i128 = invoice.lines.iter().map(|l| i128::from(l.spent.0)).sum();
        let total = i128::from(invoiced.spent.0) + i128::from(invoiced.carried_in.0);
        if !self.too_much() {
            assert_eq!(spent, total, "lines name another sum than was spent");
        }
    }

    /// Whether tokens were used that cannot be counted together: sums of usage say so then.
    fn too_much(&self) -> bool {
        let charges = self.model.charged.values();
        let tokens = |of: fn(&TokensUsed) -> u64| -> u128 {
            let each = charges.clone().map(|(_, charge)| of(&charge.tokens));
            each.map(u128::from).sum()
        };
        let most = [
            tokens(|tokens| tokens.prompt),
            tokens(|tokens| tokens.completion),
            tokens(|tokens| tokens.cache_read),
            tokens(|tokens| tokens.cache_write),
        ];
        let charged = charges
            .clone()
            .map(|(_, c)| i128::from(c.charge.0.max(c.base.0)));
        most.into_iter().any(|sum| u64::try_from(sum).is_err()) || fits(charged.sum()).is_err()
    }

    /// The chain holds; with one byte changed it does not.
    pub(super) fn verify(&self, tamper: u16) {
        let charged: i128 = self
            .model
            .charged
            .values()
            .map(|(_, c)| i128::from(c.charge.0))
            .sum();
        match ledger::verify(ACCOUNT, self.chain.iter().cloned()) {
            Ok(verified) => {
                assert_eq!(verified.entries, self.chain.len() as u64);
                assert_eq!(i128::from(verified.charged.0), charged);
            }
            Err(fault) => assert!(fits(charged).is_err(), "{fault}"),
        }
        let mut chain = self.chain.clone();
        let at = usize::from(tamper) % chain.len();
        let text = &chain[at].canonical;
        let byte = usize::from(tamper >> 3) % text.len();
        if !text.is_char_boundary(byte) || !text.is_char_boundary(byte + 1) {
            return;
        }
        let other = if text.as_bytes()[byte] == b'0' {
            "1"
        } else {
            "0"
        };
        chain[at].canonical.replace_range(byte..=byte, other);
        assert!(
            ledger::verify(ACCOUNT, chain).is_err(),
            "a changed byte passes"
        );
    }
}
