//! Who watches at a member: the server's own hub of watches, driven as a front-end core drives it,
//! and clients that hold what they are told to the history.
//!
//! A front-end core hears of events later than the log core, and pins its views when it likes; so
//! a hub has turns of its own here. Its clients come again when their member does, some of them
//! read slowly, and now and then one begins anew where it was.
//!
//! Invariant: a client is told every change that it wants, once, in order, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use engine::events::EventBatch;
use engine::{ReadHandle, View};
use prost::Message;
use server::service::node_state::NodeState;
use server::service::proto::etcdserverpb as pb;
use server::service::proto::mvccpb;
use server::service::watch::{EventsWanted, StreamId, WatchConfig, WatchHub};

use super::random::Random;
use super::values;
use super::witness::{Witness, Wrong};
use crate::oracle::history::Change;

/// Small, so that clients that read slowly are met.
const CONFIG: WatchConfig = WatchConfig {
    progress_interval: Duration::from_secs(2),
    fragment_size_bytes: 600,
    stream_pending_bytes_max: 2000,
    stream_pending_bytes_resume: 500,
};
/// Of how many turns one has a client begin anew.
const ANEW_ONCE_IN: u64 = 50;

/// A batch of events, or the word that something is missing before those that come.
#[derive(Debug)]
enum Delivery {
    Gap,
    Events(Arc<EventBatch>),
}

/// A client with one watch on one stream.
#[derive(Debug)]
struct Client {
    stream: StreamId,
    /// The keys it wants.
    from: &'static [u8],
    to: &'static [u8],
    prev_kv: bool,
    fragment: bool,
    /// It leaves what it is sent in its socket for a while.
    is_slow: bool,
    pending_bytes: usize,
    /// The first revision of which it was not told all, and where it begins in the history.
    resume: i64,
    resume_at: usize,
    /// The first change that it may yet be told, by its place in the history.
    next: usize,
}

/// The hub of one member and its clients.
#[derive(Debug)]
pub struct WatchDesk {
    hub: Option<Hub>,
    clients: Vec<Client>,
    inbox: Vec<Delivery>,
    streams_opened: u64,
    random: Random,
    /// A turn is planned.
    pub is_due: bool,
}

/// A hub, and what was asked of the log core for it.
struct Hub {
    hub: WatchHub,
    wanted: EventsWanted,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hub").field("counts", &self.hub.counts()).finish_non_exhaustive()
    }
}

impl WatchDesk {
    /// A member's, before its first start.
    #[must_use]
    pub fn new(random: Random) -> Self {
        let client = |from, to, prev_kv, fragment, is_slow| Client {
            stream: StreamId(0),
            from,
            to,
            prev_kv,
            fragment,
            is_slow,
            pending_bytes: 0,
            resume: 2,
            resume_at: 0,
            next: 0,
        };
        let clients = vec![
            client(b"a", b"z", false, false, false),
            client(b"k", b"l", true, true, true),
            client(b"k3", b"k4", false, false, true),
        ];
        let (hub, inbox) = (None, Vec::new());
        Self { hub, clients, inbox, streams_opened: 0, random, is_due: false }
    }

    /// The member runs: its clients come again.
    pub fn begin(&mut self, view: &View, now: Duration) -> Result<(), Wrong> {
        let hub = WatchHub::new(CONFIG, &NodeState::default(), view.revision);
        self.hub = Some(Hub { hub, wanted: EventsWanted::default() });
        self.inbox.clear();
        self.is_due = false;
        (0..self.clients.len()).try_for_each(|client| self.open(client, view, now))
    }

    fn open(&mut self, number: usize, view: &View, now: Duration) -> Result<(), Wrong> {
        let Some(Hub { hub, .. }) = &mut self.hub else { return Ok(()) };
        self.streams_opened += 1;
        let client = &mut self.clients[number];
        (client.stream, client.pending_bytes) = (StreamId(self.streams_opened), 0);
        // A revision that came in part comes again as a whole.
        client.next = client.resume_at;
        hub.handle_opened(client.stream, now);
        let create = pb::WatchCreateRequest {
            key: client.from.to_vec().into(),
            range_end: client.to.to_vec().into(),
            start_revision: client.resume,
            progress_notify: true,
            prev_kv: client.prev_kv,
            fragment: client.fragment,
            ..pb::WatchCreateRequest::default()
        };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        let request = pb::WatchRequest { request_union: Some(union) }.encode_to_vec();
        hub.handle_message(client.stream, &request, view)
            .map_err(|refusal| format!("a watch is refused: {refusal:?}"))
    }

    /// The member does not run.
    pub fn end(&mut self) {
        self.hub = None;
        self.inbox.clear();
    }

    /// What the log core sent; whether there is anything.
    pub fn handle_reply(&mut self, events: &[Arc<EventBatch>], gap: bool) -> bool {
        if gap {
            self.inbox.push(Delivery::Gap);
        }
        self.inbox.extend(events.iter().map(|batch| Delivery::Events(Arc::clone(batch))));
        !self.inbox.is_empty()
    }

    /// Time passed for the member.
    pub fn handle_tick(&mut self, now: Duration) {
        if let Some(Hub { hub, .. }) = &mut self.hub {
            hub.handle_tick(now);
        }
    }

    /// What the log core has to send, if that has changed.
    pub fn poll_wanted(&mut self, view: &View) -> Option<EventsWanted> {
        let Hub { hub, wanted } = self.hub.as_mut()?;
        let now = hub.events_wanted();
        if *wanted == now {
            return None;
        }
        *wanted = now;
        hub.handle_gap(view.revision);
        Some(now)
    }

