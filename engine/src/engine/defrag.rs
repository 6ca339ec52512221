//! Defragmentation: the files are emptied from their ends in the background, then shortened.
//!
//! A run waits for a checkpoint, which gives back what only the one before needed, moves what
//! stands at the files' ends to free places before it, waits for the checkpoint that holds the
//! moved, and goes round again while that makes the files much shorter. At last it shortens them.
//!
//! Invariants:
//! - A step copies about as many pages as its budget says, and publishes what it did: reads, writes
//!   and watches go on between any two steps.
//! - Nothing is given up that the durable checkpoint or a pinned view reaches.
//! - Room that the next batches need stays: a file is not shortened to grow again at once.

use crate::page::{Epoch, PageId};
use crate::shard::Shard;
use crate::tree;

use super::{Engine, Failure, apply};

/// Rounds of moving. The second finds free what only the checkpoint before the first one needed,
/// and puts right what was changed under the first.
const ROUNDS_MAX: u32 = 4;
/// Moved pages are private memory until a checkpoint has written them: beyond this much the run
/// waits for it.
const DIRTY_SIZE_BYTES_MAX: u64 = 64 << 20;
/// Pages left free before the limit, besides one in this many of those in use: changes go on
/// meanwhile, and each copies pages.
const SPARE_PART: u32 = 32;
const SPARE_PAGES_MIN: u32 = 64;
/// A batch of the usual largest size.
const BATCH_SIZE_BYTES: usize = 1 << 20;
/// What a leaf costs that is looked at and left alone, in parts of a page that is copied.
const VISITS_PER_PAGE: usize = 4;

/// A run, or none.
#[derive(Debug, Default)]
pub(super) struct Defrag {
    stage: Stage,
    round: u32,
    /// Of each shard: what stands at or behind it is to move.
    limits: Vec<PageId>,
    place: Place,
    is_starved: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// Until a checkpoint of this epoch or a later one is durable.
    Settling(Epoch),
    Moving,
    /// Until nothing else is done to the files.
    Shortening,
    /// Until the files are shorter.
    Finishing,
}

/// The next leaf to visit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    shard: usize,
    tree: usize,
    from: Vec<u8>,
}

impl Engine {
    /// Begins to defragment, unless that is under way.
    pub fn begin_defrag(&mut self) {
        if self.defrag.stage == Stage::Idle {
            let stage = Stage::Settling(self.publisher.current().epoch);
            self.defrag = Defrag { stage, ..Defrag::default() };
        }
    }

    /// Whether a run is under way.
    #[must_use]
    pub fn is_defragmenting(&self) -> bool {
        self.defrag.stage != Stage::Idle
    }

    /// Whether the run cannot go on without a checkpoint; the owner begins it.
    #[must_use]
    pub fn defrag_wants_checkpoint(&self) -> bool {
        let waits = match self.defrag.stage {
            Stage::Settling(epoch) => self.durable_epoch() < epoch,
            Stage::Moving => self.dirty_bytes() >= DIRTY_SIZE_BYTES_MAX,
            Stage::Idle | Stage::Shortening | Stage::Finishing => false,
        };
        waits && !self.is_checkpointing() && !self.has_copies_to_drop()
    }

    /// Whether a step would get on now.
    #[must_use]
    pub fn can_defrag(&self) -> bool {
        match self.defrag.stage {
            Stage::Idle => false,
            Stage::Settling(epoch) => self.durable_epoch() >= epoch,
            Stage::Moving => self.dirty_bytes() < DIRTY_SIZE_BYTES_MAX,
            Stage::Shortening => {
                let is_busy = self.is_checkpointing() || self.has_copies_to_drop();
                !is_busy && !self.is_resizing()
            }
            Stage::Finishing => !self.is_resizing(),
        }
    }

    /// Goes on with a run, copying about `budget` pages, and publishes what it did. Not inside a
    /// batch.
    ///
    /// # Errors
    /// The trees could not be read or changed.
    pub fn defrag_step(&mut self, budget: usize) -> Result<(), Failure> {
        assert!(self.run.is_none(), "moving pages inside entry {}", self.applied);
        assert!(!self.is_poisoned, "the trees may hold half a command");
        if !self.can_defrag() {
            return Ok(());
        }
        match self.defrag.stage {
            Stage::Idle => {}
            Stage::Settling(_) => self.plan_round(),
            Stage::Moving => self.move_pages(budget.clamp(1, apply::SLICE_CHANGES_MAX))?,
            Stage::Shortening => {
                for shard in &mut self.working.shards {
                    let free_pages_min = pages_to_keep(shard);
                    shard.file.shorten(free_pages_min);
                }
                // What views say of sizes has changed.
                self.changed = true;
                self.publish();
                self.defrag.stage = Stage::Finishing;
            }
            Stage::Finishing => {
                // A file that the disk did not shorten is as long as it was.
                self.changed = true;
                self.publish();
                self.defrag = Defrag::default();
            }
        }
        Ok(())
    }

