//! `cargo sim`: simulated clusters, seed by seed.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tools::sim::{Settings, run};

/// Runs simulated clusters from seeds. A seed that fails is printed with what went wrong; the same
/// seed replays it.
#[derive(Debug, Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, from the first on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Members of the cluster; the seed chooses 3 to 5 unless told.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=7))]
    members: Option<u64>,
    /// Milliseconds of virtual time in which things go wrong; the seed chooses unless told.
    #[arg(long)]
    duration_ms: Option<u64>,
    /// Tell everything that happens.
    #[arg(long)]
    trace: bool,
    /// Go on behind a seed that fails.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = Settings {
        members: arguments.members.and_then(|members| usize::try_from(members).ok()),
        duration_ms: arguments.duration_ms,
        is_told: arguments.trace,
    };
    let begun = Instant::now();
    let (mut failed, mut operations, mut answered) = (0_u64, 0, 0);
    let end = arguments.seed.saturating_add(arguments.seeds);
    for seed in arguments.seed..end {
        match run(seed, settings) {
            Ok(report) => {
                operations += report.operations;
                answered += report.answered;
                if arguments.seeds == 1 {
                    println!("seed {seed}: {report:?}");
                }
            }
            Err(wrong) => {
                failed += 1;
                println!("seed {seed}: FAILED: {wrong}");
                if !arguments.keep_going {
                    break;
                }
            }
        }
    }
    let took = begun.elapsed();
    println!("{failed} failed, {operations} operations, {answered} answered, {took:.1?}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
