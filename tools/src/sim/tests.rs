//! Runs of a few seeds, and that they are the same each time.

use super::*;

const SHORT: Settings = Settings { members: None, duration_ms: Some(5_000), is_told: false };

#[test]
fn a_seed_replays_to_the_last_byte() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed, SHORT), run(seed, SHORT));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn other_seeds_are_other_runs() {
    let digests: std::collections::BTreeSet<u64> =
        (10..16).map(|seed| run(seed, SHORT).expect("a sound run").digest).collect();
    assert_eq!(digests.len(), 6);
}

#[test]
fn a_few_seeds_are_sound() {
    for seed in 100..120 {
        let report = run(seed, SHORT);
        assert!(report.is_ok(), "seed {seed}: {report:?}");
    }
}
