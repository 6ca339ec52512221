//! The Maintenance service: what the member says about itself.

use engine::answer::ReadError;
use engine::hash::KeyValueHash;
use engine::view::View;
use prost::Message;

use super::node_state::NodeState;
use super::proto::etcdserverpb as pb;
use super::status::{self, Refusal};
use super::wire::{self, Header, Malformed};

/// The version of etcd whose API this is. Clients choose by it what they dare to ask.
pub const API_VERSION: &str = "3.7.1";

/// Appends the answer to `Status`. It is given without a leader and by learners too.
pub(super) fn put_status(
    out: &mut Vec<u8>,
    header: Header,
    node: &NodeState,
    view: &View,
) -> Result<(), ReadError> {
    let mut errors = Vec::new();
    if node.leader.is_none() {
        let (_, text) = status::status_of(Refusal::NoLeader);
        errors.push(text.to_owned());
    }
    let response = pb::StatusResponse {
        header: Some(header.to_proto(view.revision.0)),
        version: API_VERSION.to_owned(),
        db_size: saturating_i64(view.size_bytes),
        leader: node.leader.map_or(0, |leader| leader.0),
        // A core may have pinned a view that is newer than what it last heard of raft.
        raft_index: node.committed.max(view.applied).0,
        raft_term: node.term.0,
        raft_applied_index: view.applied.0,
        errors,
        db_size_in_use: saturating_i64(view.in_use_bytes),
        is_learner: node.learner,
        storage_version: view.cluster_version()?.unwrap_or_default(),
        db_size_quota: node.quota_bytes,
        downgrade_info: Some(pb::DowngradeInfo { enabled: false, target_version: String::new() }),
    };
    response.encode_raw(out);
    Ok(())
}

fn saturating_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Appends the answer to `Alarm`: there is nothing yet that raises one, so the list is empty.
/// Raising and lowering by hand comes with the alarms themselves.
pub(super) fn put_alarm(
    out: &mut Vec<u8>,
    header: Header,
    view: &View,
    message: &[u8],
) -> Result<AlarmAction, Malformed> {
    let request = pb::AlarmRequest::decode(message).map_err(|_| Malformed)?;
    if request.action != pb::alarm_request::AlarmAction::Get as i32 {
        return Ok(AlarmAction::Unserved);
    }
    wire::put_header(out, &Header { revision: view.revision.0, ..header });
    Ok(AlarmAction::Answered)
}

/// What became of an alarm request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AlarmAction {
    /// The list was appended.
    Answered,
    /// Alarms cannot be set yet.
    Unserved,
}

/// The revision that `HashKV` asks for.
pub(super) fn decode_hash_kv(message: &[u8]) -> Result<i64, Malformed> {
    let request = pb::HashKvRequest::decode(message).map_err(|_| Malformed)?;
    Ok(request.revision)
}

/// Appends the answer to `HashKV`.
pub(super) fn put_hash_kv(out: &mut Vec<u8>, header: Header, hash: &KeyValueHash) {
    wire::put_header(out, &Header { revision: hash.current.0, ..header });
    wire::put_uint64(out, 2, u64::from(hash.hash));
    wire::put_int64(out, 3, hash.compacted.0);
    wire::put_int64(out, 4, hash.revision.0);
}

/// Appends the answer to `Hash`.
pub(super) fn put_hash(out: &mut Vec<u8>, header: Header, view: &View, hash: u32) {
    wire::put_header(out, &Header { revision: view.revision.0, ..header });
    wire::put_uint64(out, 2, u64::from(hash));
}
