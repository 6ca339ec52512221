//! Pages on their way to the disk, in memory that direct i/o accepts.

use std::fmt;
use std::ops::Deref;

use super::bytes::PageBytes;
use super::ids::PAGE_SIZE_BYTES;

/// Whole pages, one behind the other, outside of the map.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PageBuffer {
    pages: Vec<AlignedPage>,
}

/// The alignment is that of the largest sectors in use, and of memory pages.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(4096))]
struct AlignedPage([u8; PAGE_SIZE_BYTES]);

const _: () = assert!(size_of::<AlignedPage>() == PAGE_SIZE_BYTES);

impl PageBuffer {
    /// Bytes that it holds without asking for more memory.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pages.capacity() * PAGE_SIZE_BYTES
    }

    /// Removes the pages and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }

    /// Makes room for so many pages.
    pub(super) fn reserve(&mut self, pages: usize) {
        self.pages.reserve(pages);
    }

    /// Adds a copy of a page.
    pub(super) fn push(&mut self, page: &PageBytes) {
        self.pages.push(AlignedPage(page.0));
    }

    /// Writes the checksum of the page that was added last.
    pub(super) fn seal_last(&mut self) {
        let last = self.pages.last_mut().expect("a page was added");
        PageBytes::seal(&mut last.0);
    }
}

impl From<&[u8]> for PageBuffer {
    /// Zeros follow where the bytes are no whole pages.
    fn from(bytes: &[u8]) -> Self {
        let page = |part: &[u8]| {
            let mut page = AlignedPage([0; PAGE_SIZE_BYTES]);
            page.0[..part.len()].copy_from_slice(part);
            page
        };
        Self { pages: bytes.chunks(PAGE_SIZE_BYTES).map(page).collect() }
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, len) = (self.pages.as_ptr().cast(), self.pages.len() * PAGE_SIZE_BYTES);
        // SAFETY: the vector owns so many initialised bytes there; a page is an array of bytes
        // without padding (asserted above), and `self` is borrowed as long as they are.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}

impl fmt::Debug for PageBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PageBuffer({} pages)", self.pages.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stand_aligned_one_behind_the_other() {
        let mut buffer = PageBuffer::default();
        assert!(buffer.is_empty());
        for fill in 1..=3 {
            buffer.push(&PageBytes([fill; PAGE_SIZE_BYTES]));
        }
        buffer.seal_last();
        assert_eq!(buffer.len(), 3 * PAGE_SIZE_BYTES);
        assert_eq!(buffer.as_ptr().addr() % PAGE_SIZE_BYTES, 0);
        assert_eq!((buffer[PAGE_SIZE_BYTES - 1], buffer[PAGE_SIZE_BYTES]), (1, 2));
        let mut sealed = [3; PAGE_SIZE_BYTES];
        PageBytes::seal(&mut sealed);
        assert_eq!(buffer[2 * PAGE_SIZE_BYTES..], sealed);
        buffer.clear();
        assert!(buffer.is_empty() && buffer.capacity() >= 3 * PAGE_SIZE_BYTES);
    }

    #[test]
    fn what_is_no_whole_page_is_filled_up() {
        let buffer = PageBuffer::from(&[7; PAGE_SIZE_BYTES + 1][..]);
        assert_eq!(buffer.len(), 2 * PAGE_SIZE_BYTES);
        assert_eq!(buffer[PAGE_SIZE_BYTES..PAGE_SIZE_BYTES + 2], [7, 0]);
    }
}
