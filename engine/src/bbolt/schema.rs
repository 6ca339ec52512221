//! What etcd 3.7 keeps in which bucket, as values.
//!
//! | Bucket | Key | Value |
//! |---|---|---|
//! | `key` | revision: main, `_`, sub, and `t` behind it if the key was deleted | `mvccpb.KeyValue` |
//! | `meta` | [`META_CONSISTENT_INDEX`] and the like | see [`Meta`] |
//! | `lease` | the id, 8 bytes | `leasepb.Lease` |
//! | `alarm` | `etcdserverpb.AlarmMember` | nothing |
//! | `auth` | `authEnabled`, `authRevision` | one byte; 8 bytes |
//! | `authUsers`, `authRoles` | the name | `authpb.User`, `authpb.Role` |
//! | `cluster` | `clusterVersion`, `downgrade` | a version; JSON |
//! | `members` | the id in hexadecimal | JSON |
//! | `members_removed` | the id in hexadecimal | `removed` |
//!
//! Numbers in keys and values are big endian. Every conversion goes both ways; what etcd wrote comes
//! out as the same bytes, because HashKV and a backup's hash are taken over them.
//!
//! Invariants:
//! - What cannot be understood is an error that names bucket, key and rule.
//! - The order of pairs in a bucket is that of their keys' bytes; for leases with negative ids,
//!   alarms and members that is not the order of the numbers. Who writes them sorts the pairs.

use std::fmt;

use super::json::{self, Json};
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
/// In [`AUTH`].
const AUTH_ENABLED: &[u8] = b"authEnabled";
/// In [`AUTH`].
const AUTH_REVISION: &[u8] = b"authRevision";
/// In [`CLUSTER`].
const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// In [`CLUSTER`].
const CLUSTER_DOWNGRADE: &[u8] = b"downgrade";
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
        let mut key = Vec::new();
        let kind = match self.kind {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
        };
        protobuf::number_into(1, self.member.0, &mut key);
        protobuf::number_into(2, kind, &mut key);
        (key, Vec::new())
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

/// Who votes and who learns, as raft knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// The voters.
    pub voters: Vec<MemberId>,
    /// The learners.
    pub learners: Vec<MemberId>,
    /// The voters of the configuration that is being left.
    pub voters_outgoing: Vec<MemberId>,
    /// The voters that become learners once it is left.
    pub learners_next: Vec<MemberId>,
    /// Whether it is left without being told.
    pub auto_leave: Option<bool>,
}

impl ConfState {
    fn to_json(&self) -> String {
        let mut out = String::from("{");
        let lists = [
            ("voters", &self.voters),
            ("learners", &self.learners),
            ("voters_outgoing", &self.voters_outgoing),
            ("learners_next", &self.learners_next),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            name_into(name, &mut out);
            json::list_into(list, |id, out| out.push_str(&id.to_string()), &mut out);
        }
        if let Some(auto_leave) = self.auto_leave {
            name_into("auto_leave", &mut out);
            out.push_str(if auto_leave { "true" } else { "false" });
        }
        out.push('}');
        out
    }

    fn from_json(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let object = Object::parse(META, key, value)?;
        let id = |json: &Json| json.as_u64().map(MemberId);
        let list = |name| object.get(name, |json| json.as_list(id));
        Ok(Self {
            voters: list("voters")?.unwrap_or_default(),
            learners: list("learners")?.unwrap_or_default(),
            voters_outgoing: list("voters_outgoing")?.unwrap_or_default(),
            learners_next: list("learners_next")?.unwrap_or_default(),
            auto_leave: object.get("auto_leave", Json::as_bool)?,
        })
    }
}

/// A pair of [`MEMBERS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The id.
    pub id: MemberId,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Whether it only learns.
    pub is_learner: bool,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

