//! The Huffman code of HPACK (RFC 7541, 5.2 and appendix B).
//!
//! The code is canonical: symbols of one length have consecutive codes in symbol order, and shorter
//! codes come first. So the 257 lengths are the whole definition; the tables below are derived from
//! them when the crate is compiled.
//!
//! Invariants:
//! - Nine bits decide every code of up to nine bits (all letters and digits); longer ones take a
//!   walk over the lengths.

use super::HpackError;

const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const SYMBOL_END: u16 = 256;
const FAST_BITS: u32 = 9;
const LENGTH_MAX: usize = 30;

/// Everything derived from [`LENGTHS`].
struct Tables {
    /// For each nine leading bits: `symbol << 4 | length`, or 0 when the code is longer.
    fast: [u16; 1 << FAST_BITS],
    /// The first code of each length.
    first: [u32; LENGTH_MAX + 1],
    /// How many codes have each length.
    count: [u32; LENGTH_MAX + 1],
    /// Where the symbols of each length start in `symbols`.
    start: [usize; LENGTH_MAX + 1],
    /// All symbols, ordered by length, then by value.
    symbols: [u16; 257],
}

static TABLES: Tables = Tables::derive();

impl Tables {
    #[expect(clippy::cast_possible_truncation, reason = "symbols are below 257, lengths below 31")]
    const fn derive() -> Self {
        let mut tables = Self {
            fast: [0; 1 << FAST_BITS],
            first: [0; LENGTH_MAX + 1],
            count: [0; LENGTH_MAX + 1],
            start: [0; LENGTH_MAX + 1],
            symbols: [0; 257],
        };
        let mut code = 0u32;
        let mut filled = 0;
        let mut length = 1;
        while length <= LENGTH_MAX {
            code <<= 1;
            tables.first[length] = code;
            tables.start[length] = filled;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    tables.symbols[filled] = symbol as u16;
                    filled += 1;
                    if length <= FAST_BITS as usize {
                        let shift = FAST_BITS - length as u32;
                        let mut entry = (code << shift) as usize;
                        while entry < ((code + 1) << shift) as usize {
                            tables.fast[entry] = ((symbol as u16) << 4) | length as u16;
                            entry += 1;
                        }
                    }
                    code += 1;
                }
                symbol += 1;
            }
            tables.count[length] = code - tables.first[length];
            length += 1;
        }
        assert!(code == 1 << LENGTH_MAX, "the code is complete");
        tables
    }
}

/// Appends the decoded bytes of one string to `out`.
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let mut input = input.iter();
    let mut bits = 0u64;
    let mut bit_count = 0u32;
    loop {
        while bit_count <= 48 {
            let Some(byte) = input.next() else { break };
            bits = (bits << 8) | u64::from(*byte);
            bit_count += 8;
        }
        // Behind the last byte we read ones, as the padding does; a code that needs any of them
        // is the padding.
        let (symbol, length) = next_symbol(peek(bits, bit_count));
        if length > bit_count {
            let padding = (1 << bit_count) - 1;
            // At most seven bits, all ones (RFC 7541, 5.2).
            let padded = bit_count < 8 && bits & padding == padding;
            return if padded { Ok(()) } else { Err(HpackError::BadHuffman) };
        }
        bit_count -= length;
        match u8::try_from(symbol) {
            Ok(byte) => out.push(byte),
            Err(_) => return Err(HpackError::BadHuffman),
        }
    }
}

/// The next 30 bits, filled up with ones.
fn peek(bits: u64, bit_count: u32) -> u32 {
    const WIDTH: u32 = 30;
    const _: () = assert!(WIDTH as usize == LENGTH_MAX);
    let window = if bit_count >= WIDTH {
        bits >> (bit_count - WIDTH)
    } else {
        let missing = WIDTH - bit_count;
        (bits << missing) | ((1 << missing) - 1)
    };
    u32::try_from(window & ((1 << WIDTH) - 1)).expect("masked to 30 bits")
}

/// The symbol that 30 bits begin with, and its length.
fn next_symbol(window: u32) -> (u16, u32) {
    let fast = TABLES.fast[(window >> (30 - FAST_BITS)) as usize];
    if fast != 0 {
        return (fast >> 4, u32::from(fast & 0xf));
    }
    for length in FAST_BITS + 1..=30 {
        let code = window >> (30 - length);
        let at = length as usize;
        // Codes below the first of this length belong to shorter ones, which have been tried.
        let offset = code.wrapping_sub(TABLES.first[at]);
        if offset < TABLES.count[at] {
            return (TABLES.symbols[TABLES.start[at] + offset as usize], length);
        }
    }
    // The code is complete, as `derive` asserts, so some length matched.
    (SYMBOL_END, 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in bytes {
            let symbol = u16::from(*byte);
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let start = TABLES.start[length];
            let place = TABLES.symbols[start..].iter().position(|s| *s == symbol).unwrap();
            let code = TABLES.first[length] + u32::try_from(place).unwrap();
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(true);
        }
        bits.chunks(8)
            .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit)))
            .collect()
    }

    #[test]
    fn codes_of_the_appendix() {
        // RFC 7541, C.4.1 and C.6.1.
        let cases: [(&[u8], &str); 3] = [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
        ];
        for (coded, plain) in cases {
            let mut out = Vec::new();
            decode(coded, &mut out).unwrap();
            assert_eq!(out, plain.as_bytes());
            assert_eq!(encode(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn every_byte_survives_next_to_every_other() {
        for first in 0..=255 {
            for second in 0..=255 {
                let plain = [first, second, first];
                let mut out = Vec::new();
                decode(&encode(&plain), &mut out).unwrap();
                assert_eq!(out, plain);
            }
        }
    }

    #[test]
    fn wrong_padding_and_the_end_symbol_are_refused() {
        let cases: [&[u8]; 4] = [
            &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf, 0xff], // Eight bits of padding.
            &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbe],       // Padding with a zero in it.
            &[0xff, 0xff, 0xff, 0xff],                   // The end symbol, whole.
            &[0xff],                                     // Nothing but eight bits of padding.
        ];
        for coded in cases {
            assert_eq!(decode(coded, &mut Vec::new()), Err(HpackError::BadHuffman), "{coded:x?}");
        }
    }
}
