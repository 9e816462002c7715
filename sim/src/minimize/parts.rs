//! Leaving things out whole: happenings, devices, gateways, accounts.

use super::{Search, ddmin};
use crate::plan::{Happening, Plan};

/// Leaves out happenings.
pub(super) fn happenings(search: &mut Search<'_>) {
    let whole = search.plan.clone();
    ddmin(whole.happenings.len(), |kept| {
        search.keep_if_failing(with_happenings(&whole, kept))
    });
}

fn with_happenings(whole: &Plan, kept: &[usize]) -> Plan {
    let happenings = kept
        .iter()
        .filter_map(|&index| whole.happenings.get(index).cloned())
        .collect();
    Plan {
        happenings,
        ..whole.clone()
    }
}

/// Leaves out devices, gateways, and accounts that nobody has.
pub(super) fn nodes(search: &mut Search<'_>) {
    let whole = search.plan.clone();
    ddmin(whole.devices.len(), |kept| {
        search.keep_if_failing(with_devices(&whole, kept))
    });
    let whole = search.plan.clone();
    // Without any gateway it is no world.
    ddmin(whole.gateways as usize, |kept| {
        !kept.is_empty() && search.keep_if_failing(with_gateways(&whole, kept))
    });
    search.keep_change(drop_unused_accounts);
}

/// Only the devices of these indices, numbered anew, with what happens to them.
fn with_devices(whole: &Plan, kept: &[usize]) -> Plan {
    let mut plan = whole.clone();
    plan.devices = kept
        .iter()
        .filter_map(|&index| whole.devices.get(index).cloned())
        .collect();
    plan.happenings
        .retain_mut(|timed| match device_of(&mut timed.what) {
            None => true,
            Some(device) => match kept.iter().position(|index| index == device) {
                None => false,
                Some(renamed) => {
                    *device = renamed;
                    true
                }
            },
        });
    plan
}

/// Only the gateways of these indices, numbered anew, with what happens to them.
fn with_gateways(whole: &Plan, kept: &[usize]) -> Plan {
    let mut plan = whole.clone();
    plan.gateways = u32::try_from(kept.len()).unwrap_or(u32::MAX);
    plan.happenings
        .retain_mut(|timed| match gateway_of(&mut timed.what) {
            None => true,
            Some(gateway) => match kept.iter().position(|index| index == gateway) {
                None => false,
                Some(renamed) => {
                    *gateway = renamed;
                    true
                }
            },
        });
    plan
}

fn drop_unused_accounts(plan: &mut Plan) {
    let used: Vec<usize> = (0..plan.ceilings.len())
        .filter(|&account| plan.devices.iter().any(|device| device.account == account))
        .collect();
    plan.ceilings = used
        .iter()
        .filter_map(|&account| plan.ceilings.get(account).copied())
        .collect();
    let renamed = |account: usize| used.iter().position(|&other| other == account);
    for device in &mut plan.devices {
        device.account = renamed(device.account).unwrap_or_default();
    }
    plan.happenings.retain_mut(|timed| {
        let Happening::Order { account, .. } = &mut timed.what else {
            return true;
        };
        renamed(*account).map(|to| *account = to).is_some()
    });
}

/// The device that something happens to.
const fn device_of(what: &mut Happening) -> Option<&mut usize> {
    match what {
        Happening::Ask { device, .. }
        | Happening::Cancel { device, .. }
        | Happening::AskAgain { device, .. }
        | Happening::Pause { device, .. }
        | Happening::Load { device, .. }
        | Happening::Cut { device, .. }
        | Happening::SmallMtu { device, .. }
        | Happening::Rebind { device }
        | Happening::Move { device }
        | Happening::CrashDevice { device, .. }
        | Happening::Suspend { device, .. }
        | Happening::Skew { device, .. }
        | Happening::Revoke { device }
        | Happening::Expire { device } => Some(device),
        Happening::CrashGateway { .. }
        | Happening::CrashAtEnd { .. }
        | Happening::StopGateway { .. }
        | Happening::DrainGateway { .. }
        | Happening::SkewGateway { .. }
        | Happening::Order { .. }
        | Happening::SlowStore { .. }
        | Happening::BrokenStore { .. } => None,
    }
}

/// The gateway that something happens to.
const fn gateway_of(what: &mut Happening) -> Option<&mut usize> {
    match what {
        Happening::CrashGateway { gateway, .. }
        | Happening::StopGateway { gateway, .. }
        | Happening::DrainGateway { gateway, .. }
        | Happening::SkewGateway { gateway, .. } => Some(gateway),
        Happening::Ask { .. }
        | Happening::Cancel { .. }
        | Happening::AskAgain { .. }
        | Happening::Pause { .. }
        | Happening::Load { .. }
        | Happening::Cut { .. }
        | Happening::SmallMtu { .. }
        | Happening::Rebind { .. }
        | Happening::Move { .. }
        | Happening::CrashDevice { .. }
        | Happening::Suspend { .. }
        | Happening::CrashAtEnd { .. }
        | Happening::Skew { .. }
        | Happening::Order { .. }
        | Happening::SlowStore { .. }
        | Happening::BrokenStore { .. }
        | Happening::Revoke { .. }
        | Happening::Expire { .. } => None,
    }
}
