//! Draws operations: mostly sensible ones, now and then a wrong one.

use super::super::wire::etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request};
use super::draw::Draw;
use super::operation::{COMPACTED, NOW, Operation};

/// Few, so that operations meet; no more than twelve, because up to so many Go's sort is stable
/// and equal ones have one order.
const KEYS: [&str; 10] = ["a", "aa", "ab", "b", "ba", "c", "d", "e", "f", "g"];
const VALUES: [&str; 6] = ["", "1", "2", "11", "one", "a longer value that stands out of line"];
const LEASES: [i64; 5] = [1, 2, 3, 77, -4];
/// Long enough that no lease expires during a run.
const TTL_SECONDS: [i64; 3] = [50_000, 60_000, 70_000];
const TXN_DEPTH_MAX: usize = 2;

/// One operation.
pub fn operation(draw: &mut Draw) -> Operation {
    match draw.below(1000) {
        0..260 => Operation::Put(put(draw)),
        260..460 => Operation::Range(range(draw)),
        460..480 => Operation::RangeStream(range(draw)),
        480..560 => Operation::Delete(delete(draw)),
        560..850 => Operation::Txn(txn(draw, 0)),
        850..865 => Operation::Compact(compact_revision(draw), draw.percent(10)),
        865..880 => Operation::HashKv(revision(draw)),
        880..905 => Operation::LeaseGrant(lease(draw), draw.one_of(&TTL_SECONDS)),
        905..920 => Operation::LeaseRevoke(lease(draw)),
        920..935 => Operation::LeaseKeepAlive(lease(draw)),
        935..955 => Operation::LeaseTimeToLive(lease(draw), draw.percent(70)),
        955..960 => Operation::LeaseLeases,
        960..985 => Operation::Watch(watches(draw)),
        _ => Operation::WatchCancel(draw.below(5), draw.between(-1, 3)),
    }
}

fn key(draw: &mut Draw) -> Vec<u8> {
    if draw.percent(1) { Vec::new() } else { draw.one_of(&KEYS).into() }
}

fn range_end(draw: &mut Draw, single_percent: usize) -> Vec<u8> {
    if draw.percent(single_percent) {
        return Vec::new();
    }
    match draw.below(10) {
        0..3 => vec![0],
        3 => b"z".to_vec(),
        _ => draw.one_of(&KEYS).into(),
    }
}

fn lease(draw: &mut Draw) -> i64 {
    draw.one_of(&LEASES)
}

/// A revision to read at.
fn revision(draw: &mut Draw) -> i64 {
    match draw.below(20) {
        0..8 => 0,
        8..14 => NOW - draw.between(0, 30),
        14..16 => NOW,
        16 => NOW + draw.between(1, 3),
        17..19 => COMPACTED + draw.between(-2, 5),
        _ => draw.between(-2, 3),
    }
}

fn compact_revision(draw: &mut Draw) -> i64 {
    match draw.below(10) {
        0..6 => NOW - draw.between(0, 60),
        6 => NOW,
        7 => NOW + draw.between(1, 2),
        8 => COMPACTED + draw.between(-1, 3),
        _ => draw.between(-1, 1),
    }
}

fn put(draw: &mut Draw) -> pb::PutRequest {
    let ignore_value = draw.percent(6);
    let ignore_lease = draw.percent(6);
    let has_value = !ignore_value || draw.percent(5);
    let has_lease = draw.percent(12) && (!ignore_lease || draw.percent(20));
    pb::PutRequest {
        key: key(draw),
        value: if has_value { draw.one_of(&VALUES).into() } else { Vec::new() },
        lease: if has_lease { lease(draw) } else { 0 },
        prev_kv: draw.percent(30),
        ignore_value,
        ignore_lease,
    }
}

fn delete(draw: &mut Draw) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key(draw),
        range_end: range_end(draw, 70),
        prev_kv: draw.percent(50),
    }
}

/// A deletion with an end, for transactions. etcd's rule against duplicates does not see one
/// without (`range_end` "\0"), so that a transaction may delete a key and put it again in the same
/// revision. etcd 3.7.1 does not survive that: after a compaction to the revision, a read of the
/// key ends its process, as does an `ignore_value` in the put, and its hash of the revision leaves
/// the living key out. There is nothing to compare with then.
fn bounded_delete(draw: &mut Draw) -> pb::DeleteRangeRequest {
    let mut request = delete(draw);
    if request.range_end == [0] {
        request.range_end = b"z".to_vec();
    }
    request
}

