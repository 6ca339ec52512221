//! Read-index rounds: when a linearizable read may look at the view.
//!
//! A read joins the *next* round, never one whose context was issued before the read arrived: the
//! index of an older round may be older than a write this client has already seen. A round's
//! context is (member, boot nonce, counter) and never used twice, not even for a retry, because
//! raft confirms contexts by value and a late confirmation of an old one would be believed.
//! raft drops a request silently while there is no leader, so rounds time out here.
//!
//! Invariants:
//! - At most one round is unconfirmed. Confirmed rounds wait for their index in order.
//! - Every slot leaves exactly once, through `poll_ready` or `poll_failed`.

use std::collections::VecDeque;
use std::time::Duration;

use engine::ids::{LogIndex, MemberId};

use super::batch::Ticket;

/// A round that raft did not confirm is asked again, under a new context (etcd's readIndexRetry).
pub const ROUND_RETRY_AFTER: Duration = Duration::from_millis(500);

/// Size of a context: three little-endian words.
pub const CONTEXT_SIZE_BYTES: usize = 24;

#[derive(Debug)]
struct Round {
    context: [u8; CONTEXT_SIZE_BYTES],
    asked_at: Duration,
    reads: Vec<(Ticket, Duration)>,
}

#[derive(Debug)]
struct Confirmed {
    index: LogIndex,
    reads: Vec<(Ticket, Duration)>,
}

/// The reads of all front-ends and the rounds they wait for. Times are durations since any fixed
/// moment before the first.
#[derive(Debug)]
pub struct ReadIndex {
    member: MemberId,
    boot_nonce: u64,
    counter: u64,
    timeout: Duration,
    joining: Vec<(Ticket, Duration)>,
    round: Option<Round>,
    confirmed: VecDeque<Confirmed>,
    published: LogIndex,
    failed: Vec<Ticket>,
    rounds_retried: u64,
}

impl ReadIndex {
    /// For `member` in this boot; a read is given up after `timeout`.
    #[must_use]
    pub fn new(member: MemberId, boot_nonce: u64, timeout: Duration) -> Self {
        Self {
            member,
            boot_nonce,
            counter: 0,
            timeout,
            joining: Vec::new(),
            round: None,
            confirmed: VecDeque::new(),
            published: LogIndex(0),
            failed: Vec::new(),
            rounds_retried: 0,
        }
    }

    /// A read arrived.
    pub fn handle_read(&mut self, ticket: Ticket, now: Duration) {
        self.joining.push((ticket, now));
    }

    /// The context of a round to ask raft for, if reads wait and none is under way.
    pub fn poll_round(&mut self, now: Duration) -> Option<[u8; CONTEXT_SIZE_BYTES]> {
        if self.round.is_some() || self.joining.is_empty() {
            return None;
        }
        self.counter += 1;
        let mut context = [0; CONTEXT_SIZE_BYTES];
        let words = [self.member.0, self.boot_nonce, self.counter];
        for (place, word) in context.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let reads = std::mem::take(&mut self.joining);
        self.round = Some(Round { context, asked_at: now, reads });
        Some(context)
    }

    /// raft confirmed `context` at `index`. A context of an abandoned round is ignored.
    pub fn handle_confirmed(&mut self, context: &[u8], index: LogIndex) {
        let Some(round) = self.round.take_if(|round| round.context == context) else { return };
        self.confirmed.push_back(Confirmed { index, reads: round.reads });
    }

    /// The view of everything up to `applied` is published.
    pub fn handle_published(&mut self, applied: LogIndex) {
        assert!(applied >= self.published);
        self.published = applied;
    }

    /// Retries the round and gives up on reads that have waited too long.
    pub fn handle_tick(&mut self, now: Duration) {
        if let Some(round) =
            self.round.take_if(|round| now.saturating_sub(round.asked_at) >= ROUND_RETRY_AFTER)
        {
            // Its reads go before those that came later: they have waited longest.
            self.joining.splice(0..0, round.reads);
            self.rounds_retried += 1;
        }
        let timeout = self.timeout;
        let late = |(_, since): &(Ticket, Duration)| now.saturating_sub(*since) >= timeout;
        self.failed.extend(self.joining.extract_if(.., |read| late(read)).map(|read| read.0));
        // A member that is cut off may never come as far as a round that was confirmed to it.
        let asked = self.round.iter_mut().map(|round| &mut round.reads);
        for reads in asked.chain(self.confirmed.iter_mut().map(|round| &mut round.reads)) {
            self.failed.extend(reads.extract_if(.., |read| late(read)).map(|read| read.0));
        }
    }

