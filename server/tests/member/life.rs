//! A member that starts, serves, ends and starts again.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;

use server::service::proto::etcdserverpb as pb;

use crate::client::{CallError, Client, everything, http_answer};
use crate::directory::Directory;
use crate::json::parse_object;
use crate::member::{Member, Refused, ringd};

const READY: &str = "ready to serve client requests";

#[test]
fn a_life_is_told_in_json_lines_and_ends_by_the_signal() {
    let directory = Directory::new("life");
    for (signal, number, words) in [("TERM", 15, "terminated"), ("INT", 2, "interrupt")] {
        let member = Member::start(&directory.join("data"));
        member.connect().put("k", signal.as_bytes()).unwrap();
        member.signal(signal);
        let (status, log) = member.end();
        assert_eq!(status.signal(), Some(number), "{}", log.join("\n"));
        let lines: Vec<_> = log.iter().map(|line| parse_object(line).expect(line)).collect();
        for line in &lines {
            for key in ["level", "ts", "caller", "msg"] {
                assert!(line.get(key).is_some_and(|value| !value.is_empty()), "{key} of {line:?}");
            }
            assert!(["debug", "info", "warn"].contains(&&*line["level"]), "{line:?}");
        }
        let count = |message: &str| lines.iter().filter(|line| line["msg"] == message).count();
        assert_eq!(count(READY), 1);
        assert_eq!(count("received signal; shutting down"), 1);
        assert_eq!(count("closed etcd server"), 1);
        let told = lines.iter().find(|line| line["msg"].starts_with("received signal")).unwrap();
        assert_eq!(told["signal"], words);
    }
}

#[test]
fn what_was_written_is_there_after_a_stop_and_after_a_kill() {
    let directory = Directory::new("restart");
    let data_dir = directory.join("data");
    let mut first = HashMap::new();
    for (round, kill) in [(0, true), (1, false), (2, true), (3, true), (4, false), (5, false)] {
        let member = Member::start(&data_dir);
        let mut client = member.connect();
        assert_eq!(client.all(), first, "round {round}");
        for i in 0..20 {
            let (key, value) = (format!("{round}-{i}"), format!("value {round}-{i}").into_bytes());
            let revision = client.put(&key, &value).unwrap();
            assert_eq!(revision, 2 + first.len() as i64, "revisions go on");
            first.insert(key, value);
        }
        // History is there as well, not only the newest.
        let request = pb::RangeRequest { revision: 11, ..everything() };
        assert_eq!(client.range(&request).unwrap().count, 10);
        if kill {
            member.kill();
        } else {
            member.signal("TERM");
            assert_eq!(member.end().0.signal(), Some(15));
        }
    }
}

/// Deletes, compactions and ids are data, too.
#[test]
fn deletes_compactions_and_ids_outlive_a_kill() {
    let directory = Directory::new("history");
    let data_dir = directory.join("data");
    let member = Member::start(&data_dir);
    let mut client = member.connect();
    for value in ["1", "2", "3"] {
        client.put("k", value.as_bytes()).unwrap();
    }
    let deletion = pb::DeleteRangeRequest { key: "k".into(), ..Default::default() };
    let path = "/etcdserverpb.KV/DeleteRange";
    let deleted: pb::DeleteRangeResponse = client.call(path, &deletion).unwrap();
    assert_eq!(deleted.deleted, 1);
    let before = deleted.header.unwrap();
    let compaction = pb::CompactionRequest { revision: 3, ..Default::default() };
    let _: pb::CompactionResponse = client.call("/etcdserverpb.KV/Compact", &compaction).unwrap();
    member.kill();

    let member = Member::start(&data_dir);
    let mut client = member.connect();
    let mut at = |revision| {
        let key = "k".into();
        client.range(&pb::RangeRequest { key, revision, ..Default::default() })
    };
    let now = at(0).unwrap();
    assert_eq!(now.count, 0);
    let header = now.header.unwrap();
    assert_eq!(header.revision, before.revision);
    assert_eq!(header.cluster_id, before.cluster_id);
    assert_eq!(header.member_id, before.member_id);
    assert!(before.raft_term > 0, "the first answer of a member had no term once");
    assert!(header.raft_term > before.raft_term, "a new term begins with each start");
    assert_eq!(at(4).unwrap().kvs[0].value, "3");
    assert_eq!(at(3).unwrap().kvs[0].value, "2");
    let text = "etcdserver: mvcc: required revision has been compacted".to_owned();
    assert_eq!(at(2), Err(CallError::Status(11, text)));
}

