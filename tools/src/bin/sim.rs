//! `cargo sim`: simulated clusters, seed by seed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use clap::Parser;
use tools::sim::{Report, Settings, run};

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
    /// Seeds that run at the same time, each in a thread of its own; as many as there are cores
    /// unless told.
    #[arg(long)]
    jobs: Option<usize>,
    /// Tell everything that happens; then one seed runs after the other.
    #[arg(long)]
    trace: bool,
    /// Go on behind a seed that fails.
    #[arg(long)]
    keep_going: bool,
}

/// What the runs of many seeds came to.
#[derive(Default)]
struct Sum {
    failed: u64,
    operations: usize,
    answered: usize,
}

/// How a run went, under its seed.
type Outcome = (u64, Result<Report, String>);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let sum = run_all(&arguments);
    let Sum { failed, operations, answered } = sum;
    let took = begun.elapsed();
    println!("{failed} failed, {operations} operations, {answered} answered, {took:.1?}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all seeds, each in one thread, and tells of them in their order.
fn run_all(arguments: &Arguments) -> Sum {
    let settings = Settings {
        members: arguments.members.and_then(|members| usize::try_from(members).ok()),
        duration_ms: arguments.duration_ms,
        is_told: arguments.trace,
    };
    // What is told of two runs at a time would be told of none.
    let jobs = if arguments.trace { 1 } else { arguments.jobs.unwrap_or_else(cores).max(1) };
    let end = arguments.seed.saturating_add(arguments.seeds);
    let next = AtomicU64::new(arguments.seed);
    let take = || {
        let more = |seed| (seed < end).then_some(seed + 1);
        next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()
    };
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some(seed) = take() {
                    // Nobody listens any more: a seed before this one has failed.
                    if sender.send((seed, run(seed, settings))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        add_up(arguments, receiver)
    })
}

/// Adds up what the runs came to, seed after seed, until one fails that was to be the last.
fn add_up(arguments: &Arguments, outcomes: Receiver<Outcome>) -> Sum {
    let mut sum = Sum::default();
    let mut early = BTreeMap::new();
    let mut next = arguments.seed;
    for (seed, outcome) in outcomes {
        early.insert(seed, outcome);
        while let Some(outcome) = early.remove(&next) {
            match outcome {
                Ok(report) => {
                    sum.operations += report.operations;
                    sum.answered += report.answered;
                    if arguments.seeds == 1 {
                        println!("seed {next}: {report:?}");
                    }
                }
                Err(wrong) => {
                    sum.failed += 1;
                    println!("seed {next}: FAILED: {wrong}");
                    if !arguments.keep_going {
                        return sum;
                    }
                }
            }
            next += 1;
        }
    }
    sum
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
