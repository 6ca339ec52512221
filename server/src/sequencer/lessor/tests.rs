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

fn listed(lessor: &mut Lessor) -> Vec<i64> {
    for _ in 0..1000 {
        if let Some(ids) = lessor.step_list() {
            return ids.into_iter().filter(|id| *id != NO_LEASE).map(|id| id.0).collect();
        }
    }
    panic!("a list without end");
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

/// After three seconds a second one was proposed whatever had become of the first. A client that
/// granted the same id anew between the two lost its new lease, and all its keys, to the second.
#[test]
fn a_revoke_is_proposed_again_only_when_the_first_is_known_to_have_ended() {
    let mut lessor = leader(CONFIG);
    grant(&mut lessor, 1, 10, Duration::ZERO);
    assert_eq!(expired(&mut lessor, 10 * SECOND), [1]);
    for seconds in 11..30 {
        assert!(expired(&mut lessor, seconds * SECOND).is_empty(), "the first may yet be applied");
    }
    // Refused: its lease is there, so it has its turn again.
    lessor.handle_revoke_ended(LeaseId(1));
    let at = lessor.wake_at().unwrap();
    assert!(at <= 33 * SECOND, "{at:?}");
    assert_eq!(expired(&mut lessor, at), [1]);
    // Applied, and granted anew before its end is told: the new lease has its own time.
    lessor.handle_change(&LeaseChange::Revoked(LeaseId(1)), 34 * SECOND);
    grant(&mut lessor, 1, 10, 34 * SECOND);
    lessor.handle_revoke_ended(LeaseId(1));
    assert!(expired(&mut lessor, 43 * SECOND).is_empty());
    assert_eq!(expired(&mut lessor, 44 * SECOND), [1]);
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

/// Found by a drill: a leader that was cut off renewed a lease half a second after the next one
/// had, and its promise was broken.
#[test]
fn a_renewal_does_not_take_back_what_a_new_leader_has_added() {
    let mut lessor = leader(CONFIG);
    grant(&mut lessor, 1, 10, Duration::ZERO);
    lessor.demote();
    lessor.promote(100 * SECOND);
    for (renewed, due) in [(100_000, 111_000), (100_500, 111_000), (101_500, 111_500)] {
        let now = Duration::from_millis(renewed);
        assert_eq!(lessor.renew(LeaseId(1), renewer(0), now), Renewal::Renewed(10));
        assert_eq!(lessor.wake_at(), Some(Duration::from_millis(due)), "renewed at {now:?}");
    }
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
    for id in 1..=3000 {
        lessor.restore(&lease(id, 10));
    }
    lessor.promote(Duration::ZERO);
    let ids = listed(&mut lessor);
    assert_eq!(ids.len(), 3000);
    let expiry = |id| lessor.leases[&LeaseId(id)].expiry;
    let entries: Vec<(Duration, i64)> = ids.into_iter().map(|id| (expiry(id), id)).collect();
    assert!(entries.is_sorted());
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
    assert!(lessor.wake_at().is_some_and(|at| at <= 310 * SECOND));
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

/// Each note, and each wipe, left a further entry behind, so that a lease was noted more and more
/// often; and all that was renewed at once was wiped by one command, however much that was.
#[test]
fn a_lease_has_one_note_and_one_wipe_under_way_and_a_command_has_a_bound() {
    let interval = Duration::from_secs(300);
    let config = LessorConfig { checkpoint_interval: Some(interval), ..CONFIG };
    let mut lessor = leader(config);
    let count = 2 * CHECKPOINT_LEASES_MAX as i64 + 500;
    for id in 1..=count {
        grant(&mut lessor, id, 100_000, Duration::ZERO);
    }
    let mut now = Duration::ZERO;
    for round in 0..5 {
        now += interval;
        let mut sizes = Vec::new();
        loop {
            let noted = lessor.poll_checkpoints(now);
            if noted.is_empty() {
                break;
            }
            sizes.push(noted.len());
            for (id, remaining_seconds) in noted {
                let noted = Lease { remaining_seconds, ..lease(id.0, 100_000) };
                lessor.handle_change(&LeaseChange::Noted(noted), now);
                // What a wipe would have left behind as well.
                lessor.handle_change(&LeaseChange::Noted(noted), now);
            }
        }
        assert_eq!(sizes, [CHECKPOINT_LEASES_MAX, CHECKPOINT_LEASES_MAX, 500], "round {round}");
    }
    for sequence in 0..3 {
        for id in 1..=count {
            assert_eq!(lessor.renew(LeaseId(id), renewer(sequence), now), Renewal::Waits);
        }
    }
    let mut sizes = Vec::new();
    loop {
        let wiped = lessor.poll_checkpoints(now);
        if wiped.is_empty() {
            break;
        }
        assert!(wiped.iter().all(|(_, remaining_seconds)| *remaining_seconds == 0));
        sizes.push(wiped.len());
    }
    assert_eq!(sizes, [CHECKPOINT_LEASES_MAX, CHECKPOINT_LEASES_MAX, 500]);
    assert_eq!(lessor.wake_at(), Some(now + RETRY_AFTER));
}

/// A full disk refuses notes as it refuses puts. A renewal whose wipe it refused was never
/// answered, and its lease ran out under a client that had asked in time.
#[test]
fn a_note_and_a_wipe_that_were_refused_are_proposed_again() {
    let interval = Duration::from_secs(300);
    let config = LessorConfig { checkpoint_interval: Some(interval), ..CONFIG };
    let mut lessor = leader(config);
    grant(&mut lessor, 1, 1000, Duration::ZERO);
    assert_eq!(lessor.poll_checkpoints(interval), [(LeaseId(1), 700)]);
    assert!(lessor.poll_checkpoints(302 * SECOND).is_empty());
    assert_eq!(lessor.poll_checkpoints(303 * SECOND), [(LeaseId(1), 697)]);
    let noted = Lease { remaining_seconds: 697, ..lease(1, 1000) };
    lessor.handle_change(&LeaseChange::Noted(noted), 303 * SECOND);
    assert_eq!(lessor.wake_at(), Some(603 * SECOND));

    assert_eq!(lessor.renew(LeaseId(1), renewer(0), 310 * SECOND), Renewal::Waits);
    assert_eq!(lessor.poll_checkpoints(310 * SECOND), [(LeaseId(1), 0)]);
    assert_eq!(lessor.wake_at(), Some(313 * SECOND));
    assert_eq!(lessor.poll_checkpoints(313 * SECOND), [(LeaseId(1), 0)]);
    lessor.handle_change(&LeaseChange::Noted(lease(1, 1000)), 314 * SECOND);
    assert!(lessor.poll_reply().is_some());
    assert_eq!(lessor.wake_at(), Some(614 * SECOND), "nothing is left to be wiped");
    // One that runs out meanwhile is revoked, and is wiped no more.
    let noted = Lease { remaining_seconds: 5, ..lease(1, 1000) };
    lessor.handle_change(&LeaseChange::Noted(noted), 314 * SECOND);
    assert_eq!(lessor.renew(LeaseId(1), renewer(1), 1313 * SECOND), Renewal::Waits);
    assert!(lessor.poll_checkpoints(1314 * SECOND).is_empty());
    assert_eq!(expired(&mut lessor, 1314 * SECOND), [1]);
}

/// The list is made over several turns, and what happens between them moves leases about.
#[test]
fn a_list_has_each_lease_once_in_the_order_of_the_ends_whatever_happens_meanwhile() {
    let mut lessor = leader(CONFIG);
    let count = 3 * LIST_STEP_LEASES as i64;
    for id in 1..=count {
        grant(&mut lessor, id, 100 + id, Duration::ZERO);
    }
    assert!(lessor.step_list().is_none());
    // One that was passed stands further behind, some run out, one ends, one ends and begins again.
    let now = 102 * SECOND;
    assert_eq!(lessor.renew(LeaseId(4000), renewer(0), now), Renewal::Renewed(4100));
    assert_eq!(expired(&mut lessor, now), [1, 2]);
    lessor.handle_change(&LeaseChange::Revoked(LeaseId(20)), now);
    lessor.handle_change(&LeaseChange::Revoked(LeaseId(30)), now);
    grant(&mut lessor, 30, count * 2, now);
    grant(&mut lessor, count + 1, count * 2, now);
    let list = listed(&mut lessor);
    let mut expected: Vec<i64> = (1..=count + 1).filter(|id| *id != 20).collect();
    expected.sort_by_key(|id| lessor.leases[&LeaseId(*id)].expiry);
    assert_eq!(list.len(), expected.len());
    assert!(list == expected, "the order of the ends, with those first that wait for a revoke");
    // The next one is as good; without a leader nobody knows an order.
    assert!(listed(&mut lessor) == expected);
    lessor.step_list();
    lessor.demote();
    expected.sort_unstable();
    assert!(listed(&mut lessor) == expected);
}
