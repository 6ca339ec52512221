//! Commands: what a batch, and so a raft entry, carries. Encoding, validation, access.
//!
//! A batch is a 32 byte header and frames. A frame is its length, a kind, the version of that
//! kind's body, and the body in an alignment-free little-endian archive. All offsets inside a body
//! are relative, so frames written on different cores are concatenated without being touched.
//! [`FrameWriter`] writes frames from borrowed slices, [`Batch::validate`] checks a received batch
//! once; after that access is free.
//!
//! Invariants:
//! - A [`Batch`] exists only if every frame in it was checked: known kind and version, archive in
//!   bounds, transaction tables consistent. `apply` relies on it and checks nothing again.
//! - A transaction's nodes form a tree in which children come behind their parents: no recursion
//!   is needed to walk it and no input can make the walk longer than the frame.
//! - What is written here stays readable for ever: the golden bytes in the tests may gain cases,
//!   never change.
//! - An unknown kind or version is an error of the whole batch. Skipping it would make this
//!   member's state differ from its peers'.

mod body;
mod membership;
mod txn;

use std::fmt;
use std::sync::Arc;

use rkyv::rancor;
use rkyv::ser::Serializer;
use rkyv::ser::allocator::Arena;

use crate::alarm::Alarm;
use crate::ids::{LeaseId, MemberId, Revision, Term};
use crate::limits::FRAME_SIZE_BYTES_MAX;
use crate::quota::{LEASE_COST_BYTES, cost_of_put};
use body::{
    AlarmBody, ClusterVersionBody, CompactBody, DeleteRangeBody, DowngradeBody,
    LeaseCheckpointBody, LeaseGrantBody, LeaseRevokeBody, MemberPublishBody, PutBody,
};

pub(crate) use body::{
    ArchivedClusterVersionBody, ArchivedCompactBody, ArchivedDeleteRangeBody,
    ArchivedDowngradeBody, ArchivedLeaseCheckpointBody, ArchivedMemberPublishBody, ArchivedPutBody,
};
pub(crate) use membership::{
    ArchivedMemberAddBody, ArchivedMemberIdBody, ArchivedMemberUpdateBody, member_from_bytes,
    member_to_bytes, peer_from_bytes, peer_to_bytes,
};
use membership::{MemberAddBody, MemberIdBody, MemberUpdateBody};
pub use membership::{MemberAddRef, MemberUpdateRef, MembershipChange};
pub use txn::{CompareRef, OperationRef, TxnRef};
pub(crate) use txn::{Operation, TxnTable};

/// The version of the batch header and of the frame header.
pub const FORMAT_VERSION: u16 = 1;

/// The size of [`BatchHeader::to_bytes`].
pub const BATCH_HEADER_SIZE_BYTES: usize = 32;

/// Length (4), kind (1), version of the body (1).
const FRAME_HEADER_SIZE_BYTES: usize = 6;

/// The version of every kind's body so far.
const BODY_VERSION: u8 = 1;

/// Where a batch comes from: together with a frame's place in it this names a command for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The member that admitted the commands.
    pub member: MemberId,
    /// Drawn at that member's start, so that sequences never repeat.
    pub boot_nonce: u64,
    /// The sequence of the first frame; the others follow.
    pub sequence_first: u64,
    /// How many frames follow.
    pub frame_count: u32,
}

impl BatchHeader {
    /// The header's bytes, which open a batch.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BATCH_HEADER_SIZE_BYTES] {
        let mut bytes = [0; BATCH_HEADER_SIZE_BYTES];
        bytes[0..2].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.frame_count.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.member.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.boot_nonce.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence_first.to_le_bytes());
        bytes
    }

    /// Reads a header; the error says what is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CommandError> {
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER_SIZE_BYTES>() else {
            return Err(CommandError::BatchTooShort { size_bytes: bytes.len() });
        };
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let version = u16::from_le_bytes([bytes[0], bytes[1]]);
        if version != FORMAT_VERSION {
            return Err(CommandError::UnknownFormat { version });
        }
        if bytes[2..4] != [0, 0] {
            return Err(CommandError::HeaderReserved);
        }
        Ok(Self {
            frame_count: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            member: MemberId(word(8)),
            boot_nonce: word(16),
            sequence_first: word(24),
        })
    }
}

