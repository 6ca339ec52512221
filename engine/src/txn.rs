//! Transactions: comparisons first, then checks, then the operations of the branches taken.

use crate::answer::{ReadError, TxnOutcome};
use crate::command::TxnRef;
use crate::ids::Revision;
use crate::range::Progress;
use crate::view::View;

/// A transaction of ranges alone, answered from a view by the core that received it.
#[derive(Debug)]
pub struct TxnScan {
    revision: Revision,
}

impl TxnScan {
    /// Begins a transaction that only reads.
    ///
    /// # Panics
    /// If it holds a put or a delete: those belong into the log.
    #[must_use]
    pub fn new(_txn: &TxnRef<'_>) -> Self {
        panic!("landing: comes with the tree")
    }

    /// Goes on, touching about `budget` keys. The view must not be older than that of the step
    /// before.
    pub fn step(&mut self, _view: &View, _budget: usize) -> Result<Progress, ReadError> {
        panic!("landing: comes with the tree")
    }

    /// The revision for the answer's header.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What a finished transaction found.
    #[must_use]
    pub fn into_outcome(self) -> TxnOutcome {
        panic!("landing: comes with the tree")
    }
}
