//! `bench target`: the loads that etcd measures a cluster by, with its rules and ours.
//!
//! etcd's own tool has four: 150, 1000, 8000 and 15000 puts a second by 50, 200, 500 and 1000
//! clients, for a minute, with keys of 276 and values of 1024 bytes. It passes when more than nine
//! tenths of the rate were reached, no put took longer than 500 ms, and the standard deviation
//! stays below 100 ms. The fifth load, `goal`, is 10000 puts a second with values of 256 bytes.
//!
//! Latencies here run from the moment a put was due, which is stricter than from when it was sent.
//!
//! Invariants:
//! - Every load ends with a verdict for each rule; one that is missed makes the command fail.
//! - A prefix that holds keys is not touched.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::client::HeaderStyle;
use crate::client::blocking::Blocking;
use crate::failure::Failure;
use crate::load::{parse_duration, resolve};
use crate::proto;
use crate::report::{Report, duration_text};
use crate::run::{Group, RunConfig, run};
use crate::server_process::{Server, ServerSpec};
use crate::workload::{KeySpace, Order, Put, Random};

/// etcd's rules.
const RATE_SHARE_MIN: f64 = 0.9;
const SLOWEST_NS_MAX: u64 = 500_000_000;
const DEVIATION_NS_MAX: f64 = 100e6;
/// Ours: at an open rate below what the server can do, all of it is reached but for what the end of
/// the run cuts off, and a put waits for a handful of syncs at most.
const GOAL_SHARE_MIN: f64 = 0.99;
const GOAL_P99_NS_MAX: u64 = 20_000_000;
/// So many that nearly every put of a minute makes a key of its own.
const KEYS: u64 = 1 << 22;
/// The deletion of a minute's keys is one request.
const CLEAN_UP_TIME_MAX: Duration = Duration::from_secs(120);

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// 10000 puts a second of 256 bytes on 100 connections of 10 streams.
    Goal,
    /// etcd's small load: 150 a second by 50 clients.
    S,
    /// etcd's medium load: 1000 a second by 200 clients.
    M,
    /// etcd's large load: 8000 a second by 500 clients.
    L,
    /// etcd's extra large load: 15000 a second by 1000 clients.
    Xl,
}

struct Shape {
    rate: f64,
    connections: usize,
    streams: usize,
    value_size_bytes: usize,
    key_size_bytes: usize,
}

impl Target {
    fn shape(self) -> Shape {
        let etcd = |rate, connections| Shape {
            rate,
            connections,
            streams: 1,
            value_size_bytes: 1024,
            key_size_bytes: 276,
        };
        match self {
            Self::Goal => Shape {
                rate: 10_000.0,
                connections: 100,
                streams: 10,
                value_size_bytes: 256,
                key_size_bytes: 30,
            },
            Self::S => etcd(150.0, 50),
            Self::M => etcd(1_000.0, 200),
            Self::L => etcd(8_000.0, 500),
            Self::Xl => etcd(15_000.0, 1_000),
        }
    }
}

/// The server and the loads.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// A running server's client address; without it, --bin is started.
    #[arg(long, conflicts_with = "bin", required_unless_present = "bin")]
    pub endpoint: Option<String>,
    /// The server to start, on a fresh data directory for each load.
    #[arg(long)]
    pub bin: Option<PathBuf>,
    /// Further arguments of the server, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub args: String,
    /// The loads.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "goal,s,m,l,xl")]
    pub loads: Vec<Target>,
    /// For how long each load lasts.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// The directory under which data directories are made.
    #[arg(long, default_value = ".")]
    pub data_dir: PathBuf,
}

/// Runs the command.
pub fn command(args: &TargetArgs) -> Result<bool, Failure> {
    let mut passed = true;
    for &target in &args.loads {
        let report = match (&args.endpoint, &args.bin) {
            (Some(endpoint), _) => load(target, endpoint, args.duration)?,
            (None, Some(bin)) => {
                let dir = format!("bench-target-{}", std::process::id());
                let extra: Vec<String> = args.args.split_whitespace().map(str::to_owned).collect();
                let spec = ServerSpec::new(bin, &extra, &args.data_dir.join(dir))?;
                let mut server = Server::start(&spec)?;
                let report = load(target, &server.endpoint(), args.duration)
                    .map_err(|failure| server.explain(failure))?;
                server.stop()?;
                spec.remove()?;
                report
            }
            (None, None) => return Err(Failure::new("either --endpoint or --bin is needed")),
        };
        println!("{target:?}: {}", report.to_text().trim_end());
        for (kept, text) in judge(target, args.duration, &report) {
            println!("{}: {text}", if kept { "PASS" } else { "FAIL" });
            passed &= kept;
        }
    }
    println!("{}", if passed { "PASS" } else { "FAIL" });
    Ok(passed)
}

