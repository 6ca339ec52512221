//! What all clients asked and were told, by one clock.
//!
//! Large values are written down in brief, as the simulator's are: a record of a gigabyte would
//! otherwise be one of the drill's own memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::oracle::history::{Answer, OpId, Operation, Request};

/// All operations, and what was promised of leases.
pub struct Record {
    begun: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    operations: Vec<Operation>,
    writes: u64,
    promises: BTreeMap<i64, Promise>,
}

/// Until when a lease lives at the least, in nanoseconds since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// When what was answered had been asked.
    pub asked: u64,
    /// Until when.
    pub until: u64,
}

impl Record {
    /// An empty one; its clock begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { begun: Instant::now(), inner: Mutex::default() }
    }

    /// Now, in nanoseconds since the beginning.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a drill is shorter than a century")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change of it is whole: a client that panicked has left nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is about to be asked.
    pub fn begin(&self, request: &Request) -> OpId {
        let mut inner = self.inner();
        let id = OpId(inner.operations.len() as u64);
        // Under the lock: the clock and the order of operations agree.
        let begun = self.now();
        inner.operations.push(Operation { id, request: request.clone(), begun, answered: None });
        id
    }

    /// It was answered.
    pub fn end(&self, id: OpId, answer: Answer) {
        let now = self.now();
        let mut inner = self.inner();
        let is_write = match &answer {
            Answer::Written { .. } | Answer::Swapped { instead: None, .. } => true,
            Answer::Deleted { count, .. } => *count > 0,
            _ => false,
        };
        inner.writes += u64::from(is_write);
        let place = usize::try_from(id.0).expect("it was a place");
        inner.operations[place].answered = Some((now, answer));
    }

    /// How many writes were acknowledged.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.inner().writes
    }

    /// A lease was granted or renewed for so many seconds by an answer to what was asked then.
    pub fn promise(&self, lease: i64, asked: u64, seconds: i64) {
        let Ok(seconds) = u64::try_from(seconds) else { return };
        let until = asked.saturating_add(seconds.saturating_mul(1_000_000_000));
        let promise = Promise { asked, until };
        let mut inner = self.inner();
        let kept = inner.promises.entry(lease).or_insert(promise);
        if kept.until < until {
            *kept = promise;
        }
    }

    /// What was promised of leases.
    #[must_use]
    pub fn promises(&self) -> BTreeMap<i64, Promise> {
        self.inner().promises.clone()
    }

    /// All operations.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.inner().operations.clone()
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_promises_the_longest_counts() {
        let record = Record::new();
        record.promise(7, 100, 2);
        record.promise(7, 50, 1);
        let promise = Promise { asked: 100, until: 2_000_000_100 };
        assert_eq!(record.promises()[&7], promise);
    }

    #[test]
    fn what_is_not_answered_stays_unknown() {
        let record = Record::new();
        let put = Request::Put { key: b"k".to_vec(), lease: 0 };
        let (first, second) = (record.begin(&put), record.begin(&put));
        record.end(second, Answer::Written { revision: 2 });
        let operations = record.operations();
        assert_eq!((operations[0].id, operations[0].answered.clone()), (first, None));
        assert!(operations[1].answered.is_some());
        assert_eq!(record.writes(), 1);
    }
}
