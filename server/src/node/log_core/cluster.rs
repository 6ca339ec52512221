//! The log core among others: what it says to its peers, and what they say to it.
//!
//! Invariants:
//! - A batch of this member's goes to the leader once; whether it was taken shows the log alone.
//! - A batch of a peer's is proposed as it came, or refused by its number; it is never kept beyond
//!   the leadership that it was sent to.
//! - What speaks for this member's log leaves when the log is durable that far.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::ids::MemberId;
use engine::{Batch, BatchHeader};
use raft::eraftpb::{Message, MessageType};

use super::LogCore;
use crate::mail::{FrontendId, LeaseAsk, LeaseReply, Renewed, Slot, Unavailable};
use crate::node::failure::Failure;
use crate::peer::letter::{
    ForwardReason, ForwardRefused, LEASES_PER_LETTER_MAX, LeaseAnswer, LeaseOutcome, LeaseQuestion,
    LeaseQuestionKind, Letter,
};
use crate::raft::Leadership;
use crate::raft::record::ENTRY_HEAD_SIZE_BYTES;
use crate::sequencer::batch::{BATCHES_UNSYNCED_MAX, Ticket};

/// Batches of peers that wait for room or for the disk; a peer sends four at a time.
const BATCHES_OF_PEERS_MAX: usize = 64;
/// Questions about leases that wait for the leader's answer.
const LEASE_ASKS_MAX: usize = 65_536;

/// What is under way between this member and the others.
#[derive(Debug, Default)]
pub(super) struct Peers {
    outbox: VecDeque<(MemberId, Letter)>,
    /// Who can be reached, and since when without a break.
    up: BTreeMap<MemberId, Duration>,
    /// Batches of peers that wait to be proposed.
    batches: VecDeque<(MemberId, Batch)>,
    asks: BTreeMap<u64, WaitingAsk>,
    asks_numbered: u64,
    /// Whose questions the slots of [`FrontendId::PEERS`] are.
    askers: BTreeMap<Slot, (MemberId, u64)>,
    askers_counted: u32,
    /// Of this turn: they leave together.
    questions: Vec<(MemberId, LeaseQuestion)>,
    answers: Vec<(MemberId, LeaseAnswer)>,
}

#[derive(Debug)]
struct WaitingAsk {
    /// Who was asked.
    of: MemberId,
    ticket: Ticket,
    ask: LeaseAsk,
    until: Duration,
}

impl Peers {
    pub(super) fn send(&mut self, to: MemberId, letter: Letter) {
        self.outbox.push_back((to, letter));
    }

    fn asker(&mut self, from: MemberId, number: u64) -> Slot {
        self.askers_counted = self.askers_counted.wrapping_add(1);
        let slot = Slot(self.askers_counted);
        self.askers.insert(slot, (from, number));
        slot
    }

    /// Since when a member can be reached.
    pub(super) fn up_since(&self, member: MemberId) -> Option<Duration> {
        self.up.get(&member).copied()
    }

    /// The next letter. What was asked and answered about leases goes last, gathered.
    fn poll(&mut self) -> Option<(MemberId, Letter)> {
        if let Some(next) = self.outbox.pop_front() {
            return Some(next);
        }
        if let Some((to, questions)) = gather(&mut self.questions) {
            return Some((to, Letter::LeaseQuestions(questions)));
        }
        gather(&mut self.answers).map(|(to, answers)| (to, Letter::LeaseAnswers(answers)))
    }
}

/// What waits for the member that comes first, as much of it as a letter takes.
fn gather<T>(waiting: &mut Vec<(MemberId, T)>) -> Option<(MemberId, Vec<T>)> {
    let to = waiting.first()?.0;
    let mut taken = Vec::new();
    let mut left = LEASES_PER_LETTER_MAX;
    let of_member = |next: &mut (MemberId, T)| {
        let is_taken = next.0 == to && left > 0;
        left -= usize::from(is_taken);
        is_taken
    };
    taken.extend(waiting.extract_if(.., of_member).map(|next| next.1));
    Some((to, taken))
}

