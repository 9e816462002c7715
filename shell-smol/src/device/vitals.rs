//! The device's load, as its heartbeats report it: from `/proc` and the file system, without a
//! library and without a graphics processor.
//!
//! # Invariants
//!
//! 1. A graphics processor is absent, never zero: this shell does not look for one. (The wire has
//!    no such choice for processors, memory and disk: where the system does not tell, they are 0.0.)
//! 2. Every fraction is from 0.0 to 1.0.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::wire::message::Vitals;

/// When the load is measured first.
pub const FIRST_SAMPLE_AFTER: Duration = Duration::from_millis(200);
/// How often it is measured then.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Measures the load of this machine.
#[derive(Debug)]
pub struct Sampler {
    folder: PathBuf,
    before: Option<Ticks>,
}

impl Sampler {
    /// Counts the processors' load from now on. The disk is the one that holds `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            before: proc("stat").as_deref().and_then(Ticks::read),
        }
    }

    /// Measures now; the processors' load is the mean since the last measurement.
    ///
    /// `active_sessions` and `pending_queries` are the host's to fill in.
    pub fn sample(&mut self) -> Vitals {
        let now = proc("stat").as_deref().and_then(Ticks::read);
        let cpu = match (self.before, now) {
            (Some(before), Some(now)) => now.busy_since(before),
            (Some(_), None) | (None, _) => None,
        };
        self.before = now.or(self.before);
        let memory = proc("meminfo").as_deref().and_then(memory_in_use);
        Vitals {
            cpu_usage: cpu.unwrap_or(0.0),
            memory_usage: memory.unwrap_or(0.0),
            disk_usage: disk_in_use(&self.folder).unwrap_or(0.0),
            ..Vitals::default()
        }
    }
}

/// Times of all processors together since the machine started, clock ticks (proc_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    total: u64,
}

impl Ticks {
    /// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; what
    /// follows them is counted in the first two already.
    fn read(stat: &str) -> Option<Self> {
        let numbers = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = numbers
            .split_whitespace()
            .take(8)
            .map_while(|word| word.parse().ok())
            .collect();
        let idle = ticks.get(3)?.saturating_add(*ticks.get(4).unwrap_or(&0));
        let total = ticks.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
        Some(Self { idle, total })
    }

    fn busy_since(self, before: Self) -> Option<f32> {
        let total = self.total.saturating_sub(before.total);
        let idle = self.idle.saturating_sub(before.idle);
        fraction(total.saturating_sub(idle), total)
    }
}

/// What `/proc/meminfo` says is not available, of all memory.
fn memory_in_use(meminfo: &str) -> Option<f32> {
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (total, available) = (kib("MemTotal:")?, kib("MemAvailable:")?);
    fraction(total.saturating_sub(available), total)
}

/// The fullness of the file system that holds the folder.
fn disk_in_use(folder: &Path) -> Option<f32> {
    let fs = rustix::fs::statvfs(folder).ok()?;
    fraction(fs.f_blocks.saturating_sub(fs.f_bavail), fs.f_blocks)
}

fn proc(name: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc").join(name)).ok()
}

/// `part` of `whole`, 0.0–1.0; nothing of nothing is unknown.
fn fraction(part: u64, whole: u64) -> Option<f32> {
    (whole > 0).then(|| ((part as f64 / whole as f64) as f32).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_load_is_made_of_fractions_that_may_be_sent() {
        let vitals = Sampler::new(&std::env::temp_dir()).sample();
        assert_eq!(mesh_core::vitals::validate(&vitals), Ok(()));
        #[cfg(target_os = "linux")]
        assert!(vitals.memory_usage > 0.0, "{vitals:?}");
    }

    #[test]
    fn the_processors_load_is_what_was_not_idle_between_two_looks() {
        // 400 ticks more in all, of which 280 idle and 20 waiting for a disk: 100 busy.
        let before = Ticks::read("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3 4\n").unwrap();
        let after = Ticks::read("cpu  150 0 90 1080 70 5 5 0 33 0\n").unwrap();
        assert_eq!(after.busy_since(before), Some(0.25));
        assert_eq!(after.busy_since(after), None);
        // A clock of the kernel that went back is no load.
        assert_eq!(before.busy_since(after), None);
        assert_eq!(Ticks::read("intr 1 2 3"), None);
    }

    #[test]
    fn memory_that_the_system_would_free_at_once_is_not_in_use() {
        let meminfo = "MemTotal:        8000 kB\nMemFree:  100 kB\nMemAvailable:    6000 kB\n";
        assert_eq!(memory_in_use(meminfo), Some(0.25));
        assert_eq!(memory_in_use("MemTotal: 8000 kB\n"), None);
    }
}
