//! Changes that come with the numbers they have had elsewhere.
//!
//! Invariant: of a key whose beginning was compacted the first change has none before it; every
//! other follows the one before, in version and in create revision.

use super::{Shard, link};
use crate::engine::ImportRule;
use crate::ids::{Change, LeaseId, Revision};
use crate::layout::{self, ChangeKind, Head, LOGGED_SIZE_BYTES_MAX, Logged, Version};
use crate::page::PageFault;
use crate::range::Record;
use crate::store;
use crate::tree::{self, Body};

impl Shard {
    /// Enters a version with its own numbers. It is attached to its lease if there is one.
    pub(crate) fn import_put(
        &mut self,
        record: &Record<'_>,
        change: Change,
        has_lease: bool,
    ) -> Result<Result<(), ImportRule>, PageFault> {
        // What a restore adds to step over revisions: an empty record, which is no key's version.
        let is_empty = record.version == 0;
        if is_empty && *record != Record::default() || !is_empty && record.key.is_empty() {
            return Ok(Err(ImportRule::KeyEmpty));
        }
        if !is_empty && record.mod_revision != change.main {
            return Ok(Err(ImportRule::ModRevision));
        }
        let mut old = None;
        if let Some(entry) = tree::get(&self.file, self.roots.current, record.key)? {
            let found = self.decode_old(entry)?;
            if !found.is_logged && found.extent.is_none() {
                self.value_scratch.clear();
                self.value_scratch.extend_from_slice(entry.body(&self.file)?);
            }
            old = Some(found);
        }
        let follows = match &old {
            Some(old) if is_empty => old.version.version == 0,
            Some(old) => {
                record.version.checked_sub(1) == Some(old.version.version)
                    && record.create_revision == old.version.create_revision
            }
            None => {
                let is_first = record.version == 1 && record.create_revision == change.main;
                let is_later = record.version > 1 && record.create_revision <= change.main;
                is_empty || is_first || is_later && record.create_revision > Revision(0)
            }
        };
        if !follows {
            return Ok(Err(ImportRule::Version));
        }
        let before = match &old {
            Some(old) => Some((old.version.change, old.chain)),
            None => self.end_tombstone(record.key)?,
        };
        let (prev, shortcut, chain) = link(before, change);
        let kind = if record.version == 1 { ChangeKind::Create } else { ChangeKind::Update };
        let size_bytes = record.key.len() + record.value.len();
        let is_logged = kind == ChangeKind::Update && size_bytes <= LOGGED_SIZE_BYTES_MAX;
        let version = Version {
            create_revision: record.create_revision,
            change,
            version: record.version,
            lease: record.lease,
        };
        let value_at = is_logged.then_some(record.key.len());
        let logged = Logged { kind, version, prev, shortcut, value_at };
        if let Some(old) = &old {
            self.keep_value(old)?;
        }
        let old_lease = old.as_ref().map_or(LeaseId(0), |old| old.version.lease);
        let lease = if has_lease { record.lease } else { LeaseId(0) };
        // A version that has an end when it comes may never have been attached here.
        let is_missing = old_lease == lease && !self.is_attached(record.key, lease)?;
        let old_lease = if is_missing { LeaseId(0) } else { old_lease };
        self.attach(record.key, old_lease, lease)?;
        let head = Head::of_current(&version, is_logged, &chain);
        let root = &mut self.roots.current;
        let body = Body::Bytes(record.value);
        tree::supersede(&mut self.file, root, record.key, head.as_bytes(), body)?;
        self.enter(record.key, record.value, &logged)?;
        Ok(Ok(()))
    }

    fn is_attached(&mut self, key: &[u8], lease: LeaseId) -> Result<bool, PageFault> {
        if lease == LeaseId(0) {
            return Ok(true);
        }
        layout::attachment_key(lease, key, &mut self.body_scratch);
        Ok(tree::get(&self.file, self.roots.attachments, &self.body_scratch)?.is_some())
    }

    /// Ends a key, of which compaction may have left nothing but its end.
    pub(crate) fn import_delete(
        &mut self,
        key: &[u8],
        change: Change,
    ) -> Result<Result<(), ImportRule>, PageFault> {
        if key.is_empty() {
            return Ok(Err(ImportRule::KeyEmpty));
        }
        let mut before = None;
        if let Some(entry) = tree::get(&self.file, self.roots.current, key)? {
            let old = self.decode_old(entry)?;
            if !old.is_logged && old.extent.is_none() {
                self.value_scratch.clear();
                self.value_scratch.extend_from_slice(entry.body(&self.file)?);
            }
            self.keep_value(&old)?;
            self.attach(key, old.version.lease, LeaseId(0))?;
            tree::take(&mut self.file, &mut self.roots.current, key)?;
            before = Some((old.version.change, old.chain));
        } else if store::tombstone(&self.file, &self.roots, key)?.is_some() {
            return Ok(Err(ImportRule::Deleted));
        }
        let (prev, shortcut, chain) = link(before, change);
        let head = Head::of_tombstone(change, &chain);
        let root = &mut self.roots.tombstones;
        tree::insert(&mut self.file, root, key, head.as_bytes(), Body::Bytes(&[]))?;
        let version =
            Version { create_revision: Revision(0), change, version: 0, lease: LeaseId(0) };
        let kind = ChangeKind::Tombstone;
        self.enter(key, &[], &Logged { kind, version, prev, shortcut, value_at: None })?;
        Ok(Ok(()))
    }
}
