//! Budgets against floods: a bucket of tokens that time and progress refill.
//!
//! Counting alone would punish an idle watch stream that has been kept alive by pings for days, and
//! a pure rate would punish a download whose client sends a window update for each frame. So a
//! bucket starts full, every suspicious frame takes a token, time and useful work give some back.
//!
//! Invariants:
//! - `tokens <= burst`.

use std::time::Duration;

/// One budget.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    tokens: u32,
    burst: u32,
    per_second: u32,
    refilled_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(burst: u32, per_second: u32, now: Duration) -> Self {
        assert!(per_second > 0);
        Self { tokens: burst, burst, per_second, refilled_at: now }
    }

    /// Takes one token; `false` means the budget is spent.
    pub fn take(&mut self, now: Duration) -> bool {
        if self.tokens == 0 {
            self.refill(now);
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Gives tokens back for useful work.
    #[inline]
    pub fn give(&mut self, count: u32) {
        self.tokens = (self.tokens + count).min(self.burst);
    }

    /// Adds what time has earned. Only called on an empty bucket, so that the usual frame costs
    /// one subtraction; whole tokens only, so that no fraction is lost.
    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.refilled_at);
        let earned = elapsed.as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        let earned = u32::try_from(earned).unwrap_or(u32::MAX).min(self.burst);
        if earned > 0 {
            self.tokens = earned;
            self.refilled_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_time_refills_it() {
        let mut bucket = TokenBucket::new(3, 10, Duration::ZERO);
        assert!((0..3).all(|_| bucket.take(Duration::ZERO)));
        assert!(!bucket.take(Duration::from_millis(99)));
        assert!(bucket.take(Duration::from_millis(100)));
        assert!(!bucket.take(Duration::from_millis(100)));
        bucket.give(1);
        assert!(bucket.take(Duration::from_millis(100)));
        let later = Duration::from_secs(3600);
        assert!((0..3).all(|_| bucket.take(later)));
        assert!(!bucket.take(later));
    }
}
