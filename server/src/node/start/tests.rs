//! Starts on disks in memory: what a new store begins with, and what is replayed.

use std::cell::RefCell;
use std::rc::Rc;

use engine::command::{BatchHeader, MemberAddRef, PutRef};
use engine::ids::ClusterId;
use engine::page::PageBuffer;
use engine::page::disk::{Completion, DiskOp, DiskOpKind, FileId};
use engine::{Batch, EngineConfig, EngineFiles, FrameWriter, MembershipChange};
use raft::eraftpb::EntryType;
use wal::RecordKind;
use wal::sim::SimDisk;

use super::*;
use crate::raft::Work;
use crate::raft::change::change_of;
use crate::raft::record::{KIND_ENTRY, encode_entry_head};

const OWN: MemberId = MemberId(2);

/// Files that keep what is written to them.
#[derive(Clone, Default)]
struct Files(Rc<RefCell<[Vec<u8>; 2]>>);

#[derive(Clone)]
struct Log(Rc<RefCell<SimDisk>>);

struct Memory {
    files: Files,
    log: Log,
}

impl Memory {
    fn new() -> Self {
        Self { files: Files::default(), log: Log(Rc::new(RefCell::new(SimDisk::new(1)))) }
    }
}

impl StoreDoor for Files {
    fn perform(&mut self, op: DiskOp) -> Completion {
        let file = &mut self.0.borrow_mut()[usize::from(op.file != FileId::Meta)];
        let mut buffer = PageBuffer::default();
        match op.kind {
            DiskOpKind::Write { offset, bytes, .. } => {
                let offset = usize::try_from(offset).unwrap();
                file.resize(file.len().max(offset + bytes.len()), 0);
                file[offset..offset + bytes.len()].copy_from_slice(&bytes);
                buffer = bytes;
            }
            DiskOpKind::Sync => {}
            DiskOpKind::Shorten { size_bytes } => {
                file.truncate(usize::try_from(size_bytes).unwrap());
            }
            DiskOpKind::Allocate { size_bytes } => {
                file.resize(file.len().max(usize::try_from(size_bytes).unwrap()), 0);
            }
        }
        Completion { token: op.token, buffer, result: Ok(()) }
    }
}

impl LogDoor for Log {
    fn perform(&mut self, op: wal::DiskOp) -> Result<wal::Completion, wal::DiskError> {
        self.0.borrow_mut().perform(op)
    }
}

impl Disks for Memory {
    type Log = Log;
    type Store = Files;

    fn open_store(&mut self) -> Result<(EngineFiles, Files, bool), Failure> {
        let [meta, shard] = self.files.0.borrow().clone();
        let is_empty = meta.is_empty();
        Ok((EngineFiles::Memory { meta, shards: vec![shard] }, self.files.clone(), is_empty))
    }

