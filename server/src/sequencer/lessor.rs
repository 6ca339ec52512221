//! The lessor: the clocks of leases, which the leader keeps.
//!
//! What a lease is, and that it exists, is replicated state and reaches the lessor as
//! [`LeaseChange`]s in the order of the log. How long it still lives is known here alone, by the
//! leader's monotonic clock, and keep-alives never enter the log: they move an expiry. A lease that
//! has run out is proposed to be revoked ([`Lessor::poll_expired`]), and lives until that revoke is
//! applied. Moments are durations since any fixed moment before the first.
//!
//! The rules and rates are etcd's (`lease/lessor.go` of 3.7): a thousand revokes a second, asked
//! again after three seconds, a new leader grants every lease its time anew and spreads those that
//! would run out together. Here the thousand are taken fifty at a time, so that ten thousand leases
//! of one moment make no batch that writes would wait behind.
//!
//! Invariants:
//! - Nothing expires and nothing is renewed but under a leader.
//! - `due` holds each lease once while this is a leader, and nothing otherwise.
//! - One revoke of a lease is under way at a time: one that is proposed again while the first may
//!   yet be applied could meet another lease, granted under the same id in between.
//! - A renewal that finds its lease run out waits until the revoke has been applied or the leader
//!   has changed: it never brings a lease back that its owner may already have lost.

mod schedule;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use engine::ids::LeaseId;
use engine::lease::{Lease, LeaseChange};

use super::batch::Ticket;
use crate::mail::{LeaseReply, Renewed};
use schedule::Schedule;

/// Leases that are proposed to be revoked in one [`REVOKE_WINDOW`]: etcd's 1000 a second.
pub const REVOKES_PER_WINDOW: u32 = 50;
/// How long the leases of one step have to be revoked before the next step.
pub const REVOKE_WINDOW: Duration = Duration::from_millis(50);
/// Leases that may run out within a second before a new leader spreads them.
const PILE_UP_MIN: usize = 1000;
/// Expiries a second that it spreads them to, so that what piles up later finds room: etcd's three
/// quarters of the rate.
const SPREAD_PER_SECOND: f64 = 750.0;
/// When a revoke that was refused, or a note that was not applied, is proposed again.
const RETRY_AFTER: Duration = Duration::from_secs(3);
/// How often the time that long leases have left is noted in the log (etcd's default).
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// Leases whose time is noted by one command.
pub const CHECKPOINT_LEASES_MAX: usize = 1000;
/// Leases that a step of a list may look at: a fraction of a millisecond.
pub const LIST_STEP_LEASES: usize = 4096;

/// What flags say about leases.
#[derive(Debug, Clone, Copy)]
pub struct LessorConfig {
    /// No lease lives shorter: one and a half election timeouts, in whole seconds.
    pub ttl_min_seconds: i64,
    /// What a new leader adds to every lease, since keep-alives had nowhere to go meanwhile.
    pub extension: Duration,
    /// How often the time left is noted; `None` without the feature gate.
    pub checkpoint_interval: Option<Duration>,
}

/// How a renewal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lives so many seconds from now on.
    Renewed(i64),
    /// There is no such lease.
    Unknown,
    /// It will be answered through [`Lessor::poll_reply`].
    Waits,
    /// This member does not keep the clocks.
    NotPrimary,
}

/// Whose renewal it is: the answer's address, and its place among those of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewer {
    /// The stream.
    pub ticket: Ticket,
    /// Counts the stream's requests.
    pub sequence: u64,
}

#[derive(Debug)]
struct Held {
    ttl_seconds: i64,
    remaining_seconds: i64,
    /// When it runs out; only a leader's is worth anything.
    expiry: Duration,
    /// Its place in `due`: its expiry, or when its revoke is proposed again.
    due_at: Duration,
    /// Its revoke was proposed and may yet be applied.
    is_revoking: bool,
    listed: Listed,
}

