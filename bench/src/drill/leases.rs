//! The leases of a drill: what was asked for, what was acknowledged, and what was found afterwards.
//!
//! It owns no socket and reads no clock: times are those since the drill began, given by whoever
//! makes the calls.
//!
//! Invariants:
//! - A lease or a key is in the history before its request is sent.
//! - A lease must be there until the time to live that was acknowledged last has run out, counted
//!   from the sending of the request, unless its revocation was asked for.
//! - What was once found gone stays gone, the lease and its keys.

use std::collections::HashSet;
use std::time::Duration;

use super::history::Found;

/// Keys of one lease at most.
pub const LEASE_KEYS_MAX: u64 = 4;

/// What is known of a key of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyState {
    Unknown,
    Written,
    Lost,
}

/// What is known of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Revocation {
    NotAsked,
    Unknown,
    Done,
}

#[derive(Debug)]
struct Lease {
    keys: Vec<KeyState>,
    revocation: Revocation,
    /// Until then it must be there; nothing for a grant that was never acknowledged.
    alive_until: Option<Duration>,
    gone: bool,
}

impl Lease {
    fn must_live(&self, now: Duration) -> bool {
        self.revocation == Revocation::NotAsked
            && self.alive_until.is_some_and(|alive_until| now < alive_until)
    }
}

/// A key under the prefix of the leases' keys, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseKey {
    /// The number in the key.
    pub index: u64,
    /// The lease that it is attached to.
    pub lease: u64,
}

/// What was read after a restart: the leases, then their keys, then the leases again.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The ids of all leases, read before the keys.
    pub before: &'a [u64],
    /// All keys of leases.
    pub keys: &'a [LeaseKey],
    /// The ids of all leases, read after the keys.
    pub after: &'a [u64],
    /// When the last answer had come.
    pub now: Duration,
}

/// How many leases there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not known to be gone.
    pub there: usize,
    /// Acknowledged, and gone without having been asked to.
    pub ran_out: usize,
    /// Revoked, or never granted.
    pub ended: usize,
}

/// All leases of a drill. A lease's id is one more than its number.
#[derive(Debug, Default)]
pub struct LeaseHistory {
    leases: Vec<Lease>,
}

impl LeaseHistory {
    /// A grant is about to be sent; gives the lease's id.
    pub fn begin_grant(&mut self) -> u64 {
        self.leases.push(Lease {
            keys: Vec::new(),
            revocation: Revocation::NotAsked,
            alive_until: None,
            gone: false,
        });
        self.leases.len() as u64
    }

    /// A grant or a keep-alive that was sent at a time gave so much time to live.
    pub fn handle_alive(&mut self, id: u64, sent: Duration, ttl_seconds: u64) {
        self.lease(id).alive_until = Some(sent + Duration::from_secs(ttl_seconds));
    }

    /// A put of a further key is about to be sent; gives the key's index, if there is room.
    pub fn begin_put(&mut self, id: u64) -> Option<u64> {
        let keys = &mut self.lease(id).keys;
        let index = (id - 1) * LEASE_KEYS_MAX + keys.len() as u64;
        (index < id * LEASE_KEYS_MAX).then(|| {
            keys.push(KeyState::Unknown);
            index
        })
    }

    /// The put of a key was acknowledged.
    pub fn handle_put(&mut self, index: u64) {
        let lease = self.lease(index / LEASE_KEYS_MAX + 1);
        lease.keys[place(index % LEASE_KEYS_MAX)] = KeyState::Written;
    }

    /// A revocation is about to be sent.
    pub fn begin_revoke(&mut self, id: u64) {
        self.lease(id).revocation = Revocation::Unknown;
    }

    /// A revocation was acknowledged.
    pub fn handle_revoked(&mut self, id: u64) {
        self.lease(id).revocation = Revocation::Done;
    }

    /// Until when a lease must be there, if its grant was acknowledged.
    pub fn alive_until(&mut self, id: u64) -> Option<Duration> {
        self.lease(id).alive_until
    }

    /// A call was told that there is no such lease: says so if that cannot be.
    pub fn handle_missing(&mut self, id: u64, now: Duration) -> Option<String> {
        let lease = self.lease(id);
        let until = lease.alive_until;
        lease.must_live(now).then(|| format!("lease {id} is gone at {now:?}, due until {until:?}"))
    }

    /// The ids of leases that are there for all that is known: newest first, at most so many.
    pub fn candidates(&self, count: usize) -> Vec<u64> {
        let there = |lease: &Lease| {
            !lease.gone && lease.revocation == Revocation::NotAsked && lease.alive_until.is_some()
        };
        let newest = self.leases.iter().enumerate().rev().filter(|(_, lease)| there(lease));
        newest.take(count).map(|(number, _)| number as u64 + 1).collect()
    }

