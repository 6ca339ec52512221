//! Length-prefixed messages out of body bytes (gRPC over HTTP/2, *Length-Prefixed-Message*).
//!
//! Invariants:
//! - A message is buffered only as far as its bytes have arrived; the length in the prefix is a
//!   claim, checked against the limit and otherwise not trusted.

use std::borrow::Cow;

use super::gzip;
use super::request::Encoding;
use super::status::{Code, Status};

/// A flag byte and four bytes of length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Puts the messages of one direction of one call together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    message: Vec<u8>,
}

/// The limits of messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageRules<'c> {
    pub(super) bytes_max: usize,
    pub(super) encoding: &'c Encoding,
}

impl Assembler {
    /// Takes bytes up to the end of the next message, and that message if it is complete. One in
    /// pieces is gathered in `spare` if that has a buffer.
    #[inline]
    pub(super) fn take<'i>(
        &mut self,
        bytes: &mut &'i [u8],
        rules: MessageRules<'_>,
        spare: &mut Vec<u8>,
    ) -> Result<Option<Cow<'i, [u8]>>, Status> {
        if self.prefix_len == 0
            && let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>()
        {
            let length = message_length(prefix, rules.bytes_max)?;
            if let Some((message, rest)) = rest.split_at_checked(length) {
                *bytes = rest;
                return decode(prefix[0], Cow::Borrowed(message), rules).map(Some);
            }
        }
        if self.message.capacity() == 0 {
            self.message = std::mem::take(spare);
            self.message.clear();
        }
        self.gather(bytes, rules)
    }

    /// The same for a message that arrives in pieces.
    fn gather<'i>(
        &mut self,
        bytes: &mut &'i [u8],
        rules: MessageRules<'_>,
    ) -> Result<Option<Cow<'i, [u8]>>, Status> {
        let missing = PREFIX_BYTES - self.prefix_len;
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        self.prefix[self.prefix_len..self.prefix_len + part.len()].copy_from_slice(part);
        self.prefix_len += part.len();
        *bytes = rest;
        if self.prefix_len < PREFIX_BYTES {
            return Ok(None);
        }
        let length = message_length(&self.prefix, rules.bytes_max)?;
        let missing = length - self.message.len();
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        self.message.extend_from_slice(part);
        *bytes = rest;
        if self.message.len() < length {
            return Ok(None);
        }
        self.prefix_len = 0;
        let message = std::mem::take(&mut self.message);
        decode(self.prefix[0], Cow::Owned(message), rules).map(Some)
    }

    /// Bytes of a message whose end has not arrived.
    pub(super) fn gathered_bytes(&self) -> usize {
        self.message.len()
    }

    /// Whether a prefix is complete but its message is not. A part of a prefix counts as nothing,
    /// as it does for grpc-go.
    pub(super) fn inside_message(&self) -> bool {
        self.prefix_len == PREFIX_BYTES
    }

    /// Forgets what has been gathered; the buffer is the result.
    pub(super) fn reset(&mut self) -> Vec<u8> {
        self.prefix_len = 0;
        std::mem::take(&mut self.message)
    }
}

#[inline]
fn message_length(prefix: &[u8; PREFIX_BYTES], bytes_max: usize) -> Result<usize, Status> {
    let [_, l0, l1, l2, l3] = *prefix;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length > bytes_max {
        let text = format!("grpc: received message larger than max ({length} vs. {bytes_max})");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    Ok(length)
}

#[inline]
fn decode<'i>(
    flag: u8,
    message: Cow<'i, [u8]>,
    rules: MessageRules<'_>,
) -> Result<Cow<'i, [u8]>, Status> {
    match (flag, rules.encoding) {
        (0, _) => Ok(message),
        (1, Encoding::Gzip) => gzip::unpack(&message, rules.bytes_max).map(Cow::Owned),
        (1, Encoding::Identity) => {
            let text = "grpc: compressed flag set with identity or empty encoding";
            Err(Status::new(Code::Internal, text))
        }
        (other, _) => {
            let text = format!("grpc: received unexpected payload format {other}");
            Err(Status::new(Code::Internal, text))
        }
    }
}
