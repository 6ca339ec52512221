//! The page against what etcd tells, and against who reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::Activity;
use engine::alarm::{Alarm, AlarmKind};
use engine::command::CommandKind;
use engine::ids::MemberId;

use super::cell::Bounds;
use super::health::CHECKS;
use super::peers::CountedStore;
use super::promotions::PromotionFailure;
use super::*;

const FAMILIES: &str = include_str!("families.txt");
const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// A family as a scraper sees it.
#[derive(Debug, Default, PartialEq)]
struct Scraped {
    kind: String,
    labels: BTreeSet<String>,
    bounds: Vec<String>,
    values: BTreeMap<String, f64>,
}

fn method(name: &'static str, bounds: Option<Bounds>) -> MethodName {
    let service = "etcdserverpb.KV";
    MethodName { service, method: name, kind: MethodType::Unary, request: Some(name), bounds }
}

fn metrics(frontends: usize) -> Metrics {
    let bounds = |first, count| Some(Bounds::Doubling { first, count });
    let fixed = Fixed {
        member: 0xabc,
        server_version: "3.7.1",
        toolchain: "rust1.95",
        quota_bytes: 2 << 30,
        features: vec![("LeaseCheckpoint", "ALPHA", false)],
        methods: vec![
            method("Put", None),
            method("Range", bounds(100_000, 20)),
            method("Hash", bounds(10_000_000, 15)),
            method("HashKV", bounds(10_000_000, 15)),
        ],
        is_extensive: true,
    };
    Metrics::new(fixed, frontends, Arc::default())
}

fn sample() -> Sample {
    let cluster_version = Some("3.7".to_owned());
    Sample {
        now: Duration::from_secs(50),
        unix: Duration::from_secs(1_000_050),
        store: StoreSample {
            revision: 12,
            compacted: -1,
            keys: 3,
            size_bytes: 1 << 20,
            in_use_bytes: 9000,
        },
        member: MemberSample {
            leader: 0xabc,
            cluster_version,
            members: vec![0xabc],
            alarms: vec![Alarm { kind: AlarmKind::NO_SPACE, member: MemberId(0xabc) }],
            ..MemberSample::default()
        },
        process: ProcessSample::default(),
    }
}

fn scrape(metrics: &Metrics) -> BTreeMap<String, Scraped> {
    let mut page = Vec::new();
    metrics.render(&sample(), &mut page);
    parse(&String::from_utf8(page).unwrap())
}

/// Reads the text format strictly: a family's lines stand together behind its help and type.
fn parse(page: &str) -> BTreeMap<String, Scraped> {
    let mut families = BTreeMap::new();
    let mut name = "";
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            name = help.split_once(' ').expect("a family has a help").0;
            let before = families.insert(name.to_owned(), Scraped::default());
            assert!(before.is_none(), "{name} comes twice");
            continue;
        }
        let family = families.get_mut(name).expect("a help comes first");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (typed, kind) = kind.split_once(' ').unwrap();
            assert_eq!(typed, name);
            kind.clone_into(&mut family.kind);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
        let (full, labels) = series.split_once('{').unwrap_or((series, "}"));
        let suffix = full.strip_prefix(name).unwrap();
        assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        let mut names = Vec::new();
        for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty())
        {
            let (label, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"');
            match label {
                "le" if !family.bounds.iter().any(|bound| bound == value) => {
                    family.bounds.push(value.to_owned());
                }
                "le" | "quantile" => {}
                other => names.push(other.to_owned()),
            }
        }
        assert!(names.is_sorted(), "{line}");
        if !names.is_empty() {
            family.labels.insert(names.join(","));
        }
        family.values.insert(series.to_owned(), value);
    }
    families
}

/// Metrics in which everything has happened once.
fn busy() -> Metrics {
    let metrics = metrics(2);
    let frontend = metrics.frontend(0);
    for method in 0..4 {
        let call = frontend.calls.note_started(method, Some(b"3.7"));
        frontend.calls.note_received(call, 100);
        frontend.calls.note_sent(call, 10);
        frontend.calls.note_handled(call, 0);
    }
    for (path, name) in CHECKS {
        frontend.health.note_check(path, name, true, Duration::from_secs(1));
    }
    let mut commands = AppliedCommands::default();
    commands.note(CommandKind::Put, true);
    metrics.log.note_applied(&commands, Duration::from_micros(150));
    let peer = metrics.log.peers.of(0xdef);
    peer.round_trips.observe_duration(Duration::from_micros(300), 1);
    let second = Duration::from_secs(1);
    CountedStore::begin(&peer.stores_sent, second).arrive(2 * second);
    drop(CountedStore::begin(&peer.stores_received, second));
    metrics.log.promotions.add(Err(PromotionFailure::NotReady));
    metrics
}

