//! A front-end core: connections, calls and the answers that are on their way.
//!
//! Sans-IO: bytes of sockets and letters of the log core come in through `handle_*`, letters to the
//! log core gather in [`FrontendCore::ask`], and what is to be done to sockets comes out of
//! [`FrontendCore::poll_action`] after [`FrontendCore::settle`].
//!
//! Invariants:
//! - A call that was handed out by its connection is answered once, or its client is gone.
//! - A view is pinned only inside one call of `handle_*` or one step of a read, and one is held for
//!   the hash being computed: no pin waits for a client's window.
//! - The reads of a turn share a budget; those that find it spent wait for the next turn, so that
//!   writes, watches and other connections get theirs.
//! - What a client's streams hold of answers that it does not take bounds what is read for it; its
//!   socket is read from all the same, unless the socket itself takes nothing.
//! - All bytes that one turn has for a client leave in one send; one send a client is under way.

mod answers;
mod fan_out;
mod http;
mod late;
mod leases;
mod measuring;
mod members;
mod procedures;
mod stepping;
mod streaming;
mod vars;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::{Progress, ReadHandle};

use self::fan_out::WATCH_TURN_BYTES;
pub use self::http::Entrance;
use self::http::HttpSide;
use self::procedures::Procedures;
use super::calls::{Call, Calls, Timeouts, Waiting};
use super::reads::{Gate, ReadQueue};
use super::shared::{Status, WatchInterest};
use super::streams::Streams;
use super::watches::{Place, Watches};
use crate::config;
use crate::frontend::gateway::Gateway;
use crate::frontend::grpc::{self, Event, Input, MethodTable};
use crate::frontend::http2::limits::STREAMS_OPEN_MAX;
use crate::frontend::http2::{Protocol, StreamKey, sniff};
use crate::log_event;
use crate::mail::{Ask, FrontendId, Reply, Slot};
use crate::metrics::{FrontendMetrics, StageLatency};
use crate::runtime::reactor::SocketId;
use crate::service::concurrency::Procedure;
use crate::service::dispatch::{Action, CallMetadata, Service};
use crate::service::lease::keep_alive::KeepAlives;
use crate::service::method::Method;
use crate::service::node_state::NodeState;
use crate::service::status::{Refusal, status_of};
use crate::service::watch::WatchConfig;

/// Output that may wait for a client before this core stops reading from it.
const OUTPUT_PENDING_BYTES_MAX: usize = 4 << 20;
/// Once it has fallen to this, reading goes on.
const OUTPUT_PENDING_BYTES_RESUME: usize = 1 << 20;
/// Writes and waiting reads that a core has under way; beyond it etcd's "too many requests".
const CALLS_MAX: usize = 64 * 1024;
/// Bytes of commands that a core has under way. With a batch's limit this also bounds what the
/// sequencer holds; it is a dozen of the largest requests and far beyond what a disk takes at once.
const COMMANDS_SIZE_BYTES_MAX: usize = 32 << 20;
/// A single command.
#[expect(clippy::cast_possible_truncation, reason = "it is megabytes")]
const COMMAND_SIZE_BYTES_MAX: usize = config::COMMAND_SIZE_BYTES_MAX as usize;
const _: () = assert!(STREAMS_OPEN_MAX == config::STREAMS_OPEN_MAX); // or its start-up line lies
/// Keys that a step of a read may touch: short against the wait for a sync, long against the cost
/// of coming back.
const READ_STEP_KEYS: usize = 1000;
/// Keys that the reads which arrive in a turn may touch together, and as many those that wait from
/// turns before: a few hundred microseconds, which is what others wait for their turn.
const READ_TURN_KEYS: usize = 2000;
/// Buffers above this size are shared by the connections of a core rather than kept by one.
const SPARE_SIZE_BYTES_MAX: usize = 64 << 10;
/// How long the last words to a client whose connection has ended may take to leave.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Bytes that may arrive before the protocol is known.
const SNIFF_BYTES_MAX: usize = 64;

