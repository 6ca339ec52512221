//! What a leader asks before it proposes a change of members.
//!
//! etcd's rules, in its order: with `--strict-reconfig-check` a change may not leave a cluster
//! whose started members are fewer than a quorum, nor be made while the members that would have to
//! agree are not connected; a learner is promoted only when it has nearly all of the log. Whether
//! the change fits the members at all (an id that exists, a URL that is taken, too many learners)
//! is asked where it is applied, on each member alike, and not here: until then others may change
//! them.
//!
//! Two rules are ours, because raft-rs would otherwise answer with silence or the end of the
//! process: one change is under way at a time, and the last voter is never removed.
//!
//! Invariants:
//! - Pure: a roster and a moment in, a verdict out.
//! - A member that asks about itself is connected to itself.

use std::time::Duration;

use engine::ids::{LogIndex, MemberId};

/// How long members have to have been connected to count: etcd's `HealthInterval`.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// One member, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RosterMember {
    /// Its id.
    pub id: MemberId,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Whether it has ever started, which is when its name becomes known.
    pub is_started: bool,
    /// Since when the leader has been connected to it, without a break; of itself it does not
    /// matter.
    pub connected_since: Option<Duration>,
    /// Up to where its log is the leader's; `None` if raft does not follow it.
    pub matched: Option<LogIndex>,
}

/// All members, and what is under way.
#[derive(Debug, Clone)]
pub struct Roster {
    /// The leader, who asks.
    pub own: MemberId,
    /// All members.
    pub members: Vec<RosterMember>,
    /// A change of members that was proposed and is not applied.
    pub is_change_pending: bool,
    /// `--strict-reconfig-check`.
    pub is_strict: bool,
}

/// A change of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member, as a learner or with a vote.
    Add {
        /// Whether it gets no vote.
        is_learner: bool,
    },
    /// A member less.
    Remove(MemberId),
    /// A learner gets a vote.
    Promote(MemberId),
    /// Other peer URLs of a member.
    Update(MemberId),
}

/// Why a change is not proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRefused {
    /// Another one is under way; this one may be tried again when that is applied.
    ChangePending,
    /// "re-configuration failed due to not enough started members".
    NotEnoughStarted,
    /// "unhealthy cluster".
    Unhealthy,
    /// "can only promote a learner member which is in sync with leader".
    LearnerNotReady,
    /// "member not found".
    MemberNotFound,
}

/// Whether the leader may propose this change now.
///
/// # Errors
/// Why not: the first reason, in etcd's order.
pub fn check(change: MemberChange, roster: &Roster, now: Duration) -> Result<(), ChangeRefused> {
    match change {
        MemberChange::Add { is_learner } => roster.check_add(is_learner, now)?,
        MemberChange::Remove(id) => roster.check_remove(id, now)?,
        MemberChange::Promote(id) => roster.check_promote(id)?,
        // etcd asks nothing before it changes URLs, and raft does not see it: it is a command like
        // any other, and may be under way beside another change.
        MemberChange::Update(_) => return Ok(()),
    }
    // Last, so that a change that can never be made is refused at once instead of waiting.
    if roster.is_change_pending { Err(ChangeRefused::ChangePending) } else { Ok(()) }
}

impl Roster {
    fn voters(&self) -> impl Iterator<Item = &RosterMember> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    fn check_add(&self, is_learner: bool, now: Duration) -> Result<(), ChangeRefused> {
        if !self.is_strict {
            return Ok(());
        }
        let voters = self.voters().count();
        let started = self.voters().filter(|member| member.is_started).count();
        // From one member to two there is no other way but through a cluster that waits for the
        // second, and a restored one has to be able to grow.
        let is_first = started == 1 && voters == 1;
        if !is_learner && !is_first && started < quorum(voters + 1) {
            return Err(ChangeRefused::NotEnoughStarted);
        }
        // The new member counts as one that is not connected.
        if voters > 1 && self.connected_voters(now) < quorum(voters + 1) {
            return Err(ChangeRefused::Unhealthy);
        }
        Ok(())
    }

