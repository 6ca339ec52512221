//! Leases on the log core: the lessor between raft, the engine and the front-ends.
//!
//! Invariants:
//! - The clocks run only while this member leads and has applied all that was acknowledged before.
//! - A question about a lease that is not known waits until everything committed is applied: the
//!   lease may just have been granted.
//! - Nothing is renewed after a pause as long as an election, or after the last connections to a
//!   majority have ended, before this member knows that it still leads: another one may have led
//!   meanwhile, and revoked.
//! - Questions of one stream are answered in their order, but for renewals that wait for a revoke.
//! - What has run out rides with a batch of clients' where one comes soon: alone it would take a
//!   sync that the next write has to wait for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine::FrameWriter;
use engine::command::{LeaseRemaining, LeaseRevokeRef};
use engine::ids::LeaseId;
use engine::lease::{Lease, LeaseChange};

use super::{LogCore, SLOT_CONFIRMATION};
use crate::mail::{FrontendId, LeaseAsk, LeaseReply, Renewed, Slot, Unavailable};
use crate::sequencer::batch::Ticket;
use crate::sequencer::lessor::{Lessor, LessorConfig, Renewal, Renewer};

/// Questions that one turn answers: a renewal costs less than a microsecond.
const ASKS_PER_TURN_MAX: usize = 4096;
/// The ticket of a note of the time that leases have left; how it ends is known by its being
/// applied or not. Those of revokes count from 0.
const SLOT_NOTES: Slot = Slot(u32::MAX - 4);

/// How long revokes wait for a batch to ride with: nothing beside the second that leases count in.
const RIDE_MAX: Duration = Duration::from_millis(10);

/// Commands that wait for a batch to ride with.
#[derive(Default)]
struct Riders {
    frames: Vec<u8>,
    slots: Vec<Slot>,
    /// When they go alone.
    until: Duration,
}

/// The lessor with the questions that wait for it.
pub(super) struct Leases {
    lessor: Lessor,
    asks: VecDeque<(Ticket, LeaseAsk)>,
    /// Who gets the list that is being made: all that had asked when it was begun.
    list: Vec<Ticket>,
    /// Who gets the next one.
    lists: Vec<Ticket>,
    /// The leases of the revokes that are under way, by their slots.
    revokes: Vec<Option<LeaseId>>,
    revokes_free: Vec<u32>,
    writer: FrameWriter,
    riders: Riders,
    /// Answers of the turn, kept for its memory.
    told: Vec<(Ticket, LeaseReply)>,
    /// Whether this member knows that it leads, as far as the time that passed tells.
    is_confirmed: bool,
    /// Questions were left because what is committed had to be applied first, or for the next turn.
    is_behind: bool,
}

impl Leases {
    pub(super) fn new(config: LessorConfig, leases: &[Lease]) -> Self {
        let mut lessor = Lessor::new(config);
        for lease in leases {
            lessor.restore(lease);
        }
        Self {
            lessor,
            asks: VecDeque::new(),
            list: Vec::new(),
            lists: Vec::new(),
            revokes: Vec::new(),
            revokes_free: Vec::new(),
            writer: FrameWriter::new(),
            riders: Riders::default(),
            told: Vec::new(),
            is_confirmed: true,
            is_behind: false,
        }
    }

    /// A majority has said since the pause that this member leads.
    pub(super) fn handle_confirmed(&mut self) {
        self.is_confirmed = true;
    }

    pub(super) fn handle_ask(&mut self, ticket: Ticket, ask: LeaseAsk) {
        self.asks.push_back((ticket, ask));
    }

    pub(super) fn handle_changes(&mut self, changes: &[LeaseChange], now: Duration) {
        for change in changes {
            self.lessor.handle_change(change, now);
        }
    }

    /// The store is another member's from now on: these are its leases.
    pub(super) fn handle_installed(&mut self, leases: &[Lease]) {
        self.lessor.replace(leases);
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        let riders = (!self.riders.slots.is_empty()).then_some(self.riders.until);
        [self.lessor.wake_at(), riders].into_iter().flatten().min()
    }

