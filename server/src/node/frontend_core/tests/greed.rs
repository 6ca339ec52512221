//! Clients that ask on streams of theirs, again and again, and take none of the answers.

use engine::command::DeleteRangeRef;

use super::*;
use crate::frontend::http2::limits::{
    CONNECTION_WINDOW_BYTES, QUEUED_BYTES_MAX, STREAM_QUEUED_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::service::proto::v3electionpb::LeaderRequest;
use crate::service::proto::v3lockpb::LockRequest;

/// A watch request that is answered at once: its id is taken.
fn refused_create() -> Vec<u8> {
    let create = pb::WatchCreateRequest { watch_id: 1, ..<_>::default() };
    let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
    let message = pb::WatchRequest { request_union }.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat()
}

fn queued_bytes(bench: &mut Bench, client: usize) -> usize {
    connection_at(&mut bench.core.clients, socket(client)).unwrap().http2().queued_bytes()
}

/// What a client may still send, of a window of that size.
fn window_left(bench: &Bench, (client, stream): (usize, u32), window: u32, sent: u64) -> u64 {
    let granted = bench.clients[client].granted.get(&stream).copied().unwrap_or(0);
    u64::from(window) + granted - sent
}

/// Each answer went into its stream, whose window nobody opened, and the room for the next
/// question was given back as soon as it was read: memory for a client that asks for ever.
#[test]
fn who_asks_on_a_stream_and_reads_nothing_has_to_stop_asking() {
    let mut bench = Bench::new(0, b"", ServiceLimits::default());
    let client = bench.connect_with_windows(0);
    let stream = bench.watch(client);
    let message = refused_create();
    let batch = message.repeat(1500);
    let mut frame = Vec::new();
    put_frame(&mut frame, 0, 0, stream, &batch);
    // The stream's first message is the create of the watch itself, of fewer than 100 bytes.
    let (mut sent, mut count) = (100, 0);
    while window_left(&bench, (client, stream), STREAM_WINDOW_BYTES, sent) >= batch.len() as u64 {
        bench.core.handle_received(socket(client), &frame, NOW);
        bench.rest();
        sent += batch.len() as u64;
        count += 1500;
        assert!(sent < 50 << 20, "its window is opened again and again");
    }
    assert!(sent >= u64::from(STREAM_WINDOW_BYTES) - batch.len() as u64);
    let queued = queued_bytes(&mut bench, client);
    assert!(queued > STREAM_QUEUED_BYTES_MAX, "{queued} bytes");
    assert!(queued < 20 << 20, "{queued} bytes for a window of questions");

    // As soon as it reads, it gets all answers and may ask again.
    bench.open_windows(client);
    bench.rest();
    assert_eq!(queued_bytes(&mut bench, client), 0);
    let mut rest = &bench.clients[client].answers[&stream].body[..];
    let mut answers = 0;
    while let Some(([_, length @ ..], behind)) = rest.split_first_chunk::<5>() {
        rest = &behind[u32::from_be_bytes(*length) as usize..];
        answers += 1;
    }
    // The create of the stream, and of the others the first, were no refusals.
    assert_eq!(answers, 1 + count);
    let left = window_left(&bench, (client, stream), STREAM_WINDOW_BYTES, sent);
    assert!(left >= u64::from(STREAM_WINDOW_BYTES / 2), "{left} bytes");
}

/// Many such streams have a bound together, which is that of the connection's own window.
#[test]
fn many_streams_of_such_a_client_are_bounded_by_its_connection() {
    let mut bench = Bench::new(0, b"", ServiceLimits::default());
    let client = bench.connect_with_windows(0);
    let streams: Vec<u32> = (0..40).map(|_| bench.watch(client)).collect();
    bench.rest();
    let batch = refused_create().repeat(1800);
    let (mut sent, mut round) = (40 * 100, 0);
    let per_stream = u64::from(STREAM_WINDOW_BYTES) / batch.len() as u64 - 1;
    for stream in streams {
        for _ in 0..per_stream {
            if window_left(&bench, (client, 0), CONNECTION_WINDOW_BYTES, sent)
                < (CONNECTION_WINDOW_BYTES - 65_535) as u64 + batch.len() as u64
            {
                round += 1;
                break;
            }
            let mut frame = Vec::new();
            put_frame(&mut frame, 0, 0, stream, &batch);
            bench.core.handle_received(socket(client), &frame, NOW);
            sent += batch.len() as u64;
        }
        bench.rest();
    }
    assert!(round > 0, "{sent} bytes were taken");
    let queued = queued_bytes(&mut bench, client);
    assert!(queued > QUEUED_BYTES_MAX, "{queued} bytes");
    assert!(queued < QUEUED_BYTES_MAX + (128 << 20), "{queued} bytes");
    bench.open_windows(client);
    bench.rest();
    assert_eq!(queued_bytes(&mut bench, client), 0);
    let left = window_left(&bench, (client, 0), CONNECTION_WINDOW_BYTES, sent);
    assert!(left > u64::from(CONNECTION_WINDOW_BYTES / 2), "{left} bytes");
}

/// Only a graceful end closed the socket: a client that broke a rule, or whom nobody could reach
/// any more, kept its place until it went by itself.
#[test]
fn a_connection_that_has_ended_is_closed_even_if_its_last_words_do_not_leave() {
    let mut bench = Bench::new(1, b"value", ServiceLimits::default());
    let (polite, deaf) = (bench.connect(), bench.connect());
    bench.rest();
    bench.clients[deaf].reads_nothing = true;
    bench.call(deaf, Method::Range, &[range("k00000", "")]);
    bench.rest();
    assert!(bench.clients[deaf].under_way.is_some());
    let mut wrong = Vec::new();
    put_frame(&mut wrong, 0, 0, 0, b"data of no stream");
    for client in [polite, deaf] {
        bench.core.handle_received(socket(client), &wrong, NOW);
    }
    bench.rest();
    assert!(bench.clients[polite].said_goodbye);
    assert_eq!(bench.closed, [polite]);
    bench.core.handle_tick(NOW);
    bench.core.handle_tick(NOW + CLOSE_GRACE - Duration::from_millis(1));
    bench.rest();
    assert_eq!(bench.closed, [polite]);
    bench.core.handle_tick(NOW + CLOSE_GRACE);
    bench.rest();
    assert_eq!(bench.closed, [polite, deaf]);
}

/// A procedure's watch was opened anew for each leader, and knew nothing of what those before it
/// had left in the stream.
#[test]
fn an_observer_that_does_not_read_is_told_of_no_further_leaders() {
    let mut bench = Bench::new(0, b"", ServiceLimits::default());
    bench.store.engine.set_events_wanted(true, false);
    let client = bench.connect_with_windows(0);
    let value = [7; 100_000];
    bench.put(["e/0".to_owned()].into_iter(), &value);
    let name = b"e".to_vec().into();
    let stream = bench.call(client, Method::Observe, &[LeaderRequest { name }])[0];
    bench.rest();
    for leader in 1..60 {
        let (mut frames, mut writer) = (Vec::new(), FrameWriter::new());
        let key = format!("e/{}", leader - 1);
        let delete = DeleteRangeRef { key: key.as_bytes(), ..<_>::default() };
        writer.push_delete_range(&mut frames, &delete);
        bench.commit(&frames);
        bench.rest();
        bench.put([format!("e/{leader}")].into_iter(), &value);
        bench.rest();
    }
    let queued = queued_bytes(&mut bench, client);
    let config = WatchConfig::default();
    assert!(queued > config.stream_pending_bytes_max, "{queued} bytes");
    assert!(queued < config.stream_pending_bytes_max + 3 * value.len(), "{queued} bytes");
    // It hears of some leaders, and at last of the one there is.
    bench.open_windows(client);
    bench.rest();
    let body = &bench.clients[client].answers[&stream].body;
    let last = body.windows(4).rfind(|window| window.starts_with(b"e/")).unwrap();
    assert_eq!(last, b"e/59");
}

/// A lock's transaction names its key eight times: a name of 5 MB became a command that no record
/// of the log could hold, and the member ended.
#[test]
fn a_procedure_whose_command_the_log_cannot_hold_is_refused() {
    let limits = ServiceLimits { request_size_bytes_max: 64 << 20, ..<_>::default() };
    let mut bench = Bench::new(0, b"", limits);
    let client = bench.connect();
    let request = LockRequest { name: vec![b'n'; 5 << 20].into(), lease: 1 };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &length, &message].concat();
    let mut bytes = Vec::new();
    put_frame(&mut bytes, 1, flag::END_HEADERS, 1, &request_head(Method::Lock.path()));
    for piece in body.chunks(16_384) {
        put_frame(&mut bytes, 0, 0, 1, piece);
        bench.core.handle_received(socket(client), &bytes, NOW);
        bytes.clear();
    }
    assert!(bench.core.ask().frames.is_empty() && bench.core.ask().slots.is_empty());
    bench.clients[client].reads_nothing = true;
    bench.rest();
    let sent = bench.clients[client].under_way.take().unwrap();
    let text = b"etcdserver: request is too large";
    assert!(sent.windows(text.len()).any(|window| window == text));
}
