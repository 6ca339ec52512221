//! Damage is told from a torn tail: what something later claims is reported by place, never cut;
//! what nothing claims is cut, never reported.

// Helpers of a suite may panic as its tests do.
#![allow(clippy::unwrap_used)]

mod support;

use support::{BatchSeen, Log, SEGMENT_SIZE_BYTES, config, start};
use wal::sim::{Crash, Outcome, OwnedRecord, Random, SECTOR_SIZE_BYTES, SimDisk, recover};
use wal::{
    BLOCK_SIZE_BYTES, Lsn, RecordKind, RecoveryError, Refusal, SegmentSequence, Start, Writer,
};

fn lsn(segment: SegmentSequence, offset: u64) -> Lsn {
    Lsn(segment.0 * SEGMENT_SIZE_BYTES + offset)
}

/// A log of several segments, the first of them released and recycled, at rest.
fn log_at_rest(seed: u64) -> Log {
    let mut log = Log::create(seed);
    let mut random = Random::new(seed);
    log.append_state(40);
    log.settle();
    while log.disk.segments()[0].0 < 3 {
        let size = random.below(5000);
        log.append(size);
        log.settle();
        log.release(log.writer.durable());
    }
    for _ in 0..14 {
        for _ in 0..random.below(4) {
            let size = random.below(3000);
            log.append(size);
        }
        log.append_state(8);
        log.settle();
    }
    log
}

fn open(disk: &mut SimDisk) -> Result<(Writer, Vec<OwnedRecord>), RecoveryError> {
    match recover(disk, &config(), start(99), u64::MAX) {
        Outcome::Open(writer, records) => Ok((*writer, records)),
        Outcome::Failed(error) => Err(error),
        Outcome::Interrupted(_) => unreachable!("no bound was set"),
    }
}

/// The batch that holds this byte, and whether a later one was written after it was durable.
fn batch_of(log: &Log, segment: SegmentSequence, offset: u64) -> Option<(BatchSeen, bool)> {
    let batch = log.batches.iter().rev().find(|batch| {
        let end = batch.offset + batch.size_bytes as u64;
        batch.segment == segment && (batch.offset..end).contains(&offset)
    })?;
    let begin = lsn(batch.segment, batch.offset);
    let claimed = log.batches.iter().any(|later| later.durable > begin);
    Some((batch.clone(), claimed))
}

/// What recovery must say when the given sector is no longer what it was.
fn check_damaged(log: &Log, disk: &mut SimDisk, segment: SegmentSequence, offset: u64) -> bool {
    let story = format!("segment {segment}, offset {offset}");
    let before = disk.clone();
    let result = open(disk);
    let Some((batch, claimed)) = batch_of(log, segment, offset) else {
        // Not part of the log: behind its end, in a spare, or in the gap at a segment's end.
        let (_, records) = result.unwrap_or_else(|error| panic!("{story}: {error}"));
        log.model.clone().check(&records, &story);
        return false;
    };
    if claimed {
        let Err(RecoveryError::Refused(refusal)) = result else {
            panic!("{story}: claimed, but cut");
        };
        let (damaged, offset_damaged) = (segment, offset);
        match refusal {
            Refusal::Rot { segment, offset, claimed, record, .. } => {
                let hole = lsn(segment, offset);
                let begin = lsn(batch.segment, batch.offset);
                let at = lsn(damaged, offset_damaged);
                assert!(hole <= at, "{story}: rot at {hole}");
                assert!(hole.0 + SEGMENT_SIZE_BYTES > begin.0, "{story}: rot at {hole}");
                assert!(claimed > begin, "{story}");
                assert!(record > 0, "{story}");
            }
            Refusal::HeadLost { segment: lost } => {
                assert_eq!((lost, offset / 4096), (segment, 0), "{story}");
            }
            other => panic!("{story}: {other}"),
        }
        for segment in before.segments() {
            assert!(disk.bytes(segment) == before.bytes(segment), "{story}: written to");
        }
        return true;
    }
    let (_, records) = result.unwrap_or_else(|error| panic!("{story}: {error}"));
    let begin = lsn(batch.segment, batch.offset);
    let mut model = log.model.clone();
    model.acknowledged = begin;
    model.check(&records, &story);
    assert!(records.iter().all(|record| record.end <= begin), "{story}: damaged record");
    false
}

