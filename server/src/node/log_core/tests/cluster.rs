//! Several log cores that send each other letters.

use std::collections::BTreeMap;

use engine::hash::KeyValueHashScan;

use super::*;
use crate::metrics::cell::Counter;
use crate::metrics::promotions::PromotionFailure;
use crate::peer::letter::Letter;
use crate::peer::link::SNAPSHOT_QUEUE_BYTES_MAX;

mod checks;
mod stores;

/// Nothing takes so many turns.
const ROUNDS_MAX: usize = 20_000;

struct Cluster {
    name: String,
    members: Vec<World>,
    /// Those that nobody reaches, and who reach nobody.
    away: Vec<usize>,
    /// Connections for stores that are up.
    lanes: BTreeMap<(usize, usize), bool>,
    /// Who receives other values than were sent.
    spoiled: Option<usize>,
    /// Whose answers about hashes are lost.
    mute: Option<usize>,
}

impl Cluster {
    fn new(name: &str) -> Self {
        Self::new_in(name, SEGMENT_SIZE_BYTES)
    }

    /// The same with logs of such segments.
    fn new_in(name: &str, segment_size_bytes: u64) -> Self {
        let ids: Vec<MemberId> = (1..=3).map(MemberId).collect();
        let found = |&id: &MemberId| {
            World::found_in(&format!("{name}-{}", id.0), id, &ids, segment_size_bytes)
        };
        let members = ids.iter().map(found).collect();
        let (away, lanes) = (Vec::new(), BTreeMap::new());
        let mut cluster =
            Self { name: name.to_owned(), members, away, lanes, spoiled: None, mute: None };
        cluster.connect();
        cluster
    }

    /// Everybody has found everybody.
    fn connect(&mut self) {
        let count = self.members.len();
        for member in 0..count {
            for peer in (0..count).filter(|peer| *peer != member) {
                self.members[member].core.handle_peer(id_of(peer), true);
            }
        }
    }

    /// A member without anything, which nobody has added yet.
    fn join(&mut self) -> usize {
        let place = self.members.len();
        let name = format!("{}-{}", self.name, place + 1);
        self.members.push(World::found(&name, id_of(place), &[]));
        self.connect();
        place
    }

