//! A store's content as readers see it: the shards' trees, behind one trait for the published view
//! and for the working state, and the lookups of single versions.
//!
//! Invariants:
//! - A key lives in the shard that [`shard_of`] names and in no other. The function is frozen: a
//!   store that was written under another one would lose its keys.
//! - What does not decode is a fault that names the tree's page, never a panic.

use crate::chain::Chain;
use crate::ids::{Change, Revision};
use crate::layout::{self, ChangeKind, Logged, Version};
use crate::page::{FaultKind, PageFault, Pages};
use crate::range::Record;
use crate::tree::{self, Cursor, Entry, LeafRun, Root};

/// The roots of a shard's trees in one state of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardRoots {
    pub(crate) current: Root,
    pub(crate) revisions: Root,
    pub(crate) values: Root,
    pub(crate) system: Root,
    pub(crate) tombstones: Root,
    pub(crate) attachments: Root,
}

impl ShardRoots {
    /// The tree at a place, counted from 0; `None` behind the last.
    pub(crate) fn by_place_mut(&mut self, place: usize) -> Option<&mut Root> {
        let Self { current, revisions, values, system, tombstones, attachments } = self;
        let trees = [current, revisions, values, system, tombstones, attachments];
        trees.into_iter().nth(place)
    }
}

/// A version and where its value is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'s> {
    pub(crate) version: Version,
    /// Where the value is.
    entry: Entry<'s>,
    /// Where in the entry's body it begins.
    value_at: usize,
}

impl<'s> Found<'s> {
    /// The value's length, which costs no look at a large one.
    pub(crate) fn value_size_bytes(&self) -> usize {
        self.entry.body_size_bytes() - self.value_at
    }

    /// The value; a large one is verified when it is first read.
    pub(crate) fn value<P: Pages>(&self, pages: &'s P) -> Result<&'s [u8], PageFault> {
        // `decode_logged` has compared the two.
        Ok(&self.entry.body(pages)?[self.value_at..])
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
        let found = version_at(pages, roots, key, revision)?;
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

/// The version of a key that a read at a revision sees.
pub(crate) fn version_at<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    key: &[u8],
    revision: Revision,
) -> Result<Option<Found<'s>>, PageFault> {
    let newest = match newest_version(pages, roots, key)? {
        Some(found) if found.version.change.main <= revision => return Ok(Some(found)),
        Some(found) => Some(found.version.change),
        None => tombstone(pages, roots, key)?.map(|(change, _)| change),
    };
    match newest {
        Some(change) if change.main > revision => {
            version_before(pages, roots, key, change, revision)
        }
        _ => Ok(None),
    }
}

/// The change that deleted a key which does not exist now, with its chain, unless compaction has
/// forgotten it.
pub(crate) fn tombstone<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    key: &[u8],
) -> Result<Option<(Change, Chain)>, PageFault> {
    // Asked at every creation, and mostly there is none.
    if roots.tombstones.is_empty() {
        return Ok(None);
    }
    match tree::get(pages, roots.tombstones, key)? {
        Some(entry) => decode_tombstone(pages, roots, entry).map(Some),
        None => Ok(None),
    }
}

/// Decodes an entry of `tombstones`.
pub(crate) fn decode_tombstone<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    entry: Entry<'_>,
) -> Result<(Change, Chain), PageFault> {
    layout::decode_tombstone(entry.head)
        .ok_or_else(|| damaged(pages, roots.tombstones, "change of a tombstone"))
}

/// The version of a key that a read at a revision sees, given a later change of that key.
pub(crate) fn version_before<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    key: &[u8],
    later: Change,
    revision: Revision,
) -> Result<Option<Found<'s>>, PageFault> {
    let mut at = later;
    loop {
        let Some(entry) = tree::get(pages, roots.revisions, &at.to_bytes())? else {
            return Err(damaged(pages, roots.revisions, "a change is gone"));
        };
        let logged = decode_logged(pages, roots, at, entry)?;
        let Some(prev) = logged.prev else { return Ok(None) };
        if prev.main <= revision {
            // Before a creation stands a tombstone.
            if logged.kind == ChangeKind::Create {
                return Ok(None);
            }
            return version_of_change(pages, roots, key, prev).map(Some);
        }
        at = logged.shortcut.filter(|shortcut| shortcut.main > revision).unwrap_or(prev);
    }
}

/// The version that a change wrote, whether it is still the newest or not.
pub(crate) fn version_of_change<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    key: &[u8],
    change: Change,
) -> Result<Found<'s>, PageFault> {
    match tree::get(pages, roots.revisions, &change.to_bytes())? {
        Some(entry) => {
            let logged = decode_logged(pages, roots, change, entry)?;
            version_of_logged(pages, roots, key, &logged, entry)
        }
        None => Err(damaged(pages, roots.revisions, "a version is gone")),
    }
}

