//! Group commit: what goes to the disk, what is acknowledged when, and what happens when the disk
//! refuses.

// Helpers of a suite may panic as its tests do.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Log, SEGMENT_SIZE_BYTES, config, start};
use wal::sim::{Crash, Fault, Outcome, Random, recover, settle};
use wal::{
    AppendError, BLOCK_SIZE_BYTES, Cause, DiskErrorKind, DiskOp, Lsn, OpId, OpKind, RecordKind,
    STATE_SIZE_BYTES_MAX, SegmentSequence,
};

const KIND: RecordKind = RecordKind::owned(1);

fn writes(log: &mut Log) -> Vec<(OpId, DiskOp)> {
    log.issue();
    let waiting = std::mem::take(&mut log.waiting);
    let (writes, others) = waiting
        .into_iter()
        .partition(|(_, op)| matches!(op, DiskOp::Write { offset, .. } if *offset > 0));
    log.waiting = others;
    writes
}

#[test]
fn many_appends_become_one_padded_write() {
    let mut log = Log::create(1);
    log.settle();
    let durable = log.writer.durable();
    for _ in 0..20 {
        log.append(100);
    }
    assert!(writes(&mut log).is_empty(), "nothing goes out before the flush");
    assert_eq!(log.writer.pending_size_bytes(), 20 * (40 + 104));
    log.writer.flush();
    log.writer.flush();
    let writes = writes(&mut log);
    assert_eq!(writes.len(), 1);
    let (id, op) = writes.into_iter().next().unwrap();
    let DiskOp::Write { offset, buffer, .. } = &op else { panic!("{op:?}") };
    assert_eq!(offset % BLOCK_SIZE_BYTES as u64, 0);
    assert_eq!(buffer.as_slice().len(), BLOCK_SIZE_BYTES);
    assert_eq!(buffer.as_slice().as_ptr().addr() % BLOCK_SIZE_BYTES, 0);
    assert_eq!(log.writer.durable(), durable);
    let result = log.disk.perform(op);
    log.writer.handle_completion(id, result).unwrap();
    assert_eq!(log.writer.durable(), log.writer.sealed());
    assert!(log.writer.durable() >= log.model.appended.last().unwrap().0);
    assert_eq!(log.writer.backlog_size_bytes(), 0);
}

#[test]
fn padding_is_zeros_in_reused_buffers_too() {
    let mut log = Log::create(11);
    for size in [4000, 1, 3990, 9, 2000, 5] {
        log.append(size);
        log.settle();
        let batch = log.batches.last().unwrap();
        let at = usize::try_from(batch.offset).unwrap();
        let bytes = &log.disk.bytes(batch.segment)[at..at + batch.size_bytes];
        // Behind the record come its fill, the seal's frame, and the seal's fill.
        let (body, span) = (40 + size, 40 + size.next_multiple_of(8));
        assert!(bytes[body..span].iter().all(|byte| *byte == 0), "fill of {size}");
        assert!(bytes[span + 40..].iter().all(|byte| *byte == 0), "padding after {size}");
        assert_eq!(bytes.len() % BLOCK_SIZE_BYTES, 0);
    }
}

#[test]
fn completions_in_any_order_acknowledge_prefixes_only() {
    for seed in 1..=24 {
        let mut random = Random::new(seed);
        let mut log = Log::create(seed);
        log.settle();
        for _ in 0..4 {
            log.append(50);
            log.writer.flush();
        }
        let mut writes = writes(&mut log);
        assert_eq!(writes.len(), 4);
        let ends: Vec<Lsn> = writes
            .iter()
            .map(|(_, op)| {
                let (_, segment, offset) = op.place();
                Lsn(segment.0 * SEGMENT_SIZE_BYTES + offset + BLOCK_SIZE_BYTES as u64)
            })
            .collect();
        let ids: Vec<OpId> = writes.iter().map(|(id, _)| *id).collect();
        let mut done = [false; 4];
        while !writes.is_empty() {
            let (id, op) = writes.remove(random.below(writes.len()));
            let before = log.writer.durable();
            let result = log.disk.perform(op);
            log.writer.handle_completion(id, result).unwrap();
            done[ids.iter().position(|known| *known == id).unwrap()] = true;
            let prefix = done.iter().take_while(|done| **done).count();
            let expected = if prefix == 0 { before } else { ends[prefix - 1] };
            assert_eq!(log.writer.durable(), expected, "seed {seed}, {done:?}");
        }
    }
}

