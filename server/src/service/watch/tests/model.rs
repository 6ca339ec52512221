//! Random life against a list of all events.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::events::EventBatch;
use engine::ids::Revision;
use prost::Message;
use prost::bytes::Bytes;

use super::world::{Change, World};
use crate::service::proto::etcdserverpb as pb;
use crate::service::proto::etcdserverpb::watch_request::RequestUnion;
use crate::service::proto::mvccpb;
use crate::service::test_store::node;
use crate::service::watch::{EventsWanted, StreamId, WatchConfig, WatchHub, scramble};

/// Small, so that the tests meet both sides of every bound.
const CONFIG: WatchConfig = WatchConfig {
    progress_interval: Duration::from_secs(10),
    fragment_size_bytes: 300,
    stream_pending_bytes_max: 600,
    stream_pending_bytes_resume: 200,
};

struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        usize::try_from(scramble(self.0) % bound as u64).unwrap()
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{}", self.below(12)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        vec![b'v'; self.below(60)]
    }
}

/// The naive store: every event there ever was, and every state of every key.
#[derive(Default)]
struct History {
    revision: i64,
    compacted: i64,
    live: BTreeMap<Vec<u8>, mvccpb::KeyValue>,
    events: Vec<mvccpb::Event>,
}

impl History {
    fn new() -> Self {
        Self { revision: 1, compacted: -1, ..Self::default() }
    }

