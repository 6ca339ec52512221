//! Changes of the members: from a command to an entry that raft obeys, and leadership that moves.
//!
//! A change comes from a front-end here or, whole, from another member, and waits until the leader
//! may propose it: one at a time, and only with a cluster that can bear it
//! ([`crate::sequencer::membership`]). What the change finds among the members is decided where it
//! is applied, on all members alike.
//!
//! Invariants:
//! - A change of raft's configuration is an entry of its own, and its batch holds nothing else.
//! - raft changes its configuration exactly when the store has taken the change.

use std::collections::VecDeque;
use std::time::Duration;

use engine::command::BATCH_HEADER_SIZE_BYTES;
use engine::engine::Membership;
use engine::ids::{LogIndex, MemberId, Term};
use engine::{Batch, BatchHeader, Member, MembershipChange, Outcome};
use raft::eraftpb::Entry;

use super::LogCore;
use super::applying::Applying;
use crate::mail::{FrontendId, Slot, Unavailable, Verdict};
use crate::metrics::promotions::PromotionFailure;
use crate::node::failure::Failure;
use crate::raft::change::{decode_change, encode_conf_state};
use crate::raft::conf::sorted;
use crate::sequencer::batch::Ticket;
use crate::sequencer::membership::{self, ChangeRefused, MemberChange, Roster, RosterMember};

/// Changes that wait for one before them.
const CHANGES_WAITING_MAX: usize = 256;

/// A change that is to be proposed.
#[derive(Debug)]
struct Waiting {
    source: Source,
    change: MemberChange,
    until: Duration,
}

#[derive(Debug)]
enum Source {
    /// A front-end of this member: its ticket and the command.
    Own(Ticket, Vec<u8>),
    /// Another member: its batch as it came.
    Peer(MemberId, Batch),
}

impl Source {
    /// The size of the batch that it becomes.
    fn size_bytes(&self) -> usize {
        match self {
            Self::Own(_, frame) => BATCH_HEADER_SIZE_BYTES + frame.len(),
            Self::Peer(_, batch) => batch.bytes().len(),
        }
    }
}

/// A move of leadership under way.
#[derive(Debug)]
struct Move {
    ticket: Ticket,
    to: MemberId,
    until: Duration,
}

/// What the log core knows of the members, and what waits to change them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: VecDeque<Waiting>,
    moves: Vec<Move>,
    members: Vec<Member>,
    removed: Vec<MemberId>,
    /// Of the store's that `members` shows.
    seen: Option<u64>,
    is_learner: bool,
    /// `--strict-reconfig-check`.
    is_strict: bool,
}

impl Changes {
    /// Whether this member has no vote.
    pub(super) fn is_learner(&self) -> bool {
        self.is_learner
    }
}

/// Whether a batch is to be proposed as a change of the members.
pub(super) fn is_change(batch: &Batch) -> bool {
    change_in(batch).is_some()
}

/// What a batch does to the members; it does nothing else then.
fn change_in(batch: &Batch) -> Option<MemberChange> {
    match batch.membership_change() {
        Some(MembershipChange::Add { is_learner, .. }) => Some(MemberChange::Add { is_learner }),
        Some(MembershipChange::Remove(id)) => Some(MemberChange::Remove(id)),
        Some(MembershipChange::Promote(id)) => Some(MemberChange::Promote(id)),
        None => batch.member_update().map(MemberChange::Update),
    }
}

/// What a front-end's command does to the members.
fn change_in_frame(frame: &[u8]) -> Option<MemberChange> {
    let header =
        BatchHeader { member: MemberId(0), boot_nonce: 0, sequence_first: 0, frame_count: 1 };
    let mut bytes = Vec::with_capacity(BATCH_HEADER_SIZE_BYTES + frame.len());
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(frame);
    change_in(&Batch::validate(bytes).ok()?)
}

