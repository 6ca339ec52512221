//! `--config-file`: a YAML or JSON file instead of flags and environment, by etcd's rules.
//!
//! The file's keys are those of the table. Types are strict where the command line is not, because
//! etcd's file is read by a JSON decoder: a time is a number of nanoseconds, a switch is no text, a
//! list of outputs is a list. The decoder's complaints are kept to the letter. What etcd skips in
//! silence, a key that nobody knows, gets a line here.

use std::collections::BTreeMap;

use super::flag::{FileKey, Flag, Kind, Value};
use super::parse::Settings;
use super::value::ValueError;
use super::yaml::{self, Node};
use super::{Notice, Refusal, flags};
use crate::log::Level;

/// No configuration is larger; a file that is, is a mistake.
pub const FILE_SIZE_BYTES_MAX: u64 = 1024 * 1024;

/// From here on the decoder's input has an exponent, and then it is no whole number to it.
const WRITTEN_WHOLE_MAX: f64 = 1e21;

/// Of etcd's two structures one holds what is translated after decoding; its complaints name it.
const TRANSLATED: [&str; 10] = [
    "listen-peer-urls",
    "listen-client-urls",
    "listen-client-http-urls",
    "initial-advertise-peer-urls",
    "advertise-client-urls",
    "cors",
    "host-whitelist",
    "client-transport-security",
    "peer-transport-security",
    "feature-gates",
];

/// Reads a file's content.
pub fn read(bytes: &[u8], notices: &mut Vec<Notice>) -> Result<Settings, Refusal> {
    let invalid = |text: String| Refusal::Invalid(text);
    let text = std::str::from_utf8(bytes)
        .map_err(|_| invalid("error converting YAML to JSON: yaml: invalid UTF-8".to_owned()))?;
    let root = yaml::parse(text)
        .map_err(|error| invalid(format!("error converting YAML to JSON: {error}")))?;
    let map = match root {
        Node::Map(map) => map,
        Node::Null => BTreeMap::new(),
        other => {
            let what = kind_of(&other);
            return Err(json_error(what, "value of type embed.configYAML"));
        }
    };
    let mut found = Vec::new();
    let mut path = Vec::new();
    collect(&map, &mut path, &mut found, notices)?;
    if matches!(lookup(&map, "peer-transport-security"), Some(Node::Null)) {
        return Err(invalid("invalid peer-transport-security".to_owned()));
    }
    let mut settings = Settings { from_file: true, ..Settings::default() };
    for flag in flags() {
        // The decoder stores each as it comes: of several spellings of one key the last wins.
        let Some((_, raw)) = found.iter().rev().find(|(of, _)| of.name == flag.name) else {
            continue;
        };
        if let Some(value) = interpret(flag, raw)? {
            settings.values.insert(flag.name, value);
        }
    }
    Ok(settings)
}

/// What a decoder made of a value, before its meaning is looked at.
#[derive(Clone, Debug)]
enum Decoded {
    Text(String),
    Texts(Vec<String>),
    Value(Value),
}

type Found = (&'static Flag, Decoded);

/// Decodes all that the table knows, in the order of the keys, as the decoder's input is sorted.
fn collect(
    map: &BTreeMap<String, Node>,
    path: &mut Vec<String>,
    found: &mut Vec<Found>,
    notices: &mut Vec<Notice>,
) -> Result<(), Refusal> {
    for (key, node) in map {
        // The decoder does not care about the case of a key.
        path.push(key.to_ascii_lowercase());
        if let Some(flag) = flags().find(|flag| is_at(flag, path)) {
            if let Some(decoded) = decode(flag, path, node)? {
                found.push((flag, decoded));
            }
        } else if flags().any(|flag| is_below(flag, path)) {
            match node {
                Node::Map(inner) => collect(inner, path, found, notices)?,
                Node::Null => {}
                other => return Err(type_error(kind_of(other), path, group_type(path))),
            }
        } else {
            notices.push(Notice {
                level: Level::Warn,
                message: "ignoring an unknown key of the configuration file".to_owned(),
                fields: vec![("key", path.join("."))],
            });
        }
        path.pop();
    }
    Ok(())
}

fn is_at(flag: &Flag, path: &[String]) -> bool {
    match flag.file_key {
        FileKey::Name => path.len() == 1 && path[0] == flag.name,
        FileKey::Path(keys) => path.iter().eq(keys),
        FileKey::Nowhere => false,
    }
}

fn is_below(flag: &Flag, path: &[String]) -> bool {
    matches!(flag.file_key, FileKey::Path(keys)
        if keys.len() > path.len() && path.iter().zip(keys).all(|(a, b)| a == b))
}

fn lookup<'a>(map: &'a BTreeMap<String, Node>, key: &str) -> Option<&'a Node> {
    map.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, node)| node)
}

