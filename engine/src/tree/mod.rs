//! The copy-on-write B+tree: byte keys in order, each with a small head and a body of any size.
//!
//! A tree is a [`Root`], a value that views keep. Reading needs only [`Pages`], so that a reader on
//! another core follows a published root while the writer changes its own copy. Inner pages keep
//! the number of entries below each child: [`count`] costs two walks from the root, however wide
//! the range.
//!
//! Invariants:
//! - Entries stand in the order of their keys' bytes; the separator of a child is greater than
//!   every key before it and not greater than any key behind it.
//! - A change copies every page of the path that was born in an earlier epoch, so a root that was
//!   published reads the same for as long as its epoch is protected.
//! - An extent has one owner: an entry's body, a key, or a separator. It is freed with its owner,
//!   or handed on ([`take`], [`supersede`]).
//! - After a fault in the middle of a change the working tree is not to be published; the published
//!   ones, which never change, stay readable.

mod cursor;
mod rebalance;
mod relocate;
mod search;
mod split;
mod write;

#[cfg(test)]
mod tests;

use std::ops::Bound;

pub use cursor::{Cursor, LeafRun};
pub use relocate::{Visit, relocate};
pub use write::{Changes, insert, pages_needed, remove, remove_each, supersede, take};

use crate::page::node::{Node, StoredBody};
pub use crate::page::{ExtentRef, Root, TreeTag};
use crate::page::{FaultKind, PageFault, PagePtr, Pages};

/// Levels a tree can have. With keys that fill their inline space an inner page still has four
/// children, so 2^32 pages stay below this; a higher tree is damage.
pub const HEIGHT_MAX: usize = 20;

/// An entry as it stands in a tree.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The owner's fixed part.
    pub head: &'a [u8],
    /// The body or where it stands; [`Self::body`] reads it.
    pub stored: StoredBody<'a>,
    tree: TreeTag,
}

impl<'a> Entry<'a> {
    /// The body in one piece. Reads and verifies the extent of a large one, which a walk that looks
    /// at heads only must not pay for.
    ///
    /// # Errors
    /// The extent is damaged.
    pub fn body(&self, pages: &'a impl Pages) -> Result<&'a [u8], PageFault> {
        match self.stored {
            StoredBody::Inline(body) => Ok(body),
            StoredBody::Extent(extent) => pages.extent(self.tree, extent),
        }
    }

    /// Size of the body.
    #[must_use]
    pub fn body_size_bytes(&self) -> usize {
        match self.stored {
            StoredBody::Inline(body) => body.len(),
            StoredBody::Extent(extent) => extent.size_bytes as usize,
        }
    }

    /// The extent of a large body.
    #[must_use]
    pub fn extent(&self) -> Option<ExtentRef> {
        match self.stored {
            StoredBody::Inline(_) => None,
            StoredBody::Extent(extent) => Some(extent),
        }
    }

    /// The body as it can be inserted in another tree: a large one moves without being copied, and
    /// then must be given up here ([`take`], [`supersede`]).
    #[must_use]
    pub fn as_body(&self) -> Body<'a> {
        match self.stored {
            StoredBody::Inline(body) => Body::Bytes(body),
            StoredBody::Extent(extent) => Body::Extent(extent),
        }
    }
}

/// A body to be inserted.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// The bytes; a large body is put in an extent.
    Bytes(&'a [u8]),
    /// A body that already stands in an extent of the same shard; the tree becomes its owner.
    Extent(ExtentRef),
}

/// What an insertion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The key is new.
    New,
    /// The key had an entry, which was replaced.
    Replaced,
}

/// The entry of a key.
///
/// # Errors
/// A page on the way is damaged.
pub fn get<'p>(
    pages: &'p impl Pages,
    root: Root,
    key: &[u8],
) -> Result<Option<Entry<'p>>, PageFault> {
    let Some((_, leaf)) = leaf_of(pages, root, key)? else { return Ok(None) };
    let found = search::find(pages, root.tree, leaf, key)?;
    Ok(found.map(|index| entry_at(leaf, index, root.tree)))
}

/// The leaf where `key` stands, if anywhere; none in an empty tree.
#[inline]
fn leaf_of<'p>(
    pages: &'p impl Pages,
    root: Root,
    key: &[u8],
) -> Result<Option<(PagePtr, Node<'p>)>, PageFault> {
    let mut ptr = root.ptr();
    for level in (1..=root.height).rev() {
        let node = node_at(pages, ptr, level)?;
        if level == 1 {
            return Ok(Some((ptr, node)));
        }
        ptr = child_ptr(node, search::child_index(pages, root.tree, node, key)?, root.tree);
    }
    Ok(None)
}

/// Number of entries between two bounds.
///
/// # Errors
/// A page on the way is damaged.
pub fn count(
    pages: &impl Pages,
    root: Root,
    lower: Bound<&[u8]>,
    upper: Bound<&[u8]>,
) -> Result<u64, PageFault> {
    let from = match lower {
        Bound::Unbounded => 0,
        Bound::Included(key) => rank(pages, root, key, false)?,
        Bound::Excluded(key) => rank(pages, root, key, true)?,
    };
    let to = match upper {
        Bound::Unbounded => root.count,
        Bound::Included(key) => rank(pages, root, key, true)?,
        Bound::Excluded(key) => rank(pages, root, key, false)?,
    };
    Ok(to.saturating_sub(from))
}

/// Number of entries before `key`, or up to it with `inclusive`.
fn rank(pages: &impl Pages, root: Root, key: &[u8], inclusive: bool) -> Result<u64, PageFault> {
    let mut ptr = root.ptr();
    let mut before: u64 = 0;
    for level in (1..=root.height).rev() {
        let node = node_at(pages, ptr, level)?;
        if level > 1 {
            let index = search::child_index(pages, root.tree, node, key)?;
            before = before.wrapping_add(node.children_count(0..index));
            ptr = child_ptr(node, index, root.tree);
            continue;
        }
        let (index, found) = search::search(pages, root.tree, node, key)?;
        before = before.wrapping_add(index as u64 + u64::from(found && inclusive));
    }
    Ok(before)
}

/// The node behind a pointer; a leaf at level 1 and an inner page above.
#[inline]
fn node_at<'p>(pages: &'p impl Pages, ptr: PagePtr, level: u8) -> Result<Node<'p>, PageFault> {
    let node = Node::new(pages.page(ptr)?);
    if node.is_leaf() == (level == 1) {
        Ok(node)
    } else {
        let what = FaultKind::Structure("page of another level");
        Err(pages.fault(ptr.tree, ptr.page, what))
    }
}

#[inline]
fn child_ptr(node: Node<'_>, index: usize, tree: TreeTag) -> PagePtr {
    let (page, birth) = node.child(index);
    PagePtr { page, birth, tree }
}

#[inline]
fn entry_at(node: Node<'_>, index: usize, tree: TreeTag) -> Entry<'_> {
    let cell = node.leaf_cell(index);
    Entry { head: cell.head, stored: cell.body, tree }
}
