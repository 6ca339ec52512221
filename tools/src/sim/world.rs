//! The world of a run: members, their machines, the network, the clients, and what happens when.
//!
//! One queue of events, ordered by time and then by the order in which they were planned, and streams
//! of random numbers from one seed: nothing else decides, so that a seed replays to the last byte.
//! What happened is summed up in a digest.
//!
//! Invariants:
//! - An event of an earlier life of a member, or of a connection that is gone, has no effect.
//! - Every member's store is looked at after every turn of its, and held against all others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use engine::FrameWriter;
use engine::command::{LeaseGrantRef, MemberAddRef};
use engine::ids::{LeaseId, MemberId};
use server::mail::{Ask, LeaseReply, Renewed, Slot, Verdict};
use server::node::failure::Failure;
use server::node::start::Origin;
use server::peer::letter::Letter;
use server::sequencer::lessor::LessorConfig;

use super::clients::{self, Client, Wish};
use super::links::{self, Link, Way};
use super::machine::Machine;
use super::member::{Boot, Clock, FRONTEND, Member, founders, peer_url};
use super::network::{Network, Place};
use super::plan::Plan;
use super::random::Random;
use super::witness::{Seen, Watcher, Witness, Wrong};
use crate::oracle::history::{Answer, OpId, Operation, Request, State};

/// A heartbeat interval.
pub const TICK_MICROS: u64 = 100_000;
/// What a lease is granted for at least, and what a new leader adds.
pub const LESSOR: LessorConfig = LessorConfig {
    ttl_min_seconds: 2,
    extension: Duration::from_secs(1),
    checkpoint_interval: None,
};
/// A client that was told nothing for so long asks something else.
const PATIENCE_MICROS: u64 = 10_000_000;
/// Turns that a member may want without anything happening: more is spinning.
const IDLE_TURNS_MAX: u32 = 20_000;

/// No client: whoever runs the cluster.
const NOBODY: usize = usize::MAX;

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A member gets on with what it was told.
    Turn(Place, u64),
    /// A heartbeat interval has passed for it.
    Tick(Place, u64),
    /// An operation of its log has ended.
    LogOp(Place, u64, u64),
    /// An operation of its store has ended.
    StoreOp(Place, u64, u64),
    /// A frame arrives.
    Frame(Carried),
    /// A connection that is down is tried.
    Dial(Way),
    /// A lane for raft snapshots is there.
    SnapshotLane(Way, u64),
    /// It is noticed that a connection has lost something.
    Notice(Way, u64),
    /// A client asks something, or loses its patience; void if it has done something since.
    Client(usize, u64),
    /// A member is started.
    Start(Place),
    /// Members that were added may be known by now.
    Roster,
    /// Trouble.
    Trouble,
    /// Something that was made worse is as before.
    Mend(Mend),
}

/// A frame on its way.
#[derive(Debug)]
pub struct Carried {
    /// From whom to whom.
    way: Way,
    /// The connection, which is the other one's for what answers the letters of a raft snapshot.
    over: Way,
    /// Which of the connections it was.
    epoch: u64,
    bytes: Vec<u8>,
}

/// A change of the members or of who leads them.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Somebody joins.
    Add {
        /// Who.
        id: MemberId,
        /// Whether it only learns.
        is_learner: bool,
    },
    /// Somebody leaves for ever.
    Remove(MemberId),
    /// A learner votes.
    Promote(MemberId),
    /// Somebody else leads.
    Lead(MemberId),
}

/// What is mended.
#[derive(Debug, Clone, Copy)]
pub enum Mend {
    /// The network is whole.
    Network,
    /// A disk has room.
    Room(Place),
    /// A disk is as fast as before.
    Speed(Place),
}

