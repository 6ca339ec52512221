//! Protobuf by hand, for the messages that come and go by the hundred thousand.
//!
//! [`Fields`] walks a received message without copying: bytes are handed out as slices of the
//! receive buffer. The `put_*` functions append to an answer that the caller owns; they leave out
//! zero fields, so that what they write equals byte for byte what a generated encoder writes.
//!
//! Invariants:
//! - Any bytes are either walked to their end or refused; nothing received can panic in here.
//! - A field of a known number and an unexpected wire type is skipped like an unknown field. That
//!   is how Go's protobuf reads it, and so what clients of etcd can have come to rely on.

use engine::range::Record;

use super::proto::etcdserverpb as pb;

/// Bytes that are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a field of a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// An integer, an enum or a bool.
    Varint(u64),
    /// Bytes, a string or a nested message.
    Bytes(&'a [u8]),
    /// Fixed-width numbers and groups: none of our messages has any.
    Skipped,
}

impl<'a> Value<'a> {
    /// Stores an integer; a value of another wire type is an unknown field.
    pub(super) fn set_int64(self, target: &mut i64) {
        if let Self::Varint(number) = self {
            *target = number.cast_signed();
        }
    }

    /// Stores an enum's number, whether it is a known one or not.
    pub(super) fn set_enum(self, target: &mut i32) {
        if let Self::Varint(number) = self {
            *target = truncate_enum(number);
        }
    }

    /// Stores a bool.
    pub(super) fn set_bool(self, target: &mut bool) {
        if let Self::Varint(number) = self {
            *target = number != 0;
        }
    }

    /// Stores bytes without copying them.
    pub(super) fn set_bytes(self, target: &mut &'a [u8]) {
        if let Self::Bytes(bytes) = self {
            *target = bytes;
        }
    }
}

/// Enums are 32 bits wide and sign-extended on the wire; the format says to drop the upper half.
#[allow(clippy::cast_possible_truncation)]
const fn truncate_enum(number: u64) -> i32 {
    number as i32
}

/// The fields of one message, in the order of their arrival.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
}

/// The largest number a field can have.
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// Groups within groups, which only an unknown field can hold. Go allows ten thousand; nobody has
/// been seen to send one, and our stack is smaller.
const GROUP_DEPTH_MAX: usize = 64;

impl<'a> Fields<'a> {
    /// A walk over a message.
    pub(crate) const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next field; `None` at the message's end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let value = self.value(number, wire_type, GROUP_DEPTH_MAX)?;
        Ok(Some((number, value)))
    }

    fn tag(&mut self) -> Result<(u64, u64), Malformed> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > FIELD_NUMBER_MAX {
            return Err(Malformed);
        }
        Ok((number, tag & 7))
    }

    fn value(&mut self, number: u64, wire_type: u64, depth: usize) -> Result<Value<'a>, Malformed> {
        match wire_type {
            0 => self.varint().map(Value::Varint),
            1 => self.take(8).map(|_| Value::Skipped),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                self.take(len).map(Value::Bytes)
            }
            3 => self.skip_group(number, depth),
            5 => self.take(4).map(|_| Value::Skipped),
            _ => Err(Malformed),
        }
    }

    fn skip_group(&mut self, group: u64, depth: usize) -> Result<Value<'a>, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        loop {
            let (number, wire_type) = self.tag()?;
            if wire_type == 4 {
                return if number == group { Ok(Value::Skipped) } else { Err(Malformed) };
            }
            self.value(number, wire_type, depth)?;
        }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        // Nearly all tags and lengths are one byte.
        if let [byte @ 0..=0x7f, rest @ ..] = self.bytes {
            self.bytes = rest;
            return Ok(u64::from(*byte));
        }
        let mut number = 0;
        for (index, byte) in self.bytes.iter().take(10).enumerate() {
            if index == 9 && *byte > 1 {
                return Err(Malformed);
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.bytes = &self.bytes[index + 1..];
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }
}

/// The size of a number on the wire.
#[inline]
pub(super) const fn varint_len(number: u64) -> usize {
    // A number of b bits takes b / 7 bytes, rounded up; this is the same without a division.
    let bits = 64 - (number | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// Appends a number.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(low_byte(number) | 0x80);
        number >>= 7;
    }
    out.push(low_byte(number));
}

#[inline]
const fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

const WIRE_VARINT: u64 = 0;
const WIRE_BYTES: u64 = 2;

