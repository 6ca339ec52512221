//! Drills of whole clusters, with real processes: trouble strikes under load, is mended, and what
//! clients were told must be explained by one correct store.
//!
//! A drill founds a cluster of members that live in network namespaces and on disks of their own,
//! where it may make such. Clients put, swap, read, delete, lease and compact at all members, over
//! few keys; a watcher at each member is told everything. Round by round, trouble strikes
//! ([`trouble`]): where most members are left alone, one of them must take a write before it is
//! mended, and once it is, every member must. At the end all members must be equal, every lease be
//! gone, and the oracle that judges the simulator's clusters judges what these did.
//!
//! A seed chooses what strikes whom, and when; what the processes do in between is theirs. So a
//! seed that failed may pass again, and what a failure is known by stands in its directory: the
//! logs, and the history if that was wrong.
//!
//! Invariants:
//! - What cannot be done here (without root: networks and disks) is named as not run.
//! - Bounds on time are generous and say that something goes on at all, not how fast.

pub mod calls;
pub mod cluster;
pub mod disk;
pub mod leftovers;
pub mod load;
pub mod member;
pub mod network;
pub mod record;
pub mod shell;
pub mod switch;
pub mod trouble;
pub mod witness;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::oracle;
use crate::sim::random::Random;
use cluster::Cluster;
use disk::Disk;
use load::Load;
use member::{Member, Spec};
use network::Network;
use trouble::{Means, Scene, Struck, Trouble, names_of};

/// Says in a directory that it is kept because its drill failed.
pub const FAILED_FILE: &str = "failed";
/// A full disk is felt only once what the log has in store is used up.
const FULL_TIME_MIN: Duration = Duration::from_secs(6);
/// Of the rounds after each trouble has struck alone, so many have two troubles at once.
const TOGETHER_ONCE_IN: u64 = 2;

/// What a drill is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server.
    pub binary: PathBuf,
    /// Its further arguments.
    pub args: Vec<String>,
    /// How many members.
    pub members: usize,
    /// How many clients.
    pub clients: u64,
    /// What is drawn.
    pub seed: u64,
    /// How often trouble strikes; each kind once, and some together, unless told.
    pub rounds: Option<usize>,
    /// Which kinds; all that can be made here unless told.
    pub troubles: Vec<Trouble>,
    /// How long trouble lasts.
    pub trouble_time: Duration,
    /// How long a member that is stopped is.
    pub stop_time: Duration,
    /// Within which a cluster that nothing ails must live.
    pub bound: Duration,
    /// A directory for data and logs.
    pub scratch: PathBuf,
    /// Stay on loopback.
    pub has_network: bool,
    /// Stay on the disk of `scratch`.
    pub has_disks: bool,
    /// Keep the logs and the history of a drill that passed, too.
    pub keeps_logs: bool,
}

/// Rounds in which two kinds strike together, unless told.
const ROUNDS_TOGETHER: usize = 3;

/// Drills a cluster; prints what happens.
///
/// # Errors
/// What is wrong with the cluster, or why it cannot be drilled.
pub fn run(settings: &Settings) -> Result<(), String> {
    leftovers::remove(&settings.scratch);
    let name = format!("{}{}", leftovers::DIRECTORY_PREFIX, std::process::id());
    let directory = settings.scratch.join(name);
    std::fs::create_dir_all(&directory).map_err(|error| format!("scratch: {error}"))?;
    let directory = directory.canonicalize().map_err(|error| format!("scratch: {error}"))?;
    let outcome = drill(settings, &directory);
    match &outcome {
        Ok(()) if settings.keeps_logs => println!("logs are kept in {}", directory.display()),
        Ok(()) => {
            std::fs::remove_dir_all(&directory).map_err(|error| format!("scratch: {error}"))?;
        }
        Err(failure) => {
            // What cannot be written here is printed anyhow.
            let _ = std::fs::write(directory.join(FAILED_FILE), failure);
            println!("logs are kept in {}", directory.display());
        }
    }
    outcome
}

