//! Streams: their states, and the table that finds them (RFC 9113, 5.1).
//!
//! A server that never pushes sees this much of the RFC's diagram:
//!
//! ```text
//!              HEADERS from the client
//!    idle ──────────────────────────────► open ────────────┐
//!     │                                    │               │ we end first:
//!     │ HEADERS with END_STREAM            │ END_STREAM    │ trailers, then
//!     │                                    │ from the      │ RST_STREAM(NO_ERROR)
//!     │                                    ▼ client        │
//!     └───────────────────────► half-closed (remote)       │
//!                                          │ our trailers  │
//!                                          ▼               ▼
//!               RST_STREAM from any ──► closed ◄───────────┘
//! ```
//!
//! *half-closed (local)* does not occur: when the answer is complete before the request is, the
//! rest of the request is not wanted, and the stream is reset (8.1). *idle* and *closed* streams
//! have no entry; what they are follows from the highest number seen and from a short memory of
//! how the last few streams closed.
//!
//! Invariants:
//! - Numbers only grow, so the index is ordered by itself and a number is never used twice; a
//!   [`StreamKey`] kept after its stream has closed therefore finds nothing, never a stranger.
//! - A look-up is logarithmic in the open streams whatever numbers a client picks: no hash to
//!   collide.

use std::collections::VecDeque;

use super::flow::{ReceiveWindow, SendWindow};
use super::hpack::encoder::Field;
use super::limits::{PENDING_KEPT_BYTES, STREAM_WINDOW_BYTES, STREAMS_CLOSED_REMEMBERED};

/// Names a stream to the connection: the number on the wire and where its entry lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamKey {
    /// The number on the wire.
    pub id: u32,
    slot: u32,
}

impl StreamKey {
    /// A small number, unique among the open streams: an owner can keep its own state of a stream
    /// in a vector under it.
    #[inline]
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// The states of a stream that has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both sides may send.
    Open,
    /// The client has sent all.
    HalfClosedRemote,
}

/// How a stream came to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Both sides said END_STREAM.
    Ended,
    /// The client reset it.
    ResetByPeer,
    /// We reset it; frames that crossed our RST_STREAM on the way are not an error.
    ResetByUs,
}

/// Trailers that wait for the body before them to leave.
#[derive(Debug)]
pub(super) enum OwnedField {
    Static(u8),
    Pinned(u8),
    Literal(Box<[u8]>, Box<[u8]>),
}

impl OwnedField {
    pub(super) fn of(field: &Field<'_>) -> Self {
        match *field {
            Field::Static(index) => Self::Static(index),
            Field::Pinned(which) => Self::Pinned(which),
            Field::Literal(name, value) => Self::Literal(name.into(), value.into()),
        }
    }

    pub(super) fn as_field(&self) -> Field<'_> {
        match self {
            Self::Static(index) => Field::Static(*index),
            Self::Pinned(which) => Field::Pinned(*which),
            Self::Literal(name, value) => Field::Literal(name, value),
        }
    }
}

/// One open stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// 0 while the slot is free.
    id: u32,
    pub(super) state: State,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Bytes received that are given back when the client has taken what waits for it.
    pub(super) withheld: u32,
    /// How much body content-length still promises.
    pub(super) body_left: Option<u64>,
    pub(super) headers_sent: bool,
    /// Body that flow control or fairness holds back; the first `pending_sent` bytes are gone.
    pub(super) pending: Vec<u8>,
    pub(super) pending_sent: usize,
    pub(super) trailers: Option<Vec<OwnedField>>,
    /// Whether the stream stands in the connection's queue.
    pub(super) queued: bool,
    /// Whether the owner wants to know when `pending` has left.
    pub(super) room_wanted: bool,
}

impl Stream {
    pub(super) fn pending_len(&self) -> usize {
        self.pending.len() - self.pending_sent
    }

    /// Drops what has left, once that is most of the buffer, so that a stream which is never quite
    /// idle does not grow without end.
    pub(super) fn compact(&mut self) {
        if self.pending_sent > self.pending.len() / 2 {
            self.pending.drain(..self.pending_sent);
            self.pending_sent = 0;
        }
    }

    fn open(&mut self, id: u32, state: State, send_window: u32, body_left: Option<u64>) {
        assert!(self.id == 0, "slot is in use by stream {}", self.id);
        let pending = std::mem::take(&mut self.pending);
        assert!(pending.is_empty(), "a closed stream has nothing to send");
        *self = Self { id, state, body_left, pending, ..Self::free(send_window) };
    }

    fn free(send_window: u32) -> Self {
        Self {
            id: 0,
            state: State::Open,
            send: SendWindow::new(send_window),
            receive: ReceiveWindow::new(STREAM_WINDOW_BYTES),
            withheld: 0,
            body_left: None,
            headers_sent: false,
            pending: Vec::new(),
            pending_sent: 0,
            trailers: None,
            queued: false,
            room_wanted: false,
        }
    }
}

const NO_SLOT: u32 = u32::MAX;

