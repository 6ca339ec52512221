//! Whole conversations with a gateway whose services are a script.

use std::collections::VecDeque;

use super::link::tests::config;
use super::*;
use crate::frontend::grpc::{
    Code, Event, Input, Method as GrpcMethod, MethodId, MethodKind, Status,
};
use crate::frontend::http2::StreamKey;
use crate::frontend::http2::frame::put_go_away;

const NOW: Duration = Duration::ZERO;
const DATE: &str = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
const CORS: &str = "Access-Control-Allow-Headers: accept, content-type, authorization\r\n\
    Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n\
    Access-Control-Allow-Origin: *\r\n";

/// What the services say to a call.
#[derive(Clone)]
enum Reply {
    Answer(Vec<u8>),
    Status(Code, &'static str),
    /// Messages of a stream, which stays open.
    Messages(Vec<Vec<u8>>),
    /// None for now.
    Nothing,
}

struct World {
    gateway: Gateway,
    replies: VecDeque<Reply>,
    heard: Vec<(usize, Vec<u8>)>,
    open: Option<StreamKey>,
    facts: Facts,
    notices: Vec<Notice>,
}

const RANGE: usize = 0;
const WATCH: usize = 1;

fn setup(access: Access) -> Rc<Setup> {
    let method = |path, number, kind| GrpcMethod { path, id: MethodId(number), kind };
    let methods = [
        method("/etcdserverpb.KV/Range", 0, MethodKind::Unary),
        method("/etcdserverpb.Watch/Watch", 1, MethodKind::ClientStreaming),
        method("/etcdserverpb.Maintenance/Snapshot", 2, MethodKind::ServerStreaming),
    ];
    let methods = Rc::new(MethodTable::new(&methods));
    Rc::new(Setup { access, serves_json: true, grpc: config(), methods })
}

impl World {
    fn new() -> Self {
        Self::at(Door::Client, Access::default())
    }

    fn at(door: Door, access: Access) -> Self {
        let facts = Facts {
            has_leader: true,
            server_version: "3.7.1",
            cluster_version: Some("3.7.0".into()),
            storage_version: Some("3.7.0".into()),
            ..Facts::default()
        };
        let (replies, heard) = (VecDeque::new(), Vec::new());
        let gateway = Gateway::new(setup(access), door);
        Self { gateway, replies, heard, open: None, facts, notices: Vec::new() }
    }

    fn replies(mut self, replies: &[Reply]) -> Self {
        self.replies.extend(replies.iter().cloned());
        self
    }

    /// Everything that is answered to these bytes.
    fn say(&mut self, bytes: &[u8]) -> String {
        self.gateway.handle_received(bytes, NOW);
        self.settle();
        self.output()
    }

    fn output(&mut self) -> String {
        String::from_utf8(std::mem::take(self.gateway.output())).expect("answers are text")
    }

    fn settle(&mut self) {
        loop {
            self.gateway.handle_turn();
            self.gateway.advance(NOW);
            while let Some(notice) = self.gateway.poll_notice() {
                self.notices.push(notice);
            }
            if let Some(wish) = self.gateway.poll_wish() {
                match wish {
                    Wish::Facts => self.gateway.handle_facts(&self.facts),
                    Wish::Metrics { .. } | Wish::Vars => {
                        let fields = vec![("Content-Type", "x".to_owned())];
                        let page = PageText { status: 200, fields, body: b"page".to_vec() };
                        self.gateway.handle_page(&page);
                    }
                }
                continue;
            }
            if let Some(bytes) = self.gateway.poll_request_bytes() {
                self.serve(&bytes);
                self.gateway.recycle(bytes);
                continue;
            }
            if !self.gateway.carry_answers() && !self.gateway.has_business() {
                return;
            }
        }
    }