fn decode(flag: &'static Flag, path: &[String], node: &Node) -> Result<Option<Decoded>, Refusal> {
    let wrong = |what: &str| type_error(what, path, go_type(flag));
    let decoded = match (flag.kind, node) {
        (_, Node::Null) => return Ok(None),
        (Kind::Switch, Node::Switch(switch)) => Decoded::Value(Value::Switch(*switch)),
        (Kind::Unsigned | Kind::Unsigned32, Node::Integer(_) | Node::Float(_)) => {
            let number = integer(node).and_then(|number| u64::try_from(number).ok());
            let fits = |number: &u64| flag.kind == Kind::Unsigned || u32::try_from(*number).is_ok();
            let number = number.filter(fits).ok_or_else(|| wrong(&number_text(node)))?;
            Decoded::Value(Value::Unsigned(number))
        }
        (Kind::Signed | Kind::Duration, Node::Integer(_) | Node::Float(_)) => {
            let number = integer(node).and_then(|number| i64::try_from(number).ok());
            Decoded::Value(Value::Signed(number.ok_or_else(|| wrong(&number_text(node)))?))
        }
        (Kind::List | Kind::Set, Node::List(nodes)) => {
            let texts = nodes.iter().map(|node| match node {
                Node::Text(text) => Ok(text.clone()),
                Node::Null => Ok(String::new()),
                other => Err(type_error(kind_of(other), path, "string")),
            });
            Decoded::Texts(texts.collect::<Result<_, _>>()?)
        }
        (
            Kind::Switch
            | Kind::Unsigned
            | Kind::Unsigned32
            | Kind::Signed
            | Kind::Duration
            | Kind::List
            | Kind::Set,
            other,
        ) => return Err(wrong(kind_of(other))),
        (_, Node::Text(text)) => Decoded::Text(text.clone()),
        (_, other) => return Err(wrong(kind_of(other))),
    };
    Ok(Some(decoded))
}

/// The meaning of what was decoded; `None` leaves the default.
fn interpret(flag: &Flag, decoded: &Decoded) -> Result<Option<Value>, Refusal> {
    let text = match decoded {
        Decoded::Value(value) => return Ok(Some(value.clone())),
        Decoded::Texts(texts) if texts.is_empty() => return Ok(None),
        Decoded::Texts(texts) => return Ok(Some(Value::Texts(texts.clone()))),
        Decoded::Text(text) => text,
    };
    let translated = matches!(
        flag.kind,
        Kind::Urls | Kind::Origins | Kind::SetInline | Kind::Gates | Kind::Choice(_)
    );
    if text.is_empty() && translated {
        return Ok(None);
    }
    match flag.kind.parse(text) {
        Ok(value) => Ok(Some(value)),
        // Without effect in etcd, too, and so it is not looked at.
        Err(_) if matches!(flag.kind, Kind::Choices(_)) => {
            Ok(Some(Value::Texts(vec![text.clone()])))
        }
        Err(error) => Err(meaningless(flag, text, &error)),
    }
}

fn meaningless(flag: &Flag, text: &str, error: &ValueError) -> Refusal {
    let name = match flag.name {
        // etcd's own slip.
        "advertise-client-urls" => "advertise-peer-urls",
        name => name,
    };
    match flag.kind {
        Kind::Urls => Refusal::Plain(format!("unexpected error setting up {name}: {error}")),
        Kind::Choice(_) => Refusal::Invalid(format!("unexpected clusterState {text:?}")),
        Kind::Gates => Refusal::Invalid(error.to_string()),
        _ => Refusal::Invalid(format!("invalid value {text:?} for {name}: {error}")),
    }
}

fn integer(node: &Node) -> Option<i128> {
    match node {
        Node::Integer(number) => Some(*number),
        // The conversion is exact: the number is whole and far inside the range.
        #[expect(clippy::cast_possible_truncation)]
        Node::Float(number) if number.fract() == 0.0 && number.abs() < WRITTEN_WHOLE_MAX => {
            Some(*number as i128)
        }
        _ => None,
    }
}

