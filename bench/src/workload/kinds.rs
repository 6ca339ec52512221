//! The workloads whose operations are unary calls: put, get and range, update by transaction, list.
//!
//! Invariants:
//! - Each answer is checked against the request that is in the slot; an operation ends only after
//!   exactly one message was judged for each of its requests.
//! - A refused transaction is tried again in the same slot, with the revision it was told, and its
//!   latency runs from its first try.

use super::{Begun, Context, Expected, KeySpace, Ledger, Op, Order, Workload};
use crate::proto::{self, OperationAnswer, RangeAnswer, RangeRequest, TxnAnswer, WriteAnswer};

/// Puts, one key each.
pub struct Put {
    space: KeySpace,
    order: Order,
    rest: Option<u64>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Put {
    /// Puts in an order, at most `operations_max` of them.
    pub fn new(space: KeySpace, order: Order, operations_max: Option<u64>) -> Self {
        Self { space, order, rest: operations_max, key: Vec::new(), value: Vec::new() }
    }
}

impl Workload for Put {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        take_one(&mut self.rest)?;
        let index = self.order.next_below(self.space.count);
        op.start(index, context.ledger);
        self.key.clear();
        self.space.write_key(index, &mut self.key);
        self.value.clear();
        self.space.write_value(index, context.now_ns, &mut self.value);
        proto::write_put(out, &self.key, &self.value);
        Some(proto::PUT)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        match (first_message(op, context.ledger), WriteAnswer::read(payload)) {
            (true, Ok(answer)) => context.ledger.handle_write(op, answer.revision),
            (true, Err(_)) => context.ledger.handle_wrong("a put's answer is malformed"),
            (false, _) => {}
        }
    }
}

/// Reads of one key or of several neighbours.
pub struct Read {
    space: KeySpace,
    order: Order,
    rest: Option<u64>,
    keys: u64,
    serializable: bool,
    key: Vec<u8>,
    range_end: Vec<u8>,
}

impl Read {
    /// Reads of `keys` neighbouring keys, all of which exist.
    pub fn new(
        space: KeySpace,
        order: Order,
        operations_max: Option<u64>,
        keys: u64,
        serializable: bool,
    ) -> Self {
        assert!((1..=space.count).contains(&keys), "a range of {keys} keys");
        let (key, range_end) = (Vec::new(), Vec::new());
        Self { space, order, rest: operations_max, keys, serializable, key, range_end }
    }
}

impl Workload for Read {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        take_one(&mut self.rest)?;
        let index = self.order.next_below(self.space.count - self.keys + 1);
        op.start(index, context.ledger);
        self.key.clear();
        self.space.write_key(index, &mut self.key);
        self.range_end.clear();
        if self.keys > 1 {
            self.space.write_key(index + self.keys, &mut self.range_end);
        }
        let request = RangeRequest {
            key: &self.key,
            range_end: &self.range_end,
            serializable: self.serializable,
            ..RangeRequest::default()
        };
        proto::write_range(out, &request);
        Some(proto::RANGE)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        let ledger = &mut *context.ledger;
        if !first_message(op, ledger) {
            return;
        }
        let Ok(answer) = RangeAnswer::read(payload) else {
            return ledger.handle_wrong("a range's answer is malformed");
        };
        ledger.check_header(op, answer.revision, !self.serializable);
        let mut count = 0;
        for kv in answer.kvs() {
            let expected = Expected {
                index: op.index + count,
                revision: answer.revision,
                linearizable: !self.serializable,
            };
            if count < self.keys {
                ledger.check_kv(&self.space, op, kv, expected);
            }
            count += 1;
        }
        context.tally.keys_count += count;
        if count != self.keys || answer.count != self.keys || answer.more {
            ledger.handle_wrong(format!(
                "{} keys from {} were expected; {count} came, count is {}, more is {}",
                self.keys, op.index, answer.count, answer.more
            ));
        }
    }
}

