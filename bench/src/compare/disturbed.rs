//! Puts at a fixed rate, first at quiet times and then beside something large that the server does
//! meanwhile: what it costs those who only want to write.
//!
//! Each case starts a server of its own and fills it, so that none finds what another left. The
//! puts go to keys of their own, in an open loop: a put that could not be sent in time waits as
//! much as one that was sent and not answered, so a server that stands still pays for all of it.
//!
//! Invariants:
//! - A disturbance that failed, or that the server does not serve, makes the sample unclean; what
//!   was measured of a server that stands still is never a good figure.

use std::time::{Duration, Instant};

use super::{Case, CompareArgs, watchers};
use crate::beside::{Beside, PUT_PREFIX, Puts};
use crate::client::blocking::Blocking;
use crate::failure::Failure;
use crate::load::{Kind, LoadArgs, fill, grant, lease_space, measure, resolve, resolve_all};
use crate::proto::{self, RangeAnswer, RangeRequest, SnapshotSizes, WriteAnswer};
use crate::report::Report;
use crate::server_process::{Server, ServerSpec, allocated_bytes, machine_cpu};
use crate::side_by_side::Sample;
use crate::workload::KeySpace;

/// The keys whose history is compacted: few, so that nearly all of it goes.
const HISTORY_KEYS: u64 = 1000;
/// Values of the cases that are about size, so large that filling takes less time than measuring.
const VOLUME_VALUE_BYTES: usize = 4096;
/// Of as many keys as this, the defragmentation finds one still there.
const DEFRAG_KEYS_PER_SURVIVOR: u64 = 4;
/// The shortest time to live in which both servers grant ten thousand leases before the first of
/// them runs out; then all run out within the time that the granting took.
const LEASE_TTL_SECONDS: u64 = 5;
/// A disturbance that has not ended by then never will.
const DISTURBANCE_TIME_MAX: Duration = Duration::from_secs(600);
/// How often the keys of the leases are counted.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);
const MEGABYTE: f64 = 1e6;

/// The figures of each of the cases.
#[cfg(test)]
pub const METRICS: [&str; 13] = [
    "fill s",
    "quiet p50 us",
    "quiet p99 us",
    "quiet max us",
    "disturbance s",
    "disturbed puts",
    "disturbed p50 us",
    "disturbed p99 us",
    "disturbed max us",
    "p99 disturbed / quiet",
    "max beyond quiet ms",
    "disturbance server CPU s",
    "others busy %",
];

/// Measures one of the cases on a server of its own.
pub fn measure_case(case: Case, spec: &ServerSpec, args: &CompareArgs) -> Result<Sample, Failure> {
    let mut server = Server::start(spec)?;
    let bed = Bed { server: &server, spec, args, epoch: Instant::now() };
    let measured = match case {
        Case::Compaction => bed.compaction(),
        Case::Snapshot => bed.snapshot(),
        Case::Defrag => bed.defrag(),
        Case::LeaseExpiry => bed.lease_expiry(),
        Case::WatchCrowd => bed.watch_crowd(),
        Case::WatchCatchUp => bed.watch_catch_up(),
        Case::WatchStopped => bed.watch_stopped(),
        _ => unreachable!("{case:?} shares a server with others"),
    };
    let sample = match measured {
        Ok(sample) => sample,
        // What one server does not serve is no reason to leave the other cases out.
        Err(failure) => Sample {
            figures: Vec::new(),
            clean: false,
            complaints: vec![server.explain(failure).to_string()],
        },
    };
    server.stop()?;
    Ok(sample)
}

/// A case while it is measured.
struct Bed<'a> {
    server: &'a Server,
    spec: &'a ServerSpec,
    args: &'a CompareArgs,
    epoch: Instant,
}

