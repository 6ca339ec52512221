//! Asks the machine's name servers for SRV records; blocks.
//!
//! As a resolver does: the servers of `resolv.conf` in turn, each as often and as long as that
//! says, over UDP and, where an answer does not fit, over TCP; the name as it is first, then with
//! the domains to search.
//!
//! Invariants:
//! - Only answers of the server that was asked count: the socket is connected to it, and its port
//!   and the question's number are not guessed by others.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::dns::{ANSWER_BYTES_MAX, DnsAnswer, SrvRecord, question, read_answer};
use super::srv::SrvLookup;

const PORT: u16 = 53;
/// As resolvers do it that are told nothing.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const ATTEMPTS_DEFAULT: u32 = 2;
const NDOTS_DEFAULT: usize = 1;
/// What `resolv.conf` may ask for at most, as in C libraries.
const TIMEOUT_SECONDS_MAX: u64 = 30;
const ATTEMPTS_MAX: u32 = 5;
const NDOTS_MAX: usize = 15;
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsClient {
    /// The name servers, in order.
    pub servers: Vec<SocketAddr>,
    /// Domains that are appended to a name that is not found as it is.
    pub search: Vec<String>,
    /// A name with fewer dots is searched before it is asked for as it is.
    pub ndots: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often each server is asked.
    pub attempts: u32,
}

impl DnsClient {
    /// As `resolv.conf` says; what cannot be read says nothing, as everywhere.
    #[must_use]
    pub fn from_resolv_conf(text: &str) -> Self {
        let mut client = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: NDOTS_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
            attempts: ATTEMPTS_DEFAULT,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if client.servers.len() < SERVERS_MAX => {
                    let address = words.next().and_then(parse_server);
                    client.servers.extend(address);
                }
                Some("domain") => client.search = words.take(1).map(str::to_owned).collect(),
                Some("search") => {
                    client.search = words.take(SEARCH_MAX).map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|option| client.set_option(option)),
                _ => {}
            }
        }
        if client.servers.is_empty() {
            client.servers =
                vec![(Ipv4Addr::LOCALHOST, PORT).into(), (Ipv6Addr::LOCALHOST, PORT).into()];
        }
        client
    }

    /// As this machine's `resolv.conf` says.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let text = std::fs::read_to_string("/etc/resolv.conf");
        Self::from_resolv_conf(&text.unwrap_or_default())
    }

    fn set_option(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = usize::try_from(value).unwrap_or(NDOTS_MAX).min(NDOTS_MAX),
            "timeout" => {
                let seconds = u64::from(value).clamp(1, TIMEOUT_SECONDS_MAX);
                self.timeout = Duration::from_secs(seconds);
            }
            "attempts" => self.attempts = value.clamp(1, ATTEMPTS_MAX),
            _ => {}
        }
    }

    /// The names under which this one is looked for, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let as_it_is = format!("{name}.");
        let searched = self.search.iter().filter(|domain| *domain != ".");
        let searched = searched.map(|domain| format!("{name}.{}.", domain.trim_end_matches('.')));
        if name.matches('.').count() >= self.ndots {
            return std::iter::once(as_it_is).chain(searched).collect();
        }
        searched.chain(std::iter::once(as_it_is.clone())).collect()
    }

    /// Asks every server, as often as it may be asked; `Ok(None)` if there is no such name.
    fn ask(&self, name: &str) -> Result<Option<Vec<SrvRecord>>, String> {
        let mut last = format!("lookup {name}: no name servers");
        for _ in 0..self.attempts {
            for server in &self.servers {
                match self.ask_server(*server, name) {
                    Ok(DnsAnswer::Records(records)) => {
                        return Ok(Some(records).filter(|records| !records.is_empty()));
                    }
                    Ok(DnsAnswer::NoName) => return Ok(None),
                    Ok(_) => last = format!("lookup {name} on {server}: server misbehaving"),
                    Err(error) => last = format!("lookup {name} on {server}: {error}"),
                }
            }
        }
        Err(last)
    }

    fn ask_server(&self, server: SocketAddr, name: &str) -> Result<DnsAnswer, String> {
        let ask = |has_extension: bool| {
            // A random number without asking the system for one: hash tables are seeded with it.
            let random = RandomState::new().build_hasher().finish().to_le_bytes();
            let id = u16::from_le_bytes([random[0], random[1]]);
            let question = question(id, name, has_extension);
            let question = question.map_err(|_| "no such host".to_owned())?;
            let answer = self.ask_udp(server, &question).map_err(|error| text_of(&error))?;
            if answer != DnsAnswer::Truncated {
                return Ok(answer);
            }
            self.ask_tcp(server, &question).map_err(|error| text_of(&error))
        };
        match ask(true)? {
            DnsAnswer::NoExtension => ask(false),
            answer => Ok(answer),
        }
    }

    fn ask_udp(&self, server: SocketAddr, question: &[u8]) -> io::Result<DnsAnswer> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.send(question)?;
        let deadline = Instant::now() + self.timeout;
        let mut buffer = [0; ANSWER_BYTES_MAX as usize];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            let len = socket.recv(&mut buffer)?;
            // What answers another question is somebody else's, or a forgery: the right one may
            // still come.
            if let Some(answer) = read_answer(&buffer[..len], question) {
                return Ok(answer);
            }
        }
    }

    fn ask_tcp(&self, server: SocketAddr, question: &[u8]) -> io::Result<DnsAnswer> {
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let len = u16::try_from(question.len()).map_err(|_| ErrorKind::InvalidInput)?;
        stream.write_all(&[&len.to_be_bytes()[..], question].concat())?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer)?;
        read_answer(&answer, question).ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

