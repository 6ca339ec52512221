//! What etcd 3.7 keeps in which bucket, as values.
//!
//! | Bucket | Key | Value |
//! |---|---|---|
//! | `key` | revision: main, `_`, sub; `t` behind it if it is a deletion | `mvccpb.KeyValue` |
//! | `meta` | [`META_CONSISTENT_INDEX`] and the like | see [`Meta`] |
//! | `lease` | the id, 8 bytes | `leasepb.Lease` |
//! | `alarm` | `etcdserverpb.AlarmMember` | nothing |
//! | `auth` | `authEnabled`, `authRevision` | one byte; 8 bytes |
//! | `authUsers`, `authRoles` | the name | `authpb.User`, `authpb.Role` |
//! | `cluster` | `clusterVersion`, `downgrade` | a version; JSON |
//! | `members` | the id in hexadecimal | JSON |
//! | `members_removed` | the id in hexadecimal | `removed` |
//!
//! Numbers in keys and values are big endian. Every conversion goes both ways; what etcd wrote
//! comes out as the same bytes, because HashKV and a backup's hash are taken over them.
//!
//! Invariants:
//! - What cannot be understood is an error that names bucket, key and rule.
//! - The order of pairs in a bucket is that of their keys' bytes; for leases with negative ids,
//!   alarms and members that is not the order of the numbers. Who writes them sorts the pairs.

mod auth;
mod cluster;
#[cfg(test)]
mod tests;

use std::fmt;

pub use auth::{Auth, Permission, PermissionKind, Role, User};
pub use cluster::{Cluster, ConfState, Downgrade, Member, member_id, member_key};

use super::protobuf::{self, Fields, Malformed, Value};
use crate::ids::{Change, LeaseId, LogIndex, MemberId, Revision, Term};
use crate::range::Record;

/// The bucket of alarms.
pub const ALARM: &[u8] = b"alarm";
/// The bucket of the two facts about authentication.
pub const AUTH: &[u8] = b"auth";
/// The bucket of roles.
pub const AUTH_ROLES: &[u8] = b"authRoles";
/// The bucket of users.
pub const AUTH_USERS: &[u8] = b"authUsers";
/// The bucket of the cluster's versions.
pub const CLUSTER: &[u8] = b"cluster";
/// The bucket of the keys' history.
pub const KEY: &[u8] = b"key";
/// The bucket of leases.
pub const LEASE: &[u8] = b"lease";
/// The bucket of members.
pub const MEMBERS: &[u8] = b"members";
/// The bucket of members that were removed.
pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
/// The bucket of how far things have come.
pub const META: &[u8] = b"meta";

/// All buckets of a database, in their order. etcd makes each at its start, and needs each.
pub const BUCKETS: [&[u8]; 10] =
    [ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META];

/// In [`META`]: the last entry of the log that was applied.
pub const META_CONSISTENT_INDEX: &[u8] = b"consistent_index";
/// In [`META`]: that entry's term.
pub const META_TERM: &[u8] = b"term";
/// In [`META`]: who votes.
pub const META_CONF_STATE: &[u8] = b"confState";
/// In [`META`]: up to where was to be compacted.
pub const META_COMPACT_SCHEDULED: &[u8] = b"scheduledCompactRev";
/// In [`META`]: up to where was compacted.
pub const META_COMPACT_FINISHED: &[u8] = b"finishedCompactRev";
/// In [`META`]: the version whose schema it is.
pub const META_STORAGE_VERSION: &[u8] = b"storageVersion";
/// The value of every pair in [`MEMBERS_REMOVED`].
pub const REMOVED: &[u8] = b"removed";

/// A pair of a bucket.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A rule that a pair breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaRule {
    /// The key is no revision.
    KeyRevision,
    /// The key is no id.
    KeyId,
    /// The key is no alarm.
    KeyAlarm,
    /// The value is not the protobuf message it should be.
    ValueProtobuf,
    /// The value is not the JSON it should be.
    ValueJson,
    /// The value is no text.
    ValueText,
    /// The value is not as long as it should be.
    ValueLength,
    /// The value names another thing than the key.
    ValueOfAnother,
}

