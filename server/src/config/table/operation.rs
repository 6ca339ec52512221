//! The flags of who runs a member: metrics, log, warnings, upkeep; and ringd's own.

use super::{store, store_urls};
use crate::config::flag::Flag;
use crate::config::flag::Kind::{Anything, Duration, Set, Signed, Switch, Text, Unsigned, Urls};
use crate::config::flag::Section::{
    Features, General, Logging, Monitoring, Ringd, Tracing, Unsafe,
};
use crate::config::{MetricsDetail, Placement};

const NO_TRACES: &str = "ringd sends no spans";
const NOT_TRACED: &str = "only tracing looks at it, which ringd does not have";
const OWN_SWEEP: &str = "a compaction goes on in steps that are measured by the other work of the \
                         core";

/// Of whoever watches and repairs a member.
#[rustfmt::skip]
pub const OPERATION: &[Flag] = &[
    Flag::new(Monitoring, "enable-pprof", Switch, "false", "Serve profiles under /debug/pprof.")
        .refused("there is no Go runtime that could be profiled; perf shows where time goes"),
    Flag::new(Monitoring, "metrics", Text, "basic",
        "basic, or extensive with a histogram for every RPC.")
        .served(|config, value| {
            config.metrics = MetricsDetail::parse(&value.into_text());
            Ok(())
        }),
    Flag::new(Monitoring, "listen-metrics-urls", Urls, "",
        "Extra addresses for /metrics and /health.")
        .served(store_urls!(listen_metrics_urls)),

    Flag::new(Logging, "logger", Text, "zap",
        "The shape of the log. There is only etcd's, which is zap's.")
        .served(store!(raw.log.logger: into_text)),
    Flag::new(Logging, "log-outputs", Set, "default",
        "Where lines go: stdout, stderr, files, comma-separated, or systemd/journal; default is \
         stderr.")
        .served(store!(raw.log.outputs: into_texts)),
    Flag::new(Logging, "log-level", Text, "info",
        "The least level that is logged: debug, info, warn, error, panic or fatal.")
        .served(store!(raw.log.level: into_text)),
    Flag::new(Logging, "log-format", Text, "json", "json for machines, console for eyes.")
        .served(store!(raw.log.format: into_text)),
    Flag::new(Logging, "enable-log-rotation", Switch, "false",
        "Start a new log file when the old one is full.")
        .served(store!(raw.log.rotates: into_switch)),
    Flag::new(Logging, "log-rotation-config-json", Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        "When it is full, and what becomes of it.")
        .served(store!(raw.log.rotation: into_text)),
    Flag::new(Logging, "warning-unary-request-duration", Duration, "300ms",
        "Log that requests take longer, in one line for all of a tenth of a second; 0 is 300ms.")
        .served(store!(warning_unary_request_duration: into_duration)),

    Flag::new(Tracing, "enable-distributed-tracing", Switch, "false",
        "Send spans to a collector.")
        .refused(NO_TRACES)
        .checked(store!(raw.tracing: into_switch)),
    Flag::new(Tracing, "distributed-tracing-address", Text, "localhost:4317",
        "Where the collector is.")
        .moot(NOT_TRACED),
    Flag::new(Tracing, "distributed-tracing-service-name", Text, "etcd",
        "The service the spans are filed under.")
        .moot(NOT_TRACED),
    Flag::new(Tracing, "distributed-tracing-instance-id", Text, "",
        "The instance they are filed under.")
        .moot(NOT_TRACED),
    Flag::new(Tracing, "distributed-tracing-sampling-rate", Signed, "0",
        "How many in a million are sent.")
        .moot(NOT_TRACED)
        .checked(store!(raw.tracing_sampling_rate: into_signed)),

    Flag::new(Features, "corrupt-check-time", Duration, "0s",
        "How often the leader compares the members' data, as a hash of all keys; 0 is never.")
        .served(store!(corrupt_check_time: into_duration)),
    Flag::new(Features, "compact-hash-check-time", Duration, "1m",
        "How often the leader compares the hashes that compactions left, if the gate \
         CompactHashCheck is open.")
        .served(store!(raw.compact_hash_check_ns: into_signed)),
    Flag::new(Features, "compaction-batch-limit", Signed, "0",
        "Revisions removed in one step of a compaction.")
        .moot(OWN_SWEEP),
    Flag::new(Features, "watch-progress-notify-interval", Duration, "10m",
        "How often a quiet watch that asked for it is told the current revision. At least 100ms.")
        .served(store!(watch_progress_notify_interval: into_duration)),
    Flag::new(Features, "warning-apply-duration", Duration, "100ms",
        "Log batches of commands that take longer to apply.")
        .served(store!(warning_apply_duration: into_duration)),
    Flag::new(Features, "bootstrap-defrag-threshold-megabytes", Unsigned, "0",
        "Defragment at start when it frees so much.")
        .served(store!(bootstrap_defrag_threshold_megabytes: into_unsigned)),
    Flag::new(Features, "max-learners", Signed, "1", "The most learners a cluster may have.")
        .served(store!(max_learners: into_signed)),
    Flag::new(Features, "compaction-sleep-interval", Duration, "0s",
        "Rest between two steps of a compaction.")
        .moot(OWN_SWEEP),
    Flag::new(Features, "downgrade-check-time", Duration, "5s",
        "How often a downgrade looks whether it is done.")
        .moot("no member of an earlier version can be in the cluster"),
    Flag::new(Features, "snapshot-catchup-entries", Unsigned, "5000",
        "Entries kept for a member that lags.")
        .served(store!(snapshot_catchup_entries: into_unsigned)),

    Flag::new(Unsafe, "force-new-cluster", Switch, "false",
        "Make a cluster of this member alone out of its data.")
        .served(store!(force_new_cluster: into_switch)),
    Flag::new(Unsafe, "unsafe-no-fsync", Switch, "false",
        "Acknowledge writes without syncing them. A power cut loses them, and more.")
        .served(store!(unsafe_no_fsync: into_switch)),
];