    /// Whether a further turn goes on at once.
    pub(super) fn has_work(&self) -> bool {
        self.is_behind || !self.list.is_empty() || !self.lists.is_empty()
    }

    /// Whether there is a question to which only what is not applied yet may have the answer.
    fn needs_applied(&self, ask: LeaseAsk) -> bool {
        match ask {
            LeaseAsk::Renew { id, .. } | LeaseAsk::TimeToLive(id) => !self.lessor.knows(id),
            LeaseAsk::List => false,
        }
    }

    fn answer(&mut self, ticket: Ticket, ask: LeaseAsk, now: Duration) -> Option<LeaseReply> {
        match ask {
            LeaseAsk::Renew { id, sequence } => {
                let renewed = match self.lessor.renew(id, Renewer { ticket, sequence }, now) {
                    Renewal::Renewed(ttl_seconds) => Renewed::Lives { ttl_seconds },
                    Renewal::Unknown => Renewed::Lives { ttl_seconds: 0 },
                    Renewal::NotPrimary => Renewed::NotPrimary,
                    Renewal::Waits => return None,
                };
                Some(LeaseReply::Renewed { sequence, renewed })
            }
            LeaseAsk::TimeToLive(_) if !self.lessor.is_primary() => {
                Some(LeaseReply::Unavailable(Unavailable::LeaderChanged))
            }
            LeaseAsk::TimeToLive(id) => {
                Some(LeaseReply::TimeToLive(self.lessor.time_to_live(id, now)))
            }
            LeaseAsk::List => {
                self.lists.push(ticket);
                None
            }
        }
    }

    /// Takes the list that is wanted further; who gets it, if it is complete.
    fn step_list(&mut self) -> Option<(Vec<Ticket>, LeaseReply)> {
        if self.list.is_empty() {
            std::mem::swap(&mut self.list, &mut self.lists);
        }
        if self.list.is_empty() {
            return None;
        }
        let list = self.lessor.step_list()?;
        Some((std::mem::take(&mut self.list), LeaseReply::List(Arc::new(list))))
    }

    fn slot_for(&mut self, id: LeaseId) -> Slot {
        let place = self.revokes_free.pop().unwrap_or_else(|| {
            self.revokes.push(None);
            u32::try_from(self.revokes.len() - 1).expect("revokes are few at a time")
        });
        self.revokes[place as usize] = Some(id);
        Slot(place)
    }

    /// A proposal of the member's own has ended, applied or not.
    pub(super) fn handle_own(&mut self, slot: Slot) {
        let Some(id) = self.revokes.get_mut(slot.0 as usize).and_then(Option::take) else { return };
        self.revokes_free.push(slot.0);
        self.lessor.handle_revoke_ended(id);
    }
}

impl LogCore {
    /// Keeps the clocks while this member leads, and proposes what has run out.
    pub(super) fn revoke_expired(&mut self, now: Duration) {
        // Who does not lead renews nothing, and who comes to lead knows it.
        self.leases.is_confirmed |= !self.consensus.is_leader();
        let keeps_clocks = self.is_primary() && !self.stopping;
        match (keeps_clocks, self.leases.lessor.is_primary()) {
            (true, false) => self.leases.lessor.promote(now),
            (false, true) => self.leases.lessor.demote(),
            _ => {}
        }
        if keeps_clocks && self.leases.lessor.wake_at().is_some_and(|at| at <= now) {
            self.take_expired(now);
        }
        let Riders { slots, until, .. } = &self.leases.riders;
        // Who keeps no clocks has its revokes refused at once.
        if !slots.is_empty() && (!keeps_clocks || *until <= now || self.batcher.has_waiting()) {
            let Riders { frames, slots, .. } = std::mem::take(&mut self.leases.riders);
            self.batcher.handle_commands(FrontendId::NOBODY, &frames, &slots);
        }
    }

    /// Time has passed since the last tick; whether it was more than a tick's.
    pub(super) fn notice_pause(&mut self, now: Duration) {
        let pause = now.saturating_sub(self.ticked);
        let is_late = pause > 2 * self.heartbeat_interval && !self.ticked.is_zero();
        if is_late && self.consensus.is_leader() {
            self.meter.handle_heartbeats_late(self.consensus.followers().count());
        }
        if pause >= self.leases.lessor.extension() && !self.ticked.is_zero() {
            self.doubt_leading(now);
        }
    }

