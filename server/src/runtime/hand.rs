//! A hand: a thread that does jobs for a core, one after the other.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::wake::Waker;

/// One thread and the queue to it.
#[derive(Debug)]
pub struct Hand<Job> {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl<Job: Send + 'static> Hand<Job> {
    /// Starts the thread. What came of a job is reported, and then the waker is called.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start<Done: Send + 'static>(
        name: &str,
        (report, waker): (mpsc::Sender<Done>, Waker),
        mut perform: impl FnMut(Job) -> Done + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            for job in todo {
                if report.send(perform(job)).is_err() {
                    return;
                }
                waker.wake();
                // A queue that is never empty must not keep a core of a small machine to itself.
                std::thread::yield_now();
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job.
    pub fn submit(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("jobs come before the end");
        jobs.send(job).expect("a hand works until its queue is closed");
    }
}

impl<Job> Drop for Hand<Job> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been reported by its own hook.
            drop(thread.join());
        }
    }
}