    /// A turn. Answers with whether there is more to do.
    ///
    /// # Errors
    /// A client was told something else than what happened.
    pub fn turn(
        &mut self,
        views: &mut ReadHandle,
        witness: &Witness,
        now: Duration,
    ) -> Result<bool, Wrong> {
        self.is_due = false;
        let Some(Hub { hub, .. }) = &mut self.hub else { return Ok(false) };
        for delivery in self.inbox.drain(..) {
            match delivery {
                Delivery::Gap => hub.handle_gap(views.pin().revision),
                Delivery::Events(batch) => hub.handle_events(&batch),
            }
        }
        if self.random.once_in(ANEW_ONCE_IN) {
            let number = self.random.place(self.clients.len());
            hub.handle_closed(self.clients[number].stream);
            self.open(number, &views.pin(), now)?;
        }
        self.drain(witness, views, now)?;
        let Some(Hub { hub, .. }) = &mut self.hub else { return Ok(false) };
        if hub.needs_step() {
            let changes = 1 + self.random.place(40);
            let stepped = hub.step(&views.pin(), changes);
            stepped.map_err(|error| format!("a watch cannot read: {error}"))?;
        }
        for client in &mut self.clients {
            if client.pending_bytes > 0 && self.random.once_in(3) {
                client.pending_bytes = 0;
                hub.handle_pending(client.stream, 0);
            }
        }
        let is_pending = self.clients.iter().any(|client| client.pending_bytes > 0);
        Ok(is_pending || hub.needs_step() || hub.has_output())
    }

    /// Takes some of what the hub has to send.
    fn drain(
        &mut self,
        witness: &Witness,
        views: &mut ReadHandle,
        now: Duration,
    ) -> Result<(), Wrong> {
        for _ in 0..self.random.between(1, 12) {
            let Some(Hub { hub, .. }) = &mut self.hub else { return Ok(()) };
            let Some(output) = hub.poll_output() else { return Ok(()) };
            let (stream, mut bytes) = (output.stream, Vec::new());
            output.append_to(&mut bytes);
            let found = self.clients.iter().position(|client| client.stream == stream);
            let number = found.ok_or("a stream is told something that is closed")?;
            let client = &mut self.clients[number];
            if client.is_slow {
                client.pending_bytes += bytes.len();
                hub.handle_pending(stream, client.pending_bytes);
            }
            let response = pb::WatchResponse::decode(&bytes[..])
                .map_err(|error| format!("a response cannot be read: {error}"))?;
            if client.take(&response, witness)? {
                hub.handle_closed(stream);
                self.open(number, &views.pin(), now)?;
            }
        }
        Ok(())
    }

    /// What somebody was not told of, if anybody was not.
    #[must_use]
    pub fn late(&self, witness: &Witness) -> Option<String> {
        let late = self.clients.iter().find_map(|client| {
            let missing = client.wanted(witness, witness.chronicle().changes().len());
            missing.map(|change| (client, change))
        });
        late.map(|(client, change)| format!("{client:?} was not told of {change:?}"))
    }
}

impl Client {
    fn wants(&self, change: &Change) -> bool {
        self.from <= &change.key[..] && &change.key[..] < self.to
    }

    /// The next change before this place that it was not told of.
    fn wanted<'w>(&self, witness: &'w Witness, end: usize) -> Option<&'w Change> {
        let rest = witness.chronicle().changes().get(self.next..end).unwrap_or_default();
        rest.iter().find(|change| self.wants(change))
    }

    fn resume_from(&mut self, revision: i64, place: usize) {
        (self.resume, self.resume_at, self.next) = (revision, place, place);
    }

    /// It was told all up to a revision; is that so?
    fn pass(&mut self, revision: i64, witness: &Witness) -> Result<(), Wrong> {
        if revision < self.resume {
            return Ok(());
        }
        let end = witness.chronicle().place_of(revision + 1);
        if let Some(change) = self.wanted(witness, end) {
            return Err(format!("a watch is told of revision {revision}, and {change:?} is lost"));
        }
        self.resume_from(revision + 1, end);
        Ok(())
    }

    /// Takes a response. Answers with whether the watch has ended and is to begin anew.
    fn take(&mut self, response: &pb::WatchResponse, witness: &Witness) -> Result<bool, Wrong> {
        if response.canceled && response.compact_revision > 0 {
            let compacted = response.compact_revision;
            if self.resume > compacted {
                return Err(format!("a watch from {} ends with {response:?}", self.resume));
            }
            self.resume_from(compacted + 1, witness.chronicle().place_of(compacted + 1));
            return Ok(true);
        }
        if response.canceled {
            return Err(format!("a watch ends: {response:?}"));
        }
        for event in &response.events {
            self.take_event(event, witness)?;
        }
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        match response.events.last().and_then(|event| event.kv.as_ref()) {
            Some(_) if response.fragment => {}
            Some(last) => self.pass(last.mod_revision, witness)?,
            None if response.created => {}
            None => self.pass(header, witness)?,
        }
        Ok(false)
    }

    fn take_event(&mut self, event: &mvccpb::Event, witness: &Witness) -> Result<(), Wrong> {
        let Some(kv) = &event.kv else { return Err("an event without a key".to_owned()) };
        let is_put = event.r#type() == mvccpb::event::EventType::Put;
        let rest = witness.chronicle().changes().get(self.next..).unwrap_or_default();
        let Some(skipped) = rest.iter().position(|change| self.wants(change)) else {
            return Err(format!("a watch is told what did not happen: {event:?}"));
        };
        let expected = &rest[skipped];
        let is_same = kv.mod_revision == expected.revision
            && kv.key == expected.key
            && kv.lease == expected.lease
            && is_put.then(|| values::brief(&kv.value)) == expected.value;
        if !is_same {
            return Err(format!("a watch is told {event:?} where {expected:?} comes next"));
        }
        self.next += skipped + 1;
        Ok(())
    }
}
