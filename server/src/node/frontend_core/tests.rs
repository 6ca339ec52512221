//! Clients that ask for much, and others beside them, without a socket.

mod deadlines;
mod ends;
mod greed;
mod http;
mod leases;
mod streams;
mod watching;

use std::collections::{BTreeMap, VecDeque};

use engine::command::{FrameWriter, PutRef};
use prost::Message;

use super::*;
use crate::frontend::http2::frame::{FrameHead, FrameKind, HEAD_BYTES, PREFACE, flag};
use crate::node::reads::{CONNECTION_HELD_BYTES_MAX, CORE_HELD_BYTES_MAX};
use crate::service::dispatch::ServiceLimits;
use crate::service::lease::LeaseIds;
use crate::service::proto::etcdserverpb as pb;
use crate::service::test_store::{TestStore, node};

const NOW: Duration = Duration::from_secs(1);
/// As wide as the protocol lets a window be.
const WINDOW_BYTES: u32 = i32::MAX as u32;

/// What a client has been sent on one stream.
#[derive(Default)]
struct Answer {
    body: Vec<u8>,
    ended: bool,
    /// The code it was cut off with.
    reset: Option<Vec<u8>>,
}

#[derive(Default)]
struct ClientSide {
    received: Vec<u8>,
    answers: BTreeMap<u32, Answer>,
    /// A send that the client has not taken yet.
    under_way: Option<Vec<u8>>,
    reads_nothing: bool,
    next_id: u32,
    /// What WINDOW_UPDATEs gave, by stream.
    granted: BTreeMap<u32, u64>,
    said_goodbye: bool,
}

impl FrontendCore {
    fn has_work(&self) -> bool {
        self.work_due().is_some()
    }

    /// The moment of the next turn: time goes on only for what waits for it.
    fn time_of_work(&self) -> Duration {
        self.work_due().unwrap_or_default().max(NOW)
    }
}

struct Bench {
    store: TestStore,
    core: FrontendCore,
    clients: Vec<ClientSide>,
    /// Whom the core has hung up on.
    closed: Vec<usize>,
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn initial_windows(window_bytes: u32) -> Vec<u8> {
    [&[0, 4][..], &window_bytes.to_be_bytes()].concat()
}

fn request_head(path: &str) -> Vec<u8> {
    let fields: [(&str, &str); 5] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    pb::RangeRequest { key, range_end, ..<_>::default() }
}

impl Bench {
    /// A front-end over a store of some keys, `k00000` and following.
    fn new(keys: usize, value: &[u8], limits: ServiceLimits) -> Self {
        let mut store = TestStore::new();
        store.engine.set_local_reads(true);
        store.engine.publish();
        let config = FrontendConfig {
            grpc: grpc::Config {
                message_bytes_max: limits.request_size_bytes_max,
                max_concurrent_streams: 10_000,
                ping_policy: <_>::default(),
                keepalive: <_>::default(),
            },
            request_timeout: Duration::from_secs(7),
            slow_after: None,
            watch: WatchConfig::default(),
            learners_max: 1,
            election: Duration::from_secs(1),
        };
        let parts = FrontendParts {
            id: FrontendId(0),
            service: Service::new(limits, &node(), LeaseIds::new(1, 1, 0, 1)),
            views: store.reader.clone(),
            status: Arc::default(),
            interest: Arc::new(WatchInterest::new(1)),
            node: node(),
            metrics: Arc::new(FrontendMetrics::new(&crate::node::scrape::method_names(), true)),
        };
        let core = FrontendCore::new(config, parts);
        let mut bench = Self { store, core, clients: Vec::new(), closed: Vec::new() };
        let numbers: Vec<usize> = (0..keys).collect();
        for numbers in numbers.chunks(500) {
            bench.put(numbers.iter().map(|number| format!("k{number:05}")), value);
        }
        bench
    }

    /// Commits puts; what watchers are to be told of them goes to the front-end.
    fn put(&mut self, keys: impl Iterator<Item = String>, value: &[u8]) {
        let (mut frames, mut writer) = (Vec::new(), FrameWriter::new());
        for key in keys {
            let put = PutRef { key: key.as_bytes(), value, ..<_>::default() };
            writer.push_put(&mut frames, &put);
        }
        self.commit(&frames);
    }

