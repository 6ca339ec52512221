//! One shard: its pages, its trees, and the two ways a key changes.
//!
//! Invariants:
//! - Every change is entered in `revisions` exactly once, and there in the order of changes.
//! - A version is in `current` until the change that ends it. Its value then moves to `values`,
//!   unless `revisions` has had it from the start; a value in an extent is handed over, not copied.
//! - `attachments` names a key once, under the lease of its newest version, if that has one.
//! - A shard knows no numbers of the store: the change it is given is greater than all before.

mod import;

use crate::answer::OwnedRecord;
use crate::chain::Chain;
use crate::command::PutRef;
use crate::events::{EventBuilder, EventKind, EventRef};
use crate::ids::{Change, LeaseId, Revision};
use crate::layout::{self, ChangeKind, Head, LOGGED_SIZE_BYTES_MAX, Logged, Version};
use crate::page::node::CELL_SIZE_BYTES_MAX;
use crate::page::{ExtentRef, PAGE_SIZE_BYTES, PageFault, PageFile, PagesNeeded};
use crate::range::Record;
use crate::store::{self, ShardRoots};
use crate::tree::{self, Body, Entry};

/// What a cell, a head and a change's number add to an entry's key and value, at most.
const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// The writer's half of one shard.
pub(crate) struct Shard {
    pub(crate) file: PageFile,
    pub(crate) roots: ShardRoots,
    /// The value that moves from one tree to another, or into the next version, unless it is an
    /// extent.
    value_scratch: Vec<u8>,
    /// The key and value of a change.
    body_scratch: Vec<u8>,
}

/// What is known of the newest version of a key before it is changed.
struct Old {
    version: Version,
    /// Whether `revisions` has the value.
    is_logged: bool,
    chain: Chain,
    extent: Option<ExtentRef>,
}

impl Shard {
    pub(crate) fn new(file: PageFile, roots: ShardRoots) -> Self {
        Self { file, roots, value_scratch: Vec::new(), body_scratch: Vec::new() }
    }

    /// The free pages that so many changes, of commands of this size, can need at worst.
    pub(crate) fn pages_needed(&self, changes: usize, size_bytes: usize) -> PagesNeeded {
        let count = u64::try_from(changes).expect("a count of changes fits 64 bits");
        let new_bytes = u64::try_from(size_bytes).expect("a size fits 64 bits");
        // The value that moves was not measured: it counts as the longest entry a page takes.
        let moved_bytes = count * CELL_SIZE_BYTES_MAX as u64;
        let extent_pages = u32::try_from(size_bytes.div_ceil(PAGE_SIZE_BYTES)).unwrap_or(u32::MAX);
        let entry_bytes = new_bytes + count * ENTRY_OVERHEAD_BYTES;
        let roots = &self.roots;
        let trees = [
            (&roots.current, entry_bytes, 2 * extent_pages),
            (&roots.revisions, entry_bytes, extent_pages),
            (&roots.values, moved_bytes, 0),
            (&roots.tombstones, entry_bytes, 2 * extent_pages),
            (&roots.attachments, entry_bytes, 2 * extent_pages),
            (&roots.system, ENTRY_OVERHEAD_BYTES, 1),
        ];
        let mut needed = PagesNeeded::default();
        for (root, size_bytes, extent_pages) in trees {
            let changes = tree::Changes { count, size_bytes, extent_pages };
            needed = needed.plus(tree::pages_needed(&self.file, root, changes));
        }
        needed
    }

    /// The free pages that commands of this size take as a rule: key and value stand in two trees,
    /// a predecessor in a third, pages are half full, and paths are copied.
    pub(crate) fn pages_usually_needed(size_bytes: usize) -> PagesNeeded {
        let pages = u32::try_from(size_bytes.div_ceil(PAGE_SIZE_BYTES)).unwrap_or(u32::MAX);
        PagesNeeded { pages: pages.saturating_mul(8), extent_pages: pages }
    }

    /// The free pages without which no checkpoint is begun: a bit for each page, in whole pages;
    /// one more in case the file grows while room is made.
    pub(crate) fn checkpoint_need(&self) -> PagesNeeded {
        let pages = self.file.size_bytes().div_ceil(PAGE_SIZE_BYTES as u64);
        let map_pages = pages.div_ceil(8 * PAGE_SIZE_BYTES as u64) + 1;
        let extent_pages = u32::try_from(map_pages).unwrap_or(u32::MAX);
        PagesNeeded { pages: 0, extent_pages }
    }

    /// Whether a key exists.
    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, PageFault> {
        Ok(tree::get(&self.file, self.roots.current, key)?.is_some())
    }

