//! The log core on the log's simulated disk and on a store in files, turn by turn, as its role
//! drives it.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::command::{
    AlarmAction, AlarmRef, BATCH_HEADER_SIZE_BYTES, CompactRef, DeleteRangeRef, FrameWriter,
    LeaseGrantRef, MemberAddRef, MemberPublishRef, PutRef,
};
use engine::engine::{Founding, Imported};
use engine::ids::{ClusterId, LeaseId, MemberId};
use engine::page::PageBuffer;
use engine::page::disk::{Completion, DiskError, DiskOp, DiskOpKind};
use engine::quota::Quota;
use engine::{
    Alarm, AlarmKind, EngineConfig, EngineFiles, Identity, Member, Outcome, Progress, Rejection,
};
use raft::eraftpb::HardState;
use wal::sim::{self, SimDisk};
use wal::{SegmentSequence, Start};

use super::super::checkpoint::IDLE_AFTER;
use super::super::checkpoint::Tail;
use super::super::shared::{Status, WatchInterest};
use super::super::start::{checkpoint, perform_all};
use super::*;
use crate::mail::{LeaseAsk, LeaseReply, Renewed, Unavailable};
use crate::raft::ConsensusConfig;
use crate::raft::change::encode_conf_state;
use crate::raft::storage::{LogStore, bootstrap_of, conf_state_of};
use crate::runtime::files::EngineDisk;
use crate::sequencer::auto_compaction::{Retention, Stage};
use crate::sequencer::lessor::LessorConfig;

mod cluster;
mod sweeping;

const SEGMENT_SIZE_BYTES: u64 = 1 << 20;
const TICK: Duration = Duration::from_millis(100);
const FRONTEND: FrontendId = FrontendId(0);
const MEMBER: MemberId = MemberId(9);
/// What automatic compaction leaves.
const RETAINED: i64 = 50;
/// What is still busy after so many turns will be for ever.
const TURNS_MAX: usize = 20_000;

struct World {
    directory: PathBuf,
    core: LogCore,
    log: SimDisk,
    store: EngineDisk,
    store_is_full: bool,
    /// The log's operations wait.
    is_log_held: bool,
    /// The store's operations wait here while they are held.
    held: Option<VecDeque<DiskOp>>,
    /// What goes by between two looks of the core at the clock, in the background; a hundred times
    /// that between two turns.
    time_of_a_look: Duration,
    growths_tried: usize,
    now: Duration,
    slot_next: u32,
    answers: HashMap<Slot, Verdict>,
    leases: Vec<LeaseReply>,
}

const LESSOR: LessorConfig = LessorConfig {
    ttl_min_seconds: 2,
    extension: Duration::from_secs(1),
    checkpoint_interval: None,
};

impl World {
    /// A member that serves, of one front-end.
    fn new(name: &str) -> Self {
        let mut world = Self::found(name, MEMBER, &[MEMBER]);
        world.run();
        assert!(world.core.is_serving());
        world
    }

    /// One of the founders of a cluster.
    fn found(name: &str, member: MemberId, founders: &[MemberId]) -> Self {
        Self::found_in(name, member, founders, SEGMENT_SIZE_BYTES)
    }

