//! What lies behind the end: it may vouch for what is lost, and must never come back by itself.

// Helpers of a suite may panic as its tests do.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Log, SEGMENT_SIZE_BYTES, config, start};
use wal::sim::{Outcome, OwnedRecord, SimDisk, recover};
use wal::{BLOCK_SIZE_BYTES, Lsn, RecoveryError, Refusal, SegmentSequence, Writer};

const FIRST: SegmentSequence = SegmentSequence(1);
const SECOND: SegmentSequence = SegmentSequence(2);

fn open(disk: &mut SimDisk, boot_nonce: u64) -> Result<(Writer, Vec<OwnedRecord>), RecoveryError> {
    match recover(disk, &config(), start(boot_nonce), u64::MAX) {
        Outcome::Open(writer, records) => Ok((*writer, records)),
        Outcome::Failed(error) => Err(error),
        Outcome::Interrupted(_) => unreachable!("no bound was set"),
    }
}

fn rot(disk: &mut SimDisk) -> (Lsn, Lsn, Lsn) {
    match open(disk, 90) {
        Err(RecoveryError::Refused(Refusal::Rot {
            segment, offset, claimed, claimed_at, ..
        })) => (Lsn(segment.0 * SEGMENT_SIZE_BYTES + offset), claimed, claimed_at),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("what was durable was cut"),
    }
}

fn zero(disk: &mut SimDisk, segment: SegmentSequence, from: u64, size: usize) {
    let from = usize::try_from(from).unwrap();
    disk.damage(segment, |bytes| bytes[from..from + size].fill(0));
}

/// Two batches were in flight; the second arrived, the first did not.
fn second_of_two_arrived() -> (Log, u64) {
    let mut log = Log::create(1);
    log.append(100);
    log.settle();
    log.append(10);
    log.writer.flush();
    log.append(20);
    log.settle();
    let first = log.batches[log.batches.len() - 2].clone();
    assert_eq!((first.segment, first.size_bytes), (FIRST, BLOCK_SIZE_BYTES));
    zero(&mut log.disk, FIRST, first.offset, BLOCK_SIZE_BYTES);
    (log, first.offset)
}

