//! A file that is read: its meta pages, its buckets, and the rules that every page is held to.
//!
//! Nothing is cached; a walk reads each page once. Damage is an error that names page and rule.
//! Values carry no checksum, so a wrong bit inside one is found by a backup's digest alone.
//!
//! Invariants:
//! - A page run is handed on only after all of its elements were found to lie inside it, with keys
//!   that rise and stay inside the bounds that its parent gave it.
//! - No allocation is larger than the file, nor than the limit on a page run.

use std::fmt;
use std::io;

use super::format::{
    BUCKET_SIZE_BYTES, BucketHeader, COUNT_FOLLOWS, ELEMENT_SIZE_BYTES, FLAG_BUCKET,
    HEADER_SIZE_BYTES, KEY_BYTES_MAX, META_SIZE_BYTES, Meta, NO_FREE_LIST, NotMeta, PageHeader,
    PageKind, u32_at, u64_at,
};
use super::walk::Walk;

/// Page sizes that bbolt itself looks for: 1 KiB to 16 MiB.
const PAGE_SIZES_LOG2: std::ops::RangeInclusive<u32> = 10..=24;
/// The longest page run that is read. bbolt keeps at most four pairs together that do not fit into
/// a page, so this allows values of 256 MiB: far beyond any request size etcd is run with, and
/// still little enough to say no to a wrong length before memory does.
const RUN_BYTES_MAX: u64 = 1 << 30;

/// Where a file's bytes come from.
pub trait Source {
    /// The size of the whole file.
    fn size_bytes(&self) -> u64;
    /// Fills the buffer from a place in the file.
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for [u8] {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = usize::try_from(offset_bytes)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        let bytes = range.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset_bytes, buffer)
    }
}

/// A rule that a page breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The file is too short for two meta pages.
    TooShort,
    /// The page does not begin with bbolt's magic number.
    Magic,
    /// The format's version is not 2.
    Version,
    /// The checksum does not match.
    Checksum,
    /// The page size is not a power of two that bbolt knows.
    PageSize,
    /// The meta page counts more pages than the file has.
    Truncated,
    /// A page number lies outside the pages in use.
    OutsideFile,
    /// Another page's number stands in the header.
    WrongPage,
    /// The page is not of a kind that belongs here.
    WrongKind,
    /// The page overflows beyond the pages in use.
    Overflow,
    /// The page overflows further than any pair needs.
    TooLong,
    /// The elements do not fit into the page.
    Elements,
    /// A key or value lies outside the page.
    OutsidePage,
    /// A key is empty.
    KeyEmpty,
    /// A key is longer than bbolt allows.
    KeyTooLong,
    /// A key is not above the one before it.
    KeyOrder,
    /// A key is below what the branch above the page says.
    KeyBelowBranch,
    /// A key is not below the next key of a branch above the page.
    KeyAboveBranch,
    /// A branch has no children.
    NoChildren,
    /// The tree is higher than any file can need: it leads in a circle.
    TooHigh,
    /// An element's flags are unknown.
    Flags,
    /// A bucket's value is too short for its header or for the leaf in it.
    BucketValue,
    /// A pair stands where only buckets do.
    PairAmongBuckets,
    /// A bucket stands in a bucket, which etcd never does.
    NestedBucket,
    /// The page is reached twice.
    ReachedTwice,
    /// The page is in use and on the free list.
    UsedAndFree,
    /// The page is on the free list twice.
    FreedTwice,
    /// The page is neither in use nor on the free list.
    Lost,
}

