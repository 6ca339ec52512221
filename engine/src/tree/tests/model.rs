//! Random operations on a tree and on a map must give the same answers, now and for old roots.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::{
    Body, Changes, Cursor, Inserted, Root, count, get, insert, pages_needed, relocate, remove,
    remove_each, supersede, take,
};
use super::{Model, Random, TREE, TreeTag, contents, memory_file, publish};
use crate::page::disk::Completion;
use crate::page::node::{KEY_INLINE_SIZE_BYTES_MAX, Node};
use crate::page::{Epoch, PageBuffer, PageFile, PageId, PagePtr, Pages, PagesNeeded, Side};

/// What the keys of a run look like.
#[derive(Clone, Copy, Debug)]
enum Keys {
    /// Short, random, often equal.
    Small,
    /// Paths with long shared prefixes.
    Paths,
    /// Around the length from which keys move to extents, differing early and late.
    Long,
    /// Growing numbers.
    Sequence,
}

fn random_key(random: &mut Random, keys: Keys, step: u64) -> Vec<u8> {
    match keys {
        Keys::Small => {
            let len = random.below(4);
            (0..len).map(|_| b"\0ab\xff"[random.below(4)]).collect()
        }
        Keys::Paths => {
            let (kind, space) = (["pods", "services", "leases"][random.below(3)], random.below(5));
            format!("/registry/{kind}/namespace-{space}/object-{}", random.below(400)).into_bytes()
        }
        Keys::Long => {
            let mut key = vec![b'k'; random.below(3) * (KEY_INLINE_SIZE_BYTES_MAX - 3)];
            let number = format!("{:03}", random.below(200));
            key.extend_from_slice(number.as_bytes());
            let tail = random.below(2) * KEY_INLINE_SIZE_BYTES_MAX * 9;
            key.extend(std::iter::repeat_n(b't', tail));
            key.extend_from_slice(&number.as_bytes()[..random.below(3)]);
            key
        }
        Keys::Sequence if random.below(8) > 0 => step.to_be_bytes().to_vec(),
        Keys::Sequence => (random.number() % (step + 1)).to_be_bytes().to_vec(),
    }
}

fn random_body(random: &mut Random) -> Vec<u8> {
    let len = match random.below(20) {
        0 => random.below(20_000),
        1..4 => random.below(2_500),
        4..12 => 100,
        _ => random.below(60),
    };
    let mut body = random.bytes(len.min(16));
    body.resize(len, 7);
    body
}

struct Run {
    seed: u64,
    keys: Keys,
    random: Random,
    pages: PageFile,
    root: Root,
    model: Model,
    /// Published roots that are held, with what they must say for ever.
    held: Vec<(Epoch, Root, Model)>,
}

impl Run {
    fn new(seed: u64, keys: Keys) -> Self {
        Self {
            seed,
            keys,
            random: Random::new(seed),
            pages: memory_file(256 << 20),
            root: Root::empty(TREE),
            model: BTreeMap::new(),
            held: Vec::new(),
        }
    }

    fn step(&mut self, step: u64) {
        let key = random_key(&mut self.random, self.keys, step);
        let at = format!("seed {} keys {:?} step {step}", self.seed, self.keys);
        // Long phases of growth and of shrinking, so that merges go all the way to an empty tree.
        let growing = (step / 1500).is_multiple_of(2);
        let roll = self.random.below(10);
        if roll < if growing { 8 } else { 2 } {
            let (head_len, body) = (self.random.below(50), random_body(&mut self.random));
            let head = self.random.bytes(head_len);
            let bytes = Body::Bytes(&body);
            self.reserve(|changes| changes.add_entry(&key, head.len(), body.len()));
            let inserted = if roll == 0 {
                self.insert_superseding(&key, &head, bytes)
            } else {
                insert(&mut self.pages, &mut self.root, &key, &head, bytes).unwrap()
            };
            let before = self.model.insert(key, (head, body));
            let new = inserted == Inserted::New;
            assert_eq!(new, before.is_none(), "{at}");
        } else if roll == 7 {
            self.remove_neighbours(&key, &at);
        } else if roll < 9 {
            // Removals of random keys would mostly miss: take what stands there.
            let mut near = self.model.range(key.clone()..).map(|(key, _)| key.clone());
            let key = if roll == 8 { key } else { near.next().unwrap_or(key) };
            self.reserve(Changes::add_removal);
            let removed = remove(&mut self.pages, &mut self.root, &key).unwrap();
            assert_eq!(removed, self.model.remove(&key).is_some(), "{at}");
        } else {
            self.compare_reads(&key, &at);
        }
        assert_eq!(self.root.count, self.model.len() as u64, "{at}");
    }

