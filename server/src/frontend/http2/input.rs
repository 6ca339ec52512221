//! What arrives at a connection: bytes to frames, frames to events.
//!
//! A frame that lies whole in the caller's bytes is read in place. Of one that is cut, DATA is
//! passed on piece by piece as it arrives, anything else waits in a buffer of at most one frame.
//!
//! Invariants:
//! - `partial` holds the beginning of a frame header, or of the payload that `state` names.
//! - Between HEADERS without END_HEADERS and its last CONTINUATION nothing else is accepted.
//! - Every header block is decoded, also for streams that nobody wants: the compression state
//!   belongs to the connection (RFC 9113, 4.3).

use std::time::Duration;

use super::connection::{Connection, Event, Phase};
use super::frame::{ErrorCode, FrameHead, FrameKind, HEAD_BYTES, PREFACE, flag};
use super::frame::{put_ping, put_reset, put_window_update};
use super::headers::BlockKind;
use super::limits::{
    CONTINUATIONS_MAX, FRAME_BYTES_MAX, HEADER_LIST_BYTES_MAX, QUEUED_BYTES_MAX,
    STREAM_QUEUED_BYTES_MAX,
};
use super::memo::ListRef;
use super::stream::{Closed, State, StreamKey};

/// A SETTINGS frame that moves the windows of many streams costs a further token for each so many.
const STREAMS_PER_TOKEN: usize = 64;

/// What is wrong with a frame (RFC 9113, 5.4).
#[derive(Clone, Copy, Debug)]
enum Fault {
    Connection(ErrorCode, &'static str),
    Stream(StreamKey, ErrorCode),
}

type Handled = Result<Option<Event<'static>>, Fault>;

const fn protocol<T>(text: &'static str) -> Result<T, Fault> {
    Err(Fault::Connection(ErrorCode::ProtocolError, text))
}

const fn frame_size<T>(text: &'static str) -> Result<T, Fault> {
    Err(Fault::Connection(ErrorCode::FrameSizeError, text))
}

/// What the next byte is part of.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Preface { matched: usize },
    Head,
    Payload(FrameHead),
    Data(DataFrame),
    Skip { left: usize },
}

/// A DATA frame under way.
#[derive(Clone, Copy, Debug)]
struct DataFrame {
    id: u32,
    /// Whom the bytes are for; nobody if the stream is gone.
    stream: Option<StreamKey>,
    /// The whole payload, which is what counts for flow control.
    length: u32,
    end_stream: bool,
    pad_length_due: bool,
    body_left: usize,
    padding_left: usize,
}

/// A header block that is not complete yet.
#[derive(Clone, Copy, Debug)]
struct OpenBlock {
    id: u32,
    target: Target,
    end_stream: bool,
    continuations: u32,
}

/// Whose header block it is.
#[derive(Clone, Copy, Debug)]
enum Target {
    Request,
    Trailers(StreamKey),
    Nobody,
}

/// The state of reading.
#[derive(Debug)]
pub(super) struct Reader {
    state: Reading,
    partial: Vec<u8>,
    settings_seen: bool,
    block: Option<OpenBlock>,
    block_bytes: Vec<u8>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            state: Reading::Preface { matched: 0 },
            partial: Vec::new(),
            settings_seen: false,
            block: None,
            block_bytes: Vec::new(),
        }
    }

    /// The next frame's header, if it is complete.
    #[inline]
    fn take_head(&mut self, input: &mut &[u8]) -> Option<FrameHead> {
        if self.partial.is_empty()
            && let Some((bytes, rest)) = input.split_first_chunk::<HEAD_BYTES>()
        {
            *input = rest;
            return Some(FrameHead::parse(*bytes));
        }
        self.fill_partial(input, HEAD_BYTES);
        let bytes = <[u8; HEAD_BYTES]>::try_from(self.partial.as_slice()).ok()?;
        self.partial.clear();
        Some(FrameHead::parse(bytes))
    }

    /// Moves input to `partial` until that has `wanted` bytes.
    fn fill_partial(&mut self, input: &mut &[u8], wanted: usize) {
        let missing = wanted - self.partial.len();
        let (bytes, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(bytes);
        *input = rest;
    }
}

