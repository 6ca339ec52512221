//! Succession: what a follower does when the leader's process is gone.
//!
//! raft waits an election's time in silence before it looks for another leader, because silence
//! alone says little. That a process has ended is known better: its host has closed the connections
//! in both directions, and refuses new ones. Then the leader is forgotten, so that members may tell
//! each other that they could win, and each of them stands after a short time that chance decides:
//! who stands first has won before the next one would.
//!
//! Invariants:
//! - raft's safety rests on terms and votes alone, as always. What is saved is waiting.
//! - Nobody stands so without asking first whether it could win ([`Consensus::forget_leader`]): if
//!   the leader lives after all, those who hear it say nothing, and its next heartbeat to this
//!   member ends the matter.
//! - It ends with a leader, with another candidate, and after an election's time. Then raft's own
//!   clock is what is left.
//!
//! [`Consensus::forget_leader`]: crate::raft::Consensus::forget_leader

use std::time::Duration;

use engine::ids::{MemberId, Term};

use super::LogCore;
use crate::raft::drawn;

/// A leader that is gone and has no successor yet.
#[derive(Debug)]
pub(super) struct Succession {
    /// In which it led.
    term: Term,
    /// When this member stands, or stands again.
    due: Duration,
    /// When it no longer does.
    until: Duration,
    /// How often it was due.
    tries: u64,
    /// Whether votes that count were given the time to come.
    has_waited: bool,
}

impl Succession {
    /// When there is something to do.
    pub(super) fn due(&self) -> Duration {
        self.due
    }
}

impl LogCore {
    /// A member's process is gone: there is no connection to it and none for its heartbeats, and
    /// its host says that nobody listens where it is reached.
    pub fn handle_absent(&mut self, peer: MemberId, now: Duration) {
        if self.transfers.is_raft_frozen() || !self.consensus.forget_leader(peer) {
            return;
        }
        let term = self.consensus.term();
        let until = now + self.heartbeat_interval * self.consensus.election_ticks();
        let due = now + self.part_of_heartbeat(term, 0);
        self.succession = Some(Succession { term, due, until, tries: 0, has_waited: false });
    }

    /// Stands for election when that is due.
    pub(super) fn advance_succession(&mut self, now: Duration) {
        let Some(Succession { term, due, until, tries, has_waited }) = self.succession else {
            return;
        };
        let is_own = self.consensus.is_candidate();
        let has_other = self.consensus.term() != term && !is_own;
        let has_leader = self.consensus.leader().is_some();
        if has_leader || has_other || now >= until || self.stopping {
            self.succession = None;
            return;
        }
        if now < due {
            return;
        }
        let tries = tries + 1;
        let mut wait = self.heartbeat_interval + self.part_of_heartbeat(term, tries);
        // Votes that count have to reach the disks of those who give them.
        let gives_time = is_own && !has_waited;
        if gives_time {
            wait += self.heartbeat_interval;
        } else if !self.transfers.is_raft_frozen() {
            self.consensus.campaign();
        }
        let has_waited = gives_time;
        self.succession = Some(Succession { term, due: now + wait, until, tries, has_waited });
    }

    /// Less than the time between two heartbeats, for each member and each try another one.
    fn part_of_heartbeat(&self, term: Term, tries: u64) -> Duration {
        let drawn = drawn(self.boot_nonce ^ self.member.0.rotate_left(32), term.0, tries);
        let part = u32::try_from(drawn >> 32).expect("the upper half of a word");
        let nanos = (self.heartbeat_interval.as_nanos() * u128::from(part)) >> 32;
        Duration::from_nanos(u64::try_from(nanos).expect("less than an interval that fits"))
    }

    /// A connection of this member's has ended. A leader that sees no majority any more may have a
    /// successor soon.
    pub(super) fn notice_isolation(&mut self) {
        if self.consensus.is_leader() && self.connected_since().is_none() {
            self.doubt_leading(self.ticked);
        }
    }
}
