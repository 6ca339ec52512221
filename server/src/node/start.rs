//! Start: open the store, recover the log, replay what the store has not applied.
//!
//! The store's newest checkpoint is mapped as it is. The log is read once, in pieces; an entry that
//! a later hard state says is committed is applied as it comes, so memory holds only the entries
//! that raft has to decide about. What waits in the log behind the last known commit goes to raft,
//! which commits it again when this member leads.
//!
//! A log that is damaged, missing or of another member is never guessed at: the member says what is
//! wrong and does not start. A store whose very first checkpoint does not count is made anew, if
//! the log still has everything since the beginning.

mod create;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::ids::{LeaseId, LogIndex, Term};
use engine::lease::Lease;
use engine::{Batch, Engine, EngineConfig, EngineFiles, Identity, ReadError};
use raft::eraftpb::{Entry, EntryType, HardState};
use wal::{Lsn, RecordKind, Recovery};

use super::checkpoint::Tail;
use super::failure::Failure;
use super::log_core::{APPLY_KEYS_MAX, Stages};
use crate::raft::record::{KIND_ENTRY, decode_entry, decode_state};
use crate::raft::storage::{BOOTSTRAP, LogStore, conf_state_of};
use crate::raft::{Consensus, ConsensusConfig};
use crate::runtime::bus_error::{self, MappedFile};
use crate::runtime::files::EngineDisk;
use crate::runtime::log_disk::LogDisk;
use crate::sequencer::auto_compaction::Retention;
use crate::sequencer::lessor::LessorConfig;

pub use create::{apply_batch, apply_rest, create, make_room};

/// The store's checkpoints in its directory.
const META_FILE: &str = "meta";

/// Address space reserved for a shard's map: far more than a member can usefully hold, and nothing
/// but address space until it is used.
const SHARD_SIZE_BYTES_MAX: u64 = 256 << 30;

/// How a member starts.
#[derive(Debug)]
pub struct StartConfig {
    /// Where the store is.
    pub store_dir: PathBuf,
    /// Where the log is.
    pub log_dir: PathBuf,
    /// Who this is. A store that exists knows better.
    pub identity: Identity,
    /// Whether this directory has never held a member: then the log may be created.
    pub is_new: bool,
    /// Whether log writes bypass the page cache.
    pub direct: bool,
    /// Shards of a new store.
    pub shards: u16,
    /// raft's clock.
    pub election_ticks: usize,
    /// After which a read without a confirmed round is given up.
    pub request_timeout: Duration,
    /// A checkpoint is due at the latest after so many entries.
    pub snapshot_count: u64,
    /// The rules of leases.
    pub lessor: LessorConfig,
    /// What is compacted without being asked for.
    pub retention: Option<Retention>,
    /// A start defragments when it gives so much back.
    pub defrag_from_bytes: Option<u64>,
    /// Different at each start.
    pub boot_nonce: u64,
}

/// A member that is ready to run.
pub struct Started {
    /// The stages.
    pub stages: Stages,
    /// The log's directory.
    pub log_disk: LogDisk,
    /// The store's files.
    pub engine_disk: EngineDisk,
    /// Entries that were replayed.
    pub replayed: u64,
    /// Entries behind them, which raft commits when this member leads.
    pub unapplied: VecDeque<Entry>,
    /// Set when the store's only checkpoint did not count and the store was made anew: why not.
    pub store_remade: Option<String>,
}

