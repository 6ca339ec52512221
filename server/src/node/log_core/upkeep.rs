//! What goes on in the background: sweeps, defragmentation, and what the member proposes by itself
//! to keep its store in order.
//!
//! Invariants:
//! - Nothing of it is done inside a batch, and each step is short: a batch that arrives meanwhile
//!   waits for one at most.
//! - Those who ask for a defragmentation while one is under way are answered with it.
//! - What the member proposes by itself is proposed while it leads and serves, and one of a kind at
//!   a time.

use std::time::Duration;

use engine::command::{CompactRef, FrameWriter};
use engine::ids::Revision;
use engine::{ClusterVersion, Outcome, Rejection};

use super::pace::Pace;
use super::quota::SLOT_ALARM;
use super::{Introduced, LogCore, SLOT_FOUNDING, SLOT_INTRODUCTION};
use crate::config::ETCD_VERSION;
use crate::mail::{FrontendId, Slot, Unavailable, Verdict};
use crate::node::failure::Failure;
use crate::sequencer::auto_compaction::{AutoCompaction, Notice, Retention};
use crate::sequencer::batch::{Ticket, frame_size};
use crate::sequencer::cluster_version::VersionMonitor;
use crate::service::status::{Refusal, status_of};

/// How long a step of a sweep goes on: a batch that arrives meanwhile hardly waits, and it is not
/// much less because to be woken costs a core that slept a sixth of that.
const SWEEP_STEP: Duration = Duration::from_micros(60);
/// Keys between two looks at the clock. Neighbours that go together take a tenth of a microsecond
/// each, and those that stand alone ten times as long, so that no number of keys is a time.
const SWEEP_KEYS_MAX: usize = 64;
/// And how many looks there are, whatever the clock says: as many as would do if a look took 4 us.
const SWEEP_LOOKS_MAX: usize = 16;
/// How long a step of a sweep is followed by a rest, in steps: the sweep of a million revisions is
/// to take a fifth of etcd's time, and does with a little to spare.
const SWEEP_RESTS: u32 = 3;
/// The same for all other jobs.
const JOB_RESTS: u32 = 1;
/// Pages that a step of a defragmentation may copy: a fraction of a millisecond, too.
const DEFRAG_PAGES_MAX: usize = 64;

/// How long after a defragmentation that an install has left another is begun, if it was in vain.
const DEFRAG_OWED_INTERVAL: Duration = Duration::from_secs(60);
/// And how often that is doubled.
const DOUBLINGS_MAX: u32 = 6;

/// Slots of nobody's, behind all that are counted: what came of these matters.
const SLOT_COMPACTION: Slot = Slot(u32::MAX);
const SLOT_VERSION: Slot = Slot(u32::MAX - 1);

/// Jobs of the member's own, and who waits for one.
pub(super) struct Upkeep {
    defragmenting: Vec<Ticket>,
    retention: Option<Retention>,
    /// From the first tick on.
    auto_compaction: Option<AutoCompaction>,
    version: VersionMonitor,
    /// When a defragmentation that an install has left may be begun again.
    defrag_owed_from: Duration,
    /// How often that was done in a row.
    defrags_owed: u32,
    pace: Pace,
    writer: FrameWriter,
}

/// How a proposal of the member's own ended: well, or for a reason not.
pub(super) type OwnOutcome = Result<(), &'static str>;

/// What somebody else has compacted is as good as done.
pub(super) fn own_outcome(outcome: &Outcome) -> OwnOutcome {
    match outcome {
        Outcome::Rejected(Rejection::Compacted) => Ok(()),
        Outcome::Rejected(rejection) => Err(status_of(Refusal::Rejected(*rejection)).1),
        _ => Ok(()),
    }
}

impl Upkeep {
    pub(super) fn new(retention: Option<Retention>) -> Self {
        let own = ClusterVersion::from_text(ETCD_VERSION).expect("a version has three parts");
        Self {
            defragmenting: Vec::new(),
            retention,
            auto_compaction: None,
            version: VersionMonitor::new(own),
            defrag_owed_from: Duration::ZERO,
            defrags_owed: 0,
            pace: Pace::default(),
            writer: FrameWriter::new(),
        }
    }

    /// When the next step of a job is due.
    pub(super) fn due(&self) -> Duration {
        self.pace.due()
    }

    /// A proposal of the member's own has ended; the store is at `revision`.
    pub(super) fn handle_own(
        &mut self,
        slot: Slot,
        outcome: OwnOutcome,
        now: Duration,
        revision: Revision,
    ) {
        match (slot, &mut self.auto_compaction) {
            (SLOT_COMPACTION, Some(auto)) => auto.handle_outcome(now, revision, outcome),
            (SLOT_VERSION, _) => self.version.handle_outcome(),
            _ => {}
        }
    }
}

impl LogCore {
    /// A front-end wants the store defragmented, and has all the time that takes.
    pub(super) fn handle_defrags(&mut self, frontend: FrontendId, slots: &[Slot]) {
        if slots.is_empty() {
            return;
        }
        self.engine.begin_defrag();
        self.replies[frontend.place()].patient.extend_from_slice(slots);
        self.upkeep.defragmenting.extend(slots.iter().map(|&slot| Ticket { frontend, slot }));
    }

    /// Whether a job could take a step.
    pub(super) fn has_job(&self) -> bool {
        let can_sweep = !self.engine.compaction_is_finished() && !self.engine.is_sweep_starved();
        can_sweep
            || self.engine.can_defrag()
            || self.transfers.is_building()
            || self.checks.has_job()
    }

