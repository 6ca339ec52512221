//! The archived bodies of the commands that need no tables, and the two doors to all archives.
//!
//! Invariants:
//! - [`access`] is called only on bytes for which [`is_sound`] answered yes.
//! - The archives have no alignment (rkyv's `unaligned`), so a body may start at any byte.

use rkyv::api::low::LowValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::Serializer;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Portable, Serialize};

use super::{
    AlarmAction, AlarmRef, DeleteRangeRef, EncodeError, LeaseGrantRef, LeaseRemaining,
    LeaseRevokeRef, PutRef,
};
use crate::alarm::{Alarm, AlarmKind};
use crate::ids::{LeaseId, MemberId, Term};
use crate::view::MemberAttributes;

/// The encoder of bodies: appends to the frames, scratch memory from the writer's arena.
pub(crate) type Encoder<'w, 'a> = Serializer<&'w mut Vec<u8>, ArenaHandle<'a>, ()>;

/// A body that can be written into a frame.
pub(crate) trait Body {
    /// Appends the archive, its root last.
    fn write(&self, encoder: &mut Encoder<'_, '_>);
}

impl<T> Body for T
where
    T: for<'w, 'a> Serialize<Strategy<Encoder<'w, 'a>, EncodeError>>,
{
    fn write(&self, encoder: &mut Encoder<'_, '_>) {
        let Ok(_root) = rkyv::api::serialize_using::<_, EncodeError>(self, encoder);
    }
}

/// Whether the bytes are a complete archive of a body.
pub(crate) fn is_sound<T>(bytes: &[u8]) -> bool
where
    T: Archive,
    T::Archived: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
{
    rkyv::api::low::access::<T::Archived, Failure>(bytes).is_ok()
}

/// The archive in bytes that are known to be sound.
pub(crate) fn access<T: Archive>(bytes: &[u8]) -> &T::Archived
where
    T::Archived: Portable,
{
    // SAFETY: a `Batch` is built only from frames for which `is_sound` of the same type answered
    // yes, and its bytes never change.
    unsafe { rkyv::access_unchecked::<T::Archived>(bytes) }
}

#[derive(Archive, Serialize)]
pub(crate) struct PutBody<'a> {
    #[rkyv(with = InlineAsBox)]
    pub(crate) key: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub(crate) value: &'a [u8],
    pub(crate) lease: i64,
    pub(crate) prev_kv: bool,
    pub(crate) ignore_value: bool,
    pub(crate) ignore_lease: bool,
}

impl<'a> PutBody<'a> {
    pub(crate) fn from_ref(put: &PutRef<'a>) -> Self {
        Self {
            key: put.key,
            value: put.value,
            lease: put.lease.0,
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }
    }
}

impl ArchivedPutBody<'_> {
    pub(crate) fn as_ref(&self) -> PutRef<'_> {
        PutRef {
            key: &self.key,
            value: &self.value,
            lease: self.lease.to_native().into(),
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        }
    }
}

#[derive(Archive, Serialize)]
pub(crate) struct DeleteRangeBody<'a> {
    #[rkyv(with = InlineAsBox)]
    pub(crate) key: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub(crate) range_end: &'a [u8],
    pub(crate) prev_kv: bool,
}

impl<'a> DeleteRangeBody<'a> {
    pub(crate) fn from_ref(delete: &DeleteRangeRef<'a>) -> Self {
        Self { key: delete.key, range_end: delete.range_end, prev_kv: delete.prev_kv }
    }
}

impl ArchivedDeleteRangeBody<'_> {
    pub(crate) fn as_ref(&self) -> DeleteRangeRef<'_> {
        DeleteRangeRef { key: &self.key, range_end: &self.range_end, prev_kv: self.prev_kv }
    }
}

#[derive(Archive, Serialize)]
pub(crate) struct CompactBody {
    pub(crate) revision: i64,
    pub(crate) physical: bool,
}

#[derive(Archive, Serialize)]
pub(crate) struct MemberPublishBody<'a> {
    pub(crate) id: u64,
    #[rkyv(with = InlineAsBox)]
    pub(crate) name: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub(crate) client_urls: &'a [String],
}

impl ArchivedMemberPublishBody<'_> {
    pub(crate) fn to_attributes(&self) -> MemberAttributes {
        MemberAttributes {
            id: MemberId(self.id.to_native()),
            name: self.name.as_ref().to_owned(),
            client_urls: self.client_urls.iter().map(|url| url.as_str().to_owned()).collect(),
        }
    }
}

#[derive(Archive, Serialize)]
pub(crate) struct ClusterVersionBody<'a> {
    #[rkyv(with = InlineAsBox)]
    pub(crate) version: &'a str,
}

#[derive(Archive, Serialize)]
pub(crate) struct AlarmBody {
    pub(crate) action: u8,
    pub(crate) member: u64,
    pub(crate) kind: i32,
}

impl ArchivedAlarmBody {
    /// `None` if the action is unknown.
    pub(crate) fn to_ref(&self) -> Option<AlarmRef> {
        let action = AlarmAction::from_byte(self.action)?;
        let member = MemberId(self.member.to_native());
        let kind = AlarmKind(self.kind.to_native());
        Some(AlarmRef { action, alarm: Alarm { kind, member } })
    }
}

#[derive(Archive, Serialize)]
pub(crate) struct DowngradeBody<'a> {
    pub(crate) enabled: bool,
    /// Empty if it is not enabled.
    #[rkyv(with = InlineAsBox)]
    pub(crate) target: &'a str,
}

impl ArchivedDowngradeBody<'_> {
    pub(crate) fn target(&self) -> Option<&str> {
        self.enabled.then_some(&*self.target)
    }
}

#[derive(Archive, Serialize)]
pub(crate) struct LeaseGrantBody {
    pub(crate) id: i64,
    pub(crate) ttl_seconds: i64,
}

impl ArchivedLeaseGrantBody {
    pub(crate) fn to_ref(&self) -> LeaseGrantRef {
        let id = LeaseId(self.id.to_native());
        LeaseGrantRef { id, ttl_seconds: self.ttl_seconds.to_native() }
    }
}

#[derive(Archive, Serialize)]
pub(crate) struct LeaseRevokeBody {
    pub(crate) id: i64,
    /// Zero when somebody asked for it.
    pub(crate) term: u64,
}

impl ArchivedLeaseRevokeBody {
    pub(crate) fn to_ref(&self) -> LeaseRevokeRef {
        let term = self.term.to_native();
        let expired_in = (term != 0).then_some(Term(term));
        LeaseRevokeRef { id: LeaseId(self.id.to_native()), expired_in }
    }
}

/// Two columns of one length; what one of them has more is not looked at.
#[derive(Archive, Serialize)]
pub(crate) struct LeaseCheckpointBody<'a> {
    #[rkyv(with = InlineAsBox)]
    pub(crate) ids: &'a [i64],
    #[rkyv(with = InlineAsBox)]
    pub(crate) remaining_seconds: &'a [i64],
}

impl ArchivedLeaseCheckpointBody<'_> {
    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseRemaining> {
        let remaining = self.remaining_seconds.iter().map(|seconds| seconds.to_native());
        let ids = self.ids.iter().map(|id| LeaseId(id.to_native()));
        ids.zip(remaining).map(|(id, remaining_seconds)| LeaseRemaining { id, remaining_seconds })
    }
}
