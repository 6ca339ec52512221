//! Leases: what is replicated of them. Which lease has expired is not known here: the leader keeps
//! the clocks, and a revoke comes through the log.
//!
//! A lease lies in the `system` tree of shard 0; which keys are attached to it in the `attachments`
//! tree of each key's shard, under the lease's id, so that the keys of a lease stand together and
//! in order.
//!
//! Invariants:
//! - A key is attached to a lease that exists, and only while it lives itself.
//! - A revoke deletes the keys in their order, as the changes of one revision.

use crate::command::{LeaseGrantRef, LeaseRemaining};
use crate::ids::LeaseId;
use crate::layout;
use crate::limits::{DELETE_CHUNK_KEYS_MAX, DELETE_CHUNK_SIZE_BYTES_MAX};
use crate::page::{PageFault, Pages};
use crate::range::Progress;
use crate::store::{self, ShardRoots, Store};
use crate::system;
use crate::tree::Cursor;
use crate::working::Working;

/// A lease as it is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a keep-alive.
    pub ttl_seconds: i64,
    /// What a leader noted that it had left, zero if it had its whole time or nobody noted it.
    pub remaining_seconds: i64,
}

/// What happened to a lease, for whoever keeps the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// It began.
    Granted(Lease),
    /// It ended, and its keys with it.
    Revoked(LeaseId),
    /// A leader noted what it has left.
    Noted(Lease),
}

/// The key of a lease in the `system` tree; the id's bytes follow.
pub(crate) const LEASE: &[u8] = b"lease/";

pub(crate) fn lease_key(id: LeaseId) -> [u8; LEASE.len() + 8] {
    let mut key = [0; LEASE.len() + 8];
    key[..LEASE.len()].copy_from_slice(LEASE);
    key[LEASE.len()..].copy_from_slice(&id.0.to_be_bytes());
    key
}

fn encode(lease: &Lease) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&lease.ttl_seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&lease.remaining_seconds.to_be_bytes());
    bytes
}

fn decode<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    id: LeaseId,
    bytes: &[u8],
) -> Result<Lease, PageFault> {
    let number = |at: usize| Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    match (number(0), number(8), bytes.len()) {
        (Some(ttl_seconds), Some(remaining_seconds), 16) => {
            Ok(Lease { id, ttl_seconds, remaining_seconds })
        }
        _ => Err(store::damaged(pages, roots.system, "lease")),
    }
}

/// The lease with this id; the roots are those of shard 0.
pub(crate) fn get<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    id: LeaseId,
) -> Result<Option<Lease>, PageFault> {
    match system::get(pages, roots, &lease_key(id))? {
        Some(bytes) => decode(pages, roots, id, bytes).map(Some),
        None => Ok(None),
    }
}

/// Some leases in the order of their ids' bytes, from `from` on, `count_max` at most; the id to go
/// on from if there are more.
pub(crate) fn list<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    from: LeaseId,
    count_max: usize,
    out: &mut Vec<Lease>,
) -> Result<Option<LeaseId>, PageFault> {
    let mut cursor = Cursor::new(pages, roots.system);
    cursor.seek(&lease_key(from))?;
    let mut count = 0;
    while let Some((key, entry)) = cursor.next()? {
        let Some(id) = key.strip_prefix(LEASE) else { break };
        let Some(id) = id.try_into().ok().map(i64::from_be_bytes).map(LeaseId) else {
            return Err(store::damaged(pages, roots.system, "id of a lease"));
        };
        if count == count_max {
            return Ok(Some(id));
        }
        count += 1;
        out.push(decode(pages, roots, id, entry.body(pages)?)?);
    }
    Ok(None)
}

/// Begins a lease; `false` if there is one with the id.
pub(crate) fn grant(grant: LeaseGrantRef, working: &mut Working) -> Result<bool, PageFault> {
    // Zero means no lease everywhere; etcd chooses an id before it comes here.
    if working.lease_is_known(grant.id)? {
        return Ok(false);
    }
    let LeaseGrantRef { id, ttl_seconds } = grant;
    let lease = Lease { id, ttl_seconds, remaining_seconds: 0 };
    system::put(&mut working.shards[0], &lease_key(id), &encode(&lease))?;
    working.lease_changes.push(LeaseChange::Granted(lease));
    Ok(true)
}

/// Enters a lease as another store had it; the caller has looked that there is none with the id.
pub(crate) fn import(lease: Lease, working: &mut Working) -> Result<(), PageFault> {
    system::put(&mut working.shards[0], &lease_key(lease.id), &encode(&lease))
}

/// Notes what a lease has left, if it exists.
pub(crate) fn set_remaining(noted: LeaseRemaining, working: &mut Working) -> Result<(), PageFault> {
    let shard = &mut working.shards[0];
    let Some(lease) = get(&shard.file, &shard.roots, noted.id)? else { return Ok(()) };
    let lease = Lease { remaining_seconds: noted.remaining_seconds, ..lease };
    system::put(shard, &lease_key(lease.id), &encode(&lease))?;
    working.lease_changes.push(LeaseChange::Noted(lease));
    Ok(())
}

