//! Answers in JSON, against what Go's protojson writes.

use prost::Message;

use super::super::schema::messages_of;
use super::*;
use crate::service::proto::{etcdserverpb as pb, mvccpb};

fn encoded(path: &str, message: &impl Message, room: usize) -> String {
    let (_, answer) = messages_of(path).expect("it is in our .proto files");
    let mut encoder = Encoder::new(message.encode_to_vec(), answer, Escape::Json);
    let mut out = Vec::new();
    for _ in 0..1_000_000 {
        let before = out.len();
        match encoder.step(&mut out, room) {
            Ok(true) => return String::from_utf8(out).expect("JSON is text"),
            Ok(false) => assert!(out.len() > before, "a step writes something"),
            Err(Malformed) => panic!("it is a message"),
        }
    }
    panic!("no end")
}

fn answer() -> pb::RangeResponse {
    let key_value = |key: &[u8], value: &[u8]| mvccpb::KeyValue {
        key: key.to_vec().into(),
        create_revision: 2,
        mod_revision: -1,
        version: 1,
        value: value.to_vec().into(),
        lease: 0,
    };
    pb::RangeResponse {
        header: Some(pb::ResponseHeader {
            cluster_id: u64::MAX,
            member_id: 1,
            revision: 3,
            raft_term: 2,
        }),
        kvs: vec![key_value(b"a", b""), key_value(b"\xff\xfe", &[b'x'; 100_000])],
        more: true,
        count: 7,
    }
}

#[test]
fn a_range_reads_as_etcd_writes_it_however_it_is_cut() {
    let value = "eHh4".repeat(33_333) + "eA==";
    let expected = format!(
        "{{\"header\":{{\"cluster_id\":\"18446744073709551615\",\"member_id\":\"1\",\
         \"revision\":\"3\",\"raft_term\":\"2\"}},\"kvs\":[{{\"key\":\"YQ==\",\
         \"create_revision\":\"2\",\"mod_revision\":\"-1\",\"version\":\"1\"}},\
         {{\"key\":\"//4=\",\"create_revision\":\"2\",\"mod_revision\":\"-1\",\"version\":\"1\",\
         \"value\":\"{value}\"}}],\"more\":true,\"count\":\"7\"}}"
    );
    for room in [1, 10, 4096, usize::MAX] {
        assert_eq!(encoded("/etcdserverpb.KV/Range", &answer(), room), expected, "room {room}");
    }
    let empty = pb::RangeResponse::default();
    assert_eq!(encoded("/etcdserverpb.KV/Range", &empty, 1), "{}");
}

/// Whoever asks for a million keys without their values has them looked up in turns.
#[test]
fn the_fields_of_a_large_answer_are_looked_up_step_by_step() {
    let count = 2 * STEP_FIELDS + 1;
    let kvs = vec![mvccpb::KeyValue::default(); count];
    let message = pb::RangeResponse { kvs, ..pb::RangeResponse::default() };
    let (_, answer) = messages_of("/etcdserverpb.KV/Range").expect("it is in our .proto files");
    let mut encoder = Encoder::new(message.encode_to_vec(), answer, Escape::Json);
    let mut out = Vec::new();
    for _ in 0..2 {
        assert_eq!((encoder.step(&mut out, usize::MAX), &out[..]), (Ok(false), &b"{"[..]));
    }
    assert_eq!(encoder.step(&mut out, usize::MAX), Ok(true));
    let text = String::from_utf8(out).expect("JSON is text");
    assert_eq!(text.len(), "{\"kvs\":[]}".len() + 3 * count - 1);
}

#[test]
fn the_arm_of_a_oneof_is_there_even_if_it_is_empty() {
    let arm = pb::response_op::Response::ResponsePut(pb::PutResponse::default());
    let answer = pb::TxnResponse {
        header: None,
        succeeded: false,
        responses: vec![pb::ResponseOp { response: Some(arm) }, pb::ResponseOp { response: None }],
    };
    let json = encoded("/etcdserverpb.KV/Txn", &answer, 1);
    assert_eq!(json, "{\"responses\":[{\"response_put\":{}},{}]}");
}

#[test]
fn enums_are_named_and_unknown_ones_numbered() {
    let answer = pb::AlarmResponse {
        header: None,
        alarms: vec![
            pb::AlarmMember { member_id: 1, alarm: 1 },
            pb::AlarmMember { member_id: 2, alarm: 99 },
            pb::AlarmMember { member_id: 0, alarm: 0 },
        ],
    };
    assert_eq!(
        encoded("/etcdserverpb.Maintenance/Alarm", &answer, 1),
        "{\"alarms\":[{\"memberID\":\"1\",\"alarm\":\"NOSPACE\"},\
         {\"memberID\":\"2\",\"alarm\":99},{}]}"
    );
    let status = pb::StatusResponse {
        version: "3.7.1".into(),
        errors: vec!["a\"b".into(), String::new()],
        is_learner: true,
        ..pb::StatusResponse::default()
    };
    assert_eq!(
        encoded("/etcdserverpb.Maintenance/Status", &status, 1),
        "{\"version\":\"3.7.1\",\"errors\":[\"a\\\"b\",\"\"],\"isLearner\":true}"
    );
}

#[test]
fn what_is_no_message_ends_the_encoder() {
    let (_, answer_id) = messages_of("/etcdserverpb.KV/Range").expect("it is ours");
    let whole = answer().encode_to_vec();
    for seed in 0..5_000usize {
        let mut bytes = whole[..200].to_vec();
        bytes.truncate(seed % 200);
        if let Some(place) = seed.checked_rem(bytes.len()) {
            bytes[place] ^= u8::try_from(seed / 200 + 1).unwrap();
        }
        let mut encoder = Encoder::new(bytes, answer_id, Escape::Html);
        let mut out = Vec::new();
        for _ in 0..10_000 {
            if encoder.step(&mut out, 1) != Ok(false) {
                break;
            }
        }
    }
}
