//! The requests of the KV service, read without copying.
//!
//! Every slice in a decoded request points into the receive buffer; a put goes from there straight
//! into a command frame. Decoding follows protobuf's merge rule: a later scalar wins, a repeated
//! nested message of a oneof is merged into the earlier one.
//!
//! Invariants:
//! - Decoding decides nothing about meaning: enums keep the wire's number, known or not, and
//!   `validate` judges them. Only bytes that are not protobuf are refused here.
//! - Nesting is bounded by [`TXN_DEPTH_MAX`], so no message can exhaust the stack.

use engine::command::{CompareRef, DeleteRangeRef, PutRef};
use engine::range::RangeQuery;

use super::wire::{Fields, Malformed, Value};

/// Transactions within transactions. Every level costs an operation of the budget of all levels
/// above it, 128 by default, so nothing deeper would pass validation with the default limit; with
/// a raised one it is the stack that sets the bound.
pub const TXN_DEPTH_MAX: usize = 256;

/// A range as it came: the query, and what only the API layer looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest<'a> {
    /// The query; its sort order and target are set by validation from the numbers below.
    pub query: RangeQuery<'a>,
    /// The wire's number of the order.
    pub sort_order: i32,
    /// The wire's number of what to sort by.
    pub sort_target: i32,
    /// This member's own state will do, even if it is behind.
    pub serializable: bool,
}

/// An operation of a transaction as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RequestOp<'a> {
    /// None was given, or one of a kind we do not know.
    #[default]
    Empty,
    /// Read a range.
    Range(RangeRequest<'a>),
    /// Store a value.
    Put(PutRef<'a>),
    /// Delete a key or a range.
    DeleteRange(DeleteRangeRef<'a>),
    /// A transaction within the transaction.
    Txn(TxnRequest<'a>),
}

/// A transaction as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest<'a> {
    /// All must hold for `success`.
    pub compares: Vec<CompareRef<'a>>,
    /// Done if all comparisons hold.
    pub success: Vec<RequestOp<'a>>,
    /// Done otherwise.
    pub failure: Vec<RequestOp<'a>>,
}

/// A compaction as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionRequest {
    /// History before this revision is to be forgotten.
    pub revision: i64,
    /// Answer only when the old versions are gone.
    pub physical: bool,
}

/// Why a transaction was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnUnread {
    /// It is none.
    Malformed,
    /// It nests deeper than [`TXN_DEPTH_MAX`]. Each level is an operation of the one around it, so
    /// this is many operations before it is anything else.
    TooDeep,
}

impl From<Malformed> for TxnUnread {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads a `PutRequest`.
pub fn decode_put(message: &[u8]) -> Result<PutRef<'_>, Malformed> {
    let mut put = PutRef::default();
    merge_put(&mut put, message)?;
    Ok(put)
}

/// Reads a `RangeRequest`.
pub fn decode_range(message: &[u8]) -> Result<RangeRequest<'_>, Malformed> {
    let mut range = RangeRequest::default();
    merge_range(&mut range, message)?;
    Ok(range)
}

/// Reads a `DeleteRangeRequest`.
pub fn decode_delete_range(message: &[u8]) -> Result<DeleteRangeRef<'_>, Malformed> {
    let mut delete = DeleteRangeRef::default();
    merge_delete_range(&mut delete, message)?;
    Ok(delete)
}

/// Reads a `TxnRequest`.
pub fn decode_txn(message: &[u8]) -> Result<TxnRequest<'_>, TxnUnread> {
    let mut txn = TxnRequest::default();
    merge_txn(&mut txn, message, TXN_DEPTH_MAX)?;
    Ok(txn)
}

/// Reads a `CompactionRequest`.
pub fn decode_compaction(message: &[u8]) -> Result<CompactionRequest, Malformed> {
    let mut compaction = CompactionRequest::default();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => value.set_int64(&mut compaction.revision),
            2 => value.set_bool(&mut compaction.physical),
            _ => {}
        }
    }
    Ok(compaction)
}

fn merge_put<'a>(put: &mut PutRef<'a>, message: &'a [u8]) -> Result<(), Malformed> {
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => value.set_bytes(&mut put.key),
            2 => value.set_bytes(&mut put.value),
            3 => value.set_int64(&mut put.lease.0),
            4 => value.set_bool(&mut put.prev_kv),
            5 => value.set_bool(&mut put.ignore_value),
            6 => value.set_bool(&mut put.ignore_lease),
            _ => {}
        }
    }
    Ok(())
}

