//! A store without room, from outside: who is refused, who is not, and who says so.

use crate::client::http_answer;
use crate::directory::Directory;
use crate::member::Member;

/// A JSON call: whether it was done, and what it was answered.
fn post(member: &Member, path: &str, body: &str) -> (bool, String) {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n");
    answer(member, &format!("{head}\r\n{body}"))
}

fn get(member: &Member, path: &str) -> (bool, String) {
    answer(member, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
}

/// Whether the status was 200, and the body.
fn answer(member: &Member, request: &str) -> (bool, String) {
    let answer = String::from_utf8(http_answer(member.address(), request)).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().ends_with(" 200 OK"), body.to_owned())
}

/// etcd's Lock and Election services are clients of the server that they are part of, so their
/// grants and puts pass the quota's door, under which the alarm is raised. What they read and what
/// they revoke passes. The answers are those of etcd 3.7.1 under the same quota.
#[test]
fn locks_and_elections_pass_the_door_of_the_quota() {
    let directory = Directory::new("quota");
    let data_dir = directory.join("data");
    let member = Member::start_with(&data_dir, &["--quota-backend-bytes", "100"]);
    assert!(get(&member, "/health").0);
    let leader = r#""leader":{"name":"bg==","key":"bg==","rev":"1","lease":"1"}"#;
    let no_space = r#"{"code":2,"message":"etcdserver: mvcc: database space exceeded"}"#;
    for (path, body) in [
        ("/v3/lock/lock", r#"{"name":"bg=="}"#.to_owned()),
        ("/v3/lock/lock", r#"{"name":"bg==","lease":"123"}"#.to_owned()),
        ("/v3/election/campaign", r#"{"name":"bg==","value":"dg=="}"#.to_owned()),
        ("/v3/election/campaign", r#"{"name":"bg==","value":"dg==","lease":"1"}"#.to_owned()),
        ("/v3/election/proclaim", format!(r#"{{{leader},"value":"dg=="}}"#)),
    ] {
        assert_eq!(post(&member, path, &body), (false, no_space.to_owned()), "{path} {body}");
        let (_, alarms) = post(&member, "/v3/maintenance/alarm", "{}");
        assert!(alarms.contains(r#""alarm":"NOSPACE""#), "after {path} {body}: {alarms}");
    }
    let resign = format!("{{{leader}}}");
    for (path, body) in [("/v3/lock/unlock", r#"{"key":"bg=="}"#), ("/v3/election/resign", &resign)]
    {
        let (is_done, answer) = post(&member, path, body);
        assert!(is_done && answer.contains(r#""revision":"1""#), "{path}: {answer}");
    }
    let health = "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n";
    assert_eq!(get(&member, "/health"), (false, health.to_owned()));
    assert!(get(&member, "/health?exclude=NOSPACE").0);
}
