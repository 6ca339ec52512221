//! What a member is to do: the settings once they are read.
//!
//! A field is here for whoever serves it, also where the table still says that its flag is pending:
//! whoever brings the feature reads the field and changes the flag's stand in `table`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::features::FeatureGates;
use super::flag::Stand;
use super::placement::Placement;
use super::table::flags;
use super::url::Url;
use crate::log::LogConfig;

/// Whether a member without data founds a cluster or joins one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// Founds one.
    #[default]
    New,
    /// Joins one.
    Existing,
}

/// When the server compacts by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    #[default]
    Off,
    /// History older than this.
    Periodic(Duration),
    /// All but so many revisions.
    Revision(i64),
}

/// How much `/metrics` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsDetail {
    /// Counters and the server's own histograms.
    #[default]
    Basic,
    /// A histogram of its time for every RPC, too.
    Extensive,
}

impl MetricsDetail {
    /// As etcd, which knows one word and takes every other for `basic`.
    pub fn parse(text: &str) -> Self {
        if text == "extensive" { Self::Extensive } else { Self::Basic }
    }
}

/// What the hidden flags break, for the drills that kill and slow down the real binary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultConfig {
    /// Added to every sync of the log.
    pub sync_delay: Duration,
    /// So many syncs succeed; all later ones fail.
    pub sync_fail_after: Option<u64>,
}

/// How silent connections are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Ping after so much silence.
    pub interval: Duration,
    /// Close when the answer takes longer.
    pub timeout: Duration,
}

/// Where a member without data learns who the others are. At most one way is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// An etcd or a ringd that the members register with; none if there are none.
    pub endpoints: Vec<String>,
    /// Under this name.
    pub token: String,
    /// How long connecting to it may take.
    pub dial_timeout: Duration,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// Who it is told that asks; counts only with a password.
    pub user: String,
    /// That user's password.
    pub password: String,
    /// The older service's URL, with the token; empty if there is none.
    pub url: String,
    /// The domain whose SRV records name the members; empty if there is none.
    pub srv: String,
    /// A suffix of the service's name in these.
    pub srv_name: String,
}

impl Discovery {
    /// Whether the members are not named by `initial_cluster`.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.endpoints.is_empty() || !self.url.is_empty() || !self.srv.is_empty()
    }
}

impl Config {
    /// The address that connections to other members leave from, by etcd's rule: the first that is
    /// advertised to them and that is no loopback. `None` leaves it to the system, as without the
    /// gate.
    #[must_use]
    pub fn member_local_address(&self) -> Option<IpAddr> {
        let is_suitable = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
        let mut hosts = self.initial_advertise_peer_urls.iter().map(|url| &url.host);
        let is_wanted = self.features.set_member_local_addr();
        is_wanted.then(|| hosts.find_map(|host| host.parse().ok().filter(is_suitable)))?
    }
}

