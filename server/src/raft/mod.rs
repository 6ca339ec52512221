//! Consensus: raft-rs held to our rules.
//!
//! [`Consensus`] is driven like every other stage: `handle_*` and the owner's commands in,
//! [`Consensus::poll_work`] out until `None`. The ready loop is the asynchronous one: a work item's
//! entries go to the log while reads, heartbeats and the next batch go on; when they are durable
//! the owner says so with [`Consensus::handle_persisted`].
//!
//! Rules on top of raft-rs, each for a trap in it:
//! - Proposals are made only as leader and never forwarded by raft: a `MsgPropose` from a peer is
//!   dropped, because a forwarded proposal may be appended twice.
//! - On restart `commit` is raised to `applied`: the hard state's commit is written lazily, and
//!   raft-rs refuses a log whose applied index lies beyond it.
//! - Entries not yet applied stay in memory ([`storage`]): ReadIndex looks their terms up and
//!   cannot wait for the disk.
//! - A refused configuration change turns into an empty entry silently; so changes are checked
//!   before they are proposed and are entries of their own.

pub mod change;
pub mod conf;
pub mod record;
pub mod storage;

use std::collections::VecDeque;

use engine::MembershipChange;
use engine::ids::{LogIndex, MemberId, Term};
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, HardState, Message, MessageType, Snapshot};
use raft::{ProgressState, RawNode, ReadState, SnapshotStatus, StateRole};

use self::storage::LogStore;

/// Bytes of entries in one append message, etcd's `maxSizePerMsg`.
const MESSAGE_SIZE_BYTES_MAX: u64 = 1024 * 1024;
/// Append messages under way to one follower, etcd's `maxInflightMsgs`; the peer links bound the
/// bytes as well.
const MESSAGES_IN_FLIGHT_MAX: usize = 512;
/// Entries proposed but not committed. Admission stops far earlier; this is the last line of
/// defence when a quorum is lost.
const UNCOMMITTED_SIZE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Committed entries handed out at once. It bounds what recovery and catch-up hold in memory twice.
const COMMITTED_SIZE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The clock's units and who we are.
#[derive(Debug, Clone, Copy)]
pub struct ConsensusConfig {
    /// This member.
    pub member_id: MemberId,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Whether a candidate first asks whether it could win, so that one that was cut off does not
    /// end a leadership that works.
    pub pre_vote: bool,
}

/// One ready: what must be written, sent and applied. Entries and hard state are persisted in the
/// order in which works are polled.
#[derive(Debug, Default)]
pub struct Work {
    /// To be passed to [`Consensus::handle_persisted`] once entries and hard state are durable.
    pub number: u64,
    /// Entries for the log.
    pub entries: Vec<Entry>,
    /// The vote and term to persist, and lazily the commit index.
    pub hard_state: Option<HardState>,
    /// Whether the write must be synced before it counts.
    pub must_sync: bool,
    /// Entries to apply, in order.
    pub committed: Vec<Entry>,
    /// Messages that may leave at once (a leader's appends overtake its own sync).
    pub messages: Vec<Message>,
    /// Messages that speak for what is written here: they leave after the sync.
    pub messages_after_sync: Vec<Message>,
    /// Confirmed read-index rounds.
    pub read_states: Vec<ReadState>,
    /// The snapshot that raft has gone on from: the engine holds it already, the log is to begin
    /// anew behind it before anything else of this work is written.
    pub snapshot: Option<Snapshot>,
    /// Set when the role or the leader changed.
    pub leadership: Option<Leadership>,
}

/// Who leads, as this member sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The leader; `None` while there is none.
    pub leader: Option<MemberId>,
    /// Whether it is this member.
    pub is_leader: bool,
}

/// Another member, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// Who.
    pub member: MemberId,
    /// Its log is the leader's up to here.
    pub matched: LogIndex,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Whether it was heard of in this election's time.
    pub is_active: bool,
    /// Whether it is being sent a snapshot.
    pub wants_snapshot: bool,
}

/// Why a proposal was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposeError {
    /// Another member leads, or none.
    NotLeader,
    /// Too much is proposed and not committed, or leadership is being handed over.
    Dropped,
}

/// raft-rs and its log.
pub struct Consensus {
    node: RawNode<LogStore>,
    has_pre_vote: bool,
    /// See [`Self::set_election_seed`].
    election_seed: Option<u64>,
    /// Terms on their way to the disk, by the works that bring them.
    terms: VecDeque<(u64, Term)>,
    /// The last of them that is there.
    term_durable: Term,
}

