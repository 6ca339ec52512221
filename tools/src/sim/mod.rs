//! A cluster in one thread: log cores with their raft, log and engine on simulated disks, a
//! simulated network between them, clients, trouble, and an oracle that judges what the clients
//! were told.
//!
//! A run is its seed. First things go wrong for a while, and nothing that was promised may be
//! broken (safety); then all trouble ends, and everything must come right in time (liveness): every
//! member that was not lost serves, every question is answered, and all stores are the same.
//!
//! Invariant: the same seed and the same program make the same run, to the last byte.

pub mod clients;
mod files;
mod links;
mod machine;
mod member;
mod network;
mod plan;
pub mod random;
mod trouble;
pub mod values;
mod watching;
mod witness;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::ids::Revision;
use engine::{AlarmKind, KeyValueHash, KeyValueHashScan, Progress};

use self::clients::Wish;
use self::network::Place;
use self::plan::Plan;
use self::random::Random;
use self::witness::Wrong;
use self::world::World;
use crate::oracle::{self, history::Request};

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// How many members, if the seed is not to choose.
    pub members: Option<usize>,
    /// How many milliseconds trouble lasts, if the seed is not to choose.
    pub duration_ms: Option<u64>,
    /// Whether what happens is told.
    pub is_told: bool,
}

/// How a run went that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// All that happened, summed up.
    pub digest: u64,
    /// Events.
    pub events: u64,
    /// Operations of clients.
    pub operations: usize,
    /// Of these, those that were answered.
    pub answered: usize,
    /// The newest revision.
    pub revision: i64,
    /// The virtual time it took, in microseconds.
    pub micros: u64,
}

/// Time in which a calm cluster has to come right.
const CALM_MICROS: u64 = 20_000_000;
/// Time of it in which clients go on as before.
const BUSY_MICROS: u64 = 4_000_000;
/// Time that it gets to answer the last questions and to let all leases end.
const END_MICROS: u64 = 40_000_000;
/// Between two looks at a cluster that has to come right.
const LOOK_MICROS: u64 = 500_000;

