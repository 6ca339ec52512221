//! Golden bytes: what members of other versions send and read. Cases are added, never changed.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn change() -> Change {
    Change { main: Revision(5), sub: 2 }
}

fn begin() -> TransferRecord<'static> {
    TransferRecord::Begin {
        version: 1,
        applied: LogIndex(0x0102_0304_0506_0708),
        term: Term(9),
        revision: Revision(300),
        compacted: Revision(-1),
    }
}

fn attributes() -> TransferRecord<'static> {
    TransferRecord::Attributes(MemberAttributes {
        id: MemberId(9),
        name: "nine".to_owned(),
        client_urls: vec!["http://a:1".to_owned(), String::new()],
    })
}

fn peer() -> TransferRecord<'static> {
    let peer_urls = vec!["http://b:2".to_owned()];
    TransferRecord::Peer(Peer { id: MemberId(9), peer_urls, is_learner: true })
}

fn put() -> TransferRecord<'static> {
    TransferRecord::Put(PutRecord {
        change: change(),
        create_revision: Revision(4),
        version: 2,
        lease: LeaseId(-3),
        is_attached: true,
        key: b"key",
        value: b"value",
    })
}

/// One of each kind, and its bytes.
fn golden() -> Vec<(TransferRecord<'static>, &'static str)> {
    vec![
        (begin(), "23000000010100080706050403020109000000000000002c01000000000000ffffffffffffffff"),
        (
            TransferRecord::CompactionHash(KeyValueHash {
                hash: 0xdead_beef,
                revision: Revision(7),
                compacted: Revision(-1),
                current: Revision(9),
            }),
            "1d00000002efbeadde0700000000000000ffffffffffffffff0900000000000000",
        ),
        (
            TransferRecord::Alarm(Alarm { kind: AlarmKind(-2), member: MemberId(3) }),
            "0d00000003feffffff0300000000000000",
        ),
        (TransferRecord::ClusterVersion("3.7.0"), "0600000004332e372e30"),
        (TransferRecord::Downgrade("3.6.0"), "0600000005332e362e30"),
        (
            TransferRecord::Carried { name: b"auth/x", value: b"\x00\x01" },
            "0d0000000606000000617574682f780001",
        ),
        (
            TransferRecord::Lease(Lease { id: LeaseId(-1), ttl_seconds: 60, remaining_seconds: 7 }),
            "1900000007ffffffffffffffff3c000000000000000700000000000000",
        ),
        (
            attributes(),
            "23000000080900000000000000040000006e696e650a000000687474703a2f2f613a3100000000",
        ),
        (peer(), "18000000090900000000000000010a000000687474703a2f2f623a32"),
        (TransferRecord::Removed(MemberId(0xff)), "090000000aff00000000000000"),
        (
            put(),
            "\
             360000000b0500000000000000020000000000000004000000000000000200000000000000fdffff\
             ffffffffff01030000006b657976616c7565",
        ),
        (
            TransferRecord::Delete { change: change(), key: b"gone" },
            "150000000c05000000000000000200000000000000676f6e65",
        ),
        (
            TransferRecord::End { changes: 2, crc: 0x0102_0304 },
            "0d0000000d020000000000000004030201",
        ),
    ]
}

#[test]
fn records_have_golden_bytes() {
    let mut kinds = Vec::new();
    for (record, bytes) in golden() {
        let mut out = Vec::new();
        record.encode_into(&mut out);
        assert_eq!(hex(&out), bytes, "{record:?}");
        kinds.push(out[4]);
    }
    assert!(kinds.iter().copied().eq(kind::BEGIN..=kind::END), "one of each: {kinds:?}");
}

#[test]
fn what_was_written_is_read_and_no_part_of_it_is() {
    for (record, _) in golden() {
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(TransferRecord::decode(&bytes[..cut]), Ok(None), "{record:?}");
        }
        let size_bytes = bytes.len();
        bytes.extend_from_slice(b"more");
        assert_eq!(TransferRecord::decode(&bytes), Ok(Some((record, size_bytes))));
    }
}

#[test]
fn what_is_no_record_is_refused_by_rule() {
    assert_eq!(TransferRecord::decode(&[0; 4]), Err(InstallRule::RecordSize));
    assert_eq!(TransferRecord::decode(&[0xff; 4]), Err(InstallRule::RecordSize));
    for kind in [0, 14, 0xff] {
        let bytes = [1, 0, 0, 0, kind];
        assert_eq!(TransferRecord::decode(&bytes), Err(InstallRule::RecordKind(kind)));
    }
    let mut refused = 0;
    for (record, _) in golden() {
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        // Longer and shorter than it says, and with every byte another.
        for length in 1..bytes.len() + 3 {
            let mut bytes = bytes.clone();
            bytes[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            bytes.resize(length + 4, 0x80);
            refused += usize::from(TransferRecord::decode(&bytes).is_err());
        }
        for at in 4..bytes.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = byte;
                match TransferRecord::decode(&bytes) {
                    Ok(Some((record, size_bytes))) => {
                        // Whatever it is, it is written as it was read.
                        let mut again = Vec::new();
                        record.encode_into(&mut again);
                        assert_eq!((again, size_bytes), (bytes.clone(), bytes.len()));
                    }
                    Ok(None) => panic!("{bytes:?} is whole"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 300, "{refused} refusals say little");
}

#[test]
fn random_bytes_are_read_or_refused() {
    let mut state = 1_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let mut read = 0;
    for _ in 0..20_000 {
        let length = u32::from(byte()) % 90 + 1;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.push(byte() % 16);
        bytes.extend((1..length).map(|_| if byte() % 2 == 0 { 0 } else { byte() % 8 }));
        read += usize::from(matches!(TransferRecord::decode(&bytes), Ok(Some(_))));
    }
    assert!(read > 100, "{read} records say little");
}
