//! What an object of Stripe's, fetched again, makes of an account: money in, money out, money back.
//!
//! A session pays once, under its own name; a refund and a dispute take it back once, under theirs. So
//! it does not matter which event comes first, or how often.

use super::id::SessionId;
use super::object::{Dispute, DisputeStatus, Mode, Refund, RefundStatus, Session, Standing};
use crate::billing::account::order::Reference;
use crate::billing::money::Nanos;
use crate::ids::AccountId;

/// The one currency of the ledger.
const CURRENCY: &str = "usd";

/// A session that was paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// To whom.
    pub account: AccountId,
    /// By what.
    pub session: SessionId,
    /// How much.
    pub amount: Nanos,
}

/// Why a session pays nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPayment {
    /// Something else is sold under the same key.
    #[error("the session is not one of ours")]
    NotOurs,
    /// A subscription, say.
    #[error("the session is not for a payment")]
    NotAPayment,
    /// The money is not there.
    #[error("the session is not paid")]
    NotPaid(Standing),
    /// We keep dollars.
    #[error("the session is not in US dollars")]
    Currency,
    /// It names one account here and another there.
    #[error("the session names two accounts")]
    WrongAccount,
    /// Another amount was paid than was asked for.
    #[error("{paid} cents were paid where {asked} were asked for")]
    AmountAltered {
        /// What we asked for.
        asked: i64,
        /// What was paid.
        paid: i64,
    },
    /// No amount, none that can be booked, or we never said one.
    #[error("the session has no amount")]
    NoAmount,
}

impl NoPayment {
    /// Whether somebody has paid and gets nothing for it: a person must look at it.
    #[must_use]
    pub const fn is_alarming(self) -> bool {
        match self {
            Self::NotOurs | Self::NotAPayment | Self::NotPaid(_) => false,
            Self::Currency | Self::WrongAccount | Self::AmountAltered { .. } | Self::NoAmount => {
                true
            }
        }
    }
}

/// Whose a session is, by what we wrote on it.
///
/// # Errors
///
/// [`NoPayment::NotOurs`], [`NoPayment::WrongAccount`].
pub fn account_of(session: &Session) -> Result<AccountId, NoPayment> {
    let written = session
        .metadata
        .as_ref()
        .and_then(|written| written.account.as_ref());
    let (Some(written), Some(said)) = (written, &session.client_reference_id) else {
        return Err(NoPayment::NotOurs);
    };
    let account: AccountId = written.parse().map_err(|_| NoPayment::NotOurs)?;
    if written != said {
        return Err(NoPayment::WrongAccount);
    }
    Ok(account)
}

/// What a session pays.
///
/// # Errors
///
/// [`NoPayment`].
pub fn payment(session: &Session) -> Result<Payment, NoPayment> {
    if session.mode != Mode::Payment {
        return Err(NoPayment::NotAPayment);
    }
    let account = account_of(session)?;
    let standing = session.standing();
    if standing != Standing::Paid {
        return Err(NoPayment::NotPaid(standing));
    }
    if session.currency.as_deref() != Some(CURRENCY) {
        return Err(NoPayment::Currency);
    }
    let written = session
        .metadata
        .as_ref()
        .and_then(|written| written.cents.as_deref());
    let asked = written
        .and_then(|cents| cents.parse().ok())
        .ok_or(NoPayment::NoAmount)?;
    let paid = session.amount_total.ok_or(NoPayment::NoAmount)?;
    if paid != asked {
        return Err(NoPayment::AmountAltered { asked, paid });
    }
    Ok(Payment {
        account,
        session: session.id.clone(),
        amount: positive_cents(paid).ok_or(NoPayment::NoAmount)?,
    })
}

/// Whole cents, exactly, if they are more than nothing and fit the ledger.
fn positive_cents(cents: i64) -> Option<Nanos> {
    let nanos = Nanos::from_cents(cents).ok()?;
    (cents > 0).then_some(nanos)
}

/// What a refund or a dispute has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Movement {
    /// Nothing, or nothing yet.
    Nothing,
    /// A payment's money has gone back to whoever made it.
    Out {
        /// Under this name.
        reference: Reference,
        /// How much.
        amount: Nanos,
    },
    /// It came back from there: if it was taken from the account, it is the account's again.
    Back {
        /// The name under which it may have been taken.
        taken: Reference,
        /// The name under which it is given back.
        reference: Reference,
        /// How much.
        amount: Nanos,
    },
}

