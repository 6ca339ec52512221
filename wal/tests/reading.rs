//! Old positions are re-read with every check, up to what is durable and from no released place.

// Helpers of a suite may panic as its tests do.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Log, SEGMENT_SIZE_BYTES, config, start};
use wal::sim::{Fault, Outcome, OwnedRecord, Random, SimDisk, recover};
use wal::{DiskErrorKind, Lsn, ReadError, Reader, Recovery, Start};

fn read(disk: &mut SimDisk, mut reader: Reader) -> Result<Vec<OwnedRecord>, ReadError> {
    let mut records = Vec::new();
    loop {
        while let Some((id, op)) = reader.poll_op() {
            let result = disk.perform(op);
            reader.handle_completion(id, result);
        }
        while let Some(record) = reader.poll_record() {
            let body = record.body.to_vec();
            let (start, end, kind) = (record.start, record.end, record.kind);
            records.push(OwnedRecord { start, end, kind, body });
        }
        if reader.poll_done()? {
            return Ok(records);
        }
    }
}

fn long_log(seed: u64) -> Log {
    let mut log = Log::create(seed);
    let mut random = Random::new(seed);
    for _ in 0..40 {
        for _ in 0..random.below(5) {
            let size = random.below(4000);
            log.append(size);
        }
        log.settle();
    }
    log
}

#[test]
fn reading_from_the_end_of_any_record_yields_exactly_the_rest() {
    for seed in 1..=4 {
        let mut log = long_log(seed);
        // Not durable, thus not to be read.
        log.append(10);
        log.writer.flush();
        log.append(10);
        let durable = log.model.appended.len() - 2;
        for index in 0..durable {
            let (from, ..) = log.model.appended[index];
            let records = read(&mut log.disk, log.writer.reader(from).unwrap()).unwrap();
            let expected = &log.model.appended[index + 1..durable];
            assert_eq!(records.len(), expected.len(), "seed {seed}, from {from}");
            for (record, (end, kind, body)) in records.iter().zip(expected) {
                assert_eq!((record.end, record.kind, &record.body), (*end, *kind, body));
            }
            let Some(first) = records.first() else { continue };
            let again = read(&mut log.disk, log.writer.reader(first.start).unwrap()).unwrap();
            assert_eq!(again, records);
        }
        let all = read(&mut log.disk, log.writer.reader(log.writer.first()).unwrap()).unwrap();
        assert_eq!(all.len(), durable);
    }
}

#[test]
fn what_is_written_but_not_yet_durable_is_not_read() {
    let mut log = long_log(7);
    let durable = log.model.appended.len();
    log.append(10);
    log.writer.flush();
    log.issue();
    let (id, op) = log.waiting.remove(0);
    let result = log.disk.perform(op);
    let from = log.model.appended[durable / 2].0;
    let reader = log.writer.reader(from).unwrap();
    let records = read(&mut log.disk, reader).unwrap();
    assert_eq!(records.len(), durable - durable / 2 - 1);
    log.writer.handle_completion(id, result).unwrap();
    let reader = log.writer.reader(from).unwrap();
    assert_eq!(read(&mut log.disk, reader).unwrap().len(), records.len() + 1);
}

#[test]
fn what_was_released_is_not_offered() {
    let mut log = long_log(5);
    let middle = log.model.appended[log.model.appended.len() / 2].0;
    log.release(middle);
    let before = Lsn(middle.0 / SEGMENT_SIZE_BYTES * SEGMENT_SIZE_BYTES);
    // At once, though the files are still there.
    assert!(log.writer.reader(Lsn(before.0 - 1)).is_none());
    assert!(log.writer.reader(Lsn::ZERO).is_none());
    log.settle();
    assert!(log.writer.first() == before || log.writer.first() < before);
    assert!(!read(&mut log.disk, log.writer.reader(middle).unwrap()).unwrap().is_empty());
}

