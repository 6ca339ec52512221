//! A member's life: from a checked configuration to the last log line.
//!
//! The order is etcd's: the directories are claimed, the addresses bound (so that a mistake shows
//! at once), the store and the log opened, then the cores start. Other members are listened to from
//! then on; clients only when this member's own introduction is applied, and until then they wait
//! in the backlog.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::command::{FrameWriter, MemberPublishRef};
use engine::ids::LogIndex;
use engine::quota::{QUOTA_SIZE_BYTES_DEFAULT, Quota};
use engine::{Identity, Member, ReadHandle};

use super::core::{Core, FrontendLine, FrontendRole};
use super::failure::Failure;
use super::frontend_core::{Entrance, FrontendConfig, FrontendCore, FrontendParts};
use super::initial_check;
use super::log_core::{CheckSettings, Introduction, LogCore};
use super::log_role::{Line, LogRole, LogSettings, Scanner, SyncPolicy};
use super::peer_role::{PeerRole, PeerSettings};
use super::scrape::{self, Scraper, Sources};
use super::shared::{Status, WatchInterest};
use super::start::{Origin, StartConfig, Started, start};
use super::switch::Switch;
use crate::bootstrap::cluster::InitialMember;
use crate::bootstrap::{self, Beginning, DataDir};
use crate::config::{AutoCompaction, Config, ETCD_VERSION, Notice, Place, Url};
use crate::frontend::gateway::Access;
use crate::frontend::grpc;
use crate::frontend::http2::keepalive::{KeepaliveConfig, PingPolicy};
use crate::mail::{Ask, FrontendId, Reply};
use crate::metrics::{FrontendMetrics, Metrics};
use crate::raft::storage::Window;
use crate::runtime::disk_helper::DiskHelper;
use crate::runtime::files::{self, EngineDisk, random_u64};
use crate::runtime::log_disk::LogDisk;
use crate::runtime::placement::{self, CorePlan};
use crate::runtime::post::{self, Bell, Inbox, Outbox};
use crate::runtime::reactor::Reactor;
use crate::runtime::sockets::{self, Listener};
use crate::runtime::wake::Waker;
use crate::runtime::{executor, notify, signals};
use crate::sequencer::auto_compaction::Retention;
use crate::sequencer::lessor::LessorConfig;
use crate::service::dispatch::{Service, ServiceLimits};
use crate::service::lease::LeaseIds;
use crate::service::node_state::{MemberEntry, NodeState};
use crate::service::watch::WatchConfig;
use crate::{log_event, log_lines};

/// Where the store lies in the data directory.
pub const STORE_DIRECTORY: &str = "store";
/// gRPC's own limit lies so far above `--max-request-bytes`.
const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;
/// etcd's time for a proposal, besides two elections.
const REQUEST_TIMEOUT_BASE: Duration = Duration::from_secs(5);
/// gRPC pings a silent client no sooner than this, whatever it is told.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How often etcd notes the time that is left of its leases.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// What entries that are kept in memory for members that lag may take.
const WINDOW_SIZE_BYTES_MAX: usize = 64 << 20;
/// Descriptors that connections leave to the rest of the process.
const DESCRIPTORS_RESERVED: u64 = 150;

/// Runs a member until it is told to stop.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    let Some(connections_max) = check_descriptors() else { return ExitCode::FAILURE };
    match run_checked(&Arc::new(config), connections_max) {
        Ok(Some(signal)) => signals::reraise(signal),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<bootstrap::Failure>() {
                Some(bootstrap::Failure::Discovery { reason, token, endpoints }) => {
                    log_lines::discovery_token_used(reason, token, endpoints);
                }
                _ => log_lines::discovery_failed(&*error),
            }
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

/// A panic is a bug of ours, and a core that has met one must not go on acknowledging: the process
/// ends with it, whatever thread it was on.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log_event!(Panic, "ringd has met a bug in itself", "error" => panic as &dyn Display);
        report(panic);
        std::process::abort();
    }));
}

/// What ended the member: a signal, or its removal from the cluster.
type End = Option<libc::c_int>;