    /// Takes a step of each job, when one is due.
    pub(super) fn work_in_background(
        &mut self,
        now: Duration,
        clock: impl Fn() -> Duration,
    ) -> Result<(), Failure> {
        self.meter.handle_defragmenting(self.engine.is_defragmenting(), now);
        let may_sweep = !self.engine.compaction_is_finished();
        if self.has_job() && (now >= self.upkeep.due() || self.transfers.is_building()) {
            let begun = clock();
            self.build_transfer()?;
            self.step_hashes(now);
            if may_sweep {
                self.sweep(&clock)?;
            }
            self.engine.defrag_step(DEFRAG_PAGES_MAX)?;
            let rests = if may_sweep { SWEEP_RESTS } else { JOB_RESTS };
            self.upkeep.pace.handle_step(begun, clock(), rests);
        }
        self.answer_swept();
        if self.engine.install_wants_checkpoint() && self.engine.begin_checkpoint() {
            self.checkpoint.handle_begun(now);
            // What it writes is not held against the next step any more.
            self.transfers.handle_disk();
        }
        if self.engine.defrag_wants_checkpoint() && self.engine.begin_checkpoint() {
            self.checkpoint.handle_begun(now);
            self.store_wants_room = false;
        }
        if !self.engine.is_defragmenting() {
            self.meter.handle_defragmenting(false, now);
            for ticket in std::mem::take(&mut self.upkeep.defragmenting) {
                let reply = &mut self.replies[ticket.frontend.place()];
                reply.answers.push((ticket.slot, Verdict::Defragmented));
            }
        }
        Ok(())
    }

    /// Takes a step of the sweep.
    fn sweep(&mut self, clock: impl Fn() -> Duration) -> Result<(), Failure> {
        let begun = clock();
        let (mut ended, mut has_more) = (begun, true);
        for _ in 0..SWEEP_LOOKS_MAX {
            has_more = self.engine.background_step(SWEEP_KEYS_MAX)?;
            ended = clock();
            let is_over = ended.saturating_sub(begun) >= SWEEP_STEP;
            if is_over || !has_more || self.engine.is_sweep_starved() {
                break;
            }
        }
        self.meter.handle_swept(begun, ended, !has_more);
        Ok(())
    }

    /// A member that stops leaves the files as they are: each step of the run was whole.
    pub(super) fn stop_upkeep(&mut self) {
        for ticket in std::mem::take(&mut self.upkeep.defragmenting) {
            self.refuse(ticket, Unavailable::Stopped);
        }
    }

    /// Looks whether the store of before an install is still in the files, whether history has
    /// grown old, and whether the cluster's version is to change.
    pub(super) fn handle_upkeep_tick(&mut self, now: Duration) {
        self.defrag_if_owed(now);
        let leads = self.is_primary() && !self.stopping;
        let revision = self.engine.revision();
        let upkeep = &mut self.upkeep;
        let (mut frames, mut slots) = (Vec::new(), Vec::new());
        if let Some(retention) = upkeep.retention {
            let auto = upkeep
                .auto_compaction
                .get_or_insert_with(|| AutoCompaction::new(retention, now, revision));
            auto.handle_tick(now, revision, leads);
            if let Some(revision) = auto.poll_proposal() {
                upkeep.writer.push_compact(&mut frames, CompactRef { revision, physical: false });
                slots.push(SLOT_COMPACTION);
            }
        }
        let introduction = &self.introduction;
        if leads && upkeep.version.is_due(now) {
            let view = self.engine.newest_view();
            // What cannot be read is noticed by whoever asks for it.
            let version = view.cluster_version().ok().flatten();
            let target = view.downgrade_target().ok().flatten();
            let read = |text: Option<String>| ClusterVersion::from_text(text.as_deref()?);
            if version.is_none() && introduction.count > 1 {
                // Who led when this member introduced itself has not come to set one.
                let rest = &introduction.frames[frame_size(&introduction.frames)..];
                frames.extend_from_slice(rest);
                slots.extend((1..introduction.count).map(|_| SLOT_FOUNDING));
            } else if let Some(version) = read(version)
                && let Some(wanted) = upkeep.version.handle_look(now, version, read(target))
            {
                upkeep.writer.push_cluster_version_set(&mut frames, &wanted.to_string());
                slots.push(SLOT_VERSION);
            }
        }
        self.batcher.handle_commands(FrontendId::NOBODY, &frames, &slots);
    }

    /// Deals with what an install has left, ever less often while that is in vain.
    fn defrag_if_owed(&mut self, now: Duration) {
        let upkeep = &mut self.upkeep;
        let wait = DEFRAG_OWED_INTERVAL * 2u32.pow(upkeep.defrags_owed.min(DOUBLINGS_MAX));
        if self.engine.is_defragmenting() {
            upkeep.defrag_owed_from = now + wait;
        } else if !self.engine.is_owed_defrag() {
            upkeep.defrags_owed = 0;
        } else if now >= upkeep.defrag_owed_from && !self.stopping {
            upkeep.defrags_owed += 1;
            self.engine.begin_defrag();
        }
    }

    /// A proposal of the member's own was not taken.
    pub(super) fn refuse_own(&mut self, slot: Slot, reason: Unavailable) {
        match slot {
            SLOT_ALARM => return self.answer_over_quota(),
            // It is said again.
            SLOT_INTRODUCTION => {
                self.introduced = Introduced::NotYet;
                return;
            }
            _ => {}
        }
        self.leases.handle_own(slot);
        let outcome = Err(status_of(Refusal::from(reason)).1);
        self.upkeep.handle_own(slot, outcome, self.ticked, self.engine.revision());
    }

    /// What an automatic compaction has to say.
    pub fn poll_compaction_notice(&mut self) -> Option<Notice> {
        self.upkeep.auto_compaction.as_mut()?.poll_notice()
    }
}
