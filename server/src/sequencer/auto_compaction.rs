//! Automatic compaction, with etcd's timing.
//!
//! Periodic: the revision is noted ten times in a retention, or in an hour of a longer one; history
//! before the oldest note is compacted when the retention has passed for the first time, then every
//! hour, or every retention if that is shorter. By revision: every five minutes all but the newest
//! so many are compacted.
//!
//! The owner tells the time with [`AutoCompaction::handle_tick`], proposes what
//! [`AutoCompaction::poll_proposal`] gives, and tells how that ended.
//!
//! Invariants:
//! - One compaction is under way at a time, and none is proposed while another member leads.
//! - The time to the next look begins when a compaction has ended, as etcd's does.

use std::collections::VecDeque;
use std::time::Duration;

use engine::ids::Revision;

/// A longer retention is looked at as often as this one.
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// Notes in an interval.
const NOTES: u32 = 10;
/// How often the number of revisions is looked at.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What is kept of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// What is younger than this; never zero.
    Period(Duration),
    /// So many revisions; more than zero.
    Revisions(i64),
}

/// What is to be told of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The revision compacted to.
    pub revision: Revision,
    /// The rule.
    pub retention: Retention,
    /// How far it came.
    pub stage: Stage,
}

/// How far a compaction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It begins.
    Started,
    /// History is refused; it is swept away in the background.
    Completed {
        /// Since it began.
        took: Duration,
    },
    /// It was not done; it is tried again.
    Failed {
        /// After this.
        retry_interval: Duration,
        /// Why.
        reason: &'static str,
    },
}

/// Decides when to compact.
#[derive(Debug)]
pub struct AutoCompaction {
    retention: Retention,
    /// The revisions at the latest looks, oldest first; of a period only.
    notes: VecDeque<Revision>,
    look_next: Duration,
    succeeded_at: Duration,
    /// What has to pass since then: the retention at first, then an interval.
    interval: Duration,
    /// What the last success compacted to.
    last: Revision,
    /// What is under way, since when, and whether it was handed out.
    running: Option<(Revision, Duration, bool)>,
    notices: VecDeque<Notice>,
}

impl AutoCompaction {
    /// Begins to look at a store that is at `revision`.
    #[must_use]
    pub fn new(retention: Retention, now: Duration, revision: Revision) -> Self {
        let interval = match retention {
            Retention::Period(period) => period,
            Retention::Revisions(_) => Duration::ZERO,
        };
        let mut new = Self {
            retention,
            notes: VecDeque::new(),
            look_next: now,
            succeeded_at: now,
            interval,
            last: Revision(0),
            running: None,
            notices: VecDeque::new(),
        };
        new.note(now, revision);
        new
    }

    /// Time passed; the store is at `revision`, and this member leads or not.
    pub fn handle_tick(&mut self, now: Duration, revision: Revision, leads: bool) {
        if now < self.look_next || self.running.is_some() {
            return;
        }
        let candidate = if leads { self.candidate(now, revision) } else { None };
        match candidate {
            Some(candidate) => {
                self.running = Some((candidate, now, false));
                self.tell(candidate, Stage::Started);
            }
            None => self.note(now, revision),
        }
    }

    /// A compaction to be proposed.
    pub fn poll_proposal(&mut self) -> Option<Revision> {
        let (revision, _, handed_out) = self.running.as_mut()?;
        (!std::mem::replace(handed_out, true)).then_some(*revision)
    }

    /// What was proposed has ended: well, which it also has if somebody else compacted as far, or
    /// for a reason not.
    pub fn handle_outcome(
        &mut self,
        now: Duration,
        revision: Revision,
        outcome: Result<(), &'static str>,
    ) {
        let Some((compacted, began, _)) = self.running.take() else { return };
        match outcome {
            Ok(()) => {
                self.last = compacted;
                self.succeeded_at = now;
                self.tell(compacted, Stage::Completed { took: now.saturating_sub(began) });
            }
            Err(reason) => {
                let retry_interval = self.look_interval();
                self.tell(compacted, Stage::Failed { retry_interval, reason });
            }
        }
        self.note(now, revision);
    }

