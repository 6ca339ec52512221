//! etcd's rules for creating, cancelling and progress, one by one.

use std::time::Duration;

use engine::ids::Revision;
use prost::Message;

use super::world::{Change, World};
use crate::service::proto::etcdserverpb as pb;
use crate::service::proto::etcdserverpb::watch_request::RequestUnion;
use crate::service::status::Refusal;
use crate::service::test_store::node;
use crate::service::watch::{StreamId, WatchConfig, WatchHub};

const STREAM: StreamId = StreamId(9);

struct Bench {
    world: World,
    hub: WatchHub,
}

impl Bench {
    /// A store at revision 4 with keys a, b and c, and a hub that hears of everything.
    fn new() -> Self {
        let mut world = World::new();
        let hub = WatchHub::new(WatchConfig::default(), &node(), world.revision());
        for key in ["a", "b", "c"] {
            world.commit(&[Change::Put(key.into(), b"1".to_vec())]);
        }
        let mut bench = Self { world, hub };
        bench.hub.handle_opened(STREAM, Duration::ZERO);
        bench
    }

    fn send(&mut self, union: RequestUnion) -> Vec<pb::WatchResponse> {
        let message = pb::WatchRequest { request_union: Some(union) }.encode_to_vec();
        let view = self.world.store.reader.pin();
        self.hub.handle_message(STREAM, &message, &view).unwrap();
        drop(view);
        self.drain()
    }

    fn create(&mut self, request: pb::WatchCreateRequest) -> Vec<pb::WatchResponse> {
        self.send(RequestUnion::CreateRequest(request))
    }

    fn cancel(&mut self, watch_id: i64) -> Vec<pb::WatchResponse> {
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }))
    }

    fn progress(&mut self) -> Vec<pb::WatchResponse> {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}))
    }

    /// Several requests, before anything is sent.
    fn ask_progress(&mut self, count: usize) {
        let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        let message = pb::WatchRequest { request_union: Some(union) }.encode_to_vec();
        let view = self.world.store.reader.pin();
        for _ in 0..count {
            self.hub.handle_message(STREAM, &message, &view).unwrap();
        }
    }

    /// The log core learns what is wanted, and from where on it brings events.
    fn listen(&mut self) {
        self.world.want(self.hub.events_wanted());
        self.hub.handle_gap(self.world.revision());
    }

    fn step(&mut self) -> Vec<pb::WatchResponse> {
        let mut responses = Vec::new();
        loop {
            let view = self.world.store.reader.pin();
            let more = self.hub.step(&view, 100).unwrap();
            drop(view);
            responses.extend(self.drain());
            if !more {
                return responses;
            }
        }
    }

    /// Commits and delivers.
    fn commit(&mut self, changes: &[Change]) -> Vec<pb::WatchResponse> {
        self.listen();
        if let Some(batch) = self.world.commit(changes) {
            self.hub.handle_events(&batch);
        }
        self.drain()
    }

    fn drain(&mut self) -> Vec<pb::WatchResponse> {
        let mut responses = Vec::new();
        while let Some(output) = self.hub.poll_output() {
            assert_eq!(output.stream, STREAM);
            let mut message = Vec::new();
            output.append_to(&mut message);
            responses.push(pb::WatchResponse::decode(&message[..]).unwrap());
        }
        responses
    }
}

fn watch(key: &str, range_end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..pb::WatchCreateRequest::default()
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: 0xc1, member_id: 0xae, revision, raft_term: 3 })
}

fn created(watch_id: i64) -> pb::WatchResponse {
    pb::WatchResponse { header: header(4), watch_id, created: true, ..<_>::default() }
}

fn refused(reason: &str) -> pb::WatchResponse {
    let cancel_reason = reason.to_owned();
    pb::WatchResponse { canceled: true, cancel_reason, ..created(-1) }
}

#[test]
fn ids_are_chosen_upwards_and_never_twice() {
    let mut bench = Bench::new();
    assert_eq!(bench.create(watch("a", "")), [created(0)]);
    let chosen = pb::WatchCreateRequest { watch_id: 2, ..watch("a", "") };
    assert_eq!(bench.create(chosen.clone()), [created(2)]);
    let duplicate = "mvcc: duplicate watch ID provided on the WatchStream";
    assert_eq!(bench.create(chosen), [refused(duplicate)]);
    assert_eq!(bench.create(watch("a", "")), [created(1)]);
    assert_eq!(bench.create(watch("a", "")), [created(3)]);
}

#[test]
fn what_cannot_be_watched_is_created_and_cancelled() {
    let mut bench = Bench::new();
    let empty = "mvcc: watcher range is empty";
    assert_eq!(bench.create(watch("b", "b")), [refused(empty)]);
    assert_eq!(bench.create(watch("b", "a")), [refused(empty)]);
    let negative = pb::WatchCreateRequest { start_revision: -1, ..watch("b", "a") };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(bench.create(negative), [refused(compacted)]);
    assert_eq!(bench.hub.watcher_count(), 0);
    // The id counts as used only when something was created.
    assert_eq!(bench.create(watch("b", "")), [created(0)]);
}

