//! One random operation, as data that means the same in a shorter sequence, too.
//!
//! Revisions are written relative to the store's: a number beyond [`NOW`] or [`COMPACTED`] stands
//! for a distance, and becomes a revision when the operation runs.

use std::fmt;

use super::super::conversation::Conversation;
use super::super::watching::WatchId;
use super::super::wire::etcdserverpb as pb;

/// Stands for the store's revision; what is added or taken away is the distance.
pub const NOW: i64 = 1 << 40;
/// Stands for the compacted revision.
pub const COMPACTED: i64 = 1 << 50;
/// No distance is larger.
const DISTANCE_MAX: i64 = 1 << 20;
/// So many watch streams at once; a further one closes the oldest.
const STREAMS_MAX: usize = 5;

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Range.
    Range(pb::RangeRequest),
    /// RangeStream.
    RangeStream(pb::RangeRequest),
    /// Put.
    Put(pb::PutRequest),
    /// DeleteRange.
    Delete(pb::DeleteRangeRequest),
    /// Txn.
    Txn(pb::TxnRequest),
    /// Compact to a revision, physically or not.
    Compact(i64, bool),
    /// HashKV at a revision.
    HashKv(i64),
    /// LeaseGrant of an id for so many seconds.
    LeaseGrant(i64, i64),
    /// LeaseRevoke.
    LeaseRevoke(i64),
    /// LeaseKeepAlive, one renewal.
    LeaseKeepAlive(i64),
    /// LeaseTimeToLive, with keys or not.
    LeaseTimeToLive(i64, bool),
    /// LeaseLeases.
    LeaseLeases,
    /// A stream with watches, told as they are now and from now on.
    Watch(Vec<pb::WatchCreateRequest>),
    /// Cancels a watch of a stream.
    WatchCancel(usize, i64),
}

impl Operation {
    /// The RPC it asks.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Range(_) => "/etcdserverpb.KV/Range",
            Self::RangeStream(_) => "/etcdserverpb.KV/RangeStream",
            Self::Put(_) => "/etcdserverpb.KV/Put",
            Self::Delete(_) => "/etcdserverpb.KV/DeleteRange",
            Self::Txn(_) => "/etcdserverpb.KV/Txn",
            Self::Compact(..) => "/etcdserverpb.KV/Compact",
            Self::HashKv(_) => "/etcdserverpb.Maintenance/HashKV",
            Self::LeaseGrant(..) => "/etcdserverpb.Lease/LeaseGrant",
            Self::LeaseRevoke(_) => "/etcdserverpb.Lease/LeaseRevoke",
            Self::LeaseKeepAlive(_) => "/etcdserverpb.Lease/LeaseKeepAlive",
            Self::LeaseTimeToLive(..) => "/etcdserverpb.Lease/LeaseTimeToLive",
            Self::LeaseLeases => "/etcdserverpb.Lease/LeaseLeases",
            Self::Watch(_) | Self::WatchCancel(..) => "/etcdserverpb.Watch/Watch",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{self:?}");
        let mut rest = text.as_str();
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let length = rest[start..].find(|c: char| !c.is_ascii_digit());
            let end = length.map_or(rest.len(), |length| start + length);
            let (words, number) = (&rest[..start], &rest[start..end]);
            formatter.write_str(words)?;
            match number.parse::<i64>() {
                Ok(number) if is_near(number, NOW) => write!(formatter, "NOW{:+}", number - NOW)?,
                Ok(number) if is_near(number, COMPACTED) => {
                    write!(formatter, "COMPACTED{:+}", number - COMPACTED)?;
                }
                _ => formatter.write_str(number)?,
            }
            rest = &rest[end..];
        }
        formatter.write_str(rest)
    }
}

fn is_near(number: i64, from: i64) -> bool {
    (from - DISTANCE_MAX..=from + DISTANCE_MAX).contains(&number)
}

/// Runs operations one after the other.
#[derive(Default)]
pub struct Runner {
    compacted: i64,
    streams: Vec<WatchId>,
}

