//! The disk helper: threads for the file work that must not hold up a core.
//!
//! Segments prepared ahead, checkpoints, removals: slow and rare. Log writes do not come here.
//!
//! Invariants:
//! - The log's operations are performed one after another in the order they came, and so are the
//!   engine's, each on a thread of its own: a segment that the log is about to need does not wait
//!   for the syncs of a checkpoint. Nor does a file that has to grow, for which writes may wait.
//! - A core is woken when one has ended.

use std::io;
use std::sync::mpsc;

use engine::page::disk::DiskOpKind;

use super::files::EngineDisk;
use super::hand::Hand;
use super::log_disk::LogDisk;
use super::wake::Waker;

/// How it ended.
#[derive(Debug)]
pub enum Done {
    /// An operation of the log.
    Log(wal::OpId, Result<wal::Completion, wal::DiskError>),
    /// An operation of the engine.
    Engine(engine::page::disk::Completion),
}

/// The threads, a queue to each, and one back.
#[derive(Debug)]
pub struct DiskHelper {
    log: Hand<(wal::OpId, wal::DiskOp)>,
    engine: Hand<engine::page::disk::DiskOp>,
    growth: Hand<engine::page::disk::DiskOp>,
    done: mpsc::Receiver<Done>,
}

impl DiskHelper {
    /// Starts the threads; `waker` is called after each operation.
    ///
    /// # Errors
    /// When no thread or no descriptor can be had.
    pub fn start(mut log: LogDisk, mut engine: EngineDisk, waker: Waker) -> io::Result<Self> {
        let (report, done) = mpsc::channel();
        let mail = (report.clone(), waker.clone());
        let log = Hand::start("log-disk", mail, move |(id, op)| Done::Log(id, log.perform(op)))?;
        let mut growing = engine.duplicate()?;
        let mail = (report.clone(), waker.clone());
        let engine = Hand::start("store-disk", mail, move |op| Done::Engine(engine.perform(op)))?;
        let grow = move |op| Done::Engine(growing.perform(op));
        let growth = Hand::start("store-growth", (report, waker), grow)?;
        Ok(Self { log, engine, growth, done })
    }

    /// Queues an operation of the log.
    pub fn submit_log(&self, id: wal::OpId, op: wal::DiskOp) {
        self.log.submit((id, op));
    }

    /// Queues an operation of the engine.
    pub fn submit_engine(&self, op: engine::page::disk::DiskOp) {
        match op.kind {
            DiskOpKind::Allocate { .. } | DiskOpKind::Shorten { .. } => self.growth.submit(op),
            DiskOpKind::Write { .. } | DiskOpKind::Sync => self.engine.submit(op),
        }
    }

    /// The next operation that ended.
    pub fn poll_done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}
