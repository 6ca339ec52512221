//! How members begin, among others that answer over HTTP and a clock that does not wait.

use engine::ClusterId;

use super::super::addresses::Known;
use super::super::discovery::dns::SrvRecord;
use super::super::discovery::dns_client::DnsClient;
use super::super::discovery::dns_client::test_server::{Zone, serve as serve_dns};
use super::super::discovery::service::tests::Noted;
use super::super::http::test_server::{answer, serve};
use super::*;
use crate::config::{Outcome, Surroundings, Url, parse};

fn config(arguments: &[&str]) -> Config {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    match parse(&arguments, &Surroundings::NONE, &mut Vec::new()).unwrap() {
        Outcome::Run(config) => *config,
        other => panic!("{arguments:?} came to {other:?}"),
    }
}

struct NoRecords;

impl SrvLookup for NoRecords {
    fn lookup(&mut self, service: &str, domain: &str) -> Result<Vec<SrvRecord>, String> {
        Err(format!("lookup _{service}._tcp.{domain}: no such host"))
    }
}

fn begin_as(arguments: &[&str], lookup: &mut impl SrvLookup) -> Result<Beginning, String> {
    let mut resolver =
        Known(vec![("a.x.", "10.0.0.1"), ("localhost.", "127.0.0.1"), ("a.x", "10.0.0.1")]);
    let mut clock = Noted::default();
    let outside = Outside { resolver: &mut resolver, lookup, clock: &mut clock };
    let begun = begin_with(&config(arguments), outside, &mut Vec::new());
    assert!(clock.0.is_empty());
    begun.map_err(|failure| failure.to_string())
}

/// A member of a running cluster, as far as a start asks it.
fn running(members: impl Fn(&str) -> String + Send + 'static, headers: &'static str) -> Url {
    serve(move |(_, target, _)| match target.as_str() {
        "/members" => answer(200, headers, &members("")),
        "/version" => answer(200, "", "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\"}"),
        "/downgrade/enabled" => answer(200, "", "false"),
        other => panic!("nobody asks for {other}"),
    })
}

const OWN: &str = "http://127.0.0.1:1";

fn arguments<'a>(state: &'a str, cluster: &'a str) -> Vec<&'a str> {
    vec![
        "--name=n1",
        "--initial-advertise-peer-urls",
        OWN,
        "--initial-cluster-state",
        state,
        "--initial-cluster",
        cluster,
    ]
}

/// A peer URL where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn members_that_cannot_be_reached_yet_found_a_cluster_together() {
    let cluster = format!("n2={},n1={OWN},n3={}", nobody(), nobody());
    let mut flags = arguments("new", &cluster);
    flags.push("--initial-cluster-token=t");
    let begun = begin_as(&flags, &mut NoRecords).unwrap();
    let members = InitialCluster::parse(&cluster).unwrap().members("t").unwrap();
    let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    assert_eq!(begun.identity.cluster, cluster_id(&ids));
    assert_eq!(Some(begun.identity.member), id_of(&members, "n1"));
    assert_eq!((begun.members, begun.origin), (members, Origin::Founds));
}

#[test]
fn a_member_that_was_there_before_does_not_found_again() {
    let other = running(
        |_| {
            let id = config_member_id(OWN).get();
            format!(
                "[{{\"id\":{id},\"peerURLs\":[\"{OWN}\"],\"name\":\"n1\",\"clientURLs\":[\"x\"]}}]"
            )
        },
        "X-Etcd-Cluster-ID: 1\r\n",
    );
    let cluster = format!("n1={OWN},n2={other}");
    let id = config_member_id(OWN).get();
    assert_eq!(
        begin_as(&arguments("new", &cluster), &mut NoRecords),
        Err(format!("member {id:x} has already been bootstrapped"))
    );
}

fn config_member_id(url: &str) -> MemberId {
    let urls = crate::config::parse_urls(url).unwrap();
    super::super::cluster::member_id(&urls, "etcd-cluster")
}

#[test]
fn joining_takes_the_clusters_ids() {
    // The second member does not know its own address before it listens.
    let address = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let known = std::sync::Arc::clone(&address);
    let other = running(
        move |_| {
            let other = known.lock().unwrap().clone();
            format!(
                "[{{\"id\":32,\"peerURLs\":[\"{other}\"],\"name\":\"n2\",\"clientURLs\":[\"x\"]}},\
                 {{\"id\":16,\"peerURLs\":[\"{OWN}\"]}}]"
            )
        },
        "X-Etcd-Cluster-ID: abc\r\nServer: ringd/0.1\r\n",
    );
    *address.lock().unwrap() = other.to_string();
    let cluster = format!("n1={OWN},n2={other}");
    let begun = begin_as(&arguments("existing", &cluster), &mut NoRecords).unwrap();
    let identity = Identity { cluster: ClusterId(0xabc), member: MemberId(16) };
    assert_eq!(begun.identity, identity);
    let ids: Vec<u64> = begun.members.iter().map(|member| member.id.get()).collect();
    assert_eq!(ids, [16, 32]);
    let Origin::Joins(remote) = begun.origin else { panic!("it joins") };
    assert_eq!(remote.len(), 2);
    // One more that nobody added.
    let more = format!("{cluster},n3=http://127.0.0.1:3");
    let refused = begin_as(&arguments("existing", &more), &mut NoRecords).unwrap_err();
    assert!(refused.starts_with("error validating peerURLs {ClusterID:abc "), "{refused}");
    assert!(refused.ends_with("}: member count is unequal"), "{refused}");
}

