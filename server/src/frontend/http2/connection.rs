//! One HTTP/2 connection: what it holds, how it begins and ends, and what time does to it.
//!
//! Driven by its owner, which has the socket and the clock:
//!
//! ```text
//! bytes read ──► poll_event(&mut bytes, now) until None ──► commands (respond, send_*, reset)
//!                                                                      │
//! bytes written ◄── poll_output() / consume_output(n) ◄────────────────┘
//! ```
//!
//! What arrives is in `input.rs`, what leaves in `output.rs`.
//!
//! Invariants:
//! - `poll_event` returns `None` only when all input is consumed or the connection has ended.
//! - Events borrow from the caller's bytes, never from the connection, so a command can be given
//!   while an event is being looked at.
//! - After [`Event::Closed`] there are no further events, and every stream is gone; what is left in
//!   the output (GOAWAY) should be written before the socket is closed.

use std::collections::VecDeque;
use std::time::Duration;

use super::flow::{ReceiveWindow, SendWindow, WINDOW_DEFAULT};
use super::frame::put_window_update;
use super::frame::{ErrorCode, FrameKind, flag, put_go_away, put_head, put_ping, put_reset};
use super::guard::TokenBucket;
use super::headers::HeaderList;
use super::hpack::decoder::Decoder;
use super::hpack::encoder::Encoder;
use super::input::Reader;
use super::keepalive::{Keepalive, KeepaliveConfig, KeepaliveStep, PingEnforcement, PingPolicy};
use super::limits::{
    CONNECTION_WINDOW_BYTES, CONTROL_FRAMES_BURST, CONTROL_FRAMES_PER_SECOND,
    HEADER_LIST_BYTES_MAX, HEADER_TABLE_BYTES, RESETS_BURST, RESETS_PER_SECOND,
    STREAM_WINDOW_BYTES, STREAMS_OPEN_MAX,
};
use super::memo::{ListRef, Memo};
use super::output::Output;
use super::settings::{PeerSettings, id, put_setting};
use super::stream::{Closed, StreamKey, Streams};

/// How long a client may take to answer the ping of a graceful shutdown before new streams are
/// refused all the same.
const DRAIN_PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The ping of a graceful shutdown and that of the keep-alive: told apart by their bytes.
const DRAIN_PING: [u8; 8] = *b"draining";
const KEEPALIVE_PING: [u8; 8] = *b"are you?";

/// What the owner decides about a connection.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Streams that a client may have open (`--max-concurrent-streams`); [`STREAMS_OPEN_MAX`]
    /// holds in any case.
    pub max_concurrent_streams: u32,
    /// How often a client may ping.
    pub ping_policy: PingPolicy,
    /// How often we ping.
    pub keepalive: KeepaliveConfig,
    /// Response fields that are worth a place in the client's table.
    pub pinned: &'static [(&'static [u8], &'static [u8])],
}

/// Something that the client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// A request begins; its fields are at [`Connection::header_list`] until the next poll.
    Headers {
        /// The new stream.
        stream: StreamKey,
        /// Where the fields are.
        list: ListRef,
        /// Whether that was all.
        end_stream: bool,
    },
    /// A piece of body, as large as arrived; frame borders carry no meaning.
    Data {
        /// The stream.
        stream: StreamKey,
        /// The bytes, possibly none.
        bytes: &'i [u8],
        /// Whether that was all.
        end_stream: bool,
    },
    /// The stream is gone before its answer was complete.
    Reset {
        /// The stream that was.
        stream: StreamKey,
        /// The reason.
        code: ErrorCode,
    },
    /// The connection has ended.
    Closed(CloseReason),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// What GOAWAY says.
    pub code: ErrorCode,
    /// The same in words, for the log.
    pub text: &'static str,
}

/// How far the connection is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// The client was told to open no more streams; those that it opened before it heard are
    /// still served, until the ping comes back or the time is over.
    Announced {
        until: Duration,
    },
    /// Streams above the last are ignored.
    Draining {
        last_id: u32,
    },
    /// The error waits to be reported.
    Failed(CloseReason),
    Closed,
}

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) phase: Phase,
    pub(super) reader: Reader,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) memo: Memo,
    pub(super) streams: Streams,
    pub(super) streams_open_max: usize,
    pub(super) peer: PeerSettings,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// The connection's own counterpart of what its streams withhold.
    pub(super) withheld: u32,
    pub(super) output: Output,
    /// Streams with body to send and room in their own window, in turn.
    pub(super) ready: VecDeque<StreamKey>,
    /// Streams whose owner waits for room and whose body has left.
    pub(super) roomy: VecDeque<StreamKey>,
    pub(super) control_budget: TokenBucket,
    pub(super) reset_budget: TokenBucket,
    pub(super) pings: PingEnforcement,
    pub(super) keepalive: Keepalive,
}

