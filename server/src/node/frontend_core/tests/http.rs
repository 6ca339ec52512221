//! HTTP/1 clients beside others, without a socket.

use super::*;
use crate::mail::Verdict;

impl Bench {
    /// A client that speaks HTTP/1 at such an address.
    fn connect_http(&mut self, entrance: Entrance) -> usize {
        let client = self.clients.len();
        self.clients.push(ClientSide::default());
        self.core.handle_accepted_at(socket(client), entrance);
        client
    }

    fn say(&mut self, client: usize, bytes: &[u8]) {
        self.core.handle_received(socket(client), bytes, NOW);
    }

    /// Applies the writes that were asked for and answers them, as the log core does; how many.
    fn serve_writes(&mut self) -> usize {
        let ask = self.core.ask();
        let (frames, slots) = (std::mem::take(&mut ask.frames), std::mem::take(&mut ask.slots));
        let count = slots.len();
        if count > 0 {
            let (answers, events) = self.store.commit(&frames);
            let answers = slots.into_iter().zip(answers.into_iter().map(Verdict::Applied));
            let (answers, events) = (answers.collect(), events.into_iter().collect());
            self.core.handle_reply(&mut Reply { answers, events, ..<_>::default() });
        }
        count
    }

    /// The end of a turn: what was sent to a client, and whether it was sent away.
    fn settle_http(&mut self, client: usize) -> (String, bool) {
        let (mut text, mut is_closed) = (String::new(), false);
        self.core.settle(self.core.time_of_work());
        while let Some(action) = self.core.poll_action() {
            match action {
                SocketAction::Send(to, mut bytes) => {
                    if to == socket(client) {
                        text.push_str(str::from_utf8(&bytes).unwrap());
                    }
                    bytes.clear();
                    self.core.handle_sent(to, bytes);
                }
                SocketAction::Close(to) => is_closed |= to == socket(client),
                SocketAction::Pause(_) | SocketAction::Resume(_) => {}
            }
        }
        (text, is_closed)
    }

