//! Little-endian words out of bytes that a peer sent.
//!
//! Invariants:
//! - Reading never panics and never goes behind the end; what is missing is told once, at the end,
//!   by whoever asked ([`Reader::word`] and its kin answer `None`).

/// The bytes that are left to be read.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*array)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn half(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn short(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn word(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes, signed.
    pub fn signed(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// Bytes that have to be zero, so that a later version may give them a meaning.
    pub fn zeros(&mut self, count: usize) -> Option<()> {
        self.take(count)?.iter().all(|byte| *byte == 0).then_some(())
    }

    /// `count` words; `None` also when so many cannot be there, before anything is allocated.
    pub fn words(&mut self, count: usize) -> Option<Vec<u64>> {
        let bytes = self.take(count.checked_mul(8)?)?;
        let (words, _) = bytes.as_chunks::<8>();
        Some(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }
}

/// A length as it stands in a layout. Lengths are bounded far below where they are made.
pub fn short_len(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("a frame's parts are far below four gibibytes").to_le_bytes()
}
