//! One member: its machine, its clock, and, while it runs, the log core with what is on its way to
//! the disks.
//!
//! Invariant: a member is driven as its role drives it: what happened, then `order`, then the log's
//! operations begin, then `apply`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::command::MemberPublishRef;
use engine::ids::{ClusterId, MemberId};
use engine::page::disk::DiskOp;
use engine::quota::Quota;
use engine::{FrameWriter, Identity, Member as ClusterMember, ReadHandle};
use server::mail::FrontendId;
use server::node::failure::Failure;
use server::node::log_core::{CheckSettings, Introduction, LogCore, ScanJob};
use server::node::shared::{Status, WatchInterest};
use server::node::start::{Origin, StartConfig, Started, start_on};
use server::raft::storage::Window;
use server::sequencer::lessor::LessorConfig;

use super::machine::Machine;
use super::network::Place;

/// The only front-end of a member.
pub const FRONTEND: FrontendId = FrontendId(0);
/// Every simulated cluster's id.
pub const CLUSTER: ClusterId = ClusterId(0xc1);
/// Ticks without a leader before an election.
pub const ELECTION_TICKS: usize = 10;
/// By a member's own clock.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// A monotonic clock that does not go quite as others do.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What the clock advances while the world's does by a million.
    rate: u64,
    /// When it was started, by the world's.
    begun: u64,
}

impl Clock {
    /// One that is right.
    pub const RATE_RIGHT: u64 = 1_000_000;

    /// What it says.
    #[must_use]
    pub fn at(&self, now: u64) -> Duration {
        let passed = u128::from(now - self.begun) * u128::from(self.rate) / 1_000_000;
        Duration::from_micros(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// How long by the world's clock it takes to advance by so much.
    #[must_use]
    pub fn takes(&self, micros: u64) -> u64 {
        micros * 1_000_000 / self.rate
    }

    /// When it will say so, by the world's clock.
    #[must_use]
    pub fn when(&self, moment: Duration) -> u64 {
        let micros = moment.as_micros() * 1_000_000 / u128::from(self.rate);
        self.begun + u64::try_from(micros).unwrap_or(u64::MAX / 4) + 1
    }
}

/// A member, running or not.
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its disks.
    pub machine: Machine,
    /// While it runs.
    pub running: Option<Running>,
    /// How often it was started: what was meant for an earlier life is void.
    pub boots: u64,
    /// Whether a start has ever come to its end.
    pub is_founded: bool,
    /// How it comes into the cluster.
    pub origin: Origin,
    /// Its disk was damaged and it refuses to start, or it was removed: it never runs again.
    pub is_lost: bool,
    /// It was removed and has ended. Whoever runs the cluster may start it once more, when all is
    /// calm: what it knows may be all that the last of the others needs to lead.
    pub is_dismissed: bool,
    /// It does nothing until then.
    pub paused_until: u64,
    /// When it comes to what the others sent it meanwhile: a process that goes on finds many
    /// sockets ready, and takes them in any order.
    pub unread_until: BTreeMap<Place, u64>,
    /// An operation of its disk was made to fail, so it may stop.
    pub may_fail: bool,
    /// Its disk was damaged at some time.
    pub is_damaged: bool,
    /// Its store has come from another member, or begun to.
    pub has_installed: bool,
    /// How its clock goes.
    pub clock_rate: u64,
    /// How many times slower its disk is.
    pub disk_slowness: u64,
}

/// A member that runs.
pub struct Running {
    /// The log core.
    pub core: LogCore,
    /// Its clock.
    pub clock: Clock,
    /// For reads.
    pub reader: ReadHandle,
    /// Says what those who watch want of events.
    pub interest: Arc<WatchInterest>,
    /// Operations of the log on their way, by number.
    pub log_ops: BTreeMap<u64, (wal::OpId, wal::DiskOp)>,
    /// Operations of the store on their way, by number.
    pub store_ops: BTreeMap<u64, DiskOp>,
    /// Walks through its store on their way, by number.
    pub scans: BTreeMap<u64, ScanJob>,
    /// When the next turn is due.
    pub turn_due: Option<u64>,
    /// Turns since something happened to it.
    pub idle_turns: u32,
    /// It was removed and goes on for a while, so that the others can come to lead.
    pub is_leaving: bool,
    /// It keeps the clocks of leases.
    pub is_primary: bool,
}

/// How a member starts, besides what it is.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// When.
    pub now: u64,
    /// Different at each start.
    pub nonce: u64,
    /// A checkpoint is due after so many entries.
    pub snapshot_count: u64,
    /// From which elections are timed.
    pub election_seed: u64,
    /// The rules of leases.
    pub lessor: LessorConfig,
    /// What its store may hold.
    pub quota_bytes: Option<u64>,
    /// Whether a candidate first asks whether it could win.
    pub pre_vote: bool,
    /// How much of what is applied stays for followers that lag.
    pub window: Window,
}

