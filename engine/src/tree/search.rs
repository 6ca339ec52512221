//! Finding a key in a page.
//!
//! Invariants:
//! - A comparison reads an extent only when the whole inline start of a long key ties.

use std::cmp::Ordering;

use crate::page::node::{Node, SeparatorRef, StoredKey, key_head};
use crate::page::{PageFault, Pages, TreeTag};

/// Where `key` stands among the compared keys of a page: the first slot that is not smaller, and
/// whether it is equal.
#[inline]
pub(super) fn search(
    pages: &impl Pages,
    tree: TreeTag,
    node: Node<'_>,
    key: &[u8],
) -> Result<(usize, bool), PageFault> {
    let (first, count) = (node.first_compared(), node.count());
    if count <= first {
        return Ok((first, false));
    }
    let prefix = node.prefix();
    let Some(rest) = key.strip_prefix(prefix) else {
        // Every key of the page starts with the prefix: all lie on one side.
        return Ok((if key < prefix { first } else { count }, false));
    };
    // Mostly the heads alone decide, or leave one key to compare.
    let (mut low, mut high) = node.equal_heads(key_head(rest, 0));
    while low < high {
        let middle = low + (high - low) / 2;
        let order = if node.is_leaf() {
            compare(pages, tree, node.key(middle), key)?
        } else {
            compare_separator(pages, tree, node.separator(middle), key)?
        };
        match order {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Ok((middle, true)),
        }
    }
    Ok((low, false))
}

/// The entry of `key` in a leaf. Unlike [`search`] it need not know where the key would stand, and
/// so looks only at entries whose heads are equal: of a leaf that is not in the cache it loads one
/// cell.
#[inline]
pub(super) fn find(
    pages: &impl Pages,
    tree: TreeTag,
    leaf: Node<'_>,
    key: &[u8],
) -> Result<Option<usize>, PageFault> {
    let (low, high) = leaf.equal_heads(key_head(key, leaf.prefix_len()));
    for index in low..high {
        if compare(pages, tree, leaf.key(index), key)? == Ordering::Equal {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The same for keys that are looked for in ascending order: the last one stood before `next`, and
/// this one is likely there.
pub(super) fn find_from(
    pages: &impl Pages,
    tree: TreeTag,
    leaf: Node<'_>,
    next: usize,
    key: &[u8],
) -> Result<Option<usize>, PageFault> {
    if next < leaf.count() && compare(pages, tree, leaf.key(next), key)? == Ordering::Equal {
        return Ok(Some(next));
    }
    find(pages, tree, leaf, key)
}

/// The child below which `key` stands, if anywhere.
#[inline]
pub(super) fn child_index(
    pages: &impl Pages,
    tree: TreeTag,
    node: Node<'_>,
    key: &[u8],
) -> Result<usize, PageFault> {
    let (index, found) = search(pages, tree, node, key)?;
    // The first child is not compared: the smallest answer of a search is 1.
    Ok(if found { index } else { index - 1 })
}

fn compare(
    pages: &impl Pages,
    tree: TreeTag,
    stored: StoredKey<'_>,
    key: &[u8],
) -> Result<Ordering, PageFault> {
    match stored {
        StoredKey::Inline(stored) => Ok(stored.cmp(key)),
        StoredKey::Long { start, extent } if key.starts_with(start) => {
            Ok(pages.extent(tree, extent)?.cmp(key))
        }
        StoredKey::Long { start, .. } => Ok(start.cmp(key)),
    }
}

/// Compares a child's key with one that shares its prefix.
fn compare_separator(
    pages: &impl Pages,
    tree: TreeTag,
    separator: SeparatorRef<'_>,
    key: &[u8],
) -> Result<Ordering, PageFault> {
    let rest = &key[separator.prefix.len()..];
    match separator.extent {
        Some(extent) if rest.starts_with(separator.rest) => {
            Ok(pages.extent(tree, extent)?.cmp(key))
        }
        _ => Ok(separator.rest.cmp(rest)),
    }
}

/// A stored key in one piece.
#[inline]
pub(super) fn whole_key<'p>(
    pages: &'p impl Pages,
    tree: TreeTag,
    stored: StoredKey<'p>,
) -> Result<&'p [u8], PageFault> {
    match stored {
        StoredKey::Inline(key) => Ok(key),
        StoredKey::Long { extent, .. } => pages.extent(tree, extent),
    }
}