impl Connection {
    /// A new connection. Our SETTINGS are in the output; the preface is expected as input.
    pub fn new(config: &Config, now: Duration) -> Self {
        let streams_open_max = config.max_concurrent_streams.min(STREAMS_OPEN_MAX);
        let mut output = Output::new();
        let mut payload = Vec::new();
        let header_list_max = u32::try_from(HEADER_LIST_BYTES_MAX).expect("64 KiB");
        put_setting(&mut payload, id::MAX_CONCURRENT_STREAMS, streams_open_max);
        put_setting(&mut payload, id::INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES);
        put_setting(&mut payload, id::MAX_HEADER_LIST_SIZE, header_list_max);
        put_head(&mut output.bytes, FrameKind::Settings, 0, 0, payload.len());
        output.bytes.extend_from_slice(&payload);
        put_window_update(&mut output.bytes, 0, CONNECTION_WINDOW_BYTES - WINDOW_DEFAULT);
        Self {
            phase: Phase::Serving,
            reader: Reader::new(),
            decoder: Decoder::new(HEADER_TABLE_BYTES as usize),
            encoder: Encoder::new(config.pinned, HEADER_TABLE_BYTES as usize),
            memo: Memo::new(),
            streams: Streams::new(),
            streams_open_max: streams_open_max as usize,
            peer: PeerSettings::DEFAULT,
            send: SendWindow::new(WINDOW_DEFAULT),
            receive: ReceiveWindow::new(CONNECTION_WINDOW_BYTES),
            withheld: 0,
            output,
            ready: VecDeque::new(),
            roomy: VecDeque::new(),
            control_budget: TokenBucket::new(CONTROL_FRAMES_BURST, CONTROL_FRAMES_PER_SECOND, now),
            reset_budget: TokenBucket::new(RESETS_BURST, RESETS_PER_SECOND, now),
            pings: PingEnforcement::new(config.ping_policy),
            keepalive: Keepalive::new(config.keepalive, now),
        }
    }

    /// Looks at the time: keep-alive and shutdown. What follows is in the output and, should the
    /// client be dead, in the next event.
    pub fn handle_tick(&mut self, now: Duration) {
        match self.phase {
            Phase::Announced { until } if now >= until => self.drain(),
            Phase::Failed(_) | Phase::Closed => return,
            _ => {}
        }
        match self.keepalive.handle_tick(now) {
            KeepaliveStep::Wait => {}
            KeepaliveStep::Ping => put_ping(&mut self.output.bytes, 0, KEEPALIVE_PING),
            KeepaliveStep::Dead => {
                // As grpc-go: nobody is told, for nobody listens.
                let text = "keepalive ping not acked within timeout";
                self.output.discard();
                self.phase = Phase::Failed(CloseReason { code: ErrorCode::NoError, text });
            }
        }
    }

    /// When [`Self::handle_tick`] is due next.
    pub fn poll_deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Announced { until } => Some(until.min(self.keepalive.deadline())),
            Phase::Failed(_) | Phase::Closed => None,
            _ => Some(self.keepalive.deadline()),
        }
    }

    /// Begins a graceful shutdown: no new calls, the present ones are served to their end. First
    /// only announced, because streams may be on their way to us (RFC 9113, 6.8); once a ping has
    /// travelled there and back, none are.
    pub fn shut_down(&mut self, now: Duration) {
        if self.phase != Phase::Serving {
            return;
        }
        put_go_away(&mut self.output.bytes, 0x7fff_ffff, ErrorCode::NoError, "graceful_stop");
        put_ping(&mut self.output.bytes, 0, DRAIN_PING);
        self.phase = Phase::Announced { until: now.saturating_add(DRAIN_PING_TIMEOUT) };
    }

    pub(super) fn handle_ping_ack(&mut self, opaque: [u8; 8]) {
        if opaque == DRAIN_PING && matches!(self.phase, Phase::Announced { .. }) {
            self.drain();
        }
    }

    fn drain(&mut self) {
        let last_id = self.streams.last_id();
        put_go_away(&mut self.output.bytes, last_id, ErrorCode::NoError, "");
        self.phase = Phase::Draining { last_id };
    }

    /// Whether the connection has come to its end, gracefully or not: the output should be written,
    /// the socket closed.
    pub fn is_drained(&self) -> bool {
        let is_draining = matches!(self.phase, Phase::Draining { .. });
        self.is_over() || (is_draining && self.streams.open_count() == 0)
    }

    /// Whether the connection has met its end and [`Event::Closed`] has yet to tell of it.
    pub fn has_failed(&self) -> bool {
        matches!(self.phase, Phase::Failed(_))
    }

    /// Whether the connection has ended: the rest of the output should be written, the socket
    /// closed.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Ends the connection with an error (RFC 9113, 5.4.1).
    pub(super) fn fail(&mut self, code: ErrorCode, text: &'static str) {
        if matches!(self.phase, Phase::Failed(_) | Phase::Closed) {
            return;
        }
        put_go_away(&mut self.output.bytes, self.streams.last_id(), code, text);
        self.phase = Phase::Failed(CloseReason { code, text });
    }

    /// Reports a failure once.
    pub(super) fn take_failure(&mut self) -> Option<Event<'static>> {
        let Phase::Failed(reason) = self.phase else { return None };
        self.phase = Phase::Closed;
        self.ready.clear();
        self.roomy.clear();
        self.output.forget_all();
        self.streams = Streams::new();
        Some(Event::Closed(reason))
    }

    /// Ends a stream at once. Nothing happens if it has ended already.
    pub fn reset(&mut self, stream: StreamKey, code: ErrorCode) {
        if self.streams.get(stream).is_some() {
            put_reset(&mut self.output.bytes, stream.id, code);
            self.close_stream(stream, Closed::ResetByUs);
        }
    }

    /// The one way out of the table; what the stream had yet to send is no longer counted.
    #[inline]
    pub(super) fn close_stream(&mut self, stream: StreamKey, how: Closed) {
        self.output.forget(self.stream_pending_bytes(stream));
        self.streams.close(stream, how);
    }

    /// The fields of a list that [`Event::Headers`] named.
    #[inline]
    pub fn header_list(&self, list: ListRef) -> &HeaderList {
        self.memo.list(list)
    }

    /// Whether the stream is still open. After [`Event::Reset`] and after the answer it is not.
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Open streams.
    pub fn streams_open(&self) -> usize {
        self.streams.open_count()
    }

    pub(super) fn ack_settings(&mut self) {
        put_head(&mut self.output.bytes, FrameKind::Settings, flag::ACK, 0, 0);
    }
}
