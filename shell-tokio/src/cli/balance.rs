//! `synesis cloud balance`: what may be spent, and where it comes from.

use mesh_core::api::{Method, Params};
use mesh_core::billing::account::Summary;
use mesh_core::billing::money::Nanos;

use super::args::Balance;
use super::link::Link;
use super::output::Mark;
use super::status::tier;
use super::{Scene, Stop, moment};

/// Shows it.
pub(super) async fn run(balance: &Balance, scene: &Scene) -> Result<(), Stop> {
    let spinner = scene.output.spinner("asking the gateway");
    let link = Link::open(scene).await?;
    let asked = link.call(Method::AccountSummary, Params::NONE).await;
    drop(spinner);
    link.close().await;
    let account: Summary = asked?;
    if balance.json {
        return scene.output.json(&account);
    }
    let rows = rows(&account);
    let blocked = account.owed > Nanos::ZERO;
    scene.output.pairs(&rows, |row| {
        (row == 0).then_some(if blocked { Mark::Red } else { Mark::Green })
    })
}

fn rows(account: &Summary) -> Vec<(&'static str, String)> {
    let mut rows = vec![("available", account.available.to_string())];
    if account.owed > Nanos::ZERO {
        let owed = format!(
            "{}; nothing that costs can be asked until it is paid",
            account.owed
        );
        rows.push(("owed", owed));
    }
    if account.held > Nanos::ZERO {
        rows.push(("held", format!("{} for answers under way", account.held)));
    }
    for credit in &account.credits {
        let until = moment(credit.expires_at);
        rows.push(("credit", format!("{} until {until}", credit.left)));
    }
    if account.balance > Nanos::ZERO {
        rows.push(("paid in advance", account.balance.to_string()));
    }
    let month = format!(
        "{} of at most {} in {}",
        account.spent, account.ceiling, account.month
    );
    rows.push(("postpaid", month));
    if !account.next_invoice.is_zero() {
        let open = format!("{} as it stands", account.next_invoice);
        rows.push(("next invoice", open));
    }
    if account.invoiced > Nanos::ZERO {
        let last = account.last_invoice.as_deref().unwrap_or("the last month");
        let unpaid = format!("{} up to {last}, not collected", account.invoiced);
        rows.push(("invoiced", unpaid));
    }
    rows.push(("used", format!("{} at the provider's price", account.used)));
    rows.push(("tier", tier(account.tier)));
    rows
}

#[cfg(test)]
mod tests {
    use mesh_core::billing::account::Account;
    use mesh_core::billing::account::funds::Credit;
    use mesh_core::billing::account::order::Reference;
    use mesh_core::billing::tier::Tier;
    use mesh_core::time::UnixMillis;

    use super::*;

    #[test]
    fn what_is_owed_held_and_given_is_told_and_what_is_not_is_left_out() {
        let now = UnixMillis(1_795_000_000_000);
        let mut account = Account::new(Tier::MANAGED, Nanos(100_000_000_000));
        let names = |account: &Account| -> Vec<&str> {
            let summary = account.summary(now).unwrap();
            rows(&summary).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&account), ["available", "postpaid", "used", "tier"]);
        account.owed = Nanos(1);
        account.balance = Nanos(2);
        account.credits = vec![Credit {
            reference: Reference::new("gift").unwrap(),
            left: Nanos(1_500_000),
            expires_at: UnixMillis(1_798_761_600_000),
        }];
        let all = [
            "available",
            "owed",
            "credit",
            "paid in advance",
            "postpaid",
            "used",
            "tier",
        ];
        assert_eq!(names(&account), all);
        let told = rows(&account.summary(now).unwrap());
        assert_eq!(told[2].1, "$0.0015 until 2027-01-01T00:00:00Z");
    }
}