struct Queued {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What a member was asked and has not answered.
#[derive(Debug, Clone)]
pub struct Pending {
    client: usize,
    /// The question's number.
    question: u64,
    what: Asked,
    asked_at: u64,
}

#[derive(Debug, Clone)]
enum Asked {
    /// An operation of the history.
    Operation(usize),
    Compact,
    Change,
    Grant(LeaseGrantRef),
    Renew(LeaseId),
}

/// What the world knows about a lease.
#[derive(Debug, Clone, Copy)]
struct LeaseKnown {
    ttl_seconds: i64,
    /// It may not end before.
    safe_until: u64,
}

/// The world.
pub struct World {
    /// What was drawn.
    pub plan: Plan,
    /// Microseconds since it began.
    pub now: u64,
    /// The members.
    pub members: Vec<Member>,
    /// The network.
    pub network: Network,
    /// What clients asked and were told.
    pub history: Vec<Operation>,
    /// What all stores have in common.
    pub witness: Witness,
    /// The trouble that happens.
    pub trouble: Random,
    /// Whether trouble is over.
    pub is_calm: bool,
    /// Whether clients ask anything more.
    pub clients_ask: bool,
    /// Whether what happens is told.
    pub is_told: bool,
    queue: BinaryHeap<Reverse<Queued>>,
    planned: u64,
    links: BTreeMap<Way, Link>,
    clients: Vec<Client>,
    pending: Vec<BTreeMap<Slot, Pending>>,
    slot_next: u32,
    questions: u64,
    seen: Vec<Seen>,
    watchers: Vec<Watcher>,
    leases: BTreeMap<LeaseId, LeaseKnown>,
    /// The keys behind all changes.
    state: State,
    delays: Random,
    boots: Random,
    digest: u64,
    events: u64,
}

impl World {
    /// A world whose members are all about to be started for the first time.
    #[must_use]
    pub fn new(plan: Plan, random: &mut Random) -> Self {
        let mut machines = random.split(10);
        let ids: Vec<MemberId> = (1..=plan.members as u64).map(MemberId).collect();
        let origin = Origin::Founds(founders(&ids));
        let member = |&id: &MemberId| Member::new(id, Machine::new(&mut machines), origin.clone());
        let members: Vec<Member> = ids.iter().map(member).collect();
        let network = Network::new(random.split(11), plan.weather);
        let mut seeds = random.split(12);
        let client = |number: usize| Client::new(number as u64 + 1, seeds.split(number as u64));
        let clients: Vec<Client> = (0..plan.clients).map(client).collect();
        let count = members.len();
        let mut world = Self {
            now: 0,
            network,
            history: Vec::new(),
            witness: Witness::default(),
            trouble: random.split(13),
            is_calm: false,
            clients_ask: true,
            is_told: false,
            queue: BinaryHeap::new(),
            planned: 0,
            links: BTreeMap::new(),
            pending: vec![BTreeMap::new(); count],
            slot_next: 0,
            questions: 0,
            seen: vec![Seen::NOTHING; count],
            watchers: vec![Watcher::new(); count],
            leases: BTreeMap::new(),
            state: State::default(),
            delays: random.split(14),
            boots: random.split(15),
            digest: 0xcbf2_9ce4_8422_2325,
            events: 0,
            plan,
            members,
            clients,
        };
        for place in 0..count {
            let skew = world.plan.clock_skew;
            world.members[place].clock_rate =
                Clock::RATE_RIGHT - skew + world.boots.below(2 * skew + 1);
            world.later(1000, Event::Start(place));
        }
        for client in 0..world.clients.len() {
            world.later(500_000, Event::Client(client, 0));
        }
        let gap = world.plan.trouble_gap_micros;
        world.later(2_000_000 + gap, Event::Trouble);
        world
    }

    /// What happened, summed up.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// How many events there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    fn note(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    }

