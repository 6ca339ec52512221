//! Random commands and queries, from a seed.

use engine::command::{CompareRef, DeleteRangeRef, OperationRef, PutRef, TxnRef};
use engine::{LeaseId, RangeQuery, SortOrder, SortTarget};

/// SplitMix64: good enough to find mistakes, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// Keys and values that outlive the commands that borrow them.
pub struct Words {
    pub keys: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
}

impl Words {
    /// Few keys, so that histories grow deep; among them the awkward ones.
    pub fn new(random: &mut Random) -> Self {
        let awkward: [&[u8]; 8] =
            [b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0\xff", b"\xff", b"\xff\xff"];
        let mut keys: Vec<Vec<u8>> = awkward.iter().map(|key| key.to_vec()).collect();
        keys.extend((0..24).map(|index| format!("key/{index:02}").into_bytes()));
        keys.push(vec![b'l'; 3000]);
        keys.push(vec![b'l'; 3001]);
        let mut values = vec![Vec::new(), b"v".to_vec()];
        for size in [1, 10, 100, 256, 1000, 3000, 9000] {
            for _ in 0..3 {
                values.push((0..size).map(|_| random.next() as u8).collect());
            }
        }
        Self { keys, values }
    }

    pub fn key(&self, random: &mut Random) -> &[u8] {
        &self.keys[random.below(self.keys.len())]
    }

    fn value(&self, random: &mut Random) -> &[u8] {
        // The long ones are rare.
        let bound = if random.one_in(4) { self.values.len() } else { 14 };
        &self.values[random.below(bound)]
    }

    fn range_end(&self, random: &mut Random) -> &[u8] {
        match random.below(8) {
            0..=2 => b"",
            3 => b"\0",
            _ => self.key(random),
        }
    }

    pub fn put(&self, random: &mut Random) -> PutRef<'_> {
        PutRef {
            key: self.key(random),
            value: self.value(random),
            lease: if random.one_in(3) { self.lease(random) } else { LeaseId(0) },
            prev_kv: random.one_in(3),
            ignore_value: random.one_in(6),
            ignore_lease: random.one_in(6),
        }
    }

    /// Few, so that they are granted and revoked again and again, and one has many keys.
    pub fn lease(&self, random: &mut Random) -> LeaseId {
        LeaseId([1, 2, 2, 2, 0x0100_0000_0000_0000, i64::MAX, -1][random.below(7)])
    }

    pub fn delete(&self, random: &mut Random) -> DeleteRangeRef<'_> {
        let range_end = if random.one_in(4) { self.range_end(random) } else { b"" };
        DeleteRangeRef { key: self.key(random), range_end, prev_kv: random.one_in(3) }
    }

    fn compare(&self, random: &mut Random, revision: i64) -> CompareRef<'_> {
        CompareRef {
            result: random.below(6) as i32 - 1,
            target: random.below(7) as i32 - 1,
            key: self.key(random),
            range_end: if random.one_in(4) { self.range_end(random) } else { b"" },
            number: random.below(revision as usize + 2) as i64 / (1 + random.below(3) as i64),
            value: self.value(random),
        }
    }

    /// Any transaction that decodes; also such as a server would refuse.
    pub fn txn(&self, random: &mut Random, revision: i64, depth: usize) -> TxnRef<'_> {
        let operations = |random: &mut Random| {
            (0..random.below(4)).map(|_| self.operation(random, revision, depth)).collect()
        };
        TxnRef {
            compares: (0..random.below(3)).map(|_| self.compare(random, revision)).collect(),
            success: operations(random),
            failure: operations(random),
        }
    }

    fn operation(&self, random: &mut Random, revision: i64, depth: usize) -> OperationRef<'_> {
        match random.below(if depth == 0 { 8 } else { 10 }) {
            0..=2 => OperationRef::Range(self.query(random, revision)),
            3..=5 => OperationRef::Put(self.put(random)),
            6..=7 => OperationRef::DeleteRange(self.delete(random)),
            _ => OperationRef::Txn(self.txn(random, revision, depth - 1)),
        }
    }

    pub fn txn_of_ranges(&self, random: &mut Random, revision: i64) -> TxnRef<'_> {
        let ranges = |random: &mut Random| {
            let range = |_| OperationRef::Range(self.query(random, revision));
            (0..3).map(range).collect()
        };
        TxnRef {
            compares: (0..random.below(2)).map(|_| self.compare(random, revision)).collect(),
            success: ranges(random),
            failure: ranges(random),
        }
    }

    pub fn query(&self, random: &mut Random, revision: i64) -> RangeQuery<'_> {
        let at = |random: &mut Random| random.below(revision as usize + 2) as i64;
        let bound = |random: &mut Random| if random.one_in(6) { at(random) } else { 0 };
        RangeQuery {
            key: self.key(random),
            range_end: self.range_end(random),
            limit: if random.one_in(2) { random.below(12) as i64 } else { 0 },
            revision: match random.below(8) {
                0..=2 => at(random),
                3 => -1,
                _ => 0,
            },
            sort_order: match random.below(4) {
                0 => SortOrder::Ascend,
                1 => SortOrder::Descend,
                _ => SortOrder::None,
            },
            sort_target: match random.below(8) {
                0 => SortTarget::Version,
                1 => SortTarget::Create,
                2 => SortTarget::Mod,
                3 => SortTarget::Value,
                _ => SortTarget::Key,
            },
            keys_only: random.one_in(5),
            count_only: random.one_in(8),
            min_mod_revision: bound(random),
            max_mod_revision: bound(random),
            min_create_revision: bound(random),
            max_create_revision: bound(random),
        }
    }
}
