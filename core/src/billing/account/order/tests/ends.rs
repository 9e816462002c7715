//! How holds end, and what holds and spending may come to, in random orders and commands.

use proptest::prelude::*;

use super::random::{Step, step};
use super::*;
use crate::billing::account::{Denied, HoldId};

/// A command about one of a few requests, with one of two bodies.
#[derive(Clone, Copy, Debug)]
struct Said {
    what: u8,
    id: u128,
    nanos: u64,
    body: [u8; 32],
}

fn said() -> impl Strategy<Value = Said> {
    (0u8..6, 0u128..6, 0u64..900, 0u8..2).prop_map(|(what, id, nanos, body)| Said {
        what,
        id,
        nanos,
        body: [body; 32],
    })
}

impl Said {
    fn command(self, books: &mut Books) -> Command {
        let request = RequestId::from_u128(self.id);
        let held = books.account.holds.get(&request).map(|held| held.id);
        match self.what {
            0 | 1 => {
                books.holds += 1;
                Command::Hold(Hold {
                    body: self.body,
                    ..a_hold(books.holds, self.id, self.nanos)
                })
            }
            2 | 3 => Command::Settle(Settle {
                body: self.body,
                ..a_settle(self.id, self.nanos)
            }),
            4 => Command::Lose(Lose {
                request,
                body: self.body,
                tier: Tier::MANAGED,
                model: "m".to_owned(),
                price: nano_price(),
                tokens: written(self.nanos),
                device: None,
            }),
            _ => Command::Release(Release {
                request,
                hold: held.unwrap_or_default(),
            }),
        }
    }
}

