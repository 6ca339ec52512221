//! Random histories against the model, at several numbers of shards and with every kind of
//! interruption: small budgets, sweeps, checkpoints, restarts.

use crate::driver::{Driver, Frames};
use crate::model::{Model, ModelEvent};
use crate::random::{Random, Words};
use std::collections::BTreeMap;

use engine::command::{
    CompactRef, DeleteRangeRef, LeaseGrantRef, LeaseRemaining, LeaseRevokeRef, PutRef, TxnRef,
};
use engine::{
    Answer, Batch, EventKind, EventRef, EventSink, Interest, KeyValueHashScan, LeaseId, Outcome,
    Progress, ReadError, Rejection, Revision, Term, TxnOutcome, TxnScan, events_since,
};

enum Command<'w> {
    Put(PutRef<'w>),
    Delete(DeleteRangeRef<'w>),
    Txn(TxnRef<'w>),
    Compact(i64),
    Grant(LeaseGrantRef),
    Revoke(LeaseRevokeRef),
    Note(Vec<LeaseRemaining>),
}

/// The term all entries are of.
const TERM: Term = Term(1);

fn command<'w>(words: &'w Words, random: &mut Random, model: &Model) -> Command<'w> {
    match random.below(24) {
        0..=9 => Command::Put(words.put(random)),
        10..=14 => Command::Delete(words.delete(random)),
        15..=18 => Command::Txn(words.txn(random, model.revision, 2)),
        19..=20 => {
            let ttl_seconds = random.below(100) as i64;
            Command::Grant(LeaseGrantRef { id: words.lease(random), ttl_seconds })
        }
        21 => {
            let expired_in = random.one_in(2).then(|| Term(1 + random.below(2) as u64));
            Command::Revoke(LeaseRevokeRef { id: words.lease(random), expired_in })
        }
        22 => Command::Note(
            (0..random.below(4))
                .map(|_| LeaseRemaining {
                    id: words.lease(random),
                    remaining_seconds: random.below(100) as i64,
                })
                .collect(),
        ),
        _ if random.one_in(2) => {
            let back = random.below(12) as i64;
            Command::Compact(model.revision + 1 - back)
        }
        _ => Command::Put(words.put(random)),
    }
}

fn apply_to_model(model: &mut Model, command: &Command<'_>) -> Answer {
    let outcome = match command {
        Command::Put(put) => match model.put(put) {
            Ok(prev) => Outcome::Put { prev },
            Err(rejection) => Outcome::Rejected(rejection),
        },
        Command::Delete(delete) => {
            let (deleted, prevs) = model.delete(delete);
            Outcome::DeleteRange { deleted, prevs }
        }
        Command::Txn(txn) => model.txn(txn),
        Command::Compact(revision) => model.compact(*revision),
        Command::Grant(grant) => model.grant(*grant),
        Command::Revoke(revoke) => model.revoke(*revoke, TERM),
        Command::Note(notes) => model.note(notes),
    };
    Answer { revision: model.finish(), outcome }
}

fn push(frames: Frames, command: &Command<'_>) -> Frames {
    match command {
        Command::Put(put) => frames.put(put),
        Command::Delete(delete) => frames.delete(delete),
        Command::Txn(txn) => frames.txn(txn),
        Command::Compact(revision) => {
            frames.compact(CompactRef { revision: Revision(*revision), physical: false })
        }
        Command::Grant(grant) => frames.grant(*grant),
        Command::Revoke(revoke) => frames.revoke(*revoke),
        Command::Note(notes) => frames.note(notes),
    }
}

struct Case<'w> {
    name: String,
    words: &'w Words,
    random: Random,
    model: Model,
    driver: Driver,
    /// Entries that the newest checkpoint does not hold.
    behind_checkpoint: Vec<Batch>,
}

