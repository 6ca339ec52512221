//! Ranges: what is asked, what is found, and the scan that finds it.
//!
//! A scan is resumable: it keeps its own position and may be continued on a later view, at the
//! revision it began with. It never holds a page.
//!
//! Costs: a page of a list at the newest revision is one descent and its records, the count comes
//! from the tree's subtree counts. An older revision also costs the changes made since. Filters
//! may have to look at the whole range; sorting by anything but the key always does, and holds no
//! more than the limit.
//!
//! Invariants:
//! - `count` is the number of keys of the range at the revision, whatever else was asked.
//! - Records that sort equal come in the order of their keys.

mod sort;

use std::ops::Bound;

use rkyv::{Archive, Serialize};

use crate::answer::{OwnedRecord, ReadError, Rejection};
use crate::ids::{Change, LeaseId, Revision};
use crate::layout::ChangeKind;
use crate::limits;
use crate::page::{PageFault, Pages};
use crate::store::{ShardChanges, Store};
use crate::tree;
use crate::view::View;
use crate::walk::{Bounds, Direction, LeafWalk, Walk};
use sort::SortedRecords;

/// Entries that a walk takes from a leaf to be worth loading all of it.
const WARM_ENTRIES_MIN: usize = 4;

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
    /// The bytes of key and value.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

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

    /// Whether the scan is to end its step, because enough bytes came for this time. Asked between
    /// two records of a step, so that each step brings at least one.
    fn is_full(&self) -> bool {
        false
    }
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

/// Collects copies of records. Their bytes end a step and count against the budget of the next,
/// as looking at keys does.
pub(crate) struct RecordCopies<'r> {
    records: &'r mut Vec<OwnedRecord>,
    size_bytes: usize,
    /// The size at which the step ends.
    full_at: usize,
}

impl<'r> RecordCopies<'r> {
    pub(crate) fn new(records: &'r mut Vec<OwnedRecord>, budget: usize) -> Self {
        let full_at = budget.saturating_mul(limits::BYTES_PER_KEY);
        Self { records, size_bytes: 0, full_at }
    }

    /// The bytes that this step brought.
    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

impl RecordSink for RecordCopies<'_> {
    fn record(&mut self, record: Record<'_>) {
        self.size_bytes += record.size_bytes();
        self.records.push(record.to_owned());
    }

    fn is_full(&self) -> bool {
        self.size_bytes >= self.full_at
    }
}

/// A range being answered.
#[derive(Debug)]
pub struct RangeScan {
    key: Vec<u8>,
    end: RangeEnd,
    options: Options,
    /// What is read at; known once the first step has seen a view.
    revision: Revision,
    state: State,
    /// The key to go on with: the next one that was not yet looked at.
    position: Option<Vec<u8>>,
    /// Keys of the range that were looked at.
    visited: i64,
    /// Records that passed the filters.
    matched: i64,
    emitted: i64,
    count: Option<i64>,
    /// The revision from which the count is reckoned back.
    counted_at: Revision,
    sorted: SortedRecords,
    summary: RangeSummary,
}

#[derive(Debug)]
enum RangeEnd {
    Single,
    Open,
    Before(Vec<u8>),
}

#[derive(Clone, Copy, Debug)]
struct Options {
    revision: Revision,
    limit: Option<i64>,
    order: SortOrder,
    target: SortTarget,
    keys_only: bool,
    count_only: bool,
    mod_revisions: Filter,
    create_revisions: Filter,
}

/// Inclusive bounds; zero means none, as on the wire.
#[derive(Clone, Copy, Debug)]
struct Filter {
    min: i64,
    max: i64,
}

impl Filter {
    fn is_set(self) -> bool {
        self.min != 0 || self.max != 0
    }

    fn admits(self, revision: Revision) -> bool {
        (self.min == 0 || revision.0 >= self.min) && (self.max == 0 || revision.0 <= self.max)
    }
}

