//! Applying: committed entries become part of the store, and whoever waits for them is told.
//!
//! Each entry has a view of its own. Joining what a turn finds committed to one view was tried and
//! gained nothing that could be measured.
//!
//! Invariants:
//! - Nobody hears of an entry before a view shows it.
//! - Entries are applied and told in the order of the log.

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

/// Keys that one call of [`LogCore::apply`] may touch before it returns to the loop: a few
/// milliseconds, well below a heartbeat.
pub const APPLY_KEYS_MAX: usize = 1024;
/// Runs of pages whose private copies a turn gives back after a checkpoint: each is a system call
/// of one to two microseconds. The next checkpoint waits for the last of them, of which there may
/// be fifty thousand.
const COPY_RUNS_MAX: u32 = 256;
/// The same in pages: each costs the kernel a fraction of a microsecond.
const COPY_PAGES_MAX: u32 = 2048;

/// The entry that is being applied.
pub(super) struct Applying {
    pub(super) index: LogIndex,
    pub(super) term: Term,
    /// `None` for an entry of raft's own.
    pub(super) batch: Option<Batch>,
    /// A change of the members is applied when it is begun.
    pub(super) is_applied: bool,
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
        let mut last = None;
        while budget > 0 && (self.applying.is_some() || !self.committed.is_empty()) {
            let begun = last.unwrap_or_else(&clock);
            if self.applying.is_none() && !self.begin_next()? {
                break;
            }
            let progress = match &self.applying {
                Some(Applying { is_applied: true, .. }) => Progress::Done,
                _ => self.engine.apply_step(budget, &mut self.answers)?,
            };
            let applied = clock();
            if progress == Progress::More {
                self.meter.handle_step(applied - begun);
                break;
            }
            let Applying { index, term, batch, .. } =
                self.applying.take().expect("one is under way");
            let count = batch.as_ref().map_or(0, Batch::len);
            if let Some(batch) = &batch {
                self.quota.handle_applied(batch, &mut self.answers);
                self.meter.handle_applied(applied - begun, batch, &self.answers);
            }
            budget = budget.saturating_sub(count.max(1));
            commands += count;
            entries += 1;
            self.publish_applied((index, term), batch.as_ref().map(Batch::header), now)?;
            let published = clock();
            self.meter.handle_published(published - applied, count);
            last = Some(published);
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
    fn begin_next(&mut self) -> Result<bool, Failure> {
        let Some(entry) = self.committed.pop_front() else { return Ok(false) };
        let (index, term) = (LogIndex(entry.index), Term(entry.term));
        self.quota.handle_next();
        let mut applying = Applying { index, term, batch: None, is_applied: false };
        if entry.data.is_empty() {
            self.engine.apply_empty(index, term);
            self.reads.handle_new_term();
        } else if entry.get_entry_type() != EntryType::EntryNormal {
            let is_applied = self.apply_change(&entry)?;
            if !is_applied {
                self.committed.push_front(entry);
            }
            return Ok(is_applied);
        } else {
            let (events, previous) = self.interest.any();
            self.engine.set_events_wanted(events, previous);
            self.quota.handle_begun(self.engine.newest_view().size_bytes, entry.data.len());
            let batch = Batch::validate(entry.data)
                .map_err(|cause| Failure::InvalidEntry { index, cause })?;
            if batch.membership_change().is_some() {
                // raft was not told: members would go by different configurations.
                return Err(Failure::UnknownEntry { index });
            }
            self.engine.begin_batch(index, term, &batch);
            applying.batch = Some(batch);
        }
        self.applying = Some(applying);
        Ok(true)
    }

    /// Makes visible what an entry changed, and tells whoever waits for it.
    fn publish_applied(
        &mut self,
        (index, term): (LogIndex, Term),
        header: Option<&BatchHeader>,
        now: Duration,
    ) -> Result<(), Failure> {
        self.engine.set_local_reads(self.consensus.is_leader() && self.consensus.is_sole_voter());
        self.engine.publish();
        self.look_at_members()?;
        self.consensus.handle_applied(index);
        self.reads.handle_published(index);
        self.leases.handle_changes(&self.engine.take_lease_changes(), now);
        let revision = self.engine.revision();
        self.deliver_events(revision != self.published);
        self.published = revision;
        let mut answers = std::mem::take(&mut self.answers);
        self.tell((index, term), header, answers.drain(..), (now, revision));
        self.answers = answers;
        self.raise_quota_alarm();
        Ok(())
    }

    /// Tells whose commands an entry had what became of them.
    fn tell(
        &mut self,
        (index, term): (LogIndex, Term),
        header: Option<&BatchHeader>,
        answers: impl ExactSizeIterator<Item = Answer>,
        (now, revision): (Duration, Revision),
    ) {
        let mut tickets = self.batcher.take_applied(index, term, &mut self.lost);
        if let Some(header) = header.filter(|header| header.member == self.member)
            && tickets.is_empty()
        {
            tickets = self.batcher.take_forwarded(header.boot_nonce, header.sequence_first);
        }
        for ticket in std::mem::take(&mut self.lost) {
            self.refuse(ticket, Unavailable::LeaderChanged);
        }
        if tickets.is_empty() {
            return;
        }
        assert_eq!(tickets.len(), answers.len(), "an answer for every command");
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