    /// Says what happens, if anybody listens.
    pub fn tell(&self, text: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>12.6} {}", self.now as f64 / 1e6, text());
        }
    }

    /// Plans an event for some time from now, at most so far away.
    pub fn later(&mut self, micros_max: u64, event: Event) {
        let delay = 1 + self.delays.below(micros_max.max(1));
        self.at(self.now + delay, event);
    }

    /// Plans an event.
    pub fn at(&mut self, at: u64, event: Event) {
        self.planned += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Queued { at, number: self.planned, event }));
    }

    /// Lets everything happen until then.
    ///
    /// # Errors
    /// What went wrong.
    pub fn run_until(&mut self, end: u64) -> Result<(), Wrong> {
        while let Some(Reverse(first)) = self.queue.peek()
            && first.at <= end
        {
            let Reverse(Queued { at, event, .. }) = self.queue.pop().expect("it was there");
            self.now = at;
            self.events += 1;
            self.note(at);
            self.handle(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Wrong> {
        match event {
            Event::Turn(place, boot) if self.is_life(place, boot) => self.turn(place),
            Event::Tick(place, boot) if self.is_life(place, boot) => self.tick(place),
            Event::LogOp(place, boot, op) if self.is_life(place, boot) => {
                self.end_log_op(place, op)
            }
            Event::StoreOp(place, boot, op) if self.is_life(place, boot) => {
                self.end_store_op(place, op)
            }
            Event::Turn(..) | Event::Tick(..) | Event::LogOp(..) | Event::StoreOp(..) => Ok(()),
            Event::Frame(frame) => self.deliver(frame),
            Event::Dial(way) => self.dial(way),
            Event::SnapshotLane(way, epoch) => self.open_snapshot_lane(way, epoch),
            Event::Notice(way, epoch) => {
                let link = self.links.entry(way).or_default();
                if link.epoch == epoch {
                    self.break_link(way)?;
                }
                Ok(())
            }
            Event::Client(client, turn) => self.ask(client, turn),
            Event::Start(place) => self.start(place),
            Event::Roster => {
                self.start_added();
                Ok(())
            }
            Event::Trouble => super::trouble::strike(self),
            Event::Mend(mend) => {
                super::trouble::mend(self, mend);
                Ok(())
            }
        }
    }

    fn is_life(&self, place: Place, boot: u64) -> bool {
        let member = &self.members[place];
        member.running.is_some() && member.boots == boot
    }

    /// Whether the event has to wait for a member that is held up; then it comes again.
    fn is_held_up(&mut self, place: Place, event: impl FnOnce(u64) -> Event) -> bool {
        let member = &self.members[place];
        if member.paused_until <= self.now {
            return false;
        }
        let (until, boot) = (member.paused_until, member.boots);
        self.at(until, event(boot));
        true
    }

    // Members.

    fn start(&mut self, place: Place) -> Result<(), Wrong> {
        let member = &mut self.members[place];
        if member.running.is_some() || member.is_lost {
            return Ok(());
        }
        if !member.is_founded {
            // What an attempt that came to no end has left is cleared by the next one.
            member.machine = Machine::new(&mut self.boots);
        }
        let boot = Boot {
            now: self.now,
            nonce: self.boots.word(),
            snapshot_count: self.plan.snapshot_count,
            election_seed: self.boots.word(),
            lessor: LESSOR,
            pre_vote: self.plan.pre_vote,
            window_entries: self.plan.window_entries,
        };
        let crashes_in_start = !self.is_calm && super::trouble::crashes_in_start(self);
        let ops = crashes_in_start.then(|| self.trouble.below(60));
        let member = &mut self.members[place];
        member.machine.fail_power_after(ops);
        member.machine.set_segment_size(self.plan.segment_size_bytes);
        let started = member.start(boot);
        member.machine.fail_power_after(None);
        match started {
            Ok(replayed) => {
                self.tell(|| format!("m{} starts, replays {replayed}", place + 1));
                self.note(replayed);
            }
            Err(error) => return self.handle_not_started(place, ops.is_some(), &error),
        }
        self.seen[place] = Seen::NOTHING;
        self.look_at(place)?;
        let Some(running) = self.members[place].running.as_mut() else { return Ok(()) };
        // Whoever watches comes back and reads what he has missed.
        self.watchers[place].catch_up(&mut self.witness, &running.reader.pin())?;
        let boot = self.members[place].boots;
        self.later(TICK_MICROS, Event::Tick(place, boot));
        for other in 0..self.members.len() {
            if other != place {
                self.later(50_000, Event::Dial((place, other)));
                self.later(50_000, Event::Dial((other, place)));
            }
        }
        self.want_turn(place, 0);
        Ok(())
    }

    fn handle_not_started(
        &mut self,
        place: Place,
        was_cut: bool,
        error: &Failure,
    ) -> Result<(), Wrong> {
        self.tell(|| format!("m{} does not start: {error}", place + 1));
        let member = &mut self.members[place];
        if was_cut {
            member.machine.crash([], [], wal::sim::Crash::Tears);
            self.later(1_000_000, Event::Start(place));
            return Ok(());
        }
        if member.is_damaged {
            member.is_lost = true;
            return Ok(());
        }
        Err(format!("m{} does not start: {error}", place + 1))
    }

    /// A member's life ends; it is started again after some time.
    pub fn stop_member(
        &mut self,
        place: Place,
        crash: wal::sim::Crash,
        restart_micros: u64,
    ) -> Result<(), Wrong> {
        let Some(running) = self.members[place].running.take() else { return Ok(()) };
        self.tell(|| format!("m{} ends: {crash:?}", place + 1));
        let log_ops = running.log_ops.into_values().map(|(_, op)| op);
        self.members[place].machine.crash(log_ops, running.store_ops.into_values(), crash);
        self.members[place].may_fail = false;
        self.members[place].machine.forget_fault();
        self.members[place].paused_until = 0;
        for (_, pending) in std::mem::take(&mut self.pending[place]) {
            self.settle(&pending);
        }
        for other in 0..self.members.len() {
            for way in [(place, other), (other, place)] {
                if other != place {
                    self.break_link(way)?;
                }
            }
        }
        self.later(restart_micros, Event::Start(place));
        Ok(())
    }

    fn fail_member(&mut self, place: Place, failure: &Failure) -> Result<(), Wrong> {
        let is_excused = self.members[place].may_fail || self.members[place].is_damaged;
        if !is_excused {
            return Err(format!("m{} stops: {failure}", place + 1));
        }
        self.tell(|| format!("m{} stops: {failure}", place + 1));
        if self.members[place].is_damaged && matches!(failure, Failure::Engine(_)) {
            self.members[place].is_lost = true;
        }
        self.stop_member(place, wal::sim::Crash::KeepsAll, 500_000)
    }

    fn want_turn(&mut self, place: Place, delay: u64) {
        let at = self.now + delay;
        let boot = self.members[place].boots;
        let Some(running) = &mut self.members[place].running else { return };
        if running.turn_due.is_some_and(|due| due <= at) {
            return;
        }
        running.turn_due = Some(at);
        self.at(at, Event::Turn(place, boot));
    }

    fn soon(&mut self, place: Place) {
        let delay = self.delays.below(100);
        self.want_turn(place, delay);
    }

    fn tick(&mut self, place: Place) -> Result<(), Wrong> {
        if self.is_held_up(place, |boot| Event::Tick(place, boot)) {
            return Ok(());
        }
        let (now, boot) = (self.now, self.members[place].boots);
        let running = self.members[place].running.as_mut().expect("it lives");
        running.core.handle_tick(running.clock.at(now));
        let next = running.clock.takes(TICK_MICROS);
        self.at(now + next, Event::Tick(place, boot));
        self.soon(place);
        Ok(())
    }

    fn turn(&mut self, place: Place) -> Result<(), Wrong> {
        if self.is_held_up(place, |boot| Event::Turn(place, boot)) {
            return Ok(());
        }
        let now = self.now;
        let running = self.members[place].running.as_mut().expect("it lives");
        if running.turn_due.is_none_or(|due| due > now) {
            return Ok(());
        }
        running.turn_due = None;
        let local = running.clock.at(now);
        if let Err(failure) = running.core.order(local) {
            return self.fail_member(place, &failure);
        }
        self.begin_ops(place);
        self.post(place)?;
        let running = self.members[place].running.as_mut().expect("it lives");
        if let Err(failure) = running.core.apply(local, || local) {
            return self.fail_member(place, &failure);
        }
        self.look_at(place)?;
        if self.members[place].running.is_none() {
            return Ok(());
        }
        self.take_replies(place)?;
        let Some(running) = self.members[place].running.as_mut() else { return Ok(()) };
        if let Err(failure) = running.core.order(local) {
            return self.fail_member(place, &failure);
        }
        self.begin_ops(place);
        self.post(place)?;
        if self.members[place].running.as_ref().is_some_and(|running| running.core.is_removed()) {
            return self.end_membership(place);
        }
        self.plan_turn(place);
        Ok(())
    }

    /// A member was removed and knows it.
    fn end_membership(&mut self, place: Place) -> Result<(), Wrong> {
        self.tell(|| format!("m{} was removed", place + 1));
        self.members[place].is_lost = true;
        self.stop_member(place, wal::sim::Crash::KeepsAll, 1)
    }

    /// A machine for a member that is yet to be added. It is started when a member names it.
    pub fn prepare_member(&mut self) -> MemberId {
        let id = MemberId(self.members.len() as u64 + 1);
        let machine = Machine::new(&mut self.boots);
        self.members.push(Member::new(id, machine, Origin::Joins));
        self.pending.push(BTreeMap::new());
        self.seen.push(Seen::NOTHING);
        self.watchers.push(Watcher::new());
        self.later(1_000_000, Event::Roster);
        id
    }

    /// Starts members that were added and never ran.
    fn start_added(&mut self) {
        let mut is_waited_for = false;
        for place in 0..self.members.len() {
            let member = &self.members[place];
            if member.is_founded || member.is_lost || member.running.is_some() {
                continue;
            }
            let id = member.id;
            let mut running = self.members.iter().filter_map(|other| other.running.as_ref());
            if running.any(|it| it.core.members().iter().any(|known| known.id == id)) {
                self.later(100_000, Event::Start(place));
            }
            is_waited_for = true;
        }
        if is_waited_for {
            self.later(1_000_000, Event::Roster);
        }
    }

    /// Asks a member for a change of the members, or for another leader.
    pub fn put_change(&mut self, place: Place, change: Change) {
        self.slot_next += 1;
        let slot = Slot(self.slot_next);
        self.tell(|| format!("m{} is asked for {change:?}", place + 1));
        let mut ask = Ask::default();
        let (mut writer, mut frame) = (FrameWriter::new(), Vec::new());
        match change {
            Change::Lead(id) => ask.moves.push((slot, id)),
            Change::Add { id, is_learner } => {
                let peer_urls = [peer_url(id)];
                let add = MemberAddRef { id, peer_urls: &peer_urls, is_learner, learners_max: 1 };
                writer.push_member_add(&mut frame, &add);
            }
            Change::Remove(id) => writer.push_member_remove(&mut frame, id),
            Change::Promote(id) => writer.push_member_promote(&mut frame, id),
        }
        if !frame.is_empty() {
            ask.changes.push((slot, frame));
        }
        let (asked_at, question) = (self.now, 0);
        let pending = Pending { client: NOBODY, question, what: Asked::Change, asked_at };
        self.pending[place].insert(slot, pending);
        let now = self.now;
        let running = self.members[place].running.as_mut().expect("it lives");
        running.core.handle_ask(FRONTEND, &ask, running.clock.at(now));
        self.soon(place);
    }

    fn plan_turn(&mut self, place: Place) {
        let now = self.now;
        let Some(running) = self.members[place].running.as_mut() else { return };
        running.idle_turns += 1;
        assert!(running.idle_turns < IDLE_TURNS_MAX, "m{} spins", place + 1);
        let moments = [running.core.background_due(), running.core.wake_at()];
        let due = moments.into_iter().flatten().map(|moment| running.clock.when(moment)).min();
        if running.core.has_work() {
            self.want_turn(place, 10);
        } else if let Some(due) = due {
            self.want_turn(place, due.saturating_sub(now).max(10));
        }
    }

    // Disks.

    fn begin_ops(&mut self, place: Place) {
        let slowness = self.members[place].disk_slowness;
        let most = self.plan.disk_micros * slowness;
        loop {
            let boot = self.members[place].boots;
            let running = self.members[place].running.as_mut().expect("it lives");
            if let Some((id, op)) = running.core.poll_log_op() {
                running.log_ops.insert(id.0, (id, op));
                self.later(most, Event::LogOp(place, boot, id.0));
            } else if let Some(op) = running.core.poll_engine_op() {
                let token = op.token.0;
                running.store_ops.insert(token, op);
                self.later(most, Event::StoreOp(place, boot, token));
            } else {
                return;
            }
        }
    }

    fn end_log_op(&mut self, place: Place, op: u64) -> Result<(), Wrong> {
        if self.is_held_up(place, |boot| Event::LogOp(place, boot, op)) {
            return Ok(());
        }
        let member = &mut self.members[place];
        let running = member.running.as_mut().expect("it lives");
        let Some((id, op)) = running.log_ops.remove(&op) else { return Ok(()) };
        running.idle_turns = 0;
        let result = member.machine.perform_log(op);
        match running.core.handle_log_completion(id, result) {
            Ok(()) => self.soon(place),
            Err(failure) => self.fail_member(place, &failure)?,
        }
        Ok(())
    }

    fn end_store_op(&mut self, place: Place, token: u64) -> Result<(), Wrong> {
        if self.is_held_up(place, |boot| Event::StoreOp(place, boot, token)) {
            return Ok(());
        }
        let member = &mut self.members[place];
        let running = member.running.as_mut().expect("it lives");
        let Some(op) = running.store_ops.remove(&token) else { return Ok(()) };
        running.idle_turns = 0;
        let completion = member.machine.perform_store(op);
        match running.core.handle_engine_completion(completion) {
            Ok(()) => self.soon(place),
            Err(failure) => self.fail_member(place, &failure)?,
        }
        Ok(())
    }

    // Letters.

    fn post(&mut self, place: Place) -> Result<(), Wrong> {
        loop {
            let Some(running) = self.members[place].running.as_mut() else { return Ok(()) };
            let Some((to, letter)) = running.core.poll_letter() else { break };
            running.idle_turns = 0;
            let Some(target) = self.members.iter().position(|member| member.id == to) else {
                continue;
            };
            let way = (place, target);
            let is_answer = matches!(letter, Letter::SnapshotAcknowledged(_));
            let over = if is_answer { (target, place) } else { way };
            let link = self.links.entry(over).or_default();
            let is_up = link.is_up && (!is_answer || link.has_snapshot_lane);
            self.tell(|| links::describe(&letter, way, is_up));
            if !is_up {
                let running = self.members[place].running.as_mut().expect("it lives");
                if !is_answer {
                    running.core.handle_unreachable(to);
                }
                continue;
            }
            let link = self.links.entry(over).or_default();
            let sent = link.send(&letter, way, self.now, &mut self.network);
            if sent.is_empty() && !self.network.reaches(place, target) {
                let epoch = self.links[&over].epoch;
                self.later(3_000_000, Event::Notice(over, epoch));
            }
            for links::Sent { at, epoch, bytes } in sent {
                self.at(at, Event::Frame(Carried { way, over, epoch, bytes }));
            }
        }
        self.want_lanes(place);
        Ok(())
    }

    fn want_lanes(&mut self, place: Place) {
        for target in (0..self.members.len()).filter(|target| *target != place) {
            let peer = self.members[target].id;
            let Some(running) = self.members[place].running.as_mut() else { return };
            let is_wanted = running.core.wants_snapshot_lane(peer);
            let link = self.links.entry((place, target)).or_default();
            if link.has_snapshot_lane && !is_wanted {
                running.core.handle_snapshot_lane(peer, false);
            }
            let is_new = is_wanted && link.is_up && !link.has_snapshot_lane;
            link.has_snapshot_lane = is_wanted && link.is_up;
            if is_new {
                let epoch = link.epoch;
                self.later(20_000, Event::SnapshotLane((place, target), epoch));
            }
        }
    }

    fn open_snapshot_lane(&mut self, way: Way, epoch: u64) -> Result<(), Wrong> {
        let link = self.links.entry(way).or_default();
        if link.epoch == epoch && link.has_snapshot_lane {
            self.tell(|| format!("m{} > m{} the lane of stores is up", way.0 + 1, way.1 + 1));
            let peer = self.members[way.1].id;
            if let Some(running) = &mut self.members[way.0].running {
                running.core.handle_snapshot_lane(peer, true);
                self.soon(way.0);
            }
        }
        Ok(())
    }

    fn deliver(&mut self, frame: Carried) -> Result<(), Wrong> {
        let (from, to) = frame.way;
        if self.links.get(&frame.over).is_none_or(|link| link.epoch != frame.epoch) {
            return Ok(());
        }
        if !self.network.reaches(from, to) {
            self.later(3_000_000, Event::Notice(frame.over, frame.epoch));
            return Ok(());
        }
        if self.members[to].running.is_none() {
            return Ok(());
        }
        if self.members[to].paused_until > self.now {
            // It lies in the socket.
            let until = self.members[to].paused_until;
            self.at(until, Event::Frame(frame));
            return Ok(());
        }
        self.note(u64::from(crc32fast::hash(&frame.bytes)));
        let letter = links::decode(&frame.bytes)?;
        let from = self.members[from].id;
        let running = self.members[to].running.as_mut().expect("it lives");
        running.idle_turns = 0;
        match running.core.handle_letter(from, letter) {
            Ok(()) => self.soon(to),
            Err(failure) => self.fail_member(to, &failure)?,
        }
        Ok(())
    }

    /// Breaks a connection; who sends over it is told, and tries again.
    pub fn break_link(&mut self, way: Way) -> Result<(), Wrong> {
        let link = self.links.entry(way).or_default();
        if !link.is_up {
            return Ok(());
        }
        let had_lane = link.has_snapshot_lane;
        link.break_off();
        self.tell(|| format!("m{} > m{} breaks", way.0 + 1, way.1 + 1));
        let peer = self.members[way.1].id;
        if let Some(running) = &mut self.members[way.0].running {
            if had_lane {
                running.core.handle_snapshot_lane(peer, false);
            }
            running.core.handle_unreachable(peer);
            running.core.handle_peer(peer, false);
            self.soon(way.0);
        }
        self.later(500_000, Event::Dial(way));
        Ok(())
    }

    fn dial(&mut self, way: Way) -> Result<(), Wrong> {
        let (from, to) = way;
        let link = self.links.entry(way).or_default();
        if link.is_up || self.members[from].running.is_none() {
            return Ok(());
        }
        let is_reached = self.network.reaches(from, to) && self.network.reaches(to, from);
        if self.members[to].running.is_none() || !is_reached {
            // A member that starts dials and is dialled anew.
            if self.members[to].running.is_some() {
                self.later(500_000, Event::Dial(way));
            }
            return Ok(());
        }
        let id = self.members[from].id;
        let target = self.members[to].running.as_ref().expect("it lives");
        if target.core.removed().contains(&id) {
            return self.end_membership(from);
        }
        link.is_up = true;
        let peer = self.members[to].id;
        let running = self.members[from].running.as_mut().expect("it lives");
        running.core.handle_peer(peer, true);
        self.soon(from);
        Ok(())
    }

    // Stores and watchers.

    fn look_at(&mut self, place: Place) -> Result<(), Wrong> {
        let (newest, id) = (self.witness.newest(), self.members[place].id);
        let running = self.members[place].running.as_mut().expect("it lives");
        let view = running.reader.pin();
        let observed = self.witness.observe(&view, &mut self.seen[place]);
        drop(view);
        match observed {
            Err(wrong) if self.members[place].is_damaged => {
                self.tell(|| format!("m{} finds damage: {wrong}", place + 1));
                self.members[place].is_lost = true;
                return self.stop_member(place, wal::sim::Crash::KeepsAll, 1);
            }
            observed => observed.map_err(|wrong| format!("m{id}: {wrong}"))?,
        };
        for revision in newest + 1..=self.witness.newest() {
            self.take_revision(revision)?;
        }
        Ok(())
    }

    /// A revision is there for the first time: a lease that it ends may not be one that lives.
    fn take_revision(&mut self, revision: i64) -> Result<(), Wrong> {
        self.note(revision.cast_unsigned());
        for change in self.witness.changes_of(revision) {
            let ended = self.state.get(&change.key).filter(|_| change.value.is_none());
            if let Some(known) = ended.and_then(|found| self.leases.get(&LeaseId(found.lease)))
                && known.safe_until > self.now
            {
                return Err(format!(
                    "a lease of {} seconds ends {} microseconds too early, at revision {revision}",
                    known.ttl_seconds,
                    known.safe_until - self.now
                ));
            }
            self.state.apply(change);
        }
        Ok(())
    }

    fn take_replies(&mut self, place: Place) -> Result<(), Wrong> {
        let running = self.members[place].running.as_mut().expect("it lives");
        let reply = std::mem::take(running.core.reply(FRONTEND));
        if !reply.is_empty() {
            running.idle_turns = 0;
        }
        let watcher = &mut self.watchers[place];
        let view = running.reader.pin();
        for batch in &reply.events {
            watcher.handle_events(&mut self.witness, batch, &view)?;
        }
        if reply.gap {
            watcher.catch_up(&mut self.witness, &view)?;
        }
        let (told, newest) = (watcher.told(), view.revision.0);
        drop(view);
        if told < newest {
            return Err(format!(
                "m{} has published revision {newest}, and its watcher knows of {told}",
                place + 1
            ));
        }
        for (slot, verdict) in reply.answers {
            self.handle_verdict(place, slot, verdict)?;
        }
        for slot in reply.reads {
            self.handle_read(place, slot)?;
        }
        for (slot, _) in reply.reads_failed {
            if let Some(pending) = self.pending[place].remove(&slot) {
                self.settle(&pending);
            }
        }
        for (slot, reply) in reply.leases {
            self.handle_lease_reply(place, slot, &reply);
        }
        Ok(())
    }

    // Clients.

    fn ask(&mut self, number: usize, turn: u64) -> Result<(), Wrong> {
        if !self.clients_ask || self.clients[number].turn != turn {
            return Ok(());
        }
        let (members, newest) = (self.members.len(), self.witness.newest());
        let Plan { compact_once_in, has_leases, think_micros, .. } = self.plan;
        let client = &mut self.clients[number];
        let wish = client.wish(members, newest, compact_once_in, has_leases);
        let place = client.place;
        if !self.members[place].is_active(self.now) {
            self.clients[number].place = (place + 1) % members;
            self.go_on(number, think_micros);
            return Ok(());
        }
        self.put_question(number, place, wish)
    }

    /// A client asks a member something.
    pub fn put_question(&mut self, number: usize, place: Place, wish: Wish) -> Result<(), Wrong> {
        self.questions += 1;
        self.slot_next += 1;
        let (slot, question) = (Slot(self.slot_next), self.questions);
        let mut ask = Ask::default();
        let what = match wish {
            Wish::Operation(request) => {
                let id = OpId(self.history.len() as u64);
                let begun = self.now;
                self.tell(|| format!("c{number} asks m{}: {id:?} {request:?}", place + 1));
                let operation = Operation { id, request, begun, answered: None };
                self.history.push(operation);
                let request = &self.history.last().expect("it was pushed").request;
                match request {
                    Request::Read { from, to, may_be_stale: true } => {
                        let running = self.members[place].running.as_mut().expect("it lives");
                        let answer = clients::read(&running.reader.pin(), from, to)?;
                        self.finish_operation(number, self.history.len() - 1, answer);
                        self.go_on(number, self.plan.think_micros);
                        return Ok(());
                    }
                    Request::Read { .. } => ask.reads.push(slot),
                    request => {
                        clients::push(request, id, &mut ask.frames);
                        ask.slots.push(slot);
                    }
                }
                Asked::Operation(self.history.len() - 1)
            }
            Wish::Compact(revision) => {
                clients::push_compact(revision, &mut ask.frames);
                ask.slots.push(slot);
                Asked::Compact
            }
            Wish::Grant(grant) => {
                clients::push_grant(grant, &mut ask.frames);
                ask.slots.push(slot);
                Asked::Grant(grant)
            }
            Wish::Renew(lease) => {
                ask.leases.push((slot, clients::renewal(lease, question)));
                Asked::Renew(lease)
            }
        };
        let pending = Pending { client: number, question, what, asked_at: self.now };
        self.pending[place].insert(slot, pending);
        self.clients[number].waits_for = Some(question);
        self.clients[number].turn += 1;
        let turn = self.clients[number].turn;
        let now = self.now;
        let running = self.members[place].running.as_mut().expect("it lives");
        running.core.handle_ask(FRONTEND, &ask, running.clock.at(now));
        self.soon(place);
        self.at(now + PATIENCE_MICROS, Event::Client(number, turn));
        Ok(())
    }

    /// A question is answered, or never will be: its client goes on.
    fn settle(&mut self, pending: &Pending) {
        let client = self.clients.get(pending.client);
        if client.is_some_and(|client| client.waits_for == Some(pending.question)) {
            self.go_on(pending.client, self.plan.think_micros);
        }
    }

    /// A client asks something else after some thought.
    fn go_on(&mut self, number: usize, think_micros: u64) {
        let client = &mut self.clients[number];
        client.waits_for = None;
        client.turn += 1;
        let (pause, turn) = (client.think(think_micros), client.turn);
        self.at(self.now + pause, Event::Client(number, turn));
    }

    fn finish_operation(&mut self, client: usize, operation: usize, answer: Answer) {
        let now = self.now;
        self.tell(|| format!("c{client} is told: {operation} {answer:?}"));
        let operation = &mut self.history[operation];
        self.clients[client].handle_answer(&operation.request, &answer);
        operation.answered = Some((now, answer));
    }

    fn handle_verdict(&mut self, place: Place, slot: Slot, verdict: Verdict) -> Result<(), Wrong> {
        let Some(pending) = self.pending[place].remove(&slot) else {
            return Err(format!("m{} answers what nobody asked", place + 1));
        };
        match pending.what {
            Asked::Operation(operation) => {
                let request = &self.history[operation].request;
                let told = self.is_told.then(|| format!("{verdict:?}"));
                match clients::answer_of(request, verdict)? {
                    Some(answer) => self.finish_operation(pending.client, operation, answer),
                    None => self.tell(|| format!("the fate of {operation} is open: {told:?}")),
                }
            }
            Asked::Grant(grant) => {
                if matches!(&verdict, Verdict::Applied(answer)
                    if matches!(answer.outcome, engine::Outcome::LeaseGranted(_)))
                {
                    self.clients[pending.client].handle_granted(grant);
                    self.prolong(grant.id, grant.ttl_seconds, pending.asked_at);
                }
            }
            Asked::Compact | Asked::Change => {}
            Asked::Renew(_) => return Err("a renewal was answered like a write".to_owned()),
        }
        self.settle(&pending);
        Ok(())
    }

    fn handle_read(&mut self, place: Place, slot: Slot) -> Result<(), Wrong> {
        let Some(pending) = self.pending[place].remove(&slot) else {
            return Err(format!("m{} answers a read that nobody asked for", place + 1));
        };
        let Asked::Operation(operation) = pending.what else {
            return Err("something else was answered like a read".to_owned());
        };
        if let Request::Read { from, to, .. } = &self.history[operation].request {
            let running = self.members[place].running.as_mut().expect("it lives");
            let answer = clients::read(&running.reader.pin(), from, to)?;
            self.finish_operation(pending.client, operation, answer);
        }
        self.settle(&pending);
        Ok(())
    }

    fn handle_lease_reply(&mut self, place: Place, slot: Slot, reply: &LeaseReply) {
        let Some(pending) = self.pending[place].remove(&slot) else { return };
        if let (Asked::Renew(id), LeaseReply::Renewed { renewed, .. }) = (&pending.what, reply) {
            match renewed {
                Renewed::Lives { ttl_seconds: ttl @ 1.. } => {
                    self.prolong(*id, *ttl, pending.asked_at);
                }
                Renewed::Lives { .. } => self.clients[pending.client].handle_lease_lost(),
                Renewed::NotPrimary | Renewed::Stopped => {}
            }
        }
        self.settle(&pending);
    }

    /// A lease was granted or renewed for so long, at the earliest when that was asked; whoever keeps
    /// its time may have the fastest clock.
    fn prolong(&mut self, id: LeaseId, ttl_seconds: i64, asked_at: u64) {
        let ttl_micros = ttl_seconds.cast_unsigned() * 1_000_000;
        let fastest = Clock::RATE_RIGHT + self.plan.clock_skew;
        let safe_until = asked_at + ttl_micros * Clock::RATE_RIGHT / fastest;
        let known = self.leases.entry(id).or_insert(LeaseKnown { ttl_seconds, safe_until: 0 });
        known.safe_until = known.safe_until.max(safe_until);
    }

    /// Whether somebody waits for an answer.
    #[must_use]
    pub fn questions_open(&self) -> usize {
        self.pending.iter().map(BTreeMap::len).sum()
    }

    /// How all members stand, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (place, member) in self.members.iter().enumerate() {
            let up: Vec<Place> = (0..self.members.len())
                .filter(|other| self.links.get(&(place, *other)).is_some_and(|link| link.is_up))
                .map(|other| other + 1)
                .collect();
            let state = match &member.running {
                Some(running) => {
                    let core = &running.core;
                    let (applied, leader) = (core.engine().applied(), core.leader());
                    let known: Vec<u64> = core.members().iter().map(|known| known.id.0).collect();
                    format!("{core:?} applied {applied:?} leader {leader:?} members {known:?}")
                }
                None => format!("does not run, lost: {}", member.is_lost),
            };
            text += &format!("\n  m{}: {state} up to {up:?}", place + 1);
        }
        text
    }

    /// The question that has waited longest, in words.
    #[must_use]
    pub fn oldest_question(&self) -> Option<String> {
        let all = self.pending.iter().enumerate();
        let all = all.flat_map(|(place, pending)| pending.values().map(move |one| (place, one)));
        let (place, oldest) = all.min_by_key(|(_, pending)| pending.asked_at)?;
        let asked_at = oldest.asked_at as f64 / 1e6;
        let what = match oldest.what {
            Asked::Operation(operation) => format!("{:?}", self.history[operation]),
            ref other => format!("{other:?}"),
        };
        Some(format!("m{} was asked at {asked_at}: {what}", place + 1))
    }

    /// Up to which revision a member's watcher was told everything.
    #[must_use]
    pub fn watcher_told(&self, place: Place) -> i64 {
        self.watchers[place].told()
    }
}