    fn serve(&mut self, bytes: &[u8]) {
        let grpc = self.gateway.grpc().expect("the bytes are for it");
        let mut input = Input::new(bytes);
        while let Some(event) = grpc.poll_event(&mut input, NOW) {
            let stream = match event {
                Event::Request { stream, method, message, .. } => {
                    self.heard.push((usize::from(method.0), message.into_owned()));
                    stream
                }
                Event::Call { stream, .. } => {
                    self.open = Some(stream);
                    continue;
                }
                Event::Message { stream, message } => {
                    self.heard.push((WATCH, message.into_owned()));
                    stream
                }
                Event::Cancelled { .. } => {
                    self.open = None;
                    continue;
                }
                Event::HalfClose { .. } => continue,
                Event::Closed(reason) => panic!("a rule was broken: {reason:?}"),
            };
            match self.replies.pop_front().expect("the script goes on") {
                Reply::Answer(message) => grpc.answer(stream, &message),
                Reply::Status(code, text) => grpc.finish(stream, &Status::new(code, text)),
                Reply::Messages(messages) => {
                    for message in messages {
                        grpc.send(stream, &message);
                    }
                }
                Reply::Nothing => {}
            }
        }
    }
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let size = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n");
    (head + body).into_bytes()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

/// `count: 5`.
const COUNT: &[u8] = b"\x20\x05";
/// `header {revision: 5}`, which every answer may have.
const HEADER: &[u8] = b"\x0a\x02\x18\x05";

#[test]
fn a_call_is_translated_both_ways() {
    let mut world = World::new().replies(&[Reply::Answer(COUNT.to_vec())]);
    let text = world.say(&post("/v3/kv/range", "{\"key\":\"YQ==\",\"limit\":\"5\"} rest"));
    assert_eq!(
        text,
        format!(
            "HTTP/1.1 200 OK\r\n{CORS}Content-Type: application/json\r\n\
             Grpc-Metadata-Content-Type: application/grpc\r\n{DATE}Content-Length: 13\r\n\r\n\
             {{\"count\":\"5\"}}"
        )
    );
    assert_eq!(world.heard, [(RANGE, b"\x0a\x01a\x18\x05".to_vec())]);
}

#[test]
fn calls_follow_each_other_on_one_connection() {
    let mut world = World::new().replies(&[
        Reply::Answer(COUNT.to_vec()),
        Reply::Status(Code::OutOfRange, "etcdserver: mvcc: <compacted>"),
        Reply::Answer(Vec::new()),
    ]);
    let call = post("/v3/kv/range", "{}");
    let mut text = String::new();
    for byte in call.repeat(3) {
        text += &world.say(&[byte]);
    }
    let bodies: Vec<_> = text.split("\r\n\r\n").skip(1).collect();
    assert!(bodies[0].starts_with("{\"count\":\"5\"}HTTP/1.1 400 Bad Request\r\n"), "{bodies:?}");
    let error = "{\"code\":11,\"message\":\"etcdserver: mvcc: <compacted>\"}HTTP/1.1 200 OK\r\n";
    assert!(bodies[1].starts_with(error), "{bodies:?}");
    assert_eq!(bodies[2], "{}");
    assert_eq!(world.heard.len(), 3);
}

#[test]
fn what_is_no_request_never_reaches_the_services() {
    let cases = [
        ("[", 400, "{\"code\":3,\"message\":\"unexpected EOF\"}"),
        (
            "x",
            400,
            "{\"code\":3,\"message\":\"invalid character 'x' looking for beginning of value\"}",
        ),
    ];
    for (body, status, expected) in cases {
        let mut world = World::new();
        let text = world.say(&post("/v3/kv/range", body));
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.ends_with(expected), "{text}");
        assert!(world.heard.is_empty());
    }
    for (request, status, body) in [
        (post("/v3/nothing", "{}"), 404, "{\"code\":5,\"message\":\"Not Found\"}"),
        (get("/v3/kv/range"), 501, "{\"code\":12,\"message\":\"Method Not Allowed\"}"),
        (get("/v2/keys"), 404, "404 page not found\n"),
    ] {
        let text = World::new().say(&request);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.ends_with(body), "{text}");
    }
}

