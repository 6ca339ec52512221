//! Calls that wait for the log core or for their next step, by slot.
//!
//! A slot's number is handed to another core and comes back with the answer. A call that is given
//! up leaves its slot behind as a *tombstone* until that answer has come, so that an answer never
//! meets another call.

use std::time::Duration;

use crate::frontend::http2::StreamKey;
use crate::mail::Slot;
use crate::runtime::reactor::SocketId;
use crate::runtime::slab::Slab;
use crate::service::dispatch::Read;

/// A call under way.
#[derive(Debug)]
pub struct Call {
    /// Its client.
    pub socket: SocketId,
    /// Its stream.
    pub stream: StreamKey,
    /// What it waits for.
    pub waiting: Waiting,
}

/// What a call waits for.
#[derive(Debug)]
pub enum Waiting {
    /// Its command's answer.
    Write,
    /// A read-index round, then its steps.
    Read(Box<Read>),
}

/// When a call is given up, and by whose clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Duration,
    /// Whether the server set it; otherwise the client did.
    pub is_ours: bool,
}

#[derive(Debug)]
struct Entry {
    call: Option<Call>,
    deadline: Deadline,
}

/// All calls under way on one front-end.
#[derive(Debug, Default)]
pub struct Calls {
    entries: Slab<Entry>,
    swept_at: Duration,
    late: Vec<(Call, Deadline)>,
}

/// How often the calls are looked through for late ones.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

impl Calls {
    /// Reserves a slot. The call is given up at the client's deadline or after `timeout_max`,
    /// whichever comes first.
    pub fn insert(
        &mut self,
        call: Call,
        now: Duration,
        timeout: Option<Duration>,
        timeout_max: Duration,
    ) -> Slot {
        let is_ours = timeout.is_none_or(|timeout| timeout >= timeout_max);
        let after = timeout.map_or(timeout_max, |timeout| timeout.min(timeout_max));
        let deadline = Deadline { at: now + after, is_ours };
        Slot(self.entries.insert(Entry { call: Some(call), deadline }))
    }

    /// The call of a slot, if it has not been given up.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Call> {
        self.entries.get_mut(slot.0)?.call.as_mut()
    }

    /// Frees the slot, whose answer has come; `None` if its call was given up meanwhile.
    pub fn take(&mut self, slot: Slot) -> Option<Call> {
        self.entries.remove(slot.0).call
    }

    /// The next call that is late. A read that waits for nobody's answer is freed by its next step.
    pub fn poll_late(&mut self, now: Duration) -> Option<(Call, Deadline)> {
        if now.saturating_sub(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = now;
            for (_, entry) in self.entries.iter_mut() {
                if entry.deadline.at <= now
                    && let Some(call) = entry.call.take()
                {
                    self.late.push((call, entry.deadline));
                }
            }
        }
        self.late.pop()
    }

    /// Slots in use, those of given-up calls included: they bound what the log core may owe.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no slot is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
