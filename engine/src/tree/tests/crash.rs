//! Crashes at each disk operation, and bytes that rot.

use super::disk::{Disk, SHARDS, Store, meta_blocks};
use super::{Random, TREE, config, memory_file, publish};
use crate::page::disk::{Completion, DiskOpKind, FileId};
use crate::page::meta::{self, Chosen, META_BLOCK_SIZE_BYTES, MetaFault};
use crate::page::{
    Checkpoint, Epoch, FaultKind, MapSource, PAGE_SIZE_BYTES, PageBuffer, PageFailure, PageFile,
    PagesNeeded, Root, ShardCheckpoint,
};
use crate::tree::{Body, Cursor, get, insert};

/// A life until the power goes before operation `ops_max`.
fn live(seed: u64, ops_max: usize, checkpoints: usize) -> (Store, Disk, bool) {
    let (mut store, mut random) = (Store::create(), Random::new(seed));
    let mut disk = Disk { ops_max, ..Disk::default() };
    let lost = store.run(&mut disk, &mut random, checkpoints).is_err();
    (store, disk, lost)
}

#[test]
fn a_crash_at_any_operation_leaves_one_whole_checkpoint() {
    let (seeds, checkpoints) = if cfg!(miri) { (1, 2) } else { (3, 3) };
    for seed in 0..seeds {
        let (_, disk, lost) = live(seed, usize::MAX, checkpoints);
        assert!(!lost && disk.ops > 3 * checkpoints, "seed {seed}: {} operations", disk.ops);
        for ops_max in 0..disk.ops {
            let (before, disk, lost) = live(seed, ops_max, checkpoints);
            assert!(lost);
            for fate in 0..2 {
                let at = format!("seed {seed} operation {ops_max} fate {fate}");
                let (mut disk, mut random) = (disk.clone(), Random::new(fate + 1000 * seed));
                disk.crash(&mut random);
                let mut after = Store::open(&disk);
                let possible = before.possible.as_ref();
                assert!(after.is_one_of(&before.durable, possible), "{at}");
                // What was found must also be good to go on with, through another checkpoint.
                after.run(&mut disk, &mut random, 1).unwrap();
                let durable = after.durable.clone();
                disk.crash(&mut random);
                assert!(Store::open(&disk).is_one_of(&durable, None), "{at}");
            }
        }
    }
}

#[test]
fn a_rotten_meta_block_is_named_and_the_other_used() {
    let (store, disk, _) = live(7, usize::MAX, 3);
    let good = meta_blocks(&disk);
    let (Chosen::Durable { meta: newest, other: None }, next) = meta::choose(&good).unwrap() else {
        panic!("two good blocks");
    };
    assert_eq!(newest.applied_index, store.durable.applied);
    for byte in (0..META_BLOCK_SIZE_BYTES).step_by(61) {
        let mut bytes = good.clone();
        bytes[usize::from(next ^ 1) * META_BLOCK_SIZE_BYTES + byte] ^= 4;
        let (chosen, slot) = meta::choose(&bytes).unwrap();
        let Chosen::Durable { meta, other: Some(fault) } = chosen else { panic!("byte {byte}") };
        assert!(meta.epoch < newest.epoch, "byte {byte}");
        assert!(matches!(fault, MetaFault::Magic | MetaFault::Checksum), "byte {byte}: {fault}");
        // The next checkpoint overwrites the block that does not count, not the one that does.
        assert_eq!(slot, next ^ 1);
        bytes[usize::from(next) * META_BLOCK_SIZE_BYTES + byte] ^= 4;
        assert!(meta::choose(&bytes).is_err(), "byte {byte}");
    }
    let blank = Ok((Chosen::Blank, 0));
    assert_eq!(meta::choose(&[]), blank);
    assert_eq!(meta::choose(&[0; 2 * META_BLOCK_SIZE_BYTES]), blank);
}

