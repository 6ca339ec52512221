//! What ringd does not serve yet, told apart from what it answers wrongly.
//!
//! The tables name what may be missing; whether it is, the server says itself: it answers
//! Unimplemented in words that mean nothing else, or does not start. A case that needs something
//! missing is counted apart, neither passed nor failed, and an RPC that is served is compared
//! although it still stands here.
//!
//! Invariants:
//! - What no table names is never taken for missing: its refusal is a difference.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::client::{Status, UNIMPLEMENTED};
use super::pair::Pair;
use super::servers::{Binaries, Server, Side};

/// What ringd's refusal of a known RPC ends with; etcd has no such words.
const NOT_SERVED: &str = " is not served yet";
/// What a server's refusal of an RPC begins with that it has never heard of.
const UNKNOWN: &str = "unknown ";

/// RPCs that ringd may refuse, all of one or some requests of one.
pub const MISSING: &[&str] = &[
    "/etcdserverpb.Auth/AuthEnable",
    "/etcdserverpb.Auth/AuthDisable",
    "/etcdserverpb.Auth/AuthStatus",
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
];

/// Flags that ringd may refuse, each with a value that etcd takes.
pub const MISSING_FLAGS: &[(&str, &str)] = &[];

/// What of the tables this ringd really lacks.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    rpcs: BTreeSet<&'static str>,
    flags: BTreeSet<&'static str>,
}

impl Missing {
    /// Tries everything that may be missing on servers that nothing else is asked of: what is
    /// served after all may change their stores.
    pub fn find(binaries: &Binaries) -> Result<Self, String> {
        let pair = Pair::start(binaries, &[])?;
        let is_refused = |path: &&&str| is_not_served(&pair.call_ringd(path, Bytes::new()).status);
        let rpcs = MISSING.iter().filter(is_refused).copied().collect();
        drop(pair);
        let is_unknown = |(flag, value): &&(&str, &str)| {
            Server::start(binaries, Side::Ringd, &[flag, value]).is_err()
        };
        let flags = MISSING_FLAGS.iter().filter(is_unknown).map(|(flag, _)| *flag).collect();
        Ok(Self { rpcs, flags })
    }

    /// The RPC at a path as the table writes it, if ringd lacks it.
    pub fn rpc(&self, path: &str) -> Option<&'static str> {
        self.rpcs.get(path).copied()
    }

    /// The first of some arguments that is a flag ringd lacks.
    pub fn flag(&self, args: &[&str]) -> Option<&'static str> {
        self.flags.iter().find(|flag| args.iter().any(|arg| arg == *flag)).copied()
    }

    /// What of the tables is served wholly or in part, for whoever keeps them.
    pub fn served(&self) -> Vec<&'static str> {
        let rpcs = MISSING.iter().filter(|path| !self.rpcs.contains(*path));
        let flags = MISSING_FLAGS.iter().map(|(flag, _)| flag);
        rpcs.chain(flags.filter(|flag| !self.flags.contains(*flag))).copied().collect()
    }
}

/// Whether a request was refused because nothing serves it yet.
pub fn is_not_served(status: &Status) -> bool {
    status.code == UNIMPLEMENTED
        && (status.text.ends_with(NOT_SERVED) || status.text.starts_with(UNKNOWN))
}

/// The RPC whose refusal with this status counts as missing, if it is one that may be.
pub fn refused(path: &str, status: &Status) -> Option<&'static str> {
    MISSING.iter().find(|missing| **missing == path && is_not_served(status)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::wire;

    #[test]
    fn every_missing_rpc_exists_and_stands_once() {
        for (index, path) in MISSING.iter().enumerate() {
            assert!(wire::method(path).is_some(), "{path}");
            assert!(!MISSING[..index].contains(path), "{path}");
        }
    }

    #[test]
    fn only_the_refusal_of_a_named_rpc_as_such_is_missing() {
        let status = |code, text: &str| Status { code, text: text.to_owned() };
        let named = "/etcdserverpb.Auth/UserAdd";
        let ours = status(UNIMPLEMENTED, "ringd: something is not served yet");
        assert_eq!(refused(named, &ours), Some(named));
        assert_eq!(refused("/etcdserverpb.KV/Put", &ours), None);
        let unknown = status(UNIMPLEMENTED, "unknown method UserAdd");
        assert_eq!(refused(named, &unknown), Some(named));
        let refused_for_a_reason = status(UNIMPLEMENTED, "UserAdd does not support this");
        assert_eq!(refused(named, &refused_for_a_reason), None);
        assert_eq!(refused(named, &status(2, "ringd: something is not served yet")), None);
    }
}