    /// Turns of all members, and the letters between them, until nobody has anything to say.
    fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut letters = Vec::new();
            for (place, world) in self.members.iter_mut().enumerate() {
                world.run();
                while let Some((to, letter)) = world.core.poll_letter() {
                    letters.push((place, to, letter));
                }
            }
            if letters.is_empty() && !self.move_lanes() {
                return;
            }
            let mut queued = BTreeMap::<(usize, MemberId), usize>::new();
            for (from, to, letter) in letters {
                if let Letter::SnapshotChunk(chunk) = &letter {
                    let queued_bytes = queued.entry((from, to)).or_default();
                    *queued_bytes += chunk.records.len();
                    // A connection drops what it has no room for.
                    if *queued_bytes > SNAPSHOT_QUEUE_BYTES_MAX {
                        continue;
                    }
                }
                self.deliver(from, to, letter);
            }
        }
        panic!("letters without end");
    }

    fn deliver(&mut self, from: usize, to: MemberId, mut letter: Letter) {
        let target = usize::try_from(to.0).unwrap() - 1;
        if self.spoiled == Some(target) {
            checks::spoil(&mut letter);
        }
        if self.mute == Some(from) && matches!(letter, Letter::HashAnswer(_)) {
            return;
        }
        let is_there = |place| !self.away.contains(&place);
        if target < self.members.len() && is_there(from) && is_there(target) {
            self.members[target].core.handle_letter(id_of(from), letter).unwrap();
        }
    }

    /// Whether a connection for stores came up or broke.
    fn move_lanes(&mut self) -> bool {
        let mut has_moved = false;
        let count = self.members.len();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let is_cut = self.away.contains(&from) || self.away.contains(&to);
                let core = &mut self.members[from].core;
                let is_up = core.wants_snapshot_lane(id_of(to)) && !is_cut;
                if self.lanes.insert((from, to), is_up).unwrap_or(false) != is_up {
                    has_moved = true;
                    core.handle_snapshot_lane(id_of(to), is_up);
                }
            }
        }
        has_moved
    }

    fn tick(&mut self) {
        for world in &mut self.members {
            world.tick();
        }
        self.run();
    }

    /// Lets time pass until one member that is not away leads; which.
    fn elect(&mut self) -> usize {
        for _ in 0..100 {
            let leads = |place: &usize| self.members[*place].core.is_primary();
            let count = self.members.len();
            let leader = (0..count).filter(|place| !self.away.contains(place)).find(leads);
            if let Some(leader) = leader {
                return leader;
            }
            self.tick();
        }
        panic!("nobody comes to lead");
    }

    fn revisions(&self) -> Vec<i64> {
        self.members.iter().map(|world| world.core.engine().revision().0).collect()
    }

    /// What all members say of the whole history.
    fn hashes(&self) -> Vec<u32> {
        let hash = |world: &World| {
            let mut handle = world.core.engine().read_handle();
            let view = handle.pin();
            let mut scan = KeyValueHashScan::new(Revision(0));
            while scan.step(&view, usize::MAX).unwrap() == Progress::More {}
            scan.result().unwrap().hash
        };
        self.members.iter().map(hash).collect()
    }

    fn change(
        &mut self,
        place: usize,
        push: impl FnOnce(&mut FrameWriter, &mut Vec<u8>),
    ) -> Result<Outcome, Unavailable> {
        let slot = self.members[place].change(push);
        for _ in 0..100 {
            self.tick();
            if self.members[place].is_answered(slot) {
                break;
            }
        }
        self.members[place].take_outcome(slot)
    }

    fn add(
        &mut self,
        place: usize,
        id: MemberId,
        is_learner: bool,
    ) -> Result<Outcome, Unavailable> {
        let peer_urls = named(id).peer_urls;
        let add = MemberAddRef { id, peer_urls: &peer_urls, is_learner, learners_max: 1 };
        self.change(place, |writer, frames| writer.push_member_add(frames, &add))
    }
}

fn id_of(place: usize) -> MemberId {
    MemberId(place as u64 + 1)
}

#[test]
fn what_a_leader_takes_reaches_all() {
    let mut cluster = Cluster::new("cluster-takes");
    let leader = cluster.elect();
    let put = cluster.members[leader].put("key", b"value");
    cluster.run();
    assert!(cluster.members[leader].take_outcome(put).is_ok());
    cluster.tick();
    assert_eq!(cluster.revisions(), [2; 3]);
}

