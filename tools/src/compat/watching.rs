//! Watch streams on both servers, and when what they told can be compared.
//!
//! Events come when they come, so a comparison waits for a barrier: something that each server
//! tells only after all that went before. Watches that wait for what is to come have told it when
//! a later put to another key is told on the same stream (`watch_settle`); watches that read the
//! past have when the server answers a request for progress (`watch_catch_up`).
//!
//! Invariants:
//! - Responses are compared watch by watch and in order. How events were cut into responses is the
//!   server's own affair: neighbouring responses with events count as one, with the last header.
//!   Barriers are taken out after that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, Value};

use super::client::{Metadata, Status, Stream, StreamEvent};
use super::compare::Comparer;
use super::conversation::{Conversation, Difference};
use super::servers::Side;
use super::wire::{self, etcdserverpb as pb};

const WATCH_PATH: &str = "/etcdserverpb.Watch/Watch";
/// A server that has not told a barrier by then never will.
const BARRIER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a request for progress may be unanswered before it is made again: etcd is silent while
/// a watch reads the past.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(20);
/// The watch that waits for barriers; no case takes this id.
const BARRIER_ID: i64 = 1 << 60;
/// What is put to have a barrier told. Watches of everything see it, too, and each server decides
/// for itself whether they do before or after the watch that waits for it.
const BARRIER_KEY: &[u8] = b"~barrier";
/// What etcd calls a whole stream.
const STREAM_ID: i64 = -1;

/// A watch stream on each server.
pub struct Watching {
    streams: [Stream; 2],
    /// What came and was not compared yet.
    responses: [Vec<DynamicMessage>; 2],
    ended: [Option<Status>; 2],
    has_barrier: bool,
    /// Progress was asked for until it was told; how many of the answers came is chance, and the
    /// last of them may come late.
    has_polled: bool,
    /// How events were cut into responses is compared, too.
    keeps_cuts: bool,
    /// What was sent, for the report.
    sent: Vec<String>,
}

/// Which of a conversation's watch streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(usize);