    /// The same with a log of such segments: no value is larger.
    fn found_in(
        name: &str,
        member: MemberId,
        founders: &[MemberId],
        segment_size_bytes: u64,
    ) -> Self {
        let name = format!("ringd-log-core-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        // Left by an earlier process of the same number.
        drop(fs::remove_dir_all(&directory));
        fs::create_dir_all(&directory).unwrap();
        let mut log = SimDisk::new(1);
        // One that joins begins without anything, and hears of everything from the leader.
        let base = match founders {
            [] => (LogIndex(0), Term(0)),
            founders => bootstrap_of(founders.len()),
        };
        let conf_state = conf_state_of(founders);
        let (engine, store) = new_store(&directory, member, founders, base);
        let wal = new_log(&mut log, segment_size_bytes);
        let config = ConsensusConfig {
            member_id: member,
            heartbeat_ticks: 1,
            election_ticks: 10,
            pre_vote: true,
        };
        let (index, term) = base;
        let hard_state = HardState { term: term.0, commit: index.0, ..HardState::default() };
        let log_store = LogStore::resume(hard_state, conf_state, base);
        let consensus = Consensus::new(config, log_store, index);
        let stages = Stages {
            consensus: consensus.unwrap(),
            wal,
            engine,
            member,
            boot_nonce: 1,
            request_timeout: Duration::from_secs(7),
            snapshot_count: u64::MAX,
            lessor: LESSOR,
            retention: Some(Retention::Revisions(RETAINED)),
            defrag_from_bytes: None,
            leases: Vec::new(),
            tail: Tail::default(),
            retained: VecDeque::new(),
        };
        let (mut frames, mut writer) = (Vec::new(), FrameWriter::new());
        writer.push_cluster_version_set(&mut frames, "3.7.0");
        let name = format!("member{}", member.0);
        let publish = MemberPublishRef { id: member, name: &name, client_urls: &[] };
        let mut introduction = Vec::new();
        writer.push_member_publish(&mut introduction, &publish);
        introduction.append(&mut frames);
        let introduction = Introduction { frames: introduction, count: 2 };
        let (status, interest) = (Arc::new(Status::default()), Arc::new(WatchInterest::new(1)));
        let mut core = LogCore::new(stages, introduction, 1, status, interest);
        core.start();
        Self {
            directory,
            core,
            log,
            store,
            store_is_full: false,
            is_log_held: false,
            held: None,
            time_of_a_look: Duration::ZERO,
            growths_tried: 0,
            now: Duration::ZERO,
            slot_next: 0,
            answers: HashMap::new(),
            leases: Vec::new(),
        }
    }

    fn ask(&mut self, push: impl FnOnce(&mut FrameWriter, &mut Vec<u8>)) -> Slot {
        let slot = Slot(self.slot_next);
        self.slot_next += 1;
        let mut ask = Ask::default();
        push(&mut FrameWriter::new(), &mut ask.frames);
        ask.slots.push(slot);
        self.core.handle_ask(FRONTEND, &ask, self.now);
        slot
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Slot {
        let put = PutRef { key: key.as_bytes(), value, ..PutRef::default() };
        self.ask(|writer, frames| writer.push_put(frames, &put))
    }

    /// A change of the members.
    fn change(&mut self, push: impl FnOnce(&mut FrameWriter, &mut Vec<u8>)) -> Slot {
        let slot = Slot(self.slot_next);
        self.slot_next += 1;
        let mut frame = Vec::new();
        push(&mut FrameWriter::new(), &mut frame);
        let ask = Ask { changes: vec![(slot, frame)], ..Ask::default() };
        self.core.handle_ask(FRONTEND, &ask, self.now);
        slot
    }

    /// Leadership is to move.
    fn ask_move(&mut self, to: MemberId) -> Slot {
        let slot = Slot(self.slot_next);
        self.slot_next += 1;
        let ask = Ask { moves: vec![(slot, to)], ..Ask::default() };
        self.core.handle_ask(FRONTEND, &ask, self.now);
        slot
    }

    /// Many keys in one letter, and their answers.
    fn fill(&mut self, keys: std::ops::Range<usize>, value: &[u8]) {
        let slots = self.begin_fill(keys, value);
        self.run();
        for slot in slots {
            assert!(self.take_outcome(slot).is_ok());
        }
    }

    fn begin_fill(&mut self, keys: std::ops::Range<usize>, value: &[u8]) -> Vec<Slot> {
        let mut ask = Ask::default();
        let mut writer = FrameWriter::new();
        for key in keys {
            let key = format!("key {key:08}");
            let put = PutRef { key: key.as_bytes(), value, ..PutRef::default() };
            writer.push_put(&mut ask.frames, &put);
            ask.slots.push(Slot(self.slot_next));
            self.slot_next += 1;
        }
        self.core.handle_ask(FRONTEND, &ask, self.now);
        ask.slots
    }

    /// Puts until the store has no room for more; answers with the revision.
    fn fill_up(&mut self) -> Revision {
        for number in 0..10_000 {
            let put = self.put(&format!("large {number:04}"), &[7; 100_000]);
            self.run();
            if let Err(reason) = self.take_outcome(put) {
                assert_eq!(reason, Unavailable::NoSpace);
                return self.core.engine.revision();
            }
        }
        panic!("the disk is never full");
    }

    fn delete_all(&mut self) -> Slot {
        let delete = DeleteRangeRef { key: b"\0", range_end: b"\0", prev_kv: false };
        self.ask(|writer, frames| writer.push_delete_range(frames, &delete))
    }

    fn compact(&mut self, revision: Revision, physical: bool) -> Slot {
        let compact = CompactRef { revision, physical };
        self.ask(|writer, frames| writer.push_compact(frames, compact))
    }

    /// One turn of the role's loop; whether the disk did anything.
    fn turn(&mut self) -> bool {
        self.now += 100 * self.time_of_a_look;
        self.core.order(self.now).unwrap();
        let mut moved = self.perform_log();
        let (now, looks) = (self.now, Cell::new(0));
        let clock = || {
            looks.set(looks.get() + 1);
            now + self.time_of_a_look * looks.get()
        };
        self.core.apply(now, clock).unwrap();
        self.core.order(self.now).unwrap();
        moved |= self.perform_log();
        while let Some(op) = self.core.poll_engine_op() {
            let is_growth = matches!(op.kind, DiskOpKind::Allocate { .. });
            match &mut self.held {
                // Growth does not wait for a checkpoint.
                Some(held) if !is_growth => held.push_back(op),
                _ => {
                    moved = true;
                    self.perform_store(op);
                }
            }
        }
        while let Some(job) = self.core.poll_scan() {
            moved = true;
            self.core.handle_scanned(job.perform()).unwrap();
        }
        let reply = self.core.reply(FRONTEND);
        self.answers.extend(reply.answers.drain(..));
        self.leases.extend(reply.leases.drain(..).map(|(_, answer)| answer));
        moved
    }

    /// Turns until the core would sleep: only then may it, and only then does it.
    fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            let moved = self.turn();
            if !moved && !self.core.has_work() && self.core.background_due().is_none() {
                return;
            }
        }
        panic!("the core spins");
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.core.handle_tick(self.now);
        self.run();
    }

