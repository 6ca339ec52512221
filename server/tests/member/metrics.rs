//! `/metrics` of the real binary: every name that it is to tell, and counts that follow what was
//! done to the member.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;

use crate::client::http_answer;
use crate::directory::Directory;
use crate::member::Member;

const FAMILIES: &str = include_str!("../../src/metrics/families.txt");

/// An answer: its head, and its body as it came.
fn get(member: &Member, path: &str, fields: &str) -> (String, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{fields}\r\n");
    split(&http_answer(member.address(), &request))
}

/// The body of a JSON call that has to succeed.
fn post(member: &Member, path: &str, body: &str) -> String {
    let (head, answer) = call(member, path, body);
    assert!(head.contains(" 200 OK\r\n"), "{path} {body}: {head}{answer}");
    answer
}

fn call(member: &Member, path: &str, body: &str) -> (String, String) {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n");
    let (head, answer) = split(&http_answer(member.address(), &format!("{head}\r\n{body}")));
    (head, String::from_utf8(answer).unwrap())
}

fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends");
    (String::from_utf8(answer[..end + 2].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

/// The page: what each family is, and what each series says.
struct Page {
    types: BTreeMap<String, String>,
    series: BTreeMap<String, f64>,
}

impl Page {
    fn of(member: &Member) -> Self {
        let (head, body) = get(member, "/metrics", "");
        assert!(head.contains(" 200 OK\r\n"), "{head}");
        Self::parse(&String::from_utf8(body).unwrap())
    }

    fn parse(text: &str) -> Self {
        let (mut types, mut series) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
                series.insert(name.to_owned(), value);
            }
        }
        Self { types, series }
    }

    /// A series, which has to be there.
    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not told"))
    }

    /// Holds series to what they say.
    fn assert_values(&self, expected: &[(&str, f64)]) {
        for (series, expected) in expected {
            let value = self.value(series);
            assert!((value - expected).abs() < 1e-9, "{series} is {value}, not {expected}");
        }
    }
}

