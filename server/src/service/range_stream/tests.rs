//! Messages of a streamed range against what etcd cuts.

use prost::Message;

use super::*;
use crate::service::decode::decode_range;
use crate::service::proto::etcdserverpb as pb;
use crate::service::test_store::{TestStore, node};

/// All messages of a request, stepped with so small a budget that every step is cut short.
fn messages(
    store: &mut TestStore,
    request: &pb::RangeRequest,
    size_bytes_target: usize,
) -> Vec<pb::RangeResponse> {
    let bytes = request.encode_to_vec();
    let mut stream = RangeStream::new(&decode_range(&bytes).unwrap(), size_bytes_target).unwrap();
    let mut messages = Vec::new();
    loop {
        let (mut out, mut budget) = (Vec::new(), 3);
        let view = store.reader.pin();
        match stream.step(&view, node().header(), &mut budget, &mut out).unwrap() {
            StreamProgress::Done => return messages,
            StreamProgress::More => assert!(out.is_empty()),
            StreamProgress::Message => {
                let message = pb::RangeStreamResponse::decode(&out[..]).unwrap();
                assert_eq!(message.encode_to_vec(), out, "bytes of generated code");
                messages.push(message.range_response.unwrap());
            }
        }
    }
}

fn request(limit: i64) -> pb::RangeRequest {
    let all = || vec![0].into();
    pb::RangeRequest { key: all(), range_end: all(), limit, ..pb::RangeRequest::default() }
}

fn store_of(keys: usize) -> TestStore {
    let mut store = TestStore::new();
    for key in 0..keys {
        store.put(format!("{key:04}").as_bytes(), b"value");
    }
    store
}

fn counts(messages: &[pb::RangeResponse]) -> Vec<usize> {
    messages.iter().map(|message| message.kvs.len()).collect()
}

#[test]
fn messages_double_until_they_are_large_enough() {
    let mut store = store_of(200);
    let all = messages(&mut store, &request(0), 1 << 20);
    assert_eq!(counts(&all), [10, 20, 40, 80, 50]);
    let (last, rest) = all.split_last().unwrap();
    assert!(rest.iter().all(|message| message.header.is_none() && message.count == 0));
    assert_eq!((last.count, last.more), (200, false));
    assert_eq!(last.header.unwrap().revision, 201);
    let keys: Vec<_> = all.iter().flat_map(|message| &message.kvs).map(|kv| &kv.key).collect();
    assert!(keys.is_sorted() && keys.len() == 200);
    // Ten records take a few hundred bytes: twice the target is too much, half of it too little.
    assert_eq!(counts(&messages(&mut store, &request(0), 400))[..4], [10, 10, 10, 10]);
    assert_eq!(counts(&messages(&mut store, &request(0), 10))[..5], [10, 5, 2, 1, 1]);
}

#[test]
fn the_last_message_is_the_one_that_no_other_follows() {
    for keys in [0, 1, 9, 10, 11, 29, 30, 31] {
        let mut store = store_of(keys);
        let all = messages(&mut store, &request(0), 1 << 20);
        let last = all.last().unwrap();
        assert_eq!((last.count, last.more), (i64::try_from(keys).unwrap(), false), "{keys} keys");
        assert!(last.header.is_some());
        assert_eq!(counts(&all).iter().sum::<usize>(), keys);
        assert!(keys == 0 || !last.kvs.is_empty(), "{keys} keys: {:?}", counts(&all));
    }
}

#[test]
fn a_limit_ends_the_stream_and_says_what_is_left() {
    let mut store = store_of(100);
    for (limit, expected) in
        [(1, vec![1]), (10, vec![10]), (15, vec![10, 5]), (30, vec![10, 20]), (-1, vec![100])]
    {
        let all = messages(&mut store, &request(limit), 1 << 20);
        assert_eq!(counts(&all), expected, "limit {limit}");
        let last = all.last().unwrap();
        assert_eq!((last.count, last.more), (100, limit > 0), "limit {limit}");
    }
}

#[test]
fn a_count_is_one_message() {
    let mut store = store_of(50);
    let all = messages(&mut store, &pb::RangeRequest { count_only: true, ..request(0) }, 1 << 20);
    assert_eq!((counts(&all), all[0].count, all[0].more), (vec![0], 50, false));
}