impl Member {
    /// As etcd keeps it.
    #[must_use]
    pub fn to_pair(&self) -> Pair {
        let mut out = String::from("{");
        let url_into = |url: &String, out: &mut String| json::text_into(url, out);
        name_into("id", &mut out);
        out.push_str(&self.id.to_string());
        name_into("peerURLs", &mut out);
        json::list_into(&self.peer_urls, url_into, &mut out);
        if self.is_learner {
            name_into("isLearner", &mut out);
            out.push_str("true");
        }
        if !self.name.is_empty() {
            name_into("name", &mut out);
            json::text_into(&self.name, &mut out);
        }
        if !self.client_urls.is_empty() {
            name_into("clientURLs", &mut out);
            json::list_into(&self.client_urls, url_into, &mut out);
        }
        out.push('}');
        (member_key(self.id), out.into_bytes())
    }

    /// The inverse of [`Member::to_pair`].
    pub fn from_pair(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let id = member_id(MEMBERS, key)?;
        let object = Object::parse(MEMBERS, key, value)?;
        let urls = |name| object.get(name, |json| json.as_list(Json::as_text));
        let member = Self {
            id: MemberId(object.get("id", Json::as_u64)?.unwrap_or_default()),
            peer_urls: urls("peerURLs")?.unwrap_or_default(),
            is_learner: object.get("isLearner", Json::as_bool)?.unwrap_or_default(),
            name: object.get("name", Json::as_text)?.unwrap_or_default(),
            client_urls: urls("clientURLs")?.unwrap_or_default(),
        };
        if member.id != id {
            return Err(broken(MEMBERS, key, SchemaRule::ValueOfAnother));
        }
        Ok(member)
    }
}

/// A member's key in [`MEMBERS`] and [`MEMBERS_REMOVED`].
#[must_use]
pub fn member_key(id: MemberId) -> Vec<u8> {
    format!("{:x}", id.0).into_bytes()
}

/// The inverse of [`member_key`]; the bucket only names it in an error.
pub fn member_id(bucket: &'static [u8], key: &[u8]) -> Result<MemberId, SchemaError> {
    let is_hex = key.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(key).ok().filter(|_| is_hex);
    let id = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    id.map(MemberId).ok_or_else(|| broken(bucket, key, SchemaRule::KeyId))
}

/// The cluster's versions: the bucket [`CLUSTER`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// What all members can do.
    pub version: Option<String>,
    /// The downgrade that is under way, or was.
    pub downgrade: Option<Downgrade>,
}

/// A downgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downgrade {
    /// Where to; empty for none.
    pub target_version: String,
    /// Whether it is under way.
    pub enabled: bool,
}

impl Cluster {
    /// The bucket's pairs, in order.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<Pair> {
        let downgrade = self.downgrade.as_ref().map(|downgrade| {
            let mut out = String::from("{");
            name_into("target-version", &mut out);
            json::text_into(&downgrade.target_version, &mut out);
            name_into("enabled", &mut out);
            out.push_str(if downgrade.enabled { "true}" } else { "false}" });
            out.into_bytes()
        });
        let version = self.version.clone().map(String::into_bytes);
        present([(CLUSTER_VERSION, version), (CLUSTER_DOWNGRADE, downgrade)])
    }

    /// Takes in one of the bucket's pairs. Unknown keys are passed over, as etcd does.
    pub fn read_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), SchemaError> {
        if key == CLUSTER_VERSION {
            self.version = Some(text(CLUSTER, key, value)?);
        } else if key == CLUSTER_DOWNGRADE {
            let object = Object::parse(CLUSTER, key, value)?;
            let target_version = object.get("target-version", Json::as_text)?.unwrap_or_default();
            let enabled = object.get("enabled", Json::as_bool)?.unwrap_or_default();
            self.downgrade = Some(Downgrade { target_version, enabled });
        }
        Ok(())
    }
}

/// Whether requests are checked: the bucket [`AUTH`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Whether they are.
    pub enabled: Option<bool>,
    /// The version of users and roles.
    pub revision: Option<u64>,
}