impl SrvLookup for DnsClient {
    fn lookup(&mut self, service: &str, domain: &str) -> Result<Vec<SrvRecord>, String> {
        let name = format!("_{service}._tcp.{domain}");
        let mut failure = None;
        for candidate in self.candidates(&name) {
            match self.ask(&candidate) {
                Ok(Some(mut records)) => {
                    // By priority, as they are to be used; where weights ask for chance, order is
                    // better here: members are named by their places.
                    records.sort();
                    return Ok(records);
                }
                Ok(None) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let server = self.servers.first().map(ToString::to_string).unwrap_or_default();
        Err(failure.unwrap_or_else(|| format!("lookup {name} on {server}: no such host")))
    }
}

fn parse_server(text: &str) -> Option<SocketAddr> {
    text.parse::<IpAddr>().ok().map(|address| (address, PORT).into())
}

fn text_of(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
pub mod test_server;

#[cfg(test)]
mod tests {
    use super::test_server::{Zone, serve};
    use super::*;

    fn client(server: SocketAddr) -> DnsClient {
        DnsClient {
            servers: vec![server],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(20),
            attempts: 1,
        }
    }

    fn record(priority: u16, target: &str) -> SrvRecord {
        SrvRecord { priority, weight: 0, port: 2380, target: target.to_owned() }
    }

    #[test]
    fn resolv_conf_is_read_as_resolvers_read_it() {
        let text = "# a comment\nnameserver 10.0.0.1\nnameserver ::1 ; another\nnameserver junk\n\
                    search a.test b.test\noptions ndots:2 timeout:99 attempts:0 rotate\n";
        let client = DnsClient::from_resolv_conf(text);
        let servers = ["10.0.0.1:53", "[::1]:53"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(client.servers, servers);
        assert_eq!(client.search, ["a.test", "b.test"]);
        assert_eq!((client.ndots, client.attempts), (2, 1));
        assert_eq!(client.timeout, Duration::from_secs(30));
        assert_eq!(client.candidates("a.b"), ["a.b.a.test.", "a.b.b.test.", "a.b."]);
        assert_eq!(client.candidates("a.b.c"), ["a.b.c.", "a.b.c.a.test.", "a.b.c.b.test."]);
        assert_eq!(client.candidates("a."), ["a."]);
        let default = DnsClient::from_resolv_conf("");
        assert_eq!(default.servers[0], "127.0.0.1:53".parse::<SocketAddr>().unwrap());
    }

    #[test]
    fn records_come_over_udp_in_the_order_of_their_priority() {
        let records = vec![record(2, "b.test."), record(1, "c.test."), record(1, "a.test.")];
        let server = serve(Zone::new("_etcd-server._tcp.x.test.", records));
        let found = client(server).lookup("etcd-server", "x.test").unwrap();
        assert_eq!(found, [record(1, "a.test."), record(1, "c.test."), record(2, "b.test.")]);
    }

    #[test]
    fn what_does_not_fit_comes_over_tcp() {
        let records: Vec<SrvRecord> =
            (0..100).map(|place| record(place, &format!("member-{place:03}.x.test."))).collect();
        let server = serve(Zone::new("_etcd-server._tcp.x.test.", records.clone()));
        assert_eq!(client(server).lookup("etcd-server", "x.test"), Ok(records));
    }

    #[test]
    fn a_server_without_extensions_is_asked_again() {
        let mut zone = Zone::new("_etcd-server._tcp.x.test.", vec![record(1, "a.test.")]);
        zone.knows_extensions = false;
        let found = client(serve(zone)).lookup("etcd-server", "x.test");
        assert_eq!(found, Ok(vec![record(1, "a.test.")]));
    }

    #[test]
    fn names_are_searched_and_missing_ones_said() {
        let server = serve(Zone::new("_etcd-server._tcp.x.y.test.", vec![record(1, "a.test.")]));
        let mut client = client(server);
        let missing = format!("lookup _etcd-server._tcp.x on {server}: no such host");
        assert_eq!(client.lookup("etcd-server", "x"), Err(missing));
        client.search = vec!["y.test".to_owned()];
        assert!(client.lookup("etcd-server", "x").is_ok());
    }

    #[test]
    fn the_next_server_is_asked_when_one_is_broken() {
        let mut broken = Zone::new("_etcd-server._tcp.x.test.", vec![record(1, "a.test.")]);
        broken.code = 2;
        let broken = serve(broken);
        let text = format!("lookup _etcd-server._tcp.x.test. on {broken}: server misbehaving");
        assert_eq!(client(broken).lookup("etcd-server", "x.test"), Err(text));
        let sound = serve(Zone::new("_etcd-server._tcp.x.test.", vec![record(1, "a.test.")]));
        let mut both = client(broken);
        both.servers.push(sound);
        assert!(both.lookup("etcd-server", "x.test").is_ok());
    }

    #[test]
    fn forgeries_are_passed_over() {
        let mut zone = Zone::new("_etcd-server._tcp.x.test.", vec![record(1, "a.test.")]);
        zone.forgeries = 5;
        assert!(client(serve(zone)).lookup("etcd-server", "x.test").is_ok());
    }
}
