//! Messages in, answers out, on a store in memory.

use engine::alarm::{Alarm, AlarmKind};
use engine::answer::Rejection;
use engine::command::{AlarmAction, AlarmRef};
use engine::ids::MemberId;
use prost::bytes::Bytes;

use super::*;
use crate::service::concurrency::Procedure;
use crate::service::proto::mvccpb;
use crate::service::test_store::{TestStore, node};

struct Desk {
    store: TestStore,
    service: Service,
    node: NodeState,
    /// What a turn may read.
    keys: usize,
}

fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..pb::RangeRequest::default()
    }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    pb::PutRequest { key, value, ..pb::PutRequest::default() }
}

fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: Bytes::from(key.to_owned()),
        create_revision: create,
        mod_revision: modified,
        version,
        value: Bytes::from(value.to_owned()),
        lease: 0,
    }
}

impl Desk {
    fn new(local_reads: bool) -> Self {
        let node = node();
        let mut store = TestStore::new();
        store.engine.set_local_reads(local_reads);
        store.engine.publish();
        let lease_ids = LeaseIds::new(1, 1, 0, 1);
        let service = Service::new(ServiceLimits::default(), &node, lease_ids);
        Self { service, node, store, keys: 10 }
    }

    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(self.node.header().to_proto(revision))
    }

    /// Handles a message up to its first action, whose invariants it checks.
    fn act(&mut self, method: Method, message: &[u8]) -> (Action, Vec<u8>, Vec<u8>) {
        let (mut frames, mut out) = (b"frames".to_vec(), b"out".to_vec());
        let view = self.store.reader.pin();
        let (service, node, mut keys) = (&mut self.service, &self.node, self.keys);
        let (frames_to, out_to) = (&mut frames, &mut out);
        let action =
            service.handle_message(method, message, node, &view, &mut keys, frames_to, out_to);
        let (frames, out) = (frames.split_off(6), out.split_off(3));
        assert_eq!(matches!(action, Action::Write), !frames.is_empty());
        // The answer of this one has no fields.
        let has_bytes = method != Method::MoveLeader;
        let is_answered = matches!(action, Action::Answer | Action::Stream);
        assert_eq!(is_answered && has_bytes, !out.is_empty());
        (action, frames, out)
    }

    /// Handles a call to its end, whatever it takes.
    fn call<A: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
    ) -> Result<A, Refusal> {
        let (action, frames, mut out) = self.act(method, &request.encode_to_vec());
        match action {
            Action::Answer | Action::Stream | Action::Defragment | Action::MoveLeader(_) => {}
            Action::ChangeMembers(ask) => panic!("{ask:?} is the log core's"),
            Action::Refuse(refusal) => return Err(refusal),
            Action::Serve(_) => panic!("a stream has more than one answer"),
            Action::Write => {
                let (answers, _) = self.store.commit(&frames);
                self.service.encode_answer(&answers[0], &self.node, &mut out)?;
            }
            Action::AskLease(LeaseQuestion::TimeToLive(asked)) => {
                let lease = self.store.reader.pin().lease(asked.id).unwrap();
                let times = lease.map(|lease| (lease.ttl_seconds - 1, lease.ttl_seconds));
                let read = self.service.begin_time_to_live(asked, times);
                self.finish_read(read, &mut out)?;
            }
            Action::AskLease(LeaseQuestion::List) => {
                let view = self.store.reader.pin();
                let mut leases = Vec::new();
                view.leases(LeaseId(0), 10, &mut leases).unwrap();
                drop(view);
                let ids = leases.iter().map(|lease| lease.id).collect();
                let read = self.service.begin_leases(Arc::new(ids));
                self.finish_read(read, &mut out)?;
            }
            Action::Read(read) => self.finish_read(read, &mut out)?,
        }
        let answer = A::decode(&out[..]).unwrap();
        assert_eq!(answer.encode_to_vec(), out, "bytes of generated code");
        Ok(answer)
    }

    fn finish_read(&mut self, mut read: Box<Read>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let view = self.store.reader.pin();
        let (service, node) = (&mut self.service, &self.node);
        service.open_read(&mut read, &view)?;
        while service.step_read(&mut read, node, &view, &mut 3, out)? == Progress::More {}
        Ok(())
    }

    fn put(&mut self, key: &str, value: &str) -> pb::PutResponse {
        self.call(Method::Put, &put(key, value)).unwrap()
    }

    fn range(&mut self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Refusal> {
        self.call(Method::Range, request)
    }
}

