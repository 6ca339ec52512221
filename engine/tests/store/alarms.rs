//! Alarms and downgrades: what is refused meanwhile, and what outlives a restart.

use crate::driver::{Driver, Frames};
use engine::command::{
    AlarmAction, AlarmRef, CompactRef, DeleteRangeRef, LeaseGrantRef, LeaseRevokeRef,
    MemberPublishRef, OperationRef, PutRef, TxnRef,
};
use engine::{
    Alarm, AlarmKind, ClusterVersion, LeaseId, MemberId, Outcome, RangeQuery, Rejection, Revision,
};

const MEMBER: MemberId = MemberId(4711);

fn change(action: AlarmAction, kind: AlarmKind) -> AlarmRef {
    AlarmRef { action, alarm: Alarm { kind, member: MEMBER } }
}

fn put(key: &[u8]) -> PutRef<'_> {
    PutRef { key, value: b"value", ..PutRef::default() }
}

fn outcome(driver: &mut Driver, frames: Frames) -> Outcome {
    let mut answers = driver.apply(frames);
    assert_eq!(answers.len(), 1);
    answers.remove(0).outcome
}

/// A store in which every command below would do something.
fn furnished(shards: u16) -> Driver {
    let mut driver = Driver::new(shards);
    let mut frames = Frames::new().cluster_version("3.7.0");
    for key in [b"a", b"b", b"c", b"d", b"e"] {
        frames = frames.put(&put(key));
    }
    driver.apply(frames.grant(LeaseGrantRef { id: LeaseId(1), ttl_seconds: 60 }));
    driver
}

fn txn<'a>(success: OperationRef<'a>, failure: OperationRef<'a>) -> TxnRef<'a> {
    TxnRef { success: vec![success], failure: vec![failure], ..TxnRef::default() }
}

/// Puts, grants and transactions that store something, in one batch, so that several shards work on
/// them together.
fn storing() -> Frames {
    let range = || OperationRef::Range(RangeQuery { key: b"a", ..RangeQuery::default() });
    let nested = txn(range(), OperationRef::Txn(txn(range(), OperationRef::Put(put(b"n")))));
    Frames::new()
        .put(&put(b"x"))
        .put(&PutRef { lease: LeaseId(99), ..put(b"y") })
        .put(&PutRef { ignore_value: true, ..put(b"missing") })
        .txn(&txn(range(), OperationRef::Put(put(b"z"))))
        .txn(&nested)
        .grant(LeaseGrantRef { id: LeaseId(2), ttl_seconds: 60 })
}

/// What stores nothing, and what it answers where nothing is refused.
fn freeing() -> Frames {
    let delete = |key| DeleteRangeRef { key, ..DeleteRangeRef::default() };
    let range = || OperationRef::Range(RangeQuery { key: b"a", ..RangeQuery::default() });
    Frames::new()
        .delete(&delete(b"a"))
        .delete(&DeleteRangeRef { range_end: b"d", ..delete(b"b") })
        .txn(&txn(OperationRef::DeleteRange(delete(b"d")), range()))
        .compact(CompactRef { revision: Revision(3), physical: false })
        .revoke(LeaseRevokeRef { id: LeaseId(1), expired_in: None })
}

fn refused(driver: &mut Driver, frames: Frames, with: Rejection) {
    let before = driver.engine.revision();
    for (place, answer) in driver.apply(frames).into_iter().enumerate() {
        assert_eq!(answer.outcome, Outcome::Rejected(with), "command {place}");
        assert_eq!(answer.revision, before);
    }
}

fn taken(driver: &mut Driver, frames: Frames) {
    for (place, answer) in driver.apply(frames).into_iter().enumerate() {
        assert!(!matches!(answer.outcome, Outcome::Rejected(_)), "command {place}: {answer:?}");
    }
}

#[test]
fn without_space_only_what_stores_is_refused() {
    for shards in [1, 2, 4, 8] {
        let mut driver = furnished(shards);
        let raise = change(AlarmAction::RaiseForQuota, AlarmKind::NO_SPACE);
        let raised = outcome(&mut driver, Frames::new().alarm(raise));
        assert_eq!(raised, Outcome::Rejected(Rejection::NoSpace));
        refused(&mut driver, storing(), Rejection::NoSpace);
        taken(&mut driver, freeing());
        let lower = change(AlarmAction::Lower, AlarmKind::NO_SPACE);
        taken(&mut driver, Frames::new().alarm(lower).put(&put(b"x")));
    }
}

#[test]
fn a_corrupt_cluster_changes_nothing_but_itself() {
    for shards in [1, 2, 4, 8] {
        let mut driver = furnished(shards);
        let alarms = [AlarmKind::NO_SPACE, AlarmKind::CORRUPT];
        for kind in alarms {
            driver.apply(Frames::new().alarm(change(AlarmAction::Raise, kind)));
        }
        refused(&mut driver, storing(), Rejection::Corrupt);
        refused(&mut driver, freeing(), Rejection::Corrupt);
        let member = MemberPublishRef { id: MEMBER, name: "m", client_urls: &[] };
        taken(&mut driver, Frames::new().member(&member).cluster_version("3.7.0"));
        driver.checkpoint();
        driver.reopen();
        let stand: Vec<AlarmKind> =
            driver.hold().alarms().unwrap().iter().map(|alarm| alarm.kind).collect();
        assert_eq!(stand, alarms, "alarms outlive the process");
        refused(&mut driver, freeing(), Rejection::Corrupt);
        driver.apply(Frames::new().alarm(change(AlarmAction::Lower, AlarmKind::CORRUPT)));
        refused(&mut driver, storing(), Rejection::NoSpace);
        taken(&mut driver, freeing());
    }
}

