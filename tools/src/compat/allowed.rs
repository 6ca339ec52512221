//! What may differ between etcd and ringd, each with its reason.
//!
//! Invariants:
//! - [`ALLOWED`] is the only tolerance there is: what it does not name has to be equal.

/// How two values of a field may relate without being equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Both are set or neither is.
    Presence,
    /// Numbers at most this far apart.
    Within(u64),
    /// Lists of the same elements in another order.
    Unordered,
    /// The same, of members that do not lead.
    UnorderedOnFollowers,
    /// Numbers that the servers chose for themselves; from then on they stand for each other.
    Chosen,
    /// Numbers that stand for each other since a `Chosen` field held them.
    Bound,
    /// Keys that end with numbers as in `Chosen`, in hexadecimal after a slash.
    ChosenInKey,
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
    "v3lockpb.LockResponse" "key" How::ChosenInKey, "ends with a lease's id, chosen by the server";
    "v3electionpb.LeaderKey" "key" How::ChosenInKey, "ends with a lease's id, chosen by the server";
    "v3electionpb.LeaderKey" "lease" How::Bound, "chosen by the server";
    "etcdserverpb.LeaseTimeToLiveResponse" "TTL" How::Within(1),
        "whole seconds that remain, counted at two moments";
    "etcdserverpb.LeaseLeasesResponse" "leases" How::UnorderedOnFollowers,
        "a follower of etcd's keeps no clocks, and orders them as they come out of a Go map";
    "etcdserverpb.LeaseTimeToLiveResponse" "keys" How::Unordered,
        "etcd takes them out of a Go map, whose order is random";
};

/// Fields of HTTP that only one of the two may send, or with another value, each with its reason.
pub const ALLOWED_FIELDS: &[(&str, &str)] = &[
    ("date", "the two answers are given at two moments"),
    (
        "grpc-encoding",
        "how an answer is packed is the server's own choice; ringd packs none, and contents are \
         compared unpacked",
    ),
];

/// RPCs whose answer begins with its head although nothing follows, so that an error stands behind
/// it and not in it: ringd tells a watcher at once that its stream stands.
pub const HEAD_FIRST: &[&str] = &["/etcdserverpb.Watch/Watch"];

/// What says the same as its absence: grpc-go sends the text of a status that has none.
pub const EMPTY_FIELD: &str = "grpc-message: ";

/// Go's protobuf chooses between a space and a no-break space in its error texts, by a hash of the
/// binary, so that nobody relies on them; another build of etcd writes the other one.
pub const SPACE_EITHER: (char, char) = ('\u{a0}', ' ');

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
}
