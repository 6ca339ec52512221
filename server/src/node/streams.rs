//! Answers of many messages under way on one front-end: whose turn it is, and who holds a view.
//!
//! A stream is stepped while its client takes what it is sent, one message a turn; what its windows
//! or its socket do not take parks it until that has left. So what a slow client costs is one
//! message and what the connection below holds anyway.
//!
//! A stream that needs one view in all its steps holds it for as long as it runs, and the store
//! keeps for that time whatever is overwritten. This is bounded in two ways: [`HELD_MAX`] of them
//! hold a view at a time, the others wait without one; and a client has to take a minimum
//! ([`TAKEN_BYTES_MIN`] in [`STALLED_MAX`]), or its stream is given up.
//!
//! Such streams take [`HELD_STEPS`] every [`HELD_INTERVAL`] and not more: one that took all it
//! could get would keep its core and its client's busy, and whoever writes would wait for a
//! processor. While nobody writes they take them as often as every [`HELD_INTERVAL_ALONE`].
//!
//! Invariants:
//! - An entry is in exactly one of: ready, waiting for a view, parked.
//! - Streams that hold a view are at most [`HELD_MAX`].

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use engine::view::HeldView;

use super::watches::Place;
use crate::mail::Slot;
use crate::runtime::reactor::SocketId;
use crate::service::stream::ServerStream;

/// Streams of one core that hold a view at the same time. Backups are rare, and each costs the
/// store what is overwritten meanwhile; two leave a second client its turn beside a slow one.
pub const HELD_MAX: usize = 2;
/// Streams that hold a view take so many steps in a turn, a fraction of a millisecond, and then
/// rest until an interval has passed since, in messages of 32 KiB. One message a turn took twice
/// the time of its processors.
pub const HELD_STEPS: u32 = 4;
/// The interval while somebody writes: 131 MB/s. Measured on two cores, a backup of 940 MB at
/// 470 MB/s had the 99th percentile of puts at five times its quiet self, and at 205 MB/s at 1.3 to
/// 2.4 times.
pub const HELD_INTERVAL: Duration = Duration::from_millis(1);
/// The interval while nobody does: 410 MB/s, which is as fast as most disks take it.
pub const HELD_INTERVAL_ALONE: Duration = Duration::from_micros(320);
/// For how long a write counts.
const WRITTEN_FOR: Duration = Duration::from_millis(100);
/// A stream whose client takes less than [`TAKEN_BYTES_MIN`] in this time is given up.
pub const STALLED_MAX: Duration = Duration::from_secs(60);
/// See [`STALLED_MAX`]: 17 kB/s, far below any network on which a backup would ever end.
pub const TAKEN_BYTES_MIN: usize = 1 << 20;

/// A stream under way.
pub struct Streaming {
    /// The call's slot.
    pub slot: Slot,
    /// What makes the messages.
    pub stream: Box<ServerStream>,
    /// The view of all its steps, if they need the same.
    pub view: Option<HeldView>,
    place: Place,
    state: State,
    /// When it was asked for.
    begun_at: Duration,
    /// When the client had last taken enough, and what it has taken since.
    taken_at: Duration,
    taken_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waiting,
    Parked,
}

impl Streaming {
    /// Where its messages go.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }
}

/// All streams of a front-end.
#[derive(Default)]
pub struct Streams {
    entries: HashMap<Place, Streaming>,
    /// In turn. What has left meanwhile is passed over.
    ready: VecDeque<Place>,
    /// The same for those that hold a view.
    ready_held: VecDeque<Place>,
    /// When these take further steps, and how many they may take before.
    held_due: Duration,
    held_steps: u32,
    /// The last committed entry that was seen, and when it was new.
    committed: (u64, Duration),
    /// Those that need a view while enough are held.
    waiting: VecDeque<Place>,
    held_count: usize,
    /// No view could be held for the first that waits: it is tried again when time has passed.
    is_out_of_views: bool,
}

impl Streams {
    /// A stream begins.
    pub fn push(&mut self, place: Place, slot: Slot, stream: Box<ServerStream>, now: Duration) {
        let state = if stream.needs_same_view() { State::Waiting } else { State::Ready };
        let (begun_at, taken_at, taken_bytes) = (now, now, 0);
        let view = None;
        let streaming =
            Streaming { slot, stream, view, place, state, begun_at, taken_at, taken_bytes };
        let queue = if state == State::Waiting { &mut self.waiting } else { &mut self.ready };
        queue.push_back(place);
        let before = self.entries.insert(place, streaming);
        assert!(before.is_none(), "a stream begins once");
    }

