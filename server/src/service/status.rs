//! The one table from what went wrong to the code and text on the wire.
//!
//! Clients match on the text, many of them instead of the code, so both are etcd's to the byte.
//! Nothing else in the server writes such a text.

use engine::answer::Rejection;
use prost::DecodeError;

use super::decode::TxnUnread;
use super::method::Method;
use super::wire::Malformed;
use crate::frontend::grpc::status::Code;
use crate::mail::Unavailable;

/// Why a request gets a status instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message is not protobuf.
    Malformed,
    /// The same, of a message in a stream, where grpc words it differently.
    MalformedInStream,
    /// A string in the message is not UTF-8.
    NotUtf8,
    /// The same, of a message in a stream.
    NotUtf8InStream,
    /// The client's version in the call's metadata is not UTF-8.
    InvalidClientApiVersion,
    /// No key was given.
    EmptyKey,
    /// A value came along with `ignore_value`.
    ValueProvided,
    /// A lease came along with `ignore_lease`.
    LeaseProvided,
    /// A transaction has more operations than allowed.
    TooManyOps,
    /// A transaction would change a key twice.
    DuplicateKey,
    /// An operation of a transaction says nothing.
    EmptyOp,
    /// An unknown sort order or target.
    InvalidSortOption,
    /// The command would be larger than a raft entry may be.
    RequestTooLarge,
    /// A streamed range in another order than that of its keys.
    StreamOrder,
    /// A streamed range with bounds on revisions.
    StreamFilters,
    /// A lease would live longer than etcd's longest.
    LeaseTtlTooLarge,
    /// This member does not keep the clocks of leases.
    NotPrimary,
    /// The engine said no.
    Rejected(Rejection),
    /// The pages under the store could not be read.
    Corrupt,
    /// The RPC exists but is not served by this version.
    Unimplemented(Method),
    /// The health service knows nothing of that name.
    UnknownHealthService,
    /// The command's fate is unknown: it may or may not have been committed.
    TimedOut,
    /// As above; the leader was lost meanwhile.
    TimedOutLeaderFailed,
    /// As above; the connection to the leader, or the leader's to its followers, was lost.
    TimedOutConnectionLost,
    /// The member knows no leader.
    NoLeader,
    /// The leader changed under the request.
    LeaderChanged,
    /// This member is going down.
    Stopped,
    /// What the cluster is, or this member in it, does not bear it.
    Cluster(ClusterRefusal),
    /// The version a downgrade asks for is none.
    WrongDowngradeVersion,
    /// The request's action has no meaning.
    UnknownAction,
    /// Nobody is asked who they are.
    AuthNotEnabled,
    /// Too much was committed and not yet applied, or too much is waiting to be admitted.
    TooManyRequests,
    /// A backup's client takes so little that the store is not held still for it any longer.
    BackupStalled,
}

/// Why the cluster, or this member's place in it, does not bear a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterRefusal {
    /// The member that was asked does not lead.
    NotLeader,
    /// Leadership cannot move to that member.
    BadLeaderTransferee,
    /// Leadership has not moved in time.
    TransferTimedOut,
    /// Too few members of the cluster that a change would leave have started.
    NotEnoughStarted,
    /// Too few members are connected to the leader.
    Unhealthy,
    /// A learner is too far behind to vote.
    LearnerNotReady,
    /// This member only learns, and answers little.
    NotSupportedForLearner,
    /// A peer URL that is none.
    BadMemberUrls,
}

