//! A store goes to another member as a stream of records, and answers there as it does here.

use engine::command::{
    AlarmAction, AlarmRef, CompactRef, DeleteRangeRef, LeaseGrantRef, LeaseRemaining,
    LeaseRevokeRef, MemberAddRef, MemberPublishRef, PutRef,
};
use engine::engine::{Imported, ImportedChange, InstallState};
use engine::transfer::CHUNK_SIZE_BYTES;
use engine::{
    Alarm, AlarmKind, Change, HeldView, InstallRule, KeyValueHash, KeyValueHashScan, LeaseId,
    LogIndex, MemberId, OwnedRecord, Progress, RangeQuery, RangeScan, ReadError, Record, Rejection,
    Revision, StoreHashScan, Term, TransferScan, View,
};

use crate::driver::{Driver, Frames};
use crate::interchange::{backup, random_batch};
use crate::membership::founded;
use crate::random::Random;

/// The stream of a view, made in steps of so many records.
pub fn stream_of(view: &View, budget: usize) -> Vec<u8> {
    let (mut scan, mut stream, mut chunk) = (TransferScan::new(), Vec::new(), Vec::new());
    loop {
        chunk.clear();
        let progress = scan.step(view, &mut budget.clone(), &mut chunk).unwrap();
        assert!(chunk.len() < CHUNK_SIZE_BYTES + 200_000, "{} bytes in a step", chunk.len());
        stream.extend_from_slice(&chunk);
        if progress == Progress::Done {
            return stream;
        }
    }
}

/// Hands a stream over in pieces of random length. Answers with the refusal, if there is one.
pub fn feed(driver: &mut Driver, stream: &[u8], random: &mut Random) -> Result<(), InstallRule> {
    let (mut taken, mut given) = (0, 0);
    for _ in 0..10_000_000 {
        let budget = 1 + random.below(300);
        let step = driver.engine.install_records(&stream[taken..given], budget).unwrap();
        taken += step.taken_size_bytes;
        assert!(driver.engine.dirty_bytes() < (64 << 20) + (8 << 20), "memory is bounded");
        match step.state {
            InstallState::Complete => return Ok(()),
            InstallState::Refused(rule) => return Err(rule),
            InstallState::More if step.taken_size_bytes == 0 => {
                if given == stream.len() {
                    return Err(InstallRule::Unfinished);
                }
                given = stream.len().min(given + 1 + random.below(60_000));
            }
            InstallState::More => {}
            InstallState::Waiting => {
                driver.pump();
                driver.engine.drop_copies(u32::MAX, u32::MAX).unwrap();
                if driver.engine.install_wants_checkpoint() {
                    driver.checkpoint();
                }
            }
        }
    }
    panic!("an install without an end");
}

/// Installs what a view holds.
pub fn install(driver: &mut Driver, view: &View, random: &mut Random) {
    let stream = stream_of(view, 1 + random.below(400));
    driver.engine.begin_install(view.applied, view.term, b"voters").unwrap();
    feed(driver, &stream, random).unwrap();
    assert_eq!(driver.engine.finish_install().unwrap(), Ok(()));
    assert_eq!(driver.engine.installed().unwrap(), Some((view.applied, view.term)));
    assert_eq!(driver.engine.conf_state().unwrap().as_deref(), Some(&b"voters"[..]));
}

pub fn everything(view: &View, revision: i64) -> Result<Vec<OwnedRecord>, Rejection> {
    let query = RangeQuery { key: b"\0", range_end: b"\0", revision, ..RangeQuery::default() };
    let (mut records, mut scan) = (Vec::new(), RangeScan::new(&query));
    loop {
        match scan.step(view, usize::MAX, &mut records) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => return Ok(records),
            Err(ReadError::Rejection(rejection)) => return Err(rejection),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }
}

fn hash(view: &View, revision: i64) -> Result<KeyValueHash, Rejection> {
    let mut scan = KeyValueHashScan::new(Revision(revision));
    loop {
        match scan.step(view, usize::MAX) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => return Ok(scan.result().unwrap()),
            Err(ReadError::Rejection(rejection)) => return Err(rejection),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }
}

fn store_hash(view: &View) -> u32 {
    let mut scan = StoreHashScan::new();
    while scan.step(view, usize::MAX).unwrap() == Progress::More {}
    scan.result().unwrap()
}

