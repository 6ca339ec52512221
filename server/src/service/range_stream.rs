//! `RangeStream`: a range in messages, at one revision.
//!
//! One scan runs over the whole range; its records are cut into messages where etcd cuts them: ten
//! first, then twice as many or half as many as in the message before, so that each is about as
//! large as a request may be. The header, the count and whether the limit cut something off come
//! with the last message, so a message leaves only when it is known whether another one follows.
//! Keys alone bound no message whose values are much larger than those before: beyond a size that
//! is far above what is aimed at, a message ends where etcd's goes on.
//!
//! Invariants:
//! - All messages show the range at the revision that the first step saw.
//! - No more than two messages are held.

mod sorted;

use engine::answer::ReadError;
use engine::limits::BYTES_PER_KEY;
use engine::range::{Progress, RangeQuery, RangeScan, Record, RecordSink, SortOrder, SortTarget};
use engine::view::View;

use super::decode::RangeRequest;
use super::status::Refusal;
use super::stream::StreamProgress;
use super::validate;
use super::wire::{self, Header};
use sorted::SortedStream;

/// Keys of the first message; etcd's number.
const FIRST_KEYS_MAX: i64 = 10;
/// The size at which a message ends, or four times what is aimed at if that is more: values that
/// grow slowly never come here. A few of these are what a stream holds.
const MESSAGE_SIZE_BYTES_MAX: usize = 8 << 20;

/// The fields of a `RangeResponse` without its header.
#[derive(Default)]
struct Chunk {
    records: Vec<u8>,
    count: i64,
}

/// A range on its way.
pub(super) enum RangeStream {
    /// In the order of its keys.
    InOrder(Box<InOrder>),
    /// Each message in an order of its own.
    Sorted(Box<SortedStream>),
}

/// A range in the order of its keys.
pub(super) struct InOrder {
    scan: RangeScan,
    count_only: bool,
    chunk: Chunk,
    /// A message that another one follows.
    ready: Option<Chunk>,
    keys_max: i64,
    size_bytes_target: usize,
    is_scanned: bool,
    is_over: bool,
}

impl RangeStream {
    /// Checks a request and makes it ready to run. A message is to be about `size_bytes_target`.
    pub(super) fn new(
        request: &RangeRequest<'_>,
        size_bytes_target: usize,
    ) -> Result<Self, Refusal> {
        let query = validate::check_range(request)?;
        let in_order = match query.sort_order {
            SortOrder::None => true,
            SortOrder::Ascend => query.sort_target == SortTarget::Key,
            SortOrder::Descend => false,
        };
        if !in_order {
            return Err(Refusal::StreamOrder);
        }
        let bounds = [query.min_mod_revision, query.max_mod_revision];
        let created = [query.min_create_revision, query.max_create_revision];
        if bounds.iter().chain(&created).any(|&bound| bound != 0) {
            return Err(Refusal::StreamFilters);
        }
        // A limit below zero is none, and then etcd's first message has everything.
        let keys_max = if query.limit < 0 { i64::MAX } else { FIRST_KEYS_MAX };
        if query.sort_target != SortTarget::Key && !query.count_only {
            let sorted = SortedStream::new(&query, keys_max, size_bytes_target);
            return Ok(Self::Sorted(Box::new(sorted)));
        }
        Ok(Self::InOrder(Box::new(InOrder {
            scan: RangeScan::new(&RangeQuery { sort_target: SortTarget::Key, ..query }),
            count_only: query.count_only,
            chunk: Chunk::default(),
            ready: None,
            keys_max,
            size_bytes_target,
            is_scanned: false,
            is_over: false,
        })))
    }

    /// Takes a step; a message that is complete is appended to `out`.
    pub(super) fn step(
        &mut self,
        view: &View,
        header: Header,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<StreamProgress, ReadError> {
        match self {
            Self::InOrder(range) => range.step(view, header, budget, out),
            Self::Sorted(range) => range.step(view, header, budget, out),
        }
    }
}

impl InOrder {
    fn step(
        &mut self,
        view: &View,
        header: Header,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<StreamProgress, ReadError> {
        if self.is_over {
            return Ok(StreamProgress::Done);
        }
        if !self.is_scanned {
            let keys_max = self.keys_max;
            let mut cutter = Cutter {
                chunk: &mut self.chunk,
                ready: &mut self.ready,
                keys_max,
                size_bytes_max: message_size_bytes_max(self.size_bytes_target),
                taken_bytes: 0,
                taken_bytes_max: budget.saturating_mul(BYTES_PER_KEY),
            };
            let progress = self.scan.step_within(view, budget, &mut cutter)?;
            *budget = budget.saturating_sub(cutter.taken_bytes / BYTES_PER_KEY);
            self.is_scanned = progress == Progress::Done;
        }
        if let Some(chunk) = self.ready.take() {
            self.keys_max = next_keys_max(self.keys_max, &chunk, self.size_bytes_target);
            put_message(out, |out| out.extend_from_slice(&chunk.records));
            return Ok(StreamProgress::Message);
        }
        if !self.is_scanned {
            return Ok(StreamProgress::More);
        }
        self.is_over = true;
        let summary = self.scan.summary();
        let header = Header { revision: summary.revision.0, ..header };
        put_last(out, &header, &self.chunk, summary.more && !self.count_only, summary.count);
        Ok(StreamProgress::Message)
    }
}

/// The size at which a message ends.
fn message_size_bytes_max(size_bytes_target: usize) -> usize {
    MESSAGE_SIZE_BYTES_MAX.max(size_bytes_target.saturating_mul(4))
}

/// How many keys the next message may have.
fn next_keys_max(keys_max: i64, last: &Chunk, size_bytes_target: usize) -> i64 {
    let keys_max = if last.records.len() < size_bytes_target / 2 {
        keys_max.saturating_mul(2)
    } else if last.records.len() > size_bytes_target.saturating_mul(2) {
        keys_max / 2
    } else {
        keys_max
    };
    keys_max.max(1)
}

/// Puts records into messages.
struct Cutter<'c> {
    chunk: &'c mut Chunk,
    ready: &'c mut Option<Chunk>,
    keys_max: i64,
    size_bytes_max: usize,
    taken_bytes: usize,
    /// At which the step ends.
    taken_bytes_max: usize,
}

impl RecordSink for Cutter<'_> {
    fn record(&mut self, record: Record<'_>) {
        let is_large = self.chunk.records.len() >= self.size_bytes_max;
        if self.chunk.count >= self.keys_max || is_large {
            assert!(self.ready.is_none(), "a step ends when a message is ready");
            *self.ready = Some(std::mem::take(self.chunk));
        }
        let before = self.chunk.records.len();
        wire::put_record(&mut self.chunk.records, 2, &record);
        self.chunk.count += 1;
        self.taken_bytes += self.chunk.records.len() - before;
    }

    fn is_full(&self) -> bool {
        self.ready.is_some() || self.taken_bytes >= self.taken_bytes_max
    }
}

/// A `RangeStreamResponse`.
fn put_message(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    wire::put_nested(out, 1, write);
}

/// The last of them, which says what the whole range is.
fn put_last(out: &mut Vec<u8>, header: &Header, chunk: &Chunk, more: bool, count: i64) {
    put_message(out, |out| {
        wire::put_header(out, header);
        out.extend_from_slice(&chunk.records);
        wire::put_bool(out, 3, more);
        wire::put_int64(out, 4, count);
    });
}

#[cfg(test)]
mod tests;
