//! The decision table of recovery: what was found, where, and whether anything later claims that
//! it was durable. FORMAT.md prints the same table with the stories behind the cells.
//!
//! Invariants:
//! - Every combination has a cell; a combination that our own scan cannot produce asserts.
//! - No cell cuts what something later claims.

use crate::segment::UncheckedHead;

/// Which segment is being judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where replay begins; nothing before it can vouch for it.
    First,
    /// Right behind the last whole batch that was read.
    Next,
}

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No such file.
    Missing,
    /// A first block of zeros, or none.
    Blank,
    /// A first block that is neither zeros nor a head.
    Torn,
    /// The head of the file's life under a lower number.
    Stale,
    /// The mark of a prepared segment.
    Spare,
    /// A head that does not repeat where and how the last whole batch ended.
    Broken,
    /// A head to be read on from.
    Continues,
}

/// Whether something later vouches for what should have been here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nothing does.
    None,
    /// Something does.
    Made,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Read the records behind this head.
    Scan,
    /// The log ends at the last whole batch; what lies behind is erased.
    Cut,
    /// The log's creation did not end; it begins anew.
    Create,
    /// The first segment's head is lost.
    HeadLost,
    /// Durable records are lost.
    Rot,
}

/// The table.
pub(crate) fn decide(place: Place, found: Found, claim: Claim) -> Verdict {
    use {Claim as C, Found as F, Place as P, Verdict as V};
    match (place, found, claim) {
        // A head that fits is read whatever lies behind; the end of its records is judged next.
        (P::First | P::Next, F::Continues, C::None | C::Made) => V::Scan,

        // Creation writes the first head last; until then there are zeros at most.
        (P::First, F::Blank | F::Torn, C::None) => V::Create,
        (P::First, F::Blank | F::Torn | F::Stale | F::Spare, C::Made) => V::HeadLost,
        // Marks and recycled files have numbers above 1, and a number above 1 is itself a claim.
        (P::First, F::Stale | F::Spare, C::None) => impossible(place, found, claim),
        // The first segment was listed, and has no predecessor to disagree with.
        (P::First, F::Missing | F::Broken, C::None | C::Made) => impossible(place, found, claim),

        // The end of the log. Blank: preparing was cut short. Stale: recycling was. Spare: nothing
        // had begun. Torn: the opening write was cut short. Broken: the opening write arrived, and
        // one before it did not.
        (P::Next, F::Missing | F::Blank | F::Torn, C::None) => V::Cut,
        (P::Next, F::Stale | F::Spare | F::Broken, C::None) => V::Cut,
        (P::Next, F::Missing | F::Blank | F::Torn, C::Made) => V::Rot,
        (P::Next, F::Stale | F::Spare | F::Broken, C::Made) => V::Rot,
    }
}

fn impossible(place: Place, found: Found, claim: Claim) -> ! {
    panic!("recovery came to {place:?} {found:?} {claim:?}, which its own scan rules out")
}

impl Found {
    /// Of a head that was already found to be of this log and this version.
    pub(crate) fn of(head: &UncheckedHead, continues: bool) -> Self {
        match head {
            UncheckedHead::Blank => Self::Blank,
            UncheckedHead::Torn => Self::Torn,
            UncheckedHead::Stale(_) => Self::Stale,
            UncheckedHead::Spare => Self::Spare,
            UncheckedHead::Open(..) if continues => Self::Continues,
            UncheckedHead::Open(..) => Self::Broken,
            UncheckedHead::Unversioned(_) | UncheckedHead::Alien => {
                unreachable!("refused when the heads were read")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: [Found; 7] = [
        Found::Missing,
        Found::Blank,
        Found::Torn,
        Found::Stale,
        Found::Spare,
        Found::Broken,
        Found::Continues,
    ];

    #[test]
    fn no_cell_cuts_or_creates_against_a_claim() {
        for found in FOUND {
            let verdict = decide(Place::Next, found, Claim::Made);
            let read_on = found == Found::Continues;
            assert_eq!(verdict, if read_on { Verdict::Scan } else { Verdict::Rot }, "{found:?}");
        }
        for found in [Found::Blank, Found::Torn, Found::Stale, Found::Spare] {
            assert_eq!(decide(Place::First, found, Claim::Made), Verdict::HeadLost, "{found:?}");
        }
    }

    #[test]
    fn a_tail_that_nothing_claims_is_cut_whatever_it_is() {
        for found in FOUND.into_iter().filter(|found| *found != Found::Continues) {
            assert_eq!(decide(Place::Next, found, Claim::None), Verdict::Cut, "{found:?}");
        }
    }

    #[test]
    fn impossible_cells_assert() {
        for (found, claim) in [
            (Found::Missing, Claim::None),
            (Found::Missing, Claim::Made),
            (Found::Broken, Claim::None),
            (Found::Broken, Claim::Made),
            (Found::Spare, Claim::None),
            (Found::Stale, Claim::None),
        ] {
            let result = std::panic::catch_unwind(|| decide(Place::First, found, claim));
            assert!(result.is_err(), "{found:?} {claim:?}");
        }
    }
}
