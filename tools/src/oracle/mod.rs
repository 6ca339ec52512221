//! Whether a history is one that a single, correct store could have given.
//!
//! etcd numbers every change, so the order in which things happened does not have to be searched
//! for, as checkers of registers do (Wing and Gong: Testing and Verifying Concurrent Objects, 1993;
//! the search is exponential): the store's own changes in the order of their revisions are the
//! witness, and what is left to check is that the witness explains every answer and respects time.
//!
//! What is held:
//! - A write that was acknowledged is there, once, at the revision that was told; one that was
//!   refused is not; one of unknown fate is there at most once. Nothing else is there.
//! - Every answer is what the state at its revision says: what was found, how many were deleted,
//!   whether a swap's condition held.
//! - An operation that began after another had been answered does not come before it: its revision
//!   is not smaller, and a write's is larger. (A read that may be stale is only held to the state
//!   of the revision it names.)
//! - Nothing tells of a change before it was asked for.

pub mod chronicle;
pub mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use history::{Answer, Change, Found, OpId, Operation, Request, State, writer_of};

/// The revision of a store in which nothing was ever changed.
const REVISION_EMPTY: i64 = 1;

/// Why a history cannot have come from a correct store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The operation it was noticed at, if it was one.
    pub operation: Option<OpId>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Some(id) => write!(f, "operation {}: {}", id.0, self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for Violation {}

/// Checks what clients saw against all changes of the store, in their order.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(operations: &[Operation], changes: &[Change]) -> Result<(), Violation> {
    let witness = Witness::new(operations, changes)?;
    for operation in operations {
        witness.check_answer(operation)?;
    }
    check_time(operations, &witness)
}

/// The changes with what they came from.
struct Witness<'h> {
    /// The revisions, ascending, with the place behind their last change.
    ends: Vec<(i64, usize)>,
    changes: &'h [Change],
    /// Which revision an operation's write got.
    revisions: BTreeMap<OpId, i64>,
    /// The operation behind each revision that holds a put.
    writers: BTreeMap<i64, OpId>,
    /// States at every so many revisions, so that one in between is soon made.
    states: Vec<State>,
}

/// Revisions between two states that are kept.
const STATES_EVERY: usize = 8;

impl<'h> Witness<'h> {
    fn new(operations: &[Operation], changes: &'h [Change]) -> Result<Self, Violation> {
        let known: BTreeMap<OpId, &Operation> =
            operations.iter().map(|operation| (operation.id, operation)).collect();
        let mut witness = Self {
            ends: Vec::new(),
            changes,
            revisions: BTreeMap::new(),
            writers: BTreeMap::new(),
            states: Vec::new(),
        };
        let mut state = State::default();
        witness.states.push(state.clone());
        for (place, change) in changes.iter().enumerate() {
            witness.take(place, change, &known)?;
            state.apply(change);
            let is_last =
                changes.get(place + 1).is_none_or(|next| next.revision != change.revision);
            if is_last && witness.ends.len().is_multiple_of(STATES_EVERY) {
                witness.states.push(state.clone());
            }
        }
        witness.check_deletions(operations)?;
        Ok(witness)
    }

    fn take(
        &mut self,
        place: usize,
        change: &Change,
        known: &BTreeMap<OpId, &Operation>,
    ) -> Result<(), Violation> {
        let wrong = |operation, reason| Err(Violation { operation, reason });
        let revision = change.revision;
        match self.ends.last_mut() {
            Some(last) if last.0 == revision => last.1 = place + 1,
            last => {
                let expected = last.map_or(REVISION_EMPTY, |last| last.0) + 1;
                if revision != expected {
                    return wrong(None, format!("revision {revision} where {expected} should be"));
                }
                self.ends.push((revision, place + 1));
            }
        }
        let Some(value) = &change.value else { return Ok(()) };
        let Some(operation) = writer_of(value).and_then(|id| known.get(&id)) else {
            return wrong(None, format!("revision {revision} holds a value that nobody wrote"));
        };
        let id = Some(operation.id);
        let key = match &operation.request {
            Request::Put { key, .. } | Request::Swap { key, .. } => key,
            _ => return wrong(id, "it writes nothing, and its value is there".to_owned()),
        };
        if *key != change.key {
            return wrong(id, format!("its value stands under another key at {revision}"));
        }
        if let Some(before) = self.revisions.insert(operation.id, revision) {
            return wrong(id, format!("it was done twice, at {before} and at {revision}"));
        }
        self.writers.insert(revision, operation.id);
        Ok(())
    }

    fn newest(&self) -> i64 {
        self.ends.last().map_or(REVISION_EMPTY, |last| last.0)
    }

