//! What a member must know before it starts: who it is, and whether the directories are its own.
//!
//! [`prepare`] is the whole of it. A directory that holds data decides who the member is, and the
//! `--initial-...` flags are ignored, as in etcd; without data, the flags decide, by etcd's rules
//! and with its ids, so that scripts which know the ids beforehand keep working.
//!
//! This is start-up code: it blocks, and it is done before the executors run.

pub mod addresses;
mod beginning;
pub mod cluster;
mod data_dir;
pub mod discovery;
pub mod http;
mod identity;
pub mod json;
pub mod remote;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use beginning::{Beginning, Origin, Outside, SERVER_NAME, Sleeper, begin, begin_with};
pub use cluster::{cluster_id, member_id};
pub use data_dir::{DataDir, FORMAT_VERSION};
pub use engine::Identity;
pub use identity::{SystemResolver, initial_members, parse_initial_cluster};

use crate::config::{Config, Notice};

/// Why the member cannot start.
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
    /// The directory is a data directory of etcd.
    EtcdData {
        /// The directory.
        path: PathBuf,
        /// What in it is etcd's.
        found: String,
    },
    /// The directory holds something that is not ringd's.
    ForeignData {
        /// The directory.
        path: PathBuf,
        /// An entry that should not be there.
        found: String,
    },
    /// The marker is of a version that this program does not know.
    FormatUnknown {
        /// The marker.
        path: PathBuf,
        /// The version it names.
        version: u64,
    },
    /// The marker cannot be read.
    MarkerDamaged {
        /// The marker.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another process has the directory.
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The data is there, its log is not.
    LogMissing {
        /// Where the data is.
        data_dir: PathBuf,
        /// Where the log should be.
        wal_dir: PathBuf,
    },
    /// A log is there, its data is not, or it belongs to another member.
    LogOfAnother {
        /// Where the log is.
        wal_dir: PathBuf,
        /// Whose it is.
        owner: Identity,
    },
    /// There is no member where one was expected.
    NoMember {
        /// The directory.
        path: PathBuf,
    },
    /// The flags that found a cluster do not fit.
    InitialCluster(String),
    /// A discovery service has no place for this member.
    Discovery {
        /// What it said.
        reason: String,
        /// The token that it was asked for.
        token: String,
        /// Where it is.
        endpoints: Vec<String>,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, path, cause } => {
                write!(f, "cannot {operation} {}: {cause}", path.display())
            }
            Self::EtcdData { path, found } => write!(
                f,
                "{} is a data directory of etcd (it holds {found}), which ringd does not run on; \
                 nothing in it was changed. `ringutl import` makes one of ringd from it, when etcd \
                 is stopped",
                path.display()
            ),
            Self::ForeignData { path, found } => write!(
                f,
                "{} holds {found}, which is not ringd's; nothing in it was changed. A new member \
                 needs an empty directory",
                path.display()
            ),
            Self::FormatUnknown { path, version } => write!(
                f,
                "{} says format {version}, and this ringd knows {FORMAT_VERSION}: the data was \
                 written by another version",
                path.display()
            ),
            Self::MarkerDamaged { path, reason } => {
                write!(f, "{} is damaged: {reason}", path.display())
            }
            Self::Locked { path } => {
                write!(f, "{} is in use by another process", path.display())
            }
            Self::LogMissing { data_dir, wal_dir } => write!(
                f,
                "the log that belongs to {} is not in {}: was the member started with another \
                 --wal-dir before?",
                data_dir.display(),
                wal_dir.display()
            ),
            Self::LogOfAnother { wal_dir, owner } => write!(
                f,
                "{} holds the log of member {:x} of cluster {:x}, whose data is not in --data-dir",
                wal_dir.display(),
                owner.member.get(),
                owner.cluster.get()
            ),
            Self::NoMember { path } => {
                write!(f, "{} is no data directory of ringd", path.display())
            }
            Self::InitialCluster(reason) | Self::Discovery { reason, .. } => f.write_str(reason),
        }
    }
}

impl std::error::Error for Failure {}

/// Founds a member with these ids, or says who has the directories already.
///
/// # Errors
/// As [`prepare`].
pub fn found(path: &Path, wal_path: Option<&Path>, identity: Identity) -> Result<DataDir, Failure> {
    DataDir::open(path, wal_path, || Ok(identity), &mut Vec::new())
}

/// Opens the directories of a member that exists; nothing is made where there is none.
///
/// # Errors
/// As [`prepare`].
pub fn open_existing(path: &Path, wal_path: Option<&Path>) -> Result<DataDir, Failure> {
    let missing = || Err(Failure::NoMember { path: path.to_owned() });
    DataDir::open(path, wal_path, missing, &mut Vec::new())
}

fn io_failure(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    move |cause| Failure::Io { operation, path, cause }
}

/// A member that may start.
#[derive(Debug)]
pub struct Prepared {
    /// Its directories.
    pub data_dir: DataDir,
    /// How it begins; `None` of one that has data, or had some when the first look was taken.
    pub beginning: Option<Beginning>,
}

/// Finds or makes the directories, takes the lock, and settles who the member is.
///
/// After a failure nothing that was there before has changed.
pub fn prepare(config: &Config, notices: &mut Vec<Notice>) -> Result<Prepared, Failure> {
    let (mut remarks, mut beginning) = (Vec::new(), None);
    let settle = || {
        let begun = begin(config, &mut remarks)?;
        let identity = begun.identity;
        beginning = Some(begun);
        Ok(identity)
    };
    let opened = DataDir::open(&config.data_dir, config.wal_dir.as_deref(), settle, notices);
    notices.append(&mut remarks);
    let data_dir = opened?;
    let beginning = beginning.filter(|_| data_dir.is_new());
    Ok(Prepared { data_dir, beginning })
}
