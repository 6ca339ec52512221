//! When to checkpoint: the trade between a quick start and writing the same pages again and again.
//!
//! A start maps the newest checkpoint and replays the log behind it. On random keys a short tail
//! dirties many pages, so checkpointing by a small byte count would write each page over and over;
//! the policy goes by the time that the replay would take, estimated from the rate at which this
//! member applies.

use std::time::Duration;

/// A replay that would take longer than this makes a checkpoint due.
pub const REPLAY_MAX: Duration = Duration::from_millis(600);
/// Dirty pages are private memory until they are checkpointed.
pub const DIRTY_SIZE_BYTES_MAX: u64 = 192 * 1024 * 1024;
/// Without writes for this long, a checkpoint costs nobody anything and makes the next start quick.
pub const IDLE_AFTER: Duration = Duration::from_secs(2);
/// The estimate before anything was measured: what a command costs to apply.
const COMMAND_COST_GUESS: Duration = Duration::from_nanos(2500);
/// Log bytes that are read, checked and decoded in a second of recovery; measured on one core with
/// the page cache cold.
const LOG_BYTES_PER_SECOND: u64 = 800 * 1024 * 1024;

/// What one turn of applying added to a replay.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Commands applied.
    pub commands: usize,
    /// Log entries they came in.
    pub entries: usize,
    /// The log's durable end.
    pub log_end: u64,
}

/// Sums up what a replay would cost and says when that is too much.
#[derive(Debug)]
pub struct CheckpointPolicy {
    /// `--snapshot-count`: a checkpoint is due at the latest after so many entries.
    entries_max: u64,
    entries: u64,
    commands: u64,
    log_start: u64,
    log_end: u64,
    begun: Option<Begun>,
    written_at: Duration,
}

#[derive(Debug)]
struct Begun {
    entries: u64,
    commands: u64,
    log_end: u64,
}

/// What is in the log and not in the checkpoint when a member starts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tail {
    /// Commands.
    pub commands: u64,
    /// Log entries they came in.
    pub entries: u64,
    /// Bytes of the log.
    pub size_bytes: u64,
}

impl CheckpointPolicy {
    /// The log ends at `log_end`. A member that is killed again and again counts what it has just
    /// replayed: else its start would take longer each time.
    #[must_use]
    pub fn new(entries_max: u64, log_end: u64, tail: Tail) -> Self {
        Self {
            entries_max,
            entries: tail.entries,
            commands: tail.commands,
            log_start: log_end.saturating_sub(tail.size_bytes),
            log_end,
            begun: None,
            written_at: Duration::ZERO,
        }
    }

    /// Commands were applied.
    pub fn handle_applied(&mut self, now: Duration, cost: Cost) {
        if cost.commands > 0 {
            self.commands += cost.commands as u64;
            self.entries += cost.entries as u64;
            self.written_at = now;
        }
        self.log_end = cost.log_end;
    }

    /// A checkpoint of the current view has begun.
    pub fn handle_begun(&mut self, _now: Duration) {
        self.begun =
            Some(Begun { entries: self.entries, commands: self.commands, log_end: self.log_end });
    }

    /// The checkpoint is durable; what was applied since it began is what a start would replay.
    pub fn handle_finished(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.entries -= begun.entries;
            self.commands -= begun.commands;
            self.log_start = begun.log_end;
        }
    }

    /// Whether a checkpoint should begin.
    #[must_use]
    pub fn is_due(&self, now: Duration, dirty_size_bytes: u64) -> bool {
        if self.begun.is_some() || dirty_size_bytes == 0 {
            return false;
        }
        let idle = now.saturating_sub(self.written_at) >= IDLE_AFTER && self.commands > 0;
        idle || self.entries >= self.entries_max
            || dirty_size_bytes >= DIRTY_SIZE_BYTES_MAX
            || self.replay_estimate() >= REPLAY_MAX
    }

    /// How long a start would replay.
    #[must_use]
    pub fn replay_estimate(&self) -> Duration {
        let bytes = self.log_end.saturating_sub(self.log_start);
        let apply =
            COMMAND_COST_GUESS.saturating_mul(u32::try_from(self.commands).unwrap_or(u32::MAX));
        apply + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / LOG_BYTES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn applied(policy: &mut CheckpointPolicy, now: Duration, commands: usize, log_end: u64) {
        policy.handle_applied(now, Cost { commands, entries: 1, log_end });
    }

    #[test]
    fn nothing_is_due_on_a_clean_store() {
        let mut policy = CheckpointPolicy::new(10_000, 0, Tail::default());
        applied(&mut policy, SECOND, 10_000_000, 1 << 40);
        assert!(!policy.is_due(SECOND * 100, 0));
    }

    #[test]
    fn a_long_replay_is_due_and_counts_from_the_checkpoint_on() {
        let mut policy = CheckpointPolicy::new(10_000, 0, Tail::default());
        applied(&mut policy, SECOND, 1000, 4096);
        assert!(!policy.is_due(SECOND, 1));
        applied(&mut policy, SECOND, 400_000, 1 << 20);
        assert!(policy.is_due(SECOND, 1));
        policy.handle_begun(SECOND);
        assert!(!policy.is_due(SECOND, 1), "one checkpoint at a time");
        applied(&mut policy, SECOND, 500, 2 << 20);
        policy.handle_finished();
        assert!(!policy.is_due(SECOND, 1));
        assert!(policy.replay_estimate() >= COMMAND_COST_GUESS * 500);
    }

    #[test]
    fn the_configured_number_of_entries_is_the_latest() {
        let mut policy = CheckpointPolicy::new(3, 0, Tail::default());
        applied(&mut policy, SECOND, 1, 4096);
        applied(&mut policy, SECOND, 1, 4096);
        assert!(!policy.is_due(SECOND, 1));
        applied(&mut policy, SECOND, 1, 4096);
        assert!(policy.is_due(SECOND, 1));
    }

    #[test]
    fn quiet_makes_a_checkpoint_due_once() {
        let mut policy = CheckpointPolicy::new(10_000, 0, Tail::default());
        applied(&mut policy, SECOND, 1, 4096);
        assert!(!policy.is_due(SECOND + IDLE_AFTER / 2, 1));
        assert!(policy.is_due(SECOND + IDLE_AFTER, 1));
        policy.handle_begun(SECOND + IDLE_AFTER);
        policy.handle_finished();
        assert!(!policy.is_due(SECOND * 60, 1));
    }

    #[test]
    fn a_replay_counts() {
        let tail = Tail { commands: 400_000, entries: 400, size_bytes: 1 << 20 };
        let policy = CheckpointPolicy::new(10_000, 1 << 20, tail);
        assert!(policy.is_due(SECOND, 1));
    }
}