/// Why a refund or a dispute cannot be booked: a person must look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMovement {
    /// We keep dollars.
    #[error("it is not in US dollars")]
    Currency,
    /// None that can be booked.
    #[error("it has no amount")]
    NoAmount,
}

fn amount(currency: &str, cents: i64) -> Result<Nanos, NoMovement> {
    if currency != CURRENCY {
        return Err(NoMovement::Currency);
    }
    positive_cents(cents).ok_or(NoMovement::NoAmount)
}

/// What a refund has moved. It takes the money when it succeeds, and gives it back if it fails after
/// that.
///
/// # Errors
///
/// [`NoMovement`].
pub fn of_refund(refund: &Refund) -> Result<Movement, NoMovement> {
    let amount = amount(&refund.currency, refund.amount)?;
    let reference = refund.id.reference();
    Ok(match refund.status {
        Some(RefundStatus::Succeeded) => Movement::Out { reference, amount },
        Some(RefundStatus::Failed | RefundStatus::Canceled) => Movement::Back {
            taken: reference,
            reference: refund.id.failed(),
            amount,
        },
        Some(RefundStatus::Other) | None => Movement::Nothing,
    })
}

/// What a dispute has moved. Stripe takes the money when it begins, and gives it back if it is won.
///
/// # Errors
///
/// [`NoMovement`].
pub fn of_dispute(dispute: &Dispute) -> Result<Movement, NoMovement> {
    let amount = amount(&dispute.currency, dispute.amount)?;
    let reference = dispute.id.reference();
    Ok(match dispute.status {
        DisputeStatus::NeedsResponse | DisputeStatus::UnderReview | DisputeStatus::Lost => {
            Movement::Out { reference, amount }
        }
        DisputeStatus::Won => Movement::Back {
            taken: reference,
            reference: dispute.id.won(),
            amount,
        },
        DisputeStatus::Other => Movement::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::object::read;
    use super::*;

    const ACCOUNT: &str = "acct_00000000000000000000000000000005";
    const OTHER: &str = "acct_00000000000000000000000000000006";

    fn session(changes: &Value) -> Session {
        let mut object = json!({
            "id": "cs_1", "mode": "payment", "status": "complete", "payment_status": "paid",
            "currency": "usd", "amount_total": 2000, "client_reference_id": ACCOUNT,
            "metadata": {"account": ACCOUNT, "cents": "2000"},
        });
        for (name, value) in changes.as_object().unwrap() {
            object[name] = value.clone();
        }
        read(object.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_paid_session_pays_exactly_what_was_asked_for_to_whom_it_was_made_for() {
        let paid = payment(&session(&json!({}))).unwrap();
        // $20.00 by hand: 20 × 10⁹.
        assert_eq!(paid.amount, Nanos(20_000_000_000));
        assert_eq!(paid.account.to_string(), ACCOUNT);
        assert_eq!(paid.session.reference().as_str(), "stripe:cs_1");
        assert_eq!(
            account_of(&session(&json!({"payment_status": "unpaid"}))),
            Ok(paid.account)
        );
    }

    #[test]
    fn whatever_does_not_fit_together_pays_nothing_and_says_why() {
        let written =
            |account: &str, cents: &str| json!({"metadata": {"account": account, "cents": cents}});
        for (changes, expected) in [
            (json!({"mode": "subscription"}), NoPayment::NotAPayment),
            (json!({"mode": "novel"}), NoPayment::NotAPayment),
            (
                json!({"payment_status": "unpaid"}),
                NoPayment::NotPaid(Standing::Processing),
            ),
            (
                json!({"payment_status": "novel", "status": "open"}),
                NoPayment::NotPaid(Standing::Open),
            ),
            (
                json!({"payment_status": "unpaid", "status": "expired"}),
                NoPayment::NotPaid(Standing::Expired),
            ),
            (json!({"currency": "eur"}), NoPayment::Currency),
            (json!({"currency": null}), NoPayment::Currency),
            (json!({"client_reference_id": null}), NoPayment::NotOurs),
            (
                json!({"client_reference_id": "order-7", "metadata": {}}),
                NoPayment::NotOurs,
            ),
            (json!({"metadata": null}), NoPayment::NotOurs),
            (
                json!({"client_reference_id": OTHER}),
                NoPayment::WrongAccount,
            ),
            (written(OTHER, "2000"), NoPayment::WrongAccount),
            (written("nobody", "2000"), NoPayment::NotOurs),
            (
                json!({"amount_total": 1}),
                NoPayment::AmountAltered {
                    asked: 2000,
                    paid: 1,
                },
            ),
            (
                written(ACCOUNT, "200000"),
                NoPayment::AmountAltered {
                    asked: 200_000,
                    paid: 2000,
                },
            ),
            (written(ACCOUNT, "2000.0"), NoPayment::NoAmount),
            (json!({"amount_total": null}), NoPayment::NoAmount),
            (
                json!({"amount_total": 0, "metadata": {"account": ACCOUNT, "cents": "0"}}),
                NoPayment::NoAmount,
            ),
            (
                json!({"amount_total": -5, "metadata": {"account": ACCOUNT, "cents": "-5"}}),
                NoPayment::NoAmount,
            ),
            (
                json!({"amount_total": i64::MAX, "metadata": {"account": ACCOUNT, "cents": i64::MAX.to_string()}}),
                NoPayment::NoAmount,
            ),
        ] {
            assert_eq!(payment(&session(&changes)), Err(expected), "{changes}");
        }
        assert!(NoPayment::Currency.is_alarming());
        assert!(!NoPayment::NotPaid(Standing::Open).is_alarming());
    }

    fn refund(status: Value, currency: &str, amount: i64) -> Refund {
        let object = json!({"id": "re_1", "status": status, "currency": currency, "amount": amount, "payment_intent": "pi_1"});
        read(object.to_string().as_bytes()).unwrap()
    }

    fn dispute(status: &str) -> Dispute {
        let object = json!({"id": "dp_1", "status": status, "currency": "usd", "amount": 2000, "payment_intent": "pi_1"});
        read(object.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_refund_takes_when_it_succeeds_and_gives_back_when_it_fails() {
        let reference = |text: &str| Reference::new(text).unwrap();
        let amount = Nanos(5_000_000_000);
        let out = Movement::Out {
            reference: reference("stripe:re_1"),
            amount,
        };
        let back = Movement::Back {
            taken: reference("stripe:re_1"),
            reference: reference("stripe:re_1:failed"),
            amount,
        };
        for (status, expected) in [
            (json!("succeeded"), Ok(out)),
            (json!("failed"), Ok(back.clone())),
            (json!("canceled"), Ok(back)),
            (json!("pending"), Ok(Movement::Nothing)),
            (json!("requires_action"), Ok(Movement::Nothing)),
            (json!("novel"), Ok(Movement::Nothing)),
            (Value::Null, Ok(Movement::Nothing)),
        ] {
            assert_eq!(
                of_refund(&refund(status.clone(), "usd", 500)),
                expected,
                "{status}"
            );
        }
        assert_eq!(
            of_refund(&refund(json!("succeeded"), "eur", 500)),
            Err(NoMovement::Currency)
        );
        for amount in [0, -1, i64::MAX] {
            assert_eq!(
                of_refund(&refund(json!("succeeded"), "usd", amount)),
                Err(NoMovement::NoAmount)
            );
        }
    }

    #[test]
    fn a_dispute_takes_while_it_lasts_and_gives_back_when_it_is_won() {
        for (status, moves) in [
            ("needs_response", "out"),
            ("under_review", "out"),
            ("lost", "out"),
            ("won", "back"),
            ("warning_needs_response", "nothing"),
            ("warning_under_review", "nothing"),
            ("warning_closed", "nothing"),
            ("prevented", "nothing"),
        ] {
            let moved = match of_dispute(&dispute(status)).unwrap() {
                Movement::Nothing => "nothing",
                Movement::Out { reference, amount } => {
                    assert_eq!(
                        (reference.as_str(), amount),
                        ("stripe:dp_1", Nanos(20_000_000_000))
                    );
                    "out"
                }
                Movement::Back {
                    taken, reference, ..
                } => {
                    assert_eq!(taken.as_str(), "stripe:dp_1");
                    assert_eq!(reference.as_str(), "stripe:dp_1:won");
                    "back"
                }
            };
            assert_eq!(moved, moves, "{status}");
        }
    }

    proptest! {
        #[test]
        fn cents_become_nanos_without_a_rest(cents in 1i64..=i64::MAX / 10_000_000) {
            let changes = json!({
                "amount_total": cents, "metadata": {"account": ACCOUNT, "cents": cents.to_string()},
            });
            let paid = payment(&session(&changes)).unwrap();
            // By writing two zeros fewer than a dollar has nanos behind the digits.
            prop_assert_eq!(paid.amount.0.to_string(), format!("{cents}0000000"));
        }
    }
}
