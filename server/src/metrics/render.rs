//! From counts to families: every name that is served, with its meaning here.
//!
//! `docs/metrics.md` is the same list for people, with what is left out.

use std::sync::Arc;

use engine::alarm::AlarmKind;
use engine::command::CommandKind;

use super::calls::{CODES as CODE_COUNT, HANDLING_BOUNDS, MethodCounts, REQUEST_BOUNDS};
use super::cell::{Bounds, Counter, Distribution, DistributionCopy, nanos};
use super::frontend::{BACKUPS, FrontendMetrics};
use super::health::CHECKS;
use super::log::CommandType;
use super::peers::{PeerMetrics, StoreCounts};
use super::stage::{Stage, StageCopy};
use super::text::{Kind, Text, whole};
use super::{CallCounts, LogMetrics, MethodName, MethodType, Metrics, Sample};

const NANOS: f64 = 1e9;
const MICROS_IN_MILLI: f64 = 1e3;
/// What the recent latencies of a stage are told as.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];
/// Bounds of a stage's histogram, in nanoseconds: 1 us to 8 s.
const STAGES: Bounds = Bounds::Doubling { first: 1_000, count: 24 };

/// The codes by their numbers, as gRPC's Go library names them.
const CODES: [&str; CODE_COUNT] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

pub(super) fn render(metrics: &Metrics, sample: &Sample, out: &mut Vec<u8>) {
    let mut text = Text::default();
    put_member(&mut text, metrics, sample);
    put_peers(&mut text, metrics);
    put_proposals(&mut text, metrics, sample);
    put_promotions(&mut text, metrics);
    put_requests(&mut text, metrics);
    put_health(&mut text, metrics, sample);
    put_disk(&mut text, &metrics.log);
    put_upkeep(&mut text, metrics);
    put_store(&mut text, metrics, sample);
    put_compaction(&mut text, &metrics.log, sample);
    put_leases(&mut text, &metrics.log);
    put_watches(&mut text, metrics);
    put_calls(&mut text, metrics);
    put_stages(&mut text, metrics, sample);
    put_process(&mut text, sample);
    text.finish(out);
}

fn put_member(text: &mut Text, metrics: &Metrics, sample: &Sample) {
    let (fixed, member) = (&metrics.fixed, &sample.member);
    let leads = member.leader != 0 && member.leader == fixed.member;
    let flags = [
        ("etcd_server_has_leader", "Whether this member knows a leader.", member.leader != 0),
        ("etcd_server_is_leader", "Whether this member leads.", leads),
        ("etcd_server_is_learner", "Whether this member has no vote.", member.is_learner),
    ];
    for (name, help, flag) in flags {
        text.single(name, Kind::Gauge, help, whole(flag.into()));
    }
    let changes = whole(metrics.log.leader_changes.get());
    let help = "How often this member has seen a new leader.";
    text.single("etcd_server_leader_changes_seen_total", Kind::Counter, help, changes);
    let id = format!("{:x}", fixed.member);
    let mut label = |name, help, label, value: &str| {
        text.family(name, Kind::Gauge, help).sample(&[(label, value)], 1.0);
    };
    label("etcd_server_id", "This member's id, in hexadecimal.", "server_id", &id);
    let help = "The version that clients are told.";
    label("etcd_server_version", help, "server_version", fixed.server_version);
    let help = "The toolchain that this server needs to be built; etcd tells its own here.";
    label("etcd_server_go_version", help, "server_go_version", fixed.toolchain);
    if let Some(version) = &member.cluster_version {
        let help = "The cluster's version.";
        label("etcd_cluster_version", help, "cluster_version", version);
    }
    let help = "Members that this one knows.";
    let mut known = text.family("etcd_network_known_peers", Kind::Gauge, help);
    for other in &member.members {
        known.sample(&[("Local", &id), ("Remote", &format!("{other:x}"))], 1.0);
    }
    if !fixed.features.is_empty() {
        let help = "Feature gates and whether they are on.";
        let mut family = text.family("etcd_server_feature_enabled", Kind::Gauge, help);
        for &(name, stage, is_on) in &fixed.features {
            family.count(&[("name", name), ("stage", stage)], is_on.into());
        }
    }
    let help = "The size at which the store refuses to grow.";
    text.single("etcd_server_quota_backend_bytes", Kind::Gauge, help, whole(fixed.quota_bytes));
}

