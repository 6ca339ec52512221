//! How versions lie in the trees of a shard: keys, heads, and their decoding.
//!
//! - `current`: key → head of the newest version, body = value.
//! - `revisions`: change (16 bytes, big endian) → kind, body = key. Grows at the right edge only.
//! - `history`: escaped key and change → head of a superseded version, body = value.
//! - `system` (shard 0 alone): the store's own facts.
//!
//! Invariants:
//! - A value is stored once: in `current` while it is the newest, in `history` afterwards.
//! - The byte order of history keys is the order of (key, change).
//! - Heads are runs of LEB128 numbers; a head that does not decode is a fault of the page, never a
//!   panic.

use crate::ids::{Change, LeaseId, Revision};
use crate::page::ids::TreeTag;

/// The tag of the `current` tree.
pub(crate) const CURRENT: TreeTag = TreeTag(1);
/// The tag of the `revisions` tree.
pub(crate) const REVISIONS: TreeTag = TreeTag(2);
/// The tag of the `history` tree.
pub(crate) const HISTORY: TreeTag = TreeTag(3);
/// The tag of the `system` tree.
pub(crate) const SYSTEM: TreeTag = TreeTag(4);

/// The longest head: six numbers of at most ten bytes.
pub(crate) const HEAD_SIZE_BYTES_MAX: usize = 60;

/// What is known of a version besides key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) create_revision: Revision,
    pub(crate) change: Change,
    pub(crate) version: i64,
    pub(crate) lease: LeaseId,
}

/// A superseded version: what it was, and which change ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PastVersion {
    pub(crate) version: Version,
    pub(crate) end: Change,
}

impl PastVersion {
    /// Whether this is what a read at a revision sees, given that it was written at or before it.
    pub(crate) fn is_seen_at(&self, revision: Revision) -> bool {
        self.end.main > revision
    }
}

/// What a change did, as the `revisions` tree tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ChangeKind {
    /// A version of a key that existed.
    Update = 0,
    /// The first version of a key.
    Create = 1,
    /// The end of a key.
    Tombstone = 2,
}

impl ChangeKind {
    pub(crate) fn from_head(head: &[u8]) -> Option<Self> {
        match head {
            [0] => Some(Self::Update),
            [1] => Some(Self::Create),
            [2] => Some(Self::Tombstone),
            _ => None,
        }
    }
}

/// A head being written, on the stack.
pub(crate) struct Head {
    bytes: [u8; HEAD_SIZE_BYTES_MAX],
    len: usize,
}

impl Head {
    /// The head of a version in `current`.
    pub(crate) fn of_current(version: &Version) -> Self {
        let mut head = Self { bytes: [0; HEAD_SIZE_BYTES_MAX], len: 0 };
        head.push(version.create_revision.0);
        // The distance is mostly shorter than the number.
        head.push(version.change.main.0.wrapping_sub(version.create_revision.0));
        head.push(version.change.sub);
        head.push(version.version);
        head.push(version.lease.0);
        head
    }

    /// The head of a version in `history`; when it was written stands in the tree's key.
    pub(crate) fn of_past(past: &PastVersion) -> Self {
        let mut head = Self { bytes: [0; HEAD_SIZE_BYTES_MAX], len: 0 };
        let Version { create_revision, change, version, lease } = past.version;
        head.push(create_revision.0);
        head.push(past.end.main.0.wrapping_sub(change.main.0));
        head.push(past.end.sub);
        head.push(version);
        head.push(lease.0);
        head
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Negative numbers (only a lease may be one) take ten bytes; nothing is lost.
    fn push(&mut self, number: i64) {
        let mut rest = number.cast_unsigned();
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest >>= 7;
            let more = if rest == 0 { 0 } else { 0x80 };
            self.bytes[self.len] = (low & 0x7f) | more;
            self.len += 1;
            if rest == 0 {
                return;
            }
        }
    }
}

/// Reads one number off the front of a head.
#[inline]
fn pull(head: &mut &[u8]) -> Option<i64> {
    // Most numbers are one byte.
    if let [byte @ 0..=0x7f, rest @ ..] = *head {
        *head = rest;
        return Some(i64::from(*byte));
    }
    pull_long(head)
}

fn pull_long(head: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for (place, &byte) in head.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        if place == 9 && part > 1 {
            return None;
        }
        number |= part << (7 * place);
        if byte & 0x80 == 0 {
            *head = &head[place + 1..];
            return Some(number.cast_signed());
        }
    }
    None
}

/// Decodes the head of an entry of `current`.
pub(crate) fn decode_current(mut head: &[u8]) -> Option<Version> {
    let head = &mut head;
    let create = pull(head)?;
    let distance = pull(head)?;
    let sub = pull(head)?;
    let version = pull(head)?;
    let lease = pull(head)?;
    let main = create.checked_add(distance)?;
    let sound = head.is_empty() && create >= 0 && distance >= 0 && sub >= 0 && version >= 0;
    sound.then_some(Version {
        create_revision: Revision(create),
        change: Change { main: Revision(main), sub },
        version,
        lease: LeaseId(lease),
    })
}

