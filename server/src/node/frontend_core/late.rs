//! Calls whose client has no more time.

use std::time::Duration;

use super::super::watches::Place;
use super::{Desk, FrontendCore, connection_at};
use crate::frontend::http2::ErrorCode;
use crate::node::calls::{Call, Waiting};
use crate::service::status::Refusal;

impl FrontendCore {
    /// Ends a call whose client has no more time as grpc-go does: without a status, which nobody
    /// would read.
    pub(super) fn end_late(&mut self, place: Place) {
        let (socket, stream) = place;
        if let Some(connection) = connection_at(&mut self.clients, socket) {
            connection.reset(stream, ErrorCode::Cancel);
            self.touch(socket);
        }
    }

    /// Streams whose clients have no more time. Those that are over are forgotten here, too, so
    /// that nothing else has to remember that a stream had a deadline.
    pub(super) fn end_late_streams(&mut self, now: Duration) {
        let Self { desk, clients, .. } = self;
        let mut late = Vec::new();
        desk.stream_deadlines.retain(|&(place, deadline)| {
            let (socket, stream) = place;
            let connection = connection_at(clients, socket);
            let is_open = connection.is_some_and(|connection| connection.is_open(stream));
            if is_open && deadline <= now {
                late.push(place);
            }
            is_open && deadline > now
        });
        for place in late {
            self.desk.close_stream(place);
            self.end_late(place);
        }
    }
}

impl Desk {
    /// What a call is told that was begun then and for which our time is over. As etcd, commands
    /// are told more when there is a likely cause: a leader that was lost while they were under
    /// way, or the way to the one there is.
    pub(super) fn late_refusal(&self, call: &Call, begun: Duration) -> Refusal {
        let is_command =
            matches!(call.waiting, Waiting::Write | Waiting::ProcedureWrite | Waiting::Change(..));
        if !is_command {
            return Refusal::TimedOut;
        }
        let status = self.status.get();
        let begun = u64::try_from(begun.as_micros()).unwrap_or(u64::MAX);
        let elections = u64::try_from(2 * self.config.election.as_micros()).unwrap_or(u64::MAX);
        let lost_at = status.leader_since_micros.saturating_sub(elections);
        if begun > lost_at && begun < status.leader_since_micros && status.leader != 0 {
            Refusal::TimedOutLeaderFailed
        } else if status.leader != 0 && status.connected_since_micros > begun {
            Refusal::TimedOutConnectionLost
        } else {
            Refusal::TimedOut
        }
    }

    /// The client of a stream has said how long it waits, or not.
    pub(super) fn note_deadline(&mut self, place: Place, timeout: Option<Duration>, now: Duration) {
        self.stream_deadlines.extend(timeout.map(|timeout| (place, now.saturating_add(timeout))));
    }
}