fn merge_range<'a>(range: &mut RangeRequest<'a>, message: &'a [u8]) -> Result<(), Malformed> {
    let query = &mut range.query;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => value.set_bytes(&mut query.key),
            2 => value.set_bytes(&mut query.range_end),
            3 => value.set_int64(&mut query.limit),
            4 => value.set_int64(&mut query.revision),
            5 => value.set_enum(&mut range.sort_order),
            6 => value.set_enum(&mut range.sort_target),
            7 => value.set_bool(&mut range.serializable),
            8 => value.set_bool(&mut query.keys_only),
            9 => value.set_bool(&mut query.count_only),
            10 => value.set_int64(&mut query.min_mod_revision),
            11 => value.set_int64(&mut query.max_mod_revision),
            12 => value.set_int64(&mut query.min_create_revision),
            13 => value.set_int64(&mut query.max_create_revision),
            _ => {}
        }
    }
    Ok(())
}

fn merge_delete_range<'a>(
    delete: &mut DeleteRangeRef<'a>,
    message: &'a [u8],
) -> Result<(), Malformed> {
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => value.set_bytes(&mut delete.key),
            2 => value.set_bytes(&mut delete.range_end),
            3 => value.set_bool(&mut delete.prev_kv),
            _ => {}
        }
    }
    Ok(())
}

fn merge_txn<'a>(
    txn: &mut TxnRequest<'a>,
    message: &'a [u8],
    depth: usize,
) -> Result<(), TxnUnread> {
    let depth = depth.checked_sub(1).ok_or(TxnUnread::TooDeep)?;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(compare)) => txn.compares.push(decode_compare(compare)?),
            (2, Value::Bytes(op)) => txn.success.push(decode_op(op, depth)?),
            (3, Value::Bytes(op)) => txn.failure.push(decode_op(op, depth)?),
            _ => {}
        }
    }
    Ok(())
}

fn decode_op(message: &[u8], depth: usize) -> Result<RequestOp<'_>, TxnUnread> {
    let mut op = RequestOp::Empty;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        let Value::Bytes(nested) = value else { continue };
        match number {
            1 => {
                let mut range =
                    if let RequestOp::Range(range) = op { range } else { <_>::default() };
                merge_range(&mut range, nested)?;
                op = RequestOp::Range(range);
            }
            2 => {
                let mut put = if let RequestOp::Put(put) = op { put } else { <_>::default() };
                merge_put(&mut put, nested)?;
                op = RequestOp::Put(put);
            }
            3 => {
                let mut delete =
                    if let RequestOp::DeleteRange(delete) = op { delete } else { <_>::default() };
                merge_delete_range(&mut delete, nested)?;
                op = RequestOp::DeleteRange(delete);
            }
            4 => {
                let mut txn = if let RequestOp::Txn(txn) = op { txn } else { <_>::default() };
                merge_txn(&mut txn, nested, depth)?;
                op = RequestOp::Txn(txn);
            }
            _ => {}
        }
    }
    Ok(op)
}

/// The wire's numbers of `Compare.target`, and the field of the union that belongs to each.
const COMPARE_TARGET_VALUE: i32 = 3;
const COMPARE_TARGET_FIELDS: [u64; 5] = [4, 5, 6, 7, 8];

fn decode_compare(message: &[u8]) -> Result<CompareRef<'_>, Malformed> {
    let mut compare = CompareRef::default();
    // The member of the union that was set last, and what it holds. It counts only if it is the
    // one the target calls for; any other leaves the right side zero.
    let mut union_field = 0;
    let mut number_given = 0;
    let mut value_given: &[u8] = &[];
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, value) => value.set_enum(&mut compare.result),
            (2, value) => value.set_enum(&mut compare.target),
            (3, value) => value.set_bytes(&mut compare.key),
            (64, value) => value.set_bytes(&mut compare.range_end),
            (7, Value::Bytes(bytes)) => (union_field, value_given) = (number, bytes),
            (4 | 5 | 6 | 8, Value::Varint(_)) => {
                union_field = number;
                value.set_int64(&mut number_given);
            }
            _ => {}
        }
    }
    let wanted = usize::try_from(compare.target)
        .ok()
        .and_then(|target| COMPARE_TARGET_FIELDS.get(target).copied());
    if wanted == Some(union_field) {
        if compare.target == COMPARE_TARGET_VALUE {
            compare.value = value_given;
        } else {
            compare.number = number_given;
        }
    }
    Ok(compare)
}

#[cfg(test)]
mod tests;
