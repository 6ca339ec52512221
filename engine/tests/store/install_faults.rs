//! Installs that go wrong: power that goes, streams that lie, disks that are full.

use engine::engine::{InstallState, InstallStep};
use engine::{EngineConfig, InstallRule, LogIndex, Term};

use crate::driver::{Driver, Frames};
use crate::install::{assert_same, everything, feed, install, stream_of};
use crate::interchange::random_batch;
use crate::membership::founded;
use crate::random::Random;
use engine::command::{CompactRef, LeaseGrantRef, PutRef};
use engine::{LeaseId, OwnedRecord, Revision};

/// A store of so many changes.
fn grown(shards: u16, seed: u64, batches: usize) -> Driver {
    let mut random = Random::new(seed);
    let mut driver = founded(shards);
    driver.apply(Frames::new().cluster_version("3.7.0"));
    driver.apply(Frames::new().grant(LeaseGrantRef { id: LeaseId(5), ttl_seconds: 60 }));
    for number in 0..batches {
        driver.apply(random_batch(&mut random));
        if number == batches / 2 {
            let revision = Revision(driver.engine.revision().0 - 3);
            driver.apply(Frames::new().compact(CompactRef { revision, physical: false }));
            driver.engine.background_step(10).unwrap();
        }
    }
    driver
}

fn all(driver: &Driver) -> Vec<OwnedRecord> {
    everything(&driver.hold(), 0).unwrap()
}

/// A member that falls behind, installs, and goes on, until its disk does no more. Answers whether
/// all of it was done.
fn live(driver: &mut Driver, stream: &[u8], entry: (LogIndex, Term)) -> bool {
    driver.engine.begin_install(entry.0, entry.1, b"voters").unwrap();
    let (mut taken, mut step_count) = (0, 0);
    loop {
        let InstallStep { taken_size_bytes, state } =
            driver.engine.install_records(&stream[taken..], 12).unwrap();
        taken += taken_size_bytes;
        match state {
            InstallState::Complete => break,
            InstallState::More => {}
            other => panic!("{other:?}"),
        }
        step_count += 1;
        // Checkpoints of the old store, while the new one is being built.
        if step_count % 3 == 0 && !checkpoint(driver) {
            return false;
        }
    }
    // One is under way when the install ends.
    driver.engine.set_local_reads(step_count % 2 == 0);
    driver.engine.publish();
    driver.engine.drop_copies(u32::MAX, u32::MAX).unwrap();
    driver.engine.begin_checkpoint();
    assert_eq!(driver.engine.finish_install().unwrap(), Ok(()));
    driver.pump();
    for _ in 0..2 {
        if !checkpoint(driver) {
            return false;
        }
        let put = PutRef { key: b"key/00", value: b"later", ..PutRef::default() };
        driver.apply(Frames::new().put(&put));
    }
    true
}

