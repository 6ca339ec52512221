//! Stores on their way between members: to a follower that is too far behind for the log, and from
//! the leader when this member is.
//!
//! The sender pins the view that raft's snapshot speaks of and sends it in numbered chunks, a few
//! at a time; what is not acknowledged stays until it is, so that a connection that breaks costs a
//! chunk or two. The view is walked by whoever performs the core's [`ScanJob`]s, away from it: the
//! system may have dropped pages, and to read them waits for the disk. The receiver builds the
//! store beside its own ([`engine::Engine::begin_install`]). When it is complete raft stands still
//! for a moment: the new store is published and checkpointed, the log begins anew behind it, and
//! only then raft hears of the snapshot.
//!
//! Invariants:
//! - raft hears of a snapshot when a start would find it: store first, log second, raft last.
//! - Nothing is installed that raft would not take: not what this member has committed, and not
//!   what its log already leads to.
//! - A transfer in either direction holds bounded memory, and the one that pins a view ends when it
//!   makes no progress.

mod arrived;
mod chunks;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use engine::engine::InstallState;
use engine::ids::{LeaseId, LogIndex, MemberId, Term};
use engine::page::NoSpace;
use engine::{HeldView, InstallRule, Progress, ReadError, TransferScan};
use raft::eraftpb::{Message, SnapshotMetadata};
use wal::Lsn;

use self::arrived::Arrived;
use self::chunks::Spare;
use super::LogCore;
use crate::mail::{FrontendId, Unavailable};
use crate::metrics::peers::CountedStore;
use crate::node::failure::Failure;
use crate::peer::letter::{
    CHUNK_SIZE_BYTES_MAX, Letter, SnapshotAcknowledged, SnapshotBegin, SnapshotChunk, SnapshotEnd,
    SnapshotState,
};
use crate::peer::link::SNAPSHOT_QUEUE_BYTES_MAX;
use crate::raft::change::encode_conf_state;
use crate::raft::record::{encode_reset, encode_state};

/// Chunks that are sent and not acknowledged: enough that one end scans while the other builds, and
/// less than waits on a connection at most. As many are scanned ahead.
const CHUNKS_IN_FLIGHT_MAX: usize = 24;
const _: () =
    assert!(CHUNKS_IN_FLIGHT_MAX * CHUNK_SIZE_BYTES_MAX < SNAPSHOT_QUEUE_BYTES_MAX / 8 * 7);
/// Chunks of one scan job. What comes of it is sent at once, for which a put may have to wait on
/// the leader's core: of eight chunks up to two milliseconds.
const SCAN_CHUNKS_MAX: usize = 2;
/// Records that a scan job may touch: of small ones, each a look-up, and where little is left of
/// the history. On a slow disk with nothing in memory that is still seconds.
const SCAN_RECORDS_MAX: usize = 4096;
/// Records that a step builds in, and of large ones 64 KiB: some twenty microseconds, or ten times
/// that where pages have to come first. Behind each step others get the processor.
const BUILD_RECORDS_MAX: usize = 96;
/// What a receiver may hold and still ask for more.
const HELD_BYTES_MAX: usize = 8 * CHUNK_SIZE_BYTES_MAX;
/// A transfer that gets no further for so long is given up: its view keeps pages from being used
/// again.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// The store on its way to a follower.
pub(super) struct Outgoing {
    to: MemberId,
    pub(super) transfer: u64,
    pub(super) message: Message,
    scan: Scan,
    /// Chunks that are not acknowledged, the oldest first, and the number of that.
    chunks: VecDeque<Bytes>,
    /// Memory of those that were.
    spare: Spare,
    chunk_first: u64,
    /// How many of them were sent over the present connection.
    sent: usize,
    is_end_sent: bool,
    size_bytes: u64,
    /// Whether the receiver has said where it stands since the connection came up.
    is_up: bool,
    moved_at: Duration,
    counted: CountedStore,
}

/// How far the view of a store that is sent was walked.
enum Scan {
    /// Until there is room for chunks.
    Waiting(Walk),
    /// A job is out.
    Away,
    /// All chunks are there.
    Done,
}

