//! How connections that carry entries are read while the log core has no room for more.
//!
//! Invariants:
//! - What is not read for a short while is not lost: it waits with its sender.
//! - Nothing is left unread for so long that its sender would take this member for dead, or its
//!   kernel would: from then on entries are read and thrown away.

use std::time::Duration;

use raft::eraftpb::MessageType;

use crate::peer::letter::Letter;

/// How long connections are not read at a time. Senders give one up when nothing was taken for five
/// seconds.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(2);

/// What is read of the connections that carry entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// All that comes.
    All,
    /// Nothing.
    Nothing,
    /// All, but entries are thrown away.
    NoEntries,
}

/// Since when there is no room.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeldBack {
    since: Option<Duration>,
    is_long: bool,
}

impl HeldBack {
    /// Whether there is room now. What is to be read from now on.
    pub(super) fn handle_room(&mut self, has_room: bool, now: Duration) -> Reading {
        if has_room {
            *self = Self::default();
        } else {
            let since = *self.since.get_or_insert(now);
            self.is_long |= now >= since + UNREAD_TIME_MAX;
        }
        self.reading()
    }

    /// What is read.
    pub(super) fn reading(&self) -> Reading {
        match (self.since, self.is_long) {
            (None, _) => Reading::All,
            (Some(_), false) => Reading::Nothing,
            (Some(_), true) => Reading::NoEntries,
        }
    }

    /// Whether a letter is thrown away.
    pub(super) fn refuses(&self, letter: &Letter) -> bool {
        self.reading() == Reading::NoEntries
            && matches!(letter, Letter::Raft(message)
                if message.get_msg_type() == MessageType::MsgAppend && !message.entries.is_empty())
    }

    /// When the time has come to read again.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.since.filter(|_| !self.is_long).map(|since| since + UNREAD_TIME_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_wait_for_a_while_and_are_thrown_away_then() {
        use Reading as R;
        let at = Duration::from_millis;
        let mut held_back = HeldBack::default();
        let steps = [
            (0, true, R::All, None),
            (10, false, R::Nothing, Some(2010)),
            (2009, false, R::Nothing, Some(2010)),
            (2500, true, R::All, None),
            (3000, false, R::Nothing, Some(5000)),
            (5000, false, R::NoEntries, None),
            (60_000, false, R::NoEntries, None),
            (60_001, true, R::All, None),
            (60_002, false, R::Nothing, Some(62_002)),
        ];
        for (now, has_room, reading, deadline) in steps {
            assert_eq!(held_back.handle_room(has_room, at(now)), reading, "{now}");
            assert_eq!(held_back.deadline(), deadline.map(at), "{now}");
        }
    }
}