#[test]
fn what_was_cut_is_erased_from_the_disk() {
    let (mut log, offset) = second_of_two_arrived();
    let end = usize::try_from(offset).unwrap();
    assert!(log.disk.bytes(FIRST)[end..].iter().any(|byte| *byte != 0));
    let (writer, records) = open(&mut log.disk, 2).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(writer.durable(), Lsn(SEGMENT_SIZE_BYTES + offset));
    assert!(log.disk.bytes(FIRST)[end..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_cut_batch_that_reappears_does_not_continue_the_new_chain() {
    // The medium shows an erased batch again, at the very position where the next one is expected,
    // with the right number: only the boot record in between breaks the chain.
    let (mut log, offset) = second_of_two_arrived();
    let at = usize::try_from(offset).unwrap() + BLOCK_SIZE_BYTES;
    let cut = log.disk.bytes(FIRST)[at..at + BLOCK_SIZE_BYTES].to_vec();
    let (mut writer, before) = open(&mut log.disk, 2).unwrap();
    wal::sim::settle(&mut log.disk, &mut writer).unwrap();
    assert_eq!(writer.durable(), Lsn(SEGMENT_SIZE_BYTES + at as u64));
    log.disk.damage(FIRST, |bytes| bytes[at..at + BLOCK_SIZE_BYTES].copy_from_slice(&cut));
    let (_, after) = open(&mut log.disk, 3).unwrap();
    assert_eq!(before, after);
}

#[test]
fn two_starts_without_a_new_record_differ_by_their_nonce() {
    let mut log = Log::create(1);
    log.settle();
    let mut images = Vec::new();
    for nonce in [2, 3] {
        let mut disk = log.disk.clone();
        let (mut writer, _) = open(&mut disk, nonce).unwrap();
        wal::sim::settle(&mut disk, &mut writer).unwrap();
        images.push(disk.bytes(FIRST).to_vec());
    }
    assert!(images[0] != images[1]);
}

#[test]
fn a_start_claims_what_it_recovered() {
    let mut log = Log::create(1);
    log.append(100);
    log.settle();
    let batch = log.batches.last().unwrap().clone();
    let (mut writer, _) = open(&mut log.disk, 2).unwrap();
    wal::sim::settle(&mut log.disk, &mut writer).unwrap();
    zero(&mut log.disk, FIRST, batch.offset, BLOCK_SIZE_BYTES);
    let (hole, claimed, claimed_at) = rot(&mut log.disk);
    assert_eq!(hole, Lsn(SEGMENT_SIZE_BYTES + batch.offset));
    assert!(claimed > hole);
    assert!(claimed_at >= claimed);
}

fn log_that_opened_its_second_segment() -> Log {
    let mut log = Log::create(1);
    while log.batches.last().is_none_or(|batch| batch.segment == FIRST) {
        // Four blocks: after one of them, there is room for a boot record but not for another.
        log.append(14000);
        log.settle();
    }
    log
}

#[test]
fn a_head_alone_vouches_for_the_segment_before() {
    let mut log = log_that_opened_its_second_segment();
    let last = log.batches.iter().rfind(|batch| batch.segment == FIRST).unwrap().clone();
    let size = usize::try_from(SEGMENT_SIZE_BYTES).unwrap();
    zero(&mut log.disk, SECOND, 4096, size - 4096);
    zero(&mut log.disk, FIRST, last.offset, last.size_bytes);
    let (hole, claimed, claimed_at) = rot(&mut log.disk);
    assert_eq!(hole, Lsn(SEGMENT_SIZE_BYTES + last.offset));
    assert_eq!(claimed.0, hole.0 + last.size_bytes as u64);
    assert_eq!(claimed_at, Lsn(2 * SEGMENT_SIZE_BYTES));
}

#[test]
fn a_spare_that_an_opening_write_touched_is_not_kept() {
    // The opening write of the second segment arrived without its first block.
    let mut log = log_that_opened_its_second_segment();
    let mark = {
        let mut other = Log::create(1);
        other.settle();
        other.disk.bytes(SECOND)[..4096].to_vec()
    };
    log.disk.damage(SECOND, |bytes| bytes[..4096].copy_from_slice(&mark));
    let (mut writer, records) = open(&mut log.disk, 2).unwrap();
    assert_eq!(records.len(), log.model.appended.len() - 1);
    assert_eq!(log.disk.segments(), [FIRST]);
    wal::sim::settle(&mut log.disk, &mut writer).unwrap();
    // Made anew, and clean.
    let bytes = log.disk.bytes(SECOND);
    assert!(bytes[..4096] == mark);
    assert!(bytes[4096..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_claim_in_the_middle_of_a_block_is_found() {
    // The frame at the batch's start claims nothing, because the batch before was still in flight
    // when it was appended, and is lost as well; the frame behind it knew better.
    let mut log = Log::create(1);
    log.settle();
    log.append(100);
    log.writer.flush();
    log.append(1000);
    log.issue();
    while !log.waiting.is_empty() {
        log.complete(0);
        log.issue();
    }
    let lost = log.batches.last().unwrap().clone();
    log.append(50);
    log.settle();
    let behind = log.batches.last().unwrap().clone();
    assert_eq!(behind.offset, lost.offset + BLOCK_SIZE_BYTES as u64);
    zero(&mut log.disk, FIRST, lost.offset, BLOCK_SIZE_BYTES + 512);
    let (hole, claimed, claimed_at) = rot(&mut log.disk);
    assert_eq!(hole, Lsn(SEGMENT_SIZE_BYTES + lost.offset));
    assert_eq!(claimed, Lsn(SEGMENT_SIZE_BYTES + behind.offset));
    assert_ne!(claimed_at.0 % 512, 0);
}
