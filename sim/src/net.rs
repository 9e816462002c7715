//! Links: what happens to a datagram between a device and a gateway.
//!
//! Per direction, in this order: MTU → partition → loss (independent, in bursts) → bandwidth and
//! queue → delay → reordering, duplication, corruption. Address translation is in [`Nat`].

use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::queue::Micros;

/// Loss in bursts (E. N. Gilbert, 1960; E. O. Elliott, 1963): two states, and the chance to lose a
/// datagram in the bad one. All in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bursts {
    /// To go from good to bad, at each datagram.
    pub enter_ppm: u32,
    /// To go back.
    pub leave_ppm: u32,
    /// To lose a datagram in the bad state.
    pub loss_ppm: u32,
}

/// One direction of a link. Zero means: none of it, or no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Propagation, µs.
    pub latency_us: Micros,
    /// The mean of what queues elsewhere add, exponentially distributed, µs. Keeps the order.
    pub jitter_us: Micros,
    /// Independent loss.
    pub loss_ppm: u32,
    /// Loss in bursts.
    pub bursts: Bursts,
    /// Bytes a second.
    pub bytes_per_s: u64,
    /// What the queue before it holds, bytes; over it: lost.
    pub queue_bytes: u64,
    /// Chance that a datagram is held back by [`Link::reorder_us`], so that later ones overtake it.
    pub reorder_ppm: u32,
    /// How long, µs.
    pub reorder_us: Micros,
    /// Chance that it arrives twice.
    pub duplicate_ppm: u32,
    /// Chance that one bit of it is flipped.
    pub corrupt_ppm: u32,
    /// Larger datagrams vanish.
    pub mtu: u32,
}

impl Link {
    /// A link that only takes time.
    #[must_use]
    pub const fn of_latency(latency_us: Micros) -> Self {
        Self {
            latency_us,
            jitter_us: 0,
            loss_ppm: 0,
            bursts: Bursts {
                enter_ppm: 0,
                leave_ppm: 0,
                loss_ppm: 0,
            },
            bytes_per_s: 0,
            queue_bytes: 0,
            reorder_ppm: 0,
            reorder_us: 0,
            duplicate_ppm: 0,
            corrupt_ppm: 0,
            mtu: 0,
        }
    }

    /// The longest that a datagram can take which is not lost, µs; `None` where datagrams are lost
    /// for other reasons than a full queue.
    #[must_use]
    pub const fn longest_us(&self) -> Option<Micros> {
        if self.loss_ppm > 0 || self.bursts.enter_ppm > 0 || self.corrupt_ppm > 0 || self.mtu > 0 {
            return None;
        }
        let queue = match (self.queue_bytes * 1_000_000).checked_div(self.bytes_per_s) {
            Some(drains) => drains,
            None => 0,
        };
        Some(self.latency_us + 8 * self.jitter_us + self.reorder_us + queue)
    }
}

/// Why a datagram did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Larger than the path takes.
    TooLarge,
    /// The direction is cut.
    Cut,
    /// By chance.
    Chance,
    /// The queue was full.
    Queue,
}

/// When a datagram arrives, perhaps twice, perhaps damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Virtual µs.
    pub at: Micros,
    /// The second time.
    pub again: Option<Micros>,
    /// Which bit is flipped.
    pub damaged_bit: Option<u64>,
}

/// One direction at work.
#[derive(Clone, Debug)]
pub struct Pipe {
    link: Link,
    chance: Chance,
    cut: bool,
    in_burst: bool,
    /// When the bottleneck has sent what is before it.
    free_at: Micros,
    /// Nothing overtakes by jitter alone.
    latest: Micros,
    /// Datagrams that the full queue dropped.
    dropped: u64,
}

impl Pipe {
    /// A direction with its own chance.
    #[must_use]
    pub const fn new(link: Link, chance: Chance) -> Self {
        Self {
            link,
            chance,
            cut: false,
            in_burst: false,
            free_at: 0,
            latest: 0,
            dropped: 0,
        }
    }

    /// How it is now.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// See [`Link::longest_us`].
    #[must_use]
    pub const fn longest_us(&self) -> Option<Micros> {
        self.link.longest_us()
    }

    /// Datagrams that its full queue has dropped.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Changes it.
    pub const fn set(&mut self, link: Link) {
        self.link = link;
    }

    /// Cuts it, or heals it.
    pub const fn cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Sends `bytes` in at `now`.
    ///
    /// # Errors
    ///
    /// Why it will not arrive.
    pub fn carry(&mut self, now: Micros, bytes: usize) -> Result<Passage, Lost> {
        let link = self.link;
        let bytes = bytes as u64;
        if link.mtu > 0 && bytes > u64::from(link.mtu) {
            return Err(Lost::TooLarge);
        }
        if self.cut {
            return Err(Lost::Cut);
        }
        if self.is_lost() {
            return Err(Lost::Chance);
        }
        let sent = self.through_the_queue(now, bytes)?;
        let arrives = sent + link.latency_us + self.chance.exponential(link.jitter_us);
        let held_back = self.chance.happens(link.reorder_ppm);
        let at = if held_back {
            arrives + link.reorder_us
        } else {
            self.latest = self.latest.max(arrives);
            self.latest
        };
        let again = self
            .chance
            .happens(link.duplicate_ppm)
            .then(|| at + 1 + self.chance.below(link.latency_us.max(1)));
        let damaged_bit = self
            .chance
            .happens(link.corrupt_ppm)
            .then(|| self.chance.below(bytes * 8));
        Ok(Passage {
            at,
            again,
            damaged_bit,
        })
    }