#[test]
fn writes_in_flight_and_backlog_are_bounded() {
    let mut log = Log::create(2);
    log.settle();
    for _ in 0..9 {
        log.append(10);
        log.writer.flush();
    }
    assert_eq!(writes(&mut log).len(), 4);
    assert_eq!(log.writer.writes_in_flight(), 4);
    let error = loop {
        match log.writer.append(KIND, &[&[0; 4000]]) {
            Ok(_) => assert!(log.writer.backlog_size_bytes() < 300 << 10),
            Err(error) => break error,
        }
    };
    assert_eq!(error, AppendError::Backlog);
    assert!(log.writer.backlog_size_bytes() + 4000 > config().backlog_size_bytes_max);
}

#[test]
fn records_and_states_at_their_limits_are_kept_and_beyond_are_refused() {
    let mut log = Log::create(3);
    let max = log.writer.record_size_bytes_max();
    assert_eq!(max, 32768 - 4096 - 80);
    for size in [max, max - 1, 0, max] {
        log.append(size);
        log.append(8);
        log.settle();
    }
    log.append_state(STATE_SIZE_BYTES_MAX);
    let size_bytes = max + 1;
    let refused = AppendError::TooLarge { size_bytes, size_bytes_max: max };
    assert_eq!(log.writer.append(KIND, &[&vec![1; max + 1]]), Err(refused));
    let size_bytes_max = STATE_SIZE_BYTES_MAX;
    let refused = AppendError::TooLarge { size_bytes: size_bytes_max + 1, size_bytes_max };
    assert_eq!(log.writer.append_state(&vec![1; size_bytes_max + 1]), Err(refused));
    log.settle();
    // The full state goes into the next head, too.
    log.append(max);
    log.settle();
    let log = log.crash(Crash::LosesAll, &[], "limits");
    assert_eq!(log.writer.state().unwrap().len(), STATE_SIZE_BYTES_MAX);
}

#[test]
fn the_largest_record_of_all_is_kept() {
    let mut config = config();
    config.segment_size_bytes = 36 << 20;
    config.backlog_size_bytes_max = 1 << 20;
    let mut log = Log::create_with(4, config.clone());
    log.settle();
    let max = log.writer.record_size_bytes_max();
    assert_eq!(max, wal::RECORD_SIZE_BYTES_MAX);
    // Larger than the backlog: accepted because nothing else waits.
    let body = vec![0xa5; max];
    log.writer.append(KIND, &[&body]).unwrap();
    log.settle();
    let Outcome::Open(_, records) = recover(&mut log.disk, &config, start(5), u64::MAX) else {
        panic!("the record was refused");
    };
    assert_eq!(records.len(), 1);
    assert!(records[0].body == body);
}

