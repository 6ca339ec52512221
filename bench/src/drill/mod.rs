//! `bench drill`: a server is killed, or its disk fails, under load; what it acknowledged must be
//! there.
//!
//! `kill -9` keeps what the kernel has in its page cache, so killing alone shows nothing about
//! syncs. The second drill therefore uses two hidden flags of the server: one delays every sync,
//! and then no acknowledgement may come before that delay; the other fails a sync, and then the
//! server has to exit and everything it acknowledged before must have survived.
//!
//! Meanwhile other clients grant leases, keep them alive, revoke them and let them run out,
//! compact, defragment and take backups, all at random: the server goes down in the middle of those
//! as well, and what they were told has to hold as much as what the writers were told.
//!
//! Invariants:
//! - A write without an answer is *unknown*: after the restart it may be there or not, but
//!   whichever it is then, it stays.
//! - Of a transaction both keys are there, from one revision, or neither.

mod chores;
mod compactions;
mod history;
mod leases;
mod pages;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use crate::client::HeaderStyle;
use crate::failure::Failure;
use crate::load::parse_duration;
use crate::report::{Report, duration_text};
use crate::run::{Group, RunConfig, run};
use crate::server_process::{Server, ServerSpec};
use crate::workload::{Delay, Random, Workload};
use chores::Chores;
use history::{DrillWrites, History};

/// Every so many rounds the whole history is checked, not only what is new.
const ROUNDS_PER_FULL_CHECK: usize = 5;
/// Every so many rounds are longer than the short-lived leases live: a restart gives a lease its
/// whole time again, so that none would ever run out in rounds that are shorter than that.
const ROUNDS_PER_LONG_ROUND: usize = 3;
/// How long a server may live after a sync of its log was to fail.
const FAILURE_TIME_MAX: Duration = Duration::from_secs(60);
/// A restart that meets an injected failure before it serves shows nothing, so the failure is set
/// beyond what a start needs.
const SYNCS_BEFORE_FAILURE_MIN: u64 = 50;
const SYNCS_BEFORE_FAILURE_SPREAD: u64 = 400;

/// The drills.
#[derive(Subcommand, Clone, Debug)]
pub enum DrillCommand {
    /// Kill the server under load, restart it, and look for every acknowledged write.
    Kill(DrillArgs),
    /// Delay and fail the server's syncs, through its hidden fault flags.
    Faults(FaultArgs),
}

/// The server and the load.
#[derive(Args, Clone, Debug)]
pub struct DrillArgs {
    /// The server.
    #[arg(long)]
    pub bin: PathBuf,
    /// Further arguments of the server, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub args: String,
    /// How often the server goes down.
    #[arg(long, default_value_t = 30)]
    pub rounds: usize,
    /// What the moments of the kills are derived from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The shortest time under load; one round in three is longer, for leases to run out.
    #[arg(long, default_value = "200ms", value_parser = parse_duration)]
    pub load_min: Duration,
    /// The longest time under load.
    #[arg(long, default_value = "1200ms", value_parser = parse_duration)]
    pub load_max: Duration,
    /// Connections.
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Streams on each connection.
    #[arg(long, default_value_t = 32)]
    pub streams: usize,
    /// Write only: no leases, compactions, defragmentations and backups beside it.
    #[arg(long)]
    pub no_chores: bool,
    /// Writes a second, so that the history stays small enough to be read back.
    #[arg(long, default_value_t = 20_000.0)]
    pub rate: f64,
    /// The directory under which the data directory is made.
    #[arg(long, default_value = ".")]
    pub data_dir: PathBuf,
}

/// The server, the load and the faults.
#[derive(Args, Clone, Debug)]
pub struct FaultArgs {
    #[command(flatten)]
    drill: DrillArgs,
    /// By how much every sync is delayed.
    #[arg(long, default_value = "20ms", value_parser = parse_duration)]
    sync_delay: Duration,
}

/// What befalls the server in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is killed after so long.
    Killed { after: Duration },
    /// Its syncs are delayed, and then it is killed.
    Delayed { after: Duration, delay: Duration },
    /// One of its syncs fails.
    FailedSync { after_syncs: u64 },
}

/// Runs the command.
pub fn command(command: &DrillCommand) -> Result<bool, Failure> {
    match command {
        DrillCommand::Kill(args) => {
            let mut random = Random::new(args.seed);
            drill(args, |round| Fate::Killed { after: load_time(args, round, &mut random) })
        }
        DrillCommand::Faults(args) => {
            let mut random = Random::new(args.drill.seed);
            let delay = args.sync_delay;
            drill(&args.drill, |round| {
                if round % 2 == 0 {
                    Fate::Delayed { after: load_time(&args.drill, round, &mut random), delay }
                } else {
                    let spread = random.below(SYNCS_BEFORE_FAILURE_SPREAD);
                    Fate::FailedSync { after_syncs: SYNCS_BEFORE_FAILURE_MIN + spread }
                }
            })
        }
    }
}

fn load_time(args: &DrillArgs, round: usize, random: &mut Random) -> Duration {
    let long = !args.no_chores && round % ROUNDS_PER_LONG_ROUND == ROUNDS_PER_LONG_ROUND - 1;
    // A server looks for what has run out twice a second, and revokes it when it gets to it.
    let longer = Duration::from_secs(if long { chores::TTL_SECONDS_SHORT + 1 } else { 0 });
    let spread = args.load_max.saturating_sub(args.load_min);
    let spread_us = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX - 1);
    args.load_min + longer + Duration::from_micros(random.below(spread_us + 1))
}