fn unavailable_of(refused: ChangeRefused) -> Unavailable {
    match refused {
        ChangeRefused::ChangePending => Unavailable::TimedOut,
        ChangeRefused::NotEnoughStarted => Unavailable::NotEnoughStarted,
        ChangeRefused::Unhealthy => Unavailable::Unhealthy,
        ChangeRefused::LearnerNotReady => Unavailable::LearnerNotReady,
        ChangeRefused::MemberNotFound => Unavailable::MemberNotFound,
    }
}

/// Why a promotion has failed, for who counts them.
fn failure_of(reason: Unavailable) -> PromotionFailure {
    match reason {
        Unavailable::LearnerNotReady => PromotionFailure::NotReady,
        Unavailable::MemberNotFound => PromotionFailure::NotFound,
        Unavailable::NotEnoughStarted => PromotionFailure::NotEnoughStarted,
        Unavailable::Unhealthy => PromotionFailure::Unhealthy,
        Unavailable::TimedOut => PromotionFailure::TimedOut,
        _ => PromotionFailure::NotTaken,
    }
}

impl LogCore {
    /// `--strict-reconfig-check`.
    pub fn set_strict_reconfig(&mut self, is_strict: bool) {
        self.changes.is_strict = is_strict;
    }

    /// Grows with every change of what the store says about its members.
    #[must_use]
    pub fn membership_number(&self) -> u64 {
        self.changes.seen.unwrap_or(0)
    }

