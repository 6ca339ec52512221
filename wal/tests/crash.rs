//! Whatever a crash loses or tears, what was acknowledged comes back, and nothing else does.

// Helpers of a suite may panic as its tests do.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Log, config, start};
use wal::sim::{Crash, Outcome, Random, SimDisk, recover};

const CRASHES: [Crash; 4] = [Crash::LosesAll, Crash::KeepsAll, Crash::Tears, Crash::Tears];

#[test]
fn a_crash_after_each_step_of_a_life_keeps_what_was_acknowledged() {
    for seed in 1..=4 {
        for steps in 0..160 {
            for (variant, crash) in CRASHES.into_iter().enumerate() {
                let mut random = Random::new(seed);
                let mut log = Log::create(seed * 1000 + variant as u64);
                for _ in 0..steps {
                    log.step(&mut random);
                }
                let story = format!("seed {seed}, step {steps}, variant {variant}");
                let mut log = log.crash(crash, &[], &story);
                log.append(10);
                log.settle();
                log.crash(Crash::LosesAll, &[], &format!("{story}, second life"));
            }
        }
    }
}

#[test]
fn many_lives_of_one_log_never_lose_or_invent_a_record() {
    for seed in 1..=60 {
        let mut random = Random::new(seed);
        let mut log = Log::create(seed);
        for life in 0..12 {
            for _ in 0..random.below(200) {
                log.step(&mut random);
            }
            let crash = CRASHES[random.below(4)];
            let mut crashes = Vec::new();
            while random.once_in(2) {
                crashes.push(random.below(24) as u64);
            }
            log = log.crash(crash, &crashes, &format!("seed {seed}, life {life}, {crashes:?}"));
        }
    }
}

#[test]
fn a_crash_at_each_operation_of_a_recovery_changes_nothing() {
    for seed in 1..=12 {
        for count in 0..40 {
            let mut random = Random::new(seed);
            let mut log = Log::create(seed);
            for _ in 0..120 {
                log.step(&mut random);
            }
            let story = format!("seed {seed}, recovery stopped after {count}");
            log.crash(Crash::Tears, &[count, count / 2], &story);
        }
    }
}

#[test]
fn a_crash_at_each_operation_of_the_creation_leaves_a_log_to_be_created() {
    for crash in CRASHES {
        for count in 0..12 {
            let mut disk = SimDisk::new(count);
            match recover(&mut disk, &config(), start(1), count) {
                Outcome::Interrupted(op) => disk.crash(vec![op], crash),
                Outcome::Open(..) => disk.crash(Vec::new(), crash),
                Outcome::Failed(error) => panic!("{error}"),
            }
            let Outcome::Open(_, records) = recover(&mut disk, &config(), start(2), u64::MAX)
            else {
                panic!("{crash:?} after {count}");
            };
            assert!(records.is_empty());
        }
    }
}

#[test]
fn recycling_reuses_files_and_never_loses_the_hard_state() {
    let mut log = Log::create(5);
    log.append_state(24);
    log.settle();
    for round in 0..40 {
        log.append(9000);
        log.settle();
        log.release(log.writer.durable());
        log.settle();
        // The segment in use, two spares, and at most the one before.
        assert!(log.disk.segments().len() <= 5, "round {round}: {:?}", log.disk.segments());
    }
    let first = log.disk.segments()[0];
    assert!(first.0 > 10, "the oldest segment is {first}");
    let log = log.crash(Crash::LosesAll, &[], "after many segments");
    assert_eq!(log.writer.state().unwrap().len(), 24);
}
