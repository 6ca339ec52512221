//! What the log core measures of its own work. Times are handed in; a batch costs three readings of
//! the clock, a turn without one costs none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine::{Activity, Answer, Batch, Outcome};

use crate::mail::Unavailable;
use crate::metrics::{AppliedCommands, LogMetrics, Stage, StageLatency};

/// A batch whose apply took longer than `--warning-apply-duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowApply {
    /// How long it took.
    pub took: Duration,
    /// How many commands it had.
    pub commands: usize,
}

/// The log core's counts and what is needed to make them.
#[derive(Debug)]
pub(super) struct Meter {
    metrics: Arc<LogMetrics>,
    batch_wait: StageLatency,
    apply: StageLatency,
    publish: StageLatency,
    /// When the commands that wait for a batch came, oldest first: as many at that time.
    arrivals: VecDeque<(Duration, usize)>,
    now: Duration,
    commands_proposed: u64,
    leader: u64,
    /// A batch whose apply takes longer is counted as slow.
    slow_apply: Duration,
    slow: Option<SlowApply>,
    /// What the batch under way has taken so far.
    spent: Duration,
    checkpoint_begun: Option<Duration>,
    checkpoint_ended: bool,
    sweep_begun: Option<Duration>,
    defrag_begun: Option<Duration>,
}

impl Meter {
    pub(super) fn new() -> Self {
        let metrics = Arc::new(LogMetrics::default());
        Self {
            batch_wait: metrics.stage(Stage::BatchWait),
            apply: metrics.stage(Stage::Apply),
            publish: metrics.stage(Stage::Publish),
            metrics,
            arrivals: VecDeque::new(),
            now: Duration::ZERO,
            commands_proposed: 0,
            leader: 0,
            slow_apply: Duration::MAX,
            slow: None,
            spent: Duration::ZERO,
            checkpoint_begun: None,
            checkpoint_ended: false,
            sweep_begun: None,
            defrag_begun: None,
        }
    }

    pub(super) fn metrics(&self) -> &Arc<LogMetrics> {
        &self.metrics
    }

    pub(super) fn poll_slow(&mut self) -> Option<SlowApply> {
        self.slow.take()
    }

    pub(super) fn set_slow_apply(&mut self, limit: Duration) {
        self.slow_apply = limit;
    }

    /// Commands that went into the log so far.
    pub(super) fn commands_proposed(&self) -> u64 {
        self.commands_proposed
    }

    /// Commands of clients came.
    pub(super) fn handle_taken(&mut self, commands: usize, now: Duration) {
        if commands > 0 {
            self.arrivals.push_back((now, commands));
            self.metrics.commands_taken.add(commands as u64);
        }
    }

    /// A turn orders what came.
    pub(super) fn handle_turn(&mut self, now: Duration) {
        self.now = now;
        if std::mem::take(&mut self.checkpoint_ended)
            && let Some(begun) = self.checkpoint_begun.take()
        {
            self.metrics.checkpoints.observe_duration(now.saturating_sub(begun), 1);
        }
    }

    /// So many commands became an entry.
    pub(super) fn handle_proposed(&mut self, commands: usize) {
        self.commands_proposed += commands as u64;
        self.metrics.batch_commands.observe(commands as u64, 1);
        let mut left = commands;
        while left > 0
            && let Some((since, waiting)) = self.arrivals.front_mut()
        {
            let count = left.min(*waiting);
            self.batch_wait.record(self.now.saturating_sub(*since), count as u64);
            (left, *waiting) = (left - count, *waiting - count);
            if *waiting == 0 {
                self.arrivals.pop_front();
            }
        }
    }

    /// Nothing waits for a batch. What was refused meanwhile is forgotten here.
    pub(super) fn handle_none_waiting(&mut self) {
        self.arrivals.clear();
    }

