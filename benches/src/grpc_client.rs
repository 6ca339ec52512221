//! Unary calls as grpc-go frames them: a HEADERS frame and a DATA frame for each.
//!
//! Its encoder puts every field into the dynamic table, which the server thus has to keep too. A
//! client that sets no deadlines repeats one block of indexes for ever. With deadlines each block
//! brings an entry of its own, the time that is left in microseconds, and about once in seventy
//! calls the older fields fall out of the table and come as literals again.
//!
//! Invariants:
//! - The table here is what the server's decoder has after the same blocks.

use std::collections::VecDeque;

use crate::draw::Draw;

/// What a client says first: the preface, and settings that change nothing.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The largest frame that a server has to take unless it says otherwise.
const FRAME_SIZE_BYTES_MAX: usize = 16_384;
const TABLE_SIZE_BYTES_MAX: usize = 4096;
const ENTRY_OVERHEAD_BYTES: usize = 32;

const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The largest number of seconds that a deadline may be away; clientv3's callers use a few.
const DEADLINE_MICROSECONDS: u64 = 5_000_000;

/// Static entries that match by name and value, then those that match by name alone.
const STATIC_FIELDS: [(&str, &str, usize); 2] = [(":method", "POST", 3), (":scheme", "http", 6)];
const STATIC_NAMES: [(&str, usize); 4] =
    [(":authority", 1), (":path", 4), ("content-type", 31), ("user-agent", 58)];
const STATIC_COUNT: usize = 61;

/// The symbols with the shortest Huffman codes, by length of code. All that a gRPC client says
/// consists of them, and the code is canonical: they need no other part of the table.
const SHORT_CODES: [(u32, &[u8]); 4] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
];

/// One client's connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// The newest entry first.
    table: VecDeque<(String, String)>,
    table_size_bytes: usize,
    stream_next: u32,
    deadlines: Option<Draw>,
}

impl Client {
    /// A client whose calls have no deadline, or deadlines drawn from a seed.
    #[must_use]
    pub fn new(deadlines: Option<Draw>) -> Self {
        Self { table: VecDeque::new(), table_size_bytes: 0, stream_next: 1, deadlines }
    }

    /// Appends the frames of one unary call.
    pub fn push_call(&mut self, out: &mut Vec<u8>, path: &str, message: &[u8]) {
        let block = self.header_block(path);
        push_frame_head(out, block.len(), HEADERS, END_HEADERS, self.stream_next);
        out.extend_from_slice(&block);
        let length = u32::try_from(message.len()).expect("a message fits a frame");
        push_frame_head(out, 5 + message.len(), DATA, END_STREAM, self.stream_next);
        // Not compressed.
        out.push(0);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(message);
        self.stream_next += 2;
    }

    /// The header block of the next call.
    pub fn header_block(&mut self, path: &str) -> Vec<u8> {
        let fields = self.fields(path);
        let mut block = Vec::new();
        for (name, value) in &fields {
            self.push_field(&mut block, name, value);
        }
        block
    }

    /// What the next block says. Draws the deadline.
    fn fields(&mut self, path: &str) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            (":method", "POST".to_owned()),
            (":scheme", "http".to_owned()),
            (":path", path.to_owned()),
            (":authority", "127.0.0.1:2379".to_owned()),
            ("content-type", "application/grpc".to_owned()),
            ("user-agent", "grpc-go/1.79.3".to_owned()),
            ("te", "trailers".to_owned()),
        ];
        if let Some(draw) = &mut self.deadlines {
            // Some microseconds went by since the caller set it.
            let left = DEADLINE_MICROSECONDS - 1 - draw.below(100_000);
            fields.push(("grpc-timeout", format!("{left}u")));
        }
        fields.push(("client-api-version", "3.7.0".to_owned()));
        fields
    }

    fn push_field(&mut self, block: &mut Vec<u8>, name: &str, value: &str) {
        let is_static = |field: &&(&str, &str, usize)| (field.0, field.1) == (name, value);
        if let Some((_, _, index)) = STATIC_FIELDS.iter().find(is_static) {
            return push_integer(block, 0x80, 7, *index);
        }
        let is_known = |entry: &(String, String)| entry.0 == name && entry.1 == value;
        if let Some(place) = self.table.iter().position(is_known) {
            return push_integer(block, 0x80, 7, STATIC_COUNT + 1 + place);
        }
        let in_static = STATIC_NAMES.iter().find(|entry| entry.0 == name).map(|entry| entry.1);
        let in_table = || self.table.iter().position(|entry| entry.0 == name);
        let name_index = in_static.or_else(|| in_table().map(|place| STATIC_COUNT + 1 + place));
        push_integer(block, 0x40, 6, name_index.unwrap_or(0));
        if name_index.is_none() {
            push_string(block, name);
        }
        push_string(block, value);
        self.insert(name, value);
    }

    fn insert(&mut self, name: &str, value: &str) {
        let size_bytes = |name: &str, value: &str| name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        self.table_size_bytes += size_bytes(name, value);
        self.table.push_front((name.to_owned(), value.to_owned()));
        while self.table_size_bytes > TABLE_SIZE_BYTES_MAX {
            let (name, value) = self.table.pop_back().expect("what has a size has entries");
            self.table_size_bytes -= size_bytes(&name, &value);
        }
    }
}

