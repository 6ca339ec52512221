//! Transactions as tables: nested on the outside, flat in the frame.
//!
//! A transaction nests without a fixed bound, and a recursive archive would let a hostile frame
//! choose how deep validation and apply recurse. So a frame holds four tables: nodes (one per
//! transaction, the root first), compares, operations and one run of bytes; they refer to each
//! other by position.
//!
//! Invariants of a sound table, all checked by [`TxnTable::is_sound`]:
//! - Every span lies within its table, every name is a known one.
//! - Every node but the root is the nested transaction of exactly one operation, which belongs to
//!   a node before it. So the nodes form a tree.
//! - The branches of all nodes share no operation.

use rkyv::{Archive, Serialize};

use super::body;
use super::{DeleteRangeRef, PutRef};
use crate::ids::LeaseId;
use crate::quota::cost_of_put;
use crate::range::{RangeQuery, SortOrder, SortTarget};

/// A comparison to be written into a frame; the fields mean what they mean in etcd's `Compare`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompareRef<'a> {
    /// The wire's number of the relation. An unknown one holds always, as in etcd.
    pub result: i32,
    /// The wire's number of what is compared. An unknown one compares as equal, as in etcd.
    pub target: i32,
    /// The key, or the first key of the range.
    pub key: &'a [u8],
    /// As in a range request; the comparison must hold for every key in the range.
    pub range_end: &'a [u8],
    /// The right side for version, create revision, mod revision and lease; zero if it was unset
    /// or of another target.
    pub number: i64,
    /// The right side for the value; empty if it was unset or of another target.
    pub value: &'a [u8],
}