/// Why the leader did not propose a batch, on the wire.
fn reason_of(reason: Unavailable) -> ForwardReason {
    match reason {
        Unavailable::TooManyRequests => ForwardReason::TooManyRequests,
        Unavailable::NoSpace => ForwardReason::NoSpace,
        Unavailable::Stopped => ForwardReason::Stopping,
        Unavailable::NotEnoughStarted => ForwardReason::NotEnoughStarted,
        Unavailable::Unhealthy => ForwardReason::Unhealthy,
        Unavailable::LearnerNotReady => ForwardReason::LearnerNotReady,
        Unavailable::MemberNotFound => ForwardReason::MemberNotFound,
        Unavailable::NoLeader
        | Unavailable::LeaderChanged
        | Unavailable::TimedOut
        | Unavailable::NotLeader
        | Unavailable::BadTransferee
        | Unavailable::TransferTimedOut => ForwardReason::NotLeader,
    }
}

/// What that means to whoever asked the member that sent the batch. That the leader stops is no
/// matter of the asker's: there will be another.
fn unavailable_of(reason: ForwardReason) -> Unavailable {
    match reason {
        ForwardReason::NotLeader
        | ForwardReason::Invalid
        | ForwardReason::Stopping
        | ForwardReason::MemberNotLearner => Unavailable::LeaderChanged,
        ForwardReason::TooManyRequests => Unavailable::TooManyRequests,
        ForwardReason::NoSpace => Unavailable::NoSpace,
        ForwardReason::NotEnoughStarted => Unavailable::NotEnoughStarted,
        ForwardReason::Unhealthy => Unavailable::Unhealthy,
        ForwardReason::LearnerNotReady => Unavailable::LearnerNotReady,
        ForwardReason::MemberNotFound => Unavailable::MemberNotFound,
        ForwardReason::ChangePending => Unavailable::TimedOut,
    }
}

/// A question as the leader is asked it; `None` for one that every member answers itself.
fn question_of(number: u64, ask: LeaseAsk) -> Option<LeaseQuestion> {
    let (lease, kind) = match ask {
        LeaseAsk::Renew { id, .. } => (id, LeaseQuestionKind::Renew),
        LeaseAsk::TimeToLive(id) => (id, LeaseQuestionKind::TimeToLive),
        LeaseAsk::List => return None,
    };
    Some(LeaseQuestion { number, lease, kind })
}

/// The leader's answer as its asker is told it.
fn reply_of(ask: LeaseAsk, outcome: LeaseOutcome) -> LeaseReply {
    match (ask, outcome) {
        (LeaseAsk::Renew { sequence, .. }, LeaseOutcome::Lives { seconds_granted, .. }) => {
            let renewed = Renewed::Lives { ttl_seconds: seconds_granted };
            LeaseReply::Renewed { sequence, renewed }
        }
        (LeaseAsk::Renew { sequence, .. }, LeaseOutcome::NotFound) => {
            LeaseReply::Renewed { sequence, renewed: Renewed::Lives { ttl_seconds: 0 } }
        }
        (_, LeaseOutcome::Lives { seconds_left, seconds_granted }) => {
            LeaseReply::TimeToLive(Some((seconds_left, seconds_granted)))
        }
        (_, LeaseOutcome::NotFound) => LeaseReply::TimeToLive(None),
        (ask, LeaseOutcome::NotLeader) => ask.refused(Unavailable::LeaderChanged),
        (ask, LeaseOutcome::TimedOut) => ask.refused(Unavailable::TimedOut),
    }
}

