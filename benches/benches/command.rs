//! The kernels of the command codec: a thousand puts of 256 byte values on their road from the
//! receive buffer to apply.
//!
//! - `frame`: the service takes a put as it came, decodes, checks and writes its frame: the only
//!   copy of key and value before the log.
//! - `count`: what the sequencer checks of frames before it proposes them.
//! - `validate`: every frame of a batch is checked once on receipt.
//! - `read`: after that, access to the fields of each command.

use std::hint::black_box;

use benches::draw::{Draw, pod};
use benches::requests;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::command::{BATCH_HEADER_SIZE_BYTES, frame_count};
use engine::{
    Batch, BatchHeader, ClusterId, Engine, EngineConfig, EngineFiles, HeldView, Identity, MemberId,
};
use server::service::dispatch::{Action, Service, ServiceLimits};
use server::service::lease::LeaseIds;
use server::service::method::Method;
use server::service::node_state::NodeState;

const PUTS: usize = 1000;
const NAMESPACES: u64 = 10_000;

fn messages() -> Vec<Vec<u8>> {
    let mut draw = Draw::new(2);
    let message = |_| requests::put(&pod(draw.below(NAMESPACES)), &draw.value());
    (0..PUTS).map(message).collect()
}

/// A put looks at no view, but the service is always given one.
fn empty_view() -> (Engine, HeldView) {
    let identity = Identity { cluster: ClusterId(1), member: MemberId(1) };
    let config = EngineConfig { shards: 1, shard_size_bytes_max: 1 << 30 };
    let mut engine = Engine::create(EngineFiles::new_in_memory(), config, identity)
        .expect("memory can be mapped");
    engine.publish();
    let view = engine.read_handle().hold().expect("nobody else holds a view");
    (engine, view)
}

struct Desk {
    service: Service,
    node: NodeState,
    _engine: Engine,
    view: HeldView,
    out: Vec<u8>,
}

impl Desk {
    fn new() -> Self {
        let node = NodeState::default();
        let service = Service::new(ServiceLimits::default(), &node, LeaseIds::new(1, 1, 0, 1));
        let (engine, view) = empty_view();
        Self { service, node, _engine: engine, view, out: Vec::new() }
    }

    fn push(&mut self, message: &[u8], frames: &mut Vec<u8>) {
        let (node, view) = (&self.node, &self.view);
        let method = Method::Put;
        let action =
            self.service.handle_message(method, message, node, view, &mut 1, frames, &mut self.out);
        assert!(matches!(action, Action::Write), "a sound put became {action:?}");
    }
}

fn batch_bytes() -> Vec<u8> {
    let mut desk = Desk::new();
    let frame_count = u32::try_from(PUTS).expect("a thousand");
    let header = BatchHeader { member: MemberId(1), boot_nonce: 1, sequence_first: 1, frame_count };
    let mut frames = Vec::new();
    for message in messages() {
        desk.push(&message, &mut frames);
    }
    [&header.to_bytes()[..], &frames].concat()
}

fn frame(criterion: &mut Criterion) {
    let messages = messages();
    let bytes: usize = messages.iter().map(Vec::len).sum();
    let mut desk = Desk::new();
    let mut frames = Vec::new();
    let mut group = criterion.benchmark_group("command frame");
    group.throughput(Throughput::ElementsAndBytes { elements: PUTS as u64, bytes: bytes as u64 });
    group.bench_function("1000 puts", |bencher| {
        bencher.iter(|| {
            frames.clear();
            for message in &messages {
                desk.push(message, &mut frames);
            }
            black_box(frames.len())
        });
    });
    group.finish();
}

fn batch(criterion: &mut Criterion) {
    let bytes = batch_bytes();
    let frames = &bytes[BATCH_HEADER_SIZE_BYTES..];
    let mut group = criterion.benchmark_group("command batch");
    // No bytes a second: most of them are values, which nothing here looks into.
    group.throughput(Throughput::Elements(PUTS as u64));
    group.bench_function("count 1000 frames", |bencher| {
        bencher.iter(|| frame_count(frames).expect("own frames are sound"));
    });
    group.bench_function("validate 1000 puts", |bencher| {
        bencher.iter_batched(|| bytes.clone(), Batch::validate, BatchSize::LargeInput);
    });
    let batch = Batch::validate(bytes.clone()).expect("own frames are sound");
    group.bench_function("read 1000 puts", |bencher| {
        bencher.iter(|| {
            let mut sizes = 0;
            for index in 0..batch.len() {
                let put = batch.put(index).expect("the batch holds only puts");
                sizes += put.key.len() + put.value.len();
            }
            black_box(sizes)
        });
    });
    group.finish();
}

criterion_group!(kernels, frame, batch);
criterion_main!(kernels);
