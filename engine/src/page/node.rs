//! The codec of tree pages: slots that grow upwards, cells that grow downwards.
//!
//! Slots stand in key order, each field of theirs in an array of its own: the heads, which are the
//! eight bytes of each key that follow the prefix which all keys of the page share, lie side by
//! side, so that a search reads a few cache lines of them and then one cell.
//!
//! A leaf's cell is an entry, with its whole key, so that a reader borrows the key from the page.
//! An inner page's key is only compared: prefix and head are all there is of it, and a cell holds
//! the rest where there is any more. That doubles the children of a page. `inner` changes inner
//! pages.
//!
//! Invariants (checked once for every page that comes from a disk, kept by every change):
//! - Every cell lies behind the slots and inside the page, every part of a cell inside the cell;
//!   after that check no accessor can leave the page.
//! - The first child of an inner page stands for everything below the second: its key is empty and
//!   never compared.
//! - The prefix is shared by all compared keys, and is short enough that a long key's inline start
//!   covers the eight bytes behind it.
//! - `garbage` counts the bytes of cells that no slot names any more.

use std::cmp::Ordering;

use super::bytes::{PAGE_HEADER_SIZE_BYTES, PageBytes, PageKind};
use super::ids::{Epoch, ExtentRef, PAGE_SIZE_BYTES, PageId, TreeTag};

const COUNT_AT: usize = 18;
const HEAP_AT: usize = 20;
const GARBAGE_AT: usize = 22;
const PREFIX_AT: usize = 24;
const PREFIX_START_AT: usize = 26;

/// A field of the slots: its width, and the widths of the fields whose arrays stand before its own.
#[derive(Clone, Copy)]
struct Field {
    width: usize,
    before: usize,
}

const HEAD: Field = Field { width: 8, before: 0 };
const CELL: Field = Field { width: 4, before: 8 };
const CHILD: Field = Field { width: 4, before: 12 };
const BIRTH: Field = Field { width: 8, before: 16 };
const CHILD_COUNT: Field = Field { width: 8, before: 24 };

const LEAF_FIELDS: &[Field] = &[HEAD, CELL];
const INNER_FIELDS: &[Field] = &[HEAD, CELL, CHILD, BIRTH, CHILD_COUNT];
const LEAF_SLOT_SIZE: usize = 12;
pub(super) const INNER_SLOT_SIZE: usize = 32;

pub(super) const LEAF_CELL_HEADER_SIZE: usize = 4;
pub(super) const EXTENT_SIZE: usize = ExtentRef::ENCODED_SIZE_BYTES;

/// Bytes of a key that its slot holds.
pub(super) const HEAD_SIZE: usize = HEAD.width;

/// Marks the size of an inner cell that ends in the reference to a long key.
pub(super) const INNER_LONG: usize = 0x8000;

const FLAG_KEY_LONG: u8 = 1;
const FLAG_BODY_EXTENT: u8 = 2;

/// Bytes of a page that slots and cells share.
pub const NODE_CAPACITY_BYTES: usize = PAGE_SIZE_BYTES - PAGE_HEADER_SIZE_BYTES;

/// Longest key that stands in its page; a longer one moves to an extent, all but its start. An
/// eighth of a page keeps inner pages at seven children or more, and so every tree flat.
pub const KEY_INLINE_SIZE_BYTES_MAX: usize = PAGE_SIZE_BYTES / 8;

/// Bytes of a long key that stay in the page to decide most comparisons there.
pub const KEY_START_SIZE_BYTES: usize = 128;

/// Longest prefix of a page: the bytes of a head behind it must still be known of a long key.
pub(super) const PREFIX_SIZE_MAX: usize = KEY_START_SIZE_BYTES - 8;

/// Largest head of an entry; its length is one byte.
pub const HEAD_SIZE_BYTES_MAX: usize = 255;

/// Largest cell with its slot. Half a page: then a page that one more cell overfills can always be
/// divided into two that fit.
pub const CELL_SIZE_BYTES_MAX: usize = NODE_CAPACITY_BYTES / 2;