/// Does one of everything that is counted, and leaves an alarm standing.
fn do_everything(member: &Member) {
    post(member, "/v3/kv/put", r#"{"key":"aw==","value":"dg=="}"#);
    post(member, "/v3/kv/range", r#"{"key":"aw=="}"#);
    let put = r#"{"requestPut":{"key":"aw==","value":"dg=="}}"#;
    post(member, "/v3/kv/txn", &format!(r#"{{"success":[{put},{put2}]}}"#, put2 = PUT_OTHER));
    post(member, "/v3/kv/deleterange", r#"{"key":"aw=="}"#);
    post(member, "/v3/kv/compaction", r#"{"revision":"3","physical":true}"#);
    post(member, "/v3/lease/grant", r#"{"ID":"7","TTL":"100"}"#);
    post(member, "/v3/lease/keepalive", r#"{"ID":"7"}"#);
    post(member, "/v3/lease/revoke", r#"{"ID":"7"}"#);
    post(member, "/v3/maintenance/hashkv", r#"{"revision":"0"}"#);
    post(member, "/v3/maintenance/defragment", "{}");
    assert!(post(member, "/v3/maintenance/snapshot", "{}").contains("\"blob\":"));
    post(member, "/v3/maintenance/downgrade", r#"{"action":"CANCEL"}"#);
    assert!(call(member, "/v3/cluster/member/promote", r#"{"ID":"5"}"#).0.contains(" 404 "));
    for path in ["/health", "/livez", "/readyz"] {
        assert!(get(member, path, "").0.contains(" 200 OK\r\n"), "{path}");
    }
    // What a member that does not exist says about its store refuses every write here, too.
    let alarm = r#"{"action":"ACTIVATE","memberID":"171","alarm":"CORRUPT"}"#;
    post(member, "/v3/maintenance/alarm", alarm);
    for path in ["/health", "/readyz"] {
        assert!(get(member, path, "").0.contains(" 503 "), "{path}");
    }
}

const PUT_OTHER: &str = r#"{"requestPut":{"key":"bw==","value":"dg=="}}"#;

#[test]
fn everything_that_is_counted_is_told_and_counted_right() {
    let directory = Directory::new("metrics");
    let data_dir = directory.join("data");
    let member = Member::start_with(&data_dir, &["--metrics", "extensive"]);
    let before = Page::of(&member);
    before.assert_values(&[
        ("etcd_server_health_success", 0.0),
        ("etcd_server_health_failures", 0.0),
        ("etcd_disk_defrag_inflight", 0.0),
        ("etcd_disk_backend_defrag_duration_seconds_count", 0.0),
        ("etcd_disk_backend_snapshot_duration_seconds_count", 0.0),
    ]);
    assert!(!before.types.contains_key("etcd_debugging_server_alarms"));
    assert!(!before.types.contains_key("etcd_server_healthcheck"));
    do_everything(&member);
    let page = Page::of(&member);
    for line in FAMILIES.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split(" | ").collect();
        let [name, kind, _, _, fate] = columns[..] else { panic!("{line}") };
        // As with etcd, a member alone has nothing to tell of others.
        let is_of_others =
            ["_peer_", "_active_peers", "_disconnected_peers_total", "_network_snapshot_"];
        if is_of_others.iter().any(|part| name.contains(part)) {
            assert!(!page.types.contains_key(name), "{name} of a member alone");
        } else if fate == "served" {
            assert_eq!(page.types.get(name).map(String::as_str), Some(kind), "{name}");
        } else {
            assert!(!page.types.contains_key(name), "{name} is listed as left out");
        }
    }
    page.assert_values(&[
        ("etcd_server_health_success", 1.0),
        ("etcd_server_health_failures", 1.0),
        (r#"etcd_server_healthcheck{name="data_corruption",type="readyz"}"#, 0.0),
        (r#"etcd_server_healthcheck{name="serializable_read",type="livez"}"#, 1.0),
        (r#"etcd_debugging_server_alarms{alarm_type="CORRUPT",server_id="ab"}"#, 1.0),
        ("etcd_disk_backend_defrag_duration_seconds_count", 1.0),
        ("etcd_disk_backend_snapshot_duration_seconds_count", 1.0),
        ("etcd_debugging_lease_granted_total", 1.0),
        ("etcd_debugging_lease_renewed_total", 1.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
        ("etcd_debugging_lease_ttl_total_sum", 100.0),
        ("etcd_server_learner_promote_successes", 0.0),
        (r#"etcd_server_learner_promote_failures{Reason="membership: ID not found"}"#, 1.0),
        ("etcd_mvcc_put_total", 3.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_mvcc_hash_rev_duration_seconds_count", 1.0),
        ("etcd_debugging_mvcc_keys_total", 1.0),
        ("etcd_debugging_mvcc_compact_revision", 3.0),
        ("etcd_debugging_mvcc_current_revision", 4.0),
    ]);
    let checks = [("data_corruption", "error", 1.0), ("data_corruption", "success", 1.0)];
    for (name, status, count) in checks {
        let labels = format!(r#"name="{name}",status="{status}",type="readyz""#);
        page.assert_values(&[(&format!("etcd_server_healthchecks_total{{{labels}}}"), count)]);
    }
    for op in [
        "Put",
        "DeleteRange",
        "Txn",
        "Compaction",
        "ClusterMemberAttrSet",
        "ClusterVersionSet",
        "LeaseGrant",
        "LeaseRevoke",
        "Alarm",
        "DowngradeInfoSet",
    ] {
        let labels = format!(r#"op="{op}",success="true",version="v3""#);
        let series = format!("etcd_server_apply_duration_seconds_count{{{labels}}}");
        page.assert_values(&[(&series, 1.0)]);
    }
    let handled = |method: &str, service: &str| {
        let labels = format!(r#"grpc_method="{method}",grpc_service="etcdserverpb.{service}""#);
        format!(r#"grpc_server_handling_seconds_count{{{labels},grpc_type="unary"}}"#)
    };
    page.assert_values(&[(&handled("Put", "KV"), 1.0), (&handled("Alarm", "Maintenance"), 1.0)]);
}

#[test]
fn the_page_comes_as_the_client_would_have_it() {
    let directory = Directory::new("metrics-coding");
    let member = Member::start(&directory.join("data"));
    for field in ["gzip", "br;q=1, gzip;q=0.5"] {
        let field = format!("Accept-Encoding: {field}\r\n");
        let (head, body) = get(&member, "/metrics", &field);
        assert!(head.contains("\r\nContent-Encoding: gzip\r\n"), "{field}{head}");
        let mut text = String::new();
        GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
        let page = Page::parse(&text);
        assert!(page.types.contains_key("grpc_server_handled_total"));
        // That much is told only to who wants everything.
        assert!(!page.types.contains_key("grpc_server_handling_seconds"));
    }
    for field in ["", "Accept-Encoding: gzip;q=0\r\n", "Accept-Encoding: gzip, identity\r\n"] {
        let (head, body) = get(&member, "/metrics", field);
        assert!(!head.contains("Content-Encoding"), "{field}{head}");
        assert!(body.starts_with(b"# HELP "), "{field}");
    }
}
