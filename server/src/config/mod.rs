//! Flags, environment and file: etcd's names, defaults, grammar, rules, texts and exit codes.
//!
//! [`parse`] is pure: arguments and variables in, a [`Config`] or a [`Refusal`] out, with the
//! remarks on the way as values. [`load`] is the driver that `main` calls; it reads the process,
//! opens the log, prints, and turns refusals into exit codes.
//!
//! Invariants:
//! - Every flag is defined once, in `table`; parsing, environment, file, defaults, help and
//!   docs/flags.md follow from there.
//! - No setting is swallowed. A flag is served; or taken with a line that says why it has no effect
//!   here; or refused when it asks for anything; or ignored with a warning as etcd ignores it.
//! - The default shown is the default used, because it is read by the same parser.
//! - A `Config` is checked: its addresses can be bound, its clocks fit together.

mod check;
mod features;
mod fields;
mod file;
mod flag;
mod help;
#[cfg(test)]
mod page;
mod parse;
mod placement;
mod table;
mod url;
mod value;
mod yaml;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, UdpSocket};
use std::process::ExitCode;

pub use check::{COMMAND_SIZE_BYTES_MAX, STREAMS_OPEN_MAX};
pub use features::{FeatureGates, Gate, GateStand, Stage};
pub use fields::{
    AutoCompaction, ClusterState, Config, Discovery, FaultConfig, Keepalive, MetricsDetail,
};
pub use flag::{FileKey, Flag, Kind, Section, Stand};
pub use help::ETCD_VERSION;
pub use placement::Placement;
pub use table::flags;
pub use url::{Place, Scheme, Url, parse_urls, texts};
pub use value::{ValueError, parse_duration};

use crate::log::{self, Level};
use crate::log_event;

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
    /// Addresses of a file that are none: the text alone on standard error, exit code 1.
    Plain(String),
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

fn flag_named(name: &str) -> Option<&'static Flag> {
    flags().find(|flag| flag.name == name)
}

/// What a configuration may be read from, besides the arguments.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The environment; only names that begin with `ETCD_` are looked at.
    pub variables: &'a [(String, String)],
    /// The machine's own address; asked only if a default depends on it.
    pub default_host: &'a dyn Fn() -> Option<IpAddr>,
    /// The content of a file, or why there is none.
    pub read_file: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
}

impl Surroundings<'static> {
    /// An empty environment on a machine without network and files.
    pub const NONE: Self = Self {
        variables: &[],
        default_host: &|| None,
        read_file: &|path| Err(format!("open {path}: no such file or directory")),
    };
}

/// Reads arguments (without the program's name), environment and file. Touches nothing else.
pub fn parse(
    arguments: &[String],
    surroundings: &Surroundings<'_>,
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
    let file_path = config_file(&settings, surroundings.variables);
    match &file_path {
        Some(path) => {
            let bytes = (surroundings.read_file)(path).map_err(Refusal::Invalid)?;
            settings = file::read(&bytes, notices)?;
        }
        None => parse::add_environment(&mut settings, surroundings.variables, notices)?,
    }
    let mut config = Config::defaults();
    for flag in flags() {
        if let Some(value) = settings.values.get(flag.name) {
            let name = flag.name;
            (flag.update)(&mut config, value.clone()).map_err(|error| {
                Refusal::Invalid(format!("invalid value for --{name}: {error}"))
            })?;
        }
    }
    check::check(&mut config, &settings, surroundings.default_host, notices)?;
    // Only now: who made a mistake that etcd names, too, hears etcd's text for it.
    for flag in flags() {
        if let Some(value) = settings.values.get(flag.name) {
            take_stand(flag, value, notices)?;
        }
    }
    take_stand_on_gates(&config.features, notices);
    if let Some(path) = file_path {
        let message = "loaded server configuration, other configuration command line flags and \
                       environment variables will be ignored if provided"
            .to_owned();
        notices.push(Notice { level: Level::Info, message, fields: vec![("path", path)] });
    }
    Ok(Outcome::Run(Box::new(config)))
}

/// The file to read instead of flags and environment, if one is named.
fn config_file(settings: &parse::Settings, variables: &[(String, String)]) -> Option<String> {
    let by_flag = settings.values.get("config-file").cloned().map(flag::Value::into_text);
    let by_variable = || {
        let found = variables.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE");
        found.map(|(_, text)| text.clone())
    };
    let named = |path: &String| !path.is_empty();
    by_flag.filter(named).or_else(by_variable).filter(named)
}

