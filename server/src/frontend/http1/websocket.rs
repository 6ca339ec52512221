//! WebSocket frames (RFC 6455) on a connection that has left HTTP behind.
//!
//! What the client sends is told payload by payload; pings are answered and a farewell is returned
//! here. What is sent are lines: each is a message, without its line end. A line that is long is a
//! message in fragments, so that it is not held.
//!
//! The checks of a frame, their order and their texts are those of the library that etcd uses.
//!
//! Invariants:
//! - Nothing of a client is held but the head of one frame, or the payload of one control frame,
//!   which has 125 bytes at the most; the owner keeps both in its input until they are whole.
//! - Of a line of ours less than [`FRAGMENT_BYTES`] are held.
//! - After [`Found::Ended`] nothing is read.

const HEAD_BYTES: usize = 2;
const MASK_BYTES: usize = 4;
const CONTROL_BYTES_MAX: usize = 125;
/// What of a line leaves before its end.
const FRAGMENT_BYTES: usize = 64 << 10;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const CLOSE_PROTOCOL_ERROR: u16 = 1002;

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A piece of a message.
    Payload(Vec<u8>),
    /// The end of a message.
    MessageEnd,
    /// A frame about the connection, which was answered if it wants to be.
    Control,
    /// Not enough of anything.
    NeedMore,
    /// The conversation is over.
    Ended,
}

/// Both directions.
#[derive(Debug, Default)]
pub struct WebSocket {
    /// The last data frame was not the last of its message.
    is_open: bool,
    frame: Option<Incoming>,
    /// A message of ours has begun.
    is_sending: bool,
    /// What has come of a line of ours.
    line: Vec<u8>,
}

/// A data frame whose payload is being read.
#[derive(Debug)]
struct Incoming {
    left: u64,
    mask: [u8; MASK_BYTES],
    /// Where in the mask the next byte stands.
    phase: usize,
}

impl WebSocket {
    /// Looks at the input; answers with how much of it is done with. What is to be said at once is
    /// appended to `out`.
    pub fn poll(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Found) {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            if let Some(frame) = &mut self.frame {
                if frame.left == 0 {
                    self.frame = None;
                    if !self.is_open {
                        return (used, Found::MessageEnd);
                    }
                    continue;
                }
                let take = usize::try_from(frame.left).unwrap_or(usize::MAX).min(rest.len());
                if take == 0 {
                    return (used, Found::NeedMore);
                }
                let payload = unmasked(&rest[..take], frame.mask, frame.phase);
                frame.left -= take as u64;
                frame.phase = (frame.phase + take) % MASK_BYTES;
                return (used + take, Found::Payload(payload));
            }
            match self.read_head(rest, out) {
                Head::NeedMore => return (used, Found::NeedMore),
                Head::Ended => return (used, Found::Ended),
                Head::Read(count) => used += count,
                // One at a time, for each may be answered, and the answers have a bound.
                Head::Control(count) => return (used + count, Found::Control),
            }
        }
    }

    /// Reads the head of a frame, and all of a control frame.
    fn read_head(&mut self, input: &[u8], out: &mut Vec<u8>) -> Head {
        let Some((&[first, second], rest)) = input.split_first_chunk::<HEAD_BYTES>() else {
            return Head::NeedMore;
        };
        let (is_final, opcode) = (first & FINAL != 0, first & 0x0f);
        let short_len = usize::from(second & 0x7f);
        if let Some(wrong) = self.wrong_in(first, second) {
            return refuse(out, &wrong);
        }
        let (len, rest) = match short_len {
            126 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
                None => return Head::NeedMore,
            },
            127 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest),
                None => return Head::NeedMore,
            },
            len => (len as u64, rest),
        };
        if len > i64::MAX as u64 {
            return Head::Ended;
        }
        let Some((&mask, rest)) = rest.split_first_chunk::<MASK_BYTES>() else {
            return Head::NeedMore;
        };
        let head_len = input.len() - rest.len();
        if matches!(opcode, CONTINUATION | TEXT | BINARY) {
            self.is_open = !is_final;
            self.frame = Some(Incoming { left: len, mask, phase: 0 });
            return Head::Read(head_len);
        }
        let Some(payload) = rest.get(..short_len) else { return Head::NeedMore };
        let payload = unmasked(payload, mask, 0);
        match opcode {
            PING => put_frame(out, FINAL | PONG, &payload),
            CLOSE => return end(out, &payload),
            _ => {}
        }
        Head::Control(head_len + short_len)
    }

    /// What is wrong with the first two bytes of a frame: everything, for whoever looks for it.
    fn wrong_in(&self, first: u8, second: u8) -> Option<String> {
        let (is_final, opcode) = (first & FINAL != 0, first & 0x0f);
        let mut wrong: Vec<String> = Vec::new();
        for (bit, text) in [(0x40, "RSV1 set"), (0x20, "RSV2 set"), (0x10, "RSV3 set")] {
            if first & bit != 0 {
                wrong.push(text.to_owned());
            }
        }
        match opcode {
            CLOSE | PING | PONG => {
                if usize::from(second & 0x7f) > CONTROL_BYTES_MAX {
                    wrong.push("len > 125 for control".to_owned());
                }
                if !is_final {
                    wrong.push("FIN not set on control".to_owned());
                }
            }
            TEXT | BINARY if self.is_open => wrong.push("data before FIN".to_owned()),
            CONTINUATION if !self.is_open => wrong.push("continuation after FIN".to_owned()),
            TEXT | BINARY | CONTINUATION => {}
            _ => wrong.push(format!("bad opcode {opcode}")),
        }
        if second & MASKED == 0 {
            wrong.push("bad MASK".to_owned());
        }
        (!wrong.is_empty()).then(|| wrong.join(", "))
    }

    /// Sends text: lines as messages, what is no whole line as the beginning of one.
    pub fn put(&mut self, out: &mut Vec<u8>, text: &[u8]) {
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) if self.line.is_empty() => self.put_piece(out, end, FINAL),
                Some(end) => {
                    self.line.extend_from_slice(end);
                    self.put_line(out, FINAL);
                }
                None => {
                    self.line.extend_from_slice(piece);
                    if self.line.len() >= FRAGMENT_BYTES {
                        self.put_line(out, 0);
                    }
                }
            }
        }
    }

    /// Nothing follows: the last line has ended, too.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.put_line(out, FINAL);
    }

    fn put_line(&mut self, out: &mut Vec<u8>, flag: u8) {
        let mut line = std::mem::take(&mut self.line);
        self.put_piece(out, &line, flag);
        line.clear();
        self.line = line;
    }

    fn put_piece(&mut self, out: &mut Vec<u8>, piece: &[u8], flag: u8) {
        let opcode = if self.is_sending { CONTINUATION } else { TEXT };
        // An empty line is no message.
        if !piece.is_empty() || self.is_sending {
            put_frame(out, flag | opcode, piece);
            self.is_sending = flag != FINAL;
        }
    }
}