fn run_checked(config: &Arc<Config>, connections_max: usize) -> Result<End, Error> {
    end_on_panic();
    let mut notices = Vec::new();
    let prepared = bootstrap::prepare(config, &mut notices);
    notices.iter().for_each(Notice::write);
    let bootstrap::Prepared { mut data_dir, beginning } = prepared?;
    log_lines::data_directory(data_dir.path(), data_dir.is_new());
    log_lines::configuring_peer_listeners(config);
    let peer_listeners = bind_all(&config.listen_peer_urls, config.socket_reuse_port)?;
    log_lines::configuring_client_listeners(config);
    let client_listeners = bind_clients(config)?;
    let wal_path = data_dir.wal_path().to_owned();
    log_lines::starting_an_etcd_server(config, data_dir.path(), &wal_path, data_dir.is_new());

    let boot_nonce = random_u64()?;
    let is_new = data_dir.is_new();
    let started = open_stages(config, &mut data_dir, beginning, boot_nonce)?;
    let identity = started.stages.engine.identity();
    if !is_new && config.features.initial_corrupt_check() {
        initial_check::run(&started.stages.engine)?;
    }
    signals::block()?;
    let switch = Arc::new(Switch::default());
    let handles = start_cores(Assembly {
        config,
        identity,
        started,
        life: Life { boot_nonce, is_new },
        client_listeners,
        peer_listeners,
        connections_max,
        switch: Arc::clone(&switch),
    })?;
    let signal = signals::wait()?;
    let is_removed = switch.is_removed();
    if !is_removed {
        log_lines::received_signal(signals::stop_signal(signal));
    }
    if let Err(error) = notify::tell(notify::News::Stopping) {
        let message = "failed to notify systemd of the stop";
        log_event!(Warn, message, "error" => &error as &dyn Display);
    }
    log_lines::closing_etcd_server(config);
    switch.request_stop();
    for handle in handles {
        handle.join().map_err(|error| error.to_string())?;
    }
    log_lines::closed_etcd_server(config);
    Ok((!is_removed).then_some(signal))
}

/// How many connections there may be; what keeps the process from starting is told here.
fn check_descriptors() -> Option<usize> {
    let limit = match sockets::descriptor_limit() {
        Ok(limit) => limit,
        Err(error) => {
            log_lines::discovery_failed(&error);
            return None;
        }
    };
    if limit <= DESCRIPTORS_RESERVED {
        log_lines::descriptors_too_few(limit, DESCRIPTORS_RESERVED);
        return None;
    }
    Some(usize::try_from(limit - DESCRIPTORS_RESERVED).unwrap_or(usize::MAX))
}

fn bind_all(urls: &[Url], reuse_port: bool) -> Result<Vec<Listener>, Error> {
    urls.iter().map(|url| bind(url, reuse_port)).collect()
}

fn bind(url: &Url, reuse_port: bool) -> Result<Listener, Error> {
    match url.place().map_err(|error| error.to_string())? {
        Place::Tcp(address) => sockets::listen(address, reuse_port).map_err(|cause| {
            format!("listen tcp {}: bind: {}", url.authority(), Os(&cause)).into()
        }),
        Place::Unix(path) => sockets::listen_unix(&path).map_err(|(operation, cause)| {
            let (path, cause) = (path.display(), Os(&cause));
            match operation {
                "remove" => format!("remove {path}: {cause}"),
                _ => format!("listen unix {path}: {operation}: {cause}"),
            }
            .into()
        }),
    }
}

/// The listeners of clients, with what each serves.
fn bind_clients(config: &Config) -> Result<Vec<(Listener, Entrance)>, Error> {
    let is_split = !config.listen_client_http_urls.is_empty();
    let addresses = [
        (&config.listen_client_urls, if is_split { Entrance::Grpc } else { Entrance::Any }),
        (&config.listen_client_http_urls, Entrance::Http),
        (&config.listen_metrics_urls, Entrance::Metrics),
    ];
    let mut listeners = Vec::new();
    for (urls, entrance) in addresses {
        let bound = bind_all(urls, config.socket_reuse_port)?;
        listeners.extend(bound.into_iter().map(|listener| (listener, entrance)));
    }
    Ok(listeners)
}

/// A system error as Go words it.
struct Os<'a>(&'a io::Error);