    /// What a sweep does: some of the keys that stand side by side, or all, and some that are not
    /// there; and what it does not, one that is named twice.
    fn remove_neighbours(&mut self, key: &[u8], at: &str) {
        let near = self.model.range(key.to_vec()..).map(|(key, _)| key.clone());
        let mut keys: Vec<Vec<u8>> = near.take(self.random.below(60)).collect();
        if self.random.below(4) > 0 {
            keys.retain(|_| self.random.below(4) > 0);
        }
        for _ in 0..self.random.below(3) {
            keys.push(random_key(&mut self.random, self.keys, 0));
        }
        if let Some(twice) = keys.first().filter(|_| self.random.below(4) == 0) {
            keys.push(twice.clone());
        }
        keys.sort();
        let count = keys.len() as u64;
        self.reserve(|changes| (0..count).for_each(|_| changes.add_removal()));
        let (model, mut seen) = (&self.model, Vec::new());
        let removed = remove_each(&mut self.pages, &mut self.root, &keys, |pages, index, entry| {
            let (head, body) = &model[&keys[index]];
            assert_eq!(entry.head, head, "{at}");
            assert_eq!(entry.body(pages)?, body, "{at}");
            seen.push(keys[index].clone());
            Ok(())
        });
        keys.retain(|key| self.model.remove(key).is_some());
        assert_eq!((removed.unwrap(), seen), (keys.len(), keys), "{at}");
    }

    fn reserve(&mut self, add: impl Fn(&mut Changes)) {
        let mut changes = Changes::default();
        add(&mut changes);
        let needed = pages_needed(&self.pages, &self.root, changes);
        self.pages.reserve(needed).unwrap();
    }

    /// What an owner does that moves a replaced body elsewhere: the extent must survive.
    fn insert_superseding(&mut self, key: &[u8], head: &[u8], body: Body<'_>) -> Inserted {
        let old = get(&self.pages, self.root, key).unwrap().and_then(|entry| entry.extent());
        let inserted = supersede(&mut self.pages, &mut self.root, key, head, body).unwrap();
        if let Some(extent) = old {
            self.pages.extent(TREE, extent).unwrap();
            self.pages.free_extent(extent);
        }
        inserted
    }

