//! The one history of revisions that everybody who looks at the members' stores must be told.
//!
//! Whoever tells of a revision first says what is in it; all others are held to that.
//!
//! Invariants:
//! - A revision is never changed once it was told, and none is left out.

use super::REVISION_EMPTY;
use super::history::Change;

/// The history so far.
#[derive(Debug, Default)]
pub struct Chronicle {
    changes: Vec<Change>,
    /// For each revision behind that of an empty store, where its changes end.
    ends: Vec<usize>,
}

impl Chronicle {
    /// All changes.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The newest revision that anybody has told of.
    #[must_use]
    pub fn newest(&self) -> i64 {
        REVISION_EMPTY + i64::try_from(self.ends.len()).expect("few revisions")
    }

    /// Where the changes of a revision begin among all, or would.
    #[must_use]
    pub fn place_of(&self, revision: i64) -> usize {
        let before = usize::try_from(revision - REVISION_EMPTY - 1).unwrap_or(0).checked_sub(1);
        let Some(before) = before else { return 0 };
        self.ends.get(before).copied().unwrap_or(self.changes.len())
    }

    /// The changes of a revision; none if it is not known.
    #[must_use]
    pub fn changes_of(&self, revision: i64) -> &[Change] {
        &self.changes[self.place_of(revision)..self.place_of(revision + 1)]
    }

    /// Somebody tells what is in a revision. Answers with whether that is new.
    ///
    /// # Errors
    /// It is something else than what was told before, or revisions before it are missing.
    pub fn take(&mut self, revision: i64, changes: Vec<Change>) -> Result<bool, String> {
        if revision <= self.newest() {
            let known = self.changes_of(revision);
            return match known == changes {
                true => Ok(false),
                false => Err(format!(
                    "members disagree about revision {revision}: {known:?} and {changes:?}"
                )),
            };
        }
        if revision != self.newest() + 1 || changes.is_empty() {
            return Err(format!("revision {revision} is missing in a member's history"));
        }
        self.changes.extend(changes);
        self.ends.push(self.changes.len());
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: i64, sub: i64) -> Change {
        Change { revision, sub, key: b"a".to_vec(), value: None, lease: 0 }
    }

    #[test]
    fn revisions_are_found_again() {
        let mut chronicle = Chronicle::default();
        assert_eq!((chronicle.newest(), chronicle.place_of(1), chronicle.place_of(2)), (1, 0, 0));
        assert_eq!(chronicle.take(2, vec![change(2, 0), change(2, 1)]), Ok(true));
        assert_eq!(chronicle.take(3, vec![change(3, 0)]), Ok(true));
        assert_eq!(chronicle.newest(), 3);
        assert_eq!([0, 1, 2, 3, 4, 9].map(|it| chronicle.place_of(it)), [0, 0, 0, 2, 3, 3]);
        assert_eq!(chronicle.changes_of(2), [change(2, 0), change(2, 1)]);
        assert_eq!(chronicle.changes_of(3), [change(3, 0)]);
        assert_eq!((chronicle.changes_of(1), chronicle.changes_of(4)), (&[][..], &[][..]));
    }

    #[test]
    fn who_tells_something_else_is_noticed() {
        let mut chronicle = Chronicle::default();
        assert_eq!(chronicle.take(2, vec![change(2, 0)]), Ok(true));
        assert_eq!(chronicle.take(2, vec![change(2, 0)]), Ok(false));
        let other = chronicle.take(2, Vec::new()).unwrap_err();
        assert!(other.contains("disagree about revision 2"), "{other}");
        for (revision, changes) in [(4, vec![change(4, 0)]), (3, Vec::new())] {
            let missing = chronicle.take(revision, changes).unwrap_err();
            assert_eq!(missing, format!("revision {revision} is missing in a member's history"));
        }
    }
}
