//! Tests of tree and page layer together: against a map, under pins, through crashes.

mod crash;
mod disk;
mod model;
mod reuse;

use std::collections::BTreeMap;

use super::{Body, Cursor, Root, TreeTag, get, insert};
use crate::page::disk::FileId;
use crate::page::{Epoch, MapSource, PageConfig, PageFile, Pages};

/// Reproducible numbers (splitmix64); the seed stands in every message of the tests.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

pub(super) type Model = BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

pub(super) fn config(size_bytes: u64) -> PageConfig {
    PageConfig { growth_size_bytes: 1 << 20, ..PageConfig::new(FileId::Shard(0), size_bytes) }
}

pub(super) fn memory_file(size_bytes: u64) -> PageFile {
    PageFile::create(MapSource::Memory(Vec::new()), config(size_bytes)).unwrap()
}

pub(super) const TREE: TreeTag = TreeTag(3);

/// Everything that a tree says, walked forwards.
pub(super) fn contents(pages: &impl Pages, root: Root) -> Model {
    let mut cursor = Cursor::new(pages, root);
    let mut found = Model::new();
    while let Some((key, entry)) = cursor.next().unwrap() {
        let body = entry.body(pages).unwrap().to_vec();
        let before = found.insert(key.to_vec(), (entry.head.to_vec(), body));
        assert!(before.is_none(), "key twice");
    }
    found
}

/// Ends the epoch as a publication does.
pub(super) fn publish(pages: &mut PageFile, protected: &[Epoch]) -> Epoch {
    let epoch = pages.working_epoch();
    pages.advance(epoch.next());
    pages.reclaim(protected);
    epoch
}

#[test]
fn an_entry_is_found_again() {
    let mut pages = memory_file(16 << 20);
    let mut root = Root::empty(TREE);
    assert!(get(&pages, root, b"key").unwrap().is_none());
    insert(&mut pages, &mut root, b"key", b"head", Body::Bytes(b"body")).unwrap();
    let entry = get(&pages, root, b"key").unwrap().unwrap();
    assert_eq!((entry.head, entry.body(&pages).unwrap()), (&b"head"[..], &b"body"[..]));
    assert!(get(&pages, root, b"ke").unwrap().is_none());
    assert!(get(&pages, root, b"keys").unwrap().is_none());
}
