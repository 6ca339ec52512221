//! What a drill wrote, what it was told, and what it found afterwards.
//!
//! A quarter of the writes are transactions of two keys, a quarter overwrite a few hot keys, the
//! rest put keys of their own. The number of a write is the generation of its value, so that
//! whatever is found names the write it comes from.
//!
//! Invariants:
//! - A write is in the history before its request is sent.
//! - An outcome, once known, never changes: what was found once has to be found again, from the
//!   same revision, and what was found missing must not turn up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::pages::read_pages;
use crate::client::blocking::Blocking;
use crate::failure::Failure;
use crate::load::resolve;
use crate::proto::{self, OperationAnswer, TxnAnswer, WriteAnswer};
use crate::workload::{Begun, Context, KeySpace, Op, Workload};

/// Few enough that each is overwritten many times a second.
const HOT_KEYS: u64 = 64;
const VALUE_BYTES: usize = 128;
const COMPLAINTS_MAX: usize = 16;
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// A key of the write's own.
    Single,
    /// The first key of a transaction.
    First,
    /// The second key of a transaction.
    Second,
    /// One of the few that are overwritten.
    Hot,
}

/// What is known of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Sent, and nothing has come back.
    Unknown,
    /// Acknowledged with this revision, or found with it.
    Written(u64),
    /// Not found after the server had gone down.
    Lost,
}

/// All writes of a drill.
pub struct History {
    seed: u64,
    outcomes: Vec<Outcome>,
    /// Writes before this one are checked only in full checks.
    checked_count: usize,
    revision_max: u64,
}

/// What a check has come to.
#[derive(Debug, Default)]
pub struct Found {
    /// How many keys were read.
    pub keys_count: u64,
    /// How many writes had no answer.
    pub unknown_count: u64,
    /// How many of those were there.
    pub unknown_present_count: u64,
    /// How many things were wrong.
    pub wrong_count: u64,
    /// The first of them.
    pub complaints: Vec<String>,
}

impl Found {
    /// Something was wrong.
    pub fn wrong(&mut self, text: String) {
        self.wrong_count += 1;
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(text);
        }
    }
}

/// A key and value as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    index: u64,
    generation: u64,
    revision: u64,
}

fn family(number: u64) -> Family {
    match number % 4 {
        0 | 1 => Family::Single,
        2 => Family::First,
        _ => Family::Hot,
    }
}

impl History {
    /// An empty history.
    pub fn new(seed: u64) -> Self {
        Self { seed, outcomes: Vec::new(), checked_count: 0, revision_max: 0 }
    }

