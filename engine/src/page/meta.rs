//! The meta blocks: two alternating blocks, each naming a whole checkpoint of all shards.
//!
//! A checkpoint writes the block that the durable one does not stand in. A crash while it is
//! written tears that block only; [`choose`] then finds the other.
//!
//! Invariants:
//! - A block counts only with a matching checksum over all of it, and only as a whole.
//! - Of two good blocks the one of the later epoch is the durable checkpoint.
//! - Bytes of a later format are refused by their version, not guessed at.

use std::fmt;

use super::checkpoint::ShardCheckpoint;
use super::ids::{Epoch, ExtentRef, PAGE_SIZE_BYTES, PAGE_SIZE_U32, PageId, Root, TreeTag};

/// Size of a block; the file is two of them.
pub const META_BLOCK_SIZE_BYTES: usize = 4096;
// A block is written as whole pages.
const _: () = assert!(META_BLOCK_SIZE_BYTES.is_multiple_of(PAGE_SIZE_BYTES));

/// Longest owner part. The rest of the block holds the shards: 16 of them with eight trees each.
pub const META_OWNER_SIZE_BYTES_MAX: usize = 512;

const MAGIC: &[u8; 8] = b"ringd-mt";
const FORMAT_VERSION: u32 = 1;
const VERSION_AT: usize = 8;
const LENGTH_AT: usize = 12;
const BODY_AT: usize = 16;
const CRC_AT: usize = META_BLOCK_SIZE_BYTES - 4;

/// A durable checkpoint of the whole store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The epoch of the view that was written.
    pub epoch: Epoch,
    /// The last log entry that is part of it.
    pub applied_index: u64,
    /// That entry's term.
    pub applied_term: u64,
    /// The shards, in their order.
    pub shards: Vec<ShardCheckpoint>,
    /// What else the owner needs at start; the page layer does not look at it.
    pub owner: Vec<u8>,
}

/// What two blocks amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Neither block was ever written: the store is new.
    Blank,
    /// The first block does not count and the second was never written: the power went during the
    /// store's first checkpoint, or its only one has rotted. The owner may begin anew only if its
    /// log still has everything since the beginning.
    Torn(MetaFault),
    /// The durable checkpoint.
    Durable {
        /// The checkpoint.
        meta: Meta,
        /// Why the other block does not count, if it was written and does not.
        other: Option<MetaFault>,
    },
}

/// Why a block does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaFault {
    /// The block was never written.
    Blank,
    /// It does not begin like a meta block.
    Magic,
    /// It was written by a later format.
    Version(u32),
    /// The checksum does not match: torn by a crash, or rotten.
    Checksum,
    /// The checksum holds but the content does not.
    Content(&'static str),
}

impl fmt::Display for MetaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("never written"),
            Self::Magic => f.write_str("not a meta block"),
            Self::Version(version) => write!(f, "format version {version} is not known"),
            Self::Checksum => f.write_str("checksum does not match"),
            Self::Content(what) => f.write_str(what),
        }
    }
}

/// No block counts, although a checkpoint must have been durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaLost {
    /// What is wrong with each.
    pub faults: [MetaFault; 2],
}

impl fmt::Display for MetaLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.faults;
        write!(f, "no meta block counts: first {first}, second {second}")
    }
}

impl std::error::Error for MetaLost {}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct MetaBody {
    epoch: u64,
    applied_index: u64,
    applied_term: u64,
    shards: Vec<ShardBody>,
    owner: Vec<u8>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct ShardBody {
    pages: u32,
    free_map: [u8; ExtentRef::ENCODED_SIZE_BYTES],
    roots: Vec<RootBody>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct RootBody {
    page: u32,
    birth: u64,
    tree: u8,
    height: u8,
    count: u64,
}

/// The meta block does not hold all shards and the owner's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaTooLarge {
    /// Bytes needed.
    pub size_bytes: usize,
}

impl Meta {
    /// Where the block of this epoch's checkpoint goes, given where the durable one stands.
    #[must_use]
    pub const fn offset_bytes(slot: u8) -> u64 {
        slot as u64 * META_BLOCK_SIZE_BYTES as u64
    }