#[test]
fn a_request_may_be_large_and_no_larger() {
    let setup = setup(Access::default());
    let key = "QUFB".repeat(1 << 20);
    let mut world = World::new().replies(&[Reply::Answer(Vec::new())]);
    world.say(&post("/v3/kv/range", &format!("{{\"key\":\"{key}\"}}")));
    assert_eq!(world.heard[0].1.len(), (3 << 20) + 5);
    let mut world = World::new();
    let space = " ".repeat(1 << 20);
    let mut text =
        world.say(b"POST /v3/kv/range HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n[");
    for _ in 0..=setup.json_bytes_max() >> 20 {
        text += &world.say(space.as_bytes());
    }
    assert!(text.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{text}");
    assert!(text.contains("\"code\":8"), "{text}");
    assert!(world.gateway.is_over(), "so much is not passed over");
}

#[test]
fn a_stream_is_answered_line_by_line() {
    let message = |revision: u8| vec![0x0a, 2, 0x18, revision];
    let mut world = World::new().replies(&[
        Reply::Messages(vec![message(1), message(2)]),
        Reply::Messages(vec![message(3)]),
        Reply::Status(Code::Unavailable, "etcdserver: <no leader>"),
    ]);
    let head = "POST /v3/watch HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(world.say(head.as_bytes()), "", "nothing is known yet");
    let text = world.say(b"15\r\n{\"create_request\":{}}\r\n");
    let line =
        |revision| format!("{{\"result\":{{\"header\":{{\"revision\":\"{revision}\"}}}}}}\n");
    let chunk = |line: &str| format!("{:x}\r\n{line}\r\n", line.len());
    assert_eq!(
        text,
        format!(
            "HTTP/1.1 200 OK\r\n{CORS}Content-Type: application/json\r\n\
             Grpc-Metadata-Content-Type: application/grpc\r\n{DATE}\
             Transfer-Encoding: chunked\r\n\r\n{}{}",
            chunk(&line(1)),
            chunk(&line(2))
        )
    );
    assert_eq!(world.say(b"2\r\n{}\r\n"), chunk(&line(3)));
    let error = "{\"error\":{\"code\":14,\"message\":\"etcdserver: \\u003cno leader\\u003e\"}}\n";
    assert_eq!(world.say(b"2\r\n{}\r\n0\r\n\r\n"), chunk(error) + "0\r\n\r\n");
    assert!(world.say(&get("/version")).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_stream_that_fails_at_once_has_the_status_of_its_error() {
    let mut world = World::new().replies(&[Reply::Status(Code::Unimplemented, "not yet")]);
    let text = world.say(&post("/v3/maintenance/snapshot", "{}"));
    assert!(text.starts_with("HTTP/1.1 501 Not Implemented\r\n"), "{text}");
    let line = "{\"error\":{\"code\":12,\"message\":\"not yet\"}}\n";
    assert!(text.ends_with(&format!("{:x}\r\n{line}\r\n0\r\n\r\n", line.len())), "{text}");
}

#[test]
fn a_client_that_does_not_read_holds_its_answers_up() {
    let chunk = vec![0x1a, 0x80, 0x80, 4];
    let mut message = chunk;
    message.resize(4 + (64 << 10), b'x');
    let mut world = World::new().replies(&[Reply::Messages(vec![message; 200])]);
    world.gateway.handle_received(&post("/v3/maintenance/snapshot", "{}"), NOW);
    world.settle();
    let (output, held) = (world.gateway.output().len(), world.gateway.held_bytes());
    assert!(output < OUTPUT_BYTES_HIGH + 4 * STEP_BYTES, "{output}");
    assert!(held < 2 << 20, "{held}");
    let mut lines = 0;
    for _ in 0..1000 {
        lines += world.output().matches("{\"result\":").count();
        world.settle();
    }
    assert_eq!(lines, 200);
}

#[test]
fn a_large_answer_is_made_as_it_is_read() {
    let mut message = Vec::new();
    for _ in 0..100_000 {
        message.extend_from_slice(b"\x12\x0a\x0a\x08keykey12");
    }
    let mut world = World::new().replies(&[Reply::Answer(message)]);
    let mut text = world.say(&post("/v3/kv/range", "{}"));
    assert!(text.len() < 2 * OUTPUT_BYTES_HIGH, "{}", text.len());
    for _ in 0..1000 {
        world.settle();
        text += &world.output();
    }
    assert_eq!(text.matches("a2V5a2V5MTI=").count(), 100_000);
    assert!(text.contains("\r\nTransfer-Encoding: chunked\r\n") && text.ends_with("0\r\n\r\n"));
}

#[test]
fn health_says_why_not() {
    let health = |world: &mut World, query: &str| {
        let text = world.say(&get(&format!("/health{query}")));
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        (head.split(' ').nth(1).expect("a status").to_owned(), body.to_owned())
    };
    let good = || World::new().replies(&[Reply::Answer(Vec::new())]);
    let (ok, bad) = ("200".to_owned(), "503".to_owned());
    let well = "{\"health\":\"true\",\"reason\":\"\"}".to_owned();
    let ill = |reason: &str| format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
    let mut world = good();
    assert_eq!(health(&mut world, ""), (ok.clone(), well.clone()));
    assert_eq!(world.heard[0].1, b"\x0a\x01\0\x18\x01\x40\x01");
    let mut world = good();
    world.facts.has_leader = false;
    assert_eq!(health(&mut world, ""), (bad.clone(), ill("RAFT NO LEADER")));
    assert_eq!(health(&mut world, "?serializable=true"), (ok.clone(), well.clone()));
    assert_eq!(world.heard[0].1, b"\x0a\x01\0\x18\x01\x38\x01\x40\x01");
    let mut world = good();
    world.facts.alarms = vec![(1, AlarmKind::NoSpace)];
    assert_eq!(health(&mut world, ""), (bad.clone(), ill("ALARM NOSPACE")));
    assert_eq!(health(&mut world, "?exclude=NOSPACE"), (ok, well));
    world.facts.alarms.push((1, AlarmKind::Corrupt));
    assert_eq!(health(&mut world, "?exclude=NOSPACE"), (bad.clone(), ill("ALARM CORRUPT")));
    let mut world = World::new().replies(&[Reply::Status(Code::Unavailable, "no \"quorum\"")]);
    assert_eq!(health(&mut world, ""), (bad, ill("RANGE ERROR:no \\\"quorum\\\"")));
    let reason = ill("RANGE ERROR:no \\\"quorum\\\"");
    assert_eq!(
        world.notices,
        [
            Notice::ReadFailed("no \"quorum\"".into()),
            Notice::HealthAnswered(false),
            Notice::HealthFalse(reason.trim_end().into())
        ]
    );
}

#[test]
fn readiness_is_told_check_by_check() {
    let reads = [Reply::Answer(Vec::new()), Reply::Answer(Vec::new())];
    let text = World::new().replies(&reads).say(&get("/readyz?verbose"));
    let lines = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                 [+]non_learner ok\nok\n";
    assert!(text.ends_with(&format!("\r\n\r\n{lines}")), "{text}");
    let mut world = World::new().replies(&reads);
    world.facts.is_learner = true;
    world.facts.alarms = vec![(1, AlarmKind::NoSpace)];
    let text = world.say(&get("/readyz"));
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    let lines = lines
        .replace("[+]non_learner ok\nok", "[-]non_learner failed: not supported for learner\n");
    assert!(text.ends_with(&format!("\r\n\r\n{lines}")), "{text}");
    let text = World::new().say(&get("/readyz/data_corruption"));
    assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
    let mut world = World::new();
    let text = world.say(&get("/livez?exclude=serializable_read&exclude=other&verbose"));
    assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
    assert_eq!(world.notices, [Notice::UnknownChecks(vec!["other".into()])]);
}

#[test]
fn the_metrics_listener_has_metrics_and_health_only() {
    let of = |path| World::at(Door::Metrics, Access::default()).say(&get(path));
    assert!(of("/metrics").ends_with("page"));
    assert!(!of("/metrics").contains("Access-Control"));
    for path in ["/version", "/debug/vars", "/v3/kv/range"] {
        assert!(of(path).starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}");
    }
}

#[test]
fn hosts_and_origins_are_looked_at_first() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let access = Access { hosts: set(&["h"]), origins: set(&["http://a"]) };
    let say = |request: &str| World::at(Door::Client, access.clone()).say(request.as_bytes());
    let text = say("GET /version HTTP/1.1\r\nHost: other:1\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 421 Misdirected Request\r\n"), "{text}");
    assert!(text.contains("--host-whitelist \"other\"") && !text.contains("Access-Control"));
    let text = say("OPTIONS /x HTTP/1.1\r\nHost: h:1\r\nOrigin: http://a\r\n\r\n");
    assert!(text.contains("Access-Control-Allow-Origin: http://a\r\n"), "{text}");
    let text = say("OPTIONS /x HTTP/1.1\r\nHost: h\r\nOrigin: http://b\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{text}");
}

/// What follows the head of the last answer.
fn last_body(text: &str) -> &str {
    text.rsplit_once("\r\n\r\n").map_or(text, |(_, body)| body)
}

/// As etcd 3.7.1 answers who has closed its half before the answer.
#[test]
fn a_call_whose_client_is_gone_is_given_up_and_says_so() {
    let canceled = "{\"code\":1,\"message\":\"context canceled\"}";
    let mut world = World::new().replies(&[Reply::Nothing]);
    let call = post("/v3/kv/range", "{}");
    assert_eq!(world.say(&call.repeat(2)), "");
    world.gateway.handle_half_closed();
    world.replies.push_back(Reply::Nothing);
    world.settle();
    let text = world.output();
    assert_eq!(text.matches("HTTP/1.1 499 status code 499\r\n").count(), 2, "{text}");
    assert!(!text.contains("Grpc-Metadata") && last_body(&text) == canceled, "{text}");
    assert!(world.gateway.is_over());
    // A body that was promised and does not come makes no difference once the request is there.
    let mut world = World::new().replies(&[Reply::Nothing]);
    world.say(b"POST /v3/kv/range HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{}");
    world.gateway.handle_half_closed();
    world.settle();
    assert_eq!(last_body(&world.output()), canceled);
    let mut world = World::new();
    world.say(b"POST /v3/kv/range HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n{");
    world.gateway.handle_half_closed();
    world.settle();
    assert!(world.gateway.is_over());
    let text = world.output();
    assert!(text.ends_with("{\"code\":3,\"message\":\"unexpected EOF\"}"), "{text}");
    assert!(!text.contains("Connection"), "{text}");
}

#[test]
fn a_stream_whose_client_is_gone_ends() {
    let chunks = "{\"error\":{\"code\":1,\"message\":\"context canceled\"}}\n\r\n0\r\n\r\n";
    let mut world = World::new().replies(&[Reply::Messages(vec![HEADER.to_vec()])]);
    assert!(world.say(&post("/v3/watch", "{}")).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(world.open.is_some());
    world.gateway.handle_half_closed();
    world.settle();
    assert!(world.gateway.is_over() && world.open.is_none(), "the services hear of it");
    assert_eq!(world.output(), format!("32\r\n{chunks}"));
    let mut world = World::new().replies(&[Reply::Nothing]);
    world.say(&post("/v3/maintenance/snapshot", "{}"));
    world.gateway.handle_half_closed();
    world.settle();
    let text = world.output();
    assert!(text.starts_with("HTTP/1.1 499 status code 499\r\n") && text.ends_with(chunks));
}

#[test]
fn a_health_check_whose_client_is_gone_has_failed() {
    let asked = |path: &str, replies: &[Reply]| {
        let mut world = World::new().replies(replies);
        world.gateway.handle_received(&get(path), NOW);
        world.gateway.handle_half_closed();
        world.settle();
        assert!(world.gateway.is_over());
        world.output()
    };
    let text = asked("/health", &[Reply::Nothing]);
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    let reason = "{\"health\":\"false\",\"reason\":\"RANGE ERROR:context canceled\"}\n";
    assert_eq!(last_body(&text), reason);
    let text = asked("/readyz", &[Reply::Answer(Vec::new()), Reply::Nothing]);
    assert!(
        text.contains("[+]serializable_read ok\n[-]linearizable_read failed: context canceled")
    );
    // What waits for nobody is answered.
    let text = asked("/health?serializable=true", &[Reply::Answer(Vec::new())]);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(asked("/version", &[]).starts_with("HTTP/1.1 200 OK\r\n"));
    let later = [&get("/version")[..], b"GET /ver"].concat();
    let head = b"POST /v3/kv/range HTTP/1.1\r\nHost: h\r\n";
    for (request, is_request) in
        [(&b""[..], false), (b"GET /ver", false), (head, true), (&later, true)]
    {
        let mut world = World::new();
        world.say(request);
        world.gateway.handle_half_closed();
        world.settle();
        assert!(world.gateway.is_over());
        let is_refused = world.output().starts_with("HTTP/1.1 400 Bad Request\r\n");
        assert_eq!(is_refused, is_request);
    }
}

/// A frame of a client, whose mask changes nothing.
fn frame(payload: &str) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[0x81, 0x80 | len, 0, 0, 0, 0], payload.as_bytes()].concat()
}

