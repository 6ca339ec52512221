//! Entries of etcd's log as commands of ours: what an import does with what a database had not yet
//! taken in.
//!
//! An entry is an `InternalRaftRequest`: a header, an id and one request. Requests that clients
//! know go the way of those that come from clients, so that both mean the same; etcd had checked
//! them before they were logged.
//!
//! Invariants:
//! - Every request that changes the store becomes a frame, or is named as what cannot be taken
//!   over.
//! - What raised alarms forbid is left out, by etcd's rules at the moment of applying.

use std::fmt;

use engine::command::{
    FrameWriter, LeaseGrantRef, LeaseRemaining, LeaseRevokeRef, MemberPublishRef,
};
use engine::ids::{LeaseId, MemberId};
use prost::Message;

use super::kv;
use super::proto::etcdserverpb as pb;
use super::status::Refusal;
use super::validate::RequestSizer;
use super::wire::{Fields, Malformed, Value};

/// The least time to live that etcd grants with its default election time-out.
const LEASE_TTL_SECONDS_MIN: i64 = 2;

/// What an entry turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It changes nothing that is kept.
    Nothing,
    /// Frames were appended.
    Frames,
    /// An alarm is raised or disarmed.
    Alarm(AlarmChange),
}

/// An alarm that is raised or disarmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmChange {
    /// Whether it is raised.
    pub is_raised: bool,
    /// Whose.
    pub member: MemberId,
    /// etcd's number of its kind.
    pub kind: i32,
}

/// The alarms that decide what is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlarmsRaised {
    /// Somebody is out of space.
    pub no_space: bool,
    /// Somebody's data is damaged.
    pub corrupt: bool,
}

/// Why an entry cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// It is not the message it should be.
    Malformed,
    /// It changes users, roles or whether they count.
    Auth,
    /// It is a request that this program does not know, by its field.
    Unknown(u64),
    /// No client could have sent the request.
    Refused(Refusal),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => formatter.write_str("is not a request"),
            Self::Auth => formatter.write_str("changes users or roles, which ringd does not serve"),
            Self::Unknown(field) => write!(formatter, "holds a request of unknown kind {field}"),
            Self::Refused(refusal) => {
                write!(
                    formatter,
                    "holds a request that is none: {}",
                    super::status::status_of(*refusal).1
                )
            }
        }
    }
}

impl From<Malformed> for ReplayError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Refusal> for ReplayError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Turns entries into frames.
pub struct Replay {
    sizer: RequestSizer,
    writer: FrameWriter,
}

impl Replay {
    /// For entries of any size.
    #[must_use]
    pub fn new() -> Self {
        Self { sizer: RequestSizer::new(usize::MAX, 0), writer: FrameWriter::new() }
    }

