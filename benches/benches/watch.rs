//! The watch kernels: a batch of a thousand events, one put each with a 256 byte value, offered to
//! the watchers of one front-end core.
//!
//! - `match`: watchers of single keys or of prefixes, a hundred to a stream, over 10,000
//!   namespaces from which the events are drawn: with 10,000 watchers each event goes to one of
//!   them, with one watcher hardly any goes anywhere. Includes encoding what was wanted, and the
//!   walk over the responses.
//! - `share`: everybody wants everything, each on a stream of its own. `encode` walks the
//!   responses: an event is encoded once, so what more watchers add is their links. `copy` appends
//!   each response to its connection's output, as the front-end core does.
//!
//! Batches chain by revision, so a hub sees each once; it is then replaced by a new one, and its
//! building and first batch are not counted.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::draw::{Draw, PODS, pod, pods_of};
use benches::requests;
use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use engine::command::{BATCH_HEADER_SIZE_BYTES, PutRef};
use engine::{
    Batch, BatchHeader, ClusterId, Engine, EngineConfig, EngineFiles, EventBatch, FrameWriter,
    HeldView, Identity, LogIndex, MemberId, Progress, Term,
};
use server::service::node_state::NodeState;
use server::service::watch::{StreamId, WatchConfig, WatchHub, WatchOutput};

const EVENTS: u32 = 1000;
const NAMESPACES: u64 = 10_000;
const STREAM_WATCHERS: usize = 100;
/// Each hub works through so many, and one more before the clock runs.
const BATCHES_COUNTED: usize = 32;

/// The first key and the first one behind; an empty end means a single key.
type Range = (Vec<u8>, Vec<u8>);

/// What the log core would have told, and the view as it was before.
struct History {
    view: HeldView,
    batches: Vec<Arc<EventBatch>>,
    // Owns the pages that the view is of.
    _engine: Engine,
}

impl History {
    fn new() -> Self {
        let identity = Identity { cluster: ClusterId(1), member: MemberId(1) };
        let config = EngineConfig { shards: 1, shard_size_bytes_max: 8 << 30 };
        let mut engine = Engine::create(EngineFiles::new_in_memory(), config, identity)
            .expect("memory can be mapped");
        engine.publish();
        engine.set_events_wanted(true, false);
        let view = engine.read_handle().hold().expect("nobody else holds a view");
        let mut draw = Draw::new(3);
        let batches = (1..=BATCHES_COUNTED + 1).map(|index| {
            let batch = put_batch(&mut draw);
            apply(&mut engine, LogIndex(index as u64), &batch);
            engine.take_events().expect("events are wanted, and something changed")
        });
        Self { view, batches: batches.collect(), _engine: engine }
    }

    /// A hub with watchers of these ranges.
    fn hub(&self, ranges: &[Range], stream_watchers: usize) -> WatchHub {
        let node = NodeState::default();
        let mut hub = WatchHub::new(WatchConfig::default(), &node, self.view.revision);
        for (stream, ranges) in (1..).map(StreamId).zip(ranges.chunks(stream_watchers)) {
            hub.handle_opened(stream, Duration::ZERO);
            for (key, range_end) in ranges {
                hub.handle_message(stream, &requests::watch(key, range_end), &self.view)
                    .expect("a sound request");
            }
        }
        while hub.poll_output().is_some() {}
        assert_eq!(hub.watcher_count(), ranges.len());
        hub
    }

    /// Times batches through hubs like this one.
    fn measure(
        &self,
        bencher: &mut Bencher<'_>,
        new_hub: impl Fn() -> WatchHub,
        mut send: impl FnMut(&WatchOutput<'_>),
    ) {
        bencher.iter_custom(|batch_count| {
            let mut left = usize::try_from(batch_count).expect("usize is 64 bits wide");
            let mut taken = Duration::ZERO;
            let (first, others) = self.batches.split_first().expect("there are some");
            while left > 0 {
                let mut hub = new_hub();
                offer(&mut hub, first, &mut send);
                let batches = &others[..left.min(others.len())];
                let start = Instant::now();
                for batch in batches {
                    offer(&mut hub, batch, &mut send);
                }
                taken += start.elapsed();
                left -= batches.len();
            }
            taken
        });
    }
}

fn put_batch(draw: &mut Draw) -> Batch {
    let mut frames = Vec::new();
    let mut writer = FrameWriter::new();
    for _ in 0..EVENTS {
        let (key, value) = (pod(draw.below(NAMESPACES)), draw.value());
        let put = PutRef { key: &key, value: &value, ..PutRef::default() };
        writer.push_put(&mut frames, &put);
    }
    let header =
        BatchHeader { member: MemberId(1), boot_nonce: 1, sequence_first: 1, frame_count: EVENTS };
    let mut bytes = Vec::with_capacity(BATCH_HEADER_SIZE_BYTES + frames.len());
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(&frames);
    Batch::validate(bytes).expect("own frames are sound")
}

fn apply(engine: &mut Engine, index: LogIndex, batch: &Batch) {
    engine.reserve_for(batch.bytes().len()).expect("memory is not full");
    engine.begin_batch(index, Term(1), batch);
    let mut answers = Vec::new();
    while engine.apply_step(usize::MAX, &mut answers).expect("memory does not rot")
        == Progress::More
    {}
    engine.publish();
}

/// One batch to all watchers, and every response on its way.
fn offer(hub: &mut WatchHub, batch: &Arc<EventBatch>, send: &mut impl FnMut(&WatchOutput<'_>)) {
    hub.handle_events(batch);
    while let Some(output) = hub.poll_output() {
        send(&output);
    }
}

/// The least that has to be done with a response: to come by all its bytes.
fn walk(output: &WatchOutput<'_>) {
    output.for_each_slice(|slice| {
        black_box(slice);
    });
}

fn matching(criterion: &mut Criterion) {
    let history = History::new();
    let mut group = criterion.benchmark_group("watch match");
    group.throughput(Throughput::Elements(EVENTS.into()));
    let single = |namespace| (pod(namespace), Vec::new());
    let kinds: [(&str, &dyn Fn(u64) -> Range); 2] = [("keys", &single), ("prefixes", &pods_of)];
    for (name, range) in kinds {
        for watchers in [1, 1000, 10_000] {
            let ranges: Vec<_> = (0..watchers).map(range).collect();
            group.bench_function(format!("{watchers} {name}"), |bencher| {
                history.measure(bencher, || history.hub(&ranges, STREAM_WATCHERS), walk);
            });
        }
    }
    group.finish();
}

fn share(criterion: &mut Criterion) {
    let history = History::new();
    let mut group = criterion.benchmark_group("watch share");
    group.throughput(Throughput::Elements(EVENTS.into()));
    let everything = (PODS.as_bytes().to_vec(), b"/registry/pods0".to_vec());
    for watchers in [1, 10, 100] {
        let ranges = vec![everything.clone(); watchers];
        let new_hub = || history.hub(&ranges, 1);
        group.bench_function(format!("encode for {watchers}"), |bencher| {
            history.measure(bencher, new_hub, walk);
        });
        group.bench_function(format!("copy for {watchers}"), |bencher| {
            let mut connection = Vec::new();
            history.measure(bencher, new_hub, |output| {
                connection.clear();
                output.append_to(&mut connection);
                black_box(connection.len());
            });
        });
    }
    group.finish();
}

criterion_group!(kernels, matching, share);
criterion_main!(kernels);
