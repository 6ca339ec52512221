//! Every RPC the server knows by name.
//!
//! The front-end finds a method by its path once a call and hands out its index from then on; the
//! rest of the server matches on the enum. The table is written by hand and tested against the
//! .proto files, so that a forgotten RPC is a failing test and not an "unknown method".

macro_rules! methods {
    ($($name:ident $path:literal $client_streams:literal $server_streams:literal),+ $(,)?) => {
        /// One RPC of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are the wire's")]
        pub enum Method {
            $($name),+
        }

        impl Method {
            /// All methods; a method's index here is its `index()`.
            pub const ALL: &[Self] = &[$(Self::$name),+];
            /// The `:path` of each method, by index.
            pub const PATHS: &[&str] = &[$($path),+];

            /// What stands in the `:path` header of a call.
            pub const fn path(self) -> &'static str {
                match self { $(Self::$name => $path),+ }
            }

            /// What a call is told while this version does not serve the method.
            pub const fn unimplemented_text(self) -> &'static str {
                match self { $(Self::$name => concat!("ringd: ", $path, " is not served yet")),+ }
            }

            /// The client may send more than one message.
            pub const fn client_streams(self) -> bool {
                match self { $(Self::$name => $client_streams),+ }
            }

            /// The server may send more than one message.
            pub const fn server_streams(self) -> bool {
                match self { $(Self::$name => $server_streams),+ }
            }
        }
    };
}

methods! {
    Range "/etcdserverpb.KV/Range" false false,
    RangeStream "/etcdserverpb.KV/RangeStream" false true,
    Put "/etcdserverpb.KV/Put" false false,
    DeleteRange "/etcdserverpb.KV/DeleteRange" false false,
    Txn "/etcdserverpb.KV/Txn" false false,
    Compact "/etcdserverpb.KV/Compact" false false,
    Watch "/etcdserverpb.Watch/Watch" true true,
    LeaseGrant "/etcdserverpb.Lease/LeaseGrant" false false,
    LeaseRevoke "/etcdserverpb.Lease/LeaseRevoke" false false,
    LeaseKeepAlive "/etcdserverpb.Lease/LeaseKeepAlive" true true,
    LeaseTimeToLive "/etcdserverpb.Lease/LeaseTimeToLive" false false,
    LeaseLeases "/etcdserverpb.Lease/LeaseLeases" false false,
    MemberAdd "/etcdserverpb.Cluster/MemberAdd" false false,
    MemberRemove "/etcdserverpb.Cluster/MemberRemove" false false,
    MemberUpdate "/etcdserverpb.Cluster/MemberUpdate" false false,
    MemberList "/etcdserverpb.Cluster/MemberList" false false,
    MemberPromote "/etcdserverpb.Cluster/MemberPromote" false false,
    Alarm "/etcdserverpb.Maintenance/Alarm" false false,
    Status "/etcdserverpb.Maintenance/Status" false false,
    Defragment "/etcdserverpb.Maintenance/Defragment" false false,
    Hash "/etcdserverpb.Maintenance/Hash" false false,
    HashKv "/etcdserverpb.Maintenance/HashKV" false false,
    Snapshot "/etcdserverpb.Maintenance/Snapshot" false true,
    MoveLeader "/etcdserverpb.Maintenance/MoveLeader" false false,
    Downgrade "/etcdserverpb.Maintenance/Downgrade" false false,
    AuthEnable "/etcdserverpb.Auth/AuthEnable" false false,
    AuthDisable "/etcdserverpb.Auth/AuthDisable" false false,
    AuthStatus "/etcdserverpb.Auth/AuthStatus" false false,
    Authenticate "/etcdserverpb.Auth/Authenticate" false false,
    UserAdd "/etcdserverpb.Auth/UserAdd" false false,
    UserGet "/etcdserverpb.Auth/UserGet" false false,
    UserList "/etcdserverpb.Auth/UserList" false false,
    UserDelete "/etcdserverpb.Auth/UserDelete" false false,
    UserChangePassword "/etcdserverpb.Auth/UserChangePassword" false false,
    UserGrantRole "/etcdserverpb.Auth/UserGrantRole" false false,
    UserRevokeRole "/etcdserverpb.Auth/UserRevokeRole" false false,
    RoleAdd "/etcdserverpb.Auth/RoleAdd" false false,
    RoleGet "/etcdserverpb.Auth/RoleGet" false false,
    RoleList "/etcdserverpb.Auth/RoleList" false false,
    RoleDelete "/etcdserverpb.Auth/RoleDelete" false false,
    RoleGrantPermission "/etcdserverpb.Auth/RoleGrantPermission" false false,
    RoleRevokePermission "/etcdserverpb.Auth/RoleRevokePermission" false false,
    Lock "/v3lockpb.Lock/Lock" false false,
    Unlock "/v3lockpb.Lock/Unlock" false false,
    Campaign "/v3electionpb.Election/Campaign" false false,
    Proclaim "/v3electionpb.Election/Proclaim" false false,
    Leader "/v3electionpb.Election/Leader" false false,
    Observe "/v3electionpb.Election/Observe" false true,
    Resign "/v3electionpb.Election/Resign" false false,
    HealthCheck "/grpc.health.v1.Health/Check" false false,
    HealthList "/grpc.health.v1.Health/List" false false,
    HealthWatch "/grpc.health.v1.Health/Watch" false true,
}

impl Method {
    /// The method's place in [`Method::ALL`] and [`Method::PATHS`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The method at a place in the table.
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    const RPCS: &[(&str, bool, bool)] = &include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));

    #[test]
    fn the_table_is_what_the_proto_files_say() {
        let mut ours: Vec<_> = Method::ALL
            .iter()
            .map(|method| (method.path(), method.client_streams(), method.server_streams()))
            .collect();
        let mut theirs = RPCS.to_vec();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn an_index_leads_back_to_its_method() {
        for (index, method) in Method::ALL.iter().enumerate() {
            assert_eq!(method.index(), index);
            assert_eq!(Method::from_index(index), Some(*method));
            assert_eq!(Method::PATHS[index], method.path());
        }
        assert_eq!(Method::from_index(Method::ALL.len()), None);
    }
}
