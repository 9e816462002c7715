//! Usage and invoices: cents are allocated to the last one, however amounts lie, and reports by
//! whatever add up to one total.

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::billing::account::order::Reference;
use mesh_core::billing::account::{Day, Month};
use mesh_core::billing::invoice::{allocate, invoice};
use mesh_core::billing::ledger::Invoiced;
use mesh_core::billing::money::{Cents, Nanos};
use mesh_core::billing::usage::{By, Key, Sums, report};
use mesh_core::ids::DeviceId;

const CENT: i128 = 10_000_000;
const ROWS_MAX: usize = 64;

#[derive(Debug, Arbitrary)]
struct Row {
    day: u8,
    model: u8,
    tier: u8,
    device: Option<u8>,
    project: Option<u8>,
    charge: u32,
    refunded: u32,
    postpaid: i32,
    shift: u8,
}

impl Row {
    fn key(&self) -> Key {
        let tiers = ["free", "managed", "byok", "refund"];
        Key {
            month: Month::from_index(24_322),
            day: Day::from_index(20_000 + i32::from(self.day % 31)),
            model: format!("m{}", self.model % 4),
            tier: tiers[usize::from(self.tier % 4)].to_owned(),
            device: self
                .device
                .map(|device| DeviceId::from_u128(u128::from(device % 4))),
            project: self.project.map(|project| format!("p{}", project % 4)),
        }
    }

    fn sums(&self) -> Sums {
        // Up to 2⁵¹ nanos, some two million dollars a row: all rows together can be added.
        let large = |amount: i64| Nanos(amount << (self.shift % 20));
        Sums {
            requests: 1,
            charge: large(self.charge.into()),
            base: Nanos(self.charge.into()),
            refunded: large(self.refunded.into()),
            postpaid: large(self.postpaid.into()),
            ..Sums::default()
        }
    }
}

fn wide(nanos: Nanos) -> i128 {
    nanos.0.into()
}

/// Largest remainders: no line is off by a cent but the last, which takes what does not add up.
fn allocates(amounts: &[Nanos], total: i128) {
    let cents = allocate(amounts, Cents(i64::try_from(total).unwrap_or_default()));
    assert_eq!(cents.len(), amounts.len());
    if amounts.is_empty() {
        return;
    }
    let sum: i128 = cents.iter().map(|cents| i128::from(cents.0)).sum();
    assert_eq!(sum, total, "cents do not add up");
    let exact: i128 = amounts.iter().map(|amount| wide(*amount)).sum();
    if total != exact.div_euclid(CENT) {
        return;
    }
    let mut rounded_up: Option<i128> = None;
    let mut rounded_down: Option<i128> = None;
    for (amount, cents) in amounts.iter().zip(&cents) {
        let (amount, cents) = (wide(*amount), i128::from(cents.0) * CENT);
        assert!((amount - cents).abs() < CENT, "a line is off by a cent");
        let rest = amount.rem_euclid(CENT);
        let edge = if cents > amount {
            &mut rounded_up
        } else {
            &mut rounded_down
        };
        let worse = |known: i128| {
            if cents > amount {
                known.min(rest)
            } else {
                known.max(rest)
            }
        };
        *edge = Some(edge.map_or(rest, worse));
    }
    if let (Some(up), Some(down)) = (rounded_up, rounded_down) {
        assert!(up >= down, "a smaller remainder got the cent");
    }
}

/// See the module documentation.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(carried) = u32::arbitrary(&mut bytes) else {
        return;
    };
    let mut rows: Vec<(Key, Sums)> = Vec::new();
    while rows.len() < ROWS_MAX
        && !bytes.is_empty()
        && let Ok(row) = Row::arbitrary(&mut bytes)
    {
        rows.push((row.key(), row.sums()));
    }
    let sum =
        |of: fn(&Sums) -> Nanos| -> i128 { rows.iter().map(|(_, sums)| wide(of(sums))).sum() };
    let spent = sum(|sums| sums.postpaid);
    let carried_in = Nanos(i64::from(carried) % 10_000_000);
    let all = spent + wide(carried_in);
    let total = if all < 0 { 0 } else { all / CENT };

    let mut amounts: Vec<Nanos> = rows.iter().map(|(_, sums)| sums.postpaid).collect();
    amounts.push(carried_in);
    allocates(&amounts, total);

    for by in [By::Day, By::Model, By::Device, By::Project] {
        let Ok(report) = report(&rows, by) else {
            unreachable!("sums that fit do not");
        };
        assert_eq!(report.total.sums.requests, rows.len() as u64);
        assert_eq!(wide(report.total.sums.charge), sum(|sums| sums.charge));
        assert_eq!(wide(report.total.sums.postpaid), spent);
        let lines: i128 = report.lines.iter().map(|l| wide(l.sums.postpaid)).sum();
        assert_eq!(lines, spent, "lines are another sum");
        assert!(report.lines.is_sorted_by(|a, b| a.label < b.label));
    }

    let Ok(reference) = Reference::new("invoice:2026-11") else {
        unreachable!("a plain word");
    };
    let narrow = |amount: i128| Nanos(i64::try_from(amount).unwrap_or_default());
    let invoiced = Invoiced {
        reference,
        month: Month::from_index(24_322),
        after: Month::from_index(0),
        spent: narrow(spent),
        carried_in,
        cents: Cents(narrow(total).0),
        carried_out: narrow(all - total * CENT),
    };
    let Ok(invoice) = invoice(&invoiced, &rows) else {
        unreachable!("sums that fit do not");
    };
    let requests: u64 = invoice.lines.iter().map(|line| line.requests).sum();
    assert_eq!(requests, rows.len() as u64);
    let charge: i128 = invoice.lines.iter().map(|line| wide(line.charge)).sum();
    assert_eq!(charge, sum(|sums| sums.charge) - sum(|sums| sums.refunded));
    let exact: i128 = invoice.lines.iter().map(|line| wide(line.spent)).sum();
    assert_eq!(exact, all);
    if !invoice.lines.is_empty() {
        let cents: i128 = invoice.lines.iter().map(|l| i128::from(l.cents.0)).sum();
        assert_eq!(cents, total, "an invoice's lines do not add up");
    }
}
