//! The proof that a whole file is sound: what bbolt's own consistency check asks, and no more.
//!
//! Every page in use must be reached exactly once or be on the free list exactly once; every page
//! that is reached must obey the reader's rules. It takes one bit for each page, twice.

use super::reader::{ReadError, Reader, Rule, Source, damage};
use super::walk::Visit;

/// What a sound file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many buckets.
    pub buckets: u64,
    /// How many pairs in all of them.
    pub pairs: u64,
    /// How many pages are free.
    pub pages_free: u64,
}

/// Reads every page of every bucket.
pub fn check<S: Source>(reader: &Reader<S>) -> Result<Summary, ReadError> {
    let mut summary = Summary::default();
    let mut reached = PageSet::new(reader.page_count())?;
    for meta in 0..2.min(reader.page_count()) {
        reached.insert(meta);
    }
    let free_list = reader.free_list()?;
    if let Some(list) = &free_list {
        reach(&mut reached, Visit { page: list.page, overflow: list.overflow })?;
    }
    let mut buckets = reader.buckets();
    loop {
        let see = &mut |visit| reach(&mut reached, visit);
        let Some((_, bucket)) = buckets.next_bucket_seen(see)? else { break };
        summary.buckets += 1;
        summary.pairs += reader.walk(&bucket).count_pairs(see)?;
    }
    // Without a list, bbolt itself takes as free whatever it does not reach.
    let Some(list) = free_list else {
        summary.pages_free = reader.page_count() - reached.len;
        return Ok(summary);
    };
    let mut free = PageSet::new(reader.page_count())?;
    for page in list.pages {
        if page >= reader.page_count() {
            return damage(page, Rule::OutsideFile);
        }
        if reached.contains(page) {
            return damage(page, Rule::UsedAndFree);
        }
        if !free.insert(page) {
            return damage(page, Rule::FreedTwice);
        }
    }
    let lost =
        (0..reader.page_count()).find(|page| !reached.contains(*page) && !free.contains(*page));
    if let Some(page) = lost {
        return damage(page, Rule::Lost);
    }
    summary.pages_free = free.len;
    Ok(summary)
}

fn reach(reached: &mut PageSet, visit: Visit) -> Result<(), ReadError> {
    for page in (visit.page..).take(visit.overflow as usize + 1) {
        if !reached.insert(page) {
            return damage(page, Rule::ReachedTwice);
        }
    }
    Ok(())
}

/// Page numbers below a fixed one.
#[derive(Debug)]
struct PageSet {
    words: Vec<u64>,
    len: u64,
}

impl PageSet {
    fn new(page_count: u64) -> Result<Self, ReadError> {
        let bytes = page_count.div_ceil(64) * 8;
        let count = usize::try_from(bytes / 8).map_err(|_| ReadError::Memory(bytes))?;
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_| ReadError::Memory(bytes))?;
        words.resize(count, 0);
        Ok(Self { words, len: 0 })
    }

    fn contains(&self, page: u64) -> bool {
        let (word, bit) = Self::place(page);
        self.words[word] & bit != 0
    }

    /// Whether it was not there before.
    fn insert(&mut self, page: u64) -> bool {
        let (word, bit) = Self::place(page);
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u64::from(is_new);
        is_new
    }

    fn place(page: u64) -> (usize, u64) {
        let word = usize::try_from(page / 64).expect("the set was allocated");
        (word, 1 << (page % 64))
    }
}