/// The kinds of commands; the number is what the disk knows them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CommandKind {
    /// Store a value under a key.
    Put = 1,
    /// Delete a key or a range of keys.
    DeleteRange = 2,
    /// Compare, then do one of two lists of operations as one change.
    Txn = 3,
    /// Forget the history before a revision.
    Compact = 4,
    /// A member tells its name and its clients' URLs.
    MemberPublish = 5,
    /// The cluster's version changes.
    ClusterVersionSet = 6,
    /// A lease begins.
    LeaseGrant = 7,
    /// A lease ends, and the keys attached to it with it.
    LeaseRevoke = 8,
    /// How long leases have left is noted, for the next leader.
    LeaseCheckpoint = 9,
    /// An alarm is raised or lowered.
    Alarm = 10,
    /// The cluster is to go back to an earlier version, or is not to any more.
    Downgrade = 11,
    /// A member joins the cluster.
    MemberAdd = 12,
    /// A member leaves it for ever.
    MemberRemove = 13,
    /// A learner votes from now on.
    MemberPromote = 14,
    /// A member is reached elsewhere.
    MemberUpdate = 15,
}

impl CommandKind {
    /// All of them, by their number.
    pub const ALL: [Self; 15] = [
        Self::Put,
        Self::DeleteRange,
        Self::Txn,
        Self::Compact,
        Self::MemberPublish,
        Self::ClusterVersionSet,
        Self::LeaseGrant,
        Self::LeaseRevoke,
        Self::LeaseCheckpoint,
        Self::Alarm,
        Self::Downgrade,
        Self::MemberAdd,
        Self::MemberRemove,
        Self::MemberPromote,
        Self::MemberUpdate,
    ];

    fn frees_space(self) -> bool {
        [Self::DeleteRange, Self::LeaseRevoke, Self::Compact, Self::Alarm].contains(&self)
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::DeleteRange,
            3 => Self::Txn,
            4 => Self::Compact,
            5 => Self::MemberPublish,
            6 => Self::ClusterVersionSet,
            7 => Self::LeaseGrant,
            8 => Self::LeaseRevoke,
            9 => Self::LeaseCheckpoint,
            10 => Self::Alarm,
            11 => Self::Downgrade,
            12 => Self::MemberAdd,
            13 => Self::MemberRemove,
            14 => Self::MemberPromote,
            15 => Self::MemberUpdate,
            _ => return None,
        })
    }
}

/// Whether a frame's command makes a full store smaller: a delete, the end of a lease or a
/// compaction. A transaction may store as well, so it does not count. An alarm does: without being
/// told and lowered no full store is put right.
#[must_use]
pub fn frees_space(frame: &[u8]) -> bool {
    let kind = frame.get(4).copied().and_then(CommandKind::from_byte);
    kind.is_some_and(CommandKind::frees_space)
}

/// A put to be written into a frame; the fields mean what they mean in etcd's `PutRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value; ignored with `ignore_value`.
    pub value: &'a [u8],
    /// The lease to attach, zero for none; ignored with `ignore_lease`.
    pub lease: LeaseId,
    /// Answer with the record that was replaced.
    pub prev_kv: bool,
    /// Keep the value the key has.
    pub ignore_value: bool,
    /// Keep the lease the key has.
    pub ignore_lease: bool,
}

/// A delete to be written into a frame; the fields mean what they mean in etcd's
/// `DeleteRangeRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeRef<'a> {
    /// The key, or the first key of the range.
    pub key: &'a [u8],
    /// Empty for one key, a single zero byte for no end, else the first key behind the range.
    pub range_end: &'a [u8],
    /// Answer with the records that were deleted.
    pub prev_kv: bool,
}

/// A compaction to be written into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactRef {
    /// History before this revision is forgotten.
    pub revision: Revision,
    /// The answer waits until the sweep is finished; apply only passes it on to who answers.
    pub physical: bool,
}

/// A lease to be written into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrantRef {
    /// Its id, never zero.
    pub id: LeaseId,
    /// How long it lives without a keep-alive.
    pub ttl_seconds: i64,
}

/// The end of a lease to be written into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRevokeRef {
    /// The lease.
    pub id: LeaseId,
    /// Set when it has expired: the term whose leader found it so. In another term the command
    /// does nothing, for there may have been a keep-alive since.
    pub expired_in: Option<Term>,
}

/// How long a lease has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRemaining {
    /// The lease.
    pub id: LeaseId,
    /// Zero when it has its whole time.
    pub remaining_seconds: i64,
}