fn upgrade(path: &str) -> Vec<u8> {
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket";
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{upgrade}\r\n{key}\r\n\r\n").into_bytes()
}

const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn a_browser_watches_message_by_message() {
    let message = |revision: u8| vec![0x0a, 2, 0x18, revision];
    let mut world = World::new().replies(&[
        Reply::Messages(vec![message(1), message(2)]),
        Reply::Status(Code::Unavailable, "gone"),
    ]);
    let bytes = |world: &mut World, sent: &[u8]| {
        world.gateway.handle_received(sent, NOW);
        world.settle();
        std::mem::take(world.gateway.output())
    };
    assert_eq!(bytes(&mut world, &upgrade("/v3/watch")), UPGRADED.as_bytes());
    assert_eq!(bytes(&mut world, b"\x89\x80\0\0\0\0"), b"\x8a\x00");
    let line = |revision| {
        format!("\u{26}{{\"result\":{{\"header\":{{\"revision\":\"{revision}\"}}}}}}").into_bytes()
    };
    let expected = [&[0x81][..], &line(1), &[0x81], &line(2)].concat();
    assert_eq!(bytes(&mut world, &frame("{\"create_request\":{}}")), expected);
    let error = "{\"error\":{\"code\":14,\"message\":\"gone\"}}";
    let expected = [&[0x81, u8::try_from(error.len()).unwrap()], error.as_bytes()].concat();
    assert_eq!(bytes(&mut world, &frame("{}")), expected);
    assert!(world.gateway.is_over());
    // A farewell is returned, and the call ends with the connection.
    let mut world = World::new();
    bytes(&mut world, &upgrade("/v3/watch"));
    assert_eq!(bytes(&mut world, b"\x88\x82\0\0\0\0\x03\xe8"), b"\x88\x02\x03\xe8");
    assert!(world.gateway.is_over());
}

