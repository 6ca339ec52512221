//! The load generator and side-by-side harness: it speaks the wire only and links no other crate of
//! the workspace, so that it measures and checks any server of etcd's v3 API alike.
//!
//! It exits with 0 when all went well, with 1 when an answer was wrong, an operation failed or an
//! expectation was missed, and with 2 when it could not do what it was asked to.

mod beside;
mod client;
mod cluster;
mod compare;
mod disk;
mod drill;
mod failure;
mod load;
mod proto;
mod report;
mod run;
mod schedule;
mod server_process;
mod side_by_side;
mod target;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Loads a server of etcd's v3 API, checks every answer and compares servers.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one workload against a running server.
    Load(load::LoadArgs),
    /// Measure two servers side by side.
    Compare(compare::CompareArgs),
    /// Measure clusters of two servers side by side.
    Cluster(cluster::ClusterArgs),
    /// Kill a server, or fail its disk, under load, and look for all it acknowledged.
    #[command(subcommand)]
    Drill(drill::DrillCommand),
    /// Reach etcd's performance checks and the goal of 10000 puts a second, or fail.
    Target(target::TargetArgs),
    /// Measure what a durable write costs on a disk, with nothing in between.
    Disk(disk::DiskArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Load(args) => load::command(&args),
        Command::Compare(args) => compare::command(&args),
        Command::Cluster(args) => cluster::command(&args),
        Command::Drill(command) => drill::command(&command),
        Command::Target(args) => target::command(&args),
        Command::Disk(args) => disk::command(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::from(2)
        }
    }
}
