//! Defragmentation as an operator sees it: the files shrink, and nothing else changes.

use crate::driver::{Driver, Frames};
use engine::command::{CompactRef, DeleteRangeRef, PutRef};
use engine::{HeldView, OwnedRecord, Progress, RangeQuery, RangeScan};

const KEYS: u32 = 8_000;
const PAGE_SIZE_BYTES: u64 = 4096;

fn key(number: u32) -> Vec<u8> {
    format!("key/{number:06}").into_bytes()
}

/// Every tenth value is large enough for pages of its own.
fn value(number: u32) -> Vec<u8> {
    vec![number.to_le_bytes()[0]; if number.is_multiple_of(10) { 9000 } else { 600 }]
}

fn write(driver: &mut Driver, numbers: impl Iterator<Item = u32>) {
    let numbers: Vec<u32> = numbers.collect();
    for numbers in numbers.chunks(100) {
        let mut frames = Frames::new();
        for &number in numbers {
            let (key, value) = (key(number), value(number));
            frames = frames.put(&PutRef { key: &key, value: &value, ..PutRef::default() });
        }
        driver.apply(frames);
    }
}

/// A store most of which was deleted and compacted away.
fn hollow(shards: u16) -> Driver {
    let mut driver = Driver::new(shards);
    // Twice, in two orders: what is left stands among what goes.
    write(&mut driver, 0..KEYS);
    driver.checkpoint();
    write(&mut driver, (0..KEYS).map(|number| number * 7 % KEYS));
    let (from, to) = (key(KEYS / 20), key(KEYS - KEYS / 20));
    let delete = DeleteRangeRef { key: &from, range_end: &to, prev_kv: false };
    driver.apply(Frames::new().delete(&delete));
    let revision = driver.engine.revision();
    driver.apply(Frames::new().compact(CompactRef { revision, physical: false }));
    driver.sweep();
    driver.checkpoint();
    driver
}

fn everything(view: &HeldView) -> Vec<OwnedRecord> {
    let query = RangeQuery { key: b"\0", range_end: b"\0", ..RangeQuery::default() };
    let mut records = Vec::new();
    let mut scan = RangeScan::new(&query);
    while scan.step(view, usize::MAX, &mut records).unwrap() == Progress::More {}
    records
}

/// The size that was told was the one that the file should have had.
#[test]
fn a_file_that_the_disk_does_not_shorten_is_told_as_long_as_it_is() {
    let mut driver = hollow(1);
    let expected = everything(&driver.hold());
    let (before, file_before) = (driver.hold().size_bytes, driver.engine.file_size_bytes());
    driver.refuses_to_shorten = true;
    driver.defrag();
    let file = driver.engine.file_size_bytes();
    assert!(file >= file_before);
    // What is free is used again, and the next run has another try.
    write(&mut driver, 0..KEYS / 20);
    assert_eq!(driver.engine.file_size_bytes(), file);
    assert!(driver.hold().size_bytes >= before);
    driver.checkpoint();
    driver.refuses_to_shorten = false;
    driver.defrag();
    assert!(driver.hold().size_bytes < before / 3);
    assert!(driver.engine.file_size_bytes() < file);
    driver.reopen();
    assert!(everything(&driver.hold()).len() == expected.len());
}

/// What the operator's recovery from a full quota rests on.
#[test]
fn the_size_falls_to_what_is_in_use() {
    for shards in [1, 2, 4, 8] {
        let mut driver = hollow(shards);
        let expected = everything(&driver.hold());
        let (before, file_before) = (driver.hold().size_bytes, driver.engine.file_size_bytes());
        driver.defrag();
        let view = driver.hold();
        assert!(everything(&view) == expected, "{shards} shards");
        let (size, in_use) = (view.size_bytes, view.in_use_bytes);
        assert!(size < before / 3, "{shards} shards: {before} bytes became {size}");
        // The room left for changes under way, and the map of the last checkpoint.
        let spare = in_use / 16 + u64::from(shards) * 140 * PAGE_SIZE_BYTES;
        assert!(size <= in_use + spare, "{shards} shards: {size} bytes for {in_use}");
        let file = driver.engine.file_size_bytes();
        // Each file keeps room for the next batch, which is much beside so little.
        assert!(shards > 1 || file < file_before / 2, "{shards} shards: {file_before}, {file}");
        drop(view);
        driver.reopen();
        assert!(everything(&driver.hold()) == expected, "{shards} shards after a restart");
        // And it is good to go on with.
        write(&mut driver, 0..KEYS);
        driver.checkpoint();
        driver.reopen();
        assert_eq!(everything(&driver.hold()).len(), KEYS as usize);
    }
}

