//! Who a member and its cluster are, as flags have it: what a backup is restored to.

use std::net::{SocketAddr, ToSocketAddrs};

use engine::Identity;

use super::Failure;
use super::addresses::Resolve;
use super::cluster::{InitialCluster, InitialMember, cluster_id};
use crate::config::{ClusterState, Config};

/// Who the member is that a restored backup makes, and who founds the cluster with it, in the order
/// of their ids. Each of them is to be restored from the same backup.
///
/// # Errors
/// The flags do not agree.
pub fn initial_members(config: &Config) -> Result<(Identity, Vec<InitialMember>), Failure> {
    let fail = |reason: String| Err(Failure::InitialCluster(reason));
    let cluster = parse_initial_cluster(&config.initial_cluster)?;
    let name = &config.name;
    if config.initial_cluster_state == ClusterState::Existing {
        cluster.check_joining(name, false).map_err(Failure::InitialCluster)?;
        let reason = "what is imported founds a cluster and joins none: it needs";
        return fail(format!("{reason} --initial-cluster-state new"));
    }
    cluster
        .check_founding(name, &config.initial_advertise_peer_urls, &mut SystemResolver)
        .map_err(Failure::InitialCluster)?;
    let members =
        cluster.members(&config.initial_cluster_token).map_err(Failure::InitialCluster)?;
    let ids: Vec<_> = members.iter().map(|member| member.id).collect();
    let own = members.iter().find(|member| member.name == *name);
    let member = own.expect("the check above found it").id;
    Ok((Identity { cluster: cluster_id(&ids), member }, members))
}

/// The members that flags name.
///
/// # Errors
/// etcd's text for a URL that is none.
pub fn parse_initial_cluster(text: &str) -> Result<InitialCluster, Failure> {
    InitialCluster::parse(text).map_err(|reason| {
        Failure::InitialCluster(format!("error setting up initial cluster: {reason}"))
    })
}

