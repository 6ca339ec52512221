//! Records collected for sorting, not more of them than the limit.
//!
//! A heap, because each record that comes or goes then costs little, and no more than a few
//! comparisons: a vector that is sorted at the end would cost less in all, and all of that in one
//! step. Each record owns its bytes, so that one that is cut off gives its memory back at once.
//!
//! Invariants:
//! - The records held are the first of all that were pushed, as many as the limit allows.
//! - [`SortedRecords::sort`] moves them from the heap to the list, the last first, so that the
//!   first is at the list's end.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{Options, Progress, Record, SortOrder, SortTarget};
use crate::limits;

/// A record that has its place in the order.
#[derive(Debug)]
pub(super) struct Item {
    /// What it is sorted by, unless that is the value.
    number: i64,
    is_by_value: bool,
    is_descending: bool,
    /// The key and behind it the value.
    bytes: Box<[u8]>,
    key_size_bytes: usize,
    /// The record without its bytes.
    bare: Record<'static>,
}

impl Item {
    fn new(record: &Record<'_>, options: &Options) -> Self {
        let number = match options.target {
            SortTarget::Key | SortTarget::Value => 0,
            SortTarget::Version => record.version,
            SortTarget::Create => record.create_revision.0,
            SortTarget::Mod => record.mod_revision.0,
        };
        Self {
            number,
            is_by_value: options.target == SortTarget::Value,
            is_descending: options.order == SortOrder::Descend,
            bytes: [record.key, record.value].concat().into_boxed_slice(),
            key_size_bytes: record.key.len(),
            bare: Record {
                key: &[],
                value: &[],
                create_revision: record.create_revision,
                mod_revision: record.mod_revision,
                version: record.version,
                lease: record.lease,
            },
        }
    }

    pub(super) fn record(&self) -> Record<'_> {
        let (key, value) = self.bytes.split_at(self.key_size_bytes);
        Record { key, value, ..self.bare }
    }
}

impl Ord for Item {
    /// Items of one collection only: all are sorted by the same.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.record(), other.record());
        let by_target =
            if self.is_by_value { a.value.cmp(b.value) } else { self.number.cmp(&other.number) };
        let by_target = if self.is_descending { by_target.reverse() } else { by_target };
        by_target.then_with(|| a.key.cmp(b.key))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Item {}

#[derive(Debug, Default)]
pub(super) struct SortedRecords {
    /// The last of the records on top.
    heap: BinaryHeap<Item>,
    /// The records in their order, the first at the end.
    sorted: Vec<Item>,
    size_bytes: usize,
}

impl SortedRecords {
    /// What is held.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// How many records that is.
    pub(super) fn len(&self) -> usize {
        self.heap.len() + self.sorted.len()
    }

    pub(super) fn push(&mut self, record: Record<'_>, options: &Options) {
        let item = Item::new(&record, options);
        if self.heap.len() < options.records_max() {
            self.size_bytes += item_size_bytes(&item);
            self.heap.push(item);
            return;
        }
        let Some(mut last) = self.heap.peek_mut() else { return };
        if item < *last {
            self.size_bytes += item_size_bytes(&item);
            self.size_bytes -= item_size_bytes(&last);
            *last = item;
        }
    }

    /// Goes on with putting the records in order.
    pub(super) fn sort(&mut self, budget: &mut usize) -> Progress {
        loop {
            if *budget == 0 {
                return Progress::More;
            }
            let Some(item) = self.heap.pop() else { return Progress::Done };
            let cost = 1 + limits::keys_for_bytes(item.bytes.len());
            *budget = budget.saturating_sub(cost);
            self.sorted.push(item);
        }
    }

    /// The next record in order, once they are.
    pub(super) fn pop_first(&mut self) -> Option<Item> {
        let item = self.sorted.pop()?;
        self.size_bytes -= item_size_bytes(&item);
        Some(item)
    }
}

fn item_size_bytes(item: &Item) -> usize {
    size_of::<Item>() + item.bytes.len()
}
