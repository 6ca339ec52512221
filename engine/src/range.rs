//! Ranges: what is asked, what is found, and the scan that finds it.
//!
//! A scan is resumable: it keeps its own position and may be continued on a later view, at the
//! revision it began with. It never holds a page.

use rkyv::{Archive, Serialize};

use crate::answer::{OwnedRecord, ReadError};
use crate::ids::{LeaseId, Revision};
use crate::view::View;

/// The order of a range's records.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum SortOrder {
    /// The target's natural order: ascending.
    #[default]
    None = 0,
    /// Smallest first.
    Ascend = 1,
    /// Greatest first.
    Descend = 2,
}

/// What a range is sorted by.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key = 0,
    /// How often the key was put since it was created.
    Version = 1,
    /// The revision that created the key.
    Create = 2,
    /// The revision that last changed the key.
    Mod = 3,
    /// The value.
    Value = 4,
}

impl From<ArchivedSortOrder> for SortOrder {
    fn from(order: ArchivedSortOrder) -> Self {
        match order {
            ArchivedSortOrder::None => Self::None,
            ArchivedSortOrder::Ascend => Self::Ascend,
            ArchivedSortOrder::Descend => Self::Descend,
        }
    }
}

impl From<ArchivedSortTarget> for SortTarget {
    fn from(target: ArchivedSortTarget) -> Self {
        match target {
            ArchivedSortTarget::Key => Self::Key,
            ArchivedSortTarget::Version => Self::Version,
            ArchivedSortTarget::Create => Self::Create,
            ArchivedSortTarget::Mod => Self::Mod,
            ArchivedSortTarget::Value => Self::Value,
        }
    }
}

/// A range, alone or inside a transaction; the fields mean what they mean in etcd's
/// `RangeRequest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeQuery<'a> {
    /// The key, or the first key of the range.
    pub key: &'a [u8],
    /// Empty for one key, a single zero byte for no end, else the first key behind the range.
    pub range_end: &'a [u8],
    /// The most records to answer with; zero or less for no bound.
    pub limit: i64,
    /// The revision to read at; zero or less for the newest.
    pub revision: i64,
    /// The order of the records.
    pub sort_order: SortOrder,
    /// What they are sorted by.
    pub sort_target: SortTarget,
    /// Answer without values.
    pub keys_only: bool,
    /// Answer with the number of keys alone.
    pub count_only: bool,
    /// Inclusive lower bound on the mod revision; zero for none.
    pub min_mod_revision: i64,
    /// Inclusive upper bound on the mod revision; zero for none.
    pub max_mod_revision: i64,
    /// Inclusive lower bound on the create revision; zero for none.
    pub min_create_revision: i64,
    /// Inclusive upper bound on the create revision; zero for none.
    pub max_create_revision: i64,
}

/// A version of a key, borrowed from a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision that wrote this version.
    pub mod_revision: Revision,
    /// How many puts since the key was created.
    pub version: i64,
    /// The lease the key is attached to, zero for none.
    pub lease: LeaseId,
}

impl Record<'_> {
    /// A copy that outlives the view.
    #[must_use]
    pub fn to_owned(&self) -> OwnedRecord {
        OwnedRecord {
            key: self.key.to_vec(),
            value: self.value.to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// Where the records of a scan go.
pub trait RecordSink {
    /// Takes the next record, in the order asked for.
    fn record(&mut self, record: Record<'_>);
}

impl RecordSink for Vec<OwnedRecord> {
    fn record(&mut self, record: Record<'_>) {
        self.push(record.to_owned());
    }
}

/// Whether a resumable job is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The budget was used up; call again.
    More,
    /// All was done.
    Done,
}

/// What a finished scan says besides the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeSummary {
    /// All keys of the range at the revision, whatever the limit and the filters.
    pub count: i64,
    /// Whether the limit cut records off.
    pub more: bool,
    /// The store's revision when the scan began: what the answer's header tells.
    pub revision: Revision,
}

/// A range being answered.
#[derive(Debug)]
pub struct RangeScan {
    summary: RangeSummary,
}

impl RangeScan {
    /// Begins a scan. Nothing is read yet.
    #[must_use]
    pub fn new(query: &RangeQuery<'_>) -> Self {
        unfinished(query)
    }

    /// Goes on with the scan, touching about `budget` keys. The view must not be older than that
    /// of the step before.
    pub fn step(
        &mut self,
        view: &View,
        budget: usize,
        sink: &mut impl RecordSink,
    ) -> Result<Progress, ReadError> {
        unfinished((view, budget, sink))
    }

    /// What the finished scan found.
    #[must_use]
    pub fn summary(&self) -> RangeSummary {
        self.summary
    }
}

fn unfinished<T, R>(_: T) -> R {
    panic!("landing: the scan comes with the tree")
}
