//! The flags that do what they say.

use super::flag::{Flag, Kind, Section, Stand, Update};
use super::placement::Placement;
use super::{ClusterState, KEEPALIVE_MIN_TIME_GRPC_DEFAULT};

const fn served(
    section: Section,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
    update: Update,
) -> Flag {
    Flag { name, section, kind, default, stand: Stand::Served(update), help }
}

const fn hidden(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
    update: Update,
) -> Flag {
    Flag { name, section: Section::Ringd, kind, default, stand: Stand::Hidden(update), help }
}

/// Of the member: names, directories, clocks, listeners and limits.
pub const MEMBER: &[Flag] = &[
    served(
        Section::Member,
        "name",
        Kind::Text,
        "default",
        "The member's name, for people. Members of one cluster should have different ones.",
        |config, value| {
            config.name = value.into_text();
            Ok(())
        },
    ),
    served(
        Section::Member,
        "data-dir",
        Kind::Text,
        "",
        "Directory of the member's data; ${name}.etcd by default. A data directory of etcd is \
         refused and left as it is.",
        |config, value| {
            config.data_dir = value.into_text().into();
            Ok(())
        },
    ),
    served(
        Section::Member,
        "wal-dir",
        Kind::Text,
        "",
        "Directory of the write-ahead log, when it is to live on a disk of its own.",
        |config, value| {
            let path = value.into_text();
            config.wal_dir = (!path.is_empty()).then(|| path.into());
            Ok(())
        },
    ),
    served(
        Section::Member,
        "snapshot-count",
        Kind::Unsigned,
        "10000",
        "Write a checkpoint at the latest after this many committed entries.",
        |config, value| {
            config.snapshot_count = value.into_unsigned();
            Ok(())
        },
    ),
    served(
        Section::Member,
        "heartbeat-interval",
        Kind::Unsigned,
        "100",
        "Milliseconds from one heartbeat of the leader to the next.",
        |config, value| {
            config.heartbeat_interval_ms = value.into_unsigned();
            Ok(())
        },
    ),
    served(
        Section::Member,
        "election-timeout",
        Kind::Unsigned,
        "1000",
        "Milliseconds without a heartbeat after which a member stands for election. At least five \
         heartbeat intervals.",
        |config, value| {
            config.election_timeout_ms = value.into_unsigned();
            Ok(())
        },
    ),
    served(
        Section::Member,
        "listen-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "Addresses to listen on for other members.",
        |config, value| {
            value.store_urls(&mut config.listen_peer_urls);
            Ok(())
        },
    ),
    served(
        Section::Member,
        "listen-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "Addresses to listen on for clients.",
        |config, value| {
            value.store_urls(&mut config.listen_client_urls);
            Ok(())
        },
    ),
    served(
        Section::Member,
        "max-txn-ops",
        Kind::Unsigned,
        "128",
        "The most operations one transaction may hold.",
        |config, value| {
            config.max_txn_ops = value.into_unsigned();
            Ok(())
        },
    ),
    served(
        Section::Member,
        "max-request-bytes",
        Kind::Unsigned,
        "1572864",
        "The largest request a client may send, in bytes.",
        |config, value| {
            config.max_request_bytes = value.into_unsigned();
            Ok(())
        },
    ),
    served(
        Section::Member,
        "max-concurrent-streams",
        Kind::Unsigned32,
        "4294967295",
        "The most streams one connection may have open; 0 is no limit.",
        |config, value| {
            let streams = u32::try_from(value.into_unsigned()).unwrap_or(u32::MAX);
            config.max_concurrent_streams = if streams == 0 { u32::MAX } else { streams };
            Ok(())
        },
    ),
    served(
        Section::Member,
        "grpc-keepalive-min-time",
        Kind::Duration,
        "5s",
        "A client that pings more often than this is disconnected; 0 is gRPC's own 5m.",
        |config, value| {
            let time = value.into_duration();
            config.grpc_keepalive_min_time =
                if time.is_zero() { KEEPALIVE_MIN_TIME_GRPC_DEFAULT } else { time };
            Ok(())
        },
    ),
    served(
        Section::Member,
        "grpc-keepalive-interval",
        Kind::Duration,
        "2h",
        "Ping a connection that was silent for so long; 0 pings none.",
        |config, value| {
            config.grpc_keepalive_interval = value.into_duration();
            Ok(())
        },
    ),
    served(
        Section::Member,
        "grpc-keepalive-timeout",
        Kind::Duration,
        "20s",
        "Close a connection that does not answer a ping within this time; 0 pings none.",
        |config, value| {
            config.grpc_keepalive_timeout = value.into_duration();
            Ok(())
        },
    ),
];