/// This member's answer as it goes to another.
fn outcome_of(reply: &LeaseReply) -> LeaseOutcome {
    match *reply {
        LeaseReply::Renewed { renewed: Renewed::Lives { ttl_seconds: 0 }, .. }
        | LeaseReply::TimeToLive(None) => LeaseOutcome::NotFound,
        LeaseReply::Renewed { renewed: Renewed::Lives { ttl_seconds }, .. } => {
            LeaseOutcome::Lives { seconds_left: ttl_seconds, seconds_granted: ttl_seconds }
        }
        LeaseReply::TimeToLive(Some((seconds_left, seconds_granted))) => {
            LeaseOutcome::Lives { seconds_left, seconds_granted }
        }
        LeaseReply::Unavailable(Unavailable::TimedOut) => LeaseOutcome::TimedOut,
        LeaseReply::Renewed { .. } | LeaseReply::Unavailable(_) | LeaseReply::List(_) => {
            LeaseOutcome::NotLeader
        }
    }
}

impl LogCore {
    /// The next letter to a peer. Letters to one member are to arrive in their order or not at all.
    pub fn poll_letter(&mut self) -> Option<(MemberId, Letter)> {
        self.peers.poll()
    }

    /// The way to a peer was found, or is lost: what was sent last may not have arrived.
    pub fn handle_peer(&mut self, peer: MemberId, is_up: bool) {
        if is_up {
            self.peers.up.insert(peer, self.ticked);
            return;
        }
        self.peers.up.remove(&peer);
        self.handle_unreachable(peer);
        self.notice_isolation();
    }

    /// Letters to a peer were dropped on their way.
    pub fn handle_unreachable(&mut self, peer: MemberId) {
        self.consensus.handle_unreachable(peer);
        self.handle_peer_lost_to_checks(peer);
        if self.consensus.leader() == Some(peer) {
            // Batches may be among them: what comes now is not to wait for their answers.
            self.batcher.handle_leader_changed();
        }
    }

    /// Takes a letter of a peer.
    ///
    /// # Errors
    /// The store could not be read or changed.
    pub fn handle_letter(&mut self, from: MemberId, letter: Letter) -> Result<(), Failure> {
        match letter {
            Letter::Raft(message) => self.handle_raft(message),
            Letter::Forward(bytes) => self.handle_batch_of_peer(from, bytes.into()),
            Letter::ForwardRefused(ForwardRefused { boot_nonce, sequence_first, reason }) => {
                for ticket in self.batcher.take_forwarded(boot_nonce, sequence_first) {
                    self.refuse(ticket, unavailable_of(reason));
                }
            }
            Letter::LeaseQuestions(questions) => {
                for question in questions {
                    self.handle_lease_question(from, question);
                }
            }
            Letter::LeaseAnswers(answers) => {
                for answer in answers {
                    self.handle_lease_answer(from, answer);
                }
            }
            Letter::SnapshotBegin(begin) => self.handle_snapshot_begin(from, begin)?,
            Letter::SnapshotChunk(chunk) => self.handle_snapshot_chunk(from, chunk),
            Letter::SnapshotEnd(end) => self.handle_snapshot_end(from, end),
            Letter::SnapshotAcknowledged(acknowledged) => {
                self.handle_snapshot_acknowledged(from, acknowledged);
            }
            Letter::HashQuestion(question) => self.handle_hash_question(from, question),
            Letter::HashAnswer(answer) => self.handle_hash_answer(from, answer),
            // Whoever carries letters answers these.
            Letter::Probe(_) | Letter::ProbeAnswer(_) => {}
        }
        Ok(())
    }

    /// What another member's raft says. While the log begins anew behind a store that was
    /// installed, raft stands still.
    fn handle_raft(&mut self, message: Message) {
        if self.transfers.is_raft_frozen() {
            return;
        }
        // Only a stream of the store's content brings a snapshot.
        if message.get_msg_type() == MessageType::MsgSnapshot {
            return;
        }
        // An entry that raft has taken must find a place in the log. The leader sends it again.
        let entry_size = |entry: &raft::eraftpb::Entry| ENTRY_HEAD_SIZE_BYTES + entry.data.len();
        let size_bytes: usize = message.entries.iter().map(entry_size).sum();
        if size_bytes > 0 && !self.has_room_for_entries(size_bytes) {
            return;
        }
        self.consensus.handle_message(message);
    }

