//! Walks: the keys of a range as they were at a revision, in order, over all shards.
//!
//! A walk borrows the trees and lives inside one step of a resumable job; the job remembers the
//! next key and begins a new walk there.
//!
//! Invariants:
//! - Each shard's walk yields a key once, in the walk's direction; the shards share no key, so the
//!   merge never sees a tie.
//! - A version is seen at revision r if it was written at or before r and ended after r.
//! - A walk also stands at keys of which no version is seen, and never looks for one that is: each
//!   such key costs as much as any other, so who walks counts it, and may stop there.

use std::cmp::Ordering;

use crate::ids::{Change, Revision};
use crate::page::{PageFault, Pages};
use crate::range::Record;
use crate::store::{self, Found, ShardRoots, Store};
use crate::tree::{Cursor, Entry, LeafRun};

/// Which way a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// The keys of a walk: from `start` (included) to `end` (excluded, `None` for no end).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    pub(crate) start: &'a [u8],
    pub(crate) end: Option<&'a [u8]>,
}

impl<'a> Bounds<'a> {
    /// What a request's `key` and `range_end` mean: `None` for the single key.
    pub(crate) fn of(key: &'a [u8], range_end: &'a [u8]) -> Option<Self> {
        match range_end {
            [] => None,
            [0] => Some(Self { start: key, end: None }),
            end => Some(Self { start: key, end: Some(end) }),
        }
    }

    pub(crate) fn hold(&self, key: &[u8]) -> bool {
        key >= self.start && self.end.is_none_or(|end| key < end)
    }

    /// The same for a key that a cursor came upon on its way from one end: only the other counts.
    fn hold_on_the_way(&self, key: &[u8], direction: Direction) -> bool {
        match direction {
            Direction::Ascending => self.end.is_none_or(|end| key < end),
            Direction::Descending => key >= self.start,
        }
    }
}

/// The merged walk over all shards.
pub(crate) struct Walk<'s, P: Pages> {
    shards: Vec<ShardWalk<'s, P>>,
    direction: Direction,
    /// The shard whose key is next.
    front: Option<usize>,
}

impl<'s, P: Pages> Walk<'s, P> {
    /// Begins a walk at the end it starts from.
    pub(crate) fn new<S: Store<Pages = P>>(
        store: &'s S,
        bounds: Bounds<'s>,
        revision: Revision,
        direction: Direction,
    ) -> Result<Self, PageFault> {
        let mut shards = Vec::with_capacity(store.shard_count());
        for shard in 0..store.shard_count() {
            let (pages, roots) = store.shard(shard);
            shards.push(if revision >= store.tree_revision() {
                ShardWalk::Head(Box::new(HeadWalk::new(pages, roots, bounds, direction)?))
            } else {
                ShardWalk::Past(Box::new(PastWalk::new(pages, roots, bounds, direction, revision)?))
            });
        }
        let mut walk = Self { shards, direction, front: None };
        walk.find_front();
        Ok(walk)
    }

    /// The key the walk stands at, whether anything of it is seen or not.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.shards[self.front?].key()
    }

    /// Whether the key the walk stands at lives at the walk's revision.
    pub(crate) fn is_seen(&self) -> bool {
        self.front.is_some_and(|front| self.shards[front].is_seen())
    }

    /// The record the walk stands at, which must be at a key that is seen. With the value it is
    /// not free: a large one is verified when it is first read.
    pub(crate) fn record(&self, with_value: bool) -> Result<Record<'_>, PageFault> {
        let front = self.front.expect("the walk stands at a key");
        let record = self.shards[front].record(with_value)?;
        Ok(record.expect("the front is at a key that is seen"))
    }

    /// Goes to the next key.
    pub(crate) fn advance(&mut self) -> Result<(), PageFault> {
        if let Some(front) = self.front {
            self.shards[front].advance()?;
            self.find_front();
        }
        Ok(())
    }

    fn find_front(&mut self) {
        if let [only] = &self.shards[..] {
            self.front = only.key().map(|_| 0);
            return;
        }
        let wanted = match self.direction {
            Direction::Ascending => Ordering::Less,
            Direction::Descending => Ordering::Greater,
        };
        let mut front: Option<(usize, &[u8])> = None;
        for (shard, walk) in self.shards.iter().enumerate() {
            let Some(key) = walk.key() else { continue };
            if front.is_none_or(|(_, best)| key.cmp(best) == wanted) {
                front = Some((shard, key));
            }
        }
        self.front = front.map(|(shard, _)| shard);
    }
}

/// The newest versions of a store of one shard in ascending order, leaf by leaf: what a merged walk
/// looks at for each key is looked at once for a leaf.
pub(crate) struct LeafWalk<'s, P: Pages> {
    pages: &'s P,
    roots: ShardRoots,
    cursor: Cursor<'s, P>,
    end: Option<&'s [u8]>,
    is_done: bool,
}

