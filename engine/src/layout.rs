//! How versions lie in the trees of a shard: keys, heads, and their decoding.
//!
//! - `current`: key → head of the newest version, body = value.
//! - `revisions`: change (16 bytes, big endian) → what the change did and which change of the same
//!   key came before it, body = key, and behind it the value of an update. Grows at the right edge
//!   only.
//! - `values`: change → empty head, body = value of a superseded version that `revisions` does not
//!   hold: the first of a key, and large ones.
//! - `tombstones`: key → the change that deleted it, for keys that do not exist now.
//! - `attachments`: lease (8 bytes, big endian) and key → nothing, for keys that have a lease.
//! - `system` (shard 0 alone): the store's own facts.
//!
//! So a put costs one page of `current` at a random place and a few bytes at the edge of
//! `revisions`, and the past of a key is a chain: each change names the one before it, and some one
//! further back ([`crate::chain`]).
//!
//! Invariants:
//! - The value of the newest version is in `current`. Any other value is in `revisions` or in
//!   `values`, never in both; a key that was put once has its value in `current` alone.
//! - A key is in `current` or in `tombstones` or in neither, never in both.
//! - Heads are runs of LEB128 numbers; a head that does not decode is a fault of the page, never a
//!   panic.

use crate::chain::{Chain, LEVELS_MAX};
use crate::ids::{Change, LeaseId, Revision};
use crate::page::ids::TreeTag;

/// The tag of the `current` tree.
pub(crate) const CURRENT: TreeTag = TreeTag(1);
/// The tag of the `revisions` tree.
pub(crate) const REVISIONS: TreeTag = TreeTag(2);
/// The tag of the `values` tree.
pub(crate) const VALUES: TreeTag = TreeTag(3);
/// The tag of the `system` tree.
pub(crate) const SYSTEM: TreeTag = TreeTag(4);
/// The tag of the `tombstones` tree.
pub(crate) const TOMBSTONES: TreeTag = TreeTag(5);

/// The tag of the `attachments` tree.
pub(crate) const ATTACHMENTS: TreeTag = TreeTag(6);

/// Key and value of an update that is logged whole in `revisions`, at most. What is larger stays
/// out, so that no value in an extent is ever stored twice, and a page of changes holds several.
pub(crate) const LOGGED_SIZE_BYTES_MAX: usize = 1024;

/// The longest head: seven numbers and two for each mark of the chain, of at most ten bytes.
pub(crate) const HEAD_SIZE_BYTES_MAX: usize = 10 * (7 + 2 * LEVELS_MAX);

/// What is known of a version besides key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) create_revision: Revision,
    pub(crate) change: Change,
    pub(crate) version: i64,
    pub(crate) lease: LeaseId,
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

/// The entry of a change in `revisions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) kind: ChangeKind,
    /// The version that the change wrote; of a tombstone only the change counts.
    pub(crate) version: Version,
    /// The change of the same key before this one. Compaction may have removed what it names, but
    /// nothing that a read at an allowed revision needs.
    pub(crate) prev: Option<Change>,
    /// A change of the same key further back.
    pub(crate) shortcut: Option<Change>,
    /// Where the value begins in the body, behind the key; `None` if it is not there.
    pub(crate) value_at: Option<usize>,
}

/// The bits of a change's first number that tell the kind; above them, what else the head holds.
const KIND_MASK: i64 = 3;
const HAS_PREV: i64 = 4;
const HAS_VALUE: i64 = 8;
const HAS_SHORTCUT: i64 = 16;

/// Writes the key of an attachment into `out`, replacing what it held.
pub(crate) fn attachment_key(lease: LeaseId, key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&lease.0.to_be_bytes());
    out.extend_from_slice(key);
}

/// A head being written, on the stack.
pub(crate) struct Head {
    bytes: [u8; HEAD_SIZE_BYTES_MAX],
    len: usize,
}

impl Head {
    fn new() -> Self {
        Self { bytes: [0; HEAD_SIZE_BYTES_MAX], len: 0 }
    }

    /// The head of a version in `current`; `is_logged` says whether `revisions` has the value too.
    pub(crate) fn of_current(version: &Version, is_logged: bool, chain: &Chain) -> Self {
        let mut head = Self::new();
        head.push(i64::from(is_logged));
        head.push(version.create_revision.0);
        // The distance is mostly shorter than the number.
        head.push(version.change.main.0.wrapping_sub(version.create_revision.0));
        head.push(version.change.sub);
        head.push(version.version);
        head.push(version.lease.0);
        head.push_chain(version.change, chain);
        head
    }

    /// The head of an entry of `tombstones`.
    pub(crate) fn of_tombstone(change: Change, chain: &Chain) -> Self {
        let mut head = Self::new();
        head.push(change.main.0);
        head.push(change.sub);
        head.push_chain(change, chain);
        head
    }