struct Walk {
    view: HeldView,
    scan: TransferScan,
    /// Bytes that are no whole chunk yet.
    gathered: Vec<u8>,
    spare: Spare,
}

/// A part of a walk through a store on its way to a follower, for any thread.
pub struct ScanJob {
    to: MemberId,
    transfer: u64,
    chunks_max: usize,
    walk: Walk,
}

/// What came of a [`ScanJob`].
pub struct Scanned {
    to: MemberId,
    transfer: u64,
    chunks: Vec<Bytes>,
    /// To go on with, unless that was all.
    rest: Result<Option<Walk>, ReadError>,
}

impl ScanJob {
    /// Walks. Waits for the disk where the system has dropped what is read.
    #[must_use]
    pub fn perform(self) -> Scanned {
        let Self { to, transfer, chunks_max, mut walk } = self;
        let mut chunks = Vec::new();
        let rest = walk.go_on(chunks_max, &mut chunks).map(|progress| match progress {
            Progress::More => Some(walk),
            Progress::Done => None,
        });
        Scanned { to, transfer, chunks, rest }
    }
}

impl std::fmt::Debug for ScanJob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ScanJob({} to {})", self.transfer, self.to)
    }
}

impl Walk {
    fn new(view: HeldView) -> Self {
        Self { view, scan: TransferScan::new(), gathered: Vec::new(), spare: Spare::default() }
    }

    fn go_on(&mut self, chunks_max: usize, chunks: &mut Vec<Bytes>) -> Result<Progress, ReadError> {
        let mut budget = SCAN_RECORDS_MAX;
        let mut progress = Progress::More;
        while budget > 0 && chunks.len() < chunks_max && progress == Progress::More {
            // Nobody waits for this thread as others may for its processor.
            std::thread::yield_now();
            // Room for a chunk and a record that ends behind it.
            self.gathered.reserve(2 * CHUNK_SIZE_BYTES_MAX);
            progress = self.scan.step(&self.view, &mut budget, &mut self.gathered)?;
            self.spare.cut(&mut self.gathered, chunks);
        }
        if progress == Progress::Done && !self.gathered.is_empty() {
            chunks.push(std::mem::take(&mut self.gathered).into());
        }
        Ok(progress)
    }
}

/// The store that comes from the leader.
struct Incoming {
    from: MemberId,
    transfer: u64,
    message: Message,
    arrived: Arrived,
    chunk_next: u64,
    acknowledged: u64,
    /// What the end said.
    end: Option<SnapshotEnd>,
    size_bytes: u64,
    /// Nothing can be done before more has come, or the disk has done something.
    is_waiting: bool,
    /// When something came last.
    moved_at: Duration,
    stage: InstallStage,
    begun: Duration,
    /// None of a member that is not known yet: a stranger is to leave no trace in the metrics.
    counted: Option<CountedStore>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InstallStage {
    /// Records come and are built in.
    Building,
    /// The store is the new one; its checkpoint is on the way.
    Checkpointing,
    /// The log begins anew from there.
    Resetting(Lsn),
    /// raft was told, and what it made of it is on its way to the disk.
    Told,
}

/// Stores on their way.
#[derive(Default)]
pub(super) struct Transfers {
    pub(super) outgoing: Vec<Outgoing>,
    incoming: Option<Incoming>,
    /// What was announced while another store settled in, the latest of it, and when.
    announced: Option<(MemberId, SnapshotBegin, Duration)>,
    counted: u64,
    /// Members to whom the connection for stores is up.
    lanes: BTreeSet<MemberId>,
    /// Why the last store that came could not be installed, until somebody was told.
    refused: Option<InstallRule>,
}

impl Transfers {
    /// Whether raft is to hear and do nothing: the store is ahead of it.
    pub(super) fn is_raft_frozen(&self) -> bool {
        self.incoming.as_ref().is_some_and(|it| it.stage != InstallStage::Building)
    }

    /// Whether a store that came can be built further. Whoever does that is behind all others and
    /// has no writes to hold up: it need not rest.
    pub(super) fn is_building(&self) -> bool {
        self.incoming.as_ref().is_some_and(|it| {
            let has_some = it.arrived.size_bytes() > 0 || it.end.is_some();
            it.stage == InstallStage::Building && has_some && !it.is_waiting
        })
    }