/// The machine's own resolver, asked once. etcd asks again for half a minute.
#[derive(Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&mut self, authority: &str) -> Result<SocketAddr, String> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        match authority.to_socket_addrs().map(|mut addresses| addresses.next()) {
            Ok(Some(address)) => Ok(address),
            // The system's own words differ from one C library to the next.
            Ok(None) | Err(_) => Err(format!("lookup {host}: no such host")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Outcome, Surroundings, parse};

    fn identity(arguments: &[&str]) -> Result<Identity, String> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        match parse(&arguments, &Surroundings::NONE, &mut Vec::new()).unwrap() {
            Outcome::Run(config) => {
                let found = initial_members(&config).map_err(|error| error.to_string());
                found.map(|(identity, _)| identity)
            }
            other => panic!("{arguments:?} came to {other:?}"),
        }
    }

    fn ids(arguments: &[&str]) -> (u64, u64) {
        let identity = identity(arguments).unwrap();
        (identity.member.get(), identity.cluster.get())
    }

    #[test]
    fn ids_are_those_etcd_gives() {
        // Taken from the log of etcd 3.7.1 started with the same flags.
        const PEERS: &str = "--initial-advertise-peer-urls";
        for (arguments, expected) in [
            (&[][..], (0x8e9e_05c5_2164_694d, 0xcdf8_1819_4e3a_8c32)),
            (&["--name=other"], (0x8e9e_05c5_2164_694d, 0xcdf8_1819_4e3a_8c32)),
            (&["--initial-cluster-token="], (0x3780_7cb0_bf75_00f6, 0x2c83_3ae9_c755_5b5e)),
            (
                &["--name=n1", PEERS, "http://127.0.0.1:29380"],
                (0x151a_a8a8_d37c_3e01, 0xac5a_a2af_9d61_fc5a),
            ),
            (
                &["--name=n1", PEERS, "http://127.0.0.1:29381,http://127.0.0.1:29380"],
                (0xdcc3_9a6b_fb88_8e75, 0x5a20_c91e_d75b_e66a),
            ),
            (
                &[
                    "--name=n1",
                    PEERS,
                    "http://127.0.0.1:29380,http://127.0.0.1:29390",
                    "--initial-cluster=n1=http://127.0.0.1:29390,n1=http://127.0.0.1:29380",
                ],
                (0xcbff_ce79_e616_8451, 0x7cdd_1ca0_910f_8066),
            ),
            (
                &["--name=n1", PEERS, "https://localhost:2380"],
                (0xa70d_4343_1263_ebb5, 0x888e_081e_8766_f4c2),
            ),
            (
                &["--name=n1", PEERS, "http://127.0.0.1:23800", "--initial-cluster-token=tok1"],
                (0x628e_d94a_d692_e8a1, 0xddcd_f4f4_fbba_999b),
            ),
        ] {
            assert_eq!(ids(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn flags_that_disagree_get_etcds_texts() {
        const PEERS: &str = "--initial-advertise-peer-urls=http://127.0.0.1:29380";
        for (arguments, expected) in [
            (
                &["--initial-cluster=default=http://localhost:2381"][..],
                "--initial-cluster has default=http://localhost:2381 but missing from \
                 --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \
                 \"http://localhost:2380\" != \"http://localhost:2381\")",
            ),
            (
                &[PEERS],
                "--initial-cluster has default=http://localhost:2380 but missing from \
                 --initial-advertise-peer-urls=http://127.0.0.1:29380 (resolved urls: \
                 \"http://127.0.0.1:29380\" != \"http://localhost:2380\")",
            ),
            (
                &["--name=n1", PEERS, "--initial-cluster=n1=http://127.0.0.1:29380,n1=http://b:1"],
                "--initial-cluster has n1=http://b:1 but missing from \
                 --initial-advertise-peer-urls=http://127.0.0.1:29380 \
                 (len([\"http://127.0.0.1:29380\"]) != \
                 len([\"http://127.0.0.1:29380\" \"http://b:1\"]))",
            ),
            (
                &["--initial-cluster=bogus"],
                "error setting up initial cluster: URL scheme must be http, https, unix, or \
                 unixs: ",
            ),
            (
                &["--initial-cluster=default=http://localhost"],
                "error setting up initial cluster: URL address does not have the form \
                 \"host:port\": http://localhost",
            ),
            (
                &["--initial-cluster="],
                "couldn't find local name \"default\" in the initial cluster configuration",
            ),
            (
                &["--name=foo", "--initial-cluster=bar=http://localhost:2380"],
                "couldn't find local name \"foo\" in the initial cluster configuration",
            ),
            (
                &[
                    "--name=n1",
                    PEERS,
                    "--initial-cluster=n1=http://127.0.0.1:29380,n2=http://127.0.0.1:29380",
                ],
                "initial cluster n1=http://127.0.0.1:29380,n2=http://127.0.0.1:29380 has \
                 duplicate url",
            ),
        ] {
            assert_eq!(identity(arguments).unwrap_err(), expected, "{arguments:?}");
        }
    }

    /// The ids are those that etcdutl gave the members.
    #[test]
    fn a_backup_is_restored_to_each_member_of_a_cluster() {
        let cluster = "--initial-cluster=infra1=http://127.0.0.1:12380,\
                       infra2=http://127.0.0.1:22380,infra3=http://127.0.0.1:32380";
        let token = "--initial-cluster-token=etcd-cluster-1";
        for (name, port, id) in [
            ("infra1", 12380, 0x8211_f1d0_f64f_3269),
            ("infra2", 22380, 0x91bc_3c39_8fb3_c146),
            ("infra3", 32380, 0xfd42_2379_fda5_0e48),
        ] {
            let peers = format!("--initial-advertise-peer-urls=http://127.0.0.1:{port}");
            let name = format!("--name={name}");
            assert_eq!(ids(&[&name, &peers, cluster, token]).0, id);
        }
    }

    #[test]
    fn a_restored_member_joins_nobody() {
        let text = identity(&["--initial-cluster-state=existing"]).unwrap_err();
        assert!(text.contains("--initial-cluster-state new"), "{text}");
    }

    #[test]
    fn advertised_names_may_resolve_to_the_same_place() {
        // An address resolves to itself in every spelling, without asking anybody.
        let cluster = "--initial-cluster=n1=http://[0:0:0:0:0:0:0:1]:1";
        let peers = "--initial-advertise-peer-urls=http://[::1]:1";
        assert!(identity(&["--name=n1", cluster, peers]).is_ok());
    }
}
