//! A follower that is away: how it comes back, and what its absence costs the others.
//!
//! The puts that are timed go to the members that stay.
//!
//! Invariants:
//! - Who was away has caught up when it says itself that it has what the leader had just before.

use std::time::{Duration, Instant};

use super::ClusterArgs;
use super::cases::micros;
use super::members::Cluster;
use crate::beside::{Beside, Puts};
use crate::failure::Failure;
use crate::load::{Kind, LoadArgs, fill};
use crate::report::Report;
use crate::server_process::{Usage, allocated_bytes, machine_cpu};
use crate::side_by_side::Sample;

/// The size of what is written while a member is away: so large that a gigabyte takes seconds.
const VALUE_BYTES: usize = 4096;
/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a follower is down before memory is compared with what it is at the end.
const SETTLING: Duration = Duration::from_secs(5);
const MEGABYTE: f64 = 1e6;

/// The figures of a member that catches up.
#[cfg(test)]
pub const CATCH_UP_METRICS: [&str; 16] = [
    "fill s",
    "quiet p50 us",
    "quiet p99 us",
    "quiet max us",
    "catch-up s",
    "disturbed puts",
    "disturbed p50 us",
    "disturbed p99 us",
    "disturbed max us",
    "p99 disturbed / quiet",
    "leader CPU s",
    "leader anonymous MB",
    "returned CPU s",
    "returned anonymous MB",
    "returned data dir MB",
    "others busy %",
];

/// The figures while a follower is down.
#[cfg(test)]
pub const DOWN_METRICS: [&str; 12] = [
    "puts",
    "p50 us",
    "p99 us",
    "max us",
    "leader rss begin MB",
    "leader rss end MB",
    "leader anonymous begin MB",
    "leader anonymous end MB",
    "leader anonymous max MB",
    "leader data dir MB",
    "back after restart s",
    "others busy %",
];

/// Stops a follower, writes much, and starts the follower again under puts.
pub fn catch_up(cluster: &mut Cluster, args: &ClusterArgs) -> Result<Sample, Failure> {
    let epoch = Instant::now();
    let away = away(cluster)?;
    let leader = cluster.settled_leader()?.member;
    let filled = fill(
        &LoadArgs {
            keys: (args.catch_up_bytes / VALUE_BYTES as u64).max(1),
            value_size: VALUE_BYTES,
            ..LoadArgs::new(Kind::Fill, &cluster.endpoints(&cluster.running()))
        },
        epoch,
    )?;
    let puts = puts(cluster, args.put_rate, epoch);
    let before = puts.quiet(args.duration)?;
    let leader_before = cluster.usage(leader)?;
    let (machine_before, usages_before) = (machine_cpu()?, cluster.usages()?);
    let beside = puts.beside(|| {
        cluster.spawn(away)?;
        cluster.wait_level(away, leader)
    })?;
    let (machine_after, usages_after) = (machine_cpu()?, cluster.usages()?);
    let (leader_after, returned) = (cluster.usage(leader)?, cluster.usage(away)?);
    let data_bytes = allocated_bytes(cluster.data_dir(away))?;
    // Quiet times on both sides: disks have good and bad half minutes of their own.
    let mut quiet = puts.quiet(args.duration)?;
    quiet.merge(&before);
    let Beside { report, taken, .. } = beside;
    let cpu = |usages: &[Usage]| usages.iter().map(|usage| usage.cpu).sum::<Duration>();
    let others = machine_after
        .saturating_sub(machine_before)
        .saturating_sub(cpu(&usages_after).saturating_sub(cpu(&usages_before)))
        .saturating_sub(report.client_cpu);
    let seconds = report.elapsed.max(taken).as_secs_f64().max(1e-9);
    let [quiet_put, put] = [&quiet.tallies[0], &report.tallies[0]];
    let figures = vec![
        ("fill s", filled.elapsed.as_secs_f64()),
        ("quiet p50 us", micros(quiet_put, 0.5)),
        ("quiet p99 us", micros(quiet_put, 0.99)),
        ("quiet max us", micros(quiet_put, 1.0)),
        ("catch-up s", taken.as_secs_f64()),
        ("disturbed puts", put.operations_count as f64),
        ("disturbed p50 us", micros(put, 0.5)),
        ("disturbed p99 us", micros(put, 0.99)),
        ("disturbed max us", micros(put, 1.0)),
        ("p99 disturbed / quiet", micros(put, 0.99) / micros(quiet_put, 0.99)),
        ("leader CPU s", leader_after.cpu.saturating_sub(leader_before.cpu).as_secs_f64()),
        ("leader anonymous MB", leader_after.anonymous_bytes as f64 / MEGABYTE),
        ("returned CPU s", returned.cpu.as_secs_f64()),
        ("returned anonymous MB", returned.anonymous_bytes as f64 / MEGABYTE),
        ("returned data dir MB", data_bytes as f64 / MEGABYTE),
        ("others busy %", 100.0 * others.as_secs_f64() / seconds),
    ];
    Ok(sample(figures, &[filled, quiet, report]))
}

