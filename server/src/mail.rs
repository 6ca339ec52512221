//! What cores say to each other: one letter a turn each way between a front-end and the log core.
//!
//! A letter gathers all that its writer has to say in one turn of its loop, so that a hop costs one
//! wake-up however many requests it carries. On a machine where both roles share an executor the
//! same letters pass through a plain queue.
//!
//! The log core never waits for a reader: an answer's place is reserved by the ask, so answers that
//! find a full ring are kept with their front-end's letter until there is room, and events that
//! find one are dropped and reported as a gap, which watchers fill from the tree.

use std::sync::Arc;

use engine::{Answer, EventBatch};

/// The number of a front-end, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendId(pub u16);

impl FrontendId {
    /// The member itself, when it has something to say to its cluster.
    pub const NOBODY: Self = Self(u16::MAX);

    /// Its place in tables of all front-ends.
    #[must_use]
    pub fn place(self) -> usize {
        usize::from(self.0)
    }
}

/// Where a front-end keeps what it needs to answer one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// From a front-end to the log core.
#[derive(Debug, Default)]
pub struct Ask {
    /// Command frames, one for each of `slots`, in the same order.
    pub frames: Vec<u8>,
    /// Where their answers go.
    pub slots: Vec<Slot>,
    /// Linearizable reads that wait for a read-index round.
    pub reads: Vec<Slot>,
    /// Who wants the store defragmented.
    pub defrags: Vec<Slot>,
}

impl Ask {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.reads.is_empty() && self.defrags.is_empty()
    }
}

/// From the log core to a front-end.
#[derive(Debug, Default)]
pub struct Reply {
    /// How writes ended.
    pub answers: Vec<(Slot, Verdict)>,
    /// Writes that are applied and whose answers wait for background work, however long it takes.
    pub patient: Vec<Slot>,
    /// Reads that may go on: the view is at least as new as their round.
    pub reads: Vec<Slot>,
    /// Reads whose round never ended.
    pub reads_failed: Vec<(Slot, Unavailable)>,
    /// What changed, in order.
    pub events: Vec<Arc<EventBatch>>,
    /// Events before `events` were dropped because the ring was full.
    pub gap: bool,
}

impl Reply {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
            && self.patient.is_empty()
            && self.reads.is_empty()
            && self.reads_failed.is_empty()
            && self.events.is_empty()
            && !self.gap
    }
}

/// How a write ended.
#[derive(Debug)]
pub enum Verdict {
    /// It was applied (or refused by apply); everything up to it is published.
    Applied(Answer),
    /// The store is defragmented.
    Defragmented,
    /// It was not taken, or its fate is unknown.
    Unavailable(Unavailable),
}

/// Why the cluster gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// Nobody leads.
    NoLeader,
    /// Leadership moved while the request was under way.
    LeaderChanged,
    /// No answer came in time; the command may still be applied later.
    TimedOut,
    /// The server is stopping.
    Stopped,
    /// More is under way than the server takes.
    TooManyRequests,
    /// The disk cannot hold what this would write.
    NoSpace,
}
