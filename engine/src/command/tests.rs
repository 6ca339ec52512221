//! Golden bytes: what a log of any age holds. Cases are added, never changed.

use super::*;
use crate::alarm::AlarmKind;
use crate::range::{RangeQuery, SortOrder, SortTarget};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn frame(write: impl FnOnce(&mut FrameWriter, &mut Vec<u8>)) -> String {
    let mut frames = Vec::new();
    write(&mut FrameWriter::new(), &mut frames);
    hex(&frames)
}

fn full_put() -> PutRef<'static> {
    PutRef {
        key: b"foo",
        value: b"value",
        lease: LeaseId(0x0102_0304_0506_0708),
        prev_kv: true,
        ignore_value: false,
        ignore_lease: true,
    }
}

fn full_txn() -> TxnRef<'static> {
    let query = RangeQuery {
        key: b"a",
        range_end: b"b",
        limit: 3,
        revision: 4,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Value,
        keys_only: true,
        count_only: true,
        min_mod_revision: 5,
        max_mod_revision: 6,
        min_create_revision: 7,
        max_create_revision: 8,
    };
    let compare =
        CompareRef { result: 1, target: 3, key: b"k", range_end: b"\0", number: -2, value: b"v" };
    let delete = DeleteRangeRef { key: b"d", range_end: b"e", prev_kv: true };
    let nested = TxnRef {
        compares: vec![CompareRef::default()],
        success: vec![],
        failure: vec![OperationRef::DeleteRange(delete)],
    };
    TxnRef {
        compares: vec![compare],
        success: vec![OperationRef::Range(query), OperationRef::Txn(nested)],
        failure: vec![OperationRef::Put(full_put())],
    }
}

#[test]
fn all_kinds_are_those_that_the_disk_knows() {
    let known: Vec<CommandKind> = (0..=u8::MAX).filter_map(CommandKind::from_byte).collect();
    assert_eq!(known, CommandKind::ALL);
    assert!(known.iter().all(|kind| CommandKind::from_byte(*kind as u8) == Some(*kind)));
}

const GOLDEN_PUT: &str = "\
    250000000101666f6f76616c7565f8ffffff03000000f3ffffff050000000807060504030201010001";
const GOLDEN_DELETE_RANGE: &str = "1500000002016162feffffff01000000f7ffffff0100000001";
const GOLDEN_TXN: &str = "\
    c501000003010000000001000000000000000200000002000000030000000100000002000000030000000300\
    00000300000004000000010000000300000000000000010000000100000002000000feffffffffffffff0200\
    0000030000000000000000000000050000000500000005000000050000000000000000000000050000000500\
    0000000300000004000000040000000500000003000000000000000400000000000000020401010500000000\
    0000000600000000000000070000000000000008000000000000000301000000000000000000000000000000\
    0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    0000000000000000010500000008000000080000000d00000008070605040302010100010000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000020d0000000e0000000e00\
    00000f0000000100000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000006b00766162666f6f76616c756564655dfeffff0200000085feffff020000\
    00cdfeffff04000000d9ffffff0f000000";
const GOLDEN_COMPACT: &str = "0b0000000401050000000000000001";
const GOLDEN_MEMBER_PUBLISH: &str = "\
    5a00000005016e696e65687474703a2f2f613a31687474703a2f2f612d6c6f6e6765722d6e616d652d746861\
    6e2d696e6c696e653a328a000000d4ffffffa2000000d6ffffff0900000000000000b8ffffff04000000e0ff\
    ffff02000000";
const GOLDEN_LEASE_GRANT: &str = "12000000070108070605040302013c00000000000000";
const GOLDEN_LEASE_REVOKE: &str = "120000000801ffffffffffffffff0900000000000000";
const GOLDEN_LEASE_CHECKPOINT: &str = "\
    3200000009010100000000000000feffffffffffffff00000000000000001e00000000000000e0ffffff0200\
    0000e8ffffff02000000";
const GOLDEN_CLUSTER_VERSION_SET: &str = "0f0000000601332e372e30fbffffff05000000";

const GOLDEN_ALARM: &str = "0f0000000a01030807060504030201feffffff";
const GOLDEN_DOWNGRADE: &str = "100000000b01332e362e3001faffffff05000000";