impl Consensus {
    /// Restarts raft on `store`, whose entries beyond `applied` are those the log holds.
    ///
    /// # Errors
    /// raft-rs' refusal of a configuration or a log.
    pub fn new(
        config: ConsensusConfig,
        store: LogStore,
        applied: LogIndex,
    ) -> Result<Self, raft::Error> {
        let raft_config = raft::Config {
            id: config.member_id.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: applied.0,
            max_size_per_msg: MESSAGE_SIZE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_uncommitted_size: UNCOMMITTED_SIZE_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_SIZE_BYTES_MAX,
            ..raft::Config::default()
        };
        raft_config.validate()?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let term_durable = Term(store.hard_state().term);
        let node = RawNode::new(&raft_config, store, &logger)?;
        Ok(Self {
            node,
            has_pre_vote: config.pre_vote,
            election_seed: None,
            terms: VecDeque::new(),
            term_durable,
        })
    }

    /// Draws the times of elections from a seed instead of the system's random numbers, for a
    /// simulation that is to come out the same each time.
    pub fn set_election_seed(&mut self, seed: u64) {
        self.election_seed = Some(seed);
    }

    /// Lets one tick of the raft clock pass.
    pub fn handle_tick(&mut self) {
        if self.would_win_too_early() {
            return;
        }
        // raft-rs looks at its election's time in a tick alone, so this overrides whatever it drew.
        if let Some(seed) = self.election_seed {
            let ticks = self.node.raft.election_timeout();
            let role = self.node.raft.state as u64;
            let extra = drawn(seed, self.node.raft.term, role) % ticks as u64;
            let extra = usize::try_from(extra).expect("below a number of ticks");
            self.node.raft.set_randomized_election_timeout(ticks + extra);
        }
        self.node.tick();
    }

    /// A sole voter wins the moment it stands, and raft-rs wants all of a leader's log to be
    /// durable then. It may be behind where the last change has left this member alone.
    fn would_win_too_early(&self) -> bool {
        let log = &self.node.raft.raft_log;
        self.is_sole_voter() && !self.is_leader() && log.last_index() != log.persisted
    }

    /// Takes a message of a peer. A message that raft refuses (an unknown sender, a local kind) is
    /// dropped: the sender's own retries are the answer. So is what only a leader can do, where
    /// this member does not lead any more: raft-rs would pass it on in its sender's name.
    pub fn handle_message(&mut self, message: Message) {
        let is_dropped = match message.get_msg_type() {
            MessageType::MsgPropose => true,
            MessageType::MsgReadIndex | MessageType::MsgTransferLeader => !self.is_leader(),
            _ => false,
        };
        if !is_dropped {
            drop(self.node.step(message));
        }
    }

    /// Entries and hard states of all works up to `number` are durable.
    pub fn handle_persisted(&mut self, number: u64) {
        while let Some((_, term)) = self.terms.pop_front_if(|next| next.0 <= number) {
            self.term_durable = term;
        }
        self.node.on_persist_ready(number);
    }

    /// Everything up to `applied` is in the engine: it need not stay in memory.
    pub fn handle_applied(&mut self, applied: LogIndex) {
        self.node.advance_apply_to(applied.0);
        self.node.mut_store().release(applied);
    }

    /// Stands for election at once, if this member may: a sole voter need not wait for a time-out,
    /// nor need others when they know that the leader is gone.
    pub fn campaign(&mut self) {
        if self.node.raft.promotable() && !self.would_win_too_early() {
            // Refused only when already leader, which the tick settles.
            drop(self.node.campaign());
        }
    }

    /// Forgets this leader, so that other members may be told that they could win, as if an
    /// election's time had passed. Whether this member was a follower of it. Not without pre-votes:
    /// who then stands for nothing ends a leadership that works.
    pub fn forget_leader(&mut self, leader: MemberId) -> bool {
        let raft = &mut self.node.raft;
        let follows = raft.state == StateRole::Follower && raft.leader_id == leader.0;
        if !follows || !self.has_pre_vote {
            return false;
        }
        raft.become_follower(raft.term, raft::INVALID_ID);
        true
    }