/// What is to be done to a socket.
#[derive(Debug)]
pub enum SocketAction {
    /// Send the bytes.
    Send(SocketId, Vec<u8>),
    /// End the connection.
    Close(SocketId),
    /// Stop reading.
    Pause(SocketId),
    /// Read again.
    Resume(SocketId),
}

/// What flags decide about a front-end.
#[derive(Debug, Clone, Copy)]
pub struct FrontendConfig {
    /// The gRPC and HTTP/2 limits.
    pub grpc: grpc::Config,
    /// After which a write or a read without an answer gets etcd's time-out.
    pub request_timeout: Duration,
    /// A call under way for longer is remarked on in the log; `None` remarks on none.
    pub slow_after: Option<Duration>,
    /// The watch hub's limits.
    pub watch: WatchConfig,
    /// `--max-learners`.
    pub learners_max: u32,
    /// `--election-timeout`.
    pub election: Duration,
}

/// What a front-end shares with the rest of the process.
pub struct FrontendParts {
    /// Its number.
    pub id: FrontendId,
    /// The services.
    pub service: Service,
    /// Views of the store.
    pub views: ReadHandle,
    /// What the log core publishes.
    pub status: Arc<Status>,
    /// Whether this front-end has watchers.
    pub interest: Arc<WatchInterest>,
    /// What the services tell of this member.
    pub node: NodeState,
    /// What this front-end counts.
    pub metrics: Arc<FrontendMetrics>,
}

enum Speech {
    Unknown(Vec<u8>),
    Grpc(Box<grpc::Connection>),
    Http1(Box<Gateway>),
    /// Refused; closed as soon as the answer has left.
    Ended,
}

struct Client {
    socket: SocketId,
    entrance: Entrance,
    speech: Speech,
    output: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    paused: bool,
    /// Which of its reads get turns.
    gate: Gate,
    /// What its streams held when they were last looked at.
    queued_bytes: usize,
    /// When its connection was found to have ended.
    over_since: Option<Duration>,
    closing: bool,
    touched: bool,
}

/// The state machine of one front-end.
pub struct FrontendCore {
    config: FrontendConfig,
    clients: Vec<Option<Client>>,
    touched: Vec<SocketId>,
    actions: VecDeque<SocketAction>,
    desk: Desk,
    draining: bool,
    http: HttpSide,
}

/// What a call needs besides its client.
struct Desk {
    id: FrontendId,
    config: FrontendConfig,
    service: Service,
    views: ReadHandle,
    status: Arc<Status>,
    watches: Watches,
    /// Answers of many messages that the server alone sends.
    streams: Streams,
    keep_alives: KeepAlives<Place>,
    procedures: Procedures,
    /// Streams whose clients have said how long they wait.
    stream_deadlines: Vec<(Place, Duration)>,
    /// The time of the last event that had one.
    now: Duration,
    /// The time of day, since 1970.
    wall_clock: Duration,
    node: NodeState,
    methods: Rc<MethodTable>,
    ask: Ask,
    calls: Calls,
    reading: ReadQueue,
    /// Hashes of the whole store, and other reads that need one view, one after the other.
    hashing: VecDeque<Slot>,
    /// No view could be held for the first of them: it is tried again when time has passed.
    hash_waits: bool,
    /// What is left of this turn's budget.
    turn_keys: usize,
    /// And of that for watchers.
    turn_watch_bytes: usize,
    buffers: Vec<Vec<u8>>,
    answer: Vec<u8>,
    /// Requests that came in this turn.
    turn_requests: u64,
    stage: StageLatency,
    metrics: Arc<FrontendMetrics>,
}

