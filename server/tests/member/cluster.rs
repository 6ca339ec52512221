//! Members that form a cluster over their peer addresses.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Instant;

use server::service::proto::etcdserverpb as pb;
use socket2::{Domain, Socket, Type};

use crate::client::{CallError, Client, everything, http_answer};
use crate::directory::Directory;
use crate::member::{Member, WAIT_MAX, ringd};

/// A port that is ours as long as this is held: bound, but not listened on, so that whoever else
/// shares it gets all connections.
struct Port {
    #[expect(dead_code, reason = "held to be dropped")]
    socket: Socket,
    address: SocketAddr,
}

impl Port {
    fn reserve() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket, address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Places for members, and those that run.
struct Cluster {
    directory: Directory,
    ports: Vec<Port>,
    members: Vec<Option<Member>>,
}

impl Cluster {
    /// Founds a cluster of so many members and waits until all of them serve.
    fn found(name: &str, count: usize) -> Self {
        let ports = (0..count).map(|_| Port::reserve()).collect();
        let members = (0..count).map(|_| None).collect();
        let mut cluster = Self { directory: Directory::new(name), ports, members };
        (0..count).for_each(|place| cluster.spawn(place));
        (0..count).for_each(|place| cluster.wait(place));
        cluster
    }

    fn data_dir(&self, place: usize) -> PathBuf {
        self.directory.join(&format!("m{place}"))
    }

    /// Starts a member, for the first time or again, and waits for nothing.
    fn spawn(&mut self, place: usize) {
        let of = |(place, port): (usize, &Port)| format!("m{place}={}", port.url());
        let initial: Vec<String> = self.ports.iter().enumerate().map(of).collect();
        let url = self.ports[place].url();
        let mut command = ringd();
        command.args(["--name", &format!("m{place}")]).arg("--data-dir").arg(self.data_dir(place));
        command.args(["--listen-client-urls", "http://127.0.0.1:0"]);
        command.args(["--advertise-client-urls", &format!("http://client-{place}:2379")]);
        command.args(["--listen-peer-urls", &url, "--initial-advertise-peer-urls", &url]);
        command.args(["--initial-cluster", &initial.join(","), "--socket-reuse-port"]);
        self.members[place] = Some(Member::spawn(&mut command));
    }

    /// Waits until a member that was started serves.
    fn wait(&mut self, place: usize) {
        self.members[place].as_mut().expect("it was started").wait_until_serving();
    }

    fn member(&self, place: usize) -> &Member {
        self.members[place].as_ref().expect("it runs")
    }

    fn connect(&self, place: usize) -> Client {
        self.member(place).connect()
    }

    fn kill(&mut self, place: usize) {
        self.members[place].take().expect("it runs").kill();
    }

    /// Puts through a member again and again until that is acknowledged.
    fn put_until_it_counts(&self, place: usize, key: &str, value: &[u8]) -> i64 {
        let begun = Instant::now();
        loop {
            match self.connect(place).put(key, value) {
                Ok(revision) => return revision,
                Err(error) => assert!(begun.elapsed() < WAIT_MAX, "{key} is not put: {error:?}"),
            }
        }
    }

    /// Reads through a member again and again until that is answered.
    fn get_until_answered(&self, place: usize, key: &str) -> Option<Vec<u8>> {
        let begun = Instant::now();
        loop {
            match self.connect(place).get(key) {
                Ok(value) => return value,
                Err(error) => assert!(begun.elapsed() < WAIT_MAX, "no answer: {error:?}"),
            }
        }
    }

    fn status(&self, place: usize) -> pb::StatusResponse {
        let path = "/etcdserverpb.Maintenance/Status";
        self.connect(place).call(path, &pb::StatusRequest::default()).unwrap()
    }

    /// The place of the member that leads.
    fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            for place in (0..self.members.len()).filter(|place| self.members[*place].is_some()) {
                let status = self.status(place);
                if status.leader == status.header.expect("it has one").member_id {
                    return place;
                }
            }
            assert!(begun.elapsed() < WAIT_MAX, "nobody leads");
        }
    }

    fn list(&self, place: usize) -> Vec<pb::Member> {
        let request = pb::MemberListRequest { linearizable: true };
        let answer: Result<pb::MemberListResponse, CallError> =
            self.connect(place).call("/etcdserverpb.Cluster/MemberList", &request);
        answer.unwrap().members
    }

    fn ask_peer(&self, place: usize, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        String::from_utf8(http_answer(self.ports[place].address, &request)).unwrap()
    }
}

