//! The facts of the `system` tree as records, and back to the keys they stand under.
//!
//! Invariant: a fact goes to the key it came from, so that the order of records is that of keys.

use super::InstallRule;
use super::record::TransferRecord;
use crate::alarm::{ALARM, AlarmKind, alarm_key, alarm_of};
use crate::command::{self, MemberPublishRef};
use crate::downgrade::{ClusterVersion, DOWNGRADE};
use crate::ids::{LeaseId, MemberId};
use crate::lease::{self, LEASE, Lease, lease_key};
use crate::membership::{self, PEER, REMOVED, peer_key, removed_key};
use crate::page::PageFault;
use crate::system::{
    self, CARRIED, CLUSTER_VERSION, COMPACTION, CONF_STATE, INSTALLED, MEMBER, member_key,
};
use crate::view::MemberAttributes;
use crate::working::Working;

/// The record of an entry: `Some(None)` if it is the member's own business, `None` if it is not
/// understood.
pub(super) fn fact_of<'a>(key: &'a [u8], body: &'a [u8]) -> Option<Option<TransferRecord<'a>>> {
    let text = || std::str::from_utf8(body).ok();
    // Those that are told in another way, or mean nothing elsewhere.
    if [COMPACTION, CONF_STATE, INSTALLED].contains(&key) {
        return Some(None);
    }
    let fact = if key == CLUSTER_VERSION {
        TransferRecord::ClusterVersion(text()?)
    } else if key == DOWNGRADE {
        TransferRecord::Downgrade(text()?)
    } else if let Some(suffix) = key.strip_prefix(ALARM) {
        TransferRecord::Alarm(alarm_of(suffix)?)
    } else if let Some(name) = key.strip_prefix(CARRIED) {
        TransferRecord::Carried { name, value: body }
    } else if let Some(suffix) = key.strip_prefix(LEASE) {
        let number = |at: usize| Some(i64::from_be_bytes(body.get(at..at + 8)?.try_into().ok()?));
        TransferRecord::Lease(Lease {
            id: LeaseId(i64::from_be_bytes(suffix.try_into().ok()?)),
            ttl_seconds: number(0)?,
            remaining_seconds: number(8)?,
        })
    } else if key.starts_with(MEMBER) {
        TransferRecord::Attributes(command::member_from_bytes(body)?)
    } else if key.starts_with(PEER) {
        TransferRecord::Peer(command::peer_from_bytes(body)?)
    } else {
        let suffix = key.strip_prefix(REMOVED)?;
        TransferRecord::Removed(MemberId(u64::from_be_bytes(suffix.try_into().ok()?)))
    };
    Some(Some(fact))
}

/// The key of a fact; `None` for a record that is none.
pub(crate) fn fact_key(record: &TransferRecord<'_>) -> Option<Vec<u8>> {
    Some(match record {
        TransferRecord::Alarm(alarm) => alarm_key(*alarm),
        TransferRecord::ClusterVersion(_) => CLUSTER_VERSION.to_vec(),
        TransferRecord::Downgrade(_) => DOWNGRADE.to_vec(),
        TransferRecord::Carried { name, .. } => [CARRIED, name].concat(),
        TransferRecord::Lease(lease) => lease_key(lease.id).to_vec(),
        TransferRecord::Attributes(member) => member_key(member.id),
        TransferRecord::Peer(peer) => peer_key(peer.id),
        TransferRecord::Removed(id) => removed_key(*id),
        TransferRecord::Begin { .. }
        | TransferRecord::CompactionHash(_)
        | TransferRecord::Put(_)
        | TransferRecord::Delete { .. }
        | TransferRecord::End { .. } => return None,
    })
}

/// Enters a fact under its key, or says that it cannot be one.
pub(crate) fn put_fact(
    record: &TransferRecord<'_>,
    key: &[u8],
    working: &mut Working,
) -> Result<Result<(), InstallRule>, PageFault> {
    let is_sound = match record {
        TransferRecord::Alarm(alarm) => alarm.kind != AlarmKind::NONE,
        TransferRecord::Downgrade(target) => ClusterVersion::from_text(target).is_some(),
        TransferRecord::Lease(lease) => lease.id != LeaseId(0),
        _ => true,
    };
    if !is_sound {
        return Ok(Err(InstallRule::Fact));
    }
    let shard = &mut working.shards[0];
    match record {
        TransferRecord::ClusterVersion(text) | TransferRecord::Downgrade(text) => {
            system::put(shard, key, text.as_bytes())?;
        }
        TransferRecord::Carried { value, .. } => system::put(shard, key, value)?,
        TransferRecord::Lease(lease) => lease::import(*lease, working)?,
        TransferRecord::Attributes(member) => {
            let MemberAttributes { id, name, client_urls } = member;
            system::put_member(shard, &MemberPublishRef { id: *id, name, client_urls })?;
        }
        TransferRecord::Peer(peer) => membership::put_peer(shard, peer)?,
        _ => system::put(shard, key, &[])?,
    }
    Ok(Ok(()))
}
