//! A simulated disk with a volatile cache, and a small store that drives checkpoints over it.

use std::collections::BTreeMap;

use super::{Model, Random, config, contents, publish};
use crate::page::disk::{Completion, DiskOp, DiskOpKind, FileId};
use crate::page::meta::{self, Chosen, META_BLOCK_SIZE_BYTES, Meta};
use crate::page::{
    Checkpoint, Epoch, MapSource, PageBuffer, PageConfig, PageFile, PageId, PagePtr, Pages,
    PagesNeeded, Root, Side, TreeTag,
};
use crate::tree::{Body, insert, relocate, remove};

const SECTOR_SIZE: usize = 512;

/// Files as the medium has them, and writes that only the cache has.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<FileId, Vec<u8>>,
    pub(super) cached: Vec<(FileId, usize, Vec<u8>)>,
    pub(super) ops: usize,
    pub(super) ops_max: usize,
}

/// The power went before this operation.
#[derive(Debug)]
pub(super) struct PowerLoss;

impl Disk {
    pub(super) fn perform(&mut self, op: DiskOp) -> Result<Completion, PowerLoss> {
        if self.ops == self.ops_max {
            return Err(PowerLoss);
        }
        self.ops += 1;
        let mut buffer = PageBuffer::default();
        match op.kind {
            DiskOpKind::Write { offset, bytes, .. } => {
                self.cached.push((op.file, usize::try_from(offset).unwrap(), bytes.to_vec()));
                buffer = bytes;
            }
            DiskOpKind::Sync => {
                let (synced, rest) = self.cached.drain(..).partition(|(file, ..)| *file == op.file);
                self.cached = rest;
                let synced: Vec<_> = synced;
                for (file, offset, bytes) in &synced {
                    self.store(*file, *offset, bytes);
                }
            }
            // With the rest of the file's end it may also be lost: as before the operation.
            DiskOpKind::Shorten { size_bytes } => {
                let size = usize::try_from(size_bytes).unwrap();
                let cut = |(file, offset, bytes): &(FileId, usize, Vec<u8>)| {
                    *file == op.file && offset + bytes.len() > size
                };
                assert!(!self.cached.iter().any(cut), "written and then cut off");
                self.files.entry(op.file).or_default().truncate(size);
            }
            DiskOpKind::Allocate { .. } => panic!("a simulated file needs no space of its own"),
        }
        Ok(Completion { token: op.token, buffer, result: Ok(()) })
    }

    fn store(&mut self, file: FileId, offset: usize, bytes: &[u8]) {
        let file = self.files.entry(file).or_default();
        file.resize(file.len().max(offset + bytes.len()), 0);
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// What a crash leaves: of the cached writes, in any order, any set of sectors.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let mut cached = std::mem::take(&mut self.cached);
        while !cached.is_empty() {
            let (file, offset, bytes) = cached.swap_remove(random.below(cached.len()));
            let fate = random.below(4);
            for (index, sector) in bytes.chunks(SECTOR_SIZE).enumerate() {
                let kept = match fate {
                    0 => false,
                    1 => true,
                    _ => random.below(2) == 0,
                };
                if kept {
                    self.store(file, offset + index * SECTOR_SIZE, sector);
                }
            }
        }
        (self.ops, self.ops_max) = (0, usize::MAX);
    }
}

pub(super) const SHARDS: u16 = 2;
const TREES: [TreeTag; 2] = [TreeTag(1), TreeTag(2)];

pub(super) type ShardModel = [Model; TREES.len()];

/// What the store says at one epoch.
#[derive(Clone, PartialEq)]
pub(super) struct State {
    pub(super) applied: u64,
    pub(super) models: Vec<ShardModel>,
}

struct Shard {
    pages: PageFile,
    roots: [Root; TREES.len()],
    model: ShardModel,
}

struct Running {
    checkpoints: Vec<Checkpoint>,
    state: State,
    roots: Vec<Vec<Root>>,
    epoch: Epoch,
}

/// A store of two shards with two trees each, driven as the engine drives it.
pub(super) struct Store {
    shards: Vec<Shard>,
    pub(super) applied: u64,
    meta_slot: u8,
    running: Option<Running>,
    /// The checkpoint that must be found after a crash.
    pub(super) durable: State,
    /// The checkpoint that may be found instead, once its meta block is on its way.
    pub(super) possible: Option<State>,
    meta_out: u64,
}

fn shard_config(shard: u16) -> PageConfig {
    PageConfig { file: FileId::Shard(shard), ..config(64 << 20) }
}

