//! One gRPC call to another program, as bytes in and out.
//!
//! The gateway's own client speaks to a server that is our own code, and asserts what that sends;
//! this one speaks to whatever answers at a discovery endpoint. A connection carries one call and
//! ends with it, so there is one stream, whose number is 1.
//!
//! Invariants:
//! - What the other side sends is refused by value, whatever it is.
//! - Held is at most one message of [`MESSAGE_BYTES_MAX`], one frame and one header block.

use std::collections::VecDeque;

use crate::frontend::http2::frame::{
    FrameHead, FrameKind, HEAD_BYTES, PREFACE, flag, put_head, put_ping, put_window_update,
};
use crate::frontend::http2::hpack::HpackError;
use crate::frontend::http2::hpack::decoder::Decoder;

/// What one message may bring: what a cluster's members have registered is a few kilobytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// A request that goes out at once, within the window and the frame that any server allows.
pub const REQUEST_BYTES_MAX: usize = FRAME_BYTES_MAX - PREFIX_BYTES;
const FRAME_BYTES_MAX: usize = 16_384;
const BLOCK_BYTES_MAX: usize = 64 << 10;
const TABLE_BYTES: usize = 4096;
const PREFIX_BYTES: usize = 5;
const STREAM: u32 = 1;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// gRPC's code.
    pub code: u32,
    /// The text.
    pub message: String,
}

/// Something that a call brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEvent {
    /// A message.
    Message(Vec<u8>),
    /// The call is over.
    Ended(Ended),
}

/// The call.
#[derive(Debug)]
pub struct Call {
    decoder: Decoder,
    input: Vec<u8>,
    output: Vec<u8>,
    /// A header block that has not ended.
    block: Option<Vec<u8>>,
    /// Bytes of messages that are not whole.
    gathered: Vec<u8>,
    status: Option<Ended>,
    has_ended: bool,
    events: VecDeque<CallEvent>,
}

