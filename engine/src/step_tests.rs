//! A step of a long job touches what its budget says, whatever the keys and values are like.
//!
//! Counted are the pages that a step looks up, not time: a range at an old revision passed over a
//! million younger keys in one step, and a delete copied all its records in one.

use std::cell::Cell;

use crate::command::{
    Batch, BatchHeader, CompactRef, CompareRef, DeleteRangeRef, FrameWriter, OperationRef, PutRef,
    TxnRef,
};
use crate::engine::{Engine, EngineConfig, EngineFiles, Identity};
use crate::hash::{HashRun, KeyValueHashScan};
use crate::ids::{ClusterId, LogIndex, MemberId, Revision, Term};
use crate::limits::BYTES_PER_KEY;
use crate::page::disk::{Completion, DiskOpKind};
use crate::page::{
    ExtentRef, FaultKind, PageBuffer, PageBytes, PageFault, PageId, PagePtr, PageReader,
};
use crate::page::{Pages, TreeTag};
use crate::range::{Progress, RangeQuery, RangeScan, SortOrder, SortTarget};
use crate::store::{ShardRoots, Store};
use crate::txn::TxnScan;
use crate::view::{ReadHandle, View};
use crate::{OperationOutcome, Outcome, OwnedRecord};

/// Keys enough to make many steps.
const KEYS: usize = 4000;
const BUDGET: usize = 50;
/// The look-ups that a key may cost: two trees to walk on in, and a look into its history, which
/// descends a tree of two levels or three a few times.
const PAGES_PER_KEY: usize = 12;
/// And those that a step may cost besides: the walks are begun anew.
const PAGES_PER_STEP: usize = 40;

struct CountedPages<'v> {
    pages: &'v PageReader,
    touched: Cell<usize>,
}

impl Pages for CountedPages<'_> {
    fn page(&self, ptr: PagePtr) -> Result<&PageBytes, PageFault> {
        self.touched.set(self.touched.get() + 1);
        self.pages.page(ptr)
    }

    fn extent(&self, tree: TreeTag, extent: ExtentRef) -> Result<&[u8], PageFault> {
        self.touched.set(self.touched.get() + 1);
        self.pages.extent(tree, extent)
    }

    fn fault(&self, tree: TreeTag, page: PageId, what: FaultKind) -> PageFault {
        self.pages.fault(tree, page, what)
    }

    fn prefetch(&self, page: PageId) {
        self.pages.prefetch(page);
    }

    fn read_window(&self, window: u32) {
        self.pages.read_window(window);
    }
}

/// A view that counts.
struct Counted<'v> {
    view: &'v View,
    pages: CountedPages<'v>,
}

impl<'v> Counted<'v> {
    fn new(view: &'v View) -> Self {
        let pages = CountedPages { pages: view.shard(0).0, touched: Cell::new(0) };
        Self { view, pages }
    }

    fn take_touched(&self) -> usize {
        self.pages.touched.take()
    }
}

impl<'v> Store for Counted<'v> {
    type Pages = CountedPages<'v>;

    fn shard_count(&self) -> usize {
        1
    }

    fn shard(&self, shard: usize) -> (&CountedPages<'v>, &ShardRoots) {
        (&self.pages, self.view.shard(shard).1)
    }

    fn revision(&self) -> Revision {
        self.view.revision
    }

    fn compacted(&self) -> Revision {
        self.view.compacted
    }
}

struct Bench {
    engine: Engine,
    reader: ReadHandle,
    index: u64,
    /// Steps that the last batch took.
    steps: usize,
}

impl Bench {
    fn new() -> Self {
        let config = EngineConfig { shards: 1, shard_size_bytes_max: 1 << 30 };
        let identity = Identity { cluster: ClusterId(1), member: MemberId(2) };
        let engine = Engine::create(EngineFiles::new_in_memory(), config, identity).unwrap();
        let reader = engine.read_handle();
        Self { engine, reader, index: 0, steps: 0 }
    }

    fn apply(
        &mut self,
        budget: usize,
        write: impl FnOnce(&mut FrameWriter, &mut Vec<u8>),
    ) -> Vec<Outcome> {
        let mut frames = Vec::new();
        write(&mut FrameWriter::new(), &mut frames);
        let header = BatchHeader {
            member: MemberId(2),
            boot_nonce: 1,
            sequence_first: 1,
            frame_count: crate::command::frame_count(&frames).unwrap(),
        };
        let batch = Batch::validate([&header.to_bytes()[..], &frames].concat()).unwrap();
        self.index += 1;
        self.engine.begin_batch(LogIndex(self.index), Term(1), &batch);
        let mut answers = Vec::new();
        self.steps = 1;
        while self.engine.apply_step(budget, &mut answers).unwrap() == Progress::More {
            self.steps += usize::from(!self.engine.is_apply_starved());
            self.serve_disk();
        }
        self.engine.publish();
        answers.into_iter().map(|answer| answer.outcome).collect()
    }

