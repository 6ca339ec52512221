//! Listening sockets and the descriptor limit.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn, as Go does.
const BACKLOG: libc::c_int = 4096;

/// How long an address may stay in use. The kernel tears an io_uring down after its process has
/// ended, and the accept that was under way in it holds the listening socket until then: a member
/// that is killed and started again at once would meet its own shadow.
const IN_USE_MAX: Duration = Duration::from_secs(3);
/// How often a busy address is tried again.
const IN_USE_RETRY_EVERY: Duration = Duration::from_millis(10);

/// Binds and listens. Connections accepted from it send small answers at once (TCP_NODELAY is
/// inherited) and notice a peer that vanished.
///
/// # Errors
/// The system's; the address is in use, or not ours.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // std sets SO_REUSEADDR, as Go does: a restart does not wait for old connections to time out.
    let listener = bind(address)?;
    // SAFETY: listening again on a bound socket only changes its backlog.
    let result = unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    set(&listener, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set(&listener, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    // Go's defaults for accepted connections.
    set(&listener, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 15)?;
    set(&listener, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 15)?;
    Ok(listener)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < IN_USE_MAX =>
            {
                std::thread::sleep(IN_USE_RETRY_EVERY);
            }
            other => return other,
        }
    }
}

fn set(
    listener: &TcpListener,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four bytes");
    let pointer = (&raw const value).cast();
    // SAFETY: the pointer is to a live integer of the size given.
    let result = unsafe { libc::setsockopt(listener.as_raw_fd(), level, option, pointer, size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many descriptors the process may open; raised to the hard limit first, as Go does.
///
/// # Errors
/// The system's.
pub fn descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is writable.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the limit is readable. Where it cannot be raised the present one stands.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    Ok(limit.rlim_cur)
}