    pub(super) fn send_raft(&mut self, messages: Vec<Message>) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.begin_transfer(message);
                continue;
            }
            self.peers.send(MemberId(message.to), Letter::Raft(message));
        }
    }

    /// The leader to whom this member's commands go; none while it leads itself, or nobody does.
    pub(super) fn leader_to_ask(&self) -> Option<MemberId> {
        let leader = self.consensus.leader().filter(|leader| *leader != self.member)?;
        self.peers.up.contains_key(&leader).then_some(leader)
    }

    /// Sends what waits to the leader.
    pub(super) fn forward(&mut self, leader: MemberId, now: Duration) {
        while self.batcher.peek_batch(self.batcher.forwarded_count()).is_some() {
            let bytes = self.batcher.take_batch();
            self.meter.handle_proposed(self.batcher.taken_count());
            self.batcher.handle_forwarded(now + self.request_timeout);
            self.send_batch(leader, bytes);
        }
    }

    pub(super) fn send_batch(&mut self, leader: MemberId, bytes: Vec<u8>) {
        self.peers.send(leader, Letter::Forward(bytes.into()));
    }

    /// Asks the leader about a lease; `false` if there is nobody to ask.
    pub(super) fn ask_leader(&mut self, ticket: Ticket, ask: LeaseAsk, now: Duration) -> bool {
        let Some(leader) = self.leader_to_ask() else { return false };
        if self.peers.asks.len() >= LEASE_ASKS_MAX {
            return false;
        }
        // Another start of this member's may have asked before: its answers are not this one's.
        let number = self.boot_nonce.wrapping_add(self.peers.asks_numbered);
        let Some(question) = question_of(number, ask) else { return false };
        self.peers.asks_numbered += 1;
        let until = now + self.request_timeout;
        let waiting = WaitingAsk { of: leader, ticket, ask, until };
        self.peers.asks.insert(question.number, waiting);
        self.peers.questions.push((leader, question));
        true
    }

    /// Gives up what was not answered in time.
    pub(super) fn forget_late_letters(&mut self, now: Duration) {
        let forgotten = self.batcher.take_forgotten(now);
        let late = now.checked_sub(self.request_timeout).filter(|_| !self.consensus.is_leader());
        let late = late.map_or_else(Vec::new, |before| self.batcher.take_late(before));
        for ticket in forgotten.into_iter().chain(late) {
            self.refuse(ticket, Unavailable::TimedOut);
        }
        let late = self.peers.asks.extract_if(.., |_, ask| ask.until <= now);
        for (_, WaitingAsk { ticket, ask, .. }) in late {
            let refused = ask.refused(Unavailable::TimedOut);
            self.replies[ticket.frontend.place()].leases.push((ticket.slot, refused));
        }
    }

    fn handle_batch_of_peer(&mut self, from: MemberId, bytes: Vec<u8>) {
        // What a peer of another version sends need not make sense here; who sent it hears of it,
        // if it says who that was.
        let header = BatchHeader::from_bytes(&bytes).ok().filter(|header| header.member == from);
        let Some(header) = header else { return };
        let is_full = self.peers.batches.len() >= BATCHES_OF_PEERS_MAX;
        let reason = match Batch::validate(bytes) {
            _ if self.stopping => ForwardReason::Stopping,
            _ if !self.consensus.is_leader() => ForwardReason::NotLeader,
            _ if is_full => ForwardReason::TooManyRequests,
            Ok(batch) if super::changes::is_change(&batch) => {
                return self.handle_change_of_peer(from, batch);
            }
            Ok(batch) => return self.peers.batches.push_back((from, batch)),
            // Commands that this version does not know: the cluster's version forbids them, so this
            // is a fault of the sender's.
            Err(_) => ForwardReason::Invalid,
        };
        self.refuse_batch_as(from, &header, reason);
    }

    pub(super) fn refuse_batch(&mut self, to: MemberId, header: &BatchHeader, why: Unavailable) {
        self.refuse_batch_as(to, header, reason_of(why));
    }

    fn refuse_batch_as(&mut self, to: MemberId, header: &BatchHeader, reason: ForwardReason) {
        let BatchHeader { boot_nonce, sequence_first, .. } = *header;
        let refused = ForwardRefused { boot_nonce, sequence_first, reason };
        self.peers.send(to, Letter::ForwardRefused(refused));
    }

    /// Proposes what peers have sent, as far as there is room.
    pub(super) fn propose_for_peers(&mut self) -> Result<(), Failure> {
        while self.writes_unsynced < BATCHES_UNSYNCED_MAX
            && let Some((from, batch)) = self.peers.batches.pop_front()
        {
            let header = *batch.header();
            if !self.consensus.is_leader() {
                self.refuse_batch(from, &header, Unavailable::LeaderChanged);
                continue;
            }
            match self.room_for_peer(&batch) {
                Ok(true) => {}
                Ok(false) => {
                    self.peers.batches.push_front((from, batch));
                    break;
                }
                Err(reason) => {
                    self.refuse_batch(from, &header, reason);
                    continue;
                }
            }
            let size_bytes = batch.bytes().len();
            if self.consensus.propose(batch.bytes().to_vec()).is_err() {
                self.engine.cancel_reservation(size_bytes);
                self.refuse_batch(from, &header, Unavailable::LeaderChanged);
            }
        }
        while let Some(work) = self.consensus.poll_work() {
            self.write(work)?;
        }
        Ok(())
    }

    fn handle_lease_question(&mut self, from: MemberId, question: LeaseQuestion) {
        let LeaseQuestion { number, lease: id, kind } = question;
        if self.stopping || !self.is_primary() {
            let answer = LeaseAnswer { number, outcome: LeaseOutcome::NotLeader };
            return self.peers.answers.push((from, answer));
        }
        let slot = self.peers.asker(from, number);
        let ask = match kind {
            LeaseQuestionKind::Renew => LeaseAsk::Renew { id, sequence: 0 },
            LeaseQuestionKind::TimeToLive => LeaseAsk::TimeToLive(id),
        };
        self.leases.handle_ask(Ticket { frontend: FrontendId::PEERS, slot }, ask);
    }

    /// Whoever was not asked has nothing to say: another member's clocks may stand.
    fn handle_lease_answer(&mut self, from: MemberId, answer: LeaseAnswer) {
        let LeaseAnswer { number, outcome } = answer;
        if self.peers.asks.get(&number).is_none_or(|asked| asked.of != from) {
            return;
        }
        let asked = self.peers.asks.remove(&number).expect("it was there just now");
        let WaitingAsk { ticket, ask, .. } = asked;
        let reply = &mut self.replies[ticket.frontend.place()];
        reply.leases.push((ticket.slot, reply_of(ask, outcome)));
    }

    /// Answers a question about a lease, wherever it came from.
    pub(super) fn tell_lease(&mut self, ticket: Ticket, reply: LeaseReply) {
        if ticket.frontend != FrontendId::PEERS {
            return self.replies[ticket.frontend.place()].leases.push((ticket.slot, reply));
        }
        if let Some((member, number)) = self.peers.askers.remove(&ticket.slot) {
            self.peers.answers.push((member, LeaseAnswer { number, outcome: outcome_of(&reply) }));
        }
    }

    /// Another member leads, or nobody does.
    pub(super) fn handle_leadership(&mut self, leadership: Leadership) {
        self.batcher.handle_leader_changed();
        if !leadership.is_leader {
            // Others decide now what is applied.
            self.engine.cancel_reservations();
            self.give_up_transfers();
        }
    }
}