#[test]
fn what_is_wrong_with_an_upgrade_is_said_where_it_can_be() {
    let mut world = World::new();
    world.gateway.handle_received(&upgrade("/v3/nothing"), NOW);
    world.settle();
    let body = "{\"code\":5,\"message\":\"Not Found\"}";
    let frame_head = [0x81, u8::try_from(body.len()).unwrap()];
    let expected = [UPGRADED.as_bytes(), &frame_head, body.as_bytes()].concat();
    assert!(*world.gateway.output() == expected && world.gateway.is_over());
    let mut world = World::new();
    let early = [upgrade("/v3/watch"), frame("{}")].concat();
    assert_eq!(world.say(&early), "");
    assert!(world.gateway.is_over(), "it sent something before it was told to");
    let old = String::from_utf8(upgrade("/v3/watch")).unwrap().replace("13", "12");
    let text = World::new().say(old.as_bytes());
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
    assert!(text.contains("\r\nSec-Websocket-Version: 13\r\n"), "{text}");
}

/// Pongs are output, too.
#[test]
fn pings_of_a_client_that_does_not_read_are_not_read() {
    let mut world = World::new();
    world.gateway.handle_received(&upgrade("/v3/watch"), NOW);
    world.settle();
    let pings = b"\x89\xfd\0\0\0\0".to_vec();
    let ping = [pings, vec![b'x'; 125]].concat();
    world.gateway.handle_received(&ping.repeat(20_000), NOW);
    world.settle();
    let output = world.gateway.output().len();
    assert!(output < OUTPUT_BYTES_HIGH + 1024 && world.gateway.wants_pause(), "{output}");
}

