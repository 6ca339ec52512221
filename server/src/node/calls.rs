//! Calls that wait for the log core or for their next step, by slot.
//!
//! A slot's number is handed to another core and comes back with the answer. A call that is given
//! up leaves its slot behind as a *tombstone* until that answer has come, so that an answer never
//! meets another call.

use std::time::Duration;

use engine::ids::MemberId;

use crate::frontend::http2::StreamKey;
use crate::mail::Slot;
use crate::runtime::reactor::SocketId;
use crate::runtime::slab::Slab;

use super::reads::Reading;
use crate::service::dispatch::LeaseQuestion;
use crate::service::method::Method;
use crate::service::stream::ServerStream;

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

impl Call {
    /// Whether a procedure of the server asks, not the client itself.
    #[must_use]
    pub fn is_inner(&self) -> bool {
        match &self.waiting {
            Waiting::ProcedureWrite => true,
            Waiting::Read(Some(reading)) => reading.is_inner,
            _ => false,
        }
    }

    /// Whether its answer is a stream of messages.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.waiting, Waiting::StreamRound(_) | Waiting::Stream)
    }

    /// Whether it is a read that may answer with much.
    #[must_use]
    pub fn is_wide_read(&self) -> bool {
        matches!(&self.waiting, Waiting::Read(Some(reading)) if reading.read.is_wide())
    }
}

/// What a call waits for.
#[derive(Debug)]
pub enum Waiting {
    /// Its command's answer.
    Write,
    /// The answer to a change of this member, which this method asked for.
    Change(Method, MemberId),
    /// The answer to a command of the procedure that answers it.
    ProcedureWrite,
    /// A read-index round, then its steps. `None` while a step is taken.
    Read(Option<Box<Reading>>),
    /// A read-index round, before its stream begins.
    StreamRound(Option<Box<ServerStream>>),
    /// The messages of its stream, which are made elsewhere.
    Stream,
    /// What the keeper of the leases' clocks knows.
    Lease(LeaseQuestion),
}

/// When a call is given up, and by whose clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Duration,
    /// Whether the server set it; otherwise the client did.
    pub is_ours: bool,
}

/// How long the two sides wait.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// The client, if it said so.
    pub client: Option<Duration>,
    /// The server.
    pub server: Duration,
}

#[derive(Debug)]
struct Entry {
    call: Option<Call>,
    deadline: Deadline,
    /// The client's own.
    client_deadline: Option<Duration>,
    size_bytes: usize,
    begun: Duration,
    /// Whether its slowness was told.
    is_slow: bool,
}

/// Calls that were found to take long since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowCalls {
    /// How many.
    pub count: u64,
    /// How long the slowest of them has been under way.
    pub taken_max: Duration,
}

/// All calls under way on one front-end.
#[derive(Debug, Default)]
pub struct Calls {
    entries: Slab<Entry>,
    size_bytes: usize,
    swept_at: Duration,
    late: Vec<(Call, Deadline)>,
    /// From when on a call is slow; `None` calls none slow.
    slow_after: Option<Duration>,
    slow: Option<SlowCalls>,
}

/// How often the calls are looked through for late ones.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

impl Calls {
    /// No calls; those that take longer than `slow_after` are told by [`Calls::poll_slow`].
    #[must_use]
    pub fn new(slow_after: Option<Duration>) -> Self {
        Self { slow_after, ..Self::default() }
    }

    /// Reserves a slot for a call whose command takes `size_bytes`. The call is given up at the
    /// first of its deadlines.
    pub fn insert(
        &mut self,
        call: Call,
        size_bytes: usize,
        now: Duration,
        timeouts: Timeouts,
    ) -> Slot {
        let Timeouts { client, server } = timeouts;
        let is_ours = client.is_none_or(|timeout| timeout >= server);
        let after = client.map_or(server, |timeout| timeout.min(server));
        let deadline = Deadline { at: now + after, is_ours };
        self.size_bytes += size_bytes;
        let client_deadline = client.map(|timeout| now + timeout);
        let (call, begun, is_slow) = (Some(call), now, false);
        let entry = Entry { call, deadline, client_deadline, size_bytes, begun, is_slow };
        Slot(self.entries.insert(entry))
    }