    fn sync_store_directory(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn handle_opened(&mut self, _engine: &Engine) -> Result<(), Failure> {
        Ok(())
    }

    fn open_log(&mut self) -> Log {
        self.log.clone()
    }

    fn store_config(&self) -> EngineConfig {
        EngineConfig { shards: 1, shard_size_bytes_max: 64 << 20 }
    }

    fn log_config(&self, identity: Vec<u8>) -> wal::Config {
        wal::Config { segment_size_bytes: 1 << 20, ..wal::Config::new(identity) }
    }
}

fn config(is_new: bool, origin: Origin) -> StartConfig {
    StartConfig {
        store_dir: PathBuf::from("store"),
        log_dir: PathBuf::from("log"),
        identity: Identity { cluster: ClusterId(1), member: OWN },
        is_new,
        origin,
        direct: false,
        shards: 1,
        election_ticks: 10,
        pre_vote: true,
        force_new_cluster: false,
        request_timeout: Duration::from_secs(7),
        snapshot_count: 100,
        lessor: LessorConfig {
            ttl_min_seconds: 2,
            extension: Duration::ZERO,
            checkpoint_interval: None,
        },
        retention: None,
        defrag_from_bytes: None,
        boot_nonce: 7,
    }
}

fn founders(ids: &[u64]) -> Origin {
    let member = |&id: &u64| Member {
        id: MemberId(id),
        peer_urls: vec![format!("http://m{id}:2380")],
        ..Member::default()
    };
    Origin::Founds(ids.iter().map(member).collect())
}

fn start_in(memory: &mut Memory, is_new: bool, origin: Origin) -> Started<Log, Files> {
    start_on(&config(is_new, origin), memory).map_err(|failure| failure.to_string()).unwrap()
}

fn member_ids(engine: &Engine) -> Vec<u64> {
    let members = engine.newest_view().cluster_members().unwrap();
    members.iter().map(|member| member.id.0).collect()
}

fn entry(index: u64) -> Entry {
    Entry { index, term: 2, ..Entry::default() }
}

#[test]
fn founders_begin_behind_an_entry_for_each_and_know_each_other() {
    for ids in [&[2][..], &[1, 2, 9], &[1, 2, 3, 4, 5]] {
        let mut memory = Memory::new();
        for is_new in [true, false, false] {
            let started = start_in(&mut memory, is_new, founders(ids));
            let stages = &started.stages;
            assert_eq!(stages.engine.applied(), (LogIndex(ids.len() as u64), Term(1)));
            assert_eq!(member_ids(&stages.engine), ids);
            assert_eq!(stages.consensus.conf_state().voters, ids);
            assert_eq!(stages.consensus.committed(), LogIndex(ids.len() as u64));
            assert_eq!(stages.consensus.term(), Term(1));
        }
    }
}

#[test]
fn who_joins_begins_with_nothing_and_waits_to_be_told() {
    let mut memory = Memory::new();
    for is_new in [true, false] {
        let mut started = start_in(&mut memory, is_new, Origin::Joins);
        assert_eq!(started.stages.engine.applied(), (LogIndex(0), Term(0)));
        assert!(member_ids(&started.stages.engine).is_empty());
        let consensus = &mut started.stages.consensus;
        assert!(consensus.conf_state().voters.is_empty());
        for _ in 0..100 {
            consensus.handle_tick();
        }
        assert!(consensus.poll_work().is_none(), "nobody stands for an election");
    }
}

#[test]
fn what_a_start_made_without_members_stays_as_it_was() {
    let mut memory = Memory::new();
    for is_new in [true, false] {
        let started = start_in(&mut memory, is_new, Origin::Founds(Vec::new()));
        let engine = &started.stages.engine;
        assert_eq!(engine.applied(), (LogIndex(1), Term(1)));
        assert!(!engine.newest_view().knows_members().unwrap());
        assert_eq!(started.stages.consensus.conf_state().voters, [OWN.0]);
    }
}

/// A leader alone, whose log is written by hand.
struct Leader {
    started: Started<Log, Files>,
    written: Vec<Entry>,
}

impl Leader {
    fn new(memory: &mut Memory) -> Self {
        let mut started = start_in(memory, true, founders(&[OWN.0]));
        started.stages.consensus.campaign();
        let mut leader = Self { started, written: Vec::new() };
        leader.write();
        leader
    }

    fn batch(&self, push: impl FnOnce(&mut FrameWriter, &mut Vec<u8>)) -> Vec<u8> {
        let header = BatchHeader { member: OWN, boot_nonce: 7, sequence_first: 1, frame_count: 1 };
        let mut bytes = header.to_bytes().to_vec();
        push(&mut FrameWriter::new(), &mut bytes);
        bytes
    }

    fn put(&mut self, key: &str) {
        let put = PutRef { key: key.as_bytes(), value: b"value", ..PutRef::default() };
        let bytes = self.batch(|writer, frames| writer.push_put(frames, &put));
        self.started.stages.consensus.propose(bytes).unwrap();
        self.write();
    }

    fn change(&mut self, push: impl FnOnce(&mut FrameWriter, &mut Vec<u8>)) {
        let bytes = self.batch(push);
        let change = Batch::validate(bytes.clone()).unwrap().membership_change().unwrap();
        self.started.stages.consensus.propose_membership(change, bytes).unwrap();
        self.write();
    }

    fn add(&mut self, id: u64, is_learner: bool, peer_url: &str) {
        let peer_urls = [peer_url.to_owned()];
        let learners_max = 1;
        let add =
            MemberAddRef { id: MemberId(id), peer_urls: &peer_urls, is_learner, learners_max };
        self.change(|writer, frames| writer.push_member_add(frames, &add));
    }

