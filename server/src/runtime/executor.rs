//! Executors: one glommio executor a core, each hosting the core's loop.
//!
//! glommio gives the thread, its placement and its task queues. The loop is one task that waits on
//! its own ring ([`super::reactor`]) and yields to glommio's queue every [`YIELD_AFTER`], so that
//! other tasks of the executor (none on the request's road) get their turn.

use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::placement::CorePlan;

/// How long the loop keeps the executor to itself.
pub const YIELD_AFTER: Duration = Duration::from_millis(100);
/// glommio's own I/O memory; our I/O does not pass through it, and its default of 10 MiB a core
/// would only weigh on the process.
const GLOMMIO_MEMORY_BYTES: usize = 64 * 1024;

/// A core's loop.
pub trait CoreLoop {
    /// One turn: wait, handle, settle. False ends the loop.
    fn turn(&mut self) -> bool;
}

/// Starts an executor for `plan` and runs the loop that `make` builds on its thread.
///
/// # Errors
/// Where glommio cannot start: no thread, no ring, too little lockable memory.
pub fn start<L: CoreLoop + 'static>(
    name: &str,
    plan: CorePlan,
    make: impl FnOnce() -> Option<L> + Send + 'static,
) -> Result<ExecutorJoinHandle<()>, glommio::GlommioError<()>> {
    let placement = plan.processor.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement).name(name).io_memory(GLOMMIO_MEMORY_BYTES).spawn(
        move || async move {
            let Some(mut core) = make() else { return };
            let mut yielded = Instant::now();
            while core.turn() {
                if yielded.elapsed() >= YIELD_AFTER {
                    glommio::executor().yield_task_queue_now().await;
                    yielded = Instant::now();
                }
            }
        },
    )
}