impl Held {
    fn lifetime(&self) -> Duration {
        let seconds =
            if self.remaining_seconds > 0 { self.remaining_seconds } else { self.ttl_seconds };
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// A list of all leases in the making, of those that run out earlier before others.
///
/// Places of leases that were renewed or have ended meanwhile hold [`NO_LEASE`].
#[derive(Debug)]
struct Listing {
    number: u32,
    /// Where it goes on in `due`.
    cursor: (Duration, LeaseId),
    /// By the moment when they run out.
    ids: Vec<LeaseId>,
    /// Those that wait for their revoke, which stand in `due` by when it is looked at again.
    expired: Vec<(Duration, LeaseId)>,
}

/// The place of a lease in a list, and in which list.
#[derive(Debug, Clone, Copy, Default)]
struct Listed {
    number: u32,
    place: u32,
}

/// Nobody's id.
pub const NO_LEASE: LeaseId = LeaseId(0);
/// Marks a place among those that wait for their revoke.
const PLACE_EXPIRED: u32 = 1 << 31;

/// The clocks of all leases.
#[derive(Debug)]
pub struct Lessor {
    config: LessorConfig,
    is_primary: bool,
    leases: HashMap<LeaseId, Held>,
    due: BTreeSet<(Duration, LeaseId)>,
    /// When the time that is left is to be noted.
    notes: Schedule,
    /// When a note is to be wiped out because its lease was renewed.
    wipes: Schedule,
    /// By lease, so that they are answered in an order that is the same in each run.
    waiting: BTreeMap<LeaseId, Vec<Renewer>>,
    replies: Vec<(Ticket, LeaseReply)>,
    window_end: Duration,
    window_left: u32,
    listing: Option<Listing>,
    lists_begun: u32,
}

impl Lessor {
    /// Without leases, and no leader's.
    #[must_use]
    pub fn new(config: LessorConfig) -> Self {
        Self {
            config,
            is_primary: false,
            leases: HashMap::new(),
            due: BTreeSet::new(),
            notes: Schedule::default(),
            wipes: Schedule::default(),
            waiting: BTreeMap::new(),
            replies: Vec::new(),
            window_end: Duration::ZERO,
            window_left: REVOKES_PER_WINDOW,
            listing: None,
            lists_begun: 0,
        }
    }

    /// A lease that was there when this member started.
    pub fn restore(&mut self, lease: &Lease) {
        assert!(!self.is_primary, "leases are restored before there is a leader");
        self.leases.insert(lease.id, self.held(lease));
    }

    /// The store is another member's from now on: these are its leases, and no others.
    pub fn replace(&mut self, leases: &[Lease]) {
        assert!(!self.is_primary, "a leader's store is its own");
        self.leases.clear();
        self.listing = None;
        for lease in leases {
            self.restore(lease);
        }
    }

    /// What was applied, in the order of the log.
    pub fn handle_change(&mut self, change: &LeaseChange, now: Duration) {
        match change {
            LeaseChange::Granted(lease) => {
                let held = self.held(lease);
                self.leases.insert(lease.id, held);
                if self.is_primary {
                    self.refresh(lease.id, now, Duration::ZERO);
                    self.schedule_checkpoint(lease.id, now);
                }
            }
            LeaseChange::Revoked(id) => {
                if let Some(held) = self.leases.remove(id) {
                    self.due.remove(&(held.due_at, *id));
                    self.notes.remove(*id);
                    self.wipes.remove(*id);
                    if let Some(listing) = &mut self.listing {
                        listing.strike(held.listed);
                    }
                }
                for renewer in self.waiting.remove(id).into_iter().flatten() {
                    self.answer(renewer, Ok(0));
                }
            }
            LeaseChange::Noted(lease) => {
                let Some(held) = self.leases.get_mut(&lease.id) else { return };
                held.remaining_seconds = lease.remaining_seconds;
                if !self.is_primary {
                    return;
                }
                // What is proposed in case that this one is refused is settled.
                self.notes.remove(lease.id);
                self.schedule_checkpoint(lease.id, now);
                if lease.remaining_seconds == 0 {
                    self.wipes.remove(lease.id);
                    self.renew_waiting(lease.id, now);
                }
            }
        }
    }

    /// This member leads from now on, and all that was acknowledged before is applied.
    pub fn promote(&mut self, now: Duration) {
        assert!(!self.is_primary, "a leader is promoted once");
        self.is_primary = true;
        // In an order of their own: a simulated run has to be the same each time, whatever comes to
        // hang on it.
        let mut ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        ids.sort_unstable();
        for &id in &ids {
            self.refresh(id, now, self.config.extension);
            self.schedule_checkpoint(id, now);
        }
        if ids.len() >= PILE_UP_MIN {
            self.spread(now);
        }
    }

    /// This member leads no more: its clocks mean nothing.
    pub fn demote(&mut self) {
        self.is_primary = false;
        self.due.clear();
        self.notes.clear();
        self.wipes.clear();
        self.listing = None;
        for held in self.leases.values_mut() {
            // What was proposed under this leader's term does nothing under another's.
            held.is_revoking = false;
        }
        for (_, renewers) in std::mem::take(&mut self.waiting) {
            for renewer in renewers {
                self.answer(renewer, Err(()));
            }
        }
    }

    /// What a new leader adds to every lease: about an election's time.
    #[must_use]
    pub fn extension(&self) -> Duration {
        self.config.extension
    }

    /// Whether this member keeps the clocks.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.is_primary
    }

    /// Whether there is a lease with the id.
    #[must_use]
    pub fn knows(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// A keep-alive.
    pub fn renew(&mut self, id: LeaseId, renewer: Renewer, now: Duration) -> Renewal {
        if !self.is_primary {
            return Renewal::NotPrimary;
        }
        let Some(held) = self.leases.get(&id) else { return Renewal::Unknown };
        let is_noted = self.config.checkpoint_interval.is_some() && held.remaining_seconds > 0;
        let ttl_seconds = held.ttl_seconds;
        if held.expiry <= now || is_noted {
            // A note that a renewal has made wrong is wiped out first: the next leader would hold
            // the lease for its rest only.
            if is_noted && held.expiry > now && !self.wipes.has(id) {
                self.wipes.set(id, now);
            }
            self.waiting.entry(id).or_default().push(renewer);
            return Renewal::Waits;
        }
        self.prolong(id, now);
        Renewal::Renewed(ttl_seconds)
    }

    /// How long a lease has left and how long it was granted for, in seconds; what has run out and
    /// is not revoked yet has less than nothing left.
    #[must_use]
    pub fn time_to_live(&self, id: LeaseId, now: Duration) -> Option<(i64, i64)> {
        let held = self.leases.get(&id)?;
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let left = match held.expiry.checked_sub(now) {
            Some(left) => seconds(left),
            None => -seconds(now.saturating_sub(held.expiry)),
        };
        Some((left, held.ttl_seconds))
    }

    /// Takes a list of all leases further, by [`LIST_STEP_LEASES`] at most, or begins one; gives it
    /// when it is complete. Leases that run out earlier stand before others; where there is
    /// [`NO_LEASE`], there is none.
    pub fn step_list(&mut self) -> Option<Vec<LeaseId>> {
        let Self { leases, due, .. } = self;
        if !self.is_primary {
            self.listing = None;
            // Nobody knows which of them runs out first.
            let mut ids: Vec<LeaseId> = leases.keys().copied().collect();
            ids.sort_unstable();
            return Some(ids);
        }
        let listing = self.listing.get_or_insert_with(|| {
            self.lists_begun = self.lists_begun.wrapping_add(1);
            Listing {
                number: self.lists_begun,
                cursor: (Duration::ZERO, LeaseId(i64::MIN)),
                ids: Vec::with_capacity(leases.len()),
                expired: Vec::new(),
            }
        });
        let mut rest = due.range(listing.cursor..);
        for &(due_at, id) in rest.by_ref().take(LIST_STEP_LEASES) {
            let held = leases.get_mut(&id).expect("what is due exists");
            listing.enter(id, held, due_at);
        }
        if let Some(&next) = rest.next() {
            listing.cursor = next;
            return None;
        }
        let Listing { ids, mut expired, .. } = self.listing.take()?;
        if expired.is_empty() {
            return Some(ids);
        }
        expired.sort();
        Some(expired.iter().map(|(_, id)| *id).chain(ids).collect())
    }

    /// The next lease to revoke: it has run out, and its turn has come. How that ended is to be
    /// told, unless it was applied: [`Self::handle_revoke_ended`].
    pub fn poll_expired(&mut self, now: Duration) -> Option<LeaseId> {
        loop {
            let &(at, id) = self.due.first().filter(|first| first.0 <= now)?;
            let held = self.leases.get_mut(&id).expect("what is due exists");
            if !held.is_revoking {
                if now >= self.window_end {
                    self.window_end = now + REVOKE_WINDOW;
                    self.window_left = REVOKES_PER_WINDOW;
                }
                self.window_left = self.window_left.checked_sub(1)?;
            }
            self.due.remove(&(at, id));
            held.due_at = now + RETRY_AFTER;
            self.due.insert((held.due_at, id));
            if !std::mem::replace(&mut held.is_revoking, true) {
                return Some(id);
            }
        }
    }

    /// The revoke of a lease will not be applied any more, or was. If the lease is still there it
    /// is proposed again.
    pub fn handle_revoke_ended(&mut self, id: LeaseId) {
        if let Some(held) = self.leases.get_mut(&id) {
            held.is_revoking = false;
        }
    }

    /// Leases whose time left is to be noted in the log now, [`CHECKPOINT_LEASES_MAX`] at most.
    pub fn poll_checkpoints(&mut self, now: Duration) -> Vec<(LeaseId, i64)> {
        let mut noted = Vec::new();
        while noted.len() < CHECKPOINT_LEASES_MAX
            && let Some(id) = self.wipes.pop_due(now)
        {
            // Once it has run out, it is the revoke that its renewals wait for.
            if self.leases.get(&id).is_some_and(|held| held.expiry > now) {
                noted.push((id, 0));
                self.wipes.set(id, now + RETRY_AFTER);
            }
        }
        while noted.len() < CHECKPOINT_LEASES_MAX
            && let Some(id) = self.notes.pop_due(now)
        {
            let Some(held) = self.leases.get(&id).filter(|held| held.expiry > now) else {
                continue;
            };
            let left = held.expiry.saturating_sub(now);
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            if seconds < held.ttl_seconds {
                noted.push((id, seconds));
                // When it is applied it has its next turn; if it is refused, it has this one.
                self.notes.set(id, now + RETRY_AFTER);
            } else {
                // It was renewed a moment ago; etcd looks at it again only after its next note,
                // and so never. Here it stays on the list.
                self.schedule_checkpoint(id, now);
            }
        }
        noted
    }

    /// The next renewal that has waited for its answer.
    pub fn poll_reply(&mut self) -> Option<(Ticket, LeaseReply)> {
        self.replies.pop()
    }

    /// When there is something to revoke or to note.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let is_spent = self.window_left == 0;
        let revoke = self
            .due
            .first()
            .map(|first| if is_spent { first.0.max(self.window_end) } else { first.0 });
        [revoke, self.notes.first_at(), self.wipes.first_at()].into_iter().flatten().min()
    }

    fn held(&self, lease: &Lease) -> Held {
        Held {
            ttl_seconds: lease.ttl_seconds.max(self.config.ttl_min_seconds),
            remaining_seconds: lease.remaining_seconds,
            expiry: Duration::MAX,
            due_at: Duration::MAX,
            is_revoking: false,
            listed: Listed::default(),
        }
    }

    /// Renews. What a new leader has added is not taken back: the one before may not know yet that
    /// it leads no more, and may renew the same lease after this.
    fn prolong(&mut self, id: LeaseId, now: Duration) {
        let extended = now + self.config.extension;
        let held = &self.leases[&id];
        let left = held.expiry.saturating_sub(held.lifetime());
        self.refresh(id, left.clamp(now, extended), Duration::ZERO);
    }

    fn refresh(&mut self, id: LeaseId, now: Duration, extension: Duration) {
        let held = self.leases.get_mut(&id).expect("only what exists is refreshed");
        self.due.remove(&(held.due_at, id));
        held.expiry = (now + extension).saturating_add(held.lifetime());
        held.due_at = held.expiry;
        self.due.insert((held.due_at, id));
    }

    fn schedule_checkpoint(&mut self, id: LeaseId, now: Duration) {
        let Some(interval) = self.config.checkpoint_interval else { return };
        if self.leases[&id].lifetime() > interval {
            self.notes.set(id, now + interval);
        }
    }

    fn renew_waiting(&mut self, id: LeaseId, now: Duration) {
        // It ran out while its note was on the way: then it is the revoke that they wait for.
        if self.leases[&id].expiry <= now {
            return;
        }
        let Some(renewers) = self.waiting.remove(&id) else { return };
        self.prolong(id, now);
        let ttl_seconds = self.leases[&id].ttl_seconds;
        for renewer in renewers {
            self.answer(renewer, Ok(ttl_seconds));
        }
    }

    fn answer(&mut self, renewer: Renewer, ttl_seconds: Result<i64, ()>) {
        let Renewer { ticket, sequence } = renewer;
        let renewed = match ttl_seconds {
            Ok(ttl_seconds) => Renewed::Lives { ttl_seconds },
            Err(()) => Renewed::NotPrimary,
        };
        self.replies.push((ticket, LeaseReply::Renewed { sequence, renewed }));
    }

    /// Moves expiries of leases that would run out within the same second apart, as etcd does it:
    /// what is beyond the target of a window is put behind it, in proportion to how far beyond.
    fn spread(&mut self, now: Duration) {
        let in_order: Vec<(Duration, LeaseId)> = self.due.iter().copied().collect();
        let Some(first) = in_order.first() else { return };
        let remaining = |expiry: Duration| expiry.saturating_sub(now);
        let mut window_begin = remaining(first.0);
        let mut window_end = window_begin + Duration::from_secs(1);
        let mut expiries = 0.0;
        for &(expiry, id) in &in_order {
            let left = remaining(expiry);
            if left > window_end {
                window_begin = left;
                window_end = window_begin + Duration::from_secs(1);
                expiries = 1.0;
                continue;
            }
            expiries += 1.0;
            if expiries <= SPREAD_PER_SECOND {
                continue;
            }
            let behind = Duration::from_secs_f64(expiries / SPREAD_PER_SECOND);
            let delay = behind.saturating_sub(left - window_begin);
            window_end = window_begin + delay;
            self.refresh(id, now, self.config.extension + delay);
        }
    }
}

impl Listing {
    fn enter(&mut self, id: LeaseId, held: &mut Held, due_at: Duration) {
        // It may have been renewed, or its revoke proposed, since the list came past it.
        self.strike(held.listed);
        let waits = due_at != held.expiry;
        let len = if waits { self.expired.len() } else { self.ids.len() };
        let place = u32::try_from(len).expect("memory ends before 2^31 leases do");
        assert!(place < PLACE_EXPIRED, "{place} leases in a list");
        held.listed = Listed { number: self.number, place };
        if waits {
            held.listed.place |= PLACE_EXPIRED;
            self.expired.push((held.expiry, id));
        } else {
            self.ids.push(id);
        }
    }

    /// A lease does not stand there any more.
    fn strike(&mut self, listed: Listed) {
        let place = (listed.place & !PLACE_EXPIRED) as usize;
        if listed.number != self.number {
            return;
        }
        if listed.place & PLACE_EXPIRED == 0 {
            self.ids[place] = NO_LEASE;
        } else {
            self.expired[place].1 = NO_LEASE;
        }
    }
}

#[cfg(test)]
mod tests;
