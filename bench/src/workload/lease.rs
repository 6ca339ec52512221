//! Leases: many are granted, each with a key, and kept alive on long-lived streams.
//!
//! The ids are chosen here, so that a run that keeps leases alive knows those that an earlier one
//! granted. On a keep-alive stream several requests are out at a time; the answers come in the
//! order of the requests, as etcd gives them.
//!
//! Invariants:
//! - A lease's key is put only after its grant was acknowledged, and both are one operation.
//! - Each keep-alive's answer names the lease that was asked for and its whole time to live.

use std::collections::VecDeque;

use super::{Begun, Context, KeySpace, Ledger, Op, Workload};
use crate::proto::{self, LeaseAnswer, WriteAnswer};

/// The leases of a run.
#[derive(Clone, Debug)]
pub struct Leases {
    /// How many there are.
    pub count: u64,
    /// What the ids are derived from.
    pub seed: u64,
    /// How long each lives.
    pub ttl_seconds: u64,
}

impl Leases {
    /// The id of a lease. Ids are positive, and those of two seeds do not meet.
    pub fn id(&self, index: u64) -> u64 {
        let id = (self.seed & 0x3fff_ffff) << 32 | (index + 1);
        assert!(i64::try_from(id).is_ok(), "lease {index} of seed {}", self.seed);
        id
    }
}

/// Grants leases and attaches a key to each.
pub struct Grant {
    leases: Leases,
    space: KeySpace,
    next: u64,
    stride: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Grant {
    /// Grants the leases `start`, `start + stride` and so on.
    pub fn new(leases: Leases, space: KeySpace, start: u64, stride: u64) -> Self {
        Self { leases, space, next: start, stride, key: Vec::new(), value: Vec::new() }
    }
}

impl Workload for Grant {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        if self.next >= self.leases.count {
            return None;
        }
        op.start(self.next, context.ledger);
        self.next += self.stride;
        proto::write_lease_grant(out, self.leases.id(op.index), self.leases.ttl_seconds);
        op.again = true;
        Some(proto::LEASE_GRANT)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        let ledger = &mut *context.ledger;
        if std::mem::replace(&mut op.answered, true) {
            return ledger.handle_wrong("a unary call was answered twice");
        }
        if op.again {
            let id = self.leases.id(op.index);
            match LeaseAnswer::read(payload) {
                // A server may grant more time than was asked for: etcd has a lower limit.
                Ok(answer) if answer.id == id && answer.ttl_seconds >= self.leases.ttl_seconds => {}
                Ok(answer) => ledger.handle_wrong(format!("lease {id} was granted as {answer:?}")),
                Err(_) => ledger.handle_wrong("a grant's answer is malformed"),
            }
        } else {
            match WriteAnswer::read(payload) {
                Ok(answer) => ledger.handle_write(op, answer.revision),
                Err(_) => ledger.handle_wrong("a put's answer is malformed"),
            }
        }
    }

    fn handle_end(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        if !op.again {
            return None;
        }
        op.start(op.index, context.ledger);
        self.key.clear();
        self.space.write_key(op.index, &mut self.key);
        self.value.clear();
        self.space.write_value(op.index, context.now_ns, &mut self.value);
        proto::write_put_with_lease(out, &self.key, &self.value, self.leases.id(op.index));
        Some(proto::PUT)
    }
}

/// Keeps leases alive, on streams that each go through the leases again and again.
pub struct KeepAlive {
    leases: Leases,
    rest: Option<u64>,
    in_flight_max: usize,
    /// By slot.
    streams: Vec<KeepAliveStream>,
    ready_count: usize,
    in_flight_count: usize,
}

struct KeepAliveStream {
    next: u64,
    stride: u64,
    ready: bool,
    /// The lease of each request that is out, and when it was sent.
    in_flight: VecDeque<(u64, u64)>,
}

/// Which leases the streams of a thread begin with, so that all streams of all threads are spread.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// How many streams the thread has.
    pub slots: usize,
    /// The thread's number.
    pub thread: usize,
    /// How many threads there are.
    pub threads: usize,
}