    /// The state behind a revision.
    fn state_at(&self, revision: i64) -> State {
        let count = usize::try_from(revision - REVISION_EMPTY).unwrap_or(0).min(self.ends.len());
        let kept = count / STATES_EVERY;
        let mut state = self.states[kept].clone();
        let end_of = |count: usize| count.checked_sub(1).map_or(0, |last| self.ends[last].1);
        for change in &self.changes[end_of(kept * STATES_EVERY)..end_of(count)] {
            state.apply(change);
        }
        state
    }

    /// What is gone was deleted by somebody: by who was told so, or by one whose fate is unknown
    /// and who would have deleted just that.
    fn check_deletions(&self, operations: &[Operation]) -> Result<(), Violation> {
        let told: BTreeSet<i64> = operations.iter().filter_map(deleted_at).collect();
        let unknown: Vec<(&[u8], &[u8])> = operations
            .iter()
            .filter(|operation| operation.answered.is_none())
            .filter_map(|operation| match &operation.request {
                Request::Delete { from, to } => Some((&from[..], &to[..])),
                _ => None,
            })
            .collect();
        for &(revision, _) in &self.ends {
            let gone = self.changes_of(revision);
            if gone.iter().any(|change| change.value.is_some()) || told.contains(&revision) {
                continue;
            }
            let before = self.state_at(revision - 1);
            let gone = || gone.iter().map(|change| &change.key);
            let is_explained = unknown
                .iter()
                .any(|(from, to)| before.range(from, to).map(|found| &found.key).eq(gone()))
                || is_end_of_lease(&before, gone());
            if !is_explained {
                let reason = format!("nobody has deleted what revision {revision} deletes");
                return Err(Violation { operation: None, reason });
            }
        }
        Ok(())
    }

    fn changes_of(&self, revision: i64) -> &[Change] {
        let Ok(place) = usize::try_from(revision - REVISION_EMPTY - 1) else { return &[] };
        let Some(&(_, end)) = self.ends.get(place) else { return &[] };
        let from = place.checked_sub(1).map_or(0, |before| self.ends[before].1);
        &self.changes[from..end]
    }

    fn check_answer(&self, operation: &Operation) -> Result<(), Violation> {
        let Some((_, answer)) = &operation.answered else { return Ok(()) };
        let wrong = |reason: String| Err(Violation { operation: Some(operation.id), reason });
        let written = self.revisions.get(&operation.id).copied();
        match (&operation.request, answer) {
            (_, Answer::Refused) => match written {
                Some(revision) => wrong(format!("it was refused and done at {revision}")),
                None => Ok(()),
            },
            (Request::Put { .. }, Answer::Written { revision }) => match written {
                Some(at) if at == *revision => Ok(()),
                at => wrong(format!("it was acknowledged at {revision} and stands at {at:?}")),
            },
            (Request::Delete { from, to }, Answer::Deleted { revision, count }) => {
                self.check_delete((from, to), *revision, *count).or_else(wrong)
            }
            (Request::Swap { key, expected }, Answer::Swapped { revision, instead }) => self
                .check_swap(key, *expected, (*revision, instead.as_deref()), written)
                .or_else(wrong),
            (Request::Read { from, to, .. }, Answer::Read { revision, found }) => {
                self.check_found((from, to), *revision, found).or_else(wrong)
            }
            _ => wrong("an answer to something else".to_owned()),
        }
    }

    fn check_delete(
        &self,
        (from, to): (&[u8], &[u8]),
        revision: i64,
        count: i64,
    ) -> Result<(), String> {
        if revision > self.newest() {
            return Err(format!("it was answered at {revision}, and the store ends before"));
        }
        let before = self.state_at(if count > 0 { revision - 1 } else { revision });
        let there: Vec<_> = before.range(from, to).map(|found| &found.key).collect();
        if there.len() as i64 != count {
            return Err(format!("{count} keys were deleted at {revision} of {}", there.len()));
        }
        let gone = self.changes_of(revision).iter().filter(|change| change.value.is_none());
        if count > 0 && !gone.map(|change| &change.key).eq(there) {
            return Err(format!("revision {revision} does not delete what was there"));
        }
        Ok(())
    }

    fn check_swap(
        &self,
        key: &[u8],
        expected: i64,
        (revision, instead): (i64, Option<&[Found]>),
        written: Option<i64>,
    ) -> Result<(), String> {
        if revision > self.newest() {
            return Err(format!("it was answered at {revision}, and the store ends before"));
        }
        let changed = |state: &State| state.get(key).map_or(0, |found| found.changed);
        let Some(found) = instead else {
            if written != Some(revision) {
                return Err(format!("it was acknowledged at {revision} and stands at {written:?}"));
            }
            let changed = changed(&self.state_at(revision - 1));
            if changed != expected {
                return Err(format!("it swapped {expected}, and {changed} was there"));
            }
            return Ok(());
        };
        if let Some(at) = written {
            return Err(format!("it did not swap, and stands at {at}"));
        }
        let state = self.state_at(revision);
        if changed(&state) == expected {
            return Err(format!("it did not swap at {revision}, and {expected} was there"));
        }
        if !state.get(key).into_iter().eq(found) {
            return Err(format!("it read at {revision} what was not there"));
        }
        Ok(())
    }

