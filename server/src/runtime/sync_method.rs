//! How log writes are made durable, chosen by what the disk shows.
//!
//! Measured (bench/results, `disk-*.md`): a direct write-through (RWF_DSYNC) costs less than half
//! of any other method as long as the processor that serves the disk's interrupt has time. When
//! that one is kept busy, by whomever, each such write waits for the kernel's next tick: 4 ms
//! instead of 0.15. A write with a data sync linked to it costs twice the processor time and does
//! not care. So: write through, watch how long it takes, and change over while that is too long.
//!
//! Invariants:
//! - Both methods are durable when they complete; the choice only moves cost and latency.

use std::time::Duration;

use super::reactor::Durability;

/// A write-through that takes longer than this was held up by a tick: no disk that is worth a log
/// is that slow, and one that is loses nothing by the other method.
const SLOW_FROM: Duration = Duration::from_micros(1500);
/// More slow ones than this of the last 32, and the method changes. One that waits for a tick costs
/// as much time as the other method costs in a hundred writes.
const SLOW_OF_LAST_MAX: u32 = 1;
/// How long the other method is kept before write-through is tried again.
const AVOID_FOR: Duration = Duration::from_millis(500);
/// Trials that fail in a row double that, up to this many times.
const DOUBLINGS_MAX: u32 = 6;

/// Chooses between the two methods.
#[derive(Debug, Default)]
pub struct SyncMethod {
    /// One bit for each of the last writes through: slow.
    slow: u32,
    avoid_until: Option<Duration>,
    failures: u32,
    seen: u32,
}

impl SyncMethod {
    /// The method for a write that begins now.
    #[must_use]
    pub fn choose(&self, now: Duration) -> Durability {
        match self.avoid_until {
            Some(until) if now < until => Durability::WriteThenSync,
            _ => Durability::WriteThrough,
        }
    }

    /// A write through took so long.
    pub fn handle_write_through(&mut self, took: Duration, now: Duration) {
        self.slow = self.slow << 1 | u32::from(took >= SLOW_FROM);
        self.seen += 1;
        if self.slow.count_ones() > SLOW_OF_LAST_MAX {
            let doublings = self.failures.min(DOUBLINGS_MAX);
            self.avoid_until = Some(now + AVOID_FOR * 2u32.pow(doublings));
            self.failures += 1;
            (self.slow, self.seen) = (0, 0);
        } else if self.seen >= 64 {
            // It has held: the next trouble is a new one.
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(150);
    const TICK: Duration = Duration::from_millis(4);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_lone_slow_write_changes_nothing() {
        let mut method = SyncMethod::default();
        for millis in 0..100 {
            let took = if millis % 32 == 0 { TICK } else { FAST };
            method.handle_write_through(took, at(millis));
            assert_eq!(method.choose(at(millis)), Durability::WriteThrough);
        }
    }

    #[test]
    fn a_busy_interrupt_core_is_avoided_and_tried_again_ever_later() {
        let mut method = SyncMethod::default();
        let fail = |method: &mut SyncMethod, now| {
            for _ in 0..=SLOW_OF_LAST_MAX {
                method.handle_write_through(TICK, now);
            }
        };
        fail(&mut method, at(0));
        assert_eq!(method.choose(at(499)), Durability::WriteThenSync);
        assert_eq!(method.choose(at(500)), Durability::WriteThrough);
        fail(&mut method, at(500));
        assert_eq!(method.choose(at(1499)), Durability::WriteThenSync);
        assert_eq!(method.choose(at(1500)), Durability::WriteThrough);
        for _ in 0..64 {
            method.handle_write_through(FAST, at(1500));
        }
        fail(&mut method, at(2000));
        assert_eq!(method.choose(at(2500)), Durability::WriteThrough);
    }
}