#[test]
fn a_meta_block_cut_short_counts_for_nothing() {
    let (_, disk, _) = live(8, usize::MAX, 1);
    let good = meta_blocks(&disk);
    assert!(meta::choose(&good[..META_BLOCK_SIZE_BYTES]).is_ok());
    let (chosen, slot) = meta::choose(&good[..META_BLOCK_SIZE_BYTES - 1]).unwrap();
    assert!(matches!(chosen, Chosen::Torn(MetaFault::Content(_))));
    assert_eq!(slot, 0);
}

/// A checkpointed file of one tree, and where its parts are.
fn sealed() -> (Vec<u8>, ShardCheckpoint) {
    let mut pages = memory_file(16 << 20);
    pages.reserve(PagesNeeded { pages: 500, extent_pages: 20 }).unwrap();
    let mut root = Root::empty(TREE);
    for number in 0..600_u32 {
        insert(&mut pages, &mut root, &number.to_be_bytes(), b"h", Body::Bytes(&[3; 90])).unwrap();
    }
    insert(&mut pages, &mut root, b"large", b"h", Body::Bytes(&[5; 9_000])).unwrap();
    let epoch = publish(&mut pages, &[]);
    let mut file = Vec::new();
    let state = checkpoint(&mut pages, epoch, &mut file, root);
    (file, state)
}

fn checkpoint(
    pages: &mut PageFile,
    epoch: Epoch,
    file: &mut Vec<u8>,
    root: Root,
) -> ShardCheckpoint {
    let mut checkpoint = Checkpoint::begin(pages, epoch).unwrap();
    while let Some(op) = checkpoint.poll_disk_op(pages) {
        let mut buffer = PageBuffer::default();
        if let DiskOpKind::Write { offset, bytes, .. } = op.kind {
            let offset = usize::try_from(offset).unwrap();
            file.resize(file.len().max(offset + bytes.len()), 0);
            file[offset..offset + bytes.len()].copy_from_slice(&bytes);
            buffer = bytes;
        }
        checkpoint
            .handle_disk_completion(Completion { token: op.token, buffer, result: Ok(()) })
            .unwrap();
    }
    let state = checkpoint.state(vec![root]);
    checkpoint.finish(pages);
    pages.drop_copies(u32::MAX, u32::MAX).unwrap();
    state
}

fn open(file: &[u8], state: &ShardCheckpoint) -> Result<PageFile, PageFailure> {
    PageFile::open(MapSource::Memory(file.to_vec()), state, config(16 << 20))
}

/// Walks everything; the first fault.
fn walk(pages: &PageFile, root: Root) -> Option<crate::page::PageFault> {
    let mut cursor = Cursor::new(pages, root);
    loop {
        match cursor.next() {
            Ok(Some((_, entry))) => {
                if let Err(fault) = entry.body(pages) {
                    return Some(fault);
                }
            }
            Ok(None) => return None,
            Err(fault) => return Some(fault),
        }
    }
}

#[test]
fn every_rotten_page_is_refused_by_name() {
    let (file, state) = sealed();
    let root = state.roots[0];
    let pages = open(&file, &state).unwrap();
    assert_eq!(walk(&pages, root), None);
    let large = get(&pages, root, b"large").unwrap().unwrap().extent().unwrap();
    let mut named = 0;
    for page in 0..state.pages {
        let mut rotten = file.clone();
        let at = page as usize * PAGE_SIZE_BYTES + 700;
        let Some(byte) = rotten.get_mut(at) else { break };
        *byte ^= 0x20;
        let in_map = (state.free_map.page.0..).take(state.free_map.pages() as usize);
        match open(&rotten, &state) {
            Err(PageFailure::Mismatch { .. }) => assert_eq!(page, 0, "the header"),
            Err(PageFailure::Fault(fault)) => {
                // Behind the map's bytes its page may rot unseen.
                assert!(in_map.clone().any(|at| at == page));
                assert_eq!((fault.what, fault.page), (FaultKind::Checksum, state.free_map.page));
            }
            Err(failure) => panic!("page {page}: {failure}"),
            Ok(pages) => {
                let Some(fault) = walk(&pages, root) else { continue };
                named += 1;
                assert_eq!((fault.file, fault.tree), (FileId::Shard(0), TREE));
                assert_eq!(fault.what, FaultKind::Checksum, "page {page}");
                let in_large = (large.page.0..large.page.0 + large.pages()).contains(&page);
                assert_eq!(fault.page.0, if in_large { large.page.0 } else { page });
            }
        }
    }
    assert!(named > 20, "{named} pages of the tree");
    // Free pages at the end may be missing, others not.
    let end = usize::try_from(pages.in_use_bytes()).unwrap();
    assert!(end < state.pages as usize * PAGE_SIZE_BYTES);
    assert!(open(&file[..end], &state).is_ok());
    assert!(open(&file[..end - PAGE_SIZE_BYTES], &state).is_err());
    assert!(open(&[], &state).is_err());
}

