//! The table and the rules, asked through [`parse`] alone. The texts are those of etcd 3.7.1, taken
//! from its binary.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::log::{Format, LogConfig, Output, Rotation};

struct Answer {
    outcome: Result<Outcome, Refusal>,
    notices: Vec<Notice>,
}

fn ask_with(arguments: &[&str], variables: &[(&str, &str)], host: Option<IpAddr>) -> Answer {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut notices = Vec::new();
    let surroundings =
        Surroundings { variables: &variables, default_host: &|| host, ..Surroundings::NONE };
    let outcome = parse(&arguments, &surroundings, &mut notices);
    Answer { outcome, notices }
}

fn ask(arguments: &[&str]) -> Answer {
    ask_with(arguments, &[], None)
}

fn config(arguments: &[&str]) -> Config {
    match ask(arguments).outcome {
        Ok(Outcome::Run(config)) => *config,
        other => panic!("{arguments:?} came to {other:?}"),
    }
}

fn refusal(arguments: &[&str]) -> Refusal {
    match ask(arguments).outcome {
        Err(refusal) => refusal,
        Ok(other) => panic!("{arguments:?} came to {other:?}"),
    }
}

fn usage(text: &str) -> Refusal {
    Refusal::Usage(text.to_owned())
}

fn invalid(text: &str) -> Refusal {
    Refusal::Invalid(text.to_owned())
}

#[test]
fn the_defaults_are_etcds() {
    let config = config(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.wal_dir, None);
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!((config.heartbeat_interval_ms, config.election_timeout_ms), (100, 1000));
    assert_eq!(config.election_ticks(), 10);
    assert_eq!(texts(&config.listen_peer_urls), ["http://localhost:2380"]);
    assert_eq!(texts(&config.listen_client_urls), ["http://localhost:2379"]);
    assert_eq!(texts(&config.initial_advertise_peer_urls), ["http://localhost:2380"]);
    assert_eq!(texts(&config.advertise_client_urls), ["http://localhost:2379"]);
    assert_eq!(config.initial_cluster, "default=http://localhost:2380");
    assert_eq!(config.initial_cluster_state, ClusterState::New);
    assert_eq!(config.initial_cluster_token, "etcd-cluster");
    assert_eq!((config.max_txn_ops, config.max_request_bytes), (128, 1_572_864));
    assert_eq!(config.max_concurrent_streams, u32::MAX);
    assert_eq!(config.grpc_keepalive_min_time, Duration::from_secs(5));
    let (interval, timeout) = (Duration::from_secs(7200), Duration::from_secs(20));
    assert_eq!(config.grpc_keepalive(), Some(Keepalive { interval, timeout }));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(600));
    assert_eq!(config.log, LogConfig::default());
    assert_eq!(config.placement, Placement::Auto);
    assert_eq!(config.fault, FaultConfig::default());
    assert!(!config.unsafe_no_fsync);
}

#[test]
fn every_flag_has_one_definition_that_holds_together() {
    let mut names = BTreeSet::new();
    for flag in flags() {
        assert!(names.insert(flag.name), "{} is defined twice", flag.name);
        if !flag.default.is_empty() {
            assert!(flag.kind.parse(flag.default).is_ok(), "{}", flag.name);
        }
        if flag.kind != Kind::Anything {
            assert!(!flag.help.is_empty(), "{}", flag.name);
        }
    }
    // etcd 3.7.1 defines 112 flags beside --version, and ignores 15 more.
    let of_etcd = flags()
        .filter(|flag| flag.section != Section::Ringd && flag.kind != Kind::Anything)
        .filter(|flag| flag.name != "version");
    assert_eq!(of_etcd.count(), 112);
}

