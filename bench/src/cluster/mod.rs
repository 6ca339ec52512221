//! `bench cluster`: a cluster of each of two servers side by side, on the same machine, in the same
//! run.
//!
//! Rounds alternate as those of `compare` do: a whole cluster of A, then one of B, each on fresh
//! data directories, with only one cluster alive at a time. All members run here, so what each of
//! them costs is paid from the same cores.
//!
//! Invariants:
//! - Both clusters get the same requests, the same settings of elections and the same flags.
//! - A wrong answer anywhere, a failed operation where none is part of the case, and members that
//!   differ at the end make the whole comparison fail.

mod cases;
mod expect;
mod failover;
mod lagging;
mod members;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::Failure;
use crate::load::parse_duration;
use crate::side_by_side::{Sample, Samples, Side, case_name, measure_floor, print_machine};
pub use cases::Case;
use expect::EXPECTATIONS;
use members::Cluster;

/// What to compare.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// The server whose cluster is compared with.
    #[arg(long)]
    pub a: PathBuf,
    /// The server whose cluster is compared; without it, only A is measured.
    #[arg(long)]
    pub b: Option<PathBuf>,
    /// Further arguments of A's members, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub a_args: String,
    /// Further arguments of B's members, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub b_args: String,
    /// How many members a cluster has.
    #[arg(long, default_value_t = 3)]
    pub members: usize,
    /// How often each case is measured on each cluster.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// How often the cases of a member that lags (catch-up, follower-down) are measured; each takes
    /// minutes and gigabytes.
    #[arg(long, default_value_t = 1)]
    pub lagging_rounds: usize,
    /// The cases; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Case>,
    /// For how long a case is loaded.
    #[arg(long, default_value = "4s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How often the leader is killed in a round.
    #[arg(long, default_value_t = 5)]
    pub failovers: usize,
    /// How much is written while a member is away.
    #[arg(long, default_value_t = 1 << 30)]
    pub catch_up_bytes: u64,
    /// Puts a second (open loop) in failover and catch-up.
    #[arg(long, default_value_t = 500.0)]
    pub put_rate: f64,
    /// Puts a second (open loop) while a follower stays down.
    #[arg(long, default_value_t = 5000.0)]
    pub down_rate: f64,
    /// For how long a follower stays down.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub down: Duration,
    /// The directory under which the data directories are made, on the disk that counts.
    #[arg(long, default_value = ".")]
    pub data_dir: PathBuf,
    /// Append every sample to this file, one JSON object a line.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Judge B against A by what was promised.
    #[arg(long, requires = "b")]
    pub expect: bool,
}