impl Auth {
    /// The bucket's pairs, in order.
    #[must_use]
    pub fn to_pairs(self) -> Vec<Pair> {
        let enabled = self.enabled.map(|enabled| vec![u8::from(enabled)]);
        present([(AUTH_ENABLED, enabled), (AUTH_REVISION, self.revision.map(be_bytes))])
    }

    /// Takes in one of the bucket's pairs. Unknown keys are passed over, as etcd does.
    pub fn read_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), SchemaError> {
        if key == AUTH_ENABLED {
            self.enabled = match value {
                [0] => Some(false),
                [1] => Some(true),
                _ => return Err(broken(AUTH, key, SchemaRule::ValueLength)),
            };
        } else if key == AUTH_REVISION {
            self.revision = Some(be_number(AUTH, key, value)?);
        }
        Ok(())
    }
}

/// A pair of [`AUTH_USERS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: Vec<u8>,
    /// The password's hash; empty for none.
    pub password_hash: Vec<u8>,
    /// The names of the roles.
    pub roles: Vec<String>,
    /// Whether the user logs in by certificate only. `None` where a user was made without saying.
    pub no_password: Option<bool>,
}

impl User {
    /// As etcd keeps it.
    #[must_use]
    pub fn to_pair(&self) -> Pair {
        let mut value = Vec::new();
        protobuf::bytes_into(1, &self.name, &mut value);
        protobuf::bytes_into(2, &self.password_hash, &mut value);
        for role in &self.roles {
            protobuf::element_into(3, role.as_bytes(), &mut value);
        }
        if let Some(no_password) = self.no_password {
            let mut options = Vec::new();
            protobuf::number_into(1, u64::from(no_password), &mut options);
            protobuf::element_into(4, &options, &mut value);
        }
        (self.name.clone(), value)
    }

    /// The inverse of [`User::to_pair`].
    pub fn from_pair(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let error = |Malformed| broken(AUTH_USERS, key, SchemaRule::ValueProtobuf);
        let mut user = Self::default();
        let mut fields = Fields::new(value);
        while let Some(field) = fields.next().map_err(error)? {
            match field {
                (1, Value::Bytes(bytes)) => user.name = bytes.to_vec(),
                (2, Value::Bytes(bytes)) => user.password_hash = bytes.to_vec(),
                (3, Value::Bytes(bytes)) => user.roles.push(text(AUTH_USERS, key, bytes)?),
                (4, Value::Bytes(bytes)) => {
                    // Go merges: an option that is given twice keeps what the first said.
                    let mut no_password = user.no_password.unwrap_or_default();
                    let mut options = Fields::new(bytes);
                    while let Some(option) = options.next().map_err(error)? {
                        if let (1, Value::Number(number)) = option {
                            no_password = number != 0;
                        }
                    }
                    user.no_password = Some(no_password);
                }
                _ => {}
            }
        }
        if user.name != key {
            return Err(broken(AUTH_USERS, key, SchemaRule::ValueOfAnother));
        }
        Ok(user)
    }
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PermissionKind {
    /// To read.
    #[default]
    Read,
    /// To write.
    Write,
    /// Both.
    ReadWrite,
}

/// One permission of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// What is allowed.
    pub kind: PermissionKind,
    /// Where the range begins.
    pub key: Vec<u8>,
    /// Where it ends, as in a range request.
    pub range_end: Vec<u8>,
}

/// A pair of [`AUTH_ROLES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The name.
    pub name: Vec<u8>,
    /// What it may, in etcd's order: by key.
    pub permissions: Vec<Permission>,
}