#[test]
fn a_failed_or_short_write_poisons_for_good_and_names_its_place() {
    for fault in
        [Fault::Error(DiskErrorKind::Io), Fault::Error(DiskErrorKind::NoSpace), Fault::Short]
    {
        let mut log = Log::create(5);
        log.settle();
        let durable = log.writer.durable();
        log.append(10);
        log.writer.flush();
        log.append(20);
        log.writer.flush();
        let mut writes = writes(&mut log);
        assert_eq!(writes.len(), 2);
        let (id, op) = writes.remove(0);
        let (_, segment, offset) = op.place();
        log.disk.fail_after(0, fault);
        let result = log.disk.perform(op);
        let failure = log.writer.handle_completion(id, result).unwrap_err();
        assert_eq!(
            (failure.operation, failure.segment, failure.offset),
            (OpKind::Write, segment, offset)
        );
        match (fault, failure.cause) {
            (Fault::Error(kind), Cause::Error(error)) => assert_eq!(error.kind, kind),
            (Fault::Short, Cause::Short { wanted_bytes, found_bytes }) => {
                assert_eq!((wanted_bytes, found_bytes), (4096, 0));
            }
            other => panic!("{other:?}"),
        }
        // The write behind it succeeds, which proves nothing.
        let (id, op) = writes.remove(0);
        let result = log.disk.perform(op);
        assert_eq!(log.writer.handle_completion(id, result), Err(failure));
        assert_eq!(log.writer.durable(), durable);
        assert_eq!(log.writer.append(KIND, &[b"more"]), Err(AppendError::Poisoned(failure)));
        assert_eq!(log.writer.append_state(b"more"), Err(AppendError::Poisoned(failure)));
        log.writer.flush();
        assert!(log.writer.poll_op().is_none());
        let text = failure.to_string();
        assert!(text.contains("0000000000000001.wal"), "{text}");
        log.crash(Crash::Tears, &[], "after a failed write");
    }
}

#[test]
fn a_failure_at_any_operation_of_a_life_is_told_and_loses_nothing() {
    for fault in [Fault::Error(DiskErrorKind::Io), Fault::Short] {
        for count in 0..120 {
            let mut log = Log::create(6);
            let mut random = Random::new(count);
            log.disk.fail_after(count, fault);
            let mut failed = None;
            while failed.is_none() && log.disk.performed() < 400 {
                let size = random.below(6000);
                log.append(size);
                log.writer.flush();
                log.issue();
                while !log.waiting.is_empty() && failed.is_none() {
                    let (id, op) = log.waiting.remove(random.below(log.waiting.len()));
                    let place = op.place();
                    let result = log.disk.perform(op);
                    let result = log.writer.handle_completion(id, result);
                    failed = result.err().map(|failure| (failure, place));
                    log.model.acknowledged = log.writer.durable();
                    log.issue();
                }
                if failed.is_none() {
                    log.release(log.writer.durable());
                }
            }
            let (failure, place) = failed.expect("the fault was met");
            assert_eq!((failure.operation, failure.segment, failure.offset), place);
            log.crash(Crash::Tears, &[], &format!("{fault:?} at operation {count}"));
        }
    }
}

#[test]
fn a_full_disk_starves_the_spare_first_and_recovers_when_space_returns() {
    let mut log = Log::create(7);
    log.disk.set_capacity(SEGMENT_SIZE_BYTES);
    log.append(100);
    log.settle();
    let starvation = log.writer.starvation().expect("no further segment can be had");
    assert_eq!(starvation.kind, DiskErrorKind::NoSpace);
    assert_eq!(log.disk.segments(), [SegmentSequence(1)]);
    // The segment in use goes on, nothing is tried again by itself.
    log.append(100);
    log.settle();
    let performed = log.disk.performed();
    assert!(log.writer.poll_op().is_none());
    log.disk.set_capacity(10 * SEGMENT_SIZE_BYTES);
    log.writer.retry_spare();
    log.settle();
    assert!(log.disk.performed() > performed);
    assert_eq!(log.writer.starvation(), None);
    assert_eq!(log.disk.segments(), [SegmentSequence(1), SegmentSequence(2)]);
    for _ in 0..10 {
        log.append(8000);
        log.settle();
    }
    log.crash(Crash::LosesAll, &[], "after a full disk");
}

#[test]
fn a_full_disk_ends_the_log_when_its_last_segment_is_full() {
    let mut log = Log::create(8);
    log.disk.set_capacity(SEGMENT_SIZE_BYTES);
    let failure = loop {
        log.append(3000);
        log.writer.flush();
        match settle(&mut log.disk, &mut log.writer) {
            Ok(()) if log.writer.durable() < log.writer.sealed() => {
                // The spare was refused earlier; this is the owner's attempt to go on.
                log.writer.retry_spare();
                break settle(&mut log.disk, &mut log.writer).unwrap_err();
            }
            Ok(()) => log.model.acknowledged = log.writer.durable(),
            Err(failure) => break failure,
        }
    };
    let Cause::Error(error) = failure.cause else { panic!("{failure}") };
    assert_eq!((failure.operation, error.kind), (OpKind::Create, DiskErrorKind::NoSpace));
    log.crash(Crash::LosesAll, &[], "full");
}

