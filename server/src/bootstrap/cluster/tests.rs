//! Ids and checks of clusters, held against what etcd says.

use super::super::addresses::Known;
use super::founded::{FOUNDED, Founded};
use super::*;

fn urls(text: &str) -> Vec<Url> {
    parse_urls(text).unwrap()
}

fn parse(text: &str) -> InitialCluster {
    InitialCluster::parse(text).unwrap()
}

fn nobody() -> Known {
    Known(Vec::new())
}

#[test]
fn ids_of_a_cluster_of_three_are_those_etcd_gives() {
    let text = "infra1=http://127.0.0.1:12380,infra2=http://127.0.0.1:22380,\
                infra3=http://127.0.0.1:32380";
    let members = parse(text).members("etcd-cluster-1").unwrap();
    let found: Vec<(&str, u64)> =
        members.iter().map(|member| (member.name.as_str(), member.id.get())).collect();
    let expected = [
        ("infra1", 0x8211_f1d0_f64f_3269),
        ("infra2", 0x91bc_3c39_8fb3_c146),
        ("infra3", 0xfd42_2379_fda5_0e48),
    ];
    assert_eq!(found, expected);
    let mut ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    ids.reverse();
    assert_eq!(cluster_id(&ids).get(), 0xef37_ad9d_c622_a7c4);

    let first = member_id(&urls("http://127.0.0.1:29380"), "etcd-cluster");
    let second = member_id(&urls("http://127.0.0.1:29382"), "etcd-cluster");
    assert_eq!(cluster_id(&[second, first]).get(), 0xfde9_bf5d_9a39_603e);
}

#[test]
fn ids_are_those_that_etcd_gave() {
    for Founded { token, members, cluster, ids } in FOUNDED {
        let found = parse(&members.join(",")).members(token).unwrap();
        let found: Vec<MemberId> = found.iter().map(|member| member.id).collect();
        let expected: Vec<MemberId> = ids.iter().map(|id| MemberId(*id)).collect();
        assert_eq!(found, expected, "{members:?}");
        assert_eq!(cluster_id(&found).get(), *cluster, "{members:?}");
    }
    assert!(FOUNDED.len() >= 20);
}

#[test]
fn the_id_of_an_added_member_depends_on_the_moment() {
    // The SHA-1 of "http://a:1http://b:11700000000" begins so.
    let peer_urls = urls("http://b:1,http://a:1");
    let now = 1_700_000_000;
    let mut hash = Sha1::new();
    hash.update("http://a:1http://b:11700000000");
    assert_eq!(member_id_at(&peer_urls, now).get(), first_word(hash));
    assert_ne!(member_id_at(&peer_urls, now), member_id_at(&peer_urls, now + 1));
}

#[test]
fn members_are_written_as_etcd_writes_them() {
    for (text, expected) in [
        ("", ""),
        ("b=http://b:1,a=http://a:2,a=http://a:1", "a=http://a:1,a=http://a:2,b=http://b:1"),
        // Pairs are sorted as texts, and a hyphen stands before the equals sign.
        ("a=http://a:1,a-b=http://b:1", "a-b=http://b:1,a=http://a:1"),
        (",,a=http://a:1,", "a=http://a:1"),
        ("a=http://a:1,a=http://a:1", "a=http://a:1,a=http://a:1"),
    ] {
        assert_eq!(parse(text).text(), expected, "{text}");
    }
    let own = urls("http://b:1,http://a:1");
    assert_eq!(InitialCluster::of_one("n", &own).text(), "n=http://a:1,n=http://b:1");
    let remote = parse("c=http://c:1,a=http://z:1,b=http://b:1,a=http://a:1").remote_urls("b");
    let remote: Vec<&str> = remote.iter().map(Url::as_str).collect();
    assert_eq!(remote, ["http://a:1", "http://c:1", "http://z:1"]);
}