    /// Appends the frames of an entry's data.
    ///
    /// # Errors
    /// What cannot be taken over.
    pub fn push(
        &mut self,
        data: &[u8],
        alarms: AlarmsRaised,
        frames: &mut Vec<u8>,
    ) -> Result<Replayed, ReplayError> {
        let mut request = None;
        let mut fields = Fields::of(data);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                // Its id, and who asked.
                (1 | 100, _) => {}
                (_, Value::Bytes(message)) => request = Some((number, message)),
                (_, Value::Varint(_) | Value::Skipped) => return Err(ReplayError::Unknown(number)),
            }
        }
        let Some((number, message)) = request else { return Ok(Replayed::Nothing) };
        if is_forbidden(number, message, alarms)? {
            return Ok(Replayed::Nothing);
        }
        let before = frames.len();
        if let Some(alarm) = self.push_request(number, message, frames)? {
            return Ok(Replayed::Alarm(alarm));
        }
        Ok(if frames.len() > before { Replayed::Frames } else { Replayed::Nothing })
    }

    fn push_request(
        &mut self,
        number: u64,
        message: &[u8],
        frames: &mut Vec<u8>,
    ) -> Result<Option<AlarmChange>, ReplayError> {
        let (sizer, writer) = (&self.sizer, &mut self.writer);
        match number {
            // A range, and questions about users: they change nothing.
            3 | 1013 | 1102 | 1106 | 1107 | 1202 | 9900 => {}
            4 => kv::push_put(message, sizer, writer, frames)?,
            5 => kv::push_delete_range(message, sizer, writer, frames)?,
            // One that only reads has no frame.
            6 => drop(kv::push_txn(message, usize::MAX, sizer, writer, frames)?),
            7 => kv::push_compaction(message, writer, frames)?,
            8 => {
                let grant = decode::<pb::LeaseGrantRequest>(message)?;
                let ttl_seconds = grant.ttl.max(LEASE_TTL_SECONDS_MIN);
                let grant = LeaseGrantRef { id: LeaseId(grant.id), ttl_seconds };
                writer.push_lease_grant(frames, grant);
            }
            9 => {
                let revoke = decode::<pb::LeaseRevokeRequest>(message)?;
                let revoke = LeaseRevokeRef { id: LeaseId(revoke.id), expired_in: None };
                writer.push_lease_revoke(frames, revoke);
            }
            10 => return alarm_change(message),
            11 => writer.push_lease_checkpoint(frames, &checkpoints(message)?),
            1300 => {
                let version = text_field(message, 1)?;
                writer.push_cluster_version_set(frames, &version);
            }
            1301 => push_member(message, writer, frames)?,
            1302 if is_enabled(message)? => {
                writer.push_downgrade(frames, Some(&text_field(message, 2)?));
            }
            1302 => writer.push_downgrade(frames, None),
            1000..=1204 => return Err(ReplayError::Auth),
            _ => return Err(ReplayError::Unknown(number)),
        }
        Ok(None)
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

/// etcd looks at its alarms when it applies: what stores is refused for want of space, and nearly
/// everything while data is damaged.
fn is_forbidden(number: u64, message: &[u8], alarms: AlarmsRaised) -> Result<bool, ReplayError> {
    if alarms.corrupt && (3..=9).contains(&number) {
        return Ok(true);
    }
    if !alarms.no_space {
        return Ok(false);
    }
    if number != 6 {
        return Ok(matches!(number, 4 | 8));
    }
    let txn = decode::<pb::TxnRequest>(message)?;
    let is_put = |operation: &pb::RequestOp| {
        matches!(operation.request, Some(pb::request_op::Request::RequestPut(_)))
    };
    Ok(txn.success.iter().chain(&txn.failure).any(is_put))
}

fn alarm_change(message: &[u8]) -> Result<Option<AlarmChange>, ReplayError> {
    use pb::alarm_request::AlarmAction;
    let alarm = decode::<pb::AlarmRequest>(message)?;
    let is_raised = match AlarmAction::try_from(alarm.action) {
        Ok(AlarmAction::Get) => return Ok(None),
        Ok(AlarmAction::Activate) => true,
        Ok(AlarmAction::Deactivate) => false,
        Err(_) => return Err(ReplayError::Malformed),
    };
    let member = MemberId(alarm.member_id);
    Ok(Some(AlarmChange { is_raised, member, kind: alarm.alarm }))
}

fn checkpoints(message: &[u8]) -> Result<Vec<LeaseRemaining>, ReplayError> {
    let mut checkpoints = Vec::new();
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        let (1, Value::Bytes(checkpoint)) = field else { continue };
        let (mut id, mut remaining_seconds) = (0, 0);
        let mut fields = Fields::of(checkpoint);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => value.set_int64(&mut id),
                2 => value.set_int64(&mut remaining_seconds),
                _ => {}
            }
        }
        checkpoints.push(LeaseRemaining { id: LeaseId(id), remaining_seconds });
    }
    Ok(checkpoints)
}