    /// How many writes are known to be there.
    pub fn acknowledged_count(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Written(_))).count()
    }

    fn space(&self, family: Family) -> KeySpace {
        let prefix = format!("drill/{}/", format!("{family:?}").to_lowercase());
        KeySpace { prefix, count: 0, seed: self.seed, value_size_bytes: VALUE_BYTES }
    }

    /// Adds a write and appends its request.
    fn begin(&mut self, out: &mut Vec<u8>) -> (u64, &'static str) {
        let number = self.outcomes.len() as u64;
        self.outcomes.push(Outcome::Unknown);
        let pair = |family: Family, index: u64| {
            let space = self.space(family);
            let mut value = Vec::new();
            space.write_value(index, number, &mut value);
            (space.key(index), value)
        };
        match family(number) {
            Family::First | Family::Second => {
                for family in [Family::First, Family::Second] {
                    let (key, value) = pair(family, number);
                    proto::write_put_operation(out, &key, &value);
                }
                (number, proto::TXN)
            }
            Family::Single => {
                let (key, value) = pair(Family::Single, number);
                proto::write_put(out, &key, &value);
                (number, proto::PUT)
            }
            Family::Hot => {
                let (key, value) = pair(Family::Hot, number / 4 % HOT_KEYS);
                proto::write_put(out, &key, &value);
                (number, proto::PUT)
            }
        }
    }

    fn acknowledge(&mut self, number: u64, revision: u64) {
        self.outcomes[place(number)] = Outcome::Written(revision);
        self.revision_max = self.revision_max.max(revision);
    }

    /// Reads back what was written since the last check, or everything.
    pub fn check(&mut self, endpoint: &str, full: bool) -> Result<Found, Failure> {
        let mut client = Blocking::connect(resolve(endpoint)?, CALL_TIME_MAX)?;
        let first = if full { 0 } else { self.checked_count };
        let mut found = Found::default();
        let start = first as u64;
        let read = |client: &mut Blocking, family, start, found: &mut Found| {
            read_family(client, &self.space(family), start, self.revision_max, found)
        };
        let singles = read(&mut client, Family::Single, start, &mut found)?;
        let firsts = read(&mut client, Family::First, start, &mut found)?;
        let seconds = read(&mut client, Family::Second, start, &mut found)?;
        let hot = read(&mut client, Family::Hot, 0, &mut found)?;
        self.judge_pairs(&firsts, &seconds, &mut found);
        self.judge_own_keys(first, &[singles, firsts].concat(), &mut found);
        self.judge_hot(&hot, &mut found);
        self.checked_count = self.outcomes.len();
        Ok(found)
    }

    /// Both keys of a transaction, or neither.
    fn judge_pairs(&self, firsts: &[Entry], seconds: &[Entry], found: &mut Found) {
        if firsts == seconds {
            return;
        }
        let only = |mine: &[Entry], others: &[Entry]| {
            let others: std::collections::HashSet<u64> =
                others.iter().map(|entry| entry.index).collect();
            mine.iter().filter(|entry| !others.contains(&entry.index)).count()
        };
        found.wrong(format!(
            "transactions are half there: {} only by their first key, {} only by their second",
            only(firsts, seconds),
            only(seconds, firsts)
        ));
    }

    /// Every write that put keys of its own: there if acknowledged, and from that revision.
    fn judge_own_keys(&mut self, first: usize, entries: &[Entry], found: &mut Found) {
        let mut present = vec![None; self.outcomes.len()];
        for entry in entries {
            match present.get_mut(place(entry.index)) {
                Some(place) if entry.generation == entry.index => *place = Some(entry.revision),
                _ => found.wrong(format!("{entry:?} was never written")),
            }
        }
        let numbers =
            (first..self.outcomes.len()).filter(|&number| family(number as u64) != Family::Hot);
        for number in numbers {
            let outcome = &mut self.outcomes[number];
            match (*outcome, present[number]) {
                (Outcome::Written(revision), Some(there)) if revision == there => {}
                (Outcome::Lost, None) => {}
                (Outcome::Unknown, there) => {
                    found.unknown_count += 1;
                    found.unknown_present_count += u64::from(there.is_some());
                    *outcome = there.map_or(Outcome::Lost, Outcome::Written);
                }
                (Outcome::Written(revision), None) => {
                    found.wrong(format!("write {number} of revision {revision} is LOST"));
                }
                (known, Some(there)) => {
                    found.wrong(format!("write {number}: {known:?}, but now at revision {there}"));
                }
            }
        }
    }

    /// Each hot key: from a write to it that is not older than the last acknowledged one.
    fn judge_hot(&mut self, entries: &[Entry], found: &mut Found) {
        let mut newest = vec![0; place(HOT_KEYS)];
        for (number, outcome) in self.outcomes.iter().enumerate() {
            if let (Family::Hot, Outcome::Written(revision)) = (family(number as u64), outcome) {
                let newest = &mut newest[number / 4 % place(HOT_KEYS)];
                *newest = (*newest).max(*revision);
            }
        }
        let mut shown = vec![false; place(HOT_KEYS)];
        for entry in entries {
            let written = self.outcomes.get(place(entry.generation)).copied();
            let hot = place(entry.index);
            let of_key = family(entry.generation) == Family::Hot
                && entry.generation / 4 % HOT_KEYS == entry.index;
            let right = match written {
                Some(Outcome::Written(revision)) => revision == entry.revision,
                Some(Outcome::Unknown) => true,
                Some(Outcome::Lost) | None => false,
            };
            if !of_key || !right || entry.revision < newest[hot] {
                let newest = newest.get(hot);
                found.wrong(format!(
                    "a hot key: {entry:?}, but its write is {written:?}, the newest {newest:?}"
                ));
                continue;
            }
            shown[hot] = true;
            self.outcomes[place(entry.generation)] = Outcome::Written(entry.revision);
        }
        for (hot, newest) in newest.iter().enumerate() {
            if *newest > 0 && !shown[hot] {
                found.wrong(format!("hot key {hot} of revision {newest} is LOST"));
            }
        }
        // Those that are overwritten can no longer be told; those never applied cannot come back
        // either, unless over a newer value, which the revisions above would show.
    }
}

/// All keys of a family from an index on, read at one revision.
fn read_family(
    client: &mut Blocking,
    space: &KeySpace,
    start: u64,
    revision_min: u64,
    found: &mut Found,
) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    read_pages(client, space.key(start), &space.range_end(), |revision, kvs| {
        if revision < revision_min {
            found.wrong(format!("revision {revision_min} was acknowledged, now {revision}"));
        }
        for kv in kvs {
            found.keys_count += 1;
            let checked = space
                .index_of(kv.key)
                .ok_or_else(|| format!("a foreign key {}", String::from_utf8_lossy(kv.key)))
                .and_then(|index| Ok((index, space.check_value(index, kv.value)?)));
            match checked {
                Ok((index, generation)) => {
                    entries.push(Entry { index, generation, revision: kv.mod_revision });
                }
                Err(text) => found.wrong(text),
            }
        }
    })?;
    Ok(entries)
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The writes of a drill as a workload.
pub struct DrillWrites {
    history: Arc<Mutex<History>>,
    /// By slot: the number of its write.
    numbers: Vec<u64>,
}

