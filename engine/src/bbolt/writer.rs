//! Sorted pairs in, pages out, in the order of the file.
//!
//! The writer makes all pages but the first three; [`front`] makes those once the totals are known.
//! Whoever sends the file as it grows learns them from [`super::Measure`] first, whoever can write
//! at a place leaves the front for the end.
//!
//! Each byte of a pair is copied twice: into the leaf that grows (where it will stand is known only
//! when the leaf ends, because its elements stand before it) and into the chunk that is handed out.
//!
//! Invariants:
//! - Pages leave in the order of their numbers, without a gap.
//! - Page boundaries are the layout's; nothing here decides one.

use std::collections::VecDeque;
use std::mem;

use super::format::{
    BUCKET_SIZE_BYTES, BucketHeader, ELEMENT_SIZE_BYTES, FLAG_BUCKET, HEADER_SIZE_BYTES, Meta,
    PAGE_SIZE_BYTES, PageHeader, PageKind,
};
use super::layout::{
    BucketEnd, FRONT_PAGES, Layout, LengthError, PageEnd, Totals, TreeName, check_lengths,
};

/// Pages are handed out in chunks of at least this size: large enough that the work for a chunk
/// (a hash call, a frame) does not show beside its bytes, small enough to stay in the cache.
const CHUNK_BYTES: usize = 64 << 10;
/// The page of the free list, which is empty.
const FREE_LIST_PAGE: u64 = 2;
/// The transactions of the two meta pages: page 0 has the even one, and the higher counts. Both
/// say the same, so either alone is enough.
const TRANSACTIONS: [u64; 2] = [2, 1];

/// The pages before those that a [`Writer`] makes.
#[must_use]
pub fn front(totals: Totals) -> Vec<u8> {
    let mut pages = Vec::new();
    for (page, transaction) in (0..).zip(TRANSACTIONS) {
        header_into(PageKind::Meta, page, 0, 0, &mut pages);
        let meta = Meta {
            page_size_bytes: u32::try_from(PAGE_SIZE_BYTES).expect("it is 4096"),
            flags: 0,
            root: BucketHeader { root: totals.root, sequence: 0 },
            free_list: FREE_LIST_PAGE,
            page_count: totals.page_count,
            transaction,
        };
        pages.extend_from_slice(&meta.to_bytes());
        pad(&mut pages);
    }
    header_into(PageKind::FreeList, FREE_LIST_PAGE, 0, 0, &mut pages);
    pad(&mut pages);
    assert_eq!(pages.len() as u64, FRONT_PAGES * PAGE_SIZE_BYTES as u64);
    pages
}

/// Makes pages of buckets and pairs. Both must come in byte order, each key once.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    /// The bucket that is being written, or the last one.
    name: Vec<u8>,
    is_open: bool,
    key_last: Vec<u8>,
    bucket: Content,
    root: Content,
    ended: Vec<PageEnd>,
    page_next: u64,
    chunk: Vec<u8>,
    is_finished: bool,
}