fn drill(settings: &Settings, directory: &Path) -> Result<(), String> {
    let mut left_out: Vec<String> = Vec::new();
    let network = settings.has_network.then(|| Network::make(settings.members, settings.seed));
    let network = made(network, "namespaces", &mut left_out);
    let disks = settings.has_disks.then(|| make_disks(settings.members, directory));
    let mut disks = made(disks, "disks", &mut left_out).unwrap_or_default();
    let throttles = disks.iter_mut().try_for_each(Disk::prepare_throttle);
    let can_throttle = !disks.is_empty() && throttles.is_ok();
    if let Err(reason) = throttles {
        left_out.push(format!("no slow disks: {reason}"));
    }
    let is_possible = |trouble: Trouble| match trouble.means() {
        Means::Processes => true,
        Means::Network => network.is_some(),
        Means::Disks => !disks.is_empty(),
        Means::SlowDisks => can_throttle,
    };
    let wanted = if settings.troubles.is_empty() {
        Trouble::value_variants()
    } else {
        &settings.troubles[..]
    };
    let (troubles, impossible): (Vec<Trouble>, Vec<Trouble>) =
        wanted.iter().copied().partition(|&trouble| is_possible(trouble));
    for reason in &left_out {
        println!("{reason}");
    }
    if !impossible.is_empty() {
        let names: Vec<_> = impossible.iter().map(|trouble| trouble.name()).collect();
        println!("NOT RUN: {}", names.join(", "));
    }
    if troubles.is_empty() {
        return Err("nothing of what is asked for can be run here".to_owned());
    }
    let members = members(settings, directory, network.as_ref(), &disks)?;
    let addresses: Vec<SocketAddr> = members.iter().map(|member| member.spec.client).collect();
    let mut random = Random::new(settings.seed);
    let mut load = Load::start(&addresses, settings.clients, random.word())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    let cluster = Cluster {
        members,
        disks,
        shared: load.shared().clone(),
        runtime,
        bound: settings.bound,
        seen_when_slow: None,
    };
    let mut scene = Scene { cluster, network, random };
    let outcome = rounds(settings, &troubles, &mut scene).and_then(|()| end(&mut scene, &load));
    load.end();
    let verdict = outcome.and_then(|()| judge(&scene.cluster, directory, settings.keeps_logs));
    tell_memory(&scene.cluster);
    verdict
}

/// What was made; where it could not be, why not.
fn made<T>(
    outcome: Option<Result<T, String>>,
    what: &str,
    left_out: &mut Vec<String>,
) -> Option<T> {
    match outcome {
        Some(Ok(made)) => return Some(made),
        Some(Err(reason)) => left_out.push(format!("no {what}: {reason}")),
        None => left_out.push(format!("no {what}: told to do without")),
    }
    None
}

fn make_disks(members: usize, directory: &Path) -> Result<Vec<Disk>, String> {
    disk::look_for_programs()?;
    (1..=members).map(|number| Disk::make(directory, &format!("m{number}"))).collect()
}

/// The members, not started yet.
fn members(
    settings: &Settings,
    directory: &Path,
    network: Option<&Network>,
    disks: &[Disk],
) -> Result<Vec<Member>, String> {
    let binary = settings.binary.canonicalize();
    let binary = binary.map_err(|error| format!("{}: {error}", settings.binary.display()))?;
    let addresses = match network {
        Some(network) => (0..settings.members).map(|place| network.addresses(place)).collect(),
        None => free_addresses(settings.members)?,
    };
    let initial =
        addresses.iter().zip(1..).map(|([_, peer], number)| format!("m{number}=http://{peer}"));
    let initial = initial.collect::<Vec<_>>().join(",");
    let members = addresses.iter().enumerate().map(|(place, [client, peer])| {
        let name = format!("m{}", place + 1);
        let under = disks.get(place).map_or(directory, Disk::directory);
        let data = under.join(format!("{name}.data"));
        let mut args = vec!["--name".to_owned(), name.clone()];
        let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        add("--data-dir", data.display().to_string());
        add("--listen-client-urls", format!("http://{client}"));
        add("--advertise-client-urls", format!("http://{client}"));
        add("--listen-peer-urls", format!("http://{peer}"));
        add("--initial-advertise-peer-urls", format!("http://{peer}"));
        add("--initial-cluster", initial.clone());
        add("--initial-cluster-token", "drilled".to_owned());
        args.extend(settings.args.iter().cloned());
        Member::new(Spec {
            log: directory.join(format!("{name}.log")),
            namespace: network.map(|network| network.namespace(place).to_owned()),
            binary: binary.clone(),
            client: *client,
            name,
            args,
        })
    });
    Ok(members.collect())
}

