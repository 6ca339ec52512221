//! The frame layer: nine bytes of header, ten kinds, error codes (RFC 9113, sections 4, 6 and 7).
//!
//! Invariants:
//! - Parsing a header never fails: what is wrong with it depends on the connection's state.
//! - A frame is written whole: `put_*` leave the buffer with a complete frame.

/// What a client sends before its first frame (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Size of every frame's header.
pub const HEAD_BYTES: usize = 9;

/// The flag bits of the frames; which of them count depends on the kind.
pub mod flag {
    /// DATA and HEADERS: the sender's last frame on this stream.
    pub const END_STREAM: u8 = 0x1;
    /// SETTINGS and PING: an answer.
    pub const ACK: u8 = 0x1;
    /// HEADERS and CONTINUATION: the header block ends here.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA and HEADERS: a pad length and padding are present.
    pub const PADDED: u8 = 0x8;
    /// HEADERS: five bytes of (deprecated) priority are present.
    pub const PRIORITY: u8 = 0x20;
}

/// The kind of a frame (RFC 9113, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Body bytes.
    Data,
    /// Opens a stream or ends it with trailers.
    Headers,
    /// Deprecated; checked for size, then ignored.
    Priority,
    /// Ends a stream at once.
    ResetStream,
    /// Parameters of the connection.
    Settings,
    /// Never legal from a client.
    PushPromise,
    /// Liveness.
    Ping,
    /// No further streams.
    GoAway,
    /// Flow control credit.
    WindowUpdate,
    /// The rest of a header block.
    Continuation,
    /// An extension; ignored (RFC 9113, 4.1).
    Unknown,
}

impl FrameKind {
    const fn from_wire(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::ResetStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::ResetStream => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Unknown => 0xff,
        }
    }
}

/// Why a stream or a connection ends (RFC 9113, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Nothing is wrong.
    NoError,
    /// A rule was broken for which there is no better code.
    ProtocolError,
    /// The endpoint itself failed.
    InternalError,
    /// A window was overrun or overflowed.
    FlowControlError,
    /// Settings were not acknowledged in time.
    SettingsTimeout,
    /// A frame on a half-closed or closed stream.
    StreamClosed,
    /// A frame of an impossible size.
    FrameSizeError,
    /// Refused before any processing; the client may try again.
    RefusedStream,
    /// No longer wanted.
    Cancel,
    /// The compression state is lost.
    CompressionError,
    /// A CONNECT tunnel broke.
    ConnectError,
    /// The peer works the endpoint too hard.
    EnhanceYourCalm,
    /// The transport is not secure enough.
    InadequateSecurity,
    /// HTTP/1.1 is wanted.
    Http11Required,
}

impl ErrorCode {
    /// The code on the wire.
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::NoError => 0x0,
            Self::ProtocolError => 0x1,
            Self::InternalError => 0x2,
            Self::FlowControlError => 0x3,
            Self::SettingsTimeout => 0x4,
            Self::StreamClosed => 0x5,
            Self::FrameSizeError => 0x6,
            Self::RefusedStream => 0x7,
            Self::Cancel => 0x8,
            Self::CompressionError => 0x9,
            Self::ConnectError => 0xa,
            Self::EnhanceYourCalm => 0xb,
            Self::InadequateSecurity => 0xc,
            Self::Http11Required => 0xd,
        }
    }

    /// The code read from the wire; an unknown one has no special meaning and counts as an
    /// internal error (RFC 9113, section 7).
    pub const fn from_wire(code: u32) -> Self {
        match code {
            0x0 => Self::NoError,
            0x1 => Self::ProtocolError,
            0x3 => Self::FlowControlError,
            0x4 => Self::SettingsTimeout,
            0x5 => Self::StreamClosed,
            0x6 => Self::FrameSizeError,
            0x7 => Self::RefusedStream,
            0x8 => Self::Cancel,
            0x9 => Self::CompressionError,
            0xa => Self::ConnectError,
            0xb => Self::EnhanceYourCalm,
            0xc => Self::InadequateSecurity,
            0xd => Self::Http11Required,
            _ => Self::InternalError,
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of payload that follow.
    pub length: usize,
    /// The kind.
    pub kind: FrameKind,
    /// The flag bits.
    pub flags: u8,
    /// The stream, 0 for the connection itself.
    pub stream: u32,
}

impl FrameHead {
    /// Reads a header.
    #[inline]
    pub fn parse(bytes: [u8; HEAD_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            length: (usize::from(l0) << 16) | (usize::from(l1) << 8) | usize::from(l2),
            kind: FrameKind::from_wire(kind),
            flags,
            // The highest bit is reserved and must be ignored (RFC 9113, 4.1).
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        }
    }

    /// Whether a flag is set.
    #[inline]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The nine bytes of a frame's header.
#[inline]
pub fn head(kind: FrameKind, flags: u8, stream: u32, length: usize) -> [u8; HEAD_BYTES] {
    let length = u32::try_from(length).expect("our frames are at most 16 KiB");
    assert!(length < 1 << 24);
    let [_, l0, l1, l2] = length.to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [l0, l1, l2, kind.to_wire(), flags, s0, s1, s2, s3]
}

/// Appends a frame's header.
#[inline]
pub fn put_head(out: &mut Vec<u8>, kind: FrameKind, flags: u8, stream: u32, length: usize) {
    out.extend_from_slice(&head(kind, flags, stream, length));
}

/// Appends RST_STREAM.
pub fn put_reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    put_head(out, FrameKind::ResetStream, 0, stream, 4);
    out.extend_from_slice(&code.to_wire().to_be_bytes());
}

/// Appends WINDOW_UPDATE.
pub fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    assert!(increment > 0, "a window update of nothing is a protocol error");
    put_head(out, FrameKind::WindowUpdate, 0, stream, 4);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Appends PING.
pub fn put_ping(out: &mut Vec<u8>, flags: u8, opaque: [u8; 8]) {
    put_head(out, FrameKind::Ping, flags, 0, 8);
    out.extend_from_slice(&opaque);
}

/// Appends GOAWAY.
pub fn put_go_away(out: &mut Vec<u8>, last: u32, code: ErrorCode, text: &str) {
    put_head(out, FrameKind::GoAway, 0, 0, 8 + text.len());
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.to_wire().to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_the_wire() {
        for kind in 0..=10 {
            let kind = FrameKind::from_wire(kind);
            let bytes = head(kind, 0x25, 0x7fff_fffd, 0x00ab_cdef);
            let parsed = FrameHead::parse(bytes);
            assert_eq!(
                parsed,
                FrameHead { length: 0xab_cdef, kind, flags: 0x25, stream: 0x7fff_fffd }
            );
        }
    }

    #[test]
    fn the_reserved_bit_is_ignored() {
        let parsed = FrameHead::parse([0, 0, 0, 0, 0, 0x80, 0, 0, 1]);
        assert_eq!(parsed.stream, 1);
    }

    #[test]
    fn error_codes_survive_the_wire() {
        for code in 0..=0xd {
            assert_eq!(ErrorCode::from_wire(code).to_wire(), code);
        }
        assert_eq!(ErrorCode::from_wire(0x4711), ErrorCode::InternalError);
    }
}