/// A pair that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// The bucket.
    pub bucket: &'static [u8],
    /// The key.
    pub key: Vec<u8>,
    /// What is wrong.
    pub rule: SchemaRule,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.rule {
            SchemaRule::KeyRevision => "the key is not a revision",
            SchemaRule::KeyId => "the key is not an id",
            SchemaRule::KeyAlarm => "the key is not an alarm",
            SchemaRule::ValueProtobuf => "the value is not the message it should be",
            SchemaRule::ValueJson => "the value is not the JSON it should be",
            SchemaRule::ValueText => "the value is not a text",
            SchemaRule::ValueLength => "the value has another length than it should",
            SchemaRule::ValueOfAnother => "the value names another thing than its key",
        };
        write!(f, "bucket {}, key {}: {text}", self.bucket.escape_ascii(), self.key.escape_ascii())
    }
}

impl std::error::Error for SchemaError {}

fn broken(bucket: &'static [u8], key: &[u8], rule: SchemaRule) -> SchemaError {
    SchemaError { bucket, key: key.to_vec(), rule }
}

/// A key of [`KEY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevisionKey {
    /// When.
    pub change: Change,
    /// Whether the change deleted its key.
    pub is_tombstone: bool,
}

impl RevisionKey {
    /// The length of a key that is no tombstone.
    pub const PUT_BYTES: usize = 17;
    /// The length of a tombstone's.
    pub const TOMBSTONE_BYTES: usize = 18;

    /// How long its bytes are.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        if self.is_tombstone { Self::TOMBSTONE_BYTES } else { Self::PUT_BYTES }
    }

    /// Its bytes: the first [`RevisionKey::size_bytes`] of them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::TOMBSTONE_BYTES] {
        let mut bytes = [0; Self::TOMBSTONE_BYTES];
        let change = self.change.to_bytes();
        bytes[..8].copy_from_slice(&change[..8]);
        bytes[8] = b'_';
        bytes[9..17].copy_from_slice(&change[8..]);
        bytes[17] = b't';
        bytes
    }

    /// The inverse of [`RevisionKey::to_bytes`].
    pub fn from_bytes(key: &[u8]) -> Result<Self, SchemaError> {
        let error = || broken(KEY, key, SchemaRule::KeyRevision);
        let (is_tombstone, put) = match key.len() {
            Self::PUT_BYTES => (false, key),
            Self::TOMBSTONE_BYTES if key[17] == b't' => (true, &key[..17]),
            _ => return Err(error()),
        };
        if put[8] != b'_' {
            return Err(error());
        }
        let change = Change::from_bytes(&[&put[..8], &put[9..]].concat()).ok_or_else(error)?;
        Ok(Self { change, is_tombstone })
    }
}

/// Appends a record as `mvccpb.KeyValue`. A tombstone's record has a key and nothing else.
pub fn record_into(record: &Record<'_>, out: &mut Vec<u8>) {
    protobuf::bytes_into(1, record.key, out);
    protobuf::number_into(2, record.create_revision.0.cast_unsigned(), out);
    protobuf::number_into(3, record.mod_revision.0.cast_unsigned(), out);
    protobuf::number_into(4, record.version.cast_unsigned(), out);
    protobuf::bytes_into(5, record.value, out);
    protobuf::number_into(6, record.lease.0.cast_unsigned(), out);
}

/// How many bytes [`record_into`] appends for a record with a value of this length; its own is not
/// looked at, so that who only measures need not load values.
#[must_use]
pub fn record_len(record: &Record<'_>, value_len: usize) -> usize {
    let numbers = [record.create_revision.0, record.mod_revision.0, record.version, record.lease.0];
    let numbers = numbers.map(|number| protobuf::number_len(number.cast_unsigned()));
    protobuf::bytes_len(record.key.len())
        + protobuf::bytes_len(value_len)
        + numbers.iter().sum::<usize>()
}

