//! Numbers that look random and are the same for the same seed, whatever any library does.

/// A generator after the SplitMix64 scheme.
pub struct Draw(u64);

impl Draw {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0);
        let bound = u64::try_from(bound).expect("usize has at most 64 bits");
        // The bias is below one in 2^50 for the small bounds in use.
        usize::try_from(self.next() % bound).expect("below a usize")
    }

    /// A number in an interval, its ends included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        assert!(low <= high);
        let width = usize::try_from(high - low + 1).expect("intervals are small");
        low + i64::try_from(self.below(width)).expect("below the width")
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of some values.
    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_leads_to_one_sequence_within_its_bounds() {
        let draw = |seed| {
            let mut draw = Draw::new(seed);
            (0..1000).map(|_| draw.between(-3, 3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let numbers = draw(7);
        assert!((-3..=3).all(|number| numbers.contains(&number)));
        assert!(numbers.iter().all(|number| (-3..=3).contains(number)));
    }
}
