//! When operations are due: at once in a closed loop, on a fixed grid in an open one.
//!
//! In an open loop the latency of an operation runs from the moment at which it was due, whether or
//! not a stream was free to send it then. A server that stalls therefore pays for every operation
//! that should have been sent meanwhile, not only for those that happened to be outstanding.
//!
//! Invariants:
//! - The n-th operation is due at `start + n / rate`, computed from n, so that no error adds up.

/// The pace of one group.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    /// Nanoseconds from one operation to the next, or nothing in a closed loop.
    interval_ns: Option<f64>,
    issued_count: u64,
}

impl Schedule {
    /// A schedule that begins now; without a rate everything is always due.
    pub fn new(rate: Option<f64>, start_ns: u64) -> Self {
        Self { start_ns, interval_ns: rate.map(|rate| 1e9 / rate), issued_count: 0 }
    }

    /// Whether operations wait for their time rather than for a free stream alone.
    pub fn is_open(&self) -> bool {
        self.interval_ns.is_some()
    }

    /// The moment at which the next operation is due; `now` in a closed loop.
    pub fn due_ns(&self, now_ns: u64) -> u64 {
        match self.interval_ns {
            None => now_ns,
            Some(interval_ns) => {
                let offset = interval_ns * self.issued_count as f64 / 1e9;
                let offset = std::time::Duration::from_secs_f64(offset).as_nanos();
                self.start_ns + u64::try_from(offset).expect("a run is shorter than a century")
            }
        }
    }

    /// The next operation was sent.
    pub fn handle_issued(&mut self) {
        self.issued_count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Tally;

    #[test]
    fn the_grid_does_not_drift() {
        let mut schedule = Schedule::new(Some(3.0), 100);
        for _ in 0..3_000_000 {
            schedule.handle_issued();
        }
        assert_eq!(schedule.due_ns(0), 100 + 1_000_000 * 1_000_000_000);
        assert_eq!(Schedule::new(None, 100).due_ns(777), 777);
    }

    // A server that answers in 1 ms stalls once for 100 ms, at 1000 operations a second on a single
    // stream. Measured from sending, one operation in a thousand is slow; measured from the due
    // time a tenth of a second of operations is.
    #[test]
    fn a_stall_is_paid_by_all_that_were_due_meanwhile() {
        let mut schedule = Schedule::new(Some(1000.0), 0);
        let mut from_due = Tally::new("due");
        let mut from_sent = Tally::new("sent");
        let mut free_ns = 0;
        for number in 0..1000 {
            let due_ns = schedule.due_ns(0);
            schedule.handle_issued();
            let sent_ns = due_ns.max(free_ns);
            free_ns = sent_ns + if number == 500 { 100_000_000 } else { 500_000 };
            from_due.record(free_ns - due_ns);
            from_sent.record(free_ns - sent_ns);
        }
        let slow = |tally: &Tally| tally.histogram.count_between(2_000_000, u64::MAX / 2);
        assert_eq!(slow(&from_sent), 1);
        // The queue of 100 drains at two operations due for each millisecond gone by.
        assert!((190..=200).contains(&slow(&from_due)), "{}", slow(&from_due));
    }
}
