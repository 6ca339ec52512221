//! What the log core tells every other core without a letter: a handful of words it alone writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::mail::FrontendId;

/// The member's state of affairs, for response headers and `Status`. Each word stands alone; a
/// reader that needs two of them consistent uses the view instead.
#[derive(Debug, Default)]
pub struct Status {
    term: AtomicU64,
    leader: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    serving: AtomicBool,
    learner: AtomicBool,
    leader_since_micros: AtomicU64,
    connected_since_micros: AtomicU64,
}

/// A copy of [`Status`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusCopy {
    /// The current term.
    pub term: u64,
    /// The leader's member id, 0 while there is none.
    pub leader: u64,
    /// The highest committed index.
    pub committed: u64,
    /// The highest applied index.
    pub applied: u64,
    /// Whether client requests are answered.
    pub serving: bool,
    /// Whether this member has no vote.
    pub learner: bool,
    /// Since when it has known the leader that it knows.
    pub leader_since_micros: u64,
    /// Since when, without a break, the leader has been connected to a quorum if it is this member,
    /// or this member to the leader; `u64::MAX` while it is not.
    pub connected_since_micros: u64,
}

impl Status {
    /// Publishes a new state; only the log core calls it.
    pub fn set(&self, copy: StatusCopy) {
        self.term.store(copy.term, Ordering::Relaxed);
        self.leader.store(copy.leader, Ordering::Relaxed);
        self.committed.store(copy.committed, Ordering::Relaxed);
        self.applied.store(copy.applied, Ordering::Relaxed);
        self.learner.store(copy.learner, Ordering::Relaxed);
        self.leader_since_micros.store(copy.leader_since_micros, Ordering::Relaxed);
        self.connected_since_micros.store(copy.connected_since_micros, Ordering::Relaxed);
        self.serving.store(copy.serving, Ordering::Release);
    }

    /// The state as last published.
    #[must_use]
    pub fn get(&self) -> StatusCopy {
        StatusCopy {
            term: self.term.load(Ordering::Relaxed),
            leader: self.leader.load(Ordering::Relaxed),
            committed: self.committed.load(Ordering::Relaxed),
            applied: self.applied.load(Ordering::Relaxed),
            learner: self.learner.load(Ordering::Relaxed),
            leader_since_micros: self.leader_since_micros.load(Ordering::Relaxed),
            connected_since_micros: self.connected_since_micros.load(Ordering::Relaxed),
            serving: self.serving.load(Ordering::Acquire),
        }
    }
}

/// Which front-ends have watchers, so that events are built only for those who listen.
///
/// A front-end sets its flag, then loads the view; the log core publishes the view, then loads the
/// flags (all sequentially consistent). So either the core sees the flag and sends the events (or a
/// gap), or the front-end sees the view that holds them and catches up from it.
#[derive(Debug)]
pub struct WatchInterest {
    frontends: Vec<[AtomicBool; 2]>,
}

impl WatchInterest {
    /// For `count` front-ends, none of which listens.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { frontends: (0..count).map(|_| Default::default()).collect() }
    }

    /// Says whether a front-end has watchers, and whether any wants the previous values.
    pub fn set(&self, frontend: FrontendId, events: bool, previous: bool) {
        let [events_flag, previous_flag] = &self.frontends[frontend.place()];
        events_flag.store(events, Ordering::SeqCst);
        previous_flag.store(previous, Ordering::SeqCst);
    }

    /// Whether this front-end listens.
    #[must_use]
    pub fn wants_events(&self, frontend: FrontendId) -> bool {
        self.frontends[frontend.place()][0].load(Ordering::SeqCst)
    }

    /// Whether anyone listens, and whether anyone wants previous values.
    #[must_use]
    pub fn any(&self) -> (bool, bool) {
        let mut any = (false, false);
        for [events, previous] in &self.frontends {
            any.0 |= events.load(Ordering::SeqCst);
            any.1 |= previous.load(Ordering::SeqCst);
        }
        any
    }
}
