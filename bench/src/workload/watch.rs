//! Watchers of the whole key space: every watch must see every write once, in order.
//!
//! Each slot is one stream that carries several watches. An event's latency runs from the moment at
//! which the put that caused it was sent: the generation in its value is that moment.
//!
//! Invariants:
//! - Nobody else writes to the key space during a run, so that after the last write the number of
//!   events of each watch is the number of writes.
//! - Within a watch revisions rise: an event that comes twice or late is a wrong answer.

use super::{Begun, Context, KeySpace, Ledger, Op, Workload};
use crate::proto::{self, WatchAnswer};

/// The watchers of one group.
pub struct Watch {
    space: KeySpace,
    watches_per_stream: usize,
    /// By slot and watch id.
    watches: Vec<Vec<Watcher>>,
    created_count: usize,
    /// How many creations were sent, by slot.
    requested: Vec<usize>,
}

#[derive(Clone, Default)]
struct Watcher {
    created: bool,
    events_count: u64,
    revision: u64,
}

impl Watch {
    /// So many watches on each of the slots' streams.
    pub fn new(space: KeySpace, slots: usize, watches_per_stream: usize) -> Self {
        let watches = vec![vec![Watcher::default(); watches_per_stream]; slots];
        Self { space, watches_per_stream, watches, created_count: 0, requested: vec![0; slots] }
    }

    fn write_create(&mut self, slot: usize, out: &mut Vec<u8>) {
        self.requested[slot] += 1;
        // Ids are chosen here, from 1, because 0 would let the server choose.
        let watch_id = u64::try_from(self.requested[slot]).expect("a count of watches");
        let prefix = self.space.prefix.as_bytes();
        proto::write_watch_create(out, prefix, &self.space.range_end(), 0, watch_id);
    }

    fn handle_events(&mut self, op: &Op, context: &mut Context<'_>, answer: &WatchAnswer<'_>) {
        let ledger = &mut *context.ledger;
        let watcher = usize::try_from(answer.watch_id)
            .ok()
            .and_then(|id| self.watches[op.number].get_mut(id.checked_sub(1)?));
        let Some(watcher) = watcher else {
            return ledger.handle_wrong(format!("an answer for watch {}", answer.watch_id));
        };
        if answer.canceled {
            return ledger.handle_wrong(format!("watch {} was cancelled", answer.watch_id));
        }
        if answer.created && !std::mem::replace(&mut watcher.created, true) {
            self.created_count += 1;
        }
        for event in answer.events() {
            let Ok((deleted, kv)) = event else {
                return ledger.handle_wrong("an event is malformed");
            };
            let index = self.space.index_of(kv.key).filter(|&index| index < self.space.count);
            let Some(index) = index.filter(|_| !deleted) else {
                ledger.handle_wrong("an event of a key that nobody wrote");
                continue;
            };
            match self.space.check_value(index, kv.value) {
                Ok(sent_ns) => context.tally.record(context.now_ns.saturating_sub(sent_ns)),
                Err(text) => ledger.handle_wrong(format!("an event: {text}")),
            }
            if kv.mod_revision <= watcher.revision {
                ledger.handle_wrong(format!(
                    "watch {} got revision {} after {}",
                    answer.watch_id, kv.mod_revision, watcher.revision
                ));
            }
            watcher.revision = kv.mod_revision;
            watcher.events_count += 1;
        }
    }
}

impl Workload for Watch {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        op.start(0, context.ledger);
        self.write_create(op.number, out);
        Some(proto::WATCH)
    }

    fn poll_message(&mut self, op: &mut Op, out: &mut Vec<u8>) -> bool {
        let more = self.requested[op.number] < self.watches_per_stream;
        if more {
            self.write_create(op.number, out);
        }
        more
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        match WatchAnswer::read(payload) {
            Ok(answer) => self.handle_events(op, context, &answer),
            Err(_) => context.ledger.handle_wrong("a watch's answer is malformed"),
        }
    }

    fn is_ready(&self) -> bool {
        self.created_count == self.watches.len() * self.watches_per_stream
    }

    fn missing(&self, ledger: &Ledger) -> Option<String> {
        let all = self.watches.iter().flatten();
        let behind = all.filter(|watcher| watcher.events_count != ledger.writes_count()).count();
        (behind > 0).then(|| {
            format!("{behind} watches did not see all of {} writes", ledger.writes_count())
        })
    }

    fn is_long_lived(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{KeyValue, answers};
    use crate::report::Tally;

    #[test]
    fn every_event_once_and_in_order() {
        let prefix = "w/".to_owned();
        let space = KeySpace { prefix, count: 10, seed: 3, value_size_bytes: 16 };
        let mut watch = Watch::new(space.clone(), 1, 2);
        let mut ledger = Ledger::new(10);
        let mut tally = Tally::new("watch");
        let mut op = Op::default();
        let mut out = Vec::new();
        let context = &mut Context { ledger: &mut ledger, tally: &mut tally, now_ns: 1500 };
        assert_eq!(watch.begin(&mut op, context, &mut out), Some(proto::WATCH));
        assert!(watch.poll_message(&mut op, &mut out));
        assert!(!watch.poll_message(&mut op, &mut out));
        for watch_id in [1, 2] {
            assert!(!watch.is_ready());
            let created = answers::watch(1, watch_id, true, &[]);
            watch.handle_message(&mut op, context, &created);
        }
        assert!(watch.is_ready());

        let mut value = Vec::new();
        space.write_value(4, 1000, &mut value);
        let key = space.key(4);
        let event = |mod_revision| KeyValue {
            key: &key,
            value: &value,
            mod_revision,
            create_revision: 2,
            version: 1,
            lease: 0,
        };
        context.ledger.handle_write(&Op { index: 4, ..Op::default() }, 2);
        for watch_id in [1, 2] {
            assert!(watch.missing(context.ledger).is_some());
            let answer = answers::watch(2, watch_id, false, &[event(2)]);
            watch.handle_message(&mut op, context, &answer);
        }
        assert_eq!(watch.missing(context.ledger), None);
        assert_eq!((context.ledger.wrong_count, context.tally.operations_count), (0, 2));
        assert_eq!(context.tally.histogram.max() / 100, 5, "from the sending of the put");

        let again = answers::watch(2, 1, false, &[event(2)]);
        watch.handle_message(&mut op, context, &again);
        assert_eq!(context.ledger.wrong_count, 1, "the same event twice");
        assert!(watch.missing(context.ledger).is_some());
        watch.handle_message(&mut op, context, &answers::watch(3, 3, false, &[]));
        assert_eq!(context.ledger.wrong_count, 2, "an unknown watch");
    }
}