    /// Nothing can be done before the disk has done something.
    fn wait(&mut self) {
        if let Some(incoming) = &mut self.incoming {
            incoming.is_waiting = true;
        }
    }

    /// The disk has done something for the store, or is to be asked again for what it refused.
    pub(super) fn handle_disk(&mut self) {
        if let Some(incoming) = &mut self.incoming {
            incoming.is_waiting = false;
        }
    }
}

impl Outgoing {
    /// The next part of the walk, if there is room for what it finds.
    fn poll_scan(&mut self) -> Option<ScanJob> {
        let room = CHUNKS_IN_FLIGHT_MAX.saturating_sub(self.chunks.len());
        let Scan::Waiting(_) = &self.scan else { return None };
        if !self.is_up || room < SCAN_CHUNKS_MAX {
            return None;
        }
        let Scan::Waiting(mut walk) = std::mem::replace(&mut self.scan, Scan::Away) else {
            unreachable!("it was looked at a moment ago")
        };
        walk.spare.append(&mut self.spare);
        let (to, transfer, chunks_max) = (self.to, self.transfer, SCAN_CHUNKS_MAX);
        Some(ScanJob { to, transfer, chunks_max, walk })
    }

    /// What is to be sent now.
    fn poll_letter(&mut self) -> Option<Letter> {
        if !self.is_up {
            return None;
        }
        let transfer = self.transfer;
        // A long record is many chunks at once. What does not fit a connection's queue would be
        // dropped there, and asked for by nobody.
        if self.sent >= CHUNKS_IN_FLIGHT_MAX {
            return None;
        }
        if let Some(chunk) = self.chunks.get(self.sent) {
            let number = self.chunk_first + self.sent as u64;
            self.sent += 1;
            let chunk = SnapshotChunk { transfer, number, records: chunk.clone() };
            return Some(Letter::SnapshotChunk(chunk));
        }
        if !matches!(self.scan, Scan::Done) || self.is_end_sent {
            return None;
        }
        self.is_end_sent = true;
        let chunk_count = self.chunk_first + self.chunks.len() as u64;
        Some(Letter::SnapshotEnd(SnapshotEnd {
            transfer,
            chunk_count,
            size_bytes: self.size_bytes,
        }))
    }
}

fn metadata(message: &Message) -> &SnapshotMetadata {
    message.get_snapshot().get_metadata()
}

fn place_of(message: &Message) -> (LogIndex, Term) {
    let metadata = metadata(message);
    (LogIndex(metadata.index), Term(metadata.term))
}

impl LogCore {
    /// Why the store that came last could not be installed.
    pub fn poll_install_refused(&mut self) -> Option<InstallRule> {
        self.transfers.refused.take()
    }

    /// Whether the connection for stores is to be kept up towards this member.
    #[must_use]
    pub fn wants_snapshot_lane(&self, to: MemberId) -> bool {
        self.transfers.outgoing.iter().any(|it| it.to == to)
    }

    /// The connection for stores is up, or no more.
    pub fn handle_snapshot_lane(&mut self, to: MemberId, is_up: bool) {
        if !is_up {
            self.transfers.lanes.remove(&to);
        } else {
            self.transfers.lanes.insert(to);
        }
        if let Some(outgoing) = self.transfers.outgoing.iter_mut().find(|it| it.to == to) {
            // The receiver says where it stands before anything else is sent.
            outgoing.is_up = false;
            self.announce_transfer(to);
        }
    }

    fn announce_transfer(&mut self, to: MemberId) {
        let outgoing = self.transfers.outgoing.iter().find(|it| it.to == to);
        let Some(outgoing) = outgoing.filter(|_| self.transfers.lanes.contains(&to)) else {
            return;
        };
        let begin = SnapshotBegin {
            transfer: outgoing.transfer,
            chunk_first: outgoing.chunk_first,
            message: outgoing.message.clone(),
        };
        self.peers.send(to, Letter::SnapshotBegin(begin));
    }

