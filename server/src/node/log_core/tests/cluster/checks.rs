//! A member whose keys are others than the leader's, and how it is found.

use super::*;
use crate::node::log_core::{ANSWER_TIME_MAX, CheckSettings};
use crate::peer::letter::HashTold;

const GOOD: &[u8] = b"value";
const BAD: &[u8] = b"VALUE";

/// Changes every value in the entries of an append.
pub(super) fn spoil(letter: &mut Letter) {
    let Letter::Raft(message) = letter else { return };
    for entry in &mut message.entries {
        let mut data = entry.data.to_vec();
        let found = data.windows(GOOD.len()).position(|window| window == GOOD);
        if let Some(at) = found {
            data[at..at + GOOD.len()].copy_from_slice(BAD);
            entry.data = data.into();
        }
    }
}

/// A cluster of three with a leader; this many members away from it stands the one that is spoiled.
fn spoiled(name: &str, settings: CheckSettings, distance: usize) -> (Cluster, usize, usize) {
    let mut cluster = Cluster::new(name);
    for world in &mut cluster.members {
        world.core.set_checks(settings);
    }
    let leader = cluster.elect();
    let bad = (leader + distance) % 3;
    (cluster, leader, bad)
}

fn put(cluster: &mut Cluster, place: usize) {
    let put = cluster.members[place].put("key", GOOD);
    cluster.tick();
    assert!(cluster.members[place].take_outcome(put).is_ok());
    cluster.tick();
}

fn alarms(cluster: &Cluster, place: usize) -> Vec<Alarm> {
    cluster.members[place].core.engine().newest_view().alarms().unwrap()
}

fn periodic() -> CheckSettings {
    CheckSettings { periodic: Some(Duration::from_secs(1)), compactions: None }
}

fn compactions() -> CheckSettings {
    CheckSettings { periodic: None, compactions: Some(Duration::from_secs(1)) }
}

fn wait(cluster: &mut Cluster) {
    for _ in 0..40 {
        cluster.tick();
    }
}

#[test]
fn members_that_agree_are_left_alone() {
    let settings = CheckSettings { periodic: periodic().periodic, ..compactions() };
    let (mut cluster, leader, _) = spoiled("checks-good", settings, 1);
    put(&mut cluster, leader);
    let compact = cluster.members[leader].compact(Revision(2), false);
    wait(&mut cluster);
    assert!(cluster.members[leader].take_outcome(compact).is_ok());
    assert_eq!(alarms(&cluster, leader), []);
    let core = &mut cluster.members[leader].core;
    let notices: Vec<_> = std::iter::from_fn(|| core.poll_check_notice()).collect();
    let count = |text: &str| notices.iter().filter(|notice| notice.message == text).count();
    assert!(count("finished peer corruption check") > 1, "{notices:?}");
    assert_eq!(count("successfully checked hash on whole cluster"), 1, "{notices:?}");
}

#[test]
fn the_periodic_check_finds_the_member_that_differs() {
    let (mut cluster, leader, bad) = spoiled("checks-periodic", periodic(), 1);
    cluster.spoiled = Some(bad);
    put(&mut cluster, leader);
    cluster.spoiled = None;
    wait(&mut cluster);
    let expected = [Alarm { kind: AlarmKind::CORRUPT, member: id_of(bad) }];
    for place in 0..3 {
        assert_eq!(alarms(&cluster, place), expected, "member {place}");
    }
    // From now on nobody writes.
    let refused = cluster.members[leader].put("key", b"other");
    wait(&mut cluster);
    let outcome = cluster.members[leader].take_outcome(refused);
    assert!(matches!(outcome, Ok(Outcome::Rejected(Rejection::Corrupt))), "{outcome:?}");
}

#[test]
fn the_check_of_compactions_believes_the_majority() {
    for distance in [1, 2] {
        let name = format!("checks-compactions-{distance}");
        let (mut cluster, leader, bad) = spoiled(&name, compactions(), distance);
        cluster.spoiled = Some(bad);
        put(&mut cluster, leader);
        cluster.spoiled = None;
        wait(&mut cluster);
        assert_eq!(alarms(&cluster, leader), [], "nothing was compacted");
        let compact = cluster.members[leader].compact(Revision(2), false);
        wait(&mut cluster);
        assert!(cluster.members[leader].take_outcome(compact).is_ok());
        let expected = [Alarm { kind: AlarmKind::CORRUPT, member: id_of(bad) }];
        assert_eq!(alarms(&cluster, leader), expected);
    }
}

#[test]
fn a_leader_that_differs_from_all_others_is_found_by_its_compactions() {
    let (mut cluster, old, _) = spoiled("checks-leader", compactions(), 1);
    let bad = (old + 1) % 3;
    cluster.spoiled = Some(bad);
    put(&mut cluster, old);
    cluster.spoiled = None;
    let moved = cluster.members[old].ask_move(id_of(bad));
    wait(&mut cluster);
    assert!(cluster.members[old].is_answered(moved));
    assert_eq!(cluster.elect(), bad);
    let compact = cluster.members[bad].compact(Revision(2), false);
    wait(&mut cluster);
    assert!(cluster.members[bad].take_outcome(compact).is_ok());
    let expected = [Alarm { kind: AlarmKind::CORRUPT, member: id_of(bad) }];
    assert_eq!(alarms(&cluster, old), expected);
}

