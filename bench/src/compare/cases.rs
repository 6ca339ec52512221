//! The cases that a comparison measures, named after the rows of the table they are promised in.
//!
//! Invariants:
//! - Server figures cover exactly the measured run: they are read right before and right after it,
//!   and the warm-up comes before both.
//! - What else ran on the machine is a figure of its own ("others busy", in per cent of one core,
//!   with the kernel's own workers): a case that was disturbed can be told from one that was not.
//! - A case takes the same figures each time, in the order of [`metrics`].

use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::failure::Failure;
use crate::load::{Kind, LoadArgs, OrderKind, fill, grant, measure as measure_load};
use crate::report::{Report, Tally};
use crate::server_process::{Server, ServerSpec, Usage, allocated_bytes, machine_cpu};
use crate::side_by_side::Sample;
use crate::workload::KeySpace;

/// How long a case runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);
const MEGABYTE: f64 = 1e6;

/// One row, or several, of the table, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Puts on 100 connections of 10 streams.
    #[value(name = "put-100x10")]
    Put100x10,
    /// Puts on 8 connections of 8 streams.
    #[value(name = "put-8x8")]
    Put8x8,
    /// Puts, one outstanding.
    #[value(name = "put-1x1")]
    Put1x1,
    /// Linearizable gets on 8 connections of 8 streams.
    #[value(name = "get-8x8")]
    Get8x8,
    /// Linearizable ranges of 1000 keys on 8 connections.
    #[value(name = "range-1000")]
    Range1000,
    /// Linearizable gets on 8 connections while 1000 puts are outstanding.
    #[value(name = "get-under-puts")]
    GetUnderPuts,
    /// Transactions that update keys, on 8 connections of 8 streams.
    #[value(name = "txn-update-8x8")]
    TxnUpdate8x8,
    /// Every put is seen by 1000 watchers on 10 connections.
    #[value(name = "watch-fan-out")]
    WatchFanOut,
    /// Leases that are kept alive, on 8 connections of 8 streams.
    #[value(name = "keep-alive")]
    KeepAlive,
    /// Many keys: load, list, kill and restart, memory and disk.
    #[value(name = "keys")]
    Keys,
    /// Puts while a long history is compacted.
    #[value(name = "compaction")]
    Compaction,
    /// Puts while a backup is streamed.
    #[value(name = "snapshot")]
    Snapshot,
    /// Puts while a mostly empty file is defragmented.
    #[value(name = "defrag")]
    Defrag,
    /// Puts while many leases run out at once.
    #[value(name = "lease-expiry")]
    LeaseExpiry,
    /// Puts while ten thousand watchers of another prefix are told what happens there.
    #[value(name = "watch-crowd")]
    WatchCrowd,
    /// Puts while a watcher catches up with a long history.
    #[value(name = "watch-catch-up")]
    WatchCatchUp,
    /// Puts while watchers of them do not read.
    #[value(name = "watch-stopped")]
    WatchStopped,
}

impl Case {
    /// The cases that share one server and its data: reads first, before the puts make it grow.
    pub const STEADY: [Self; 9] = [
        Self::Get8x8,
        Self::Range1000,
        Self::KeepAlive,
        Self::Put1x1,
        Self::WatchFanOut,
        Self::TxnUpdate8x8,
        Self::Put8x8,
        Self::Put100x10,
        Self::GetUnderPuts,
    ];

    /// The cases that compare puts beside a disturbance with puts at quiet times.
    pub const DISTURBED: [Self; 7] = [
        Self::Compaction,
        Self::Snapshot,
        Self::Defrag,
        Self::LeaseExpiry,
        Self::WatchCrowd,
        Self::WatchCatchUp,
        Self::WatchStopped,
    ];
}

/// The names of a case's figures.
#[cfg(test)]
pub fn metrics(case: Case) -> &'static [&'static str] {
    match case {
        Case::Keys => &KEYS_METRICS,
        Case::WatchFanOut => &FAN_OUT_METRICS,
        _ if Case::DISTURBED.contains(&case) => &super::disturbed::METRICS,
        _ => &STEADY_METRICS,
    }
}

