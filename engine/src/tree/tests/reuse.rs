//! Which pages are written while views are held: none that they reach; and how far a file grows.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Model, Random, TREE, config, contents, memory_file, publish};
use crate::page::disk::{Completion, DiskOp, DiskOpKind};
use crate::page::node::{Node, StoredBody};
use crate::page::pin::Publisher;
use crate::page::{
    Checkpoint, Epoch, ExtentRef, MapSource, PageBuffer, PageFile, PagePtr, PageReader, Pages,
    PagesNeeded, Root,
};
use crate::tree::{Body, Cursor, get, insert, remove};

/// A checksum of every byte that a root reaches, headers and free space included.
fn hash_reached(pages: &impl Pages, root: Root) -> u32 {
    fn walk(pages: &impl Pages, ptr: PagePtr, level: u8, hasher: &mut crc32fast::Hasher) {
        let bytes = pages.page(ptr).unwrap();
        hasher.update(bytes.as_bytes());
        let node = Node::new(bytes);
        let extent = |extent: ExtentRef, hasher: &mut crc32fast::Hasher| {
            hasher.update(pages.extent(TREE, extent).unwrap());
        };
        for index in 0..node.count() {
            if let Some(key) = node.key_extent(index) {
                extent(key, hasher);
            }
            if level > 1 {
                let (page, birth) = node.child(index);
                walk(pages, PagePtr { page, birth, ..ptr }, level - 1, hasher);
            } else if let StoredBody::Extent(body) = node.leaf_cell(index).body {
                extent(body, hasher);
            }
        }
    }
    let mut hasher = crc32fast::Hasher::new();
    if !root.is_empty() {
        walk(pages, root.ptr(), root.height, &mut hasher);
    }
    hasher.finalize()
}

fn churn(pages: &mut PageFile, root: &mut Root, random: &mut Random, changes: usize) {
    for _ in 0..changes {
        let key = format!("key-{:05}", random.below(2_000)).into_bytes();
        if random.below(4) == 0 {
            remove(pages, root, &key).unwrap();
            continue;
        }
        let len = [50, 50, 50, 50, 400, 6_000][random.below(6)];
        let body = random.bytes(len);
        insert(pages, root, &key, b"head", Body::Bytes(&body)).unwrap();
    }
}

#[test]
fn no_page_of_a_held_view_is_ever_written() {
    for seed in 0..if cfg!(miri) { 1 } else { 6 } {
        let mut random = Random::new(seed);
        let mut pages = memory_file(64 << 20);
        let mut root = Root::empty(TREE);
        let mut publisher = Publisher::new(Box::new(root), Epoch(0), 8);
        let pins = publisher.pins();
        let mut free: Vec<_> = (0..8).map(|_| pins.slot().unwrap()).collect();
        let mut held = Vec::new();
        for round in 0..if cfg!(miri) { 6 } else { 300 } {
            pages.reserve(PagesNeeded { pages: 800, extent_pages: 64 }).unwrap();
            let changes = 1 + random.below(60);
            churn(&mut pages, &mut root, &mut random, changes);
            publisher.publish(Box::new(root), pages.working_epoch());
            pages.advance(pages.working_epoch().next());
            pages.reclaim(&publisher.protected());
            if random.below(3) == 0
                && let Some(slot) = free.pop()
            {
                let view = slot.into_pinned();
                let hash = hash_reached(&pages, *view);
                held.push((view, hash));
            }
            if held.len() > 5 || random.below(8) == 0 && !held.is_empty() {
                let (view, hash) = held.swap_remove(random.below(held.len()));
                assert_eq!(hash_reached(&pages, *view), hash, "seed {seed} round {round}");
                free.push(view.release());
            }
        }
        for (view, hash) in held {
            assert_eq!(hash_reached(&pages, *view), hash, "seed {seed}");
        }
        pages.assert_consistent();
    }
}