/// Whether the disk did all of a checkpoint.
fn checkpoint(driver: &mut Driver) -> bool {
    if driver.engine.is_checkpointing() {
        return false;
    }
    let local_reads = !driver.engine.newest_view().local_reads;
    driver.engine.set_local_reads(local_reads);
    driver.engine.publish();
    driver.engine.drop_copies(u32::MAX, u32::MAX).unwrap();
    assert!(driver.engine.begin_checkpoint());
    driver.pump();
    !driver.engine.is_checkpointing()
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_store_or_the_new_one() {
    for shards in [1, 2] {
        let ours = grown(2, 41, 220);
        let view = ours.hold();
        let stream = stream_of(&view, 1000);
        let entry = (view.applied, view.term);
        let old = || {
            let mut driver = grown(shards, 42, 60);
            driver.checkpoint();
            driver
        };
        let old_view = old().hold();
        let old_in_use = {
            let mut driver = old();
            driver.reopen();
            driver.hold().in_use_bytes
        };
        let mut whole = old();
        let start = whole.ops;
        assert!(live(&mut whole, &stream, entry));
        let ops = whole.ops - start;
        assert!(ops > 20, "{ops} operations");
        let (mut olds, mut news) = (0, 0);
        for ops_max in 0..ops {
            for fate in 0..2 {
                let what = format!("{shards} shards, operation {ops_max}, fate {fate}");
                let mut driver = old();
                driver.ops_left = ops_max;
                assert!(!live(&mut driver, &stream, entry) || driver.ops_left == 0, "{what}");
                driver.crash(&mut Random::new(1000 * fate + ops_max as u64));
                let found = driver.hold();
                if found.applied == old_view.applied {
                    olds += 1;
                    assert_eq!(driver.engine.installed().unwrap(), None, "{what}");
                    assert_same(&old_view, &found, false, &what);
                    // What was built takes no room in the file that is found.
                    let in_use = found.in_use_bytes;
                    assert!(in_use <= old_in_use + (4 << 12), "{what}: {in_use}, {old_in_use}");
                } else {
                    news += 1;
                    assert_eq!(driver.engine.installed().unwrap(), Some(entry), "{what}");
                    if found.applied == view.applied {
                        assert_same(&view, &found, false, &what);
                    }
                }
                drop(found);
                go_on(&mut driver, &view, &what);
            }
        }
        assert!(olds > 10 && news > 3, "{olds} and {news}");
    }
}

/// What was found is good to go on with, and nothing of what was lost takes room.
fn go_on(driver: &mut Driver, view: &engine::View, what: &str) {
    let mut random = Random::new(3);
    for _ in 0..5 {
        driver.apply(random_batch(&mut random));
    }
    driver.checkpoint();
    let expected = all(driver);
    driver.reopen();
    assert!(all(driver) == expected, "{what}");
    if driver.engine.applied().0 < view.applied {
        install(driver, view, &mut random);
        driver.checkpoint();
        driver.reopen();
        assert_same(view, &driver.hold(), false, what);
    }
    let in_use = driver.hold().in_use_bytes;
    let mut fresh = Driver::new(driver.shard_count());
    install(&mut fresh, view, &mut random);
    fresh.checkpoint();
    fresh.reopen();
    let needed = fresh.hold().in_use_bytes;
    assert!(in_use <= needed + needed / 2 + (16 << 12), "{what}: {in_use} bytes for {needed}");
}

/// Where the records of a stream begin, and its end.
fn bounds(stream: &[u8]) -> Vec<usize> {
    let mut bounds = vec![0];
    while let Some(at) = bounds.last().copied().filter(|at| *at < stream.len()) {
        let size = engine::transfer::record_size_bytes(&stream[at..]).unwrap().unwrap();
        bounds.push(at + size);
    }
    bounds
}

/// A stream that is not the one that was sent.
fn damaged(stream: &[u8], bounds: &[usize], random: &mut Random) -> Vec<u8> {
    let mut bytes = stream.to_vec();
    let record = |random: &mut Random| {
        let place = random.below(bounds.len() - 1);
        bounds[place]..bounds[place + 1]
    };
    match random.below(6) {
        0 => {
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
        }
        1 => {
            // In the numbers of a record, which are what can lie.
            let record = record(random);
            let at = record.start + random.below(record.len().min(60));
            bytes[at] ^= 1 << random.below(8);
        }
        2 => {
            let (from, to) = (record(random), record(random));
            let moved = stream[from].to_vec();
            bytes.splice(to.start..to.start, moved);
        }
        3 => drop(bytes.drain(record(random))),
        4 => bytes.truncate(random.below(stream.len())),
        _ => {
            let (from, to) = (record(random), record(random));
            bytes = [&stream[..from.start], &stream[to]].concat();
            let rest = random.below(stream.len());
            bytes.extend_from_slice(&stream[rest..]);
        }
    }
    bytes
}

#[test]
fn a_stream_that_lies_is_refused_and_changes_nothing() {
    let ours = grown(1, 51, 120);
    let view = ours.hold();
    let stream = stream_of(&view, 1000);
    let bounds = bounds(&stream);
    let mut rules = std::collections::BTreeMap::new();
    for shards in [1, 2] {
        let mut theirs = grown(shards, 52, 30);
        theirs.checkpoint();
        let held = theirs.hold();
        for seed in 0..400 {
            let mut random = Random::new(seed);
            let bytes = damaged(&stream, &bounds, &mut random);
            theirs.engine.begin_install(view.applied, view.term, b"").unwrap();
            match feed(&mut theirs, &bytes, &mut random) {
                // What was damaged stood behind the end, or nothing was.
                Ok(()) => assert!(bytes.starts_with(&stream), "seed {seed}"),
                Err(rule) => *rules.entry(format!("{rule:?}")).or_insert(0) += 1,
            }
            theirs.engine.abort_install();
        }
        assert_same(&held, &theirs.hold(), true, "refused");
        drop(held);
        theirs.engine.publish();
        theirs.checkpoint();
        install(&mut theirs, &view, &mut Random::new(1));
        assert_same(&view, &theirs.hold(), true, "installed at last");
    }
    for rule in ["Order", "Checksum", "RecordBody", "Unfinished", "Lease"] {
        assert!(rules.contains_key(rule), "{rule} was never the reason: {rules:?}");
    }
    assert!(rules.keys().any(|rule| rule.starts_with("Change(")), "{rules:?}");
}

#[test]
fn what_cannot_be_installed_there_is_refused_at_once() {
    let mut theirs = grown(1, 61, 10);
    let (index, term) = theirs.engine.applied();
    let next = LogIndex(index.0 + 1);
    let refused = theirs.engine.begin_install(index, term, b"");
    assert_eq!(refused, Err(InstallRule::Position));
    assert_eq!(theirs.engine.begin_install(next, Term(0), b""), Err(InstallRule::Position));
    let long = vec![0; 1 << 20];
    assert_eq!(theirs.engine.begin_install(next, term, &long), Err(InstallRule::ConfState));
    theirs.engine.abort_install();
    // Another entry than the stream's, and one that is overtaken meanwhile.
    let ours = grown(1, 62, 30);
    let view = ours.hold();
    let stream = stream_of(&view, 1000);
    theirs.engine.begin_install(LogIndex(view.applied.0 + 1), view.term, b"").unwrap();
    let refused = feed(&mut theirs, &stream, &mut Random::new(1));
    assert_eq!(refused, Err(InstallRule::Entry));
    theirs.engine.abort_install();
    theirs.engine.begin_install(view.applied, view.term, b"").unwrap();
    feed(&mut theirs, &stream, &mut Random::new(1)).unwrap();
    theirs.engine.apply_empty(view.applied, view.term);
    theirs.engine.publish();
    assert_eq!(theirs.engine.finish_install().unwrap(), Err(InstallRule::Position));
    theirs.engine.abort_install();
}

#[test]
fn a_file_at_its_bound_is_a_refusal() {
    let mut ours = Driver::new(1);
    let value = vec![1; 20_000];
    for number in 0..1000 {
        let key = format!("key/{number}");
        let put = PutRef { key: key.as_bytes(), value: &value, ..PutRef::default() };
        ours.apply(Frames::new().put(&put));
    }
    let view = ours.hold();
    let stream = stream_of(&view, 1000);
    let config = EngineConfig { shards: 1, shard_size_bytes_max: 16 << 20 };
    let mut theirs = Driver::with_config(config);
    theirs.apply(Frames::new().put(&PutRef { key: b"k", ..PutRef::default() }));
    theirs.checkpoint();
    let expected = all(&theirs);
    for round in 0..3 {
        theirs.engine.begin_install(view.applied, view.term, b"").unwrap();
        let refused = feed(&mut theirs, &stream, &mut Random::new(round));
        assert_eq!(refused, Err(InstallRule::NoSpace), "round {round}");
        assert_eq!(theirs.engine.finish_install().unwrap(), Err(InstallRule::NoSpace));
        theirs.engine.abort_install();
        theirs.engine.publish();
        // The room is there again, for as much as there was before.
        let large = vec![2; 100_000];
        let put = PutRef { key: b"large", value: &large, ..PutRef::default() };
        theirs.apply(Frames::new().put(&put));
        assert_eq!(all(&theirs)[0], expected[0]);
        theirs.checkpoint();
        theirs.reopen();
    }
}