impl KeepAlive {
    /// Streams with up to `in_flight_max` requests out on each, at most `operations_max` in all.
    pub fn new(
        leases: Leases,
        share: Share,
        in_flight_max: usize,
        operations_max: Option<u64>,
    ) -> Self {
        assert!(in_flight_max > 0 && leases.count > 0);
        let stream = |slot: usize| KeepAliveStream {
            next: (slot * share.threads + share.thread) as u64 % leases.count,
            stride: (share.slots * share.threads) as u64,
            ready: false,
            in_flight: VecDeque::with_capacity(in_flight_max),
        };
        let streams = (0..share.slots).map(stream).collect();
        let rest = operations_max;
        Self { leases, rest, in_flight_max, streams, ready_count: 0, in_flight_count: 0 }
    }

    fn write(&mut self, op: &Op, context: &Context<'_>, out: &mut Vec<u8>) {
        let stream = &mut self.streams[op.number];
        let id = self.leases.id(stream.next);
        stream.next = (stream.next + stream.stride) % self.leases.count;
        stream.in_flight.push_back((id, context.now_ns));
        self.in_flight_count += 1;
        proto::write_lease_id(out, id);
    }

    fn check(&self, id: u64, ledger: &mut Ledger, payload: &[u8]) {
        match LeaseAnswer::read(payload) {
            Ok(answer) if answer.id == id && answer.ttl_seconds == self.leases.ttl_seconds => {}
            Ok(answer) => ledger.handle_wrong(format!("lease {id} was kept alive as {answer:?}")),
            Err(_) => ledger.handle_wrong("a keep-alive's answer is malformed"),
        }
    }
}