/// Found by a reviewer: answers to pipelined requests were made whether anybody read them or not.
#[test]
fn no_request_is_taken_from_a_client_that_does_not_read() {
    let mut world = World::new();
    let count = 4_000;
    world.gateway.handle_received(&get("/none").repeat(count), NOW);
    world.settle();
    assert!(world.gateway.wants_pause());
    let mut text = String::new();
    for _ in 0..1000 {
        let some = world.output();
        assert!(some.len() < OUTPUT_BYTES_HIGH + 1024, "{}", some.len());
        text += &some;
        world.settle();
    }
    assert_eq!(text.matches("HTTP/1.1 404 ").count(), count);
    assert!(!world.gateway.wants_pause() && !world.gateway.has_business());
}

#[test]
fn a_turn_begins_few_requests() {
    let mut world = World::new();
    world.gateway.handle_received(&get("/none").repeat(3 * TURN_STEPS), NOW);
    for turn in 1..=3 {
        world.gateway.advance(NOW);
        assert_eq!(world.output().matches("HTTP/1.1 404 ").count(), TURN_STEPS, "turn {turn}");
        world.gateway.advance(NOW);
        assert_eq!(world.output(), "");
        assert!(world.gateway.has_business(), "the core comes back");
        world.gateway.handle_turn();
    }
    world.gateway.advance(NOW);
    assert!(!world.gateway.has_business(), "and only if there is something");
}