    fn push_chain(&mut self, newest: Change, chain: &Chain) {
        self.push(chain.depth());
        for mark in chain.marks() {
            self.push_before(newest, *mark);
        }
    }

    /// A change that is not after `newest`.
    fn push_before(&mut self, newest: Change, change: Change) {
        self.push(newest.main.0.wrapping_sub(change.main.0));
        self.push(change.sub);
    }

    /// The head of a change in `revisions`; which change that is stands in the tree's key.
    pub(crate) fn of_change(logged: &Logged) -> Self {
        let Logged { kind, version, prev, shortcut, value_at } = logged;
        let mut head = Self::new();
        let mut flags = *kind as i64;
        flags |= if prev.is_some() { HAS_PREV } else { 0 };
        flags |= if value_at.is_some() { HAS_VALUE } else { 0 };
        flags |= if shortcut.is_some() { HAS_SHORTCUT } else { 0 };
        head.push(flags);
        let main = version.change.main.0;
        if *kind != ChangeKind::Tombstone {
            head.push(main.wrapping_sub(version.create_revision.0));
            head.push(version.version);
            head.push(version.lease.0);
        }
        for change in [prev, shortcut].into_iter().flatten() {
            head.push_before(version.change, *change);
        }
        if let Some(at) = value_at {
            head.push(i64::try_from(*at).expect("a key is far shorter than 2^63 bytes"));
        }
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

/// Reads a change that is not after `newest`.
fn pull_before(head: &mut &[u8], newest: Change) -> Option<Change> {
    let main = Revision(newest.main.0.checked_sub(pull(head)?)?);
    let change = Change { main, sub: pull(head)? };
    (change <= newest && main.0 >= 0 && change.sub >= 0).then_some(change)
}

/// Reads the chain, which ends a head.
fn pull_chain(head: &mut &[u8], newest: Change) -> Option<Chain> {
    let depth = pull(head)?;
    Chain::restore(depth, || pull_before(head, newest)).filter(|_| head.is_empty())
}

/// Decodes the head of an entry of `current`: the version, and whether `revisions` has its value.
/// Readers have no use for the chain behind them.
pub(crate) fn decode_current(mut head: &[u8]) -> Option<(Version, bool)> {
    pull_current(&mut head)
}

/// Decodes the same with the chain, for the writer.
pub(crate) fn decode_newest(mut head: &[u8]) -> Option<(Version, bool, Chain)> {
    let head = &mut head;
    let (version, is_logged) = pull_current(head)?;
    Some((version, is_logged, pull_chain(head, version.change)?))
}

/// Decodes the head of an entry of `tombstones`.
pub(crate) fn decode_tombstone(mut head: &[u8]) -> Option<(Change, Chain)> {
    let head = &mut head;
    let change = Change { main: Revision(pull(head)?), sub: pull(head)? };
    let chain = pull_chain(head, change)?;
    (change.main.0 >= 0 && change.sub >= 0).then_some((change, chain))
}

fn pull_current(head: &mut &[u8]) -> Option<(Version, bool)> {
    let is_logged = pull(head)?;
    let create = pull(head)?;
    let distance = pull(head)?;
    let sub = pull(head)?;
    let version = pull(head)?;
    let lease = pull(head)?;
    let main = create.checked_add(distance)?;
    let sound = create >= 0 && distance >= 0 && sub >= 0 && version >= 0;
    let is_logged = [false, true].into_iter().find(|&flag| i64::from(flag) == is_logged)?;
    let version = Version {
        create_revision: Revision(create),
        change: Change { main: Revision(main), sub },
        version,
        lease: LeaseId(lease),
    };
    sound.then_some((version, is_logged))
}

/// Decodes the head of a change.
pub(crate) fn decode_change(change: Change, mut head: &[u8]) -> Option<Logged> {
    let head = &mut head;
    let flags = pull(head)?;
    let kind = match flags & KIND_MASK {
        0 => ChangeKind::Update,
        1 => ChangeKind::Create,
        2 => ChangeKind::Tombstone,
        _ => return None,
    };
    let mut version =
        Version { create_revision: Revision(0), change, version: 0, lease: LeaseId(0) };
    if kind != ChangeKind::Tombstone {
        version.create_revision = Revision(change.main.0.checked_sub(pull(head)?)?);
        version.version = pull(head)?;
        version.lease = LeaseId(pull(head)?);
    }
    let has = |flag| flags & flag != 0;
    let prev = if has(HAS_PREV) { Some(pull_before(head, change)?) } else { None };
    let shortcut = if has(HAS_SHORTCUT) { Some(pull_before(head, change)?) } else { None };
    let mut value_at = None;
    if has(HAS_VALUE) {
        value_at = Some(usize::try_from(pull(head)?).ok()?);
    }
    let is_sound = head.is_empty()
        && flags & !(KIND_MASK | HAS_PREV | HAS_VALUE | HAS_SHORTCUT) == 0
        && (Revision(0)..=change.main).contains(&version.create_revision)
        && version.version >= 0
        // A chain that did not lead back would never end.
        && prev.is_none_or(|prev| prev < change)
        && shortcut.is_none_or(|shortcut| prev.is_some_and(|prev| shortcut < prev));
    is_sound.then_some(Logged { kind, version, prev, shortcut, value_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(main: i64, sub: i64) -> Change {
        Change { main: Revision(main), sub }
    }

    const LEASE: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];

    fn version() -> Version {
        Version {
            create_revision: Revision(300),
            change: change(1000, 7),
            version: 12,
            lease: LeaseId(-1),
        }
    }

    /// A chain with one mark, at change 998.1.
    fn chain() -> Chain {
        Chain::restore(16, || Some(change(998, 1))).unwrap()
    }

    fn logged(version: Version) -> Logged {
        let prev = Some(change(999, 3));
        Logged { kind: ChangeKind::Update, version, prev, shortcut: None, value_at: Some(5) }
    }

    #[test]
    fn heads_have_fixed_bytes() {
        let version = version();
        let chain = chain();
        let head = Head::of_current(&version, true, &chain);
        let expected = [&[1, 0xac, 0x02, 0xbc, 0x05, 7, 12][..], &LEASE, &[16, 2, 1]].concat();
        assert_eq!(head.as_bytes(), expected);
        assert_eq!(decode_current(head.as_bytes()), Some((version, true)));
        assert_eq!(decode_newest(head.as_bytes()), Some((version, true, chain)));
        let head = Head::of_tombstone(version.change, &chain);
        assert_eq!(head.as_bytes(), [0xe8, 0x07, 7, 16, 2, 1]);
        assert_eq!(decode_tombstone(head.as_bytes()), Some((version.change, chain)));
        let prev = Some(change(999, 3));
        let shortcut = Some(change(990, 0));
        let logged = Logged { shortcut, ..logged(version) };
        let head = Head::of_change(&logged);
        let expected = [&[0x1c, 0xbc, 0x05, 12][..], &LEASE, &[1, 3, 10, 0, 5]].concat();
        assert_eq!(head.as_bytes(), expected);
        assert_eq!(decode_change(version.change, head.as_bytes()), Some(logged));
        let gone =
            Version { create_revision: Revision(0), version: 0, lease: LeaseId(0), ..version };
        let kind = ChangeKind::Tombstone;
        let tombstone = Logged { kind, version: gone, prev, shortcut: None, value_at: None };
        let head = Head::of_change(&tombstone);
        assert_eq!(head.as_bytes(), [6, 1, 3]);
        assert_eq!(decode_change(version.change, head.as_bytes()), Some(tombstone));
    }

    #[test]
    fn the_longest_heads_fit() {
        let version = Version {
            create_revision: Revision(i64::MIN),
            change: change(-1, -1),
            version: -1,
            lease: LeaseId(-1),
        };
        let chain = Chain::restore(i64::MAX, || Some(change(0, -1))).unwrap();
        assert!(Head::of_current(&version, true, &chain).len <= HEAD_SIZE_BYTES_MAX);
        let prev = Some(change(0, -1));
        let logged = Logged { prev, shortcut: prev, value_at: Some(1 << 20), ..logged(version) };
        assert!(Head::of_change(&logged).len <= HEAD_SIZE_BYTES_MAX);
    }

    #[test]
    fn damaged_heads_are_refused() {
        let version = Version { lease: LeaseId(7), ..version() };
        let head = Head::of_current(&version, false, &chain());
        let tombstone = Head::of_tombstone(version.change, &chain());
        let logged = Logged { shortcut: Some(change(990, 0)), ..logged(version) };
        let logged_head = Head::of_change(&logged);
        for cut in 0..head.len {
            assert_eq!(decode_newest(&head.as_bytes()[..cut]), None);
        }
        for cut in 0..tombstone.len {
            assert_eq!(decode_tombstone(&tombstone.as_bytes()[..cut]), None);
        }
        for cut in 0..logged_head.len {
            assert_eq!(decode_change(version.change, &logged_head.as_bytes()[..cut]), None);
        }
        assert_eq!(decode_current(&[0xff; 11]), None);
        // A chain that leads forward, or back before the beginning.
        let ahead = Some(version.change);
        for broken in [Logged { prev: ahead, ..logged }, Logged { shortcut: ahead, ..logged }] {
            assert_eq!(decode_change(version.change, Head::of_change(&broken).as_bytes()), None);
        }
        assert_eq!(decode_change(change(5, 0), Head::of_change(&logged).as_bytes()), None);
    }
}