impl Display for Os<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.raw_os_error() {
            Some(libc::EADDRINUSE) => formatter.write_str("address already in use"),
            Some(libc::EADDRNOTAVAIL) => formatter.write_str("cannot assign requested address"),
            Some(libc::EACCES) => formatter.write_str("permission denied"),
            Some(libc::ENOENT) => formatter.write_str("no such file or directory"),
            Some(libc::ENOTDIR) => formatter.write_str("not a directory"),
            Some(libc::EINVAL) => formatter.write_str("invalid argument"),
            _ => self.0.fmt(formatter),
        }
    }
}

fn request_timeout(config: &Config) -> Duration {
    REQUEST_TIMEOUT_BASE + 2 * Duration::from_millis(config.election_timeout_ms)
}

/// etcd's rules: a lease outlives an election and a half, and a new leader adds one election.
fn lessor_config(config: &Config) -> LessorConfig {
    let heartbeat = Duration::from_millis(config.heartbeat_interval_ms);
    let ticks = u32::try_from(config.election_ticks()).unwrap_or(u32::MAX);
    let ttl_min = heartbeat.saturating_mul(ticks.saturating_mul(3) / 2);
    let ttl_min_seconds = ttl_min.as_secs() + u64::from(ttl_min.subsec_nanos() > 0);
    LessorConfig {
        ttl_min_seconds: i64::try_from(ttl_min_seconds).unwrap_or(i64::MAX),
        extension: heartbeat.saturating_mul(ticks),
        checkpoint_interval: config.features.lease_checkpoint().then_some(CHECKPOINT_INTERVAL),
    }
}

/// How a member without data comes into its cluster.
fn origin(beginning: Option<Beginning>) -> Origin {
    // One with data does not ask.
    let Some(Beginning { members, origin, .. }) = beginning else {
        return Origin::Founds(Vec::new());
    };
    match origin {
        bootstrap::Origin::Joins(_) => Origin::Joins,
        bootstrap::Origin::Founds => {
            Origin::Founds(members.into_iter().map(InitialMember::into_member).collect())
        }
    }
}

fn open_stages(
    config: &Config,
    data_dir: &mut DataDir,
    beginning: Option<Beginning>,
    boot_nonce: u64,
) -> Result<Started, Error> {
    let store_dir = data_dir.path().join(STORE_DIRECTORY);
    std::fs::create_dir_all(&store_dir).map_err(|cause| Failure::File {
        operation: "create the store's directory".into(),
        cause,
    })?;
    let identity = data_dir.identity();
    if data_dir.is_new() {
        log_lines::starting_local_member(identity);
    }
    let begun = Instant::now();
    let started = start(&StartConfig {
        store_dir,
        log_dir: data_dir.wal_path().to_owned(),
        identity,
        is_new: data_dir.is_new(),
        origin: origin(beginning),
        direct: true,
        shards: 1,
        election_ticks: usize::try_from(config.election_ticks())?,
        request_timeout: request_timeout(config),
        snapshot_count: config.snapshot_count,
        lessor: lessor_config(config),
        retention: retention(config),
        defrag_from_bytes: defrag_from_bytes(config),
        boot_nonce,
        pre_vote: config.pre_vote,
        force_new_cluster: config.force_new_cluster,
    })?;
    if data_dir.is_new() {
        data_dir.seal()?;
    } else {
        let committed = started.stages.engine.applied().0;
        if config.force_new_cluster {
            log_lines::forcing_restart(identity, committed.0);
        } else {
            log_lines::restarting_local_member(identity, committed.0);
        }
    }
    log_event!(
        Info,
        "recovered the log",
        "replayed-entries" => started.replayed,
        "took" => begun.elapsed(),
    );
    if let Some(fault) = &started.store_remade {
        let message = "the store's only checkpoint did not count; it was made anew from the log";
        log_event!(Warn, message, "error" => fault as &dyn Display);
    }
    log_lines::kvstore_restored(started.stages.engine.revision().0);
    log_lines::backend_quota(config.quota_backend_bytes);
    // What cannot be read is noticed by whoever asks for it.
    let version = started.stages.engine.newest_view().cluster_version().ok().flatten();
    let version = version.as_deref().and_then(|version| version.rsplit_once('.'));
    log_lines::starting_etcd_server(identity.member, version.map(|(minor, _patch)| minor));
    log_lines::now_serving(identity.member, config);
    Ok(started)
}

