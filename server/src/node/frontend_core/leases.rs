//! Leases on a front-end: questions to the keeper of the clocks, and what becomes of its answers.

use super::super::calls::Waiting;
use super::super::reads::Reading;
use super::super::watches::Place;
use super::{Desk, FrontendCore, READ_STEP_KEYS, connection_at, status};
use crate::frontend::grpc;
use crate::mail::{LeaseAsk, LeaseReply, Renewed, Slot};
use crate::service::dispatch::{LeaseQuestion, Read};
use crate::service::lease::TimeToLive;
use crate::service::lease::keep_alive::Outcome;
use crate::service::status::Refusal;

impl FrontendCore {
    /// What the log core says about leases.
    pub(super) fn handle_lease_reply(&mut self, slot: Slot, reply: LeaseReply) {
        match reply {
            LeaseReply::Renewed { sequence, renewed } => {
                self.answer_keep_alive(slot, (sequence, renewed));
            }
            LeaseReply::TimeToLive(times) => {
                let waiting = self.desk.calls.get(slot).map(|call| &call.waiting);
                let read = match waiting {
                    Some(Waiting::Lease(LeaseQuestion::TimeToLive(asked))) => {
                        self.desk.service.begin_time_to_live(*asked, times)
                    }
                    Some(_) => unreachable!("a call is answered what it asked"),
                    // It was given up meanwhile.
                    None => {
                        self.desk.calls.take(slot);
                        return;
                    }
                };
                self.begin_asked(slot, read);
            }
            LeaseReply::List(leases) => {
                let read = self.desk.service.begin_leases(leases);
                self.begin_asked(slot, read);
            }
            LeaseReply::Unavailable(reason) => {
                if let Some(call) = self.desk.calls.take(slot) {
                    self.refuse(&call, Refusal::from(reason));
                }
            }
        }
    }

    fn answer_keep_alive(&mut self, slot: Slot, renewed: (u64, Renewed)) {
        let Self { desk, clients, .. } = self;
        let header = desk.node.header();
        let outcome = desk.keep_alives.handle_reply(slot, renewed, header, |place, write| {
            let (socket, stream) = place;
            if let Some(connection) = connection_at(clients, socket) {
                connection.send_with(stream, write);
            }
        });
        let Some((place, outcome)) = outcome else { return };
        if let Some(connection) = connection_at(clients, place.0) {
            desk.end_keep_alive(connection, place, outcome);
        }
        self.touch(place.0);
    }

    /// The keeper of the clocks has said its part; the answer is made like any other long one.
    fn begin_asked(&mut self, slot: Slot, read: Box<Read>) {
        let desk = &mut self.desk;
        let Some(call) = desk.calls.get_mut(slot) else {
            desk.calls.take(slot);
            return;
        };
        let is_wide = read.is_wide();
        call.waiting = Waiting::Read(Some(Box::new(Reading::new(read))));
        let socket = call.socket;
        desk.calls.lift_server_deadline(slot);
        let may_step = match connection_at(&mut self.clients, socket) {
            Some(connection) => desk.may_step(connection, socket, is_wide),
            // Its step forgets it.
            None => true,
        };
        if !may_step {
            return desk.reading.push(socket, slot, is_wide);
        }
        let mut keys = desk.turn_keys.clamp(1, READ_STEP_KEYS);
        desk.turn_keys = desk.turn_keys.saturating_sub(keys);
        self.step_read(socket, slot, &mut keys);
        self.desk.turn_keys += keys;
    }
}

impl Desk {
    pub(super) fn ask_lease(&mut self, slot: Slot, question: LeaseQuestion) {
        let ask = match question {
            LeaseQuestion::TimeToLive(TimeToLive { id, .. }) => LeaseAsk::TimeToLive(id),
            LeaseQuestion::List => LeaseAsk::List,
        };
        self.ask.leases.push((slot, ask));
    }

    /// A message of a call whose client sends many.
    pub(super) fn handle_stream_message(
        &mut self,
        place: Place,
        message: &[u8],
    ) -> Result<(), Refusal> {
        if !self.keep_alives.is_open(place) {
            return self.watches.handle_message(place, message, &mut self.views);
        }
        let revision = self.views.pin().revision;
        let asked = self.keep_alives.handle_message(place, message, revision);
        self.ask.leases.extend(asked.map_err(Refusal::in_stream)?);
        Ok(())
    }

    pub(super) fn close_stream(&mut self, place: Place) {
        self.give_up_procedure(place);
        self.watches.close(place);
        self.keep_alives.close(place);
        self.close_serving(place);
    }

    pub(super) fn end_keep_alive(
        &mut self,
        connection: &mut grpc::Connection,
        place: Place,
        outcome: Outcome,
    ) {
        let ending = match outcome {
            Outcome::Waits => return,
            Outcome::Ends => grpc::Status::new(grpc::Code::Ok, ""),
            Outcome::Refused(refusal) => status(refusal),
        };
        self.keep_alives.close(place);
        connection.finish(place.1, &ending);
    }
}
