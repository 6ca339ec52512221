//! The log core: sequencer, raft, log and engine of one member, joined into one state machine.
//!
//! It is sans-IO. A turn of its owner's loop is: `handle_*` for all that happened, then
//! [`LogCore::order`] (batches into raft, raft's entries into the log), then the log's operations
//! are polled *and submitted*, and only then [`LogCore::apply`]: the disk syncs batch n + 1 while
//! batch n is applied.
//!
//! Invariants:
//! - An answer to a write leaves only after its entry is durable, applied and published.
//! - Entries are applied in log order, each once; the engine's applied index says which.
//! - A linearizable read leaves only after the view its round asks for is published.
//! - Any failure of the disk, the log or the engine ends the member: the owner stops the process.
//!   A full disk is none: what needs room is refused, or waits for it asleep ([`admission`]).

mod admission;
mod applying;
mod changes;
mod checks;
mod cluster;
mod leases;
mod meter;
mod pace;
mod quota;
mod retention;
mod succession;
mod telling;
#[cfg(test)]
mod tests;
mod transfers;
mod upkeep;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine::ids::{LogIndex, MemberId, Revision, Term};
use engine::lease::Lease;
use engine::{Answer, Engine};
use raft::eraftpb::{Entry, Message};
use wal::{Lsn, RecordKind, Writer};

pub use self::applying::APPLY_KEYS_MAX;
use self::applying::Applying;
use self::changes::Changes;
pub use self::checks::{ANSWER_TIME_MAX, CheckSettings};
use self::checks::{Checks, SLOT_CHECK};
use self::cluster::Peers;
use self::leases::Leases;
use self::meter::Meter;
pub use self::meter::SlowApply;
use self::quota::QuotaWatch;
use self::succession::Succession;
use self::transfers::Transfers;
pub use self::transfers::{ScanJob, Scanned};
use self::upkeep::Upkeep;
use super::checkpoint::{CheckpointPolicy, Tail};
use super::failure::Failure;
use super::shared::{Status, WatchInterest};
use crate::mail::{Ask, FrontendId, LeaseAsk, Reply, Slot, Unavailable, Verdict};
use crate::metrics::LogMetrics;
use crate::raft::record::{KIND_ENTRY, encode_entry_head, encode_state};
use crate::raft::storage::Window;
use crate::raft::{Consensus, Work};
use crate::sequencer::auto_compaction::Retention;
use crate::sequencer::batch::{Batcher, Ticket, frame_size};
use crate::sequencer::lessor::LessorConfig;
use crate::sequencer::read_index::ReadIndex;

/// Log that is kept behind the newest checkpoint, for followers that lag: they catch up from it
/// without a snapshot. As much as stays in memory, once that was said.
pub const CATCH_UP_SIZE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// etcd's default of `--heartbeat-interval`.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Entries of a leader's that may wait for the disk, or for the engine, before no more are read.
const LETTERS_SIZE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The stages that a start has made ready.
pub struct Stages {
    /// raft, restarted on the log's tail.
    pub consensus: Consensus,
    /// The log, recovered.
    pub wal: Writer,
    /// The state machine, at its applied index.
    pub engine: Engine,
    /// This member.
    pub member: MemberId,
    /// Drawn at this start.
    pub boot_nonce: u64,
    /// After which a read without a confirmed round is given up.
    pub request_timeout: Duration,
    /// A checkpoint is due at the latest after so many entries.
    pub snapshot_count: u64,
    /// The rules of leases.
    pub lessor: LessorConfig,
    /// What is compacted without being asked for.
    pub retention: Option<Retention>,
    /// A start defragments when it gives so much back.
    pub defrag_from_bytes: Option<u64>,
    /// The leases that the engine holds.
    pub leases: Vec<Lease>,
    /// What this start replayed, and the next one would replay again.
    pub tail: Tail,
    /// Where the entries recovered from the log begin, oldest first.
    pub retained: VecDeque<(LogIndex, Lsn)>,
}

