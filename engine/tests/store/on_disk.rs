//! The same engine over real files: growth, checkpoints and a restart through the file system.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::driver::{Driver, Frames, IDENTITY};
use crate::install::stream_of;
use engine::command::{CompactRef, DeleteRangeRef, PutRef};
use engine::engine::{Founding, Imported, InstallState};
use engine::page::PageBuffer;
use engine::page::disk::{Completion, DiskError, DiskOpKind, FileId};
use engine::{
    Engine, EngineConfig, EngineFiles, InstallRule, LogIndex, Member, MemberId, Progress,
    RangeQuery, RangeScan, Term,
};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringd-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn file(directory: &Path, name: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(directory.join(name)).unwrap()
}

fn files(directory: &Path) -> EngineFiles {
    EngineFiles::Disk {
        meta: file(directory, "meta"),
        shards: vec![file(directory, "0"), file(directory, "1")],
        directory: directory.to_owned(),
    }
}

fn pump(engine: &mut Engine, directory: &Path) {
    pump_on(engine, directory, true);
}

/// On a disk that may be full.
fn pump_on(engine: &mut Engine, directory: &Path, grows: bool) {
    while let Some(op) = engine.poll_disk_op() {
        let file = match op.file {
            FileId::Meta => file(directory, "meta"),
            FileId::Shard(shard) => file(directory, &shard.to_string()),
        };
        let (mut buffer, mut result) = (PageBuffer::default(), Ok(()));
        match op.kind {
            DiskOpKind::Allocate { .. } if !grows => {
                let cause = std::io::Error::from_raw_os_error(28);
                result = Err(DiskError { file: op.file, operation: "allocate", cause });
            }
            DiskOpKind::Write { offset, bytes, .. } => {
                file.write_all_at(&bytes, offset).unwrap();
                buffer = bytes;
            }
            DiskOpKind::Sync => file.sync_data().unwrap(),
            DiskOpKind::Allocate { size_bytes } | DiskOpKind::Shorten { size_bytes } => {
                file.set_len(size_bytes).unwrap();
            }
        }
        let completion = Completion { token: op.token, buffer, result };
        engine.handle_disk_completion(completion).unwrap();
    }
}

fn value_of(round: u32) -> Vec<u8> {
    vec![round.to_le_bytes()[0]; if round.is_multiple_of(5) { 100_000 } else { 200 }]
}

fn apply(engine: &mut Engine, directory: &Path, round: u32) {
    let value = value_of(round);
    let mut frames = Frames::new();
    for key in 0..200 {
        let key = format!("key/{:04}", (key * 7 + round) % 1000);
        frames = frames.put(&PutRef { key: key.as_bytes(), value: &value, ..PutRef::default() });
    }
    let batch = frames.into_batch();
    let (applied, _) = engine.applied();
    engine.begin_batch(LogIndex(applied.0 + 1), Term(1), &batch);
    let mut answers = Vec::new();
    while engine.apply_step(100, &mut answers).unwrap() == Progress::More {
        // A step that waits for a file to grow leaves the growth here.
        pump(engine, directory);
    }
    engine.publish();
    pump(engine, directory);
}

fn everything(engine: &Engine) -> Vec<engine::OwnedRecord> {
    let query = RangeQuery { key: b"\0", range_end: b"\0", ..RangeQuery::default() };
    let mut records = Vec::new();
    let mut handle = engine.read_handle();
    let mut scan = RangeScan::new(&query);
    let progress = scan.step(&handle.pin(), usize::MAX, &mut records).unwrap();
    assert_eq!(progress, Progress::Done);
    records
}

#[test]
fn a_store_on_files_grows_and_comes_back() {
    let directory = Directory::new("engine-on-disk");
    let path = directory.0.as_path();
    let config = EngineConfig { shards: 2, shard_size_bytes_max: 1 << 30 };
    let mut engine = Engine::create(files(path), config, IDENTITY).unwrap();
    pump(&mut engine, path);
    for round in 0..20 {
        apply(&mut engine, path, round);
    }
    assert!(engine.begin_checkpoint());
    pump(&mut engine, path);
    assert_eq!(engine.durable(), engine.applied());
    let expected = everything(&engine);
    assert_eq!(expected.len(), 1000);

    let reopened = Engine::open(files(path), config).unwrap();
    assert_eq!(reopened.identity(), IDENTITY);
    assert_eq!(reopened.applied(), engine.applied());
    assert_eq!(reopened.revision(), engine.revision());
    assert_eq!(everything(&reopened), expected);

    let other = EngineConfig { shards: 3, ..config };
    let refusal = Engine::open(files(path), other).err().expect("two files for three shards");
    assert!(refusal.to_string().contains("2 files for 3 shards"), "{refusal}");
    let refusal = Engine::create(files(path), config, IDENTITY).err().expect("a store is there");
    assert_eq!(refusal.to_string(), "there is a store already");
}