    fn check_found(
        &self,
        (from, to): (&[u8], &[u8]),
        revision: i64,
        found: &[Found],
    ) -> Result<(), String> {
        if revision > self.newest() {
            return Err(format!("it read at {revision}, and the store ends before"));
        }
        if !self.state_at(revision).range(from, to).eq(found) {
            return Err(format!("it read at {revision} what was not there"));
        }
        Ok(())
    }
}

/// Revisions grow with time, from answers to what is asked after them.
fn check_time(operations: &[Operation], witness: &Witness<'_>) -> Result<(), Violation> {
    // Moments at which something is known, and at which something begins; at the same moment the
    // beginnings go first, for they may be told of each other.
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        moments.push((operation.begun, false, place));
        if let Some((answered, _)) = &operation.answered {
            moments.push((*answered, true, place));
        }
    }
    moments.sort_unstable();
    // The highest revision that anybody was told of so far, when an operation began.
    let mut known = REVISION_EMPTY;
    let mut known_at_begin = vec![REVISION_EMPTY; operations.len()];
    let mut begun = vec![false; operations.len()];
    let places: BTreeMap<OpId, usize> =
        operations.iter().enumerate().map(|(place, operation)| (operation.id, place)).collect();
    for (_, is_answer, place) in moments {
        let operation = &operations[place];
        if !is_answer {
            known_at_begin[place] = known;
            begun[place] = true;
            continue;
        }
        let Some(told) = told_of(operation) else { continue };
        let wrong = |reason| Err(Violation { operation: Some(operation.id), reason });
        let before = known_at_begin[place];
        let is_write = witness.revisions.get(&operation.id) == Some(&told.revision) || told.wrote;
        if !told.may_be_stale && (told.revision < before || (is_write && told.revision == before)) {
            let what = if is_write { "wrote" } else { "read" };
            let revision = told.revision;
            return wrong(format!("it {what} at {revision}, and {before} was known when it began"));
        }
        let writer = witness.writers.get(&told.revision).and_then(|id| places.get(id));
        if writer.is_some_and(|&writer| !begun[writer]) {
            return wrong(format!("it tells of {} before that was asked for", told.revision));
        }
        known = known.max(told.revision);
    }
    check_unknown(operations, witness, &known_at_begin)
}

/// What was done although nobody was told: not before it was asked for.
fn check_unknown(
    operations: &[Operation],
    witness: &Witness<'_>,
    known_at_begin: &[i64],
) -> Result<(), Violation> {
    for (operation, before) in operations.iter().zip(known_at_begin) {
        let Some(&revision) = witness.revisions.get(&operation.id) else { continue };
        if revision <= *before {
            let reason = format!("it stands at {revision}, and {before} was known when it began");
            return Err(Violation { operation: Some(operation.id), reason });
        }
    }
    Ok(())
}

/// Whether just the keys of one lease are gone. When it ended is nothing that a history of keys
/// tells.
fn is_end_of_lease<'k>(before: &State, gone: impl Iterator<Item = &'k Vec<u8>>) -> bool {
    let mut gone = gone.peekable();
    let lease = gone.peek().and_then(|key| before.get(key)).map_or(0, |found| found.lease);
    lease != 0 && before.leased(lease).map(|found| &found.key).eq(gone)
}

fn deleted_at(operation: &Operation) -> Option<i64> {
    match operation.answered {
        Some((_, Answer::Deleted { revision, count })) if count > 0 => Some(revision),
        _ => None,
    }
}

struct Told {
    revision: i64,
    wrote: bool,
    may_be_stale: bool,
}

fn told_of(operation: &Operation) -> Option<Told> {
    let (_, answer) = operation.answered.as_ref()?;
    let may_be_stale =
        matches!(operation.request, Request::Read { may_be_stale, .. } if may_be_stale);
    let (revision, wrote) = match answer {
        Answer::Written { revision } => (*revision, true),
        Answer::Deleted { revision, count } => (*revision, *count > 0),
        Answer::Swapped { revision, instead } => (*revision, instead.is_none()),
        Answer::Read { revision, .. } => (*revision, false),
        Answer::Refused => return None,
    };
    Some(Told { revision, wrote, may_be_stale })
}

#[cfg(test)]
mod tests;
