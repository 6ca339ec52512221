//! File operations that std lacks, and the engine's [`DiskOp`]s performed on real files.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use engine::page::disk::{Completion, DiskError, DiskOp, DiskOpKind, FileId};

/// Allocates blocks for the first `size_bytes` of a file and extends it to them if it is shorter.
///
/// # Errors
/// ENOSPC when the disk cannot hold them.
pub fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    let size = libc::off_t::try_from(size_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: a plain call on an open descriptor.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // A file system without fallocate: the length is all that can be had, and a full disk
            // shows at the write instead.
            Some(libc::EOPNOTSUPP) => return file.set_len(size_bytes.max(file.metadata()?.len())),
            _ => return Err(error),
        }
    }
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

/// The engine's files.
#[derive(Debug)]
pub struct EngineDisk {
    meta: File,
    shards: Vec<File>,
}

impl EngineDisk {
    /// On these open files.
    #[must_use]
    pub fn new(meta: File, shards: Vec<File>) -> Self {
        Self { meta, shards }
    }

    /// Performs an operation, waiting for its end.
    pub fn perform(&self, op: DiskOp) -> Completion {
        let file = match op.file {
            FileId::Meta => &self.meta,
            FileId::Shard(shard) => &self.shards[usize::from(shard)],
        };
        let (operation, buffer, result) = match op.kind {
            DiskOpKind::Write { offset, bytes } => {
                let result = file.write_all_at(&bytes, offset);
                ("write", bytes, result)
            }
            DiskOpKind::Sync => ("sync", Vec::new(), file.sync_data()),
            DiskOpKind::Allocate { size_bytes } => {
                ("allocate", Vec::new(), allocate(file, size_bytes))
            }
        };
        let result = result.map_err(|cause| DiskError { file: op.file, operation, cause });
        Completion { token: op.token, buffer, result }
    }
}
