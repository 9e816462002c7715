//! Making figures smaller: the faults of links, sizes, spans of time.

use super::Search;
use crate::net::{Bursts, Link};
use crate::plan::{Deed, DevicePlan, Happening, Plan, Timed, WALL_MS};
use crate::queue::{MILLI, Micros, SECOND};

/// How a calm link differs from a perfect one: it takes time.
const CALM_US: Micros = 10 * MILLI;
/// Faults strike at least so long: a world needs a moment to begin.
const FAULTS_LEAST: Micros = SECOND;
/// The healing comes at least so long after the last happening: what began after it would never end,
/// and the world would fail for another reason.
const HEALS_AFTER: Micros = SECOND;

/// One fault of a link: reads it and clears it.
type Fault = (fn(&Link) -> bool, fn(&mut Link));

const FAULTS: [Fault; 8] = [
    (|link| link.jitter_us > 0, |link| link.jitter_us = 0),
    (|link| link.loss_ppm > 0, |link| link.loss_ppm = 0),
    (
        |link| link.bursts != Bursts::default(),
        |link| link.bursts = Bursts::default(),
    ),
    (
        |link| link.bytes_per_s > 0 || link.queue_bytes > 0,
        |link| {
            link.bytes_per_s = 0;
            link.queue_bytes = 0;
        },
    ),
    (
        |link| link.reorder_ppm > 0 || link.reorder_us > 0,
        |link| {
            link.reorder_ppm = 0;
            link.reorder_us = 0;
        },
    ),
    (|link| link.duplicate_ppm > 0, |link| link.duplicate_ppm = 0),
    (|link| link.corrupt_ppm > 0, |link| link.corrupt_ppm = 0),
    (|link| link.mtu > 0, |link| link.mtu = 0),
];

/// Faults that are on before one device, its translator's forgetting among them.
pub(super) fn link_faults(device: &DevicePlan) -> usize {
    let on = |link: &Link| FAULTS.iter().filter(|(is_on, _)| is_on(link)).count();
    on(&device.up) + on(&device.down) + usize::from(device.nat_expiry_us > 0)
}

/// Calms the links: all at once, then device by device, then fault by fault.
pub(super) fn calm_links(search: &mut Search<'_>) {
    let calm = |device: &mut DevicePlan| {
        device.up = Link::of_latency(CALM_US);
        device.down = Link::of_latency(CALM_US);
        device.nat_expiry_us = 0;
    };
    if search.keep_change(|plan| plan.devices.iter_mut().for_each(calm)) {
        return;
    }
    for at in 0..search.plan.devices.len() {
        if search.keep_change(|plan| calm(&mut plan.devices[at])) {
            continue;
        }
        search.keep_change(|plan| plan.devices[at].nat_expiry_us = 0);
        for (_, clear) in FAULTS {
            search.keep_change(|plan| clear(&mut plan.devices[at].up));
            search.keep_change(|plan| clear(&mut plan.devices[at].down));
        }
    }
}

/// Makes every other figure smaller.
pub(super) fn smaller(search: &mut Search<'_>) {
    search.keep_change(|plan| plan.buggify = false);
    search.keep_change(|plan| plan.store_us = (100, 100));
    search.keep_change(|plan| plan.upstream_us = (MILLI, MILLI));
    search.keep_change(|plan| plan.wall_ms = WALL_MS);
    search.keep_change(|plan| plan.rates = None);
    let least = last_moment(&search.plan).map_or(FAULTS_LEAST, |last| last + HEALS_AFTER);
    lower(search, least, |plan| Some(&mut plan.faults_until));
    for at in 0..search.plan.happenings.len() {
        search.keep_change(|plan| {
            if let Some(Happening::Ask { upstream, .. }) = happening(plan, at) {
                upstream.troubles.clear();
            }
        });
        search.keep_change(|plan| {
            if let Some(Happening::Ask { context_bytes, .. }) = happening(plan, at) {
                *context_bytes = 0;
            }
        });
        lower_words(search, at);
        search.keep_change(|plan| {
            if let Some(Happening::Order { order, .. }) = happening(plan, at) {
                plain(order);
            }
        });
        let since = search.plan.happenings[at].at;
        lower(search, since + 1, |plan| {
            plan.happenings
                .get_mut(at)
                .and_then(|timed| until(&mut timed.what))
        });
    }
}

/// When the last thing happens or ends.
fn last_moment(plan: &Plan) -> Option<Micros> {
    let ends = |timed: &Timed| until(&mut timed.what.clone()).map_or(timed.at, |end| *end);
    plan.happenings
        .iter()
        .map(|timed| ends(timed).max(timed.at))
        .max()
}

/// Brings one time as near to `least` as it goes: at once, or by halves.
fn lower(
    search: &mut Search<'_>,
    least: Micros,
    figure: impl Fn(&mut Plan) -> Option<&mut Micros>,
) {
    // Below a second nothing is gained for whoever reads it.
    while let Some(now) = figure(&mut search.plan.clone()).map(|now| *now)
        && now > least
    {
        let halfway = least + (now - least) / 2;
        let mut set = |to: Micros| {
            search.keep_change(|plan| {
                if let Some(figure) = figure(plan) {
                    *figure = to;
                }
            })
        };
        if set(least) || now - least < SECOND || !set(halfway) {
            break;
        }
    }
}

fn lower_words(search: &mut Search<'_>, at: usize) {
    while let Some(&mut Happening::Ask { words: now, .. }) = happening(&mut search.plan.clone(), at)
        && now > 1
    {
        let mut set = |to: u32| {
            search.keep_change(|plan| {
                if let Some(Happening::Ask { words, .. }) = happening(plan, at) {
                    *words = to;
                }
            })
        };
        if set(1) || !set(now / 2) {
            break;
        }
    }
}

/// An order in round figures: a dollar, the whole charge.
const fn plain(order: &mut Deed) {
    const DOLLAR: i64 = 1_000_000_000;
    match order {
        Deed::Pay { nanos, .. }
        | Deed::Grant { nanos, .. }
        | Deed::Dispute { nanos, .. }
        | Deed::SetCeiling { nanos, .. } => *nanos = DOLLAR,
        Deed::Refund { share_ppm, .. } => *share_ppm = 1_000_000,
        Deed::SetTier { .. } => {}
    }
}

fn happening(plan: &mut Plan, at: usize) -> Option<&mut Happening> {
    plan.happenings.get_mut(at).map(|Timed { what, .. }| what)
}

/// The end of what lasts for a while.
const fn until(what: &mut Happening) -> Option<&mut Micros> {
    match what {
        Happening::Pause { until, .. }
        | Happening::Cut { until, .. }
        | Happening::SmallMtu { until, .. }
        | Happening::CrashDevice { until, .. }
        | Happening::Suspend { until, .. }
        | Happening::CrashGateway { until, .. }
        | Happening::StopGateway { until, .. }
        | Happening::DrainGateway { until, .. }
        | Happening::SlowStore { until, .. }
        | Happening::BrokenStore { until } => Some(until),
        Happening::Ask { .. }
        | Happening::Cancel { .. }
        | Happening::AskAgain { .. }
        | Happening::CrashAtEnd { .. }
        | Happening::Load { .. }
        | Happening::Rebind { .. }
        | Happening::Move { .. }
        | Happening::Skew { .. }
        | Happening::SkewGateway { .. }
        | Happening::Order { .. }
        | Happening::Revoke { .. }
        | Happening::Expire { .. } => None,
    }
}