    /// How many leases there are, by what is known of them.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for lease in &self.leases {
            let ran_out = lease.revocation == Revocation::NotAsked && lease.alive_until.is_some();
            match (lease.gone, ran_out) {
                (false, _) => counts.there += 1,
                (true, true) => counts.ran_out += 1,
                (true, false) => counts.ended += 1,
            }
        }
        counts
    }

    /// Judges what a restarted server shows, and settles what was unknown by it.
    pub fn judge(&mut self, seen: &Seen<'_>, found: &mut Found) {
        let before: HashSet<u64> = seen.before.iter().copied().collect();
        let after: HashSet<u64> = seen.after.iter().copied().collect();
        for &id in before.union(&after) {
            if id == 0 || id > self.leases.len() as u64 {
                found.wrong(format!("lease {id} was never asked for"));
            }
        }
        let mut present: HashSet<u64> = HashSet::new();
        for &key in seen.keys {
            found.keys_count += 1;
            self.judge_key(key, &before, found);
            present.insert(key.index);
        }
        for (number, lease) in self.leases.iter_mut().enumerate() {
            let id = number as u64 + 1;
            judge_lease(id, lease, (before.contains(&id), after.contains(&id)), seen.now, found);
            if after.contains(&id) && !lease.gone {
                // It was there after the keys were read, so none of them had gone with it.
                judge_keys(id, lease, &present, found);
            }
        }
    }

    /// A key that is there belongs to a lease that was there a moment before.
    fn judge_key(&self, key: LeaseKey, before: &HashSet<u64>, found: &mut Found) {
        let id = key.index / LEASE_KEYS_MAX + 1;
        let lease = usize::try_from(id - 1).ok().and_then(|number| self.leases.get(number));
        let state = lease.and_then(|lease| lease.keys.get(place(key.index % LEASE_KEYS_MAX)));
        match state {
            None => found.wrong(format!("{key:?} was never written")),
            Some(KeyState::Lost) => found.wrong(format!("{key:?} was lost, and is there again")),
            Some(_) if key.lease != id => found.wrong(format!("{key:?} belongs to lease {id}")),
            Some(_) if !before.contains(&id) => {
                found.wrong(format!("{key:?} is there, but its lease is gone"));
            }
            Some(_) => {}
        }
    }

    fn lease(&mut self, id: u64) -> &mut Lease {
        let number = usize::try_from(id - 1).expect("a lease of this history");
        &mut self.leases[number]
    }
}

fn judge_lease(
    id: u64,
    lease: &mut Lease,
    (before, after): (bool, bool),
    now: Duration,
    found: &mut Found,
) {
    if lease.gone || !before && after {
        if before || after {
            found.wrong(format!("lease {id} was gone, and is there again"));
        }
        return;
    }
    if after {
        if lease.revocation == Revocation::Done {
            found.wrong(format!("lease {id} was revoked, and is there"));
        }
        // It did not come about before the server went down, so it never will.
        lease.revocation = Revocation::NotAsked;
        return;
    }
    if lease.must_live(now) {
        let until = lease.alive_until;
        found.wrong(format!("lease {id}, due until {until:?}, is LOST at {now:?}"));
    }
    lease.gone = true;
}