impl Role {
    /// As etcd keeps it.
    #[must_use]
    pub fn to_pair(&self) -> Pair {
        let mut value = Vec::new();
        protobuf::bytes_into(1, &self.name, &mut value);
        for permission in &self.permissions {
            let mut message = Vec::new();
            protobuf::number_into(1, permission.kind as u64, &mut message);
            protobuf::bytes_into(2, &permission.key, &mut message);
            protobuf::bytes_into(3, &permission.range_end, &mut message);
            protobuf::element_into(2, &message, &mut value);
        }
        (self.name.clone(), value)
    }

    /// The inverse of [`Role::to_pair`].
    pub fn from_pair(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let error = |Malformed| broken(AUTH_ROLES, key, SchemaRule::ValueProtobuf);
        let mut role = Self::default();
        let mut fields = Fields::new(value);
        while let Some(field) = fields.next().map_err(error)? {
            match field {
                (1, Value::Bytes(bytes)) => role.name = bytes.to_vec(),
                (2, Value::Bytes(bytes)) => {
                    role.permissions.push(permission_from(bytes).map_err(error)?);
                }
                _ => {}
            }
        }
        if role.name != key {
            return Err(broken(AUTH_ROLES, key, SchemaRule::ValueOfAnother));
        }
        Ok(role)
    }
}

fn permission_from(message: &[u8]) -> Result<Permission, Malformed> {
    let mut permission = Permission::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(0)) => permission.kind = PermissionKind::Read,
            (1, Value::Number(1)) => permission.kind = PermissionKind::Write,
            (1, Value::Number(2)) => permission.kind = PermissionKind::ReadWrite,
            // To guess what an unknown kind allows would be worse than to refuse the file.
            (1, _) => return Err(Malformed),
            (2, Value::Bytes(bytes)) => permission.key = bytes.to_vec(),
            (3, Value::Bytes(bytes)) => permission.range_end = bytes.to_vec(),
            _ => {}
        }
    }
    Ok(permission)
}

/// A JSON object, and the pair it came from.
struct Object<'a> {
    bucket: &'static [u8],
    key: &'a [u8],
    json: Json,
}

impl<'a> Object<'a> {
    fn parse(bucket: &'static [u8], key: &'a [u8], value: &[u8]) -> Result<Self, SchemaError> {
        let json = Json::parse(value).filter(|json| matches!(json, Json::Object(_)));
        let json = json.ok_or_else(|| broken(bucket, key, SchemaRule::ValueJson))?;
        Ok(Self { bucket, key, json })
    }

    /// A member, if there is one; it must be what is asked for.
    fn get<T>(
        &self,
        name: &str,
        read: impl Fn(&Json) -> Option<T>,
    ) -> Result<Option<T>, SchemaError> {
        let Some(json) = self.json.get(name) else { return Ok(None) };
        let value = read(json);
        value.map(Some).ok_or_else(|| broken(self.bucket, self.key, SchemaRule::ValueJson))
    }
}