/// Both say the same at every revision. Which compactions' own hashes are remembered depends on
/// when each was swept, and is told apart by what they were taken under.
fn assert_same_history(ours: &View, theirs: &View, is_exact: bool, what: &str) {
    assert_eq!((ours.revision, ours.compacted), (theirs.revision, theirs.compacted), "{what}");
    let (last, first) = (ours.revision.0, ours.compacted.0);
    let stride = if is_exact { 3 } else { 11 };
    let is_edge = |at: &i64| (first - 1..=first + 1).contains(at) || *at >= last - 1 || *at < 2;
    for revision in (0..=last + 1).filter(|at| at % stride == 0 || is_edge(at)) {
        let at = format!("{what}, revision {revision}");
        assert_eq!(everything(ours, revision), everything(theirs, revision), "{at}");
        let (ours_hash, theirs_hash) = (hash(ours, revision), hash(theirs, revision));
        let is_same = |hash: &KeyValueHash| hash.compacted == ours.compacted;
        let are_comparable = match (&ours_hash, &theirs_hash) {
            (Ok(ours), Ok(theirs)) => is_same(ours) && is_same(theirs),
            (Err(_), Err(_)) => true,
            _ => false,
        };
        if is_exact || are_comparable {
            assert_eq!(ours_hash, theirs_hash, "{at}");
        }
    }
}

pub fn assert_same(ours: &View, theirs: &View, is_exact: bool, what: &str) {
    assert_same_history(ours, theirs, is_exact, what);
    assert_eq!(store_hash(ours), store_hash(theirs), "{what}");
    let leases = |view: &View| {
        let (mut leases, mut from) = (Vec::new(), Some(LeaseId(0)));
        while let Some(id) = from {
            from = view.leases(id, 10, &mut leases).unwrap();
        }
        let keys = leases.iter().map(|lease| {
            let mut keys = Vec::new();
            view.lease_keys(lease.id, &[], usize::MAX, &mut keys).unwrap();
            keys
        });
        let keys: Vec<_> = keys.collect();
        (leases, keys)
    };
    assert_eq!(leases(ours), leases(theirs), "{what}");
    assert_eq!(ours.alarms().unwrap(), theirs.alarms().unwrap(), "{what}");
    assert_eq!(ours.members().unwrap(), theirs.members().unwrap(), "{what}");
    assert_eq!(ours.cluster_members().unwrap(), theirs.cluster_members().unwrap(), "{what}");
    assert_eq!(ours.removed_members().unwrap(), theirs.removed_members().unwrap(), "{what}");
    assert_eq!(ours.cluster_version().unwrap(), theirs.cluster_version().unwrap(), "{what}");
    assert_eq!(ours.downgrade_target().unwrap(), theirs.downgrade_target().unwrap(), "{what}");
}

/// A batch of all kinds.
fn batch(random: &mut Random) -> Frames {
    let lease = LeaseId([5, 6, -7][random.below(3)]);
    let member = MemberId(4 + random.below(3) as u64);
    match random.below(24) {
        0 => Frames::new().grant(LeaseGrantRef { id: lease, ttl_seconds: 60 }),
        1 => Frames::new().revoke(LeaseRevokeRef { id: lease, expired_in: None }),
        2 => Frames::new().note(&[LeaseRemaining { id: lease, remaining_seconds: 17 }]),
        3 => {
            let alarm = Alarm { kind: AlarmKind(9), member };
            let action = if random.one_in(3) { AlarmAction::Lower } else { AlarmAction::Raise };
            Frames::new().alarm(AlarmRef { action, alarm })
        }
        4 => {
            let peer_urls = [format!("http://{member}:2380")];
            let (is_learner, learners_max) = (random.one_in(2), 2);
            let add = MemberAddRef { id: member, peer_urls: &peer_urls, is_learner, learners_max };
            Frames::new().member_add(&add)
        }
        5 if random.one_in(3) => Frames::new().member_remove(member),
        5 => Frames::new().member(&MemberPublishRef { id: member, name: "n", client_urls: &[] }),
        6 if random.one_in(3) => Frames::new().downgrade(Some("3.6.0")),
        6 => Frames::new().downgrade(None),
        _ => random_batch(random),
    }
}

fn compact(driver: &mut Driver, random: &mut Random) {
    let revision = Revision((driver.engine.revision().0 - random.below(30) as i64).max(1));
    driver.apply(Frames::new().compact(CompactRef { revision, physical: false }));
}

