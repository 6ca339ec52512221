//! Where a request's body ends.
//!
//! Invariants:
//! - Lines of the chunked encoding end with CR LF and have no other CR: what another reader might
//!   take for a line's end is refused, not passed on.
//! - What a client sends beside the chunks' content is bounded, for each chunk and in all.

/// The longest line of a chunk's size.
const LINE_BYTES_MAX: usize = 4096;
/// The largest trailer.
const TRAILER_BYTES_MAX: usize = 4096;
/// Bytes beside the content that may add up: beyond 16 a chunk and twice its content.
const EXCESS_BYTES_MAX: i64 = 16 * 1024;

/// A request's body, as far as it has not come.
#[derive(Debug)]
pub enum Body {
    /// So many bytes.
    Sized(u64),
    /// Chunks.
    Chunked(Chunks),
}

/// How far a chunked body is.
#[derive(Debug, Default)]
pub struct Chunks {
    state: ChunkState,
    excess: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Line,
    Content(u64),
    ContentEnd,
    Trailer(usize),
    Ended,
}

/// What was found in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many bytes of content.
    Content(usize),
    /// Bytes that are no content.
    Skip(usize),
    /// More input is needed.
    NeedMore,
    /// All has come.
    End,
    /// It is broken, in the words of Go.
    Broken(&'static str),
}

impl Body {
    /// A body of known length.
    #[must_use]
    pub const fn sized(length: u64) -> Self {
        Self::Sized(length)
    }

    /// A body in chunks.
    #[must_use]
    pub fn chunked() -> Self {
        Self::Chunked(Chunks::default())
    }

    /// Whether nothing of it is missing.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Sized(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == ChunkState::Ended,
        }
    }

    /// What the input begins with. What is found counts as taken.
    pub fn poll(&mut self, input: &[u8]) -> Found {
        match self {
            Self::Sized(0) => Found::End,
            Self::Sized(_) if input.is_empty() => Found::NeedMore,
            Self::Sized(left) => {
                let take = at_most(input, *left);
                *left -= take as u64;
                Found::Content(take)
            }
            Self::Chunked(chunks) => chunks.poll(input),
        }
    }
}

impl Chunks {
    fn poll(&mut self, input: &[u8]) -> Found {
        match self.state {
            ChunkState::Line => self.poll_line(input),
            ChunkState::Content(_) if input.is_empty() => Found::NeedMore,
            ChunkState::Content(left) => {
                let take = at_most(input, left);
                let left = left - take as u64;
                let is_whole = left == 0;
                self.state =
                    if is_whole { ChunkState::ContentEnd } else { ChunkState::Content(left) };
                Found::Content(take)
            }
            ChunkState::ContentEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = ChunkState::Line;
                    Found::Skip(2)
                }
                [] | [b'\r'] => Found::NeedMore,
                _ => Found::Broken("malformed chunked encoding"),
            },
            ChunkState::Trailer(seen) => self.poll_trailer(input, seen),
            ChunkState::Ended => Found::End,
        }
    }

    fn poll_line(&mut self, input: &[u8]) -> Found {
        let end = input.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
        let Some(end) = end else {
            let is_long = input.len() >= LINE_BYTES_MAX;
            return if is_long { Found::Broken("header line too long") } else { Found::NeedMore };
        };
        let Some(line) = input[..end].strip_suffix(b"\r") else {
            let has_return = input[..end].contains(&b'\r');
            let what = if has_return {
                "invalid CR in chunked line"
            } else {
                "chunked line ends with bare LF"
            };
            return Found::Broken(what);
        };
        if line.contains(&b'\r') {
            return Found::Broken("invalid CR in chunked line");
        }
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = match chunk_size(digits.trim_ascii_end()) {
            Ok(size) => size,
            Err(what) => return Found::Broken(what),
        };
        let line_bytes = i64::try_from(line.len() + 2).expect("a line is short");
        let allowed = 16 + i64::try_from(size.saturating_mul(2)).unwrap_or(i64::MAX - 16);
        self.excess = (self.excess + line_bytes).saturating_sub(allowed).max(0);
        if self.excess > EXCESS_BYTES_MAX {
            return Found::Broken("chunked encoding contains too much non-data");
        }
        self.state = if size == 0 { ChunkState::Trailer(0) } else { ChunkState::Content(size) };
        Found::Skip(end + 1)
    }

    /// Nobody reads trailers; their lines are passed over.
    fn poll_trailer(&mut self, input: &[u8], seen: usize) -> Found {
        let limit = TRAILER_BYTES_MAX - seen;
        let Some(end) = input.iter().take(limit).position(|byte| *byte == b'\n') else {
            if input.len() >= limit {
                return Found::Broken("http: suspiciously long trailer after chunked body");
            }
            return Found::NeedMore;
        };
        let line = input[..end].strip_suffix(b"\r");
        match line {
            Some([]) => self.state = ChunkState::Ended,
            Some(line) if !line.contains(&b'\r') && line.contains(&b':') => {
                self.state = ChunkState::Trailer(seen + end + 1);
            }
            _ => return Found::Broken("malformed MIME header line"),
        }
        Found::Skip(end + 1)
    }
}