/// The record that is a value of [`KEY`]; `key` only names it in an error. The value may be empty:
/// etcd's restore adds such a one to step over revisions.
pub fn record_from<'a>(key: &[u8], value: &'a [u8]) -> Result<Record<'a>, SchemaError> {
    let mut record = Record::default();
    let mut fields = Fields::new(value);
    let error = |Malformed| broken(KEY, key, SchemaRule::ValueProtobuf);
    while let Some(field) = fields.next().map_err(error)? {
        match field {
            (1, Value::Bytes(bytes)) => record.key = bytes,
            (2, Value::Number(number)) => record.create_revision = Revision(number.cast_signed()),
            (3, Value::Number(number)) => record.mod_revision = Revision(number.cast_signed()),
            (4, Value::Number(number)) => record.version = number.cast_signed(),
            (5, Value::Bytes(bytes)) => record.value = bytes,
            (6, Value::Number(number)) => record.lease = LeaseId(number.cast_signed()),
            _ => {}
        }
    }
    Ok(record)
}

/// A pair of [`LEASE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The id.
    pub id: LeaseId,
    /// What was granted.
    pub ttl_seconds: i64,
    /// What a checkpoint said was left; zero for none.
    pub remaining_ttl_seconds: i64,
}

impl Lease {
    /// As etcd keeps it.
    #[must_use]
    pub fn to_pair(self) -> Pair {
        let mut value = Vec::new();
        protobuf::number_into(1, self.id.0.cast_unsigned(), &mut value);
        protobuf::number_into(2, self.ttl_seconds.cast_unsigned(), &mut value);
        protobuf::number_into(3, self.remaining_ttl_seconds.cast_unsigned(), &mut value);
        (self.id.0.to_be_bytes().to_vec(), value)
    }

    /// The inverse of [`Lease::to_pair`].
    pub fn from_pair(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let id = key.try_into().map_err(|_| broken(LEASE, key, SchemaRule::KeyId))?;
        let mut lease = Self::default();
        let mut fields = Fields::new(value);
        let error = |Malformed| broken(LEASE, key, SchemaRule::ValueProtobuf);
        while let Some(field) = fields.next().map_err(error)? {
            match field {
                (1, Value::Number(number)) => lease.id = LeaseId(number.cast_signed()),
                (2, Value::Number(number)) => lease.ttl_seconds = number.cast_signed(),
                (3, Value::Number(number)) => lease.remaining_ttl_seconds = number.cast_signed(),
                _ => {}
            }
        }
        if lease.id.0 != i64::from_be_bytes(id) {
            return Err(broken(LEASE, key, SchemaRule::ValueOfAnother));
        }
        Ok(lease)
    }
}

/// An alarm of any kind, known or not, as etcd keeps it.
#[must_use]
pub fn alarm_pair(member: MemberId, kind: i32) -> Pair {
    let mut key = Vec::new();
    protobuf::number_into(1, member.0, &mut key);
    // A negative number has ten bytes on the wire.
    protobuf::number_into(2, i64::from(kind).cast_unsigned(), &mut key);
    (key, Vec::new())
}

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// The quota is used up.
    NoSpace,
    /// Members differ, or a file is damaged.
    Corrupt,
}

/// A pair of [`ALARM`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Who raised it.
    pub member: MemberId,
    /// What about.
    pub kind: AlarmKind,
}

impl Alarm {
    /// As etcd keeps it.
    #[must_use]
    pub fn to_pair(self) -> Pair {
        alarm_pair(
            self.member,
            match self.kind {
                AlarmKind::NoSpace => 1,
                AlarmKind::Corrupt => 2,
            },
        )
    }

