//! Moving the pages of a tree to the front of its file, leaf by leaf.
//!
//! A visit looks at the path to one leaf and copies what stands behind the limit: pages, and the
//! extents of bodies, keys and separators. Nothing a reader sees changes. Between two visits the
//! tree may be changed in any way: a visit goes on by key.
//!
//! Invariants:
//! - A visit that finds nothing to move copies nothing.
//! - What is found no room for before the limit stays where it is, whole.

use crate::page::node::{Node, StoredBody};
use crate::page::{ExtentRef, PageFault, PageFile, PageId, PagePtr, Pages, Root};

use super::search::child_index;
use super::{HEIGHT_MAX, child_ptr, node_at};

/// What a visit of one leaf did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Where the next visit begins; `None` behind the last leaf.
    pub next: Option<Vec<u8>>,
    /// Pages that were copied, those of extents included.
    pub copied_pages: u32,
}

/// The way to a leaf: the child taken at each level, and the lowest level with something to move.
struct Survey {
    indexes: [usize; HEIGHT_MAX],
    lowest: Option<u8>,
    next: Option<Vec<u8>>,
}

/// Moves what stands behind `limit` on the path to the leaf where `from` belongs.
///
/// # Errors
/// A page on the way is damaged.
pub fn relocate(
    pages: &mut PageFile,
    root: &mut Root,
    from: &[u8],
    limit: PageId,
) -> Result<Visit, PageFault> {
    let mut copied_pages = 0;
    if root.is_empty() {
        return Ok(Visit { next: None, copied_pages });
    }
    let survey = survey(pages, *root, from, limit)?;
    let Some(lowest) = survey.lowest else {
        return Ok(Visit { next: survey.next, copied_pages });
    };
    let mut ptr = moved(pages, root.ptr(), limit, &mut copied_pages)?;
    (root.page, root.birth) = (ptr.page, ptr.birth);
    for level in (lowest..=root.height).rev() {
        move_extents(pages, ptr, limit, &mut copied_pages)?;
        if level > lowest {
            let index = survey.indexes[usize::from(level) - 1];
            let child = child_ptr(Node::new(pages.page(ptr)?), index, root.tree);
            let copy = moved(pages, child, limit, &mut copied_pages)?;
            if copy != child {
                pages.node_mut(ptr).set_child(index, copy.page, copy.birth);
            }
            ptr = copy;
        }
    }
    Ok(Visit { next: survey.next, copied_pages })
}

/// Looks without changing: a path without anything to move must not be copied.
fn survey(pages: &PageFile, root: Root, from: &[u8], limit: PageId) -> Result<Survey, PageFault> {
    let mut survey = Survey { indexes: [0; HEIGHT_MAX], lowest: None, next: None };
    let mut ptr = root.ptr();
    for level in (1..=root.height).rev() {
        let node = node_at(pages, ptr, level)?;
        let index = if level > 1 { child_index(pages, root.tree, node, from)? } else { 0 };
        // The separators of an inner page are looked at on the way to its first child only.
        let reaches = |extent: ExtentRef| reaches_behind(extent, limit);
        if ptr.page >= limit || (index == 0 && extents(node).any(reaches)) {
            survey.lowest = Some(level);
        }
        survey.indexes[usize::from(level) - 1] = index;
        if level > 1 {
            // The lowest page with another child behind says where the next leaf begins.
            if index + 1 < node.count() {
                let separator = node.separator(index + 1);
                survey.next = Some(match separator.extent {
                    Some(extent) => pages.extent(root.tree, extent)?.to_vec(),
                    None => [separator.prefix, separator.rest].concat(),
                });
            }
            ptr = child_ptr(node, index, root.tree);
        }
    }
    Ok(survey)
}

fn reaches_behind(extent: ExtentRef, limit: PageId) -> bool {
    extent.page.0.saturating_add(extent.pages()) > limit.0
}

/// The extents that a page owns.
fn extents(node: Node<'_>) -> impl Iterator<Item = ExtentRef> + '_ {
    (node.first_compared()..node.count()).flat_map(move |index| {
        let body = match node.is_leaf().then(|| node.leaf_cell(index).body) {
            Some(StoredBody::Extent(extent)) => Some(extent),
            Some(StoredBody::Inline(_)) | None => None,
        };
        node.key_extent(index).into_iter().chain(body)
    })
}

/// A page of the working epoch with the content of `ptr`, before the limit if there is room.
fn moved(
    pages: &mut PageFile,
    ptr: PagePtr,
    limit: PageId,
    copied_pages: &mut u32,
) -> Result<PagePtr, PageFault> {
    let copy = if ptr.page >= limit { pages.relocated(ptr, limit)? } else { None };
    let copy = match copy {
        Some(copy) => copy,
        None => pages.writable(ptr)?,
    };
    *copied_pages += u32::from(copy != ptr);
    Ok(copy)
}

/// Moves the extents that a page of the working epoch owns.
fn move_extents(
    pages: &mut PageFile,
    ptr: PagePtr,
    limit: PageId,
    copied_pages: &mut u32,
) -> Result<(), PageFault> {
    let node = Node::new(pages.page(ptr)?);
    let (is_leaf, places) = (node.is_leaf(), node.first_compared()..node.count());
    for index in places {
        let node = Node::new(pages.page(ptr)?);
        let behind =
            |extent: Option<ExtentRef>| extent.filter(|extent| reaches_behind(*extent, limit));
        let key = behind(node.key_extent(index));
        let body = match is_leaf.then(|| node.leaf_cell(index).body) {
            Some(StoredBody::Extent(extent)) => behind(Some(extent)),
            Some(StoredBody::Inline(_)) | None => None,
        };
        if let Some(extent) = key
            && let Some(copy) = pages.relocated_extent(ptr.tree, extent, limit)?
        {
            pages.node_mut(ptr).set_key_extent(index, copy);
            *copied_pages += extent.pages();
        }
        if let Some(extent) = body
            && let Some(copy) = pages.relocated_extent(ptr.tree, extent, limit)?
        {
            pages.node_mut(ptr).set_body_extent(index, copy);
            *copied_pages += extent.pages();
        }
    }
    Ok(())
}