fn at_most(input: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(input.len(), |left| left.min(input.len()))
}

fn chunk_size(digits: &[u8]) -> Result<u64, &'static str> {
    if digits.is_empty() {
        return Err("empty hex number for chunk length");
    }
    let mut size = 0;
    for (place, digit) in digits.iter().enumerate() {
        let value = char::from(*digit).to_digit(16).ok_or("invalid byte in chunk length")?;
        if place == 16 {
            return Err("http chunk length too large");
        }
        size = size << 4 | u64::from(value);
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All content and what came of it, with input in pieces of `step` bytes.
    fn read(input: &[u8], step: usize) -> (Vec<u8>, Result<usize, &'static str>) {
        let (mut body, mut content) = (Body::chunked(), Vec::new());
        let (mut at, mut end) = (0, step.min(input.len()));
        loop {
            match body.poll(&input[at..end]) {
                Found::Content(take) => {
                    content.extend_from_slice(&input[at..at + take]);
                    at += take;
                }
                Found::Skip(count) => at += count,
                Found::End => return (content, Ok(at)),
                Found::Broken(what) => return (content, Err(what)),
                Found::NeedMore if end == input.len() => return (content, Err("cut")),
                Found::NeedMore => end = (end + step).min(input.len()),
            }
        }
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        let text = b"3\r\nabc\r\n10;ext=\"x\"\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\nnext";
        for step in 1..=text.len() {
            assert_eq!(read(text, step), (b"abc0123456789abcdef".to_vec(), Ok(text.len() - 4)));
        }
    }

    #[test]
    fn what_another_reader_might_read_otherwise_is_refused() {
        let long = format!("{:0>17}\r\n", 1);
        let cases: [(&[u8], &str); 12] = [
            (b"3\nabc\r\n0\r\n\r\n", "chunked line ends with bare LF"),
            (b"3\r\nabcd\r\n", "malformed chunked encoding"),
            (b"3\r\nabc\n0\r\n\r\n", "malformed chunked encoding"),
            (b"3 \r \r\nabc\r\n", "invalid CR in chunked line"),
            (b"\r\n", "empty hex number for chunk length"),
            (b";x\r\n", "empty hex number for chunk length"),
            (b"0x3\r\nabc\r\n", "invalid byte in chunk length"),
            (b"-1\r\n", "invalid byte in chunk length"),
            (b"+3\r\nabc\r\n", "invalid byte in chunk length"),
            (long.as_bytes(), "http chunk length too large"),
            (b"0\r\nno colon\r\n\r\n", "malformed MIME header line"),
            (b"0\r\n\n", "malformed MIME header line"),
        ];
        for (input, expected) in cases {
            for step in [1, input.len()] {
                assert_eq!(read(input, step).1, Err(expected), "{}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn overhead_is_bounded() {
        let line = format!("1;{}\r\nx\r\n", "e".repeat(1000));
        assert!(read(line.repeat(10).as_bytes(), 4096).1 == Err("cut"));
        let what = "chunked encoding contains too much non-data";
        assert_eq!(read(line.repeat(20).as_bytes(), 4096).1, Err(what));
        let single = "1\r\nx\r\n".repeat(100_000) + "0\r\n\r\n";
        assert_eq!(read(single.as_bytes(), 4096).0.len(), 100_000);
        let trailer = format!("0\r\n{}", "a: b\r\n".repeat(1000));
        let what = "http: suspiciously long trailer after chunked body";
        assert_eq!(read(trailer.as_bytes(), 4096).1, Err(what));
        let endless = "1".repeat(5000);
        assert_eq!(read(endless.as_bytes(), 100).1, Err("header line too long"));
    }
}