impl FrontendCore {
    /// A front-end without clients.
    #[must_use]
    pub fn new(config: FrontendConfig, parts: FrontendParts) -> Self {
        let FrontendParts { id, service, mut views, status, interest, node, metrics } = parts;
        let watches = Watches::new(config.watch, &node, &mut views, interest, id);
        let calls = Calls::new(config.slow_after);
        let desk = Desk {
            id,
            config,
            service,
            views,
            status,
            watches,
            streams: Streams::default(),
            keep_alives: KeepAlives::default(),
            procedures: Procedures::default(),
            stream_deadlines: Vec::new(),
            now: Duration::ZERO,
            wall_clock: Duration::ZERO,
            node,
            methods: Rc::new(method_table().counted(Arc::clone(&metrics.calls))),
            ask: Ask::default(),
            calls,
            reading: ReadQueue::default(),
            hashing: VecDeque::new(),
            hash_waits: false,
            turn_keys: READ_TURN_KEYS,
            turn_watch_bytes: WATCH_TURN_BYTES,
            buffers: Vec::new(),
            answer: Vec::new(),
            turn_requests: 0,
            stage: StageLatency::new(metrics.stage()),
            metrics,
        };
        Self {
            config,
            clients: Vec::new(),
            touched: Vec::new(),
            actions: VecDeque::new(),
            http: HttpSide::new(&config, &desk.methods),
            desk,
            draining: false,
        }
    }

    /// A client connected at an address that serves everything.
    pub fn handle_accepted(&mut self, socket: SocketId) {
        self.handle_accepted_at(socket, Entrance::Any);
    }

    /// A client connected.
    pub fn handle_accepted_at(&mut self, socket: SocketId, entrance: Entrance) {
        // The first call may come before the first letter and the first tick: without this its
        // header has no term, and who requires a leader is told that there is none.
        self.desk.refresh_node();
        let place = socket.index();
        if place >= self.clients.len() {
            self.clients.resize_with(place + 1, || None);
        }
        assert!(self.clients[place].is_none(), "a socket's place is taken");
        self.clients[place] = Some(Client {
            socket,
            entrance,
            speech: Speech::Unknown(Vec::new()),
            output: Vec::new(),
            spare: Vec::new(),
            sending: false,
            paused: false,
            gate: Gate::Open,
            queued_bytes: 0,
            over_since: None,
            closing: false,
            touched: false,
        });
    }

    /// Bytes arrived.
    pub fn handle_received(&mut self, socket: SocketId, bytes: &[u8], now: Duration) {
        let Some(client) = client_at(&mut self.clients, socket) else { return };
        match &mut client.speech {
            Speech::Grpc(connection) => self.desk.read(socket, connection, bytes, now),
            Speech::Http1(gateway) => {
                gateway.handle_received(bytes, now);
                self.http.waiting.push(socket);
            }
            Speech::Unknown(seen) => {
                seen.extend_from_slice(bytes);
                let seen = std::mem::take(seen);
                self.greet(socket, seen, now);
            }
            Speech::Ended => {}
        }
        self.touch(socket);
    }

    /// A send ended; its buffer returns.
    pub fn handle_sent(&mut self, socket: SocketId, buffer: Vec<u8>) {
        let Some(client) = client_at(&mut self.clients, socket) else { return };
        client.sending = false;
        if buffer.capacity() <= SPARE_SIZE_BYTES_MAX {
            client.spare = buffer;
        } else {
            self.desk.keep_buffer(buffer);
        }
        self.touch(socket);
    }

    /// The connection is gone.
    pub fn handle_closed(&mut self, socket: SocketId) {
        if let Some(client) = client_at(&mut self.clients, socket) {
            self.desk.reading.handle_queued(client.queued_bytes, 0);
            self.clients[socket.index()] = None;
            self.desk.give_up_procedures(socket);
            self.desk.watches.close_all(socket);
            self.desk.close_all_serving(socket);
            self.desk.keep_alives.close_all(|place| place.0 == socket);
            // Its reads are forgotten at their next step.
            self.desk.reading.handle_gone(socket);
        }
    }