    fn serve_disk(&mut self) {
        while let Some(op) = self.engine.poll_disk_op() {
            let buffer = match op.kind {
                DiskOpKind::Write { bytes, .. } => bytes,
                DiskOpKind::Sync | DiskOpKind::Allocate { .. } | DiskOpKind::Shorten { .. } => {
                    PageBuffer::default()
                }
            };
            let completion = Completion { token: op.token, buffer, result: Ok(()) };
            self.engine.handle_disk_completion(completion).unwrap();
        }
    }

    fn put(&mut self, keys: &[String], value: &[u8]) {
        for keys in keys.chunks(500) {
            self.apply(usize::MAX, |writer, frames| {
                for key in keys {
                    let put = PutRef { key: key.as_bytes(), value, ..PutRef::default() };
                    writer.push_put(frames, &put);
                }
            });
        }
    }

    fn delete_all(&mut self) {
        let delete = DeleteRangeRef { key: b"a", range_end: &[0], prev_kv: false };
        self.apply(usize::MAX, |writer, frames| writer.push_delete_range(frames, &delete));
    }
}

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number:05}")).collect()
}

fn assert_bounded(touched: usize, budget: usize) {
    let touched_max = budget * PAGES_PER_KEY + PAGES_PER_STEP;
    assert!(touched <= touched_max, "{touched} pages in a step of {budget} keys");
}

/// Steps a range to its end; its records and the number of its steps.
fn range_in_steps(bench: &mut Bench, query: &RangeQuery<'_>) -> (Vec<OwnedRecord>, i64, usize) {
    let view = bench.reader.pin();
    let counted = Counted::new(&view);
    let (mut scan, mut records, mut steps) = (RangeScan::new(query), Vec::new(), 0);
    loop {
        steps += 1;
        let progress = scan.step_on(&counted, &mut BUDGET.clone(), &mut records).unwrap();
        assert_bounded(counted.take_touched(), BUDGET);
        if progress == Progress::Done {
            return (records, scan.summary().count, steps);
        }
    }
}

/// The walk at an old revision looked for the next key that lived then, however far that was.
#[test]
fn keys_that_are_not_seen_cost_a_step_as_much_as_others() {
    let mut bench = Bench::new();
    bench.put(&["a".to_owned(), "z".to_owned()], b"old");
    let old = bench.engine.revision();
    bench.put(&keys("k", KEYS), b"young");
    let young = bench.engine.revision();
    bench.delete_all();
    bench.put(&keys("k", KEYS / 2), b"younger");
    for (order, first) in [(SortOrder::Ascend, b"a"), (SortOrder::Descend, b"z")] {
        let all = RangeQuery { key: b"a", range_end: &[0], sort_order: order, ..<_>::default() };
        for (target, limit) in [(SortTarget::Key, 0), (SortTarget::Key, 1), (SortTarget::Mod, 0)] {
            let query = RangeQuery { revision: old.0, sort_target: target, limit, ..all };
            let (records, count, steps) = range_in_steps(&mut bench, &query);
            assert_eq!((records[0].key.as_slice(), count), (&first[..], 2));
            assert_eq!(records.len(), if limit == 0 { 2 } else { 1 });
            assert!(steps >= KEYS / BUDGET, "{KEYS} keys in {steps} steps");
        }
        // All of them lived then; and then none did.
        let query = RangeQuery { revision: young.0, ..all };
        assert_eq!(range_in_steps(&mut bench, &query).1, i64::try_from(KEYS).unwrap() + 2);
        let query = RangeQuery { revision: young.0 + 1, ..all };
        let (records, count, steps) = range_in_steps(&mut bench, &query);
        assert!(records.is_empty() && count == 0 && steps >= KEYS / BUDGET);
    }
}

/// Whether any key lives at its revision was found out in the first step of a hash.
#[test]
fn a_hash_looks_for_a_key_that_lives_within_its_budget() {
    let mut bench = Bench::new();
    bench.put(&keys("k", 3), b"old");
    bench.delete_all();
    let bare = bench.engine.revision();
    bench.put(&keys("k", KEYS), b"young");
    let compact = CompactRef { revision: bare, physical: false };
    bench.apply(usize::MAX, |writer, frames| writer.push_compact(frames, compact));
    let view = bench.reader.pin();
    let counted = Counted::new(&view);
    let hash = |budget: usize| {
        let (mut run, mut steps) = (HashRun::new(bare, bare), 1);
        while run.step(&counted, budget).unwrap() == Progress::More {
            assert_bounded(counted.take_touched(), budget);
            steps += 1;
        }
        assert_bounded(counted.take_touched(), budget);
        (run.result(bare).hash, steps)
    };
    let (in_steps, steps) = hash(BUDGET);
    let (at_once, one) = hash(1 << 20);
    assert_eq!((in_steps, one), (at_once, 1));
    assert!(steps >= KEYS / BUDGET, "{KEYS} keys in {steps} steps");
}

