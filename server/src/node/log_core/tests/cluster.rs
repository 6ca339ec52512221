//! Three log cores that send each other letters.

use super::*;

/// Nothing takes so many turns.
const ROUNDS_MAX: usize = 2_000;

struct Cluster {
    members: Vec<World>,
    /// Those that nobody reaches, and who reach nobody.
    away: Vec<usize>,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let ids: Vec<MemberId> = (1..=3).map(MemberId).collect();
        let found = |&id: &MemberId| World::found(&format!("{name}-{}", id.0), id, &ids);
        let mut cluster = Self { members: ids.iter().map(found).collect(), away: Vec::new() };
        for member in 0..3 {
            for &peer in ids.iter().filter(|peer| peer.0 != member as u64 + 1) {
                cluster.members[member].core.handle_peer(peer, true);
            }
        }
        cluster
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
            if letters.is_empty() {
                return;
            }
            for (from, to, letter) in letters {
                let target = usize::try_from(to.0).unwrap() - 1;
                if !self.away.contains(&from) && !self.away.contains(&target) {
                    let from = MemberId(from as u64 + 1);
                    self.members[target].core.handle_letter(from, letter).unwrap();
                }
            }
        }
        panic!("letters without end");
    }

    fn tick(&mut self) {
        for world in &mut self.members {
            world.tick();
        }
        self.run();
    }

    /// Lets time pass until one member that is not away serves; which.
    fn elect(&mut self) -> usize {
        for _ in 0..100 {
            let leads = |place: &usize| self.members[*place].core.is_serving();
            let leader = (0..3).filter(|place| !self.away.contains(place)).find(leads);
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
    let leaders = (0..3).filter(|place| cluster.members[*place].core.is_serving());
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