/// Read-modify-write: put if the key's `mod_revision` is still the known one.
pub struct TxnUpdate {
    space: KeySpace,
    order: Order,
    rest: Option<u64>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl TxnUpdate {
    /// Updates in an order, at most `operations_max` of them.
    pub fn new(space: KeySpace, order: Order, operations_max: Option<u64>) -> Self {
        Self { space, order, rest: operations_max, key: Vec::new(), value: Vec::new() }
    }

    fn write(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        op.base = context.ledger.acknowledged(op.index);
        self.key.clear();
        self.space.write_key(op.index, &mut self.key);
        self.value.clear();
        self.space.write_value(op.index, context.now_ns, &mut self.value);
        proto::write_txn_update(out, &self.key, op.base, &self.value);
        Some(proto::TXN)
    }

    fn check(&self, op: &mut Op, ledger: &mut Ledger, answer: &TxnAnswer<'_>) {
        let mut responses = answer.responses();
        let (first, second) = (responses.next(), responses.next());
        if second.is_some() {
            ledger.handle_wrong("a transaction of one operation has several answers");
        }
        match (answer.succeeded, first) {
            (true, Some(Ok(OperationAnswer::Put))) => {
                ledger.handle_base(op);
                ledger.handle_write(op, answer.revision);
            }
            (false, Some(Ok(OperationAnswer::Range(range)))) => {
                ledger.check_header(op, answer.revision, true);
                op.again = true;
                let current = range.kvs().next().transpose().map(Option::unwrap_or_default);
                let current = current.map(|kv| kv.mod_revision);
                match current {
                    Ok(current) if current != op.base => ledger.note_revision(op.index, current),
                    Ok(current) => {
                        op.again = false;
                        ledger.handle_wrong(format!(
                            "key {} is from {current}, and yet the comparison failed",
                            op.index
                        ));
                    }
                    Err(_) => ledger.handle_wrong("a transaction's range is malformed"),
                }
            }
            _ => ledger.handle_wrong("a transaction's answer is not of the branch it names"),
        }
    }
}

impl Workload for TxnUpdate {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        take_one(&mut self.rest)?;
        let index = self.order.next_below(self.space.count);
        op.start(index, context.ledger);
        self.write(op, context, out)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        if !first_message(op, context.ledger) {
            return;
        }
        match TxnAnswer::read(payload) {
            Ok(answer) => self.check(op, context.ledger, &answer),
            Err(_) => context.ledger.handle_wrong("a transaction's answer is malformed"),
        }
    }

    fn handle_end(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        if !op.again {
            return None;
        }
        context.tally.retries_count += 1;
        op.start(op.index, context.ledger);
        self.write(op, context, out)
    }
}

/// A list of all keys in pages, each page an operation; a slot lists again and again.
pub struct List {
    space: KeySpace,
    page_keys: u64,
    passes_max: Option<u64>,
    range_end: Vec<u8>,
    /// By slot: where its list stands.
    cursors: Vec<Cursor>,
}

#[derive(Clone, Default)]
struct Cursor {
    /// The index of the next key, which is also how many have come.
    position: u64,
    /// The revision of the first page, at which the others are read, as Kubernetes does.
    revision: u64,
    passes: u64,
}

impl List {
    /// Lists in as many slots, each at most `passes_max` times through all keys.
    pub fn new(space: KeySpace, page_keys: u64, slots: usize, passes_max: Option<u64>) -> Self {
        let range_end = space.range_end();
        Self { space, page_keys, passes_max, range_end, cursors: vec![Cursor::default(); slots] }
    }
}