/// Watches of the fan-out: so many on each of ten streams.
const FAN_OUT_STREAM_WATCHES: usize = 100;
/// Puts a second of the fan-out: few enough that etcd, which needs 2.8 us for an event, delivers a
/// thousand times as many on half a core.
const FAN_OUT_PUTS_PER_SECOND: f64 = 200.0;
/// The keys that transactions update: few, because the first update of each is refused so that it
/// learns the revision, and yet so many that two of 64 seldom meet.
const TXN_KEYS: u64 = 4096;

/// What a case of many watchers gives: its operations are events, and the puts that cause them are
/// timed by themselves.
const FAN_OUT_METRICS: [&str; 12] = [
    "events/s",
    "server CPU us/event",
    "put p50 us",
    "put p99 us",
    "put max us",
    "event p50 us",
    "event p99 us",
    "rss MB",
    "anonymous MB",
    "client CPU us/event",
    "client busy %",
    "others busy %",
];

const STEADY_METRICS: [&str; 13] = [
    "ops/s",
    "server CPU us/op",
    "p50 us",
    "p90 us",
    "p99 us",
    "p99.9 us",
    "max us",
    "written B/op",
    "rss MB",
    "anonymous MB",
    "client CPU us/op",
    "client busy %",
    "others busy %",
];

#[cfg(test)]
const KEYS_METRICS: [&str; 10] = [
    "restart after load ms",
    "load s",
    "others busy %",
    "anonymous MB",
    "rss MB",
    "written B/key",
    "data dir MB",
    "list keys/s",
    "list p99 us",
    "restart after rest ms",
];

/// Puts the keys that the steady cases read, and grants the leases that they keep alive.
pub fn prepare(server: &Server, epoch: Instant, leases: bool) -> Result<bool, Failure> {
    let report = fill(&LoadArgs::new(Kind::Fill, &server.endpoint()), epoch)?;
    print_complaints(&report);
    let mut clean = report.is_clean();
    if leases {
        let report = grant(&LoadArgs::new(Kind::Grant, &server.endpoint()), epoch)?;
        print_complaints(&report);
        clean &= report.is_clean();
    }
    Ok(clean)
}

/// The load of a steady case.
fn steady_args(case: Case, endpoint: &str, duration: Duration) -> LoadArgs {
    let args = |kind, connections, streams| LoadArgs {
        connections,
        streams,
        duration,
        ..LoadArgs::new(kind, endpoint)
    };
    match case {
        Case::Put100x10 => args(Kind::Put, 100, 10),
        Case::Put8x8 => args(Kind::Put, 8, 8),
        Case::Put1x1 => args(Kind::Put, 1, 1),
        Case::Get8x8 => args(Kind::Get, 8, 8),
        Case::Range1000 => args(Kind::Range, 8, 1),
        Case::GetUnderPuts => args(Kind::Mixed, 8, 1),
        Case::TxnUpdate8x8 => LoadArgs { keys: TXN_KEYS, ..args(Kind::TxnUpdate, 8, 8) },
        Case::WatchFanOut => LoadArgs {
            watches: FAN_OUT_STREAM_WATCHES,
            put_connections: 1,
            put_streams: 64,
            put_rate: Some(FAN_OUT_PUTS_PER_SECOND),
            ..args(Kind::Watch, 10, 1)
        },
        Case::KeepAlive => args(Kind::KeepAlive, 8, 8),
        Case::Keys
        | Case::Compaction
        | Case::Snapshot
        | Case::Defrag
        | Case::LeaseExpiry
        | Case::WatchCrowd
        | Case::WatchCatchUp
        | Case::WatchStopped => {
            unreachable!("{case:?} starts servers of its own")
        }
    }
}

