//! Changing a tree: insert, replace, remove.
//!
//! A change walks down making its path writable, changes the leaf, and walks up again where a page
//! overflowed (`split`) or ran low (`rebalance`). A leaf that loses all it has is dropped as it is.
//!
//! Invariants:
//! - What can fail for want of pages is asked before the first change; what can fail because of a
//!   damaged page is read before the page that points at it is changed.

use crate::page::node::{
    CELL_SIZE_BYTES_MAX, EntrySet, HEAD_SIZE_BYTES_MAX, KEY_INLINE_SIZE_BYTES_MAX,
    KEY_START_SIZE_BYTES, LeafCell, NODE_CAPACITY_BYTES, Node, StoredBody, StoredKey,
};
use crate::page::{
    ExtentRef, FaultKind, PAGE_SIZE_BYTES, PageFault, PageFile, PageKind, PagePtr, Pages,
    PagesNeeded, Root, TreeTag,
};

use super::search::{child_index, find_from, search};
use super::{
    Body, Entry, HEIGHT_MAX, Inserted, child_ptr, entry_at, leaf_of, node_at, rebalance, split,
};

/// The inner pages between the root and a leaf, with the child taken in each.
pub(super) struct Path {
    steps: [(PagePtr, usize); HEIGHT_MAX],
    len: usize,
}

impl Path {
    fn new(root: &Root) -> Self {
        Self { steps: [(root.ptr(), 0); HEIGHT_MAX], len: 0 }
    }

    fn push(&mut self, ptr: PagePtr, index: usize) {
        self.steps[self.len] = (ptr, index);
        self.len += 1;
    }

    /// The lowest inner page that was not yet dealt with.
    pub(super) fn pop(&mut self) -> Option<(PagePtr, usize)> {
        self.len = self.len.checked_sub(1)?;
        Some(self.steps[self.len])
    }

    fn steps(&self) -> &[(PagePtr, usize)] {
        &self.steps[..self.len]
    }
}

/// A measure of the changes of a batch, to reserve pages for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries inserted, replaced or removed.
    pub count: u64,
    /// Bytes of the keys, heads and bodies of the entries inserted, without large ones.
    pub size_bytes: u64,
    /// Pages of the keys and bodies that go to extents.
    pub extent_pages: u32,
}

impl Changes {
    /// Adds an entry to be inserted.
    pub fn add_entry(&mut self, key: &[u8], head_size_bytes: usize, body_size_bytes: usize) {
        self.count += 1;
        let mut size = head_size_bytes;
        if key.len() > KEY_INLINE_SIZE_BYTES_MAX {
            // The key itself, and a separator that may need all of it.
            self.extent_pages = self.extent_pages.saturating_add(2 * extent_pages(key.len()));
            size += KEY_START_SIZE_BYTES + ExtentRef::ENCODED_SIZE_BYTES;
        } else {
            size += key.len();
        }
        if size + body_size_bytes + CELL_OVERHEAD > CELL_SIZE_BYTES_MAX {
            self.extent_pages = self.extent_pages.saturating_add(extent_pages(body_size_bytes));
        } else {
            size += body_size_bytes;
        }
        self.size_bytes += (size + CELL_OVERHEAD) as u64;
    }

    /// Adds an entry to be removed.
    pub fn add_removal(&mut self) {
        self.count += 1;
    }
}

/// Among so many keys there are mostly several that share a leaf. Where each stands alone its leaf
/// is copied, so that loading all of it is no loss.
const WARM_KEYS_MIN: usize = 8;

/// No more than a leaf's cell and slot add to an entry.
const CELL_OVERHEAD: usize = 32;

fn extent_pages(size_bytes: usize) -> u32 {
    u32::try_from(size_bytes.div_ceil(PAGE_SIZE_BYTES)).unwrap_or(u32::MAX)
}

/// Free pages that make sure that the changes can be applied to this tree in one epoch.
#[must_use]
pub fn pages_needed(pages: &PageFile, root: &Root, changes: Changes) -> PagesNeeded {
    let in_use = pages.in_use_bytes() / PAGE_SIZE_BYTES as u64;
    // Every change may copy another leaf and its whole path, but no page is copied twice; a removal
    // also copies neighbours that it merges with.
    let leaves = (changes.count * 2).min(root.count).min(in_use);
    let paths = changes.count * 2 * u64::from(root.height.saturating_sub(1));
    let inner = paths.min(in_use / 2);
    // A full page is split by the first byte; the halves only by another half page.
    let halves = changes.size_bytes / (NODE_CAPACITY_BYTES as u64 / 2);
    let splits = (leaves + 2 * halves + 1).min(changes.count);
    let total = leaves + inner + splits + splits / 4 + 2 * u64::from(root.height) + 4;
    PagesNeeded {
        pages: u32::try_from(total).unwrap_or(u32::MAX),
        extent_pages: changes.extent_pages,
    }
}

