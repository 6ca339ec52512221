//! SIGBUS: a page of a mapped file cannot be had, because the file was shortened or its disk
//! failed.
//!
//! There is no way on from inside a load instruction: the handler says which page of which file it
//! was and lets the signal end the process, as it would have without a word.
//!
//! Invariant: the handler only reads what was set before it was installed, allocates nothing, takes
//! no lock and calls nothing but `write`.

use std::fmt::{self, Write as _};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;

use engine::page::PAGE_SIZE_BYTES;

/// A file in memory.
#[derive(Debug)]
pub struct MappedFile {
    /// Where it lies.
    pub addresses: Range<usize>,
    /// Its path.
    pub path: PathBuf,
}

static FILES: OnceLock<Vec<(Range<usize>, String)>> = OnceLock::new();

/// Names these files from now on. The first call counts: a process serves one store.
///
/// # Errors
/// The system's.
pub fn name_pages_of(files: Vec<MappedFile>) -> io::Result<()> {
    let named = files.into_iter().map(|file| (file.addresses, file.path.display().to_string()));
    if FILES.set(named.collect()).is_err() {
        return Ok(());
    }
    // SAFETY: all zero is a valid action; what counts is set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    // Once only: when the instruction is run again, the signal's default ends the process.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
    // SAFETY: the action is whole, and the old one is not asked for.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a live siginfo.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS carries an address.
    let address = unsafe { info.si_addr() } as usize;
    let mut line = Line { bytes: [0; LINE_SIZE_BYTES], len: 0 };
    let files = FILES.get().map_or(&[][..], Vec::as_slice);
    // A line that is too long is cut: it says the most important first.
    let _ = match files.iter().find(|(addresses, _)| addresses.contains(&address)) {
        Some((addresses, path)) => {
            let page = (address - addresses.start) / PAGE_SIZE_BYTES;
            let why = "the file was shortened, or its disk fails";
            writeln!(line, "ringd: page {page} of {path} cannot be read: {why}")
        }
        None => writeln!(line, "ringd: bus error at {address:#x}, which is no page of the store"),
    };
    // SAFETY: the bytes are live; nothing can be done about a failure.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
}

const LINE_SIZE_BYTES: usize = 512;

struct Line {
    bytes: [u8; LINE_SIZE_BYTES],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let size = text.len().min(room.len());
        room[..size].copy_from_slice(&text.as_bytes()[..size]);
        self.len += size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut() {
        let mut line = Line { bytes: [0; LINE_SIZE_BYTES], len: 0 };
        writeln!(line, "{}", "x".repeat(2 * LINE_SIZE_BYTES)).unwrap();
        assert_eq!(line.len, LINE_SIZE_BYTES);
        assert!(line.bytes.iter().all(|&byte| byte == b'x'));
    }
}
