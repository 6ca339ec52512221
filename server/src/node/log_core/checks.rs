//! Corruption checks: hashes of the keys, for other members, for whoever asks over HTTP, and for
//! the leader, which compares them.
//!
//! A hash is a walk through the whole store, so it goes on in steps of the background, like a
//! sweep. One is worked on at a time, in the order in which they were asked for.
//!
//! Invariants:
//! - A check belongs to one leadership: who leads no more compares nothing.
//! - One check is under way at a time, and every question of it ends: by its answer, by the end of
//!   the connection, or by the time that it may take.
//! - What waits is bounded: a member's next question takes the place of the one before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::command::{AlarmAction, AlarmRef, FrameWriter};
use engine::ids::{MemberId, Revision, Term};
use engine::{Alarm, AlarmKind, KeyValueHash, KeyValueHashScan, Progress, ReadError};

use super::LogCore;
use crate::config::Notice;
use crate::mail::{FrontendId, Slot};
use crate::node::corruption::{Judgement, judge_compaction, judge_periodic, unchecked};
use crate::node::failure::Failure;
use crate::peer::letter::{HashAnswer, HashQuestion, HashTold, Letter};
use crate::sequencer::batch::Ticket;

/// Records that a step of a hash may touch: a tenth of a millisecond or two.
const HASH_KEYS_MAX: usize = 512;
/// Hashes that may wait.
const HASHES_MAX: usize = 64;
/// How long a member may take for a hash: it walks through its whole store, besides all its other
/// work. One that is gone is not waited for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);
/// Nobody's slots: the alarm's, and the read round's of a check.
const SLOT_CORRUPT: Slot = Slot(u32::MAX - 7);
pub(super) const SLOT_CHECK: Slot = Slot(u32::MAX - 8);

/// How often the leader compares; never where there is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckSettings {
    /// `--corrupt-check-time`.
    pub periodic: Option<Duration>,
    /// `--compact-hash-check-time`, if the gate CompactHashCheck is open.
    pub compactions: Option<Duration>,
}

/// Who wants a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// The check that is under way here.
    Oneself,
    Member(MemberId, u64),
    /// A request over HTTP.
    Page(u64),
}

struct Hashing {
    asker: Asker,
    scan: KeyValueHashScan,
}

/// The other members of a check, and what they told.
#[derive(Debug, Default)]
struct Round {
    /// By the question's number.
    waiting: BTreeMap<u64, MemberId>,
    told: Vec<(MemberId, HashTold)>,
    until: Duration,
}

#[derive(Debug)]
enum Stage {
    /// The first hash of its own, of a periodic check.
    First,
    /// The others are asked at its revision.
    Others(KeyValueHash, Round),
    /// A majority is asked whether this member still leads, so that its own store is the newest.
    Confirming(KeyValueHash, Round),
    /// The second hash of its own.
    Second(KeyValueHash, Round),
    /// The others are asked for the hash of a compaction; older ones are left.
    Compaction(KeyValueHash, Round, VecDeque<KeyValueHash>),
}

struct Run {
    term: Term,
    stage: Stage,
}

/// The checks.
#[derive(Default)]
pub(super) struct Checks {
    settings: CheckSettings,
    periodic_due: Option<Duration>,
    compactions_due: Option<Duration>,
    /// The newest compaction whose hash all members share.
    checked: Revision,
    run: Option<Run>,
    hashing: VecDeque<Hashing>,
    /// A read round of a check, of this one or of one before, has not ended.
    is_confirming: bool,
    asked: u64,
    pages: VecDeque<(u64, HashTold)>,
    notices: VecDeque<Notice>,
}

impl Checks {
    pub(super) fn has_job(&self) -> bool {
        !self.hashing.is_empty()
    }

    /// Wants a hash; `false` if too many wait.
    fn hash(&mut self, asker: Asker, revision: Revision) -> bool {
        if let Asker::Member(member, _) = asker {
            self.hashing
                .retain(|other| !matches!(other.asker, Asker::Member(of, _) if of == member));
        }
        let has_room = self.hashing.len() < HASHES_MAX;
        if has_room {
            self.hashing.push_back(Hashing { asker, scan: KeyValueHashScan::new(revision) });
        }
        has_room
    }

    /// Gives up the check that is under way.
    fn abandon(&mut self) {
        self.run = None;
        self.hashing.retain(|hashing| hashing.asker != Asker::Oneself);
    }

    fn round(&mut self) -> Option<&mut Round> {
        match &mut self.run.as_mut()?.stage {
            Stage::Others(_, round) | Stage::Compaction(_, round, _) => Some(round),
            Stage::First | Stage::Confirming(..) | Stage::Second(..) => None,
        }
    }
}

impl LogCore {
    /// How often the leader compares.
    pub fn set_checks(&mut self, settings: CheckSettings) {
        self.checks.settings = settings;
    }