enum Step<'i> {
    Event(Event<'i>),
    More,
    Starved,
}

impl Connection {
    /// The next thing that the client did. `input` is what was read from the socket and is
    /// advanced; call again until `None`, then with the next bytes.
    pub fn poll_event<'i>(&mut self, input: &mut &'i [u8], now: Duration) -> Option<Event<'i>> {
        if !input.is_empty() {
            self.keepalive.note_read(now);
        }
        loop {
            match self.phase {
                Phase::Failed(_) => return self.take_failure(),
                Phase::Closed => {
                    *input = &[];
                    return None;
                }
                _ => {}
            }
            match self.step(input, now) {
                Ok(Step::Event(event)) => return Some(event),
                Ok(Step::More) => {}
                Ok(Step::Starved) => return None,
                Err(Fault::Connection(code, text)) => self.fail(code, text),
                Err(Fault::Stream(stream, code)) => {
                    if self.is_open(stream) {
                        self.reset(stream, code);
                        return Some(Event::Reset { stream, code });
                    }
                }
            }
        }
    }

    #[inline]
    fn step<'i>(&mut self, input: &mut &'i [u8], now: Duration) -> Result<Step<'i>, Fault> {
        match self.reader.state {
            Reading::Head => match self.reader.take_head(input) {
                Some(head) => self.begin_frame(head, now),
                None => Ok(Step::Starved),
            },
            Reading::Payload(head) => self.step_payload(head, input, now),
            Reading::Data(frame) => self.step_data(frame, input),
            Reading::Skip { left } => {
                let skipped = left.min(input.len());
                *input = &input[skipped..];
                if skipped < left {
                    self.reader.state = Reading::Skip { left: left - skipped };
                    return Ok(Step::Starved);
                }
                self.reader.state = Reading::Head;
                Ok(Step::More)
            }
            Reading::Preface { matched } => {
                let wanted = &PREFACE[matched..];
                let seen = wanted.len().min(input.len());
                if input[..seen] != wanted[..seen] {
                    return protocol("bad connection preface");
                }
                *input = &input[seen..];
                self.reader.state = if seen == wanted.len() {
                    Reading::Head
                } else {
                    Reading::Preface { matched: matched + seen }
                };
                Ok(if seen == wanted.len() { Step::More } else { Step::Starved })
            }
        }
    }

    #[inline]
    fn step_payload<'i>(
        &mut self,
        head: FrameHead,
        input: &mut &'i [u8],
        now: Duration,
    ) -> Result<Step<'i>, Fault> {
        let handled = if self.reader.partial.is_empty() && input.len() >= head.length {
            let (payload, rest) = input.split_at(head.length);
            *input = rest;
            self.reader.state = Reading::Head;
            self.handle_frame(head, payload, now)
        } else {
            self.reader.fill_partial(input, head.length);
            if self.reader.partial.len() < head.length {
                return Ok(Step::Starved);
            }
            self.reader.state = Reading::Head;
            let mut payload = std::mem::take(&mut self.reader.partial);
            let handled = self.handle_frame(head, &payload, now);
            payload.clear();
            self.reader.partial = payload;
            handled
        };
        Ok(handled?.map_or(Step::More, Step::Event))
    }

    /// Looks at a frame's header and decides how to read its payload.
    #[inline]
    fn begin_frame<'i>(&mut self, head: FrameHead, now: Duration) -> Result<Step<'i>, Fault> {
        if head.length > FRAME_BYTES_MAX {
            return frame_size("frame is too large");
        }
        if let Some(block) = &self.reader.block
            && (head.kind != FrameKind::Continuation || head.stream != block.id)
        {
            return protocol("a header block was interrupted");
        }
        if !self.reader.settings_seen && (head.kind != FrameKind::Settings || head.has(flag::ACK)) {
            return protocol("the first frame is not SETTINGS");
        }
        if head.kind == FrameKind::Data {
            return self.begin_data(head, now).map(|()| Step::More);
        }
        check_head(&head)?;
        if head.kind != FrameKind::Headers {
            self.charge(now)?;
        }
        self.reader.state = match head.kind {
            FrameKind::Unknown => Reading::Skip { left: head.length },
            _ => Reading::Payload(head),
        };
        Ok(Step::More)
    }

    /// Takes a token for a frame that moves no call forward.
    fn charge(&mut self, now: Duration) -> Result<(), Fault> {
        if self.control_budget.take(now) {
            return Ok(());
        }
        Err(Fault::Connection(ErrorCode::EnhanceYourCalm, "too many control frames"))
    }

    #[inline]
    fn handle_frame(&mut self, head: FrameHead, payload: &[u8], now: Duration) -> Handled {
        match head.kind {
            FrameKind::Headers => self.handle_headers(head, payload, now),
            FrameKind::Continuation => self.handle_continuation(head, payload, now),
            FrameKind::Priority => self.handle_priority(head),
            FrameKind::ResetStream => self.handle_reset(head, read_u32(payload), now),
            FrameKind::Settings => self.handle_settings(head, payload, now),
            FrameKind::Ping => self.handle_ping(head, payload, now),
            FrameKind::WindowUpdate => self.handle_window_update(head, read_u32(payload)),
            // The client will open no more streams; it closes when it has its answers.
            FrameKind::GoAway => Ok(None),
            FrameKind::Data | FrameKind::PushPromise | FrameKind::Unknown => {
                unreachable!("not read as a payload: {head:?}")
            }
        }
    }

    /// Whether the client has never used a stream's number (RFC 9113, 5.1.1).
    fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || id > self.streams.last_id()
    }

    fn begin_data(&mut self, head: FrameHead, now: Duration) -> Result<(), Fault> {
        if head.stream == 0 {
            return protocol("DATA on stream 0");
        }
        if head.has(flag::PADDED) && head.length == 0 {
            return frame_size("padded DATA without a pad length");
        }
        let length = u32::try_from(head.length).expect("at most FRAME_BYTES_MAX");
        if self.receive.receive(length).is_err() {
            let text = "connection window overrun";
            return Err(Fault::Connection(ErrorCode::FlowControlError, text));
        }
        let end_stream = head.has(flag::END_STREAM);
        if length == 0 && !end_stream {
            self.charge(now)?;
        }
        let padded = head.has(flag::PADDED);
        let mut frame = DataFrame {
            id: head.stream,
            stream: self.streams.find(head.stream),
            length,
            end_stream,
            pad_length_due: padded,
            body_left: if padded { 0 } else { head.length },
            padding_left: 0,
        };
        let fault = match frame.stream {
            Some(stream) => self.charge_data(stream, length, end_stream),
            None => self.refuse_data(head.stream, now),
        };
        if fault.is_err() {
            frame.stream = None;
        }
        self.reader.state = Reading::Data(frame);
        fault?;
        if padded { Ok(()) } else { self.check_body(frame) }
    }

    /// Takes a DATA frame's length off its stream's window.
    #[inline]
    fn charge_data(
        &mut self,
        stream: StreamKey,
        length: u32,
        end_stream: bool,
    ) -> Result<(), Fault> {
        let entry = self.streams.get_mut(stream).expect("the caller found it");
        if entry.state == State::HalfClosedRemote {
            return Err(Fault::Stream(stream, ErrorCode::StreamClosed));
        }
        if entry.receive.receive(length).is_err() {
            return Err(Fault::Stream(stream, ErrorCode::FlowControlError));
        }
        if end_stream {
            // From here on, although the frame's bytes may yet be on their way: so an answer that
            // is given before they are complete does not depend on where the network cut.
            entry.state = State::HalfClosedRemote;
        }
        Ok(())
    }

    /// DATA for a stream that is not open.
    #[cold]
    fn refuse_data(&mut self, id: u32, now: Duration) -> Result<(), Fault> {
        if self.is_idle(id) {
            return protocol("DATA on an idle stream");
        }
        if self.streams.how_closed(id) != Some(Closed::ResetByUs) {
            self.charge(now)?;
            put_reset(&mut self.output.bytes, id, ErrorCode::StreamClosed);
        }
        Ok(())
    }

    /// Compares the body in a frame with what content-length promised (RFC 9113, 8.1.1).
    #[inline]
    fn check_body(&mut self, frame: DataFrame) -> Result<(), Fault> {
        let Some(stream) = frame.stream else { return Ok(()) };
        let Some(entry) = self.streams.get_mut(stream) else { return Ok(()) };
        let Some(promised) = entry.body_left else { return Ok(()) };
        let body = frame.body_left as u64;
        if body > promised || (frame.end_stream && body < promised) {
            self.reader.state = Reading::Data(DataFrame { stream: None, ..frame });
            return Err(Fault::Stream(stream, ErrorCode::ProtocolError));
        }
        entry.body_left = Some(promised - body);
        Ok(())
    }

    #[inline]
    fn step_data<'i>(
        &mut self,
        mut frame: DataFrame,
        input: &mut &'i [u8],
    ) -> Result<Step<'i>, Fault> {
        if frame.pad_length_due {
            let Some((&padding, rest)) = input.split_first() else { return Ok(Step::Starved) };
            *input = rest;
            frame.pad_length_due = false;
            frame.padding_left = usize::from(padding);
            let length = frame.length as usize;
            let Some(body) = (length - 1).checked_sub(frame.padding_left) else {
                return protocol("more padding than payload");
            };
            frame.body_left = body;
            self.reader.state = Reading::Data(frame);
            self.check_body(frame)?;
            return Ok(Step::More);
        }
        let (bytes, rest) = input.split_at(frame.body_left.min(input.len()));
        frame.body_left -= bytes.len();
        let skipped = if frame.body_left == 0 { frame.padding_left.min(rest.len()) } else { 0 };
        frame.padding_left -= skipped;
        *input = &rest[skipped..];
        let complete = frame.body_left == 0 && frame.padding_left == 0;
        let stream = frame.stream.filter(|stream| self.is_open(*stream));
        if complete {
            self.reader.state = Reading::Head;
            self.release(frame, stream);
        } else {
            self.reader.state = Reading::Data(frame);
        }
        let end_stream = complete && frame.end_stream;
        match stream {
            Some(stream) if !bytes.is_empty() || end_stream => {
                Ok(Step::Event(Event::Data { stream, bytes, end_stream }))
            }
            _ => Ok(if complete { Step::More } else { Step::Starved }),
        }
    }

    /// Gives the windows back. At once, although the owner may keep bytes of an incomplete message:
    /// it bounds those itself, and a window held back could wait for the very bytes it keeps out.
    /// But who leaves answers unread gets nothing back before it has taken them: what makes the
    /// server say more than it was told would else go on for ever.
    #[inline]
    fn release(&mut self, frame: DataFrame, stream: Option<StreamKey>) {
        if self.queued_bytes() > QUEUED_BYTES_MAX {
            self.withheld += frame.length;
        } else if let Some(increment) = self.receive.release(frame.length) {
            put_window_update(&mut self.output.bytes, 0, increment);
        }
        let Some(stream) = stream else { return };
        // A stream that has ended needs no window.
        if frame.end_stream {
            return;
        }
        let entry = self.streams.get_mut(stream).expect("the caller found it open");
        if entry.pending_len() > STREAM_QUEUED_BYTES_MAX {
            entry.withheld += frame.length;
        } else if let Some(increment) = entry.receive.release(frame.length) {
            put_window_update(&mut self.output.bytes, frame.id, increment);
        }
    }

    fn handle_headers(&mut self, head: FrameHead, payload: &[u8], now: Duration) -> Handled {
        let fragment = strip_padding(&head, payload)?;
        let id = head.stream;
        let target = match self.streams.find(id) {
            Some(stream) => Target::Trailers(stream),
            None if id > self.streams.last_id() => match self.phase {
                // It crossed our last GOAWAY on the way; the client will try elsewhere.
                Phase::Draining { .. } => {
                    self.streams.skip(id, Closed::ResetByUs);
                    Target::Nobody
                }
                _ => Target::Request,
            },
            None => match self.streams.how_closed(id) {
                Some(Closed::ResetByUs) => Target::Nobody,
                Some(Closed::Ended | Closed::ResetByPeer) => {
                    let text = "HEADERS on a closed stream";
                    return Err(Fault::Connection(ErrorCode::StreamClosed, text));
                }
                None => return protocol("a stream number went backwards"),
            },
        };
        let end_stream = head.has(flag::END_STREAM);
        let block = OpenBlock { id, target, end_stream, continuations: 0 };
        if head.has(flag::END_HEADERS) {
            return self.finish_block(block, fragment, now);
        }
        self.reader.block = Some(block);
        self.reader.block_bytes.clear();
        self.reader.block_bytes.extend_from_slice(fragment);
        Ok(None)
    }

    fn handle_continuation(&mut self, head: FrameHead, fragment: &[u8], now: Duration) -> Handled {
        let Some(mut block) = self.reader.block else { return protocol("stray CONTINUATION") };
        block.continuations += 1;
        self.reader.block_bytes.extend_from_slice(fragment);
        let bytes = self.reader.block_bytes.len();
        if block.continuations > CONTINUATIONS_MAX || bytes > HEADER_LIST_BYTES_MAX {
            let text = "header block is too large";
            return Err(Fault::Connection(ErrorCode::EnhanceYourCalm, text));
        }
        self.reader.block = Some(block);
        if !head.has(flag::END_HEADERS) {
            return Ok(None);
        }
        self.reader.block = None;
        let bytes = std::mem::take(&mut self.reader.block_bytes);
        self.finish_block(block, &bytes, now)
    }

    #[inline]
    fn finish_block(&mut self, block: OpenBlock, bytes: &[u8], now: Duration) -> Handled {
        match block.target {
            Target::Request => {
                let generation = self.decoder.generation();
                let list = match self.memo.find(bytes, generation) {
                    Some(list) => list,
                    None => {
                        self.decode(BlockKind::Request, bytes)?;
                        if let Err(code) = self.check_request() {
                            self.streams.skip(block.id, Closed::ResetByUs);
                            return self.refuse(block.id, code, now);
                        }
                        if self.decoder.generation() == generation {
                            self.memo.keep(bytes, generation)
                        } else {
                            ListRef::SCRATCH
                        }
                    }
                };
                self.open_stream(block, list, now)
            }
            Target::Trailers(stream) => {
                self.decode(BlockKind::Trailers, bytes)?;
                self.end_with_trailers(stream, block.end_stream)
            }
            Target::Nobody => {
                self.charge(now)?;
                self.decode(BlockKind::Trailers, bytes)?;
                Ok(None)
            }
        }
    }

    /// Decodes a block into the scratch list.
    fn decode(&mut self, kind: BlockKind, bytes: &[u8]) -> Result<(), Fault> {
        let list = self.memo.scratch();
        list.clear();
        self.decoder
            .decode(bytes, |name, value| list.push(kind, name, value))
            .map_err(|error| Fault::Connection(ErrorCode::CompressionError, error.text()))?;
        list.finish(kind);
        Ok(())
    }

    fn check_request(&self) -> Result<(), ErrorCode> {
        let list = self.memo.list(ListRef::SCRATCH);
        if list.oversize() {
            // grpc-go's choice for a list above its limit.
            return Err(ErrorCode::FrameSizeError);
        }
        if list.malformed().is_some() {
            return Err(ErrorCode::ProtocolError);
        }
        Ok(())
    }

    /// Resets a stream that the owner never saw.
    fn refuse(&mut self, id: u32, code: ErrorCode, now: Duration) -> Handled {
        self.charge(now)?;
        put_reset(&mut self.output.bytes, id, code);
        Ok(None)
    }

    #[inline]
    fn open_stream(&mut self, block: OpenBlock, list: ListRef, now: Duration) -> Handled {
        let OpenBlock { id, end_stream, .. } = block;
        let queued_too_much = self.queued_bytes() > QUEUED_BYTES_MAX;
        if self.streams.open_count() >= self.streams_open_max || queued_too_much {
            self.streams.skip(id, Closed::ResetByUs);
            return self.refuse(id, ErrorCode::RefusedStream, now);
        }
        let content_length = self.memo.list(list).content_length();
        if end_stream && content_length.is_some_and(|length| length > 0) {
            self.streams.skip(id, Closed::ResetByUs);
            return self.refuse(id, ErrorCode::ProtocolError, now);
        }
        let state = if end_stream { State::HalfClosedRemote } else { State::Open };
        let stream = self.streams.open(id, state, self.peer.initial_window, content_length);
        Ok(Some(Event::Headers { stream, list, end_stream }))
    }

    /// A second header block ends the request (RFC 9113, 8.1). Its fields mean nothing to gRPC.
    fn end_with_trailers(&mut self, stream: StreamKey, end_stream: bool) -> Handled {
        let malformed = self.check_request().is_err();
        // The owner may have ended the stream between HEADERS and CONTINUATION.
        let Some(entry) = self.streams.get_mut(stream) else { return Ok(None) };
        if entry.state == State::HalfClosedRemote {
            return Err(Fault::Stream(stream, ErrorCode::StreamClosed));
        }
        if malformed || !end_stream || entry.body_left.is_some_and(|left| left > 0) {
            return Err(Fault::Stream(stream, ErrorCode::ProtocolError));
        }
        entry.state = State::HalfClosedRemote;
        Ok(Some(Event::Data { stream, bytes: &[], end_stream: true }))
    }

    /// Deprecated and ignored (RFC 9113, 5.3.2), but for its size.
    fn handle_priority(&mut self, head: FrameHead) -> Handled {
        if head.length == 5 {
            return Ok(None);
        }
        match self.streams.find(head.stream) {
            Some(stream) => Err(Fault::Stream(stream, ErrorCode::FrameSizeError)),
            // RST_STREAM may not be sent for a stream that is idle, so the connection has to go.
            None => frame_size("PRIORITY of a wrong size"),
        }
    }

    fn handle_reset(&mut self, head: FrameHead, code: u32, now: Duration) -> Handled {
        if self.is_idle(head.stream) {
            return protocol("RST_STREAM on an idle stream");
        }
        let Some(stream) = self.streams.find(head.stream) else { return Ok(None) };
        let entry = self.streams.get(stream).expect("just found");
        // Ending a watch is no abuse; asking for an answer and not taking it may be one.
        let premature = !entry.headers_sent || entry.pending_len() > 0;
        if premature && !self.reset_budget.take(now) {
            let text = "too many streams were reset";
            return Err(Fault::Connection(ErrorCode::EnhanceYourCalm, text));
        }
        self.close_stream(stream, Closed::ResetByPeer);
        Ok(Some(Event::Reset { stream, code: ErrorCode::from_wire(code) }))
    }

    fn handle_settings(&mut self, head: FrameHead, payload: &[u8], now: Duration) -> Handled {
        self.reader.settings_seen = true;
        if head.has(flag::ACK) {
            return Ok(None);
        }
        let window_before = self.peer.initial_window;
        for parameter in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([parameter[0], parameter[1]]);
            let value = read_u32(&parameter[2..]);
            self.peer.apply(id, value).map_err(|(code, text)| Fault::Connection(code, text))?;
        }
        self.encoder.set_table_bytes(self.peer.header_table_bytes as usize);
        let difference = i64::from(self.peer.initial_window) - i64::from(window_before);
        if difference != 0 {
            for _ in 0..self.streams.open_count() / STREAMS_PER_TOKEN {
                self.charge(now)?;
            }
            self.shift_windows(difference)?;
        }
        self.ack_settings();
        Ok(None)
    }

    /// A new initial window moves every open stream's (RFC 9113, 6.9.2).
    fn shift_windows(&mut self, difference: i64) -> Result<(), Fault> {
        for (stream, entry) in self.streams.iter_mut() {
            if entry.send.shift(difference).is_err() {
                let text = "INITIAL_WINDOW_SIZE overflows a stream's window";
                return Err(Fault::Connection(ErrorCode::FlowControlError, text));
            }
            if !entry.queued && entry.pending_len() > 0 && entry.send.available() > 0 {
                entry.queued = true;
                self.ready.push_back(stream);
            }
        }
        Ok(())
    }

    fn handle_ping(&mut self, head: FrameHead, payload: &[u8], now: Duration) -> Handled {
        let opaque = <[u8; 8]>::try_from(payload).expect("check_head saw the size");
        if head.has(flag::ACK) {
            self.handle_ping_ack(opaque);
            return Ok(None);
        }
        put_ping(&mut self.output.bytes, flag::ACK, opaque);
        if !self.pings.allow(now, self.streams.open_count() > 0) {
            let text = "too_many_pings";
            return Err(Fault::Connection(ErrorCode::EnhanceYourCalm, text));
        }
        Ok(None)
    }

    fn handle_window_update(&mut self, head: FrameHead, increment: u32) -> Handled {
        let increment = increment & 0x7fff_ffff;
        if head.stream == 0 {
            if increment == 0 {
                return protocol("WINDOW_UPDATE of nothing");
            }
            let widened = self.send.widen(increment);
            return widened.map(|()| None).map_err(|_| {
                Fault::Connection(ErrorCode::FlowControlError, "connection window overflow")
            });
        }
        if self.is_idle(head.stream) {
            return protocol("WINDOW_UPDATE on an idle stream");
        }
        let Some(stream) = self.streams.find(head.stream) else { return Ok(None) };
        if increment == 0 {
            return Err(Fault::Stream(stream, ErrorCode::ProtocolError));
        }
        let entry = self.streams.get_mut(stream).expect("just found");
        if entry.send.widen(increment).is_err() {
            return Err(Fault::Stream(stream, ErrorCode::FlowControlError));
        }
        self.enqueue(stream);
        Ok(None)
    }
}

