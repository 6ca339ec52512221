//! What leaves a connection: answers, bodies under flow control, and the bytes for the socket.
//!
//! A unary answer that fits into the windows is written in one go, HEADERS, DATA and trailers
//! behind each other. What does not fit waits in its stream; streams that wait take turns, one
//! frame each. `poll_output` moves only as much of it as the socket is likely to take, which is
//! what keeps the turns fair when the reader is slow. So an answer is delayed by what stands in
//! the output, at most [`OUTPUT_DIRECT_BYTES`], and by a frame of each stream that waits.
//!
//! Invariants:
//! - Bodies fill the output up to [`OUTPUT_DIRECT_BYTES`] and no further, however wide the client's
//!   windows are: what a client does not read waits in its streams, where it is counted.
//! - DATA is sent only within both windows, trailers only behind all DATA of their stream.
//! - A stream is in the queue exactly when it has body to send and its own window has room.
//! - A command for a stream that is gone does nothing: the client may reset one at any time.

use super::body::Body;
use super::connection::{Connection, Phase};
use super::frame::{ErrorCode, FrameKind, HEAD_BYTES, flag, head};
use super::frame::{put_head, put_reset, put_window_update};
use super::hpack::encoder::Field;
use super::limits::{
    FRAME_BYTES_MAX, OUTPUT_DIRECT_BYTES, OUTPUT_FILL_BYTES, QUEUED_BYTES_END, QUEUED_BYTES_MAX,
    STREAM_QUEUED_BYTES_RESUME,
};
use super::stream::{Closed, OwnedField, State, StreamKey};

/// Control tokens that a client earns back with each DATA frame that it has to acknowledge by
/// window updates: one for the stream, one for the connection, and as much again for slack.
const TOKENS_PER_DATA_FRAME: u32 = 4;

/// Control tokens that a client earns back with an answered call.
const TOKENS_PER_ANSWER: u32 = 4;

/// Bytes for the socket.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    written: usize,
    /// Body that waits in the streams.
    queued: usize,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), written: 0, queued: 0 }
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Body that will not be sent after all.
    pub(super) fn forget(&mut self, count: usize) {
        assert!(count <= self.queued, "{count} bytes forgotten of {}", self.queued);
        self.queued -= count;
    }

    pub(super) fn forget_all(&mut self) {
        self.queued = 0;
    }

    /// Drops what was to be written and is not on its way yet.
    pub(super) fn discard(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }
}

/// Whether a stream goes on after what was just written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    No,
    Here,
}