    /// A leader's first entry is applied: before it no round was confirmed, and raft has forgotten
    /// those that were asked for. They are asked for again at once.
    pub fn handle_new_term(&mut self) {
        if let Some(round) = self.round.take() {
            self.joining.splice(0..0, round.reads);
            self.rounds_retried += 1;
        }
    }

    /// Reads that may go on.
    pub fn poll_ready(&mut self) -> Option<Vec<Ticket>> {
        let ready = self.confirmed.front().is_some_and(|round| round.index <= self.published);
        let round = if ready { self.confirmed.pop_front()? } else { return None };
        Some(round.reads.into_iter().map(|read| read.0).collect())
    }

    /// Reads that were given up.
    pub fn poll_failed(&mut self) -> Option<Ticket> {
        self.failed.pop()
    }

    /// Gives up on all reads.
    pub fn fail_all(&mut self) -> Vec<Ticket> {
        let round = self.round.take().into_iter().flat_map(|round| round.reads);
        let unconfirmed = round.chain(self.joining.drain(..)).map(|(ticket, _)| ticket);
        let confirmed =
            self.confirmed.drain(..).flat_map(|round| round.reads).map(|(ticket, _)| ticket);
        confirmed.chain(unconfirmed).chain(self.failed.drain(..)).collect()
    }

    /// How often a round was asked for again.
    #[must_use]
    pub fn rounds_retried(&self) -> u64 {
        self.rounds_retried
    }

    /// Whether any read waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.joining.is_empty() && self.round.is_none() && self.confirmed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{FrontendId, Slot};

    fn ticket(slot: u32) -> Ticket {
        Ticket { frontend: FrontendId(0), slot: Slot(slot) }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn read_index() -> ReadIndex {
        ReadIndex::new(MemberId(1), 2, at(7000))
    }

    #[test]
    fn a_read_joins_the_next_round_not_the_one_under_way() {
        let mut reads = read_index();
        reads.handle_read(ticket(0), at(0));
        let first = reads.poll_round(at(0)).unwrap();
        reads.handle_read(ticket(1), at(1));
        assert!(reads.poll_round(at(1)).is_none());
        reads.handle_confirmed(&first, LogIndex(5));
        reads.handle_published(LogIndex(5));
        assert_eq!(reads.poll_ready().unwrap(), [ticket(0)]);
        assert!(reads.poll_ready().is_none());
        let second = reads.poll_round(at(2)).unwrap();
        assert_ne!(first, second);
        reads.handle_confirmed(&second, LogIndex(6));
        // Confirmed is not enough: the view must have come as far.
        assert!(reads.poll_ready().is_none());
        reads.handle_published(LogIndex(6));
        assert_eq!(reads.poll_ready().unwrap(), [ticket(1)]);
        assert!(reads.is_idle());
    }

    #[test]
    fn a_retried_round_has_a_new_context_and_the_old_one_is_not_believed() {
        let mut reads = read_index();
        reads.handle_read(ticket(0), at(0));
        let first = reads.poll_round(at(0)).unwrap();
        reads.handle_tick(at(500));
        reads.handle_read(ticket(1), at(501));
        let second = reads.poll_round(at(501)).unwrap();
        assert_ne!(first, second);
        reads.handle_confirmed(&first, LogIndex(1));
        reads.handle_published(LogIndex(9));
        assert!(reads.poll_ready().is_none());
        reads.handle_confirmed(&second, LogIndex(9));
        assert_eq!(reads.poll_ready().unwrap(), [ticket(0), ticket(1)]);
    }

    #[test]
    fn a_new_leaders_first_entry_asks_again_at_once_under_a_new_context() {
        let mut reads = read_index();
        reads.handle_read(ticket(0), at(0));
        let first = reads.poll_round(at(0)).unwrap();
        reads.handle_new_term();
        let second = reads.poll_round(at(1)).unwrap();
        assert_ne!(first, second);
        reads.handle_confirmed(&first, LogIndex(1));
        reads.handle_published(LogIndex(9));
        assert!(reads.poll_ready().is_none());
        reads.handle_confirmed(&second, LogIndex(9));
        assert_eq!(reads.poll_ready().unwrap(), [ticket(0)]);
    }

    #[test]
    fn without_a_leader_a_read_times_out() {
        let mut reads = read_index();
        reads.handle_read(ticket(0), at(0));
        for millis in (0..=6500).step_by(500) {
            reads.poll_round(at(millis));
            reads.handle_tick(at(millis));
            assert!(reads.poll_failed().is_none());
        }
        reads.handle_tick(at(7000));
        assert_eq!(reads.poll_failed(), Some(ticket(0)));
        assert!(reads.is_idle());
    }
}
