//! The cases of a cluster, and those of them that load it steadily.
//!
//! Invariants:
//! - Server figures are sums over all members, and cover exactly the measured run.
//! - An election during a steady case makes it unclean: what was measured was two leaders.
//! - A case takes the same figures each time, in the order of [`metrics`].

use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::members::{Cluster, Leader};
use crate::failure::Failure;
use crate::load::{Kind, LoadArgs, fill, measure as measure_load};
use crate::report::{Report, Tally};
use crate::server_process::{Usage, machine_cpu};
use crate::side_by_side::Sample;

/// How long a case runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);
const MEGABYTE: f64 = 1e6;

/// One row, or several, of the table, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// 1000 puts outstanding, spread over all members.
    #[value(name = "put-1000")]
    Put1000,
    /// 1000 puts outstanding, all at the leader.
    #[value(name = "put-leader-1000")]
    PutLeader1000,
    /// One put outstanding: at the leader, and then at a follower.
    #[value(name = "put-1x1")]
    Put1x1,
    /// Linearizable gets on 8 connections to all members while 1000 puts are outstanding.
    #[value(name = "get-under-puts")]
    GetUnderPuts,
    /// The leader is killed under puts to the others.
    #[value(name = "failover")]
    Failover,
    /// A member that was away comes back under puts, far behind.
    #[value(name = "catch-up")]
    CatchUp,
    /// A follower stays away under puts.
    #[value(name = "follower-down")]
    FollowerDown,
}

impl Case {
    /// The cases that share one cluster and its data.
    pub const STEADY: [Self; 4] =
        [Self::Put1x1, Self::Put1000, Self::PutLeader1000, Self::GetUnderPuts];
}

/// The names of a case's figures.
#[cfg(test)]
pub fn metrics(case: Case) -> &'static [&'static str] {
    match case {
        Case::Put1000 | Case::PutLeader1000 | Case::GetUnderPuts => &STEADY_METRICS,
        Case::Put1x1 => &ALONE_METRICS,
        Case::Failover => &super::failover::METRICS,
        Case::CatchUp => &super::lagging::CATCH_UP_METRICS,
        Case::FollowerDown => &super::lagging::DOWN_METRICS,
    }
}

