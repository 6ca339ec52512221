//! Words that one core writes and anybody reads.
//!
//! Invariants:
//! - One thread writes a cell. The type cannot know; whoever owns the cells hands them to one core.
//! - A reader may see the words of a histogram a moment apart: a bucket without its sum, never a
//!   count that goes back.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only its owner changes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Two plain moves and an addition: an atomic addition would lock the line for writers
    /// that there are none of.
    #[inline]
    pub fn add(&self, number: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
    }

    /// Replaces the number.
    #[inline]
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of a histogram's buckets, in the smallest unit that is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// `first`, twice that, and so on.
    Doubling {
        /// The first bound.
        first: u64,
        /// How many there are.
        count: usize,
    },
    /// In ascending order.
    Listed(&'static [u64]),
}

impl Bounds {
    /// How many there are; one more bucket takes what lies above the last.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::Doubling { count, .. } => count,
            Self::Listed(list) => list.len(),
        }
    }

    /// One of them.
    #[must_use]
    pub fn bound(self, place: usize) -> u64 {
        match self {
            Self::Doubling { first, .. } => first << place,
            Self::Listed(list) => list[place],
        }
    }

    /// The bucket of a number: the first whose bound is not below it.
    #[inline]
    #[must_use]
    pub fn place(self, number: u64) -> usize {
        match self {
            Self::Doubling { first, .. } if number <= first => 0,
            Self::Doubling { first, count } => {
                let doublings = u64::BITS - ((number - 1) / first).leading_zeros();
                (doublings as usize).min(count)
            }
            Self::Listed(list) => list.partition_point(|bound| *bound < number),
        }
    }
}

/// How many words share a line of the cache.
const LINE_WORDS: usize = 8;

/// A line of the cache, so that what two cores write lies apart wherever it was allocated.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([Counter; LINE_WORDS]);

/// How often numbers fell between bounds that are fixed, and their sum.
#[derive(Debug)]
pub struct Distribution {
    bounds: Bounds,
    /// The sum, then the buckets.
    lines: Box<[Line]>,
}

impl Distribution {
    /// With these bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let words = bounds.count() + 2;
        let lines = (0..words.div_ceil(LINE_WORDS)).map(|_| Line::default()).collect();
        Self { bounds, lines }
    }

    #[inline]
    fn word(&self, place: usize) -> &Counter {
        &self.lines[place / LINE_WORDS].0[place % LINE_WORDS]
    }

    fn sum(&self) -> u64 {
        self.word(0).get()
    }

    fn buckets(&self) -> impl Iterator<Item = u64> {
        (1..self.bounds.count() + 2).map(|place| self.word(place).get())
    }

    /// A number was seen, so many times.
    #[inline]
    pub fn observe(&self, number: u64, times: u64) {
        self.word(1 + self.bounds.place(number)).add(times);
        self.word(0).add(number.wrapping_mul(times));
    }

    /// The same for a time, in nanoseconds.
    #[inline]
    pub fn observe_duration(&self, duration: std::time::Duration, times: u64) {
        self.observe(nanos(duration), times);
    }

    /// How many numbers were seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets().sum()
    }

    /// A copy to add up with others.
    #[must_use]
    pub fn copy(&self) -> DistributionCopy {
        let buckets = self.buckets().collect();
        DistributionCopy { bounds: self.bounds, buckets, sum: self.sum() }
    }
}

/// A distribution as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistributionCopy {
    /// Its bounds.
    pub bounds: Bounds,
    /// How many numbers fell into each bucket, one more than there are bounds.
    pub buckets: Vec<u64>,
    /// Their sum.
    pub sum: u64,
}

impl DistributionCopy {
    /// Nothing seen.
    #[must_use]
    pub fn empty(bounds: Bounds) -> Self {
        Self { bounds, buckets: vec![0; bounds.count() + 1], sum: 0 }
    }

    /// Adds what another core saw.
    pub fn add(&mut self, other: &Distribution) {
        assert!(self.bounds == other.bounds, "distributions of different bounds do not add up");
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets()) {
            *sum += bucket;
        }
        self.sum = self.sum.wrapping_add(other.sum());
    }

    /// How many numbers were seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A duration in nanoseconds; five hundred years are enough for all of them.
#[inline]
#[must_use]
pub fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_at_a_bound_belongs_below_it() {
        let doubling = Bounds::Doubling { first: 1000, count: 3 };
        let listed = Bounds::Listed(&[1000, 2000, 4000]);
        let cases = [
            (0, 0),
            (1, 0),
            (1000, 0),
            (1001, 1),
            (2000, 1),
            (2001, 2),
            (4000, 2),
            (4001, 3),
            (u64::MAX, 3),
        ];
        for (number, place) in cases {
            assert_eq!(doubling.place(number), place, "{number} among doublings");
            assert_eq!(listed.place(number), place, "{number} in the list");
        }
        assert_eq!([0, 1, 2].map(|place| doubling.bound(place)), [1000, 2000, 4000]);
    }

    #[test]
    fn distributions_of_cores_add_up() {
        let bounds = Bounds::Doubling { first: 10, count: 2 };
        let (one, other) = (Distribution::new(bounds), Distribution::new(bounds));
        one.observe(10, 3);
        other.observe(21, 1);
        let mut sum = one.copy();
        sum.add(&other);
        assert_eq!((sum.buckets.as_slice(), sum.sum), ([3, 0, 1].as_slice(), 51));
    }
}