    /// The inverse of [`Alarm::to_pair`].
    pub fn from_pair(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let error = || broken(ALARM, key, SchemaRule::KeyAlarm);
        if !value.is_empty() {
            return Err(broken(ALARM, key, SchemaRule::ValueLength));
        }
        let (mut member, mut kind) = (MemberId(0), None);
        let mut fields = Fields::new(key);
        while let Some(field) = fields.next().map_err(|Malformed| error())? {
            match field {
                (1, Value::Number(number)) => member = MemberId(number),
                (2, Value::Number(1)) => kind = Some(AlarmKind::NoSpace),
                (2, Value::Number(2)) => kind = Some(AlarmKind::Corrupt),
                (2, _) => return Err(error()),
                _ => {}
            }
        }
        Ok(Self { member, kind: kind.ok_or_else(error)? })
    }
}

/// How far the database has come: the bucket [`META`]. What is absent there is `None` here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The last entry of the log that was applied.
    pub consistent_index: Option<LogIndex>,
    /// That entry's term.
    pub term: Option<Term>,
    /// Who votes. etcd's restore leaves the old one standing; the members count.
    pub conf_state: Option<ConfState>,
    /// Up to where was to be compacted.
    pub compact_scheduled: Option<Revision>,
    /// Up to where was compacted.
    pub compact_finished: Option<Revision>,
    /// The version whose schema it is; absent in files of 3.5 and older.
    pub storage_version: Option<String>,
}

impl Meta {
    /// The bucket's pairs, in order.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<Pair> {
        let revision = |revision: Revision| {
            let key = RevisionKey { change: Change::first_of(revision), is_tombstone: false };
            key.to_bytes()[..key.size_bytes()].to_vec()
        };
        let pairs = [
            (META_CONF_STATE, self.conf_state.as_ref().map(|state| state.to_json().into_bytes())),
            (META_CONSISTENT_INDEX, self.consistent_index.map(|index| be_bytes(index.0))),
            (META_COMPACT_FINISHED, self.compact_finished.map(revision)),
            (META_COMPACT_SCHEDULED, self.compact_scheduled.map(revision)),
            (META_STORAGE_VERSION, self.storage_version.clone().map(String::into_bytes)),
            (META_TERM, self.term.map(|term| be_bytes(term.0))),
        ];
        present(pairs)
    }

    /// Takes in one of the bucket's pairs. Unknown keys are passed over, as etcd does.
    pub fn read_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), SchemaError> {
        let revision = || {
            let read = RevisionKey::from_bytes(value);
            let read = read.map_err(|_| broken(META, key, SchemaRule::ValueLength))?;
            Ok(Some(read.change.main))
        };
        match key {
            META_CONF_STATE => self.conf_state = Some(ConfState::from_json(key, value)?),
            META_CONSISTENT_INDEX => {
                self.consistent_index = Some(LogIndex(be_number(META, key, value)?));
            }
            META_COMPACT_FINISHED => self.compact_finished = revision()?,
            META_COMPACT_SCHEDULED => self.compact_scheduled = revision()?,
            META_STORAGE_VERSION => self.storage_version = Some(text(META, key, value)?),
            META_TERM => self.term = Some(Term(be_number(META, key, value)?)),
            _ => {}
        }
        Ok(())
    }
}

fn be_bytes(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn be_number(bucket: &'static [u8], key: &[u8], value: &[u8]) -> Result<u64, SchemaError> {
    let bytes = value.try_into().map_err(|_| broken(bucket, key, SchemaRule::ValueLength))?;
    Ok(u64::from_be_bytes(bytes))
}

fn text(bucket: &'static [u8], key: &[u8], value: &[u8]) -> Result<String, SchemaError> {
    let text = String::from_utf8(value.to_vec());
    text.map_err(|_| broken(bucket, key, SchemaRule::ValueText))
}

/// The pairs that have a value; they come in the order of their keys.
fn present<const N: usize>(pairs: [(&[u8], Option<Vec<u8>>); N]) -> Vec<Pair> {
    assert!(pairs.is_sorted_by_key(|pair| pair.0), "a bucket's pairs are in the order of keys");
    pairs.into_iter().filter_map(|(key, value)| Some((key.to_vec(), value?))).collect()
}