fn drill(args: &DrillArgs, mut fate: impl FnMut(usize) -> Fate) -> Result<bool, Failure> {
    if args.rate <= 0.0 || args.connections == 0 || args.streams == 0 || args.rounds == 0 {
        return Err(Failure::new("the drill needs rounds, connections, streams and a rate"));
    }
    let dir = args.data_dir.join(format!("bench-drill-{}", std::process::id()));
    let extra: Vec<String> = args.args.split_whitespace().map(str::to_owned).collect();
    let spec = ServerSpec::new(&args.bin, &extra, &dir)?;
    // The first start makes the data directory, without faults.
    Server::start(&spec)?.stop()?;
    let history = Arc::new(Mutex::new(History::new(args.seed)));
    let mut chores = Chores::new(args.seed);
    let mut wrong_count = 0;
    for round in 0..args.rounds {
        let fate = fate(round);
        let report;
        (report, chores) = go_down(args, &spec, fate, &history, chores)?;
        let mut history = history.lock().expect("no thread of a run panics and goes on");
        let restarted = Instant::now();
        let mut server = Server::start(&spec)?;
        let restart = restarted.elapsed();
        let full = round % ROUNDS_PER_FULL_CHECK == 0 || round + 1 == args.rounds;
        let endpoint = server.endpoint();
        let found = history
            .check(&endpoint, full)
            .and_then(|mut found| chores.check(&endpoint, &mut found).map(|()| found))
            .map_err(|failure| server.explain(failure))?;
        let complaints = [unexpected(&report), found.complaints].concat();
        let wrong = report.wrong_count + found.wrong_count;
        println!(
            "round {:>2}: {fate:?}; {} acknowledged (p50 {}), {} unknown of which {} there; \
             back in {:.0} ms; {} keys read; {}",
            round + 1,
            report.tallies[0].operations_count,
            duration_text(report.tallies[0].quantile_ns(0.5)),
            found.unknown_count,
            found.unknown_present_count,
            restart.as_secs_f64() * 1e3,
            found.keys_count,
            if wrong == 0 && complaints.is_empty() { "all there" } else { "WRONG" },
        );
        if !args.no_chores {
            println!("  {}", chores.to_text());
        }
        for complaint in &complaints {
            println!("  {complaint}");
        }
        wrong_count += wrong.max(u64::from(!complaints.is_empty()));
        server.stop()?;
    }
    let acknowledged = history.lock().expect("all runs are over").acknowledged_count();
    for path in chores.unserved() {
        println!("not served, and left out: {path}");
    }
    println!("{} rounds, {acknowledged} writes there, {wrong_count} wrong", args.rounds);
    if wrong_count == 0 {
        spec.remove()?;
        println!("PASS");
    } else {
        println!("FAIL; the data directory {} is kept", dir.display());
    }
    Ok(wrong_count == 0)
}

/// Loads the server until it goes down as it is fated to.
fn go_down(
    args: &DrillArgs,
    spec: &ServerSpec,
    fate: Fate,
    history: &Arc<Mutex<History>>,
    chores: Chores,
) -> Result<(Report, Chores), Failure> {
    let mut spec = spec.clone();
    match fate {
        Fate::Killed { .. } => {}
        Fate::Delayed { delay, .. } => {
            let text = format!("{}us", delay.as_micros());
            spec.args.extend(["--fault-sync-delay".to_owned(), text]);
        }
        Fate::FailedSync { after_syncs } => {
            spec.args.extend(["--fault-sync-fail-after".to_owned(), after_syncs.to_string()]);
        }
    }
    let mut server = Server::start(&spec)?;
    let slots = args.connections * args.streams;
    let mut workload: Box<dyn Workload> = Box::new(DrillWrites::new(Arc::clone(history), slots));
    if let Fate::Delayed { delay, .. } = fate {
        let delay_ns = u64::try_from(delay.as_nanos()).expect("a delay is short");
        workload = Box::new(Delay { inner: workload, delay_ns, begun_ns: vec![0; slots] });
    }
    let config = RunConfig {
        addresses: vec![spec.client_address],
        header_style: HeaderStyle::Indexed,
        duration: None,
        keys: 1,
        epoch: Instant::now(),
        progress: None,
    };
    let group = Group {
        name: "write".to_owned(),
        connections: args.connections,
        streams: args.streams,
        rate: Some(args.rate),
        workload,
    };
    let load = std::thread::spawn(move || run(&config, vec![vec![group]]));
    let mut idle = Some(chores);
    let busy = idle.take_if(|_| !args.no_chores).map(|chores| chores.start(spec.client_address));
    match fate {
        Fate::Killed { after } | Fate::Delayed { after, .. } => std::thread::sleep(after),
        Fate::FailedSync { .. } => match server.wait_exit(FAILURE_TIME_MAX)? {
            Some(status) if status.success() => {
                return Err(server.failure("exited with success although a sync failed"));
            }
            Some(_) => {}
            None => return Err(server.failure("went on although a sync was to fail")),
        },
    }
    server.kill()?;
    let chores = busy.map(chores::Running::join).or(idle).expect("the chores are in one of them");
    match load.join() {
        Ok(report) => report.map(|report| (report, chores)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What went wrong before the server went down: a call that failed for another reason than that.
fn unexpected(report: &Report) -> Vec<String> {
    let expected =
        |text: &str| text.contains("status 14: ") || text.starts_with("no connection is left");
    report.complaints.iter().filter(|text| !expected(text)).cloned().collect()
}
