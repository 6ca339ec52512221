//! The bytes of one page and the header that every page carries.
//!
//! Layout, little endian, `FORMAT.md` is the reference:
//!
//! | at | size | what |
//! |---|---|---|
//! | 0 | 4 | checksum of everything behind it, sealed when the page goes to the disk |
//! | 4 | 4 | the page's own number |
//! | 8 | 8 | birth: the epoch in which the page was written |
//! | 16 | 1 | kind |
//! | 17 | 1 | tree |
//! | 18 | 14 | the kind's own fields, see `node` |
//!
//! Invariants:
//! - The checksum is valid in the file only; a page that lives in memory has not been sealed.

use super::fault::FaultKind;
use super::ids::{Epoch, PAGE_SIZE_BYTES, PageId, PagePtr, TreeTag};

/// Bytes of the header of every page.
pub const PAGE_HEADER_SIZE_BYTES: usize = 32;

pub(super) const CACHE_LINE_SIZE_BYTES: usize = 64;

const CHECKSUM_END: usize = 4;
const ID_AT: usize = 4;
const BIRTH_AT: usize = 8;
const KIND_AT: usize = 16;
const TREE_AT: usize = 17;

/// One page.
#[repr(transparent)]
pub struct PageBytes(pub(super) [u8; PAGE_SIZE_BYTES]);

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageKind {
    /// Entries of a tree.
    Leaf = 1,
    /// Children of a tree's inner node.
    Inner = 2,
    /// Page 0: says what file this is.
    FileHeader = 3,
}

impl PageBytes {
    /// A page of zeros, for staging.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self([0; PAGE_SIZE_BYTES])
    }

    /// A copy outside the map.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }

    /// All of the page.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PAGE_SIZE_BYTES] {
        &self.0
    }

    /// Loads all of the page into the cache. Who takes every entry of it would else wait for the
    /// first line of each, one after the other, for which the processor finds nothing to do
    /// meanwhile; loads that depend on nothing overlap.
    pub fn warm(&self) {
        let lines = self.0.iter().step_by(CACHE_LINE_SIZE_BYTES);
        std::hint::black_box(lines.fold(0, |sum, byte| sum ^ byte));
    }

    pub(super) fn u16_at(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]))
    }

    pub(super) fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(*self.array_at(at))
    }

    pub(super) fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.array_at(at))
    }

    pub(super) fn array_at<const N: usize>(&self, at: usize) -> &[u8; N] {
        self.0[at..].first_chunk().expect("fields end inside the page: the layout is checked")
    }

    pub(super) fn put_u16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).expect("offsets inside a page fit 16 bits");
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn put_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn birth(&self) -> Epoch {
        Epoch(self.u64_at(BIRTH_AT))
    }

    pub(super) fn kind_byte(&self) -> u8 {
        self.0[KIND_AT]
    }

    pub(super) fn set_identity(&mut self, page: PageId, birth: Epoch) {
        self.put_u32(ID_AT, page.0);
        self.put_u64(BIRTH_AT, birth.0);
    }

    pub(super) fn set_kind(&mut self, kind: PageKind, tree: TreeTag) {
        self.0[KIND_AT] = kind as u8;
        self.0[TREE_AT] = tree.0;
    }

    /// Writes the checksum; done on the copy that goes to the disk.
    pub(super) fn seal(bytes: &mut [u8]) {
        assert_eq!(bytes.len(), PAGE_SIZE_BYTES);
        let crc = crc32fast::hash(&bytes[CHECKSUM_END..]);
        bytes[..CHECKSUM_END].copy_from_slice(&crc.to_le_bytes());
    }

    /// Whether this is the page that `ptr` means, as it was sealed.
    pub(super) fn verify(&self, ptr: PagePtr) -> Result<(), FaultKind> {
        if self.u32_at(0) != crc32fast::hash(&self.0[CHECKSUM_END..]) {
            return Err(FaultKind::Checksum);
        }
        if self.u32_at(ID_AT) != ptr.page.0 {
            return Err(FaultKind::WrongPage);
        }
        if self.0[TREE_AT] != ptr.tree.0 {
            return Err(FaultKind::WrongTree);
        }
        if self.birth() != ptr.birth {
            return Err(FaultKind::WrongBirth);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_damage_has_its_name() {
        let ptr = PagePtr { page: PageId(7), birth: Epoch(3), tree: TreeTag(2) };
        let mut page = PageBytes::zeroed();
        page.set_identity(ptr.page, ptr.birth);
        page.set_kind(PageKind::Leaf, ptr.tree);
        assert_eq!(page.verify(ptr), Err(FaultKind::Checksum));
        PageBytes::seal(&mut page.0);
        assert_eq!(page.verify(ptr), Ok(()));
        assert_eq!(page.verify(PagePtr { page: PageId(8), ..ptr }), Err(FaultKind::WrongPage));
        assert_eq!(page.verify(PagePtr { birth: Epoch(2), ..ptr }), Err(FaultKind::WrongBirth));
        assert_eq!(page.verify(PagePtr { tree: TreeTag(1), ..ptr }), Err(FaultKind::WrongTree));
        for at in 0..PAGE_SIZE_BYTES {
            page.0[at] ^= 0x10;
            assert_eq!(page.verify(ptr), Err(FaultKind::Checksum), "byte {at}");
            page.0[at] ^= 0x10;
        }
    }
}