#[test]
fn every_lost_torn_or_flipped_sector_is_reported_or_was_the_tail() {
    let log = log_at_rest(3);
    let mut random = Random::new(7);
    let mut refused = 0;
    for segment in log.disk.segments() {
        for sector in 0..usize::try_from(SEGMENT_SIZE_BYTES).unwrap() / SECTOR_SIZE_BYTES {
            for kind in 0..3 {
                let mut disk = log.disk.clone();
                let from = sector * SECTOR_SIZE_BYTES;
                let before = disk.bytes(segment).to_vec();
                disk.damage(segment, |bytes| {
                    let bytes = &mut bytes[from..from + SECTOR_SIZE_BYTES];
                    match kind {
                        0 => bytes.fill(0),
                        1 => bytes
                            .iter_mut()
                            .for_each(|byte| *byte = random.number().to_le_bytes()[0]),
                        _ => bytes[random.below(SECTOR_SIZE_BYTES)] ^= 1 << random.below(8),
                    }
                });
                if disk.bytes(segment) != before {
                    refused += u32::from(check_damaged(&log, &mut disk, segment, from as u64));
                }
            }
        }
    }
    // Most of the log is followed by something that claims it.
    assert!(refused > 300, "only {refused} refusals");
}

#[test]
fn every_cut_recovers_the_whole_batches_before_it() {
    let mut log = Log::create(4);
    let mut random = Random::new(4);
    while log.writer.appended() < Lsn(4 * SEGMENT_SIZE_BYTES) {
        let size = random.below(4000);
        log.append(size);
        log.append_state(8);
        log.settle();
    }
    check_cuts(&log, Lsn(SEGMENT_SIZE_BYTES + 4096));

    // On recycled files: from where the release of the files before is durable.
    for _ in 0..10 {
        log.append(7000);
        log.settle();
        log.release(log.writer.durable());
    }
    log.settle();
    let released = log.writer.durable();
    for _ in 0..20 {
        let size = random.below(4000);
        log.append(size);
        log.settle();
    }
    check_cuts(&log, released);
}

fn check_cuts(log: &Log, from: Lsn) {
    let mut cuts = 0;
    for segment in log.disk.segments() {
        for sector in 0..SEGMENT_SIZE_BYTES / SECTOR_SIZE_BYTES as u64 {
            let offset = sector * SECTOR_SIZE_BYTES as u64;
            let cut = lsn(segment, offset);
            if cut >= from && cut <= log.writer.sealed() {
                check_cut(log, segment, offset, false);
                check_cut(log, segment, offset, true);
                cuts += 1;
            }
        }
    }
    assert!(cuts > 100, "only {cuts} cuts");
}