impl Rule {
    const fn text(self) -> &'static str {
        match self {
            Self::TooShort => "the file is too short for two meta pages",
            Self::Magic => "it does not begin with bbolt's magic number",
            Self::Version => "the format's version is not 2",
            Self::Checksum => "the checksum does not match",
            Self::PageSize => "the page size is not one that bbolt uses",
            Self::Truncated => "it counts more pages than the file has",
            Self::OutsideFile => "the number lies outside the pages in use",
            Self::WrongPage => "another page's number is in the header",
            Self::WrongKind => "the page is of a kind that does not belong here",
            Self::Overflow => "the page overflows beyond the pages in use",
            Self::TooLong => "the page overflows further than any pair needs",
            Self::Elements => "the elements do not fit into the page",
            Self::OutsidePage => "a key or a value lies outside the page",
            Self::KeyEmpty => "a key is empty",
            Self::KeyTooLong => "a key is longer than bbolt allows",
            Self::KeyOrder => "a key is not above the one before it",
            Self::KeyBelowBranch => "a key is below the page's own in the branch above",
            Self::KeyAboveBranch => "a key is not below the next one in a branch above",
            Self::NoChildren => "a branch has no children",
            Self::TooHigh => "the tree leads in a circle",
            Self::Flags => "an element's flags are unknown",
            Self::BucketValue => "a bucket's value is too short",
            Self::PairAmongBuckets => "a pair stands where only buckets do",
            Self::NestedBucket => "a bucket stands in a bucket",
            Self::ReachedTwice => "the page is reached twice",
            Self::UsedAndFree => "the page is in use and on the free list",
            Self::FreedTwice => "the page is on the free list twice",
            Self::Lost => "the page is neither in use nor on the free list",
        }
    }
}

/// A place in a file that cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The page, or the page whose leaf holds the bucket that is kept in place.
    pub page: u64,
    /// The element of the page, counted from 0.
    pub element: Option<usize>,
    /// What is wrong.
    pub rule: Rule,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}", self.page)?;
        if let Some(element) = self.element {
            write!(f, ", element {element}")?;
        }
        write!(f, ": {}", self.rule.text())
    }
}

/// Why a file cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The source failed.
    Input {
        /// Where in the file.
        offset_bytes: u64,
        /// What it said.
        error: io::Error,
    },
    /// The file is damaged.
    Damage(Damage),
    /// The machine has no memory for a page run of this size.
    Memory(u64),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input { offset_bytes, error } => {
                write!(f, "reading the file at byte {offset_bytes}: {error}")
            }
            Self::Damage(damage) => damage.fmt(f),
            Self::Memory(bytes) => write!(f, "no memory for a page run of {bytes} bytes"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Input { error, .. } = self { Some(error) } else { None }
    }
}

pub(super) fn damage<T>(page: u64, rule: Rule) -> Result<T, ReadError> {
    Err(ReadError::Damage(Damage { page, element: None, rule }))
}

pub(super) fn damage_in<T>(page: u64, element: usize, rule: Rule) -> Result<T, ReadError> {
    Err(ReadError::Damage(Damage { page, element: Some(element), rule }))
}

/// An open file.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    meta: Meta,
}

/// A bucket, found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub(super) place: Place,
    /// bbolt's counter for the bucket; etcd uses none.
    pub sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Root(u64),
    /// The leaf, and the page that holds it.
    Inline {
        leaf: Vec<u8>,
        holder: u64,
    },
}

impl<S: Source> Reader<S> {
    /// Reads the meta pages and picks the newer one that is whole. A digest behind the last page
    /// does no harm, and is not looked at.
    pub fn open(source: S) -> Result<Self, ReadError> {
        let first = read_meta(&source, 0, 0)?;
        let second_offset = match &first {
            Ok(meta) => Some(u64::from(meta.page_size_bytes)),
            Err(_) => None,
        };
        let second = match second_offset {
            Some(offset) => read_meta(&source, 1, offset)?,
            None => find_second_meta(&source)?,
        };
        let meta = match (first, second) {
            (Ok(first), Ok(second)) if second.transaction > first.transaction => second,
            (Ok(first), _) => first,
            (Err(_), Ok(second)) => second,
            (Err(rule), Err(_)) => return damage(0, rule),
        };
        let meta_page = meta.transaction % 2;
        let page_count_max = source.size_bytes() / u64::from(meta.page_size_bytes);
        if meta.page_count > page_count_max {
            return damage(meta_page, Rule::Truncated);
        }
        let has_free_list = meta.free_list != NO_FREE_LIST;
        if meta.root.root >= meta.page_count || has_free_list && meta.free_list >= meta.page_count {
            return damage(meta_page, Rule::OutsideFile);
        }
        Ok(Self { source, meta })
    }

