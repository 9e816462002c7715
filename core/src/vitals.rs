//! A device's load: what may be sent of it, and when it means that a question is likely.
//!
//! # Invariants
//!
//! 1. What [`validate`] passes can be written as JSON and read by every gateway.
//! 2. There is at most one pre-warm signal in [`limits::PREWARM_EVERY`].

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use crate::limits;
use crate::wire::message::Vitals;

/// What is wrong with measured vitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVitals {
    /// A fraction that is none.
    #[error("{field} must be a number from 0.0 to 1.0; leave out what cannot be measured")]
    Fraction {
        /// Which field.
        field: &'static str,
    },
    /// A temperature that no GPU has.
    #[error("gpu_temp_celsius must be a number from -50 to 200; leave out what cannot be measured")]
    Temperature,
    /// A name too long to be sent every 30 s.
    #[error(
        "loaded_model has more than {} characters",
        limits::LOADED_MODEL_CHARS_MAX
    )]
    ModelName,
}

/// Measured vitals with what the agent itself knows: whose questions it has (`sessions`, each counts
/// once) and how many are under way.
#[must_use]
pub fn with_questions<'a>(
    vitals: Vitals,
    sessions: impl Iterator<Item = &'a str>,
    under_way: usize,
) -> Vitals {
    let sessions: BTreeSet<&str> = sessions.collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Vitals {
        active_sessions: count(sessions.len()),
        pending_queries: count(under_way),
        ..vitals
    }
}

/// Degrees Celsius that a sensor on a GPU may report.
const CELSIUS: std::ops::RangeInclusive<f32> = -50.0..=200.0;

/// Checks measured vitals before they are sent.
///
/// # Errors
///
/// The first field that is out of range, NaN or too long.
pub fn validate(vitals: &Vitals) -> Result<(), BadVitals> {
    for (field, value) in [
        ("cpu_usage", Some(vitals.cpu_usage)),
        ("memory_usage", Some(vitals.memory_usage)),
        ("disk_usage", Some(vitals.disk_usage)),
        ("gpu_usage", vitals.gpu_usage),
        ("gpu_vram_usage", vitals.gpu_vram_usage),
    ] {
        // NaN is in no range.
        if value.is_some_and(|value| !(0.0..=1.0).contains(&value)) {
            return Err(BadVitals::Fraction { field });
        }
    }
    if vitals
        .gpu_temp_celsius
        .is_some_and(|celsius| !CELSIUS.contains(&celsius))
    {
        return Err(BadVitals::Temperature);
    }
    let name = vitals.loaded_model.as_deref().unwrap_or_default();
    if name.chars().count() > limits::LOADED_MODEL_CHARS_MAX {
        return Err(BadVitals::ModelName);
    }
    Ok(())
}

/// What was over its threshold. Its `Display` is the signal's reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strain {
    /// GPU load, 0.0–1.0, if it was over.
    pub gpu_usage: Option<f32>,
    /// GPU temperature in degrees Celsius, if it was over.
    pub gpu_celsius: Option<f32>,
}

impl fmt::Display for Strain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.gpu_usage, self.gpu_celsius) {
            (Some(usage), Some(celsius)) => {
                write!(f, "GPU at {:.0} % and {celsius:.0} °C", usage * 100.0)
            }
            (Some(usage), None) => write!(f, "GPU at {:.0} %", usage * 100.0),
            (None, Some(celsius)) => write!(f, "GPU at {celsius:.0} °C"),
            (None, None) => f.write_str("GPU"),
        }
    }
}

/// What is over its threshold, if anything is. Exactly the threshold is not over.
#[must_use]
pub fn strain(vitals: &Vitals) -> Option<Strain> {
    let over = |value: Option<f32>, threshold| value.filter(|&value| value > threshold);
    let gpu_usage = over(vitals.gpu_usage, limits::PREWARM_GPU_USAGE);
    let gpu_celsius = over(vitals.gpu_temp_celsius, limits::PREWARM_GPU_CELSIUS);
    (gpu_usage.is_some() || gpu_celsius.is_some()).then_some(Strain {
        gpu_usage,
        gpu_celsius,
    })
}

