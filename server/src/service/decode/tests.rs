//! Ours against the generated decoder, on requests and on what changed bytes leave of them.

use engine::ids::LeaseId;
use prost::Message;
use prost::bytes::Bytes;

use super::*;
use crate::service::proto::etcdserverpb as pb;
use crate::service::proto::etcdserverpb::compare::TargetUnion;
use crate::service::proto::etcdserverpb::request_op::Request;

/// Random numbers from a seed, the same on every machine.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn int(&mut self) -> i64 {
        match self.below(4) {
            0 => 0,
            1 => self.next().cast_signed(),
            2 => -1,
            _ => self.next().cast_signed() >> 50,
        }
    }

    fn bytes(&mut self) -> Bytes {
        let len = [0, 1, 5, 200][self.below(4)];
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn range(&mut self) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.bytes(),
            range_end: self.bytes(),
            limit: self.int(),
            revision: self.int(),
            sort_order: i32::try_from(self.below(5)).unwrap() - 1,
            sort_target: i32::try_from(self.below(7)).unwrap() - 1,
            serializable: self.flag(),
            keys_only: self.flag(),
            count_only: self.flag(),
            min_mod_revision: self.int(),
            max_mod_revision: self.int(),
            min_create_revision: self.int(),
            max_create_revision: self.int(),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        pb::PutRequest {
            key: self.bytes(),
            value: self.bytes(),
            lease: self.int(),
            prev_kv: self.flag(),
            ignore_value: self.flag(),
            ignore_lease: self.flag(),
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = (self.bytes(), self.bytes());
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.flag() }
    }

    fn compare(&mut self) -> pb::Compare {
        let target_union = match self.below(6) {
            0 => Some(TargetUnion::Version(self.int())),
            1 => Some(TargetUnion::CreateRevision(self.int())),
            2 => Some(TargetUnion::ModRevision(self.int())),
            3 => Some(TargetUnion::Value(self.bytes())),
            4 => Some(TargetUnion::Lease(self.int())),
            _ => None,
        };
        pb::Compare {
            result: i32::try_from(self.below(6)).unwrap() - 1,
            target: i32::try_from(self.below(7)).unwrap() - 1,
            key: self.bytes(),
            target_union,
            range_end: self.bytes(),
        }
    }

    fn ops(&mut self, depth: usize) -> Vec<pb::RequestOp> {
        let op = |draw: &mut Self| match draw.below(if depth > 0 { 5 } else { 4 }) {
            0 => None,
            1 => Some(Request::RequestRange(draw.range())),
            2 => Some(Request::RequestPut(draw.put())),
            3 => Some(Request::RequestDeleteRange(draw.delete())),
            _ => Some(Request::RequestTxn(draw.txn(depth - 1))),
        };
        (0..self.below(4)).map(|_| pb::RequestOp { request: op(self) }).collect()
    }

    fn txn(&mut self, depth: usize) -> pb::TxnRequest {
        pb::TxnRequest {
            compare: (0..self.below(3)).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }
}

fn range_of(range: &pb::RangeRequest) -> RangeRequest<'_> {
    RangeRequest {
        query: RangeQuery {
            key: &range.key,
            range_end: &range.range_end,
            limit: range.limit,
            revision: range.revision,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: range.min_mod_revision,
            max_mod_revision: range.max_mod_revision,
            min_create_revision: range.min_create_revision,
            max_create_revision: range.max_create_revision,
            ..RangeQuery::default()
        },
        sort_order: range.sort_order,
        sort_target: range.sort_target,
        serializable: range.serializable,
    }
}

fn put_of(put: &pb::PutRequest) -> PutRef<'_> {
    PutRef {
        key: &put.key,
        value: &put.value,
        lease: LeaseId(put.lease),
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

fn delete_of(delete: &pb::DeleteRangeRequest) -> DeleteRangeRef<'_> {
    let (key, range_end) = (&delete.key[..], &delete.range_end[..]);
    DeleteRangeRef { key, range_end, prev_kv: delete.prev_kv }
}

fn compare_of(compare: &pb::Compare) -> CompareRef<'_> {
    let (mut number, mut value): (i64, &[u8]) = (0, &[]);
    match (compare.target, &compare.target_union) {
        (0, Some(TargetUnion::Version(given)))
        | (1, Some(TargetUnion::CreateRevision(given)))
        | (2, Some(TargetUnion::ModRevision(given)))
        | (4, Some(TargetUnion::Lease(given))) => number = *given,
        (3, Some(TargetUnion::Value(given))) => value = given,
        _ => {}
    }
    CompareRef {
        result: compare.result,
        target: compare.target,
        key: &compare.key,
        range_end: &compare.range_end,
        number,
        value,
    }
}

