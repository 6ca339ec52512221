//! Wake-ups: how one core or thread tells another that it left mail.
//!
//! Cores use IORING_OP_MSG_RING (see [`super::reactor::Reactor::wake`]); threads without a ring
//! (the disk helper, the signal waiter) write to the core's eventfd.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Wakes one core from any thread.
#[derive(Debug, Clone)]
pub struct Waker {
    eventfd: Arc<OwnedFd>,
}

impl Waker {
    /// A waker for the core that polls `eventfd`.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(eventfd: RawFd) -> io::Result<Self> {
        // SAFETY: dup takes any descriptor number and reports a bad one as an error.
        let duplicate = unsafe { libc::fcntl(eventfd, libc::F_DUPFD_CLOEXEC, 0) };
        if duplicate < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened by the call above and is nobody else's.
        let eventfd = unsafe { OwnedFd::from_raw_fd(duplicate) };
        Ok(Self { eventfd: Arc::new(eventfd) })
    }

    /// Wakes the core. A full counter already means awake.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is eight readable bytes, as an eventfd wants.
        unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: plain flags; the result is checked.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: opened by the call above, nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

pub(super) fn drain(eventfd: RawFd) {
    let mut count = [0u8; 8];
    // SAFETY: eight writable bytes; an empty counter answers EAGAIN, which means the same.
    unsafe { libc::read(eventfd, count.as_mut_ptr().cast(), count.len()) };
}

pub(super) fn shutdown(socket: RawFd) -> io::Result<()> {
    // SAFETY: any descriptor number is allowed; a bad one is reported.
    let result = unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