    /// A command of a client was not taken, or nobody will know its fate.
    pub(super) fn handle_refused(&mut self, reason: Unavailable) {
        self.metrics.commands_ended.add(1);
        match reason {
            Unavailable::NoLeader | Unavailable::LeaderChanged | Unavailable::TimedOut => {
                self.metrics.proposals_failed.add(1);
            }
            Unavailable::Stopped
            | Unavailable::TooManyRequests
            | Unavailable::NoSpace
            | Unavailable::NotEnoughStarted
            | Unavailable::Unhealthy
            | Unavailable::LearnerNotReady
            | Unavailable::MemberNotFound
            | Unavailable::NotLeader
            | Unavailable::BadTransferee
            | Unavailable::TransferTimedOut => {}
        }
    }

    /// Commands of clients were answered.
    pub(super) fn handle_answered(&mut self, commands: u64) {
        self.metrics.commands_ended.add(commands);
    }

    /// A step of a batch that is not done yet.
    pub(super) fn handle_step(&mut self, duration: Duration) {
        self.spent += duration;
    }

    /// The last step of a batch, and its answers; what they are to become of is known later.
    pub(super) fn handle_applied(&mut self, duration: Duration, batch: &Batch, answers: &[Answer]) {
        self.spent += duration;
        let mut commands = AppliedCommands::default();
        for (index, answer) in answers.iter().enumerate() {
            let done = match &answer.outcome {
                Outcome::Rejected(_) => false,
                Outcome::LeaseGranted(grant) => {
                    self.metrics.lease_ttls.observe(grant.ttl_seconds.unsigned_abs(), 1);
                    true
                }
                _ => true,
            };
            commands.note(batch.kind(index), done);
        }
        self.metrics.note_applied(&commands, self.spent);
    }

    /// The view of a batch is published, its events and answers are on their way.
    pub(super) fn handle_published(&mut self, duration: Duration, commands: usize) {
        let spent = std::mem::take(&mut self.spent);
        if commands == 0 {
            return;
        }
        self.apply.record(spent, commands as u64);
        self.publish.record(duration, commands as u64);
        self.metrics.commits.observe_duration(spent + duration, 1);
        if spent > self.slow_apply {
            self.metrics.slow_applies.add(1);
            self.slow = Some(SlowApply { took: spent, commands });
        }
    }

    pub(super) fn handle_activity(&mut self, activity: &Activity) {
        self.metrics.set_activity(activity);
    }

    pub(super) fn handle_leader(&mut self, leader: u64) {
        if std::mem::replace(&mut self.leader, leader) != leader && leader != 0 {
            self.metrics.leader_changes.add(1);
        }
    }

    pub(super) fn handle_read_failed(&mut self) {
        self.metrics.read_indexes_failed.add(1);
    }

    pub(super) fn handle_rounds_retried(&mut self, rounds: u64) {
        self.metrics.slow_read_indexes.set(rounds);
    }

    pub(super) fn handle_leases_expired(&mut self, leases: u64) {
        self.metrics.leases_expired.add(leases);
    }

    pub(super) fn handle_leases_renewed(&mut self, leases: u64) {
        self.metrics.leases_renewed.add(leases);
    }

    pub(super) fn handle_checkpoint_begun(&mut self, now: Duration) {
        self.checkpoint_begun = Some(now);
    }

    /// It is durable; how long that took is told by the next turn, which knows the time.
    pub(super) fn handle_checkpoint_ended(&mut self) {
        self.checkpoint_ended = true;
    }

    /// A turn of the sweep; `is_finished` if it was the last.
    pub(super) fn handle_swept(&mut self, begun: Duration, ended: Duration, is_finished: bool) {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.metrics.compaction_pauses.observe(micros(ended.saturating_sub(begun)), 1);
        let since = *self.sweep_begun.get_or_insert(begun);
        if is_finished {
            self.sweep_begun = None;
            self.metrics.compactions.observe(micros(ended.saturating_sub(since)), 1);
            self.metrics.compacted_at_nanos.set(crate::metrics::cell::nanos(ended).max(1));
        }
    }