impl Runner {
    /// Runs one operation.
    pub fn run(&mut self, c: &mut Conversation<'_>, operation: &Operation) {
        let now = c.revision();
        match operation.clone() {
            Operation::Range(mut request) => {
                self.resolve_range(now, &mut request);
                c.range(request);
            }
            Operation::RangeStream(mut request) => {
                self.resolve_range(now, &mut request);
                c.range_stream(request);
            }
            Operation::Put(request) => {
                c.put(request);
            }
            Operation::Delete(request) => {
                c.delete(request);
            }
            Operation::Txn(mut request) => {
                self.resolve_txn(now, &mut request);
                c.txn(request);
            }
            Operation::Compact(revision, physical) => {
                let revision = self.resolved(now, revision);
                if c.compact(revision, physical).status.code == 0 {
                    self.compacted = revision;
                }
            }
            Operation::HashKv(revision) => {
                c.hash_kv(self.resolved(now, revision));
            }
            Operation::LeaseGrant(id, ttl) => {
                c.lease_grant(id, ttl);
            }
            Operation::LeaseRevoke(id) => {
                c.lease_revoke([id; 2]);
            }
            Operation::LeaseKeepAlive(id) => {
                c.lease_keep_alive([id; 2]);
            }
            Operation::LeaseTimeToLive(id, keys) => {
                c.lease_time_to_live([id; 2], keys);
            }
            Operation::LeaseLeases => {
                c.lease_leases();
            }
            Operation::Watch(creates) => self.watch(c, creates),
            Operation::WatchCancel(stream, watch_id) => {
                if let Some(id) = self.streams.get(stream) {
                    // Of events that are not told yet, a server may or may not tell some when it
                    // gets to the cancellation.
                    c.watch_settle(*id);
                    c.watch_cancel(*id, watch_id);
                    c.watch_fence(*id);
                }
            }
        }
    }

    /// Compares what all streams have told.
    pub fn settle(&mut self, c: &mut Conversation<'_>) {
        for id in &self.streams {
            c.watch_settle(*id);
        }
    }

    /// Opens a stream and waits until its watches have told the past: a compaction that overtakes
    /// them in one server and not in the other is no difference.
    fn watch(&mut self, c: &mut Conversation<'_>, creates: Vec<pb::WatchCreateRequest>) {
        if self.streams.len() == STREAMS_MAX {
            let oldest = self.streams.remove(0);
            c.watch_settle(oldest);
            c.watch_close(oldest);
        }
        let id = c.watch_open();
        self.streams.push(id);
        let now = c.revision();
        let mut reads_past = None;
        let mut starts = Vec::new();
        for mut create in creates {
            let mut start = self.resolved(now, create.start_revision);
            // etcd tells no progress of a stream with a watch that is cancelled by a compaction or
            // waits for the future, so that those who read the past have streams of their own.
            let is_past = start > 0 && (self.compacted..=now).contains(&start);
            if start != 0 && *reads_past.get_or_insert(is_past) != is_past {
                start = 0;
            }
            create.start_revision = start;
            starts.push(start);
            c.watch_create(id, create);
        }
        let refused = c.watch_wait_created(id, starts.len());
        let is_compacted = |(start, is_refused): &(&i64, &bool)| {
            !**is_refused && (1..self.compacted).contains(*start)
        };
        let compacted = starts.iter().zip(&refused).filter(is_compacted).count();
        if compacted > 0 {
            c.watch_wait_compacted(id, compacted);
        } else if reads_past == Some(true) && refused.contains(&false) {
            c.watch_catch_up(id);
        }
    }

    fn resolved(&self, now: i64, number: i64) -> i64 {
        if is_near(number, NOW) {
            now + (number - NOW)
        } else if is_near(number, COMPACTED) {
            self.compacted + (number - COMPACTED)
        } else {
            number
        }
    }

    fn resolve_range(&self, now: i64, request: &mut pb::RangeRequest) {
        for number in [
            &mut request.revision,
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ] {
            *number = self.resolved(now, *number);
        }
    }

    fn resolve_txn(&self, now: i64, request: &mut pb::TxnRequest) {
        use pb::compare::TargetUnion;
        use pb::request_op::Request;
        for compare in &mut request.compare {
            if let Some(TargetUnion::ModRevision(number) | TargetUnion::CreateRevision(number)) =
                &mut compare.target_union
            {
                *number = self.resolved(now, *number);
            }
        }
        for op in request.success.iter_mut().chain(&mut request.failure) {
            match &mut op.request {
                Some(Request::RequestRange(request)) => self.resolve_range(now, request),
                Some(Request::RequestTxn(request)) => self.resolve_txn(now, request),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_shown_as_distances() {
        let shown = |revision| Operation::HashKv(revision).to_string();
        assert_eq!(shown(NOW - 12), "HashKv(NOW-12)");
        assert_eq!(shown(COMPACTED + 1), "HashKv(COMPACTED+1)");
        assert_eq!(shown(-7), "HashKv(-7)");
    }

    #[test]
    fn distances_become_revisions_and_other_numbers_stay() {
        let runner = Runner { compacted: 30, streams: Vec::new() };
        assert_eq!(runner.resolved(100, NOW - 5), 95);
        assert_eq!(runner.resolved(100, COMPACTED + 1), 31);
        for number in [0, -1, 7, i64::MAX] {
            assert_eq!(runner.resolved(100, number), number);
        }
    }
}