    /// A letter of the log core.
    pub fn handle_reply(&mut self, reply: &mut Reply) {
        self.desk.refresh_node();
        for (slot, verdict) in reply.answers.drain(..) {
            self.finish_write(slot, &verdict);
        }
        for slot in reply.reads.drain(..) {
            if self.desk.begin_waiting_stream(slot) {
                continue;
            }
            let Some(call) = self.desk.calls.get(slot) else {
                self.desk.calls.take(slot);
                continue;
            };
            let (socket, is_wide) = (call.socket, call.is_wide_read());
            self.desk.calls.lift_server_deadline(slot);
            let connection = connection_at(&mut self.clients, socket);
            let may_step = |connection| self.desk.may_step(connection, socket, is_wide);
            // What finds its client gone is forgotten by its step.
            if !connection.is_none_or(may_step) {
                self.desk.reading.push(socket, slot, is_wide);
                continue;
            }
            let mut keys = self.desk.turn_keys.min(READ_STEP_KEYS);
            self.desk.turn_keys -= keys;
            self.step_read(socket, slot, &mut keys);
            self.desk.turn_keys += keys;
        }
        for slot in reply.patient.drain(..) {
            self.desk.calls.lift_server_deadline(slot);
        }
        for (slot, reason) in reply.reads_failed.drain(..) {
            if let Some(call) = self.desk.calls.take(slot) {
                self.refuse(&call, Refusal::from(reason));
            }
        }
        for (slot, answer) in reply.leases.drain(..) {
            self.handle_lease_reply(slot, answer);
        }
        let desk = &mut self.desk;
        desk.watches.handle_events(&reply.events, reply.gap, &mut desk.views);
        reply.events.clear();
        reply.gap = false;
        self.send_watched();
    }

    /// Time passed.
    pub fn handle_tick(&mut self, now: Duration) {
        self.desk.refresh_node();
        self.desk.hash_waits = false;
        self.desk.stage.handle_tick(now);
        self.note_gauges();
        self.desk.watches.handle_tick(now, &self.desk.node);
        self.give_up_streams(now);
        self.desk.now = now;
        self.desk.clean_up();
        self.give_up_late_procedures(now);
        self.handle_http_tick(now);
        while let Some((call, deadline)) = self.desk.calls.poll_late(now) {
            self.desk.close_serving((call.socket, call.stream));
            if matches!(call.waiting, Waiting::Write) {
                self.desk.metrics.writes_late.add(1);
            }
            // The client's own deadline is the client's to notice; ours has etcd's answer.
            if deadline.is_ours {
                let begun = deadline.at.saturating_sub(self.config.request_timeout);
                let refusal = self.desk.late_refusal(&call, begun);
                self.refuse(&call, refusal);
            } else {
                self.end_late((call.socket, call.stream));
            }
        }
        self.end_late_streams(now);
        if let Some(slow) = self.desk.calls.poll_slow() {
            let (count, taken) = (slow.count, slow.taken_max);
            let message = "requests take longer than expected";
            log_event!(Warn, message, "requests" => count, "longest-so-far" => taken);
        }
        for place in 0..self.clients.len() {
            let Some(client) = &mut self.clients[place] else { continue };
            let socket = client.socket;
            let connection = match &mut client.speech {
                Speech::Grpc(connection) => connection,
                Speech::Http1(gateway) => {
                    gateway.handle_tick(now);
                    self.touch(socket);
                    continue;
                }
                Speech::Unknown(_) | Speech::Ended => continue,
            };
            if connection.http2().poll_deadline().is_some_and(|deadline| deadline <= now) {
                connection.http2().handle_tick(now);
                self.desk.read(socket, connection, &[], now);
            }
            // One that takes nothing keeps its last send under way for ever.
            if connection.http2().is_over() && !client.closing {
                let since = *client.over_since.get_or_insert(now);
                if now.saturating_sub(since) >= CLOSE_GRACE {
                    client.closing = true;
                    self.actions.push_back(SocketAction::Close(socket));
                }
            }
            self.touch(socket);
        }
    }