    fn compare_reads(&mut self, key: &[u8], at: &str) {
        let (pages, root, model) = (&self.pages, self.root, &self.model);
        let entry = get(pages, root, key).unwrap();
        let found = entry.map(|entry| (entry.head.to_vec(), entry.body(pages).unwrap().to_vec()));
        assert_eq!(found.as_ref(), model.get(key), "{at}");
        let other = random_key(&mut self.random, self.keys, 1000);
        let (low, high) = if key < &other[..] { (key, &other[..]) } else { (&other[..], key) };
        let expected = model.range(low.to_vec()..high.to_vec()).count() as u64;
        let counted = count(pages, root, Bound::Included(low), Bound::Excluded(high)).unwrap();
        assert_eq!(counted, expected, "{at}");
        let expected = model.range(low.to_vec()..=high.to_vec()).skip_while(|(key, _)| *key == low);
        let counted = count(pages, root, Bound::Excluded(low), Bound::Included(high)).unwrap();
        assert_eq!(counted, expected.count() as u64, "{at}");
        let from = model.range(low.to_vec()..).count() as u64;
        let counted = count(pages, root, Bound::Included(low), Bound::Unbounded).unwrap();
        assert_eq!(counted, from, "{at}");

        let mut cursor = Cursor::new(pages, root);
        let floor = cursor.seek_floor(key).unwrap().map(|(key, _)| key.to_vec());
        let expected = model.range(..=key.to_vec()).next_back().map(|(key, _)| key.clone());
        assert_eq!(floor, expected, "{at}");
        // A zigzag from somewhere in the middle, over the ends too.
        cursor.seek(key).unwrap();
        let all: Vec<&Vec<u8>> = model.keys().collect();
        let mut gap = all.partition_point(|other| other.as_slice() < key);
        for _ in 0..30 {
            let forward = self.random.below(2) == 0;
            for _ in 0..self.random.below(8) {
                let expected = if forward { all.get(gap) } else { all[..gap].last() };
                let found = if forward { cursor.next() } else { cursor.prev() };
                let found = found.unwrap().map(|(key, _)| key);
                assert_eq!(found, expected.map(|key| key.as_slice()), "{at}");
                gap = match (found, forward) {
                    (None, _) => gap,
                    (Some(_), true) => gap + 1,
                    (Some(_), false) => gap - 1,
                };
            }
        }
    }

    /// Visits some leaves, from anywhere, and moves what stands on the wrong side.
    fn relocate(&mut self, step: u64) {
        let end = self.pages.end().0 as usize + 1;
        let limit = PageId(1 + u32::try_from(self.random.below(end)).unwrap());
        let mut from = match self.random.below(3) {
            0 => Vec::new(),
            _ => random_key(&mut self.random, self.keys, step),
        };
        let side = match self.random.below(3) {
            0 => Side::Behind(limit),
            _ => Side::Before(limit),
        };
        let pages_max = 1 + u32::try_from(self.random.below(8)).unwrap();
        for _ in 0..1 + self.random.below(30) {
            self.pages.reserve(PagesNeeded { pages: 40, extent_pages: 0 }).unwrap();
            let pages = &mut self.pages;
            let visit = relocate(pages, &mut self.root, &from, side, pages_max).unwrap();
            match visit.next {
                Some(next) => {
                    let has_moved = next == from && visit.copied_pages >= pages_max;
                    assert!(next > from || has_moved, "seed {} step {step}", self.seed);
                    from = next;
                }
                None => break,
            }
        }
    }

    fn publish(&mut self) {
        if self.held.len() > 3 {
            let gone = self.random.below(self.held.len());
            let (_, root, model) = self.held.remove(gone);
            assert!(contents(&self.pages, root) == model, "seed {} held root", self.seed);
        }
        let protected: Vec<Epoch> = self.held.iter().map(|(epoch, ..)| *epoch).collect();
        let epoch = publish(&mut self.pages, &protected);
        if self.random.below(4) == 0 {
            self.held.push((epoch, self.root, self.model.clone()));
        }
    }

    fn check_all(&self) {
        let at = format!("seed {} keys {:?}", self.seed, self.keys);
        assert!(contents(&self.pages, self.root) == self.model, "{at}");
        for (epoch, root, model) in &self.held {
            assert!(contents(&self.pages, *root) == *model, "{at} epoch {epoch}");
        }
        let mut cursor = Cursor::new(&self.pages, self.root);
        cursor.seek_end().unwrap();
        for (key, _) in self.model.iter().rev() {
            assert_eq!(cursor.prev().unwrap().map(|(key, _)| key), Some(key.as_slice()), "{at}");
        }
        assert!(cursor.prev().unwrap().is_none(), "{at}");
        check_shape(&self.pages, self.root);
    }
}