#[test]
fn memory_is_given_back_among_the_changes() {
    let directory = Directory::new("engine-copies");
    let path = directory.0.as_path();
    let config = EngineConfig { shards: 2, shard_size_bytes_max: 1 << 30 };
    let mut engine = Engine::create(files(path), config, IDENTITY).unwrap();
    // The same in memory, where no page is ever mapped anew.
    let mut model = Engine::create(EngineFiles::new_in_memory(), config, IDENTITY).unwrap();
    pump(&mut engine, path);
    for round in 0..30 {
        apply(&mut engine, path, round);
        apply(&mut model, path, round);
        if round % 6 == 3 {
            engine.drop_copies(u32::MAX, u32::MAX).unwrap();
            assert!(engine.begin_checkpoint());
            pump(&mut engine, path);
        }
        engine.drop_copies(3, 7).unwrap();
        assert!(everything(&engine) == everything(&model), "round {round}");
    }
    let reopened = Engine::open(files(path), config).unwrap();
    assert_eq!(reopened.durable(), engine.durable());
}

/// A real file becomes shorter, and so does what the process holds of it.
#[test]
fn a_defragmented_file_is_shorter() {
    let directory = Directory::new("engine-defrag");
    let path = directory.0.as_path();
    let config = EngineConfig { shards: 2, shard_size_bytes_max: 1 << 30 };
    let mut engine = Engine::create(files(path), config, IDENTITY).unwrap();
    pump(&mut engine, path);
    for round in 0..60 {
        apply(&mut engine, path, round);
    }
    let (applied, _) = engine.applied();
    let delete = DeleteRangeRef { key: b"key/0010", range_end: b"l", prev_kv: false };
    let batch = Frames::new().delete(&delete).into_batch();
    engine.begin_batch(LogIndex(applied.0 + 1), Term(1), &batch);
    let mut answers = Vec::new();
    while engine.apply_step(1000, &mut answers).unwrap() == Progress::More {
        pump(&mut engine, path);
    }
    let revision = engine.revision();
    let batch = Frames::new().compact(CompactRef { revision, physical: false }).into_batch();
    engine.publish();
    engine.begin_batch(LogIndex(applied.0 + 2), Term(1), &batch);
    while engine.apply_step(1000, &mut answers).unwrap() == Progress::More {
        pump(&mut engine, path);
    }
    engine.publish();
    while engine.background_step(100).unwrap() {
        pump(&mut engine, path);
    }
    let expected = everything(&engine);
    assert_eq!(expected.len(), 10);
    let length = || -> u64 {
        ["0", "1"].iter().map(|name| file(path, name).metadata().unwrap().len()).sum()
    };
    let before = length();
    engine.begin_defrag();
    for _ in 0..100_000 {
        if !engine.is_defragmenting() {
            break;
        }
        engine.drop_copies(100, 1000).unwrap();
        if engine.defrag_wants_checkpoint() {
            engine.begin_checkpoint();
        }
        pump(&mut engine, path);
        engine.defrag_step(20).unwrap();
        assert!(everything(&engine) == expected);
    }
    assert!(!engine.is_defragmenting());
    assert!(length() < before / 2, "{before} bytes became {}", length());
    assert_eq!(length(), engine.file_size_bytes());
    for round in 100..130 {
        apply(&mut engine, path, round);
    }
    let expected = everything(&engine);
    engine.drop_copies(u32::MAX, u32::MAX).unwrap();
    assert!(engine.begin_checkpoint());
    pump(&mut engine, path);
    let reopened = Engine::open(files(path), config).unwrap();
    assert!(everything(&reopened) == expected);
}

