//! Pairs as etcd has them, there and back.

use super::*;

#[test]
fn buckets_are_in_the_order_of_their_names() {
    assert!(BUCKETS.is_sorted());
}

#[test]
fn revisions_are_17_bytes_and_tombstones_18() {
    let change = Change { main: Revision(0x0102), sub: 3 };
    let put = RevisionKey { change, is_tombstone: false };
    let bytes = b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t";
    assert_eq!(put.to_bytes()[..put.size_bytes()], bytes[..17]);
    let tombstone = RevisionKey { change, is_tombstone: true };
    assert_eq!(tombstone.to_bytes()[..tombstone.size_bytes()], bytes[..]);
    assert_eq!(RevisionKey::from_bytes(&bytes[..17]), Ok(put));
    assert_eq!(RevisionKey::from_bytes(bytes), Ok(tombstone));
    for (at, byte) in [(0, 0x80), (8, b'-'), (9, 0x80), (17, b'u')] {
        let mut bad = *bytes;
        bad[at] = byte;
        let error = RevisionKey::from_bytes(&bad).unwrap_err();
        assert_eq!(error.rule, SchemaRule::KeyRevision, "byte {at}");
    }
    assert!(RevisionKey::from_bytes(&bytes[..16]).is_err());
}

#[test]
fn records_come_back_and_are_as_long_as_measured() {
    let numbers = [0, 1, 127, 128, i64::MAX, -1];
    for (index, number) in numbers.into_iter().enumerate() {
        let value = vec![7; [0, 1, 127, 128, 70_000, 3][index]];
        let record = Record {
            key: b"foo",
            value: &value,
            create_revision: Revision(number),
            mod_revision: Revision(300),
            version: number,
            lease: LeaseId(number),
        };
        let mut out = Vec::new();
        record_into(&record, &mut out);
        assert_eq!(out.len(), record_len(&record, value.len()));
        assert_eq!(record_from(b"", &out), Ok(record));
    }
    assert_eq!(record_from(b"", b""), Ok(Record::default()), "what a restore adds");
    let error = record_from(b"k", b"\x0a\x05a").unwrap_err().to_string();
    assert_eq!(error, "bucket key, key k: the value is not the message it should be");
}

/// The formats are frozen: bytes by hand, from the definitions of the messages.
#[test]
fn small_buckets_are_as_etcd_writes_them() {
    let lease = Lease { id: LeaseId(0x1234), ttl_seconds: 60, remaining_ttl_seconds: 0 }.to_pair();
    assert_eq!(lease.0, b"\0\0\0\0\0\0\x12\x34");
    assert_eq!(lease.1, b"\x08\xb4\x24\x10\x3c");
    let alarm = Alarm { member: MemberId(300), kind: AlarmKind::NoSpace };
    assert_eq!(alarm.to_pair(), (b"\x08\xac\x02\x10\x01".to_vec(), vec![]));
    let member = Member {
        id: MemberId(0xfe9d),
        peer_urls: vec!["http://a?b&c".to_owned()],
        is_learner: false,
        name: "m".to_owned(),
        client_urls: vec![],
    };
    let (key, value) = member.to_pair();
    assert_eq!(key, b"fe9d");
    let text = r#"{"id":65181,"peerURLs":["http://a?b\u0026c"],"name":"m"}"#;
    assert_eq!(value, text.as_bytes());
}

#[test]
fn what_is_written_is_read() {
    let lease = Lease { id: LeaseId(-5), ttl_seconds: i64::MAX, remaining_ttl_seconds: 3 };
    let (key, value) = lease.to_pair();
    assert_eq!(Lease::from_pair(&key, &value), Ok(lease));
    for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
        let alarm = Alarm { member: MemberId(u64::MAX), kind };
        let (key, value) = alarm.to_pair();
        assert_eq!(Alarm::from_pair(&key, &value), Ok(alarm));
    }
    for is_learner in [false, true] {
        let member = Member {
            id: MemberId(7),
            peer_urls: vec!["http://a".to_owned(), "http://b".to_owned()],
            is_learner,
            name: "\"n\"".to_owned(),
            client_urls: vec!["http://c".to_owned()],
        };
        let (key, value) = member.to_pair();
        assert_eq!(Member::from_pair(&key, &value), Ok(member));
    }
    for no_password in [None, Some(false), Some(true)] {
        let roles = vec!["r".to_owned(), String::new()];
        let user = User { name: b"u".to_vec(), password_hash: vec![1], roles, no_password };
        let (key, value) = user.to_pair();
        assert_eq!(User::from_pair(&key, &value), Ok(user));
    }
    let kinds = [PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite];
    let permissions = kinds.map(|kind| Permission { kind, key: vec![1], range_end: vec![0] });
    let role = Role { name: b"r".to_vec(), permissions: permissions.to_vec() };
    let (key, value) = role.to_pair();
    assert_eq!(Role::from_pair(&key, &value), Ok(role));
}

