//! The quota: how much a store may hold before it refuses to grow. A policy, asked at admission.
//!
//! A quota is not a wall: it is compared with what the files hold before a command is admitted,
//! and what is admitted is applied. The costs are etcd's, so that clients are refused at the same
//! point: they are estimates and were never meant to be exact.

use crate::command::{OperationRef, PutRef, TxnRef};

/// etcd's default.
pub const QUOTA_SIZE_BYTES_DEFAULT: u64 = 2 << 30;

/// What etcd adds for a record besides its bytes.
const RECORD_OVERHEAD_BYTES: u64 = 256;

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

/// What a transaction may add: the dearer of its branches, nested ones included. Deletes cost
/// nothing, or a full store could not be emptied.
#[must_use]
pub fn cost_of_txn(txn: &TxnRef<'_>) -> u64 {
    cost_of_branch(&txn.success).max(cost_of_branch(&txn.failure))
}

fn cost_of_branch(operations: &[OperationRef<'_>]) -> u64 {
    let cost = |operation: &OperationRef<'_>| match operation {
        OperationRef::Put(put) => cost_of_put(put),
        OperationRef::Txn(txn) => cost_of_txn(txn),
        OperationRef::Range(_) | OperationRef::DeleteRange(_) => 0,
    };
    operations.iter().map(cost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::DeleteRangeRef;

    fn put(value: &[u8]) -> PutRef<'_> {
        PutRef { key: b"key", value, ..PutRef::default() }
    }

    #[test]
    fn a_transaction_costs_its_dearer_branch() {
        let nested = TxnRef {
            success: vec![OperationRef::Put(put(b"12345"))],
            failure: vec![OperationRef::Put(put(b""))],
            ..TxnRef::default()
        };
        let delete = OperationRef::DeleteRange(DeleteRangeRef::default());
        let txn = TxnRef {
            success: vec![OperationRef::Put(put(b"1")), delete],
            failure: vec![OperationRef::Txn(nested)],
            ..TxnRef::default()
        };
        assert_eq!(cost_of_put(&put(b"1")), 260);
        assert_eq!(cost_of_txn(&txn), 264);
        assert_eq!(cost_of_txn(&TxnRef::default()), 0);
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
