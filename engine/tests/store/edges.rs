//! Single cases that random histories meet too rarely, each with what it guards.

use crate::driver::{Driver, Frames};
use crate::random::{Random, Words};
use engine::command::{
    BATCH_HEADER_SIZE_BYTES, CompactRef, DeleteRangeRef, MemberPublishRef, OperationRef, PutRef,
    TxnRef,
};
use engine::{
    Batch, EventKind, EventRef, EventSink, Interest, KeyValueHashScan, LogIndex, MemberAttributes,
    MemberId, Outcome, OwnedRecord, Progress, RangeQuery, RangeScan, Rejection, Revision,
    StoreHashScan, Term, View, events_since,
};

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> PutRef<'a> {
    PutRef { key, value, ..PutRef::default() }
}

fn delete(key: &[u8]) -> DeleteRangeRef<'_> {
    DeleteRangeRef { key, ..DeleteRangeRef::default() }
}

fn compact(revision: i64) -> CompactRef {
    CompactRef { revision: Revision(revision), physical: false }
}

#[derive(Default)]
struct Kinds(Vec<(EventKind, i64, i64, bool)>);

impl EventSink for Kinds {
    fn interest(&mut self, _: EventKind, _: &[u8]) -> Interest {
        Interest::EventAndPrev
    }

    fn event(&mut self, event: EventRef<'_>) {
        let change = event.change;
        self.0.push((event.kind, change.main.0, change.sub, event.prev.is_some()));
    }
}

fn kinds_since(view: &View, from: i64) -> Vec<(EventKind, i64, i64, bool)> {
    let mut sink = Kinds::default();
    let next = events_since(view, Revision(from), usize::MAX, &mut sink).unwrap();
    assert_eq!(next, view.revision.next());
    sink.0
}

fn hash_of(driver: &mut Driver, revision: i64) -> u32 {
    let view = driver.handle.pin();
    let mut scan = KeyValueHashScan::new(Revision(revision));
    while scan.step(&view, 100).unwrap() == Progress::More {}
    scan.result().unwrap().hash
}

#[test]
fn a_key_changed_twice_at_the_compacted_revision_is_told_once() {
    let mut driver = Driver::new(1);
    let txn = TxnRef {
        success: vec![OperationRef::Put(put(b"k", b"1")), OperationRef::DeleteRange(delete(b"k"))],
        ..TxnRef::default()
    };
    driver.apply(Frames::new().put(&put(b"k", b"0")).txn(&txn).put(&put(b"other", b"2")));
    let before = [
        (EventKind::Put, 3, 0, true),
        (EventKind::Delete, 3, 1, true),
        (EventKind::Put, 4, 0, false),
    ];
    assert_eq!(kinds_since(&driver.hold(), 3), before);
    driver.apply(Frames::new().compact(compact(3)));
    let after = [(EventKind::Delete, 3, 1, false), (EventKind::Put, 4, 0, false)];
    assert_eq!(kinds_since(&driver.hold(), 3), after);
    driver.sweep();
    assert_eq!(kinds_since(&driver.hold(), 3), after);
}

/// Sweeps a history of `rounds` over some keys in one go and in lives that end anywhere.
fn sweep_with_restarts(rounds: u16, keys: u8, step_budget: usize, lives_min: usize) {
    let history = || {
        let mut driver = Driver::new(2);
        for round in 0..rounds {
            let mut frames = Frames::new();
            for key in 0..keys {
                // Not in their order, so that versions do not end in theirs.
                let key = u8::try_from(u16::from(key) * 7 % u16::from(keys)).unwrap();
                frames = frames.put(&put(&[key], &round.to_be_bytes()));
            }
            let gone = u8::try_from(round % u16::from(keys)).unwrap();
            driver.apply(frames.delete(&delete(&[gone])));
        }
        let revision = driver.engine.revision().0;
        driver.apply(Frames::new().compact(compact(revision - 30)));
        driver
    };
    let mut straight = history();
    straight.sweep();
    straight.checkpoint();

    let mut halting = history();
    halting.budget = 7;
    // Lives of one step, of two, of three: one ends wherever a sweep can be.
    let mut lives = 0;
    while !halting.engine.compaction_is_finished() {
        lives += 1;
        for _ in 0..lives {
            halting.engine.background_step(step_budget).unwrap();
        }
        halting.checkpoint();
        halting.reopen();
        assert!(lives < 1000, "a sweep without an end");
    }
    assert!(lives > lives_min, "{lives} lives are no test");
    let revision = straight.engine.revision().0;
    assert_eq!(kinds_since(&halting.hold(), revision - 30), {
        kinds_since(&straight.hold(), revision - 30)
    });
    assert_eq!(hash_of(&mut halting, 0), hash_of(&mut straight, 0));
    assert_eq!(halting.hold().change_count(), straight.hold().change_count());
}

