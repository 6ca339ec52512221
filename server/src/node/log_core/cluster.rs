//! The log core among others: what it says to its peers, and what they say to it.
//!
//! Invariants:
//! - A batch of this member's goes to the leader once; whether it was taken shows the log alone.
//! - A batch of a peer's is proposed as it came, or refused by its number; it is never kept beyond
//!   the leadership that it was sent to.
//! - What speaks for this member's log leaves when the log is durable that far.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use engine::ids::MemberId;
use engine::{Batch, BatchHeader};
use raft::eraftpb::Message;

use super::LogCore;
use crate::mail::{FrontendId, LeaseAsk, LeaseReply, Slot, Unavailable};
use crate::node::failure::Failure;
use crate::sequencer::batch::{BATCHES_UNSYNCED_MAX, Ticket};

/// Batches of peers that wait for room or for the disk; a peer sends four at a time.
const BATCHES_OF_PEERS_MAX: usize = 64;
/// Questions about leases that wait for the leader's answer.
const LEASE_ASKS_MAX: usize = 65_536;

/// What one member says to another.
#[derive(Debug)]
pub enum PeerLetter {
    /// raft's.
    Raft(Box<Message>),
    /// A whole batch of the sender's commands, for the leader to propose.
    Batch(Vec<u8>),
    /// Of such a batch: it was not proposed and never will be.
    BatchRefused {
        /// Of the batch's header.
        boot_nonce: u64,
        /// Of the batch's header.
        sequence_first: u64,
        /// Why.
        reason: Unavailable,
    },
    /// What only the leader knows about a lease.
    LeaseAsk {
        /// Counts the sender's questions.
        number: u64,
        /// The question.
        ask: LeaseAsk,
    },
    /// The answer to one.
    LeaseReply {
        /// The question's number.
        number: u64,
        /// The answer.
        reply: LeaseReply,
    },
}

/// What is under way between this member and the others.
#[derive(Debug, Default)]
pub(super) struct Peers {
    outbox: VecDeque<(MemberId, PeerLetter)>,
    up: BTreeSet<MemberId>,
    /// Batches of peers that wait to be proposed.
    batches: VecDeque<(MemberId, Batch)>,
    asks: BTreeMap<u64, WaitingAsk>,
    asks_numbered: u64,
    /// Whose questions the slots of [`FrontendId::PEERS`] are.
    askers: BTreeMap<Slot, (MemberId, u64)>,
    askers_counted: u32,
}

#[derive(Debug)]
struct WaitingAsk {
    ticket: Ticket,
    ask: LeaseAsk,
    until: Duration,
}

impl Peers {
    pub(super) fn send(&mut self, to: MemberId, letter: PeerLetter) {
        self.outbox.push_back((to, letter));
    }

    fn asker(&mut self, from: MemberId, number: u64) -> Slot {
        self.askers_counted = self.askers_counted.wrapping_add(1);
        let slot = Slot(self.askers_counted);
        self.askers.insert(slot, (from, number));
        slot
    }

    pub(super) fn send_raft(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.outbox.push_back((MemberId(message.to), PeerLetter::Raft(Box::new(message))));
        }
    }
}

impl LogCore {
    /// The next letter to a peer. Letters to one member are to arrive in their order or not at all.
    pub fn poll_letter(&mut self) -> Option<(MemberId, PeerLetter)> {
        self.peers.outbox.pop_front()
    }

    /// The way to a peer was found, or is lost: what was sent last may not have arrived.
    pub fn handle_peer(&mut self, peer: MemberId, is_up: bool) {
        if is_up {
            self.peers.up.insert(peer);
            return;
        }
        self.peers.up.remove(&peer);
        self.consensus.handle_unreachable(peer);
    }

