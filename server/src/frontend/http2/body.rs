//! A body on its way out, cut into frames while it grows.
//!
//! An answer is written where the socket will take it from, and never moved again: the writer
//! appends a piece, then [`Body::cut`] puts a frame's header into the bytes wherever a frame has
//! become full. Only the rest of the piece behind that place moves, by nine bytes. What goes
//! beyond the room of the output (the client's windows, and our own bound) is taken over into the
//! stream's pending bytes, where later pieces are written at once.
//!
//! Invariants:
//! - All frames but the open one are full, so the place of a byte follows from its number.
//! - Once a byte is pending, all behind it are.

use super::frame::{FrameKind, HEAD_BYTES, head};
use super::limits::FRAME_BYTES_MAX;

/// The body of one answer or of one message, being written.
#[derive(Debug)]
pub struct Body<'c> {
    out: &'c mut Vec<u8>,
    pending: &'c mut Vec<u8>,
    stream: u32,
    /// Where the body's first frame begins in `out`.
    start: usize,
    /// Where the open frame begins.
    frame: usize,
    /// Bytes that the open frame and those behind it may carry.
    room: usize,
    /// Where the body begins in `pending`.
    pending_start: usize,
    /// Whether bytes still go to `out`.
    is_direct: bool,
}

/// What became of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyEnd {
    /// Bytes in frames in the output.
    pub(super) sent: usize,
    /// Frames that carry them.
    pub(super) frames: usize,
    /// Bytes behind them in the stream.
    pub(super) pending: usize,
}

impl<'c> Body<'c> {
    /// A body whose first `room` bytes go to `out` as DATA of `stream`, and the others behind
    /// what `pending` holds.
    pub(super) fn new(
        out: &'c mut Vec<u8>,
        pending: &'c mut Vec<u8>,
        stream: u32,
        room: usize,
    ) -> Self {
        let (start, pending_start, is_direct) = (out.len(), pending.len(), room > 0);
        if is_direct {
            out.extend_from_slice(&[0; HEAD_BYTES]);
        }
        Self { out, pending, stream, start, frame: start, room, pending_start, is_direct }
    }