/// What the decoder calls a value that should have been a whole number.
pub fn number_text(node: &Node) -> String {
    match node {
        Node::Integer(number) => format!("number {number}"),
        // As the decoder's input has it: with an exponent from here on.
        Node::Float(number) if number.abs() >= WRITTEN_WHOLE_MAX => {
            format!("number {}", format!("{number:e}").replace('e', "e+"))
        }
        Node::Float(number) => format!("number {number}"),
        other => kind_of(other).to_owned(),
    }
}

/// What JSON calls a value.
pub fn kind_of(node: &Node) -> &'static str {
    match node {
        Node::Null => "null",
        Node::Switch(_) => "bool",
        Node::Integer(_) | Node::Float(_) => "number",
        Node::Text(_) => "string",
        Node::List(_) => "array",
        Node::Map(_) => "object",
    }
}

fn go_type(flag: &Flag) -> &'static str {
    match flag.kind {
        Kind::Switch => "bool",
        Kind::Unsigned if flag.name.starts_with("snapshot-") => "uint64",
        Kind::Unsigned => "uint",
        Kind::Unsigned32 => "uint32",
        Kind::Signed if flag.name == "quota-backend-bytes" => "int64",
        Kind::Signed => "int",
        Kind::Duration => "time.Duration",
        Kind::List | Kind::Set => "[]string",
        Kind::Choices(_) => "config.V2DeprecationEnum",
        _ => "string",
    }
}

fn group_type(path: &[String]) -> &'static str {
    match path.last().map_or("", String::as_str) {
        "client" => "clientv3.ConfigSpec",
        "secure" => "clientv3.SecureConfig",
        "auth" => "clientv3.AuthConfig",
        "discovery-config" => "v3discovery.DiscoveryConfig",
        "socket-options" => "transport.SocketOpts",
        _ => "embed.securityConfig",
    }
}

fn type_error(what: &str, path: &[String], go_type: &str) -> Refusal {
    let group = match path.len() {
        1 => "configYAML",
        _ => group_type(&path[..path.len() - 1]).rsplit('.').next().unwrap_or_default(),
    };
    let structure = if TRANSLATED.contains(&&*path[0]) { "configJSON" } else { "Config" };
    let field = path.join(".");
    json_error(what, &format!("struct field {group}.{structure}.{field} of type {go_type}"))
}