    /// The size of the file's pages.
    #[must_use]
    pub fn page_size_bytes(&self) -> u64 {
        u64::from(self.meta.page_size_bytes)
    }

    /// How many pages are in use or free; the file may be longer.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        self.meta.page_count
    }

    /// The last transaction that was written.
    #[must_use]
    pub fn transaction(&self) -> u64 {
        self.meta.transaction
    }

    /// A walk over all buckets, by name.
    pub fn buckets(&self) -> Walk<'_, S> {
        Walk::over_root(self)
    }

    /// The bucket of this name.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, ReadError> {
        let mut buckets = self.buckets();
        while let Some((found, bucket)) = buckets.next_bucket()? {
            if found == name {
                return Ok(Some(bucket));
            }
        }
        Ok(None)
    }

    /// A walk over a bucket's pairs, by key.
    pub fn walk<'a>(&'a self, bucket: &Bucket) -> Walk<'a, S> {
        Walk::over_bucket(self, bucket)
    }

    /// The page of the tree of buckets' root.
    pub(super) fn root(&self) -> u64 {
        self.meta.root.root
    }

    /// Reads a page with those it overflows into; the header is checked.
    pub(super) fn read_run(&self, page: u64) -> Result<(PageHeader, Vec<u8>), ReadError> {
        if page < 2 || page >= self.meta.page_count {
            return damage(page, Rule::OutsideFile);
        }
        let mut run = self.read(page, 0, self.page_size_bytes())?;
        let header = PageHeader::from_bytes(&run);
        if header.page != page {
            return damage(page, Rule::WrongPage);
        }
        let overflow = u64::from(header.overflow);
        if overflow >= self.meta.page_count - page {
            return damage(page, Rule::Overflow);
        }
        if overflow > 0 {
            if (overflow + 1) * self.page_size_bytes() > RUN_BYTES_MAX {
                return damage(page, Rule::TooLong);
            }
            run = self.read(page, 0, (overflow + 1) * self.page_size_bytes())?;
        }
        Ok((header, run))
    }

    fn read(&self, page: u64, skip: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        let mut buffer = Vec::new();
        let len_fits = usize::try_from(len).map_err(|_| ReadError::Memory(len))?;
        buffer.try_reserve_exact(len_fits).map_err(|_| ReadError::Memory(len))?;
        buffer.resize(len_fits, 0);
        let offset_bytes = page * self.page_size_bytes() + skip;
        self.source
            .read_at(offset_bytes, &mut buffer)
            .map_err(|error| ReadError::Input { offset_bytes, error })?;
        Ok(buffer)
    }

    /// The free list's first page and its header, if the file has one.
    pub(super) fn free_list(&self) -> Result<Option<FreeList>, ReadError> {
        let page = self.meta.free_list;
        if page == NO_FREE_LIST {
            return Ok(None);
        }
        let (header, run) = self.read_run(page)?;
        if PageKind::of(header.kind_flags) != Some(PageKind::FreeList) {
            return damage(page, Rule::WrongKind);
        }
        let content = &run[HEADER_SIZE_BYTES..];
        let (count, content) = if header.count == COUNT_FOLLOWS {
            (u64_at(content, 0), &content[8..])
        } else {
            (u64::from(header.count), content)
        };
        if count > content.len() as u64 / 8 {
            return damage(page, Rule::Elements);
        }
        let count = usize::try_from(count).expect("the content is in memory");
        let pages = content.chunks_exact(8).take(count).map(|page| u64_at(page, 0)).collect();
        Ok(Some(FreeList { page, overflow: header.overflow, pages }))
    }
}