#[test]
fn damage_and_failures_are_told_by_place() {
    let log = long_log(6);
    let batches: Vec<_> = log.batches.iter().filter(|batch| batch.segment.0 == 2).collect();
    let batch = batches[batches.len() / 2];
    let mut disk = log.disk.clone();
    disk.damage(batch.segment, |bytes| bytes[usize::try_from(batch.offset).unwrap() + 60] ^= 1);
    match read(&mut disk, log.writer.reader(log.writer.first()).unwrap()) {
        Err(ReadError::Damaged { segment, offset, record }) => {
            assert_eq!((segment, offset), (batch.segment, batch.offset));
            assert!(record > 1);
        }
        other => panic!("{other:?}"),
    }
    for fault in [Fault::Error(DiskErrorKind::Io), Fault::Short] {
        for count in 0..4 {
            let mut disk = log.disk.clone();
            disk.fail_after(count, fault);
            let result = read(&mut disk, log.writer.reader(log.writer.first()).unwrap());
            assert!(matches!(result, Err(ReadError::Disk(_))), "{result:?}");
        }
    }
}

fn log_of_large_records(seed: u64) -> Log {
    let mut config = config();
    config.segment_size_bytes = 8 << 20;
    config.batch_size_bytes = 1 << 20;
    config.backlog_size_bytes_max = 16 << 20;
    let mut log = Log::create_with(seed, config);
    let mut random = Random::new(seed);
    for _ in 0..40 {
        let size = match random.below(4) {
            0 => random.below(3 << 20),
            1 => random.below(400 << 10),
            _ => random.below(2000),
        };
        log.append(size);
        if random.once_in(3) {
            log.settle();
        }
    }
    log.settle();
    log
}

#[test]
fn records_larger_than_a_read_are_put_together() {
    for seed in 1..=3 {
        let mut log = log_of_large_records(seed);
        let expected = log.model.appended.clone();
        let from = log.writer.first();
        let records = read(&mut log.disk, log.writer.reader(from).unwrap()).unwrap();
        let same = records.iter().zip(&expected).all(|(record, (end, kind, body))| {
            record.end == *end && record.kind == *kind && record.body == *body
        });
        assert!(same, "seed {seed}");
        assert_eq!(records.len(), expected.len());
        let config = log.config.clone();
        match recover(&mut log.disk, &config, start(50), u64::MAX) {
            Outcome::Open(_, recovered) => assert!(recovered == records, "seed {seed}"),
            _ => panic!("seed {seed}"),
        }
    }
}

#[test]
fn recovery_waits_for_an_owner_who_takes_records_one_by_one() {
    let mut log = log_of_large_records(4);
    let mut recovery = Recovery::new(log.config.clone(), start(50));
    let mut ends = Vec::new();
    while !recovery.poll_done().unwrap() {
        if let Some((id, op)) = recovery.poll_op() {
            let result = log.disk.perform(op);
            recovery.handle_completion(id, result);
        }
        ends.extend(recovery.poll_record().map(|record| record.end));
    }
    let expected: Vec<Lsn> = log.model.appended.iter().map(|(end, ..)| *end).collect();
    assert_eq!(ends, expected);
}

#[test]
fn replay_begins_with_the_segment_of_the_owners_position() {
    let mut log = long_log(8);
    log.append_state(30);
    log.append(20000);
    log.settle();
    let count = log.model.appended.len();
    for index in (0..count).step_by(7) {
        let (replay_from, ..) = log.model.appended[index];
        let mut disk = log.disk.clone();
        let start = Start { replay_from, ..start(50) };
        let Outcome::Open(writer, records) = recover(&mut disk, &config(), start, u64::MAX) else {
            panic!("from {replay_from}");
        };
        // The wanted ones are all there, and no more than one segment beside them.
        let wanted = &log.model.appended[index + 1..];
        assert!(records.len() >= wanted.len());
        let extra = records.len() - wanted.len();
        for (record, (end, _, body)) in records[extra..].iter().zip(wanted) {
            assert_eq!((record.end, &record.body), (*end, body));
        }
        assert!(records[0].start.0 + SEGMENT_SIZE_BYTES > replay_from.0 || extra == 0);
        assert_eq!(writer.state(), log.model.state());
        assert_eq!(writer.durable(), log.writer.durable());
    }
}