    /// Where the next piece is to be appended. What stands there already is to be left alone, and
    /// a place in it is good only until the next [`Self::cut`].
    #[inline]
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        if self.is_direct { self.out } else { self.pending }
    }

    /// Notes that a piece is complete.
    #[inline]
    pub fn cut(&mut self) {
        let full = FRAME_BYTES_MAX.min(self.room);
        if self.is_direct && self.out.len() - self.frame > HEAD_BYTES + full {
            self.cut_frames();
        }
    }

    fn cut_frames(&mut self) {
        let payload = self.frame + HEAD_BYTES;
        let fitting = self.room.min(self.out.len() - payload);
        if payload + fitting < self.out.len() {
            self.pending.extend_from_slice(&self.out[payload + fitting..]);
            self.out.truncate(payload + fitting);
            self.is_direct = false;
        }
        // From the back, so that each byte moves once however many frames the piece fills.
        let full = fitting.saturating_sub(1) / FRAME_BYTES_MAX;
        self.out.resize(self.out.len() + full * HEAD_BYTES, 0);
        for place in (1..=full).rev() {
            let from = payload + place * FRAME_BYTES_MAX;
            let end = (from + FRAME_BYTES_MAX).min(payload + fitting);
            let to = from + place * HEAD_BYTES;
            self.out.copy_within(from..end, to);
        }
        for _ in 0..full {
            self.put_head(FRAME_BYTES_MAX);
            self.frame += HEAD_BYTES + FRAME_BYTES_MAX;
        }
        self.room -= full * FRAME_BYTES_MAX;
    }

    fn put_head(&mut self, length: usize) {
        let bytes = head(FrameKind::Data, 0, self.stream, length);
        self.out[self.frame..self.frame + HEAD_BYTES].copy_from_slice(&bytes);
    }

    /// Bytes in the output, of closed frames and of the open one.
    fn sent(&self) -> usize {
        if self.out.len() == self.start {
            return 0;
        }
        let closed = (self.frame - self.start) / (HEAD_BYTES + FRAME_BYTES_MAX);
        closed * FRAME_BYTES_MAX + self.out.len() - self.frame - HEAD_BYTES
    }

    /// The body's size so far.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.sent() + self.pending.len() - self.pending_start
    }

    /// Overwrites the body's first bytes, which say what is only known at its end.
    pub fn put_start(&mut self, bytes: &[u8]) {
        self.cut();
        assert!(bytes.len() <= FRAME_BYTES_MAX && bytes.len() <= self.size_bytes());
        let sent = self.sent().min(bytes.len());
        let (in_output, in_pending) = bytes.split_at(sent);
        let payload = self.start + HEAD_BYTES;
        if sent > 0 {
            self.out[payload..payload + sent].copy_from_slice(in_output);
        }
        let at = self.pending_start;
        self.pending[at..at + in_pending.len()].copy_from_slice(in_pending);
    }

    /// Takes all of the body out again: nothing of it will be sent from here.
    #[must_use]
    pub fn withdraw(&mut self) -> Vec<u8> {
        self.cut();
        let mut body = Vec::with_capacity(self.size_bytes());
        for frame in self.out[self.start..].chunks(HEAD_BYTES + FRAME_BYTES_MAX) {
            body.extend_from_slice(frame.get(HEAD_BYTES..).unwrap_or_default());
        }
        body.extend_from_slice(&self.pending[self.pending_start..]);
        self.pending.truncate(self.pending_start);
        self.out.truncate(self.start);
        self.frame = self.start;
        self.is_direct = false;
        body
    }

    /// Closes the last frame.
    pub(super) fn close(mut self) -> BodyEnd {
        self.cut();
        let sent = self.sent();
        let last = sent - (sent.saturating_sub(1) / FRAME_BYTES_MAX) * FRAME_BYTES_MAX;
        if last == 0 {
            self.out.truncate(self.start);
        } else {
            self.put_head(last);
        }
        let pending = self.pending.len() - self.pending_start;
        BodyEnd { sent, frames: sent.div_ceil(FRAME_BYTES_MAX), pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::http2::frame::FrameHead;

    /// What frames in `out` carry, checked to be full but for the last.
    fn payload(out: &[u8]) -> Vec<u8> {
        let (mut rest, mut bytes) = (out, Vec::new());
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::parse(*head);
            let expected =
                FrameHead { length: head.length, kind: FrameKind::Data, flags: 0, stream: 5 };
            assert_eq!(head, expected);
            bytes.extend_from_slice(&behind[..head.length]);
            rest = &behind[head.length..];
            assert!(head.length > 0 && (rest.is_empty() || head.length == FRAME_BYTES_MAX));
        }
        assert!(rest.is_empty());
        bytes
    }

    /// A body of pieces, and what it should be.
    fn write(body: &mut Body<'_>, pieces: &[usize]) -> Vec<u8> {
        let mut whole = Vec::new();
        for (seed, size) in pieces.iter().enumerate() {
            let piece: Vec<u8> = (0..*size).map(|at| (at % 251 + seed).to_le_bytes()[0]).collect();
            body.bytes().extend_from_slice(&piece);
            body.cut();
            whole.extend_from_slice(&piece);
        }
        assert_eq!(body.size_bytes(), whole.len());
        whole
    }

    const PIECES: [&[usize]; 7] = [
        &[],
        &[5],
        &[16_384],
        &[5, 16_379, 1],
        &[300; 400],
        &[70_000, 3, 16_384, 16_385],
        &[1, 200_000, 90_000],
    ];
    const ROOMS: [usize; 9] = [0, 1, 4, 5, 16_383, 16_384, 16_385, 50_000, 1 << 20];

    #[test]
    fn what_was_written_leaves_in_full_frames_up_to_the_room() {
        for room in ROOMS {
            for pieces in PIECES {
                let (mut out, mut pending) = (Vec::new(), b"older".to_vec());
                let mut body = Body::new(&mut out, &mut pending, 5, room);
                let mut whole = write(&mut body, pieces);
                if whole.len() >= 5 {
                    body.put_start(b"START");
                    whole[..5].copy_from_slice(b"START");
                }
                let end = body.close();
                let sent = whole.len().min(room);
                assert_eq!((end.sent, end.pending), (sent, whole.len() - sent), "room {room}");
                assert_eq!(out.len(), sent + end.frames * HEAD_BYTES);
                assert_eq!(payload(&out), whole[..sent]);
                assert_eq!(pending, [&b"older"[..], &whole[sent..]].concat());
            }
        }
    }

    #[test]
    fn a_body_that_is_withdrawn_leaves_nothing_behind() {
        for room in ROOMS {
            for pieces in PIECES {
                let (mut out, mut pending) = (b"before".to_vec(), b"older".to_vec());
                let mut body = Body::new(&mut out, &mut pending, 5, room);
                let whole = write(&mut body, pieces);
                assert_eq!(body.withdraw(), whole);
                assert_eq!(body.close(), BodyEnd { sent: 0, frames: 0, pending: 0 });
                assert_eq!((&out[..], &pending[..]), (&b"before"[..], &b"older"[..]));
            }
        }
    }
}