/// Stops a follower and looks at the leader's memory under puts.
pub fn follower_down(cluster: &mut Cluster, args: &ClusterArgs) -> Result<Sample, Failure> {
    let epoch = Instant::now();
    let away = away(cluster)?;
    let leader = cluster.settled_leader()?.member;
    let puts = puts(cluster, args.down_rate, epoch);
    let machine_before = machine_cpu()?;
    let usages_before = cluster.usages()?;
    let beside = puts.beside(|| {
        std::thread::sleep(SETTLING.min(args.down / 2));
        let begin = cluster.usage(leader)?;
        let (start, mut end, mut anonymous_bytes_max) = (Instant::now(), begin, 0);
        while start.elapsed() < args.down {
            std::thread::sleep(LOOK_INTERVAL);
            end = cluster.usage(leader)?;
            anonymous_bytes_max = end.anonymous_bytes.max(anonymous_bytes_max);
        }
        Ok((begin, end, anonymous_bytes_max))
    })?;
    let machine = machine_cpu()?.saturating_sub(machine_before);
    let cpu = |usages: &[Usage]| usages.iter().map(|usage| usage.cpu).sum::<Duration>();
    let servers = cpu(&cluster.usages()?).saturating_sub(cpu(&usages_before));
    let data_bytes = allocated_bytes(cluster.data_dir(leader))?;
    let Beside { report, taken, outcome: (begin, end, anonymous_bytes_max) } = beside;
    let others = machine.saturating_sub(servers).saturating_sub(report.client_cpu);
    let start = Instant::now();
    cluster.spawn(away)?;
    cluster.wait_level(away, leader)?;
    let put = &report.tallies[0];
    let figures = vec![
        ("puts", put.operations_count as f64),
        ("p50 us", micros(put, 0.5)),
        ("p99 us", micros(put, 0.99)),
        ("max us", micros(put, 1.0)),
        ("leader rss begin MB", begin.rss_bytes as f64 / MEGABYTE),
        ("leader rss end MB", end.rss_bytes as f64 / MEGABYTE),
        ("leader anonymous begin MB", begin.anonymous_bytes as f64 / MEGABYTE),
        ("leader anonymous end MB", end.anonymous_bytes as f64 / MEGABYTE),
        ("leader anonymous max MB", anonymous_bytes_max as f64 / MEGABYTE),
        ("leader data dir MB", data_bytes as f64 / MEGABYTE),
        ("back after restart s", start.elapsed().as_secs_f64()),
        ("others busy %", 100.0 * others.as_secs_f64() / taken.as_secs_f64().max(1e-9)),
    ];
    Ok(sample(figures, &[report]))
}

/// Stops a follower.
fn away(cluster: &mut Cluster) -> Result<usize, Failure> {
    let leader = cluster.settled_leader()?.member;
    let away = *cluster.others(leader).first().expect("a cluster has at least three members");
    cluster.stop(away)?;
    Ok(away)
}

/// Puts at the members that run now.
fn puts(cluster: &Cluster, rate: f64, epoch: Instant) -> Puts {
    let running = cluster.running();
    let addresses = running.iter().map(|&member| cluster.address(member)).collect();
    Puts { addresses, rate, epoch }
}

fn sample(figures: Vec<(&'static str, f64)>, reports: &[Report]) -> Sample {
    Sample {
        figures,
        clean: reports.iter().all(Report::is_clean),
        complaints: reports.iter().flat_map(|report| report.complaints.clone()).collect(),
    }
}
