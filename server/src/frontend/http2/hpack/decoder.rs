//! The decoder: a header block in, fields out (RFC 7541, section 6).
//!
//! Invariants:
//! - A block is decoded to its end even when its list is too large to be kept, because the dynamic
//!   table must stay what the client believes it to be.
//! - Work is linear in the block's length: a field costs a table look-up, or the bytes it brings.

use super::HpackError;
use super::huffman;
use super::table::DynamicTable;

/// The most bytes that an integer may take: 7 bits each, so 28 bits and the prefix. Nothing that
/// fits into a block of ours is larger.
const INTEGER_BYTES_MAX: usize = 4;

/// The decoder of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Where a string literal's bytes are.
enum Literal<'b> {
    InBlock(&'b [u8]),
    Decoded,
}

impl Decoder {
    /// A decoder whose table has the size of our setting.
    pub fn new(table_bytes_max: usize) -> Self {
        Self { table: DynamicTable::new(table_bytes_max), name: Vec::new(), value: Vec::new() }
    }

    /// Changes whenever a block has changed the dynamic table.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// Decodes one block, handing each field to `field`.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut cursor = Cursor { rest: block };
        let mut fields_seen = false;
        while let Some(&first) = cursor.rest.first() {
            if first & 0x80 != 0 {
                let (name, value) = self.table.get(cursor.integer(7)?)?;
                field(name, value);
            } else if first & 0xe0 == 0x20 {
                // Only at the start of a block (RFC 7541, 4.2).
                if fields_seen {
                    return Err(HpackError::BadSizeUpdate);
                }
                self.table.resize(cursor.integer(5)?)?;
                continue;
            } else {
                let insert = first & 0x40 != 0;
                let index = cursor.integer(if insert { 6 } else { 4 })?;
                self.literal(&mut cursor, index, insert, &mut field)?;
            }
            fields_seen = true;
        }
        Ok(())
    }

    fn literal(
        &mut self,
        cursor: &mut Cursor<'_>,
        index: usize,
        insert: bool,
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let name = if index == 0 {
            cursor.string(&mut self.name)?
        } else {
            // Copied, because the insertion below may move or evict the entry that it points to.
            self.name.clear();
            self.name.extend_from_slice(self.table.get(index)?.0);
            Literal::Decoded
        };
        let value = cursor.string(&mut self.value)?;
        let name = match name {
            Literal::InBlock(bytes) => bytes,
            Literal::Decoded => &self.name,
        };
        let value = match value {
            Literal::InBlock(bytes) => bytes,
            Literal::Decoded => &self.value,
        };
        field(name, value);
        if insert {
            self.table.insert(name, value);
        }
        Ok(())
    }
}

struct Cursor<'b> {
    rest: &'b [u8],
}