/// Appends a member's name, with what parts it from the member before.
fn name_into(name: &str, out: &mut String) {
    if !out.ends_with('{') {
        out.push(',');
    }
    json::text_into(name, out);
    out.push(':');
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_the_order_of_their_names() {
        assert!(BUCKETS.is_sorted());
    }

    #[test]
    fn revisions_are_17_bytes_and_tombstones_18() {
        let change = Change { main: Revision(0x0102), sub: 3 };
        let put = RevisionKey { change, is_tombstone: false };
        let bytes = b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t";
        assert_eq!(put.to_bytes()[..put.size_bytes()], bytes[..17]);
        let tombstone = RevisionKey { change, is_tombstone: true };
        assert_eq!(tombstone.to_bytes()[..tombstone.size_bytes()], bytes[..]);
        assert_eq!(RevisionKey::from_bytes(&bytes[..17]), Ok(put));
        assert_eq!(RevisionKey::from_bytes(bytes), Ok(tombstone));
        for (at, byte) in [(0, 0x80), (8, b'-'), (9, 0x80), (17, b'u')] {
            let mut bad = *bytes;
            bad[at] = byte;
            let error = RevisionKey::from_bytes(&bad).unwrap_err();
            assert_eq!(error.rule, SchemaRule::KeyRevision, "byte {at}");
        }
        assert!(RevisionKey::from_bytes(&bytes[..16]).is_err());
    }

    #[test]
    fn records_come_back_and_are_as_long_as_measured() {
        let numbers = [0, 1, 127, 128, i64::MAX, -1];
        for (index, number) in numbers.into_iter().enumerate() {
            let value = vec![7; [0, 1, 127, 128, 70_000, 3][index]];
            let record = Record {
                key: b"foo",
                value: &value,
                create_revision: Revision(number),
                mod_revision: Revision(300),
                version: number,
                lease: LeaseId(number),
            };
            let mut out = Vec::new();
            record_into(&record, &mut out);
            assert_eq!(out.len(), record_len(&record, value.len()));
            assert_eq!(record_from(b"", &out), Ok(record));
        }
        assert_eq!(record_from(b"", b""), Ok(Record::default()), "what a restore adds");
        let error = record_from(b"k", b"\x0a\x05a").unwrap_err().to_string();
        assert_eq!(error, "bucket key, key k: the value is not the message it should be");
    }

    /// The bytes are etcd 3.7.1's own.
    #[test]
    fn small_buckets_are_as_etcd_writes_them() {
        let lease =
            Lease { id: LeaseId(0x1234), ttl_seconds: 60, remaining_ttl_seconds: 0 }.to_pair();
        assert_eq!(lease.0, b"\0\0\0\0\0\0\x12\x34");
        assert_eq!(lease.1, b"\x08\xb4\x24\x10\x3c");
        let alarm = Alarm { member: MemberId(300), kind: AlarmKind::NoSpace };
        assert_eq!(alarm.to_pair(), (b"\x08\xac\x02\x10\x01".to_vec(), vec![]));
        let member = Member {
            id: MemberId(0xfe9d),
            peer_urls: vec!["http://a?b&c".to_owned()],
            is_learner: false,
            name: "m".to_owned(),
            client_urls: vec![],
        };
        let (key, value) = member.to_pair();
        assert_eq!(key, b"fe9d");
        let text = r#"{"id":65181,"peerURLs":["http://a?b\u0026c"],"name":"m"}"#;
        assert_eq!(value, text.as_bytes());
    }

    #[test]
    fn what_is_written_is_read() {
        let lease = Lease { id: LeaseId(-5), ttl_seconds: i64::MAX, remaining_ttl_seconds: 3 };
        let (key, value) = lease.to_pair();
        assert_eq!(Lease::from_pair(&key, &value), Ok(lease));
        for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
            let alarm = Alarm { member: MemberId(u64::MAX), kind };
            let (key, value) = alarm.to_pair();
            assert_eq!(Alarm::from_pair(&key, &value), Ok(alarm));
        }
        for is_learner in [false, true] {
            let member = Member {
                id: MemberId(7),
                peer_urls: vec!["http://a".to_owned(), "http://b".to_owned()],
                is_learner,
                name: "\"n\"".to_owned(),
                client_urls: vec!["http://c".to_owned()],
            };
            let (key, value) = member.to_pair();
            assert_eq!(Member::from_pair(&key, &value), Ok(member));
        }
        for no_password in [None, Some(false), Some(true)] {
            let roles = vec!["r".to_owned(), String::new()];
            let user = User { name: b"u".to_vec(), password_hash: vec![1], roles, no_password };
            let (key, value) = user.to_pair();
            assert_eq!(User::from_pair(&key, &value), Ok(user));
        }
        let kinds = [PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite];
        let permissions = kinds.map(|kind| Permission { kind, key: vec![1], range_end: vec![0] });
        let role = Role { name: b"r".to_vec(), permissions: permissions.to_vec() };
        let (key, value) = role.to_pair();
        assert_eq!(Role::from_pair(&key, &value), Ok(role));
    }

    #[test]
    fn buckets_of_single_facts_come_back() {
        let meta = Meta {
            consistent_index: Some(LogIndex(5)),
            term: Some(Term(6)),
            conf_state: Some(ConfState {
                voters: vec![MemberId(1), MemberId(u64::MAX)],
                learners: vec![MemberId(3)],
                voters_outgoing: vec![MemberId(4)],
                learners_next: vec![MemberId(5)],
                auto_leave: Some(true),
            }),
            compact_scheduled: Some(Revision(8)),
            compact_finished: Some(Revision(7)),
            storage_version: Some("3.7.0".to_owned()),
        };
        for whole in [meta, Meta::default()] {
            let mut read = Meta::default();
            for (key, value) in whole.to_pairs() {
                read.read_pair(&key, &value).unwrap();
            }
            assert_eq!(read, whole);
        }
        let downgrade = Downgrade { target_version: "3.6.0".to_owned(), enabled: true };
        let whole = Cluster { version: Some("3.7.0".to_owned()), downgrade: Some(downgrade) };
        let mut read = Cluster::default();
        for (key, value) in whole.to_pairs() {
            read.read_pair(&key, &value).unwrap();
        }
        assert_eq!(read, whole);
        let whole = Auth { enabled: Some(true), revision: Some(9) };
        let mut read = Auth::default();
        for (key, value) in whole.to_pairs() {
            read.read_pair(&key, &value).unwrap();
        }
        assert_eq!(read, whole);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let rule = |result: Result<(), SchemaError>| result.unwrap_err().rule;
        let lease = |key: &[u8], value: &[u8]| Lease::from_pair(key, value).map(|_| ());
        assert_eq!(rule(lease(b"1234567", b"")), SchemaRule::KeyId);
        assert_eq!(rule(lease(b"12345678", b"")), SchemaRule::ValueOfAnother);
        assert_eq!(rule(lease(b"12345678", b"\x08")), SchemaRule::ValueProtobuf);
        let alarm = |key: &[u8], value: &[u8]| Alarm::from_pair(key, value).map(|_| ());
        assert_eq!(rule(alarm(b"\x08\x01", b"")), SchemaRule::KeyAlarm);
        assert_eq!(rule(alarm(b"\x10\x03", b"")), SchemaRule::KeyAlarm);
        assert_eq!(rule(alarm(b"\x10\x01", b"x")), SchemaRule::ValueLength);
        let member = |key: &[u8], value: &[u8]| Member::from_pair(key, value).map(|_| ());
        assert_eq!(rule(member(b"+1", b"{}")), SchemaRule::KeyId);
        assert_eq!(rule(member(b"1", b"[]")), SchemaRule::ValueJson);
        assert_eq!(rule(member(b"1", b"{\"id\":2}")), SchemaRule::ValueOfAnother);
        assert_eq!(rule(member(b"1", b"{\"id\":\"1\"}")), SchemaRule::ValueJson);
        let user = |key: &[u8], value: &[u8]| User::from_pair(key, value).map(|_| ());
        assert_eq!(rule(user(b"a", b"\x0a\x01b")), SchemaRule::ValueOfAnother);
        let role = |key: &[u8], value: &[u8]| Role::from_pair(key, value).map(|_| ());
        assert_eq!(rule(role(b"a", b"\x0a\x01a\x12\x02\x08\x07")), SchemaRule::ValueProtobuf);
        let meta = |key: &[u8], value: &[u8]| Meta::default().read_pair(key, value);
        assert_eq!(rule(meta(META_TERM, b"7")), SchemaRule::ValueLength);
        assert_eq!(rule(meta(META_COMPACT_FINISHED, b"7")), SchemaRule::ValueLength);
        assert_eq!(rule(meta(META_STORAGE_VERSION, b"\xff")), SchemaRule::ValueText);
        assert_eq!(meta(b"another", b"7"), Ok(()));
    }
}
