//! Answers of many messages that the server alone sends, made step by step.
//!
//! The owner steps a stream when the call's client has room, gives it a share of its turn, and sends
//! the message that a step has made. Each kind says whether its steps need one and the same view.
//!
//! Invariants:
//! - A step makes one message at most, and what it holds besides is bounded by the largest record.
//! - The messages of a backup are those of etcd: blobs of 32 KiB, what is left of the file with
//!   each, and the digest in a message of its own behind them.

use std::collections::VecDeque;

use engine::backup::{BackupFacts, BackupScan};
use engine::bbolt::DIGEST_SIZE_BYTES;
use engine::bbolt::schema::Member;
use engine::range::Progress;
use engine::view::View;

use super::node_state::NodeState;
use super::range_stream::RangeStream;
use super::wire;

/// The bytes of a file in one message; etcd's number.
const BLOB_SIZE_BYTES: usize = 32 << 10;

/// A streaming answer on its way.
pub struct ServerStream {
    pub(super) job: StreamJob,
    read_index_needed: bool,
}

pub(super) enum StreamJob {
    Backup(Box<BackupStream>),
    Range(Box<RangeStream>),
}

/// What a step has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamProgress {
    /// A message was appended to `out`.
    Message,
    /// The budget was spent on the next message.
    More,
    /// There are no further messages.
    Done,
}

impl ServerStream {
    /// The answer to `Snapshot`.
    #[must_use]
    pub(super) fn backup(node: &NodeState) -> Self {
        let job = StreamJob::Backup(Box::new(BackupStream::new(node)));
        Self { job, read_index_needed: false }
    }

    /// The answer to `RangeStream`.
    #[must_use]
    pub(super) fn range(range: RangeStream, read_index_needed: bool) -> Self {
        Self { job: StreamJob::Range(Box::new(range)), read_index_needed }
    }

    /// The first step has to wait for a read-index round.
    #[must_use]
    pub fn needs_read_index(&self) -> bool {
        self.read_index_needed
    }

    /// All steps have to see one and the same view, which the owner holds meanwhile.
    #[must_use]
    pub fn needs_same_view(&self) -> bool {
        match self.job {
            StreamJob::Backup(_) => true,
            StreamJob::Range(_) => false,
        }
    }
}

impl std::fmt::Debug for ServerStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let job = match self.job {
            StreamJob::Backup(_) => "backup",
            StreamJob::Range(_) => "range",
        };
        write!(formatter, "ServerStream({job})")
    }
}

/// A backup being sent.
pub(super) struct BackupStream {
    scan: BackupScan,
    /// What was made and not sent.
    chunks: VecDeque<Vec<u8>>,
    /// How much of the first of them was sent.
    chunk_sent_bytes: usize,
    pending_bytes: usize,
    is_scanned: bool,
    /// Of the file, without the digest.
    file_sent_bytes: u64,
    is_digest_sent: bool,
}

impl BackupStream {
    fn new(node: &NodeState) -> Self {
        let member = |member: &super::node_state::MemberEntry| Member {
            id: member.id,
            peer_urls: member.peer_urls.clone(),
            is_learner: member.learner,
            ..Member::default()
        };
        let facts = BackupFacts { members: node.members.iter().map(member).collect() };
        Self {
            scan: BackupScan::new(facts),
            chunks: VecDeque::new(),
            chunk_sent_bytes: 0,
            pending_bytes: 0,
            is_scanned: false,
            file_sent_bytes: 0,
            is_digest_sent: false,
        }
    }

    pub(super) fn step(
        &mut self,
        view: &View,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<StreamProgress, engine::ReadError> {
        if self.is_digest_sent {
            return Ok(StreamProgress::Done);
        }
        if self.blob_size_bytes().is_none() && !self.is_scanned {
            self.is_scanned = self.scan.step(view, budget)? == Progress::Done;
            while let Some(chunk) = self.scan.poll_bytes() {
                self.pending_bytes += chunk.len();
                self.chunks.push_back(chunk);
            }
        }
        let Some(blob_size_bytes) = self.blob_size_bytes() else {
            assert!(!self.is_scanned, "a backup ends with its digest");
            return Ok(StreamProgress::More);
        };
        let version = view.cluster_version()?.unwrap_or_default();
        self.put_message(blob_size_bytes, &version, out);
        Ok(StreamProgress::Message)
    }

    /// The size of the next blob, once it is all there.
    fn blob_size_bytes(&self) -> Option<usize> {
        let left = self.scan.file_size_bytes()? - self.file_sent_bytes;
        let size_bytes = if left > 0 {
            usize::try_from(left).map_or(BLOB_SIZE_BYTES, |left| left.min(BLOB_SIZE_BYTES))
        } else {
            DIGEST_SIZE_BYTES
        };
        (self.pending_bytes >= size_bytes).then_some(size_bytes)
    }

    fn put_message(&mut self, blob_size_bytes: usize, version: &str, out: &mut Vec<u8>) {
        let file_bytes = self.scan.file_size_bytes().expect("there is a blob");
        if self.file_sent_bytes == file_bytes {
            self.is_digest_sent = true;
        } else {
            self.file_sent_bytes += blob_size_bytes as u64;
        }
        wire::put_uint64(out, 2, file_bytes - self.file_sent_bytes);
        wire::put_len(out, 3, blob_size_bytes);
        let mut left = blob_size_bytes;
        while left > 0 {
            let chunk = self.chunks.front().expect("as much is pending");
            let rest = &chunk[self.chunk_sent_bytes..];
            let part = &rest[..left.min(rest.len())];
            out.extend_from_slice(part);
            left -= part.len();
            self.chunk_sent_bytes += part.len();
            if self.chunk_sent_bytes == chunk.len() {
                self.chunks.pop_front();
                self.chunk_sent_bytes = 0;
            }
        }
        self.pending_bytes -= blob_size_bytes;
        if !version.is_empty() {
            wire::put_len(out, 4, version.len());
            out.extend_from_slice(version.as_bytes());
        }
    }
}