/// Of the cluster.
pub const CLUSTERING: &[Flag] = &[
    served(
        Section::Clustering,
        "initial-advertise-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "Addresses at which other members reach this one. Part of the member's id.",
        |config, value| {
            value.store_urls(&mut config.initial_advertise_peer_urls);
            Ok(())
        },
    ),
    served(
        Section::Clustering,
        "initial-cluster",
        Kind::Text,
        "default=http://localhost:2380",
        "The first members, as name=url,... Only this member, for now.",
        |config, value| {
            config.initial_cluster = value.into_text();
            Ok(())
        },
    ),
    served(
        Section::Clustering,
        "initial-cluster-state",
        Kind::Choice(&["new", "existing"]),
        "new",
        "Whether a member without data founds a cluster (new) or joins one (existing; not there \
         yet). A member with data goes on with what it has.",
        |config, value| {
            config.initial_cluster_state = match value.into_text().as_str() {
                "new" => ClusterState::New,
                _ => ClusterState::Existing,
            };
            Ok(())
        },
    ),
    served(
        Section::Clustering,
        "initial-cluster-token",
        Kind::Text,
        "etcd-cluster",
        "Sets clusters apart that would otherwise look the same. Part of every id.",
        |config, value| {
            config.initial_cluster_token = value.into_text();
            Ok(())
        },
    ),
    served(
        Section::Clustering,
        "advertise-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "Addresses at which clients reach this member. Required with --listen-client-urls.",
        |config, value| {
            value.store_urls(&mut config.advertise_client_urls);
            Ok(())
        },
    ),
];

/// Of the log, and the rest.
pub const OTHERS: &[Flag] = &[
    Flag {
        name: "version",
        section: Section::General,
        kind: Kind::Switch,
        default: "false",
        stand: Stand::Version,
        help: "Print the version and end.",
    },
    served(
        Section::Logging,
        "logger",
        Kind::Text,
        "zap",
        "The shape of the log. There is only etcd's, which is zap's.",
        |config, value| {
            config.raw_log.logger = value.into_text();
            Ok(())
        },
    ),
    served(
        Section::Logging,
        "log-outputs",
        Kind::Text,
        "default",
        "Where lines go: stdout, stderr, files, comma-separated; default is stderr.",
        |config, value| {
            config.raw_log.outputs = value.into_text();
            Ok(())
        },
    ),
    served(
        Section::Logging,
        "log-level",
        Kind::Text,
        "info",
        "The least level that is logged: debug, info, warn, error, panic or fatal.",
        |config, value| {
            config.raw_log.level = value.into_text();
            Ok(())
        },
    ),
    served(
        Section::Logging,
        "log-format",
        Kind::Text,
        "json",
        "json for machines, console for eyes.",
        |config, value| {
            config.raw_log.format = value.into_text();
            Ok(())
        },
    ),
    served(
        Section::Features,
        "watch-progress-notify-interval",
        Kind::Duration,
        "10m",
        "How often a quiet watch that asked for it is told the current revision. At least 100ms.",
        |config, value| {
            config.watch_progress_notify_interval = value.into_duration();
            Ok(())
        },
    ),
    served(
        Section::Unsafe,
        "unsafe-no-fsync",
        Kind::Switch,
        "false",
        "Acknowledge writes without syncing them. A power cut loses them, and more.",
        |config, value| {
            config.unsafe_no_fsync = value.into_switch();
            Ok(())
        },
    ),
    served(
        Section::Ringd,
        "placement",
        Kind::Text,
        "auto",
        "Which core does what: auto, or like log=0,shard=0,frontend=0-1+3.",
        |config, value| {
            config.placement = Placement::parse(&value.into_text())?;
            Ok(())
        },
    ),
    hidden(
        "fault-sync-delay",
        Kind::Duration,
        "0s",
        "Every sync of the log takes so much longer.",
        |config, value| {
            config.fault.sync_delay = value.into_duration();
            Ok(())
        },
    ),
    hidden(
        "fault-sync-fail-after",
        Kind::Unsigned,
        "",
        "After so many good syncs of the log, every further one fails.",
        |config, value| {
            config.fault.sync_fail_after = Some(value.into_unsigned());
            Ok(())
        },
    ),
];