/// What is to be done about an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AlarmAction {
    /// Raise it.
    Raise = 1,
    /// Lower it.
    Lower = 2,
    /// Raise it in place of a command that the quota has no room for: the answer refuses that one.
    RaiseForQuota = 3,
}

impl AlarmAction {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Raise,
            2 => Self::Lower,
            3 => Self::RaiseForQuota,
            _ => return None,
        })
    }
}

/// A change of the alarms to be written into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmRef {
    /// What is done.
    pub action: AlarmAction,
    /// To which alarm.
    pub alarm: Alarm,
}

/// A member's attributes to be written into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberPublishRef<'a> {
    /// The member that publishes.
    pub id: MemberId,
    /// Its name.
    pub name: &'a str,
    /// Where its clients find it.
    pub client_urls: &'a [String],
}

/// Writes frames; keeps the scratch memory of the encoder from one to the next.
#[derive(Default)]
pub struct FrameWriter {
    arena: Arena,
}

impl FrameWriter {
    /// A writer with empty scratch memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a put; allocates nothing but what `frames` needs to grow.
    pub fn push_put(&mut self, frames: &mut Vec<u8>, put: &PutRef<'_>) {
        self.push(frames, CommandKind::Put, &PutBody::from_ref(put));
    }

    /// Appends a delete.
    pub fn push_delete_range(&mut self, frames: &mut Vec<u8>, delete: &DeleteRangeRef<'_>) {
        self.push(frames, CommandKind::DeleteRange, &DeleteRangeBody::from_ref(delete));
    }

    /// Appends a transaction.
    pub fn push_txn(&mut self, frames: &mut Vec<u8>, txn: &TxnRef<'_>) {
        self.push(frames, CommandKind::Txn, &txn::flatten(txn));
    }

    /// Appends a compaction.
    pub fn push_compact(&mut self, frames: &mut Vec<u8>, compact: CompactRef) {
        let body = CompactBody { revision: compact.revision.0, physical: compact.physical };
        self.push(frames, CommandKind::Compact, &body);
    }

    /// Appends a member's attributes.
    pub fn push_member_publish(&mut self, frames: &mut Vec<u8>, member: &MemberPublishRef<'_>) {
        let body = MemberPublishBody {
            id: member.id.0,
            name: member.name,
            client_urls: member.client_urls,
        };
        self.push(frames, CommandKind::MemberPublish, &body);
    }

    /// Appends a change of the cluster's version.
    pub fn push_cluster_version_set(&mut self, frames: &mut Vec<u8>, version: &str) {
        self.push(frames, CommandKind::ClusterVersionSet, &ClusterVersionBody { version });
    }

    /// Appends a change of the alarms.
    pub fn push_alarm(&mut self, frames: &mut Vec<u8>, change: AlarmRef) {
        let AlarmRef { action, alarm } = change;
        let body = AlarmBody { action: action as u8, member: alarm.member.0, kind: alarm.kind.0 };
        self.push(frames, CommandKind::Alarm, &body);
    }

    /// Appends the beginning of a downgrade to a version, or with `None` the end of one.
    pub fn push_downgrade(&mut self, frames: &mut Vec<u8>, target: Option<&str>) {
        let body = DowngradeBody { enabled: target.is_some(), target: target.unwrap_or_default() };
        self.push(frames, CommandKind::Downgrade, &body);
    }

    /// Appends the grant of a lease.
    pub fn push_lease_grant(&mut self, frames: &mut Vec<u8>, grant: LeaseGrantRef) {
        let body = LeaseGrantBody { id: grant.id.0, ttl_seconds: grant.ttl_seconds };
        self.push(frames, CommandKind::LeaseGrant, &body);
    }

    /// Appends the end of a lease.
    pub fn push_lease_revoke(&mut self, frames: &mut Vec<u8>, revoke: LeaseRevokeRef) {
        let term = revoke.expired_in.map_or(0, |term| term.0);
        self.push(frames, CommandKind::LeaseRevoke, &LeaseRevokeBody { id: revoke.id.0, term });
    }

    /// Appends what leases have left.
    pub fn push_lease_checkpoint(&mut self, frames: &mut Vec<u8>, leases: &[LeaseRemaining]) {
        let ids: Vec<i64> = leases.iter().map(|lease| lease.id.0).collect();
        let remaining_seconds: Vec<i64> =
            leases.iter().map(|lease| lease.remaining_seconds).collect();
        let body = LeaseCheckpointBody { ids: &ids, remaining_seconds: &remaining_seconds };
        self.push(frames, CommandKind::LeaseCheckpoint, &body);
    }

