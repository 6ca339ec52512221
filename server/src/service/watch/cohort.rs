//! Who catches up together: cohorts of watchers that share one walk through the history.
//!
//! A cohort has one cursor; each of its watchers is told what it wants from its own start on as
//! the cursor passes. A watcher joins a cohort that is still before its start. Several cohorts
//! walk at the same time, so that one that begins in the distant past does not hold up those that
//! are almost there; when no place is left for a new one, watchers wait for one to arrive.
//!
//! Invariants:
//! - A watcher in the lane of a cohort is among its members, and starts at or behind its cursor.
//! - Members may hold watchers that have left; a member's lane tells.

use engine::ids::Revision;

use super::slots::Key;

/// Walks at the same time. Each costs a descent per slice; more than a few only share the same
/// disk and core. Tests have fewer, so that watchers come to wait for a place.
pub(super) const COHORTS_MAX: usize = if cfg!(test) { 2 } else { 8 };

/// A start this close ahead of a cursor is worth waiting for it; one farther gets a walk of its
/// own.
const JOIN_DISTANCE_MAX: i64 = if cfg!(test) { 4 } else { 1024 };

/// The place of a cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CohortId(u8);

impl CohortId {
    const fn bit(self) -> u8 {
        1 << self.0
    }
}

const _: () = assert!(COHORTS_MAX <= u8::BITS as usize); // `Membership` has a bit for each

/// In which cohorts a watcher is listed: a watcher that leaves and comes back to the same one is
/// not listed twice, however often it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Membership(u8);

pub(super) struct Cohort {
    /// All before it was told.
    pub(super) cursor: Revision,
    pub(super) members: Vec<Key>,
    /// What the changes that were looked at last have cost each; `None` before the first.
    change_cost: Option<usize>,
}

impl Cohort {
    fn new(cursor: Revision) -> Self {
        Self { cursor, members: Vec::new(), change_cost: None }
    }

    /// How many changes cost no more than this, as far as is known; one at least.
    pub(super) fn slice_changes(&self, cost: usize) -> usize {
        self.change_cost.map_or(1, |change_cost| (cost / change_cost.max(1)).max(1))
    }

    /// So many changes have cost so much.
    pub(super) fn note_cost(&mut self, changes: usize, cost: usize) {
        if changes > 0 {
            self.change_cost = Some(cost.div_ceil(changes));
        }
    }
}

/// All cohorts of a core.
pub(super) struct Cohorts {
    cohorts: [Option<Cohort>; COHORTS_MAX],
    waiting: Vec<Key>,
    turn: usize,
}

impl Cohorts {
    pub(super) const fn new() -> Self {
        Self { cohorts: [const { None }; COHORTS_MAX], waiting: Vec::new(), turn: 0 }
    }

    /// Finds a cohort for a watcher that starts at `from`; `None` makes it wait.
    pub(super) fn join(
        &mut self,
        watcher: Key,
        membership: &mut Membership,
        from: Revision,
    ) -> Option<CohortId> {
        let before = |cohort: &Cohort| cohort.cursor <= from;
        let nearest = (0..COHORTS_MAX)
            .filter(|at| self.cohorts[*at].as_ref().is_some_and(before))
            .max_by_key(|at| self.cohorts[*at].as_ref().map(|cohort| cohort.cursor));
        let vacant = self.cohorts.iter().position(Option::is_none);
        let near = |at: usize| {
            let cohort = self.cohorts[at].as_ref();
            cohort.is_some_and(|cohort| from.0 - cohort.cursor.0 <= JOIN_DISTANCE_MAX)
        };
        let at = match (nearest, vacant) {
            (Some(nearest), _) if near(nearest) => nearest,
            (_, Some(vacant)) => {
                self.cohorts[vacant] = Some(Cohort::new(from));
                vacant
            }
            (Some(nearest), None) => nearest,
            (None, None) => {
                self.waiting.push(watcher);
                return None;
            }
        };
        let id = CohortId(u8::try_from(at).expect("there are only a few cohorts"));
        let cohort = self.cohorts[at].as_mut().expect("the place was found or filled just now");
        if membership.0 & id.bit() == 0 {
            membership.0 |= id.bit();
            cohort.members.push(watcher);
        }
        Some(id)
    }

    /// The cohort whose turn it is.
    pub(super) fn next(&mut self) -> Option<CohortId> {
        for _ in 0..COHORTS_MAX {
            let at = self.turn;
            self.turn = (self.turn + 1) % COHORTS_MAX;
            if self.cohorts[at].is_some() {
                return Some(CohortId(u8::try_from(at).expect("there are only a few cohorts")));
            }
        }
        None
    }

    pub(super) fn get_mut(&mut self, id: CohortId) -> &mut Cohort {
        self.cohorts[usize::from(id.0)].as_mut().expect("a cohort's place is filled while it walks")
    }

    /// Ends a cohort; its place is vacant at once. Returns its members, and those that had waited
    /// for a place.
    pub(super) fn disband(&mut self, id: CohortId) -> (Vec<Key>, Vec<Key>) {
        let cohort = self.cohorts[usize::from(id.0)].take();
        let cohort = cohort.expect("a cohort is disbanded once");
        (cohort.members, std::mem::take(&mut self.waiting))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.cohorts.iter().all(Option::is_none)
    }
}

impl Membership {
    /// The cohort was disbanded.
    pub(super) fn clear(&mut self, id: CohortId) {
        self.0 &= !id.bit();
    }
}
