//! File operations that std lacks, and the engine's [`DiskOp`]s performed on real files.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;

use engine::page::PageBuffer;
use engine::page::disk::{Completion, DiskError, DiskOp, DiskOpKind, FileId};

/// Allocates blocks for the first `size_bytes` of a file and extends it to them if it is shorter.
///
/// # Errors
/// ENOSPC when the disk cannot hold them.
pub fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    match fallocate(file, 0, size_bytes) {
        // A file system without fallocate: the length is all that can be had, and a full disk shows
        // at the write instead.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            file.set_len(size_bytes.max(file.metadata()?.len()))
        }
        outcome => outcome,
    }
}

/// Allocates blocks for the first `size_bytes` of a file and leaves its length as it is. A file
/// that has as many is not touched.
///
/// # Errors
/// ENOSPC when the disk cannot hold them.
pub fn allocate_ahead(file: &File, size_bytes: u64) -> io::Result<()> {
    /// What a file's blocks are counted in, whatever the file system's own are.
    const COUNTED_BYTES: u64 = 512;
    if file.metadata()?.blocks() * COUNTED_BYTES >= size_bytes {
        return Ok(());
    }
    fallocate(file, libc::FALLOC_FL_KEEP_SIZE, size_bytes)
}

fn fallocate(file: &File, mode: libc::c_int, size_bytes: u64) -> io::Result<()> {
    let size = libc::off_t::try_from(size_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: a plain call on an open descriptor.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, size) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

fn shorten(file: &File, size_bytes: u64) -> io::Result<()> {
    if file.metadata()?.len() > size_bytes { file.set_len(size_bytes) } else { Ok(()) }
}

/// Random bytes from the system, for what must differ between two starts.
///
/// # Errors
/// When the system has none to give.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: eight writable bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != 8 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// Milliseconds since 1970 by the system's clock, for ids that no later start repeats. A clock
/// before 1970 counts as its beginning.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Written to a shard's file and still on its way to the disk, at most. A checkpoint that left its
/// pages to its sync would have the disk busy with them all at once, and the log's writes behind
/// them: 100 MiB took 100 ms, in which a log write took 20 to 60 ms instead of 0.2.
const WRITE_BACK_SIZE_BYTES_MAX: u64 = 1 << 20;

/// The engine's files.
#[derive(Debug)]
pub struct EngineDisk {
    meta: File,
    shards: Vec<File>,
    /// The shards' files without the system's cache, where there is such a way.
    direct: Vec<Option<File>>,
    /// What is on its way to the disk, oldest first.
    write_back: VecDeque<WriteBack>,
    write_back_size_bytes: u64,
}

#[derive(Debug)]
struct WriteBack {
    file: FileId,
    offset: u64,
    size_bytes: u64,
    is_cold: bool,
}

impl EngineDisk {
    /// On these open files.
    #[must_use]
    pub fn new(meta: File, shards: Vec<File>) -> Self {
        let direct = shards.iter().map(|_| None).collect();
        Self { meta, shards, direct, write_back: VecDeque::new(), write_back_size_bytes: 0 }
    }

    /// With a second way to the shards' files, for what is cold: past the system's cache (`None`
    /// where the file system has no such way).
    #[must_use]
    pub fn with_direct(self, direct: Vec<Option<File>>) -> Self {
        assert_eq!(direct.len(), self.shards.len());
        Self { direct, ..self }
    }

    /// The same files, for another thread that writes nothing.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn duplicate(&self) -> io::Result<Self> {
        let shards = self.shards.iter().map(File::try_clone).collect::<io::Result<_>>()?;
        Ok(Self::new(self.meta.try_clone()?, shards))
    }

    /// Performs an operation, waiting for its end.
    pub fn perform(&mut self, op: DiskOp) -> Completion {
        let mut buffer = PageBuffer::default();
        let (operation, result) = match op.kind {
            DiskOpKind::Write { offset, bytes, is_cold } => {
                let written =
                    WriteBack { file: op.file, offset, size_bytes: bytes.len() as u64, is_cold };
                let direct = is_cold.then(|| self.write_direct(op.file, &bytes, offset)).flatten();
                let result = direct.unwrap_or_else(|| self.write_cached(written, &bytes));
                buffer = bytes;
                ("write", result)
            }
            DiskOpKind::Sync => {
                let result = self.file(op.file).sync_data();
                self.forget_cold(op.file);
                ("sync", result)
            }
            DiskOpKind::Allocate { size_bytes } => {
                ("allocate", allocate(self.file(op.file), size_bytes))
            }
            DiskOpKind::Shorten { size_bytes } => {
                ("shorten", shorten(self.file(op.file), size_bytes))
            }
        };
        let result = result.map_err(|cause| DiskError { file: op.file, operation, cause });
        Completion { token: op.token, buffer, result }
    }

    fn file(&self, file: FileId) -> &File {
        match file {
            FileId::Meta => &self.meta,
            FileId::Shard(shard) => &self.shards[usize::from(shard)],
        }
    }

    /// Writes past the system's cache. A gibibyte of what nobody reads soon is memory that
    /// something else had to leave, and on a virtual machine memory that the host has to find;
    /// besides that there are copying and housekeeping, a second thread's time beside that of who
    /// builds. `None` when the cache has to do it.
    fn write_direct(&mut self, file: FileId, bytes: &[u8], offset: u64) -> Option<io::Result<()>> {
        let FileId::Shard(shard) = file else { return None };
        let place = self.direct.get_mut(usize::from(shard))?;
        let result = place.as_ref()?.write_all_at(bytes, offset);
        match result.as_ref().err().and_then(io::Error::raw_os_error) {
            // It opens files so and wants a larger alignment, or more than that.
            Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOTBLK) => {
                *place = None;
                None
            }
            // The room was allocated. To mark it as written a file system may want some of its own,
            // for which what is written back has a reserve.
            Some(libc::ENOSPC) => None,
            _ => Some(result),
        }
    }

    fn write_cached(&mut self, written: WriteBack, bytes: &[u8]) -> io::Result<()> {
        self.file(written.file).write_all_at(bytes, written.offset)?;
        self.pace(written)
    }

    /// Has the system begin to write, and waits for what was begun before. Nothing is durable by
    /// that: the sync that follows is.
    fn pace(&mut self, written: WriteBack) -> io::Result<()> {
        self.sync_range(&written, libc::SYNC_FILE_RANGE_WRITE)?;
        self.write_back_size_bytes += written.size_bytes;
        self.write_back.push_back(written);
        while self.write_back_size_bytes > WRITE_BACK_SIZE_BYTES_MAX
            && let Some(oldest) = self.write_back.pop_front()
        {
            self.write_back_size_bytes -= oldest.size_bytes;
            self.sync_range(&oldest, libc::SYNC_FILE_RANGE_WAIT_BEFORE)?;
            self.forget(&oldest);
        }
        Ok(())
    }

    /// What was on its way has arrived.
    fn forget_cold(&mut self, file: FileId) {
        let (arrived, under_way): (VecDeque<_>, VecDeque<_>) =
            self.write_back.drain(..).partition(|written| written.file == file);
        self.write_back = under_way;
        for written in arrived {
            self.write_back_size_bytes -= written.size_bytes;
            self.forget(&written);
        }
    }

    /// Has the system give up its copy of what nobody reads soon.
    fn forget(&self, written: &WriteBack) {
        let (Ok(offset), Ok(size_bytes)) =
            (written.offset.try_into(), written.size_bytes.try_into())
        else {
            return;
        };
        if written.is_cold {
            let descriptor = self.file(written.file).as_raw_fd();
            // SAFETY: a plain call on an open descriptor. It is advice: memory that stays is all
            // that a failure costs.
            unsafe {
                libc::posix_fadvise(descriptor, offset, size_bytes, libc::POSIX_FADV_DONTNEED)
            };
        }
    }

    fn sync_range(&self, range: &WriteBack, flags: libc::c_uint) -> io::Result<()> {
        let wide =
            |number| libc::off64_t::try_from(number).map_err(|_| io::ErrorKind::FileTooLarge);
        let (offset, size_bytes) = (wide(range.offset)?, wide(range.size_bytes)?);
        let descriptor = self.file(range.file).as_raw_fd();
        // SAFETY: a plain call on an open descriptor.
        if unsafe { libc::sync_file_range(descriptor, offset, size_bytes, flags) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // A file system that cannot be hurried: its sync does it all.
            Some(libc::EINVAL | libc::ENOSYS | libc::ESPIPE | libc::EOPNOTSUPP) => Ok(()),
            // A failed write is told once, and here it was.
            _ => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;

    use engine::page::disk::OpToken;

    use super::*;

    /// What was written past the cache is what is read through it, and the other way round.
    #[test]
    fn both_ways_to_a_file_show_the_same() {
        let path = std::env::temp_dir().join(format!("ringd-direct-{}", std::process::id()));
        let open = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
            options.open(&path)
        };
        let (meta, shard) = (open(0).unwrap(), open(0).unwrap());
        // A file system without such a way is served, too.
        let direct = open(libc::O_DIRECT).ok();
        let is_offered = direct.is_some();
        let mut disk = EngineDisk::new(meta, vec![shard]).with_direct(vec![direct]);
        allocate(&disk.shards[0], 1 << 20).unwrap();
        let mut expected = vec![0; 1 << 20];
        let mut perform = |kind| {
            let op = DiskOp { token: OpToken(1), file: FileId::Shard(0), kind };
            disk.perform(op).result.unwrap();
        };
        for round in 0..20_u8 {
            let (offset, is_cold) = (usize::from(round % 7) * 4096, round % 3 != 0);
            let bytes = vec![round + 1; (usize::from(round % 4) + 1) * 4096];
            expected[offset..offset + bytes.len()].copy_from_slice(&bytes);
            let bytes = PageBuffer::from(bytes.as_slice());
            perform(DiskOpKind::Write { offset: offset as u64, bytes, is_cold });
            assert!(std::fs::read(&path).unwrap() == expected, "round {round}");
        }
        assert_eq!(disk.direct[0].is_some(), is_offered, "it was refused whole pages");
        let mut perform = |kind| {
            let op = DiskOp { token: OpToken(1), file: FileId::Shard(0), kind };
            disk.perform(op).result.unwrap();
        };
        // Most file systems refuse this past the cache, and only now; it is written all the same.
        expected[1..=4096].fill(99);
        let bytes = PageBuffer::from(&[99; 4096][..]);
        perform(DiskOpKind::Write { offset: 1, bytes, is_cold: true });
        assert!(std::fs::read(&path).unwrap() == expected);
        perform(DiskOpKind::Sync);
        std::fs::remove_file(&path).unwrap();
    }

    /// The second block of the meta file was not there when a disk had become full, and its member
    /// ended at the next checkpoint.
    #[test]
    fn blocks_are_had_ahead_and_the_length_stays() {
        let path = std::env::temp_dir().join(format!("ringd-ahead-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let outcome = allocate_ahead(&file, 8192);
        let metadata = file.metadata().unwrap();
        std::fs::remove_file(&path).unwrap();
        match outcome {
            Ok(()) => assert!(metadata.blocks() * 512 >= 8192, "{} blocks", metadata.blocks()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
        }
        assert_eq!(metadata.len(), 0);
    }
}
