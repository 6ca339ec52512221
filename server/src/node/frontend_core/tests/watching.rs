//! Many watchers on a core: what a turn makes of a large fan-out, and what may wait.

use super::*;
use crate::node::watches::CONNECTION_QUEUED_BYTES_MAX;

/// All ten thousand responses to one put were made in one turn: every put of the same core waited.
#[test]
fn a_large_fan_out_leaves_turns_to_others() {
    let mut bench = Bench::new(1, b"value", ServiceLimits::default());
    let (watcher, other) = (bench.connect(), bench.connect());
    let streams: Vec<u32> = (0..5000).map(|_| bench.watch(watcher)).collect();
    bench.rest();
    let told = |bench: &Bench| {
        streams.iter().filter(|stream| !bench.watched(watcher, **stream).is_empty()).count()
    };
    assert_eq!(told(&bench), 0);
    bench.put(["k1".to_owned()].into_iter(), b"value");
    bench.call(other, Method::Range, &[range("k1", "")]);
    bench.settle();
    assert_eq!(bench.answered(other), 1);
    let at_once = told(&bench);
    assert!((500..4000).contains(&at_once), "{at_once} responses in one turn");
    // What comes meanwhile is answered between the turns, and told behind.
    bench.put(["k2".to_owned()].into_iter(), b"value");
    bench.call(other, Method::Range, &[range("k2", "")]);
    bench.settle();
    assert_eq!(bench.answered(other), 2);
    assert!(bench.core.has_work());
    bench.rest();
    for stream in &streams {
        assert_eq!(bench.watched(watcher, *stream), ["k1", "k2"]);
    }
}

/// Each stream of a connection could wait with a megabyte, and there may be thousands.
#[test]
fn streams_that_are_not_read_share_a_bound() {
    const STREAMS: usize = 200;
    let mut bench = Bench::new(1, b"value", ServiceLimits::default());
    let (deaf, other) = (bench.connect_with_windows(0), bench.connect());
    let streams: Vec<u32> = (0..STREAMS).map(|_| bench.watch(deaf)).collect();
    let read = bench.watch(other);
    bench.rest();
    // Far more than the bound allows for each stream by itself.
    let keys: Vec<String> = (0..64).map(|number| format!("k{number:02}")).collect();
    for key in &keys {
        bench.put([key.clone()].into_iter(), &[7; 10_000]);
        bench.rest();
    }
    assert_eq!(bench.watched(other, read), keys);
    let Speech::Grpc(connection) = &mut bench.core.clients[deaf].as_mut().unwrap().speech else {
        panic!("it speaks gRPC")
    };
    let queued = connection.http2().queued_bytes();
    // The bound, and one response more for each stream.
    let bound = CONNECTION_QUEUED_BYTES_MAX + STREAMS * 11_000;
    assert!((CONNECTION_QUEUED_BYTES_MAX..bound).contains(&queued), "{queued} bytes wait");
    bench.open_windows(deaf);
    bench.rest();
    for stream in streams {
        assert_eq!(bench.watched(deaf, stream), keys, "stream {stream}");
    }
}