#[test]
fn what_etcd_tells_is_told_the_same_way_or_left_out_for_a_reason() {
    let families = scrape(&busy());
    let mut known = BTreeSet::new();
    for line in FAMILIES.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split(" | ").collect();
        let [name, kind, labels, bounds, fate] = columns[..] else { panic!("{line}") };
        known.insert(name);
        if fate.starts_with("left: ") {
            assert!(!families.contains_key(name), "{name} is told, and listed as left out");
            continue;
        }
        assert_eq!(fate, "served");
        let family = families.get(name).unwrap_or_else(|| panic!("{name} is not told"));
        assert_eq!(family.kind, kind, "the type of {name}");
        let expected: BTreeSet<String> =
            Some(labels).filter(|labels| *labels != "-").into_iter().map(Into::into).collect();
        assert_eq!(family.labels, expected, "the labels of {name}");
        let told = match &family.bounds[..] {
            [] => "-".to_owned(),
            [first, .., last, infinite] => {
                assert_eq!(infinite, "+Inf");
                format!("{first}..{last}/{}", family.bounds.len() - 1)
            }
            other => panic!("{name} has the bounds {other:?}"),
        };
        assert_eq!(told, bounds, "the bounds of {name}");
    }
    for name in families.keys().filter(|name| !name.starts_with("ringd_")) {
        assert!(known.contains(name.as_str()), "{name} is not one of etcd's");
    }
}

#[test]
fn the_document_names_all_that_is_told_and_all_that_is_left_out() {
    for name in scrape(&busy()).keys() {
        assert!(DOCUMENT.contains(name.as_str()), "docs/metrics.md does not know {name}");
    }
    for line in FAMILIES.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(' ').next().unwrap();
        assert!(DOCUMENT.contains(name), "docs/metrics.md does not know {name}");
    }
}

/// What the alert rules that are published with etcd ask for, and the panels of its dashboard.
#[test]
fn alerts_and_dashboards_find_what_they_ask_for() {
    let families = scrape(&busy());
    let asked: &[(&str, &[&str])] = &[
        ("etcd_server_has_leader", &[]),
        ("etcd_server_leader_changes_seen_total", &[]),
        ("etcd_server_proposals_failed_total", &[]),
        ("etcd_server_proposals_committed_total", &[]),
        ("etcd_server_proposals_applied_total", &[]),
        ("etcd_server_proposals_pending", &[]),
        ("etcd_server_quota_backend_bytes", &[]),
        ("etcd_mvcc_db_total_size_in_bytes", &[]),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", &[]),
        ("etcd_disk_wal_fsync_duration_seconds", &[]),
        ("etcd_disk_backend_commit_duration_seconds", &[]),
        ("etcd_network_client_grpc_received_bytes_total", &[]),
        ("etcd_network_client_grpc_sent_bytes_total", &[]),
        ("etcd_network_peer_sent_failures_total", &["To"]),
        ("etcd_network_peer_round_trip_time_seconds", &["To"]),
        ("etcd_network_peer_sent_bytes_total", &["To"]),
        ("etcd_network_peer_received_bytes_total", &["From"]),
        ("grpc_server_started_total", &["grpc_service", "grpc_type"]),
        ("grpc_server_handled_total", &["grpc_code", "grpc_service", "grpc_method", "grpc_type"]),
        ("grpc_server_handling_seconds", &["grpc_service", "grpc_method", "grpc_type"]),
        ("process_resident_memory_bytes", &[]),
    ];
    for (name, labels) in asked {
        let family = families.get(*name).unwrap_or_else(|| panic!("{name} is not told"));
        assert!(!family.values.is_empty(), "{name} has no series");
        for label in *labels {
            assert!(family.labels.iter().all(|set| set.split(',').any(|one| one == *label)));
        }
    }
}