    /// Whether this member asks for votes that count, or has them.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        matches!(self.node.raft.state, StateRole::Candidate | StateRole::Leader)
    }

    /// Ticks without a leader after which one may be elected.
    #[must_use]
    pub fn election_ticks(&self) -> u32 {
        u32::try_from(self.node.raft.election_timeout()).expect("a number of ticks")
    }

    /// Appends `data` as one entry and tells its place in the log.
    ///
    /// # Errors
    /// Nothing was appended; the commands in it never happened.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(LogIndex, Term), ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        self.node.propose(Vec::new(), data).map_err(|_| ProposeError::Dropped)?;
        let index = LogIndex(self.node.raft.raft_log.last_index());
        Ok((index, self.term()))
    }

    /// Appends a change of the configuration, checked before, as an entry of its own; `batch` is
    /// the one that decides about it when it is applied.
    ///
    /// # Errors
    /// Nothing was appended: this member does not lead, hands leadership over, or an earlier change
    /// is not applied yet, which raft-rs would answer with an empty entry.
    pub fn propose_membership(
        &mut self,
        change: MembershipChange,
        batch: Vec<u8>,
    ) -> Result<(LogIndex, Term), ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        if self.node.raft.has_pending_conf() || self.is_transferring() {
            return Err(ProposeError::Dropped);
        }
        let change = change::change_of(change, batch);
        self.node.propose_conf_change(Vec::new(), change).map_err(|_| ProposeError::Dropped)?;
        let index = LogIndex(self.node.raft.raft_log.last_index());
        Ok((index, self.term()))
    }

    /// A committed change of the configuration takes effect.
    ///
    /// # Errors
    /// raft-rs' refusal: the change does not fit the configuration.
    pub fn apply_membership(&mut self, change: &ConfChangeV2) -> Result<ConfState, raft::Error> {
        let conf_state = self.node.apply_conf_change(change)?;
        self.node.mut_store().set_conf_state(conf_state.clone());
        if self.is_leader() && !conf_state.voters.contains(&self.node.raft.id) {
            // raft-rs would have it lead on and look for itself among the members. The others hear
            // once more how far is committed, and elect one of them.
            self.node.raft.ping();
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        Ok(conf_state)
    }

    /// Hands leadership over; nothing is proposed until the other leads or an election's time has
    /// passed.
    pub fn transfer_leader(&mut self, to: MemberId) {
        self.node.transfer_leader(to.0);
    }

    /// Whether leadership is being handed over.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// Messages to a member were lost: what it has is to be found out anew.
    pub fn handle_unreachable(&mut self, member: MemberId) {
        self.node.report_unreachable(member.0);
    }

    /// A snapshot has reached a member, or has not.
    pub fn handle_snapshot_sent(&mut self, member: MemberId, is_installed: bool) {
        let status = if is_installed { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(member.0, status);
    }

    /// Whether a change of the configuration was proposed and is not applied.
    #[must_use]
    pub fn is_change_pending(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Up to where a member's log is the leader's; `None` if raft does not follow it.
    #[must_use]
    pub fn matched(&self, member: MemberId) -> Option<LogIndex> {
        self.node.raft.prs().get(member.0).map(|progress| LogIndex(progress.matched))
    }

    /// The vote and the term, and what is known to be committed.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.node.raft.hard_state()
    }

    /// Whether this member's log holds the entry of that place, or has held it.
    #[must_use]
    pub fn has_entry(&self, index: LogIndex, term: Term) -> bool {
        self.node.raft.raft_log.match_term(index.0, term.0)
    }

    /// How much of what is applied stays for followers that lag.
    pub fn set_window(&mut self, window: storage::Window) {
        self.node.mut_store().set_window(window);
    }

    /// How many entries are in memory.
    #[must_use]
    pub fn held_entries(&self) -> usize {
        self.node.store().held_entries()
    }

    /// How far the others are, as a leader sees it.
    pub fn followers(&self) -> impl Iterator<Item = Follower> + '_ {
        let own = self.node.raft.id;
        let configuration = self.node.raft.prs().conf();
        let progress = self.node.raft.prs().iter().filter(move |(id, _)| **id != own);
        progress.map(move |(&id, progress)| Follower {
            member: MemberId(id),
            matched: LogIndex(progress.matched),
            is_learner: configuration.learners().contains(&id),
            is_active: progress.recent_active,
            wants_snapshot: progress.state == ProgressState::Snapshot,
        })
    }

    /// Starts a read-index round. `context` must never have been used before.
    pub fn read_index(&mut self, context: Vec<u8>) {
        self.node.read_index(context);
    }

    /// The next ready, with its entries already readable in the store.
    pub fn poll_work(&mut self) -> Option<Work> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let mut work = Work {
            number: ready.number(),
            entries: ready.take_entries(),
            hard_state: ready.hs().cloned(),
            must_sync: ready.must_sync(),
            committed: ready.take_committed_entries(),
            messages: ready.take_messages(),
            messages_after_sync: ready.take_persisted_messages(),
            read_states: ready.take_read_states(),
            snapshot: (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone()),
            leadership: None,
        };
        if let Some(soft_state) = ready.ss() {
            let leader = (soft_state.leader_id != 0).then_some(MemberId(soft_state.leader_id));
            let is_leader = soft_state.raft_state == StateRole::Leader;
            work.leadership = Some(Leadership { leader, is_leader });
        }
        if let Some(hard_state) = &work.hard_state
            && Term(hard_state.term) > self.terms.back().map_or(self.term_durable, |last| last.1)
        {
            self.terms.push_back((work.number, Term(hard_state.term)));
        }
        if self.term() > self.term_durable {
            // raft-rs lets a leader's messages go at once. A sole voter leads before its vote is
            // on the disk: after a crash it would fill the same term with other entries.
            work.messages_after_sync.splice(0..0, work.messages.drain(..));
        }
        if let Some(snapshot) = &work.snapshot {
            let metadata = snapshot.get_metadata();
            let base = (LogIndex(metadata.index), Term(metadata.term));
            self.node.mut_store().reset(base, metadata.get_conf_state().clone());
        }
        self.node.mut_store().append(&work.entries);
        if let Some(hard_state) = &work.hard_state {
            self.node.mut_store().set_hard_state(hard_state.clone());
        }
        self.node.advance_append_async(ready);
        Some(work)
    }

    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader this member knows of.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        let leader = self.node.raft.leader_id;
        (leader != 0).then_some(MemberId(leader))
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// The highest index known to be committed.
    #[must_use]
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// Whether this member is the only voter, so that nobody else can commit or be elected.
    #[must_use]
    pub fn is_sole_voter(&self) -> bool {
        let voters = &self.node.store().conf_state().voters;
        voters.len() == 1 && voters[0] == self.node.raft.id
    }

    /// The configuration at the applied index.
    #[must_use]
    pub fn conf_state(&self) -> &ConfState {
        self.node.store().conf_state()
    }
}