/// All streams of a connection.
#[derive(Debug)]
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    /// (number, slot) in order of number; closed ones keep their place until they reach an end.
    index: VecDeque<(u32, u32)>,
    index_dead: usize,
    last_id: u32,
    closed: [(u32, Closed); STREAMS_CLOSED_REMEMBERED],
    closed_next: usize,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: VecDeque::new(),
            index_dead: 0,
            last_id: 0,
            closed: [(0, Closed::Ended); STREAMS_CLOSED_REMEMBERED],
            closed_next: 0,
        }
    }

    /// The highest number that the client has used.
    pub(super) fn last_id(&self) -> u32 {
        self.last_id
    }

    pub(super) fn open_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Notes a number that is used up without becoming a stream of ours.
    pub(super) fn skip(&mut self, id: u32, how: Closed) {
        assert!(id > self.last_id, "stream {id} after {}", self.last_id);
        self.last_id = id;
        self.remember(id, how);
    }

    pub(super) fn open(
        &mut self,
        id: u32,
        state: State,
        send_window: u32,
        body_left: Option<u64>,
    ) -> StreamKey {
        assert!(id > self.last_id, "stream {id} after {}", self.last_id);
        self.last_id = id;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Stream::free(send_window));
            u32::try_from(self.slots.len() - 1).expect("bounded by STREAMS_OPEN_MAX")
        });
        self.slots[slot as usize].open(id, state, send_window, body_left);
        self.index.push_back((id, slot));
        StreamKey { id, slot }
    }

    /// The open stream of that number.
    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        let (_, slot) = self.index[self.place(id)?];
        (slot != NO_SLOT).then_some(StreamKey { id, slot })
    }

    fn place(&self, id: u32) -> Option<usize> {
        // Usually the newest stream: its DATA follows its HEADERS.
        match self.index.back() {
            Some((newest, _)) if *newest == id => Some(self.index.len() - 1),
            _ => self.index.binary_search_by_key(&id, |(number, _)| *number).ok(),
        }
    }

    #[inline]
    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.slot()).filter(|stream| stream.id == key.id)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot()).filter(|stream| stream.id == key.id)
    }

    pub(super) fn close(&mut self, key: StreamKey, how: Closed) {
        let stream = self.get_mut(key).expect("only open streams are closed");
        stream.id = 0;
        stream.pending.clear();
        if stream.pending.capacity() > PENDING_KEPT_BYTES {
            stream.pending = Vec::new();
        }
        stream.pending_sent = 0;
        stream.trailers = None;
        self.free.push(key.slot);
        let place = self.place(key.id).expect("an open stream is in the index");
        self.index[place].1 = NO_SLOT;
        self.index_dead += 1;
        self.trim_index();
        self.remember(key.id, how);
    }

    fn trim_index(&mut self) {
        while self.index.front().is_some_and(|(_, slot)| *slot == NO_SLOT) {
            self.index.pop_front();
            self.index_dead -= 1;
        }
        while self.index.back().is_some_and(|(_, slot)| *slot == NO_SLOT) {
            self.index.pop_back();
            self.index_dead -= 1;
        }
        // One long-lived stream (a watch) at the front must not keep millions of dead entries
        // behind it. Half dead and half alive makes the sweep free on average.
        if self.index_dead > 32 && self.index_dead > self.index.len() / 2 {
            self.index.retain(|(_, slot)| *slot != NO_SLOT);
            self.index_dead = 0;
        }
    }

    fn remember(&mut self, id: u32, how: Closed) {
        self.closed[self.closed_next] = (id, how);
        self.closed_next = (self.closed_next + 1) % STREAMS_CLOSED_REMEMBERED;
    }

    /// How a stream closed, if that was not long ago.
    pub(super) fn how_closed(&self, id: u32) -> Option<Closed> {
        self.closed.iter().find(|(number, _)| *number == id).map(|(_, how)| *how)
    }

    /// All open streams.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamKey, &mut Stream)> {
        self.slots.iter_mut().enumerate().filter(|(_, stream)| stream.id != 0).map(
            |(slot, stream)| {
                let slot = u32::try_from(slot).expect("bounded by STREAMS_OPEN_MAX");
                (StreamKey { id: stream.id, slot }, stream)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_agrees_with_a_map() {
        let mut streams = Streams::new();
        let mut model: BTreeMap<u32, StreamKey> = BTreeMap::new();
        let mut state = 7u64;
        let mut next_id = 1;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let roll = u32::try_from(state >> 33).unwrap();
            if roll % 100 < 50 && model.len() < 200 {
                let key = streams.open(next_id, State::Open, 65_535, None);
                model.insert(next_id, key);
                next_id += 2 + 2 * (roll % 5);
            } else if let Some((&id, &key)) = model.range(roll % next_id..).next() {
                model.remove(&id);
                streams.close(key, Closed::Ended);
                assert_eq!(streams.how_closed(id), Some(Closed::Ended));
                assert!(streams.get(key).is_none(), "a stale key finds nothing");
            }
            assert_eq!(streams.open_count(), model.len());
            assert_eq!(streams.find(roll % next_id), model.get(&(roll % next_id)).copied());
            assert!(streams.index.len() <= 2 * model.len() + 66);
        }
        assert!(model.iter().all(|(id, key)| streams.find(*id) == Some(*key)));
        assert!(streams.slots.len() <= 200);
    }
}
