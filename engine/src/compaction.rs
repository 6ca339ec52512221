//! Compaction: history below a revision is refused at once and swept away later, in steps.
//!
//! The sweep visits the changes between the last finished compaction and the new one. Each of them
//! ended one version at most, and that version is what has to go: its entry in `history` and its
//! change in `revisions`. What was kept by earlier compactions is not looked at again.
//!
//! Invariants, after a finished sweep to C:
//! - Of each key that lives at C the newest version at or below C is left, and all later ones.
//! - A tombstone at C itself is left until the next compaction (watchers may begin at C), earlier
//!   ones are gone.
//! - A sweep stopped anywhere, and begun again, ends in the same state.

use crate::answer::Rejection;
use crate::ids::{Change, Revision};
use crate::layout::{self, ChangeKind};
use crate::page::PageFault;
use crate::shard::Shard;
use crate::store;
use crate::tree::{self, Cursor};

/// Changes collected before the trees are changed under the cursor.
const CHUNK_CHANGES_MAX: usize = 256;

/// How far compaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// Where history begins.
    pub(crate) target: Revision,
    /// The last compaction that was swept completely.
    pub(crate) finished: Revision,
    /// The shard being swept.
    shard: u64,
    /// The next change of it to visit.
    next: Change,
}

impl Sweep {
    pub(crate) fn never() -> Self {
        Self {
            target: Revision::NEVER_COMPACTED,
            finished: Revision::NEVER_COMPACTED,
            shard: 0,
            next: Change::default(),
        }
    }

    /// Accepts a compaction, or says why not.
    pub(crate) fn accept(&mut self, revision: Revision, newest: Revision) -> Result<(), Rejection> {
        if revision <= self.target {
            return Err(Rejection::Compacted);
        }
        if revision > newest {
            return Err(Rejection::FutureRevision);
        }
        // A sweep that was under way begins again: it would have kept tombstones at its own target.
        let next = Change::first_of(self.finished.max(Revision(0)));
        *self = Self { target: revision, finished: self.finished, shard: 0, next };
        Ok(())
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished == self.target
    }

    /// Visits about `budget` changes, one at least.
    pub(crate) fn step(&mut self, shards: &mut [Shard], budget: usize) -> Result<(), PageFault> {
        let mut left = budget.max(1);
        while !self.is_finished() && left > 0 {
            let index = usize::try_from(self.shard).unwrap_or(usize::MAX);
            let Some(shard) = shards.get_mut(index) else {
                self.finished = self.target;
                return Ok(());
            };
            let chunk = Chunk::collect(shard, self.next, self.target, left)?;
            left = left.saturating_sub(chunk.changes.len().max(1));
            chunk.sweep(shard, self.target)?;
            match chunk.next {
                Some(next) => self.next = next,
                None => {
                    self.shard += 1;
                    self.next = Change::first_of(self.finished.max(Revision(0)));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.target.0, self.finished.0, self.shard.cast_signed()];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        bytes.extend_from_slice(&self.next.to_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (target, finished, shard) = (number(0)?, number(8)?, number(16)?);
        let sound = -1 <= finished && finished <= target && shard >= 0;
        sound.then_some(Self {
            target: Revision(target),
            finished: Revision(finished),
            shard: shard.cast_unsigned(),
            next: Change::from_bytes(bytes.get(24..)?)?,
        })
    }
}

/// Some changes in sequence, their keys one after the other.
struct Chunk {
    changes: Vec<(Change, ChangeKind, usize)>,
    keys: Vec<u8>,
    /// The change behind them, if it still belongs to the sweep.
    next: Option<Change>,
}

impl Chunk {
    fn collect(
        shard: &Shard,
        from: Change,
        target: Revision,
        budget: usize,
    ) -> Result<Self, PageFault> {
        let mut chunk = Self { changes: Vec::new(), keys: Vec::new(), next: None };
        let mut cursor = Cursor::new(&shard.file, shard.roots.revisions);
        cursor.seek(&from.to_bytes())?;
        while let Some((key, entry)) = cursor.next()? {
            let (change, kind) = store::decode_change(&shard.file, &shard.roots, key, entry.head)?;
            if change.main > target {
                break;
            }
            if chunk.changes.len() >= CHUNK_CHANGES_MAX.min(budget) {
                chunk.next = Some(change);
                break;
            }
            chunk.keys.extend_from_slice(entry.body(&shard.file)?);
            chunk.changes.push((change, kind, chunk.keys.len()));
        }
        Ok(chunk)
    }

    fn sweep(&self, shard: &mut Shard, target: Revision) -> Result<(), PageFault> {
        let mut start = 0;
        let mut history_key = Vec::new();
        for &(change, kind, end) in &self.changes {
            let key = &self.keys[start..end];
            start = end;
            if kind != ChangeKind::Create {
                sweep_ended_by(shard, key, change, &mut history_key)?;
            }
            if kind == ChangeKind::Tombstone && change.main < target {
                tree::remove(&mut shard.file, &mut shard.roots.revisions, &change.to_bytes())?;
            }
        }
        Ok(())
    }
}

/// Removes the version that a change ended, unless that was done before.
fn sweep_ended_by(
    shard: &mut Shard,
    key: &[u8],
    change: Change,
    history_key: &mut Vec<u8>,
) -> Result<(), PageFault> {
    let Some(before) = change.before() else { return Ok(()) };
    layout::history_key(key, before, history_key);
    let Some((past, _)) = store::version_before(&shard.file, &shard.roots, history_key)? else {
        return Ok(());
    };
    if past.end != change {
        return Ok(());
    }
    let written = past.version.change;
    layout::history_key(key, written, history_key);
    tree::remove(&mut shard.file, &mut shard.roots.history, history_key)?;
    tree::remove(&mut shard.file, &mut shard.roots.revisions, &written.to_bytes())?;
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
        sweep.shard = 3;
        sweep.next = Change { main: Revision(5), sub: 2 };
        let bytes = sweep.to_bytes();
        assert_eq!(Sweep::from_bytes(&bytes), Some(sweep));
        for cut in 0..bytes.len() {
            assert_eq!(Sweep::from_bytes(&bytes[..cut]), None);
        }
    }
}