    fn is_resizing(&self) -> bool {
        self.working.shards.iter().any(|shard| shard.file.is_resizing())
    }

    /// Chooses what is to move, or that it was enough.
    fn plan_round(&mut self) {
        let limits: Vec<PageId> = self.working.shards.iter().map(limit_of).collect();
        let shards = self.working.shards.iter().zip(&limits);
        let is_worth_it = shards.clone().any(|(shard, limit)| {
            let spare = limit.0 - shard.file.used_pages();
            // The first round takes what it can get, the others only what is worth a checkpoint.
            let gain_min = if self.defrag.round == 0 { 0 } else { spare };
            shard.file.end().0 > limit.0.saturating_add(gain_min)
        });
        if !is_worth_it || self.defrag.round == ROUNDS_MAX {
            for shard in &mut self.working.shards {
                shard.file.lift_ceiling();
            }
            self.defrag.stage = Stage::Shortening;
            return;
        }
        for (shard, limit) in self.working.shards.iter_mut().zip(&limits) {
            shard.file.set_ceiling(*limit);
        }
        self.defrag.limits = limits;
        self.defrag.place = Place::default();
        self.defrag.round += 1;
        self.defrag.stage = Stage::Moving;
    }

    fn move_pages(&mut self, budget: usize) -> Result<(), Failure> {
        let mut left = budget * VISITS_PER_PAGE;
        while left > 0 {
            let place = &mut self.defrag.place;
            let Some(shard) = self.working.shards.get_mut(place.shard) else { break };
            let needed = shard.pages_needed(1, 0);
            if shard.file.reserve(needed.plus(shard.checkpoint_need())).is_err() {
                // Without room to copy a path there is none to move to. What a checkpoint gives
                // back is for the next round.
                self.defrag.is_starved = true;
                break;
            }
            let limit = self.defrag.limits[place.shard];
            let Some(root) = shard.roots.by_place_mut(place.tree) else {
                *place = Place { shard: place.shard + 1, ..Place::default() };
                continue;
            };
            self.is_poisoned = true;
            let visit = tree::relocate(&mut shard.file, root, &place.from, limit)?;
            self.is_poisoned = false;
            self.changed |= visit.copied_pages > 0;
            left = left.saturating_sub(1 + visit.copied_pages as usize * VISITS_PER_PAGE);
            match visit.next {
                Some(next) => place.from = next,
                None => *place = Place { shard: place.shard, tree: place.tree + 1, from: vec![] },
            }
        }
        self.publish();
        let is_done = self.defrag.place.shard == self.working.shards.len();
        if is_done || std::mem::take(&mut self.defrag.is_starved) {
            self.defrag.stage = Stage::Settling(self.publisher.current().epoch);
        }
        Ok(())
    }
}

/// Free pages for the batch that comes next, so that it does not have the file grow again.
fn pages_to_keep(shard: &Shard) -> u32 {
    let (changes, size_bytes) = (apply::SLICE_CHANGES_MAX, apply::SLICE_SIZE_BYTES_MAX);
    let needed = shard.pages_needed(changes, size_bytes).plus(shard.pages_needed(changes, 0));
    let needed = needed.plus(Shard::pages_usually_needed(BATCH_SIZE_BYTES));
    // Two times: one for the map of the checkpoint that the batch may meet.
    let needed = needed.plus(shard.checkpoint_need()).plus(shard.checkpoint_need());
    needed.pages.saturating_add(needed.extent_pages).saturating_add(shard.file.growth_pages() / 2)
}

/// Behind this nothing needs to stand, once what is there has moved to the free pages before it.
fn limit_of(shard: &Shard) -> PageId {
    let used = shard.file.used_pages();
    PageId(used.saturating_add(used / SPARE_PART).saturating_add(SPARE_PAGES_MIN))
}