    fn perform_log(&mut self) -> bool {
        let mut moved = false;
        while !self.is_log_held
            && let Some((id, op)) = self.core.poll_log_op()
        {
            moved = true;
            let result = self.log.perform(op);
            self.core.handle_log_completion(id, result).unwrap();
        }
        moved
    }

    fn perform_store(&mut self, op: DiskOp) {
        let is_growth = matches!(op.kind, DiskOpKind::Allocate { .. });
        self.growths_tried += usize::from(is_growth);
        let completion = if is_growth && self.store_is_full {
            let cause = std::io::Error::from_raw_os_error(libc::ENOSPC);
            let error = DiskError { file: op.file, operation: "allocate", cause };
            Completion { token: op.token, buffer: PageBuffer::default(), result: Err(error) }
        } else {
            self.store.perform(op)
        };
        self.core.handle_engine_completion(completion).unwrap();
    }

    fn take_outcome(&mut self, slot: Slot) -> Result<Outcome, Unavailable> {
        match self.answers.remove(&slot).expect("an answer has come") {
            Verdict::Applied(answer) => Ok(answer.outcome),
            Verdict::Defragmented | Verdict::Moved => panic!("nobody asked for that"),
            Verdict::Unavailable(reason) => Err(reason),
        }
    }

    fn is_answered(&self, slot: Slot) -> bool {
        self.answers.contains_key(&slot)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn new_store(
    directory: &std::path::Path,
    member: MemberId,
    founders: &[MemberId],
    (index, term): (LogIndex, Term),
) -> (Engine, EngineDisk) {
    let file = |name: &str| -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(directory.join(name)).unwrap()
    };
    let (meta, shard) = (file("meta"), file("shard"));
    let mut disk = EngineDisk::new(meta.try_clone().unwrap(), vec![shard.try_clone().unwrap()]);
    let files = EngineFiles::Disk { meta, shards: vec![shard], directory: directory.to_path_buf() };
    let config = EngineConfig { shards: 1, shard_size_bytes_max: 1 << 30 };
    let identity = Identity { cluster: ClusterId(1), member };
    let mut engine = Engine::create(files, config, identity).unwrap();
    let members: Vec<Member> = founders.iter().map(|&id| named(id)).collect();
    let conf_state = encode_conf_state(&conf_state_of(founders));
    let founding = Founding { members: &members, conf_state: &conf_state, applied: index, term };
    while engine.found(&founding).unwrap() == Imported::Starved {
        perform_all(&mut engine, &mut disk).unwrap();
    }
    checkpoint(&mut engine, &mut disk).unwrap();
    (engine, disk)
}

/// A member before it has told its name.
fn named(id: MemberId) -> Member {
    Member { id, peer_urls: vec![format!("http://10.0.0.{}:2380", id.0)], ..Member::default() }
}

fn new_log(disk: &mut SimDisk, segment_size_bytes: u64) -> Writer {
    let config = wal::Config { segment_size_bytes, ..wal::Config::new(Vec::new()) };
    let start = Start { replay_from: Lsn::ZERO, boot_nonce: 1, may_create: true };
    match sim::recover(disk, &config, start, u64::MAX) {
        sim::Outcome::Open(writer, _) => *writer,
        sim::Outcome::Failed(error) => panic!("{error}"),
        sim::Outcome::Interrupted(_) => unreachable!("no bound was set"),
    }
}

/// Found by measuring: an idle member kept segments that it read again at its next start, because
/// their release waited for a write that never came.
#[test]
fn an_idle_members_log_begins_with_its_last_entrys_segment() {
    let mut world = World::new("idle");
    for part in 0..6 {
        world.fill(part * 1000..(part + 1) * 1000, &[7; 500]);
    }
    assert!(world.log.segments().len() > 2);
    world.now += IDLE_AFTER;
    world.tick();
    world.tick();
    assert!(world.core.is_checkpointed());
    let (_, last) = *world.core.retained.back().unwrap();
    let needed = SegmentSequence(last.0 / SEGMENT_SIZE_BYTES);
    assert_eq!(world.log.segments().first(), Some(&needed), "the last entry's is the first");
}

/// Found in review: a delete that found no free pages kept the core busy without getting on, and
/// each of its turns asked the disk again.
#[test]
fn a_delete_without_pages_waits_asleep_until_the_store_grows() {
    let mut world = World::new("starved");
    for part in 0..30 {
        world.fill(part * 1000..(part + 1) * 1000, &[7; 400]);
    }
    world.now += IDLE_AFTER;
    world.tick();
    world.store_is_full = true;
    let published = world.fill_up();
    let delete = world.delete_all();
    world.run();
    assert!(world.core.engine.is_apply_starved(), "the store is too small for this test");
    assert!(!world.is_answered(delete));
    for _ in 0..5 {
        let tried = world.growths_tried;
        let view = world.core.engine.read_handle().pin().revision;
        assert_eq!(view, published, "readers see what was there before");
        let put = world.put("more", b"value");
        world.run();
        assert_eq!(world.take_outcome(put), Err(Unavailable::NoSpace));
        assert_eq!(world.growths_tried, tried, "the disk is asked again between ticks");
        world.tick();
        assert_eq!(world.growths_tried, tried + 1);
        assert!(world.core.store_shortage().is_some());
    }
    world.store_is_full = false;
    for _ in 0..100 {
        world.tick();
        if world.is_answered(delete) {
            break;
        }
    }
    assert_eq!(
        world.take_outcome(delete),
        Ok(Outcome::DeleteRange { deleted: published.0 - 1, prevs: Vec::new() })
    );
    assert!(world.core.store_shortage().is_none());
    let put = world.put("more", b"value");
    world.run();
    assert!(world.take_outcome(put).is_ok());
}

/// A store that is full for puts has room for deletes, for a compaction and for its sweep, and the
/// checkpoints that give the pages back; then it takes puts again, without one byte more.
#[test]
fn deletes_and_a_compaction_make_room_on_a_full_disk() {
    let mut world = World::new("full");
    world.fill(0..1000, &[7; 400]);
    world.store_is_full = true;
    let refused_at = usize::try_from(world.fill_up().0).unwrap() - 1001;
    for _ in 0..3 {
        // What a checkpoint gives back is given to puts first: go on until that does not help.
        world.tick();
    }
    for number in 0..refused_at {
        let key = format!("large {number:04}");
        let delete = DeleteRangeRef { key: key.as_bytes(), range_end: b"", prev_kv: false };
        let slot = world.ask(|writer, frames| writer.push_delete_range(frames, &delete));
        world.run();
        let outcome = world.take_outcome(slot);
        assert!(outcome.is_ok(), "{number} of {refused_at}: {outcome:?}");
    }
    let compaction = world.compact(world.core.engine.revision(), true);
    for _ in 0..100 {
        world.tick();
    }
    assert_eq!(
        world.take_outcome(compaction),
        Ok(Outcome::Compacted { sweep: Some(world.core.engine.compacted()) })
    );
    world.now += IDLE_AFTER;
    for _ in 0..5 {
        world.tick();
    }
    for number in 0..refused_at / 2 {
        let put = world.put(&format!("again {number:04}"), &[7; 100_000]);
        world.run();
        assert!(world.take_outcome(put).is_ok(), "{number} of {refused_at}");
        world.tick();
    }
}

/// Found in review: nobody asked the log whether it would get another segment, and the batch that
/// reached the end of the last one ended the process.
#[test]
fn a_log_without_another_segment_refuses_writes_and_goes_on_when_there_is_room() {
    let mut world = World::new("log-full");
    world.log.set_capacity(SEGMENT_SIZE_BYTES);
    // The second segment was prepared when there was room; of the third there is none.
    let mut accepted = 0;
    let refusal = loop {
        let put = world.put(&format!("key {accepted}"), &[7; 3000]);
        world.run();
        match world.take_outcome(put) {
            Ok(_) => accepted += 1,
            Err(reason) => break reason,
        }
        assert!(accepted < 10_000, "the log never ends");
    };
    assert_eq!(refusal, Unavailable::NoSpace);
    assert!(world.core.log_shortage().is_some());
    assert!(accepted > 100);
    // Space is freed by commands, and they still have their place.
    let delete = world.delete_all();
    world.run();
    assert!(world.take_outcome(delete).is_ok());
    let compaction = world.compact(world.core.engine.revision(), false);
    world.run();
    assert!(world.take_outcome(compaction).is_ok());
    // Nor can they use it up: in the end all is refused, and the member lives.
    for round in 0..2000 {
        let key = format!("nothing {round}");
        let delete = DeleteRangeRef { key: key.as_bytes(), range_end: b"", prev_kv: false };
        let slot = world.ask(|writer, frames| writer.push_delete_range(frames, &delete));
        world.run();
        if world.take_outcome(slot).is_err() {
            break;
        }
        assert!(round < 1999, "deletes reach the log's end");
    }
    assert!(world.core.wal.room_behind(0).is_some());
    world.log.set_capacity(u64::MAX);
    world.tick();
    let put = world.put("again", b"value");
    world.run();
    assert!(world.take_outcome(put).is_ok());
    assert!(world.core.log_shortage().is_none());
}

/// A log that is starved but has old segments needs no room: a checkpoint frees them.
#[test]
fn a_starved_log_goes_on_in_the_segments_it_has() {
    let mut world = World::new("recycle");
    world.log.set_capacity(2 * SEGMENT_SIZE_BYTES);
    let segment_first = world.log.segments()[0];
    let mut refused = 0;
    for number in 0..3000 {
        let put = world.put(&format!("key {}", number % 10), &[7; 3000]);
        world.run();
        if world.take_outcome(put).is_err() {
            refused += 1;
            world.tick();
            world.tick();
        }
    }
    assert!(refused < 30, "{refused} writes of 3000 were refused");
    assert!(world.log.segments()[0].0 > segment_first.0 + 5);
}

/// Found in review: a stop that met a checkpoint under way, or a store that had to grow first,
/// ended without its own, and the next start replayed.
#[test]
fn the_final_checkpoint_comes_after_one_that_is_under_way_and_holds_everything() {
    let mut world = World::new("stop");
    world.fill(0..1000, &[7; 400]);
    world.held = Some(VecDeque::new());
    world.now += IDLE_AFTER;
    world.tick();
    assert!(world.core.engine.is_checkpointing());
    world.fill(1000..2000, &[7; 400]);
    world.core.stop();
    world.run();
    assert!(world.core.is_quiet());
    world.core.advance_final_checkpoint();
    let held = world.held.take().unwrap();
    held.into_iter().for_each(|op| world.perform_store(op));
    for _ in 0..TURNS_MAX {
        if world.core.is_checkpointed() {
            break;
        }
        world.core.advance_final_checkpoint();
        world.turn();
    }
    assert!(world.core.is_checkpointed());
    assert_eq!(world.core.engine.durable(), world.core.engine.applied());
}

/// The sizes of batches and of the room they ask for are in step.
#[test]
fn a_batch_of_the_largest_command_finds_room() {
    let mut world = World::new("large");
    let size = usize::try_from(SEGMENT_SIZE_BYTES).unwrap() * 9 / 10 - BATCH_HEADER_SIZE_BYTES;
    for _ in 0..5 {
        let put = world.put("large", &vec![7; size]);
        world.run();
        assert!(world.take_outcome(put).is_ok());
    }
}

impl World {
    fn grant(&mut self, id: i64, ttl_seconds: i64) {
        let grant = LeaseGrantRef { id: LeaseId(id), ttl_seconds };
        let slot = self.ask(|writer, frames| writer.push_lease_grant(frames, grant));
        self.run();
        assert!(matches!(self.take_outcome(slot), Ok(Outcome::LeaseGranted(_))));
    }