/// As in etcd, a member alone has none of these series, and none of their families.
fn put_peers(text: &mut Text, metrics: &Metrics) {
    let peers = metrics.log.peers.all();
    if peers.is_empty() {
        return;
    }
    let ids: Vec<String> = peers.iter().map(|peer| format!("{:x}", peer.member)).collect();
    let own = format!("{:x}", metrics.fixed.member);
    let with_ids = || ids.iter().zip(&peers);
    let help = "Whether letters reach the member.";
    let mut family = text.family("etcd_network_active_peers", Kind::Gauge, help);
    for (id, peer) in with_ids() {
        family.count(&[("Local", &own), ("Remote", id)], peer.is_active.get());
    }
    let help = "How often the way to the member was lost.";
    let mut family = text.family("etcd_network_disconnected_peers_total", Kind::Counter, help);
    for (id, peer) in with_ids() {
        family.count(&[("Local", &own), ("Remote", id)], peer.disconnections.get());
    }
    type Count = fn(&PeerMetrics) -> &Counter;
    let counts: [(&'static str, &str, &str, Count); 4] = [
        ("etcd_network_peer_sent_bytes_total", "Bytes sent to the member.", "To", |peer| {
            &peer.sent_bytes
        }),
        ("etcd_network_peer_received_bytes_total", "Bytes received from it.", "From", |peer| {
            &peer.received_bytes
        }),
        (
            "etcd_network_peer_sent_failures_total",
            "How often something for the member was dropped, because it could not be reached or \
             took too little.",
            "To",
            |peer| &peer.send_failures,
        ),
        (
            "etcd_network_peer_received_failures_total",
            "Connections of the member's that ended because they could not be understood.",
            "From",
            |peer| &peer.receive_failures,
        ),
    ];
    for (name, help, label, count) in counts {
        let mut family = text.family(name, Kind::Counter, help);
        for (id, peer) in with_ids() {
            family.count(&[(label, id)], count(peer).get());
        }
    }
    let help = "From a probe of the member until its answer.";
    let name = "etcd_network_peer_round_trip_time_seconds";
    let mut family = text.family(name, Kind::Histogram, help);
    for (id, peer) in with_ids() {
        family.distribution(&[("To", id)], &peer.round_trips.copy(), NANOS);
    }
    put_stores(text, &peers, &STORES_SENT);
    put_stores(text, &peers, &STORES_RECEIVED);
}

/// The families of stores that travel in one direction.
struct StoreFamilies {
    of: fn(&PeerMetrics) -> &StoreCounts,
    label: &'static str,
    in_flight: &'static str,
    succeeded: &'static str,
    failed: &'static str,
    durations: &'static str,
}

const STORES_SENT: StoreFamilies = StoreFamilies {
    of: |peer| &peer.stores_sent,
    label: "To",
    in_flight: "etcd_network_snapshot_send_inflights_total",
    succeeded: "etcd_network_snapshot_send_success",
    failed: "etcd_network_snapshot_send_failures",
    durations: "etcd_network_snapshot_send_total_duration_seconds",
};

const STORES_RECEIVED: StoreFamilies = StoreFamilies {
    of: |peer| &peer.stores_received,
    label: "From",
    in_flight: "etcd_network_snapshot_receive_inflights_total",
    succeeded: "etcd_network_snapshot_receive_success",
    failed: "etcd_network_snapshot_receive_failures",
    durations: "etcd_network_snapshot_receive_total_duration_seconds",
};

/// A member to or from which no store ever went has none of these series, as in etcd.
fn put_stores(text: &mut Text, peers: &[Arc<PeerMetrics>], families: &StoreFamilies) {
    let all = peers.iter().map(|peer| (format!("{:x}", peer.member), (families.of)(peer)));
    let all: Vec<_> = all.filter(|(_, counts)| counts.has_any()).collect();
    if all.is_empty() {
        return;
    }
    type Count = fn(&StoreCounts) -> &Counter;
    let counts: [(&'static str, Kind, &str, Count); 3] = [
        (families.in_flight, Kind::Gauge, "Stores on their way.", |counts| &counts.in_flight),
        (families.succeeded, Kind::Counter, "Stores that arrived.", |counts| &counts.succeeded),
        (families.failed, Kind::Counter, "Stores that did not arrive.", |counts| &counts.failed),
    ];
    for (name, kind, help, count) in counts {
        let mut family = text.family(name, kind, help);
        for (id, stores) in &all {
            family.count(&[(families.label, id)], count(stores).get());
        }
    }
    let help = "How long stores were on their way that arrived.";
    let mut family = text.family(families.durations, Kind::Histogram, help);
    for (id, stores) in &all {
        family.distribution(&[(families.label, id)], &stores.durations.copy(), NANOS);
    }
}

fn put_promotions(text: &mut Text, metrics: &Metrics) {
    let promotions = &metrics.log.promotions;
    let help = "Learners that this member has promoted while it led.";
    let name = "etcd_server_learner_promote_successes";
    text.family(name, Kind::Counter, help).count(&[], promotions.succeeded());
    let mut failed = promotions.failed().peekable();
    if failed.peek().is_some() {
        let help = "Promotions that were refused or failed while this member led.";
        let name = "etcd_server_learner_promote_failures";
        let mut family = text.family(name, Kind::Counter, help);
        for (failure, count) in failed {
            family.count(&[("Reason", failure.text())], count);
        }
    }
}

fn put_proposals(text: &mut Text, metrics: &Metrics, sample: &Sample) {
    let log = &metrics.log;
    let failed = log.proposals_failed.get() + sum(metrics, |frontend| &frontend.writes_late);
    // The two are read a moment apart.
    let pending = log.commands_taken.get().saturating_sub(log.commands_ended.get());
    let gauges = [
        (
            "etcd_server_proposals_committed_total",
            "The highest committed entry of the log.",
            sample.member.committed,
        ),
        (
            "etcd_server_proposals_applied_total",
            "The highest applied entry of the log.",
            sample.member.applied,
        ),
        ("etcd_server_proposals_pending", "Commands whose fate is open.", pending),
    ];
    for (name, help, value) in gauges {
        text.single(name, Kind::Gauge, help, whole(value));
    }
    let counters = [
        (
            "etcd_server_proposals_failed_total",
            "Commands that were not taken, or whose time was up before their answer came.",
            failed,
        ),
        (
            "etcd_server_slow_apply_total",
            "Batches whose apply took longer than the warning limit.",
            log.slow_applies.get(),
        ),
        (
            "etcd_server_heartbeat_send_failures_total",
            "Heartbeats that a leader sent a whole interval too late.",
            log.heartbeats_late.get(),
        ),
        (
            "etcd_server_read_indexes_failed_total",
            "Linearizable reads whose round was never confirmed.",
            log.read_indexes_failed.get(),
        ),
        (
            "etcd_server_slow_read_indexes_total",
            "Rounds of linearizable reads that had to be asked for again.",
            log.slow_read_indexes.get(),
        ),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, whole(value));
    }
    let name = "etcd_server_apply_duration_seconds";
    let help = "What a command took of its batch's apply, by kind; an equal share each.";
    let mut family = text.family(name, Kind::Histogram, help);
    for kind in CommandType::all() {
        for (success, label) in [(false, "false"), (true, "true")] {
            let seen = log.applies(kind, success).copy();
            if seen.count() > 0 {
                let labels = [("op", kind.label()), ("success", label), ("version", "v3")];
                family.distribution(&labels, &seen, NANOS);
            }
        }
    }
}

fn put_requests(text: &mut Text, metrics: &Metrics) {
    let name = "etcd_server_request_duration_seconds";
    let help = "How long requests took in the server, by the turns of their core.";
    let mut family = text.family(name, Kind::Histogram, help);
    for (place, method) in metrics.fixed.methods.iter().enumerate() {
        let Some(label) = method.request else { continue };
        for (worked, said) in [(false, "false"), (true, "true")] {
            let pairs = counts_of(metrics, place).filter_map(|counts| counts.requests.as_ref());
            let seen = sum_of(REQUEST_BOUNDS, pairs.map(|pair| &pair[usize::from(worked)]));
            if seen.count() > 0 {
                family.distribution(&[("success", said), ("type", label)], &seen, NANOS);
            }
        }
    }
    put_special(text, metrics);
    put_clients(text, metrics);
}

/// Methods that etcd times with bounds of their own.
fn put_special(text: &mut Text, metrics: &Metrics) {
    let families = [
        ("Range", "etcd_server_range_duration_seconds", "How long ranges took in the server."),
        ("Hash", "etcd_mvcc_hash_duration_seconds", "How long hashes of the whole store took."),
        ("HashKV", "etcd_mvcc_hash_rev_duration_seconds", "How long hashes at a revision took."),
    ];
    let methods = &metrics.fixed.methods;
    for (wanted, name, help) in families {
        let found = methods.iter().position(|method| method.method == wanted);
        let Some((place, bounds)) = found.and_then(|at| Some((at, methods[at].bounds?))) else {
            continue;
        };
        let pairs = || counts_of(metrics, place).filter_map(|counts| counts.special.as_ref());
        let failed = sum_of(bounds, pairs().map(|pair| &pair[0]));
        let done = sum_of(bounds, pairs().map(|pair| &pair[1]));
        let mut family = text.family(name, Kind::Histogram, help);
        if wanted != "Range" {
            family.distribution(&[], &done, NANOS);
            continue;
        }
        for (said, seen) in [("false", failed), ("true", done)] {
            if seen.count() > 0 {
                family.distribution(&[("success", said)], &seen, NANOS);
            }
        }
    }
}

fn put_clients(text: &mut Text, metrics: &Metrics) {
    let mut clients: Vec<(&str, u64, u64)> = Vec::new();
    for (version, unary, stream) in calls_of(metrics).flat_map(|calls| calls.clients()) {
        match clients.iter_mut().find(|known| known.0 == version) {
            Some(known) => (known.1, known.2) = (known.1 + unary, known.2 + stream),
            None => clients.push((version, unary, stream)),
        }
    }
    let help = "Calls of clients, by the API version they say they speak.";
    let mut family = text.family("etcd_server_client_requests_total", Kind::Counter, help);
    for (version, unary, stream) in clients {
        for (kind, count) in [("stream", stream), ("unary", unary)] {
            if count > 0 {
                family.count(&[("client_api_version", version), ("type", kind)], count);
            }
        }
    }
}

/// What the member says about itself: alarms, and what health checks came to.
fn put_health(text: &mut Text, metrics: &Metrics, sample: &Sample) {
    if !sample.member.alarms.is_empty() {
        let help = "Alarms that stand, by member.";
        let mut family = text.family("etcd_debugging_server_alarms", Kind::Gauge, help);
        for alarm in &sample.member.alarms {
            let kind = match alarm.kind {
                AlarmKind::NONE => "NONE".to_owned(),
                AlarmKind::NO_SPACE => "NOSPACE".to_owned(),
                AlarmKind::CORRUPT => "CORRUPT".to_owned(),
                AlarmKind(other) => other.to_string(),
            };
            let member = format!("{:x}", alarm.member.0);
            family.count(&[("alarm_type", &kind), ("server_id", &member)], 1);
        }
    }
    let answers = |is_healthy| {
        let answers = metrics.frontends.iter().map(|one| one.health.answers(is_healthy));
        whole(answers.sum())
    };
    let help = "How often /health was answered with false.";
    text.single("etcd_server_health_failures", Kind::Counter, help, answers(false));
    let help = "How often /health was answered with true.";
    text.single("etcd_server_health_success", Kind::Counter, help, answers(true));
    let newest = |place| metrics.frontends.iter().map(|one| one.health.newest(place)).max();
    let made: Vec<(usize, u64)> = (0..CHECKS.len())
        .filter_map(|place| Some((place, newest(place).filter(|newest| *newest > 0)?)))
        .collect();
    if made.is_empty() {
        return;
    }
    let help = "Whether a check of /livez or /readyz succeeded when it was made last.";
    let mut family = text.family("etcd_server_healthcheck", Kind::Gauge, help);
    for &(place, newest) in &made {
        let (path, name) = CHECKS[place];
        family.count(&[("name", name), ("type", path)], newest & 1);
    }
    let help = "Checks of /livez and /readyz, by how they ended.";
    let mut family = text.family("etcd_server_healthchecks_total", Kind::Counter, help);
    for &(place, _) in &made {
        let (path, name) = CHECKS[place];
        for (succeeded, status) in [(false, "error"), (true, "success")] {
            let results = metrics.frontends.iter().map(|one| one.health.results(place, succeeded));
            let results = results.sum();
            if results > 0 {
                family.count(&[("name", name), ("status", status), ("type", path)], results);
            }
        }
    }
}

/// Backups and defragmentations.
fn put_upkeep(text: &mut Text, metrics: &Metrics) {
    let name = "etcd_disk_backend_defrag_duration_seconds";
    let help = "From the beginning of a defragmentation until its end; nothing waits for it.";
    put_distribution(text, name, help, &metrics.log.defrags, NANOS);
    let help = "Whether a defragmentation is under way.";
    let inflight = whole(metrics.log.defrags_inflight.get());
    text.single("etcd_disk_defrag_inflight", Kind::Gauge, help, inflight);
    let help = "Whether a store that came from the leader takes the place of the member's own.";
    let inflight = whole(metrics.log.installs_inflight.get());
    text.single("etcd_server_snapshot_apply_in_progress_total", Kind::Gauge, help, inflight);
    let name = "etcd_disk_backend_snapshot_duration_seconds";
    let help = "From the beginning of a backup until it was sent or given up.";
    let backups = metrics.frontends.iter().map(|frontend| &frontend.backups);
    let seen = sum_of(BACKUPS, backups);
    text.family(name, Kind::Histogram, help).distribution(&[], &seen, NANOS);
}

fn put_disk(text: &mut Text, log: &LogMetrics) {
    let histograms = [
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "From the beginning of a log write until its core saw it durable.",
            &log.wal_syncs,
        ),
        (
            "etcd_disk_backend_commit_duration_seconds",
            "From the beginning of a batch's apply until its view was published.",
            &log.commits,
        ),
        (
            "ringd_checkpoint_duration_seconds",
            "From the beginning of a checkpoint until it was durable; nothing waits for it.",
            &log.checkpoints,
        ),
    ];
    for (name, help, seen) in histograms {
        put_distribution(text, name, help, seen, NANOS);
    }
    let help = "Commands in a batch, which is one entry of the log.";
    put_distribution(text, "ringd_batch_commands", help, &log.batch_commands, 1.0);
    let written = whole(log.wal_written_bytes.get());
    let help = "Bytes written to the log, with the padding of its blocks.";
    text.single("etcd_disk_wal_write_bytes_total", Kind::Gauge, help, written);
}

