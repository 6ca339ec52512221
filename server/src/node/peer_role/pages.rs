//! What a member tells over HTTP on its peer addresses: who the members are and which versions they
//! run. Members that found or join a cluster ask before they have a member to ask over the peer
//! protocol, and so may people.
//!
//! The answers are etcd's, but for a `Server` field: by it a member tells the cluster of its own
//! kind from one of etcd.

use engine::ids::ClusterId;
use engine::{Member, ReadError, ReadHandle};

use crate::config::ETCD_VERSION;
use crate::frontend::gateway::Facts;
use crate::frontend::gateway::json::{Escape, put_string};
use crate::frontend::http1::{Connection, Length, Request};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const NO_SNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");
/// Bodies up to this size have a length; Go's server does not know that of larger ones.
const WHOLE_BYTES_MAX: usize = 2048;

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

    /// Writes the answer to a request; its body, if it has one, is nobody's.
    pub fn answer(&mut self, http: &mut Connection, request: &Request) {
        let answer = self.find(request);
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

    fn find(&mut self, request: &Request) -> Answer {
        type Page = fn(&mut Pages) -> Result<Answer, ReadError>;
        let page: Page = match &*request.path {
            b"/members" => Self::members,
            b"/version" => Self::version,
            b"/downgrade/enabled" => Self::downgrade_enabled,
            _ => return Answer::error(404, "404 page not found"),
        };
        if request.method != "GET" {
            let mut refused = Answer::error(405, "Method Not Allowed");
            refused.fields.insert(0, ("Allow", "GET"));
            return refused;
        }
        page(self).unwrap_or_else(|error| Answer::failure(&error))
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
}
