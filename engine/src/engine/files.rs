//! The store's files: a meta file, and one file of pages for each shard.
//!
//! Invariant: a store opens with the configuration and the program it was written by, or says what
//! does not fit and touches nothing.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::engine::{EngineConfig, Failure, Identity};
use crate::ids::{ClusterId, LogIndex, MemberId, Revision, Term};
use crate::layout;
use crate::limits::SHARDS_MAX;
use crate::page::disk::FileId;
use crate::page::meta::{self, Chosen, META_BLOCK_SIZE_BYTES, Meta};
use crate::page::{Epoch, MapSource, PageConfig, PageFailure, PageFile, Root, TreeTag};
use crate::shard::Shard;
use crate::store::ShardRoots;

use super::checkpoint::Durable;

/// Where the store lives.
#[derive(Debug)]
pub enum EngineFiles {
    /// The content of files that someone else simulates: disk operations are handed out as for
    /// files. Empty for a new store.
    Memory {
        /// The meta file.
        meta: Vec<u8>,
        /// The shards' files, in order.
        shards: Vec<Vec<u8>>,
    },
    /// Open files.
    Disk {
        /// The meta file.
        meta: File,
        /// The shards' files, in order.
        shards: Vec<File>,
        /// Where they lie, for messages.
        directory: PathBuf,
    },
}

impl EngineFiles {
    /// A new store in memory.
    #[must_use]
    pub fn new_in_memory() -> Self {
        Self::Memory { meta: Vec::new(), shards: Vec::new() }
    }
}

/// What the owner's part of a meta block says.
pub(super) struct OwnerMeta {
    pub(super) identity: Identity,
    pub(super) revision: Revision,
    /// What the store counts, if the files may be longer for one that was there before an install.
    /// The first version does not say, and is written where there is nothing to say: a program of
    /// before can go on with that.
    pub(super) size_bytes: Option<u64>,
}

const OWNER_VERSION: u32 = 2;
const OWNER_SIZE_BYTES: usize = 36;
/// Without the size.
const OWNER_FIRST_VERSION: u32 = 1;
const OWNER_FIRST_SIZE_BYTES: usize = 28;

impl OwnerMeta {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(OWNER_SIZE_BYTES);
        let version = if self.size_bytes.is_some() { OWNER_VERSION } else { OWNER_FIRST_VERSION };
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&self.identity.cluster.0.to_le_bytes());
        bytes.extend_from_slice(&self.identity.member.0.to_le_bytes());
        bytes.extend_from_slice(&self.revision.0.to_le_bytes());
        if let Some(size_bytes) = self.size_bytes {
            bytes.extend_from_slice(&size_bytes.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        let word = |at: usize| {
            let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
            word.map(u64::from_le_bytes)
        };
        let version = bytes.first_chunk().copied().map(u32::from_le_bytes);
        let length = match version {
            Some(OWNER_VERSION) => OWNER_SIZE_BYTES,
            Some(OWNER_FIRST_VERSION) => OWNER_FIRST_SIZE_BYTES,
            _ => {
                return Err(Failure::State(format!(
                    "the checkpoint has version {version:?}, this program knows \
                     {OWNER_FIRST_VERSION} and {OWNER_VERSION}"
                )));
            }
        };
        let (Some(cluster), Some(member), Some(revision)) = (word(4), word(12), word(20)) else {
            return Err(Failure::State("the checkpoint's own part is cut off".to_owned()));
        };
        let revision = Revision(revision.cast_signed());
        if bytes.len() != length || revision < Revision::EMPTY_STORE {
            return Err(Failure::State("the checkpoint's own part makes no sense".to_owned()));
        }
        let identity = Identity { cluster: ClusterId(cluster), member: MemberId(member) };
        let size_bytes = word(OWNER_FIRST_SIZE_BYTES);
        Ok(Self { identity, revision, size_bytes })
    }
}

/// The file of a shard's pages.
fn page_config(shard: u16, config: EngineConfig) -> PageConfig {
    PageConfig::new(FileId::Shard(shard), config.shard_size_bytes_max)
}

fn check(config: EngineConfig) -> Result<(), Failure> {
    if config.shards == 0 || config.shards > SHARDS_MAX {
        return Err(Failure::State(format!(
            "{} shards: there have to be 1 to {SHARDS_MAX}",
            config.shards
        )));
    }
    Ok(())
}

/// Checks that there is a source for every shard, or makes new ones.
fn sources(files: EngineFiles, config: EngineConfig) -> Result<(Vec<u8>, Vec<MapSource>), Failure> {
    let expected = usize::from(config.shards);
    let (meta, sources): (_, Vec<MapSource>) = match files {
        EngineFiles::Memory { meta, mut shards } => {
            if shards.is_empty() {
                shards.resize(expected, Vec::new());
            }
            (meta, shards.into_iter().map(MapSource::Memory).collect())
        }
        EngineFiles::Disk { mut meta, shards, directory } => {
            let mut bytes = Vec::new();
            let limit = 2 * META_BLOCK_SIZE_BYTES as u64;
            meta.by_ref().take(limit).read_to_end(&mut bytes).map_err(|cause| {
                let operation = "read the meta blocks";
                Failure::Page(PageFailure::System { file: FileId::Meta, operation, cause })
            })?;
            if shards.len() != expected {
                return Err(Failure::State(format!(
                    "{}: {} files for {expected} shards",
                    directory.display(),
                    shards.len()
                )));
            }
            (bytes, shards.into_iter().map(MapSource::File).collect())
        }
    };
    if sources.len() != expected {
        return Err(Failure::State(format!("{} files for {expected} shards", sources.len())));
    }
    Ok((meta, sources))
}