/// What a member tells its cluster about itself as soon as there is a leader to tell: commands for
/// the log. The first is for every member to say; what follows it is said by a leader alone, in a
/// cluster whose version nobody has set.
#[derive(Debug, Default)]
pub struct Introduction {
    /// The commands.
    pub frames: Vec<u8>,
    /// How many.
    pub count: u32,
}

/// Nobody's slot: that of the introduction.
const SLOT_INTRODUCTION: Slot = Slot(u32::MAX - 3);
/// The same for what only a leader says.
const SLOT_FOUNDING: Slot = Slot(u32::MAX - 5);
/// The same for the question whether this member still leads.
const SLOT_CONFIRMATION: Slot = Slot(u32::MAX - 6);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Introduced {
    NotYet,
    Proposed,
    Done,
}

/// The joined state machine.
pub struct LogCore {
    consensus: Consensus,
    wal: Writer,
    engine: Engine,
    member: MemberId,
    request_timeout: Duration,
    batcher: Batcher,
    boot_nonce: u64,
    peers: Peers,
    changes: Changes,
    checks: Checks,
    transfers: Transfers,
    succession: Option<Succession>,
    heartbeat_interval: Duration,
    reads: ReadIndex,
    leases: Leases,
    checkpoint: CheckpointPolicy,
    status: Arc<Status>,
    interest: Arc<WatchInterest>,
    replies: Vec<Reply>,
    /// Works whose entries or hard state are in the log but not durable yet.
    unsynced: VecDeque<Unsynced>,
    writes_unsynced: usize,
    committed: VecDeque<Entry>,
    applying: Option<Applying>,
    answers: Vec<Answer>,
    /// Where each entry's record begins, for retention.
    retained: VecDeque<(LogIndex, Lsn)>,
    /// How much of the log is retained behind a checkpoint.
    catch_up_size_bytes: u64,
    lost: Vec<Ticket>,
    /// The revision of the view that readers see.
    published: Revision,
    stopping: bool,
    introduction: Introduction,
    introduced: Introduced,
    /// A batch was refused for want of pages: a checkpoint gives some back.
    store_wants_room: bool,
    /// Physical compactions, which are answered when their sweep is done, with its revision.
    sweeping: VecDeque<(Revision, Ticket, Answer)>,
    upkeep: Upkeep,
    /// The latest tick's time.
    ticked: Duration,
    /// The leader that is known, and since when.
    leader_since: (Option<MemberId>, Duration),
    meter: Meter,
    quota: QuotaWatch,
}

struct Unsynced {
    number: u64,
    end: Lsn,
    is_write: bool,
    /// What speaks for it: to be sent when it is durable.
    messages: Vec<Message>,
    /// The entry of a snapshot that raft has gone on from.
    installed: Option<LogIndex>,
}

impl LogCore {
    /// Joins the stages; there are `frontends` front-ends.
    #[must_use]
    pub fn new(
        stages: Stages,
        introduction: Introduction,
        frontends: usize,
        status: Arc<Status>,
        interest: Arc<WatchInterest>,
    ) -> Self {
        let Stages { consensus, wal, mut engine, member, boot_nonce, request_timeout, .. } = stages;
        let Stages {
            snapshot_count,
            retained,
            tail,
            lessor,
            leases,
            retention,
            defrag_from_bytes,
            ..
        } = stages;
        let upkeep = Upkeep::new(retention);
        let view = engine.newest_view();
        let given_back_bytes = engine.reach_bytes().saturating_sub(view.in_use_bytes);
        if defrag_from_bytes.is_some_and(|from| given_back_bytes >= from) {
            engine.begin_defrag();
        }
        // The leases that stand there were read after the replay.
        engine.take_lease_changes();
        let checkpoint = CheckpointPolicy::new(snapshot_count, wal.durable().0, tail);
        let mut core = Self {
            published: engine.revision(),
            consensus,
            wal,
            engine,
            member,
            request_timeout,
            batcher: Batcher::new(member, boot_nonce),
            boot_nonce,
            peers: Peers::default(),
            changes: Changes::default(),
            checks: Checks::default(),
            transfers: Transfers::default(),
            succession: None,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            reads: ReadIndex::new(member, boot_nonce, request_timeout),
            leases: Leases::new(lessor, &leases),
            checkpoint,
            status,
            interest,
            replies: (0..frontends).map(|_| Reply::default()).collect(),
            unsynced: VecDeque::new(),
            writes_unsynced: 0,
            committed: VecDeque::new(),
            applying: None,
            catch_up_size_bytes: CATCH_UP_SIZE_BYTES_MAX,
            answers: Vec::new(),
            retained,
            lost: Vec::new(),
            stopping: false,
            introduction,
            introduced: Introduced::NotYet,
            store_wants_room: false,
            sweeping: VecDeque::new(),
            upkeep,
            ticked: Duration::ZERO,
            leader_since: (None, Duration::ZERO),
            meter: Meter::new(),
            quota: QuotaWatch::new(member),
        };
        // Nothing has to be applied for what the store holds already.
        core.reads.handle_published(core.engine.applied().0);
        // What cannot be read is noticed by the first who asks for it.
        drop(core.look_at_members());
        core
    }

