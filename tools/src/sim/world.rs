//! The world of a run: members, their machines, the network, the clients, and what happens when.
//!
//! One queue of events, ordered by time and then by the order in which they were planned, and
//! streams of random numbers from one seed: nothing else decides, so that a seed replays to the
//! last byte. What happened is summed up in a digest.
//!
//! Invariants:
//! - An event of an earlier life of a member, or of a connection that is gone, has no effect.
//! - Every member's store is looked at after every turn of its, and held against all others.

mod asking;
mod disks;
mod letters;
mod quota;
mod watching;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use engine::FrameWriter;
use engine::command::{LeaseGrantRef, MemberAddRef};
use engine::ids::{LeaseId, MemberId};
use server::mail::{Ask, Slot};
use server::node::failure::Failure;
use server::node::start::Origin;
use server::raft::storage::Window;
use server::sequencer::lessor::LessorConfig;

use super::clients::Client;
use super::links::{Link, Way};
use super::machine::Machine;
use super::member::{Boot, Clock, ELECTION_TICKS, FRONTEND, Member, founders, peer_url};
use super::network::{Network, Place};
use super::plan::Plan;
use super::random::Random;
use super::values::Sizes;
use super::watching::WatchDesk;
use super::witness::{Seen, Watcher, Witness, Wrong};
use crate::oracle::history::{Operation, State};

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

/// How long a member that was removed goes on, in times of elections, as the real one does.
const REMOVED_LINGER_ELECTIONS: u64 = 3;

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
    /// A part of a walk through its store has come to its end.
    Scan(Place, u64, u64),
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
    /// A member that was removed ends.
    Dismiss(Place, u64),
    /// The others may hold a member to be gone that does nothing.
    Stall(Place),
    /// Whoever watches at a member is told.
    Watch(Place, u64),
    /// Alarms are looked at.
    Alarms,
    /// Trouble.
    Trouble,
    /// Something that was made worse is as before.
    Mend(Mend),
}

