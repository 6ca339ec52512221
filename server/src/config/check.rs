//! Whether the settings go together: etcd's rules, in etcd's order, with etcd's texts.
//!
//! What concerns only a member without data (is it part of its initial cluster?) is checked by
//! `bootstrap`, as a member with data ignores those flags.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fields::RawLog;
use super::file::{kind_of, number_text};
use super::parse::Settings;
use super::url::{Scheme, Url, sorted_unique, texts};
use super::value::{duration_error, parse_duration};
use super::yaml::{self, Node};
use super::{AutoCompaction, Config, Notice, Refusal};
use crate::log::{Format, GoDuration, Level, LogConfig, Output, Rotation};

/// The longest election timeout: above it, a cluster would not miss its dead leader for a minute.
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
/// Progress notifications more often than this would be a load of their own.
const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// What etcd uses when the interval is 0.
const WATCH_PROGRESS_INTERVAL_DEFAULT: Duration = Duration::from_secs(600);
/// What etcd uses when the duration is 0.
const WARNING_UNARY_REQUEST_DEFAULT: Duration = Duration::from_millis(300);
/// Requests above this work, but hold up everything behind them.
const REQUEST_BYTES_RECOMMENDED: u64 = 10 * 1024 * 1024;
/// Lengths are 32 bits on the wire, and a request needs room for its frame and its header.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// A request that writes; the log takes records of 32 MiB, whatever `--max-request-bytes` says.
pub const COMMAND_SIZE_BYTES_MAX: u64 = 30 << 20;
/// Streams of a connection, whatever `--max-concurrent-streams` says.
pub const STREAMS_OPEN_MAX: u32 = 65_536;

/// What fills a log file when nothing is said of it, as in the library that etcd uses.
const LOG_SIZE_MEBIBYTES: u64 = 100;
/// A sampling rate is of a million.
const TRACING_SAMPLING_RATE_MAX: i64 = 1_000_000;
const HOUR_NS: i64 = 3_600 * 1_000_000_000;
/// TLS' own numbers of its versions.
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;

const DEFAULT_NAME: &str = "default";
const DEFAULT_PEER_URL: &str = "http://localhost:2380";
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";

