//! HPACK (RFC 7541): a whole decoder for answers, a small encoder for requests.
//!
//! Servers compress as they please, so the decoder knows everything: the static and the dynamic
//! table, size updates and the Huffman code. The encoder sends the same few headers again and
//! again: each is put into the server's dynamic table once and afterwards is one byte, as gRPC's
//! own clients do; it can also send them as plain literals each time.
//!
//! Invariants:
//! - The dynamic table's size never exceeds its capacity, nor the capacity what we announced.
//! - [`Decoder::changes`] moves whenever the table does, so that an answer decoded before can be
//!   recognised by its bytes alone while it stands still.
//! - The encoder's entries all fit into the default table: nothing it refers to is ever evicted.

use std::collections::VecDeque;
use std::sync::LazyLock;

/// The table size that both sides start with, and that we never change for our decoder.
pub const TABLE_BYTES_DEFAULT: usize = 4096;
/// What an entry costs beyond its name and value (RFC 7541, section 4.1).
const ENTRY_OVERHEAD_BYTES: usize = 32;
const STATIC_COUNT: usize = STATIC_TABLE.len();
/// The longest code of the Huffman table.
const CODE_BITS_MAX: usize = 30;
const END_OF_STRING: u16 = 256;

/// What a peer's header block did wrong; each of these closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends inside a field.
    Truncated,
    /// A number beyond 32 bits.
    NumberTooLarge,
    /// An index that is in neither table.
    IndexUnknown(usize),
    /// A size update beyond what we announced.
    TableTooLarge(usize),
    /// A string that is not valid Huffman code.
    HuffmanInvalid,
}

/// Decodes one connection's header blocks, in order.
pub struct Decoder {
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    size_bytes: usize,
    capacity_bytes: usize,
    changes: u64,
}