impl Store {
    pub(super) fn create() -> Self {
        let shard = |shard| Shard {
            pages: PageFile::create(MapSource::Memory(Vec::new()), shard_config(shard)).unwrap(),
            roots: TREES.map(Root::empty),
            model: ShardModel::default(),
        };
        let models = vec![ShardModel::default(); usize::from(SHARDS)];
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            applied: 0,
            meta_slot: 0,
            running: None,
            durable: State { applied: 0, models },
            possible: None,
            meta_out: 0,
        }
    }

    /// Opens what a crash left; the contents come from the pages alone.
    pub(super) fn open(disk: &Disk) -> Self {
        let bytes = disk.files.get(&FileId::Meta).cloned().unwrap_or_default();
        let (chosen, meta_slot) = meta::choose(&bytes).unwrap();
        let Chosen::Durable { meta, .. } = chosen else { return Self::create() };
        let mut store = Self { meta_slot, applied: meta.applied_index, ..Self::create() };
        store.shards.clear();
        for (number, state) in (0..SHARDS).zip(&meta.shards) {
            let source = MapSource::Memory(disk.files[&FileId::Shard(number)].clone());
            let pages = PageFile::open(source, state, shard_config(number)).unwrap();
            let roots: [Root; TREES.len()] = state.roots.as_slice().try_into().unwrap();
            let model = roots.map(|root| contents(&pages, root));
            assert_no_leak(&pages, &roots);
            store.shards.push(Shard { pages, roots, model });
        }
        store.durable = store.state();
        store
    }

    fn state(&self) -> State {
        let models = self.shards.iter().map(|shard| shard.model.clone()).collect();
        State { applied: self.applied, models }
    }

    /// Applies one batch and publishes it.
    pub(super) fn batch(&mut self, random: &mut Random) {
        self.applied += 1;
        for _ in 0..1 + random.below(30) {
            let shard = random.below(self.shards.len());
            let shard = &mut self.shards[shard];
            shard.pages.reserve(PagesNeeded { pages: 100, extent_pages: 20 }).unwrap();
            let tree = random.below(TREES.len());
            let mut key = format!("key-{}", random.below(400)).into_bytes();
            if random.below(20) == 0 {
                key.resize(2_000, b'+');
            }
            let (root, model) = (&mut shard.roots[tree], &mut shard.model[tree]);
            if random.below(3) == 0 {
                remove(&mut shard.pages, root, &key).unwrap();
                model.remove(&key);
                continue;
            }
            let len = [20, 200, 1_500, 9_000][random.below(4)];
            let body = random.bytes(len);
            insert(&mut shard.pages, root, &key, b"h", Body::Bytes(&body)).unwrap();
            model.insert(key, (b"h".to_vec(), body));
        }
        for shard in &mut self.shards {
            publish(&mut shard.pages, &[]);
        }
    }

    /// Moves what stands at the end of a shard's file, as a batch of its own.
    fn relocate(&mut self, random: &mut Random) {
        let shard = random.below(self.shards.len());
        let shard = &mut self.shards[shard];
        let limit = PageId(shard.pages.used_pages() + 10);
        shard.pages.set_ceiling(limit);
        for root in &mut shard.roots {
            let mut next = Some(Vec::new());
            while let Some(from) = next.filter(|_| random.below(20) > 0) {
                shard.pages.reserve(PagesNeeded { pages: 100, extent_pages: 20 }).unwrap();
                next = relocate(&mut shard.pages, root, &from, Side::Before(limit), u32::MAX)
                    .unwrap()
                    .next;
            }
        }
        shard.pages.lift_ceiling();
        for shard in &mut self.shards {
            publish(&mut shard.pages, &[]);
        }
    }

    /// Cuts the files off behind what is in use.
    fn shorten(&mut self, disk: &mut Disk) -> Result<(), PowerLoss> {
        for shard in &mut self.shards {
            shard.pages.shorten(0);
            while let Some(op) = shard.pages.poll_disk_op() {
                let completion = disk.perform(op)?;
                shard.pages.handle_disk_completion(completion).unwrap();
            }
        }
        Ok(())
    }

    /// Fixes a checkpoint of the latest batch.
    pub(super) fn begin(&mut self) {
        assert!(self.running.is_none());
        let epoch = Epoch(self.shards[0].pages.working_epoch().0 - 1);
        let state = self.state();
        let roots = self.shards.iter().map(|shard| shard.roots.to_vec()).collect();
        let begin = |shard: &mut Shard| Checkpoint::begin(&mut shard.pages, epoch).unwrap();
        let checkpoints = self.shards.iter_mut().map(begin).collect();
        self.running = Some(Running { checkpoints, state, roots, epoch });
    }

    /// Takes a checkpoint forward by one operation; `Ok(true)` when it is durable.
    pub(super) fn step(&mut self, disk: &mut Disk, random: &mut Random) -> Result<bool, PowerLoss> {
        let running = self.running.as_mut().unwrap();
        // Hand out as much as there is, then answer in any order.
        let mut out = Vec::new();
        for (number, checkpoint) in running.checkpoints.iter_mut().enumerate() {
            while let Some(op) = checkpoint.poll_disk_op(&self.shards[number].pages) {
                out.push((number, op));
            }
        }
        if out.is_empty() {
            return self.write_meta(disk);
        }
        while !out.is_empty() {
            let (number, op) = out.swap_remove(random.below(out.len()));
            let completion = disk.perform(op)?;
            running.checkpoints[number].handle_disk_completion(completion).unwrap();
        }
        Ok(false)
    }

    fn write_meta(&mut self, disk: &mut Disk) -> Result<bool, PowerLoss> {
        let running = self.running.take().unwrap();
        let named = running.checkpoints.iter().zip(running.roots);
        let meta = Meta {
            epoch: running.epoch,
            applied_index: running.state.applied,
            applied_term: 1,
            shards: named.map(|(checkpoint, roots)| checkpoint.state(roots)).collect(),
            owner: b"owner".to_vec(),
        };
        let bytes = PageBuffer::from(meta.encode().unwrap().as_slice());
        let offset = Meta::offset_bytes(self.meta_slot);
        self.possible = Some(running.state.clone());
        for kind in [DiskOpKind::Write { offset, bytes, is_cold: false }, DiskOpKind::Sync] {
            self.meta_out += 1;
            let token = crate::page::disk::OpToken(self.meta_out);
            disk.perform(DiskOp { token, file: FileId::Meta, kind })?;
        }
        self.meta_slot ^= 1;
        self.durable = running.state;
        self.possible = None;
        for (checkpoint, shard) in running.checkpoints.into_iter().zip(&mut self.shards) {
            checkpoint.finish(&mut shard.pages);
            shard.pages.drop_copies(u32::MAX, u32::MAX).unwrap();
        }
        Ok(true)
    }

    /// A whole life: batches, with checkpoints that go on while further batches are applied.
    pub(super) fn run(
        &mut self,
        disk: &mut Disk,
        random: &mut Random,
        checkpoints: usize,
    ) -> Result<(), PowerLoss> {
        for _ in 0..checkpoints {
            for _ in 0..1 + random.below(4) {
                self.batch(random);
                if random.below(2) == 0 {
                    self.relocate(random);
                }
            }
            self.begin();
            while !self.step(disk, random)? {
                if random.below(2) == 0 {
                    self.batch(random);
                }
                if random.below(4) == 0 {
                    self.relocate(random);
                }
            }
            if random.below(2) == 0 {
                self.shorten(disk)?;
            }
        }
        Ok(())
    }

    /// Whether the store says what a crash may leave.
    pub(super) fn is_one_of(&self, durable: &State, possible: Option<&State>) -> bool {
        let found = self.state();
        found == *durable || possible == Some(&found)
    }
}