    fn check_remove(&self, id: MemberId, now: Duration) -> Result<(), ChangeRefused> {
        let member = self.members.iter().find(|member| member.id == id);
        let left = self.voters().filter(|member| member.id != id).count();
        if left == 0 && member.is_some_and(|member| !member.is_learner) {
            return Err(ChangeRefused::NotEnoughStarted);
        }
        if !self.is_strict || member.is_some_and(|member| member.is_learner) {
            return Ok(());
        }
        let is_started = |member: &&RosterMember| member.id != id && member.is_started;
        if self.voters().filter(is_started).count() < quorum(left) {
            return Err(ChangeRefused::NotEnoughStarted);
        }
        // Who is not connected takes no part in the quorum: nothing is lost with it. That goes for
        // an id that nobody has, too, which is refused where the change is applied.
        if id != self.own && member.is_none_or(|member| member.connected_since.is_none()) {
            return Ok(());
        }
        let others = self.voters().count() - 1;
        if self.connected_voters(now).saturating_sub(1) < quorum(others) {
            return Err(ChangeRefused::Unhealthy);
        }
        Ok(())
    }

    fn check_promote(&self, id: MemberId) -> Result<(), ChangeRefused> {
        let matched = |id: MemberId| {
            let member = self.members.iter().find(|member| member.id == id);
            member.and_then(|member| member.matched)
        };
        let learner = matched(id).ok_or(ChangeRefused::MemberNotFound)?;
        let leader = matched(self.own).unwrap_or(LogIndex(0));
        // Nine tenths, in whole numbers.
        if u128::from(learner.0) * 10 < u128::from(leader.0) * 9 {
            return Err(ChangeRefused::LearnerNotReady);
        }
        if !self.is_strict {
            return Ok(());
        }
        // The learner counts as a voter that has started.
        let voters = self.voters().count() + 1;
        let started = self.voters().filter(|member| member.is_started).count() + 1;
        if started < quorum(voters) { Err(ChangeRefused::NotEnoughStarted) } else { Ok(()) }
    }

    fn connected_voters(&self, now: Duration) -> usize {
        let is_connected = |member: &&RosterMember| {
            let since = member.connected_since;
            member.id == self.own || since.is_some_and(|since| since + HEALTHY_AFTER < now)
        };
        self.voters().filter(is_connected).count()
    }
}

