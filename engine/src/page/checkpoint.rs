//! A checkpoint of one shard: the dirty pages of a published view, written in slices.
//!
//! [`Checkpoint::begin`] fixes what is to be written; writes may then end in any order, among the
//! batches that go on; a sync follows the last. The owner then writes one meta block that names the
//! roots of all shards, syncs it, and only then calls [`Checkpoint::finish`].
//!
//! Invariants:
//! - No write touches a page that the durable checkpoint reaches: until the new meta block is
//!   durable the old one is whole.
//! - The pages being written do not change: they were born at or before the checkpoint's epoch, and
//!   the allocator protects that epoch until the checkpoint after this one.
//! - Private copies are dropped only when the file holds the same pages durably, and a few at a
//!   time ([`PageFile::drop_copies`]): each costs a system call and an interrupt of every core.

use std::collections::BTreeSet;

use super::alloc::Run;
use super::bitmap::Bitmap;
use super::buffer::PageBuffer;
use super::bytes::PageBytes;
use super::disk::{Completion, DiskError, DiskOp, DiskOpKind, FileId, OpToken};
use super::fault::NoSpace;
use super::file::PageFile;
use super::header;
use super::ids::{Epoch, ExtentRef, PAGE_SIZE_U32, PageId, Root};

/// Pages of one write. 512 KiB: far enough up the curve of the disk's throughput, and short enough
/// that a log write which meets it in the queue waits well under a millisecond.
const WRITE_PAGES_MAX: u32 = (512 << 10) / PAGE_SIZE_U32;

/// Writes that are out at a time; bounds the staging memory.
const WRITES_OUT_MAX: usize = 4;

/// Private copies of free pages that outlive a checkpoint: about what the next few batches take.
const WARM_PAGES_MAX: usize = 1024;

/// One shard's part of a durable checkpoint, as the meta block keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardCheckpoint {
    /// The epoch of the view.
    pub epoch: Epoch,
    /// Pages the free map speaks of; the file reaches at least to the last that is used.
    pub pages: u32,
    /// Where the free map stands: a bit for each page that the checkpoint uses.
    pub free_map: ExtentRef,
    /// The roots of the shard's trees.
    pub roots: Vec<Root>,
}

/// A checkpoint in progress.
pub struct Checkpoint {
    file: FileId,
    epoch: Epoch,
    writing: Bitmap,
    free_map: ExtentRef,
    pages: u32,
    header_wanted: bool,
    /// A store is being built beside the one that is read. What stands in pages of its own, in
    /// large values mostly, is written once and not read before the build is over: the system has
    /// better use for the memory. The trees are touched again and again.
    is_building: bool,
    cursor: u32,
    out: BTreeSet<OpToken>,
    next_token: u64,
    stage: Stage,
    buffers: Vec<PageBuffer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Writing,
    Syncing,
    Synced,
}

impl Checkpoint {
    /// Fixes a checkpoint of the latest published view, whose epoch is `epoch`; the working epoch
    /// may already hold changes.
    ///
    /// # Errors
    /// The free map finds no place. The file wants to grow first.
    pub fn begin(pages: &mut PageFile, epoch: Epoch) -> Result<Self, NoSpace> {
        assert!(!pages.has_copies_to_drop(), "a page that is written again would be lost");
        let need = pages.free_map_need();
        pages.reserve_exactly(need)?;
        let count = pages.alloc.pages();
        let run_pages = pages.free_map_need().extent_pages;
        let (page, _) = pages.alloc.take_run(run_pages).expect("the run was reserved just now");
        let run = Run { page, pages: run_pages };
        pages.free_map_out = Some(run);
        // Taken in the working epoch, the run is not part of either set; it joins both by hand.
        let (mut writing, mut used) = pages.alloc.begin_checkpoint(epoch);
        pages.alloc.note_written(run);
        for at in page.0..page.0 + run_pages {
            writing.insert(at);
            used.insert(at);
        }
        // The map before this one is needed no more once this one is durable.
        if let Some(old) = pages.free_map {
            for at in old.page.0..old.page.0 + old.pages() {
                used.remove(at);
            }
        }
        let free_map = write_free_map(pages, run, &used.to_bytes());
        Ok(Self {
            file: pages.file(),
            epoch,
            writing,
            free_map,
            pages: count,
            header_wanted: pages.alloc.durable() == Epoch(0),
            is_building: pages.map.is_building(),
            cursor: 0,
            out: BTreeSet::new(),
            next_token: 0,
            stage: Stage::Writing,
            buffers: Vec::new(),
        })
    }

