//! `cargo drill`: clusters of real processes in trouble.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use tools::drill::trouble::Trouble;
use tools::drill::{Settings, run};

/// Founds a cluster, lets trouble strike it under load, and judges what its clients were told.
///
/// Partitions, delay and loss need network namespaces, full and slow disks need loop devices and
/// control groups, so all of it needs root; what cannot be had is named, and the rest is run on
/// loopback.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server: ringd beside this program unless told; etcd takes the same flags.
    #[arg(long, value_name = "BINARY")]
    bin: Option<PathBuf>,
    /// Further arguments of each member, separated by spaces.
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "--snapshot-count 500 --snapshot-catchup-entries 100"
    )]
    args: String,
    /// How many members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    members: u8,
    /// How many clients.
    #[arg(long, default_value_t = 12)]
    clients: u64,
    /// What strikes whom is derived from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often trouble strikes: each kind once and some together unless told.
    #[arg(long)]
    rounds: Option<usize>,
    /// Which kinds of trouble, separated by commas: all unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    troubles: Vec<Trouble>,
    /// How long trouble lasts.
    #[arg(long, default_value_t = 2.0)]
    trouble_seconds: f64,
    /// How long a stopped member is stopped.
    #[arg(long, default_value_t = 4.0)]
    stop_seconds: f64,
    /// How long a cluster may be without life that nothing ails any more.
    #[arg(long, default_value_t = 30.0)]
    bound_seconds: f64,
    /// A directory for data and logs, which are removed unless the drill fails.
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Do without namespaces.
    #[arg(long)]
    no_network: bool,
    /// Do without disks of the drill's own.
    #[arg(long)]
    no_disks: bool,
    /// Keep the logs of a drill that passes, too.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.parent()?.join("ringd"))
    };
    let Some(binary) = arguments.bin.or_else(beside) else {
        eprintln!("drill: --bin is needed");
        return ExitCode::FAILURE;
    };
    let settings = Settings {
        binary,
        args: arguments.args.split_whitespace().map(str::to_owned).collect(),
        members: arguments.members.into(),
        clients: arguments.clients,
        seed: arguments.seed,
        rounds: arguments.rounds,
        troubles: arguments.troubles,
        trouble_time: Duration::from_secs_f64(arguments.trouble_seconds.clamp(0.0, 1e6)),
        stop_time: Duration::from_secs_f64(arguments.stop_seconds.clamp(0.0, 1e6)),
        bound: Duration::from_secs_f64(arguments.bound_seconds.clamp(0.0, 1e6)),
        scratch: arguments.scratch,
        has_network: !arguments.no_network,
        has_disks: !arguments.no_disks,
        keeps_logs: arguments.keep,
    };
    let begun = Instant::now();
    match run(&settings) {
        Ok(()) => {
            println!("PASS in {:.1?}", begun.elapsed());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("FAIL: {failure}");
            ExitCode::FAILURE
        }
    }
}
