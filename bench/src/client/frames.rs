//! HTTP/2 frames as bytes: the nine-byte header and the few frames that a client sends.
//!
//! Nothing here knows streams or windows. Writers append to the caller's buffer; the parser looks
//! at a header only and leaves the payload where it was received.
//!
//! Invariants:
//! - A header that is parsed and written again gives the same nine bytes (the reserved bit, which
//!   receivers must ignore, is cleared).
//! - No writer produces a payload above [`FRAME_SIZE_BYTES_MAX`].

/// The size of every frame's header.
pub const FRAME_HEADER_BYTES: usize = 9;
/// The largest payload that both sides may send unasked; we neither raise it nor exceed it.
pub const FRAME_SIZE_BYTES_MAX: usize = 16_384;
/// What a client says first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub mod kind {
    /// Carries a piece of a message.
    pub const DATA: u8 = 0;
    /// Opens a stream, answers one, or closes one with trailers.
    pub const HEADERS: u8 = 1;
    /// Ends one stream at once.
    pub const RST_STREAM: u8 = 3;
    /// The sender's limits.
    pub const SETTINGS: u8 = 4;
    /// A promise we never asked for.
    pub const PUSH_PROMISE: u8 = 5;
    /// A question to be echoed.
    pub const PING: u8 = 6;
    /// The sender takes no new streams.
    pub const GOAWAY: u8 = 7;
    /// More room in a window.
    pub const WINDOW_UPDATE: u8 = 8;
    /// The rest of a header block.
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    /// The sender has nothing more to say on this stream (DATA, HEADERS).
    pub const END_STREAM: u8 = 0x1;
    /// The echo of a SETTINGS or PING frame.
    pub const ACK: u8 = 0x1;
    /// The header block is complete.
    pub const END_HEADERS: u8 = 0x4;
    /// A pad length and padding surround the payload.
    pub const PADDED: u8 = 0x8;
    /// Five bytes of priority precede the header block.
    pub const PRIORITY: u8 = 0x20;
}

/// SETTINGS identifiers.
pub mod setting {
    /// The size of the dynamic table that the peer's encoder may use.
    pub const HEADER_TABLE_SIZE: u16 = 1;
    /// Whether promises are welcome.
    pub const ENABLE_PUSH: u16 = 2;
    /// How many streams we may have open.
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    /// The send window that every stream starts with.
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The payload's length.
    pub len: u32,
    /// One of [`kind`], or something to be skipped.
    pub kind: u8,
    /// A set of [`flag`]s, read by kind.
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream_id: u32,
}

impl FrameHeader {
    /// Reads a header from the first nine bytes, if they are there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes;
        Some(Self {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream_id: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    /// Appends the header.
    pub fn write(self, out: &mut Vec<u8>) {
        let [high, a, b, c] = self.len.to_be_bytes();
        assert!(high == 0, "a frame of {} bytes", self.len);
        let [s0, s1, s2, s3] = self.stream_id.to_be_bytes();
        out.extend_from_slice(&[a, b, c, self.kind, self.flags, s0, s1, s2, s3]);
    }

    /// Whether a flag is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a whole frame.
pub fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream_id: u32, payload: &[u8]) {
    write_header(out, kind, flags, stream_id, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the header of a frame whose payload follows in pieces.
pub fn write_header(out: &mut Vec<u8>, kind: u8, flags: u8, stream_id: u32, len: usize) {
    assert!(len <= FRAME_SIZE_BYTES_MAX, "a frame of {len} bytes");
    let len = u32::try_from(len).expect("it is below the frame limit");
    FrameHeader { len, kind, flags, stream_id }.write(out);
}

/// Appends a SETTINGS frame.
pub fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    write_header(out, kind::SETTINGS, 0, 0, settings.len() * 6);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends a WINDOW_UPDATE frame.
pub fn write_window_update(out: &mut Vec<u8>, stream_id: u32, increment: u32) {
    assert!(increment > 0 && increment < 1 << 31, "a window grows by {increment}");
    write_frame(out, kind::WINDOW_UPDATE, 0, stream_id, &increment.to_be_bytes());
}

/// The settings in a SETTINGS payload; a payload of a wrong length gives `None`.
pub fn settings(payload: &[u8]) -> Option<impl Iterator<Item = (u16, u32)> + '_> {
    let (entries, rest) = payload.as_chunks::<6>();
    rest.is_empty().then(|| {
        entries.iter().map(|&[i0, i1, v0, v1, v2, v3]| {
            (u16::from_be_bytes([i0, i1]), u32::from_be_bytes([v0, v1, v2, v3]))
        })
    })
}

/// The part of a DATA or HEADERS payload that is neither padding nor priority.
pub fn unpadded(header: FrameHeader, payload: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    let mut end = payload.len();
    if header.has(flag::PADDED) {
        start = 1;
        end = end.checked_sub(usize::from(*payload.first()?))?;
    }
    if header.kind == kind::HEADERS && header.has(flag::PRIORITY) {
        start += 5;
    }
    (start <= end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = FrameHeader { len: 0x01_02_03, kind: 1, flags: 5, stream_id: 0x7fff_ffff };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        assert_eq!(bytes, [1, 2, 3, 1, 5, 0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(FrameHeader::parse(&bytes), Some(header));
        bytes[5] |= 0x80;
        assert_eq!(FrameHeader::parse(&bytes), Some(header), "the reserved bit is ignored");
        assert_eq!(FrameHeader::parse(&bytes[..8]), None);
    }

    #[test]
    fn settings_are_read_as_written() {
        let mut bytes = Vec::new();
        write_settings(
            &mut bytes,
            &[(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, 16_384)],
        );
        let payload = &bytes[FRAME_HEADER_BYTES..];
        let read: Vec<_> = settings(payload).unwrap().collect();
        assert_eq!(read, [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, 16_384)]);
        assert!(settings(&payload[..7]).is_none());
    }

    #[test]
    fn padding_and_priority_are_cut_off() {
        let header = |kind, flags| FrameHeader { len: 0, kind, flags, stream_id: 1 };
        let padded = [2, b'a', b'b', 0, 0];
        assert_eq!(unpadded(header(kind::DATA, flag::PADDED), &padded), Some(1..3));
        assert_eq!(unpadded(header(kind::DATA, 0), &padded), Some(0..5));
        let both = [1, 0, 0, 0, 0, 0, b'h', 0];
        let flags = flag::PADDED | flag::PRIORITY;
        assert_eq!(unpadded(header(kind::HEADERS, flags), &both), Some(6..7));
        assert_eq!(unpadded(header(kind::DATA, flag::PADDED), &[9, 0]), None, "too much padding");
        assert_eq!(unpadded(header(kind::DATA, flag::PADDED), &[]), None);
    }
}