    /// Announces to all clients that this member goes away.
    pub fn shut_down(&mut self, now: Duration) {
        self.draining = true;
        for place in 0..self.clients.len() {
            let Some(client) = &mut self.clients[place] else { continue };
            let socket = client.socket;
            match &mut client.speech {
                Speech::Grpc(connection) => connection.http2().shut_down(now),
                Speech::Http1(gateway) => gateway.shut_down(),
                Speech::Unknown(_) | Speech::Ended => {}
            }
            self.touch(socket);
        }
    }

    /// Steps long reads and turns what connections have to say into sends.
    pub fn settle(&mut self, now: Duration) {
        self.pump_waiting(now);
        self.step_reads();
        self.step_streams(now);
        self.step_watches();
        while let Some(socket) = self.touched.pop() {
            self.flush(socket, now);
        }
    }

    /// What is to be done to a socket next.
    pub fn poll_action(&mut self) -> Option<SocketAction> {
        self.actions.pop_front()
    }

    /// What the log core is to be told.
    pub fn ask(&mut self) -> &mut Ask {
        &mut self.desk.ask
    }

    /// This front-end's number.
    #[must_use]
    pub fn id(&self) -> FrontendId {
        self.desk.id
    }

    /// When there is something to do that no event brings, if there is.
    #[must_use]
    pub fn work_due(&self) -> Option<Duration> {
        let desk = &self.desk;
        let hashes = !desk.hashing.is_empty() && !desk.hash_waits;
        let http = !self.http.waiting.is_empty();
        let reads = !desk.reading.is_idle();
        if reads || hashes || desk.watches.has_work() || http {
            return Some(Duration::ZERO);
        }
        desk.streams.due()
    }

    fn greet(&mut self, socket: SocketId, seen: Vec<u8>, now: Duration) {
        let client = client_at(&mut self.clients, socket).expect("it has just sent something");
        match sniff(&seen) {
            Protocol::Http2 if client.entrance.takes_grpc() => {
                let methods = Rc::clone(&self.desk.methods);
                let connection = grpc::Connection::new(&self.config.grpc, methods, now);
                let mut connection = Box::new(connection);
                self.desk.read(socket, &mut connection, &seen, now);
                if self.draining {
                    connection.http2().shut_down(now);
                }
                client.speech = Speech::Grpc(connection);
            }
            Protocol::NeedMore if seen.len() < SNIFF_BYTES_MAX => {
                client.speech = Speech::Unknown(seen);
            }
            Protocol::Http1 if client.entrance.takes_http() => {
                let mut gateway = self.http.gateway(client.entrance);
                gateway.handle_received(&seen, now);
                client.speech = Speech::Http1(gateway);
                self.http.waiting.push(socket);
            }
            _ => client.speech = Speech::Ended,
        }
    }

    fn step_reads(&mut self) {
        let mut left = READ_TURN_KEYS;
        while left > 0
            && let Some((socket, slot)) = self.desk.reading.pop()
        {
            let given = left.min(READ_STEP_KEYS);
            let mut keys = given;
            self.step_read(socket, slot, &mut keys);
            // What finds its client gone costs something too.
            left -= (given - keys).max(1);
        }
        self.step_hash();
        self.desk.turn_keys = READ_TURN_KEYS;
    }

