//! Reads that take several turns: what is kept of them, and whose turn it is.
//!
//! What a read gathers leaves only when the client takes it, and a client may open its windows late
//! or never. So a connection that holds much begins no further wide read, and goes on with none
//! while its streams hold much; its socket is read from meanwhile, because the updates of its
//! windows come that way. Single look-ups go on for much longer: they add little, and a client that
//! waits for a large range had better not wait for them.
//!
//! Invariants:
//! - Connections take turns, whatever each of them asks for; the reads of one connection too, but
//!   one whose answer has become large is finished before the next is begun, so that a connection
//!   has one large answer under way.
//! - A connection that takes nothing gets no turn.
//! - A wide read that was begun waits for nothing but its own connection's streams, so what it
//!   holds is given back as soon as the client takes what it asked for; only reads that hold
//!   nothing wait for others.
//! - What unfinished answers hold is counted as long as they live, however they end.
//! - A read that needs one view in all its steps has its queue to itself: its front alone holds a
//!   view, so a core holds one at the most.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use engine::view::HeldView;

use crate::frontend::grpc::OwnedMessage;
use crate::frontend::http2::limits::QUEUED_BYTES_MAX;
use crate::mail::Slot;
use crate::runtime::reactor::SocketId;
use crate::service::dispatch::Read;

/// An answer of this size is finished before another one of its connection grows.
const ANSWER_SHARED_BYTES_MAX: usize = 1 << 20;
/// What a connection's streams may hold before its wide reads wait, and what its unfinished answers
/// may before no other is begun. A few round trips' worth of a fast client, and more than a client
/// with many watches usually leaves in their streams.
pub const CONNECTION_HELD_BYTES_MAX: usize = 8 << 20;
/// What all connections of a core may hold in these two ways before no wide read is begun: a
/// fraction of the memory of a machine that serves thousands of clients.
pub const CORE_HELD_BYTES_MAX: usize = 256 << 20;

/// A read with what its steps have brought.
pub struct Reading {
    /// The read.
    pub read: Box<Read>,
    /// The answer so far; `None` before the first step.
    pub answer: Option<OwnedMessage>,
    /// The view of all its steps, if they need the same.
    pub view: Option<HeldView>,
    /// A procedure of the server asks, not its client: the answer does not leave.
    pub is_inner: bool,
    held: Option<Tally>,
}

/// What an unfinished answer holds, counted for its connection and its core while it lives.
struct Tally {
    bytes: usize,
    connection: Rc<Cell<usize>>,
    core: Rc<Cell<usize>>,
}

impl Tally {
    fn set(&mut self, bytes: usize) {
        for sum in [&self.connection, &self.core] {
            sum.set(sum.get() - self.bytes + bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Reading {
    /// A read before its first step.
    #[must_use]
    pub fn new(read: Box<Read>) -> Self {
        Self { read, answer: None, view: None, is_inner: false, held: None }
    }

    /// Begins again: what it has gathered is not of the view that all its steps are to see.
    pub fn restart(&mut self) {
        self.answer = None;
        self.held = None;
        self.read.restart();
    }

    /// Bytes that it holds until it is finished.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.answer.as_ref().map_or(0, OwnedMessage::size_bytes) + self.read.held_bytes()
    }

    /// Whether its answer has become so large that it had better be finished.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.held_bytes() > ANSWER_SHARED_BYTES_MAX
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} with {} bytes", self.read, self.held_bytes())
    }
}

/// Which reads of a connection get turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// All.
    #[default]
    Open,
    /// Those of one key: its streams hold much.
    LookUps,
    /// None: it takes nothing, or its streams hold more than any connection's may.
    Shut,
}

impl Gate {
    /// The gate of a connection whose streams hold so much.
    #[must_use]
    pub fn for_queued(queued_bytes: usize) -> Self {
        if queued_bytes > QUEUED_BYTES_MAX {
            Self::Shut
        } else if queued_bytes > CONNECTION_HELD_BYTES_MAX {
            Self::LookUps
        } else {
            Self::Open
        }
    }

    /// Whether it lets a read pass.
    #[must_use]
    pub fn admits(self, is_wide: bool) -> bool {
        self == Self::Open || (self == Self::LookUps && !is_wide)
    }
}