impl Writer {
    /// Nothing written yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            layout: Layout::new(),
            name: Vec::new(),
            is_open: false,
            key_last: Vec::new(),
            bucket: Content::default(),
            root: Content::default(),
            ended: Vec::new(),
            page_next: FRONT_PAGES,
            chunk: Vec::new(),
            is_finished: false,
        }
    }

    /// Begins a bucket, ending the one before.
    pub fn begin_bucket(&mut self, name: &[u8]) -> Result<(), LengthError> {
        check_lengths(name.len(), 0)?;
        assert!(!self.is_finished, "the file is finished");
        self.end_bucket();
        assert!(self.name.as_slice() < name, "bucket {name:?} after {:?}", self.name);
        name.clone_into(&mut self.name);
        self.is_open = true;
        self.key_last.clear();
        Ok(())
    }

    /// Adds a pair to the bucket.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), LengthError> {
        assert!(self.is_open, "pairs live in buckets");
        check_lengths(key.len(), value.len())?;
        assert!(self.key_last.as_slice() < key, "key {key:?} after {:?}", self.key_last);
        key.clone_into(&mut self.key_last);
        // Ended leaves first: the layout may end one before it takes the pair into the next.
        self.layout.add(key.len(), value.len(), &mut self.ended);
        self.write_ended();
        self.bucket.push(key, value, 0);
        Ok(())
    }

    /// Pages that are complete, if there are enough of them; all of them once the file is finished.
    pub fn poll_pages(&mut self) -> Option<Vec<u8>> {
        let is_due = self.chunk.len() >= CHUNK_BYTES || self.is_finished && !self.chunk.is_empty();
        is_due.then(|| mem::take(&mut self.chunk))
    }

    /// Ends the last bucket and the file. The last pages are still to be polled.
    pub fn finish(&mut self) -> Totals {
        assert!(!self.is_finished, "the file is finished");
        self.end_bucket();
        self.is_finished = true;
        let layout = mem::replace(&mut self.layout, Layout::new());
        let totals = layout.finish(&mut self.ended);
        self.write_ended();
        assert_eq!(self.page_next, totals.page_count);
        totals
    }

    /// Whether [`Writer::finish`] was called.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    fn end_bucket(&mut self) {
        if !mem::take(&mut self.is_open) {
            return;
        }
        let end = self.layout.end_bucket(self.name.len(), &mut self.ended);
        self.write_ended();
        let root = if let BucketEnd::Root(root) = end { root } else { 0 };
        let mut value = BucketHeader { root, sequence: 0 }.to_bytes().to_vec();
        if let BucketEnd::Inline { count, used_bytes } = end {
            header_into(PageKind::Leaf, 0, count, 0, &mut value);
            self.bucket.leaf.write(&mut value);
            assert_eq!((value.len() - BUCKET_SIZE_BYTES) as u64, used_bytes);
        }
        assert!(self.bucket.is_empty(), "the layout ended every page of the bucket");
        let name = mem::take(&mut self.name);
        self.root.push(&name, &value, FLAG_BUCKET);
        self.name = name;
    }

    fn write_ended(&mut self) {
        let mut ended = mem::take(&mut self.ended);
        for end in ended.drain(..) {
            self.write_page(end);
        }
        self.ended = ended;
    }

    fn write_page(&mut self, end: PageEnd) {
        assert_eq!(end.page, self.page_next, "pages leave in the order of their numbers");
        self.page_next += end.pages();
        let content = match end.tree {
            TreeName::Bucket => &mut self.bucket,
            TreeName::Root => &mut self.root,
        };
        let start = self.chunk.len();
        let overflow = u32::try_from(end.pages() - 1).expect("the largest pair has 2 GiB");
        let kind = if end.level.is_some() { PageKind::Branch } else { PageKind::Leaf };
        header_into(kind, end.page, end.count, overflow, &mut self.chunk);
        let key_first = match end.level {
            None => content.leaf.write(&mut self.chunk),
            Some(level) => content.write_branch(level, end.count, &mut self.chunk),
        };
        assert_eq!((self.chunk.len() - start) as u64, end.used_bytes, "page {}", end.page);
        pad(&mut self.chunk);
        content.push_child(end.level.map_or(0, |level| level + 1), key_first, end.page);
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// What the open pages of one tree hold.
#[derive(Debug, Default)]
struct Content {
    leaf: Leaf,
    /// The children that are in no page yet, from the lowest level up. The root ends as the only
    /// child of a level that is never written.
    levels: Vec<VecDeque<Child>>,
}

impl Content {
    fn push(&mut self, key: &[u8], value: &[u8], flags: u32) {
        self.leaf.push(key, value, flags);
    }

    fn push_child(&mut self, level: usize, key_first: Vec<u8>, page: u64) {
        if level == self.levels.len() {
            self.levels.push(VecDeque::new());
        }
        self.levels[level].push_back(Child { key_first, page });
    }

    /// Writes the oldest children of a level, and returns the first's key.
    fn write_branch(&mut self, level: usize, count: u16, out: &mut Vec<u8>) -> Vec<u8> {
        let count = usize::from(count);
        let children = &mut self.levels[level];
        let mut at = count * ELEMENT_SIZE_BYTES;
        for (index, child) in children.iter().take(count).enumerate() {
            out.extend_from_slice(&offset(at - index * ELEMENT_SIZE_BYTES));
            out.extend_from_slice(&offset(child.key_first.len()));
            out.extend_from_slice(&child.page.to_le_bytes());
            at += child.key_first.len();
        }
        let mut key_first = None;
        for child in children.drain(..count) {
            out.extend_from_slice(&child.key_first);
            key_first.get_or_insert(child.key_first);
        }
        key_first.expect("a branch has children")
    }

    /// Whether every page was written; a root may have been noted as a child.
    fn is_empty(&mut self) -> bool {
        let children: usize = self.levels.iter().map(VecDeque::len).sum();
        self.levels.clear();
        self.leaf.elements.is_empty() && children <= 1
    }
}

/// A page's place in its parent.
#[derive(Debug)]
struct Child {
    key_first: Vec<u8>,
    page: u64,
}

/// The leaf that grows.
#[derive(Debug, Default)]
struct Leaf {
    elements: Vec<Element>,
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Element {
    flags: u32,
    key_len: usize,
    value_len: usize,
}

impl Leaf {
    fn push(&mut self, key: &[u8], value: &[u8], flags: u32) {
        self.elements.push(Element { flags, key_len: key.len(), value_len: value.len() });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// Writes what stands behind the header, empties the leaf, and returns its first key.
    fn write(&mut self, out: &mut Vec<u8>) -> Vec<u8> {
        let mut at = self.elements.len() * ELEMENT_SIZE_BYTES;
        for (index, element) in self.elements.iter().enumerate() {
            out.extend_from_slice(&element.flags.to_le_bytes());
            out.extend_from_slice(&offset(at - index * ELEMENT_SIZE_BYTES));
            out.extend_from_slice(&offset(element.key_len));
            out.extend_from_slice(&offset(element.value_len));
            at += element.key_len + element.value_len;
        }
        out.extend_from_slice(&self.bytes);
        let key_len = self.elements.first().map_or(0, |element| element.key_len);
        let key_first = self.bytes[..key_len].to_vec();
        self.elements.clear();
        self.bytes.clear();
        key_first
    }
}

fn offset(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("a page's lengths were checked, and are below 4 GiB").to_le_bytes()
}

fn header_into(kind: PageKind, page: u64, count: u16, overflow: u32, out: &mut Vec<u8>) {
    let header = PageHeader { page, kind_flags: kind as u16, count, overflow };
    out.extend_from_slice(&header.to_bytes());
    assert_eq!(header.to_bytes().len(), HEADER_SIZE_BYTES);
}

/// Fills the last page with zeros.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(PAGE_SIZE_BYTES), 0);
}
