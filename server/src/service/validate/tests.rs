//! The checks, their order, and the answers that the real etcd gave.

use engine::command::CompareRef;
use engine::ids::LeaseId;

use super::*;

fn put(key: &str) -> RequestOp<'_> {
    RequestOp::Put(PutRef { key: key.as_bytes(), ..PutRef::default() })
}

fn delete<'a>(key: &'a str, range_end: &'a str) -> RequestOp<'a> {
    let (key, range_end) = (key.as_bytes(), range_end.as_bytes());
    RequestOp::DeleteRange(DeleteRangeRef { key, range_end, prev_kv: false })
}

fn range(key: &str) -> RequestOp<'_> {
    let query = RangeQuery { key: key.as_bytes(), ..RangeQuery::default() };
    RequestOp::Range(RangeRequest { query, ..RangeRequest::default() })
}

fn nested<'a>(success: Vec<RequestOp<'a>>, failure: Vec<RequestOp<'a>>) -> RequestOp<'a> {
    RequestOp::Txn(TxnRequest { compares: Vec::new(), success, failure })
}

fn check(success: Vec<RequestOp<'_>>) -> Result<(), Refusal> {
    let txn = TxnRequest { success, ..TxnRequest::default() };
    check_txn(txn, 128).map(|_| ())
}

#[test]
fn single_requests_are_checked_in_order() {
    let put = PutRef { key: b"k", ..PutRef::default() };
    let lease = LeaseId(1);
    assert_eq!(check_put(&put), Ok(()));
    let cases = [
        (PutRef { key: b"", value: b"v", ignore_value: true, ..put }, Refusal::EmptyKey),
        (
            PutRef { value: b"v", ignore_value: true, ignore_lease: true, lease, ..put },
            Refusal::ValueProvided,
        ),
        (PutRef { lease, ignore_lease: true, ..put }, Refusal::LeaseProvided),
    ];
    for (put, refusal) in cases {
        assert_eq!(check_put(&put), Err(refusal));
    }
    let query = RangeQuery { key: b"k", ..RangeQuery::default() };
    let sorted = |sort_order, sort_target| RangeRequest {
        query,
        sort_order,
        sort_target,
        serializable: false,
    };
    assert_eq!(
        check_range(&RangeRequest { sort_order: 9, ..<_>::default() }),
        Err(Refusal::EmptyKey)
    );
    for wrong in [sorted(3, 0), sorted(-1, 0), sorted(0, 5), sorted(0, -1)] {
        assert_eq!(check_range(&wrong), Err(Refusal::InvalidSortOption));
    }
    let found = check_range(&sorted(2, 4)).unwrap();
    assert_eq!((found.sort_order, found.sort_target), (SortOrder::Descend, SortTarget::Value));
    assert_eq!(check_delete_range(&DeleteRangeRef::default()), Err(Refusal::EmptyKey));
}

#[test]
fn every_level_takes_from_the_budget_of_those_inside() {
    let ranges = |count: usize| vec![range("k"); count];
    let check = |txn: TxnRequest<'_>, ops_max| check_txn(txn, ops_max).map(|_| ());
    for field in 0..3 {
        let of = |count: usize| {
            let mut txn = TxnRequest::default();
            match field {
                0 => txn.compares = vec![CompareRef { key: b"k", ..<_>::default() }; count],
                1 => txn.success = ranges(count),
                _ => txn.failure = ranges(count),
            }
            txn
        };
        assert_eq!(check(of(3), 3), Ok(()));
        assert_eq!(check(of(4), 3), Err(Refusal::TooManyOps));
    }
    // One for the nested transaction itself, so two are left for what it holds.
    let with = |count| TxnRequest {
        success: vec![nested(ranges(count), Vec::new())],
        ..TxnRequest::default()
    };
    assert_eq!(check(with(2), 3), Ok(()));
    assert_eq!(check(with(3), 3), Err(Refusal::TooManyOps));
}

#[test]
fn counts_come_before_keys_and_keys_before_overlaps() {
    let mut txn = TxnRequest {
        compares: vec![CompareRef::default()],
        success: vec![put("k"), put("k"), RequestOp::Empty],
        failure: vec![put("")],
    };
    assert_eq!(check_txn(txn.clone(), 2).map(|_| ()), Err(Refusal::TooManyOps));
    assert_eq!(check_txn(txn.clone(), 3).map(|_| ()), Err(Refusal::EmptyKey));
    txn.compares.clear();
    assert_eq!(check_txn(txn.clone(), 3).map(|_| ()), Err(Refusal::EmptyOp));
    txn.success.pop();
    assert_eq!(check_txn(txn.clone(), 3).map(|_| ()), Err(Refusal::EmptyKey));
    txn.failure.clear();
    assert_eq!(check_txn(txn, 3).map(|_| ()), Err(Refusal::DuplicateKey));
}