#[derive(Debug)]
enum State {
    Start,
    /// One key, to be looked up.
    Single,
    /// Counting an older revision from the newest: see [`RangeScan::count_back`].
    CountBack {
        shard: usize,
        from: Change,
    },
    Walk,
    /// Putting the collected records into their order.
    Sort,
    Emit,
    Done,
}

impl RangeScan {
    /// Begins a scan. Nothing is read yet.
    #[must_use]
    pub fn new(query: &RangeQuery<'_>) -> Self {
        let end = match query.range_end {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Open,
            end => RangeEnd::Before(end.to_vec()),
        };
        let options = Options {
            revision: Revision(query.revision),
            limit: (query.limit > 0).then_some(query.limit),
            order: query.sort_order,
            target: query.sort_target,
            keys_only: query.keys_only,
            count_only: query.count_only,
            mod_revisions: Filter { min: query.min_mod_revision, max: query.max_mod_revision },
            create_revisions: Filter {
                min: query.min_create_revision,
                max: query.max_create_revision,
            },
        };
        Self {
            key: query.key.to_vec(),
            end,
            options,
            revision: Revision(0),
            state: State::Start,
            position: None,
            visited: 0,
            matched: 0,
            emitted: 0,
            count: None,
            counted_at: Revision(0),
            sorted: SortedRecords::default(),
            summary: RangeSummary::default(),
        }
    }

    /// Takes the first look at a view, before the first step: what is refused for its revision is
    /// refused here, and the count of most ranges is known behind it.
    pub fn open(&mut self, view: &View) -> Result<(), ReadError> {
        self.open_on(view)
    }

    /// Goes on with the scan, touching about `budget` keys. The view must not be older than that
    /// of the step before.
    pub fn step(
        &mut self,
        view: &View,
        budget: usize,
        sink: &mut impl RecordSink,
    ) -> Result<Progress, ReadError> {
        let mut budget = budget;
        self.step_on(view, &mut budget, sink)
    }

    /// The same for an owner whose budget is for several jobs: what was used is taken off it.
    pub fn step_within(
        &mut self,
        view: &View,
        budget: &mut usize,
        sink: &mut impl RecordSink,
    ) -> Result<Progress, ReadError> {
        self.step_on(view, budget, sink)
    }

