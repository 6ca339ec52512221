//! What etcd checks before a request becomes a command, in etcd's order.
//!
//! The order decides which of two errors a client sees, so the checks stand here in the sequence
//! in which etcd makes them: a transaction's counts, its comparisons, its operations depth first,
//! then overlapping writes, then the size.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound::{Included, Unbounded};

use engine::command::{DeleteRangeRef, OperationRef, PutRef, TxnRef};
use engine::range::{RangeQuery, SortOrder, SortTarget};

use super::decode::{RangeRequest, RequestOp, TxnRequest};
use super::status::Refusal;
use super::wire::varint_len;

/// Checks a range and gives the query with its order set.
pub fn check_range<'a>(range: &RangeRequest<'a>) -> Result<RangeQuery<'a>, Refusal> {
    if range.query.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let sort_order = match range.sort_order {
        0 => SortOrder::None,
        1 => SortOrder::Ascend,
        2 => SortOrder::Descend,
        _ => return Err(Refusal::InvalidSortOption),
    };
    let sort_target = match range.sort_target {
        0 => SortTarget::Key,
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        _ => return Err(Refusal::InvalidSortOption),
    };
    Ok(RangeQuery { sort_order, sort_target, ..range.query })
}

/// Checks a put.
pub fn check_put(put: &PutRef<'_>) -> Result<(), Refusal> {
    if put.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if put.ignore_lease && put.lease.0 != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
pub fn check_delete_range(delete: &DeleteRangeRef<'_>) -> Result<(), Refusal> {
    if delete.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction with all that is nested in it, and gives it as the engine takes it.
pub fn check_txn<'a>(txn: TxnRequest<'a>, ops_max: usize) -> Result<TxnRef<'a>, Refusal> {
    let txn = check_txn_level(txn, ops_max)?;
    // Only now, as etcd: the check of overlaps may rely on the number of operations being bounded.
    check_writes(&txn.success)?;
    check_writes(&txn.failure)?;
    Ok(txn)
}

fn check_txn_level<'a>(txn: TxnRequest<'a>, ops_max: usize) -> Result<TxnRef<'a>, Refusal> {
    let ops = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    // A level takes from the budget of the levels inside it what its longest list has.
    let ops_rest = ops_max.checked_sub(ops).ok_or(Refusal::TooManyOps)?;
    if txn.compares.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    let success = check_ops(txn.success, ops_rest)?;
    let failure = check_ops(txn.failure, ops_rest)?;
    Ok(TxnRef { compares: txn.compares, success, failure })
}

fn check_ops<'a>(
    ops: Vec<RequestOp<'a>>,
    ops_max: usize,
) -> Result<Vec<OperationRef<'a>>, Refusal> {
    ops.into_iter().map(|op| check_op(op, ops_max)).collect()
}

fn check_op<'a>(op: RequestOp<'a>, ops_max: usize) -> Result<OperationRef<'a>, Refusal> {
    match op {
        RequestOp::Range(range) => Ok(OperationRef::Range(check_range(&range)?)),
        RequestOp::Put(put) => check_put(&put).map(|()| OperationRef::Put(put)),
        RequestOp::DeleteRange(delete) => {
            check_delete_range(&delete)?;
            Ok(OperationRef::DeleteRange(delete))
        }
        RequestOp::Txn(txn) => check_txn_level(txn, ops_max).map(OperationRef::Txn),
        RequestOp::Empty => Err(Refusal::EmptyOp),
    }
}

/// The keys that one branch may put and the ranges that it may delete, nested branches included.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: DeleteRanges<'a>,
}