/// A store with a history, compacted and swept so far as chance has it.
fn grown(shards: u16, seed: u64, batches: usize) -> Driver {
    let mut random = Random::new(seed);
    let mut driver = founded(shards);
    driver.apply(Frames::new().cluster_version("3.7.0"));
    for _ in 0..batches {
        driver.apply(batch(&mut random));
        if random.one_in(30) {
            compact(&mut driver, &mut random);
        }
        if random.one_in(6) {
            driver.engine.background_step(1 + random.below(12)).unwrap();
        }
        if random.one_in(60) {
            driver.sweep();
        }
    }
    driver
}

#[test]
fn a_store_answers_the_same_where_it_was_installed() {
    let mut unfinished = 0;
    for (place, (from, to)) in [(1, 2), (2, 1), (4, 2), (1, 4), (4, 4)].into_iter().enumerate() {
        for round in 0..3 {
            let seed = 10 * place as u64 + round;
            let what = format!("{from} to {to} shards, seed {seed}");
            let mut random = Random::new(1000 + seed);
            let mut ours = grown(from, seed, 150 + 40 * place);
            unfinished += usize::from(!ours.engine.compaction_is_finished());
            let view = ours.hold();
            // Into an empty store and into one that has fallen behind.
            let mut theirs = if random.one_in(2) { Driver::new(to) } else { grown(to, 77, 60) };
            // It has fallen behind, whatever it has made of its own log.
            let index = view.applied.0.max(theirs.engine.applied().0.0 + 1);
            assert_eq!(index, view.applied.0, "{what}");
            install(&mut theirs, &view, &mut random);
            assert_eq!(theirs.engine.applied(), (view.applied, view.term), "{what}");
            assert_same(&view, &theirs.hold(), true, &what);
            assert!(backup(&ours, 500) == backup(&theirs, 30), "{what}");
            drop(view);
            theirs.checkpoint();
            theirs.reopen();
            assert_same(&ours.hold(), &theirs.hold(), false, &format!("{what}, reopened"));
            go_on(&mut ours, &mut theirs, seed, &what);
        }
    }
    assert!(unfinished > 3, "{unfinished} sweeps under way say little");
}

/// What follows means the same to both.
fn go_on(ours: &mut Driver, theirs: &mut Driver, seed: u64, what: &str) {
    let mut random = Random::new(5000 + seed);
    for step in 0..60 {
        let state = random.next();
        let frames = || match step % 15 {
            14 => {
                let revision = Revision(ours.engine.revision().0 - 5);
                Frames::new().compact(CompactRef { revision, physical: false })
            }
            _ => batch(&mut Random::new(state)),
        };
        let (first, second) = (frames().into_batch(), frames().into_batch());
        let answers = ours.apply_batch(&first);
        assert_eq!(answers, theirs.apply_batch(&second), "{what}, step {step}");
        if random.one_in(5) {
            ours.engine.background_step(20).unwrap();
        }
        if random.one_in(5) {
            theirs.engine.background_step(7).unwrap();
        }
    }
    assert_same(&ours.hold(), &theirs.hold(), false, &format!("{what}, later"));
    ours.sweep();
    theirs.sweep();
    assert_same(&ours.hold(), &theirs.hold(), false, &format!("{what}, swept"));
    assert!(backup(ours, 500) == backup(theirs, 500), "{what}, swept");
    assert_eq!(ours.engine.newest_view().change_count(), theirs.hold().change_count(), "{what}");
}

/// Bytes that hold data once all that waits for a view has gone.
fn settled_in_use(driver: &mut Driver) -> u64 {
    for _ in 0..3 {
        let (index, term) = driver.engine.applied();
        driver.engine.apply_empty(LogIndex(index.0 + 1), term);
        driver.engine.publish();
        driver.checkpoint();
    }
    let (index, term) = driver.engine.applied();
    driver.engine.apply_empty(LogIndex(index.0 + 1), term);
    driver.engine.publish();
    driver.hold().in_use_bytes
}

/// What a defragmentation leaves free at least.
const SPARE_SIZE_BYTES: u64 = 80 * 4096;
/// The maps of the checkpoints of a file that was longer.
const MAPS_SIZE_BYTES: u64 = 4 * 2 * 4096;

