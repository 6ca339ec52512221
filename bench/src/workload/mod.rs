//! What the load consists of, and how every answer is checked.
//!
//! A workload writes requests and judges answers. It owns no socket and reads no clock; the event
//! loop asks it to `begin` an operation in a slot, and tells it what came back. What the checks
//! need to remember is in the [`Ledger`], which all workloads of a thread share.
//!
//! The checks rest on two facts. A value's content follows from its key, the seed and a generation
//! that it carries, so any value that a key returns can be recomputed. And a revision that was
//! acknowledged before a request was sent is a floor: a write's own revision must lie above it, a
//! linearizable read must have seen it.
//!
//! Invariants:
//! - A wrong answer is counted and its first cases are kept as text; it is never repaired or
//!   retried.
//! - `Ledger::floor` is the highest revision acknowledged so far and never falls.

mod kinds;
mod lease;
mod watch;

use crate::proto::{KeyValue, Malformed};
use crate::report::Tally;
pub use kinds::{Delay, List, Put, Read, TxnUpdate};
pub use lease::{Grant, KeepAlive, Leases, Share};
pub use watch::Watch;

/// Enough to see what is wrong; the rest is only counted.
const COMPLAINTS_MAX: usize = 8;
/// Revisions are remembered one bit each, so this is 64 MiB: half a billion writes in one run.
const REVISIONS_MAX: u64 = 1 << 29;
/// The digits of a key's index: hexadecimal, of one length, so that byte order is number order.
const KEY_DIGITS: usize = 10;
/// A value opens with its generation; shorter values could not be recomputed.
pub const VALUE_BYTES_MIN: usize = 8;

/// One kind of load.
pub trait Workload: Send {
    /// Writes the next request of a slot and gives its path, or `None` when there is no more to do.
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun;

    /// A message has come for the slot's operation.
    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]);

    /// The operation ended well after its message; says whether a further request belongs to it.
    fn handle_end(
        &mut self,
        _op: &mut Op,
        _context: &mut Context<'_>,
        _out: &mut Vec<u8>,
    ) -> Begun {
        None
    }

    /// A further message for a long-lived stream, once it is open.
    fn poll_message(&mut self, _op: &mut Op, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// A further operation on a long-lived stream: asked while there is to be load, at its
    /// beginning and after each message, until it says no.
    fn poll_operation(
        &mut self,
        _op: &mut Op,
        _context: &mut Context<'_>,
        _out: &mut Vec<u8>,
    ) -> bool {
        false
    }

    /// A long-lived stream is gone: what was outstanding on it will not be answered.
    fn handle_broken(&mut self, _op: &Op) {}

    /// Whether nothing is outstanding on the long-lived streams.
    fn is_idle(&self) -> bool {
        true
    }

    /// Whether the streams of a long-lived workload stand, so that the others may begin.
    fn is_ready(&self) -> bool {
        true
    }

    /// What is still to come after the last write, if anything: asked until `None` or a time-out.
    fn missing(&self, _ledger: &Ledger) -> Option<String> {
        None
    }

    /// Whether its streams stay open, so that none of them is an operation by itself.
    fn is_long_lived(&self) -> bool {
        false
    }
}

/// The path of a request that was written, or nothing.
pub type Begun = Option<&'static str>;

/// What a workload may look at and write to while it handles an event.
pub struct Context<'a> {
    /// The memory of the checks.
    pub ledger: &'a mut Ledger,
    /// The counts and latencies of the workload's group.
    pub tally: &'a mut Tally,
    /// Nanoseconds since the run's epoch.
    pub now_ns: u64,
}

/// An operation in a slot.
#[derive(Clone, Debug, Default)]
pub struct Op {
    /// The number of the slot within its group.
    pub number: usize,
    /// The key's index, or the first key's.
    pub index: u64,
    /// The highest revision acknowledged when the request was written.
    pub floor: u64,
    /// The `mod_revision` that a transaction compared with; the revision that a list is read at.
    pub base: u64,
    /// Whether a message has come.
    pub answered: bool,
    /// Whether the operation has to go on with a further request.
    pub again: bool,
}

