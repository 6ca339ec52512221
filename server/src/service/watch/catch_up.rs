//! Catching up: telling watchers from the tree what they have missed, in bounded steps.
//!
//! A step takes one cohort a bounded number of changes further. What it finds goes through the
//! same index and the same outbox as live events. A cohort arrives when its cursor is past all
//! that the hub has seen: what comes after that comes through the ring.

use engine::answer::ReadError;
use engine::events::{self, EventKind, EventRef, EventSink, Interest};
use engine::ids::Revision;
use engine::view::View;

use super::cohort::CohortId;
use super::outbox::Output;
use super::{Lane, PASS_SIZE_BYTES_MAX, WatchHub};

/// Changes looked at between two looks at what they have produced: values may be large.
const CHANGES_PER_SLICE: usize = 64;

/// Gives what the tree holds to the watchers of one cohort.
struct CohortSink<'h> {
    hub: &'h mut WatchHub,
    cohort: CohortId,
}

impl EventSink for CohortSink<'_> {
    fn interest(&mut self, kind: EventKind, key: &[u8]) -> Interest {
        let lane = Lane::CatchUp(Some(self.cohort));
        let watchers = &self.hub.watchers;
        let mut interest = Interest::Skip;
        self.hub.index.for_each(key, |watcher| {
            let watcher = watchers.get(watcher).expect("what is in the index exists");
            if watcher.lane == lane && watcher.wants(kind) {
                interest = match interest {
                    Interest::EventAndPrev => Interest::EventAndPrev,
                    _ if watcher.prev_kv => Interest::EventAndPrev,
                    _ => Interest::Event,
                };
            }
        });
        interest
    }

    fn event(&mut self, event: EventRef<'_>) {
        self.hub.offer(&event, Lane::CatchUp(Some(self.cohort)));
    }
}

impl WatchHub {
    /// Takes watchers that are behind further along, looking at about `budget` changes. Says
    /// whether there is more to do. Outputs must have been drained: with some left it does
    /// nothing, because what it finds could not be taken back in order any more.
    ///
    /// An error is damage in the tree; the watchers that met it were cancelled.
    pub fn step(&mut self, view: &View, budget: usize) -> Result<bool, ReadError> {
        self.note_view(view);
        let mut budget_left = budget;
        while budget_left > 0 && self.outbox.is_empty() {
            let Some(cohort) = self.cohorts.next() else { break };
            let slice = budget_left.min(CHANGES_PER_SLICE);
            budget_left -= slice;
            self.step_cohort(cohort, view, slice)?;
        }
        Ok(!self.cohorts.is_empty())
    }

    /// Whether watchers are behind and [`WatchHub::step`] has work.
    #[must_use]
    pub fn needs_step(&self) -> bool {
        !self.cohorts.is_empty()
    }

    fn step_cohort(
        &mut self,
        cohort: CohortId,
        view: &View,
        budget: usize,
    ) -> Result<(), ReadError> {
        self.cancel_compacted(cohort, view.compacted);
        if !self.prune_members(cohort) {
            self.arrive(cohort, None);
            return Ok(());
        }
        self.outbox.begin_pass(Some(view.revision));
        let mut budget_left = budget;
        while budget_left > 0 && self.outbox.size_bytes() < PASS_SIZE_BYTES_MAX {
            let from = self.cohorts.get_mut(cohort).cursor;
            if from > view.revision {
                break;
            }
            let slice = budget_left.min(CHANGES_PER_SLICE);
            budget_left -= slice;
            let mut sink = CohortSink { hub: self, cohort };
            match events::events_since(view, from, slice, &mut sink) {
                Ok(next) => {
                    assert!(next > from, "a slice from {from} ended at {next}");
                    self.cohorts.get_mut(cohort).cursor = next;
                }
                Err(error) => {
                    self.break_cohort(cohort);
                    return Err(error);
                }
            }
        }
        self.flush();
        let cursor = self.cohorts.get_mut(cohort).cursor;
        if cursor > self.horizon() {
            self.arrive(cohort, Some(cursor));
        }
        self.settle_progress();
        Ok(())
    }

    /// Members whose next revision is forgotten have lost something: they are told and go.
    fn cancel_compacted(&mut self, cohort: CohortId, compacted: Revision) {
        let cursor = self.cohorts.get_mut(cohort).cursor;
        if cursor >= compacted {
            return;
        }
        let members = self.cohorts.get_mut(cohort).members.clone();
        for member in members {
            let Some(watcher) = self.watchers.get(member) else { continue };
            if watcher.lane != Lane::CatchUp(Some(cohort)) || watcher.from >= compacted {
                continue;
            }
            let (stream, watch_id) = (watcher.stream, watcher.watch_id);
            self.remove_watcher(member);
            self.stream(stream).compacted.insert(watch_id);
            self.outbox.push(Output::Compacted { stream, watch_id, compacted });
        }
        self.cohorts.get_mut(cohort).cursor = compacted;
    }

    /// Drops members that have left. Says whether any is left.
    fn prune_members(&mut self, cohort: CohortId) -> bool {
        let watchers = &mut self.watchers;
        let members = &mut self.cohorts.get_mut(cohort).members;
        members.retain(|member| {
            let Some(watcher) = watchers.get_mut(*member) else { return false };
            let stays = watcher.lane == Lane::CatchUp(Some(cohort));
            if !stays {
                watcher.membership.clear(cohort);
            }
            stays
        });
        !members.is_empty()
    }

    /// Ends a cohort. Its members have been told everything before `told`.
    fn arrive(&mut self, cohort: CohortId, told: Option<Revision>) {
        let (members, waiting) = self.cohorts.disband(cohort);
        for member in members {
            let Some(watcher) = self.watchers.get_mut(member) else { continue };
            watcher.membership.clear(cohort);
            if watcher.lane == Lane::CatchUp(Some(cohort)) {
                let told = told.expect("a cohort that ends early has no members left");
                watcher.from = watcher.from.max(told);
                self.enroll(member);
            }
        }
        for watcher in waiting {
            let lane = self.watchers.get(watcher).map(|watcher| watcher.lane);
            if lane == Some(Lane::CatchUp(None)) {
                self.enroll(watcher);
            }
        }
    }

    fn break_cohort(&mut self, cohort: CohortId) {
        // What the broken slice found is not sent: the watcher learns that its history ends.
        self.discard_pass();
        let members = self.cohorts.get_mut(cohort).members.clone();
        for member in members {
            let Some(watcher) = self.watchers.get(member) else { continue };
            if watcher.lane == Lane::CatchUp(Some(cohort)) {
                let (stream, watch_id) = (watcher.stream, watcher.watch_id);
                self.remove_watcher(member);
                self.outbox.push(Output::Broken { stream, watch_id });
            }
        }
        self.arrive(cohort, None);
    }
}