// Everything that was written later is gone, as if time had stopped here. A torn tail leaves the
// size of the file as it was; a file that became shorter is damage, as long as its head says what
// it was. Without its head it is like one that was being prepared.
fn check_cut(log: &Log, segment: SegmentSequence, offset: u64, shorten: bool) {
    let cut = lsn(segment, offset);
    let story = format!("cut at {cut}, shortened: {shorten}");
    let mut disk = log.disk.clone();
    for later in log.disk.segments().into_iter().filter(|later| *later > segment) {
        disk.damage_name(later);
    }
    disk.damage(segment, |bytes| {
        let at = usize::try_from(offset).unwrap();
        if shorten { bytes.truncate(at) } else { bytes[at..].fill(0) }
    });
    if shorten && offset >= BLOCK_SIZE_BYTES as u64 {
        let before = disk.clone();
        match open(&mut disk) {
            Err(RecoveryError::Refused(refusal)) => assert_eq!(
                refusal,
                Refusal::SizeWrong {
                    segment,
                    found_bytes: offset,
                    expected_bytes: SEGMENT_SIZE_BYTES
                },
                "{story}"
            ),
            Err(error) => panic!("{story}: {error}"),
            Ok(_) => panic!("{story}: the end of the segment was lost in silence"),
        }
        assert_eq!(disk.bytes(segment), before.bytes(segment), "{story}");
        return;
    }
    let (_, records) = open(&mut disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    let ends =
        log.batches.iter().map(|batch| lsn(batch.segment, batch.offset + batch.size_bytes as u64));
    let mut model = log.model.clone();
    model.acknowledged = ends.filter(|end| *end <= cut).max().unwrap_or(Lsn::ZERO);
    model.check(&records, &story);
    assert!(records.iter().all(|record| record.end <= cut), "{story}");
    for segment in disk.segments() {
        assert_eq!(disk.bytes(segment).len() as u64, SEGMENT_SIZE_BYTES, "{story}");
    }
    // What was cut stays cut.
    let (_, again) = open(&mut disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    assert_eq!(records, again, "{story}");
}

#[test]
fn a_missing_segment_is_named() {
    let log = log_at_rest(5);
    let last = log.batches.last().unwrap().segment;
    for missing in log.disk.segments() {
        let mut disk = log.disk.clone();
        disk.damage_name(missing);
        match open(&mut disk) {
            // The newest spare may always be missing: it was never needed.
            Ok((_, records)) => {
                assert!(missing > last, "segment {missing} was not missed");
                log.model.clone().check(&records, "a spare is missing");
            }
            Err(RecoveryError::Refused(Refusal::SegmentMissing { segment })) => {
                assert_eq!(segment, missing);
            }
            // The newest records in another file: nothing is left that claims them.
            Err(error) => panic!("segment {missing}: {error}"),
        }
    }
}

#[test]
fn records_missing_before_the_owners_position_are_never_cut() {
    let mut log = Log::create(6);
    log.append(100);
    log.settle();
    let needed = log.writer.appended();
    // Nothing in the log claims its last batch, but the owner does.
    let batch = log.batches.last().unwrap().clone();
    let mut disk = log.disk.clone();
    disk.damage(batch.segment, |bytes| {
        bytes[usize::try_from(batch.offset).unwrap()..].fill(0);
    });
    let with_position = Start { replay_from: needed, ..start(9) };
    match recover(&mut disk.clone(), &config(), with_position, u64::MAX) {
        Outcome::Failed(RecoveryError::Refused(Refusal::EndsBefore { end, needed: asked })) => {
            assert_eq!((end, asked), (lsn(batch.segment, batch.offset), needed));
        }
        _ => panic!("the owner's position was ignored"),
    }
    assert!(open(&mut disk).is_ok());
    match recover(&mut SimDisk::new(1), &config(), with_position, u64::MAX) {
        Outcome::Failed(RecoveryError::Refused(Refusal::Absent)) => {}
        _ => panic!("a lost log was created anew"),
    }
    let existing = Start { may_create: false, ..start(9) };
    match recover(&mut SimDisk::new(1), &config(), existing, u64::MAX) {
        Outcome::Failed(RecoveryError::Refused(Refusal::Absent)) => {}
        _ => panic!("a log was created against the owner's word"),
    }
}

#[test]
fn foreign_renamed_and_unknown_files_are_refused_and_left_alone() {
    let log = log_at_rest(8);
    let refusal = |disk: &mut SimDisk, config: &wal::Config| {
        let before = disk.clone();
        let Outcome::Failed(RecoveryError::Refused(refusal)) =
            recover(disk, config, start(50), u64::MAX)
        else {
            panic!("not refused");
        };
        for segment in before.segments() {
            assert!(disk.bytes(segment) == before.bytes(segment));
        }
        refusal
    };
    let first = log.disk.segments()[0];
    let spare = *log.disk.segments().last().unwrap();
    let mut stranger = config();
    stranger.identity = b"member 2".to_vec();
    assert_eq!(refusal(&mut log.disk.clone(), &stranger), Refusal::Foreign { segment: first });

    let mut larger = config();
    larger.segment_size_bytes *= 2;
    let (found_bytes, expected_bytes) = (SEGMENT_SIZE_BYTES, 2 * SEGMENT_SIZE_BYTES);
    assert_eq!(
        refusal(&mut log.disk.clone(), &larger),
        Refusal::SizeWrong { segment: first, found_bytes, expected_bytes }
    );

    let mut disk = log.disk.clone();
    disk.damage(first, |bytes| bytes.push(0));
    assert_eq!(
        refusal(&mut disk, &config()),
        Refusal::SizeWrong {
            segment: first,
            found_bytes: SEGMENT_SIZE_BYTES + 1,
            expected_bytes: SEGMENT_SIZE_BYTES
        }
    );

    let mut disk = log.disk.clone();
    disk.damage_rename(spare, SegmentSequence(first.0 - 1));
    assert_eq!(
        refusal(&mut disk, &config()),
        Refusal::Misplaced { segment: SegmentSequence(first.0 - 1) }
    );

    // The same identity, but another log: a copy of one file among the files of another.
    let mut other = Log::create(77);
    for _ in 0..8 {
        other.append(6000);
        other.settle();
    }
    let mut disk = log.disk.clone();
    let mixed = SegmentSequence(first.0 + 1);
    let second = SegmentSequence(2);
    assert!(other.disk.segments().contains(&second));
    let mut bytes = other.disk.bytes(second).to_vec();
    rename_head(&mut bytes, mixed);
    disk.damage(mixed, |file| *file = bytes);
    assert_eq!(refusal(&mut disk, &config()), Refusal::Foreign { segment: mixed });
}

// Gives a head another sequence number, with a checksum that fits.
fn rename_head(bytes: &mut [u8], segment: SegmentSequence) {
    bytes[24..32].copy_from_slice(&segment.0.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..4096]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
}

#[test]
fn a_lost_head_of_the_newest_segment_is_the_tail_until_its_records_are_claimed() {
    for batches in 1..=2 {
        let mut log = Log::create(9);
        while log.batches.last().is_none_or(|batch| batch.segment.0 == 1) {
            log.append(3000);
            log.settle();
        }
        for _ in 1..batches {
            log.append(10);
            log.settle();
        }
        let newest = log.batches.last().unwrap().segment;
        let mut disk = log.disk.clone();
        disk.damage(newest, |bytes| bytes[..4096].fill(0x5a));
        match open(&mut disk) {
            Ok((writer, records)) => {
                assert_eq!(batches, 1, "a claimed segment was cut");
                assert!(writer.durable() <= lsn(newest, 0));
                assert!(!records.is_empty());
            }
            Err(RecoveryError::Refused(Refusal::Rot { claimed, claimed_at, .. })) => {
                assert_eq!(batches, 2, "an unclaimed tail was refused");
                assert!(claimed > lsn(newest, 0));
                assert!(claimed_at > lsn(newest, 0));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn bytes_of_an_older_life_of_a_file_are_never_records() {
    // Recycled files are not zeroed: behind the newest batch lie whole, checksummed records of
    // the file's earlier life. No cut may let one of them in.
    for seed in 20..40 {
        let mut log = Log::create(seed);
        for _ in 0..60 {
            log.append(3000);
            log.settle();
            log.release(log.writer.durable());
        }
        let last = log.batches.last().unwrap().clone();
        let stale = &log.disk.bytes(last.segment)
            [usize::try_from(last.offset).unwrap() + last.size_bytes..];
        let full = stale.is_empty();
        assert!(full || stale.iter().any(|byte| *byte != 0), "the file was not recycled");
        let count = log.model.appended.len();
        let log = log.crash(Crash::LosesAll, &[], "recycled");
        assert_eq!(log.model.appended.len(), count);
    }
}

#[test]
fn a_client_cannot_write_a_frame() {
    // A record that quotes the log's own bytes, in a batch whose own frame is then lost: the quoted
    // frames claim nothing, for their positions are not where they lie.
    let mut log = Log::create(10);
    log.append(500);
    log.settle();
    log.append(500);
    log.settle();
    let quoted = log.disk.bytes(SegmentSequence(1))[4096..16384].to_vec();
    let kind = RecordKind::owned(1);
    log.writer.append(kind, &[&quoted]).unwrap();
    let batch_count = log.batches.len();
    log.settle();
    let batch = log.batches[batch_count].clone();
    let mut disk = log.disk.clone();
    disk.damage(batch.segment, |bytes| {
        bytes[usize::try_from(batch.offset).unwrap()..][..512].fill(0);
    });
    let (writer, _) = open(&mut disk).unwrap();
    assert_eq!(writer.durable(), lsn(batch.segment, batch.offset));
}
