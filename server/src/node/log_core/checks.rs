//! Corruption checks: hashes of the keys, for other members, for whoever asks over HTTP, and for
//! the leader, which compares them.
//!
//! A hash is a walk through the whole store, so it goes on in steps of the background, like a
//! sweep. One is worked on at a time, in the order in which they were asked for.
//!
//! Invariants:
//! - A check belongs to one leadership: who leads no more compares nothing.
//! - One check is under way at a time, and each ends: by its answers, by the end of connections, or
//!   by the time that it may take.
//! - What waits is bounded in number and in time: a member's next question takes the place of the
//!   one before, and what comes over HTTP can take few places.
//! - A hash that was computed is compared with computed ones, and one of a compaction with those of
//!   compactions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::command::{AlarmAction, AlarmRef, FrameWriter};
use engine::ids::{MemberId, Revision, Term};
use engine::{Alarm, AlarmKind, KeyValueHash, KeyValueHashScan, Progress, ReadError};

use super::LogCore;
use crate::config::Notice;
use crate::log::Level;
use crate::mail::{FrontendId, Slot};
use crate::node::corruption::{Judgement, judge_compaction, judge_periodic, unchecked};
use crate::peer::letter::{HashAnswer, HashQuestion, HashTold, HashWanted, Letter};
use crate::sequencer::batch::Ticket;

/// Records that a step of a hash may touch: a tenth of a millisecond, and on a store that is not in
/// memory some pages from the disk.
const HASH_KEYS_MAX: usize = 128;
/// Hashes that may wait; and those among them that strangers have asked for over HTTP.
const HASHES_MAX: usize = 64;
const PAGES_MAX: usize = 4;
/// How long a member may take for a hash: it walks through its whole store, besides all its other
/// work. One that is gone is not waited for.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);
/// How long a whole check may take. The next one may have more luck: a hash begins again when
/// history is compacted.
const CHECK_TIME_MAX: Duration = Duration::from_secs(1200);
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
    /// Nobody waits any longer.
    until: Duration,
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

pub(super) struct Run {
    term: Term,
    stage: Stage,
    until: Duration,
}

/// The checks.
#[derive(Default)]
pub(super) struct Checks {
    settings: CheckSettings,
    periodic_due: Option<Duration>,
    compactions_due: Option<Duration>,
    /// The newest compaction whose hash all members share.
    checked: Revision,
    pub(super) run: Option<Run>,
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
    fn hash(&mut self, asker: Asker, scan: KeyValueHashScan, until: Duration) -> bool {
        if let Asker::Member(member, _) = asker {
            self.hashing
                .retain(|other| !matches!(other.asker, Asker::Member(of, _) if of == member));
        }
        let is_page = |asker: Asker| matches!(asker, Asker::Page(_));
        let page_count = self.hashing.iter().filter(|hashing| is_page(hashing.asker)).count();
        let has_place = !is_page(asker) || page_count < PAGES_MAX;
        let has_room = has_place && self.hashing.len() < HASHES_MAX;
        if has_room {
            self.hashing.push_back(Hashing { asker, scan, until });
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

    /// Somebody asks over HTTP for the hash of the keys.
    pub fn handle_hash_request(&mut self, ticket: u64, scan: KeyValueHashScan) {
        let until = self.ticked + ANSWER_TIME_MAX;
        if self.stopping || !self.checks.hash(Asker::Page(ticket), scan, until) {
            self.checks.pages.push_back((ticket, HashTold::Nothing));
        }
    }

    /// Whoever asked has gone.
    pub fn handle_hash_unwanted(&mut self, ticket: u64) {
        self.checks.hashing.retain(|hashing| hashing.asker != Asker::Page(ticket));
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
        let HashQuestion { number, revision, wanted } = question;
        let told = match wanted {
            HashWanted::OfCompaction => {
                let view = self.engine.newest_view();
                let mut remembered = view.compaction_hashes().iter();
                remembered
                    .find(|hash| hash.revision == revision)
                    .map_or(HashTold::Nothing, |hash| HashTold::Hash(*hash))
            }
            HashWanted::Computed if self.stopping => HashTold::Nothing,
            HashWanted::Computed => {
                let scan = KeyValueHashScan::computed(revision);
                let until = self.ticked + ANSWER_TIME_MAX;
                if self.checks.hash(Asker::Member(from, number), scan, until) {
                    return;
                }
                HashTold::Nothing
            }
        };
        self.peers.send(from, Letter::HashAnswer(HashAnswer { number, told }));
    }

    pub(super) fn handle_hash_answer(&mut self, from: MemberId, answer: HashAnswer) {
        let Some(round) = self.checks.round() else { return };
        if round.waiting.get(&answer.number) == Some(&from) {
            round.waiting.remove(&answer.number);
            round.told.push((from, answer.told));
        }
    }

    /// Letters to a member were lost, and perhaps a question among them.
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
        self.forget_late_hashes(now);
        let checks = &mut self.checks;
        let is_over = |run: &Run| !leads || run.term != term || run.until <= now;
        if checks.run.as_ref().is_some_and(is_over) {
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
            let until = now + CHECK_TIME_MAX;
            let scan = KeyValueHashScan::computed(Revision(0));
            if leads && checks.hash(Asker::Oneself, scan, until) {
                checks.run = Some(Run { term, stage: Stage::First, until });
                return;
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
                self.compare_compactions(hashes, (term, now + CHECK_TIME_MAX), now);
            }
        }
    }

    /// Asks the others for the hash of the first of these compactions.
    fn compare_compactions(
        &mut self,
        mut hashes: VecDeque<KeyValueHash>,
        (term, until): (Term, Duration),
        now: Duration,
    ) {
        let Some(first) = hashes.pop_front() else { return self.checks.run = None };
        let round = self.ask_others(first.revision, HashWanted::OfCompaction, now);
        let stage = Stage::Compaction(first, round, hashes);
        self.checks.run = Some(Run { term, stage, until });
    }

    /// Asks every other member for its hash at a revision.
    fn ask_others(&mut self, revision: Revision, wanted: HashWanted, now: Duration) -> Round {
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
            let question = HashQuestion { number, revision, wanted };
            self.peers.send(member, Letter::HashQuestion(question));
        }
        round
    }

