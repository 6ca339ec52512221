//! Procedures against scripted answers: what they ask for, in which order, and what they say.

use prost::bytes::Bytes;

use super::*;
use crate::service::proto::mvccpb;
use pb::response_op::Response;

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

fn kv(key: &str, value: &str, create_revision: i64) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        create_revision,
        mod_revision: create_revision,
        version: 1,
        lease: 0,
    }
}

fn range(revision: i64, kvs: Vec<mvccpb::KeyValue>) -> pb::RangeResponse {
    pb::RangeResponse { header: header(revision), kvs, ..pb::RangeResponse::default() }
}

fn found(kvs: Vec<mvccpb::KeyValue>) -> pb::ResponseOp {
    pb::ResponseOp { response: Some(Response::ResponseRange(range(0, kvs))) }
}

fn put() -> pb::ResponseOp {
    pb::ResponseOp { response: Some(Response::ResponsePut(pb::PutResponse::default())) }
}

fn txn(revision: i64, succeeded: bool, responses: Vec<pb::ResponseOp>) -> pb::TxnResponse {
    pb::TxnResponse { header: header(revision), succeeded, responses }
}

fn event(kind: mvccpb::event::EventType, kv: mvccpb::KeyValue) -> mvccpb::Event {
    mvccpb::Event { r#type: kind as i32, kv: Some(kv), prev_kv: None }
}

fn watched(revision: i64, events: Vec<mvccpb::Event>) -> Vec<u8> {
    let response =
        pb::WatchResponse { header: header(revision), events, ..pb::WatchResponse::default() };
    response.encode_to_vec()
}

fn begin(method: Method, request: &impl Message) -> Procedure {
    Procedure::begin(method, &request.encode_to_vec()).unwrap()
}

/// The request that is wanted, which must be of this method.
fn wanted<R: Message + Default>(procedure: &mut Procedure, method: Method) -> R {
    match procedure.poll_step() {
        Some(Step::Call(asked, request)) => {
            assert_eq!(asked, method);
            R::decode(&request[..]).unwrap()
        }
        other => panic!("{other:?} instead of a call of {}", method.path()),
    }
}

fn wanted_watch(procedure: &mut Procedure) -> pb::WatchCreateRequest {
    let Some(Step::Watch(request)) = procedure.poll_step() else { panic!("no watch") };
    match pb::WatchRequest::decode(&request[..]).unwrap().request_union {
        Some(pb::watch_request::RequestUnion::CreateRequest(create)) => create,
        other => panic!("{other:?}"),
    }
}

fn answer(procedure: &mut Procedure, response: &impl Message) {
    procedure.handle_answer(Ok(&response.encode_to_vec()));
}

fn answered<R: Message + Default>(procedure: &mut Procedure) -> R {
    match procedure.poll_step() {
        Some(Step::Answer(bytes)) => R::decode(&bytes[..]).unwrap(),
        other => panic!("{other:?} instead of an answer"),
    }
}

fn failed(procedure: &mut Procedure) -> String {
    match procedure.poll_step() {
        Some(Step::Fail(text)) => text,
        other => panic!("{other:?} instead of a failure"),
    }
}

fn lock(lease: i64) -> Procedure {
    begin(Method::Lock, &lock_pb::LockRequest { name: Bytes::from_static(b"n"), lease })
}

/// A lock whose key was created at revision 7 while one of revision 3 holds it.
fn waiting_lock() -> Procedure {
    let mut procedure = lock(0xab);
    let _: pb::TxnRequest = wanted(&mut procedure, Method::Txn);
    answer(&mut procedure, &txn(7, true, vec![put(), found(vec![kv("n/1", "", 3)])]));
    let before: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    assert_eq!((&before.key[..], &before.range_end[..], before.limit), (&b"n/"[..], &b"n0"[..], 1));
    assert_eq!(before.max_create_revision, 6);
    answer(&mut procedure, &range(8, vec![kv("n/1", "", 3)]));
    let watch = wanted_watch(&mut procedure);
    assert_eq!((&watch.key[..], watch.start_revision), (&b"n/1"[..], 8));
    procedure
}

#[test]
fn a_free_lock_is_one_transaction() {
    let mut procedure = lock(0xab);
    let request: pb::TxnRequest = wanted(&mut procedure, Method::Txn);
    assert_eq!(&request.compare[0].key[..], b"n/ab");
    assert_eq!((request.success.len(), request.failure.len()), (2, 2));
    answer(&mut procedure, &txn(7, true, vec![put(), found(vec![kv("n/ab", "", 7)])]));
    let locked: lock_pb::LockResponse = answered(&mut procedure);
    assert_eq!((&locked.key[..], locked.header), (&b"n/ab"[..], header(7)));
}

#[test]
fn a_lock_without_a_lease_is_granted_one_first() {
    let mut procedure = lock(0);
    let grant: pb::LeaseGrantRequest = wanted(&mut procedure, Method::LeaseGrant);
    assert_eq!((grant.ttl, grant.id), (60, 0));
    let granted = pb::LeaseGrantResponse { id: 0x1f, ttl: 60, ..<_>::default() };
    answer(&mut procedure, &granted);
    let request: pb::TxnRequest = wanted(&mut procedure, Method::Txn);
    assert_eq!(&request.compare[0].key[..], b"n/1f");
    procedure.handle_answer(Err("etcdserver: requested lease not found".to_owned()));
    assert_eq!(failed(&mut procedure), "etcdserver: requested lease not found");
}

#[test]
fn a_session_that_holds_the_lock_holds_it_again() {
    let mut procedure = lock(0xab);
    let _: pb::TxnRequest = wanted(&mut procedure, Method::Txn);
    let own = || found(vec![kv("n/ab", "", 5)]);
    answer(&mut procedure, &txn(9, false, vec![own(), own()]));
    let locked: lock_pb::LockResponse = answered(&mut procedure);
    assert_eq!(locked.header, header(9));
}

#[test]
fn who_waits_for_a_lock_follows_the_key_before_its_own() {
    let mut procedure = waiting_lock();
    procedure.handle_watched(&watched(8, Vec::new()));
    assert_eq!(procedure.poll_step(), None, "the watch was created");
    let put = event(mvccpb::event::EventType::Put, kv("n/1", "x", 3));
    procedure.handle_watched(&watched(9, vec![put]));
    assert_eq!(procedure.poll_step(), None);
    let delete = event(mvccpb::event::EventType::Delete, kv("n/1", "", 0));
    procedure.handle_watched(&watched(10, vec![delete]));
    let _: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    answer(&mut procedure, &range(10, Vec::new()));
    let own: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    assert_eq!((&own.key[..], own.range_end.len()), (&b"n/ab"[..], 0));
    answer(&mut procedure, &range(11, vec![kv("n/ab", "", 7)]));
    let locked: lock_pb::LockResponse = answered(&mut procedure);
    assert_eq!(locked.header, header(11));
}

#[test]
fn a_lock_whose_key_was_lost_while_it_waited_is_not_held() {
    let mut procedure = waiting_lock();
    let delete = event(mvccpb::event::EventType::Delete, kv("n/1", "", 0));
    procedure.handle_watched(&watched(10, vec![delete]));
    let _: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    answer(&mut procedure, &range(10, Vec::new()));
    let _: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    answer(&mut procedure, &range(11, Vec::new()));
    assert_eq!(failed(&mut procedure), "mutex: session is expired");
}

#[test]
fn who_gives_up_waiting_takes_its_key_away() {
    let (method, request) = waiting_lock().give_up().unwrap();
    assert_eq!(method, Method::DeleteRange);
    assert_eq!(&pb::DeleteRangeRequest::decode(&request[..]).unwrap().key[..], b"n/ab");
    assert_eq!(lock(0xab).give_up(), None, "nothing is claimed yet");
}

#[test]
fn a_wait_that_fails_releases_the_key_and_then_says_why() {
    let mut procedure = waiting_lock();
    let compacted =
        pb::WatchResponse { canceled: true, compact_revision: 20, ..pb::WatchResponse::default() };
    procedure.handle_watched(&compacted.encode_to_vec());
    let _: pb::DeleteRangeRequest = wanted(&mut procedure, Method::DeleteRange);
    answer(&mut procedure, &pb::DeleteRangeResponse::default());
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(failed(&mut procedure), text);
}

#[test]
fn a_campaign_of_the_leader_proclaims_its_new_value() {
    let request = election_pb::CampaignRequest {
        name: Bytes::from_static(b"e"),
        lease: 0xab,
        value: Bytes::from_static(b"new"),
    };
    let mut procedure = begin(Method::Campaign, &request);
    let _: pb::TxnRequest = wanted(&mut procedure, Method::Txn);
    answer(&mut procedure, &txn(9, false, vec![found(vec![kv("e/ab", "old", 5)])]));
    let proclaim: pb::TxnRequest = wanted(&mut procedure, Method::Txn);
    assert_eq!(proclaim.success.len(), 1);
    answer(&mut procedure, &txn(10, true, vec![put()]));
    let before: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    assert_eq!(before.max_create_revision, 4);
    answer(&mut procedure, &range(10, Vec::new()));
    let elected: election_pb::CampaignResponse = answered(&mut procedure);
    let leader = elected.leader.unwrap();
    assert_eq!((&leader.key[..], leader.rev, leader.lease), (&b"e/ab"[..], 5, 0xab));
    assert_eq!(elected.header, header(9), "that of the first transaction");
}

#[test]
fn only_the_leader_speaks() {
    let mut procedure = begin(Method::Proclaim, &election_pb::ProclaimRequest::default());
    assert_eq!(failed(&mut procedure), "\"leader\" field must be provided");
    let leader = election_pb::LeaderKey {
        name: Bytes::from_static(b"e"),
        key: Bytes::from_static(b"e/ab"),
        rev: 5,
        lease: 0xab,
    };
    let request =
        election_pb::ProclaimRequest { leader: Some(leader), value: Bytes::from_static(b"v") };
    let mut procedure = begin(Method::Proclaim, &request);
    let _: pb::TxnRequest = wanted(&mut procedure, Method::Txn);
    answer(&mut procedure, &txn(10, false, Vec::new()));
    assert_eq!(failed(&mut procedure), "election: not leader");
    let request = election_pb::LeaderRequest { name: Bytes::from_static(b"e") };
    let mut procedure = begin(Method::Leader, &request);
    let _: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    answer(&mut procedure, &range(10, Vec::new()));
    assert_eq!(failed(&mut procedure), "election: no leader");
}

#[test]
fn an_observer_sees_every_leader_and_its_proclamations() {
    let sent = |procedure: &mut Procedure| match procedure.poll_step() {
        Some(Step::Send(bytes)) => {
            procedure.handle_sent();
            let response = election_pb::LeaderResponse::decode(&bytes[..]).unwrap();
            (response.header.unwrap().revision, response.kv.unwrap().value)
        }
        other => panic!("{other:?} instead of a message"),
    };
    let put = |value, revision| event(mvccpb::event::EventType::Put, kv("e/1", value, revision));
    let delete = || event(mvccpb::event::EventType::Delete, kv("e/1", "", 0));
    let request = election_pb::LeaderRequest { name: Bytes::from_static(b"e") };
    let mut procedure = begin(Method::Observe, &request);
    let _: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    answer(&mut procedure, &range(4, Vec::new()));
    let watch = wanted_watch(&mut procedure);
    assert_eq!((&watch.range_end[..], watch.start_revision), (&b"e0"[..], 4));
    procedure.handle_watched(&watched(5, vec![delete(), put("a", 5), put("b", 6)]));
    assert_eq!(sent(&mut procedure), (5, Bytes::from_static(b"a")));
    assert_eq!(wanted_watch(&mut procedure).start_revision, 6);
    procedure.handle_watched(&watched(8, vec![put("b", 6), put("c", 7), delete(), put("d", 8)]));
    assert_eq!(sent(&mut procedure), (8, Bytes::from_static(b"b")));
    assert_eq!(sent(&mut procedure), (8, Bytes::from_static(b"c")));
    let _: pb::RangeRequest = wanted(&mut procedure, Method::Range);
    procedure.handle_answer(Err("etcdserver: server stopped".to_owned()));
    assert_eq!(procedure.poll_step(), Some(Step::End));
}