/// Inserts an entry or replaces the one its key has. A replaced entry's extent is freed, unless it
/// is the one inserted.
///
/// # Errors
/// A page on the way is damaged, or the batch was not reserved for.
pub fn insert(
    pages: &mut PageFile,
    root: &mut Root,
    key: &[u8],
    head: &[u8],
    body: Body<'_>,
) -> Result<Inserted, PageFault> {
    let (inserted, old) = place(pages, root, key, head, body)?;
    if let Some(old) = old {
        pages.free_extent(old);
    }
    Ok(inserted)
}

/// Like [`insert`], but the extent of a replaced entry is not freed: it has another owner now.
///
/// # Errors
/// A page on the way is damaged, or the batch was not reserved for.
pub fn supersede(
    pages: &mut PageFile,
    root: &mut Root,
    key: &[u8],
    head: &[u8],
    body: Body<'_>,
) -> Result<Inserted, PageFault> {
    place(pages, root, key, head, body).map(|(inserted, _)| inserted)
}

/// Removes a key's entry and frees its extent; `false` when there is none.
///
/// # Errors
/// A page on the way is damaged, or the batch was not reserved for.
pub fn remove(pages: &mut PageFile, root: &mut Root, key: &[u8]) -> Result<bool, PageFault> {
    Ok(remove_each(pages, root, &[key], |_, _, _| Ok(()))? == 1)
}