impl Workload for List {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        let cursor = &self.cursors[op.number];
        if self.passes_max.is_some_and(|passes_max| cursor.passes >= passes_max) {
            return None;
        }
        op.start(cursor.position, context.ledger);
        op.base = cursor.revision;
        let mut key = self.space.prefix.clone().into_bytes();
        if cursor.position > 0 {
            // The key after the last one, as clients continue a list.
            key = self.space.key(cursor.position - 1);
            key.push(0);
        }
        let request = RangeRequest {
            key: &key,
            range_end: &self.range_end,
            limit: self.page_keys,
            revision: cursor.revision,
            serializable: false,
        };
        proto::write_range(out, &request);
        Some(proto::RANGE)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        let ledger = &mut *context.ledger;
        if !first_message(op, ledger) {
            return;
        }
        let Ok(answer) = RangeAnswer::read(payload) else {
            return ledger.handle_wrong("a page is malformed");
        };
        ledger.check_header(op, answer.revision, true);
        let cursor = &mut self.cursors[op.number];
        let read_at = if op.base == 0 { answer.revision } else { op.base };
        let rest = self.space.count - cursor.position;
        let wanted = rest.min(self.page_keys);
        let mut count = 0;
        for kv in answer.kvs() {
            let index = cursor.position + count;
            let expected = Expected { index, revision: read_at, linearizable: op.base == 0 };
            ledger.check_kv(&self.space, op, kv, expected);
            count += 1;
            if count > wanted {
                break;
            }
        }
        context.tally.keys_count += count;
        if count != wanted || answer.more != (rest > wanted) || answer.count != rest {
            ledger.handle_wrong(format!(
                "the page at {} should have {wanted} of {rest} keys; {count} came, count is {}, \
                 more is {}",
                cursor.position, answer.count, answer.more
            ));
        }
        cursor.revision = read_at;
        cursor.position += wanted;
        if rest == wanted {
            *cursor = Cursor { passes: cursor.passes + 1, ..Cursor::default() };
        }
    }
}

/// Another workload whose answers may not come before a given time: a log that delays its syncs
/// cannot acknowledge earlier.
pub struct Delay {
    /// What is done.
    pub inner: Box<dyn Workload>,
    /// The time before which an acknowledgement is wrong.
    pub delay_ns: u64,
    /// By slot: when its request was written.
    pub begun_ns: Vec<u64>,
}

impl Workload for Delay {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        self.begun_ns[op.number] = context.now_ns;
        self.inner.begin(op, context, out)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        let taken_ns = context.now_ns - self.begun_ns[op.number];
        if taken_ns < self.delay_ns {
            context.ledger.handle_wrong(format!(
                "acknowledged after {taken_ns} ns, but no sync takes less than {} ns",
                self.delay_ns
            ));
        }
        self.inner.handle_message(op, context, payload);
    }

    fn handle_end(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        self.inner.handle_end(op, context, out)
    }
}

/// Takes one operation from what is left.
fn take_one(rest: &mut Option<u64>) -> Option<()> {
    match rest {
        None => Some(()),
        Some(0) => None,
        Some(rest) => {
            *rest -= 1;
            Some(())
        }
    }
}

