//! Flags and environment: etcd's names, defaults, grammar, rules, texts and exit codes.
//!
//! [`parse`] is pure: arguments and variables in, a [`Config`] or a [`Refusal`] out, with the
//! remarks on the way as values. [`load`] is the driver that `main` calls; it reads the process,
//! opens the log, prints, and turns refusals into exit codes.
//!
//! Invariants:
//! - Every flag is defined once, in `served` or `absent`; help, environment, defaults and parsing
//!   follow from there.
//! - No setting is swallowed: a flag is served, refused, or ignored with a warning as etcd ignores
//!   it. The default shown is the default used, because it is read by the same parser.
//! - A `Config` is checked: its addresses can be bound, its clocks fit together.

mod absent;
mod check;
mod flag;
mod help;
mod parse;
mod placement;
mod served;
mod url;
mod value;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub use flag::{Flag, Kind, Section, Stand};
pub use help::ETCD_VERSION;
pub use placement::Placement;
pub use url::{Scheme, Url, parse_urls, texts};
pub use value::{ValueError, parse_duration};

use crate::log::{self, Level, LogConfig};
use crate::log_event;

/// What etcd uses when the interval is 0.
const WATCH_PROGRESS_INTERVAL_DEFAULT: Duration = Duration::from_secs(600);
/// What gRPC enforces when it is not told otherwise.
const KEEPALIVE_MIN_TIME_GRPC_DEFAULT: Duration = Duration::from_secs(300);

/// Whether a member without data founds a cluster or joins one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// Founds one.
    #[default]
    New,
    /// Joins one.
    Existing,
}

/// What the hidden flags break, for the drills that kill and slow down the real binary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultConfig {
    /// Added to every sync of the log.
    pub sync_delay: Duration,
    /// So many syncs succeed; all later ones fail.
    pub sync_fail_after: Option<u64>,
}

/// Log settings as texts, until they are checked together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RawLog {
    logger: String,
    outputs: String,
    level: String,
    format: String,
}

/// What a member is to do. Only made by [`parse`], so always checked.
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
    /// The most operations of a transaction.
    pub max_txn_ops: u64,
    /// The largest request. gRPC's own limit is this and 512 KiB.
    pub max_request_bytes: u64,
    /// The most streams of a connection.
    pub max_concurrent_streams: u32,
    /// A client that pings more often is sent away.
    pub grpc_keepalive_min_time: Duration,
    /// See [`Config::grpc_keepalive`].
    grpc_keepalive_interval: Duration,
    grpc_keepalive_timeout: Duration,
    /// How often a quiet watch hears of the revision; at least 100 ms.
    pub watch_progress_notify_interval: Duration,
    /// What is logged, and where.
    pub log: LogConfig,
    raw_log: RawLog,
    /// Which core does what.
    pub placement: Placement,
    /// Acknowledge without syncing.
    pub unsafe_no_fsync: bool,
    /// What is broken on purpose.
    pub fault: FaultConfig,
}

/// How silent connections are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Ping after so much silence.
    pub interval: Duration,
    /// Close when the answer takes longer.
    pub timeout: Duration,
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
    fn defaults() -> Self {
        let mut config = Self::default();
        for flag in flags() {
            let (Stand::Served(update) | Stand::Hidden(update)) = flag.stand else { continue };
            if flag.default.is_empty() {
                continue;
            }
            let value = flag.kind.parse(flag.default).expect("a default is of its flag's kind");
            update(&mut config, value).expect("a default has a meaning");
        }
        config
    }
}

/// A remark for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// The line's message.
    pub message: String,
    /// The line's fields.
    pub fields: Vec<(&'static str, String)>,
}

impl Notice {
    /// Writes it to the log.
    pub fn write(&self) {
        if log::enabled(self.level) {
            let fields: Vec<_> =
                self.fields.iter().map(|(key, text)| (*key, log::Value::from(text))).collect();
            log::write(self.level, &self.message, &fields);
        }
    }
}

/// Why there is no member to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A slip of the keyboard: the text and the usage on standard error, exit code 2.
    Usage(String),
    /// Values that cannot be: etcd's "failed to verify flags", exit code 1.
    Invalid(String),
    /// Values that etcd finds wrong only when it starts: its "discovery failed", exit code 1.
    Discovery(String),
    /// A variable that a flag sets, too: exit code 1.
    Shadowed(String),
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Outcome {
    /// A member with this configuration.
    Run(Box<Config>),
    /// All flags.
    Help,
    /// The version.
    Version,
}

/// Every flag there is.
pub fn flags() -> impl Iterator<Item = &'static Flag> {
    [served::MEMBER, served::CLUSTERING, served::OTHERS, absent::ABSENT, absent::IGNORED]
        .into_iter()
        .flatten()
}

fn flag_named(name: &str) -> Option<&'static Flag> {
    flags().find(|flag| flag.name == name)
}