    /// raft wants a follower to have the store as it is.
    pub(super) fn begin_transfer(&mut self, message: Message) {
        let to = MemberId(message.to);
        let (index, _) = place_of(&message);
        self.transfers.outgoing.retain(|it| it.to != to);
        let view = self.engine.read_handle().hold();
        let Some(view) = view.filter(|view| view.applied == index) else {
            // Every slot for a view is taken, or raft means another one than the newest.
            return self.consensus.handle_snapshot_sent(to, false);
        };
        self.transfers.counted += 1;
        // No other start and no other member of this cluster counts the same.
        let transfer = self.boot_nonce.wrapping_add(self.transfers.counted);
        let counts = &self.meter.metrics().peers.of(to.0).stores_sent;
        let counted = CountedStore::begin(counts, self.ticked);
        self.transfers.outgoing.push(Outgoing {
            to,
            transfer,
            message,
            scan: Scan::Waiting(Walk::new(view)),
            chunks: VecDeque::new(),
            spare: Spare::default(),
            chunk_first: 0,
            sent: 0,
            is_end_sent: false,
            size_bytes: 0,
            is_up: false,
            moved_at: self.ticked,
            counted,
        });
        // For the store before this one the connection may be up already.
        self.announce_transfer(to);
    }

    /// This member leads no more: raft forgets of whom it thought that a store is on its way.
    pub(super) fn give_up_transfers(&mut self) {
        self.transfers.outgoing.clear();
    }

    pub(super) fn handle_snapshot_acknowledged(
        &mut self,
        from: MemberId,
        acknowledged: SnapshotAcknowledged,
    ) {
        let SnapshotAcknowledged { transfer, chunk_next, state } = acknowledged;
        let is_it = |it: &Outgoing| (it.to, it.transfer) == (from, transfer);
        let Some(place) = self.transfers.outgoing.iter().position(is_it) else { return };
        if state != SnapshotState::Taking {
            let ended = self.transfers.outgoing.swap_remove(place);
            let is_installed = state == SnapshotState::Installed;
            match is_installed {
                // Whoever has it all the same was sent nothing.
                true if ended.chunk_first == 0 && ended.sent == 0 => ended.counted.forget(),
                true => ended.counted.arrive(self.ticked),
                false => {}
            }
            return self.consensus.handle_snapshot_sent(from, is_installed);
        }
        let outgoing = &mut self.transfers.outgoing[place];
        let taken = chunk_next.saturating_sub(outgoing.chunk_first);
        let Ok(taken) = usize::try_from(taken) else { return };
        if chunk_next < outgoing.chunk_first || taken > outgoing.chunks.len() {
            // It wants what is gone, or what never was.
            self.transfers.outgoing.swap_remove(place);
            return self.consensus.handle_snapshot_sent(from, false);
        }
        let Outgoing { chunks, spare, .. } = outgoing;
        chunks.drain(..taken).for_each(|chunk| spare.keep(chunk));
        outgoing.chunk_first = chunk_next;
        outgoing.sent = outgoing.sent.saturating_sub(taken);
        if !outgoing.is_up {
            (outgoing.is_up, outgoing.sent, outgoing.is_end_sent) = (true, 0, false);
        }
        outgoing.moved_at = self.ticked;
        self.send_chunks(place);
    }

    fn send_chunks(&mut self, place: usize) {
        let outgoing = &mut self.transfers.outgoing[place];
        while let Some(letter) = outgoing.poll_letter() {
            self.peers.send(outgoing.to, letter);
        }
    }

    /// The next part of a walk through a store that is sent; [`Self::handle_scanned`] is told of
    /// its end. Whoever drops one ends the transfer at its time.
    pub fn poll_scan(&mut self) -> Option<ScanJob> {
        self.transfers.outgoing.iter_mut().find_map(Outgoing::poll_scan)
    }

    /// A part of a walk has come to its end. The transfer may be gone meanwhile.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn handle_scanned(&mut self, scanned: Scanned) -> Result<(), Failure> {
        let Scanned { to, transfer, chunks, rest } = scanned;
        let rest = rest.map_err(engine::Failure::from)?;
        let is_it = |it: &Outgoing| (it.to, it.transfer) == (to, transfer);
        let Some(place) = self.transfers.outgoing.iter().position(is_it) else { return Ok(()) };
        let outgoing = &mut self.transfers.outgoing[place];
        outgoing.scan = rest.map_or(Scan::Done, Scan::Waiting);
        outgoing.size_bytes += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        outgoing.chunks.extend(chunks);
        outgoing.moved_at = self.ticked;
        self.send_chunks(place);
        Ok(())
    }

