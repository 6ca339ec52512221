//! The sending end towards one member: what is queued, over which connections it goes, when they
//! are dialed.
//!
//! The owner has the sockets. It tells what happened to them (`handle_*`), offers letters
//! ([`Link::push`]), and asks what to do ([`Link::poll_action`]) and what to know
//! ([`Link::poll_event`], [`Link::poll_unreachable`]). Moments are durations since any fixed
//! moment.
//!
//! Each lane has a connection of its own, so that a heartbeat never stands behind an append,
//! neither here nor in a socket's buffer. Control and bulk are kept up always, the lane of raft
//! snapshots while [`Link::want_snapshot`] says so.
//!
//! Invariants:
//! - A lane's queue is bounded in bytes. What does not fit is dropped and said so
//!   ([`Link::poll_unreachable`]): raft sends it again when it knows that the member is behind,
//!   and a queue that grew instead would hold what nobody wants any more.
//! - What was queued for a connection that ends is dropped with it: half a frame may have left.
//! - Frames leave in the order in which they were offered, and one send of a connection is under
//!   way at a time.
//! - An event of a connection that is not the lane's present one changes nothing.
//! - The link is up while control and bulk both are; it tells each change once.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::{Buf, Bytes};
use engine::ids::{ClusterId, MemberId};

use super::frame::{FrameKind, FrameReader, HELLO_BODY_SIZE_BYTES_MAX, InFrame, OutFrame};
use super::hello::{Hello, Lane, PREFACE, Refusal, VERSIONS, Welcome};
use super::letter::{Letter, SnapshotAcknowledged};

/// What may wait on the control lane. Heartbeats and answers are small; a member that has not taken
/// so many of them for so long is better told of the newest.
const CONTROL_QUEUE_BYTES_MAX: usize = 4 << 20;
/// What may wait on the control lane before it is up: the votes and rounds of one election.
const CONTROL_QUEUE_BYTES_EARLY: usize = 64 << 10;
/// What may wait on the bulk lane: two appends of the largest entries.
const BULK_QUEUE_BYTES_MAX: usize = 64 << 20;
/// What may wait on the snapshot lane: the sender waits for acknowledgements long before.
pub const SNAPSHOT_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes of one send. More would only wait in the kernel instead of here.
const SEND_BYTES_MAX: usize = 1 << 20;
/// Pieces of one send; the kernel takes 1024.
const SEND_PIECES_MAX: usize = 256;

/// Who we are, whom we speak to, and how patient we are.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Our cluster.
    pub cluster: ClusterId,
    /// Us.
    pub from: MemberId,
    /// The member.
    pub to: MemberId,
    /// Of this start of ours.
    pub boot_nonce: u64,
    /// Our program's version.
    pub server_version: String,
    /// Where we are reached.
    pub own_urls: Vec<String>,
    /// How long dialing may take, and how long a greeting.
    pub dial_timeout: Duration,
    /// How long a send may make no progress.
    pub stall_timeout: Duration,
    /// What is waited after the first failure; then twice as long, and so on.
    pub backoff_min: Duration,
    /// The longest that is waited.
    pub backoff_max: Duration,
    /// For the jitter of that: members that were cut off together should not all come back at once.
    pub seed: u64,
}

/// A connection, by its lane and by its number on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// What it is for.
    pub lane: Lane,
    /// The lane's count of connections.
    pub number: u64,
}

/// Something for the owner to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect to this peer URL.
    Dial {
        /// What the connection is called from now on.
        connection: ConnectionId,
        /// One of the member's.
        url: String,
    },
    /// Send these pieces, in order, and say how far that came ([`Link::handle_sent`]).
    Send {
        /// Over which connection.
        connection: ConnectionId,
        /// None is empty.
        pieces: Vec<Bytes>,
    },
    /// Close a connection, or give up dialing it. Nothing needs to be said of it any more.
    Close(ConnectionId),
}

