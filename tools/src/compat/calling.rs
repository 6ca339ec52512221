//! Calls that stay open on both servers: streams of many messages, and calls that wait.
//!
//! Messages are compared one by one and in order, because each answers one of the client's or tells
//! one change. When both have come is for the case to say, by how many it waits for.
//!
//! Invariants:
//! - What came is compared once: waiting for more compares only what came since.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use super::client::{Metadata, Status, Stream, StreamEvent};
use super::compare::Comparer;
use super::conversation::{Conversation, Difference};
use super::servers::Side;
use super::wire;

/// A server that has not answered by then never will.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// An open call on each server.
pub struct Calling {
    path: &'static str,
    streams: [Stream; 2],
    /// What came and was not compared yet.
    messages: [VecDeque<Bytes>; 2],
    ended: [Option<Status>; 2],
    /// What was sent, for the report.
    sent: Vec<String>,
}

/// Which of a conversation's open calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(usize);

impl Conversation<'_> {
    /// Opens a call on both servers.
    pub fn call_open(&mut self, path: &'static str, metadata: Metadata<'_>) -> CallId {
        if !self.stops_at(path) {
            match self.pair.open(path, metadata) {
                Ok(streams) => self.callings.push(Some(Calling {
                    path,
                    streams,
                    messages: Default::default(),
                    ended: Default::default(),
                    sent: Vec::new(),
                })),
                Err(error) => self.note(&format!("open {path}"), vec![error]),
            }
        }
        CallId(self.callings.len().saturating_sub(1))
    }

    /// Opens a call and sends all it is asked: it may be answered at once, or wait.
    pub fn call_begin<Q: Message>(&mut self, path: &'static str, request: &Q) -> CallId {
        let id = self.call_open(path, &[]);
        self.call_send(id, request);
        self.call_half_close(id);
        id
    }

    /// Sends both servers the same message.
    pub fn call_send<Q: Message>(&mut self, id: CallId, request: &Q) {
        let bytes = Bytes::from(request.encode_to_vec());
        self.call_send_bytes(id, &[bytes.clone(), bytes]);
    }

    /// Sends bytes of the case's own choice, each server its own.
    pub fn call_send_bytes(&mut self, id: CallId, bytes: &[Bytes; 2]) {
        let Some(calling) = self.calling(id) else { return };
        let method = wire::method(calling.path).expect("cases open RPCs of our .proto files only");
        calling.sent.push(wire::text(method.input(), &bytes[0]));
        for (stream, bytes) in calling.streams.iter_mut().zip(bytes) {
            stream.send(bytes);
        }
    }

    /// Says that no message follows.
    pub fn call_half_close(&mut self, id: CallId) {
        let Some(calling) = self.calling(id) else { return };
        calling.sent.push("(half-close)".to_owned());
        for stream in &mut calling.streams {
            stream.send_end();
        }
    }

    /// Cancels a call, as a client does that has gone away.
    pub fn call_cancel(&mut self, id: CallId) {
        if let Some(calling) = self.callings.get_mut(id.0) {
            *calling = None;
        }
    }

    /// Waits until both servers have sent so many messages more, and compares these. Returns them,
    /// or fewer if a server sent fewer.
    pub fn call_wait(&mut self, id: CallId, count: usize) -> Vec<[Bytes; 2]> {
        self.call_until(id, &|calling, side| calling.messages[side].len() >= count);
        self.call_compare(id, count)
    }

    /// Waits until both servers have ended the call, and compares what was left and how it ended.
    pub fn call_wait_end(&mut self, id: CallId) -> Vec<[Bytes; 2]> {
        self.call_until(id, &|calling, side| calling.ended[side].is_some());
        let compared = self.call_compare(id, usize::MAX);
        let Some(calling) = self.calling(id) else { return compared };
        if let [Some(etcd), Some(ringd)] = &calling.ended {
            let lines: Vec<String> = Comparer::statuses(etcd, ringd).into_iter().collect();
            let asked = calling.asked();
            if !lines.is_empty() {
                self.note(&asked, lines);
            }
        }
        compared
    }

    /// Notes a difference if a server has said anything that was not compared yet.
    pub fn call_expect_silence(&mut self, id: CallId) {
        let Some(calling) = self.callings.get_mut(id.0).and_then(Option::as_mut) else { return };
        for side in [0, 1] {
            self.pair.run(calling.receive(side, Duration::ZERO));
        }
        let lines: Vec<String> = (0..2)
            .filter(|side| !calling.messages[*side].is_empty() || calling.ended[*side].is_some())
            .map(|side| format!("{} has answered, but should wait", Side::BOTH[side].name()))
            .collect();
        if !lines.is_empty() {
            let asked = calling.asked();
            self.note(&asked, lines);
        }
    }

    fn calling(&mut self, id: CallId) -> Option<&mut Calling> {
        if self.is_over() { None } else { self.callings.get_mut(id.0)?.as_mut() }
    }

    /// Receives on both sides until a condition holds or the call has ended.
    fn call_until(&mut self, id: CallId, holds: &dyn Fn(&Calling, usize) -> bool) {
        if self.is_over() {
            return;
        }
        let Some(calling) = self.callings.get_mut(id.0).and_then(Option::as_mut) else { return };
        let mut late = Vec::new();
        let end = Instant::now() + ANSWER_TIME_MAX;
        for side in [0, 1] {
            while !holds(calling, side) && calling.ended[side].is_none() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    late.push(format!("{} did not send what is due", Side::BOTH[side].name()));
                    break;
                }
                self.pair.run(calling.receive(side, left));
            }
        }
        if !late.is_empty() {
            let asked = calling.asked();
            self.note(&asked, late);
        }
    }

    /// Compares the next messages, as many as there are and no more than `count`.
    fn call_compare(&mut self, id: CallId, count: usize) -> Vec<[Bytes; 2]> {
        let Some(calling) = self.calling(id) else { return Vec::new() };
        let (path, asked) = (calling.path, calling.asked());
        let [etcd, ringd] = calling.messages.each_mut().map(|messages| {
            let count = count.min(messages.len());
            messages.drain(..count).collect::<Vec<_>>()
        });
        let method = wire::method(path).expect("cases open RPCs of our .proto files only");
        let mut lines = Vec::new();
        if etcd.len() != ringd.len() {
            lines.push(format!("messages: etcd {} | ringd {}", etcd.len(), ringd.len()));
        }
        let answers = [&etcd, &ringd].map(|side| {
            let shown = side.iter().map(|bytes| wire::text(method.output(), bytes));
            shown.collect::<Vec<_>>().join(" / ")
        });
        let mut both = Vec::with_capacity(etcd.len());
        for (index, (etcd, ringd)) in etcd.into_iter().zip(ringd).enumerate() {
            let found = self.session.comparer.bytes(&method.output(), [&etcd, &ringd]);
            lines.extend(found.into_iter().map(|line| format!("message {index}: {line}")));
            self.learn_revision(path, &etcd);
            both.push([etcd, ringd]);
        }
        self.calls += 1;
        if !lines.is_empty() {
            self.differences.push(Difference { asked, lines, answers });
        }
        both
    }
}

impl Calling {
    /// Takes in what one server sends next, if it comes in time.
    async fn receive(&mut self, side: usize, limit: Duration) {
        match self.streams[side].receive(limit).await {
            Some(StreamEvent::Message(bytes)) => self.messages[side].push_back(bytes),
            Some(StreamEvent::Ended(status)) => self.ended[side] = Some(status),
            None => {}
        }
    }

    fn asked(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap_or(self.path);
        format!("{name} [{}]", self.sent.join("; "))
    }
}
