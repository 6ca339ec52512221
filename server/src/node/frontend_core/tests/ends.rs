//! How connections end that the server ends.

use super::*;
use crate::frontend::http2::ErrorCode;

const TICK: Duration = Duration::from_millis(100);

fn ping(bench: &mut Bench, client: usize) {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, 6, 0, 0, &[0; 8]);
    bench.core.handle_received(socket(client), &bytes, NOW);
}

/// The farewell was sent and the socket stayed open: whoever had broken a rule, or was dead, kept
/// its descriptor and its watchers until the client left.
#[test]
fn a_client_that_breaks_the_rules_is_told_and_closed() {
    let mut bench = Bench::new(1, b"value", ServiceLimits::default());
    let client = bench.connect();
    bench.settle();
    for _ in 0..3 {
        ping(&mut bench, client);
        bench.settle();
    }
    assert!(!bench.clients[client].closed, "three pings are forgiven");
    ping(&mut bench, client);
    bench.rest();
    assert!(bench.clients[client].closed);
    let (other, request) = (bench.connect(), range("k00000", ""));
    bench.call(other, Method::Range, &[request]);
    bench.rest();
    assert_eq!(bench.answered(other), 1);
}

#[test]
fn a_client_that_breaks_the_rules_and_does_not_read_is_closed_in_time() {
    let mut bench = Bench::new(1000, &[7; 1000], ServiceLimits::default());
    let client = bench.connect();
    bench.settle();
    bench.clients[client].reads_nothing = true;
    bench.call(client, Method::Range, &[range("k", "l")]);
    bench.settle();
    for _ in 0..4 {
        ping(&mut bench, client);
    }
    bench.settle();
    assert!(!bench.clients[client].closed, "its last send is under way");
    for tick in 1..=u32::from(LAST_SEND_TICKS_MAX) {
        assert!(!bench.clients[client].closed);
        bench.core.handle_tick(NOW + TICK * tick);
        bench.settle();
    }
    assert!(bench.clients[client].closed);
}

#[test]
fn a_client_that_is_dead_is_closed_without_a_word() {
    let mut bench = Bench::new(1, b"value", ServiceLimits::default());
    let client = bench.connect();
    bench.settle();
    let silence = Duration::from_secs(2 * 60 * 60);
    bench.core.handle_tick(NOW + silence);
    bench.settle();
    assert!(!bench.clients[client].closed, "it is asked first");
    bench.clients[client].received.clear();
    bench.core.handle_tick(NOW + silence + Duration::from_secs(20));
    bench.settle();
    assert!(bench.clients[client].closed);
    assert_eq!(bench.clients[client].received, b"");
}

/// Deadlines of watches and keep-alives were read and forgotten.
#[test]
fn a_stream_whose_time_is_over_is_cancelled_as_any_call() {
    let mut bench = Bench::new(1, b"value", ServiceLimits::default());
    let client = bench.connect();
    let unhurried = bench.watch(client);
    let mut bytes = Vec::new();
    let streams: Vec<u32> = [Method::Watch, Method::LeaseKeepAlive]
        .iter()
        .map(|method| {
            let side = &mut bench.clients[client];
            let id = side.next_id;
            side.next_id += 2;
            let mut head = request_head(method.path());
            head.extend_from_slice(b"\0\x0cgrpc-timeout\x021S");
            put_frame(&mut bytes, 1, flag::END_HEADERS, id, &head);
            id
        })
        .collect();
    bench.core.handle_received(socket(client), &bytes, NOW);
    bench.rest();
    let reset = |bench: &Bench, stream: u32| {
        bench.clients[client].answers.get(&stream).and_then(|answer| answer.reset)
    };
    bench.core.handle_tick(NOW + TICK * 9);
    bench.rest();
    assert!(streams.iter().all(|stream| reset(&bench, *stream).is_none()));
    bench.core.handle_tick(NOW + TICK * 10);
    bench.rest();
    let cancel = Some(ErrorCode::Cancel.to_wire());
    assert!(streams.iter().all(|stream| reset(&bench, *stream) == cancel));
    assert_eq!(reset(&bench, unhurried), None);
    assert_eq!(bench.core.desk.watches.counts().streams, 1);
    assert!(bench.core.desk.stream_deadlines.is_empty());
}