#[test]
fn three_members_are_one_through_kills_and_restarts() {
    let mut cluster = Cluster::found("cluster", 3);
    for place in 0..3 {
        cluster.connect(place).put(&format!("by {place}"), b"value").unwrap();
    }
    for place in 0..3 {
        let mut client = cluster.connect(place);
        assert_eq!(client.all().len(), 3, "a linearizable read through {place}");
        let names: Vec<String> = cluster.list(place).into_iter().map(|each| each.name).collect();
        assert_eq!(names.len(), 3);
        assert!((0..3).all(|place| names.contains(&format!("m{place}"))), "{names:?}");
    }
    // A minority goes, the leader at that, and the others go on.
    let leader = cluster.leader();
    cluster.kill(leader);
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    for &place in &others {
        cluster.put_until_it_counts(place, &format!("without {leader} by {place}"), b"value");
    }
    assert_ne!(cluster.leader(), leader);
    // It comes back and catches up.
    cluster.spawn(leader);
    cluster.wait(leader);
    for &place in &others {
        let key = format!("without {leader} by {place}");
        assert_eq!(cluster.get_until_answered(leader, &key).unwrap(), b"value");
    }
    cluster.put_until_it_counts(leader, "back", b"again");
    assert_eq!(cluster.get_until_answered(others[0], "back").unwrap(), b"again");
    // All of them go at once.
    (0..3).for_each(|place| cluster.kill(place));
    (0..3).for_each(|place| cluster.spawn(place));
    (0..3).for_each(|place| cluster.wait(place));
    cluster.get_until_answered(0, "back");
    let all = cluster.connect(0).all();
    assert_eq!(all.len(), 6, "{:?}", all.keys());
    for place in 1..3 {
        assert_eq!(cluster.connect(place).all(), all, "through {place}");
    }
    // And end in good order.
    for place in 0..3 {
        let member = cluster.members[place].take().unwrap();
        member.signal("TERM");
        let (status, log) = member.end();
        assert_eq!(status.signal(), Some(15), "{}", log.join("\n"));
    }
}

#[test]
fn peers_are_told_about_the_cluster_over_http() {
    let cluster = Cluster::found("peer-http", 3);
    let mut bodies = Vec::new();
    for place in 0..3 {
        let members = cluster.ask_peer(place, "/members");
        let (head, body) = members.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nX-Etcd-Cluster-Id: "), "{head}");
        assert!(head.contains("\r\nServer: ringd/"), "{head}");
        bodies.push(body.to_owned());
        for other in 0..3 {
            let url = cluster.ports[other].url();
            let attributes = format!(
                "\"peerURLs\":[\"{url}\"],\"name\":\"m{other}\",\
                 \"clientURLs\":[\"http://client-{other}:2379\"]}}"
            );
            // The list is of this member's own store, which may be behind.
            let begun = Instant::now();
            while !cluster.ask_peer(place, "/members").contains(&attributes) {
                assert!(begun.elapsed() < WAIT_MAX, "no {attributes} in {body}");
            }
        }
        let begun = Instant::now();
        let expected = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
        while !cluster.ask_peer(place, "/version").ends_with(expected) {
            assert!(begun.elapsed() < WAIT_MAX, "{}", cluster.ask_peer(place, "/version"));
        }
        assert!(cluster.ask_peer(place, "/downgrade/enabled").ends_with("\r\n\r\nfalse"));
        let unknown = cluster.ask_peer(place, "/v3/kv/range");
        assert!(unknown.starts_with("HTTP/1.0 404 Not Found\r\n"), "{unknown}");
        assert!(unknown.ends_with("\r\n\r\n404 page not found\n"), "{unknown}");
    }
}

#[test]
fn strangers_on_a_peer_address_do_no_harm() {
    let cluster = Cluster::found("strangers", 3);
    let address = cluster.ports[0].address;
    let hello = b"\x93RINGD\r\n\x30\0\0\0\x01\0\0\0";
    let garbage: [&[u8]; 6] = [
        b"\x93RINGD\r\n",
        hello,
        b"\x93RINGD\r\n\xff\xff\xff\xff\x01\0\0\0\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"POST /raft/stream HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nxxxxxxxxx",
        &[0; 5000],
    ];
    let mut open = Vec::new();
    for round in 0..30 {
        for bytes in garbage {
            let mut socket = TcpStream::connect(address).unwrap();
            // What is sent to one who has already closed is lost.
            drop(socket.write_all(bytes));
            if round % 2 == 0 {
                open.push(socket);
                continue;
            }
            drop(socket.shutdown(Shutdown::Write));
            socket.set_read_timeout(Some(WAIT_MAX)).unwrap();
            let mut answer = Vec::new();
            if let Err(error) = socket.read_to_end(&mut answer) {
                let kind = error.kind();
                assert!(kind == std::io::ErrorKind::ConnectionReset, "{kind:?} to {bytes:?}");
            }
        }
        cluster.put_until_it_counts(round % 3, &format!("k{round}"), b"value");
    }
    assert_eq!(cluster.connect(0).range(&everything()).unwrap().count, 30);
    drop(open);
}

/// The ids are those that etcd gives, and a member whose flags say something else than when it was
/// founded goes on as what it is.
#[test]
fn a_cluster_that_runs_is_not_founded_again() {
    let mut cluster = Cluster::found("founded", 3);
    cluster.kill(2);
    fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    cluster.spawn(2);
    let (status, log) = cluster.members[2].take().unwrap().end();
    assert_eq!(status.code(), Some(1));
    let last = log.last().unwrap();
    assert!(last.contains("has already been bootstrapped"), "{last}");
    cluster.put_until_it_counts(0, "k", b"value");
}