fn range(draw: &mut Draw) -> pb::RangeRequest {
    let mut bound = |percent| if draw.percent(percent) { NOW - draw.between(0, 30) } else { 0 };
    let (min_mod_revision, max_mod_revision) = (bound(8), bound(8));
    let (min_create_revision, max_create_revision) = (bound(8), bound(8));
    let is_sorted = draw.percent(40);
    let mut sort = |last| {
        let number = draw.between(0, last);
        if draw.percent(1) { number + last } else { number }
    };
    let (sort_order, sort_target) = if is_sorted { (sort(2), sort(4)) } else { (0, 0) };
    let small = |number: i64| i32::try_from(number).expect("drawn below ten");
    pb::RangeRequest {
        key: key(draw),
        range_end: range_end(draw, 30),
        limit: if draw.percent(30) { draw.between(-1, 6) } else { 0 },
        revision: revision(draw),
        sort_order: small(sort_order),
        sort_target: small(sort_target),
        serializable: draw.percent(20),
        keys_only: draw.percent(15),
        count_only: draw.percent(10),
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    }
}

fn compare(draw: &mut Draw) -> pb::Compare {
    let target = draw.below(5);
    let target_union = match target {
        0 => TargetUnion::Version(draw.between(0, 3)),
        1 => TargetUnion::CreateRevision(compared_revision(draw)),
        2 => TargetUnion::ModRevision(compared_revision(draw)),
        3 => TargetUnion::Value(draw.one_of(&VALUES).into()),
        _ => TargetUnion::Lease(if draw.percent(50) { 0 } else { lease(draw) }),
    };
    // Now and then the union is not the target's, or is not there, or the target is unknown.
    let target = if draw.percent(3) { draw.below(7) } else { target };
    let number = |number: usize| i32::try_from(number).expect("drawn below ten");
    let result = if draw.percent(1) { 4 } else { number(draw.below(4)) };
    pb::Compare {
        result,
        target: number(target),
        key: key(draw),
        range_end: range_end(draw, 80),
        target_union: (!draw.percent(2)).then_some(target_union),
    }
}

fn compared_revision(draw: &mut Draw) -> i64 {
    match draw.below(4) {
        0 => 0,
        1 => NOW,
        _ => NOW - draw.between(0, 15),
    }
}

fn txn(draw: &mut Draw, depth: usize) -> pb::TxnRequest {
    let compare_count = draw.one_of(&[0, 1, 1, 1, 2, 3]);
    let ops = |draw: &mut Draw| {
        let count = draw.one_of(&[0, 1, 1, 2, 2, 3, 4]);
        (0..count).map(|_| request_op(draw, depth)).collect()
    };
    pb::TxnRequest {
        success: ops(draw),
        failure: ops(draw),
        compare: (0..compare_count).map(|_| compare(draw)).collect(),
    }
}

fn request_op(draw: &mut Draw, depth: usize) -> pb::RequestOp {
    let request = match draw.below(100) {
        0..35 => Request::RequestPut(put(draw)),
        35..65 => Request::RequestRange(range(draw)),
        65..85 => Request::RequestDeleteRange(bounded_delete(draw)),
        85..99 if depth < TXN_DEPTH_MAX => Request::RequestTxn(txn(draw, depth + 1)),
        99 => return pb::RequestOp { request: None },
        _ => Request::RequestRange(range(draw)),
    };
    pb::RequestOp { request: Some(request) }
}

fn watches(draw: &mut Draw) -> Vec<pb::WatchCreateRequest> {
    let count = draw.one_of(&[1, 1, 2, 3]);
    (0..count)
        .map(|_| pb::WatchCreateRequest {
            key: key(draw),
            range_end: range_end(draw, 40),
            start_revision: watch_revision(draw),
            progress_notify: draw.percent(10),
            filters: watch_filters(draw),
            prev_kv: draw.percent(40),
            watch_id: if draw.percent(20) { draw.between(0, 3) } else { 0 },
            fragment: draw.percent(10),
        })
        .collect()
}

fn watch_revision(draw: &mut Draw) -> i64 {
    match draw.below(10) {
        0..4 => 0,
        4..7 => NOW - draw.between(0, 40),
        7 => NOW + draw.between(1, 30),
        8 => COMPACTED + draw.between(-2, 2),
        _ => draw.between(-1, 2),
    }
}

fn watch_filters(draw: &mut Draw) -> Vec<i32> {
    if draw.percent(80) {
        return Vec::new();
    }
    (0..=draw.below(2)).map(|_| draw.one_of(&[0, 0, 1, 1, 2])).collect()
}