#[test]
fn a_followers_put_goes_to_the_leader_and_is_answered_where_it_was_asked() {
    let mut cluster = Cluster::new("cluster-forwards");
    let leader = cluster.elect();
    for follower in (0..3).filter(|place| *place != leader) {
        let puts: Vec<Slot> = (0..3)
            .map(|number| cluster.members[follower].put(&format!("key{number}"), b"value"))
            .collect();
        cluster.run();
        cluster.tick();
        for put in puts {
            assert!(matches!(cluster.members[follower].take_outcome(put), Ok(Outcome::Put { .. })));
        }
    }
    assert_eq!(cluster.revisions(), [7; 3]);
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_what_it_took_alone_is_lost() {
    let mut cluster = Cluster::new("cluster-cut");
    let old = cluster.elect();
    cluster.away.push(old);
    let lost = cluster.members[old].put("lost", b"value");
    cluster.run();
    assert!(!cluster.members[old].is_answered(lost), "nobody else has it");
    let new = cluster.elect();
    assert_ne!(new, old);
    let put = cluster.members[new].put("kept", b"value");
    cluster.run();
    assert!(cluster.members[new].take_outcome(put).is_ok());
    cluster.away.clear();
    for _ in 0..30 {
        cluster.tick();
    }
    assert!(cluster.members[old].take_outcome(lost).is_err());
    assert_eq!(cluster.revisions(), [2; 3]);
    let leaders = (0..3).filter(|place| cluster.members[*place].core.is_primary());
    assert_eq!(leaders.count(), 1);
}

#[test]
fn a_put_that_the_leader_never_got_times_out() {
    let mut cluster = Cluster::new("cluster-timeout");
    let leader = cluster.elect();
    let follower = (leader + 1) % 3;
    cluster.away.push(follower);
    let put = cluster.members[follower].put("key", b"value");
    for _ in 0..80 {
        cluster.tick();
    }
    assert_eq!(cluster.members[follower].take_outcome(put), Err(Unavailable::TimedOut));
}

#[test]
fn a_member_that_was_away_for_long_gets_the_whole_store() {
    let mut cluster = Cluster::new("cluster-store");
    let leader = cluster.elect();
    let away = (leader + 1) % 3;
    cluster.away.push(away);
    for part in 0..20 {
        cluster.members[leader].begin_fill(part * 100..(part + 1) * 100, &[7; 2000]);
        cluster.run();
    }
    cluster.away.clear();
    for _ in 0..40 {
        cluster.tick();
    }
    assert_eq!(cluster.revisions(), [2001; 3]);
    let hashes = cluster.hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    // It goes on like any other.
    let put = cluster.members[away].put("after", b"value");
    cluster.tick();
    assert!(cluster.members[away].take_outcome(put).is_ok());
    cluster.tick();
    assert_eq!(cluster.revisions(), [2002; 3]);
}

/// Found by the drill of real clusters: a batch that went to the leader was in the store that came,
/// where nobody told the member of it, and for its whole time-out no small batch followed it.
#[test]
fn a_member_whose_batch_comes_with_the_store_goes_on_at_once() {
    let mut cluster = Cluster::new("cluster-store-batch");
    let leader = cluster.elect();
    let away = (leader + 1) % 3;
    cluster.away.push(away);
    let before = cluster.members[away].put("before", b"value");
    cluster.members[away].run();
    while let Some((_, letter)) = cluster.members[away].core.poll_letter() {
        if matches!(letter, Letter::Forward(_)) {
            cluster.members[leader].core.handle_letter(id_of(away), letter).unwrap();
        }
    }
    for part in 0..20 {
        cluster.members[leader].begin_fill(part * 100..(part + 1) * 100, &[7; 2000]);
        cluster.run();
    }
    cluster.away.clear();
    for _ in 0..40 {
        cluster.tick();
    }
    assert_eq!(cluster.revisions(), [2002; 3]);
    assert!(!cluster.members[away].is_answered(before), "its fate is not known there");
    let put = cluster.members[away].put("after", b"value");
    cluster.tick();
    assert!(cluster.members[away].take_outcome(put).is_ok());
}

#[test]
fn a_store_on_its_way_survives_broken_connections() {
    let mut cluster = Cluster::new("cluster-broken");
    let leader = cluster.elect();
    let away = (leader + 1) % 3;
    cluster.away.push(away);
    for part in 0..30 {
        cluster.members[leader].begin_fill(part * 100..(part + 1) * 100, &[7; 2000]);
        cluster.run();
    }
    cluster.away.clear();
    let (mut chunks, mut breaks) = (0, 0);
    for round in 0..4000 {
        if round % 40 == 0 {
            for world in &mut cluster.members {
                world.tick();
            }
        }
        let mut letters = Vec::new();
        for (place, world) in cluster.members.iter_mut().enumerate() {
            world.turn();
            while let Some((to, letter)) = world.core.poll_letter() {
                letters.push((place, to, letter));
            }
        }
        cluster.move_lanes();
        for (from, to, letter) in letters {
            // Every fifth chunk is lost, with its connection.
            chunks += usize::from(matches!(letter, Letter::SnapshotChunk(_)));
            if chunks == 5 {
                (chunks, breaks) = (0, breaks + 1);
                let core = &mut cluster.members[from].core;
                core.handle_snapshot_lane(to, false);
                core.handle_snapshot_lane(to, true);
                continue;
            }
            cluster.deliver(from, to, letter);
        }
    }
    assert!(breaks > 2, "{breaks}");
    for _ in 0..20 {
        cluster.tick();
    }
    let hashes = cluster.hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[test]
fn a_cluster_grows_by_a_learner_that_is_promoted_and_loses_a_member() {
    let mut cluster = Cluster::new("cluster-grows");
    let leader = cluster.elect();
    let put = cluster.members[leader].put("key", b"value");
    cluster.run();
    assert!(cluster.members[leader].take_outcome(put).is_ok());
    // Asked of a follower, so that it travels.
    let asked = (leader + 1) % 3;
    assert!(matches!(cluster.add(asked, id_of(3), true), Ok(Outcome::System)));
    let refused = cluster.add(asked, id_of(3), true);
    assert!(matches!(refused, Ok(Outcome::Rejected(Rejection::MemberIdExists))), "{refused:?}");
    let refused = cluster.add(asked, id_of(7), true);
    assert!(matches!(refused, Ok(Outcome::Rejected(Rejection::TooManyLearners))), "{refused:?}");
    let new = cluster.join();
    for _ in 0..40 {
        cluster.tick();
    }
    assert_eq!(cluster.revisions(), [2; 4]);
    assert!(cluster.members[new].core.changes.is_learner());
    let promoted =
        cluster.change(asked, |writer, frames| writer.push_member_promote(frames, id_of(new)));
    assert!(matches!(promoted, Ok(Outcome::System)), "{promoted:?}");
    for world in &cluster.members {
        assert_eq!(world.core.consensus.conf_state().voters.len(), 4);
        assert_eq!(world.core.members().len(), 4);
    }
    let again =
        cluster.change(asked, |writer, frames| writer.push_member_promote(frames, id_of(new)));
    assert!(matches!(again, Ok(Outcome::Rejected(Rejection::MemberNotLearner))), "{again:?}");
    // Whoever leads counts them.
    for (place, world) in cluster.members.iter().enumerate() {
        let promotions = &world.core.meter.metrics().promotions;
        let failed: Vec<_> = promotions.failed().collect();
        let expected = (1, vec![(PromotionFailure::NotLearner, 1)]);
        let expected = if place == leader { expected } else { Default::default() };
        assert_eq!((promotions.succeeded(), failed), expected, "member {place}");
    }
    let removed =
        cluster.change(asked, |writer, frames| writer.push_member_remove(frames, id_of(leader)));
    assert!(matches!(removed, Ok(Outcome::System)), "{removed:?}");
    cluster.away.push(leader);
    let next = cluster.elect();
    let put = cluster.members[next].put("key", b"value");
    cluster.run();
    assert!(cluster.members[next].take_outcome(put).is_ok());
    assert_eq!(cluster.members[next].core.members().len(), 3);
    assert_eq!(cluster.members[next].core.removed(), [id_of(leader)]);
}

#[test]
fn leadership_moves_to_whom_it_is_wanted_to() {
    let mut cluster = Cluster::new("cluster-moves");
    let leader = cluster.elect();
    let target = (leader + 1) % 3;
    let mut ask = |place: usize, to: MemberId| {
        let slot = cluster.members[place].ask_move(to);
        cluster.tick();
        cluster.members[place].answers.remove(&slot)
    };
    let unavailable = |verdict, reason| match verdict {
        Some(Verdict::Unavailable(found)) => assert_eq!(found, reason),
        other => panic!("{other:?}"),
    };
    unavailable(ask(target, id_of(target)), Unavailable::NotLeader);
    unavailable(ask(leader, MemberId(99)), Unavailable::BadTransferee);
    assert!(matches!(ask(leader, id_of(leader)), Some(Verdict::Moved)));
    assert!(matches!(ask(leader, id_of(target)), Some(Verdict::Moved)));
    assert_eq!(cluster.elect(), target);
}

#[test]
fn a_lease_is_kept_alive_through_a_follower() {
    let mut cluster = Cluster::new("cluster-lease");
    let leader = cluster.elect();
    let follower = (leader + 1) % 3;
    let grant = LeaseGrantRef { id: LeaseId(7), ttl_seconds: 10 };
    let slot =
        cluster.members[follower].ask(|writer, frames| writer.push_lease_grant(frames, grant));
    cluster.tick();
    assert!(cluster.members[follower].take_outcome(slot).is_ok());
    let asks = [
        LeaseAsk::Renew { id: LeaseId(7), sequence: 5 },
        LeaseAsk::TimeToLive(LeaseId(7)),
        LeaseAsk::Renew { id: LeaseId(8), sequence: 6 },
    ];
    let asks = asks.into_iter().map(|ask| (Slot(0), ask)).collect();
    let ask = Ask { leases: asks, ..Ask::default() };
    let world = &mut cluster.members[follower];
    world.core.handle_ask(FRONTEND, &ask, world.now);
    cluster.tick();
    let lives = |ttl_seconds| Renewed::Lives { ttl_seconds };
    let expected = [
        LeaseReply::Renewed { sequence: 5, renewed: lives(10) },
        LeaseReply::Renewed { sequence: 6, renewed: lives(0) },
    ];
    let leases = &cluster.members[follower].leases;
    assert!(expected.iter().all(|reply| leases.contains(reply)), "{leases:?}");
    assert!(leases.iter().any(|it| matches!(it, LeaseReply::TimeToLive(Some((_, 10))))));
}

/// Found by comparing with etcd: a follower whose disk was faster than the leader's had granted a
/// lease, asked the leader about it, and was told that there is none.
#[test]
fn a_leader_with_a_slow_disk_knows_the_lease_that_others_have_applied() {
    let mut cluster = Cluster::new("cluster-slow-leader");
    let leader = cluster.elect();
    let follower = (leader + 1) % 3;
    let grant = LeaseGrantRef { id: LeaseId(7), ttl_seconds: 10 };
    let slot =
        cluster.members[follower].ask(|writer, frames| writer.push_lease_grant(frames, grant));
    cluster.members[leader].is_log_held = true;
    cluster.tick();
    cluster.tick();
    assert!(cluster.members[follower].take_outcome(slot).is_ok());
    let leases = vec![(Slot(0), LeaseAsk::TimeToLive(LeaseId(7)))];
    let world = &mut cluster.members[follower];
    world.core.handle_ask(FRONTEND, &Ask { leases, ..Ask::default() }, world.now);
    cluster.run();
    assert!(cluster.members[follower].leases.is_empty(), "the leader cannot know");
    cluster.members[leader].is_log_held = false;
    cluster.run();
    let leases = &cluster.members[follower].leases;
    assert!(matches!(leases[..], [LeaseReply::TimeToLive(Some((_, 10)))]), "{leases:?}");
}

/// Found in review: raft-rs has a leader that is no member any more look for itself among them.
#[test]
fn a_leader_that_removes_itself_with_more_under_way_steps_down() {
    let mut cluster = Cluster::new("cluster-resigns");
    let leader = cluster.elect();
    let own = id_of(leader);
    let removed = cluster.members[leader].change(|writer, frames| {
        writer.push_member_remove(frames, own);
    });
    let mut puts = Vec::new();
    for number in 0..40 {
        puts.push(cluster.members[leader].put(&format!("key{number}"), &[7; 30_000]));
        cluster.members[leader].turn();
    }
    cluster.run();
    for _ in 0..40 {
        cluster.tick();
    }
    assert!(matches!(cluster.members[leader].take_outcome(removed), Ok(Outcome::System)));
    cluster.away.push(leader);
    let next = cluster.elect();
    assert_ne!(next, leader);
    assert!(!cluster.members[leader].core.consensus.is_leader());
    // What it answered is there.
    let taken = puts.into_iter().filter(|put| {
        let world = &mut cluster.members[leader];
        world.is_answered(*put) && world.take_outcome(*put).is_ok()
    });
    let taken = i64::try_from(taken.count()).unwrap();
    assert!(cluster.members[next].core.engine().revision().0 > taken);
}

/// Found in review: a leader that was stopped for long renewed a lease before it had heard that
/// another one led meanwhile.
#[test]
fn a_leader_that_was_paused_renews_nothing_before_it_knows_that_it_leads() {
    let mut cluster = Cluster::new("cluster-paused");
    let leader = cluster.elect();
    let grant = LeaseGrantRef { id: LeaseId(7), ttl_seconds: 60 };
    let slot = cluster.members[leader].ask(|writer, frames| writer.push_lease_grant(frames, grant));
    cluster.run();
    assert!(cluster.members[leader].take_outcome(slot).is_ok());
    cluster.tick();
    let world = &mut cluster.members[leader];
    world.now += Duration::from_secs(5);
    world.core.handle_tick(world.now);
    let leases = vec![(Slot(0), LeaseAsk::Renew { id: LeaseId(7), sequence: 1 })];
    world.core.handle_ask(FRONTEND, &Ask { leases, ..Ask::default() }, world.now);
    world.turn();
    assert!(world.leases.is_empty(), "nobody has confirmed that it leads");
    cluster.run();
    let renewed = Renewed::Lives { ttl_seconds: 60 };
    let leases = &cluster.members[leader].leases;
    assert_eq!(leases[..], [LeaseReply::Renewed { sequence: 1, renewed }]);
}

impl Cluster {
    /// Time passes for those who are not away, in steps far shorter than a heartbeat's interval.
    fn pass(&mut self, time: Duration) {
        const STEP: Duration = Duration::from_millis(2);
        let end = self.members[0].now + time;
        while self.members[0].now < end {
            let is_tick = self.members[0].now.as_millis().is_multiple_of(TICK.as_millis());
            for world in &mut self.members {
                world.now += STEP;
                if is_tick {
                    world.core.handle_tick(world.now);
                }
            }
            self.run();
        }
    }

    /// A member hears that another one's process is gone.
    fn lose(&mut self, place: usize, lost: usize) {
        let world = &mut self.members[place];
        world.core.handle_peer(id_of(lost), false);
        world.core.handle_absent(id_of(lost), world.now);
    }
}

/// The three processes of a cluster would otherwise wait for one to two seconds.
#[test]
fn a_leader_whose_process_is_gone_has_a_successor_within_a_few_heartbeats() {
    let mut cluster = Cluster::new("cluster-gone");
    let old = cluster.elect();
    let term = cluster.members[old].core.term();
    cluster.away.push(old);
    let [first, second] = [(old + 1) % 3, (old + 2) % 3];
    cluster.lose(first, old);
    assert_eq!(cluster.members[first].core.leader(), None);
    // Whoever knows it first cannot win alone: the other one has heard the leader just now.
    cluster.pass(TICK);
    assert_eq!(cluster.members[first].core.term(), term);
    assert_eq!(cluster.members[second].core.leader(), Some(id_of(old)));
    cluster.lose(second, old);
    cluster.pass(TICK * 8);
    let leaders = [first, second].map(|place| cluster.members[place].core.is_primary());
    assert!(leaders[0] != leaders[1], "{leaders:?}");
    assert!([first, second].iter().all(|place| cluster.members[*place].core.succession.is_none()));
}

#[test]
fn a_leader_that_is_thought_gone_and_lives_goes_on_leading() {
    let mut cluster = Cluster::new("cluster-thought-gone");
    let leader = cluster.elect();
    let term = cluster.members[leader].core.term();
    let wrong = (leader + 1) % 3;
    let is_as_before = |cluster: &Cluster| {
        cluster
            .members
            .iter()
            .all(|world| (world.core.leader(), world.core.term()) == (Some(id_of(leader)), term))
    };
    // Its heartbeats come: the next one says so.
    cluster.lose(wrong, leader);
    cluster.members[wrong].core.handle_peer(id_of(leader), true);
    cluster.pass(TICK * 15);
    assert!(is_as_before(&cluster));
    // They do not come, because a wall has gone up around this member alone; nobody hears it.
    cluster.lose(wrong, leader);
    cluster.away.push(wrong);
    cluster.pass(TICK * 15);
    assert_eq!(cluster.members[wrong].core.leader(), None);
    cluster.away.clear();
    cluster.members[wrong].core.handle_peer(id_of(leader), true);
    cluster.pass(TICK * 5);
    assert!(is_as_before(&cluster));
    // It hears the others, but not the leader: they tell it nothing that would let it stand.
    cluster.lose(wrong, leader);
    for _ in 0..5 {
        for world in &mut cluster.members {
            world.now += TICK;
            world.core.handle_tick(world.now);
        }
        for _ in 0..20 {
            let mut letters = Vec::new();
            for (place, world) in cluster.members.iter_mut().enumerate() {
                world.run();
                while let Some((to, letter)) = world.core.poll_letter() {
                    letters.push((place, to, letter));
                }
            }
            for (from, to, letter) in letters {
                let ends = [id_of(from), to];
                if ends != [id_of(leader), id_of(wrong)] && ends != [id_of(wrong), id_of(leader)] {
                    cluster.deliver(from, to, letter);
                }
            }
        }
    }
    assert_eq!(cluster.members[wrong].core.term(), term);
    cluster.pass(TICK * 5);
    assert!(is_as_before(&cluster));
}

/// A leader that sees no majority may have a successor before it knows: what it then says of a
/// lease's life may not be so.
#[test]
fn a_leader_that_sees_no_majority_renews_nothing_before_it_knows_that_it_leads() {
    let mut cluster = Cluster::new("cluster-isolated");
    let leader = cluster.elect();
    let grant = LeaseGrantRef { id: LeaseId(7), ttl_seconds: 10 };
    let slot = cluster.members[leader].ask(|writer, frames| writer.push_lease_grant(frames, grant));
    cluster.run();
    assert!(cluster.members[leader].take_outcome(slot).is_ok());
    let renew = |world: &mut World| {
        world.leases.clear();
        let leases = vec![(Slot(0), LeaseAsk::Renew { id: LeaseId(7), sequence: 1 })];
        world.core.handle_ask(FRONTEND, &Ask { leases, ..Ask::default() }, world.now);
    };
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.members[leader].core.handle_peer(id_of(others[0]), false);
    renew(&mut cluster.members[leader]);
    cluster.run();
    assert_eq!(cluster.members[leader].leases.len(), 1, "one more is a majority");
    cluster.away.extend(others);
    cluster.members[leader].core.handle_peer(id_of(others[1]), false);
    renew(&mut cluster.members[leader]);
    cluster.run();
    assert!(cluster.members[leader].leases.is_empty());
    cluster.away.clear();
    for _ in 0..10 {
        cluster.tick();
    }
    let leases = &cluster.members[leader].leases;
    let lives = Renewed::Lives { ttl_seconds: 10 };
    assert_eq!(leases[..], [LeaseReply::Renewed { sequence: 1, renewed: lives }]);
}

/// The revoke of a lease that ran out may wait for the disk of a leader that is no leader any more,
/// and then goes to the next one, who has given the lease its time anew.
#[test]
fn what_ran_out_under_one_leader_lives_under_the_next() {
    let mut cluster = Cluster::new("cluster-lease-terms");
    let old = cluster.elect();
    let grant = LeaseGrantRef { id: LeaseId(7), ttl_seconds: 2 };
    let slot = cluster.members[old].ask(|writer, frames| writer.push_lease_grant(frames, grant));
    cluster.run();
    assert!(cluster.members[old].take_outcome(slot).is_ok());
    // With a write on its way to a disk that hangs, revokes wait for it.
    cluster.members[old].is_log_held = true;
    cluster.members[old].put("key", b"value");
    for _ in 0..22 {
        cluster.tick();
    }
    assert!(cluster.members[old].core.batcher.has_waiting(), "the lease has run out");
    cluster.away.push(old);
    let new = cluster.elect();
    assert_ne!(new, old);
    cluster.away.clear();
    cluster.members[old].is_log_held = false;
    for _ in 0..5 {
        cluster.tick();
    }
    assert!(!cluster.members[old].core.batcher.has_waiting(), "the revoke has gone its way");
    let left = cluster.members[new].ask_lease(LeaseAsk::TimeToLive(LeaseId(7)));
    assert!(matches!(left, Some(LeaseReply::TimeToLive(Some((1.., 2))))), "{left:?}");
}

#[test]
fn a_late_heartbeat_is_counted_for_each_other_member() {
    let mut cluster = Cluster::new("cluster-late");
    let leader = cluster.elect();
    let late = |cluster: &Cluster| {
        let metrics = |world: &World| world.core.meter.metrics().heartbeats_late.get();
        cluster.members.iter().map(metrics).collect::<Vec<_>>()
    };
    let mut expected = late(&cluster);
    for world in &mut cluster.members {
        world.now += 5 * TICK;
    }
    cluster.tick();
    expected[leader] += 2;
    assert_eq!(late(&cluster), expected);
}

/// What a member keeps for others, and for its own next start: entries in memory, those that the
/// log keeps, and bytes of the log and of the store.
fn kept(world: &World) -> [u64; 4] {
    let count = |number: usize| u64::try_from(number).unwrap();
    let log = world.log.segments().into_iter().map(|it| world.log.bytes(it).len()).sum();
    let core = &world.core;
    let entries = [core.consensus.held_entries(), core.retained.len(), log];
    let [held, retained, log] = entries.map(count);
    [held, retained, log, core.engine.file_size_bytes()]
}

/// An hour of writes while a member is away.
#[test]
fn who_is_away_for_an_hour_costs_the_others_no_more_than_who_is_away_for_minutes() {
    const MINUTE_TICKS: usize = 600;
    let mut cluster = Cluster::new("cluster-hour");
    let window = Window { entries_max: 500, size_bytes_max: 256 << 10 };
    for world in &mut cluster.members {
        world.core.set_window(window);
        let log_end = world.core.wal.durable().0;
        world.core.checkpoint = CheckpointPolicy::new(1000, log_end, Tail::default());
    }
    let leader = cluster.elect();
    let away = (leader + 1) % 3;
    cluster.away.push(away);
    let mut most = Vec::new();
    for minute in 0..60 {
        let mut most_in_minute = [0; 4];
        for tick in 0..MINUTE_TICKS {
            let first = (minute * MINUTE_TICKS + tick) % 500;
            let slots = cluster.members[leader].begin_fill(first..first + 4, &[7; 300]);
            cluster.tick();
            for slot in slots {
                assert!(cluster.members[leader].take_outcome(slot).is_ok());
            }
            for (place, world) in cluster.members.iter().enumerate() {
                for (most, now) in most_in_minute.iter_mut().zip(kept(world)) {
                    *most = if place == away { *most } else { now.max(*most) };
                }
            }
        }
        most.push(most_in_minute);
    }
    let at_most = |minutes: &[[u64; 4]]| {
        let most = |of: usize| minutes.iter().map(|kept| kept[of]).max().unwrap();
        [0, 1, 2, 3].map(most)
    };
    // History is compacted every five minutes, to the last revisions.
    let (early, late) = (at_most(&most[..20]), at_most(&most[40..]));
    for (early, late) in early.into_iter().zip(late) {
        assert!(late <= early + early / 4, "{most:?}");
    }
    assert!(late[0] <= 600, "{late:?}");
    cluster.away.clear();
    for _ in 0..100 {
        cluster.tick();
    }
    let hashes = cluster.hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}
