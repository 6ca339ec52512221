//! A streamed range with a target to sort by and no order.
//!
//! etcd takes no order for the order of keys and cuts the range by it, then sorts each message by
//! the target, and goes on behind the key that came to stand last in it: a range longer than one
//! message may lack keys or repeat some. Who asks for this gets the same here.

use engine::answer::{OwnedRecord, ReadError};
use engine::ids::Revision;
use engine::range::{Progress, RangeQuery, RangeScan, SortOrder, SortTarget};
use engine::view::View;

use super::super::stream::StreamProgress;
use super::super::wire::{self, Header};
use super::{Chunk, message_size_bytes_max, next_keys_max, put_last, put_message};

/// What is being read.
enum Doing {
    /// The records of the next message.
    Records,
    /// How many keys lie behind the last message.
    Counting(Chunk),
}

/// Such a range on its way.
pub(in crate::service) struct SortedStream {
    key: Vec<u8>,
    range_end: Vec<u8>,
    target: SortTarget,
    keys_only: bool,
    /// The most records of all messages together; zero for no bound.
    limit: i64,
    /// Pinned by the first message.
    revision: i64,
    header_revision: Revision,
    sent: i64,
    keys_max: i64,
    size_bytes_target: usize,
    doing: Doing,
    scan: Option<RangeScan>,
    records: Vec<OwnedRecord>,
    is_over: bool,
}

impl SortedStream {
    pub(super) fn new(query: &RangeQuery<'_>, keys_max: i64, size_bytes_target: usize) -> Self {
        Self {
            key: query.key.to_vec(),
            range_end: query.range_end.to_vec(),
            target: query.sort_target,
            keys_only: query.keys_only,
            limit: query.limit.max(0),
            revision: query.revision,
            header_revision: Revision(0),
            sent: 0,
            keys_max,
            size_bytes_target,
            doing: Doing::Records,
            scan: None,
            records: Vec::new(),
            is_over: false,
        }
    }

    pub(super) fn step(
        &mut self,
        view: &View,
        header: Header,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<StreamProgress, ReadError> {
        if self.is_over {
            return Ok(StreamProgress::Done);
        }
        let mut scan = self.scan.take().unwrap_or_else(|| self.next_scan());
        if scan.step_within(view, budget, &mut self.records)? == Progress::More {
            let (count, size_bytes) = (scan.held_count(), scan.held_bytes());
            if size_bytes > message_size_bytes_max(self.size_bytes_target) && count > 1 {
                // The message would be too large: it is begun again, of half of what is there.
                self.keys_max = i64::try_from(count / 2).unwrap_or(i64::MAX);
                self.records.clear();
            } else {
                self.scan = Some(scan);
            }
            return Ok(StreamProgress::More);
        }
        let summary = scan.summary();
        if self.header_revision == Revision(0) {
            self.header_revision = summary.revision;
            self.revision = if self.revision > 0 { self.revision } else { summary.revision.0 };
        }
        let header = Header { revision: self.header_revision.0, ..header };
        if let Doing::Counting(last) = std::mem::replace(&mut self.doing, Doing::Records) {
            self.is_over = true;
            put_last(out, &header, &last, true, self.sent + summary.count);
            return Ok(StreamProgress::Message);
        }
        let chunk = self.take_chunk();
        self.sent += chunk.count;
        let is_last = !summary.more || self.sent == self.limit;
        if is_last && summary.more {
            self.doing = Doing::Counting(chunk);
            return Ok(StreamProgress::More);
        }
        if is_last {
            self.is_over = true;
            put_last(out, &header, &chunk, false, self.sent);
        } else {
            self.keys_max = next_keys_max(self.keys_max, &chunk, self.size_bytes_target);
            put_message(out, |out| out.extend_from_slice(&chunk.records));
        }
        Ok(StreamProgress::Message)
    }

    fn next_scan(&self) -> RangeScan {
        let left = if self.limit == 0 { i64::MAX } else { self.limit - self.sent };
        RangeScan::new(&RangeQuery {
            key: &self.key,
            range_end: &self.range_end,
            limit: self.keys_max.min(left),
            revision: self.revision,
            sort_order: SortOrder::None,
            sort_target: self.target,
            keys_only: self.keys_only,
            count_only: matches!(self.doing, Doing::Counting(_)),
            ..RangeQuery::default()
        })
    }

    /// The records of a message; the next one begins behind the last of them.
    fn take_chunk(&mut self) -> Chunk {
        let mut chunk = Chunk::default();
        for record in &self.records {
            wire::put_record(&mut chunk.records, 2, &record.as_record());
            chunk.count += 1;
        }
        if let Some(last) = self.records.last() {
            self.key.clone_from(&last.key);
            self.key.push(0);
        }
        self.records.clear();
        chunk
    }
}