#[test]
fn the_file_stays_bounded_while_readers_come_and_go() {
    let mut random = Random::new(3);
    let mut pages = memory_file(64 << 20);
    let mut root = Root::empty(TREE);
    let mut held: Vec<(Epoch, Root, u32)> = Vec::new();
    let (mut settled, mut in_use_max) = (0, 0);
    for round in 0..if cfg!(miri) { 10 } else { 600 } {
        pages.reserve(PagesNeeded { pages: 800, extent_pages: 64 }).unwrap();
        churn(&mut pages, &mut root, &mut random, 60);
        let protected: Vec<Epoch> = held.iter().map(|(epoch, ..)| *epoch).collect();
        let epoch = publish(&mut pages, &protected);
        held.push((epoch, root, hash_reached(&pages, root)));
        // Three readers at a time, each held for a while and none for ever.
        if held.len() > 3 {
            let (_, root, hash) = held.remove(random.below(3));
            assert_eq!(hash_reached(&pages, root), hash, "round {round}");
        }
        // A third of the rounds is time enough for the tree itself to stop growing.
        if round == 200 {
            settled = pages.size_bytes();
        }
        in_use_max = in_use_max.max(pages.in_use_bytes());
    }
    if !cfg!(miri) {
        // Some 30 MiB are written after that; a step of growth or two is the readers' luck.
        let size = pages.size_bytes();
        assert!(size <= settled + (2 << 20), "{size} after {settled}, in use {in_use_max}");
    }
}

