//! Start: open the store, recover the log, replay what the store has not applied.
//!
//! The store's newest checkpoint is mapped as it is. The log is read once, in pieces; an entry that
//! a later hard state says is committed is applied as it comes, so memory holds only the entries
//! that raft has to decide about. What waits in the log behind the last known commit goes to raft,
//! which commits it again.
//!
//! A log that is damaged, missing or of another member is never guessed at: the member says what is
//! wrong and does not start. A store whose very first checkpoint does not count is made anew, if
//! the log still has everything since the beginning and this member founded its cluster alone.
//!
//! A store that was installed from another member's may lie ahead of the log: then the log begins
//! anew behind it, which a record says. Where the crash came before that record was written, the
//! start writes it.

mod alone;
mod create;
mod disks;
mod replay;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use engine::engine::{Founding, Imported};
use engine::ids::{LeaseId, LogIndex, MemberId, Term};
use engine::lease::Lease;
use engine::page::disk::{Completion, DiskOp, DiskOpKind, FileId, OpToken};
use engine::{Engine, Identity, Member, ReadError};
use raft::eraftpb::{Entry, HardState};
use wal::{Lsn, Recovery};

use self::replay::Replay;
use super::failure::Failure;
use super::log_core::{APPLY_KEYS_MAX, Stages};
use crate::raft::change::{decode_conf_state, encode_conf_state};
use crate::raft::record::{decode_state, encode_reset, encode_state};
use crate::raft::storage::{BOOTSTRAP_TERM, LogStore, bootstrap_of, conf_state_of};
use crate::raft::{Consensus, ConsensusConfig};
use crate::runtime::files::EngineDisk;
use crate::runtime::log_disk::LogDisk;
use crate::sequencer::auto_compaction::Retention;
use crate::sequencer::lessor::LessorConfig;

pub use create::{apply_batch, apply_rest, create, make_room};
pub use disks::{Directories, Disks, LogDoor, StoreDoor};

/// How a member without a store comes into its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It founds it, with these, in the order of their ids and itself among them. None: it stands
    /// alone, and its store does not say who belongs to it.
    Founds(Vec<Member>),
    /// It joins one that runs, whose leader sends it a store.
    Joins,
}

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
    /// What a new member's store begins with.
    pub origin: Origin,
    /// Whether writes of the log, and those of the store that nobody reads soon, bypass the page
    /// cache.
    pub direct: bool,
    /// Shards of a new store.
    pub shards: u16,
    /// raft's clock.
    pub election_ticks: usize,
    /// `--pre-vote`: whether a candidate first asks whether it could win.
    pub pre_vote: bool,
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
    /// Whether it is to be the only member from now on, whoever its store names.
    pub force_new_cluster: bool,
}

/// A member that is ready to run.
pub struct Started<L = LogDisk, S = EngineDisk> {
    /// The stages.
    pub stages: Stages,
    /// The log's directory.
    pub log_disk: L,
    /// The store's files.
    pub engine_disk: S,
    /// Entries that were replayed.
    pub replayed: u64,
    /// Entries behind them, of which raft has to decide.
    pub unapplied: VecDeque<Entry>,
    /// Set when the store's only checkpoint did not count and the store was made anew: why not.
    pub store_remade: Option<String>,
}

/// Brings a member back to where it was, or founds it.
///
/// # Errors
/// What keeps it from starting. Nothing was changed but what recovery itself repairs.
pub fn start(config: &StartConfig) -> Result<Started, Failure> {
    start_on(config, &mut Directories::new(config))
}