/// What a member is to do. Only made by [`super::parse`], so always checked.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The member's name.
    pub name: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Where its log is, when that is not in the data directory.
    pub wal_dir: Option<PathBuf>,
    /// A checkpoint is due at the latest after so many entries.
    pub snapshot_count: u64,
    /// The leader's heartbeat, and raft's tick.
    pub heartbeat_interval_ms: u64,
    /// At least five heartbeats, at most 50 s.
    pub election_timeout_ms: u64,
    /// Sorted, unique; every one can be bound.
    pub listen_peer_urls: Vec<Url>,
    /// Sorted, unique; every one can be bound.
    pub listen_client_urls: Vec<Url>,
    /// For HTTP only. When there is one, `listen_client_urls` speak gRPC only.
    pub listen_client_http_urls: Vec<Url>,
    /// For `/metrics` and the health endpoints only.
    pub listen_metrics_urls: Vec<Url>,
    /// Whether several processes may listen on one port.
    pub socket_reuse_port: bool,
    /// Sorted, unique; part of the member's id.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Sorted, unique.
    pub advertise_client_urls: Vec<Url>,
    /// As given; only a member without data reads it, and only then it is checked.
    pub initial_cluster: String,
    /// Only a member without data looks at it.
    pub initial_cluster_state: ClusterState,
    /// Part of every id.
    pub initial_cluster_token: String,
    /// Who tells a member without data of the others, if not `initial_cluster`.
    pub discovery: Discovery,
    /// Whether changes of the members that would cost the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Whether a member asks before it stands for election.
    pub pre_vote: bool,
    /// The most learners that this member lets its cluster have.
    pub max_learners: i64,
    /// Entries that are kept for a member that lags.
    pub snapshot_catchup_entries: u64,
    /// Whether a start makes a cluster of this member alone.
    pub force_new_cluster: bool,
    /// Size at which the NOSPACE alarm is raised: 0 is the default, less is no quota.
    pub quota_backend_bytes: i64,
    /// When the server compacts by itself.
    pub auto_compaction: AutoCompaction,
    /// The most operations of a transaction.
    pub max_txn_ops: u64,
    /// The largest request. gRPC's own limit is this and 512 KiB.
    pub max_request_bytes: u64,
    /// The most streams of a connection.
    pub max_concurrent_streams: u32,
    /// A client that pings more often is sent away.
    pub grpc_keepalive_min_time: Duration,
    /// See [`Config::grpc_keepalive`].
    pub(super) grpc_keepalive_interval: Duration,
    pub(super) grpc_keepalive_timeout: Duration,
    /// Whether the API is served as JSON, too.
    pub enable_grpc_gateway: bool,
    /// Origins whose scripts may call, as URLs; `*` alone is all.
    pub cors: Vec<String>,
    /// Host names under which plain HTTP may be asked; `*` alone is all, and so is an empty one.
    pub host_whitelist: Vec<String>,
    /// How much `/metrics` tells.
    pub metrics: MetricsDetail,
    /// How often a quiet watch hears of the revision; at least 100 ms.
    pub watch_progress_notify_interval: Duration,
    /// A command that takes longer to apply is logged; 0 logs each.
    pub warning_apply_duration: Duration,
    /// A unary request that takes longer is logged; never 0.
    pub warning_unary_request_duration: Duration,
    /// How often the leader compares the members' data; zero is never.
    pub corrupt_check_time: Duration,
    /// How often it compares the hashes that compactions left.
    pub compact_hash_check_time: Duration,
    /// A start defragments when it frees so many MiB; 0 is never.
    pub bootstrap_defrag_threshold_megabytes: u64,
    /// Single features.
    pub features: FeatureGates,
    /// What is logged, and where.
    pub log: LogConfig,
    /// Which core does what.
    pub placement: Placement,
    /// Acknowledge without syncing.
    pub unsafe_no_fsync: bool,
    /// What is broken on purpose.
    pub fault: FaultConfig,
    /// What only the check looks at.
    pub(super) raw: Raw,
}

/// Settings as they came, until they are checked together, and those whose only use is the check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    pub log: RawLog,
    pub compaction_mode: String,
    pub compaction_retention: String,
    pub compact_hash_check_ns: i64,
    pub discovery_fallback: String,
    pub tls_cipher_suites: Vec<String>,
    pub tls_version_min: String,
    pub tls_version_max: String,
    pub tracing: bool,
    pub tracing_sampling_rate: i64,
}

/// Of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawLog {
    pub logger: String,
    pub outputs: Vec<String>,
    pub level: String,
    pub format: String,
    pub rotates: bool,
    pub rotation: String,
}

impl Config {
    /// Whether and how the server pings its clients: as in etcd, either time at 0 turns it off.
    pub fn grpc_keepalive(&self) -> Option<Keepalive> {
        let (interval, timeout) = (self.grpc_keepalive_interval, self.grpc_keepalive_timeout);
        (!interval.is_zero() && !timeout.is_zero()).then_some(Keepalive { interval, timeout })
    }

    /// Ticks of raft from the last heartbeat to an election.
    pub fn election_ticks(&self) -> u64 {
        assert!(self.heartbeat_interval_ms > 0);
        self.election_timeout_ms / self.heartbeat_interval_ms
    }

    /// Every default, read from the table by the parser that reads the command line.
    pub(super) fn defaults() -> Self {
        let mut config = Self::default();
        for flag in flags() {
            if flag.default.is_empty() || matches!(flag.stand, Stand::Special) {
                continue;
            }
            let value = flag.kind.parse(flag.default).expect("a default is of its flag's kind");
            (flag.update)(&mut config, value).expect("a default has a meaning");
        }
        config
    }
}