/// This life of the member's.
#[derive(Debug, Clone, Copy)]
struct Life {
    boot_nonce: u64,
    /// Whether it is the first.
    is_new: bool,
}

struct Assembly<'a> {
    config: &'a Arc<Config>,
    identity: Identity,
    started: Started,
    life: Life,
    client_listeners: Vec<(Listener, Entrance)>,
    peer_listeners: Vec<Listener>,
    connections_max: usize,
    switch: Arc<Switch>,
}

/// Everything a core's thread needs to build its roles.
struct CoreParts {
    plan: CorePlan,
    bell: Arc<Bell>,
    switch: Arc<Switch>,
    origin: Instant,
    frontend: Option<FrontendSeed>,
    log: Option<LogSeed>,
}

struct FrontendSeed {
    id: FrontendId,
    config: FrontendConfig,
    limits: ServiceLimits,
    lease_ids: LeaseIds,
    views: ReadHandle,
    status: Arc<Status>,
    interest: Arc<WatchInterest>,
    node: NodeState,
    metrics: Arc<FrontendMetrics>,
    scraper: Scraper,
    line: Option<FrontendLine>,
    listeners: Vec<(Listener, Entrance)>,
    announce: Vec<(String, Entrance)>,
    access: Access,
    serves_json: bool,
    connections_max: usize,
    hand_off: Vec<Option<Outbox<(OwnedFd, Entrance)>>>,
    handed: Option<Inbox<(OwnedFd, Entrance)>>,
}

struct LogSeed {
    core: LogCore,
    disk: LogDisk,
    engine_disk: EngineDisk,
    lines: Vec<Option<Line>>,
    settings: LogSettings,
    peers: PeerSettings,
    peer_listeners: Vec<Listener>,
}

type Handles = Vec<glommio::ExecutorJoinHandle<()>>;

fn start_cores(assembly: Assembly<'_>) -> Result<Handles, Error> {
    let config = assembly.config;
    let allowed = placement::allowed_processors()?;
    let plans = placement::plan(&config.placement, &allowed, placement::quota_processors())?;
    let cores = seed_cores(assembly, &plans)?;
    let mut handles = Vec::new();
    for parts in cores {
        let name = if parts.log.is_some() { "log" } else { "front-end" };
        let plan = parts.plan;
        let handle = executor::start(name, plan, move || Some(build_core(parts)))
            .map_err(|error| format!("cannot start an executor: {error}"))?;
        handles.push(handle);
    }
    Ok(handles)
}

fn seed_cores(assembly: Assembly<'_>, plans: &[CorePlan]) -> Result<Vec<CoreParts>, Error> {
    let Assembly { config, identity, started, life, client_listeners, .. } = assembly;
    let (connections_max, switch) = (assembly.connections_max, assembly.switch);
    let origin = Instant::now();
    let frontend_count = plans.iter().filter(|plan| plan.frontend).count();
    let status = Arc::new(Status::default());
    let interest = Arc::new(WatchInterest::new(frontend_count));
    let Started { stages, log_disk, engine_disk, .. } = started;
    let views = stages.engine.read_handle();
    let introduction = introduction(config, identity, &views);
    let is_version_set = introduction.count > 1;
    let shared = (Arc::clone(&status), Arc::clone(&interest));
    let mut core = LogCore::new(stages, introduction, frontend_count, shared.0, shared.1);
    set_up(&mut core, config);
    let peers = peer_settings(config, identity, life, core.engine().applied().0);
    let sources = (views.clone(), Arc::clone(&status), origin);
    let (scraper, counts) = start_scraper(config, identity, frontend_count, &core, sources)?;
    let settings = log_settings(config, identity, &switch, is_version_set);
    let bells: Vec<Arc<Bell>> = plans.iter().map(|_| Bell::new()).collect();
    let log_bell = Arc::clone(&bells[plans.iter().position(|plan| plan.log).unwrap_or(0)]);
    let mut mesh = Mesh::new(plans, &bells, &log_bell);
    let lines = std::mem::take(&mut mesh.log_lines);
    let (disk, peer_listeners) = (log_disk, assembly.peer_listeners);
    let mut log = Some(LogSeed { core, disk, engine_disk, lines, settings, peers, peer_listeners });
    let mut listeners = Some(client_listeners);
    let mut cores = Vec::new();
    for (place, plan) in plans.iter().enumerate() {
        let frontend = plan.frontend.then(|| {
            let clients = listeners.take().unwrap_or_default();
            let wiring = mesh.frontends.remove(0);
            FrontendSeed {
                id: wiring.id,
                config: frontend_config(config),
                limits: service_limits(config),
                lease_ids: lease_ids(identity, wiring.id, frontend_count),
                views: views.clone(),
                status: Arc::clone(&status),
                interest: Arc::clone(&interest),
                node: node_state(config, identity),
                metrics: Arc::clone(&counts[wiring.id.place()]),
                scraper: scraper.clone(),
                line: wiring.line,
                announce: clients
                    .iter()
                    .map(|(client, entrance)| (client.address().to_owned(), *entrance))
                    .collect(),
                access: Access {
                    hosts: config.host_whitelist.iter().cloned().collect(),
                    origins: config.cors.iter().cloned().collect(),
                },
                serves_json: config.enable_grpc_gateway,
                connections_max: connections_max / frontend_count,
                listeners: clients,
                hand_off: wiring.hand_off,
                handed: wiring.handed,
            }
        });
        let log = log.take_if(|_| plan.log);
        let bell = Arc::clone(&bells[place]);
        let switch = Arc::clone(&switch);
        cores.push(CoreParts { plan: *plan, bell, switch, origin, frontend, log });
    }
    Ok(cores)
}