impl Case<'_> {
    fn step(&mut self) {
        self.driver.budget = match self.random.below(3) {
            0 => 1 + self.random.below(4),
            1 => 1 + self.random.below(40),
            _ => usize::MAX,
        };
        self.apply_some();
        for _ in 0..3 {
            self.compare_range();
        }
        self.compare_txn_of_ranges();
        self.compare_leases();
        if self.random.one_in(4) {
            self.compare_catch_up();
            self.compare_hash();
        }
        if self.random.one_in(3) {
            let budget = 1 + self.random.below(10);
            self.driver.engine.background_step(budget).unwrap();
        }
        if self.random.one_in(8) {
            self.driver.sweep();
        }
        if self.random.one_in(15) {
            self.driver.engine.begin_defrag();
        }
        for _ in 0..self.random.below(4) {
            let budget = 1 + self.random.below(10);
            if self.driver.defrag_step(budget) {
                self.behind_checkpoint.clear();
            }
        }
        if self.random.one_in(25) {
            self.driver.checkpoint();
            self.behind_checkpoint.clear();
        }
        if self.random.one_in(25) {
            self.restart();
        }
    }

    fn apply_some(&mut self) {
        let revision_before = self.model.revision;
        let events_before = self.model.events.len();
        let mut frames = Frames::new();
        let mut expected = Vec::new();
        for _ in 0..1 + self.random.below(8) {
            let command = command(self.words, &mut self.random, &self.model);
            expected.push(apply_to_model(&mut self.model, &command));
            frames = push(frames, &command);
        }
        let (wanted, prev_wanted) = (!self.random.one_in(5), self.random.one_in(2));
        self.driver.engine.set_events_wanted(wanted, prev_wanted);
        let batch = frames.into_batch();
        let answers = self.driver.apply_batch(&batch);
        self.behind_checkpoint.push(batch);
        assert_eq!(answers, expected, "{}", self.name);
        assert_eq!(self.driver.engine.revision().0, self.model.revision, "{}", self.name);
        assert_eq!(self.driver.engine.compacted().0, self.model.compacted, "{}", self.name);

        let events = self.driver.events();
        let changed = self.model.revision != revision_before;
        assert_eq!(events.is_some(), wanted && changed, "{}", self.name);
        let Some(events) = events else { return };
        assert_eq!(events.previous().0, revision_before, "{}", self.name);
        assert_eq!(events.last().0, self.model.revision, "{}", self.name);
        let told: Vec<ModelEvent> = events.events().map(|event| own(&event)).collect();
        let mut expected = self.model.events[events_before..].to_vec();
        if !prev_wanted {
            expected.iter_mut().for_each(|event| event.prev = None);
        }
        assert_eq!(told, expected, "{}", self.name);
    }

    fn compare_range(&mut self) {
        let query = self.words.query(&mut self.random, self.model.revision);
        let expected = self.model.range(&query);
        let found = self.driver.range(&query).map(|(records, summary)| {
            assert_eq!(summary.revision.0, self.model.revision, "{} {query:?}", self.name);
            (records, summary.count, summary.more)
        });
        assert_eq!(found, expected, "{} {query:?}", self.name);
    }

    fn compare_leases(&mut self) {
        let count_max = 1 + self.random.below(5);
        let view = self.driver.handle.pin();
        let (mut leases, mut from) = (Vec::new(), Some(LeaseId(0)));
        while let Some(id) = from {
            from = view.leases(id, count_max, &mut leases).unwrap();
        }
        let told = leases.iter().map(|lease| {
            assert_eq!(view.lease(lease.id).unwrap(), Some(*lease), "{}", self.name);
            (lease.id.0, (lease.ttl_seconds, lease.remaining_seconds))
        });
        assert_eq!(told.collect::<BTreeMap<_, _>>(), self.model.leases, "{}", self.name);
        for lease in leases {
            let (mut keys, mut from) = (Vec::new(), Some(Vec::new()));
            while let Some(key) = from {
                from = view.lease_keys(lease.id, &key, count_max, &mut keys).unwrap();
            }
            assert_eq!(keys, self.model.lease_keys(lease.id.0), "{}", self.name);
        }
    }

    fn compare_txn_of_ranges(&mut self) {
        let txn = self.words.txn_of_ranges(&mut self.random, self.model.revision);
        let expected = self.model.txn(&txn);
        let found = match scan_txn(&mut self.driver, &txn) {
            Ok(outcome) => Outcome::Txn(outcome),
            Err(rejection) => Outcome::Rejected(rejection),
        };
        assert_eq!(found, expected, "{} {txn:?}", self.name);
    }

    fn compare_catch_up(&mut self) {
        // Often where history begins: there the rules are finest.
        let from = match self.random.below(3) {
            0 => self.model.compacted.max(0),
            _ => self.random.below(self.model.revision as usize + 3) as i64,
        };
        let mut sink = Collector { events: Vec::new(), skip: self.random.below(3) };
        let view = self.driver.handle.pin();
        let mut next = Revision(from);
        loop {
            let budget = 1 + self.random.below(5);
            match events_since(&view, next, budget, &mut sink) {
                Ok(reached) if reached > view.revision => break,
                Ok(reached) => {
                    assert!(reached > next, "{}: no progress at {next}", self.name);
                    next = reached;
                }
                Err(ReadError::Rejection(rejection)) => {
                    assert_eq!(rejection, Rejection::Compacted, "{}", self.name);
                    assert!(from < self.model.compacted, "{}: {from}", self.name);
                    return;
                }
                Err(ReadError::Fault(fault)) => panic!("{}: {fault}", self.name),
            }
        }
        assert!(from >= self.model.compacted, "{}: {from}", self.name);
        let mut expected = self.model.events_since(from);
        expected.retain(|event| sink.wants(&event.record.key) != Interest::Skip);
        for event in &mut expected {
            if sink.wants(&event.record.key) == Interest::Event {
                event.prev = None;
            }
        }
        assert_eq!(sink.events, expected, "{}", self.name);
    }

    fn compare_hash(&mut self) {
        let asked = self.random.below(self.model.revision as usize + 2) as i64;
        let mut scan = KeyValueHashScan::new(Revision(asked));
        let result = loop {
            let budget = 1 + self.random.below(20);
            let view = self.driver.handle.pin();
            match scan.step(&view, budget) {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => break Ok(scan.result().unwrap()),
                Err(ReadError::Rejection(rejection)) => break Err(rejection),
                Err(ReadError::Fault(fault)) => panic!("{}: {fault}", self.name),
            }
        };
        if asked > self.model.revision {
            return assert_eq!(result, Err(Rejection::FutureRevision), "{}", self.name);
        }
        // Of a compaction's own revision the hash is remembered that was taken before its sweep.
        let is_remembered = result.is_ok_and(|hash| hash.compacted.0 != self.model.compacted);
        if asked > 0 && asked < self.model.compacted && !is_remembered {
            return assert_eq!(result, Err(Rejection::Compacted), "{}", self.name);
        }
        let result = result.unwrap();
        let revision = if asked == 0 { self.model.revision } else { asked };
        assert_eq!(result.revision.0, revision, "{}", self.name);
        if is_remembered {
            assert!(self.model.compactions.contains(&asked), "{} at {asked}", self.name);
            assert!(result.compacted.0 < asked, "{} at {asked}", self.name);
        }
        let expected = self.model.hash(revision, result.compacted.0);
        assert_eq!(result.hash, expected, "{} at {revision}", self.name);
    }

    /// Loses what is not in the checkpoint and replays it, as the log would.
    fn restart(&mut self) {
        if self.driver.engine.durable().0.0 == 0 {
            self.driver.checkpoint();
            self.behind_checkpoint.clear();
        }
        self.driver.reopen();
        for batch in &self.behind_checkpoint {
            self.driver.apply_batch(batch);
        }
    }
}

