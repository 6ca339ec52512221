//! A data directory of ringd, made from what etcd has kept.
//!
//! It is made beside the place that was asked for, under that name and `.partial`, and renamed when
//! it is whole. What a crash left under that name is cleared by the next attempt, as long as it was
//! never whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::Identity;
use engine::bbolt::schema::Member;
use engine::ids::{ClusterId, MemberId};

use super::Failure;
use super::content::{Filling, Found};
use super::etcd_log::{EtcdLog, LogRecord};
use super::input::{Database, DigestRule};
use super::tail::Tail;
use crate::bootstrap::cluster::InitialMember;
use crate::bootstrap::{self, DataDir, initial_members};
use crate::config::{self, Outcome, Refusal, Surroundings};
use crate::node::run::STORE_DIRECTORY;
use crate::node::start::{Origin, StartConfig, create};
use crate::runtime::files::random_u64;
use crate::sequencer::lessor::LessorConfig;

/// Where the new member's files go.
#[derive(Clone, Debug)]
pub struct Output {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The log's directory, if it is to be another than the one in the data directory.
    pub wal_dir: Option<PathBuf>,
}

/// How many revisions a restore steps over; all before it are compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bump(pub u64);

/// Who the member of a restored backup is: the flags it will be started with.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// `--name`.
    pub name: String,
    /// `--initial-cluster`.
    pub initial_cluster: String,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// `--initial-advertise-peer-urls`.
    pub initial_advertise_peer_urls: String,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Who the member is.
    pub identity: Identity,
    /// The store's revision.
    pub revision: i64,
    /// Changes of the database.
    pub changes: u64,
    /// Its leases.
    pub leases: u64,
    /// Users and roles, which are kept for a version that serves them.
    pub carried: u64,
    /// Entries of the log behind the database.
    pub entries: u64,
    /// What the user had better know.
    pub notes: Vec<String>,
}

/// Makes a member from a backup, as etcdutl does: with ids from the flags.
///
/// # Errors
/// What is wrong with the backup, the flags or the directories.
pub fn restore(
    backup: &Path,
    output: &Output,
    cluster: &NewCluster,
    skip_hash_check: bool,
    bump: Option<Bump>,
) -> Result<Made, Failure> {
    let founder = founder_of(cluster)?;
    let identity = founder.identity;
    let rule = if skip_hash_check { DigestRule::Skipped } else { DigestRule::Needed };
    let database = Database::open(backup, rule)?;
    build(output, founder, |filling| {
        let found = filling.take_database(&database, bump)?;
        filling.take_alarms(&found.alarms)?;
        Ok(made(identity, filling, &found, 0, Vec::new()))
    })
}

/// Makes a member from the data directory of a stopped etcd, with its ids, or from a backup.
///
/// # Errors
/// What is wrong with what is there.
pub fn import(
    from: &Path,
    from_wal: Option<&Path>,
    output: &Output,
    cluster: &NewCluster,
) -> Result<Made, Failure> {
    let metadata = fs::metadata(from).map_err(Failure::io("look at", from))?;
    if !metadata.is_dir() {
        // A copy of a data directory's file carries no digest, and a backup does.
        let founder = founder_of(cluster)?;
        let identity = founder.identity;
        let database = Database::open(from, DigestRule::Welcome)?;
        return build(output, founder, |filling| {
            let found = filling.take_database(&database, None)?;
            filling.take_alarms(&found.alarms)?;
            Ok(made(identity, filling, &found, 0, Vec::new()))
        });
    }
    let database = Database::open(&from.join("member/snap/db"), DigestRule::Skipped)?;
    let wal_dir = from_wal.map_or_else(|| from.join("member/wal"), Path::to_owned);
    let identity = owner_of(&wal_dir)?;
    // What it is called and where it is reached it publishes when it is started.
    let founder = Founder { identity, origin: Origin::Founds(Vec::new()) };
    build(output, founder, |filling| {
        let mut found = filling.take_database(&database, None)?;
        let mut tail = Tail::new(&found);
        tail.take(&wal_dir, filling)?;
        found.alarms = tail.alarms();
        filling.take_alarms(&found.alarms)?;
        let Tail { entries, notes, .. } = tail;
        Ok(made(identity, filling, &found, entries, notes))
    })
}

fn made(
    identity: Identity,
    filling: &mut Filling<'_>,
    found: &Found,
    entries: u64,
    mut notes: Vec<String>,
) -> Made {
    let others = found.members.iter().filter(|member| member.id != identity.member).count();
    if others > 0 && found.members.iter().any(|member| member.id == identity.member) {
        notes.push(format!(
            "the cluster had {others} other members; what is in their data directories is another \
             history from now on, and they must not be started on it again"
        ));
    }
    if found.carried > 0 {
        notes.push(
            "users and roles are kept and come out again in backups, but do not count: ringd does \
             not serve authentication yet"
                .to_owned(),
        );
    }
    let (engine, _) = filling.parts();
    let revision = engine.revision().0;
    let Found { changes, leases, carried, .. } = *found;
    Made { identity, revision, changes, leases, carried, entries, notes }
}

/// A member of a cluster that begins.
struct Founder {
    identity: Identity,
    origin: Origin,
}