/// Readers on other threads walk pinned roots while the writer changes, frees and reuses pages.
#[test]
fn readers_on_other_threads_see_one_state() {
    let rounds = if cfg!(miri) { 10 } else { 400 };
    let mut pages = memory_file(64 << 20);
    let mut publisher = Publisher::new(Box::new(Root::empty(TREE)), Epoch(0), 2);
    let read = |mut slot: crate::page::pin::PinSlot<Root>, reader: PageReader| {
        std::thread::spawn(move || {
            loop {
                let view = slot.pin();
                let mut cursor = Cursor::new(&reader, *view);
                let mut stamp = None;
                let mut seen = 0;
                while let Some((_, entry)) = cursor.next().unwrap() {
                    let body = entry.body(&reader).unwrap();
                    let first = *stamp.get_or_insert(body[0]);
                    assert!(body.iter().all(|byte| *byte == first), "a view of two states");
                    seen += 1;
                }
                assert_eq!(seen, view.count);
                if stamp == Some(u8::MAX) {
                    return;
                }
            }
        })
    };
    let pins = publisher.pins();
    let readers: Vec<_> = (0..2).map(|_| read(pins.slot().unwrap(), pages.reader())).collect();
    let mut root = Root::empty(TREE);
    for round in 0..=rounds {
        let stamp = if round == rounds { u8::MAX } else { u8::try_from(round % 250).unwrap() };
        pages.reserve(PagesNeeded { pages: 800, extent_pages: 64 }).unwrap();
        for key in 0..60_u32 {
            let body = vec![stamp; if key % 20 == 0 { 5_000 } else { 150 }];
            insert(&mut pages, &mut root, &key.to_be_bytes(), b"", Body::Bytes(&body)).unwrap();
        }
        publisher.publish(Box::new(root), pages.working_epoch());
        pages.advance(pages.working_epoch().next());
        pages.reclaim(&publisher.protected());
    }
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// A file that is gone when the test is over.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringd-pages-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path).unwrap();
        Self { path, file }
    }

    fn source(&self) -> MapSource {
        MapSource::File(self.file.try_clone().unwrap())
    }

    fn perform(&self, op: DiskOp) -> Completion {
        let mut buffer = PageBuffer::default();
        match op.kind {
            DiskOpKind::Write { offset, bytes, .. } => {
                self.file.write_all_at(&bytes, offset).unwrap();
                buffer = bytes;
            }
            DiskOpKind::Sync => self.file.sync_data().unwrap(),
            DiskOpKind::Allocate { size_bytes } | DiskOpKind::Shorten { size_bytes } => {
                self.file.set_len(size_bytes).unwrap();
            }
        }
        Completion { token: op.token, buffer, result: Ok(()) }
    }

    fn reserve(&self, pages: &mut PageFile) {
        while pages.reserve(PagesNeeded { pages: 800, extent_pages: 64 }).is_err() {
            let op = pages.poll_disk_op().expect("a file below its bound can grow");
            pages.handle_disk_completion(self.perform(op)).unwrap();
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps a file")]
fn a_mapped_file_says_the_same_before_during_and_after_checkpoints() {
    let scratch = Scratch::new();
    let mut random = Random::new(17);
    let mut pages = PageFile::create(scratch.source(), config(64 << 20)).unwrap();
    let mut root = Root::empty(TREE);
    let mut state = None;
    for round in 0..12 {
        for _ in 0..8 {
            scratch.reserve(&mut pages);
            churn(&mut pages, &mut root, &mut random, 100);
            publish(&mut pages, &[]);
        }
        let epoch = Epoch(pages.working_epoch().0 - 1);
        let fixed: (Root, Model) = (root, contents(&pages, root));
        let mut checkpoint = Checkpoint::begin(&mut pages, epoch).unwrap();
        while !checkpoint.is_synced() {
            let op = checkpoint.poll_disk_op(&pages).unwrap();
            checkpoint.handle_disk_completion(scratch.perform(op)).unwrap();
            // The next epochs go on meanwhile.
            scratch.reserve(&mut pages);
            churn(&mut pages, &mut root, &mut random, 30);
            if random.below(2) == 0 {
                publish(&mut pages, &[]);
            }
        }
        let (before, latest) = (hash_without_checksums(&pages, fixed.0), contents(&pages, root));
        state = Some((checkpoint.state(vec![fixed.0]), fixed.1));
        checkpoint.finish(&mut pages);
        assert_eq!(hash_without_checksums(&pages, fixed.0), before, "round {round}");
        assert!(contents(&pages, root) == latest, "round {round}");
        while pages.has_copies_to_drop() {
            churn(&mut pages, &mut root, &mut random, 3);
            pages.drop_copies(2, 3).unwrap();
        }
        assert_eq!(hash_without_checksums(&pages, fixed.0), before, "round {round}");
        pages.assert_consistent();
    }
    drop(pages);
    let (state, model) = state.unwrap();
    let pages = PageFile::open(scratch.source(), &state, config(64 << 20)).unwrap();
    assert!(contents(&pages, state.roots[0]) == model);
    assert_eq!(pages.dirty_size_bytes(), 0);
    let first = model.keys().next().unwrap();
    assert!(get(&pages, state.roots[0], first).unwrap().is_some());
}

/// The map of dropped pages was once as long as the file at the checkpoint's begin, and a free page
/// of the part that grew meanwhile fell out of it.
#[test]
fn the_file_may_grow_while_a_checkpoint_goes_on() {
    let mut random = Random::new(23);
    let mut pages = memory_file(64 << 20);
    let mut root = Root::empty(TREE);
    pages.reserve(PagesNeeded { pages: 800, extent_pages: 64 }).unwrap();
    churn(&mut pages, &mut root, &mut random, 60);
    let epoch = publish(&mut pages, &[]);
    let mut checkpoint = Checkpoint::begin(&mut pages, epoch).unwrap();
    while let Some(op) = checkpoint.poll_disk_op(&pages) {
        let completion =
            Completion { token: op.token, buffer: PageBuffer::default(), result: Ok(()) };
        checkpoint.handle_disk_completion(completion).unwrap();
    }
    let size_bytes = pages.size_bytes();
    // Extents up to the new end, free again in the same epoch: more pages than stay warm.
    pages.reserve(PagesNeeded { pages: 100, extent_pages: 6_000 }).unwrap();
    for key in [b"1", b"2", b"3"] {
        insert(&mut pages, &mut root, key, b"", Body::Bytes(&vec![1; 7 << 20])).unwrap();
    }
    for key in [b"1", b"2", b"3"] {
        assert!(remove(&mut pages, &mut root, key).unwrap());
    }
    assert!(pages.size_bytes() > size_bytes);
    let before = hash_reached(&pages, root);
    checkpoint.finish(&mut pages);
    pages.drop_copies(u32::MAX, u32::MAX).unwrap();
    assert_eq!(hash_reached(&pages, root), before);
    pages.assert_consistent();
}

/// Dropping private copies shows the file's pages, which differ from them by their checksums only.
fn hash_without_checksums(pages: &PageFile, root: Root) -> usize {
    let mut cursor = Cursor::new(pages, root);
    let mut hash: usize = 0;
    while let Some((key, entry)) = cursor.next().unwrap() {
        let body = entry.body(pages).unwrap();
        for byte in key.iter().chain(entry.head).chain(body) {
            hash = hash.wrapping_mul(31).wrapping_add(usize::from(*byte));
        }
    }
    hash
}
