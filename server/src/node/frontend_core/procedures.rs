//! Calls that are small programs of requests and watches: Lock and Election.
//!
//! A procedure's requests go through the same door as a client's, under the place of the call that
//! it answers; so does its watch, which is fed as slowly as the call's client takes what is sent.
//!
//! Invariants:
//! - A procedure is advanced until it waits: it has no step left when an event finds it.
//! - A procedure leaves the table with its call; what it still has under way is answered to nobody.
//! - What a procedure leaves behind is removed: a request to do so that finds too many others under
//!   way waits until there is room.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::super::calls::{Call, Timeouts, Waiting};
use super::super::reads::Reading;
use super::super::watches::Place;
use super::{
    CALLS_MAX, COMMAND_SIZE_BYTES_MAX, COMMANDS_SIZE_BYTES_MAX, Desk, FrontendCore, Request,
    connection_at, status,
};
use crate::frontend::grpc;
use crate::runtime::reactor::SocketId;
use crate::service::concurrency::{Procedure, Step};
use crate::service::dispatch::Action;
use crate::service::method::Method;
use crate::service::status::{Refusal, status_of};

struct Running {
    procedure: Procedure,
    /// When the client gives the call up.
    deadline: Option<Duration>,
}

/// All procedures of a front-end.
#[derive(Default)]
pub(super) struct Procedures {
    running: HashMap<Place, Running>,
    /// Requests that clean up after calls which were given up. Each was a call of a client, which
    /// bounds them; a client has to be gone, or pay with a call, for another one.
    cleaning: VecDeque<Cleaning>,
}

struct Cleaning {
    place: Place,
    method: Method,
    request: Vec<u8>,
}

impl Procedures {
    /// Whether the call at this place is a procedure.
    pub(super) fn contains(&self, place: Place) -> bool {
        !self.running.is_empty() && self.running.contains_key(&place)
    }
}

impl FrontendCore {
    /// A response of a procedure's watch.
    pub(super) fn handle_procedure_watched(&mut self, place: Place, response: &[u8]) {
        let Self { desk, clients, .. } = self;
        let Some(running) = desk.procedures.running.get_mut(&place) else { return };
        running.procedure.handle_watched(response);
        if let Some(connection) = connection_at(clients, place.0) {
            desk.advance_procedure(connection, place);
        }
        self.touch(place.0);
    }

    /// A procedure's request has ended.
    pub(super) fn handle_procedure_answer(&mut self, place: Place, answer: Result<&[u8], Refusal>) {
        let Self { desk, clients, .. } = self;
        let Some(running) = desk.procedures.running.get_mut(&place) else { return };
        running.procedure.handle_answer(answer.map_err(|refusal| status_of(refusal).1.to_owned()));
        if let Some(connection) = connection_at(clients, place.0) {
            desk.advance_procedure(connection, place);
        }
        self.touch(place.0);
    }

    /// Gives up the procedures whose clients have no more time.
    pub(super) fn give_up_late_procedures(&mut self, now: Duration) {
        if self.desk.procedures.running.is_empty() {
            return;
        }
        let running = self.desk.procedures.running.iter();
        let is_late = |running: &Running| running.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<Place> =
            running.filter(|(_, running)| is_late(running)).map(|(&place, _)| place).collect();
        for place in late {
            self.desk.give_up_procedure(place);
            self.end_late(place);
        }
    }
}

impl Desk {
    /// Begins a call that is a procedure.
    pub(super) fn begin_procedure(
        &mut self,
        connection: &mut grpc::Connection,
        request: Request,
        message: &[u8],
        now: Duration,
    ) {
        let Request { socket, stream, method, timeout } = request;
        let place = (socket, stream);
        self.now = now;
        match Procedure::begin(method, message) {
            Ok(procedure) => {
                let deadline = timeout.map(|timeout| now + timeout);
                self.procedures.running.insert(place, Running { procedure, deadline });
                self.advance_procedure(connection, place);
            }
            Err(refusal) => connection.finish(stream, &status(refusal)),
        }
    }

    /// The call is over, whoever ended it.
    pub(super) fn give_up_procedure(&mut self, place: Place) {
        let Some(Running { procedure, .. }) = self.procedures.running.remove(&place) else {
            return;
        };
        self.watches.close(place);
        if let Some((method, request)) = procedure.give_up() {
            self.procedures.cleaning.push_back(Cleaning { place, method, request });
            self.clean_up();
        }
    }

    /// Begins what is to be cleaned up, as far as there is room. What is refused for another reason
    /// is over, as in etcd.
    pub(super) fn clean_up(&mut self) {
        while let Some(Cleaning { place, method, request }) = self.procedures.cleaning.pop_front() {
            // Nobody waits for its answer: the stream is closed by now.
            let answer = self.begin_inner_call(place, method, &request, Waiting::Write);
            if let Some(Err(Refusal::TooManyRequests)) = answer {
                self.procedures.cleaning.push_front(Cleaning { place, method, request });
                return;
            }
        }
    }

    /// All calls of a client that is gone.
    pub(super) fn give_up_procedures(&mut self, socket: SocketId) {
        if self.procedures.running.is_empty() {
            return;
        }
        let places = self.procedures.running.keys();
        let gone: Vec<Place> = places.filter(|place| place.0 == socket).copied().collect();
        for place in gone {
            self.give_up_procedure(place);
        }
    }

