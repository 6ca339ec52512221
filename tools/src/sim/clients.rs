//! Clients: each asks one thing after the other of one member or another, and writes down what it
//! was told.
//!
//! Invariants:
//! - An operation that got no answer, or one that leaves its fate open, is written down as unknown.
//! - A lease's key is written under that lease alone and never deleted by anybody: it ends when the
//!   lease does.

use std::collections::BTreeMap;

use engine::command::{
    AlarmAction, AlarmRef, CompactRef, CompareRef, DeleteRangeRef, LeaseGrantRef, OperationRef,
    PutRef, TxnRef,
};
use engine::ids::{LeaseId, Revision};
use engine::{
    Alarm, FrameWriter, OperationOutcome, Outcome, OwnedRecord, Progress, RangeQuery, RangeScan,
    Rejection, View,
};
use server::mail::{LeaseAsk, Unavailable, Verdict};

use super::random::Random;
use super::values;
use crate::oracle::history::{Answer, Found, OpId, Request};

/// Keys that clients write and delete.
const KEYS: u64 = 8;
/// Behind all keys of clients.
const KEYS_END: &[u8] = b"l";
/// The wire's number for a comparison of the mod revision.
const TARGET_MOD: i32 = 2;

/// What a client wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Something that the oracle judges.
    Operation(Request),
    /// To forget history before this revision.
    Compact(i64),
    /// A lease.
    Grant(LeaseGrantRef),
    /// To keep one alive.
    Renew(LeaseId),
}

/// What clients tend to ask.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Of how many operations one is a compaction; 0 for none.
    pub compact_once_in: u64,
    /// Of how many operations one is about a lease; 0 for none.
    pub lease_once_in: u64,
    /// Whether they read far more than they write.
    pub reads_mostly: bool,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    random: Random,
    /// Its number.
    number: u64,
    /// The member it asks.
    pub place: usize,
    /// The member that it will ask when that goes on.
    pub waits_for_member: Option<usize>,
    /// What it waits for, as the place of the question among all.
    pub waits_for: Option<u64>,
    /// Counts what it does.
    pub turn: u64,
    /// The revision at which it last saw a key changed.
    changed: BTreeMap<Vec<u8>, i64>,
    lease: Option<LeaseGrantRef>,
    leases: i64,
}

impl Client {
    /// One that has asked nothing yet.
    #[must_use]
    pub fn new(number: u64, random: Random) -> Self {
        let (changed, lease) = (BTreeMap::new(), None);
        Self {
            random,
            number,
            place: 0,
            waits_for_member: None,
            waits_for: None,
            turn: 0,
            changed,
            lease,
            leases: 0,
        }
    }

    /// How long it does nothing.
    pub fn think(&mut self, micros_max: u64) -> u64 {
        1 + self.random.below(micros_max)
    }

    /// What it asks next, of which member; `newest` is a revision that all of its past has.
    pub fn wish(&mut self, members: usize, newest: i64, habits: Habits) -> Wish {
        let Habits { compact_once_in, lease_once_in, reads_mostly } = habits;
        if self.random.once_in(8) {
            self.place = self.random.place(members);
        }
        if compact_once_in > 0 && self.random.once_in(compact_once_in) && newest > 2 {
            let back = i64::try_from(self.random.below(20)).expect("few");
            return Wish::Compact((newest - back).max(1));
        }
        if lease_once_in > 0 && self.random.once_in(lease_once_in) {
            return self.wish_about_lease();
        }
        let key = self.key();
        if reads_mostly && !self.random.once_in(4) {
            return Wish::Operation(self.read(key, false));
        }
        Wish::Operation(match self.random.below(20) {
            0..8 => Request::Put { key, lease: 0 },
            8..12 => {
                let expected = self.changed.get(&key).copied().unwrap_or(0);
                Request::Swap { key, expected }
            }
            12 => Request::Delete { to: [&key[..], b"\0"].concat(), from: key },
            13 => Request::Delete { from: key, to: KEYS_END.to_vec() },
            14..19 => self.read(key, false),
            _ => self.read(key, true),
        })
    }

    /// What it asks a member that was held up.
    pub fn wish_to_know(&mut self) -> Wish {
        let key = self.key();
        Wish::Operation(self.read(key, false))
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{}", self.random.below(KEYS)).into_bytes()
    }

    fn read(&mut self, key: Vec<u8>, may_be_stale: bool) -> Request {
        let one = [&key[..], b"\0"].concat();
        let to = if self.random.once_in(2) { one } else { b"m".to_vec() };
        Request::Read { from: key, to, may_be_stale }
    }

    fn wish_about_lease(&mut self) -> Wish {
        let Some(lease) = self.lease else {
            self.leases += 1;
            let id = i64::try_from(self.number).expect("few clients") * 1000 + self.leases;
            let ttl_seconds = i64::try_from(self.random.between(2, 8)).expect("few");
            return Wish::Grant(LeaseGrantRef { id: LeaseId(id), ttl_seconds });
        };
        if self.random.once_in(6) {
            // It is left to run out.
            self.lease = None;
        }
        if self.random.once_in(2) {
            return Wish::Renew(lease.id);
        }
        let key = format!("l{}", lease.id.0).into_bytes();
        Wish::Operation(Request::Put { key, lease: lease.id.0 })
    }

    /// It was told that it has a lease.
    pub fn handle_granted(&mut self, lease: LeaseGrantRef) {
        self.lease = Some(lease);
    }

    /// Its lease is gone.
    pub fn handle_lease_lost(&mut self) {
        self.lease = None;
    }

