//! Transactions: comparisons first, then checks, then the operations of the branches taken.
//!
//! The run is one machine for the log's transactions and for those of ranges alone, which a core
//! answers from a view. It is resumable at every key it touches, and the bytes that it copies count
//! as keys.
//!
//! Invariants:
//! - All comparisons, nested ones included, see the state before the transaction.
//! - Every refusal is found before the first change: a transaction is done wholly or not at all.
//! - Operations are executed in order and see what those before them changed.

mod compare;

use crate::answer::{OperationOutcome, OwnedRecord, ReadError, Rejection, TxnOutcome};
use crate::command::{
    Batch, BatchHeader, Command, DeleteRangeRef, FrameWriter, Operation, OperationRef, PutRef,
    TxnRef, TxnTable,
};
use crate::delete::DeleteRun;
use crate::ids::{LeaseId, MemberId, Revision};
use crate::limits;
use crate::page::{PageFault, PageReader};
use crate::range::{Progress, RangeScan, RecordCopies};
use crate::store::{ShardRoots, Store};
use crate::view::View;
use crate::working::Working;
use compare::CompareRun;

/// What transactions are executed on.
pub(crate) trait TxnTarget: Store {
    fn put(&mut self, put: &PutRef<'_>) -> Result<Option<OwnedRecord>, PageFault>;

    fn delete_step(
        &mut self,
        run: &mut DeleteRun,
        delete: &DeleteRangeRef<'_>,
        budget: &mut usize,
    ) -> Result<Progress, PageFault>;

    fn lease_is_known(&self, lease: LeaseId) -> Result<bool, PageFault>;
}

impl TxnTarget for Working {
    fn put(&mut self, put: &PutRef<'_>) -> Result<Option<OwnedRecord>, PageFault> {
        Self::put(self, put)
    }

    fn delete_step(
        &mut self,
        run: &mut DeleteRun,
        delete: &DeleteRangeRef<'_>,
        budget: &mut usize,
    ) -> Result<Progress, PageFault> {
        run.step(delete, self, budget)
    }

    fn lease_is_known(&self, lease: LeaseId) -> Result<bool, PageFault> {
        Self::lease_is_known(self, lease)
    }
}

/// A transaction on its way. Every step needs the table it was made for.
#[derive(Debug)]
pub(crate) struct TxnRun {
    phase: Phase,
    /// Which branch each node takes; `None` for nodes that are not reached.
    taken: Vec<Option<bool>>,
    compare: CompareRun,
    walk: OperationWalk,
    operation: Option<OperationRun>,
    /// The outcomes of the nodes being executed, the innermost last.
    open: Vec<TxnOutcome>,
    /// Bytes of the records in finished responses.
    responded_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Compare,
    Check,
    Execute,
}

#[derive(Debug)]
enum OperationRun {
    Range { scan: Box<RangeScan>, records: Vec<OwnedRecord>, size_bytes: usize },
    Delete { position: usize, run: DeleteRun },
}

/// How a step of a run ended.
pub(crate) enum TxnStep {
    More,
    Done(TxnOutcome),
}

impl TxnRun {
    pub(crate) fn new(table: TxnTable<'_>) -> Self {
        Self {
            phase: Phase::Compare,
            taken: vec![None; table.node_count()],
            compare: CompareRun::new(),
            walk: OperationWalk::default(),
            operation: None,
            open: Vec::new(),
            responded_bytes: 0,
        }
    }

    /// About what the run holds of its answer.
    fn held_bytes(&self) -> usize {
        let held = match &self.operation {
            Some(OperationRun::Range { scan, size_bytes, .. }) => scan.held_bytes() + size_bytes,
            Some(OperationRun::Delete { run, .. }) => run.prevs_size_bytes,
            None => 0,
        };
        self.responded_bytes + held
    }

