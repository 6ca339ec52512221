//! What is to be sent: events encoded once, and responses as lists of stretches of those bytes.
//!
//! A pass (some revisions of a batch, or one slice of a catch-up) encodes each event that anybody
//! wants at most twice, with and without the record before it, into one arena per variant. A
//! watcher's response is a chain of stretches in the arena. Nothing is copied until the owner
//! takes the response; when all have been taken, the arenas are used again.
//!
//! Invariants:
//! - Outputs leave in the order in which they were pushed.
//! - The links of an output stay valid until it was polled: arenas and links are emptied only when
//!   no output is left.
//! - A response ends between revisions, or says `fragment`.

use std::collections::VecDeque;

use engine::events::{EventKind, EventRef};
use engine::ids::Revision;

use super::slots::Key;
use super::{StreamId, WatchRefusal};
use crate::service::proto::etcdserverpb as pb;
use crate::service::status;
use crate::service::wire::{self, Header};

/// Past this size a response is closed at the next revision: many small revisions share one, but
/// no client has to swallow a whole backlog at once. Tests meet it with small events.
pub(super) const RESPONSE_SIZE_BYTES_MAX: usize = if cfg!(test) { 400 } else { 256 << 10 };

/// What the fields before the events may take; kept free when a response is cut into fragments.
const HEAD_SIZE_BYTES_MAX: usize = 64;

const NO_LINK: u32 = u32::MAX;

/// Memory that an arena keeps for the next pass; a few large values may have needed more.
const ARENA_KEPT_BYTES: usize = 4 << 20;

/// With or without the record before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Plain,
    WithPrev,
}

/// Where an encoded event lies in the arena of its variant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    start: usize,
    end: usize,
}

/// Consecutive events of one revision that one watcher wants.
struct Link {
    stretch: Stretch,
    revision: Revision,
    next: u32,
}

/// The links of one watcher in the present pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
    variant: Variant,
}

/// A response without its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventsOutput {
    pub(super) watcher: Key,
    /// The watcher's epoch when this was pushed; another one means that it was parked since and
    /// will be told these events again.
    pub(super) epoch: u32,
    pub(super) first_revision: Revision,
    /// What the header says: see [`Outbox::begin_pass`].
    header_revision: Revision,
    /// A fragment of this response has left already, so the rest must.
    pub(super) continued: bool,
    fragment: bool,
    variant: Variant,
    first: u32,
    pub(super) count: u32,
    size_bytes: usize,
}

/// Something for a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Output {
    Events(EventsOutput),
    /// How far a watcher has come, or with `watch_id` -1 all of the stream.
    Progress {
        stream: Key,
        watcher: Option<(Key, u32)>,
        watch_id: i64,
        revision: Revision,
    },
    Created {
        stream: Key,
        watch_id: i64,
        revision: Revision,
    },
    Refused {
        stream: Key,
        refusal: WatchRefusal,
        revision: Revision,
    },
    Canceled {
        stream: Key,
        watch_id: i64,
        revision: Revision,
    },
    /// The watcher wanted what is compacted.
    Compacted {
        stream: Key,
        watch_id: i64,
        compacted: Revision,
    },
    /// The tree could not be read.
    Broken {
        stream: Key,
        watch_id: i64,
    },
}

/// A `WatchResponse`, in pieces.
pub struct WatchOutput<'a> {
    /// Whose it is.
    pub stream: StreamId,
    head: &'a [u8],
    arena: &'a [u8],
    links: &'a [Link],
    first: u32,
    count: u32,
    size_bytes: usize,
}

impl WatchOutput<'_> {
    /// The size of the message.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.head.len() + self.size_bytes
    }

    /// The message's bytes, in order, in as few slices as it can be had.
    pub fn for_each_slice(&self, mut visit: impl FnMut(&[u8])) {
        visit(self.head);
        let mut at = self.first;
        let mut open: Option<Stretch> = None;
        for _ in 0..self.count {
            let link = &self.links[at as usize];
            open = Some(match open {
                Some(open) if open.end == link.stretch.start => {
                    Stretch { start: open.start, end: link.stretch.end }
                }
                Some(open) => {
                    visit(&self.arena[open.start..open.end]);
                    link.stretch
                }
                None => link.stretch,
            });
            at = link.next;
        }
        if let Some(open) = open {
            visit(&self.arena[open.start..open.end]);
        }
    }

    /// Appends the message.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.size_bytes());
        self.for_each_slice(|slice| out.extend_from_slice(slice));
    }
}

