//! One gRPC connection over cleartext HTTP/2, as a client, without a socket.
//!
//! The owner reads from the socket into [`Connection::receive_space`], says how much came with
//! [`Connection::handle_received`], takes the events out with [`Connection::poll_event`] until
//! there are none, and writes [`Connection::output`] to the socket. A stream is known to the owner
//! by a slot, a number of its own choice that comes back with every event.
//!
//! Answers cost no allocation when a message arrives whole in one frame and the header block has
//! been seen before, which is the case for nearly all of them.
//!
//! Invariants:
//! - Stream ids only grow. A stream lives at `id / 2` modulo the table's size; an id whose place is
//!   still taken by a long-lived stream is skipped, which RFC 9113 allows.
//! - DATA never exceeds the peer's windows; what does not fit waits in `blocked`, in order.
//! - Every stream that was opened ends with exactly one `Ended`, whatever the peer does.

pub mod blocking;
pub mod frames;
pub mod hpack;

use std::collections::VecDeque;
use std::ops::Range;

use crate::failure::Failure;
use frames::{FRAME_HEADER_BYTES, FRAME_SIZE_BYTES_MAX, FrameHeader, flag, kind, setting};
pub use hpack::HeaderStyle;
use hpack::{Decoder, Encoder};

/// One read takes at most this: large enough that a thousand small answers come in one call.
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;
/// A read into less than this would cut large answers into many calls.
const RECEIVE_SPACE_BYTES_MIN: usize = 64 * 1024;
/// What we allow the server to send unacknowledged, on each stream and on the connection: so much
/// that the client's window is never what is measured.
const RECEIVE_WINDOW_BYTES: u32 = 1 << 30;
/// RFC 9113's initial value of every window.
const WINDOW_BYTES_DEFAULT: i64 = 65_535;
const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;
/// A header block of an answer beyond this is refused.
const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// An answer of a message beyond this is refused; the largest that a page of a list may reach.
const MESSAGE_BYTES_MAX: usize = 512 * 1024 * 1024;
const MESSAGE_PREFIX_BYTES: usize = 5;
/// Header blocks remembered: answers and trailers, each at most twice while the table settles.
const MEMOS_MAX: usize = 4;

/// gRPC status codes that the harness tells apart; the last two the client itself gives out too.
pub mod code {
    /// The call succeeded.
    pub const OK: u32 = 0;
    /// There is no such lease.
    pub const NOT_FOUND: u32 = 5;
    /// The revision is compacted, or in the future.
    pub const OUT_OF_RANGE: u32 = 11;
    /// The server does not know the call.
    pub const UNIMPLEMENTED: u32 = 12;
    /// The peer broke the protocol on this stream.
    pub const INTERNAL: u32 = 13;
    /// The stream or the connection was ended by the server or the network.
    pub const UNAVAILABLE: u32 = 14;
}

/// What an answer has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message has arrived.
    Message {
        /// The owner's number of the stream.
        slot: u32,
        /// The protobuf message.
        payload: &'a [u8],
    },
    /// The stream is over.
    Ended {
        /// The owner's number of the stream.
        slot: u32,
        /// The gRPC status code.
        code: u32,
        /// The gRPC status message.
        message: &'a str,
    },
}

/// The client's half of a connection.
pub struct Connection {
    received: Vec<u8>,
    received_start: usize,
    received_end: usize,
    output: Vec<u8>,
    output_sent: usize,
    decoder: Decoder,
    encoder: Encoder,
    memos: Vec<Memo>,
    streams: Vec<Stream>,
    active_count: usize,
    active_count_max: usize,
    next_id: u32,
    send_window: i64,
    send_window_initial: i64,
    received_unacknowledged: u32,
    blocked: VecDeque<Blocked>,
    /// A header block whose CONTINUATION has not come yet.
    unfinished: Option<(FrameHeader, Vec<u8>)>,
    /// The DATA payload whose messages are being handed out.
    current: Option<(usize, Range<usize>)>,
    /// The stream whose `partial` was handed out and is to be cleared.
    consumed: Option<usize>,
    /// Streams that ended without an answer of their own.
    aborted: VecDeque<(u32, String)>,
    status_message: String,
    closing: bool,
    scratch: Vec<u8>,
}