#[test]
fn a_put_is_a_frame_and_its_answer_tells_the_revision() {
    let mut desk = Desk::new(true);
    let expected = pb::PutResponse { header: desk.header(2), prev_kv: None };
    assert_eq!(desk.put("k", "v"), expected);
    let again = pb::PutRequest { prev_kv: true, ..put("k", "w") };
    let prev_kv = Some(kv("k", "v", 2, 2, 1));
    let expected = pb::PutResponse { header: desk.header(3), prev_kv };
    assert_eq!(desk.call(Method::Put, &again), Ok(expected));
    let refused = pb::PutRequest { ignore_value: true, ..put("none", "") };
    let refusal = Refusal::Rejected(Rejection::KeyNotFound);
    assert_eq!(desk.call::<pb::PutResponse>(Method::Put, &refused), Err(refusal));
}

/// etcd 3.7.1 looks at the time only when it applies the grant, and at the alarms before that.
#[test]
fn a_grant_of_too_long_a_time_meets_the_alarms_first() {
    let mut desk = Desk::new(true);
    let grant = pb::LeaseGrantRequest { ttl: 9_000_000_001, id: 5 };
    let mut refused_under = |alarm: Option<pb::AlarmType>| {
        let kind = alarm.unwrap_or(pb::AlarmType::None);
        let change = |action| pb::AlarmRequest { action, member_id: 1, alarm: kind as i32 };
        let raised = desk.call::<pb::AlarmResponse>(Method::Alarm, &change(1));
        assert!(raised.is_ok());
        let refused = desk.call::<pb::LeaseGrantResponse>(Method::LeaseGrant, &grant);
        assert!(desk.call::<pb::AlarmResponse>(Method::Alarm, &change(2)).is_ok());
        refused.unwrap_err()
    };
    assert_eq!(refused_under(None), Refusal::LeaseTtlTooLarge);
    let no_space = refused_under(Some(pb::AlarmType::Nospace));
    assert_eq!(no_space, Refusal::Rejected(Rejection::NoSpace));
    let corrupt = refused_under(Some(pb::AlarmType::Corrupt));
    assert_eq!(corrupt, Refusal::Rejected(Rejection::Corrupt));
    assert_eq!(refused_under(None), Refusal::LeaseTtlTooLarge);
}

#[test]
fn ranges_are_answered_from_the_view() {
    for local_reads in [false, true] {
        let mut desk = Desk::new(local_reads);
        for (key, value) in [("a", "1"), ("b", ""), ("c", "3"), ("b", "2")] {
            desk.put(key, value);
        }
        let records = [kv("a", "1", 2, 2, 1), kv("b", "2", 3, 5, 2), kv("c", "3", 4, 4, 1)];
        let header = desk.header(5);
        let expected = |kvs: &[mvccpb::KeyValue], more, count| {
            Ok(pb::RangeResponse { header, kvs: kvs.to_vec(), more, count })
        };
        assert_eq!(desk.range(&range("a", "")), expected(&records[..1], false, 1));
        assert_eq!(desk.range(&range("x", "")), expected(&[], false, 0));
        assert_eq!(desk.range(&range("a", "\0")), expected(&records, false, 3));
        let limited = pb::RangeRequest { limit: 2, ..range("a", "z") };
        assert_eq!(desk.range(&limited), expected(&records[..2], true, 3));
        let counted = pb::RangeRequest { count_only: true, ..range("a", "c") };
        assert_eq!(desk.range(&counted), expected(&[], false, 2));
        let old = pb::RangeRequest { revision: 3, ..range("b", "") };
        assert_eq!(desk.range(&old), expected(&[kv("b", "", 3, 3, 1)], false, 1));
        let future = pb::RangeRequest { revision: 9, ..range("b", "") };
        let refusal = Refusal::Rejected(Rejection::FutureRevision);
        assert_eq!(desk.range(&future), Err(refusal));
        assert_eq!(desk.range(&range("", "")), Err(Refusal::EmptyKey));
    }
}

