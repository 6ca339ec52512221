//! What a removal leaves behind: empty pages go, nearly empty ones merge with a neighbour or share
//! its cells.
//!
//! Invariants:
//! - A page below a quarter of its capacity is merged with a neighbour if both then fit one page
//!   with an eighth to spare (so that the next insertion does not split it again), and else takes
//!   cells from it.
//! - A removal allocates no extent: where sharing would need a long separator, the page stays as it
//!   is.

use crate::page::inner::{Row, Separator, row_middle, row_of, row_size, takes_separator};
use crate::page::node::{KEY_INLINE_SIZE_BYTES_MAX, NODE_CAPACITY_BYTES, Node, StoredKey};
use crate::page::{PageFault, PageFile, PageKind, PagePtr, Pages, Root};

use super::child_ptr;
use super::search::whole_key;
use super::split::{balance, shortest_between};
use super::write::{Path, writable_child};

const LOW_BYTES: usize = NODE_CAPACITY_BYTES / 4;
const MERGED_BYTES_MAX: usize = NODE_CAPACITY_BYTES - NODE_CAPACITY_BYTES / 8;

/// Puts the tree in order after the last entry of `leaf`, which ends `path`, was removed: the page
/// itself was not touched.
pub(super) fn after_emptied(
    pages: &mut PageFile,
    root: &mut Root,
    path: &mut Path,
    leaf: PagePtr,
) -> Result<(), PageFault> {
    pages.free(leaf);
    let Some((parent, index)) = path.pop() else {
        forget_root(root);
        return Ok(());
    };
    drop_child(pages, parent, index);
    after_removal(pages, root, path, parent)
}

/// Puts the tree in order after an entry was removed from `child`, which ends `path`.
pub(super) fn after_removal(
    pages: &mut PageFile,
    root: &mut Root,
    path: &mut Path,
    mut child: PagePtr,
) -> Result<(), PageFault> {
    while let Some((parent, index)) = path.pop() {
        let node = Node::new(pages.page(child)?);
        if node.count() == 0 {
            drop_child(pages, parent, index);
            pages.free(child);
        } else if node.used_bytes() < LOW_BYTES {
            join_neighbour(pages, parent, index)?;
        } else {
            return Ok(());
        }
        child = parent;
    }
    shrink_root(pages, root)
}

/// The tree has no page any more.
fn forget_root(root: &mut Root) {
    assert_eq!(root.count, 0, "no page is left");
    *root = Root::empty(root.tree);
}

/// Takes levels off a tree whose root has one child or none.
fn shrink_root(pages: &mut PageFile, root: &mut Root) -> Result<(), PageFault> {
    loop {
        let node = Node::new(pages.page(root.ptr())?);
        match (node.count(), node.is_leaf()) {
            (0, _) => {
                pages.free(root.ptr());
                forget_root(root);
                return Ok(());
            }
            (1, false) => {
                let child = child_ptr(node, 0, root.tree);
                pages.free(root.ptr());
                (root.page, root.birth, root.height) = (child.page, child.birth, root.height - 1);
            }
            _ => return Ok(()),
        }
    }
}

/// Removes a child that is gone, or whose cells moved left.
fn drop_child(pages: &mut PageFile, parent: PagePtr, index: usize) {
    if let Some(extent) = pages.node_mut(parent).remove_child(index) {
        pages.free_extent(extent);
    }
}

/// Two neighbours below one parent.
struct Pair<'p> {
    parent: PagePtr,
    /// Index of the left one.
    left: usize,
    left_node: Node<'p>,
    right_node: Node<'p>,
    right_ptr: PagePtr,
    separator: Separator,
}

impl<'p> Pair<'p> {
    fn read(pages: &'p PageFile, parent: PagePtr, left: usize) -> Result<Self, PageFault> {
        let node = Node::new(pages.page(parent)?);
        let right_ptr = child_ptr(node, left + 1, parent.tree);
        Ok(Self {
            parent,
            left,
            left_node: Node::new(pages.page(child_ptr(node, left, parent.tree))?),
            right_node: Node::new(pages.page(right_ptr)?),
            right_ptr,
            separator: Separator::from(node.separator(left + 1)),
        })
    }