#[test]
fn an_alarm_stands_once_and_is_told_as_etcd_tells_it() {
    let mut driver = Driver::new(1);
    let alarm = |kind| Some(Alarm { kind, member: MEMBER });
    let (raise, lower) = (AlarmAction::Raise, AlarmAction::Lower);
    let steps = [
        (lower, AlarmKind::NO_SPACE, None, 0),
        (raise, AlarmKind::NO_SPACE, alarm(AlarmKind::NO_SPACE), 1),
        (raise, AlarmKind::NO_SPACE, alarm(AlarmKind::NO_SPACE), 1),
        (raise, AlarmKind::NONE, None, 1),
        (lower, AlarmKind::NONE, None, 1),
        (raise, AlarmKind(9), alarm(AlarmKind(9)), 2),
        (lower, AlarmKind::NO_SPACE, alarm(AlarmKind::NO_SPACE), 1),
        (lower, AlarmKind::NO_SPACE, None, 1),
    ];
    for (step, (action, kind, told, count)) in steps.into_iter().enumerate() {
        let outcome = outcome(&mut driver, Frames::new().alarm(change(action, kind)));
        assert_eq!(outcome, Outcome::Alarm(told), "step {step}");
        assert_eq!(driver.hold().alarms().unwrap().len(), count, "step {step}");
    }
    assert_eq!(driver.engine.revision(), Revision(1), "alarms are not part of the history");
}

/// Who wants to know of a kind, or of one alarm, walked over all that stood, and how many stand is
/// up to clients: the gate did so inside of apply.
#[test]
fn few_alarms_are_found_among_many_and_are_those_of_the_whole_list() {
    let mut driver = Driver::new(2);
    let kinds = [1, 2, 3, 70_000, i32::MAX, i32::MIN, -5, -1].map(AlarmKind);
    let mut state = 7u64;
    for step in 0..400 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let roll = (state >> 33) as usize;
        let kind = kinds[roll % kinds.len()];
        let alarm = Alarm { kind, member: MemberId((roll / 8 % 4) as u64) };
        // In phases, so that kinds come to have none again.
        let raises = (step / 50 % 2 == 0) != roll.is_multiple_of(5);
        let action = if raises { AlarmAction::Raise } else { AlarmAction::Lower };
        driver.apply(Frames::new().alarm(AlarmRef { action, alarm }));
        let view = driver.hold();
        let all = view.alarms().unwrap();
        assert_eq!(view.has_alarm(alarm).unwrap(), all.contains(&alarm), "step {step}");
        let mut firsts = all.clone();
        firsts.dedup_by_key(|alarm| alarm.kind);
        assert_eq!(view.alarm_kinds(usize::MAX).unwrap(), firsts, "step {step}");
        firsts.truncate(3);
        assert_eq!(view.alarm_kinds(3).unwrap(), firsts, "step {step}");
        let stands = |kind| all.iter().any(|alarm| alarm.kind == kind);
        let refused = if stands(AlarmKind::CORRUPT) {
            Some(Rejection::Corrupt)
        } else {
            stands(AlarmKind::NO_SPACE).then_some(Rejection::NoSpace)
        };
        assert_eq!(view.refusal_of_grant().unwrap(), refused, "step {step}");
        drop(view);
        let expected = match refused {
            Some(rejection) => Outcome::Rejected(rejection),
            None => continue,
        };
        assert_eq!(outcome(&mut driver, Frames::new().put(&put(b"k"))), expected, "step {step}");
    }
}

#[test]
fn a_downgrade_goes_one_version_back() {
    let mut driver = Driver::new(2);
    let begin = |driver: &mut Driver, target| outcome(driver, Frames::new().downgrade(target));
    let unknown = Outcome::Rejected(Rejection::ClusterVersionUnknown);
    assert_eq!(begin(&mut driver, Some("3.6.0")), unknown);
    driver.apply(Frames::new().cluster_version("3.7.0"));
    let version = ClusterVersion { major: 3, minor: 7 };
    for target in ["3.8.0", "3.7.0", "3.5.0", "2.6.0"] {
        let invalid = Outcome::Rejected(Rejection::InvalidDowngradeTarget);
        assert_eq!(begin(&mut driver, Some(target)), invalid, "{target}");
    }
    assert_eq!(begin(&mut driver, None), Outcome::Downgrade { version }, "nothing to end");
    assert_eq!(begin(&mut driver, Some("3.6.0")), Outcome::Downgrade { version });
    let twice = Outcome::Rejected(Rejection::DowngradeInProcess);
    assert_eq!(begin(&mut driver, Some("3.6.0")), twice);
    driver.checkpoint();
    driver.reopen();
    assert_eq!(driver.hold().downgrade_target().unwrap().as_deref(), Some("3.6.0"));
    driver.apply(Frames::new().cluster_version("3.6.0"));
    let version = ClusterVersion { major: 3, minor: 6 };
    assert_eq!(begin(&mut driver, None), Outcome::Downgrade { version });
    assert_eq!(driver.hold().downgrade_target().unwrap(), None);
}