/// Who a server with these flags would be, among whom.
fn founder_of(cluster: &NewCluster) -> Result<Founder, Failure> {
    let arguments = [
        format!("--name={}", cluster.name),
        format!("--initial-cluster={}", cluster.initial_cluster),
        format!("--initial-cluster-token={}", cluster.initial_cluster_token),
        format!("--initial-advertise-peer-urls={}", cluster.initial_advertise_peer_urls),
    ];
    match config::parse(&arguments, &Surroundings::NONE, &mut Vec::new()) {
        Ok(Outcome::Run(config)) => {
            let (identity, members) = initial_members(&config)?;
            let members = members.into_iter().map(InitialMember::into_member).collect();
            Ok(Founder { identity, origin: Origin::Founds(members) })
        }
        Ok(Outcome::Help | Outcome::Version) => unreachable!("neither was asked for"),
        Err(
            Refusal::Usage(text)
            | Refusal::Plain(text)
            | Refusal::Invalid(text)
            | Refusal::Discovery(text)
            | Refusal::Shadowed(text),
        ) => Err(Failure::Refused(text)),
    }
}

/// Whose log it is.
fn owner_of(wal_dir: &Path) -> Result<Identity, Failure> {
    let mut log = EtcdLog::open(wal_dir)?;
    while let Some(record) = log.next()? {
        if let LogRecord::Owner { cluster, member } = record {
            return Ok(Identity { cluster: ClusterId(cluster), member: MemberId(member) });
        }
    }
    let wal_dir = wal_dir.display();
    Err(Failure::Refused(format!("{wal_dir}: the log does not say whose it is")))
}

/// Makes the directories, lets them be filled, and gives them their names.
fn build(
    output: &Output,
    Founder { identity, origin }: Founder,
    fill: impl FnOnce(&mut Filling<'_>) -> Result<Made, Failure>,
) -> Result<Made, Failure> {
    let data_dir = without_trailing_slash(&output.data_dir);
    refuse_used(&data_dir)?;
    if let Some(wal_dir) = &output.wal_dir
        && fs::symlink_metadata(wal_dir).is_ok()
    {
        return Err(Failure::Refused(format!("wal-dir \"{}\" exists", wal_dir.display())));
    }
    let partial = partial_of(&data_dir);
    let wal_dir = output.wal_dir.as_deref().map(without_trailing_slash);
    let partial_wal = wal_dir.as_deref().map(partial_of);
    let mut directory = bootstrap::found(&partial, partial_wal.as_deref(), identity)?;
    if !directory.is_new() {
        let partial = partial.display();
        return Err(Failure::Refused(format!(
            "{partial} is the whole result of an attempt that could not give it its name: rename \
             or remove it"
        )));
    }
    let mut result = None;
    let config = StartConfig { origin, ..start_config(&directory)? };
    create(&config, |engine, disk| {
        let made = fill(&mut Filling::new(engine, disk))?;
        result = Some(made);
        Ok::<(), Failure>(())
    })?;
    directory.seal()?;
    drop(directory);
    // The log's name first: a log whose data is missing is refused, and the other way round a
    // server would look for a log that is there under another name.
    if let (Some(from), Some(to)) = (&partial_wal, &wal_dir) {
        rename(from, to)?;
    }
    rename(&partial, &data_dir)?;
    Ok(result.expect("it was filled"))
}

/// How the files of a directory are opened.
pub(super) fn start_config(directory: &DataDir) -> Result<StartConfig, Failure> {
    let store_dir = directory.path().join(STORE_DIRECTORY);
    fs::create_dir_all(&store_dir).map_err(Failure::io("create", &store_dir))?;
    Ok(StartConfig {
        store_dir,
        log_dir: directory.wal_path().to_owned(),
        identity: directory.identity(),
        is_new: directory.is_new(),
        // Who belongs to the cluster is told by whoever serves the store.
        origin: Origin::Founds(Vec::new()),
        direct: true,
        shards: 1,
        election_ticks: 10,
        pre_vote: true,
        request_timeout: Duration::from_secs(5),
        snapshot_count: 10_000,
        // Nobody serves what is opened here, so no clock of a lease ever runs.
        lessor: LessorConfig {
            ttl_min_seconds: 2,
            extension: Duration::ZERO,
            checkpoint_interval: None,
        },
        retention: None,
        defrag_from_bytes: None,
        boot_nonce: random_u64().map_err(Failure::io("draw a random number", Path::new("")))?,
        force_new_cluster: false,
    })
}

/// etcd's rule and words.
fn refuse_used(data_dir: &Path) -> Result<(), Failure> {
    let is_used = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if is_used {
        let data_dir = data_dir.display();
        let text = format!("data-dir \"{data_dir}\" not empty or could not be read");
        return Err(Failure::Refused(text));
    }
    Ok(())
}

fn without_trailing_slash(path: &Path) -> PathBuf {
    path.components().collect()
}

fn partial_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Gives a directory its name, durably.
fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(Failure::io("rename", from))?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = fs::File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(Failure::io("sync", parent))
}

/// The members that vote.
pub(super) fn voter_count(members: &[Member]) -> usize {
    members.iter().filter(|member| !member.is_learner).count()
}
