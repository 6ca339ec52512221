//! Who sees every member's store after every turn: the one history that they all must have.
//!
//! Every member is held to it, and so is every watcher. What clients were told is held against it
//! at the end, by the oracle.

use engine::events::{EventKind, EventRef, EventSink, Interest, events_since};
use engine::ids::Revision;
use engine::{ReadError, Rejection, View};

use super::values;
use crate::oracle::chronicle::Chronicle;
use crate::oracle::history::Change;

/// A violation, told in words.
pub type Wrong = String;

/// The history so far.
#[derive(Debug, Default)]
pub struct Witness {
    chronicle: Chronicle,
}

/// Up to where somebody's store, or what he was told, was compared.
#[derive(Debug, Clone, Copy)]
pub struct Seen(pub i64);

impl Seen {
    /// Nothing yet; an empty store has revision 1.
    pub const NOTHING: Self = Self(1);
}

impl Witness {
    /// The history.
    #[must_use]
    pub fn chronicle(&self) -> &Chronicle {
        &self.chronicle
    }

    /// Looks at what a view has beyond what was seen of this member's. Answers with whether
    /// anything is new to all.
    ///
    /// # Errors
    /// The view tells another history.
    pub fn observe(&mut self, view: &View, seen: &mut Seen) -> Result<bool, Wrong> {
        if view.revision.0 <= seen.0 {
            return Ok(false);
        }
        let told = read_since(view, seen)?;
        let newest_before = self.chronicle.newest();
        self.take(told, seen.0, view.revision.0)?;
        seen.0 = view.revision.0;
        Ok(self.chronicle.newest() > newest_before)
    }

    /// Holds changes of the revisions behind `from` up to `to` to the history, or adds them to it.
    fn take(&mut self, told: Vec<Change>, from: i64, to: i64) -> Result<(), Wrong> {
        let mut told = told.into_iter().peekable();
        for revision in from + 1..=to {
            let mut changes = Vec::new();
            while let Some(change) = told.next_if(|change| change.revision == revision) {
                changes.push(change);
            }
            self.chronicle.take(revision, changes)?;
        }
        match told.next() {
            Some(change) => Err(format!("a change of revision {} out of order", change.revision)),
            None => Ok(()),
        }
    }
}

/// What a watcher has been told, held to the history as it comes.
#[derive(Debug, Clone, Copy)]
pub struct Watcher {
    seen: Seen,
}

impl Watcher {
    /// One that wants to know all from the beginning.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen: Seen::NOTHING }
    }

    /// Up to which revision it was told everything.
    #[must_use]
    pub const fn told(&self) -> i64 {
        self.seen.0
    }

    /// Takes a batch of events, or reads what is missing from the view.
    ///
    /// # Errors
    /// It was told something else than what happened.
    pub fn handle_events(
        &mut self,
        witness: &mut Witness,
        batch: &engine::EventBatch,
        view: &View,
    ) -> Result<(), Wrong> {
        if batch.last().0 <= self.seen.0 {
            return Ok(());
        }
        if batch.is_gap() || batch.previous().0 != self.seen.0 {
            return self.catch_up(witness, view);
        }
        let told = batch.events().map(|event| change_of(&event)).collect();
        witness.take(told, self.seen.0, batch.last().0)?;
        self.seen.0 = batch.last().0;
        Ok(())
    }

    /// Reads what is missing from the view.
    ///
    /// # Errors
    /// As above.
    pub fn catch_up(&mut self, witness: &mut Witness, view: &View) -> Result<(), Wrong> {
        witness.observe(view, &mut self.seen).map(drop)
    }
}

impl Default for Watcher {
    fn default() -> Self {
        Self::new()
    }
}

struct Changes(Vec<Change>);

impl EventSink for Changes {
    fn interest(&mut self, _kind: EventKind, _key: &[u8]) -> Interest {
        Interest::Event
    }

    fn event(&mut self, event: EventRef<'_>) {
        self.0.push(change_of(&event));
    }
}

fn change_of(event: &EventRef<'_>) -> Change {
    Change {
        revision: event.change.main.0,
        sub: event.change.sub,
        key: event.record.key.to_vec(),
        value: (event.kind == EventKind::Put).then(|| values::brief(event.record.value)),
        lease: event.record.lease.0,
    }
}

/// What a view tells of the revisions that were not seen yet. What is compacted counts as seen.
fn read_since(view: &View, seen: &mut Seen) -> Result<Vec<Change>, Wrong> {
    // A compacted revision may have lost some of its changes already.
    seen.0 = seen.0.max(view.compacted.0.min(view.revision.0));
    let mut changes = Changes(Vec::new());
    match events_since(view, Revision(seen.0 + 1), usize::MAX, &mut changes) {
        Ok(_) => Ok(changes.0),
        Err(ReadError::Rejection(Rejection::Compacted)) => Ok(Vec::new()),
        Err(error) => Err(format!("a member's history cannot be read: {error}")),
    }
}
