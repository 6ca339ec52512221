//! The KV service: requests into command frames or reads, outcomes into answers.
//!
//! A write is decoded from the receive buffer, checked and written as a frame; its only copy
//! before the log is the one into the frame. A range is encoded from the view's pages straight
//! into the answer. What an answer needs to be encoded is in the engine's outcome alone, so nothing
//! has to be remembered about a request while it is in the log.

use engine::answer::{Answer, OperationOutcome, Outcome, OwnedRecord, ReadError, TxnOutcome};
use engine::command::{CompactRef, FrameWriter};
use engine::ids::Revision;
use engine::limits::BYTES_PER_KEY;
use engine::range::{Progress, RangeQuery, RangeScan, Record, RecordSink};
use engine::txn::TxnScan;
use engine::view::View;
use prost::Message;

use super::decode::{self, RangeRequest, RequestOp, TxnRequest};
use super::maintenance;
use super::proto::etcdserverpb as pb;
use super::sink::AnswerSink;
use super::status::Refusal;
use super::validate::{self, RequestSizer};
use super::wire::{self, Header};

/// Checks a put and appends its frame.
pub(super) fn push_put(
    message: &[u8],
    sizer: &RequestSizer,
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let put = decode::decode_put(message)?;
    validate::check_put(&put)?;
    sizer.check(message.len(), || canonical_len::<pb::PutRequest>(message))?;
    writer.push_put(frames, &put);
    Ok(())
}

/// Checks a delete and appends its frame.
pub(super) fn push_delete_range(
    message: &[u8],
    sizer: &RequestSizer,
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let delete = decode::decode_delete_range(message)?;
    validate::check_delete_range(&delete)?;
    sizer.check(message.len(), || canonical_len::<pb::DeleteRangeRequest>(message))?;
    writer.push_delete_range(frames, &delete);
    Ok(())
}

/// Appends the frame of a compaction; whether the revision will do is the engine's to say.
pub(super) fn push_compaction(
    message: &[u8],
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let compaction = decode::decode_compaction(message)?;
    let revision = Revision(compaction.revision);
    writer.push_compact(frames, CompactRef { revision, physical: compaction.physical });
    Ok(())
}

/// What became of a transaction.
#[allow(clippy::large_enum_variant, reason = "it lives for the few lines until it is matched")]
pub(super) enum TxnAction {
    /// It writes: its frame was appended.
    Pushed,
    /// It only reads, and need not go through the log.
    Read {
        /// The transaction, ready to run on a view.
        scan: TxnScan,
        /// Every range in it may be stale.
        serializable: bool,
    },
}