#[test]
fn a_long_range_is_answered_in_steps_at_one_revision() {
    let mut desk = Desk::new(true);
    for number in 0..100 {
        desk.put(&format!("k{number:03}"), "v");
    }
    let request = range("k", "l").encode_to_vec();
    let (action, _, _) = desk.act(Method::Range, &request);
    let Action::Read(mut read) = action else { panic!("{action:?}") };
    assert!(!read.needs_read_index() && !read.needs_same_view());
    desk.service.open_read(&mut read, &desk.store.reader.pin()).unwrap();
    // What is written meanwhile is not part of the answer.
    let (mut steps, mut out) = (0, Vec::new());
    loop {
        desk.put("k050", "later");
        desk.put(&format!("k9{steps}"), "later");
        let view = desk.store.reader.pin();
        let (service, node, mut keys) = (&mut desk.service, &desk.node, 10);
        let progress = service.step_read(&mut read, node, &view, &mut keys, &mut out).unwrap();
        assert!(keys == 0 || progress == Progress::Done);
        if progress == Progress::Done {
            break;
        }
        steps += 1;
    }
    assert!(steps > 3, "{steps} steps");
    let answer = pb::RangeResponse::decode(&out[..]).unwrap();
    assert_eq!((answer.header, answer.count), (desk.header(101), 100));
    assert_eq!(answer.kvs.len(), 100);
    assert!(answer.kvs.iter().all(|kv| &kv.value[..] == b"v"));
}

/// A step was bounded in keys alone, so that one over large values copied gigabytes.
#[test]
fn a_step_ends_after_some_bytes_too_and_brings_a_record_in_any_case() {
    let mut desk = Desk::new(true);
    let value = "v".repeat(3000);
    for number in 0..20 {
        desk.put(&format!("k{number:03}"), &value);
    }
    for (keys, steps_expected) in [(1, 20), (10, 10), (1000, 1)] {
        let (action, _, _) = desk.act(Method::Range, &range("k", "l").encode_to_vec());
        let Action::Read(mut read) = action else { panic!("{action:?}") };
        let view = desk.store.reader.pin();
        let (mut steps, mut out) = (1, Vec::new());
        let (service, node) = (&mut desk.service, &desk.node);
        service.open_read(&mut read, &view).unwrap();
        while service.step_read(&mut read, node, &view, &mut { keys }, &mut out).unwrap()
            == Progress::More
        {
            steps += 1;
        }
        assert_eq!(steps, steps_expected, "with {keys} keys a step");
        assert_eq!(pb::RangeResponse::decode(&out[..]).unwrap().kvs.len(), 20);
    }
}

#[test]
fn a_read_that_finds_the_budget_spent_waits() {
    let mut desk = Desk::new(true);
    desk.put("k", "v");
    desk.keys = 0;
    let (action, _, _) = desk.act(Method::Range, &range("k", "").encode_to_vec());
    assert!(matches!(action, Action::Read(_)), "{action:?}");
    let expected = vec![kv("k", "v", 2, 2, 1)];
    assert_eq!(desk.range(&range("k", "")).unwrap().kvs, expected);
}

