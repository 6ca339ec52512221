//! Applying: committed entries become part of the store, and whoever waits for them is told.
//!
//! A page that a view shows is copied before it is changed again, so a view has its price. What a
//! turn finds committed is applied one entry after the other and made visible at once, as far as
//! the entries are short: a follower hears of several at a time, and a leader whose core was busy.
//!
//! Invariants:
//! - Nobody hears of an entry before a view shows it.
//! - Entries are applied and told in the order of the log.
//! - An entry that may take long, that has to wait for pages, that changes the members, or whose
//!   commands are held against the quota one by one, is begun when all before it is published.

use std::sync::Arc;
use std::time::Duration;

use engine::ids::{LogIndex, Revision, Term};
use engine::{Answer, Batch, BatchHeader, Outcome, Progress};
use raft::eraftpb::EntryType;

use super::quota::SLOT_ALARM;
use super::upkeep::own_outcome;
use super::{Introduced, LogCore, SLOT_INTRODUCTION};
use crate::mail::{FrontendId, Unavailable, Verdict};
use crate::node::checkpoint::Cost;
use crate::node::failure::Failure;
use crate::sequencer::batch::BATCH_SIZE_BYTES_MAX;

/// Keys that one call of [`LogCore::apply`] may touch before it returns to the loop: a few
/// milliseconds, well below a heartbeat.
pub const APPLY_KEYS_MAX: usize = 1024;
/// Runs of pages whose private copies a turn gives back after a checkpoint: each is a system call
/// of one to two microseconds. The next checkpoint waits for the last of them, of which there may
/// be fifty thousand.
const COPY_RUNS_MAX: u32 = 256;
/// The same in pages: each costs the kernel a fraction of a microsecond.
const COPY_PAGES_MAX: u32 = 2048;
/// Entries that are published together hold no more than one batch may: events have that bound.
const UNPUBLISHED_SIZE_BYTES_MAX: usize = BATCH_SIZE_BYTES_MAX;

/// The entry that is being applied.
pub(super) struct Applying {
    pub(super) index: LogIndex,
    pub(super) term: Term,
    /// `None` for an entry of raft's own.
    pub(super) batch: Option<Batch>,
    /// A change of the members is applied when it is begun.
    pub(super) is_applied: bool,
    /// It is published before the next one is begun.
    pub(super) is_alone: bool,
}

/// An entry that is applied, and in no view yet.
pub(super) struct Unpublished {
    index: LogIndex,
    term: Term,
    header: Option<BatchHeader>,
    size_bytes: usize,
}

impl Unpublished {
    fn answer_count(&self) -> usize {
        self.header.map_or(0, |header| header.frame_count as usize)
    }
}

impl LogCore {
    /// Applies committed entries, at most [`APPLY_KEYS_MAX`] keys of them, publishes, and leaves
    /// answers and events with [`Self::reply`]. `clock` tells the time for what is measured; of
    /// what is done it decides only when background work goes on.
    ///
    /// # Errors
    /// The engine met a corrupt page, or an entry it does not understand.
    pub fn apply(&mut self, now: Duration, clock: impl Fn() -> Duration) -> Result<(), Failure> {
        let mut budget = APPLY_KEYS_MAX;
        let (mut commands, mut entries) = (0, 0);
        // What has taken more than a turn is told as soon as it ends, with what it was behind.
        let mut is_carried = self.applying.is_some();
        while budget > 0 && (self.applying.is_some() || !self.committed.is_empty()) {
            if self.applying.is_none() && !self.begin_next(budget, now, &clock)? {
                break;
            }
            let begun = clock();
            let progress = match &self.applying {
                Some(Applying { is_applied: true, .. }) => Progress::Done,
                _ => self.engine.apply_step(budget, &mut self.answers)?,
            };
            let took = clock() - begun;
            if progress == Progress::More {
                self.meter.handle_step(took);
                break;
            }
            let (count, is_alone) = self.end_batch(took);
            budget = budget.saturating_sub(count.max(1));
            commands += count;
            entries += 1;
            if is_alone || std::mem::take(&mut is_carried) {
                self.publish_applied(now, &clock)?;
            }
        }
        if self.applying.is_none() {
            self.publish_applied(now, &clock)?;
        }
        self.engine.drop_copies(COPY_RUNS_MAX, COPY_PAGES_MAX)?;
        let log_end = self.wal.durable().0;
        self.checkpoint.handle_applied(now, Cost { commands, entries, log_end });
        if self.applying.is_none() && self.committed.is_empty() {
            self.work_in_background(now, clock)?;
        }
        self.release_reads();
        self.answer_leases(now);
        self.answer_moves(now);
        self.publish_status();
        Ok(())
    }