fn load(target: Target, endpoint: &str, duration: Duration) -> Result<Report, Failure> {
    let shape = target.shape();
    let mut prefix = format!("/bench-target-{target:?}/").to_lowercase();
    // The index takes ten bytes more.
    while prefix.len() + 10 < shape.key_size_bytes {
        prefix.push('.');
    }
    let space = KeySpace { prefix, count: KEYS, seed: 1, value_size_bytes: shape.value_size_bytes };
    let address = resolve(endpoint)?;
    refuse_used(&mut Blocking::connect(address, CLEAN_UP_TIME_MAX)?, &space)?;
    let config = RunConfig {
        addresses: vec![address],
        header_style: HeaderStyle::Indexed,
        duration: Some(duration),
        keys: KEYS,
        epoch: Instant::now(),
        progress: Some(format!("target {target:?}").to_lowercase()),
    };
    let order = Order::Random(Random::new(1));
    let group = Group {
        name: "put".to_owned(),
        connections: shape.connections,
        streams: shape.streams,
        rate: Some(shape.rate),
        workload: Box::new(Put::new(space.clone(), order, None)),
    };
    let report = run(&config, vec![vec![group]])?;
    clean_up(&mut Blocking::connect(address, CLEAN_UP_TIME_MAX)?, &space)?;
    Ok(report)
}

fn refuse_used(client: &mut Blocking, space: &KeySpace) -> Result<(), Failure> {
    let mut request = Vec::new();
    let range = proto::RangeRequest {
        key: space.prefix.as_bytes(),
        range_end: &space.range_end(),
        limit: 1,
        ..Default::default()
    };
    proto::write_range(&mut request, &range);
    let answer = client.call(proto::RANGE, &request)?;
    match proto::RangeAnswer::read(&answer) {
        Ok(answer) if answer.count == 0 => Ok(()),
        Ok(answer) => Err(Failure::new(format!(
            "the prefix {} holds {} keys already; delete them first",
            space.prefix, answer.count
        ))),
        Err(_) => Err(Failure::new("the answer to a range is malformed")),
    }
}

fn clean_up(client: &mut Blocking, space: &KeySpace) -> Result<(), Failure> {
    let mut request = Vec::new();
    proto::write_delete_range(&mut request, space.prefix.as_bytes(), &space.range_end());
    let answer = client.call(proto::DELETE_RANGE, &request)?;
    match proto::WriteAnswer::read(&answer) {
        Ok(answer) if answer.deleted > 0 => Ok(()),
        _ => Err(Failure::new("the keys of the load could not be deleted")),
    }
}

/// Each rule with whether it was kept.
fn judge(target: Target, duration: Duration, report: &Report) -> Vec<(bool, String)> {
    let shape = target.shape();
    let tally = &report.tallies[0];
    // The last answers may come after the end; a rate above what was asked for means nothing.
    let rate = tally.operations_count as f64 / report.elapsed.max(duration).as_secs_f64();
    let slowest_ns = tally.histogram.max();
    let deviation_ns = tally.histogram.stdev();
    let mut rules = vec![
        (
            report.is_clean(),
            format!("{} errors, {} wrong answers", tally.errors_count, report.wrong_count),
        ),
        (rate > shape.rate * RATE_SHARE_MIN, format!("throughput {rate:.0} puts/s")),
        (slowest_ns <= SLOWEST_NS_MAX, format!("slowest {}", duration_text(slowest_ns))),
        (
            deviation_ns <= DEVIATION_NS_MAX,
            format!("standard deviation {:.2} ms", deviation_ns / 1e6),
        ),
    ];
    if target == Target::Goal {
        let p99_ns = tally.quantile_ns(0.99);
        rules.push((
            rate >= shape.rate * GOAL_SHARE_MIN,
            format!("goal: {:.1} % of the rate", 100.0 * rate / shape.rate),
        ));
        rules.push((p99_ns <= GOAL_P99_NS_MAX, format!("goal: p99 {}", duration_text(p99_ns))));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Tally;

    fn report(puts: u64, latency_ns: u64) -> Report {
        let mut tally = Tally::new("put");
        for _ in 0..puts {
            tally.record(latency_ns);
        }
        Report {
            tallies: vec![tally],
            elapsed: Duration::from_secs(1),
            client_cpu: Duration::ZERO,
            wrong_count: 0,
            complaints: Vec::new(),
        }
    }

    fn kept(target: Target, report: &Report) -> Vec<bool> {
        let rules = judge(target, Duration::from_secs(1), report);
        rules.into_iter().map(|(kept, _)| kept).collect()
    }

    #[test]
    fn rules_are_missed_one_by_one() {
        assert_eq!(kept(Target::S, &report(150, 1_000_000)), [true; 4]);
        assert_eq!(kept(Target::S, &report(135, 1_000_000)), [true, false, true, true]);
        let mut slow = report(150, 1_000_000);
        slow.tallies[0].record(501_000_000);
        assert_eq!(kept(Target::S, &slow), [true, true, false, true]);
        let mut wide = report(75, 1_000_000);
        for _ in 0..75 {
            wide.tallies[0].record(400_000_000);
        }
        assert_eq!(kept(Target::S, &wide), [true, true, true, false]);
        let wrong = Report { wrong_count: 1, ..report(150, 1_000_000) };
        assert_eq!(kept(Target::S, &wrong), [false, true, true, true]);
    }

    #[test]
    fn the_goal_is_stricter() {
        assert_eq!(kept(Target::Goal, &report(10_000, 1_000_000)), [true; 6]);
        let late = report(9_850, 25_000_000);
        assert_eq!(kept(Target::Goal, &late), [true, true, true, true, false, false]);
    }
}