    /// It has seen what a key was last changed at.
    pub fn handle_answer(&mut self, request: &Request, answer: &Answer) {
        match (request, answer) {
            (Request::Put { key, .. }, Answer::Written { revision })
            | (Request::Swap { key, .. }, Answer::Swapped { revision, instead: None }) => {
                self.changed.insert(key.clone(), *revision);
            }
            (Request::Swap { key, .. }, Answer::Swapped { instead: Some(found), .. }) => {
                self.changed.remove(key);
                self.learn(found);
            }
            (Request::Read { from, .. }, Answer::Read { found, .. }) => {
                self.changed.remove(from);
                self.learn(found);
            }
            _ => {}
        }
    }

    fn learn(&mut self, found: &[Found]) {
        for found in found {
            self.changed.insert(found.key.clone(), found.changed);
        }
    }
}

/// The frame of a write, whose value is at least as long as that.
pub fn push(request: &Request, id: OpId, size_bytes: usize, frames: &mut Vec<u8>) {
    let (mut writer, value) = (FrameWriter::new(), values::of(id, size_bytes));
    match request {
        Request::Put { key, lease } => {
            let lease = LeaseId(*lease);
            let put = PutRef { key, value: &value, lease, ..PutRef::default() };
            writer.push_put(frames, &put);
        }
        Request::Delete { from, to } => {
            let delete = DeleteRangeRef { key: from, range_end: to, prev_kv: false };
            writer.push_delete_range(frames, &delete);
        }
        Request::Swap { key, expected } => {
            let compare =
                CompareRef { target: TARGET_MOD, key, number: *expected, ..CompareRef::default() };
            let put = PutRef { key, value: &value, ..PutRef::default() };
            let txn = TxnRef {
                compares: vec![compare],
                success: vec![OperationRef::Put(put)],
                failure: vec![OperationRef::Range(RangeQuery { key, ..RangeQuery::default() })],
            };
            writer.push_txn(frames, &txn);
        }
        Request::Read { .. } => unreachable!("a read is no command"),
    }
}

/// The frame of a lease.
pub fn push_grant(grant: LeaseGrantRef, frames: &mut Vec<u8>) {
    FrameWriter::new().push_lease_grant(frames, grant);
}

/// The frame of a compaction.
pub fn push_compact(revision: i64, frames: &mut Vec<u8>) {
    let compact = CompactRef { revision: Revision(revision), physical: false };
    FrameWriter::new().push_compact(frames, compact);
}

/// The frame that ends an alarm.
pub fn push_disarm(alarm: Alarm, frames: &mut Vec<u8>) {
    let change = AlarmRef { action: AlarmAction::Lower, alarm };
    FrameWriter::new().push_alarm(frames, change);
}

/// The question that keeps a lease alive.
#[must_use]
pub const fn renewal(id: LeaseId, sequence: u64) -> LeaseAsk {
    LeaseAsk::Renew { id, sequence }
}

/// What a verdict tells a client; `None` if it leaves the fate open.
///
/// # Errors
/// The answer is one to something else.
pub fn answer_of(request: &Request, verdict: Verdict) -> Result<Option<Answer>, String> {
    let answer = match verdict {
        Verdict::Applied(answer) => answer,
        Verdict::Defragmented | Verdict::Moved => {
            return Err("a write was told of something else".to_owned());
        }
        Verdict::Unavailable(reason) => {
            let is_certain = matches!(
                reason,
                Unavailable::NoLeader | Unavailable::TooManyRequests | Unavailable::NoSpace
            );
            return Ok(is_certain.then_some(Answer::Refused));
        }
    };
    let revision = answer.revision.0;
    Ok(Some(match (request, answer.outcome) {
        // Over the quota a write is refused, whether or not it was done.
        (_, Outcome::Rejected(Rejection::NoSpace)) => return Ok(None),
        (_, Outcome::Rejected(_)) => Answer::Refused,
        (Request::Put { .. }, Outcome::Put { .. }) => Answer::Written { revision },
        (Request::Delete { .. }, Outcome::DeleteRange { deleted, .. }) => {
            Answer::Deleted { revision, count: deleted }
        }
        (Request::Swap { .. }, Outcome::Txn(outcome)) => {
            let read = |response: OperationOutcome| match response {
                OperationOutcome::Range { records, .. } => {
                    Some(records.iter().map(found_of).collect())
                }
                _ => None,
            };
            let instead = outcome.responses.into_iter().find_map(read);
            if instead.is_none() != outcome.succeeded {
                return Err("a swap was answered by the wrong branch".to_owned());
            }
            Answer::Swapped { revision, instead }
        }
        (request, outcome) => return Err(format!("{request:?} was answered with {outcome:?}")),
    }))
}

fn found_of(record: &OwnedRecord) -> Found {
    Found {
        key: record.key.clone(),
        value: values::brief(&record.value),
        created: record.create_revision.0,
        changed: record.mod_revision.0,
        version: record.version,
        lease: record.lease.0,
    }
}

/// What a view has in a range.
///
/// # Errors
/// The view cannot be read.
pub fn read(view: &View, from: &[u8], to: &[u8]) -> Result<Answer, String> {
    let query = RangeQuery { key: from, range_end: to, ..RangeQuery::default() };
    let (mut scan, mut records) = (RangeScan::new(&query), Vec::<OwnedRecord>::new());
    let mut progress = Progress::More;
    while progress == Progress::More {
        progress = scan
            .step(view, usize::MAX, &mut records)
            .map_err(|error| format!("a view cannot be read: {error}"))?;
    }
    let found = records.iter().map(found_of).collect();
    Ok(Answer::Read { revision: view.revision.0, found })
}
