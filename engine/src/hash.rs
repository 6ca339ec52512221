//! Hashes over the store's content, resumable.
//!
//! `HashKV` is etcd's to the bit: the Castagnoli checksum of what etcd's key bucket would hold, as
//! bytes. A revision is 17 bytes (18 for a tombstone), a record is its protobuf. Both encodings are
//! here because the hash is defined by them; nothing else in the engine speaks protobuf.
//!
//! Invariants:
//! - The hash depends on the history alone: not on pages, shards or how far a sweep has come.
//! - A scan may go on over later views: it stays at its revision, and begins again if history was
//!   compacted meanwhile.
//! - A step is bounded by what it touches: bytes, look-ups and keys that bring nothing count too.

use crate::answer::{ReadError, Rejection};
use crate::bbolt::protobuf::varint_into;
use crate::ids::{Change, Revision};
use crate::layout::ChangeKind;
use crate::limits;
use crate::page::{PageFault, Pages};
use crate::range::{Progress, Record};
use crate::store::{self, Changes, Front, ShardRoots, Store};
use crate::view::View;
use crate::walk::{Bounds, Direction, Walk};

/// What a look-up costs that a walk in order does not have: its page may have to come from the
/// disk. A guess on the safe side; what matters is that a step of them is not hundreds.
const LOOK_UP_KEYS: usize = 4;

/// The name of etcd's bucket opens its hash.
const BUCKET: &[u8] = b"key";

/// A finished `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueHash {
    /// The hash.
    pub hash: u32,
    /// The revision up to which was hashed.
    pub revision: Revision,
    /// The compacted revision the hash was taken under.
    pub compacted: Revision,
    /// The store's revision, for the header.
    pub current: Revision,
}

/// `HashKV` being computed, with etcd's definition.
#[derive(Debug)]
pub struct KeyValueHashScan {
    /// What was asked for.
    asked: Revision,
    /// Whether a compaction's own hash will do.
    takes_remembered: bool,
    run: Option<HashRun>,
    result: Option<KeyValueHash>,
}

/// A hash over a fixed part of the history.
#[derive(Debug)]
pub(crate) struct HashRun {
    revision: Revision,
    compacted: Revision,
    phase: Phase,
    /// The next change to hash.
    next: Change,
    hash: u32,
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    /// Looking for a key that lives at the revision, from this one on.
    Search { position: Vec<u8> },
    Hash {
        /// Whether no key lives at the revision: then etcd leaves nothing out.
        keeps_all: bool,
    },
}

impl KeyValueHashScan {
    /// Begins a hash up to a revision; zero for the newest.
    #[must_use]
    pub fn new(revision: Revision) -> Self {
        Self { asked: revision, takes_remembered: true, run: None, result: None }
    }

    /// The same, but made by looking at every record. What a compaction left behind is another
    /// number where no key lives at its revision, so that the two must not be compared.
    #[must_use]
    pub fn computed(revision: Revision) -> Self {
        Self { takes_remembered: false, ..Self::new(revision) }
    }

    /// Goes on, touching about `budget` records. The view must not be older than that of the step
    /// before.
    pub fn step(&mut self, view: &View, budget: usize) -> Result<Progress, ReadError> {
        if self.result.is_some() {
            return Ok(Progress::Done);
        }
        // etcd looks for the revision as it was asked for, before any other rule.
        let mut remembered = view.compaction_hashes.iter().filter(|_| self.takes_remembered);
        if let Some(hash) = remembered.find(|hash| hash.revision == self.asked) {
            self.result = Some(KeyValueHash { current: view.revision, ..*hash });
            return Ok(Progress::Done);
        }
        let mut run = match self.run.take() {
            Some(run) if run.compacted == view.compacted => run,
            _ => begin(self.asked, view)?,
        };
        if run.step(view, budget)? == Progress::More {
            self.run = Some(run);
            return Ok(Progress::More);
        }
        self.result = Some(run.result(view.revision));
        Ok(Progress::Done)
    }

    /// The finished hash.
    #[must_use]
    pub fn result(&self) -> Option<KeyValueHash> {
        self.result
    }
}

fn begin(asked: Revision, view: &View) -> Result<HashRun, ReadError> {
    if asked.0 > 0 && asked < view.compacted {
        return Err(Rejection::Compacted.into());
    }
    if asked > view.revision {
        return Err(Rejection::FutureRevision.into());
    }
    let revision = if asked.0 == 0 { view.revision } else { asked };
    Ok(HashRun::new(revision, view.compacted))
}

impl HashRun {
    /// The hash that a compaction leaves behind, taken over what it finds on its way.
    ///
    /// etcd decides here by what the compaction keeps, and that is never nothing: where no key
    /// lives at the revision, the tombstones of the revision itself are kept.
    pub(crate) fn of_compaction(revision: Revision, compacted: Revision) -> Self {
        Self { phase: Phase::Hash { keeps_all: false }, ..Self::new(revision, compacted) }
    }

