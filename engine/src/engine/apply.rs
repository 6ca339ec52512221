//! One batch being applied.
//!
//! Invariants:
//! - Commands are answered in their order, each exactly once.
//! - Before each slice of work the pages it may need at worst are free: apply never meets a full
//!   disk in the middle of a change. A slice that has to wait for a file to grow ends the step.
//! - A rejected command has changed nothing.

use crate::alarm;
use crate::answer::{Answer, Outcome, OwnedRecord, ReadError, Rejection};
use crate::command::{Batch, Command, CommandKind, DeleteRangeRef, PutRef};
use crate::compaction::Compaction;
use crate::delete::DeleteRun;
use crate::downgrade;
use crate::engine::Failure;
use crate::ids::{LeaseId, Revision, Term};
use crate::lease::{self, RevokeRun};
use crate::limits;
use crate::membership;
use crate::page::PageFault;
use crate::range::Progress;
use crate::system;
use crate::txn::{TxnRun, TxnStep};
use crate::working::Working;

use super::segment::Segment;

/// Changes between two looks at the free pages: few enough that their worst case is little memory.
pub(super) const SLICE_CHANGES_MAX: usize = 256;

/// The bytes of commands in a slice; one longer command stands alone.
pub(super) const SLICE_SIZE_BYTES_MAX: usize = 64 << 10;

/// A batch on its way.
pub(super) struct BatchRun {
    batch: Batch,
    /// The term of the entry that carries it.
    term: Term,
    /// The next command.
    next: usize,
    /// The command before that, if it is not finished.
    command: Option<CommandRun>,
    segment: Segment,
}

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The batch is done.
    Done,
    /// The budget is used up.
    More,
    /// The next slice needs pages that are not there: going on at once would change nothing.
    Starved,
}

enum CommandRun {
    Delete(DeleteRun),
    Revoke(RevokeRun),
    Txn(TxnRun),
}

impl BatchRun {
    pub(super) fn new(batch: Batch, term: Term) -> Self {
        Self { batch, term, next: 0, command: None, segment: Segment::default() }
    }

    pub(super) fn step(
        &mut self,
        working: &mut Working,
        compaction: &mut Compaction,
        budget: usize,
        answers: &mut Vec<Answer>,
    ) -> Result<Step, Failure> {
        let batch = self.batch.clone();
        let mut budget = budget;
        while budget > 0 {
            if self.command.is_none() && self.next == batch.len() {
                return Ok(Step::Done);
            }
            if let Some(run) = self.command.take() {
                let index = self.next - 1;
                if working.reserve(SLICE_CHANGES_MAX, batch.size_bytes(index..self.next)).is_err() {
                    self.command = Some(run);
                    return Ok(Step::Starved);
                }
                let before = budget;
                self.command = go_on(run, batch.command(index), working, &mut budget, answers)?;
                // A run that touched no key had no room for the next one.
                if self.command.is_some() && budget == before {
                    return Ok(Step::Starved);
                }
                continue;
            }
            let end = self.slice_end(&batch, budget);
            let size_bytes = batch.size_bytes(self.next..end);
            if working.reserve(end - self.next, size_bytes).is_err() {
                return Ok(Step::Starved);
            }
            let before = self.next;
            let answered = answers.len();
            if working.shards.len() == 1 {
                self.apply_in_order(&batch, end, working, compaction, answers)?;
            } else {
                self.apply_by_segment(&batch, end, working, compaction, answers)?;
            }
            let copied_bytes = answers[answered..].iter().map(prevs_size_bytes).sum();
            let cost = self.next - before + limits::keys_for_bytes(copied_bytes);
            budget = budget.saturating_sub(cost);
        }
        let is_done = self.command.is_none() && self.next == batch.len();
        Ok(if is_done { Step::Done } else { Step::More })
    }

    /// Where the next slice of commands ends.
    fn slice_end(&self, batch: &Batch, budget: usize) -> usize {
        let mut end = self.next + 1;
        let mut size_bytes = batch.size_bytes(self.next..end);
        let longest = batch.len().min(self.next + budget.min(SLICE_CHANGES_MAX));
        while end < longest {
            size_bytes += batch.size_bytes(end..end + 1);
            if size_bytes > SLICE_SIZE_BYTES_MAX {
                break;
            }
            end += 1;
        }
        end
    }