/// Brings a member back to where it was, or founds it.
///
/// # Errors
/// What keeps it from starting. Nothing was changed but what recovery itself repairs.
pub fn start(config: &StartConfig) -> Result<Started, Failure> {
    let Store { mut engine, disk: mut engine_disk, remade } = open_store(config)?;
    name_pages(config, &engine)?;
    let mut log_disk = LogDisk::new(&config.log_dir, config.direct);
    let identity = engine.identity();
    let (checkpointed, _) = engine.applied();
    let mut replay = Replay::new(&engine, remade);
    let wal = recover_log(config, identity, &mut log_disk, |record| {
        replay.handle_record(&mut engine, &mut engine_disk, &record)
    })?;
    let Replay { hard_state, pending, retained, applied, store_remade, tail } = replay;
    if let Some(fault) = store_remade.as_deref().filter(|_| !wal.is_whole()) {
        return Err(cannot_remake(fault));
    }
    let log_end = retained.back().map_or(BOOTSTRAP.0, |last| last.0);
    if log_end < checkpointed {
        // What the store has applied was durable in the log first.
        return Err(Failure::Mismatch(format!(
            "the log in {} ends with entry {log_end}, but the store has applied entry \
             {checkpointed}: the log has lost its end",
            config.log_dir.display()
        )));
    }
    engine.publish();
    // The head of every segment repeats the newest state, for a log whose records of it are gone.
    let newest = wal.state().map(decode_state).transpose()?.or(hard_state);
    let hard_state = match newest {
        Some(state) => state,
        None if applied <= BOOTSTRAP.0 => {
            let (index, term) = BOOTSTRAP;
            HardState { term: term.0, commit: index.0, ..HardState::default() }
        }
        None => return Err(Failure::Mismatch("the log holds no hard state".into())),
    };
    let base = engine.applied();
    let mut store = LogStore::resume(hard_state, conf_state_of(&[identity.member]), base);
    store.append(&pending);
    let unapplied = pending;
    store.restart(base.0);
    let raft_config = ConsensusConfig {
        member_id: identity.member,
        heartbeat_ticks: 1,
        election_ticks: config.election_ticks,
        pre_vote: true,
    };
    let consensus = Consensus::new(raft_config, store, base.0)?;
    let replayed = applied.0 - checkpointed.0;
    let leases = leases_of(&engine).map_err(Failure::Leases)?;
    let stages = Stages {
        consensus,
        wal,
        engine,
        member: identity.member,
        boot_nonce: config.boot_nonce,
        request_timeout: config.request_timeout,
        snapshot_count: config.snapshot_count,
        lessor: config.lessor,
        retention: config.retention,
        defrag_from_bytes: config.defrag_from_bytes,
        leases,
        tail,
        retained,
    };
    Ok(Started { stages, log_disk, engine_disk, replayed, unapplied, store_remade })
}

fn leases_of(engine: &Engine) -> Result<Vec<Lease>, ReadError> {
    let (mut leases, mut views) = (Vec::new(), engine.read_handle());
    let view = views.pin();
    view.leases(LeaseId(0), usize::MAX, &mut leases)?;
    Ok(leases)
}

fn shard_path(config: &StartConfig, shard: u16) -> PathBuf {
    config.store_dir.join(format!("shard-{shard:04}"))
}

/// A page that cannot be read ends the process; from here on it says which.
fn name_pages(config: &StartConfig, engine: &Engine) -> Result<(), Failure> {
    let files = (0..).zip(engine.addresses());
    let files = files
        .map(|(shard, addresses)| MappedFile { addresses, path: shard_path(config, shard) })
        .collect();
    bus_error::name_pages_of(files)
        .map_err(|cause| Failure::File { operation: "watch the pages".into(), cause })
}

/// The store before the log was read.
struct Store {
    engine: Engine,
    disk: EngineDisk,
    /// Why it is an empty one although there was one before.
    remade: Option<String>,
}

fn open_store(config: &StartConfig) -> Result<Store, Failure> {
    let (files, mut disk, is_empty) = open_files(config)?;
    let engine_config =
        EngineConfig { shards: config.shards, shard_size_bytes_max: SHARD_SIZE_BYTES_MAX };
    if is_empty && !config.is_new {
        return Err(Failure::Mismatch(format!(
            "the store in {} has lost its checkpoints",
            config.store_dir.display()
        )));
    }
    if is_empty {
        let mut engine = found(files, engine_config, config.identity)?;
        checkpoint(&mut engine, &mut disk)?;
        sync_directory(&config.store_dir)?;
        return Ok(Store { engine, disk, remade: None });
    }
    let store_failure = |cause| Failure::Store { directory: config.store_dir.clone(), cause };
    match Engine::open(files, engine_config) {
        Ok(engine) => Ok(Store { engine, disk, remade: None }),
        // Nothing was released from the log before the second checkpoint began. What is on the disk
        // stays as it is until the log was read to its end.
        Err(engine::Failure::FirstCheckpointTorn(fault)) => {
            let (files, disk, _) = open_files(config)?;
            let engine = found(files, engine_config, config.identity)?;
            Ok(Store { engine, disk, remade: Some(fault) })
        }
        Err(cause) => Err(store_failure(cause)),
    }
}