/// What the writer says it has room for is written on a disk that gives nothing more; what it has
/// no room for is what ends the log.
#[test]
fn the_room_that_is_left_is_told_exactly() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut log = Log::create(seed);
        let spares = random.below(3) as u64;
        log.disk.set_capacity((1 + spares) * SEGMENT_SIZE_BYTES);
        let size = loop {
            let size = match random.below(4) {
                0 => random.below(log.writer.record_size_bytes_max()),
                1 => random.below(9000),
                _ => random.below(300),
            };
            let Some(left) = log.writer.room_behind(size) else { break size };
            log.append(size);
            if random.once_in(3) {
                continue;
            }
            log.settle();
            assert_eq!(log.writer.durable(), log.writer.sealed(), "seed {seed}");
            if random.once_in(8) && log.writer.is_in_last_segment() {
                // Alone in its batch, as `room_behind` assumes.
                let end = log.writer.sealed().0 % SEGMENT_SIZE_BYTES;
                let rest = (SEGMENT_SIZE_BYTES - end) % SEGMENT_SIZE_BYTES;
                assert!(left <= rest, "seed {seed}: {left} told, {rest} left");
            }
        };
        log.settle();
        assert_eq!(log.writer.durable(), log.writer.sealed(), "seed {seed}");
        if log.writer.room_behind(size).is_some() {
            // The batch that was gathered before took less than it could have.
            continue;
        }
        let body = vec![1; size];
        log.writer.append(KIND, &[&body]).unwrap();
        log.writer.flush();
        let mut result = settle(&mut log.disk, &mut log.writer);
        if result.is_ok() {
            log.writer.retry_spare();
            result = settle(&mut log.disk, &mut log.writer);
        }
        assert!(result.is_err(), "seed {seed}: {size} bytes had room after all");
    }
}

#[test]
fn a_batch_waits_until_its_segment_is_named_durably() {
    let mut log = Log::create(9);
    // Fill the first segment and more, while no operation on the spare completes.
    while log.writer.appended() < Lsn(2 * SEGMENT_SIZE_BYTES) {
        log.append(6000);
    }
    log.writer.flush();
    let mut synced_name = false;
    let mut written = 0;
    while log.writer.durable() < log.writer.sealed() {
        log.issue();
        let (id, op) = log.waiting.remove(0);
        match op.place() {
            (OpKind::SyncDirectory, ..) => synced_name = true,
            // The mark goes to the same place, before the name.
            (OpKind::Write, SegmentSequence(2), 0) if !synced_name => {
                let DiskOp::Write { buffer, .. } = &op else { unreachable!() };
                assert_eq!(buffer.as_slice().len(), BLOCK_SIZE_BYTES);
            }
            (OpKind::Write, SegmentSequence(2), _) => {
                assert!(synced_name, "written before its name is durable");
                written += 1;
            }
            _ => {}
        }
        let result = log.disk.perform(op);
        log.writer.handle_completion(id, result).unwrap();
    }
    assert!(written > 0);
}

#[test]
fn retention_never_exceeds_its_spares() {
    let mut log = Log::create(10);
    for _ in 0..20 {
        log.append(20000);
        log.settle();
    }
    assert!(log.disk.segments().len() >= 20);
    let in_use = log.batches.last().unwrap().segment;
    log.release(log.writer.durable());
    log.settle();
    let (first, last) = (log.disk.segments()[0], *log.disk.segments().last().unwrap());
    // The release itself may have opened the next segment.
    assert!(first >= in_use, "{first} is older than {in_use}");
    assert!(last.0 <= in_use.0 + 1 + config().spares_max);
    log.crash(Crash::LosesAll, &[], "after a great release");
}