    /// Takes a step of a read and puts it back into the queue if another one is needed.
    fn step_read(&mut self, socket: SocketId, slot: Slot, keys: &mut usize) {
        let desk = &mut self.desk;
        let Some((stream, mut reading)) = desk.calls.begin_step(slot) else {
            // Given up while it waited for this step: nobody else holds the slot.
            desk.calls.take(slot);
            return;
        };
        let connection = connection_at(&mut self.clients, socket);
        let Some(connection) = connection.filter(|connection| connection.is_open(stream)) else {
            desk.calls.take(slot);
            return;
        };
        if reading.is_inner {
            let Some(answer) = desk.step_inner(&mut reading, keys) else {
                desk.reading.push_begun(socket, slot, &mut reading);
                return desk.calls.end_step(slot, reading);
            };
            desk.calls.take(slot);
            desk.report_fault();
            let answer = answer.as_deref().map_err(|refusal| *refusal);
            return self.handle_procedure_answer((socket, stream), answer);
        }
        if desk.step(connection, stream, &mut reading, keys) == Progress::More {
            if reading.read.needs_same_view() {
                reading.restart();
                desk.hashing.push_back(slot);
            } else {
                desk.reading.push_begun(socket, slot, &mut reading);
            }
            desk.calls.end_step(slot, reading);
            return;
        }
        desk.calls.take(slot);
        desk.report_fault();
        self.touch(socket);
    }

    fn touch(&mut self, socket: SocketId) {
        let Some(client) = client_at(&mut self.clients, socket) else { return };
        if !client.touched {
            client.touched = true;
            self.touched.push(socket);
        }
    }

    fn flush(&mut self, socket: SocketId, now: Duration) {
        let Some(client) = client_at(&mut self.clients, socket) else { return };
        client.touched = false;
        let mut drained = matches!(client.speech, Speech::Ended);
        if matches!(client.speech, Speech::Http1(_)) {
            drained = self.flush_http(socket, now);
        }
        let Some(client) = client_at(&mut self.clients, socket) else { return };
        if let Speech::Grpc(connection) = &mut client.speech {
            let http2 = connection.http2();
            drained = http2.is_drained() || http2.is_over();
            while let Some(stream) = http2.poll_room() {
                let pending = http2.stream_pending_bytes(stream);
                // More may have come since it had room: without asking again, a stream that is
                // held up because of all the others would never be told of room.
                if pending > 0 {
                    http2.want_room(stream);
                }
                let queued = http2.queued_bytes();
                self.desk.watches.handle_pending((socket, stream), pending, queued);
                self.desk.streams.handle_room((socket, stream));
            }
            let pending = http2.socket_pending_bytes();
            if !client.paused && pending > OUTPUT_PENDING_BYTES_MAX {
                client.paused = true;
                self.actions.push_back(SocketAction::Pause(socket));
            } else if client.paused && pending < OUTPUT_PENDING_BYTES_RESUME {
                client.paused = false;
                self.actions.push_back(SocketAction::Resume(socket));
            }
            if !client.sending && http2.has_output() {
                client.output = std::mem::take(&mut client.spare);
                http2.swap_output(&mut client.output);
            }
            if http2.has_failed() {
                // It has just met its end in its own output, and has yet to say so.
                self.desk.read(socket, connection, &[], now);
            }
            let queued_bytes = connection.http2().queued_bytes();
            let reading = &mut self.desk.reading;
            reading.handle_queued(client.queued_bytes, queued_bytes);
            client.queued_bytes = queued_bytes;
            let gate = if client.paused { Gate::Shut } else { Gate::for_queued(queued_bytes) };
            if gate != client.gate {
                client.gate = gate;
                reading.set_gate(socket, gate);
            }
        }
        if client.sending {
            return;
        }
        if !client.output.is_empty() {
            client.sending = true;
            let output = std::mem::take(&mut client.output);
            self.actions.push_back(SocketAction::Send(socket, output));
        } else if drained && !client.closing {
            client.closing = true;
            self.actions.push_back(SocketAction::Close(socket));
        }
    }
}

