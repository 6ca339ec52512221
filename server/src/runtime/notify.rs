//! What a supervisor is told: systemd's notification protocol for `Type=notify`.
//!
//! One datagram to the socket that `NOTIFY_SOCKET` names, a path or an abstract name behind an `@`.
//! Without the variable nobody waits for news and nothing is sent. A supervisor that cannot be
//! reached is remarked on by the caller, never waited for.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const VARIABLE: &str = "NOTIFY_SOCKET";

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Clients are served.
    Ready,
    /// The end has begun.
    Stopping,
}

impl News {
    const fn message(self) -> &'static [u8] {
        match self {
            Self::Ready => b"READY=1",
            Self::Stopping => b"STOPPING=1",
        }
    }
}

/// Tells the supervisor, if there is one that listens.
///
/// # Errors
/// The system's.
pub fn tell(news: News) -> io::Result<()> {
    match std::env::var_os(VARIABLE) {
        Some(name) if !name.is_empty() => send(&name, news),
        _ => Ok(()),
    }
}

fn send(name: &OsStr, news: News) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not stop what it supervises.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    socket.send(news.message()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_reach_paths_and_abstract_names() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("ringd-notify-{}.sock", std::process::id()));
        let name = format!("ringd-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let abstract_address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_address).unwrap();
        let mut buffer = [0; 64];
        send(path.as_os_str(), News::Ready).unwrap();
        let len = by_path.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"READY=1");
        send(OsStr::new(&format!("@{name}")), News::Stopping).unwrap();
        let len = by_name.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"STOPPING=1");
        drop(by_path);
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str(), News::Ready).is_err());
    }
}
