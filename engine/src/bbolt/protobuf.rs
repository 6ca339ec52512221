//! As much protobuf as etcd's database has: numbers and bytes.
//!
//! Written as Go writes it (fields by number, zeros left out), because hashes are taken over the
//! bytes; read as Go reads it (any order, the last one counts, unknown fields are skipped).

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that none of our messages has.
    Other,
}

const NUMBER: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// Appends a number, unless it is zero.
pub(super) fn number_into(field: u64, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        varint_into(field << 3 | NUMBER, out);
        varint_into(number, out);
    }
}

/// Appends bytes, unless there are none.
pub(super) fn bytes_into(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        element_into(field, bytes, out);
    }
}

/// Appends bytes, be they none: a message inside a message, or one of several values.
pub(super) fn element_into(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    varint_into(field << 3 | BYTES, out);
    varint_into(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// How many bytes [`number_into`] appends, for fields below 16.
pub(super) fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + varint_len(number) }
}

/// How many bytes [`bytes_into`] appends, for fields below 16.
pub(super) fn bytes_len(len: usize) -> usize {
    if len == 0 { 0 } else { 1 + varint_len(len as u64) + len }
}

fn varint_len(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends a number, seven bits a byte.
pub(crate) fn varint_into(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// The fields of a message, in their order.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field and its value.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            NUMBER => Value::Number(self.varint()?),
            BYTES => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(len)?)
            }
            EIGHT_BYTES => self.take(8).map(|_| Value::Other)?,
            FOUR_BYTES => self.take(4).map(|_| Value::Other)?,
            _ => return Err(Malformed),
        };
        if tag >> 3 == 0 { Err(Malformed) } else { Ok(Some((tag >> 3, value))) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return Err(Malformed);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for bits in 0..64 {
            for number in [1 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                let mut out = Vec::new();
                number_into(3, number, &mut out);
                assert_eq!(out.len(), number_len(number), "{number}");
                let expected = (number != 0).then_some((3, Value::Number(number)));
                assert_eq!(Fields::new(&out).next(), Ok(expected));
            }
        }
        for len in [0, 1, 127, 128, 20_000] {
            let mut out = Vec::new();
            bytes_into(5, &vec![7; len], &mut out);
            assert_eq!(out.len(), bytes_len(len));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let fields = |bytes: &[u8]| {
            let mut fields = Fields::new(bytes);
            while fields.next()?.is_some() {}
            Ok(())
        };
        assert_eq!(fields(&[]), Ok(()));
        assert_eq!(fields(&[0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8]), Ok(()));
        let bad: [&[u8]; 7] = [
            &[0x08],       // no number
            &[0x0a, 2, 1], // bytes that are not there
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x0b],    // a group
            &[0x00, 0], // field 0
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x0d, 1, 2, 3], // a short number
        ];
        for bytes in bad {
            assert_eq!(fields(bytes), Err(Malformed), "{bytes:x?}");
        }
    }
}
