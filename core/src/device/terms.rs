//! What a device's owner may set of how it behaves, with defaults that fit.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::limits;

/// In the environment of a device, before its file: [`Terms::silence`], whole seconds.
pub const SILENCE_VARIABLE: &str = "SYNESIS_TUNNEL_SILENCE";
/// The same of [`Terms::idle`].
pub const IDLE_VARIABLE: &str = "SYNESIS_ANSWER_IDLE";

/// See the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a session that does not answer is probed before another is sought beside it.
    pub silence: Duration,
    /// Between two heartbeats at most, whatever the gateway says; within the bounds of [`limits`].
    pub beat_max: Duration,
    /// How long nothing may come of an answer that has begun while its tunnel lives.
    pub idle: Duration,
    /// Whether questions are to outlive the device's process: what there is to keep of them is said
    /// by [`Output::Keep`](super::Output::Keep).
    pub keeps: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            silence: limits::HALF_OPEN_SILENCE,
            beat_max: limits::HEARTBEAT_EVERY_MAX,
            idle: limits::ANSWER_IDLE,
            keeps: false,
        }
    }
}

/// A setting is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is whole seconds from {} to {}", allowed.start(), allowed.end())]
pub struct BadTerm {
    name: &'static str,
    allowed: RangeInclusive<u64>,
}

impl Terms {
    /// Sets [`Self::silence`].
    ///
    /// # Errors
    ///
    /// [`BadTerm`] outside of what is sensible: a session that the transport has given up is not
    /// probed any more.
    pub fn set_silence(&mut self, secs: u64) -> Result<(), BadTerm> {
        let allowed = 1..=limits::QUIC_IDLE_TIMEOUT.as_secs();
        self.silence = seconds("the tunnel's silence", secs, allowed)?;
        Ok(())
    }

    /// Sets [`Self::idle`].
    ///
    /// # Errors
    ///
    /// [`BadTerm`] outside of what is sensible: no answer takes longer in all.
    pub fn set_idle(&mut self, secs: u64) -> Result<(), BadTerm> {
        let allowed = limits::ANSWER_IDLE_MIN.as_secs()..=limits::ESCALATION_TOTAL.as_secs();
        self.idle = seconds("an answer's idle time", secs, allowed)?;
        Ok(())
    }

    /// What the environment says, over what was set before.
    ///
    /// # Errors
    ///
    /// [`BadTerm`].
    pub fn with_environment(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, BadTerm> {
        if let Some(text) = variable(SILENCE_VARIABLE) {
            // What is no number is outside of every range.
            self.set_silence(text.trim().parse().unwrap_or(0))?;
        }
        if let Some(text) = variable(IDLE_VARIABLE) {
            self.set_idle(text.trim().parse().unwrap_or(0))?;
        }
        Ok(self)
    }
}

fn seconds(
    name: &'static str,
    secs: u64,
    allowed: RangeInclusive<u64>,
) -> Result<Duration, BadTerm> {
    if allowed.contains(&secs) {
        Ok(Duration::from_secs(secs))
    } else {
        Err(BadTerm { name, allowed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_sensible_time_is_refused_with_what_would_be() {
        let with = |variable: &str, text: &str| {
            Terms::default().with_environment(|name| (name == variable).then(|| text.to_owned()))
        };
        let three = Duration::from_secs(3);
        assert_eq!(with(SILENCE_VARIABLE, "3").map(|t| t.silence), Ok(three));
        assert_eq!(with(IDLE_VARIABLE, " 3 ").map(|t| t.idle), Ok(three));
        for bad in ["0", "601", "-1", "soon", "", "3.5"] {
            let words = with(SILENCE_VARIABLE, bad).unwrap_err().to_string();
            assert_eq!(words, "the tunnel's silence is whole seconds from 1 to 120");
            let words = with(IDLE_VARIABLE, bad).unwrap_err().to_string();
            assert_eq!(
                words,
                "an answer's idle time is whole seconds from 1 to 600"
            );
        }
        let nothing = Terms::default().with_environment(|_| None);
        assert_eq!(nothing, Ok(Terms::default()));
    }
}