fn put_store(text: &mut Text, metrics: &Metrics, sample: &Sample) {
    let (activity, store) = (metrics.log.activity(), &sample.store);
    // What a range is refused with as out of range the store has looked up all the same.
    let mut ranges = activity.ranges + sum(metrics, |frontend| &frontend.read_txn_ranges);
    let methods = metrics.fixed.methods.iter();
    if let Some(place) = methods.into_iter().position(|method| method.method == "Range") {
        let ended = |code: usize| counts_of(metrics, place).map(move |c| c.handled[code].get());
        ranges += ended(0).chain(ended(11)).sum::<u64>();
    }
    let txns = activity.txns + sum(metrics, |frontend| &frontend.read_txns);
    let counters = [
        ("etcd_mvcc_put_total", "Values stored, those of transactions too.", activity.puts),
        ("etcd_mvcc_delete_total", "Deletions, those of transactions too.", activity.deletes),
        ("etcd_mvcc_range_total", "Ranges, those of transactions too.", ranges),
        ("etcd_mvcc_txn_total", "Commands and reads of more than one operation.", txns),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, whole(value));
    }
    let gauges = [
        (
            "etcd_mvcc_db_total_size_in_bytes",
            "What the store takes in its files.",
            store.size_bytes,
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "What of the store's files holds data.",
            store.in_use_bytes,
        ),
        ("etcd_debugging_mvcc_keys_total", "Keys that live.", store.keys),
        (
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "The bytes of all keys and values stored since the start.",
            activity.put_size_bytes,
        ),
    ];
    for (name, help, value) in gauges {
        text.single(name, Kind::Gauge, help, whole(value));
    }
    let revision = u64::try_from(store.revision).unwrap_or(0);
    let help = "The store's revision.";
    text.single("etcd_debugging_mvcc_current_revision", Kind::Gauge, help, whole(revision));
    // etcd tells -1, too, of a store that was never compacted.
    let compacted = u64::try_from(store.compacted).map_or(-1.0, whole);
    let help = "The compacted revision.";
    text.single("etcd_debugging_mvcc_compact_revision", Kind::Gauge, help, compacted);
}

