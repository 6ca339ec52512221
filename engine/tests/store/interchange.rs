//! A store goes out as a file of etcd's and comes back as another store with the same history.

use std::collections::BTreeMap;

use engine::backup::{BackupFacts, BackupScan};
use engine::bbolt::backup::check_digest;
use engine::bbolt::schema::{self, Member, RevisionKey};
use engine::bbolt::{Reader, check::check};
use engine::command::{
    AlarmAction, AlarmRef, CompactRef, DeleteRangeRef, LeaseGrantRef, OperationRef, PutRef, TxnRef,
};
use engine::engine::{ImportRule, Imported, ImportedChange};
use engine::lease::Lease;
use engine::{
    Alarm, AlarmKind, Change, KeyValueHashScan, LeaseId, LogIndex, MemberId, Progress, ReadError,
    Record, Revision, Term,
};

use crate::driver::{Driver, Frames};
use crate::random::Random;

/// The file of a backup, made in steps of so many keys.
pub fn backup(driver: &Driver, budget: usize) -> Vec<u8> {
    let member = Member { id: MemberId(0x3e), name: "m".to_owned(), ..Member::default() };
    let mut scan = BackupScan::new(BackupFacts { members: vec![member] });
    let view = driver.hold();
    let mut file = Vec::new();
    loop {
        let mut budget = budget;
        let progress = scan.step(&view, &mut budget).unwrap();
        while let Some(bytes) = scan.poll_bytes() {
            file.extend_from_slice(&bytes);
        }
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!(scan.file_size_bytes().unwrap() + 32, file.len() as u64);
    check_digest(&&file[..]).unwrap();
    check(&Reader::open(&file[..]).unwrap()).unwrap();
    file
}

fn import(file: &[u8], shards: u16) -> Driver {
    let mut driver = Driver::new(shards);
    let reader = Reader::open(file).unwrap();
    let walk = |name: &[u8]| reader.walk(&reader.bucket(name).unwrap().unwrap());
    let engine = &mut driver.engine;
    let mut leases = walk(schema::LEASE);
    while let Some((key, value)) = leases.next_pair().unwrap() {
        let lease = schema::Lease::from_pair(key, value).unwrap();
        let lease = Lease {
            id: lease.id,
            ttl_seconds: lease.ttl_seconds,
            remaining_seconds: lease.remaining_ttl_seconds,
        };
        assert_eq!(engine.import_lease(lease).unwrap(), Imported::Done);
    }
    let mut changes = walk(schema::KEY);
    while let Some((key, value)) = changes.next_pair().unwrap() {
        let revision = RevisionKey::from_bytes(key).unwrap();
        let record = schema::record_from(key, value).unwrap();
        let imported = match revision.is_tombstone {
            true => ImportedChange::Delete(record.key),
            false => ImportedChange::Put(record),
        };
        let done = engine.import_change(revision.change, &imported).unwrap();
        assert_eq!(done, Imported::Done, "{revision:?}");
    }
    let mut alarms = walk(schema::ALARM);
    while let Some((key, value)) = alarms.next_pair().unwrap() {
        let alarm = schema::Alarm::from_pair(key, value).unwrap();
        let kind = match alarm.kind {
            schema::AlarmKind::NoSpace => AlarmKind::NO_SPACE,
            schema::AlarmKind::Corrupt => AlarmKind::CORRUPT,
        };
        let alarm = Alarm { kind, member: alarm.member };
        assert_eq!(engine.import_alarm(alarm).unwrap(), Imported::Done);
    }
    let mut cluster = schema::Cluster::default();
    let mut pairs = walk(schema::CLUSTER);
    while let Some((key, value)) = pairs.next_pair().unwrap() {
        cluster.read_pair(key, value).unwrap();
    }
    if let Some(version) = cluster.version {
        assert_eq!(engine.import_cluster_version(&version).unwrap(), Imported::Done);
    }
    if let Some(downgrade) = cluster.downgrade {
        let done = engine.import_downgrade(&downgrade.target_version).unwrap();
        assert_eq!((done, downgrade.enabled), (Imported::Done, true));
    }
    let mut meta = schema::Meta::default();
    let mut pairs = walk(schema::META);
    while let Some((key, value)) = pairs.next_pair().unwrap() {
        meta.read_pair(key, value).unwrap();
    }
    if let (Some(target), Some(finished)) = (meta.compact_scheduled, meta.compact_finished) {
        assert_eq!(engine.import_compaction(target, finished).unwrap(), Imported::Done);
    }
    engine.finish_import(meta.consistent_index.unwrap(), meta.term.unwrap());
    driver
}

fn hashes(driver: &mut Driver) -> BTreeMap<i64, (u32, i64)> {
    let last = driver.engine.revision().0;
    let mut hashes = BTreeMap::new();
    for revision in (1..=last).filter(|revision| revision % 9 == 0 || *revision == last) {
        let mut scan = KeyValueHashScan::new(Revision(revision));
        let view = driver.handle.pin();
        match scan.step(&view, usize::MAX) {
            Ok(progress) => assert_eq!(progress, Progress::Done),
            Err(ReadError::Rejection(_)) => continue,
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
        let hash = scan.result().unwrap();
        // A compaction's own hash is remembered by who made it, and by nobody after a restart.
        if hash.compacted == view.compacted {
            hashes.insert(revision, (hash.hash, hash.compacted.0));
        }
    }
    hashes
}

/// Both hold the same, and say so in every way.
fn assert_same(ours: &mut Driver, theirs: &mut Driver, what: &str) {
    assert_eq!(ours.engine.revision(), theirs.engine.revision(), "{what}");
    let (ours, theirs) = (hashes(ours), hashes(theirs));
    for (revision, hash) in &ours {
        let other = theirs.get(revision);
        assert!(other.is_none_or(|other| other == hash), "{what}, revision {revision}");
    }
    assert!(ours.keys().any(|revision| theirs.contains_key(revision)), "{what}");
}

pub fn random_batch(random: &mut Random) -> Frames {
    let value = vec![b'v'; [0, 1, 40, 900, 1100, 5000][random.below(6)]];
    let key = |random: &mut Random| match random.below(14) {
        0 => vec![b'l'; 3000],
        number => format!("key/{number:02}").into_bytes(),
    };
    let (first, second) = (key(random), key(random));
    let lease = LeaseId(if random.one_in(3) { 5 + random.below(2) as i64 } else { 0 });
    let put = PutRef { key: &first, value: &value, lease, ..PutRef::default() };
    let delete = DeleteRangeRef { key: &second, ..DeleteRangeRef::default() };
    match random.below(6) {
        0 => Frames::new().delete(&delete),
        1 => Frames::new().delete(&DeleteRangeRef { key: b"key/0", range_end: b"key/1", ..delete }),
        2 if first != second => {
            let success = vec![OperationRef::Put(put), OperationRef::DeleteRange(delete)];
            Frames::new().txn(&TxnRef { compares: vec![], success, failure: vec![] })
        }
        _ => Frames::new().put(&put),
    }
}

#[test]
fn a_history_goes_out_and_comes_back_whatever_was_compacted_and_swept() {
    for seed in 0..8_u64 {
        let mut random = Random::new(seed);
        let mut driver = Driver::new([1, 3][random.below(2)]);
        let lease = |id| LeaseGrantRef { id: LeaseId(id), ttl_seconds: 60 + id };
        driver.apply(Frames::new().grant(lease(5)).grant(lease(6)).cluster_version("3.7.0"));
        for round in 0..6 {
            for _ in 0..30 {
                driver.apply(random_batch(&mut random));
            }
            let what = format!("seed {seed}, round {round}");
            if random.one_in(2) {
                let newest = driver.engine.revision().0;
                let behind = random.below(40) as i64;
                let revision = Revision((newest - behind).max(1));
                driver.apply(Frames::new().compact(CompactRef { revision, physical: false }));
                // The sweep is at its beginning, somewhere, or at its end.
                for _ in 0..random.below(30) {
                    driver.engine.background_step(7).unwrap();
                }
            }
            let file = backup(&driver, 1 + random.below(100));
            let mut other = import(&file, [1, 4][random.below(2)]);
            assert_same(&mut driver, &mut other, &what);
            assert!(backup(&other, 1000) == file, "{what}");
            // What follows means the same to both.
            let mut again = Random::new(seed * 1000 + round);
            for _ in 0..20 {
                let state = again.next();
                let frames = random_batch(&mut Random::new(state));
                other.apply(frames);
                driver.apply(random_batch(&mut Random::new(state)));
            }
            assert_same(&mut driver, &mut other, &format!("{what}, later"));
            driver.sweep();
            other.sweep();
            assert_same(&mut driver, &mut other, &format!("{what}, swept"));
            other.engine.publish();
        }
    }
}

#[test]
fn a_file_is_the_same_after_a_round_trip() {
    for seed in 20..26_u64 {
        let mut random = Random::new(seed);
        let mut driver = Driver::new(1);
        driver.apply(Frames::new().grant(LeaseGrantRef { id: LeaseId(5), ttl_seconds: 9 }));
        driver.apply(Frames::new().grant(LeaseGrantRef { id: LeaseId(-6), ttl_seconds: 9 }));
        for _ in 0..100 {
            driver.apply(random_batch(&mut random));
        }
        let kind = if random.one_in(2) { AlarmKind::NO_SPACE } else { AlarmKind::CORRUPT };
        let alarm = Alarm { kind, member: MemberId(seed) };
        driver.apply(Frames::new().alarm(AlarmRef { action: AlarmAction::Raise, alarm }));
        if random.one_in(2) {
            driver.apply(Frames::new().cluster_version("3.7.0"));
            driver.apply(Frames::new().downgrade(Some("3.6.0")));
        }
        let file = backup(&driver, 17);
        let mut other = import(&file, 1);
        assert!(backup(&other, 1000) == file, "seed {seed}");
        let target = |driver: &Driver| driver.hold().downgrade_target().unwrap();
        assert_eq!(target(&other), target(&driver), "seed {seed}");
        // It refuses there what it refused here.
        let put = PutRef { key: b"k", ..PutRef::default() };
        let refused = |driver: &mut Driver| driver.apply(Frames::new().put(&put));
        assert_eq!(refused(&mut other), refused(&mut driver), "seed {seed}");
    }
}

#[test]
fn what_no_history_has_is_refused_by_rule() {
    let record = |key: &'static [u8], create: i64, modified: i64, version: i64| Record {
        key,
        value: b"v",
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        version,
        lease: LeaseId(0),
    };
    let at = |main| Change { main: Revision(main), sub: 0 };
    let put = |record| ImportedChange::Put(record);
    let gone = ImportedChange::Delete(b"d");
    for (changes, rule) in [
        (vec![(at(3), put(record(b"k", 3, 4, 1)))], ImportRule::ModRevision),
        (vec![(at(3), put(record(b"", 3, 3, 1)))], ImportRule::KeyEmpty),
        (vec![(at(3), put(record(b"k", 3, 3, 0)))], ImportRule::KeyEmpty),
        (vec![(at(3), put(record(b"k", 2, 3, 1)))], ImportRule::Version),
        (vec![(at(3), put(record(b"k", 4, 3, 2)))], ImportRule::Version),
        (vec![(at(3), put(record(b"k", 0, 3, 2)))], ImportRule::Version),
        (
            vec![(at(3), put(record(b"k", 3, 3, 1))), (at(4), put(record(b"k", 3, 4, 3)))],
            ImportRule::Version,
        ),
        (
            vec![(at(3), put(record(b"k", 3, 3, 1))), (at(4), put(record(b"k", 4, 4, 1)))],
            ImportRule::Version,
        ),
        (vec![(at(3), gone), (at(4), gone)], ImportRule::Deleted),
        (
            vec![(at(3), put(record(b"k", 3, 3, 1))), (at(3), put(record(b"l", 3, 3, 1)))],
            ImportRule::ChangeOrder,
        ),
        (
            vec![(at(3), put(record(b"k", 3, 3, 1))), (at(2), put(record(b"l", 2, 2, 1)))],
            ImportRule::ChangeOrder,
        ),
    ] {
        let mut driver = Driver::new(1);
        let (last, before) = changes.split_last().unwrap();
        for (change, imported) in before {
            let done = driver.engine.import_change(*change, imported).unwrap();
            assert_eq!(done, Imported::Done, "{imported:?}");
        }
        let refused = driver.engine.import_change(last.0, &last.1).unwrap();
        assert_eq!(refused, Imported::Refused(rule), "{last:?}");
    }
    let mut driver = Driver::new(1);
    for (target, finished) in [(5, 6), (-1, -2)] {
        let refused = driver.engine.import_compaction(Revision(target), Revision(finished));
        assert_eq!(refused.unwrap(), Imported::Refused(ImportRule::Compacted));
    }
    let lease = Lease { id: LeaseId(0), ttl_seconds: 1, remaining_seconds: 0 };
    let refused = driver.engine.import_lease(lease).unwrap();
    assert_eq!(refused, Imported::Refused(ImportRule::LeaseId));
}

/// A restore that steps over revisions enters a record of nothing: it is hashed and sent as such.
#[test]
fn revisions_that_a_restore_stepped_over_stay_stepped_over() {
    let mut driver = Driver::new(1);
    let record = Record {
        key: b"k",
        value: b"v",
        create_revision: Revision(2),
        mod_revision: Revision(2),
        version: 1,
        lease: LeaseId(0),
    };
    let changes = [(2, record), (1002, Record::default()), (2002, Record::default())];
    for (main, record) in changes {
        let change = Change { main: Revision(main), sub: 0 };
        let done = driver.engine.import_change(change, &ImportedChange::Put(record)).unwrap();
        assert_eq!(done, Imported::Done);
    }
    driver.engine.import_compaction(Revision(2002), Revision(-1)).unwrap();
    driver.engine.finish_import(LogIndex(1), Term(1));
    let put = PutRef { key: b"k", value: b"w", ..PutRef::default() };
    driver.apply(Frames::new().put(&put));
    assert_eq!(driver.engine.revision(), Revision(2003));
    let unswept = backup(&driver, 10);
    driver.sweep();
    let file = backup(&driver, 10);
    assert!(file == unswept);
    let reader = Reader::open(&file[..]).unwrap();
    let mut walk = reader.walk(&reader.bucket(schema::KEY).unwrap().unwrap());
    let mut seen = Vec::new();
    while let Some((key, value)) = walk.next_pair().unwrap() {
        seen.push((RevisionKey::from_bytes(key).unwrap().change.main.0, value.len()));
    }
    assert_eq!(seen, [(2, 12), (2002, 0), (2003, 13)]);
}
