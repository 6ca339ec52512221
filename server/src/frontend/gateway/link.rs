//! The gateway's own gRPC client: one call at a time, over an HTTP/2 connection that is a buffer.
//!
//! The other end is a [`grpc::Connection`](crate::frontend::grpc::Connection), the very type that
//! serves sockets. So a JSON call is what it is in etcd, a gRPC call by another name: the same
//! limits, texts, time-outs and flow control, and nothing else in the server knows of JSON.
//!
//! Invariants:
//! - What is sent respects the windows that the other end opened.
//! - Room is given back only by [`Link::release`], so that what the other end may have us hold is
//!   [`WINDOW_BYTES`] beyond what the owner has taken in.
//! - The other end is our own code: a frame that it may not send is a bug, and asserted.

use std::collections::VecDeque;

use super::super::http2::ErrorCode;
use super::super::http2::frame::{
    FrameHead, FrameKind, HEAD_BYTES, PREFACE, flag, put_head, put_ping, put_reset,
    put_window_update,
};
use super::super::http2::hpack::decoder::Decoder;
use super::super::http2::settings::{id, put_setting};
use super::call::LATE;

/// The window of a call: how far its answers may run ahead of the client that reads them.
const WINDOW_BYTES: u32 = 1 << 20;
const WINDOW_DEFAULT: i64 = 65_535;
/// So the connection's own window never binds: it has one call at a time.
const CONNECTION_WINDOW_BYTES: u32 = 0x7fff_ffff;
const FRAME_BYTES_MAX: usize = 16_384;
const HEADER_TABLE_BYTES: usize = 4096;
const PREFIX_BYTES: usize = 5;
/// Streams are numbered upwards; who has come so far is to begin a new connection.
const STREAM_ID_MAX: u32 = 0x4000_0000;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// gRPC's code.
    pub code: u8,
    /// The text.
    pub message: String,
}

/// Something that a call brought.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The answer begins.
    Headers,
    /// A message.
    Message(Vec<u8>),
    /// The call is over.
    Ended(Ended),
}

#[derive(Debug)]
struct Call {
    id: u32,
    /// Of our requests, what the windows did not allow yet.
    unsent: VecDeque<u8>,
    window: i64,
    wants_end: bool,
    /// We have sent all.
    is_closed: bool,
    has_headers: bool,
    /// What has come of the five bytes before a message.
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// The message behind them, as far as it has come.
    gathered: Vec<u8>,
    /// Bytes taken in for which no room was given back.
    unreleased: u32,
}

/// The client's end.
#[derive(Debug)]
pub struct Link {
    decoder: Decoder,
    input: Vec<u8>,
    output: Vec<u8>,
    block: Vec<u8>,
    window: i64,
    window_initial: i64,
    connection_unreleased: u32,
    next_id: u32,
    call: Option<Call>,
    events: VecDeque<LinkEvent>,
}

impl Default for Link {
    fn default() -> Self {
        let mut output = PREFACE.to_vec();
        let mut payload = Vec::new();
        put_setting(&mut payload, id::INITIAL_WINDOW_SIZE, WINDOW_BYTES);
        put_head(&mut output, FrameKind::Settings, 0, 0, payload.len());
        output.extend_from_slice(&payload);
        put_window_update(&mut output, 0, CONNECTION_WINDOW_BYTES - 65_535);
        Self {
            decoder: Decoder::new(HEADER_TABLE_BYTES),
            input: Vec::new(),
            output,
            block: Vec::new(),
            window: WINDOW_DEFAULT,
            window_initial: WINDOW_DEFAULT,
            connection_unreleased: 0,
            next_id: 1,
            call: None,
            events: VecDeque::new(),
        }
    }
}

impl Link {
    /// Begins a call. `fields` are the metadata, names in lower case.
    pub fn begin(&mut self, path: &str, fields: &[(&str, &[u8])]) {
        assert!(self.call.is_none(), "one call at a time");
        let id = self.next_id;
        self.next_id += 2;
        let mut block = Vec::new();
        let usual: [(&str, &[u8]); 6] = [
            (":method", b"POST"),
            (":scheme", b"http"),
            (":path", path.as_bytes()),
            (":authority", b"gateway"),
            ("content-type", b"application/grpc"),
            ("te", b"trailers"),
        ];
        for (name, value) in usual.iter().chain(fields) {
            // Never indexed: a token has no place in a table.
            block.push(0x10);
            put_literal(&mut block, name.as_bytes());
            put_literal(&mut block, value);
        }
        let mut kind = FrameKind::Headers;
        let mut pieces = block.chunks(FRAME_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
            put_head(&mut self.output, kind, flags, id, piece.len());
            self.output.extend_from_slice(piece);
            kind = FrameKind::Continuation;
        }
        self.call = Some(Call {
            id,
            unsent: VecDeque::new(),
            window: self.window_initial,
            wants_end: false,
            is_closed: false,
            has_headers: false,
            prefix: [0; PREFIX_BYTES],
            prefix_len: 0,
            gathered: Vec::new(),
            unreleased: 0,
        });
    }

