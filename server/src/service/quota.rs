//! Whether the quota has room for a request, as etcd asks before it looks at anything else.
//!
//! What a request would cost is bounded by its size, so that far from the quota nothing is decoded
//! for it: one comparison for a put.
//!
//! Invariant: a message that cannot be decoded is admitted, and refused for that by who decodes it.

use engine::quota::{LEASE_COST_BYTES, Quota, RECORD_OVERHEAD_BYTES, cost_of_put};

use super::decode::{self, RequestOp, TxnRequest};
use super::method::Method;

/// An operation of a transaction takes two bytes of the message at least.
const TXN_COST_PER_BYTE_MAX: u64 = RECORD_OVERHEAD_BYTES / 2 + 1;

/// Whether a store of this size has room for a request.
pub(super) fn admits(quota: Quota, size_bytes: u64, method: Method, message: &[u8]) -> bool {
    let message_size_bytes = message.len() as u64;
    let cost_max = match method {
        Method::Put => RECORD_OVERHEAD_BYTES + message_size_bytes,
        Method::Txn => message_size_bytes * TXN_COST_PER_BYTE_MAX,
        Method::LeaseGrant => LEASE_COST_BYTES,
        _ => return true,
    };
    quota.admits(size_bytes, cost_max) || is_admitted(quota, size_bytes, method, message)
}

#[cold]
fn is_admitted(quota: Quota, size_bytes: u64, method: Method, message: &[u8]) -> bool {
    let cost = match method {
        Method::Put => decode::decode_put(message).ok().map(|put| cost_of_put(&put)),
        Method::Txn => decode::decode_txn(message).ok().map(|txn| cost_of_txn(&txn)),
        _ => Some(LEASE_COST_BYTES),
    };
    // What costs nothing goes through: a full store could not be emptied otherwise. So does what
    // cannot be read, to be refused as that.
    cost.is_none_or(|cost| cost == 0 || quota.admits(size_bytes, cost))
}

/// The dearer branch, nested transactions included.
fn cost_of_txn(txn: &TxnRequest<'_>) -> u64 {
    cost_of_branch(&txn.success).max(cost_of_branch(&txn.failure))
}

fn cost_of_branch(ops: &[RequestOp<'_>]) -> u64 {
    let cost = |op: &RequestOp<'_>| match op {
        RequestOp::Put(put) => cost_of_put(put),
        RequestOp::Txn(txn) => cost_of_txn(txn),
        RequestOp::Range(_) | RequestOp::DeleteRange(_) | RequestOp::Empty => 0,
    };
    ops.iter().map(cost).sum()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::service::proto::etcdserverpb as pb;
    use pb::request_op::Request;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn put(value: &'static [u8]) -> pb::PutRequest {
        pb::PutRequest { key: b"key"[..].into(), value: value.into(), ..Default::default() }
    }

    /// The size at which a request of this cost is refused for the first time.
    fn refused_from(method: Method, message: &[u8]) -> Option<u64> {
        (0..=1000).find(|&size| !admits(Quota::from_flag(1000), size, method, message))
    }

    #[test]
    fn a_transaction_costs_its_dearer_branch() {
        let nested = pb::TxnRequest {
            success: vec![op(Request::RequestPut(put(b"12345")))],
            failure: vec![op(Request::RequestPut(put(b"")))],
            ..Default::default()
        };
        let delete = Request::RequestDeleteRange(pb::DeleteRangeRequest::default());
        let txn = pb::TxnRequest {
            success: vec![op(Request::RequestPut(put(b"1"))), op(delete.clone())],
            failure: vec![op(Request::RequestTxn(nested))],
            ..Default::default()
        };
        assert_eq!(refused_from(Method::Txn, &txn.encode_to_vec()), Some(1000 - 264));
        assert_eq!(refused_from(Method::Put, &put(b"1").encode_to_vec()), Some(1000 - 260));
        assert_eq!(refused_from(Method::LeaseGrant, b""), Some(1000 - 64));
        let deletes = pb::TxnRequest { success: vec![op(delete)], ..Default::default() };
        assert_eq!(refused_from(Method::Txn, &deletes.encode_to_vec()), None);
        assert_eq!(refused_from(Method::DeleteRange, b""), None);
        assert_eq!(refused_from(Method::Put, b"\xff"), None, "refused for what it is");
    }

    #[test]
    fn the_bound_by_size_is_never_below_the_cost() {
        let cheap = op(Request::RequestPut(pb::PutRequest::default()));
        for count in 0..100 {
            let txn = pb::TxnRequest { success: vec![cheap.clone(); count], ..Default::default() };
            let message = txn.encode_to_vec();
            let cost = cost_of_txn(&decode::decode_txn(&message).unwrap());
            assert!(cost <= message.len() as u64 * TXN_COST_PER_BYTE_MAX, "{count} puts");
        }
    }
}
