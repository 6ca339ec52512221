//! The flags of the cluster: how members find each other, and what they agree on.

use super::{store, store_urls};
use crate::config::ClusterState;
use crate::config::flag::Flag;
use crate::config::flag::Kind::{Choice, Choices, Duration, Set, Switch, Text, Urls};
use crate::config::flag::Section::Clustering;

const NO_TLS: &str = "ringd does not speak TLS to a discovery service yet";
const NO_PINGS: &str = "each call is a connection with a time of its own, and a watch that is \
                        silent for long is made anew";

/// Of the cluster.
pub const CLUSTERING: &[Flag] = &[
    Flag::new(
        Clustering,
        "initial-advertise-peer-urls",
        Urls,
        "http://localhost:2380",
        "Addresses at which other members reach this one. Part of the member's id.",
    )
    .served(store_urls!(initial_advertise_peer_urls)),
    Flag::new(
        Clustering,
        "initial-cluster",
        Text,
        "default=http://localhost:2380",
        "The first members, as name=url,...",
    )
    .served(store!(initial_cluster: into_text)),
    Flag::new(
        Clustering,
        "initial-cluster-state",
        Choice(&["new", "existing"]),
        "new",
        "Whether a member without data founds a cluster (new) or joins one (existing). A member \
         with data goes on with what it has.",
    )
    .served(|config, value| {
        config.initial_cluster_state = match value.into_text().as_str() {
            "new" => ClusterState::New,
            _ => ClusterState::Existing,
        };
        Ok(())
    }),
    Flag::new(
        Clustering,
        "initial-cluster-token",
        Text,
        "etcd-cluster",
        "Sets clusters apart that would otherwise look the same. Part of every id.",
    )
    .served(store!(initial_cluster_token: into_text)),
    Flag::new(
        Clustering,
        "advertise-client-urls",
        Urls,
        "http://localhost:2379",
        "Addresses at which clients reach this member. Required with --listen-client-urls.",
    )
    .served(store_urls!(advertise_client_urls)),
    Flag::new(
        Clustering,
        "discovery-token",
        Text,
        "",
        "The token under which a discovery service knows the cluster.",
    )
    .in_file(&["discovery-config", "token"])
    .served(store!(discovery.token: into_text)),
    Flag::new(Clustering, "discovery-endpoints", Set, "", "Where the discovery service is.")
        .in_file(&["discovery-config", "client", "endpoints"])
        .served(store!(discovery.endpoints: into_texts)),
    Flag::new(
        Clustering,
        "discovery-dial-timeout",
        Duration,
        "2s",
        "How long connecting to it may take.",
    )
    .in_file(&["discovery-config", "client", "dial-timeout"])
    .served(store!(discovery.dial_timeout: into_duration)),
    Flag::new(
        Clustering,
        "discovery-request-timeout",
        Duration,
        "5s",
        "How long a request to it may take.",
    )
    .in_file(&["discovery-config", "client", "request-timeout"])
    .served(store!(discovery.request_timeout: into_duration)),
    Flag::new(Clustering, "discovery-keepalive-time", Duration, "2s", "How often it is pinged.")
        .in_file(&["discovery-config", "client", "keepalive-time"])
        .moot(NO_PINGS),
    Flag::new(
        Clustering,
        "discovery-keepalive-timeout",
        Duration,
        "6s",
        "How long its answer to a ping may take.",
    )
    .in_file(&["discovery-config", "client", "keepalive-timeout"])
    .moot(NO_PINGS),
    Flag::new(
        Clustering,
        "discovery-insecure-transport",
        Switch,
        "true",
        "Speak to it without TLS.",
    )
    .in_file(&["discovery-config", "client", "secure", "insecure-transport"])
    .refused(NO_TLS),
    Flag::new(
        Clustering,
        "discovery-insecure-skip-tls-verify",
        Switch,
        "false",
        "Trust it whatever its certificate says.",
    )
    .in_file(&["discovery-config", "client", "secure", "insecure-skip-tls-verify"])
    .moot("without TLS there is nothing to verify"),
    Flag::new(Clustering, "discovery-cert", Text, "", "The certificate shown to it.")
        .in_file(&["discovery-config", "client", "secure", "cert"])
        .refused(NO_TLS),
    Flag::new(Clustering, "discovery-key", Text, "", "The key of that certificate.")
        .in_file(&["discovery-config", "client", "secure", "key"])
        .refused(NO_TLS),
    Flag::new(Clustering, "discovery-cacert", Text, "", "Whom to trust as the service.")
        .in_file(&["discovery-config", "client", "secure", "cacert"])
        .refused(NO_TLS),
    Flag::new(Clustering, "discovery-user", Text, "", "The user it knows us as.")
        .in_file(&["discovery-config", "client", "auth", "username"])
        .served(store!(discovery.user: into_text)),
    Flag::new(Clustering, "discovery-password", Text, "", "That user's password.")
        .in_file(&["discovery-config", "client", "auth", "password"])
        .served(store!(discovery.password: into_text)),
    Flag::new(
        Clustering,
        "discovery-fallback",
        Choice(&["exit", "proxy"]),
        "exit",
        "What to do when it cannot be reached; etcd has given up all but exit.",
    )
    .not_in_file()
    .served(store!(raw.discovery_fallback: into_text)),
    Flag::new(
        Clustering,
        "discovery-srv",
        Text,
        "",
        "The domain whose SRV records name the members.",
    )
    .served(store!(discovery.srv: into_text)),
    Flag::new(
        Clustering,
        "discovery-srv-name",
        Text,
        "",
        "A suffix to the service's name in those records.",
    )
    .served(store!(discovery.srv_name: into_text)),
    Flag::new(
        Clustering,
        "strict-reconfig-check",
        Switch,
        "true",
        "Refuse membership changes that would cost the quorum.",
    )
    .served(store!(strict_reconfig_check: into_switch)),
    Flag::new(Clustering, "pre-vote", Switch, "true", "Ask before standing for election.")
        .served(store!(pre_vote: into_switch)),
    Flag::new(
        Clustering,
        "auto-compaction-retention",
        Text,
        "0",
        "How much history is kept, as a time or a number of revisions; 0 keeps all.",
    )
    .served(store!(raw.compaction_retention: into_text)),
    Flag::new(
        Clustering,
        "auto-compaction-mode",
        Text,
        "periodic",
        "Whether the retention is a time (periodic; hours without a unit) or a number of revisions \
         (revision).",
    )
    .served(store!(raw.compaction_mode: into_text)),
    Flag::new(
        Clustering,
        "v2-deprecation",
        Choices(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "write-only",
        "Without effect, as in etcd.",
    )
    .ignored("")
    .deprecated(
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is \
         enforced, ignoring user input.",
    ),
];
