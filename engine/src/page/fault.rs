//! What can go wrong with pages: a fault names the place, a failure the operation.

use std::fmt;
use std::io;

use super::disk::FileId;
use super::ids::{PageId, TreeTag};

/// A page that cannot be used, named so that the CORRUPT alarm can say which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The file.
    pub file: FileId,
    /// The tree that led there.
    pub tree: TreeTag,
    /// The page, or the first page of the extent.
    pub page: PageId,
    /// What is wrong.
    pub what: FaultKind,
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A pointer leads outside the file.
    OutsideFile,
    /// The bytes do not have the checksum they were sealed with.
    Checksum,
    /// Another page's number stands in the header: the write went astray.
    WrongPage,
    /// The page was recycled after the pointer was written.
    WrongBirth,
    /// The page belongs to another tree.
    WrongTree,
    /// The checksum holds but the structure does not; the text says which rule is broken.
    Structure(&'static str),
    /// No free page is left: the batch was admitted without a reservation.
    NoFreePage,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideFile => f.write_str("pointer outside the file"),
            Self::Checksum => f.write_str("checksum does not match"),
            Self::WrongPage => f.write_str("another page's number in the header"),
            Self::WrongBirth => f.write_str("page was recycled"),
            Self::WrongTree => f.write_str("page of another tree"),
            Self::Structure(rule) => write!(f, "structure: {rule}"),
            Self::NoFreePage => f.write_str("no free page"),
        }
    }
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tree {} page {}: {}", self.file, self.tree, self.page, self.what)
    }
}

impl std::error::Error for PageFault {}

/// The reservation cannot be met now. The file may still grow: see `PageFile::poll_disk_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSpace {
    /// Pages wanted.
    pub wanted: u32,
    /// Pages free at this moment.
    pub free: u32,
    /// Whether growing the file would help; `false` when it has reached its bound.
    pub may_grow: bool,
}

impl fmt::Display for NoSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, free, may_grow } = self;
        write!(f, "no space: {wanted} pages wanted, {free} free, may grow: {may_grow}")
    }
}

impl std::error::Error for NoSpace {}

/// A page file could not be created or opened.
#[derive(Debug)]
pub enum PageFailure {
    /// The system refused an operation on the file or its map.
    System {
        /// The file.
        file: FileId,
        /// What was attempted.
        operation: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is not what the meta block says it is.
    Mismatch {
        /// The file.
        file: FileId,
        /// What does not agree.
        what: &'static str,
    },
    /// A page needed to open the file is damaged.
    Fault(PageFault),
}

impl fmt::Display for PageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { file, operation, cause } => write!(f, "{file}: {operation}: {cause}"),
            Self::Mismatch { file, what } => write!(f, "{file}: {what}"),
            Self::Fault(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for PageFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { cause, .. } => Some(cause),
            Self::Mismatch { .. } => None,
            Self::Fault(fault) => Some(fault),
        }
    }
}

impl From<PageFault> for PageFailure {
    fn from(fault: PageFault) -> Self {
        Self::Fault(fault)
    }
}
