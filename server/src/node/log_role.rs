//! The log role of a core: the log core's effects.
//!
//! It carries letters in and out of [`LogCore`], performs the log's durable writes on the core's
//! own ring and everything slower on the disk helper, and breaks the disk on purpose when the
//! hidden flags say so. What goes to other members and comes from them its [`PeerRole`] carries.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use engine::{Identity, MemberId};

use super::failure::Failure;
use super::log_core::{LogCore, ScanJob, Scanned, SlowApply};
use super::peer_role::PeerRole;
use super::switch::Switch;
use crate::config::{Config, ETCD_VERSION};
use crate::log::{self, Level, Value};
use crate::mail::{Ask, FrontendId, Reply};
use crate::metrics::{LogMetrics, Stage, StageLatency};
use crate::runtime::disk_helper::{DiskHelper, Done};
use crate::runtime::hand::Hand;
use crate::runtime::log_disk::{LogDisk, disk_error};
use crate::runtime::post::{Inbox, Outbox};
use crate::runtime::reactor::{Durability, Event, Reactor};
use crate::runtime::signals;
use crate::runtime::sync_method::SyncMethod;
use crate::runtime::wake::Waker;
use crate::sequencer::auto_compaction::{self, Notice, Retention};
use crate::{log_event, log_lines};

/// How long a clean stop may take for its last checkpoint. The log has everything anyway; a
/// supervisor that waits is better served by a start that replays.
const STOP_CHECKPOINT_MAX: Duration = Duration::from_millis(800);
/// How long a member that was removed goes on, in elections: those who are left may not know yet
/// that this is committed, and need its vote to elect a leader that tells them. etcd's second is
/// enough only as long as nothing is lost.
const REMOVED_LINGER_ELECTIONS: u32 = 3;
/// How long answers that are under way may take when the member stops.
const STOP_DRAIN_MAX: Duration = Duration::from_millis(200);

/// How log writes are synced.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncPolicy {
    /// `--unsafe-no-fsync`: acknowledge what is only in the page cache.
    pub never: bool,
    /// A fault: each write begins so much later. It is held back whole, so that an acknowledgement
    /// before its sync loses data when the process is killed.
    pub delay: Duration,
    /// A fault: the write after this many fails.
    pub fail_after: Option<u64>,
}

/// The two directions of post with one front-end of another core.
#[derive(Debug)]
pub struct Line {
    /// What it asks.
    pub asks: Inbox<Ask>,
    /// What it is told.
    pub replies: Outbox<Reply>,
}

/// Who walks stores that are sent to other members.
#[derive(Debug)]
pub struct Scanner {
    hand: Hand<ScanJob>,
    scanned: mpsc::Receiver<Scanned>,
}

impl Scanner {
    /// Starts its thread; `waker` is called after each job.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(waker: Waker) -> std::io::Result<Self> {
        let (report, scanned) = mpsc::channel();
        let hand = Hand::start("store-scan", (report, waker), ScanJob::perform)?;
        Ok(Self { hand, scanned })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// Another member is to lead first, so that the cluster has no time without a leader.
    HandingOver {
        since: Duration,
    },
    Draining {
        until: Duration,
    },
    Checkpointing {
        until: Duration,
    },
    Done,
}

/// The log core with its disk and its post.
pub struct LogRole {
    core: LogCore,
    peers: PeerRole,
    disk: LogDisk,
    helper: DiskHelper,
    scanner: Scanner,
    lines: Vec<Option<Line>>,
    settings: LogSettings,
    tick_next: Duration,
    delayed: VecDeque<(Duration, wal::OpId, wal::DiskOp)>,
    writes_begun: u64,
    method: SyncMethod,
    /// When the ring was looked at last, and the time before.
    looked: Duration,
    looked_before: Duration,
    /// Whether the core slept before it looked.
    slept: bool,
    /// Writes through that are under way, and since when.
    through: Vec<(u64, Duration)>,
    /// All synced writes under way, for what is measured.
    measured: VecDeque<MeasuredWrite>,
    /// Commands in the writes that were begun.
    commands_written: u64,
    wal_latency: StageLatency,
    metrics: Arc<LogMetrics>,
    stop: Stop,
    /// Letters that found a full ring.
    has_unposted: bool,
    shortages: Shortages,
    announced: bool,
    /// Who led when it was told last.
    leader: Option<MemberId>,
    /// When a member that was removed ends.
    removed_until: Option<Duration>,
}