/// Measures one of the steady cases.
pub fn measure(
    case: Case,
    server: &Server,
    duration: Duration,
    epoch: Instant,
) -> Result<Sample, Failure> {
    let args = steady_args(case, &server.endpoint(), duration);
    let warm_up = measure_load(&LoadArgs { duration: WARM_UP, ..args.clone() }, epoch)?;
    let machine_before = machine_cpu()?;
    let before = server.usage()?;
    let report = measure_load(&args, epoch)?;
    let after = server.usage()?;
    let machine = machine_cpu()?.saturating_sub(machine_before);
    let server_cpu = after.cpu.saturating_sub(before.cpu);
    let others = machine.saturating_sub(server_cpu).saturating_sub(report.client_cpu);
    let clean = report.is_clean() && warm_up.is_clean();
    let complaints = [warm_up.complaints, report.complaints.clone()].concat();
    let measured = Measured { report, before, after, server_cpu, others };
    let figures = if case == Case::WatchFanOut {
        FAN_OUT_METRICS.into_iter().zip(measured.fan_out()).collect()
    } else {
        STEADY_METRICS.into_iter().zip(measured.steady()).collect()
    };
    Ok(Sample { figures, clean, complaints })
}

/// A measured run of a steady case.
struct Measured {
    report: Report,
    before: Usage,
    after: Usage,
    server_cpu: Duration,
    others: Duration,
}

impl Measured {
    /// The figures of a case that is about its first group. CPU is spread over the operations of
    /// all, and a refused transaction is a call as much as the one that is tried in its place.
    fn steady(&self) -> [f64; STEADY_METRICS.len()] {
        let first = &self.report.tallies[0];
        let operations = (self.report.operations_count() + first.retries_count).max(1);
        let written_bytes = self.after.written_bytes - self.before.written_bytes;
        [
            self.report.rate(0),
            micros_of(self.server_cpu, operations),
            micros(first, 0.5),
            micros(first, 0.9),
            micros(first, 0.99),
            micros(first, 0.999),
            micros(first, 1.0),
            written_bytes as f64 / operations as f64,
            self.after.rss_bytes as f64 / MEGABYTE,
            self.after.anonymous_bytes as f64 / MEGABYTE,
            micros_of(self.report.client_cpu, operations),
            self.percent(self.report.client_cpu),
            self.percent(self.others),
        ]
    }

    /// The figures of the case whose first group receives what its second puts.
    fn fan_out(&self) -> [f64; FAN_OUT_METRICS.len()] {
        let (event, put) = (&self.report.tallies[0], &self.report.tallies[1]);
        let events = event.operations_count.max(1);
        [
            self.report.rate(0),
            micros_of(self.server_cpu, events),
            micros(put, 0.5),
            micros(put, 0.99),
            micros(put, 1.0),
            micros(event, 0.5),
            micros(event, 0.99),
            self.after.rss_bytes as f64 / MEGABYTE,
            self.after.anonymous_bytes as f64 / MEGABYTE,
            micros_of(self.report.client_cpu, events),
            self.percent(self.report.client_cpu),
            self.percent(self.others),
        ]
    }

    fn percent(&self, cpu: Duration) -> f64 {
        100.0 * cpu.as_secs_f64() / self.report.elapsed.as_secs_f64().max(1e-9)
    }
}

fn micros(tally: &Tally, quantile: f64) -> f64 {
    tally.quantile_ns(quantile) as f64 / 1e3
}

fn micros_of(cpu: Duration, operations: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / operations as f64
}

/// Loads many keys, kills the server at once, and times its return.
pub fn keys_killed(spec: &ServerSpec, keys: u64) -> Result<Sample, Failure> {
    let epoch = Instant::now();
    let mut server = Server::start(spec)?;
    let loaded = load_keys(&server, keys, epoch).map_err(|failure| server.explain(failure))?;
    server.kill()?;
    let (mut server, restart) = restart(spec)?;
    // Nothing that was acknowledged may be missing after the kill.
    let listed = list_keys(&server, keys, epoch).map_err(|failure| server.explain(failure))?;
    server.stop()?;
    Ok(Sample {
        figures: vec![("restart after load ms", restart.as_secs_f64() * 1e3)],
        clean: loaded.is_clean() && listed.is_clean(),
        complaints: [loaded.complaints, listed.complaints].concat(),
    })
}