/// What a frame's header alone can get wrong (RFC 9113, section 6).
#[inline]
fn check_head(head: &FrameHead) -> Result<(), Fault> {
    let of_stream = head.stream != 0;
    match head.kind {
        FrameKind::Headers if head.stream.is_multiple_of(2) => {
            protocol("HEADERS on a stream that a client cannot open")
        }
        FrameKind::Priority if !of_stream => protocol("PRIORITY on stream 0"),
        FrameKind::ResetStream if !of_stream => protocol("RST_STREAM on stream 0"),
        FrameKind::ResetStream if head.length != 4 => frame_size("RST_STREAM of a wrong size"),
        FrameKind::Settings if of_stream => protocol("SETTINGS on a stream"),
        FrameKind::Settings if head.has(flag::ACK) && head.length != 0 => {
            frame_size("SETTINGS acknowledgement with a payload")
        }
        FrameKind::Settings if !head.length.is_multiple_of(6) => {
            frame_size("SETTINGS of a wrong size")
        }
        FrameKind::PushPromise => protocol("PUSH_PROMISE from a client"),
        FrameKind::Ping if of_stream => protocol("PING on a stream"),
        FrameKind::Ping if head.length != 8 => frame_size("PING of a wrong size"),
        FrameKind::GoAway if of_stream => protocol("GOAWAY on a stream"),
        FrameKind::GoAway if head.length < 8 => frame_size("GOAWAY of a wrong size"),
        FrameKind::WindowUpdate if head.length != 4 => frame_size("WINDOW_UPDATE of a wrong size"),
        _ => Ok(()),
    }
}

/// The header block fragment in a HEADERS frame (RFC 9113, 6.2).
#[inline]
fn strip_padding<'p>(head: &FrameHead, payload: &'p [u8]) -> Result<&'p [u8], Fault> {
    let mut fragment = payload;
    let mut padding = 0;
    if head.has(flag::PADDED) {
        let Some((&length, rest)) = fragment.split_first() else {
            return frame_size("padded HEADERS without a pad length");
        };
        padding = usize::from(length);
        fragment = rest;
    }
    if head.has(flag::PRIORITY) {
        let Some((_, rest)) = fragment.split_at_checked(5) else {
            return frame_size("HEADERS too small for its priority");
        };
        fragment = rest;
    }
    match fragment.len().checked_sub(padding) {
        Some(length) => Ok(&fragment[..length]),
        None => protocol("more padding than payload"),
    }
}

/// The first four bytes of a payload whose size has been checked.
fn read_u32(payload: &[u8]) -> u32 {
    let (bytes, _) = payload.split_first_chunk().expect("the size has been checked");
    u32::from_be_bytes(*bytes)
}