    /// Begins the next entry; `false` if it has to come again.
    fn begin_next(
        &mut self,
        budget: usize,
        now: Duration,
        clock: &impl Fn() -> Duration,
    ) -> Result<bool, Failure> {
        let Some(entry) = self.committed.pop_front() else { return Ok(false) };
        let (index, term) = (LogIndex(entry.index), Term(entry.term));
        let mut applying =
            Applying { index, term, batch: None, is_applied: false, is_alone: false };
        if entry.data.is_empty() {
            self.engine.apply_empty(index, term);
            self.reads.handle_new_term();
        } else if entry.get_entry_type() != EntryType::EntryNormal {
            self.publish_applied(now, clock)?;
            let is_applied = self.apply_change(&entry)?;
            if !is_applied {
                self.committed.push_front(entry);
            }
            return Ok(is_applied);
        } else {
            let batch = Batch::validate(entry.data)
                .map_err(|cause| Failure::InvalidEntry { index, cause })?;
            if batch.membership_change().is_some() {
                // raft was not told: members would go by different configurations.
                return Err(Failure::UnknownEntry { index });
            }
            if !self.may_join(&batch, budget) {
                self.publish_applied(now, clock)?;
            }
            let (events, previous) = self.interest.any();
            self.engine.set_events_wanted(events, previous);
            let store_size_bytes = self.engine.newest_view().size_bytes;
            applying.is_alone = self.quota.handle_begun(store_size_bytes, batch.bytes().len());
            self.engine.begin_batch(index, term, &batch);
            applying.batch = Some(batch);
        }
        self.applying = Some(applying);
        Ok(true)
    }

    /// Whether a batch may be applied before a view shows those before it, if there are any.
    fn may_join(&mut self, batch: &Batch, budget: usize) -> bool {
        if self.unpublished.is_empty() {
            return true;
        }
        let size_bytes: usize = self.unpublished.iter().map(|entry| entry.size_bytes).sum();
        let size_bytes = size_bytes + batch.bytes().len();
        let store_size_bytes = self.engine.newest_view().size_bytes;
        batch.len() <= budget
            && size_bytes <= UNPUBLISHED_SIZE_BYTES_MAX
            && self.quota.is_far(store_size_bytes, size_bytes)
            && self.engine.may_join(batch)
    }

    /// The entry under way is applied, which took so long in the end. How many commands it had, and
    /// whether it is to be published before the next one.
    fn end_batch(&mut self, took: Duration) -> (usize, bool) {
        let applying = self.applying.take().expect("one is under way");
        let Applying { index, term, batch, is_alone, .. } = applying;
        let (count, size_bytes) = batch.as_ref().map_or((0, 0), |it| (it.len(), it.bytes().len()));
        if let Some(batch) = &batch {
            let first = self.answers.len().checked_sub(count).expect("an answer for every command");
            let answers = &mut self.answers[first..];
            self.quota.handle_applied(batch, answers);
            self.meter.handle_applied(took, batch, answers);
        }
        let header = batch.as_ref().map(|batch| *batch.header());
        self.unpublished.push(Unpublished { index, term, header, size_bytes });
        (count, is_alone)
    }