/// Runs the command.
pub fn command(args: &ClusterArgs) -> Result<bool, Failure> {
    check(args)?;
    let mut comparison = Comparison::new(args)?;
    let b = args.b.as_ref().map(|b| (b.as_path(), args.b_args.as_str()));
    let sides: Vec<_> =
        std::iter::once((args.a.as_path(), args.a_args.as_str())).chain(b).collect();
    print_machine(&sides);
    measure_floor(&comparison.dir)?;
    for round in 0..args.rounds.max(args.lagging_rounds) {
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

/// Refuses what cannot be run.
fn check(args: &ClusterArgs) -> Result<(), Failure> {
    if [args.put_rate, args.down_rate].iter().any(|rate| !rate.is_finite() || *rate <= 0.0) {
        return Err(Failure::new("--put-rate and --down-rate must be above 0"));
    }
    if !(3..=9).contains(&args.members) {
        return Err(Failure::new("--members must be 3 to 9: fewer do not outlive one of them"));
    }
    if args.failovers == 0 || args.catch_up_bytes == 0 || args.duration.is_zero() {
        let text = "--failovers, --catch-up-bytes and --duration must be above 0";
        return Err(Failure::new(text));
    }
    Ok(())
}

struct Comparison<'a> {
    args: &'a ClusterArgs,
    dir: PathBuf,
    samples: Samples<Case>,
}

impl<'a> Comparison<'a> {
    fn new(args: &'a ClusterArgs) -> Result<Self, Failure> {
        let dir = args.data_dir.join(format!("bench-cluster-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(Failure::of(format!("create {}", dir.display())))?;
        Ok(Self { args, dir, samples: Samples::new(args.out.as_deref())? })
    }

    fn wants(&self, case: Case) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&case)
    }

    fn run_round(&mut self, side: Side, round: usize) -> Result<(), Failure> {
        let steady: Vec<Case> = Case::STEADY.into_iter().filter(|&case| self.wants(case)).collect();
        if round < self.args.rounds && !steady.is_empty() {
            let mut cluster = self.found(side, round, "steady")?;
            let measured = self.measure_steady(&cluster, side, round, &steady);
            measured.map_err(|failure| cluster.explain(failure))?;
            cluster.remove()?;
        }
        for case in [Case::Failover, Case::CatchUp, Case::FollowerDown] {
            let rounds = match case {
                Case::Failover => self.args.rounds,
                _ => self.args.lagging_rounds,
            };
            if round >= rounds || !self.wants(case) {
                continue;
            }
            let mut cluster = self.found(side, round, &case_name(case))?;
            let measured = match case {
                Case::Failover => failover::measure(&mut cluster, self.args),
                Case::CatchUp => lagging::catch_up(&mut cluster, self.args),
                _ => lagging::follower_down(&mut cluster, self.args),
            };
            let sample = match measured {
                Ok(mut sample) => {
                    check_same(&cluster, &mut sample)?;
                    cluster.remove()?;
                    sample
                }
                // What one cluster does not stand is no reason to leave the other cases out.
                Err(failure) => Sample {
                    figures: Vec::new(),
                    clean: false,
                    complaints: vec![cluster.explain(failure).to_string()],
                },
            };
            self.samples.take(side, round, case, sample)?;
        }
        Ok(())
    }

    fn measure_steady(
        &mut self,
        cluster: &Cluster,
        side: Side,
        round: usize,
        steady: &[Case],
    ) -> Result<(), Failure> {
        let epoch = Instant::now();
        self.samples.clean &= cases::prepare(cluster, epoch)?;
        for (place, &case) in steady.iter().enumerate() {
            let mut sample = cases::measure(case, cluster, self.args.duration, epoch)?;
            if place + 1 == steady.len() {
                check_same(cluster, &mut sample)?;
            }
            self.samples.take(side, round, case, sample)?;
        }
        Ok(())
    }

    fn found(&self, side: Side, round: usize, name: &str) -> Result<Cluster, Failure> {
        let (binary, extra) = match side {
            Side::A => (&self.args.a, &self.args.a_args),
            Side::B => {
                let binary = self.args.b.as_ref().expect("B is run only when it is given");
                (binary, &self.args.b_args)
            }
        };
        let extra: Vec<String> = extra.split_whitespace().map(str::to_owned).collect();
        let dir = self.dir.join(format!("{side:?}-{round}-{name}"));
        Cluster::found(binary, &extra, &dir, self.args.members)
    }
}

impl Drop for Comparison<'_> {
    fn drop(&mut self) {
        // The logs of members that failed stay; an empty directory goes.
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Members that differ at the end of a case make it unclean.
fn check_same(cluster: &Cluster, sample: &mut Sample) -> Result<(), Failure> {
    let differences = cluster.differences()?;
    sample.clean &= differences.is_empty();
    sample.complaints.extend(differences);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ClusterArgs,
    }

    fn parse(line: &str) -> ClusterArgs {
        Cli::try_parse_from(line.split_whitespace()).unwrap().args
    }

    #[test]
    fn cases_are_chosen_by_name() {
        let args = parse("bench --a x --only put-1x1,failover --duration 250ms");
        assert_eq!(args.only, [Case::Put1x1, Case::Failover]);
        assert_eq!(args.duration, Duration::from_millis(250));
        assert!(check(&args).is_ok());
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for line in ["--members 1", "--failovers 0", "--put-rate 0", "--down-rate inf"] {
            assert!(check(&parse(&format!("bench --a x {line}"))).is_err(), "{line}");
        }
        assert!(Cli::try_parse_from(["bench", "--a", "x", "--expect"]).is_err());
    }
}