/// `ClusterMemberAttrSetRequest`: an id, and a nested message of a name and URLs.
fn push_member(
    message: &[u8],
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<(), ReplayError> {
    let (mut id, mut name, mut client_urls) = (0, String::new(), Vec::new());
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(number)) => id = number,
            (2, Value::Bytes(attributes)) => {
                let mut fields = Fields::of(attributes);
                while let Some(field) = fields.next()? {
                    match field {
                        (1, Value::Bytes(bytes)) => name = text(bytes)?,
                        (2, Value::Bytes(bytes)) => client_urls.push(text(bytes)?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let member = MemberPublishRef { id: MemberId(id), name: &name, client_urls: &client_urls };
    writer.push_member_publish(frames, &member);
    Ok(())
}

fn is_enabled(message: &[u8]) -> Result<bool, ReplayError> {
    let mut enabled = false;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            value.set_bool(&mut enabled);
        }
    }
    Ok(enabled)
}

fn text_field(message: &[u8], wanted: u64) -> Result<String, ReplayError> {
    let mut found = String::new();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        if let (true, Value::Bytes(bytes)) = (number == wanted, value) {
            found = text(bytes)?;
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> Result<String, ReplayError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ReplayError::Malformed)
}

fn decode<M: Message + Default>(message: &[u8]) -> Result<M, ReplayError> {
    M::decode(message).map_err(|_| ReplayError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::wire::{put_len, put_uint64};

    fn entry(field: u64, request: &impl Message) -> Vec<u8> {
        let mut data = Vec::new();
        put_uint64(&mut data, 1, 0x7b);
        let message = request.encode_to_vec();
        put_len(&mut data, field, message.len());
        data.extend_from_slice(&message);
        data
    }

    fn push(data: &[u8], alarms: AlarmsRaised) -> (Result<Replayed, ReplayError>, u32) {
        let mut frames = Vec::new();
        let replayed = Replay::new().push(data, alarms, &mut frames);
        (replayed, engine::command::frame_count(&frames).unwrap())
    }

    #[test]
    fn requests_become_frames_unless_an_alarm_forbids_them() {
        let put = pb::PutRequest { key: b"k".to_vec().into(), ..<_>::default() };
        let operation = pb::request_op::Request::RequestPut(put.clone());
        let operation = pb::RequestOp { request: Some(operation) };
        let txn = pb::TxnRequest { failure: vec![operation], ..<_>::default() };
        let delete = pb::DeleteRangeRequest { key: b"k".to_vec().into(), ..<_>::default() };
        let grant = pb::LeaseGrantRequest { ttl: 1, id: 7 };
        let revoke = pb::LeaseRevokeRequest { id: 7 };
        let none = AlarmsRaised::default();
        let no_space = AlarmsRaised { no_space: true, ..none };
        let corrupt = AlarmsRaised { corrupt: true, ..none };
        for (data, without_space) in [
            (entry(4, &put), false),
            (entry(6, &txn), false),
            (entry(8, &grant), false),
            (entry(5, &delete), true),
            (entry(9, &revoke), true),
        ] {
            assert_eq!(push(&data, none), (Ok(Replayed::Frames), 1));
            let frames = u32::from(without_space);
            assert_eq!(push(&data, no_space).1, frames);
            assert_eq!(push(&data, corrupt), (Ok(Replayed::Nothing), 0));
        }
    }

    #[test]
    fn what_cannot_be_taken_over_is_named() {
        let none = AlarmsRaised::default();
        let alarm = pb::AlarmRequest { action: 1, member_id: 5, alarm: 2 };
        let change = AlarmChange { is_raised: true, member: MemberId(5), kind: 2 };
        assert_eq!(push(&entry(10, &alarm), none).0, Ok(Replayed::Alarm(change)));
        let user = pb::AuthUserAddRequest { name: "u".to_owned(), ..<_>::default() };
        assert_eq!(push(&entry(1100, &user), none).0, Err(ReplayError::Auth));
        assert_eq!(push(&entry(9901, &user), none).0, Err(ReplayError::Unknown(9901)));
        assert_eq!(push(&[0x22, 9], none).0, Err(ReplayError::Malformed));
        assert_eq!(push(&[], none).0, Ok(Replayed::Nothing));
        // `DowngradeInfoSetRequest`: enabled.
        let enable = [&[0xb2, 0x51, 9, 8, 1, 18, 5][..], b"3.6.0"].concat();
        assert_eq!(push(&enable, none), (Ok(Replayed::Frames), 1));
        // And ended.
        assert_eq!(push(&[0xb2, 0x51, 0], none), (Ok(Replayed::Frames), 1));
    }
}