impl Books {
    /// What is set aside and spent that funds do not cover: what the ceiling has to.
    fn on_the_ceiling(&self) -> i128 {
        let summary = self.account.summary(self.now).unwrap();
        let wide = |nanos: Nanos| i128::from(nanos.0);
        let credits: i128 = summary.credits.iter().map(|credit| wide(credit.left)).sum();
        let uncovered = wide(summary.held) - wide(summary.balance) - credits;
        uncovered.max(0) + wide(summary.spent)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_hold_ends_once_and_a_charge_or_a_loss_is_the_end_of_its_id(
        said in prop::collection::vec(said(), 1..60),
    ) {
        let mut books = Books::new(20_000);
        let mut begun: BTreeMap<HoldId, usize> = BTreeMap::new();
        let mut over: BTreeMap<u128, Entry> = BTreeMap::new();
        // At the end whatever is open is settled.
        let last = (0..6).map(|id| (id, None));
        for (id, said) in said.into_iter().map(|said| (said.id, Some(said))).chain(last) {
            let open = books.account.holds.get(&RequestId::from_u128(id)).copied();
            let command = match said {
                Some(said) => said.command(&mut books),
                None => Command::Settle(Settle {
                    body: open.map(|held| held.body).unwrap_or_default(),
                    ..a_settle(id, 1)
                }),
            };
            let entries = books.carry_out(id, command).unwrap_or_default();
            prop_assert!(entries.len() <= 1);
            for entry in entries {
                prop_assert_eq!(over.get(&id), None, "{:?} after the end", entry);
                match (&entry, open) {
                    (Entry::Held(_, held), None) => drop(begun.insert(held.id, 0)),
                    (Entry::Held(..), Some(_)) | (Entry::Released(_), None) => prop_assert!(false),
                    (Entry::Charged(_) | Entry::Lost(_) | Entry::Released(_), _) => {
                        if let Some(open) = open {
                            *begun.get_mut(&open.id).unwrap() += 1;
                        }
                    }
                }
                if entry.record().is_some() {
                    over.insert(id, entry);
                }
            }
        }
        prop_assert!(books.account.holds.is_empty());
        prop_assert!(begun.values().all(|ends| *ends == 1), "{:?}", begun);
    }

    #[test]
    fn the_same_id_with_another_body_is_refused_whatever_has_become_of_it(
        said in prop::collection::vec(said(), 1..60),
    ) {
        let mut books = Books::new(20_000);
        for said in said {
            let held = books.account.holds.get(&RequestId::from_u128(said.id));
            let known = held.map(|held| held.body);
            let known = known.or_else(|| books.prior(said.id).map(|prior| *prior.body()));
            let before = books.account.clone();
            let command = said.command(&mut books);
            let bears_a_body = matches!(command, Command::Hold(_) | Command::Settle(_));
            let word = books.carry_out(said.id, command);
            if bears_a_body && known.is_some_and(|known| known != said.body) {
                prop_assert_eq!(word, Err(Denied::Conflict));
                prop_assert_eq!(&books.account, &before);
            } else {
                prop_assert!(word != Err(Denied::Conflict));
            }
        }
    }

    #[test]
    fn the_same_reference_with_another_order_is_refused(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut books = Books::new(3000);
        let mut first: BTreeMap<u32, What> = BTreeMap::new();
        for step in steps {
            let Step::Order(number, what) = step else {
                books.play(step)?;
                continue;
            };
            let before = books.account.clone();
            let word = books.order(&order(number, what.clone()));
            match first.get(&number) {
                None => {
                    prop_assert!(word != Err(Refused::Conflict));
                    if word.is_ok() {
                        first.insert(number, what);
                    }
                    continue;
                }
                Some(done) if *done == what => prop_assert_eq!(word, Ok(0)),
                Some(_) => prop_assert_eq!(word, Err(Refused::Conflict)),
            }
            prop_assert_eq!(&books.account, &before);
        }
    }

    /// Funds may go and a ceiling may be lowered under holds that were made before; nothing that is asked
    /// for or charged makes more of it then.
    #[test]
    fn holds_and_what_was_spent_never_grow_past_the_ceiling(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut books = Books::new(3000);
        for step in steps {
            let asks = matches!(step, Step::Hold(..) | Step::Settle(..) | Step::Release(_));
            let before = books.on_the_ceiling();
            books.play(step)?;
            if asks {
                let most = before.max(i128::from(books.account.ceiling.0));
                prop_assert!(books.on_the_ceiling() <= most);
            }
        }
    }

    /// Without funds, and with a ceiling that stays, it is the plain sum.
    #[test]
    fn the_sum_of_holds_and_what_was_spent_is_within_the_ceiling_and_the_rest_is_owed(
        said in prop::collection::vec(said(), 1..80), ceiling in 0i64..5000,
    ) {
        let mut books = Books::new(ceiling);
        for said in said {
            let command = said.command(&mut books);
            let _refused = books.carry_out(said.id, command);
            let summary = books.account.summary(books.now)?;
            prop_assert!(summary.held.plus(summary.spent)?.0 <= ceiling);
            let charged: i64 = books.charges.values().map(|charge| charge.charge.0).sum();
            prop_assert_eq!(summary.spent.plus(summary.owed)?.0, charged);
        }
    }

    #[test]
    fn what_is_owed_blocks_new_holds_until_it_is_paid(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut books = Books::new(3000);
        for step in steps {
            books.play(step)?;
            let owed = books.account.owed;
            if owed == Nanos::ZERO {
                continue;
            }
            let mut owing = books.clone();
            prop_assert_eq!(owing.hold(99, 1), Err(Denied::Owing { owed }));
            // All but a nano is not all.
            if owed > Nanos(1) {
                owing.order(&order(98, pay(owed.0 - 1))).unwrap();
                prop_assert_eq!(owing.hold(99, 1), Err(Denied::Owing { owed: Nanos(1) }));
                owing.order(&order(99, pay(1))).unwrap();
            } else {
                owing.order(&order(99, pay(1))).unwrap();
            }
            prop_assert_eq!(owing.account.owed, Nanos::ZERO);
            // Enough for whatever else is set aside.
            owing.order(&order(100, pay(1_000_000))).unwrap();
            prop_assert_eq!(owing.hold(99, 1), Ok(()));
        }
    }

    #[test]
    fn what_is_available_and_held_is_never_negative(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut books = Books::new(3000);
        for step in steps {
            books.play(step)?;
            let summary = books.account.summary(books.now)?;
            prop_assert!(summary.available >= Nanos::ZERO && summary.held >= Nanos::ZERO);
        }
    }
}