fn put_compaction(text: &mut Text, log: &LogMetrics, sample: &Sample) {
    let swept = whole(log.activity().swept_changes);
    let help = "Changes that compaction has removed from the history.";
    text.single("etcd_debugging_mvcc_db_compaction_keys_total", Kind::Counter, help, swept);
    let ended = log.compacted_at_nanos.get();
    let ago = nanos(sample.now).saturating_sub(ended);
    let last = if ended == 0 { 0 } else { nanos(sample.unix).saturating_sub(ago) };
    let help = "When a compaction's sweep ended last, since 1970; 0 if none has since the start.";
    let last = whole(last / 1_000_000_000);
    text.single("etcd_debugging_mvcc_db_compaction_last", Kind::Gauge, help, last);
    let histograms = [
        (
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            "How long a turn of the sweep held its core.",
            &log.compaction_pauses,
        ),
        (
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "From the beginning of a sweep until its end.",
            &log.compactions,
        ),
    ];
    for (name, help, seen) in histograms {
        put_distribution(text, name, help, seen, MICROS_IN_MILLI);
    }
}

fn put_leases(text: &mut Text, log: &LogMetrics) {
    let done = |kind: CommandKind| whole(log.applies(kind.into(), true).count());
    let name = "etcd_debugging_lease_granted_total";
    text.single(name, Kind::Counter, "Leases granted.", done(CommandKind::LeaseGrant));
    let name = "etcd_debugging_lease_revoked_total";
    let help = "Leases that have ended, whatever the reason.";
    text.single(name, Kind::Counter, help, done(CommandKind::LeaseRevoke));
    let name = "etcd_debugging_lease_renewed_total";
    let renewed = whole(log.leases_renewed.get());
    text.single(name, Kind::Counter, "Leases kept alive by this leader.", renewed);
    let name = "etcd_debugging_server_lease_expired_total";
    let help = "Leases whose time was up, so that this leader has proposed their end.";
    text.single(name, Kind::Counter, help, whole(log.leases_expired.get()));
    let help = "The time to live of leases that were granted, in seconds.";
    put_distribution(text, "etcd_debugging_lease_ttl_total", help, &log.lease_ttls, 1.0);
}