/// A stream, or a free place when `id` is 0.
#[derive(Default)]
struct Stream {
    id: u32,
    slot: u32,
    send_window: i64,
    received_unacknowledged: u32,
    /// The beginning of a message whose rest has not come yet.
    partial: Vec<u8>,
    http_status: Option<u32>,
    /// Everything has been received; ends once the messages are handed out.
    ended: bool,
}

/// Bytes of DATA that wait for the peer's window.
struct Blocked {
    id: u32,
    bytes: Vec<u8>,
    sent: usize,
    end: bool,
}

/// What the header blocks of answers say to us.
#[derive(Clone, Copy, Default)]
struct Fields {
    http_status: Option<u32>,
    grpc_status: Option<u32>,
}

/// A header block that was decoded before, and when.
struct Memo {
    block: Vec<u8>,
    changes: u64,
    fields: Fields,
}

/// What one frame, or one message of it, has led to.
enum Step {
    Idle,
    Again,
    MessageReceived(usize, Range<usize>),
    MessagePartial(usize),
    Ended { slot: u32, code: u32 },
}

impl Connection {
    /// A connection to `authority` on which up to `streams` are open at a time.
    pub fn new(authority: &str, style: HeaderStyle, streams: usize) -> Self {
        let mut output = frames::PREFACE.to_vec();
        let settings =
            [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, RECEIVE_WINDOW_BYTES)];
        frames::write_settings(&mut output, &settings);
        frames::write_window_update(&mut output, 0, RECEIVE_WINDOW_BYTES - 65_535);
        // Twice as many places as streams: with a few long-lived ones, ids are rarely skipped.
        let places = (streams.max(1) * 2).next_power_of_two();
        Self {
            received: vec![0; RECEIVE_BUFFER_BYTES],
            received_start: 0,
            received_end: 0,
            output,
            output_sent: 0,
            decoder: Decoder::new(),
            encoder: Encoder::new(style, authority),
            memos: Vec::new(),
            streams: std::iter::repeat_with(Stream::default).take(places).collect(),
            active_count: 0,
            active_count_max: usize::MAX,
            next_id: 1,
            send_window: WINDOW_BYTES_DEFAULT,
            send_window_initial: WINDOW_BYTES_DEFAULT,
            received_unacknowledged: 0,
            blocked: VecDeque::new(),
            unfinished: None,
            current: None,
            consumed: None,
            aborted: VecDeque::new(),
            status_message: String::new(),
            closing: false,
            scratch: Vec::new(),
        }
    }

    /// Opens a stream, sends its first message and, for a unary call, closes our half.
    pub fn open(
        &mut self,
        slot: u32,
        path: &'static str,
        message: &[u8],
        end: bool,
    ) -> Result<u32, Failure> {
        if self.closing {
            return Err(Failure::new("the server is closing the connection"));
        }
        let allowed = self.active_count_max.min(self.streams.len());
        if self.active_count >= allowed {
            return Err(Failure::new(format!("the server allows {allowed} streams at a time")));
        }
        while self.streams[self.place(self.next_id)].id != 0 {
            self.next_id += 2;
        }
        let id = self.next_id;
        if id > (1 << 31) - 3 * u32::try_from(self.streams.len()).expect("a table of streams") {
            return Err(Failure::new("the connection has used up its stream ids"));
        }
        self.next_id += 2;
        self.active_count += 1;
        let place = self.place(id);
        let send_window = self.send_window_initial;
        let stream = &mut self.streams[place];
        assert!(stream.partial.is_empty(), "a stream ended inside a message");
        let partial = std::mem::take(&mut stream.partial);
        *stream = Stream { id, slot, send_window, partial, ..Stream::default() };

        self.scratch.clear();
        self.encoder.write_request(path, &mut self.scratch);
        frames::write_frame(&mut self.output, kind::HEADERS, flag::END_HEADERS, id, &self.scratch);
        self.send_message(id, message, end);
        Ok(id)
    }

    /// Sends a message on an open stream.
    pub fn send_message(&mut self, id: u32, message: &[u8], end: bool) {
        let place = self.place(id);
        assert!(self.streams[place].id == id, "stream {id} is not open");
        let len = u32::try_from(message.len()).expect("a request is below 4 GiB");
        let mut prefix = [0; MESSAGE_PREFIX_BYTES];
        prefix[1..].copy_from_slice(&len.to_be_bytes());
        let total = MESSAGE_PREFIX_BYTES + message.len();
        let total_window = i64::try_from(total).expect("a request is below 4 GiB");
        let window = self.send_window.min(self.streams[place].send_window);
        if total <= FRAME_SIZE_BYTES_MAX && total_window <= window && self.blocked.is_empty() {
            let flags = if end { flag::END_STREAM } else { 0 };
            frames::write_header(&mut self.output, kind::DATA, flags, id, total);
            self.output.extend_from_slice(&prefix);
            self.output.extend_from_slice(message);
            self.send_window -= total_window;
            self.streams[place].send_window -= total_window;
            return;
        }
        let bytes = [prefix.as_slice(), message].concat();
        self.blocked.push_back(Blocked { id, bytes, sent: 0, end });
        self.send_blocked();
    }

    /// Where the next bytes from the socket go; call it only when there are no more events.
    pub fn receive_space(&mut self) -> &mut [u8] {
        assert!(self.current.is_none(), "events are still to be taken");
        if self.received_start == self.received_end {
            (self.received_start, self.received_end) = (0, 0);
        } else if self.received.len() - self.received_end < RECEIVE_SPACE_BYTES_MIN {
            self.received.copy_within(self.received_start..self.received_end, 0);
            self.received_end -= self.received_start;
            self.received_start = 0;
        }
        &mut self.received[self.received_end..]
    }

    /// So many bytes were put into the space.
    pub fn handle_received(&mut self, count: usize) {
        self.received_end += count;
        assert!(self.received_end <= self.received.len());
    }

    /// The connection is gone: every open stream ends.
    pub fn handle_closed(&mut self, reason: &str) {
        self.closing = true;
        self.blocked.clear();
        self.current = None;
        self.consumed = None;
        for place in 0..self.streams.len() {
            if self.streams[place].id != 0 {
                self.abort(place, reason);
            }
        }
    }

    /// The next event, or `None` when more bytes are needed.
    pub fn poll_event(&mut self) -> Result<Option<Event<'_>>, Failure> {
        loop {
            match self.step()? {
                Step::Idle => return Ok(None),
                Step::Again => {}
                Step::MessageReceived(place, range) => {
                    let slot = self.streams[place].slot;
                    return Ok(Some(Event::Message { slot, payload: &self.received[range] }));
                }
                Step::MessagePartial(place) => {
                    let Stream { slot, partial, .. } = &self.streams[place];
                    let payload = &partial[MESSAGE_PREFIX_BYTES..];
                    return Ok(Some(Event::Message { slot: *slot, payload }));
                }
                Step::Ended { slot, code } => {
                    let message = self.status_message.as_str();
                    return Ok(Some(Event::Ended { slot, code, message }));
                }
            }
        }
    }

    /// What is to be written to the socket.
    pub fn output(&self) -> &[u8] {
        &self.output[self.output_sent..]
    }

    /// So many bytes of the output were written.
    pub fn handle_sent(&mut self, count: usize) {
        self.output_sent += count;
        assert!(self.output_sent <= self.output.len());
        if self.output_sent == self.output.len() {
            self.output.clear();
            self.output_sent = 0;
        }
    }

    fn place(&self, id: u32) -> usize {
        usize::try_from(id / 2).expect("an id has 31 bits") & (self.streams.len() - 1)
    }

    /// The place of an open stream.
    fn find(&self, id: u32) -> Option<usize> {
        let place = self.place(id);
        (id != 0 && self.streams[place].id == id).then_some(place)
    }

    fn step(&mut self) -> Result<Step, Failure> {
        if let Some(place) = self.consumed.take() {
            self.streams[place].partial.clear();
        }
        if let Some((place, range)) = self.current.take() {
            return self.step_data(place, range);
        }
        if let Some((slot, reason)) = self.aborted.pop_front() {
            self.status_message = reason;
            return Ok(Step::Ended { slot, code: code::UNAVAILABLE });
        }
        let bytes = &self.received[self.received_start..self.received_end];
        let Some(header) = FrameHeader::parse(bytes) else { return Ok(Step::Idle) };
        let len = usize::try_from(header.len).expect("24 bits");
        if len > FRAME_SIZE_BYTES_MAX {
            return Err(Failure::new(format!("the server sent a frame of {len} bytes")));
        }
        if bytes.len() < FRAME_HEADER_BYTES + len {
            return Ok(Step::Idle);
        }
        let start = self.received_start + FRAME_HEADER_BYTES;
        self.received_start = start + len;
        self.handle_frame(header, start..start + len)
    }

    fn handle_frame(&mut self, header: FrameHeader, range: Range<usize>) -> Result<Step, Failure> {
        if self.unfinished.is_some() && header.kind != kind::CONTINUATION {
            return Err(Failure::new("the server interrupted a header block"));
        }
        match header.kind {
            kind::DATA => self.handle_data(header, range),
            kind::HEADERS => {
                let inner = frames::unpadded(header, &self.received[range.clone()])
                    .ok_or_else(|| Failure::new("the server padded HEADERS beyond their end"))?;
                let range = range.start + inner.start..range.start + inner.end;
                if header.has(flag::END_HEADERS) {
                    return self.handle_headers(header, None, range);
                }
                self.unfinished = Some((header, self.received[range].to_vec()));
                Ok(Step::Again)
            }
            kind::CONTINUATION => {
                let Some((first, mut block)) = self.unfinished.take() else {
                    return Err(Failure::new("the server continued no header block"));
                };
                block.extend_from_slice(&self.received[range.clone()]);
                if first.stream_id != header.stream_id || block.len() > HEADER_BLOCK_BYTES_MAX {
                    return Err(Failure::new("the server sent a header block that cannot be"));
                }
                if header.has(flag::END_HEADERS) {
                    return self.handle_headers(first, Some(&block), 0..0);
                }
                self.unfinished = Some((first, block));
                Ok(Step::Again)
            }
            kind::PUSH_PROMISE => Err(Failure::new("the server pushed although that is off")),
            _ => self.handle_control(header, range),
        }
    }

    fn handle_data(&mut self, header: FrameHeader, range: Range<usize>) -> Result<Step, Failure> {
        let len = header.len;
        self.received_unacknowledged += len;
        if self.received_unacknowledged > RECEIVE_WINDOW_BYTES / 2 {
            frames::write_window_update(&mut self.output, 0, self.received_unacknowledged);
            self.received_unacknowledged = 0;
        }
        let inner = frames::unpadded(header, &self.received[range.clone()])
            .ok_or_else(|| Failure::new("the server padded DATA beyond its end"))?;
        let Some(place) = self.find(header.stream_id) else { return Ok(Step::Again) };
        let stream = &mut self.streams[place];
        stream.received_unacknowledged += len;
        stream.ended = header.has(flag::END_STREAM);
        if !stream.ended && stream.received_unacknowledged > RECEIVE_WINDOW_BYTES / 2 {
            let increment = std::mem::take(&mut stream.received_unacknowledged);
            frames::write_window_update(&mut self.output, stream.id, increment);
        }
        self.step_data(place, range.start + inner.start..range.start + inner.end)
    }

    /// Hands out the next message of a DATA payload, or keeps its beginning.
    fn step_data(&mut self, place: usize, mut range: Range<usize>) -> Result<Step, Failure> {
        let stream = &mut self.streams[place];
        if stream.partial.is_empty() {
            let bytes = &self.received[range.clone()];
            if let Some(len) = message_len(bytes)?.filter(|&len| len <= bytes.len()) {
                let message = range.start + MESSAGE_PREFIX_BYTES..range.start + len;
                self.current = Some((place, range.start + len..range.end));
                return Ok(Step::MessageReceived(place, message));
            }
        }
        // A message in several frames is collected: first its prefix, then as much as that says.
        while !range.is_empty() {
            let wanted = message_len(&stream.partial)?.unwrap_or(MESSAGE_PREFIX_BYTES);
            let taken = range.len().min(wanted - stream.partial.len());
            stream.partial.extend_from_slice(&self.received[range.start..range.start + taken]);
            range.start += taken;
            if message_len(&stream.partial)? == Some(stream.partial.len()) {
                self.current = Some((place, range));
                self.consumed = Some(place);
                return Ok(Step::MessagePartial(place));
            }
        }
        if stream.ended {
            self.status_message = "the stream ended without trailers".to_owned();
            return Ok(self.end(place, code::INTERNAL));
        }
        Ok(Step::Again)
    }

    fn handle_headers(
        &mut self,
        header: FrameHeader,
        joined: Option<&[u8]>,
        range: Range<usize>,
    ) -> Result<Step, Failure> {
        // The block is decoded even when nobody waits for it: it may change the table.
        let block = joined.unwrap_or(&self.received[range]);
        let known = self
            .memos
            .iter()
            .find(|memo| memo.changes == self.decoder.changes() && memo.block.as_slice() == block);
        let fields = match known {
            Some(memo) => {
                self.status_message.clear();
                memo.fields
            }
            None => {
                let block = block.to_vec();
                self.decode(block)?
            }
        };
        let Some(place) = self.find(header.stream_id) else { return Ok(Step::Again) };
        let stream = &mut self.streams[place];
        stream.http_status = stream.http_status.or(fields.http_status);
        if !header.has(flag::END_STREAM) {
            return Ok(Step::Again);
        }
        let code = match fields.grpc_status {
            Some(code) => code,
            None => {
                self.status_message = format!("HTTP status {:?}", stream.http_status);
                code::INTERNAL
            }
        };
        Ok(self.end(place, code))
    }

    fn decode(&mut self, block: Vec<u8>) -> Result<Fields, Failure> {
        let changes = self.decoder.changes();
        let mut fields = Fields::default();
        let message = &mut self.status_message;
        message.clear();
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        self.decoder
            .handle_block(&block, |name, value| match name {
                b":status" => fields.http_status = number(value),
                b"grpc-status" => fields.grpc_status = number(value).or(Some(code::INTERNAL)),
                b"grpc-message" => message.push_str(&String::from_utf8_lossy(value)),
                _ => {}
            })
            .map_err(|error| Failure::new(format!("the server's header block: {error:?}")))?;
        if changes == self.decoder.changes() && message.is_empty() {
            if self.memos.len() == MEMOS_MAX {
                self.memos.remove(0);
            }
            self.memos.push(Memo { block, changes, fields });
        }
        Ok(fields)
    }

    fn handle_control(
        &mut self,
        header: FrameHeader,
        range: Range<usize>,
    ) -> Result<Step, Failure> {
        let payload = &self.received[range];
        let word = |at: usize| payload.get(at..).and_then(|rest| rest.first_chunk::<4>());
        let word = |at: usize| word(at).map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff);
        let malformed = || Failure::new(format!("the server sent a malformed frame: {header:?}"));
        match header.kind {
            kind::SETTINGS if !header.has(flag::ACK) => {
                let settings: Vec<_> = frames::settings(payload).ok_or_else(malformed)?.collect();
                self.handle_settings(&settings)?;
            }
            kind::PING if !header.has(flag::ACK) => {
                if payload.len() != 8 {
                    return Err(malformed());
                }
                frames::write_frame(&mut self.output, kind::PING, flag::ACK, 0, payload);
            }
            kind::WINDOW_UPDATE => {
                let increment = i64::from(word(0).ok_or_else(malformed)?);
                self.handle_window_update(header.stream_id, increment)?;
            }
            kind::RST_STREAM => {
                let error = word(0).ok_or_else(malformed)?;
                if let Some(place) = self.find(header.stream_id) {
                    self.abort(place, &format!("RST_STREAM with error {error}"));
                }
            }
            kind::GOAWAY => {
                let last = word(0).ok_or_else(malformed)?;
                let error = word(4).ok_or_else(malformed)?;
                self.closing = true;
                for place in 0..self.streams.len() {
                    if self.streams[place].id > last {
                        self.abort(place, &format!("GOAWAY with error {error}"));
                    }
                }
            }
            _ => {}
        }
        Ok(Step::Again)
    }

    fn handle_settings(&mut self, settings: &[(u16, u32)]) -> Result<(), Failure> {
        for &(id, value) in settings {
            match id {
                setting::HEADER_TABLE_SIZE => self.encoder.handle_table_size(value),
                setting::MAX_CONCURRENT_STREAMS => {
                    self.active_count_max = usize::try_from(value).unwrap_or(usize::MAX);
                }
                setting::INITIAL_WINDOW_SIZE => {
                    // The change applies to open streams too, and may make a window negative.
                    let value = i64::from(value);
                    if value > WINDOW_BYTES_MAX {
                        return Err(Failure::new("the server's initial window is too large"));
                    }
                    let change = value - self.send_window_initial;
                    self.send_window_initial = value;
                    for stream in &mut self.streams {
                        stream.send_window += change;
                    }
                }
                _ => {}
            }
        }
        frames::write_frame(&mut self.output, kind::SETTINGS, flag::ACK, 0, &[]);
        self.send_blocked();
        Ok(())
    }

    fn handle_window_update(&mut self, id: u32, increment: i64) -> Result<(), Failure> {
        let window = match (id, self.find(id)) {
            (0, _) => &mut self.send_window,
            (_, Some(place)) => &mut self.streams[place].send_window,
            // Updates for a stream that has just ended are in order.
            (_, None) => return Ok(()),
        };
        *window += increment;
        if *window > WINDOW_BYTES_MAX || increment == 0 {
            return Err(Failure::new(format!("the server's window update of {increment} bytes")));
        }
        self.send_blocked();
        Ok(())
    }

    fn send_blocked(&mut self) {
        let mut still = VecDeque::new();
        while let Some(mut blocked) = self.blocked.pop_front() {
            let Some(place) = self.find(blocked.id) else { continue };
            loop {
                let window = self.send_window.min(self.streams[place].send_window);
                let window = usize::try_from(window).unwrap_or(0);
                let rest = blocked.bytes.len() - blocked.sent;
                let count = rest.min(window).min(FRAME_SIZE_BYTES_MAX);
                if count == 0 {
                    still.push_back(blocked);
                    break;
                }
                let end = blocked.end && count == rest;
                let flags = if end { flag::END_STREAM } else { 0 };
                let piece = &blocked.bytes[blocked.sent..blocked.sent + count];
                frames::write_frame(&mut self.output, kind::DATA, flags, blocked.id, piece);
                blocked.sent += count;
                let count = i64::try_from(count).expect("it is below the frame limit");
                self.send_window -= count;
                self.streams[place].send_window -= count;
                if blocked.sent == blocked.bytes.len() {
                    break;
                }
            }
        }
        self.blocked = still;
    }

    fn end(&mut self, place: usize, code: u32) -> Step {
        let stream = &mut self.streams[place];
        let slot = stream.slot;
        stream.id = 0;
        let code = if stream.partial.is_empty() { code } else { code::INTERNAL };
        stream.partial.clear();
        self.active_count -= 1;
        Step::Ended { slot, code }
    }

    fn abort(&mut self, place: usize, reason: &str) {
        if let Step::Ended { slot, .. } = self.end(place, code::UNAVAILABLE) {
            self.aborted.push_back((slot, reason.to_owned()));
        }
    }
}

/// How long the message is that begins here, with its prefix, if that much is known.
fn message_len(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some([compressed, len @ ..]) = bytes.first_chunk::<MESSAGE_PREFIX_BYTES>() else {
        return Ok(None);
    };
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    if *compressed != 0 || len > MESSAGE_BYTES_MAX {
        return Err(Failure::new(format!("the server sent a message of {len} bytes, or packed")));
    }
    Ok(Some(MESSAGE_PREFIX_BYTES + len))
}

#[cfg(test)]
mod tests;