/// Checks that no key is put twice in a branch, or put and deleted.
///
/// etcd collects this level's deletes, then the nested transactions' writes, then this level's
/// puts; a later sibling's nested delete over an earlier sibling's nested put goes unnoticed there
/// and so it does here.
fn check_writes<'a>(branch: &[OperationRef<'a>]) -> Result<Writes<'a>, Refusal> {
    let mut writes = Writes::default();
    for op in branch {
        if let OperationRef::DeleteRange(delete) = op {
            writes.deletes.insert(delete.key, delete.range_end);
        }
    }
    for op in branch {
        let OperationRef::Txn(txn) = op else { continue };
        let success = check_writes(&txn.success)?;
        let failure = check_writes(&txn.failure)?;
        for key in &success.puts {
            writes.add_put(key)?;
        }
        for key in &failure.puts {
            // Only one of the two branches runs: they may write the same key.
            if !success.puts.contains(key) {
                writes.add_put(key)?;
            } else if writes.deletes.contains(key) {
                return Err(Refusal::DuplicateKey);
            }
        }
        writes.deletes.absorb(success.deletes);
        writes.deletes.absorb(failure.deletes);
    }
    for op in branch {
        if let OperationRef::Put(put) = op {
            writes.add_put(put.key)?;
        }
    }
    Ok(writes)
}

impl<'a> Writes<'a> {
    fn add_put(&mut self, key: &'a [u8]) -> Result<(), Refusal> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}

/// The union of deleted ranges, by the start of each stretch. Stretches do not overlap, so one
/// look-up answers whether a key is covered.
#[derive(Default)]
struct DeleteRanges<'a> {
    stretches: BTreeMap<&'a [u8], End<'a>>,
}

/// The end of a stretch; the derived order is that of the positions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct End<'a> {
    key: &'a [u8],
    /// The key itself still belongs to the stretch.
    inclusive: bool,
}

impl<'a> DeleteRanges<'a> {
    fn insert(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        // A range end of one zero byte means "no end" to the delete, but etcd's check of overlaps
        // takes it for a key: such a delete covers nothing here, as it covers nothing there.
        let end = if range_end.is_empty() {
            End { key, inclusive: true }
        } else if range_end > key {
            End { key: range_end, inclusive: false }
        } else {
            return;
        };
        self.add(key, end);
    }

    fn add(&mut self, mut start: &'a [u8], mut end: End<'a>) {
        if let Some((before, before_end)) = self.stretches.range(..=start).next_back()
            && before_end.key >= start
        {
            (start, end) = (before, end.max(*before_end));
        }
        while let Some((within, within_end)) = self.stretches.range(start..=end.key).next_back() {
            let (within, within_end) = (*within, *within_end);
            end = end.max(within_end);
            self.stretches.remove(within);
        }
        self.stretches.insert(start, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        let before = self.stretches.range::<[u8], _>((Unbounded, Included(key))).next_back();
        before.is_some_and(|(_, end)| *end >= End { key, inclusive: true })
    }

    fn absorb(&mut self, other: Self) {
        for (start, end) in other.stretches {
            self.add(start, end);
        }
    }
}

/// What surrounds a request when etcd measures it: the entry's header with a request id.
///
/// etcd refuses a command whose raft entry would be larger than `--max-request-bytes`. Its entry
/// is an `InternalRaftRequest`: the request in a field of one tag byte, and field 100, a header
/// that holds an id whose upper 16 bits are the low ones of the member's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSizer {
    size_bytes_max: usize,
    header_size_bytes: usize,
}

impl RequestSizer {
    /// For a member with that bound.
    pub const fn new(size_bytes_max: usize, member_id: u64) -> Self {
        // Below the member's bits the id holds the milliseconds of the clock and a counter; they
        // decide about its length only if the member's bits are all zero.
        let id = (member_id & 0xffff) << 48 | 1 << 47;
        let header_size_bytes = 2 + 1 + 1 + varint_len(id);
        Self { size_bytes_max, header_size_bytes }
    }

    /// Checks a request of that many bytes. `canonical_len` is called when the bytes as they came
    /// would be too many: etcd measures what its own encoder would write, and a client's encoder
    /// may be wordier.
    pub fn check(
        &self,
        len: usize,
        canonical_len: impl FnOnce() -> Option<usize>,
    ) -> Result<(), Refusal> {
        if self.fits(len) || canonical_len().is_some_and(|len| self.fits(len)) {
            return Ok(());
        }
        Err(Refusal::RequestTooLarge)
    }

    const fn fits(&self, len: usize) -> bool {
        1 + varint_len(len as u64) + len + self.header_size_bytes <= self.size_bytes_max
    }
}

#[cfg(test)]
mod tests;
