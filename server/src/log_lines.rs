//! The lines of a member's life that tools wait for or collect, with etcd's messages and keys.
//!
//! Test suites wait for "ready to serve client requests", dashboards group by
//! `local-member-id`; here stands every such line once, so that no message is retyped elsewhere.
//! The order of the functions is that of a life; a test compares them with lines that etcd 3.7.1
//! wrote.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use engine::quota::QUOTA_SIZE_BYTES_DEFAULT;
use engine::{Identity, Member, MemberId};

use crate::config::{Config, ETCD_VERSION, texts};
use crate::frontend::gateway::Notice;
use crate::log::Value;
use crate::log_event;
use crate::peer::hello::Refusal;
use crate::peer::link::LinkFailure;

/// A larger quota draws a warning from etcd.
const QUOTA_SIZE_BYTES_ADVISED_MAX: u64 = 8 << 30;

/// Whether the data directory holds a member already; the first thing etcd says of it.
pub fn data_directory(data_dir: &Path, is_new: bool) {
    let path = &data_dir.display() as &dyn fmt::Display;
    if is_new {
        let message = "Initialize and start etcd server";
        log_event!(Info, message, "data-dir" => path, "dir-type" => "empty");
    } else {
        let message = "server has already been initialized";
        log_event!(Info, message, "data-dir" => path, "dir-type" => "member");
    }
}

/// The peer addresses are about to be bound.
pub fn configuring_peer_listeners(config: &Config) {
    let urls = texts(&config.listen_peer_urls);
    log_event!(Info, "configuring peer listeners", "listen-peer-urls" => &urls);
}

/// The client addresses are about to be bound.
pub fn configuring_client_listeners(config: &Config) {
    let urls = texts(&config.listen_client_urls);
    log_event!(Info, "configuring client listeners", "listen-client-urls" => &urls);
}

/// The settings of this start.
pub fn starting_an_etcd_server(config: &Config, data_dir: &Path, wal_dir: &Path, is_new: bool) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    log_event!(
        Info,
        "starting an etcd server",
        "etcd-version" => ETCD_VERSION,
        "ringd-version" => env!("CARGO_PKG_VERSION"),
        "go-os" => std::env::consts::OS,
        "go-arch" => std::env::consts::ARCH,
        "max-cpu-available" => cores,
        "member-initialized" => !is_new,
        "name" => &config.name,
        "data-dir" => &data_dir.display() as &dyn fmt::Display,
        "wal-dir" => &wal_dir.display() as &dyn fmt::Display,
        "heartbeat-interval" => Duration::from_millis(config.heartbeat_interval_ms),
        "election-timeout" => Duration::from_millis(config.election_timeout_ms),
        "snapshot-count" => config.snapshot_count,
        "initial-advertise-peer-urls" => &texts(&config.initial_advertise_peer_urls),
        "listen-peer-urls" => &texts(&config.listen_peer_urls),
        "advertise-client-urls" => &texts(&config.advertise_client_urls),
        "listen-client-urls" => &texts(&config.listen_client_urls),
        "initial-cluster" => if is_new { config.initial_cluster.as_str() } else { "" },
        "initial-cluster-token" => &config.initial_cluster_token,
        "unsafe-no-fsync" => config.unsafe_no_fsync,
    );
}

/// A member begins its first life.
pub fn starting_local_member(identity: Identity) {
    log_event!(
        Info,
        "starting local member",
        "local-member-id" => Value::Id(identity.member.get()),
        "cluster-id" => Value::Id(identity.cluster.get()),
    );
}

/// A member goes on from its log.
pub fn restarting_local_member(identity: Identity, commit_index: u64) {
    log_event!(
        Info,
        "restarting local member",
        "cluster-id" => Value::Id(identity.cluster.get()),
        "local-member-id" => Value::Id(identity.member.get()),
        "commit-index" => commit_index,
    );
}

/// A member goes on from its log, alone.
pub fn forcing_restart(identity: Identity, commit_index: u64) {
    log_event!(
        Info,
        "forcing restart member",
        "cluster-id" => Value::Id(identity.cluster.get()),
        "local-member-id" => Value::Id(identity.member.get()),
        "commit-index" => commit_index,
    );
}