#[test]
fn a_member_that_cannot_be_reached_is_not_waited_for() {
    let (mut cluster, leader, away) = spoiled("checks-away", periodic(), 1);
    put(&mut cluster, leader);
    cluster.away.push(away);
    cluster.members[leader].core.handle_peer(id_of(away), false);
    wait(&mut cluster);
    assert_eq!(alarms(&cluster, leader), []);
    let core = &mut cluster.members[leader].core;
    let notices: Vec<_> = std::iter::from_fn(|| core.poll_check_notice()).collect();
    let finished = notices.iter().rfind(|it| it.message == "finished peer corruption check");
    let counted = [("number-of-peers-checked", "1".to_owned())];
    assert_eq!(finished.map(|notice| &notice.fields[..]), Some(&counted[..]), "{notices:?}");
}

#[test]
fn whoever_asks_for_a_hash_gets_the_members_own() {
    let (mut cluster, leader, _) = spoiled("checks-page", CheckSettings::default(), 1);
    put(&mut cluster, leader);
    let expected = cluster.hashes()[leader];
    let core = &mut cluster.members[leader].core;
    core.handle_hash_request(7, KeyValueHashScan::new(Revision(0)));
    core.handle_hash_request(8, KeyValueHashScan::new(Revision(99)));
    cluster.tick();
    let core = &mut cluster.members[leader].core;
    let Some((7, HashTold::Hash(hash))) = core.poll_hash() else { panic!("the first hash") };
    assert_eq!((hash.hash, hash.revision, hash.current), (expected, Revision(2), Revision(2)));
    assert_eq!(core.poll_hash(), Some((8, HashTold::Rejected(Rejection::FutureRevision))));
    assert_eq!(core.poll_hash(), None);
    core.handle_hash_request(9, KeyValueHashScan::new(Revision(0)));
    core.stop();
    assert_eq!(core.poll_hash(), Some((9, HashTold::Nothing)));
}

#[test]
fn a_check_that_nobody_answers_is_given_up_and_begun_again() {
    let (mut cluster, leader, mute) = spoiled("checks-mute", periodic(), 1);
    put(&mut cluster, leader);
    // Its answers are lost, and its leader does not learn that: only time helps.
    cluster.mute = Some(mute);
    let finished = |cluster: &mut Cluster| {
        let core = &mut cluster.members[leader].core;
        let notices = std::iter::from_fn(|| core.poll_check_notice());
        notices.filter(|notice| notice.message == "finished peer corruption check").count()
    };
    // One may have had all answers before.
    wait(&mut cluster);
    finished(&mut cluster);
    wait(&mut cluster);
    assert_eq!(finished(&mut cluster), 0);
    cluster.mute = None;
    let late = ANSWER_TIME_MAX.as_millis() / TICK.as_millis() + 40;
    for _ in 0..late {
        cluster.tick();
    }
    assert!(finished(&mut cluster) > 1);
    assert_eq!(alarms(&cluster, leader), []);
}

#[test]
fn a_check_ends_with_its_leadership() {
    let (mut cluster, old, other) = spoiled("checks-deposed", periodic(), 1);
    put(&mut cluster, old);
    cluster.mute = Some(other);
    wait(&mut cluster);
    assert!(cluster.members[old].core.checks.run.is_some(), "it waits for an answer");
    cluster.mute = None;
    let moved = cluster.members[old].ask_move(id_of(other));
    wait(&mut cluster);
    assert!(cluster.members[old].is_answered(moved));
    assert!(cluster.members[old].core.checks.run.is_none());
    assert_eq!(alarms(&cluster, old), []);
}

/// Where no key lives at a revision, the hash that a compaction left there and one that is computed
/// are different numbers, under the same revision and the same compaction before.
#[test]
fn a_store_without_keys_accuses_nobody() {
    let settings = CheckSettings { periodic: periodic().periodic, ..compactions() };
    let (mut cluster, leader, away) = spoiled("checks-empty", settings, 1);
    put(&mut cluster, leader);
    let compact = cluster.members[leader].compact(Revision(2), false);
    cluster.tick();
    let delete = cluster.members[leader].delete_all();
    wait(&mut cluster);
    // One member does not hear of the compaction, and has only the revision that was compacted.
    cluster.away.push(away);
    let second = cluster.members[leader].compact(Revision(3), false);
    wait(&mut cluster);
    cluster.away.clear();
    wait(&mut cluster);
    for slot in [compact, delete, second] {
        assert!(cluster.members[leader].take_outcome(slot).is_ok());
    }
    assert_eq!(alarms(&cluster, leader), []);
}

#[test]
fn strangers_take_few_places() {
    let (mut cluster, leader, _) = spoiled("checks-crowd", CheckSettings::default(), 1);
    put(&mut cluster, leader);
    let core = &mut cluster.members[leader].core;
    for number in 0..6 {
        core.handle_hash_request(number, KeyValueHashScan::new(Revision(0)));
    }
    assert_eq!(core.poll_hash(), Some((4, HashTold::Nothing)));
    assert_eq!(core.poll_hash(), Some((5, HashTold::Nothing)));
    assert_eq!(core.poll_hash(), None);
    core.handle_hash_unwanted(0);
    cluster.tick();
    let core = &mut cluster.members[leader].core;
    let told: Vec<u64> = std::iter::from_fn(|| core.poll_hash()).map(|told| told.0).collect();
    assert_eq!(told, [1, 2, 3]);
}
