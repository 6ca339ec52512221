//! Listening sockets and the descriptor limit.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn, as Go does.
const BACKLOG: libc::c_int = 4096;

/// Go's time until a silent connection is probed, and between two probes.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long an address may stay in use. The kernel tears an io_uring down after its process has
/// ended, and the accept that was under way in it holds the listening socket until then: a member
/// that is killed and started again at once would meet its own shadow.
const IN_USE_MAX: Duration = Duration::from_secs(3);
/// How often a busy address is tried again.
const IN_USE_RETRY_EVERY: Duration = Duration::from_millis(10);

/// A socket that clients or members connect to.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: String,
    /// The file of a unix socket goes with it.
    #[expect(dead_code, reason = "held to be dropped")]
    file: Option<SocketFile>,
}

impl Listener {
    /// Where it listens, as log lines show it.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The name of a unix socket in the file system; removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it; the next start would, too.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds and listens. Connections accepted from it send small answers at once (TCP_NODELAY is
/// inherited) and notice a peer that vanished. With `reuse_port` other processes may listen there,
/// too, if they also ask for it.
///
/// # Errors
/// The system's; the address is in use, or not ours.
pub fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<Listener> {
    let socket = bind(address, reuse_port)?;
    socket.listen(BACKLOG)?;
    // Go's options and defaults for accepted connections.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive)?;
    let local = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Listener { socket: socket.into(), address: local.to_string(), file: None })
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let begun = Instant::now();
    loop {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // As Go does: a restart does not wait for old connections to time out.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        match socket.bind(&address.into()) {
            Ok(()) => return Ok(socket),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < IN_USE_MAX =>
            {
                std::thread::sleep(IN_USE_RETRY_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Listens on a path. A socket that lies there is taken for the remains of an earlier life and
/// removed, as etcd does; anything else that lies there stays, which etcd would remove, too.
///
/// # Errors
/// The system's; with the operation that failed.
pub fn listen_unix(path: &Path) -> Result<Listener, (&'static str, io::Error)> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(|cause| ("remove", cause))?;
        }
        Ok(_) => return Err(("bind", io::Error::from_raw_os_error(libc::EADDRINUSE))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(("remove", cause)),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|cause| ("bind", cause))?;
    let address = SockAddr::unix(path).map_err(|cause| ("bind", cause))?;
    socket.bind(&address).map_err(|cause| ("bind", cause))?;
    let file = SocketFile(path.to_owned());
    socket.listen(BACKLOG).map_err(|cause| ("listen", cause))?;
    let address = path.display().to_string();
    Ok(Listener { socket: socket.into(), address, file: Some(file) })
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_stale_socket_makes_room_and_a_file_does_not() {
        let name = format!("ringd-listen-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // The file of a socket outlives a process that is killed.
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let listener = listen_unix(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "the only copy").unwrap();
        let (operation, cause) = listen_unix(&path).unwrap_err();
        assert_eq!((operation, cause.kind()), ("bind", io::ErrorKind::AddrInUse));
        assert_eq!(std::fs::read(&path).unwrap(), b"the only copy");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_port_is_shared_only_by_who_asks_for_it() {
        let first = listen("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let address: SocketAddr = first.address().parse().unwrap();
        let second = listen(address, true).unwrap();
        assert_eq!(second.address(), first.address());
    }
}
