//! A whole store as a stream of records, for a member that is too far behind for the log.
//!
//! A pinned view is walked: first the store's own facts, then every change with the numbers it has.
//! Whoever installs the stream answers as the view does at every revision, whatever the number of
//! its shards ([`crate::Engine::begin_install`]). All steps must be given the same view.
//!
//! A compaction that is being swept is finished on the way: what the sweep has still to remove is
//! left out. How far a sweep has come is told in shards and changes, which mean nothing elsewhere.
//!
//! Invariants:
//! - A stream is the beginning, facts in the order of their keys, changes in their order, the end.
//! - Every fact of the store is either told or known to be this member's own; one that is neither
//!   is damage, so that nothing can be forgotten in silence.
//! - A step is bounded by what it touches: bytes, look-ups and changes that bring nothing count,
//!   too. One record is never cut, so a step may be longer by the largest of them.

mod fact;
mod record;

use std::fmt;

pub use record::{RECORD_LENGTH_SIZE_BYTES, RECORD_SIZE_BYTES_MAX, record_size_bytes};

pub(crate) use fact::{fact_key, put_fact};
pub(crate) use record::{PutRecord, TransferRecord};

use crate::answer::ReadError;
use crate::compaction;
use crate::engine::ImportRule;
use crate::ids::{Change, LeaseId, LogIndex, Revision, Term};
use crate::layout::{self, ChangeKind};
use crate::limits::keys_for_bytes;
use crate::page::{PageFault, Pages, ReadAhead};
use crate::range::Progress;
use crate::store::{self, Changes, Front, ShardRoots, Store};
use crate::system;
use crate::tree::{self, Cursor};
use crate::view::View;

/// The version of the stream.
pub const TRANSFER_VERSION: u16 = 1;

/// A step ends when it has appended so much: large enough to keep a link busy, small enough that a
/// few of them are little memory.
pub const CHUNK_SIZE_BYTES: usize = 256 << 10;

/// What a look-up costs that a walk in order does not have; see [`crate::hash`].
const LOOK_UP_KEYS: usize = 4;

/// Why a stream is not, or cannot be, installed. The store is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallRule {
    /// The store has come as far as the stream, or its terms are later.
    Position,
    /// Raft's own state is longer than any cluster makes it.
    ConfState,
    /// A record is longer than any can be.
    RecordSize,
    /// A record of a kind that is not known here.
    RecordKind(u8),
    /// A record whose content does not hold together.
    RecordBody,
    /// A stream of a version that is not known here.
    Version(u16),
    /// A record where it cannot stand.
    Order,
    /// The stream is not that of the entry it was announced for.
    Entry,
    /// The revisions of the beginning do not fit each other, or a change lies behind them.
    Revision,
    /// A key is attached to a lease that does not exist.
    Lease,
    /// A fact that cannot be.
    Fact,
    /// A change that no history has.
    Change(ImportRule),
    /// Records are missing, or are not those that were sent.
    Checksum,
    /// The end has not come yet.
    Unfinished,
    /// The disk, or the file's bound, has no room for it.
    NoSpace,
}

impl fmt::Display for InstallRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::RecordKind(kind) => return write!(formatter, "record kind {kind} is unknown"),
            Self::Version(version) => {
                return write!(formatter, "version {version} of the stream is unknown");
            }
            Self::Change(rule) => return rule.fmt(formatter),
            Self::Position => "the store has come as far itself",
            Self::ConfState => "raft's state is too long",
            Self::RecordSize => "a record is too long",
            Self::RecordBody => "a record does not hold together",
            Self::Order => "a record stands where it cannot",
            Self::Entry => "the stream is not that of the entry it was announced for",
            Self::Revision => "the stream's revisions do not fit each other",
            Self::Lease => "a key is attached to a lease that does not exist",
            Self::Fact => "a fact cannot be",
            Self::Checksum => "the records are not those that were sent",
            Self::Unfinished => "the stream has not come to its end",
            Self::NoSpace => "there is no room for the store",
        };
        formatter.write_str(text)
    }
}

/// A view on its way to another member.
#[derive(Debug)]
pub struct TransferScan {
    stage: Stage,
    /// Whether history below the compacted revision is as a finished sweep leaves it.
    is_swept: bool,
    changes: u64,
    crc: u32,
}

