//! Watches: who wants which events, and what each stream is to be sent. Sans-IO.
//!
//! A front-end core owns one [`WatchHub`] for all its watch streams and drives it so:
//!
//! - A `Watch` call arrives: [`WatchHub::handle_opened`]; each message of it:
//!   [`WatchHub::handle_message`], with a view pinned after the message arrived; the call is
//!   cancelled or its connection lost: [`WatchHub::handle_closed`]. A half-close means nothing.
//! - The log core's ring has a batch of events: [`WatchHub::handle_events`]. A mark that batches
//!   were lost, or that they will come from now on: [`WatchHub::handle_gap`].
//! - After each of these, and after `step` and `handle_tick`: [`WatchHub::poll_output`] until
//!   `None`, or until the turn has done enough of it: the rest waits for the next one while
//!   [`WatchHub::has_output`]. Send each output at once and report what the stream has pending with
//!   [`WatchHub::handle_pending`]; report again when it drains.
//! - While [`WatchHub::needs_step`], give it [`WatchHub::step`] between other work, drained first.
//!   With both to do, a pass of live events and a step take turns.
//! - When [`WatchHub::events_wanted`] changes, tell the log core. Its answer, the revision after
//!   which batches will come, goes to [`WatchHub::handle_gap`]: nobody sent what was before.
//!
//! A watcher is *live* (events go to it from the ring), *catching up* (from the tree, in a cohort
//! with others) or *parked* (its stream has too much pending). It goes from any to any and keeps
//! no queue on its way, only the revision it needs next.
//!
//! Invariants:
//! - A watcher is told every event it wants from `from` on, once, in order: what was queued for it
//!   and could not be sent is forgotten, and `from` goes back to it.
//! - `position`: all events up to it have been offered to the live watchers. A live watcher's
//!   `from` may lie ahead; then the ring's events before `from` are not for it.
//! - A progress response says a revision only when everything up to it was sent before, whatever
//!   any view says.
//! - Events are offered only while no output waits; so what is parked at a revision has nothing
//!   older in the queue.
//! - Batches that wait are bounded: a core that does not keep up drops them, and its watchers read
//!   the tree, which joins many revisions in a response.

mod catch_up;
mod cohort;
mod index;
mod outbox;
mod progress;
mod requests;
mod slots;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::events::{EventBatch, EventKind, EventRef};
use engine::ids::Revision;
use engine::limits::EVENTS_SIZE_BYTES_MAX;
use engine::view::View;

use super::node_state::NodeState;
use super::status::WatchRefusal;
use super::wire::Header;
use cohort::{CohortId, Cohorts, Membership};
use index::{Span, WatchIndex};
use outbox::{Chain, Outbox, Output, Variant};
use slots::{Key, Slots};

pub use outbox::WatchOutput;

/// The watch id that belongs to no watcher.
const WATCH_ID_NONE: i64 = -1;

/// Encoded events and their links between two drains. A pass ends at the next revision behind it,
/// so that a large batch and many watchers do not add up. Tests meet it with small batches.
const PASS_SIZE_BYTES_MAX: usize = if cfg!(test) { 500 } else { 1 << 20 };

/// Batches that may wait to be offered. A core with so many is behind by as many log writes, and
/// responses of one write each would not bring it back. Tests meet it soon.
const BATCHES_MAX: usize = if cfg!(test) { 3 } else { 256 };
/// The memory that they may keep alive: two of the largest.
const BATCHES_SIZE_BYTES_MAX: usize = 2 * EVENTS_SIZE_BYTES_MAX;

/// A watch stream, as its owner knows it: unique on the core among the streams that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What flags and limits say about watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// `--watch-progress-notify-interval`; up to a tenth is added for each stream.
    pub progress_interval: Duration,
    /// Where a response is cut for a watcher that can put fragments together:
    /// `--max-request-bytes` and 512 KiB.
    pub fragment_size_bytes: usize,
    /// A stream with more than this unsent is fed no more,
    pub stream_pending_bytes_max: usize,
    /// until it has come down to this.
    pub stream_pending_bytes_resume: usize,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            progress_interval: Duration::from_secs(600),
            fragment_size_bytes: (3 << 19) + (512 << 10),
            // Two of the largest responses in a row, and some; a client that reads is never
            // parked, one that does not holds a megabyte.
            stream_pending_bytes_max: 1 << 20,
            stream_pending_bytes_resume: 256 << 10,
        }
    }
}

