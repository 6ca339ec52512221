//! What others ask of a server while the drill's writers write: leases that are granted, kept
//! alive, revoked and left to run out, compactions, defragmentations and backups, at random.
//!
//! Two threads, each with a connection of its own and one call at a time: one for leases, and one
//! for what takes long, so that the server goes down in the middle of it now and then. Whatever has
//! no answer by then is unknown, and settled by what the restarted server shows.
//!
//! Invariants:
//! - What a server does not serve is asked for once, noted, and left out from then on.
//! - A thread ends when its connection does; it never outlives the server it calls.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::compactions::{Compactions, Read};
use super::history::Found;
use super::leases::{Counts, LEASE_KEYS_MAX, LeaseHistory, LeaseKey, Seen};
use super::pages::read_pages;
use crate::client::blocking::{Blocking, Status};
use crate::client::code;
use crate::failure::Failure;
use crate::load::resolve;
use crate::proto::{self, LeaseAnswer, RangeAnswer, RangeRequest, SnapshotSizes, WriteAnswer};
use crate::workload::{KeySpace, Random};

/// A backup or a defragmentation of a drill's data takes less than this.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two chores: leases are not what the server is to be loaded with, and all of them are
/// looked at after each round.
const CHORE_PAUSE: Duration = Duration::from_millis(3);
/// A keep-alive or a revocation is of one of so many that were granted last.
const CANDIDATES_MAX: usize = 64;
/// One in three leases is to run out during the drill; the others must never.
pub const TTL_SECONDS_SHORT: u64 = 2;
const TTL_SECONDS_LONG: u64 = 3600;
const VALUE_BYTES: usize = 64;

/// All chores of a drill, and what became of them.
pub struct Chores {
    leases: LeaseChores,
    upkeep: UpkeepChores,
}

/// What both kinds of chores remember.
struct Notes {
    random: Random,
    epoch: Instant,
    /// What the server does not serve.
    unserved: BTreeSet<&'static str>,
    complaints: Vec<String>,
}

/// Chores about leases.
struct LeaseChores {
    notes: Notes,
    history: LeaseHistory,
    space: KeySpace,
}

/// Chores that take long.
struct UpkeepChores {
    notes: Notes,
    compactions: Compactions,
    compactions_count: u64,
    defragments_count: u64,
    snapshots_count: u64,
}

/// The chores while a server runs.
pub struct Running {
    leases: JoinHandle<LeaseChores>,
    upkeep: JoinHandle<UpkeepChores>,
}

/// Why a chore did not end as it should have.
enum Trouble {
    /// The connection is gone, or the server is about to.
    Down,
    /// The server does not serve the call.
    Unserved,
    /// The server refused.
    Refused(Status),
    /// The answer was wrong.
    Wrong(String),
}

impl From<Failure> for Trouble {
    fn from(_: Failure) -> Self {
        Self::Down
    }
}

impl Chores {
    /// No chores yet.
    pub fn new(seed: u64) -> Self {
        let epoch = Instant::now();
        let notes = |salt: u64| Notes {
            random: Random::new(seed ^ salt << 56),
            epoch,
            unserved: BTreeSet::new(),
            complaints: Vec::new(),
        };
        let space = KeySpace {
            prefix: "drill/lease/".to_owned(),
            count: 0,
            seed,
            value_size_bytes: VALUE_BYTES,
        };
        Self {
            leases: LeaseChores { notes: notes(1), history: LeaseHistory::default(), space },
            upkeep: UpkeepChores {
                notes: notes(2),
                compactions: Compactions::default(),
                compactions_count: 0,
                defragments_count: 0,
                snapshots_count: 0,
            },
        }
    }

    /// Begins to do chores until the server goes down.
    pub fn start(self, address: SocketAddr) -> Running {
        let Self { mut leases, mut upkeep } = self;
        Running {
            leases: std::thread::spawn(move || {
                leases.run(address);
                leases
            }),
            upkeep: std::thread::spawn(move || {
                upkeep.run(address);
                upkeep
            }),
        }
    }

    /// Looks at what the restarted server has kept.
    pub fn check(&mut self, endpoint: &str, found: &mut Found) -> Result<(), Failure> {
        let mut client = Blocking::connect(resolve(endpoint)?, CALL_TIME_MAX)?;
        self.leases.check(&mut client, found)?;
        self.upkeep.check(&mut client, found)?;
        for text in self.leases.notes.complaints.drain(..) {
            found.wrong(text);
        }
        for text in self.upkeep.notes.complaints.drain(..) {
            found.wrong(text);
        }
        Ok(())
    }

