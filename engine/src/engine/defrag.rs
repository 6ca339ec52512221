//! Defragmentation: the files are emptied from their ends in the background, then shortened.
//!
//! A run waits for a checkpoint, which gives back what only the one before needed, moves what
//! stands at the files' ends to free places before it, waits for the checkpoint that holds the
//! moved, and goes round again while that makes the files much shorter. At last it shortens them,
//! piece by piece.
//!
//! A large value needs pages side by side, and the holes before it may all be too short. When that
//! keeps a file much longer than it need be, everything in it is lifted behind its end once, which
//! leaves one hole, and comes down again in the rounds that follow.
//!
//! Invariants:
//! - A step copies about as many pages as its budget says, and publishes what it did: reads, writes
//!   and watches go on between any two steps.
//! - Nothing is given up that the durable checkpoint or a pinned view reaches.
//! - Room that the next batches need stays: a file is not shortened to grow again at once.

use crate::page::{Epoch, PageId, Side};
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
/// Rounds before it: their checkpoints make holes, which may be long enough.
const LIFT_ROUND: u32 = 2;
/// Room for a path and for the largest value, besides a step's budget, where all is lifted to.
const LIFT_ROOM_PAGES: u32 = 1024;
/// A file that could be shorter by one part in so many is worth lifting all of it.
const LIFT_PART: u32 = 8;
/// What a leaf costs that is looked at and left alone, in parts of a page that is copied.
const VISITS_PER_PAGE: usize = 4;

/// A run, or none.
#[derive(Debug, Default)]
pub(super) struct Defrag {
    stage: Stage,
    round: u32,
    /// Of each shard: where all of it is to stand; `None` for one that is left alone.
    sides: Vec<Option<Side>>,
    place: Place,
    /// Of each shard: pages of large values for which there was no room in this round.
    unplaced_pages: Vec<u32>,
    /// Everything was lifted once: again would be in vain.
    is_lifted: bool,
    /// The file was to grow for what is lifted into it.
    awaits_growth: bool,
    /// Pieces that may still be cut off. Files that grow again meanwhile are in use.
    pieces_left: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// Until a checkpoint of this epoch or a later one is durable.
    Settling(Epoch),
    Moving,
    /// Until the last piece is cut off.
    Shortening,
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

    /// Whether the files may be longer for a store that is gone, because nobody has defragmented
    /// since, or a reader held it then and does no more.
    #[must_use]
    pub fn is_owed_defrag(&self) -> bool {
        self.defrag.stage == Stage::Idle && self.working.is_owed_defrag()
    }

    /// Whether the run cannot go on without a checkpoint; the owner begins it.
    #[must_use]
    pub fn defrag_wants_checkpoint(&self) -> bool {
        let waits = match self.defrag.stage {
            Stage::Settling(epoch) => self.durable_epoch() < epoch,
            Stage::Moving => self.dirty_bytes() >= DIRTY_SIZE_BYTES_MAX,
            Stage::Idle | Stage::Shortening => false,
        };
        waits && !self.is_checkpointing() && !self.has_copies_to_drop()
    }

    /// Whether a step would get on now.
    #[must_use]
    pub fn can_defrag(&self) -> bool {
        match self.defrag.stage {
            Stage::Idle => false,
            Stage::Settling(epoch) => self.durable_epoch() >= epoch,
            Stage::Moving => {
                let is_growing = self.defrag.awaits_growth && self.is_growing();
                self.dirty_bytes() < DIRTY_SIZE_BYTES_MAX && !is_growing
            }
            Stage::Shortening => {
                let is_busy = self.is_checkpointing() || self.has_copies_to_drop();
                !is_busy && !self.is_resizing()
            }
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
            Stage::Shortening => self.shorten(),
        }
        Ok(())
    }

    fn is_growing(&self) -> bool {
        self.working.shards.iter().any(|shard| shard.file.is_growing())
    }

    fn is_resizing(&self) -> bool {
        self.working.shards.iter().any(|shard| shard.file.is_resizing())
    }

    /// Cuts a piece off each file that can spare it, or ends the run.
    fn shorten(&mut self) {
        let mut is_cut = false;
        for shard in &mut self.working.shards {
            let free_pages_min = pages_to_keep(shard);
            is_cut |= shard.file.shorten(free_pages_min);
        }
        let is_short = |shard: &Shard| shard.file.end().0 <= limit_of(shard).0 + spare_pages(shard);
        if !is_cut && self.working.is_owed_defrag() && self.working.shards.iter().all(is_short) {
            // The files count as those of any other member.
            self.working.size_bytes_noted = None;
        }
        // What views say of sizes has changed.
        self.changed = true;
        self.publish();
        self.defrag.pieces_left = self.defrag.pieces_left.saturating_sub(1);
        if !is_cut || self.defrag.pieces_left == 0 {
            self.defrag = Defrag::default();
        }
    }

