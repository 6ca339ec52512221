//! A store's content as readers see it: the shards' trees, behind one trait for the published view
//! and for the working state, and the lookups of single versions.
//!
//! Invariants:
//! - A key lives in the shard that [`shard_of`] names and in no other. The function is frozen: a
//!   store that was written under another one would lose its keys.
//! - What does not decode is a fault that names the tree's page, never a panic.

use crate::ids::{Change, Revision};
use crate::layout::{self, ChangeKind, PastVersion, Version};
use crate::page::{FaultKind, PageFault, Pages};
use crate::range::Record;
use crate::tree::{self, Cursor, Entry, Root};

/// The roots of a shard's trees in one state of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardRoots {
    pub(crate) current: Root,
    pub(crate) revisions: Root,
    pub(crate) history: Root,
    pub(crate) system: Root,
}

/// A version and where its value is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'s> {
    pub(crate) version: Version,
    /// The change that ended it; `None` for the newest.
    pub(crate) end: Option<Change>,
    pub(crate) entry: Entry<'s>,
}

impl<'s> Found<'s> {
    /// The value; a large one is verified when it is first read.
    pub(crate) fn value<P: Pages>(&self, pages: &'s P) -> Result<&'s [u8], PageFault> {
        self.entry.body(pages)
    }
}

/// A state of the store that can be read.
pub(crate) trait Store {
    /// How its pages are reached.
    type Pages: Pages;

    fn shard_count(&self) -> usize;

    /// The pages and trees of a shard.
    fn shard(&self, shard: usize) -> (&Self::Pages, &ShardRoots);

    /// The newest revision a read sees.
    fn revision(&self) -> Revision;

    /// The revision of what stands in the `current` trees; later than [`Store::revision`] for a
    /// reader that stays at a revision while views move on.
    fn tree_revision(&self) -> Revision {
        self.revision()
    }

    /// Reads below it are refused.
    fn compacted(&self) -> Revision;

    /// The shard of a key.
    fn shard_of(&self, key: &[u8]) -> (&Self::Pages, &ShardRoots) {
        self.shard(shard_of(key, self.shard_count()))
    }

    /// The record of a key that a read at a revision sees.
    fn record_at<'s>(
        &'s self,
        key: &'s [u8],
        revision: Revision,
    ) -> Result<Option<Record<'s>>, PageFault> {
        let (pages, roots) = self.shard_of(key);
        let found = match newest_version(pages, roots, key)? {
            Some(found) if found.version.change.main <= revision => Some(found),
            _ if revision >= self.tree_revision() => None,
            _ => past_version(pages, roots, key, revision, &mut Vec::new())?,
        };
        match found {
            Some(found) => Ok(Some(found.version.record(key, found.value(pages)?))),
            None => Ok(None),
        }
    }
}

impl Version {
    pub(crate) fn record<'a>(&self, key: &'a [u8], value: &'a [u8]) -> Record<'a> {
        Record {
            key,
            value,
            create_revision: self.create_revision,
            mod_revision: self.change.main,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// Which shard a key belongs to. FNV-1a, finished by a mixer because the low bits of plain FNV
/// follow the last byte of the key too closely.
pub(crate) fn shard_of(key: &[u8], shard_count: usize) -> usize {
    if shard_count == 1 {
        return 0;
    }
    let hash = mix(key_hash(key));
    let count = u64::try_from(shard_count).expect("a count of shards fits 64 bits");
    usize::try_from(hash % count).expect("the remainder is below a usize")
}

/// FNV-1a, 64 bits.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The newest version of a key of this shard.
pub(crate) fn newest_version<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    key: &[u8],
) -> Result<Option<Found<'s>>, PageFault> {
    match tree::get(pages, roots.current, key)? {
        Some(entry) => decode(pages, roots, entry).map(Some),
        None => Ok(None),
    }
}

/// The version of a key that a read at an older revision sees among the superseded ones.
pub(crate) fn past_version<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    key: &[u8],
    revision: Revision,
    scratch: &mut Vec<u8>,
) -> Result<Option<Found<'s>>, PageFault> {
    layout::history_key(key, Change::last_of(revision), scratch);
    let found = version_before(pages, roots, scratch)?;
    Ok(found.filter(|(past, _)| past.is_seen_at(revision)).map(|(past, entry)| Found {
        version: past.version,
        end: Some(past.end),
        entry,
    }))
}

/// The last superseded version at or before a history key, if it is one of the same user's key.
pub(crate) fn version_before<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    history_key: &[u8],
) -> Result<Option<(PastVersion, Entry<'s>)>, PageFault> {
    let mut cursor = Cursor::new(pages, roots.history);
    let Some((key, entry)) = cursor.seek_floor(history_key)? else { return Ok(None) };
    // The prefix holds the end mark, so a key that shares it is a version of the same user's key.
    let prefix = &history_key[..history_key.len() - Change::SIZE_BYTES];
    let Some(change) = key.strip_prefix(prefix) else { return Ok(None) };
    Ok(Some((decode_past(pages, roots, change, entry)?, entry)))
}