    /// Whether more than one key is asked for.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        !matches!(self.end, RangeEnd::Single)
    }

    /// Bytes that the scan itself holds: records that wait to be sorted.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.sorted.size_bytes()
    }

    /// How many records wait to be sorted.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.sorted.len()
    }

    /// No more records than this are to come, as far as that is known without looking at them.
    #[must_use]
    pub fn records_max(&self) -> Option<i64> {
        let limit = self.options.limit;
        match self.count {
            Some(count) if self.counted_at.0 == 0 => Some(limit.map_or(count, |l| l.min(count))),
            _ => limit,
        }
    }

    /// What the finished scan found.
    #[must_use]
    pub fn summary(&self) -> RangeSummary {
        self.summary
    }

    pub(crate) fn step_on<S: Store>(
        &mut self,
        store: &S,
        budget: &mut usize,
        sink: &mut impl RecordSink,
    ) -> Result<Progress, ReadError> {
        loop {
            let progress = match self.state {
                State::Start => {
                    self.open_on(store)?;
                    Progress::Done
                }
                State::Done => return Ok(Progress::Done),
                _ if self.revision < store.compacted() => return Err(Rejection::Compacted.into()),
                State::Single => {
                    *budget = budget.saturating_sub(1);
                    self.answer_single(store, sink)?;
                    Progress::Done
                }
                State::CountBack { shard, from } => self.count_back(store, shard, from, budget)?,
                State::Walk => self.walk(store, budget, sink)?,
                State::Sort => self.sort(budget),
                State::Emit => self.emit_sorted(budget, sink),
            };
            if progress == Progress::More {
                return Ok(Progress::More);
            }
        }
    }

    fn open_on<S: Store>(&mut self, store: &S) -> Result<(), ReadError> {
        if !matches!(self.state, State::Start) {
            return Ok(());
        }
        let asked = self.options.revision;
        if asked > store.revision() {
            return Err(Rejection::FutureRevision.into());
        }
        self.revision = if asked.0 <= 0 { store.revision() } else { asked };
        if self.revision < store.compacted() {
            return Err(Rejection::Compacted.into());
        }
        self.summary.revision = store.revision();
        if !self.is_wide() {
            self.state = State::Single;
            return Ok(());
        }
        let newest_count = self.count_newest(store)?;
        let is_newest = self.revision == store.tree_revision();
        let is_partial = self.options.limit.is_some() || self.options.count_only;
        self.state = State::Walk;
        if is_newest {
            self.count = Some(newest_count);
            if self.options.count_only {
                self.finish();
            }
        } else if is_partial && changes_after(store, self.revision)? <= newest_count {
            self.count = Some(newest_count);
            self.counted_at = store.tree_revision();
            self.state = State::CountBack { shard: 0, from: Change::last_of(self.revision) };
        }
        Ok(())
    }

    fn answer_single<S: Store>(
        &mut self,
        store: &S,
        sink: &mut impl RecordSink,
    ) -> Result<(), ReadError> {
        let found = store.record_at(&self.key, self.revision)?;
        self.count = Some(i64::from(found.is_some()));
        if let Some(record) = found
            && !self.options.count_only
            && self.options.admit(&record)
        {
            sink.record(self.options.shown(record));
        }
        self.finish();
        Ok(())
    }

    fn count_newest<S: Store>(&self, store: &S) -> Result<i64, ReadError> {
        let bounds = self.bounds();
        let mut count = 0;
        for shard in 0..store.shard_count() {
            let (pages, roots) = store.shard(shard);
            let upper = bounds.end.map_or(Bound::Unbounded, Bound::Excluded);
            count += tree::count(pages, roots.current, Bound::Included(bounds.start), upper)?;
        }
        Ok(i64::try_from(count).expect("a store holds fewer than 2^63 keys"))
    }

    /// The count at an older revision, from the newest one and the changes since: each creation
    /// since then is a key less, each deletion a key more. Beats counting the keys when fewer
    /// things happened since than there are keys, as in a paged list.
    fn count_back<S: Store>(
        &mut self,
        store: &S,
        shard: usize,
        from: Change,
        budget: &mut usize,
    ) -> Result<Progress, ReadError> {
        let mut count = self.count.expect("counting back begins with the newest count");
        let until = self.counted_at;
        let mut from = from;
        for shard in shard..store.shard_count() {
            let mut changes = ShardChanges::new(store, shard, from)?;
            while let Some(front) = changes.next()? {
                let change = front.change();
                if change.main > until {
                    break;
                }
                if *budget == 0 {
                    self.count = Some(count);
                    self.state = State::CountBack { shard, from: change };
                    return Ok(Progress::More);
                }
                *budget -= 1;
                if self.bounds().hold(front.key) {
                    count += match front.logged.kind {
                        ChangeKind::Create => -1,
                        ChangeKind::Update => 0,
                        ChangeKind::Tombstone => 1,
                    };
                }
            }
            from = Change::last_of(self.revision);
        }
        self.count = Some(count);
        self.state = State::Walk;
        if self.options.count_only {
            self.finish();
        }
        Ok(Progress::Done)
    }

    fn walk<S: Store>(
        &mut self,
        store: &S,
        budget: &mut usize,
        sink: &mut impl RecordSink,
    ) -> Result<Progress, ReadError> {
        let direction = self.options.direction();
        let position = self.position.take();
        let bounds = match (&position, direction) {
            (None, _) => self.bounds(),
            (Some(key), Direction::Ascending) => Bounds { start: key, ..self.bounds() },
            (Some(behind), Direction::Descending) => Bounds { end: Some(behind), ..self.bounds() },
        };
        let (start, end) = (bounds.start.to_vec(), bounds.end.map(<[u8]>::to_vec));
        let bounds = Bounds { start: &start, end: end.as_deref() };
        let progress = match LeafWalk::new(store, bounds, self.revision, direction)? {
            Some(walk) => self.walk_leaves(walk, budget, sink)?,
            None => {
                let walk = Walk::new(store, bounds, self.revision, direction)?;
                self.walk_merged(walk, direction, budget, sink)?
            }
        };
        if progress == Progress::More {
            return Ok(Progress::More);
        }
        if self.options.is_sorted() {
            self.state = State::Sort;
        } else {
            self.finish();
        }
        Ok(Progress::Done)
    }

    fn walk_leaves<P: Pages>(
        &mut self,
        mut walk: LeafWalk<'_, P>,
        budget: &mut usize,
        sink: &mut impl RecordSink,
    ) -> Result<Progress, ReadError> {
        while let Some(leaf) = walk.next_leaf()? {
            // Worth it where the rest of the leaf is wanted; a few entries are had for less.
            let limit = self.options.limit.map_or(i64::MAX, |limit| limit - self.emitted);
            let wanted = usize::try_from(limit).unwrap_or(0).min(*budget);
            if wanted >= leaf.len() && leaf.len() >= WARM_ENTRIES_MIN && self.options.needs_value()
            {
                leaf.warm();
            }
            for index in 0..leaf.len() {
                let (key, entry) = walk.entry(leaf, index)?;
                if *budget == 0 || sink.is_full() {
                    self.position = Some(key.to_vec());
                    return Ok(Progress::More);
                }
                *budget -= 1;
                let record = |with_value| walk.record(key, entry, with_value);
                if self.offer(record, budget, sink)? == Progress::Done {
                    return Ok(Progress::Done);
                }
            }
        }
        Ok(Progress::Done)
    }

    fn walk_merged<P: Pages>(
        &mut self,
        mut walk: Walk<'_, P>,
        direction: Direction,
        budget: &mut usize,
        sink: &mut impl RecordSink,
    ) -> Result<Progress, ReadError> {
        while let Some(key) = walk.key() {
            if *budget == 0 || sink.is_full() {
                let mut position = key.to_vec();
                if direction == Direction::Descending {
                    // An end excludes itself: the smallest key behind the next one is its end.
                    position.push(0);
                }
                self.position = Some(position);
                return Ok(Progress::More);
            }
            *budget -= 1;
            if walk.is_seen()
                && self.offer(|with_value| walk.record(with_value), budget, sink)? == Progress::Done
            {
                return Ok(Progress::Done);
            }
            walk.advance()?;
        }
        Ok(Progress::Done)
    }

    /// Takes the key a walk stands at; done when no further one can change the answer.
    #[inline]
    fn offer<'r>(
        &mut self,
        record: impl Fn(bool) -> Result<Record<'r>, PageFault>,
        budget: &mut usize,
        sink: &mut impl RecordSink,
    ) -> Result<Progress, ReadError> {
        self.visited += 1;
        if self.options.count_only {
            return Ok(Progress::More);
        }
        let is_full = |emitted: i64| self.options.limit.is_some_and(|limit| emitted >= limit);
        let needs_value = self.options.needs_value() && !is_full(self.emitted);
        // The filters look at no value, so only a record that passes them is worth reading one.
        if self.options.is_filtered() && !self.options.admit(&record(false)?) {
            return Ok(Progress::More);
        }
        let record = record(needs_value)?;
        self.matched += 1;
        if self.options.is_sorted() {
            let is_fetched = self.options.fetched_max().is_none_or(|max| self.matched <= max);
            if is_fetched {
                *budget = budget.saturating_sub(limits::keys_for_bytes(record.size_bytes()));
                self.sorted.push(record, &self.options);
            }
            let is_decided = !is_fetched && self.count.is_some();
            return Ok(if is_decided { Progress::Done } else { Progress::More });
        }
        if !is_full(self.emitted) {
            sink.record(self.options.shown(record));
            self.emitted += 1;
        }
        // Without filters the count alone tells whether something was cut off.
        let is_decided = !self.options.is_filtered() || self.matched > self.emitted;
        if self.count.is_some() && is_full(self.emitted) && is_decided {
            return Ok(Progress::Done);
        }
        Ok(Progress::More)
    }

    fn sort(&mut self, budget: &mut usize) -> Progress {
        if self.sorted.sort(budget) == Progress::More {
            return Progress::More;
        }
        self.state = State::Emit;
        Progress::Done
    }

    fn emit_sorted(&mut self, budget: &mut usize, sink: &mut impl RecordSink) -> Progress {
        loop {
            if *budget == 0 || sink.is_full() {
                return Progress::More;
            }
            let Some(item) = self.sorted.pop_first() else { break };
            *budget -= 1;
            sink.record(self.options.shown(item.record()));
            self.emitted += 1;
        }
        self.finish();
        Progress::Done
    }

    fn finish(&mut self) {
        let count = self.count.unwrap_or(self.visited);
        self.summary.count = count;
        let matched = if self.options.is_filtered() { self.matched } else { count };
        let cut = self.options.limit.is_some_and(|limit| matched > limit);
        self.summary.more = cut && !self.options.count_only;
        self.state = State::Done;
    }

    fn bounds(&self) -> Bounds<'_> {
        let end = match &self.end {
            RangeEnd::Before(end) => Some(&end[..]),
            RangeEnd::Open => None,
            RangeEnd::Single => unreachable!("a single key is looked up, not walked"),
        };
        Bounds { start: &self.key, end }
    }
}

