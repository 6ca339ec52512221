//! Who pings whom how often, by grpc-go's rules.
//!
//! Two things that only share the frame: *enforcement* (a client that pings too often is told
//! `too_many_pings` and disconnected) and *keep-alive* (we ping a silent client and give it up when
//! nothing comes back).
//!
//! Invariants:
//! - Neither looks at a clock; `now` never runs backwards.

use std::time::Duration;

/// A client without calls is expected to ping at most this often when
/// [`PingPolicy::permit_without_stream`] is off.
const IDLE_PING_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);

/// Early pings that are forgiven; one more ends the connection.
const STRIKES_MAX: u32 = 2;

/// What a client may do.
#[derive(Clone, Copy, Debug)]
pub struct PingPolicy {
    /// The least time between two pings (`--grpc-keepalive-min-time`).
    pub interval_min: Duration,
    /// Whether a client without a call may ping at all.
    pub permit_without_stream: bool,
}

impl Default for PingPolicy {
    /// etcd's defaults.
    fn default() -> Self {
        Self { interval_min: Duration::from_secs(5), permit_without_stream: false }
    }
}

/// Counts a client's pings against the policy.
#[derive(Debug)]
pub struct PingEnforcement {
    policy: PingPolicy,
    last: Option<Duration>,
    strikes: u32,
    /// We sent headers or data since the last ping: it may well be measuring their round trip.
    forgiven: bool,
}

impl PingEnforcement {
    /// Starts with a clean record.
    pub fn new(policy: PingPolicy) -> Self {
        Self { policy, last: None, strikes: 0, forgiven: false }
    }

    /// Notes that headers or data were sent.
    #[inline]
    pub fn note_sent(&mut self) {
        self.forgiven = true;
    }

    /// Notes a ping. Returns `false` when it was one too many.
    pub fn allow(&mut self, now: Duration, streams_open: bool) -> bool {
        let last = self.last.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return true;
        }
        let interval = if streams_open || self.policy.permit_without_stream {
            self.policy.interval_min
        } else {
            IDLE_PING_INTERVAL
        };
        if last.is_some_and(|last| now < last + interval) {
            self.strikes += 1;
        }
        self.strikes <= STRIKES_MAX
    }
}

/// When we ping and how long we wait.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveConfig {
    /// Silence after which we ping (`--grpc-keepalive-interval`).
    pub interval: Duration,
    /// How long an answer may take (`--grpc-keepalive-timeout`).
    pub timeout: Duration,
}

impl Default for KeepaliveConfig {
    /// etcd's defaults.
    fn default() -> Self {
        Self { interval: Duration::from_secs(2 * 60 * 60), timeout: Duration::from_secs(20) }
    }
}

/// What the keep-alive timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepaliveStep {
    /// Nothing yet.
    Wait,
    /// Send a ping.
    Ping,
    /// Nothing came back: give the client up.
    Dead,
}

/// Watches for silence.
#[derive(Debug)]
pub struct Keepalive {
    config: KeepaliveConfig,
    read_at: Duration,
    pinged_at: Option<Duration>,
}

impl Keepalive {
    /// Starts at `now`.
    pub fn new(config: KeepaliveConfig, now: Duration) -> Self {
        Self { config, read_at: now, pinged_at: None }
    }

    /// Notes that bytes arrived; any bytes prove that the client lives.
    #[inline]
    pub fn note_read(&mut self, now: Duration) {
        self.read_at = now;
        self.pinged_at = None;
    }

    /// When [`Self::handle_tick`] is due next.
    pub fn deadline(&self) -> Duration {
        match self.pinged_at {
            Some(pinged_at) => pinged_at.saturating_add(self.config.timeout),
            None => self.read_at.saturating_add(self.config.interval),
        }
    }

    /// Looks at the time.
    pub fn handle_tick(&mut self, now: Duration) -> KeepaliveStep {
        if now < self.deadline() {
            return KeepaliveStep::Wait;
        }
        if self.pinged_at.is_some() {
            return KeepaliveStep::Dead;
        }
        self.pinged_at = Some(now);
        KeepaliveStep::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_third_early_ping_is_one_too_many() {
        let mut pings = PingEnforcement::new(PingPolicy::default());
        assert!(pings.allow(seconds(0), true));
        assert!(pings.allow(seconds(1), true));
        assert!(pings.allow(seconds(2), true));
        assert!(!pings.allow(seconds(3), true));
    }

    #[test]
    fn pings_at_the_permitted_pace_go_on_for_ever() {
        let mut pings = PingEnforcement::new(PingPolicy::default());
        assert!((0..1000).all(|count| pings.allow(seconds(5 * count), true)));
    }

    #[test]
    fn an_idle_client_may_hardly_ping_at_all() {
        let mut pings = PingEnforcement::new(PingPolicy::default());
        assert!(pings.allow(seconds(0), false));
        assert!(pings.allow(seconds(60), false));
        assert!(pings.allow(seconds(120), false));
        assert!(!pings.allow(seconds(180), false));
    }

    #[test]
    fn an_answer_wipes_the_record() {
        let mut pings = PingEnforcement::new(PingPolicy::default());
        for round in 0..100 {
            pings.note_sent();
            assert!((0..3).all(|step| pings.allow(seconds(round * 4 + step), true)));
        }
    }

    #[test]
    fn silence_is_answered_by_a_ping_and_then_given_up() {
        let mut keepalive = Keepalive::new(KeepaliveConfig::default(), seconds(0));
        assert_eq!(keepalive.deadline(), seconds(7200));
        assert_eq!(keepalive.handle_tick(seconds(7199)), KeepaliveStep::Wait);
        assert_eq!(keepalive.handle_tick(seconds(7200)), KeepaliveStep::Ping);
        assert_eq!(keepalive.deadline(), seconds(7220));
        keepalive.note_read(seconds(7210));
        assert_eq!(keepalive.deadline(), seconds(14_410));
        assert_eq!(keepalive.handle_tick(seconds(14_410)), KeepaliveStep::Ping);
        assert_eq!(keepalive.handle_tick(seconds(14_430)), KeepaliveStep::Dead);
    }
}