#[test]
fn a_cluster_of_etcd_is_not_joined() {
    let other = running(
        |_| format!("[{{\"id\":32,\"peerURLs\":[\"{OWN}\"]}}]"),
        "X-Etcd-Cluster-ID: abc\r\n",
    );
    let cluster = format!("n1={OWN},n2={other}");
    let refused = begin_as(&arguments("existing", &cluster), &mut NoRecords).unwrap_err();
    assert!(refused.starts_with("cluster abc is not of ringd"), "{refused}");
}

#[test]
fn nobody_to_join_is_said_in_the_words_of_etcd() {
    let cluster = format!("n1={OWN}");
    assert_eq!(
        begin_as(&arguments("existing", &cluster), &mut NoRecords),
        Err("cannot fetch cluster info from peer urls: could not retrieve cluster information from \
             the given URLs"
            .to_owned())
    );
}

#[test]
fn srv_records_name_the_members() {
    let closed = nobody();
    let closed: u16 = closed.rsplit_once(':').unwrap().1.parse().unwrap();
    let record =
        |target: &str, port| SrvRecord { priority: 0, weight: 0, port, target: target.to_owned() };
    let records = vec![record("a.x.", 2380), record("localhost.", closed)];
    let zone = Zone::new("_etcd-server._tcp.x.", records);
    let mut client = DnsClient {
        servers: vec![serve_dns(zone)],
        search: Vec::new(),
        ndots: 1,
        timeout: Duration::from_secs(20),
        attempts: 1,
    };
    let flags = ["--name=me", "--discovery-srv=x", "--initial-advertise-peer-urls=http://a.x:2380"];
    let begun = begin_as(&flags, &mut client).unwrap();
    let names: Vec<&str> = begun.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"me") && names.contains(&"0"), "{names:?}");
    let absent =
        ["--name=me", "--discovery-srv=x", "--initial-advertise-peer-urls=http://10.0.0.9:2380"];
    assert_eq!(
        begin_as(&absent, &mut client),
        Err(
            "error setting up initial cluster: lookup 10.0.0.9: no such host\nlookup 10.0.0.9: no \
             such host"
                .to_owned()
        )
    );
    let refused = begin_as(&flags, &mut NoRecords).unwrap_err();
    assert_eq!(
        refused,
        "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl \
         lookup _etcd-server-ssl._tcp.x: no such host\nerror querying DNS SRV records for \
         _etcd-server lookup _etcd-server._tcp.x: no such host"
    );
    let elsewhere =
        ["--name=me", "--discovery-srv=x", "--initial-advertise-peer-urls=http://a.x:2381"];
    assert_eq!(
        begin_as(&elsewhere, &mut client),
        Err(
            "error setting up initial cluster: cannot find local etcd member \"me\" in SRV records"
                .to_owned()
        )
    );
}

#[test]
fn a_registry_names_the_members() {
    let other = nobody();
    let second = other.clone();
    let mut own = Vec::new();
    let url = serve(move |(method, target, body)| {
        if method == "PUT" {
            let name = target.strip_prefix("/t/").unwrap();
            let name = name.strip_suffix("?prevExist=false").unwrap().to_owned();
            assert_eq!(body, "value=n1%3Dhttp%3A%2F%2F127.0.0.1%3A1");
            own.push(format!(
                "{{\"key\":\"/t/{name}\",\"value\":\"n1={OWN}\",\"createdIndex\":3}}"
            ));
            return answer(201, "", "{}");
        }
        if target.ends_with("size") {
            return answer(200, "", "{\"node\":{\"value\":\"2\"}}");
        }
        let mut nodes = own.clone();
        nodes.push(format!("{{\"key\":\"/t/1\",\"value\":\"n2={second}\",\"createdIndex\":2}}"));
        answer(200, "", &format!("{{\"node\":{{\"nodes\":[{}]}}}}", nodes.join(",")))
    });
    let token = format!("{url}/t");
    let flag = format!("--discovery={token}");
    let flags = ["--name=n1", "--initial-advertise-peer-urls", OWN, &flag];
    let begun = begin_as(&flags, &mut NoRecords).unwrap();
    let members = InitialCluster::parse(&format!("n1={OWN},n2={other}")).unwrap();
    let members = members.members(&token).unwrap();
    assert_eq!(Some(begun.identity.member), id_of(&members, "n1"));
    assert_eq!(begun.members, members);
}

#[test]
fn a_registry_that_is_full_is_told_with_its_token() {
    let url = serve(|(_, target, _)| {
        if target.ends_with("size") {
            return answer(200, "", "{\"node\":{\"value\":\"1\"}}");
        }
        let other = "{\"key\":\"/t/1\",\"value\":\"n2=http://a:1\",\"createdIndex\":2}";
        answer(200, "", &format!("{{\"node\":{{\"nodes\":[{other}]}}}}"))
    });
    let flag = format!("--discovery={url}/t");
    let flags = ["--name=n1", "--initial-advertise-peer-urls", OWN, &flag];
    assert_eq!(
        begin_as(&flags, &mut NoRecords),
        Err("failed to join discovery cluster (discovery: cluster is full)".to_owned())
    );
}