    /// How much of what is applied stays in memory for followers that lag.
    pub fn set_window(&mut self, window: Window) {
        self.catch_up_size_bytes = window.size_bytes_max as u64;
        self.consensus.set_window(window);
    }

    /// `--heartbeat-interval`, which is the time between two ticks.
    pub fn set_heartbeat_interval(&mut self, interval: Duration) {
        self.heartbeat_interval = interval;
    }

    /// What this core counts, for whoever watches it.
    #[must_use]
    pub fn metrics(&self) -> Arc<LogMetrics> {
        Arc::clone(self.meter.metrics())
    }

    /// A batch whose apply took too long, since the last call.
    pub fn poll_slow_apply(&mut self) -> Option<SlowApply> {
        self.meter.poll_slow()
    }

    /// `--warning-apply-duration`: batches that take longer are counted as slow.
    pub fn set_slow_apply(&mut self, limit: Duration) {
        self.meter.set_slow_apply(limit);
    }

    /// Commands that went into the log so far.
    #[must_use]
    pub fn commands_proposed(&self) -> u64 {
        self.meter.commands_proposed()
    }

    /// Stands for election at once if nobody else can.
    pub fn start(&mut self) {
        if self.consensus.is_sole_voter() {
            self.consensus.campaign();
        }
    }

    /// Takes a letter of a front-end.
    pub fn handle_ask(&mut self, frontend: FrontendId, ask: &Ask, now: Duration) {
        if self.stopping {
            let reply = &mut self.replies[frontend.place()];
            let refusal = Unavailable::Stopped;
            let verdict = |&slot: &Slot| (slot, Verdict::Unavailable(refusal));
            reply.answers.extend(ask.slots.iter().chain(&ask.defrags).map(verdict));
            reply.reads_failed.extend(ask.reads.iter().map(|&slot| (slot, refusal)));
            let refused = |&(slot, ask): &(Slot, LeaseAsk)| (slot, ask.refused(refusal));
            reply.leases.extend(ask.leases.iter().map(refused));
            let rare = ask.changes.iter().map(|&(slot, _)| slot);
            let rare = rare.chain(ask.moves.iter().map(|&(slot, _)| slot));
            reply.answers.extend(rare.map(|slot| (slot, Verdict::Unavailable(refusal))));
            return;
        }
        self.batcher.handle_time(now);
        self.batcher.handle_commands(frontend, &ask.frames, &ask.slots);
        self.handle_defrags(frontend, &ask.defrags);
        self.handle_changes(frontend, &ask.changes, now);
        self.handle_moves(frontend, &ask.moves, now);
        self.meter.handle_taken(ask.slots.len(), now);
        for &slot in &ask.reads {
            self.reads.handle_read(Ticket { frontend, slot }, now);
        }
        for &(slot, ask) in &ask.leases {
            let ticket = Ticket { frontend, slot };
            let is_local = ask == LeaseAsk::List || self.consensus.is_leader();
            if is_local || !self.ask_leader(ticket, ask, now) {
                self.leases.handle_ask(ticket, ask);
            }
        }
    }

