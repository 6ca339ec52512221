//! The flags that ringd knows by name and does not serve.
//!
//! They are here so that nobody's setting is swallowed: a value other than the default is refused
//! by name. When a feature arrives, its line moves to `served`.

use super::flag::Kind::{Duration, Signed, Switch, Text, Unsigned};
use super::flag::Section::{
    Auth, Clustering, Features, General, Logging, Member, Monitoring, Security, Tracing, Unsafe,
};
use super::flag::{Flag, Kind, Section, Stand};

const fn absent(
    section: Section,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, section, kind, default, stand: Stand::Absent(&[]), help }
}

const fn ignored(name: &'static str) -> Flag {
    const WARNING: &str = "flag is no longer supported - ignoring";
    let (section, kind) = (General, Kind::Anything);
    Flag { name, section, kind, default: "", stand: Stand::Ignored(WARNING), help: "" }
}

/// What etcd has and ringd has not yet.
#[rustfmt::skip]
pub const ABSENT: &[Flag] = &[
    absent(General, "config-file", Text, "", "A YAML file instead of flags and environment."),

    absent(Member, "initial-election-tick-advance", Switch, "true",
        "Start with most of the first election timeout already over."),
    absent(Member, "listen-client-http-urls", Text, "", "Extra addresses for HTTP only."),
    absent(Member, "max-wals", Unsigned, "5", "How many old log files etcd keeps."),
    absent(Member, "max-snapshots", Unsigned, "5", "How many old snapshot files etcd keeps."),
    absent(Member, "memory-mlock", Switch, "false", "Lock the pages of the database in memory."),
    absent(Member, "quota-backend-bytes", Signed, "0",
        "Size at which the NOSPACE alarm is raised."),
    absent(Member, "backend-bbolt-freelist-type", Text, "map", "The free list of etcd's backend."),
    absent(Member, "backend-batch-interval", Duration, "0s",
        "How long etcd's backend waits before it commits."),
    absent(Member, "backend-batch-limit", Signed, "0",
        "How much etcd's backend gathers before it commits."),
    absent(Member, "socket-reuse-port", Switch, "false",
        "Let several processes listen on one port."),
    absent(Member, "socket-reuse-address", Switch, "false",
        "Listen on an address whose old connections linger."),
    Flag {
        name: "enable-grpc-gateway",
        section: Member,
        kind: Switch,
        default: "true",
        // There is no gateway, so switching it off is what everybody gets.
        stand: Stand::Absent(&["false"]),
        help: "Serve the API as JSON over HTTP, too.",
    },
    absent(Member, "raft-read-timeout", Duration, "5s",
        "How long a read from another member may take."),
    absent(Member, "raft-write-timeout", Duration, "5s",
        "How long a write to another member may take."),
    absent(Member, "feature-gates", Text, "",
        "Switch single features on or off, as A=true,B=false."),

    absent(Clustering, "discovery-token", Text, "",
        "The token under which a discovery service knows the cluster."),
    absent(Clustering, "discovery-endpoints", Text, "", "Where the discovery service is."),
    absent(Clustering, "discovery-dial-timeout", Duration, "2s",
        "How long connecting to it may take."),
    absent(Clustering, "discovery-request-timeout", Duration, "5s",
        "How long a request to it may take."),
    absent(Clustering, "discovery-keepalive-time", Duration, "2s", "How often it is pinged."),
    absent(Clustering, "discovery-keepalive-timeout", Duration, "6s",
        "How long its answer to a ping may take."),
    absent(Clustering, "discovery-insecure-transport", Switch, "true", "Speak to it without TLS."),
    absent(Clustering, "discovery-insecure-skip-tls-verify", Switch, "false",
        "Trust it whatever its certificate says."),
    absent(Clustering, "discovery-cert", Text, "", "The certificate shown to it."),
    absent(Clustering, "discovery-key", Text, "", "The key of that certificate."),
    absent(Clustering, "discovery-cacert", Text, "", "Whom to trust as the service."),
    absent(Clustering, "discovery-user", Text, "", "The user it knows us as."),
    absent(Clustering, "discovery-password", Text, "", "That user's password."),
    absent(Clustering, "discovery-fallback", Kind::Choice(&["exit",
        "proxy"]), "exit", "What to do when it cannot be reached."),
    absent(Clustering, "discovery-srv", Text, "", "The domain whose SRV records name the members."),
    absent(Clustering, "discovery-srv-name", Text, "",
        "A suffix to the service's name in those records."),
    absent(Clustering, "strict-reconfig-check", Switch, "true",
        "Refuse membership changes that would cost the quorum."),
    absent(Clustering, "pre-vote", Switch, "true", "Ask before standing for election."),
    absent(Clustering, "auto-compaction-retention", Text, "0",
        "How much history is kept; 0 keeps all."),
    absent(Clustering, "auto-compaction-mode", Text, "periodic",
        "Whether that is a time (periodic) or a number (revision)."),
    Flag {
        name: "v2-deprecation",
        section: Clustering,
        kind: Kind::Choice(&["write-only", "write-only-drop-data", "gone"]),
        default: "write-only",
        stand: Stand::Ignored(
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. \
             The default value is enforced, ignoring user input.",
        ),
        help: "Without effect, as in etcd.",
    },

    absent(Security, "cert-file", Text, "", "The certificate shown to clients."),
    absent(Security, "key-file", Text, "", "The key of that certificate."),
    absent(Security, "client-cert-auth", Switch, "false",
        "Demand a certificate from every client."),
    absent(Security, "client-cert-file", Text, "", "The certificate for calls to ourselves."),
    absent(Security, "client-key-file", Text, "", "The key of that certificate."),
    absent(Security, "client-crl-file", Text, "", "Client certificates that were revoked."),
    absent(Security, "client-cert-allowed-hostname", Text, "",
        "Host names one of which a client's certificate must carry."),
    absent(Security, "trusted-ca-file", Text, "", "Who signs the certificates of clients."),
    absent(Security, "auto-tls", Switch, "false",
        "Serve clients with a certificate made at start."),
    absent(Security, "peer-cert-file", Text, "", "The certificate shown to other members."),
    absent(Security, "peer-key-file", Text, "", "The key of that certificate."),
    absent(Security, "peer-client-cert-auth", Switch, "false",
        "Demand a certificate from every member."),
    absent(Security, "peer-client-cert-file", Text, "",
        "The certificate for calls to other members."),
    absent(Security, "peer-client-key-file", Text, "", "The key of that certificate."),
    absent(Security, "peer-trusted-ca-file", Text, "", "Who signs the certificates of members."),
    absent(Security, "peer-cert-allowed-cn", Text, "",
        "Common names one of which a member's certificate must carry."),
    absent(Security, "peer-cert-allowed-hostname", Text, "",
        "Host names one of which a member's certificate must carry."),
    absent(Security, "peer-auto-tls", Switch, "false",
        "Serve members with a certificate made at start."),
    absent(Security, "self-signed-cert-validity", Unsigned, "1",
        "Years for which certificates made at start are good."),
    absent(Security, "peer-crl-file", Text, "", "Certificates of members that were revoked."),
    absent(Security, "peer-skip-client-san-verification", Switch, "false",
        "Do not look at the host names in a member's certificate."),
    absent(Security, "cipher-suites", Text, "", "The TLS ciphers to choose from."),
    absent(Security, "cors", Text, "*", "Web sites whose scripts may call the API."),
    absent(Security, "host-whitelist", Text, "*",
        "Host names under which plain HTTP may be asked."),
    absent(Security, "tls-min-version", Text, "TLS1.2", "The oldest TLS spoken."),
    absent(Security, "tls-max-version", Text, "", "The newest TLS spoken."),

    absent(Auth, "auth-token", Text, "simple",
        "The kind of token a login gets: simple, or jwt with its keys."),
    absent(Auth, "bcrypt-cost", Unsigned, "10", "How dear the hash of a password is."),
    absent(Auth, "auth-token-ttl", Unsigned, "300", "Seconds for which a simple token is good."),

    absent(Monitoring, "enable-pprof", Switch, "false", "Serve profiles under /debug/pprof."),
    absent(Monitoring, "metrics", Text, "basic",
        "basic, or extensive with a histogram for every RPC."),
    absent(Monitoring, "listen-metrics-urls", Text, "",
        "Extra addresses for /metrics and /health."),

    absent(Logging, "enable-log-rotation", Switch, "false",
        "Start a new log file when the old one is full."),
    absent(
        Logging, "log-rotation-config-json", Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        "When it is full, and what becomes of it.",
    ),
    absent(Logging, "warning-unary-request-duration", Duration, "300ms",
        "Log requests that take longer."),

    absent(Tracing, "enable-distributed-tracing", Switch, "false", "Send spans to a collector."),
    absent(Tracing, "distributed-tracing-address", Text, "localhost:4317",
        "Where the collector is."),
    absent(Tracing, "distributed-tracing-service-name", Text, "etcd",
        "The service the spans are filed under."),
    absent(Tracing, "distributed-tracing-instance-id", Text, "",
        "The instance they are filed under."),
    absent(Tracing, "distributed-tracing-sampling-rate", Signed, "0",
        "How many in a million are sent."),

    absent(Features, "corrupt-check-time", Duration, "0s",
        "How often members compare their data; 0 is never."),
    absent(Features, "compact-hash-check-time", Duration, "1m",
        "How often the leader compares hashes of compactions."),
    absent(Features, "compaction-batch-limit", Signed, "0",
        "Revisions removed in one step of a compaction."),
    absent(Features, "warning-apply-duration", Duration, "100ms",
        "Log commands that take longer to apply."),
    absent(Features, "bootstrap-defrag-threshold-megabytes", Unsigned, "0",
        "Defragment at start when it frees so much."),
    absent(Features, "max-learners", Signed, "1", "The most learners a cluster may have."),
    absent(Features, "compaction-sleep-interval", Duration, "0s",
        "Rest between two steps of a compaction."),
    absent(Features, "downgrade-check-time", Duration, "5s",
        "How often a downgrade looks whether it is done."),
    absent(Features, "snapshot-catchup-entries", Unsigned, "5000",
        "Entries kept for a member that lags."),

    absent(Unsafe, "force-new-cluster", Switch, "false",
        "Make a cluster of this member alone out of its data."),
];

/// Left over from old versions; etcd takes them without effect, and so does ringd.
pub const IGNORED: &[Flag] = &[
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];