    /// Goes on. After a rejection nothing was changed, and the run is over.
    pub(crate) fn step<T: TxnTarget>(
        &mut self,
        table: TxnTable<'_>,
        target: &mut T,
        budget: &mut usize,
    ) -> Result<TxnStep, ReadError> {
        if self.phase == Phase::Compare {
            if self.compare.step(table, target, &mut self.taken, budget)? == Progress::More {
                return Ok(TxnStep::More);
            }
            self.walk = OperationWalk::begin();
            self.phase = Phase::Check;
        }
        if self.phase == Phase::Check {
            if self.check(table, target, budget)? == Progress::More {
                return Ok(TxnStep::More);
            }
            self.walk = OperationWalk::begin();
            self.phase = Phase::Execute;
        }
        self.execute(table, target, budget)
    }

    /// Looks for the first refusal, in the order of execution, on the state before any change.
    fn check<T: TxnTarget>(
        &mut self,
        table: TxnTable<'_>,
        target: &T,
        budget: &mut usize,
    ) -> Result<Progress, ReadError> {
        loop {
            if *budget == 0 {
                return Ok(Progress::More);
            }
            *budget -= 1;
            let Some(step) = self.walk.next(table, &self.taken) else { break };
            let WalkStep::Operation(position) = step else { continue };
            match table.operation(position) {
                Operation::Range(range) => {
                    let revision = Revision(range.revision);
                    if revision.0 != 0 && revision > target.revision() {
                        return Err(Rejection::FutureRevision.into());
                    }
                    if revision.0 != 0 && revision < target.compacted() {
                        return Err(Rejection::Compacted.into());
                    }
                }
                Operation::Put(put) => {
                    // As in a put of its own: etcd looks for the lease before the key.
                    if !target.lease_is_known(put.lease)? {
                        return Err(Rejection::LeaseNotFound.into());
                    }
                    let keeps = put.ignore_value || put.ignore_lease;
                    if keeps && !key_exists(put.key, target, budget)? {
                        return Err(Rejection::KeyNotFound.into());
                    }
                }
                Operation::DeleteRange(_) | Operation::Txn(_) => {}
            }
        }
        Ok(Progress::Done)
    }

    fn execute<T: TxnTarget>(
        &mut self,
        table: TxnTable<'_>,
        target: &mut T,
        budget: &mut usize,
    ) -> Result<TxnStep, ReadError> {
        loop {
            if let Some(operation) = self.operation.take()
                && self.go_on(operation, table, target, budget)? == Progress::More
            {
                return Ok(TxnStep::More);
            }
            if *budget == 0 {
                return Ok(TxnStep::More);
            }
            *budget -= 1;
            let step = self.walk.next(table, &self.taken).expect("the root is left last");
            match step {
                WalkStep::Enter(node) => {
                    let succeeded = self.taken[node].expect("a node that is reached was decided");
                    self.open.push(TxnOutcome { succeeded, responses: Vec::new() });
                }
                WalkStep::Leave => {
                    let outcome = self.open.pop().expect("a node that is left was entered");
                    if self.open.is_empty() {
                        return Ok(TxnStep::Done(outcome));
                    }
                    self.respond(OperationOutcome::Txn(outcome));
                }
                WalkStep::Operation(position) => self.begin(position, table, target, budget)?,
            }
        }
    }

    fn begin<T: TxnTarget>(
        &mut self,
        position: usize,
        table: TxnTable<'_>,
        target: &mut T,
        budget: &mut usize,
    ) -> Result<(), ReadError> {
        match table.operation(position) {
            Operation::Range(range) => {
                let scan = Box::new(RangeScan::new(&range));
                let records = Vec::new();
                self.operation = Some(OperationRun::Range { scan, records, size_bytes: 0 });
            }
            Operation::Put(put) => {
                let prev = target.put(&put)?;
                let size_bytes = prev.as_ref().map_or(0, OwnedRecord::size_bytes);
                *budget = budget.saturating_sub(limits::keys_for_bytes(size_bytes));
                self.responded_bytes += size_bytes;
                self.respond(OperationOutcome::Put { revision: target.revision(), prev });
            }
            Operation::DeleteRange(delete) => {
                let run = DeleteRun::new(&delete);
                self.operation = Some(OperationRun::Delete { position, run });
            }
            Operation::Txn(_) => unreachable!("the walk enters nested transactions itself"),
        }
        Ok(())
    }