    /// The call waits for nobody any more, so that only its client may give it up: a long read
    /// takes as long as it takes.
    pub fn lift_server_deadline(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot.0) {
            let at = entry.client_deadline.unwrap_or(Duration::MAX);
            entry.deadline = Deadline { at, is_ours: false };
        }
    }

    /// The call of a slot, if it has not been given up.
    pub fn get(&self, slot: Slot) -> Option<&Call> {
        self.entries.get(slot.0)?.call.as_ref()
    }

    /// The call of a slot, to change what it waits for.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Call> {
        self.entries.get_mut(slot.0)?.call.as_mut()
    }

    /// Takes the read of a slot out for a step; `None` if its call was given up.
    pub fn begin_step(&mut self, slot: Slot) -> Option<(StreamKey, Box<Reading>)> {
        let call = self.entries.get_mut(slot.0)?.call.as_mut()?;
        let Waiting::Read(reading) = &mut call.waiting else {
            unreachable!("only reads are stepped");
        };
        Some((call.stream, reading.take().expect("a step is ended before the next")))
    }

    /// Puts a read back that needs further steps.
    pub fn end_step(&mut self, slot: Slot, reading: Box<Reading>) {
        let call = self.entries.get_mut(slot.0).and_then(|entry| entry.call.as_mut());
        let call = call.expect("nobody gives a call up during a step");
        call.waiting = Waiting::Read(Some(reading));
    }

    /// Frees the slot, whose answer has come; `None` if its call was given up meanwhile.
    pub fn take(&mut self, slot: Slot) -> Option<Call> {
        let entry = self.entries.remove(slot.0);
        self.size_bytes -= entry.size_bytes;
        entry.call
    }

    /// The next call that is late. A read that waits for nobody's answer is freed by its next step.
    pub fn poll_late(&mut self, now: Duration) -> Option<(Call, Deadline)> {
        if now.saturating_sub(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = now;
            for (_, entry) in self.entries.iter_mut() {
                let taken = now.saturating_sub(entry.begun);
                // A stream takes as long as its client does, and the limit is for single answers.
                let is_single = entry.call.as_ref().is_some_and(|call| !call.is_stream());
                let is_slow = is_single && self.slow_after.is_some_and(|after| taken > after);
                if is_slow && !entry.is_slow {
                    entry.is_slow = true;
                    let slow = self.slow.get_or_insert(SlowCalls { count: 0, taken_max: taken });
                    slow.count += 1;
                    slow.taken_max = slow.taken_max.max(taken);
                }
                if entry.deadline.at <= now
                    && let Some(call) = entry.call.take()
                {
                    self.late.push((call, entry.deadline));
                }
            }
        }
        self.late.pop()
    }

    /// What was found slow since the last time this was asked; each call once. They are looked for
    /// when late ones are: not by every answer, whose way this is no part of.
    pub fn poll_slow(&mut self) -> Option<SlowCalls> {
        self.slow.take()
    }

    /// Slots in use, those of given-up calls included: they bound what the log core may owe.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the commands under way.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Whether no slot is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::reactor::SocketId;

    const SERVER: Duration = Duration::from_secs(7);

    fn insert(calls: &mut Calls, client: Option<Duration>) -> Slot {
        let stream = StreamKey::default();
        let call = Call { socket: SocketId::of_test(1), stream, waiting: Waiting::Write };
        calls.insert(call, 10, Duration::ZERO, Timeouts { client, server: SERVER })
    }

    #[test]
    fn an_answer_after_the_deadline_meets_a_tombstone_and_no_other_call() {
        let mut calls = Calls::default();
        let slot = insert(&mut calls, None);
        assert!(calls.poll_late(SERVER - Duration::from_millis(200)).is_none());
        let (_, deadline) = calls.poll_late(SERVER).unwrap();
        assert!(deadline.is_ours);
        let other = insert(&mut calls, None);
        assert_ne!(other, slot, "the slot stays taken until its answer has come");
        assert!(calls.take(slot).is_none());
        assert!(calls.take(other).is_some());
        assert_eq!((calls.len(), calls.size_bytes()), (0, 0));
    }

    #[test]
    fn the_shorter_deadline_wins() {
        let mut calls = Calls::default();
        insert(&mut calls, Some(Duration::from_secs(1)));
        insert(&mut calls, Some(Duration::from_secs(60)));
        let (_, first) = calls.poll_late(Duration::from_secs(1)).unwrap();
        assert!(!first.is_ours);
        assert!(calls.poll_late(Duration::from_secs(6)).is_none());
        let (_, second) = calls.poll_late(SERVER).unwrap();
        assert!(second.is_ours);
    }

    #[test]
    fn a_slow_call_is_told_once_while_it_is_under_way() {
        let after = Duration::from_millis(300);
        let mut calls = Calls::new(Some(after));
        let quick = insert(&mut calls, None);
        insert(&mut calls, None);
        insert(&mut calls, None);
        assert!(calls.poll_late(after).is_none());
        assert_eq!(calls.poll_slow(), None, "as long as allowed is not too long");
        calls.take(quick);
        let now = after + SWEEP_EVERY;
        assert!(calls.poll_late(now).is_none());
        assert_eq!(calls.poll_slow(), Some(SlowCalls { count: 2, taken_max: now }));
        assert!(calls.poll_late(now + SWEEP_EVERY).is_none());
        assert_eq!(calls.poll_slow(), None);
        let stream = StreamKey::default();
        let call = Call { socket: SocketId::of_test(1), stream, waiting: Waiting::Stream };
        let timeouts = Timeouts { client: None, server: SERVER };
        calls.insert(call, 0, Duration::ZERO, timeouts);
        assert!(calls.poll_late(now + 2 * SWEEP_EVERY).is_none());
        assert_eq!(calls.poll_slow(), None, "a backup takes as long as its client");
        let mut silent = Calls::new(None);
        insert(&mut silent, None);
        assert!(silent.poll_late(now).is_none());
        assert_eq!(silent.poll_slow(), None);
    }

    #[test]
    fn a_read_that_is_being_answered_is_given_up_by_its_client_alone() {
        let mut calls = Calls::default();
        let patient = insert(&mut calls, None);
        let hurried = insert(&mut calls, Some(Duration::from_secs(60)));
        calls.lift_server_deadline(patient);
        calls.lift_server_deadline(hurried);
        assert!(calls.poll_late(Duration::from_secs(59)).is_none());
        let (_, late) = calls.poll_late(Duration::from_secs(60)).unwrap();
        assert!(!late.is_ours);
        assert!(calls.poll_late(Duration::from_secs(1 << 40)).is_none());
    }
}
