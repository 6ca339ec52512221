//! What health checks came to, on one front-end.
//!
//! Invariant: a check's newest result is told with its time, so that the newest of all cores is
//! known when somebody scrapes.

use std::time::Duration;

use super::cell::{Counter, nanos};

/// The checks there are: the path that makes them, and their names.
pub(super) const CHECKS: [(&str, &str); 5] = [
    ("readyz", "data_corruption"),
    ("readyz", "linearizable_read"),
    ("readyz", "non_learner"),
    ("livez", "serializable_read"),
    ("readyz", "serializable_read"),
];

/// One check on one front-end.
#[derive(Debug, Default)]
struct CheckCounts {
    /// How often it failed, how often it did not.
    results: [Counter; 2],
    /// When it was made last, in nanoseconds since the origin, times two, and one more if it did
    /// not fail; 0 if it never was. One word, so that a reader never sees half of it.
    newest: Counter,
}

/// The counts of one front-end.
#[derive(Debug, Default)]
pub struct HealthCounts {
    /// Answers of `/health`: false, true.
    answers: [Counter; 2],
    checks: [CheckCounts; CHECKS.len()],
}

impl HealthCounts {
    /// `/health` was answered.
    pub fn note_answered(&self, is_healthy: bool) {
        self.answers[usize::from(is_healthy)].add(1);
    }

    /// How often `/health` was answered so.
    #[must_use]
    pub fn answers(&self, is_healthy: bool) -> u64 {
        self.answers[usize::from(is_healthy)].get()
    }

    /// A check of `/livez` or `/readyz` was made.
    pub fn note_check(&self, path: &str, name: &str, succeeded: bool, now: Duration) {
        let place = CHECKS.iter().position(|check| *check == (path, name));
        let check = &self.checks[place.expect("all checks are listed")];
        check.results[usize::from(succeeded)].add(1);
        check.newest.set((nanos(now).max(1) << 1) | u64::from(succeeded));
    }

    /// How often a check ended so.
    pub(super) fn results(&self, place: usize, succeeded: bool) -> u64 {
        self.checks[place].results[usize::from(succeeded)].get()
    }

    /// A number that grows with the time of the newest result and tells it by its lowest bit.
    pub(super) fn newest(&self, place: usize) -> u64 {
        self.checks[place].newest.get()
    }
}
