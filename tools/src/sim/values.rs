//! What clients write: mostly a few bytes, now and then as much as a request may bring.
//!
//! A large value stands in the history with its beginning, its length and its checksum, or a run of
//! many thousand operations would copy gigabytes.
//!
//! Invariants:
//! - What is written follows from the operation and the length, so that every byte is checked.
//! - A value that stands in brief is not mistaken for a short one.

use std::collections::BTreeMap;

use super::random::Random;
use crate::oracle::history::{OpId, value_of};

/// Longer ones are told in brief.
const WHOLE_SIZE_BYTES_MAX: usize = 64;
/// As long as a request may be, with its key.
const SIZE_BYTES_MAX: u64 = (3 << 19) - 512;
/// Of how many values one is large, as long as there are any.
const LARGE_ONCE_IN: u64 = 12;

/// The value of an operation, filled up to this length.
#[must_use]
pub fn of(id: OpId, size_bytes: usize) -> Vec<u8> {
    let mut value = value_of(id);
    let mut random = Random::new(id.0);
    value.reserve(size_bytes.saturating_sub(value.len()) + 8);
    while value.len() < size_bytes {
        value.extend_from_slice(&random.word().to_le_bytes());
    }
    value
}

/// A value as it stands in the history.
#[must_use]
pub fn brief(value: &[u8]) -> Vec<u8> {
    if value.len() <= WHOLE_SIZE_BYTES_MAX {
        return value.to_vec();
    }
    let (size_bytes, crc) = (value.len(), crc32fast::hash(value));
    let mut brief = value[..WHOLE_SIZE_BYTES_MAX].to_vec();
    brief.extend_from_slice(format!("... {size_bytes} {crc:08x}").as_bytes());
    brief
}

/// Draws how long values are.
#[derive(Debug)]
pub struct Sizes {
    random: Random,
    large_left: u64,
    /// What was written by those of which there is more than a few bytes, in brief.
    large: BTreeMap<OpId, Vec<u8>>,
}

impl Sizes {
    /// So many of them are large.
    #[must_use]
    pub const fn new(random: Random, large: u64) -> Self {
        Self { random, large_left: large, large: BTreeMap::new() }
    }

    /// How long the value of an operation is at least.
    pub fn next(&mut self, id: OpId) -> usize {
        if self.large_left == 0 || !self.random.once_in(LARGE_ONCE_IN) {
            return 0;
        }
        self.large_left -= 1;
        let is_largest = self.random.once_in(2);
        let size = if is_largest { SIZE_BYTES_MAX } else { self.random.between(1000, 1 << 20) };
        let size_bytes = usize::try_from(size).expect("below two megabytes");
        self.large.insert(id, brief(&of(id, size_bytes)));
        size_bytes
    }

    /// Whether this is what the operation has written.
    #[must_use]
    pub fn is_whole(&self, id: OpId, brief: &[u8]) -> bool {
        match self.large.get(&id) {
            Some(written) => written == brief,
            None => brief == value_of(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_brief_tells_every_byte() {
        let value = of(OpId(7), 5000);
        assert!(value.len() >= 5000 && value.starts_with(&value_of(OpId(7))));
        assert_eq!(brief(&value_of(OpId(7))), value_of(OpId(7)));
        assert_ne!(brief(&value), value_of(OpId(7)));
        let mut other = value.clone();
        other[4000] ^= 1;
        assert_ne!(brief(&value), brief(&other));
        assert_ne!(brief(&value), brief(&value[..4999]));
    }
}