/// Writers at full speed until the kill: what was acknowledged is there, what was not may be, and
/// of a transaction all or nothing.
#[test]
fn a_kill_under_load_loses_nothing_and_halves_nothing() {
    let directory = Directory::new("kill");
    let data_dir = directory.join("data");
    let mut acknowledged: HashMap<String, String> = HashMap::new();
    for round in 0..5 {
        let member = Member::start(&data_dir);
        let mut client = member.connect();
        check_pairs(&mut client, &acknowledged);
        let mut streams = Vec::new();
        for number in 0..400 {
            streams.push(begin_pair(&mut client, round, number));
        }
        // Some are waited for; then it dies with the rest under way.
        let known = 40 + 60 * round;
        for (number, stream) in streams.iter().enumerate().take(known) {
            let answer: pb::TxnResponse = client.wait(*stream).unwrap();
            assert!(answer.succeeded);
            acknowledged.insert(pair_key(round, number), pair_value(round, number));
        }
        member.kill();
        for (number, stream) in streams.iter().enumerate().skip(known) {
            // Answers that were on their way count as well.
            if client.wait::<pb::TxnResponse>(*stream).is_ok() {
                acknowledged.insert(pair_key(round, number), pair_value(round, number));
            }
        }
    }
    let member = Member::start(&data_dir);
    check_pairs(&mut member.connect(), &acknowledged);
}

fn pair_key(round: usize, number: usize) -> String {
    format!("{round}/{number:04}")
}

fn pair_value(round: usize, number: usize) -> String {
    format!("value {round} {number} ").repeat(20)
}

fn begin_pair(client: &mut Client, round: usize, number: usize) -> u32 {
    let put = |side: &str| {
        let put = pb::PutRequest {
            key: format!("{side}/{}", pair_key(round, number)).into_bytes().into(),
            value: pair_value(round, number).into_bytes().into(),
            ..Default::default()
        };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
    };
    let txn = pb::TxnRequest { success: vec![put("a"), put("b")], ..Default::default() };
    client.begin("/etcdserverpb.KV/Txn", &txn)
}

fn check_pairs(client: &mut Client, acknowledged: &HashMap<String, String>) {
    let all = client.all();
    for (key, value) in acknowledged {
        for side in ["a", "b"] {
            let found = all.get(&format!("{side}/{key}"));
            assert_eq!(found.map(Vec::as_slice), Some(value.as_bytes()), "{side}/{key} is lost");
        }
    }
    for (key, value) in &all {
        let (side, rest) = key.split_once('/').unwrap();
        let other = format!("{}/{rest}", if side == "a" { "b" } else { "a" });
        assert_eq!(all.get(&other), Some(value), "{key} without {other}");
    }
}

/// What the pages say is the gateway's business; that they come from this very member is the
/// process's.
#[test]
fn an_http_1_client_is_answered_to_the_end() {
    let directory = Directory::new("http1");
    let member = Member::start(&directory.join("data"));
    member.connect().put("k", b"v").unwrap();
    let body = "{\"key\":\"aw==\"}";
    let call = format!(
        "POST /v3/kv/range HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for (request, expected) in [
        (
            "GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n",
            "{\"health\":\"true\",\"reason\":\"\"}",
        ),
        (&call, "\"value\":\"dg==\"}],\"count\":\"1\"}"),
        ("GET /debug/vars HTTP/1.0\r\n\r\n", "\"leadtransferee\":\"0\"}\n}\n"),
    ] {
        let answer = String::from_utf8(http_answer(member.address(), request)).unwrap();
        assert!(answer.contains(" 200 OK\r\n") && answer.ends_with(expected), "{answer}");
        assert!(answer.contains("\r\nDate: ") && !answer.contains(" 1970 "), "{answer}");
    }
}

#[test]
fn versions_are_told() {
    let told = Refused::run(ringd().arg("--version"));
    assert_eq!(told.code, Some(0));
    assert_eq!(told.stdout.lines().next(), Some("etcd Version: 3.7.1"));
    assert_eq!(told.stdout.lines().count(), 4, "as many lines as etcd's: {}", told.stdout);
    assert_eq!(told.stderr, "");
}