impl Call {
    /// Begins a call. With `is_last` the request is the only one, as in all calls but streams.
    #[must_use]
    pub fn new(
        authority: &str,
        path: &str,
        metadata: &[(&str, &str)],
        request: &[u8],
        is_last: bool,
    ) -> Self {
        assert!(request.len() <= REQUEST_BYTES_MAX, "the caller has looked at its size");
        let mut output = PREFACE.to_vec();
        put_head(&mut output, FrameKind::Settings, 0, 0, 0);
        let mut block = Vec::new();
        let usual = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("user-agent", "ringd"),
            ("te", "trailers"),
        ];
        for (name, value) in usual.iter().chain(metadata) {
            // Never indexed: a token has no place in a table.
            block.push(0x10);
            put_literal(&mut block, name.as_bytes());
            put_literal(&mut block, value.as_bytes());
        }
        let mut kind = FrameKind::Headers;
        let mut pieces = block.chunks(FRAME_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
            put_head(&mut output, kind, flags, STREAM, piece.len());
            output.extend_from_slice(piece);
            kind = FrameKind::Continuation;
        }
        let flags = if is_last { flag::END_STREAM } else { 0 };
        put_head(&mut output, FrameKind::Data, flags, STREAM, PREFIX_BYTES + request.len());
        output.push(0);
        let size = u32::try_from(request.len()).expect("it was bounded above");
        output.extend_from_slice(&size.to_be_bytes());
        output.extend_from_slice(request);
        Self {
            decoder: Decoder::new(TABLE_BYTES),
            input: Vec::new(),
            output,
            block: None,
            gathered: Vec::new(),
            status: None,
            has_ended: false,
            events: VecDeque::new(),
        }
    }

    /// What is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// What the call brought next.
    pub fn poll_event(&mut self) -> Option<CallEvent> {
        self.events.pop_front()
    }

    /// The other side sent something.
    ///
    /// # Errors
    /// It does not keep to the protocol: the connection is at its end.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::parse(*head);
            if head.length > FRAME_BYTES_MAX {
                return Err("a frame is too large");
            }
            let Some((payload, behind)) = behind.split_at_checked(head.length) else { break };
            self.handle_frame(head, payload)?;
            rest = behind;
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        self.input = input;
        Ok(())
    }

    fn handle_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), &'static str> {
        if self.block.is_some() && head.kind != FrameKind::Continuation {
            return Err("a header block is interrupted");
        }
        match head.kind {
            FrameKind::Headers => {
                let mut block = unpadded(head, payload)?;
                if head.has(flag::PRIORITY) {
                    block = block.get(5..).ok_or("a HEADERS frame is too short")?;
                }
                self.handle_block_part(Vec::new(), block, head)?;
            }
            FrameKind::Continuation => {
                let block = self.block.take().ok_or("a continuation of nothing")?;
                self.handle_block_part(block, payload, head)?;
            }
            FrameKind::Data => self.handle_data(head, payload)?,
            FrameKind::Settings if !head.has(flag::ACK) => {
                put_head(&mut self.output, FrameKind::Settings, flag::ACK, 0, 0);
            }
            FrameKind::Ping if !head.has(flag::ACK) => {
                let opaque = payload.try_into().map_err(|_| "a ping of a wrong size")?;
                put_ping(&mut self.output, flag::ACK, opaque);
            }
            FrameKind::ResetStream if head.stream == STREAM => {
                let code: [u8; 4] = payload.try_into().map_err(|_| "a reset of a wrong size")?;
                let code = u32::from_be_bytes(code);
                let message = format!("stream terminated by RST_STREAM with error code: {code}");
                self.end(Ended { code: 13, message });
            }
            FrameKind::GoAway => {
                let last = payload.first_chunk::<4>().ok_or("a GOAWAY is too short")?;
                let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
                if last < STREAM {
                    let message = "the server takes no further calls".to_owned();
                    self.end(Ended { code: 14, message });
                }
            }
            FrameKind::PushPromise => return Err("a promise that nobody asked for"),
            _ => {}
        }
        let is_of_call = matches!(head.kind, FrameKind::Headers | FrameKind::Data);
        if is_of_call && head.stream == STREAM && head.has(flag::END_STREAM) {
            // A block that is still open ends the stream when it ends.
            self.has_ended = true;
            if self.block.is_none() {
                self.end_of_stream();
            }
        }
        Ok(())
    }

    fn handle_block_part(
        &mut self,
        mut block: Vec<u8>,
        part: &[u8],
        head: FrameHead,
    ) -> Result<(), &'static str> {
        block.extend_from_slice(part);
        if block.len() > BLOCK_BYTES_MAX {
            return Err("a header block is too long");
        }
        if !head.has(flag::END_HEADERS) {
            self.block = Some(block);
            return Ok(());
        }
        let (mut code, mut message, mut http) = (None, Vec::new(), None);
        let number = |value: &[u8]| str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        let decoded = self.decoder.decode(&block, |name, value| match name {
            b"grpc-status" => code = Some(number(value).unwrap_or(2)),
            b"grpc-message" => message = value.to_vec(),
            b":status" => http = number(value),
            _ => {}
        });
        decoded.map_err(HpackError::text)?;
        if head.stream != STREAM {
            return Ok(());
        }
        if let Some(code) = code {
            let message = percent_decoded(&message);
            self.status = Some(Ended { code, message });
        } else if let Some(http @ 300..) = http {
            let message = format!("unexpected HTTP status code received from server: {http}");
            self.status = Some(Ended { code: 14, message });
        }
        if self.has_ended {
            self.end_of_stream();
        }
        Ok(())
    }

    fn handle_data(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), &'static str> {
        let data = unpadded(head, payload)?;
        // All of it may be sent again: padding counts for windows as well.
        if let Ok(size @ 1..) = u32::try_from(payload.len()) {
            put_window_update(&mut self.output, 0, size);
            put_window_update(&mut self.output, STREAM, size);
        }
        if head.stream != STREAM {
            return Ok(());
        }
        self.gathered.extend_from_slice(data);
        while let Some((prefix, rest)) = self.gathered.split_first_chunk::<PREFIX_BYTES>() {
            let [compressed, size @ ..] = *prefix;
            if compressed != 0 {
                return Err("a message is compressed, which was not asked for");
            }
            let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
            if size > MESSAGE_BYTES_MAX {
                return Err("a message is too large");
            }
            let Some(message) = rest.get(..size) else { break };
            self.events.push_back(CallEvent::Message(message.to_vec()));
            self.gathered.drain(..PREFIX_BYTES + size);
        }
        Ok(())
    }

    fn end_of_stream(&mut self) {
        let missing = || Ended {
            code: 13,
            message: "server closed the stream without sending trailers".to_owned(),
        };
        let status = self.status.take().unwrap_or_else(missing);
        self.end(status);
    }

    fn end(&mut self, ended: Ended) {
        let is_over = |event: &CallEvent| matches!(event, CallEvent::Ended(_));
        if !self.events.iter().any(is_over) {
            self.events.push_back(CallEvent::Ended(ended));
        }
    }
}

fn unpadded(head: FrameHead, payload: &[u8]) -> Result<&[u8], &'static str> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (pad, rest) = payload.split_first().ok_or("a padded frame is empty")?;
    let len = rest.len().checked_sub(usize::from(*pad));
    Ok(&rest[..len.ok_or("a frame has more padding than bytes")?])
}

/// A string literal of HPACK, not compressed.
fn put_literal(block: &mut Vec<u8>, bytes: &[u8]) {
    let mut len = bytes.len();
    if len < 0x7f {
        block.push(len.to_le_bytes()[0]);
    } else {
        block.push(0x7f);
        len -= 0x7f;
        while len >= 0x80 {
            block.push(len.to_le_bytes()[0] | 0x80);
            len >>= 7;
        }
        block.push(len.to_le_bytes()[0]);
    }
    block.extend_from_slice(bytes);
}