    /// An operation of the log ended.
    ///
    /// # Errors
    /// The disk failed: nothing more may be acknowledged.
    pub fn handle_log_completion(
        &mut self,
        id: wal::OpId,
        result: Result<wal::Completion, wal::DiskError>,
    ) -> Result<(), Failure> {
        Ok(self.wal.handle_completion(id, result)?)
    }

    /// An operation of the engine ended.
    ///
    /// # Errors
    /// The disk failed under a checkpoint.
    pub fn handle_engine_completion(
        &mut self,
        completion: engine::page::disk::Completion,
    ) -> Result<(), Failure> {
        let durable_before = self.engine.durable();
        self.engine.handle_disk_completion(completion)?;
        self.transfers.handle_disk();
        if self.engine.durable() != durable_before {
            self.release_log();
            self.meter.handle_checkpoint_ended();
        }
        Ok(())
    }

    /// A heartbeat interval passed.
    pub fn handle_tick(&mut self, now: Duration) {
        self.batcher.handle_time(now);
        if !self.transfers.is_raft_frozen() {
            self.consensus.handle_tick();
        }
        self.reads.handle_tick(now);
        while let Some(ticket) = self.reads.poll_failed() {
            if ticket.frontend == FrontendId::NOBODY {
                match ticket.slot {
                    SLOT_CHECK => self.handle_check_round(false),
                    _ => self.ask_whether_leading(now),
                }
                continue;
            }
            let reply = &mut self.replies[ticket.frontend.place()];
            reply.reads_failed.push((ticket.slot, Unavailable::TimedOut));
            self.meter.handle_read_failed();
        }
        self.notice_pause(now);
        self.ticked = now;
        self.forget_late_letters(now);
        self.handle_transfer_tick(now);
        self.handle_upkeep_tick(now);
        self.meter.handle_rounds_retried(self.reads.rounds_retried());
        self.meter.handle_tick(now);
        self.wal.retry_spare();
        self.engine.retry_growth();
        self.transfers.handle_disk();
        self.checkpoint_if_due(now);
        self.handle_check_tick(now);
    }

    /// Gives up what waits and checkpoints: a member that stops cleanly starts without a replay.
    pub fn stop(&mut self) {
        self.stopping = true;
        for ticket in self.batcher.fail_waiting() {
            self.refuse(ticket, Unavailable::Stopped);
        }
        for (_, ticket, _) in std::mem::take(&mut self.sweeping) {
            self.refuse(ticket, Unavailable::Stopped);
        }
        self.stop_upkeep();
        self.stop_changes();
        self.stop_checks();
        let reads = self.reads.fail_all();
        for ticket in reads.into_iter().filter(|ticket| ticket.frontend != FrontendId::NOBODY) {
            let reply = &mut self.replies[ticket.frontend.place()];
            reply.reads_failed.push((ticket.slot, Unavailable::Stopped));
        }
        self.stop_leases();
    }

