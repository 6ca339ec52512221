//! A tree's leaves from left to right, with one page of each level in memory.
//!
//! Invariants:
//! - Keys rise over the whole walk: each page is held to the bounds of the branches above it, so no
//!   subtree can be seen twice and every walk ends.

use super::format::PageHeader;
use super::reader::{
    Bounds, Bucket, LeafElement, Node, Place, ReadError, Reader, Rule, Source, damage, damage_in,
};

/// Beyond any honest tree: branches have two children at least, and a file fewer than 2^52 pages.
const HEIGHT_MAX: usize = 52;

/// A key and its value, until the walk's next step.
pub type PairRef<'w> = (&'w [u8], &'w [u8]);

/// A walk over the pairs of a bucket, or over the buckets of a file.
#[derive(Debug)]
pub struct Walk<'a, S> {
    reader: &'a Reader<S>,
    /// What is not yet read: the root, before the first step.
    start: Option<Place>,
    /// The branches above the leaf; an index is the child that is being walked.
    branches: Vec<(Node, usize)>,
    leaf: Option<Node>,
    /// The leaf's next element.
    next: usize,
}

/// A page that a walk came by, with those it overflows into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    pub(super) page: u64,
    pub(super) overflow: u32,
}

impl<'a, S: Source> Walk<'a, S> {
    pub(super) fn over_root(reader: &'a Reader<S>) -> Self {
        Self::from_place(reader, Place::Root(reader.root()))
    }

    pub(super) fn over_bucket(reader: &'a Reader<S>, bucket: &Bucket) -> Self {
        Self::from_place(reader, bucket.place.clone())
    }

    fn from_place(reader: &'a Reader<S>, place: Place) -> Self {
        Self { reader, start: Some(place), branches: Vec::new(), leaf: None, next: 0 }
    }

    /// The next pair of a bucket.
    pub fn next_pair(&mut self) -> Result<Option<PairRef<'_>>, ReadError> {
        let Some(index) = self.advance(&mut |_| Ok(()))? else { return Ok(None) };
        let leaf = self.leaf.as_ref().expect("the walk stands on a leaf");
        let LeafElement { is_bucket, key, value } = leaf.leaf_element(index);
        if is_bucket {
            return damage_in(leaf.page, index, Rule::NestedBucket);
        }
        Ok(Some((key, value)))
    }

    /// The next bucket of the file, and its name.
    pub fn next_bucket(&mut self) -> Result<Option<(&[u8], Bucket)>, ReadError> {
        self.next_bucket_seen(&mut |_| Ok(()))
    }

    pub(super) fn next_bucket_seen(
        &mut self,
        see: &mut dyn FnMut(Visit) -> Result<(), ReadError>,
    ) -> Result<Option<(&[u8], Bucket)>, ReadError> {
        let Some(index) = self.advance(see)? else { return Ok(None) };
        let leaf = self.leaf.as_ref().expect("the walk stands on a leaf");
        Ok(Some((leaf.key(index), leaf.bucket(index)?)))
    }

    /// Walks what is left of a bucket, telling of each page it reads. The number of pairs.
    pub(super) fn count_pairs(
        mut self,
        see: &mut dyn FnMut(Visit) -> Result<(), ReadError>,
    ) -> Result<u64, ReadError> {
        let mut count = 0;
        while let Some(index) = self.advance(see)? {
            let leaf = self.leaf.as_ref().expect("the walk stands on a leaf");
            if leaf.leaf_element(index).is_bucket {
                return damage_in(leaf.page, index, Rule::NestedBucket);
            }
            count += 1;
        }
        Ok(count)
    }

    /// Goes to the next element of a leaf.
    fn advance(
        &mut self,
        see: &mut dyn FnMut(Visit) -> Result<(), ReadError>,
    ) -> Result<Option<usize>, ReadError> {
        if let Some(place) = self.start.take() {
            match place {
                Place::Root(page) => self.descend(page, see)?,
                Place::Inline { leaf, holder } => self.leaf = Some(inline_leaf(leaf, holder)?),
            }
        }
        loop {
            let Some(leaf) = &self.leaf else { return Ok(None) };
            if self.next < leaf.count {
                self.next += 1;
                return Ok(Some(self.next - 1));
            }
            // bbolt leaves no empty leaf below a branch, but reads over one.
            let Some(page) = self.next_child() else {
                self.leaf = None;
                return Ok(None);
            };
            self.descend(page, see)?;
        }
    }

    /// The child to the right of the one that was walked, in the lowest branch that has one.
    fn next_child(&mut self) -> Option<u64> {
        while let Some((node, index)) = self.branches.last_mut() {
            *index += 1;
            if *index < node.count {
                return Some(node.child(*index));
            }
            self.branches.pop();
        }
        None
    }

    /// Goes down the left edge from a page to a leaf.
    fn descend(
        &mut self,
        mut page: u64,
        see: &mut dyn FnMut(Visit) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        loop {
            if self.branches.len() > HEIGHT_MAX {
                return damage(page, Rule::TooHigh);
            }
            let (header, run) = self.reader.read_run(page)?;
            see(Visit { page, overflow: header.overflow })?;
            let node = Node::new(page, header, run, self.bounds())?;
            if node.is_leaf {
                (self.leaf, self.next) = (Some(node), 0);
                return Ok(());
            }
            page = node.child(0);
            self.branches.push((node, 0));
        }
    }

    /// What the branches above say about the page below them.
    fn bounds(&self) -> Bounds<'_> {
        let low = self.branches.last().map_or(&[][..], |(node, index)| node.key(*index));
        let right = self.branches.iter().rev().find(|(node, index)| index + 1 < node.count);
        Bounds { low, high: right.map(|(node, index)| node.key(index + 1)) }
    }
}

fn inline_leaf(leaf: Vec<u8>, holder: u64) -> Result<Node, ReadError> {
    let header = PageHeader::from_bytes(&leaf);
    let node = Node::new(holder, header, leaf, Bounds { low: &[], high: None })?;
    if node.is_leaf { Ok(node) } else { damage(holder, Rule::WrongKind) }
}