impl LogRole {
    /// Joins the log core with its effects; `lines` has an entry for each front-end, `None` for
    /// the one on this very core.
    #[must_use]
    pub fn new(
        (core, peers): (LogCore, PeerRole),
        (disk, helper, scanner): (LogDisk, DiskHelper, Scanner),
        lines: Vec<Option<Line>>,
        settings: LogSettings,
    ) -> Self {
        let metrics = core.metrics();
        Self {
            core,
            peers,
            disk,
            helper,
            scanner,
            lines,
            // The first turn does not sleep: an election may be under way.
            tick_next: Duration::ZERO,
            settings,
            delayed: VecDeque::new(),
            writes_begun: 0,
            method: SyncMethod::default(),
            looked: Duration::ZERO,
            looked_before: Duration::ZERO,
            slept: false,
            through: Vec::new(),
            measured: VecDeque::new(),
            commands_written: 0,
            wal_latency: metrics.stage(Stage::Wal),
            metrics,
            stop: Stop::No,
            has_unposted: false,
            shortages: Shortages::default(),
            announced: false,
            leader: None,
            removed_until: None,
        }
    }

    /// Starts to listen to other members; how many listeners of the reactor are theirs. Before any
    /// other listener.
    pub fn begin(&mut self, reactor: &mut Reactor) -> usize {
        self.peers.begin(reactor);
        self.peers.listener_count()
    }

    /// Whether an event of the reactor is about other members.
    #[must_use]
    pub fn owns(&self, event: &Event) -> bool {
        self.peers.owns(event)
    }

    /// Takes an event that [`Self::owns`] claims.
    ///
    /// # Errors
    /// The log or the engine cannot go on.
    pub fn handle_peer_event(
        &mut self,
        event: Event,
        reactor: &mut Reactor,
        now: Duration,
    ) -> Result<(), Failure> {
        self.peers.handle_event(event, &mut self.core, reactor, now)
    }

    /// The state machine, for the front-end on the same core.
    pub fn core(&mut self) -> &mut LogCore {
        &mut self.core
    }

