//! What a member that joins, or that may have lost its data, asks the members that are there.
//!
//! The questions are etcd's: `/members`, `/version` and `/downgrade/enabled` of the peer listeners,
//! one URL after the other until one answers. They block, before the executors run.

use std::time::Duration;

use engine::{ClusterId, MemberId};

use super::cluster::{InitialMember, RemoteCluster, RemoteMember};
use super::http::{Answer, Request, ask};
use super::json::Json;
use crate::config::{Notice, Url, parse_urls};
use crate::log::Level;

/// How long one answer about the members may take when one is needed.
pub const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take when it is only asked whether this member was there before.
pub const BOOTSTRAPPED_TIMEOUT: Duration = Duration::from_secs(1);

/// etcd's text where no URL told anything.
pub const NOBODY_ANSWERED: &str = "could not retrieve cluster information from the given URLs";

/// A running cluster, and what answered for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The cluster.
    pub cluster: RemoteCluster,
    /// Which program answered; `None` if it did not say, as etcd does not.
    pub server: Option<String>,
}

/// Asks one URL after the other about the cluster.
///
/// # Errors
/// None answered, or a cluster without members did: etcd's texts.
pub fn fetch_cluster(
    urls: &[Url],
    timeout: Duration,
    notices: &mut Vec<Notice>,
) -> Result<Found, String> {
    for url in urls {
        let note = |message: &str, error: String| Notice {
            level: Level::Warn,
            message: message.to_owned(),
            fields: vec![("address", format!("{url}/members")), ("error", error)],
        };
        let answer = match get(url, "/members", timeout) {
            Ok(answer) => answer,
            Err(error) => {
                notices.push(note("failed to get cluster response", error));
                continue;
            }
        };
        let members = match Json::parse(&answer.body).and_then(|json| read_members(&json)) {
            Ok(members) => members,
            Err(error) => {
                notices.push(note("failed to unmarshal cluster response", error));
                continue;
            }
        };
        let id = answer.header("x-etcd-cluster-id").unwrap_or_default();
        let Ok(id) = u64::from_str_radix(id, 16) else {
            let error = format!("strconv.ParseUint: parsing {id:?}: invalid syntax");
            notices.push(note("failed to parse cluster ID", error));
            continue;
        };
        if members.is_empty() {
            let text = "failed to get raft cluster member(s) from the given URLs";
            return Err(text.to_owned());
        }
        let cluster = RemoteCluster { id: ClusterId(id), members };
        return Ok(Found { cluster, server: answer.header("server").map(str::to_owned) });
    }
    Err(NOBODY_ANSWERED.to_owned())
}

/// The cluster versions that the other members tell; `None` of those that tell none.
pub fn fetch_versions(
    members: &[InitialMember],
    own: MemberId,
    timeout: Duration,
    notices: &mut Vec<Notice>,
) -> Vec<Option<String>> {
    let others = members.iter().filter(|member| member.id != own);
    let versions = others.map(|member| {
        let version = first_answer(&member.peer_urls, "/version", timeout, |answer| {
            let json = Json::parse(&answer.body)?;
            let version = json.get("etcdcluster").and_then(Json::text).unwrap_or_default();
            Ok(version.to_owned())
        });
        version
            .map_err(|error| notices.push(not_told("failed to get version", member.id, error)))
            .ok()
    });
    versions.collect()
}

/// Whether the cluster is being downgraded, as the first member that answers tells it.
pub fn fetch_downgrading(
    members: &[InitialMember],
    own: MemberId,
    timeout: Duration,
    notices: &mut Vec<Notice>,
) -> bool {
    for member in members.iter().filter(|member| member.id != own) {
        let told = first_answer(&member.peer_urls, "/downgrade/enabled", timeout, |answer| {
            match answer.body.trim_ascii() {
                b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok(true),
                b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok(false),
                other => Err(format!(
                    "strconv.ParseBool: parsing {:?}: invalid syntax",
                    String::from_utf8_lossy(other)
                )),
            }
        });
        match told {
            Ok(is_downgrading) => return is_downgrading,
            Err(error) => {
                let message = "failed to get downgrade enabled status";
                notices.push(not_told(message, member.id, error));
            }
        }
    }
    false
}

fn not_told(message: &str, member: MemberId, error: String) -> Notice {
    let fields = vec![("remote-member-id", format!("{:x}", member.get())), ("error", error)];
    Notice { level: Level::Warn, message: message.to_owned(), fields }
}