pub(super) fn create(files: EngineFiles, config: EngineConfig) -> Result<Vec<Shard>, Failure> {
    check(config)?;
    let (meta, sources) = sources(files, config)?;
    // A first checkpoint that was torn is no store: whoever creates knows that his log is whole.
    if !matches!(meta::choose(&meta), Ok((Chosen::Blank | Chosen::Torn(_), _))) {
        return Err(Failure::State("there is a store already".to_owned()));
    }
    let shard = |(index, source)| {
        let file = PageFile::create(source, page_config(index, config))?;
        Ok(Shard::new(file, empty_roots()))
    };
    (0..config.shards).zip(sources).map(shard).collect()
}

/// The trees of a shard without any entries.
pub(super) fn empty_roots() -> ShardRoots {
    ShardRoots {
        current: Root::empty(layout::CURRENT),
        revisions: Root::empty(layout::REVISIONS),
        values: Root::empty(layout::VALUES),
        system: Root::empty(layout::SYSTEM),
        tombstones: Root::empty(layout::TOMBSTONES),
        attachments: Root::empty(layout::ATTACHMENTS),
    }
}

/// A store as its newest durable checkpoint left it.
pub(super) struct Opened {
    pub(super) identity: Identity,
    pub(super) shards: Vec<Shard>,
    pub(super) revision: Revision,
    pub(super) size_bytes: Option<u64>,
    pub(super) epoch: Epoch,
    pub(super) durable: Durable,
}

pub(super) fn open(files: EngineFiles, config: EngineConfig) -> Result<Opened, Failure> {
    check(config)?;
    let (bytes, sources) = sources(files, config)?;
    let (chosen, slot_next) =
        meta::choose(&bytes).map_err(|lost| Failure::State(lost.to_string()))?;
    let meta = match chosen {
        Chosen::Durable { meta, .. } => meta,
        Chosen::Blank => return Err(Failure::State("no checkpoint was ever written".to_owned())),
        Chosen::Torn(fault) => {
            return Err(Failure::FirstCheckpointTorn(fault.to_string()));
        }
    };
    if meta.shards.len() != sources.len() {
        return Err(Failure::State(format!(
            "the store has {} shards, {} are configured",
            meta.shards.len(),
            sources.len()
        )));
    }
    let owner = OwnerMeta::from_bytes(&meta.owner)?;
    let mut shards = Vec::with_capacity(sources.len());
    for ((index, source), state) in (0..).zip(sources).zip(&meta.shards) {
        let roots = roots_of(&state.roots)?;
        let file = PageFile::open(source, state, page_config(index, config))?;
        shards.push(Shard::new(file, roots));
    }
    Ok(Opened {
        identity: owner.identity,
        shards,
        revision: owner.revision,
        size_bytes: owner.size_bytes,
        epoch: meta.epoch,
        durable: durable_of(&meta, slot_next),
    })
}

fn durable_of(meta: &Meta, slot_next: u8) -> Durable {
    let (applied, term) = (LogIndex(meta.applied_index), Term(meta.applied_term));
    Durable { epoch: meta.epoch, applied, term, slot_next }
}

/// The roots in the order of their tags, as checkpoints name them.
pub(super) fn roots_in_order(roots: &ShardRoots) -> Vec<Root> {
    let ShardRoots { current, revisions, values, system, tombstones, attachments } = *roots;
    vec![current, revisions, values, system, tombstones, attachments]
}

fn roots_of(roots: &[Root]) -> Result<ShardRoots, Failure> {
    if let &[current, revisions, values, system, tombstones, attachments] = roots {
        let roots = ShardRoots { current, revisions, values, system, tombstones, attachments };
        let tags = roots_in_order(&roots).into_iter().map(|root| root.tree);
        if tags.eq((1..=6).map(TreeTag)) {
            return Ok(roots);
        }
    }
    Err(Failure::State("the checkpoint names other trees than this program knows".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_owners_part_are_read() {
        let identity = Identity { cluster: ClusterId(1), member: MemberId(2) };
        let revision = Revision(3);
        for size_bytes in [None, Some(0), Some(1 << 40)] {
            let owner = OwnerMeta { identity, revision, size_bytes };
            let bytes = owner.to_bytes();
            let read = OwnerMeta::from_bytes(&bytes).unwrap();
            assert_eq!((read.identity, read.revision), (identity, revision));
            assert_eq!(read.size_bytes, size_bytes);
            assert_eq!(bytes[0], if size_bytes.is_some() { 2 } else { 1 });
            let mut first = bytes[..OWNER_FIRST_SIZE_BYTES].to_vec();
            first[0] = 1;
            let read = OwnerMeta::from_bytes(&first).unwrap();
            assert_eq!((read.identity, read.revision), (identity, revision));
            assert_eq!(read.size_bytes, None);
            // Each version has its length.
            let mut wrong = bytes.clone();
            wrong[0] = 3 - wrong[0];
            assert!(OwnerMeta::from_bytes(&wrong).is_err());
            first[0] = 2;
            assert!(OwnerMeta::from_bytes(&first).is_err());
            wrong[0] = 3;
            assert!(OwnerMeta::from_bytes(&wrong).is_err());
        }
    }
}
