//! The quota where commands are applied.
//!
//! A command is admitted by the size that its front-end saw, and the store may have grown since. As
//! in etcd, one that then finds no room is applied all the same, for all members must do alike, and
//! answered as refused; it raises the alarm, and its answer waits until the alarm stands.
//!
//! Invariants:
//! - Far from the quota a batch costs one comparison.
//! - One alarm is proposed at a time. Those who wait for it are answered when its fate is known,
//!   whatever it is.

use engine::command::{AlarmAction, AlarmRef};
use engine::quota::{Quota, cost_max_of_batch};
use engine::{Alarm, AlarmKind, Answer, Batch, FrameWriter, MemberId, Outcome, Rejection};

use super::LogCore;
use crate::mail::{FrontendId, Slot, Verdict};
use crate::sequencer::batch::Ticket;

/// Nobody's slot: the alarm's.
pub(super) const SLOT_ALARM: Slot = Slot(u32::MAX - 2);

/// Watches what is applied near the quota.
pub(super) struct QuotaWatch {
    quota: Quota,
    member: MemberId,
    /// The store's size before the batch under way, if its commands are to be looked at.
    size_before_bytes: Option<u64>,
    /// The places in the batch of the commands that found no room, in order.
    refused: Vec<usize>,
    /// Who is answered when the alarm stands.
    waiting: Vec<(Ticket, Answer)>,
    is_proposed: bool,
    /// An alarm was proposed, and nobody was told yet.
    is_news: bool,
}

impl QuotaWatch {
    /// For this member, without a quota.
    pub(super) fn new(member: MemberId) -> Self {
        Self {
            quota: Quota::from_flag(-1),
            member,
            size_before_bytes: None,
            refused: Vec::new(),
            waiting: Vec::new(),
            is_proposed: false,
            is_news: false,
        }
    }

    /// Another entry's turn has come.
    pub(super) fn handle_next(&mut self) {
        self.refused.clear();
    }

    /// A batch is about to be applied to a store of this size.
    pub(super) fn handle_begun(&mut self, store_size_bytes: u64, batch_size_bytes: usize) {
        let cost_max = cost_max_of_batch(batch_size_bytes);
        let is_far = self.quota.admits(store_size_bytes, cost_max);
        self.size_before_bytes = (!is_far).then_some(store_size_bytes);
    }

    /// The batch is applied: what found no room is answered as refused.
    pub(super) fn handle_applied(&mut self, batch: &Batch, answers: &mut [Answer]) {
        let Some(size_bytes) = self.size_before_bytes.take() else { return };
        for (place, answer) in answers.iter_mut().enumerate() {
            let cost = batch.cost(place);
            let has_failed = matches!(answer.outcome, Outcome::Rejected(_));
            if cost > 0 && !has_failed && !self.quota.admits(size_bytes, cost) {
                answer.outcome = Outcome::Rejected(Rejection::NoSpace);
                self.refused.push(place);
            }
        }
    }

    /// Whether the answer at this place of the batch waits for the alarm.
    pub(super) fn holds(&self, place: usize) -> bool {
        !self.refused.is_empty() && self.refused.binary_search(&place).is_ok()
    }

    /// Such an answer.
    pub(super) fn hold(&mut self, ticket: Ticket, answer: Answer) {
        self.waiting.push((ticket, answer));
    }
}

impl LogCore {
    /// `--quota-backend-bytes`.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quota.quota = quota;
    }

    /// Whether a command has found the quota used up since the last call.
    pub fn poll_quota_exceeded(&mut self) -> bool {
        std::mem::take(&mut self.quota.is_news)
    }

    /// Proposes the alarm if somebody waits for it.
    pub(super) fn raise_quota_alarm(&mut self) {
        let watch = &mut self.quota;
        if watch.waiting.is_empty() || watch.is_proposed {
            return;
        }
        (watch.is_proposed, watch.is_news) = (true, true);
        let alarm = Alarm { kind: AlarmKind::NO_SPACE, member: watch.member };
        let mut frames = Vec::new();
        let change = AlarmRef { action: AlarmAction::Raise, alarm };
        FrameWriter::new().push_alarm(&mut frames, change);
        self.batcher.handle_commands(FrontendId::NOBODY, &frames, &[SLOT_ALARM]);
    }

    /// The alarm's fate is known.
    pub(super) fn answer_over_quota(&mut self) {
        self.quota.is_proposed = false;
        for (ticket, answer) in std::mem::take(&mut self.quota.waiting) {
            let reply = &mut self.replies[ticket.frontend.place()];
            reply.answers.push((ticket.slot, Verdict::Applied(answer)));
        }
    }
}
