//! The members of a cluster under test, all on this machine.
//!
//! Invariants:
//! - A member is either running or can be started again on what it left.
//! - Who leads is what every running member says, or it is not known.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::blocking::Blocking;
use crate::failure::Failure;
use crate::proto::{self, RangeAnswer, RangeRequest, StatusAnswer};
use crate::server_process::{Server, ServerSpec, Usage};

/// A cluster that has not agreed by then never will.
const AGREE_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a leader has to stay before it counts as settled.
const SETTLED_TIME: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long a call of ours may take; a hash of a gigabyte is the longest.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a member that may just be starting is given to answer a question that is asked again.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);
/// Both sides get the same, whatever their defaults are.
const ELECTION_ARGS: [&str; 4] = ["--heartbeat-interval", "100", "--election-timeout", "1000"];

/// Who leads, and since which election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The place of the member.
    pub member: usize,
    /// The term.
    pub raft_term: u64,
}

/// The members.
pub struct Cluster {
    dir: PathBuf,
    specs: Vec<ServerSpec>,
    servers: Vec<Option<Server>>,
}

impl Cluster {
    /// Founds a cluster in a directory that does not exist yet, and waits until it has a leader.
    pub fn found(
        binary: &Path,
        args: &[String],
        dir: &Path,
        members: usize,
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir).map_err(Failure::of(format!("create {}", dir.display())))?;
        let args = [&ELECTION_ARGS.map(str::to_owned), args].concat();
        let specs = ServerSpec::cluster(binary, &args, dir, members)?;
        let servers = specs.iter().map(|spec| Server::spawn(spec).map(Some));
        let servers = servers.collect::<Result<_, _>>()?;
        let mut cluster = Self { dir: dir.to_owned(), specs, servers };
        for server in cluster.servers.iter_mut().flatten() {
            server.wait_ready()?;
        }
        cluster.settled_leader()?;
        Ok(cluster)
    }

    /// The places of the members that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|&member| self.servers[member].is_some()).collect()
    }

    /// The places of the members that run and are not the named one.
    pub fn others(&self, member: usize) -> Vec<usize> {
        self.running().into_iter().filter(|&other| other != member).collect()
    }

    /// Where clients find a member.
    pub fn address(&self, member: usize) -> SocketAddr {
        self.specs[member].client_address
    }

    /// The endpoints of some members, with commas between.
    pub fn endpoints(&self, members: &[usize]) -> String {
        let texts = members.iter().map(|&member| self.address(member).to_string());
        texts.collect::<Vec<_>>().join(",")
    }

    /// Where a member keeps its data.
    pub fn data_dir(&self, member: usize) -> &Path {
        &self.specs[member].data_dir
    }

    /// What a running member has used so far.
    pub fn usage(&self, member: usize) -> Result<Usage, Failure> {
        let server = self.servers[member].as_ref();
        server.ok_or_else(|| Failure::new("the member does not run"))?.usage()
    }

    /// What each running member has used so far.
    pub fn usages(&self) -> Result<Vec<Usage>, Failure> {
        self.running().into_iter().map(|member| self.usage(member)).collect()
    }

    /// What a member says of itself.
    pub fn status(&self, member: usize) -> Result<StatusAnswer, Failure> {
        let mut client = Blocking::connect(self.address(member), PROBE_TIME_MAX)?;
        status(&mut client)
    }

    /// Who leads, if all that run agree.
    pub fn leader(&self) -> Result<Option<Leader>, Failure> {
        let running = self.running();
        let statuses = running.iter().map(|&member| self.status(member));
        let statuses: Vec<StatusAnswer> = statuses.collect::<Result<_, _>>()?;
        Ok(agreed_leader(&statuses)
            .map(|(place, raft_term)| Leader { member: running[place], raft_term }))
    }

    /// Waits until all agree on a leader and it stays.
    pub fn settled_leader(&self) -> Result<Leader, Failure> {
        let end = Instant::now() + AGREE_TIME_MAX;
        let mut known = None;
        let mut since = Instant::now();
        loop {
            // A member that has just started may refuse; the next look decides.
            let leader = self.leader().ok().flatten();
            if leader != known {
                (known, since) = (leader, Instant::now());
            }
            if let Some(leader) = known.filter(|_| since.elapsed() >= SETTLED_TIME) {
                return Ok(leader);
            }
            if Instant::now() > end {
                return Err(Failure::new("the members agree on no leader"));
            }
            std::thread::sleep(POLL_INTERVAL * 4);
        }
    }

    /// Ends a member without warning, and waits until it is gone.
    pub fn kill(&mut self, member: usize) -> Result<(), Failure> {
        if let Some(mut server) = self.servers[member].take() {
            server.kill()?;
        }
        Ok(())
    }

    /// Asks a member to end, and waits until it has.
    pub fn stop(&mut self, member: usize) -> Result<(), Failure> {
        self.servers[member].take().map_or(Ok(()), Server::stop)
    }

    /// Starts a member again, without waiting for it.
    pub fn spawn(&mut self, member: usize) -> Result<(), Failure> {
        assert!(self.servers[member].is_none(), "member {member} is running");
        self.servers[member] = Some(Server::spawn(&self.specs[member])?);
        Ok(())
    }

    /// Waits until a member has what the leader has, and returns how long that took. It need not
    /// serve yet.
    pub fn wait_level(&self, member: usize, leader: usize) -> Result<Duration, Failure> {
        let start = Instant::now();
        let mut ahead = Blocking::connect(self.address(leader), CALL_TIME_MAX)?;
        let mut behind: Option<Blocking> = None;
        loop {
            // The leader is asked first: what is written between the two questions cannot make a
            // member that lags look as if it did not.
            let wanted = status(&mut ahead)?.revision;
            let connected = match behind.take() {
                Some(client) => Ok(client),
                None => Blocking::connect(self.address(member), PROBE_TIME_MAX),
            };
            let reached = connected.and_then(|mut client| {
                let reached = local_revision(&mut client)?;
                behind = Some(client);
                Ok(reached)
            });
            if reached.is_ok_and(|reached| reached >= wanted) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > AGREE_TIME_MAX * 5 {
                return Err(Failure::new(format!("member {member} does not catch up")));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Complaints about members whose content is not that of the first.
    pub fn differences(&self) -> Result<Vec<String>, Failure> {
        let running = self.running();
        let leader = self.settled_leader()?.member;
        let revision = self.status(leader)?.revision;
        for &member in &running {
            self.wait_level(member, leader)?;
        }
        let mut hashes = Vec::new();
        for &member in &running {
            let mut client = Blocking::connect(self.address(member), CALL_TIME_MAX)?;
            let mut request = Vec::new();
            proto::write_hash_kv(&mut request, revision);
            let answer = client.call(proto::HASH_KV, &request)?;
            hashes.push(proto::read_hash_kv(&answer).map_err(|_| malformed("hash"))?);
        }
        let differs = |&place: &usize| hashes[place] != hashes[0];
        let text =
            |place: usize| format!("member {} differs from member {}", running[place], running[0]);
        Ok((1..running.len()).filter(differs).map(text).collect())
    }

    /// Ends all members and removes what they had.
    pub fn remove(mut self) -> Result<(), Failure> {
        for server in self.servers.iter_mut().filter_map(Option::take) {
            server.stop()?;
        }
        for spec in &self.specs {
            spec.remove()?;
        }
        let dir = &self.dir;
        std::fs::remove_dir(dir).map_err(Failure::of(format!("remove {}", dir.display())))
    }

    /// A failure of a call, with the end of the logs of the members that ended.
    pub fn explain(&mut self, failure: Failure) -> Failure {
        let running = self.servers.iter_mut().flatten();
        running.fold(failure, |failure, server| server.explain(failure))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // After a failure the logs tell why; the data would only fill the disk.
        self.servers.clear();
        for spec in &self.specs {
            let _ = std::fs::remove_dir_all(&spec.data_dir);
        }
    }
}

/// What a member says of itself.
pub fn status(client: &mut Blocking) -> Result<StatusAnswer, Failure> {
    let answer = client.call(proto::STATUS, &[])?;
    StatusAnswer::read(&answer).map_err(|_| malformed("status"))
}

/// The newest revision that a member has itself.
fn local_revision(client: &mut Blocking) -> Result<u64, Failure> {
    let mut request = Vec::new();
    let range = RangeRequest { key: b"\0", serializable: true, ..Default::default() };
    proto::write_range(&mut request, &range);
    let answer = client.call(proto::RANGE, &request)?;
    Ok(RangeAnswer::read(&answer).map_err(|_| malformed("range"))?.revision)
}

/// The place of the leader among members that all follow it in the same term.
fn agreed_leader(statuses: &[StatusAnswer]) -> Option<(usize, u64)> {
    let first = statuses.first()?;
    let same = |status: &StatusAnswer| {
        (status.leader_id, status.raft_term) == (first.leader_id, first.raft_term)
    };
    let place = statuses.iter().position(|status| status.member_id == first.leader_id)?;
    (first.leader_id != 0 && statuses.iter().all(same)).then_some((place, first.raft_term))
}

fn malformed(what: &str) -> Failure {
    Failure::new(format!("the answer to a {what} is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follows(member_id: u64, leader_id: u64, raft_term: u64) -> StatusAnswer {
        StatusAnswer { member_id, leader_id, raft_term, revision: 1 }
    }

    #[test]
    fn a_leader_is_one_whom_all_follow() {
        let agreed = [follows(7, 9, 2), follows(8, 9, 2), follows(9, 9, 2)];
        assert_eq!(agreed_leader(&agreed), Some((2, 2)));
        assert_eq!(agreed_leader(&agreed[..2]), None, "it does not run");
        let other_term = [follows(7, 9, 1), follows(9, 9, 2)];
        assert_eq!(agreed_leader(&other_term), None);
        let nobody = [follows(7, 0, 2), follows(8, 0, 2)];
        assert_eq!(agreed_leader(&nobody), None);
        assert_eq!(agreed_leader(&[]), None);
    }
}