/// The same for a change whose entry is known.
pub(crate) fn version_of_logged<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    key: &[u8],
    logged: &Logged,
    entry: Entry<'s>,
) -> Result<Found<'s>, PageFault> {
    let version = logged.version;
    if let Some(value_at) = logged.value_at {
        return Ok(Found { version, entry, value_at });
    }
    if let Some(found) = newest_version(pages, roots, key)?
        && found.version.change == version.change
    {
        return Ok(found);
    }
    match tree::get(pages, roots.values, &version.change.to_bytes())? {
        Some(entry) => Ok(Found { version, entry, value_at: 0 }),
        None => Err(damaged(pages, roots.values, "a value is gone")),
    }
}

/// Decodes an entry of `current`.
pub(crate) fn decode<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    entry: Entry<'s>,
) -> Result<Found<'s>, PageFault> {
    match layout::decode_current(entry.head) {
        Some((version, _)) => Ok(Found { version, entry, value_at: 0 }),
        None => Err(damaged(pages, roots.current, "head of a current version")),
    }
}

/// Decodes the entry of a change.
pub(crate) fn decode_logged<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    change: Change,
    entry: Entry<'_>,
) -> Result<Logged, PageFault> {
    layout::decode_change(change, entry.head)
        .filter(|logged| logged.value_at.is_none_or(|at| at <= entry.body_size_bytes()))
        .ok_or_else(|| damaged(pages, roots.revisions, "entry of a change"))
}

/// The changes of a shard, in order.
pub(crate) struct ShardChanges<'s, P: Pages> {
    shard: usize,
    pages: &'s P,
    roots: ShardRoots,
    cursor: Cursor<'s, P>,
    /// What of the cursor's leaf is passed, and all of it that was there to pass.
    leaf: Option<(usize, LeafRun<'s>)>,
}

impl<'s, P: Pages> ShardChanges<'s, P> {
    /// Begins at the first change that is not before `from`.
    pub(crate) fn new<S: Store<Pages = P>>(
        store: &'s S,
        shard: usize,
        from: Change,
    ) -> Result<Self, PageFault> {
        let (pages, roots) = store.shard(shard);
        Self::of_shard(shard, pages, roots, from)
    }

    /// The same for a shard on its own.
    pub(crate) fn of_shard(
        shard: usize,
        pages: &'s P,
        roots: &ShardRoots,
        from: Change,
    ) -> Result<Self, PageFault> {
        let mut cursor = Cursor::new(pages, roots.revisions);
        cursor.seek(&from.to_bytes())?;
        Ok(Self { shard, pages, roots: *roots, cursor, leaf: None })
    }

    /// The next change.
    pub(crate) fn next(&mut self) -> Result<Option<Front<'s>>, PageFault> {
        let (index, leaf) = match self.leaf {
            Some((index, leaf)) if index < leaf.len() => (index, leaf),
            _ => {
                let Some(leaf) = self.cursor.next_leaf()? else { return Ok(None) };
                // Who takes a second leaf will mostly take all of it.
                if self.leaf.is_some() {
                    leaf.warm();
                }
                (0, leaf)
            }
        };
        self.leaf = Some((index + 1, leaf));
        let (key, entry) = leaf.entry(self.pages, index)?;
        let change = Change::from_bytes(key)
            .ok_or_else(|| damaged(self.pages, self.roots.revisions, "key of a change"))?;
        let logged = decode_logged(self.pages, &self.roots, change, entry)?;
        let body = entry.body(self.pages)?;
        let key = &body[..logged.value_at.unwrap_or(body.len())];
        Ok(Some(Front { shard: self.shard, logged, key, entry }))
    }
}

/// The changes of all shards, in order.
pub(crate) struct Changes<'s, S: Store> {
    shards: Vec<ShardChanges<'s, S::Pages>>,
    /// The next change of each shard.
    fronts: Vec<Option<Front<'s>>>,
}

/// A change on a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front<'s> {
    pub(crate) shard: usize,
    pub(crate) logged: Logged,
    pub(crate) key: &'s [u8],
    entry: Entry<'s>,
}

impl<'s> Front<'s> {
    /// The number of the change.
    pub(crate) fn change(&self) -> Change {
        self.logged.version.change
    }

    /// The version that the change wrote.
    pub(crate) fn version<P: Pages>(
        &self,
        pages: &'s P,
        roots: &ShardRoots,
    ) -> Result<Found<'s>, PageFault> {
        version_of_logged(pages, roots, self.key, &self.logged, self.entry)
    }
}

impl<'s, S: Store> Changes<'s, S> {
    /// Begins at the first change that is not before `from`.
    pub(crate) fn new(store: &'s S, from: Change) -> Result<Self, PageFault> {
        let mut changes = Self { shards: Vec::new(), fronts: Vec::new() };
        for shard in 0..store.shard_count() {
            changes.shards.push(ShardChanges::new(store, shard, from)?);
            changes.fronts.push(changes.shards[shard].next()?);
        }
        Ok(changes)
    }

    /// The next change of all.
    pub(crate) fn front(&self) -> Option<Front<'s>> {
        self.fronts.iter().flatten().min_by_key(|front| front.change()).copied()
    }

    /// Passes the front.
    pub(crate) fn advance(&mut self, front: &Front<'s>) -> Result<(), PageFault> {
        self.fronts[front.shard] = self.shards[front.shard].next()?;
        Ok(())
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