impl Connection {
    /// Answers a stream in one go: headers, a body that `body` appends, trailers.
    #[inline]
    pub fn respond(
        &mut self,
        stream: StreamKey,
        headers: &[Field<'_>],
        trailers: &[Field<'_>],
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.send_headers(stream, headers);
        self.send_data(stream, body);
        self.send_trailers(stream, trailers);
    }

    /// Answers with one block that is headers and trailers at once.
    pub fn respond_headers_only(&mut self, stream: StreamKey, fields: &[Field<'_>]) {
        if self.streams.get(stream).is_none() || !self.headers_fit(stream, fields) {
            return;
        }
        self.put_headers(stream, fields, Ends::Here);
        self.finish(stream);
    }

    /// Begins an answer.
    pub fn send_headers(&mut self, stream: StreamKey, fields: &[Field<'_>]) {
        if self.streams.get(stream).is_none() || !self.headers_fit(stream, fields) {
            return;
        }
        self.put_headers(stream, fields, Ends::No);
        let entry = self.streams.get_mut(stream).expect("looked up above");
        assert!(!entry.headers_sent, "stream {} was begun twice", stream.id);
        entry.headers_sent = true;
    }

    /// Sends the body that `body` appends.
    pub fn send_data(&mut self, stream: StreamKey, body: impl FnOnce(&mut Vec<u8>)) {
        self.send_body(stream, |out| body(out.bytes()));
    }

    /// Sends the body that `write` makes; `None` if the stream is gone. It is written straight
    /// into the output if nothing waits before it; what the windows or our bound do not allow
    /// stays in its stream.
    #[inline]
    pub fn send_body<T>(
        &mut self,
        stream: StreamKey,
        write: impl FnOnce(&mut Body<'_>) -> T,
    ) -> Option<T> {
        let waiting = self.output.waiting();
        let entry = self.streams.get_mut(stream)?;
        assert!(entry.headers_sent, "body before headers on stream {}", stream.id);
        assert!(entry.trailers.is_none(), "body behind trailers on stream {}", stream.id);
        let is_first = entry.pending_len() == 0 && self.ready.is_empty();
        let room = if is_first {
            let windows = entry.send.available().min(self.send.available());
            windows.min(OUTPUT_DIRECT_BYTES.saturating_sub(waiting))
        } else {
            entry.compact();
            0
        };
        let out = &mut self.output.bytes;
        let mut body = Body::new(out, &mut entry.pending, stream.id, room);
        let result = write(&mut body);
        let end = body.close();
        entry.send.consume(end.sent);
        self.send.consume(end.sent);
        self.output.queued += end.pending;
        self.note_data_sent(end.frames);
        if end.pending > 0 {
            self.enqueue(stream);
        }
        Some(result)
    }

    /// Sends a body that stands in a buffer of its own. A large one is taken over as it
    /// is.
    pub fn send_owned(&mut self, stream: StreamKey, body: Vec<u8>) {
        let Some(entry) = self.streams.get_mut(stream) else { return };
        if entry.pending_len() > 0 || body.len() <= FRAME_BYTES_MAX {
            self.send_data(stream, |out| out.extend_from_slice(&body));
            return;
        }
        assert!(entry.headers_sent, "body before headers on stream {}", stream.id);
        assert!(entry.trailers.is_none(), "body behind trailers on stream {}", stream.id);
        self.output.queued += body.len();
        entry.pending = body;
        entry.pending_sent = 0;
        self.enqueue(stream);
    }

    /// Lends a larger buffer to the output, for an answer that would else make it grow step by
    /// step; the smaller one comes back, empty.
    pub fn lend_output(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        let output = &mut self.output;
        buffer.clear();
        if buffer.capacity() > output.bytes.capacity() {
            buffer.extend_from_slice(&output.bytes);
            std::mem::swap(&mut output.bytes, &mut buffer);
            buffer.clear();
        }
        buffer
    }

    /// Ends an answer. The trailers wait if body does.
    pub fn send_trailers(&mut self, stream: StreamKey, fields: &[Field<'_>]) {
        let Some(entry) = self.streams.get(stream) else { return };
        assert!(entry.headers_sent, "trailers before headers on stream {}", stream.id);
        let waits = entry.pending_len() > 0;
        if !self.headers_fit(stream, fields) {
            return;
        }
        if waits {
            let owned = fields.iter().map(OwnedField::of).collect();
            self.streams.get_mut(stream).expect("looked up above").trailers = Some(owned);
        } else {
            self.put_headers(stream, fields, Ends::Here);
            self.finish(stream);
        }
    }

    /// A client may name the largest header list that it takes (RFC 9113, 6.5.2); a stream whose
    /// answer does not fit is reset.
    fn headers_fit(&mut self, stream: StreamKey, fields: &[Field<'_>]) -> bool {
        if self.peer.header_list_bytes_max == u32::MAX {
            return true;
        }
        let fits = self.encoder.list_bytes(fields) <= self.peer.header_list_bytes_max as usize;
        if !fits {
            self.reset(stream, ErrorCode::InternalError);
        }
        fits
    }

    #[inline]
    fn put_headers(&mut self, stream: StreamKey, fields: &[Field<'_>], ends: Ends) {
        let out = &mut self.output.bytes;
        let frame = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        self.encoder.encode(fields, out);
        let start = frame + HEAD_BYTES;
        let length = out.len() - start;
        let end_stream = if ends == Ends::Here { flag::END_STREAM } else { 0 };
        if length <= FRAME_BYTES_MAX {
            let flags = flag::END_HEADERS | end_stream;
            let bytes = head(FrameKind::Headers, flags, stream.id, length);
            out[frame..start].copy_from_slice(&bytes);
        } else {
            let block = out.split_off(start);
            out.truncate(frame);
            put_continued(out, stream.id, end_stream, &block);
        }
        self.pings.note_sent();
    }

    /// Our side has ended. If the client has not, it is told that the rest is not wanted.
    fn finish(&mut self, stream: StreamKey) {
        let entry = self.streams.get(stream).expect("the caller holds an open stream");
        if entry.state == State::HalfClosedRemote {
            self.close_stream(stream, Closed::Ended);
        } else {
            put_reset(&mut self.output.bytes, stream.id, ErrorCode::NoError);
            self.close_stream(stream, Closed::ResetByUs);
        }
        self.control_budget.give(TOKENS_PER_ANSWER);
        self.reset_budget.give(1);
    }

    fn note_data_sent(&mut self, frames: usize) {
        if frames > 0 {
            self.pings.note_sent();
            let frames = u32::try_from(frames).unwrap_or(u32::MAX);
            self.control_budget.give(TOKENS_PER_DATA_FRAME.saturating_mul(frames));
        }
    }

    /// Puts a stream into the queue if it can send.
    pub(super) fn enqueue(&mut self, stream: StreamKey) {
        let Some(entry) = self.streams.get_mut(stream) else { return };
        if !entry.queued && entry.pending_len() > 0 && entry.send.available() > 0 {
            entry.queued = true;
            self.ready.push_back(stream);
        }
        // Streams that were reset while they stood here leave their keys behind; with the
        // connection's window shut nothing else would take them out.
        if self.ready.len() > 2 * self.streams.open_count() + 64 {
            let streams = &self.streams;
            self.ready.retain(|key| streams.get(*key).is_some());
        }
    }

    /// The bytes for the socket, as many as make sense to write now.
    pub fn poll_output(&mut self) -> &[u8] {
        self.fill_output();
        &self.output.bytes[self.output.written..]
    }

    /// Notes that the socket took the first `count` bytes of [`Self::poll_output`].
    pub fn consume_output(&mut self, count: usize) {
        assert!(count <= self.output.waiting(), "{count} bytes written, fewer were given");
        self.output.written += count;
        if self.output.written == self.output.bytes.len() {
            self.output.bytes.clear();
            self.output.written = 0;
        }
    }

    /// Swaps the bytes for the socket against an empty buffer, for an owner whose writes need a
    /// buffer that stays in place. Do not mix with [`Self::consume_output`].
    pub fn swap_output(&mut self, spare: &mut Vec<u8>) {
        assert!(spare.is_empty() && self.output.written == 0);
        self.fill_output();
        std::mem::swap(&mut self.output.bytes, spare);
    }

    /// Whether there is anything for the socket.
    pub fn has_output(&mut self) -> bool {
        !self.poll_output().is_empty()
    }

    /// What waits for the socket. An owner stops reading from a client that lets this grow.
    pub fn output_pending_bytes(&self) -> usize {
        self.output.waiting()
    }

    /// What waits for nothing but the socket: the output, and the streams behind it if their
    /// windows are open. An owner may stop reading from a client that lets this grow: it shrinks
    /// as the client reads, without a WINDOW_UPDATE.
    pub fn socket_pending_bytes(&self) -> usize {
        let may_send = !self.ready.is_empty() && self.send.available() > 0;
        self.output.waiting() + if may_send { self.output.queued } else { 0 }
    }

    /// What waits in the streams, for a window or for its turn. An owner must go on reading
    /// however much this is, because the WINDOW_UPDATE that would free it is yet to be read; new
    /// streams are refused beyond [`super::limits::QUEUED_BYTES_MAX`].
    pub fn queued_bytes(&self) -> usize {
        self.output.queued
    }

    /// What waits in one stream. An owner stops producing for a client that lets this grow.
    pub fn stream_pending_bytes(&self, stream: StreamKey) -> usize {
        self.streams.get(stream).map_or(0, |entry| entry.pending_len())
    }

    /// Asks to be told, by [`Self::poll_room`], when a stream's body has left for the socket.
    pub fn want_room(&mut self, stream: StreamKey) {
        let Some(entry) = self.streams.get_mut(stream) else { return };
        let wanted_before = std::mem::replace(&mut entry.room_wanted, true);
        if !wanted_before && entry.pending_len() == 0 {
            self.roomy.push_back(stream);
        }
    }

    /// A stream that has room again, once for each [`Self::want_room`].
    pub fn poll_room(&mut self) -> Option<StreamKey> {
        while let Some(stream) = self.roomy.pop_front() {
            if let Some(entry) = self.streams.get_mut(stream)
                && std::mem::take(&mut entry.room_wanted)
            {
                return Some(stream);
            }
        }
        None
    }

    fn fill_output(&mut self) {
        if matches!(self.phase, Phase::Failed(_) | Phase::Closed) {
            return;
        }
        while self.output.waiting() < OUTPUT_FILL_BYTES && self.send.available() > 0 {
            let Some(stream) = self.ready.pop_front() else { break };
            self.send_turn(stream);
        }
        if self.withheld > 0 && self.output.queued <= QUEUED_BYTES_MAX {
            let count = std::mem::take(&mut self.withheld);
            if let Some(increment) = self.receive.release(count) {
                put_window_update(&mut self.output.bytes, 0, increment);
            }
        }
        if self.output.queued > QUEUED_BYTES_END {
            self.fail(ErrorCode::EnhanceYourCalm, "too many answers were not taken");
        }
    }

    /// One frame of one stream that waits.
    fn send_turn(&mut self, stream: StreamKey) {
        // It may have been reset while it stood in the queue.
        let Some(entry) = self.streams.get_mut(stream) else { return };
        entry.queued = false;
        let length = FRAME_BYTES_MAX
            .min(entry.pending_len())
            .min(entry.send.available())
            .min(self.send.available());
        if length == 0 {
            // Its window has shrunk under it; a WINDOW_UPDATE brings it back.
            return;
        }
        let out = &mut self.output.bytes;
        put_head(out, FrameKind::Data, 0, stream.id, length);
        let sent = entry.pending_sent..entry.pending_sent + length;
        out.extend_from_slice(&entry.pending[sent]);
        entry.pending_sent += length;
        entry.send.consume(length);
        self.send.consume(length);
        self.output.queued -= length;
        let drained = entry.pending_len() == 0;
        if drained {
            entry.pending.clear();
            entry.pending_sent = 0;
        }
        if entry.withheld > 0 && entry.pending_len() <= STREAM_QUEUED_BYTES_RESUME {
            let count = std::mem::take(&mut entry.withheld);
            if let Some(increment) = entry.receive.release(count)
                && entry.state == State::Open
            {
                put_window_update(out, stream.id, increment);
            }
        }
        let trailers = if drained { entry.trailers.take() } else { None };
        let room_wanted = drained && entry.room_wanted;
        self.note_data_sent(1);
        if let Some(trailers) = trailers {
            let fields: Vec<_> = trailers.iter().map(OwnedField::as_field).collect();
            self.put_headers(stream, &fields, Ends::Here);
            self.finish(stream);
        } else if room_wanted {
            self.roomy.push_back(stream);
        } else {
            self.enqueue(stream);
        }
    }
}

/// A block that needs more than one frame (RFC 9113, 6.10).
#[cold]
fn put_continued(out: &mut Vec<u8>, stream: u32, end_stream: u8, block: &[u8]) {
    let count = block.len().div_ceil(FRAME_BYTES_MAX);
    for (place, part) in block.chunks(FRAME_BYTES_MAX).enumerate() {
        let (kind, flags) = match place {
            0 => (FrameKind::Headers, end_stream),
            _ => (FrameKind::Continuation, 0),
        };
        let end_headers = if place + 1 == count { flag::END_HEADERS } else { 0 };
        put_head(out, kind, flags | end_headers, stream, part.len());
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::{Config, Event};
    use super::super::frame::PREFACE;
    use super::*;
    use std::time::Duration;

    /// Memory that is asked for and never touched costs nothing.
    #[test]
    fn a_connection_with_more_to_send_than_any_may_have_is_ended() {
        let config = Config {
            max_concurrent_streams: 10,
            ping_policy: <_>::default(),
            keepalive: <_>::default(),
            pinned: &[],
        };
        let mut connection = Connection::new(&config, Duration::ZERO);
        let mut input = PREFACE.to_vec();
        put_head(&mut input, FrameKind::Settings, 0, 0, 6);
        input.extend_from_slice(&[0, 4, 0, 0, 0, 0]);
        for id in [1, 3] {
            // `:method: GET`, `:scheme: http`, `:path: /`, by their places in the table.
            put_head(&mut input, FrameKind::Headers, flag::END_HEADERS, id, 3);
            input.extend_from_slice(&[0x82, 0x86, 0x84]);
        }
        let (mut input, mut streams) = (&input[..], Vec::new());
        while let Some(event) = connection.poll_event(&mut input, Duration::ZERO) {
            let Event::Headers { stream, .. } = event else { panic!("{event:?}") };
            connection.send_headers(stream, &[Field::Static(8)]);
            streams.push(stream);
        }
        connection.send_owned(streams[0], vec![0; QUEUED_BYTES_END]);
        assert!(connection.has_output() && !connection.has_failed());
        connection.send_data(streams[1], |out| out.push(0));
        assert!(connection.has_output() && connection.has_failed());
        let event = connection.poll_event(&mut &[][..], Duration::ZERO);
        let Some(Event::Closed(reason)) = event else { panic!("{event:?}") };
        assert_eq!(reason.code, ErrorCode::EnhanceYourCalm);
        assert!(connection.is_over() && connection.queued_bytes() == 0);
    }
}
