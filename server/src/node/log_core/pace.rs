//! How much of the log core's time background work may take.
//!
//! A job that ran whenever no batch is there would take its core whole: whatever else the system
//! has to run there, a front-end or the client itself, would wait for a slice of the scheduler's,
//! which is several milliseconds. So each step is followed by a rest.
//!
//! Who rests is woken a while after the rest is over, and a short rest is not worth a timer: what a
//! step came late counts as rest for the next.
//!
//! Invariants:
//! - A rest is in proportion to the step before it, and bounded: no job starves, and none is held
//!   up by one step that took long.

use std::time::Duration;

/// No rest is longer: a step that calls for it was interrupted, and says little of the job.
const REST_MAX: Duration = Duration::from_millis(2);
/// So much of being late counts: a timer of the kernel's, and a wake-up. What is more was other
/// work, not rest.
const LATE_MAX: Duration = Duration::from_micros(100);

/// When the next step is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    due: Duration,
}

impl Pace {
    /// When background work may go on.
    pub(super) fn due(self) -> Duration {
        self.due
    }

    /// A step was taken, after which `rests` times as long is rested.
    pub(super) fn handle_step(&mut self, begun: Duration, ended: Duration, rests: u32) {
        let rest = ended.saturating_sub(begun) * rests;
        let late = begun.saturating_sub(self.due).min(LATE_MAX);
        self.due = ended + rest.min(REST_MAX).saturating_sub(late);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_followed_by_a_rest_in_proportion() {
        let micros = Duration::from_micros;
        let mut pace = Pace::default();
        assert_eq!(pace.due(), Duration::ZERO);
        let cases = [
            (1000, 1000, 2, 1000),
            (1000, 1300, 2, 1900),
            (1900, 2200, 1, 2500),
            (5000, 4000, 2, 4000),
        ];
        for (begun, ended, rests, due) in cases {
            pace.handle_step(micros(begun), micros(ended), rests);
            assert_eq!(pace.due(), micros(due), "from {begun} to {ended}");
        }
        pace.handle_step(Duration::ZERO, Duration::from_secs(60), 1);
        assert_eq!(pace.due(), Duration::from_secs(60) + REST_MAX);
    }

    #[test]
    fn being_late_counts_as_rest() {
        let micros = Duration::from_micros;
        for (late, rest) in [(0, 600), (60, 540), (100, 500), (5000, 500)] {
            let mut pace = Pace::default();
            pace.handle_step(Duration::ZERO, micros(300), 2);
            let begun = pace.due() + micros(late);
            pace.handle_step(begun, begun + micros(300), 2);
            assert_eq!(pace.due(), begun + micros(300 + rest), "{late} late");
        }
    }
}