fn json_error(what: &str, place: &str) -> Refusal {
    let reason = format!("json: cannot unmarshal {what} into Go {place}");
    Refusal::Invalid(format!("error unmarshaling JSON: while decoding JSON: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Outcome, Surroundings, parse, texts};

    const PATH: &str = "ringd.yaml";

    struct Answer {
        outcome: Result<Config, Refusal>,
        messages: Vec<String>,
    }

    fn ask_with(content: &str, more: &[&str], variables: &[(String, String)]) -> Answer {
        let mut arguments = vec!["--config-file".to_owned(), PATH.to_owned()];
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        let read_file = |path: &str| {
            assert_eq!(path, PATH);
            Ok(content.as_bytes().to_vec())
        };
        let surroundings = Surroundings { variables, read_file: &read_file, ..Surroundings::NONE };
        let mut notices = Vec::new();
        let outcome = parse(&arguments, &surroundings, &mut notices).map(|outcome| match outcome {
            Outcome::Run(config) => *config,
            other => panic!("{content:?} came to {other:?}"),
        });
        Answer { outcome, messages: notices.into_iter().map(|notice| notice.message).collect() }
    }

    fn config(content: &str) -> Config {
        ask_with(content, &[], &[]).outcome.unwrap_or_else(|error| panic!("{content:?}: {error:?}"))
    }

    /// Recorded from etcd 3.7.1, each behind `name: m1`.
    #[test]
    fn what_does_not_decode_gets_the_decoders_text() {
        const FIELD: &str = "Go struct field ";
        for (content, what, field) in [
            ("name: n", "bool", "configYAML.Config.name of type string"),
            ("name: 123", "number", "configYAML.Config.name of type string"),
            ("name: 1.50", "number", "configYAML.Config.name of type string"),
            ("name: [a]", "array", "configYAML.Config.name of type string"),
            (
                "heartbeat-interval: \"100\"",
                "string",
                "configYAML.Config.heartbeat-interval of type uint",
            ),
            (
                "heartbeat-interval: 1.5",
                "number 1.5",
                "configYAML.Config.heartbeat-interval of type uint",
            ),
            (
                "heartbeat-interval: -1",
                "number -1",
                "configYAML.Config.heartbeat-interval of type uint",
            ),
            (
                "heartbeat-interval: x\nelection-timeout: z",
                "string",
                "configYAML.Config.election-timeout of type uint",
            ),
            (
                "grpc-keepalive-min-time: 5s",
                "string",
                "configYAML.Config.grpc-keepalive-min-time of type time.Duration",
            ),
            (
                "strict-reconfig-check: \"true\"",
                "string",
                "configYAML.Config.strict-reconfig-check of type bool",
            ),
            (
                "heartbeat-interval: 1e30",
                "number 1e+30",
                "configYAML.Config.heartbeat-interval of type uint",
            ),
            (
                "v2-deprecation: 5",
                "number",
                "configYAML.Config.v2-deprecation of type config.V2DeprecationEnum",
            ),
            (
                "discovery-config: {client: {secure: {cert: 5}}}",
                "number",
                "SecureConfig.Config.discovery-config.client.secure.cert of type string",
            ),
            ("log-outputs: stderr", "string", "configYAML.Config.log-outputs of type []string"),
            ("log-outputs: [stderr, 5]", "number", "configYAML.Config.log-outputs of type string"),
            (
                "quota-backend-bytes: 99999999999999999999",
                "number 100000000000000000000",
                "configYAML.Config.quota-backend-bytes of type int64",
            ),
            (
                "max-concurrent-streams: 4294967296",
                "number 4294967296",
                "configYAML.Config.max-concurrent-streams of type uint32",
            ),
            (
                "auto-compaction-retention: 1",
                "number",
                "configYAML.Config.auto-compaction-retention of type string",
            ),
            (
                "client-transport-security: 5",
                "number",
                "configYAML.configJSON.client-transport-security of type embed.securityConfig",
            ),
            (
                "peer-transport-security: {cert-file: 5}",
                "number",
                "securityConfig.configJSON.peer-transport-security.cert-file of type string",
            ),
            (
                "client-transport-security: {auto-tls: x}",
                "string",
                "securityConfig.configJSON.client-transport-security.auto-tls of type bool",
            ),
            (
                "socket-options: {reuse-port: 5}",
                "number",
                "SocketOpts.Config.socket-options.reuse-port of type bool",
            ),
        ] {
            let reason = format!("json: cannot unmarshal {what} into {FIELD}{field}");
            let text = format!("error unmarshaling JSON: while decoding JSON: {reason}");
            let answer = ask_with(&format!("name: m1\n{content}\n"), &[], &[]);
            assert_eq!(answer.outcome.unwrap_err(), Refusal::Invalid(text), "{content}");
        }
    }

    #[test]
    fn what_does_not_go_together_gets_etcds_text() {
        for (content, text) in [
            (
                "- a",
                "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into \
                 Go value of type embed.configYAML",
            ),
            (
                "log-outputs: [default, stderr]",
                "multi logoutput for \"default\" is not supported yet",
            ),
            ("feature-gates: Foo=true", "unrecognized feature gate: Foo"),
            (
                "feature-gates: LeaseCheckpointPersist=true",
                "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                 LeaseCheckpoint",
            ),
            ("initial-cluster-state: foo", "unexpected clusterState \"foo\""),
            ("peer-transport-security: ", "invalid peer-transport-security"),
            ("compact-hash-check-time: 0", "--compact-hash-check-time must be >0 (set to 0s)"),
            (
                "discovery-config: {token: x}",
                "both --discovery-token and --discovery-endpoints must be set",
            ),
            (
                "initial-cluster: m1=http://a:1\ndiscovery-config: {client: {endpoints: [a]}}",
                "multiple discovery or bootstrap flags are set. Choose one of \
                 \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
            ),
        ] {
            let outcome = ask_with(content, &[], &[]).outcome;
            assert_eq!(outcome.unwrap_err(), Refusal::Invalid(text.to_owned()), "{content}");
        }
        let text = "unexpected error setting up listen-metrics-urls: \
                    URL scheme must be http, https, unix, or unixs: foo";
        let outcome = ask_with("listen-metrics-urls: foo", &[], &[]).outcome;
        assert_eq!(outcome.unwrap_err(), Refusal::Plain(text.to_owned()));
        let Refusal::Invalid(text) = ask_with("a: [1", &[], &[]).outcome.unwrap_err() else {
            panic!("broken YAML is invalid")
        };
        assert!(text.starts_with("error converting YAML to JSON: yaml: line "), "{text}");
    }

    #[test]
    fn a_file_is_read_by_etcds_rules() {
        let content = "\
            NAME: m1\n\
            heartbeat-interval: 1e2\n\
            election-timeout: 1500.0\n\
            max-request-bytes: 1_000_000\n\
            snapshot-count: null\n\
            grpc-keepalive-min-time: 1.5e9\n\
            listen-client-urls: http://127.0.0.1:2,http://127.0.0.1:1\n\
            unsafe-no-fsync: yes\n\
            log-outputs: [stdout, x.log]\n\
            socket-options: {reuse-port: true}\n\
            initial-cluster-state: \n\
            cors: ''\n";
        let config = config(content);
        assert_eq!(config.name, "m1");
        assert_eq!((config.heartbeat_interval_ms, config.election_timeout_ms), (100, 1500));
        assert_eq!((config.max_request_bytes, config.snapshot_count), (1_000_000, 10_000));
        assert_eq!(config.grpc_keepalive_min_time, Duration::from_millis(1500));
        let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
        assert_eq!(texts(&config.listen_client_urls), urls);
        // The command line would ask for addresses to advertise.
        assert_eq!(texts(&config.advertise_client_urls), ["http://localhost:2379"]);
        assert!(config.unsafe_no_fsync && config.socket_reuse_port);
        assert_eq!(config.log.outputs.len(), 2);
        assert_eq!(config.cors, ["*"]);
        assert_eq!(config.initial_cluster, "m1=http://localhost:2380");
    }

    #[test]
    fn flags_and_environment_are_ignored_beside_a_file() {
        let variables = [("ETCD_NAME", "x"), ("ETCD_FOO", "y"), ("ETCD_SNAPSHOT_COUNT", "abc")]
            .map(|(name, text)| (name.to_owned(), text.to_owned()));
        let answer =
            ask_with("name: m1\nfoo-bar: 3\nraft-read-timeout: 5\n", &["--name=z"], &variables);
        assert_eq!(answer.outcome.unwrap().name, "m1");
        let loaded = "loaded server configuration, other configuration command line flags and \
                      environment variables will be ignored if provided";
        let unknown = "ignoring an unknown key of the configuration file";
        assert_eq!(answer.messages, [unknown, unknown, loaded]);
        // The variable names a file, too, but no flag may name another.
        let by_variable = [("ETCD_CONFIG_FILE".to_owned(), "elsewhere".to_owned())];
        let mut notices = Vec::new();
        let surroundings = Surroundings { variables: &by_variable, ..Surroundings::NONE };
        let refusal = parse(&[], &surroundings, &mut notices).unwrap_err();
        let text = "open elsewhere: no such file or directory".to_owned();
        assert_eq!(refusal, Refusal::Invalid(text));
        assert_eq!(ask_with("name: m1", &[], &by_variable).outcome.unwrap().name, "m1");
    }

    /// A file is no way around what the table says of a flag.
    #[test]
    fn what_is_not_served_is_refused_in_a_file_too() {
        for (content, name) in [
            ("client-transport-security: {cert-file: x}", "--cert-file"),
            ("peer-transport-security: {allowed-cn: [x]}", "--peer-cert-allowed-cn"),
            ("auth-token: jwt", "--auth-token"),
            ("enable-pprof: on", "--enable-pprof"),
        ] {
            let Refusal::Invalid(text) = ask_with(content, &[], &[]).outcome.unwrap_err() else {
                panic!("{content}")
            };
            assert!(text.starts_with(name), "{content}: {text}");
        }
        let moot = ask_with("name: m1\nmax-snapshots: 7\n", &[], &[]);
        assert!(moot.outcome.is_ok());
        let deprecated = "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.";
        assert!(moot.messages.iter().any(|message| message == deprecated));
        assert!(moot.messages.iter().any(|message| message == "a setting has no effect in ringd"));
        let old = ask_with("name: m1\nv2-deprecation: foo\n", &[], &[]);
        assert!(
            old.messages[0].starts_with("--v2-deprecation is deprecated"),
            "{:?}",
            old.messages
        );
    }

    #[test]
    fn every_flag_of_the_table_can_be_set_in_a_file_or_says_that_it_cannot() {
        let mut places = BTreeMap::new();
        for flag in flags() {
            let place = match flag.file_key {
                FileKey::Name => flag.name.to_owned(),
                FileKey::Path(keys) => keys.join("."),
                FileKey::Nowhere => continue,
            };
            assert!(places.insert(place, flag.name).is_none(), "{} shares its place", flag.name);
        }
        assert!(!places.contains_key("config-file"));
    }
}