#[test]
fn founding_is_refused_in_the_words_of_etcd() {
    for (name, text, advertised, expected) in [
        (
            "n9",
            "n1=http://a:1",
            "http://a:1",
            "couldn't find local name \"n9\" in the initial cluster configuration",
        ),
        (
            "n1",
            "n1=http://10.0.0.1:1,n2=http://b:1",
            "http://10.0.0.2:1",
            "--initial-cluster has n1=http://10.0.0.1:1 but missing from \
             --initial-advertise-peer-urls=http://10.0.0.2:1 (resolved urls: \
             \"http://10.0.0.2:1\" != \"http://10.0.0.1:1\")",
        ),
        (
            "n1",
            "n1=http://a:1",
            "http://a:1,http://b:1",
            "--initial-advertise-peer-urls has http://b:1 but missing from \
             --initial-cluster=n1=http://a:1,n1=http://b:1",
        ),
        (
            "n1",
            "n1=http://a:1,n2=http://a:1",
            "http://a:1",
            "initial cluster n1=http://a:1,n2=http://a:1 has duplicate url",
        ),
        (
            "n1",
            "n1=http://a:1,n1=http://a:1",
            "http://a:1",
            "failed to resolve http://a:1 to match --initial-cluster=n1=http://a:1 \
             (len([\"http://a:1\"]) != len([\"http://a:1\" \"http://a:1\"]))",
        ),
    ] {
        let checked = parse(text).check_founding(name, &urls(advertised), &mut nobody());
        assert_eq!(checked, Err(expected.to_owned()), "{text}");
    }
    let three = parse("n1=http://a:1,n2=http://b:1,n3=http://c:1");
    assert_eq!(three.check_founding("n2", &urls("http://b:1"), &mut nobody()), Ok(()));
    let mut known = Known(vec![("a", "10.0.0.1")]);
    let one = parse("n1=http://a:1");
    assert_eq!(one.check_founding("n1", &urls("http://10.0.0.1:1"), &mut known), Ok(()));
    // Two names for the same URLs come to one id.
    let twins = parse("n1=http://a:1,n2=http://a:1").members("t").unwrap_err();
    let id = member_id(&urls("http://a:1"), "t").get();
    assert_eq!(
        twins,
        format!(
            "member exists with identical ID &{{ID:{id:x} RaftAttributes:{{PeerURLs:[http://a:1] \
             IsLearner:false}} Attributes:{{Name:n2 ClientURLs:[]}}}}"
        )
    );
}

#[test]
fn joining_is_refused_in_the_words_of_etcd() {
    for (name, text, discovers, expected) in [
        (
            "n9",
            "n1=http://a:1",
            false,
            "couldn't find local name \"n9\" in the initial cluster configuration",
        ),
        (
            "n1",
            "n1=http://a:1,n2=http://a:1",
            true,
            "initial cluster n1=http://a:1,n2=http://a:1 has duplicate url",
        ),
        (
            "n1",
            "n1=http://a:1",
            true,
            "discovery URL should not be set when joining existing initial cluster",
        ),
    ] {
        assert_eq!(parse(text).check_joining(name, discovers), Err(expected.to_owned()));
    }
    assert_eq!(parse("n1=http://a:1").check_joining("n1", false), Ok(()));
    assert_eq!(
        parse("n1=http://a:1,n2=http://a:1").check_discovered(),
        Err("discovery cluster n1=http://a:1,n2=http://a:1 has duplicate url".to_owned())
    );
}

fn remote(members: &[(u64, &str, &[&str])]) -> RemoteCluster {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let members = members.iter().map(|(id, name, peer_urls)| RemoteMember {
        id: MemberId(*id),
        name: (*name).to_owned(),
        peer_urls: owned(peer_urls),
        client_urls: if name.is_empty() { Vec::new() } else { vec!["http://c:1".to_owned()] },
        is_learner: *id == 0x20,
    });
    RemoteCluster { id: ClusterId(0xabc), members: members.collect() }
}

#[test]
fn who_joins_takes_the_ids_that_the_cluster_has() {
    let mut known = Known(vec![("a", "10.0.0.1"), ("b", "10.0.0.2")]);
    let local = parse("n1=http://a:1,n2=http://b:1").members("other-token").unwrap();
    let remote = remote(&[(0x20, "", &["http://10.0.0.2:1"]), (0x30, "x", &["http://a:1"])]);
    let matched = remote.match_members(&local, &mut known).unwrap();
    let found: Vec<(u64, &str)> =
        matched.iter().map(|member| (member.id.get(), member.name.as_str())).collect();
    // The ids are the cluster's, the names the flags'.
    assert_eq!(found, [(0x20, "n2"), (0x30, "n1")]);
}