    /// All members, this one among them.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.changes.members
    }

    /// Whose ids are used no more.
    #[must_use]
    pub fn removed(&self) -> &[MemberId] {
        &self.changes.removed
    }

    /// Whether this member was removed: it stops.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.changes.removed.contains(&self.member)
    }

    /// A front-end wants the members changed, or leadership moved.
    pub(super) fn handle_changes(
        &mut self,
        frontend: FrontendId,
        changes: &[(Slot, Vec<u8>)],
        now: Duration,
    ) {
        for (slot, frame) in changes {
            let ticket = Ticket { frontend, slot: *slot };
            let change = change_in_frame(frame).expect("front-ends send changes of members here");
            let source = Source::Own(ticket, frame.clone());
            self.enqueue(Waiting { source, change, until: now + self.request_timeout });
        }
    }

    pub(super) fn handle_change_of_peer(&mut self, from: MemberId, batch: Batch) {
        let change = change_in(&batch).expect("it was looked at before");
        let until = self.ticked + self.request_timeout;
        self.enqueue(Waiting { source: Source::Peer(from, batch), change, until });
    }

    fn enqueue(&mut self, waiting: Waiting) {
        if self.changes.waiting.len() < CHANGES_WAITING_MAX {
            self.changes.waiting.push_back(waiting);
        } else {
            self.refuse_change(waiting.source, Unavailable::TooManyRequests);
        }
    }

    /// Counts a promotion that this leader has decided about, or that was.
    fn count_promotion(&self, change: MemberChange, end: Result<(), PromotionFailure>) {
        if matches!(change, MemberChange::Promote(_)) && self.consensus.is_leader() {
            self.meter.metrics().promotions.add(end);
        }
    }

    fn refuse_change(&mut self, source: Source, reason: Unavailable) {
        match source {
            Source::Own(ticket, _) => self.refuse(ticket, reason),
            Source::Peer(from, batch) => self.refuse_batch(from, batch.header(), reason),
        }
    }

    /// Proposes the changes that may be proposed now, or sends them to who leads.
    pub(super) fn propose_changes(&mut self, now: Duration) -> Result<(), Failure> {
        while let Some(waiting) = self.changes.waiting.pop_front() {
            if waiting.until <= now {
                self.count_promotion(waiting.change, Err(PromotionFailure::TimedOut));
                self.refuse_change(waiting.source, Unavailable::TimedOut);
                continue;
            }
            if !self.consensus.is_leader() {
                match (waiting.source, self.leader_to_ask()) {
                    (Source::Peer(from, batch), _) => {
                        self.refuse_batch(from, batch.header(), Unavailable::LeaderChanged);
                    }
                    (Source::Own(ticket, frame), Some(leader)) => {
                        let bytes = self.batcher.take_alone(ticket, &frame);
                        self.batcher.handle_forwarded(waiting.until);
                        self.send_batch(leader, bytes);
                    }
                    (source, None) => {
                        self.changes.waiting.push_front(Waiting { source, ..waiting });
                        return Ok(());
                    }
                }
                continue;
            }
            match membership::check(waiting.change, &self.roster(), now) {
                Ok(()) => match self.room_for_change(waiting.source.size_bytes()) {
                    Ok(true) => self.propose_change(waiting.source)?,
                    Ok(false) => {
                        self.changes.waiting.push_front(waiting);
                        return Ok(());
                    }
                    Err(reason) => {
                        self.count_promotion(waiting.change, Err(failure_of(reason)));
                        self.refuse_change(waiting.source, reason);
                    }
                },
                Err(ChangeRefused::ChangePending) => {
                    self.changes.waiting.push_front(waiting);
                    return Ok(());
                }
                Err(refused) => {
                    let reason = unavailable_of(refused);
                    self.count_promotion(waiting.change, Err(failure_of(reason)));
                    self.refuse_change(waiting.source, reason);
                }
            }
        }
        Ok(())
    }

    fn propose_change(&mut self, source: Source) -> Result<(), Failure> {
        let size_bytes = source.size_bytes();
        let bytes = match &source {
            Source::Own(ticket, frame) => self.batcher.take_alone(*ticket, frame),
            Source::Peer(_, batch) => batch.bytes().to_vec(),
        };
        let change = Batch::validate(bytes.clone()).ok().and_then(|it| it.membership_change());
        let proposed = match change {
            Some(change) => self.consensus.propose_membership(change, bytes),
            // Other URLs of a member are nothing to raft.
            None => self.consensus.propose(bytes),
        };
        if proposed.is_err() {
            self.engine.cancel_reservation(size_bytes);
        }
        match (proposed, source) {
            (Ok((index, term)), Source::Own(..)) => self.batcher.handle_proposed(index, term),
            (Ok(_), Source::Peer(..)) => {}
            (Err(_), Source::Own(..)) => self.refuse_taken(Unavailable::LeaderChanged),
            (Err(_), Source::Peer(from, batch)) => {
                self.refuse_batch(from, batch.header(), Unavailable::LeaderChanged);
            }
        }
        while let Some(work) = self.consensus.poll_work() {
            self.write(work)?;
        }
        Ok(())
    }

    fn roster(&self) -> Roster {
        let member = |member: &Member| RosterMember {
            id: member.id,
            is_learner: member.is_learner,
            is_started: !member.name.is_empty(),
            connected_since: self.peers.up_since(member.id),
            matched: self.consensus.matched(member.id),
        };
        Roster {
            own: self.member,
            members: self.changes.members.iter().map(member).collect(),
            is_change_pending: self.consensus.is_change_pending(),
            is_strict: self.changes.is_strict,
        }
    }

    /// Since when whoever leads has been able to commit, as far as connections go and this member
    /// sees them.
    pub(super) fn connected_since(&self) -> Option<Duration> {
        let leader = self.consensus.leader()?;
        if leader != self.member {
            return self.peers.up_since(leader);
        }
        let voters = &self.consensus.conf_state().voters;
        let others = voters.iter().filter(|id| **id != self.member.0);
        let mut since: Vec<Duration> =
            others.filter_map(|&id| self.peers.up_since(MemberId(id))).collect();
        since.sort_unstable();
        // Half of the others make a quorum with this one.
        match voters.len() / 2 {
            0 => Some(Duration::ZERO),
            needed => since.get(needed - 1).copied(),
        }
    }

    /// Applies an entry that changes raft's configuration. `false` if there is no room for it yet:
    /// the entry is to come again.
    pub(super) fn apply_change(&mut self, entry: &Entry) -> Result<bool, Failure> {
        let (index, term) = (LogIndex(entry.index), Term(entry.term));
        let invalid = |cause| Failure::InvalidChange { index, cause };
        let (batch, change) = decode_change(entry).map_err(invalid)?;
        let answer = match self.engine.apply_membership(index, term, &batch)? {
            Membership::Starved => return Ok(false),
            Membership::Foreign => unreachable!("a change was decoded from the batch"),
            Membership::Answered(answer) => answer,
        };
        if !matches!(answer.outcome, Outcome::Rejected(_)) {
            let conf_state = self.consensus.apply_membership(&change)?;
            // raft keeps the ids in no order; the store has the same bytes on all members.
            self.engine.put_conf_state(&encode_conf_state(&sorted(conf_state)))?;
        }
        // Whoever led when it was proposed, and no leader after that, counts it.
        if let Some(change) = change_in(&batch).filter(|_| term == self.consensus.term()) {
            let end = match answer.outcome {
                Outcome::Rejected(rejection) => Err(rejection.into()),
                _ => Ok(()),
            };
            self.count_promotion(change, end);
        }
        self.answers.push(answer);
        self.applying = Some(Applying { index, term, batch: Some(batch), is_applied: true });
        Ok(true)
    }

    /// Looks at what the store says about its members, if that has changed.
    pub(super) fn look_at_members(&mut self) -> Result<(), Failure> {
        let number = self.engine.membership_number();
        if self.changes.seen == Some(number) {
            return Ok(());
        }
        let view = self.engine.newest_view();
        let members = view.cluster_members().map_err(engine::Failure::from)?;
        let removed = view.removed_members().map_err(engine::Failure::from)?;
        let own = members.iter().find(|member| member.id == self.member);
        let changes = &mut self.changes;
        changes.is_learner = own.is_some_and(|member| member.is_learner);
        (changes.members, changes.removed, changes.seen) = (members, removed, Some(number));
        Ok(())
    }

    /// A front-end wants another member to lead.
    pub(super) fn handle_moves(
        &mut self,
        frontend: FrontendId,
        moves: &[(Slot, MemberId)],
        now: Duration,
    ) {
        for &(slot, to) in moves {
            let ticket = Ticket { frontend, slot };
            // etcd looks whether it leads before it looks at the other one.
            if !self.consensus.is_leader() {
                self.refuse(ticket, Unavailable::NotLeader);
                continue;
            }
            let target = self.changes.members.iter().find(|member| member.id == to);
            if target.is_none_or(|member| member.is_learner) {
                self.refuse(ticket, Unavailable::BadTransferee);
                continue;
            }
            self.consensus.transfer_leader(to);
            self.changes.moves.push(Move { ticket, to, until: now + self.request_timeout });
        }
    }

    /// Tells those who wait for another leader.
    pub(super) fn answer_moves(&mut self, now: Duration) {
        if self.changes.moves.is_empty() {
            return;
        }
        let leader = self.consensus.leader();
        let mut moves = std::mem::take(&mut self.changes.moves);
        for ended in moves.extract_if(.., |it| leader == Some(it.to) || it.until <= now) {
            let Move { ticket, to, .. } = ended;
            if leader == Some(to) {
                let reply = &mut self.replies[ticket.frontend.place()];
                reply.answers.push((ticket.slot, Verdict::Moved));
            } else {
                self.refuse(ticket, Unavailable::TransferTimedOut);
            }
        }
        self.changes.moves = moves;
    }

    /// Hands leadership over before a stop, to whoever has been connected longest, as etcd does.
    /// Whether there is anything to wait for.
    pub fn hand_over(&mut self) -> bool {
        if !self.consensus.is_leader() {
            return false;
        }
        let voters = self.consensus.followers().filter(|it| !it.is_learner && it.is_active);
        let reachable = voters.filter_map(|it| Some((self.peers.up_since(it.member)?, it.member)));
        let Some((_, to)) = reachable.min() else { return false };
        self.consensus.transfer_leader(to);
        true
    }

    /// Sends away who waits for a change.
    pub(super) fn stop_changes(&mut self) {
        for waiting in std::mem::take(&mut self.changes.waiting) {
            self.refuse_change(waiting.source, Unavailable::Stopped);
        }
        for it in std::mem::take(&mut self.changes.moves) {
            self.refuse(it.ticket, Unavailable::Stopped);
        }
    }
}