    /// Gives up what gets no further.
    pub(super) fn handle_transfer_tick(&mut self, now: Duration) {
        let stalled = |it: &mut Outgoing| it.moved_at + STALLED_AFTER <= now;
        let stalled: Vec<Outgoing> = self.transfers.outgoing.extract_if(.., stalled).collect();
        for it in stalled {
            self.consensus.handle_snapshot_sent(it.to, false);
        }
        // Who sends may be gone, and whoever leads then has other ways to bring this member up.
        let is_dead = |it: &Incoming| {
            it.stage == InstallStage::Building && it.moved_at + STALLED_AFTER <= now
        };
        if self.transfers.incoming.as_ref().is_some_and(is_dead) {
            self.abort_incoming();
        }
    }

    /// Whether raft would go on from this snapshot if the store were it.
    fn would_take(&self, message: &Message) -> bool {
        let (index, term) = place_of(message);
        let knows_us = {
            let state = metadata(message).get_conf_state();
            state.voters.contains(&self.member.0) || state.learners.contains(&self.member.0)
        };
        message.term >= self.consensus.term().0
            && knows_us
            && index > self.consensus.committed()
            && index > self.engine.applied().0
            && !self.consensus.has_entry(index, term)
    }

    pub(super) fn handle_snapshot_begin(
        &mut self,
        from: MemberId,
        begin: SnapshotBegin,
    ) -> Result<(), Failure> {
        if self.transfers.is_raft_frozen() {
            // The sender waits for an answer, which may be another one when the store that came has
            // settled in.
            self.transfers.announced = Some((from, begin, self.ticked));
            return Ok(());
        }
        let SnapshotBegin { transfer, message, .. } = begin;
        if let Some(incoming) = &mut self.transfers.incoming
            && (incoming.from, incoming.transfer) == (from, transfer)
        {
            incoming.acknowledged = incoming.chunk_next;
            let chunk_next = incoming.chunk_next;
            self.acknowledge(from, transfer, chunk_next, SnapshotState::Taking);
            return Ok(());
        }
        if message.term < self.consensus.term().0 {
            self.acknowledge(from, transfer, 0, SnapshotState::Failed);
            return Ok(());
        }
        if !self.would_take(&message) {
            // Nothing has to be sent: raft knows better itself what it has, and says so.
            self.consensus.handle_message(message);
            self.acknowledge(from, transfer, 0, SnapshotState::Installed);
            return Ok(());
        }
        self.abort_incoming();
        let (index, term) = place_of(&message);
        let state = metadata(&message).get_conf_state();
        let is_joint = !state.voters_outgoing.is_empty() || !state.learners_next.is_empty();
        let begun =
            !is_joint && self.engine.begin_install(index, term, &encode_conf_state(state)).is_ok();
        if !begun {
            self.acknowledge(from, transfer, 0, SnapshotState::Failed);
            return Ok(());
        }
        let is_known = self.members().iter().any(|member| member.id == from);
        let counted = is_known.then(|| self.count_received(from, self.ticked));
        self.transfers.incoming = Some(Incoming {
            from,
            transfer,
            message,
            arrived: Arrived::default(),
            chunk_next: 0,
            acknowledged: 0,
            end: None,
            size_bytes: 0,
            is_waiting: false,
            moved_at: self.ticked,
            stage: InstallStage::Building,
            begun: self.ticked,
            counted,
        });
        self.acknowledge(from, transfer, 0, SnapshotState::Taking);
        Ok(())
    }

    fn count_received(&self, from: MemberId, begun: Duration) -> CountedStore {
        CountedStore::begin(&self.meter.metrics().peers.of(from.0).stores_received, begun)
    }