impl Conversation<'_> {
    /// Opens a watch stream on both servers.
    pub fn watch_open(&mut self) -> WatchId {
        self.watch_open_with(&[])
    }

    /// The same with header fields.
    pub fn watch_open_with(&mut self, metadata: Metadata<'_>) -> WatchId {
        if !self.stops_at(WATCH_PATH) {
            match self.pair.open(WATCH_PATH, metadata) {
                Ok(streams) => self.watchings.push(Some(Watching::new(streams))),
                Err(error) => self.note("open a watch stream", vec![error]),
            }
        }
        WatchId(self.watchings.len().saturating_sub(1))
    }

    /// Sends a request on a stream.
    pub fn watch_send(&mut self, id: WatchId, request: &pb::WatchRequest) {
        self.watch_send_bytes(id, &Bytes::from(request.encode_to_vec()));
    }

    /// Sends bytes of the case's own choice on a stream.
    pub fn watch_send_bytes(&mut self, id: WatchId, bytes: &Bytes) {
        let Some(watching) = self.watching(id) else { return };
        let request = wire::text(wire::message("etcdserverpb.WatchRequest"), bytes);
        watching.sent.push(request);
        watching.send(bytes);
    }

    /// Creates a watch.
    pub fn watch_create(&mut self, id: WatchId, request: pb::WatchCreateRequest) {
        let union = pb::watch_request::RequestUnion::CreateRequest(request);
        self.watch_send(id, &pb::WatchRequest { request_union: Some(union) });
    }

    /// Cancels a watch.
    pub fn watch_cancel(&mut self, id: WatchId, watch_id: i64) {
        let union =
            pb::watch_request::RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
        self.watch_send(id, &pb::WatchRequest { request_union: Some(union) });
    }

    /// Asks how far a stream has come.
    pub fn watch_progress(&mut self, id: WatchId) {
        self.watch_send(id, &progress_request());
    }

    /// From here on it counts how events are cut into responses, too: for cases in which that is
    /// no chance.
    pub fn watch_keeps_cuts(&mut self, id: WatchId) {
        if let Some(watching) = self.watching(id) {
            watching.keeps_cuts = true;
        }
    }

    /// Says that no request follows on a stream.
    pub fn watch_half_close(&mut self, id: WatchId) {
        let Some(watching) = self.watching(id) else { return };
        watching.sent.push("(half-close)".to_owned());
        for stream in &mut watching.streams {
            stream.send_end();
        }
    }

    /// Drops a stream, as a client does that goes away.
    pub fn watch_close(&mut self, id: WatchId) {
        if let Some(watching) = self.watchings.get_mut(id.0) {
            *watching = None;
        }
    }

    /// Waits until both servers have sent so many responses, and compares them.
    pub fn watch_wait(&mut self, id: WatchId, count: usize) {
        self.watch_until(id, &mut |responses| responses.len() >= count);
        self.watch_compare(id);
    }

    /// Waits until both servers have answered so many requests to create a watch, and tells which
    /// of them etcd refused. Compares nothing yet.
    pub fn watch_wait_created(&mut self, id: WatchId, count: usize) -> Vec<bool> {
        let created = |responses: &[DynamicMessage]| -> Vec<bool> {
            let created = responses.iter().filter(|response| flag(response, "created"));
            created.map(|response| flag(response, "canceled")).collect()
        };
        self.watch_until(id, &mut |responses| created(responses).len() >= count);
        self.watching(id).map_or_else(Vec::new, |watching| created(&watching.responses[0]))
    }

    /// Waits until both servers have handled all that was sent on a stream, by sending a request
    /// that both refuse at once. What a server answers to a cancellation tells the revision at
    /// which it got to it, and nothing if there is no such watch. Compares nothing yet; every
    /// earlier creation must have been waited for.
    pub fn watch_fence(&mut self, id: WatchId) {
        let refused = |responses: &[DynamicMessage]| {
            let is_refused = |it: &&DynamicMessage| flag(it, "created") && flag(it, "canceled");
            responses.iter().filter(is_refused).count()
        };
        let Some(watching) = self.watching(id) else { return };
        let before = watching.responses.each_ref().map(|responses| refused(responses));
        let backward = pb::WatchCreateRequest {
            key: b"b".to_vec(),
            range_end: b"a".to_vec(),
            ..Default::default()
        };
        self.watch_create(id, backward);
        // Both sides have as many: a difference between them has been told already.
        let count = before[0].min(before[1]) + 1;
        self.watch_until(id, &mut |responses| refused(responses) >= count);
    }

    /// Waits until both servers have cancelled so many watches because of a compaction. Compares
    /// nothing yet.
    pub fn watch_wait_compacted(&mut self, id: WatchId, count: usize) {
        self.watch_until(id, &mut |responses| {
            let is_compacted = |response: &&DynamicMessage| {
                let revision = response.get_field_by_name("compact_revision");
                revision.and_then(|revision| revision.as_i64()).unwrap_or(0) != 0
            };
            responses.iter().filter(is_compacted).count() >= count
        });
    }

    /// Waits until both servers have sent so many responses, and compares no more than these.
    pub fn watch_wait_first(&mut self, id: WatchId, count: usize) {
        self.watch_until(id, &mut |responses| responses.len() >= count);
        if let Some(watching) = self.watching(id) {
            for responses in &mut watching.responses {
                responses.truncate(count);
            }
        }
        self.watch_compare(id);
    }

    /// Waits until both servers have sent so many events, and compares all that came.
    pub fn watch_wait_events(&mut self, id: WatchId, count: usize) {
        self.watch_until(id, &mut |responses| {
            responses.iter().map(event_count).sum::<usize>() >= count
        });
        self.watch_compare(id);
    }

    /// Waits until both servers have told all that went before, and compares it. For watches that
    /// wait for what is to come.
    pub fn watch_settle(&mut self, id: WatchId) {
        if self.is_over() {
            return;
        }
        let key = BARRIER_KEY.to_vec();
        let Some(watching) = self.watching(id) else { return };
        if !watching.has_barrier {
            watching.has_barrier = true;
            let create = pb::WatchCreateRequest {
                key: key.clone(),
                watch_id: BARRIER_ID,
                ..Default::default()
            };
            let union = pb::watch_request::RequestUnion::CreateRequest(create);
            let request = pb::WatchRequest { request_union: Some(union) };
            watching.send(&Bytes::from(request.encode_to_vec()));
            self.watch_until(id, &mut |responses| {
                responses.iter().any(|response| watch_id(response) == BARRIER_ID)
            });
        }
        let put = self.put(pb::PutRequest { key, ..Default::default() });
        let revision = put.etcd().header.map_or(0, |header| header.revision);
        self.watch_until(id, &mut |responses| {
            responses.iter().any(|response| {
                watch_id(response) == BARRIER_ID
                    && event_count(response) > 0
                    && header_revision(response) >= revision
            })
        });
        self.watch_compare(id);
    }

    /// Waits until both servers have told the past, and compares it. No watch of the stream may
    /// wait for a revision that is yet to come: etcd says nothing then.
    pub fn watch_catch_up(&mut self, id: WatchId) {
        let target = self.revision();
        let Some(watching) = self.watchings.get_mut(id.0).and_then(Option::as_mut) else { return };
        let request = Bytes::from(progress_request().encode_to_vec());
        watching.has_polled = true;
        let mut late = Vec::new();
        let end = Instant::now() + BARRIER_TIME_MAX;
        for side in [0, 1] {
            let is_told = |responses: &[DynamicMessage]| {
                responses.iter().any(|response| {
                    is_stream_progress(response) && header_revision(response) >= target
                })
            };
            while !is_told(&watching.responses[side]) && watching.ended[side].is_none() {
                if Instant::now() > end {
                    late.push(format!("{} did not tell its progress", Side::BOTH[side].name()));
                    break;
                }
                watching.streams[side].send(&request);
                self.pair.run(watching.receive(side, PROGRESS_INTERVAL));
            }
        }
        if !late.is_empty() {
            let sent = watching.sent.join("; ");
            self.note(&format!("watch [{sent}], then progress"), late);
        }
        self.watch_compare(id);
    }

    fn watching(&mut self, id: WatchId) -> Option<&mut Watching> {
        if self.is_over() { None } else { self.watchings.get_mut(id.0)?.as_mut() }
    }

    /// Receives on both sides until a condition holds.
    fn watch_until(&mut self, id: WatchId, holds: &mut dyn FnMut(&[DynamicMessage]) -> bool) {
        if self.is_over() {
            return;
        }
        let Some(watching) = self.watchings.get_mut(id.0).and_then(Option::as_mut) else { return };
        let mut late = Vec::new();
        let end = Instant::now() + BARRIER_TIME_MAX;
        for side in [0, 1] {
            while !holds(&watching.responses[side]) && watching.ended[side].is_none() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    late.push(format!("{} did not send what is due", Side::BOTH[side].name()));
                    break;
                }
                self.pair.run(watching.receive(side, left));
            }
        }
        if !late.is_empty() {
            let sent = watching.sent.join("; ");
            self.note(&format!("watch [{sent}]"), late);
        }
    }

    fn watch_compare(&mut self, id: WatchId) {
        if self.is_over() {
            return;
        }
        let Some(watching) = self.watchings.get_mut(id.0).and_then(Option::as_mut) else { return };
        let reading =
            Reading { drops_progress: watching.has_polled, keeps_cuts: watching.keeps_cuts };
        let told = watching
            .responses
            .each_mut()
            .map(|responses| by_watch(std::mem::take(responses), reading));
        let mut lines = Vec::new();
        let [etcd, ringd] = &told;
        for watch_id in etcd.keys().chain(ringd.keys().filter(|id| !etcd.contains_key(id))) {
            let none = Vec::new();
            let (etcd, ringd) = (etcd.get(watch_id), ringd.get(watch_id));
            let (etcd, ringd) = (etcd.unwrap_or(&none), ringd.unwrap_or(&none));
            if etcd.len() != ringd.len() {
                let (etcd, ringd) = (etcd.len(), ringd.len());
                lines.push(format!("watch {watch_id}: etcd {etcd} responses | ringd {ringd}"));
            }
            for (index, (etcd, ringd)) in etcd.iter().zip(ringd).enumerate() {
                let found = self.session.comparer.messages(etcd, ringd);
                let placed = |line| format!("watch {watch_id} response {index}: {line}");
                lines.extend(found.into_iter().map(placed));
            }
        }
        match &watching.ended {
            [None, None] => {}
            [Some(etcd), Some(ringd)] => lines.extend(Comparer::statuses(etcd, ringd)),
            [etcd, ringd] => lines.push(format!("stream's end: etcd {etcd:?} | ringd {ringd:?}")),
        }
        let sent = watching.sent.join("; ");
        self.calls += 1;
        if !lines.is_empty() {
            let answers = told.map(|told| shown(&told));
            self.differences.push(Difference { asked: format!("watch [{sent}]"), lines, answers });
        }
    }
}