    /// Commits commands; what watchers are to be told of them goes to the front-end.
    fn commit(&mut self, frames: &[u8]) {
        let (_, events) = self.store.commit(frames);
        let mut reply = Reply { events: events.into_iter().collect(), ..<_>::default() };
        self.core.handle_reply(&mut reply);
    }

    /// Begins a stream of watches, with one watch of all keys from now on.
    fn watch(&mut self, client: usize) -> u32 {
        self.store.engine.set_events_wanted(true, false);
        let create = pb::WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..<_>::default()
        };
        let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
        let message = pb::WatchRequest { request_union }.encode_to_vec();
        let side = &mut self.clients[client];
        let id = side.next_id;
        side.next_id += 2;
        let mut bytes = Vec::new();
        let head = request_head(Method::Watch.path());
        put_frame(&mut bytes, 1, flag::END_HEADERS, id, &head);
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        put_frame(&mut bytes, 0, 0, id, &[&[0][..], &length, &message].concat());
        self.core.handle_received(socket(client), &bytes, NOW);
        id
    }

    /// The keys that a watch has told of.
    fn watched(&self, client: usize, stream: u32) -> Vec<String> {
        let mut rest = &self.clients[client].answers[&stream].body[..];
        let mut keys = Vec::new();
        while let Some(([_, length @ ..], behind)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some((message, behind)) = behind.split_at_checked(length) else { break };
            rest = behind;
            for event in pb::WatchResponse::decode(message).unwrap().events {
                let key = event.kv.unwrap().key;
                keys.push(String::from_utf8(key.to_vec()).unwrap());
            }
        }
        keys
    }

    fn connect(&mut self) -> usize {
        self.connect_with_windows(WINDOW_BYTES)
    }

    /// A client whose streams begin with such windows.
    fn connect_with_windows(&mut self, window_bytes: u32) -> usize {
        let client = self.clients.len();
        self.clients.push(ClientSide { next_id: 1, ..<_>::default() });
        self.core.handle_accepted(socket(client));
        let mut bytes = PREFACE.to_vec();
        put_frame(&mut bytes, 4, 0, 0, &initial_windows(window_bytes));
        put_frame(&mut bytes, 8, 0, 0, &(WINDOW_BYTES - 65_535).to_be_bytes());
        self.core.handle_received(socket(client), &bytes, NOW);
        client
    }

    /// The client opens the windows of all its streams.
    fn open_windows(&mut self, client: usize) {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 4, 0, 0, &initial_windows(WINDOW_BYTES));
        self.core.handle_received(socket(client), &bytes, NOW);
    }

    /// And that of one.
    fn open_window(&mut self, client: usize, stream: u32) {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 8, 0, stream, &1000u32.to_be_bytes());
        self.core.handle_received(socket(client), &bytes, NOW);
    }

    /// Settles until there is nothing more to do, which has to come.
    fn rest(&mut self) {
        for _ in 0..10_000 {
            if !self.settle() && !self.core.has_work() {
                return;
            }
        }
        panic!("work without end");
    }

    /// Calls in one piece, as a pipelining client sends them; the streams' numbers.
    fn call(&mut self, client: usize, method: Method, requests: &[impl Message]) -> Vec<u32> {
        let (mut bytes, mut streams) = (Vec::new(), Vec::new());
        for request in requests {
            let side = &mut self.clients[client];
            let id = side.next_id;
            side.next_id += 2;
            put_frame(&mut bytes, 1, flag::END_HEADERS, id, &request_head(method.path()));
            let message = request.encode_to_vec();
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let body = [&[0][..], &length, &message].concat();
            put_frame(&mut bytes, 0, flag::END_STREAM, id, &body);
            streams.push(id);
        }
        self.core.handle_received(socket(client), &bytes, NOW);
        streams
    }

    /// The end of a turn; says whether anything was sent.
    fn settle(&mut self) -> bool {
        self.core.settle(self.core.time_of_work());
        let mut sends = VecDeque::new();
        while let Some(action) = self.core.poll_action() {
            match action {
                SocketAction::Send(to, bytes) => sends.push_back((to.index(), bytes)),
                SocketAction::Close(of) => self.closed.push(of.index()),
                SocketAction::Pause(_) | SocketAction::Resume(_) => {}
            }
        }
        let has_sent = !sends.is_empty();
        for (client, bytes) in sends {
            self.clients[client].under_way = Some(bytes);
            self.take(client);
        }
        has_sent
    }

    /// The client reads what is under way to it.
    fn take(&mut self, client: usize) {
        let side = &mut self.clients[client];
        if side.reads_nothing {
            return;
        }
        let Some(mut bytes) = side.under_way.take() else { return };
        side.received.extend_from_slice(&bytes);
        side.parse();
        bytes.clear();
        self.core.handle_sent(socket(client), bytes);
    }

    fn answered(&self, client: usize) -> usize {
        self.clients[client].answers.values().filter(|answer| answer.ended).count()
    }

    fn answer<A: Message + Default>(&self, client: usize, stream: u32) -> A {
        let answer = &self.clients[client].answers[&stream];
        assert!(answer.ended, "stream {stream} is not answered");
        A::decode(&answer.body[5..]).unwrap()
    }
}