/// Why a connection ended or did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFailure {
    /// It could not be dialed.
    Dial,
    /// Its host says that nobody listens there.
    Absent,
    /// Dialing took too long.
    DialTimeout,
    /// The other side did not answer the greeting in time.
    GreetTimeout,
    /// It was refused.
    Refused(Refusal),
    /// Another member answered than was meant.
    Stranger(MemberId),
    /// The other side said something that is not the protocol's.
    Garbled(&'static str),
    /// It was closed from the other side, or broke.
    Lost,
    /// The other side takes nothing any more.
    Stalled,
}

impl fmt::Display for LinkFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial => formatter.write_str("cannot connect"),
            Self::Absent => formatter.write_str("nobody listens there"),
            Self::DialTimeout => formatter.write_str("connecting took too long"),
            Self::GreetTimeout => formatter.write_str("no answer to the greeting"),
            Self::Refused(refusal) => write!(formatter, "the member refused: {refusal}"),
            Self::Stranger(member) => write!(formatter, "member {:x} answered", member.0),
            Self::Garbled(reason) => write!(formatter, "the answer is not understood: {reason}"),
            Self::Lost => formatter.write_str("the connection was lost"),
            Self::Stalled => formatter.write_str("the member takes nothing any more"),
        }
    }
}

/// Something for the owner to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Control and bulk may be used.
    Up {
        /// Of the member's start.
        boot_nonce: u64,
        /// Its program's version.
        server_version: String,
    },
    /// They may not any more.
    Down,
    /// The snapshot lane may be used: a transfer begins or goes on.
    SnapshotUp,
    /// It may not any more.
    SnapshotDown,
    /// A connection ended or did not come about. The same failure of a lane is told once, until the
    /// lane has been up in between.
    Failed {
        /// Of which lane.
        lane: Lane,
        /// Why.
        failure: LinkFailure,
    },
    /// How far a raft snapshot has come at the other side.
    Acknowledged(SnapshotAcknowledged),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not wanted.
    Idle,
    /// Dialed again at this moment.
    Waiting(Duration),
    /// To be dialed at once.
    Due,
    /// Being dialed since.
    Dialing(Duration),
    /// Our hello was queued at this moment.
    Greeting(Duration),
    /// Usable.
    Up,
}

/// One lane's connection and queue.
#[derive(Debug)]
struct LaneState {
    lane: Lane,
    state: State,
    number: u64,
    /// Failures since it was last up.
    failures: u32,
    url_index: usize,
    /// The greeting before it is up, letters afterwards.
    queue: VecDeque<Bytes>,
    /// Letters that wait for the greeting.
    early: VecDeque<Bytes>,
    /// Bytes of `queue`, `early` and `in_flight`.
    queued_bytes: usize,
    in_flight: Vec<Bytes>,
    /// The last time that a send began or went on.
    moved_at: Duration,
    reader: FrameReader,
    failure: Option<LinkFailure>,
}

impl LaneState {
    fn new(lane: Lane) -> Self {
        Self {
            lane,
            state: if lane == Lane::Snapshot { State::Idle } else { State::Due },
            number: 0,
            failures: 0,
            url_index: 0,
            queue: VecDeque::new(),
            early: VecDeque::new(),
            queued_bytes: 0,
            in_flight: Vec::new(),
            moved_at: Duration::ZERO,
            reader: FrameReader::new(HELLO_BODY_SIZE_BYTES_MAX),
            failure: None,
        }
    }

    fn connection(&self) -> ConnectionId {
        ConnectionId { lane: self.lane, number: self.number }
    }

    fn has_connection(&self) -> bool {
        matches!(self.state, State::Dialing(_) | State::Greeting(_) | State::Up)
    }

    fn bytes_max(&self) -> usize {
        match (self.lane, self.state) {
            (Lane::Control, State::Up) => CONTROL_QUEUE_BYTES_MAX,
            (Lane::Control, State::Due | State::Dialing(_) | State::Greeting(_)) => {
                CONTROL_QUEUE_BYTES_EARLY
            }
            (Lane::Bulk, State::Up) => BULK_QUEUE_BYTES_MAX,
            (Lane::Snapshot, State::Up) => SNAPSHOT_QUEUE_BYTES_MAX,
            _ => 0,
        }
    }