#[test]
fn frames_of_alarms_and_downgrades_have_golden_bytes() {
    let alarm = Alarm { kind: AlarmKind(-2), member: MemberId(0x0102_0304_0506_0708) };
    let change = AlarmRef { action: AlarmAction::RaiseForQuota, alarm };
    assert_eq!(frame(|writer, out| writer.push_alarm(out, change)), GOLDEN_ALARM);
    assert_eq!(frame(|writer, out| writer.push_downgrade(out, Some("3.6.0"))), GOLDEN_DOWNGRADE);
    let mut frames = Vec::new();
    let mut writer = FrameWriter::new();
    writer.push_alarm(&mut frames, change);
    let action = FRAME_HEADER_SIZE_BYTES;
    assert_eq!(frames[action], AlarmAction::RaiseForQuota as u8);
    let mut unknown = frames.clone();
    unknown[action] = 4;
    let refused = Batch::validate(batch_of(&unknown, 1)).unwrap_err();
    assert_eq!(refused, CommandError::Malformed { index: 0, kind: CommandKind::Alarm });
    writer.push_downgrade(&mut frames, Some("3.6.0"));
    writer.push_downgrade(&mut frames, None);
    let batch = Batch::validate(batch_of(&frames, 3)).unwrap();
    assert!(matches!(batch.command(0), Command::Alarm(read) if read == change));
    let target = |index| match batch.command(index) {
        Command::Downgrade(body) => body.target().map(str::to_owned),
        _ => panic!("another kind"),
    };
    assert_eq!((target(1).as_deref(), target(2)), (Some("3.6.0"), None));
}

const GOLDEN_MEMBER_ADD: &str = "\
    530000000c01687474703a2f2f613a31687474703a2f2f612d6c6f6e6765722d6e616d652d7468616e2d696e\
    6c696e653a328a000000d4ffffffa2000000d6ffffff0807060504030201e8ffffff020000000103000000";
const GOLDEN_MEMBER_REMOVE: &str = "0a0000000d010807060504030201";
const GOLDEN_MEMBER_PROMOTE: &str = "0a0000000e010807060504030201";
const GOLDEN_MEMBER_UPDATE: &str = "\
    4e0000000f01687474703a2f2f613a31687474703a2f2f612d6c6f6e6765722d6e616d652d7468616e2d696e\
    6c696e653a328a000000d4ffffffa2000000d6ffffff0807060504030201e8ffffff02000000";
/// What the store keeps of a member; no frame.
const GOLDEN_PEER: &str = "\
    687474703a2f2f613a31687474703a2f2f612d6c6f6e6765722d6e616d652d7468616e2d696e6c696e653a32\
    8a000000d4ffffffa2000000d6ffffff0807060504030201e8ffffff0200000001";

#[test]
fn frames_of_members_have_golden_bytes() {
    let urls = ["http://a:1".to_owned(), "http://a-longer-name-than-inline:2".to_owned()];
    let id = MemberId(0x0102_0304_0506_0708);
    let add = MemberAddRef { id, peer_urls: &urls, is_learner: true, learners_max: 3 };
    let update = MemberUpdateRef { id, peer_urls: &urls };
    assert_eq!(frame(|writer, out| writer.push_member_add(out, &add)), GOLDEN_MEMBER_ADD);
    assert_eq!(frame(|writer, out| writer.push_member_remove(out, id)), GOLDEN_MEMBER_REMOVE);
    assert_eq!(frame(|writer, out| writer.push_member_promote(out, id)), GOLDEN_MEMBER_PROMOTE);
    assert_eq!(frame(|writer, out| writer.push_member_update(out, &update)), GOLDEN_MEMBER_UPDATE);
    let peer = crate::membership::Peer { id, peer_urls: urls.to_vec(), is_learner: true };
    assert_eq!(hex(&peer_to_bytes(&peer)), GOLDEN_PEER);
    assert_eq!(peer_from_bytes(&peer_to_bytes(&peer)), Some(peer.clone()));
    assert_eq!(peer_from_bytes(&peer_to_bytes(&peer)[1..]), None);
    let mut frames = Vec::new();
    let mut writer = FrameWriter::new();
    writer.push_member_add(&mut frames, &add);
    writer.push_member_remove(&mut frames, id);
    writer.push_member_promote(&mut frames, id);
    writer.push_member_update(&mut frames, &update);
    let batch = Batch::validate(batch_of(&frames, 4)).unwrap();
    assert_eq!(batch.membership_change(), None, "several");
    let Command::MemberAdd(read) = batch.command(0) else { panic!("another kind") };
    assert_eq!((read.to_peer(), read.learners_max.to_native()), (peer, 3));
    assert!(matches!(batch.command(1), Command::MemberRemove(read) if read.id() == id));
    assert!(matches!(batch.command(2), Command::MemberPromote(read) if read.id() == id));
    let Command::MemberUpdate(read) = batch.command(3) else { panic!("another kind") };
    assert_eq!((read.id(), read.peer_urls()), (id, urls.to_vec()));
    frames.clear();
    writer.push_member_remove(&mut frames, id);
    let batch = Batch::validate(batch_of(&frames, 1)).unwrap();
    assert_eq!(batch.membership_change(), Some(MembershipChange::Remove(id)));
}