/// Finishes what depends on several flags, and refuses what does not go together.
pub fn check(
    config: &mut Config,
    settings: &Settings,
    default_host: &dyn Fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) -> Result<(), Refusal> {
    if config.raw.discovery_fallback == "proxy" {
        let reason = "v2 proxy is deprecated, and --discovery-fallback can't be configured as";
        return Err(Refusal::Invalid(format!("{reason} \"proxy\"")));
    }
    config.log = log_config(config)?;
    check_addresses(config)?;
    check_discovery(config, settings)?;
    check_clocks(config)?;
    if !settings.from_file
        && settings.values.contains_key("listen-client-urls")
        && !settings.values.contains_key("advertise-client-urls")
    {
        let reason = "--advertise-client-urls is required when --listen-client-urls is set \
                      explicitly";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    check_compaction_mode(config)?;
    check_tracing(config)?;
    check_gates(config, notices)?;
    check_sizes(config, notices)?;
    if config.name == DEFAULT_NAME {
        let message = "it isn't recommended to use default name, please set a value for --name. \
                       Note that etcd might run into issue when multiple members have the same \
                       default name";
        notices.push(warning(message, vec![("name", config.name.clone())]));
    }
    check_tls_versions(config)?;
    replace_default_host(config, default_host, notices);
    check_tls(config)?;
    config.auto_compaction = auto_compaction(config)?;
    derive_names(config);
    Ok(())
}

fn warning(message: &str, fields: Vec<(&'static str, String)>) -> Notice {
    Notice { level: Level::Warn, message: message.to_owned(), fields }
}

fn log_config(config: &Config) -> Result<LogConfig, Refusal> {
    let raw = &config.raw.log;
    if raw.logger == "capnslog" {
        return Err(Refusal::Invalid("--logger=capnslog is removed in v3.5".to_owned()));
    }
    if raw.logger != "zap" {
        return Err(Refusal::Invalid(format!("unknown logger option {:?}", raw.logger)));
    }
    let names: Vec<&str> = raw.outputs.iter().map(String::as_str).collect();
    if names.contains(&"default") && names.len() > 1 {
        let reason = "multi logoutput for \"default\" is not supported yet";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    if names.contains(&"systemd/journal") && names.len() > 1 {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        return Err(Refusal::Invalid(format!(
            "running with systemd/journal but other '--log-outputs' values ([{}]) are configured \
             with 'default'; override 'default' value with something else",
            names.join(" ")
        )));
    }
    let mut outputs = Vec::with_capacity(names.len());
    for name in names {
        outputs.push(log_output(name)?);
    }
    let rotation = log_rotation(raw, &outputs)?;
    let format = match raw.format.as_str() {
        "json" | "" => Format::Json,
        "console" => Format::Console,
        other => {
            let reason = "supported values json, console";
            return Err(Refusal::Invalid(format!("unknown log format: {other}, {reason}")));
        }
    };
    let Some(level) = Level::parse(&raw.level) else {
        return Err(Refusal::Usage(format!("unrecognized level: {:?}", raw.level)));
    };
    Ok(LogConfig { level, format, outputs, rotation })
}

/// etcd's rules: exactly one file, whatever else there is beside it.
fn log_rotation(raw: &RawLog, outputs: &[Output]) -> Result<Option<Rotation>, Refusal> {
    if !raw.rotates {
        return Ok(None);
    }
    let files = outputs.iter().filter(|output| matches!(output, Output::File(_))).count();
    if files > 1 || files == 0 && outputs.len() == 1 {
        let reason = "--log-outputs requires a single file path when --log-rotate-config-json is \
                      defined";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    let improper = |reason: String| {
        Refusal::Invalid(format!("improperly formatted log rotation config: {reason}"))
    };
    let text = raw.rotation.trim_start();
    if !text.starts_with('{') {
        return Err(improper(match text.chars().next() {
            None => "unexpected end of JSON input".to_owned(),
            Some(first) => format!("invalid character '{first}' looking for beginning of value"),
        }));
    }
    let map = match yaml::parse(text) {
        Ok(Node::Map(map)) => map,
        Ok(_) => return Err(improper("it is no object".to_owned())),
        Err(reason) => return Err(improper(reason)),
    };
    let mut rotation = Rotation {
        size_mebibytes_max: LOG_SIZE_MEBIBYTES,
        age_days_max: 0,
        backups_max: 0,
        compress: false,
    };
    for (key, node) in map {
        let name = key.to_ascii_lowercase();
        let wrong = |what: &str, go_type: &str| {
            let reason = format!("json: cannot unmarshal {what} into Go struct field");
            let field = format!("logRotationConfig.Logger.{name} of type {go_type}");
            Refusal::Invalid(format!("invalid log rotation config: {reason} {field}"))
        };
        let number = || match node {
            Node::Integer(number) => u64::try_from(number).ok(),
            _ => None,
        };
        let number = || number().ok_or_else(|| wrong(&number_text(&node), "int"));
        let switch = || match node {
            Node::Switch(on) => Ok(on),
            _ => Err(wrong(kind_of(&node), "bool")),
        };
        match name.as_str() {
            "maxsize" => rotation.size_mebibytes_max = number()?,
            "maxage" => rotation.age_days_max = number()?,
            "maxbackups" => rotation.backups_max = number()?,
            "compress" => rotation.compress = switch()?,
            "localtime" if switch()? => {
                let reason = "ringd names old log files by UTC only";
                return Err(Refusal::Invalid(format!("invalid log rotation config: {reason}")));
            }
            // etcd overwrites the name, and skips what it does not know.
            _ => {}
        }
    }
    if rotation.size_mebibytes_max == 0 {
        rotation.size_mebibytes_max = LOG_SIZE_MEBIBYTES;
    }
    Ok(Some(rotation))
}

fn log_output(name: &str) -> Result<Output, Refusal> {
    match name {
        "default" | "stderr" => Ok(Output::Stderr),
        "stdout" => Ok(Output::Stdout),
        "systemd/journal" => Ok(Output::Journal),
        _ => match name.split_once("://") {
            Some(("file", path)) => Ok(Output::File(PathBuf::from(path))),
            Some((scheme, _)) => {
                let reason = format!("no sink found for scheme {scheme:?}");
                Err(Refusal::Invalid(format!("open sink {name:?}: {reason}")))
            }
            None => Ok(Output::File(PathBuf::from(name))),
        },
    }
}

fn check_addresses(config: &Config) -> Result<(), Refusal> {
    for urls in [
        &config.listen_peer_urls,
        &config.listen_client_urls,
        &config.listen_client_http_urls,
        &config.listen_metrics_urls,
    ] {
        for url in urls {
            if let Err(error) = url.place() {
                return Err(Refusal::Invalid(error.to_string()));
            }
        }
    }
    check_hosts(
        "--initial-advertise-peer-urls",
        "must be \"host:port\"",
        &config.initial_advertise_peer_urls,
    )?;
    check_hosts(
        "--advertise-client-urls",
        "must be in the format \"host:port\", \"unix:/path/to/socket\" or \
         \"unixs:/path/to/socket\"",
        &config.advertise_client_urls,
    )
}

fn check_hosts(flag: &str, rule: &str, urls: &[Url]) -> Result<(), Refusal> {
    match urls.iter().find(|url| url.host.is_empty()) {
        None => Ok(()),
        Some(url) => {
            let all = texts(urls).join(",");
            let reason = format!("unexpected empty host ({url})");
            Err(Refusal::Invalid(format!("{flag} {all:?} {rule} ({reason})")))
        }
    }
}

fn check_clocks(config: &Config) -> Result<(), Refusal> {
    let (heartbeat, election) = (config.heartbeat_interval_ms, config.election_timeout_ms);
    let reason = if heartbeat == 0 {
        format!("--heartbeat-interval must be >0 (set to {heartbeat}ms)")
    } else if election == 0 {
        format!("--election-timeout must be >0 (set to {election}ms)")
    } else if heartbeat.saturating_mul(5) > election {
        format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        )
    } else if election > ELECTION_TIMEOUT_MS_MAX {
        format!(
            "--election-timeout[{election}ms] is too long, and should be set less than \
             {ELECTION_TIMEOUT_MS_MAX}ms"
        )
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid(reason))
}

fn check_sizes(config: &mut Config, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    let request = config.max_request_bytes;
    if request > REQUEST_BYTES_MAX {
        return Err(Refusal::Invalid(format!(
            "--max-request-bytes[{request}] is more than ringd takes; the most is \
             {REQUEST_BYTES_MAX}"
        )));
    }
    if request > REQUEST_BYTES_RECOMMENDED {
        let fields = vec![
            ("max-request-bytes", request.to_string()),
            ("recommended-request-bytes", REQUEST_BYTES_RECOMMENDED.to_string()),
        ];
        notices.push(warning("exceeded recommended request limit", fields));
    }
    if request > COMMAND_SIZE_BYTES_MAX {
        let fields = vec![
            ("max-request-bytes", request.to_string()),
            ("max-command-bytes", COMMAND_SIZE_BYTES_MAX.to_string()),
        ];
        notices.push(warning("requests that write are refused beyond a lower limit", fields));
    }
    let streams = config.max_concurrent_streams;
    // The default and 0 ask for no limit, and a limit that nobody meets is as good as none.
    if streams > STREAMS_OPEN_MAX && streams != u32::MAX {
        let fields = vec![
            ("max-concurrent-streams", streams.to_string()),
            ("max-streams-of-a-connection", STREAMS_OPEN_MAX.to_string()),
        ];
        notices.push(warning("a connection has fewer streams than were asked for", fields));
    }
    if config.warning_unary_request_duration.is_zero() {
        config.warning_unary_request_duration = WARNING_UNARY_REQUEST_DEFAULT;
    }
    let interval = &mut config.watch_progress_notify_interval;
    if interval.is_zero() {
        *interval = WATCH_PROGRESS_INTERVAL_DEFAULT;
    } else if *interval < WATCH_PROGRESS_INTERVAL_MIN {
        *interval = WATCH_PROGRESS_INTERVAL_MIN;
        let fields = vec![("min-watch-progress-notify-interval", "100ms".to_owned())];
        let message = "adjusting watch progress notify interval to minimum period";
        notices.push(warning(message, fields));
    }
    Ok(())
}

/// etcd's way to make a default that other machines can reach: whoever listens on every address but
/// advertises `localhost` means the machine's own address.
fn replace_default_host(
    config: &mut Config,
    default_host: &dyn Fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) {
    let mut used = None;
    for (listened, advertised, default) in [
        (&config.listen_peer_urls, &mut config.initial_advertise_peer_urls, DEFAULT_PEER_URL),
        (&config.listen_client_urls, &mut config.advertise_client_urls, DEFAULT_CLIENT_URL),
    ] {
        let is_default = advertised.len() == 1 && advertised[0].as_str() == default;
        let Some(first) = listened.first() else { continue };
        if !is_default || first.host != "0.0.0.0" {
            continue;
        }
        if let Some(host) = default_host() {
            *advertised = sorted_unique(vec![Url::with_host(Scheme::Http, host, first.port)]);
            used = Some(host);
        }
    }
    if let Some(host) = used {
        let message = "detected default host for advertise".to_owned();
        notices.push(Notice {
            level: Level::Info,
            message,
            fields: vec![("host", host.to_string())],
        });
    }
}

fn check_discovery(config: &Config, settings: &Settings) -> Result<(), Refusal> {
    let discovery = &config.discovery;
    let endpoints = &discovery.endpoints;
    let (has_endpoints, has_srv) = (!endpoints.is_empty(), !discovery.srv.is_empty());
    let has_url = !discovery.url.is_empty();
    // The default gives way to discovery; only who names members, too, contradicts himself.
    let has_members =
        settings.values.contains_key("initial-cluster") && !config.initial_cluster.is_empty();
    let ways = [has_members, has_endpoints, has_srv, has_url];
    let reason = if ways.into_iter().filter(|is_set| *is_set).count() > 1 {
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery-endpoints\" or \"discovery-srv\""
    } else if discovery.token.is_empty() == has_endpoints {
        "both --discovery-token and --discovery-endpoints must be set"
    } else if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        "--discovery-endpoints must not contain empty endpoints"
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid(reason.to_owned()))
}

fn check_compaction_mode(config: &Config) -> Result<(), Refusal> {
    match config.raw.compaction_mode.as_str() {
        "periodic" | "revision" => Ok(()),
        "" => Err(Refusal::Invalid("undefined auto-compaction-mode".to_owned())),
        other => Err(Refusal::Invalid(format!("unknown auto-compaction-mode {other:?}"))),
    }
}

/// How much history is kept. A number without a unit is hours or revisions; etcd reads whatever
/// else as a time, whose nanoseconds then count as revisions.
pub fn auto_compaction(config: &Config) -> Result<AutoCompaction, Refusal> {
    let text = match config.raw.compaction_retention.as_str() {
        "" => "0",
        text => text,
    };
    let periodic = config.raw.compaction_mode == "periodic";
    let number = text.strip_prefix('+').unwrap_or(text).parse::<u32>();
    let retention = match number {
        Ok(number) if periodic => i64::from(number).saturating_mul(HOUR_NS),
        Ok(number) => i64::from(number),
        Err(_) => parse_duration(text).map_err(|_| {
            let reason = duration_error(text);
            Refusal::Discovery(format!("error parsing CompactionRetention: {reason}"))
        })?,
    };
    match u64::try_from(retention) {
        Ok(0) => Ok(AutoCompaction::Off),
        Ok(nanos) if periodic => Ok(AutoCompaction::Periodic(Duration::from_nanos(nanos))),
        Ok(_) => Ok(AutoCompaction::Revision(retention)),
        // etcd ends by dereferencing nothing.
        Err(_) => {
            Err(Refusal::Discovery(format!("--auto-compaction-retention {text} is less than 0")))
        }
    }
}

fn check_tracing(config: &Config) -> Result<(), Refusal> {
    let rate = config.raw.tracing_sampling_rate;
    let reason = match rate {
        _ if !config.raw.tracing => return Ok(()),
        ..0 => "tracing sampling rate must be positive",
        0..=TRACING_SAMPLING_RATE_MAX => return Ok(()),
        _ => "tracing sampling rate must be less than 1000000",
    };
    let text = format!("distributed tracing configurition is not valid: ({reason})");
    Err(Refusal::Invalid(text))
}

fn check_gates(config: &mut Config, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    let checkpoint = config.features.lease_checkpoint();
    let persist = config.features.lease_checkpoint_persist();
    if checkpoint && !persist {
        let message = "Detected that checkpointing is enabled without persistence. Consider \
                       enabling feature gate LeaseCheckpointPersist";
        notices.push(warning(message, Vec::new()));
    }
    if persist && !checkpoint {
        let reason = "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                      LeaseCheckpoint";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    let interval = config.raw.compact_hash_check_ns;
    if interval <= 0 {
        let sign = if interval < 0 { "-" } else { "" };
        let shown = GoDuration(Duration::from_nanos(interval.unsigned_abs()));
        let reason = format!("--compact-hash-check-time must be >0 (set to {sign}{shown})");
        return Err(Refusal::Invalid(reason));
    }
    config.compact_hash_check_time = Duration::from_nanos(interval.unsigned_abs());
    Ok(())
}

fn check_tls_versions(config: &Config) -> Result<(), Refusal> {
    let raw = &config.raw;
    let (min, max) = (tls_version(&raw.tls_version_min)?, tls_version(&raw.tls_version_max)?);
    let reason = if max.is_some() && min > max {
        let (min, max) = (&raw.tls_version_min, &raw.tls_version_max);
        format!("min version ({min}) is greater than max version ({max})")
    } else if min == Some(TLS_1_3) && !raw.tls_cipher_suites.is_empty() {
        "cipher suites cannot be configured when only TLS1.3 is enabled".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid(reason))
}

fn tls_version(text: &str) -> Result<Option<u16>, Refusal> {
    match text {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(TLS_1_2)),
        "TLS1.3" => Ok(Some(TLS_1_3)),
        _ => {
            let reason = format!("unexpected TLS version {text:?}");
            Err(Refusal::Invalid(format!("{reason} (must be one of: TLS1.2, TLS1.3)")))
        }
    }
}

/// TLS is not there yet; what is left is what etcd says when its certificates are missing.
fn check_tls(config: &Config) -> Result<(), Refusal> {
    if let Some(url) = config.listen_peer_urls.iter().find(|url| url.scheme.is_secure()) {
        let address = url.authority();
        let reason = "KeyFile and CertFile are not presented";
        return Err(Refusal::Discovery(format!("cannot listen on TLS for {address}: {reason}")));
    }
    let mut clients = config.listen_client_urls.iter().chain(&config.listen_client_http_urls);
    if let Some(url) = clients.find(|url| url.scheme.is_secure()) {
        let flags = "TLS key/cert (--cert-file, --key-file) must be provided";
        return Err(Refusal::Discovery(format!("{flags} for client url {url} with HTTPS scheme")));
    }
    Ok(())
}

/// The defaults that follow from the name.
fn derive_names(config: &mut Config) {
    if config.data_dir.as_os_str().is_empty() {
        config.data_dir = PathBuf::from(format!("{}.etcd", config.name));
    }
    let default_cluster = format!("{DEFAULT_NAME}={DEFAULT_PEER_URL}");
    if config.discovery.is_set() {
        // Nobody is a member yet but whom discovery finds.
        if config.initial_cluster == default_cluster {
            config.initial_cluster.clear();
        }
        return;
    }
    // etcd compares texts instead of asking whether the flag was set; so does this.
    if config.name != DEFAULT_NAME && config.initial_cluster == default_cluster {
        let member = |url: &Url| format!("{}={url}", config.name);
        let members: Vec<String> = config.initial_advertise_peer_urls.iter().map(member).collect();
        config.initial_cluster = members.join(",");
    }
}
