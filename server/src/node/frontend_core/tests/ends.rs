//! How connections end that the server ends.

use super::*;

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
    assert!(!bench.closed.contains(&client), "three pings are forgiven");
    ping(&mut bench, client);
    bench.rest();
    assert!(bench.closed.contains(&client));
    let (other, request) = (bench.connect(), range("k00000", ""));
    bench.call(other, Method::Range, &[request]);
    bench.rest();
    assert_eq!(bench.answered(other), 1);
}

#[test]
fn a_client_that_is_dead_is_closed_without_a_word() {
    let mut bench = Bench::new(1, b"value", ServiceLimits::default());
    let client = bench.connect();
    bench.settle();
    let silence = Duration::from_secs(2 * 60 * 60);
    bench.core.handle_tick(NOW + silence);
    bench.settle();
    assert!(!bench.closed.contains(&client), "it is asked first");
    bench.clients[client].received.clear();
    bench.core.handle_tick(NOW + silence + Duration::from_secs(20));
    bench.settle();
    assert!(bench.closed.contains(&client));
    assert_eq!(bench.clients[client].received, b"");
}
