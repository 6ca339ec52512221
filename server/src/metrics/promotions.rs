//! Promotions of learners, counted by the leader that decides about them.

use engine::Rejection;

use super::cell::Counter;

/// Why a learner was not promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromotionFailure {
    /// It has too little of the log.
    NotReady,
    /// There is no such member.
    NotFound,
    /// The member votes already.
    NotLearner,
    /// Too few members have started.
    NotEnoughStarted,
    /// The leader has not been connected to enough of them.
    Unhealthy,
    /// Another change, or its own entry, took too long.
    TimedOut,
    /// The leader leads no more, or has no room.
    NotTaken,
}

impl PromotionFailure {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NotReady,
        Self::NotFound,
        Self::NotLearner,
        Self::NotEnoughStarted,
        Self::Unhealthy,
        Self::TimedOut,
        Self::NotTaken,
    ];

    /// The text of etcd's error, which is its label.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotReady => {
                "etcdserver: can only promote a learner member which is in sync with leader"
            }
            Self::NotFound => "membership: ID not found",
            Self::NotLearner => "membership: can only promote a learner member",
            Self::NotEnoughStarted => {
                "etcdserver: re-configuration failed due to not enough started members"
            }
            Self::Unhealthy => "etcdserver: unhealthy cluster",
            Self::TimedOut => "etcdserver: request timed out",
            Self::NotTaken => "etcdserver: leader changed",
        }
    }
}

impl From<Rejection> for PromotionFailure {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::MemberNotLearner => Self::NotLearner,
            _ => Self::NotFound,
        }
    }
}

/// How promotions ended.
#[derive(Debug, Default)]
pub struct Promotions {
    succeeded: Counter,
    failed: [Counter; PromotionFailure::ALL.len()],
}

impl Promotions {
    /// One has ended.
    pub fn add(&self, end: Result<(), PromotionFailure>) {
        match end {
            Ok(()) => self.succeeded.add(1),
            Err(failure) => self.failed[failure as usize].add(1),
        }
    }

    /// Learners that have been promoted.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.succeeded.get()
    }

    /// Those that have not, for each reason that there was.
    pub fn failed(&self) -> impl Iterator<Item = (PromotionFailure, u64)> + '_ {
        let counts = PromotionFailure::ALL.into_iter().zip(self.failed.iter().map(Counter::get));
        counts.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_place_and_those_that_never_were_are_not_told() {
        let promotions = Promotions::default();
        assert_eq!(promotions.failed().next(), None);
        for (place, failure) in PromotionFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place);
            (0..=place).for_each(|_| promotions.add(Err(failure)));
        }
        promotions.add(Ok(()));
        let expected = PromotionFailure::ALL.into_iter().zip(1..);
        assert!(promotions.failed().eq(expected));
        assert_eq!(promotions.succeeded(), 1);
    }
}