/// Checks separators, counts and the structure of every page; returns pages and bytes used.
fn check_shape(pages: &PageFile, root: Root) -> (u64, u64) {
    fn walk(pages: &PageFile, ptr: PagePtr, level: u8, sums: &mut (u64, u64)) -> u64 {
        let node = Node::new(pages.page(ptr).unwrap());
        node.check().unwrap();
        sums.0 += 1;
        sums.1 += node.used_bytes() as u64;
        if level == 1 {
            return node.count() as u64;
        }
        for index in 0..node.count() {
            let (page, birth) = node.child(index);
            let below = walk(pages, PagePtr { page, birth, ..ptr }, level - 1, sums);
            assert_eq!(below, node.child_count(index), "page {} child {index}", ptr.page);
        }
        node.entries_count()
    }
    let mut sums = (0, 0);
    if !root.is_empty() {
        assert_eq!(walk(pages, root.ptr(), root.height, &mut sums), root.count);
    }
    sums
}

fn run(seed: u64, keys: Keys, steps: u64) {
    let mut run = Run::new(seed, keys);
    for step in 0..steps {
        run.step(step);
        if run.random.below(40) == 0 {
            run.publish();
        }
        if run.random.below(60) == 0 {
            run.relocate(step);
        }
        if step % 1000 == 999 {
            run.check_all();
        }
    }
    run.check_all();
    // Nothing may have leaked: with the tree emptied and nothing held, all pages come back.
    let keys: Vec<Vec<u8>> = run.model.keys().cloned().collect();
    for key in keys {
        run.reserve(Changes::add_removal);
        assert!(take_and_free(&mut run, &key), "seed {seed}");
    }
    assert_eq!(run.root, Root::empty(TREE), "seed {seed}");
    publish(&mut run.pages, &[]);
    publish(&mut run.pages, &[]);
    assert_eq!(run.pages.in_use_bytes(), crate::page::PAGE_SIZE_BYTES as u64, "seed {seed}");
    run.pages.assert_consistent();
}

fn take_and_free(run: &mut Run, key: &[u8]) -> bool {
    let extent = get(&run.pages, run.root, key).unwrap().unwrap().extent();
    let taken = take(&mut run.pages, &mut run.root, key).unwrap();
    if let Some(extent) = extent {
        run.pages.free_extent(extent);
    }
    taken
}

const SEEDS: u64 = if cfg!(miri) { 1 } else { 3 };
const STEPS: u64 = if cfg!(miri) { 300 } else { 12_000 };

#[test]
fn tree_equals_map_with_small_keys() {
    (0..SEEDS).for_each(|seed| run(seed, Keys::Small, STEPS));
}

#[test]
fn tree_equals_map_with_paths() {
    (0..SEEDS).for_each(|seed| run(seed + 100, Keys::Paths, STEPS));
}

#[test]
fn tree_equals_map_with_long_keys() {
    (0..SEEDS).for_each(|seed| run(seed + 200, Keys::Long, STEPS));
}

#[test]
fn tree_equals_map_with_growing_keys() {
    (0..SEEDS).for_each(|seed| run(seed + 300, Keys::Sequence, STEPS));
}