/// Appends an unsigned field unless it is zero.
pub(super) fn put_uint64(out: &mut Vec<u8>, field: u64, number: u64) {
    if number != 0 {
        put_varint(out, field << 3 | WIRE_VARINT);
        put_varint(out, number);
    }
}

/// Appends a signed field unless it is zero.
pub(super) fn put_int64(out: &mut Vec<u8>, field: u64, number: i64) {
    put_uint64(out, field, number.cast_unsigned());
}

/// Appends a bool unless it is false.
pub(super) fn put_bool(out: &mut Vec<u8>, field: u64, set: bool) {
    put_uint64(out, field, u64::from(set));
}

/// Opens a field of `len` bytes.
pub(super) fn put_len(out: &mut Vec<u8>, field: u64, len: usize) {
    put_varint(out, field << 3 | WIRE_BYTES);
    put_varint(out, len as u64);
}

/// Appends a nested message whose size is known only once it is written. One byte is left for the
/// length; a longer message is moved up, which costs a copy of what was just written and spares a
/// walk over it to count first.
pub(super) fn put_nested(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, field << 3 | WIRE_BYTES);
    let start = out.len() + 1;
    out.push(0);
    write(out);
    close_nested(out, start);
}

/// Fixes the length of a nested message that begins at `start`, behind one byte left for it.
pub(super) fn close_nested(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    let extra = varint_len(len as u64) - 1;
    if extra > 0 {
        let end = out.len();
        out.resize(end + extra, 0);
        out.copy_within(start..end, start + extra);
    }
    let mut rest = len as u64;
    for byte in &mut out[start - 1..start + extra] {
        *byte = low_byte(rest) | 0x80;
        rest >>= 7;
    }
    out[start + extra - 1] &= 0x7f;
}

/// What stands first in nearly every answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The id of the member that answers.
    pub member_id: u64,
    /// The store's revision for this answer; zero is left out.
    pub revision: i64,
    /// The answering member's raft term.
    pub raft_term: u64,
}

impl Header {
    /// The header as a message, for the answers that are seldom enough to be generated.
    pub(super) fn to_proto(self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.raft_term,
        }
    }
}

/// Appends a header as field 1, where every answer has it.
pub(super) fn put_header(out: &mut Vec<u8>, header: &Header) {
    put_nested(out, 1, |out| {
        put_uint64(out, 1, header.cluster_id);
        put_uint64(out, 2, header.member_id);
        put_int64(out, 3, header.revision);
        put_uint64(out, 4, header.raft_term);
    });
}

const fn int64_field_len(number: i64) -> usize {
    if number == 0 { 0 } else { 1 + varint_len(number.cast_unsigned()) }
}

const fn bytes_field_len(len: usize) -> usize {
    if len == 0 { 0 } else { 1 + varint_len(len as u64) + len }
}

/// The size of a record as a `KeyValue`.
#[inline]
pub(super) const fn record_len(record: &Record<'_>) -> usize {
    bytes_field_len(record.key.len())
        + int64_field_len(record.create_revision.0)
        + int64_field_len(record.mod_revision.0)
        + int64_field_len(record.version)
        + bytes_field_len(record.value.len())
        + int64_field_len(record.lease.0)
}

/// The size of a nested message of `len` bytes as one of the first fifteen fields.
#[inline]
pub(super) const fn nested_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends a record as a nested `KeyValue`.
///
/// The numbers are gathered on the stack first: appended one byte at a time they cost more than
/// the copy of a value of some hundred bytes.
pub(super) fn put_record(out: &mut Vec<u8>, field: u64, record: &Record<'_>) {
    put_record_of_len(out, field, record, record_len(record));
}

/// The same for a caller who knows what [`record_len`] says.
#[inline]
pub(super) fn put_record_of_len(out: &mut Vec<u8>, field: u64, record: &Record<'_>, len: usize) {
    debug_assert_eq!(len, record_len(record));
    out.reserve(len + 2 * VARINT_SIZE_BYTES_MAX);
    let mut head = Gathered::<{ 2 * (1 + VARINT_SIZE_BYTES_MAX) }>::new();
    head.open_bytes(field, len);
    if !record.key.is_empty() {
        head.open_bytes(1, record.key.len());
    }
    out.extend_from_slice(head.bytes());
    out.extend_from_slice(record.key);
    let mut numbers = Gathered::<{ 4 * (1 + VARINT_SIZE_BYTES_MAX) }>::new();
    numbers.int64(2, record.create_revision.0);
    numbers.int64(3, record.mod_revision.0);
    numbers.int64(4, record.version);
    if !record.value.is_empty() {
        numbers.open_bytes(5, record.value.len());
    }
    out.extend_from_slice(numbers.bytes());
    out.extend_from_slice(record.value);
    put_int64(out, 6, record.lease.0);
}