    /// Writes a version. Answers with the one it replaced, if that was asked for.
    ///
    /// `ignore_value` and `ignore_lease` on a key that does not exist keep nothing: callers refuse
    /// such a put before.
    pub(crate) fn put(
        &mut self,
        put: &PutRef<'_>,
        change: Change,
        events: &mut EventBuilder,
    ) -> Result<Option<OwnedRecord>, PageFault> {
        let mut prev = None;
        let mut old = None;
        let mut lease = if put.ignore_lease { LeaseId(0) } else { put.lease };
        let mut keeps_value = false;
        let mut create_revision = change.main;
        let mut count = 1;
        if let Some(entry) = tree::get(&self.file, self.roots.current, put.key)? {
            let Old { version, is_logged, chain, extent } = self.decode_old(entry)?;
            create_revision = version.create_revision;
            count = version.version.saturating_add(1);
            if put.ignore_lease {
                lease = version.lease;
            }
            keeps_value = put.ignore_value;
            if put.prev_kv {
                let value = entry.body(&self.file)?;
                prev = Some(version.record(put.key, value).to_owned());
            }
            if keeps_value || (!is_logged && extent.is_none()) {
                self.value_scratch.clear();
                self.value_scratch.extend_from_slice(entry.body(&self.file)?);
            }
            old = Some(Old { version, is_logged, chain, extent });
        }
        let version = Version { create_revision, change, version: count, lease };
        if events.is_wanted() {
            self.tell_put(put, &version, keeps_value, old.as_ref(), events)?;
        }
        // What the change follows: a version, a tombstone, or nothing.
        let before = match &old {
            Some(old) => Some((old.version.change, old.chain)),
            None => self.end_tombstone(put.key)?,
        };
        let (prev_change, shortcut, chain) = link(before, change);
        // Only an update that brings its value is logged with it.
        let size_bytes = put.key.len() + put.value.len();
        let is_logged = old.is_some() && !put.ignore_value && size_bytes <= LOGGED_SIZE_BYTES_MAX;
        let value_at = is_logged.then_some(put.key.len());
        let kind = if old.is_some() { ChangeKind::Update } else { ChangeKind::Create };
        let logged = Logged { kind, version, prev: prev_change, shortcut, value_at };
        if let Some(old) = &old {
            self.keep_value(old)?;
        }
        let old_lease = old.as_ref().map_or(LeaseId(0), |old| old.version.lease);
        self.attach(put.key, old_lease, lease)?;
        let value = match (put.ignore_value, keeps_value) {
            (true, true) => &self.value_scratch[..],
            (true, false) => &[],
            (false, _) => put.value,
        };
        let head = Head::of_current(&version, is_logged, &chain);
        // Superseded, not replaced: an old value in an extent belongs to `values` by now.
        tree::supersede(
            &mut self.file,
            &mut self.roots.current,
            put.key,
            head.as_bytes(),
            Body::Bytes(value),
        )?;
        self.enter(put.key, put.value, &logged)?;
        Ok(prev)
    }

    /// Ends a key. `None` if there was none; else the record, if that was asked for.
    pub(crate) fn delete(
        &mut self,
        key: &[u8],
        prev_kv: bool,
        change: Change,
        events: &mut EventBuilder,
    ) -> Result<Option<Option<OwnedRecord>>, PageFault> {
        let Some(entry) = tree::get(&self.file, self.roots.current, key)? else { return Ok(None) };
        let old = self.decode_old(entry)?;
        let prev = match prev_kv {
            true => Some(old.version.record(key, entry.body(&self.file)?).to_owned()),
            false => None,
        };
        if !old.is_logged && old.extent.is_none() {
            self.value_scratch.clear();
            self.value_scratch.extend_from_slice(entry.body(&self.file)?);
        }
        if events.is_wanted() {
            let record = Record { key, mod_revision: change.main, ..Record::default() };
            self.tell(EventKind::Delete, change, record, Some(&old), events)?;
        }
        self.keep_value(&old)?;
        self.attach(key, old.version.lease, LeaseId(0))?;
        tree::take(&mut self.file, &mut self.roots.current, key)?;
        let (prev_change, shortcut, chain) = link(Some((old.version.change, old.chain)), change);
        tree::insert(
            &mut self.file,
            &mut self.roots.tombstones,
            key,
            Head::of_tombstone(change, &chain).as_bytes(),
            Body::Bytes(&[]),
        )?;
        let version =
            Version { create_revision: Revision(0), change, version: 0, lease: LeaseId(0) };
        let kind = ChangeKind::Tombstone;
        let logged = Logged { kind, version, prev: prev_change, shortcut, value_at: None };
        self.enter(key, &[], &logged)?;
        Ok(Some(prev))
    }