/// The reads of one connection.
#[derive(Debug, Default)]
struct Line {
    look_ups: VecDeque<Slot>,
    /// Wide reads that hold nothing yet.
    fresh: VecDeque<Slot>,
    /// Wide reads that were begun.
    begun: VecDeque<Slot>,
    gate: Gate,
    /// The connection is no more: its reads are to be popped and forgotten.
    is_gone: bool,
    has_turn: bool,
    waits_for_core: bool,
    was_look_up: bool,
    /// The first of the begun is to be finished before another read is begun.
    finishes_first: bool,
    was_fresh: bool,
    /// Bytes that unfinished answers hold.
    held: Rc<Cell<usize>>,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.look_ups.is_empty() && self.fresh.is_empty() && self.begun.is_empty()
    }

    fn pop(&mut self, core_has_room: bool) -> Option<Slot> {
        if self.is_gone {
            let queues = [&mut self.look_ups, &mut self.fresh, &mut self.begun];
            return queues.into_iter().find_map(VecDeque::pop_front);
        }
        // In turn, so that neither kind keeps the other waiting.
        if self.was_look_up {
            self.pop_wide(core_has_room).or_else(|| self.pop_look_up())
        } else {
            self.pop_look_up().or_else(|| self.pop_wide(core_has_room))
        }
    }

    fn pop_look_up(&mut self) -> Option<Slot> {
        if !self.gate.admits(false) {
            return None;
        }
        let slot = self.look_ups.pop_front()?;
        self.was_look_up = true;
        Some(slot)
    }

    fn pop_wide(&mut self, core_has_room: bool) -> Option<Slot> {
        if !self.gate.admits(true) {
            return None;
        }
        let may_begin = core_has_room && self.held.get() <= CONNECTION_HELD_BYTES_MAX;
        let prefers_begun = self.finishes_first || self.was_fresh;
        let from_fresh =
            may_begin && !self.fresh.is_empty() && (self.begun.is_empty() || !prefers_begun);
        let slot = if from_fresh { &mut self.fresh } else { &mut self.begun }.pop_front()?;
        self.was_fresh = from_fresh;
        self.finishes_first = false;
        self.was_look_up = false;
        Some(slot)
    }
}

/// Reads that wait for their next step. A connection's line is kept until it is gone.
#[derive(Debug, Default)]
pub struct ReadQueue {
    lines: HashMap<SocketId, Line>,
    /// Connections that may have reads to be stepped, in turn.
    turns: VecDeque<SocketId>,
    /// Connections that have nothing but reads to begin, while the core holds too much.
    waiting: VecDeque<SocketId>,
    /// Bytes that unfinished answers of all connections hold.
    held: Rc<Cell<usize>>,
    /// Bytes that their streams hold.
    queued_bytes: usize,
}

impl ReadQueue {
    /// A read that was not begun waits behind the others of its kind of its connection.
    pub fn push(&mut self, socket: SocketId, slot: Slot, is_wide: bool) {
        let line = self.lines.entry(socket).or_default();
        let queue = if is_wide { &mut line.fresh } else { &mut line.look_ups };
        queue.push_back(slot);
        self.give_turn(socket);
    }

    /// A wide read that had a step waits for the next, and what it holds is counted. A large one,
    /// and any if its connection holds much, goes on before the connection's others.
    pub fn push_begun(&mut self, socket: SocketId, slot: Slot, reading: &mut Reading) {
        let line = self.lines.entry(socket).or_default();
        let tally = reading.held.take();
        let mut tally = tally.unwrap_or_else(|| Tally {
            bytes: 0,
            connection: Rc::clone(&line.held),
            core: Rc::clone(&self.held),
        });
        tally.set(reading.held_bytes());
        reading.held = Some(tally);
        if reading.is_large() || line.held.get() > CONNECTION_HELD_BYTES_MAX {
            line.begun.push_front(slot);
            line.finishes_first = true;
        } else {
            line.begun.push_back(slot);
        }
        self.give_turn(socket);
    }