impl Op {
    /// Prepares the slot for a request about a key.
    pub fn start(&mut self, index: u64, ledger: &Ledger) {
        *self = Self { number: self.number, index, floor: ledger.floor, ..Self::default() };
    }
}

/// The keys of a run and the content of their values.
#[derive(Clone, Debug)]
pub struct KeySpace {
    /// What every key begins with.
    pub prefix: String,
    /// How many keys there are.
    pub count: u64,
    /// What the values' content is derived from.
    pub seed: u64,
    /// The length of a value.
    pub value_size_bytes: usize,
}

impl KeySpace {
    /// Appends a key.
    pub fn write_key(&self, index: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        let digits: [u8; KEY_DIGITS] = std::array::from_fn(|position| {
            let nibble = index >> (4 * (KEY_DIGITS - 1 - position)) & 0xf;
            b"0123456789abcdef"[usize::try_from(nibble).expect("four bits")]
        });
        out.extend_from_slice(&digits);
    }

    /// A key of its own.
    pub fn key(&self, index: u64) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + KEY_DIGITS);
        self.write_key(index, &mut key);
        key
    }

    /// The key after all keys with the prefix.
    pub fn range_end(&self) -> Vec<u8> {
        // Digits are ASCII, so a byte above them ends the range without touching the prefix.
        [self.prefix.as_bytes(), b"~"].concat()
    }

    /// The index in a key.
    pub fn index_of(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.prefix.as_bytes())?;
        let digits = std::str::from_utf8(digits).ok()?;
        (digits.len() == KEY_DIGITS).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    }

    /// Appends the value of a key in a generation.
    pub fn write_value(&self, index: u64, generation: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&generation.to_le_bytes());
        let mut words = self.words(index, generation);
        while out.len() - start < self.value_size_bytes {
            out.extend_from_slice(&words.next_word().to_le_bytes());
        }
        out.truncate(start + self.value_size_bytes);
    }

    /// The generation of a value that the key may have.
    pub fn check_value(&self, index: u64, value: &[u8]) -> Result<u64, String> {
        let wrong = |what: &str| Err(format!("the value of key {index} {what}"));
        let Some((generation, rest)) = value.split_first_chunk::<8>() else {
            return wrong("is too short");
        };
        if value.len() != self.value_size_bytes {
            return wrong(&format!("has {} bytes", value.len()));
        }
        let generation = u64::from_le_bytes(*generation);
        let mut words = self.words(index, generation);
        let (chunks, tail) = rest.as_chunks::<8>();
        let mut same = chunks.iter().all(|chunk| *chunk == words.next_word().to_le_bytes());
        same &= words.next_word().to_le_bytes().starts_with(tail);
        if same { Ok(generation) } else { wrong("is not what was written") }
    }

    fn words(&self, index: u64, generation: u64) -> Random {
        let mut mixed = Random::new(self.seed ^ index.rotate_left(32));
        Random::new(mixed.next_word() ^ generation)
    }
}

/// A small generator whose sequence depends on the seed alone (splitmix64's steps).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below a bound above zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        let product = u128::from(self.next_word()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half is below the bound")
    }
}

/// The order in which keys are taken.
#[derive(Clone, Debug)]
pub enum Order {
    /// Each thread takes every `stride`-th key in turn.
    Sequential {
        /// The next key.
        next: u64,
        /// How far apart the keys of a thread are.
        stride: u64,
    },
    /// Any key, evenly.
    Random(Random),
}

impl Order {
    /// The next index below `count`.
    pub fn next_below(&mut self, count: u64) -> u64 {
        match self {
            Self::Random(random) => random.below(count),
            Self::Sequential { next, stride } => {
                let index = *next % count;
                *next += *stride;
                index
            }
        }
    }
}

/// What the checks remember.
pub struct Ledger {
    /// By key: the highest revision known to have been written to it.
    acknowledged: Vec<u64>,
    floor: u64,
    writes_count: u64,
    writes: RevisionSet,
    bases: RevisionSet,
    /// How many answers were wrong.
    pub wrong_count: u64,
    /// The first wrong answers and errors.
    pub complaints: Vec<String>,
}