/// An operation of a transaction, to be written into a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationRef<'a> {
    /// Read a range.
    Range(RangeQuery<'a>),
    /// Store a value.
    Put(PutRef<'a>),
    /// Delete a key or a range.
    DeleteRange(DeleteRangeRef<'a>),
    /// A transaction within the transaction.
    Txn(TxnRef<'a>),
}

/// A transaction to be written into a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRef<'a> {
    /// All of these must hold for `success`.
    pub compares: Vec<CompareRef<'a>>,
    /// Done if all comparisons hold.
    pub success: Vec<OperationRef<'a>>,
    /// Done otherwise.
    pub failure: Vec<OperationRef<'a>>,
}

/// A stretch of one of the tables.
#[derive(Archive, Serialize, Clone, Copy)]
#[rkyv(derive(Clone, Copy))]
struct Span {
    start: u32,
    end: u32,
}

impl ArchivedSpan {
    fn bounds(&self) -> (usize, usize) {
        (self.start.to_native() as usize, self.end.to_native() as usize)
    }

    fn lies_within(&self, len: usize) -> bool {
        let (start, end) = self.bounds();
        start <= end && end <= len
    }
}

#[derive(Archive, Serialize)]
struct Node {
    compares: Span,
    success: Span,
    failure: Span,
}

#[derive(Archive, Serialize)]
struct CompareRow {
    result: i32,
    target: i32,
    key: Span,
    range_end: Span,
    number: i64,
    value: Span,
}

#[derive(Archive, Serialize)]
enum OperationRow {
    Range {
        key: Span,
        range_end: Span,
        limit: i64,
        revision: i64,
        sort_order: SortOrder,
        sort_target: SortTarget,
        keys_only: bool,
        count_only: bool,
        mod_revisions: [i64; 2],
        create_revisions: [i64; 2],
    },
    Put {
        key: Span,
        value: Span,
        lease: i64,
        prev_kv: bool,
        ignore_value: bool,
        ignore_lease: bool,
    },
    DeleteRange {
        key: Span,
        range_end: Span,
        prev_kv: bool,
    },
    Txn {
        node: u32,
    },
}

/// The tables of one transaction.
#[derive(Archive, Serialize, Default)]
pub(super) struct TxnBody {
    nodes: Vec<Node>,
    compares: Vec<CompareRow>,
    operations: Vec<OperationRow>,
    bytes: Vec<u8>,
}

/// Turns a nested transaction into tables.
pub(super) fn flatten(txn: &TxnRef<'_>) -> TxnBody {
    let mut body = TxnBody::default();
    body.push_node(txn);
    // Nodes wait here by position until their own operations are laid down: children always come
    // behind their parents, and a branch's operations stay next to each other.
    let mut waiting: Vec<(usize, &TxnRef<'_>)> = vec![(0, txn)];
    let mut next = 0;
    while next < waiting.len() {
        let (node, txn) = waiting[next];
        next += 1;
        let success = body.push_operations(&txn.success, &mut waiting);
        let failure = body.push_operations(&txn.failure, &mut waiting);
        body.nodes[node].success = success;
        body.nodes[node].failure = failure;
    }
    body
}

impl TxnBody {
    fn push_node(&mut self, txn: &TxnRef<'_>) -> usize {
        let start = position(self.compares.len());
        for compare in &txn.compares {
            let row = CompareRow {
                result: compare.result,
                target: compare.target,
                key: self.push_bytes(compare.key),
                range_end: self.push_bytes(compare.range_end),
                number: compare.number,
                value: self.push_bytes(compare.value),
            };
            self.compares.push(row);
        }
        let compares = Span { start, end: position(self.compares.len()) };
        let none = Span { start: 0, end: 0 };
        self.nodes.push(Node { compares, success: none, failure: none });
        self.nodes.len() - 1
    }

    fn push_operations<'t, 'a>(
        &mut self,
        operations: &'t [OperationRef<'a>],
        waiting: &mut Vec<(usize, &'t TxnRef<'a>)>,
    ) -> Span {
        let start = position(self.operations.len());
        for operation in operations {
            let row = match operation {
                OperationRef::Range(range) => self.range_row(range),
                OperationRef::Put(put) => OperationRow::Put {
                    key: self.push_bytes(put.key),
                    value: self.push_bytes(put.value),
                    lease: put.lease.0,
                    prev_kv: put.prev_kv,
                    ignore_value: put.ignore_value,
                    ignore_lease: put.ignore_lease,
                },
                OperationRef::DeleteRange(delete) => OperationRow::DeleteRange {
                    key: self.push_bytes(delete.key),
                    range_end: self.push_bytes(delete.range_end),
                    prev_kv: delete.prev_kv,
                },
                OperationRef::Txn(txn) => {
                    let node = self.push_node(txn);
                    waiting.push((node, txn));
                    OperationRow::Txn { node: position(node) }
                }
            };
            self.operations.push(row);
        }
        Span { start, end: position(self.operations.len()) }
    }

    fn range_row(&mut self, range: &RangeQuery<'_>) -> OperationRow {
        OperationRow::Range {
            key: self.push_bytes(range.key),
            range_end: self.push_bytes(range.range_end),
            limit: range.limit,
            revision: range.revision,
            sort_order: range.sort_order,
            sort_target: range.sort_target,
            keys_only: range.keys_only,
            count_only: range.count_only,
            mod_revisions: [range.min_mod_revision, range.max_mod_revision],
            create_revisions: [range.min_create_revision, range.max_create_revision],
        }
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let start = position(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        Span { start, end: position(self.bytes.len()) }
    }
}

/// Positions are 32 bits wide; the bound on requests keeps every table far below that.
fn position(index: usize) -> u32 {
    u32::try_from(index).expect("a transaction's tables are bounded by the request's size")
}

/// What an operation of a sound table asks for.
#[derive(Clone, Copy)]
pub(crate) enum Operation<'a> {
    Range(RangeQuery<'a>),
    Put(PutRef<'a>),
    DeleteRange(DeleteRangeRef<'a>),
    /// The position of the nested transaction's node.
    Txn(usize),
}

/// A transaction's tables in a validated frame.
#[derive(Clone, Copy)]
pub(crate) struct TxnTable<'a> {
    body: &'a ArchivedTxnBody,
}

impl<'a> TxnTable<'a> {
    pub(crate) fn access(body: &'a [u8]) -> Self {
        Self { body: body::access::<TxnBody>(body) }
    }

    /// Whether the bytes are an archive and its tables hold together.
    pub(crate) fn is_sound(body: &[u8]) -> bool {
        if !body::is_sound::<TxnBody>(body) {
            return false;
        }
        let table = TxnTable::access(body);
        table.spans_are_sound() && table.nodes_form_a_tree()
    }

    pub(crate) fn node_count(&self) -> usize {
        self.body.nodes.len()
    }

    /// Whether any branch of any node stores something.
    pub(crate) fn has_put(&self) -> bool {
        let is_put = |row: &ArchivedOperationRow| matches!(row, ArchivedOperationRow::Put { .. });
        self.body.operations.iter().any(is_put)
    }

    /// What the quota counts: the dearer branch of each node, nested ones included.
    pub(crate) fn cost(&self) -> u64 {
        // Nested transactions stand behind those they belong to.
        let mut costs = vec![0; self.node_count()];
        for node in (0..costs.len()).rev() {
            let cost_of_branch = |succeeded| -> u64 {
                let cost = |position| match self.operation(position) {
                    Operation::Put(put) => cost_of_put(&put),
                    Operation::Txn(nested) => costs[nested],
                    Operation::Range(_) | Operation::DeleteRange(_) => 0,
                };
                self.branch(node, succeeded).map(cost).sum()
            };
            costs[node] = cost_of_branch(true).max(cost_of_branch(false));
        }
        costs[0]
    }

    /// The positions of a node's comparisons.
    pub(crate) fn compares(&self, node: usize) -> std::ops::Range<usize> {
        let (start, end) = self.body.nodes[node].compares.bounds();
        start..end
    }

    /// The positions of the operations of one of a node's branches.
    pub(crate) fn branch(&self, node: usize, succeeded: bool) -> std::ops::Range<usize> {
        let node = &self.body.nodes[node];
        let (start, end) = if succeeded { &node.success } else { &node.failure }.bounds();
        start..end
    }

    pub(crate) fn compare(&self, position: usize) -> CompareRef<'a> {
        let row = &self.body.compares[position];
        CompareRef {
            result: row.result.to_native(),
            target: row.target.to_native(),
            key: self.bytes(&row.key),
            range_end: self.bytes(&row.range_end),
            number: row.number.to_native(),
            value: self.bytes(&row.value),
        }
    }

    pub(crate) fn operation(&self, position: usize) -> Operation<'a> {
        match &self.body.operations[position] {
            ArchivedOperationRow::Range {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                keys_only,
                count_only,
                mod_revisions,
                create_revisions,
            } => Operation::Range(RangeQuery {
                key: self.bytes(key),
                range_end: self.bytes(range_end),
                limit: limit.to_native(),
                revision: revision.to_native(),
                sort_order: (*sort_order).into(),
                sort_target: (*sort_target).into(),
                keys_only: *keys_only,
                count_only: *count_only,
                min_mod_revision: mod_revisions[0].to_native(),
                max_mod_revision: mod_revisions[1].to_native(),
                min_create_revision: create_revisions[0].to_native(),
                max_create_revision: create_revisions[1].to_native(),
            }),
            ArchivedOperationRow::Put {
                key,
                value,
                lease,
                prev_kv,
                ignore_value,
                ignore_lease,
            } => Operation::Put(PutRef {
                key: self.bytes(key),
                value: self.bytes(value),
                lease: LeaseId(lease.to_native()),
                prev_kv: *prev_kv,
                ignore_value: *ignore_value,
                ignore_lease: *ignore_lease,
            }),
            ArchivedOperationRow::DeleteRange { key, range_end, prev_kv } => {
                Operation::DeleteRange(DeleteRangeRef {
                    key: self.bytes(key),
                    range_end: self.bytes(range_end),
                    prev_kv: *prev_kv,
                })
            }
            ArchivedOperationRow::Txn { node } => Operation::Txn(node.to_native() as usize),
        }
    }

    fn bytes(&self, span: &ArchivedSpan) -> &'a [u8] {
        let (start, end) = span.bounds();
        &self.body.bytes[start..end]
    }

    fn spans_are_sound(&self) -> bool {
        let body = self.body;
        let in_bytes = |span: &ArchivedSpan| span.lies_within(body.bytes.len());
        body.nodes.iter().all(|node| {
            node.compares.lies_within(body.compares.len())
                && node.success.lies_within(body.operations.len())
                && node.failure.lies_within(body.operations.len())
        }) && body
            .compares
            .iter()
            .all(|row| in_bytes(&row.key) && in_bytes(&row.range_end) && in_bytes(&row.value))
            && body.operations.iter().all(|row| match row {
                ArchivedOperationRow::Range { key, range_end, .. }
                | ArchivedOperationRow::DeleteRange { key, range_end, .. } => {
                    in_bytes(key) && in_bytes(range_end)
                }
                ArchivedOperationRow::Put { key, value, .. } => in_bytes(key) && in_bytes(value),
                ArchivedOperationRow::Txn { .. } => true,
            })
    }

    /// Every operation belongs to one branch at most, every node but the root to one operation:
    /// otherwise tables of a few bytes could describe a walk of any length.
    fn nodes_form_a_tree(&self) -> bool {
        let count = self.node_count();
        if count == 0 {
            return false;
        }
        let mut operation_taken = vec![false; self.body.operations.len()];
        let mut node_taken = vec![false; count];
        node_taken[0] = true;
        for node in 0..count {
            for position in self.branch(node, true).chain(self.branch(node, false)) {
                if std::mem::replace(&mut operation_taken[position], true) {
                    return false;
                }
                if let Operation::Txn(child) = self.operation(position) {
                    let known = child > node && child < count;
                    if !known || std::mem::replace(&mut node_taken[child], true) {
                        return false;
                    }
                }
            }
        }
        node_taken.into_iter().all(|taken| taken)
    }
}