    pub(crate) fn new(revision: Revision, compacted: Revision) -> Self {
        // Before the first compaction there are no old versions to decide on.
        // And before the first revision there is nothing, and no record there to look for: what a
        // compaction has taken would be missed as if it were damage.
        let phase = if revision.0 <= 0 {
            Phase::Hash { keeps_all: true }
        } else if compacted.0 > 0 {
            Phase::Search { position: Vec::new() }
        } else {
            Phase::Hash { keeps_all: false }
        };
        Self {
            revision,
            compacted,
            phase,
            next: Change::default(),
            hash: crc32c::crc32c(BUCKET),
            scratch: Vec::new(),
        }
    }

    /// Goes on, touching about `budget` records. The store must hold the history of the run's
    /// revision, whatever was written since.
    pub(crate) fn step<S: Store>(
        &mut self,
        store: &S,
        budget: usize,
    ) -> Result<Progress, ReadError> {
        let mut left = budget.max(1);
        match &mut self.phase {
            Phase::Search { position } => {
                let Some(keeps_all) = find_none(store, self.revision, position, &mut left)? else {
                    return Ok(Progress::More);
                };
                self.phase = Phase::Hash { keeps_all };
                self.add_changes(store, keeps_all, left)
            }
            Phase::Hash { keeps_all } => {
                let keeps_all = *keeps_all;
                self.add_changes(store, keeps_all, left)
            }
        }
    }

    fn add_changes<S: Store>(
        &mut self,
        store: &S,
        keeps_all: bool,
        mut left: usize,
    ) -> Result<Progress, ReadError> {
        let mut changes = Changes::new(store, self.next)?;
        while let Some(front) = changes.front() {
            if front.change().main > self.revision {
                break;
            }
            if left == 0 {
                self.next = front.change();
                return Ok(Progress::More);
            }
            let (pages, roots) = store.shard(front.shard);
            left = left.saturating_sub(self.add(pages, roots, &front, keeps_all)?);
            changes.advance(&front)?;
        }
        Ok(Progress::Done)
    }

    pub(crate) fn result(&self, current: Revision) -> KeyValueHash {
        KeyValueHash {
            hash: self.hash,
            revision: self.revision,
            compacted: self.compacted,
            current,
        }
    }

    /// Takes a change into the hash; answers with what that cost, in keys.
    fn add<P: Pages>(
        &mut self,
        pages: &P,
        roots: &ShardRoots,
        front: &Front<'_>,
        keeps_all: bool,
    ) -> Result<usize, ReadError> {
        let (change, key) = (front.change(), front.key);
        let is_old = change.main <= self.compacted;
        if front.logged.kind == ChangeKind::Tombstone {
            if !is_old {
                let record = Record { key, ..Record::default() };
                self.hash_entry(change, true, &record);
            }
            return Ok(1);
        }
        let mut cost = 1;
        // Whether the sweep has come here or not, of the old versions only those still seen count.
        if is_old {
            cost += LOOK_UP_KEYS;
            let revision = if keeps_all { self.compacted } else { self.revision };
            if !is_seen(pages, roots, front, revision)? {
                return Ok(cost);
            }
        }
        if front.logged.value_at.is_none() {
            cost += LOOK_UP_KEYS;
        }
        let found = front.version(pages, roots)?;
        let mut record = found.version.record(key, found.value(pages)?);
        // What no put has written came with a restore that stepped over revisions: it is empty in
        // etcd, its number included.
        if found.version.version == 0 {
            record.mod_revision = Revision(0);
        }
        self.hash_entry(change, false, &record);
        Ok(cost + limits::keys_for_bytes(record.key.len() + record.value.len()))
    }

    fn hash_entry(&mut self, change: Change, is_tombstone: bool, record: &Record<'_>) {
        let mut key = [0; 18];
        let bytes = change.to_bytes();
        key[..8].copy_from_slice(&bytes[..8]);
        key[8] = b'_';
        key[9..17].copy_from_slice(&bytes[8..]);
        key[17] = b't';
        let key_size = if is_tombstone { 18 } else { 17 };
        // Short pieces are dear: one call for both.
        self.scratch.clear();
        self.scratch.extend_from_slice(&key[..key_size]);
        protobuf_into(record, &mut self.scratch);
        self.hash = crc32c::crc32c_append(self.hash, &self.scratch);
    }
}