/// A comparison over a range reads at the transaction's revision, however much was written since.
#[test]
fn a_comparison_passes_younger_keys_within_its_budget() {
    let mut bench = Bench::new();
    bench.put(&["z".to_owned()], b"old");
    let compare = CompareRef { key: b"a", range_end: &[0], target: 1, ..<_>::default() };
    let query = RangeQuery { key: b"a", range_end: &[0], ..<_>::default() };
    let txn = |number: i64| TxnRef {
        compares: vec![CompareRef { number, ..compare }],
        success: vec![OperationRef::Range(query)],
        ..<_>::default()
    };
    for (number, holds) in [(2, true), (3, false)] {
        let mut scan = TxnScan::new(&txn(number));
        // The first step does nothing but learn the revision.
        let revision = bench.engine.revision();
        assert_eq!(scan.step_within(&bench.reader.pin(), &mut 0).unwrap(), Progress::More);
        bench.put(&keys("k", KEYS), b"young");
        let mut steps = 1;
        while scan.step(&bench.reader.pin(), BUDGET).unwrap() == Progress::More {
            steps += 1;
        }
        assert!(steps >= KEYS / BUDGET, "{KEYS} keys in {steps} steps");
        assert_eq!((scan.revision(), scan.into_outcome().succeeded), (revision, holds));
        bench.delete_all();
        bench.put(&["z".to_owned()], b"old");
    }
}

const LARGE_SIZE_BYTES: usize = 40 << 10;
const LARGE_KEYS: usize = 100;
/// A step takes the bytes of its budget, what one record is over them, and each byte twice at most
/// before it is charged.
const LARGE_STEPS_MIN: usize =
    LARGE_KEYS * LARGE_SIZE_BYTES / (2 * (BUDGET * BYTES_PER_KEY + LARGE_SIZE_BYTES));

/// Budgets counted keys alone: a hundred of them could be a hundred megabytes.
#[test]
fn bytes_end_a_step_of_apply_as_keys_do() {
    let value = vec![7; LARGE_SIZE_BYTES];
    let keys = keys("k", LARGE_KEYS);
    let mut bench = Bench::new();
    bench.put(&keys, &value);
    let all = RangeQuery { key: b"k", range_end: b"l", ..<_>::default() };
    let sorted = RangeQuery { sort_target: SortTarget::Value, ..all };
    for query in [all, sorted] {
        let success = vec![OperationRef::Range(query)];
        let txn = TxnRef { success, ..<_>::default() };
        let outcomes = bench.apply(BUDGET, |writer, frames| writer.push_txn(frames, &txn));
        let Outcome::Txn(outcome) = &outcomes[0] else { panic!("{outcomes:?}") };
        let OperationOutcome::Range { records, .. } = &outcome.responses[0] else { panic!() };
        assert!(records.iter().map(|record| &record.key).eq(keys.iter().map(String::as_bytes)));
        assert!(bench.steps >= LARGE_STEPS_MIN, "{} steps", bench.steps);
    }
    bench.apply(BUDGET, |writer, frames| {
        for key in &keys {
            let put =
                PutRef { key: key.as_bytes(), value: &value, prev_kv: true, ..<_>::default() };
            writer.push_put(frames, &put);
        }
    });
    assert!(bench.steps >= LARGE_STEPS_MIN, "{} steps", bench.steps);
    let delete = DeleteRangeRef { key: b"k", range_end: b"l", prev_kv: true };
    let outcomes = bench.apply(BUDGET, |writer, frames| writer.push_delete_range(frames, &delete));
    let Outcome::DeleteRange { deleted, prevs } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!((*deleted, prevs.len()), (100, LARGE_KEYS));
    assert!(prevs.iter().map(|prev| &prev.key).eq(keys.iter().map(String::as_bytes)));
    assert!(bench.steps >= LARGE_STEPS_MIN, "{} steps", bench.steps);
}

#[test]
fn bytes_end_a_step_of_a_hash_and_of_a_scan() {
    let value = vec![7; LARGE_SIZE_BYTES];
    let mut bench = Bench::new();
    bench.put(&keys("k", LARGE_KEYS), &value);
    let view = bench.reader.pin();
    let (mut scan, mut steps) = (KeyValueHashScan::new(Revision(0)), 1);
    while scan.step(&view, BUDGET).unwrap() == Progress::More {
        steps += 1;
    }
    assert!(steps >= LARGE_STEPS_MIN, "{steps} steps");
    let mut at_once = KeyValueHashScan::new(Revision(0));
    while at_once.step(&view, 1 << 30).unwrap() == Progress::More {}
    assert_eq!(scan.result(), at_once.result());

    let query = RangeQuery { key: b"k", range_end: b"l", ..<_>::default() };
    for sort_target in [SortTarget::Key, SortTarget::Mod] {
        let success = vec![OperationRef::Range(RangeQuery { sort_target, ..query })];
        let mut scan = TxnScan::new(&TxnRef { success, ..<_>::default() });
        let mut held = 0;
        while scan.step(&view, BUDGET).unwrap() == Progress::More {
            let more = scan.held_bytes().saturating_sub(held);
            assert!(more <= 2 * (BUDGET * BYTES_PER_KEY + LARGE_SIZE_BYTES), "{more} in a step");
            held = held.max(scan.held_bytes());
        }
        assert!(scan.held_bytes() >= LARGE_KEYS * LARGE_SIZE_BYTES);
        assert_eq!(scan.into_outcome().responses.len(), 1);
    }
}