#[test]
fn writes_between_the_messages_do_not_show() {
    let mut store = store_of(100);
    let bytes = request(0).encode_to_vec();
    let mut stream = RangeStream::new(&decode_range(&bytes).unwrap(), 1 << 20).unwrap();
    let mut seen = Vec::new();
    for round in 0.. {
        let (mut out, mut budget) = (Vec::new(), 20);
        let view = store.reader.pin();
        let progress = stream.step(&view, node().header(), &mut budget, &mut out).unwrap();
        drop(view);
        if progress == StreamProgress::Done {
            break;
        }
        if progress == StreamProgress::Message {
            let message = pb::RangeStreamResponse::decode(&out[..]).unwrap();
            seen.push(message.range_response.unwrap());
        }
        store.put(format!("new {round}").as_bytes(), b"");
        store.put(format!("{:04}", 99 - round).as_bytes(), b"changed");
    }
    let last = seen.last().unwrap();
    assert_eq!((last.count, last.header.unwrap().revision), (100, 101));
    let kvs: Vec<_> = seen.iter().flat_map(|message| &message.kvs).collect();
    assert!(kvs.len() == 100 && kvs.iter().all(|kv| kv.value == "value"));
}

#[test]
fn other_orders_and_filters_are_not_served() {
    let refused = |request: pb::RangeRequest| {
        let bytes = request.encode_to_vec();
        RangeStream::new(&decode_range(&bytes).unwrap(), 1).err()
    };
    let order =
        |sort_order, sort_target| pb::RangeRequest { sort_order, sort_target, ..request(0) };
    assert_eq!(refused(order(1, 0)), None);
    assert_eq!(refused(order(0, 1)), None);
    assert_eq!(refused(order(1, 1)), Some(Refusal::StreamOrder));
    assert_eq!(refused(order(2, 0)), Some(Refusal::StreamOrder));
    let filtered = pb::RangeRequest { min_mod_revision: 1, ..request(0) };
    assert_eq!(refused(filtered), Some(Refusal::StreamFilters));
    assert_eq!(refused(pb::RangeRequest::default()), Some(Refusal::EmptyKey));
    assert_eq!(refused(order(7, 0)), Some(Refusal::InvalidSortOption));
}

/// As etcd 3.7.1 answers: cut by key, sorted within each message.
#[test]
fn a_target_without_an_order_sorts_each_message() {
    let mut store = TestStore::new();
    for key in 0..25 {
        store.put(format!("{key:02}").as_bytes(), format!("{:02}", 99 - key).as_bytes());
    }
    let by_value = pb::RangeRequest { sort_target: 4, ..request(0) };
    let all = messages(&mut store, &by_value, 1 << 20);
    let keys: Vec<_> = all.iter().map(|message| message.kvs[0].key.clone()).collect();
    // Eleven keys are fetched, sorted, and ten of them sent; the last of these is the second key.
    assert_eq!(keys[0], "10");
    assert_eq!(all[0].kvs[9].key, "01");
    assert_eq!(keys[1], "22", "twenty-one from the third key on");
    let few = messages(&mut store, &pb::RangeRequest { sort_target: 4, ..request(3) }, 1 << 20);
    assert_eq!((few.len(), few[0].kvs.len(), few[0].more), (1, 3, true));
    assert_eq!(few[0].count, 3 + 23, "what is sent, and what lies behind the last of it");
}

/// Messages were cut by their keys alone: after many small values the next message could be ten
/// thousand large ones, held by a stream that nobody counts.
#[test]
fn a_message_of_values_that_have_suddenly_grown_ends_at_a_size() {
    let mut store = store_of(150);
    let large = vec![7; 1 << 20];
    for key in 0..30 {
        store.put(format!("z{key:02}").as_bytes(), &large);
    }
    for request in [request(0), request(-1), pb::RangeRequest { sort_target: 1, ..request(0) }] {
        let all = messages(&mut store, &request, 1 << 20);
        let largest = all.iter().map(Message::encoded_len).max().unwrap();
        assert!(largest > 4 << 20, "{largest} bytes");
        assert!(largest <= MESSAGE_SIZE_BYTES_MAX + large.len() + 20_000, "{largest} bytes");
        let mut keys: Vec<_> =
            all.iter().flat_map(|message| &message.kvs).map(|kv| kv.key.clone()).collect();
        assert_eq!(all.last().unwrap().count, 180);
        if request.sort_target == 0 {
            assert!(keys.is_sorted());
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 180);
    }
}
