//! A store that is only a list of everything that ever happened and a full copy of the map for
//! each revision. Slow, and simple enough to be believed.

use std::collections::BTreeMap;

use engine::command::{
    CompareRef, DeleteRangeRef, LeaseGrantRef, LeaseRemaining, LeaseRevokeRef, OperationRef,
    PutRef, TxnRef,
};
use engine::{
    Change, EventKind, LeaseId, OperationOutcome, Outcome, OwnedRecord, RangeQuery, Rejection,
    Revision, SortOrder, SortTarget, Term, TxnOutcome,
};

type Map = BTreeMap<Vec<u8>, OwnedRecord>;

/// An event as the model tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEvent {
    pub kind: EventKind,
    pub change: Change,
    pub record: OwnedRecord,
    pub prev: Option<OwnedRecord>,
}

pub struct Model {
    pub revision: i64,
    pub compacted: i64,
    /// The newest state, the half-done command included.
    now: Map,
    /// The state at each revision.
    states: BTreeMap<i64, Map>,
    pub events: Vec<ModelEvent>,
    /// Every compaction that was accepted.
    pub compactions: Vec<i64>,
    /// By id: what they live for, and what was noted that they have left.
    pub leases: BTreeMap<i64, (i64, i64)>,
    changes: i64,
}

impl Model {
    pub fn new() -> Self {
        let states = BTreeMap::from([(1, Map::new()), (0, Map::new())]);
        Self {
            revision: 1,
            compacted: -1,
            now: Map::new(),
            states,
            events: Vec::new(),
            compactions: Vec::new(),
            leases: BTreeMap::new(),
            changes: 0,
        }
    }

    /// The state a read at a revision sees, without the half-done command.
    pub fn at(&self, revision: i64) -> &Map {
        self.states.get(&revision).expect("every revision was kept")
    }

    fn seen_revision(&self) -> i64 {
        self.revision + i64::from(self.changes > 0)
    }

    pub fn finish(&mut self) -> Revision {
        if self.changes > 0 {
            self.revision += 1;
            self.changes = 0;
            self.states.insert(self.revision, self.now.clone());
        }
        Revision(self.revision)
    }

    fn tell(&mut self, kind: EventKind, record: OwnedRecord, is_create: bool) {
        let before = self.at(self.revision).get(&record.key).cloned();
        let prev = if is_create { None } else { before };
        let change = Change { main: Revision(self.revision + 1), sub: self.changes };
        self.changes += 1;
        self.events.push(ModelEvent { kind, change, record, prev });
    }