impl Ledger {
    /// An empty memory for so many keys.
    pub fn new(keys: u64) -> Self {
        let keys = usize::try_from(keys).expect("the command line bounds the keys");
        Self {
            acknowledged: vec![0; keys],
            floor: 0,
            writes_count: 0,
            writes: RevisionSet::default(),
            bases: RevisionSet::default(),
            wrong_count: 0,
            complaints: Vec::new(),
        }
    }

    /// How many writes were acknowledged.
    pub fn writes_count(&self) -> u64 {
        self.writes_count
    }

    /// The highest revision known to have been written to a key.
    pub fn acknowledged(&self, index: u64) -> u64 {
        self.acknowledged[slot_of(index)]
    }

    /// An answer was wrong.
    pub fn handle_wrong(&mut self, text: impl Into<String>) {
        self.wrong_count += 1;
        self.complain(text);
    }

    /// Keeps a text about an error or a wrong answer.
    pub fn complain(&mut self, text: impl Into<String>) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(text.into());
        }
    }

    /// A write was acknowledged: checks and notes its revision.
    pub fn handle_write(&mut self, op: &Op, revision: u64) {
        if revision <= op.floor {
            self.handle_wrong(format!(
                "a write of key {} got revision {revision}, but {} was acknowledged before it",
                op.index, op.floor
            ));
        }
        self.writes_count += 1;
        if !self.writes.insert(revision) {
            self.handle_wrong(format!("revision {revision} was given to two writes"));
        }
        self.note_revision(op.index, revision);
    }

    /// A transaction succeeded that compared with a key's `mod_revision`.
    pub fn handle_base(&mut self, op: &Op) {
        // A revision belongs to one key and can be overwritten from only once: if it is a second
        // time, one of the two updates was lost.
        if op.base != 0 && !self.bases.insert(op.base) {
            self.handle_wrong(format!("key {} was updated twice from {}", op.index, op.base));
        }
    }

    /// A key is known to have been written at a revision.
    pub fn note_revision(&mut self, index: u64, revision: u64) {
        let known = &mut self.acknowledged[slot_of(index)];
        *known = (*known).max(revision);
        self.floor = self.floor.max(revision);
    }

    /// Checks a read's header against what was acknowledged before it was sent.
    pub fn check_header(&mut self, op: &Op, revision: u64, linearizable: bool) {
        if revision == 0 || linearizable && revision < op.floor {
            self.handle_wrong(format!(
                "a read of key {} was answered at revision {revision}, but {} was acknowledged \
                 before it",
                op.index, op.floor
            ));
        }
    }

    /// Checks one key and value of a read at a revision.
    pub fn check_kv(
        &mut self,
        space: &KeySpace,
        op: &Op,
        kv: Result<KeyValue<'_>, Malformed>,
        expected: Expected,
    ) {
        let Ok(kv) = kv else { return self.handle_wrong("a key and value are malformed") };
        let index = expected.index;
        if space.index_of(kv.key) != Some(index) {
            let key = String::from_utf8_lossy(kv.key);
            return self.handle_wrong(format!("key {index} was expected, {key} came"));
        }
        if let Err(text) = space.check_value(index, kv.value) {
            return self.handle_wrong(text);
        }
        let mod_revision = kv.mod_revision;
        if mod_revision > expected.revision || mod_revision < kv.create_revision {
            self.handle_wrong(format!(
                "key {index} was modified at {mod_revision}, created at {}, read at {}",
                kv.create_revision, expected.revision
            ));
        }
        // A revision at or below the floor was committed before the read was sent. One above it may
        // have been committed after the read.
        let known = self.acknowledged(index);
        if expected.linearizable && known <= op.floor && mod_revision < known {
            self.handle_wrong(format!(
                "a stale read: key {index} is from {mod_revision}, {known} was acknowledged"
            ));
        }
    }
}