/// What the watchers of a core need from the log core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventsWanted {
    /// Events at all.
    pub events: bool,
    /// The records before them too.
    pub prevs: bool,
}

/// How much a hub has to do, for whoever watches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Streams that are open.
    pub streams: usize,
    /// Watchers on them.
    pub watchers: usize,
    /// Watchers that are not live.
    pub watchers_behind: usize,
    /// Events that were not offered yet.
    pub events_pending: usize,
    /// Events put into responses so far.
    pub events_sent: u64,
}

/// How a watcher gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Live,
    /// `None` waits for a place in a cohort.
    CatchUp(Option<CohortId>),
    Parked,
}

struct Watcher {
    stream: Key,
    watch_id: i64,
    span: Span,
    prev_kv: bool,
    put_wanted: bool,
    delete_wanted: bool,
    progress_notify: bool,
    fragment: bool,
    /// What the client asked to begin with; 0 for what is to come.
    start: Revision,
    /// Wants nothing before this, or was told it.
    from: Revision,
    lane: Lane,
    /// Goes up when the watcher is parked: what was queued for it before is void.
    epoch: u32,
    membership: Membership,
    /// No event since the last tick.
    quiet: bool,
    /// This pass: its events so far, and where they stop because one was incomplete.
    chain: Option<Chain>,
    cut: Option<Revision>,
}

impl Watcher {
    fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => self.put_wanted,
            EventKind::Delete => self.delete_wanted,
        }
    }
}

struct Stream {
    id: StreamId,
    watchers: HashMap<i64, Key>,
    /// Watches that a compaction has ended and the client has not cancelled. As in etcd they keep
    /// their ids, and the stream tells no progress of its own while there are any.
    compacted: HashSet<i64>,
    watch_id_next: i64,
    blocked: bool,
    parked: Vec<Key>,
    /// Watchers that are not live.
    behind: usize,
    /// The client asked how far it is when the store was here,
    progress_target: Option<Revision>,
    /// and has so many answers to get.
    progress_count: u32,
    /// Watchers that were to begin in the future when they were made, by where.
    starts: BTreeSet<(Revision, Key)>,
}

impl Stream {
    /// Whether a watch has the id, or had it until a compaction ended it.
    fn has_watch(&self, watch_id: i64) -> bool {
        self.watchers.contains_key(&watch_id) || self.compacted.contains(&watch_id)
    }
}

/// All watches of one front-end core.
pub struct WatchHub {
    config: WatchConfig,
    header: Header,
    position: Revision,
    /// The newest revision any view has shown.
    seen: Revision,
    batches: VecDeque<Arc<EventBatch>>,
    batches_size_bytes: usize,
    /// The next event of the first batch.
    batch_next: usize,
    /// A pass was made while watchers were behind: they get a step before the next one.
    step_due: bool,
    streams: Slots<Stream>,
    streams_by_id: HashMap<StreamId, Key>,
    watchers: Slots<Watcher>,
    watchers_with_prev: usize,
    index: WatchIndex,
    cohorts: Cohorts,
    outbox: Outbox,
    /// Watchers with a chain or a cut in this pass.
    touched: Vec<Key>,
    events_sent: u64,
    matched: Vec<Key>,
    /// The members of a small cohort, during a step.
    asked: Vec<Key>,
    progress_asked: Vec<Key>,
    progress_due: BinaryHeap<Reverse<(Duration, Key)>>,
}

impl WatchHub {
    /// A hub without streams, on a store at that revision.
    #[must_use]
    pub fn new(config: WatchConfig, node: &NodeState, revision: Revision) -> Self {
        assert!(config.stream_pending_bytes_resume <= config.stream_pending_bytes_max);
        Self {
            config,
            header: node.header(),
            position: revision,
            seen: revision,
            batches: VecDeque::new(),
            batches_size_bytes: 0,
            batch_next: 0,
            step_due: false,
            streams: Slots::new(),
            streams_by_id: HashMap::new(),
            watchers: Slots::new(),
            watchers_with_prev: 0,
            index: WatchIndex::new(),
            cohorts: Cohorts::new(),
            outbox: Outbox::new(),
            touched: Vec::new(),
            events_sent: 0,
            matched: Vec::new(),
            asked: Vec::new(),
            progress_asked: Vec::new(),
            progress_due: BinaryHeap::new(),
        }
    }

    /// The member's term has changed: headers tell it from now on.
    pub fn handle_node_state(&mut self, node: &NodeState) {
        self.header = node.header();
    }