impl<'s, P: Pages> LeafWalk<'s, P> {
    /// Begins a walk, if it is of that kind.
    pub(crate) fn new<S: Store<Pages = P>>(
        store: &'s S,
        bounds: Bounds<'s>,
        revision: Revision,
        direction: Direction,
    ) -> Result<Option<Self>, PageFault> {
        let is_newest = revision >= store.tree_revision();
        if store.shard_count() != 1 || !is_newest || direction != Direction::Ascending {
            return Ok(None);
        }
        let (pages, roots) = store.shard(0);
        let mut cursor = Cursor::new(pages, roots.current);
        cursor.seek(bounds.start)?;
        Ok(Some(Self { pages, roots: *roots, cursor, end: bounds.end, is_done: false }))
    }

    /// The entries of the next leaf that are within the bounds.
    pub(crate) fn next_leaf(&mut self) -> Result<Option<LeafRun<'s>>, PageFault> {
        if self.is_done {
            return Ok(None);
        }
        let Some(run) = self.cursor.next_leaf()? else { return Ok(None) };
        let Some(end) = self.end else { return Ok(Some(run)) };
        let within = run.before(self.pages, end)?;
        self.is_done = within.len() < run.len();
        Ok(Some(within))
    }

    /// An entry of a leaf.
    #[inline]
    pub(crate) fn entry(
        &self,
        leaf: LeafRun<'s>,
        index: usize,
    ) -> Result<(&'s [u8], Entry<'s>), PageFault> {
        leaf.entry(self.pages, index)
    }

    /// The record of an entry; without its value, which may be large, if that is not wanted.
    #[inline]
    pub(crate) fn record(
        &self,
        key: &'s [u8],
        entry: Entry<'s>,
        with_value: bool,
    ) -> Result<Record<'s>, PageFault> {
        let found = store::decode(self.pages, &self.roots, entry)?;
        let value = if with_value { found.value(self.pages)? } else { &[] };
        Ok(found.version.record(key, value))
    }
}

enum ShardWalk<'s, P: Pages> {
    Head(Box<HeadWalk<'s, P>>),
    Past(Box<PastWalk<'s, P>>),
}

impl<P: Pages> ShardWalk<'_, P> {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Head(walk) => walk.front.map(|(key, _)| key),
            Self::Past(walk) => walk.front.map(|(key, _)| key),
        }
    }

    fn is_seen(&self) -> bool {
        match self {
            Self::Head(walk) => walk.front.is_some(),
            Self::Past(walk) => walk.front.is_some_and(|(_, found)| found.is_some()),
        }
    }

    fn record(&self, with_value: bool) -> Result<Option<Record<'_>>, PageFault> {
        let (key, found, pages) = match self {
            Self::Head(walk) => {
                let Some((key, entry)) = walk.front else { return Ok(None) };
                (key, store::decode(walk.pages, &walk.roots, entry)?, walk.pages)
            }
            Self::Past(walk) => {
                let Some((key, Some(found))) = walk.front else { return Ok(None) };
                (key, found, walk.pages)
            }
        };
        let value = if with_value { found.value(pages)? } else { &[] };
        Ok(Some(found.version.record(key, value)))
    }

    fn advance(&mut self) -> Result<(), PageFault> {
        match self {
            Self::Head(walk) => walk.advance(),
            Self::Past(walk) => walk.advance(),
        }
    }
}

/// A key and its entry.
type Front<'s> = Option<(&'s [u8], Entry<'s>)>;

/// A cursor that goes one way within bounds.
fn step<'s, P: Pages>(
    cursor: &mut Cursor<'s, P>,
    direction: Direction,
) -> Result<Front<'s>, PageFault> {
    match direction {
        Direction::Ascending => cursor.next(),
        Direction::Descending => cursor.prev(),
    }
}

/// The newest versions of a shard: one sequential pass over `current`.
struct HeadWalk<'s, P: Pages> {
    pages: &'s P,
    roots: ShardRoots,
    cursor: Cursor<'s, P>,
    bounds: Bounds<'s>,
    direction: Direction,
    front: Front<'s>,
}

impl<'s, P: Pages> HeadWalk<'s, P> {
    fn new(
        pages: &'s P,
        roots: &ShardRoots,
        bounds: Bounds<'s>,
        direction: Direction,
    ) -> Result<Self, PageFault> {
        let mut cursor = Cursor::new(pages, roots.current);
        match (direction, bounds.end) {
            (Direction::Ascending, _) => cursor.seek(bounds.start)?,
            (Direction::Descending, Some(end)) => cursor.seek(end)?,
            (Direction::Descending, None) => cursor.seek_end()?,
        }
        let mut walk = Self { pages, roots: *roots, cursor, bounds, direction, front: None };
        walk.advance()?;
        Ok(walk)
    }