    fn go_on<T: TxnTarget>(
        &mut self,
        operation: OperationRun,
        table: TxnTable<'_>,
        target: &mut T,
        budget: &mut usize,
    ) -> Result<Progress, ReadError> {
        match operation {
            OperationRun::Range { mut scan, mut records, mut size_bytes } => {
                let mut copies = RecordCopies::new(&mut records, *budget);
                let progress = scan.step_on(target, budget, &mut copies)?;
                let copied = copies.size_bytes();
                *budget = budget.saturating_sub(limits::keys_for_bytes(copied));
                size_bytes += copied;
                if progress == Progress::More {
                    self.operation = Some(OperationRun::Range { scan, records, size_bytes });
                    return Ok(Progress::More);
                }
                self.responded_bytes += size_bytes;
                let summary = scan.summary();
                self.respond(OperationOutcome::Range {
                    revision: summary.revision,
                    records,
                    count: summary.count,
                    more: summary.more,
                });
            }
            OperationRun::Delete { position, mut run } => {
                let Operation::DeleteRange(delete) = table.operation(position) else {
                    unreachable!("the run was made for a delete");
                };
                if target.delete_step(&mut run, &delete, budget)? == Progress::More {
                    self.operation = Some(OperationRun::Delete { position, run });
                    return Ok(Progress::More);
                }
                self.responded_bytes += run.prevs_size_bytes;
                let (deleted, prevs) = (run.deleted, run.prevs);
                let revision = target.revision();
                self.respond(OperationOutcome::DeleteRange { revision, deleted, prevs });
            }
        }
        Ok(Progress::Done)
    }

    fn respond(&mut self, outcome: OperationOutcome) {
        let node = self.open.last_mut().expect("operations belong to a node");
        node.responses.push(outcome);
    }
}

fn key_exists<T: TxnTarget>(key: &[u8], target: &T, budget: &mut usize) -> Result<bool, PageFault> {
    let Some(record) = target.record_at(key, target.revision())? else { return Ok(false) };
    *budget = budget.saturating_sub(limits::keys_for_bytes(record.size_bytes()));
    Ok(true)
}

/// The operations of the branches taken, in the order of execution.
#[derive(Debug, Default)]
struct OperationWalk {
    begun: bool,
    /// What is left of the branches being walked, the innermost last.
    branches: Vec<std::ops::Range<usize>>,
}

enum WalkStep {
    Enter(usize),
    Operation(usize),
    Leave,
}

impl OperationWalk {
    fn begin() -> Self {
        Self::default()
    }

    fn next(&mut self, table: TxnTable<'_>, taken: &[Option<bool>]) -> Option<WalkStep> {
        if !self.begun {
            self.begun = true;
            return Some(self.enter(0, table, taken));
        }
        let Some(position) = self.branches.last_mut()?.next() else {
            self.branches.pop();
            return Some(WalkStep::Leave);
        };
        Some(match table.operation(position) {
            Operation::Txn(node) => self.enter(node, table, taken),
            _ => WalkStep::Operation(position),
        })
    }

    fn enter(&mut self, node: usize, table: TxnTable<'_>, taken: &[Option<bool>]) -> WalkStep {
        let succeeded = taken[node].expect("a node that is reached was decided");
        self.branches.push(table.branch(node, succeeded));
        WalkStep::Enter(node)
    }
}

/// A transaction of ranges alone, answered from a view by the core that received it.
#[derive(Debug)]
pub struct TxnScan {
    /// The transaction in the form in which the log would hold it.
    batch: Batch,
    run: Option<TxnRun>,
    /// What all steps read at, once the first has seen a view.
    revision: Revision,
    outcome: Option<TxnOutcome>,
    /// What the finished run held.
    held_bytes: usize,
}

impl TxnScan {
    /// Begins a transaction that only reads.
    ///
    /// # Panics
    /// If it holds a put or a delete: those belong into the log.
    #[must_use]
    pub fn new(txn: &TxnRef<'_>) -> Self {
        assert!(only_reads(txn), "a transaction that writes belongs into the log");
        let header =
            BatchHeader { member: MemberId(0), boot_nonce: 0, sequence_first: 0, frame_count: 1 };
        let mut bytes = header.to_bytes().to_vec();
        FrameWriter::new().push_txn(&mut bytes, txn);
        let batch = Batch::validate(bytes).expect("what the writer wrote is sound");
        Self { batch, run: None, revision: Revision(0), outcome: None, held_bytes: 0 }
    }

