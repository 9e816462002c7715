use proptest::prelude::*;

use super::seal::{Seal, SealKey};
use super::*;
use crate::billing::price::Price;
use crate::billing::tier::Tier;
use crate::ids::RequestId;
use crate::wire::message::TokensUsed;

const ACCOUNT: AccountId = AccountId::from_u128(7);

fn charge(id: u128, tier: Tier, overage: i64) -> Charge {
    Charge {
        request: RequestId::from_u128(id),
        body: [0xAB; 32],
        model: "claude_sonnet".to_owned(),
        tokens: TokensUsed {
            prompt: 1000,
            completion: 500,
            ..TokensUsed::default()
        },
        price: Price::CLAUDE_SONNET,
        tier,
        base: Nanos(10_500_000),
        charge: Nanos(10_815_000),
        overage: Nanos(overage),
        credits: Vec::new(),
        prepaid: Nanos::ZERO,
        month: None,
        device: None,
        project: None,
        guest: None,
        estimated: false,
    }
}

/// Adds a charge as a store would.
fn append(chain: &mut Vec<Stored>, charge: Charge) {
    let sequence = chain.len() as u64;
    let entry = Entry::new(sequence, UnixMillis(sequence), Record::Charged(charge)).unwrap();
    let canonical = entry.canonical().unwrap();
    let head = chain.last().map_or(Hash::START, |last| last.hash);
    chain.push(Stored {
        sequence,
        hash: link(ACCOUNT, head, &canonical),
        canonical,
    });
}

fn chain(length: u64) -> Vec<Stored> {
    let mut head = Hash::START;
    (0..length)
        .map(|sequence| {
            let record = match sequence {
                0 => Record::Opened {
                    tier: Tier::MANAGED,
                    ceiling: Nanos(5),
                },
                n => Record::Charged(charge(n.into(), Tier::MANAGED, 0)),
            };
            let canonical = Entry::new(sequence, UnixMillis(sequence), record)
                .unwrap()
                .canonical()
                .unwrap();
            head = link(ACCOUNT, head, &canonical);
            Stored {
                sequence,
                canonical,
                hash: head,
            }
        })
        .collect()
}

#[test]
fn a_link_is_what_another_program_computes() {
    // printf 'synesis ledger\x01' + 15 zero bytes + \x07 + 32 zero bytes + 7 zero bytes + \x02
    // + '{}', through sha256sum.
    let expected = "6c7a72659c5c2cf7e2347eacc02c1b52ab7b5c57b193d608731cf5ffb15fea2e";
    assert_eq!(link(ACCOUNT, Hash::START, "{}").to_string(), expected);
}

#[test]
fn debits_equal_credits_in_every_tier() {
    for (tier, books) in [
        (
            Tier::MANAGED,
            vec![Book::Postpaid, Book::Owed, Book::Provider, Book::Markup],
        ),
        (
            Tier::BYOK,
            vec![Book::Postpaid, Book::Owed, Book::LicenceFee],
        ),
    ] {
        let movements = Record::Charged(charge(1, tier, 5)).movements().unwrap();
        assert_eq!(movements.iter().map(|m| m.amount.0).sum::<i64>(), 0);
        assert_eq!(movements.iter().map(|m| m.book).collect::<Vec<_>>(), books);
    }
    let free = Charge {
        charge: Nanos::ZERO,
        ..charge(
            1,
            Tier::Free {
                monthly_quota: Nanos(1),
            },
            0,
        )
    };
    let movements = Record::Charged(free).movements().unwrap();
    assert_eq!(
        movements.iter().map(|m| m.amount.0).collect::<Vec<_>>(),
        [10_500_000, -10_500_000]
    );
}

#[test]
fn a_chain_that_was_not_touched_verifies() {
    let verified = verify(ACCOUNT, chain(4)).unwrap();
    assert_eq!(
        (verified.entries, verified.charged),
        (4, Nanos(3 * 10_815_000))
    );
    assert!(verify(AccountId::from_u128(8), chain(4)).is_err());
    assert_eq!(verify(ACCOUNT, []).unwrap().head, Hash::START);
}

