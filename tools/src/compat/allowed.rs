//! What may differ between etcd and ringd, each with its reason, and which RPCs are still missing.
//!
//! Invariants:
//! - [`ALLOWED`] is the only tolerance there is: what it does not name has to be equal.
//! - [`MISSING`] and [`MISSING_FLAGS`] are true: a run tries everything in them on ringd, and fails
//!   if something is served.

/// How two values of a field may relate without being equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Both are set or neither is.
    Presence,
    /// Numbers at most this far apart.
    Within(u64),
    /// Lists of the same elements in another order.
    Unordered,
    /// Numbers that the servers chose for themselves; from then on they stand for each other.
    Chosen,
    /// Numbers that stand for each other since a `Chosen` field held them.
    Bound,
}

/// A field whose values may differ.
pub struct Allowed {
    /// The full name of the message.
    pub message: &'static str,
    /// The field in it.
    pub field: &'static str,
    /// In which way.
    pub how: How,
    /// Why that is no fault.
    pub reason: &'static str,
}

/// What the lists below abbreviate.
macro_rules! allowed {
    ($($message:literal $field:literal $how:expr, $reason:literal;)+) => {
        &[$(Allowed { message: $message, field: $field, how: $how, reason: $reason }),+]
    };
}

/// The fields whose values may differ.
pub const ALLOWED: &[Allowed] = allowed! {
    "etcdserverpb.ResponseHeader" "raft_term" How::Presence,
        "how many elections a member has held before it serves is raft's own affair";
    "etcdserverpb.StatusResponse" "raftTerm" How::Presence, "as in the header";
    "etcdserverpb.StatusResponse" "raftIndex" How::Presence,
        "one entry of ours holds a batch, and etcd writes entries of its own at the start";
    "etcdserverpb.StatusResponse" "raftAppliedIndex" How::Presence, "as raftIndex";
    "etcdserverpb.StatusResponse" "dbSize" How::Presence, "another format of file";
    "etcdserverpb.StatusResponse" "dbSizeInUse" How::Presence, "another format of file";
    "etcdserverpb.HashResponse" "hash" How::Presence,
        "documented as the hash of the file, and our file has another format";
    "etcdserverpb.SnapshotResponse" "remaining_bytes" How::Presence,
        "a bbolt file written at once has fewer free pages than one that grew";
    "etcdserverpb.SnapshotResponse" "blob" How::Presence, "as remaining_bytes";
    "etcdserverpb.LeaseGrantResponse" "ID" How::Chosen,
        "an id that the server chooses holds its clock";
    "etcdserverpb.LeaseTimeToLiveResponse" "ID" How::Bound, "chosen by the server";
    "etcdserverpb.LeaseKeepAliveResponse" "ID" How::Bound, "chosen by the server";
    "etcdserverpb.LeaseStatus" "ID" How::Bound, "chosen by the server";
    "mvccpb.KeyValue" "lease" How::Bound, "chosen by the server";
    "v3electionpb.LeaderKey" "lease" How::Bound, "chosen by the server";
    "etcdserverpb.LeaseTimeToLiveResponse" "TTL" How::Within(1),
        "whole seconds that remain, counted at two moments";
    "etcdserverpb.LeaseTimeToLiveResponse" "keys" How::Unordered,
        "etcd takes them out of a Go map, whose order is random";
};

/// Go's protobuf chooses between a space and a no-break space in its error texts, by a hash of the
/// binary, so that nobody relies on them; another build of etcd writes the other one.
pub const SPACE_EITHER: (char, char) = ('\u{a0}', ' ');

/// RPCs that ringd does not serve yet. Cases that need one are counted apart, not passed.
pub const MISSING: &[&str] = &[
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Auth/AuthEnable",
    "/etcdserverpb.Auth/AuthDisable",
    "/etcdserverpb.Auth/AuthStatus",
    "/etcdserverpb.Auth/Authenticate",
    "/etcdserverpb.Auth/UserAdd",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/UserDelete",
    "/etcdserverpb.Auth/UserChangePassword",
    "/etcdserverpb.Auth/UserGrantRole",
    "/etcdserverpb.Auth/UserRevokeRole",
    "/etcdserverpb.Auth/RoleAdd",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
    "/etcdserverpb.Auth/RoleDelete",
    "/etcdserverpb.Auth/RoleGrantPermission",
    "/etcdserverpb.Auth/RoleRevokePermission",
    "/v3lockpb.Lock/Lock",
    "/v3lockpb.Lock/Unlock",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Proclaim",
    "/v3electionpb.Election/Leader",
    "/v3electionpb.Election/Observe",
    "/v3electionpb.Election/Resign",
];

/// Flags that ringd does not take yet, each with a value that etcd takes. Cases that need servers
/// with one are counted apart, as those of missing RPCs.
pub const MISSING_FLAGS: &[(&str, &str)] = &[("--quota-backend-bytes", "1000000000")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::wire;

    #[test]
    fn every_allowance_names_a_field_that_exists() {
        for allowed in ALLOWED {
            let message = wire::message(allowed.message);
            assert!(message.get_field_by_name(allowed.field).is_some(), "{}", allowed.field);
            assert!(!allowed.reason.is_empty());
        }
    }

    #[test]
    fn every_missing_rpc_exists_and_stands_once() {
        for (index, path) in MISSING.iter().enumerate() {
            assert!(wire::method(path).is_some(), "{path}");
            assert!(!MISSING[..index].contains(path), "{path}");
        }
    }
}
