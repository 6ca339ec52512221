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

use crate::answer::{ReadError, Rejection};
use crate::ids::{Change, LeaseId, Revision};
use crate::layout::ChangeKind;
use crate::limits::{EVENTS_COUNT_MAX, EVENTS_SIZE_BYTES_MAX};
use crate::range::Record;
use crate::store::{self, Changes, Front, Store};
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

    fn empty(revision: Revision) -> Self {
        Self {
            previous: revision,
            last: revision,
            gap: false,
            events: Vec::new(),
            arena: Vec::new(),
        }
    }

    fn store(&mut self, record: &Record<'_>) -> Stored {
        Stored {
            key: self.store_bytes(record.key),
            value: self.store_bytes(record.value),
            create_revision: record.create_revision,
            mod_revision: record.mod_revision,
            version: record.version,
            lease: record.lease,
        }
    }

    fn store_bytes(&mut self, bytes: &[u8]) -> Range<u32> {
        let narrow = |len: usize| u32::try_from(len).expect("the arena is bounded far below 4 GiB");
        let start = narrow(self.arena.len());
        self.arena.extend_from_slice(bytes);
        start..narrow(self.arena.len())
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
/// the compacted revision the answer is [`Rejection::Compacted`]; a revision that lies ahead of
/// the view comes back unchanged.
pub fn events_since(
    view: &View,
    from: Revision,
    budget: usize,
    sink: &mut impl EventSink,
) -> Result<Revision, ReadError> {
    if from < view.compacted() {
        return Err(Rejection::Compacted.into());
    }
    let mut last = None;
    let mut changes = Changes::new(view, Change::first_of(from.max(Revision(0))))?;
    let mut looked_at = 0;
    while let Some(front) = changes.front() {
        let main = front.change().main;
        if looked_at >= budget.max(1) && last.is_some_and(|last| last < main) {
            return Ok(main);
        }
        looked_at += 1;
        tell(view, &front, sink)?;
        last = Some(main);
        changes.advance(&front)?;
    }
    Ok(from.max(view.revision().next()))
}

fn tell(view: &View, front: &Front<'_>, sink: &mut impl EventSink) -> Result<(), ReadError> {
    let (change, key, kind) = (front.change(), front.key, front.logged.kind);
    let event = match kind {
        ChangeKind::Tombstone => EventKind::Delete,
        ChangeKind::Create | ChangeKind::Update => EventKind::Put,
    };
    let interest = sink.interest(event, key);
    if interest == Interest::Skip {
        return Ok(());
    }
    let (pages, roots) = view.shard(front.shard);
    let mut record = Record { key, mod_revision: change.main, ..Record::default() };
    if event == EventKind::Put {
        // Compaction leaves one version of a key at its own revision, whether the sweep has come
        // there or not.
        if change.main == view.compacted {
            let seen = store::version_at(pages, roots, key, change.main)?;
            if seen.is_none_or(|found| found.version.change != change) {
                return Ok(());
            }
        }
        let found = front.version(pages, roots)?;
        record = found.version.record(key, found.value(pages)?);
    }
    // etcd looks for a record before only if the key was not created by this very revision.
    let wants_prev =
        interest == Interest::EventAndPrev && front.logged.version.create_revision != change.main;
    // The record as it was one revision before; what was compacted is not told, whether the sweep
    // has reached it or not.
    let before = Revision(change.main.0 - 1);
    let prev = if wants_prev && before >= view.compacted() {
        store::version_before(pages, roots, key, change, before)?
    } else {
        None
    };
    let prev = match &prev {
        Some(found) => Some(found.version.record(key, found.value(pages)?)),
        None => None,
    };
    sink.event(EventRef { kind: event, change, record, prev });
    Ok(())
}

/// Collects the events of a batch while it is applied.
#[derive(Debug)]
pub(crate) struct EventBuilder {
    wanted: bool,
    prev_wanted: bool,
    batch: EventBatch,
}

impl EventBuilder {
    pub(crate) fn new(revision: Revision) -> Self {
        Self { wanted: false, prev_wanted: false, batch: EventBatch::empty(revision) }
    }

    /// What was collected for nobody is dropped; what was not collected is a gap.
    pub(crate) fn set_wanted(&mut self, wanted: bool, prev_wanted: bool, revision: Revision) {
        if wanted != self.wanted {
            self.batch = EventBatch::empty(revision);
        }
        self.wanted = wanted;
        self.prev_wanted = prev_wanted;
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    pub(crate) fn is_prev_wanted(&self) -> bool {
        self.wanted && self.prev_wanted
    }

    /// Takes an event. Those of one batch may come shard by shard: see [`EventBuilder::take`].
    pub(crate) fn push(&mut self, event: &EventRef<'_>) {
        if !self.wanted || self.batch.gap {
            return;
        }
        let batch = &mut self.batch;
        let bytes = |record: &Record<'_>| record.key.len() + record.value.len();
        let size_bytes = bytes(&event.record) + event.prev.as_ref().map_or(0, bytes);
        if batch.events.len() >= EVENTS_COUNT_MAX
            || batch.arena.len() + size_bytes > EVENTS_SIZE_BYTES_MAX
        {
            return self.lose();
        }
        let record = batch.store(&event.record);
        let prev = event.prev.as_ref().map(|prev| batch.store(prev));
        batch.events.push(Event { kind: event.kind, change: event.change, record, prev });
    }

    /// What happens until the batch is taken is not to be told event by event.
    pub(crate) fn lose(&mut self) {
        self.batch.gap = true;
        self.batch.events = Vec::new();
        self.batch.arena = Vec::new();
    }

    /// The batch up to a revision, if anything changed and somebody wants to know.
    pub(crate) fn take(&mut self, revision: Revision) -> Option<EventBatch> {
        if !self.wanted || self.batch.previous == revision {
            return None;
        }
        let mut batch = std::mem::replace(&mut self.batch, EventBatch::empty(revision));
        batch.last = revision;
        batch.events.sort_by_key(|event| event.change);
        Some(batch)
    }
}