#[test]
fn the_counts_of_cores_add_up() {
    let metrics = metrics(2);
    for (frontend, calls) in [(0, 3), (1, 4)] {
        let frontend = metrics.frontend(frontend);
        for _ in 0..calls {
            let call = frontend.calls.note_started(0, None);
            frontend.calls.note_handled(call, 0);
        }
        frontend.watchers.set(10);
    }
    metrics.log.set_activity(&Activity { puts: 7, ..Activity::default() });
    let families = scrape(&metrics);
    let value = |family: &str, series: &str| families[family].values[series];
    let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    let started = format!("grpc_server_started_total{{{labels}}}");
    assert!((value("grpc_server_started_total", &started) - 7.0).abs() < 1e-9);
    let handled = format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}}");
    assert!((value("grpc_server_handled_total", &handled) - 7.0).abs() < 1e-9);
    let told = |name: &str| value(name, name);
    assert!((told("etcd_debugging_mvcc_watcher_total") - 20.0).abs() < 1e-9);
    assert!((told("etcd_mvcc_put_total") - 7.0).abs() < 1e-9);
    assert!((told("etcd_debugging_mvcc_compact_revision") + 1.0).abs() < 1e-9);
}

#[test]
fn a_check_is_told_as_it_ended_last_on_any_core() {
    let metrics = metrics(2);
    for (frontend, seconds, succeeded) in [(0, 1, true), (1, 3, false), (0, 2, true)] {
        let health = &metrics.frontends[frontend].health;
        health.note_check("readyz", "data_corruption", succeeded, Duration::from_secs(seconds));
        health.note_answered(succeeded);
    }
    let families = scrape(&metrics);
    let value = |family: &str, labels: &str| {
        let series = format!("{family}{labels}");
        families[family].values.get(&series).map_or("none".to_owned(), f64::to_string)
    };
    let labels = "{name=\"data_corruption\",type=\"readyz\"}";
    assert_eq!(value("etcd_server_healthcheck", labels), "0");
    assert_eq!(families["etcd_server_healthcheck"].values.len(), 1, "the others were not made");
    for (status, count) in [("error", "1"), ("success", "2")] {
        let labels = format!("{{name=\"data_corruption\",status=\"{status}\",type=\"readyz\"}}");
        assert_eq!(value("etcd_server_healthchecks_total", &labels), count);
    }
    assert_eq!(value("etcd_server_health_failures", ""), "1");
    assert_eq!(value("etcd_server_health_success", ""), "2");
    let labels = "{alarm_type=\"NOSPACE\",server_id=\"abc\"}";
    assert_eq!(value("etcd_debugging_server_alarms", labels), "1");
}

/// A kind that the table does not know would be counted as unknown.
#[test]
fn every_kind_of_command_has_a_name() {
    let mut labels = BTreeSet::new();
    for kind in CommandKind::ALL {
        let label = CommandType::from(kind).label();
        assert!(label != "unknown" && labels.insert(label), "{kind:?} is called {label}");
    }
}

#[test]
fn a_stage_is_told_in_buckets_and_in_quantiles() {
    let metrics = metrics(1);
    let mut latency = metrics.log.stage(Stage::Wal);
    latency.record(Duration::from_micros(90), 99);
    latency.record(Duration::from_millis(30), 1);
    latency.handle_tick(Duration::from_secs(45));
    let families = scrape(&metrics);
    let buckets = &families["ringd_stage_duration_seconds"].values;
    let bucket = |bound: &str| {
        buckets[&format!("ringd_stage_duration_seconds_bucket{{stage=\"wal\",le=\"{bound}\"}}")]
    };
    let below = ["6.4e-05", "0.000128", "0.016384", "0.032768", "+Inf"].map(bucket);
    assert_eq!(below.map(|count| format!("{count}")), ["0", "99", "99", "100", "100"]);
    let recent = &families["ringd_stage_recent_seconds"].values;
    let quantile = |quantile: &str| {
        let labels = format!("{{stage=\"wal\",quantile=\"{quantile}\"}}");
        recent[&format!("ringd_stage_recent_seconds{labels}")]
    };
    assert!((quantile("0.5") - 90e-6).abs() < 1e-6);
    assert!((quantile("1") - 30e-3).abs() < 3e-4);
    let of_nothing = "ringd_stage_recent_seconds{stage=\"apply\",quantile=\"0.5\"}";
    assert!(recent[of_nothing].is_nan());
}
