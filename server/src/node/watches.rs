//! The watch streams of one front-end: the hub, and whose stream is whose.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use engine::{EventBatch, ReadHandle};

use super::shared::WatchInterest;
use crate::frontend::http2::StreamKey;
use crate::mail::FrontendId;
use crate::runtime::reactor::SocketId;
use crate::service::node_state::NodeState;
use crate::service::status::Refusal;
use crate::service::watch::{
    EventsWanted, StreamId, WatchConfig, WatchCounts, WatchHub, WatchOutput,
};

/// Changes that a turn's catch-up may look at.
const CATCH_UP_CHANGES_MAX: usize = 1000;

/// What the streams of a connection may have unsent together before none of them is fed that has
/// anything unsent: a client may open thousands, and each may wait with a megabyte. It is worth
/// sixteen streams that are full.
pub const CONNECTION_QUEUED_BYTES_MAX: usize = 16 << 20;

/// A stream of a connection.
pub type Place = (SocketId, StreamKey);

/// The hub with the streams it knows by number.
pub struct Watches {
    hub: WatchHub,
    streams: HashMap<StreamId, Place>,
    told: EventsWanted,
    interest: Arc<WatchInterest>,
    frontend: FrontendId,
}

impl Watches {
    /// No streams yet.
    #[must_use]
    pub fn new(
        config: WatchConfig,
        node: &NodeState,
        views: &mut ReadHandle,
        interest: Arc<WatchInterest>,
        frontend: FrontendId,
    ) -> Self {
        let hub = WatchHub::new(config, node, views.pin().revision);
        Self { hub, streams: HashMap::new(), told: EventsWanted::default(), interest, frontend }
    }

    /// A call of `Watch` begins.
    pub fn open(&mut self, place: Place, node: &NodeState, now: Duration) {
        self.hub.handle_node_state(node);
        let id = id_of(place);
        self.streams.insert(id, place);
        self.hub.handle_opened(id, now);
    }

    /// A message of such a call; the view is pinned here, after it arrived.
    ///
    /// # Errors
    /// What ends the stream.
    pub fn handle_message(
        &mut self,
        place: Place,
        message: &[u8],
        views: &mut ReadHandle,
    ) -> Result<(), Refusal> {
        let view = views.pin();
        self.hub.handle_message(id_of(place), message, &view)
    }

    /// Whether this is a watch stream.
    #[must_use]
    pub fn is_open(&self, place: Place) -> bool {
        self.streams.contains_key(&id_of(place))
    }

    /// The call is over.
    pub fn close(&mut self, place: Place) {
        if self.streams.remove(&id_of(place)).is_some() {
            self.hub.handle_closed(id_of(place));
        }
    }

    /// The connection is gone.
    pub fn close_all(&mut self, socket: SocketId) {
        let hub = &mut self.hub;
        self.streams.retain(|id, place| {
            let is_other = place.0 != socket;
            if !is_other {
                hub.handle_closed(*id);
            }
            is_other
        });
    }

    /// What the log core sent. `gap`: something before the events is missing.
    pub fn handle_events(&mut self, events: &[Arc<EventBatch>], gap: bool, views: &mut ReadHandle) {
        if gap {
            let revision = views.pin().revision;
            self.hub.handle_gap(revision);
        }
        for batch in events {
            self.hub.handle_events(batch);
        }
    }

    /// Time passed, or the term changed.
    pub fn handle_tick(&mut self, now: Duration, node: &NodeState) {
        self.hub.handle_node_state(node);
        self.hub.handle_tick(now);
    }

    /// What a stream has unsent, and what all streams of its connection have.
    pub fn handle_pending(&mut self, place: Place, pending_bytes: usize, queued_bytes: usize) {
        if self.is_open(place) {
            let is_full = pending_bytes > 0 && queued_bytes > CONNECTION_QUEUED_BYTES_MAX;
            let pending_bytes = if is_full { usize::MAX } else { pending_bytes };
            self.hub.handle_pending(id_of(place), pending_bytes);
        }
    }

    /// Tells the log core what is wanted, and takes watchers that are behind further along if the
    /// hub is drained.
    ///
    /// # Errors
    /// Damage in the tree; the watchers that met it were cancelled.
    pub fn step(&mut self, views: &mut ReadHandle) -> Result<(), engine::ReadError> {
        let wanted = self.hub.events_wanted();
        if wanted != self.told {
            self.told = wanted;
            self.interest.set(self.frontend, wanted.events, wanted.prevs);
            // From the view pinned after the flag was raised on, the log core sends everything.
            let revision = views.pin().revision;
            self.hub.handle_gap(revision);
        }
        if self.hub.needs_step() {
            let view = views.pin();
            self.hub.step(&view, CATCH_UP_CHANGES_MAX)?;
        }
        Ok(())
    }

    /// What there is to count.
    #[must_use]
    pub fn counts(&self) -> WatchCounts {
        self.hub.counts()
    }

    /// Whether watchers are behind, or responses wait for the next turn.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.hub.needs_step() || self.hub.has_output()
    }

    /// The next response and where it goes; `None` in place of a stream that has just closed.
    pub fn poll_output(&mut self) -> Option<(Option<Place>, WatchOutput<'_>)> {
        let output = self.hub.poll_output()?;
        Some((self.streams.get(&output.stream).copied(), output))
    }
}

/// Unique among the streams that are open: a place is given to another connection only after the
/// streams of the last one were closed.
fn id_of((socket, stream): Place) -> StreamId {
    StreamId((socket.index() as u64) << 32 | u64::from(stream.id))
}
