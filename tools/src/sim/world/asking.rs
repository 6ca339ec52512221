//! What members have published and what they answer: held against each other, and told to clients.

use engine::ids::LeaseId;
use server::mail::{Ask, LeaseReply, Renewed, Slot, Verdict};

use super::{Asked, Event, LeaseKnown, PATIENCE_MICROS, Pending, World};
use crate::oracle::history::{Answer, OpId, Operation, Request, writer_of};
use crate::sim::clients::{self, Wish};
use crate::sim::member::{Clock, FRONTEND};
use crate::sim::network::Place;
use crate::sim::trouble::SOCKETS_READ_MICROS;
use crate::sim::witness::Wrong;

/// How long clients think at most that take their time.
const SLOW_MICROS: u64 = 2_000_000;

/// A client waits so long at most for a member that is held up.
const WAIT_MICROS_MAX: u64 = 2_000_000;

impl World {
    pub(super) fn look_at(&mut self, place: Place) -> Result<(), Wrong> {
        let (newest, id) = (self.witness.chronicle().newest(), self.members[place].id);
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
        for revision in newest + 1..=self.witness.chronicle().newest() {
            self.take_revision(revision)?;
        }
        Ok(())
    }

    /// A revision is there for the first time: a lease that it ends may not be one that lives.
    pub(super) fn take_revision(&mut self, revision: i64) -> Result<(), Wrong> {
        self.note(revision.cast_unsigned());
        for change in self.witness.chronicle().changes_of(revision) {
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
            if let Some(value) = &change.value
                && let Some(id) = writer_of(value)
                && !self.sizes.is_whole(id, value)
            {
                return Err(format!(
                    "revision {revision} has a value that nobody wrote: {change:?}"
                ));
            }
            self.state.apply(change);
        }
        Ok(())
    }

    pub(super) fn take_replies(&mut self, place: Place) -> Result<(), Wrong> {
        let running = self.members[place].running.as_mut().expect("it lives");
        let reply = std::mem::take(running.core.reply(FRONTEND));
        if !reply.is_empty() {
            running.idle_turns = 0;
        }
        let is_news = self.desks[place].handle_reply(&reply.events, reply.gap);
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
        if is_news {
            self.want_watch(place);
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

    pub(super) fn ask(&mut self, number: usize, turn: u64) -> Result<(), Wrong> {
        if !self.clients_ask || self.clients[number].turn != turn {
            return Ok(());
        }
        let (members, newest) = (self.members.len(), self.witness.chronicle().newest());
        let think_micros = self.plan.think_micros;
        let client = &mut self.clients[number];
        if let Some(place) = client.waits_for_member.take()
            && self.members[place].is_active(self.now)
        {
            let wish = client.wish_to_know();
            client.place = place;
            return self.put_question(number, place, wish);
        }
        let wish = client.wish(members, newest, self.plan.habits);
        let place = client.place;
        let is_paused = |place: &Place| {
            let until = self.members[*place].paused_until;
            until > self.now && until - self.now < WAIT_MICROS_MAX
        };
        if let Some(paused) = (0..members).find(is_paused)
            && self.delays.once_in(2)
        {
            // It asks as soon as anybody listens: who goes on does not know yet what the others
            // have done.
            self.clients[number].waits_for_member = Some(paused);
            let listens_at = self.members[paused].paused_until;
            let asked_at = listens_at + self.delays.below(SOCKETS_READ_MICROS);
            self.at(asked_at, Event::Client(number, turn));
            return Ok(());
        }
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
                        let is_put = matches!(request, Request::Put { .. });
                        let size_bytes = if is_put { self.sizes.next(id) } else { 0 };
                        clients::push(request, id, size_bytes, &mut ask.frames);
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
    pub(super) fn settle(&mut self, pending: &Pending) {
        let client = self.clients.get(pending.client);
        if client.is_some_and(|client| client.waits_for == Some(pending.question)) {
            self.go_on(pending.client, self.plan.think_micros);
        }
    }

    /// A client asks something else after some thought.
    pub(super) fn go_on(&mut self, number: usize, think_micros: u64) {
        let think_micros = if self.is_slow { SLOW_MICROS } else { think_micros };
        let client = &mut self.clients[number];
        client.waits_for = None;
        client.turn += 1;
        let (pause, turn) = (client.think(think_micros), client.turn);
        self.at(self.now + pause, Event::Client(number, turn));
    }

    pub(super) fn finish_operation(&mut self, client: usize, operation: usize, answer: Answer) {
        let now = self.now;
        self.tell(|| format!("c{client} is told: {operation} {answer:?}"));
        let operation = &mut self.history[operation];
        self.clients[client].handle_answer(&operation.request, &answer);
        operation.answered = Some((now, answer));
    }

    pub(super) fn handle_verdict(
        &mut self,
        place: Place,
        slot: Slot,
        verdict: Verdict,
    ) -> Result<(), Wrong> {
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

    pub(super) fn handle_read(&mut self, place: Place, slot: Slot) -> Result<(), Wrong> {
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

    pub(super) fn handle_lease_reply(&mut self, place: Place, slot: Slot, reply: &LeaseReply) {
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

    /// A new leader gives every lease its time anew: none may end before, whoever saw it run out
    /// in an earlier term.
    pub(super) fn prolong_all(&mut self, place: Place) -> Result<(), Wrong> {
        let Some(running) = self.members[place].running.as_mut() else { return Ok(()) };
        let mut leases = Vec::new();
        let listed = running.reader.pin().leases(LeaseId(0), usize::MAX, &mut leases);
        listed.map_err(|error| format!("m{}: leases cannot be read: {error}", place + 1))?;
        self.tell(|| format!("m{} keeps the clocks of {} leases", place + 1, leases.len()));
        let now = self.now;
        for lease in leases {
            self.prolong(lease.id, lease.ttl_seconds, now);
        }
        Ok(())
    }

    /// A lease was granted or renewed for so long, at the earliest when that was asked; whoever
    /// keeps its time may have the fastest clock.
    pub(super) fn prolong(&mut self, id: LeaseId, ttl_seconds: i64, asked_at: u64) {
        let ttl_micros = ttl_seconds.cast_unsigned() * 1_000_000;
        let fastest = Clock::RATE_RIGHT + self.plan.clock_skew;
        let safe_until = asked_at + ttl_micros * Clock::RATE_RIGHT / fastest;
        let known = self.leases.entry(id).or_insert(LeaseKnown { ttl_seconds, safe_until: 0 });
        known.safe_until = known.safe_until.max(safe_until);
    }
}
