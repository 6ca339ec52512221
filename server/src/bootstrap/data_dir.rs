//! The data directory: whose it is, and that nobody else uses it.
//!
//! Layout: `<data-dir>/ringd.format` (the marker), `ringd.lock`, and whatever the engine keeps
//! there; the log in `<data-dir>/wal` or `--wal-dir`, with a marker and a lock of its own. Both
//! markers name the member, so that a log and a store that do not belong together are noticed.
//!
//! Founding a member takes several files, and a crash may come between any two. `ringd.creating`
//! is written first, into a directory that was empty, and the markers last, by [`DataDir::seal`],
//! when the owner has made its files. While only `ringd.creating` is there, nothing was ever
//! acknowledged, and the next start clears the leftovers and founds the member again.
//!
//! Invariants:
//! - A directory that is not ringd's is only looked at. For etcd's this does not even list it,
//!   which would touch its access time: known names are probed.
//! - Nothing is cleared but below a `ringd.creating` without a marker beside it, under the lock.
//! - The locks are the kernel's (`flock`) and end with the process, however it ends: the lock files
//!   themselves mean nothing and stay.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::{ClusterId, Identity, MemberId};

use super::{Failure, io_failure};
use crate::config::Notice;
use crate::log::Level;

/// The layout written by this program. Another number means another program.
pub const FORMAT_VERSION: u64 = 1;

const MARKER: &str = "ringd.format";
const MARKER_DRAFT: &str = "ringd.format.draft";
const CREATING: &str = "ringd.creating";
const LOCK: &str = "ringd.lock";
/// How long a lock may be held by a process that is going away.
const LOCKED_MAX: Duration = Duration::from_secs(3);
/// How often a lock that is held is tried again.
const LOCKED_RETRY_EVERY: Duration = Duration::from_millis(10);
const WAL: &str = "wal";

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// A marker is three lines; what is longer is none.
const MARKER_SIZE_BYTES_MAX: u64 = 4096;
/// Made by the file system itself at a mount point, so no sign of other data.
const TOLERATED: [&str; 1] = ["lost+found"];

/// The directories of this member, locked until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    /// The data directory.
    path: PathBuf,
    /// Where the log is.
    wal_path: PathBuf,
    identity: Identity,
    is_new: bool,
    _locks: [File; 2],
}

/// What a directory turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Contents {
    /// Missing or empty.
    Empty,
    /// Founding a member was cut short before the marker.
    Unfinished,
    /// Founding a member was cut short behind the marker: whether it counts is for the data
    /// directory to say, whose marker is the last to be written.
    Sealing(Identity),
    /// A member's.
    Member(Identity),
}