    /// The stream whose turn it is, taken out for a step. `committed` is the log's last committed
    /// entry, by which it shows whether anybody writes; `hold` gives a view to who needs one.
    pub fn begin_step(
        &mut self,
        now: Duration,
        committed: u64,
        hold: impl Fn() -> Option<HeldView>,
    ) -> Option<Streaming> {
        self.admit(hold);
        if committed != self.committed.0 {
            self.committed = (committed, now);
        }
        if now >= self.held_due {
            let is_written = now < self.committed.1 + WRITTEN_FOR;
            let interval = if is_written { HELD_INTERVAL } else { HELD_INTERVAL_ALONE };
            (self.held_due, self.held_steps) = (now + interval, HELD_STEPS);
        }
        if self.held_steps > 0
            && let Some(streaming) = take_first(&mut self.ready_held, &mut self.entries)
        {
            self.held_steps -= 1;
            return Some(streaming);
        }
        take_first(&mut self.ready, &mut self.entries)
    }

    /// Puts a stream back that has made `sent_bytes` of messages. It is parked if what it made has
    /// not all left.
    pub fn end_step(&mut self, mut streaming: Streaming, sent: Sent, now: Duration) {
        streaming.taken_bytes += sent.size_bytes;
        // Who makes no message yet keeps nobody waiting but itself.
        if sent.size_bytes == 0 || streaming.taken_bytes >= TAKEN_BYTES_MIN {
            (streaming.taken_at, streaming.taken_bytes) = (now, 0);
        }
        let place = streaming.place;
        streaming.state = if sent.is_waiting { State::Parked } else { State::Ready };
        if streaming.state == State::Ready {
            self.ready_of(streaming.view.is_some()).push_back(place);
        }
        self.entries.insert(place, streaming);
    }

    fn ready_of(&mut self, holds_view: bool) -> &mut VecDeque<Place> {
        if holds_view { &mut self.ready_held } else { &mut self.ready }
    }

    /// A stream that was taken out for a step is over.
    pub fn finish(&mut self, streaming: Streaming) -> Ended {
        let Streaming { slot, view, begun_at, .. } = streaming;
        if view.is_some() {
            self.held_count -= 1;
        }
        Ended { slot, held_since: view.map(|_| begun_at) }
    }

    /// What a stream has made has left.
    pub fn handle_room(&mut self, place: Place) {
        if let Some(entry) = self.entries.get_mut(&place)
            && entry.state == State::Parked
        {
            entry.state = State::Ready;
            let holds_view = entry.view.is_some();
            self.ready_of(holds_view).push_back(place);
        }
    }

    /// A call is over; what is left of its stream, if it was one.
    pub fn close(&mut self, place: Place) -> Option<Ended> {
        let streaming = self.entries.remove(&place)?;
        Some(self.finish(streaming))
    }

    /// A connection is gone; what is left of its streams.
    pub fn close_all(&mut self, socket: SocketId) -> Vec<Ended> {
        let gone: Vec<Place> =
            self.entries.keys().filter(|place| place.0 == socket).copied().collect();
        gone.into_iter().filter_map(|place| self.close(place)).collect()
    }

    /// Time passed: the streams whose clients take too little.
    pub fn handle_tick(&mut self, now: Duration) -> Vec<Place> {
        self.is_out_of_views = false;
        let is_stalled = |entry: &&Streaming| {
            entry.state == State::Parked
                && entry.view.is_some()
                && now.saturating_sub(entry.taken_at) > STALLED_MAX
        };
        self.entries.values().filter(is_stalled).map(Streaming::place).collect()
    }

    /// When a stream is to be stepped, if any is.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        if !self.ready.is_empty() || self.may_admit() {
            return Some(Duration::ZERO);
        }
        let due = if self.held_steps > 0 { Duration::ZERO } else { self.held_due };
        (!self.ready_held.is_empty()).then_some(due)
    }

    /// How many hold a view.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.held_count
    }

    fn may_admit(&self) -> bool {
        !self.waiting.is_empty() && self.held_count < HELD_MAX && !self.is_out_of_views
    }

    fn admit(&mut self, hold: impl Fn() -> Option<HeldView>) {
        while self.may_admit() {
            let Some(view) = hold() else {
                self.is_out_of_views = true;
                return;
            };
            let place = self.waiting.pop_front().expect("somebody waits");
            let Some(entry) = self.entries.get_mut(&place) else { continue };
            // The place may be another stream's by now, which stands further behind.
            if entry.state == State::Waiting {
                entry.view = Some(view);
                entry.state = State::Ready;
                self.held_count += 1;
                self.ready_held.push_back(place);
            }
        }
    }
}

fn take_first(
    ready: &mut VecDeque<Place>,
    entries: &mut HashMap<Place, Streaming>,
) -> Option<Streaming> {
    while let Some(place) = ready.pop_front() {
        if entries.get(&place).is_some_and(|entry| entry.state == State::Ready) {
            return entries.remove(&place);
        }
    }
    None
}

/// What is left of a stream that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The call's slot.
    pub slot: Slot,
    /// When it was asked for, if it came to hold a view.
    pub held_since: Option<Duration>,
}

/// What a step has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The size of the message; zero for none.
    pub size_bytes: usize,
    /// Not all of it has left.
    pub is_waiting: bool,
}