#[test]
fn readers_and_writers_go_on_between_the_steps() {
    for shards in [1, 2, 4, 8] {
        let mut driver = hollow(shards);
        let held = driver.hold();
        let expected = everything(&held);
        driver.engine.begin_defrag();
        let (mut steps, mut number) = (0, 0);
        while driver.engine.is_defragmenting() {
            driver.defrag_step(20);
            if steps % 8 == 0 {
                write(&mut driver, (number..number + 20).map(|number| number % KEYS));
                number += 20;
            }
            if steps % 64 == 0 {
                assert!(everything(&held) == expected, "{shards} shards, step {steps}");
            }
            steps += 1;
            assert!(steps < 100_000, "{shards} shards: no end");
        }
        assert!(everything(&held) == expected, "{shards} shards");
        let mut found = everything(&driver.hold());
        let of_number = |record: &OwnedRecord| {
            let number = std::str::from_utf8(&record.key[4..]).unwrap().parse().unwrap();
            assert!(record.value == value(number), "{shards} shards: {number}");
            number
        };
        let left: Vec<u32> = found.drain(..).map(|record| of_number(&record)).collect();
        let is_left = |number: &u32| {
            let deleted = (KEYS / 20..KEYS - KEYS / 20).contains(number);
            *number < number_end(steps) || !deleted
        };
        assert_eq!(left, (0..KEYS).filter(is_left).collect::<Vec<_>>(), "{shards} shards");
        // What the old view held back comes with the next run.
        drop(held);
        driver.defrag();
        let view = driver.hold();
        assert!(view.size_bytes <= view.in_use_bytes * 3 / 2, "{shards} shards: {:?}", *view);
    }
}

/// How many keys were written again in so many steps.
fn number_end(steps: u32) -> u32 {
    steps.div_ceil(8) * 20
}

#[test]
fn a_step_copies_what_its_budget_says() {
    let mut driver = hollow(1);
    driver.engine.begin_defrag();
    let budget = 16;
    let (mut moved, mut steps) = (0, 0);
    while driver.engine.is_defragmenting() {
        steps += 1;
        assert!(steps < 10_000, "no end");
        let before = driver.engine.dirty_bytes();
        let took_checkpoint = driver.defrag_step(budget);
        let copied = driver.engine.dirty_bytes().saturating_sub(before) / PAGE_SIZE_BYTES;
        // The last leaf of a step may bring its path and one large value.
        assert!(copied <= budget as u64 + 12, "{copied} pages in a step");
        moved += if took_checkpoint { 0 } else { copied };
    }
    assert!(moved > 100, "{moved} pages: there was nothing to move");
}

/// A value of many pages finds no room among holes of a few: what is left must not stand where it
/// was for ever.
#[test]
fn large_values_come_down_into_small_holes() {
    const LARGE_SIZE_BYTES: usize = 300_000;
    let mut driver = Driver::new(1);
    for part in 0..20 {
        write(&mut driver, part * 400..(part + 1) * 400);
        let (key, value) = (format!("large/{part:02}"), vec![7; LARGE_SIZE_BYTES]);
        let put = PutRef { key: key.as_bytes(), value: &value, ..PutRef::default() };
        driver.apply(Frames::new().put(&put));
        driver.checkpoint();
    }
    // One key in eight stays, and with it most pages' neighbours.
    for numbers in (0..KEYS).collect::<Vec<_>>().chunks(100) {
        let mut frames = Frames::new();
        for &number in numbers.iter().filter(|&number| !number.is_multiple_of(8)) {
            let key = key(number);
            let delete = DeleteRangeRef { key: &key, range_end: b"", prev_kv: false };
            frames = frames.delete(&delete);
        }
        driver.apply(frames);
    }
    let revision = driver.engine.revision();
    driver.apply(Frames::new().compact(CompactRef { revision, physical: false }));
    driver.sweep();
    driver.checkpoint();
    let expected = everything(&driver.hold());
    let before = driver.hold().size_bytes;
    for die_after in [15, 60, 150, 250] {
        driver.engine.begin_defrag();
        for _ in 0..die_after {
            driver.defrag_step(16);
        }
        driver.reopen();
        assert!(everything(&driver.hold()) == expected, "dead after {die_after} steps");
    }
    driver.defrag();
    let view = driver.hold();
    assert!(everything(&view) == expected);
    let spare = view.in_use_bytes / 16 + 140 * PAGE_SIZE_BYTES;
    let (size, in_use) = (view.size_bytes, view.in_use_bytes);
    assert!(size <= in_use + spare, "{before} bytes became {size} for {in_use}");
    drop(view);
    driver.reopen();
    assert!(everything(&driver.hold()) == expected, "after a restart");
}

#[test]
fn a_run_that_dies_anywhere_loses_nothing() {
    let expected = everything(&hollow(2).hold());
    for die_after in (0..200).step_by(29) {
        let mut driver = hollow(2);
        driver.engine.begin_defrag();
        for _ in 0..die_after {
            driver.defrag_step(30);
        }
        driver.reopen();
        assert!(everything(&driver.hold()) == expected, "dead after {die_after} steps");
        driver.defrag();
        assert!(everything(&driver.hold()) == expected, "dead after {die_after} steps");
        assert!(driver.hold().size_bytes <= driver.hold().in_use_bytes * 3 / 2 + (1 << 20));
    }
}