    fn put(&mut self, revision: i64, key: &[u8], value: &[u8]) {
        let prev = self.live.get(key).cloned();
        let kv = mvccpb::KeyValue {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease: 0,
        };
        self.live.insert(key.to_vec(), kv.clone());
        self.events.push(mvccpb::Event { r#type: 0, kv: Some(kv), prev_kv: prev });
    }

    fn apply(&mut self, change: &Change) {
        let revision = self.revision + 1;
        match change {
            Change::Put(key, value) => self.put(revision, key, value),
            Change::PutAll(puts) => {
                for (key, value) in puts {
                    self.put(revision, key, value);
                }
            }
            Change::Delete(key, range_end) => {
                let keys: Vec<Vec<u8>> =
                    self.live.keys().filter(|live| covers(key, range_end, live)).cloned().collect();
                if keys.is_empty() {
                    return;
                }
                for key in keys {
                    let prev = self.live.remove(&key);
                    let kv = mvccpb::KeyValue {
                        key: key.into(),
                        mod_revision: revision,
                        ..mvccpb::KeyValue::default()
                    };
                    self.events.push(mvccpb::Event { r#type: 1, kv: Some(kv), prev_kv: prev });
                }
            }
            Change::Compact(at) => {
                if *at > self.compacted && *at <= self.revision {
                    self.compacted = *at;
                }
                return;
            }
        }
        self.revision = revision;
    }
}

fn covers(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

fn revision_of(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().unwrap().mod_revision
}

/// What a client knows about its watcher.
struct Client {
    request: pb::WatchCreateRequest,
    /// The first revision it is to be told.
    start: i64,
    received: Vec<mvccpb::Event>,
    in_fragments: bool,
    leaving: bool,
}

impl Client {
    fn wants(&self, event: &mvccpb::Event) -> bool {
        let key = &event.kv.as_ref().unwrap().key;
        revision_of(event) >= self.start
            && covers(&self.request.key, &self.request.range_end, key)
            && !self.request.filters.contains(&event.r#type)
    }

    /// All it wants up to a revision.
    fn expected<'h>(&self, history: &'h History, upto: i64) -> Vec<&'h mvccpb::Event> {
        let wanted = |event: &&mvccpb::Event| self.wants(event) && revision_of(event) <= upto;
        history.events.iter().filter(wanted).collect()
    }

    fn check(&self, history: &History, upto: i64, context: &str) {
        let expected = self.expected(history, upto);
        let received: Vec<_> =
            self.received.iter().filter(|event| revision_of(event) <= upto).collect();
        assert_eq!(received.len(), expected.len(), "{context}: events up to {upto}");
        for (received, expected) in received.iter().zip(expected) {
            assert_eq!(
                (received.r#type, &received.kv),
                (expected.r#type, &expected.kv),
                "{context}"
            );
            match (&received.prev_kv, self.request.prev_kv) {
                (Some(prev), true) => {
                    assert_eq!(Some(prev), expected.prev_kv.as_ref(), "{context}: record before");
                }
                (Some(_), false) => panic!("{context}: a record before that nobody asked for"),
                (None, true) => assert!(
                    expected.prev_kv.is_none() || revision_of(expected) - 1 < history.compacted,
                    "{context}: no record before at {}",
                    revision_of(expected)
                ),
                (None, false) => {}
            }
        }
    }
}

#[derive(Default)]
struct ClientStream {
    watchers: HashMap<i64, Client>,
    /// Created and not yet confirmed.
    creating: VecDeque<(pb::WatchCreateRequest, i64)>,
    unread_bytes: usize,
    progress_seen: usize,
    /// Watches that a compaction has ended: their ids are taken until they are cancelled.
    ended: HashSet<i64>,
}

struct Life {
    seed: u64,
    draw: Draw,
    world: World,
    history: History,
    hub: WatchHub,
    wanted: EventsWanted,
    ring: VecDeque<Arc<EventBatch>>,
    streams: BTreeMap<u64, ClientStream>,
    stream_next: u64,
    now: Duration,
    counts: Counts,
}

/// What a run has met: a test that meets nothing proves nothing.
#[derive(Debug, Default)]
struct Counts {
    events: usize,
    gaps: usize,
    blocked: usize,
    fragments: usize,
    compacted: usize,
    progress: usize,
    prevs: usize,
}

impl Life {
    fn new(seed: u64) -> Self {
        let world = World::new();
        let hub = WatchHub::new(CONFIG, &node(), world.revision());
        Self {
            seed,
            draw: Draw(seed),
            world,
            history: History::new(),
            hub,
            wanted: EventsWanted::default(),
            ring: VecDeque::new(),
            streams: BTreeMap::new(),
            stream_next: 0,
            now: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    fn step(&mut self) {
        match self.draw.below(20) {
            0..=5 => self.commit(),
            6..=8 => self.deliver(),
            9 => self.lose_batch(),
            10..=11 => self.create(),
            12 => self.cancel_or_close(),
            13..=14 => self.catch_up(),
            15..=16 => self.read_some(),
            17 => self.ask_progress(),
            18 => self.sync_wanted(),
            _ => self.tick(),
        }
        if !self.draw.one_in(3) {
            self.drain();
        }
    }

    fn commit(&mut self) {
        let count = 1 + self.draw.below(6);
        let changes: Vec<Change> = (0..count).map(|_| self.change()).collect();
        for change in &changes {
            self.history.apply(change);
        }
        // The log core may not know yet that somebody wants the records before.
        let prevs = self.wanted.prevs && !self.draw.one_in(3);
        self.world.want(EventsWanted { prevs, ..self.wanted });
        if let Some(batch) = self.world.commit(&changes) {
            self.ring.push_back(batch);
        }
        assert_eq!(self.world.revision().0, self.history.revision, "seed {}", self.seed);
        if self.draw.one_in(8) {
            self.world.store.sweep();
        }
    }

    fn change(&mut self) -> Change {
        match self.draw.below(40) {
            0..=24 => Change::Put(self.draw.key(), self.draw.value()),
            25..=30 => Change::Delete(self.draw.key(), Vec::new()),
            31..=33 => Change::Delete(self.draw.key(), self.draw.key()),
            34..=38 => {
                let count = 2 + self.draw.below(8);
                let mut puts: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
                for _ in 0..count {
                    puts.insert(self.draw.key(), self.draw.value());
                }
                Change::PutAll(puts.into_iter().collect())
            }
            _ => {
                let back = i64::try_from(self.draw.below(20)).unwrap();
                Change::Compact(self.history.revision - back)
            }
        }
    }

    fn deliver(&mut self) {
        for _ in 0..=self.draw.below(4) {
            let Some(batch) = self.ring.pop_front() else { return };
            self.hub.handle_events(&batch);
        }
    }

    fn lose_batch(&mut self) {
        if !self.ring.is_empty() && self.draw.one_in(3) {
            let at = self.draw.below(self.ring.len());
            self.ring.remove(at);
            self.counts.gaps += 1;
        }
    }

    fn create(&mut self) {
        if self.streams.len() < 2 || (self.streams.len() < 5 && self.draw.one_in(4)) {
            let id = self.stream_next;
            self.stream_next += 1;
            self.hub.handle_opened(StreamId(id), self.now);
            self.streams.insert(id, ClientStream::default());
        }
        let start_revision = match self.draw.below(4) {
            0 | 1 => 0,
            2 => {
                1 + i64::try_from(self.draw.below(usize::try_from(self.history.revision).unwrap()))
                    .unwrap()
            }
            _ => self.history.revision + i64::try_from(self.draw.below(6)).unwrap(),
        };
        let range_end = match self.draw.below(3) {
            0 => Vec::new(),
            1 => vec![0],
            _ => b"k9".to_vec(),
        };
        let key = match self.draw.key() {
            key if range_end.len() > 1 && key >= range_end => b"k1".to_vec(),
            key => key,
        };
        let request = pb::WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision,
            progress_notify: self.draw.one_in(3),
            filters: if self.draw.one_in(4) {
                vec![[0, 1][self.draw.below(2)]]
            } else {
                Vec::new()
            },
            prev_kv: self.draw.one_in(2),
            watch_id: 0,
            fragment: self.draw.one_in(3),
        };
        let start = if start_revision == 0 { self.history.revision + 1 } else { start_revision };
        let id = self.any_stream();
        let stream = self.streams.get_mut(&id).unwrap();
        stream.creating.push_back((request.clone(), start));
        self.send(id, RequestUnion::CreateRequest(request));
    }

    fn any_stream(&mut self) -> u64 {
        let at = self.draw.below(self.streams.len());
        *self.streams.keys().nth(at).unwrap()
    }

    fn send(&mut self, stream: u64, union: RequestUnion) {
        let message = pb::WatchRequest { request_union: Some(union) }.encode_to_vec();
        let view = self.world.store.reader.pin();
        self.hub.handle_message(StreamId(stream), &message, &view).unwrap();
    }

    fn cancel_or_close(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let id = self.any_stream();
        if self.draw.one_in(6) {
            self.streams.remove(&id);
            self.hub.handle_closed(StreamId(id));
            return;
        }
        let stream = &self.streams[&id];
        let mut ids: Vec<i64> = stream.watchers.keys().copied().collect();
        ids.sort_unstable();
        if !ids.is_empty() {
            let watch_id = ids[self.draw.below(ids.len())];
            // From now on nothing is promised to it.
            self.streams.get_mut(&id).unwrap().watchers.get_mut(&watch_id).unwrap().leaving = true;
            let cancel = pb::WatchCancelRequest { watch_id };
            self.send(id, RequestUnion::CancelRequest(cancel));
        }
    }

    fn catch_up(&mut self) {
        let budget = 1 + self.draw.below(40);
        let view = self.world.store.reader.pin();
        self.hub.step(&view, budget).unwrap();
    }

    /// A client reads, so that its stream's backlog goes down.
    fn read_some(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let id = self.any_stream();
        let stream = self.streams.get_mut(&id).unwrap();
        stream.unread_bytes = self.draw.below(stream.unread_bytes + 1);
        self.hub.handle_pending(StreamId(id), stream.unread_bytes);
    }

    fn ask_progress(&mut self) {
        if !self.streams.is_empty() {
            let id = self.any_stream();
            self.send(id, RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        }
    }

    /// The log core hears what is wanted, and answers from where on it sends.
    fn sync_wanted(&mut self) {
        let wanted = self.hub.events_wanted();
        if wanted != self.wanted {
            self.wanted = wanted;
            self.world.want(wanted);
            // What the ring still holds is older than the answer.
            self.ring.clear();
            self.hub.handle_gap(self.world.revision());
        }
    }

    fn tick(&mut self) {
        self.now += Duration::from_secs(self.draw.below(16) as u64);
        self.hub.handle_tick(self.now);
        assert!(self.hub.poll_deadline().is_none_or(|deadline| deadline > self.now));
    }

    fn drain(&mut self) {
        let mut message = Vec::new();
        loop {
            message.clear();
            let Some(output) = self.hub.poll_output() else { return };
            let id = output.stream;
            output.append_to(&mut message);
            assert_eq!(message.len(), output.size_bytes());
            let stream = self.streams.get_mut(&id.0).expect("outputs go to open streams");
            stream.unread_bytes += message.len();
            let pending = stream.unread_bytes;
            self.counts.blocked += usize::from(pending > CONFIG.stream_pending_bytes_max);
            self.receive(id.0, &message);
            self.hub.handle_pending(id, pending);
        }
    }

    fn receive(&mut self, id: u64, message: &[u8]) {
        let context = format!("seed {}, stream {id}", self.seed);
        let response = pb::WatchResponse::decode(message).expect("a response");
        assert_eq!(response.encode_to_vec(), message, "{context}: bytes of generated code");
        let header = response.header.as_ref().unwrap();
        assert_eq!((header.cluster_id, header.member_id, header.raft_term), (0xc1, 0xae, 3));
        let stream = self.streams.get_mut(&id).unwrap();
        if response.created {
            assert!(!response.canceled, "{context}: {}", response.cancel_reason);
            let (request, start) = stream.creating.pop_front().unwrap();
            let client = Client {
                request,
                start,
                received: Vec::new(),
                in_fragments: false,
                leaving: false,
            };
            let before = stream.watchers.insert(response.watch_id, client);
            assert!(before.is_none(), "{context}: id {} twice", response.watch_id);
        } else if response.canceled {
            let Some(client) = stream.watchers.remove(&response.watch_id) else {
                // The cancellation met a watch that a compaction had ended already.
                assert!(stream.ended.remove(&response.watch_id), "{context}: cancelled twice");
                return;
            };
            if response.compact_revision != 0 {
                stream.ended.insert(response.watch_id);
                self.counts.compacted += 1;
                let compacted = response.compact_revision;
                // The output may have waited while the store was compacted once more.
                assert!(compacted <= self.history.compacted, "{context}: {compacted}");
                let told = client.received.last().map_or(client.start - 1, revision_of);
                assert!(told + 1 < compacted, "{context}: cancelled at {told} for {compacted}");
                client.check(&self.history, told, &context);
            }
        } else if response.events.is_empty() {
            self.counts.progress += 1;
            stream.progress_seen += 1;
            let clients = stream.watchers.iter().filter(|(watch_id, client)| {
                !client.leaving && [-1, **watch_id].contains(&response.watch_id)
            });
            for (watch_id, client) in clients {
                let context = format!("{context}, watcher {watch_id}: progress");
                client.check(&self.history, header.revision, &context);
            }
        } else {
            let last = revision_of(response.events.last().unwrap());
            // What is read from the past has the store's revision; all fragments have the header of
            // the whole.
            let says = header.revision;
            assert!(says >= last, "{context}: {says}, {last}");
            assert!(says <= self.world.revision().0, "{context}: {says} is ahead");
            let client = stream.watchers.get_mut(&response.watch_id).unwrap();
            receive_events(client, &response, &context, &mut self.counts);
            let told = if response.fragment { last - 1 } else { last };
            client.check(&self.history, told, &context);
        }
    }

    /// Everything calms down: every stream is read, everything is delivered.
    fn settle(&mut self) {
        self.sync_wanted();
        loop {
            self.ring.drain(..).for_each(|batch| self.hub.handle_events(&batch));
            self.drain();
            // A lost batch may have been the last: the ring's mark tells.
            self.hub.handle_gap(self.world.revision());
            for (id, stream) in &mut self.streams {
                stream.unread_bytes = 0;
                self.hub.handle_pending(StreamId(*id), 0);
            }
            self.drain();
            let view = self.world.store.reader.pin();
            let more = self.hub.step(&view, 1000).unwrap();
            drop(view);
            self.drain();
            let unread = self.streams.values().any(|stream| stream.unread_bytes > 0);
            if !more && !unread {
                return;
            }
        }
    }

    fn check(&self) {
        for (id, stream) in &self.streams {
            assert!(stream.creating.is_empty(), "seed {}: a create without answer", self.seed);
            for (watch_id, client) in &stream.watchers {
                assert!(!client.leaving && !client.in_fragments);
                let context = format!("seed {}, stream {id}, watcher {watch_id}", self.seed);
                client.check(&self.history, self.history.revision, &context);
            }
        }
    }
}

fn receive_events(
    client: &mut Client,
    response: &pb::WatchResponse,
    context: &str,
    counts: &mut Counts,
) {
    let first = revision_of(&response.events[0]);
    if let Some(before) = client.received.last() {
        // A revision is never split but between fragments.
        assert!(revision_of(before) < first || client.in_fragments, "{context}: at {first}");
    }
    client.in_fragments = response.fragment;
    counts.fragments += usize::from(response.fragment);
    counts.events += response.events.len();
    counts.prevs += response.events.iter().filter(|event| event.prev_kv.is_some()).count();
    assert!(!response.fragment || client.request.fragment, "{context}: an unasked fragment");
    if client.request.fragment {
        let small = response.encoded_len() < CONFIG.fragment_size_bytes;
        assert!(small || response.events.len() == 1, "{context}: {}", response.encoded_len());
    }
    client.received.extend(response.events.iter().cloned());
}

#[test]
fn every_watcher_is_told_everything_once_and_in_order() {
    let mut met = Counts::default();
    for seed in 0..120 {
        let mut life = Life::new(seed);
        for _ in 0..3 {
            for _ in 0..200 {
                life.step();
            }
            life.settle();
            life.check();
        }
        let streams = &life.streams;
        assert_eq!(
            life.hub.watcher_count(),
            streams.values().map(|stream| stream.watchers.len()).sum::<usize>(),
            "seed {seed}"
        );
        let counts = life.counts;
        met.events += counts.events;
        met.gaps += counts.gaps;
        met.blocked += counts.blocked;
        met.fragments += counts.fragments;
        met.compacted += counts.compacted;
        met.progress += counts.progress;
        met.prevs += counts.prevs;
    }
    let least =
        [met.events, met.gaps, met.blocked, met.fragments, met.compacted, met.progress, met.prevs];
    assert!(least.iter().all(|count| *count > 100), "{met:?}");
}

#[test]
fn a_settled_hub_answers_a_progress_request_at_once() {
    for seed in 0..40 {
        let mut life = Life::new(seed);
        for _ in 0..150 {
            life.step();
        }
        life.settle();
        let ids: Vec<u64> = life.streams.keys().copied().collect();
        for id in ids {
            let stream = &life.streams[&id];
            let seen = stream.progress_seen;
            // etcd is silent while a watch of the stream waits for its time or is dead.
            let revision = life.world.revision().0;
            let waits =
                stream.watchers.values().any(|client| client.request.start_revision > revision);
            let speaks = !stream.watchers.is_empty() && stream.ended.is_empty() && !waits;
            life.send(id, RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
            life.drain();
            let answered = life.streams[&id].progress_seen - seen;
            assert_eq!(answered, usize::from(speaks), "seed {seed}, stream {id}");
        }
        assert!(life.hub.watcher_count() == 0 || Revision(life.history.revision) > Revision(0));
    }
}
