//! A step of a streaming answer: from the view to a message of its call.
//!
//! Invariant: a step makes one message of one stream, or spends its budget on the way to one; a
//! turn takes one step, or a few of streams that rest afterwards.

use std::time::Duration;

use engine::View;

use super::super::calls::{Call, Timeouts, Waiting};
use super::super::streams::{Ended, Sent, Streaming};
use super::super::watches::Place;
use super::{Desk, FrontendCore, Request, connection_at, status};
use crate::frontend::grpc;
use crate::mail::Slot;
use crate::runtime::reactor::SocketId;
use crate::service::status::Refusal;
use crate::service::stream::{ServerStream, StreamProgress};

/// Keys that a step of a stream may touch, half of it in bytes of values: 100 to 300 us, of which
/// the digest of a backup takes most.
const STREAM_STEP_KEYS: usize = 250;

impl FrontendCore {
    /// Goes on with the streams whose turn it is.
    pub(super) fn step_streams(&mut self, now: Duration) {
        self.desk.now = now;
        loop {
            let Desk { views, streams, status, .. } = &mut self.desk;
            let begun = streams.begin_step(now, status.get().committed, || views.hold());
            let Some(streaming) = begun else { return };
            let is_last = streaming.view.is_none();
            self.step_stream(streaming, now);
            if is_last {
                return;
            }
        }
    }

    fn step_stream(&mut self, mut streaming: Streaming, now: Duration) {
        let desk = &mut self.desk;
        let (socket, stream) = streaming.place();
        let connection = connection_at(&mut self.clients, socket);
        let Some(connection) = connection.filter(|connection| connection.is_open(stream)) else {
            return desk.end_stream(streaming);
        };
        match desk.step_stream(&mut streaming) {
            Ok(StreamProgress::Message) => {
                connection.send(stream, &desk.answer);
                let is_waiting = connection.http2().stream_pending_bytes(stream) > 0;
                if is_waiting {
                    connection.http2().want_room(stream);
                }
                let sent = Sent { size_bytes: desk.answer.len(), is_waiting };
                desk.streams.end_step(streaming, sent, now);
            }
            Ok(StreamProgress::More) => {
                let sent = Sent { size_bytes: 0, is_waiting: false };
                desk.streams.end_step(streaming, sent, now);
            }
            Ok(StreamProgress::Done) => {
                connection.finish(stream, &grpc::Status::OK);
                desk.end_stream(streaming);
            }
            Err(refusal) => {
                connection.finish(stream, &status(refusal));
                desk.end_stream(streaming);
                desk.report_fault();
            }
        }
        self.touch(socket);
    }

    /// Time passed: who takes nothing holds no view any longer.
    pub(super) fn give_up_streams(&mut self, now: Duration) {
        for place in self.desk.streams.handle_tick(now) {
            let (socket, stream) = place;
            self.desk.close_serving(place);
            if let Some(connection) = connection_at(&mut self.clients, socket) {
                connection.finish(stream, &status(Refusal::BackupStalled));
                self.touch(socket);
            }
        }
    }
}

impl Desk {
    pub(super) fn begin_stream(
        &mut self,
        request: Request,
        stream: Box<ServerStream>,
        now: Duration,
    ) {
        let Request { socket, stream: key, timeout, .. } = request;
        let timeouts = Timeouts { client: timeout, server: self.config.request_timeout };
        if stream.needs_read_index() {
            let waiting = Waiting::StreamRound(Some(stream));
            let slot = self.calls.insert(Call { socket, stream: key, waiting }, 0, now, timeouts);
            return self.ask.reads.push(slot);
        }
        let call = Call { socket, stream: key, waiting: Waiting::Stream };
        let slot = self.calls.insert(call, 0, now, timeouts);
        // It takes as long as it takes, and only its client may give it up.
        self.calls.lift_server_deadline(slot);
        self.streams.push((socket, key), slot, stream, now);
    }

    /// A read-index round is over: whether a stream waited for it, which then begins.
    pub(super) fn begin_waiting_stream(&mut self, slot: Slot) -> bool {
        let Some(call) = self.calls.get_mut(slot) else { return false };
        let Waiting::StreamRound(waiting) = &mut call.waiting else { return false };
        let stream = waiting.take().expect("a stream begins once");
        call.waiting = Waiting::Stream;
        let place = (call.socket, call.stream);
        self.calls.lift_server_deadline(slot);
        self.streams.push(place, slot, stream, self.now);
        true
    }

    fn step_stream(&mut self, streaming: &mut Streaming) -> Result<StreamProgress, Refusal> {
        let Self { service, node, views, answer, .. } = self;
        answer.clear();
        let pinned;
        let view: &View = if let Some(held) = &streaming.view {
            held
        } else {
            pinned = views.pin();
            &pinned
        };
        let mut keys = STREAM_STEP_KEYS;
        service.step_stream(&mut streaming.stream, node, view, &mut keys, answer)
    }

    fn end_stream(&mut self, streaming: Streaming) {
        let ended = self.streams.finish(streaming);
        self.forget_stream(ended);
    }

    /// Only backups hold a view.
    fn forget_stream(&mut self, ended: Ended) {
        self.calls.take(ended.slot);
        if let Some(begun) = ended.held_since {
            self.metrics.backups.observe_duration(self.now.saturating_sub(begun), 1);
        }
    }

    /// A call is over, and with it its stream if it has one.
    pub(super) fn close_serving(&mut self, place: Place) {
        if let Some(ended) = self.streams.close(place) {
            self.forget_stream(ended);
        }
    }

    pub(super) fn close_all_serving(&mut self, socket: SocketId) {
        for ended in self.streams.close_all(socket) {
            self.forget_stream(ended);
        }
    }
}
