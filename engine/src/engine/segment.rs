//! Runs of commands on single keys, over several shards: evaluate, number, write.
//!
//! Each shard evaluates its commands in order and says which of them need a revision; the numbers
//! follow from a sum over the segment in log order; then each shard writes on its own.
//!
//! Invariants:
//! - No evaluation in a segment depends on a key that the segment writes: such a command begins the
//!   next one. So all evaluations see the state before the segment, and the order in which shards
//!   work cannot be told from the result.
//! - Single-key commands make one change: its number within the revision is zero.

use std::collections::HashSet;
use std::ops::Range;

use crate::answer::{Answer, Outcome, Rejection};
use crate::command::{Batch, Command};
use crate::ids::{Change, Revision};
use crate::page::PageFault;
use crate::store::key_hash;
use crate::working::Working;

use super::apply::{is_on_single_key, outcome_of_delete, refusal_of};

#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// Needs a revision.
    Change,
    /// Changes nothing.
    Nothing,
    Rejected(Rejection),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The command's place in the batch.
    command: usize,
    shard: usize,
    verdict: Verdict,
    /// The store's revision after the command.
    revision: Revision,
}

/// The segment being worked on; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(super) struct Segment {
    slots: Vec<Slot>,
    /// Hashes of the keys the segment writes. Two keys with one hash cut a segment short and do no
    /// other harm.
    written: HashSet<u64>,
}

impl Segment {
    /// Evaluates as many commands as can stand in one segment; answers with their number.
    pub(super) fn evaluate(
        &mut self,
        batch: &Batch,
        commands: Range<usize>,
        working: &Working,
    ) -> Result<usize, PageFault> {
        self.slots.clear();
        self.written.clear();
        for command in commands {
            if !is_on_single_key(batch, command) {
                break;
            }
            let (key, depends) = match batch.command(command) {
                Command::Put(put) => (&put.key[..], put.ignore_value || put.ignore_lease),
                Command::DeleteRange(delete) => (&delete.key[..], true),
                _ => unreachable!("only these are on single keys"),
            };
            let hash = key_hash(key);
            if depends && self.written.contains(&hash) {
                break;
            }
            let shard = working.shard_of(key);
            let verdict = match batch.command(command) {
                refused if let Some(rejection) = working.alarms.refusal_of(&refused) => {
                    Verdict::Rejected(rejection)
                }
                Command::Put(put) => match refusal_of(&put.as_ref(), working)? {
                    Some(rejection) => Verdict::Rejected(rejection),
                    None => Verdict::Change,
                },
                _ if working.shards[shard].contains(key)? => Verdict::Change,
                _ => Verdict::Nothing,
            };
            if matches!(verdict, Verdict::Change) {
                self.written.insert(hash);
            }
            self.slots.push(Slot { command, shard, verdict, revision: working.revision });
        }
        Ok(self.slots.len())
    }

    /// Gives each change its revision, in log order.
    pub(super) fn number(&mut self, working: &mut Working) {
        for slot in &mut self.slots {
            if matches!(slot.verdict, Verdict::Change) {
                working.revision = working.revision.next();
            }
            slot.revision = working.revision;
        }
    }

    /// Writes shard by shard and appends the answers in log order.
    pub(super) fn write(
        &mut self,
        batch: &Batch,
        working: &mut Working,
        answers: &mut Vec<Answer>,
    ) -> Result<(), PageFault> {
        let base = answers.len();
        answers.extend(self.slots.iter().map(|slot| Answer {
            revision: slot.revision,
            outcome: match slot.verdict {
                Verdict::Rejected(rejection) => Outcome::Rejected(rejection),
                Verdict::Change | Verdict::Nothing => outcome_of_delete(None),
            },
        }));
        for slot in &self.slots {
            // One that finds nothing is a deletion, too.
            if let Command::DeleteRange(delete) = batch.command(slot.command) {
                working.activity.note_lone_delete(&delete.as_ref());
            }
        }
        for shard in 0..working.shards.len() {
            let changes =
                self.slots.iter().enumerate().filter(|(_, slot)| {
                    slot.shard == shard && matches!(slot.verdict, Verdict::Change)
                });
            for (place, slot) in changes {
                let change = Change::first_of(slot.revision);
                let (shard, events) = (&mut working.shards[shard], &mut working.events);
                let activity = &mut working.activity;
                answers[base + place].outcome = match batch.command(slot.command) {
                    Command::Put(put) => {
                        let put = put.as_ref();
                        activity.note_put(&put);
                        activity.note_lone_put(&put);
                        Outcome::Put { prev: shard.put(&put, change, events)? }
                    }
                    Command::DeleteRange(delete) => {
                        let delete = delete.as_ref();
                        let deleted = shard.delete(delete.key, delete.prev_kv, change, events)?;
                        assert!(deleted.is_some(), "a key that was evaluated is gone");
                        outcome_of_delete(deleted)
                    }
                    _ => unreachable!("only these are on single keys"),
                };
            }
        }
        Ok(())
    }
}
