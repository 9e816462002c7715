//! `synesis cloud ping`: round trips through the tunnel, gateway's own work included.

use std::time::Duration;

use serde::Serialize;

use super::args::Ping;
use super::link::Link;
use super::output::span;
use super::{Scene, Stop};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    count: usize,
    min_us: u128,
    mean_us: u128,
    max_us: u128,
    all_us: Vec<u128>,
}

/// Pings.
pub(super) async fn run(ping: &Ping, scene: &Scene) -> Result<(), Stop> {
    let spinner = scene.output.spinner("connecting");
    let link = Link::open(scene).await?;
    drop(spinner);
    let mut spans = Vec::new();
    for number in 1..=ping.count {
        let span = link.ping().await?;
        spans.push(span);
        if !ping.json {
            scene
                .output
                .line(&format!("{number}: {}", super::output::span(span)))?;
        }
    }
    let path = link.path();
    link.close().await;
    let (min, mean, max) = figures(&spans);
    if ping.json {
        return scene.output.json(&Report {
            count: spans.len(),
            min_us: min.as_micros(),
            mean_us: mean.as_micros(),
            max_us: max.as_micros(),
            all_us: spans.iter().map(Duration::as_micros).collect(),
        });
    }
    scene.output.aside(&format!(
        "least {}, mean {}, most {} · {path}",
        span(min),
        span(mean),
        span(max)
    ));
    Ok(())
}

fn figures(spans: &[Duration]) -> (Duration, Duration, Duration) {
    let count = u32::try_from(spans.len()).unwrap_or(u32::MAX).max(1);
    let min = spans.iter().min().copied().unwrap_or_default();
    let max = spans.iter().max().copied().unwrap_or_default();
    (min, spans.iter().sum::<Duration>() / count, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_three_round_trips() {
        let spans = [30, 10, 20].map(Duration::from_millis);
        assert_eq!(
            figures(&spans),
            ([10, 20, 30].map(Duration::from_millis)).into()
        );
    }
}