    /// Sends a message of the call.
    pub fn send(&mut self, message: &[u8]) {
        let Some(call) = &mut self.call else { return };
        assert!(!call.wants_end, "a message behind the last");
        let size = u32::try_from(message.len()).expect("requests are bounded far below");
        call.unsent.push_back(0);
        call.unsent.extend(size.to_be_bytes());
        call.unsent.extend(message);
        self.send_unsent();
    }

    /// No further messages are sent.
    pub fn close_send(&mut self) {
        if let Some(call) = &mut self.call {
            call.wants_end = true;
            self.send_unsent();
        }
    }

    /// Gives the call up.
    pub fn cancel(&mut self) {
        if let Some(call) = self.call.take() {
            put_reset(&mut self.output, call.id, ErrorCode::Cancel);
        }
        self.events.clear();
    }

    /// Gives the call up because its client is gone: it ends as etcd's gateway has it then.
    pub fn give_up(&mut self) {
        if let Some(call) = self.call.take() {
            put_reset(&mut self.output, call.id, ErrorCode::Cancel);
            let message = "context canceled".to_owned();
            self.events.push_back(LinkEvent::Ended(Ended { code: 1, message }));
        }
    }

    /// Whether a further call may begin.
    #[must_use]
    pub fn has_ids(&self) -> bool {
        self.next_id < STREAM_ID_MAX
    }