impl Member {
    /// One that was never started.
    #[must_use]
    pub fn new(id: MemberId, machine: Machine, origin: Origin) -> Self {
        Self {
            id,
            machine,
            origin,
            running: None,
            boots: 0,
            is_founded: false,
            is_lost: false,
            is_dismissed: false,
            paused_until: 0,
            unread_until: BTreeMap::new(),
            may_fail: false,
            is_damaged: false,
            has_installed: false,
            clock_rate: Clock::RATE_RIGHT,
            disk_slowness: 1,
        }
    }

    /// Starts it. Answers with the entries that were replayed.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub fn start(&mut self, boot: &Boot) -> Result<u64, Failure> {
        self.boots += 1;
        let config = StartConfig {
            store_dir: PathBuf::from("store"),
            log_dir: PathBuf::from("log"),
            identity: Identity { cluster: CLUSTER, member: self.id },
            is_new: !self.is_founded,
            origin: self.origin.clone(),
            direct: true,
            shards: 1,
            election_ticks: ELECTION_TICKS,
            pre_vote: boot.pre_vote,
            force_new_cluster: false,
            request_timeout: REQUEST_TIMEOUT,
            snapshot_count: boot.snapshot_count,
            lessor: boot.lessor,
            retention: None,
            defrag_from_bytes: None,
            boot_nonce: boot.nonce,
        };
        let mut started = start_on(&config, &mut self.machine)?;
        self.is_founded = true;
        started.stages.consensus.set_election_seed(boot.election_seed);
        let replayed = started.replayed;
        let clock = Clock { rate: self.clock_rate, begun: boot.now };
        let mut running = Running::new(self.id, started, clock);
        running.core.set_window(boot.window);
        let quota = boot.quota_bytes.and_then(|bytes| i64::try_from(bytes).ok());
        running.core.set_quota(Quota::from_flag(quota.unwrap_or(-1)));
        running.core.start();
        self.running = Some(running);
        Ok(replayed)
    }

    /// Whether it runs and is not held up.
    #[must_use]
    pub fn is_active(&self, now: u64) -> bool {
        self.running.is_some() && self.paused_until <= now
    }
}

impl Running {
    fn new<L, S>(id: MemberId, started: Started<L, S>, clock: Clock) -> Self {
        let (mut frames, mut writer) = (Vec::new(), FrameWriter::new());
        let (name, client_urls) = (format!("m{}", id.0), [format!("http://m{}:2379", id.0)]);
        let publish = MemberPublishRef { id, name: &name, client_urls: &client_urls };
        writer.push_member_publish(&mut frames, &publish);
        let introduction = Introduction { frames, count: 1 };
        let interest = Arc::new(WatchInterest::new(1));
        interest.set(FRONTEND, true, false);
        let status = Arc::new(Status::default());
        let watched = Arc::clone(&interest);
        let mut core = LogCore::new(started.stages, introduction, 1, status, watched);
        core.set_strict_reconfig(true);
        core.set_checks(CheckSettings {
            periodic: Some(Duration::from_millis(700)),
            compactions: Some(Duration::from_millis(900)),
        });
        let reader = core.engine().read_handle();
        Self {
            core,
            clock,
            reader,
            interest,
            log_ops: BTreeMap::new(),
            store_ops: BTreeMap::new(),
            scans: BTreeMap::new(),
            turn_due: None,
            idle_turns: 0,
            is_leaving: false,
            is_primary: false,
        }
    }
}

/// The founders as the flags of each of them name them.
#[must_use]
pub fn founders(ids: &[MemberId]) -> Vec<ClusterMember> {
    let member = |&id: &MemberId| ClusterMember {
        id,
        peer_urls: vec![peer_url(id)],
        is_learner: false,
        name: String::new(),
        client_urls: Vec::new(),
    };
    ids.iter().map(member).collect()
}

/// Where a member would be reached.
#[must_use]
pub fn peer_url(id: MemberId) -> String {
    format!("http://m{}:2380", id.0)
}