    /// The children of both, with the separator between them in its place.
    fn row(&self) -> Row {
        let mut row = row_of(self.left_node);
        let from = row.len();
        row.extend(row_of(self.right_node));
        row[from].0 = self.separator.clone();
        row
    }
}

/// Merges a page that ran low with a neighbour, or lets it share the neighbour's cells.
fn join_neighbour(pages: &mut PageFile, parent: PagePtr, index: usize) -> Result<(), PageFault> {
    let count = Node::new(pages.page(parent)?).count();
    // Pairs are named by their left child; the neighbour on the left first. Who removes much does
    // so in ascending order: what stands on the right is next to go, and would move for nothing.
    let pairs = [index.checked_sub(1), Some(index)];
    let mut pairs = pairs.into_iter().flatten().filter(|left| left + 1 < count);
    for left in pairs.clone() {
        let pair = Pair::read(pages, parent, left)?;
        if pair.left_node.is_leaf() != pair.right_node.is_leaf() {
            // Damage that a checksum did not catch; whoever reads there says so.
            return Ok(());
        }
        if pair.left_node.is_leaf() {
            let size = pair.left_node.used_bytes() + pair.right_node.used_bytes();
            if size <= MERGED_BYTES_MAX {
                let right_ptr = pair.right_ptr;
                return merge_leaves(pages, parent, left, right_ptr);
            }
        } else {
            let row = pair.row();
            if row_size(&row) <= MERGED_BYTES_MAX {
                let right_ptr = pair.right_ptr;
                return merge_inner(pages, parent, left, right_ptr, &row);
            }
        }
    }
    match pairs.next() {
        Some(left) => share(pages, parent, left),
        None => Ok(()),
    }
}

/// Moves all entries of the right leaf of a pair to the left one.
fn merge_leaves(
    pages: &mut PageFile,
    parent: PagePtr,
    left: usize,
    right_ptr: PagePtr,
) -> Result<(), PageFault> {
    let left_ptr = writable_child(pages, parent, left)?;
    let (mut target, source) = pages.node_mut_and_source(left_ptr, right_ptr)?;
    target.append_from(source, 0..source.count());
    target.finish_appends();
    let total = target.as_node().entries_count();
    pages.node_mut(parent).set_child_count(left, total);
    drop_child(pages, parent, left + 1);
    pages.free(right_ptr);
    Ok(())
}

/// Makes one inner page of a pair.
fn merge_inner(
    pages: &mut PageFile,
    parent: PagePtr,
    left: usize,
    right_ptr: PagePtr,
    row: &Row,
) -> Result<(), PageFault> {
    let left_ptr = writable_child(pages, parent, left)?;
    pages.node_mut(left_ptr).build_inner(parent.tree, row);
    let mut node = pages.node_mut(parent);
    node.set_child_count(left, row.iter().map(|(_, child)| child.count).sum());
    // The separator moved down, and with it its extent.
    let _ = node.remove_child(left + 1);
    pages.free(right_ptr);
    Ok(())
}

/// Divides the cells of a pair anew, so that both pages have about the same.
fn share(pages: &mut PageFile, parent: PagePtr, left: usize) -> Result<(), PageFault> {
    let pair = Pair::read(pages, parent, left)?;
    if pair.left_node.is_leaf() {
        share_leaves(pages, parent, left)
    } else {
        share_inner(pages, parent, left)
    }
}