    /// Whether a store that came takes the place of this member's own.
    pub(super) fn handle_installing(&mut self, is_installing: bool) {
        self.metrics.installs_inflight.set(is_installing.into());
    }

    /// This leader's clock went on by several ticks at once: so many others wait for heartbeats.
    pub(super) fn handle_heartbeats_late(&mut self, count: usize) {
        self.metrics.heartbeats_late.add(count as u64);
    }

    /// Whether a defragmentation is under way; told every turn.
    pub(super) fn handle_defragmenting(&mut self, is_defragmenting: bool, now: Duration) {
        if is_defragmenting == self.defrag_begun.is_some() {
            return;
        }
        self.metrics.defrags_inflight.set(is_defragmenting.into());
        match self.defrag_begun.take() {
            None => self.defrag_begun = Some(now),
            Some(begun) => {
                self.metrics.defrags.observe_duration(now.saturating_sub(begun), 1);
            }
        }
    }

    /// Time passed: what was measured is handed over.
    pub(super) fn handle_tick(&mut self, now: Duration) {
        for stage in [&mut self.batch_wait, &mut self.apply, &mut self.publish] {
            stage.handle_tick(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_command_waits_from_its_letter_to_its_batch() {
        let mut meter = Meter::new();
        meter.handle_taken(3, at(1));
        meter.handle_taken(2, at(5));
        meter.handle_turn(at(6));
        meter.handle_proposed(4);
        meter.handle_turn(at(9));
        meter.handle_proposed(1);
        assert!(meter.arrivals.is_empty());
        assert_eq!(meter.commands_proposed(), 5);
        meter.handle_tick(at(2000));
        let seen = meter.metrics.stage_copy(Stage::BatchWait);
        assert_eq!(seen.total.len(), 5);
        assert_eq!(seen.sum_nanos, (3 * 5 + 1 + 4) * 1_000_000);
    }

    #[test]
    fn a_leader_counts_when_it_is_new_and_nobody_does_not() {
        let mut meter = Meter::new();
        for leader in [0, 7, 7, 0, 7, 8] {
            meter.handle_leader(leader);
        }
        assert_eq!(meter.metrics.leader_changes.get(), 3);
    }

    #[test]
    fn a_defragmentation_counts_once_from_its_beginning_to_its_end() {
        let mut meter = Meter::new();
        for (millis, is_defragmenting) in [(1, false), (2, true), (150, true), (302, false)] {
            meter.handle_defragmenting(is_defragmenting, at(millis));
            assert_eq!(meter.metrics.defrags_inflight.get(), u64::from(is_defragmenting));
        }
        let seen = meter.metrics.defrags.copy();
        assert_eq!((seen.count(), seen.sum), (1, 300_000_000));
    }

    #[test]
    fn a_batch_beyond_the_limit_is_slow_and_one_at_it_is_not() {
        let mut meter = Meter::new();
        meter.set_slow_apply(at(100));
        meter.handle_step(at(60));
        meter.handle_step(at(40));
        meter.handle_published(at(500), 1);
        assert_eq!(meter.poll_slow(), None);
        meter.handle_step(at(101));
        meter.handle_published(at(1), 3);
        assert_eq!(meter.poll_slow(), Some(SlowApply { took: at(101), commands: 3 }));
        assert_eq!(meter.poll_slow(), None);
        assert_eq!(meter.metrics.slow_applies.get(), 1);
    }

    #[test]
    fn what_was_refused_before_the_log_has_not_failed() {
        let mut meter = Meter::new();
        meter.handle_taken(2, at(0));
        meter.handle_refused(Unavailable::NoSpace);
        meter.handle_refused(Unavailable::LeaderChanged);
        let metrics = meter.metrics();
        assert_eq!(metrics.commands_taken.get(), metrics.commands_ended.get());
        assert_eq!(metrics.proposals_failed.get(), 1);
    }
}