#[test]
fn a_sweep_goes_on_after_a_restart() {
    sweep_with_restarts(20, 20, 7, 10);
}

/// A window ends after 65,536 changes.
#[test]
fn a_sweep_of_several_windows_goes_on_after_a_restart() {
    sweep_with_restarts(1000, 200, 4000, 10);
}

#[test]
fn a_compacted_store_forgets_what_nobody_can_ask_for() {
    let mut driver = Driver::new(1);
    for round in 0..50_u8 {
        driver.apply(Frames::new().put(&put(b"k", &[round])).delete(&delete(b"k")));
    }
    let last = driver.engine.revision().0;
    driver.apply(Frames::new().compact(compact(last)));
    driver.sweep();
    // The tombstone at the compacted revision itself stays until the next compaction.
    assert_eq!(driver.hold().change_count(), 1);
    driver.apply(Frames::new().put(&put(b"other", b"")).compact(compact(last + 1)));
    driver.sweep();
    assert_eq!(driver.hold().change_count(), 1);
    assert_eq!(driver.hold().key_count(), 1);
}

#[test]
fn held_views_read_the_same_while_the_writer_churns() {
    let mut driver = Driver::new(2);
    let mut random = Random::new(99);
    let words = Words::new(&mut random);
    let everything = RangeQuery { key: b"", range_end: b"\0", ..RangeQuery::default() };
    let read = |view: &View| {
        let mut records: Vec<OwnedRecord> = Vec::new();
        let mut scan = RangeScan::new(&everything);
        assert_eq!(scan.step(view, usize::MAX, &mut records).unwrap(), Progress::Done);
        records
    };
    let mut held = Vec::new();
    let mut size_at_half = 0;
    for round in 0..400 {
        let mut frames = Frames::new();
        for _ in 0..10 {
            frames = frames.put(&words.put(&mut random)).delete(&words.delete(&mut random));
        }
        let revision = driver.engine.revision().0;
        driver.apply(frames.compact(compact(revision - 5)));
        driver.sweep();
        if round % 10 == 0 {
            let view = driver.hold();
            held.push((read(&view), view));
        }
        if held.len() > 8 {
            let (expected, view) = held.remove(random.below(8));
            assert_eq!(read(&view), expected, "round {round}");
        }
        if round == 200 {
            size_at_half = driver.hold().in_use_bytes;
        }
    }
    for (expected, view) in held {
        assert_eq!(read(&view), expected);
    }
    let size = driver.hold().in_use_bytes;
    assert!(size < size_at_half * 2, "{size_at_half} bytes became {size}");
}

#[test]
fn damaged_frames_are_refused_or_applied_without_harm() {
    let mut random = Random::new(4711);
    let words = Words::new(&mut random);
    let mut driver = Driver::new(2);
    let mut applied = 0;
    for _ in 0..3000 {
        let revision = driver.engine.revision().0;
        let mut frames = Frames::new().put(&words.put(&mut random));
        frames = frames.txn(&words.txn(&mut random, revision, 3));
        frames = frames.delete(&words.delete(&mut random)).compact(compact(revision - 40));
        let mut bytes = frames.into_batch().bytes().to_vec();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = if random.one_in(2) { random.next() as u8 } else { bytes[at] ^ 1 };
        }
        let Ok(batch) = Batch::validate(bytes) else { continue };
        driver.budget = 1 + random.below(50);
        driver.apply_batch(&batch);
        applied += 1;
    }
    assert!((100..2900).contains(&applied), "{applied} of 3000 say nothing");
}

#[test]
fn random_bytes_are_no_batch() {
    let mut random = Random::new(3);
    for size in 0..600 {
        let mut bytes: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
        if size >= BATCH_HEADER_SIZE_BYTES {
            // Past the header's own checks, into the frames'.
            bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
        }
        assert!(Batch::validate(bytes).is_err(), "size {size}");
    }
}

