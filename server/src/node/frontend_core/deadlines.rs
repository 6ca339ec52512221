//! Clients that say how long they wait: what is over then is cut off.
//!
//! Invariants:
//! - A deadline is remembered no longer than its stream is open, and until the tick behind.

use std::time::Duration;

use super::super::watches::Place;
use super::{Desk, FrontendCore, connection_at};
use crate::frontend::http2::ErrorCode;

impl FrontendCore {
    /// Streams whose clients have no more time. Those that are over are forgotten here, too, so
    /// that nothing else has to remember that a stream had a deadline.
    pub(super) fn give_up_late_streams(&mut self, now: Duration) {
        let Self { desk, clients, .. } = self;
        let mut late = Vec::new();
        desk.stream_deadlines.retain(|(place, deadline)| {
            let is_open = connection_at(clients, place.0)
                .is_some_and(|connection| connection.is_open(place.1));
            let is_late = *deadline <= now;
            if is_open && is_late {
                late.push(*place);
            }
            is_open && !is_late
        });
        for place in late {
            self.desk.close_stream(place);
            self.reset_late(place);
        }
    }

    /// Ends a call whose client has no more time as grpc-go does: without a status, which nobody
    /// would read.
    pub(super) fn reset_late(&mut self, place: Place) {
        if let Some(connection) = connection_at(&mut self.clients, place.0) {
            connection.reset(place.1, ErrorCode::Cancel);
            self.touch(place.0);
        }
    }
}

impl Desk {
    /// A stream that its client gives so much time.
    pub(super) fn note_deadline(&mut self, place: Place, timeout: Option<Duration>, now: Duration) {
        self.stream_deadlines.extend(timeout.map(|timeout| (place, now.saturating_add(timeout))));
    }
}