#[test]
fn an_install_leaves_what_it_needs_and_pinned_views_what_they_hold() {
    for (from, to) in [(1, 1), (2, 4), (4, 2)] {
        let what = format!("{from} to {to} shards");
        let mut random = Random::new(9);
        let ours = grown(from, 3, 400);
        let view = ours.hold();
        let mut fresh = Driver::new(to);
        install(&mut fresh, &view, &mut random);
        let needed = settled_in_use(&mut fresh);

        let mut theirs = grown(to, 4, 300);
        theirs.checkpoint();
        let (held, before) = (theirs.hold(), theirs.hold());
        let (index, revision) = (theirs.engine.applied().0, held.revision.0);
        assert!(index < view.applied);
        let old: Vec<_> = (0..=revision).map(|at| everything(&held, at)).collect();
        let assert_old = |held: &HeldView, when: &str| {
            let now: Vec<_> = (0..=revision).map(|at| everything(held, at)).collect();
            assert!(now == old, "{what}, {when}");
        };
        install(&mut theirs, &view, &mut random);
        assert_old(&held, "installed");
        assert!(settled_in_use(&mut theirs) > needed + held.in_use_bytes / 2, "{what}: it is held");
        assert_old(&before, "checkpointed");
        drop(before);
        // What is given out meanwhile is not what the old view holds.
        for _ in 0..100 {
            theirs.apply(random_batch(&mut random));
        }
        theirs.checkpoint();
        assert_old(&held, "changed");
        drop(held);

        let mut theirs = grown(to, 4, 300);
        theirs.checkpoint();
        install(&mut theirs, &view, &mut random);
        let in_use = settled_in_use(&mut theirs);
        assert!(in_use <= needed + MAPS_SIZE_BYTES, "{what}: {in_use} bytes for {needed}");
        theirs.checkpoint();
        theirs.reopen();
        let in_use = theirs.hold().in_use_bytes;
        assert!(in_use <= needed + MAPS_SIZE_BYTES, "{what}: {in_use} bytes, reopened");
        assert_same(&view, &theirs.hold(), false, &what);
    }
}

/// Found in simulation: the quota of a member that had been given the store was used up by the
/// store it had before, which a reader still held when the pages were moved.
#[test]
fn what_was_there_before_an_install_does_not_count() {
    let mut random = Random::new(9);
    let view = grown(1, 3, 400).hold();
    // What was there is more than what waits in the ordinary course of things.
    let aged = || {
        let mut driver = grown(1, 4, 300);
        for number in 0..50 {
            let (key, value) = (format!("old{number}"), vec![7; 100_000]);
            let put = PutRef { key: key.as_bytes(), value: &value, ..PutRef::default() };
            driver.apply(Frames::new().put(&put));
        }
        driver.checkpoint();
        driver
    };
    let mut theirs = aged();
    let held = theirs.hold();
    let put = |key: &[u8], size: usize| {
        let value = &vec![7; size][..];
        Frames::new().put(&PutRef { key, value, ..PutRef::default() })
    };
    install(&mut theirs, &view, &mut random);
    theirs.defrag();
    theirs.apply(put(b"small", 1));
    let installed = theirs.hold().size_bytes;
    let in_use = theirs.hold().in_use_bytes;
    assert!(in_use > installed * 5 / 4, "the old store is still there: {in_use}, {installed}");
    assert!(installed <= view.size_bytes * 5 / 4, "{installed} bytes for {}", view.size_bytes);
    // Nor does it after a restart, which finds the file as long as it was left.
    let mut restarted = aged();
    install(&mut restarted, &view, &mut random);
    restarted.checkpoint();
    restarted.reopen();
    let size = restarted.hold().size_bytes;
    assert!(size <= installed * 5 / 4, "{size} bytes after a restart, {installed} before");
    restarted.apply(put(b"small", 1));
    let size = restarted.hold().size_bytes;
    assert!(size <= installed * 5 / 4, "{size} bytes after a restart, {installed} before");
    assert!(restarted.engine.reach_bytes() > installed * 5 / 4, "the file is as long as it was");
    assert!(restarted.engine.is_owed_defrag(), "nobody has dealt with what was there");
    restarted.defrag();
    assert!(restarted.engine.reach_bytes() <= installed * 5 / 4 + SPARE_SIZE_BYTES);
    counts_as_any(&mut restarted);
    counts_what_comes(&mut theirs, installed);
    let grown_to = theirs.hold().size_bytes;
    let full = settled_in_use(&mut theirs);
    theirs.apply(Frames::new().delete(&DeleteRangeRef {
        key: b"large",
        range_end: b"largf",
        prev_kv: false,
    }));
    let revision = theirs.engine.revision();
    theirs.apply(Frames::new().compact(CompactRef { revision, physical: false }));
    theirs.sweep();
    assert!(settled_in_use(&mut theirs) < full - 100 * 20_000 / 2, "what is swept is free");
    assert!(theirs.hold().size_bytes >= grown_to, "what goes stays so until the file is shorter");
    assert!(!theirs.engine.is_owed_defrag(), "as long as a reader holds it, that is in vain");
    drop(held);
    let in_use = settled_in_use(&mut theirs);
    assert!(theirs.engine.is_owed_defrag(), "nobody has dealt with what was there");
    theirs.defrag();
    let size = theirs.hold().size_bytes;
    assert!(size <= in_use * 5 / 4 + SPARE_SIZE_BYTES, "{size} bytes for {in_use}");
    counts_as_any(&mut theirs);
}

