//! Whatever the files hold, recovery ends with a log or a refusal: nothing on a disk reaches an
//! assert, and a refused log is left as it was.

// Helpers of a suite may panic as its tests do.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Log, SEGMENT_SIZE_BYTES, config, start};
use wal::sim::{Outcome, Random, SimDisk, recover, settle};
use wal::{Lsn, RecoveryError, SegmentSequence, Start};

fn log(random: &mut Random, seed: u64) -> Log {
    let mut log = Log::create(seed);
    for _ in 0..random.below(30) {
        let size = random.below(6000);
        log.append(size);
        log.append_state(size % 100);
        if random.once_in(2) {
            log.settle();
        }
        if random.once_in(8) {
            log.release(log.writer.durable());
        }
    }
    log.settle();
    log
}

// A checksum that fits what the head now says.
fn seal_head(bytes: &mut [u8]) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..4096]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
}

fn damage(disk: &mut SimDisk, random: &mut Random) {
    let segments = disk.segments();
    let segment = segments[random.below(segments.len())];
    let other = segments[random.below(segments.len())];
    match random.below(8) {
        0 => {
            let size = random.below(usize::try_from(2 * SEGMENT_SIZE_BYTES).unwrap());
            disk.damage(segment, |bytes| bytes.resize(size, 0xcc));
        }
        1 => disk.damage_name(segment),
        2 => {
            let to = SegmentSequence(1 + random.below(12) as u64);
            if !segments.contains(&to) {
                disk.damage_rename(segment, to);
            }
        }
        3 => {
            let copy = disk.bytes(other).to_vec();
            disk.damage(segment, |bytes| *bytes = copy);
        }
        // Fields of a head that no writer has written, under a right checksum.
        4..=6 => disk.damage(segment, |bytes| {
            for _ in 0..1 + random.below(3) {
                let (at, value) = (8 + random.below(160), random.number().to_le_bytes()[0]);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if random.once_in(3) { 0xff } else { value };
                }
            }
            if bytes.len() >= 4096 {
                seal_head(bytes);
            }
        }),
        _ => disk.damage(segment, |bytes| {
            for _ in 0..random.below(40) {
                let at = random.below(bytes.len() + 1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.number().to_le_bytes()[0];
                }
            }
        }),
    }
}

#[test]
fn any_garbage_ends_in_a_log_or_in_a_refusal_that_changes_nothing() {
    let (mut opened, mut refused) = (0, 0);
    for seed in 1..=4000 {
        let mut random = Random::new(seed);
        // A few logs, damaged in many ways.
        let Log { mut disk, .. } = log(&mut Random::new(seed % 40), seed % 40);
        for _ in 0..1 + random.below(3) {
            if !disk.segments().is_empty() {
                damage(&mut disk, &mut random);
            }
        }
        let before = disk.clone();
        let replay_from = match random.below(6) {
            0 => Lsn(random.number()),
            1 => Lsn(random.below(10 * usize::try_from(SEGMENT_SIZE_BYTES).unwrap()) as u64),
            _ => Lsn::ZERO,
        };
        let may_create = random.once_in(2);
        let start = Start { replay_from, may_create, ..start(1000 + seed) };
        match recover(&mut disk, &config(), start, u64::MAX) {
            Outcome::Open(mut writer, _) => {
                // What was opened can be used, and opened again.
                writer.append_state(b"after").unwrap();
                writer.release_before(writer.durable());
                writer.flush();
                settle(&mut disk, &mut writer).unwrap();
                // From the start: the position of before was released above.
                let start = support::start(9000 + seed);
                let again = recover(&mut disk, &config(), start, u64::MAX);
                let writer = match again {
                    Outcome::Open(writer, _) => writer,
                    Outcome::Failed(error) => panic!("seed {seed}: opened once only: {error}"),
                    Outcome::Interrupted(_) => unreachable!("no bound was set"),
                };
                assert_eq!(writer.state(), Some(&b"after"[..]), "seed {seed}");
                opened += 1;
            }
            Outcome::Failed(RecoveryError::Refused(refusal)) => {
                assert!(refusal.to_string().starts_with("wal: "));
                assert_eq!(disk.segments(), before.segments(), "seed {seed}: {refusal}");
                for segment in before.segments() {
                    assert!(disk.bytes(segment) == before.bytes(segment), "seed {seed}: {refusal}");
                }
                refused += 1;
            }
            Outcome::Failed(error) => panic!("seed {seed}: {error}"),
            Outcome::Interrupted(_) => unreachable!("no bound was set"),
        }
    }
    assert!(opened > 100, "only {opened} opened");
    assert!(refused > 1000, "only {refused} refused");
}