/// What the first of a member's URLs tells that can be read; otherwise the last error.
fn first_answer<T>(
    urls: &[Url],
    target: &str,
    timeout: Duration,
    read: impl Fn(&Answer) -> Result<T, String>,
) -> Result<T, String> {
    let mut last = "the member has no peer URLs".to_owned();
    for url in urls {
        match get(url, target, timeout).and_then(|answer| read(&answer)) {
            Ok(told) => return Ok(told),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn get(url: &Url, target: &str, timeout: Duration) -> Result<Answer, String> {
    ask(url, Request { method: "GET", target, body: None, fields: &[], timeout })
}

fn read_members(json: &Json) -> Result<Vec<RemoteMember>, String> {
    let members = match json {
        Json::Null => &[][..],
        _ => json.list().ok_or("the members are no list")?,
    };
    let mut members = members.iter().map(read_member).collect::<Result<Vec<_>, _>>()?;
    members.sort_by_key(|member| member.id);
    members.dedup_by_key(|member| member.id);
    Ok(members)
}

fn read_member(json: &Json) -> Result<RemoteMember, String> {
    let id = json.get("id").and_then(Json::unsigned).ok_or("a member without an id")?;
    let texts = |name: &str| -> Result<Vec<String>, String> {
        let texts = match json.get(name) {
            None | Some(Json::Null) => return Ok(Vec::new()),
            Some(texts) => texts.list().ok_or_else(|| format!("{name} is no list"))?,
        };
        let texts = texts.iter().map(|text| text.text().map(str::to_owned));
        texts
            .collect::<Option<_>>()
            .ok_or_else(|| format!("{name} holds something else than texts"))
    };
    let is_learner = json.get("isLearner").and_then(Json::switch).unwrap_or_default();
    let name = json.get("name").and_then(Json::text).unwrap_or_default().to_owned();
    let (peer_urls, client_urls) = (texts("peerURLs")?, texts("clientURLs")?);
    Ok(RemoteMember { id: MemberId(id), name, peer_urls, client_urls, is_learner })
}

/// The URLs of a running cluster's members, to be dialed; those that cannot be read are left out.
#[must_use]
pub fn peer_urls_of(member: &RemoteMember) -> Vec<Url> {
    member.peer_urls.iter().filter_map(|url| parse_urls(url).ok()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::http::test_server::{answer, serve};
    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    /// As a real etcd 3.7.1 answers.
    const MEMBERS: &str = r#"[{"id":9372538179322589801,"peerURLs":["http://localhost:2380"],
        "name":"default","clientURLs":["http://localhost:2379"]},
        {"id":17,"peerURLs":["http://a:1","http://b:1"],"isLearner":true}]"#;

    fn fetch(urls: &[Url]) -> (Result<Found, String>, Vec<String>) {
        let mut notices = Vec::new();
        let found = fetch_cluster(urls, SOON, &mut notices);
        (found, notices.into_iter().map(|notice| notice.message).collect())
    }

    #[test]
    fn the_first_url_that_answers_tells_the_members() {
        let silent = serve(|_| Vec::new());
        let garbled = serve(|_| answer(200, "X-Etcd-Cluster-ID: 1\r\n", "nonsense"));
        let nameless = serve(|_| answer(200, "", MEMBERS));
        let sound = serve(|(_, target, _)| {
            assert_eq!(target, "/members");
            answer(200, "X-Etcd-Cluster-ID: cdf818194e3a8c32\r\nServer: ringd/1\r\n", MEMBERS)
        });
        let (found, notices) = fetch(&[silent, garbled, nameless, sound]);
        let Found { cluster, server } = found.unwrap();
        assert_eq!(cluster.id, ClusterId(0xcdf8_1819_4e3a_8c32));
        assert_eq!(server.as_deref(), Some("ringd/1"));
        let ids: Vec<u64> = cluster.members.iter().map(|member| member.id.get()).collect();
        assert_eq!(ids, [17, 0x8211_f1d0_f64f_3269]);
        let [learner, voter] = &cluster.members[..] else { panic!("two members") };
        assert!(learner.is_learner && learner.name.is_empty() && learner.client_urls.is_empty());
        assert_eq!(peer_urls_of(learner).len(), 2);
        assert_eq!(voter.client_urls, ["http://localhost:2379"]);
        assert_eq!(
            notices,
            [
                "failed to get cluster response",
                "failed to unmarshal cluster response",
                "failed to parse cluster ID",
            ]
        );
    }

    #[test]
    fn clusters_that_tell_nothing_are_refused_in_the_words_of_etcd() {
        let none = "could not retrieve cluster information from the given URLs";
        assert_eq!(fetch(&[]).0, Err(none.to_owned()));
        for body in ["[]", "null"] {
            let url = serve(move |_| answer(200, "X-Etcd-Cluster-ID: 1\r\n", body));
            let text = "failed to get raft cluster member(s) from the given URLs";
            assert_eq!(fetch(&[url]).0, Err(text.to_owned()));
        }
        for body in ["{}", "[{}]", "[{\"id\":1,\"peerURLs\":[1]}]", "[{\"id\":-1}]"] {
            let url = serve(move |_| answer(200, "X-Etcd-Cluster-ID: 1\r\n", body));
            assert_eq!(fetch(&[url]).0, Err(none.to_owned()));
        }
    }

    fn member(id: u64, url: &Url) -> InitialMember {
        InitialMember { id: MemberId(id), name: format!("n{id}"), peer_urls: vec![url.clone()] }
    }

    #[test]
    fn versions_are_asked_of_the_others() {
        let sound = serve(|(_, target, _)| {
            assert_eq!(target, "/version");
            let body = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
            answer(200, "", body)
        });
        let broken = serve(|_| answer(500, "", "x"));
        let members = [member(1, &broken), member(2, &sound), member(3, &broken)];
        let mut notices = Vec::new();
        let versions = fetch_versions(&members, MemberId(1), SOON, &mut notices);
        assert_eq!(versions, [Some("3.7.0".to_owned()), None]);
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].fields[0], ("remote-member-id", "3".to_owned()));
    }

    #[test]
    fn the_first_that_knows_tells_of_a_downgrade() {
        let broken = serve(|_| answer(404, "", "404 page not found"));
        let yes = serve(|(_, target, _)| {
            assert_eq!(target, "/downgrade/enabled");
            answer(200, "", "true")
        });
        let members = [member(1, &yes), member(2, &broken), member(3, &yes)];
        let mut notices = Vec::new();
        assert!(fetch_downgrading(&members, MemberId(1), SOON, &mut notices));
        assert_eq!(notices.len(), 1);
        assert!(!fetch_downgrading(&members[..1], MemberId(1), SOON, &mut notices));
    }
}