/// Which of the counters of `C` a family tells.
type Pick<C> = fn(&C) -> &Counter;

fn put_watches(text: &mut Text, metrics: &Metrics) {
    let gauges: [(_, _, Pick<FrontendMetrics>); 4] = [
        ("etcd_debugging_mvcc_watch_stream_total", "Watch streams that are open.", |frontend| {
            &frontend.watch_streams
        }),
        ("etcd_debugging_mvcc_watcher_total", "Watchers.", |frontend| &frontend.watchers),
        (
            "etcd_debugging_mvcc_slow_watcher_total",
            "Watchers that are behind the newest revision.",
            |frontend| &frontend.watchers_behind,
        ),
        (
            "etcd_debugging_mvcc_pending_events_total",
            "Events that were not offered to the watchers yet.",
            |frontend| &frontend.events_pending,
        ),
    ];
    for (name, help, count) in gauges {
        text.single(name, Kind::Gauge, help, whole(sum(metrics, count)));
    }
    let sent = whole(sum(metrics, |frontend| &frontend.events_sent));
    let help = "Events sent to watchers.";
    text.single("etcd_debugging_mvcc_events_total", Kind::Counter, help, sent);
}

fn put_calls(text: &mut Text, metrics: &Metrics) {
    let calls = || calls_of(metrics);
    let bytes = whole(calls().map(|calls| calls.received_bytes()).sum());
    let help = "Bytes of the messages that clients sent.";
    text.single("etcd_network_client_grpc_received_bytes_total", Kind::Counter, help, bytes);
    let bytes = whole(calls().map(|calls| calls.sent_bytes()).sum());
    let help = "Bytes of the messages sent to clients.";
    text.single("etcd_network_client_grpc_sent_bytes_total", Kind::Counter, help, bytes);
    let connections = whole(sum(metrics, |frontend| &frontend.connections));
    let help = "Connections of clients.";
    text.single("ringd_client_connections", Kind::Gauge, help, connections);

    let counts: [(_, _, Pick<MethodCounts>); 3] = [
        ("grpc_server_started_total", "Calls that began.", |counts| &counts.started),
        ("grpc_server_msg_received_total", "Messages of clients.", |counts| &counts.received),
        ("grpc_server_msg_sent_total", "Messages to clients.", |counts| &counts.sent),
    ];
    for (name, help, count) in counts {
        let mut family = text.family(name, Kind::Counter, help);
        for (place, method) in metrics.fixed.methods.iter().enumerate() {
            let total = calls().map(|calls| count(calls.method(place)).get()).sum();
            family.count(&labels(method), total);
        }
    }
    let help = "Calls that ended, by code.";
    let mut family = text.family("grpc_server_handled_total", Kind::Counter, help);
    for (place, method) in metrics.fixed.methods.iter().enumerate() {
        for (number, code) in CODES.iter().enumerate() {
            let total = calls().map(|calls| calls.method(place).handled[number].get()).sum();
            let [name, service, kind] = labels(method);
            family.count(&[("grpc_code", code), name, service, kind], total);
        }
    }
    if !metrics.fixed.is_extensive {
        return;
    }
    let help = "How long calls took, by the turns of their core.";
    let mut family = text.family("grpc_server_handling_seconds", Kind::Histogram, help);
    for (place, method) in metrics.fixed.methods.iter().enumerate() {
        let timed = counts_of(metrics, place).filter_map(|counts| counts.handling.as_ref());
        let seen = sum_of(HANDLING_BOUNDS, timed);
        family.distribution(&labels(method), &seen, NANOS);
    }
}

