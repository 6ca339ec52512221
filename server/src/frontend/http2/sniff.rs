//! Which protocol a client speaks, told by its first bytes, before anything is parsed.
//!
//! Invariants:
//! - The answer for a prefix is `NeedMore` or the answer for every longer input that it begins.

use super::frame::PREFACE;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The HTTP/2 preface (prior knowledge).
    Http2,
    /// An HTTP/1.x request line.
    Http1,
    /// Too few bytes to tell.
    NeedMore,
    /// Neither; for instance TLS on a plain-text port.
    Unknown,
}

/// The longest method that is taken for HTTP/1.x; the longest registered one has 17 letters.
const METHOD_BYTES_MAX: usize = 24;

/// Tells the protocol. Call it with all bytes so far; at most 25 of them are looked at.
pub fn sniff(bytes: &[u8]) -> Protocol {
    let seen = bytes.len().min(PREFACE.len());
    if bytes[..seen] == PREFACE[..seen] {
        return if seen == PREFACE.len() { Protocol::Http2 } else { Protocol::NeedMore };
    }
    // A request line opens with a token of upper-case letters and one space. The preface itself
    // looks like one ("PRI"), which is why it is tried first.
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-');
    match method.count() {
        0 => Protocol::Unknown,
        length if length > METHOD_BYTES_MAX => Protocol::Unknown,
        length if length == bytes.len() => Protocol::NeedMore,
        length if bytes[length] == b' ' => Protocol::Http1,
        _ => Protocol::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_needs_more_or_agrees_with_the_whole() {
        let cases: [(&[u8], Protocol); 6] = [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Protocol::Http2),
            (b"GET /version HTTP/1.1\r\n", Protocol::Http1),
            (b"POST /v3/kv/put HTTP/1.1\r\n", Protocol::Http1),
            (b"PRI * HTTP/1.1\r\n\r\n", Protocol::Http1),
            (b"\x16\x03\x01\x02\x00", Protocol::Unknown),
            (b"GETGETGETGETGETGETGETGETGETGETGET", Protocol::Unknown),
        ];
        for (bytes, whole) in cases {
            assert_eq!(sniff(bytes), whole, "{:?}", String::from_utf8_lossy(bytes));
            for cut in 0..bytes.len() {
                let part = sniff(&bytes[..cut]);
                assert!(
                    part == Protocol::NeedMore || part == whole,
                    "{cut} of {bytes:?}: {part:?}"
                );
            }
        }
    }
}