/// The longest number.
const VARINT_SIZE_BYTES_MAX: usize = 10;

/// A few numbers on their way into an answer, each behind a tag of one byte.
struct Gathered<const SIZE: usize> {
    bytes: [u8; SIZE],
    len: usize,
}

impl<const SIZE: usize> Gathered<SIZE> {
    #[inline]
    const fn new() -> Self {
        Self { bytes: [0; SIZE], len: 0 }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(low_byte(number) | 0x80);
            number >>= 7;
        }
        self.push(low_byte(number));
    }

    #[inline]
    fn int64(&mut self, field: u64, number: i64) {
        if number != 0 {
            self.push(low_byte(field << 3 | WIRE_VARINT));
            self.varint(number.cast_unsigned());
        }
    }

    #[inline]
    fn open_bytes(&mut self, field: u64, len: usize) {
        self.push(low_byte(field << 3 | WIRE_BYTES));
        self.varint(len as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(message: &[u8]) -> Result<Vec<(u64, Value<'_>)>, Malformed> {
        let mut fields = Fields::of(message);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn fields_are_walked_as_go_walks_them() {
        use Value::{Bytes, Skipped, Varint};
        type Walked<'a> = Result<Vec<(u64, Value<'a>)>, Malformed>;
        let table: [(&[u8], Walked<'_>); 18] = [
            (b"", Ok(vec![])),
            (b"\x0a\x01k", Ok(vec![(1, Bytes(b"k"))])),
            (b"\x18\x00", Ok(vec![(3, Varint(0))])),
            (b"\x18\x80\x00", Ok(vec![(3, Varint(0))])),
            (b"\x98\x00\x01", Ok(vec![(3, Varint(1))])),
            (b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Ok(vec![(3, Varint(u64::MAX))])),
            // A number of more than 64 bits, and one that does not end.
            (b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Err(Malformed)),
            (b"\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", Err(Malformed)),
            (b"\x18\x80", Err(Malformed)),
            (b"\x0a\x02k", Err(Malformed)),
            // Fixed width.
            (b"\x09\0\0\0\0\0\0\0\0\x0d\0\0\0\0", Ok(vec![(1, Skipped), (1, Skipped)])),
            (b"\x09\0\0\0\0\0\0\0", Err(Malformed)),
            // Field number zero, and wire types that do not exist.
            (b"\x02\x00", Err(Malformed)),
            (b"\x0e\x00", Err(Malformed)),
            // Groups: nested, with another end, without one, and an end alone.
            (b"\x0b\x13\x14\x18\x01\x0c", Ok(vec![(1, Skipped)])),
            (b"\x0b\x14", Err(Malformed)),
            (b"\x0b\x18\x01", Err(Malformed)),
            (b"\x0c", Err(Malformed)),
        ];
        for (message, expected) in table {
            assert_eq!(walk(message), expected, "{message:x?}");
        }
    }

    #[test]
    fn groups_cannot_exhaust_the_stack() {
        assert_eq!(walk(&vec![0x0b; 1 << 20]), Err(Malformed));
    }

    #[test]
    fn numbers_have_the_length_they_are_said_to_have() {
        for shift in 0..64 {
            for number in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, number);
                assert_eq!(out.len(), varint_len(number), "{number}");
                out.insert(0, 8);
                assert_eq!(walk(&out), Ok(vec![(1, Value::Varint(number))]));
            }
        }
    }

    #[test]
    fn nested_messages_of_any_size_get_their_length() {
        for len in [0, 1, 126, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_151, 2_097_152] {
            let body = vec![7_u8; len];
            let mut out = vec![42];
            put_nested(&mut out, 1, |out| out.extend_from_slice(&body));
            put_varint(&mut out, 16);
            put_varint(&mut out, 5);
            let expected = vec![(1, Value::Bytes(&body[..])), (2, Value::Varint(5))];
            assert_eq!(walk(&out[1..]), Ok(expected), "{len}");
        }
    }
}
