//! The store's own facts, in the `system` tree of shard 0.
//!
//! Invariant: what is stored here is replicated state or derived from it, and changes only with the
//! epoch it belongs to; a checkpoint holds it at one applied index with everything else.

use crate::answer::ReadError;
use crate::bbolt::schema::Pair;
use crate::command::{self, MemberPublishRef};
use crate::compaction::Sweep;
use crate::ids::{LogIndex, MemberId, Term};
use crate::page::{PageFault, Pages};
use crate::shard::Shard;
use crate::store::{self, ShardRoots};
use crate::tree::{self, Body, Cursor};
use crate::view::MemberAttributes;

pub(crate) const COMPACTION: &[u8] = b"compaction";
pub(crate) const CLUSTER_VERSION: &[u8] = b"cluster_version";
pub(crate) const CONF_STATE: &[u8] = b"conf_state";
/// Followed by the name of one of etcd's buckets, a slash and the key there.
pub(crate) const CARRIED: &[u8] = b"etcd/";
/// The entry up to which the store came from another member.
pub(crate) const INSTALLED: &[u8] = b"installed";
/// Followed by the member's id, big endian.
pub(crate) const MEMBER: &[u8] = b"member/";

pub(crate) fn put(shard: &mut Shard, key: &[u8], bytes: &[u8]) -> Result<(), PageFault> {
    tree::insert(&mut shard.file, &mut shard.roots.system, key, &[], Body::Bytes(bytes))?;
    Ok(())
}

pub(crate) fn remove(shard: &mut Shard, key: &[u8]) -> Result<(), PageFault> {
    tree::remove(&mut shard.file, &mut shard.roots.system, key)?;
    Ok(())
}

pub(crate) fn get<'s, P: Pages>(
    pages: &'s P,
    roots: &ShardRoots,
    key: &[u8],
) -> Result<Option<&'s [u8]>, PageFault> {
    match tree::get(pages, roots.system, key)? {
        Some(entry) => entry.body(pages).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn put_sweep(shard: &mut Shard, sweep: &Sweep) -> Result<(), PageFault> {
    put(shard, COMPACTION, &sweep.to_bytes())
}

/// The state of compaction; a store that never compacted has none stored.
pub(crate) fn sweep<P: Pages>(pages: &P, roots: &ShardRoots) -> Result<Sweep, PageFault> {
    match get(pages, roots, COMPACTION)? {
        None => Ok(Sweep::never()),
        Some(bytes) => Sweep::from_bytes(bytes)
            .ok_or_else(|| store::damaged(pages, roots.system, "state of compaction")),
    }
}

pub(crate) fn put_cluster_version(shard: &mut Shard, version: &str) -> Result<(), PageFault> {
    put(shard, CLUSTER_VERSION, version.as_bytes())
}

pub(crate) fn cluster_version<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
) -> Result<Option<String>, ReadError> {
    let Some(bytes) = get(pages, roots, CLUSTER_VERSION)? else { return Ok(None) };
    match std::str::from_utf8(bytes) {
        Ok(version) => Ok(Some(version.to_owned())),
        Err(_) => Err(store::damaged(pages, roots.system, "cluster version").into()),
    }
}

pub(crate) fn put_conf_state(shard: &mut Shard, bytes: &[u8]) -> Result<(), PageFault> {
    put(shard, CONF_STATE, bytes)
}

pub(crate) fn conf_state<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
) -> Result<Option<Vec<u8>>, PageFault> {
    Ok(get(pages, roots, CONF_STATE)?.map(<[u8]>::to_vec))
}

/// Notes the entry up to which the store came from another member.
pub(crate) fn put_installed(
    shard: &mut Shard,
    index: LogIndex,
    term: Term,
) -> Result<(), PageFault> {
    let bytes = [index.0.to_be_bytes(), term.0.to_be_bytes()].concat();
    put(shard, INSTALLED, &bytes)
}

pub(crate) fn installed<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
) -> Result<Option<(LogIndex, Term)>, PageFault> {
    let Some(bytes) = get(pages, roots, INSTALLED)? else { return Ok(None) };
    let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    match (word(0), word(8), bytes.len()) {
        (Some(index), Some(term), 16) => Ok(Some((LogIndex(index), Term(term)))),
        _ => Err(store::damaged(pages, roots.system, "entry of an install")),
    }
}

pub(crate) fn put_member(
    shard: &mut Shard,
    member: &MemberPublishRef<'_>,
) -> Result<(), PageFault> {
    put(shard, &member_key(member.id), &command::member_to_bytes(member))
}

pub(crate) fn members<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
) -> Result<Vec<MemberAttributes>, ReadError> {
    let mut members = Vec::new();
    let mut cursor = Cursor::new(pages, roots.system);
    cursor.seek(MEMBER)?;
    while let Some((key, entry)) = cursor.next()? {
        if !key.starts_with(MEMBER) {
            break;
        }
        let Some(member) = command::member_from_bytes(entry.body(pages)?) else {
            return Err(store::damaged(pages, roots.system, "attributes of a member").into());
        };
        members.push(member);
    }
    Ok(members)
}

/// What was brought from etcd and means nothing to this version: the pairs of a bucket.
pub(crate) fn carried<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    bucket: &[u8],
) -> Result<Vec<Pair>, PageFault> {
    let prefix = carried_key(bucket, &[]);
    let mut pairs = Vec::new();
    let mut cursor = Cursor::new(pages, roots.system);
    cursor.seek(&prefix)?;
    while let Some((key, entry)) = cursor.next()? {
        let Some(key) = key.strip_prefix(&prefix[..]) else { break };
        pairs.push((key.to_vec(), entry.body(pages)?.to_vec()));
    }
    Ok(pairs)
}

/// Keeps a pair of one of etcd's buckets as it is.
pub(crate) fn carry(
    shard: &mut Shard,
    bucket: &[u8],
    key: &[u8],
    value: &[u8],
) -> Result<(), PageFault> {
    put(shard, &carried_key(bucket, key), value)
}

fn carried_key(bucket: &[u8], key: &[u8]) -> Vec<u8> {
    [CARRIED, bucket, b"/", key].concat()
}

pub(crate) fn member_key(id: MemberId) -> Vec<u8> {
    [MEMBER, &id.0.to_be_bytes()].concat()
}
