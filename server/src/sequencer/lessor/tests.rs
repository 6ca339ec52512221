//! Leases and their ends on a clock that the test moves.

use super::*;
use crate::mail::{FrontendId, Slot};

const SECOND: Duration = Duration::from_secs(1);
const CONFIG: LessorConfig =
    LessorConfig { ttl_min_seconds: 2, extension: SECOND, checkpoint_interval: None };

fn lease(id: i64, ttl_seconds: i64) -> Lease {
    Lease { id: LeaseId(id), ttl_seconds, remaining_seconds: 0 }
}

fn renewer(sequence: u64) -> Renewer {
    let ticket = Ticket { frontend: FrontendId(0), slot: Slot(7) };
    Renewer { ticket, sequence }
}

fn leader(config: LessorConfig) -> Lessor {
    let mut lessor = Lessor::new(config);
    lessor.promote(Duration::ZERO);
    lessor
}

fn grant(lessor: &mut Lessor, id: i64, ttl_seconds: i64, now: Duration) {
    lessor.handle_change(&LeaseChange::Granted(lease(id, ttl_seconds)), now);
}

fn expired(lessor: &mut Lessor, now: Duration) -> Vec<i64> {
    std::iter::from_fn(|| lessor.poll_expired(now)).map(|id| id.0).collect()
}

#[test]
fn a_lease_runs_out_after_its_time_and_no_sooner() {
    let mut lessor = leader(CONFIG);
    grant(&mut lessor, 1, 10, SECOND);
    grant(&mut lessor, 2, 5, SECOND);
    assert_eq!(lessor.wake_at(), Some(6 * SECOND));
    assert!(expired(&mut lessor, Duration::from_millis(5999)).is_empty());
    assert_eq!(lessor.time_to_live(LeaseId(1), 3 * SECOND), Some((8, 10)));
    assert_eq!(expired(&mut lessor, 11 * SECOND), [2, 1], "in the order in which they run out");
    assert_eq!(lessor.time_to_live(LeaseId(2), 8 * SECOND), Some((-2, 5)));
}

#[test]
fn a_lease_lives_no_shorter_than_the_floor() {
    let mut lessor = leader(CONFIG);
    grant(&mut lessor, 1, -7, Duration::ZERO);
    assert_eq!(lessor.time_to_live(LeaseId(1), Duration::ZERO), Some((2, 2)));
    assert!(expired(&mut lessor, Duration::from_millis(1999)).is_empty());
    assert_eq!(expired(&mut lessor, 2 * SECOND), [1]);
}

#[test]
fn a_keep_alive_gives_the_whole_time_again() {
    let mut lessor = leader(CONFIG);
    grant(&mut lessor, 1, 10, Duration::ZERO);
    assert_eq!(lessor.renew(LeaseId(1), renewer(0), 9 * SECOND), Renewal::Renewed(10));
    assert!(expired(&mut lessor, 18 * SECOND).is_empty());
    assert_eq!(expired(&mut lessor, 19 * SECOND), [1]);
    assert_eq!(lessor.renew(LeaseId(2), renewer(1), SECOND), Renewal::Unknown);
}

#[test]
fn a_keep_alive_that_comes_too_late_waits_for_the_revoke() {
    let mut lessor = leader(CONFIG);
    grant(&mut lessor, 1, 10, Duration::ZERO);
    assert_eq!(lessor.renew(LeaseId(1), renewer(3), 10 * SECOND), Renewal::Waits);
    assert!(lessor.poll_reply().is_none());
    assert_eq!(expired(&mut lessor, 10 * SECOND), [1], "it is revoked all the same");
    lessor.handle_change(&LeaseChange::Revoked(LeaseId(1)), 10 * SECOND);
    let renewed = Renewed::Lives { ttl_seconds: 0 };
    let reply = LeaseReply::Renewed { sequence: 3, renewed };
    assert_eq!(lessor.poll_reply(), Some((renewer(3).ticket, reply)));
    assert!(lessor.wake_at().is_none());
}

#[test]
fn a_revoke_that_was_lost_is_proposed_again() {
    let mut lessor = leader(CONFIG);
    grant(&mut lessor, 1, 10, Duration::ZERO);
    assert_eq!(expired(&mut lessor, 10 * SECOND), [1]);
    assert!(expired(&mut lessor, 12 * SECOND).is_empty());
    assert_eq!(expired(&mut lessor, 13 * SECOND), [1]);
}