impl Watching {
    fn new(streams: [Stream; 2]) -> Self {
        Self {
            streams,
            responses: Default::default(),
            ended: Default::default(),
            has_barrier: false,
            has_polled: false,
            keeps_cuts: false,
            sent: Vec::new(),
        }
    }

    fn send(&mut self, bytes: &Bytes) {
        for stream in &mut self.streams {
            stream.send(bytes);
        }
    }

    /// Takes in what one server sends next, if it comes in time.
    async fn receive(&mut self, side: usize, limit: Duration) {
        let descriptor = wire::message("etcdserverpb.WatchResponse");
        match self.streams[side].receive(limit).await {
            Some(StreamEvent::Message(bytes)) => {
                // Bytes that are no message become an empty one, which no server sends.
                let response = DynamicMessage::decode(descriptor.clone(), bytes)
                    .unwrap_or_else(|_| DynamicMessage::new(descriptor));
                self.responses[side].push(response);
            }
            Some(StreamEvent::Ended(status)) => self.ended[side] = Some(status),
            None => {}
        }
    }
}

fn progress_request() -> pb::WatchRequest {
    let union = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    pb::WatchRequest { request_union: Some(union) }
}

/// How a stream's responses are made ready to be compared.
#[derive(Clone, Copy, Default)]
struct Reading {
    /// Whether progress that was told of the stream is left out.
    drops_progress: bool,
    /// Whether neighbours with events stay as they were cut.
    keeps_cuts: bool,
}