impl Options {
    /// A limit beyond the address space is none.
    fn records_max(&self) -> usize {
        self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    }

    fn direction(&self) -> Direction {
        match (self.target, self.order) {
            (SortTarget::Key, SortOrder::Descend) => Direction::Descending,
            _ => Direction::Ascending,
        }
    }

    /// Whether the records have to be collected first: the order of keys is there already.
    fn is_sorted(&self) -> bool {
        self.target != SortTarget::Key
    }

    /// How many records are sorted at all. Asked for a limit and a target without an order, etcd
    /// fetches the first keys only, one beyond the limit, and sorts these.
    fn fetched_max(&self) -> Option<i64> {
        let is_partial = self.order == SortOrder::None && !self.is_filtered();
        self.limit.filter(|_| is_partial).map(|limit| limit.saturating_add(1))
    }

    fn needs_value(&self) -> bool {
        !self.keys_only || self.target == SortTarget::Value
    }

    fn is_filtered(&self) -> bool {
        self.mod_revisions.is_set() || self.create_revisions.is_set()
    }

    fn admit(&self, record: &Record<'_>) -> bool {
        self.mod_revisions.admits(record.mod_revision)
            && self.create_revisions.admits(record.create_revision)
    }

    /// etcd answers `keys_only` from its index, which knows no leases, unless it has to sort by
    /// value and so reads the records.
    fn shown<'a>(&self, record: Record<'a>) -> Record<'a> {
        match (self.keys_only, self.target) {
            (false, _) => record,
            (true, SortTarget::Value) => Record { value: &[], ..record },
            (true, _) => Record { value: &[], lease: LeaseId(0), ..record },
        }
    }
}

fn changes_after<S: Store>(store: &S, revision: Revision) -> Result<i64, PageFault> {
    let from = Change::last_of(revision).to_bytes();
    let mut count = 0;
    for shard in 0..store.shard_count() {
        let (pages, roots) = store.shard(shard);
        count += tree::count(pages, roots.revisions, Bound::Included(&from), Bound::Unbounded)?;
    }
    Ok(i64::try_from(count).expect("a store holds fewer than 2^63 changes"))
}