/// An answer grew until its length no longer fitted the wire, and ended the process.
#[test]
fn an_answer_that_is_too_large_is_measured_and_not_written() {
    let mut desk = Desk::new(true);
    for number in 0..50 {
        desk.put(&format!("k{number:03}"), &"v".repeat(number));
    }
    let request = range("k", "l").encode_to_vec();
    let whole = desk.range(&range("k", "l")).unwrap().encoded_len() as u64;
    for (size_bytes_max, is_too_large) in [(whole, false), (whole - 1, true), (100, true)] {
        let limits = ServiceLimits { answer_size_bytes_max: size_bytes_max, ..<_>::default() };
        desk.service = Service::new(limits, &desk.node, LeaseIds::new(1, 1, 0, 1));
        let (action, _, _) = desk.act(Method::Range, &request);
        let Action::Read(mut read) = action else { panic!("{action:?}") };
        let view = desk.store.reader.pin();
        let (service, node, mut out) = (&mut desk.service, &desk.node, Vec::new());
        service.open_read(&mut read, &view).unwrap();
        while service.step_read(&mut read, node, &view, &mut 7, &mut out).unwrap() == Progress::More
        {
            assert!(out.len() as u64 <= size_bytes_max, "{} of {size_bytes_max}", out.len());
        }
        assert_eq!(read.is_too_large(), Some(whole).filter(|_| is_too_large));
        assert!(out.len() as u64 <= size_bytes_max);
        assert_eq!(out.len() as u64 == whole, !is_too_large);
    }
}

#[test]
fn only_serializable_reads_run_before_the_read_index() {
    let mut desk = Desk::new(false);
    let serializable = pb::RangeRequest { serializable: true, ..range("k", "") };
    let read_op = |range: &pb::RangeRequest| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(range.clone())),
    };
    let txn = |ops: Vec<pb::RequestOp>| pb::TxnRequest { success: ops, ..<_>::default() };
    let linearizable = pb::MemberListRequest { linearizable: true };
    let table = [
        (Method::Range, range("k", "").encode_to_vec(), true),
        (Method::Range, serializable.encode_to_vec(), false),
        (Method::Txn, txn(vec![read_op(&range("k", ""))]).encode_to_vec(), true),
        (Method::Txn, txn(vec![read_op(&serializable)]).encode_to_vec(), false),
        (Method::Txn, Vec::new(), false),
        (Method::MemberList, linearizable.encode_to_vec(), true),
        (Method::MemberList, Vec::new(), false),
    ];
    for (method, message, waits) in table {
        match desk.act(method, &message).0 {
            Action::Read(read) => assert_eq!(read.needs_read_index(), waits, "{method:?}"),
            Action::Answer => assert!(!waits, "{method:?}"),
            action => panic!("{method:?}: {action:?}"),
        }
    }
}

#[test]
fn transactions_write_through_the_log_and_read_without_it() {
    let mut desk = Desk::new(true);
    desk.put("k", "v");
    let request_range = pb::request_op::Request::RequestRange(range("k", ""));
    let read_op = pb::RequestOp { request: Some(request_range) };
    let compare = pb::Compare {
        key: Bytes::from_static(b"k"),
        target: 2,
        target_union: Some(pb::compare::TargetUnion::ModRevision(2)),
        ..pb::Compare::default()
    };
    let read_only = pb::TxnRequest {
        compare: vec![compare],
        success: vec![read_op.clone()],
        failure: Vec::new(),
    };
    let response_range = |revision, kvs| pb::RangeResponse {
        header: Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() }),
        kvs,
        more: false,
        count: 1,
    };
    let op = |response| pb::ResponseOp { response: Some(response) };
    let read =
        |revision, kvs| op(pb::response_op::Response::ResponseRange(response_range(revision, kvs)));
    let expected = pb::TxnResponse {
        header: desk.header(2),
        succeeded: true,
        responses: vec![read(2, vec![kv("k", "v", 2, 2, 1)])],
    };
    assert_eq!(desk.call(Method::Txn, &read_only), Ok(expected));

    let request_put = pb::request_op::Request::RequestPut(put("k", "w"));
    let write = pb::TxnRequest {
        success: vec![read_op.clone(), pb::RequestOp { request: Some(request_put) }, read_op],
        ..read_only
    };
    let response_put = pb::PutResponse {
        header: Some(pb::ResponseHeader { revision: 3, ..pb::ResponseHeader::default() }),
        prev_kv: None,
    };
    let expected = pb::TxnResponse {
        header: desk.header(3),
        succeeded: true,
        responses: vec![
            read(2, vec![kv("k", "v", 2, 2, 1)]),
            op(pb::response_op::Response::ResponsePut(response_put)),
            read(3, vec![kv("k", "w", 2, 3, 2)]),
        ],
    };
    assert_eq!(desk.call(Method::Txn, &write), Ok(expected));
}