impl Decoder {
    /// A decoder with an empty table of the default size.
    pub fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size_bytes: 0,
            capacity_bytes: TABLE_BYTES_DEFAULT,
            changes: 0,
        }
    }

    /// How often the dynamic table has changed so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Decodes a block, handing each field to `field` as name and value.
    pub fn handle_block(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut rest = block;
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                let index = read_number(&mut rest, 7)?;
                let (name, value) = self.entry(index)?;
                field(name, value);
            } else if first & 0xe0 == 0x20 {
                let capacity = read_number(&mut rest, 5)?;
                self.resize(capacity)?;
            } else {
                let indexing = first & 0xc0 == 0x40;
                let name_index = read_number(&mut rest, if indexing { 6 } else { 4 })?;
                let name = match name_index {
                    0 => read_string(&mut rest)?,
                    index => self.entry(index)?.0.to_vec(),
                };
                let value = read_string(&mut rest)?;
                field(&name, &value);
                if indexing {
                    self.insert(name, value);
                }
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        if (1..=STATIC_COUNT).contains(&index) {
            let (name, value) = STATIC_TABLE[index - 1];
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        index
            .checked_sub(STATIC_COUNT + 1)
            .and_then(|position| self.entries.get(position))
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .ok_or(HpackError::IndexUnknown(index))
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.changes += 1;
        let size = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        // An entry larger than the table empties it and is not kept: that is no error.
        self.evict_to(self.capacity_bytes.saturating_sub(size));
        if size <= self.capacity_bytes {
            self.size_bytes += size;
            self.entries.push_front((name, value));
        }
        assert!(self.size_bytes <= self.capacity_bytes);
    }

    fn resize(&mut self, capacity: usize) -> Result<(), HpackError> {
        if capacity > TABLE_BYTES_DEFAULT {
            return Err(HpackError::TableTooLarge(capacity));
        }
        self.changes += 1;
        self.capacity_bytes = capacity;
        self.evict_to(capacity);
        Ok(())
    }

    fn evict_to(&mut self, size_bytes: usize) {
        while self.size_bytes > size_bytes {
            let (name, value) = self.entries.pop_back().expect("a size above zero has entries");
            self.size_bytes -= name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

/// How requests name their headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderStyle {
    /// In full at first, by index afterwards, as gRPC's own clients do.
    Indexed,
    /// In full, each time.
    Literal,
}

/// Encodes one connection's request headers.
pub struct Encoder {
    style: HeaderStyle,
    authority: String,
    /// What the server's table holds, oldest first.
    inserted: Vec<Header>,
    /// A size update that the next block has to open with.
    empty_table: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Path(&'static str),
    Authority,
    ContentType,
    Te,
    UserAgent,
}

impl Encoder {
    /// An encoder for requests to `authority`.
    pub fn new(style: HeaderStyle, authority: &str) -> Self {
        Self { style, authority: authority.to_owned(), inserted: Vec::new(), empty_table: false }
    }

    /// The server lets us use a dynamic table of so many bytes.
    pub fn handle_table_size(&mut self, size_bytes: u32) {
        let enough = usize::try_from(size_bytes).is_ok_and(|size| size >= TABLE_BYTES_DEFAULT);
        if !enough {
            // A smaller table might evict what we refer to. Such a server gets literals, after the
            // size update that RFC 7541, section 4.2 asks for.
            self.style = HeaderStyle::Literal;
            self.empty_table = true;
            self.inserted.clear();
        }
    }

    /// Appends the header block of a gRPC request.
    pub fn write_request(&mut self, path: &'static str, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.empty_table) {
            out.push(0x20);
        }
        // `:method: POST` and `:scheme: http` are in the static table as they stand.
        out.extend_from_slice(&[0x83, 0x86]);
        self.write_header(Header::Path(path), out);
        self.write_header(Header::Authority, out);
        self.write_header(Header::ContentType, out);
        self.write_header(Header::Te, out);
        self.write_header(Header::UserAgent, out);
    }

    fn write_header(&mut self, header: Header, out: &mut Vec<u8>) {
        let position = self.inserted.iter().position(|&inserted| inserted == header);
        if let Some(position) = position {
            let index = STATIC_COUNT + self.inserted.len() - position;
            write_number(out, 0x80, 7, index);
            return;
        }
        let (name_index, name, value) = match header {
            Header::Path(path) => (4, "", path),
            Header::Authority => (1, "", self.authority.as_str()),
            Header::ContentType => (31, "", "application/grpc"),
            Header::Te => (0, "te", "trailers"),
            Header::UserAgent => (58, "", concat!("ringd-bench/", env!("CARGO_PKG_VERSION"))),
        };
        match self.style {
            HeaderStyle::Indexed => write_number(out, 0x40, 6, name_index),
            HeaderStyle::Literal => write_number(out, 0x00, 4, name_index),
        }
        if name_index == 0 {
            write_string(out, name);
        }
        write_string(out, value);
        if self.style == HeaderStyle::Indexed {
            self.inserted.push(header);
        }
    }
}

fn write_number(out: &mut Vec<u8>, pattern: u8, prefix_bits: u32, number: usize) {
    let limit = (1usize << prefix_bits) - 1;
    let low = |number: usize| u8::try_from(number).expect("it is below the prefix's limit");
    if number < limit {
        out.push(pattern | low(number));
        return;
    }
    out.push(pattern | low(limit));
    let mut rest = number - limit;
    while rest >= 0x80 {
        out.push(low(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(low(rest));
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    write_number(out, 0x00, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn read_number(rest: &mut &[u8], prefix_bits: u32) -> Result<usize, HpackError> {
    let (&first, mut tail) = rest.split_first().ok_or(HpackError::Truncated)?;
    let limit = (1u64 << prefix_bits) - 1;
    let mut number = u64::from(first) & limit;
    if number == limit {
        let mut shift = 0;
        loop {
            let (&byte, after) = tail.split_first().ok_or(HpackError::Truncated)?;
            tail = after;
            number += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return Err(HpackError::NumberTooLarge);
            }
        }
    }
    *rest = tail;
    u32::try_from(number)
        .ok()
        .and_then(|number| usize::try_from(number).ok())
        .ok_or(HpackError::NumberTooLarge)
}

fn read_string(rest: &mut &[u8]) -> Result<Vec<u8>, HpackError> {
    let huffman = rest.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
    let len = read_number(rest, 7)?;
    let (text, tail) = rest.split_at_checked(len).ok_or(HpackError::Truncated)?;
    *rest = tail;
    if huffman { huffman_decode(text) } else { Ok(text.to_vec()) }
}

/// The Huffman code in canonical form. RFC 7541's code assigns its words in order of length and,
/// within a length, of symbol, so the lengths alone define it.
struct Huffman {
    /// By length: the first word, how many there are, and where their symbols begin.
    lengths: [(u32, u32, usize); CODE_BITS_MAX + 1],
    symbols: Vec<u16>,
}

static HUFFMAN: LazyLock<Huffman> = LazyLock::new(|| {
    let mut lengths = [(0, 0, 0); CODE_BITS_MAX + 1];
    let mut symbols = Vec::new();
    let mut word = 0u32;
    for (bits, row) in lengths.iter_mut().enumerate().skip(1) {
        word <<= 1;
        let start = symbols.len();
        let of_length = (0..=END_OF_STRING).zip(CODE_BITS).filter(|&(_, b)| usize::from(b) == bits);
        symbols.extend(of_length.map(|(symbol, _)| symbol));
        let count = u32::try_from(symbols.len() - start).expect("there are 257 symbols");
        *row = (word, count, start);
        word += count;
    }
    Huffman { lengths, symbols }
});

fn huffman_decode(bytes: &[u8]) -> Result<Vec<u8>, HpackError> {
    let huffman = &*HUFFMAN;
    let mut out = Vec::with_capacity(bytes.len() * 2);
    let mut word = 0u32;
    let mut bits = 0usize;
    for byte in bytes {
        for shift in (0..8).rev() {
            word = word << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            let &(first, count, start) =
                huffman.lengths.get(bits).ok_or(HpackError::HuffmanInvalid)?;
            let Some(offset) = word.checked_sub(first).filter(|&offset| offset < count) else {
                continue;
            };
            let offset = usize::try_from(offset).expect("there are 257 symbols");
            let symbol = huffman.symbols[start + offset];
            out.push(u8::try_from(symbol).map_err(|_| HpackError::HuffmanInvalid)?);
            (word, bits) = (0, 0);
        }
    }
    // The padding is a beginning of the end-of-string word, which is all ones, of less than a byte.
    if bits > 7 || word != (1 << bits) - 1 {
        return Err(HpackError::HuffmanInvalid);
    }
    Ok(out)
}

/// The lengths of RFC 7541's Huffman code (appendix B), by symbol; the last is the end of string.
#[rustfmt::skip]
const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// RFC 7541, appendix A.
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, HpackError> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.handle_block(block, |name, value| {
            fields.push(format!("{}: {}", text(name), text(value)));
        })?;
        Ok(fields)
    }

    #[test]
    fn the_huffman_code_is_complete() {
        let space: u64 =
            CODE_BITS.iter().map(|&bits| 1u64 << (CODE_BITS_MAX - usize::from(bits))).sum();
        assert_eq!(space, 1 << CODE_BITS_MAX, "every bit string is the beginning of a word");
        // The last word of all is the end of string, 30 ones.
        let (first, count, start) = HUFFMAN.lengths[CODE_BITS_MAX];
        assert_eq!(first + count, 1 << CODE_BITS_MAX);
        assert_eq!(HUFFMAN.symbols[start..], [10, 13, 22, END_OF_STRING]);
    }

    // RFC 7541, appendix C.6: three answers on one connection whose table holds 256 bytes.
    #[test]
    fn responses_with_huffman_and_eviction_decode_as_in_the_rfc() {
        let mut decoder = Decoder::new();
        decoder.resize(256).unwrap();
        let first = hex(
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b
             ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        );
        let expected = [
            ":status: 302",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com",
        ];
        assert_eq!(decode(&mut decoder, &first).unwrap(), expected);
        assert_eq!(decoder.size_bytes, 222);
        let second = decode(&mut decoder, &hex("4883 640e ffc1 c0bf")).unwrap();
        assert_eq!(second[0], ":status: 307");
        assert_eq!(second[1..], expected[1..]);
        assert_eq!(decoder.size_bytes, 222, "the oldest entry made room");
        let third = hex(
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad
             94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160
             65c0 03ed 4ee5 b106 3d50 07",
        );
        let third = decode(&mut decoder, &third).unwrap();
        assert_eq!(third[4], "content-encoding: gzip");
        assert_eq!(
            third[5],
            "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
        );
        assert_eq!(decoder.size_bytes, 215);
    }

    #[test]
    fn literals_without_indexing_leave_the_table_alone() {
        let mut decoder = Decoder::new();
        let block = hex("040c 2f73 616d 706c 652f 7061 7468");
        assert_eq!(decode(&mut decoder, &block).unwrap(), [":path: /sample/path"]);
        assert_eq!(decoder.changes(), 0);
        let never = hex("1008 7061 7373 776f 7264 0673 6563 7265 74");
        assert_eq!(decode(&mut decoder, &never).unwrap(), ["password: secret"]);
        assert_eq!(decoder.size_bytes, 0);
    }

    #[test]
    fn malformed_blocks_are_refused_by_name() {
        let refuse = |block: &[u8]| decode(&mut Decoder::new(), block).unwrap_err();
        assert_eq!(refuse(&[0x80]), HpackError::IndexUnknown(0));
        assert_eq!(refuse(&[0xbe]), HpackError::IndexUnknown(62));
        assert_eq!(refuse(&[0x3f, 0xe2, 0x1f]), HpackError::TableTooLarge(4097));
        assert_eq!(refuse(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), HpackError::NumberTooLarge);
        assert_eq!(refuse(&[0x44, 0x05, b'a']), HpackError::Truncated);
        assert_eq!(refuse(&[0x44]), HpackError::Truncated);
        // Eight ones are padding that is too long; zeros are no padding at all.
        assert_eq!(refuse(&[0x44, 0x81, 0xff]), HpackError::HuffmanInvalid);
        assert_eq!(refuse(&[0x44, 0x81, 0x00]), HpackError::HuffmanInvalid);
    }

    #[test]
    fn requests_read_the_same_in_both_styles_and_shrink_when_indexed() {
        for style in [HeaderStyle::Indexed, HeaderStyle::Literal] {
            let mut encoder = Encoder::new(style, "localhost:2379");
            let mut decoder = Decoder::new();
            let mut lens = Vec::new();
            for path in ["/a.B/C", "/a.B/D", "/a.B/C", "/a.B/D"] {
                let mut block = Vec::new();
                encoder.write_request(path, &mut block);
                let fields = decode(&mut decoder, &block).unwrap();
                assert_eq!(fields[..2], [":method: POST", ":scheme: http"]);
                assert_eq!(fields[2], format!(":path: {path}"));
                assert_eq!(fields[3], ":authority: localhost:2379");
                assert_eq!(fields[4..6], ["content-type: application/grpc", "te: trailers"]);
                lens.push(block.len());
            }
            match style {
                HeaderStyle::Indexed => assert_eq!(lens[2..], [7, 7]),
                HeaderStyle::Literal => assert_eq!(lens[0], lens[3]),
            }
        }
    }

    #[test]
    fn a_smaller_table_turns_the_encoder_to_literals() {
        let mut encoder = Encoder::new(HeaderStyle::Indexed, "a");
        let mut decoder = Decoder::new();
        for round in 0..3 {
            let mut block = Vec::new();
            encoder.write_request("/p", &mut block);
            assert_eq!(decode(&mut decoder, &block).unwrap()[2], ":path: /p");
            if round == 0 {
                encoder.handle_table_size(0);
            } else {
                assert_eq!(decoder.size_bytes, 0);
                assert_eq!(block[0] == 0x20, round == 1, "the update is sent once");
            }
        }
    }
}