    /// The next operation; `None` when the completion of one that is out must come first, or when
    /// everything is durable.
    pub fn poll_disk_op(&mut self, pages: &PageFile) -> Option<DiskOp> {
        assert_eq!(pages.file(), self.file);
        if self.stage != Stage::Writing || self.out.len() >= WRITES_OUT_MAX {
            return None;
        }
        if self.header_wanted {
            self.header_wanted = false;
            let mut page = PageBytes::zeroed();
            header::write(&mut page, self.file);
            let mut bytes = PageBuffer::default();
            bytes.push(&page);
            bytes.seal_last();
            let write = DiskOpKind::Write { offset: 0, bytes, is_cold: false };
            return Some(self.hand_out(write));
        }
        if let Some(start) = self.writing.next_present(self.cursor) {
            let end = self.writing.next_absent(start).unwrap_or(self.writing.len());
            let mut end = end.min(start + WRITE_PAGES_MAX);
            let is_cold = self.is_building && pages.alloc.is_raw(start);
            if self.is_building {
                let is_other = |&at: &u32| pages.alloc.is_raw(at) != is_cold;
                end = (start..end).find(is_other).unwrap_or(end);
            }
            self.cursor = end;
            let bytes = self.stage_run(pages, start, end);
            let offset = PageId(start).offset_bytes();
            return Some(self.hand_out(DiskOpKind::Write { offset, bytes, is_cold }));
        }
        if self.out.is_empty() {
            self.stage = Stage::Syncing;
            return Some(self.hand_out(DiskOpKind::Sync));
        }
        None
    }

    fn hand_out(&mut self, kind: DiskOpKind) -> DiskOp {
        let token = OpToken(self.next_token);
        self.next_token += 1;
        self.out.insert(token);
        DiskOp { token, file: self.file, kind }
    }

    /// Copies pages to where their checksums can be written without a reader seeing it.
    fn stage_run(&mut self, pages: &PageFile, start: u32, end: u32) -> PageBuffer {
        let mut bytes = self.buffers.pop().unwrap_or_default();
        bytes.clear();
        bytes.reserve((end - start) as usize);
        for at in start..end {
            bytes.push(pages.map.bytes(PageId(at)));
            if !pages.alloc.is_raw(at) {
                bytes.seal_last();
            }
        }
        bytes
    }

    /// An operation has ended.
    ///
    /// # Errors
    /// The disk refused: the process stops, for nothing is known of what reached the medium.
    pub fn handle_disk_completion(&mut self, completion: Completion) -> Result<(), DiskError> {
        assert!(self.out.remove(&completion.token), "an answer nobody waits for");
        completion.result?;
        match self.stage {
            Stage::Writing => {
                if completion.buffer.capacity() > 0 && self.buffers.len() < WRITES_OUT_MAX {
                    self.buffers.push(completion.buffer);
                }
            }
            Stage::Syncing => self.stage = Stage::Synced,
            Stage::Synced => unreachable!("nothing is out after the sync"),
        }
        Ok(())
    }

    /// Whether everything is durable, so that a meta block may name it.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.stage == Stage::Synced
    }

    /// The epoch of the view that is being written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What the meta block has to say of this shard; `roots` are those of the view of
    /// [`Self::epoch`].
    #[must_use]
    pub fn state(&self, roots: Vec<Root>) -> ShardCheckpoint {
        assert!(self.is_synced(), "a meta block must not name what is not durable");
        for root in &roots {
            assert!(root.birth <= self.epoch, "a root of {} in {}", root.birth, self.epoch);
        }
        ShardCheckpoint { epoch: self.epoch, pages: self.pages, free_map: self.free_map, roots }
    }

    /// Ends the checkpoint; its meta block is durable. The private copies of what it wrote are left
    /// to [`PageFile::drop_copies`].
    pub fn finish(self, pages: &mut PageFile) {
        assert!(self.is_synced() && pages.file() == self.file);
        pages.free_map_out = None;
        let cold = pages.alloc.finish_checkpoint(&self.writing, WARM_PAGES_MAX);
        if let Some(old) = pages.free_map.replace(self.free_map) {
            pages.alloc.release(Run { page: old.page, pages: old.pages() });
        }
        let mut copies = self.writing;
        // The file may have grown since the checkpoint began.
        copies.grow(pages.alloc.pages());
        for page in cold {
            copies.insert(page.0);
        }
        pages.give_up_copies(copies);
    }
}

fn write_free_map(pages: &mut PageFile, run: Run, bytes: &[u8]) -> ExtentRef {
    // SAFETY: `&mut PageFile` is the only writer, and the run was free until now.
    let place = unsafe { pages.map.run_mut(run.page, run.pages) };
    place[..bytes.len()].copy_from_slice(bytes);
    place[bytes.len()..].fill(0);
    let size_bytes = u32::try_from(bytes.len()).expect("a bit for each of 2^32 pages at most");
    let birth = pages.working_epoch();
    // The run's bit may be left from a page that was verified here before.
    pages.map.set_verified(run.page);
    ExtentRef { page: run.page, size_bytes, birth, crc: crc32fast::hash(bytes) }
}
