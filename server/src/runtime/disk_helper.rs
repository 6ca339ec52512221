//! The disk helper: one thread for the file work that must not hold up a core.
//!
//! Segments prepared ahead, checkpoints, removals: slow, rare, and in no hurry. They are performed
//! one after another in the order they came; a core is woken when one has ended. Log writes do not
//! come here.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::files::EngineDisk;
use super::log_disk::LogDisk;
use super::wake::Waker;

/// Work for the helper.
#[derive(Debug)]
pub enum Job {
    /// An operation of the log.
    Log(wal::OpId, wal::DiskOp),
    /// An operation of the engine.
    Engine(engine::page::disk::DiskOp),
}

/// How it ended.
#[derive(Debug)]
pub enum Done {
    /// An operation of the log.
    Log(wal::OpId, Result<wal::Completion, wal::DiskError>),
    /// An operation of the engine.
    Engine(engine::page::disk::Completion),
}

/// The thread and the two queues to it.
#[derive(Debug)]
pub struct DiskHelper {
    jobs: Option<mpsc::Sender<Job>>,
    done: mpsc::Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl DiskHelper {
    /// Starts the thread; `waker` is called after each job.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(mut log: LogDisk, mut engine: EngineDisk, waker: Waker) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let (report, done) = mpsc::channel();
        let thread = std::thread::Builder::new().name("disk-helper".into()).spawn(move || {
            for job in todo {
                let done = match job {
                    Job::Log(id, op) => Done::Log(id, log.perform(op)),
                    Job::Engine(op) => Done::Engine(engine.perform(op)),
                };
                if report.send(done).is_err() {
                    return;
                }
                waker.wake();
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Queues a job.
    pub fn submit(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("jobs come before the end");
        jobs.send(job).expect("the helper runs until its queue is closed");
    }

    /// The next job that ended.
    pub fn poll_done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}

impl Drop for DiskHelper {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the helper has already been reported by its own hook.
            drop(thread.join());
        }
    }
}
