//! `synesis admin refund|reverse|collect`: money that goes back, and invoices that were paid.

use mesh_core::billing::account::order::{Reference, What};
use mesh_core::billing::money::Nanos;
use mesh_core::ids::RequestId;
use serde::Serialize;

use super::{Carried, Desk};
use crate::cli::args::{AdminOptions, Collect, Refund, Reverse};
use crate::cli::{Scene, Stop};

/// What `--json` prints.
#[derive(Serialize)]
struct Shown {
    account: String,
    reference: String,
    amount: String,
    amount_nanos: i64,
    repeated: bool,
    available_nanos: i64,
    owed_nanos: i64,
    invoiced_nanos: i64,
}

/// An order that has its reference already, or gets a fresh one.
struct Wish<'a> {
    account: &'a str,
    reference: Option<&'a Reference>,
    what: What,
    amount: Nanos,
    options: &'a AdminOptions,
    /// For a person, after the account's name.
    done: String,
}

pub(super) async fn refund(refund: &Refund, scene: &Scene) -> Result<(), Stop> {
    let request: RequestId = refund
        .request
        .parse()
        .map_err(|error: mesh_core::ids::IdError| Stop::invalid(error.to_string()))?;
    let desk = Desk::open(&refund.options, scene).await?;
    let amount = match refund.amount {
        Some(amount) => amount,
        None => {
            let account = desk.account(&refund.account).await?.id;
            let booked = desk.store.booked(account, request).await?;
            let never = || Stop::invalid(format!("{} was never charged for it", refund.account));
            booked.ok_or_else(never)?.charge.charge
        }
    };
    let wish = Wish {
        account: &refund.account,
        reference: refund.reference.as_ref(),
        what: What::Refund {
            charge: request,
            amount,
        },
        amount,
        options: &refund.options,
        done: format!("has {amount} back"),
    };
    carry_out(&desk, wish, scene).await
}

pub(super) async fn reverse(reverse: &Reverse, scene: &Scene) -> Result<(), Stop> {
    let desk = Desk::open(&reverse.options, scene).await?;
    let (payment, amount) = (reverse.payment.clone(), reverse.amount);
    let wish = Wish {
        account: &reverse.account,
        reference: reverse.reference.as_ref(),
        what: What::Reverse { payment, amount },
        amount,
        options: &reverse.options,
        done: format!("took {amount} back"),
    };
    carry_out(&desk, wish, scene).await
}

pub(super) async fn collect(collect: &Collect, scene: &Scene) -> Result<(), Stop> {
    let desk = Desk::open(&collect.options, scene).await?;
    let amount = collect.amount;
    let wish = Wish {
        account: &collect.account,
        reference: collect.reference.as_ref(),
        what: What::Collect { amount },
        amount,
        options: &collect.options,
        done: format!("paid {amount} of what was invoiced"),
    };
    carry_out(&desk, wish, scene).await
}

async fn carry_out(desk: &Desk, wish: Wish<'_>, scene: &Scene) -> Result<(), Stop> {
    let Carried {
        account,
        reference,
        done,
        summary,
    } = desk.order(wish.account, wish.reference, wish.what).await?;
    if wish.options.json {
        return scene.output.json(&Shown {
            account: account.id.to_string(),
            reference: reference.to_string(),
            amount: wish.amount.to_string(),
            amount_nanos: wish.amount.0,
            repeated: done.repeated,
            available_nanos: summary.available.0,
            owed_nanos: summary.owed.0,
            invoiced_nanos: summary.invoiced.0,
        });
    }
    let again = if done.repeated {
        " (done before: nothing happened now)"
    } else {
        ""
    };
    let owed = if summary.owed.is_zero() {
        String::new()
    } else {
        format!(", {} is owed", summary.owed)
    };
    scene.output.line(&format!(
        "{} {}{again}; {} can be spent{owed}. Reference {reference}",
        account.name, wish.done, summary.available
    ))
}