impl ClientSide {
    fn parse(&mut self) {
        let mut rest = &self.received[..];
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::parse(*head);
            let Some((payload, behind)) = behind.split_at_checked(head.length) else { break };
            rest = behind;
            if head.kind == FrameKind::WindowUpdate {
                let increment = u32::from_be_bytes(payload.try_into().unwrap());
                *self.granted.entry(head.stream).or_default() += u64::from(increment);
                continue;
            }
            self.said_goodbye |= head.kind == FrameKind::GoAway;
            if head.stream == 0 {
                continue;
            }
            let answer = self.answers.entry(head.stream).or_default();
            if head.kind == FrameKind::Data {
                answer.body.extend_from_slice(payload);
            }
            if head.kind == FrameKind::ResetStream {
                answer.reset = Some(payload.to_vec());
            }
            answer.ended |= head.has(flag::END_STREAM);
        }
        self.received = rest.to_vec();
    }
}

fn socket(client: usize) -> SocketId {
    SocketId::of_test(u32::try_from(client).unwrap())
}

/// `HashKV` and `Hash` ran in one step: every other client waited for as long as that took.
#[test]
fn hashes_take_turns_with_other_calls_and_see_one_view() {
    let mut bench = Bench::new(5000, b"value", ServiceLimits::default());
    let (hasher, other) = (bench.connect(), bench.connect());
    let request = pb::HashKvRequest { revision: 0 };
    let streams = bench.call(hasher, Method::HashKv, &[request, request]);
    bench.settle();
    assert_eq!(bench.answered(hasher), 0, "5000 keys are more than a step");
    // Versions that the hash has not come to yet are superseded meanwhile.
    bench.put((3000..5000).map(|number| format!("k{number:05}")), b"later");
    bench.call(other, Method::Range, &[range("k00001", "")]);
    bench.settle();
    assert_eq!((bench.answered(hasher), bench.answered(other)), (0, 1));
    let mut turns = 0;
    while bench.answered(hasher) < 2 {
        assert!(bench.core.has_work(), "a hash that waits is to be stepped");
        bench.settle();
        turns += 1;
        assert!(turns < 100);
    }
    assert!(turns > 8, "two hashes of more than 5000 changes in {turns} turns");
    let first: pb::HashKvResponse = bench.answer(hasher, streams[0]);
    let second: pb::HashKvResponse = bench.answer(hasher, streams[1]);
    assert_eq!((first.hash_revision, second.hash_revision), (5001, 7001));
    let again = pb::HashKvRequest { revision: 5001 };
    let streams = bench.call(other, Method::HashKv, &[again]);
    while bench.answered(other) < 2 {
        bench.settle();
    }
    let again: pb::HashKvResponse = bench.answer(other, streams[0]);
    assert_eq!(again.hash, first.hash, "what was written meanwhile is not part of it");
    assert!(!bench.core.has_work() && bench.core.desk.calls.is_empty());
}

#[test]
fn a_hash_lets_its_view_go_with_its_client() {
    let mut bench = Bench::new(3000, b"value", ServiceLimits::default());
    let (gone, patient) = (bench.connect(), bench.connect());
    bench.call(gone, Method::HashKv, &[pb::HashKvRequest { revision: 0 }]);
    bench.call(patient, Method::HashKv, &[pb::HashKvRequest { revision: 0 }]);
    bench.settle();
    let holds = |bench: &Bench| {
        let desk = &bench.core.desk;
        let held = desk.hashing.iter().filter(|slot| {
            let call = desk.calls.get(**slot).unwrap();
            matches!(&call.waiting, Waiting::Read(Some(reading)) if reading.view.is_some())
        });
        (held.count(), desk.hashing.len())
    };
    assert_eq!(holds(&bench), (1, 2), "one view is held, whoever waits");
    bench.core.handle_closed(socket(gone));
    bench.settle();
    assert_eq!(holds(&bench), (0, 1));
    while bench.answered(patient) < 1 {
        bench.settle();
    }
    assert_eq!(holds(&bench), (0, 0));
}

