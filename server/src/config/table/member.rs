//! The flags of the process and of one member: names, directories, clocks, listeners, limits.

use super::{store, store_urls};
use crate::config::flag::Flag;
use crate::config::flag::Kind::{
    Duration, Gates, Signed, Switch, Text, Unsigned, Unsigned32, Urls,
};
use crate::config::flag::Section::{General, Member};

const NO_BBOLT: &str = "the store is not bbolt: it commits with each batch and keeps its own map \
                        of free pages";
const OWN_TIMEOUTS: &str = "links between members have time-outs of their own";

/// What gRPC enforces when it is not told otherwise.
const KEEPALIVE_MIN_TIME_GRPC: std::time::Duration = std::time::Duration::from_secs(300);

/// Read before all others.
pub const GENERAL: &[Flag] = &[
    Flag::new(
        General,
        "config-file",
        Text,
        "",
        "A YAML or JSON file instead of all other flags and of the environment.",
    )
    .not_in_file(),
    Flag::new(General, "version", Switch, "false", "Print the version and end.").not_in_file(),
];

/// Of the member.
pub const MEMBER: &[Flag] = &[
    Flag::new(
        Member,
        "name",
        Text,
        "default",
        "The member's name, for people. Members of one cluster should have different ones.",
    )
    .served(store!(name: into_text)),
    Flag::new(
        Member,
        "data-dir",
        Text,
        "",
        "Directory of the member's data; ${name}.etcd by default. A data directory of etcd is \
         refused and left as it is.",
    )
    .served(store!(data_dir: into_path)),
    Flag::new(
        Member,
        "wal-dir",
        Text,
        "",
        "Directory of the write-ahead log, when it is to live on a disk of its own.",
    )
    .served(|config, value| {
        let path = value.into_path();
        config.wal_dir = (!path.as_os_str().is_empty()).then_some(path);
        Ok(())
    }),
    Flag::new(
        Member,
        "snapshot-count",
        Unsigned,
        "10000",
        "Write a checkpoint at the latest after this many committed entries.",
    )
    .served(store!(snapshot_count: into_unsigned)),
    Flag::new(
        Member,
        "heartbeat-interval",
        Unsigned,
        "100",
        "Milliseconds from one heartbeat of the leader to the next.",
    )
    .served(store!(heartbeat_interval_ms: into_unsigned)),
    Flag::new(
        Member,
        "election-timeout",
        Unsigned,
        "1000",
        "Milliseconds without a heartbeat after which a member stands for election. At least five \
         heartbeat intervals.",
    )
    .served(store!(election_timeout_ms: into_unsigned)),
    Flag::new(
        Member,
        "initial-election-tick-advance",
        Switch,
        "true",
        "Start with most of the first election timeout already over.",
    )
    .moot("a member alone stands at once, and one of several waits its whole time"),
    Flag::new(
        Member,
        "listen-peer-urls",
        Urls,
        "http://localhost:2380",
        "Addresses to listen on for other members.",
    )
    .served(store_urls!(listen_peer_urls)),
    Flag::new(
        Member,
        "listen-client-urls",
        Urls,
        "http://localhost:2379",
        "Addresses to listen on for clients.",
    )
    .served(store_urls!(listen_client_urls)),
    Flag::new(
        Member,
        "listen-client-http-urls",
        Urls,
        "",
        "Addresses for HTTP only; --listen-client-urls then speak gRPC only.",
    )
    .served(store_urls!(listen_client_http_urls)),
    Flag::new(Member, "max-snapshots", Unsigned, "5", "How many old snapshot files etcd keeps.")
        .moot("the store keeps two checkpoints in one file")
        .deprecated("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    Flag::new(Member, "max-wals", Unsigned, "5", "How many old log files etcd keeps.")
        .moot("segments of the log are used again as soon as no start needs them"),
    Flag::new(Member, "memory-mlock", Switch, "false", "Lock the pages of the database in memory.")
        .refused(
            "the store gives pages back to the kernel after each checkpoint, which locked memory \
             does not allow; switch off swap instead",
        ),
    Flag::new(
        Member,
        "quota-backend-bytes",
        Signed,
        "0",
        "Size of the store at which the NOSPACE alarm is raised; 0 is 2 GiB, less is no quota.",
    )
    .served(store!(quota_backend_bytes: into_signed)),
    Flag::new(
        Member,
        "backend-bbolt-freelist-type",
        Text,
        "map",
        "The free list of etcd's backend.",
    )
    .moot(NO_BBOLT),
    Flag::new(
        Member,
        "backend-batch-interval",
        Duration,
        "0s",
        "How long etcd's backend waits before it commits.",
    )
    .moot(NO_BBOLT),
    Flag::new(
        Member,
        "backend-batch-limit",
        Signed,
        "0",
        "How much etcd's backend gathers before it commits.",
    )
    .moot(NO_BBOLT),
    Flag::new(Member, "max-txn-ops", Unsigned, "128", "The most operations of one transaction.")
        .served(store!(max_txn_ops: into_unsigned)),
    Flag::new(
        Member,
        "max-request-bytes",
        Unsigned,
        "1572864",
        "The largest request a client may send, in bytes.",
    )
    .served(store!(max_request_bytes: into_unsigned)),
    Flag::new(
        Member,
        "max-concurrent-streams",
        Unsigned32,
        "4294967295",
        "The most streams one connection may have open; 0 is no limit.",
    )
    .served(|config, value| {
        let streams = u32::try_from(value.into_unsigned()).unwrap_or(u32::MAX);
        config.max_concurrent_streams = if streams == 0 { u32::MAX } else { streams };
        Ok(())
    }),
    Flag::new(
        Member,
        "grpc-keepalive-min-time",
        Duration,
        "5s",
        "A client that pings more often than this is disconnected; 0 is gRPC's own 5m.",
    )
    .served(|config, value| {
        let time = value.into_duration();
        config.grpc_keepalive_min_time =
            if time.is_zero() { KEEPALIVE_MIN_TIME_GRPC } else { time };
        Ok(())
    }),
    Flag::new(
        Member,
        "grpc-keepalive-interval",
        Duration,
        "2h",
        "Ping a connection that was silent for so long; 0 pings none.",
    )
    .served(store!(grpc_keepalive_interval: into_duration)),
    Flag::new(
        Member,
        "grpc-keepalive-timeout",
        Duration,
        "20s",
        "Close a connection that does not answer a ping within this time; 0 pings none.",
    )
    .served(store!(grpc_keepalive_timeout: into_duration)),
    Flag::new(
        Member,
        "socket-reuse-port",
        Switch,
        "false",
        "Let several processes listen on one port (SO_REUSEPORT).",
    )
    .in_file(&["socket-options", "reuse-port"])
    .served(store!(socket_reuse_port: into_switch)),
    Flag::new(
        Member,
        "socket-reuse-address",
        Switch,
        "false",
        "Listen on an address whose old connections linger (SO_REUSEADDR).",
    )
    .in_file(&["socket-options", "reuse-address"])
    .moot("every listener does that, as in etcd"),
    Flag::new(
        Member,
        "enable-grpc-gateway",
        Switch,
        "true",
        "Serve the API as JSON over HTTP, too.",
    )
    .served(store!(enable_grpc_gateway: into_switch)),
    Flag::new(
        Member,
        "raft-read-timeout",
        Duration,
        "5s",
        "How long a read from another member may take.",
    )
    .not_in_file()
    .moot(OWN_TIMEOUTS),
    Flag::new(
        Member,
        "raft-write-timeout",
        Duration,
        "5s",
        "How long a write to another member may take.",
    )
    .not_in_file()
    .moot(OWN_TIMEOUTS),
    Flag::new(
        Member,
        "feature-gates",
        Gates,
        "",
        "Switch single features on or off, as A=true,B=false.",
    )
    .served(|config, value| config.features.set(&value.into_text())),
];