    /// Somebody asks over HTTP for the hash of the keys up to a revision.
    pub fn handle_hash_request(&mut self, ticket: u64, revision: Revision) {
        if self.stopping || !self.checks.hash(Asker::Page(ticket), revision) {
            self.checks.pages.push_back((ticket, HashTold::Nothing));
        }
    }

    /// An answer to such a request.
    pub fn poll_hash(&mut self) -> Option<(u64, HashTold)> {
        self.checks.pages.pop_front()
    }

    /// What the checks have to say.
    pub fn poll_check_notice(&mut self) -> Option<Notice> {
        self.checks.notices.pop_front()
    }

    pub(super) fn handle_hash_question(&mut self, from: MemberId, question: HashQuestion) {
        let HashQuestion { number, revision } = question;
        if self.stopping || !self.checks.hash(Asker::Member(from, number), revision) {
            let answer = HashAnswer { number, told: HashTold::Nothing };
            self.peers.send(from, Letter::HashAnswer(answer));
        }
    }

    pub(super) fn handle_hash_answer(&mut self, from: MemberId, answer: HashAnswer) {
        let Some(round) = self.checks.round() else { return };
        if round.waiting.get(&answer.number) == Some(&from) {
            round.waiting.remove(&answer.number);
            round.told.push((from, answer.told));
        }
    }

    /// A member cannot be reached: nothing comes from it.
    pub(super) fn handle_peer_lost_to_checks(&mut self, peer: MemberId) {
        if let Some(round) = self.checks.round() {
            let lost = round.waiting.extract_if(.., |_, member| *member == peer);
            let lost: Vec<_> = lost.map(|(_, member)| (member, HashTold::Nothing)).collect();
            round.told.extend(lost);
        }
    }

    /// Begins what is due, gives up what takes too long, and gets on with the rest.
    pub(super) fn handle_check_tick(&mut self, now: Duration) {
        let leads = self.is_primary() && !self.stopping;
        let term = self.consensus.term();
        let checks = &mut self.checks;
        if checks.run.as_ref().is_some_and(|run| !leads || run.term != term) {
            checks.abandon();
        }
        if let Some(round) = checks.round()
            && round.until <= now
        {
            let silent = std::mem::take(&mut round.waiting);
            round.told.extend(silent.into_values().map(|member| (member, HashTold::Nothing)));
        }
        self.begin_check(leads, term, now);
        self.advance_check(now);
    }

    fn begin_check(&mut self, leads: bool, term: Term, now: Duration) {
        let checks = &mut self.checks;
        if checks.run.is_some() || checks.is_confirming {
            return;
        }
        let CheckSettings { periodic, compactions } = checks.settings;
        if let Some(interval) = periodic
            && *checks.periodic_due.get_or_insert(now + interval) <= now
        {
            checks.periodic_due = Some(now + interval);
            if leads && checks.hash(Asker::Oneself, Revision(0)) {
                checks.run = Some(Run { term, stage: Stage::First });
            }
        }
        if let Some(interval) = compactions
            && *checks.compactions_due.get_or_insert(now + interval) <= now
            && checks.run.is_none()
        {
            checks.compactions_due = Some(now + interval);
            let hashes = self.engine.newest_view().compaction_hashes();
            let hashes = VecDeque::from(unchecked(hashes, checks.checked));
            if leads {
                self.compare_compactions(hashes, term, now);
            }
        }
    }

    /// Asks the others for the hash of the first of these compactions.
    fn compare_compactions(
        &mut self,
        mut hashes: VecDeque<KeyValueHash>,
        term: Term,
        now: Duration,
    ) {
        let Some(first) = hashes.pop_front() else { return self.checks.run = None };
        let round = self.ask_others(first.revision, now);
        self.checks.run = Some(Run { term, stage: Stage::Compaction(first, round, hashes) });
    }

    /// Asks every other member for its hash at a revision.
    fn ask_others(&mut self, revision: Revision, now: Duration) -> Round {
        let mut round = Round { until: now + ANSWER_TIME_MAX, ..Round::default() };
        let others: Vec<MemberId> = self.members().iter().map(|member| member.id).collect();
        for member in others.into_iter().filter(|member| *member != self.member) {
            if self.peers.up_since(member).is_none() {
                round.told.push((member, HashTold::Nothing));
                continue;
            }
            // Another start of this member's may have asked before.
            let number = self.boot_nonce.wrapping_add(self.checks.asked);
            self.checks.asked += 1;
            round.waiting.insert(number, member);
            let question = HashQuestion { number, revision };
            self.peers.send(member, Letter::HashQuestion(question));
        }
        round
    }

