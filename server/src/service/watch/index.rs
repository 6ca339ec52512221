//! Which watchers want a key.
//!
//! Watchers of one key are found by its hash, watchers of a range in a tree of the distinct
//! ranges: a treap ordered by (start, end) in which every node knows the furthest end below it,
//! so that a look-up goes only where a range that covers the key can be. Many watchers of one
//! range, the common case, share a node.
//!
//! A table of segments between all boundaries would answer faster, but nested ranges, which any
//! client may ask for, make it quadratic.
//!
//! Invariants:
//! - A watcher is in the index from its creation to its end, whatever its state.
//! - `furthest` of a node names the node with the greatest end in its subtree.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::slots::Key;

/// What a watcher watches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Span {
    /// One key.
    Point(Box<[u8]>),
    /// The keys from the first on and before the second, if there is one.
    Range(Box<[u8]>, Option<Box<[u8]>>),
}

impl Span {
    /// Whether it covers the key.
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        match self {
            Self::Point(point) => **point == *key,
            Self::Range(start, end) => {
                **start <= *key && end.as_deref().is_none_or(|end| key < end)
            }
        }
    }
}

/// The spans of all watchers of a core.
pub(super) struct WatchIndex {
    points: HashMap<Box<[u8]>, Vec<Key>>,
    ranges: RangeTree,
}

impl WatchIndex {
    pub(super) fn new() -> Self {
        Self { points: HashMap::new(), ranges: RangeTree::new() }
    }

    pub(super) fn insert(&mut self, span: &Span, watcher: Key) {
        match span {
            Span::Point(key) => self.points.entry(key.clone()).or_default().push(watcher),
            Span::Range(start, end) => self.ranges.insert(start, end.as_deref(), watcher),
        }
    }

    pub(super) fn remove(&mut self, span: &Span, watcher: Key) {
        match span {
            Span::Point(key) => {
                let watchers = self.points.get_mut(key).expect("a watcher is in the index");
                remove_one(watchers, watcher);
                if watchers.is_empty() {
                    self.points.remove(key);
                }
            }
            Span::Range(start, end) => self.ranges.remove(start, end.as_deref(), watcher),
        }
    }

    /// Calls `visit` for every watcher whose span holds the key.
    pub(super) fn for_each(&self, key: &[u8], mut visit: impl FnMut(Key)) {
        if let Some(watchers) = self.points.get(key) {
            for watcher in watchers {
                visit(*watcher);
            }
        }
        self.ranges.visit(self.ranges.root, key, &mut visit);
    }
}

fn remove_one(watchers: &mut Vec<Key>, watcher: Key) {
    let at = watchers.iter().position(|other| *other == watcher);
    watchers.swap_remove(at.expect("a watcher is in the index"));
}

const NONE: u32 = u32::MAX;

struct Node {
    start: Box<[u8]>,
    /// `None`: no end, which is further than any.
    end: Option<Box<[u8]>>,
    watchers: Vec<Key>,
    priority: u64,
    left: u32,
    right: u32,
    furthest: u32,
}

struct RangeTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    priority_state: u64,
}

impl RangeTree {
    const fn new() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NONE, priority_state: 0 }
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }

    fn compare(&self, index: u32, start: &[u8], end: Option<&[u8]>) -> Ordering {
        let node = self.node(index);
        (*start).cmp(&node.start).then_with(|| compare_ends(end, node.end.as_deref()))
    }

    fn find(&self, start: &[u8], end: Option<&[u8]>) -> u32 {
        let mut at = self.root;
        while at != NONE {
            at = match self.compare(at, start, end) {
                Ordering::Less => self.node(at).left,
                Ordering::Greater => self.node(at).right,
                Ordering::Equal => break,
            };
        }
        at
    }

    fn insert(&mut self, start: &[u8], end: Option<&[u8]>, watcher: Key) {
        let found = self.find(start, end);
        if found != NONE {
            self.node_mut(found).watchers.push(watcher);
            return;
        }
        let node = Node {
            start: start.into(),
            end: end.map(Into::into),
            watchers: vec![watcher],
            priority: self.next_priority(),
            left: NONE,
            right: NONE,
            furthest: NONE,
        };
        let index = if let Some(index) = self.free.pop() {
            *self.node_mut(index) = node;
            index
        } else {
            let index = u32::try_from(self.nodes.len()).expect("memory ends before 2^32 ranges do");
            self.nodes.push(node);
            index
        };
        self.update(index);
        self.root = self.insert_below(self.root, index);
    }

    fn insert_below(&mut self, at: u32, new: u32) -> u32 {
        if at == NONE {
            return new;
        }
        if self.node(new).priority > self.node(at).priority {
            let (left, right) = self.split(at, new);
            self.node_mut(new).left = left;
            self.node_mut(new).right = right;
            self.update(new);
            return new;
        }
        if self.is_before(new, at) {
            let left = self.insert_below(self.node(at).left, new);
            self.node_mut(at).left = left;
        } else {
            let right = self.insert_below(self.node(at).right, new);
            self.node_mut(at).right = right;
        }
        self.update(at);
        at
    }

    fn is_before(&self, node: u32, other: u32) -> bool {
        let node = self.node(node);
        self.compare(other, &node.start, node.end.as_deref()) == Ordering::Less
    }

    /// Parts a subtree into what is before a node and what is behind it.
    fn split(&mut self, at: u32, pivot: u32) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.is_before(pivot, at) {
            let (before, behind) = self.split(self.node(at).left, pivot);
            self.node_mut(at).left = behind;
            self.update(at);
            (before, at)
        } else {
            let (before, behind) = self.split(self.node(at).right, pivot);
            self.node_mut(at).right = before;
            self.update(at);
            (at, behind)
        }
    }

    /// Joins two subtrees of which the first is entirely before the second.
    fn join(&mut self, before: u32, behind: u32) -> u32 {
        if before == NONE {
            return behind;
        }
        if behind == NONE {
            return before;
        }
        let root = if self.node(before).priority > self.node(behind).priority {
            let right = self.join(self.node(before).right, behind);
            self.node_mut(before).right = right;
            before
        } else {
            let left = self.join(before, self.node(behind).left);
            self.node_mut(behind).left = left;
            behind
        };
        self.update(root);
        root
    }

    fn remove(&mut self, start: &[u8], end: Option<&[u8]>, watcher: Key) {
        let found = self.find(start, end);
        assert!(found != NONE, "a watcher is in the index");
        remove_one(&mut self.node_mut(found).watchers, watcher);
        if self.node(found).watchers.is_empty() {
            self.root = self.remove_below(self.root, found);
            self.free.push(found);
        }
    }

    fn remove_below(&mut self, at: u32, node: u32) -> u32 {
        if at == node {
            return self.join(self.node(at).left, self.node(at).right);
        }
        if self.is_before(node, at) {
            let left = self.remove_below(self.node(at).left, node);
            self.node_mut(at).left = left;
        } else {
            let right = self.remove_below(self.node(at).right, node);
            self.node_mut(at).right = right;
        }
        self.update(at);
        at
    }

    fn update(&mut self, at: u32) {
        let mut furthest = at;
        for child in [self.node(at).left, self.node(at).right] {
            if child != NONE {
                let candidate = self.node(child).furthest;
                let (end, best) = (&self.node(candidate).end, &self.node(furthest).end);
                if compare_ends(end.as_deref(), best.as_deref()) == Ordering::Greater {
                    furthest = candidate;
                }
            }
        }
        self.node_mut(at).furthest = furthest;
    }

    fn visit(&self, at: u32, key: &[u8], visit: &mut impl FnMut(Key)) {
        if at == NONE {
            return;
        }
        let node = self.node(at);
        if !ends_behind(self.node(node.furthest).end.as_deref(), key) {
            return;
        }
        self.visit(node.left, key, visit);
        if *node.start <= *key {
            if ends_behind(node.end.as_deref(), key) {
                for watcher in &node.watchers {
                    visit(*watcher);
                }
            }
            self.visit(node.right, key, visit);
        }
    }

    /// Priorities only have to be unlike the order of insertion; the finaliser of a common hash
    /// over a counter does that, and runs the same in every test.
    fn next_priority(&mut self) -> u64 {
        self.priority_state = self.priority_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        super::scramble(self.priority_state)
    }
}