/// With room before the limit, a walk over the whole tree leaves nothing behind it.
#[test]
fn a_walk_empties_the_end_of_a_file() {
    for keys in [Keys::Paths, Keys::Long] {
        let mut run = Run::new(77, keys);
        for step in 0..if cfg!(miri) { 300 } else { 3_000 } {
            run.step(step);
            if step % 50 == 0 {
                publish(&mut run.pages, &[]);
            }
        }
        publish(&mut run.pages, &[]);
        // Twice as long as needed: the pages are given out from the front.
        let used = run.pages.used_pages();
        let limit = PageId(used + used / 2);
        let shift = run.pages.end().0 + used;
        run.pages.reserve(PagesNeeded { pages: 4 * shift, extent_pages: 0 }).unwrap();
        let mut filler = Vec::new();
        while run.pages.end().0 < shift {
            filler.push(run.pages.allocate(crate::page::PageKind::Leaf, TREE).unwrap());
        }
        walk(&mut run, PageId(1));
        for page in filler {
            run.pages.free(page);
        }
        publish(&mut run.pages, &[]);
        assert!(run.pages.end() > limit, "{keys:?}: nothing stands at the end");
        walk(&mut run, limit);
        publish(&mut run.pages, &[]);
        publish(&mut run.pages, &[]);
        assert!(run.pages.end() <= limit, "{keys:?}: {:?} of {limit:?}", run.pages.end());
        run.check_all();
        while run.pages.shorten(0) {
            let op = run.pages.poll_disk_op().expect("the file is to be cut");
            let done =
                Completion { token: op.token, buffer: PageBuffer::default(), result: Ok(()) };
            run.pages.handle_disk_completion(done).unwrap();
        }
        // What is left is too little to be worth a cut.
        let left = run.pages.size_bytes() - run.pages.end().offset_bytes();
        let growth = PageId(run.pages.growth_pages()).offset_bytes();
        assert!(left <= growth / 4, "{keys:?}: {left} of {growth}");
        run.check_all();
    }
}

/// Visits every leaf.
fn walk(run: &mut Run, limit: PageId) {
    let mut next = Some(Vec::new());
    while let Some(from) = next {
        run.pages.reserve(PagesNeeded { pages: 40, extent_pages: 0 }).unwrap();
        next = relocate(&mut run.pages, &mut run.root, &from, Side::Before(limit), u32::MAX)
            .unwrap()
            .next;
    }
}

#[test]
fn keys_in_order_fill_their_pages() {
    let mut pages = memory_file(64 << 20);
    pages.reserve(PagesNeeded { pages: 8000, extent_pages: 0 }).unwrap();
    let mut root = Root::empty(TREE);
    for number in 0..20_000_u64 {
        insert(&mut pages, &mut root, &number.to_be_bytes(), b"head", Body::Bytes(&[1; 100]))
            .unwrap();
    }
    let (count, used) = check_shape(&pages, root);
    let full = count * crate::page::node::NODE_CAPACITY_BYTES as u64;
    assert!(used * 100 >= full * 95, "{used} bytes used of {full}");
}

#[test]
fn removals_leave_no_nearly_empty_pages() {
    let mut pages = memory_file(64 << 20);
    pages.reserve(PagesNeeded { pages: 8000, extent_pages: 0 }).unwrap();
    let mut root = Root::empty(TREE);
    let mut random = Random::new(5);
    for number in 0..20_000_u64 {
        insert(&mut pages, &mut root, &number.to_be_bytes(), b"", Body::Bytes(&[1; 100])).unwrap();
    }
    for number in 0..20_000_u64 {
        if random.below(20) > 0 {
            remove(&mut pages, &mut root, &number.to_be_bytes()).unwrap();
        }
    }
    let (count, used) = check_shape(&pages, root);
    let full = count * crate::page::node::NODE_CAPACITY_BYTES as u64;
    assert!(used * 100 >= full * 30, "{used} bytes used of {full}");
}

#[test]
fn a_body_moves_between_trees_without_a_copy() {
    let mut pages = memory_file(16 << 20);
    let (mut current, mut history) = (Root::empty(TREE), Root::empty(TreeTag(4)));
    let body = vec![9; 50_000];
    insert(&mut pages, &mut current, b"key", b"1", Body::Bytes(&body)).unwrap();
    let extent = get(&pages, current, b"key").unwrap().unwrap().extent().unwrap();
    insert(&mut pages, &mut history, b"key\0old", b"1", Body::Extent(extent)).unwrap();
    supersede(&mut pages, &mut current, b"key", b"2", Body::Bytes(b"new")).unwrap();
    publish(&mut pages, &[]);
    let old = get(&pages, history, b"key\0old").unwrap().unwrap();
    assert_eq!(old.extent(), Some(extent));
    assert!(old.body(&pages).unwrap() == body);
}