    /// Bytes of requests that wait for the other end.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.call.as_ref().map_or(0, |call| call.unsent.len())
    }

    /// Bytes of answers that are held here.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let gathered = self.call.as_ref().map_or(0, |call| call.gathered.len());
        let waiting = self.events.iter().map(|event| match event {
            LinkEvent::Message(message) => message.len(),
            LinkEvent::Headers | LinkEvent::Ended(_) => 0,
        });
        gathered + waiting.sum::<usize>()
    }

    /// Whether there is something for the other end to read.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// What the other end is to read.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What the call brought next.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// The owner has room: the other end may send as much again as it has sent.
    pub fn release(&mut self) {
        if let Some(call) = &mut self.call {
            // Half a window at a time, so that a stream of small messages costs few updates.
            if call.unreleased >= WINDOW_BYTES / 2 {
                put_window_update(&mut self.output, call.id, call.unreleased);
                call.unreleased = 0;
            }
        }
        if self.connection_unreleased >= CONNECTION_WINDOW_BYTES / 2 {
            put_window_update(&mut self.output, 0, self.connection_unreleased);
            self.connection_unreleased = 0;
        }
    }

    /// The other end wrote something.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::parse(*head);
            let Some((payload, behind)) = behind.split_at_checked(head.length) else { break };
            self.handle_frame(head, payload);
            rest = behind;
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        self.input = input;
    }

    fn handle_frame(&mut self, head: FrameHead, payload: &[u8]) {
        let is_ours = self.call.as_ref().is_some_and(|call| call.id == head.stream);
        match head.kind {
            FrameKind::Headers | FrameKind::Continuation => {
                self.block.extend_from_slice(payload);
                if head.has(flag::END_HEADERS) {
                    // END_STREAM stands on the first frame; blocks of ours that end a stream are
                    // recognised by their status instead.
                    self.handle_block(is_ours);
                }
            }
            FrameKind::Data => {
                let size = u32::try_from(payload.len()).expect("a frame is small");
                self.connection_unreleased += size;
                if is_ours {
                    self.handle_data(payload, size);
                }
            }
            FrameKind::ResetStream if is_ours => {
                let code: [u8; 4] = payload.try_into().expect("a reset has a code");
                self.handle_reset(u32::from_be_bytes(code));
            }
            FrameKind::Settings if !head.has(flag::ACK) => self.handle_settings(payload),
            FrameKind::Ping if !head.has(flag::ACK) => {
                let opaque = payload.try_into().expect("a ping has eight bytes");
                put_ping(&mut self.output, flag::ACK, opaque);
            }
            FrameKind::WindowUpdate => {
                let increment: [u8; 4] = payload.try_into().expect("an update has a size");
                let increment = i64::from(u32::from_be_bytes(increment));
                match &mut self.call {
                    _ if head.stream == 0 => self.window += increment,
                    Some(call) if is_ours => call.window += increment,
                    _ => {}
                }
                self.send_unsent();
            }
            FrameKind::GoAway => self.handle_go_away(payload),
            _ => {}
        }
    }

    /// The owner begins no further call. One that is under way is served to its end, unless the
    /// other end found a rule broken: from then on it says nothing.
    fn handle_go_away(&mut self, payload: &[u8]) {
        self.next_id = STREAM_ID_MAX;
        let code = payload.get(4..8).expect("a farewell has a code");
        if code != [0; 4] && self.call.is_some() {
            let text = String::from_utf8_lossy(&payload[8..]);
            let message = format!("the connection to the services was closed: {text}");
            self.end(Ended { code: 14, message });
        }
    }

    fn handle_settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let key = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            if key == id::INITIAL_WINDOW_SIZE {
                let difference = i64::from(value) - self.window_initial;
                self.window_initial += difference;
                if let Some(call) = &mut self.call {
                    call.window += difference;
                }
            }
        }
        put_head(&mut self.output, FrameKind::Settings, flag::ACK, 0, 0);
        self.send_unsent();
    }

    fn handle_block(&mut self, is_ours: bool) {
        let block = std::mem::take(&mut self.block);
        let (mut code, mut message) = (None, Vec::new());
        // The table is the connection's: a block of a call that was given up counts as well.
        let decoded = self.decoder.decode(&block, |name, value| match name {
            b"grpc-status" => code = str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            b"grpc-message" => message = value.to_vec(),
            _ => {}
        });
        assert!(decoded.is_ok(), "our own encoder wrote this block");
        let Some(call) = self.call.as_mut().filter(|_| is_ours) else { return };
        // A block that is headers and trailers at once has no headers to tell of.
        if code.is_none() && !std::mem::replace(&mut call.has_headers, true) {
            self.events.push_back(LinkEvent::Headers);
        }
        if let Some(code) = code {
            let message = String::from_utf8_lossy(&percent_decoded(&message)).into_owned();
            self.end(Ended { code, message });
        }
    }

    fn handle_data(&mut self, payload: &[u8], size: u32) {
        let call = self.call.as_mut().expect("the caller looked at it");
        call.unreleased += size;
        let mut rest = payload;
        // A message without bytes is whole with its prefix.
        while !rest.is_empty() {
            let take = rest.len().min(PREFIX_BYTES - call.prefix_len);
            call.prefix[call.prefix_len..call.prefix_len + take].copy_from_slice(&rest[..take]);
            call.prefix_len += take;
            rest = &rest[take..];
            if call.prefix_len < PREFIX_BYTES {
                return;
            }
            let [_, size @ ..] = call.prefix;
            let size = usize::try_from(u32::from_be_bytes(size)).expect("32 bits fit");
            let missing = size - call.gathered.len();
            let take = rest.len().min(missing);
            // Room for all of it at once: a large answer is not copied again as it grows. What is
            // reserved and not yet written takes no memory.
            call.gathered.reserve_exact(missing);
            call.gathered.extend_from_slice(&rest[..take]);
            rest = &rest[take..];
            if take == missing {
                call.prefix_len = 0;
                self.events.push_back(LinkEvent::Message(std::mem::take(&mut call.gathered)));
            }
        }
    }

    /// A call that is reset before it has a status: it has taken longer than it was given, or is
    /// what the other end made of an error on the wire. Behind a status there is no call any more.
    fn handle_reset(&mut self, code: u32) {
        if code == ErrorCode::Cancel.to_wire() {
            let (code, message) = LATE;
            return self.end(Ended { code, message: message.to_owned() });
        }
        let message = format!("stream terminated by RST_STREAM with error code: {code}");
        self.end(Ended { code: 13, message });
    }

    fn end(&mut self, ended: Ended) {
        // Nothing is said to the other end: it forgets a stream with the status that it sends.
        self.call = None;
        self.events.push_back(LinkEvent::Ended(ended));
    }

    fn send_unsent(&mut self) {
        let Some(call) = &mut self.call else { return };
        if call.is_closed {
            return;
        }
        loop {
            let room = usize::try_from(call.window.min(self.window)).unwrap_or(0);
            let size = call.unsent.len().min(room).min(FRAME_BYTES_MAX);
            let is_last = call.wants_end && size == call.unsent.len();
            if size == 0 && !is_last {
                return;
            }
            let flags = if is_last { flag::END_STREAM } else { 0 };
            put_head(&mut self.output, FrameKind::Data, flags, call.id, size);
            self.output.extend(call.unsent.drain(..size));
            let sent = i64::try_from(size).expect("a frame is small");
            call.window -= sent;
            self.window -= sent;
            if is_last {
                call.is_closed = true;
                return;
            }
        }
    }
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
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digit = |place: usize| text.get(place).and_then(|byte| char::from(*byte).to_digit(16));
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).expect("two digits are a byte"));
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
pub(in crate::frontend::gateway) mod tests;