const STEADY_METRICS: [&str; 15] = [
    "ops/s",
    "all ops/s",
    "server CPU us/op",
    "leader CPU us/op",
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

/// One put at a time, at the leader and at a follower.
const ALONE_METRICS: [&str; 8] = [
    "p50 us",
    "p99 us",
    "server CPU us/op",
    "follower p50 us",
    "follower p99 us",
    "follower server CPU us/op",
    "client busy %",
    "others busy %",
];

/// Puts the keys that the steady cases read.
pub fn prepare(cluster: &Cluster, epoch: Instant) -> Result<bool, Failure> {
    let endpoints = cluster.endpoints(&cluster.running());
    let report = fill(&LoadArgs::new(Kind::Fill, &endpoints), epoch)?;
    for complaint in &report.complaints {
        println!("  {complaint}");
    }
    Ok(report.is_clean())
}

/// Measures one of the steady cases.
pub fn measure(
    case: Case,
    cluster: &Cluster,
    duration: Duration,
    epoch: Instant,
) -> Result<Sample, Failure> {
    let leader = cluster.settled_leader()?;
    let everybody = cluster.running();
    let follower = cluster.others(leader.member)[..1].to_vec();
    let load = |kind, members: &[usize], connections, streams| {
        let args = LoadArgs {
            connections,
            streams,
            duration,
            ..LoadArgs::new(kind, &cluster.endpoints(members))
        };
        Measured::take(cluster, leader, &args, epoch)
    };
    let (measured, figures) = match case {
        Case::Put1x1 => {
            let at_leader = load(Kind::Put, &[leader.member], 1, 1)?;
            let at_follower = load(Kind::Put, &follower, 1, 1)?;
            let figures = ALONE_METRICS.into_iter().zip(alone(&at_leader, &at_follower)).collect();
            (vec![at_leader, at_follower], figures)
        }
        _ => {
            let measured = match case {
                Case::Put1000 => load(Kind::Put, &everybody, 100, 10)?,
                Case::PutLeader1000 => load(Kind::Put, &[leader.member], 100, 10)?,
                Case::GetUnderPuts => load(Kind::Mixed, &everybody, 8, 1)?,
                _ => unreachable!("{case:?} has a cluster of its own"),
            };
            let figures = STEADY_METRICS.into_iter().zip(measured.steady()).collect();
            (vec![measured], figures)
        }
    };
    let mut sample = Sample { figures, clean: true, complaints: Vec::new() };
    for Measured { report, warm_up, .. } in measured {
        sample.clean &= report.is_clean() && warm_up.is_clean();
        sample.complaints.extend(warm_up.complaints);
        sample.complaints.extend(report.complaints);
    }
    let after = cluster.settled_leader()?;
    if after != leader {
        sample.clean = false;
        sample.complaints.push(format!("{leader:?} was followed by {after:?}"));
    }
    Ok(sample)
}

/// A measured run.
struct Measured {
    warm_up: Report,
    report: Report,
    before: Vec<Usage>,
    after: Vec<Usage>,
    /// The place of the leader among the usages.
    leader: usize,
    others: Duration,
}

impl Measured {
    fn take(
        cluster: &Cluster,
        leader: Leader,
        args: &LoadArgs,
        epoch: Instant,
    ) -> Result<Self, Failure> {
        let warm_up = measure_load(&LoadArgs { duration: WARM_UP, ..args.clone() }, epoch)?;
        let machine_before = machine_cpu()?;
        let before = cluster.usages()?;
        let report = measure_load(args, epoch)?;
        let after = cluster.usages()?;
        let machine = machine_cpu()?.saturating_sub(machine_before);
        let leader = cluster.running().iter().position(|&member| member == leader.member);
        let leader = leader.ok_or_else(|| Failure::new("the leader does not run"))?;
        let mut measured = Self { warm_up, report, before, after, leader, others: Duration::ZERO };
        let others = machine.saturating_sub(measured.server_cpu());
        measured.others = others.saturating_sub(measured.report.client_cpu);
        Ok(measured)
    }

    /// What one member used meanwhile.
    fn member_cpu(&self, place: usize) -> Duration {
        self.after[place].cpu.saturating_sub(self.before[place].cpu)
    }

    /// What all members used meanwhile.
    fn server_cpu(&self) -> Duration {
        (0..self.after.len()).map(|place| self.member_cpu(place)).sum()
    }

    fn server_cpu_micros(&self) -> f64 {
        micros_of(self.server_cpu(), self.report.operations_count().max(1))
    }

    /// The figures of a case that is about its first group; CPU is spread over the operations of
    /// all.
    fn steady(&self) -> [f64; STEADY_METRICS.len()] {
        let first = &self.report.tallies[0];
        let operations = self.report.operations_count().max(1);
        let written =
            |usages: &[Usage]| usages.iter().map(|usage| usage.written_bytes).sum::<u64>();
        let sum = |bytes: fn(&Usage) -> u64| self.after.iter().map(bytes).sum::<u64>() as f64;
        let elapsed = self.report.elapsed.as_secs_f64().max(1e-9);
        [
            self.report.rate(0),
            operations as f64 / elapsed,
            self.server_cpu_micros(),
            micros_of(self.member_cpu(self.leader), operations),
            micros(first, 0.5),
            micros(first, 0.9),
            micros(first, 0.99),
            micros(first, 0.999),
            micros(first, 1.0),
            (written(&self.after) - written(&self.before)) as f64 / operations as f64,
            sum(|usage| usage.rss_bytes) / MEGABYTE,
            sum(|usage| usage.anonymous_bytes) / MEGABYTE,
            micros_of(self.report.client_cpu, operations),
            self.percent(self.report.client_cpu),
            self.percent(self.others),
        ]
    }

    fn percent(&self, time: Duration) -> f64 {
        100.0 * time.as_secs_f64() / self.report.elapsed.as_secs_f64().max(1e-9)
    }
}

/// The figures of one put at a time.
fn alone(at_leader: &Measured, at_follower: &Measured) -> [f64; ALONE_METRICS.len()] {
    let (leader, follower) = (&at_leader.report.tallies[0], &at_follower.report.tallies[0]);
    [
        micros(leader, 0.5),
        micros(leader, 0.99),
        at_leader.server_cpu_micros(),
        micros(follower, 0.5),
        micros(follower, 0.99),
        at_follower.server_cpu_micros(),
        at_leader.percent(at_leader.report.client_cpu),
        at_leader.percent(at_leader.others).max(at_follower.percent(at_follower.others)),
    ]
}

/// A quantile in microseconds.
pub fn micros(tally: &Tally, quantile: f64) -> f64 {
    tally.quantile_ns(quantile) as f64 / 1e3
}

fn micros_of(time: Duration, operations: u64) -> f64 {
    time.as_secs_f64() * 1e6 / operations as f64
}