    /// Whether a stopping member has nothing left to do but the final checkpoint.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.batcher.has_proposed() && self.unsynced.is_empty() && !self.has_work()
    }

    /// What the disk said when it refused to let the store grow, until it has grown.
    #[must_use]
    pub fn store_shortage(&self) -> Option<&engine::page::disk::DiskError> {
        self.engine.growth_failure()
    }

    /// What the disk said when it had no room for another segment, until there is one.
    #[must_use]
    pub fn log_shortage(&self) -> Option<wal::DiskError> {
        self.wal.starvation()
    }

    /// Moves commands into raft and raft's entries into the log. Afterwards the log's operations
    /// are to be polled and submitted before [`Self::apply`].
    ///
    /// # Errors
    /// The log refuses: the member cannot go on.
    pub fn order(&mut self, now: Duration) -> Result<(), Failure> {
        self.meter.handle_turn(now);
        self.note_durable();
        self.advance_install()?;
        self.advance_succession(now);
        self.introduce();
        self.revoke_expired(now);
        self.propose(now)?;
        while let Some(context) = self.reads.poll_round(now) {
            self.consensus.read_index(context.to_vec());
        }
        while let Some(work) = self.consensus.poll_work() {
            self.write(work)?;
        }
        self.end_install()
    }

    /// The next operation of the log.
    pub fn poll_log_op(&mut self) -> Option<(wal::OpId, wal::DiskOp)> {
        self.wal.poll_op()
    }

    /// The next operation of the engine.
    pub fn poll_engine_op(&mut self) -> Option<engine::page::disk::DiskOp> {
        self.engine.poll_disk_op()
    }

    /// What a front-end is to be told.
    pub fn reply(&mut self, frontend: FrontendId) -> &mut Reply {
        &mut self.replies[frontend.place()]
    }

    /// Whether [`Self::apply`] left work that does not wait for the disk. A batch without pages to
    /// go on is none: it is tried again when a file has grown, when a checkpoint is durable, or at
    /// the next tick.
    #[must_use]
    pub fn has_work(&self) -> bool {
        match self.applying {
            Some(_) => !self.engine.is_apply_starved(),
            None => {
                let has_entries = !self.committed.is_empty() && !self.engine.is_apply_starved();
                has_entries || self.leases.has_work()
            }
        }
    }

    /// When background work can go on, if there is any: a sweep, a defragmentation, memory to give
    /// back.
    #[must_use]
    pub fn background_due(&self) -> Option<Duration> {
        if self.engine.has_copies_to_drop() {
            return Some(Duration::ZERO);
        }
        let can_go_on = self.applying.is_none() && self.has_job();
        can_go_on.then(|| match self.transfers.is_building() {
            true => Duration::ZERO,
            false => self.upkeep.due(),
        })
    }

    /// Whether background work goes on at once that takes more than a moment.
    #[must_use]
    pub fn has_only_jobs(&self, now: Duration) -> bool {
        !self.engine.has_copies_to_drop() && self.background_due().is_some_and(|due| due <= now)
    }

    /// When there is something to do that nobody asks for.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let leases = self.leases.wake_at().filter(|_| self.is_primary() && !self.stopping);
        let succession = self.succession.as_ref().map(Succession::due);
        [leases, succession].into_iter().flatten().min()
    }

    /// The engine, for read handles and what a start must know.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether this member has introduced itself: clients may be let in. What a client may see is
    /// for each of its requests to say.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.introduced == Introduced::Done
    }

    /// Whether this member leads and everything that was ever acknowledged is in the view: it keeps
    /// the clocks of leases, and the house.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.knows_all() && self.is_serving()
    }

    /// A leader whose own entry is applied knows all that was ever acknowledged; and so does its
    /// lessor, which hears of what a view shows.
    fn knows_all(&self) -> bool {
        self.consensus.is_leader() && self.engine.newest_view().term == self.consensus.term()
    }

    /// Whether more of a leader's entries may come. What the disk and the engine have yet to do
    /// about those that came is bounded; entries that nobody has committed do not count, because
    /// only further letters can settle what becomes of them.
    #[must_use]
    pub fn has_letter_room(&self) -> bool {
        let start_behind = |index: LogIndex| {
            let place = self.retained.partition_point(|(other, _)| *other <= index);
            self.retained.get(place).map_or(self.wal.appended(), |(_, start)| *start).0
        };
        let (applied, _) = self.engine.applied();
        // A store that was installed is ahead of raft until raft hears of it.
        let committed = start_behind(self.consensus.committed());
        let unapplied = committed.saturating_sub(start_behind(applied));
        let unsynced = self.wal.appended().0 - self.wal.durable().0;
        unapplied.max(unsynced) <= LETTERS_SIZE_BYTES_MAX
    }

    /// The leader this member knows of.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        self.consensus.leader()
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.consensus.term()
    }

    /// Introduces this member once there is a leader to take it, again and again until it is taken.
    fn introduce(&mut self) {
        if self.introduced != Introduced::NotYet || self.stopping {
            return;
        }
        let leads = self.knows_all();
        if !leads && self.leader_to_ask().is_none() {
            return;
        }
        self.introduced = Introduced::Proposed;
        let Introduction { frames, count } = &self.introduction;
        let has_version = matches!(self.engine.newest_view().cluster_version(), Ok(Some(_)));
        let (frames, count) = match leads && !has_version {
            true => (&frames[..], *count as usize),
            false => (&frames[..frame_size(frames)], 1),
        };
        let mut slots = vec![SLOT_FOUNDING; count];
        slots[0] = SLOT_INTRODUCTION;
        self.batcher.handle_commands(FrontendId::NOBODY, frames, &slots);
    }

    fn note_durable(&mut self) {
        let durable = self.wal.durable();
        let mut persisted = None;
        while let Some(work) = self.unsynced.pop_front_if(|work| work.end <= durable) {
            persisted = Some(work.number);
            self.writes_unsynced -= usize::from(work.is_write);
            self.send_raft(work.messages);
            if let Some(index) = work.installed {
                self.consensus.handle_persisted(work.number);
                self.consensus.handle_applied(index);
                self.reads.handle_published(index);
            }
        }
        if let Some(number) = persisted {
            self.consensus.handle_persisted(number);
        }
    }

    fn refuse(&mut self, ticket: Ticket, reason: Unavailable) {
        if ticket.frontend == FrontendId::NOBODY {
            self.refuse_own(ticket.slot, reason);
        } else {
            self.meter.handle_refused(reason);
            let reply = &mut self.replies[ticket.frontend.place()];
            reply.answers.push((ticket.slot, Verdict::Unavailable(reason)));
        }
    }

    fn write(&mut self, work: Work) -> Result<(), Failure> {
        for entry in &work.entries {
            let start = self.wal.appended();
            let head = encode_entry_head(entry);
            self.wal.append(RecordKind::owned(KIND_ENTRY), &[&head, &entry.data])?;
            while self.retained.back().is_some_and(|last| last.0.0 >= entry.index) {
                self.retained.pop_back();
            }
            self.retained.push_back((LogIndex(entry.index), start));
        }
        if let Some(state) = &work.hard_state {
            self.wal.append_state(&encode_state(state))?;
        }
        // A hard state that only moves the commit index rides with the next batch: after a restart
        // raft finds the commit again.
        let (number, messages) = (work.number, work.messages_after_sync);
        let installed = work.snapshot.map(|it| LogIndex(it.get_metadata().index));
        let is_write = work.must_sync || installed.is_some();
        if let Some(leadership) = work.leadership {
            self.handle_leadership(leadership);
        }
        self.send_raft(work.messages);
        if is_write {
            self.wal.flush();
            self.writes_unsynced += 1;
            let end = self.wal.sealed();
            self.unsynced.push_back(Unsynced { number, end, is_write, messages, installed });
        } else if let Some(last) = self.unsynced.back() {
            let end = last.end;
            self.unsynced.push_back(Unsynced { number, end, is_write, messages, installed });
        } else {
            self.consensus.handle_persisted(number);
            self.send_raft(messages);
        }
        // raft may still hand out entries before a store that was installed: it has them.
        let applied = self.engine.applied().0.0;
        self.committed.extend(work.committed.into_iter().filter(|entry| entry.index > applied));
        for state in work.read_states {
            self.reads.handle_confirmed(&state.request_ctx, LogIndex(state.index));
        }
        Ok(())
    }

    fn release_reads(&mut self) {
        while let Some(tickets) = self.reads.poll_ready() {
            for ticket in tickets {
                if ticket.frontend == FrontendId::NOBODY {
                    match ticket.slot {
                        SLOT_CHECK => self.handle_check_round(true),
                        _ => self.leases.handle_confirmed(),
                    }
                    continue;
                }
                self.replies[ticket.frontend.place()].reads.push(ticket.slot);
            }
        }
    }
}

impl std::fmt::Debug for LogCore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LogCore")
            .field("consensus", &self.consensus)
            .field("unsynced", &self.unsynced.len())
            .field("committed", &self.committed.len())
            .finish_non_exhaustive()
    }
}