    pub(super) fn handle_snapshot_chunk(&mut self, from: MemberId, chunk: SnapshotChunk) {
        let ticked = self.ticked;
        let Some(incoming) = self.building(from, chunk.transfer) else { return };
        // One that came before the connection broke comes again.
        if chunk.number == incoming.chunk_next {
            incoming.chunk_next += 1;
            incoming.moved_at = ticked;
            incoming.is_waiting = false;
            incoming.size_bytes += chunk.records.len() as u64;
            incoming.arrived.push(chunk.records);
        }
    }

    pub(super) fn handle_snapshot_end(&mut self, from: MemberId, end: SnapshotEnd) {
        let Some(incoming) = self.building(from, end.transfer) else { return };
        if (end.chunk_count, end.size_bytes) == (incoming.chunk_next, incoming.size_bytes) {
            incoming.end = Some(end);
            incoming.is_waiting = false;
        } else {
            self.fail_incoming();
        }
    }

    fn building(&mut self, from: MemberId, transfer: u64) -> Option<&mut Incoming> {
        let is_it = |it: &&mut Incoming| {
            (it.from, it.transfer) == (from, transfer) && it.stage == InstallStage::Building
        };
        self.transfers.incoming.as_mut().filter(is_it)
    }

    fn acknowledge(&mut self, to: MemberId, transfer: u64, chunk_next: u64, state: SnapshotState) {
        let acknowledged = SnapshotAcknowledged { transfer, chunk_next, state };
        self.peers.send(to, Letter::SnapshotAcknowledged(acknowledged));
    }

    fn fail_incoming(&mut self) {
        if let Some(Incoming { from, transfer, .. }) = self.transfers.incoming {
            self.abort_incoming();
            self.acknowledge(from, transfer, 0, SnapshotState::Failed);
        }
    }

    fn abort_incoming(&mut self) {
        if self.transfers.incoming.take().is_some() {
            self.engine.abort_install();
            // What was built is to make the files no longer.
            self.engine.begin_defrag();
        }
    }

    /// Builds in what has come, a short step of it. Not inside a batch.
    pub(super) fn build_transfer(&mut self) -> Result<(), Failure> {
        let Some(incoming) = &mut self.transfers.incoming else { return Ok(()) };
        if incoming.stage != InstallStage::Building || incoming.is_waiting {
            return Ok(());
        }
        let front = incoming.arrived.front();
        let step = self.engine.install_records(front, BUILD_RECORDS_MAX)?;
        incoming.arrived.advance(step.taken_size_bytes);
        let mut wants_more = incoming.arrived.size_bytes() <= HELD_BYTES_MAX;
        match step.state {
            // The next record has not come whole: however much is held, more is wanted.
            InstallState::More => {
                incoming.is_waiting = step.taken_size_bytes == 0;
                wants_more |= incoming.is_waiting;
            }
            InstallState::Complete if incoming.end.is_some() => return self.settle_in(),
            InstallState::Complete => incoming.is_waiting = true,
            InstallState::Waiting => incoming.is_waiting = true,
            InstallState::Refused(rule) => {
                self.transfers.refused = Some(rule);
                self.fail_incoming();
                return Ok(());
            }
        }
        let Incoming { from, transfer, chunk_next, .. } = *incoming;
        if wants_more && incoming.acknowledged < chunk_next {
            incoming.acknowledged = chunk_next;
            self.acknowledge(from, transfer, chunk_next, SnapshotState::Taking);
        }
        Ok(())
    }

    /// The store is complete: it takes the place of this member's own, if raft still wants it.
    fn settle_in(&mut self) -> Result<(), Failure> {
        let incoming = self.transfers.incoming.as_ref().expect("it is complete");
        if !self.would_take(&incoming.message) {
            self.fail_incoming();
            return Ok(());
        }
        // From here on raft stands still until a checkpoint is durable: one that could not be begun
        // would take a vote away from the cluster for as long as the disk is full.
        match self.engine.reserve_checkpoint() {
            Ok(()) => {}
            Err(NoSpace { may_grow: true, .. }) if self.engine.growth_failure().is_none() => {
                self.transfers.wait();
                return Ok(());
            }
            Err(_) => {
                self.transfers.refused = Some(InstallRule::NoSpace);
                self.fail_incoming();
                return Ok(());
            }
        }
        if self.engine.finish_install()?.is_err() {
            self.fail_incoming();
            return Ok(());
        }
        // What was committed lies before the store that came.
        self.committed.clear();
        let incoming = self.transfers.incoming.as_mut().expect("it is complete");
        incoming.stage = InstallStage::Checkpointing;
        self.meter.handle_installing(true);
        self.handle_installed()
    }

