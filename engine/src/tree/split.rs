//! Insertion into a page, with a split where it overflows.
//!
//! Invariants:
//! - An entry added behind the last of a full page gets a page of its own: keys that arrive in
//!   order leave full pages behind. Elsewhere a page is divided where the halves are most alike.
//! - The separator that goes up is the shortest that tells the two pages apart.

use crate::page::inner::{Row, Separator, row_middle, row_of, row_size};
use crate::page::node::{Child, KEY_INLINE_SIZE_BYTES_MAX, LeafCell, NODE_CAPACITY_BYTES, Node};
use crate::page::{PageFault, PageFile, PageKind, PagePtr, Pages, Root, TreeTag};

use super::search::whole_key;
use super::write::{Path, stored_key};

/// The shortest key greater than `left` and not greater than `right`.
pub(super) fn shortest_between<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    let shared = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    // The keys are in order, so the right one goes on where they part.
    &right[..(shared + 1).min(right.len())]
}

fn store_separator(
    pages: &mut PageFile,
    tree: TreeTag,
    key: &[u8],
) -> Result<Separator, PageFault> {
    let long = key.len() > KEY_INLINE_SIZE_BYTES_MAX;
    let extent = if long { Some(pages.allocate_extent(tree, key)?) } else { None };
    Ok(Separator::of(stored_key(key, extent)))
}

/// Where to divide a row of cells of these sizes: both parts fit a page and are most alike.
pub(super) fn balance(sizes: impl Iterator<Item = usize> + Clone) -> usize {
    let total: usize = sizes.clone().sum();
    let mut best = (usize::MAX, 0);
    let mut left = 0;
    for (index, size) in sizes.enumerate() {
        let right = total - left;
        if index > 0 && left <= NODE_CAPACITY_BYTES && right <= NODE_CAPACITY_BYTES {
            best = best.min((left.abs_diff(right), index));
        }
        left += size;
    }
    assert!(best.0 < usize::MAX, "cells of half a page at most can always be divided");
    best.1
}

/// The sizes of a page's cells with one more at `index`.
fn sizes_with(
    node: Node<'_>,
    index: usize,
    size: usize,
) -> impl Iterator<Item = usize> + Clone + '_ {
    (0..=node.count()).map(move |at| match at.cmp(&index) {
        std::cmp::Ordering::Less => node.size_with_slot(at),
        std::cmp::Ordering::Equal => size,
        std::cmp::Ordering::Greater => node.size_with_slot(at - 1),
    })
}

/// Puts an entry in a leaf at `index`; divides the leaf if it must.
pub(super) fn insert_leaf(
    pages: &mut PageFile,
    root: &mut Root,
    path: &mut Path,
    leaf: PagePtr,
    index: usize,
    cell: LeafCell<'_>,
) -> Result<(), PageFault> {
    let mut target = pages.node_mut(leaf);
    let size = cell.size_with_slot();
    if target.has_room(size) {
        target.insert_leaf(index, cell);
        return Ok(());
    }
    let node = target.as_node();
    let count = node.count();
    let at = if index == count { count } else { balance(sizes_with(node, index, size)) };
    // The key on either side of the cut, the new one counted in.
    let stored = |at: usize| match at.cmp(&index) {
        std::cmp::Ordering::Less => node.key(at),
        std::cmp::Ordering::Equal => cell.key,
        std::cmp::Ordering::Greater => node.key(at - 1),
    };
    let (left_key, right_key) = (Separator::of(stored(at - 1)), Separator::of(stored(at)));
    let low = whole_key(pages, root.tree, left_key.as_stored())?;
    let high = whole_key(pages, root.tree, right_key.as_stored())?;
    let separator = shortest_between(low, high).to_vec();
    let separator = store_separator(pages, root.tree, &separator)?;
    let right = pages.allocate(PageKind::Leaf, root.tree)?;
    let (mut left_node, mut right_node) = pages.node_pair_mut(leaf, right);
    let (keep, new_left) = if index < at { (at - 1, true) } else { (at, false) };
    right_node.append_from(left_node.as_node(), keep..count);
    right_node.finish_appends();
    if keep < count {
        left_node.truncate(keep);
        left_node.finish_appends();
    }
    if new_left {
        left_node.insert_leaf(index, cell);
    } else {
        right_node.insert_leaf(index - at, cell);
    }
    let left_count = left_node.as_node().entries_count();
    insert_child(pages, root, path, NewChild { left_count, separator, right })
}

/// A page that was split off, on its way into the parent.
struct NewChild {
    left_count: u64,
    separator: Separator,
    right: PagePtr,
}

/// Adds the page split off at the lowest level of `path`, dividing parents that overflow.
fn insert_child(
    pages: &mut PageFile,
    root: &mut Root,
    path: &mut Path,
    mut new: NewChild,
) -> Result<(), PageFault> {
    while let Some((parent, left_index)) = path.pop() {
        let child = child_of(pages, new.right)?;
        let mut node = pages.node_mut(parent);
        node.set_child_count(left_index, new.left_count);
        if node.try_insert_child(left_index + 1, &new.separator, child) {
            return Ok(());
        }
        let mut row = row_of(node.as_node());
        row.insert(left_index + 1, (new.separator, child));
        if row_size(&row) <= NODE_CAPACITY_BYTES {
            node.build_inner(parent.tree, &row);
            return Ok(());
        }
        new = split_inner(pages, parent, left_index + 1, row)?;
    }
    grow_root(pages, root, new)
}

fn child_of(pages: &PageFile, ptr: PagePtr) -> Result<Child, PageFault> {
    let count = Node::new(pages.page(ptr)?).entries_count();
    Ok(Child { page: ptr.page, birth: ptr.birth, count })
}

/// Divides a row that was an inner page's before a child was added at `index`.
fn split_inner(
    pages: &mut PageFile,
    parent: PagePtr,
    index: usize,
    mut row: Row,
) -> Result<NewChild, PageFault> {
    let at = if index + 1 == row.len() {
        index
    } else {
        // One child can shorten the prefix for all others only from one of the ends.
        row_middle(&row).expect("a row of a page and one child more can be divided")
    };
    let right = pages.allocate(PageKind::Inner, parent.tree)?;
    let (left_node, right_node) = pages.node_pair_mut(parent, right);
    right_node.build_inner(parent.tree, &row[at..]);
    left_node.build_inner(parent.tree, &row[..at]);
    let left_count = row[..at].iter().map(|(_, child)| child.count).sum();
    // The first child on the right leaves its separator to the parent.
    let (separator, _) = row.swap_remove(at);
    Ok(NewChild { left_count, separator, right })
}

/// Puts a new root above the old one and the page that was split off it.
fn grow_root(pages: &mut PageFile, root: &mut Root, new: NewChild) -> Result<(), PageFault> {
    let right = child_of(pages, new.right)?;
    let left = Child { page: root.page, birth: root.birth, count: new.left_count };
    let top = pages.allocate(PageKind::Inner, root.tree)?;
    let row = [(Separator::NONE, left), (new.separator, right)];
    pages.node_mut(top).build_inner(root.tree, &row);
    (root.page, root.birth, root.height) = (top.page, top.birth, root.height + 1);
    Ok(())
}