/// Removes the entries of keys that stand in ascending order and frees their extents; those that
/// are not there are passed over. `visit` sees each entry, with its key's place in `keys`, before
/// it goes. Neighbours go together: one walk from the root for all that share a leaf. Returns how
/// many were there.
///
/// # Errors
/// A page on the way is damaged, the batch was not reserved for, or `visit` failed.
pub fn remove_each<K: AsRef<[u8]>>(
    pages: &mut PageFile,
    root: &mut Root,
    keys: &[K],
    mut visit: impl FnMut(&PageFile, usize, Entry<'_>) -> Result<(), PageFault>,
) -> Result<usize, PageFault> {
    let (mut at, mut removed) = (0, 0);
    while let Some(rest) = keys.get(at..).filter(|rest| !rest.is_empty()) {
        let visit = |pages: &PageFile, index, entry: Entry<'_>| visit(pages, at + index, entry);
        let run = unlink_run(pages, root, rest, Bodies::Freed, visit)?;
        removed += run;
        // The first key that was not found in this leaf may have another.
        at += run.max(1);
    }
    Ok(removed)
}

/// Removes a key's entry; its extent is not freed: it has another owner now. `false` when there is
/// no entry.
///
/// # Errors
/// A page on the way is damaged, or the batch was not reserved for.
pub fn take(pages: &mut PageFile, root: &mut Root, key: &[u8]) -> Result<bool, PageFault> {
    Ok(unlink_run(pages, root, &[key], Bodies::HandedOn, |_, _, _| Ok(()))? == 1)
}

/// Whether pages for one change are there; afterwards nothing fails half-way.
fn check_free_pages(pages: &PageFile, root: &Root) -> Result<(), PageFault> {
    if usize::from(root.height) >= HEIGHT_MAX {
        let what = FaultKind::Structure("tree too high");
        return Err(pages.fault(root.tree, root.page, what));
    }
    // A copy and a split, or a copy and two neighbours, at each level; a root above.
    if pages.free_pages() >= 3 * u32::from(root.height) + 2 {
        Ok(())
    } else {
        Err(pages.fault(root.tree, root.page, FaultKind::NoFreePage))
    }
}

/// Makes the root writable and returns it.
fn writable_root(pages: &mut PageFile, root: &mut Root) -> Result<PagePtr, PageFault> {
    let ptr = pages.writable(root.ptr())?;
    (root.page, root.birth) = (ptr.page, ptr.birth);
    Ok(ptr)
}

/// Makes a child of a writable page writable and returns it.
pub(super) fn writable_child(
    pages: &mut PageFile,
    parent: PagePtr,
    index: usize,
) -> Result<PagePtr, PageFault> {
    let old = child_ptr(Node::new(pages.page(parent)?), index, parent.tree);
    let ptr = pages.writable(old)?;
    if ptr != old {
        pages.node_mut(parent).set_child(index, ptr.page, ptr.birth);
    }
    Ok(ptr)
}

/// Walks to the leaf of `key`, making every page on the way writable.
fn descend_writable(
    pages: &mut PageFile,
    root: &mut Root,
    key: &[u8],
) -> Result<(Path, PagePtr), PageFault> {
    let path = descend_to_parent(pages, root, key)?;
    let leaf = match path.steps().last() {
        Some(&(parent, index)) => writable_child(pages, parent, index)?,
        None => writable_root(pages, root)?,
    };
    node_at(pages, leaf, 1)?;
    Ok((path, leaf))
}

/// The same, but for the leaf, which is left as it is.
fn descend_to_parent(pages: &mut PageFile, root: &mut Root, key: &[u8]) -> Result<Path, PageFault> {
    let mut path = Path::new(root);
    if root.height <= 1 {
        return Ok(path);
    }
    let mut ptr = writable_root(pages, root)?;
    for level in (2..=root.height).rev() {
        let node = node_at(pages, ptr, level)?;
        let index = child_index(pages, root.tree, node, key)?;
        path.push(ptr, index);
        if level > 2 {
            ptr = writable_child(pages, ptr, index)?;
        }
    }
    Ok(path)
}

fn bump_counts(pages: &mut PageFile, path: &Path, by: i64) {
    for (ptr, index) in path.steps() {
        let mut node = pages.node_mut(*ptr);
        let count = node.as_node().child_count(*index).wrapping_add_signed(by);
        node.set_child_count(*index, count);
    }
}

/// Inserts or replaces; returns the extent of a replaced body that is not in the tree any more.
fn place(
    pages: &mut PageFile,
    root: &mut Root,
    key: &[u8],
    head: &[u8],
    body: Body<'_>,
) -> Result<(Inserted, Option<ExtentRef>), PageFault> {
    assert!(head.len() <= HEAD_SIZE_BYTES_MAX, "a head of {} bytes", head.len());
    check_free_pages(pages, root)?;
    if root.is_empty() {
        let cell = store(pages, root.tree, key, head, body, None)?;
        let leaf = pages.allocate(PageKind::Leaf, root.tree)?;
        pages.node_mut(leaf).insert_leaf(0, cell.as_cell(key, head, body));
        *root = Root { page: leaf.page, birth: leaf.birth, height: 1, count: 1, ..*root };
        return Ok((Inserted::New, None));
    }
    let (mut path, leaf) = descend_writable(pages, root, key)?;
    let node = Node::new(pages.page(leaf)?);
    let (index, found) = search(pages, root.tree, node, key)?;
    if !found {
        let cell = store(pages, root.tree, key, head, body, None)?;
        bump_counts(pages, &path, 1);
        root.count += 1;
        let cell = cell.as_cell(key, head, body);
        split::insert_leaf(pages, root, &mut path, leaf, index, cell)?;
        return Ok((Inserted::New, None));
    }
    let old = node.leaf_cell(index);
    let (old_key, old_extent) = (old.key.extent(), body_extent(old.body));
    if let Body::Bytes(bytes) = body
        && pages.node_mut(leaf).overwrite_leaf(index, head, StoredBody::Inline(bytes))
    {
        return Ok((Inserted::Replaced, None));
    }
    let cell = store(pages, root.tree, key, head, body, old_key)?;
    pages.node_mut(leaf).remove(index);
    let cell = cell.as_cell(key, head, body);
    split::insert_leaf(pages, root, &mut path, leaf, index, cell)?;
    let gone = old_extent.filter(|old| body_extent(cell.body) != Some(*old));
    Ok((Inserted::Replaced, gone))
}

fn body_extent(body: StoredBody<'_>) -> Option<ExtentRef> {
    match body {
        StoredBody::Inline(_) => None,
        StoredBody::Extent(extent) => Some(extent),
    }
}

/// Where the large parts of an entry stand.
#[derive(Clone, Copy)]
struct Stored {
    key: Option<ExtentRef>,
    body: Option<ExtentRef>,
}

impl Stored {
    fn as_cell<'a>(self, key: &'a [u8], head: &'a [u8], body: Body<'a>) -> LeafCell<'a> {
        let body = match (self.body, body) {
            (Some(extent), _) | (None, Body::Extent(extent)) => StoredBody::Extent(extent),
            (None, Body::Bytes(bytes)) => StoredBody::Inline(bytes),
        };
        LeafCell { key: stored_key(key, self.key), head, body }
    }
}