/// Decides on pre-warm signals, at most one a minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prewarm {
    last: Option<Instant>,
}

impl Prewarm {
    /// Whether to signal now; if so, the minute begins.
    pub fn decide(&mut self, now: Instant, vitals: &Vitals) -> Option<Strain> {
        let strain = strain(vitals)?;
        let rested = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= limits::PREWARM_EVERY);
        if !rested {
            return None;
        }
        self.last = Some(now);
        Some(strain)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::origin;

    fn gpu(usage: Option<f32>, celsius: Option<f32>) -> Vitals {
        Vitals {
            gpu_usage: usage,
            gpu_temp_celsius: celsius,
            ..Vitals::default()
        }
    }

    #[test]
    fn fractions_pass_from_zero_to_one_and_nothing_else_does() {
        for fine in [0.0, 0.5, 1.0] {
            assert_eq!(validate(&gpu(Some(fine), None)), Ok(()));
        }
        for bad in [f32::NAN, f32::INFINITY, -0.01, 1.01, 93.0] {
            let field = "gpu_usage";
            assert_eq!(
                validate(&gpu(Some(bad), None)),
                Err(BadVitals::Fraction { field })
            );
            let vitals = Vitals {
                cpu_usage: bad,
                ..Vitals::default()
            };
            let field = "cpu_usage";
            assert_eq!(validate(&vitals), Err(BadVitals::Fraction { field }));
        }
    }

    #[test]
    fn absurd_temperatures_and_endless_names_are_refused() {
        assert_eq!(validate(&gpu(None, Some(95.0))), Ok(()));
        for bad in [f32::NAN, -273.2, 5000.0] {
            assert_eq!(validate(&gpu(None, Some(bad))), Err(BadVitals::Temperature));
        }
        let named = |length| Vitals {
            loaded_model: Some("ä".repeat(length)),
            ..Vitals::default()
        };
        assert_eq!(validate(&named(128)), Ok(()));
        assert_eq!(validate(&named(129)), Err(BadVitals::ModelName));
    }

    #[test]
    fn strain_begins_above_the_threshold_and_says_what_it_is() {
        assert_eq!(strain(&gpu(Some(0.8), Some(80.0))), None);
        assert_eq!(strain(&gpu(None, None)), None);
        let words = |usage, celsius| strain(&gpu(usage, celsius)).map(|s| s.to_string());
        assert_eq!(words(Some(0.93), None).unwrap(), "GPU at 93 %");
        assert_eq!(words(Some(0.2), Some(81.0)).unwrap(), "GPU at 81 °C");
        assert_eq!(
            words(Some(0.81), Some(90.4)).unwrap(),
            "GPU at 81 % and 90 °C"
        );
    }

    #[test]
    fn there_is_one_signal_a_minute() {
        let t = origin();
        let hot = gpu(Some(0.95), None);
        let mut prewarm = Prewarm::default();
        assert!(prewarm.decide(t, &gpu(Some(0.1), None)).is_none());
        assert!(prewarm.decide(t, &hot).is_some());
        for (secs, signalled) in [
            (1, false),
            (59, false),
            (60, true),
            (119, false),
            (120, true),
        ] {
            let at = t + Duration::from_secs(secs);
            assert_eq!(prewarm.decide(at, &hot).is_some(), signalled, "{secs}");
        }
        // A rest in between does not begin the minute anew.
        let at = |secs| t + Duration::from_secs(secs);
        assert!(prewarm.decide(at(130), &gpu(Some(0.1), None)).is_none());
        assert!(prewarm.decide(at(140), &hot).is_none());
        assert!(prewarm.decide(at(180), &hot).is_some());
    }
}