enum Head {
    Read(usize),
    Control(usize),
    NeedMore,
    Ended,
}

fn unmasked(bytes: &[u8], mask: [u8; MASK_BYTES], phase: usize) -> Vec<u8> {
    let mask = mask.iter().cycle().skip(phase);
    bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
}

fn refuse(out: &mut Vec<u8>, wrong: &str) -> Head {
    let mut payload = CLOSE_PROTOCOL_ERROR.to_be_bytes().to_vec();
    payload.extend_from_slice(wrong.as_bytes());
    payload.truncate(CONTROL_BYTES_MAX);
    put_frame(out, FINAL | CLOSE, &payload);
    Head::Ended
}

/// The client says farewell; it is given its code back.
fn end(out: &mut Vec<u8>, payload: &[u8]) -> Head {
    let Some((code, text)) = payload.split_first_chunk::<2>() else {
        put_frame(out, FINAL | CLOSE, b"");
        return Head::Ended;
    };
    let number = u16::from_be_bytes(*code);
    if !matches!(number, 1000..=1003 | 1007..=1013 | 3000..=4999) {
        return refuse(out, &format!("bad close code {number}"));
    }
    if str::from_utf8(text).is_err() {
        return refuse(out, "invalid utf8 payload in close frame");
    }
    put_frame(out, FINAL | CLOSE, code);
    Head::Ended
}

fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ 0..126), _) => out.push(len),
        (_, Ok(len)) => {
            out.push(126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = *b"abcd";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(&mut out, first, payload);
        let head_len = out.len() - payload.len();
        out[1] |= MASKED;
        let masked = unmasked(payload, MASK, 0);
        [&out[..head_len], &MASK, &masked].concat()
    }

    /// All that a conversation tells, its messages joined by line ends, and what is said in return.
    fn heard(input: &[u8], step: usize) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut socket, mut out, mut text) = (WebSocket::default(), Vec::new(), Vec::new());
        let (mut at, mut end) = (0, 0);
        loop {
            let (used, found) = socket.poll(&input[at..end], &mut out);
            at += used;
            match found {
                Found::Payload(payload) => text.extend_from_slice(&payload),
                Found::MessageEnd => text.push(b'\n'),
                Found::Control => {}
                Found::NeedMore if end == input.len() => return (text, out, false),
                Found::NeedMore => end = input.len().min(end + step),
                Found::Ended => return (text, out, true),
            }
        }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let long = vec![b'x'; 70_000];
        let input = [
            frame(FINAL | TEXT, b"one"),
            frame(TEXT, b"t"),
            frame(FINAL | PING, b"hi"),
            frame(CONTINUATION, b""),
            frame(FINAL | CONTINUATION, b"wo"),
            frame(FINAL | PONG, b"nobody asked"),
            frame(FINAL | BINARY, &[b'b'; 300]),
            frame(FINAL | TEXT, b""),
            frame(FINAL | TEXT, &long),
            frame(FINAL | CLOSE, b"\x03\xe8bye"),
            frame(FINAL | TEXT, b"not read"),
        ]
        .concat();
        let text = [b"one\ntwo\n", &[b'b'; 300][..], b"\n\n", &long, b"\n"].concat();
        for step in [1, 2, 3, 7, 1000, usize::MAX / 2] {
            let expected = (text.clone(), b"\x8a\x02hi\x88\x02\x03\xe8".to_vec(), true);
            assert!(heard(&input, step) == expected, "step {step}");
        }
    }

    /// Recorded from etcd 3.7.1.
    #[test]
    fn what_breaks_a_rule_is_told_in_the_words_of_etcds_library() {
        let mut unmasked = frame(FINAL | TEXT, b"x");
        unmasked[1] &= !MASKED;
        let huge = [&[FINAL | TEXT, MASKED | 127][..], &[0xff; 8]].concat();
        let cases: [(Vec<u8>, &[u8]); 15] = [
            (frame(FINAL | CLOSE, b""), b"\x88\x00"),
            (frame(FINAL | CLOSE, b"x"), b"\x88\x00"),
            (frame(FINAL | CLOSE, b"\x0f\xa0x"), b"\x88\x02\x0f\xa0"),
            (frame(FINAL | CLOSE, b"\x03\xed"), b"\x88\x15\x03\xeabad close code 1005"),
            (
                frame(FINAL | CLOSE, b"\x03\xe8\xff"),
                b"\x88\x25\x03\xeainvalid utf8 payload in close frame",
            ),
            (unmasked, b"\x88\x0a\x03\xeabad MASK"),
            (frame(FINAL | 0x40 | TEXT, b"x"), b"\x88\x0a\x03\xeaRSV1 set"),
            (frame(FINAL | 3, b"x"), b"\x88\x0e\x03\xeabad opcode 3"),
            (frame(FINAL | 11, b""), b"\x88\x0f\x03\xeabad opcode 11"),
            (frame(FINAL, b"x"), b"\x88\x18\x03\xeacontinuation after FIN"),
            (
                [frame(TEXT, b""), frame(FINAL | TEXT, b"x")].concat(),
                b"\x88\x11\x03\xeadata before FIN",
            ),
            (frame(FINAL | PING, &[0; 126]), b"\x88\x17\x03\xealen > 125 for control"),
            (frame(PING, b"x"), b"\x88\x18\x03\xeaFIN not set on control"),
            (
                frame(0x70 | PING, b""),
                b"\x88\x36\x03\xeaRSV1 set, RSV2 set, RSV3 set, FIN not set on control",
            ),
            (huge, b""),
        ];
        for (input, expected) in cases {
            let (text, out, is_over) = heard(&input, usize::MAX / 2);
            assert!(text.is_empty() && is_over, "{expected:?}");
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(expected));
        }
    }

    #[test]
    fn lines_are_messages_and_pieces_of_lines_fragments() {
        let (mut socket, mut out) = (WebSocket::default(), Vec::new());
        socket.put(&mut out, b"one\ntwo\n\nth");
        socket.put(&mut out, b"re");
        socket.put(&mut out, b"e\n");
        socket.put(&mut out, b"last");
        socket.end(&mut out);
        socket.end(&mut out);
        assert_eq!(out, b"\x81\x03one\x81\x03two\x81\x05three\x81\x04last");
        out.clear();
        let piece = vec![b'x'; FRAGMENT_BYTES];
        socket.put(&mut out, &piece);
        assert_eq!((out[0], out.len()), (TEXT, FRAGMENT_BYTES + 10));
        socket.put(&mut out, &piece);
        let rest = out.split_off(FRAGMENT_BYTES + 10);
        assert_eq!((rest[0], rest.len()), (CONTINUATION, FRAGMENT_BYTES + 10));
        out.clear();
        socket.put(&mut out, b"x\n");
        assert_eq!(out, b"\x80\x01x");
        for (len, head) in [
            (125, &b"\x81\x7d"[..]),
            (126, b"\x81\x7e\x00\x7e"),
            (65_535, b"\x81\x7e\xff\xff"),
            (65_536, b"\x81\x7f\0\0\0\0\0\x01\0\0"),
        ] {
            out.clear();
            let line = [vec![b'x'; len], vec![b'\n']].concat();
            WebSocket::default().put(&mut out, &line);
            assert!(out.starts_with(head) && out.len() == head.len() + len, "{len}");
        }
    }

    #[test]
    fn no_bytes_break_it() {
        for seed in 0..5_000u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut input = Vec::new();
            for _ in 0..state % 60 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                match state >> 8 & 7 {
                    0 => input.extend_from_slice(&state.to_be_bytes()),
                    kind => input.extend(frame(FINAL | kind.to_le_bytes()[0], b"payload")),
                }
            }
            let (whole, cut) = (heard(&input, usize::MAX / 2), heard(&input, 1));
            assert!(whole == cut, "seed {seed}");
        }
    }
}
