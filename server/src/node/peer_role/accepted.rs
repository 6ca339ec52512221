//! Connections that others made to the peer addresses: members, and whoever asks over HTTP.
//!
//! Invariants:
//! - What the other side does not read is bounded: a member whose acknowledgements pile up is sent
//!   away, and a request over HTTP waits until the answers before it have left.
//! - One send of a connection is under way at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use engine::KeyValueHashScan;

use super::pages::Pages;
use crate::frontend::http1::{Connection, Event, INPUT_BYTES_HIGH};
use crate::metrics::peers::PeerMetrics;
use crate::peer::hello::{Opening, sniff};
use crate::peer::letter::HashTold;
use crate::peer::receive::{Oneself, Receiver};

/// What may wait to be sent. Acknowledgements are small, and a snapshot has few under way.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Answers over HTTP that may wait before the next request is looked at.
const ANSWERS_BYTES_HIGH: usize = 64 << 10;
/// Pieces of one send.
const SEND_PIECES_MAX: usize = 64;
/// The longest body that is read: a question takes some twenty bytes.
const BODY_BYTES_MAX: usize = 4 << 10;

/// A connection that was accepted.
pub struct Accepted {
    /// Who is there, as far as it has shown.
    pub speaker: Speaker,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    is_sending: bool,
    is_ending: bool,
    /// The body that comes, while one is wanted.
    body: Option<Vec<u8>>,
    /// A hash that is wanted and that nobody has begun.
    hash_wanted: Option<KeyValueHashScan>,
    /// A hash is being made.
    awaits_hash: bool,
    /// What is counted of the member that has greeted.
    pub metrics: Option<Arc<PeerMetrics>>,
}

/// Who is at the other end.
pub enum Speaker {
    /// Nothing has come.
    Unknown,
    /// It speaks our protocol.
    Member(Box<Receiver>),
    /// It speaks HTTP, or nonsense.
    Http(Box<Connection>),
}

/// What to do with the socket.
pub enum Next {
    /// Nothing, for now.
    Wait,
    /// Send these.
    Send(Vec<Bytes>),
    /// Close it.
    Close,
}

impl Accepted {
    /// Nothing has come yet.
    pub fn new() -> Self {
        let queue = VecDeque::new();
        let (queued_bytes, is_sending, is_ending) = (0, false, false);
        Self {
            speaker: Speaker::Unknown,
            queue,
            queued_bytes,
            is_sending,
            is_ending,
            body: None,
            hash_wanted: None,
            awaits_hash: false,
            metrics: None,
        }
    }

    /// Tells by the first bytes who is there.
    pub fn recognize(&mut self, bytes: &[u8], oneself: &Oneself, wall_clock: Duration) {
        if !matches!(self.speaker, Speaker::Unknown) {
            return;
        }
        self.speaker = match sniff(bytes) {
            None => return,
            Some(Opening::Peer) => Speaker::Member(Box::new(Receiver::new(oneself.clone()))),
            Some(Opening::Http) => {
                let mut http = Connection::default();
                http.handle_wall_clock(wall_clock);
                Speaker::Http(Box::new(http))
            }
        };
    }

    /// Answers what was asked over HTTP; whether anything was.
    pub fn answer(&mut self, pages: &mut Pages, now: Duration) -> bool {
        let Speaker::Http(http) = &mut self.speaker else { return false };
        let mut has_asked = false;
        while self.queued_bytes < ANSWERS_BYTES_HIGH
            && let Some(event) = http.poll_event(now)
        {
            match event {
                Event::Request(request) => {
                    has_asked = true;
                    self.body = pages.answer(http, &request).then(Vec::new);
                    if self.body.is_some() {
                        http.want_body();
                    }
                }
                Event::Body(piece) => {
                    if let Some(body) = &mut self.body {
                        body.extend_from_slice(&piece);
                        if body.len() > BODY_BYTES_MAX {
                            self.body = None;
                            pages.refuse_body(http);
                        }
                    }
                }
                Event::BodyBroken(_) => {
                    if self.body.take().is_some() {
                        pages.refuse_body(http);
                    }
                }
                Event::BodyEnd => {
                    if let Some(body) = self.body.take() {
                        self.hash_wanted = pages.hash_wanted(http, &body);
                        self.awaits_hash = self.hash_wanted.is_some();
                    }
                }
            }
            let output = std::mem::take(http.output());
            self.queued_bytes += output.len();
            if !output.is_empty() {
                self.queue.push_back(output.into());
            }
        }
        // A refusal comes without an event.
        let output = std::mem::take(http.output());
        self.queued_bytes += output.len();
        if !output.is_empty() {
            self.queue.push_back(output.into());
        }
        // Who closes its half before the hash is there has most likely gone.
        let is_deserted = self.awaits_hash && http.is_deserted();
        self.is_ending |= http.is_over() || is_deserted || http.input_bytes() > INPUT_BYTES_HIGH;
        has_asked
    }

    /// The hash that is wanted, once.
    pub fn take_hash_wanted(&mut self) -> Option<KeyValueHashScan> {
        self.hash_wanted.take()
    }

    /// The hash is there.
    pub fn tell_hash(&mut self, pages: &Pages, told: HashTold) {
        if let Speaker::Http(http) = &mut self.speaker {
            self.awaits_hash = false;
            pages.tell_hash(http, told);
        }
    }

    /// Nothing more comes.
    pub fn handle_half_closed(&mut self) {
        match &mut self.speaker {
            Speaker::Http(http) => http.handle_half_closed(),
            Speaker::Unknown | Speaker::Member(_) => self.is_ending = true,
        }
    }

    /// It ends when what waits was sent.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Whether it listens no more.
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// So many bytes have left.
    pub fn handle_sent(&mut self, count: usize) {
        assert!(self.is_sending, "a send ended that was never begun");
        self.is_sending = false;
        self.queued_bytes -= count;
        let mut left = count;
        while let Some(first) = self.queue.front_mut() {
            let skipped = left.min(first.len());
            first.advance(skipped);
            left -= skipped;
            if !first.is_empty() {
                break;
            }
            self.queue.pop_front();
        }
        assert!(left == 0, "{left} bytes more were sent than there were");
    }

    /// What to do next.
    pub fn poll(&mut self) -> Next {
        if let Speaker::Member(receiver) = &mut self.speaker {
            while let Some(piece) = receiver.poll_output() {
                self.queued_bytes += piece.len();
                self.queue.push_back(piece);
            }
        }
        if self.is_sending {
            let is_full = self.queued_bytes > QUEUE_BYTES_MAX;
            return if is_full { Next::Close } else { Next::Wait };
        }
        if !self.queue.is_empty() {
            self.is_sending = true;
            return Next::Send(self.queue.iter().take(SEND_PIECES_MAX).cloned().collect());
        }
        if self.is_ending { Next::Close } else { Next::Wait }
    }
}