impl<'b> Cursor<'b> {
    fn byte(&mut self) -> Result<u8, HpackError> {
        let (&byte, rest) = self.rest.split_first().ok_or(HpackError::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    /// An integer with a prefix of so many bits (RFC 7541, 5.1).
    #[inline]
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, HpackError> {
        let mask = (1 << prefix_bits) - 1;
        let prefix = usize::from(self.byte()?) & mask;
        if prefix < mask { Ok(prefix) } else { self.integer_rest(mask) }
    }

    fn integer_rest(&mut self, prefix: usize) -> Result<usize, HpackError> {
        let mut value = prefix;
        for place in 0..INTEGER_BYTES_MAX {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::IntegerOverflow)
    }

    /// A string (RFC 7541, 5.2); a Huffman-coded one is decoded into `scratch`.
    #[inline]
    fn string(&mut self, scratch: &mut Vec<u8>) -> Result<Literal<'b>, HpackError> {
        let huffman = *self.rest.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
        let length = self.integer(7)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.rest = rest;
        if !huffman {
            return Ok(Literal::InBlock(bytes));
        }
        scratch.clear();
        huffman::decode(bytes, scratch)?;
        Ok(Literal::Decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn decode(decoder: &mut Decoder, hex: &str) -> Result<String, HpackError> {
        let mut text = String::new();
        decoder.decode(&bytes(hex), |name, value| {
            text +=
                &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        })?;
        Ok(text)
    }

    /// Fields, and the table's size afterwards, for a run of blocks on one decoder.
    fn check(table_bytes: usize, blocks: &[(&str, &str, usize)]) {
        let mut decoder = Decoder::new(table_bytes);
        for (hex, fields, size) in blocks {
            assert_eq!(decode(&mut decoder, hex).unwrap(), *fields);
            assert_eq!(decoder.table.size(), *size, "after {hex}");
        }
    }

    #[test]
    fn appendix_c_1_integers() {
        let cases = [("0a", 5, 10), ("1f9a0a", 5, 1337), ("2a", 8, 42)];
        for (hex, prefix, value) in cases {
            assert_eq!(Cursor { rest: &bytes(hex) }.integer(prefix), Ok(value));
        }
    }

    #[test]
    fn appendix_c_2_single_fields() {
        check(
            4096,
            &[(
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                "custom-key: custom-header\n",
                55,
            )],
        );
        check(4096, &[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path\n", 0)]);
        check(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret\n", 0)]);
        check(4096, &[("82", ":method: GET\n", 0)]);
    }

    const REQUESTS: [&str; 3] = [
        ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n",
        ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n\
         cache-control: no-cache\n",
        ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n\
         custom-key: custom-value\n",
    ];

    #[test]
    fn appendix_c_3_requests_without_huffman() {
        check(
            4096,
            &[
                ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0], 57),
                ("8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1], 110),
                (
                    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                    REQUESTS[2],
                    164,
                ),
            ],
        );
    }

    #[test]
    fn appendix_c_4_requests_with_huffman() {
        check(
            4096,
            &[
                ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0], 57),
                ("8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1], 110),
                ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUESTS[2], 164),
            ],
        );
    }

    const RESPONSES: [&str; 3] = [
        ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
         location: https://www.example.com\n",
        ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
         location: https://www.example.com\n",
        ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
         location: https://www.example.com\ncontent-encoding: gzip\n\
         set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n",
    ];

    #[test]
    fn appendix_c_5_responses_with_eviction() {
        check(
            256,
            &[
                (
                    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 \
                     3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 \
                     7777 2e65 7861 6d70 6c65 2e63 6f6d",
                    RESPONSES[0],
                    222,
                ),
                ("4803 3330 37c1 c0bf", RESPONSES[1], 222),
                (
                    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                     3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a \
                     584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 \
                     3630 303b 2076 6572 7369 6f6e 3d31",
                    RESPONSES[2],
                    215,
                ),
            ],
        );
    }

    #[test]
    fn appendix_c_6_responses_with_huffman_and_eviction() {
        check(
            256,
            &[
                (
                    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 \
                     66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                    RESPONSES[0],
                    222,
                ),
                ("4883 640e ffc1 c0bf", RESPONSES[1], 222),
                (
                    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a \
                     839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 \
                     72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                    RESPONSES[2],
                    215,
                ),
            ],
        );
    }

    #[test]
    fn broken_blocks_are_refused_with_their_reason() {
        let cases = [
            ("80", HpackError::IndexOutOfRange), // Index 0.
            ("be", HpackError::IndexOutOfRange), // Dynamic, but the table is empty.
            ("ff", HpackError::Truncated),       // An integer without its end.
            ("ff ff ff ff ff 00", HpackError::IntegerOverflow),
            ("ff 80 80 80 80 80 00", HpackError::IntegerOverflow), // Zeros without an end.
            ("3f e2 1f", HpackError::BadSizeUpdate),               // 4097 bytes.
            ("82 20", HpackError::BadSizeUpdate),                  // Not at the start.
            ("40 05 61", HpackError::Truncated), // A name of five bytes, one present.
            ("40 01 61", HpackError::Truncated), // No value.
            ("40 81 ff 00", HpackError::BadHuffman),
        ];
        for (hex, error) in cases {
            assert_eq!(decode(&mut Decoder::new(4096), hex), Err(error), "{hex}");
        }
    }

    #[test]
    fn a_name_may_come_from_the_entry_that_its_own_insertion_evicts() {
        let mut decoder = Decoder::new(64);
        decode(
            &mut decoder,
            "40 03 61 62 63 1c 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 \
             30 30 30 30 30 30 30",
        )
        .unwrap();
        let second = decode(&mut decoder, "7e 01 31").unwrap();
        assert_eq!(second, "abc: 1\n");
        assert_eq!(decode(&mut decoder, "be").unwrap(), "abc: 1\n");
    }

    #[test]
    fn only_changes_of_the_table_change_the_generation() {
        let mut decoder = Decoder::new(4096);
        decode(&mut decoder, "82 86 04 01 2f 10 01 61 01 62").unwrap();
        assert_eq!(decoder.generation(), 0);
        decode(&mut decoder, "40 01 61 01 62").unwrap();
        assert_eq!(decoder.generation(), 1);
        decode(&mut decoder, "20").unwrap();
        assert_eq!(decoder.generation(), 2);
    }
}