/// The first step of each range ran as it arrived: a hundred pipelined ones were one turn.
#[test]
fn pipelined_ranges_leave_turns_to_other_connections() {
    let mut bench = Bench::new(2000, b"value", ServiceLimits::default());
    let (greedy, modest) = (bench.connect(), bench.connect());
    let requests = vec![range("k00000", "k01000"); 100];
    let streams = bench.call(greedy, Method::Range, &requests);
    bench.call(modest, Method::Range, &[range("k00500", "k00900"), range("k00001", "")]);
    bench.settle();
    let at_once = bench.answered(greedy);
    assert!((1..=5).contains(&at_once), "{at_once} ranges of 1000 keys in one turn");
    let mut turns = 1;
    while bench.answered(modest) < 2 {
        bench.settle();
        turns += 1;
    }
    assert!(turns <= 2, "the other connection waited for {turns} turns");
    assert!(bench.answered(greedy) < 20);
    while bench.answered(greedy) < 100 {
        assert!(bench.core.has_work());
        bench.settle();
        turns += 1;
        assert!(turns < 200);
    }
    for stream in streams {
        let answer: pb::RangeResponse = bench.answer(greedy, stream);
        assert_eq!((answer.count, answer.kvs.len()), (1000, 1000));
        assert_eq!(answer.kvs[999].key, "k00999".as_bytes());
    }
    assert!(!bench.core.has_work() && bench.core.desk.calls.is_empty());
}

/// What a client asked for and did not read was gathered in memory, as much as its windows allowed.
#[test]
fn a_client_that_does_not_read_is_read_from_and_worked_for_no_more() {
    let mut bench = Bench::new(1000, &[7; 1000], ServiceLimits::default());
    let (deaf, other) = (bench.connect(), bench.connect());
    bench.clients[deaf].reads_nothing = true;
    let streams = bench.call(deaf, Method::Range, &vec![range("k", "l"); 50]);
    let mut turns = 0;
    while bench.core.has_work() {
        bench.settle();
        turns += 1;
        assert!(turns < 100, "work for a client that takes nothing");
    }
    bench.settle();
    let client = bench.core.clients[deaf].as_mut().unwrap();
    assert!(client.paused);
    let Speech::Grpc(connection) = &mut client.speech else { panic!("it speaks gRPC") };
    let waiting = connection.http2().socket_pending_bytes();
    // Four megabytes, the answer that went beyond them, and those of the turn it went in.
    assert!(waiting < OUTPUT_PENDING_BYTES_MAX + (5 << 20), "{waiting} bytes wait");
    bench.call(other, Method::Range, &[range("k00001", "")]);
    bench.settle();
    assert_eq!(bench.answered(other), 1);
    bench.clients[deaf].reads_nothing = false;
    while bench.answered(deaf) < 50 {
        bench.take(deaf);
        bench.settle();
        turns += 1;
        assert!(turns < 10_000);
    }
    for stream in streams {
        let answer: pb::RangeResponse = bench.answer(deaf, stream);
        assert_eq!(answer.kvs.len(), 1000);
    }
    assert!(!bench.core.clients[deaf].as_ref().unwrap().paused);
}

#[test]
fn ranges_of_a_client_that_is_gone_are_forgotten() {
    let mut bench = Bench::new(1000, &[7; 1000], ServiceLimits::default());
    let deaf = bench.connect();
    bench.clients[deaf].reads_nothing = true;
    bench.call(deaf, Method::Range, &vec![range("k", "l"); 50]);
    while bench.core.has_work() {
        bench.settle();
    }
    assert!(!bench.core.desk.calls.is_empty());
    bench.core.handle_closed(socket(deaf));
    while bench.core.has_work() {
        bench.settle();
    }
    assert!(bench.core.desk.calls.is_empty());
}

