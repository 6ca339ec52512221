//! Answers byte for byte as generated code writes them.

use engine::answer::Rejection;
use engine::ids::LeaseId;
use prost::bytes::Bytes;

use super::*;
use crate::service::proto::etcdserverpb::response_op::Response;
use crate::service::proto::mvccpb;

const HEADER: Header = Header { cluster_id: 1 << 63, member_id: 7, revision: 0, raft_term: 300 };

fn record(seed: i64) -> OwnedRecord {
    let size = usize::try_from(seed * 37).unwrap();
    OwnedRecord {
        key: vec![b'k'; 1 + size],
        value: vec![b'v'; size * 5],
        create_revision: Revision(seed),
        mod_revision: Revision(seed * 1000),
        version: seed + 1,
        lease: LeaseId(-seed),
    }
}

fn message_of(record: &OwnedRecord) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: Bytes::copy_from_slice(&record.key),
        value: Bytes::copy_from_slice(&record.value),
        create_revision: record.create_revision.0,
        mod_revision: record.mod_revision.0,
        version: record.version,
        lease: record.lease.0,
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(HEADER.to_proto(revision))
}

fn inner(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

fn encoded(outcome: Outcome) -> Result<Vec<u8>, Refusal> {
    // What was in the buffer before stays.
    let mut out = b"before".to_vec();
    put_answer(&mut out, HEADER, &Answer { revision: Revision(42), outcome })?;
    assert_eq!(&out[..6], b"before");
    Ok(out.split_off(6))
}

#[test]
fn puts_are_answered_as_generated_code_would() {
    for prev in [None, Some(record(0)), Some(record(1)), Some(record(900))] {
        let prev_kv = prev.as_ref().map(message_of);
        let expected = pb::PutResponse { header: header(42), prev_kv };
        assert_eq!(encoded(Outcome::Put { prev }), Ok(expected.encode_to_vec()));
    }
}

#[test]
fn deletes_are_answered_as_generated_code_would() {
    for count in [0, 1, 5] {
        let prevs: Vec<OwnedRecord> = (0..count).map(record).collect();
        let prev_kvs = prevs.iter().map(message_of).collect();
        let expected = pb::DeleteRangeResponse { header: header(42), deleted: count, prev_kvs };
        let outcome = Outcome::DeleteRange { deleted: count, prevs };
        assert_eq!(encoded(outcome), Ok(expected.encode_to_vec()));
    }
}

#[test]
fn compactions_are_answered_with_a_header() {
    let expected = pb::CompactionResponse { header: header(42) };
    assert_eq!(encoded(Outcome::Compacted { sweep: None }), Ok(expected.encode_to_vec()));
}

#[test]
fn rejections_become_refusals() {
    let rejected = encoded(Outcome::Rejected(Rejection::Compacted));
    assert_eq!(rejected, Err(Refusal::Rejected(Rejection::Compacted)));
}

#[test]
fn transactions_are_answered_as_generated_code_would() {
    let records: Vec<OwnedRecord> = (0..4).map(record).collect();
    let revision = Revision(41);
    let nested = TxnOutcome {
        succeeded: false,
        responses: vec![
            OperationOutcome::Put { revision, prev: Some(record(3)) },
            OperationOutcome::Txn(TxnOutcome::default()),
        ],
    };
    let outcome = TxnOutcome {
        succeeded: true,
        responses: vec![
            OperationOutcome::Range { revision, records: records.clone(), count: 9, more: true },
            OperationOutcome::DeleteRange { revision, deleted: 2, prevs: records.clone() },
            OperationOutcome::Put { revision, prev: None },
            OperationOutcome::Txn(nested),
        ],
    };

    let kvs: Vec<mvccpb::KeyValue> = records.iter().map(message_of).collect();
    let op = |response| pb::ResponseOp { response: Some(response) };
    let nested = pb::TxnResponse {
        header: inner(0),
        succeeded: false,
        responses: vec![
            op(Response::ResponsePut(pb::PutResponse {
                header: inner(41),
                prev_kv: Some(message_of(&record(3))),
            })),
            op(Response::ResponseTxn(pb::TxnResponse { header: inner(0), ..<_>::default() })),
        ],
    };
    let expected = pb::TxnResponse {
        header: header(42),
        succeeded: true,
        responses: vec![
            op(Response::ResponseRange(pb::RangeResponse {
                header: inner(41),
                kvs: kvs.clone(),
                more: true,
                count: 9,
            })),
            op(Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: inner(41),
                deleted: 2,
                prev_kvs: kvs,
            })),
            op(Response::ResponsePut(pb::PutResponse { header: inner(41), prev_kv: None })),
            op(Response::ResponseTxn(nested)),
        ],
    };
    assert_eq!(encoded(Outcome::Txn(outcome)), Ok(expected.encode_to_vec()));
}

#[test]
fn a_transaction_reads_only_if_it_holds_ranges_and_nothing_else() {
    let range = |serializable| RequestOp::Range(RangeRequest { serializable, ..<_>::default() });
    let table = [
        (vec![], vec![], Some(true)),
        (vec![range(true)], vec![range(true)], Some(true)),
        (vec![range(true)], vec![range(false)], Some(false)),
        (vec![RequestOp::Txn(TxnRequest::default())], vec![], None),
        (vec![range(true)], vec![RequestOp::Put(<_>::default())], None),
        (vec![RequestOp::DeleteRange(<_>::default())], vec![], None),
    ];
    for (success, failure, expected) in table {
        let txn = TxnRequest { compares: Vec::new(), success, failure };
        assert_eq!(reads_only(&txn), expected, "{txn:?}");
    }
}