    /// Another member may lead by now.
    pub(super) fn doubt_leading(&mut self, now: Duration) {
        if self.consensus.is_leader() && !self.consensus.is_sole_voter() {
            self.leases.is_confirmed = false;
            self.ask_whether_leading(now);
        }
    }

    /// A read-index round that nobody reads after: a majority answers it to a leader alone.
    pub(super) fn ask_whether_leading(&mut self, now: Duration) {
        if !self.leases.is_confirmed && !self.stopping {
            let ticket = Ticket { frontend: FrontendId::NOBODY, slot: SLOT_CONFIRMATION };
            self.reads.handle_read(ticket, now);
        }
    }

    fn take_expired(&mut self, now: Duration) {
        let term = self.consensus.term();
        let Riders { mut frames, mut slots, until } = std::mem::take(&mut self.leases.riders);
        let until = if slots.is_empty() { now + RIDE_MAX } else { until };
        let taken_before = slots.len();
        while let Some(id) = self.leases.lessor.poll_expired(now) {
            let revoke = LeaseRevokeRef { id, expired_in: Some(term) };
            self.leases.writer.push_lease_revoke(&mut frames, revoke);
            slots.push(self.leases.slot_for(id));
        }
        self.meter.handle_leases_expired((slots.len() - taken_before) as u64);
        let noted = self.leases.lessor.poll_checkpoints(now);
        if !noted.is_empty() {
            let remaining = |&(id, remaining_seconds): &_| LeaseRemaining { id, remaining_seconds };
            let noted: Vec<_> = noted.iter().map(remaining).collect();
            self.leases.writer.push_lease_checkpoint(&mut frames, &noted);
            slots.push(SLOT_NOTES);
        }
        self.leases.riders = Riders { frames, slots, until };
    }

    /// Answers what was asked about leases, once what was committed before is applied.
    pub(super) fn answer_leases(&mut self, now: Duration) {
        // With the followers' disks faster than this one's, raft knows of more than it hands out,
        // and a follower that has applied it may be the one who asks.
        let has_queue = self.applying.is_some() || !self.committed.is_empty();
        let is_applied = !has_queue && self.engine.applied().0 >= self.consensus.committed();
        let leases = &mut self.leases;
        leases.is_behind = false;
        let mut told = std::mem::take(&mut leases.told);
        let mut renewed = 0;
        for _ in 0..ASKS_PER_TURN_MAX {
            let Some(&(ticket, ask)) = leases.asks.front() else { break };
            if !is_applied && leases.needs_applied(ask) {
                break;
            }
            if !leases.is_confirmed && ask != LeaseAsk::List {
                break;
            }
            leases.asks.pop_front();
            if let Some(answer) = leases.answer(ticket, ask, now) {
                renewed += u64::from(answer.is_renewal());
                told.push((ticket, answer));
            }
        }
        self.meter.handle_leases_renewed(renewed);
        // What waits for an apply is looked at again by the turn that ends it.
        leases.is_behind = is_applied && leases.is_confirmed && !leases.asks.is_empty();
        if let Some((tickets, answer)) = leases.step_list() {
            told.extend(tickets.into_iter().map(|ticket| (ticket, answer.clone())));
        }
        while let Some(answer) = leases.lessor.poll_reply() {
            told.push(answer);
        }
        for (ticket, answer) in told.drain(..) {
            self.tell_lease(ticket, answer);
        }
        self.leases.told = told;
    }

    /// Sends away who waits.
    pub(super) fn stop_leases(&mut self) {
        let leases = &mut self.leases;
        if leases.lessor.is_primary() {
            leases.lessor.demote();
        }
        let lists = leases.list.drain(..).chain(leases.lists.drain(..));
        let asked = leases.asks.drain(..).chain(lists.map(|ticket| (ticket, LeaseAsk::List)));
        let asked: Vec<_> = asked.collect();
        for (ticket, ask) in asked {
            self.tell_lease(ticket, ask.refused(Unavailable::Stopped));
        }
    }
}