/// Found by a reviewer: the call under way never ended, and the next connection to the services
/// used its number again.
#[test]
fn a_connection_to_the_services_that_breaks_ends_the_client_too() {
    let mut world = World::new().replies(&[Reply::Nothing]);
    assert_eq!(world.say(&post("/v3/kv/range", "{}").repeat(2)), "");
    let mut farewell = Vec::new();
    let code = crate::frontend::http2::ErrorCode::EnhanceYourCalm;
    put_go_away(&mut farewell, 1, code, "too_many_pings");
    world.gateway.services.as_mut().expect("there is a call").link.handle_bytes(&farewell);
    world.settle();
    let text = world.output();
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    assert!(text.contains("Connection: close\r\n") && text.contains("\"code\":14"), "{text}");
    assert!(world.gateway.is_over() && world.heard.len() == 1);
}

#[test]
fn whatever_is_asked_is_answered_or_ended() {
    let pieces: [&[u8]; 16] = [
        b"POST /v3/kv/range HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v3/watch HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v3/kv/range HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"2\r\n{}\r\n",
        b"1\r\n{\r\n",
        b"3\r\nx{}\r\n",
        b"0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /readyz?verbose HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HEAD /version HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET //metrics HTTP/1.0\r\nHost: h\r\n\r\n",
        b"POST /v3/maintenance/snapshot HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n{} ",
        b"POST /v3/kv/range HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
          Content-Length: 2\r\n\r\n",
        b"{}",
        b"[[[",
        b"\r\n",
    ];
    for seed in 0..4_000u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut world = World::new();
        for _ in 0..state % 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let reply = match state >> 8 & 3 {
                0 => Reply::Status(Code::NotFound, "none"),
                1 => Reply::Messages(vec![HEADER.to_vec()]),
                _ => Reply::Answer(HEADER.to_vec()),
            };
            world.replies.clear();
            world.replies.extend(std::iter::repeat_n(reply, 8));
            world.say(pieces[usize::try_from(state % 16).unwrap()]);
            if state >> 16 & 15 == 0 {
                world.gateway.handle_half_closed();
            }
            if world.gateway.is_over() {
                break;
            }
        }
    }
}

/// Found beside etcd: the client was paused in the middle of a large head, for ever.
#[test]
fn a_large_head_is_read_to_its_end() {
    let mut world = World::new();
    assert_eq!(world.say(b"GET /version HTTP/1.1\r\nHost: h\r\nX: "), "");
    for _ in 0..512 {
        assert_eq!(world.say(&[b'x'; 1024]), "");
        assert!(!world.gateway.wants_pause());
    }
    assert!(world.say(b"\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
}