#[test]
fn deletes_and_compactions_go_through_the_log() {
    let mut desk = Desk::new(true);
    desk.put("a", "1");
    desk.put("b", "2");
    let delete = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"z"),
        prev_kv: true,
    };
    let prev_kvs = vec![kv("a", "1", 2, 2, 1), kv("b", "2", 3, 3, 1)];
    let expected = pb::DeleteRangeResponse { header: desk.header(4), deleted: 2, prev_kvs };
    assert_eq!(desk.call(Method::DeleteRange, &delete), Ok(expected));
    let compact = pb::CompactionRequest { revision: 4, physical: false };
    let expected = pb::CompactionResponse { header: desk.header(4) };
    assert_eq!(desk.call(Method::Compact, &compact), Ok(expected));
    let again = desk.call::<pb::CompactionResponse>(Method::Compact, &compact);
    assert_eq!(again, Err(Refusal::Rejected(Rejection::Compacted)));
}

#[test]
fn the_member_tells_its_state() {
    let mut desk = Desk::new(true);
    desk.put("k", "v");
    let status: pb::StatusResponse = desk.call(Method::Status, &pb::StatusRequest {}).unwrap();
    assert_eq!(status.header, desk.header(2));
    assert_eq!(status.version, "3.7.1");
    assert_eq!((status.leader, status.raft_term), (0xae, 3));
    assert_eq!((status.raft_index, status.raft_applied_index), (1, 1));
    assert_eq!((status.db_size_quota, status.is_learner), (2 << 30, false));
    assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0);
    assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
    assert!(status.errors.is_empty());
    let (mut frames, mut writer) = (Vec::new(), FrameWriter::new());
    for (kind, member) in [(1, 4711), (2, 0), (9, 7)] {
        let alarm = Alarm { kind: AlarmKind(kind), member: MemberId(member) };
        writer.push_alarm(&mut frames, AlarmRef { action: AlarmAction::Raise, alarm });
    }
    writer.push_cluster_version_set(&mut frames, "3.7.0");
    writer.push_downgrade(&mut frames, Some("3.6.0"));
    desk.store.commit(&frames);
    let status: pb::StatusResponse = desk.call(Method::Status, &pb::StatusRequest {}).unwrap();
    // Printed by etcd 3.7.1.
    let errors = ["memberID:4711  alarm:NOSPACE", "alarm:CORRUPT", "memberID:7  alarm:9"];
    assert_eq!(status.errors, errors);
    let downgrade = pb::DowngradeInfo { enabled: true, target_version: "3.6.0".to_owned() };
    assert_eq!(status.downgrade_info, Some(downgrade));
    for (alarm, member_id) in [(1, 4711), (2, 0), (9, 7)] {
        let lower = pb::AlarmRequest { action: 2, member_id, alarm };
        let lowered: pb::AlarmResponse = desk.call(Method::Alarm, &lower).unwrap();
        assert_eq!(lowered.alarms, [pb::AlarmMember { member_id, alarm }]);
    }
    desk.node.leader = None;
    let status: pb::StatusResponse = desk.call(Method::Status, &pb::StatusRequest {}).unwrap();
    assert_eq!((status.leader, &status.errors[..]), (0, &["etcdserver: no leader".to_owned()][..]));
}

#[test]
fn members_are_listed_with_what_they_published() {
    let mut desk = Desk::new(true);
    let request = pb::MemberListRequest { linearizable: true };
    let mut member = pb::Member {
        id: 0xae,
        peer_ur_ls: vec!["http://localhost:2380".to_owned()],
        ..pb::Member::default()
    };
    let expected = pb::MemberListResponse { header: desk.header(0), members: vec![member.clone()] };
    assert_eq!(desk.call(Method::MemberList, &request), Ok(expected));

    let client_urls = vec!["http://localhost:2379".to_owned()];
    let publish = engine::command::MemberPublishRef {
        id: desk.node.member_id,
        name: "default",
        client_urls: &client_urls,
    };
    let mut frames = Vec::new();
    FrameWriter::new().push_member_publish(&mut frames, &publish);
    desk.store.commit(&frames);
    (member.name, member.client_ur_ls) = ("default".to_owned(), client_urls);
    let expected = pb::MemberListResponse { header: desk.header(0), members: vec![member] };
    assert_eq!(desk.call(Method::MemberList, &request), Ok(expected));
}

