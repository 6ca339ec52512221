//! What watchers are told in a turn, on its way to their connections.
//!
//! Invariant: a stream that keeps something unsent is reported to the hub, which feeds it no more
//! beyond a bound of its own; so is every stream of a connection that keeps too much in all.

use std::fmt::Display;

use super::{FrontendCore, connection_at};
use crate::log_event;

/// Responses to watchers that a turn makes, in bytes: a few hundred microseconds, which is what
/// an answer of the same turn waits for those of its own batch's events. A thousand watchers of a
/// small value are told in one turn; the rest of a larger fan-out takes further turns, and what
/// arrives meanwhile is served between them.
pub(super) const WATCH_TURN_BYTES: usize = 768 << 10;
/// What a response costs beside its bytes, as bytes.
const WATCH_RESPONSE_COST_BYTES: usize = 256;

impl FrontendCore {
    pub(super) fn step_watches(&mut self) {
        self.send_watched();
        let desk = &mut self.desk;
        if let Err(error) = desk.watches.step(&mut desk.views) {
            log_event!(Error, "the store is damaged", "error" => &error as &dyn Display);
        }
        self.send_watched();
        self.desk.turn_watch_bytes = WATCH_TURN_BYTES;
    }

    /// Makes responses for as long as the turn's budget lasts.
    pub(super) fn send_watched(&mut self) {
        while self.desk.turn_watch_bytes > 0
            && let Some((place, output)) = self.desk.watches.poll_output()
        {
            let cost = output.size_bytes() + WATCH_RESPONSE_COST_BYTES;
            self.desk.turn_watch_bytes = self.desk.turn_watch_bytes.saturating_sub(cost);
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
            let pending = connection.http2().stream_pending_bytes(stream);
            if pending > 0 {
                let queued = connection.http2().queued_bytes();
                connection.http2().want_room(stream);
                self.desk.watches.handle_pending((socket, stream), pending, queued);
            }
            self.touch(socket);
        }
    }
}