/// The version that a change wrote, whether it is still the newest or not; `None` if the history
/// does not hold it any more.
pub(crate) fn version_of_change<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    key: &[u8],
    change: Change,
    scratch: &mut Vec<u8>,
) -> Result<Option<Found<'s>>, PageFault> {
    if let Some(found) = newest_version(pages, roots, key)?
        && found.version.change == change
    {
        return Ok(Some(found));
    }
    layout::history_key(key, change, scratch);
    let Some(entry) = tree::get(pages, roots.history, scratch)? else { return Ok(None) };
    let past = decode_past(pages, roots, &change.to_bytes(), entry)?;
    Ok(Some(Found { version: past.version, end: Some(past.end), entry }))
}

/// Decodes an entry of `current`.
pub(crate) fn decode<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    entry: Entry<'s>,
) -> Result<Found<'s>, PageFault> {
    match layout::decode_current(entry.head) {
        Some(version) => Ok(Found { version, end: None, entry }),
        None => Err(damaged(pages, roots.current, "head of a current version")),
    }
}

fn decode_past<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    change: &[u8],
    entry: Entry<'_>,
) -> Result<PastVersion, PageFault> {
    Change::from_bytes(change)
        .and_then(|change| layout::decode_past(change, entry.head))
        .ok_or_else(|| damaged(pages, roots.history, "head of a past version"))
}

/// Decodes an entry of `revisions`.
pub(crate) fn decode_change<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    key: &[u8],
    head: &[u8],
) -> Result<(Change, ChangeKind), PageFault> {
    Change::from_bytes(key)
        .zip(ChangeKind::from_head(head))
        .ok_or_else(|| damaged(pages, roots.revisions, "entry of a change"))
}

/// The changes of all shards, in order.
pub(crate) struct Changes<'s, S: Store> {
    store: &'s S,
    cursors: Vec<Cursor<'s, S::Pages>>,
    /// The next change of each shard.
    fronts: Vec<Option<Front<'s>>>,
}

/// A change at the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front<'s> {
    pub(crate) shard: usize,
    pub(crate) change: Change,
    pub(crate) kind: ChangeKind,
    pub(crate) key: &'s [u8],
}

impl<'s, S: Store> Changes<'s, S> {
    /// Begins at the first change that is not before `from`.
    pub(crate) fn new(store: &'s S, from: Change) -> Result<Self, PageFault> {
        let from = from.to_bytes();
        let mut changes = Self { store, cursors: Vec::new(), fronts: Vec::new() };
        for shard in 0..store.shard_count() {
            let (pages, roots) = store.shard(shard);
            let mut cursor = Cursor::new(pages, roots.revisions);
            cursor.seek(&from)?;
            changes.cursors.push(cursor);
            let front = changes.pull(shard)?;
            changes.fronts.push(front);
        }
        Ok(changes)
    }

    /// The next change of all.
    pub(crate) fn front(&self) -> Option<Front<'s>> {
        self.fronts.iter().flatten().min_by_key(|front| front.change).copied()
    }

    /// Passes the front.
    pub(crate) fn advance(&mut self, front: &Front<'s>) -> Result<(), PageFault> {
        self.fronts[front.shard] = self.pull(front.shard)?;
        Ok(())
    }

    fn pull(&mut self, shard: usize) -> Result<Option<Front<'s>>, PageFault> {
        let (pages, roots) = self.store.shard(shard);
        let Some((key, entry)) = self.cursors[shard].next()? else { return Ok(None) };
        let (change, kind) = decode_change(pages, roots, key, entry.head)?;
        Ok(Some(Front { shard, change, kind, key: entry.body(pages)? }))
    }
}

/// The fault of an entry whose page is sound and whose content is not.
pub(crate) fn damaged<P: Pages>(pages: &P, root: Root, rule: &'static str) -> PageFault {
    pages.fault(root.tree, root.page, FaultKind::Structure(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_in_their_shards() {
        // Frozen: a store written under another function would lose its keys.
        let shards = |key: &[u8]| [1, 2, 4, 8, 16].map(|count| shard_of(key, count));
        assert_eq!(shards(b""), [0, 0, 2, 6, 6]);
        assert_eq!(shards(b"a"), [0, 1, 3, 3, 11]);
        assert_eq!(shards(b"/registry/pods/default/web-0"), [0, 0, 2, 6, 14]);
        assert_eq!(shards(&[0xff; 300]), [0, 0, 2, 2, 2]);
    }

    #[test]
    fn keys_that_differ_little_spread_evenly() {
        let mut counts = [0; 8];
        for index in 0..8000 {
            counts[shard_of(format!("/registry/pods/{index:08}").as_bytes(), 8)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