/// What is to be said of a flag that is set.
fn take_stand(flag: &Flag, value: &flag::Value, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    let (name, default) = (flag.name, flag.default);
    if !flag.deprecation.is_empty() {
        let message = flag.deprecation.to_owned();
        notices.push(Notice { level: Level::Warn, message, fields: Vec::new() });
    }
    match flag.stand {
        Stand::Served | Stand::Hidden | Stand::Special => Ok(()),
        Stand::Ignored("") => Ok(()),
        Stand::Ignored(warning) => {
            let fields = vec![("flag-name", name.to_owned())];
            notices.push(Notice { level: Level::Warn, message: warning.to_owned(), fields });
            Ok(())
        }
        Stand::Moot(_) | Stand::Refused(_) if flag.asks_for_nothing(value, &[]) => Ok(()),
        Stand::Pending(also) if flag.asks_for_nothing(value, also) => Ok(()),
        Stand::Moot(reason) => {
            notices.push(without_effect("flag", format!("--{name}"), reason));
            Ok(())
        }
        Stand::Pending(_) => Err(Refusal::Invalid(format!(
            "--{name} is a flag of etcd whose feature ringd does not have yet; only its default \
             ({default:?}) is taken"
        ))),
        Stand::Refused(reason) => Err(Refusal::Invalid(format!(
            "--{name} is a flag of etcd that ringd does not serve: {reason}; only its default \
             ({default:?}) is taken"
        ))),
    }
}

fn take_stand_on_gates(features: &FeatureGates, notices: &mut Vec<Notice>) {
    for (gate, position) in features.changed() {
        if let GateStand::Moot(reason) = gate.stand {
            let setting = format!("{}={position}", gate.name);
            notices.push(without_effect("feature-gate", setting, reason));
        }
    }
}

fn without_effect(key: &'static str, setting: String, reason: &str) -> Notice {
    let fields = vec![(key, setting), ("reason", reason.to_owned())];
    Notice { level: Level::Info, message: "a setting has no effect in ringd".to_owned(), fields }
}

/// Reads the process's command line and environment, opens the log and says what is to be said.
///
/// `Err` is how the process ends: help and version end well.
pub fn load() -> Result<Config, ExitCode> {
    let mut notices = Vec::new();
    let arguments = process_arguments();
    let outcome = match &arguments {
        Err(refusal) => Err(refusal.clone()),
        Ok(arguments) => process_variables().and_then(|variables| {
            let (default_host, read_file) = (&default_host, &read_file);
            let surroundings = Surroundings { variables: &variables, default_host, read_file };
            parse(&arguments[1..], &surroundings, &mut notices)
        }),
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
            tell(io::stderr(), format_args!("{}\n", help::usage()));
            tell(io::stdout(), format_args!("{}", help::flags_text()));
            return Err(ExitCode::SUCCESS);
        }
        Ok(Outcome::Version) => {
            tell(io::stdout(), format_args!("{}", help::version()));
            return Err(ExitCode::SUCCESS);
        }
        Err(Refusal::Usage(reason)) => {
            tell(io::stderr(), format_args!("{reason}\n{}\n", help::usage()));
            return Err(ExitCode::from(2));
        }
        Err(Refusal::Plain(reason)) => {
            tell(io::stderr(), format_args!("{reason}\n"));
            return Err(ExitCode::FAILURE);
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
        Ok(_) | Err(Refusal::Usage(_) | Refusal::Plain(_)) => unreachable!("these returned above"),
    }
    Err(ExitCode::FAILURE)
}

/// Says something to whoever started the process. A reader that has gone, as behind `| head`, is no
/// reason to end otherwise than with the exit code that was meant.
fn tell(mut out: impl io::Write, text: std::fmt::Arguments<'_>) {
    drop(out.write_fmt(text));
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

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let text = |operation: &str, cause: io::Error| match cause.kind() {
        // Go's texts for the three that operators meet.
        io::ErrorKind::NotFound => format!("{operation} {path}: no such file or directory"),
        io::ErrorKind::PermissionDenied => format!("{operation} {path}: permission denied"),
        io::ErrorKind::IsADirectory => format!("{operation} {path}: is a directory"),
        _ => format!("{operation} {path}: {cause}"),
    };
    let file = File::open(path).map_err(|cause| text("open", cause))?;
    let mut bytes = Vec::new();
    let mut bounded = file.take(file::FILE_SIZE_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(|cause| text("read", cause))?;
    if bytes.len() as u64 > file::FILE_SIZE_BYTES_MAX {
        return Err(format!("read {path}: it is too large for a configuration"));
    }
    Ok(bytes)
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