fn share_leaves(pages: &mut PageFile, parent: PagePtr, left: usize) -> Result<(), PageFault> {
    let pair = Pair::read(pages, parent, left)?;
    let copies = (pair.left_node.page().duplicate(), pair.right_node.page().duplicate());
    let (left_node, right_node) = (Node::new(&copies.0), Node::new(&copies.1));
    let left_count = left_node.count();
    let total = left_count + right_node.count();
    let place = |at: usize| match at.checked_sub(left_count) {
        Some(index) => (right_node, index),
        None => (left_node, at),
    };
    let at = balance((0..total).map(|at| place(at).0.size_with_slot(place(at).1)));
    let key = |at: usize| whole_key(pages, parent.tree, place(at).0.key(place(at).1));
    let separator = shortest_between(key(at - 1)?, key(at)?);
    if separator.len() > KEY_INLINE_SIZE_BYTES_MAX {
        return Ok(());
    }
    let separator = Separator::of(StoredKey::Inline(separator));
    let old_extent = pair.separator.extent();
    let Some(divider) = divider(&pair, separator, pages)? else { return Ok(()) };
    let left_ptr = writable_child(pages, parent, left)?;
    let right_ptr = writable_child(pages, parent, left + 1)?;
    let (left_target, right_target) = pages.node_pair_mut(left_ptr, right_ptr);
    for (target, part) in [(left_target, 0..at), (right_target, at..total)] {
        let mut target = target.reinit(PageKind::Leaf, parent.tree);
        for at in part {
            let (node, index) = place(at);
            target.append_from(node, index..index + 1);
        }
        target.finish_appends();
    }
    divide(pages, parent, left, divider, [left_ptr, right_ptr])?;
    if let Some(extent) = old_extent {
        pages.free_extent(extent);
    }
    Ok(())
}

fn share_inner(pages: &mut PageFile, parent: PagePtr, left: usize) -> Result<(), PageFault> {
    let pair = Pair::read(pages, parent, left)?;
    let children = pair.row();
    let Some(at) = row_middle(&children) else { return Ok(()) };
    // The old separator moved down into the row, the new one moves up: extents go with them.
    let Some(divider) = divider(&pair, children[at].0.clone(), pages)? else { return Ok(()) };
    let left_ptr = writable_child(pages, parent, left)?;
    let right_ptr = writable_child(pages, parent, left + 1)?;
    let (left_target, right_target) = pages.node_pair_mut(left_ptr, right_ptr);
    left_target.build_inner(parent.tree, &children[..at]);
    right_target.build_inner(parent.tree, &children[at..]);
    divide(pages, parent, left, divider, [left_ptr, right_ptr])
}

/// How a parent takes another separator between a pair.
enum Divider {
    /// As it stands.
    Placed(Separator),
    /// Built anew of these.
    Rebuilt(Row),
}

/// Another separator between a pair, if the parent has room for it.
fn divider(
    pair: &Pair<'_>,
    separator: Separator,
    pages: &PageFile,
) -> Result<Option<Divider>, PageFault> {
    let node = Node::new(pages.page(pair.parent)?);
    if takes_separator(node, &separator) {
        return Ok(Some(Divider::Placed(separator)));
    }
    let mut row = row_of(node);
    row[pair.left + 1].0 = separator;
    Ok((row_size(&row) <= NODE_CAPACITY_BYTES).then_some(Divider::Rebuilt(row)))
}

/// Tells the parent what has become of a pair below it.
fn divide(
    pages: &mut PageFile,
    parent: PagePtr,
    left: usize,
    divider: Divider,
    pair: [PagePtr; 2],
) -> Result<(), PageFault> {
    let mut counts = [0; 2];
    for (count, ptr) in counts.iter_mut().zip(pair) {
        *count = Node::new(pages.page(ptr)?).entries_count();
    }
    let mut node = pages.node_mut(parent);
    match divider {
        Divider::Placed(separator) => {
            node.replace_separator(left + 1, &separator);
            node.set_child_count(left, counts[0]);
            node.set_child_count(left + 1, counts[1]);
        }
        Divider::Rebuilt(mut row) => {
            for ((_, child), (ptr, count)) in row[left..].iter_mut().zip(pair.iter().zip(counts)) {
                (child.page, child.birth, child.count) = (ptr.page, ptr.birth, count);
            }
            node.build_inner(parent.tree, &row);
        }
    }
    Ok(())
}