fn op_of(op: &pb::RequestOp) -> RequestOp<'_> {
    match &op.request {
        None => RequestOp::Empty,
        Some(Request::RequestRange(range)) => RequestOp::Range(range_of(range)),
        Some(Request::RequestPut(put)) => RequestOp::Put(put_of(put)),
        Some(Request::RequestDeleteRange(delete)) => RequestOp::DeleteRange(delete_of(delete)),
        Some(Request::RequestTxn(txn)) => RequestOp::Txn(txn_of(txn)),
    }
}

fn txn_of(txn: &pb::TxnRequest) -> TxnRequest<'_> {
    TxnRequest {
        compares: txn.compare.iter().map(compare_of).collect(),
        success: txn.success.iter().map(op_of).collect(),
        failure: txn.failure.iter().map(op_of).collect(),
    }
}

/// Whatever the generated decoder reads, ours reads the same.
fn check_all(message: &[u8], context: &str) {
    if let Ok(put) = pb::PutRequest::decode(message) {
        assert_eq!(decode_put(message), Ok(put_of(&put)), "{context}");
    }
    if let Ok(range) = pb::RangeRequest::decode(message) {
        assert_eq!(decode_range(message), Ok(range_of(&range)), "{context}");
    }
    if let Ok(delete) = pb::DeleteRangeRequest::decode(message) {
        assert_eq!(decode_delete_range(message), Ok(delete_of(&delete)), "{context}");
    }
    if let Ok(txn) = pb::TxnRequest::decode(message) {
        assert_eq!(decode_txn(message), Ok(txn_of(&txn)), "{context}");
    }
    if let Ok(compaction) = pb::CompactionRequest::decode(message) {
        let expected =
            CompactionRequest { revision: compaction.revision, physical: compaction.physical };
        assert_eq!(decode_compaction(message), Ok(expected), "{context}");
    }
    let _ = (decode_put(message), decode_range(message), decode_delete_range(message));
    let _ = (decode_txn(message), decode_compaction(message));
}

#[test]
fn requests_are_read_as_the_generated_decoder_reads_them() {
    for seed in 0..3000 {
        let mut draw = Draw(seed);
        let mut message = match draw.below(4) {
            0 => draw.put().encode_to_vec(),
            1 => draw.range().encode_to_vec(),
            2 => draw.delete().encode_to_vec(),
            _ => draw.txn(2).encode_to_vec(),
        };
        check_all(&message, &format!("seed {seed}"));
        // Twice in a row is a message too: the later scalars win, lists go on.
        check_all(&message.repeat(2), &format!("seed {seed}, doubled"));
        for step in 0..20 {
            if message.is_empty() {
                break;
            }
            let at = draw.below(message.len());
            match draw.below(3) {
                0 => message[at] = draw.next().to_le_bytes()[0],
                1 => message.truncate(at),
                _ => message.insert(at, draw.next().to_le_bytes()[0]),
            }
            check_all(&message, &format!("seed {seed}, step {step}"));
        }
    }
}

#[test]
fn a_known_field_of_another_wire_type_is_an_unknown_field() {
    // As etcd: key as a number, then lease as bytes.
    assert_eq!(decode_put(b"\x08\x01\x1a\x01x"), Ok(PutRef::default()));
    assert_eq!(decode_txn(b"\x08\x01"), Ok(TxnRequest::default()));
}

#[test]
fn a_repeated_member_of_a_union_is_merged_and_another_replaces_it() {
    // request_put{key k}, then request_put{value v}: one put.
    let op = b"\x12\x0a\x12\x03\x0a\x01k\x12\x03\x12\x01v";
    let put = PutRef { key: b"k", value: b"v", ..PutRef::default() };
    let txn = TxnRequest { success: vec![RequestOp::Put(put)], ..TxnRequest::default() };
    assert_eq!(decode_txn(op), Ok(txn));
    // request_put{key k}, then request_range{key r}: a range.
    let op = b"\x12\x0a\x12\x03\x0a\x01k\x0a\x03\x0a\x01r";
    let decoded = decode_txn(op).unwrap();
    assert!(matches!(&decoded.success[..], [RequestOp::Range(range)] if range.query.key == b"r"));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let mut message = Vec::new();
        for _ in 0..depth {
            let txn = std::mem::take(&mut message);
            // success{request_txn{...}}
            crate::service::wire::put_nested(&mut message, 2, |out| {
                crate::service::wire::put_nested(out, 4, |out| out.extend_from_slice(&txn));
            });
        }
        message
    };
    assert!(decode_txn(&nested(TXN_DEPTH_MAX - 1)).is_ok());
    assert_eq!(decode_txn(&nested(TXN_DEPTH_MAX)), Err(TxnUnread::TooDeep));
    assert_eq!(decode_txn(&nested(20_000)), Err(TxnUnread::TooDeep));
}