    /// Does what a procedure wants until it waits for something.
    fn advance_procedure(&mut self, connection: &mut grpc::Connection, place: Place) {
        let stream = place.1;
        while let Some(running) = self.procedures.running.get_mut(&place)
            && let Some(step) = running.procedure.poll_step()
        {
            match step {
                Step::Call(method, request) => {
                    self.watches.close(place);
                    let answer =
                        self.begin_inner_call(place, method, &request, Waiting::ProcedureWrite);
                    if let Some(answer) = answer {
                        let running = self.procedures.running.get_mut(&place);
                        let procedure = &mut running.expect("it has just asked").procedure;
                        procedure.handle_answer(match answer {
                            Ok(()) => Ok(&self.answer),
                            Err(refusal) => Err(status_of(refusal).1.to_owned()),
                        });
                    }
                }
                Step::Watch(request) => self.begin_inner_watch(connection, place, &request),
                Step::Send(message) => {
                    connection.send(stream, &message);
                    let pending = connection.http2().stream_pending_bytes(stream);
                    if pending > 0 {
                        let queued = connection.http2().queued_bytes();
                        connection.http2().want_room(stream);
                        self.watches.handle_pending(place, pending, queued);
                    }
                    running.procedure.handle_sent();
                }
                Step::Answer(message) => {
                    self.end_procedure(place);
                    connection.answer(stream, &message);
                }
                Step::Fail(text) => {
                    self.end_procedure(place);
                    connection.finish(stream, &grpc::Status::new(grpc::Code::Unknown, text));
                }
                Step::End => {
                    self.end_procedure(place);
                    connection.finish(stream, &grpc::Status::new(grpc::Code::Ok, ""));
                }
            }
        }
    }

    fn end_procedure(&mut self, place: Place) {
        self.procedures.running.remove(&place);
        self.watches.close(place);
    }

    fn begin_inner_watch(
        &mut self,
        connection: &mut grpc::Connection,
        place: Place,
        request: &[u8],
    ) {
        self.watches.close(place);
        self.watches.open(place, &self.node, self.now);
        // A new watch knows nothing of what those before it have left in the stream.
        let pending = connection.http2().stream_pending_bytes(place.1);
        if pending > 0 {
            connection.http2().want_room(place.1);
            let queued = connection.http2().queued_bytes();
            self.watches.handle_pending(place, pending, queued);
        }
        let watched = self.watches.handle_message(place, request, &mut self.views);
        assert!(watched.is_ok(), "a watch request of our own was refused");
    }

    /// Runs a request; `None` if its answer comes later. An answer that is there at once lies in
    /// `self.answer`.
    fn begin_inner_call(
        &mut self,
        place: Place,
        method: Method,
        request: &[u8],
        waiting: Waiting,
    ) -> Option<Result<(), Refusal>> {
        if self.calls.len() >= CALLS_MAX || self.calls.size_bytes() >= COMMANDS_SIZE_BYTES_MAX {
            return Some(Err(Refusal::TooManyRequests));
        }
        let (socket, stream) = place;
        let timeouts = Timeouts { client: None, server: self.config.request_timeout };
        let frames_before = self.ask.frames.len();
        self.answer.clear();
        let view = self.views.pin();
        let action = self.service.handle_message(
            method,
            request,
            &self.node,
            &view,
            &mut self.turn_keys,
            &mut self.ask.frames,
            &mut self.answer,
        );
        drop(view);
        match action {
            Action::Answer => Some(Ok(())),
            Action::Refuse(refusal) => Some(Err(refusal)),
            Action::Write if self.ask.frames.len() - frames_before > COMMAND_SIZE_BYTES_MAX => {
                self.ask.frames.truncate(frames_before);
                Some(Err(Refusal::RequestTooLarge))
            }
            Action::Write => {
                let size_bytes = self.ask.frames.len() - frames_before;
                let call = Call { socket, stream, waiting };
                let slot = self.calls.insert(call, size_bytes, self.now, timeouts);
                self.ask.slots.push(slot);
                None
            }
            Action::Read(read) => {
                let (needs_round, is_wide) = (read.needs_read_index(), read.is_wide());
                let mut reading = Box::new(Reading::new(read));
                reading.is_inner = true;
                let call = Call { socket, stream, waiting: Waiting::Read(Some(reading)) };
                let slot = self.calls.insert(call, 0, self.now, timeouts);
                if needs_round {
                    self.ask.reads.push(slot);
                } else {
                    self.calls.lift_server_deadline(slot);
                    self.reading.push(socket, slot, is_wide);
                }
                None
            }
            _ => unreachable!("a procedure asks for grants, ranges and transactions"),
        }
    }

    /// Takes a step of a procedure's read; its answer when it is done.
    pub(super) fn step_inner(
        &mut self,
        reading: &mut Reading,
        keys: &mut usize,
    ) -> Option<Result<Vec<u8>, Refusal>> {
        let Self { service, node, views, .. } = self;
        let Reading { read, answer, .. } = reading;
        let view = views.pin();
        if let Err(refusal) = service.open_read(read, &view) {
            return Some(Err(refusal));
        }
        let out = answer.get_or_insert_default();
        match service.step_read(read, node, &view, keys, out.bytes()) {
            Err(refusal) => Some(Err(refusal)),
            Ok(engine::Progress::More) => None,
            // A gRPC message begins with room for its prefix.
            Ok(engine::Progress::Done) => Some(Ok(out.message().to_vec())),
        }
    }
}
