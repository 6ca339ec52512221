//! A store whose content comes from elsewhere, and batches that come with it.
//!
//! Invariant: nothing made here counts before its directory is sealed; a failure leaves what the
//! next attempt clears.

use engine::ids::{LogIndex, Term};
use engine::{Batch, Engine, EngineConfig, Progress};
use raft::eraftpb::EntryType;

use super::{
    APPLY_KEYS_MAX, BOOTSTRAP, EngineDisk, Failure, LogDisk, SHARD_SIZE_BYTES_MAX, StartConfig,
    Started, apply, checkpoint, give_pages_back, open_files, perform_all, recover_log, reserve,
    sync_directory,
};

/// Makes the store and the log of a new member. `fill` gives the store its content, as that of a
/// store which has applied what every log begins with and nothing else.
///
/// # Errors
/// What `fill` says, and what the disk does.
pub fn create<E: From<Failure>>(
    config: &StartConfig,
    fill: impl FnOnce(&mut Engine, &mut EngineDisk) -> Result<(), E>,
) -> Result<(), E> {
    let (files, mut disk, is_empty) = open_files(config)?;
    if !is_empty || !config.is_new {
        let directory = config.store_dir.display();
        return Err(Failure::Mismatch(format!("there is a store in {directory} already")).into());
    }
    let engine_config =
        EngineConfig { shards: config.shards, shard_size_bytes_max: SHARD_SIZE_BYTES_MAX };
    let mut engine =
        Engine::create(files, engine_config, config.identity).map_err(Failure::from)?;
    fill(&mut engine, &mut disk)?;
    let (index, term) = BOOTSTRAP;
    engine.finish_import(index, term);
    checkpoint(&mut engine, &mut disk)?;
    sync_directory(&config.store_dir)?;
    let mut log_disk = LogDisk::new(&config.log_dir, config.direct);
    recover_log(config, config.identity, &mut log_disk, |_| {
        let directory = config.log_dir.display();
        Err(Failure::Mismatch(format!("the new log in {directory} is not empty")))
    })?;
    Ok(())
}

/// Applies what the log of a member that votes alone holds behind its last commit: it acknowledges
/// before it writes down that it committed, so that all of it counts. For who looks at a store and
/// serves nobody; a member that serves leaves this to raft.
///
/// # Errors
/// There is no room, or the disk fails.
pub fn apply_rest(started: &mut Started) -> Result<(), Failure> {
    let Started { stages, engine_disk, unapplied, .. } = started;
    while let Some(entry) = unapplied.pop_front() {
        let at = (LogIndex(entry.index), Term(entry.term));
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(Failure::UnknownEntry { index: at.0 });
        }
        apply(&mut stages.engine, engine_disk, at, entry)?;
    }
    stages.engine.publish();
    Ok(())
}

/// Does what an engine that has too few pages waits for.
///
/// # Errors
/// There is no room, or the disk fails.
pub fn make_room(engine: &mut Engine, disk: &mut EngineDisk) -> Result<(), Failure> {
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
pub fn apply_batch(
    engine: &mut Engine,
    disk: &mut EngineDisk,
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