/// Checks a transaction and appends its frame, unless it only reads.
pub(super) fn push_txn(
    message: &[u8],
    ops_max: usize,
    sizer: &RequestSizer,
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<TxnAction, Refusal> {
    let request = decode::decode_txn(message)?;
    let reads = reads_only(&request);
    let txn = validate::check_txn(request, ops_max)?;
    if let Some(serializable) = reads {
        return Ok(TxnAction::Read { scan: TxnScan::new(&txn), serializable });
    }
    sizer.check(message.len(), || canonical_len::<pb::TxnRequest>(message))?;
    writer.push_txn(frames, &txn);
    Ok(TxnAction::Pushed)
}

/// `Some` if both branches hold ranges and nothing else; inside, whether all are serializable. A
/// nested transaction counts as a write even if it only reads, and an empty transaction as a
/// serializable read: both are etcd's rules.
fn reads_only(txn: &TxnRequest<'_>) -> Option<bool> {
    let mut serializable = true;
    for op in txn.success.iter().chain(&txn.failure) {
        let RequestOp::Range(range) = op else { return None };
        serializable &= range.serializable;
    }
    Some(serializable)
}

/// What our own encoder would make of a message: only asked for near the size limit.
fn canonical_len<M: Message + Default>(message: &[u8]) -> Option<usize> {
    M::decode(message).ok().map(|message| message.encoded_len())
}

/// A range in the course of being answered.
pub(super) struct RangeRead {
    scan: RangeScan,
    begun: bool,
    /// The answer's size so far.
    size_bytes: u64,
}

impl RangeRead {
    /// Checks a range and makes it ready to run.
    pub(super) fn new(request: &RangeRequest<'_>) -> Result<Self, Refusal> {
        let query: RangeQuery<'_> = validate::check_range(request)?;
        Ok(Self { scan: RangeScan::new(&query), begun: false, size_bytes: 0 })
    }

    /// Refuses what a view refuses, before there is an answer.
    pub(super) fn open(&mut self, view: &View) -> Result<(), ReadError> {
        self.scan.open(view)
    }

    /// Whether more than one key is asked for.
    pub(super) fn is_wide(&self) -> bool {
        self.scan.is_wide()
    }

    /// Bytes that wait to be sorted.
    pub(super) fn held_bytes(&self) -> usize {
        self.scan.held_bytes()
    }

    /// An estimate of the records to come.
    pub(super) fn records_max(&self) -> i64 {
        self.scan.records_max().unwrap_or(i64::MAX)
    }

    /// The answer's size so far, whether it was written or had become too large for that.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Goes on; `out` holds what the steps before appended. Refused when it is opened or never,
    /// but for damage and for a compaction that overtakes the scan. An answer that has become
    /// larger than `size_bytes_max` is no longer written, only measured.
    pub(super) fn step(
        &mut self,
        view: &View,
        header: Header,
        budget: &mut usize,
        size_bytes_max: u64,
        out: &mut impl AnswerSink,
    ) -> Result<Progress, ReadError> {
        self.scan.open(view)?;
        let step_size_bytes = budget.saturating_mul(BYTES_PER_KEY) as u64;
        let mut encoder = RecordEncoder {
            out,
            size_bytes: self.size_bytes,
            size_bytes_max,
            full_at: self.size_bytes.saturating_add(step_size_bytes),
        };
        if !self.begun {
            let revision = self.scan.summary().revision.0;
            encoder.put(|out| wire::put_header(out, &Header { revision, ..header }));
            self.begun = true;
        }
        let before = encoder.size_bytes;
        let progress = self.scan.step_within(view, budget, &mut encoder)?;
        let brought = usize::try_from(encoder.size_bytes - before).unwrap_or(usize::MAX);
        *budget = budget.saturating_sub(brought / BYTES_PER_KEY);
        if progress == Progress::Done {
            let summary = self.scan.summary();
            encoder.put(|out| {
                wire::put_bool(out, 3, summary.more);
                wire::put_int64(out, 4, summary.count);
            });
        }
        self.size_bytes = encoder.size_bytes;
        Ok(progress)
    }
}

/// Appends the records of a range to its answer.
struct RecordEncoder<'o, O> {
    out: &'o mut O,
    size_bytes: u64,
    size_bytes_max: u64,
    /// The size at which the step ends.
    full_at: u64,
}

impl<O: AnswerSink> RecordEncoder<'_, O> {
    /// Appends a few small fields.
    fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.size_bytes > self.size_bytes_max {
            let mut fields = Vec::new();
            write(&mut fields);
            self.size_bytes += fields.len() as u64;
            return;
        }
        let bytes = self.out.bytes();
        let before = bytes.len();
        write(bytes);
        self.size_bytes += (bytes.len() - before) as u64;
        if self.size_bytes > self.size_bytes_max {
            bytes.truncate(before);
        }
        self.out.cut();
    }
}

impl<O: AnswerSink> RecordSink for RecordEncoder<'_, O> {
    #[inline]
    fn record(&mut self, record: Record<'_>) {
        let len = wire::record_len(&record);
        self.size_bytes += wire::nested_len(len) as u64;
        if self.size_bytes <= self.size_bytes_max {
            wire::put_record_of_len(self.out.bytes(), 2, &record, len);
            self.out.cut();
        }
    }

    #[inline]
    fn is_full(&self) -> bool {
        // Measuring alone costs nothing that depends on sizes.
        self.size_bytes >= self.full_at && self.size_bytes <= self.size_bytes_max
    }
}