#[test]
fn gos_grammar_is_read() {
    let written_otherwise: [&[&str]; 5] = [
        &["--name", "n1", "--unsafe-no-fsync"],
        &["-name", "n1", "-unsafe-no-fsync"],
        &["--name=n1", "--unsafe-no-fsync=true"],
        &["--name=n0", "--unsafe-no-fsync=F", "--name=n1", "--unsafe-no-fsync=T"],
        &["--name", "n1", "--unsafe-no-fsync", "--"],
    ];
    for arguments in written_otherwise {
        let config = config(arguments);
        assert_eq!(config.name, "n1", "{arguments:?}");
        assert!(config.unsafe_no_fsync, "{arguments:?}");
        assert_eq!(config.data_dir, PathBuf::from("n1.etcd"));
    }
    // The next word is the value, whatever it looks like; and a value may hold a `=`.
    assert_eq!(config(&["--name", "--data-dir"]).name, "--data-dir");
    assert_eq!(config(&["--name=a=b"]).name, "a=b");
}

#[test]
fn slips_of_the_keyboard_get_gos_texts() {
    for (arguments, text) in [
        (&["--no-such"][..], "flag provided but not defined: -no-such"),
        (&["-no-such=1"], "flag provided but not defined: -no-such"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["-=x"], "bad flag syntax: -=x"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["--name"], "flag needs an argument: -name"),
        (
            &["--heartbeat-interval=abc"],
            "invalid value \"abc\" for flag -heartbeat-interval: parse error",
        ),
        (
            &["--heartbeat-interval=99999999999999999999"],
            "invalid value \"99999999999999999999\" for flag -heartbeat-interval: \
             value out of range",
        ),
        (&["--unsafe-no-fsync=2"], "invalid boolean value \"2\" for -unsafe-no-fsync: parse error"),
        (
            &["--client-cert-auth=maybe"],
            "invalid boolean value \"maybe\" for -client-cert-auth: parse error",
        ),
        (
            &["--max-concurrent-streams=-1"],
            "invalid value \"-1\" for flag -max-concurrent-streams: \
             strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            &["--grpc-keepalive-min-time=5"],
            "invalid value \"5\" for flag -grpc-keepalive-min-time: parse error",
        ),
        (
            &["--initial-cluster-state=foo"],
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
        ),
        (
            &["--listen-client-urls=localhost:1"],
            "invalid value \"localhost:1\" for flag -listen-client-urls: \
             URL scheme must be http, https, unix, or unixs: localhost:1",
        ),
        (
            &["--cors="],
            "invalid value \"\" for flag -cors: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            &["--cors=*,http://a:1"],
            "invalid value \"*,http://a:1\" for flag -cors: \
             URL scheme must be http, https, unix, or unixs: *",
        ),
        (
            &["--feature-gates=Foo=true"],
            "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
        ),
        (
            &["--v2-deprecation=not-yet"],
            "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
        ),
        (&["--log-level=foo"], "unrecognized level: \"foo\""),
    ] {
        assert_eq!(refusal(arguments), usage(text), "{arguments:?}");
    }
}