    pub fn put(&mut self, put: &PutRef<'_>) -> Result<Option<OwnedRecord>, Rejection> {
        if !self.lease_is_known(put.lease) {
            return Err(Rejection::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !self.now.contains_key(put.key) {
            return Err(Rejection::KeyNotFound);
        }
        Ok(self.put_anyway(put))
    }

    fn put_anyway(&mut self, put: &PutRef<'_>) -> Option<OwnedRecord> {
        let old = self.now.get(put.key).cloned();
        let main = self.revision + 1;
        let kept = if put.ignore_value {
            old.as_ref().map_or(&[][..], |old| &old.value)
        } else {
            put.value
        };
        let record = OwnedRecord {
            key: put.key.to_vec(),
            value: kept.to_vec(),
            create_revision: old.as_ref().map_or(Revision(main), |old| old.create_revision),
            mod_revision: Revision(main),
            version: old.as_ref().map_or(1, |old| old.version + 1),
            lease: match &old {
                Some(old) if put.ignore_lease => old.lease,
                _ => put.lease,
            },
        };
        let is_create = record.create_revision.0 == main;
        self.now.insert(put.key.to_vec(), record.clone());
        self.tell(EventKind::Put, record, is_create);
        old.filter(|_| put.prev_kv)
    }

    pub fn delete(&mut self, delete: &DeleteRangeRef<'_>) -> (i64, Vec<OwnedRecord>) {
        let keys: Vec<Vec<u8>> = self
            .now
            .keys()
            .filter(|key| in_range(key, delete.key, delete.range_end))
            .cloned()
            .collect();
        let mut prevs = Vec::new();
        for key in &keys {
            let old = self.now.remove(key).expect("listed just now");
            let main = Revision(self.revision + 1);
            let record =
                OwnedRecord { key: key.clone(), mod_revision: main, ..OwnedRecord::default() };
            self.tell(EventKind::Delete, record, false);
            if delete.prev_kv {
                prevs.push(old);
            }
        }
        (keys.len() as i64, prevs)
    }

    fn lease_is_known(&self, lease: LeaseId) -> bool {
        lease.0 == 0 || self.leases.contains_key(&lease.0)
    }

    /// The keys attached to a lease, in order.
    pub fn lease_keys(&self, lease: i64) -> Vec<Vec<u8>> {
        let attached = self.now.values().filter(|record| record.lease.0 == lease);
        attached.map(|record| record.key.clone()).collect()
    }

    pub fn grant(&mut self, grant: LeaseGrantRef) -> Outcome {
        if self.lease_is_known(grant.id) {
            return Outcome::Rejected(Rejection::LeaseExists);
        }
        self.leases.insert(grant.id.0, (grant.ttl_seconds, 0));
        Outcome::LeaseGranted(grant)
    }

    pub fn revoke(&mut self, revoke: LeaseRevokeRef, term: Term) -> Outcome {
        let is_late = revoke.expired_in.is_some_and(|expired_in| expired_in != term);
        if is_late || self.leases.remove(&revoke.id.0).is_none() {
            return Outcome::Rejected(Rejection::LeaseNotFound);
        }
        for key in self.lease_keys(revoke.id.0) {
            self.delete(&DeleteRangeRef { key: &key, range_end: &[], prev_kv: false });
        }
        Outcome::LeaseRevoked
    }

    pub fn note(&mut self, notes: &[LeaseRemaining]) -> Outcome {
        for note in notes {
            if let Some((_, remaining)) = self.leases.get_mut(&note.id.0) {
                *remaining = note.remaining_seconds;
            }
        }
        Outcome::System
    }

    pub fn compact(&mut self, revision: i64) -> Outcome {
        if revision <= self.compacted {
            return Outcome::Rejected(Rejection::Compacted);
        }
        if revision > self.revision {
            return Outcome::Rejected(Rejection::FutureRevision);
        }
        self.compacted = revision;
        self.compactions.push(revision);
        Outcome::Compacted { sweep: None }
    }

    pub fn txn(&mut self, txn: &TxnRef<'_>) -> Outcome {
        let mut path = Vec::new();
        self.decide(txn, &mut path);
        if let Err(rejection) = self.check(txn, &mut path.iter()) {
            return Outcome::Rejected(rejection);
        }
        Outcome::Txn(self.execute(txn, &mut path.iter()))
    }

    fn decide(&self, txn: &TxnRef<'_>, path: &mut Vec<bool>) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        path.push(succeeded);
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            if let OperationRef::Txn(nested) = operation {
                self.decide(nested, path);
            }
        }
    }

    fn holds(&self, compare: &CompareRef<'_>) -> bool {
        let found: Vec<&OwnedRecord> = self
            .now
            .values()
            .filter(|record| in_range(&record.key, compare.key, compare.range_end))
            .collect();
        if found.is_empty() {
            return compare.target != 3 && record_holds(compare, &OwnedRecord::default());
        }
        found.iter().all(|record| record_holds(compare, record))
    }

    fn check<'b>(
        &self,
        txn: &TxnRef<'_>,
        path: &mut impl Iterator<Item = &'b bool>,
    ) -> Result<(), Rejection> {
        let succeeded = *path.next().expect("a decision for each transaction");
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            match operation {
                OperationRef::Range(range) if range.revision != 0 => {
                    if range.revision > self.revision {
                        return Err(Rejection::FutureRevision);
                    }
                    if range.revision < self.compacted {
                        return Err(Rejection::Compacted);
                    }
                }
                OperationRef::Put(put) => {
                    if !self.lease_is_known(put.lease) {
                        return Err(Rejection::LeaseNotFound);
                    }
                    let keeps = put.ignore_value || put.ignore_lease;
                    if keeps && !self.now.contains_key(put.key) {
                        return Err(Rejection::KeyNotFound);
                    }
                }
                OperationRef::Txn(nested) => self.check(nested, path)?,
                OperationRef::Range(_) | OperationRef::DeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn execute<'b>(
        &mut self,
        txn: &TxnRef<'_>,
        path: &mut impl Iterator<Item = &'b bool>,
    ) -> TxnOutcome {
        let succeeded = *path.next().expect("a decision for each transaction");
        let mut responses = Vec::new();
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            responses.push(match operation {
                OperationRef::Range(range) => {
                    let revision = Revision(self.seen_revision());
                    let (records, count, more) = self.range(range).expect("checked before");
                    OperationOutcome::Range { revision, records, count, more }
                }
                OperationRef::Put(put) => {
                    let prev = self.put_anyway(put);
                    OperationOutcome::Put { revision: Revision(self.seen_revision()), prev }
                }
                OperationRef::DeleteRange(delete) => {
                    let (deleted, prevs) = self.delete(delete);
                    let revision = Revision(self.seen_revision());
                    OperationOutcome::DeleteRange { revision, deleted, prevs }
                }
                OperationRef::Txn(nested) => OperationOutcome::Txn(self.execute(nested, path)),
            });
        }
        TxnOutcome { succeeded, responses }
    }