    /// What was done so far, for people.
    pub fn to_text(&self) -> String {
        let Counts { there, ran_out, ended } = self.leases.history.counts();
        let UpkeepChores { compactions, defragments_count, snapshots_count, .. } = &self.upkeep;
        format!(
            "{there} leases there, {ran_out} ran out, {ended} ended; {} compactions, to {}; \
             {defragments_count} defragmentations, {snapshots_count} backups",
            self.upkeep.compactions_count,
            compactions.done(),
        )
    }

    /// What the server does not serve.
    pub fn unserved(&self) -> Vec<&'static str> {
        self.leases.notes.unserved.union(&self.upkeep.notes.unserved).copied().collect()
    }
}

impl Running {
    /// Waits for the threads, which end with the server.
    pub fn join(self) -> Chores {
        fn joined<T>(thread: JoinHandle<T>) -> T {
            match thread.join() {
                Ok(chores) => chores,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Chores { leases: joined(self.leases), upkeep: joined(self.upkeep) }
    }
}

impl Notes {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Takes note of how a chore ended; false when there is nobody to do more for.
    fn note(&mut self, path: &'static str, outcome: Result<(), Trouble>) -> bool {
        match outcome {
            Ok(()) => {}
            Err(Trouble::Down) => return false,
            Err(Trouble::Unserved) => {
                self.unserved.insert(path);
            }
            Err(Trouble::Refused(status)) => {
                self.complaints.push(status.failure(path).to_string());
            }
            Err(Trouble::Wrong(text)) => self.complaints.push(format!("{path}: {text}")),
        }
        true
    }

    /// One of the calls that the server serves.
    fn choose(&mut self, weighted: &[(&'static str, u64)]) -> Option<&'static str> {
        let served = || weighted.iter().filter(|(path, _)| !self.unserved.contains(path));
        let total: u64 = served().map(|&(_, weight)| weight).sum();
        let served: Vec<_> = served().copied().collect();
        let mut rest = (total > 0).then(|| self.random.below(total))?;
        for (path, weight) in served {
            match rest.checked_sub(weight) {
                Some(less) => rest = less,
                None => return Some(path),
            }
        }
        None
    }
}

/// Makes a call, and tells a refusal from a server that is going down.
fn call(client: &mut Blocking, path: &'static str, request: &[u8]) -> Result<Vec<u8>, Trouble> {
    client.try_call(path, request)?.map_err(trouble_of)
}

fn trouble_of(status: Status) -> Trouble {
    match status.code {
        code::UNIMPLEMENTED => Trouble::Unserved,
        code::UNAVAILABLE => Trouble::Down,
        _ => Trouble::Refused(status),
    }
}

fn malformed<E>(_: E) -> Trouble {
    Trouble::Wrong("the answer is malformed".to_owned())
}

impl LeaseChores {
    fn run(&mut self, address: SocketAddr) {
        let Ok(mut client) = Blocking::connect(address, CALL_TIME_MAX) else { return };
        // Without grants there is nothing to do any of the rest to.
        while !self.notes.unserved.contains(proto::LEASE_GRANT) {
            let weighted =
                [(proto::LEASE_GRANT, 5), (proto::LEASE_KEEP_ALIVE, 3), (proto::LEASE_REVOKE, 1)];
            let Some(path) = self.notes.choose(&weighted) else { return };
            let outcome = match path {
                proto::LEASE_GRANT => self.grant(&mut client),
                proto::LEASE_KEEP_ALIVE => self.keep_alive(&mut client),
                _ => self.revoke(&mut client),
            };
            if !self.notes.note(path, outcome) {
                return;
            }
            std::thread::sleep(CHORE_PAUSE);
        }
    }

    /// Grants a lease and puts its keys.
    fn grant(&mut self, client: &mut Blocking) -> Result<(), Trouble> {
        let short = self.notes.random.below(3) == 0;
        let ttl_seconds = if short { TTL_SECONDS_SHORT } else { TTL_SECONDS_LONG };
        let id = self.history.begin_grant();
        let mut request = Vec::new();
        proto::write_lease_grant(&mut request, id, ttl_seconds);
        let sent = self.notes.now();
        let answer = call(client, proto::LEASE_GRANT, &request)?;
        let answer = LeaseAnswer::read(&answer).map_err(malformed)?;
        if answer.id != id || answer.ttl_seconds < ttl_seconds {
            return Err(Trouble::Wrong(format!("lease {id} was granted as {answer:?}")));
        }
        self.history.handle_alive(id, sent, answer.ttl_seconds);
        for _ in 0..self.notes.random.below(LEASE_KEYS_MAX) {
            self.put(client, id)?;
        }
        Ok(())
    }

    fn put(&mut self, client: &mut Blocking, id: u64) -> Result<(), Trouble> {
        let Some(index) = self.history.begin_put(id) else { return Ok(()) };
        let (key, mut value, mut request) = (self.space.key(index), Vec::new(), Vec::new());
        self.space.write_value(index, id, &mut value);
        proto::write_put_with_lease(&mut request, &key, &value, id);
        match client.try_call(proto::PUT, &request)? {
            Ok(answer) => {
                WriteAnswer::read(&answer).map_err(malformed)?;
                self.history.handle_put(index);
                Ok(())
            }
            Err(status) if status.code == code::NOT_FOUND => self.missing(id),
            Err(status) => Err(trouble_of(status)),
        }
    }

    fn keep_alive(&mut self, client: &mut Blocking) -> Result<(), Trouble> {
        let Some(id) = self.candidate() else { return Ok(()) };
        let mut request = Vec::new();
        proto::write_lease_id(&mut request, id);
        let sent = self.notes.now();
        let answer = call(client, proto::LEASE_KEEP_ALIVE, &request)?;
        let answer = LeaseAnswer::read(&answer).map_err(malformed)?;
        match answer.ttl_seconds {
            _ if answer.id != id => Err(Trouble::Wrong(format!("lease {id}: {answer:?}"))),
            0 => self.missing(id),
            ttl_seconds => {
                self.history.handle_alive(id, sent, ttl_seconds);
                Ok(())
            }
        }
    }

    fn revoke(&mut self, client: &mut Blocking) -> Result<(), Trouble> {
        let Some(id) = self.candidate() else { return Ok(()) };
        let mut request = Vec::new();
        proto::write_lease_id(&mut request, id);
        let due = self.history.alive_until(id);
        self.history.begin_revoke(id);
        match client.try_call(proto::LEASE_REVOKE, &request)? {
            Ok(answer) => {
                WriteAnswer::read(&answer).map_err(malformed)?;
                self.history.handle_revoked(id);
                Ok(())
            }
            Err(status) if status.code == code::NOT_FOUND => {
                let now = self.notes.now();
                if due.is_some_and(|due| now < due) {
                    return Err(Trouble::Wrong(format!("lease {id} is gone at {now:?}, {due:?}")));
                }
                Ok(())
            }
            Err(status) => Err(trouble_of(status)),
        }
    }

    fn candidate(&mut self) -> Option<u64> {
        let candidates = self.history.candidates(CANDIDATES_MAX);
        let count = candidates.len() as u64;
        let chosen = (count > 0).then(|| self.notes.random.below(count))?;
        candidates.get(usize::try_from(chosen).expect("below a small bound")).copied()
    }

    /// The server said that there is no such lease.
    fn missing(&mut self, id: u64) -> Result<(), Trouble> {
        let now = self.notes.now();
        self.history.handle_missing(id, now).map_or(Ok(()), |text| Err(Trouble::Wrong(text)))
    }

    fn check(&mut self, client: &mut Blocking, found: &mut Found) -> Result<(), Failure> {
        let unserved = &self.notes.unserved;
        if unserved.contains(proto::LEASE_GRANT) || unserved.contains(proto::LEASE_LEASES) {
            return Ok(());
        }
        let Some(before) = list_leases(client)? else {
            self.notes.unserved.insert(proto::LEASE_LEASES);
            return Ok(());
        };
        let keys = read_keys(client, &self.space, found)?;
        let after = list_leases(client)?.unwrap_or_default();
        let now = self.notes.now();
        let seen = Seen { before: &before, keys: &keys, after: &after, now };
        self.history.judge(&seen, found);
        Ok(())
    }
}

/// The ids of all leases, or nothing if the server does not serve the call.
fn list_leases(client: &mut Blocking) -> Result<Option<Vec<u64>>, Failure> {
    match client.try_call(proto::LEASE_LEASES, &[])? {
        Ok(answer) => {
            let ids = proto::read_lease_ids(&answer);
            ids.map(Some).map_err(|_| Failure::new("the list of leases is malformed"))
        }
        Err(status) if status.code == code::UNIMPLEMENTED => Ok(None),
        Err(status) => Err(status.failure(proto::LEASE_LEASES)),
    }
}

/// All keys of leases, read at one revision.
fn read_keys(
    client: &mut Blocking,
    space: &KeySpace,
    found: &mut Found,
) -> Result<Vec<LeaseKey>, Failure> {
    let mut keys = Vec::new();
    let start = space.prefix.clone().into_bytes();
    read_pages(client, start, &space.range_end(), |_, kvs| {
        for kv in kvs {
            let Some(index) = space.index_of(kv.key) else {
                found.wrong(format!("a foreign key {}", String::from_utf8_lossy(kv.key)));
                continue;
            };
            if let Err(text) = space.check_value(index, kv.value) {
                found.wrong(text);
            }
            keys.push(LeaseKey { index, lease: kv.lease });
        }
    })?;
    Ok(keys)
}

impl UpkeepChores {
    fn run(&mut self, address: SocketAddr) {
        let Ok(mut client) = Blocking::connect(address, CALL_TIME_MAX) else { return };
        loop {
            let weighted = [(proto::COMPACT, 2), (proto::DEFRAGMENT, 1), (proto::SNAPSHOT, 1)];
            let Some(path) = self.notes.choose(&weighted) else { return };
            let outcome = match path {
                proto::COMPACT => self.compact(&mut client),
                proto::DEFRAGMENT => self.defragment(&mut client),
                _ => self.snapshot(&mut client),
            };
            if !self.notes.note(path, outcome) {
                return;
            }
            std::thread::sleep(CHORE_PAUSE);
        }
    }

    /// Compacts up to any revision that is not compacted yet, every other time to the last key.
    fn compact(&mut self, client: &mut Blocking) -> Result<(), Trouble> {
        let mut request = Vec::new();
        proto::write_range(&mut request, &RangeRequest { key: b"\0", ..Default::default() });
        let answer = call(client, proto::RANGE, &request)?;
        let head = RangeAnswer::read(&answer).map_err(malformed)?.revision;
        let Some(span) = (head + 1).checked_sub(self.compactions.next_min()) else {
            return Ok(());
        };
        if span == 0 {
            return Ok(());
        }
        let revision = self.compactions.next_min() + self.notes.random.below(span);
        let physical = self.notes.random.below(2) == 0;
        request.clear();
        proto::write_compact(&mut request, revision, physical);
        self.compactions.begin(revision);
        match call(client, proto::COMPACT, &request) {
            Ok(answer) => {
                WriteAnswer::read(&answer).map_err(malformed)?;
                self.compactions.handle_done();
                self.compactions_count += 1;
                Ok(())
            }
            Err(trouble) => {
                if !matches!(trouble, Trouble::Down) {
                    self.compactions.handle_refused();
                }
                Err(trouble)
            }
        }
    }

    fn defragment(&mut self, client: &mut Blocking) -> Result<(), Trouble> {
        let answer = call(client, proto::DEFRAGMENT, &[])?;
        WriteAnswer::read(&answer).map_err(malformed)?;
        self.defragments_count += 1;
        Ok(())
    }

    fn snapshot(&mut self, client: &mut Blocking) -> Result<(), Trouble> {
        let mut sizes = SnapshotSizes::default();
        let ended = client.try_stream(proto::SNAPSHOT, &[], |part| sizes.handle_message(part))?;
        ended.map_err(trouble_of)?;
        sizes.finish().map_err(Trouble::Wrong)?;
        self.snapshots_count += 1;
        Ok(())
    }

    fn check(&mut self, client: &mut Blocking, found: &mut Found) -> Result<(), Failure> {
        let mut reads = Vec::new();
        for at in self.compactions.probes() {
            let mut request = Vec::new();
            let range = RangeRequest { key: b"\0", revision: at, ..Default::default() };
            proto::write_range(&mut request, &range);
            let read = match client.try_call(proto::RANGE, &request)? {
                Ok(_) => Read::Answered,
                Err(Status { code: code::OUT_OF_RANGE, message })
                    if message.contains("compacted") =>
                {
                    Read::Compacted
                }
                Err(status) => return Err(status.failure(proto::RANGE)),
            };
            reads.push((at, read));
        }
        self.compactions.judge(&reads, found);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> Notes {
        Chores::new(1).leases.notes
    }

    #[test]
    fn what_is_not_served_is_asked_for_once() {
        let mut notes = notes();
        let weighted = [(proto::DEFRAGMENT, 1), (proto::SNAPSHOT, 1)];
        let both: BTreeSet<_> = (0..64).filter_map(|_| notes.choose(&weighted)).collect();
        assert_eq!(both.len(), 2);
        assert!(notes.note(proto::DEFRAGMENT, Err(Trouble::Unserved)));
        for _ in 0..64 {
            assert_eq!(notes.choose(&weighted), Some(proto::SNAPSHOT));
        }
        assert!(notes.note(proto::SNAPSHOT, Err(Trouble::Unserved)));
        assert_eq!(notes.choose(&weighted), None);
        assert!(notes.complaints.is_empty(), "nothing is wrong with it");
    }

    #[test]
    fn a_refusal_is_wrong_and_a_lost_connection_is_the_end() {
        let mut notes = notes();
        let status = |code| Status { code, message: "no".to_owned() };
        assert!(notes.note(proto::PUT, Err(trouble_of(status(9)))));
        assert_eq!(notes.complaints.len(), 1);
        assert!(!notes.note(proto::PUT, Err(trouble_of(status(code::UNAVAILABLE)))));
        assert!(notes.note(proto::PUT, Err(trouble_of(status(code::UNIMPLEMENTED)))));
        assert_eq!((notes.complaints.len(), notes.unserved.len()), (1, 1));
    }
}