    /// Takes a store that has settled in further: checkpoint, log, raft.
    pub(super) fn advance_install(&mut self) -> Result<(), Failure> {
        let Some(incoming) = &mut self.transfers.incoming else { return Ok(()) };
        let place = place_of(&incoming.message);
        match incoming.stage {
            InstallStage::Building => {}
            InstallStage::Checkpointing if self.engine.durable().0 >= place.0 => {
                let from = self.wal.appended();
                self.wal.append_reset(&encode_reset(place))?;
                // The vote outlives the entries; what is committed now is said with the reset.
                let mut state = self.consensus.hard_state();
                state.commit = state.commit.max(place.0.0);
                self.wal.append_state(&encode_state(&state))?;
                self.wal.flush();
                self.retained.clear();
                self.retained.push_back((place.0, from));
                incoming.stage = InstallStage::Resetting(self.wal.sealed());
            }
            InstallStage::Checkpointing => {
                if !self.engine.is_checkpointing() && self.engine.begin_checkpoint() {
                    self.checkpoint.handle_begun(self.ticked);
                }
            }
            InstallStage::Resetting(end) if end <= self.wal.durable() => {
                incoming.stage = InstallStage::Told;
                let (counted, begun) = (incoming.counted.take(), incoming.begun);
                let Incoming { from, transfer, chunk_next, .. } = *incoming;
                let message = incoming.message.clone();
                let counted = counted.unwrap_or_else(|| self.count_received(from, begun));
                counted.arrive(self.ticked);
                self.consensus.handle_message(message);
                self.acknowledge(from, transfer, chunk_next, SnapshotState::Installed);
            }
            InstallStage::Resetting(_) | InstallStage::Told => {}
        }
        Ok(())
    }

    /// raft goes on once what it made of an installed store is durable and counts as applied: until
    /// then its log and its applied index do not meet.
    pub(super) fn end_install(&mut self) -> Result<(), Failure> {
        let is_told = |it: &mut Incoming| it.stage == InstallStage::Told;
        let is_pending = self.unsynced.iter().any(|work| work.installed.is_some());
        if !is_pending && self.transfers.incoming.take_if(is_told).is_some() {
            self.meter.handle_installing(false);
            let announced = self.transfers.announced.take();
            // Whoever waited too long has given it up.
            let is_fresh = |at: Duration| self.ticked < at + STALLED_AFTER;
            if let Some((from, begin, _)) = announced.filter(|(.., at)| is_fresh(*at)) {
                self.handle_snapshot_begin(from, begin)?;
            }
        }
        Ok(())
    }
}

impl LogCore {
    /// The store is another one: readers have its view already, everybody else is told.
    fn handle_installed(&mut self) -> Result<(), Failure> {
        // What they say was about the store that is gone.
        drop((self.engine.take_events(), self.engine.take_lease_changes()));
        self.published = self.engine.revision();
        for (place, reply) in self.replies.iter_mut().enumerate() {
            let frontend = FrontendId(u16::try_from(place).expect("fewer front-ends than cores"));
            if self.interest.wants_events(frontend) {
                reply.events.clear();
                reply.gap = true;
            }
        }
        let (mut leases, view) = (Vec::new(), self.engine.newest_view());
        view.leases(LeaseId(0), usize::MAX, &mut leases).map_err(Failure::Leases)?;
        self.leases.handle_installed(&leases);
        for ticket in self.batcher.take_installed(self.engine.applied().0) {
            self.refuse(ticket, Unavailable::TimedOut);
        }
        // What went to the leader before may be in the store, and then nothing more is heard of it:
        // what comes now is not to wait for that.
        self.batcher.handle_leader_changed();
        self.look_at_members()?;
        // The pages of the store that is gone are given back to the file's end.
        self.engine.begin_defrag();
        Ok(())
    }
}
