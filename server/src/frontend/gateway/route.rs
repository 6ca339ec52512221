//! Which path is which.
//!
//! Two tables, as in etcd: one of the server's own pages, and behind `/v3/` one of the RPCs.

use super::json::MessageId;
use super::json::schema::messages_of;

/// Who sends how many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One each way.
    Unary,
    /// One request, many answers.
    ServerStream,
    /// Many each way.
    BothStream,
}

/// An RPC behind a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// Who sends how many messages.
    pub shape: Shape,
    /// The type of the requests.
    pub request: MessageId,
    /// The type of the answers.
    pub answer: MessageId,
}

/// A page of the server's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/version`
    Version,
    /// `/health`
    Health,
    /// `/livez` and what is behind it.
    Livez(Option<Check>),
    /// `/readyz` and what is behind it.
    Readyz(Option<Check>),
    /// `/metrics`
    Metrics,
    /// `/debug/vars`
    Vars,
}

/// One thing that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The alarm about a damaged store.
    DataCorruption,
    /// A read of this member.
    SerializableRead,
    /// A read of the cluster.
    LinearizableRead,
    /// Whether this member has a vote.
    NonLearner,
}

impl Check {
    /// Its name in paths and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

/// What `/livez` checks.
pub const LIVEZ: &[Check] = &[Check::SerializableRead];
/// What `/readyz` checks. etcd has them in a random order.
pub const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

const RPCS: &[(&str, &str, Shape)] = &[
    ("kv/range", "/etcdserverpb.KV/Range", Shape::Unary),
    ("kv/put", "/etcdserverpb.KV/Put", Shape::Unary),
    ("kv/deleterange", "/etcdserverpb.KV/DeleteRange", Shape::Unary),
    ("kv/txn", "/etcdserverpb.KV/Txn", Shape::Unary),
    ("kv/compaction", "/etcdserverpb.KV/Compact", Shape::Unary),
    ("watch", "/etcdserverpb.Watch/Watch", Shape::BothStream),
    ("lease/grant", "/etcdserverpb.Lease/LeaseGrant", Shape::Unary),
    ("lease/revoke", "/etcdserverpb.Lease/LeaseRevoke", Shape::Unary),
    ("kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke", Shape::Unary),
    ("lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive", Shape::BothStream),
    ("lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive", Shape::Unary),
    ("kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive", Shape::Unary),
    ("lease/leases", "/etcdserverpb.Lease/LeaseLeases", Shape::Unary),
    ("kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases", Shape::Unary),
    ("cluster/member/add", "/etcdserverpb.Cluster/MemberAdd", Shape::Unary),
    ("cluster/member/remove", "/etcdserverpb.Cluster/MemberRemove", Shape::Unary),
    ("cluster/member/update", "/etcdserverpb.Cluster/MemberUpdate", Shape::Unary),
    ("cluster/member/list", "/etcdserverpb.Cluster/MemberList", Shape::Unary),
    ("cluster/member/promote", "/etcdserverpb.Cluster/MemberPromote", Shape::Unary),
    ("maintenance/alarm", "/etcdserverpb.Maintenance/Alarm", Shape::Unary),
    ("maintenance/status", "/etcdserverpb.Maintenance/Status", Shape::Unary),
    ("maintenance/defragment", "/etcdserverpb.Maintenance/Defragment", Shape::Unary),
    ("maintenance/hash", "/etcdserverpb.Maintenance/Hash", Shape::Unary),
    ("maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV", Shape::Unary),
    ("maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot", Shape::ServerStream),
    ("maintenance/transfer-leadership", "/etcdserverpb.Maintenance/MoveLeader", Shape::Unary),
    ("maintenance/downgrade", "/etcdserverpb.Maintenance/Downgrade", Shape::Unary),
    ("auth/enable", "/etcdserverpb.Auth/AuthEnable", Shape::Unary),
    ("auth/disable", "/etcdserverpb.Auth/AuthDisable", Shape::Unary),
    ("auth/status", "/etcdserverpb.Auth/AuthStatus", Shape::Unary),
    ("auth/authenticate", "/etcdserverpb.Auth/Authenticate", Shape::Unary),
    ("auth/user/add", "/etcdserverpb.Auth/UserAdd", Shape::Unary),
    ("auth/user/get", "/etcdserverpb.Auth/UserGet", Shape::Unary),
    ("auth/user/list", "/etcdserverpb.Auth/UserList", Shape::Unary),
    ("auth/user/delete", "/etcdserverpb.Auth/UserDelete", Shape::Unary),
    ("auth/user/changepw", "/etcdserverpb.Auth/UserChangePassword", Shape::Unary),
    ("auth/user/grant", "/etcdserverpb.Auth/UserGrantRole", Shape::Unary),
    ("auth/user/revoke", "/etcdserverpb.Auth/UserRevokeRole", Shape::Unary),
    ("auth/role/add", "/etcdserverpb.Auth/RoleAdd", Shape::Unary),
    ("auth/role/get", "/etcdserverpb.Auth/RoleGet", Shape::Unary),
    ("auth/role/list", "/etcdserverpb.Auth/RoleList", Shape::Unary),
    ("auth/role/delete", "/etcdserverpb.Auth/RoleDelete", Shape::Unary),
    ("auth/role/grant", "/etcdserverpb.Auth/RoleGrantPermission", Shape::Unary),
    ("auth/role/revoke", "/etcdserverpb.Auth/RoleRevokePermission", Shape::Unary),
    ("lock/lock", "/v3lockpb.Lock/Lock", Shape::Unary),
    ("lock/unlock", "/v3lockpb.Lock/Unlock", Shape::Unary),
    ("election/campaign", "/v3electionpb.Election/Campaign", Shape::Unary),
    ("election/proclaim", "/v3electionpb.Election/Proclaim", Shape::Unary),
    ("election/leader", "/v3electionpb.Election/Leader", Shape::Unary),
    ("election/observe", "/v3electionpb.Election/Observe", Shape::ServerStream),
    ("election/resign", "/v3electionpb.Election/Resign", Shape::Unary),
];

/// The RPC behind a path that was cut behind `/v3/`. An RPC that this version's .proto files do
/// not have is behind none.
#[must_use]
pub fn find_rpc(path: &[u8]) -> Option<Rpc> {
    let (_, rpc, shape) = RPCS.iter().find(|(known, ..)| known.as_bytes() == path)?;
    let (request, answer) = messages_of(rpc)?;
    Some(Rpc { path: rpc, shape: *shape, request, answer })
}

/// The page behind a path.
#[must_use]
pub fn find_page(path: &[u8]) -> Option<Page> {
    Some(match path {
        b"/version" => Page::Version,
        b"/health" => Page::Health,
        b"/livez" => Page::Livez(None),
        b"/readyz" => Page::Readyz(None),
        b"/metrics" => Page::Metrics,
        b"/debug/vars" => Page::Vars,
        _ => {
            let text = str::from_utf8(path).ok()?;
            let (kind, name) = text.strip_prefix('/')?.split_once('/')?;
            let find = |checks: &[Check]| checks.iter().copied().find(|check| check.name() == name);
            match kind {
                "livez" => Page::Livez(Some(find(LIVEZ)?)),
                "readyz" => Page::Readyz(Some(find(READYZ)?)),
                _ => return None,
            }
        }
    })
}

/// The path as it would be written without detours, as Go's router has it; a client that asks for
/// another is sent there.
#[must_use]
pub fn cleaned(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let mut clean = vec![b'/'];
    clean.extend_from_slice(&parts.join(&b'/'));
    if path.ends_with(b"/") && clean.len() > 1 {
        clean.push(b'/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_of_the_table_has_a_path_of_its_own() {
        for (place, (path, ..)) in RPCS.iter().enumerate() {
            assert!(!RPCS[..place].iter().any(|(other, ..)| other == path), "{path} twice");
        }
        assert_eq!(find_rpc(b"kv/range").map(|rpc| rpc.path), Some("/etcdserverpb.KV/Range"));
        for path in [&b"kv"[..], b"kv/range/", b"", b"kv/rangestream", b"KV/range"] {
            assert_eq!(find_rpc(path), None);
        }
    }

    #[test]
    fn pages_are_found_and_detours_shortened() {
        assert_eq!(find_page(b"/readyz/non_learner"), Some(Page::Readyz(Some(Check::NonLearner))));
        assert_eq!(find_page(b"/livez/non_learner"), None);
        assert_eq!(find_page(b"/"), None);
        let cases = [
            ("/", "/"),
            ("", "/"),
            ("//health", "/health"),
            ("/a/../health/.", "/health"),
            ("/../x/", "/x/"),
        ];
        for (path, expected) in cases {
            assert_eq!(cleaned(path.as_bytes()), expected.as_bytes());
        }
    }
}
