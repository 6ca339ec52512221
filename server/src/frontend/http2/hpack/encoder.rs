//! The encoder: as much of HPACK as answers need.
//!
//! A gRPC server sends the same two or three fields with every answer. These are *pinned*: the
//! first time each goes out as a literal that the client inserts into its table, afterwards as one
//! byte. Nothing else is ever inserted, so pinned entries are evicted only by a smaller table.
//! All else are plain literals, not Huffman-coded: they occur in errors, where a few bytes do not
//! count. Sparing some 25 bytes an answer makes it a third shorter and is cheaper for both sides.
//!
//! Invariants:
//! - Blocks are sent in the order in which they are encoded.
//! - The sizes of the inserted entries never exceed the size of the client's table.

use super::table::{ENTRY_OVERHEAD_BYTES, STATIC};

/// How many fields may be pinned.
pub const PINNED_MAX: usize = 4;

/// A field to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// An entry of the static table.
    Static(u8),
    /// One of the fields given to [`Encoder::new`].
    Pinned(u8),
    /// Anything else; the name is in lower case.
    Literal(&'a [u8], &'a [u8]),
}

/// `:status: 200` as an entry of the static table.
pub const STATUS_200: Field<'static> = Field::Static(8);

/// The encoder of one connection.
#[derive(Debug)]
pub struct Encoder {
    pinned: &'static [(&'static [u8], &'static [u8])],
    /// When each pinned field was inserted, counted from 1; 0 while it is not in the table.
    inserted_as: [u8; PINNED_MAX],
    inserted_count: u8,
    inserted_bytes: usize,
    table_bytes: usize,
    /// The client shrank its table: tell it so before the next field (RFC 7541, 4.2).
    update_due: bool,
}

impl Encoder {
    /// An encoder for a client's table of the default size.
    pub fn new(pinned: &'static [(&'static [u8], &'static [u8])], table_bytes: usize) -> Self {
        assert!(pinned.len() <= PINNED_MAX, "{} fields to pin", pinned.len());
        Self {
            pinned,
            inserted_as: [0; PINNED_MAX],
            inserted_count: 0,
            inserted_bytes: 0,
            table_bytes,
            update_due: false,
        }
    }

    /// Takes the client's SETTINGS_HEADER_TABLE_SIZE. A larger table than now is not taken up: we
    /// may always use less (RFC 7541, 4.2). For a smaller one everything is evicted and inserted
    /// again on demand, which is simpler than to keep what fits and happens once a connection.
    pub fn set_table_bytes(&mut self, table_bytes: usize) {
        if table_bytes >= self.table_bytes {
            return;
        }
        self.table_bytes = table_bytes;
        self.inserted_as = [0; PINNED_MAX];
        self.inserted_count = 0;
        self.inserted_bytes = 0;
        self.update_due = true;
    }

    /// Appends one header block.
    #[inline]
    pub fn encode(&mut self, fields: &[Field<'_>], out: &mut Vec<u8>) {
        if self.update_due {
            self.update_due = false;
            // First to nothing, which evicts all, then to the new size.
            out.push(0x20);
            put_integer(out, 0x20, 5, self.table_bytes);
        }
        for field in fields {
            match *field {
                Field::Static(index) => {
                    assert!(index >= 1 && usize::from(index) <= STATIC.len());
                    out.push(0x80 | index);
                }
                Field::Pinned(which) => {
                    let order = self.inserted_as[usize::from(which)];
                    if order == 0 {
                        self.pin(which, out);
                    } else {
                        // The newest entry has the index behind the static table.
                        let age = usize::from(self.inserted_count - order);
                        put_integer(out, 0x80, 7, STATIC.len() + 1 + age);
                    }
                }
                Field::Literal(name, value) => put_literal(out, 0x00, name, value),
            }
        }
    }

    #[cold]
    fn pin(&mut self, which: u8, out: &mut Vec<u8>) {
        let (name, value) = self.pinned[usize::from(which)];
        let size = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        if self.inserted_bytes + size > self.table_bytes {
            put_literal(out, 0x00, name, value);
            return;
        }
        put_literal(out, 0x40, name, value);
        self.inserted_bytes += size;
        self.inserted_count += 1;
        self.inserted_as[usize::from(which)] = self.inserted_count;
    }

    /// The size of a header list as the client counts it (RFC 9113, 6.5.2).
    pub fn list_bytes(&self, fields: &[Field<'_>]) -> usize {
        let mut size = 0;
        for field in fields {
            let (name, value) = match *field {
                Field::Static(index) => STATIC[usize::from(index) - 1],
                Field::Pinned(which) => self.pinned[usize::from(which)],
                Field::Literal(name, value) => (name, value),
            };
            size += name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        }
        size
    }
}

fn put_literal(out: &mut Vec<u8>, kind: u8, name: &[u8], value: &[u8]) {
    out.push(kind);
    put_integer(out, 0x00, 7, name.len());
    out.extend_from_slice(name);
    put_integer(out, 0x00, 7, value.len());
    out.extend_from_slice(value);
}

/// An integer with a prefix of so many bits (RFC 7541, 5.1).
fn put_integer(out: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let mask = (1usize << prefix_bits) - 1;
    let low = |value: usize| u8::try_from(value).expect("masked or compared to fit a byte");
    if value < mask {
        out.push(pattern | low(value));
        return;
    }
    out.push(pattern | low(mask));
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(0x80 | low(rest & 0x7f));
        rest >>= 7;
    }
    out.push(low(rest));
}

#[cfg(test)]
mod tests {
    use super::super::decoder::Decoder;
    use super::*;