const fn quorum(members: usize) -> usize {
    members / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn voter(id: u64) -> RosterMember {
        RosterMember {
            id: MemberId(id),
            is_learner: false,
            is_started: true,
            connected_since: Some(Duration::from_secs(1)),
            matched: Some(LogIndex(1000)),
        }
    }

    fn learner(id: u64, matched: u64) -> RosterMember {
        RosterMember { is_learner: true, matched: Some(LogIndex(matched)), ..voter(id) }
    }

    fn unstarted(id: u64) -> RosterMember {
        RosterMember { is_started: false, connected_since: None, ..voter(id) }
    }

    fn connected_for(id: u64, seconds: u64) -> RosterMember {
        RosterMember { connected_since: Some(NOW - Duration::from_secs(seconds)), ..voter(id) }
    }

    fn down(id: u64) -> RosterMember {
        RosterMember { connected_since: None, ..voter(id) }
    }

    /// The leader is member 1.
    fn roster(members: &[RosterMember]) -> Roster {
        let mut leader = voter(1);
        leader.connected_since = None;
        let mut all = vec![leader];
        all.extend_from_slice(members);
        Roster { own: MemberId(1), members: all, is_change_pending: false, is_strict: true }
    }

    const ADD: MemberChange = MemberChange::Add { is_learner: false };
    const ADD_LEARNER: MemberChange = MemberChange::Add { is_learner: true };

    fn remove(id: u64) -> MemberChange {
        MemberChange::Remove(MemberId(id))
    }

    fn promote(id: u64) -> MemberChange {
        MemberChange::Promote(MemberId(id))
    }

    #[test]
    fn changes_are_refused_as_in_etcd() {
        use ChangeRefused::{LearnerNotReady, MemberNotFound, NotEnoughStarted, Unhealthy};
        for (change, members, expected) in [
            // One member may always become two.
            (ADD, &[][..], Ok(())),
            // Two of which one has not started may not become three.
            (ADD, &[unstarted(2)], Err(NotEnoughStarted)),
            (ADD_LEARNER, &[unstarted(2)], Err(Unhealthy)),
            (ADD, &[voter(2)], Ok(())),
            // Started, but away: a third that is not there either would cost the quorum.
            (ADD, &[down(2)], Err(Unhealthy)),
            (ADD, &[voter(2), down(3)], Err(Unhealthy)),
            (ADD, &[voter(2), voter(3)], Ok(())),
            (ADD, &[voter(2), voter(3), voter(4), down(5)], Ok(())),
            (ADD, &[voter(2), voter(3), down(4), down(5)], Err(Unhealthy)),
            // Connected, but not for long enough.
            (ADD, &[voter(2), connected_for(3, 5)], Err(Unhealthy)),
            (ADD, &[voter(2), connected_for(3, 6)], Ok(())),
            // Learners have no part in it.
            (ADD, &[learner(2, 0)], Ok(())),
            (remove(1), &[], Err(NotEnoughStarted)),
            (remove(2), &[learner(2, 0)], Ok(())),
            (remove(1), &[learner(2, 0)], Err(NotEnoughStarted)),
            (remove(2), &[voter(2)], Ok(())),
            (remove(2), &[down(2)], Ok(())),
            (remove(2), &[voter(2), voter(3)], Ok(())),
            (remove(3), &[voter(2), down(3)], Ok(())),
            (remove(2), &[voter(2), down(3)], Err(Unhealthy)),
            (remove(1), &[voter(2), voter(3)], Ok(())),
            (remove(1), &[voter(2), down(3)], Err(Unhealthy)),
            (remove(2), &[voter(2), unstarted(3)], Err(NotEnoughStarted)),
            (remove(3), &[voter(2), unstarted(3)], Ok(())),
            // Nobody has that id: the change is refused where it is applied.
            (remove(9), &[voter(2), voter(3)], Ok(())),
            (promote(2), &[learner(2, 900)], Ok(())),
            (promote(2), &[learner(2, 899)], Err(LearnerNotReady)),
            (promote(9), &[learner(2, 1000)], Err(MemberNotFound)),
            (promote(4), &[unstarted(2), unstarted(3), learner(4, 1000)], Err(NotEnoughStarted)),
            (promote(3), &[unstarted(2), learner(3, 1000)], Ok(())),
            // A voter is no learner, which is said where it is applied.
            (promote(2), &[voter(2)], Ok(())),
            (MemberChange::Update(MemberId(2)), &[down(2), down(3)], Ok(())),
        ] {
            assert_eq!(check(change, &roster(members), NOW), expected, "{change:?} {members:?}");
        }
    }

    #[test]
    fn without_the_strict_check_only_the_impossible_is_refused() {
        for (change, members, expected) in [
            (ADD, &[unstarted(2)][..], Ok(())),
            (remove(2), &[voter(2), down(3)], Ok(())),
            (remove(1), &[], Err(ChangeRefused::NotEnoughStarted)),
            (remove(1), &[learner(2, 1000)], Err(ChangeRefused::NotEnoughStarted)),
            (promote(2), &[learner(2, 0)], Err(ChangeRefused::LearnerNotReady)),
            (promote(3), &[unstarted(2), learner(3, 1000)], Ok(())),
        ] {
            let roster = Roster { is_strict: false, ..roster(members) };
            assert_eq!(check(change, &roster, NOW), expected, "{change:?} {members:?}");
        }
    }

    #[test]
    fn one_change_is_under_way_at_a_time() {
        let pending = Roster { is_change_pending: true, ..roster(&[voter(2), voter(3)]) };
        assert_eq!(check(ADD, &pending, NOW), Err(ChangeRefused::ChangePending));
        // What can never be made does not wait for the other to be applied.
        assert_eq!(check(promote(9), &pending, NOW), Err(ChangeRefused::MemberNotFound));
        assert_eq!(check(MemberChange::Update(MemberId(2)), &pending, NOW), Ok(()));
    }

    #[test]
    fn a_full_log_does_not_overflow_the_nine_tenths() {
        let mut full = roster(&[learner(2, u64::MAX)]);
        full.members[0].matched = Some(LogIndex(u64::MAX));
        assert_eq!(check(promote(2), &full, NOW), Ok(()));
        full.members[1].matched = Some(LogIndex(u64::MAX / 2));
        assert_eq!(check(promote(2), &full, NOW), Err(ChangeRefused::LearnerNotReady));
    }
}