/// Loads many keys, lists them, measures memory and disk, rests, kills, and times the return.
pub fn keys_rested(spec: &ServerSpec, keys: u64, quiet: Duration) -> Result<Sample, Failure> {
    let epoch = Instant::now();
    let mut server = Server::start(spec)?;
    let (machine_before, before) = (machine_cpu()?, server.usage()?);
    let loaded = load_keys(&server, keys, epoch).map_err(|failure| server.explain(failure))?;
    let (machine_after, after) = (machine_cpu()?, server.usage()?);
    let others = (machine_after.saturating_sub(machine_before))
        .saturating_sub(after.cpu.saturating_sub(before.cpu))
        .saturating_sub(loaded.client_cpu);
    let others_percent = 100.0 * others.as_secs_f64() / loaded.elapsed.as_secs_f64().max(1e-9);
    let listed = list_keys(&server, keys, epoch).map_err(|failure| server.explain(failure))?;
    // The rest is part of what is measured: what a server does with quiet time.
    std::thread::sleep(quiet);
    let rested = server.usage()?;
    let data_bytes = allocated_bytes(&spec.data_dir)?;
    server.kill()?;
    let (server, restart) = restart(spec)?;
    server.stop()?;
    let list = &listed.tallies[0];
    let list_rate = list.keys_count as f64 / listed.elapsed.as_secs_f64().max(1e-9);
    Ok(Sample {
        figures: vec![
            ("load s", loaded.elapsed.as_secs_f64()),
            ("others busy %", others_percent),
            ("anonymous MB", rested.anonymous_bytes as f64 / MEGABYTE),
            ("rss MB", rested.rss_bytes as f64 / MEGABYTE),
            ("written B/key", (after.written_bytes - before.written_bytes) as f64 / keys as f64),
            ("data dir MB", data_bytes as f64 / MEGABYTE),
            ("list keys/s", list_rate),
            ("list p99 us", list.quantile_ns(0.99) as f64 / 1e3),
            ("restart after rest ms", restart.as_secs_f64() * 1e3),
        ],
        clean: loaded.is_clean() && listed.is_clean(),
        complaints: [loaded.complaints, listed.complaints].concat(),
    })
}

fn load_keys(server: &Server, keys: u64, epoch: Instant) -> Result<Report, Failure> {
    fill(&LoadArgs { keys, ..LoadArgs::new(Kind::Fill, &server.endpoint()) }, epoch)
}

fn list_keys(server: &Server, keys: u64, epoch: Instant) -> Result<Report, Failure> {
    let args = LoadArgs {
        keys,
        connections: 1,
        streams: 1,
        operations: Some(1),
        order: OrderKind::Sequential,
        ..LoadArgs::new(Kind::List, &server.endpoint())
    };
    measure_load(&args, epoch)
}

/// Starts a server on what a kill left, up to its first linearizable answer.
fn restart(spec: &ServerSpec) -> Result<(Server, Duration), Failure> {
    let defaults = LoadArgs::new(Kind::Fill, "");
    let space = KeySpace {
        prefix: defaults.prefix,
        count: 1,
        seed: defaults.seed,
        value_size_bytes: defaults.value_size,
    };
    let start = Instant::now();
    let mut server = Server::spawn(spec)?;
    server.wait_for_key(&space.key(0))?;
    Ok((server, start.elapsed()))
}

fn print_complaints(report: &Report) {
    for complaint in &report.complaints {
        println!("  {complaint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::check;

    #[test]
    fn every_steady_case_is_a_load_that_the_command_line_takes() {
        for case in Case::STEADY {
            let args = steady_args(case, "127.0.0.1:2379", Duration::from_secs(1));
            assert!(check(&args).is_ok(), "{case:?}");
        }
    }

    #[test]
    fn every_case_is_measured_in_one_way() {
        for &case in Case::value_variants() {
            let ways = usize::from(Case::STEADY.contains(&case))
                + usize::from(Case::DISTURBED.contains(&case))
                + usize::from(case == Case::Keys);
            assert_eq!(ways, 1, "{case:?}");
        }
    }
}