    const PINNED: &[(&[u8], &[u8])] =
        &[(b"content-type", b"application/grpc"), (b"grpc-status", b"0")];

    struct Pair {
        encoder: Encoder,
        decoder: Decoder,
    }

    impl Pair {
        fn new() -> Self {
            Self { encoder: Encoder::new(PINNED, 4096), decoder: Decoder::new(4096) }
        }

        /// Encodes and decodes; returns the block's length and the fields.
        fn pass(&mut self, fields: &[Field<'_>]) -> (usize, String) {
            let mut block = Vec::new();
            self.encoder.encode(fields, &mut block);
            let mut text = String::new();
            let mut size = 0;
            self.decoder
                .decode(&block, |name, value| {
                    size += name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
                    text += &String::from_utf8([name, b"=", value, b" "].concat()).unwrap();
                })
                .unwrap();
            assert_eq!(size, self.encoder.list_bytes(fields));
            (block.len(), text)
        }
    }

    #[test]
    fn pinned_fields_cost_one_byte_from_the_second_time_on() {
        let mut pair = Pair::new();
        let head = [STATUS_200, Field::Pinned(0)];
        let (first, text) = pair.pass(&head);
        assert_eq!((first, text.as_str()), (32, ":status=200 content-type=application/grpc "));
        assert_eq!(pair.pass(&[Field::Pinned(1)]).1, "grpc-status=0 ");
        assert_eq!(pair.pass(&head), (2, text));
        assert_eq!(pair.pass(&[Field::Pinned(1)]), (1, "grpc-status=0 ".to_owned()));
    }

    #[test]
    fn a_client_may_shrink_its_table_at_any_time() {
        let all = [STATUS_200, Field::Pinned(0), Field::Pinned(1)];
        for table_bytes in [0, 43, 44, 60, 103, 104, 200, 4096, 10_000] {
            let mut pair = Pair::new();
            let (_, text) = pair.pass(&all);
            pair.encoder.set_table_bytes(table_bytes);
            let mut block = Vec::new();
            pair.encoder.encode(&all, &mut block);
            // A peer whose setting went down insists on being told (RFC 7541, 4.2): first that
            // all is evicted, then the new size.
            let told = block.starts_with(&[0x20]) && block[1] & 0xe0 == 0x20;
            assert_eq!(told, table_bytes < 4096, "{table_bytes}: {block:x?}");
            pair.decoder.decode(&block, |_, _| ()).unwrap();
            for _ in 0..3 {
                assert_eq!(pair.pass(&all).1, text, "{table_bytes}");
            }
        }
    }

    #[test]
    fn long_literals_survive() {
        let mut pair = Pair::new();
        for length in [0, 1, 126, 127, 128, 254, 255, 256, 20_000] {
            let value = vec![b'v'; length];
            let (_, text) = pair.pass(&[Field::Literal(b"grpc-message", &value)]);
            assert_eq!(text.len(), "grpc-message= ".len() + length);
        }
    }
}