impl Event {
    /// The member whose own doing it is.
    const fn place(&self) -> Option<Place> {
        match self {
            Self::Turn(place, _)
            | Self::Tick(place, _)
            | Self::LogOp(place, ..)
            | Self::StoreOp(place, ..)
            | Self::Scan(place, ..)
            | Self::Watch(place, _) => Some(*place),
            Self::Frame(frame) => Some(frame.way.1),
            _ => None,
        }
    }
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
    /// Whether clients take their time: what is left to see is that all comes right.
    pub is_slow: bool,
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
    desks: Vec<WatchDesk>,
    sizes: Sizes,
    /// What a store took at most that its own member has built.
    size_bytes_max: u64,
    /// Somebody has raised an alarm.
    has_alarm: bool,
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
            is_slow: false,
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
            desks: Vec::new(),
            sizes: Sizes::new(random.split(16), plan.large_values),
            size_bytes_max: 0,
            has_alarm: false,
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
            let desk = WatchDesk::new(world.boots.split(place as u64));
            world.desks.push(desk);
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
        let damaged = event.place().filter(|place| self.members[*place].is_damaged);
        let Some(place) = damaged else { return self.handle_event(event) };
        // A log whose end is damaged may look as if it had never been longer; raft ends a process
        // that has forgotten what it acknowledged.
        let handled = catch_unwind(AssertUnwindSafe(|| self.handle_event(event)));
        handled.unwrap_or_else(|_| {
            self.tell(|| format!("m{} ends for its damage", place + 1));
            self.members[place].is_lost = true;
            self.stop_member(place, wal::sim::Crash::KeepsAll, 1)
        })
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Wrong> {
        match event {
            Event::Turn(place, boot) if self.is_life(place, boot) => self.turn(place),
            Event::Tick(place, boot) if self.is_life(place, boot) => self.tick(place),
            Event::LogOp(place, boot, op) if self.is_life(place, boot) => {
                self.end_log_op(place, op)
            }
            Event::StoreOp(place, boot, op) if self.is_life(place, boot) => {
                self.end_store_op(place, op)
            }
            Event::Scan(place, boot, scan) if self.is_life(place, boot) => {
                self.end_scan(place, scan)
            }
            Event::Watch(place, boot) if self.is_life(place, boot) => self.tell_watchers(place),
            Event::Dismiss(place, boot) if self.is_life(place, boot) => self.dismiss(place),
            Event::Turn(..) | Event::Tick(..) | Event::LogOp(..) | Event::StoreOp(..) => Ok(()),
            Event::Scan(..) | Event::Watch(..) | Event::Dismiss(..) => Ok(()),
            Event::Stall(place) => self.stall(place),
            Event::Alarms => {
                self.lift_quota();
                Ok(())
            }
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

    /// A member that is held up goes on now, with all that has waited for it, in its order.
    pub fn wake(&mut self, place: Place) {
        let until = std::mem::take(&mut self.members[place].paused_until);
        let unread = std::mem::take(&mut self.members[place].unread_until);
        let now = self.now;
        if until <= now && unread.values().all(|read_at| *read_at <= now) {
            return;
        }
        let mut queue = std::mem::take(&mut self.queue).into_vec();
        for Reverse(queued) in &mut queue {
            let waits_until = match &queued.event {
                Event::Frame(frame) => unread.get(&frame.way.0).copied().or(Some(until)),
                _ => Some(until),
            };
            if Some(queued.at) == waits_until && queued.event.place() == Some(place) {
                queued.at = now;
            }
        }
        self.queue = queue.into();
    }

    fn start(&mut self, place: Place) -> Result<(), Wrong> {
        let member = &mut self.members[place];
        let is_over = member.is_lost || (member.is_dismissed && !self.is_calm);
        if member.running.is_some() || is_over {
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
            quota_bytes: self.plan.quota_bytes,
            pre_vote: self.plan.pre_vote,
            window: Window {
                entries_max: self.plan.window_entries,
                size_bytes_max: self.plan.window_size_bytes,
            },
        };
        let crashes_in_start = !self.is_calm && super::trouble::crashes_in_start(self);
        let ops = crashes_in_start.then(|| self.trouble.below(60));
        let member = &mut self.members[place];
        member.machine.fail_power_after(ops);
        member.machine.set_segment_size(self.plan.segment_size_bytes);
        let started = member.start(&boot);
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
        self.begin_watches(place)?;
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
        self.desks[place].end();
        self.members[place].may_fail = false;
        self.members[place].machine.forget_fault();
        self.members[place].paused_until = 0;
        self.members[place].unread_until.clear();
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
        self.desks[place].handle_tick(running.clock.at(now));
        let next = running.clock.takes(TICK_MICROS);
        self.at(now + next, Event::Tick(place, boot));
        self.soon(place);
        self.want_watch(place);
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
        self.note_role(place)?;
        self.look_at_quota(place)?;
        self.plan_turn(place);
        Ok(())
    }

    /// What a member is by now: the keeper of the leases' clocks, or no member any more.
    fn note_role(&mut self, place: Place) -> Result<(), Wrong> {
        let Some(running) = self.members[place].running.as_mut() else { return Ok(()) };
        let was_primary = std::mem::replace(&mut running.is_primary, running.core.is_primary());
        let is_new = running.is_primary && !was_primary;
        let removed = running.core.removed().to_vec();
        if running.core.is_removed() && !running.is_leaving {
            running.is_leaving = true;
            let linger = REMOVED_LINGER_ELECTIONS * ELECTION_TICKS as u64 * TICK_MICROS;
            let boot = self.members[place].boots;
            self.tell(|| format!("m{} was removed", place + 1));
            self.at(self.now + linger, Event::Dismiss(place, boot));
        }
        for id in removed {
            // It is to come again, and then it is told.
            let gone = self.members.iter().position(|member| member.id == id);
            if let Some(gone) = gone.filter(|gone| *gone != place) {
                self.break_link((gone, place))?;
            }
        }
        if is_new { self.prolong_all(place) } else { Ok(()) }
    }

    /// A member that was removed, or is told so, ends.
    fn dismiss(&mut self, place: Place) -> Result<(), Wrong> {
        self.tell(|| format!("m{} is dismissed", place + 1));
        let member = &mut self.members[place];
        (member.is_lost, member.is_dismissed) = (self.is_calm || member.is_dismissed, true);
        self.stop_member(place, wal::sim::Crash::KeepsAll, 1)
    }

    /// Who takes nothing for so long is held to be gone: connections to it end.
    fn stall(&mut self, place: Place) -> Result<(), Wrong> {
        if self.members[place].paused_until > self.now {
            for other in (0..self.members.len()).filter(|other| *other != place) {
                self.break_link((other, place))?;
            }
        }
        Ok(())
    }

    /// Who keeps the clocks of leases, as far as anybody knows.
    #[must_use]
    pub fn leader(&self) -> Option<Place> {
        let term = |place: &Place| {
            let running = self.members[*place].running.as_ref()?;
            running.core.is_primary().then(|| running.core.term())
        };
        (0..self.members.len()).filter(|place| term(place).is_some()).max_by_key(term)
    }

    /// A machine for a member that is yet to be added. It is started when a member names it.
    pub fn prepare_member(&mut self) -> MemberId {
        let id = MemberId(self.members.len() as u64 + 1);
        let machine = Machine::new(&mut self.boots);
        self.members.push(Member::new(id, machine, Origin::Joins));
        self.pending.push(BTreeMap::new());
        self.seen.push(Seen::NOTHING);
        self.watchers.push(Watcher::new());
        self.desks.push(WatchDesk::new(self.boots.split(id.0)));
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
