//! A step of a read: from the view to where the answer leaves.
//!
//! Invariants:
//! - A range is encoded into the output of its connection; what takes more than a step is gathered
//!   in a buffer of its own, and no byte of it leaves before the last step.
//! - Buffers that large answers need are lent: an idle connection keeps none.

use std::time::Duration;

use engine::{Progress, View};

use super::super::calls::{Call, Timeouts, Waiting};
use super::super::reads::{Gate, Reading};
use super::{
    Desk, FrontendCore, READ_STEP_KEYS, Request, SPARE_SIZE_BYTES_MAX, connection_at, status,
};
use crate::frontend::grpc::{self, OwnedMessage, Written};
use crate::frontend::http2::{Body, StreamKey};
use crate::service::dispatch::Read;
use crate::service::sink::AnswerSink;

/// Shared buffers that are kept, and the largest size worth it: what an output may reach.
const BUFFERS_MAX: usize = 8;
const BUFFER_SIZE_BYTES_MAX: usize = 2 << 20;
/// A range of more records is given a shared buffer to begin with.
const RECORDS_OWN_BUFFER_MAX: i64 = 64;
/// An answer that is written where the socket takes it from.
struct InPlace<'b, 'c>(&'b mut Body<'c>);

impl AnswerSink for InPlace<'_, '_> {
    #[inline]
    fn bytes(&mut self) -> &mut Vec<u8> {
        self.0.bytes()
    }

    #[inline]
    fn cut(&mut self) {
        self.0.cut();
    }
}

impl FrontendCore {
    /// Goes on with the first hash that waits. Those behind it hold no view.
    pub(super) fn step_hash(&mut self) {
        let desk = &mut self.desk;
        let Some(&slot) = desk.hashing.front().filter(|_| !desk.hash_waits) else { return };
        let socket = desk.calls.get(slot).map(|call| call.socket);
        let connection = socket.and_then(|socket| connection_at(&mut self.clients, socket));
        if let Some(connection) = connection
            && let Some((stream, mut reading)) = desk.calls.begin_step(slot)
            && connection.is_open(stream)
        {
            if reading.view.is_none() {
                let gate = Gate::for_queued(connection.http2().queued_bytes());
                if !reading.read.is_brief() && !gate.admits(true) {
                    // No view is held for who takes nothing: it waits for that with the others.
                    desk.hashing.pop_front();
                    desk.reading.push(socket.expect("it has a connection"), slot, true);
                    return desk.calls.end_step(slot, reading);
                }
                reading.view = desk.views.hold();
            }
            let mut keys = READ_STEP_KEYS;
            desk.hash_waits = reading.view.is_none();
            if desk.hash_waits
                || desk.step(connection, stream, &mut reading, &mut keys) == Progress::More
            {
                return desk.calls.end_step(slot, reading);
            }
        }
        desk.hashing.pop_front();
        desk.calls.take(slot);
        desk.report_fault();
        if let Some(socket) = socket {
            self.touch(socket);
        }
    }
}

impl Desk {
    /// Takes a read's first step if it may be taken now, and keeps what is left of it.
    pub(super) fn begin_read(
        &mut self,
        connection: &mut grpc::Connection,
        request: Request,
        read: Box<Read>,
        now: Duration,
    ) {
        let Request { socket, stream, timeout, .. } = request;
        let (needs_round, needs_view) = (read.needs_read_index(), read.needs_same_view());
        let is_wide = read.is_wide();
        let mut reading = Reading::new(read);
        let mut is_begun = false;
        if !needs_round && !needs_view && self.may_step(connection, socket, is_wide) {
            let mut keys = self.turn_keys.min(READ_STEP_KEYS);
            self.turn_keys -= keys;
            let progress = self.step(connection, stream, &mut reading, &mut keys);
            self.turn_keys += keys;
            if progress == Progress::Done {
                return;
            }
            is_begun = true;
        }
        let waiting = Waiting::Read(None);
        let timeouts = Timeouts { client: timeout, server: self.config.request_timeout };
        let slot = self.calls.insert(Call { socket, stream, waiting }, 0, now, timeouts);
        if is_begun {
            self.reading.push_begun(socket, slot, &mut reading);
        }
        self.calls.end_step(slot, Box::new(reading));
        if needs_round {
            self.ask.reads.push(slot);
            return;
        }
        self.calls.lift_server_deadline(slot);
        if needs_view {
            self.hashing.push_back(slot);
        } else if !is_begun {
            self.reading.push(socket, slot, is_wide);
        }
    }

    /// Takes a step of a read; when it is done, its call is answered.
    pub(super) fn step(
        &mut self,
        connection: &mut grpc::Connection,
        stream: StreamKey,
        reading: &mut Reading,
        keys: &mut usize,
    ) -> Progress {
        let Self { service, node, views, buffers, metrics, .. } = self;
        let Reading { read, answer, view, .. } = reading;
        let pinned;
        let view: &View = if let Some(held) = view {
            held
        } else {
            pinned = views.pin();
            &pinned
        };
        if let Err(refusal) = service.open_read(read, view) {
            connection.finish(stream, &status(refusal));
            return Progress::Done;
        }
        let records = read.records_max();
        let result = if answer.is_none() && records > 0 {
            if records > RECORDS_OWN_BUFFER_MAX {
                lend_buffer(buffers, connection);
            }
            let written = connection.answer_in_place(stream, |body| {
                match service.step_read(read, node, view, keys, &mut InPlace(body)) {
                    Ok(Progress::Done) if read.is_too_large().is_none() => (Written::Whole, None),
                    other => (Written::Withdrawn, Some(other)),
                }
            });
            let Some((Some(gathered), Some(result))) = written else { return Progress::Done };
            *answer = Some(gathered);
            result
        } else {
            let answer = answer.get_or_insert_default();
            service.step_read(read, node, view, keys, answer.bytes())
        };
        if matches!(result, Ok(Progress::Done)) {
            metrics.read_txn_ranges.add(read.txn_ranges());
            metrics.read_txns.add(u64::from(read.txn_ranges() > 1));
        }
        let too_large = read.is_too_large();
        if too_large.is_some() {
            // From here on it is only measured, for the status that says how large it would be.
            *answer = Some(OwnedMessage::new());
        }
        match (result, too_large) {
            (Ok(Progress::More), _) => return Progress::More,
            (Err(refusal), _) => connection.finish(stream, &status(refusal)),
            (Ok(Progress::Done), Some(size_bytes)) => {
                connection.finish(stream, &grpc::Status::message_too_large(size_bytes));
            }
            (Ok(Progress::Done), None) => {
                connection.answer_owned(stream, answer.take().unwrap_or_default());
            }
        }
        Progress::Done
    }

    /// Keeps a large buffer for the next large answer of any connection.
    pub(super) fn keep_buffer(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_SIZE_BYTES_MAX {
            self.buffers.push(buffer);
        }
    }
}

/// Gives a connection's output one of the shared buffers, which comes back when it was sent.
fn lend_buffer(buffers: &mut Vec<Vec<u8>>, connection: &mut grpc::Connection) {
    let Some(buffer) = buffers.pop() else { return };
    let replaced = connection.http2().lend_output(buffer);
    if replaced.capacity() > SPARE_SIZE_BYTES_MAX {
        buffers.push(replaced);
    }
}
