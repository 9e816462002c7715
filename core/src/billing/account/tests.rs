use proptest::prelude::*;

use super::*;
use crate::billing::price::{Price, Rates};
use crate::wire::message::TokensUsed;

const NOVEMBER: UnixMillis = UnixMillis(1_795_000_000_000);

fn facts() -> Facts {
    Facts {
        now: NOVEMBER,
        prior: None,
        provider_key: false,
    }
}

fn account() -> Account {
    Account::new(Tier::MANAGED, Nanos(100_000_000_000))
}

fn hold(id: u128, output: u64) -> Hold {
    Hold {
        id: HoldId(id as u64),
        request: RequestId::from_u128(id),
        body: [id as u8; 32],
        price: Price::CLAUDE_SONNET,
        input_tokens_max: 1000,
        output_tokens_max: output,
        provider: "anthropic".to_owned(),
        device: None,
        guest: None,
    }
}

fn release(id: u128) -> Release {
    Release {
        request: RequestId::from_u128(id),
        hold: HoldId(id as u64),
    }
}

fn settle(id: u128, prompt: u64, completion: u64) -> Settle {
    Settle {
        request: RequestId::from_u128(id),
        body: [id as u8; 32],
        model: "claude_sonnet".to_owned(),
        price: Price::CLAUDE_SONNET,
        tokens: TokensUsed {
            prompt,
            completion,
            ..TokensUsed::default()
        },
        estimated: false,
        device: None,
        project: None,
    }
}

fn run(account: &mut Account, facts: &Facts, command: Command) -> Result<Vec<Entry>, Denied> {
    let entries = decide(account, facts, command)?;
    for entry in &entries {
        apply(account, facts.now, entry).unwrap();
    }
    Ok(entries)
}

