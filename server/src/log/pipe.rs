//! Standard error, or standard output, where it is a pipe: a reader that stops reading costs lines
//! and no core.
//!
//! A full pipe makes its writers wait, and the writers here are the cores that serve. So the pipe
//! is opened once more, under a description of our own that does not wait; the inherited one is
//! shared with others, who may rely on waiting. Files and terminals are written as they are, and so
//! are sockets, which cannot be opened once more.
//!
//! Invariants:
//! - A line is written whole or not at all, as far as the reader reads: what is left of one that
//!   was begun comes before anything else.
//! - A reader that has stopped is waited for once, until it has read again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

/// How long a reader is waited for: `TRIES_MAX` times `TRY_INTERVAL`, far more than one that reads
/// needs, and less than clients notice.
const TRIES_MAX: u32 = 50;
const TRY_INTERVAL: Duration = Duration::from_millis(1);

/// A pipe that lines go to.
pub struct Pipe {
    file: File,
    /// Of a line that was begun, what was not written.
    tail: Vec<u8>,
    omitted: u64,
    is_stuck: bool,
}

impl Pipe {
    /// The pipe behind a descriptor of this process; `None` if it is none, or not ours to open.
    pub fn open(descriptor: u32) -> Option<Self> {
        let path = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
        if !path.metadata().ok()?.file_type().is_fifo() {
            return None;
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
        Some(Self { file, tail: Vec::new(), omitted: 0, is_stuck: false })
    }

    /// Writes a line, or leaves it out; answers with the count of lines that were left out before
    /// this one, once it can be told to somebody.
    pub fn write(&mut self, line: &[u8]) -> io::Result<u64> {
        let mut tries = if self.is_stuck { 0 } else { TRIES_MAX };
        let tail = std::mem::take(&mut self.tail);
        let written = self.push(&tail, &mut tries)?;
        if written < tail.len() {
            self.tail = tail[written..].to_vec();
            self.omitted += 1;
            return Ok(0);
        }
        let written = self.push(line, &mut tries)?;
        if written == 0 {
            self.omitted += 1;
            return Ok(0);
        }
        self.tail = line[written..].to_vec();
        Ok(std::mem::take(&mut self.omitted))
    }

    fn push(&mut self, bytes: &[u8], tries: &mut u32) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(count) => {
                    written += count;
                    self.is_stuck = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_stuck = *tries == 0;
                    if self.is_stuck {
                        break;
                    }
                    *tries -= 1;
                    std::thread::sleep(TRY_INTERVAL);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_reader_that_stops_costs_lines_and_is_told_how_many() {
        let (mut reader, writer) = io::pipe().unwrap();
        let descriptor = u32::try_from(writer.as_raw_fd()).unwrap();
        let mut pipe = Pipe::open(descriptor).expect("it is a pipe");
        drop(writer);
        // Larger than what a pipe takes at once, so that one of them is cut.
        let line = [vec![b'x'; 9_999], vec![b'\n']].concat();
        for _ in 0..100 {
            assert_eq!(pipe.write(&line).unwrap(), 0);
        }
        let omitted = pipe.omitted;
        assert!(omitted > 50 && omitted < 100, "{omitted}");
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        let (mut told_all, mut written) = (0, 100 - omitted);
        for _ in 0..100_000_000 {
            let before = pipe.omitted;
            let told = pipe.write(&line).unwrap();
            if pipe.omitted <= before {
                assert_eq!(told, before);
                told_all += told;
                written += 1;
                // What is left of a line waits for the next one.
                if pipe.tail.is_empty() {
                    break;
                }
            }
        }
        assert!(told_all >= omitted, "the reader reads again");
        drop(pipe);
        let all = reading.join().unwrap();
        assert_eq!(all.len() as u64, written * 10_000);
        assert!(all.chunks(10_000).all(|found| found == line), "lines are whole");
    }

    #[test]
    fn what_is_no_pipe_is_left_alone() {
        let file = File::open("/dev/null").unwrap();
        assert!(Pipe::open(u32::try_from(file.as_raw_fd()).unwrap()).is_none());
        assert!(Pipe::open(u32::MAX).is_none());
    }
}
