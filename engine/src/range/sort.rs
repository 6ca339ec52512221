//! Records collected for sorting, in one arena, with room for little more than the limit.
//!
//! Invariants:
//! - The records held always contain the first `limit` of all that were pushed.
//! - After [`SortedRecords::sort`] they are in order and not more than the limit.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Options, Record, SortOrder, SortTarget};

/// With a limit, the collection is cut when it is twice as long; short limits wait for this many
/// records more, so that cutting stays rare.
const CUT_SLACK_RECORDS: usize = 1024;

#[derive(Debug)]
struct Item {
    key: Range<usize>,
    value: Range<usize>,
    /// The record without its bytes.
    bare: Record<'static>,
}

#[derive(Debug, Default)]
pub(super) struct SortedRecords {
    items: Vec<Item>,
    arena: Vec<u8>,
}

impl SortedRecords {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn record(&self, index: usize) -> Record<'_> {
        let item = &self.items[index];
        Record {
            key: &self.arena[item.key.clone()],
            value: &self.arena[item.value.clone()],
            ..item.bare
        }
    }

    pub(super) fn push(&mut self, record: Record<'_>, options: &Options) {
        let item = Item {
            key: append(&mut self.arena, record.key),
            value: append(&mut self.arena, record.value),
            bare: Record {
                key: &[],
                value: &[],
                create_revision: record.create_revision,
                mod_revision: record.mod_revision,
                version: record.version,
                lease: record.lease,
            },
        };
        self.items.push(item);
        if let Some(limit) = limit(options)
            && self.items.len() >= limit.saturating_mul(2).saturating_add(CUT_SLACK_RECORDS)
        {
            self.sort(options);
        }
    }

    /// Sorts, cuts to the limit, and gives the memory of what was cut back to the arena.
    pub(super) fn sort(&mut self, options: &Options) {
        let arena = &self.arena;
        self.items.sort_unstable_by(|a, b| {
            let by_target = match options.target {
                SortTarget::Key => Ordering::Equal,
                SortTarget::Version => a.bare.version.cmp(&b.bare.version),
                SortTarget::Create => a.bare.create_revision.cmp(&b.bare.create_revision),
                SortTarget::Mod => a.bare.mod_revision.cmp(&b.bare.mod_revision),
                SortTarget::Value => arena[a.value.clone()].cmp(&arena[b.value.clone()]),
            };
            let by_target = match options.order {
                SortOrder::Descend => by_target.reverse(),
                SortOrder::None | SortOrder::Ascend => by_target,
            };
            by_target.then_with(|| arena[a.key.clone()].cmp(&arena[b.key.clone()]))
        });
        let Some(limit) = limit(options).filter(|&limit| limit < self.items.len()) else { return };
        self.items.truncate(limit);
        let old = std::mem::take(&mut self.arena);
        for item in &mut self.items {
            item.key = append(&mut self.arena, &old[item.key.clone()]);
            item.value = append(&mut self.arena, &old[item.value.clone()]);
        }
    }
}

/// A limit beyond the address space is none.
fn limit(options: &Options) -> Option<usize> {
    options.limit.and_then(|limit| usize::try_from(limit).ok())
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    let start = arena.len();
    arena.extend_from_slice(bytes);
    start..arena.len()
}
