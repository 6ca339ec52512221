//! Kernels of the tree: one million keys with values of 256 bytes, in memory.
//!
//! `cargo kernels --bench tree`. The goals, on the machine of the design's figures: random get
//! below 500 ns, random insert in batches of a thousand below 2.5 µs, append below 400 ns, scan
//! above five million entries a second, count below 1 µs.

use std::hint::black_box;
use std::ops::Bound;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::page::disk::FileId;
use engine::page::{MapSource, PageConfig, PageFile, PagesNeeded, Root, TreeTag};
use engine::tree::{Body, Cursor, count, get, insert};

const KEYS: u64 = 1_000_000;
const BATCH: u64 = 1_000;
const HEAD: [u8; 40] = [1; 40];
const BODY: [u8; 256] = [7; 256];

fn key(number: u64) -> [u8; 32] {
    let mut key = *b"/registry/pods/default/000000000";
    let mut rest = number;
    for digit in key.iter_mut().rev().take(9) {
        *digit = b"0123456789"[usize::try_from(rest % 10).expect("a digit")];
        rest /= 10;
    }
    key
}

/// The numbers below [`KEYS`] in an order without locality; the factor shares no divisor with it.
fn scattered(step: u64) -> u64 {
    step.wrapping_mul(611_953) % KEYS
}

struct Store {
    pages: PageFile,
    root: Root,
    step: u64,
}

impl Store {
    fn new() -> Self {
        let config = PageConfig::new(FileId::Shard(0), 16 << 30);
        let pages = PageFile::create(MapSource::Memory(Vec::new()), config)
            .expect("memory can be reserved");
        Self { pages, root: Root::empty(TreeTag(1)), step: 0 }
    }

    fn put(&mut self, key: &[u8], body: &[u8]) {
        insert(&mut self.pages, &mut self.root, key, &HEAD, Body::Bytes(body))
            .expect("the batch was reserved for");
    }

    fn reserve(&mut self) {
        let needed = PagesNeeded { pages: 8_000, extent_pages: 0 };
        self.pages.reserve(needed).expect("memory grows");
    }

    fn publish(&mut self) {
        let epoch = self.pages.working_epoch();
        self.pages.advance(epoch.next());
        self.pages.reclaim(&[]);
    }

    /// A batch of scattered keys and its publication: inserts at first, then replacements.
    fn scattered_batch(&mut self) {
        self.reserve();
        for _ in 0..BATCH {
            let key = key(scattered(self.step));
            self.put(&key, &BODY);
            self.step += 1;
        }
        self.publish();
    }

    fn append_batch(&mut self) {
        self.reserve();
        for _ in 0..BATCH {
            let mut revision = [0; 16];
            revision[..8].copy_from_slice(&self.step.to_be_bytes());
            let body = key(self.step);
            self.put(&revision, &body);
            self.step += 1;
        }
        self.publish();
    }

    fn full() -> Self {
        let mut store = Self::new();
        for _ in 0..KEYS / BATCH {
            store.scattered_batch();
        }
        store
    }
}

fn writes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tree");
    group.throughput(Throughput::Elements(BATCH)).sample_size(20);
    let mut store = Store::new();
    group.bench_function("append", |bencher| bencher.iter(|| store.append_batch()));
    // Every sample loads the same range of sizes, from nothing to a tenth of the keys.
    group.bench_function("insert scattered", |bencher| {
        let mut store = Store::new();
        bencher.iter(|| {
            if store.step >= KEYS / 10 {
                store = Store::new();
            }
            store.scattered_batch();
        });
    });
    let mut store = Store::full();
    group.bench_function("replace scattered", |bencher| bencher.iter(|| store.scattered_batch()));
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let store = Store::full();
    let reader = store.pages.reader();
    let mut group = criterion.benchmark_group("tree");
    group.sample_size(30);
    let mut step = 0;
    let mut next_key = move || {
        step += 7;
        key(scattered(step))
    };
    group.bench_function("get", |bencher| {
        bencher.iter_batched(
            &mut next_key,
            |key| black_box(get(&reader, store.root, &key).expect("whole pages").is_some()),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("count", |bencher| {
        bencher.iter_batched(
            || (next_key(), next_key()),
            |(low, high)| {
                let (low, high) = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
                black_box(count(&reader, store.root, low, high).expect("whole pages"))
            },
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("scan", |bencher| {
        bencher.iter(|| {
            let mut cursor = Cursor::new(&reader, store.root);
            let mut size = 0;
            while let Some((key, entry)) = cursor.next().expect("whole pages") {
                size += key.len() + entry.body(&reader).expect("whole pages").len();
            }
            black_box(size)
        });
    });
    group.finish();
}

criterion_group!(kernels, writes, reads);
criterion_main!(kernels);
