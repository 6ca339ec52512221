//! `bench compare`: two servers side by side, on the same machine, in the same run.
//!
//! Rounds alternate: A, B, A, B and so on, each on a fresh data directory, with only one server
//! alive at a time, so that neither pays for the other's background work and a machine that grows
//! slower or faster meanwhile does it to both. A figure is the median of its rounds.
//!
//! Invariants:
//! - Both servers get the same requests: the seeds, keys and values of a round are the same.
//! - A wrong answer or a failed operation anywhere makes the whole comparison fail.

mod cases;
mod disturbed;
mod expect;
mod watchers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::Failure;
use crate::load::parse_duration;
use crate::server_process::{Server, ServerSpec};
use crate::side_by_side::{Samples, Side, case_name, measure_floor, print_machine};
pub use cases::Case;
use expect::EXPECTATIONS;

/// What to compare.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// The server that is compared with.
    #[arg(long)]
    pub a: PathBuf,
    /// The server that is compared; without it, only A is measured.
    #[arg(long)]
    pub b: Option<PathBuf>,
    /// Further arguments of A, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub a_args: String,
    /// Further arguments of B, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub b_args: String,
    /// How often each case is measured on each server.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// How often the cases that fill servers of their own (keys, compaction, snapshot, defrag,
    /// lease-expiry, watch-crowd, watch-catch-up, watch-stopped) are measured on each server; each
    /// takes a minute or more.
    #[arg(long, default_value_t = 1)]
    pub keys_rounds: usize,
    /// The cases; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Case>,
    /// For how long a case is loaded.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub duration: Duration,
    /// The keys of the case of many keys.
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// The revisions that the compaction finds.
    #[arg(long, default_value_t = 1_000_000)]
    pub revisions: u64,
    /// How much is in the server of the snapshot, and was in that of the defragmentation.
    #[arg(long, default_value_t = 750)]
    pub megabytes: u64,
    /// The leases that run out at once.
    #[arg(long, default_value_t = 10_000)]
    pub leases: u64,
    /// The watchers of the crowd.
    #[arg(long, default_value_t = 10_000)]
    pub watchers: usize,
    /// Puts a second that the crowd is told, beside those that are timed.
    #[arg(long, default_value_t = 20.0)]
    pub watched_rate: f64,
    /// The revisions that a late watcher catches up with.
    #[arg(long, default_value_t = 500_000)]
    pub watch_revisions: u64,
    /// Puts a second (open loop) in the cases that disturb them.
    #[arg(long, default_value_t = 500.0)]
    pub put_rate: f64,
    /// For how long the case of many keys leaves the server alone before its second kill.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub quiet: Duration,
    /// Take a sample again, so often at most, if others kept the machine busy meanwhile.
    #[arg(long, default_value_t = 0)]
    pub retakes: usize,
    /// The directory under which the data directories are made, on the disk that counts.
    #[arg(long, default_value = ".")]
    pub data_dir: PathBuf,
    /// Append every sample to this file, one JSON object a line.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Judge B against A by the ratios that were promised.
    #[arg(long, requires = "b")]
    pub expect: bool,
}

/// Runs the command.
pub fn command(args: &CompareArgs) -> Result<bool, Failure> {
    if [args.put_rate, args.watched_rate].iter().any(|rate| !rate.is_finite() || *rate <= 0.0) {
        return Err(Failure::new("--put-rate and --watched-rate must be above 0"));
    }
    if args.watchers < watchers::CROWD_CONNECTIONS || args.watch_revisions == 0 {
        return Err(Failure::new("--watchers must be at least 10, --watch-revisions above 0"));
    }
    if [args.keys, args.revisions, args.megabytes, args.leases].contains(&0) {
        return Err(Failure::new("--keys, --revisions, --megabytes and --leases must be above 0"));
    }
    let mut comparison = Comparison::new(args)?;
    let b = args.b.as_ref().map(|b| (b.as_path(), args.b_args.as_str()));
    let sides: Vec<_> =
        std::iter::once((args.a.as_path(), args.a_args.as_str())).chain(b).collect();
    print_machine(&sides);
    measure_floor(&comparison.dir)?;
    for round in 0..args.rounds.max(args.keys_rounds) {
        for side in [Side::A, Side::B] {
            if side == Side::A || args.b.is_some() {
                comparison.run_round(side, round)?;
            }
        }
    }
    measure_floor(&comparison.dir)?;
    let expected = |case| args.expect && comparison.wants(case);
    let expectations: Vec<_> = EXPECTATIONS.iter().filter(|each| expected(each.case)).collect();
    let passed = comparison.samples.print_table(&expectations);
    Ok(passed && comparison.samples.clean)
}

