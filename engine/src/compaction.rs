//! Compaction: history below a revision is refused at once and swept away later, in steps.
//!
//! The sweep visits the changes between the last finished compaction and the new one. Each of them
//! ended one version at most, the one its chain leads to, and that version is what has to go: its
//! change in `revisions`, and its value if that is in `values`. What was kept by earlier
//! compactions is not looked at again.
//!
//! It goes by windows of many thousand changes: first it notes what they ended, then it removes
//! that in the order of the tree. The versions that a few changes ended lie far apart; those that
//! a window ended fill most of the leaves they stand in, and go a leaf at a time.
//!
//! Before a sweep begins the store is hashed at its revision, as under the compaction before: etcd
//! remembers that number of its last compactions, answers `HashKV` with it, and compares it between
//! members.
//!
//! Invariants, after a finished sweep to C:
//! - Of each key that lives at C the newest version at or below C is left, and all later ones.
//! - A tombstone at C itself is left until the next compaction (watchers may begin at C), earlier
//!   ones are gone.
//! - A sweep stopped anywhere, and begun again, ends in the same state: what is kept of it is where
//!   the window begins, and to remove what is gone changes nothing.

mod ended;

use std::collections::VecDeque;
use std::sync::Arc;

use self::ended::Ended;
use crate::answer::{ReadError, Rejection};
use crate::hash::{HashRun, KeyValueHash};
use crate::ids::{Change, Revision};
use crate::layout::ChangeKind;
use crate::limits::COMPACTION_HASHES_MAX;
use crate::page::{PageFault, Pages};
use crate::range::Progress;
use crate::shard::Shard;
use crate::store::{self, Front, ShardChanges, ShardRoots};
use crate::system;
use crate::tree;
use crate::working::Working;

/// Changes of a window: a mebibyte of notes, for the versions they ended.
const WINDOW_CHANGES_MAX: usize = 64 << 10;
/// Changes that are hashed, and noted, for the price of one that is removed.
const HASHES_PER_REMOVAL: usize = 4;
const NOTES_PER_REMOVAL: usize = 8;
/// Tombstones that a window may note, and bytes of their keys: what is noted of them stands in one
/// piece, which is copied when it grows.
const WINDOW_TOMBSTONES_MAX: usize = 16 << 10;
const WINDOW_KEYS_SIZE_BYTES_MAX: usize = 1 << 20;

/// The store's compactions: those accepted, the one being swept, the hashes they left.
pub(crate) struct Compaction {
    sweep: Sweep,
    window: Option<Window>,
    /// Accepted and not yet begun, oldest first.
    waiting: VecDeque<Revision>,
    /// The hash that is taken before a sweep begins: what etcd remembers of a compaction.
    hashing: Option<HashRun>,
    hashes: Arc<[KeyValueHash]>,
}

impl Compaction {
    pub(crate) fn new(sweep: Sweep) -> Self {
        Self { sweep, window: None, waiting: VecDeque::new(), hashing: None, hashes: Arc::new([]) }
    }

    /// The same with what another store remembers of its compactions.
    pub(crate) fn with_hashes(sweep: Sweep, hashes: &[KeyValueHash]) -> Self {
        Self { hashes: hashes.into(), ..Self::new(sweep) }
    }

    /// Where history begins.
    pub(crate) fn target(&self) -> Revision {
        self.sweep.target
    }

    /// How far history is swept away.
    pub(crate) fn swept(&self) -> Revision {
        self.sweep.finished
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.sweep.is_finished()
    }

    /// The hashes of the latest compactions.
    pub(crate) fn hashes(&self) -> &Arc<[KeyValueHash]> {
        &self.hashes
    }

    /// Accepts a compaction, or says why not.
    pub(crate) fn accept(
        &mut self,
        revision: Revision,
        working: &mut Working,
    ) -> Result<Result<(), Rejection>, PageFault> {
        if let Err(rejection) = self.sweep.accept(revision, working.revision) {
            return Ok(Err(rejection));
        }
        working.compacted = revision;
        self.waiting.push_back(revision);
        // No more hashes are remembered; a compaction that is skipped is swept with the next one.
        if self.waiting.len() > COMPACTION_HASHES_MAX {
            self.waiting.pop_front();
            self.hashing = None;
        }
        system::put_sweep(&mut working.shards[0], &self.sweep)?;
        Ok(Ok(()))
    }

