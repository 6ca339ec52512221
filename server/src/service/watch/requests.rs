//! What clients ask of their streams: create, cancel, tell how far you are.
//!
//! The checks, their order and the answers are etcd's. An answer about a watcher is queued before
//! anything the watcher is told, because both leave through one queue.

use engine::ids::Revision;
use engine::view::View;
use prost::Message;

use super::cohort::Membership;
use super::index::Span;
use super::outbox::Output;
use super::slots::Key;
use super::{Lane, StreamId, WatchHub, Watcher};
use crate::service::proto::etcdserverpb as pb;
use crate::service::proto::etcdserverpb::watch_create_request::FilterType;
use crate::service::proto::etcdserverpb::watch_request::RequestUnion;
use crate::service::status::{Refusal, WatchRefusal};

impl WatchHub {
    /// A stream has sent a message. The view must be pinned after it arrived. An error ends the
    /// stream.
    pub fn handle_message(
        &mut self,
        stream: StreamId,
        message: &[u8],
        view: &View,
    ) -> Result<(), Refusal> {
        let request = pb::WatchRequest::decode(message);
        let request = request.map_err(|error| Refusal::from(error).in_stream())?;
        let Some(key) = self.streams_by_id.get(&stream).copied() else { return Ok(()) };
        self.note_view(view);
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(key, &create, view),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(key, cancel.watch_id, view),
            Some(RequestUnion::ProgressRequest(_)) => self.ask_progress(key, view),
            // A request of a later version: etcd ignores it too.
            None => {}
        }
        Ok(())
    }

    fn create(&mut self, key: Key, create: &pb::WatchCreateRequest, view: &View) {
        let revision = view.revision;
        let (span, watch_id) = match self.check_create(key, create) {
            Ok(checked) => checked,
            Err(refusal) => {
                self.outbox.push(Output::Refused { stream: key, refusal, revision });
                return;
            }
        };
        let from = match create.start_revision {
            0 => revision.next(),
            start => Revision(start),
        };
        let filtered = |filter: FilterType| create.filters.contains(&(filter as i32));
        let watcher = self.watchers.insert(Watcher {
            stream: key,
            watch_id,
            span,
            prev_kv: create.prev_kv,
            put_wanted: !filtered(FilterType::Noput),
            delete_wanted: !filtered(FilterType::Nodelete),
            progress_notify: create.progress_notify,
            fragment: create.fragment,
            start: Revision(create.start_revision),
            from,
            lane: Lane::Live,
            epoch: 0,
            membership: Membership::default(),
            quiet: true,
            chain: None,
            cut: None,
        });
        let span = &self.watchers.get(watcher).expect("it was inserted just now").span;
        self.index.insert(span, watcher);
        self.watchers_with_prev += usize::from(create.prev_kv);
        let stream = self.stream(key);
        stream.watchers.insert(watch_id, watcher);
        let start = Revision(create.start_revision);
        if start > revision {
            stream.starts.insert((start, watcher));
        }
        self.outbox.push(Output::Created { stream: key, watch_id, revision });
        if from <= self.horizon() {
            self.fall_behind(watcher);
        }
    }

    /// Checks in etcd's order, and chooses the id.
    fn check_create(
        &mut self,
        key: Key,
        create: &pb::WatchCreateRequest,
    ) -> Result<(Span, i64), WatchRefusal> {
        if create.start_revision < 0 {
            return Err(WatchRefusal::Compacted);
        }
        let start: &[u8] = if create.key.is_empty() { &[0] } else { &create.key };
        let span = match &create.range_end[..] {
            [] => Span::Point(start.into()),
            [0] => Span::Range(start.into(), None),
            end if start < end => Span::Range(start.into(), Some(end.into())),
            _ => return Err(WatchRefusal::EmptyRange),
        };
        let stream = self.stream(key);
        let mut watch_id = create.watch_id;
        if watch_id == 0 {
            while stream.has_watch(stream.watch_id_next) {
                stream.watch_id_next += 1;
            }
            watch_id = stream.watch_id_next;
            stream.watch_id_next += 1;
        } else if stream.has_watch(watch_id) {
            return Err(WatchRefusal::DuplicateId);
        }
        Ok((span, watch_id))
    }

    fn cancel(&mut self, key: Key, watch_id: i64, view: &View) {
        let stream = self.stream(key);
        match stream.watchers.get(&watch_id).copied() {
            Some(watcher) => self.remove_watcher(watcher),
            None if stream.compacted.remove(&watch_id) => {}
            None => return,
        }
        self.outbox.push(Output::Canceled { stream: key, watch_id, revision: view.revision });
    }
}