/// Sorts responses by watch, and joins neighbours with events. The barrier's are left out.
fn by_watch(
    responses: Vec<DynamicMessage>,
    reading: Reading,
) -> BTreeMap<i64, Vec<DynamicMessage>> {
    let mut by_watch: BTreeMap<i64, Vec<DynamicMessage>> = BTreeMap::new();
    for mut response in responses {
        let id = watch_id(&response);
        if id == BARRIER_ID || reading.drops_progress && is_stream_progress(&response) {
            continue;
        }
        let told = by_watch.entry(id).or_default();
        let previous = told.last_mut().filter(|previous| event_count(previous) > 0);
        if event_count(&response) > 0
            && !reading.keeps_cuts
            && let Some(previous) = previous
        {
            let mut events = take_events(previous);
            events.append(&mut take_events(&mut response));
            response.set_field_by_name("events", Value::List(events));
            *previous = response;
        } else {
            told.push(response);
        }
    }
    // Only now: a barrier may have come with what went before it or by itself.
    for told in by_watch.values_mut() {
        told.retain_mut(strip_barriers);
    }
    by_watch.retain(|_, told| !told.is_empty());
    by_watch
}

/// Takes the events of barriers out; false if nothing is left of the response.
fn strip_barriers(response: &mut DynamicMessage) -> bool {
    let events = take_events(response);
    let Some(last) = events.last() else { return true };
    let ends_with_barrier = is_barrier(last) && event_revision(last) == header_revision(response);
    let rest: Vec<_> = events.into_iter().filter(|event| !is_barrier(event)).collect();
    let Some(last) = rest.last() else { return false };
    // It would have ended with what came before the barrier.
    if ends_with_barrier
        && let Some(Value::Message(header)) = response.get_field_by_name_mut("header")
    {
        header.set_field_by_name("revision", Value::I64(event_revision(last)));
    }
    response.set_field_by_name("events", Value::List(rest));
    true
}

/// A field of an event's record.
fn field_of_event(event: &Value, name: &str) -> Option<Value> {
    let kv = event.as_message()?.get_field_by_name("kv")?.into_owned();
    Some(kv.as_message()?.get_field_by_name(name)?.into_owned())
}

fn is_barrier(event: &Value) -> bool {
    field_of_event(event, "key")
        .is_some_and(|key| key.as_bytes().is_some_and(|key| key == BARRIER_KEY))
}

fn event_revision(event: &Value) -> i64 {
    field_of_event(event, "mod_revision").and_then(|revision| revision.as_i64()).unwrap_or(0)
}

fn take_events(response: &mut DynamicMessage) -> Vec<Value> {
    match response.get_field_by_name_mut("events") {
        Some(Value::List(events)) => std::mem::take(events),
        _ => Vec::new(),
    }
}

