//! Reads that take several turns: what is kept of them, and whose turn it is.
//!
//! Invariants:
//! - Connections take turns, whatever each of them asks for; the reads of one connection too, but
//!   one whose answer has become large is finished before the next is begun, so that a connection
//!   has one large answer under way.
//! - A connection that takes nothing gets no turn.
//! - A read that needs one view in all its steps has its queue to itself: its front alone holds a
//!   view, so a core holds one at the most.

use std::collections::{HashMap, VecDeque};

use engine::view::HeldView;

use crate::frontend::grpc::OwnedMessage;
use crate::mail::Slot;
use crate::runtime::reactor::SocketId;
use crate::service::dispatch::Read;

/// An answer of this size is finished before another one of its connection grows.
const ANSWER_SHARED_BYTES_MAX: usize = 1 << 20;

/// A read with what its steps have brought.
pub struct Reading {
    /// The read.
    pub read: Box<Read>,
    /// The answer so far; `None` before the first step.
    pub answer: Option<OwnedMessage>,
    /// The view of all its steps, if they need the same.
    pub view: Option<HeldView>,
}

impl Reading {
    /// A read before its first step.
    #[must_use]
    pub fn new(read: Box<Read>) -> Self {
        Self { read, answer: None, view: None }
    }

    /// Whether its answer has become so large that it had better be finished.
    #[must_use]
    pub fn is_large(&self) -> bool {
        let answer = self.answer.as_ref();
        answer.is_some_and(|answer| answer.size_bytes() > ANSWER_SHARED_BYTES_MAX)
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size_bytes = self.answer.as_ref().map_or(0, OwnedMessage::size_bytes);
        write!(formatter, "{:?} with {size_bytes} bytes", self.read)
    }
}

/// The reads of one connection.
#[derive(Debug, Default)]
struct Line {
    slots: VecDeque<Slot>,
    is_parked: bool,
}

/// Reads that wait for their next step.
#[derive(Debug, Default)]
pub struct ReadQueue {
    lines: HashMap<SocketId, Line>,
    /// Connections with reads that are not parked, in turn.
    turns: VecDeque<SocketId>,
}

impl ReadQueue {
    /// A read waits behind the others of its connection.
    pub fn push(&mut self, socket: SocketId, slot: Slot) {
        let line = self.lines.entry(socket).or_default();
        line.slots.push_back(slot);
        if line.slots.len() == 1 && !line.is_parked {
            self.turns.push_back(socket);
        }
    }

    /// A read that had its turn goes on before the others of its connection.
    pub fn push_front(&mut self, socket: SocketId, slot: Slot) {
        let line = self.lines.entry(socket).or_default();
        line.slots.push_front(slot);
        if line.slots.len() == 1 && !line.is_parked {
            self.turns.push_back(socket);
        }
    }

    /// The read whose turn it is.
    pub fn pop(&mut self) -> Option<(SocketId, Slot)> {
        let socket = self.turns.pop_front()?;
        let line = self.lines.get_mut(&socket).expect("who has a turn has a line");
        let slot = line.slots.pop_front().expect("who has a turn has a read");
        if line.slots.is_empty() {
            self.lines.remove(&socket);
        } else {
            self.turns.push_back(socket);
        }
        Some((socket, slot))
    }

    /// The connection takes nothing: its reads get no turn.
    pub fn park(&mut self, socket: SocketId) {
        let line = self.lines.entry(socket).or_default();
        line.is_parked = true;
        self.turns.retain(|other| *other != socket);
    }

    /// It takes something again, or is gone.
    pub fn unpark(&mut self, socket: SocketId) {
        let Some(line) = self.lines.get_mut(&socket).filter(|line| line.is_parked) else { return };
        line.is_parked = false;
        if line.slots.is_empty() {
            self.lines.remove(&socket);
        } else {
            self.turns.push_back(socket);
        }
    }

    /// Connections whose reads are to be stepped.
    #[must_use]
    pub fn turn_count(&self) -> usize {
        self.turns.len()
    }

    /// Whether nothing is to be stepped.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &mut ReadQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(|(_, slot)| slot.0).collect()
    }

    #[test]
    fn a_connection_with_many_reads_gets_no_more_turns_than_one_with_a_single_read() {
        let mut queue = ReadQueue::default();
        for slot in 0..4 {
            queue.push(SocketId::of_test(1), Slot(slot));
        }
        queue.push(SocketId::of_test(2), Slot(10));
        queue.push(SocketId::of_test(3), Slot(20));
        queue.push(SocketId::of_test(3), Slot(21));
        assert_eq!(queue.turn_count(), 3);
        assert_eq!(order(&mut queue), [0, 10, 20, 1, 21, 2, 3]);
        assert!(queue.is_idle() && queue.lines.is_empty());
    }

    #[test]
    fn a_read_that_is_to_be_finished_stays_in_front_of_its_connection() {
        let mut queue = ReadQueue::default();
        queue.push(SocketId::of_test(1), Slot(0));
        queue.push(SocketId::of_test(1), Slot(1));
        queue.push(SocketId::of_test(2), Slot(10));
        let (socket, slot) = queue.pop().unwrap();
        queue.push_front(socket, slot);
        assert_eq!(order(&mut queue), [10, 0, 1]);
        queue.push_front(socket, slot);
        assert_eq!(order(&mut queue), [0]);
    }

    #[test]
    fn a_parked_connection_keeps_its_reads_and_gets_no_turn() {
        let mut queue = ReadQueue::default();
        let socket = SocketId::of_test(1);
        queue.push(socket, Slot(0));
        queue.park(socket);
        queue.push(socket, Slot(1));
        assert!(queue.is_idle());
        queue.unpark(socket);
        assert_eq!(order(&mut queue), [0, 1]);
        queue.park(socket);
        queue.unpark(socket);
        assert!(queue.is_idle() && queue.lines.is_empty());
    }
}