/// Looks on for a key that lives at the revision; says whether there is none, as soon as that is
/// known.
fn find_none<S: Store>(
    store: &S,
    revision: Revision,
    position: &mut Vec<u8>,
    budget: &mut usize,
) -> Result<Option<bool>, PageFault> {
    let rest = Bounds { start: &position[..], end: None };
    let mut walk = Walk::new(store, rest, revision, Direction::Ascending)?;
    while let Some(key) = walk.key() {
        if walk.is_seen() {
            return Ok(Some(false));
        }
        if *budget == 0 {
            let key = key.to_vec();
            drop(walk);
            *position = key;
            return Ok(None);
        }
        *budget -= 1;
        walk.advance()?;
    }
    Ok(Some(true))
}

/// Whether a read at the revision that decides on old versions sees this one.
fn is_seen<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    front: &Front<'_>,
    revision: Revision,
) -> Result<bool, PageFault> {
    let seen = store::version_at(pages, roots, front.key, revision)?;
    Ok(seen.is_some_and(|found| found.version.change == front.change()))
}

/// Appends a record as `mvccpb.KeyValue`: fields by number, zeros left out, as Go writes it.
fn protobuf_into(record: &Record<'_>, out: &mut Vec<u8>) {
    const VARINT: u8 = 0;
    const BYTES: u8 = 2;
    let bytes = |out: &mut Vec<u8>, field: u8, bytes: &[u8]| {
        if !bytes.is_empty() {
            out.push(field << 3 | BYTES);
            varint_into(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
    };
    let number = |out: &mut Vec<u8>, field: u8, number: i64| {
        if number != 0 {
            out.push(field << 3 | VARINT);
            varint_into(number.cast_unsigned(), out);
        }
    };
    bytes(out, 1, record.key);
    number(out, 2, record.create_revision.0);
    number(out, 3, record.mod_revision.0);
    number(out, 4, record.version);
    bytes(out, 5, record.value);
    number(out, 6, record.lease.0);
}

/// The hash of the whole store, for `Maintenance.Hash`: over the logical content, so that members
/// with the same state answer the same whatever their pages look like. It is the hash of the keys,
/// carried on over who the members are, what they published and the cluster's version; it is not
/// etcd's number, which is one of etcd's buckets.
#[derive(Debug)]
pub struct StoreHashScan {
    keys: KeyValueHashScan,
    result: Option<u32>,
}

impl StoreHashScan {
    /// Begins.
    #[must_use]
    pub fn new() -> Self {
        Self { keys: KeyValueHashScan::new(Revision(0)), result: None }
    }

    /// Goes on, touching about `budget` records. The view must not be older than that of the step
    /// before.
    pub fn step(&mut self, view: &View, budget: usize) -> Result<Progress, ReadError> {
        if self.result.is_some() {
            return Ok(Progress::Done);
        }
        if self.keys.step(view, budget)? == Progress::More {
            return Ok(Progress::More);
        }
        let mut hash = self.keys.result().expect("it is done").hash;
        for member in view.members()? {
            hash = crc32c::crc32c_append(hash, &member.id.0.to_be_bytes());
            for text in [&member.name].into_iter().chain(&member.client_urls) {
                hash = crc32c::crc32c_append(hash, &(text.len() as u64).to_be_bytes());
                hash = crc32c::crc32c_append(hash, text.as_bytes());
            }
        }
        for member in view.cluster_members()? {
            hash = crc32c::crc32c_append(hash, &member.id.0.to_be_bytes());
            hash = crc32c::crc32c_append(hash, &[u8::from(member.is_learner)]);
            for url in &member.peer_urls {
                hash = crc32c::crc32c_append(hash, &(url.len() as u64).to_be_bytes());
                hash = crc32c::crc32c_append(hash, url.as_bytes());
            }
        }
        for id in view.removed_members()? {
            hash = crc32c::crc32c_append(hash, &id.0.to_be_bytes());
        }
        let version = view.cluster_version()?.unwrap_or_default();
        self.result = Some(crc32c::crc32c_append(hash, version.as_bytes()));
        Ok(Progress::Done)
    }

    /// The finished hash.
    #[must_use]
    pub fn result(&self) -> Option<u32> {
        self.result
    }
}

impl Default for StoreHashScan {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaseId;

    #[test]
    fn records_are_encoded_as_go_does() {
        let record = Record {
            key: b"foo",
            value: b"bar",
            create_revision: Revision(2),
            mod_revision: Revision(300),
            version: 5,
            lease: LeaseId(-1),
        };
        let mut out = Vec::new();
        protobuf_into(&record, &mut out);
        let lease = [0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let rest = b"\x0a\x03foo\x10\x02\x18\xac\x02\x20\x05\x2a\x03bar";
        assert_eq!(out, [&rest[..], &lease].concat());
        out.clear();
        protobuf_into(&Record { key: b"k", ..Record::default() }, &mut out);
        assert_eq!(out, b"\x0a\x01k");
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
