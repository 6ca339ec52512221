//! The command line by the grammar of Go's `flag` package, then the environment by etcd's rules.
//!
//! Why not clap, which the tools of this repository use: Go's grammar (`-name`, `--name`,
//! `--switch=false`, a switch never takes the next word, the last of several wins) would have to be
//! translated before clap sees it, and then its values, its errors, its exit codes, its help and
//! its environment would each have to be replaced to be etcd's. The grammar is one function.

use std::collections::{BTreeMap, BTreeSet};

use super::flag::{Flag, Kind, Value};
use super::value::ValueError;
use super::{Notice, Refusal, flag_named, flags};
use crate::log::Level;

/// What the command line and the environment set, by flag.
#[derive(Debug, Default)]
pub struct Settings {
    /// Values by the flag's name.
    pub values: BTreeMap<&'static str, Value>,
    /// They come from a file: some rules are the command line's alone.
    pub from_file: bool,
    /// `--version` was there and on.
    pub version: bool,
}

/// What a command line came to.
#[derive(Debug)]
pub enum Arguments {
    /// Settings, and what an operator should be told.
    Settings(Settings),
    /// `--help` was there.
    Help,
}

/// Reads the arguments after the program's name.
pub fn parse_arguments(arguments: &[String]) -> Result<Arguments, Refusal> {
    let mut settings = Settings::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
            return Err(stray(argument));
        };
        if body == "-" {
            // Two dashes end the flags, and etcd has nothing but flags.
            return rest
                .next()
                .map_or(Ok(()), |word| Err(stray(word)))
                .map(|()| Arguments::Settings(settings));
        }
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.starts_with(['-', '=']) {
            return Err(Refusal::Usage(format!("bad flag syntax: {argument}")));
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = flag_named(name) else {
            if matches!(name, "help" | "h") {
                return Ok(Arguments::Help);
            }
            return Err(Refusal::Usage(format!("flag provided but not defined: -{name}")));
        };
        let text = match inline {
            Some(text) => text,
            None if flag.kind.is_switch() => "true",
            None => match rest.next() {
                Some(text) => text,
                None => return Err(Refusal::Usage(format!("flag needs an argument: -{name}"))),
            },
        };
        let value = flag.kind.parse(text).map_err(|error| wrong_value(flag, text, &error))?;
        settings.values.insert(flag.name, value);
    }
    settings.version = settings.values.get("version") == Some(&Value::Switch(true));
    Ok(Arguments::Settings(settings))
}

fn stray(word: &str) -> Refusal {
    Refusal::Invalid(format!("{word:?} is not a valid flag"))
}

fn wrong_value(flag: &Flag, text: &str, error: &ValueError) -> Refusal {
    let name = flag.name;
    Refusal::Usage(match flag.kind {
        Kind::Switch => format!("invalid boolean value {text:?} for -{name}: {error}"),
        _ => format!("invalid value {text:?} for flag -{name}: {error}"),
    })
}

/// Adds what the environment sets to what the command line has set.
///
/// `variables` is the whole environment; only names that begin with `ETCD_` are looked at.
pub fn add_environment(
    settings: &mut Settings,
    variables: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Result<(), Refusal> {
    let set: BTreeMap<&str, &str> = variables
        .iter()
        .filter(|(variable, _)| variable.starts_with("ETCD_"))
        .map(|(variable, text)| (variable.as_str(), text.as_str()))
        .collect();
    let mut by_name: Vec<&Flag> = flags().collect();
    by_name.sort_unstable_by_key(|flag| flag.name);
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut refusal = None;
    let mut shadowed = BTreeSet::new();
    for flag in by_name {
        let name = flag.variable();
        let Some((&variable, &text)) = set.get_key_value(name.as_str()) else { continue };
        if flag.name == "version" && !text.is_empty() {
            used.insert(variable);
            let fields = vec![("key", name), ("value", text.to_owned())];
            let message = "cannot set special environment variable".to_owned();
            notices.push(Notice { level: Level::Warn, message, fields });
            continue;
        }
        if settings.values.contains_key(flag.name) {
            shadowed.insert(variable);
            continue;
        }
        // Set but empty is not set, in etcd; it only remarks on it.
        if text.is_empty() {
            continue;
        }
        used.insert(variable);
        match flag.kind.parse(text) {
            Ok(value) => {
                settings.values.insert(flag.name, value);
                let message = "recognized and used environment variable".to_owned();
                let fields = vec![("variable-name", name), ("variable-value", text.to_owned())];
                notices.push(Notice { level: Level::Info, message, fields });
            }
            // The last of several mistakes is told, and a shadowed variable wins over all.
            Err(error) => {
                let text = format!("invalid value {text:?} for {name}: {error}");
                refusal = Some(Refusal::Invalid(text));
            }
        }
    }
    for (&variable, &text) in set.iter().filter(|(variable, _)| !used.contains(*variable)) {
        if shadowed.contains(variable) {
            return Err(Refusal::Shadowed(variable.to_owned()));
        }
        let message = "unrecognized environment variable".to_owned();
        let fields = vec![("environment-variable", format!("{variable}={text}"))];
        notices.push(Notice { level: Level::Warn, message, fields });
    }
    refusal.map_or(Ok(()), Err)
}