/// Appends the answer to a command; `header` lacks the revision, which the answer knows.
pub(super) fn put_answer(
    out: &mut Vec<u8>,
    header: Header,
    answer: &Answer,
) -> Result<(), Refusal> {
    let header = Header { revision: answer.revision.0, ..header };
    match &answer.outcome {
        Outcome::Rejected(rejection) => return Err(Refusal::Rejected(*rejection)),
        Outcome::Put { prev } => put_put_response(out, &header, prev.as_ref()),
        Outcome::DeleteRange { deleted, prevs } => {
            put_delete_response(out, &header, *deleted, prevs);
        }
        Outcome::Txn(txn) => {
            wire::put_header(out, &header);
            put_txn_outcome(out, txn);
        }
        Outcome::LeaseGranted(grant) => {
            wire::put_header(out, &header);
            wire::put_int64(out, 2, grant.id.0);
            wire::put_int64(out, 3, grant.ttl_seconds);
        }
        Outcome::Alarm(alarm) => maintenance::put_alarms(out, &header, alarm.as_slice()),
        Outcome::Downgrade { version } => maintenance::put_downgrade(out, &header, *version),
        Outcome::Compacted { .. } | Outcome::LeaseRevoked | Outcome::System => {
            wire::put_header(out, &header);
        }
    }
    Ok(())
}

/// Appends the answer to a transaction that only read.
pub(super) fn put_txn_read(out: &mut Vec<u8>, header: Header, scan: TxnScan) {
    wire::put_header(out, &Header { revision: scan.revision().0, ..header });
    put_txn_outcome(out, &scan.into_outcome());
}

fn put_put_response(out: &mut Vec<u8>, header: &Header, prev: Option<&OwnedRecord>) {
    wire::put_header(out, header);
    if let Some(prev) = prev {
        wire::put_record(out, 2, &prev.as_record());
    }
}

fn put_delete_response(out: &mut Vec<u8>, header: &Header, deleted: i64, prevs: &[OwnedRecord]) {
    wire::put_header(out, header);
    wire::put_int64(out, 2, deleted);
    for prev in prevs {
        wire::put_record(out, 3, &prev.as_record());
    }
}

/// The fields of a `TxnResponse` behind its header. Nesting is as deep as decoding allowed.
fn put_txn_outcome(out: &mut Vec<u8>, txn: &TxnOutcome) {
    wire::put_bool(out, 2, txn.succeeded);
    for response in &txn.responses {
        wire::put_nested(out, 3, |out| put_operation_outcome(out, response));
    }
}

/// The one field of a `ResponseOp`. Headers inside a transaction say the revision and nothing
/// else; a nested transaction's own header is there and empty.
fn put_operation_outcome(out: &mut Vec<u8>, response: &OperationOutcome) {
    let inner = |revision: &Revision| Header { revision: revision.0, ..Header::default() };
    match response {
        OperationOutcome::Range { revision, records, count, more } => {
            wire::put_nested(out, 1, |out| {
                wire::put_header(out, &inner(revision));
                for record in records {
                    wire::put_record(out, 2, &record.as_record());
                }
                wire::put_bool(out, 3, *more);
                wire::put_int64(out, 4, *count);
            });
        }
        OperationOutcome::Put { revision, prev } => wire::put_nested(out, 2, |out| {
            put_put_response(out, &inner(revision), prev.as_ref());
        }),
        OperationOutcome::DeleteRange { revision, deleted, prevs } => {
            wire::put_nested(out, 3, |out| {
                put_delete_response(out, &inner(revision), *deleted, prevs);
            });
        }
        OperationOutcome::Txn(txn) => wire::put_nested(out, 4, |out| {
            wire::put_header(out, &Header::default());
            put_txn_outcome(out, txn);
        }),
    }
}

#[cfg(test)]
mod tests;