/// Every page in use after an opening is the header, the free map, or reached from a root.
fn assert_no_leak(pages: &PageFile, roots: &[Root]) {
    let mut reached = 1 + pages.free_map_pages();
    for root in roots {
        if !root.is_empty() {
            reached += reached_pages(pages, root.ptr(), root.height);
        }
    }
    let in_use = pages.in_use_bytes() / crate::page::PAGE_SIZE_BYTES as u64;
    assert_eq!(in_use, u64::from(reached), "pages in use and pages reached");
}

fn reached_pages(pages: &PageFile, ptr: PagePtr, level: u8) -> u32 {
    let node = crate::page::node::Node::new(pages.page(ptr).unwrap());
    let mut reached = 1;
    for index in 0..node.count() {
        reached += node.key_extent(index).map_or(0, crate::page::ExtentRef::pages);
        if level > 1 {
            let (page, birth) = node.child(index);
            reached += reached_pages(pages, PagePtr { page, birth, ..ptr }, level - 1);
        } else if let crate::page::node::StoredBody::Extent(extent) = node.leaf_cell(index).body {
            reached += extent.pages();
        }
    }
    reached
}

pub(super) fn meta_blocks(disk: &Disk) -> Vec<u8> {
    let mut bytes = disk.files[&FileId::Meta].clone();
    bytes.resize(2 * META_BLOCK_SIZE_BYTES, 0);
    bytes
}