fn full_checkpoint() -> [LeaseRemaining; 2] {
    let second = LeaseRemaining { id: LeaseId(-2), remaining_seconds: 30 };
    [LeaseRemaining { id: LeaseId(1), remaining_seconds: 0 }, second]
}

#[test]
fn frames_of_leases_have_golden_bytes() {
    let grant = LeaseGrantRef { id: LeaseId(0x0102_0304_0506_0708), ttl_seconds: 60 };
    let revoke = LeaseRevokeRef { id: LeaseId(-1), expired_in: Some(Term(9)) };
    assert_eq!(frame(|writer, out| writer.push_lease_grant(out, grant)), GOLDEN_LEASE_GRANT);
    assert_eq!(frame(|writer, out| writer.push_lease_revoke(out, revoke)), GOLDEN_LEASE_REVOKE);
    assert_eq!(
        frame(|writer, out| writer.push_lease_checkpoint(out, &full_checkpoint())),
        GOLDEN_LEASE_CHECKPOINT
    );
    let mut frames = Vec::new();
    let mut writer = FrameWriter::new();
    writer.push_lease_grant(&mut frames, grant);
    writer.push_lease_revoke(&mut frames, revoke);
    writer.push_lease_revoke(&mut frames, LeaseRevokeRef { expired_in: None, ..revoke });
    writer.push_lease_checkpoint(&mut frames, &full_checkpoint());
    let batch = Batch::validate(batch_of(&frames, 4)).unwrap();
    assert!(matches!(batch.command(0), Command::LeaseGrant(read) if read == grant));
    assert!(matches!(batch.command(1), Command::LeaseRevoke(read) if read == revoke));
    assert!(matches!(batch.command(2), Command::LeaseRevoke(read) if read.expired_in.is_none()));
    let Command::LeaseCheckpoint(checkpoint) = batch.command(3) else { panic!("another kind") };
    assert!(checkpoint.leases().eq(full_checkpoint()));
}

#[test]
fn frames_have_golden_bytes() {
    let urls = ["http://a:1".to_owned(), "http://a-longer-name-than-inline:2".to_owned()];
    let member = MemberPublishRef { id: MemberId(9), name: "nine", client_urls: &urls };
    let delete = DeleteRangeRef { key: b"a", range_end: b"b", prev_kv: true };
    let compact = CompactRef { revision: Revision(5), physical: true };
    assert_eq!(frame(|writer, out| writer.push_put(out, &full_put())), GOLDEN_PUT);
    assert_eq!(frame(|writer, out| writer.push_delete_range(out, &delete)), GOLDEN_DELETE_RANGE);
    assert_eq!(frame(|writer, out| writer.push_txn(out, &full_txn())), GOLDEN_TXN);
    assert_eq!(frame(|writer, out| writer.push_compact(out, compact)), GOLDEN_COMPACT);
    assert_eq!(
        frame(|writer, out| writer.push_member_publish(out, &member)),
        GOLDEN_MEMBER_PUBLISH
    );
    assert_eq!(
        frame(|writer, out| writer.push_cluster_version_set(out, "3.7.0")),
        GOLDEN_CLUSTER_VERSION_SET
    );
}