impl DataDir {
    /// Looks, decides, locks, and makes what is missing. `found` says who a new member is.
    pub(super) fn open(
        path: &Path,
        wal_path: Option<&Path>,
        found: impl FnOnce() -> Result<Identity, Failure>,
        notices: &mut Vec<Notice>,
    ) -> Result<Self, Failure> {
        let wal_path = wal_path.map_or_else(|| path.join(WAL), Path::to_owned);
        if same_place(path, &wal_path) {
            let found = "the log: --wal-dir must not be --data-dir itself".to_owned();
            return Err(Failure::ForeignData { path: path.to_owned(), found });
        }
        // Look at everything before anything is made: a refusal leaves no trace.
        let identity = match decide(path, &wal_path)? {
            Some(identity) => identity,
            None => found()?,
        };
        make_directory(path, notices)?;
        let lock = take_lock(path)?;
        // Only now nobody else can be founding or starting here; the first look may be outdated.
        let decided = decide(path, &wal_path)?;
        let is_new = decided.is_none();
        let identity = decided.unwrap_or(identity);
        let wal_lock;
        if is_new {
            write_durably(path, CREATING, CREATING, b"")?;
            // The log may lie inside the data directory, so clearing comes before making it.
            clear(path)?;
            make_directory(&wal_path, notices)?;
            wal_lock = take_lock(&wal_path)?;
            if let Contents::Member(owner) = look(&wal_path)? {
                return Err(Failure::LogOfAnother { wal_dir: wal_path, owner });
            }
            write_durably(&wal_path, CREATING, CREATING, b"")?;
            clear(&wal_path)?;
        } else {
            wal_lock = take_lock(&wal_path)?;
            remove_if_there(&path.join(CREATING))?;
            remove_if_there(&wal_path.join(CREATING))?;
        }
        Ok(Self { path: path.to_owned(), wal_path, identity, is_new, _locks: [lock, wal_lock] })
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log's segments are.
    pub fn wal_path(&self) -> &Path {
        &self.wal_path
    }

    /// Who the member is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether the member is being founded: its log and its store have yet to be made, and
    /// [`DataDir::seal`] has yet to be called. When false, a log that is missing is lost.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Declares the member founded: its log and its store are on disk, synced. Until this returned,
    /// nothing may be acknowledged.
    pub fn seal(&mut self) -> Result<(), Failure> {
        assert!(self.is_new, "a member is founded once");
        let text = marker_text(self.identity);
        // The log's marker first: a data directory with a marker promises that its log is there.
        write_durably(&self.wal_path, MARKER_DRAFT, MARKER, text.as_bytes())?;
        write_durably(&self.path, MARKER_DRAFT, MARKER, text.as_bytes())?;
        for directory in [&self.path, &self.wal_path] {
            sync_entry(directory)?;
        }
        remove_if_there(&self.path.join(CREATING))?;
        remove_if_there(&self.wal_path.join(CREATING))?;
        self.is_new = false;
        Ok(())
    }
}

/// Whose member's directories these are, or `None` for a new one's. Changes nothing.
fn decide(path: &Path, wal_path: &Path) -> Result<Option<Identity>, Failure> {
    use Contents::{Empty, Member, Sealing, Unfinished};
    let (data, wal) = (look(path)?, look(wal_path)?);
    match (data, wal) {
        (Member(data) | Sealing(data), Member(wal) | Sealing(wal)) if data == wal => Ok(Some(data)),
        (Member(_) | Sealing(_), Empty | Unfinished) => {
            Err(Failure::LogMissing { data_dir: path.to_owned(), wal_dir: wal_path.to_owned() })
        }
        (Empty | Unfinished, Empty | Unfinished | Sealing(_)) => Ok(None),
        // The log's `ringd.creating` goes last: without it, its store was there once.
        (_, Member(owner) | Sealing(owner)) => {
            Err(Failure::LogOfAnother { wal_dir: wal_path.to_owned(), owner })
        }
    }
}

/// What a directory is. Changes nothing, and leaves even the access times of etcd's alone.
fn look(path: &Path) -> Result<Contents, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Empty),
        Err(error) => return Err(io_failure("look at", path)(error)),
    }
    for name in ["member", "proxy"] {
        if exists(&path.join(name))? {
            let snapshot = path.join(name).join("snap/db");
            let found = if exists(&snapshot)? { "member/snap/db" } else { name };
            return Err(Failure::EtcdData { path: path.to_owned(), found: found.to_owned() });
        }
    }
    let creating = exists(&path.join(CREATING))?;
    if exists(&path.join(MARKER))? {
        let identity = read_marker(&path.join(MARKER))?;
        return Ok(if creating { Contents::Sealing(identity) } else { Contents::Member(identity) });
    }
    if creating {
        return Ok(Contents::Unfinished);
    }
    let list = || io_failure("list", path);
    for entry in fs::read_dir(path).map_err(list())? {
        let name = entry.map_err(list())?.file_name();
        let name = name.to_string_lossy();
        if is_etcd_segment(&name) {
            let found = name.into_owned();
            return Err(Failure::EtcdData { path: path.to_owned(), found });
        }
        if name != LOCK && !TOLERATED.contains(&&*name) {
            let found = name.into_owned();
            return Err(Failure::ForeignData { path: path.to_owned(), found });
        }
    }
    Ok(Contents::Empty)
}

/// A segment of etcd's log: two numbers of sixteen hexadecimal digits.
fn is_etcd_segment(name: &str) -> bool {
    let Some((first, second)) = name.strip_suffix(".wal").and_then(|stem| stem.split_once('-'))
    else {
        return false;
    };
    let is_number = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_number(first) && is_number(second)
}

fn marker_text(identity: Identity) -> String {
    let (cluster, member) = (identity.cluster.get(), identity.member.get());
    format!("ringd format {FORMAT_VERSION}\ncluster {cluster:016x}\nmember {member:016x}\n")
}