/// Runs a seed.
///
/// # Errors
/// What went wrong.
pub fn run(seed: u64, settings: Settings) -> Result<Report, Wrong> {
    catch_unwind(AssertUnwindSafe(|| run_world(seed, settings))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn run_world(seed: u64, settings: Settings) -> Result<Report, Wrong> {
    let mut random = Random::new(seed);
    let mut plan = Plan::draw(&mut random, settings.members);
    if let Some(duration_ms) = settings.duration_ms {
        plan.duration_micros = duration_ms * 1000;
    }
    let duration = plan.duration_micros;
    let mut world = World::new(plan, &mut random);
    world.is_told = settings.is_told;
    world.tell(|| format!("{:?}", world.plan));
    world.run_until(duration)?;
    world.tell(|| "calm".to_owned());
    trouble::calm(&mut world);
    world.run_until(duration + BUSY_MICROS)?;
    world.is_slow = true;
    world.run_until(duration + CALM_MICROS)?;
    world.tell(|| "the end".to_owned());
    finish(&mut world).map_err(|wrong| format!("{wrong}{}", world.describe()))?;
    oracle::check(&world.history, world.witness.chronicle().changes())
        .map_err(|violation| format!("the history is none of a correct store: {violation}"))?;
    let answered = world.history.iter().filter(|operation| operation.answered.is_some()).count();
    Ok(Report {
        digest: world.digest(),
        events: world.events(),
        operations: world.history.len(),
        answered,
        revision: world.witness.chronicle().newest(),
        micros: world.now,
    })
}

/// The members that have to come right: those who belong to the cluster, as the store with the
/// newest entry says, and were not lost. Learners serve nobody.
fn survivors(world: &World) -> Vec<(Place, bool)> {
    let cores = world.members.iter().filter_map(|member| Some(&member.running.as_ref()?.core));
    let newest = cores.max_by_key(|core| core.engine().applied());
    let Some(newest) = newest else { return Vec::new() };
    let known = |place: Place| {
        let member = &world.members[place];
        let known = newest.members().iter().find(|known| known.id == member.id)?;
        (!member.is_lost).then_some((place, known.is_learner))
    };
    (0..world.members.len()).filter_map(known).collect()
}

/// Clients ask no more but one last question of each member, everything is answered, and all are
/// the same.
fn finish(world: &mut World) -> Result<(), Wrong> {
    world.clients_ask = false;
    let survivors = survivors(world);
    if survivors.is_empty() {
        return Err("nobody runs although all is calm".to_owned());
    }
    let first = world.history.len();
    for &(place, is_learner) in &survivors {
        if world.members[place].running.is_none() {
            return Err(format!("m{} does not run although all is calm", place + 1));
        }
        if is_learner {
            continue;
        }
        let key = format!("k{place}").into_bytes();
        let (from, to) = (b"k".to_vec(), b"m".to_vec());
        world.put_question(0, place, Wish::Operation(Request::Put { key, lease: 0 }))?;
        let read = Request::Read { from, to, may_be_stale: false };
        world.put_question(0, place, Wish::Operation(read))?;
    }
    let end = world.now + END_MICROS;
    while world.now < end {
        world.run_until(world.now + LOOK_MICROS)?;
        if world.questions_open() == 0 && difference(world, &survivors)?.is_none() {
            break;
        }
    }
    if let Some(question) = world.oldest_question() {
        let count = world.questions_open();
        return Err(format!("{count} questions are not answered; {question}"));
    }
    if let Some(operation) = world.history[first..].iter().find(|last| last.answered.is_none()) {
        return Err(format!("all is calm, and this has no answer: {operation:?}"));
    }
    match difference(world, &survivors)? {
        Some(difference) => Err(difference),
        None => Ok(()),
    }
}

/// In what the members differ that have to be the same, if in anything.
fn difference(world: &mut World, survivors: &[(Place, bool)]) -> Result<Option<Wrong>, Wrong> {
    let mut first = None;
    for &(place, _) in survivors {
        let told = world.watcher_told(place);
        let late = world.late_watch(place);
        let Some(running) = &mut world.members[place].running else {
            return Ok(Some(format!("m{} does not run although all is calm", place + 1)));
        };
        let view = running.reader.pin();
        let mut leases = Vec::new();
        view.leases(engine::ids::LeaseId(0), usize::MAX, &mut leases)
            .map_err(|error| format!("m{}: leases cannot be read: {error}", place + 1))?;
        if !leases.is_empty() {
            return Ok(Some(format!("m{} still has leases: {leases:?}", place + 1)));
        }
        if told != view.revision.0 {
            return Ok(Some(format!("a watcher of m{} was told up to {told} only", place + 1)));
        }
        if let Some(late) = late {
            return Ok(Some(format!("m{}: {late}", place + 1)));
        }
        // The members compare themselves all the time; nobody ever differs.
        let alarms =
            view.alarms().map_err(|error| format!("the alarms cannot be read: {error}"))?;
        if let Some(alarm) = alarms.iter().find(|alarm| alarm.kind == AlarmKind::CORRUPT) {
            return Err(format!("{} is taken for corrupt", alarm.member));
        }
        let hash = hash_of(&view)?;
        let (of_place, same) = *first.get_or_insert((place, hash));
        if same != hash {
            return Ok(Some(format!(
                "m{} and m{} differ: {same:?} and {hash:?}",
                of_place + 1,
                place + 1
            )));
        }
    }
    Ok(None)
}

fn hash_of(view: &engine::View) -> Result<KeyValueHash, Wrong> {
    let mut scan = KeyValueHashScan::computed(Revision(0));
    loop {
        match scan.step(view, usize::MAX) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => return Ok(scan.result().expect("it is done")),
            Err(error) => return Err(format!("a store cannot be hashed: {error}")),
        }
    }
}

#[cfg(test)]
mod tests;
