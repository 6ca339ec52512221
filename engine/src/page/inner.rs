//! Changing inner pages.
//!
//! Most insertions fit a page as it is. One that shortens the page's prefix, or that needs the
//! garbage between cells, rebuilds the page from its [`Row`]; so do splits and merges, which are
//! rare.
//!
//! Invariants:
//! - The prefix of a page is shared by the separators of all children but the first, which has
//!   none.
//! - A separator that the page's prefix and eight bytes hold has no cell.

use super::bytes::PageKind;
use super::ids::{ExtentRef, TreeTag};
use super::node::{
    Child, EXTENT_SIZE, HEAD_SIZE, INNER_LONG, INNER_SLOT_SIZE, NODE_CAPACITY_BYTES, Node, NodeMut,
    PREFIX_SIZE_MAX, SeparatorRef, StoredKey, common_prefix, key_head,
};

/// A separator on its way from one page to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Separator {
    /// The whole key, or the start of a long one.
    inline: Vec<u8>,
    extent: Option<ExtentRef>,
}

impl Separator {
    /// The separator of a first child.
    pub const NONE: Self = Self { inline: Vec::new(), extent: None };

    /// A copy of a key as it stands in a leaf.
    #[must_use]
    pub fn of(key: StoredKey<'_>) -> Self {
        Self { inline: key.inline().to_vec(), extent: key.extent() }
    }

    /// The same key, to be compared.
    #[must_use]
    pub fn as_stored(&self) -> StoredKey<'_> {
        match self.extent {
            Some(extent) => StoredKey::Long { start: &self.inline, extent },
            None => StoredKey::Inline(&self.inline),
        }
    }

    /// The extent of a long key.
    #[must_use]
    pub fn extent(&self) -> Option<ExtentRef> {
        self.extent
    }

    /// Bytes of the cell below a prefix of this length.
    fn cell_size(&self, prefix_len: usize) -> usize {
        match (self.inline.len() - prefix_len, self.extent) {
            (rest, None) if rest <= HEAD_SIZE => 0,
            (rest, None) => rest,
            (rest, Some(_)) => rest + EXTENT_SIZE,
        }
    }
}

impl From<SeparatorRef<'_>> for Separator {
    fn from(separator: SeparatorRef<'_>) -> Self {
        let inline = [separator.prefix, separator.rest].concat();
        Self { inline, extent: separator.extent }
    }
}

/// The children of an inner page, or of what shall become one, with their separators.
pub type Row = Vec<(Separator, Child)>;

/// Takes an inner page apart.
#[must_use]
pub fn row_of(node: Node<'_>) -> Row {
    let separator = |index| match index {
        0 => Separator::NONE,
        _ => Separator::from(node.separator(index)),
    };
    (0..node.count()).map(|index| (separator(index), node.child_with_count(index))).collect()
}

fn prefix_of(row: &[(Separator, Child)]) -> &[u8] {
    // Sorted keys share what the first and the last share; the first child has no key.
    match (row.get(1), row.last()) {
        (Some((low, _)), Some((high, _))) => {
            let shared = common_prefix(&low.inline, &high.inline);
            &low.inline[..shared.min(PREFIX_SIZE_MAX)]
        }
        _ => &[],
    }
}

/// Bytes a page with these children takes; the first one's separator does not count.
#[must_use]
pub fn row_size(row: &[(Separator, Child)]) -> usize {
    let prefix_len = prefix_of(row).len();
    let cells = row.iter().skip(1).map(|(separator, _)| separator.cell_size(prefix_len));
    row.len() * INNER_SLOT_SIZE + prefix_len + cells.sum::<usize>()
}

/// Where to divide a row that does not fit one page; as near to the middle as both parts fit.
/// `None` when nowhere: never for a page that fitted before one child was added.
#[must_use]
pub fn row_middle(row: &[(Separator, Child)]) -> Option<usize> {
    let fits = |at: &usize| {
        row_size(&row[..*at]) <= NODE_CAPACITY_BYTES && row_size(&row[*at..]) <= NODE_CAPACITY_BYTES
    };
    let mut places: Vec<usize> = (1..row.len()).collect();
    places.sort_by_key(|at| at.abs_diff(row.len() / 2));
    places.into_iter().find(fits)
}

/// Whether a page takes another separator for one of its children as it is.
#[must_use]
pub fn takes_separator(node: Node<'_>, separator: &Separator) -> bool {
    separator.inline.starts_with(node.prefix())
        && node.has_gap(separator.cell_size(node.prefix_len()))
}

impl NodeMut<'_> {
    /// Makes the page of these children; the separator of the first is left out.
    pub fn build_inner(self, tree: TreeTag, row: &[(Separator, Child)]) {
        assert!(row_size(row) <= NODE_CAPACITY_BYTES);
        let mut node = self.reinit(PageKind::Inner, tree);
        node.set_inner_prefix(prefix_of(row));
        for (index, (separator, child)) in row.iter().enumerate() {
            let separator = if index == 0 { &Separator::NONE } else { separator };
            node.put_child(index, separator, *child);
        }
    }

    /// Adds a child behind the first, if the page takes it as it is; else the page must be rebuilt.
    #[must_use]
    pub fn try_insert_child(&mut self, index: usize, separator: &Separator, child: Child) -> bool {
        assert!(index > 0, "nothing stands before the first child");
        let node = self.as_node();
        if node.count() < 2 || !separator.inline.starts_with(node.prefix()) {
            return false;
        }
        let size = separator.cell_size(node.prefix_len());
        if !self.has_room(size + INNER_SLOT_SIZE) || !node.has_gap(size) {
            return false;
        }
        self.put_child(index, separator, child);
        true
    }

    /// Gives a child another separator; [`takes_separator`] has said that there is room.
    pub fn replace_separator(&mut self, index: usize, separator: &Separator) {
        assert!(index > 0, "the first child has none");
        let child = self.as_node().child_with_count(index);
        self.remove(index);
        self.put_child(index, separator, child);
    }

    fn put_child(&mut self, index: usize, separator: &Separator, child: Child) {
        let prefix_len = if index == 0 { 0 } else { self.as_node().prefix_len() };
        let rest = &separator.inline[prefix_len..];
        let size = separator.cell_size(prefix_len);
        let start = self.open_slot(index, size);
        if size == 0 {
            self.set_cell_place(index, 0, rest.len());
        } else {
            let cell = self.cell_mut(start, size);
            cell[..rest.len()].copy_from_slice(rest);
            let mut marked = size;
            if let Some(extent) = separator.extent {
                cell[rest.len()..].copy_from_slice(&extent.encode());
                marked |= INNER_LONG;
            }
            self.set_cell_place(index, start, marked);
        }
        self.set_head(index, key_head(rest, 0));
        self.set_child(index, child.page, child.birth);
        self.set_child_count(index, child.count);
    }

    /// Removes a child; returns the extent of the separator that goes with it.
    pub fn remove_child(&mut self, index: usize) -> Option<ExtentRef> {
        // Without its first child, what was the second one's separator is needed no more.
        let gone = index.max(1);
        let extent = (gone < self.as_node().count()).then(|| self.as_node().separator(gone).extent);
        self.remove(index);
        if index == 0 && self.as_node().count() > 0 {
            self.clear_first_separator();
        }
        extent.flatten()
    }
}