/// What a disturbance gave beside the time it took.
pub type Extra = Vec<(&'static str, f64)>;

impl Bed<'_> {
    /// Compacts all revisions of a few keys, and waits until the history is gone.
    fn compaction(&self) -> Result<Sample, Failure> {
        let filled = measure(&self.history(self.args.revisions), self.epoch)?;
        self.disturb(&filled, |client| {
            let newest = head(client)?;
            compact(client, newest)?;
            Ok(Vec::new())
        })
    }

    /// Streams a backup, as fast as it comes.
    fn snapshot(&self) -> Result<Sample, Failure> {
        let filled = fill(&self.volume(), self.epoch)?;
        self.disturb(&filled, |client| {
            let size = stream_snapshot(client)?;
            Ok(vec![("snapshot MB", size as f64 / MEGABYTE)])
        })
    }

    /// Defragments a file most of which is free.
    fn defrag(&self) -> Result<Sample, Failure> {
        let volume = self.volume();
        let filled = fill(&volume, self.epoch)?;
        let mut client = self.client()?;
        let space = KeySpace {
            prefix: volume.prefix.clone(),
            count: volume.keys,
            seed: volume.seed,
            value_size_bytes: volume.value_size,
        };
        let survivors = (volume.keys / DEFRAG_KEYS_PER_SURVIVOR).max(1);
        let mut request = Vec::new();
        proto::write_delete_range(&mut request, &space.key(survivors), &space.range_end());
        let answer = client.call(proto::DELETE_RANGE, &request)?;
        let deleted = WriteAnswer::read(&answer).map_err(|_| malformed("deletion"))?;
        if deleted.deleted != volume.keys - survivors {
            return Err(Failure::new(format!("{} keys were deleted", deleted.deleted)));
        }
        compact(&mut client, deleted.revision)?;
        let before_bytes = allocated_bytes(&self.spec.data_dir)?;
        self.disturb(&filled, |client| {
            let answer = client.call(proto::DEFRAGMENT, &[])?;
            WriteAnswer::read(&answer).map_err(|_| malformed("defragmentation"))?;
            let after_bytes = allocated_bytes(&self.spec.data_dir)?;
            Ok(vec![
                ("data dir before MB", before_bytes as f64 / MEGABYTE),
                ("data dir after MB", after_bytes as f64 / MEGABYTE),
            ])
        })
    }

    /// Lets leases run out, from the first key that goes to the last.
    fn lease_expiry(&self) -> Result<Sample, Failure> {
        let args = LoadArgs {
            leases: self.args.leases,
            ttl_seconds: LEASE_TTL_SECONDS,
            ..LoadArgs::new(Kind::Grant, &self.server.endpoint())
        };
        let before = self.quiet()?;
        let granted = grant(&args, self.epoch)?;
        let space = lease_space(&args);
        let mut client = self.client()?;
        let limit = Instant::now() + DISTURBANCE_TIME_MAX;
        await_count(&mut client, &space, limit, |count| count < args.leases)?;
        let disturbed = self.disturbed(|client| {
            await_count(client, &space, limit, |count| count == 0)?;
            Ok(Vec::new())
        })?;
        let mut quiet = self.quiet()?;
        quiet.merge(&before);
        Ok(Self::sample(&granted, &quiet, disturbed))
    }

    /// Tells ten thousand watchers what is put beside the puts that are timed.
    fn watch_crowd(&self) -> Result<Sample, Failure> {
        let crowd = watchers::crowd(&self.server.endpoint(), self.args);
        let filled = fill(&crowd, self.epoch)?;
        self.disturb(&filled, |_| {
            let extra = watchers::watch(&crowd, self.epoch)?;
            self.with_memory(extra)
        })
    }

    /// Tells a watcher a long history, as fast as it reads.
    fn watch_catch_up(&self) -> Result<Sample, Failure> {
        let load = self.history(self.args.watch_revisions);
        let before = head(&mut self.client()?)?;
        let filled = measure(&load, self.epoch)?;
        let last = head(&mut self.client()?)?;
        self.disturb(&filled, |client| {
            let extra = watchers::catch_up(client, &load, before + 1, last)?;
            self.with_memory(extra)
        })
    }

    /// Lets watchers of the very puts that are timed read nothing.
    fn watch_stopped(&self) -> Result<Sample, Failure> {
        let filled = fill(&watchers::crowd(&self.server.endpoint(), self.args), self.epoch)?;
        self.disturb(&filled, |_| {
            let deaf = watchers::deaf(|| self.client(), PUT_PREFIX)?;
            std::thread::sleep(self.args.duration);
            let extra = self.with_memory(Vec::new());
            drop(deaf);
            extra
        })
    }

    /// What the server holds while the disturbance is there.
    fn with_memory(&self, mut extra: Extra) -> Result<Extra, Failure> {
        let usage = self.server.usage()?;
        extra.push(("anonymous MB", usage.anonymous_bytes as f64 / MEGABYTE));
        Ok(extra)
    }

    /// Puts that make a history of a few keys.
    fn history(&self, revisions: u64) -> LoadArgs {
        LoadArgs {
            connections: 10,
            streams: 100,
            keys: HISTORY_KEYS,
            operations: Some(revisions),
            ..LoadArgs::new(Kind::Put, &self.server.endpoint())
        }
    }

    /// Keys and values that take up as much room as was asked for.
    fn volume(&self) -> LoadArgs {
        let bytes = self.args.megabytes.saturating_mul(1_000_000);
        LoadArgs {
            keys: (bytes / VOLUME_VALUE_BYTES as u64).max(DEFRAG_KEYS_PER_SURVIVOR),
            value_size: VOLUME_VALUE_BYTES,
            ..LoadArgs::new(Kind::Fill, &self.server.endpoint())
        }
    }

    fn client(&self) -> Result<Blocking, Failure> {
        Blocking::connect(resolve(&self.server.endpoint())?, DISTURBANCE_TIME_MAX)
    }

    fn disturb(
        &self,
        filled: &Report,
        disturbance: impl FnOnce(&mut Blocking) -> Result<Extra, Failure>,
    ) -> Result<Sample, Failure> {
        let before = self.quiet()?;
        let disturbed = self.disturbed(disturbance)?;
        // Quiet times on both sides: disks have good and bad half minutes of their own.
        let mut quiet = self.quiet()?;
        quiet.merge(&before);
        Ok(Self::sample(filled, &quiet, disturbed))
    }

    /// The puts of a quiet time.
    fn quiet(&self) -> Result<Report, Failure> {
        self.puts()?.quiet(self.args.duration)
    }

    /// Puts until the disturbance is over.
    fn disturbed(
        &self,
        disturbance: impl FnOnce(&mut Blocking) -> Result<Extra, Failure>,
    ) -> Result<Disturbed, Failure> {
        let mut client = self.client()?;
        let (machine_before, before) = (machine_cpu()?, self.server.usage()?);
        let beside = self.puts()?.beside(|| disturbance(&mut client))?;
        let (machine_after, after) = (machine_cpu()?, self.server.usage()?);
        let server_cpu = after.cpu.saturating_sub(before.cpu);
        let others = machine_after.saturating_sub(machine_before).saturating_sub(server_cpu);
        let others = others.saturating_sub(beside.report.client_cpu);
        Ok(Disturbed { beside, server_cpu, others })
    }

    fn puts(&self) -> Result<Puts, Failure> {
        let addresses = resolve_all(&self.server.endpoint())?;
        Ok(Puts { addresses, rate: self.args.put_rate, epoch: self.epoch })
    }

    /// Sets the puts beside a disturbance against the quiet ones.
    fn sample(filled: &Report, quiet: &Report, disturbed: Disturbed) -> Sample {
        let Disturbed { beside, server_cpu, others } = disturbed;
        let Beside { report, taken, outcome: extra } = beside;
        let micros =
            |report: &Report, quantile| report.tallies[0].quantile_ns(quantile) as f64 / 1e3;
        let seconds = report.elapsed.max(taken).as_secs_f64().max(1e-9);
        let mut figures = vec![
            ("fill s", filled.elapsed.as_secs_f64()),
            ("quiet p50 us", micros(quiet, 0.5)),
            ("quiet p99 us", micros(quiet, 0.99)),
            ("quiet max us", micros(quiet, 1.0)),
            ("disturbance s", taken.as_secs_f64()),
            ("disturbed puts", report.tallies[0].operations_count as f64),
            ("disturbed p50 us", micros(&report, 0.5)),
            ("disturbed p99 us", micros(&report, 0.99)),
            ("disturbed max us", micros(&report, 1.0)),
            ("p99 disturbed / quiet", micros(&report, 0.99) / micros(quiet, 0.99)),
            ("max beyond quiet ms", (micros(&report, 1.0) - micros(quiet, 1.0)) / 1e3),
            ("disturbance server CPU s", server_cpu.as_secs_f64()),
            ("others busy %", 100.0 * others.as_secs_f64() / seconds),
        ];
        figures.extend(extra);
        Sample {
            figures,
            clean: filled.is_clean() && quiet.is_clean() && report.is_clean(),
            complaints: [&filled.complaints, &quiet.complaints, &report.complaints]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        }
    }
}

