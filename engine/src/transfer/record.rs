//! The records of a transfer as bytes.
//!
//! A record is the length of what follows (4 bytes), a kind (1), and the kind's body. All numbers
//! are little endian; a text or a run of bytes inside a body is its length (4) and itself, the
//! last one of a body is all that is left.
//!
//! Invariants:
//! - What is written here is read by members of other versions: the golden bytes in the tests may
//!   gain cases, never change, unless the version of the stream does.
//! - Any bytes are a record, a part of one, or refused by rule; nothing is allocated that the bytes
//!   themselves do not fill.

use super::InstallRule;
use crate::alarm::{Alarm, AlarmKind};
use crate::hash::KeyValueHash;
use crate::ids::{Change, LeaseId, LogIndex, MemberId, Revision, Term};
use crate::lease::Lease;
use crate::limits::FRAME_SIZE_BYTES_MAX;
use crate::membership::Peer;
use crate::view::MemberAttributes;

/// What a record begins with.
pub const RECORD_LENGTH_SIZE_BYTES: usize = 4;
/// Length and kind.
const HEADER_SIZE_BYTES: usize = RECORD_LENGTH_SIZE_BYTES + 1;

/// The longest record: a change is no longer than the command that made it, and its numbers.
pub const RECORD_SIZE_BYTES_MAX: usize = FRAME_SIZE_BYTES_MAX + 128;

