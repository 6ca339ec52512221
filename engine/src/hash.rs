//! Hashes over the store's content, resumable.

use crate::answer::ReadError;
use crate::ids::Revision;
use crate::range::Progress;
use crate::view::View;

/// A finished `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueHash {
    /// The hash.
    pub hash: u32,
    /// The revision up to which was hashed.
    pub revision: Revision,
    /// The compacted revision the hash was taken under.
    pub compacted: Revision,
    /// The store's revision, for the header.
    pub current: Revision,
}

/// `HashKV` being computed, with etcd's definition.
#[derive(Debug)]
pub struct KeyValueHashScan {
    result: Option<KeyValueHash>,
}

impl KeyValueHashScan {
    /// Begins a hash up to a revision; zero for the newest.
    #[must_use]
    pub fn new(_revision: Revision) -> Self {
        Self { result: None }
    }

    /// Goes on, touching about `budget` records. All steps need the same pinned view.
    pub fn step(&mut self, _view: &View, _budget: usize) -> Result<Progress, ReadError> {
        panic!("landing: comes with the tree")
    }

    /// The finished hash.
    #[must_use]
    pub fn result(&self) -> Option<KeyValueHash> {
        self.result
    }
}

/// The hash of the whole store, for `Maintenance.Hash`: over the logical content, so that members
/// with the same state answer the same whatever their pages look like.
#[derive(Debug)]
pub struct StoreHashScan {
    result: Option<u32>,
}

impl StoreHashScan {
    /// Begins.
    #[must_use]
    pub fn new() -> Self {
        Self { result: None }
    }

    /// Goes on, touching about `budget` records. All steps need the same pinned view.
    pub fn step(&mut self, _view: &View, _budget: usize) -> Result<Progress, ReadError> {
        panic!("landing: comes with the tree")
    }

    /// The finished hash.
    #[must_use]
    pub fn result(&self) -> Option<u32> {
        self.result
    }
}

impl Default for StoreHashScan {
    fn default() -> Self {
        Self::new()
    }
}
