//! How long requests spend in each stage, in hdr histograms.
//!
//! A stage is measured once a turn or once a batch and weighted by the requests in it. Its core
//! records into a histogram of its own and hands it over about once a second; a scrape reads what
//! was handed over last.
//!
//! Invariants:
//! - The recording core never waits: while a scrape holds what was handed over, the core keeps its
//!   own and tries again at the next tick.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::cell::nanos;

/// What is told apart below this many nanoseconds.
const NANOS_MIN: u64 = 8;
/// What takes longer counts as this; a request has been given up by then.
const NANOS_MAX: u64 = 60_000_000_000;
/// Two digits: a value is within a hundredth, and a histogram takes 30 KiB.
const DIGITS: u8 = 2;
/// How often a core hands over what it has.
const HAND_OVER_EVERY: Duration = Duration::from_secs(1);
/// The quantiles speak of this long at least, and of twice as long at most.
const RECENT: Duration = Duration::from_secs(30);

/// A part of a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From the beginning of the turn in which its bytes came until its letter is written.
    Frontend,
    /// Until it is part of an entry that goes into the log.
    BatchWait,
    /// Until the log's core sees that the entry is durable.
    Wal,
    /// Evaluated, numbered and written into the trees.
    Apply,
    /// The view swapped, events and answers handed out.
    Publish,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 5] =
        [Self::Frontend, Self::BatchWait, Self::Wal, Self::Apply, Self::Publish];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::BatchWait => "batch_wait",
            Self::Wal => "wal",
            Self::Apply => "apply",
            Self::Publish => "publish",
        }
    }
}

/// What was handed over.
#[derive(Debug, Clone)]
pub struct StageCopy {
    /// Since the start.
    pub total: Histogram<u64>,
    /// The sum of all of it, in nanoseconds.
    pub sum_nanos: u64,
    recent: [Histogram<u64>; 2],
    turned_at: Duration,
}

impl StageCopy {
    /// Nothing yet.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            total: histogram(),
            sum_nanos: 0,
            recent: [histogram(), histogram()],
            turned_at: Duration::ZERO,
        }
    }

    /// The last minute, about.
    #[must_use]
    pub fn recent(&self, now: Duration) -> Histogram<u64> {
        let mut both = histogram();
        // What a core has not turned over since then is older than it claims.
        let age = now.saturating_sub(self.turned_at);
        let live: &[Histogram<u64>] = match age {
            age if age < RECENT * 2 => &self.recent,
            age if age < RECENT * 3 => &self.recent[..1],
            _ => &[],
        };
        for part in live {
            both.add(part).expect("all histograms have the same bounds");
        }
        both
    }

    /// Adds what another core handed over, without its recent part.
    pub fn add_total(&mut self, other: &Self) {
        self.total.add(&other.total).expect("all histograms have the same bounds");
        self.sum_nanos = self.sum_nanos.wrapping_add(other.sum_nanos);
    }

    fn take(&mut self, live: &Histogram<u64>, sum_nanos: u64, now: Duration) {
        let age = now.saturating_sub(self.turned_at);
        if age >= RECENT {
            self.turned_at = now;
            self.recent.swap(0, 1);
            self.recent[0].reset();
        }
        if age >= RECENT * 2 {
            self.recent[1].reset();
        }
        self.recent[0].add(live).expect("all histograms have the same bounds");
        self.total.add(live).expect("all histograms have the same bounds");
        self.sum_nanos = self.sum_nanos.wrapping_add(sum_nanos);
    }
}

/// Where a core hands over, and a scrape reads.
#[derive(Debug)]
pub struct StageSlot(Mutex<StageCopy>);

impl Default for StageSlot {
    fn default() -> Self {
        Self(Mutex::new(StageCopy::empty()))
    }
}

impl StageSlot {
    /// A copy of what was handed over.
    #[must_use]
    pub fn copy(&self) -> StageCopy {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One stage on one core.
#[derive(Debug)]
pub struct StageLatency {
    live: Histogram<u64>,
    sum_nanos: u64,
    slot: Arc<StageSlot>,
    handed_over: Duration,
}

impl StageLatency {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(slot: Arc<StageSlot>) -> Self {
        Self { live: histogram(), sum_nanos: 0, slot, handed_over: Duration::ZERO }
    }

    /// So many requests took so long.
    #[inline]
    pub fn record(&mut self, duration: Duration, requests: u64) {
        let nanos = nanos(duration);
        self.live.saturating_record_n(nanos, requests);
        self.sum_nanos = self.sum_nanos.wrapping_add(nanos.wrapping_mul(requests));
    }

    /// Time passed.
    pub fn handle_tick(&mut self, now: Duration) {
        if self.live.is_empty() || now.saturating_sub(self.handed_over) < HAND_OVER_EVERY {
            return;
        }
        let Ok(mut copy) = self.slot.0.try_lock() else { return };
        copy.take(&self.live, self.sum_nanos, now);
        drop(copy);
        self.live.reset();
        self.sum_nanos = 0;
        self.handed_over = now;
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(NANOS_MIN, NANOS_MAX, DIGITS).expect("the bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_held_slot_makes_its_core_keep_what_it_has() {
        let slot = Arc::new(StageSlot::default());
        let mut latency = StageLatency::new(Arc::clone(&slot));
        latency.record(Duration::from_micros(90), 5);
        let held = slot.0.lock().unwrap();
        latency.handle_tick(seconds(2));
        assert_eq!(held.total.len(), 0);
        drop(held);
        latency.handle_tick(seconds(3));
        let copy = slot.copy();
        assert_eq!((copy.total.len(), copy.sum_nanos), (5, 450_000));
        assert!(copy.total.equivalent(copy.total.max(), 90_000));
    }

    #[test]
    fn quantiles_forget_and_totals_do_not() {
        let slot = Arc::new(StageSlot::default());
        let mut latency = StageLatency::new(Arc::clone(&slot));
        latency.record(seconds(1), 1);
        latency.handle_tick(seconds(1));
        assert_eq!(slot.copy().recent(seconds(2)).len(), 1);
        // Nobody came for a long time: what is old is not called recent.
        assert_eq!(slot.copy().recent(seconds(200)).len(), 0);
        latency.record(Duration::from_micros(1), 7);
        latency.handle_tick(seconds(40));
        assert_eq!(slot.copy().recent(seconds(41)).len(), 8);
        latency.record(Duration::from_micros(1), 7);
        latency.handle_tick(seconds(80));
        assert_eq!(slot.copy().recent(seconds(81)).len(), 14, "the second of the start is gone");
        assert_eq!(slot.copy().total.len(), 15);
    }

    #[test]
    fn what_takes_forever_is_counted_as_the_longest() {
        let slot = Arc::new(StageSlot::default());
        let mut latency = StageLatency::new(Arc::clone(&slot));
        latency.record(Duration::from_secs(1 << 40), 1);
        latency.handle_tick(seconds(1));
        assert_eq!(slot.copy().total.len(), 1);
    }
}