fn labels(method: &MethodName) -> [(&'static str, &'static str); 3] {
    let kind = match method.kind {
        MethodType::Unary => "unary",
        MethodType::ClientStream => "client_stream",
        MethodType::ServerStream => "server_stream",
        MethodType::BidiStream => "bidi_stream",
    };
    [("grpc_method", method.method), ("grpc_service", method.service), ("grpc_type", kind)]
}

fn put_stages(text: &mut Text, metrics: &Metrics, sample: &Sample) {
    let copies: Vec<(Stage, Vec<StageCopy>)> = Stage::ALL
        .into_iter()
        .map(|stage| {
            let copies = match stage {
                Stage::Frontend => metrics.frontends.iter().map(|each| each.stage.copy()).collect(),
                other => vec![metrics.log.stage_copy(other)],
            };
            (stage, copies)
        })
        .collect();
    let help = "How long requests spent in a stage; measured by turn or batch, a second old.";
    let mut family = text.family("ringd_stage_duration_seconds", Kind::Histogram, help);
    for (stage, copies) in &copies {
        let mut all = StageCopy::empty();
        copies.iter().for_each(|copy| all.add_total(copy));
        let labels = [("stage", stage.label())];
        let (mut below, mut counted) = (0, 0);
        for place in 0..STAGES.count() {
            let bound = STAGES.bound(place);
            // A cell of the histogram that straddles a bound belongs to the bucket below it.
            below += all.total.count_between(counted, bound);
            counted = all.total.next_non_equivalent(bound);
            family.bucket(&labels, whole(bound) / NANOS, below);
        }
        family.bucket(&labels, f64::INFINITY, all.total.len());
        family.sum_and_count(&labels, whole(all.sum_nanos) / NANOS, all.total.len());
    }
    let help = "The same of the last half minute to minute, as quantiles within a hundredth.";
    let mut family = text.family("ringd_stage_recent_seconds", Kind::Summary, help);
    for (stage, copies) in &copies {
        let mut recent = copies[0].recent(sample.now);
        for copy in &copies[1..] {
            recent.add(copy.recent(sample.now)).expect("all histograms have the same bounds");
        }
        let mut all = StageCopy::empty();
        copies.iter().for_each(|copy| all.add_total(copy));
        let labels = [("stage", stage.label())];
        for quantile in QUANTILES {
            let value = whole(recent.value_at_quantile(quantile)) / NANOS;
            let value = if recent.is_empty() { f64::NAN } else { value };
            family.quantile(&labels, quantile, value);
        }
        family.sum_and_count(&labels, whole(all.sum_nanos) / NANOS, all.total.len());
    }
}