fn scan_txn(driver: &mut Driver, txn: &TxnRef<'_>) -> Result<TxnOutcome, Rejection> {
    let mut scan = TxnScan::new(txn);
    loop {
        let view = driver.handle.pin();
        match scan.step(&view, driver.budget) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => return Ok(scan.into_outcome()),
            Err(ReadError::Rejection(rejection)) => return Err(rejection),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }
}

fn own(event: &EventRef<'_>) -> ModelEvent {
    ModelEvent {
        kind: event.kind,
        change: event.change,
        record: event.record.to_owned(),
        prev: event.prev.map(|prev| prev.to_owned()),
    }
}

struct Collector {
    events: Vec<ModelEvent>,
    skip: usize,
}

impl Collector {
    fn wants(&self, key: &[u8]) -> Interest {
        match (key.len() + self.skip) % 4 {
            0 => Interest::Skip,
            1 => Interest::Event,
            _ => Interest::EventAndPrev,
        }
    }
}

impl EventSink for Collector {
    fn interest(&mut self, _: EventKind, key: &[u8]) -> Interest {
        self.wants(key)
    }

    fn event(&mut self, event: EventRef<'_>) {
        self.events.push(own(&event));
    }
}

fn run(shards: u16, seed: u64, steps: usize) {
    let mut random = Random::new(seed);
    let words = Words::new(&mut random);
    let mut case = Case {
        name: String::new(),
        words: &words,
        random,
        model: Model::new(),
        driver: Driver::new(shards),
        behind_checkpoint: Vec::new(),
    };
    for step in 0..steps {
        case.name = format!("{shards} shards, seed {seed}, step {step}");
        case.step();
    }
}

#[test]
fn one_shard_answers_like_the_model() {
    (0..12).for_each(|seed| run(1, seed, 250));
}

#[test]
fn two_shards_answer_like_the_model() {
    (0..8).for_each(|seed| run(2, seed, 250));
}

#[test]
fn four_shards_answer_like_the_model() {
    (0..2).for_each(|seed| run(4, seed, 250));
}

#[test]
fn eight_shards_answer_like_the_model() {
    (0..2).for_each(|seed| run(8, seed, 250));
}
