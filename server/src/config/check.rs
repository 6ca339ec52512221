//! Whether the settings go together: etcd's rules, in etcd's order, with etcd's texts.
//!
//! What concerns only a member without data (is it part of its initial cluster?) is checked by
//! `bootstrap`, as a member with data ignores those flags.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::parse::Settings;
use super::url::{Scheme, Url, sorted_unique, texts};
use super::{Config, Notice, Refusal};
use crate::log::{Format, Level, LogConfig, Output};

/// The longest election timeout: above it, a cluster would not miss its dead leader for a minute.
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
/// Progress notifications more often than this would be a load of their own.
const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Requests above this work, but hold up everything behind them.
const REQUEST_BYTES_RECOMMENDED: u64 = 10 * 1024 * 1024;
/// Lengths are 32 bits on the wire, and a request needs room for its frame and its header.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024 * 1024;

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
    config.log = log_config(config)?;
    check_addresses(config)?;
    check_clocks(config)?;
    if settings.values.contains_key("listen-client-urls")
        && !settings.values.contains_key("advertise-client-urls")
    {
        let reason = "--advertise-client-urls is required when --listen-client-urls is set \
                      explicitly";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    check_sizes(config, notices)?;
    if config.name == DEFAULT_NAME {
        let message = "it isn't recommended to use default name, please set a value for --name. \
                       Note that etcd might run into issue when multiple members have the same \
                       default name";
        notices.push(warning(message, vec![("name", config.name.clone())]));
    }
    replace_default_host(config, default_host, notices);
    check_tls(config)?;
    derive_names(config);
    Ok(())
}

fn warning(message: &str, fields: Vec<(&'static str, String)>) -> Notice {
    Notice { level: Level::Warn, message: message.to_owned(), fields }
}

fn log_config(config: &Config) -> Result<LogConfig, Refusal> {
    let raw = &config.raw_log;
    if raw.logger != "zap" {
        return Err(Refusal::Invalid(format!("unknown logger option {:?}", raw.logger)));
    }
    let mut names: Vec<&str> = raw.outputs.split(',').collect();
    names.sort_unstable();
    names.dedup();
    if names.contains(&"default") && names.len() > 1 {
        let reason = "multi logoutput for \"default\" is not supported yet";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    let mut outputs = Vec::with_capacity(names.len());
    for name in names {
        outputs.push(log_output(name)?);
    }
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
    Ok(LogConfig { level, format, outputs })
}

fn log_output(name: &str) -> Result<Output, Refusal> {
    match name {
        "default" | "stderr" => Ok(Output::Stderr),
        "stdout" => Ok(Output::Stdout),
        "systemd/journal" => {
            let reason = "ringd does not speak to the journal; under systemd, stderr goes there";
            Err(Refusal::Invalid(format!("--log-outputs {name}: {reason}")))
        }
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
    for url in config.listen_peer_urls.iter().chain(&config.listen_client_urls) {
        if let Err(error) = url.bind_address() {
            return Err(Refusal::Invalid(error.to_string()));
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
    let interval = &mut config.watch_progress_notify_interval;
    if interval.is_zero() {
        *interval = super::WATCH_PROGRESS_INTERVAL_DEFAULT;
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

/// TLS is not there yet; what is left is what etcd says when its certificates are missing.
fn check_tls(config: &Config) -> Result<(), Refusal> {
    if let Some(url) = config.listen_peer_urls.iter().find(|url| url.scheme == Scheme::Https) {
        let address = url.authority();
        let reason = "KeyFile and CertFile are not presented";
        return Err(Refusal::Discovery(format!("cannot listen on TLS for {address}: {reason}")));
    }
    if let Some(url) = config.listen_client_urls.iter().find(|url| url.scheme == Scheme::Https) {
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
    // etcd compares texts instead of asking whether the flag was set; so does this.
    if config.name != DEFAULT_NAME && config.initial_cluster == default_cluster {
        let member = |url: &Url| format!("{}={url}", config.name);
        let members: Vec<String> = config.initial_advertise_peer_urls.iter().map(member).collect();
        config.initial_cluster = members.join(",");
    }
}
