//! What commands and reads are answered with.

use std::fmt;

use crate::alarm::Alarm;
use crate::command::LeaseGrantRef;
use crate::downgrade::ClusterVersion;
use crate::ids::{LeaseId, Revision};
use crate::page::PageFault;
use crate::range::Record;

/// A refusal: the answer to a request that cannot be served, never a fault of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The revision asked for is no longer, or was never, in the history.
    Compacted,
    /// The revision asked for does not exist yet.
    FutureRevision,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    KeyNotFound,
    /// The lease to attach does not exist.
    LeaseNotFound,
    /// A lease with the id exists already.
    LeaseExists,
    /// The store is over its quota.
    NoSpace,
    /// An alarm says that the members' stores differ.
    Corrupt,
    /// A downgrade may only go one minor version back.
    InvalidDowngradeTarget,
    /// A downgrade is on already.
    DowngradeInProcess,
    /// The cluster has no version yet.
    ClusterVersionUnknown,
    /// The member was removed from the cluster, which is for ever.
    MemberIdRemoved,
    /// There is a member with the id.
    MemberIdExists,
    /// Another member is reached at one of the URLs.
    PeerUrlExists,
    /// There is no member with the id.
    MemberIdNotFound,
    /// The member votes already.
    MemberNotLearner,
    /// The cluster has as many learners as it may.
    TooManyLearners,
}

/// Why a read did not succeed.
#[derive(Debug)]
pub enum ReadError {
    /// The request cannot be answered.
    Rejection(Rejection),
    /// The tree could not be read: damage, named by file and page.
    Fault(PageFault),
}

impl From<Rejection> for ReadError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejection(rejection)
    }
}

impl From<PageFault> for ReadError {
    fn from(fault: PageFault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejection(rejection) => write!(formatter, "refused: {rejection:?}"),
            Self::Fault(fault) => fault.fmt(formatter),
        }
    }
}

impl std::error::Error for ReadError {}

/// A version of a key, copied out of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision that wrote this version.
    pub mod_revision: Revision,
    /// How many puts since the key was created.
    pub version: i64,
    /// The lease the key is attached to, zero for none.
    pub lease: LeaseId,
}

impl OwnedRecord {
    /// The bytes of key and value.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    /// The record, borrowed.
    #[must_use]
    pub fn as_record(&self) -> Record<'_> {
        Record {
            key: &self.key,
            value: &self.value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Refused; nothing was changed.
    Rejected(Rejection),
    /// A put was done.
    Put {
        /// The record it replaced, if it was asked for and there was one.
        prev: Option<OwnedRecord>,
    },
    /// A delete was done.
    DeleteRange {
        /// How many keys there were to delete.
        deleted: i64,
        /// What was deleted, in the order of keys, if it was asked for.
        prevs: Vec<OwnedRecord>,
    },
    /// A transaction was done.
    Txn(TxnOutcome),
    /// History is being forgotten; reads below the revision are refused from now on.
    Compacted {
        /// Set if the answer is to wait until the sweep has reached this revision.
        sweep: Option<Revision>,
    },
    /// A lease has begun.
    LeaseGranted(LeaseGrantRef),
    /// A lease has ended, and its keys with it.
    LeaseRevoked,
    /// Alarms were changed or found as they were to be.
    Alarm(
        /// The alarm, if it was raised, stood already, or was lowered.
        Option<Alarm>,
    ),
    /// A downgrade was begun or ended.
    Downgrade {
        /// The cluster's version meanwhile.
        version: ClusterVersion,
    },
    /// A command of the cluster's own.
    System,
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The store's revision after the command: what the answer's header tells.
    pub revision: Revision,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a transaction went, at one level of nesting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Whether all comparisons held.
    pub succeeded: bool,
    /// One for each operation of the branch that was taken, in its order.
    pub responses: Vec<OperationOutcome>,
}

/// How an operation of a transaction went. `revision` belongs into the header of this operation's
/// own response; a nested transaction's own header stays empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationOutcome {
    /// A range was read.
    Range {
        /// The revision the range saw as the newest.
        revision: Revision,
        /// What was found.
        records: Vec<OwnedRecord>,
        /// All keys of the range, whatever the limit and the filters.
        count: i64,
        /// Whether the limit cut records off.
        more: bool,
    },
    /// A value was stored.
    Put {
        /// The revision that stored it.
        revision: Revision,
        /// The record it replaced, if it was asked for and there was one.
        prev: Option<OwnedRecord>,
    },
    /// Keys were deleted.
    DeleteRange {
        /// The transaction's revision if it has changed anything so far, else the one before.
        revision: Revision,
        /// How many keys there were to delete.
        deleted: i64,
        /// What was deleted, in the order of keys, if it was asked for.
        prevs: Vec<OwnedRecord>,
    },
    /// A nested transaction.
    Txn(TxnOutcome),
}
