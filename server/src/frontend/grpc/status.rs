//! Status codes and how a message travels in a header.
//!
//! Invariants:
//! - An encoded message is printable ASCII whatever the text was.

use std::borrow::Cow;

use super::connection::SEND_BYTES_MAX;

/// gRPC's seventeen codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Success.
    Ok,
    /// Cancelled, usually by the caller.
    Canceled,
    /// An error without a better code.
    Unknown,
    /// The request is wrong whatever the state.
    InvalidArgument,
    /// Too late.
    DeadlineExceeded,
    /// No such thing.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// The caller may not.
    PermissionDenied,
    /// A quota or limit is used up.
    ResourceExhausted,
    /// The state does not allow it.
    FailedPrecondition,
    /// Lost against a concurrent change.
    Aborted,
    /// Beyond the valid range.
    OutOfRange,
    /// There is no such method.
    Unimplemented,
    /// Something is broken.
    Internal,
    /// Try again later.
    Unavailable,
    /// Data is lost.
    DataLoss,
    /// Who is the caller?
    Unauthenticated,
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Canceled => 1,
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::DataLoss => 15,
            Self::Unauthenticated => 16,
        }
    }

    /// The number as a header value.
    pub(super) const fn header_value(self) -> &'static [u8] {
        const VALUES: [&[u8]; 17] = [
            b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"10", b"11", b"12", b"13",
            b"14", b"15", b"16",
        ];
        VALUES[self.number() as usize]
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text for people, and for clients that compare it.
    pub message: Cow<'static, str>,
}

impl Status {
    /// Success.
    pub const OK: Self = Self { code: Code::Ok, message: Cow::Borrowed("") };

    /// A status with a text.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// An answer would be larger than may be sent.
    #[must_use]
    pub fn message_too_large(size_bytes: u64) -> Self {
        let text = format!(
            "grpc: trying to send message larger than max ({size_bytes} vs. {SEND_BYTES_MAX})"
        );
        Self::new(Code::ResourceExhausted, text)
    }
}

/// The text as the value of `grpc-message`: percent-encoded where it is not plain.
pub(super) fn encode_message(text: &str) -> Cow<'_, [u8]> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(byte) {
            out.push(byte);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 0xf)],
            ]);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_travel_in_printable_ascii() {
        let cases = [
            ("", ""),
            ("etcdserver: mvcc: required revision", "etcdserver: mvcc: required revision"),
            ("100%\n", "100%25%0A"),
            ("proto:\u{a0}cannot", "proto:%C2%A0cannot"),
            ("f\u{fffd}oo\u{7f}", "f%EF%BF%BDoo%7F"),
        ];
        for (text, encoded) in cases {
            assert_eq!(encode_message(text), encoded.as_bytes());
        }
    }
}