    /// A stream was opened.
    pub fn handle_opened(&mut self, stream: StreamId, now: Duration) {
        let key = self.streams.insert(Stream {
            id: stream,
            watchers: HashMap::new(),
            compacted: HashSet::new(),
            watch_id_next: 0,
            blocked: false,
            parked: Vec::new(),
            behind: 0,
            progress_target: None,
            progress_count: 0,
            starts: BTreeSet::new(),
        });
        let before = self.streams_by_id.insert(stream, key);
        assert!(before.is_none(), "stream {stream:?} was opened twice");
        self.progress_due.push(Reverse((now + self.progress_interval(stream), key)));
    }

    /// A batch of events came through the ring.
    pub fn handle_events(&mut self, batch: &Arc<EventBatch>) {
        self.batches.push_back(Arc::clone(batch));
        self.batches_size_bytes += batch.size_bytes();
        let size_bytes = self.batches_size_bytes;
        if self.batches.len() > BATCHES_MAX || size_bytes > BATCHES_SIZE_BYTES_MAX {
            // What was offered of the first one stays: `position` says how far that is.
            self.batches.clear();
            (self.batches_size_bytes, self.batch_next) = (0, 0);
            self.handle_gap(batch.last());
        }
    }

    fn pop_batch(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.batches_size_bytes -= batch.size_bytes();
        }
        self.batch_next = 0;
    }

    /// Batches up to a revision will not come, or were never sent: live watchers that want
    /// something of it read it from the tree.
    pub fn handle_gap(&mut self, last: Revision) {
        let position = self.position;
        if last <= position {
            return;
        }
        self.position = last;
        let behind: Vec<Key> = self.watchers.keys().collect();
        for key in behind {
            let watcher = self.watchers.get_mut(key).expect("the key was listed just now");
            let from = watcher.from.max(position.next());
            if watcher.lane == Lane::Live && from <= last {
                watcher.from = from;
                self.fall_behind(key);
            }
        }
    }

    /// How many bytes a stream has unsent.
    pub fn handle_pending(&mut self, stream: StreamId, pending_bytes: usize) {
        let Some(key) = self.streams_by_id.get(&stream) else { return };
        let stream = self.streams.get_mut(*key).expect("a stream's id leads to it");
        if pending_bytes > self.config.stream_pending_bytes_max {
            stream.blocked = true;
        } else if stream.blocked && pending_bytes <= self.config.stream_pending_bytes_resume {
            stream.blocked = false;
            for watcher in std::mem::take(&mut stream.parked) {
                if self.watchers.get(watcher).is_some_and(|w| w.lane == Lane::Parked) {
                    self.enroll(watcher);
                }
            }
            self.settle_progress();
        }
    }

    /// A stream is gone.
    pub fn handle_closed(&mut self, stream: StreamId) {
        let Some(key) = self.streams_by_id.remove(&stream) else { return };
        let watchers: Vec<Key> = self.stream(key).watchers.values().copied().collect();
        for watcher in watchers {
            self.remove_watcher(watcher);
        }
        self.streams.remove(key);
    }

    /// The next response to be sent.
    pub fn poll_output(&mut self) -> Option<WatchOutput<'_>> {
        let (output, key) = loop {
            if self.outbox.is_empty() {
                self.advance();
                self.settle_progress();
            }
            let output = self.outbox.pop()?;
            if let Some(stream) = self.admit(&output) {
                break (output, stream);
            }
        };
        let stream = self.streams.get(key).expect("an admitted output has a stream").id;
        if let Output::Events(events) = &output {
            let watcher = self.watchers.get_mut(events.watcher);
            let watcher = watcher.expect("an admitted output has a watcher");
            watcher.quiet = false;
            self.events_sent += u64::from(events.count);
            let watch_id = watcher.watch_id;
            return Some(self.outbox.events_response(events, stream, watch_id, self.header));
        }
        let message = outbox::control_message(&output, self.header);
        Some(self.outbox.control_response(stream, &message))
    }

    /// Whether [`WatchHub::poll_output`] may have something now.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty() || (!self.batches.is_empty() && !self.step_due)
    }

    /// What has to be asked of the log core.
    #[must_use]
    pub fn events_wanted(&self) -> EventsWanted {
        EventsWanted { events: self.watchers.len() > 0, prevs: self.watchers_with_prev > 0 }
    }

    /// How many watchers there are.
    #[must_use]
    pub fn watcher_count(&self) -> usize {
        self.watchers.len()
    }

    /// What there is to count; looks at every stream.
    #[must_use]
    pub fn counts(&self) -> WatchCounts {
        let streams = self.streams_by_id.values().filter_map(|key| self.streams.get(*key));
        let events: usize = self.batches.iter().map(|batch| batch.len()).sum();
        WatchCounts {
            streams: self.streams_by_id.len(),
            watchers: self.watchers.len(),
            watchers_behind: streams.map(|stream| stream.behind).sum(),
            events_pending: events.saturating_sub(self.batch_next),
            events_sent: self.events_sent,
        }
    }

    fn stream(&mut self, key: Key) -> &mut Stream {
        self.streams.get_mut(key).expect("a watcher's stream outlives it")
    }

    fn note_view(&mut self, view: &View) {
        self.seen = self.seen.max(view.revision);
    }

    /// All before it has happened, as far as this core knows.
    fn horizon(&self) -> Revision {
        self.seen.max(self.position)
    }

    fn remove_watcher(&mut self, key: Key) {
        let watcher = self.watchers.remove(key).expect("a watcher is removed once");
        self.index.remove(&watcher.span, key);
        self.watchers_with_prev -= usize::from(watcher.prev_kv);
        let stream = self.stream(watcher.stream);
        stream.watchers.remove(&watcher.watch_id);
        stream.starts.remove(&(watcher.start, key));
        stream.behind -= usize::from(watcher.lane != Lane::Live);
    }

    /// A live watcher needs something that the ring will not bring.
    fn fall_behind(&mut self, key: Key) {
        let watcher = self.watchers.get(key).expect("a watcher that falls behind exists");
        assert!(watcher.lane == Lane::Live);
        let stream = watcher.stream;
        self.stream(stream).behind += 1;
        self.enroll(key);
    }

    /// Gives a watcher that is behind the lane it belongs to.
    fn enroll(&mut self, key: Key) {
        let horizon = self.horizon();
        let watcher = self.watchers.get_mut(key).expect("a watcher that is enrolled exists");
        let stream = self.streams.get_mut(watcher.stream).expect("a stream outlives its watchers");
        if stream.blocked {
            watcher.lane = Lane::Parked;
            stream.parked.push(key);
        } else if watcher.from > horizon {
            watcher.lane = Lane::Live;
            stream.behind -= 1;
        } else {
            let cohort = self.cohorts.join(key, &mut watcher.membership, watcher.from);
            watcher.lane = Lane::CatchUp(cohort);
        }
    }

    /// Works off batches until something is to be sent.
    fn advance(&mut self) {
        while self.outbox.is_empty() && !self.step_due {
            let Some(batch) = self.batches.front().cloned() else { return };
            if self.batch_next == 0 && (batch.is_gap() || batch.previous() != self.position) {
                self.pop_batch();
                self.handle_gap(batch.last());
            } else {
                self.pass(&batch);
                self.step_due = self.needs_step();
            }
            self.settle_progress();
        }
    }

    /// Offers events of the first batch to the live watchers: all, or whole revisions until the
    /// pass is full.
    fn pass(&mut self, batch: &EventBatch) {
        self.outbox.begin_pass(None);
        let mut revision = None;
        while self.batch_next < batch.len() {
            let event = batch.event(self.batch_next);
            let next = Some(event.change.main);
            if revision.is_some()
                && revision != next
                && self.outbox.size_bytes() > PASS_SIZE_BYTES_MAX
            {
                break;
            }
            revision = next;
            self.offer(&event);
            self.batch_next += 1;
        }
        if self.batch_next == batch.len() {
            self.position = self.position.max(batch.last());
            self.pop_batch();
        } else {
            let told = revision.expect("a pass that ends early has offered an event");
            self.position = self.position.max(told);
        }
        self.flush();
    }

    /// Adds an event to the chains of the live watchers that want it.
    fn offer(&mut self, event: &EventRef<'_>) {
        let matched = &mut self.matched;
        matched.clear();
        self.index.for_each(event.record.key, |watcher| matched.push(watcher));
        self.offer_matched(event, Lane::Live);
    }

    /// Adds an event to the chains of those of the matched watchers that are in a lane and want it.
    fn offer_matched(&mut self, event: &EventRef<'_>, lane: Lane) {
        let mut matched = std::mem::take(&mut self.matched);
        let revision = event.change.main;
        let (mut plain, mut with_prev) = (None, None);
        for key in matched.drain(..) {
            let watcher = self.watchers.get_mut(key).expect("what is in the index exists");
            if watcher.lane != lane
                || revision < watcher.from
                || watcher.cut.is_some()
                || !watcher.wants(event.kind)
            {
                continue;
            }
            let stream = self.streams.get_mut(watcher.stream);
            let stream = stream.expect("a stream outlives its watchers");
            if stream.blocked {
                park(key, watcher, stream, revision);
                continue;
            }
            if watcher.chain.is_none() {
                self.touched.push(key);
            }
            if lane == Lane::Live && watcher.prev_kv && lacks_prev(event) {
                // The log core did not know yet that somebody wants the records before; the tree
                // has them.
                watcher.cut = Some(revision);
                continue;
            }
            let (variant, encoded) = if watcher.prev_kv {
                (Variant::WithPrev, &mut with_prev)
            } else {
                (Variant::Plain, &mut plain)
            };
            let stretch = *encoded.get_or_insert_with(|| self.outbox.encode(event, variant));
            let apart = watcher.fragment;
            let chain = self.outbox.link(watcher.chain, variant, stretch, revision, apart);
            watcher.chain = Some(chain);
        }
        self.matched = matched;
    }

    /// Ends a pass: chains become outputs.
    fn flush(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            let watcher = self.watchers.get_mut(key).expect("nobody leaves during a pass");
            let cut = watcher.cut.take();
            if let Some(chain) = watcher.chain.take() {
                let fragment = watcher.fragment.then_some(self.config.fragment_size_bytes);
                self.outbox.push_chain(key, watcher.epoch, chain, cut, fragment);
            }
            if let Some(cut) = cut {
                watcher.from = cut;
                self.fall_behind(key);
            }
        }
        self.touched = touched;
    }

    /// Forgets what a pass has found.
    fn discard_pass(&mut self) {
        for key in std::mem::take(&mut self.touched) {
            if let Some(watcher) = self.watchers.get_mut(key) {
                (watcher.chain, watcher.cut) = (None, None);
            }
        }
    }

    /// Decides whether an output is still to be sent, and to which stream.
    fn admit(&mut self, output: &Output) -> Option<Key> {
        match *output {
            Output::Events(events) => {
                let watcher = self.watchers.get_mut(events.watcher)?;
                if watcher.epoch != events.epoch {
                    return None;
                }
                let key = watcher.stream;
                let stream = self.streams.get_mut(key).expect("a stream outlives its watchers");
                if stream.blocked && !events.continued {
                    park(events.watcher, watcher, stream, events.first_revision);
                    return None;
                }
                Some(key)
            }
            Output::Progress { stream, watcher: Some((watcher, epoch)), .. } => {
                let watcher = self.watchers.get(watcher)?;
                (watcher.epoch == epoch).then_some(stream)
            }
            Output::Progress { stream, watcher: None, revision, .. } => {
                let found = self.streams.get_mut(stream)?;
                if found.behind > 0 {
                    // What was queued before it could not be sent: it has to wait as well.
                    if found.progress_target.is_none() {
                        self.progress_asked.push(stream);
                    }
                    found.progress_count = 1;
                    found.progress_target = found.progress_target.max(Some(revision));
                    return None;
                }
                Some(stream)
            }
            Output::Created { stream, .. }
            | Output::Refused { stream, .. }
            | Output::Canceled { stream, .. }
            | Output::Compacted { stream, .. }
            | Output::Broken { stream, .. } => self.streams.get(stream).map(|_| stream),
        }
    }
}

/// Takes a watcher out of the feed: it will go on from `from` when its stream drains.
fn park(key: Key, watcher: &mut Watcher, stream: &mut Stream, from: Revision) {
    stream.behind += usize::from(watcher.lane == Lane::Live);
    if watcher.lane != Lane::Parked {
        stream.parked.push(key);
    }
    watcher.lane = Lane::Parked;
    watcher.from = from;
    watcher.epoch = watcher.epoch.wrapping_add(1);
}

/// Whether there was a record before the event and it did not come along.
fn lacks_prev(event: &EventRef<'_>) -> bool {
    let created =
        event.kind == EventKind::Put && event.record.create_revision == event.record.mod_revision;
    event.prev.is_none() && !created
}

/// Mixes the bits of a number, so that neighbours become strangers. Not for secrets.
const fn scramble(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests;