#[test]
fn settings_that_do_not_go_together_get_etcds_texts() {
    for (arguments, text) in [
        (&["extra"][..], "\"extra\" is not a valid flag"),
        (&["--unsafe-no-fsync", "true"], "\"true\" is not a valid flag"),
        (&["--", "foo"], "\"foo\" is not a valid flag"),
        (&["-", "foo"], "\"-\" is not a valid flag"),
        (&["-v", "3"], "\"3\" is not a valid flag"),
        (&["--version", "foo"], "\"foo\" is not a valid flag"),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--heartbeat-interval=300"],
            "--election-timeout[1000ms] should be at least as 5 times as \
             --heartbeat-interval[300ms]",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (
            &["--listen-client-urls=http://localhost:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls="],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls=http://foo:1", "--advertise-client-urls=http://foo:1"],
            "expected IP in URL for binding (http://foo:1)",
        ),
        (&["--listen-peer-urls=http://:1"], "expected IP in URL for binding (http://:1)"),
        (
            &["--initial-advertise-peer-urls=http://:1"],
            "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" \
             (unexpected empty host (http://:1))",
        ),
        (
            &["--advertise-client-urls=http://:1"],
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" \
             (unexpected empty host (http://:1))",
        ),
        (
            &["--log-outputs=stderr,systemd/journal"],
            "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \
             \"systemd/journal\"]) are configured with 'default'; override 'default' value with \
             something else",
        ),
        (&["--logger=foo"], "unknown logger option \"foo\""),
        (&["--log-format=foo"], "unknown log format: foo, supported values json, console"),
        (&["--log-outputs=default,stderr"], "multi logoutput for \"default\" is not supported yet"),
        (
            &["--log-outputs=http://x/y"],
            "open sink \"http://x/y\": no sink found for scheme \"http\"",
        ),
        (&["gateway"], "ringd has no gateway yet"),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (&["--discovery-token=x"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-endpoints=x"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            &["--discovery-endpoints=x,", "--discovery-token=t"],
            "--discovery-endpoints must not contain empty endpoints",
        ),
        (
            &["--discovery-srv=x", "--initial-cluster=n=http://localhost:1"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (&["--auto-compaction-mode=foo"], "unknown auto-compaction-mode \"foo\""),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (
            &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=-1"],
            "distributed tracing configurition is not valid: \
             (tracing sampling rate must be positive)",
        ),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
             LeaseCheckpoint",
        ),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (&["--compact-hash-check-time=-5s"], "--compact-hash-check-time must be >0 (set to -5s)"),
        (
            &["--tls-min-version=TLS1.0"],
            "unexpected TLS version \"TLS1.0\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--cipher-suites=x"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
    ] {
        assert_eq!(refusal(arguments), invalid(text), "{arguments:?}");
    }
}

#[test]
fn tls_listeners_are_refused_as_etcd_refuses_them_without_certificates() {
    assert_eq!(
        refusal(&["--listen-peer-urls=https://127.0.0.1:1"]),
        Refusal::Discovery(
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented"
                .to_owned()
        )
    );
    assert_eq!(
        refusal(&[
            "--listen-client-urls=https://127.0.0.1:1",
            "--advertise-client-urls=https://127.0.0.1:1"
        ]),
        Refusal::Discovery(
            "TLS key/cert (--cert-file, --key-file) must be provided for client url \
             https://127.0.0.1:1 with HTTPS scheme"
                .to_owned()
        )
    );
}

/// A value of the flag's kind that is neither its default nor among `also`.
fn other_value(flag: &Flag, also: &[&str]) -> Option<&'static str> {
    let candidates: &[&str] = match flag.kind {
        _ if flag.name.starts_with("tls-") => &["TLS1.3"],
        Kind::Switch => &["true", "false"],
        Kind::Choice(words) | Kind::Choices(words) => words,
        Kind::Duration => &["77s"],
        Kind::Gates => &["AllAlpha=true"],
        Kind::Urls | Kind::Origins => &["http://127.0.0.1:77"],
        _ if flag.name == "auto-compaction-mode" => &["revision"],
        _ => &["77"],
    };
    let asks = |text: &&&str| {
        let value = flag.kind.parse(text).expect("candidates are of the kind");
        !flag.asks_for_nothing(&value, also)
    };
    candidates.iter().find(asks).copied()
}

/// The promise of the table: nothing is read and then ignored.
#[test]
fn every_setting_is_served_or_refused_or_answered_with_a_reason() {
    for flag in flags() {
        let name = flag.name;
        if !flag.default.is_empty() && !matches!(flag.stand, Stand::Served) {
            let default = format!("--{name}={}", flag.default);
            assert!(matches!(ask(&[&default]).outcome, Ok(Outcome::Run(_))), "{default}");
        }
        let also: &[&str] = if let Stand::Pending(also) = flag.stand { also } else { &[] };
        let Some(other) = other_value(flag, also) else {
            assert_eq!(flag.kind, Kind::Switch, "{name}");
            continue;
        };
        if matches!(flag.stand, Stand::Special) {
            continue;
        }
        let argument = format!("--{name}={other}");
        let by_flag = ask(&[&argument]);
        // The environment is no way around it.
        let by_variable = ask_with(&[], &[(&flag.variable(), other)], None);
        for answer in [by_flag, by_variable] {
            match flag.stand {
                Stand::Pending(_) | Stand::Refused(_) => {
                    let Err(Refusal::Invalid(text)) = answer.outcome else {
                        panic!("{argument} came to {:?}", answer.outcome);
                    };
                    assert!(text.contains(name), "{argument}: {text}");
                }
                Stand::Moot(why) => {
                    assert!(matches!(answer.outcome, Ok(Outcome::Run(_))), "{argument}");
                    let told = answer.notices.iter().any(|notice| {
                        notice.fields.contains(&("flag", format!("--{name}")))
                            && notice.fields.contains(&("reason", why.to_owned()))
                    });
                    assert!(told, "{argument}: {:?}", answer.notices);
                }
                Stand::Served | Stand::Hidden | Stand::Ignored(_) | Stand::Special => {}
            }
        }
    }
    // The same value in another spelling asks for nothing, too.
    config(&["--client-cert-auth=F", "--corrupt-check-time=0", "--max-learners=0x1"]);
    config(&["--enable-grpc-gateway=false"]);
}

/// A served flag that stores nothing would be ignored in silence.
#[test]
fn every_served_flag_changes_the_configuration() {
    let shown = |config: &Config| format!("{config:?}");
    for flag in flags().filter(|flag| matches!(flag.stand, Stand::Served | Stand::Pending(_))) {
        let mut config = Config::defaults();
        let before = shown(&config);
        let text = match flag.name {
            "feature-gates" => "AllAlpha=true",
            "placement" => "log=0,shard=0,frontend=0",
            "metrics" => "extensive",
            _ => other_value(flag, &[]).expect("a served flag has several values"),
        };
        let value = flag.kind.parse(text).expect("of the kind");
        (flag.update)(&mut config, value).expect("has a meaning");
        assert_ne!(shown(&config), before, "--{}={text}", flag.name);
    }
}

#[test]
fn a_gate_is_served_or_answered_with_a_reason() {
    for gate in features::GATES {
        let setting = format!("{}={}", gate.name, !gate.default);
        // One gate asks for another, as in etcd.
        let also = "LeaseCheckpoint=true";
        let answer = ask(&[&format!("--feature-gates={also},{setting}")]);
        let Ok(Outcome::Run(config)) = answer.outcome else { panic!("{setting}") };
        assert!(config.features.lease_checkpoint(), "{setting}");
        assert!(config.features.text().contains(&setting), "{setting}");
        let told = answer.notices.iter().any(|notice| {
            notice.fields.contains(&("feature-gate", setting.clone()))
                && matches!(gate.stand, GateStand::Moot(why) if notice.fields[1].1 == why)
        });
        assert_eq!(told, gate.stand != GateStand::Served, "{setting}: {:?}", answer.notices);
    }
    assert!(!config(&[]).features.lease_checkpoint());
}

#[test]
fn ignored_flags_take_anything_and_warn() {
    for flag in flags() {
        let Stand::Ignored(warning) = flag.stand else { continue };
        let argument = format!("--{}={}", flag.name, flag.default);
        let answer = ask(&[&argument]);
        assert!(matches!(answer.outcome, Ok(Outcome::Run(_))), "{argument}");
        let (message, fields) = if flag.deprecation.is_empty() {
            (warning, vec![("flag-name", flag.name.to_owned())])
        } else {
            (flag.deprecation, Vec::new())
        };
        let expected = Notice { level: Level::Warn, message: message.to_owned(), fields };
        assert!(answer.notices.contains(&expected), "{argument}: {:?}", answer.notices);
    }
    config(&["-v", "-vv=7", "--snapshot"]);
}

#[test]
fn the_environment_sets_what_no_flag_sets() {
    let variables = [
        ("ETCD_NAME", "n1"),
        ("ETCD_UNSAFE_NO_FSYNC", "1"),
        ("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1"),
        ("ETCD_ADVERTISE_CLIENT_URLS", "http://127.0.0.1:1"),
        ("ETCD_FOO", "bar"),
        ("ETCD_DATA_DIR", ""),
        ("ETCD_VERSION", "true"),
        ("ETCDX", "1"),
        ("HOME", "/"),
    ];
    let answer = ask_with(&["--snapshot-count=7"], &variables, None);
    let Ok(Outcome::Run(config)) = answer.outcome else { panic!("{:?}", answer.outcome) };
    assert_eq!((config.name.as_str(), config.snapshot_count), ("n1", 7));
    assert!(config.unsafe_no_fsync);
    assert_eq!(config.listen_client_urls[0].port, 1);
    assert_eq!(config.data_dir, PathBuf::from("n1.etcd"));
    let of = |message: &str| -> Vec<String> {
        let with = answer.notices.iter().filter(|notice| notice.message == message);
        with.map(|notice| notice.fields[0].1.clone()).collect()
    };
    assert_eq!(of("recognized and used environment variable").len(), 4);
    assert_eq!(of("unrecognized environment variable"), ["ETCD_DATA_DIR=", "ETCD_FOO=bar"]);
    assert_eq!(of("cannot set special environment variable"), ["ETCD_VERSION"]);
}

#[test]
fn a_variable_beside_its_flag_is_fatal() {
    let shadowed = |variables: &[(&str, &str)]| ask_with(&["--name=y"], variables, None).outcome;
    let expected = Refusal::Shadowed("ETCD_NAME".to_owned());
    assert_eq!(shadowed(&[("ETCD_NAME", "x")]).unwrap_err(), expected);
    // Even an empty one, and even when another variable is wrong in itself.
    let variables = [("ETCD_HEARTBEAT_INTERVAL", "abc"), ("ETCD_NAME", "")];
    assert_eq!(shadowed(&variables).unwrap_err(), expected);
    assert_eq!(
        ask_with(&[], &variables[..1], None).outcome.unwrap_err(),
        invalid("invalid value \"abc\" for ETCD_HEARTBEAT_INTERVAL: parse error")
    );
}

#[test]
fn the_name_makes_the_initial_cluster() {
    let peers = "--initial-advertise-peer-urls=http://b:2,http://a:1";
    assert_eq!(config(&["--name=n1", peers]).initial_cluster, "n1=http://a:1,n1=http://b:2");
    // etcd leaves the default name's cluster as it is, and then finds that it does not fit.
    assert_eq!(config(&[peers]).initial_cluster, "default=http://localhost:2380");
    let given = config(&["--name=n1", peers, "--initial-cluster=x=http://c:3"]);
    assert_eq!(given.initial_cluster, "x=http://c:3");
}

#[test]
fn listening_everywhere_advertises_the_machines_address() {
    let host = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
    let arguments = [
        "--name=n1",
        "--listen-peer-urls=http://0.0.0.0:29380",
        "--listen-client-urls=http://0.0.0.0:29379",
        "--advertise-client-urls=http://localhost:2379",
    ];
    let answer = ask_with(&arguments, &[], host);
    let Ok(Outcome::Run(replaced)) = answer.outcome else { panic!("{:?}", answer.outcome) };
    assert_eq!(texts(&replaced.initial_advertise_peer_urls), ["http://192.0.2.2:29380"]);
    assert_eq!(texts(&replaced.advertise_client_urls), ["http://192.0.2.2:29379"]);
    assert_eq!(replaced.initial_cluster, "n1=http://192.0.2.2:29380");
    // Without a route, and with an address of its own, everything stays.
    let kept = config(&arguments);
    assert_eq!(texts(&kept.initial_advertise_peer_urls), ["http://localhost:2380"]);
    let own = ["--listen-peer-urls=http://0.0.0.0:1", "--initial-advertise-peer-urls=http://a:1"];
    let Ok(Outcome::Run(own)) = ask_with(&own, &[], host).outcome else { panic!() };
    assert_eq!(texts(&own.initial_advertise_peer_urls), ["http://a:1"]);
}

#[test]
fn retentions_are_read_as_etcd_reads_them() {
    let read = |mode: &str, retention: &str| {
        let mut config = Config::defaults();
        config.raw.compaction_mode = mode.to_owned();
        config.raw.compaction_retention = retention.to_owned();
        check::auto_compaction(&config)
    };
    let hours = |count: u64| AutoCompaction::Periodic(Duration::from_secs(3_600 * count));
    assert_eq!(read("periodic", "0"), Ok(AutoCompaction::Off));
    assert_eq!(read("periodic", ""), Ok(AutoCompaction::Off));
    assert_eq!(read("periodic", "5"), Ok(hours(5)));
    assert_eq!(read("periodic", "120m"), Ok(hours(2)));
    assert_eq!(read("revision", "1000"), Ok(AutoCompaction::Revision(1000)));
    assert_eq!(read("revision", "1us"), Ok(AutoCompaction::Revision(1000)));
    for (text, reason) in [
        ("1d", "time: unknown unit \"d\" in duration \"1d\""),
        ("-5", "time: missing unit in duration \"-5\""),
        ("abc", "time: invalid duration \"abc\""),
    ] {
        let expected = Refusal::Discovery(format!("error parsing CompactionRetention: {reason}"));
        assert_eq!(read("periodic", text), Err(expected));
    }
    assert!(matches!(read("periodic", "-5h"), Err(Refusal::Discovery(_))));
}

#[test]
fn zero_and_less_mean_what_they_mean_to_etcd() {
    let off = config(&["--grpc-keepalive-interval=0s"]);
    assert_eq!(off.grpc_keepalive(), None);
    assert_eq!(config(&["--grpc-keepalive-timeout=-5s"]).grpc_keepalive(), None);
    let min_time = config(&["--grpc-keepalive-min-time=0"]).grpc_keepalive_min_time;
    assert_eq!(min_time, Duration::from_secs(300));
    assert_eq!(config(&["--max-concurrent-streams=0"]).max_concurrent_streams, u32::MAX);
    let progress = |argument| config(&[argument]).watch_progress_notify_interval;
    assert_eq!(progress("--watch-progress-notify-interval=0"), Duration::from_secs(600));
    assert_eq!(progress("--watch-progress-notify-interval=1ms"), Duration::from_millis(100));
    assert_eq!(progress("--watch-progress-notify-interval=7s"), Duration::from_secs(7));
    assert_eq!(config(&["--wal-dir="]).wal_dir, None);
}

#[test]
fn the_log_goes_where_it_is_told() {
    let log = config(&["--log-outputs=stdout,file:///a/b,x.log", "--log-level=ERROR"]).log;
    assert_eq!(log.level, Level::Error);
    let file = |path: &str| Output::File(PathBuf::from(path));
    assert_eq!(log.outputs, [file("/a/b"), Output::Stdout, file("x.log")]);
    assert_eq!(config(&["--log-format=console"]).log.format, Format::Console);
}

#[test]
fn log_files_are_rotated_as_told() {
    let with = |json: &str, outputs: &str| {
        let json = format!("--log-rotation-config-json={json}");
        let outputs = format!("--log-outputs={outputs}");
        match ask(&["--enable-log-rotation", &json, &outputs]).outcome {
            Ok(Outcome::Run(config)) => Ok(config.log.rotation.expect("it is on")),
            Err(Refusal::Invalid(text)) => Err(text),
            other => panic!("{json} came to {other:?}"),
        }
    };
    let json = "{\"maxsize\": 7, \"MaxAge\": 2, \"maxbackups\": 3, \"compress\": true}";
    let told = Rotation { size_mebibytes_max: 7, age_days_max: 2, backups_max: 3, compress: true };
    assert_eq!(with(json, "x.log,stderr"), Ok(told));
    let own =
        Rotation { size_mebibytes_max: 100, age_days_max: 0, backups_max: 0, compress: false };
    assert_eq!(with("{}", "x.log"), Ok(own));
    assert_eq!(config(&["--log-rotation-config-json=x"]).log.rotation, None);
    // Recorded from etcd 3.7.1.
    let single = "--log-outputs requires a single file path when --log-rotate-config-json is \
                  defined";
    assert_eq!(with("{}", "stderr"), Err(single.to_owned()));
    assert_eq!(with("{}", "a.log,b.log"), Err(single.to_owned()));
    let improper = "improperly formatted log rotation config: \
                    invalid character 'x' looking for beginning of value";
    assert_eq!(with("x", "a.log"), Err(improper.to_owned()));
    let wrong = "invalid log rotation config: json: cannot unmarshal string into Go struct field \
                 logRotationConfig.Logger.maxsize of type int";
    assert_eq!(with("{\"maxsize\": \"x\"}", "a.log"), Err(wrong.to_owned()));
    for json in ["{\"compress\": 1}", "{\"localtime\": true}", "{"] {
        assert!(with(json, "a.log").unwrap_err().contains("log rotation config"), "{json}");
    }
}

#[test]
fn faults_and_placement_reach_the_configuration() {
    let faulty = config(&["--fault-sync-delay=20ms", "--fault-sync-fail-after=0"]);
    assert_eq!(faulty.fault.sync_delay, Duration::from_millis(20));
    assert_eq!(faulty.fault.sync_fail_after, Some(0));
    let placed = config(&["--placement=log=0,shard=0,frontend=0-1"]).placement;
    let expected = Placement::Cores { log: 0, shards: vec![0], frontends: vec![0, 1] };
    assert_eq!(placed, expected);
    assert!(matches!(refusal(&["--placement=everywhere"]), Refusal::Invalid(_)));
}

#[test]
fn requests_have_a_largest_size() {
    config(&["--max-request-bytes=1073741824"]);
    assert!(matches!(refusal(&["--max-request-bytes=1073741825"]), Refusal::Invalid(_)));
    let warned = ask(&["--name=n", "--max-request-bytes=10485761"]).notices;
    assert_eq!(warned[0].message, "exceeded recommended request limit");
    assert_eq!(ask(&["--name=n", "--max-request-bytes=10485760"]).notices, []);
    let warned = ask(&["--name=n", "--max-request-bytes=31457281"]).notices;
    assert_eq!(warned[1].message, "requests that write are refused beyond a lower limit");
}

#[test]
fn a_connection_has_a_largest_count_of_streams() {
    let warned = ask(&["--name=n", "--max-concurrent-streams=65537"]).notices;
    assert_eq!(warned[0].message, "a connection has fewer streams than were asked for");
    for streams in ["65536", "0", "4294967295"] {
        let flag = format!("--max-concurrent-streams={streams}");
        assert_eq!(ask(&["--name=n", &flag]).notices, [], "{streams}");
    }
}

#[test]
fn help_lists_every_flag_but_the_hidden() {
    assert!(matches!(ask(&["--help"]).outcome, Ok(Outcome::Help)));
    assert!(matches!(ask(&["-h"]).outcome, Ok(Outcome::Help)));
    assert!(matches!(ask(&["--help=true"]).outcome, Ok(Outcome::Help)));
    let text = help::flags_text();
    for flag in flags() {
        let line = format!("\n  --{} '", flag.name);
        let shown = !matches!(flag.stand, Stand::Hidden) && flag.kind != Kind::Anything;
        assert_eq!(text.contains(&line), shown, "{}", flag.name);
    }
    assert!(!text.contains("--fault"));
}

#[test]
fn the_version_has_four_lines_that_scripts_can_cut() {
    assert!(matches!(ask(&["--version"]).outcome, Ok(Outcome::Version)));
    assert!(matches!(ask(&["-version=false"]).outcome, Ok(Outcome::Run(_))));
    let text = help::version();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    assert!(lines.iter().all(|line| line.contains(": ")), "{text}");
}

#[test]
fn connections_to_members_leave_from_the_first_address_that_others_can_reach() {
    const GATE: &str = "--feature-gates=SetMemberLocalAddr=true";
    let found = |urls: &str, gate: &[&str]| {
        let peers = format!("--initial-advertise-peer-urls={urls}");
        let cluster = format!(
            "--initial-cluster={}",
            urls.split(',').map(|url| format!("default={url}")).collect::<Vec<_>>().join(",")
        );
        let arguments: Vec<&str> = [&*peers, &*cluster].into_iter().chain(gate.to_vec()).collect();
        config(&arguments).member_local_address().map(|address| address.to_string())
    };
    let urls = "http://127.0.0.1:1,http://name:2,http://10.0.0.5:3,http://10.0.0.6:4";
    assert_eq!(found(urls, &[GATE]).as_deref(), Some("10.0.0.5"));
    assert_eq!(found(urls, &[]), None);
    assert_eq!(found("http://[::1]:1,http://0.0.0.0:2", &[GATE]), None);
}