#[test]
fn a_page_at_another_place_is_noticed() {
    let (mut file, state) = sealed();
    let root = state.roots[0].page.0 as usize * PAGE_SIZE_BYTES;
    // Sealed and whole, but not the page that belongs here: a write that went astray.
    let other = if state.roots[0].page.0 == 1 { 2 } else { 1 } * PAGE_SIZE_BYTES;
    file.copy_within(other..other + PAGE_SIZE_BYTES, root);
    let fault = walk(&open(&file, &state).unwrap(), state.roots[0]).unwrap();
    assert_eq!((fault.what, fault.page), (FaultKind::WrongPage, state.roots[0].page));
}

#[test]
fn an_older_meta_that_leads_to_recycled_pages_is_noticed() {
    let mut pages = memory_file(16 << 20);
    pages.reserve(PagesNeeded { pages: 1000, extent_pages: 0 }).unwrap();
    let (mut root, mut file, mut states) = (Root::empty(TREE), Vec::new(), Vec::new());
    for round in 0..8_u8 {
        for number in 0..200_u32 {
            let body = [round; 90];
            insert(&mut pages, &mut root, &number.to_be_bytes(), b"", Body::Bytes(&body)).unwrap();
        }
        let epoch = publish(&mut pages, &[]);
        states.push(checkpoint(&mut pages, epoch, &mut file, root));
    }
    let newest = states.last().unwrap();
    assert_eq!(walk(&open(&file, newest).unwrap(), newest.roots[0]), None);
    let noticed = match open(&file, &states[0]) {
        Err(PageFailure::Fault(_) | PageFailure::Mismatch { .. }) => true,
        Err(failure) => panic!("{failure}"),
        Ok(pages) => walk(&pages, states[0].roots[0]).is_some(),
    };
    assert!(noticed, "the first checkpoint's pages were recycled seven times");
}

#[test]
fn random_bytes_under_a_valid_checksum_never_panic() {
    let (file, state) = sealed();
    let root = state.roots[0];
    let mut random = Random::new(11);
    for _ in 0..if cfg!(miri) { 20 } else { 3_000 } {
        let mut broken = file.clone();
        let page = 1 + random.below(file.len() / PAGE_SIZE_BYTES - 1);
        if (state.free_map.page.0 as usize) == page {
            continue;
        }
        let start = page * PAGE_SIZE_BYTES;
        let bytes = &mut broken[start..start + PAGE_SIZE_BYTES];
        for _ in 0..1 + random.below(4) {
            let range = [200, PAGE_SIZE_BYTES - 16][random.below(2)];
            let at = 16 + random.below(range);
            bytes[at] = random.below(256).try_into().unwrap();
        }
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        let pages = open(&broken, &state).unwrap();
        // Whatever it says, it says it without a panic.
        let _ = walk(&pages, root);
        for number in (0..600_u32).step_by(37) {
            let _ = get(&pages, root, &number.to_be_bytes());
        }
    }
}

#[test]
fn checkpoints_cover_all_shards_at_one_epoch() {
    let (store, disk, _) = live(9, usize::MAX, 3);
    let (Chosen::Durable { meta, .. }, _) = meta::choose(&meta_blocks(&disk)).unwrap() else {
        panic!("a durable checkpoint");
    };
    assert_eq!(meta.shards.len(), usize::from(SHARDS));
    assert!(meta.shards.iter().all(|shard| shard.epoch == meta.epoch));
    assert!(Store::open(&disk).is_one_of(&store.durable, None));
}
