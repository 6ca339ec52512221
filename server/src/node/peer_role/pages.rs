//! What a member tells over HTTP on its peer addresses: who the members are and which versions they
//! run. Members that found or join a cluster ask before they have a member to ask over the peer
//! protocol, and so may people.
//!
//! The answers are etcd's, but for a `Server` field: by it a member tells the cluster of its own
//! kind from one of etcd. The hash of the keys takes its time: it is made elsewhere, and told when
//! it is there.

use engine::ids::{ClusterId, Revision};
use engine::{KeyValueHash, KeyValueHashScan, Member, ReadError, ReadHandle, Rejection};

use crate::bootstrap::json::Json;
use crate::config::ETCD_VERSION;
use crate::frontend::gateway::Facts;
use crate::frontend::gateway::json::{Escape, put_string};
use crate::frontend::http1::{Connection, Length, Request};
use crate::peer::letter::HashTold;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const NO_SNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");
/// Bodies up to this size have a length; Go's server does not know that of larger ones.
const WHOLE_BYTES_MAX: usize = 2048;
const HASH: &[u8] = b"/members/hashkv";

/// Who answers.
pub struct Pages {
    cluster: String,
    /// The value of the `Server` field.
    server: String,
    views: ReadHandle,
    /// What is told while the store does not say who belongs to the cluster.
    alone: Option<Member>,
}

/// An answer before it is written.
struct Answer {
    status: u16,
    /// By name in ascending order.
    fields: Vec<(&'static str, &'static str)>,
    tells_cluster: bool,
    body: Vec<u8>,
}

impl Answer {
    /// What Go's helper for errors writes.
    fn error(status: u16, text: &str) -> Self {
        let body = format!("{text}\n").into_bytes();
        Self { status, fields: vec![TEXT, NO_SNIFF], tells_cluster: false, body }
    }

    fn failure(error: &ReadError) -> Self {
        Self::error(500, &error.to_string())
    }
}

impl Pages {
    /// For a member of this cluster; `alone` stands for all members of a store that names none.
    pub fn new(
        cluster: ClusterId,
        server: String,
        views: ReadHandle,
        alone: Option<Member>,
    ) -> Self {
        Self { cluster: format!("{:x}", cluster.0), server, views, alone }
    }

    /// Writes the answer to a request; or says that its body is needed first.
    pub fn answer(&mut self, http: &mut Connection, request: &Request) -> bool {
        match self.find(request) {
            Some(answer) => self.write(http, answer),
            None => return true,
        }
        false
    }

    /// The hash that somebody wants; or writes what is wrong with the question.
    pub fn hash_wanted(&self, http: &mut Connection, body: &[u8]) -> Option<KeyValueHashScan> {
        let scan = Json::parse(body).ok().and_then(|json| read_question(&json));
        if scan.is_none() {
            self.write(http, Answer::error(400, "error unmarshalling request"));
        }
        scan
    }

    /// Writes what came of the hash.
    pub fn tell_hash(&self, http: &mut Connection, told: HashTold) {
        let answer = match told {
            HashTold::Hash(hash) => {
                let body = hash_json(&hash).into_bytes();
                Answer { status: 200, fields: vec![JSON], tells_cluster: true, body }
            }
            HashTold::Rejected(Rejection::FutureRevision) => {
                Answer::error(400, "mvcc: required revision is a future revision")
            }
            HashTold::Rejected(_) => {
                Answer::error(400, "mvcc: required revision has been compacted")
            }
            HashTold::Nothing => Answer::error(503, "too many hashes are being made"),
        };
        self.write(http, answer);
    }

    /// Writes that a body cannot be read.
    pub fn refuse_body(&self, http: &mut Connection) {
        self.write(http, Answer::error(400, "error reading body"));
    }

    fn write(&self, http: &mut Connection, answer: Answer) {
        let Answer { status, fields, tells_cluster, body } = answer;
        let mut fields: Vec<(&str, &str)> = fields;
        fields.push(("Server", &self.server));
        if tells_cluster {
            fields.push(("X-Etcd-Cluster-Id", &self.cluster));
        }
        fields.sort_by_key(|(name, _)| *name);
        let is_whole = body.len() <= WHOLE_BYTES_MAX;
        let length = if is_whole { Length::Known(body.len()) } else { Length::Unknown };
        http.begin(status, &fields, &[], length);
        http.put(&body);
        http.end();
    }

    fn find(&mut self, request: &Request) -> Option<Answer> {
        type Page = fn(&mut Pages) -> Result<Answer, ReadError>;
        let page: Option<Page> = match &*request.path {
            b"/members" => Some(Self::members),
            b"/version" => Some(Self::version),
            b"/downgrade/enabled" => Some(Self::downgrade_enabled),
            HASH => None,
            _ => return Some(Answer::error(404, "404 page not found")),
        };
        if request.method != "GET" {
            let mut refused = Answer::error(405, "Method Not Allowed");
            refused.fields.insert(0, ("Allow", "GET"));
            return Some(refused);
        }
        let Some(page) = page else {
            let cluster = request.field("x-etcd-cluster-id").unwrap_or_default();
            let is_ours = cluster.is_empty() || cluster == self.cluster.as_bytes();
            return (!is_ours).then(|| Answer::error(412, "cluster ID mismatch"));
        };
        Some(page(self).unwrap_or_else(|error| Answer::failure(&error)))
    }

    fn members(&mut self) -> Result<Answer, ReadError> {
        let view = self.views.pin();
        let members = if view.knows_members()? {
            view.cluster_members()?
        } else {
            self.alone.iter().cloned().collect()
        };
        let body = members_json(&members);
        Ok(Answer { status: 200, fields: vec![JSON], tells_cluster: true, body })
    }

