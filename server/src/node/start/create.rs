//! A store whose content comes from elsewhere, and batches that come with it.
//!
//! Invariant: nothing made here counts before its directory is sealed; a failure leaves what the
//! next attempt clears.

use engine::ids::{LogIndex, Term};
use engine::{Batch, Engine, Progress};

use super::replay::apply;
use super::{
    APPLY_KEYS_MAX, Directories, Disks, EngineDisk, Failure, Origin, StartConfig, Started,
    StoreDoor, checkpoint, found, give_pages_back, log_identity, perform_all, recover_log, reserve,
};
use crate::raft::storage::BOOTSTRAP;

/// Makes the store and the log of a new member. `fill` gives the store its content, as that of a
/// store which has applied what every log begins with and nothing else.
///
/// # Errors
/// What `fill` says, and what the disk does.
pub fn create<E: From<Failure>>(
    config: &StartConfig,
    fill: impl FnOnce(&mut Engine, &mut EngineDisk) -> Result<(), E>,
) -> Result<(), E> {
    let mut disks = Directories::new(config);
    let (files, mut disk, is_empty) = disks.open_store()?;
    if !is_empty || !config.is_new {
        let directory = config.store_dir.display();
        return Err(Failure::Mismatch(format!("there is a store in {directory} already")).into());
    }
    let mut engine =
        Engine::create(files, disks.store_config(), config.identity).map_err(Failure::from)?;
    fill(&mut engine, &mut disk)?;
    if config.origin == Origin::Founds(Vec::new()) {
        let (index, term) = BOOTSTRAP;
        engine.finish_import(index, term);
    } else {
        found(&mut engine, &mut disk, config)?;
    }
    checkpoint(&mut engine, &mut disk)?;
    disks.sync_store_directory()?;
    let (mut log_disk, identity) = (disks.open_log(), log_identity(config.identity));
    recover_log(config, disks.log_config(identity), &mut log_disk, |_| {
        let directory = config.log_dir.display();
        Err(Failure::Mismatch(format!("the new log in {directory} is not empty")))
    })?;
    Ok(())
}

/// Applies what the log of a member that votes alone holds behind its last commit: it acknowledges
/// before it writes down that it committed, so that all of it counts. For who looks at a store and
/// serves nobody; a member that serves leaves this to raft.
///
/// Of a member that does not vote alone nobody here knows what was committed: that stays as it is.
///
/// # Errors
/// There is no room, or the disk fails.
pub fn apply_rest<L, S: StoreDoor>(started: &mut Started<L, S>) -> Result<(), Failure> {
    let Started { stages, engine_disk, unapplied, .. } = started;
    let own = stages.member.0;
    let mut conf_state = stages.consensus.conf_state().clone();
    while conf_state.voters == [own]
        && let Some(entry) = unapplied.pop_front()
    {
        apply(&mut stages.engine, engine_disk, entry, &mut conf_state)?;
    }
    stages.engine.publish();
    Ok(())
}

/// Does what an engine that has too few pages waits for.
///
/// # Errors
/// There is no room, or the disk fails.
pub fn make_room<S: StoreDoor>(engine: &mut Engine, disk: &mut S) -> Result<(), Failure> {
    if perform_all(engine, disk)? && engine.growth_failure().is_none() {
        return Ok(());
    }
    let cause = engine.growth_failure().map_or("it is full".to_owned(), ToString::to_string);
    engine.publish();
    give_pages_back(engine, disk, Failure::Mismatch(format!("the store has no room: {cause}")))
}

/// Applies a committed batch to its end and publishes it.
///
/// # Errors
/// There is no room, or the disk fails.
pub fn apply_batch<S: StoreDoor>(
    engine: &mut Engine,
    disk: &mut S,
    (index, term): (LogIndex, Term),
    batch: &Batch,
) -> Result<(), Failure> {
    reserve(engine, disk, batch.bytes().len())?;
    engine.begin_batch(index, term, batch);
    let mut answers = Vec::new();
    while engine.apply_step(APPLY_KEYS_MAX, &mut answers)? == Progress::More {
        let has_moved = perform_all(engine, disk)?;
        if engine.is_apply_starved() && (!has_moved || engine.growth_failure().is_some()) {
            let error =
                engine.growth_failure().map_or("it is full".to_owned(), ToString::to_string);
            let failure = format!("cannot replay the log: the store has no room: {error}");
            give_pages_back(engine, disk, Failure::Mismatch(failure))?;
        }
    }
    engine.publish();
    Ok(())
}