/// Orders ends: none is behind all others.
fn compare_ends(end: Option<&[u8]>, other: Option<&[u8]>) -> Ordering {
    match (end, other) {
        (Some(end), Some(other)) => end.cmp(other),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
    }
}

fn ends_behind(end: Option<&[u8]>, key: &[u8]) -> bool {
    end.is_none_or(|end| end > key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::watch::slots::Slots;

    /// A generator of its own: the tests must not depend on a crate's idea of a seed.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let number = crate::service::watch::scramble(self.0) % bound as u64;
            usize::try_from(number).unwrap()
        }

        fn key(&mut self) -> Box<[u8]> {
            let len = 1 + self.below(3);
            (0..len).map(|_| b"abcd"[self.below(4)]).collect()
        }
    }

    fn holds(span: &Span, key: &[u8]) -> bool {
        match span {
            Span::Point(point) => **point == *key,
            Span::Range(start, end) => **start <= *key && ends_behind(end.as_deref(), key),
        }
    }

    #[test]
    fn the_index_finds_what_a_list_finds() {
        for seed in 0..20 {
            let mut draw = Draw(seed);
            let mut keys = Slots::new();
            let mut index = WatchIndex::new();
            let mut list: Vec<(Key, Span)> = Vec::new();
            for _ in 0..600 {
                if !list.is_empty() && draw.below(3) == 0 {
                    let at = draw.below(list.len());
                    let (watcher, span) = list.swap_remove(at);
                    index.remove(&span, watcher);
                    keys.remove(watcher);
                } else {
                    let (start, end) = (draw.key(), draw.key());
                    let span = match draw.below(4) {
                        0 => Span::Point(start),
                        1 => Span::Range(start, None),
                        _ if start < end => Span::Range(start, Some(end)),
                        _ => Span::Range(start.clone(), Some([&*start, b"z"].concat().into())),
                    };
                    let watcher = keys.insert(());
                    index.insert(&span, watcher);
                    list.push((watcher, span));
                }
                let key = draw.key();
                let mut found = Vec::new();
                index.for_each(&key, |watcher| found.push(watcher));
                found.sort_unstable();
                let mut expected: Vec<Key> =
                    list.iter().filter(|(_, span)| holds(span, &key)).map(|(k, _)| *k).collect();
                expected.sort_unstable();
                assert_eq!(found, expected, "seed {seed}, key {key:?}");
            }
        }
    }

    #[test]
    fn ranges_inserted_in_order_stay_shallow() {
        let mut tree = RangeTree::new();
        let watcher = Slots::new().insert(());
        for number in 0..20_000_u32 {
            tree.insert(&number.to_be_bytes(), Some(&(number + 1).to_be_bytes()), watcher);
        }
        fn depth(tree: &RangeTree, at: u32) -> usize {
            if at == NONE {
                return 0;
            }
            1 + depth(tree, tree.node(at).left).max(depth(tree, tree.node(at).right))
        }
        // Twice the expected depth of a random tree of that size.
        assert!(depth(&tree, tree.root) < 80, "depth {}", depth(&tree, tree.root));
    }
}