fn put_process(text: &mut Text, sample: &Sample) {
    let process = &sample.process;
    let gauges = [
        ("process_open_fds", "Open descriptors.", whole(process.descriptors)),
        ("process_max_fds", "Descriptors that may be open.", whole(process.descriptors_max)),
        ("os_fd_used", "Open descriptors.", whole(process.descriptors)),
        ("os_fd_limit", "Descriptors that may be open.", whole(process.descriptors_max)),
        ("process_resident_memory_bytes", "Memory occupied.", whole(process.resident_bytes)),
        ("process_virtual_memory_bytes", "Addresses occupied.", whole(process.virtual_bytes)),
        (
            "process_virtual_memory_max_bytes",
            "Addresses that may be occupied.",
            whole(process.virtual_bytes_max.unwrap_or(u64::MAX)),
        ),
        ("process_start_time_seconds", "The process's start, since 1970.", process.start_seconds),
    ];
    for (name, help, value) in gauges {
        text.single(name, Kind::Gauge, help, value);
    }
    let counters = [
        ("process_cpu_seconds_total", "Processor time.", process.cpu_seconds),
        (
            "process_network_receive_bytes_total",
            "Bytes that the process's network namespace has received.",
            whole(process.network_received_bytes),
        ),
        (
            "process_network_transmit_bytes_total",
            "Bytes that the process's network namespace has sent.",
            whole(process.network_sent_bytes),
        ),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, value);
    }
}

fn put_distribution(
    text: &mut Text,
    name: &'static str,
    help: &str,
    seen: &Distribution,
    unit: f64,
) {
    text.family(name, Kind::Histogram, help).distribution(&[], &seen.copy(), unit);
}

fn sum(metrics: &Metrics, of: impl Fn(&FrontendMetrics) -> &Counter) -> u64 {
    metrics.frontends.iter().map(|frontend| of(frontend).get()).sum()
}

fn calls_of(metrics: &Metrics) -> impl Iterator<Item = &CallCounts> {
    metrics.frontends.iter().map(|frontend| &*frontend.calls)
}

fn counts_of(metrics: &Metrics, method: usize) -> impl Iterator<Item = &MethodCounts> {
    calls_of(metrics).map(move |calls| calls.method(method))
}

fn sum_of<'a>(bounds: Bounds, all: impl Iterator<Item = &'a Distribution>) -> DistributionCopy {
    let mut sum = DistributionCopy::empty(bounds);
    all.for_each(|one| sum.add(one));
    sum
}