fn judge_keys(id: u64, lease: &mut Lease, present: &HashSet<u64>, found: &mut Found) {
    for (position, state) in lease.keys.iter_mut().enumerate() {
        let index = (id - 1) * LEASE_KEYS_MAX + position as u64;
        let there = present.contains(&index);
        match *state {
            KeyState::Written if !there => {
                found.wrong(format!("key {index} of lease {id} is LOST"));
            }
            KeyState::Unknown => {
                found.unknown_count += 1;
                found.unknown_present_count += u64::from(there);
                *state = if there { KeyState::Written } else { KeyState::Lost };
            }
            KeyState::Written | KeyState::Lost => {}
        }
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL_SECONDS: u64 = 10;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Three leases, acknowledged at the start, with one key each.
    fn history() -> LeaseHistory {
        let mut history = LeaseHistory::default();
        for id in 1..=3 {
            assert_eq!(history.begin_grant(), id);
            history.handle_alive(id, at(0), TTL_SECONDS);
            let index = history.begin_put(id).unwrap();
            assert_eq!(index, (id - 1) * LEASE_KEYS_MAX);
            history.handle_put(index);
        }
        history
    }

    fn key(id: u64) -> LeaseKey {
        LeaseKey { index: (id - 1) * LEASE_KEYS_MAX, lease: id }
    }

    fn wrong(history: &mut LeaseHistory, ids: &[u64], keys: &[LeaseKey], now: u64) -> u64 {
        let mut found = Found::default();
        history.judge(&Seen { before: ids, keys, after: ids, now: at(now) }, &mut found);
        found.wrong_count
    }

    const ALL: [u64; 3] = [1, 2, 3];

    fn all_keys() -> [LeaseKey; 3] {
        ALL.map(key)
    }

    #[test]
    fn what_was_acknowledged_is_there_until_its_time_is_over() {
        assert_eq!(wrong(&mut history(), &ALL, &all_keys(), 9), 0);
        assert_eq!(wrong(&mut history(), &[2, 3], &all_keys()[1..], 9), 1, "a lease is lost");
        assert_eq!(wrong(&mut history(), &ALL, &all_keys()[1..], 9), 1, "a key is lost");
        assert_eq!(wrong(&mut history(), &[2, 3], &all_keys()[1..], 10), 0, "its time is over");
        assert_eq!(wrong(&mut history(), &ALL, &all_keys(), 10), 0, "it may take longer");
        assert_eq!(wrong(&mut history(), &[1, 2, 3, 4], &all_keys(), 9), 1, "a foreign lease");
        let moved = [key(1), key(2), LeaseKey { lease: 0, ..key(3) }];
        assert_eq!(wrong(&mut history(), &ALL, &moved, 9), 1, "a key has lost its lease");
    }

    #[test]
    fn what_is_gone_does_not_come_back() {
        let mut history = history();
        assert_eq!(wrong(&mut history, &[2, 3], &all_keys()[1..], 11), 0);
        assert_eq!(history.counts(), Counts { there: 2, ran_out: 1, ended: 0 });
        assert_eq!(wrong(&mut history, &[2, 3], &all_keys(), 12), 1, "the key without the lease");
        assert_eq!(wrong(&mut history, &ALL, &all_keys()[1..], 12), 1, "the lease alone");
    }

    #[test]
    fn a_lease_that_runs_out_between_two_reads_is_no_contradiction() {
        let mut history = history();
        let mut found = Found::default();
        let seen = Seen { before: &ALL, keys: &[key(3)], after: &[3], now: at(10) };
        history.judge(&seen, &mut found);
        assert_eq!(found.wrong_count, 0);
        assert_eq!(history.counts(), Counts { there: 1, ran_out: 2, ended: 0 });
        let seen = Seen { before: &[3], keys: &[key(3)], after: &[1, 3], now: at(10) };
        history.judge(&seen, &mut found);
        assert_eq!(found.wrong_count, 1, "but none appears between them");
    }

    #[test]
    fn a_keep_alive_prolongs_and_a_revocation_ends() {
        let mut history = history();
        history.handle_alive(1, at(5), TTL_SECONDS);
        assert!(history.handle_missing(1, at(14)).is_some());
        assert!(history.handle_missing(2, at(14)).is_none());
        history.begin_revoke(2);
        history.begin_revoke(3);
        history.handle_revoked(3);
        assert_eq!(history.candidates(9), [1]);
        // 2 was revoked before the server went down or not; 3 must be gone.
        assert_eq!(wrong(&mut history, &[1, 2], &all_keys()[..2], 9), 0);
        assert_eq!(wrong(&mut history, &[1], &all_keys()[..1], 9), 1, "2 had survived");
    }

    #[test]
    fn an_acknowledged_revocation_is_not_forgotten() {
        let mut history = history();
        history.begin_revoke(3);
        history.handle_revoked(3);
        assert_eq!(wrong(&mut history, &ALL, &all_keys(), 9), 1);
    }

    #[test]
    fn what_was_unknown_is_settled_by_the_first_look() {
        let mut history = history();
        let id = history.begin_grant();
        let second = history.begin_put(1).unwrap();
        assert_eq!(wrong(&mut history, &ALL, &all_keys(), 9), 0, "neither is there");
        let keys = [all_keys().as_slice(), &[LeaseKey { index: second, lease: 1 }]].concat();
        assert_eq!(wrong(&mut history, &ALL, &keys, 9), 1, "the key was lost");
        assert_eq!(wrong(&mut history, &[1, 2, 3, id], &all_keys(), 9), 1, "the lease was lost");
        let all = (0..LEASE_KEYS_MAX).filter(|_| history.begin_put(2).is_some()).count();
        assert_eq!(all as u64, LEASE_KEYS_MAX - 1, "a lease's keys are bounded");
    }
}
