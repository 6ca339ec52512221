//! What applying and sweeping have done, counted for whoever watches the store.
//!
//! Plain numbers of the writer's own; they begin at zero with each start, so what a replay applies
//! again is counted again, as etcd counts it.

use crate::answer::{OperationOutcome, TxnOutcome};
use crate::command::{DeleteRangeRef, PutRef};

/// Counts since the engine was made. Operations of transactions are counted one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Values stored.
    pub puts: u64,
    /// The bytes of their keys and values.
    pub put_size_bytes: u64,
    /// Deletions asked for, whatever they found; of a lease that ends, one for each key.
    pub deletes: u64,
    /// Ranges read by commands; what front-ends answer from views is theirs to count.
    pub ranges: u64,
    /// Commands of more than one operation.
    pub txns: u64,
    /// Changes that compaction has removed from the history.
    pub swept_changes: u64,
}

impl Activity {
    #[inline]
    pub(crate) fn note_put(&mut self, put: &PutRef<'_>) {
        self.puts += 1;
        self.put_size_bytes += (put.key.len() + put.value.len()) as u64;
    }

    /// A put that is a command of its own. One that looks at the record before is a range and a
    /// put, and so a transaction, for etcd.
    #[inline]
    pub(crate) fn note_lone_put(&mut self, put: &PutRef<'_>) {
        if put.prev_kv || put.ignore_value || put.ignore_lease {
            self.ranges += 1;
            self.txns += 1;
        }
    }

    /// A deletion that is a command of its own.
    #[inline]
    pub(crate) fn note_lone_delete(&mut self, delete: &DeleteRangeRef<'_>) {
        self.deletes += 1;
        if delete.prev_kv {
            self.ranges += 1;
            self.txns += 1;
        }
    }

    /// A transaction that was done; its puts were counted as they were made.
    pub(crate) fn note_txn(&mut self, outcome: &TxnOutcome) {
        let before = self.ranges + self.deletes;
        let puts = self.note_operations(outcome);
        if self.ranges + self.deletes - before + puts > 1 {
            self.txns += 1;
        }
    }

    fn note_operations(&mut self, outcome: &TxnOutcome) -> u64 {
        let mut puts = 0;
        for response in &outcome.responses {
            match response {
                OperationOutcome::Range { .. } => self.ranges += 1,
                OperationOutcome::Put { .. } => puts += 1,
                OperationOutcome::DeleteRange { .. } => self.deletes += 1,
                OperationOutcome::Txn(nested) => puts += self.note_operations(nested),
            }
        }
        puts
    }

    /// A lease has ended and with it so many keys.
    pub(crate) fn note_revoked(&mut self, keys: usize) {
        self.deletes += keys as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;

    #[test]
    fn a_transaction_counts_its_operations_and_itself_if_there_are_several() {
        let mut activity = Activity::default();
        let revision = Revision(2);
        let put = || OperationOutcome::Put { revision, prev: None };
        let one = TxnOutcome { succeeded: true, responses: vec![put()] };
        activity.note_txn(&one);
        assert_eq!(activity, Activity::default(), "one put, counted where it was made");
        let delete = OperationOutcome::DeleteRange { revision, deleted: 0, prevs: Vec::new() };
        let nested = TxnOutcome { succeeded: true, responses: vec![put(), delete] };
        activity.note_txn(&TxnOutcome {
            succeeded: true,
            responses: vec![OperationOutcome::Txn(nested)],
        });
        assert_eq!(activity, Activity { deletes: 1, txns: 1, ..Activity::default() });
    }
}