fn read_marker(path: &Path) -> Result<Identity, Failure> {
    let damaged =
        |reason: &str| Failure::MarkerDamaged { path: path.to_owned(), reason: reason.to_owned() };
    let size = fs::symlink_metadata(path).map_err(io_failure("look at", path))?.len();
    if size > MARKER_SIZE_BYTES_MAX {
        return Err(damaged("it is too long"));
    }
    let bytes = fs::read(path).map_err(io_failure("read", path))?;
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let mut lines = text.split_inclusive('\n');
    let mut value = |key: &str| {
        let line = lines.next()?.strip_suffix('\n')?;
        Some(line.strip_prefix(key)?.to_owned())
    };
    let version = value("ringd format ").ok_or_else(|| damaged("its first line is missing"))?;
    let version = version.parse().map_err(|_| damaged("its version is not a number"))?;
    if version != FORMAT_VERSION {
        return Err(Failure::FormatUnknown { path: path.to_owned(), version });
    }
    let mut id = |key: &str| {
        let digits = value(key).filter(|digits| digits.len() == 16);
        let number = digits.and_then(|digits| u64::from_str_radix(&digits, 16).ok());
        number.ok_or_else(|| damaged("an id is missing"))
    };
    let identity =
        Identity { cluster: ClusterId(id("cluster ")?), member: MemberId(id("member ")?) };
    if lines.next().is_some() {
        return Err(damaged("it has more lines than it should"));
    }
    Ok(identity)
}

/// Makes a directory that is missing; remarks on one that others can read.
fn make_directory(path: &Path, notices: &mut Vec<Notice>) -> Result<(), Failure> {
    match fs::metadata(path) {
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            if mode != DIR_MODE {
                notices.push(permission_notice(path, mode));
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = |at: &&Path| fs::symlink_metadata(at).is_err();
            let made: Vec<&Path> = path.ancestors().take_while(missing).collect();
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(DIR_MODE);
            builder.create(path).map_err(io_failure("create", path))?;
            made.into_iter().filter(|at| !at.as_os_str().is_empty()).try_for_each(sync_entry)
        }
        Err(error) => Err(io_failure("look at", path)(error)),
    }
}

/// etcd's line, `ls`-like modes included; the dash before the recommended one is its own slip.
fn permission_notice(path: &Path, mode: u32) -> Notice {
    let mut shown = String::from("d");
    for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        shown.push(if mode & (1 << bit) == 0 { '-' } else { letter });
    }
    let error = format!(
        "directory {:?} exist, but the permission is \"{shown}\". The recommended permission is \
         \"-rwx------\" to prevent possible unprivileged access to the data",
        path.display().to_string()
    );
    let message = "check file permission".to_owned();
    Notice { level: Level::Warn, message, fields: vec![("error", error)] }
}

fn take_lock(directory: &Path) -> Result<File, Failure> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(io_failure("create", &path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A process that was killed gives its memory back before its locks.
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCKED_MAX => {
                std::thread::sleep(LOCKED_RETRY_EVERY);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Locked { path: directory.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(io_failure("lock", &path)(error)),
        }
    }
}

/// Removes what an unfinished founding left. The caller holds the lock and `CREATING` is written.
fn clear(directory: &Path) -> Result<(), Failure> {
    assert!(directory.join(CREATING).exists(), "only an unfinished directory is cleared");
    let list = || io_failure("list", directory);
    for entry in fs::read_dir(directory).map_err(list())? {
        let entry = entry.map_err(list())?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == LOCK || name == CREATING || TOLERATED.contains(&&*name) {
            continue;
        }
        let path = entry.path();
        // Links are removed, not followed.
        let is_directory = entry.file_type().map_err(io_failure("look at", &path))?.is_dir();
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(io_failure("remove", &path))?;
    }
    Ok(())
}

/// Writes a small file under a draft's name, syncs it, renames it, and syncs the directory.
fn write_durably(directory: &Path, draft: &str, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let (draft, path) = (directory.join(draft), directory.join(name));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(FILE_MODE)
        .open(&draft)
        .map_err(io_failure("create", &draft))?;
    file.write_all(bytes).map_err(io_failure("write", &draft))?;
    file.sync_all().map_err(io_failure("sync", &draft))?;
    if draft != path {
        fs::rename(&draft, &path).map_err(io_failure("rename", &draft))?;
    }
    sync_directory(directory)
}

fn sync_directory(path: &Path) -> Result<(), Failure> {
    // A relative path of one component has an empty parent, which means here.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let directory = File::open(path).map_err(io_failure("open", path))?;
    directory.sync_all().map_err(io_failure("sync", path))
}

/// Makes the entry of a directory in its parent durable.
fn sync_entry(directory: &Path) -> Result<(), Failure> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    match sync_directory(parent) {
        // A parent that may be passed through but not read was made by someone else, long ago.
        Err(Failure::Io { cause, .. }) if cause.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

fn remove_if_there(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_failure("remove", path)(error)),
    }
}

fn exists(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        // Below a file there is nothing; the file itself is noticed when it is listed.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(false)
        }
        Err(error) => Err(io_failure("look at", path)(error)),
    }
}

fn same_place(a: &Path, b: &Path) -> bool {
    let resolve = |path: &Path| {
        fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned())
    };
    resolve(a) == resolve(b)
}

#[cfg(test)]
mod tests;