impl Desk {
    /// Takes in bytes and does what the calls in them ask for.
    fn read(
        &mut self,
        socket: SocketId,
        connection: &mut grpc::Connection,
        bytes: &[u8],
        now: Duration,
    ) {
        let mut input = Input::new(bytes);
        while let Some(event) = connection.poll_event(&mut input, now) {
            match event {
                Event::Request { stream, method, timeout, metadata, message } => {
                    let metadata = call_metadata(&metadata);
                    let method = Method::ALL[usize::from(method.0)];
                    let call = Request { socket, stream, method, timeout };
                    self.handle_request(connection, call, &metadata, &message, now);
                    recycle(connection, message);
                }
                Event::Call { stream, method, timeout, metadata } => {
                    let metadata = call_metadata(&metadata);
                    let method = Method::ALL[usize::from(method.0)];
                    let place = (socket, stream);
                    self.note_deadline(place, timeout, now);
                    self.open_stream(connection, place, method, &metadata, now);
                }
                Event::Message { stream, message } => {
                    let place = (socket, stream);
                    if let Err(refusal) = self.handle_stream_message(place, &message) {
                        self.close_stream(place);
                        connection.finish(stream, &status(refusal));
                    }
                    recycle(connection, message);
                }
                // Reads notice a cancelled call at their next step, writes at their answer.
                Event::Cancelled { stream } => self.close_stream((socket, stream)),
                // A half-close leaves watchers alive.
                Event::HalfClose { stream } => {
                    let outcome = self.keep_alives.handle_half_closed((socket, stream));
                    self.end_keep_alive(connection, (socket, stream), outcome);
                }
                // A connection that is over closes when its last bytes have left.
                Event::Closed(_) => {}
            }
        }
    }

    fn handle_request(
        &mut self,
        connection: &mut grpc::Connection,
        request: Request,
        metadata: &CallMetadata<'_>,
        message: &[u8],
        now: Duration,
    ) {
        let Request { socket, stream, method, timeout } = request;
        self.turn_requests += 1;
        if method == Method::Status || metadata.leader_required {
            // What this core heard last may be a tick old, and this call asks for just that.
            self.refresh_node();
        }
        if let Err(refusal) = self.service.check_call(method, metadata, &self.node) {
            return connection.finish(stream, &status(refusal));
        }
        if self.calls.len() >= CALLS_MAX || self.calls.size_bytes() >= COMMANDS_SIZE_BYTES_MAX {
            return connection.finish(stream, &status(Refusal::TooManyRequests));
        }
        if Procedure::serves(method) {
            return self.begin_procedure(connection, request, message, now);
        }
        // A look-up that its connection has no room for finds no budget, and so waits.
        let mut nothing = 0;
        let has_room = Gate::for_queued(connection.http2().queued_bytes()).admits(false);
        let keys = if has_room { &mut self.turn_keys } else { &mut nothing };
        self.answer.clear();
        let view = self.views.pin();
        let frames = &mut self.ask.frames;
        let frames_before = frames.len();
        let action = self.service.handle_message(
            method,
            message,
            &self.node,
            &view,
            keys,
            frames,
            &mut self.answer,
        );
        drop(view);
        let timeouts = Timeouts { client: timeout, server: self.config.request_timeout };
        match action {
            Action::Answer => connection.answer(stream, &self.answer),
            Action::Refuse(refusal) => connection.finish(stream, &status(refusal)),
            Action::Write if self.ask.frames.len() - frames_before > COMMAND_SIZE_BYTES_MAX => {
                self.ask.frames.truncate(frames_before);
                connection.finish(stream, &status(Refusal::RequestTooLarge));
            }
            Action::Write => {
                let size_bytes = self.ask.frames.len() - frames_before;
                let call = Call { socket, stream, waiting: Waiting::Write };
                let slot = self.calls.insert(call, size_bytes, now, timeouts);
                self.ask.slots.push(slot);
            }
            Action::Read(read) => self.begin_read(connection, request, read, now),
            Action::Defragment => {
                log_event!(Info, "starting defragment");
                let call = Call { socket, stream, waiting: Waiting::Write };
                self.ask.defrags.push(self.calls.insert(call, 0, now, timeouts));
            }
            Action::ChangeMembers(ask) => {
                self.change_members(connection, request, ask, timeouts, now);
            }
            Action::MoveLeader(to) => {
                let call = Call { socket, stream, waiting: Waiting::Write };
                self.ask.moves.push((self.calls.insert(call, 0, now, timeouts), to));
            }
            Action::Stream => {
                self.note_deadline((socket, stream), timeout, now);
                connection.send(stream, &self.answer);
            }
            Action::Serve(stream) => self.begin_stream(request, stream, now),
            Action::AskLease(question) => {
                let call = Call { socket, stream, waiting: Waiting::Lease(question) };
                let slot = self.calls.insert(call, 0, now, timeouts);
                self.ask_lease(slot, question);
            }
        }
        self.report_fault();
    }