    /// Whether the frame was taken.
    fn push(&mut self, frame: OutFrame) -> bool {
        let room = self.bytes_max();
        // An empty queue takes any frame: the largest entry has to pass.
        let fits = self.queued_bytes.saturating_add(frame.size_bytes()) <= room;
        if room == 0 || !fits && self.queued_bytes > 0 {
            return false;
        }
        self.queued_bytes += frame.size_bytes();
        let queue = if self.state == State::Up { &mut self.queue } else { &mut self.early };
        queue.extend(frame.into_pieces());
        true
    }

    /// Whether anything was dropped.
    fn clear(&mut self) -> bool {
        let had_any =
            !self.queue.is_empty() || !self.early.is_empty() || !self.in_flight.is_empty();
        self.queue.clear();
        self.early.clear();
        self.in_flight.clear();
        self.queued_bytes = 0;
        self.reader = FrameReader::new(HELLO_BODY_SIZE_BYTES_MAX);
        had_any
    }

    fn take_send(&mut self, now: Duration) -> Option<Vec<Bytes>> {
        let may_send = matches!(self.state, State::Greeting(_) | State::Up);
        if !may_send || !self.in_flight.is_empty() || self.queue.is_empty() {
            return None;
        }
        let mut size_bytes = 0;
        while let Some(piece) = self.queue.pop_front() {
            size_bytes += piece.len();
            self.in_flight.push(piece);
            if size_bytes >= SEND_BYTES_MAX || self.in_flight.len() >= SEND_PIECES_MAX {
                break;
            }
        }
        self.moved_at = now;
        Some(self.in_flight.clone())
    }

    fn handle_sent(&mut self, count: usize, now: Duration) {
        let total: usize = self.in_flight.iter().map(Bytes::len).sum();
        assert!(count <= total, "{count} bytes were sent of {total}");
        self.queued_bytes -= count;
        self.moved_at = now;
        let mut sent = count;
        // What did not leave goes first the next time.
        let mut unsent = Vec::new();
        for mut piece in self.in_flight.drain(..) {
            let skipped = sent.min(piece.len());
            sent -= skipped;
            piece.advance(skipped);
            if !piece.is_empty() {
                unsent.push(piece);
            }
        }
        for piece in unsent.into_iter().rev() {
            self.queue.push_front(piece);
        }
    }

