//! The Lease service: grants and revokes into command frames, questions about time to the member
//! that keeps the clocks, attached keys from the view.
//!
//! Keep-alives have a stream of their own kind: [`keep_alive`].

pub mod keep_alive;

use std::sync::Arc;

use engine::answer::ReadError;
use engine::command::{FrameWriter, LeaseGrantRef, LeaseRevokeRef};
use engine::ids::LeaseId;
use engine::limits::BYTES_PER_KEY;
use engine::range::Progress;
use engine::view::View;

use super::status::Refusal;
use super::wire::{self, Fields, Header, Malformed};

/// etcd's longest lease: what its clients may have computed with.
const TTL_MAX_SECONDS: i64 = 9_000_000_000;
/// Leases that are written for what a key costs: nothing is looked up.
const LEASES_PER_KEY: usize = 4;
/// Keys that are looked up at a time.
const KEYS_CHUNK_MAX: usize = 256;

/// Ids for leases whose client leaves the choice to the server, made as etcd makes them: of the
/// member, the time of the start and a count, so that no restart comes back to an id.
#[derive(Clone, Copy, Debug)]
pub struct LeaseIds {
    prefix: u64,
    suffix: u64,
    step: u64,
}

impl LeaseIds {
    /// For the front-end `place` of `count` of a member: each makes every `count`-th id, whatever
    /// moment each of them takes for the start.
    #[must_use]
    pub const fn new(member_id: u64, unix_ms: u64, place: u64, count: u64) -> Self {
        let start = (unix_ms & ((1 << 40) - 1)) << 8;
        let suffix = start - start % count + place;
        Self { prefix: (member_id & 0xffff) << 48, suffix, step: count }
    }

    fn next(&mut self) -> LeaseId {
        loop {
            self.suffix = self.suffix.wrapping_add(self.step);
            let id = (self.prefix | (self.suffix & ((1 << 48) - 1))) & (u64::MAX >> 1);
            if id != 0 {
                return LeaseId(i64::try_from(id).expect("63 bits"));
            }
        }
    }
}

/// What a request about a lease asks for. All of them have an id and at most one more field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LeaseFields {
    first: i64,
    second: i64,
}

fn decode(message: &[u8]) -> Result<LeaseFields, Malformed> {
    let mut request = LeaseFields::default();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => value.set_int64(&mut request.first),
            2 => value.set_int64(&mut request.second),
            _ => {}
        }
    }
    Ok(request)
}

/// Checks a grant and appends its frame. The floor is applied here, once for all members.
pub(super) fn push_grant(
    message: &[u8],
    ttl_min_seconds: i64,
    ids: &mut LeaseIds,
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let LeaseFields { first: ttl_seconds, second: id } = decode(message)?;
    if ttl_seconds > TTL_MAX_SECONDS {
        return Err(Refusal::LeaseTtlTooLarge);
    }
    let id = if id == 0 { ids.next() } else { LeaseId(id) };
    let ttl_seconds = ttl_seconds.max(ttl_min_seconds);
    writer.push_lease_grant(frames, LeaseGrantRef { id, ttl_seconds });
    Ok(())
}

/// Appends the frame of a revoke; whether there is such a lease is the engine's to say.
pub(super) fn push_revoke(
    message: &[u8],
    writer: &mut FrameWriter,
    frames: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let id = LeaseId(decode(message)?.first);
    writer.push_lease_revoke(frames, LeaseRevokeRef { id, expired_in: None });
    Ok(())
}

/// A question how long a lease has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// The lease.
    pub id: LeaseId,
    /// The keys attached to it, too.
    pub keys: bool,
}

/// Reads a `LeaseTimeToLiveRequest`.
pub(super) fn decode_time_to_live(message: &[u8]) -> Result<TimeToLive, Malformed> {
    let LeaseFields { first, second } = decode(message)?;
    Ok(TimeToLive { id: LeaseId(first), keys: second != 0 })
}

/// The answer to `LeaseLeases` in the course of being written.
pub(super) struct LeasesRead {
    /// As the keeper of the clocks gave it.
    leases: Arc<Vec<LeaseId>>,
    next: usize,
    is_begun: bool,
}

impl LeasesRead {
    pub(super) const fn new(leases: Arc<Vec<LeaseId>>) -> Self {
        Self { leases, next: 0, is_begun: false }
    }

    /// The list is counted for each that waits for it, though they share it.
    pub(super) fn held_bytes(&self) -> usize {
        self.leases.len() * size_of::<LeaseId>()
    }

    pub(super) fn step(
        &mut self,
        view: &View,
        header: Header,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Progress {
        if !self.is_begun {
            self.is_begun = true;
            wire::put_header(out, &Header { revision: view.revision.0, ..header });
        }
        let left = &self.leases[self.next..];
        let count = left.len().min(budget.saturating_mul(LEASES_PER_KEY));
        for id in left[..count].iter().filter(|id| id.0 != 0) {
            wire::put_nested(out, 2, |out| wire::put_int64(out, 1, id.0));
        }
        self.next += count;
        *budget = budget.saturating_sub(count.div_ceil(LEASES_PER_KEY).max(1));
        if self.next == self.leases.len() { Progress::Done } else { Progress::More }
    }
}

/// The answer to `LeaseTimeToLive` in the course of being written.
pub(super) struct TimeToLiveRead {
    question: TimeToLive,
    /// Seconds left and granted, as the keeper of the clocks said.
    times: Option<(i64, i64)>,
    is_begun: bool,
    /// The keys are more than a step takes.
    is_long: bool,
    next: Option<Vec<u8>>,
}

impl TimeToLiveRead {
    pub(super) fn new(question: TimeToLive, times: Option<(i64, i64)>) -> Self {
        Self { question, times, is_begun: false, is_long: false, next: Some(Vec::new()) }
    }

    /// Whether the answer has to be made on one view: it is of more than a step, and the keys of a
    /// lease are those of one moment.
    pub(super) const fn is_long(&self) -> bool {
        self.is_long
    }

    /// Begins again, for an answer of nothing.
    pub(super) fn restart(&mut self) {
        self.is_begun = false;
        self.next = Some(Vec::new());
    }

    /// Whether the answer may be long.
    pub(super) fn is_wide(&self) -> bool {
        self.question.keys
    }

    pub(super) fn step(
        &mut self,
        view: &View,
        header: Header,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<Progress, ReadError> {
        let id = self.question.id;
        if !self.is_begun {
            self.is_begun = true;
            *budget -= 1;
            let (left, granted) = self.times.unwrap_or((-1, 0));
            wire::put_header(out, &Header { revision: view.revision.0, ..header });
            wire::put_int64(out, 2, id.0);
            wire::put_int64(out, 3, left);
            wire::put_int64(out, 4, granted);
        }
        if !self.question.keys || self.times.is_none() {
            return Ok(Progress::Done);
        }
        while *budget > 0 {
            let Some(from) = self.next.take() else { return Ok(Progress::Done) };
            let mut keys = Vec::new();
            self.next = view.lease_keys(id, &from, KEYS_CHUNK_MAX.min(*budget), &mut keys)?;
            let mut size_bytes = 0;
            for key in &keys {
                wire::put_len(out, 5, key.len());
                out.extend_from_slice(key);
                size_bytes += key.len();
            }
            *budget = budget.saturating_sub(keys.len().max(1) + size_bytes / BYTES_PER_KEY);
        }
        self.is_long = self.next.is_some();
        Ok(if self.is_long { Progress::More } else { Progress::Done })
    }
}

#[cfg(test)]
mod tests;
