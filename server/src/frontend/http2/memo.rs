//! Header blocks seen before.
//!
//! A client that calls the same method again and again sends the same few bytes of header block
//! each time, once its entries are in our table. What such a block decodes to depends on nothing
//! but its bytes and the dynamic table; so if the table's generation is the same as then and the
//! block itself did not change it, the list of that time is the list of now.
//!
//! Invariants:
//! - A remembered list was well-formed, and its block left the table as it was.

use super::headers::HeaderList;
use super::limits::{MEMO_BLOCK_BYTES_MAX, MEMO_BLOCKS};

/// Names a list inside a connection, until the next event is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRef {
    pub(super) place: usize,
    known: bool,
}

impl ListRef {
    /// How many values [`ListRef::place`] can take.
    pub const PLACES: usize = MEMO_BLOCKS + 1;

    /// The list that was not worth remembering.
    pub(super) const SCRATCH: Self = Self { place: MEMO_BLOCKS, known: false };

    /// Where the list lies: a caller may keep what it derived from it under this number ...
    pub fn place(self) -> usize {
        self.place
    }

    /// ... and use it again whenever this is true: then the list is the same that was last handed
    /// out, not known, under the same place.
    pub fn known(self) -> bool {
        self.known
    }
}

#[derive(Debug, Default)]
struct Remembered {
    block: Vec<u8>,
    generation: u64,
}

/// The lists of one connection.
#[derive(Debug)]
pub(super) struct Memo {
    remembered: [Remembered; MEMO_BLOCKS],
    lists: [HeaderList; ListRef::PLACES],
    /// The last hit, which is likely to be the next one too.
    last: usize,
    next: usize,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self { remembered: Default::default(), lists: Default::default(), last: 0, next: 0 }
    }

    /// Looks a block up.
    #[inline]
    pub(super) fn find(&mut self, block: &[u8], generation: u64) -> Option<ListRef> {
        let matches = |place: usize| {
            let remembered = &self.remembered[place];
            remembered.generation == generation && remembered.block == block
        };
        // An empty block is never a request, and an unused place remembers one.
        if block.is_empty() {
            return None;
        }
        if !matches(self.last) {
            self.last = (0..MEMO_BLOCKS).find(|place| matches(*place))?;
        }
        Some(ListRef { place: self.last, known: true })
    }

    /// The list to decode into; [`Memo::keep`] may remember it afterwards.
    pub(super) fn scratch(&mut self) -> &mut HeaderList {
        &mut self.lists[ListRef::SCRATCH.place]
    }

    /// Remembers the scratch list under its block.
    pub(super) fn keep(&mut self, block: &[u8], generation: u64) -> ListRef {
        if block.is_empty() || block.len() > MEMO_BLOCK_BYTES_MAX {
            return ListRef::SCRATCH;
        }
        let place = self.next;
        self.next = (self.next + 1) % MEMO_BLOCKS;
        let remembered = &mut self.remembered[place];
        remembered.block.clear();
        remembered.block.extend_from_slice(block);
        remembered.generation = generation;
        self.lists.swap(place, ListRef::SCRATCH.place);
        self.last = place;
        ListRef { place, known: false }
    }

    #[inline]
    pub(super) fn list(&self, list: ListRef) -> &HeaderList {
        &self.lists[list.place]
    }
}