    /// Hashes or sweeps about `budget` changes, one at least. Says whether the trees were changed.
    pub(crate) fn step(&mut self, working: &mut Working, budget: usize) -> Result<bool, ReadError> {
        if self.is_finished() {
            return Ok(false);
        }
        if self.sweep.is_idle() {
            let next = match self.waiting.front().copied() {
                Some(next) => {
                    if self.hash(next, working, budget)? == Progress::More {
                        return Ok(false);
                    }
                    self.waiting.pop_front();
                    next
                }
                // Accepted before a restart: swept as one, and without a hash, so that a process
                // that is restarted often gets on.
                None => self.sweep.target,
            };
            self.sweep.begin(next);
        } else {
            let before = self.sweep;
            let changed = self.sweep.step(&mut self.window, &mut working.shards, budget)?;
            if self.sweep == before {
                return Ok(changed);
            }
        }
        system::put_sweep(&mut working.shards[0], &self.sweep)?;
        Ok(true)
    }

    fn hash(
        &mut self,
        revision: Revision,
        working: &Working,
        budget: usize,
    ) -> Result<Progress, ReadError> {
        let mut run = match self.hashing.take() {
            Some(run) => run,
            None => HashRun::of_compaction(revision, self.sweep.finished),
        };
        if run.step(working, budget * HASHES_PER_REMOVAL)? == Progress::More {
            self.hashing = Some(run);
            return Ok(Progress::More);
        }
        self.remember(run.result(revision));
        Ok(Progress::Done)
    }

    fn remember(&mut self, hash: KeyValueHash) {
        let first = (self.hashes.len() + 1).saturating_sub(COMPACTION_HASHES_MAX);
        self.hashes = self.hashes[first..].iter().copied().chain([hash]).collect();
    }
}

/// How far the sweep has come; the part of compaction that outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// Where history begins.
    pub(crate) target: Revision,
    /// The last compaction that was swept completely.
    finished: Revision,
    /// The compaction being swept; `finished` if there is none.
    goal: Revision,
    /// The shard being swept.
    shard: u64,
    /// The first change of it that was not yet visited, or whose window was not swept to its end.
    next: Change,
}

impl Sweep {
    pub(crate) fn never() -> Self {
        Self {
            target: Revision::NEVER_COMPACTED,
            finished: Revision::NEVER_COMPACTED,
            goal: Revision::NEVER_COMPACTED,
            shard: 0,
            next: Change::default(),
        }
    }

    /// The state of a store that was compacted elsewhere, and swept so far.
    pub(crate) fn imported(target: Revision, finished: Revision) -> Option<Self> {
        let never = Revision::NEVER_COMPACTED;
        let is_sound = never <= finished && finished <= target;
        is_sound.then(|| Self { target, finished, goal: finished, ..Self::never() })
    }

    fn accept(&mut self, revision: Revision, newest: Revision) -> Result<(), Rejection> {
        if revision <= self.target {
            return Err(Rejection::Compacted);
        }
        if revision > newest {
            return Err(Rejection::FutureRevision);
        }
        self.target = revision;
        Ok(())
    }