/// A number for an election: the same for the same seed, term and role or try.
pub(crate) fn drawn(seed: u64, term: u64, number: u64) -> u64 {
    let mut word = seed ^ term.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.rotate_left(60);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Consensus")
            .field("id", &self.node.raft.id)
            .field("term", &self.node.raft.term)
            .field("state", &self.node.raft.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::EntryType;

    use super::*;

    fn consensus(store: LogStore, applied: u64) -> Consensus {
        let config = ConsensusConfig {
            member_id: MemberId(7),
            heartbeat_ticks: 1,
            election_ticks: 10,
            pre_vote: true,
        };
        Consensus::new(config, store, LogIndex(applied)).unwrap()
    }

    fn fresh() -> Consensus {
        let mut consensus = consensus(LogStore::bootstrap(&[MemberId(7)]), 1);
        consensus.campaign();
        consensus
    }

    /// Persists and applies everything until raft is quiet; returns the applied payloads.
    fn settle(consensus: &mut Consensus) -> Vec<Vec<u8>> {
        let mut applied = Vec::new();
        while let Some(work) = consensus.poll_work() {
            for entry in &work.committed {
                if !entry.data.is_empty() {
                    applied.push(entry.data.to_vec());
                }
                consensus.handle_applied(LogIndex(entry.index));
            }
            consensus.handle_persisted(work.number);
        }
        applied
    }

    #[test]
    fn a_sole_voter_leads_at_once_in_the_second_term() {
        let mut consensus = fresh();
        settle(&mut consensus);
        assert!(consensus.is_leader());
        // etcd's first member, bootstrapped in term 1, also serves in term 2.
        assert_eq!(consensus.term(), Term(2));
        assert_eq!(consensus.committed(), LogIndex(2));
    }

    /// Found in review: a sole voter leads by its own vote alone, and what it tells a learner in
    /// the new term would bind it to a term that a crash makes it forget.
    #[test]
    fn a_leader_is_not_heard_before_its_term_is_durable() {
        let mut conf_state = storage::conf_state_of(&[MemberId(7)]);
        conf_state.learners.push(8);
        let base = storage::bootstrap_of(1);
        let store =
            LogStore::resume(HardState { term: 1, commit: 1, ..<_>::default() }, conf_state, base);
        let mut consensus = consensus(store, 1);
        consensus.campaign();
        let work = consensus.poll_work().unwrap();
        assert!(consensus.is_leader() && work.must_sync);
        assert!(work.messages.is_empty() && !work.messages_after_sync.is_empty());
        consensus.handle_persisted(work.number);
        consensus.propose(b"x".to_vec()).unwrap();
        let work = consensus.poll_work().unwrap();
        assert!(work.messages_after_sync.is_empty());
    }

    #[test]
    fn nothing_is_committed_before_it_is_persisted() {
        let mut consensus = fresh();
        settle(&mut consensus);
        let place = consensus.propose(b"one".to_vec()).unwrap();
        assert_eq!(place, (LogIndex(3), Term(2)));
        let first = consensus.poll_work().unwrap();
        assert!(first.committed.is_empty());
        // A second batch is taken while the first is not durable.
        consensus.propose(b"two".to_vec()).unwrap();
        let second = consensus.poll_work().unwrap();
        assert!(second.committed.is_empty());
        assert!(consensus.poll_work().is_none());
        consensus.handle_persisted(first.number);
        let third = consensus.poll_work().unwrap();
        assert_eq!(third.committed.len(), 1);
        assert_eq!(&third.committed[0].data[..], b"one");
        consensus.handle_persisted(second.number);
        let applied = settle(&mut consensus);
        assert_eq!(applied, vec![b"two".to_vec()]);
    }

    #[test]
    fn a_peers_proposal_is_dropped() {
        let mut consensus = fresh();
        settle(&mut consensus);
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = 8;
        message.entries = vec![Entry { data: b"x".to_vec().into(), ..Entry::default() }].into();
        consensus.handle_message(message);
        assert!(consensus.poll_work().is_none());
    }

    /// Found by the drill of real clusters: a member that had led passed a question on as another
    /// member's, and the new leader ended the connection over it.
    #[test]
    fn a_follower_passes_no_peers_question_on() {
        let store = LogStore::bootstrap(&[MemberId(7), MemberId(8), MemberId(9)]);
        let mut consensus = consensus(store, 3);
        let mut heartbeat = Message { from: 8, to: 7, term: 5, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        consensus.handle_message(heartbeat);
        settle(&mut consensus);
        assert_eq!(consensus.leader(), Some(MemberId(8)));
        for kind in [MessageType::MsgReadIndex, MessageType::MsgTransferLeader] {
            let entries = vec![Entry { data: b"context".to_vec().into(), ..Entry::default() }];
            let mut question = Message { from: 9, to: 7, ..Message::default() };
            question.entries = entries.into();
            question.set_msg_type(kind);
            consensus.handle_message(question);
            assert!(consensus.poll_work().is_none(), "{kind:?}");
        }
        // Its own goes to the leader.
        consensus.read_index(b"context".to_vec());
        let work = consensus.poll_work().unwrap();
        let sent: Vec<_> = work.messages_after_sync.iter().chain(&work.messages).collect();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].from, sent[0].to), (7, 8));
    }

    #[test]
    fn a_restart_raises_commit_to_applied_and_replays_the_rest() {
        let mut store = LogStore::bootstrap(&[MemberId(7)]);
        let entries: Vec<Entry> = (2..=5)
            .map(|index| Entry {
                index,
                term: 2,
                data: vec![u8::try_from(index).unwrap()].into(),
                entry_type: EntryType::EntryNormal,
                ..Entry::default()
            })
            .collect();
        store.append(&entries);
        store.set_hard_state(HardState { term: 2, vote: 7, commit: 2, ..HardState::default() });
        store.restart(LogIndex(3));
        let mut consensus = consensus(store, 3);
        consensus.campaign();
        let applied = settle(&mut consensus);
        assert_eq!(applied, vec![vec![4], vec![5]]);
        assert_eq!(consensus.term(), Term(3));
    }

    #[test]
    fn a_sole_voters_read_round_is_confirmed_locally() {
        let mut consensus = fresh();
        settle(&mut consensus);
        consensus.read_index(b"context".to_vec());
        let work = consensus.poll_work().unwrap();
        assert_eq!(work.read_states.len(), 1);
        assert_eq!(work.read_states[0].request_ctx, b"context".to_vec());
        assert_eq!(work.read_states[0].index, 2);
    }
}