#[test]
fn a_thousand_are_revoked_in_a_second_and_none_is_forgotten() {
    let mut lessor = leader(CONFIG);
    for id in 0..2500 {
        grant(&mut lessor, id, 5, Duration::ZERO);
    }
    let mut counts = Vec::new();
    let mut now = 5 * SECOND;
    let mut left = 2500;
    while left > 0 {
        let ids = expired(&mut lessor, now);
        left -= ids.len();
        counts.push(ids.len());
        for id in ids {
            lessor.handle_change(&LeaseChange::Revoked(LeaseId(id)), now);
        }
        match lessor.wake_at() {
            Some(at) => now = at,
            None => break,
        }
    }
    assert_eq!(left, 0);
    assert_eq!(counts, [50; 50]);
    assert_eq!(now, 5 * SECOND + 49 * REVOKE_WINDOW);
}

#[test]
fn without_a_leader_nothing_expires_and_waiting_renewals_are_sent_away() {
    let mut lessor = leader(CONFIG);
    grant(&mut lessor, 1, 10, Duration::ZERO);
    assert_eq!(lessor.renew(LeaseId(1), renewer(0), 10 * SECOND), Renewal::Waits);
    lessor.demote();
    let reply = LeaseReply::Renewed { sequence: 0, renewed: Renewed::NotPrimary };
    assert_eq!(lessor.poll_reply(), Some((renewer(0).ticket, reply)));
    assert!(expired(&mut lessor, 100 * SECOND).is_empty());
    assert_eq!(lessor.renew(LeaseId(1), renewer(1), SECOND), Renewal::NotPrimary);
    lessor.promote(100 * SECOND);
    assert_eq!(lessor.wake_at(), Some(111 * SECOND), "its time anew, and the extension");
}

#[test]
fn a_new_leader_spreads_what_would_run_out_together() {
    let mut lessor = Lessor::new(CONFIG);
    for id in 0..3000 {
        lessor.restore(&lease(id, 10));
    }
    lessor.promote(Duration::ZERO);
    let mut entries = Vec::new();
    let mut cursor = Some(ListCursor::START);
    while let Some(from) = cursor {
        cursor = lessor.list_step(from, &mut entries);
    }
    assert_eq!(entries.len(), 3000);
    let within = |from: u64, to: u64| {
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
        entries.iter().filter(|entry| entry.0 >= from && entry.0 < to).count()
    };
    assert!(within(11, 12) <= 1000, "{}", within(11, 12));
    assert!((1..20).all(|second| within(second, second + 1) <= 1000));
    assert_eq!(within(0, 11), 0, "none runs out sooner than its time and the extension");
    assert_eq!(within(11, 17), 3000);
}

#[test]
fn what_a_long_lease_has_left_is_noted_and_wiped_out_by_a_renewal() {
    let interval = Duration::from_secs(300);
    let config = LessorConfig { checkpoint_interval: Some(interval), ..CONFIG };
    let mut lessor = leader(config);
    grant(&mut lessor, 1, 1000, Duration::ZERO);
    grant(&mut lessor, 2, 300, Duration::ZERO);
    assert!(lessor.poll_checkpoints(299 * SECOND).is_empty());
    assert_eq!(lessor.wake_at(), Some(interval));
    assert_eq!(lessor.poll_checkpoints(interval), [(LeaseId(1), 700)]);
    let noted = Lease { remaining_seconds: 700, ..lease(1, 1000) };
    lessor.handle_change(&LeaseChange::Noted(noted), interval);

    assert_eq!(lessor.renew(LeaseId(1), renewer(0), 310 * SECOND), Renewal::Waits);
    assert_eq!(lessor.wake_at(), Some(Duration::ZERO));
    assert_eq!(lessor.poll_checkpoints(310 * SECOND), [(LeaseId(1), 0)]);
    lessor.handle_change(&LeaseChange::Noted(lease(1, 1000)), 311 * SECOND);
    let renewed = Renewed::Lives { ttl_seconds: 1000 };
    let reply = LeaseReply::Renewed { sequence: 0, renewed };
    assert_eq!(lessor.poll_reply(), Some((renewer(0).ticket, reply)));
    assert_eq!(lessor.time_to_live(LeaseId(1), 311 * SECOND), Some((1000, 1000)));
}

#[test]
fn a_new_leader_holds_a_noted_lease_for_its_rest() {
    let mut lessor = Lessor::new(CONFIG);
    lessor.restore(&Lease { remaining_seconds: 30, ..lease(1, 1000) });
    lessor.promote(Duration::ZERO);
    assert_eq!(lessor.time_to_live(LeaseId(1), Duration::ZERO), Some((31, 1000)));
}
