//! The engine's kernels: a batch from validated bytes to a published view, a range, an update by
//! transaction, a compaction's sweep. 256 byte values over 200,000 keys in random order, one shard,
//! in memory: what is measured is the work of the core that applies, without a disk.

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::command::{
    BATCH_HEADER_SIZE_BYTES, CompactRef, CompareRef, OperationRef, PutRef, TxnRef,
};
use engine::{
    Answer, Batch, BatchHeader, ClusterId, Engine, EngineConfig, EngineFiles, FrameWriter,
    Identity, LogIndex, MemberId, Progress, RangeQuery, RangeScan, Record, RecordSink, Term,
};

const KEYS: u64 = 200_000;
const VALUE_SIZE_BYTES: usize = 256;

/// Keys as Kubernetes makes them: a long common part, then something that differs.
fn key(index: u64) -> String {
    format!("/registry/pods/default/{:016x}", mix(index))
}

fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

struct Bench {
    engine: Engine,
    writer: FrameWriter,
    answers: Vec<Answer>,
    random: u64,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self::empty();
        for start in (0..KEYS).step_by(1000) {
            let batch = bench.puts(start..start + 1000);
            bench.apply(&batch);
        }
        bench
    }

    fn empty() -> Self {
        let identity = Identity { cluster: ClusterId(1), member: MemberId(1) };
        let config = EngineConfig { shards: 1, shard_size_bytes_max: 8 << 30 };
        let engine = Engine::create(EngineFiles::new_in_memory(), config, identity);
        let engine = engine.expect("memory can be mapped");
        Self { engine, writer: FrameWriter::new(), answers: Vec::new(), random: 0 }
    }

    fn random_key(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random) % KEYS
    }

    fn batch(frames: &[u8], frame_count: u32) -> Batch {
        let header =
            BatchHeader { member: MemberId(1), boot_nonce: 1, sequence_first: 1, frame_count };
        let mut bytes = Vec::with_capacity(BATCH_HEADER_SIZE_BYTES + frames.len());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(frames);
        Batch::validate(bytes).expect("own frames are sound")
    }

    fn puts(&mut self, keys: impl Iterator<Item = u64>) -> Batch {
        let value = [b'v'; VALUE_SIZE_BYTES];
        let mut frames = Vec::new();
        let mut count = 0;
        for index in keys {
            let key = key(index);
            let put = PutRef { key: key.as_bytes(), value: &value, ..PutRef::default() };
            self.writer.push_put(&mut frames, &put);
            count += 1;
        }
        Self::batch(&frames, count)
    }

    fn random_puts(&mut self, count: usize) -> Batch {
        let keys: Vec<u64> = (0..count).map(|_| self.random_key()).collect();
        self.puts(keys.into_iter())
    }

    fn updates(&mut self, count: u32) -> Batch {
        let value = [b'u'; VALUE_SIZE_BYTES];
        let mut frames = Vec::new();
        for _ in 0..count {
            let key = key(self.random_key());
            let put = PutRef { key: key.as_bytes(), value: &value, ..PutRef::default() };
            let unchanged = CompareRef {
                target: 2,
                result: 1,
                key: key.as_bytes(),
                number: 0,
                ..CompareRef::default()
            };
            let txn = TxnRef {
                compares: vec![unchanged],
                success: vec![OperationRef::Put(put)],
                failure: vec![],
            };
            self.writer.push_txn(&mut frames, &txn);
        }
        Self::batch(&frames, count)
    }

    fn apply(&mut self, batch: &Batch) {
        let (applied, _) = self.engine.applied();
        self.engine.reserve_for(batch.bytes().len()).expect("memory is not full");
        self.engine.begin_batch(LogIndex(applied.0 + 1), Term(1), batch);
        self.answers.clear();
        while self.engine.apply_step(usize::MAX, &mut self.answers).expect("memory does not rot")
            == Progress::More
        {}
        self.engine.publish();
    }
}

/// Touches what an encoder would copy.
#[derive(Default)]
struct Sizes(usize);

impl RecordSink for Sizes {
    fn record(&mut self, record: Record<'_>) {
        self.0 += record.key.len() + record.value.len();
    }
}

fn batch_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch_commit");
    for puts in [1_usize, 64, 1000] {
        let mut bench = Bench::new();
        group.throughput(Throughput::Elements(puts as u64));
        let batches: Vec<Batch> = (0..64).map(|_| bench.random_puts(puts)).collect();
        let mut next = 0;
        group.bench_function(format!("{puts}_puts"), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % batches.len();
                bench.apply(&batches[next]);
            });
        });
    }
    group.finish();
}

fn txn_update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("txn_update");
    let mut bench = Bench::new();
    group.throughput(Throughput::Elements(64));
    let batches: Vec<Batch> = (0..64).map(|_| bench.updates(64)).collect();
    let mut next = 0;
    group.bench_function("64_txns", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % batches.len();
            bench.apply(&batches[next]);
        });
    });
    group.finish();
}

fn range(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let mut handle = bench.engine.read_handle();
    let mut group = criterion.benchmark_group("range");
    for limit in [1, 1000] {
        group.throughput(Throughput::Elements(limit));
        group.bench_function(format!("{limit}_keys"), |bencher| {
            bencher.iter_batched(
                || key(bench.random_key() % (KEYS / 2)),
                |start| {
                    let query = RangeQuery {
                        key: start.as_bytes(),
                        range_end: if limit == 1 { b"" } else { b"\0" },
                        limit: if limit == 1 { 0 } else { 1000 },
                        ..RangeQuery::default()
                    };
                    let mut scan = RangeScan::new(&query);
                    let mut sizes = Sizes::default();
                    let view = handle.pin();
                    let progress = scan.step(&view, usize::MAX, &mut sizes);
                    assert_eq!(progress.expect("memory does not rot"), Progress::Done);
                    sizes.0
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The history of few keys, larger than any cache: nearly all of it goes.
fn sweep(criterion: &mut Criterion) {
    const REVISIONS: u64 = 1_000_000;
    const STEP_KEYS: usize = 256;
    let mut bench = Bench::empty();
    let mut group = criterion.benchmark_group("sweep");
    group.throughput(Throughput::Elements(REVISIONS)).sample_size(10);
    group.bench_function(format!("{REVISIONS}_revisions"), |bencher| {
        bencher.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                for start in (0..REVISIONS).step_by(1000) {
                    let batch = bench.puts((start..start + 1000).map(|index| mix(index) % 1000));
                    bench.apply(&batch);
                }
                let mut frames = Vec::new();
                let revision = bench.engine.revision();
                bench.writer.push_compact(&mut frames, CompactRef { revision, physical: false });
                bench.apply(&Bench::batch(&frames, 1));
                let begun = Instant::now();
                while bench.engine.background_step(STEP_KEYS).expect("memory does not rot") {}
                took += begun.elapsed();
            }
            took
        });
    });
    group.finish();
}

criterion_group!(kernels, batch_commit, txn_update, range, sweep);
criterion_main!(kernels);
