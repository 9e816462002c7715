//! `synesis cloud topup`: money paid in advance, by card or bank, on a page of Stripe's.
//!
//! ```text
//!   begun: the page's address ─▶ waiting ─▶ credited
//!                                  │ Ctrl-C           ─▶ exit 130; credited all the same once it is paid
//!                                  └ failed, expired  ─▶ exit 17
//! ```

use std::process::{Command, Stdio};
use std::time::Duration;

use mesh_core::api::{Method, Params, TopUp, TopUpBegun, TopUpNamed, TopUpState, TopUpStatus};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::stripe::object::is_web_address;
use mesh_core::error::ErrorClass;
use serde::Serialize;

use super::args::Topup;
use super::link::Link;
use super::output::Output;
use super::{Interrupts, Scene, Stop};
use crate::error::Error;

/// Between two looks at first; doubles to [`LOOK_EVERY_MAX`].
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(5);

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    session: &'a str,
    url: &'a str,
    amount: String,
    amount_cents: i64,
    state: TopUpState,
}

/// Begins a top-up, and waits until it is credited.
pub(super) async fn run(topup: &Topup, scene: &Scene) -> Result<(), Stop> {
    let output = scene.output;
    let wish = TopUp {
        amount_cents: topup.amount,
    };
    wish.check().map_err(Error::from)?;
    let mut interrupts = Interrupts::new()?;
    let spinner = output.spinner("asking the gateway");
    let link = interrupts.or(Link::open(scene)).await?;
    let params = Params::new(&wish).map_err(Error::from)?;
    let begun = interrupts
        .or(link.call(Method::PaymentsCheckout, params))
        .await;
    drop(spinner);
    let begun: TopUpBegun = match begun {
        Ok(begun) => begun,
        Err(stop) => {
            link.close().await;
            return Err(stop);
        }
    };
    let shown = show(topup, &begun, output);
    let state = match shown {
        Ok(()) if topup.no_wait => Ok(TopUpState::Open),
        Ok(()) => wait(&link, &begun, output, &mut interrupts).await,
        Err(stop) => Err(stop),
    };
    link.close().await;
    if matches!(state, Err(Stop::Interrupted)) {
        output.note(
            "Not waiting any more. It is credited all the same once it is paid; `synesis cloud balance` \
             shows it until then.",
        );
    }
    told(topup, &begun, state?, output)
}

/// Tells where it is paid, and opens that page if that is wanted.
fn show(topup: &Topup, begun: &TopUpBegun, output: Output) -> Result<(), Stop> {
    if !is_web_address(&begun.url) {
        return Err(Error::protocol("the gateway gave no address to pay at").into());
    }
    if topup.json {
        output.note(&format!("Pay at {}", begun.url));
    } else {
        output.line(&begun.url)?;
    }
    if topup.open && !open_page(&begun.url) {
        output.warn("no browser could be opened; open the address yourself");
    }
    Ok(())
}

/// Looks from time to time until it is over.
async fn wait(
    link: &Link,
    begun: &TopUpBegun,
    output: Output,
    interrupts: &mut Interrupts,
) -> Result<TopUpState, Stop> {
    let spinner = output.spinner("waiting for the payment; Ctrl-C leaves it pending");
    let named = TopUpNamed {
        session: begun.session.clone(),
    };
    let mut every = LOOK_EVERY;
    loop {
        let look = async {
            tokio::time::sleep(every).await;
            let params = Params::new(&named).map_err(Error::from)?;
            link.call::<TopUpStatus>(Method::PaymentsStatus, params)
                .await
        };
        match interrupts.or(look).await {
            Ok(status) if !status.state.is_pending() => return Ok(status.state),
            Ok(status) if status.state == TopUpState::Processing => {
                spinner.say(
                    "paid; waiting for the bank, which may take days; Ctrl-C leaves it pending",
                );
            }
            Ok(_) => {}
            Err(Stop::Failed(error)) if may_pass(&error) => {
                spinner.say("the gateway cannot be asked just now; still waiting");
            }
            Err(stop) => return Err(stop),
        }
        every = (every * 2).min(LOOK_EVERY_MAX);
    }
}

/// Whether the next look may go better.
fn may_pass(error: &Error) -> bool {
    if let Error::Gateway(message) = error {
        return message.retryable;
    }
    matches!(
        error.class(),
        ErrorClass::NotConnected | ErrorClass::Timeout | ErrorClass::RateLimit
    )
}

fn told(topup: &Topup, begun: &TopUpBegun, state: TopUpState, output: Output) -> Result<(), Stop> {
    let amount = Nanos::from_cents(topup.amount).map_or_else(|_| "-".to_owned(), |n| n.to_string());
    if topup.json {
        output.json(&Report {
            session: begun.session.as_str(),
            url: &begun.url,
            amount: amount.clone(),
            amount_cents: topup.amount,
            state,
        })?;
    }
    match state {
        TopUpState::Credited => output.note(&format!("{amount} credited.")),
        TopUpState::Open | TopUpState::Processing => {
            output.note(&format!("{amount} will be credited once it is paid."));
        }
        TopUpState::Failed => {
            output.error("the payment failed; nothing was credited");
            return Err(Stop::Reported(ErrorClass::Billing));
        }
        TopUpState::Expired => {
            output.error("it was not paid in time; nothing was credited");
            return Err(Stop::Reported(ErrorClass::Billing));
        }
    }
    Ok(())
}

/// Opens a page in the person's browser, with what the platform has for it. What it prints is not ours
/// to show.
fn open_page(url: &str) -> bool {
    let (program, before): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else {
        ("xdg-open", &[])
    };
    let mut command = Command::new(program);
    command
        .args(before)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut browser) = command.spawn() else {
        return false;
    };
    // Some stay as long as the browser does, and live on when we end.
    std::thread::spawn(move || browser.wait());
    true
}

/// An amount in dollars as whole cents.
pub(super) fn whole_cents(text: &str) -> Result<i64, String> {
    let nanos = Nanos::parse_dollars(text).map_err(|error| error.to_string())?;
    nanos
        .whole_cents()
        .ok_or_else(|| "an amount in whole cents, like 20 or 20.50".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_in_whole_cents() {
        for (text, cents) in [
            ("20", 2000),
            ("$20", 2000),
            ("20.5", 2050),
            ("0.01", 1),
            ("10000", 1_000_000),
        ] {
            assert_eq!(whole_cents(text), Ok(cents), "{text}");
        }
        for bad in ["", "x", "0.001", "1e3", "20.505"] {
            assert!(whole_cents(bad).is_err(), "{bad}");
        }
    }
}
