//! What clients asked, when, and what they were told.
//!
//! Every write carries a value that nobody else writes, so that a change in the store names the
//! operation it came from. Moments are counted in any unit, by one clock for all clients.

use std::collections::BTreeMap;

/// Names an operation; the value that it writes begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What a client asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Write the operation's own value to a key.
    Put {
        /// Where.
        key: Vec<u8>,
        /// The lease with which it is to end; 0 for none.
        lease: i64,
    },
    /// Delete keys from one to another, the latter not included.
    Delete {
        /// The first key.
        from: Vec<u8>,
        /// Behind the last one.
        to: Vec<u8>,
    },
    /// If the key's newest change is that of this revision (0: if there is no such key), write the
    /// operation's own value to it, else read it.
    Swap {
        /// Which.
        key: Vec<u8>,
        /// The revision it must have been changed at.
        expected: i64,
    },
    /// Read keys from one to another, at the newest revision.
    Read {
        /// The first key.
        from: Vec<u8>,
        /// Behind the last one.
        to: Vec<u8>,
        /// Whether it may be answered by a member that has fallen behind.
        may_be_stale: bool,
    },
}

/// A key with what is stored there, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that made it.
    pub created: i64,
    /// The revision that changed it last.
    pub changed: i64,
    /// How often it was written since it was made.
    pub version: i64,
    /// The lease it ends with; 0 for none.
    pub lease: i64,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a put.
    Written {
        /// The store's revision behind it.
        revision: i64,
    },
    /// To a deletion.
    Deleted {
        /// The store's revision behind it.
        revision: i64,
        /// How many keys.
        count: i64,
    },
    /// To a swap.
    Swapped {
        /// The store's revision behind it.
        revision: i64,
        /// What was read instead; `None` if it was swapped.
        instead: Option<Vec<Found>>,
    },
    /// To a read.
    Read {
        /// The store's revision.
        revision: i64,
        /// What is there, in order.
        found: Vec<Found>,
    },
    /// It was not done and never will be.
    Refused,
}

/// One operation of one client.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Which.
    pub id: OpId,
    /// What was asked.
    pub request: Request,
    /// When.
    pub begun: u64,
    /// When it was answered, and how; `None` if its fate is unknown: it may have been done, may be
    /// done yet, or never.
    pub answered: Option<(u64, Answer)>,
}

/// A change that the store knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its revision.
    pub revision: i64,
    /// Its place among those of one revision.
    pub sub: i64,
    /// The key.
    pub key: Vec<u8>,
    /// What was written; `None` where the key was deleted.
    pub value: Option<Vec<u8>>,
    /// The lease it ends with; 0 for none.
    pub lease: i64,
}

/// The value that an operation writes.
#[must_use]
pub fn value_of(id: OpId) -> Vec<u8> {
    format!("op{:016x}", id.0).into_bytes()
}

/// Whose value that is.
#[must_use]
pub fn writer_of(value: &[u8]) -> Option<OpId> {
    let text = std::str::from_utf8(value.strip_prefix(b"op")?.get(..16)?).ok()?;
    u64::from_str_radix(text, 16).ok().map(OpId)
}

/// The store at one revision.
#[derive(Debug, Clone, Default)]
pub struct State {
    keys: BTreeMap<Vec<u8>, Found>,
}

impl State {
    /// Lets a change happen.
    pub fn apply(&mut self, change: &Change) {
        let Some(value) = &change.value else {
            self.keys.remove(&change.key);
            return;
        };
        let found = self.keys.entry(change.key.clone()).or_insert_with(|| Found {
            key: change.key.clone(),
            value: Vec::new(),
            created: change.revision,
            changed: 0,
            version: 0,
            lease: 0,
        });
        found.value.clone_from(value);
        found.changed = change.revision;
        found.version += 1;
        found.lease = change.lease;
    }

    /// A key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Found> {
        self.keys.get(key)
    }

    /// The keys that end with a lease, in their order.
    pub fn leased(&self, lease: i64) -> impl Iterator<Item = &Found> {
        self.keys.values().filter(move |found| found.lease == lease)
    }

    /// Keys from one to another.
    pub fn range(&self, from: &[u8], to: &[u8]) -> impl Iterator<Item = &Found> {
        let is_empty = from >= to;
        let range = if is_empty { b"".to_vec()..b"".to_vec() } else { from.to_vec()..to.to_vec() };
        self.keys.range(range).map(|(_, found)| found)
    }
}