impl Workload for KeepAlive {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        op.start(0, context.ledger);
        self.write(op, context, out);
        Some(proto::LEASE_KEEP_ALIVE)
    }

    fn poll_operation(
        &mut self,
        op: &mut Op,
        context: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        if self.streams[op.number].in_flight.len() >= self.in_flight_max || self.rest == Some(0) {
            return false;
        }
        self.rest = self.rest.map(|rest| rest - 1);
        self.write(op, context, out);
        true
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        let stream = &mut self.streams[op.number];
        let Some((id, sent_ns)) = stream.in_flight.pop_front() else {
            return context.ledger.handle_wrong("a keep-alive was answered that nobody asked for");
        };
        self.in_flight_count -= 1;
        // The first answer of a stream opens it and belongs to no load.
        if std::mem::replace(&mut stream.ready, true) {
            context.tally.record(context.now_ns.saturating_sub(sent_ns));
        } else {
            self.ready_count += 1;
        }
        self.check(id, context.ledger, payload);
    }

    fn handle_broken(&mut self, op: &Op) {
        let lost = &mut self.streams[op.number].in_flight;
        self.in_flight_count -= lost.len();
        lost.clear();
    }

    fn is_ready(&self) -> bool {
        self.ready_count == self.streams.len()
    }

    fn is_idle(&self) -> bool {
        self.in_flight_count == 0
    }

    fn is_long_lived(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{answers, lease_answers};
    use crate::report::Tally;

    fn leases() -> Leases {
        Leases { count: 3, seed: 9, ttl_seconds: 60 }
    }

    #[test]
    fn ids_of_two_seeds_do_not_meet() {
        let other = Leases { seed: 10, ..leases() };
        assert!(leases().id(u64::from(u32::MAX) - 1) < other.id(0));
        assert!(Leases { seed: u64::MAX, ..leases() }.id(0) > 0);
    }

    #[test]
    fn a_lease_is_granted_and_then_given_its_key() {
        let space = KeySpace { prefix: "l/".to_owned(), count: 3, seed: 1, value_size_bytes: 16 };
        let mut grant = Grant::new(leases(), space.clone(), 1, 2);
        let (mut ledger, mut tally) = (Ledger::new(3), Tally::new("grant"));
        let context = &mut Context { ledger: &mut ledger, tally: &mut tally, now_ns: 4 };
        let (mut op, mut out) = (Op::default(), Vec::new());
        assert_eq!(grant.begin(&mut op, context, &mut out), Some(proto::LEASE_GRANT));
        let id = leases().id(1);
        grant.handle_message(&mut op, context, &lease_answers::lease(5, id, 61));
        out.clear();
        assert_eq!(grant.handle_end(&mut op, context, &mut out), Some(proto::PUT));
        let mut value = Vec::new();
        space.write_value(1, 4, &mut value);
        let mut expected = Vec::new();
        proto::write_put_with_lease(&mut expected, &space.key(1), &value, id);
        assert_eq!(out, expected);
        grant.handle_message(&mut op, context, &answers::header(6));
        assert_eq!(grant.handle_end(&mut op, context, &mut out), None);
        assert_eq!((context.ledger.wrong_count, context.ledger.writes_count()), (0, 1));
        assert_eq!(grant.begin(&mut op, context, &mut out), None, "lease 3 is beyond the last");
    }

    #[test]
    fn another_grant_than_the_one_that_was_asked_for_is_wrong() {
        let space = KeySpace { prefix: "l/".to_owned(), count: 3, seed: 1, value_size_bytes: 16 };
        for (id, ttl_seconds) in [(leases().id(1), 60), (leases().id(0), 59)] {
            let mut grant = Grant::new(leases(), space.clone(), 0, 1);
            let (mut ledger, mut tally) = (Ledger::new(3), Tally::new("grant"));
            let context = &mut Context { ledger: &mut ledger, tally: &mut tally, now_ns: 4 };
            let mut op = Op::default();
            grant.begin(&mut op, context, &mut Vec::new());
            grant.handle_message(&mut op, context, &lease_answers::lease(5, id, ttl_seconds));
            assert_eq!(context.ledger.wrong_count, 1);
        }
    }

    #[test]
    fn keep_alives_are_answered_in_order_and_in_full() {
        let share = Share { slots: 1, thread: 0, threads: 1 };
        let mut keep_alive = KeepAlive::new(leases(), share, 2, Some(3));
        let (mut ledger, mut tally) = (Ledger::new(1), Tally::new("keep-alive"));
        let context = &mut Context { ledger: &mut ledger, tally: &mut tally, now_ns: 4 };
        let (mut op, mut out) = (Op::default(), Vec::new());
        let answer = |index| lease_answers::lease(5, leases().id(index), 60);
        assert_eq!(keep_alive.begin(&mut op, context, &mut out), Some(proto::LEASE_KEEP_ALIVE));
        assert!(!keep_alive.is_ready() && !keep_alive.is_idle());
        keep_alive.handle_message(&mut op, context, &answer(0));
        assert!(keep_alive.is_ready() && keep_alive.is_idle());
        assert_eq!(context.tally.operations_count, 0);

        assert!(keep_alive.poll_operation(&mut op, context, &mut out));
        assert!(keep_alive.poll_operation(&mut op, context, &mut out));
        assert!(!keep_alive.poll_operation(&mut op, context, &mut out), "two are out");
        keep_alive.handle_message(&mut op, context, &answer(1));
        assert_eq!((context.ledger.wrong_count, context.tally.operations_count), (0, 1));
        keep_alive.handle_message(&mut op, context, &answer(1));
        assert_eq!(context.ledger.wrong_count, 1, "another lease's answer");
        assert!(keep_alive.poll_operation(&mut op, context, &mut out));
        assert!(!keep_alive.poll_operation(&mut op, context, &mut out), "it was the last");
        keep_alive.handle_message(&mut op, context, &lease_answers::lease(5, leases().id(0), 0));
        assert_eq!(context.ledger.wrong_count, 2, "the lease is gone");
        keep_alive.handle_message(&mut op, context, &answer(1));
        assert_eq!(context.ledger.wrong_count, 3, "nothing was asked");
    }

    #[test]
    fn a_broken_stream_leaves_nothing_outstanding() {
        let share = Share { slots: 2, thread: 0, threads: 1 };
        let mut keep_alive = KeepAlive::new(leases(), share, 2, None);
        let (mut ledger, mut tally) = (Ledger::new(1), Tally::new("keep-alive"));
        let context = &mut Context { ledger: &mut ledger, tally: &mut tally, now_ns: 4 };
        let mut op = Op { number: 1, ..Op::default() };
        keep_alive.begin(&mut op, context, &mut Vec::new());
        assert!(!keep_alive.is_idle());
        keep_alive.handle_broken(&op);
        assert!(keep_alive.is_idle());
    }
}