/// Decodes the head of an entry of `history` that was written by `change`.
pub(crate) fn decode_past(change: Change, mut head: &[u8]) -> Option<PastVersion> {
    let head = &mut head;
    let create = pull(head)?;
    let distance = pull(head)?;
    let end_sub = pull(head)?;
    let version = pull(head)?;
    let lease = pull(head)?;
    let end_main = change.main.0.checked_add(distance)?;
    let sound = head.is_empty() && create >= 0 && distance >= 0 && end_sub >= 0 && version >= 0;
    sound.then_some(PastVersion {
        version: Version {
            create_revision: Revision(create),
            change,
            version,
            lease: LeaseId(lease),
        },
        end: Change { main: Revision(end_main), sub: end_sub },
    })
}

/// Ends an escaped key. It sorts before every byte that a longer key could have at this place:
/// a zero byte of a key is followed by `ESCAPED`, which is greater.
const END: u8 = 0x01;
const ESCAPED: u8 = 0xff;

/// Writes the history key of a version into `out`, replacing what it held.
pub(crate) fn history_key(key: &[u8], change: Change, out: &mut Vec<u8>) {
    history_prefix(key, out);
    out.extend_from_slice(&change.to_bytes());
}

/// Writes the part of a history key that all versions of a key share.
pub(crate) fn history_prefix(key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    escape_into(key, out);
    out.extend_from_slice(&[0, END]);
}

/// Writes a bound that lies behind all versions of a key and before those of the next one.
pub(crate) fn history_behind(key: &[u8], out: &mut Vec<u8>) {
    history_prefix(key, out);
    *out.last_mut().expect("a prefix ends with its mark") = END + 1;
}

/// Writes a key so that the result, put before the end mark, sorts like the key.
fn escape_into(key: &[u8], out: &mut Vec<u8>) {
    for part in key.split_inclusive(|&byte| byte == 0) {
        out.extend_from_slice(part);
        if part.last() == Some(&0) {
            out.push(ESCAPED);
        }
    }
}

/// The key and the change in a history key; the key is unescaped into `out`.
pub(crate) fn split_history_key(mut bytes: &[u8], out: &mut Vec<u8>) -> Option<Change> {
    out.clear();
    loop {
        let zero = bytes.iter().position(|&byte| byte == 0)?;
        out.extend_from_slice(&bytes[..zero]);
        match *bytes.get(zero + 1)? {
            END => return Change::from_bytes(&bytes[zero + 2..]),
            ESCAPED => out.push(0),
            _ => return None,
        }
        bytes = &bytes[zero + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(main: i64, sub: i64) -> Change {
        Change { main: Revision(main), sub }
    }

    #[test]
    fn history_keys_sort_by_key_then_change() {
        let keys: [&[u8]; 9] =
            [b"", b"\0", b"\0\0", b"\0\x01", b"\0a", b"a", b"a\0", b"a\0b", b"a\x01"];
        let changes = [change(0, 0), change(1, 0), change(1, 1), change(256, 0)];
        let mut all = Vec::new();
        let mut split = Vec::new();
        for key in keys {
            for one in changes {
                let mut bytes = Vec::new();
                history_key(key, one, &mut bytes);
                assert_eq!(split_history_key(&bytes, &mut split), Some(one));
                assert_eq!(split, key);
                all.push(bytes);
            }
        }
        for pair in all.windows(2) {
            assert!(pair[0] < pair[1], "{:?} and {:?}", pair[0], pair[1]);
        }
    }

    #[test]
    fn heads_have_fixed_bytes() {
        let version = Version {
            create_revision: Revision(300),
            change: change(1000, 7),
            version: 12,
            lease: LeaseId(-1),
        };
        let head = Head::of_current(&version);
        let lease = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(head.as_bytes(), [&[0xac, 0x02, 0xbc, 0x05, 7, 12][..], &lease].concat());
        assert_eq!(decode_current(head.as_bytes()), Some(version));
        let past = PastVersion { version, end: change(1001, 0) };
        let head = Head::of_past(&past);
        assert_eq!(head.as_bytes(), [&[0xac, 0x02, 1, 0, 12][..], &lease].concat());
        assert_eq!(decode_past(version.change, head.as_bytes()), Some(past));
    }

    #[test]
    fn the_longest_head_fits() {
        let version = Version {
            create_revision: Revision(i64::MIN),
            change: change(-1, -1),
            version: -1,
            lease: LeaseId(-1),
        };
        assert!(Head::of_current(&version).len <= HEAD_SIZE_BYTES_MAX);
    }

    #[test]
    fn damaged_heads_and_keys_are_refused() {
        let version = Version {
            create_revision: Revision(5),
            change: change(9, 0),
            version: 2,
            lease: LeaseId(0),
        };
        let head = Head::of_current(&version);
        for cut in 0..head.len {
            assert_eq!(decode_current(&head.as_bytes()[..cut]), None);
            assert_eq!(decode_past(version.change, &head.as_bytes()[..cut]), None);
        }
        assert_eq!(decode_current(&[0xff; 11]), None);
        let mut key = Vec::new();
        history_key(b"a\0b", version.change, &mut key);
        let mut out = Vec::new();
        for cut in 0..key.len() {
            assert_eq!(split_history_key(&key[..cut], &mut out), None);
        }
    }
}