/// What the flags say to the log core.
fn set_up(core: &mut LogCore, config: &Config) {
    core.set_slow_apply(config.warning_apply_duration);
    core.set_quota(Quota::from_flag(config.quota_backend_bytes));
    core.set_strict_reconfig(config.strict_reconfig_check);
    core.set_heartbeat_interval(Duration::from_millis(config.heartbeat_interval_ms));
    core.set_checks(CheckSettings {
        periodic: Some(config.corrupt_check_time).filter(|interval| !interval.is_zero()),
        compactions: Some(config.compact_hash_check_time)
            .filter(|_| config.features.compact_hash_check()),
    });
    core.set_window(Window {
        entries_max: usize::try_from(config.snapshot_catchup_entries).unwrap_or(usize::MAX),
        size_bytes_max: WINDOW_SIZE_BYTES_MAX,
    });
}

fn log_settings(
    config: &Arc<Config>,
    identity: Identity,
    switch: &Arc<Switch>,
    is_version_set: bool,
) -> LogSettings {
    LogSettings {
        is_version_set,
        sync: SyncPolicy {
            never: config.unsafe_no_fsync,
            delay: config.fault.sync_delay,
            fail_after: config.fault.sync_fail_after,
        },
        switch: Arc::clone(switch),
        tick: Duration::from_millis(config.heartbeat_interval_ms),
        identity,
        config: Arc::clone(config),
    }
}

/// Where front-ends count, and who tells what they and the log core have counted.
fn start_scraper(
    config: &Config,
    identity: Identity,
    frontend_count: usize,
    core: &LogCore,
    (views, status, origin): (ReadHandle, Arc<Status>, Instant),
) -> Result<(Scraper, Vec<Arc<FrontendMetrics>>), Error> {
    let fixed =
        scrape::fixed(config, identity, node_state(config, identity).quota_bytes.unsigned_abs());
    let metrics = Metrics::new(fixed, frontend_count, core.metrics());
    let counts = (0..frontend_count).map(|place| metrics.frontend(place)).collect();
    let members = vec![identity.member.0];
    let scraper = Scraper::start(Sources { metrics, views, status, members, origin })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok((scraper, counts))
}

/// Who posts to whom.
struct Mesh {
    frontends: Vec<Wiring>,
    log_lines: Vec<Option<Line>>,
}

struct Wiring {
    id: FrontendId,
    line: Option<FrontendLine>,
    hand_off: Vec<Option<Outbox<(OwnedFd, Entrance)>>>,
    handed: Option<Inbox<(OwnedFd, Entrance)>>,
}