/// The store is open; `revision` is where it stands.
pub fn kvstore_restored(revision: i64) {
    log_event!(Info, "kvstore restored", "current-rev" => revision);
}

/// How large the store may become. etcd asks for its quota in three places and tells the first.
pub fn backend_quota(quota_backend_bytes: i64) {
    let name = "v3-applier";
    let Ok(given) = u64::try_from(quota_backend_bytes) else {
        log_event!(
            Info,
            "disabled backend quota",
            "quota-name" => name,
            "quota-size-bytes" => quota_backend_bytes,
        );
        return;
    };
    let message = match given {
        0 => "enabled backend quota with default value",
        _ => "enabled backend quota",
    };
    let size_bytes = if given == 0 { QUOTA_SIZE_BYTES_DEFAULT } else { given };
    let size = human_size(size_bytes);
    if size_bytes > QUOTA_SIZE_BYTES_ADVISED_MAX {
        log_event!(
            Warn,
            "quota exceeds the maximum value",
            "quota-name" => name,
            "quota-size-bytes" => size_bytes,
            "quota-size" => &size,
            "quota-maximum-size-bytes" => QUOTA_SIZE_BYTES_ADVISED_MAX,
            "quota-maximum-size" => &human_size(QUOTA_SIZE_BYTES_ADVISED_MAX),
        );
    }
    log_event!(
        Info,
        message,
        "quota-name" => name,
        "quota-size-bytes" => size_bytes,
        "quota-size" => &size,
    );
}

/// What was admitted has found the quota used up; the alarm is raised.
pub fn quota_exceeded(quota_backend_bytes: i64) {
    log_event!(
        Warn,
        "message exceeded backend quota; raising alarm",
        "quota-size-bytes" => quota_backend_bytes,
        "quota-size" => &human_size(quota_backend_bytes.unsigned_abs()),
        "error" => "etcdserver: no space",
    );
}