    /// Takes a letter of a peer.
    pub fn handle_letter(&mut self, from: MemberId, letter: PeerLetter) {
        match letter {
            PeerLetter::Raft(message) => self.consensus.handle_message(*message),
            PeerLetter::Batch(bytes) => self.handle_batch_of_peer(from, bytes),
            PeerLetter::BatchRefused { boot_nonce, sequence_first, reason } => {
                for ticket in self.batcher.take_forwarded(boot_nonce, sequence_first) {
                    self.refuse(ticket, reason);
                }
            }
            PeerLetter::LeaseAsk { number, ask } => self.handle_lease_ask(from, number, ask),
            PeerLetter::LeaseReply { number, reply } => {
                if let Some(WaitingAsk { ticket, .. }) = self.peers.asks.remove(&number) {
                    self.replies[ticket.frontend.place()].leases.push((ticket.slot, reply));
                }
            }
        }
    }

    /// The leader to whom this member's commands go; none while it leads itself, or nobody does.
    pub(super) fn leader_to_ask(&self) -> Option<MemberId> {
        let leader = self.consensus.leader().filter(|leader| *leader != self.member)?;
        self.peers.up.contains(&leader).then_some(leader)
    }

    /// Sends what waits to the leader.
    pub(super) fn forward(&mut self, leader: MemberId, now: Duration) {
        while self.batcher.peek_batch(self.batcher.forwarded_count()).is_some() {
            let bytes = self.batcher.take_batch();
            self.meter.handle_proposed(self.batcher.taken_count());
            self.batcher.handle_forwarded(now + self.request_timeout);
            self.peers.send(leader, PeerLetter::Batch(bytes));
        }
    }

    /// Asks the leader about a lease; `false` if there is nobody to ask.
    pub(super) fn ask_leader(&mut self, ticket: Ticket, ask: LeaseAsk, now: Duration) -> bool {
        let Some(leader) = self.leader_to_ask() else { return false };
        if self.peers.asks.len() >= LEASE_ASKS_MAX {
            return false;
        }
        self.peers.asks_numbered += 1;
        let number = self.peers.asks_numbered;
        let until = now + self.request_timeout;
        self.peers.asks.insert(number, WaitingAsk { ticket, ask, until });
        self.peers.send(leader, PeerLetter::LeaseAsk { number, ask });
        true
    }

    /// Gives up what was not answered in time.
    pub(super) fn forget_late_letters(&mut self, now: Duration) {
        for ticket in self.batcher.take_forgotten(now) {
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
        let refusal = match Batch::validate(bytes) {
            _ if self.stopping => Unavailable::Stopped,
            _ if !self.consensus.is_leader() => Unavailable::LeaderChanged,
            _ if is_full => Unavailable::TooManyRequests,
            Ok(batch) => return self.peers.batches.push_back((from, batch)),
            // Commands that this version does not know: the cluster's version forbids them, so this
            // is a fault of the sender's, and a time-out is all it can make of it.
            Err(_) => return,
        };
        self.refuse_batch(from, &header, refusal);
    }

    fn refuse_batch(&mut self, to: MemberId, header: &BatchHeader, reason: Unavailable) {
        let BatchHeader { boot_nonce, sequence_first, .. } = *header;
        self.peers.send(to, PeerLetter::BatchRefused { boot_nonce, sequence_first, reason });
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

    fn handle_lease_ask(&mut self, from: MemberId, number: u64, ask: LeaseAsk) {
        if self.stopping || !self.is_serving() {
            let reason =
                if self.stopping { Unavailable::Stopped } else { Unavailable::LeaderChanged };
            let reply = ask.refused(reason);
            return self.peers.send(from, PeerLetter::LeaseReply { number, reply });
        }
        let slot = self.peers.asker(from, number);
        self.leases.handle_ask(Ticket { frontend: FrontendId::PEERS, slot }, ask);
    }

    /// Answers a question about a lease, wherever it came from.
    pub(super) fn tell_lease(&mut self, ticket: Ticket, reply: LeaseReply) {
        if ticket.frontend != FrontendId::PEERS {
            return self.replies[ticket.frontend.place()].leases.push((ticket.slot, reply));
        }
        if let Some((member, number)) = self.peers.askers.remove(&ticket.slot) {
            self.peers.send(member, PeerLetter::LeaseReply { number, reply });
        }
    }
}