impl DrillWrites {
    /// Writes in as many slots.
    pub fn new(history: Arc<Mutex<History>>, slots: usize) -> Self {
        Self { history, numbers: vec![0; slots] }
    }
}

impl Workload for DrillWrites {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        op.start(0, context.ledger);
        let mut history = self.history.lock().expect("no thread of a run panics and goes on");
        let (number, path) = history.begin(out);
        self.numbers[op.number] = number;
        Some(path)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        op.answered = true;
        let number = self.numbers[op.number];
        let revision = match family(number) {
            Family::Single | Family::Hot => WriteAnswer::read(payload).map(|put| put.revision),
            Family::First | Family::Second => TxnAnswer::read(payload).map(|txn| {
                let is_put = |answer| matches!(answer, Ok(OperationAnswer::Put));
                let puts_count = txn.responses().filter(|answer| is_put(*answer)).count();
                if !txn.succeeded || puts_count != 2 {
                    let text = format!("transaction {number} answered with {puts_count} puts");
                    context.ledger.handle_wrong(text);
                }
                txn.revision
            }),
        };
        match revision {
            Ok(revision) => {
                context.ledger.handle_write(op, revision);
                let mut history = self.history.lock().expect("no thread panics and goes on");
                history.acknowledge(number, revision);
            }
            Err(_) => context.ledger.handle_wrong("a write's answer is malformed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history of writes 0 to 7: single, single, pair, hot, single, single, pair, hot.
    fn history() -> History {
        let mut history = History::new(1);
        for number in 0..8 {
            let mut request = Vec::new();
            assert_eq!(history.begin(&mut request).0, number);
            assert!(!request.is_empty());
        }
        for number in [0, 2, 3] {
            history.acknowledge(number, 10 + number);
        }
        history
    }

    fn entry(index: u64, revision: u64) -> Entry {
        Entry { index, generation: index, revision }
    }

    fn wrong(judge: impl FnOnce(&mut Found)) -> u64 {
        let mut found = Found::default();
        judge(&mut found);
        assert_eq!(found.complaints.len() as u64, found.wrong_count);
        found.wrong_count
    }

    #[test]
    fn a_lost_write_is_caught() {
        let there = [entry(0, 10), entry(2, 12)];
        assert_eq!(wrong(|found| history().judge_own_keys(0, &there, found)), 0);
        assert_eq!(wrong(|found| history().judge_own_keys(0, &there[1..], found)), 1);
        let moved = [entry(0, 11), entry(2, 12)];
        assert_eq!(wrong(|found| history().judge_own_keys(0, &moved, found)), 1);
        let foreign = [entry(0, 10), entry(2, 12), entry(99, 13)];
        assert_eq!(wrong(|found| history().judge_own_keys(0, &foreign, found)), 1);
    }

    #[test]
    fn what_was_unknown_is_settled_by_the_first_look() {
        let mut history = history();
        let mut found = Found::default();
        history.judge_own_keys(0, &[entry(0, 10), entry(1, 14), entry(2, 12)], &mut found);
        assert_eq!((found.unknown_count, found.unknown_present_count), (4, 1));
        assert_eq!(found.wrong_count, 0);
        // Now write 1 must stay, and write 4 must not turn up.
        assert_eq!(history.outcomes[4], Outcome::Lost);
        let there = [entry(0, 10), entry(2, 12), entry(4, 15)];
        assert_eq!(wrong(|found| history.judge_own_keys(0, &there, found)), 2);
    }

    #[test]
    fn half_a_transaction_is_caught() {
        let both = [entry(2, 12), entry(6, 16)];
        let history = history();
        assert_eq!(wrong(|found| history.judge_pairs(&both, &both, found)), 0);
        assert_eq!(wrong(|found| history.judge_pairs(&both, &both[..1], found)), 1);
        let torn = [entry(2, 12), entry(6, 17)];
        assert_eq!(wrong(|found| history.judge_pairs(&both, &torn, found)), 1);
    }

    #[test]
    fn hot_keys_do_not_go_back() {
        let at = |index, generation, revision| Entry { index, generation, revision };
        let judge = |entries: &[Entry]| wrong(|found| history().judge_hot(entries, found));
        assert_eq!(judge(&[at(0, 3, 13)]), 0);
        assert_eq!(judge(&[]), 1, "an acknowledged write is lost");
        assert_eq!(judge(&[at(0, 3, 12)]), 2, "another revision, and so the right one is lost");
        assert_eq!(judge(&[at(0, 3, 13), at(1, 7, 15)]), 0, "an unknown write may be there");
        assert_eq!(judge(&[at(0, 7, 15)]), 2, "another key's write");
    }
}
