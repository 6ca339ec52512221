//! `compat`: asks real etcd and ringd the same, and prints what they answer differently.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tools::compat::random::RandomPlan;
use tools::compat::run::{Plan, run};
use tools::compat::servers::Binaries;

/// Compares ringd with real etcd, answer by answer.
#[derive(Parser)]
struct Arguments {
    /// The real etcd.
    #[arg(long, value_name = "BINARY")]
    etcd: PathBuf,
    /// The ringd to compare with it.
    #[arg(long, value_name = "BINARY")]
    ringd: PathBuf,
    /// How many members each side has. Of several the second leads and the first is asked.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    members: usize,
    /// A directory for the servers' data; everything in it is removed again.
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Leaves the scripted cases out.
    #[arg(long)]
    no_corpus: bool,
    /// Prints the names of the scripted cases and ends.
    #[arg(long)]
    list: bool,
    /// How many random operations follow the scripted cases.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    operations: usize,
    /// Which random sequence. The default is another one each time.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How many random sequences run at the same time.
    #[arg(long, value_name = "COUNT", default_value = "3")]
    at_once: NonZeroUsize,
    /// How often a sequence with a difference is run again to make it shorter.
    #[arg(long, value_name = "COUNT", default_value_t = 60)]
    shrink_runs: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for case in tools::compat::corpus::corpus() {
            println!("{}", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |since| u64::from(since.subsec_nanos()))
    });
    let random = RandomPlan {
        seed,
        operations: arguments.operations,
        at_once: arguments.at_once.get(),
        shrink_runs: arguments.shrink_runs,
    };
    let directory = arguments.scratch.join(format!("compat-{}", std::process::id()));
    let plan = Plan {
        binaries: Binaries {
            etcd: arguments.etcd,
            ringd: arguments.ringd,
            scratch: directory.clone(),
            members: arguments.members.max(1),
        },
        filter: arguments.filter,
        has_corpus: !arguments.no_corpus,
        random,
    };
    let result = run(&plan);
    // The servers removed their own; what is left is the empty directory, if it was made at all.
    let _ = std::fs::remove_dir(&directory);
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compat: {error}");
            ExitCode::FAILURE
        }
    }
}