    /// Records, count and more.
    pub fn range(
        &self,
        query: &RangeQuery<'_>,
    ) -> Result<(Vec<OwnedRecord>, i64, bool), Rejection> {
        let newest = self.seen_revision();
        if query.revision > newest {
            return Err(Rejection::FutureRevision);
        }
        let revision = if query.revision <= 0 { newest } else { query.revision };
        if revision < self.compacted {
            return Err(Rejection::Compacted);
        }
        let map = if revision == newest { &self.now } else { self.at(revision) };
        let mut records: Vec<OwnedRecord> = map
            .values()
            .filter(|record| in_range(&record.key, query.key, query.range_end))
            .cloned()
            .collect();
        let count = records.len() as i64;
        if query.count_only {
            return Ok((Vec::new(), count, false));
        }
        let admits = |min: i64, max: i64, at: Revision| {
            (min == 0 || at.0 >= min) && (max == 0 || at.0 <= max)
        };
        records.retain(|record| {
            admits(query.min_mod_revision, query.max_mod_revision, record.mod_revision)
                && admits(
                    query.min_create_revision,
                    query.max_create_revision,
                    record.create_revision,
                )
        });
        let more = query.limit > 0 && records.len() as i64 > query.limit;
        let bounds = [
            query.min_mod_revision,
            query.max_mod_revision,
            query.min_create_revision,
            query.max_create_revision,
        ];
        // Without an order and bounds etcd fetches one record more than the limit before it sorts.
        if more && query.sort_order == SortOrder::None && bounds == [0; 4] {
            records.truncate(usize::try_from(query.limit).unwrap() + 1);
        }
        sort(&mut records, query);
        if more {
            records.truncate(usize::try_from(query.limit).unwrap());
        }
        if query.keys_only {
            for record in &mut records {
                record.value.clear();
                // etcd reads the records only to sort by value; its index knows no leases.
                if query.sort_target != SortTarget::Value {
                    record.lease = LeaseId(0);
                }
            }
        }
        Ok((records, count, more))
    }

    /// The events from a revision on, as a catch-up tells them.
    pub fn events_since(&self, from: i64) -> Vec<ModelEvent> {
        let mut events: Vec<ModelEvent> = self
            .events
            .iter()
            .filter(|event| event.change.main.0 >= from)
            .filter(|event| !self.is_hidden_by_compaction(event))
            .cloned()
            .collect();
        for event in &mut events {
            if event.change.main.0 - 1 < self.compacted {
                event.prev = None;
            }
        }
        events
    }

