//! The log's directory: performs the WAL's [`DiskOp`]s on real files.
//!
//! Start-up and the disk helper perform every kind here, synchronously. The hot path, a durable
//! write to an open segment, goes through the reactor instead and only asks for the descriptor.
//!
//! How a write becomes durable: see ARCHITECTURE.md, Decisions ("buffered or direct log writes").
//! Reads bypass the page cache: after a failed write the cache may hold what the medium does not.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use wal::{Completion, DiskError, DiskErrorKind, DiskOp, ListedFile, SegmentSequence};

/// Zeros are written in pieces of this size.
const ZERO_PIECE_BYTES: usize = 1 << 20;

/// A record takes at most half a segment, and four writes are in flight at most.
const SEGMENTS_IN_FLIGHT_MAX: u64 = 4;

/// The directory of the log's segments and those that are open.
#[derive(Debug)]
pub struct LogDisk {
    directory: PathBuf,
    open: HashMap<SegmentSequence, File>,
    /// The segment that was last read: recovery reads one piece of it after the other.
    reading: Option<(SegmentSequence, File)>,
    direct: bool,
}

impl LogDisk {
    /// A log in `directory`, which exists. `direct` opens segments past the page cache.
    #[must_use]
    pub fn new(directory: &Path, direct: bool) -> Self {
        let directory = directory.to_path_buf();
        Self { directory, open: HashMap::new(), reading: None, direct }
    }