    /// What is to be told next.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn candidate(&mut self, now: Duration, revision: Revision) -> Option<Revision> {
        match self.retention {
            Retention::Period(period) => {
                let oldest = *self.notes.front().expect("a look is noted before the next");
                let is_early = now.saturating_sub(self.succeeded_at) < self.interval;
                if is_early || oldest == self.last {
                    return None;
                }
                self.interval = period.min(INTERVAL_MAX);
                Some(oldest)
            }
            Retention::Revisions(kept) => {
                let candidate = Revision(revision.0.saturating_sub(kept));
                (candidate.0 > 0 && candidate != self.last).then_some(candidate)
            }
        }
    }

    /// Ends a look: the next one comes after the interval.
    fn note(&mut self, now: Duration, revision: Revision) {
        if let Retention::Period(period) = self.retention {
            self.notes.push_back(revision);
            let kept = period.as_nanos() / self.look_interval().as_nanos().max(1) + 1;
            if self.notes.len() as u128 > kept {
                self.notes.pop_front();
            }
        }
        self.look_next = now + self.look_interval();
    }

    fn look_interval(&self) -> Duration {
        match self.retention {
            Retention::Period(period) => period.min(INTERVAL_MAX) / NOTES,
            Retention::Revisions(_) => REVISION_INTERVAL,
        }
    }

    fn tell(&mut self, revision: Revision, stage: Stage) {
        self.notices.push_back(Notice { revision, retention: self.retention, stage });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    /// etcd's two loops, transcribed from what they do: each look sleeps first, and notes the
    /// revision before it sleeps. The store's revision at a time is what `revision_at` says.
    fn etcds_compactions(
        retention: Retention,
        until: Duration,
        revision_at: impl Fn(Duration) -> i64,
        leads_at: impl Fn(Duration) -> bool,
        fails_at: impl Fn(Duration) -> bool,
    ) -> Vec<(Duration, i64)> {
        let (mut now, mut told) = (Duration::ZERO, Vec::new());
        let (mut revisions, mut last, mut success) = (Vec::new(), 0, Duration::ZERO);
        let (period, sleep) = match retention {
            Retention::Period(period) => (period, period.min(HOUR) / 10),
            Retention::Revisions(_) => (Duration::ZERO, 5 * MINUTE),
        };
        let mut base = period;
        loop {
            if let Retention::Period(_) = retention {
                revisions.push(revision_at(now));
                let kept = period.as_nanos() / sleep.as_nanos() + 1;
                if revisions.len() as u128 > kept {
                    revisions.remove(0);
                }
            }
            now += sleep;
            if now > until {
                return told;
            }
            if !leads_at(now) {
                continue;
            }
            let revision = match retention {
                Retention::Period(_) => {
                    if now - success < base || revisions[0] == last {
                        continue;
                    }
                    if base == period {
                        base = period.min(HOUR);
                    }
                    revisions[0]
                }
                Retention::Revisions(kept) => {
                    let revision = revision_at(now) - kept;
                    if revision <= 0 || revision == last {
                        continue;
                    }
                    revision
                }
            };
            told.push((now, revision));
            if !fails_at(now) {
                (last, success) = (revision, now);
            }
        }
    }

    fn compactions(
        retention: Retention,
        until: Duration,
        tick: Duration,
        revision_at: impl Fn(Duration) -> i64,
        leads_at: impl Fn(Duration) -> bool,
        fails_at: impl Fn(Duration) -> bool,
    ) -> Vec<(Duration, i64)> {
        let (mut now, mut told) = (Duration::ZERO, Vec::new());
        let mut auto = AutoCompaction::new(retention, now, Revision(revision_at(now)));
        while now < until {
            now += tick;
            auto.handle_tick(now, Revision(revision_at(now)), leads_at(now));
            if let Some(revision) = auto.poll_proposal() {
                assert!(auto.poll_proposal().is_none(), "proposed twice");
                told.push((now, revision.0));
                let outcome = if fails_at(now) { Err("reason") } else { Ok(()) };
                auto.handle_outcome(now, Revision(revision_at(now)), outcome);
            }
        }
        told
    }

    #[test]
    fn compactions_come_when_etcds_come() {
        let retentions = [
            Retention::Period(5 * MINUTE),
            Retention::Period(59 * MINUTE),
            Retention::Period(HOUR),
            Retention::Period(24 * HOUR),
            Retention::Revisions(1000),
            Retention::Revisions(1),
        ];
        type Scene = (&'static str, fn(u64) -> i64, fn(u64) -> bool, fn(u64) -> bool);
        let scenes: [Scene; 5] = [
            ("busy", |minute| 2 + 10 * minute.cast_signed(), |_| true, |_| false),
            ("idle", |_| 2, |_| true, |_| false),
            ("stops", |minute| minute.min(300).cast_signed() + 1, |_| true, |_| false),
            (
                "follows",
                |minute| 2 + minute.cast_signed(),
                |minute| minute / 90 % 2 == 1,
                |_| false,
            ),
            ("fails", |minute| 2 + minute.cast_signed(), |_| true, |minute| minute % 7 < 3),
        ];
        for retention in retentions {
            // All of them look after whole ticks.
            let tick = match retention {
                Retention::Period(period) => period.min(HOUR) / 10,
                Retention::Revisions(_) => MINUTE,
            };
            for (name, revision, leads, fails) in scenes {
                let minutes = |now: Duration| now.as_secs() / 60;
                let (revision, leads) = (|now| revision(minutes(now)), |now| leads(minutes(now)));
                let fails = |now| fails(minutes(now));
                let until = 50 * HOUR;
                let expected = etcds_compactions(retention, until, revision, leads, fails);
                let found = compactions(retention, until, tick, revision, leads, fails);
                assert_eq!(found, expected, "{retention:?} {name}");
                let is_quiet = name == "idle" || name == "stops";
                assert!(is_quiet || !found.is_empty(), "{retention:?} {name}: none at all");
            }
        }
    }

    /// For 24 hours nothing; then every hour what was there a day and a note before.
    #[test]
    fn a_day_is_kept_whole() {
        let revision_at = |now: Duration| (now.as_secs() / 360).cast_signed() + 1;
        let told = compactions(
            Retention::Period(24 * HOUR),
            30 * HOUR,
            6 * MINUTE,
            revision_at,
            |_| true,
            |_| false,
        );
        let expected = (24..=30).map(|hour| (hour * HOUR, (10 * (i64::from(hour) - 24)).max(1)));
        assert_eq!(told, expected.collect::<Vec<_>>());
    }

    #[test]
    fn what_happens_is_told() {
        let mut auto = AutoCompaction::new(Retention::Revisions(10), Duration::ZERO, Revision(1));
        let at = |minutes: u32| MINUTE * minutes;
        auto.handle_tick(at(5), Revision(50), true);
        assert_eq!(auto.poll_proposal(), Some(Revision(40)));
        auto.handle_tick(at(6), Revision(60), true);
        assert_eq!(auto.poll_proposal(), None, "one at a time");
        auto.handle_outcome(at(7), Revision(60), Err("etcdserver: request timed out"));
        auto.handle_tick(at(11), Revision(60), true);
        assert_eq!(auto.poll_proposal(), None, "five minutes from the failure on");
        auto.handle_tick(at(12), Revision(60), true);
        assert_eq!(auto.poll_proposal(), Some(Revision(50)));
        auto.handle_outcome(at(13), Revision(60), Ok(()));
        let stages: Vec<(i64, Stage)> = std::iter::from_fn(|| auto.poll_notice())
            .map(|told| (told.revision.0, told.stage))
            .collect();
        let reason = "etcdserver: request timed out";
        let failed = Stage::Failed { retry_interval: at(5), reason };
        let completed = Stage::Completed { took: MINUTE };
        let expected = [(40, Stage::Started), (40, failed), (50, Stage::Started), (50, completed)];
        assert_eq!(stages, expected);
    }
}
