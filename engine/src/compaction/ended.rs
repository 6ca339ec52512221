//! Versions that come in the order in which they ended, and go in the order in which they stand.
//!
//! Those of a window are too many to be sorted at once beside puts: 64 thousand take 1.7 ms. So
//! they are sorted in short runs while they come, and merged while they go.
//!
//! Invariants:
//! - What comes out ascends, by the bytes that a change has as a key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::ids::Change;

/// Changes that are sorted at once, in some ten microseconds.
const RUN_CHANGES_MAX: usize = 1 << 10;

/// What a window has ended.
#[derive(Default)]
pub(super) struct Ended {
    /// Each with its smallest at the end; the last one is sorted when it is full.
    runs: Vec<Vec<u128>>,
    /// The smallest of each run, taken from it. Empty while versions come.
    heads: BinaryHeap<Reverse<(u128, usize)>>,
}

impl Ended {
    /// One more.
    pub(super) fn push(&mut self, change: Change) {
        let place = u128::from_be_bytes(change.to_bytes());
        match self.runs.last_mut() {
            Some(run) if run.len() < RUN_CHANGES_MAX => run.push(place),
            _ => {
                self.sort_last();
                let mut run = Vec::with_capacity(RUN_CHANGES_MAX);
                run.push(place);
                self.runs.push(run);
            }
        }
    }

    fn sort_last(&mut self) {
        if let Some(run) = self.runs.last_mut() {
            run.sort_unstable_by_key(|&place| Reverse(place));
        }
    }

    /// All have come.
    pub(super) fn finish(&mut self) {
        self.sort_last();
        for (index, run) in self.runs.iter_mut().enumerate() {
            self.heads.extend(run.pop().map(|head| Reverse((head, index))));
        }
    }

    /// Takes the next ones, as keys, `count` at most; only of those that are finished.
    pub(super) fn take(&mut self, count: usize) -> Vec<[u8; Change::SIZE_BYTES]> {
        let mut taken = Vec::with_capacity(count.min(RUN_CHANGES_MAX));
        while taken.len() < count {
            let Some(mut top) = self.heads.peek_mut() else { break };
            let Reverse((place, index)) = *top;
            taken.push(place.to_be_bytes());
            match self.runs[index].pop() {
                Some(next) => *top = Reverse((next, index)),
                None => drop(PeekMut::pop(top)),
            }
        }
        taken
    }

    /// Whether all that were finished are taken.
    pub(super) fn is_taken(&self) -> bool {
        self.heads.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;

    #[test]
    fn what_came_in_any_order_goes_in_that_of_the_keys() {
        for count in [0, 1, RUN_CHANGES_MAX, RUN_CHANGES_MAX + 1, 5 * RUN_CHANGES_MAX + 7] {
            let mut ended = Ended::default();
            let count = i64::try_from(count).unwrap();
            // 7919 is a prime, so that each place comes once.
            for number in 0..count {
                let place = number * 7919 % count;
                ended.push(Change { main: Revision(place / 3), sub: place % 3 });
            }
            assert!(ended.is_taken());
            ended.finish();
            let mut next = 0;
            while !ended.is_taken() {
                let taken = ended.take(100);
                assert!(!taken.is_empty() && taken.len() <= 100);
                for key in taken {
                    let change = Change { main: Revision(next / 3), sub: next % 3 };
                    assert_eq!(key, change.to_bytes());
                    next += 1;
                }
            }
            assert_eq!(next, count);
            assert!(ended.take(1).is_empty());
        }
    }
}
