//! The fixed parts of bbolt's pages as bytes, for both directions.
//!
//! Invariants:
//! - Decoding never fails on bytes of the right length: whether they make sense is the reader's
//!   question.

/// The size of the pages that are written here: what etcd writes on nearly every machine.
pub const PAGE_SIZE_BYTES: usize = 4096;
/// bbolt takes no longer key.
pub const KEY_BYTES_MAX: usize = 32_768;
/// bbolt takes no longer value.
pub const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

/// The size of a page's header.
pub(super) const HEADER_SIZE_BYTES: usize = 16;
/// The size of a branch's or a leaf's element: they are laid out differently but equally long.
pub(super) const ELEMENT_SIZE_BYTES: usize = 16;
/// The size of a bucket's value, without the leaf that may follow in place.
pub(super) const BUCKET_SIZE_BYTES: usize = 16;
/// The size of a meta page's content.
pub(super) const META_SIZE_BYTES: usize = 64;
/// A bucket whose only leaf is not larger than this is kept in its parent's leaf, as bbolt does.
pub(super) const INLINE_BYTES_MAX: usize = PAGE_SIZE_BYTES / 4;

/// A free list's count that says that the true count follows.
pub(super) const COUNT_FOLLOWS: u16 = 0xffff;
/// The flag of a leaf's element that holds a bucket.
pub(super) const FLAG_BUCKET: u32 = 1;
/// In place of the free list's page: there is none.
pub(super) const NO_FREE_LIST: u64 = u64::MAX;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;

/// What kind of page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum PageKind {
    Branch = 0x01,
    Leaf = 0x02,
    Meta = 0x04,
    FreeList = 0x10,
}

impl PageKind {
    pub(super) fn of(flags: u16) -> Option<Self> {
        let kinds = [Self::Branch, Self::Leaf, Self::Meta, Self::FreeList];
        kinds.into_iter().find(|kind| *kind as u16 == flags)
    }
}

/// A page's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) page: u64,
    pub(super) kind_flags: u16,
    pub(super) count: u16,
    pub(super) overflow: u32,
}

impl PageHeader {
    pub(super) fn to_bytes(self) -> [u8; HEADER_SIZE_BYTES] {
        let mut bytes = [0; HEADER_SIZE_BYTES];
        bytes[..8].copy_from_slice(&self.page.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.kind_flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    /// Of the first bytes; there must be enough.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            page: u64_at(bytes, 0),
            kind_flags: u16_at(bytes, 8),
            count: u16_at(bytes, 10),
            overflow: u32_at(bytes, 12),
        }
    }
}

/// A bucket as its parent keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketHeader {
    /// 0 for a bucket whose leaf follows in place.
    pub(super) root: u64,
    pub(super) sequence: u64,
}

impl BucketHeader {
    pub(super) fn to_bytes(self) -> [u8; BUCKET_SIZE_BYTES] {
        let mut bytes = [0; BUCKET_SIZE_BYTES];
        bytes[..8].copy_from_slice(&self.root.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// Of the first bytes; there must be enough.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self { root: u64_at(bytes, 0), sequence: u64_at(bytes, 8) }
    }
}

/// A meta page's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_size_bytes: u32,
    pub(super) flags: u32,
    pub(super) root: BucketHeader,
    pub(super) free_list: u64,
    /// Pages in use: the number of the first page that is not.
    pub(super) page_count: u64,
    pub(super) transaction: u64,
}

/// Why bytes are no meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotMeta {
    Magic,
    Version,
    Checksum,
}

impl Meta {
    pub(super) fn to_bytes(self) -> [u8; META_SIZE_BYTES] {
        let mut bytes = [0; META_SIZE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_size_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.root.to_bytes());
        bytes[32..40].copy_from_slice(&self.free_list.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.page_count.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.transaction.to_le_bytes());
        let checksum = fnv_1a(&bytes[..56]);
        bytes[56..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Of the first bytes; there must be enough.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, NotMeta> {
        if u32_at(bytes, 0) != MAGIC {
            return Err(NotMeta::Magic);
        }
        if u32_at(bytes, 4) != VERSION {
            return Err(NotMeta::Version);
        }
        if u64_at(bytes, 56) != fnv_1a(&bytes[..56]) {
            return Err(NotMeta::Checksum);
        }
        Ok(Self {
            page_size_bytes: u32_at(bytes, 8),
            flags: u32_at(bytes, 12),
            root: BucketHeader::from_bytes(&bytes[16..]),
            free_list: u64_at(bytes, 32),
            page_count: u64_at(bytes, 40),
            transaction: u64_at(bytes, 48),
        })
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

/// The 64-bit Fowler-Noll-Vo hash, variant 1a.
fn fnv_1a(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fowler_noll_vos() {
        assert_eq!(fnv_1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv_1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_meta_page_with_one_wrong_bit_is_none() {
        let meta = Meta {
            page_size_bytes: 4096,
            flags: 0,
            root: BucketHeader { root: 9, sequence: 0 },
            free_list: 2,
            page_count: 10,
            transaction: 7,
        };
        let good = meta.to_bytes();
        assert_eq!(Meta::from_bytes(&good), Ok(meta));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..4 => NotMeta::Magic,
                4..8 => NotMeta::Version,
                _ => NotMeta::Checksum,
            };
            assert_eq!(Meta::from_bytes(&bad), Err(expected), "bit {bit}");
        }
    }
}