    fn version(&mut self) -> Result<Answer, ReadError> {
        let version = self.views.pin().cluster_version()?;
        let body = Facts {
            server_version: ETCD_VERSION,
            storage_version: version.clone(),
            cluster_version: version,
            ..Facts::default()
        }
        .version_json();
        Ok(Answer { status: 200, fields: vec![JSON], tells_cluster: false, body })
    }

    fn downgrade_enabled(&mut self) -> Result<Answer, ReadError> {
        let is_enabled = self.views.pin().downgrade_target()?.is_some();
        let body = is_enabled.to_string().into_bytes();
        let fields = vec![("Content-Type", "text/plain")];
        Ok(Answer { status: 200, fields, tells_cluster: true, body })
    }
}

/// The hash that is asked for. The revision is read as Go reads it: what is left out, or null, is 0.
/// `computed` is ours: what a compaction left behind will not do.
fn read_question(json: &Json) -> Option<KeyValueHashScan> {
    let revision = read_revision(json)?;
    let is_computed = json.get("computed").and_then(Json::switch).unwrap_or_default();
    Some(match is_computed {
        true => KeyValueHashScan::computed(revision),
        false => KeyValueHashScan::new(revision),
    })
}

fn read_revision(json: &Json) -> Option<Revision> {
    match json {
        Json::Null => Some(Revision(0)),
        Json::Object(_) => match json.get("revision") {
            None | Some(Json::Null) => Some(Revision(0)),
            Some(Json::Number(text)) => text.parse().ok().map(Revision),
            Some(_) => None,
        },
        _ => None,
    }
}

/// A hash as Go's encoder writes etcd's answer: without what is zero.
fn hash_json(hash: &KeyValueHash) -> String {
    let fields = [
        ("hash", i64::from(hash.hash)),
        ("compact_revision", hash.compacted.0),
        ("hash_revision", hash.revision.0),
    ];
    let header = match hash.current.0 {
        0 => "{}".to_owned(),
        revision => format!("{{\"revision\":{revision}}}"),
    };
    let mut text = format!("{{\"header\":{header}");
    for (name, number) in fields.into_iter().filter(|(_, number)| *number != 0) {
        text.push_str(&format!(",\"{name}\":{number}"));
    }
    text.push('}');
    text
}

/// A list of members as Go's encoder writes etcd's: with a line end, and without what is empty.
fn members_json(members: &[Member]) -> Vec<u8> {
    let mut out = b"[".to_vec();
    for (place, member) in members.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{{\"id\":{},\"peerURLs\":", member.id.0).as_bytes());
        put_texts(&mut out, &member.peer_urls);
        if member.is_learner {
            out.extend_from_slice(b",\"isLearner\":true");
        }
        if !member.name.is_empty() {
            out.extend_from_slice(b",\"name\":");
            put_string(&mut out, &member.name, Escape::Html);
        }
        if !member.client_urls.is_empty() {
            out.extend_from_slice(b",\"clientURLs\":");
            put_texts(&mut out, &member.client_urls);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]\n");
    out
}

fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    out.push(b'[');
    for (place, text) in texts.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put_string(out, text, Escape::Html);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use engine::ids::MemberId;

    use super::*;

    /// As a real etcd 3.7.1 answered, but for the second, which is made up after it.
    #[test]
    fn members_are_told_as_etcd_tells_them() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let members = [
            Member {
                id: MemberId(9_372_538_179_322_589_801),
                peer_urls: texts(&["http://localhost:2380"]),
                name: "default".to_owned(),
                client_urls: texts(&["http://localhost:2379"]),
                is_learner: false,
            },
            Member {
                id: MemberId(17),
                peer_urls: texts(&["http://a:1", "http://b:1"]),
                is_learner: true,
                ..Member::default()
            },
        ];
        let expected = concat!(
            r#"[{"id":9372538179322589801,"peerURLs":["http://localhost:2380"],"name":"default","#,
            r#""clientURLs":["http://localhost:2379"]},"#,
            r#"{"id":17,"peerURLs":["http://a:1","http://b:1"],"isLearner":true}]"#,
            "\n"
        );
        assert_eq!(String::from_utf8(members_json(&members)).unwrap(), expected);
        assert_eq!(members_json(&[]), b"[]\n");
    }

    /// The first as a real etcd 3.7.1 answered.
    #[test]
    fn hashes_are_told_as_etcd_tells_them() {
        let hash = |hash, revision, compacted, current| {
            let [revision, compacted, current] = [revision, compacted, current].map(Revision);
            hash_json(&KeyValueHash { hash, revision, compacted, current })
        };
        let expected = r#"{"header":{"revision":6},"hash":3280258451,"compact_revision":4,"#;
        assert_eq!(hash(3_280_258_451, 5, 4, 6), format!(r#"{expected}"hash_revision":5}}"#));
        assert_eq!(hash(0, 0, 0, 0), r#"{"header":{}}"#);
    }

    #[test]
    fn the_revision_of_a_hash_is_read_as_go_reads_it() {
        let read = |text: &str| {
            let json = Json::parse(text.as_bytes()).ok()?;
            read_revision(&json).map(|revision| revision.0)
        };
        for (text, expected) in [
            (r#"{"revision":5}"#, Some(5)),
            (r#"{"Revision":5,"x":1}"#, Some(5)),
            (r#"{"revision":-3}"#, Some(-3)),
            ("{}", Some(0)),
            ("null", Some(0)),
            (r#"{"revision":"5"}"#, None),
            (r#"{"revision":5.0}"#, None),
            (r#"{"revision":5}x"#, None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
