//! Header lists: what a block decoded to, and whether it is a well-formed request (RFC 9113, 8.2
//! and 8.3).
//!
//! Invariants:
//! - A list that is handed out is neither malformed nor larger than the limit.
//! - Fields lie behind each other in one buffer that is reused for the next block.

use super::hpack::table::ENTRY_OVERHEAD_BYTES;
use super::limits::HEADER_LIST_BYTES_MAX;

/// Which rules a block is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Opens a stream: pseudo-header fields first, the required ones present.
    Request,
    /// Ends one: no pseudo-header fields at all (8.1).
    Trailers,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    name_len: usize,
    value_len: usize,
}

/// The fields of one header block, in order.
#[derive(Clone, Debug, Default)]
pub struct HeaderList {
    bytes: Vec<u8>,
    places: Vec<Place>,
    size: usize,
    pseudo_seen: u8,
    connect: bool,
    regular_seen: bool,
    content_length: Option<u64>,
    malformed: Option<&'static str>,
    oversize: bool,
}

const METHOD: u8 = 1;
const SCHEME: u8 = 2;
const PATH: u8 = 4;
const AUTHORITY: u8 = 8;

impl HeaderList {
    /// Forgets everything but the buffers.
    pub fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut places = std::mem::take(&mut self.places);
        bytes.clear();
        places.clear();
        *self = Self { bytes, places, ..Self::default() };
    }

    /// Adds and checks one field. A wrong or superfluous one is noted, and the rest of the list is
    /// no longer kept; the caller goes on decoding all the same.
    pub fn push(&mut self, kind: BlockKind, name: &[u8], value: &[u8]) {
        if self.malformed.is_some() || self.oversize {
            return;
        }
        self.size += name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        if self.size > HEADER_LIST_BYTES_MAX {
            self.oversize = true;
            return;
        }
        if let Err(reason) = self.check(kind, name, value) {
            self.malformed = Some(reason);
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.places.push(Place { start, name_len: name.len(), value_len: value.len() });
    }

    /// Called behind the last field.
    pub fn finish(&mut self, kind: BlockKind) {
        if kind == BlockKind::Trailers || self.malformed.is_some() || self.oversize {
            return;
        }
        // CONNECT has no scheme and no path (8.5); any other method has both (8.3.1).
        let required = if self.connect { METHOD | AUTHORITY } else { METHOD | SCHEME | PATH };
        if self.pseudo_seen & required != required {
            self.malformed = Some("a required pseudo-header field is missing");
        }
        if self.connect && self.pseudo_seen & (SCHEME | PATH) != 0 {
            self.malformed = Some("CONNECT with a scheme or a path");
        }
    }

    fn check(&mut self, kind: BlockKind, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if name.first() == Some(&b':') {
            return self.check_pseudo(kind, name, value);
        }
        self.regular_seen = true;
        if name.is_empty() || !name.iter().all(|byte| NAME_BYTES[usize::from(*byte)]) {
            return Err("illegal byte in a field name");
        }
        check_value(value)?;
        match name {
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding"
            | b"upgrade" => Err("connection-specific field"),
            b"te" if value != b"trailers" => Err("te other than trailers"),
            b"content-length" => self.check_content_length(value),
            _ => Ok(()),
        }
    }

    fn check_pseudo(
        &mut self,
        kind: BlockKind,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), &'static str> {
        if kind == BlockKind::Trailers {
            return Err("pseudo-header field in trailers");
        }
        if self.regular_seen {
            return Err("pseudo-header field behind a regular one");
        }
        let bit = match name {
            b":method" => METHOD,
            b":scheme" => SCHEME,
            b":path" => PATH,
            b":authority" => AUTHORITY,
            _ => return Err("unknown pseudo-header field"),
        };
        if self.pseudo_seen & bit != 0 {
            return Err("pseudo-header field twice");
        }
        check_value(value)?;
        if bit == PATH && value.is_empty() {
            return Err("empty path");
        }
        self.connect |= bit == METHOD && value == b"CONNECT";
        self.pseudo_seen |= bit;
        Ok(())
    }

    fn check_content_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if !digits {
            return Err("content-length is not a number");
        }
        let length = value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        match self.content_length.replace(length) {
            Some(other) if other != length => Err("content-length twice"),
            _ => Ok(()),
        }
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.places.iter().map(|place| {
            let (name, rest) = self.bytes[place.start..].split_at(place.name_len);
            (name, &rest[..place.value_len])
        })
    }

    /// What content-length said, if present.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Why the list is malformed (RFC 9113, 8.1.1).
    pub fn malformed(&self) -> Option<&'static str> {
        self.malformed
    }

    /// Whether the list is larger than our limit.
    pub fn oversize(&self) -> bool {
        self.oversize
    }
}

/// Bytes that may stand in a field name: RFC 9113, 8.2.1 forbids these and no others.
static NAME_BYTES: [bool; 256] = {
    let mut legal = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        legal[byte] = !(byte >= 0x41 && byte <= 0x5a) && byte != b':' as usize;
        byte += 1;
    }
    legal
};

fn check_value(value: &[u8]) -> Result<(), &'static str> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if blank(value.first()) || blank(value.last()) {
        return Err("field value begins or ends with a blank");
    }
    // No early exit, so that the compiler may compare many bytes at once.
    let illegal = value.iter().fold(false, |bad, byte| bad | matches!(byte, 0 | b'\r' | b'\n'));
    if illegal { Err("illegal byte in a field value") } else { Ok(()) }
}