const _: () = assert!(
    LEAF_SLOT_SIZE
        + LEAF_CELL_HEADER_SIZE
        + KEY_INLINE_SIZE_BYTES_MAX
        + HEAD_SIZE_BYTES_MAX
        + EXTENT_SIZE
        <= CELL_SIZE_BYTES_MAX
);
const _: () = assert!(KEY_START_SIZE_BYTES + EXTENT_SIZE <= KEY_INLINE_SIZE_BYTES_MAX);

/// A key as it stands in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredKey<'a> {
    /// The whole key.
    Inline(&'a [u8]),
    /// The first bytes of a long key, and where all of it stands.
    Long {
        /// The first [`KEY_START_SIZE_BYTES`] bytes.
        start: &'a [u8],
        /// The whole key.
        extent: ExtentRef,
    },
}

impl<'a> StoredKey<'a> {
    /// The bytes that stand in the page.
    #[must_use]
    pub fn inline(self) -> &'a [u8] {
        match self {
            Self::Inline(key) => key,
            Self::Long { start, .. } => start,
        }
    }

    /// The extent of a long key.
    #[must_use]
    pub fn extent(self) -> Option<ExtentRef> {
        match self {
            Self::Inline(_) => None,
            Self::Long { extent, .. } => Some(extent),
        }
    }

    fn stored_size(self) -> usize {
        self.inline().len() + if self.extent().is_some() { EXTENT_SIZE } else { 0 }
    }
}

/// The body of an entry as it stands in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredBody<'a> {
    /// The body itself.
    Inline(&'a [u8]),
    /// Where the body stands.
    Extent(ExtentRef),
}

/// An entry of a leaf, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafCell<'a> {
    /// The key.
    pub key: StoredKey<'a>,
    /// The owner's fixed part.
    pub head: &'a [u8],
    /// The value.
    pub body: StoredBody<'a>,
}

impl LeafCell<'_> {
    /// Bytes the cell takes in a page, its slot included.
    #[must_use]
    pub fn size_with_slot(self) -> usize {
        let body = match self.body {
            StoredBody::Inline(body) => body.len(),
            StoredBody::Extent(_) => EXTENT_SIZE,
        };
        LEAF_SLOT_SIZE + LEAF_CELL_HEADER_SIZE + self.key.stored_size() + self.head.len() + body
    }
}

/// A child of an inner page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// The child's page.
    pub page: PageId,
    /// The child's birth.
    pub birth: Epoch,
    /// Entries below the child.
    pub count: u64,
}

/// The key of a child as it stands in an inner page, in two parts. No key below the child is
/// smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeparatorRef<'a> {
    /// The prefix of the page.
    pub prefix: &'a [u8],
    /// What follows it: the whole rest, or of a long key what follows in its start.
    pub rest: &'a [u8],
    /// Where all of a long key stands.
    pub extent: Option<ExtentRef>,
}

/// The eight bytes behind the prefix as one number that sorts like them.
#[must_use]
pub fn key_head(key: &[u8], prefix: usize) -> u64 {
    let rest = key.get(prefix..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(head)
        }
    }
}

pub(super) fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

fn decode_extent(bytes: &[u8]) -> ExtentRef {
    let bytes = bytes.first_chunk().expect("the cell was checked to hold the reference");
    ExtentRef::decode(bytes)
}

fn decode_key(bytes: &[u8], long: bool) -> StoredKey<'_> {
    if long {
        let (start, extent) = bytes.split_at(KEY_START_SIZE_BYTES);
        StoredKey::Long { start, extent: decode_extent(extent) }
    } else {
        StoredKey::Inline(bytes)
    }
}

/// A tree page to read.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    bytes: &'a PageBytes,
}

impl<'a> Node<'a> {
    /// Reads a page that passed [`Self::check`], or was built here.
    #[must_use]
    pub fn new(bytes: &'a PageBytes) -> Self {
        Self { bytes }
    }

    /// Whether the page holds entries rather than children.
    #[must_use]
    pub fn is_leaf(self) -> bool {
        self.bytes.kind_byte() == PageKind::Leaf as u8
    }

    /// Number of entries or children.
    #[must_use]
    pub fn count(self) -> usize {
        self.bytes.u16_at(COUNT_AT)
    }

    fn heap_start(self) -> usize {
        self.bytes.u16_at(HEAP_AT)
    }