/// A store that was installed, and whose files have been dealt with, counts as others do.
fn counts_as_any(driver: &mut Driver) {
    for _ in 0..2 {
        let view = driver.hold();
        assert_eq!(view.size_bytes, driver.engine.reach_bytes());
        assert_eq!(view.counted_in_use_bytes(), view.in_use_bytes);
        assert!(!driver.engine.is_owed_defrag());
        drop(view);
        driver.checkpoint();
        driver.reopen();
    }
}

/// What comes is counted.
fn counts_what_comes(driver: &mut Driver, installed: u64) {
    for number in 0..100 {
        driver.apply(large(number));
    }
    let grown_to = driver.hold().size_bytes;
    assert!(grown_to >= installed + 100 * 20_000 / 2, "{grown_to} bytes after {installed}");
}

fn large(number: usize) -> Frames {
    let (key, value) = (format!("large{number}"), vec![7; 20_000]);
    Frames::new().put(&PutRef { key: key.as_bytes(), value: &value, ..PutRef::default() })
}

/// Found in review: behind an install that took more than one checkpoint nothing was counted any
/// more.
#[test]
fn what_comes_after_a_long_install_counts() {
    let view = grown(1, 3, 400).hold();
    let stream = stream_of(&view, 400);
    for is_given_up in [false, true] {
        let mut driver = grown(1, 4, 300);
        driver.checkpoint();
        driver.engine.begin_install(view.applied, view.term, b"voters").unwrap();
        let before = driver.hold().size_bytes;
        let mut taken = 0;
        let state = loop {
            let step = driver.engine.install_records(&stream[taken..], 60).unwrap();
            taken += step.taken_size_bytes;
            if step.state == InstallState::Waiting {
                driver.pump();
            }
            driver.apply(large(0));
            driver.checkpoint();
            if step.state == InstallState::Complete || is_given_up && taken > stream.len() / 2 {
                break step.state;
            }
        };
        assert!(driver.hold().size_bytes <= before, "what is installed does not count yet");
        if state == InstallState::Complete {
            assert_eq!(driver.engine.finish_install().unwrap(), Ok(()));
        } else {
            // Given up while its pages are being written.
            let (index, term) = driver.engine.applied();
            driver.engine.apply_empty(LogIndex(index.0 + 1), term);
            driver.engine.publish();
            driver.engine.drop_copies(u32::MAX, u32::MAX).unwrap();
            assert!(driver.engine.begin_checkpoint());
            driver.engine.abort_install();
            driver.pump();
        }
        settled_in_use(&mut driver);
        driver.defrag();
        let installed = driver.hold().size_bytes;
        counts_what_comes(&mut driver, installed);
    }
}