impl Mesh {
    /// A ring each way between the log core and every front-end of another core, and one from the
    /// accepting front-end, the first, to each other one.
    fn new(plans: &[CorePlan], bells: &[Arc<Bell>], log_bell: &Arc<Bell>) -> Self {
        let mut mesh = Self { frontends: Vec::new(), log_lines: Vec::new() };
        let mut hand_off = Vec::new();
        for (plan, bell) in plans.iter().zip(bells).filter(|(plan, _)| plan.frontend) {
            let number = mesh.frontends.len();
            let id = FrontendId(u16::try_from(number).expect("fewer front-ends than cores"));
            let (line, log_line) = if plan.log {
                (None, None)
            } else {
                let (ask_out, ask_in) = post::ring::<Ask>(log_bell);
                let (reply_out, reply_in) = post::ring::<Reply>(bell);
                (
                    Some(FrontendLine { asks: ask_out, replies: reply_in }),
                    Some(Line { asks: ask_in, replies: reply_out }),
                )
            };
            let handed = (number > 0).then(|| {
                let (outbox, inbox) = post::ring(bell);
                hand_off.push(Some(outbox));
                inbox
            });
            if number == 0 {
                hand_off.push(None);
            }
            mesh.frontends.push(Wiring { id, line, hand_off: Vec::new(), handed });
            mesh.log_lines.push(log_line);
        }
        mesh.frontends[0].hand_off = hand_off;
        mesh
    }
}

fn build_core(parts: CoreParts) -> Core {
    let CoreParts { bell, switch, origin, frontend, log, .. } = parts;
    let reactor = match Reactor::new() {
        Ok(reactor) => reactor,
        Err(error) => give_up(&error),
    };
    let waker = match Waker::new(reactor.eventfd()) {
        Ok(waker) => waker,
        Err(error) => give_up(&error),
    };
    switch.register(waker.clone());
    let frontend = frontend.map(|seed| build_frontend(seed, waker.clone()));
    let log = log.map(|seed| build_log(seed, waker));
    Core::new(reactor, bell, switch, origin, (frontend, log))
}

fn build_log(seed: LogSeed, waker: Waker) -> LogRole {
    let LogSeed { mut core, disk, engine_disk, lines, settings, peers, peer_listeners } = seed;
    let views = core.engine().read_handle();
    let peers = PeerRole::new(peers, peer_listeners, views, waker.clone(), core.metrics());
    let helper = match DiskHelper::start(disk.duplicate(), engine_disk, waker.clone()) {
        Ok(helper) => helper,
        Err(error) => give_up(&error),
    };
    let scanner = match Scanner::start(waker) {
        Ok(scanner) => scanner,
        Err(error) => give_up(&error),
    };
    core.start();
    LogRole::new((core, peers), (disk, helper, scanner), lines, settings)
}

fn build_frontend(seed: FrontendSeed, waker: Waker) -> FrontendRole {
    let service = Service::new(seed.limits, &seed.node, seed.lease_ids);
    let parts = FrontendParts {
        id: seed.id,
        service,
        views: seed.views,
        status: seed.status,
        interest: seed.interest,
        node: seed.node,
        metrics: seed.metrics,
    };
    let (listeners, entrances) = seed.listeners.into_iter().unzip();
    let mut core = FrontendCore::new(seed.config, parts);
    core.set_http(seed.access, seed.serves_json);
    FrontendRole {
        core,
        scrapes: seed.scraper.desk(waker),
        line: seed.line,
        listeners,
        entrances,
        announce: seed.announce,
        connections_max: seed.connections_max,
        hand_off: seed.hand_off,
        handed: seed.handed,
    }
}

fn lease_ids(identity: Identity, frontend: FrontendId, frontend_count: usize) -> LeaseIds {
    let (place, count) = (u64::from(frontend.0), frontend_count as u64);
    LeaseIds::new(identity.member.0, files::unix_ms(), place, count)
}

fn give_up(error: &dyn Display) -> ! {
    log_event!(Fatal, "cannot start a core", "error" => error);
    std::process::exit(1);
}

/// What this member tells its cluster about itself, as commands for the log.
fn introduction(config: &Config, identity: Identity, views: &ReadHandle) -> Introduction {
    let mut frames = Vec::new();
    let mut writer = FrameWriter::new();
    let client_urls = crate::config::texts(&config.advertise_client_urls);
    let member =
        MemberPublishRef { id: identity.member, name: &config.name, client_urls: &client_urls };
    writer.push_member_publish(&mut frames, &member);
    let mut count = 1;
    let version = views.clone().pin().cluster_version();
    if !matches!(version, Ok(Some(_))) {
        writer.push_cluster_version_set(&mut frames, &cluster_version());
        count += 1;
    }
    Introduction { frames, count }
}

