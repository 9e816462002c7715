use super::*;
use crate::draw;
use crate::plan::{Deed, Happening, Timed};

/// A large plan, whatever its seed: with several devices, gateways and kinds of fault.
fn large() -> Plan {
    let plan = (1..200).map(|seed| draw::plan(seed, "plain")).find(|plan| {
        let has = |wanted: fn(&Happening) -> bool| {
            plan.happenings.iter().any(|timed| wanted(&timed.what))
        };
        plan.devices.len() >= 6
            && plan.gateways >= 2
            && plan.happenings.len() > 60
            && has(|what| matches!(what, Happening::Suspend { device, .. } if *device > 1))
            && has(|what| matches!(what, Happening::CrashGateway { gateway: 0, .. }))
    });
    plan.unwrap_or_else(|| panic!("no seed draws a large plan"))
}

fn silently(_: &str, _: &Plan, _: u32) {}

#[test]
fn what_fails_by_a_suspend_and_a_crash_shrinks_to_these_two_alone() {
    let mut fails = |plan: &Plan| {
        let has = |wanted: fn(&Happening) -> bool| {
            plan.happenings.iter().any(|timed| wanted(&timed.what))
        };
        has(|what| matches!(what, Happening::Suspend { .. }))
            && has(|what| matches!(what, Happening::CrashGateway { .. }))
    };
    let shrunk = shrink(&large(), 10_000, &mut fails, &mut silently);
    assert!(!shrunk.cut_short);
    let plan = shrunk.plan;
    assert_eq!(plan.happenings.len(), 2, "{:?}", plan.happenings);
    assert_eq!((plan.devices.len(), plan.gateways), (1, 1));
    assert_eq!(plan.ceilings.len(), 1);
    assert_eq!(Size::of(&plan).link_faults, 0);
    assert!(!plan.buggify);
    let renamed = plan.happenings.iter().all(|timed| {
        let end = timed.at + 1;
        let suspend = Happening::Suspend {
            device: 0,
            until: end,
        };
        let crash = Happening::CrashGateway {
            gateway: 0,
            until: end,
        };
        timed.what == suspend || timed.what == crash
    });
    assert!(renamed, "{:?}", plan.happenings);
    let last = plan.happenings[1].at + 1;
    assert_eq!(plan.faults_until, last + 1_000_000, "heals after the last");
}

#[test]
fn what_fails_by_one_links_loss_keeps_that_fault_and_no_other() {
    let mut large = large();
    large.devices[3].down.loss_ppm = 70_000;
    for (at, device) in large.devices.iter_mut().enumerate() {
        if at != 3 {
            device.down.loss_ppm = device.down.loss_ppm.min(60_000);
        }
    }
    let mut fails = |plan: &Plan| plan.devices.iter().any(|own| own.down.loss_ppm == 70_000);
    let plan = shrink(&large, 10_000, &mut fails, &mut silently).plan;
    assert_eq!(plan.happenings, []);
    assert_eq!(Size::of(&plan).link_faults, 1);
    assert_eq!(plan.devices.len(), 1);
}

#[test]
fn sizes_halve_their_way_down_to_the_least_that_fails() {
    let mut fails = |plan: &Plan| plan.faults_until >= 20_000_000;
    let plan = shrink(&large(), 10_000, &mut fails, &mut silently).plan;
    assert!(plan.faults_until < 41_000_000, "{}", plan.faults_until);
    let mut fails = |plan: &Plan| {
        plan.happenings
            .iter()
            .any(|timed| matches!(timed.what, Happening::Ask { words, .. } if words >= 3))
    };
    let plan = shrink(&large(), 10_000, &mut fails, &mut silently).plan;
    assert_eq!(plan.happenings.len(), 1);
    assert!(
        matches!(plan.happenings[0].what, Happening::Ask { words: 3..=5, context_bytes: 0, ref upstream, .. } if upstream.troubles.is_empty())
    );
}

#[test]
fn orders_follow_their_account_and_go_with_it() {
    let pay = |account, payment| Timed {
        at: 5,
        what: Happening::Order {
            account,
            order: Deed::Pay {
                payment,
                nanos: 123,
            },
        },
    };
    let mut large = large();
    large.ceilings = vec![1, 2, 3];
    large
        .devices
        .iter_mut()
        .for_each(|device| device.account = 2);
    large.happenings = vec![pay(0, 1), pay(2, 2)];
    let mut fails = |plan: &Plan| {
        let of = |timed: &Timed| matches!(timed.what, Happening::Order { account, order: Deed::Pay { payment: 2, .. } } if plan.ceilings.get(account) == Some(&3));
        plan.happenings.iter().any(of) && !plan.devices.is_empty()
    };
    assert!(fails(&large));
    let plan = shrink(&large, 10_000, &mut fails, &mut silently).plan;
    assert_eq!((plan.ceilings, plan.devices.len()), (vec![3], 1));
    let pay = Deed::Pay {
        payment: 2,
        nanos: 1_000_000_000,
    };
    assert_eq!(
        plan.happenings[..],
        [Timed {
            at: 5,
            what: Happening::Order {
                account: 0,
                order: pay
            }
        }]
    );
}

#[test]
fn no_more_plans_are_run_than_the_budget_has_and_the_result_still_fails() {
    let mut ran = 0;
    let mut fails = |plan: &Plan| {
        ran += 1;
        plan.happenings.len() >= 10
    };
    let shrunk = shrink(&large(), 7, &mut fails, &mut silently);
    assert!(shrunk.cut_short && shrunk.plan.happenings.len() >= 10);
    assert_eq!((ran, shrunk.runs), (7, 7));
}

#[test]
fn leaving_out_is_minimal_for_scattered_causes() {
    // Zeller's example: of 1 to 8 (here 0 to 7) the first, seventh and eighth together fail.
    let needed = [0, 6, 7];
    let kept = ddmin(8, |kept| needed.iter().all(|at| kept.contains(at)));
    assert_eq!(kept, needed);
    assert!(ddmin(0, |_| true).is_empty());
    assert!(ddmin(5, |_| true).is_empty());
    assert_eq!(ddmin(3, |_| false), [0, 1, 2]);
}

/// The real simulator, under an invariant that is made up: nobody asks but the probes.
#[test]
fn a_world_that_is_run_shrinks_to_one_question() {
    let mut plan = draw::plan(3, "plain");
    // At the end every device that can pay asks once, to see that all is well: now each can.
    plan.ceilings.fill(100_000_000_000);
    let mut fails = |candidate: &Plan| {
        swarm::run(candidate, false).is_ok_and(|run| {
            run.finished.questions > candidate.devices.len() && run.finished.answered > 0
        })
    };
    assert!(fails(&plan));
    let shrunk = shrink(&plan, 150, &mut fails, &mut silently);
    assert!(fails(&shrunk.plan));
    let left = &shrunk.plan.happenings;
    assert!(
        matches!(left[..], [ref one] if matches!(one.what, Happening::Ask { .. })),
        "{left:?}"
    );
}