#[test]
fn a_store_is_served_while_another_is_installed() {
    for shards in [1, 2, 4] {
        let mut random = Random::new(11);
        let ours = grown(2, 5, 500);
        let view = ours.hold();
        let stream = stream_of(&view, 100);
        let mut theirs = grown(shards, 6, 100);
        let mut twin = grown(shards, 6, 100);
        theirs.engine.begin_install(view.applied, view.term, b"").unwrap();
        let mut taken = 0;
        for step in 0..100_000 {
            let one = theirs.engine.install_records(&stream[taken..], 40).unwrap();
            taken += one.taken_size_bytes;
            match one.state {
                InstallState::Complete => break,
                InstallState::More => {}
                other => panic!("{other:?}"),
            }
            // Changes, sweeps and checkpoints of the store that is served.
            if theirs.engine.applied().0.0 + 1 < view.applied.0 {
                let state = random.next();
                let answers = theirs.apply(random_batch(&mut Random::new(state)));
                assert_eq!(answers, twin.apply(random_batch(&mut Random::new(state))));
            }
            theirs.engine.background_step(5).unwrap();
            twin.engine.background_step(5).unwrap();
            if step % 7 == 0 {
                theirs.checkpoint();
            }
            if step % 40 == 0 {
                assert_same(&twin.hold(), &theirs.hold(), true, "served meanwhile");
            }
        }
        assert_same(&twin.hold(), &theirs.hold(), true, "served to the end");
        theirs.checkpoint();
        // The process goes, and the install with it, without a trace.
        theirs.reopen();
        assert_same(&twin.hold(), &theirs.hold(), false, "after a crash");
        twin.checkpoint();
        twin.reopen();
        let (left, plain) = (theirs.hold().in_use_bytes, twin.hold().in_use_bytes);
        assert!(left <= plain + MAPS_SIZE_BYTES, "{left} bytes, {plain} without an install");
        install(&mut theirs, &view, &mut random);
        assert_same(&view, &theirs.hold(), true, "installed after a crash");
    }
}

#[test]
fn an_install_that_is_given_up_leaves_nothing() {
    for shards in [1, 2, 4] {
        let mut random = Random::new(21);
        let ours = grown(1, 7, 400);
        let view = ours.hold();
        let stream = stream_of(&view, 100);
        let mut theirs = grown(shards, 8, 150);
        let before = settled_in_use(&mut theirs);
        let held = theirs.hold();
        for round in 0..12 {
            let end = random.below(stream.len());
            // The entry has to lie ahead still.
            if theirs.engine.applied().0 >= view.applied {
                break;
            }
            theirs.engine.begin_install(view.applied, view.term, b"").unwrap();
            assert_eq!(theirs.engine.installing(), Some((view.applied, view.term)));
            assert!(feed(&mut theirs, &stream[..end], &mut random).is_err());
            assert_eq!(theirs.engine.finish_install().unwrap(), Err(InstallRule::Unfinished));
            if round % 3 == 0 {
                // Given up while its pages are being written.
                let (index, term) = theirs.engine.applied();
                theirs.engine.apply_empty(LogIndex(index.0 + 1), term);
                theirs.engine.publish();
                theirs.engine.drop_copies(u32::MAX, u32::MAX).unwrap();
                assert!(theirs.engine.begin_checkpoint());
                theirs.ops_left = 1;
                theirs.pump();
                theirs.engine.abort_install();
                theirs.ops_left = usize::MAX;
                theirs.pump();
            }
            theirs.engine.abort_install();
            assert_eq!(theirs.engine.installing(), None);
            let what = format!("{shards} shards, round {round}");
            assert_same(&held, &theirs.hold(), true, &what);
        }
        let in_use = settled_in_use(&mut theirs);
        assert!(in_use <= before + MAPS_SIZE_BYTES, "{in_use} bytes, {before} before");
        theirs.reopen();
        assert_same(&held, &theirs.hold(), false, "reopened");
    }
}

/// Watches that were told event by event have to look for themselves.
#[test]
fn watches_find_a_gap_and_leases_are_to_be_read_anew() {
    let ours = grown(2, 31, 200);
    let view = ours.hold();
    let mut theirs = grown(2, 32, 50);
    theirs.engine.set_events_wanted(true, true);
    theirs.apply(Frames::new().put(&PutRef { key: b"k", ..PutRef::default() }));
    theirs.events().unwrap();
    let before = theirs.engine.revision();
    theirs.engine.take_lease_changes();
    install(&mut theirs, &view, &mut Random::new(1));
    let events = theirs.events().unwrap();
    assert_eq!((events.previous(), events.last()), (before, view.revision));
    assert!(events.is_gap() && events.is_empty());
    assert!(theirs.engine.take_lease_changes().is_empty());
    theirs.apply(Frames::new().put(&PutRef { key: b"k", ..PutRef::default() }));
    let events = theirs.events().unwrap();
    assert!(!events.is_gap());
    assert_eq!((events.previous(), events.len()), (view.revision, 1));
}

