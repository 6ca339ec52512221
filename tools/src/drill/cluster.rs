//! The members of the drilled cluster: who leads, who lives, who serves, whether all are equal.
//!
//! Invariants:
//! - A member that runs ends when we end it, and only then, unless its disk is full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::calls::{Caller, NoAnswer, PROBE_TIME_MAX};
use super::disk::Disk;
use super::load::Shared;
use super::member::Member;
use crate::oracle::history::{Answer, Request};
use crate::rpc::wire::etcdserverpb as pb;

const POLL_INTERVAL: Duration = Duration::from_millis(30);
/// A write that takes so long is told of.
const LONG: Duration = Duration::from_secs(1);

/// The members, and what is known of them.
pub struct Cluster {
    /// The processes. They end before the disks under them go.
    pub members: Vec<Member>,
    /// By member, where members have disks of their own.
    pub disks: Vec<Disk>,
    /// What clients and watchers see.
    pub shared: Arc<Shared>,
    /// For calls of the drill's own.
    pub runtime: Runtime,
    /// How long the cluster may be without life once nothing is in its way.
    pub bound: Duration,
    /// What members said of themselves when one last kept a write waiting.
    pub seen_when_slow: Option<String>,
}

impl Cluster {
    /// Starts a member.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, place: usize) -> Result<(), String> {
        let pid = self.members[place].start()?;
        self.disks.get(place).map_or(Ok(()), |disk| disk.take_process(pid))
    }

    /// Starts every member that does not run.
    ///
    /// # Errors
    /// As above.
    pub fn start_all(&mut self) -> Result<(), String> {
        (0..self.members.len()).try_for_each(|place| self.ensure_started(place))
    }

    fn ensure_started(&mut self, place: usize) -> Result<(), String> {
        if self.members[place].is_started() { Ok(()) } else { self.start(place) }
    }

    /// Looks whether anything went wrong that nobody waits for.
    ///
    /// # Errors
    /// A member ended, or a client or watcher was told something wrong.
    pub fn check(&mut self) -> Result<(), String> {
        for member in &mut self.members {
            let Some(status) = member.poll_end() else { continue };
            if member.may_end {
                member.last_words = Some(member.last_line());
            } else {
                let (name, tail) = (&member.spec.name, member.log_tail());
                return Err(format!("{name} ended by itself ({status}):\n{tail}"));
            }
        }
        self.shared.wrong().map_or(Ok(()), Err)
    }

    /// Waits, and looks meanwhile.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn wait(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
    }

    /// What a member says of itself, if it answers.
    fn status(&self, place: usize) -> Option<pb::StatusResponse> {
        let mut caller = Caller::new(self.shared.addresses[place]);
        let path = "/etcdserverpb.Maintenance/Status";
        let request = pb::StatusRequest {};
        self.runtime.block_on(caller.call(path, &request, PROBE_TIME_MAX)).ok()
    }

    /// Who leads in the highest term that anybody knows of.
    ///
    /// # Errors
    /// Nobody does for too long.
    pub fn leader(&mut self) -> Result<usize, String> {
        let end = Instant::now() + self.bound;
        loop {
            self.check()?;
            let running = (0..self.members.len()).filter(|&place| self.members[place].is_started());
            let statuses: Vec<_> =
                running.filter_map(|place| Some((place, self.status(place)?))).collect();
            let term = statuses.iter().map(|(_, status)| status.raft_term).max();
            let leads = |status: &pb::StatusResponse| {
                let own = status.header.map_or(0, |header| header.member_id);
                own != 0 && own == status.leader && Some(status.raft_term) == term
            };
            if let Some((place, _)) = statuses.iter().find(|(_, status)| leads(status)) {
                return Ok(*place);
            }
            if Instant::now() > end {
                return Err(format!("no leader within {:?}", self.bound));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Every member must take a write, and those that were allowed to end are started until they
    /// do; answers with how long that took, and with whom that was waited for if it was long.
    ///
    /// # Errors
    /// As [`wait_for_write`](Self::wait_for_write).
    pub fn wait_for_all(&mut self) -> Result<(Duration, Option<usize>), String> {
        let begun = Instant::now();
        let mut slowest = (LONG, None);
        for place in 0..self.members.len() {
            let taken = self.wait_for_write(place)?;
            if taken > slowest.0 {
                slowest = (taken, Some(place));
            }
        }
        self.members.iter_mut().for_each(|member| member.may_end = false);
        Ok((begun.elapsed(), slowest.1))
    }

    /// Waits until a member has acknowledged a write; answers with how long that took.
    ///
    /// # Errors
    /// It does not within the bound.
    pub fn wait_for_write(&mut self, place: usize) -> Result<Duration, String> {
        let begun = Instant::now();
        let mut caller = Caller::new(self.shared.addresses[place]);
        let put = Request::Put { key: format!("k-{place}").into_bytes(), lease: 0 };
        let (mut last, mut seen) = (String::new(), None);
        while begun.elapsed() < self.bound {
            self.check()?;
            self.ensure_started(place)?;
            let shared = Arc::clone(&self.shared);
            let put = caller.perform(&shared.record, &put, 0, PROBE_TIME_MAX);
            match self.runtime.block_on(put)? {
                Ok(_) => {
                    self.seen_when_slow = seen.or(self.seen_when_slow.take());
                    return Ok(begun.elapsed());
                }
                Err(reason) => last = reason.to_string(),
            }
            if seen.is_none() && begun.elapsed() > LONG {
                seen = Some(self.told_by_members());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let (name, bound) = (&self.members[place].spec.name, self.bound);
        let (seen, tail) = (self.told_by_members(), self.members[place].log_tail());
        Err(format!(
            "{name} takes no write within {bound:?} (last: {last}; {seen}); its log:\n{tail}"
        ))
    }

    /// What members say of themselves, for people.
    fn told_by_members(&self) -> String {
        let told = |place: usize| {
            let name = &self.members[place].spec.name;
            let Some(status) = self.status(place) else { return format!("{name} is silent") };
            let own = status.header.map_or(0, |header| header.member_id);
            let leads = if own == status.leader { " leads" } else { "" };
            let (term, committed) = (status.raft_term, status.raft_index);
            let applied = status.raft_applied_index;
            format!("{name}{leads} term {term} committed {committed} applied {applied}")
        };
        (0..self.members.len()).map(told).collect::<Vec<_>>().join(", ")
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// It does not come true within the bound; it tells what is missing.
    fn wait_until(
        &mut self,
        mut missing: impl FnMut(&mut Self) -> Result<Option<String>, String>,
    ) -> Result<(), String> {
        let end = Instant::now() + self.bound;
        loop {
            self.check()?;
            let Some(what) = missing(self)? else { return Ok(()) };
            if Instant::now() > end {
                return Err(format!("{what} after {:?}", self.bound));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until every client has its last answer, or none.
    ///
    /// # Errors
    /// They do not end.
    pub fn wait_for_clients(&mut self) -> Result<(), String> {
        self.wait_until(|cluster| {
            let is_over = cluster.shared.clients_have_ended();
            Ok((!is_over).then(|| "clients wait for answers".to_owned()))
        })
    }

    /// Waits until every lease has ended, with its key: none is renewed any more.
    ///
    /// # Errors
    /// One does not, or a member goes on telling of it.
    pub fn wait_for_end_of_leases(&mut self) -> Result<(), String> {
        let path = "/etcdserverpb.Lease/LeaseLeases";
        for place in 0..self.members.len() {
            let mut caller = Caller::new(self.shared.addresses[place]);
            self.wait_until(|cluster| {
                let request = pb::LeaseLeasesRequest {};
                let asked = caller.call(path, &request, PROBE_TIME_MAX);
                let answer: Result<pb::LeaseLeasesResponse, NoAnswer> =
                    cluster.runtime.block_on(asked);
                let name = &cluster.members[place].spec.name;
                Ok(match answer {
                    Ok(answer) if answer.leases.is_empty() => None,
                    Ok(answer) => Some(format!("{name} has {} leases", answer.leases.len())),
                    Err(reason) => Some(format!("{name} does not tell its leases: {reason}")),
                })
            })?;
        }
        Ok(())
    }

    /// Waits until all members have the same content up to the newest revision, and every watcher
    /// was told of it; answers with that revision and its hash.
    ///
    /// # Errors
    /// They do not become equal.
    pub fn wait_until_equal(&mut self) -> Result<(i64, u32), String> {
        let mut found = (0, 0);
        self.wait_until(|cluster| {
            let newest = match cluster.read_all(0)? {
                Ok(revision) => revision,
                Err(reason) => return Ok(Some(format!("no read: {reason}"))),
            };
            let mut hashes = Vec::new();
            for place in 0..cluster.members.len() {
                match cluster.hash(place, newest) {
                    Ok(hash) => hashes.push(hash),
                    Err(reason) => {
                        return Ok(Some(format!("no hash of member {}: {reason}", place + 1)));
                    }
                }
            }
            if hashes.iter().any(|hash| *hash != hashes[0]) {
                return Ok(Some(format!("hashes at {newest} differ: {hashes:?}")));
            }
            let told = cluster.shared.told_by_all();
            if told < newest {
                return Ok(Some(format!("a watcher was told up to {told} of {newest}")));
            }
            found = (newest, hashes[0].0);
            Ok(None)
        })?;
        Ok(found)
    }

    /// Has every member tell all that is there, for the oracle to judge.
    ///
    /// # Errors
    /// One does not answer.
    pub fn read_from_all(&mut self) -> Result<(), String> {
        for place in 0..self.members.len() {
            self.read_all(place)?
                .map_err(|reason| format!("member {} cannot be read: {reason}", place + 1))?;
        }
        Ok(())
    }

    fn read_all(&self, place: usize) -> Result<Result<i64, NoAnswer>, String> {
        let mut caller = Caller::new(self.shared.addresses[place]);
        let read =
            Request::Read { from: b"\x01".to_vec(), to: b"\xff".to_vec(), may_be_stale: false };
        let asked = caller.perform(&self.shared.record, &read, 0, PROBE_TIME_MAX * 4);
        let answer = self.runtime.block_on(asked)?;
        Ok(answer.map(|answer| match answer {
            Answer::Read { revision, .. } => revision,
            _ => unreachable!("a read is answered with what was read"),
        }))
    }

    /// A member's hash of its content at a revision, and of how much it was taken.
    fn hash(&self, place: usize, revision: i64) -> Result<(u32, i64), NoAnswer> {
        let mut caller = Caller::new(self.shared.addresses[place]);
        let request = pb::HashKvRequest { revision };
        let path = "/etcdserverpb.Maintenance/HashKV";
        let asked = caller.call(path, &request, PROBE_TIME_MAX * 4);
        let answer: pb::HashKvResponse = self.runtime.block_on(asked)?;
        Ok((answer.hash, answer.compact_revision))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nobody can end who waits for his disk.
        for disk in &mut self.disks {
            let _ = disk.thaw();
        }
    }
}
