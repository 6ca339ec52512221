//! Keep-alive streams, ids and answers, without a log core.

use engine::ids::Revision;
use prost::Message;

use super::keep_alive::{KeepAlives, Outcome, PENDING_MAX};
use super::*;
use crate::mail::{LeaseAsk, Renewed, Slot};
use crate::service::proto::etcdserverpb as pb;
use crate::service::test_store::TestStore;

const HEADER: Header = Header { cluster_id: 5, member_id: 7, revision: 0, raft_term: 3 };

fn request(id: i64) -> Vec<u8> {
    pb::LeaseKeepAliveRequest { id }.encode_to_vec()
}

fn lives(sequence: u64, ttl_seconds: i64) -> (u64, Renewed) {
    (sequence, Renewed::Lives { ttl_seconds })
}

/// Hands an answer in; what is sent comes back decoded, with what becomes of the call.
fn reply(
    hub: &mut KeepAlives<u32>,
    slot: Slot,
    renewed: (u64, Renewed),
) -> (Vec<pb::LeaseKeepAliveResponse>, Option<(u32, Outcome)>) {
    let mut sent = Vec::new();
    let outcome = hub.handle_reply(slot, renewed, HEADER, |_, write| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        sent.push(pb::LeaseKeepAliveResponse::decode(&bytes[..]).unwrap());
    });
    (sent, outcome)
}

fn ask(hub: &mut KeepAlives<u32>, place: u32, id: i64, revision: i64) -> (Slot, LeaseAsk) {
    hub.handle_message(place, &request(id), Revision(revision)).unwrap().unwrap()
}

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let mut hub = KeepAlives::default();
    hub.open(1);
    let (slot, first) = ask(&mut hub, 1, 10, 100);
    assert_eq!(first, LeaseAsk::Renew { id: LeaseId(10), sequence: 0 });
    let (_, second) = ask(&mut hub, 1, 20, 101);
    assert_eq!(second, LeaseAsk::Renew { id: LeaseId(20), sequence: 1 });
    let (sent, _) = reply(&mut hub, slot, lives(1, 60));
    assert!(sent.is_empty(), "the first is not answered yet");
    let (sent, outcome) = reply(&mut hub, slot, lives(0, 0));
    assert_eq!(outcome, Some((1, Outcome::Waits)));
    let seen: Vec<_> = sent
        .iter()
        .map(|answer| (answer.id, answer.ttl, answer.header.as_ref().unwrap().revision))
        .collect();
    assert_eq!(seen, [(10, 0, 100), (20, 60, 101)]);
}

#[test]
fn a_half_closed_stream_ends_when_all_is_answered() {
    let mut hub = KeepAlives::default();
    hub.open(1);
    let (slot, _) = ask(&mut hub, 1, 10, 100);
    assert_eq!(hub.handle_half_closed(1), Outcome::Waits);
    let (sent, outcome) = reply(&mut hub, slot, lives(0, 60));
    assert_eq!((sent.len(), outcome), (1, Some((1, Outcome::Ends))));
    hub.open(2);
    assert_eq!(hub.handle_half_closed(2), Outcome::Ends);
}

#[test]
fn an_answer_for_a_client_that_left_meets_no_other_stream() {
    let mut hub = KeepAlives::default();
    hub.open(1);
    let (slot, _) = ask(&mut hub, 1, 10, 100);
    hub.close(1);
    hub.open(2);
    let (other, _) = ask(&mut hub, 2, 20, 100);
    assert_ne!(slot, other);
    let (sent, outcome) = reply(&mut hub, slot, lives(0, 60));
    assert_eq!((sent.len(), outcome), (0, None));
    hub.open(3);
    let (reused, _) = ask(&mut hub, 3, 30, 100);
    assert_eq!(reused, slot, "nobody owes it anything any more");
}

#[test]
fn a_stream_that_waits_for_too_much_is_refused() {
    let mut hub = KeepAlives::default();
    hub.open(1);
    for _ in 0..PENDING_MAX {
        ask(&mut hub, 1, 10, 100);
    }
    let refused = hub.handle_message(1, &request(10), Revision(100));
    assert_eq!(refused, Err(Refusal::TooManyRequests));
}

#[test]
fn a_lost_leadership_ends_the_call() {
    let mut hub = KeepAlives::default();
    hub.open(1);
    let (slot, _) = ask(&mut hub, 1, 10, 100);
    let lost = (0, Renewed::NotPrimary);
    assert_eq!(reply(&mut hub, slot, lost).1, Some((1, Outcome::Refused(Refusal::NotPrimary))));
    let (slot, _) = ask(&mut hub, 1, 10, 100);
    assert_eq!(
        reply(&mut hub, slot, (1, Renewed::Stopped)).1,
        Some((1, Outcome::Refused(Refusal::Stopped)))
    );
}

#[test]
fn ids_are_positive_and_no_two_front_ends_make_the_same() {
    let unix_ms = 1_790_000_000_000;
    let mut seen = std::collections::HashSet::new();
    for place in 0..3 {
        let mut ids = LeaseIds::new(0xffff_ffff_ffff_ffff, unix_ms + place, place, 3);
        for _ in 0..1000 {
            let id = ids.next().0;
            assert!(id > 0 && seen.insert(id), "{id:x}");
            assert_eq!(id >> 48, 0x7fff, "the member's share");
        }
    }
    // A count of this start does not reach the ids of a start a second later.
    let later = LeaseIds::new(0xffff_ffff_ffff_ffff, unix_ms + 1000, 0, 3).next();
    assert!(!seen.contains(&later.0));
}

#[test]
fn a_grant_is_checked_before_it_enters_the_log() {
    let mut ids = LeaseIds::new(1, 1, 0, 1);
    let (mut writer, mut frames) = (FrameWriter::new(), Vec::new());
    let mut push = |ttl, id| {
        let message = pb::LeaseGrantRequest { ttl, id }.encode_to_vec();
        push_grant(&message, 2, &mut ids, &mut writer, &mut frames)
    };
    assert_eq!(push(9_000_000_001, 5), Err(Refusal::LeaseTtlTooLarge));
    assert_eq!(push(9_000_000_000, 5), Ok(()));
    assert_eq!(push(i64::MIN, -5), Ok(()));
    assert!(!frames.is_empty());
}

/// A million leases were sorted and written in one turn, and counted nowhere.
#[test]
fn a_list_is_written_in_steps_and_leaves_out_who_is_gone() {
    let store = TestStore::new();
    let leases: Vec<LeaseId> = [8, -1, 0, 3, 0, 9].map(LeaseId).to_vec();
    for budget in [1, 2, 100] {
        let mut read = LeasesRead::new(Arc::new(leases.repeat(3)));
        assert_eq!(read.held_bytes(), 18 * 8);
        let (mut out, mut steps) = (Vec::new(), 0);
        loop {
            let mut left = budget;
            let view = store.engine.newest_view();
            let progress = read.step(view, HEADER, &mut left, &mut out);
            assert!(left < budget);
            steps += 1;
            if progress == Progress::Done {
                break;
            }
            assert_eq!(left, 0);
        }
        assert_eq!(steps, 18_usize.div_ceil(budget * LEASES_PER_KEY));
        let response = pb::LeaseLeasesResponse::decode(&out[..]).unwrap();
        let ids: Vec<i64> = response.leases.iter().map(|lease| lease.id).collect();
        assert_eq!(ids, [8, -1, 3, 9].repeat(3));
        assert_eq!(response.header.as_ref().unwrap().revision, 1);
        assert_eq!(response.encode_to_vec(), out);
    }
}
