//! `--discovery-srv`: the members of a cluster out of a domain's SRV records, by etcd's rules.
//!
//! `_etcd-server-ssl._tcp` names members that speak TLS, `_etcd-server._tcp` those that do not;
//! both are asked for and joined. This member is found among them by the address of its advertised
//! URL, and gets its own name; the others are numbered.

use std::collections::BTreeMap;

use super::super::addresses::Resolve;
use super::dns::SrvRecord;
use crate::config::Url;

/// Finds SRV records.
pub trait SrvLookup {
    /// The records of `_service._tcp.domain`, in the order in which they are to be used.
    ///
    /// # Errors
    /// There are none, or they cannot be asked for, in Go's words.
    fn lookup(&mut self, service: &str, domain: &str) -> Result<Vec<SrvRecord>, String>;
}

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub struct SrvQuestion<'a> {
    /// This member's name.
    pub name: &'a str,
    /// `--discovery-srv`.
    pub domain: &'a str,
    /// `--discovery-srv-name`; empty if there is none.
    pub service_name: &'a str,
    /// `--initial-advertise-peer-urls`.
    pub advertised: &'a [Url],
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvFound {
    /// `name=url` of each member.
    pub members: Vec<String>,
    /// What went wrong on the way, which matters only if nobody was found.
    pub failures: Vec<String>,
}

/// Asks for both services.
pub fn find_members(
    question: SrvQuestion<'_>,
    lookup: &mut impl SrvLookup,
    resolver: &mut impl Resolve,
) -> SrvFound {
    let mut found = SrvFound { members: Vec::new(), failures: Vec::new() };
    let suffix = match question.service_name {
        "" => String::new(),
        name => format!("-{name}"),
    };
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let service = format!("{service}{suffix}");
        match find_service(question, scheme, &service, lookup, resolver) {
            Ok(members) => found.members.extend(members),
            Err(failure) => found.failures.push(failure),
        }
    }
    found
}