/// The outputs of a core's watchers.
pub(super) struct Outbox {
    plain: Vec<u8>,
    with_prev: Vec<u8>,
    links: Vec<Link>,
    outputs: VecDeque<Output>,
    /// Where the store was when this pass began to read the past.
    read_at: Option<Revision>,
    head: Vec<u8>,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self {
            plain: Vec::new(),
            with_prev: Vec::new(),
            links: Vec::new(),
            outputs: VecDeque::new(),
            read_at: None,
            head: Vec::new(),
        }
    }

    /// Begins a pass. What was taken makes room.
    ///
    /// As in etcd, a header tells the revision of the last event that it comes with when the event
    /// is told as it happens, and the store's revision when the past is read.
    pub(super) fn begin_pass(&mut self, read_at: Option<Revision>) {
        self.read_at = read_at;
        if self.outputs.is_empty() {
            self.links.clear();
            for arena in [&mut self.plain, &mut self.with_prev] {
                arena.clear();
                arena.shrink_to(ARENA_KEPT_BYTES);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// The memory that the outputs keep.
    pub(super) fn size_bytes(&self) -> usize {
        self.plain.len() + self.with_prev.len() + self.links.len() * size_of::<Link>()
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Encodes an event as field 11 of a response.
    pub(super) fn encode(&mut self, event: &EventRef<'_>, variant: Variant) -> Stretch {
        let out = self.arena_mut(variant);
        let start = out.len();
        wire::put_nested(out, 11, |out| {
            wire::put_bool(out, 1, event.kind == EventKind::Delete);
            wire::put_record(out, 2, &event.record);
            if let (Variant::WithPrev, Some(prev)) = (variant, &event.prev) {
                wire::put_record(out, 3, prev);
            }
        });
        Stretch { start, end: out.len() }
    }

    fn arena_mut(&mut self, variant: Variant) -> &mut Vec<u8> {
        match variant {
            Variant::Plain => &mut self.plain,
            Variant::WithPrev => &mut self.with_prev,
        }
    }

    /// Adds an event to a watcher's chain. `apart` keeps events apart that could share a link,
    /// for watchers whose responses may have to be cut between them.
    pub(super) fn link(
        &mut self,
        chain: Option<Chain>,
        variant: Variant,
        stretch: Stretch,
        revision: Revision,
        apart: bool,
    ) -> Chain {
        if let Some(chain) = chain
            && !apart
        {
            let last = &mut self.links[chain.last as usize];
            if last.revision == revision && last.stretch.end == stretch.start {
                last.stretch.end = stretch.end;
                return chain;
            }
        }
        let index = u32::try_from(self.links.len()).expect("passes are bounded far below 2^32");
        self.links.push(Link { stretch, revision, next: NO_LINK });
        match chain {
            None => Chain { first: index, last: index, variant },
            Some(chain) => {
                self.links[chain.last as usize].next = index;
                Chain { last: index, ..chain }
            }
        }
    }

    /// Turns a chain into responses, leaving out the revisions from `cut` on. `fragment_size`
    /// is where a response is cut inside a revision, for the watchers that can bear it.
    pub(super) fn push_chain(
        &mut self,
        watcher: Key,
        epoch: u32,
        chain: Chain,
        cut: Option<Revision>,
        fragment_size_bytes: Option<usize>,
    ) {
        let mut at = chain.first;
        while at != NO_LINK {
            let first = at;
            let first_revision = self.links[at as usize].revision;
            let mut last_revision = first_revision;
            let (mut count, mut size_bytes) = (0, 0);
            while at != NO_LINK {
                let link = &self.links[at as usize];
                if cut.is_some_and(|cut| link.revision >= cut) {
                    at = NO_LINK;
                    break;
                }
                if link.revision != last_revision && size_bytes >= RESPONSE_SIZE_BYTES_MAX {
                    break;
                }
                last_revision = link.revision;
                count += 1;
                size_bytes += link.stretch.end - link.stretch.start;
                at = link.next;
            }
            if count == 0 {
                return;
            }
            let variant = chain.variant;
            let output = EventsOutput {
                watcher,
                epoch,
                first_revision,
                header_revision: self.read_at.unwrap_or(last_revision),
                continued: false,
                fragment: false,
                variant,
                first,
                count,
                size_bytes,
            };
            match fragment_size_bytes {
                Some(limit) if size_bytes + HEAD_SIZE_BYTES_MAX >= limit => {
                    self.push_fragments(output, limit);
                }
                _ => self.push(Output::Events(output)),
            }
        }
    }

    fn push_fragments(&mut self, whole: EventsOutput, limit: usize) {
        let mut left = whole.count;
        let mut at = whole.first;
        while left > 0 {
            let first = at;
            let (mut count, mut size_bytes) = (0, 0);
            while count < left {
                let link = &self.links[at as usize];
                let size = link.stretch.end - link.stretch.start;
                // One event is never cut, however large.
                if count > 0 && size_bytes + size + HEAD_SIZE_BYTES_MAX >= limit {
                    break;
                }
                count += 1;
                size_bytes += size;
                at = link.next;
            }
            let continued = left < whole.count;
            left -= count;
            let part = EventsOutput { first, count, size_bytes, continued, ..whole };
            self.push(Output::Events(EventsOutput { fragment: left > 0, ..part }));
        }
    }

    /// The response of an events output, ready to be sent.
    pub(super) fn events_response(
        &mut self,
        output: &EventsOutput,
        stream: StreamId,
        watch_id: i64,
        header: Header,
    ) -> WatchOutput<'_> {
        self.head.clear();
        let header = Header { revision: output.header_revision.0, ..header };
        wire::put_header(&mut self.head, &header);
        wire::put_int64(&mut self.head, 2, watch_id);
        wire::put_bool(&mut self.head, 7, output.fragment);
        let arena = match output.variant {
            Variant::Plain => &self.plain,
            Variant::WithPrev => &self.with_prev,
        };
        WatchOutput {
            stream,
            head: &self.head,
            arena,
            links: &self.links,
            first: output.first,
            count: output.count,
            size_bytes: output.size_bytes,
        }
    }

    /// A response without events.
    pub(super) fn control_response(
        &mut self,
        stream: StreamId,
        response: &pb::WatchResponse,
    ) -> WatchOutput<'_> {
        self.head.clear();
        prost::Message::encode_raw(response, &mut self.head);
        WatchOutput {
            stream,
            head: &self.head,
            arena: &[],
            links: &[],
            first: NO_LINK,
            count: 0,
            size_bytes: 0,
        }
    }
}

/// The message of an output that carries no events.
pub(super) fn control_message(output: &Output, header: Header) -> pb::WatchResponse {
    let message = |revision: Revision, watch_id: i64| pb::WatchResponse {
        header: Some(header.to_proto(revision.0)),
        watch_id,
        ..pb::WatchResponse::default()
    };
    match *output {
        Output::Events(_) => unreachable!("events are not a control message"),
        Output::Progress { watch_id, revision, .. } => message(revision, watch_id),
        Output::Created { watch_id, revision, .. } => {
            pb::WatchResponse { created: true, ..message(revision, watch_id) }
        }
        Output::Refused { refusal, revision, .. } => pb::WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: status::cancel_reason_of(refusal).to_owned(),
            ..message(revision, super::WATCH_ID_NONE)
        },
        Output::Canceled { watch_id, revision, .. } => {
            pb::WatchResponse { canceled: true, ..message(revision, watch_id) }
        }
        Output::Compacted { watch_id, compacted, .. } => pb::WatchResponse {
            canceled: true,
            compact_revision: compacted.0,
            // etcd fills no revision into this one.
            ..message(Revision(0), watch_id)
        },
        Output::Broken { watch_id, .. } => {
            let (_, text) = status::status_of(status::Refusal::Corrupt);
            let cancel_reason = text.to_owned();
            pb::WatchResponse { canceled: true, cancel_reason, ..message(Revision(0), watch_id) }
        }
    }
}