impl From<Unavailable> for Refusal {
    fn from(reason: Unavailable) -> Self {
        match reason {
            Unavailable::NoLeader => Self::NoLeader,
            Unavailable::LeaderChanged => Self::LeaderChanged,
            Unavailable::TimedOut => Self::TimedOut,
            Unavailable::Stopped => Self::Stopped,
            Unavailable::TooManyRequests => Self::TooManyRequests,
            Unavailable::NoSpace => Self::Rejected(Rejection::NoSpace),
            Unavailable::NotEnoughStarted => Self::Cluster(ClusterRefusal::NotEnoughStarted),
            Unavailable::Unhealthy => Self::Cluster(ClusterRefusal::Unhealthy),
            Unavailable::LearnerNotReady => Self::Cluster(ClusterRefusal::LearnerNotReady),
            Unavailable::MemberNotFound => Self::Rejected(Rejection::MemberIdNotFound),
            Unavailable::NotLeader => Self::Cluster(ClusterRefusal::NotLeader),
            Unavailable::BadTransferee => Self::Cluster(ClusterRefusal::BadLeaderTransferee),
            Unavailable::TransferTimedOut => Self::Cluster(ClusterRefusal::TransferTimedOut),
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<TxnUnread> for Refusal {
    fn from(unread: TxnUnread) -> Self {
        match unread {
            TxnUnread::Malformed => Self::Malformed,
            // What etcd says unless `--max-txn-ops` is far above its default: it counts an
            // operation for each level.
            TxnUnread::TooDeep => Self::TooManyOps,
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        // The generated decoder has one type for all its errors; only the text tells this one.
        if error.to_string().contains("UTF-8") { Self::NotUtf8 } else { Self::Malformed }
    }
}

impl Refusal {
    /// grpc words it differently when a message of a stream cannot be read.
    #[must_use]
    pub const fn in_stream(self) -> Self {
        match self {
            Self::Malformed => Self::MalformedInStream,
            Self::NotUtf8 => Self::NotUtf8InStream,
            other => other,
        }
    }
}

/// The code and the text a refusal has on the wire.
pub const fn status_of(refusal: Refusal) -> (Code, &'static str) {
    use Refusal as R;
    match refusal {
        // The space is a no-break space: Go's protobuf writes one or the other, by the build, so
        // that nobody compares; etcd's release has this one and so have we.
        R::Malformed => (
            Code::Internal,
            "grpc: error unmarshalling request: proto:\u{a0}cannot parse invalid wire-format data",
        ),
        R::MalformedInStream => (
            Code::Internal,
            concat!(
                "grpc: failed to unmarshal the received message: ",
                "proto:\u{a0}cannot parse invalid wire-format data"
            ),
        ),
        R::NotUtf8InStream => (
            Code::Internal,
            "grpc: failed to unmarshal the received message: string field contains invalid UTF-8",
        ),
        R::NotUtf8 => (
            Code::Internal,
            "grpc: error unmarshalling request: string field contains invalid UTF-8",
        ),
        R::InvalidClientApiVersion => {
            (Code::InvalidArgument, "etcdserver: invalid client api version")
        }
        R::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
        R::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        R::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        R::TooManyOps => (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
        R::DuplicateKey => {
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
        }
        R::EmptyOp => (Code::InvalidArgument, "etcdserver: key not found"),
        R::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
        R::RequestTooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
        R::StreamOrder => (Code::Unimplemented, "RangeStream does not support custom sort orders"),
        R::StreamFilters => (Code::Unimplemented, "RangeStream does not support revision filters"),
        R::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        // Missing in etcd's table, too.
        R::NotPrimary => (Code::Unknown, "not a primary lessor"),
        R::Rejected(rejection) => status_of_rejection(rejection),
        R::Corrupt => status_of_rejection(Rejection::Corrupt),
        R::Cluster(refusal) => status_of_cluster(refusal),
        R::WrongDowngradeVersion => {
            (Code::InvalidArgument, "etcdserver: wrong downgrade target version format")
        }
        R::UnknownAction => (Code::Unknown, "etcdserver: unknown method"),
        R::AuthNotEnabled => {
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled")
        }
        R::Unimplemented(method) => (Code::Unimplemented, method.unimplemented_text()),
        R::UnknownHealthService => (Code::NotFound, "unknown service"),
        R::TimedOut => (Code::Unavailable, "etcdserver: request timed out"),
        R::TimedOutLeaderFailed => (
            Code::Unavailable,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        R::TimedOutConnectionLost => {
            (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost")
        }
        R::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        R::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
        R::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
        // Not ResourceExhausted: etcd forgets this one in its own table and answers Unknown.
        R::TooManyRequests => (Code::Unknown, "etcdserver: too many requests"),
        R::BackupStalled => (
            Code::ResourceExhausted,
            "ringd: the snapshot is given up, its client took less than 1 MiB in a minute",
        ),
    }
}

const fn status_of_cluster(refusal: ClusterRefusal) -> (Code, &'static str) {
    use ClusterRefusal as R;
    match refusal {
        R::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
        R::BadLeaderTransferee => (Code::FailedPrecondition, "etcdserver: bad leader transferee"),
        R::TransferTimedOut => {
            (Code::Unknown, "etcdserver: request timed out, leader transfer took too long")
        }
        // Unknown because etcd maps it to its client's error instead of its own.
        R::NotEnoughStarted => {
            (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members")
        }
        R::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
        R::LearnerNotReady => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        R::NotSupportedForLearner => {
            (Code::FailedPrecondition, "etcdserver: rpc not supported for learner")
        }
        R::BadMemberUrls => (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
    }
}

const fn status_of_rejection(rejection: Rejection) -> (Code, &'static str) {
    match rejection {
        Rejection::Compacted => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
        }
        Rejection::FutureRevision => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        Rejection::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Rejection::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Rejection::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Rejection::NoSpace => {
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        }
        Rejection::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
        Rejection::InvalidDowngradeTarget => {
            (Code::InvalidArgument, "etcdserver: invalid downgrade target version")
        }
        Rejection::DowngradeInProcess => {
            (Code::FailedPrecondition, "etcdserver: cluster has a downgrade job in progress")
        }
        Rejection::ClusterVersionUnknown => {
            (Code::FailedPrecondition, "etcdserver: cluster version not found during downgrade")
        }
        // etcd does not tell the two apart.
        Rejection::MemberIdRemoved | Rejection::MemberIdNotFound => {
            (Code::NotFound, "etcdserver: member not found")
        }
        Rejection::MemberIdExists => {
            (Code::FailedPrecondition, "etcdserver: member ID already exist")
        }
        Rejection::PeerUrlExists => {
            (Code::FailedPrecondition, "etcdserver: Peer URLs already exists")
        }
        Rejection::MemberNotLearner => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        Rejection::TooManyLearners => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
    }
}

/// What a watch that cannot be created is told; these travel in a response, not in a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchRefusal {
    /// A negative start revision.
    Compacted,
    /// The range holds no key.
    EmptyRange,
    /// The stream has a watch of that id.
    DuplicateId,
}

/// The `cancel_reason` of a watch that cannot be created.
pub const fn cancel_reason_of(refusal: WatchRefusal) -> &'static str {
    match refusal {
        WatchRefusal::Compacted => "etcdserver: mvcc: required revision has been compacted",
        WatchRefusal::EmptyRange => "mvcc: watcher range is empty",
        WatchRefusal::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_texts_are_etcds() {
        let rejected = |rejection| status_of(Refusal::Rejected(rejection));
        let table = [
            (status_of(Refusal::EmptyKey), 3, "etcdserver: key is not provided"),
            (status_of(Refusal::EmptyOp), 3, "etcdserver: key not found"),
            (status_of(Refusal::ValueProvided), 3, "etcdserver: value is provided"),
            (status_of(Refusal::LeaseProvided), 3, "etcdserver: lease is provided"),
            (status_of(Refusal::TooManyOps), 3, "etcdserver: too many operations in txn request"),
            (status_of(Refusal::DuplicateKey), 3, "etcdserver: duplicate key given in txn request"),
            (
                status_of(Refusal::InvalidClientApiVersion),
                3,
                "etcdserver: invalid client api version",
            ),
            (status_of(Refusal::InvalidSortOption), 3, "etcdserver: invalid sort option"),
            (rejected(Rejection::KeyNotFound), 3, "etcdserver: key not found"),
            (status_of(Refusal::LeaseTtlTooLarge), 11, "etcdserver: too large lease TTL"),
            (status_of(Refusal::NotPrimary), 2, "not a primary lessor"),
            (rejected(Rejection::LeaseNotFound), 5, "etcdserver: requested lease not found"),
            (rejected(Rejection::LeaseExists), 9, "etcdserver: lease already exists"),
            (rejected(Rejection::NoSpace), 8, "etcdserver: mvcc: database space exceeded"),
            (
                rejected(Rejection::Compacted),
                11,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (
                rejected(Rejection::FutureRevision),
                11,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (status_of(Refusal::RequestTooLarge), 3, "etcdserver: request is too large"),
            (status_of(Refusal::TooManyRequests), 2, "etcdserver: too many requests"),
            (status_of(Refusal::NoLeader), 14, "etcdserver: no leader"),
            (status_of(Refusal::LeaderChanged), 14, "etcdserver: leader changed"),
            (status_of(Refusal::Stopped), 14, "etcdserver: server stopped"),
            (status_of(Refusal::TimedOut), 14, "etcdserver: request timed out"),
            (
                status_of(Refusal::TimedOutLeaderFailed),
                14,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (status_of(Refusal::Corrupt), 15, "etcdserver: corrupt cluster"),
            (rejected(Rejection::Corrupt), 15, "etcdserver: corrupt cluster"),
            (
                rejected(Rejection::InvalidDowngradeTarget),
                3,
                "etcdserver: invalid downgrade target version",
            ),
            (
                rejected(Rejection::DowngradeInProcess),
                9,
                "etcdserver: cluster has a downgrade job in progress",
            ),
            (
                rejected(Rejection::ClusterVersionUnknown),
                9,
                "etcdserver: cluster version not found during downgrade",
            ),
            (rejected(Rejection::MemberIdRemoved), 5, "etcdserver: member not found"),
            (rejected(Rejection::MemberIdNotFound), 5, "etcdserver: member not found"),
            (rejected(Rejection::MemberIdExists), 9, "etcdserver: member ID already exist"),
            (rejected(Rejection::PeerUrlExists), 9, "etcdserver: Peer URLs already exists"),
            (
                rejected(Rejection::MemberNotLearner),
                9,
                "etcdserver: can only promote a learner member",
            ),
            (
                rejected(Rejection::TooManyLearners),
                9,
                "etcdserver: too many learner members in cluster",
            ),
            (
                status_of(Refusal::WrongDowngradeVersion),
                3,
                "etcdserver: wrong downgrade target version format",
            ),
            (
                status_of(Refusal::Cluster(ClusterRefusal::BadLeaderTransferee)),
                9,
                "etcdserver: bad leader transferee",
            ),
            (status_of(Refusal::Cluster(ClusterRefusal::NotLeader)), 9, "etcdserver: not leader"),
            (status_of(Refusal::UnknownAction), 2, "etcdserver: unknown method"),
            (status_of(Refusal::AuthNotEnabled), 9, "etcdserver: authentication is not enabled"),
            (status_of(Refusal::UnknownHealthService), 5, "unknown service"),
            (
                status_of(Refusal::Unimplemented(Method::AuthEnable)),
                12,
                "ringd: /etcdserverpb.Auth/AuthEnable is not served yet",
            ),
            (
                status_of(Refusal::Malformed),
                13,
                "grpc: error unmarshalling request: \
                 proto:\u{a0}cannot parse invalid wire-format data",
            ),
            (
                status_of(Refusal::Malformed.in_stream()),
                13,
                "grpc: failed to unmarshal the received message: \
                 proto:\u{a0}cannot parse invalid wire-format data",
            ),
            (
                status_of(Refusal::NotUtf8),
                13,
                "grpc: error unmarshalling request: string field contains invalid UTF-8",
            ),
        ];
        for ((code, text), number, expected) in table {
            assert_eq!((code.number(), text), (number, expected));
        }
    }

    #[test]
    fn the_generated_decoders_errors_are_told_apart() {
        use crate::service::proto::grpc::health::v1::HealthCheckRequest;
        use prost::Message;

        let refusal = |bytes: &[u8]| HealthCheckRequest::decode(bytes).map_err(Refusal::from);
        assert_eq!(refusal(b"\x0a\x02\xff\xfe"), Err(Refusal::NotUtf8));
        assert_eq!(refusal(b"\x0a\x05"), Err(Refusal::Malformed));
    }
}
