//! The process-wide switch: serving, stopping, stopped. Set by few, read by all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::runtime::wake::Waker;

/// Where the process is in its life.
#[derive(Debug, Default)]
pub struct Switch {
    serving: AtomicBool,
    stopping: AtomicBool,
    log_stopped: AtomicBool,
    removed: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Switch {
    /// A core begins; `waker` lets a stop reach it while it sleeps.
    pub fn register(&self, waker: Waker) {
        self.wakers.lock().expect("no core panics while it registers").push(waker);
    }

    /// This member answers client requests from now on.
    pub fn announce_serving(&self) {
        self.serving.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether client requests are answered.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// Asks every core to stop.
    pub fn request_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// This member was removed from its cluster: that, and no operator, ends it.
    pub fn announce_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Whether it was.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// The log core has written its last checkpoint: nothing more will be answered.
    pub fn announce_log_stopped(&self) {
        self.log_stopped.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether the log core has stopped.
    #[must_use]
    pub fn is_log_stopped(&self) -> bool {
        self.log_stopped.load(Ordering::Acquire)
    }

    fn wake_all(&self) {
        for waker in &*self.wakers.lock().expect("no core panics while it registers") {
            waker.wake();
        }
    }
}
