//! Who belongs to the cluster: etcd's checks in etcd's order, and what outlives a restart.

use engine::bbolt::Reader;
use engine::bbolt::schema::{self, Meta};
use engine::command::{MemberAddRef, MemberPublishRef, MemberUpdateRef, MembershipChange, PutRef};
use engine::engine::{Founding, ImportRule, Imported, Membership};
use engine::{LogIndex, Member, MemberId, Outcome, Rejection, Revision, Term};

use crate::driver::{Driver, Frames};
use crate::interchange::backup;

fn urls(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
}

fn member(id: u64, port: u16) -> Member {
    Member { id: MemberId(id), peer_urls: urls(&[port]), ..Member::default() }
}

/// A store of a cluster of three.
pub fn founded(shards: u16) -> Driver {
    let mut driver = Driver::new(shards);
    let members = [member(1, 2380), member(2, 2381), member(3, 2382)];
    let founding =
        Founding { members: &members, conf_state: b"three", applied: LogIndex(3), term: Term(1) };
    assert_eq!(driver.engine.found(&founding).unwrap(), Imported::Done);
    driver
}

fn add(id: u64, port: u16, is_learner: bool, learners_max: u32) -> Frames {
    let peer_urls = urls(&[port]);
    let add = MemberAddRef { id: MemberId(id), peer_urls: &peer_urls, is_learner, learners_max };
    Frames::new().member_add(&add)
}

fn update(id: u64, ports: &[u16]) -> Frames {
    let peer_urls = urls(ports);
    Frames::new().member_update(&MemberUpdateRef { id: MemberId(id), peer_urls: &peer_urls })
}

fn publish(id: u64, name: &str) -> Frames {
    let client_urls = urls(&[u16::try_from(id).unwrap()]);
    let id = MemberId(id);
    Frames::new().member(&MemberPublishRef { id, name, client_urls: &client_urls })
}

fn outcome(driver: &mut Driver, frames: Frames) -> Outcome {
    driver.apply(frames).remove(0).outcome
}

/// The members by id: port, whether it learns, name.
fn roster(driver: &Driver) -> Vec<(u64, String, bool, String)> {
    let members = driver.hold().cluster_members().unwrap();
    let short = |member: Member| {
        let ports: Vec<&str> =
            member.peer_urls.iter().map(|url| url.rsplit(':').next().unwrap()).collect();
        (member.id.0, ports.join(","), member.is_learner, member.name)
    };
    members.into_iter().map(short).collect()
}

#[test]
fn checks_stand_in_etcds_order() {
    let done = Outcome::System;
    let refused = Outcome::Rejected;
    let remove = |id| Frames::new().member_remove(MemberId(id));
    let promote = |id| Frames::new().member_promote(MemberId(id));
    for shards in [1, 4] {
        let mut driver = founded(shards);
        let steps = [
            // An id that is taken counts before a URL that is.
            (add(1, 2381, false, 1), refused(Rejection::MemberIdExists)),
            (add(4, 2381, false, 1), refused(Rejection::PeerUrlExists)),
            // And a URL before the bound on learners.
            (add(4, 2381, true, 0), refused(Rejection::PeerUrlExists)),
            (add(4, 2383, true, 0), refused(Rejection::TooManyLearners)),
            (add(4, 2383, true, 1), done.clone()),
            (add(5, 2384, true, 1), refused(Rejection::TooManyLearners)),
            (add(5, 2384, true, 2), done.clone()),
            (add(6, 2385, false, 1), done.clone()),
            (promote(9), refused(Rejection::MemberIdNotFound)),
            (promote(1), refused(Rejection::MemberNotLearner)),
            (promote(4), done.clone()),
            (promote(4), refused(Rejection::MemberNotLearner)),
            (update(9, &[2390]), refused(Rejection::MemberIdNotFound)),
            (update(2, &[2390, 2380]), refused(Rejection::PeerUrlExists)),
            // Its own are no obstacle.
            (update(2, &[2390, 2381]), done.clone()),
            // Nor is one URL twice.
            (update(2, &[2390, 2390]), done.clone()),
            (remove(9), refused(Rejection::MemberIdNotFound)),
            (remove(3), done.clone()),
            (remove(3), refused(Rejection::MemberIdRemoved)),
            (promote(3), refused(Rejection::MemberIdRemoved)),
            (update(3, &[2380]), refused(Rejection::MemberIdRemoved)),
            (add(3, 2380, true, 0), refused(Rejection::MemberIdRemoved)),
            // Its URL is free again.
            (add(7, 2382, false, 1), done.clone()),
        ];
        for (step, (frames, expected)) in steps.into_iter().enumerate() {
            let before = roster(&driver);
            let found = outcome(&mut driver, frames);
            assert_eq!(found, expected, "{shards} shards, step {step}");
            if matches!(found, Outcome::Rejected(_)) {
                assert_eq!(roster(&driver), before, "step {step}");
            }
        }
        let expected = [
            (1, "2380", false),
            (2, "2390,2390", false),
            (4, "2383", false),
            (5, "2384", true),
            (6, "2385", false),
            (7, "2382", false),
        ];
        let expected: Vec<_> = expected
            .map(|(id, ports, learns)| (id, ports.to_owned(), learns, String::new()))
            .to_vec();
        assert_eq!(roster(&driver), expected);
        assert_eq!(driver.engine.revision(), Revision(1), "members are not part of the history");
        driver.checkpoint();
        driver.reopen();
        assert_eq!(roster(&driver), expected, "members outlive the process");
        assert_eq!(driver.hold().removed_members().unwrap(), [MemberId(3)]);
        assert_eq!(outcome(&mut driver, remove(3)), refused(Rejection::MemberIdRemoved));
    }
}