/// Puts beside a disturbance, and what else it took.
struct Disturbed {
    beside: Beside<Extra>,
    server_cpu: Duration,
    /// What neither the server nor the client used.
    others: Duration,
}

/// The newest revision, by a linearizable read.
fn head(client: &mut Blocking) -> Result<u64, Failure> {
    let mut request = Vec::new();
    proto::write_range(&mut request, &RangeRequest { key: b"\0", ..Default::default() });
    let answer = client.call(proto::RANGE, &request)?;
    Ok(RangeAnswer::read(&answer).map_err(|_| malformed("range"))?.revision)
}

/// Compacts up to a revision and waits until the history is swept away.
fn compact(client: &mut Blocking, revision: u64) -> Result<(), Failure> {
    let mut request = Vec::new();
    proto::write_compact(&mut request, revision, true);
    let answer = client.call(proto::COMPACT, &request)?;
    WriteAnswer::read(&answer).map_err(|_| malformed("compaction"))?;
    Ok(())
}

/// Streams a backup to nowhere and gives its size.
fn stream_snapshot(client: &mut Blocking) -> Result<u64, Failure> {
    let mut sizes = SnapshotSizes::default();
    let ended = client.try_stream(proto::SNAPSHOT, &[], |part| sizes.handle_message(part))?;
    ended.map_err(|status| status.failure(proto::SNAPSHOT))?;
    sizes.finish().map_err(Failure::new)
}

/// Counts the keys of a space until the count is a wanted one.
fn await_count(
    client: &mut Blocking,
    space: &KeySpace,
    limit: Instant,
    wanted: impl Fn(u64) -> bool,
) -> Result<(), Failure> {
    let mut request = Vec::new();
    let range = RangeRequest {
        key: space.prefix.as_bytes(),
        range_end: &space.range_end(),
        limit: 1,
        ..Default::default()
    };
    proto::write_range(&mut request, &range);
    loop {
        let answer = client.call(proto::RANGE, &request)?;
        let count = RangeAnswer::read(&answer).map_err(|_| malformed("range"))?.count;
        if wanted(count) {
            return Ok(());
        }
        if Instant::now() > limit {
            return Err(Failure::new(format!("{count} keys of leases are still there")));
        }
        std::thread::sleep(COUNT_INTERVAL);
    }
}

fn malformed(what: &str) -> Failure {
    Failure::new(format!("the answer to a {what} is malformed"))
}