    /// Length of the prefix that all compared keys share.
    #[must_use]
    pub fn prefix_len(self) -> usize {
        self.bytes.u16_at(PREFIX_AT)
    }

    fn slot_size(self) -> usize {
        if self.is_leaf() { LEAF_SLOT_SIZE } else { INNER_SLOT_SIZE }
    }

    fn fields(self) -> &'static [Field] {
        if self.is_leaf() { LEAF_FIELDS } else { INNER_FIELDS }
    }

    fn slots_end(self, count: usize) -> usize {
        PAGE_HEADER_SIZE_BYTES + count * self.slot_size()
    }

    #[inline]
    fn field_at(self, field: Field, index: usize) -> usize {
        PAGE_HEADER_SIZE_BYTES + field.before * self.count() + field.width * index
    }

    /// Index of the first slot whose key takes part in comparisons.
    #[must_use]
    pub fn first_compared(self) -> usize {
        usize::from(!self.is_leaf())
    }

    /// The bytes of a key that its slot repeats.
    #[must_use]
    pub fn head(self, index: usize) -> u64 {
        u64::from_be_bytes(*self.bytes.array_at(self.field_at(HEAD, index)))
    }

    /// The first of the compared slots whose head is not smaller than `head`, and the first whose
    /// head is greater.
    #[inline]
    #[must_use]
    pub fn equal_heads(self, head: u64) -> (usize, usize) {
        let (first, count) = (self.first_compared(), self.count());
        let heads = &self.bytes.0[self.field_at(HEAD, first)..self.field_at(HEAD, count)];
        let (heads, _) = heads.as_chunks::<8>();
        let low = heads.partition_point(|other| u64::from_be_bytes(*other) < head);
        let equal = heads[low..].iter().take_while(|other| u64::from_be_bytes(**other) == head);
        let high = low + equal.count();
        (first + low, first + high)
    }

    #[inline]
    pub(super) fn cell_place(self, index: usize) -> (usize, usize) {
        let at = self.field_at(CELL, index);
        (self.bytes.u16_at(at), self.bytes.u16_at(at + 2))
    }

    /// Bytes of a slot's cell; none where the head is all there is of a child's key.
    fn cell_size(self, index: usize) -> usize {
        match self.cell_place(index) {
            (0, _) => 0,
            (_, size) => size & !INNER_LONG,
        }
    }

    #[inline]
    fn cell(self, index: usize) -> &'a [u8] {
        let (start, size) = self.cell_place(index);
        &self.bytes.0[start..start + size]
    }

    /// The key of an entry.
    #[must_use]
    pub fn key(self, index: usize) -> StoredKey<'a> {
        debug_assert!(self.is_leaf());
        let cell = self.cell(index);
        let size = usize::from(u16::from_le_bytes([cell[0], cell[1]]));
        let long = cell[3] & FLAG_KEY_LONG != 0;
        decode_key(&cell[LEAF_CELL_HEADER_SIZE..LEAF_CELL_HEADER_SIZE + size], long)
    }

    /// The key of a child.
    #[must_use]
    pub fn separator(self, index: usize) -> SeparatorRef<'a> {
        debug_assert!(!self.is_leaf());
        let prefix = self.prefix();
        let (start, size) = self.cell_place(index);
        if start == 0 {
            let at = self.field_at(HEAD, index);
            return SeparatorRef { prefix, rest: &self.bytes.0[at..at + size], extent: None };
        }
        let cell = &self.bytes.0[start..start + (size & !INNER_LONG)];
        if size & INNER_LONG == 0 {
            return SeparatorRef { prefix, rest: cell, extent: None };
        }
        let (rest, extent) = cell.split_at(cell.len() - EXTENT_SIZE);
        SeparatorRef { prefix, rest, extent: Some(decode_extent(extent)) }
    }

    /// The extent of a long key, of an entry or of a child.
    #[must_use]
    pub fn key_extent(self, index: usize) -> Option<ExtentRef> {
        if self.is_leaf() { self.key(index).extent() } else { self.separator(index).extent }
    }

    /// The bytes that all compared keys begin with.
    #[inline]
    #[must_use]
    pub fn prefix(self) -> &'a [u8] {
        let len = self.prefix_len();
        if len == 0 {
            &[]
        } else if self.is_leaf() {
            &self.key(0).inline()[..len]
        } else {
            let start = self.bytes.u16_at(PREFIX_START_AT);
            &self.bytes.0[start..start + len]
        }
    }

    /// An entry of a leaf.
    #[must_use]
    pub fn leaf_cell(self, index: usize) -> LeafCell<'a> {
        debug_assert!(self.is_leaf());
        let cell = self.cell(index);
        let key_size = usize::from(u16::from_le_bytes([cell[0], cell[1]]));
        let head_size = usize::from(cell[2]);
        let flags = cell[3];
        let (key, rest) = cell[LEAF_CELL_HEADER_SIZE..].split_at(key_size);
        let (head, body) = rest.split_at(head_size);
        let key = decode_key(key, flags & FLAG_KEY_LONG != 0);
        let body = if flags & FLAG_BODY_EXTENT == 0 {
            StoredBody::Inline(body)
        } else {
            StoredBody::Extent(decode_extent(body))
        };
        LeafCell { key, head, body }
    }

    /// A child with what is known of it.
    #[must_use]
    pub fn child_with_count(self, index: usize) -> Child {
        let (page, birth) = self.child(index);
        Child { page, birth, count: self.child_count(index) }
    }

    /// Where a child is, and its birth.
    #[must_use]
    pub fn child(self, index: usize) -> (PageId, Epoch) {
        debug_assert!(!self.is_leaf());
        let page = self.bytes.u32_at(self.field_at(CHILD, index));
        (PageId(page), Epoch(self.bytes.u64_at(self.field_at(BIRTH, index))))
    }

    /// Number of entries below a child.
    #[must_use]
    pub fn child_count(self, index: usize) -> u64 {
        debug_assert!(!self.is_leaf());
        self.bytes.u64_at(self.field_at(CHILD_COUNT, index))
    }

    /// Number of entries below a range of children.
    #[must_use]
    pub fn children_count(self, children: std::ops::Range<usize>) -> u64 {
        // The sum of counts from a damaged page may wrap; nothing relies on it but answers.
        let (start, end) = (children.start, children.end);
        let counts = self.field_at(CHILD_COUNT, start)..self.field_at(CHILD_COUNT, end);
        let (counts, _) = self.bytes.0[counts].as_chunks::<8>();
        counts.iter().fold(0, |sum, count| sum.wrapping_add(u64::from_le_bytes(*count)))
    }

    /// Number of entries in or below this page.
    #[must_use]
    pub fn entries_count(self) -> u64 {
        if self.is_leaf() { self.count() as u64 } else { self.children_count(0..self.count()) }
    }

    /// The page's bytes.
    #[must_use]
    pub fn page(self) -> &'a PageBytes {
        self.bytes
    }

    /// Bytes that cells and slots take together, without garbage.
    #[must_use]
    pub fn used_bytes(self) -> usize {
        let heap = PAGE_SIZE_BYTES - self.heap_start() - self.bytes.u16_at(GARBAGE_AT);
        heap + self.count() * self.slot_size()
    }

    /// Whether a cell of this size fits behind one more slot without moving other cells.
    pub(super) fn has_gap(self, cell_size: usize) -> bool {
        self.heap_start() >= self.slots_end(self.count() + 1) + cell_size
    }

    /// Bytes a cell takes with its slot.
    #[must_use]
    pub fn size_with_slot(self, index: usize) -> usize {
        self.cell_size(index) + self.slot_size()
    }

    /// Checks everything that the accessors rely on; says which rule is broken.
    ///
    /// # Errors
    /// The broken rule, in words.
    pub fn check(self) -> Result<(), &'static str> {
        let leaf = match self.bytes.kind_byte() {
            kind if kind == PageKind::Leaf as u8 => true,
            kind if kind == PageKind::Inner as u8 => false,
            _ => return Err("neither leaf nor inner page"),
        };
        let (count, heap) = (self.count(), self.heap_start());
        if count == 0 {
            return Err("empty page");
        }
        if heap < self.slots_end(count) || heap > PAGE_SIZE_BYTES {
            return Err("cells overlap the slots");
        }
        let mut cells_size = if leaf { 0 } else { self.check_prefix(heap)? };
        for index in 0..count {
            let (start, size) = self.cell_place(index);
            if !leaf && start == 0 {
                if size > HEAD_SIZE {
                    return Err("more bytes of a key than its slot holds");
                }
                continue;
            }
            let size = self.cell_size(index);
            if start < heap || start + size > PAGE_SIZE_BYTES {
                return Err("cell outside the page");
            }
            if leaf {
                check_leaf_cell(&self.bytes.0[start..start + size])?;
            } else if self.cell_place(index).1 & INNER_LONG == 0 {
                check_stored_key(size, false)?;
            } else if size + self.prefix_len() != KEY_START_SIZE_BYTES + EXTENT_SIZE {
                return Err("long key of a wrong size");
            }
            cells_size += size;
        }
        // Equality also bounds every later sum: used bytes can then never exceed the page.
        if heap + cells_size + self.bytes.u16_at(GARBAGE_AT) != PAGE_SIZE_BYTES {
            return Err("cells and garbage do not fill the heap");
        }
        self.check_keys(count)
    }

    /// Checks where the prefix of an inner page stands; returns its length.
    fn check_prefix(self, heap: usize) -> Result<usize, &'static str> {
        let (start, len) = (self.bytes.u16_at(PREFIX_START_AT), self.prefix_len());
        if len > PREFIX_SIZE_MAX {
            return Err("prefix too long");
        }
        if len > 0 && (start < heap || start + len > PAGE_SIZE_BYTES) {
            return Err("prefix outside the page");
        }
        Ok(len)
    }

    fn check_keys(self, count: usize) -> Result<(), &'static str> {
        let (leaf, prefix_len) = (self.is_leaf(), self.prefix_len());
        if leaf && prefix_len > self.key(0).inline().len().min(PREFIX_SIZE_MAX) {
            return Err("prefix longer than a key");
        }
        if !leaf && (self.cell_place(0) != (0, 0) || self.head(0) != 0) {
            return Err("first child with a key");
        }
        let prefix = self.prefix();
        let mut before: Option<(&[u8], bool)> = None;
        for index in self.first_compared()..count {
            let (rest, long) = if leaf {
                let key = self.key(index);
                let rest = key.inline().strip_prefix(prefix);
                (rest.ok_or("key without the page's prefix")?, key.extent().is_some())
            } else {
                let separator = self.separator(index);
                (separator.rest, separator.extent.is_some())
            };
            if self.head(index) != key_head(rest, 0) {
                return Err("slot does not repeat its key");
            }
            if before.is_some_and(|before| !may_precede(before, (rest, long))) {
                return Err("keys out of order");
            }
            before = Some((rest, long));
        }
        Ok(())
    }
}