fn only_charge(entries: &[Entry]) -> Charge {
    match entries {
        [Entry::Charged(charge)] => charge.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_nano_of_markup_on_a_base_that_rounds_to_nothing_needs_room_too() {
    // 490 tokens at one pico-dollar are 0.49 nanos, which rounds to 0; with 3 % 0.5047, to 1.
    let price = Price::flat(
        1,
        Rates {
            input: 1,
            ..Rates::default()
        },
    );
    let hold = Hold {
        price,
        input_tokens_max: 490,
        ..hold(1, 0)
    };
    let mut empty = Account::new(Tier::MANAGED, Nanos::ZERO);
    let refused = Denied::Insufficient {
        needed: Nanos(1),
        available: Nanos::ZERO,
    };
    let held = run(&mut empty, &facts(), Command::Hold(hold.clone()));
    assert_eq!(held, Err(refused));
    assert!(run(&mut account(), &facts(), Command::Hold(hold)).is_ok());
}

#[test]
fn a_settle_charges_the_real_usage_and_voids_the_rest() {
    let mut account = account();
    run(&mut account, &facts(), Command::Hold(hold(1, 1000))).unwrap();
    // Worst case: 1 000 in at the cache-write price $3.75/M, 1 000 out at $15/M, 3 % on top:
    // ($0.00375 + $0.015) × 1.03 = $0.0193125.
    assert_eq!(account.summary(NOVEMBER).unwrap().held, Nanos(19_312_500));
    let charge = only_charge(
        &run(
            &mut account,
            &facts(),
            Command::Settle(settle(1, 1000, 500)),
        )
        .unwrap(),
    );
    assert_eq!(
        (charge.base, charge.charge),
        (Nanos(10_500_000), Nanos(10_815_000))
    );
    let summary = account.summary(NOVEMBER).unwrap();
    assert_eq!(
        (summary.held, summary.spent, summary.owed),
        (Nanos(0), Nanos(10_815_000), Nanos(0))
    );
    assert_eq!(summary.available, Nanos(100_000_000_000 - 10_815_000));
}

#[test]
fn an_id_is_charged_once_and_its_body_is_fixed() {
    let mut account = account();
    run(&mut account, &facts(), Command::Hold(hold(1, 10))).unwrap();
    assert_eq!(
        run(&mut account, &facts(), Command::Hold(hold(1, 10))),
        Err(Denied::InProgress)
    );
    let other = Hold {
        body: [9; 32],
        ..hold(1, 10)
    };
    assert_eq!(
        run(&mut account, &facts(), Command::Hold(other.clone())),
        Err(Denied::Conflict)
    );
    let strange = Settle {
        body: [9; 32],
        ..settle(1, 10, 1)
    };
    let denied = run(&mut account, &facts(), Command::Settle(strange));
    assert_eq!(denied, Err(Denied::Conflict));
    let charge =
        only_charge(&run(&mut account, &facts(), Command::Settle(settle(1, 10, 1))).unwrap());
    let settled = Facts {
        prior: Some(Prior::Charged(charge.clone())),
        ..facts()
    };
    assert_eq!(
        run(&mut account, &settled, Command::Settle(settle(1, 10, 1))),
        Ok(vec![])
    );
    let expired = Denied::Expired {
        charge: Box::new(charge),
    };
    assert_eq!(
        run(&mut account, &settled, Command::Hold(hold(1, 10))),
        Err(expired)
    );
    assert_eq!(
        run(&mut account, &settled, Command::Hold(other)),
        Err(Denied::Conflict)
    );
}

#[test]
fn a_released_id_is_free_again() {
    let mut account = account();
    run(&mut account, &facts(), Command::Hold(hold(1, 10))).unwrap();
    let release = Command::Release(release(1));
    assert_eq!(
        run(&mut account, &facts(), release.clone()).unwrap().len(),
        1
    );
    assert_eq!(run(&mut account, &facts(), release), Ok(vec![]));
    assert!(run(&mut account, &facts(), Command::Hold(hold(1, 10))).is_ok());
}

#[test]
fn the_ceiling_admits_what_it_covers_and_says_what_is_missing() {
    let mut account = Account {
        ceiling: Nanos(19_312_500),
        ..account()
    };
    run(&mut account, &facts(), Command::Hold(hold(1, 1000))).unwrap();
    let denied = run(&mut account, &facts(), Command::Hold(hold(2, 1000)));
    let needed = Nanos(19_312_500);
    assert_eq!(
        denied,
        Err(Denied::Insufficient {
            needed,
            available: Nanos(0)
        })
    );
}

#[test]
fn usage_beyond_the_hold_is_owed_and_blocks_new_holds() {
    let mut account = account();
    run(&mut account, &facts(), Command::Hold(hold(1, 1000))).unwrap();
    let charge = only_charge(
        &run(
            &mut account,
            &facts(),
            Command::Settle(settle(1, 1000, 2000)),
        )
        .unwrap(),
    );
    // $0.003 + $0.03 = $0.033, × 1.03 = $0.03399; the hold was $0.0193125.
    assert_eq!(charge.charge, Nanos(33_990_000));
    assert_eq!(charge.overage, Nanos(14_677_500));
    let owed = Nanos(14_677_500);
    assert_eq!(
        run(&mut account, &facts(), Command::Hold(hold(2, 1))),
        Err(Denied::Owing { owed })
    );
    let free = Hold {
        price: Price::FREE,
        ..hold(3, 1)
    };
    assert!(run(&mut account, &facts(), Command::Hold(free)).is_ok());
}

#[test]
fn a_release_that_is_said_again_leaves_the_hold_of_a_later_asking_alone() {
    let mut account = account();
    run(&mut account, &facts(), Command::Hold(hold(1, 10))).unwrap();
    run(&mut account, &facts(), Command::Release(release(1))).unwrap();
    let later = Hold {
        id: HoldId(77),
        ..hold(1, 10)
    };
    run(&mut account, &facts(), Command::Hold(later)).unwrap();
    let again = run(&mut account, &facts(), Command::Release(release(1)));
    assert_eq!(again, Ok(vec![]));
    assert_eq!(account.holds.len(), 1);
}

#[test]
fn an_account_has_a_bounded_number_of_requests_under_way() {
    let mut account = account();
    let free = |id| Hold {
        price: Price::FREE,
        ..hold(id, 1)
    };
    for id in 0..HOLDS_PER_ACCOUNT_MAX as u128 {
        apply(
            &mut account,
            NOVEMBER,
            &Entry::Held(
                RequestId::from_u128(id),
                Held {
                    id: HoldId(id as u64),
                    body: [0; 32],
                    at: NOVEMBER,
                    month: Month::of(NOVEMBER),
                    charge: Nanos::ZERO,
                    base: Nanos::ZERO,
                    tier: Tier::MANAGED,
                    device: None,
                    guest: None,
                },
            ),
        )
        .unwrap();
    }
    let next = Command::Hold(free(u128::MAX));
    assert_eq!(
        run(&mut account, &facts(), next.clone()),
        Err(Denied::TooManyHolds)
    );
    let release = Command::Release(release(7));
    run(&mut account, &facts(), release).unwrap();
    assert!(run(&mut account, &facts(), next).is_ok());
}

#[test]
fn a_new_month_begins_with_nothing_spent() {
    let mut account = account();
    run(&mut account, &facts(), Command::Hold(hold(1, 10))).unwrap();
    run(&mut account, &facts(), Command::Settle(settle(1, 10, 1))).unwrap();
    let december = UnixMillis(1_796_083_200_000);
    assert_eq!(account.summary(december).unwrap().spent, Nanos(0));
    assert_eq!(account.summary(december).unwrap().month, "2026-12");
}

#[test]
fn a_clock_that_steps_ahead_and_back_opens_no_second_ceiling_for_holds() {
    // The ceiling covers one question and is spent.
    let one = Price::CLAUDE_SONNET.worst_case(1000, 10, 10_300).unwrap();
    let mut account = Account {
        ceiling: one,
        month: Month::of(NOVEMBER),
        spent: one,
        ..account()
    };
    let december = Facts {
        now: UnixMillis(NOVEMBER.0 + 30 * 24 * 3600 * 1000),
        ..facts()
    };
    let hold_of = |id| Command::Hold(hold(id, 10));
    run(&mut account, &december, hold_of(1)).unwrap();
    // Back in November both months' ceilings are taken.
    assert!(run(&mut account, &facts(), hold_of(2)).is_err());
    let charge =
        only_charge(&run(&mut account, &facts(), Command::Settle(settle(1, 1000, 10))).unwrap());
    assert_eq!(charge.month, Some(Month::of(december.now)));
    let counted = (account.month, account.spent);
    assert_eq!(counted, (Month::of(december.now), charge.charge));
    for at in [facts(), december] {
        assert!(run(&mut account, &at, hold_of(3)).is_err());
    }
}

#[test]
fn a_clock_that_steps_back_opens_no_second_ceiling() {
    let mut account = account();
    run(&mut account, &facts(), Command::Hold(hold(1, 1000))).unwrap();
    let settle = Command::Settle(settle(1, 1000, 500));
    run(&mut account, &facts(), settle).unwrap();
    // 1 793 000 000 s is 2026-10-26: a month before.
    let october = UnixMillis(1_793_000_000_000);
    let summary = account.summary(october).unwrap();
    assert_eq!(
        (summary.month.as_str(), summary.spent),
        ("2026-11", Nanos(10_815_000))
    );
}

#[test]
fn a_ledger_replayed_gives_the_account_without_its_holds() {
    let mut account = account();
    run(&mut account, &facts(), Command::Hold(hold(1, 1000))).unwrap();
    run(&mut account, &facts(), Command::Hold(hold(2, 1000))).unwrap();
    let settle = Command::Settle(settle(1, 1000, 2000));
    let charge = only_charge(&run(&mut account, &facts(), settle).unwrap());
    let opened = Record::Opened {
        tier: account.tier,
        ceiling: account.ceiling,
    };
    let charged = Record::Charged(charge);
    let replayed = replay([(NOVEMBER, &opened), (NOVEMBER, &charged)]).unwrap();
    account.holds.clear();
    assert_eq!(replayed, Some(account));
    assert_eq!(replay([(NOVEMBER, &charged)]), Ok(None));
}

#[test]
fn the_free_tier_charges_nothing_within_its_quota() {
    // The worst case is $0.01875 in the provider's price: two fill $0.0375, a third is too much.
    let mut account = Account {
        tier: Tier::Free {
            monthly_quota: Nanos(37_500_000),
        },
        ..account()
    };
    run(&mut account, &facts(), Command::Hold(hold(1, 1000))).unwrap();
    run(&mut account, &facts(), Command::Hold(hold(2, 1000))).unwrap();
    let denied = run(&mut account, &facts(), Command::Hold(hold(3, 1000)));
    let (needed, available) = (Nanos(18_750_000), Nanos(0));
    assert_eq!(denied, Err(Denied::QuotaSpent { needed, available }));
    let charge = only_charge(
        &run(
            &mut account,
            &facts(),
            Command::Settle(settle(1, 1000, 500)),
        )
        .unwrap(),
    );
    assert_eq!((charge.charge, charge.base), (Nanos(0), Nanos(10_500_000)));
    // What was used stays used: 0.0375 − 0.0105 − 0.01875 held for the other. December is new.
    let left = |account: &Account, at| {
        let summary = account.summary(at).unwrap();
        (summary.used, summary.available)
    };
    assert_eq!(
        left(&account, NOVEMBER),
        (Nanos(10_500_000), Nanos(8_250_000))
    );
    let december = UnixMillis(1_796_083_200_000);
    assert_eq!(left(&account, december), (Nanos(0), Nanos(18_750_000)));
}

/// A model written differently: one list of movements, sums in `i128`, no running totals.
#[derive(Default)]
struct Naive {
    held: Vec<(u128, i128)>,
    settled: Vec<(u128, i128, i128)>,
}

impl Naive {
    fn worst(output: u64) -> i128 {
        // (1 000 × 3.75 + output × 15) micro-dollars, × 1.03, in nanos; exact in halves of a nano.
        round_half_even(
            (3_750_000_000_000 + i128::from(output) * 15_000_000_000) * 10_300,
            10_000_000_000,
        )
    }

    fn available(&self) -> i128 {
        let held: i128 = self.held.iter().map(|h| h.1).sum();
        let within: i128 = self.settled.iter().map(|s| s.1 - s.2).sum();
        (20_000_000 - held - within).max(0)
    }

    fn hold(&mut self, id: u128, output: u64) -> bool {
        let taken = self.held.iter().any(|h| h.0 == id) || self.settled.iter().any(|s| s.0 == id);
        let owing = self.settled.iter().any(|s| s.2 > 0);
        let fine = !taken && !owing && Self::worst(output) <= self.available();
        if fine {
            self.held.push((id, Self::worst(output)));
        }
        fine
    }

    fn settle(&mut self, id: u128, completion: u64) {
        if self.settled.iter().any(|s| s.0 == id) {
            return;
        }
        let held: i128 = self.held.iter().filter(|h| h.0 == id).map(|h| h.1).sum();
        self.held.retain(|h| h.0 != id);
        let cost = round_half_even(
            i128::from(completion) * 15_000_000_000 * 10_300,
            10_000_000_000,
        );
        self.settled.push((id, cost, (cost - held).max(0)));
    }
}

fn round_half_even(n: i128, d: i128) -> i128 {
    let floor = n.div_euclid(d);
    match (n.rem_euclid(d) * 2).cmp(&d) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Greater => floor + 1,
        std::cmp::Ordering::Equal => floor + floor % 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_commands_agree_with_the_naive_model(
        commands in prop::collection::vec((0u8..4, 0u128..12, 0u64..900), 1..60),
    ) {
        let mut account = Account { ceiling: Nanos(20_000_000), ..account() };
        let mut charges: BTreeMap<u128, Charge> = BTreeMap::new();
        let mut naive = Naive::default();
        for (what, id, tokens) in commands {
            let facts = Facts { prior: charges.get(&id).cloned().map(Prior::Charged), ..facts() };
            match what {
                0 | 1 => {
                    let admitted = run(&mut account, &facts, Command::Hold(hold(id, tokens))).is_ok();
                    prop_assert_eq!(admitted, naive.hold(id, tokens));
                }
                2 => {
                    for entry in run(&mut account, &facts, Command::Settle(settle(id, 0, tokens))).unwrap() {
                        if let Entry::Charged(charge) = entry {
                            charges.insert(id, charge);
                        }
                    }
                    naive.settle(id, tokens);
                }
                _ => {
                    run(&mut account, &facts, Command::Release(release(id))).unwrap();
                    naive.held.retain(|h| h.0 != id);
                }
            }
            let summary = account.summary(NOVEMBER).unwrap();
            prop_assert!(summary.held >= Nanos::ZERO && summary.available >= Nanos::ZERO);
            prop_assert_eq!(i128::from(summary.available.0), naive.available());
            let owed: i128 = naive.settled.iter().map(|s| s.2).sum();
            prop_assert_eq!(i128::from(summary.owed.0), owed);
        }
    }

    #[test]
    fn replaying_a_command_changes_nothing(
        commands in prop::collection::vec((0u8..4, 0u128..6, 0u64..900), 1..40),
    ) {
        let mut account = Account { ceiling: Nanos(20_000_000), ..account() };
        let mut charges: BTreeMap<u128, Charge> = BTreeMap::new();
        for (what, id, tokens) in commands {
            let command = match what {
                0 | 1 => Command::Hold(hold(id, tokens)),
                2 => Command::Settle(settle(id, 0, tokens)),
                _ => Command::Release(release(id)),
            };
            let before = Facts { prior: charges.get(&id).cloned().map(Prior::Charged), ..facts() };
            for entry in run(&mut account, &before, command.clone()).unwrap_or_default() {
                if let Entry::Charged(charge) = entry {
                    charges.insert(id, charge);
                }
            }
            let once = account.clone();
            let after = Facts { prior: charges.get(&id).cloned().map(Prior::Charged), ..facts() };
            let again = run(&mut account, &after, command);
            prop_assert!(again.is_err() || again == Ok(vec![]));
            prop_assert_eq!(&account, &once);
        }
    }

    #[test]
    fn the_total_charged_does_not_depend_on_the_order_of_settles(
        tokens in prop::collection::vec(0u64..5000, 2..20), seed in any::<u64>(),
    ) {
        let total = |order: &[usize]| {
            let mut account = account();
            for id in 0..tokens.len() {
                run(&mut account, &facts(), Command::Hold(hold(id as u128, 5000))).unwrap();
            }
            for &id in order {
                run(&mut account, &facts(), Command::Settle(settle(id as u128, 10, tokens[id]))).unwrap();
            }
            account.spent.plus(account.owed).unwrap()
        };
        let forward: Vec<usize> = (0..tokens.len()).collect();
        let mut mixed = forward.clone();
        mixed.sort_by_key(|&i| (i as u64 + 1).wrapping_mul(seed | 1));
        prop_assert_eq!(total(&forward), total(&mixed));
    }
}
