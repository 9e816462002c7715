//! Timing, medians and tables.
//!
//! # Invariants
//!
//! 1. Contenders take turns within each round, and the order turns round with every round, so that
//!    nobody always runs on a warm or a throttled machine.
//! 2. The first round of each contender is thrown away.
//! 3. A figure is the median of its rounds; the spread is printed with it.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What one round took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// On the clock.
    pub wall: Duration,
    /// On all processors together, user and system, of this process.
    pub cpu: Duration,
}

/// The processor time of this process so far, user and system, all threads
/// (`CLOCK_PROCESS_CPUTIME_ID`, POSIX.1).
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// Runs a piece of work and says what it took.
pub fn measure(work: impl FnOnce()) -> Sample {
    let (wall, cpu) = (Instant::now(), cpu_time());
    work();
    Sample {
        wall: wall.elapsed(),
        cpu: cpu_time().saturating_sub(cpu),
    }
}

/// One of those that are compared: a name, and the work of one round.
pub struct Contender<'a> {
    name: &'static str,
    work: Box<dyn FnMut() + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender whose rounds all do the same work.
    #[must_use]
    pub fn new(name: &'static str, work: impl FnMut() + 'a) -> Self {
        Self {
            name,
            work: Box::new(work),
        }
    }
}

impl fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Contender").field(&self.name).finish()
    }
}

/// The rounds of one contender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// Whose.
    pub name: &'static str,
    /// One for each round, in their order.
    pub samples: Vec<Sample>,
}

impl Rounds {
    /// The median on the clock.
    #[must_use]
    pub fn wall(&self) -> Duration {
        median(self.samples.iter().map(|sample| sample.wall))
    }

    /// The median of the processor time.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        median(self.samples.iter().map(|sample| sample.cpu))
    }

    /// Half of the way from the first to the third quartile, on the clock, as a part of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let mut walls: Vec<Duration> = self.samples.iter().map(|sample| sample.wall).collect();
        walls.sort_unstable();
        let quartile = |n: usize| walls.get(walls.len() * n / 4).copied().unwrap_or_default();
        let half = quartile(3).saturating_sub(quartile(1)) / 2;
        ratio(half, self.wall())
    }
}

/// Lets the contenders take turns for so many counted rounds.
pub fn take_turns(rounds: usize, contenders: &mut [Contender<'_>]) -> Vec<Rounds> {
    let mut results: Vec<Rounds> = contenders
        .iter()
        .map(|contender| Rounds {
            name: contender.name,
            samples: Vec::with_capacity(rounds),
        })
        .collect();
    let count = contenders.len();
    for round in 0..=rounds {
        for turn in 0..count {
            let who = (turn + round) % count;
            let sample = measure(&mut contenders[who].work);
            if round > 0 {
                results[who].samples.push(sample);
            }
        }
    }
    results
}

/// The middle one, the later of two middle ones; zero of none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = Duration>) -> Duration {
    let mut values: Vec<Duration> = values.into_iter().collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// `a ÷ b`; infinite for a zero `b`.
#[must_use]
pub fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// A table as Markdown, columns lined up; the first column left, the others right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|&heading| heading.to_owned()).collect();
        Self {
            rows: vec![headings],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
                .max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                if column == 0 {
                    write!(f, "| {cell:<width$} ")?;
                } else {
                    write!(f, "| {cell:>width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width - 1);
                    if column == 0 {
                        write!(f, "| {dashes}- ")?;
                    } else {
                        write!(f, "| {dashes}: ")?;
                    }
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// The machine in a line: processor, cores, system.
#[must_use]
pub fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        line.and_then(|line| {
            line.split_once(':')
                .map(|(_, value)| value.trim().to_owned())
        })
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{processor}, {cores} cores, {}", std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let ms = |values: &[u64]| median(values.iter().map(|&n| Duration::from_millis(n)));
        assert_eq!(ms(&[9, 1, 5]), Duration::from_millis(5));
        assert_eq!(ms(&[4, 1, 3, 2]), Duration::from_millis(3));
        assert_eq!(ms(&[]), Duration::ZERO);
    }

    #[test]
    fn contenders_take_turns_and_the_first_round_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let results = take_turns(
            2,
            &mut [
                Contender::new("a", || order.borrow_mut().push('a')),
                Contender::new("b", || order.borrow_mut().push('b')),
            ],
        );
        assert_eq!(*order.borrow(), "abbaab");
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(|rounds| rounds.samples.len() == 2));
    }

    #[test]
    fn a_table_lines_up() {
        let mut table = Table::new(&["frames", "MB/s"]);
        table.row(["100 B".to_owned(), "1234".to_owned()]);
        assert_eq!(
            table.to_string(),
            "| frames | MB/s |\n| ------ | ---: |\n| 100 B  | 1234 |\n"
        );
    }

    #[test]
    fn processor_time_passes_with_work() {
        let sample = measure(|| {
            let from = cpu_time();
            while cpu_time().saturating_sub(from) < Duration::from_millis(2) {}
        });
        assert!(sample.cpu >= Duration::from_millis(2));
    }
}