#[test]
fn an_empty_key_is_the_smallest_and_a_zero_byte_is_no_end() {
    for request in [watch("", "\0"), watch("\0", "\0")] {
        let mut bench = Bench::new();
        assert_eq!(bench.create(request), [created(0)]);
        let responses = bench.commit(&[Change::Put(vec![0xff; 4], b"v".to_vec())]);
        assert_eq!(responses.len(), 1);
        assert_eq!(responses[0].events.len(), 1);
    }
    // An empty key with an end is a range from the smallest key.
    let mut bench = Bench::new();
    bench.create(watch("", "b"));
    assert_eq!(bench.commit(&[Change::Put(b"a".to_vec(), Vec::new())]).len(), 1);
    assert_eq!(bench.commit(&[Change::Put(b"b".to_vec(), Vec::new())]).len(), 0);
}

#[test]
fn a_compacted_start_is_created_and_then_cancelled() {
    let mut bench = Bench::new();
    bench.commit(&[Change::Compact(3)]);
    let early = pb::WatchCreateRequest { start_revision: 2, ..watch("a", "\0") };
    assert_eq!(bench.create(early), [created(0)]);
    let cancelled = pb::WatchResponse {
        header: header(0),
        canceled: true,
        compact_revision: 3,
        ..pb::WatchResponse::default()
    };
    assert_eq!(bench.step(), [cancelled]);
    assert_eq!(bench.hub.watcher_count(), 0);
    // The compacted revision itself can still be watched.
    let edge = pb::WatchCreateRequest { start_revision: 3, ..watch("a", "\0") };
    assert_eq!(bench.create(edge), [created(1)]);
    let responses = bench.step();
    assert_eq!(responses.len(), 1);
    let revisions: Vec<i64> =
        responses[0].events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(revisions, [3, 4]);
}

#[test]
fn a_future_start_waits_for_its_revision() {
    let mut bench = Bench::new();
    let future = pb::WatchCreateRequest { start_revision: 7, ..watch("a", "") };
    assert_eq!(bench.create(future), [created(0)]);
    assert!(!bench.hub.needs_step());
    let put = || Change::Put(b"a".to_vec(), b"2".to_vec());
    assert_eq!(bench.commit(&[put()]), []);
    let responses = bench.commit(&[put(), put(), put()]);
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].header, header(8));
    assert_eq!(responses[0].events.len(), 2);
}

#[test]
fn a_known_watcher_is_cancelled_and_an_unknown_one_is_not_answered() {
    let mut bench = Bench::new();
    bench.create(watch("a", ""));
    assert_eq!(bench.cancel(5), []);
    let cancelled =
        pb::WatchResponse { header: header(4), canceled: true, ..pb::WatchResponse::default() };
    assert_eq!(bench.cancel(0), [cancelled]);
    assert_eq!(bench.cancel(0), []);
    assert_eq!(bench.commit(&[Change::Put(b"a".to_vec(), Vec::new())]), []);
}

#[test]
fn a_request_of_no_known_kind_is_ignored_and_a_malformed_one_is_not() {
    let mut bench = Bench::new();
    let view = bench.world.store.reader.pin();
    assert_eq!(bench.hub.handle_message(STREAM, b"", &view), Ok(()));
    assert_eq!(bench.hub.handle_message(STREAM, b"\x7a\x00", &view), Ok(()));
    let malformed = bench.hub.handle_message(STREAM, b"\xff", &view);
    assert_eq!(malformed, Err(Refusal::MalformedInStream));
    drop(view);
    assert_eq!(bench.drain(), []);
}

#[test]
fn progress_is_told_for_all_watchers_together() {
    let mut bench = Bench::new();
    assert_eq!(bench.progress(), []);
    bench.create(watch("a", ""));
    bench.listen();
    let progress =
        pb::WatchResponse { header: header(4), watch_id: -1, ..pb::WatchResponse::default() };
    assert_eq!(bench.progress(), [progress]);
    // With one watcher behind there is nothing to say until it has caught up.
    let behind = pb::WatchCreateRequest { start_revision: 1, ..watch("a", "\0") };
    bench.create(behind);
    assert_eq!(bench.progress(), []);
    let responses = bench.step();
    assert_eq!(responses.len(), 2);
    assert_eq!(responses[0].events.len(), 3);
    assert_eq!((responses[1].watch_id, responses[1].header), (-1, header(4)));
}

#[test]
fn progress_waits_for_what_the_ring_still_has() {
    let mut bench = Bench::new();
    bench.create(watch("a", ""));
    bench.listen();
    let batch = bench.world.commit(&[Change::Put(b"a".to_vec(), Vec::new())]).unwrap();
    // The view shows revision 5, but its event has not come through the ring: to say 5 would be
    // to say that there was no event.
    assert_eq!(bench.progress(), []);
    bench.hub.handle_events(&batch);
    let responses = bench.drain();
    assert_eq!(responses.len(), 2);
    assert_eq!(responses[0].events.len(), 1);
    assert_eq!((responses[1].watch_id, responses[1].header), (-1, header(5)));
}

