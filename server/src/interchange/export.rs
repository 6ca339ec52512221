//! What a stopped ringd has kept, as a backup in etcd's format, or as a number.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use engine::backup::{BackupFacts, BackupScan};
use engine::bbolt::schema::Member;
use engine::{HeldView, KeyValueHashScan, Progress, ReadError, Revision};

use super::Failure;
use super::member::start_config;
use crate::bootstrap;
use crate::node::failure::Failure as MemberFailure;
use crate::node::start::{Started, apply_rest, start};

/// Keys between two looks at what was made.
const STEP_KEYS: usize = 10_000;

/// The hash of a history, as `etcdutl hashkv` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// Up to where was hashed.
    pub hash_revision: i64,
    /// The compacted revision.
    pub compact_revision: i64,
}

/// Writes a backup of a stopped member's store; answers with its size and the store's revision.
///
/// # Errors
/// The member is running, or its files are damaged; the file exists or cannot be written.
pub fn export(data_dir: &Path, wal_dir: Option<&Path>, to: &Path) -> Result<(u64, i64), Failure> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(Failure::Refused(format!("{} exists", to.display())));
    }
    with_store(data_dir, wal_dir, |started, view| {
        let id = started.stages.engine.identity().member;
        // Peers' URLs are flags of the server and not in its store; a restore names new ones.
        let member = Member { id, ..Member::default() };
        let mut scan = BackupScan::new(BackupFacts { members: vec![member] });
        let partial = partial_of(to);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .map_err(Failure::io("create", &partial))?;
        let mut writer = BufWriter::new(file);
        let mut size_bytes = 0;
        let mut progress = Progress::More;
        while progress == Progress::More {
            let mut budget = STEP_KEYS;
            progress = scan.step(view, &mut budget).map_err(|error| failure_of(&error))?;
            while let Some(bytes) = scan.poll_bytes() {
                size_bytes += bytes.len() as u64;
                writer.write_all(&bytes).map_err(Failure::io("write", &partial))?;
            }
        }
        let file = writer.into_inner().map_err(|error| error.into_error());
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(Failure::io("write", &partial))?;
        fs::rename(&partial, to).map_err(Failure::io("rename", &partial))?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|directory| directory.sync_all());
        synced.map_err(Failure::io("sync", parent))?;
        Ok((size_bytes, view.revision.0))
    })
}

/// Hashes the history of a stopped member's store up to a revision; zero for the newest.
///
/// # Errors
/// The member is running, or its files are damaged, or there is no such revision any more.
pub fn hash_kv(data_dir: &Path, wal_dir: Option<&Path>, revision: i64) -> Result<HashKv, Failure> {
    with_store(data_dir, wal_dir, |_, view| {
        let mut scan = KeyValueHashScan::new(Revision(revision));
        while scan.step(view, STEP_KEYS).map_err(|error| failure_of(&error))? == Progress::More {}
        let hash = scan.result().expect("it is done");
        Ok(HashKv {
            hash: hash.hash,
            hash_revision: hash.revision.0,
            compact_revision: hash.compacted.0,
        })
    })
}

/// Opens a member as a start does, its log replayed, and looks at one view of it.
fn with_store<T>(
    data_dir: &Path,
    wal_dir: Option<&Path>,
    look: impl FnOnce(&Started, &HeldView) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let directory = bootstrap::open_existing(data_dir, wal_dir)?;
    let mut started = start(&start_config(&directory)?)?;
    apply_rest(&mut started)?;
    let handle = started.stages.engine.read_handle();
    let view = handle.hold().expect("nobody else holds one");
    look(&started, &view)
}

fn failure_of(error: &ReadError) -> Failure {
    match error {
        ReadError::Rejection(rejection) => {
            let (_, text) = crate::service::status::status_of(
                crate::service::status::Refusal::Rejected(*rejection),
            );
            Failure::Refused(text.to_owned())
        }
        ReadError::Fault(fault) => {
            Failure::Member(MemberFailure::Engine(engine::Failure::Fault(*fault)))
        }
    }
}

fn partial_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}