/// Notes that the one message of a unary call has come.
fn first_message(op: &mut Op, ledger: &mut Ledger) -> bool {
    let first = !std::mem::replace(&mut op.answered, true);
    if !first {
        ledger.handle_wrong("a unary call was answered twice");
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{KeyValue, answers};
    use crate::report::Tally;

    struct Bed {
        space: KeySpace,
        ledger: Ledger,
        tally: Tally,
        op: Op,
        out: Vec<u8>,
    }

    impl Bed {
        fn new() -> Self {
            let prefix = "k/".to_owned();
            let space = KeySpace { prefix, count: 10, seed: 1, value_size_bytes: 32 };
            let tally = Tally::new("test");
            Self { space, ledger: Ledger::new(10), tally, op: Op::default(), out: Vec::new() }
        }

        fn order(&self) -> Order {
            Order::Sequential { next: 0, stride: 1 }
        }

        fn begin(&mut self, workload: &mut dyn Workload) -> Begun {
            self.out.clear();
            let (ledger, tally) = (&mut self.ledger, &mut self.tally);
            workload.begin(&mut self.op, &mut Context { ledger, tally, now_ns: 5 }, &mut self.out)
        }

        /// How many complaints an answer leads to.
        fn wrong(&mut self, workload: &mut dyn Workload, payload: &[u8]) -> u64 {
            let before = self.ledger.wrong_count;
            let (ledger, tally) = (&mut self.ledger, &mut self.tally);
            let context = &mut Context { ledger, tally, now_ns: 5 };
            workload.handle_message(&mut self.op, context, payload);
            self.ledger.wrong_count - before
        }

        fn answer(&self, indexes: std::ops::Range<u64>, revision: u64) -> Vec<u8> {
            let kvs: Vec<_> = indexes.clone().map(|index| self.pair(index)).collect();
            let kvs: Vec<_> = kvs.iter().map(|(key, value)| kv(key, value, 4)).collect();
            answers::range(revision, &kvs, false, indexes.end - indexes.start)
        }

        fn pair(&self, index: u64) -> (Vec<u8>, Vec<u8>) {
            let mut value = Vec::new();
            self.space.write_value(index, 77, &mut value);
            (self.space.key(index), value)
        }
    }

    fn kv<'a>(key: &'a [u8], value: &'a [u8], mod_revision: u64) -> KeyValue<'a> {
        KeyValue { key, value, mod_revision, create_revision: 2, version: 1, lease: 0 }
    }

    #[test]
    fn a_wrong_get_is_caught() {
        let mut bed = Bed::new();
        let mut get = Read::new(bed.space.clone(), bed.order(), None, 1, false);
        let good = |bed: &Bed| bed.answer(bed.op.index..bed.op.index + 1, 9);
        assert_eq!(bed.begin(&mut get), Some(proto::RANGE));
        assert_eq!(bed.wrong(&mut get, &good(&bed)), 0);
        bed.begin(&mut get);
        assert_eq!(bed.wrong(&mut get, &answers::range(9, &[], false, 0)), 1, "lost");
        bed.begin(&mut get);
        assert_eq!(bed.wrong(&mut get, &bed.answer(0..1, 9)), 1, "another key");
        bed.begin(&mut get);
        let (key, mut value) = bed.pair(bed.op.index);
        value[20] ^= 1;
        let rotten = answers::range(9, &[kv(&key, &value, 4)], false, 1);
        assert_eq!(bed.wrong(&mut get, &rotten), 1, "another value");
        bed.begin(&mut get);
        assert_eq!(bed.wrong(&mut get, &bed.answer(bed.op.index..bed.op.index + 2, 9)), 1);
        bed.begin(&mut get);
        assert_eq!(bed.wrong(&mut get, &good(&bed)[..9]), 1, "malformed");
        assert_eq!(bed.wrong(&mut get, &good(&bed)), 1, "answered twice");
    }

    #[test]
    fn a_stale_linearizable_read_is_caught_and_a_serializable_one_allowed() {
        for (serializable, complaints) in [(false, 2), (true, 0)] {
            let mut bed = Bed::new();
            let mut get = Read::new(bed.space.clone(), bed.order(), None, 1, serializable);
            bed.ledger.note_revision(0, 100);
            bed.begin(&mut get);
            let answer = bed.answer(0..1, 99);
            assert_eq!(bed.wrong(&mut get, &answer), complaints, "the header and the key");
        }
    }

    #[test]
    fn a_read_may_miss_what_was_written_after_it_was_sent() {
        let mut bed = Bed::new();
        let mut get = Read::new(bed.space.clone(), bed.order(), None, 1, false);
        bed.begin(&mut get);
        bed.ledger.note_revision(0, 100);
        assert_eq!(bed.wrong(&mut get, &bed.answer(0..1, 99)), 0);
    }

    #[test]
    fn a_range_with_a_missing_key_is_caught() {
        let mut bed = Bed::new();
        let mut range = Read::new(bed.space.clone(), bed.order(), None, 5, false);
        bed.begin(&mut range);
        assert_eq!(bed.wrong(&mut range, &bed.answer(0..5, 9)), 0);
        bed.begin(&mut range);
        assert_eq!(bed.wrong(&mut range, &bed.answer(1..5, 9)), 1);
        assert_eq!(bed.tally.keys_count, 9);
    }

    #[test]
    fn puts_stop_at_their_number() {
        let mut bed = Bed::new();
        let mut put = Put::new(bed.space.clone(), bed.order(), Some(2));
        assert_eq!(bed.begin(&mut put), Some(proto::PUT));
        assert_eq!(bed.wrong(&mut put, &answers::header(3)), 0);
        assert_eq!(bed.begin(&mut put), Some(proto::PUT));
        assert_eq!(bed.wrong(&mut put, &answers::header(3)), 2, "not above, and not unique");
        assert_eq!(bed.begin(&mut put), None);
    }

    #[test]
    fn transactions_learn_and_try_again_and_lost_updates_are_caught() {
        let mut bed = Bed::new();
        let mut txn = TxnUpdate::new(bed.space.clone(), bed.order(), None);
        bed.begin(&mut txn);
        let current = bed.answer(0..1, 9);
        assert_eq!(bed.wrong(&mut txn, &answers::txn(9, false, 1, &current)), 0);
        let mut out = Vec::new();
        let (ledger, tally) = (&mut bed.ledger, &mut bed.tally);
        let context = &mut Context { ledger, tally, now_ns: 5 };
        assert_eq!(txn.handle_end(&mut bed.op, context, &mut out), Some(proto::TXN));
        assert_eq!((bed.op.base, bed.tally.retries_count), (4, 1));
        let success = |revision| answers::txn(revision, true, 2, &answers::header(revision));
        assert_eq!(bed.wrong(&mut txn, &success(10)), 0);
        // The same comparison cannot hold twice.
        bed.op = Op { index: 0, base: 4, ..Op::default() };
        assert_eq!(bed.wrong(&mut txn, &success(11)), 1);
        // A refusal that shows the very revision that was compared with.
        bed.op = Op { index: 0, base: 4, ..Op::default() };
        assert_eq!(bed.wrong(&mut txn, &answers::txn(11, false, 1, &current)), 1);
        // A success that carries the other branch's answer.
        bed.op = Op { index: 0, base: 10, ..Op::default() };
        assert_eq!(bed.wrong(&mut txn, &answers::txn(12, true, 1, &current)), 1);
    }

    #[test]
    fn a_list_goes_through_all_pages_once() {
        let mut bed = Bed::new();
        let mut list = List::new(bed.space.clone(), 4, 1, Some(1));
        let page = |bed: &Bed, indexes: std::ops::Range<u64>, more, count| {
            let pairs: Vec<_> = indexes.map(|index| bed.pair(index)).collect();
            let kvs: Vec<_> = pairs.iter().map(|(key, value)| kv(key, value, 4)).collect();
            answers::range(9, &kvs, more, count)
        };
        for (indexes, more, count) in [(0..4, true, 10), (4..8, true, 6), (8..10, false, 2)] {
            assert_eq!(bed.begin(&mut list), Some(proto::RANGE));
            let answer = page(&bed, indexes, more, count);
            assert_eq!(bed.wrong(&mut list, &answer), 0);
        }
        assert_eq!(bed.begin(&mut list), None);

        let mut list = List::new(bed.space.clone(), 4, 1, Some(1));
        bed.begin(&mut list);
        let answer = page(&bed, 0..4, false, 10);
        assert_eq!(bed.wrong(&mut list, &answer), 1, "more is missing");
        bed.begin(&mut list);
        let answer = page(&bed, 3..7, true, 6);
        assert!(bed.wrong(&mut list, &answer) > 0, "a page overlaps the one before");
    }

    #[test]
    fn an_acknowledgement_before_the_delay_is_caught() {
        let mut bed = Bed::new();
        let inner = Box::new(Put::new(bed.space.clone(), bed.order(), None));
        let mut delay = Delay { inner, delay_ns: 1, begun_ns: vec![0] };
        bed.begin(&mut delay);
        assert_eq!(bed.wrong(&mut delay, &answers::header(3)), 1);
        delay.delay_ns = 0;
        bed.begin(&mut delay);
        assert_eq!(bed.wrong(&mut delay, &answers::header(4)), 0);
    }
}