    /// Whether a read that was not begun may take its first step at once.
    fn may_step(&self, connection: &mut grpc::Connection, socket: SocketId, is_wide: bool) -> bool {
        let gate = Gate::for_queued(connection.http2().queued_bytes());
        let may_begin = !is_wide || self.reading.may_begin(socket);
        self.turn_keys > 0 && gate.admits(is_wide) && may_begin
    }

    fn open_stream(
        &mut self,
        connection: &mut grpc::Connection,
        place: Place,
        method: Method,
        metadata: &CallMetadata<'_>,
        now: Duration,
    ) {
        let (_, stream) = place;
        if let Err(refusal) = self.service.check_call(method, metadata, &self.node) {
            return connection.finish(stream, &status(refusal));
        }
        match method {
            Method::Watch => {
                self.watches.open(place, &self.node, now);
                // etcd's clients wait for the headers before they send their first request.
                connection.begin(stream);
            }
            Method::LeaseKeepAlive => self.keep_alives.open(place),
            _ => connection.finish(stream, &status(Refusal::Unimplemented(method))),
        }
    }

    fn refresh_node(&mut self) {
        let status = self.status.get();
        self.node.term = status.term.into();
        self.node.leader = (status.leader != 0).then_some(status.leader.into());
        self.node.committed = status.committed.into();
        self.node.learner = status.learner;
    }

    fn report_fault(&mut self) {
        if let Some(fault) = self.service.poll_fault() {
            log_event!(Error, "the store is damaged", "error" => &fault as &dyn Display);
        }
    }
}

#[derive(Clone, Copy)]
struct Request {
    socket: SocketId,
    stream: StreamKey,
    method: Method,
    timeout: Option<Duration>,
}

fn call_metadata(metadata: &grpc::Metadata) -> CallMetadata<'_> {
    CallMetadata {
        leader_required: metadata.has_leader.as_deref() == Some(b"true"),
        client_api_version: metadata.client_api_version.as_deref(),
    }
}

fn recycle(connection: &mut grpc::Connection, message: Cow<'_, [u8]>) {
    if let Cow::Owned(_) = message {
        connection.recycle(message);
    }
}

fn client_at(clients: &mut [Option<Client>], socket: SocketId) -> Option<&mut Client> {
    clients.get_mut(socket.index())?.as_mut().filter(|client| client.socket == socket)
}

fn connection_at(
    clients: &mut [Option<Client>],
    socket: SocketId,
) -> Option<&mut grpc::Connection> {
    match &mut client_at(clients, socket)?.speech {
        Speech::Grpc(connection) => Some(connection),
        Speech::Http1(gateway) => gateway.grpc(),
        Speech::Unknown(_) | Speech::Ended => None,
    }
}

fn status(refusal: Refusal) -> grpc::Status {
    let (code, text) = status_of(refusal);
    grpc::Status::new(code, text)
}

fn method_table() -> MethodTable {
    let methods: Vec<grpc::Method> = Method::ALL
        .iter()
        .zip(0u16..)
        .map(|(method, number)| grpc::Method {
            path: method.path(),
            id: grpc::MethodId(number),
            kind: match (method.client_streams(), method.server_streams()) {
                (true, _) => grpc::MethodKind::ClientStreaming,
                (false, true) => grpc::MethodKind::ServerStreaming,
                (false, false) => grpc::MethodKind::Unary,
            },
        })
        .collect();
    MethodTable::new(&methods)
}

#[cfg(test)]
mod tests;
