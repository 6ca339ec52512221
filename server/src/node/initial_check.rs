//! The corruption check of a start (the gate InitialCorruptCheck): a member that has data compares
//! its keys with the others' before it says a word to anybody.
//!
//! As in etcd, the others are asked over HTTP on their peer addresses, and those that do not
//! answer, are behind, or have compacted since, are passed over. It blocks, before the executors
//! run.

use std::time::Duration;

use engine::ids::Revision;
use engine::{Engine, Identity, KeyValueHash, KeyValueHashScan, Member, Progress, Rejection};

use super::corruption::judge_initial;
use super::failure::Failure;
use crate::bootstrap::http::{Answer, JSON, Request, ask};
use crate::bootstrap::json::Json;
use crate::config::{Notice, Url, parse_urls};
use crate::log::Value;
use crate::log_event;
use crate::log_lines;
use crate::peer::letter::HashTold;

/// Records that are hashed between two looks at the result: nobody waits meanwhile.
const HASH_KEYS_MAX: usize = 1 << 20;

/// How long a member may take for its hash, besides its other work. etcd's seven seconds are not
/// enough for a large store, and whoever could not be asked was not compared.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Compares the keys with those of the other members.
///
/// # Errors
/// They differ, or this member's cannot be read.
pub fn run(engine: &Engine) -> Result<(), Failure> {
    let identity = engine.identity();
    log_lines::starting_initial_check(identity, ANSWER_TIME_MAX);
    let view = engine.newest_view();
    let mut scan = KeyValueHashScan::computed(Revision(0));
    while scan.step(view, HASH_KEYS_MAX).map_err(Failure::Hash)? == Progress::More {}
    let own = scan.result().expect("a hash that is done has a result");
    let members = view.cluster_members().map_err(Failure::Hash)?;
    let (mut has_found, mut compared) = (false, 0);
    for member in members.iter().filter(|member| member.id != identity.member) {
        let told = ask_member(identity, member, own.revision);
        let (differs, notice) = judge_initial(&own, member.id, told);
        has_found |= differs;
        compared += u64::from(matches!(told, HashTold::Hash(_)));
        notice.iter().for_each(Notice::write);
    }
    if has_found {
        let failure = Failure::Inconsistent(identity.member);
        log_lines::failed_initial_check(&failure);
        return Err(failure);
    }
    log_lines::passed_initial_check(identity, compared);
    Ok(())
}

/// What the first of a member's addresses that answers tells.
fn ask_member(identity: Identity, member: &Member, revision: Revision) -> HashTold {
    let urls = member.peer_urls.iter().filter_map(|url| parse_urls(url).ok()).flatten();
    for url in urls {
        match ask_url(identity, &url, revision, ANSWER_TIME_MAX) {
            Ok(told) => return told,
            Err(error) => {
                log_event!(
                    Warn,
                    "failed hash kv request",
                    "local-member-id" => Value::Id(identity.member.get()),
                    "requested-revision" => revision.0,
                    "remote-peer-endpoint" => url.to_string().as_str(),
                    "error" => error.as_str(),
                );
            }
        }
    }
    HashTold::Nothing
}

fn ask_url(
    identity: Identity,
    url: &Url,
    revision: Revision,
    timeout: Duration,
) -> Result<HashTold, String> {
    let (cluster, body) = (
        format!("{:x}", identity.cluster.0),
        format!("{{\"revision\":{},\"computed\":true}}", revision.0),
    );
    let request = Request {
        method: "GET",
        target: "/members/hashkv",
        body: Some((JSON, &body)),
        fields: &[("X-Etcd-Cluster-ID", &cluster)],
        timeout,
    };
    read_answer(&ask(url, request)?)
}

fn read_answer(answer: &Answer) -> Result<HashTold, String> {
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status == 400 && text.contains("mvcc: required revision has been compacted") {
        return Ok(HashTold::Rejected(Rejection::Compacted));
    }
    if answer.status == 400 && text.contains("mvcc: required revision is a future revision") {
        return Ok(HashTold::Rejected(Rejection::FutureRevision));
    }
    if answer.status != 200 {
        return Err(format!("unknown error: {}", text.trim_end()));
    }
    let json = Json::parse(&answer.body)?;
    let number = |json: Option<&Json>| match json {
        None | Some(Json::Null) => Ok(0),
        Some(Json::Number(text)) => text.parse::<i64>().map_err(|error| error.to_string()),
        Some(_) => Err("a number was expected".to_owned()),
    };
    let hash = number(json.get("hash"))?;
    Ok(HashTold::Hash(KeyValueHash {
        hash: u32::try_from(hash).map_err(|error| error.to_string())?,
        revision: Revision(number(json.get("hash_revision"))?),
        compacted: Revision(number(json.get("compact_revision"))?),
        current: Revision(number(json.get("header").and_then(|header| header.get("revision")))?),
    }))
}

#[cfg(test)]
mod tests {
    use engine::ids::{ClusterId, MemberId};

    use super::*;
    use crate::bootstrap::http::test_server::{answer, serve};

    const SOON: Duration = Duration::from_secs(20);

    fn ask_one(status: u16, text: &'static str) -> Result<HashTold, String> {
        let identity = Identity { cluster: ClusterId(0xab), member: MemberId(1) };
        let url = serve(move |(method, target, body)| {
            assert_eq!((&*method, &*target), ("GET", "/members/hashkv"));
            assert_eq!(body, r#"{"revision":5,"computed":true}"#);
            answer(status, "", text)
        });
        ask_url(identity, &url, Revision(5), SOON)
    }

    /// The bodies are those of a real etcd 3.7.1.
    #[test]
    fn what_members_tell_is_read() {
        let text = concat!(
            r#"{"header":{"revision":6},"hash":3280258451,"compact_revision":-1,"#,
            r#""hash_revision":5}"#
        );
        let hash = KeyValueHash {
            hash: 3_280_258_451,
            revision: Revision(5),
            compacted: Revision(-1),
            current: Revision(6),
        };
        assert_eq!(ask_one(200, text), Ok(HashTold::Hash(hash)));
        let compacted = "mvcc: required revision has been compacted\n";
        assert_eq!(ask_one(400, compacted), Ok(HashTold::Rejected(Rejection::Compacted)));
        let future = "mvcc: required revision is a future revision\n";
        assert_eq!(ask_one(400, future), Ok(HashTold::Rejected(Rejection::FutureRevision)));
        let mismatch = Err("unknown error: cluster ID mismatch".to_owned());
        assert_eq!(ask_one(412, "cluster ID mismatch\n"), mismatch);
        assert!(ask_one(200, r#"{"hash":-1}"#).is_err());
        assert!(ask_one(200, "nonsense").is_err());
    }
}