/// What etcd does not have.
#[rustfmt::skip]
pub const RINGD: &[Flag] = &[
    Flag::new(
        Ringd,
        "discovery",
        Text,
        "",
        "The older discovery service over HTTP, as http://host:port/path/token; etcd 3.7 has it no \
         more.",
    )
    .not_in_file()
    .served(store!(discovery.url: into_text)),
    Flag::new(Ringd, "placement", Text, "auto",
        "Which core does what: auto, or like log=0,shard=0,frontend=0-1+3.")
        .served(|config, value| {
            config.placement = Placement::parse(&value.into_text())?;
            Ok(())
        }),
    Flag::new(Ringd, "fault-sync-delay", Duration, "0s",
        "Every sync of the log takes so much longer.")
        .hidden(store!(fault.sync_delay: into_duration)),
    Flag::new(Ringd, "fault-sync-fail-after", Unsigned, "",
        "After so many good syncs of the log, every further one fails.")
        .hidden(|config, value| {
            config.fault.sync_fail_after = Some(value.into_unsigned());
            Ok(())
        }),
];

const fn legacy(name: &'static str) -> Flag {
    Flag::new(General, name, Anything, "", "")
        .not_in_file()
        .ignored("flag is no longer supported - ignoring")
}

/// Left over from old versions; etcd takes them without effect, and so does ringd.
pub const LEGACY: &[Flag] = &[
    legacy("cluster-active-size"),
    legacy("cluster-remove-delay"),
    legacy("cluster-sync-interval"),
    legacy("config"),
    legacy("force"),
    legacy("max-result-buffer"),
    legacy("max-retry-attempts"),
    legacy("peer-heartbeat-interval"),
    legacy("peer-election-timeout"),
    legacy("retry-interval"),
    legacy("snapshot"),
    legacy("v"),
    legacy("vv"),
    legacy("test.coverprofile"),
    legacy("test.outputdir"),
];