    fn advance(&mut self) -> Result<(), PageFault> {
        let front = step(&mut self.cursor, self.direction)?;
        self.front = front.filter(|(key, _)| self.bounds.hold_on_the_way(key, self.direction));
        Ok(())
    }
}

/// The versions of a shard at an older revision.
///
/// A key of that time stands in `current` or in `tombstones`. The two are walked side by side; from
/// a key that has changed since, its chain leads back to the version that counts.
struct PastWalk<'s, P: Pages> {
    pages: &'s P,
    roots: ShardRoots,
    bounds: Bounds<'s>,
    direction: Direction,
    revision: Revision,
    current: Cursor<'s, P>,
    current_front: Front<'s>,
    tombstones: Cursor<'s, P>,
    tombstone_front: Front<'s>,
    front: PastFront<'s>,
}

/// A key of now or of then, and the version of it that is seen, if there is one.
type PastFront<'s> = Option<(&'s [u8], Option<Found<'s>>)>;

impl<'s, P: Pages> PastWalk<'s, P> {
    fn new(
        pages: &'s P,
        roots: &ShardRoots,
        bounds: Bounds<'s>,
        direction: Direction,
        revision: Revision,
    ) -> Result<Self, PageFault> {
        let mut walk = Self {
            pages,
            roots: *roots,
            bounds,
            direction,
            revision,
            current: Cursor::new(pages, roots.current),
            current_front: None,
            tombstones: Cursor::new(pages, roots.tombstones),
            tombstone_front: None,
            front: None,
        };
        let from = match direction {
            Direction::Ascending => Some(bounds.start),
            Direction::Descending => bounds.end,
        };
        if let Some(from) = from {
            walk.current.seek(from)?;
            walk.tombstones.seek(from)?;
        } else {
            walk.current.seek_end()?;
            walk.tombstones.seek_end()?;
        }
        walk.step_current()?;
        walk.step_tombstones()?;
        walk.advance()?;
        Ok(walk)
    }

    /// One key further; of a key that has changed since, one look into its history.
    fn advance(&mut self) -> Result<(), PageFault> {
        self.front = match (self.current_front, self.tombstone_front) {
            (None, None) => None,
            (Some(current), None) => Some(self.take_current(current)?),
            (None, Some(tombstone)) => Some(self.take_tombstone(tombstone)?),
            (Some(current), Some(tombstone)) => {
                let is_current = match (current.0.cmp(tombstone.0), self.direction) {
                    (Ordering::Less, direction) => direction == Direction::Ascending,
                    (Ordering::Greater, direction) => direction == Direction::Descending,
                    (Ordering::Equal, _) => {
                        let rule = "a key that lives has a tombstone";
                        return Err(store::damaged(self.pages, self.roots.tombstones, rule));
                    }
                };
                Some(if is_current {
                    self.take_current(current)?
                } else {
                    self.take_tombstone(tombstone)?
                })
            }
        };
        Ok(())
    }

    fn take_current(
        &mut self,
        (key, entry): (&'s [u8], Entry<'s>),
    ) -> Result<(&'s [u8], Option<Found<'s>>), PageFault> {
        self.step_current()?;
        let found = store::decode(self.pages, &self.roots, entry)?;
        let newest = found.version.change;
        if newest.main <= self.revision {
            return Ok((key, Some(found)));
        }
        Ok((key, self.go_back(key, newest)?))
    }

    fn take_tombstone(
        &mut self,
        (key, entry): (&'s [u8], Entry<'s>),
    ) -> Result<(&'s [u8], Option<Found<'s>>), PageFault> {
        self.step_tombstones()?;
        let (end, _) = store::decode_tombstone(self.pages, &self.roots, entry)?;
        if end.main <= self.revision {
            return Ok((key, None));
        }
        Ok((key, self.go_back(key, end)?))
    }

    fn go_back(&self, key: &[u8], later: Change) -> Result<Option<Found<'s>>, PageFault> {
        store::version_before(self.pages, &self.roots, key, later, self.revision)
    }

    fn step_current(&mut self) -> Result<(), PageFault> {
        let front = step(&mut self.current, self.direction)?;
        let bounds = &self.bounds;
        self.current_front = front.filter(|(key, _)| bounds.hold_on_the_way(key, self.direction));
        Ok(())
    }

    fn step_tombstones(&mut self) -> Result<(), PageFault> {
        let front = step(&mut self.tombstones, self.direction)?;
        let bounds = &self.bounds;
        self.tombstone_front = front.filter(|(key, _)| bounds.hold_on_the_way(key, self.direction));
        Ok(())
    }
}