/// A key with the extent that holds it if it is long.
pub(super) fn stored_key(key: &[u8], extent: Option<ExtentRef>) -> StoredKey<'_> {
    match extent {
        Some(extent) => StoredKey::Long { start: &key[..KEY_START_SIZE_BYTES], extent },
        None => StoredKey::Inline(key),
    }
}

/// Puts the large parts of an entry in extents, before the tree is changed.
fn store(
    pages: &mut PageFile,
    tree: TreeTag,
    key: &[u8],
    head: &[u8],
    body: Body<'_>,
    old_key: Option<ExtentRef>,
) -> Result<Stored, PageFault> {
    let key_extent = match old_key {
        None if key.len() > KEY_INLINE_SIZE_BYTES_MAX => Some(pages.allocate_extent(tree, key)?),
        old_key => old_key,
    };
    let mut stored = Stored { key: key_extent, body: None };
    if let Body::Bytes(bytes) = body {
        let size = stored.as_cell(key, head, body).size_with_slot();
        if size > CELL_SIZE_BYTES_MAX {
            stored.body = match pages.allocate_extent(tree, bytes) {
                Ok(extent) => Some(extent),
                Err(fault) => {
                    if let (Some(extent), None) = (key_extent, old_key) {
                        pages.free_extent(extent);
                    }
                    return Err(fault);
                }
            };
        }
    }
    Ok(stored)
}

/// What becomes of the extents of bodies whose entries are removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Freed,
    HandedOn,
}

/// Removes the entries of the first keys for as long as they stand in the first one's leaf; returns
/// how many. None if the first has no entry.
///
/// They are read from the leaf as it stands: a key that is not there costs no copy of its path, and
/// a leaf that loses all its entries none of itself.
fn unlink_run<K: AsRef<[u8]>>(
    pages: &mut PageFile,
    root: &mut Root,
    keys: &[K],
    bodies: Bodies,
    mut visit: impl FnMut(&PageFile, usize, Entry<'_>) -> Result<(), PageFault>,
) -> Result<usize, PageFault> {
    let Some(first) = keys.first() else { return Ok(0) };
    let Some((leaf, node)) = leaf_of(&*pages, *root, first.as_ref())? else { return Ok(0) };
    let (mut gone, mut removed, mut extents) = (EntrySet::default(), 0, Vec::new());
    let mut next = 0;
    if keys.len() >= WARM_KEYS_MIN {
        node.page().warm();
    }
    for key in keys {
        let found = find_from(pages, root.tree, node, next, key.as_ref())?;
        // One that is named twice counts once.
        let Some(index) = found.filter(|&index| index >= next) else { break };
        visit(pages, removed, entry_at(node, index, root.tree))?;
        let cell = node.leaf_cell(index);
        extents.extend(cell.key.extent());
        extents.extend(body_extent(cell.body).filter(|_| bodies == Bodies::Freed));
        gone.insert(index);
        (removed, next) = (removed + 1, index + 1);
    }
    if removed == 0 {
        return Ok(0);
    }
    let is_whole = removed == node.count();
    check_free_pages(pages, root)?;
    let (mut path, leaf) = if is_whole {
        (descend_to_parent(pages, root, first.as_ref())?, leaf)
    } else {
        descend_writable(pages, root, first.as_ref())?
    };
    if keys.len() > removed
        && let Some(&(parent, index)) = path.steps().last()
    {
        let parent = Node::new(pages.page(parent)?);
        if index + 1 < parent.count() {
            pages.prefetch(parent.child(index + 1).0);
        }
    }
    for extent in extents {
        pages.free_extent(extent);
    }
    bump_counts(pages, &path, -(removed as i64));
    root.count -= removed as u64;
    if is_whole {
        rebalance::after_emptied(pages, root, &mut path, leaf)?;
    } else {
        pages.node_mut(leaf).remove_each(&gone);
        rebalance::after_removal(pages, root, &mut path, leaf)?;
    }
    Ok(removed)
}
