//! Calls whose client has no more time.

use std::time::Duration;

use super::super::watches::Place;
use super::{FrontendCore, connection_at};
use crate::frontend::http2::ErrorCode;

impl FrontendCore {
    /// The client's own time for a call is over. As grpc-go has it, the stream ends without a
    /// status: the client has one from its own clock.
    pub(super) fn end_late(&mut self, place: Place) {
        let (socket, stream) = place;
        if let Some(connection) = connection_at(&mut self.clients, socket) {
            connection.reset(stream, ErrorCode::Cancel);
            self.touch(socket);
        }
    }

    /// Ends the streams of requests whose time is over.
    pub(super) fn end_late_streams(&mut self, now: Duration) {
        let clients = &mut self.clients;
        let mut late = Vec::new();
        self.desk.stream_deadlines.retain(|&place, deadline| {
            let (socket, stream) = place;
            let connection = connection_at(clients, socket);
            let is_open = connection.is_some_and(|connection| connection.is_open(stream));
            if is_open && *deadline <= now {
                late.push(place);
            }
            is_open && *deadline > now
        });
        for place in late {
            self.desk.close_stream(place);
            self.end_late(place);
        }
    }
}