/// etcd 3.7.1 answers five requests in a row five times.
#[test]
fn every_progress_request_has_an_answer_of_its_own_unless_the_stream_is_behind() {
    let mut bench = Bench::new();
    bench.create(watch("a", ""));
    bench.listen();
    bench.ask_progress(5);
    assert_eq!(bench.drain().len(), 5);
    // What the ring still has is waited for, and then each of them is answered.
    let batch = bench.world.commit(&[Change::Put(b"a".to_vec(), Vec::new())]).unwrap();
    bench.ask_progress(3);
    bench.hub.handle_events(&batch);
    let responses = bench.drain();
    assert_eq!(responses.iter().filter(|response| response.watch_id == -1).count(), 3);
    assert!(responses.iter().all(|response| response.header == header(5)));
    // Of a stream that is behind etcd answers none, so one is enough.
    bench.create(pb::WatchCreateRequest { start_revision: 1, ..watch("a", "\0") });
    bench.ask_progress(4);
    assert_eq!(bench.drain(), []);
    let told = bench.step().iter().filter(|response| response.watch_id == -1).count();
    assert_eq!(told, 1);
    assert_eq!(bench.progress().len(), 1);
}

#[test]
fn a_watcher_of_the_future_keeps_its_stream_silent_until_it_is_gone_or_its_time_has_come() {
    let mut bench = Bench::new();
    bench.create(watch("a", ""));
    let future = |watch_id, start_revision| pb::WatchCreateRequest {
        watch_id,
        start_revision,
        ..watch("b", "")
    };
    bench.create(future(7, 6));
    bench.create(future(8, 100));
    bench.listen();
    assert_eq!(bench.progress(), []);
    bench.cancel(8);
    assert_eq!(bench.progress(), []);
    bench.commit(&[Change::Put(b"z".to_vec(), Vec::new())]);
    assert_eq!(bench.progress(), [], "the store is at 5");
    bench.commit(&[Change::Put(b"z".to_vec(), Vec::new())]);
    assert_eq!(bench.progress().len(), 1);
}

#[test]
fn an_idle_watcher_that_asked_is_told_its_progress_in_time() {
    let mut bench = Bench::new();
    bench.create(pb::WatchCreateRequest { progress_notify: true, ..watch("a", "") });
    bench.create(watch("a", ""));
    let due = bench.hub.poll_deadline().unwrap();
    let interval = Duration::from_secs(600);
    assert!(due >= interval && due <= interval + interval / 10, "{due:?}");
    bench.hub.handle_tick(due - Duration::from_millis(1));
    assert_eq!(bench.drain(), []);
    let progress = pb::WatchResponse { header: header(4), ..pb::WatchResponse::default() };
    bench.hub.handle_tick(due);
    assert_eq!(bench.drain(), [progress]);
    // An event speaks for itself: the next tick says nothing, the one after does.
    let ticks = |bench: &mut Bench| {
        let due = bench.hub.poll_deadline().unwrap();
        bench.hub.handle_tick(due);
        bench.drain().len()
    };
    assert_eq!(bench.commit(&[Change::Put(b"a".to_vec(), Vec::new())]).len(), 2);
    assert_eq!(ticks(&mut bench), 0);
    assert_eq!(ticks(&mut bench), 1);
}

#[test]
fn a_ring_that_was_not_asked_yet_loses_nothing() {
    let mut bench = Bench::new();
    bench.create(watch("a", ""));
    // Committed before the log core knew that anybody watches: no batch comes of it.
    assert!(bench.world.commit(&[Change::Put(b"a".to_vec(), Vec::new())]).is_none());
    bench.world.want(bench.hub.events_wanted());
    bench.hub.handle_gap(Revision(5));
    let responses = bench.step();
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].header, header(5));
}

#[test]
fn events_of_one_batch_share_a_response() {
    let mut bench = Bench::new();
    bench.create(watch("a", "z"));
    let put = |key: &str| Change::Put(key.into(), b"2".to_vec());
    let delete = Change::Delete(b"c".to_vec(), Vec::new());
    let responses = bench.commit(&[put("a"), put("zz"), put("b"), delete]);
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].header, header(8));
    let told: Vec<(i32, &[u8])> = responses[0]
        .events
        .iter()
        .map(|event| (event.r#type, &event.kv.as_ref().unwrap().key[..]))
        .collect();
    assert_eq!(told, [(0, &b"a"[..]), (0, b"b"), (1, b"c")]);
}

#[test]
fn progress_is_not_told_when_the_events_before_it_could_not_be_sent() {
    let mut bench = Bench::new();
    let notified = pb::WatchCreateRequest { progress_notify: true, ..watch("a", "\0") };
    bench.create(pb::WatchCreateRequest { start_revision: 1, ..notified });
    let view = bench.world.store.reader.pin();
    bench.hub.step(&view, 100).unwrap();
    drop(view);
    // Three events wait, and behind them the watcher's progress; but the stream has no room.
    bench.hub.handle_tick(bench.hub.poll_deadline().unwrap());
    bench.hub.handle_pending(STREAM, usize::MAX);
    assert_eq!(bench.drain(), []);
    bench.hub.handle_pending(STREAM, 0);
    let responses = bench.step();
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].events.len(), 3);
}
