//! The chain of a key's changes, and the shortcuts in it.
//!
//! Each change names the one before it. A key that was put a million times would make a read far
//! back in its past take a million steps, so some changes also name one further back: those whose
//! place in the chain is a multiple of 16 the one 16 places before, multiples of 256 the one 256
//! places before, and so on. Going back any distance then takes at most about 30 steps for each
//! power of 16 in it. What a new change has to name is remembered with the key's newest entry.
//!
//! Invariant: a mark is the change at the last place that is a multiple of its level's stride.

use crate::ids::Change;

/// Strides of 16 to 16 million. Beyond that a longer chain has more of the longest steps.
pub(crate) const LEVELS_MAX: usize = 6;

const STRIDE_BITS: u32 = 4;

/// Where a key's newest change stands in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Its place; the first has place zero.
    depth: i64,
    marks: [Change; LEVELS_MAX],
}

/// The stride of a level.
fn stride(level: usize) -> i64 {
    let exponent = u32::try_from(level).expect("a handful of levels") + 1;
    1 << (STRIDE_BITS * exponent)
}

impl Chain {
    /// The chain of a key that was never changed before.
    pub(crate) fn first() -> Self {
        Self { depth: 0, marks: [Change::default(); LEVELS_MAX] }
    }

    /// Adds a change; answers with the shortcut it is to name.
    pub(crate) fn extend(&mut self, change: Change) -> Option<Change> {
        // A chain of 2^63 changes cannot be: each has its revision or its place in one.
        self.depth = self.depth.saturating_add(1);
        let mut shortcut = None;
        for level in 0..LEVELS_MAX {
            if self.depth % stride(level) != 0 {
                break;
            }
            // The first mark of a level has none before it but the beginning of the chain.
            if self.depth >= 2 * stride(level) {
                shortcut = Some(self.marks[level]);
            }
            self.marks[level] = change;
        }
        shortcut
    }

    /// The place of the newest change.
    pub(crate) fn depth(&self) -> i64 {
        self.depth
    }

    /// The marks there are, by level.
    pub(crate) fn marks(&self) -> &[Change] {
        &self.marks[..level_count(self.depth)]
    }

    /// The inverse of the two; `pull` reads the marks one by one.
    pub(crate) fn restore(depth: i64, mut pull: impl FnMut() -> Option<Change>) -> Option<Self> {
        let mut chain = Self { depth, ..Self::first() };
        if depth < 0 {
            return None;
        }
        for mark in &mut chain.marks[..level_count(depth)] {
            *mark = pull()?;
        }
        Some(chain)
    }
}

fn level_count(depth: i64) -> usize {
    (0..LEVELS_MAX).take_while(|&level| depth >= stride(level)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;

    fn change(place: i64) -> Change {
        Change::first_of(Revision(place))
    }

    #[test]
    fn going_back_takes_few_steps() {
        const LENGTH: i64 = 100_000;
        let mut chain = Chain::first();
        let mut shortcuts = vec![None];
        for place in 1..LENGTH {
            shortcuts.push(chain.extend(change(place)).map(|shortcut| shortcut.main.0));
            let marks = chain.marks().to_vec();
            let mut marks_left = marks.iter().copied();
            let restored = Chain::restore(chain.depth(), || marks_left.next()).unwrap();
            assert_eq!(restored.marks(), marks);
        }
        for target in (0..LENGTH).step_by(97) {
            let (mut at, mut steps) = (LENGTH - 1, 0);
            while at > target {
                let shortcut = shortcuts[usize::try_from(at).unwrap()];
                at = shortcut.filter(|&shortcut| shortcut > target).unwrap_or(at - 1);
                steps += 1;
            }
            assert!(steps <= 5 * 30, "{steps} steps to {target}");
        }
    }

    #[test]
    fn a_shortcut_leads_back_by_its_stride() {
        let mut chain = Chain::first();
        for place in 1..=8192 {
            let shortcut = chain.extend(change(place)).map(|shortcut| place - shortcut.main.0);
            let expected = match place {
                _ if place % 16 != 0 || place < 32 => None,
                _ if place % 256 != 0 || place < 512 => Some(16),
                _ if place % 4096 != 0 || place < 8192 => Some(256),
                _ => Some(4096),
            };
            assert_eq!(shortcut, expected, "{place}");
        }
    }

    #[test]
    fn what_is_no_chain_is_refused() {
        assert_eq!(Chain::restore(-1, || Some(change(1))), None);
        assert_eq!(Chain::restore(16, || None), None);
        assert!(Chain::restore(15, || None).is_some());
        assert!(Chain::restore(i64::MAX, || Some(change(1))).is_some());
    }
}
