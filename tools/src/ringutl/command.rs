//! What can be asked for, and who does it.

use std::error::Error;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use server::interchange::{self, Bump, Made, NewCluster, Output};

use super::print::{self, Format};

/// Takes data of etcd into ringd and back. No server may be running on it.
#[derive(Debug, Parser)]
#[command(name = "ringutl", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The output's format (fields, json, simple, table).
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Simple)]
    write_out: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Manages backups, which are files of etcd's.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Makes a data directory of ringd from that of a stopped etcd, log included, or from a backup.
    Import {
        /// The data directory of the stopped etcd, or a file.
        #[arg(long)]
        from: PathBuf,
        /// Where that etcd kept its log, if it was not in its data directory.
        #[arg(long, value_name = "DIRECTORY")]
        from_wal_dir: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArguments,
        #[command(flatten)]
        cluster: ClusterArguments,
    },
    /// Writes a backup of a stopped ringd.
    Export {
        #[command(flatten)]
        input: InputArguments,
        /// The file, which must not exist.
        file: PathBuf,
    },
    /// Prints the hash of a stopped ringd's history.
    Hashkv {
        #[command(flatten)]
        input: InputArguments,
        /// The last revision to hash; zero for the newest.
        #[arg(long, default_value_t = 0)]
        rev: i64,
    },
    /// Proves a backup or a database of etcd sound: its digest, if it has one, and all its pages.
    Check {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Makes a data directory of ringd from a backup.
    Restore {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        output: OutputArguments,
        #[command(flatten)]
        cluster: ClusterArguments,
        /// Takes a file without looking at its digest: for a copy of a data directory's file.
        #[arg(long)]
        skip_hash_check: bool,
        /// By how much to increase the latest revision.
        #[arg(long, default_value_t = 0)]
        bump_revision: u64,
        /// Marks the latest revision as compacted (required if --bump-revision > 0, disallowed
        /// otherwise).
        #[arg(long)]
        mark_compacted: bool,
    },
    /// Prints hash, revision, keys, size and version of a backup.
    Status {
        /// The backup.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct InputArguments {
    /// The data directory of the stopped ringd.
    #[arg(long)]
    data_dir: PathBuf,
    /// Its log's directory, if that is not in the data directory.
    #[arg(long)]
    wal_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct OutputArguments {
    /// The data directory to be made; NAME.etcd if none is given.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The log's directory, if it is not to be in the data directory.
    #[arg(long)]
    wal_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ClusterArguments {
    /// The member's name.
    #[arg(long, default_value = "default")]
    name: String,
    /// The cluster that the member will be started with.
    #[arg(long, default_value = "default=http://localhost:2380")]
    initial_cluster: String,
    /// The cluster's token.
    #[arg(long, default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// The member's peer URLs.
    #[arg(long, default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: String,
}

impl ClusterArguments {
    fn into_parts(self, output: OutputArguments) -> (Output, NewCluster) {
        let default_dir = || PathBuf::from(format!("{}.etcd", self.name));
        let data_dir = output.data_dir.unwrap_or_else(default_dir);
        let Self { name, initial_cluster, initial_cluster_token, initial_advertise_peer_urls } =
            self;
        let cluster = NewCluster {
            name,
            initial_cluster,
            initial_cluster_token,
            initial_advertise_peer_urls,
        };
        (Output { data_dir, wal_dir: output.wal_dir }, cluster)
    }
}

/// Does what was asked for.
///
/// # Errors
/// What kept it from being done.
pub fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { command, write_out } = arguments;
    match command {
        Command::Snapshot(SnapshotCommand::Status { file }) => {
            print::print_status(&interchange::status(&file)?, write_out);
        }
        Command::Snapshot(SnapshotCommand::Restore {
            file,
            output,
            cluster,
            skip_hash_check,
            bump_revision,
            mark_compacted,
        }) => {
            if mark_compacted != (bump_revision > 0) {
                return Err("--mark-compacted required if --revision-bump > 0".into());
            }
            let (output, cluster) = cluster.into_parts(output);
            let bump = mark_compacted.then_some(Bump(bump_revision));
            let made = interchange::restore(&file, &output, &cluster, skip_hash_check, bump)?;
            tell(&output, &made);
        }
        Command::Import { from, from_wal_dir, output, cluster } => {
            let (output, cluster) = cluster.into_parts(output);
            let made = interchange::import(&from, from_wal_dir.as_deref(), &output, &cluster)?;
            tell(&output, &made);
        }
        Command::Export { input: InputArguments { data_dir, wal_dir }, file } => {
            let (size_bytes, revision) = interchange::export(&data_dir, wal_dir.as_deref(), &file)?;
            eprintln!("{}: {size_bytes} bytes, revision {revision}", file.display());
        }
        Command::Hashkv { input: InputArguments { data_dir, wal_dir }, rev } => {
            let hash = interchange::hash_kv(&data_dir, wal_dir.as_deref(), rev)?;
            print::print_hash_kv(hash, write_out);
        }
        Command::Check { file } => {
            let summary = interchange::check(&file)?;
            println!("{}: sound, {summary:?}", file.display());
        }
    }
    Ok(())
}

/// What was made, and what the user had better know, where logs go.
fn tell(output: &Output, made: &Made) {
    let Made { identity, revision, changes, leases, entries, notes, .. } = made;
    eprintln!(
        "{}: member {:x} of cluster {:x}, revision {revision}, from {changes} changes, {leases} \
         leases and {entries} entries of the log",
        output.data_dir.display(),
        identity.member.get(),
        identity.cluster.get(),
    );
    for note in notes {
        eprintln!("note: {note}");
    }
}
