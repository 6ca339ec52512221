//! What goes on in the background: sweeps, defragmentation, and who waits for them.
//!
//! Invariants:
//! - Nothing of it is done inside a batch, and each step is short: a batch that arrives meanwhile
//!   waits for one at most.
//! - Those who ask for a defragmentation while one is under way are answered with it.

use std::time::Duration;

use super::LogCore;
use crate::mail::{FrontendId, Slot, Unavailable, Verdict};
use crate::node::failure::Failure;
use crate::sequencer::batch::Ticket;

/// Keys that a step of a background sweep may touch: a fraction of a millisecond, so that a batch
/// that arrives meanwhile hardly waits.
pub const BACKGROUND_KEYS_MAX: usize = 256;
/// Pages that a step of a defragmentation may copy: as long as a step of a sweep.
const DEFRAG_PAGES_MAX: usize = 64;

impl LogCore {
    /// A front-end wants the store defragmented, and has all the time that takes.
    pub(super) fn handle_defrags(&mut self, frontend: FrontendId, slots: &[Slot]) {
        if slots.is_empty() {
            return;
        }
        self.engine.begin_defrag();
        self.replies[frontend.place()].patient.extend_from_slice(slots);
        self.defragmenting.extend(slots.iter().map(|&slot| Ticket { frontend, slot }));
    }

    /// Takes a step of each job.
    pub(super) fn work_in_background(&mut self, now: Duration) -> Result<(), Failure> {
        self.engine.background_step(BACKGROUND_KEYS_MAX)?;
        self.answer_swept();
        self.engine.defrag_step(DEFRAG_PAGES_MAX)?;
        if self.engine.defrag_wants_checkpoint() && self.engine.begin_checkpoint() {
            self.checkpoint.handle_begun(now);
            self.store_wants_room = false;
        }
        if !self.engine.is_defragmenting() {
            for ticket in std::mem::take(&mut self.defragmenting) {
                let reply = &mut self.replies[ticket.frontend.place()];
                reply.answers.push((ticket.slot, Verdict::Defragmented));
            }
        }
        Ok(())
    }

    /// A member that stops leaves the files as they are: each step of the run was whole.
    pub(super) fn stop_upkeep(&mut self) {
        for ticket in std::mem::take(&mut self.defragmenting) {
            self.refuse(ticket, Unavailable::Stopped);
        }
    }
}