    /// Goes on, touching about `budget` keys. The view must not be older than that of the step
    /// before; the transaction stays at the revision it began with.
    pub fn step(&mut self, view: &View, budget: usize) -> Result<Progress, ReadError> {
        let mut budget = budget.max(1);
        self.step_within(view, &mut budget)
    }

    /// The same for an owner whose budget is for several jobs: what was used is taken off it.
    pub fn step_within(&mut self, view: &View, budget: &mut usize) -> Result<Progress, ReadError> {
        if self.outcome.is_some() {
            return Ok(Progress::Done);
        }
        let table = table_of(&self.batch);
        let mut run = match self.run.take() {
            Some(run) if self.revision >= view.compacted => run,
            // Nothing was answered yet, so a transaction that compaction overtook begins again.
            _ => {
                self.revision = view.revision;
                TxnRun::new(table)
            }
        };
        let mut target = ReadOnly { view, revision: self.revision };
        match run.step(table, &mut target, budget)? {
            TxnStep::More => {
                self.run = Some(run);
                Ok(Progress::More)
            }
            TxnStep::Done(outcome) => {
                self.held_bytes = run.held_bytes();
                self.outcome = Some(outcome);
                Ok(Progress::Done)
            }
        }
    }

    /// About what the answer holds so far, in bytes. An owner with a bound stops when this has
    /// passed it: a step adds no more than its budget and one record.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.run.as_ref().map_or(self.held_bytes, TxnRun::held_bytes)
    }

    /// The revision for the answer's header.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many ranges the finished transaction has read; 0 before it is finished.
    #[must_use]
    pub fn range_count(&self) -> u64 {
        fn ranges_of(outcome: &TxnOutcome) -> u64 {
            let count = |response: &OperationOutcome| match response {
                OperationOutcome::Txn(nested) => ranges_of(nested),
                _ => 1,
            };
            outcome.responses.iter().map(count).sum()
        }
        self.outcome.as_ref().map_or(0, ranges_of)
    }

    /// What the finished transaction found.
    ///
    /// # Panics
    /// If it is not finished.
    #[must_use]
    pub fn into_outcome(self) -> TxnOutcome {
        self.outcome.expect("asked for before the last step")
    }
}

fn table_of(batch: &Batch) -> TxnTable<'_> {
    let Command::Txn(table) = batch.command(0) else {
        unreachable!("the batch was made of one transaction");
    };
    table
}

fn only_reads(txn: &TxnRef<'_>) -> bool {
    txn.success.iter().chain(&txn.failure).all(|operation| match operation {
        OperationRef::Range(_) => true,
        OperationRef::Put(_) | OperationRef::DeleteRange(_) => false,
        OperationRef::Txn(txn) => only_reads(txn),
    })
}

/// A view as a transaction's target, at the revision the transaction began with.
struct ReadOnly<'v> {
    view: &'v View,
    revision: Revision,
}

impl Store for ReadOnly<'_> {
    type Pages = PageReader;

    fn shard_count(&self) -> usize {
        self.view.shard_count()
    }

    fn shard(&self, shard: usize) -> (&PageReader, &ShardRoots) {
        self.view.shard(shard)
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn tree_revision(&self) -> Revision {
        self.view.revision
    }

    fn compacted(&self) -> Revision {
        self.view.compacted
    }
}

impl TxnTarget for ReadOnly<'_> {
    fn put(&mut self, _: &PutRef<'_>) -> Result<Option<OwnedRecord>, PageFault> {
        unreachable!("a scan is made of ranges alone")
    }

    fn delete_step(
        &mut self,
        _: &mut DeleteRun,
        _: &DeleteRangeRef<'_>,
        _: &mut usize,
    ) -> Result<Progress, PageFault> {
        unreachable!("a scan is made of ranges alone")
    }

    fn lease_is_known(&self, _: LeaseId) -> Result<bool, PageFault> {
        unreachable!("a scan is made of ranges alone")
    }
}
