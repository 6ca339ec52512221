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

use engine::ids::{LeaseId, MemberId};
use engine::{Answer, EventBatch};

/// The number of a front-end, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendId(pub u16);

impl FrontendId {
    /// The member itself, when it has something to say to its cluster.
    pub const NOBODY: Self = Self(u16::MAX);
    /// Other members, when they ask what only the leader knows.
    pub const PEERS: Self = Self(u16::MAX - 1);

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
    /// What only the keeper of the leases' clocks knows.
    pub leases: Vec<(Slot, LeaseAsk)>,
    /// Changes of the members: a command each, that stands alone in its batch.
    pub changes: Vec<(Slot, Vec<u8>)>,
    /// To whom leadership is to move.
    pub moves: Vec<(Slot, MemberId)>,
}

impl Ask {
    /// All of it was said. What is left out here would be said again in every turn, on the core
    /// that both roles share: a defragmentation once was.
    pub fn clear(&mut self) {
        let Self { frames, slots, reads, leases, defrags, changes, moves } = self;
        frames.clear();
        slots.clear();
        reads.clear();
        leases.clear();
        defrags.clear();
        changes.clear();
        moves.clear();
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let has_reads = !self.reads.is_empty() || !self.leases.is_empty();
        let has_rare =
            !self.defrags.is_empty() || !self.changes.is_empty() || !self.moves.is_empty();
        self.slots.is_empty() && !has_reads && !has_rare
    }
}

/// A question about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAsk {
    /// Keep it alive. The slot is that of a stream, which counts its requests.
    Renew {
        /// The lease.
        id: LeaseId,
        /// The request's number.
        sequence: u64,
    },
    /// How long it has left.
    TimeToLive(LeaseId),
    /// Which leases there are.
    List,
}

impl LeaseAsk {
    /// The answer of a member that gives none, for this reason.
    #[must_use]
    pub const fn refused(self, reason: Unavailable) -> LeaseReply {
        match (self, reason) {
            (Self::Renew { sequence, .. }, Unavailable::Stopped) => {
                LeaseReply::Renewed { sequence, renewed: Renewed::Stopped }
            }
            (Self::Renew { sequence, .. }, _) => {
                LeaseReply::Renewed { sequence, renewed: Renewed::NotPrimary }
            }
            _ => LeaseReply::Unavailable(reason),
        }
    }
}

/// An answer about leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseReply {
    /// To a keep-alive.
    Renewed {
        /// The request's number.
        sequence: u64,
        /// How it ended.
        renewed: Renewed,
    },
    /// The seconds left, and those it was granted for; `None` if there is no such lease.
    TimeToLive(Option<(i64, i64)>),
    /// All leases, those that run out earlier before others; where there is a zero, there is none.
    /// Shared by all that wanted it at once.
    List(Arc<Vec<LeaseId>>),
    /// None, to anything but a keep-alive.
    Unavailable(Unavailable),
}

/// How a keep-alive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The lease lives on for so long; zero if there is no such lease any more.
    Lives {
        /// In seconds.
        ttl_seconds: i64,
    },
    /// The member that was asked does not keep the clocks.
    NotPrimary,
    /// It is stopping.
    Stopped,
}

impl LeaseReply {
    /// Whether a lease lives on because somebody asked for it.
    #[must_use]
    pub const fn is_renewal(&self) -> bool {
        matches!(self, Self::Renewed { renewed: Renewed::Lives { ttl_seconds: 1.. }, .. })
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
    /// What was asked about leases.
    pub leases: Vec<(Slot, LeaseReply)>,
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
            && self.leases.is_empty()
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
    /// The other member leads.
    Moved,
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
    /// Too few members of the cluster that a change would leave have started.
    NotEnoughStarted,
    /// Too few members are connected to the leader for a change of them.
    Unhealthy,
    /// A learner is too far behind to vote.
    LearnerNotReady,
    /// There is no such member to promote.
    MemberNotFound,
    /// The member that was asked does not lead.
    NotLeader,
    /// Leadership cannot move to that member.
    BadTransferee,
    /// Leadership has not moved in time.
    TransferTimedOut,
}