/// A piece of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TransferRecord<'a> {
    /// What comes: the first record.
    Begin {
        /// The version of the stream.
        version: u16,
        /// The last entry of the log that is part of it.
        applied: LogIndex,
        /// That entry's term.
        term: Term,
        /// The store's revision.
        revision: Revision,
        /// The compacted revision.
        compacted: Revision,
    },
    /// What is remembered of a compaction.
    CompactionHash(KeyValueHash),
    /// An alarm that stands.
    Alarm(Alarm),
    /// The cluster's version.
    ClusterVersion(&'a str),
    /// What the cluster is being downgraded to.
    Downgrade(&'a str),
    /// What is kept for a version that knows its meaning.
    Carried {
        /// One of etcd's buckets, a slash and the key there.
        name: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// A lease.
    Lease(Lease),
    /// What a member has published.
    Attributes(MemberAttributes),
    /// What raft and the transport need of a member.
    Peer(Peer),
    /// A member that was removed.
    Removed(MemberId),
    /// A version of a key.
    Put(PutRecord<'a>),
    /// The end of a key.
    Delete {
        /// When.
        change: Change,
        /// The key.
        key: &'a [u8],
    },
    /// That was all: the last record.
    End {
        /// How many changes there were.
        changes: u64,
        /// The checksum of all bytes before this record.
        crc: u32,
    },
}

/// A version of a key with all its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutRecord<'a> {
    /// When it was written.
    pub(crate) change: Change,
    /// The revision that created the key.
    pub(crate) create_revision: Revision,
    /// How many puts since then; zero for the record that a restore steps over revisions with.
    pub(crate) version: i64,
    /// The lease it was written with.
    pub(crate) lease: LeaseId,
    /// Whether the key is attached to that lease now.
    pub(crate) is_attached: bool,
    /// The key.
    pub(crate) key: &'a [u8],
    /// The value.
    pub(crate) value: &'a [u8],
}

mod kind {
    pub const BEGIN: u8 = 1;
    pub const COMPACTION_HASH: u8 = 2;
    pub const ALARM: u8 = 3;
    pub const CLUSTER_VERSION: u8 = 4;
    pub const DOWNGRADE: u8 = 5;
    pub const CARRIED: u8 = 6;
    pub const LEASE: u8 = 7;
    pub const ATTRIBUTES: u8 = 8;
    pub const PEER: u8 = 9;
    pub const REMOVED: u8 = 10;
    pub const PUT: u8 = 11;
    pub const DELETE: u8 = 12;
    pub const END: u8 = 13;
}

/// The size of the record that begins here, once its length is there; `None` before.
///
/// # Errors
/// No record is so long.
pub fn record_size_bytes(bytes: &[u8]) -> Result<Option<usize>, InstallRule> {
    let Some(length) = bytes.first_chunk::<RECORD_LENGTH_SIZE_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    match length {
        1..=RECORD_SIZE_BYTES_MAX => Ok(Some(4 + length)),
        _ => Err(InstallRule::RecordSize),
    }
}

impl<'a> TransferRecord<'a> {
    /// Appends the record's bytes.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_SIZE_BYTES]);
        out[start + 4] = self.body_into(out);
        let length = out.len() - start - 4;
        assert!(length <= RECORD_SIZE_BYTES_MAX, "a record of {length} bytes");
        let length = u32::try_from(length).expect("the bound on records fits 32 bits");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Appends the body; answers with the kind.
    fn body_into(&self, out: &mut Vec<u8>) -> u8 {
        let mut put = Fill(out);
        match self {
            Self::Begin { version, applied, term, revision, compacted } => {
                put.bytes(&version.to_le_bytes()).u64(applied.0).u64(term.0);
                put.i64(revision.0).i64(compacted.0);
                kind::BEGIN
            }
            Self::CompactionHash(hash) => {
                put.u32(hash.hash).i64(hash.revision.0);
                put.i64(hash.compacted.0).i64(hash.current.0);
                kind::COMPACTION_HASH
            }
            Self::Alarm(alarm) => {
                put.bytes(&alarm.kind.0.to_le_bytes()).u64(alarm.member.0);
                kind::ALARM
            }
            Self::ClusterVersion(version) => {
                put.bytes(version.as_bytes());
                kind::CLUSTER_VERSION
            }
            Self::Downgrade(target) => {
                put.bytes(target.as_bytes());
                kind::DOWNGRADE
            }
            Self::Carried { name, value } => {
                put.sized(name).bytes(value);
                kind::CARRIED
            }
            Self::Lease(lease) => {
                put.i64(lease.id.0).i64(lease.ttl_seconds).i64(lease.remaining_seconds);
                kind::LEASE
            }
            Self::Attributes(member) => {
                put.u64(member.id.0).sized(member.name.as_bytes()).texts(&member.client_urls);
                kind::ATTRIBUTES
            }
            Self::Peer(peer) => {
                put.u64(peer.id.0).bytes(&[u8::from(peer.is_learner)]).texts(&peer.peer_urls);
                kind::PEER
            }
            Self::Removed(id) => {
                put.u64(id.0);
                kind::REMOVED
            }
            Self::Put(version) => {
                put.change(version.change).i64(version.create_revision.0).i64(version.version);
                put.i64(version.lease.0).bytes(&[u8::from(version.is_attached)]);
                put.sized(version.key).bytes(version.value);
                kind::PUT
            }
            Self::Delete { change, key } => {
                put.change(*change).bytes(key);
                kind::DELETE
            }
            Self::End { changes, crc } => {
                put.u64(*changes).u32(*crc);
                kind::END
            }
        }
    }

    /// Reads the record that begins here, and its size; `None` if more bytes have to come first.
    ///
    /// # Errors
    /// The bytes are no record.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, InstallRule> {
        let Some(size_bytes) = record_size_bytes(bytes)? else { return Ok(None) };
        let Some(record) = bytes.get(..size_bytes) else { return Ok(None) };
        let (kind, body) = (record[4], &record[HEADER_SIZE_BYTES..]);
        if !(kind::BEGIN..=kind::END).contains(&kind) {
            return Err(InstallRule::RecordKind(kind));
        }
        let record = Self::of_body(kind, &mut Take(body)).ok_or(InstallRule::RecordBody)?;
        Ok(Some((record, size_bytes)))
    }

    fn of_body(kind: u8, take: &mut Take<'a>) -> Option<Self> {
        let record = match kind {
            kind::BEGIN => Self::Begin {
                version: u16::from_le_bytes(take.array()?),
                applied: LogIndex(take.u64()?),
                term: Term(take.u64()?),
                revision: Revision(take.i64()?),
                compacted: Revision(take.i64()?),
            },
            kind::COMPACTION_HASH => Self::CompactionHash(KeyValueHash {
                hash: take.u32()?,
                revision: Revision(take.i64()?),
                compacted: Revision(take.i64()?),
                current: Revision(take.i64()?),
            }),
            kind::ALARM => Self::Alarm(Alarm {
                kind: AlarmKind(i32::from_le_bytes(take.array()?)),
                member: MemberId(take.u64()?),
            }),
            kind::CLUSTER_VERSION => Self::ClusterVersion(std::str::from_utf8(take.rest()).ok()?),
            kind::DOWNGRADE => Self::Downgrade(std::str::from_utf8(take.rest()).ok()?),
            kind::CARRIED => Self::Carried { name: take.sized()?, value: take.rest() },
            kind::LEASE => Self::Lease(Lease {
                id: LeaseId(take.i64()?),
                ttl_seconds: take.i64()?,
                remaining_seconds: take.i64()?,
            }),
            kind::ATTRIBUTES => Self::Attributes(MemberAttributes {
                id: MemberId(take.u64()?),
                name: take.text()?,
                client_urls: take.texts()?,
            }),
            kind::PEER => Self::Peer(Peer {
                id: MemberId(take.u64()?),
                is_learner: take.flag()?,
                peer_urls: take.texts()?,
            }),
            kind::REMOVED => Self::Removed(MemberId(take.u64()?)),
            kind::PUT => Self::Put(PutRecord {
                change: take.change()?,
                create_revision: Revision(take.i64()?),
                version: take.i64()?,
                lease: LeaseId(take.i64()?),
                is_attached: take.flag()?,
                key: take.sized()?,
                value: take.rest(),
            }),
            kind::DELETE => Self::Delete { change: take.change()?, key: take.rest() },
            kind::END => Self::End { changes: take.u64()?, crc: take.u32()? },
            _ => return None,
        };
        take.0.is_empty().then_some(record)
    }
}

/// Appends the parts of a body.
struct Fill<'o>(&'o mut Vec<u8>);

impl Fill<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn i64(&mut self, number: i64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn change(&mut self, change: Change) -> &mut Self {
        self.i64(change.main.0).i64(change.sub)
    }

    fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).expect("a part of a record is bounded as it is");
        self.u32(length).bytes(bytes)
    }

    fn texts(&mut self, texts: &[String]) -> &mut Self {
        texts.iter().fold(self, |fill, text| fill.sized(text.as_bytes()))
    }
}

/// What is left of a body.
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn array<const SIZE: usize>(&mut self) -> Option<[u8; SIZE]> {
        let (array, rest) = self.0.split_first_chunk::<SIZE>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    /// Neither part of a change is ever negative.
    fn change(&mut self) -> Option<Change> {
        let change = Change { main: Revision(self.i64()?), sub: self.i64()? };
        (change.main.0 >= 0 && change.sub >= 0).then_some(change)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        Some(std::str::from_utf8(self.sized()?).ok()?.to_owned())
    }

    /// Texts to the end of the body.
    fn texts(&mut self) -> Option<Vec<String>> {
        let mut texts = Vec::new();
        while !self.0.is_empty() {
            texts.push(self.text()?);
        }
        Some(texts)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
