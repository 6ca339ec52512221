//! What watchers are told, on its way to their connections.
//!
//! Invariant: a stream that keeps something unsent is reported to the hub, which feeds it no more
//! beyond a bound of its own; so is every stream of a connection that keeps too much in all.

use std::fmt::Display;

use super::{FrontendCore, connection_at};
use crate::frontend::http2::limits::QUEUED_BYTES_MAX;
use crate::log_event;

impl FrontendCore {
    /// Takes watchers that are behind further along, and sends what watchers are told.
    pub(super) fn step_watches(&mut self) {
        self.send_watched();
        let desk = &mut self.desk;
        if let Err(error) = desk.watches.step(&mut desk.views) {
            log_event!(Error, "the store is damaged", "error" => &error as &dyn Display);
        }
        self.send_watched();
    }

    /// Sends what watchers are told.
    pub(super) fn send_watched(&mut self) {
        while let Some((place, output)) = self.desk.watches.poll_output() {
            let Some((socket, stream)) = place else { continue };
            if self.desk.procedures.contains((socket, stream)) {
                let mut response = Vec::new();
                output.for_each_slice(|slice| response.extend_from_slice(slice));
                self.handle_procedure_watched((socket, stream), &response);
                continue;
            }
            let Some(connection) = connection_at(&mut self.clients, socket) else { continue };
            connection.send_with(stream, |out| {
                output.for_each_slice(|slice| out.extend_from_slice(slice));
            });
            let http2 = connection.http2();
            let mut pending = http2.stream_pending_bytes(stream);
            if pending > 0 {
                http2.want_room(stream);
                // Each stream has a bound of its own, and all of a connection have one together.
                if http2.queued_bytes() > QUEUED_BYTES_MAX {
                    pending = usize::MAX;
                }
                self.desk.watches.handle_pending((socket, stream), pending);
            }
            self.touch(socket);
        }
    }
}