#[test]
fn only_the_first_entry_opens_the_account() {
    let opened = Record::Opened {
        tier: Tier::MANAGED,
        ceiling: Nanos(5),
    };
    let mut head = Hash::START;
    let twice = [0, 1].map(|sequence| {
        let entry = Entry::new(sequence, UnixMillis(1), opened.clone()).unwrap();
        let canonical = entry.canonical().unwrap();
        head = link(ACCOUNT, head, &canonical);
        Stored {
            sequence,
            canonical,
            hash: head,
        }
    });
    assert_eq!(verify(ACCOUNT, twice).unwrap_err().sequence, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn debits_equal_credits_whatever_is_charged(
        prompt in 0u64..10_000_000, completion in 0u64..1_000_000,
        bps in 0u32..20_000, part in 0i64..=100, tier in 0u8..3,
    ) {
        let tier = match tier {
            0 => Tier::Free { monthly_quota: Nanos(1) },
            1 => Tier::Managed { markup_bps: bps },
            _ => Tier::Byok { fee_bps: bps },
        };
        let price = Price::CLAUDE_SONNET;
        let tokens = TokensUsed { prompt, completion, ..TokensUsed::default() };
        let (base, amount) = (price.base(&tokens)?, price.cost(&tokens, tier.rate_bps())?);
        let overage = Nanos(amount.0 / 100 * part);
        let charge = Charge { tokens, base, charge: amount, overage, ..charge(1, tier, 0) };
        let movements = Record::Charged(charge).movements()?;
        prop_assert_eq!(movements.iter().map(|m| i128::from(m.amount.0)).sum::<i128>(), 0);
        prop_assert!(movements.iter().all(|m| m.amount != Nanos::ZERO));
    }

    /// Whatever of a chain goes missing or is written anew after its last exported head: what is left is a
    /// chain, and only the seal tells.
    #[test]
    fn a_tail_cut_below_the_last_exported_head_is_found_and_named(
        length in 2u64..14, sealed in any::<prop::sample::Index>(), left in any::<prop::sample::Index>(),
        anew in 0u64..4, seed in any::<[u8; 32]>(),
    ) {
        let whole = chain(length);
        let sealed = 1 + sealed.index(whole.len());
        let head = Head { entries: sealed as u64, hash: whole[sealed - 1].hash };
        let key = SealKey::from_seed(&seed).unwrap();
        let exported = Seal::new(UnixMillis(1), [(ACCOUNT, head)].into(), &key);
        let read: Seal = serde_json::from_str(&serde_json::to_string(&exported)?)?;
        prop_assert_eq!(read.check(Some(&key.public())), Ok(()));
        let head = read.heads.get(&ACCOUNT).copied();
        prop_assert!(verify_sealed(ACCOUNT, head, whole.clone()).is_ok());

        let left = left.index(sealed);
        let mut cut = whole[..left].to_vec();
        for number in 0..anew {
            append(&mut cut, charge(1000 + u128::from(number), Tier::MANAGED, 0));
        }
        let is_a_chain = left > 0 || anew == 0;
        prop_assert_eq!(verify(ACCOUNT, cut.clone()).is_ok(), is_a_chain);
        let fault = verify_sealed(ACCOUNT, head, cut.clone()).unwrap_err();
        // At the first entry that is missing, or the last that was sealed where it was written anew.
        let named = if is_a_chain { cut.len().min(sealed - 1) } else { 0 };
        prop_assert_eq!(fault.sequence, named as u64);
    }

    #[test]
    fn any_altered_dropped_inserted_or_swapped_entry_is_found_and_named(
        length in 3u64..12, at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(), what in 0u8..4,
    ) {
        let mut entries = chain(length);
        let at = at.index(entries.len() - 1);
        match what {
            0 => {
                let mut bytes = entries[at].canonical.clone().into_bytes();
                let byte = byte.index(bytes.len());
                bytes[byte] ^= 1;
                entries[at].canonical = String::from_utf8(bytes).unwrap();
            }
            1 => { entries.remove(at); }
            2 => { let copy = entries[at].clone(); entries.insert(at, copy); }
            _ => entries.swap(at, at + 1),
        }
        let fault = verify(ACCOUNT, entries).unwrap_err();
        let expected = if what == 2 { at + 1 } else { at };
        prop_assert_eq!(fault.sequence, expected as u64);
    }
}