    /// Chooses what is to move, or that it was enough.
    fn plan_round(&mut self) {
        let shards = &self.working.shards;
        let gains: Vec<u32> = shards
            .iter()
            .map(|shard| shard.file.end().0.saturating_sub(limit_of(shard).0))
            .collect();
        let is_worth_it = shards.iter().zip(&gains).any(|(shard, &gain)| {
            // The first round takes what it can get, the others only what is worth a checkpoint.
            let gain_min = if self.defrag.round == 0 { 0 } else { spare_pages(shard) };
            gain > gain_min
        });
        if let Some(sides) = self.plan_lift(&gains) {
            self.defrag.is_lifted = true;
            // What is lifted has all the rounds to come down.
            self.defrag.round = 0;
            return self.begin_round(sides);
        }
        if !is_worth_it || self.defrag.round == ROUNDS_MAX {
            for shard in &mut self.working.shards {
                shard.file.lift_ceiling();
            }
            let pieces = |shard: &Shard| shard.file.pieces();
            self.defrag.pieces_left = self.working.shards.iter().map(pieces).max().unwrap_or(0);
            self.defrag.stage = Stage::Shortening;
            return;
        }
        self.defrag.round += 1;
        let sides = self.working.shards.iter().map(|shard| Some(Side::Before(limit_of(shard))));
        self.begin_round(sides.collect());
    }

    /// The shards to lift, if large values keep a file much longer than it need be.
    fn plan_lift(&self, gains: &[u32]) -> Option<Vec<Option<Side>>> {
        if self.defrag.is_lifted || self.defrag.round < LIFT_ROUND {
            return None;
        }
        let parts = self.working.shards.iter().zip(gains).zip(&self.defrag.unplaced_pages);
        let sides: Vec<Option<Side>> = parts
            .map(|((shard, &gain), &unplaced)| {
                let gain_min = (shard.file.end().0 / LIFT_PART).max(shard.file.growth_pages() / 4);
                (unplaced > 0 && gain > gain_min).then(|| Side::Behind(shard.file.end()))
            })
            .collect();
        sides.iter().any(Option::is_some).then_some(sides)
    }

    fn begin_round(&mut self, sides: Vec<Option<Side>>) {
        for (shard, side) in self.working.shards.iter_mut().zip(&sides) {
            match side {
                Some(Side::Before(limit)) => shard.file.set_ceiling(*limit),
                Some(Side::Behind(_)) | None => shard.file.lift_ceiling(),
            }
        }
        self.defrag.unplaced_pages = vec![0; sides.len()];
        self.defrag.sides = sides;
        self.defrag.place = Place::default();
        self.defrag.stage = Stage::Moving;
    }

    fn move_pages(&mut self, budget: usize) -> Result<(), Failure> {
        let pages_max = u32::try_from(budget).unwrap_or(u32::MAX);
        let mut left = budget * VISITS_PER_PAGE;
        let mut is_over = false;
        while left > 0 {
            let place = &mut self.defrag.place;
            let Some(&side) = self.defrag.sides.get(place.shard) else {
                is_over = true;
                break;
            };
            let Some(side) = side else {
                *place = Place { shard: place.shard + 1, ..Place::default() };
                continue;
            };
            match self.make_room(side, pages_max) {
                Room::Made => {}
                Room::Awaited => break,
                Room::None => {
                    is_over = true;
                    break;
                }
            }
            let place = &mut self.defrag.place;
            let shard = &mut self.working.shards[place.shard];
            let Some(root) = shard.roots.by_place_mut(place.tree) else {
                *place = Place { shard: place.shard + 1, ..Place::default() };
                continue;
            };
            self.is_poisoned = true;
            let visit = tree::relocate(&mut shard.file, root, &place.from, side, pages_max)?;
            self.is_poisoned = false;
            self.changed |= visit.copied_pages > 0;
            self.defrag.unplaced_pages[place.shard] += visit.unplaced_pages;
            left = left.saturating_sub(1 + visit.copied_pages as usize * VISITS_PER_PAGE);
            match visit.next {
                Some(next) => place.from = next,
                None => *place = Place { shard: place.shard, tree: place.tree + 1, from: vec![] },
            }
        }
        self.publish();
        if is_over {
            self.defrag.stage = Stage::Settling(self.publisher.current().epoch);
        }
        Ok(())
    }

    /// Looks whether there is room to copy a path and what hangs on it, beside what batches that
    /// were admitted count on.
    fn make_room(&mut self, side: Side, pages_max: u32) -> Room {
        let shard = &mut self.working.shards[self.defrag.place.shard];
        let waiting = Shard::pages_usually_needed(self.admitted_size_bytes);
        let needed = shard.pages_needed(1, 0).plus(waiting).plus(shard.checkpoint_need());
        if shard.file.reserve(needed).is_err() {
            // Without room to copy a path there is none to move to. What a checkpoint gives back
            // is for the next round.
            return Room::None;
        }
        let Side::Behind(from) = side else { return Room::Made };
        let pages = pages_max.saturating_add(LIFT_ROOM_PAGES);
        if shard.file.has_room_behind(from, pages) {
            self.defrag.awaits_growth = false;
            return Room::Made;
        }
        // A file that did not grow when it was to has reached its bound, or the disk's.
        let has_asked = std::mem::replace(&mut self.defrag.awaits_growth, true);
        if !has_asked && shard.file.grow(pages) { Room::Awaited } else { Room::None }
    }
}

/// Whether a step can copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Made,
    /// A file is growing.
    Awaited,
    None,
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
    PageId(shard.file.used_pages().saturating_add(spare_pages(shard)))
}

fn spare_pages(shard: &Shard) -> u32 {
    (shard.file.used_pages() / SPARE_PART).saturating_add(SPARE_PAGES_MIN)
}