/// Found in review: more was wanted while a growth was under way, and its end was taken for that of
/// the larger one. Pages behind the end of the file were given out.
#[test]
fn a_file_is_as_long_as_the_growth_that_ended() {
    let directory = Directory::new("growth");
    let config = EngineConfig { shards: 2, shard_size_bytes_max: 1 << 30 };
    let mut engine = Engine::create(files(&directory.0), config, IDENTITY).unwrap();
    let grown = |engine: &mut Engine| {
        let op = engine.poll_disk_op()?;
        let (DiskOpKind::Allocate { size_bytes }, FileId::Shard(shard)) = (&op.kind, op.file)
        else {
            panic!("{op:?}");
        };
        Some((op.token, shard, *size_bytes))
    };
    let mut out = vec![grown(&mut engine).unwrap(), grown(&mut engine).unwrap()];
    let mut index = 0;
    assert!(engine.reserve_for(32 << 20).unwrap_err().may_grow);
    for _ in 0..100 {
        let Some((token, shard, size_bytes)) = out.pop() else { break };
        file(&directory.0, &shard.to_string()).set_len(size_bytes).unwrap();
        let completion = Completion { token, buffer: PageBuffer::default(), result: Ok(()) };
        engine.handle_disk_completion(completion).unwrap();
        index += 1;
        engine.apply_empty(LogIndex(index), Term(1));
        engine.publish();
        let told = engine.file_size_bytes();
        let there: u64 =
            ["0", "1"].iter().map(|name| file(&directory.0, name).metadata().unwrap().len()).sum();
        assert!(told <= there, "{told} bytes are used, the files have {there}");
        out.extend(std::iter::from_fn(|| grown(&mut engine)));
    }
    assert!(out.is_empty());
    let size_bytes = engine.file_size_bytes();
    assert!(size_bytes > 32 << 20, "{size_bytes}: what was wanted meanwhile was forgotten");
}

/// A new file has no pages yet: founding waits for them, as everything does.
#[test]
fn a_cluster_is_founded_once_its_files_have_room() {
    let directory = Directory::new("engine-founded");
    let path = directory.0.as_path();
    let config = EngineConfig { shards: 2, shard_size_bytes_max: 1 << 30 };
    let mut engine = Engine::create(files(path), config, IDENTITY).unwrap();
    let peer_urls = vec!["http://127.0.0.1:2380".to_owned()];
    let members = [Member { id: MemberId(7), peer_urls, ..Member::default() }];
    let founding =
        Founding { members: &members, conf_state: b"one", applied: LogIndex(1), term: Term(1) };
    assert_eq!(engine.found(&founding).unwrap(), Imported::Starved);
    assert!(!engine.newest_view().knows_members().unwrap());
    pump(&mut engine, path);
    assert_eq!(engine.found(&founding).unwrap(), Imported::Done);
    assert!(engine.begin_checkpoint());
    pump(&mut engine, path);
    let reopened = Engine::open(files(path), config).unwrap();
    assert_eq!(reopened.durable(), (LogIndex(1), Term(1)));
    assert_eq!(reopened.newest_view().cluster_members().unwrap(), members);
    assert_eq!(reopened.conf_state().unwrap().as_deref(), Some(&b"one"[..]));
}

#[test]
fn an_install_over_files_comes_back_and_a_full_disk_refuses_it() {
    let mut ours = Driver::new(1);
    let value = vec![3; 30_000];
    for number in 0..1500 {
        let key = format!("key/{number:04}");
        let put = PutRef { key: key.as_bytes(), value: &value, ..PutRef::default() };
        ours.apply(Frames::new().put(&put));
    }
    let view = ours.hold();
    let stream = stream_of(&view, 1000);
    let directory = Directory::new("engine-install");
    let path = directory.0.as_path();
    let config = EngineConfig { shards: 2, shard_size_bytes_max: 1 << 30 };
    let mut engine = Engine::create(files(path), config, IDENTITY).unwrap();
    pump(&mut engine, path);
    for round in 0..3 {
        apply(&mut engine, path, round);
    }
    let before = everything(&engine);
    for grows in [false, true] {
        engine.begin_install(view.applied, view.term, b"").unwrap();
        let (mut taken, mut refused) = (0, None);
        for _ in 0..100_000 {
            let step = engine.install_records(&stream[taken..], 100).unwrap();
            taken += step.taken_size_bytes;
            match step.state {
                InstallState::Complete => break,
                InstallState::More => {}
                InstallState::Refused(rule) => {
                    refused = Some(rule);
                    break;
                }
                InstallState::Waiting => {
                    engine.drop_copies(u32::MAX, u32::MAX).unwrap();
                    if engine.install_wants_checkpoint() {
                        assert!(engine.begin_checkpoint());
                    }
                    pump_on(&mut engine, path, grows);
                    engine.retry_growth();
                }
            }
            assert!(step.taken_size_bytes > 0 || step.state == InstallState::Waiting);
        }
        assert_eq!(refused, (!grows).then_some(InstallRule::NoSpace));
        assert!(everything(&engine) == before, "grows: {grows}");
        if !grows {
            engine.abort_install();
            engine.publish();
        }
    }
    assert_eq!(engine.finish_install().unwrap(), Ok(()));
    let installed = everything(&engine);
    assert!(installed.len() == 1500 && installed[7].value == value);
    engine.drop_copies(u32::MAX, u32::MAX).unwrap();
    assert!(engine.begin_checkpoint());
    pump(&mut engine, path);
    let reopened = Engine::open(files(path), config).unwrap();
    assert_eq!(reopened.durable(), (view.applied, view.term));
    assert!(everything(&reopened) == installed);
}