    /// Compaction keeps one version of a key at its own revision.
    fn is_hidden_by_compaction(&self, event: &ModelEvent) -> bool {
        event.change.main.0 == self.compacted
            && event.kind == EventKind::Put
            && self.events.iter().any(|other| {
                other.record.key == event.record.key
                    && other.change.main == event.change.main
                    && other.change.sub > event.change.sub
            })
    }

    /// etcd's `HashKV`, from its definition over the list of everything.
    ///
    /// A hash that a compaction has left was taken under the compaction before. It never falls back
    /// on all there is: a compaction keeps the tombstones of its own revision.
    pub fn hash(&self, revision: i64, compacted: i64) -> u32 {
        let is_of_compaction = compacted != self.compacted;
        let keep = self.newest_until(revision);
        let swept_to = self.newest_until(compacted);
        let mut hash = crc32c::crc32c(b"key");
        for (index, event) in self.events.iter().enumerate() {
            let main = event.change.main.0;
            if main > revision {
                break;
            }
            let is_put = event.kind == EventKind::Put;
            if main <= compacted {
                let kept = if keep.is_empty() && !is_of_compaction { &swept_to } else { &keep };
                if !is_put || !kept.contains(&index) {
                    continue;
                }
            }
            let mut key = main.to_be_bytes().to_vec();
            key.push(b'_');
            key.extend_from_slice(&event.change.sub.to_be_bytes());
            if !is_put {
                key.push(b't');
            }
            hash = crc32c::crc32c_append(hash, &key);
            let mut record = event.record.clone();
            if !is_put {
                record.mod_revision = Revision(0);
            }
            hash = crc32c::crc32c_append(hash, &protobuf(&record));
        }
        hash
    }

    /// The events that wrote what lives at a revision.
    fn newest_until(&self, revision: i64) -> Vec<usize> {
        let mut newest: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (index, event) in self.events.iter().enumerate() {
            if event.change.main.0 <= revision {
                newest.insert(&event.record.key, index);
            }
        }
        newest.into_values().filter(|&index| self.events[index].kind == EventKind::Put).collect()
    }
}

fn protobuf(record: &OwnedRecord) -> Vec<u8> {
    fn varint(mut number: u64, out: &mut Vec<u8>) {
        while number >= 0x80 {
            out.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    let mut out = Vec::new();
    let numbers = [(2, record.create_revision.0), (3, record.mod_revision.0), (4, record.version)];
    if !record.key.is_empty() {
        out.push(0x0a);
        varint(record.key.len() as u64, &mut out);
        out.extend_from_slice(&record.key);
    }
    for (field, number) in numbers {
        if number != 0 {
            out.push(field << 3);
            varint(number as u64, &mut out);
        }
    }
    if !record.value.is_empty() {
        out.push(0x2a);
        varint(record.value.len() as u64, &mut out);
        out.extend_from_slice(&record.value);
    }
    if record.lease.0 != 0 {
        out.push(0x30);
        varint(record.lease.0 as u64, &mut out);
    }
    out
}

fn in_range(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

fn record_holds(compare: &CompareRef<'_>, record: &OwnedRecord) -> bool {
    let ordering = match compare.target {
        0 => record.version.cmp(&compare.number),
        1 => record.create_revision.0.cmp(&compare.number),
        2 => record.mod_revision.0.cmp(&compare.number),
        3 => record.value.as_slice().cmp(compare.value),
        4 => record.lease.0.cmp(&compare.number),
        _ => std::cmp::Ordering::Equal,
    };
    match compare.result {
        0 => ordering.is_eq(),
        1 => ordering.is_gt(),
        2 => ordering.is_lt(),
        3 => ordering.is_ne(),
        _ => true,
    }
}

fn sort(records: &mut [OwnedRecord], query: &RangeQuery<'_>) {
    records.sort_by(|a, b| {
        let by_target = match query.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match query.sort_order {
            SortOrder::Descend => by_target.reverse(),
            SortOrder::None | SortOrder::Ascend => by_target,
        }
    });
}