/// Whether keys can be in this order, as far as their parts in the page tell: the extents of long
/// keys (`true`) are not worth reading here.
fn may_precede((low, _): (&[u8], bool), (high, high_long): (&[u8], bool)) -> bool {
    let shared = low.len().min(high.len());
    match low[..shared].cmp(&high[..shared]) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => low.len() < high.len() || high_long,
    }
}

fn check_stored_key(size: usize, long: bool) -> Result<(), &'static str> {
    if long && size != KEY_START_SIZE_BYTES + EXTENT_SIZE {
        return Err("long key of a wrong size");
    }
    if size > KEY_INLINE_SIZE_BYTES_MAX {
        return Err("inline key too long");
    }
    Ok(())
}

fn check_leaf_cell(cell: &[u8]) -> Result<(), &'static str> {
    let header = cell.first_chunk::<LEAF_CELL_HEADER_SIZE>().ok_or("cell without its header")?;
    let key_size = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let key_end = LEAF_CELL_HEADER_SIZE + key_size;
    check_stored_key(key_size, header[3] & FLAG_KEY_LONG != 0)?;
    let body = cell.get(key_end + usize::from(header[2])..).ok_or("head outside its cell")?;
    match header[3] & !FLAG_KEY_LONG {
        0 => Ok(()),
        FLAG_BODY_EXTENT if body.len() == EXTENT_SIZE => Ok(()),
        _ => Err("unknown flags of a cell"),
    }
}