#[test]
fn alarms_are_raised_told_and_lowered() {
    let mut desk = Desk::new(true);
    let ask = |desk: &mut Desk, action, member_id, alarm| {
        let request = pb::AlarmRequest { action, member_id, alarm };
        let response = desk.call::<pb::AlarmResponse>(Method::Alarm, &request)?;
        assert_eq!(response.header, desk.header(1));
        let alarms = response.alarms.into_iter();
        Ok(alarms.map(|alarm| (alarm.member_id, alarm.alarm)).collect::<Vec<_>>())
    };
    assert_eq!(ask(&mut desk, 0, 0, 0), Ok(vec![]));
    assert_eq!(ask(&mut desk, 1, 5, 1), Ok(vec![(5, 1)]));
    assert_eq!(ask(&mut desk, 1, 0, 2), Ok(vec![(0, 2)]));
    assert_eq!(ask(&mut desk, 1, 0, 0), Ok(vec![]));
    assert_eq!(ask(&mut desk, 0, 99, 0), Ok(vec![(5, 1), (0, 2)]));
    assert_eq!(ask(&mut desk, 0, 0, 2), Ok(vec![(0, 2)]));
    assert_eq!(ask(&mut desk, 2, 6, 1), Ok(vec![]));
    assert_eq!(ask(&mut desk, 2, 5, 1), Ok(vec![(5, 1)]));
    for action in [3, -1] {
        assert_eq!(ask(&mut desk, action, 0, 1), Err(Refusal::UnknownAction));
    }
    let put = desk.call::<pb::PutResponse>(Method::Put, &put("k", "v"));
    assert_eq!(put, Err(Refusal::Rejected(Rejection::Corrupt)));
}

/// etcd asks for the quota before it looks at the request, and raises the alarm in its place.
#[test]
fn what_the_quota_has_no_room_for_raises_the_alarm() {
    let mut desk = Desk::new(true);
    desk.put("k", "v");
    let size_bytes = desk.store.reader.pin().size_bytes;
    let quota = i64::try_from(size_bytes).unwrap() + 1000;
    let limits = ServiceLimits { quota: Quota::from_flag(quota), ..ServiceLimits::default() };
    desk.service = Service::new(limits, &desk.node, LeaseIds::new(1, 1, 0, 1));
    let no_space = Refusal::Rejected(Rejection::NoSpace);
    let small = desk.call::<pb::PutResponse>(Method::Put, &put("", "v"));
    assert_eq!(small, Err(Refusal::EmptyKey), "there is room for it");
    for _ in 0..2 {
        let refused = desk.call::<pb::PutResponse>(Method::Put, &put("", &"v".repeat(744)));
        assert_eq!(refused, Err(no_space));
        let alarms: pb::AlarmResponse =
            desk.call(Method::Alarm, &pb::AlarmRequest::default()).unwrap();
        assert_eq!(alarms.alarms, [pb::AlarmMember { member_id: 0xae, alarm: 1 }]);
    }
    // The alarm stands, so that what there would be room for is refused as well.
    let refused = desk.call::<pb::PutResponse>(Method::Put, &put("x", "v"));
    assert_eq!(refused, Err(no_space));
    let delete = pb::DeleteRangeRequest { key: b"k"[..].into(), ..Default::default() };
    let deleted: pb::DeleteRangeResponse = desk.call(Method::DeleteRange, &delete).unwrap();
    assert_eq!(deleted.deleted, 1);
}