    /// Whether all that was to be swept is.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished == self.target
    }

    fn is_idle(&self) -> bool {
        self.finished == self.goal
    }

    fn begin(&mut self, goal: Revision) {
        assert!(self.is_idle(), "{goal} begun inside {}", self.goal);
        assert!(goal > self.finished && goal <= self.target, "{goal} up to {}", self.target);
        self.goal = goal;
        self.shard = 0;
        self.next = self.start();
    }

    /// The changes at the last compaction's own revision are visited again: its tombstones were
    /// left until now.
    fn start(&self) -> Change {
        Change::first_of(self.finished.max(Revision(0)))
    }

    /// Visits about `budget` changes, or removes what as many have ended. Says whether the trees
    /// were changed.
    fn step(
        &mut self,
        window: &mut Option<Window>,
        shards: &mut [Shard],
        budget: usize,
    ) -> Result<bool, PageFault> {
        let (mut left, mut changed) = (budget.max(1), false);
        while !self.is_idle() && left > 0 {
            let index = usize::try_from(self.shard).unwrap_or(usize::MAX);
            let Some(shard) = shards.get_mut(index) else {
                self.finished = self.goal;
                break;
            };
            let begun = window.get_or_insert_with(|| Window::new(self.next));
            let cost = if begun.is_noted {
                let removed = begun.sweep(shard, left)?;
                changed |= removed > 0;
                removed
            } else {
                begun.note(shard, self.goal, left * NOTES_PER_REMOVAL)?.div_ceil(NOTES_PER_REMOVAL)
            };
            left = left.saturating_sub(cost.max(1));
            if begun.is_swept() {
                match begun.next {
                    Some(next) => self.next = next,
                    None => {
                        self.shard += 1;
                        self.next = self.start();
                    }
                }
                *window = None;
            }
        }
        Ok(changed)
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let revisions = [self.target.0, self.finished.0, self.goal.0];
        let mut bytes: Vec<u8> = revisions.iter().flat_map(|number| number.to_be_bytes()).collect();
        bytes.extend_from_slice(&self.shard.to_be_bytes());
        bytes.extend_from_slice(&self.next.to_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let number = |at: usize| word(at).map(u64::cast_signed);
        let (target, finished, goal) = (number(0)?, number(8)?, number(16)?);
        let sound = -1 <= finished && finished <= goal && goal <= target;
        sound.then_some(Self {
            target: Revision(target),
            finished: Revision(finished),
            goal: Revision(goal),
            shard: word(24)?,
            next: Change::from_bytes(bytes.get(32..)?)?,
        })
    }
}

/// What some changes in sequence have ended.
struct Window {
    versions: Ended,
    /// Tombstones that nobody may ask for any more, and where their keys end in `keys`.
    tombstones: Vec<(Change, usize)>,
    keys: Vec<u8>,
    /// How many of them are removed.
    removed: usize,
    /// The next change to note; none if the sweep's goal is reached.
    next: Option<Change>,
    noted: usize,
    is_noted: bool,
}

impl Window {
    fn new(from: Change) -> Self {
        Self {
            versions: Ended::default(),
            tombstones: Vec::new(),
            keys: Vec::new(),
            removed: 0,
            next: Some(from),
            noted: 0,
            is_noted: false,
        }
    }

    /// Notes some more changes up to `goal`; returns how many.
    fn note(&mut self, shard: &Shard, goal: Revision, budget: usize) -> Result<usize, PageFault> {
        let mut count = 0;
        let from = self.next.take().expect("a window that has all changes is noted");
        let mut changes = ShardChanges::of_shard(0, &shard.file, &shard.roots, from)?;
        while let Some(Front { logged, key, .. }) = changes.next()? {
            let change = logged.version.change;
            if change.main > goal {
                break;
            }
            if count == budget || self.is_full() {
                self.next = Some(change);
                break;
            }
            // What comes before a creation is a tombstone, which has its own turn.
            if logged.kind != ChangeKind::Create
                && let Some(prev) = logged.prev
            {
                self.versions.push(prev);
            }
            if logged.kind == ChangeKind::Tombstone && change.main < goal {
                self.keys.extend_from_slice(key);
                self.tombstones.push((change, self.keys.len()));
            }
            (count, self.noted) = (count + 1, self.noted + 1);
        }
        if self.next.is_none() || self.is_full() {
            self.is_noted = true;
            self.versions.finish();
        }
        Ok(count)
    }

    fn is_full(&self) -> bool {
        self.noted >= WINDOW_CHANGES_MAX
            || self.tombstones.len() >= WINDOW_TOMBSTONES_MAX
            || self.keys.len() >= WINDOW_KEYS_SIZE_BYTES_MAX
    }