    /// Whether letters wait.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.lines.iter().flatten().any(|line| !line.asks.is_empty())
    }

    /// The core looks at its ring; `slept` says whether it had to wait for what it finds.
    pub fn handle_wake(&mut self, now: Duration, slept: bool) {
        self.looked_before = std::mem::replace(&mut self.looked, now);
        self.slept = slept;
    }

    /// A log write ended.
    ///
    /// # Errors
    /// The disk's.
    pub fn handle_written(
        &mut self,
        token: u64,
        result: std::io::Result<usize>,
        buffer: wal::AlignedBuffer,
        now: Duration,
    ) -> Result<(), Failure> {
        if let Some(place) = self.through.iter().position(|write| write.0 == token) {
            let (_, since) = self.through.swap_remove(place);
            // Between two looks at the ring this core may have applied for milliseconds: unless it
            // slept until the write ended, all it knows is when the write had not ended yet.
            let known_until = if self.slept { now } else { self.looked_before };
            self.method.handle_write_through(known_until.saturating_sub(since), now);
        }
        self.measure_written(token, now);
        let result = result
            .map(|size_bytes| wal::Completion::Written { buffer, size_bytes })
            .map_err(|error| disk_error(&error));
        self.core.handle_log_completion(wal::OpId(token), result)
    }

    /// Takes in letters, finished file work and the clock.
    ///
    /// # Errors
    /// The disk's.
    pub fn receive(&mut self, now: Duration) -> Result<(), Failure> {
        for (place, line) in self.lines.iter_mut().enumerate() {
            let Some(line) = line else { continue };
            let frontend = FrontendId(u16::try_from(place).expect("fewer front-ends than cores"));
            while let Some(ask) = line.asks.pop() {
                self.core.handle_ask(frontend, &ask, now);
            }
        }
        while let Some(done) = self.helper.poll_done() {
            match done {
                Done::Log(id, result) => self.core.handle_log_completion(id, result)?,
                Done::Engine(completion) => self.core.handle_engine_completion(completion)?,
            }
        }
        while let Ok(scanned) = self.scanner.scanned.try_recv() {
            self.core.handle_scanned(scanned)?;
        }
        if now >= self.tick_next {
            self.core.handle_tick(now);
            self.wal_latency.handle_tick(now);
            // Ticks that were missed are not made up for: a member that was stopped for a minute
            // must not campaign the moment it wakes.
            self.tick_next = now + self.settings.tick;
        }
        self.advance_stop(now);
        Ok(())
    }

    /// Orders what came, begins the log's writes, then applies what is committed.
    ///
    /// # Errors
    /// The log or the engine cannot go on.
    pub fn settle(
        &mut self,
        now: Duration,
        origin: Instant,
        reactor: &mut Reactor,
    ) -> Result<(), Failure> {
        self.core.order(now)?;
        // A leader's entries leave together with its own write of them.
        let has_sent = self.peers.settle(&mut self.core, reactor, now)?;
        let begun = self.begin_log_ops((now, origin), reactor)?;
        if (begun || has_sent) && self.core.has_work() {
            // The disk works while this core applies, and so do the others: one more system call
            // buys the overlap.
            reactor.submit()?;
        }
        self.core.apply(now, || origin.elapsed())?;
        // Applying may have let raft go on: a commit index to note, a read round to confirm.
        self.core.order(now)?;
        self.peers.settle(&mut self.core, reactor, now)?;
        self.begin_log_ops((now, origin), reactor)?;
        while let Some(op) = self.core.poll_engine_op() {
            self.helper.submit_engine(op);
        }
        while let Some(job) = self.core.poll_scan() {
            self.scanner.hand.submit(job);
        }
        self.post_replies(reactor);
        self.report_shortages();
        while let Some(notice) = self.core.poll_compaction_notice() {
            tell_compaction(&notice);
        }
        while let Some(notice) = self.core.poll_check_notice() {
            notice.write();
        }
        self.report_slow_apply();
        if self.core.poll_quota_exceeded() {
            log_lines::quota_exceeded(self.settings.config.quota_backend_bytes);
        }
        self.report_leader();
        self.announce();
        self.notice_removal(now);
        Ok(())
    }

    /// How long the core may sleep.
    #[must_use]
    pub fn timeout(&self, now: Duration) -> Duration {
        if self.core.has_work() {
            return Duration::ZERO;
        }
        let background = self.core.background_due().unwrap_or(Duration::MAX);
        let delayed = self.delayed.front().map_or(Duration::MAX, |first| first.0);
        let due = self.core.wake_at().unwrap_or(Duration::MAX);
        let peers = self.peers.deadline().unwrap_or(Duration::MAX);
        let removed = self.removed_until.filter(|_| !self.settings.switch.is_removed());
        let removed = removed.unwrap_or(Duration::MAX);
        let next = self.tick_next.min(delayed).min(due).min(background).min(peers).min(removed);
        next.saturating_sub(now)
    }

    /// Whether the core goes on at once, and only for what nobody waits for.
    #[must_use]
    pub fn has_only_background_work(&self, now: Duration) -> bool {
        !self.core.has_work() && self.core.has_only_jobs(now)
    }

    /// Whether a stop is complete: the last letters are posted, too. Front-ends read until then, so
    /// there will be room for them.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop == Stop::Done && !self.has_unposted
    }

    fn begin_log_ops(
        &mut self,
        (now, origin): (Duration, Instant),
        reactor: &mut Reactor,
    ) -> Result<bool, Failure> {
        let mut begun = false;
        while let Some((id, op)) = self.core.poll_log_op() {
            if !matches!(op, wal::DiskOp::Write { .. }) {
                self.helper.submit_log(id, op);
            } else if self.settings.sync.delay.is_zero() {
                self.begin_write(id, op, (now, origin), reactor)?;
                begun = true;
            } else {
                self.delayed.push_back((now + self.settings.sync.delay, id, op));
            }
        }
        while let Some((_, id, op)) = self.delayed.pop_front_if(|first| first.0 <= now) {
            self.begin_write(id, op, (now, origin), reactor)?;
            begun = true;
        }
        Ok(begun)
    }

    fn begin_write(
        &mut self,
        id: wal::OpId,
        op: wal::DiskOp,
        (now, origin): (Duration, Instant),
        reactor: &mut Reactor,
    ) -> Result<(), Failure> {
        let wal::DiskOp::Write { segment, offset, buffer } = op else {
            unreachable!("only writes come here");
        };
        self.writes_begun += 1;
        if self.settings.sync.fail_after.is_some_and(|after| self.writes_begun > after) {
            let error = std::io::Error::from_raw_os_error(libc::EIO);
            return self.handle_written(id.0, Err(error), buffer, now);
        }
        let descriptor = match self.disk.descriptor(segment) {
            Ok(descriptor) => descriptor,
            Err(error) => return self.core.handle_log_completion(id, Err(error)),
        };
        self.disk.forget_long_before(segment);
        let durability =
            if self.settings.sync.never { Durability::None } else { self.method.choose(now) };
        self.metrics.wal_written_bytes.add(buffer.as_slice().len() as u64);
        let proposed = self.core.commands_proposed();
        let commands = proposed - std::mem::replace(&mut self.commands_written, proposed);
        if durability != Durability::None {
            let begun = origin.elapsed();
            self.measured.push_back(MeasuredWrite { token: id.0, begun, commands });
        }
        if durability == Durability::WriteThrough {
            self.through.push((id.0, now));
        }
        reactor.write(descriptor, offset, buffer, durability, id.0);
        Ok(())
    }

    /// Writes end in about the order in which they were begun.
    fn measure_written(&mut self, token: u64, now: Duration) {
        let Some(place) = self.measured.iter().position(|write| write.token == token) else {
            return;
        };
        let write = self.measured.remove(place).expect("it was found just now");
        let duration = now.saturating_sub(write.begun);
        self.metrics.wal_syncs.observe_duration(duration, 1);
        if write.commands > 0 {
            self.wal_latency.record(duration, write.commands);
        }
    }

    fn post_replies(&mut self, reactor: &mut Reactor) {
        self.has_unposted = false;
        for (place, line) in self.lines.iter_mut().enumerate() {
            let Some(line) = line else { continue };
            let frontend = FrontendId(u16::try_from(place).expect("fewer front-ends than cores"));
            let reply = self.core.reply(frontend);
            if reply.is_empty() {
                continue;
            }
            if line.replies.has_room() {
                line.replies.push(Box::new(std::mem::take(reply)));
                if let Some(ring) = line.replies.wants_wake() {
                    reactor.wake(ring);
                }
            } else {
                // Answers keep their reserved place; events do not, their watchers catch up.
                self.has_unposted = true;
                reply.gap |= !reply.events.is_empty();
                reply.events.clear();
            }
        }
    }

    fn announce(&mut self) {
        if !self.announced && self.core.is_serving() {
            self.announced = true;
            let LogSettings { identity, config, .. } = &self.settings;
            log_lines::published_local_member(*identity, config);
            if !config.corrupt_check_time.is_zero() {
                log_lines::enabled_corruption_checking(*identity, config.corrupt_check_time);
            }
            if self.settings.is_version_set && self.leader == Some(identity.member) {
                let (minor, _patch) = ETCD_VERSION.rsplit_once('.').expect("it has three parts");
                log_lines::set_initial_cluster_version(*identity, minor);
            }
            self.settings.switch.announce_serving();
        }
    }

    fn report_leader(&mut self) {
        let (own, leader, term) =
            (self.settings.identity.member, self.core.leader(), self.core.term().0);
        if leader == self.leader {
            return;
        }
        match (std::mem::replace(&mut self.leader, leader), leader) {
            (None, Some(leader)) => log_lines::elected_leader(own, leader, term),
            (Some(before), Some(leader)) => {
                log_lines::changed_leader(own, (before, leader), term);
            }
            (Some(before), None) => log_lines::lost_leader(own, before, term),
            (None, None) => unreachable!("they differ"),
        }
    }

    /// Whoever was removed ends, with all that it has.
    fn notice_removal(&mut self, now: Duration) {
        let switch = &self.settings.switch;
        match self.removed_until {
            Some(until) if until <= now && !switch.is_removed() => {
                log_lines::removed_from_cluster(&self.settings.config.data_dir);
                switch.announce_removed();
                signals::request_stop();
            }
            Some(_) => {}
            None if self.core.is_removed() => {
                let election = Duration::from_millis(self.settings.config.election_timeout_ms);
                self.removed_until = Some(now + election * REMOVED_LINGER_ELECTIONS);
            }
            // Others have gone on without this member, which cannot hear of it from the log.
            None if self.peers.is_told_removed() => self.removed_until = Some(now),
            None => {}
        }
    }

    fn report_slow_apply(&mut self) {
        let Some(SlowApply { took, commands }) = self.core.poll_slow_apply() else { return };
        let expected = self.settings.config.warning_apply_duration;
        log_event!(
            Warn,
            "apply request took too long",
            "took" => took,
            "expected-duration" => expected,
            "commands" => commands as u64,
        );
    }

    /// Says once when a full disk begins to refuse writes, and once when it is over.
    fn report_shortages(&mut self) {
        let store = self.core.store_shortage();
        if store.is_some() != self.shortages.store {
            self.shortages.store = store.is_some();
            match store {
                Some(error) => {
                    let message = "the store cannot grow; writes it has no pages for are refused";
                    log_event!(Warn, message, "error" => error as &dyn Display);
                }
                None => log_event!(Info, "the store can grow again"),
            }
        }
        let log = self.core.log_shortage();
        if log.is_some() != self.shortages.log {
            self.shortages.log = log.is_some();
            match log {
                Some(error) => {
                    let error =
                        std::io::Error::from_raw_os_error(error.os_code.unwrap_or(libc::ENOSPC));
                    let message = "the disk has no room for another segment of the log; writes are \
                                   refused before the last one ends";
                    log_event!(Warn, message, "error" => &error as &dyn Display);
                }
                None => log_event!(Info, "the log has another segment again"),
            }
        }
    }

    fn begin_draining(&mut self, now: Duration) {
        self.core.stop();
        self.stop = Stop::Draining { until: now + STOP_DRAIN_MAX };
    }

    /// Whether there is another leader to wait for.
    fn begin_hand_over(&mut self) -> bool {
        let own = self.settings.identity.member;
        let leader = self.core.leader();
        if self.settings.switch.is_removed() {
            return false;
        }
        if leader != Some(own) {
            log_lines::skipped_leadership_transfer_of_follower(own, leader);
            return false;
        }
        let voters = self.core.members().iter().filter(|member| !member.is_learner).count();
        if voters < 2 {
            log_lines::skipped_leadership_transfer(own, own);
            return false;
        }
        let has_begun = self.core.hand_over();
        if has_begun {
            log_lines::starting_leadership_transfer(own);
        } else {
            log_lines::failed_leadership_transfer(own);
        }
        has_begun
    }

    fn advance_stop(&mut self, now: Duration) {
        match self.stop {
            Stop::No if self.settings.switch.is_stopping() => {
                if self.begin_hand_over() {
                    self.stop = Stop::HandingOver { since: now };
                } else {
                    self.begin_draining(now);
                }
            }
            Stop::HandingOver { since } => {
                let own = self.settings.identity.member;
                let leader = self.core.leader().filter(|leader| *leader != own);
                if let Some(leader) = leader {
                    log_lines::finished_leadership_transfer(own, leader, now.saturating_sub(since));
                }
                // raft gives a transfer up after an election's time.
                let election = Duration::from_millis(self.settings.config.election_timeout_ms);
                if leader.is_some() || now >= since + election {
                    self.begin_draining(now);
                }
            }
            Stop::Draining { until } if self.core.is_quiet() || now >= until => {
                self.core.advance_final_checkpoint();
                self.stop = Stop::Checkpointing { until: now + STOP_CHECKPOINT_MAX };
            }
            Stop::Checkpointing { until } => {
                let checkpointed = self.core.is_checkpointed();
                // A store that cannot grow now will not have grown by then either.
                if checkpointed || now >= until || self.core.store_shortage().is_some() {
                    log_event!(Info, "stopped the log core", "checkpointed" => checkpointed);
                    self.stop = Stop::Done;
                } else {
                    self.core.advance_final_checkpoint();
                }
            }
            Stop::No | Stop::Draining { .. } | Stop::Done => {}
        }
    }
}