/// The pages that a file does not use.
#[derive(Debug)]
pub(super) struct FreeList {
    pub(super) page: u64,
    pub(super) overflow: u32,
    pub(super) pages: Vec<u64>,
}

fn read_meta<S: Source>(
    source: &S,
    page: u64,
    offset_bytes: u64,
) -> Result<Result<Meta, Rule>, ReadError> {
    let mut buffer = [0; HEADER_SIZE_BYTES + META_SIZE_BYTES];
    if source.size_bytes() < offset_bytes.saturating_add(buffer.len() as u64) {
        return Ok(Err(Rule::TooShort));
    }
    source
        .read_at(offset_bytes, &mut buffer)
        .map_err(|error| ReadError::Input { offset_bytes, error })?;
    let header = PageHeader::from_bytes(&buffer);
    let meta = match Meta::from_bytes(&buffer[HEADER_SIZE_BYTES..]) {
        Ok(meta) => meta,
        Err(NotMeta::Magic) => return Ok(Err(Rule::Magic)),
        Err(NotMeta::Version) => return Ok(Err(Rule::Version)),
        Err(NotMeta::Checksum) => return Ok(Err(Rule::Checksum)),
    };
    let is_size_known =
        PAGE_SIZES_LOG2.into_iter().any(|log2| meta.page_size_bytes == 1u32 << log2);
    Ok(if !is_size_known {
        Err(Rule::PageSize)
    } else if header.page != page {
        Err(Rule::WrongPage)
    } else if PageKind::of(header.kind_flags) != Some(PageKind::Meta) {
        Err(Rule::WrongKind)
    } else {
        Ok(meta)
    })
}

/// Looks for page 1 where each page size would put it: page 0, which says it, is damaged.
fn find_second_meta<S: Source>(source: &S) -> Result<Result<Meta, Rule>, ReadError> {
    for log2 in PAGE_SIZES_LOG2 {
        let page_size_bytes = 1u32 << log2;
        if let Ok(meta) = read_meta(source, 1, u64::from(page_size_bytes))?
            && meta.page_size_bytes == page_size_bytes
        {
            return Ok(Ok(meta));
        }
    }
    Ok(Err(Rule::TooShort))
}

/// What a page may hold, as its place in the tree says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    /// No key is below it.
    pub(super) low: &'a [u8],
    /// Every key is below it.
    pub(super) high: Option<&'a [u8]>,
}

/// A leaf or a branch whose elements are sound.
#[derive(Debug)]
pub(super) struct Node {
    /// The page, or that of the leaf which holds the bucket in place.
    pub(super) page: u64,
    pub(super) is_leaf: bool,
    pub(super) count: usize,
    bytes: Vec<u8>,
}