/// Events of less than a frame went past the account by which slow watchers are parked.
#[test]
fn a_watcher_that_does_not_read_is_parked_however_wide_its_windows_are() {
    let mut bench = Bench::new(0, b"", ServiceLimits::default());
    let client = bench.connect();
    let stream = bench.watch(client);
    bench.settle();
    bench.clients[client].reads_nothing = true;
    let keys: Vec<String> = (0..1000).map(|number| format!("k{number:05}")).collect();
    let mut waiting_most = 0;
    for key in &keys {
        bench.put([key.clone()].into_iter(), &[7; 10_000]);
        bench.settle();
        let Speech::Grpc(connection) = &mut bench.core.clients[client].as_mut().unwrap().speech
        else {
            panic!("it speaks gRPC")
        };
        waiting_most = waiting_most.max(connection.http2().socket_pending_bytes());
    }
    let config = WatchConfig::default();
    // The stream's own megabyte, what went beyond it, and the output.
    assert!(waiting_most > config.stream_pending_bytes_max, "{waiting_most} bytes waited");
    assert!(waiting_most < config.stream_pending_bytes_max + (1 << 20), "{waiting_most} bytes");
    bench.clients[client].reads_nothing = false;
    for _ in 0..1000 {
        bench.take(client);
        bench.settle();
    }
    assert_eq!(bench.watched(client, stream), keys);
}

#[test]
fn an_answer_that_may_not_be_sent_ends_in_grpcs_words() {
    let limits = ServiceLimits { answer_size_bytes_max: 20_000, ..<_>::default() };
    let mut bench = Bench::new(3000, b"value", limits);
    let client = bench.connect();
    bench.clients[client].reads_nothing = true;
    bench.call(client, Method::Range, &[range("k", "l")]);
    while bench.core.has_work() {
        bench.settle();
    }
    bench.settle();
    let sent = bench.clients[client].under_way.take().unwrap();
    let text = "grpc: trying to send message larger than max (";
    let has = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
    assert!(has(text.as_bytes()) && has(b" vs. 2147483647)"));
    assert!(sent.len() < 500, "nothing of it is sent: {} bytes", sent.len());
}

/// What a client asked for was gathered into its streams, as much of it as it asked for, when its
/// windows were shut: the socket had nothing to take, so nothing waited.
#[test]
fn a_client_that_opens_its_windows_late_is_read_for_up_to_a_bound_and_then_gets_all() {
    let mut bench = Bench::new(1000, &[7; 1000], ServiceLimits::default());
    let (late, other) = (bench.connect_with_windows(0), bench.connect());
    let ranges = bench.call(late, Method::Range, &vec![range("k", "l"); 40]);
    let success = vec![pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(range("k", "l"))),
    }];
    let txn = pb::TxnRequest { success, ..<_>::default() };
    let txns = bench.call(late, Method::Txn, &vec![txn; 20]);
    bench.rest();
    let held = bench.core.desk.reading.held_bytes();
    // What may wait in streams, as much that may be gathered, and what one turn adds to either.
    assert!(held > CONNECTION_HELD_BYTES_MAX, "{held} bytes");
    assert!(held < 2 * CONNECTION_HELD_BYTES_MAX + (4 << 20), "{held} bytes");
    assert!(bench.core.desk.calls.len() > 30, "the others wait");
    assert!(!bench.core.clients[late].as_ref().unwrap().paused, "its updates have to arrive");

    // What looks a key up is answered meanwhile, and others get all they ask for.
    let look_up = bench.call(late, Method::Range, &[range("k00001", "")]);
    let whole = bench.call(other, Method::Range, &[range("k", "l")]);
    bench.open_window(late, look_up[0]);
    bench.open_window(late, look_up[0]);
    bench.rest();
    assert_eq!(bench.answer::<pb::RangeResponse>(late, look_up[0]).kvs.len(), 1);
    assert_eq!(bench.answer::<pb::RangeResponse>(other, whole[0]).kvs.len(), 1000);

    bench.open_windows(late);
    bench.rest();
    for stream in ranges {
        assert_eq!(bench.answer::<pb::RangeResponse>(late, stream).kvs.len(), 1000);
    }
    for stream in txns {
        assert!(bench.answer::<pb::TxnResponse>(late, stream).succeeded);
    }
    assert!(bench.core.desk.calls.is_empty());
    assert_eq!(bench.core.desk.reading.held_bytes(), 0);
}

