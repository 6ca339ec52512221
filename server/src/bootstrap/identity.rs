//! Ids from flags, as etcd derives them, and the checks of the flags that go with it.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;

use engine::{ClusterId, Identity, MemberId};
use sha1::{Digest, Sha1};

use super::Failure;
use crate::config::{ClusterState, Config, Url, parse_urls, texts};

/// The id of a founding member: its peer URLs in order, then the cluster's token, hashed.
pub fn member_id(peer_urls: &[Url], token: &str) -> MemberId {
    debug_assert!(peer_urls.is_sorted_by(|a, b| a.as_str() <= b.as_str()));
    let mut hash = Sha1::new();
    for url in peer_urls {
        hash.update(url.as_str());
    }
    hash.update(token);
    MemberId(first_word(hash))
}

/// The id of a cluster: the ids of its founding members in order, hashed.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut sorted: Vec<u64> = members.iter().map(|member| member.get()).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for member in sorted {
        hash.update(member.to_be_bytes());
    }
    ClusterId(first_word(hash))
}

fn first_word(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let (word, _) = digest.split_first_chunk::<8>().expect("a SHA-1 has twenty bytes");
    u64::from_be_bytes(*word)
}

/// Who a member without data is, and whether its flags agree on it.
pub fn initial_identity(config: &Config) -> Result<Identity, Failure> {
    let fail = |reason: String| Err(Failure::InitialCluster(reason));
    let members = parse_members(&config.initial_cluster).map_err(|reason| {
        Failure::InitialCluster(format!("error setting up initial cluster: {reason}"))
    })?;
    let name = &config.name;
    let Some(own) = members.get(name) else {
        return fail(format!(
            "couldn't find local name {name:?} in the initial cluster configuration"
        ));
    };
    if config.initial_cluster_state == ClusterState::Existing {
        let reason = "ringd cannot join a cluster yet; a single member needs";
        return fail(format!("{reason} --initial-cluster-state new"));
    }
    check_advertised(name, own, &config.initial_advertise_peer_urls)?;
    let mut seen: Vec<&str> = members.values().flatten().map(Url::as_str).collect();
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() < count {
        return fail(format!("initial cluster {} has duplicate url", members_text(&members)));
    }
    if members.len() > 1 {
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        let names = names.join(", ");
        return fail(format!(
            "ringd serves clusters of one member for now, and --initial-cluster names {names}"
        ));
    }
    let member = member_id(own, &config.initial_cluster_token);
    Ok(Identity { cluster: cluster_id(&[member]), member })
}

/// `name=url,name=url,...`; a name may come several times, with one URL each time.
fn parse_members(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut lists: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        lists.entry(name.to_owned()).or_default().push(url);
    }
    let mut members = BTreeMap::new();
    for (name, urls) in lists {
        let urls = parse_urls(&urls.join(",")).map_err(|error| error.to_string())?;
        members.insert(name, urls);
    }
    Ok(members)
}

fn members_text(members: &BTreeMap<String, Vec<Url>>) -> String {
    let of_member = |(name, urls): (&String, &Vec<Url>)| {
        urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    members.iter().flat_map(of_member).collect::<Vec<_>>().join(",")
}

/// Both lists of this member's peer URLs must lead to the same places.
fn check_advertised(name: &str, in_cluster: &[Url], advertised: &[Url]) -> Result<(), Failure> {
    let (in_cluster, advertised) = (texts(in_cluster), texts(advertised));
    if in_cluster == advertised {
        return Ok(());
    }
    let difference = if in_cluster.len() == advertised.len() {
        let resolve = |list: &[String]| {
            let mut places: Vec<String> = list.iter().map(|url| resolved(url)).collect();
            places.sort_unstable();
            places
        };
        let (left, right) = (resolve(&advertised), resolve(&in_cluster));
        let Some((a, b)) = left.iter().zip(&right).find(|(a, b)| a != b) else { return Ok(()) };
        format!("resolved urls: {a:?} != {b:?}")
    } else {
        let list = |urls: &[String]| {
            urls.iter().map(|url| format!("{url:?}")).collect::<Vec<_>>().join(" ")
        };
        format!("len([{}]) != len([{}])", list(&advertised), list(&in_cluster))
    };
    let without = |list: &[String], other: &[String]| {
        let missing = list.iter().filter(|url| !other.contains(url));
        missing.map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
    };
    let missing = without(&in_cluster, &advertised);
    Err(Failure::InitialCluster(if missing.is_empty() {
        let urls = advertised.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>();
        let extra = advertised.iter().filter(|url| !in_cluster.contains(url));
        let extra = extra.cloned().collect::<Vec<_>>().join(",");
        let urls = urls.join(",");
        format!(
            "--initial-advertise-peer-urls has {extra} but missing from --initial-cluster={urls}"
        )
    } else {
        let advertised = advertised.join(",");
        format!(
            "--initial-cluster has {missing} but missing from \
             --initial-advertise-peer-urls={advertised} ({difference})"
        )
    }))
}

/// A URL with its host's address in the place of its name.
///
/// A name that does not resolve stands for itself: then the texts decide. etcd asks again for half
/// a minute; a single member that cannot resolve its own name has no one to wait for.
fn resolved(url: &str) -> String {
    let Some((scheme, authority)) = url.split_once("://") else { return url.to_owned() };
    if authority.starts_with("localhost:") {
        return url.to_owned();
    }
    let Ok(mut addresses) = authority.to_socket_addrs() else { return url.to_owned() };
    match addresses.next() {
        Some(address) => format!("{scheme}://{address}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Outcome, Surroundings, parse};

    fn identity(arguments: &[&str]) -> Result<Identity, String> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        match parse(&arguments, &Surroundings::NONE, &mut Vec::new()).unwrap() {
            Outcome::Run(config) => initial_identity(&config).map_err(|error| error.to_string()),
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
    fn ids_of_a_cluster_of_three_are_those_etcd_gives() {
        let mut members = Vec::new();
        for (url, expected) in [
            ("http://127.0.0.1:12380", 0x8211_f1d0_f64f_3269),
            ("http://127.0.0.1:22380", 0x91bc_3c39_8fb3_c146),
            ("http://127.0.0.1:32380", 0xfd42_2379_fda5_0e48),
        ] {
            let member = member_id(&parse_urls(url).unwrap(), "etcd-cluster-1");
            assert_eq!(member.get(), expected, "{url}");
            members.push(member);
        }
        members.reverse();
        assert_eq!(cluster_id(&members).get(), 0xef37_ad9d_c622_a7c4);

        let first = member_id(&parse_urls("http://127.0.0.1:29380").unwrap(), "etcd-cluster");
        let second = member_id(&parse_urls("http://127.0.0.1:29382").unwrap(), "etcd-cluster");
        assert_eq!(cluster_id(&[second, first]).get(), 0xfde9_bf5d_9a39_603e);
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

    #[test]
    fn clusters_are_refused_until_they_are_there() {
        let two = "--initial-cluster=default=http://localhost:2380,n2=http://localhost:2390";
        let text = identity(&[two]).unwrap_err();
        assert!(text.ends_with("--initial-cluster names default, n2"), "{text}");
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