#[test]
fn writes_that_overlap_are_refused_where_etcd_refuses_them() {
    let duplicate = Err(Refusal::DuplicateKey);
    let table = [
        (vec![put("a"), put("b")], Ok(())),
        (vec![put("a"), put("a")], duplicate),
        (vec![put("a"), range("a"), delete("b", "")], Ok(())),
        (vec![put("a"), delete("a", "")], duplicate),
        (vec![delete("a", ""), put("a")], duplicate),
        (vec![delete("a", "c"), put("b")], duplicate),
        (vec![delete("a", "c"), put("c")], Ok(())),
        (vec![delete("b", "c"), put("a")], Ok(())),
        (vec![delete("a", "c"), delete("b", "d"), delete("b", "")], Ok(())),
        (vec![delete("a", "c"), delete("b", "e"), put("d")], duplicate),
        (vec![delete("a", "z"), delete("b", "c"), put("d")], duplicate),
        (vec![delete("a", ""), delete("a", "b"), put("aa")], duplicate),
        // Both observed: a delete without end, or a backward one, covers nothing in this check.
        (vec![delete("a", "\0"), put("b")], Ok(())),
        (vec![delete("c", "a"), put("b")], Ok(())),
        // Nested.
        (vec![nested(vec![put("a")], vec![put("a")])], Ok(())),
        (vec![nested(vec![put("a"), put("a")], vec![])], duplicate),
        (vec![nested(vec![put("a")], vec![]), put("a")], duplicate),
        (vec![put("a"), nested(vec![], vec![put("a")])], duplicate),
        (vec![nested(vec![put("a")], vec![]), nested(vec![put("a")], vec![])], duplicate),
        (vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])], duplicate),
        (vec![nested(vec![put("a")], vec![]), delete("a", "")], duplicate),
        (vec![nested(vec![put("a")], vec![put("a")]), delete("a", "")], duplicate),
        (vec![nested(vec![delete("a", "c")], vec![]), put("b")], duplicate),
        (vec![nested(vec![delete("a", "c")], vec![]), nested(vec![put("b")], vec![])], duplicate),
        // The later sibling's delete goes unnoticed.
        (vec![nested(vec![put("b")], vec![]), nested(vec![delete("a", "c")], vec![])], Ok(())),
    ];
    for (ops, expected) in table {
        let text = format!("{ops:?}");
        assert_eq!(check(ops), expected, "{text}");
    }
}

#[test]
fn stretches_cover_what_was_inserted() {
    for seed in 0..400_u64 {
        let mut state = seed;
        let mut draw = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % bound
        };
        let keys: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![b'a' + n / 6, b'a' + n % 6]).collect();
        let mut stretches = DeleteRanges::default();
        let mut covered = vec![false; keys.len()];
        for _ in 0..=draw(8) {
            let (start, end) = (draw(40), draw(40));
            if draw(3) == 0 {
                stretches.insert(&keys[start], &[]);
                covered[start] = true;
            } else {
                stretches.insert(&keys[start], &keys[end]);
                covered[start.min(end)..end].iter_mut().for_each(|covered| *covered = true);
            }
        }
        for (key, covered) in keys.iter().zip(covered) {
            assert_eq!(stretches.contains(key), covered, "seed {seed}, key {key:?}");
        }
    }
}

#[test]
fn the_size_limit_is_where_etcds_is() {
    // Measured on etcd 3.7.1 with its default limit: with a key of one byte the longest value that
    // went through was 1572839 bytes; the member's id was 2bc21162cab8eb93.
    let sizer = RequestSizer::new(1_572_864, 0x2bc2_1162_cab8_eb93);
    let put_len = |value_len: usize| 3 + 1 + varint_len(value_len as u64) + value_len;
    assert_eq!(sizer.check(put_len(1_572_839), || None), Ok(()));
    assert_eq!(sizer.check(put_len(1_572_840), || None), Err(Refusal::RequestTooLarge));
    // A wordy encoding is measured as etcd would write it.
    assert_eq!(sizer.check(put_len(1_572_840), || Some(put_len(1_572_839))), Ok(()));
    // A member whose low bits are smaller makes shorter ids, and so room.
    let sizer = RequestSizer::new(1_572_864, 1);
    assert_eq!(sizer.check(put_len(1_572_842), || None), Ok(()));
    assert_eq!(sizer.check(put_len(1_572_843), || None), Err(Refusal::RequestTooLarge));
}
