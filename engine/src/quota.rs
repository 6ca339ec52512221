//! The quota: how much a store may hold before it refuses to grow. A policy, asked at admission.
//!
//! A quota is not a wall: it is compared with what the files hold before a command is admitted,
//! and what is admitted is applied. The costs are etcd's, so that clients are refused at the same
//! point: they are estimates and were never meant to be exact.

use crate::command::PutRef;

/// etcd's default.
pub const QUOTA_SIZE_BYTES_DEFAULT: u64 = 2 << 30;

/// What etcd adds for a record besides its bytes.
pub const RECORD_OVERHEAD_BYTES: u64 = 256;

/// What a lease may add, as etcd counts it.
pub const LEASE_COST_BYTES: u64 = 64;

/// The limit of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    size_bytes_max: Option<u64>,
}

impl Quota {
    /// A quota as the flag says it: zero means etcd's default, less than zero means none.
    #[must_use]
    pub fn from_flag(size_bytes: i64) -> Self {
        let size_bytes_max = match u64::try_from(size_bytes) {
            Ok(0) => Some(QUOTA_SIZE_BYTES_DEFAULT),
            Ok(size_bytes) => Some(size_bytes),
            Err(_) => None,
        };
        Self { size_bytes_max }
    }

    /// Whether a command of this cost may be added to a store of this size.
    #[must_use]
    pub fn admits(&self, size_bytes: u64, cost_bytes: u64) -> bool {
        self.size_bytes_max.is_none_or(|max| size_bytes.saturating_add(cost_bytes) < max)
    }

    /// The limit; `None` if there is none.
    #[must_use]
    pub fn size_bytes_max(&self) -> Option<u64> {
        self.size_bytes_max
    }
}

/// What a put may add.
#[must_use]
pub fn cost_of_put(put: &PutRef<'_>) -> u64 {
    RECORD_OVERHEAD_BYTES + (put.key.len() + put.value.len()) as u64
}

/// A command's operation takes as many bytes of its frame at least, whatever it stores.
const OPERATION_SIZE_BYTES_MIN: u64 = 16;

/// What a command of a batch of this size costs at most.
#[must_use]
pub fn cost_max_of_batch(size_bytes: usize) -> u64 {
    let size_bytes = size_bytes as u64;
    size_bytes + size_bytes / OPERATION_SIZE_BYTES_MIN * RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Batch, BatchHeader, FrameWriter, OperationRef, TxnRef};
    use crate::ids::{LeaseId, MemberId};

    fn batch(write: impl FnOnce(&mut FrameWriter, &mut Vec<u8>)) -> Batch {
        let header =
            BatchHeader { frame_count: 1, member: MemberId(1), boot_nonce: 1, sequence_first: 1 };
        let mut bytes = header.to_bytes().to_vec();
        write(&mut FrameWriter::new(), &mut bytes);
        Batch::validate(bytes).unwrap()
    }

    /// As the front-end counts it by the request's bytes.
    #[test]
    fn a_frame_costs_what_its_request_costs() {
        let put = |value: &'static [u8]| PutRef { key: b"key", value, ..PutRef::default() };
        let nested = TxnRef {
            success: vec![OperationRef::Put(put(b"12345"))],
            failure: vec![OperationRef::Put(put(b""))],
            ..TxnRef::default()
        };
        let txn = TxnRef {
            success: vec![OperationRef::Put(put(b"1"))],
            failure: vec![OperationRef::Txn(nested.clone()), OperationRef::Txn(nested)],
            ..TxnRef::default()
        };
        let cost = |batch: &Batch| batch.cost(0);
        assert_eq!(cost(&batch(|writer, out| writer.push_put(out, &put(b"1")))), 260);
        assert_eq!(cost(&batch(|writer, out| writer.push_txn(out, &txn))), 528);
        let none = TxnRef::default();
        assert_eq!(cost(&batch(|writer, out| writer.push_txn(out, &none))), 0);
        let grant = crate::command::LeaseGrantRef { id: LeaseId(1), ttl_seconds: 1 };
        assert_eq!(cost(&batch(|writer, out| writer.push_lease_grant(out, grant))), 64);
    }

    #[test]
    fn the_bound_by_size_is_never_below_the_cost() {
        for count in [0, 1, 2, 100, 10_000] {
            let put = OperationRef::Put(PutRef::default());
            let txn = TxnRef { success: vec![put; count], ..TxnRef::default() };
            let batch = batch(|writer, out| writer.push_txn(out, &txn));
            let bound = cost_max_of_batch(batch.bytes().len());
            assert!(batch.cost(0) <= bound, "{count} puts cost {}", batch.cost(0));
        }
    }

    #[test]
    fn a_put_costs_its_bytes_and_what_etcd_adds() {
        let put = PutRef { key: b"key", value: b"1", ..PutRef::default() };
        assert_eq!(cost_of_put(&put), 260);
    }

    #[test]
    fn the_limit_itself_is_refused() {
        let quota = Quota::from_flag(1000);
        assert!(quota.admits(700, 299));
        assert!(!quota.admits(700, 300));
        assert!(Quota::from_flag(-1).admits(u64::MAX, u64::MAX));
        assert_eq!(Quota::from_flag(0).size_bytes_max(), Some(2 << 30));
    }
}
