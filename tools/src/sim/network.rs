//! The network between members: late, lossy, out of order, and cut where somebody cuts it.
//!
//! Invariants:
//! - What crosses a cut, in the direction that is cut, never arrives.
//! - After [`Network::heal`] everything arrives, soon and in order.

use std::collections::BTreeSet;

use super::random::Random;

/// A member's place among all.
pub type Place = usize;

/// How bad it is; all in a million.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Messages that vanish.
    pub dropped: u32,
    /// Messages that come twice.
    pub doubled: u32,
    /// Messages that take far longer than others.
    pub late: u32,
    /// The usual delay at most, in microseconds.
    pub delay_micros: u64,
    /// What the late ones take at most.
    pub late_micros: u64,
}

impl Weather {
    /// Nothing is lost.
    pub const FAIR: Self =
        Self { dropped: 0, doubled: 0, late: 0, delay_micros: 500, late_micros: 500 };

    /// Drawn anew for a run.
    #[must_use]
    pub fn draw(random: &mut Random) -> Self {
        let often = |random: &mut Random, most: u64| {
            u32::try_from(if random.below(2) == 0 { 0 } else { random.below(most) }).unwrap_or(0)
        };
        Self {
            dropped: often(random, 100_000),
            doubled: often(random, 50_000),
            late: often(random, 50_000),
            delay_micros: random.between(50, 20_000),
            late_micros: random.between(20_000, 3_000_000),
        }
    }
}

/// Who reaches whom.
#[derive(Debug)]
pub struct Network {
    random: Random,
    weather: Weather,
    /// From, to.
    cut: BTreeSet<(Place, Place)>,
    is_healed: bool,
}

impl Network {
    /// A whole one.
    #[must_use]
    pub const fn new(random: Random, weather: Weather) -> Self {
        Self { random, weather, cut: BTreeSet::new(), is_healed: false }
    }

    /// When a message that is sent now arrives: never, once or twice; as delays in microseconds.
    pub fn send(&mut self, from: Place, to: Place) -> Vec<u64> {
        if self.cut.contains(&(from, to)) {
            return Vec::new();
        }
        if self.is_healed {
            return vec![Weather::FAIR.delay_micros];
        }
        if self.random.happens(self.weather.dropped) {
            return Vec::new();
        }
        let copies = 1 + u64::from(self.random.happens(self.weather.doubled));
        (0..copies).map(|_| self.delay()).collect()
    }

    /// How long something takes on its way.
    pub fn delay(&mut self) -> u64 {
        if self.is_healed {
            return Weather::FAIR.delay_micros;
        }
        let is_late = self.random.happens(self.weather.late);
        let most = if is_late { self.weather.late_micros } else { self.weather.delay_micros };
        1 + self.random.below(most.max(1))
    }

    /// Cuts a direction.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    /// Divides `members` into two parts that do not reach each other, or of which only the second
    /// reaches the first.
    pub fn divide(&mut self, first: &[Place], second: &[Place], is_one_way: bool) {
        for &left in first {
            for &right in second {
                self.cut(left, right);
                if !is_one_way {
                    self.cut(right, left);
                }
            }
        }
    }

    /// Joins what was cut.
    pub fn join(&mut self) {
        self.cut.clear();
    }

    /// Whether a message would go this way.
    #[must_use]
    pub fn reaches(&self, from: Place, to: Place) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// From now on all is well.
    pub fn heal(&mut self) {
        self.join();
        self.is_healed = true;
    }
}