/// What etcd tells of an automatic compaction.
fn tell_compaction(notice: &Notice) {
    let revision = ("revision", Value::from(notice.revision.0));
    let (kind, retention) = match notice.retention {
        Retention::Period(period) => ("periodic", ("compact-period", Value::from(period))),
        Retention::Revisions(count) => {
            ("revision", ("revision-compaction-retention", Value::from(count)))
        }
    };
    let tell = |level, stage: &str, pairs: &[(&'static str, Value<'_>)]| {
        if log::enabled(level) {
            log::write(level, &format!("{stage} auto {kind} compaction"), pairs);
        }
    };
    use auto_compaction::Stage as S;
    match notice.stage {
        S::Started => tell(Level::Info, "starting", &[revision, retention]),
        S::Completed { took } => {
            tell(Level::Info, "completed", &[revision, retention, ("took", took.into())]);
        }
        S::Failed { retry_interval, reason } => {
            let retry = ("retry-interval", retry_interval.into());
            tell(Level::Warn, "failed", &[revision, retention, retry, ("error", reason.into())]);
        }
    }
}

/// A write of the log under way.
#[derive(Debug, Clone, Copy)]
struct MeasuredWrite {
    token: u64,
    begun: Duration,
    commands: u64,
}

/// The shortages that were told.
#[derive(Debug, Clone, Copy, Default)]
struct Shortages {
    store: bool,
    log: bool,
}

/// What the flags say about the log role, and what it shares with the other cores.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// How log writes are synced.
    pub sync: SyncPolicy,
    /// The process-wide switch.
    pub switch: Arc<Switch>,
    /// The heartbeat interval.
    pub tick: Duration,
    /// Who this is, for the log.
    pub identity: Identity,
    /// Whether this life begins by setting the cluster's version, for the log.
    pub is_version_set: bool,
    /// What it was told, for the log.
    pub config: Arc<Config>,
}