    /// When something has to happen although nothing comes from outside.
    fn deadline(&self, config: &LinkConfig) -> Option<Duration> {
        match self.state {
            State::Idle | State::Due => None,
            State::Waiting(until) => Some(until),
            State::Dialing(since) | State::Greeting(since) => Some(since + config.dial_timeout),
            State::Up if self.in_flight.is_empty() => None,
            State::Up => Some(self.moved_at + config.stall_timeout),
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    urls: Vec<String>,
    lanes: [LaneState; 3],
    /// Of the jitter (splitmix64).
    random: u64,
    is_unreachable: bool,
    /// How often in succession the control lane found nobody listening; each time at another URL.
    absences: usize,
    dropped_letters: u64,
    up_since: Option<Duration>,
    /// What the last welcome said.
    boot_nonce: u64,
    server_version: String,
    closing: VecDeque<ConnectionId>,
    events: VecDeque<LinkEvent>,
}

impl Link {
    /// Towards a member with these peer URLs; it is dialed at once.
    #[must_use]
    pub fn new(config: LinkConfig, urls: Vec<String>) -> Self {
        assert!(config.backoff_min <= config.backoff_max);
        let random = config.seed;
        Self {
            config,
            urls,
            lanes: Lane::ALL.map(LaneState::new),
            random,
            is_unreachable: false,
            absences: 0,
            dropped_letters: 0,
            up_since: None,
            boot_nonce: 0,
            server_version: String::new(),
            closing: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The member has other peer URLs from now on. Connections to the old ones end.
    pub fn set_urls(&mut self, urls: Vec<String>) {
        if urls == self.urls {
            return;
        }
        self.urls = urls;
        self.absences = 0;
        for lane in Lane::ALL {
            self.lanes[lane.place()].url_index = 0;
            if self.lanes[lane.place()].state != State::Idle {
                self.end(lane);
                self.lanes[lane.place()].state = State::Due;
            }
        }
    }

    /// We are reached elsewhere from now on; greetings to come say so.
    pub fn set_own_urls(&mut self, urls: &[String]) {
        if urls != self.config.own_urls {
            self.config.own_urls = urls.to_vec();
        }
    }

    /// Whether the lane of raft snapshots is to be kept up.
    pub fn want_snapshot(&mut self, is_wanted: bool) {
        let is_idle = self.lanes[Lane::Snapshot.place()].state == State::Idle;
        if is_wanted && is_idle {
            self.lanes[Lane::Snapshot.place()].state = State::Due;
        } else if !is_wanted && !is_idle {
            self.end(Lane::Snapshot);
            self.lanes[Lane::Snapshot.place()].state = State::Idle;
        }
    }

    /// Ends all connections for good: the member was removed, or we stop.
    pub fn stop(&mut self) {
        for lane in Lane::ALL {
            self.end(lane);
            self.lanes[lane.place()].state = State::Idle;
        }
    }

    /// Offers a letter. `false` if it was dropped: it has not left and will not.
    pub fn push(&mut self, letter: &Letter) -> bool {
        self.push_frame(letter.lane(), letter.encode())
    }

    /// Offers a frame for a lane.
    pub fn push_frame(&mut self, lane: Lane, frame: OutFrame) -> bool {
        let is_taken = self.lanes[lane.place()].push(frame);
        if !is_taken {
            self.dropped_letters += 1;
            self.is_unreachable = true;
        }
        is_taken
    }

    /// A connection that was to be dialed stands.
    pub fn handle_connected(&mut self, connection: ConnectionId, now: Duration) {
        if !self.is_present(connection) {
            return;
        }
        self.absences = 0;
        let hello = Hello {
            versions: VERSIONS,
            lane: connection.lane,
            cluster: self.config.cluster,
            from: self.config.from,
            to: self.config.to,
            boot_nonce: self.config.boot_nonce,
            server_version: self.config.server_version.clone(),
            peer_urls: self.config.own_urls.clone(),
        };
        let lane = &mut self.lanes[connection.lane.place()];
        assert!(matches!(lane.state, State::Dialing(_)), "connected twice: {connection:?}");
        lane.state = State::Greeting(now);
        lane.queue.push_back(Bytes::from_static(&PREFACE));
        let hello = hello.encode();
        lane.queued_bytes += PREFACE.len() + hello.size_bytes();
        lane.queue.extend(hello.into_pieces());
    }

    /// A connection could not be dialed, was closed by the other side, or broke.
    pub fn handle_closed(&mut self, connection: ConnectionId, now: Duration) {
        if !self.is_present(connection) {
            return;
        }
        let is_dialing = matches!(self.lanes[connection.lane.place()].state, State::Dialing(_));
        let failure = if is_dialing { LinkFailure::Dial } else { LinkFailure::Lost };
        self.fail(connection.lane, failure, now, false);
    }

    /// A connection could not be dialed because nobody listens there.
    pub fn handle_absent(&mut self, connection: ConnectionId, now: Duration) {
        if self.is_present(connection) {
            self.fail(connection.lane, LinkFailure::Absent, now, false);
        }
    }

    /// The member has connected to us, so it runs.
    pub fn handle_present(&mut self) {
        self.absences = 0;
    }

    /// Of the send that is under way, so many bytes have left; possibly not all.
    pub fn handle_sent(&mut self, connection: ConnectionId, count: usize, now: Duration) {
        if self.is_present(connection) {
            self.lanes[connection.lane.place()].handle_sent(count, now);
        }
    }

    /// The other side has said something.
    pub fn handle_received(&mut self, connection: ConnectionId, bytes: &[u8], now: Duration) {
        let mut input = bytes;
        while self.is_present(connection) {
            let lane = &mut self.lanes[connection.lane.place()];
            let polled = lane.reader.poll_frame(&mut input);
            match polled {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if let Err(failure) = self.handle_frame(connection.lane, frame, now) {
                        return self.fail(connection.lane, failure, now, true);
                    }
                }
                Err(_) => {
                    let failure = LinkFailure::Garbled("a frame of the answer cannot be read");
                    return self.fail(connection.lane, failure, now, true);
                }
            }
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Duration) {
        for lane in Lane::ALL {
            let state = &mut self.lanes[lane.place()];
            if state.deadline(&self.config).is_none_or(|deadline| deadline > now) {
                continue;
            }
            match state.state {
                State::Waiting(_) => state.state = State::Due,
                State::Dialing(_) => self.fail(lane, LinkFailure::DialTimeout, now, true),
                State::Greeting(_) => self.fail(lane, LinkFailure::GreetTimeout, now, true),
                State::Up => self.fail(lane, LinkFailure::Stalled, now, true),
                State::Idle | State::Due => {}
            }
        }
    }

    /// What to do next. Control comes before all else.
    pub fn poll_action(&mut self, now: Duration) -> Option<Action> {
        if let Some(connection) = self.closing.pop_front() {
            return Some(Action::Close(connection));
        }
        for lane in &mut self.lanes {
            if lane.state == State::Due && !self.urls.is_empty() {
                lane.number += 1;
                lane.state = State::Dialing(now);
                let url = self.urls[lane.url_index % self.urls.len()].clone();
                return Some(Action::Dial { connection: lane.connection(), url });
            }
            if let Some(pieces) = lane.take_send(now) {
                return Some(Action::Send { connection: lane.connection(), pieces });
            }
        }
        None
    }

    /// What to know next.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Whether letters were dropped since this was last asked: raft is to be told that the member
    /// is unreachable.
    pub fn poll_unreachable(&mut self) -> bool {
        std::mem::take(&mut self.is_unreachable)
    }

    /// When [`Link::handle_time`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.lanes.iter().filter_map(|lane| lane.deadline(&self.config)).min()
    }

    /// Whether control and bulk may be used.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up_since.is_some()
    }

    /// Since when, without a break.
    #[must_use]
    pub fn up_since(&self) -> Option<Duration> {
        self.up_since
    }

    /// Bytes that wait or are under way on a lane.
    #[must_use]
    pub fn queued_bytes(&self, lane: Lane) -> usize {
        self.lanes[lane.place()].queued_bytes
    }

    /// Whether nobody listens where the member is reached: each of its URLs was tried and its host
    /// has refused, and there is no connection. A member that runs and is slow, or that nobody
    /// reaches, is not absent.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        let is_over = |lane: &LaneState| matches!(lane.state, State::Greeting(_) | State::Up);
        !self.urls.is_empty() && self.absences >= self.urls.len() && !self.lanes.iter().any(is_over)
    }

    /// Letters that were dropped since the start, for the metrics.
    #[must_use]
    pub fn dropped_letters(&self) -> u64 {
        self.dropped_letters
    }

    /// How often in succession its lanes have failed since each was last up.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.lanes.iter().fold(0, |sum: u32, lane| sum.saturating_add(lane.failures))
    }