/// The text of a `grpc-message`; a broken escape stands for itself.
fn percent_decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let (b'%', Some(byte)) = (first, escaped) {
            out.push(byte);
            rest = &behind[2..];
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call::new("a:1", "/x/Y", &[], b"request", true)
    }

    fn frame(kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_head(&mut bytes, kind, flags, stream, payload.len());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut block = vec![0x10];
        put_literal(&mut block, name.as_bytes());
        put_literal(&mut block, value.as_bytes());
        block
    }

    fn answer() -> Vec<u8> {
        let mut bytes = frame(FrameKind::Settings, 0, 0, &[]);
        bytes.extend(frame(FrameKind::Headers, flag::END_HEADERS, 1, &literal(":status", "200")));
        bytes.extend(frame(FrameKind::Data, 0, 1, b"\0\0\0\0\x03abc\0\0\0\0\x02d"));
        bytes.extend(frame(FrameKind::Ping, 0, 0, &[7; 8]));
        bytes.extend(frame(FrameKind::Data, flag::PADDED, 1, b"\x01e\0"));
        let trailers = [literal("grpc-status", "5"), literal("grpc-message", "a%20b%zz")].concat();
        let (first, second) = trailers.split_at(9);
        bytes.extend(frame(FrameKind::Headers, flag::END_STREAM, 1, first));
        bytes.extend(frame(FrameKind::Continuation, flag::END_HEADERS, 1, second));
        bytes
    }

    fn events(call: &mut Call) -> Vec<CallEvent> {
        std::iter::from_fn(|| call.poll_event()).collect()
    }

    #[test]
    fn a_call_is_answered_however_the_bytes_are_cut() {
        let bytes = answer();
        let ended = Ended { code: 5, message: "a b%zz".to_owned() };
        let expected = [
            CallEvent::Message(b"abc".to_vec()),
            CallEvent::Message(b"de".to_vec()),
            CallEvent::Ended(ended),
        ];
        for cut in 0..=bytes.len() {
            let mut call = call();
            assert!(call.take_output().starts_with(PREFACE));
            call.handle_bytes(&bytes[..cut]).unwrap();
            call.handle_bytes(&bytes[cut..]).unwrap();
            assert_eq!(events(&mut call), expected, "{cut}");
            let output = call.take_output();
            // The settings and the ping are answered, the windows opened again.
            assert!(output.starts_with(&frame(FrameKind::Settings, flag::ACK, 0, &[])));
            let pong = frame(FrameKind::Ping, flag::ACK, 0, &[7; 8]);
            assert!(output.windows(pong.len()).any(|window| window == pong));
            assert!(output.iter().filter(|byte| **byte == 8).count() >= 4);
        }
    }

    #[test]
    fn ends_without_a_status_have_one() {
        let end_data = frame(FrameKind::Data, flag::END_STREAM, 1, &[]);
        let headers = |block: &[u8]| {
            frame(FrameKind::Headers, flag::END_HEADERS | flag::END_STREAM, 1, block)
        };
        for (bytes, code) in [
            (end_data, 13),
            (headers(&literal(":status", "404")), 14),
            (headers(&literal("grpc-status", "junk")), 2),
            (frame(FrameKind::ResetStream, 0, 1, &[0, 0, 0, 8]), 13),
            (frame(FrameKind::GoAway, 0, 0, &[0; 8]), 14),
        ] {
            let mut call = call();
            call.handle_bytes(&bytes).unwrap();
            let events = events(&mut call);
            assert!(matches!(&events[..], [CallEvent::Ended(ended)] if ended.code == code));
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let mut huge = frame(FrameKind::Data, 0, 1, b"");
        huge[0] = 1;
        let long = [0, 0xff, 0xff, 0xff, 0xff];
        for bytes in [
            huge,
            frame(FrameKind::Data, 0, 1, &long),
            frame(FrameKind::Data, 0, 1, b"\x01\0\0\0\0"),
            frame(FrameKind::Data, flag::PADDED, 1, b"\x05"),
            frame(FrameKind::Data, flag::PADDED, 1, b""),
            frame(FrameKind::Continuation, flag::END_HEADERS, 1, b""),
            frame(FrameKind::Headers, flag::END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff]),
            frame(FrameKind::Headers, flag::END_HEADERS | flag::PRIORITY, 1, b"abc"),
            frame(FrameKind::PushPromise, 0, 1, b"abcd"),
            frame(FrameKind::Ping, 0, 0, b"abc"),
            frame(FrameKind::GoAway, 0, 0, b"abc"),
            [frame(FrameKind::Headers, 0, 1, b""), frame(FrameKind::Data, 0, 1, b"")].concat(),
        ] {
            assert!(call().handle_bytes(&bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn no_flip_panics() {
        let bytes = answer();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let _ = call().handle_bytes(&flipped);
            }
        }
    }
}