#[test]
fn a_member_without_a_vote_answers_only_what_any_member_knows() {
    let mut desk = Desk::new(true);
    desk.node.learner = true;
    let range = |serializable| pb::RangeRequest {
        key: b"k"[..].into(),
        serializable,
        ..Default::default()
    };
    let asked: Result<pb::RangeResponse, _> = desk.call(Method::Range, &range(false));
    assert_eq!(asked, Err(Refusal::Cluster(ClusterRefusal::NotSupportedForLearner)));
    let asked: Result<pb::RangeResponse, _> = desk.call(Method::Range, &range(true));
    assert!(asked.is_ok());
    let metadata = CallMetadata::default();
    for (method, is_answered) in [
        (Method::Status, true),
        (Method::Snapshot, true),
        (Method::Put, false),
        (Method::Watch, false),
        (Method::MemberList, false),
    ] {
        let checked = desk.service.check_call(method, &metadata, &desk.node);
        assert_eq!(checked.is_ok(), is_answered, "{method:?}");
    }
}

#[test]
fn a_downgrade_is_checked_begun_and_ended() {
    let mut desk = Desk::new(true);
    let ask = |desk: &mut Desk, action, version: &str| {
        let request = pb::DowngradeRequest { action, version: version.to_owned() };
        let response = desk.call::<pb::DowngradeResponse>(Method::Downgrade, &request)?;
        assert_eq!(response.header, desk.header(1));
        Ok(response.version)
    };
    let unknown = Refusal::Rejected(Rejection::ClusterVersionUnknown);
    assert_eq!(ask(&mut desk, 0, "3.6"), Err(unknown));
    let mut frames = Vec::new();
    FrameWriter::new().push_cluster_version_set(&mut frames, "3.7.0");
    desk.store.commit(&frames);
    for action in [0, 1] {
        assert_eq!(ask(&mut desk, action, "3"), Err(Refusal::WrongDowngradeVersion));
        let invalid = Refusal::Rejected(Rejection::InvalidDowngradeTarget);
        assert_eq!(ask(&mut desk, action, "3.5.0"), Err(invalid));
        assert_eq!(ask(&mut desk, action, "3.6.1"), Ok("3.7".to_owned()));
    }
    for action in [0, 1] {
        let twice = Refusal::Rejected(Rejection::DowngradeInProcess);
        assert_eq!(ask(&mut desk, action, "3.6"), Err(twice));
    }
    for _ in 0..2 {
        assert_eq!(ask(&mut desk, 2, "nonsense"), Ok("3.7".to_owned()));
    }
    assert_eq!(ask(&mut desk, 3, "3.6"), Err(Refusal::UnknownAction));
}

#[test]
fn hashes_want_one_view_from_beginning_to_end() {
    let mut desk = Desk::new(true);
    for number in 0..50 {
        desk.put(&format!("k{number}"), "v");
    }
    for method in [Method::Hash, Method::HashKv] {
        let (action, _, _) = desk.act(method, b"");
        assert!(matches!(&action, Action::Read(read) if read.needs_same_view()), "{action:?}");
    }
    let hash: pb::HashResponse = desk.call(Method::Hash, &pb::HashRequest {}).unwrap();
    assert_eq!(hash.header, desk.header(51));
    let hash: pb::HashKvResponse =
        desk.call(Method::HashKv, &pb::HashKvRequest::default()).unwrap();
    assert_eq!((hash.header, hash.compact_revision, hash.hash_revision), (desk.header(51), -1, 51));
    let future = pb::HashKvRequest { revision: 99 };
    let refused = desk.call::<pb::HashKvResponse>(Method::HashKv, &future);
    assert_eq!(refused, Err(Refusal::Rejected(Rejection::FutureRevision)));
}