    /// Makes visible what is applied, and tells whoever waits for it.
    fn publish_applied(
        &mut self,
        now: Duration,
        clock: &impl Fn() -> Duration,
    ) -> Result<(), Failure> {
        let Some(last) = self.unpublished.last() else { return Ok(()) };
        let (index, begun) = (last.index, clock());
        self.engine.set_local_reads(self.consensus.is_leader() && self.consensus.is_sole_voter());
        self.engine.publish();
        self.look_at_members()?;
        self.consensus.handle_applied(index);
        self.reads.handle_published(index);
        self.leases.handle_changes(&self.engine.take_lease_changes(), now);
        let revision = self.engine.revision();
        self.deliver_events(revision != self.published);
        self.published = revision;
        let mut entries = std::mem::take(&mut self.unpublished);
        let mut answers = std::mem::take(&mut self.answers);
        let count = answers.len();
        let mut rest = answers.drain(..);
        for entry in entries.drain(..) {
            let answers = rest.by_ref().take(entry.answer_count());
            self.tell(&entry, answers, (now, revision));
        }
        drop(rest);
        (self.unpublished, self.answers) = (entries, answers);
        self.raise_quota_alarm();
        self.meter.handle_published(clock() - begun, count);
        Ok(())
    }

    /// Tells whose commands an entry had what became of them.
    fn tell(
        &mut self,
        entry: &Unpublished,
        answers: impl Iterator<Item = Answer>,
        (now, revision): (Duration, Revision),
    ) {
        let mut tickets = self.batcher.take_applied(entry.index, entry.term, &mut self.lost);
        if let Some(header) = entry.header.filter(|header| header.member == self.member)
            && tickets.is_empty()
        {
            tickets = self.batcher.take_forwarded(header.boot_nonce, header.sequence_first);
        }
        for ticket in std::mem::take(&mut self.lost) {
            self.refuse(ticket, Unavailable::LeaderChanged);
        }
        if tickets.is_empty() {
            return answers.for_each(drop);
        }
        assert_eq!(tickets.len(), entry.answer_count(), "an answer for every command");
        let (mut answered, mut is_alarm_raised) = (0, false);
        for (place, (ticket, answer)) in tickets.into_iter().zip(answers).enumerate() {
            if ticket.frontend == FrontendId::NOBODY {
                if ticket.slot == SLOT_INTRODUCTION {
                    self.introduced = Introduced::Done;
                }
                self.leases.handle_own(ticket.slot);
                self.upkeep.handle_own(ticket.slot, own_outcome(&answer.outcome), now, revision);
                is_alarm_raised |= ticket.slot == SLOT_ALARM;
                continue;
            }
            answered += 1;
            if self.quota.holds(place) {
                self.quota.hold(ticket, answer);
                continue;
            }
            if let Outcome::Compacted { sweep: Some(revision) } = answer.outcome {
                self.replies[ticket.frontend.place()].patient.push(ticket.slot);
                self.sweeping.push_back((revision, ticket, answer));
                continue;
            }
            let reply = &mut self.replies[ticket.frontend.place()];
            reply.answers.push((ticket.slot, Verdict::Applied(answer)));
        }
        self.meter.handle_answered(answered);
        if is_alarm_raised {
            self.answer_over_quota();
        }
    }

    /// Compactions are accepted in the order of their revisions, and swept in it.
    pub(super) fn answer_swept(&mut self) {
        let swept = self.engine.swept();
        while let Some((_, ticket, answer)) = self.sweeping.pop_front_if(|first| first.0 <= swept) {
            let reply = &mut self.replies[ticket.frontend.place()];
            reply.answers.push((ticket.slot, Verdict::Applied(answer)));
        }
    }

    fn deliver_events(&mut self, changed: bool) {
        let events = self.engine.take_events();
        if !changed {
            return;
        }
        for (place, reply) in self.replies.iter_mut().enumerate() {
            let frontend = FrontendId(u16::try_from(place).expect("fewer front-ends than cores"));
            if !self.interest.wants_events(frontend) {
                continue;
            }
            match &events {
                Some(events) => reply.events.push(Arc::clone(events)),
                // The watcher came while the batch was applied, too late for its events.
                None => reply.gap = true,
            }
        }
    }
}