/// Some entries of a leaf.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntrySet {
    words: [u64; ENTRY_WORDS],
}

const ENTRY_WORDS: usize = 6;
const _: () =
    assert!(NODE_CAPACITY_BYTES / (LEAF_SLOT_SIZE + LEAF_CELL_HEADER_SIZE) < 64 * ENTRY_WORDS);

impl EntrySet {
    /// Adds the entry at an index.
    pub fn insert(&mut self, index: usize) {
        self.words[index / 64] |= 1 << (index % 64);
    }

    fn contains(&self, index: usize) -> bool {
        self.words[index / 64] & (1 << (index % 64)) != 0
    }
}

/// A tree page of the working epoch, to change.
pub struct NodeMut<'a> {
    bytes: &'a mut PageBytes,
}

impl<'a> NodeMut<'a> {
    /// Changes a page that is already a node.
    pub fn new(bytes: &'a mut PageBytes) -> Self {
        Self { bytes }
    }

    /// Makes an empty node of a page whose identity is set.
    pub fn init(bytes: &'a mut PageBytes, kind: PageKind, tree: TreeTag) -> Self {
        bytes.set_kind(kind, tree);
        bytes.put_u16(COUNT_AT, 0);
        bytes.put_u16(HEAP_AT, PAGE_SIZE_BYTES);
        bytes.put_u16(GARBAGE_AT, 0);
        bytes.put_u16(PREFIX_AT, 0);
        bytes.0[PREFIX_AT + 2..PAGE_HEADER_SIZE_BYTES].fill(0);
        Self { bytes }
    }

