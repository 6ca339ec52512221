//! Events: what watchers are told, as one immutable batch, and the catch-up from the tree.
//!
//! A batch is built while its commands are applied, and only if somebody watches. All its bytes
//! lie in one arena; cores share the batch and copy nothing.
//!
//! Invariants:
//! - Batches chain: `previous` of one is `last` of the one before. A core that sees another number
//!   has missed something and reads the tree.
//! - A batch holds every event of its revisions or, marked as a gap, none.
//! - Events are ordered by change; a revision is never split between batches.

use std::ops::Range;

use crate::answer::ReadError;
use crate::ids::{Change, LeaseId, Revision};
use crate::range::Record;
use crate::view::View;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A version was written.
    Put,
    /// The key was deleted.
    Delete,
}

/// An event, borrowed from a batch or from a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// What happened.
    pub kind: EventKind,
    /// When: the revision, and the place among its changes.
    pub change: Change,
    /// The record written. Of a delete it holds the key and the mod revision, nothing else.
    pub record: Record<'a>,
    /// The record as it was at the revision before, if it was asked for, existed and was not
    /// compacted.
    pub prev: Option<Record<'a>>,
}

/// A record whose bytes lie in the arena.
#[derive(Clone, Debug)]
struct Stored {
    key: Range<u32>,
    value: Range<u32>,
    create_revision: Revision,
    mod_revision: Revision,
    version: i64,
    lease: LeaseId,
}

#[derive(Clone, Debug)]
struct Event {
    kind: EventKind,
    change: Change,
    record: Stored,
    prev: Option<Stored>,
}

/// The events of one applied batch.
#[derive(Debug)]
pub struct EventBatch {
    previous: Revision,
    last: Revision,
    gap: bool,
    events: Vec<Event>,
    arena: Vec<u8>,
}

impl EventBatch {
    /// The store's revision before the batch.
    #[must_use]
    pub fn previous(&self) -> Revision {
        self.previous
    }

    /// The store's revision after the batch.
    #[must_use]
    pub fn last(&self) -> Revision {
        self.last
    }

    /// Whether the events were too many to be kept: read `(previous, last]` from the tree.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        self.gap
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The memory the batch keeps alive.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.arena.capacity() + self.events.capacity() * size_of::<Event>()
    }

    /// The event at a place.
    ///
    /// # Panics
    /// If `index` is not below [`EventBatch::len`].
    #[must_use]
    pub fn event(&self, index: usize) -> EventRef<'_> {
        let event = &self.events[index];
        EventRef {
            kind: event.kind,
            change: event.change,
            record: self.record(&event.record),
            prev: event.prev.as_ref().map(|prev| self.record(prev)),
        }
    }

    /// All events in the order of changes.
    pub fn events(&self) -> impl ExactSizeIterator<Item = EventRef<'_>> {
        (0..self.len()).map(|index| self.event(index))
    }

    fn record(&self, stored: &Stored) -> Record<'_> {
        let bytes = |range: &Range<u32>| &self.arena[range.start as usize..range.end as usize];
        Record {
            key: bytes(&stored.key),
            value: bytes(&stored.value),
            create_revision: stored.create_revision,
            mod_revision: stored.mod_revision,
            version: stored.version,
            lease: stored.lease,
        }
    }
}

/// How much of an event somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing: the record is not even read.
    Skip,
    /// The event.
    Event,
    /// The event and the record before it.
    EventAndPrev,
}

/// Where the events of a catch-up go.
pub trait EventSink {
    /// Asked for each change before its record is read.
    fn interest(&mut self, kind: EventKind, key: &[u8]) -> Interest;

    /// Takes the next event, in the order of changes.
    fn event(&mut self, event: EventRef<'_>);
}

/// Tells a sink what happened from revision `from` on, and answers with the revision to go on
/// from: one more than the view's when all was told.
///
/// Stops between revisions once `budget` changes were looked at: a revision is never split. Below
/// the compacted revision the answer is [`crate::Rejection::Compacted`]; a revision that lies ahead of the
/// view comes back unchanged.
pub fn events_since(
    view: &View,
    from: Revision,
    budget: usize,
    sink: &mut impl EventSink,
) -> Result<Revision, ReadError> {
    unfinished((view, from, budget, sink))
}

fn unfinished<T, R>(_: T) -> R {
    panic!("landing: comes with the tree")
}