    fn is_lost(&mut self) -> bool {
        let Bursts {
            enter_ppm,
            leave_ppm,
            loss_ppm,
        } = self.link.bursts;
        if enter_ppm > 0 {
            let turn = if self.in_burst { leave_ppm } else { enter_ppm };
            self.in_burst ^= self.chance.happens(turn);
            if self.in_burst && self.chance.happens(loss_ppm) {
                return true;
            }
        }
        self.chance.happens(self.link.loss_ppm)
    }

    /// When the bottleneck has sent it.
    fn through_the_queue(&mut self, now: Micros, bytes: u64) -> Result<Micros, Lost> {
        let rate = self.link.bytes_per_s;
        if rate == 0 {
            return Ok(now);
        }
        let waiting = self.free_at.saturating_sub(now) * rate / 1_000_000;
        if self.link.queue_bytes > 0 && waiting + bytes > self.link.queue_bytes {
            self.dropped += 1;
            return Err(Lost::Queue);
        }
        self.free_at = self.free_at.max(now) + bytes * 1_000_000 / rate;
        Ok(self.free_at)
    }
}

/// A device's address as gateways see it. A translator gives out a port, and forgets it when nothing
/// was sent for a while.
#[derive(Clone, Debug)]
pub struct Nat {
    expiry_us: Micros,
    port: u16,
    used: Micros,
}

impl Nat {
    /// A translator that forgets after so long; zero: never.
    #[must_use]
    pub const fn new(expiry_us: Micros) -> Self {
        Self {
            expiry_us,
            port: 1,
            used: 0,
        }
    }

    /// The port of a datagram that goes out now.
    pub const fn out(&mut self, now: Micros) -> u16 {
        if self.is_forgotten(now) {
            self.rebind();
        }
        self.used = now;
        self.port
    }

    /// Whether a datagram to `port` is let in now.
    #[must_use]
    pub const fn lets_in(&self, now: Micros, port: u16) -> bool {
        port == self.port && !self.is_forgotten(now)
    }

    /// Gives the next datagram another port.
    pub const fn rebind(&mut self) {
        self.port = if self.port == u16::MAX {
            1
        } else {
            self.port + 1
        };
    }

    const fn is_forgotten(&self, now: Micros) -> bool {
        self.expiry_us > 0 && now.saturating_sub(self.used) > self.expiry_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(link: Link) -> Pipe {
        Pipe::new(link, Chance::from_number(1))
    }

    #[test]
    fn a_queue_delays_what_waits_and_drops_what_does_not_fit() {
        // 1 000 bytes a second: each 500 bytes take half a second; 1 000 bytes may wait.
        let mut pipe = pipe(Link {
            bytes_per_s: 1000,
            queue_bytes: 1000,
            ..Link::of_latency(10)
        });
        let sent: Vec<_> = (0..3).map(|_| pipe.carry(0, 500).map(|p| p.at)).collect();
        assert_eq!(sent, [Ok(500_010), Ok(1_000_010), Err(Lost::Queue)]);
        assert_eq!(pipe.carry(600_000, 500).map(|p| p.at), Ok(1_500_010));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let mut steady = pipe(Link {
            jitter_us: 5000,
            ..Link::of_latency(1000)
        });
        let arrivals: Vec<_> = (0..200)
            .filter_map(|n| steady.carry(n, 100).ok())
            .map(|passage| passage.at)
            .collect();
        assert!(arrivals.is_sorted());
        let mut unruly = pipe(Link {
            reorder_ppm: 200_000,
            reorder_us: 5000,
            ..Link::of_latency(1000)
        });
        let arrivals: Vec<_> = (0..200)
            .filter_map(|n| unruly.carry(n, 100).ok())
            .map(|passage| passage.at)
            .collect();
        assert!(!arrivals.is_sorted());
    }

    #[test]
    fn bursts_lose_in_a_row() {
        let mut pipe = pipe(Link {
            bursts: Bursts {
                enter_ppm: 10_000,
                leave_ppm: 100_000,
                loss_ppm: 1_000_000,
            },
            ..Link::default()
        });
        let lost: Vec<bool> = (0..20_000).map(|n| pipe.carry(n, 1).is_err()).collect();
        let losses = lost.iter().filter(|&&lost| lost).count();
        let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        // Mean share bad: 1/11 of 20 000 ≈ 1 818, in runs of 10 on average.
        assert!((1200..2500).contains(&losses), "{losses}");
        assert!(losses / runs.max(1) >= 6, "{losses} losses in {runs} runs");
    }

    #[test]
    fn a_translator_forgets_and_lets_the_old_port_in_no_more() {
        let mut nat = Nat::new(30);
        let port = nat.out(0);
        assert!(nat.lets_in(30, port) && !nat.lets_in(31, port));
        let next = nat.out(40);
        assert_ne!(port, next);
        assert!(nat.lets_in(41, next) && !nat.lets_in(41, port));
    }
}
