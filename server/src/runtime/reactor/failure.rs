//! What the kernel says when it gives no io_uring, in words that help.

use std::io;

/// io_uring is not to be had, or broke.
#[derive(Debug)]
pub struct ReactorError {
    /// What was tried.
    pub operation: &'static str,
    /// What the kernel said.
    pub cause: io::Error,
}

impl std::fmt::Display for ReactorError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "cannot {}: {}", self.operation, self.cause)?;
        match self.cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => formatter.write_str(
                " (io_uring is forbidden here: allow it in the seccomp profile, or set \
                 kernel.io_uring_disabled=0)",
            ),
            Some(libc::ENOSYS) => {
                formatter.write_str(" (this kernel or sandbox has no io_uring; ringd requires it)")
            }
            Some(libc::ENOMEM) => {
                formatter.write_str(" (out of lockable memory: raise the memlock limit, ulimit -l)")
            }
            Some(libc::EINVAL) => {
                formatter.write_str(" (the kernel is too old: Linux 6.1 or newer is required)")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ReactorError {}
