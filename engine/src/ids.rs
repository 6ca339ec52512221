//! The numbers of the replicated state, each its own type so that two of them cannot be mixed up.
//!
//! Epochs and page ids belong to the page layer and live there.

use std::fmt;

macro_rules! number {
    ($(#[$text:meta])* $name:ident, $inner:ty) => {
        $(#[$text])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number, for the wire and the disk.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}

number!(
    /// The store's logical clock: one step for every command that changed something.
    Revision,
    i64
);
number!(
    /// The position of an entry in the raft log.
    LogIndex,
    u64
);
number!(
    /// A raft term.
    Term,
    u64
);
number!(
    /// One of the parts into which keys are hashed.
    ShardId,
    u16
);
number!(
    /// A lease as clients name it; zero is "no lease".
    LeaseId,
    i64
);
number!(
    /// A member of the cluster.
    MemberId,
    u64
);
number!(
    /// A cluster.
    ClusterId,
    u64
);

impl Revision {
    /// What a store that was never compacted reports as its compacted revision.
    pub const NEVER_COMPACTED: Self = Self(-1);
    /// The revision of an empty store; the first write gets the next one.
    pub const EMPTY_STORE: Self = Self(1);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a store cannot apply 2^63 commands"))
    }
}

/// A place in the history: the revision, and the position among the changes of that revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// The revision all changes of one command share.
    pub main: Revision,
    /// 0, 1, 2, ... in the order of execution inside the command.
    pub sub: i64,
}

impl Change {
    /// The size of [`Change::to_bytes`].
    pub const SIZE_BYTES: usize = 16;

    /// The first possible change of a revision.
    #[must_use]
    pub const fn first_of(main: Revision) -> Self {
        Self { main, sub: 0 }
    }

    /// A position behind every change of a revision.
    #[must_use]
    pub const fn last_of(main: Revision) -> Self {
        Self { main, sub: i64::MAX }
    }

    /// The greatest possible change before this one.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        match (self.main.0, self.sub) {
            (0, 0) => None,
            (main, 0) => Some(Self::last_of(Revision(main - 1))),
            (main, sub) => Some(Self { main: Revision(main), sub: sub - 1 }),
        }
    }

    /// Big endian, so that byte order is the order of changes; neither part is ever negative.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE_BYTES] {
        let mut bytes = [0; Self::SIZE_BYTES];
        bytes[..8].copy_from_slice(&self.main.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    /// The inverse of [`Change::to_bytes`]; `None` for bytes of another length or a negative part.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let main = i64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
        let sub = i64::from_be_bytes(bytes.get(8..)?.try_into().ok()?);
        (main >= 0 && sub >= 0).then_some(Self { main: Revision(main), sub })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_changes_sort_like_changes() {
        let change = |main, sub| Change { main: Revision(main), sub };
        let sorted = [change(0, 0), change(1, 0), change(1, 1), change(1, 256), change(257, 0)];
        for pair in sorted.windows(2) {
            assert!(pair[0].to_bytes() < pair[1].to_bytes(), "{} and {}", pair[0], pair[1]);
        }
        for one in sorted {
            assert_eq!(Change::from_bytes(&one.to_bytes()), Some(one));
        }
        assert_eq!(Change::from_bytes(&[0; 15]), None);
        assert_eq!(Change::from_bytes(&[0xff; 16]), None);
    }
}