    fn push<B: body::Body>(&mut self, frames: &mut Vec<u8>, kind: CommandKind, body: &B) {
        let start = frames.len();
        frames.extend_from_slice(&[0; 4]);
        frames.push(kind as u8);
        frames.push(BODY_VERSION);
        self.write(frames, body);
        let size_bytes = frames.len() - start - 4;
        assert!(size_bytes <= FRAME_SIZE_BYTES_MAX, "a frame of {size_bytes} bytes");
        let length = u32::try_from(size_bytes).expect("the bound on frames fits 32 bits");
        frames[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn write<B: body::Body>(&mut self, out: &mut Vec<u8>, body: &B) {
        let mut serializer = Serializer::new(out, self.arena.acquire(), ());
        body.write(&mut serializer);
    }
}

/// A command of a validated batch.
#[derive(Clone, Copy)]
pub(crate) enum Command<'a> {
    Put(&'a ArchivedPutBody<'static>),
    DeleteRange(&'a ArchivedDeleteRangeBody<'static>),
    Txn(TxnTable<'a>),
    Compact(&'a ArchivedCompactBody),
    MemberPublish(&'a ArchivedMemberPublishBody<'static>),
    ClusterVersionSet(&'a ArchivedClusterVersionBody<'static>),
    LeaseGrant(LeaseGrantRef),
    LeaseRevoke(LeaseRevokeRef),
    LeaseCheckpoint(&'a ArchivedLeaseCheckpointBody<'static>),
    Alarm(AlarmRef),
    Downgrade(&'a ArchivedDowngradeBody<'static>),
    MemberAdd(&'a ArchivedMemberAddBody<'static>),
    MemberRemove(&'a ArchivedMemberIdBody),
    MemberPromote(&'a ArchivedMemberIdBody),
    MemberUpdate(&'a ArchivedMemberUpdateBody<'static>),
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: CommandKind,
    /// Where the body lies in the batch.
    start: u32,
    end: u32,
}

#[derive(Debug)]
struct BatchInner {
    header: BatchHeader,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
}

/// A batch whose every frame was checked. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug)]
pub struct Batch {
    inner: Arc<BatchInner>,
}

impl Batch {
    /// Checks a whole batch once. The bytes are kept, not copied, if they come as a `Vec`.
    pub fn validate(bytes: impl Into<Vec<u8>>) -> Result<Self, CommandError> {
        let bytes = bytes.into();
        let header = BatchHeader::from_bytes(&bytes)?;
        if u32::try_from(bytes.len()).is_err() {
            return Err(CommandError::BatchTooLong { size_bytes: bytes.len() });
        }
        let mut frames = Vec::new();
        let mut at = BATCH_HEADER_SIZE_BYTES;
        while at < bytes.len() {
            let frame = check_frame(&bytes, at, frames.len())?;
            at = frame.end as usize;
            frames.push(frame);
        }
        if frames.len() != header.frame_count as usize {
            return Err(CommandError::FrameCount {
                expected: header.frame_count,
                found: frames.len(),
            });
        }
        Ok(Self { inner: Arc::new(BatchInner { header, bytes, frames }) })
    }

    /// Where the batch comes from.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.inner.header
    }

    /// The number of commands.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.frames.len()
    }

    /// Whether there is no command in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.frames.is_empty()
    }

    /// The whole batch as it was received.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.inner.bytes
    }

    /// Whether all its commands make a full store smaller, see [`frees_space`].
    #[must_use]
    pub fn frees_space(&self) -> bool {
        self.inner.frames.iter().all(|frame| frame.kind.frees_space())
    }

    /// What kind of command stands at a place.
    ///
    /// # Panics
    /// If `index` is not below [`Batch::len`].
    #[must_use]
    pub fn kind(&self, index: usize) -> CommandKind {
        self.inner.frames[index].kind
    }

    /// The put at a place; `None` for a command of another kind.
    ///
    /// # Panics
    /// If `index` is not below [`Batch::len`].
    #[must_use]
    pub fn put(&self, index: usize) -> Option<PutRef<'_>> {
        match self.command(index) {
            Command::Put(put) => Some(put.as_ref()),
            _ => None,
        }
    }