/// Bytes as etcd's log tells them to people: `2.1 GB`, `83 MB`, by thousands.
fn human_size(size_bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if size_bytes < 10 {
        return format!("{size_bytes} B");
    }
    let place = size_bytes.ilog10() / 3;
    let tenths = (size_bytes as f64 / 1000_u64.pow(place) as f64 * 10.0 + 0.5).floor();
    let (value, unit) = (tenths / 10.0, UNITS[place as usize]);
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// The log of this life is open and raft is about to run.
pub fn starting_etcd_server(member: MemberId, cluster_version: Option<&str>) {
    log_event!(
        Info,
        "starting etcd server",
        "local-member-id" => Value::Id(member.get()),
        "local-server-version" => ETCD_VERSION,
        "cluster-version" => cluster_version.unwrap_or("to_be_decided"),
    );
}

/// Where connections to other members leave from, if the gate for that is open.
pub fn member_local_address(address: Option<IpAddr>, advertised: &[String]) {
    if let Some(address) = address {
        let address = &address as &dyn fmt::Display;
        log_event!(Info, "setting member local address", "LocalAddr" => address);
    } else {
        log_event!(
            Warn,
            "unable to set a member local address due to lack of suitable local addresses",
            "advertise-peer-urls" => advertised,
        );
    }
}

/// The corruption check of a start begins.
pub fn starting_initial_check(identity: Identity, timeout: Duration) {
    log_event!(
        Info,
        "starting initial corruption check",
        "local-member-id" => Value::Id(identity.member.get()),
        "timeout" => timeout,
    );
}

/// It found nothing at the members that it could be compared with.
pub fn passed_initial_check(identity: Identity, compared: u64) {
    log_event!(
        Info,
        "initial corruption checking passed; no corruption",
        "local-member-id" => Value::Id(identity.member.get()),
        "number-of-peers-checked" => compared,
    );
}

/// It found this member's keys to be others.
pub fn failed_initial_check(error: &dyn fmt::Display) {
    log_event!(Error, "checkInitialHashKV failed", "error" => error);
}

/// The leader compares the members' keys so often.
pub fn enabled_corruption_checking(identity: Identity, interval: Duration) {
    log_event!(
        Info,
        "enabled corruption checking",
        "local-member-id" => Value::Id(identity.member.get()),
        "interval" => interval,
    );
}

/// All addresses of the member, for who collects them.
pub fn now_serving(member: MemberId, config: &Config) {
    log_event!(
        Info,
        "now serving peer/client/metrics",
        "local-member-id" => Value::Id(member.get()),
        "initial-advertise-peer-urls" => &texts(&config.initial_advertise_peer_urls),
        "listen-peer-urls" => &texts(&config.listen_peer_urls),
        "advertise-client-urls" => &texts(&config.advertise_client_urls),
        "listen-client-urls" => &texts(&config.listen_client_urls),
        "listen-metrics-urls" => Value::Texts(&[]),
    );
}

/// A peer address answers.
pub fn serving_peer_traffic(address: &str) {
    log_event!(Info, "serving peer traffic", "address" => address);
}

/// The store says that a member belongs to the cluster.
pub fn recovered_member(own: Identity, member: &Member) {
    log_event!(
        Info,
        "recovered/added member from store",
        "cluster-id" => Value::Id(own.cluster.get()),
        "local-member-id" => Value::Id(own.member.get()),
        "recovered-remote-peer-id" => Value::Id(member.id.get()),
        "recovered-remote-peer-urls" => &member.peer_urls,
        "recovered-remote-peer-is-learner" => member.is_learner,
    );
}

/// A member belongs to the cluster from now on.
pub fn added_member(own: Identity, member: &Member) {
    log_event!(
        Info,
        "added member",
        "cluster-id" => Value::Id(own.cluster.get()),
        "local-member-id" => Value::Id(own.member.get()),
        "added-peer-id" => Value::Id(member.id.get()),
        "added-peer-peer-urls" => &member.peer_urls,
        "added-peer-is-learner" => member.is_learner,
    );
}

/// A learner has a vote from now on.
pub fn promoted_member(own: Identity, member: &Member) {
    log_event!(
        Info,
        "promote member",
        "cluster-id" => Value::Id(own.cluster.get()),
        "local-member-id" => Value::Id(own.member.get()),
        "promoted-member-id" => Value::Id(member.id.get()),
    );
}

/// A member is reached elsewhere from now on.
pub fn updated_member(own: Identity, member: &Member) {
    log_event!(
        Info,
        "updated member",
        "cluster-id" => Value::Id(own.cluster.get()),
        "local-member-id" => Value::Id(own.member.get()),
        "updated-remote-peer-id" => Value::Id(member.id.get()),
        "updated-remote-peer-urls" => &member.peer_urls,
        "updated-remote-peer-is-learner" => member.is_learner,
    );
}

/// A member belongs to the cluster no more, for ever.
pub fn removed_member(own: Identity, member: &Member) {
    log_event!(
        Info,
        "removed member",
        "cluster-id" => Value::Id(own.cluster.get()),
        "local-member-id" => Value::Id(own.member.get()),
        "removed-remote-peer-id" => Value::Id(member.id.get()),
        "removed-remote-peer-urls" => &member.peer_urls,
        "removed-remote-peer-is-learner" => member.is_learner,
    );
}

/// A member is connected to from now on.
pub fn added_remote_peer(own: MemberId, peer: MemberId, urls: &[String]) {
    log_event!(
        Info,
        "added remote peer",
        "local-member-id" => Value::Id(own.get()),
        "remote-peer-id" => Value::Id(peer.get()),
        "remote-peer-urls" => urls,
    );
}

/// A member is connected to elsewhere from now on.
pub fn updated_remote_peer(own: MemberId, peer: MemberId, urls: &[String]) {
    log_event!(
        Info,
        "updated remote peer",
        "local-member-id" => Value::Id(own.get()),
        "updated-remote-peer-id" => Value::Id(peer.get()),
        "updated-remote-peer-urls" => urls,
    );
}

/// A member is connected to no more.
pub fn removed_remote_peer(own: MemberId, peer: MemberId) {
    log_event!(
        Info,
        "removed remote peer",
        "local-member-id" => Value::Id(own.get()),
        "removed-remote-peer-id" => Value::Id(peer.get()),
    );
}

/// Letters reach a member.
pub fn peer_became_active(peer: MemberId) {
    log_event!(Info, "peer became active", "peer-id" => Value::Id(peer.get()));
}

/// Letters do not reach a member any more.
pub fn peer_became_inactive(peer: MemberId, failure: &dyn fmt::Display) {
    let error = format!("failed to write to {:x} ({failure})", peer.get());
    log_event!(
        Warn,
        "peer became inactive (message send to peer failed)",
        "peer-id" => Value::Id(peer.get()),
        "error" => &error,
    );
}

/// Letters do not reach a member yet. That it cannot be reached is nothing new; that it does not
/// let us in somebody has to look after.
pub fn peer_not_reached(own: MemberId, peer: MemberId, failure: &LinkFailure) {
    let (peer, error) = (Value::Id(peer.get()), failure as &dyn fmt::Display);
    match failure {
        LinkFailure::Refused(Refusal::Cluster(_)) => {
            let message = "request sent was ignored by remote peer due to cluster ID mismatch";
            let own = Value::Id(own.get());
            log_event!(
                Warn,
                message,
                "local-member-id" => own,
                "remote-peer-id" => peer,
                "error" => error,
            );
        }
        LinkFailure::Refused(_) | LinkFailure::Stranger(_) | LinkFailure::Garbled(_) => {
            let message = "a member does not let this one in";
            log_event!(Warn, message, "remote-peer-id" => peer, "error" => error);
        }
        _ => log_event!(Debug, "peer deactivated again", "peer-id" => peer, "error" => error),
    }
}

/// A connection to a member could not be made.
pub fn dial_failed(peer: MemberId, cause: &io::Error) {
    let cause = cause as &dyn fmt::Display;
    let peer = Value::Id(peer.get());
    log_event!(Debug, "failed to dial", "remote-peer-id" => peer, "error" => cause);
}

/// Somebody of another cluster has called.
pub fn cluster_id_mismatch(own: Identity, from: MemberId) {
    log_event!(
        Warn,
        "request cluster ID mismatch",
        "local-member-id" => Value::Id(own.member.get()),
        "local-member-cluster-id" => Value::Id(own.cluster.get()),
        "remote-peer-id" => Value::Id(from.get()),
    );
}

/// A member was sent away.
pub fn rejected_peer(from: MemberId, error: &dyn fmt::Display) {
    let from = Value::Id(from.get());
    log_event!(Warn, "rejected connection", "remote-peer-id" => from, "error" => error);
}

/// This member was removed from the cluster and ends.
pub fn removed_from_cluster(data_dir: &Path) {
    let error = "the member has been permanently removed from the cluster";
    log_event!(Warn, "server error", "error" => error);
    let data_dir = &data_dir.display() as &dyn fmt::Display;
    log_event!(Warn, "data-dir used by this member must be removed", "data-dir" => data_dir);
}

/// Raft has a leader; etcd's raft says it, under its own name.
#[track_caller]
pub fn elected_leader(member: MemberId, leader: MemberId, term: u64) {
    let (member, leader) = (member.get(), leader.get());
    let message = format!("raft.node: {member:x} elected leader {leader:x} at term {term}");
    crate::log::write_from("raft", crate::log::Level::Info, &message, &[]);
}

/// Another member leads.
#[track_caller]
pub fn changed_leader(member: MemberId, (from, to): (MemberId, MemberId), term: u64) {
    let (member, from, to) = (member.get(), from.get(), to.get());
    let message =
        format!("raft.node: {member:x} changed leader from {from:x} to {to:x} at term {term}");
    crate::log::write_from("raft", crate::log::Level::Info, &message, &[]);
}

/// Nobody leads any more.
#[track_caller]
pub fn lost_leader(member: MemberId, leader: MemberId, term: u64) {
    let (member, leader) = (member.get(), leader.get());
    let message = format!("raft.node: {member:x} lost leader {leader:x} at term {term}");
    crate::log::write_from("raft", crate::log::Level::Info, &message, &[]);
}

/// The cluster knows the member's name and client addresses.
pub fn published_local_member(identity: Identity, config: &Config) {
    let urls = texts(&config.advertise_client_urls).join(" ");
    let attributes = format!("{{Name:{} ClientURLs:[{urls}]}}", config.name);
    // etcd's request time-out: five seconds and two elections.
    let timeout = Duration::from_millis(5_000 + 2 * config.election_timeout_ms);
    log_event!(
        Info,
        "published local member to cluster through raft",
        "local-member-id" => Value::Id(identity.member.get()),
        "local-member-attributes" => &attributes,
        "cluster-id" => Value::Id(identity.cluster.get()),
        "publish-timeout" => timeout,
    );
}

/// The first cluster version of a new cluster, as `3.7`.
pub fn set_initial_cluster_version(identity: Identity, version: &str) {
    log_event!(
        Info,
        "set initial cluster version",
        "cluster-id" => Value::Id(identity.cluster.get()),
        "local-member-id" => Value::Id(identity.member.get()),
        "cluster-version" => version,
    );
}

/// Requests are answered from here on: the line that every harness waits for.
pub fn ready_to_serve() {
    log_event!(Info, "ready to serve client requests");
}

/// A client address answers, without TLS.
pub fn serving_client_traffic_insecurely(address: &str, traffic: &str) {
    log_event!(
        Info,
        "serving client traffic insecurely; this is strongly discouraged!",
        "traffic" => traffic,
        "address" => address,
    );
}

/// An address of metrics and health answers.
pub fn serving_metrics(address: &str) {
    let address = format!("http://{address}");
    log_event!(Info, "serving metrics", "address" => &address);
}

/// The state that `grpc.health` answers with has changed.
pub fn grpc_service_status_changed(is_serving: bool) {
    let status = if is_serving { "SERVING" } else { "NOT_SERVING" };
    log_event!(Info, "grpc service status changed", "service" => "", "status" => status);
}

/// The supervisor was told that clients are served, or could not be.
pub fn notifying_init_daemon(failure: Option<&io::Error>) {
    log_event!(Info, "notifying init daemon");
    match failure {
        None => log_event!(Info, "successfully notified init daemon"),
        Some(error) => {
            let message = "failed to notify systemd for readiness";
            log_event!(Error, message, "error" => error as &dyn fmt::Display);
        }
    }
}

/// The process may open hardly a file.
pub fn descriptors_too_few(limit: u64, recommended: u64) {
    let message = "file descriptor limit of etcd process is too low; please set higher";
    log_event!(Fatal, message, "limit" => limit, "recommended-limit" => recommended);
}

/// An operator wants the member to end; `signal` is Go's word for it.
pub fn received_signal(signal: StopSignal) {
    let word = match signal {
        StopSignal::Interrupt => "interrupt",
        StopSignal::Terminate => "terminated",
    };
    log_event!(Info, "received signal; shutting down", "signal" => word);
}

/// A signal that ends a member in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// A single member has nobody to hand its leadership to.
pub fn skipped_leadership_transfer(member: MemberId, leader: MemberId) {
    log_event!(
        Info,
        "skipped leadership transfer for single voting member cluster",
        "local-member-id" => Value::Id(member.get()),
        "current-leader-member-id" => Value::Id(leader.get()),
    );
}

/// Another member leads already.
pub fn skipped_leadership_transfer_of_follower(member: MemberId, leader: Option<MemberId>) {
    log_event!(
        Info,
        "skipped leadership transfer; local server is not leader",
        "local-member-id" => Value::Id(member.get()),
        "current-leader-member-id" => Value::Id(leader.map_or(0, |leader| leader.get())),
    );
}

/// Another member is asked to lead.
pub fn starting_leadership_transfer(member: MemberId) {
    log_event!(
        Info,
        "leadership transfer starting",
        "local-member-id" => Value::Id(member.get()),
        "current-leader-member-id" => Value::Id(member.get()),
    );
}

/// Another member leads.
pub fn finished_leadership_transfer(member: MemberId, leader: MemberId, took: Duration) {
    log_event!(
        Info,
        "leadership transfer finished",
        "local-member-id" => Value::Id(member.get()),
        "old-leader-member-id" => Value::Id(member.get()),
        "new-leader-member-id" => Value::Id(leader.get()),
        "took" => took,
    );
}

/// Nobody can be asked to lead.
pub fn failed_leadership_transfer(member: MemberId) {
    let (member, error) = (Value::Id(member.get()), "etcdserver: unhealthy cluster");
    let message = "leadership transfer failed";
    log_event!(Warn, message, "local-member-id" => member, "error" => error);
}

/// The end begins.
pub fn closing_etcd_server(config: &Config) {
    closing("closing etcd server", config);
}

/// A peer address is about to be let go.
pub fn stopping_serving_peer_traffic(address: &str) {
    log_event!(Info, "stopping serving peer traffic", "address" => address);
}

/// A peer address is free again.
pub fn stopped_serving_peer_traffic(address: &str) {
    log_event!(Info, "stopped serving peer traffic", "address" => address);
}

/// The last line of a life in good order.
pub fn closed_etcd_server(config: &Config) {
    closing("closed etcd server", config);
}

fn closing(message: &str, config: &Config) {
    log_event!(
        Info,
        message,
        "name" => &config.name,
        "data-dir" => &config.data_dir.display() as &dyn fmt::Display,
        "advertise-peer-urls" => &texts(&config.initial_advertise_peer_urls),
        "advertise-client-urls" => &texts(&config.advertise_client_urls),
    );
}

/// Start-up failed; the process ends with code 1. etcd's word for every such failure.
pub fn discovery_failed(failure: &dyn fmt::Display) {
    log_event!(Fatal, "discovery failed", "error" => failure);
}

/// A discovery service refused the member; the process ends with code 1, without a fatal line, as
/// etcd's does.
pub fn discovery_token_used(reason: &str, token: &str, endpoints: &[String]) {
    let message = "failed to bootstrap; discovery token was already used";
    log_event!(
        Warn,
        message,
        "discovery-token" => token,
        "discovery-endpoints" => endpoints,
        "error" => reason,
    );
    let message = "do not reuse discovery token; generate a new one to bootstrap a cluster";
    log_event!(Warn, message);
}

/// Something about a request over HTTP/1.
pub fn http_notice(notice: &Notice) {
    match notice {
        Notice::HostRejected(host) => {
            let message = "rejecting HTTP request to prevent DNS rebinding attacks";
            log_event!(Warn, message, "host" => host);
        }
        Notice::MethodNotAllowed(path) if path == "/health" => {
            log_event!(Warn, "/health error", "status-code" => 405u64);
        }
        Notice::MethodNotAllowed(path) => {
            log_event!(Warn, "Health request error", "path" => path, "status-code" => 405u64);
        }
        Notice::AlarmRaised(member, kind) => {
            let alarm = format!("memberID:{member} alarm:{}", kind.name());
            log_event!(Warn, "serving /health false due to an alarm", "alarm" => &alarm);
        }
        Notice::NoLeader => log_event!(Warn, "serving /health false; no leader"),
        Notice::ReadFailed(error) => {
            log_event!(Warn, "serving /health false; Range fails", "error" => error);
        }
        Notice::HealthFalse(output) => {
            log_event!(Warn, "/health error", "output" => output, "status-code" => 503u64);
        }
        Notice::CheckFailed(path, reason) => log_event!(
            Error,
            "Health check error",
            "path" => path,
            "reason" => reason,
            "status-code" => 503u64,
        ),
        Notice::UnknownChecks(names) => {
            let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            let names = names.join(",");
            let message = "some health checks cannot be excluded";
            log_event!(Warn, message, "missing-health-checks" => &names);
        }
        Notice::HealthAnswered(_) | Notice::CheckMade(..) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use engine::ClusterId;

    use super::*;
    use crate::config::{Outcome, Surroundings, parse};

    /// As etcd wrote them when it was started with these flags, without `ts` and `caller`.
    const OF_ETCD: &str = include_str!("log_lines.jsonl");

    fn config(log_path: &str) -> Config {
        let arguments = [
            "--name=n1",
            "--data-dir=d1",
            "--listen-client-urls=http://127.0.0.1:29379",
            "--advertise-client-urls=http://127.0.0.1:29379",
            "--listen-peer-urls=http://127.0.0.1:29380",
            "--initial-advertise-peer-urls=http://127.0.0.1:29380",
            &format!("--log-outputs={log_path}"),
        ]
        .map(str::to_owned);
        match parse(&arguments, &Surroundings::NONE, &mut Vec::new()) {
            Ok(Outcome::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn live_once(config: &Config) {
        let member = MemberId(0x151a_a8a8_d37c_3e01);
        let identity = Identity { cluster: ClusterId(0xac5a_a2af_9d61_fc5a), member };
        let (peer, client) = ("127.0.0.1:29380", "127.0.0.1:29379");
        data_directory(&config.data_dir, true);
        configuring_peer_listeners(config);
        configuring_client_listeners(config);
        starting_local_member(identity);
        kvstore_restored(1);
        for quota in [0, -1, 4_000_000_000, 16 << 30] {
            backend_quota(quota);
        }
        starting_etcd_server(member, None);
        now_serving(member, config);
        serving_peer_traffic(peer);
        elected_leader(member, member, 2);
        published_local_member(identity, config);
        set_initial_cluster_version(identity, "3.7");
        ready_to_serve();
        grpc_service_status_changed(true);
        serving_client_traffic_insecurely(client, "grpc+http");
        received_signal(StopSignal::Terminate);
        closing_etcd_server(config);
        skipped_leadership_transfer(member, member);
        stopping_serving_peer_traffic(peer);
        stopped_serving_peer_traffic(peer);
        closed_etcd_server(config);
        data_directory(&config.data_dir, false);
        restarting_local_member(identity, 4);
        let reason = "couldn't find local name \"foo\" in the initial cluster configuration";
        discovery_failed(&reason);
    }

    #[test]
    fn sizes_are_told_as_etcd_tells_them() {
        for (size_bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9949, "9.9 kB"),
            (9960, "10 kB"),
            (82_854_982, "83 MB"),
            (2 << 30, "2.1 GB"),
            (8 << 30, "8.6 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(human_size(size_bytes), text);
        }
    }

    /// A line without the value of one key, which must be there.
    fn without<'a>(line: &'a str, key: &str) -> (String, &'a str) {
        let start = line.find(&format!("\"{key}\":\"")).unwrap_or_else(|| panic!("{key}: {line}"));
        let value_start = start + key.len() + 4;
        let end = value_start + line[value_start..].find('"').expect("a value ends");
        (format!("{}{}", &line[..start], &line[end + 2..]), &line[value_start..end])
    }

    #[test]
    fn every_line_that_tools_wait_for_is_etcds() {
        let name = format!("ringd-log-lines-{}.log", std::process::id());
        let path = std::env::temp_dir().join(name);
        let config = config(path.to_str().unwrap());
        crate::log::install(&config.log).unwrap();
        live_once(&config);
        let written = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();

        let mut lines = written.lines();
        for expected in OF_ETCD.lines() {
            let line = lines.next().unwrap_or_else(|| panic!("missing: {expected}"));
            let (rest, stamp) = without(line, "ts");
            assert_eq!((stamp.len(), &stamp[19..20], &stamp[26..]), (27, ".", "Z"), "{stamp}");
            let (rest, caller) = without(&rest, "caller");
            assert!(caller.starts_with("src/log_lines.rs:"), "{caller}");
            assert_eq!(rest, expected);
        }
        assert_eq!(lines.next(), None);
    }
}
