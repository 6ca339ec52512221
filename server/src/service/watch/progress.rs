//! Progress: telling a client up to which revision it has been told everything.
//!
//! Invariants:
//! - A revision is said only when all events up to it that the watchers want have been queued
//!   before; what cannot be sent after all takes the progress with it.
//! - The ring's position decides, and not a view: a view may show what the ring has not brought.

use std::cmp::Reverse;
use std::time::Duration;

use engine::ids::Revision;
use engine::view::View;

use super::outbox::Output;
use super::slots::Key;
use super::{Lane, StreamId, WATCH_ID_NONE, WatchHub, scramble};

/// Answers that a stream gets at once to requests that had to wait for the ring. etcd drops what
/// its channel of as many places cannot take.
const PROGRESS_ANSWERS_MAX: u32 = 1024;

impl WatchHub {
    /// Time has passed: streams whose turn it is are told how far their idle watchers have come.
    pub fn handle_tick(&mut self, now: Duration) {
        while let Some(Reverse((due, key))) = self.progress_due.peek().copied() {
            if due > now {
                return;
            }
            self.progress_due.pop();
            let Some(stream) = self.streams.get(key) else { continue };
            let id = stream.id;
            let watchers: Vec<Key> = stream.watchers.values().copied().collect();
            for watcher in watchers {
                self.notify_progress(key, watcher);
            }
            self.progress_due.push(Reverse((now + self.progress_interval(id), key)));
        }
    }

    /// When [`WatchHub::handle_tick`] is due.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Duration> {
        self.progress_due.peek().map(|Reverse((due, _))| *due)
    }

    /// Streams opened together are not told their progress together.
    pub(super) fn progress_interval(&self, stream: StreamId) -> Duration {
        let interval = self.config.progress_interval;
        let share = u32::try_from(scramble(stream.0) % 1024).expect("a number below 1024");
        interval + interval / 10 * share / 1024
    }

    /// A request costs the same however many watchers the stream has, because a client may send
    /// thousands in one piece.
    pub(super) fn ask_progress(&mut self, key: Key, view: &View) {
        let stream = self.stream(key);
        // Nobody to speak for, or somebody whose time has not come: etcd says nothing then.
        let waits = stream.starts.last().is_some_and(|(start, _)| *start > view.revision);
        if stream.watchers.is_empty() || !stream.compacted.is_empty() || waits {
            return;
        }
        let was_asked = stream.progress_target.is_some();
        stream.progress_target = stream.progress_target.max(Some(view.revision));
        // etcd says nothing to a stream that is behind: all that ask meanwhile get one answer.
        stream.progress_count = match stream.behind {
            0 => (stream.progress_count + 1).min(PROGRESS_ANSWERS_MAX),
            _ => 1,
        };
        if self.settle_stream(key) && !was_asked {
            self.progress_asked.push(key);
        }
    }

    /// Answers the streams that asked how far they are and have come that far with all watchers.
    pub(super) fn settle_progress(&mut self) {
        if self.progress_asked.is_empty() {
            return;
        }
        let mut asked = std::mem::take(&mut self.progress_asked);
        asked.retain(|key| self.settle_stream(*key));
        self.progress_asked = asked;
    }

    /// Whether the stream still waits for its answer.
    fn settle_stream(&mut self, key: Key) -> bool {
        let revision = self.position;
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let Some(target) = stream.progress_target else { return false };
        // What the ring will still bring may be for one of the watchers, so it is waited for.
        if stream.behind > 0 || revision < target {
            return true;
        }
        stream.progress_target = None;
        let count = std::mem::take(&mut stream.progress_count);
        if !stream.watchers.is_empty() {
            for _ in 0..count {
                let (watch_id, watcher) = (WATCH_ID_NONE, None);
                self.outbox.push(Output::Progress { stream: key, watcher, watch_id, revision });
            }
        }
        false
    }

    /// The revision up to which a live watcher has been told everything.
    fn told(&self, watcher: Key) -> Revision {
        let watcher = self.watchers.get(watcher).expect("a stream lists its watchers only");
        // A watcher may have been told more by the tree than the ring has brought, or want
        // nothing of what the ring will still bring; but what no view has shown has not happened.
        let ahead = Revision(watcher.from.0 - 1).min(self.seen);
        self.position.max(ahead)
    }

    fn notify_progress(&mut self, stream: Key, key: Key) {
        let revision = self.told(key);
        let watcher = self.watchers.get_mut(key).expect("a stream lists its watchers only");
        if watcher.progress_notify && watcher.quiet && watcher.lane == Lane::Live {
            let watch_id = watcher.watch_id;
            let watcher = Some((key, watcher.epoch));
            self.outbox.push(Output::Progress { stream, watcher, watch_id, revision });
        }
        if let Some(watcher) = self.watchers.get_mut(key) {
            watcher.quiet = true;
        }
    }
}
