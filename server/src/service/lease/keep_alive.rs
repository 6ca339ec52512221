//! Keep-alive streams: requests to the keeper of the clocks, answers back in their order.
//!
//! A front-end core owns one [`KeepAlives`] for all such streams. A renewal whose lease has run out
//! waits until the lease is revoked, and those behind it in its stream wait with it; all of them
//! are asked at once, so that a stream is never slower than its leases.
//!
//! Invariants:
//! - A stream's answers leave in the order of its requests.
//! - A header's revision was read before the renewal was asked for: who sees a keep-alive succeed
//!   at a revision knows that the lease lived then.
//! - A stream's place is given to another one only when nobody owes it an answer any more.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use engine::ids::{LeaseId, Revision};

use crate::mail::{LeaseAsk, Renewed, Slot};
use crate::service::status::Refusal;
use crate::service::wire::{self, Header};

/// Requests of one stream that may wait: far more than a client has leases that could run out while
/// it waits, and a few megabytes.
pub const PENDING_MAX: usize = 64 * 1024;

struct Pending {
    id: LeaseId,
    revision: Revision,
    ttl_seconds: Option<i64>,
}

struct Stream<P> {
    /// Where answers go; `None` when the client is gone.
    place: Option<P>,
    pending: VecDeque<Pending>,
    /// The number of the first of them.
    sequence_first: u64,
    /// Answers that the log core owes.
    owed: usize,
    is_half_closed: bool,
}

/// All keep-alive streams of a front-end core; `P` is how it names a stream.
pub struct KeepAlives<P> {
    streams: Vec<Option<Stream<P>>>,
    free: Vec<u32>,
    slots: HashMap<P, Slot>,
}

/// What is to be done about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, or nothing more.
    Waits,
    /// All is answered and the client has nothing more to ask: the call ends well.
    Ends,
    /// The call ends with a status.
    Refused(Refusal),
}

impl<P> Default for KeepAlives<P> {
    fn default() -> Self {
        Self { streams: Vec::new(), free: Vec::new(), slots: HashMap::new() }
    }
}

impl<P: Copy + Eq + Hash> KeepAlives<P> {
    /// A call begins.
    pub fn open(&mut self, place: P) {
        let stream = Stream {
            place: Some(place),
            pending: VecDeque::new(),
            sequence_first: 0,
            owed: 0,
            is_half_closed: false,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            u32::try_from(self.streams.len() - 1).expect("fewer than 2^32 streams")
        });
        self.streams[index as usize] = Some(stream);
        self.slots.insert(place, Slot(index));
    }

    /// Whether this is a keep-alive stream.
    pub fn is_open(&self, place: P) -> bool {
        self.slots.contains_key(&place)
    }

    /// A request: what the log core is to be asked. `revision` is that of a view pinned now.
    ///
    /// # Errors
    /// What ends the call.
    pub fn handle_message(
        &mut self,
        place: P,
        message: &[u8],
        revision: Revision,
    ) -> Result<Option<(Slot, LeaseAsk)>, Refusal> {
        let Some(&slot) = self.slots.get(&place) else { return Ok(None) };
        let id = LeaseId(super::decode(message)?.first);
        let stream = self.streams[slot.0 as usize].as_mut().expect("it is open");
        if stream.pending.len() >= PENDING_MAX {
            return Err(Refusal::TooManyRequests);
        }
        let sequence = stream.sequence_first + stream.pending.len() as u64;
        stream.pending.push_back(Pending { id, revision, ttl_seconds: None });
        stream.owed += 1;
        Ok(Some((slot, LeaseAsk::Renew { id, sequence })))
    }

    /// The client has nothing more to ask.
    pub fn handle_half_closed(&mut self, place: P) -> Outcome {
        let Some(&slot) = self.slots.get(&place) else { return Outcome::Waits };
        let stream = self.streams[slot.0 as usize].as_mut().expect("it is open");
        stream.is_half_closed = true;
        if stream.pending.is_empty() { Outcome::Ends } else { Outcome::Waits }
    }

    /// An answer of the log core: calls `send` with each message that can leave now. What was
    /// answered is told with the stream's place, unless the client is gone.
    pub fn handle_reply(
        &mut self,
        slot: Slot,
        (sequence, renewed): (u64, Renewed),
        header: Header,
        mut send: impl FnMut(P, &dyn Fn(&mut Vec<u8>)),
    ) -> Option<(P, Outcome)> {
        let index = slot.0 as usize;
        let stream =
            self.streams[index].as_mut().expect("its place is kept while answers are owed");
        stream.owed -= 1;
        let Some(place) = stream.place else {
            if stream.owed == 0 {
                self.streams[index] = None;
                self.free.push(slot.0);
            }
            return None;
        };
        match renewed {
            Renewed::Lives { ttl_seconds } => {
                let at = usize::try_from(sequence - stream.sequence_first);
                let at = at.expect("fewer are pending than there are addresses");
                stream.pending[at].ttl_seconds = Some(ttl_seconds);
            }
            Renewed::NotPrimary => return Some((place, Outcome::Refused(Refusal::NotPrimary))),
            Renewed::Stopped => return Some((place, Outcome::Refused(Refusal::Stopped))),
        }
        while let Some(Pending { id, revision, ttl_seconds: Some(ttl_seconds) }) =
            stream.pending.pop_front_if(|first| first.ttl_seconds.is_some())
        {
            stream.sequence_first += 1;
            let header = Header { revision: revision.0, ..header };
            send(place, &move |out| {
                wire::put_header(out, &header);
                wire::put_int64(out, 2, id.0);
                wire::put_int64(out, 3, ttl_seconds);
            });
        }
        let is_over = stream.is_half_closed && stream.pending.is_empty();
        Some((place, if is_over { Outcome::Ends } else { Outcome::Waits }))
    }

    /// The call is over.
    pub fn close(&mut self, place: P) {
        let Some(slot) = self.slots.remove(&place) else { return };
        self.forget(slot);
    }

    /// All calls that `is_gone` says are over.
    pub fn close_all(&mut self, is_gone: impl Fn(&P) -> bool) {
        let gone: Vec<Slot> =
            self.slots.extract_if(|place, _| is_gone(place)).map(|(_, slot)| slot).collect();
        for slot in gone {
            self.forget(slot);
        }
    }

    /// Streams that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn forget(&mut self, slot: Slot) {
        let index = slot.0 as usize;
        let stream = self.streams[index].as_mut().expect("it was open");
        stream.place = None;
        stream.pending = VecDeque::new();
        if stream.owed == 0 {
            self.streams[index] = None;
            self.free.push(slot.0);
        }
    }
}