    /// The member's peer URLs.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    fn is_present(&self, connection: ConnectionId) -> bool {
        let lane = &self.lanes[connection.lane.place()];
        lane.number == connection.number && lane.has_connection()
    }

    fn handle_frame(
        &mut self,
        lane: Lane,
        frame: InFrame<'_>,
        now: Duration,
    ) -> Result<(), LinkFailure> {
        let is_up = self.lanes[lane.place()].state == State::Up;
        match frame.kind {
            FrameKind::Welcome if !is_up => {
                let welcome = Welcome::decode(frame.body.bytes())
                    .map_err(|error| LinkFailure::Garbled(error.reason))?;
                self.handle_welcome(lane, welcome, now)
            }
            FrameKind::Refusal if !is_up => {
                let refusal = Refusal::decode(frame.body.bytes())
                    .map_err(|error| LinkFailure::Garbled(error.reason))?;
                Err(LinkFailure::Refused(refusal))
            }
            FrameKind::SnapshotAcknowledged if is_up && lane == Lane::Snapshot => {
                match Letter::decode(frame) {
                    Ok(Letter::SnapshotAcknowledged(acknowledged)) => {
                        self.events.push_back(LinkEvent::Acknowledged(acknowledged));
                        Ok(())
                    }
                    Ok(_) => Err(LinkFailure::Garbled("another letter than its frame says")),
                    Err(error) => Err(LinkFailure::Garbled(error.reason)),
                }
            }
            _ => Err(LinkFailure::Garbled("a frame that does not belong there")),
        }
    }

    fn handle_welcome(
        &mut self,
        lane: Lane,
        welcome: Welcome,
        now: Duration,
    ) -> Result<(), LinkFailure> {
        if welcome.member != self.config.to {
            return Err(LinkFailure::Stranger(welcome.member));
        }
        if !(VERSIONS.min..=VERSIONS.max).contains(&welcome.version) {
            return Err(LinkFailure::Garbled("it answers in a version that was not offered"));
        }
        let state = &mut self.lanes[lane.place()];
        state.state = State::Up;
        state.failures = 0;
        state.failure = None;
        let early = std::mem::take(&mut state.early);
        state.queue.extend(early);
        (self.boot_nonce, self.server_version) = (welcome.boot_nonce, welcome.server_version);
        if lane == Lane::Snapshot {
            self.events.push_back(LinkEvent::SnapshotUp);
            return Ok(());
        }
        let is_up = |lane: Lane| self.lanes[lane.place()].state == State::Up;
        if is_up(Lane::Control) && is_up(Lane::Bulk) {
            self.up_since = Some(now);
            self.events.push_back(LinkEvent::Up {
                boot_nonce: self.boot_nonce,
                server_version: self.server_version.clone(),
            });
        }
        Ok(())
    }

    /// The connection of a lane has failed: it is dialed again, the next URL, after a while.
    fn fail(&mut self, lane: Lane, failure: LinkFailure, now: Duration, must_close: bool) {
        let connection = self.lanes[lane.place()].connection();
        self.end(lane);
        if !must_close {
            self.closing.retain(|closing| *closing != connection);
        }
        if lane == Lane::Control {
            let is_absent = failure == LinkFailure::Absent;
            self.absences = if is_absent { self.absences.saturating_add(1) } else { 0 };
        }
        let jitter = self.next_random();
        let state = &mut self.lanes[lane.place()];
        let doubled = self.config.backoff_min.saturating_mul(1 << state.failures.min(16));
        let longest = doubled.min(self.config.backoff_max);
        // Between half of it and all of it.
        let part = u32::from(jitter.to_le_bytes()[0]) + 257;
        state.state = State::Waiting(now + longest.saturating_mul(part) / 512);
        state.failures = state.failures.saturating_add(1);
        state.url_index = state.url_index.wrapping_add(1);
        if state.failure != Some(failure) {
            state.failure = Some(failure);
            self.events.push_back(LinkEvent::Failed { lane, failure });
        }
    }

    /// Ends the lane's connection, if there is one, and what waited for it.
    fn end(&mut self, lane: Lane) {
        let state = &mut self.lanes[lane.place()];
        let (was_up, had_connection) = (state.state == State::Up, state.has_connection());
        let connection = state.connection();
        // What of it has arrived is not known.
        self.is_unreachable |= state.clear();
        if had_connection {
            self.closing.push_back(connection);
        }
        if !was_up {
            return;
        }
        if lane == Lane::Snapshot {
            self.events.push_back(LinkEvent::SnapshotDown);
        } else if self.up_since.take().is_some() {
            self.events.push_back(LinkEvent::Down);
        }
        // Appends that were under way are lost with the connection, queued here or not.
        self.is_unreachable |= lane == Lane::Bulk;
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests;