/// A key of an imported history may name a lease that was not there. Who revokes a lease of that id
/// later must not lose the key on one member alone.
#[test]
fn a_key_is_attached_where_it_is_attached_here() {
    let mut ours = Driver::new(1);
    let record = |key: &'static [u8], main: i64| Record {
        key,
        value: b"v",
        create_revision: Revision(main),
        mod_revision: Revision(main),
        version: 1,
        lease: LeaseId(5),
    };
    let change = |main| Change { main: Revision(main), sub: 0 };
    let step_over = ImportedChange::Put(Record::default());
    for (main, imported) in
        [(2, ImportedChange::Put(record(b"loose", 2))), (10, step_over), (12, step_over)]
    {
        assert_eq!(ours.engine.import_change(change(main), &imported).unwrap(), Imported::Done);
    }
    ours.engine.import_carried(b"authUsers", b"root", b"secret").unwrap();
    ours.engine.finish_import(LogIndex(1), Term(1));
    ours.apply(Frames::new().grant(LeaseGrantRef { id: LeaseId(5), ttl_seconds: 9 }));
    // Twice: the version before had the lease, too, and comes with an end, attached to nothing.
    let put = PutRef { key: b"bound", lease: LeaseId(5), ..PutRef::default() };
    ours.apply(Frames::new().put(&put).put(&put));
    let mut theirs = Driver::new(4);
    let view = ours.hold();
    install(&mut theirs, &view, &mut Random::new(2));
    assert_same(&view, &theirs.hold(), true, "attached");
    drop(view);
    assert!(backup(&ours, 100) == backup(&theirs, 100));
    for driver in [&mut ours, &mut theirs] {
        driver.apply(Frames::new().revoke(LeaseRevokeRef { id: LeaseId(5), expired_in: None }));
        let keys: Vec<_> = everything(&driver.hold(), 0).unwrap();
        assert_eq!(keys.iter().map(|record| &record.key[..]).collect::<Vec<_>>(), [b"loose"]);
    }
    assert_same(&ours.hold(), &theirs.hold(), true, "revoked");
}

#[test]
fn an_install_waits_for_the_disk_rather_than_take_memory() {
    let mut ours = Driver::new(1);
    let value = vec![7; 100_000];
    for number in 0..900 {
        let key = format!("key/{number:04}");
        ours.apply(Frames::new().put(&PutRef {
            key: key.as_bytes(),
            value: &value,
            ..PutRef::default()
        }));
    }
    let all = DeleteRangeRef { key: b"key/01", range_end: b"key/09", prev_kv: false };
    ours.apply(Frames::new().delete(&all));
    let view = ours.hold();
    let mut theirs = Driver::new(2);
    let before = theirs.ops;
    install(&mut theirs, &view, &mut Random::new(3));
    assert!(theirs.ops > before, "it went to the disk before it was complete");
    assert_eq!(everything(&view, 0), everything(&theirs.hold(), 0));
    assert_eq!(hash(&view, 0), hash(&theirs.hold(), 0));
    theirs.checkpoint();
    theirs.reopen();
    assert_eq!(hash(&view, 0), hash(&theirs.hold(), 0));
}

/// The system may forget what is built, and nothing of what is read.
#[test]
fn only_what_is_built_is_cold() {
    let put = |driver: &mut Driver, numbers: std::ops::Range<u32>| {
        for number in numbers {
            let (key, value) = (number.to_be_bytes(), vec![7; 150_000]);
            let put = PutRef { key: &key, value: &value, ..PutRef::default() };
            driver.apply(Frames::new().put(&put));
            if number % 100 == 0 {
                driver.checkpoint();
            }
        }
        driver.checkpoint();
    };
    let mut random = Random::new(7);
    let (mut from, mut to) = (Driver::new(1), Driver::new(1));
    put(&mut from, 0..800);
    assert_eq!(from.cold_bytes, 0);
    install(&mut to, &from.hold(), &mut random);
    let built = to.cold_bytes;
    assert!(built > 300 * 150_000, "{built} bytes");
    to.checkpoint();
    put(&mut to, 900..1100);
    assert_eq!(to.cold_bytes, built);
    // A file that is long already: what is built in it moves when it is done, and is read for that.
    put(&mut from, 800..1200);
    install(&mut to, &from.hold(), &mut random);
    assert_eq!(to.cold_bytes, built);
}
