//! Range deletes, resumable: keys are collected in chunks and deleted one by one, in order.
//!
//! Invariants:
//! - What lies before `position` is deleted, what lies behind is untouched.
//! - A step is over when its keys and the bytes of the records it answers with have used its budget
//!   up, whether the chunk was done or not.

use crate::answer::OwnedRecord;
use crate::command::DeleteRangeRef;
use crate::limits::{self, DELETE_CHUNK_KEYS_MAX, DELETE_CHUNK_SIZE_BYTES_MAX};
use crate::page::PageFault;
use crate::range::Progress;
use crate::store::Store;
use crate::walk::{Bounds, Direction, Walk};
use crate::working::Working;

/// A delete on its way.
#[derive(Debug)]
pub(crate) struct DeleteRun {
    /// Where to go on.
    position: Vec<u8>,
    pub(crate) deleted: i64,
    pub(crate) prevs: Vec<OwnedRecord>,
    /// The bytes of their keys and values.
    pub(crate) prevs_size_bytes: usize,
    /// The keys of a chunk, one after the other.
    keys: Vec<u8>,
    key_ends: Vec<usize>,
}

impl DeleteRun {
    pub(crate) fn new(delete: &DeleteRangeRef<'_>) -> Self {
        Self {
            position: delete.key.to_vec(),
            deleted: 0,
            prevs: Vec::new(),
            prevs_size_bytes: 0,
            keys: Vec::new(),
            key_ends: Vec::new(),
        }
    }

    /// Goes on with the delete; `delete` is the command the run was made for.
    pub(crate) fn step(
        &mut self,
        delete: &DeleteRangeRef<'_>,
        working: &mut Working,
        budget: &mut usize,
    ) -> Result<Progress, PageFault> {
        let Some(bounds) = Bounds::of(delete.key, delete.range_end) else {
            *budget = budget.saturating_sub(1);
            self.delete(delete.key, delete.prev_kv, working, budget)?;
            return Ok(Progress::Done);
        };
        while *budget > 0 {
            let next = self.collect(bounds.end, working, *budget)?;
            // A key is copied to the history and to the list of changes. Without room for that the
            // same keys are collected again by the next step.
            if working.reserve(self.key_ends.len(), 2 * self.keys.len()).is_err() {
                return Ok(Progress::More);
            }
            let keys = std::mem::take(&mut self.keys);
            let key_ends = std::mem::take(&mut self.key_ends);
            let (mut start, mut next) = (0, next);
            for &end in &key_ends {
                // The records came out larger than the chunk's keys let expect.
                if *budget == 0 {
                    next = Some(keys[start..end].to_vec());
                    break;
                }
                *budget -= 1;
                self.delete(&keys[start..end], delete.prev_kv, working, budget)?;
                start = end;
            }
            if key_ends.is_empty() {
                *budget = budget.saturating_sub(1);
            }
            (self.keys, self.key_ends) = (keys, key_ends);
            match next {
                Some(next) => self.position = next,
                None => return Ok(Progress::Done),
            }
        }
        Ok(Progress::More)
    }

    /// Fills the chunk; answers with the key behind it, if the range goes on.
    fn collect(
        &mut self,
        end: Option<&[u8]>,
        working: &Working,
        budget: usize,
    ) -> Result<Option<Vec<u8>>, PageFault> {
        self.keys.clear();
        self.key_ends.clear();
        let bounds = Bounds { start: &self.position, end };
        let mut walk = Walk::new(working, bounds, working.revision(), Direction::Ascending)?;
        while let Some(key) = walk.key() {
            let is_full = self.key_ends.len() >= DELETE_CHUNK_KEYS_MAX.min(budget)
                || self.keys.len() >= DELETE_CHUNK_SIZE_BYTES_MAX;
            if is_full {
                return Ok(Some(key.to_vec()));
            }
            self.keys.extend_from_slice(key);
            self.key_ends.push(self.keys.len());
            walk.advance()?;
        }
        Ok(None)
    }

    fn delete(
        &mut self,
        key: &[u8],
        prev_kv: bool,
        working: &mut Working,
        budget: &mut usize,
    ) -> Result<(), PageFault> {
        if let Some(prev) = working.delete(key, prev_kv)? {
            self.deleted += 1;
            let size_bytes = prev.as_ref().map_or(0, OwnedRecord::size_bytes);
            *budget = budget.saturating_sub(limits::keys_for_bytes(size_bytes));
            self.prevs_size_bytes += size_bytes;
            self.prevs.extend(prev);
        }
        Ok(())
    }
}