struct Comparison<'a> {
    args: &'a CompareArgs,
    dir: PathBuf,
    samples: Samples<Case>,
}

impl<'a> Comparison<'a> {
    fn new(args: &'a CompareArgs) -> Result<Self, Failure> {
        let dir = args.data_dir.join(format!("bench-compare-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(Failure::of(format!("create {}", dir.display())))?;
        Ok(Self { args, dir, samples: Samples::new(args.out.as_deref())? })
    }

    fn wants(&self, case: Case) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&case)
    }

    fn run_round(&mut self, side: Side, round: usize) -> Result<(), Failure> {
        let steady: Vec<Case> = Case::STEADY.into_iter().filter(|&case| self.wants(case)).collect();
        if round < self.args.rounds && !steady.is_empty() {
            let spec = self.spec(side, round, "steady")?;
            let mut server = Server::start(&spec)?;
            let measured = self.measure_steady(&server, side, round, &steady);
            measured.map_err(|failure| server.explain(failure))?;
            server.stop()?;
            spec.remove()?;
        }
        if round < self.args.keys_rounds && self.wants(Case::Keys) {
            // Killed at once on one data directory and after a rest on another: the first kill must
            // not leave its mark on the second.
            let spec = self.spec(side, round, "keys-killed")?;
            let mut sample = cases::keys_killed(&spec, self.args.keys)?;
            spec.remove()?;
            let spec = self.spec(side, round, "keys-rested")?;
            sample.merge(cases::keys_rested(&spec, self.args.keys, self.args.quiet)?);
            spec.remove()?;
            self.samples.take(side, round, Case::Keys, sample)?;
        }
        for case in Case::DISTURBED {
            if round < self.args.keys_rounds && self.wants(case) {
                let spec = self.spec(side, round, &case_name(case))?;
                let sample = disturbed::measure_case(case, &spec, self.args)?;
                spec.remove()?;
                self.samples.take(side, round, case, sample)?;
            }
        }
        Ok(())
    }

    fn measure_steady(
        &mut self,
        server: &Server,
        side: Side,
        round: usize,
        steady: &[Case],
    ) -> Result<(), Failure> {
        let epoch = Instant::now();
        self.samples.clean &= cases::prepare(server, epoch, steady.contains(&Case::KeepAlive))?;
        for &case in steady {
            let mut sample = cases::measure(case, server, self.args.duration, epoch)?;
            for _ in 0..self.args.retakes {
                // What was wrong in a disturbed sample was wrong: only clean ones are retaken.
                if !sample.is_disturbed() || !sample.clean {
                    break;
                }
                sample = cases::measure(case, server, self.args.duration, epoch)?;
            }
            self.samples.take(side, round, case, sample)?;
        }
        Ok(())
    }

    fn spec(&self, side: Side, round: usize, name: &str) -> Result<ServerSpec, Failure> {
        let (binary, extra) = match side {
            Side::A => (&self.args.a, &self.args.a_args),
            Side::B => {
                let binary = self.args.b.as_ref().expect("B is run only when it is given");
                (binary, &self.args.b_args)
            }
        };
        let extra: Vec<String> = extra.split_whitespace().map(str::to_owned).collect();
        let dir = self.dir.join(format!("{side:?}-{round}-{name}"));
        ServerSpec::new(binary, &extra, &dir)
    }
}

impl Drop for Comparison<'_> {
    fn drop(&mut self) {
        // The logs of servers that failed stay; an empty directory goes.
        let _ = std::fs::remove_dir(&self.dir);
    }
}
