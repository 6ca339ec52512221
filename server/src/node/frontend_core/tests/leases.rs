//! Long answers about leases are made in steps, each of them of one moment.

use engine::command::{DeleteRangeRef, LeaseGrantRef, OperationRef, TxnRef};
use engine::ids::LeaseId;

use super::*;
use crate::mail::LeaseReply;

const LEASE: LeaseId = LeaseId(7);
const KEYS: usize = 5000;

impl Bench {
    /// The keeper of the clocks answers all that it was asked.
    fn answer_leases(&mut self, answer: &LeaseReply) {
        let asked = std::mem::take(&mut self.core.ask().leases);
        let leases = asked.into_iter().map(|(slot, _)| (slot, answer.clone())).collect();
        self.core.handle_reply(&mut Reply { leases, ..<_>::default() });
    }

    /// A lease with many keys, `a00000` and following.
    fn attach(&mut self) {
        let (mut frames, mut writer) = (Vec::new(), FrameWriter::new());
        writer.push_lease_grant(&mut frames, LeaseGrantRef { id: LEASE, ttl_seconds: 100 });
        self.commit(&frames);
        for first in (0..KEYS).step_by(500) {
            frames.clear();
            for number in first..first + 500 {
                let key = format!("a{number:05}");
                let put = PutRef { key: key.as_bytes(), lease: LEASE, ..<_>::default() };
                writer.push_put(&mut frames, &put);
            }
            self.commit(&frames);
        }
    }

    /// In one revision the first key of the lease goes, and comes back as its last.
    fn turn_over(&mut self, number: usize) {
        let (old, new) = (format!("a{number:05}"), format!("z{number:05}"));
        let delete = DeleteRangeRef { key: old.as_bytes(), ..<_>::default() };
        let put = PutRef { key: new.as_bytes(), lease: LEASE, ..<_>::default() };
        let success = vec![OperationRef::DeleteRange(delete), OperationRef::Put(put)];
        let mut frames = Vec::new();
        FrameWriter::new().push_txn(&mut frames, &TxnRef { success, ..<_>::default() });
        self.commit(&frames);
    }
}

/// Each step looked at a view of its own: a key that moved meanwhile was told twice, or never.
#[test]
fn the_keys_of_a_lease_are_those_of_one_revision() {
    let mut bench = Bench::new(0, b"", ServiceLimits::default());
    let client = bench.connect();
    bench.attach();
    let first_revision = bench.store.revision().0;
    let asked = pb::LeaseTimeToLiveRequest { id: LEASE.0, keys: true };
    let streams = bench.call(client, Method::LeaseTimeToLive, &[asked; 3]);
    bench.answer_leases(&LeaseReply::TimeToLive(Some((55, 100))));
    let mut turns = 0;
    while bench.answered(client) < 3 {
        assert!(bench.core.has_work());
        bench.turn_over(turns);
        bench.settle();
        turns += 1;
        assert!(turns < 200);
    }
    assert!(turns > 10, "{turns} turns");
    for stream in streams {
        let answer: pb::LeaseTimeToLiveResponse = bench.answer(client, stream);
        assert_eq!((answer.ttl, answer.granted_ttl), (55, 100));
        let moved = usize::try_from(answer.header.unwrap().revision - first_revision).unwrap();
        let stayed = (moved..KEYS).map(|number| format!("a{number:05}"));
        let came = (0..moved).map(|number| format!("z{number:05}"));
        let expected: Vec<String> = stayed.chain(came).collect();
        assert!(answer.keys == expected, "{} keys at {moved}", answer.keys.len());
    }
    assert!(bench.core.desk.calls.is_empty());
}

/// No view is held for a client that has much to take and takes nothing.
#[test]
fn the_keys_of_a_lease_wait_for_a_client_that_takes_nothing() {
    let mut bench = Bench::new(1000, &[7; 1000], ServiceLimits::default());
    let (late, other) = (bench.connect_with_windows(0), bench.connect());
    bench.attach();
    let ranges = bench.call(late, Method::Range, &vec![range("k", "l"); 20]);
    bench.rest();
    let asked = pb::LeaseTimeToLiveRequest { id: LEASE.0, keys: true };
    let streams = bench.call(late, Method::LeaseTimeToLive, &[asked]);
    bench.answer_leases(&LeaseReply::TimeToLive(Some((55, 100))));
    bench.rest();
    assert!(bench.core.desk.hashing.is_empty());
    let others = bench.call(other, Method::LeaseTimeToLive, &[asked]);
    bench.answer_leases(&LeaseReply::TimeToLive(Some((55, 100))));
    bench.rest();
    let answer: pb::LeaseTimeToLiveResponse = bench.answer(other, others[0]);
    assert_eq!(answer.keys.len(), KEYS);
    bench.open_windows(late);
    bench.rest();
    let answer: pb::LeaseTimeToLiveResponse = bench.answer(late, streams[0]);
    assert_eq!(answer.keys.len(), KEYS);
    assert_eq!(bench.answered(late), ranges.len() + 1);
    assert!(bench.core.desk.calls.is_empty() && bench.core.desk.reading.held_bytes() == 0);
}

/// The list was sorted twice, written and copied in one turn, and what it held was counted nowhere.
#[test]
fn a_list_of_leases_takes_turns_with_other_calls_and_is_shared() {
    let mut bench = Bench::new(100, b"value", ServiceLimits::default());
    let (lister, other) = (bench.connect(), bench.connect());
    let ids: Vec<LeaseId> = (1..=50_000).map(LeaseId).collect();
    let asked = [pb::LeaseLeasesRequest {}; 2];
    let streams = bench.call(lister, Method::LeaseLeases, &asked);
    let list = Arc::new(ids);
    bench.answer_leases(&LeaseReply::List(Arc::clone(&list)));
    assert_eq!(Arc::strong_count(&list), 3);
    let mut turns = 0;
    while bench.answered(lister) < 2 {
        bench.call(other, Method::Range, &[range("k00001", "")]);
        bench.settle();
        turns += 1;
        assert_eq!(bench.answered(other), turns, "a look-up waits for no list");
        if turns == 2 {
            let held = bench.core.desk.reading.held_bytes();
            assert!(held > 2 * list.len() * size_of::<LeaseId>(), "{held} bytes");
        }
        assert!(turns < 200);
    }
    assert!(turns > 5, "100,000 leases in {turns} turns");
    for stream in streams {
        let answer: pb::LeaseLeasesResponse = bench.answer(lister, stream);
        assert!(answer.leases.iter().map(|lease| lease.id).eq(1..=50_000));
    }
    assert_eq!(Arc::strong_count(&list), 1);
    assert_eq!(bench.core.desk.reading.held_bytes(), 0);
}