/// A leaf's element.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeafElement<'a> {
    pub(super) is_bucket: bool,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Node {
    /// Checks every element. Of damage in a bucket kept in place, `page` is what is named.
    pub(super) fn new(
        page: u64,
        header: PageHeader,
        bytes: Vec<u8>,
        bounds: Bounds<'_>,
    ) -> Result<Self, ReadError> {
        let is_leaf = match PageKind::of(header.kind_flags) {
            Some(PageKind::Leaf) => true,
            Some(PageKind::Branch) => false,
            _ => return damage(page, Rule::WrongKind),
        };
        let count = usize::from(header.count);
        if HEADER_SIZE_BYTES + count * ELEMENT_SIZE_BYTES > bytes.len() {
            return damage(page, Rule::Elements);
        }
        if count == 0 && !is_leaf {
            return damage(page, Rule::NoChildren);
        }
        let node = Self { page, is_leaf, count, bytes };
        let mut key_before: Option<&[u8]> = None;
        for index in 0..count {
            let key = node.check_element(index)?;
            if key_before.is_some_and(|before| before >= key) {
                return damage_in(page, index, Rule::KeyOrder);
            }
            if key < bounds.low {
                return damage_in(page, index, Rule::KeyBelowBranch);
            }
            if bounds.high.is_some_and(|high| key >= high) {
                return damage_in(page, index, Rule::KeyAboveBranch);
            }
            key_before = Some(key);
        }
        Ok(node)
    }

    /// Checks that an element's key and value lie behind the elements and inside the page.
    fn check_element(&self, index: usize) -> Result<&[u8], ReadError> {
        let at = element_at(index);
        let (position, key_len, value_len) = self.element(index);
        let bytes_start = HEADER_SIZE_BYTES + self.count * ELEMENT_SIZE_BYTES;
        // Three numbers of 32 bits and a place in memory do not overflow 64 bits.
        let start = at as u64 + position;
        if start < bytes_start as u64 || start + key_len + value_len > self.bytes.len() as u64 {
            return damage_in(self.page, index, Rule::OutsidePage);
        }
        if key_len == 0 {
            return damage_in(self.page, index, Rule::KeyEmpty);
        }
        if key_len > KEY_BYTES_MAX as u64 {
            return damage_in(self.page, index, Rule::KeyTooLong);
        }
        if self.is_leaf && u32_at(&self.bytes, at) & !FLAG_BUCKET != 0 {
            return damage_in(self.page, index, Rule::Flags);
        }
        Ok(self.key(index))
    }

    /// Where the key begins, seen from the element; its length, and the value's.
    fn element(&self, index: usize) -> (u64, u64, u64) {
        let at = element_at(index);
        let number = |skip| u64::from(u32_at(&self.bytes, at + skip));
        if self.is_leaf { (number(4), number(8), number(12)) } else { (number(0), number(4), 0) }
    }

    pub(super) fn key(&self, index: usize) -> &[u8] {
        self.slices(index).0
    }

    fn slices(&self, index: usize) -> (&[u8], &[u8]) {
        let (position, key_len, value_len) = self.element(index);
        let inside = |number| usize::try_from(number).expect("it was found to lie inside the page");
        let start = element_at(index) + inside(position);
        let bytes = &self.bytes[start..start + inside(key_len + value_len)];
        bytes.split_at(inside(key_len))
    }

    pub(super) fn leaf_element(&self, index: usize) -> LeafElement<'_> {
        assert!(self.is_leaf && index < self.count);
        let is_bucket = u32_at(&self.bytes, element_at(index)) & FLAG_BUCKET != 0;
        let (key, value) = self.slices(index);
        LeafElement { is_bucket, key, value }
    }

    pub(super) fn child(&self, index: usize) -> u64 {
        assert!(!self.is_leaf && index < self.count);
        u64_at(&self.bytes, element_at(index) + 8)
    }

    /// The bucket that an element of the root's leaves holds.
    pub(super) fn bucket(&self, index: usize) -> Result<Bucket, ReadError> {
        let LeafElement { is_bucket, value, .. } = self.leaf_element(index);
        if !is_bucket {
            return damage_in(self.page, index, Rule::PairAmongBuckets);
        }
        if value.len() < BUCKET_SIZE_BYTES {
            return damage_in(self.page, index, Rule::BucketValue);
        }
        let BucketHeader { root, sequence } = BucketHeader::from_bytes(value);
        if root != 0 {
            return Ok(Bucket { place: Place::Root(root), sequence });
        }
        let leaf = value[BUCKET_SIZE_BYTES..].to_vec();
        if leaf.len() < HEADER_SIZE_BYTES {
            return damage_in(self.page, index, Rule::BucketValue);
        }
        Ok(Bucket { place: Place::Inline { leaf, holder: self.page }, sequence })
    }
}

fn element_at(index: usize) -> usize {
    HEADER_SIZE_BYTES + index * ELEMENT_SIZE_BYTES
}
