//! Why data cannot be taken over or handed out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use engine::Change;
use engine::bbolt::backup::DigestError;
use engine::bbolt::schema::SchemaError;
use engine::engine::ImportRule;

use super::LogRule;
use crate::bootstrap;
use crate::node::failure::Failure as MemberFailure;

/// The failure of a command.
#[derive(Debug)]
pub enum Failure {
    /// The file system refused something.
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
    /// A database's pages are damaged.
    Database {
        /// The file.
        path: PathBuf,
        /// Which page, and the rule it breaks.
        cause: engine::bbolt::ReadError,
    },
    /// A database's digest does not vouch for it.
    Digest {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: DigestError,
    },
    /// A pair of a database makes no sense.
    Schema {
        /// The file.
        path: PathBuf,
        /// Which, and why not.
        cause: SchemaError,
    },
    /// A bucket is missing.
    BucketMissing {
        /// The file.
        path: PathBuf,
        /// Its name.
        name: &'static [u8],
    },
    /// A change cannot be part of the history.
    History {
        /// The file.
        path: PathBuf,
        /// The change.
        change: Change,
        /// Why not.
        rule: ImportRule,
    },
    /// A log is damaged.
    Log {
        /// The segment, or the directory.
        path: PathBuf,
        /// Where in it the frame begins.
        offset: u64,
        /// What is wrong.
        rule: LogRule,
    },
    /// What is there cannot be taken over; the text says what and why.
    Refused(String),
    /// The new or old member cannot be opened.
    Bootstrap(bootstrap::Failure),
    /// The store failed.
    Member(MemberFailure),
}

impl Failure {
    /// A failure of the file system, for `map_err`.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { operation, path, cause }
    }

    pub(super) fn log(path: &Path, offset: u64, rule: LogRule) -> Self {
        Self::Log { path: path.to_owned(), offset, rule }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, path, cause } => {
                write!(formatter, "cannot {operation} {}: {cause}", path.display())
            }
            Self::Database { path, cause } => write!(formatter, "{}: {cause}", path.display()),
            Self::Digest { path, cause } => write!(formatter, "{}: {cause}", path.display()),
            Self::Schema { path, cause } => write!(formatter, "{}: {cause}", path.display()),
            Self::BucketMissing { path, name } => {
                let name = name.escape_ascii();
                write!(formatter, "{}: there is no bucket {name}", path.display())
            }
            Self::History { path, change, rule } => write!(
                formatter,
                "{}: bucket key, revision {}.{}: {rule}",
                path.display(),
                change.main,
                change.sub
            ),
            Self::Log { path, offset, rule } => {
                write!(formatter, "{}: offset {offset}: {rule}", path.display())
            }
            Self::Refused(text) => formatter.write_str(text),
            Self::Bootstrap(failure) => failure.fmt(formatter),
            Self::Member(failure) => failure.fmt(formatter),
        }
    }
}

impl std::error::Error for Failure {}

impl From<MemberFailure> for Failure {
    fn from(failure: MemberFailure) -> Self {
        Self::Member(failure)
    }
}

impl From<bootstrap::Failure> for Failure {
    fn from(failure: bootstrap::Failure) -> Self {
        Self::Bootstrap(failure)
    }
}

impl From<engine::Failure> for Failure {
    fn from(failure: engine::Failure) -> Self {
        Self::Member(MemberFailure::from(failure))
    }
}
