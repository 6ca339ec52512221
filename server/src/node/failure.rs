//! Why a member stops: the world refused something it cannot go on without.

use std::path::PathBuf;

use engine::CommandError;
use engine::ids::{LogIndex, MemberId};

use crate::raft::change::ChangeError;
use crate::raft::record::RecordError;
use crate::runtime::reactor::ReactorError;

/// The failure that ends a member. It is logged once, where the process stops.
#[derive(Debug)]
pub enum Failure {
    /// A log write or sync failed; what it covered may or may not be on disk.
    Log(wal::Failure),
    /// The log took no record.
    Append(wal::AppendError),
    /// The log cannot be recovered.
    Recovery(wal::RecoveryError),
    /// A record of the log is none that raft wrote.
    Record(RecordError),
    /// The engine's files are damaged, or refused a write.
    Engine(engine::Failure),
    /// The store cannot be opened.
    Store {
        /// Where it lies.
        directory: PathBuf,
        /// What is wrong with it.
        cause: engine::Failure,
    },
    /// The leases cannot be read from the store.
    Leases(engine::ReadError),
    /// The keys cannot be read from the store.
    Hash(engine::ReadError),
    /// A committed entry that this version does not understand. It must not be skipped: this
    /// member's state would differ from its peers'.
    InvalidEntry {
        /// Its place.
        index: LogIndex,
        /// What is wrong with it.
        cause: CommandError,
    },
    /// A committed change of the configuration that this version does not understand.
    InvalidChange {
        /// Its place.
        index: LogIndex,
        /// What is wrong with it.
        cause: ChangeError,
    },
    /// A committed entry of a kind that this version does not know.
    UnknownEntry {
        /// Its place.
        index: LogIndex,
    },
    /// The keys are not those that the other members have.
    Inconsistent(MemberId),
    /// io_uring broke.
    Reactor(ReactorError),
    /// raft-rs refused its configuration or its log.
    Raft(raft::Error),
    /// The log ends before what the engine has applied, or otherwise does not fit it.
    Mismatch(String),
    /// A file or directory could not be used.
    File {
        /// What was tried, on which path.
        operation: String,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log(failure) => write!(formatter, "log: {failure}"),
            Self::Append(error) => write!(formatter, "log: {error}"),
            Self::Recovery(error) => write!(formatter, "log: {error}"),
            Self::Record(error) => write!(formatter, "log: {error}"),
            Self::Engine(failure) => write!(formatter, "store: {failure}"),
            Self::Store { directory, cause } => {
                write!(formatter, "store in {}: {cause}", directory.display())
            }
            Self::Leases(error) => write!(formatter, "cannot read the leases: {error}"),
            Self::Hash(error) => write!(formatter, "cannot read the keys: {error}"),
            Self::InvalidEntry { index, cause } => {
                write!(formatter, "log entry {index} cannot be applied: {cause}")
            }
            Self::InvalidChange { index, cause } => {
                write!(formatter, "log entry {index} cannot be applied: {cause}")
            }
            Self::UnknownEntry { index } => {
                write!(formatter, "log entry {index} is of a kind that this version does not know")
            }
            Self::Inconsistent(member) => {
                write!(formatter, "{:x} found data inconsistency with peers", member.0)
            }
            Self::Reactor(error) => error.fmt(formatter),
            Self::Raft(error) => write!(formatter, "raft: {error}"),
            Self::Mismatch(text) => formatter.write_str(text),
            Self::File { operation, cause } => write!(formatter, "cannot {operation}: {cause}"),
        }
    }
}

impl std::error::Error for Failure {}

macro_rules! from {
    ($variant:ident, $error:ty) => {
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    };
}

from!(Log, wal::Failure);
from!(Append, wal::AppendError);
from!(Recovery, wal::RecoveryError);
from!(Record, RecordError);
from!(Engine, engine::Failure);
from!(Raft, raft::Error);
from!(Reactor, ReactorError);