    /// Removes about so much of what was noted; returns how much.
    fn sweep(&mut self, shard: &mut Shard, budget: usize) -> Result<usize, PageFault> {
        let versions = self.versions.take(budget);
        sweep_versions(shard, &versions)?;
        let start = self.removed.checked_sub(1).map_or(0, |before| self.tombstones[before].1);
        let keys = &self.keys[start..];
        let left = &self.tombstones[self.removed..];
        let left = &left[..left.len().min(budget - versions.len())];
        let mut from = start;
        for &(change, end) in left {
            sweep_tombstone(shard, &keys[from - start..end - start], change)?;
            from = end;
        }
        self.removed += left.len();
        Ok(versions.len() + left.len())
    }

    fn is_swept(&self) -> bool {
        self.is_noted && self.versions.is_taken() && self.removed == self.tombstones.len()
    }
}

/// Removes versions that have ended, by their keys in ascending order, but for those that were
/// removed before.
fn sweep_versions(shard: &mut Shard, ended: &[[u8; Change::SIZE_BYTES]]) -> Result<(), PageFault> {
    let mut values = Vec::new();
    let roots = shard.roots;
    tree::remove_each(
        &mut shard.file,
        &mut shard.roots.revisions,
        ended,
        |pages, index, entry| {
            let change = Change::from_bytes(&ended[index]).expect("it was noted as a change");
            let logged = store::decode_logged(pages, &roots, change, entry)?;
            if logged.value_at.is_none() {
                values.push(ended[index]);
            }
            Ok(())
        },
    )?;
    tree::remove_each(&mut shard.file, &mut shard.roots.values, &values, |_, _, _| Ok(()))?;
    Ok(())
}

/// Whether a change at or below the compacted revision is one that the finished sweep leaves.
pub(crate) fn outlives_sweep<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    front: &Front<'_>,
    compacted: Revision,
) -> Result<bool, PageFault> {
    if front.logged.kind == ChangeKind::Tombstone {
        return Ok(front.change().main == compacted);
    }
    let seen = store::version_at(pages, roots, front.key, compacted)?;
    Ok(seen.is_some_and(|found| found.version.change == front.change()))
}

/// Forgets that a key was deleted, unless it lives again: then only the change itself goes.
fn sweep_tombstone(shard: &mut Shard, key: &[u8], change: Change) -> Result<(), PageFault> {
    let newest = store::tombstone(&shard.file, &shard.roots, key)?;
    if newest.is_some_and(|(newest, _)| newest == change) {
        tree::remove(&mut shard.file, &mut shard.roots.tombstones, key)?;
    }
    tree::remove(&mut shard.file, &mut shard.roots.revisions, &change.to_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_order_of_refusals() {
        let mut sweep = Sweep::never();
        assert_eq!(sweep.accept(Revision(-1), Revision(1)), Err(Rejection::Compacted));
        assert_eq!(sweep.accept(Revision(2), Revision(1)), Err(Rejection::FutureRevision));
        assert_eq!(sweep.accept(Revision(0), Revision(1)), Ok(()));
        assert_eq!(sweep.accept(Revision(0), Revision(1)), Err(Rejection::Compacted));
        assert_eq!(sweep.accept(Revision(1), Revision(1)), Ok(()));
    }

    #[test]
    fn the_state_survives_its_encoding() {
        let mut sweep = Sweep::never();
        assert_eq!(Sweep::from_bytes(&sweep.to_bytes()), Some(sweep));
        sweep.accept(Revision(7), Revision(9)).unwrap();
        sweep.begin(Revision(6));
        sweep.shard = 3;
        sweep.next = Change { main: Revision(5), sub: 2 };
        let bytes = sweep.to_bytes();
        assert_eq!(Sweep::from_bytes(&bytes), Some(sweep));
        for cut in 0..bytes.len() {
            assert_eq!(Sweep::from_bytes(&bytes[..cut]), None);
        }
    }
}