    /// Writes raft's works to the log, in which each is committed.
    fn write(&mut self) {
        let Started { stages, log_disk, .. } = &mut self.started;
        while let Some(work) = stages.consensus.poll_work() {
            let Work { number, entries, hard_state, committed, .. } = work;
            for entry in &entries {
                let head = encode_entry_head(entry);
                stages.wal.append(RecordKind::owned(KIND_ENTRY), &[&head, &entry.data]).unwrap();
            }
            if let Some(state) = hard_state {
                stages.wal.append_state(&encode_state(&state)).unwrap();
            }
            stages.wal.flush();
            while let Some((id, op)) = stages.wal.poll_op() {
                stages.wal.handle_completion(id, log_disk.perform(op)).unwrap();
            }
            stages.consensus.handle_persisted(number);
            if let Some(last) = committed.last() {
                stages.consensus.handle_applied(LogIndex(last.index));
            }
            self.written.extend(entries);
        }
    }
}

#[test]
fn changes_of_members_are_replayed_with_what_they_do_to_raft() {
    let mut memory = Memory::new();
    let mut leader = Leader::new(&mut memory);
    leader.put("before");
    leader.add(7, true, "http://m7:2380");
    // Refused by the store, so raft's configuration stays.
    leader.add(8, true, "http://m8:2380");
    leader.change(|writer, frames| writer.push_member_promote(frames, MemberId(99)));
    leader.put("behind");
    let last = leader.written.last().unwrap().index;
    let changes = leader.written.iter();
    let changes =
        changes.filter(|entry| entry.get_entry_type() == EntryType::EntryConfChangeV2).count();
    assert_eq!(changes, 3);
    drop(leader);
    for _ in 0..2 {
        let mut started = start_in(&mut memory, false, Origin::Joins);
        // The last entry's commit may not be in the log.
        apply_rest(&mut started).unwrap();
        let stages = &started.stages;
        assert_eq!(stages.engine.applied().0, LogIndex(last));
        assert_eq!(member_ids(&stages.engine), [OWN.0, 7]);
        let conf_state = decode_conf_state(&stages.engine.conf_state().unwrap().unwrap()).unwrap();
        assert_eq!((&conf_state.voters[..], &conf_state.learners[..]), (&[OWN.0][..], &[7][..]));
        // A checkpoint, and what is replayed next time begins behind it.
        checkpoint(&mut started.stages.engine, &mut started.engine_disk).unwrap();
    }
}

#[test]
fn what_others_have_to_agree_to_is_left_to_raft() {
    let mut memory = Memory::new();
    let mut leader = Leader::new(&mut memory);
    leader.add(7, false, "http://m7:2380");
    // As of the log, the other one votes from here on; alone this member commits nothing more.
    let state = leader.started.stages.consensus.conf_state().clone();
    assert_eq!(state.voters, [OWN.0], "a change counts where it is applied, and it was not");
    drop(leader);
    let mut started = start_in(&mut memory, false, Origin::Joins);
    apply_rest(&mut started).unwrap();
    assert!(started.unapplied.is_empty());
    assert_eq!(member_ids(&started.stages.engine), [OWN.0, 7]);
}

/// The others are gone for good, what they may have agreed to stays, and the next start needs no
/// flag to find it so.
#[test]
fn a_member_can_be_made_to_go_on_alone() {
    let mut memory = Memory::new();
    let mut started = start_in(&mut memory, true, founders(&[1, 2, 9]));
    let stages = &mut started.stages;
    for index in 4..7 {
        let head = encode_entry_head(&entry(index));
        stages.wal.append(RecordKind::owned(KIND_ENTRY), &[&head, &[]]).unwrap();
    }
    let state = HardState { term: 2, vote: 9, commit: 4, ..HardState::default() };
    stages.wal.append_state(&encode_state(&state)).unwrap();
    write_through(&mut stages.wal, &mut started.log_disk).unwrap();
    drop(started);
    for is_forced in [true, true, false] {
        let config =
            StartConfig { force_new_cluster: is_forced, ..config(false, founders(&[1, 2, 9])) };
        let mut started =
            start_on(&config, &mut memory).map_err(|failure| failure.to_string()).unwrap();
        let stages = &mut started.stages;
        assert_eq!(stages.engine.applied(), (LogIndex(8), Term(2)));
        assert_eq!(member_ids(&stages.engine), [OWN.0]);
        let removed = stages.engine.newest_view().removed_members().unwrap();
        assert_eq!(removed, [MemberId(1), MemberId(9)]);
        assert_eq!(stages.consensus.conf_state().voters, [OWN.0]);
        assert_eq!(stages.consensus.committed(), LogIndex(8));
        assert!(started.unapplied.is_empty());
        stages.consensus.campaign();
        while let Some(work) = stages.consensus.poll_work() {
            stages.consensus.handle_persisted(work.number);
        }
        assert!(stages.consensus.is_leader(), "it needs nobody's vote");
    }
}

#[test]
fn who_belongs_to_no_cluster_makes_none() {
    let mut memory = Memory::new();
    drop(start_in(&mut memory, true, Origin::Joins));
    let config = StartConfig { force_new_cluster: true, ..config(false, Origin::Joins) };
    let failure = start_on(&config, &mut memory).err().unwrap().to_string();
    assert!(failure.contains("nothing to make a new cluster of"), "{failure}");
}

/// What a member that is alone has acknowledged may stand behind the last commit it knows of.
#[test]
fn a_member_that_is_alone_loses_nothing_by_force() {
    let mut memory = Memory::new();
    let mut leader = Leader::new(&mut memory);
    leader.put("key");
    let last = leader.written.last().unwrap().index;
    drop(leader);
    let config = StartConfig { force_new_cluster: true, ..config(false, Origin::Joins) };
    let mut started =
        start_on(&config, &mut memory).map_err(|failure| failure.to_string()).unwrap();
    apply_rest(&mut started).unwrap();
    assert_eq!(started.stages.engine.applied().0, LogIndex(last));
}

#[test]
fn an_entry_whose_change_is_not_its_batchs_stops_the_start() {
    let mut memory = Memory::new();
    let mut leader = Leader::new(&mut memory);
    let bytes = leader.batch(|writer, frames| writer.push_member_remove(frames, MemberId(5)));
    let wrong = change_of(MembershipChange::Remove(MemberId(6)), bytes);
    let mut changed = entry(3);
    changed.set_entry_type(EntryType::EntryConfChangeV2);
    changed.data = b"\xff\xff".to_vec().into();
    drop(wrong);
    let stages = &mut leader.started.stages;
    let head = encode_entry_head(&changed);
    stages.wal.append(RecordKind::owned(KIND_ENTRY), &[&head, &changed.data]).unwrap();
    let state = HardState { term: 2, vote: OWN.0, commit: 3, ..HardState::default() };
    stages.wal.append_state(&encode_state(&state)).unwrap();
    stages.wal.flush();
    while let Some((id, op)) = stages.wal.poll_op() {
        let result = leader.started.log_disk.perform(op);
        stages.wal.handle_completion(id, result).unwrap();
    }
    drop(leader);
    let failure = start_on(&config(false, Origin::Joins), &mut memory).err().unwrap().to_string();
    assert!(failure.contains("log entry 3 cannot be applied"), "{failure}");
}

fn replay(remade: Option<&str>) -> (Replay, Engine, Files) {
    let mut memory = Memory::new();
    let started = start_in(&mut memory, true, founders(&[OWN.0]));
    let replay = Replay::new(&started.stages.engine, remade.map(str::to_owned)).unwrap();
    (replay, started.stages.engine, started.engine_disk)
}

#[test]
fn a_store_is_made_anew_only_from_the_first_entry_on() {
    for first in [3, 500] {
        let (mut replay, ..) = replay(Some("a torn block"));
        replay.handle_entry(entry(first), Lsn(0)).unwrap();
        let config = config(false, founders(&[OWN.0]));
        let error = replay.finish(&config).unwrap_err().to_string();
        let words = ["only checkpoint", "a torn block", "first entry"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let (mut replay, mut engine, mut disk) = replay(Some("a torn block"));
    for index in 2..10 {
        replay.handle_entry(entry(index), Lsn(index)).unwrap();
    }
    // A gap further on is damage of another kind.
    let error = replay.handle_entry(entry(11), Lsn(11)).unwrap_err().to_string();
    assert!(error.contains("entry 11 behind entry 9"), "{error}");
    replay.apply_through(&mut engine, &mut disk, LogIndex(9)).unwrap();
    assert_eq!(engine.applied().0, LogIndex(9));
}

/// The store has applied entries 1 to 9; the log then has these, and raft is left with those.
fn left_for_raft(entries: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, String> {
    let (mut replay, mut engine, mut disk) = replay(None);
    for index in 2..10 {
        replay.handle_entry(entry(index), Lsn(index)).unwrap();
    }
    replay.apply_through(&mut engine, &mut disk, LogIndex(9)).unwrap();
    let mut replay = Replay::new(&engine, None).unwrap();
    for (place, &(index, term)) in entries.iter().enumerate() {
        let entry = Entry { index, term, ..Entry::default() };
        let taken = replay.handle_entry(entry, Lsn(100 + place as u64));
        taken.map_err(|error| error.to_string())?;
    }
    let must_reset = replay.finish(&config(false, founders(&[OWN.0])));
    assert_eq!(must_reset.map_err(|error| error.to_string())?, None);
    Ok(replay.pending.iter().map(|entry| (entry.index, entry.term)).collect())
}

#[test]
fn the_tail_of_an_earlier_leader_is_void_once_the_log_goes_on_before_it() {
    // All that took its place is applied: raft would take the tail for what is newest.
    assert_eq!(left_for_raft(&[(8, 2), (9, 2), (10, 2), (9, 3)]).unwrap(), []);
    assert_eq!(left_for_raft(&[(9, 2), (10, 2), (11, 2), (10, 3)]).unwrap(), [(10, 3)]);
}

/// Seed 6285: the entries before it went with an earlier segment.
#[test]
fn a_log_may_begin_inside_the_tail_of_an_earlier_leader() {
    assert_eq!(left_for_raft(&[(12, 2), (13, 2), (10, 3)]).unwrap(), [(10, 3)]);
    assert_eq!(left_for_raft(&[(14, 2), (12, 3), (13, 3), (9, 4), (10, 4)]).unwrap(), [(10, 4)]);
    let gaps: [&[(u64, u64)]; 3] = [
        // Nothing takes its place.
        &[(12, 2), (13, 2)],
        // Here entries are missing.
        &[(9, 2), (12, 2), (10, 3)],
        &[(12, 2), (10, 3), (12, 3)],
    ];
    for (entries, place) in
        gaps.into_iter().zip(["12 behind entry 9", "12 behind entry 9", "12 behind entry 10"])
    {
        let error = left_for_raft(entries).unwrap_err();
        assert!(error.contains(place), "{entries:?}: {error}");
    }
}

#[test]
fn only_who_founded_alone_makes_a_store_anew() {
    let torn = |origin, is_new| {
        let mut memory = Memory::new();
        drop(start_in(&mut memory, true, founders(&[1, 2, 3])));
        memory.files.0.borrow_mut()[0][100] ^= 1;
        start_on(&config(is_new, origin), &mut memory).err().unwrap().to_string()
    };
    let told = torn(founders(&[1, 2, 3]), false);
    assert!(told.contains("add it under a new id"), "{told}");
    assert!(torn(Origin::Joins, false).contains("add it under a new id"));
}

/// The store was installed at entry 100 of term 5; the log has these.
fn must_reset(entries: &[(u64, u64)], reset: Option<(u64, u64)>) -> Option<(LogIndex, Term)> {
    let (mut replay, ..) = replay(None);
    replay.install_for_test((LogIndex(100), Term(5)));
    for (place, &(index, term)) in entries.iter().enumerate() {
        let entry = Entry { index, term, ..Entry::default() };
        replay.handle_entry(entry, Lsn(place as u64)).unwrap();
    }
    if let Some((index, term)) = reset {
        replay.handle_reset((LogIndex(index), Term(term)), Lsn(99)).unwrap();
    }
    replay.finish(&config(false, Origin::Joins)).unwrap()
}

#[test]
fn a_log_that_was_not_told_of_an_install_begins_anew() {
    let anew = Some((LogIndex(100), Term(5)));
    assert_eq!(must_reset(&[], None), anew);
    assert_eq!(must_reset(&[(49, 2), (50, 2)], None), anew);
    // The tail of another history reaches further than the store.
    let tail: Vec<(u64, u64)> = (90..=110).map(|index| (index, 3)).collect();
    assert_eq!(must_reset(&tail, None), anew);
    assert_eq!(must_reset(&tail, Some((40, 2))), anew, "an earlier one");
    // One that was told, that goes on from there, or that leads there itself.
    assert_eq!(must_reset(&tail, Some((100, 5))), None);
    assert_eq!(must_reset(&[(101, 5), (102, 6)], None), None);
    assert_eq!(must_reset(&[(99, 4), (100, 5), (101, 5)], None), None);
    // It once led there, and was overwritten.
    assert_eq!(must_reset(&[(99, 4), (100, 5), (100, 4), (101, 4)], None), anew);
}