/// Where the keys of a lease come together from all shards, in order.
struct Attached<'s, P: Pages> {
    prefix: [u8; 8],
    cursors: Vec<Cursor<'s, P>>,
    /// The next key of each shard.
    fronts: Vec<Option<&'s [u8]>>,
}

impl<'s, P: Pages> Attached<'s, P> {
    /// Begins at the first key that is not before `from`.
    fn new<S: Store<Pages = P>>(
        store: &'s S,
        lease: LeaseId,
        from: &[u8],
    ) -> Result<Self, PageFault> {
        let prefix = lease.0.to_be_bytes();
        let mut attached = Self { prefix, cursors: Vec::new(), fronts: Vec::new() };
        let mut start = Vec::new();
        layout::attachment_key(lease, from, &mut start);
        for shard in 0..store.shard_count() {
            let (pages, roots) = store.shard(shard);
            let mut cursor = Cursor::new(pages, roots.attachments);
            cursor.seek(&start)?;
            attached.cursors.push(cursor);
            let front = attached.pull(shard)?;
            attached.fronts.push(front);
        }
        Ok(attached)
    }

    fn pull(&mut self, shard: usize) -> Result<Option<&'s [u8]>, PageFault> {
        let next = self.cursors[shard].next()?;
        Ok(next.and_then(|(key, _)| key.strip_prefix(&self.prefix[..])))
    }

    fn next(&mut self) -> Result<Option<&'s [u8]>, PageFault> {
        let fronts = self.fronts.iter().enumerate();
        let first = fronts.filter_map(|(shard, front)| front.map(|key| (key, shard))).min();
        let Some((key, shard)) = first else { return Ok(None) };
        self.fronts[shard] = self.pull(shard)?;
        Ok(Some(key))
    }
}

/// The keys of a lease from `from` on, `count_max` at most; the key to go on from if there are
/// more.
pub(crate) fn keys<S: Store>(
    store: &S,
    lease: LeaseId,
    from: &[u8],
    count_max: usize,
    out: &mut Vec<Vec<u8>>,
) -> Result<Option<Vec<u8>>, PageFault> {
    let mut attached = Attached::new(store, lease, from)?;
    for _ in 0..count_max {
        let Some(key) = attached.next()? else { return Ok(None) };
        out.push(key.to_vec());
    }
    Ok(attached.next()?.map(<[u8]>::to_vec))
}

/// The end of a lease, resumable: its keys go one chunk after the other, then the lease.
#[derive(Debug)]
pub(crate) struct RevokeRun {
    id: LeaseId,
    /// The keys of a chunk, one after the other.
    keys: Vec<u8>,
    key_ends: Vec<usize>,
}

impl RevokeRun {
    pub(crate) fn new(id: LeaseId) -> Self {
        Self { id, keys: Vec::new(), key_ends: Vec::new() }
    }

    pub(crate) fn step(
        &mut self,
        working: &mut Working,
        budget: &mut usize,
    ) -> Result<Progress, PageFault> {
        while *budget > 0 {
            self.collect(working, *budget)?;
            // A deleted key is noted in two trees. Without room for that the same keys are
            // collected again by the next step.
            if working.reserve(self.key_ends.len(), 2 * self.keys.len()).is_err() {
                return Ok(Progress::More);
            }
            if self.key_ends.is_empty() {
                let shard = &mut working.shards[0];
                system::remove(shard, &lease_key(self.id))?;
                working.lease_changes.push(LeaseChange::Revoked(self.id));
                *budget -= 1;
                return Ok(Progress::Done);
            }
            *budget = budget.saturating_sub(self.key_ends.len());
            working.activity.note_revoked(self.key_ends.len());
            let mut start = 0;
            for &end in &self.key_ends {
                // The deletion takes the attachment along, so the next chunk begins behind it.
                if working.delete(&self.keys[start..end], false)?.is_none() {
                    let (pages, roots) = Store::shard_of(working, &self.keys[start..end]);
                    return Err(store::damaged(pages, roots.attachments, "key that does not live"));
                }
                start = end;
            }
        }
        Ok(Progress::More)
    }

    fn collect(&mut self, working: &Working, budget: usize) -> Result<(), PageFault> {
        self.keys.clear();
        self.key_ends.clear();
        let mut attached = Attached::new(working, self.id, &[])?;
        while self.key_ends.len() < DELETE_CHUNK_KEYS_MAX.min(budget)
            && self.keys.len() < DELETE_CHUNK_SIZE_BYTES_MAX
            && let Some(key) = attached.next()?
        {
            self.keys.extend_from_slice(key);
            self.key_ends.push(self.keys.len());
        }
        Ok(())
    }
}
