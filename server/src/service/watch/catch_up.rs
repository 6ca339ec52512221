//! Catching up: telling watchers from the tree what they have missed, in bounded steps.
//!
//! A step takes one cohort a bounded number of changes further. What it finds goes through the
//! same outbox as live events. A cohort arrives when its cursor is past all that the hub has seen:
//! what comes after that comes through the ring.
//!
//! What a change costs depends on who might want it: the index knows all watchers, so that one who
//! is behind beside ten thousand live ones of the same prefix would pay for all of them at each
//! change. The members of a small cohort are therefore asked one by one, and how many changes a
//! slice takes follows from what the last ones cost.

use engine::answer::ReadError;
use engine::events::{self, EventKind, EventRef, EventSink, Interest};
use engine::ids::Revision;
use engine::view::View;

use super::cohort::CohortId;
use super::outbox::Output;
use super::slots::Key;
use super::{Lane, PASS_SIZE_BYTES_MAX, WatchHub, Watcher};

/// Changes that are told together: what joins their events in a response is that they are told in
/// one step.
const CHANGES_PER_STEP: usize = 64;

/// What a step may cost, in looks at a watcher: about a millisecond. A change that costs more
/// stands alone.
const STEP_COST_MAX: usize = 32 << 10;

/// Bytes whose copying costs as much as a look at a watcher.
const BYTES_PER_LOOK: usize = 64;

/// Looks at watchers that count as much as a change that is read.
const LOOKS_PER_CHANGE: usize = 32;

/// Members of a cohort that are asked one by one whether they want a change. Tests have small
/// cohorts only and take both ways.
const MEMBERS_ASKED_MAX: usize = if cfg!(test) { 2 } else { 32 };

/// Gives what the tree holds to the watchers of one cohort.
struct CohortSink<'h> {
    hub: &'h mut WatchHub,
    cohort: CohortId,
    /// The members, if they are few.
    asked: &'h [Key],
    changes: usize,
    looks: usize,
}

impl EventSink for CohortSink<'_> {
    fn interest(&mut self, kind: EventKind, key: &[u8]) -> Interest {
        let lane = Lane::CatchUp(Some(self.cohort));
        let WatchHub { watchers, index, matched, .. } = &mut *self.hub;
        let mut interest = Interest::Skip;
        let mut looks = 0;
        matched.clear();
        let mut look = |key: Key, watcher: &Watcher| {
            if watcher.lane == lane && watcher.wants(kind) {
                matched.push(key);
                interest = match interest {
                    Interest::EventAndPrev => Interest::EventAndPrev,
                    _ if watcher.prev_kv => Interest::EventAndPrev,
                    _ => Interest::Event,
                };
            }
        };
        if self.asked.is_empty() {
            index.for_each(key, |watcher| {
                looks += 1;
                look(watcher, watchers.get(watcher).expect("what is in the index exists"));
            });
        } else {
            looks += self.asked.len();
            for member in self.asked {
                let watcher = watchers.get(*member).expect("members that left were dropped");
                if watcher.span.holds(key) {
                    look(*member, watcher);
                }
            }
        }
        self.looks += looks;
        self.changes += 1;
        interest
    }

    /// For those whom the question before it has found.
    fn event(&mut self, event: EventRef<'_>) {
        self.hub.offer_matched(&event, Lane::CatchUp(Some(self.cohort)));
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
            self.step_due = false;
            let Some(cohort) = self.cohorts.next() else { break };
            let changes = budget_left.min(CHANGES_PER_STEP);
            let cost = self.step_cohort(cohort, view, changes)?;
            budget_left = budget_left.saturating_sub(changes.max(cost / LOOKS_PER_CHANGE));
        }
        Ok(!self.cohorts.is_empty())
    }

    /// Whether watchers are behind and [`WatchHub::step`] has work.
    #[must_use]
    pub fn needs_step(&self) -> bool {
        !self.cohorts.is_empty()
    }

    /// Takes a cohort so many changes further, or as many as one step may cost. Says what it cost.
    fn step_cohort(
        &mut self,
        cohort: CohortId,
        view: &View,
        changes: usize,
    ) -> Result<usize, ReadError> {
        self.cancel_compacted(cohort, view.compacted);
        if !self.prune_members(cohort) {
            self.arrive(cohort, None);
            return Ok(0);
        }
        let mut asked = std::mem::take(&mut self.asked);
        asked.clear();
        let members = &self.cohorts.get_mut(cohort).members;
        if members.len() <= MEMBERS_ASKED_MAX {
            asked.extend_from_slice(members);
        }
        self.outbox.begin_pass(Some(view.revision));
        let walked = self.walk(cohort, view, changes, &asked);
        self.asked = asked;
        self.matched.clear();
        let cost = match walked {
            Ok(cost) => cost,
            Err(error) => {
                self.break_cohort(cohort);
                return Err(error);
            }
        };
        self.flush();
        let cursor = self.cohorts.get_mut(cohort).cursor;
        if cursor > self.horizon() {
            self.arrive(cohort, Some(cursor));
        }
        self.settle_progress();
        Ok(cost)
    }

    /// Offers what the tree holds from the cohort's cursor on, in slices: values may be large, and
    /// what a slice costs is known only afterwards.
    fn walk(
        &mut self,
        cohort: CohortId,
        view: &View,
        changes: usize,
        asked: &[Key],
    ) -> Result<usize, ReadError> {
        let mut changes_left = changes;
        let mut cost = 0;
        while changes_left > 0 && cost < STEP_COST_MAX {
            let size_bytes = self.outbox.size_bytes();
            let walker = self.cohorts.get_mut(cohort);
            let from = walker.cursor;
            if from > view.revision || size_bytes >= PASS_SIZE_BYTES_MAX {
                break;
            }
            let slice = walker.slice_changes(STEP_COST_MAX - cost).min(changes_left);
            changes_left -= slice;
            let mut sink = CohortSink { hub: self, cohort, asked, changes: 0, looks: 0 };
            let next = events::events_since(view, from, slice, &mut sink)?;
            assert!(next > from, "a slice from {from} ended at {next}");
            let (looked_at, looks) = (sink.changes, sink.looks);
            let slice_cost = looks + (self.outbox.size_bytes() - size_bytes) / BYTES_PER_LOOK;
            cost += slice_cost;
            let walker = self.cohorts.get_mut(cohort);
            walker.cursor = next;
            walker.note_cost(looked_at, slice_cost);
        }
        Ok(cost)
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