#[test]
fn members_and_versions_survive_a_restart() {
    let mut driver = Driver::new(1);
    let urls = ["http://127.0.0.1:2379".to_owned(), "http://[::1]:2379".to_owned()];
    let member = MemberPublishRef { id: MemberId(9), name: "nine", client_urls: &urls };
    let early = MemberPublishRef { id: MemberId(2), name: "two", client_urls: &[] };
    let frames = Frames::new().member(&member).cluster_version("3.7.0").member(&early);
    let answers = driver.apply(frames);
    assert!(answers.iter().all(|answer| answer.outcome == Outcome::System));
    assert_eq!(driver.engine.revision(), Revision(1));
    let (applied, term) = driver.engine.applied();
    driver.engine.apply_conf_state(LogIndex(applied.0 + 1), term, b"voters").unwrap();
    driver.engine.publish();
    driver.checkpoint();
    driver.reopen();
    assert_eq!(driver.engine.applied(), (LogIndex(applied.0 + 1), Term(1)));
    assert_eq!(driver.engine.conf_state().unwrap().as_deref(), Some(&b"voters"[..]));
    let view = driver.hold();
    assert_eq!(view.cluster_version().unwrap().as_deref(), Some("3.7.0"));
    let nine =
        MemberAttributes { id: MemberId(9), name: "nine".to_owned(), client_urls: urls.to_vec() };
    let two = MemberAttributes { id: MemberId(2), name: "two".to_owned(), client_urls: vec![] };
    assert_eq!(view.members().unwrap(), [two, nine]);
    let mut scan = StoreHashScan::new();
    while scan.step(&view, 1).unwrap() == Progress::More {}
    assert!(scan.result().is_some());
}

#[test]
fn too_many_events_become_a_gap() {
    let mut driver = Driver::new(1);
    driver.engine.set_events_wanted(true, true);
    let value = vec![7; 1 << 20];
    for _ in 0..3 {
        let mut frames = Frames::new();
        for key in 0..6_u8 {
            frames = frames.put(&put(&[key], &value));
        }
        driver.apply(frames);
    }
    let revision = driver.engine.revision();
    let events = driver.events().unwrap();
    assert!(events.is_gap() && events.is_empty());
    assert_eq!((events.previous(), events.last()), (Revision(1), revision));
    assert!(events.size_bytes() < 1 << 16);
    driver.apply(Frames::new().put(&put(b"small", b"")));
    let events = driver.events().unwrap();
    assert!(!events.is_gap());
    assert_eq!((events.previous(), events.len()), (revision, 1));
}

#[test]
fn a_scan_overtaken_by_compaction_says_so() {
    let mut driver = Driver::new(1);
    driver.apply(Frames::new().put(&put(b"a", b"")).put(&put(b"b", b"")).put(&put(b"a", b"1")));
    let query = RangeQuery { key: b"a", range_end: b"z", revision: 3, ..RangeQuery::default() };
    let mut scan = RangeScan::new(&query);
    let mut records: Vec<OwnedRecord> = Vec::new();
    assert_eq!(scan.step(&driver.hold(), 1, &mut records).unwrap(), Progress::More);
    driver.apply(Frames::new().compact(compact(4)));
    let refused = scan.step(&driver.hold(), 1, &mut records).unwrap_err();
    assert!(matches!(refused, engine::ReadError::Rejection(Rejection::Compacted)), "{refused}");
}

#[test]
fn a_hot_key_is_read_at_each_of_its_revisions() {
    let mut driver = Driver::new(1);
    let value = |change: i64| change.to_le_bytes();
    // Put, put, put, deleted, and again: the chain goes on through the deletions.
    for change in 0..1200 {
        let put = PutRef { key: b"hot", value: &value(change), ..PutRef::default() };
        let delete = DeleteRangeRef { key: b"hot", ..DeleteRangeRef::default() };
        let frames = Frames::new();
        driver.apply(if change % 4 == 3 { frames.delete(&delete) } else { frames.put(&put) });
    }
    for compacted in [None, Some(700), Some(1100)] {
        if let Some(revision) = compacted {
            let compact = CompactRef { revision: Revision(revision), physical: false };
            driver.apply(Frames::new().compact(compact));
            driver.sweep();
        }
        for revision in compacted.unwrap_or(2)..1202 {
            let query = RangeQuery { key: b"hot", revision, ..RangeQuery::default() };
            let (records, _) = driver.range(&query).unwrap();
            let change = revision - 2;
            let expected = (change % 4 != 3).then(|| value(change).to_vec());
            let found = records.into_iter().next().map(|record| record.value);
            assert_eq!(found, expected, "revision {revision}, compacted {compacted:?}");
        }
    }
}
