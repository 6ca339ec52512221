//! The store's changes as watchers of every member tell them: one history, the same for all.
//!
//! What clients were told is held against it at the end, by the oracle.
//!
//! Invariants:
//! - No revision is left out, told twice to one watcher, or cut in two.

use std::collections::BTreeMap;

use super::record::Promise;
use crate::oracle::chronicle::Chronicle;
use crate::oracle::history::Change;
use crate::rpc::wire::mvccpb::{Event, event::EventType};
use crate::sim::values;

/// The history so far.
#[derive(Debug, Default)]
pub struct Witness {
    chronicle: Chronicle,
    /// Keys that are gone: when that was first told, in nanoseconds.
    gone: BTreeMap<Vec<u8>, u64>,
}

/// Up to which revision a watcher was told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told(pub i64);

impl Told {
    /// Nothing yet; an empty store has revision 1.
    pub const NOTHING: Self = Self(1);
}

impl Witness {
    /// The history.
    #[must_use]
    pub fn chronicle(&self) -> &Chronicle {
        &self.chronicle
    }

    /// A watcher was told these events at this moment.
    ///
    /// # Errors
    /// They are not what happened.
    pub fn take(&mut self, told: &mut Told, events: &[Event], now: u64) -> Result<(), String> {
        for events in events.chunk_by(|one, next| revision_of(one) == revision_of(next)) {
            let changes: Vec<Change> = (0..).zip(events).map(change_of).collect();
            let revision = revision_of(&events[0]);
            if revision != told.0 + 1 {
                return Err(format!("a watcher was told of {revision} behind {}", told.0));
            }
            let gone = changes.iter().filter(|change| change.value.is_none());
            let gone: Vec<_> = gone.map(|change| change.key.clone()).collect();
            if self.chronicle.take(revision, changes)? {
                self.gone.extend(gone.into_iter().map(|key| (key, now)));
            }
            told.0 = revision;
        }
        Ok(())
    }

    /// Holds the end of leases to what was promised of them: each has one key, which nobody
    /// deletes.
    ///
    /// # Errors
    /// A lease that ended too soon.
    pub fn check_leases(&self, promises: &BTreeMap<i64, Promise>) -> Result<(), String> {
        for (lease, promise) in promises {
            let Some(&gone) = self.gone.get(lease_key(*lease).as_slice()) else { continue };
            if gone < promise.until {
                let [asked, until, gone] =
                    [promise.asked, promise.until, gone].map(|at| at as f64 / 1e9);
                return Err(format!(
                    "lease {lease} was gone at {gone:.3} s, and what was asked at {asked:.3} s \
                     was answered with its life until {until:.3} s"
                ));
            }
        }
        Ok(())
    }
}

/// The key of a lease.
#[must_use]
pub fn lease_key(lease: i64) -> Vec<u8> {
    format!("l{lease}").into_bytes()
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |record| record.mod_revision)
}

fn change_of((sub, event): (i64, &Event)) -> Change {
    let record = event.kv.clone().unwrap_or_default();
    Change {
        revision: record.mod_revision,
        sub,
        key: record.key,
        value: (event.r#type == i32::from(EventType::Put)).then(|| values::brief(&record.value)),
        lease: record.lease,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::wire::mvccpb::KeyValue;

    fn event(revision: i64, key: &[u8], value: Option<&[u8]>) -> Event {
        let kind = if value.is_some() { EventType::Put } else { EventType::Delete };
        let kv = KeyValue {
            key: key.to_vec(),
            value: value.unwrap_or_default().to_vec(),
            mod_revision: revision,
            ..KeyValue::default()
        };
        Event { r#type: kind.into(), kv: Some(kv), prev_kv: None }
    }

    #[test]
    fn all_watchers_are_held_to_one_history() {
        let mut witness = Witness::default();
        let (mut first, mut second) = (Told::NOTHING, Told::NOTHING);
        let both = [event(3, b"a", None), event(3, b"b", None)];
        witness.take(&mut first, &[event(2, b"a", Some(b"1"))], 1).unwrap();
        witness.take(&mut first, &both, 2).unwrap();
        let told = [&[event(2, b"a", Some(b"1"))][..], &both].concat();
        witness.take(&mut second, &told, 3).unwrap();
        assert_eq!((first, second, witness.chronicle().newest()), (Told(3), Told(3), 3));
        assert_eq!(witness.chronicle().changes().len(), 3);
        let other = witness.take(&mut Told(2), &both[..1], 4).unwrap_err();
        assert!(other.contains("disagree about revision 3"), "{other}");
    }

    #[test]
    fn a_gap_and_a_repetition_are_noticed() {
        let mut witness = Witness::default();
        let mut told = Told::NOTHING;
        let gap = witness.take(&mut told, &[event(3, b"a", None)], 1).unwrap_err();
        assert_eq!(gap, "a watcher was told of 3 behind 1");
        witness.take(&mut told, &[event(2, b"a", Some(b"1"))], 1).unwrap();
        assert!(witness.take(&mut told, &[event(2, b"a", Some(b"1"))], 1).is_err());
        // Half of a revision, and then the rest of it.
        witness.take(&mut told, &[event(3, b"a", None)], 1).unwrap();
        assert!(witness.take(&mut told, &[event(3, b"b", None)], 1).is_err());
    }

    #[test]
    fn a_lease_that_ends_before_its_time_is_noticed() {
        let mut witness = Witness::default();
        let mut told = Told::NOTHING;
        let events = [event(2, b"l7", Some(b"1")), event(3, b"l7", None)];
        witness.take(&mut told, &events, 5_000_000_000).unwrap();
        let promises = |until| BTreeMap::from([(7, Promise { asked: 1_000_000_000, until })]);
        assert_eq!(witness.check_leases(&promises(5_000_000_000)), Ok(()));
        let text = witness.check_leases(&promises(5_000_000_001)).unwrap_err();
        assert!(text.contains("lease 7 was gone at 5.000 s"), "{text}");
    }
}
