//! The comparisons of a transaction, and which branches they choose.
//!
//! Invariant: a node is decided once; nested transactions of the branch not taken never are.

use std::cmp::Ordering;

use crate::answer::ReadError;
use crate::command::{CompareRef, Operation, TxnTable};
use crate::limits;
use crate::range::{Progress, Record};
use crate::store::Store;
use crate::walk::{Bounds, Direction, Walk};

/// The wire's numbers.
mod wire {
    pub(super) const RESULT_EQUAL: i32 = 0;
    pub(super) const RESULT_GREATER: i32 = 1;
    pub(super) const RESULT_LESS: i32 = 2;
    pub(super) const RESULT_NOT_EQUAL: i32 = 3;

    pub(super) const TARGET_VERSION: i32 = 0;
    pub(super) const TARGET_CREATE: i32 = 1;
    pub(super) const TARGET_MOD: i32 = 2;
    pub(super) const TARGET_VALUE: i32 = 3;
    pub(super) const TARGET_LEASE: i32 = 4;
}

/// Where the comparing stands.
#[derive(Debug)]
pub(super) struct CompareRun {
    /// Nodes that are reached and not decided; the last is being decided.
    nodes: Vec<usize>,
    /// How many of that node's comparisons hold.
    held: usize,
    /// Inside a comparison over a range: the next key.
    position: Option<Vec<u8>>,
    /// Whether a key of that range was compared.
    found_key: bool,
}

impl CompareRun {
    pub(super) fn new() -> Self {
        Self { nodes: vec![0], held: 0, position: None, found_key: false }
    }

    pub(super) fn step<S: Store>(
        &mut self,
        table: TxnTable<'_>,
        store: &S,
        taken: &mut [Option<bool>],
        budget: &mut usize,
    ) -> Result<Progress, ReadError> {
        while let Some(&node) = self.nodes.last() {
            let compares = table.compares(node);
            let mut holds = true;
            while holds && self.held < compares.len() {
                if *budget == 0 {
                    return Ok(Progress::More);
                }
                *budget -= 1;
                let compare = table.compare(compares.start + self.held);
                let Some(result) = self.evaluate(&compare, store, budget)? else {
                    return Ok(Progress::More);
                };
                self.found_key = false;
                holds = result;
                self.held += 1;
            }
            taken[node] = Some(holds);
            self.nodes.pop();
            self.held = 0;
            for position in table.branch(node, holds) {
                if let Operation::Txn(child) = table.operation(position) {
                    self.nodes.push(child);
                }
            }
        }
        Ok(Progress::Done)
    }

    /// Whether a comparison holds; `None` if the budget ended first.
    fn evaluate<S: Store>(
        &mut self,
        compare: &CompareRef<'_>,
        store: &S,
        budget: &mut usize,
    ) -> Result<Option<bool>, ReadError> {
        let Some(bounds) = Bounds::of(compare.key, compare.range_end) else {
            return Ok(Some(match store.record_at(compare.key, store.revision())? {
                Some(record) => {
                    *budget = budget.saturating_sub(limits::keys_for_bytes(record.size_bytes()));
                    holds(compare, &record)
                }
                None => holds_for_nothing(compare),
            }));
        };
        let position = self.position.take();
        let start = position.as_deref().unwrap_or(bounds.start);
        let bounds = Bounds { start, ..bounds };
        let with_value = compare.target == wire::TARGET_VALUE;
        let mut walk = Walk::new(store, bounds, store.revision(), Direction::Ascending)?;
        // At least one key a step, whatever the budget: otherwise a small one would never end.
        while walk.key().is_some() {
            *budget = budget.saturating_sub(1);
            if walk.is_seen() {
                self.found_key = true;
                let record = walk.record(with_value)?;
                *budget = budget.saturating_sub(limits::keys_for_bytes(record.size_bytes()));
                if !holds(compare, &record) {
                    return Ok(Some(false));
                }
            }
            walk.advance()?;
            if let Some(next) = walk.key().filter(|_| *budget == 0) {
                self.position = Some(next.to_vec());
                return Ok(None);
            }
        }
        Ok(Some(self.found_key || holds_for_nothing(compare)))
    }
}

/// Without a key there is no value that could be compared; numbers compare as zero.
fn holds_for_nothing(compare: &CompareRef<'_>) -> bool {
    compare.target != wire::TARGET_VALUE && holds(compare, &Record::default())
}

fn holds(compare: &CompareRef<'_>, record: &Record<'_>) -> bool {
    let ordering = match compare.target {
        wire::TARGET_VERSION => record.version.cmp(&compare.number),
        wire::TARGET_CREATE => record.create_revision.0.cmp(&compare.number),
        wire::TARGET_MOD => record.mod_revision.0.cmp(&compare.number),
        wire::TARGET_VALUE => record.value.cmp(compare.value),
        wire::TARGET_LEASE => record.lease.0.cmp(&compare.number),
        _ => Ordering::Equal,
    };
    match compare.result {
        wire::RESULT_EQUAL => ordering.is_eq(),
        wire::RESULT_GREATER => ordering.is_gt(),
        wire::RESULT_LESS => ordering.is_lt(),
        wire::RESULT_NOT_EQUAL => ordering.is_ne(),
        _ => true,
    }
}
