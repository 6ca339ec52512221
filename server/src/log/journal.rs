//! `--log-outputs systemd/journal`: lines as entries of systemd's journal.
//!
//! One datagram a line, in the journal's own protocol: fields parted by newlines, which a line
//! never contains. The line is the message; what the journal filters by stands beside it. A line
//! that the journal does not take goes to standard error, so that none is lost in silence.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::Level;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
const IDENTIFIER: &str = "ringd";

/// A connection to the journal.
pub struct Journal(UnixDatagram);

impl Journal {
    /// Connects.
    pub fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // A journal that does not read must not stop a core.
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Writes a line.
    pub fn write(&self, level: Level, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let priority = priority(level);
        let mut entry = Vec::with_capacity(line.len() + 64);
        write!(entry, "PRIORITY={priority}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE=")?;
        entry.extend_from_slice(line);
        entry.push(b'\n');
        match self.0.send(&entry) {
            Ok(_) => Ok(()),
            Err(_) => io::stderr().lock().write_all(&[line, b"\n"].concat()),
        }
    }
}

/// Of syslog's eight, those that etcd gives its levels.
const fn priority(level: Level) -> u8 {
    match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Error => 3,
        Level::Panic | Level::Fatal => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_entry() {
        let name = format!("ringd-journal-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let reader = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path).unwrap();
        journal.write(Level::Warn, b"{\"msg\":\"x\"}\n").unwrap();
        let mut buffer = [0; 256];
        let len = reader.recv(&mut buffer).unwrap();
        let entry = "PRIORITY=4\nSYSLOG_IDENTIFIER=ringd\nMESSAGE={\"msg\":\"x\"}\n";
        assert_eq!(std::str::from_utf8(&buffer[..len]).unwrap(), entry);
        std::fs::remove_file(&path).unwrap();
        drop(reader);
        // Nobody reads any more: the line is on standard error, and no error of its caller's.
        journal.write(Level::Info, b"{\"msg\":\"nobody reads this\"}\n").unwrap();
        assert!(Journal::open(&path).is_err());
    }
}