/// Reads arguments (without the program's name) and the environment. Touches nothing.
///
/// `default_host` tells the machine's own address; it is asked only if a default depends on it.
pub fn parse(
    arguments: &[String],
    variables: &[(String, String)],
    default_host: &dyn Fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) -> Result<Outcome, Refusal> {
    if let Some(command @ ("gateway" | "grpc-proxy")) = arguments.first().map(String::as_str) {
        return Err(Refusal::Invalid(format!("ringd has no {command} yet")));
    }
    let mut settings = match parse::parse_arguments(arguments)? {
        parse::Arguments::Help => return Ok(Outcome::Help),
        parse::Arguments::Settings(settings) => settings,
    };
    if settings.version {
        return Ok(Outcome::Version);
    }
    parse::add_environment(&mut settings, variables, notices)?;
    let mut config = Config::defaults();
    for flag in flags() {
        if let Some(value) = settings.values.get(flag.name) {
            apply(&mut config, flag, value, notices)?;
        }
    }
    check::check(&mut config, &settings, default_host, notices)?;
    Ok(Outcome::Run(Box::new(config)))
}

fn apply(
    config: &mut Config,
    flag: &Flag,
    value: &flag::Value,
    notices: &mut Vec<Notice>,
) -> Result<(), Refusal> {
    let name = flag.name;
    match flag.stand {
        Stand::Served(update) | Stand::Hidden(update) => update(config, value.clone())
            .map_err(|error| Refusal::Invalid(format!("invalid value for --{name}: {error}"))),
        Stand::Absent(also) if flag.asks_for_nothing(value, also) => Ok(()),
        Stand::Absent(_) => {
            let default = flag.default;
            Err(Refusal::Invalid(format!(
                "--{name} is a flag of etcd whose feature ringd does not have yet; only its \
                 default ({default:?}) is taken"
            )))
        }
        Stand::Ignored(warning) => {
            let fields = vec![("flag-name", name.to_owned())];
            notices.push(Notice { level: Level::Warn, message: warning.to_owned(), fields });
            Ok(())
        }
        Stand::Version => Ok(()),
    }
}

/// Reads the process's command line and environment, opens the log and says what is to be said.
///
/// `Err` is how the process ends: help and version end well.
pub fn load() -> Result<Config, ExitCode> {
    let mut notices = Vec::new();
    let arguments = process_arguments();
    let outcome = match &arguments {
        Err(refusal) => Err(refusal.clone()),
        Ok(arguments) => process_variables()
            .and_then(|variables| parse(&arguments[1..], &variables, &default_host, &mut notices)),
    };
    let outcome = outcome.and_then(|outcome| match outcome {
        Outcome::Run(config) => match log::install(&config.log) {
            Ok(()) => Ok(Outcome::Run(config)),
            Err(failure) => Err(Refusal::Invalid(failure.to_string())),
        },
        other => Ok(other),
    });
    match outcome {
        Ok(Outcome::Help) => {
            eprintln!("{}", help::usage());
            print!("{}", help::flags_text());
            return Err(ExitCode::SUCCESS);
        }
        Ok(Outcome::Version) => {
            print!("{}", help::version());
            return Err(ExitCode::SUCCESS);
        }
        Err(Refusal::Usage(reason)) => {
            eprintln!("{reason}\n{}", help::usage());
            return Err(ExitCode::from(2));
        }
        Ok(Outcome::Run(_)) | Err(_) => {}
    }
    for notice in &notices {
        notice.write();
    }
    if !matches!(outcome, Err(Refusal::Shadowed(_))) {
        let arguments = arguments.unwrap_or_default();
        log_event!(Info, "Running: ", "args" => &arguments);
    }
    match outcome {
        Ok(Outcome::Run(config)) => return Ok(*config),
        Err(Refusal::Invalid(reason)) => {
            log_event!(Warn, "failed to verify flags", "error" => &reason);
        }
        Err(Refusal::Discovery(reason)) => {
            log_event!(Fatal, "discovery failed", "error" => &reason);
        }
        Err(Refusal::Shadowed(variable)) => {
            // The second closing bracket is etcd's, and log watchers match the whole text.
            let message = "conflicting environment variable is shadowed by corresponding \
                           command-line flag (either unset environment variable or disable flag))";
            log_event!(Fatal, message, "environment-variable" => &variable);
        }
        Ok(_) | Err(Refusal::Usage(_)) => unreachable!("these returned above"),
    }
    Err(ExitCode::FAILURE)
}

fn process_arguments() -> Result<Vec<String>, Refusal> {
    let mut arguments = Vec::new();
    for argument in std::env::args_os() {
        match argument.into_string() {
            Ok(argument) => arguments.push(argument),
            Err(raw) => {
                return Err(Refusal::Usage(format!("an argument is not UTF-8: {raw:?}")));
            }
        }
    }
    if arguments.is_empty() {
        // A caller may pass not even a name; the rest counts from the second.
        arguments.push("ringd".to_owned());
    }
    Ok(arguments)
}

fn process_variables() -> Result<Vec<(String, String)>, Refusal> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if !name.starts_with("ETCD_") {
            continue;
        }
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) => return Err(Refusal::Invalid(format!("{name} is not UTF-8"))),
        }
    }
    // The environment has no order; the lines about it should.
    variables.sort_unstable();
    Ok(variables)
}

/// The address of this machine on the way to everybody else.
///
/// Connecting a datagram socket sends nothing: the kernel only looks up the route. The targets are
/// of the ranges kept for documentation.
fn default_host() -> Option<IpAddr> {
    for (local, target) in [("0.0.0.0:0", "203.0.113.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let Ok(socket) = UdpSocket::bind(local) else { continue };
        if socket.connect(target).is_err() {
            continue;
        }
        if let Ok(address) = socket.local_addr() {
            return Some(address.ip());
        }
    }
    None
}