fn event_count(response: &DynamicMessage) -> usize {
    let events = response.get_field_by_name("events");
    events.as_ref().and_then(|events| events.as_list()).map_or(0, <[Value]>::len)
}

fn watch_id(response: &DynamicMessage) -> i64 {
    response.get_field_by_name("watch_id").and_then(|id| id.as_i64()).unwrap_or(0)
}

fn header_revision(response: &DynamicMessage) -> i64 {
    let header = response.get_field_by_name("header");
    let header = header.as_ref().and_then(|header| header.as_message());
    header.and_then(|header| header.get_field_by_name("revision")?.as_i64()).unwrap_or(0)
}

fn is_stream_progress(response: &DynamicMessage) -> bool {
    watch_id(response) == STREAM_ID
        && event_count(response) == 0
        && !flag(response, "created")
        && !flag(response, "canceled")
}

fn flag(response: &DynamicMessage, name: &str) -> bool {
    response.get_field_by_name(name).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn shown(told: &BTreeMap<i64, Vec<DynamicMessage>>) -> String {
    let responses = told.values().flatten().map(DynamicMessage::to_text_format);
    responses.collect::<Vec<_>>().join(" / ")
}

#[cfg(test)]
mod tests {
    use super::super::wire::mvccpb;
    use super::*;

    fn response(watch_id: i64, revision: i64, keys: &[&str]) -> DynamicMessage {
        let event = |key: &&str| mvccpb::Event {
            kv: Some(mvccpb::KeyValue { key: key.as_bytes().to_vec(), ..Default::default() }),
            ..Default::default()
        };
        let response = pb::WatchResponse {
            header: Some(pb::ResponseHeader { revision, ..Default::default() }),
            watch_id,
            events: keys.iter().map(event).collect(),
            ..Default::default()
        };
        let descriptor = wire::message("etcdserverpb.WatchResponse");
        let bytes = Bytes::from(response.encode_to_vec());
        DynamicMessage::decode(descriptor, bytes).expect("it was encoded just now")
    }

    #[test]
    fn only_the_cut_between_events_is_forgotten() {
        let one =
            by_watch(vec![response(1, 5, &["a", "b"]), response(2, 6, &["c"])], Reading::default());
        let other = vec![response(1, 4, &["a"]), response(2, 6, &["c"]), response(1, 5, &["b"])];
        assert_eq!(one, by_watch(other, Reading::default()));
        let swapped = vec![response(1, 5, &["b", "a"]), response(2, 6, &["c"])];
        assert_ne!(one, by_watch(swapped, Reading::default()));
        let with_idle = vec![
            response(1, 4, &["a"]),
            response(1, 4, &[]),
            response(1, 5, &["b"]),
            response(2, 6, &["c"]),
        ];
        assert_ne!(one, by_watch(with_idle, Reading::default()));
    }

    #[test]
    fn events_of_barriers_are_taken_out() {
        let with = vec![response(1, 5, &["a", "~barrier"]), response(1, 5, &["~barrier"])];
        let without = by_watch(vec![response(1, 5, &["a"])], Reading::default());
        assert_eq!(by_watch(with, Reading::default()), without);
        // The barrier's revision is 6, and a watch that reads the past is told the store's.
        let barrier = || {
            let mut barrier = response(1, 6, &["~barrier"]);
            let mut events = take_events(&mut barrier);
            let event = events[0].as_message_mut().expect("an event");
            let Some(Value::Message(kv)) = event.get_field_by_name_mut("kv") else { panic!() };
            kv.set_field_by_name("mod_revision", Value::I64(6));
            barrier.set_field_by_name("events", Value::List(events));
            barrier
        };
        let apart = vec![response(1, 6, &["a"]), barrier()];
        let mut joined = response(1, 6, &["a"]);
        let mut events = take_events(&mut joined);
        events.append(&mut take_events(&mut barrier()));
        joined.set_field_by_name("events", Value::List(events));
        assert_eq!(by_watch(apart, Reading::default()), by_watch(vec![joined], Reading::default()));
    }

    #[test]
    fn barriers_and_the_progress_asked_for_are_left_out() {
        let responses = vec![response(BARRIER_ID, 5, &["a"]), response(STREAM_ID, 5, &[])];
        assert_eq!(by_watch(responses.clone(), Reading::default()).len(), 1);
        assert_eq!(
            by_watch(responses, Reading { drops_progress: true, ..Reading::default() }).len(),
            0
        );
    }
}