    /// The read whose turn it is.
    pub fn pop(&mut self) -> Option<(SocketId, Slot)> {
        self.end_waiting();
        let has_room = self.core_has_room();
        while let Some(socket) = self.turns.pop_front() {
            let line = self.lines.get_mut(&socket).expect("who has a turn has a line");
            let slot = line.pop(has_room);
            line.has_turn = slot.is_some() && !line.is_empty();
            if line.has_turn {
                self.turns.push_back(socket);
            } else if line.is_gone {
                self.lines.remove(&socket);
            } else if slot.is_none()
                && !has_room
                && !line.fresh.is_empty()
                && !std::mem::replace(&mut line.waits_for_core, true)
            {
                self.waiting.push_back(socket);
            }
            if let Some(slot) = slot {
                return Some((socket, slot));
            }
        }
        None
    }

    /// Whether a wide read of the connection may be begun, as far as others and its unfinished
    /// answers are concerned.
    #[must_use]
    pub fn may_begin(&self, socket: SocketId) -> bool {
        let line = self.lines.get(&socket);
        let may =
            |line: &Line| line.gate.admits(true) && line.held.get() <= CONNECTION_HELD_BYTES_MAX;
        self.core_has_room() && line.is_none_or(may)
    }

    /// What the connection gets turns for from now on.
    pub fn set_gate(&mut self, socket: SocketId, gate: Gate) {
        let line = self.lines.entry(socket).or_default();
        line.gate = gate;
        self.give_turn(socket);
    }

    /// The streams of a connection hold other bytes than before.
    pub fn handle_queued(&mut self, before_bytes: usize, now_bytes: usize) {
        self.queued_bytes = self.queued_bytes - before_bytes + now_bytes;
    }

    /// The connection is gone: its reads are popped, and find it so.
    pub fn handle_gone(&mut self, socket: SocketId) {
        let Some(line) = self.lines.get_mut(&socket) else { return };
        line.is_gone = true;
        if line.is_empty() && !line.has_turn {
            self.lines.remove(&socket);
        } else {
            self.give_turn(socket);
        }
    }

    /// Connections whose reads may have to be stepped.
    #[must_use]
    pub fn turn_count(&self) -> usize {
        self.turns.len()
    }

