//! The Maintenance service: what the member says about itself, and what an operator tells it.

use engine::alarm::{Alarm, AlarmKind};
use engine::answer::{ReadError, Rejection};
use engine::command::{AlarmAction, AlarmRef, FrameWriter};
use engine::downgrade::ClusterVersion;
use engine::hash::KeyValueHash;
use engine::ids::MemberId;
use engine::view::View;
use prost::Message;

use super::downgrade::parse_target;
use super::node_state::NodeState;
use super::proto::etcdserverpb as pb;
use super::status::{self, Refusal};
use super::wire::{self, Header, Malformed};

/// The version of etcd whose API this is. Clients choose by it what they dare to ask.
pub const API_VERSION: &str = "3.7.1";

/// What a maintenance request has to read before it can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaintenanceRead {
    /// The alarms that stand, of one kind or of all.
    Alarms(AlarmKind),
    /// Whether a downgrade may begin.
    Downgrade(ClusterVersion),
}

impl MaintenanceRead {
    /// Appends the answer. Alarms cost what so many keys do: how many stand is up to clients.
    pub(super) fn answer(
        self,
        out: &mut Vec<u8>,
        header: Header,
        view: &View,
        budget: &mut usize,
    ) -> Result<(), ReadError> {
        let header = Header { revision: view.revision.0, ..header };
        match self {
            Self::Alarms(kind) => {
                let mut alarms = view.alarms()?;
                *budget = budget.saturating_sub(alarms.len());
                alarms.retain(|alarm| kind == AlarmKind::NONE || alarm.kind == kind);
                put_alarms(out, &header, &alarms);
            }
            Self::Downgrade(target) => {
                let version = view.check_downgrade(&target.to_string())?;
                put_downgrade(out, &header, version);
            }
        }
        Ok(())
    }
}

/// What is to be done about a request.
pub(super) enum MaintenanceAction {
    /// Its frame was appended.
    Pushed,
    /// It reads, linearizably.
    Read(MaintenanceRead),
}

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
    errors.extend(view.alarms()?.into_iter().map(alarm_text));
    let downgrade = view.downgrade_target()?;
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
        db_size_in_use: saturating_i64(view.counted_in_use_bytes()),
        is_learner: node.learner,
        storage_version: view.cluster_version()?.unwrap_or_default(),
        db_size_quota: node.quota_bytes,
        downgrade_info: Some(pb::DowngradeInfo {
            enabled: downgrade.is_some(),
            target_version: downgrade.unwrap_or_default(),
        }),
    };
    response.encode_raw(out);
    Ok(())
}

/// An alarm as Go's protobuf prints it. Between the fields it prints one space or two, by the
/// build, so that nobody relies on it; etcd's release has two.
fn alarm_text(alarm: Alarm) -> String {
    let kind = match alarm.kind {
        AlarmKind::NO_SPACE => "NOSPACE".to_owned(),
        AlarmKind::CORRUPT => "CORRUPT".to_owned(),
        AlarmKind(other) => other.to_string(),
    };
    match alarm.member {
        MemberId(0) => format!("alarm:{kind}"),
        member => format!("memberID:{}  alarm:{kind}", member.0),
    }
}

fn saturating_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Decides about an `AlarmRequest`.
pub(super) fn handle_alarm(
    message: &[u8],
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<MaintenanceAction, Refusal> {
    let request = pb::AlarmRequest::decode(message)?;
    let kind = AlarmKind(request.alarm);
    let action = match pb::alarm_request::AlarmAction::try_from(request.action) {
        Ok(pb::alarm_request::AlarmAction::Get) => {
            return Ok(MaintenanceAction::Read(MaintenanceRead::Alarms(kind)));
        }
        Ok(pb::alarm_request::AlarmAction::Activate) => AlarmAction::Raise,
        Ok(pb::alarm_request::AlarmAction::Deactivate) => AlarmAction::Lower,
        // etcd has no answer to this one: it ends.
        Err(_) => return Err(Refusal::UnknownAction),
    };
    let alarm = Alarm { kind, member: MemberId(request.member_id) };
    writer.push_alarm(frames, AlarmRef { action, alarm });
    Ok(MaintenanceAction::Pushed)
}

/// Appends the command that raises the quota's alarm in place of a request, unless it stands.
pub(super) fn refuse_for_quota(
    node: &NodeState,
    view: &View,
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let alarm = Alarm { kind: AlarmKind::NO_SPACE, member: node.member_id };
    if view.has_alarm(alarm)? {
        return Err(Rejection::NoSpace.into());
    }
    writer.push_alarm(frames, AlarmRef { action: AlarmAction::RaiseForQuota, alarm });
    Ok(())
}

/// Appends the answer to a change or a list of alarms.
pub(super) fn put_alarms(out: &mut Vec<u8>, header: &Header, alarms: &[Alarm]) {
    wire::put_header(out, header);
    for alarm in alarms {
        wire::put_nested(out, 2, |out| {
            wire::put_uint64(out, 1, alarm.member.0);
            wire::put_int64(out, 2, i64::from(alarm.kind.0));
        });
    }
}

/// Decides about a `DowngradeRequest`.
pub(super) fn handle_downgrade(
    message: &[u8],
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<MaintenanceAction, Refusal> {
    use pb::downgrade_request::DowngradeAction;

    let request = pb::DowngradeRequest::decode(message)?;
    let target = || parse_target(&request.version).ok_or(Refusal::WrongDowngradeVersion);
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => {
            return Ok(MaintenanceAction::Read(MaintenanceRead::Downgrade(target()?)));
        }
        Ok(DowngradeAction::Enable) => {
            writer.push_downgrade(frames, Some(&target()?.to_string()));
        }
        Ok(DowngradeAction::Cancel) => writer.push_downgrade(frames, None),
        Err(_) => return Err(Refusal::UnknownAction),
    }
    Ok(MaintenanceAction::Pushed)
}

/// Appends the answer to a downgrade: the cluster's version, in two parts.
pub(super) fn put_downgrade(out: &mut Vec<u8>, header: &Header, version: ClusterVersion) {
    wire::put_header(out, header);
    let text = format!("{}.{}", version.major, version.minor);
    wire::put_len(out, 2, text.len());
    out.extend_from_slice(text.as_bytes());
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
