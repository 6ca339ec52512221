//! Why a log is not opened: damage by place, never guessed away.
//!
//! A refused log is left exactly as it was found. The member that owns it must not serve: it has
//! forgotten votes or acknowledged records, so it is removed and added anew under another id.

use std::fmt;

use crate::disk::Failure;
use crate::record::Lsn;
use crate::segment::{SegmentSequence, segment_file_name};

/// What was found instead of a log that can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Records known to have been durable cannot be read.
    Rot {
        /// The file with the hole.
        segment: SegmentSequence,
        /// Where the last whole batch ends.
        offset: u64,
        /// The missing record's number within its segment, counted from 1.
        record: u32,
        /// How far the log was durable according to what lies behind.
        claimed: Lsn,
        /// Where that claim was found.
        claimed_at: Lsn,
    },
    /// The first block of a segment with records is lost.
    HeadLost {
        /// The file.
        segment: SegmentSequence,
    },
    /// A file that must be there is not.
    SegmentMissing {
        /// The file.
        segment: SegmentSequence,
    },
    /// The log ends before a position that its owner has seen durable.
    EndsBefore {
        /// Where it ends.
        end: Lsn,
        /// What the owner asked to replay from.
        needed: Lsn,
    },
    /// The segment belongs to another log.
    Foreign {
        /// The file.
        segment: SegmentSequence,
    },
    /// The segment was written by a version that this program does not know.
    VersionUnknown {
        /// The file.
        segment: SegmentSequence,
        /// The version.
        version: u32,
    },
    /// A record's kind is reserved and unknown: a later version wrote it.
    KindUnknown {
        /// The file.
        segment: SegmentSequence,
        /// Where the record begins.
        offset: u64,
        /// The kind.
        kind: u8,
    },
    /// The segment's size is not the one of this log.
    SizeWrong {
        /// The file.
        segment: SegmentSequence,
        /// What was found.
        found_bytes: u64,
        /// What the configuration says.
        expected_bytes: u64,
    },
    /// A whole head that its file cannot have: renamed by hand, or copied.
    Misplaced {
        /// The file.
        segment: SegmentSequence,
    },
    /// A file named like a segment but not by us.
    NameUnknown {
        /// The name.
        name: String,
    },
    /// There is no log, and the owner knows that there must be one.
    Absent,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("wal: ")?;
        match self {
            Self::Rot { segment, offset, record, claimed, claimed_at } => write!(
                formatter,
                "segment {} is damaged at offset {offset}, record {record}: the log was durable \
                 up to position {claimed}, says the record at position {claimed_at}",
                segment_file_name(*segment)
            ),
            Self::HeadLost { segment } => {
                write!(formatter, "segment {} has lost its head", segment_file_name(*segment))
            }
            Self::SegmentMissing { segment } => {
                write!(formatter, "segment {} is missing", segment_file_name(*segment))
            }
            Self::EndsBefore { end, needed } => write!(
                formatter,
                "the log ends at position {end}, but position {needed} was durable"
            ),
            Self::Foreign { segment } => {
                write!(formatter, "segment {} is of another log", segment_file_name(*segment))
            }
            Self::VersionUnknown { segment, version } => write!(
                formatter,
                "segment {} has format version {version}, which is not known here",
                segment_file_name(*segment)
            ),
            Self::KindUnknown { segment, offset, kind } => write!(
                formatter,
                "segment {} has a record of unknown kind {kind:#x} at offset {offset}",
                segment_file_name(*segment)
            ),
            Self::SizeWrong { segment, found_bytes, expected_bytes } => write!(
                formatter,
                "segment {} has {found_bytes} bytes, not {expected_bytes}",
                segment_file_name(*segment)
            ),
            Self::Misplaced { segment } => write!(
                formatter,
                "segment {} carries the head of another segment",
                segment_file_name(*segment)
            ),
            Self::NameUnknown { name } => write!(formatter, "file {name:?} is no segment"),
            Self::Absent => formatter.write_str("there is no log, but there was one"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Why recovery ended without a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// The disk refused an operation; another attempt may succeed.
    Disk(Failure),
    /// The log was read and cannot be trusted.
    Refused(Refusal),
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(failure) => failure.fmt(formatter),
            Self::Refused(refusal) => refusal.fmt(formatter),
        }
    }
}

impl std::error::Error for RecoveryError {}