#[test]
fn calls_are_refused_by_their_headers() {
    let mut desk = Desk::new(true);
    let check = |desk: &Desk, method, metadata: CallMetadata<'_>| {
        desk.service.check_call(method, &metadata, &desk.node)
    };
    let version = |text| CallMetadata { client_api_version: Some(text), ..CallMetadata::default() };
    let leader = CallMetadata { leader_required: true, ..CallMetadata::default() };
    assert_eq!(check(&desk, Method::Put, version(b"3.7")), Ok(()));
    let invalid = Err(Refusal::InvalidClientApiVersion);
    assert_eq!(check(&desk, Method::Put, version(b"\xff")), invalid);
    assert_eq!(check(&desk, Method::Put, leader), Ok(()));
    let enable = Refusal::Unimplemented(Method::AuthEnable);
    assert_eq!(check(&desk, Method::AuthEnable, leader), Err(enable));
    desk.node.leader = None;
    assert_eq!(check(&desk, Method::Watch, leader), Err(Refusal::NoLeader));
    assert_eq!(check(&desk, Method::Watch, CallMetadata::default()), Ok(()));
}

/// A client that was given a name goes on without one when it is told this, and gives up otherwise.
#[test]
fn nobody_is_asked_for_a_password() {
    let mut desk = Desk::new(true);
    let request = pb::AuthenticateRequest { name: "a".to_owned(), password: "b".to_owned() };
    let answer = desk.call::<pb::AuthenticateResponse>(Method::Authenticate, &request);
    assert_eq!(answer, Err(Refusal::AuthNotEnabled));
}

/// Every method either is served or says that it is not, and no bytes make any of them panic.
#[test]
fn any_bytes_are_answered() {
    let mut desk = Desk::new(true);
    desk.put("k", "v");
    let mut state = 1_u64;
    for round in 0..4000 {
        let mut message = Vec::new();
        for _ in 0..round % 12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Small numbers are tags and lengths of small messages more often than not.
            let byte = (state >> 33).to_le_bytes()[0];
            message.push(if round % 2 == 0 { byte & 0x1f } else { byte });
        }
        for method in Method::ALL {
            let (action, _, _) = desk.act(*method, &message);
            let served = is_served(*method);
            let unserved = matches!(action, Action::Refuse(Refusal::Unimplemented(_)));
            // Streams and procedures have doors of their own.
            let exempt = [Method::Watch, Method::LeaseKeepAlive].contains(method)
                || Procedure::serves(*method);
            assert!(served != unserved || exempt, "{method:?}: {action:?}");
        }
    }
}

#[test]
fn a_lease_is_granted_asked_for_listed_and_revoked_with_its_keys() {
    let mut desk = Desk::new(true);
    let granted: pb::LeaseGrantResponse =
        desk.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl: -1, id: 0 }).unwrap();
    assert!(granted.id > 0 && granted.ttl == 2 && granted.header == desk.header(1));
    let lease = granted.id;
    for key in ["b", "a", "c", "d"] {
        let request = pb::PutRequest { lease, ..put(key, "v") };
        desk.call::<pb::PutResponse>(Method::Put, &request).unwrap();
    }
    let request = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
    let asked: pb::LeaseTimeToLiveResponse = desk.call(Method::LeaseTimeToLive, &request).unwrap();
    assert_eq!((asked.ttl, asked.granted_ttl, asked.header), (1, 2, desk.header(5)));
    assert_eq!(asked.keys, ["a", "b", "c", "d"]);
    let request = pb::LeaseTimeToLiveRequest { id: lease + 1, keys: true };
    let asked: pb::LeaseTimeToLiveResponse = desk.call(Method::LeaseTimeToLive, &request).unwrap();
    assert_eq!((asked.id, asked.ttl, asked.granted_ttl), (lease + 1, -1, 0));
    let listed: pb::LeaseLeasesResponse =
        desk.call(Method::LeaseLeases, &pb::LeaseLeasesRequest {}).unwrap();
    assert_eq!(listed.leases, [pb::LeaseStatus { id: lease }]);
    let revoke = pb::LeaseRevokeRequest { id: lease };
    let revoked: pb::LeaseRevokeResponse = desk.call(Method::LeaseRevoke, &revoke).unwrap();
    assert_eq!(revoked.header, desk.header(6));
    assert_eq!(desk.range(&range("a", "z")).unwrap().count, 0);
    let again = desk.call::<pb::LeaseRevokeResponse>(Method::LeaseRevoke, &revoke);
    assert_eq!(again, Err(Refusal::Rejected(Rejection::LeaseNotFound)));
}