    /// Empties the page, to build it anew.
    #[must_use]
    pub fn reinit(self, kind: PageKind, tree: TreeTag) -> Self {
        Self::init(self.bytes, kind, tree)
    }

    /// The same page to read.
    #[must_use]
    pub fn as_node(&self) -> Node<'_> {
        Node { bytes: self.bytes }
    }

    /// Whether a cell of this size, slot included, can be added.
    #[must_use]
    pub fn has_room(&self, size_with_slot: usize) -> bool {
        self.as_node().used_bytes() + size_with_slot <= NODE_CAPACITY_BYTES
    }

    /// Adds an entry. The caller has made room.
    pub fn insert_leaf(&mut self, index: usize, cell: LeafCell<'_>) {
        let (key, key_extent) = (cell.key.inline(), cell.key.extent().map(ExtentRef::encode));
        let mut flags = if key_extent.is_some() { FLAG_KEY_LONG } else { 0 };
        let body_extent;
        let body = match cell.body {
            StoredBody::Inline(body) => body,
            StoredBody::Extent(extent) => {
                flags |= FLAG_BODY_EXTENT;
                body_extent = extent.encode();
                &body_extent
            }
        };
        let key_size = u16::try_from(cell.key.stored_size()).expect("an inline key is short");
        let head_size = u8::try_from(cell.head.len()).expect("heads are bounded by their owner");
        let [low, high] = key_size.to_le_bytes();
        let header = [low, high, head_size, flags];
        let key_extent = key_extent.as_ref().map_or(&[][..], |extent| extent);
        self.insert_cell(index, key, &[&header, key, key_extent, cell.head, body]);
    }

    fn insert_cell(&mut self, index: usize, key: &[u8], parts: &[&[u8]]) {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let start = self.open_slot(index, size);
        let mut at = start;
        for part in parts {
            self.bytes.0[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.set_cell_place(index, start, size);
        self.note_key(index, key);
    }

    /// Makes place for a slot and a cell; returns where the cell starts.
    pub(super) fn open_slot(&mut self, index: usize, size: usize) -> usize {
        let node = self.as_node();
        let (count, slot_size) = (node.count(), node.slot_size());
        assert!(index <= count, "slot {index} of {count}");
        assert!(self.has_room(size + slot_size), "{size} bytes do not fit");
        if !node.has_gap(size) {
            self.compact_leaf();
        }
        // Each array begins further on by what those before it grow: the last goes first.
        for field in self.as_node().fields().iter().rev() {
            let old = PAGE_HEADER_SIZE_BYTES + field.before * count;
            let new = old + field.before;
            let (at, end) = (old + index * field.width, old + count * field.width);
            self.bytes.0.copy_within(at..end, new + (index + 1) * field.width);
            if field.before > 0 {
                self.bytes.0.copy_within(old..at, new);
            }
        }
        let start = self.as_node().heap_start() - size;
        self.bytes.put_u16(HEAP_AT, start);
        self.bytes.put_u16(COUNT_AT, count + 1);
        start
    }

    pub(super) fn set_head(&mut self, index: usize, head: u64) {
        let at = self.as_node().field_at(HEAD, index);
        self.bytes.0[at..at + HEAD_SIZE].copy_from_slice(&head.to_be_bytes());
    }

    /// Keeps prefix and heads of a leaf true after a key was added at `index`.
    fn note_key(&mut self, index: usize, key: &[u8]) {
        let node = self.as_node();
        let prefix = node.prefix_len();
        if node.count() == 1 {
            let prefix = key.len().min(PREFIX_SIZE_MAX);
            self.bytes.put_u16(PREFIX_AT, prefix);
            self.set_head(index, key_head(key, prefix));
            return;
        }
        let neighbour = usize::from(index == 0);
        let shared = common_prefix(&node.key(neighbour).inline()[..prefix], key);
        if shared < prefix {
            self.bytes.put_u16(PREFIX_AT, shared);
            self.refresh_heads();
        } else {
            self.set_head(index, key_head(key, prefix));
        }
    }

    fn refresh_heads(&mut self) {
        let prefix = self.as_node().prefix_len();
        for index in 0..self.as_node().count() {
            let head = key_head(self.as_node().key(index).inline(), prefix);
            self.set_head(index, head);
        }
    }

    /// Finds the longest prefix of a leaf again after keys have gone; the heads then tell more keys
    /// apart.
    fn refresh_prefix(&mut self) {
        let node = self.as_node();
        let prefix = match node.count() {
            0 => 0,
            count => {
                let (low, high) = (node.key(0).inline(), node.key(count - 1).inline());
                common_prefix(low, high).min(PREFIX_SIZE_MAX)
            }
        };
        self.bytes.put_u16(PREFIX_AT, prefix);
        self.refresh_heads();
    }

    /// Gives an inner page, which has no cells yet, the prefix of its keys.
    pub(super) fn set_inner_prefix(&mut self, prefix: &[u8]) {
        assert!(self.as_node().count() == 0 && self.as_node().heap_start() == PAGE_SIZE_BYTES);
        let start = PAGE_SIZE_BYTES - prefix.len();
        self.bytes.0[start..].copy_from_slice(prefix);
        self.bytes.put_u16(HEAP_AT, start);
        self.bytes.put_u16(PREFIX_AT, prefix.len());
        self.bytes.put_u16(PREFIX_START_AT, start);
    }

    /// Makes the first child stand for everything below the second, whatever its key was.
    pub(super) fn clear_first_separator(&mut self) {
        let size = self.as_node().cell_size(0);
        let garbage = self.bytes.u16_at(GARBAGE_AT);
        self.bytes.put_u16(GARBAGE_AT, garbage + size);
        self.set_cell_place(0, 0, 0);
        self.set_head(0, 0);
    }

    pub(super) fn cell_mut(&mut self, start: usize, size: usize) -> &mut [u8] {
        &mut self.bytes.0[start..start + size]
    }

    /// Removes an entry, or a child that is not the first.
    pub fn remove(&mut self, index: usize) {
        let node = self.as_node();
        let count = node.count();
        assert!(index < count, "slot {index} of {count}");
        let (start, size) = (node.cell_place(index).0, node.cell_size(index));
        for field in node.fields() {
            let old = PAGE_HEADER_SIZE_BYTES + field.before * count;
            let new = old - field.before;
            let (at, end) = (old + index * field.width, old + count * field.width);
            if field.before > 0 {
                self.bytes.0.copy_within(old..at, new);
            }
            self.bytes.0.copy_within(at + field.width..end, new + index * field.width);
        }
        self.bytes.put_u16(COUNT_AT, count - 1);
        if size > 0 && start == self.as_node().heap_start() {
            self.bytes.put_u16(HEAP_AT, start + size);
        } else {
            let garbage = self.bytes.u16_at(GARBAGE_AT);
            self.bytes.put_u16(GARBAGE_AT, garbage + size);
        }
    }

    /// Removes entries of a leaf, not all of them.
    pub fn remove_each(&mut self, gone: &EntrySet) {
        let node = self.as_node();
        let count = node.count();
        assert!(node.is_leaf(), "children are removed one by one");
        let left: usize = (0..count).filter(|&index| !gone.contains(index)).count();
        let size: usize = (0..count)
            .filter(|&index| gone.contains(index))
            .map(|index| node.cell_size(index))
            .sum();
        for field in LEAF_FIELDS {
            let old = PAGE_HEADER_SIZE_BYTES + field.before * count;
            let mut to = PAGE_HEADER_SIZE_BYTES + field.before * left;
            for index in (0..count).filter(|&index| !gone.contains(index)) {
                let from = old + index * field.width;
                self.bytes.0.copy_within(from..from + field.width, to);
                to += field.width;
            }
        }
        self.bytes.put_u16(COUNT_AT, left);
        let garbage = self.bytes.u16_at(GARBAGE_AT);
        self.bytes.put_u16(GARBAGE_AT, garbage + size);
    }

    /// Overwrites head and body of an entry whose new cell has the size of the old one, which is
    /// what updates of a key mostly do. Returns whether that was so.
    pub fn overwrite_leaf(&mut self, index: usize, head: &[u8], body: StoredBody<'_>) -> bool {
        let old = self.as_node().leaf_cell(index);
        let (StoredBody::Inline(old_body), StoredBody::Inline(body)) = (old.body, body) else {
            return false;
        };
        if old.head.len() != head.len() || old_body.len() != body.len() {
            return false;
        }
        let (start, size) = self.as_node().cell_place(index);
        let end = start + size;
        let body_start = end - body.len();
        self.bytes.0[body_start..end].copy_from_slice(body);
        self.bytes.0[body_start - head.len()..body_start].copy_from_slice(head);
        true
    }

    /// Points a child's cell at another page.
    pub fn set_child(&mut self, index: usize, page: PageId, birth: Epoch) {
        self.bytes.put_u32(self.as_node().field_at(CHILD, index), page.0);
        self.bytes.put_u64(self.as_node().field_at(BIRTH, index), birth.0);
    }

    /// Sets the number of entries below a child.
    pub fn set_child_count(&mut self, index: usize, count: u64) {
        self.bytes.put_u64(self.as_node().field_at(CHILD_COUNT, index), count);
    }

    pub(super) fn set_cell_place(&mut self, index: usize, start: usize, size: usize) {
        let at = self.as_node().field_at(CELL, index);
        self.bytes.put_u16(at, start);
        self.bytes.put_u16(at + 2, size);
    }

    /// Rewrites a leaf's cells without the garbage between them.
    fn compact_leaf(&mut self) {
        assert!(self.as_node().is_leaf(), "inner pages are rebuilt by their owner");
        let old = PageBytes(self.bytes.0);
        let old = Node { bytes: &old };
        let mut at = PAGE_SIZE_BYTES;
        for index in 0..old.count() {
            let cell = old.cell(index);
            at -= cell.len();
            self.bytes.0[at..at + cell.len()].copy_from_slice(cell);
            self.set_cell_place(index, at, cell.len());
        }
        self.bytes.put_u16(HEAP_AT, at);
        self.bytes.put_u16(GARBAGE_AT, 0);
    }

    /// Appends entries of another leaf as they are; [`Self::finish_appends`] must
    /// follow the last.
    pub fn append_from(&mut self, source: Node<'_>, cells: std::ops::Range<usize>) {
        assert!(source.is_leaf() && self.as_node().is_leaf());
        for index in cells {
            let (cell, count) = (source.cell(index), self.as_node().count());
            let start = self.open_slot(count, cell.len());
            self.bytes.0[start..start + cell.len()].copy_from_slice(cell);
            self.set_cell_place(count, start, cell.len());
        }
    }

    /// Keeps the first `count` entries of a leaf only.
    pub fn truncate(&mut self, count: usize) {
        while self.as_node().count() > count {
            let last = self.as_node().count() - 1;
            self.remove(last);
        }
    }

    /// Makes prefix and heads true after [`Self::append_from`] or [`Self::truncate`].
    pub fn finish_appends(&mut self) {
        self.refresh_prefix();
    }
}