    /// The block's bytes.
    ///
    /// # Errors
    /// The content does not fit a block.
    pub fn encode(&self) -> Result<Vec<u8>, MetaTooLarge> {
        for shard in &self.shards {
            assert_eq!(shard.epoch, self.epoch, "one checkpoint is of one epoch");
        }
        let body = MetaBody {
            epoch: self.epoch.0,
            applied_index: self.applied_index,
            applied_term: self.applied_term,
            shards: self.shards.iter().map(shard_body).collect(),
            owner: self.owner.clone(),
        };
        let body = rkyv::to_bytes::<rkyv::rancor::Failure>(&body)
            .expect("a body of numbers and bytes serialises into growing memory");
        let size_bytes = BODY_AT + body.len() + 4;
        if size_bytes > META_BLOCK_SIZE_BYTES || self.owner.len() > META_OWNER_SIZE_BYTES_MAX {
            return Err(MetaTooLarge { size_bytes });
        }
        let mut block = vec![0; META_BLOCK_SIZE_BYTES];
        let length = u32::try_from(body.len()).expect("shorter than a block");
        block[..VERSION_AT].copy_from_slice(MAGIC);
        block[VERSION_AT..LENGTH_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        block[LENGTH_AT..BODY_AT].copy_from_slice(&length.to_le_bytes());
        block[BODY_AT..BODY_AT + body.len()].copy_from_slice(&body);
        let crc = crc32fast::hash(&block[..CRC_AT]);
        block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        Ok(block)
    }

    /// Reads a block.
    ///
    /// # Errors
    /// The block does not count.
    pub fn decode(block: &[u8]) -> Result<Self, MetaFault> {
        let Some(block) = block.first_chunk::<META_BLOCK_SIZE_BYTES>() else {
            return Err(if block.iter().all(|byte| *byte == 0) {
                MetaFault::Blank
            } else {
                MetaFault::Content("shorter than a block")
            });
        };
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        if block.iter().all(|byte| *byte == 0) {
            return Err(MetaFault::Blank);
        }
        if block[..VERSION_AT] != *MAGIC {
            return Err(MetaFault::Magic);
        }
        if word(CRC_AT) != crc32fast::hash(&block[..CRC_AT]) {
            return Err(MetaFault::Checksum);
        }
        if word(VERSION_AT) != FORMAT_VERSION {
            return Err(MetaFault::Version(word(VERSION_AT)));
        }
        let end = BODY_AT + word(LENGTH_AT) as usize;
        let body = block.get(BODY_AT..end.min(CRC_AT)).filter(|body| BODY_AT + body.len() == end);
        let body = body.ok_or(MetaFault::Content("the body does not fit the block"))?;
        let body = rkyv::from_bytes::<MetaBody, rkyv::rancor::Failure>(body)
            .map_err(|_| MetaFault::Content("the body is not valid"))?;
        Self::from_body(body)
    }

    fn from_body(body: MetaBody) -> Result<Self, MetaFault> {
        let epoch = Epoch(body.epoch);
        let mut shards = Vec::with_capacity(body.shards.len());
        for shard in body.shards {
            let free_map = ExtentRef::decode(&shard.free_map);
            if u64::from(free_map.size_bytes) != u64::from(shard.pages.div_ceil(64)) * 8 {
                return Err(MetaFault::Content("the free map does not fit the file"));
            }
            let roots = shard.roots.iter().map(|root| root_of(root, epoch, shard.pages));
            let roots: Option<Vec<Root>> = roots.collect();
            let roots = roots.ok_or(MetaFault::Content("a root that cannot be"))?;
            shards.push(ShardCheckpoint { epoch, pages: shard.pages, free_map, roots });
        }
        Ok(Self {
            epoch,
            applied_index: body.applied_index,
            applied_term: body.applied_term,
            shards,
            owner: body.owner,
        })
    }
}

fn shard_body(shard: &ShardCheckpoint) -> ShardBody {
    let root = |root: &Root| RootBody {
        page: root.page.0,
        birth: root.birth.0,
        tree: root.tree.0,
        height: root.height,
        count: root.count,
    };
    ShardBody {
        pages: shard.pages,
        free_map: shard.free_map.encode(),
        roots: shard.roots.iter().map(root).collect(),
    }
}

fn root_of(root: &RootBody, epoch: Epoch, pages: u32) -> Option<Root> {
    let empty = root.height == 0;
    let possible = if empty {
        root.page == 0 && root.count == 0
    } else {
        root.page != 0 && root.page < pages && root.birth <= epoch.0 && root.count > 0
    };
    let tree = TreeTag(root.tree);
    let (page, birth) = (PageId(root.page), Epoch(root.birth));
    possible.then_some(Root { page, birth, tree, height: root.height, count: root.count })
}

/// Finds the durable checkpoint in the bytes of the meta file, and which of the two slots the next
/// one is to be written to.
///
/// # Errors
/// A checkpoint was durable once, but no block counts.
pub fn choose(file: &[u8]) -> Result<(Chosen, u8), MetaLost> {
    let split = file.len().min(META_BLOCK_SIZE_BYTES);
    let (first, second) = (Meta::decode(&file[..split]), Meta::decode(&file[split..]));
    let durable = |meta, other, next| Ok((Chosen::Durable { meta, other }, next));
    let written = |fault| (fault != MetaFault::Blank).then_some(fault);
    match (first, second) {
        (Ok(first), Ok(second)) if first.epoch < second.epoch => durable(second, None, 0),
        (Ok(first), Ok(_)) => durable(first, None, 1),
        (Ok(first), Err(fault)) => durable(first, written(fault), 1),
        (Err(fault), Ok(second)) => durable(second, written(fault), 0),
        (Err(MetaFault::Blank), Err(MetaFault::Blank)) => Ok((Chosen::Blank, 0)),
        // The second block is blank until the second checkpoint, which a durable first one
        // precedes.
        (Err(first), Err(MetaFault::Blank)) => Ok((Chosen::Torn(first), 0)),
        (Err(first), Err(second)) => Err(MetaLost { faults: [first, second] }),
    }
}

const _: () = assert!(PAGE_SIZE_U32 >= 4096);