    /// Whether nothing is to be stepped.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty() && (self.waiting.is_empty() || !self.core_has_room())
    }

    /// What connections hold that their clients have not taken.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.queued_bytes + self.held.get()
    }

    fn core_has_room(&self) -> bool {
        self.held_bytes() <= CORE_HELD_BYTES_MAX
    }

    fn end_waiting(&mut self) {
        if !self.core_has_room() {
            return;
        }
        while let Some(socket) = self.waiting.pop_front() {
            // It may be gone.
            if let Some(line) = self.lines.get_mut(&socket) {
                line.waits_for_core = false;
                self.give_turn(socket);
            }
        }
    }

    fn give_turn(&mut self, socket: SocketId) {
        let line = self.lines.get_mut(&socket).expect("the caller looked it up");
        if !line.is_empty() && !std::mem::replace(&mut line.has_turn, true) {
            self.turns.push_back(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &mut ReadQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(|(_, slot)| slot.0).collect()
    }

    fn connection() -> SocketId {
        SocketId::of_test(1)
    }

    fn reading() -> Reading {
        Reading::new(Read::of_test())
    }

    fn gather(reading: &mut Reading, size_bytes: usize) {
        let bytes = reading.answer.get_or_insert_default().bytes();
        bytes.resize(bytes.len() + size_bytes, 0);
    }

    #[test]
    fn a_connection_with_many_reads_gets_no_more_turns_than_one_with_a_single_read() {
        let mut queue = ReadQueue::default();
        for slot in 0..4 {
            queue.push(SocketId::of_test(1), Slot(slot), true);
        }
        queue.push(SocketId::of_test(2), Slot(10), true);
        queue.push(SocketId::of_test(3), Slot(20), true);
        queue.push(SocketId::of_test(3), Slot(21), true);
        assert_eq!(queue.turn_count(), 3);
        assert_eq!(order(&mut queue), [0, 10, 20, 1, 21, 2, 3]);
        assert!(queue.is_idle());
    }

    #[test]
    fn a_read_that_is_to_be_finished_stays_in_front_of_its_connection() {
        let mut queue = ReadQueue::default();
        queue.push(connection(), Slot(0), true);
        queue.push(connection(), Slot(1), true);
        queue.push(SocketId::of_test(2), Slot(10), true);
        let (socket, slot) = queue.pop().unwrap();
        let mut large = reading();
        gather(&mut large, ANSWER_SHARED_BYTES_MAX + 1);
        queue.push_begun(socket, slot, &mut large);
        assert_eq!(order(&mut queue), [10, 0, 1]);
        queue.push_begun(socket, slot, &mut large);
        assert_eq!(order(&mut queue), [0]);
    }

    #[test]
    fn reads_begun_and_fresh_and_of_one_key_take_turns() {
        let mut queue = ReadQueue::default();
        let mut small = reading();
        for slot in 0..2 {
            queue.push_begun(connection(), Slot(slot), &mut small);
            queue.push(connection(), Slot(10 + slot), true);
            queue.push(connection(), Slot(20 + slot), false);
        }
        assert_eq!(order(&mut queue), [20, 10, 21, 0, 11, 1]);
    }

    #[test]
    fn a_shut_gate_keeps_reads_and_gives_no_turn() {
        let mut queue = ReadQueue::default();
        queue.push(connection(), Slot(0), true);
        queue.set_gate(connection(), Gate::Shut);
        queue.push(connection(), Slot(1), false);
        queue.push_begun(connection(), Slot(2), &mut reading());
        assert!(queue.pop().is_none() && queue.is_idle());
        queue.set_gate(connection(), Gate::LookUps);
        assert_eq!(order(&mut queue), [1]);
        queue.set_gate(connection(), Gate::Open);
        assert_eq!(order(&mut queue), [0, 2]);
        queue.set_gate(connection(), Gate::Shut);
        queue.push(connection(), Slot(3), true);
        queue.handle_gone(connection());
        assert_eq!(order(&mut queue), [3], "what is gone is popped, to be forgotten");
        assert!(queue.is_idle() && queue.lines.is_empty());
    }

    #[test]
    fn a_connection_that_gathers_much_finishes_before_it_begins() {
        let mut queue = ReadQueue::default();
        let mut begun: Vec<Reading> = (0..9).map(|_| reading()).collect();
        for (slot, reading) in (0..).zip(&mut begun) {
            gather(reading, ANSWER_SHARED_BYTES_MAX);
            queue.push_begun(connection(), Slot(slot), reading);
        }
        queue.push(connection(), Slot(100), true);
        queue.push(SocketId::of_test(2), Slot(200), true);
        assert!(!queue.may_begin(connection()) && queue.may_begin(SocketId::of_test(2)));
        let (_, first) = queue.pop().unwrap();
        assert_eq!(first.0, 8, "the one that went over the bound");
        queue.push_begun(connection(), first, &mut begun[8]);
        assert_eq!(queue.pop().unwrap().1, Slot(200));
        assert_eq!(queue.pop().unwrap().1, first);
        begun.pop();
        assert!(queue.may_begin(connection()), "what an answer held is given back with it");
        let rest = order(&mut queue);
        assert_eq!((rest.len(), rest[0]), (9, 100));
    }

    #[test]
    fn over_the_bound_of_a_core_only_reads_that_hold_nothing_wait() {
        let mut queue = ReadQueue::default();
        let other = SocketId::of_test(2);
        queue.push_begun(connection(), Slot(0), &mut reading());
        queue.push(connection(), Slot(1), true);
        queue.push(other, Slot(2), true);
        queue.push(other, Slot(3), false);
        queue.handle_queued(0, CORE_HELD_BYTES_MAX + 1);
        assert_eq!(order(&mut queue), [0, 3]);
        assert!(queue.is_idle() && !queue.may_begin(other), "a turn would be for nothing");
        queue.handle_queued(1, 0);
        assert!(!queue.is_idle() && queue.may_begin(other));
        assert_eq!(order(&mut queue), [1, 2]);
        let mut begun = reading();
        gather(&mut begun, 1000);
        queue.push_begun(connection(), Slot(4), &mut begun);
        queue.push(other, Slot(5), true);
        assert_eq!(order(&mut queue), [4], "what is gathered counts as well");
        drop(begun);
        assert_eq!(order(&mut queue), [5]);
    }
}