#[test]
fn what_nobody_of_the_cluster_publishes_is_passed_over() {
    let mut driver = founded(2);
    driver.apply(publish(2, "two"));
    driver.apply(publish(3, "three"));
    driver.apply(Frames::new().member_remove(MemberId(3)));
    assert_eq!(outcome(&mut driver, publish(3, "again")), Outcome::System);
    assert_eq!(outcome(&mut driver, publish(9, "nobody")), Outcome::System);
    let told = |driver: &Driver| {
        let members = driver.hold().members().unwrap();
        members.into_iter().map(|member| (member.id.0, member.name)).collect::<Vec<_>>()
    };
    assert_eq!(told(&driver), [(2, "two".to_owned())]);
    let names: Vec<String> = roster(&driver).into_iter().map(|(_, _, _, name)| name).collect();
    assert_eq!(names, ["", "two"]);
    // A store that names no member takes what it is told, as before members were kept.
    let mut driver = Driver::new(1);
    assert!(!driver.hold().knows_members().unwrap());
    driver.apply(publish(9, "nine"));
    assert_eq!(told(&driver), [(9, "nine".to_owned())]);
    // What was told then does not count once the store says who the members are.
    driver.apply(add(9, 2380, false, 1));
    assert_eq!(roster(&driver), [(9, "2380".to_owned(), false, String::new())]);
}

#[test]
fn a_change_of_the_configuration_and_its_outcome_are_of_one_view() {
    let mut driver = founded(1);
    assert_eq!(driver.engine.conf_state().unwrap().as_deref(), Some(&b"three"[..]));
    let put = Frames::new().put(&PutRef { key: b"k", ..PutRef::default() }).into_batch();
    let two = add(8, 2388, false, 1).member_remove(MemberId(1)).into_batch();
    for foreign in [put, two, update(1, &[2399]).into_batch()] {
        assert_eq!(foreign.membership_change(), None);
        let answered = driver.engine.apply_membership(LogIndex(4), Term(1), &foreign).unwrap();
        assert_eq!(answered, Membership::Foreign);
    }
    assert_eq!(driver.engine.applied(), (LogIndex(3), Term(1)), "nothing was applied");
    let batch = add(4, 2383, true, 1).into_batch();
    let change = MembershipChange::Add { id: MemberId(4), is_learner: true };
    assert_eq!(batch.membership_change(), Some(change));
    let answered = driver.engine.apply_membership(LogIndex(4), Term(2), &batch).unwrap();
    let Membership::Answered(answer) = answered else { panic!("{answered:?}") };
    assert_eq!(answer.outcome, Outcome::System);
    assert_eq!(driver.hold().applied, LogIndex(3), "not before it is published");
    driver.engine.put_conf_state(b"three and one that learns").unwrap();
    driver.engine.publish();
    assert_eq!(driver.hold().applied, LogIndex(4));
    let again = driver.engine.apply_membership(LogIndex(5), Term(2), &batch).unwrap();
    let Membership::Answered(answer) = again else { panic!("{again:?}") };
    assert_eq!(answer.outcome, Outcome::Rejected(Rejection::MemberIdExists));
    driver.engine.publish();
    driver.checkpoint();
    driver.reopen();
    let conf_state = driver.engine.conf_state().unwrap();
    assert_eq!(conf_state.as_deref(), Some(&b"three and one that learns"[..]));
    assert_eq!((roster(&driver).len(), driver.engine.applied()), (4, (LogIndex(5), Term(2))));
}

#[test]
fn an_id_is_founded_once() {
    let mut driver = Driver::new(1);
    let members = [member(1, 2380), member(1, 2381)];
    let founding =
        Founding { members: &members, conf_state: b"", applied: LogIndex(2), term: Term(1) };
    let refused = driver.engine.found(&founding).unwrap();
    assert_eq!(refused, Imported::Refused(ImportRule::MemberId));
    let refused = Driver::new(1).engine.import_member(&member(0, 2380)).unwrap();
    assert_eq!(refused, Imported::Refused(ImportRule::MemberId));
}

#[test]
fn a_backup_tells_the_members_that_the_store_has() {
    let mut driver = founded(2);
    driver.apply(publish(2, "two"));
    driver.apply(add(0xa1, 2383, true, 1));
    driver.apply(Frames::new().member_remove(MemberId(3)));
    let file = backup(&driver, 20);
    let reader = Reader::open(&file[..]).unwrap();
    let pairs = |name: &[u8]| {
        let mut walk = reader.walk(&reader.bucket(name).unwrap().unwrap());
        let mut pairs = Vec::new();
        while let Some((key, value)) = walk.next_pair().unwrap() {
            pairs.push((key.to_vec(), value.to_vec()));
        }
        pairs
    };
    let members: Vec<_> = pairs(schema::MEMBERS)
        .iter()
        .map(|(key, value)| schema::Member::from_pair(key, value).unwrap())
        .map(|member| (member.id.0, member.is_learner, member.name, member.peer_urls))
        .collect();
    let name = |text: &str| text.to_owned();
    let expected = [
        (1, false, name(""), urls(&[2380])),
        (2, false, name("two"), urls(&[2381])),
        (0xa1, true, name(""), urls(&[2383])),
    ];
    assert_eq!(members, expected);
    assert_eq!(pairs(schema::MEMBERS_REMOVED), [(b"3".to_vec(), b"removed".to_vec())]);
    let mut meta = Meta::default();
    for (key, value) in pairs(schema::META) {
        meta.read_pair(&key, &value).unwrap();
    }
    let conf_state = meta.conf_state.unwrap();
    assert_eq!(conf_state.voters, [MemberId(1), MemberId(2)]);
    assert_eq!(conf_state.learners, [MemberId(0xa1)]);
}