    fn ask_lease(&mut self, ask: LeaseAsk) -> Option<LeaseReply> {
        let leases = vec![(Slot(0), ask)];
        self.core.handle_ask(FRONTEND, &Ask { leases, ..Ask::default() }, self.now);
        self.run();
        self.leases.pop()
    }
}

#[test]
fn a_lease_that_runs_out_takes_its_keys_along_in_one_revision() {
    let mut world = World::new("lease-expiry");
    world.grant(7, 2);
    for key in ["b", "a"] {
        let put = PutRef { key: key.as_bytes(), lease: LeaseId(7), ..PutRef::default() };
        let slot = world.ask(|writer, frames| writer.push_put(frames, &put));
        world.run();
        assert!(world.take_outcome(slot).is_ok());
    }
    let revision = world.core.engine().revision();
    let renew = LeaseAsk::Renew { id: LeaseId(7), sequence: 5 };
    let lives = |ttl_seconds| Some(Renewed::Lives { ttl_seconds });
    let renewed = |reply| match reply {
        Some(LeaseReply::Renewed { sequence: 5, renewed }) => Some(renewed),
        None => None,
        Some(other) => panic!("{other:?}"),
    };
    assert_eq!(renewed(world.ask_lease(renew)), lives(2));
    for _ in 0..19 {
        world.tick();
    }
    let question = LeaseAsk::TimeToLive(LeaseId(7));
    assert_eq!(world.ask_lease(question), Some(LeaseReply::TimeToLive(Some((0, 2)))));
    assert_eq!(world.core.engine().revision(), revision, "it lives until its time is over");
    // Too late: the renewal waits for the revoke, which waits for a batch to ride with, but not
    // long.
    world.now += TICK;
    assert_eq!(world.ask_lease(renew), None);
    let alone = world.core.wake_at().expect("it goes alone at last");
    assert!(alone > world.now && alone <= world.now + TICK);
    world.now = alone;
    world.run();
    assert_eq!(renewed(world.leases.pop()), lives(0));
    assert_eq!(world.core.engine().revision().0, revision.0 + 1);
    assert_eq!(world.core.engine().read_handle().pin().key_count(), 0);
    assert_eq!(world.ask_lease(question), Some(LeaseReply::TimeToLive(None)));
    assert_eq!(renewed(world.ask_lease(renew)), lives(0));
    assert_eq!(world.core.wake_at(), None);
}

#[test]
fn what_has_run_out_rides_with_a_batch_of_clients() {
    let mut world = World::new("lease-rider");
    world.grant(7, 2);
    let put = PutRef { key: b"a", lease: LeaseId(7), ..PutRef::default() };
    let slot = world.ask(|writer, frames| writer.push_put(frames, &put));
    world.run();
    assert!(world.take_outcome(slot).is_ok());
    for _ in 0..19 {
        world.tick();
    }
    let (applied, _) = world.core.engine().applied();
    world.now += TICK;
    world.run();
    assert_eq!(world.core.engine().applied().0, applied, "it waits for a batch");
    let put = PutRef { key: b"b", ..PutRef::default() };
    let slot = world.ask(|writer, frames| writer.push_put(frames, &put));
    world.run();
    assert!(world.take_outcome(slot).is_ok());
    assert_eq!(world.core.engine().applied().0.0, applied.0 + 1, "both are one entry");
    assert_eq!(world.core.engine().read_handle().pin().key_count(), 1);
}

/// The revoke of a lease is refused while the cluster is corrupt: it has its turn again.
#[test]
fn a_revoke_that_was_refused_is_proposed_again() {
    let mut world = World::new("lease-refused");
    world.grant(7, 2);
    let alarm = |world: &mut World, action| {
        let alarm = Alarm { kind: AlarmKind::CORRUPT, member: MEMBER };
        let change = AlarmRef { action, alarm };
        let slot = world.ask(|writer, frames| writer.push_alarm(frames, change));
        world.run();
        assert!(world.take_outcome(slot).is_ok());
    };
    alarm(&mut world, AlarmAction::Raise);
    for _ in 0..45 {
        world.tick();
    }
    let question = LeaseAsk::TimeToLive(LeaseId(7));
    let left = |reply| match reply {
        Some(LeaseReply::TimeToLive(times)) => times.map(|(left, _)| left),
        other => panic!("{other:?}"),
    };
    assert_eq!(left(world.ask_lease(question)), Some(-2), "it has run out and cannot end");
    alarm(&mut world, AlarmAction::Lower);
    for _ in 0..40 {
        world.tick();
    }
    assert_eq!(left(world.ask_lease(question)), None);
}

#[test]
fn leases_are_listed_by_their_ends_and_a_stop_answers_who_waits() {
    let mut world = World::new("lease-list");
    world.grant(1, 30);
    world.grant(2, 10);
    let Some(LeaseReply::List(leases)) = world.ask_lease(LeaseAsk::List) else { panic!() };
    assert_eq!(*leases, [LeaseId(2), LeaseId(1)]);
    world.core.stop();
    let stopped = LeaseReply::Unavailable(Unavailable::Stopped);
    assert_eq!(world.ask_lease(LeaseAsk::List), Some(stopped));
}

/// Puts are answered between the steps of a defragmentation, and all who asked for one meanwhile
/// are answered with it.
#[test]
fn a_defragmentation_stops_nobody_and_is_answered_when_it_is_done() {
    let mut world = World::new("defrag");
    for part in 0..40 {
        world.fill(part * 1000..(part + 1) * 1000, &[7; 700]);
    }
    let delete = world.delete_all();
    world.run();
    assert!(world.take_outcome(delete).is_ok());
    let compaction = world.compact(world.core.engine.revision(), true);
    world.run();
    assert!(world.take_outcome(compaction).is_ok());
    let last = world.put("last", b"value");
    world.run();
    assert!(world.take_outcome(last).is_ok());
    let before = fs::metadata(world.directory.join("shard")).unwrap().len();
    let slots = [Slot(900_000), Slot(900_001)];
    for slot in slots {
        let ask = Ask { defrags: vec![slot], ..Ask::default() };
        world.core.handle_ask(FRONTEND, &ask, world.now);
        world.turn();
        assert!(world.core.reply(FRONTEND).patient.contains(&slot), "it may take its time");
    }
    let mut puts = 0;
    for _ in 0..TURNS_MAX {
        if world.is_answered(slots[0]) {
            break;
        }
        if puts < 100 {
            let put = world.put(&format!("put {puts}"), b"value");
            // Ordered, written, applied, whatever the background has to do; once a file grows.
            for _ in 0..4 {
                world.turn();
            }
            assert!(world.is_answered(put), "put {puts} waits for the defragmentation");
            puts += 1;
        }
        world.turn();
    }
    for slot in slots {
        let verdict = world.answers.remove(&slot);
        assert!(matches!(verdict, Some(Verdict::Defragmented)), "{verdict:?}");
    }
    let after = fs::metadata(world.directory.join("shard")).unwrap().len();
    assert!(after < before / 2, "{before} bytes became {after}");
    assert!(puts > 0);
    world.run();
    let view = world.core.engine.read_handle();
    assert_eq!(view.clone().pin().key_count(), 1 + puts);
    // A member that stops gives up who waits.
    let ask = Ask { defrags: vec![Slot(900_002)], ..Ask::default() };
    world.core.handle_ask(FRONTEND, &ask, world.now);
    world.core.stop();
    world.run();
    let verdict = world.answers.remove(&Slot(900_002));
    assert!(matches!(verdict, Some(Verdict::Unavailable(Unavailable::Stopped))), "{verdict:?}");
}

/// The member compacts by itself, and tells so.
#[test]
fn history_beyond_the_retention_is_compacted() {
    let mut world = World::new("retention");
    world.fill(0..200, b"value");
    let newest = world.core.engine.revision();
    let told: Vec<_> = std::iter::from_fn(|| world.core.poll_compaction_notice()).collect();
    assert_eq!(told, []);
    world.tick();
    for _ in 0..6 {
        world.now += Duration::from_secs(60);
        world.tick();
    }
    assert_eq!(world.core.engine.compacted(), Revision(newest.0 - RETAINED));
    let told: Vec<_> =
        std::iter::from_fn(|| world.core.poll_compaction_notice()).map(|told| told.stage).collect();
    assert!(matches!(told[..], [Stage::Started, Stage::Completed { .. }]), "{told:?}");
}

/// A cluster follows a downgrade and comes back, as etcd's leader has it.
#[test]
fn the_clusters_version_follows_a_downgrade() {
    let mut world = World::new("version");
    let version = |world: &World| world.core.engine.newest_view().cluster_version().unwrap();
    assert_eq!(version(&world).as_deref(), Some("3.7.0"));
    for (target, expected) in [(Some("3.6.0"), "3.6.0"), (None, "3.7.0")] {
        let asked = world.ask(|writer, frames| writer.push_downgrade(frames, target));
        world.run();
        assert!(matches!(world.take_outcome(asked), Ok(Outcome::Downgrade { .. })));
        for _ in 0..50 {
            world.tick();
        }
        assert_eq!(version(&world).as_deref(), Some(expected));
    }
}

/// As etcd answers a put that was admitted while there was room: it is stored, the client is told
/// that there is no space, and finds the alarm.
#[test]
fn what_finds_the_quota_used_up_is_stored_and_raises_the_alarm() {
    let mut world = World::new("quota");
    // A key and a value of three bytes cost 259.
    let quota = |world: &World, more: u64| {
        let size_bytes = world.core.engine.newest_view().size_bytes;
        Quota::from_flag(i64::try_from(size_bytes + more).unwrap())
    };
    let enough = quota(&world, 260);
    world.core.set_quota(enough);
    let put = world.put("k1", b"1");
    world.run();
    assert!(matches!(world.take_outcome(put), Ok(Outcome::Put { .. })));
    assert!(!world.core.poll_quota_exceeded());

    let too_little = quota(&world, 259);
    world.core.set_quota(too_little);
    let (small, large) = (world.put("k2", b""), world.put("k3", b"3"));
    let delete = world.delete_all();
    for _ in 0..TURNS_MAX {
        if world.core.engine.revision() == Revision(5) {
            break;
        }
        world.turn();
    }
    assert!(!world.is_answered(large), "the alarm does not stand yet");
    assert!(world.core.poll_quota_exceeded() && !world.core.poll_quota_exceeded());
    world.run();
    let view = world.core.engine.newest_view();
    assert_eq!(view.alarms().unwrap(), [Alarm { kind: AlarmKind::NO_SPACE, member: MEMBER }]);
    assert_eq!(view.revision, Revision(5), "all three have a revision");
    let refused = Ok(Outcome::Rejected(Rejection::NoSpace));
    assert_eq!(world.take_outcome(large), refused);
    assert!(matches!(world.take_outcome(small), Ok(Outcome::Put { .. })), "it was small enough");
    assert!(matches!(world.take_outcome(delete), Ok(Outcome::DeleteRange { deleted: 3, .. })));
    // From now on the alarm refuses, whatever the quota.
    world.core.set_quota(Quota::from_flag(-1));
    let put = world.put("k4", b"4");
    world.run();
    assert_eq!(world.take_outcome(put), refused);
    assert_eq!(world.core.engine.revision(), Revision(5));
}
