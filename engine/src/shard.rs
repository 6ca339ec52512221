//! One shard: its pages, its trees, and the two ways a key changes.
//!
//! Invariants:
//! - Every change is entered in `revisions` exactly once, and there in the order of changes.
//! - A version is in `current` until the change that ends it, in that change it moves to `history`;
//!   a value in an extent is handed over, not copied.
//! - A shard knows no numbers of the store: the change it is given is greater than all before.

use crate::answer::OwnedRecord;
use crate::command::PutRef;
use crate::events::{EventBuilder, EventKind, EventRef};
use crate::ids::{Change, LeaseId, Revision};
use crate::layout::{self, ChangeKind, Head, PastVersion, Version};
use crate::page::node::CELL_SIZE_BYTES_MAX;
use crate::page::{ExtentRef, PAGE_SIZE_BYTES, PageFault, PageFile, PagesNeeded};
use crate::range::Record;
use crate::store::{self, ShardRoots};
use crate::tree::{self, Body};

/// What a cell, a head and a change's number add to an entry's key and value, at most.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// The writer's half of one shard.
pub(crate) struct Shard {
    pub(crate) file: PageFile,
    pub(crate) roots: ShardRoots,
    /// History keys are built here.
    key_scratch: Vec<u8>,
    /// The value that moves from one tree to another, unless it is an extent.
    value_scratch: Vec<u8>,
}

/// What is known of the newest version of a key before it is changed.
struct Old {
    version: Version,
    extent: Option<ExtentRef>,
}

impl Shard {
    pub(crate) fn new(file: PageFile, roots: ShardRoots) -> Self {
        Self { file, roots, key_scratch: Vec::new(), value_scratch: Vec::new() }
    }

    /// The free pages that so many changes, of commands of this size, can need at worst.
    pub(crate) fn pages_needed(&self, changes: usize, size_bytes: usize) -> PagesNeeded {
        let count = u64::try_from(changes).expect("a count of changes fits 64 bits");
        let new_bytes = u64::try_from(size_bytes).expect("a size fits 64 bits");
        // What moves to the history was not measured: it counts as the longest entry a page takes.
        let moved_bytes = count * CELL_SIZE_BYTES_MAX as u64;
        let extent_pages = u32::try_from(size_bytes.div_ceil(PAGE_SIZE_BYTES)).unwrap_or(u32::MAX);
        let entry_bytes = new_bytes + count * ENTRY_OVERHEAD_BYTES;
        let roots = &self.roots;
        let trees = [
            (&roots.current, entry_bytes, 2 * extent_pages),
            (&roots.revisions, entry_bytes, extent_pages),
            (&roots.history, entry_bytes + moved_bytes, 2 * extent_pages),
            (&roots.system, ENTRY_OVERHEAD_BYTES, 1),
        ];
        let mut needed = PagesNeeded::default();
        for (root, size_bytes, extent_pages) in trees {
            let changes = tree::Changes { count, size_bytes, extent_pages };
            needed = needed.plus(tree::pages_needed(&self.file, root, changes));
        }
        needed
    }

    /// The free pages that commands of this size take as a rule: the key stands in three trees, the
    /// value in one and its predecessor in another, pages are half full, and paths are copied.
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
            let version = store::decode(&self.file, &self.roots, entry)?.version;
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
            if keeps_value || entry.extent().is_none() {
                self.value_scratch.clear();
                self.value_scratch.extend_from_slice(entry.body(&self.file)?);
            }
            old = Some(Old { version, extent: entry.extent() });
        }
        let new = Version { create_revision, change, version: count, lease };
        if events.is_wanted() {
            self.tell_put(put, &new, keeps_value, old.as_ref(), events)?;
        }
        let kind = if old.is_some() { ChangeKind::Update } else { ChangeKind::Create };
        if let Some(old) = &old {
            self.move_to_history(put.key, old, change)?;
        }
        let value = match (put.ignore_value, keeps_value) {
            (true, true) => &self.value_scratch[..],
            (true, false) => &[],
            (false, _) => put.value,
        };
        let head = Head::of_current(&new);
        // Superseded, not replaced: an old value in an extent belongs to the history by now.
        tree::supersede(
            &mut self.file,
            &mut self.roots.current,
            put.key,
            head.as_bytes(),
            Body::Bytes(value),
        )?;
        self.enter(put.key, change, kind)?;
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
        let version = store::decode(&self.file, &self.roots, entry)?.version;
        let prev = match prev_kv {
            true => Some(version.record(key, entry.body(&self.file)?).to_owned()),
            false => None,
        };
        if entry.extent().is_none() {
            self.value_scratch.clear();
            self.value_scratch.extend_from_slice(entry.body(&self.file)?);
        }
        let old = Old { version, extent: entry.extent() };
        if events.is_wanted() {
            let record = Record { key, mod_revision: change.main, ..Record::default() };
            self.tell(EventKind::Delete, change, record, Some(&old), events)?;
        }
        self.move_to_history(key, &old, change)?;
        tree::take(&mut self.file, &mut self.roots.current, key)?;
        self.enter(key, change, ChangeKind::Tombstone)?;
        Ok(Some(prev))
    }

    /// The old value is in `value_scratch` or in the extent, which is handed over.
    fn move_to_history(&mut self, key: &[u8], old: &Old, end: Change) -> Result<(), PageFault> {
        layout::history_key(key, old.version.change, &mut self.key_scratch);
        let head = Head::of_past(&PastVersion { version: old.version, end });
        let body = match old.extent {
            Some(extent) => Body::Extent(extent),
            None => Body::Bytes(&self.value_scratch),
        };
        tree::insert(
            &mut self.file,
            &mut self.roots.history,
            &self.key_scratch,
            head.as_bytes(),
            body,
        )?;
        Ok(())
    }

    fn enter(&mut self, key: &[u8], change: Change, kind: ChangeKind) -> Result<(), PageFault> {
        tree::insert(
            &mut self.file,
            &mut self.roots.revisions,
            &change.to_bytes(),
            &[kind as u8],
            Body::Bytes(key),
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
        let found = if old.version.change.main < change.main {
            store::newest_version(&self.file, &self.roots, key)?
        } else {
            let before = Revision(change.main.0 - 1);
            store::past_version(&self.file, &self.roots, key, before, &mut Vec::new())?
        };
        let prev = match found {
            Some(found) => Some(found.version.record(key, found.value(&self.file)?)),
            None => None,
        };
        events.push(&EventRef { kind, change, record, prev });
        Ok(())
    }
}
