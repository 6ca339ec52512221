//! Clients that say how long they wait.

use super::*;

/// Opens a call with one message whose client waits for a second.
fn call_for_a_second(
    bench: &mut Bench,
    client: usize,
    method: Method,
    request: &impl Message,
) -> u32 {
    let mut head = request_head(method.path());
    head.push(0);
    for text in ["grpc-timeout", "1S"] {
        head.push(u8::try_from(text.len()).unwrap());
        head.extend_from_slice(text.as_bytes());
    }
    let side = &mut bench.clients[client];
    let id = side.next_id;
    side.next_id += 2;
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &length, &message].concat();
    let mut bytes = Vec::new();
    put_frame(&mut bytes, 1, flag::END_HEADERS, id, &head);
    let is_stream = matches!(method, Method::Watch | Method::LeaseKeepAlive);
    put_frame(&mut bytes, 0, if is_stream { 0 } else { flag::END_STREAM }, id, &body);
    bench.core.handle_received(socket(client), &bytes, NOW);
    bench.settle();
    id
}

/// grpc-go cuts a call off at its client's deadline; streams were served on for ever, and calls
/// that wait were answered instead.
#[test]
fn whatever_waits_is_cut_off_when_its_client_has_no_more_time() {
    let mut bench = Bench::new(10, b"value", ServiceLimits::default());
    let client = bench.connect();
    let create = pb::WatchCreateRequest { key: vec![0].into(), ..<_>::default() };
    let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
    let watch = pb::WatchRequest { request_union };
    let put = pb::PutRequest { key: b"k".to_vec().into(), ..<_>::default() };
    let late = [
        call_for_a_second(&mut bench, client, Method::Watch, &watch),
        call_for_a_second(&mut bench, client, Method::LeaseKeepAlive, &pb::WatchRequest::default()),
        call_for_a_second(&mut bench, client, Method::Put, &put),
    ];
    let forever = bench.watch(client);
    bench.core.handle_tick(NOW + Duration::from_millis(900));
    bench.settle();
    for id in late {
        assert!(bench.clients[client].answers.get(&id).is_none_or(|answer| answer.reset.is_none()));
    }
    bench.core.handle_tick(NOW + Duration::from_millis(1200));
    bench.settle();
    for id in late {
        let answer = &bench.clients[client].answers[&id];
        assert_eq!(answer.reset.as_deref(), Some(&[0, 0, 0, 8][..]), "stream {id}");
    }
    assert!(bench.clients[client].answers[&forever].reset.is_none());
    assert!(bench.core.desk.stream_deadlines.is_empty());
}

/// A stream that ended by itself is not remembered until its deadline.
#[test]
fn a_deadline_is_forgotten_with_its_stream() {
    let mut bench = Bench::new(10, b"value", ServiceLimits::default());
    let client = bench.connect();
    let watch = pb::WatchRequest::default();
    let id = call_for_a_second(&mut bench, client, Method::Watch, &watch);
    assert_eq!(bench.core.desk.stream_deadlines.len(), 1);
    let mut bytes = Vec::new();
    put_frame(&mut bytes, 3, 0, id, &[0, 0, 0, 8]);
    bench.core.handle_received(socket(client), &bytes, NOW);
    bench.core.handle_tick(NOW + Duration::from_millis(100));
    assert!(bench.core.desk.stream_deadlines.is_empty());
}