/// Appends the leave to send that much more on the whole connection.
pub fn push_window_update(out: &mut Vec<u8>, increment: u32) {
    push_frame_head(out, 4, WINDOW_UPDATE, 0, 0);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// A string in Huffman code; `None` if it has a symbol with a long one.
#[must_use]
pub fn huffman(text: &[u8]) -> Option<Vec<u8>> {
    let mut coded = Vec::new();
    let (mut bits, mut bit_count) = (0_u32, 0);
    for symbol in text {
        let (code, length) = code_of(*symbol)?;
        bits = bits << length | code;
        bit_count += length;
        while bit_count >= 8 {
            bit_count -= 8;
            coded.push(u8::try_from(bits >> bit_count & 0xff).expect("masked to a byte"));
        }
    }
    if bit_count > 0 {
        // The rest of the last byte is ones.
        let padding = 8 - bit_count;
        let last = bits << padding | ((1 << padding) - 1);
        coded.push(u8::try_from(last & 0xff).expect("masked to a byte"));
    }
    Some(coded)
}

fn code_of(symbol: u8) -> Option<(u32, u32)> {
    let mut first = 0;
    for (length, symbols) in SHORT_CODES {
        if let Some(place) = symbols.iter().position(|other| *other == symbol) {
            let place = u32::try_from(place).expect("there are 256 symbols");
            return Some((first + place, length));
        }
        let count = u32::try_from(symbols.len()).expect("there are 256 symbols");
        // The codes of the next length go on where these end, one bit longer.
        first = (first + count) << 1;
    }
    None
}

fn push_string(block: &mut Vec<u8>, text: &str) {
    match huffman(text.as_bytes()) {
        Some(coded) if coded.len() < text.len() => {
            push_integer(block, 0x80, 7, coded.len());
            block.extend_from_slice(&coded);
        }
        _ => {
            push_integer(block, 0, 7, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
}

fn push_integer(block: &mut Vec<u8>, pattern: u8, prefix_bits: u32, number: usize) {
    let byte = |number: usize| u8::try_from(number).expect("the caller masked it to a byte");
    let mask = (1 << prefix_bits) - 1;
    if number < mask {
        return block.push(pattern | byte(number));
    }
    block.push(pattern | byte(mask));
    let mut rest = number - mask;
    while rest >= 0x80 {
        block.push(0x80 | byte(rest & 0x7f));
        rest >>= 7;
    }
    block.push(byte(rest));
}

fn push_frame_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    assert!(length <= FRAME_SIZE_BYTES_MAX, "a frame of {length} bytes");
    let length = u32::try_from(length).expect("bounded above");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use server::frontend::http2::hpack::decoder::Decoder;
    use server::frontend::http2::hpack::huffman;

    use super::{Client, Draw, SHORT_CODES, TABLE_SIZE_BYTES_MAX};

    #[test]
    fn the_server_reads_what_the_client_says_however_often_its_table_turns_over() {
        for deadlines in [None, Some(Draw::new(7))] {
            let mut client = Client::new(deadlines.clone());
            let mut decoder = Decoder::new(TABLE_SIZE_BYTES_MAX);
            let mut sizes = Vec::new();
            for call in 0..1000 {
                let path = ["/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"][call % 2];
                // The same draw again says what was meant.
                let meant = client.clone().fields(path);
                let block = client.header_block(path);
                let mut fields = Vec::new();
                let decoded = decoder.decode(&block, |name, value| {
                    fields.push((name.to_vec(), value.to_vec()));
                });
                decoded.unwrap();
                let bytes = |text: &str| text.as_bytes().to_vec();
                let meant: Vec<_> =
                    meant.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
                assert_eq!(fields, meant, "call {call}");
                sizes.push(block.len());
            }
            let literals = sizes.iter().filter(|size| **size > 40).count();
            // The first of each path; with deadlines, again and again.
            assert_eq!(literals > 2, deadlines.is_some(), "{literals} long blocks");
            assert_eq!(sizes[4] == sizes[5] && sizes[5] == 8, deadlines.is_none());
        }
    }

    #[test]
    fn every_short_code_is_the_servers() {
        for (_, symbols) in SHORT_CODES {
            let mut decoded = Vec::new();
            huffman::decode(&super::huffman(symbols).unwrap(), &mut decoded).unwrap();
            assert_eq!(decoded, symbols);
        }
        assert_eq!(super::huffman(b"no {braces}"), None);
    }
}