    /// A key has one lease at most: the newest put decides.
    fn attach(&mut self, key: &[u8], from: LeaseId, to: LeaseId) -> Result<(), PageFault> {
        if from == to {
            return Ok(());
        }
        let (file, root) = (&mut self.file, &mut self.roots.attachments);
        if from != LeaseId(0) {
            layout::attachment_key(from, key, &mut self.body_scratch);
            tree::remove(file, root, &self.body_scratch)?;
        }
        if to != LeaseId(0) {
            layout::attachment_key(to, key, &mut self.body_scratch);
            tree::insert(file, root, &self.body_scratch, &[], Body::Bytes(&[]))?;
        }
        Ok(())
    }

    fn decode_old(&self, entry: Entry<'_>) -> Result<Old, PageFault> {
        let extent = entry.extent();
        match layout::decode_newest(entry.head) {
            // What is logged is small: see `LOGGED_SIZE_BYTES_MAX`.
            Some((version, is_logged, chain)) if !(is_logged && extent.is_some()) => {
                Ok(Old { version, is_logged, chain, extent })
            }
            _ => {
                let root = self.roots.current;
                Err(store::damaged(&self.file, root, "head of a current version"))
            }
        }
    }

    /// Keeps the value of a version that ends, unless `revisions` has it. The value is in
    /// `value_scratch` or in the extent, which is handed over.
    fn keep_value(&mut self, old: &Old) -> Result<(), PageFault> {
        if old.is_logged {
            return Ok(());
        }
        let body = match old.extent {
            Some(extent) => Body::Extent(extent),
            None => Body::Bytes(&self.value_scratch),
        };
        let key = old.version.change.to_bytes();
        tree::insert(&mut self.file, &mut self.roots.values, &key, &[], body)?;
        Ok(())
    }

    /// The key lives again: its tombstone is one link of its chain.
    fn end_tombstone(&mut self, key: &[u8]) -> Result<Option<(Change, Chain)>, PageFault> {
        let tombstone = store::tombstone(&self.file, &self.roots, key)?;
        if tombstone.is_some() {
            tree::remove(&mut self.file, &mut self.roots.tombstones, key)?;
        }
        Ok(tombstone)
    }

    fn enter(&mut self, key: &[u8], value: &[u8], logged: &Logged) -> Result<(), PageFault> {
        self.body_scratch.clear();
        self.body_scratch.extend_from_slice(key);
        if logged.value_at.is_some() {
            self.body_scratch.extend_from_slice(value);
        }
        tree::insert(
            &mut self.file,
            &mut self.roots.revisions,
            &logged.version.change.to_bytes(),
            Head::of_change(logged).as_bytes(),
            Body::Bytes(&self.body_scratch),
        )?;
        Ok(())
    }

    fn tell_put(
        &self,
        put: &PutRef<'_>,
        new: &Version,
        keeps_value: bool,
        old: Option<&Old>,
        events: &mut EventBuilder,
    ) -> Result<(), PageFault> {
        let value = match (put.ignore_value, keeps_value) {
            (true, true) => &self.value_scratch[..],
            (true, false) => &[],
            (false, _) => put.value,
        };
        let record = new.record(put.key, value);
        // etcd looks for the record before only if the key was not created by this very revision.
        let old = old.filter(|_| new.create_revision != new.change.main);
        self.tell(EventKind::Put, new.change, record, old, events)
    }

    /// The record before an event is the one of the revision before, not of the change before: they
    /// differ when a command changes a key twice.
    fn tell(
        &self,
        kind: EventKind,
        change: Change,
        record: Record<'_>,
        old: Option<&Old>,
        events: &mut EventBuilder,
    ) -> Result<(), PageFault> {
        let Some(old) = old.filter(|_| events.is_prev_wanted()) else {
            events.push(&EventRef { kind, change, record, prev: None });
            return Ok(());
        };
        let key = record.key;
        let last = old.version.change;
        let found = if last.main < change.main {
            store::newest_version(&self.file, &self.roots, key)?
        } else {
            let before = Revision(change.main.0 - 1);
            store::version_before(&self.file, &self.roots, key, last, before)?
        };
        let prev = match found {
            Some(found) => Some(found.version.record(key, found.value(&self.file)?)),
            None => None,
        };
        events.push(&EventRef { kind, change, record, prev });
        Ok(())
    }
}

/// Ties a change to the one before it: which that is, the shortcut, and the chain from now on.
fn link(
    before: Option<(Change, Chain)>,
    change: Change,
) -> (Option<Change>, Option<Change>, Chain) {
    match before {
        Some((prev, mut chain)) => {
            let shortcut = chain.extend(change);
            (Some(prev), shortcut, chain)
        }
        None => (None, None, Chain::first()),
    }
}