    /// Takes the next step of a check whose round has ended.
    fn advance_check(&mut self, now: Duration) {
        if self.checks.round().is_none_or(|round| !round.waiting.is_empty()) {
            return;
        }
        let Some(Run { term, stage }) = self.checks.run.take() else { return };
        match stage {
            Stage::Others(first, round) => {
                let stage = Stage::Confirming(first, round);
                self.checks.run = Some(Run { term, stage });
                self.checks.is_confirming = true;
                let ticket = Ticket { frontend: FrontendId::NOBODY, slot: SLOT_CHECK };
                self.reads.handle_read(ticket, now);
            }
            Stage::Compaction(own, round, left) => {
                let Judgement { accused, is_complete, notices } =
                    judge_compaction(self.member, &own, &round.told);
                let is_found = !accused.is_empty();
                self.accuse(&accused, notices);
                if is_complete && !is_found {
                    self.checks.checked = self.checks.checked.max(own.revision);
                }
                // What cannot be compared with everybody may be by an older compaction.
                if !is_complete && !is_found {
                    self.compare_compactions(left, term, now);
                }
            }
            Stage::First | Stage::Confirming(..) | Stage::Second(..) => {
                unreachable!("they ask nobody")
            }
        }
    }

    /// A majority has confirmed that this member leads, or nobody has in time.
    pub(super) fn handle_check_round(&mut self, is_confirmed: bool) {
        let checks = &mut self.checks;
        checks.is_confirming = false;
        let is_waited_for = |run: &mut Run| matches!(run.stage, Stage::Confirming(..));
        let Some(Run { term, stage: Stage::Confirming(first, round) }) =
            checks.run.take_if(is_waited_for)
        else {
            return;
        };
        if is_confirmed && checks.hash(Asker::Oneself, Revision(0)) {
            checks.run = Some(Run { term, stage: Stage::Second(first, round) });
        }
    }

    /// Gets on with the hash that is first.
    pub(super) fn step_hashes(&mut self, now: Duration) -> Result<(), Failure> {
        let Some(first) = self.checks.hashing.front_mut() else { return Ok(()) };
        let told = match first.scan.step(self.engine.newest_view(), HASH_KEYS_MAX) {
            Ok(Progress::More) => return Ok(()),
            Ok(Progress::Done) => {
                HashTold::Hash(first.scan.result().expect("a hash that is done has a result"))
            }
            Err(ReadError::Rejection(rejection)) => HashTold::Rejected(rejection),
            // A page that cannot be read is the plainest corruption of all.
            Err(ReadError::Fault(fault)) => return Err(engine::Failure::from(fault).into()),
        };
        let asker = first.asker;
        self.checks.hashing.pop_front();
        match asker {
            Asker::Page(ticket) => self.checks.pages.push_back((ticket, told)),
            Asker::Member(member, number) => {
                self.peers.send(member, Letter::HashAnswer(HashAnswer { number, told }));
            }
            Asker::Oneself => self.handle_own_hash(told, now),
        }
        Ok(())
    }

    fn handle_own_hash(&mut self, told: HashTold, now: Duration) {
        let Some(Run { term, stage }) = self.checks.run.take() else { return };
        // The newest revision can always be hashed.
        let HashTold::Hash(hash) = told else { return };
        match stage {
            Stage::First => {
                let round = self.ask_others(hash.revision, now);
                self.checks.run = Some(Run { term, stage: Stage::Others(hash, round) });
            }
            Stage::Second(first, round) => {
                let judged = judge_periodic(self.member, (&first, &hash), &round.told);
                self.accuse(&judged.accused, judged.notices);
            }
            Stage::Others(..) | Stage::Confirming(..) | Stage::Compaction(..) => {
                unreachable!("they hash nothing here")
            }
        }
    }

    /// Raises the alarms of those who differ.
    fn accuse(&mut self, accused: &[MemberId], notices: Vec<Notice>) {
        self.checks.notices.extend(notices);
        let mut frames = Vec::new();
        let mut writer = FrameWriter::new();
        for &member in accused {
            let alarm = Alarm { kind: AlarmKind::CORRUPT, member };
            writer.push_alarm(&mut frames, AlarmRef { action: AlarmAction::Raise, alarm });
        }
        let slots = vec![SLOT_CORRUPT; accused.len()];
        self.batcher.handle_commands(FrontendId::NOBODY, &frames, &slots);
    }

    /// Whoever waits is sent away.
    pub(super) fn stop_checks(&mut self) {
        self.checks.abandon();
        for hashing in std::mem::take(&mut self.checks.hashing) {
            match hashing.asker {
                Asker::Page(ticket) => self.checks.pages.push_back((ticket, HashTold::Nothing)),
                Asker::Member(member, number) => {
                    let answer = HashAnswer { number, told: HashTold::Nothing };
                    self.peers.send(member, Letter::HashAnswer(answer));
                }
                Asker::Oneself => {}
            }
        }
    }
}