/// The members that one service names.
fn find_service(
    question: SrvQuestion<'_>,
    scheme: &str,
    service: &str,
    lookup: &mut impl SrvLookup,
    resolver: &mut impl Resolve,
) -> Result<Vec<String>, String> {
    let mut own = BTreeMap::new();
    for url in question.advertised {
        own.insert(resolver.resolve(url.authority())?, url);
    }
    let wrapped = |error: String| format!("error querying DNS SRV records for _{service} {error}");
    let records = lookup.lookup(service, question.domain).map_err(wrapped)?;
    let (mut members, mut numbered, mut failure) = (Vec::new(), 0, None);
    for record in records {
        let address = match resolver.resolve(&format!("{}:{}", record.target, record.port)) {
            Ok(address) => address,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        let own_url = own.get(&address);
        let name = match own_url {
            Some(_) if !question.name.is_empty() => question.name.to_owned(),
            _ => {
                numbered += 1;
                (numbered - 1).to_string()
            }
        };
        let host = record.target.strip_suffix('.').unwrap_or(&record.target);
        let url = format!("{scheme}://{host}:{}", record.port);
        match own_url {
            Some(own) if !own.as_str().starts_with(&format!("{scheme}://")) => {
                failure = Some(format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected \
                     peer {own}"
                ));
            }
            _ => members.push(format!("{name}={url}")),
        }
    }
    match failure {
        Some(failure) if members.is_empty() => Err(wrapped(failure)),
        _ => Ok(members),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::addresses::Known;
    use super::super::dns_client::DnsClient;
    use super::super::dns_client::test_server::{Zone, serve};
    use super::*;
    use crate::config::parse_urls;

    struct Records(Vec<(&'static str, u16, &'static str)>);

    impl SrvLookup for Records {
        fn lookup(&mut self, service: &str, domain: &str) -> Result<Vec<SrvRecord>, String> {
            let found = self.0.iter().filter(|(known, ..)| *known == service);
            let found = found.map(|(_, port, target)| SrvRecord {
                priority: 0,
                weight: 0,
                port: *port,
                target: format!("{target}."),
            });
            let found: Vec<SrvRecord> = found.collect();
            if found.is_empty() {
                return Err(format!("lookup _{service}._tcp.{domain}: no such host"));
            }
            Ok(found)
        }
    }

    fn known() -> Known {
        let names = [("a.x.", "10.0.0.1"), ("b.x.", "10.0.0.2"), ("c.x.", "10.0.0.3")];
        let mut names = names.to_vec();
        names.extend([("a.x", "10.0.0.1"), ("10.0.0.1", "10.0.0.1")]);
        Known(names)
    }

    fn find(records: &[(&'static str, u16, &'static str)], advertised: &str) -> SrvFound {
        let advertised = parse_urls(advertised).unwrap();
        let question =
            SrvQuestion { name: "me", domain: "x", service_name: "", advertised: &advertised };
        find_members(question, &mut Records(records.to_vec()), &mut known())
    }

    #[test]
    fn this_member_is_found_by_its_address_and_the_others_are_numbered() {
        let records = [
            ("etcd-server", 2380, "b.x"),
            ("etcd-server", 2380, "a.x"),
            ("etcd-server", 2380, "c.x"),
        ];
        for advertised in ["http://a.x:2380", "http://10.0.0.1:2380"] {
            let found = find(&records, advertised);
            let expected = ["0=http://b.x:2380", "me=http://a.x:2380", "1=http://c.x:2380"];
            assert_eq!(found.members, expected, "{advertised}");
            assert_eq!(
                found.failures,
                ["error querying DNS SRV records for _etcd-server-ssl lookup \
                  _etcd-server-ssl._tcp.x: no such host"]
            );
        }
        // Another port is another member.
        let found = find(&records, "http://a.x:2381");
        assert_eq!(found.members[1], "1=http://a.x:2380");
    }

    #[test]
    fn both_services_are_joined_and_their_schemes_kept_apart() {
        let records = [
            ("etcd-server-ssl", 2380, "a.x"),
            ("etcd-server", 2380, "a.x"),
            ("etcd-server", 2380, "b.x"),
        ];
        let found = find(&records, "https://a.x:2380");
        assert_eq!(found.members, ["me=https://a.x:2380", "0=http://b.x:2380"]);
        assert_eq!(found.failures, Vec::<String>::new());
        let found = find(&[("etcd-server-ssl", 2380, "a.x")], "http://a.x:2380");
        assert_eq!(found.members, Vec::<String>::new());
        assert_eq!(
            found.failures[0],
            "error querying DNS SRV records for _etcd-server-ssl bootstrap at https://a.x:2380 \
             from DNS for etcd-server-ssl has scheme mismatch with expected peer http://a.x:2380"
        );
    }

    #[test]
    fn names_without_an_address_are_left_out() {
        let records = [("etcd-server", 2380, "nobody.x"), ("etcd-server", 2380, "a.x")];
        assert_eq!(find(&records, "http://a.x:2380").members, ["me=http://a.x:2380"]);
        let found = find(&records[..1], "http://a.x:2380");
        assert_eq!(
            found.failures[1],
            "error querying DNS SRV records for _etcd-server lookup nobody.x.: no such host"
        );
        let found = find(&records, "http://nobody.x:2380");
        assert_eq!(found.failures, ["lookup nobody.x: no such host"; 2]);
    }

    #[test]
    fn a_name_servers_records_become_a_cluster() {
        let record = |target: &str| SrvRecord {
            priority: 0,
            weight: 0,
            port: 2380,
            target: target.to_owned(),
        };
        let zone = Zone::new("_etcd-server-west._tcp.x.", vec![record("a.x."), record("b.x.")]);
        let mut client = DnsClient {
            servers: vec![serve(zone)],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(20),
            attempts: 1,
        };
        let advertised = parse_urls("http://10.0.0.1:2380").unwrap();
        let question =
            SrvQuestion { name: "me", domain: "x", service_name: "west", advertised: &advertised };
        let found = find_members(question, &mut client, &mut known());
        assert_eq!(found.members, ["me=http://a.x:2380", "0=http://b.x:2380"]);
    }
}