/// The version of the cluster that this server founds: its own, without the patch.
fn cluster_version() -> String {
    let (minor, _) = ETCD_VERSION.rsplit_once('.').expect("a version has three parts");
    format!("{minor}.0")
}

fn peer_settings(
    config: &Config,
    identity: Identity,
    life: Life,
    applied: LogIndex,
) -> PeerSettings {
    let own_urls = crate::config::texts(&config.initial_advertise_peer_urls);
    // A member that joins and has received nothing yet knows of nobody; one that has applied
    // something and still knows of nobody was founded alone, before members were kept.
    let alone = (applied > LogIndex(0)).then(|| Member {
        id: identity.member,
        peer_urls: own_urls.clone(),
        is_learner: false,
        name: config.name.clone(),
        client_urls: crate::config::texts(&config.advertise_client_urls),
    });
    let local_address = config.member_local_address();
    if config.features.set_member_local_addr() {
        log_lines::member_local_address(local_address, &own_urls);
    }
    PeerSettings {
        identity,
        local_address,
        boot_nonce: life.boot_nonce,
        is_new: life.is_new,
        election_timeout: Duration::from_millis(config.election_timeout_ms),
        own_urls,
        alone,
    }
}

fn node_state(config: &Config, identity: Identity) -> NodeState {
    let member = MemberEntry {
        id: identity.member,
        peer_urls: crate::config::texts(&config.initial_advertise_peer_urls),
        learner: false,
    };
    NodeState {
        cluster_id: identity.cluster,
        member_id: identity.member,
        members: vec![member],
        quota_bytes: match config.quota_backend_bytes {
            0 => QUOTA_SIZE_BYTES_DEFAULT.cast_signed(),
            // None is told as it was given.
            given => given,
        },
        ..NodeState::default()
    }
}

fn retention(config: &Config) -> Option<Retention> {
    match config.auto_compaction {
        AutoCompaction::Off => None,
        AutoCompaction::Periodic(period) => Some(Retention::Period(period)),
        AutoCompaction::Revision(count) => Some(Retention::Revisions(count)),
    }
}

fn defrag_from_bytes(config: &Config) -> Option<u64> {
    let threshold = config.bootstrap_defrag_threshold_megabytes;
    (threshold > 0).then(|| threshold.saturating_mul(1 << 20))
}

fn service_limits(config: &Config) -> ServiceLimits {
    ServiceLimits {
        txn_ops_max: usize::try_from(config.max_txn_ops).unwrap_or(usize::MAX),
        request_size_bytes_max: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        quota: Quota::from_flag(config.quota_backend_bytes),
        lease_ttl_min_seconds: lessor_config(config).ttl_min_seconds,
        ..ServiceLimits::default()
    }
}

fn frontend_config(config: &Config) -> FrontendConfig {
    let request_max = usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX);
    let message_bytes_max = request_max.saturating_add(MESSAGE_OVERHEAD_BYTES);
    let keepalive = config.grpc_keepalive();
    FrontendConfig {
        grpc: grpc::Config {
            message_bytes_max,
            max_concurrent_streams: config.max_concurrent_streams,
            ping_policy: PingPolicy {
                interval_min: config.grpc_keepalive_min_time,
                permit_without_stream: false,
            },
            // Switched off in etcd means gRPC's own defaults.
            keepalive: keepalive.map_or_else(KeepaliveConfig::default, |keepalive| {
                let interval = keepalive.interval.max(PING_INTERVAL_MIN);
                KeepaliveConfig { interval, timeout: keepalive.timeout }
            }),
        },
        request_timeout: request_timeout(config),
        slow_after: Some(config.warning_unary_request_duration),
        watch: WatchConfig {
            progress_interval: config.watch_progress_notify_interval,
            fragment_size_bytes: message_bytes_max,
            ..WatchConfig::default()
        },
        election: Duration::from_millis(config.election_timeout_ms),
        learners_max: u32::try_from(config.max_learners.max(0)).unwrap_or(u32::MAX),
    }
}
