//! HPACK, the header compression of HTTP/2 (RFC 7541).
//!
//! The decoder is complete: dynamic table, Huffman coding, size updates. The encoder knows what a
//! server has to say and no more: indexed static entries, a few *pinned* fields that it puts into
//! the client's table once and refers to by one byte from then on, and plain literals.
//!
//! Invariants:
//! - A decoding error ends the connection: the two tables no longer agree (RFC 7541, 2.2).

pub mod decoder;
pub mod encoder;
pub mod huffman;
pub mod table;

/// Why a header block could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends inside a representation.
    Truncated,
    /// An integer beyond any sensible value (RFC 7541, 5.1).
    IntegerOverflow,
    /// An index of 0 or beyond both tables (RFC 7541, 2.3.3).
    IndexOutOfRange,
    /// A wrong padding or the end-of-string symbol (RFC 7541, 5.2).
    BadHuffman,
    /// A table size above our setting, or not at the block's start (RFC 7541, 4.2 and 6.3).
    BadSizeUpdate,
}

impl HpackError {
    /// For the debug data of GOAWAY.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Truncated => "header block is truncated",
            Self::IntegerOverflow => "header integer is too large",
            Self::IndexOutOfRange => "header index is out of range",
            Self::BadHuffman => "bad Huffman code in a header",
            Self::BadSizeUpdate => "bad dynamic table size update",
        }
    }
}