#[test]
fn buckets_of_single_facts_come_back() {
    let meta = Meta {
        consistent_index: Some(LogIndex(5)),
        term: Some(Term(6)),
        conf_state: Some(ConfState {
            voters: vec![MemberId(1), MemberId(u64::MAX)],
            learners: vec![MemberId(3)],
            voters_outgoing: vec![MemberId(4)],
            learners_next: vec![MemberId(5)],
            auto_leave: Some(true),
        }),
        compact_scheduled: Some(Revision(8)),
        compact_finished: Some(Revision(7)),
        storage_version: Some("3.7.0".to_owned()),
    };
    for whole in [meta, Meta::default()] {
        let mut read = Meta::default();
        for (key, value) in whole.to_pairs() {
            read.read_pair(&key, &value).unwrap();
        }
        assert_eq!(read, whole);
    }
    let downgrade = Downgrade { target_version: "3.6.0".to_owned(), enabled: true };
    let whole = Cluster { version: Some("3.7.0".to_owned()), downgrade: Some(downgrade) };
    let mut read = Cluster::default();
    for (key, value) in whole.to_pairs() {
        read.read_pair(&key, &value).unwrap();
    }
    assert_eq!(read, whole);
    let whole = Auth { enabled: Some(true), revision: Some(9) };
    let mut read = Auth::default();
    for (key, value) in whole.to_pairs() {
        read.read_pair(&key, &value).unwrap();
    }
    assert_eq!(read, whole);
}

#[test]
fn what_makes_no_sense_is_named() {
    let rule = |result: Result<(), SchemaError>| result.unwrap_err().rule;
    let lease = |key: &[u8], value: &[u8]| Lease::from_pair(key, value).map(|_| ());
    assert_eq!(rule(lease(b"1234567", b"")), SchemaRule::KeyId);
    assert_eq!(rule(lease(b"12345678", b"")), SchemaRule::ValueOfAnother);
    assert_eq!(rule(lease(b"12345678", b"\x08")), SchemaRule::ValueProtobuf);
    let alarm = |key: &[u8], value: &[u8]| Alarm::from_pair(key, value).map(|_| ());
    assert_eq!(rule(alarm(b"\x08\x01", b"")), SchemaRule::KeyAlarm);
    assert_eq!(rule(alarm(b"\x10\x03", b"")), SchemaRule::KeyAlarm);
    assert_eq!(rule(alarm(b"\x10\x01", b"x")), SchemaRule::ValueLength);
    let member = |key: &[u8], value: &[u8]| Member::from_pair(key, value).map(|_| ());
    assert_eq!(rule(member(b"+1", b"{}")), SchemaRule::KeyId);
    assert_eq!(rule(member(b"1", b"[]")), SchemaRule::ValueJson);
    assert_eq!(rule(member(b"1", b"{\"id\":2}")), SchemaRule::ValueOfAnother);
    assert_eq!(rule(member(b"1", b"{\"id\":\"1\"}")), SchemaRule::ValueJson);
    let user = |key: &[u8], value: &[u8]| User::from_pair(key, value).map(|_| ());
    assert_eq!(rule(user(b"a", b"\x0a\x01b")), SchemaRule::ValueOfAnother);
    let role = |key: &[u8], value: &[u8]| Role::from_pair(key, value).map(|_| ());
    assert_eq!(rule(role(b"a", b"\x0a\x01a\x12\x02\x08\x07")), SchemaRule::ValueProtobuf);
    let meta = |key: &[u8], value: &[u8]| Meta::default().read_pair(key, value);
    assert_eq!(rule(meta(META_TERM, b"7")), SchemaRule::ValueLength);
    assert_eq!(rule(meta(META_COMPACT_FINISHED, b"7")), SchemaRule::ValueLength);
    assert_eq!(rule(meta(META_STORAGE_VERSION, b"\xff")), SchemaRule::ValueText);
    assert_eq!(meta(b"another", b"7"), Ok(()));
}

/// Pairs of every kind with a few bytes changed: understood or refused, never a panic, and what is
/// understood is written so that it is understood as the same.
#[test]
fn damaged_pairs_are_understood_or_refused() {
    let text = || "http://a".to_owned();
    let member = Member {
        id: MemberId(7),
        peer_urls: vec![text(), text()],
        is_learner: true,
        name: text(),
        client_urls: vec![text()],
    };
    let user = User {
        name: b"u".to_vec(),
        password_hash: vec![1],
        roles: vec![text()],
        no_password: Some(true),
    };
    let permission =
        Permission { kind: PermissionKind::ReadWrite, key: vec![1], range_end: vec![0] };
    let role = Role { name: b"r".to_vec(), permissions: vec![permission] };
    let lease = Lease { id: LeaseId(300), ttl_seconds: 60, remaining_ttl_seconds: 300 };
    let alarm = Alarm { member: MemberId(300), kind: AlarmKind::Corrupt };
    let good = [member.to_pair(), user.to_pair(), role.to_pair(), lease.to_pair(), alarm.to_pair()];
    let (mut understood, mut refused, mut state) = (0, 0, 1_u64);
    let mut below = |end: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % end as u64).unwrap()
    };
    for round in 0..20_000 {
        let (mut key, mut value) = good[round % good.len()].clone();
        for _ in 0..=below(3) {
            let bytes = if value.is_empty() || below(4) == 0 { &mut key } else { &mut value };
            if below(6) == 0 {
                bytes.truncate(below(bytes.len() + 1));
            } else if !bytes.is_empty() {
                let at = below(bytes.len());
                bytes[at] = below(256).to_le_bytes()[0];
            }
        }
        let read = |(key, value): &Pair| match round % good.len() {
            0 => Member::from_pair(key, value).map(|member| member.to_pair()),
            1 => User::from_pair(key, value).map(|user| user.to_pair()),
            2 => Role::from_pair(key, value).map(|role| role.to_pair()),
            3 => Lease::from_pair(key, value).map(Lease::to_pair),
            _ => Alarm::from_pair(key, value).map(Alarm::to_pair),
        };
        if let Ok(again) = read(&(key, value)) {
            assert_eq!(read(&again), Ok(again.clone()), "round {round}");
            understood += 1;
        } else {
            refused += 1;
        }
    }
    assert!(understood > 1000 && refused > 5000, "{understood} understood, {refused} refused");
}