/// The store's files, twice, and whether there has never been a checkpoint.
fn open_files(config: &StartConfig) -> Result<(EngineFiles, EngineDisk, bool), Failure> {
    let meta = open(&config.store_dir.join(META_FILE))?;
    let mut shards = Vec::new();
    for shard in 0..config.shards {
        shards.push(open(&shard_path(config, shard))?);
    }
    let duplicate = |file: &File| {
        file.try_clone().map_err(|cause| Failure::File { operation: "duplicate".into(), cause })
    };
    let disk_files = shards.iter().map(duplicate).collect::<Result<_, _>>()?;
    let disk = EngineDisk::new(duplicate(&meta)?, disk_files);
    let is_empty = file_len(&meta)? == 0;
    let directory = config.store_dir.clone();
    Ok((EngineFiles::Disk { meta, shards, directory }, disk, is_empty))
}

/// An empty store at the index where every log begins.
fn found(files: EngineFiles, config: EngineConfig, identity: Identity) -> Result<Engine, Failure> {
    let mut engine = Engine::create(files, config, identity)?;
    let (index, term) = BOOTSTRAP;
    engine.apply_empty(index, term);
    engine.publish();
    Ok(engine)
}

fn cannot_remake(fault: &str) -> Failure {
    Failure::Mismatch(format!(
        "the store's only checkpoint does not count ({fault}), and the log does not begin with its \
         first entry any more: the store cannot be made anew from it"
    ))
}

/// Writes a checkpoint and waits for it.
///
/// # Errors
/// The disk's.
pub fn checkpoint(engine: &mut Engine, disk: &mut EngineDisk) -> Result<(), Failure> {
    // The checkpoint's own pages may want the file to grow first, and those of a new store always
    // do. Going on without would seal a directory that has no checkpoint, which no start accepts.
    engine.drop_copies(u32::MAX, u32::MAX)?;
    while !engine.begin_checkpoint() {
        let Some(growth) = engine.poll_disk_op() else {
            return Err(Failure::Mismatch("the store has no room for a checkpoint".into()));
        };
        engine.handle_disk_completion(disk.perform(growth))?;
        perform_all(engine, disk)?;
        if let Some(cause) = engine.growth_failure() {
            return Err(Failure::Mismatch(format!("the store cannot grow: {cause}")));
        }
    }
    perform_all(engine, disk)?;
    Ok(())
}

