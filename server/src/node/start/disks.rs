//! Where a member's files are: on a disk of this machine's, or on one that somebody simulates.
//!
//! A start, and what is made like one, performs operations one after the other and waits for each;
//! so all it asks of a disk are two doors. Whoever runs the member afterwards drives them as he
//! likes.
//!
//! Invariant: opening the store again yields what is on the disk, not what the first opening left
//! in memory.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use engine::page::disk::{Completion, DiskOp};
use engine::page::meta::META_BLOCK_SIZE_BYTES;
use engine::{Engine, EngineConfig, EngineFiles};

use super::StartConfig;
use crate::node::failure::Failure;
use crate::runtime::bus_error::{self, MappedFile};
use crate::runtime::files::{EngineDisk, allocate_ahead};
use crate::runtime::log_disk::LogDisk;

/// The store's checkpoints in its directory.
const META_FILE: &str = "meta";
/// Two blocks: each checkpoint writes the one that the last did not.
const META_FILE_SIZE_BYTES: u64 = 2 * META_BLOCK_SIZE_BYTES as u64;

/// Address space reserved for a shard's map: far more than a member can usefully hold, and nothing
/// but address space until it is used.
const SHARD_SIZE_BYTES_MAX: u64 = 256 << 30;

/// What performs the log's operations.
pub trait LogDoor {
    /// Performs one and waits for its end.
    ///
    /// # Errors
    /// What the disk refused.
    fn perform(&mut self, op: wal::DiskOp) -> Result<wal::Completion, wal::DiskError>;
}

/// What performs the store's operations.
pub trait StoreDoor {
    /// Performs one and waits for its end.
    fn perform(&mut self, op: DiskOp) -> Completion;
}

/// A member's disks.
pub trait Disks {
    /// The door to the log.
    type Log: LogDoor;
    /// The door to the store.
    type Store: StoreDoor;

    /// The store's files, the door to them, and whether there has never been a checkpoint.
    ///
    /// # Errors
    /// A file cannot be used.
    fn open_store(&mut self) -> Result<(EngineFiles, Self::Store, bool), Failure>;

    /// The names of the store's files are durable when this returns.
    ///
    /// # Errors
    /// What the disk refused.
    fn sync_store_directory(&mut self) -> Result<(), Failure>;

    /// The engine is open on these files.
    ///
    /// # Errors
    /// What is to be set up for it failed.
    fn handle_opened(&mut self, engine: &Engine) -> Result<(), Failure>;

    /// The log's directory.
    fn open_log(&mut self) -> Self::Log;

    /// How the store is laid out.
    fn store_config(&self) -> EngineConfig;

    /// How the log is laid out; `identity` says whose it is.
    fn log_config(&self, identity: Vec<u8>) -> wal::Config;
}

impl LogDoor for LogDisk {
    fn perform(&mut self, op: wal::DiskOp) -> Result<wal::Completion, wal::DiskError> {
        Self::perform(self, op)
    }
}

impl StoreDoor for EngineDisk {
    fn perform(&mut self, op: DiskOp) -> Completion {
        Self::perform(self, op)
    }
}

/// Directories of this machine.
#[derive(Debug)]
pub struct Directories<'a> {
    config: &'a StartConfig,
}

impl<'a> Directories<'a> {
    /// Those that the configuration names.
    #[must_use]
    pub const fn new(config: &'a StartConfig) -> Self {
        Self { config }
    }

    fn shard_path(&self, shard: u16) -> PathBuf {
        self.config.store_dir.join(format!("shard-{shard:04}"))
    }
}

impl Disks for Directories<'_> {
    type Log = LogDisk;
    type Store = EngineDisk;

    fn open_store(&mut self) -> Result<(EngineFiles, EngineDisk, bool), Failure> {
        let meta = open(&self.config.store_dir.join(META_FILE))?;
        // A young store has written one block of the two; the next checkpoint would ask the disk
        // for the other, and a member whose disk is full by then would end. Where it is full
        // already, or nothing can be had ahead, the member may still be lucky.
        let _ = allocate_ahead(&meta, META_FILE_SIZE_BYTES);
        let (mut shards, mut direct) = (Vec::new(), Vec::new());
        for shard in 0..self.config.shards {
            let path = self.shard_path(shard);
            shards.push(open(&path)?);
            // A file system that has no such way says so here.
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(libc::O_DIRECT);
            direct.push(options.open(&path).ok().filter(|_| self.config.direct));
        }
        let duplicate = |file: &File| {
            file.try_clone().map_err(|cause| Failure::File { operation: "duplicate".into(), cause })
        };
        let disk_files = shards.iter().map(duplicate).collect::<Result<_, _>>()?;
        let disk = EngineDisk::new(duplicate(&meta)?, disk_files).with_direct(direct);
        let is_empty = file_len(&meta)? == 0;
        let directory = self.config.store_dir.clone();
        Ok((EngineFiles::Disk { meta, shards, directory }, disk, is_empty))
    }

    fn sync_store_directory(&mut self) -> Result<(), Failure> {
        let path = &self.config.store_dir;
        let synced = File::open(path).and_then(|directory| directory.sync_all());
        let operation = || format!("sync {}", path.display());
        synced.map_err(|cause| Failure::File { operation: operation(), cause })
    }

    /// A page that cannot be read ends the process; from here on it says which.
    fn handle_opened(&mut self, engine: &Engine) -> Result<(), Failure> {
        let files = (0..).zip(engine.addresses());
        let files = files
            .map(|(shard, addresses)| MappedFile { addresses, path: self.shard_path(shard) })
            .collect();
        bus_error::name_pages_of(files)
            .map_err(|cause| Failure::File { operation: "watch the pages".into(), cause })
    }

    fn open_log(&mut self) -> LogDisk {
        LogDisk::new(&self.config.log_dir, self.config.direct)
    }

    fn store_config(&self) -> EngineConfig {
        EngineConfig { shards: self.config.shards, shard_size_bytes_max: SHARD_SIZE_BYTES_MAX }
    }

    fn log_config(&self, identity: Vec<u8>) -> wal::Config {
        wal::Config::new(identity)
    }
}

pub(super) fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|cause| Failure::File { operation: format!("open {}", path.display()), cause })
}

fn file_len(file: &File) -> Result<u64, Failure> {
    let metadata = file.metadata();
    let metadata =
        metadata.map_err(|cause| Failure::File { operation: "stat the store".into(), cause })?;
    Ok(metadata.len())
}