    /// All that is sent until there is nothing more to do.
    fn heard(&mut self, client: usize) -> (String, bool) {
        let (mut all, mut was_closed) = (String::new(), false);
        for _ in 0..10_000 {
            let (text, is_closed) = self.settle_http(client);
            was_closed |= is_closed;
            let is_idle = text.is_empty() && !self.core.has_work();
            all.push_str(&text);
            if is_idle {
                return (all, was_closed);
            }
        }
        panic!("work without end");
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

const ALL: &str = "{\"key\":\"AA==\",\"range_end\":\"AA==\"}";

#[test]
fn a_json_client_reads_what_a_grpc_client_reads() {
    let mut bench = Bench::new(3000, b"value", ServiceLimits::default());
    let client = bench.connect_http(Entrance::Any);
    bench.say(client, &post("/v3/kv/range", "{\"key\":\"azAwMDAx\"}"));
    let (text, _) = bench.settle_http(client);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "in the same turn: {text}");
    assert!(text.ends_with("\"value\":\"dmFsdWU=\"}],\"count\":\"1\"}"), "{text}");
    // More than a step, so it waits for its turns as every wide read does.
    bench.say(client, &post("/v3/kv/range", ALL));
    let (text, _) = bench.heard(client);
    assert_eq!(text.matches("\"dmFsdWU=\"").count(), 3000);
    assert!(text.ends_with("0\r\n\r\n") && bench.core.desk.calls.is_empty());
}

/// Requests behind the first are begun by its answer, at the end of a turn: the core must not sleep
/// on them.
#[test]
fn pipelined_calls_are_answered_in_turn_without_a_sleep() {
    let mut bench = Bench::new(10, b"value", ServiceLimits::default());
    let client = bench.connect_http(Entrance::Any);
    let call = post("/v3/kv/range", "{\"key\":\"azAwMDAx\"}");
    bench.say(client, &[call.repeat(5), get("/readyz?verbose"), get("/version")].concat());
    let (text, is_closed) = bench.heard(client);
    assert_eq!(text.matches("\"dmFsdWU=\"").count(), 5, "{text}");
    assert!(
        text.contains("[+]linearizable_read ok\n") && text.contains("\"etcdserver\""),
        "{text}"
    );
    assert!(!is_closed);
}

#[test]
fn a_json_watcher_hears_of_puts_and_is_forgotten_when_it_leaves() {
    let mut bench = Bench::new(3, b"old", ServiceLimits::default());
    bench.store.engine.set_events_wanted(true, false);
    let client = bench.connect_http(Entrance::Any);
    let create = format!("{{\"create_request\":{ALL}}}");
    bench.say(client, &post("/v3/watch", &create));
    let (text, _) = bench.heard(client);
    assert!(text.contains("\"created\":true}}\n"), "{text}");
    bench.put(["k".to_owned()].into_iter(), b"new");
    let (text, _) = bench.heard(client);
    assert!(text.contains("\"events\":[{\"kv\":{\"key\":\"aw==\""), "{text}");
    bench.core.handle_half_closed(socket(client));
    let (text, is_closed) = bench.heard(client);
    assert!(is_closed, "nobody is there to read on");
    assert!(text.contains("{\"error\":{\"code\":1,\"message\":\"context canceled\"}}\n"), "{text}");
    bench.core.handle_closed(socket(client));
    bench.put(["k".to_owned()].into_iter(), b"later");
    assert_eq!(bench.heard(client), (String::new(), false));
}

/// A client that waits for a lock which another has.
fn waiting_for_a_lock(bench: &mut Bench) -> usize {
    bench.put(["lock/1".to_owned()].into_iter(), b"held");
    let client = bench.connect_http(Entrance::Any);
    bench.say(client, &post("/v3/lock/lock", "{\"name\":\"bG9jaw==\"}"));
    for writes in [1, 1, 0] {
        assert_eq!(bench.heard(client).0, "");
        assert_eq!(bench.serve_writes(), writes, "a lease and a key");
    }
    assert_eq!(lock_keys(bench), 2);
    client
}

fn lock_keys(bench: &mut Bench) -> usize {
    let client = bench.connect_http(Entrance::Any);
    let prefix = "{\"key\":\"bG9jay8=\",\"range_end\":\"bG9jazA=\"}";
    bench.say(client, &post("/v3/kv/range", prefix));
    bench.heard(client).0.matches("\"key\":").count()
}

/// Found by a reviewer: the lock went to a client that was not there any more, and nobody had it.
#[test]
fn a_lock_is_not_left_to_a_json_client_that_has_gone() {
    let mut bench = Bench::new(1, b"v", ServiceLimits::default());
    let client = waiting_for_a_lock(&mut bench);
    bench.core.handle_half_closed(socket(client));
    let (text, is_closed) = bench.heard(client);
    assert!(text.starts_with("HTTP/1.1 499 status code 499\r\n") && is_closed, "{text}");
    assert_eq!((bench.serve_writes(), lock_keys(&mut bench)), (1, 1));
}

/// Found by a reviewer: with as many calls under way as there may be, the key stayed.
#[test]
fn what_a_lock_leaves_behind_is_removed_once_there_is_room() {
    let mut bench = Bench::new(1, b"v", ServiceLimits::default());
    let client = waiting_for_a_lock(&mut bench);
    let (calls, timeouts) = (&mut bench.core.desk.calls, Timeouts { client: None, server: NOW });
    let mut slots: Vec<Slot> = Vec::new();
    while calls.len() < CALLS_MAX {
        let (socket, stream) = (socket(client), StreamKey::default());
        let call = Call { socket, stream, waiting: Waiting::Write };
        slots.push(calls.insert(call, 0, NOW, timeouts));
    }
    bench.core.handle_half_closed(socket(client));
    assert!(bench.heard(client).0.starts_with("HTTP/1.1 499 "));
    bench.core.handle_tick(NOW);
    assert_eq!(bench.serve_writes(), 0, "no room yet");
    for slot in slots {
        bench.core.desk.calls.take(slot);
    }
    bench.core.handle_tick(NOW);
    assert_eq!((bench.serve_writes(), lock_keys(&mut bench)), (1, 1));
}

#[test]
fn addresses_serve_what_they_are_for() {
    let mut bench = Bench::new(1, b"v", ServiceLimits::default());
    let preface = [&PREFACE[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    for (entrance, has_grpc, has_json, has_health) in [
        (Entrance::Any, true, true, true),
        (Entrance::Grpc, true, false, false),
        (Entrance::Http, false, true, true),
        (Entrance::Metrics, false, false, true),
    ] {
        let client = bench.connect_http(entrance);
        bench.core.handle_received(socket(client), &preface, NOW);
        let mut is_closed = false;
        bench.core.settle(NOW);
        while let Some(action) = bench.core.poll_action() {
            is_closed |= matches!(action, SocketAction::Close(_));
        }
        assert_eq!(is_closed, !has_grpc, "{entrance:?}");
        for (request, is_served) in
            [(post("/v3/kv/range", ALL), has_json), (get("/livez"), has_health)]
        {
            let client = bench.connect_http(entrance);
            bench.say(client, &request);
            let (text, is_closed) = bench.heard(client);
            assert_eq!(text.starts_with("HTTP/1.1 200 OK"), is_served, "{entrance:?}: {text}");
            assert_eq!(is_closed, !entrance.takes_http(), "{entrance:?}");
        }
    }
}

#[test]
fn who_sends_much_before_an_answer_is_not_read_from() {
    let mut bench = Bench::new(3000, b"value", ServiceLimits::default());
    let client = bench.connect_http(Entrance::Any);
    bench.say(client, &post("/v3/watch", "{}").repeat(2000));
    bench.core.settle(NOW);
    let mut is_paused = false;
    while let Some(action) = bench.core.poll_action() {
        is_paused |= matches!(action, SocketAction::Pause(_));
    }
    assert!(is_paused);
}