    /// One shard: evaluate, number and write are one step for each command. The records that
    /// answers carry are copies, whose size no command tells, and end the slice.
    fn apply_in_order(
        &mut self,
        batch: &Batch,
        end: usize,
        working: &mut Working,
        compaction: &mut Compaction,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Failure> {
        let mut copied_bytes = 0;
        while self.next < end && self.command.is_none() && copied_bytes < SLICE_SIZE_BYTES_MAX {
            let command = batch.command(self.next);
            self.next += 1;
            let answered = answers.len();
            self.command = begin(command, self.term, working, compaction, answers)?;
            copied_bytes += answers[answered..].iter().map(prevs_size_bytes).sum::<usize>();
        }
        Ok(())
    }

    /// Several shards: runs of commands on single keys are evaluated, numbered and written shard by
    /// shard; every other command stands alone.
    fn apply_by_segment(
        &mut self,
        batch: &Batch,
        end: usize,
        working: &mut Working,
        compaction: &mut Compaction,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Failure> {
        while self.next < end && self.command.is_none() {
            let evaluated = self.segment.evaluate(batch, self.next..end, working)?;
            if evaluated > 0 {
                self.segment.number(working);
                self.segment.write(batch, working, answers)?;
                self.next += evaluated;
                continue;
            }
            let command = batch.command(self.next);
            self.next += 1;
            self.command = begin(command, self.term, working, compaction, answers)?;
        }
        Ok(())
    }
}

/// Why a put is refused that no alarm refuses. A lease that does not exist wins over a key that
/// does not: etcd's order for a put on its own.
pub(super) fn refusal_of(
    put: &PutRef<'_>,
    working: &Working,
) -> Result<Option<Rejection>, PageFault> {
    if !working.lease_is_known(put.lease)? {
        return Ok(Some(Rejection::LeaseNotFound));
    }
    if put.ignore_value || put.ignore_lease {
        let shard = working.shard_of(put.key);
        if !working.shards[shard].contains(put.key)? {
            return Ok(Some(Rejection::KeyNotFound));
        }
    }
    Ok(None)
}

/// Does a command, or begins it if it may be long.
fn begin(
    command: Command<'_>,
    term: Term,
    working: &mut Working,
    compaction: &mut Compaction,
    answers: &mut Vec<Answer>,
) -> Result<Option<CommandRun>, Failure> {
    if let Some(rejection) = working.alarms.refusal_of(&command) {
        answer(Outcome::Rejected(rejection), working, answers);
        return Ok(None);
    }
    let outcome = match command {
        Command::Put(put) => {
            let put = put.as_ref();
            match refusal_of(&put, working)? {
                Some(rejection) => Outcome::Rejected(rejection),
                None => {
                    working.activity.note_lone_put(&put);
                    Outcome::Put { prev: working.put(&put)? }
                }
            }
        }
        Command::DeleteRange(delete) => {
            let delete = delete.as_ref();
            working.activity.note_lone_delete(&delete);
            if !delete.range_end.is_empty() {
                return Ok(Some(CommandRun::Delete(DeleteRun::new(&delete))));
            }
            outcome_of_delete(working.delete(delete.key, delete.prev_kv)?)
        }
        Command::Txn(table) => return Ok(Some(CommandRun::Txn(TxnRun::new(table)))),
        Command::Compact(compact) => {
            let revision = Revision(compact.revision.to_native());
            match compaction.accept(revision, working)? {
                Ok(()) => Outcome::Compacted { sweep: compact.physical.then_some(revision) },
                Err(rejection) => Outcome::Rejected(rejection),
            }
        }
        Command::MemberPublish(member) => membership::publish(&member.to_attributes(), working)?,
        Command::ClusterVersionSet(version) => {
            system::put_cluster_version(&mut working.shards[0], &version.version)?;
            Outcome::System
        }
        Command::LeaseGrant(grant) => match lease::grant(grant, working)? {
            true => Outcome::LeaseGranted(grant),
            false => Outcome::Rejected(Rejection::LeaseExists),
        },
        Command::LeaseRevoke(revoke) => {
            let is_late = revoke.expired_in.is_some_and(|expired_in| expired_in != term);
            if !is_late && revoke.id != LeaseId(0) && working.lease_is_known(revoke.id)? {
                return Ok(Some(CommandRun::Revoke(RevokeRun::new(revoke.id))));
            }
            Outcome::Rejected(Rejection::LeaseNotFound)
        }
        Command::LeaseCheckpoint(checkpoint) => {
            for remaining in checkpoint.leases() {
                lease::set_remaining(remaining, working)?;
            }
            Outcome::System
        }
        Command::Alarm(change) => alarm::apply(change, working)?,
        Command::Downgrade(body) => downgrade::apply(body.target(), working)?,
        Command::MemberAdd(add) => {
            membership::add(&add.to_peer(), add.learners_max.to_native(), working)?
        }
        Command::MemberRemove(member) => membership::remove(member.id(), working)?,
        Command::MemberPromote(member) => membership::promote(member.id(), working)?,
        Command::MemberUpdate(update) => {
            membership::update(update.id(), update.peer_urls(), working)?
        }
    };
    answer(outcome, working, answers);
    Ok(None)
}

fn go_on(
    run: CommandRun,
    command: Command<'_>,
    working: &mut Working,
    budget: &mut usize,
    answers: &mut Vec<Answer>,
) -> Result<Option<CommandRun>, Failure> {
    let slice = (*budget).min(SLICE_CHANGES_MAX);
    let mut left = slice;
    let outcome = match (run, command) {
        (CommandRun::Delete(mut run), Command::DeleteRange(delete)) => {
            let delete: DeleteRangeRef<'_> = delete.as_ref();
            if run.step(&delete, working, &mut left)? == Progress::More {
                *budget -= slice - left;
                return Ok(Some(CommandRun::Delete(run)));
            }
            Outcome::DeleteRange { deleted: run.deleted, prevs: run.prevs }
        }
        (CommandRun::Revoke(mut run), Command::LeaseRevoke(_)) => {
            if run.step(working, &mut left)? == Progress::More {
                *budget -= slice - left;
                return Ok(Some(CommandRun::Revoke(run)));
            }
            Outcome::LeaseRevoked
        }
        (CommandRun::Txn(mut run), Command::Txn(table)) => {
            match run.step(table, working, &mut left) {
                Ok(TxnStep::More) => {
                    *budget -= slice - left;
                    return Ok(Some(CommandRun::Txn(run)));
                }
                Ok(TxnStep::Done(outcome)) => {
                    working.activity.note_txn(&outcome);
                    Outcome::Txn(outcome)
                }
                Err(ReadError::Rejection(rejection)) => Outcome::Rejected(rejection),
                Err(ReadError::Fault(fault)) => return Err(fault.into()),
            }
        }
        _ => unreachable!("a run goes on with the command it was begun for"),
    };
    *budget -= slice - left;
    answer(outcome, working, answers);
    Ok(None)
}

pub(super) fn outcome_of_delete(deleted: Option<Option<OwnedRecord>>) -> Outcome {
    match deleted {
        Some(prev) => Outcome::DeleteRange { deleted: 1, prevs: prev.into_iter().collect() },
        None => Outcome::DeleteRange { deleted: 0, prevs: Vec::new() },
    }
}

/// The bytes of the records that an answer to a command on a single key carries.
fn prevs_size_bytes(answer: &Answer) -> usize {
    match &answer.outcome {
        Outcome::Put { prev } => prev.as_ref().map_or(0, OwnedRecord::size_bytes),
        Outcome::DeleteRange { prevs, .. } => prevs.iter().map(OwnedRecord::size_bytes).sum(),
        Outcome::Txn(_)
        | Outcome::LeaseGranted(_)
        | Outcome::LeaseRevoked
        | Outcome::Rejected(_)
        | Outcome::Compacted { .. }
        | Outcome::Alarm(_)
        | Outcome::Downgrade { .. }
        | Outcome::System => 0,
    }
}

fn answer(outcome: Outcome, working: &mut Working, answers: &mut Vec<Answer>) {
    let revision = working.finish_command();
    answers.push(Answer { revision, outcome });
}

/// Whether a command can be evaluated by the shard of its only key.
pub(super) fn is_on_single_key(batch: &Batch, index: usize) -> bool {
    match batch.kind(index) {
        CommandKind::Put => true,
        CommandKind::DeleteRange => match batch.command(index) {
            Command::DeleteRange(delete) => delete.range_end.is_empty(),
            _ => unreachable!("the kind is that of the command"),
        },
        _ => false,
    }
}