    /// A second pair of hands on the same directory.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(&self.directory, self.direct)
    }

    /// The descriptor for writing to `segment`.
    ///
    /// # Errors
    /// The segment cannot be opened.
    pub fn descriptor(&mut self, segment: SegmentSequence) -> Result<RawFd, DiskError> {
        Ok(self.file(segment)?.as_raw_fd())
    }

    /// Closes segments that no write can still be on its way to: the few writes in flight span at
    /// most [`SEGMENTS_IN_FLIGHT_MAX`] of them. Closing one too early would hand its descriptor's
    /// number to another file while the kernel has yet to look it up.
    pub fn forget_long_before(&mut self, current: SegmentSequence) {
        self.open.retain(|&segment, _| segment.0 + SEGMENTS_IN_FLIGHT_MAX >= current.0);
    }

    /// Performs an operation, waiting for its end.
    ///
    /// # Errors
    /// What the system refused.
    pub fn perform(&mut self, op: DiskOp) -> Result<Completion, DiskError> {
        match op {
            DiskOp::List => self.list().map(Completion::Listed),
            DiskOp::Create { segment, size_bytes } => self.create(segment, size_bytes),
            DiskOp::Zero { segment, offset, size_bytes } => {
                self.zero(segment, offset, size_bytes).map_err(|error| disk_error(&error))
            }
            DiskOp::Write { segment, offset, buffer } => {
                let file = self.file(segment)?;
                let written = file.write_all_at(buffer.as_slice(), offset);
                written.and_then(|()| file.sync_data()).map_err(|error| disk_error(&error))?;
                let size_bytes = buffer.as_slice().len();
                Ok(Completion::Written { buffer, size_bytes })
            }
            DiskOp::Sync { segment } => {
                self.file(segment)?.sync_all().map_err(|error| disk_error(&error))?;
                Ok(Completion::Done)
            }
            DiskOp::SyncDirectory => {
                let directory = File::open(&self.directory).and_then(|file| file.sync_all());
                directory.map_err(|error| disk_error(&error))?;
                Ok(Completion::Done)
            }
            DiskOp::Rename { from, to } => {
                // The names are handed over, so a descriptor of the old one is of no use.
                self.open.remove(&from);
                self.open.remove(&to);
                self.reading = None;
                let renamed = std::fs::rename(self.path(from), self.path(to));
                renamed.map_err(|error| disk_error(&error))?;
                Ok(Completion::Done)
            }
            DiskOp::Remove { segment } => self.remove(segment),
            DiskOp::Read { segment, offset, mut buffer } => {
                let file = self.reading(segment).map_err(|error| disk_error(&error))?;
                let read = read_full(file, buffer.as_mut_slice(), offset);
                let size_bytes = read.map_err(|error| disk_error(&error))?;
                Ok(Completion::Read { buffer, size_bytes })
            }
        }
    }

    fn path(&self, segment: SegmentSequence) -> PathBuf {
        self.directory.join(wal::segment_file_name(segment))
    }

    fn file(&mut self, segment: SegmentSequence) -> Result<&File, DiskError> {
        if !self.open.contains_key(&segment) {
            let path = self.path(segment);
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            let flags = if self.direct { libc::O_DIRECT } else { 0 };
            let file = match options.custom_flags(flags).open(&path) {
                // A file system without direct access; its own cache has to do.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    options.custom_flags(0).open(&path)
                }
                other => other,
            };
            let file = file.map_err(|error| disk_error(&error))?;
            self.open.insert(segment, file);
        }
        Ok(&self.open[&segment])
    }

    fn reading(&mut self, segment: SegmentSequence) -> io::Result<&File> {
        if self.reading.as_ref().is_none_or(|(open, _)| *open != segment) {
            let path = self.path(segment);
            let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);
            let file = match direct {
                // File systems without direct access (tmpfs before 6.5) have no medium behind the
                // cache either.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => File::open(&path)?,
                other => other?,
            };
            self.reading = Some((segment, file));
        }
        let (_, file) = self.reading.as_ref().expect("it has just been opened");
        Ok(file)
    }

    fn list(&self) -> Result<Vec<ListedFile>, DiskError> {
        let mut files = Vec::new();
        let entries = std::fs::read_dir(&self.directory).map_err(|error| disk_error(&error))?;
        for entry in entries {
            let entry = entry.map_err(|error| disk_error(&error))?;
            let size_bytes = entry.metadata().map_err(|error| disk_error(&error))?.len();
            files.push(ListedFile { name: entry.file_name().to_string_lossy().into(), size_bytes });
        }
        Ok(files)
    }

    fn create(&self, segment: SegmentSequence, size_bytes: u64) -> Result<Completion, DiskError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path(segment))
            .map_err(|error| disk_error(&error))?;
        super::files::allocate(&file, size_bytes).map_err(|error| disk_error(&error))?;
        file.set_len(size_bytes).map_err(|error| disk_error(&error))?;
        Ok(Completion::Done)
    }

    fn zero(&self, segment: SegmentSequence, offset: u64, size: u64) -> io::Result<Completion> {
        let file = OpenOptions::new().write(true).open(self.path(segment))?;
        let zeros = vec![0; ZERO_PIECE_BYTES];
        let mut done = 0;
        while done < size {
            let piece = (size - done).min(ZERO_PIECE_BYTES as u64);
            let piece = &zeros[..usize::try_from(piece).expect("at most a mebibyte")];
            file.write_all_at(piece, offset + done)?;
            done += piece.len() as u64;
        }
        // Little by little: a flush of a whole new segment would hold up the log's writes.
        file.sync_data()?;
        Ok(Completion::Done)
    }

    fn remove(&mut self, segment: SegmentSequence) -> Result<Completion, DiskError> {
        self.open.remove(&segment);
        self.reading = None;
        match std::fs::remove_file(self.path(segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk_error(&error)),
            _ => Ok(Completion::Done),
        }
    }
}

/// Sorts a system error into the kinds the log tells apart.
#[must_use]
pub fn disk_error(error: &io::Error) -> DiskError {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => DiskErrorKind::NoSpace,
        Some(libc::ENOENT) => DiskErrorKind::NotFound,
        _ => DiskErrorKind::Io,
    };
    DiskError { kind, os_code: error.raw_os_error() }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let kind = |code| disk_error(&io::Error::from_raw_os_error(code)).kind;
        assert_eq!(kind(libc::ENOSPC), DiskErrorKind::NoSpace);
        assert_eq!(kind(libc::EDQUOT), DiskErrorKind::NoSpace);
        assert_eq!(kind(libc::ENOENT), DiskErrorKind::NotFound);
        assert_eq!(kind(libc::EIO), DiskErrorKind::Io);
    }
}