#[test]
fn other_members_than_the_clusters_are_refused_in_the_words_of_etcd() {
    let local = parse("n1=http://10.0.0.1:1,n2=http://10.0.0.2:1").members("t").unwrap();
    let shown = "error validating peerURLs {ClusterID:abc Members:[&{ID:10 \
                 RaftAttributes:{PeerURLs:[http://10.0.0.1:1] IsLearner:false} Attributes:{Name:n1 \
                 ClientURLs:[http://c:1]}}";
    let fewer = remote(&[(0x10, "n1", &["http://10.0.0.1:1"])]);
    assert_eq!(
        fewer.match_members(&local, &mut nobody()),
        Err(format!("{shown}] RemovedMemberIDs:[]}}: member count is unequal"))
    );
    let others = remote(&[
        (0x10, "n1", &["http://10.0.0.1:1"]),
        (0x20, "", &["http://10.0.0.3:1", "http://10.0.0.3:2"]),
    ]);
    assert_eq!(
        others.match_members(&local, &mut nobody()),
        Err(format!(
            "{shown} &{{ID:20 RaftAttributes:{{PeerURLs:[http://10.0.0.3:1 http://10.0.0.3:2] \
             IsLearner:true}} Attributes:{{Name: ClientURLs:[]}}}}] RemovedMemberIDs:[]}}: \
             PeerURLs: no match found for existing member (20, [http://10.0.0.3:1 \
             http://10.0.0.3:2]), last resolver error (len([\"http://10.0.0.3:1\" \"http://10.0.0.3:2\"]) != \
             len([\"{}\"]))",
            local[1].peer_urls[0]
        ))
    );
    // What a member says of itself is not believed to be a URL.
    let broken = remote(&[(0x10, "n1", &["nonsense"]), (0x20, "", &["http://10.0.0.2:1"])]);
    assert!(broken.match_members(&local, &mut nobody()).unwrap_err().contains("nonsense"));
}

#[test]
fn a_member_that_lost_its_data_may_not_begin_anew() {
    let remote = remote(&[(0x10, "n1", &["http://a:1"]), (0x20, "", &["http://b:1"])]);
    assert_eq!(
        remote.check_not_bootstrapped(MemberId(0x10)),
        Err("member 10 has already been bootstrapped".to_owned())
    );
    assert_eq!(remote.check_not_bootstrapped(MemberId(0x20)), Ok(()));
    assert_eq!(remote.check_not_bootstrapped(MemberId(0x30)), Ok(()));
    assert_eq!(remote.check_learners(1), Ok(()));
    assert_eq!(
        remote.check_learners(0),
        Err("membership: too many learner members in cluster".to_owned())
    );
}

#[test]
fn one_known_version_has_to_fit_and_none_may_not() {
    let own = MinorVersion::parse("3.7.1").unwrap();
    let check = |versions: &[Option<&str>], is_downgrading| {
        let versions: Vec<Option<String>> =
            versions.iter().map(|version| version.map(str::to_owned)).collect();
        check_versions(&versions, own, is_downgrading).is_ok()
    };
    assert!(check(&[Some("3.7.0")], false));
    assert!(check(&[Some("3.0.0"), None, Some("not_decided")], false));
    assert!(!check(&[], false));
    assert!(!check(&[None, Some("not_decided")], false));
    assert!(!check(&[Some("3.7.0"), Some("3.8.0")], false));
    assert!(!check(&[Some("2.9.0"), Some("3.7.0")], false));
    assert!(!check(&[Some("3.7.0")], true));
    assert!(check(&[Some("3.8.0")], true));
    for text in ["3.7", "3.7.1.2", "x", "", "3..1"] {
        assert_eq!(MinorVersion::parse(text), None, "{text}");
    }
    assert_eq!(MinorVersion::parse("3.6.0-rc.1"), Some(MinorVersion { major: 3, minor: 6 }));
}
