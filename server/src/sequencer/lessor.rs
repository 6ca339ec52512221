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
//! - A renewal that finds its lease run out waits until the revoke has been applied or the leader
//!   has changed: it never brings a lease back that its owner may already have lost.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use engine::ids::LeaseId;
use engine::lease::{Lease, LeaseChange};

use super::batch::Ticket;
use crate::mail::{LeaseReply, Renewed};

/// Leases that are proposed to be revoked in one [`REVOKE_WINDOW`]: etcd's 1000 a second.
pub const REVOKES_PER_WINDOW: u32 = 50;
/// How long the leases of one step have to be revoked before the next step.
pub const REVOKE_WINDOW: Duration = Duration::from_millis(50);
/// Leases that may run out within a second before a new leader spreads them.
const PILE_UP_MIN: usize = 1000;
/// Expiries a second that it spreads them to, so that what piles up later finds room: etcd's three
/// quarters of the rate.
const SPREAD_PER_SECOND: f64 = 750.0;
/// When a proposed revoke that was not applied is proposed again.
const REVOKE_RETRY_AFTER: Duration = Duration::from_secs(3);
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
}

impl Held {
    fn lifetime(&self) -> Duration {
        let seconds =
            if self.remaining_seconds > 0 { self.remaining_seconds } else { self.ttl_seconds };
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// Where a list goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListCursor(Duration, LeaseId);

impl ListCursor {
    /// The beginning.
    pub const START: Self = Self(Duration::ZERO, LeaseId(i64::MIN));
}

/// The clocks of all leases.
#[derive(Debug)]
pub struct Lessor {
    config: LessorConfig,
    is_primary: bool,
    leases: HashMap<LeaseId, Held>,
    due: BTreeSet<(Duration, LeaseId)>,
    checkpoints: BTreeSet<(Duration, LeaseId)>,
    /// Leases whose note is to be wiped out because they were renewed.
    wiped: Vec<LeaseId>,
    waiting: HashMap<LeaseId, Vec<Renewer>>,
    replies: Vec<(Ticket, LeaseReply)>,
    window_end: Duration,
    window_left: u32,
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
            checkpoints: BTreeSet::new(),
            wiped: Vec::new(),
            waiting: HashMap::new(),
            replies: Vec::new(),
            window_end: Duration::ZERO,
            window_left: REVOKES_PER_WINDOW,
        }
    }

    /// A lease that was there when this member started.
    pub fn restore(&mut self, lease: &Lease) {
        assert!(!self.is_primary, "leases are restored before there is a leader");
        self.leases.insert(lease.id, self.held(lease));
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
                self.schedule_checkpoint(lease.id, now);
                if lease.remaining_seconds == 0 {
                    self.renew_waiting(lease.id, now);
                }
            }
        }
    }

    /// This member leads from now on, and all that was acknowledged before is applied.
    pub fn promote(&mut self, now: Duration) {
        assert!(!self.is_primary, "a leader is promoted once");
        self.is_primary = true;
        let ids: Vec<LeaseId> = self.leases.keys().copied().collect();
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
        self.checkpoints.clear();
        self.wiped.clear();
        for (_, renewers) in std::mem::take(&mut self.waiting) {
            for renewer in renewers {
                self.answer(renewer, Err(()));
            }
        }
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
            if is_noted && held.expiry > now {
                self.wiped.push(id);
            }
            self.waiting.entry(id).or_default().push(renewer);
            return Renewal::Waits;
        }
        self.refresh(id, now, Duration::ZERO);
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

    /// Some leases, roughly in the order in which they run out, each with that moment. A lease that
    /// is renewed between two steps may come twice; then its last place counts.
    pub fn list_step(
        &self,
        cursor: ListCursor,
        out: &mut Vec<(Duration, LeaseId)>,
    ) -> Option<ListCursor> {
        if !self.is_primary {
            out.extend(self.leases.keys().map(|&id| (Duration::MAX, id)));
            return None;
        }
        let mut rest = self.due.range((cursor.0, cursor.1)..);
        for &(_, id) in rest.by_ref().take(LIST_STEP_LEASES) {
            out.push((self.leases[&id].expiry, id));
        }
        rest.next().map(|&(at, id)| ListCursor(at, id))
    }

    /// The next lease to revoke: it has run out, and its turn has come.
    pub fn poll_expired(&mut self, now: Duration) -> Option<LeaseId> {
        let &(at, id) = self.due.first().filter(|first| first.0 <= now)?;
        if now >= self.window_end {
            self.window_end = now + REVOKE_WINDOW;
            self.window_left = REVOKES_PER_WINDOW;
        }
        self.window_left = self.window_left.checked_sub(1)?;
        self.due.remove(&(at, id));
        let due_at = now + REVOKE_RETRY_AFTER;
        self.due.insert((due_at, id));
        self.leases.get_mut(&id).expect("what is due exists").due_at = due_at;
        Some(id)
    }

    /// Leases whose time left is to be noted in the log now, [`CHECKPOINT_LEASES_MAX`] at most.
    pub fn poll_checkpoints(&mut self, now: Duration) -> Vec<(LeaseId, i64)> {
        let mut noted: Vec<_> = self.wiped.drain(..).map(|id| (id, 0)).collect();
        while noted.len() < CHECKPOINT_LEASES_MAX
            && let Some(&(at, id)) = self.checkpoints.first().filter(|first| first.0 <= now)
        {
            self.checkpoints.remove(&(at, id));
            let Some(held) = self.leases.get(&id).filter(|held| held.expiry > now) else {
                continue;
            };
            let left = held.expiry.saturating_sub(now);
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            if seconds < held.ttl_seconds {
                noted.push((id, seconds));
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
        let note = self.checkpoints.first().map(|first| first.0);
        let wipe = (!self.wiped.is_empty()).then_some(Duration::ZERO);
        [revoke, note, wipe].into_iter().flatten().min()
    }

    fn held(&self, lease: &Lease) -> Held {
        Held {
            ttl_seconds: lease.ttl_seconds.max(self.config.ttl_min_seconds),
            remaining_seconds: lease.remaining_seconds,
            expiry: Duration::MAX,
            due_at: Duration::MAX,
        }
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
            self.checkpoints.insert((now + interval, id));
        }
    }

    fn renew_waiting(&mut self, id: LeaseId, now: Duration) {
        // It ran out while its note was on the way: then it is the revoke that they wait for.
        if self.leases[&id].expiry <= now {
            return;
        }
        let Some(renewers) = self.waiting.remove(&id) else { return };
        self.refresh(id, now, Duration::ZERO);
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

#[cfg(test)]
mod tests;