    /// What the quota counts for a command: what it may store, and nothing for others.
    ///
    /// # Panics
    /// If `index` is not below [`Batch::len`].
    #[must_use]
    pub fn cost(&self, index: usize) -> u64 {
        match self.command(index) {
            Command::Put(put) => cost_of_put(&put.as_ref()),
            Command::Txn(table) => table.cost(),
            Command::LeaseGrant(_) => LEASE_COST_BYTES,
            _ => 0,
        }
    }

    /// The bytes of some commands.
    pub(crate) fn size_bytes(&self, commands: std::ops::Range<usize>) -> usize {
        let frames = &self.inner.frames[commands];
        frames.iter().map(|frame| (frame.end - frame.start) as usize).sum()
    }

    pub(crate) fn command(&self, index: usize) -> Command<'_> {
        let frame = self.inner.frames[index];
        let body = &self.inner.bytes[frame.start as usize..frame.end as usize];
        match frame.kind {
            CommandKind::Put => Command::Put(body::access::<PutBody<'static>>(body)),
            CommandKind::DeleteRange => {
                Command::DeleteRange(body::access::<DeleteRangeBody<'static>>(body))
            }
            CommandKind::Txn => Command::Txn(TxnTable::access(body)),
            CommandKind::Compact => Command::Compact(body::access::<CompactBody>(body)),
            CommandKind::MemberPublish => {
                Command::MemberPublish(body::access::<MemberPublishBody<'static>>(body))
            }
            CommandKind::ClusterVersionSet => {
                Command::ClusterVersionSet(body::access::<ClusterVersionBody<'static>>(body))
            }
            CommandKind::LeaseGrant => {
                Command::LeaseGrant(body::access::<LeaseGrantBody>(body).to_ref())
            }
            CommandKind::LeaseRevoke => {
                Command::LeaseRevoke(body::access::<LeaseRevokeBody>(body).to_ref())
            }
            CommandKind::LeaseCheckpoint => {
                Command::LeaseCheckpoint(body::access::<LeaseCheckpointBody<'static>>(body))
            }
            CommandKind::Alarm => {
                let alarm = body::access::<AlarmBody>(body).to_ref();
                Command::Alarm(alarm.expect("a frame whose action is unknown is refused"))
            }
            CommandKind::Downgrade => {
                Command::Downgrade(body::access::<DowngradeBody<'static>>(body))
            }
            CommandKind::MemberAdd => {
                Command::MemberAdd(body::access::<MemberAddBody<'static>>(body))
            }
            CommandKind::MemberRemove => Command::MemberRemove(body::access::<MemberIdBody>(body)),
            CommandKind::MemberPromote => {
                Command::MemberPromote(body::access::<MemberIdBody>(body))
            }
            CommandKind::MemberUpdate => {
                Command::MemberUpdate(body::access::<MemberUpdateBody<'static>>(body))
            }
        }
    }
}

/// Checks frames alone, as they are handed to the sequencer by a core that built them, and counts
/// them: the sequencer's own guard before it proposes.
pub fn frame_count(frames: &[u8]) -> Result<u32, CommandError> {
    let mut at = 0;
    let mut count = 0;
    while at < frames.len() {
        let (_, _, end) = frame_bounds(frames, at, count as usize)?;
        at = end;
        count += 1;
    }
    Ok(count)
}

fn frame_bounds(
    bytes: &[u8],
    at: usize,
    index: usize,
) -> Result<(usize, usize, usize), CommandError> {
    let torn = CommandError::FrameTorn { index };
    let length = bytes.get(at..at + 4).ok_or(torn)?.try_into().map_err(|_| torn)?;
    let length = u32::from_le_bytes(length) as usize;
    let end = at + 4 + length;
    let start = at + FRAME_HEADER_SIZE_BYTES;
    if length > FRAME_SIZE_BYTES_MAX || end < start || end > bytes.len() {
        return Err(torn);
    }
    Ok((at + 4, start, end))
}

fn check_frame(bytes: &[u8], at: usize, index: usize) -> Result<Frame, CommandError> {
    let (head, start, end) = frame_bounds(bytes, at, index)?;
    let (kind, version) = (bytes[head], bytes[head + 1]);
    let Some(kind) = CommandKind::from_byte(kind) else {
        return Err(CommandError::UnknownKind { index, kind });
    };
    if version != BODY_VERSION {
        return Err(CommandError::UnknownVersion { index, kind, version });
    }
    let body = &bytes[start..end];
    let sound = match kind {
        CommandKind::Put => body::is_sound::<PutBody<'static>>(body),
        CommandKind::DeleteRange => body::is_sound::<DeleteRangeBody<'static>>(body),
        CommandKind::Txn => TxnTable::is_sound(body),
        CommandKind::Compact => body::is_sound::<CompactBody>(body),
        CommandKind::MemberPublish => body::is_sound::<MemberPublishBody<'static>>(body),
        CommandKind::ClusterVersionSet => body::is_sound::<ClusterVersionBody<'static>>(body),
        CommandKind::LeaseGrant => body::is_sound::<LeaseGrantBody>(body),
        CommandKind::LeaseRevoke => body::is_sound::<LeaseRevokeBody>(body),
        CommandKind::LeaseCheckpoint => body::is_sound::<LeaseCheckpointBody<'static>>(body),
        CommandKind::Alarm => {
            body::is_sound::<AlarmBody>(body) && body::access::<AlarmBody>(body).to_ref().is_some()
        }
        CommandKind::Downgrade => body::is_sound::<DowngradeBody<'static>>(body),
        CommandKind::MemberAdd => body::is_sound::<MemberAddBody<'static>>(body),
        CommandKind::MemberRemove | CommandKind::MemberPromote => {
            body::is_sound::<MemberIdBody>(body)
        }
        CommandKind::MemberUpdate => body::is_sound::<MemberUpdateBody<'static>>(body),
    };
    if !sound {
        return Err(CommandError::Malformed { index, kind });
    }
    let narrow = |offset: usize| u32::try_from(offset).expect("the batch's size was checked");
    Ok(Frame { kind, start: narrow(start), end: narrow(end) })
}

/// Why a batch was refused. The member that reads such a batch from its log has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Shorter than a header.
    BatchTooShort {
        /// Its size.
        size_bytes: usize,
    },
    /// Longer than offsets can say.
    BatchTooLong {
        /// Its size.
        size_bytes: usize,
    },
    /// Written by a version of the format that this program does not know.
    UnknownFormat {
        /// The version it claims.
        version: u16,
    },
    /// Reserved bytes of the header are in use.
    HeaderReserved,
    /// A frame reaches past the end, or is impossibly long.
    FrameTorn {
        /// Its place in the batch.
        index: usize,
    },
    /// The header promised another number of frames.
    FrameCount {
        /// What the header says.
        expected: u32,
        /// What is there.
        found: usize,
    },
    /// A kind this program does not know.
    UnknownKind {
        /// Its place in the batch.
        index: usize,
        /// The kind's number.
        kind: u8,
    },
    /// A version of a kind that this program does not know.
    UnknownVersion {
        /// Its place in the batch.
        index: usize,
        /// The kind.
        kind: CommandKind,
        /// The version it claims.
        version: u8,
    },
    /// The body does not hold together.
    Malformed {
        /// Its place in the batch.
        index: usize,
        /// The kind.
        kind: CommandKind,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BatchTooShort { size_bytes } => {
                write!(formatter, "a batch of {size_bytes} bytes has no header")
            }
            Self::BatchTooLong { size_bytes } => {
                write!(formatter, "a batch of {size_bytes} bytes is too long")
            }
            Self::UnknownFormat { version } => {
                write!(formatter, "batch format {version} is unknown to this version")
            }
            Self::HeaderReserved => write!(formatter, "reserved header bytes are in use"),
            Self::FrameTorn { index } => write!(formatter, "frame {index} is torn"),
            Self::FrameCount { expected, found } => {
                write!(formatter, "{expected} frames announced, {found} found")
            }
            Self::UnknownKind { index, kind } => {
                write!(formatter, "frame {index}: kind {kind} is unknown to this version")
            }
            Self::UnknownVersion { index, kind, version } => {
                write!(formatter, "frame {index}: version {version} of {kind:?} is unknown")
            }
            Self::Malformed { index, kind } => {
                write!(formatter, "frame {index}: the body of {kind:?} is malformed")
            }
        }
    }
}

impl std::error::Error for CommandError {}

/// What the encoder answers with; it writes to memory and has nothing to fail at.
type EncodeError = rancor::Panic;

#[cfg(test)]
mod tests;
