//! Moving the pages of a tree to one side of its file, leaf by leaf.
//!
//! A visit looks at the path to one leaf and copies what stands on the other side: pages, and the
//! extents of bodies, keys and separators. Nothing a reader sees changes. Between two visits the
//! tree may be changed in any way: a visit goes on by key.
//!
//! Invariants:
//! - A visit that finds nothing to move copies nothing.
//! - What is found no room for on that side stays where it is, whole.
//! - A visit stops after the extent that reaches its budget, and the next one takes the same path:
//!   the values of one leaf may be a hundred times as large as the leaf.

use crate::page::node::{Node, StoredBody};
use crate::page::{ExtentRef, PageFault, PageFile, PagePtr, Pages, Root, Side};

use super::search::child_index;
use super::{HEIGHT_MAX, child_ptr, node_at};

/// What a visit of one leaf did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Where the next visit begins; `None` behind the last leaf.
    pub next: Option<Vec<u8>>,
    /// Pages that were copied, those of extents included.
    pub copied_pages: u32,
    /// Pages of extents for which there was no run.
    pub unplaced_pages: u32,
}

/// The way to a leaf: the child taken at each level, and the lowest level with something to move.
struct Survey {
    indexes: [usize; HEIGHT_MAX],
    lowest: Option<u8>,
    next: Option<Vec<u8>>,
}

/// A visit under way.
struct Mover {
    side: Side,
    pages_max: u32,
    copied_pages: u32,
    /// Of these, pages of extents: paths are copied again in every epoch and are no progress.
    extent_pages: u32,
    unplaced_pages: u32,
}

/// Moves to `side` what stands elsewhere on the path to the leaf where `from` belongs, about
/// `pages_max` pages.
///
/// # Errors
/// A page on the way is damaged.
pub fn relocate(
    pages: &mut PageFile,
    root: &mut Root,
    from: &[u8],
    side: Side,
    pages_max: u32,
) -> Result<Visit, PageFault> {
    let mut visit = Visit { next: None, copied_pages: 0, unplaced_pages: 0 };
    if root.is_empty() {
        return Ok(visit);
    }
    let survey = survey(pages, *root, from, side)?;
    visit.next = survey.next;
    let Some(lowest) = survey.lowest else { return Ok(visit) };
    let mut mover = Mover { side, pages_max, copied_pages: 0, extent_pages: 0, unplaced_pages: 0 };
    let mut ptr = mover.moved(pages, root.ptr())?;
    (root.page, root.birth) = (ptr.page, ptr.birth);
    for level in (lowest..=root.height).rev() {
        if !mover.move_extents(pages, ptr)? {
            visit.next = Some(from.to_vec());
            break;
        }
        if level > lowest {
            let index = survey.indexes[usize::from(level) - 1];
            let child = child_ptr(Node::new(pages.page(ptr)?), index, root.tree);
            let copy = mover.moved(pages, child)?;
            if copy != child {
                pages.node_mut(ptr).set_child(index, copy.page, copy.birth);
            }
            ptr = copy;
        }
    }
    visit.copied_pages = mover.copied_pages;
    visit.unplaced_pages = mover.unplaced_pages;
    Ok(visit)
}

/// Looks without changing: a path without anything to move must not be copied.
fn survey(pages: &PageFile, root: Root, from: &[u8], side: Side) -> Result<Survey, PageFault> {
    let mut survey = Survey { indexes: [0; HEIGHT_MAX], lowest: None, next: None };
    let mut ptr = root.ptr();
    for level in (1..=root.height).rev() {
        let node = node_at(pages, ptr, level)?;
        let index = if level > 1 { child_index(pages, root.tree, node, from)? } else { 0 };
        // The separators of an inner page are looked at on the way to its first child only.
        let is_amiss = |extent: ExtentRef| side.is_missed_by(extent.page, extent.pages());
        if side.is_missed_by(ptr.page, 1) || (index == 0 && extents(node).any(is_amiss)) {
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

impl Mover {
    /// A page of the working epoch with the content of `ptr`, on the side if there is room.
    fn moved(&mut self, pages: &mut PageFile, ptr: PagePtr) -> Result<PagePtr, PageFault> {
        // A copy made for another reason might land where this one may not stay.
        let is_copied = ptr.birth != pages.working_epoch();
        let is_lifted = is_copied && matches!(self.side, Side::Behind(_));
        let copy = match is_lifted || self.side.is_missed_by(ptr.page, 1) {
            true => pages.relocated(ptr, self.side)?,
            false => None,
        };
        let copy = match copy {
            Some(copy) => copy,
            None => pages.writable(ptr)?,
        };
        self.copied_pages += u32::from(copy != ptr);
        Ok(copy)
    }

    /// Moves the extents that a page of the working epoch owns; false if the budget was spent
    /// before the last of them.
    fn move_extents(&mut self, pages: &mut PageFile, ptr: PagePtr) -> Result<bool, PageFault> {
        let node = Node::new(pages.page(ptr)?);
        let (is_leaf, places) = (node.is_leaf(), node.first_compared()..node.count());
        for index in places {
            let node = Node::new(pages.page(ptr)?);
            let body = match is_leaf.then(|| node.leaf_cell(index).body) {
                Some(StoredBody::Extent(extent)) => Some(extent),
                Some(StoredBody::Inline(_)) | None => None,
            };
            let (key, body) = (self.amiss(node.key_extent(index)), self.amiss(body));
            if (key.is_some() || body.is_some()) && self.extent_pages >= self.pages_max {
                return Ok(false);
            }
            if let Some(copy) = self.moved_extent(pages, ptr, key)? {
                pages.node_mut(ptr).set_key_extent(index, copy);
            }
            if let Some(copy) = self.moved_extent(pages, ptr, body)? {
                pages.node_mut(ptr).set_body_extent(index, copy);
            }
        }
        Ok(true)
    }

    fn amiss(&self, extent: Option<ExtentRef>) -> Option<ExtentRef> {
        extent.filter(|extent| self.side.is_missed_by(extent.page, extent.pages()))
    }

    fn moved_extent(
        &mut self,
        pages: &mut PageFile,
        owner: PagePtr,
        extent: Option<ExtentRef>,
    ) -> Result<Option<ExtentRef>, PageFault> {
        let Some(extent) = extent else { return Ok(None) };
        let copy = pages.relocated_extent(owner.tree, extent, self.side)?;
        if copy.is_some() {
            self.copied_pages += extent.pages();
            self.extent_pages += extent.pages();
        } else {
            self.unplaced_pages += extent.pages();
        }
        Ok(copy)
    }
}