/// Addresses of loopback that are free now.
fn free_addresses(members: usize) -> Result<Vec<[SocketAddr; 2]>, String> {
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let found = || {
        // All are held until all are known, so that they differ.
        let held = (0..2 * members).map(|_| free()).collect::<Result<Vec<_>, _>>()?;
        held.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()
    };
    let found = found().map_err(|error| format!("no free port: {error}"))?;
    Ok(found.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
}

/// Founds the cluster, and lets trouble strike it round by round.
fn rounds(settings: &Settings, troubles: &[Trouble], scene: &mut Scene) -> Result<(), String> {
    let begun = Instant::now();
    scene.cluster.start_all()?;
    scene.cluster.wait_for_all()?;
    println!(
        "{:7.1} s: {} members serve, {} clients, seed {}",
        begun.elapsed().as_secs_f64(),
        settings.members,
        settings.clients,
        settings.seed
    );
    let rounds = settings.rounds.unwrap_or(troubles.len() + ROUNDS_TOGETHER);
    let mut order: Vec<Trouble> = Vec::new();
    for round in 0..rounds {
        let first = draw(&mut order, troubles, &mut scene.random);
        let mut drawn = vec![first];
        // When all members are gone, nothing is left for other trouble to strike.
        let may_be_joined = round >= troubles.len() && first != Trouble::KillAll;
        if may_be_joined && scene.random.once_in(TOGETHER_ONCE_IN) {
            let other = draw(&mut order, troubles, &mut scene.random);
            // The same means twice would be mended once.
            if other.means() == Means::Processes || other.means() != first.means() {
                drawn.push(other);
            }
        }
        let struck_at = begun.elapsed().as_secs_f64();
        let outcome = one_round(settings, &drawn, scene);
        let told = outcome.map_err(|failure| {
            let names: Vec<_> = drawn.iter().map(|trouble| trouble.name()).collect();
            format!("round {}, {}: {failure}", round + 1, names.join(" and "))
        })?;
        println!("{struck_at:7.1} s: {told}");
    }
    Ok(())
}

/// The kinds in another order each time, so that each comes once before any comes twice.
fn draw(order: &mut Vec<Trouble>, troubles: &[Trouble], random: &mut Random) -> Trouble {
    if order.is_empty() {
        order.extend(troubles);
    }
    order.swap_remove(random.place(order.len()))
}

/// Trouble strikes, lasts and is mended; answers with what is told of it.
fn one_round(settings: &Settings, drawn: &[Trouble], scene: &mut Scene) -> Result<String, String> {
    let mut told = String::new();
    let mut all: Vec<Struck> = Vec::new();
    let writes = scene.cluster.shared.record.writes();
    let begun = Instant::now();
    let mut time = settings.trouble_time;
    for &trouble in drawn {
        // What struck before may have left nobody who leads.
        if !all.is_empty() && scene.cluster.leader().is_err() {
            break;
        }
        let struck = scene.strike(trouble)?;
        time = match trouble {
            Trouble::DiskFull => time.max(FULL_TIME_MIN),
            trouble if trouble.is_stop() => time.max(settings.stop_time),
            _ => time,
        };
        let separator = if told.is_empty() { "" } else { ", and " };
        let (name, victims) = (trouble.name(), names_of(&struck.victims));
        let detail = &struck.detail;
        let space = if detail.is_empty() { "" } else { " " };
        write!(told, "{separator}{name} {victims}{space}{detail}").expect("into memory");
        all.push(struck);
    }
    if let [Struck { survivor: Some(survivor), .. }] = all[..] {
        let taken = scene.cluster.wait_for_write(survivor)?;
        write!(told, "; m{} writes after {taken:.1?}", survivor + 1).expect("into memory");
    }
    scene.cluster.wait(time.saturating_sub(begun.elapsed()))?;
    let during = scene.cluster.shared.record.writes() - writes;
    for struck in &all {
        scene.mend(struck)?;
    }
    scene.cluster.start_all()?;
    let (taken, slowest) = scene.cluster.wait_for_all()?;
    write!(told, "; {during} writes meanwhile; all write {taken:.1?} after it").expect("memory");
    if let Some(slowest) = slowest {
        let seen = scene.cluster.seen_when_slow.take().unwrap_or_default();
        write!(told, "\n           waited for m{}: {seen}", slowest + 1).expect("into memory");
    }
    for member in &mut scene.cluster.members {
        if let Some(words) = member.last_words.take() {
            write!(told, "\n           {} ended: {words}", member.spec.name).expect("memory");
        }
    }
    Ok(told)
}

/// The load ends; what is left must be the same everywhere.
fn end(scene: &mut Scene, load: &Load) -> Result<(), String> {
    load.end_clients();
    let cluster = &mut scene.cluster;
    cluster.wait_for_clients()?;
    cluster.wait_for_end_of_leases()?;
    let (revision, hash) = cluster.wait_until_equal()?;
    cluster.read_from_all()?;
    println!("all members have hash {hash:08x} at revision {revision}");
    Ok(())
}

/// The oracle's verdict.
fn judge(cluster: &Cluster, directory: &Path, keeps_history: bool) -> Result<(), String> {
    if let Some(wrong) = cluster.shared.wrong() {
        return Err(wrong);
    }
    let operations = cluster.shared.record.operations();
    let witness = cluster.shared.witness();
    let answered = operations.iter().filter(|operation| operation.answered.is_some()).count();
    let verdict = oracle::check(&operations, witness.chronicle().changes())
        .map_err(|violation| violation.to_string())
        .and_then(|()| witness.check_leases(&cluster.shared.record.promises()));
    if verdict.is_err() || keeps_history {
        let mut text = String::new();
        for operation in &operations {
            writeln!(text, "{operation:?}").expect("into memory");
        }
        for change in witness.chronicle().changes() {
            writeln!(text, "{change:?}").expect("into memory");
        }
        std::fs::write(directory.join("history"), text)
            .map_err(|error| format!("history: {error}"))?;
    }
    let (count, unknown) = (operations.len(), operations.len() - answered);
    let changes = witness.chronicle().changes().len();
    println!("{count} operations, {unknown} of unknown fate, {changes} changes told to watchers");
    verdict
}

fn tell_memory(cluster: &Cluster) {
    for member in &cluster.members {
        let Some(memory) = member.memory() else { continue };
        println!(
            "{}: {} MiB resident, {} anonymous; {} at most",
            member.spec.name,
            memory.resident_kib / 1024,
            memory.anonymous_kib / 1024,
            memory.peak_kib / 1024
        );
    }
}