    /// Takes the next step of a check whose round has ended.
    fn advance_check(&mut self, now: Duration) {
        if self.checks.round().is_none_or(|round| !round.waiting.is_empty()) {
            return;
        }
        let Some(Run { term, stage, until }) = self.checks.run.take() else { return };
        match stage {
            Stage::Others(first, mut round) => {
                // Who is accused must not depend on whose answer came first.
                round.told.sort_unstable_by_key(|(member, _)| *member);
                let stage = Stage::Confirming(first, round);
                self.checks.run = Some(Run { term, stage, until });
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
                    self.compare_compactions(left, (term, until), now);
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
        let Some(Run { term, stage: Stage::Confirming(first, round), until }) =
            checks.run.take_if(is_waited_for)
        else {
            return;
        };
        let scan = KeyValueHashScan::computed(Revision(0));
        if is_confirmed && checks.hash(Asker::Oneself, scan, until) {
            checks.run = Some(Run { term, stage: Stage::Second(first, round), until });
        }
    }

    /// Gets on with the hash that is first.
    pub(super) fn step_hashes(&mut self, now: Duration) {
        let Some(first) = self.checks.hashing.front_mut() else { return };
        let told = match first.scan.step(self.engine.newest_view(), HASH_KEYS_MAX) {
            Ok(Progress::More) => return,
            Ok(Progress::Done) => {
                HashTold::Hash(first.scan.result().expect("a hash that is done has a result"))
            }
            Err(ReadError::Rejection(rejection)) => HashTold::Rejected(rejection),
            // As a client's read of the page: it is told, and the member goes on as long as it can.
            Err(ReadError::Fault(fault)) => {
                let fields = vec![("error", fault.to_string())];
                let message = "the store is damaged: its keys cannot be hashed".to_owned();
                let notice = Notice { level: Level::Error, message, fields };
                self.checks.notices.push_back(notice);
                HashTold::Nothing
            }
        };
        let asker = first.asker;
        self.checks.hashing.pop_front();
        self.tell_hash(asker, told, now);
    }

    /// Those who have waited too long get nothing.
    fn forget_late_hashes(&mut self, now: Duration) {
        let late: Vec<Asker> = self
            .checks
            .hashing
            .iter()
            .filter(|hashing| hashing.until <= now)
            .map(|hashing| hashing.asker)
            .collect();
        self.checks.hashing.retain(|hashing| hashing.until > now);
        for asker in late {
            self.tell_hash(asker, HashTold::Nothing, now);
        }
    }

    fn tell_hash(&mut self, asker: Asker, told: HashTold, now: Duration) {
        match asker {
            Asker::Page(ticket) => self.checks.pages.push_back((ticket, told)),
            Asker::Member(member, number) => {
                self.peers.send(member, Letter::HashAnswer(HashAnswer { number, told }));
            }
            Asker::Oneself => self.handle_own_hash(told, now),
        }
    }

    fn handle_own_hash(&mut self, told: HashTold, now: Duration) {
        let Some(Run { term, stage, until }) = self.checks.run.take() else { return };
        // The newest revision can be hashed, if it can be read, and in time.
        let HashTold::Hash(hash) = told else { return };
        match stage {
            Stage::First => {
                let round = self.ask_others(hash.revision, HashWanted::Computed, now);
                self.checks.run = Some(Run { term, stage: Stage::Others(hash, round), until });
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
            self.tell_hash(hashing.asker, HashTold::Nothing, self.ticked);
        }
    }
}