fn recover_log(
    config: &StartConfig,
    identity: Identity,
    disk: &mut LogDisk,
    mut handle: impl FnMut(wal::Record<'_>) -> Result<(), Failure>,
) -> Result<wal::Writer, Failure> {
    let wal_config = wal::Config::new(log_identity(identity));
    let start = wal::Start {
        replay_from: Lsn::ZERO,
        boot_nonce: config.boot_nonce,
        may_create: config.is_new,
    };
    let mut recovery = Recovery::new(wal_config, start);
    loop {
        let mut has_moved = false;
        while let Some((id, op)) = recovery.poll_op() {
            recovery.handle_completion(id, disk.perform(op));
            has_moved = true;
        }
        while let Some(record) = recovery.poll_record() {
            handle(record)?;
            has_moved = true;
        }
        if recovery.poll_done()? {
            return Ok(recovery.finish());
        }
        assert!(has_moved, "recovery wants nothing, yields nothing and is not done");
    }
}

fn log_identity(identity: Identity) -> Vec<u8> {
    let mut bytes = identity.cluster.0.to_le_bytes().to_vec();
    bytes.extend_from_slice(&identity.member.0.to_le_bytes());
    bytes
}

/// What the log's records add to the store.
struct Replay {
    hard_state: Option<HardState>,
    /// Entries behind the applied index, contiguous.
    pending: VecDeque<Entry>,
    retained: VecDeque<(LogIndex, Lsn)>,
    applied: LogIndex,
    /// See [`Store::remade`].
    store_remade: Option<String>,
    /// What was applied.
    tail: Tail,
}

impl Replay {
    fn new(engine: &Engine, store_remade: Option<String>) -> Self {
        let (applied, _) = engine.applied();
        let (pending, retained) = (VecDeque::new(), VecDeque::new());
        let tail = Tail::default();
        Self { hard_state: None, pending, retained, applied, store_remade, tail }
    }

    fn handle_record(
        &mut self,
        engine: &mut Engine,
        disk: &mut EngineDisk,
        record: &wal::Record<'_>,
    ) -> Result<(), Failure> {
        if record.kind == RecordKind::STATE {
            let state = decode_state(record.body)?;
            let commit = LogIndex(state.commit);
            self.hard_state = Some(state);
            return self.apply_through(engine, disk, commit);
        }
        if record.kind != RecordKind::owned(KIND_ENTRY) {
            let kind = record.kind.get();
            return Err(Failure::Mismatch(format!("the log holds a record of kind {kind}")));
        }
        self.handle_entry(decode_entry(record.body)?, record.start)
    }

    fn handle_entry(&mut self, entry: Entry, start: Lsn) -> Result<(), Failure> {
        let index = LogIndex(entry.index);
        while self.retained.pop_back_if(|last| last.0 >= index).is_some() {}
        self.retained.push_back((index, start));
        if index <= self.applied {
            return Ok(());
        }
        // A later entry of an index replaces it and all behind it: an earlier leader's tail.
        while self.pending.pop_back_if(|last| last.index >= entry.index).is_some() {}
        let last = self.pending.back().map_or(self.applied, |last| LogIndex(last.index));
        if let Some(fault) = &self.store_remade
            && last == BOOTSTRAP.0
            && index.0 > last.0 + 1
        {
            return Err(cannot_remake(fault));
        }
        if index.0 != last.0 + 1 {
            return Err(Failure::Mismatch(format!(
                "the log goes on with entry {index} behind entry {last}"
            )));
        }
        self.pending.push_back(entry);
        Ok(())
    }

    fn apply_through(
        &mut self,
        engine: &mut Engine,
        disk: &mut EngineDisk,
        commit: LogIndex,
    ) -> Result<(), Failure> {
        while let Some(entry) = self.pending.pop_front_if(|first| first.index <= commit.0) {
            let (index, term) = (LogIndex(entry.index), Term(entry.term));
            if entry.get_entry_type() != EntryType::EntryNormal {
                return Err(Failure::UnknownEntry { index });
            }
            self.tail.size_bytes += entry.data.len() as u64;
            self.tail.entries += 1;
            self.tail.commands += apply(engine, disk, (index, term), entry)?;
            self.applied = index;
        }
        Ok(())
    }
}

/// Applies an entry; answers with the number of its commands.
fn apply(
    engine: &mut Engine,
    disk: &mut EngineDisk,
    (index, term): (LogIndex, Term),
    entry: Entry,
) -> Result<u64, Failure> {
    if entry.data.is_empty() {
        engine.apply_empty(index, term);
        return Ok(0);
    }
    let batch =
        Batch::validate(entry.data).map_err(|cause| Failure::InvalidEntry { index, cause })?;
    apply_batch(engine, disk, (index, term), &batch)?;
    Ok(batch.len() as u64)
}

fn reserve(engine: &mut Engine, disk: &mut EngineDisk, size_bytes: usize) -> Result<(), Failure> {
    // The entry is committed: it may take whatever there is.
    while let Err(no_space) = engine.reserve_last_for(size_bytes) {
        if no_space.may_grow && engine.growth_failure().is_none() {
            perform_all(engine, disk)?;
            continue;
        }
        let cause = engine.growth_failure().map(|error| format!(" ({error})")).unwrap_or_default();
        let failure = Failure::Mismatch(format!("cannot replay the log: {no_space}{cause}"));
        give_pages_back(engine, disk, failure)?;
    }
    Ok(())
}

/// On a full disk the checkpoint that the start began with holds pages which a newer one gives
/// back, as they were given back while the member ran.
fn give_pages_back(
    engine: &mut Engine,
    disk: &mut EngineDisk,
    otherwise: Failure,
) -> Result<(), Failure> {
    if engine.is_durable() {
        return Err(otherwise);
    }
    checkpoint(engine, disk)
}

/// Whether there was anything to perform.
/// Performs what the store wants done; whether there was anything.
///
/// # Errors
/// The disk's.
pub fn perform_all(engine: &mut Engine, disk: &mut EngineDisk) -> Result<bool, Failure> {
    let mut has_moved = false;
    while let Some(op) = engine.poll_disk_op() {
        engine.handle_disk_completion(disk.perform(op))?;
        has_moved = true;
    }
    Ok(has_moved)
}

fn open(path: &Path) -> Result<File, Failure> {
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

fn sync_directory(path: &Path) -> Result<(), Failure> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|cause| Failure::File { operation: format!("sync {}", path.display()), cause })
}

#[cfg(test)]
mod tests;