/// The same on disks of any kind.
///
/// # Errors
/// As [`start`].
pub fn start_on<D: Disks>(
    config: &StartConfig,
    disks: &mut D,
) -> Result<Started<D::Log, D::Store>, Failure> {
    let Store { mut engine, disk: mut engine_disk, remade } = open_store(config, disks)?;
    disks.handle_opened(&engine)?;
    let identity = engine.identity();
    let (checkpointed, _) = engine.applied();
    let mut replay = Replay::new(&engine, remade)?;
    let (mut log_disk, log_config) = (disks.open_log(), disks.log_config(log_identity(identity)));
    let mut wal = recover_log(config, log_config, &mut log_disk, |record| {
        replay.handle_record(&mut engine, &mut engine_disk, &record)
    })?;
    if let Some(fault) = replay.store_remade().filter(|_| !wal.is_whole()) {
        return Err(cannot_remake(fault));
    }
    let must_reset = replay.finish(config)?;
    engine.publish();
    // The head of every segment repeats the newest state, for a log whose records of it are gone.
    let newest = wal.state().map(decode_state).transpose()?.or(replay.hard_state.take());
    let mut hard_state = hard_state_of(newest, engine.applied(), must_reset)?;
    if let Some(place) = must_reset {
        let start = begin_anew(place, &hard_state, &mut wal, &mut log_disk)?;
        replay.retained.push_back((place.0, start));
    }
    if config.force_new_cluster && !config.is_new {
        let (store, log) = ((&mut engine, &mut engine_disk), (&mut wal, &mut log_disk));
        let life = (identity, config.boot_nonce);
        hard_state = alone::stand_alone(life, hard_state, &mut replay, store, log)?;
    }
    let base = engine.applied();
    let Replay { conf_state, pending, retained, applied, store_remade, tail, .. } = replay;
    let mut store = LogStore::resume(hard_state, conf_state, base);
    store.append(&pending);
    let unapplied = pending;
    store.restart(base.0);
    let raft_config = ConsensusConfig {
        member_id: identity.member,
        heartbeat_ticks: 1,
        election_ticks: config.election_ticks,
        pre_vote: config.pre_vote,
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

/// The log begins anew behind the entry that the store was installed at.
fn begin_anew<L: LogDoor>(
    place: (LogIndex, Term),
    state: &HardState,
    wal: &mut wal::Writer,
    disk: &mut L,
) -> Result<Lsn, Failure> {
    let start = wal.appended();
    let state = HardState { commit: state.commit.max(place.0.0), ..state.clone() };
    wal.append_reset(&encode_reset(place))?;
    wal.append_state(&encode_state(&state))?;
    write_through(wal, disk)?;
    Ok(start)
}

/// Writes what was appended to the log and waits for it.
fn write_through<L: LogDoor>(wal: &mut wal::Writer, disk: &mut L) -> Result<(), Failure> {
    wal.flush();
    while let Some((id, op)) = wal.poll_op() {
        wal.handle_completion(id, disk.perform(op))?;
    }
    assert!(wal.durable() >= wal.sealed(), "every operation of the log has ended");
    Ok(())
}

/// What raft begins with: what the log says, made to fit the store.
fn hard_state_of(
    newest: Option<HardState>,
    (index, term): (LogIndex, Term),
    must_reset: Option<(LogIndex, Term)>,
) -> Result<HardState, Failure> {
    let Some(mut state) = newest else {
        // Nobody was ever elected in the term in which clusters begin.
        if term > BOOTSTRAP_TERM && must_reset.is_none() {
            return Err(Failure::Mismatch("the log holds no hard state".into()));
        }
        return Ok(HardState { term: term.0, commit: index.0, ..HardState::default() });
    };
    if state.term < term.0 {
        if must_reset.is_none() {
            return Err(Failure::Mismatch(format!(
                "the log knows of term {}, but the store has applied an entry of term {term}",
                state.term
            )));
        }
        // The installed store tells of a term that this member has not voted in.
        (state.term, state.vote) = (term.0, 0);
    }
    Ok(state)
}

fn leases_of(engine: &Engine) -> Result<Vec<Lease>, ReadError> {
    let (mut leases, mut views) = (Vec::new(), engine.read_handle());
    let view = views.pin();
    view.leases(LeaseId(0), usize::MAX, &mut leases)?;
    Ok(leases)
}

/// The store before the log was read.
struct Store<S> {
    engine: Engine,
    disk: S,
    /// Why it is an empty one although there was one before.
    remade: Option<String>,
}

fn open_store<D: Disks>(config: &StartConfig, disks: &mut D) -> Result<Store<D::Store>, Failure> {
    let (files, mut disk, is_empty) = disks.open_store()?;
    if is_empty && !config.is_new {
        return Err(Failure::Mismatch(format!(
            "the store in {} has lost its checkpoints",
            config.store_dir.display()
        )));
    }
    if is_empty {
        let mut engine = Engine::create(files, disks.store_config(), config.identity)?;
        found(&mut engine, &mut disk, config)?;
        checkpoint(&mut engine, &mut disk)?;
        disks.sync_store_directory()?;
        return Ok(Store { engine, disk, remade: None });
    }
    let store_failure = |cause| Failure::Store { directory: config.store_dir.clone(), cause };
    // A process that was killed may have left what it wrote in the page cache alone. What a start
    // builds on must not be taken back by a power cut: the pages first, then who names them.
    for file in (0..config.shards).map(FileId::Shard).chain([FileId::Meta]) {
        let op = DiskOp { token: OpToken(u64::MAX), file, kind: DiskOpKind::Sync };
        let Completion { result, .. } = disk.perform(op);
        result.map_err(|cause| store_failure(engine::Failure::Disk(cause)))?;
    }
    match Engine::open(files, disks.store_config()) {
        Ok(engine) => Ok(Store { engine, disk, remade: None }),
        // Nothing was released from the log before the second checkpoint began. What is on the disk
        // stays as it is until the log was read to its end.
        Err(engine::Failure::FirstCheckpointTorn(fault)) => {
            check_remake(config, &fault)?;
            let (files, mut disk, _) = disks.open_store()?;
            let mut engine = Engine::create(files, disks.store_config(), config.identity)?;
            found(&mut engine, &mut disk, config)?;
            Ok(Store { engine, disk, remade: Some(fault) })
        }
        Err(cause) => Err(store_failure(cause)),
    }
}

/// Makes an empty store the one that every log of this origin begins behind.
fn found<S: StoreDoor>(
    engine: &mut Engine,
    disk: &mut S,
    config: &StartConfig,
) -> Result<(), Failure> {
    let own = config.identity.member;
    let (members, voters, (applied, term)) = match &config.origin {
        Origin::Founds(members) if members.is_empty() => (&[][..], vec![own], bootstrap_of(1)),
        Origin::Founds(members) => {
            let voters: Vec<MemberId> = members.iter().map(|member| member.id).collect();
            assert!(voters.contains(&own), "{own} founds a cluster that it is no member of");
            let applied = bootstrap_of(members.len());
            (&members[..], voters, applied)
        }
        Origin::Joins => (&[][..], Vec::new(), (LogIndex(0), Term(0))),
    };
    let conf_state = encode_conf_state(&conf_state_of(&voters));
    let founding = Founding { members, conf_state: &conf_state, applied, term };
    loop {
        match engine.found(&founding)? {
            Imported::Done => return Ok(()),
            Imported::Starved => make_room(engine, disk)?,
            Imported::Refused(rule) => {
                return Err(Failure::Mismatch(format!("the cluster cannot be founded: {rule}")));
            }
        }
    }
}

/// A store that is made anew begins where its cluster did: only who founded it alone can be sure of
/// that, whatever the flags say today.
fn check_remake(config: &StartConfig, fault: &str) -> Result<(), Failure> {
    match &config.origin {
        Origin::Founds(members) if members.len() <= 1 || config.is_new => Ok(()),
        _ => Err(Failure::Mismatch(format!(
            "the store's only checkpoint does not count ({fault}), and other members know what was \
             in it: remove this member from its cluster and add it under a new id"
        ))),
    }
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
pub fn checkpoint<S: StoreDoor>(engine: &mut Engine, disk: &mut S) -> Result<(), Failure> {
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

fn recover_log<L: LogDoor>(
    config: &StartConfig,
    wal_config: wal::Config,
    disk: &mut L,
    mut handle: impl FnMut(wal::Record<'_>) -> Result<(), Failure>,
) -> Result<wal::Writer, Failure> {
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

fn reserve<S: StoreDoor>(
    engine: &mut Engine,
    disk: &mut S,
    size_bytes: usize,
) -> Result<(), Failure> {
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
fn give_pages_back<S: StoreDoor>(
    engine: &mut Engine,
    disk: &mut S,
    otherwise: Failure,
) -> Result<(), Failure> {
    if engine.is_durable() {
        return Err(otherwise);
    }
    checkpoint(engine, disk)
}

/// Performs what the store wants done; whether there was anything.
///
/// # Errors
/// The disk's.
pub fn perform_all<S: StoreDoor>(engine: &mut Engine, disk: &mut S) -> Result<bool, Failure> {
    let mut has_moved = false;
    while let Some(op) = engine.poll_disk_op() {
        engine.handle_disk_completion(disk.perform(op))?;
        has_moved = true;
    }
    Ok(has_moved)
}

#[cfg(test)]
mod tests;