fn batch_of(frames: &[u8], frame_count: u32) -> Vec<u8> {
    let header = BatchHeader {
        member: MemberId(0x1112_1314_1516_1718),
        boot_nonce: 0x2122_2324_2526_2728,
        sequence_first: 0x3132_3334_3536_3738,
        frame_count,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(frames);
    bytes
}

#[test]
fn the_header_has_golden_bytes() {
    let bytes = batch_of(&[], 0x0102_0304);
    assert_eq!(hex(&bytes), "0100000004030201181716151413121128272625242322213837363534333231");
    assert_eq!(BatchHeader::from_bytes(&bytes).unwrap().to_bytes(), bytes[..]);
}

#[test]
fn what_was_written_is_read() {
    let mut frames = Vec::new();
    let mut writer = FrameWriter::new();
    writer.push_put(&mut frames, &full_put());
    writer.push_txn(&mut frames, &full_txn());
    assert_eq!(frame_count(&frames), Ok(2));
    let batch = Batch::validate(batch_of(&frames, 2)).unwrap();
    assert_eq!(
        (batch.len(), batch.kind(0), batch.kind(1)),
        (2, CommandKind::Put, CommandKind::Txn)
    );
    let Command::Put(put) = batch.command(0) else { panic!("another kind") };
    assert_eq!(put.as_ref(), full_put());
    let Command::Txn(table) = batch.command(1) else { panic!("another kind") };
    assert_eq!(read_txn(table, 0), full_txn());
}

/// The nested form of a table.
fn read_txn<'a>(table: TxnTable<'a>, node: usize) -> TxnRef<'a> {
    let operation = |position| match table.operation(position) {
        Operation::Range(range) => OperationRef::Range(range),
        Operation::Put(put) => OperationRef::Put(put),
        Operation::DeleteRange(delete) => OperationRef::DeleteRange(delete),
        Operation::Txn(child) => OperationRef::Txn(read_txn(table, child)),
    };
    TxnRef {
        compares: table.compares(node).map(|position| table.compare(position)).collect(),
        success: table.branch(node, true).map(operation).collect(),
        failure: table.branch(node, false).map(operation).collect(),
    }
}

#[test]
fn what_is_unknown_is_named() {
    let mut frames = Vec::new();
    FrameWriter::new().push_put(&mut frames, &full_put());
    let good = batch_of(&frames, 1);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Batch::validate(bytes).unwrap_err()
    };
    assert_eq!(with(0, 9), CommandError::UnknownFormat { version: 9 });
    assert_eq!(with(2, 1), CommandError::HeaderReserved);
    assert_eq!(with(4, 2), CommandError::FrameCount { expected: 2, found: 1 });
    assert_eq!(with(36, 99), CommandError::UnknownKind { index: 0, kind: 99 });
    let version = CommandError::UnknownVersion { index: 0, kind: CommandKind::Put, version: 2 };
    assert_eq!(with(37, 2), version);
    let last = good.len() - 1;
    assert_eq!(with(last, 7), CommandError::Malformed { index: 0, kind: CommandKind::Put });
    for cut in 0..good.len() {
        assert!(Batch::validate(&good[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(
        Batch::validate(&good[..20]).unwrap_err(),
        CommandError::BatchTooShort { size_bytes: 20 }
    );
}

#[test]
fn a_table_that_is_no_tree_is_refused() {
    let mut frames = Vec::new();
    FrameWriter::new().push_txn(&mut frames, &full_txn());
    let body = &frames[FRAME_HEADER_SIZE_BYTES..];
    assert!(TxnTable::is_sound(body));
    let mut refused = 0;
    for at in 0..body.len() {
        for byte in [0, 1, 2, 0x7f, 0xff] {
            let mut bytes = body.to_vec();
            bytes[at] = byte;
            if !TxnTable::is_sound(&bytes) {
                refused += 1;
                continue;
            }
            // Whatever passes can be walked to its end.
            let txn = read_txn(TxnTable::access(&bytes), 0);
            assert!(txn.success.len() + txn.failure.len() <= 4);
        }
    }
    assert!(refused > 100, "{refused} refusals say nothing");
}

#[test]
fn deletes_and_compactions_free_space_and_nothing_else_does() {
    let mut writer = FrameWriter::new();
    let mut frames = Vec::new();
    writer.push_put(&mut frames, &PutRef { key: b"k", ..PutRef::default() });
    assert!(!frees_space(&frames));
    frames.clear();
    writer.push_delete_range(&mut frames, &DeleteRangeRef { key: b"k", ..Default::default() });
    assert!(frees_space(&frames));
    frames.clear();
    writer.push_compact(&mut frames, CompactRef { revision: Revision(2), physical: false });
    assert!(frees_space(&frames));
    assert!(!frees_space(&[]));
}