/// What a read's key has to be.
#[derive(Clone, Copy)]
pub struct Expected {
    /// The key's index.
    pub index: u64,
    /// The revision that the answer speaks for.
    pub revision: u64,
    /// Whether everything acknowledged before must be seen.
    pub linearizable: bool,
}

/// A set of revisions, one bit each, relative to the first that came.
#[derive(Default)]
struct RevisionSet {
    base: Option<u64>,
    words: Vec<u64>,
}

impl RevisionSet {
    /// Adds a revision; false if it was there already.
    fn insert(&mut self, revision: u64) -> bool {
        // Writes are acknowledged out of order, so the first to come need not be the lowest: leave
        // room below it.
        let base = *self.base.get_or_insert(revision.saturating_sub(1 << 20));
        let Some(offset) = revision.checked_sub(base).filter(|&offset| offset < REVISIONS_MAX)
        else {
            return true;
        };
        let word = slot_of(offset / 64);
        if word >= self.words.len() {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let bit = 1 << (offset % 64);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }
}

fn slot_of(index: u64) -> usize {
    usize::try_from(index).expect("it is bounded by the number of keys or revisions")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> KeySpace {
        KeySpace { prefix: "bench/".to_owned(), count: 100, seed: 7, value_size_bytes: 100 }
    }

    #[test]
    fn keys_sort_as_their_indexes() {
        let space = space();
        let indexes = [0, 1, 9, 10, 255, 256, 1 << 39];
        for pair in indexes.windows(2) {
            assert!(space.key(pair[0]) < space.key(pair[1]));
            assert!(space.key(pair[1]) < space.range_end());
        }
        assert_eq!(space.index_of(&space.key(0xab_cdef)), Some(0xab_cdef));
        assert_eq!(space.index_of(b"bench/12"), None);
        assert_eq!(space.index_of(b"other/0000000001"), None);
    }

    #[test]
    fn values_are_recomputed_from_key_seed_and_generation() {
        for value_size_bytes in [8, 9, 16, 17, 100, 256] {
            let space = KeySpace { value_size_bytes, ..space() };
            let mut value = Vec::new();
            space.write_value(5, 99, &mut value);
            assert_eq!(value.len(), value_size_bytes);
            assert_eq!(space.check_value(5, &value), Ok(99));
            if value_size_bytes > 8 {
                assert!(space.check_value(6, &value).is_err(), "another key's value");
                let other = KeySpace { seed: 8, ..space.clone() };
                assert!(other.check_value(5, &value).is_err(), "another seed's value");
                for position in 0..value.len() {
                    let mut rotten = value.clone();
                    rotten[position] ^= 1;
                    assert!(space.check_value(5, &rotten).is_err(), "byte {position} is wrong");
                }
            }
            assert!(space.check_value(5, &value[..value.len() - 1]).is_err());
        }
    }

    #[test]
    fn writes_must_rise_above_the_floor_and_be_unique() {
        let mut ledger = Ledger::new(10);
        let mut op = Op::default();
        op.start(3, &ledger);
        ledger.handle_write(&op, 50);
        assert_eq!((ledger.wrong_count, ledger.floor, ledger.acknowledged(3)), (0, 50, 50));
        // Sent before 50 was acknowledged: a lower revision is in order.
        ledger.handle_write(&op, 49);
        assert_eq!((ledger.wrong_count, ledger.acknowledged(3)), (0, 50));
        op.start(4, &ledger);
        ledger.handle_write(&op, 48);
        assert_eq!(ledger.wrong_count, 1, "below what was acknowledged before");
        op.floor = 0;
        ledger.handle_write(&op, 49);
        assert_eq!(ledger.wrong_count, 2, "the same revision twice");
        assert_eq!(ledger.complaints.len(), 2);
    }

    #[test]
    fn complaints_are_bounded_and_the_count_goes_on() {
        let mut ledger = Ledger::new(1);
        for _ in 0..COMPLAINTS_MAX + 5 {
            ledger.handle_wrong("wrong");
        }
        assert_eq!(ledger.complaints.len(), COMPLAINTS_MAX);
        assert_eq!(ledger.wrong_count, 13);
    }
}