#[derive(Debug)]
enum Stage {
    Begin,
    /// Facts from this key on.
    Facts(Vec<u8>),
    Changes(Change),
    Done,
    /// The view is damaged.
    Failed,
}

impl Default for TransferScan {
    fn default() -> Self {
        Self::new()
    }
}

impl TransferScan {
    /// Begins.
    #[must_use]
    pub fn new() -> Self {
        Self { stage: Stage::Begin, is_swept: true, changes: 0, crc: 0 }
    }

    /// Goes on, touching about `budget` records, and appends whole records to `out` until it holds
    /// [`CHUNK_SIZE_BYTES`] or more. Done with the last record. The view is the same in every step.
    pub fn step(
        &mut self,
        view: &View,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<Progress, ReadError> {
        *budget = (*budget).max(1);
        let start = out.len();
        while *budget > 0 && out.len() < CHUNK_SIZE_BYTES {
            match std::mem::replace(&mut self.stage, Stage::Failed) {
                Stage::Begin => {
                    self.is_swept = is_swept(view)?;
                    begin_into(view, out);
                    *budget -= 1;
                    self.stage = Stage::Facts(Vec::new());
                }
                Stage::Facts(from) => {
                    self.stage = match add_facts(view, &from, budget, out)? {
                        Some(next) => Stage::Facts(next),
                        None => Stage::Changes(Change::default()),
                    };
                }
                Stage::Changes(from) => match self.add_changes(view, from, budget, out)? {
                    Some(next) => self.stage = Stage::Changes(next),
                    None => {
                        let crc = self.crc_with(&out[start..]);
                        TransferRecord::End { changes: self.changes, crc }.encode_into(out);
                        self.stage = Stage::Done;
                        return Ok(Progress::Done);
                    }
                },
                Stage::Done => {
                    self.stage = Stage::Done;
                    return Ok(Progress::Done);
                }
                Stage::Failed => unreachable!("a scan that met damage is given up"),
            }
        }
        self.crc = self.crc_with(&out[start..]);
        Ok(Progress::More)
    }

    fn crc_with(&self, bytes: &[u8]) -> u32 {
        crc_with(self.crc, bytes)
    }

    /// Answers with the change to go on from, if there are more.
    fn add_changes(
        &mut self,
        view: &View,
        from: Change,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Change>, ReadError> {
        let store = Ahead::new(view);
        let mut changes = Changes::new(&store, from)?;
        while let Some(front) = changes.front() {
            if *budget == 0 || out.len() >= CHUNK_SIZE_BYTES {
                return Ok(Some(front.change()));
            }
            let (pages, roots) = store.shard(front.shard);
            let cost = self.add_change(view, pages, roots, &front, out)?;
            *budget = budget.saturating_sub(cost);
            changes.advance(&front)?;
        }
        Ok(None)
    }

    /// Adds a change, if it stays; answers with what that cost, in keys.
    fn add_change<P: Pages>(
        &mut self,
        view: &View,
        pages: &P,
        roots: &ShardRoots,
        front: &Front<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, ReadError> {
        let change = front.change();
        let mut cost = 1;
        if change.main <= view.compacted && !self.is_swept {
            cost += LOOK_UP_KEYS;
            if !compaction::outlives_sweep(pages, roots, front, view.compacted)? {
                return Ok(cost);
            }
        }
        self.changes += 1;
        if front.logged.kind == ChangeKind::Tombstone {
            TransferRecord::Delete { change, key: front.key }.encode_into(out);
            return Ok(cost + keys_for_bytes(front.key.len()));
        }
        if front.logged.value_at.is_none() {
            cost += LOOK_UP_KEYS;
        }
        let found = front.version(pages, roots)?;
        let value = found.value(pages)?;
        let version = found.version;
        let is_attached = version.lease != LeaseId(0)
            && is_attached(pages, roots, front.key, version.lease, change)?;
        let put = PutRecord {
            change,
            create_revision: version.create_revision,
            version: version.version,
            lease: version.lease,
            is_attached,
            key: front.key,
            value,
        };
        TransferRecord::Put(put).encode_into(out);
        Ok(cost + keys_for_bytes(front.key.len() + value.len()))
    }
}

/// A view for whoever reads all of it.
struct Ahead<'v> {
    view: &'v View,
    pages: Vec<ReadAhead<'v>>,
}

impl<'v> Ahead<'v> {
    fn new(view: &'v View) -> Self {
        let reader = |shard| ReadAhead::new(view.shard(shard).0);
        Self { view, pages: (0..view.shard_count()).map(reader).collect() }
    }
}

impl<'v> Store for Ahead<'v> {
    type Pages = ReadAhead<'v>;

    fn shard_count(&self) -> usize {
        self.pages.len()
    }

    fn shard(&self, shard: usize) -> (&ReadAhead<'v>, &ShardRoots) {
        (&self.pages[shard], self.view.shard(shard).1)
    }

    fn revision(&self) -> Revision {
        self.view.revision
    }

    fn compacted(&self) -> Revision {
        self.view.compacted
    }
}

/// Whether the version that a change wrote is its key's newest, and attached to its lease. A key of
/// an imported history may name a lease that did not exist, and is attached to none.
fn is_attached<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    key: &[u8],
    lease: LeaseId,
    change: Change,
) -> Result<bool, PageFault> {
    let newest = store::newest_version(pages, roots, key)?;
    if newest.is_none_or(|newest| newest.version.change != change) {
        return Ok(false);
    }
    let mut attachment = Vec::new();
    layout::attachment_key(lease, key, &mut attachment);
    Ok(tree::get(pages, roots.attachments, &attachment)?.is_some())
}

/// Whether history below the compacted revision is as a finished sweep leaves it.
fn is_swept(view: &View) -> Result<bool, PageFault> {
    let (pages, roots) = view.shard(0);
    Ok(system::sweep(pages, roots)?.is_finished())
}

fn begin_into(view: &View, out: &mut Vec<u8>) {
    let begin = TransferRecord::Begin {
        version: TRANSFER_VERSION,
        applied: view.applied,
        term: view.term,
        revision: view.revision,
        compacted: view.compacted,
    };
    begin.encode_into(out);
    for hash in view.compaction_hashes.iter() {
        TransferRecord::CompactionHash(*hash).encode_into(out);
    }
}

/// Answers with the key to go on from, if there are more.
fn add_facts(
    view: &View,
    from: &[u8],
    budget: &mut usize,
    out: &mut Vec<u8>,
) -> Result<Option<Vec<u8>>, ReadError> {
    let (pages, roots) = view.shard(0);
    let mut cursor = Cursor::new(pages, roots.system);
    cursor.seek(from)?;
    while let Some((key, entry)) = cursor.next()? {
        if *budget == 0 || out.len() >= CHUNK_SIZE_BYTES {
            return Ok(Some(key.to_vec()));
        }
        let body = entry.body(pages)?;
        *budget = budget.saturating_sub(1 + keys_for_bytes(body.len()));
        match fact::fact_of(key, body) {
            Some(Some(fact)) => fact.encode_into(out),
            // This member's own.
            Some(None) => {}
            None => return Err(store::damaged(pages, roots.system, "a fact of the store").into()),
        }
    }
    Ok(None)
}

/// Carries a checksum on.
pub(crate) fn crc_with(crc: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}

/// What a stream says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
}

impl Beginning {
    /// Checks what a stream says first against the entry it was announced for.
    pub(crate) fn check(
        record: &TransferRecord<'_>,
        announced: (LogIndex, Term),
    ) -> Result<Self, InstallRule> {
        let TransferRecord::Begin { version, applied, term, revision, compacted } = *record else {
            return Err(InstallRule::Order);
        };
        if version != TRANSFER_VERSION {
            return Err(InstallRule::Version(version));
        }
        if (applied, term) != announced {
            return Err(InstallRule::Entry);
        }
        let is_sound = revision >= Revision::EMPTY_STORE
            && compacted >= Revision::NEVER_COMPACTED
            && compacted <= revision
            // The next one has to be possible for ever.
            && revision.0 < i64::MAX / 2;
        is_sound.then_some(Self { revision, compacted }).ok_or(InstallRule::Revision)
    }
}