#[test]
fn what_a_client_that_goes_away_held_is_given_back() {
    let mut bench = Bench::new(1000, &[7; 1000], ServiceLimits::default());
    let late = bench.connect_with_windows(0);
    bench.call(late, Method::Range, &vec![range("k", "l"); 40]);
    bench.rest();
    assert!(bench.core.desk.reading.held_bytes() > CONNECTION_HELD_BYTES_MAX);
    bench.core.handle_closed(socket(late));
    bench.rest();
    assert_eq!(bench.core.desk.reading.held_bytes(), 0);
    assert!(bench.core.desk.calls.is_empty());
}

/// Events that wait in a client's streams are held for it as answers are.
#[test]
fn ranges_wait_while_a_client_leaves_its_watches_unread() {
    let mut bench = Bench::new(0, b"", ServiceLimits::default());
    let late = bench.connect_with_windows(0);
    let watches: Vec<u32> = (0..10).map(|_| bench.watch(late)).collect();
    bench.settle();
    let keys: Vec<String> = (0..120).map(|number| format!("k{number:05}")).collect();
    for key in &keys {
        bench.put([key.clone()].into_iter(), &[7; 10_000]);
        bench.settle();
    }
    assert!(bench.core.desk.reading.held_bytes() > CONNECTION_HELD_BYTES_MAX);
    let streams = bench.call(late, Method::Range, &[range("k", "l")]);
    bench.rest();
    assert_eq!(bench.core.desk.calls.len(), 1, "the range waits");
    bench.open_windows(late);
    for _ in 0..1000 {
        bench.settle();
    }
    assert_eq!(bench.answer::<pb::RangeResponse>(late, streams[0]).kvs.len(), 120);
    assert!(watches.iter().all(|stream| bench.watched(late, *stream) == keys));
    assert_eq!(bench.core.desk.reading.held_bytes(), 0);
}

#[test]
fn wide_reads_wait_while_a_core_holds_too_much_and_look_ups_do_not() {
    let mut bench = Bench::new(100, b"value", ServiceLimits::default());
    let client = bench.connect();
    bench.core.desk.reading.handle_queued(0, CORE_HELD_BYTES_MAX + 1);
    let streams = bench.call(client, Method::Range, &[range("k", "l"), range("k00001", "")]);
    bench.rest();
    assert_eq!(bench.answered(client), 1);
    assert_eq!(bench.answer::<pb::RangeResponse>(client, streams[1]).kvs.len(), 1);
    bench.core.desk.reading.handle_queued(CORE_HELD_BYTES_MAX + 1, 0);
    assert!(bench.core.has_work());
    bench.rest();
    assert_eq!(bench.answer::<pb::RangeResponse>(client, streams[0]).kvs.len(), 100);
}

/// All answers of its ranges stood in memory before the first byte of a transaction's was counted.
#[test]
fn a_transaction_of_ranges_gathers_no_more_than_may_be_sent() {
    let limits = ServiceLimits { answer_size_bytes_max: 200_000, ..<_>::default() };
    let mut bench = Bench::new(1000, &[7; 1000], limits);
    let client = bench.connect();
    let wide =
        pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range("k", "l"))) };
    let txn = pb::TxnRequest { success: vec![wide; 100], ..<_>::default() };
    bench.clients[client].reads_nothing = true;
    bench.call(client, Method::Txn, &[txn]);
    let mut turns = 0;
    while bench.core.has_work() {
        bench.settle();
        turns += 1;
    }
    assert!(turns < 5, "{turns} turns for an answer that may not be sent");
    bench.settle();
    let sent = bench.clients[client].under_way.take().unwrap();
    let text = b"grpc: trying to send message larger than max (";
    assert!(sent.windows(text.len()).any(|window| window == text));
    assert!(sent.len() < 500, "nothing of it is sent: {} bytes", sent.len());
}

/// A hash that found no view to hold was tried again at once, for ever.
#[test]
fn a_hash_without_a_view_waits_for_time_to_pass() {
    let mut bench = Bench::new(10, b"value", ServiceLimits::default());
    let client = bench.connect();
    let reader = bench.store.reader.clone();
    let mut held: Vec<_> = std::iter::from_fn(|| reader.hold()).collect();
    assert!(!held.is_empty());
    let streams = bench.call(client, Method::HashKv, &[pb::HashKvRequest { revision: 0 }]);
    bench.settle();
    assert!(!bench.core.has_work() && bench.answered(client) == 0);
    held.clear();
    bench.core.handle_tick(NOW);
    assert!(bench.core.has_work());
    bench.settle();
    let answer: pb::HashKvResponse = bench.answer(client, streams[0]);
    assert_eq!(answer.hash_revision, 11);
}
