//! HTTP/1 clients: the gateway's two ends joined, and what it asks for.
//!
//! Invariants:
//! - Calls reach the services only in [`FrontendCore::pump_waiting`], at the beginning of a turn's
//!   settling: what they bring about leaves in the same turn, or the core does not sleep before the
//!   next.

use std::rc::Rc;
use std::time::Duration;

use super::super::scrape::{Page, Scrape};
use super::{
    Client, Desk, FrontendConfig, FrontendCore, Gate, SocketAction, SocketId, Speech, client_at,
    vars,
};
use crate::config::ETCD_VERSION;
use crate::frontend::gateway::{
    Access, AlarmKind, Door, Facts, Gateway, Notice, PageText, Setup, Wish, prefers_gzip,
};
use crate::frontend::grpc::{self, MethodTable};
use crate::log_event;
use crate::log_lines;
use crate::metrics::HealthCounts;

/// Kinds of alarms that a health check is told of: etcd knows two, others are whatever clients made
/// up.
const ALARM_KINDS_MAX: usize = 64;

/// Lines about HTTP requests that a core writes in a second: enough to see what goes on, and a few
/// milliseconds at the most.
const NOTICES_PER_SECOND_MAX: u64 = 32;

/// What an address serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entrance {
    /// gRPC and HTTP/1.
    #[default]
    Any,
    /// gRPC, because HTTP/1 has addresses of its own.
    Grpc,
    /// HTTP/1.
    Http,
    /// Metrics and health.
    Metrics,
}

impl Entrance {
    /// What the log calls it; metrics have a line of their own.
    #[must_use]
    pub const fn traffic(self) -> Option<&'static str> {
        match self {
            Self::Any => Some("grpc+http"),
            Self::Grpc => Some("grpc"),
            Self::Http => Some("http"),
            Self::Metrics => None,
        }
    }

    /// Whether gRPC is spoken there.
    #[must_use]
    pub const fn takes_grpc(self) -> bool {
        matches!(self, Self::Any | Self::Grpc)
    }

    /// Whether HTTP/1 is.
    #[must_use]
    pub const fn takes_http(self) -> bool {
        !matches!(self, Self::Grpc)
    }
}

/// What all HTTP/1 clients of a core share.
pub(super) struct HttpSide {
    setup: Rc<Setup>,
    wall_clock: Duration,
    /// Clients with something to do for the services.
    pub(super) waiting: Vec<SocketId>,
    /// Pages of metrics that clients want.
    scrapes: Vec<Scrape>,
    log_budget: LogBudget,
}

/// What clients may have this core write into its log. A line is a blocking write, and every
/// request can bring one about.
#[derive(Default)]
struct LogBudget {
    second: u64,
    wanted: u64,
}

impl LogBudget {
    /// Time passed; how many lines were left out until now.
    fn handle_time(&mut self, now: Duration) -> u64 {
        if now.as_secs() == self.second {
            return 0;
        }
        let omitted = self.wanted.saturating_sub(NOTICES_PER_SECOND_MAX);
        *self = Self { second: now.as_secs(), wanted: 0 };
        omitted
    }

    /// Whether a line may be written.
    fn admits(&mut self) -> bool {
        self.wanted += 1;
        self.wanted <= NOTICES_PER_SECOND_MAX
    }
}

impl HttpSide {
    pub(super) fn new(config: &FrontendConfig, methods: &Rc<MethodTable>) -> Self {
        let setup = Setup {
            access: Access::default(),
            serves_json: true,
            // The inner connection carries one call at a time, whatever clients may do.
            grpc: grpc::Config { max_concurrent_streams: 1, ..config.grpc },
            methods: Rc::clone(methods),
        };
        let (waiting, scrapes, log_budget) = (Vec::new(), Vec::new(), LogBudget::default());
        Self { setup: Rc::new(setup), wall_clock: Duration::ZERO, waiting, scrapes, log_budget }
    }

    pub(super) fn gateway(&self, entrance: Entrance) -> Box<Gateway> {
        let door = if entrance == Entrance::Metrics { Door::Metrics } else { Door::Client };
        Box::new(Gateway::new(Rc::clone(&self.setup), door))
    }
}

impl FrontendCore {
    /// Says who may use HTTP/1, and whether it has the JSON gateway. Before the first client.
    pub fn set_http(&mut self, access: Access, serves_json: bool) {
        let Setup { grpc, methods, .. } = &*self.http.setup;
        let methods = Rc::clone(methods);
        self.http.setup = Rc::new(Setup { access, serves_json, grpc: *grpc, methods });
    }

    /// Tells the time of day, for the dates of answers.
    pub fn handle_wall_clock(&mut self, since_epoch: Duration) {
        self.http.wall_clock = since_epoch;
        self.desk.wall_clock = since_epoch;
    }

    pub(super) fn handle_http_tick(&mut self, now: Duration) {
        let omitted = self.http.log_budget.handle_time(now);
        if omitted > 0 {
            log_event!(Warn, "lines about HTTP requests were left out", "count" => omitted);
        }
    }

    /// The next page of metrics that a client wants; to be answered with
    /// [`Self::handle_scraped`].
    pub fn poll_scrape(&mut self) -> Option<Scrape> {
        self.http.scrapes.pop()
    }

    /// A page of metrics, or none because too many are wanted at once.
    pub fn handle_scraped(&mut self, socket: SocketId, page: Option<Page>) {
        let Some(client) = client_at(&mut self.clients, socket) else { return };
        if let Speech::Http1(gateway) = &mut client.speech {
            gateway.handle_page(&metrics_page(page));
            self.http.waiting.push(socket);
        }
    }

    /// A client sends nothing more. One that speaks HTTP/1 is told what became of its requests; for
    /// every other that is the end.
    pub fn handle_half_closed(&mut self, socket: SocketId) {
        let Some(client) = client_at(&mut self.clients, socket) else { return };
        match &mut client.speech {
            Speech::Http1(gateway) => {
                gateway.handle_half_closed();
                self.touch(socket);
            }
            Speech::Grpc(_) | Speech::Unknown(_) | Speech::Ended => {
                client.closing = true;
                self.actions.push_back(SocketAction::Close(socket));
            }
        }
    }

    /// Carries calls of HTTP/1 clients to the services.
    pub(super) fn pump_waiting(&mut self, now: Duration) {
        for socket in std::mem::take(&mut self.http.waiting) {
            self.pump(socket, now);
            self.touch(socket);
        }
    }

    fn pump(&mut self, socket: SocketId, now: Duration) {
        let Some(client) = client_at(&mut self.clients, socket) else { return };
        let Speech::Http1(gateway) = &mut client.speech else { return };
        gateway.handle_wall_clock(self.http.wall_clock);
        gateway.handle_turn();
        loop {
            gateway.advance(now);
            while let Some(notice) = gateway.poll_notice() {
                count(&notice, &self.desk.metrics.health, now);
                if notice.is_logged() && self.http.log_budget.admits() {
                    log_lines::http_notice(&notice);
                }
            }
            if let Some(wish) = gateway.poll_wish() {
                match wish {
                    Wish::Facts => gateway.handle_facts(&self.desk.facts()),
                    // One text serves every client, so `accept` is not asked.
                    Wish::Metrics { accept_encoding, .. } => {
                        let gzip = prefers_gzip(&accept_encoding);
                        self.http.scrapes.push(Scrape { socket, gzip });
                    }
                    Wish::Vars => gateway.handle_page(&vars::page(&self.desk)),
                }
                continue;
            }
            if let Some(bytes) = gateway.poll_request_bytes() {
                let connection = gateway.grpc().expect("the bytes are for it");
                self.desk.read(socket, connection, &bytes, now);
                gateway.recycle(bytes);
                continue;
            }
            if !gateway.carry_answers() {
                return;
            }
        }
    }

    /// Makes answers out of what the services have to say; whether the connection is over.
    pub(super) fn flush_http(&mut self, socket: SocketId, now: Duration) -> bool {
        let Some(client) = client_at(&mut self.clients, socket) else { return false };
        let Client { speech: Speech::Http1(gateway), output, spare, sending, .. } = client else {
            return false;
        };
        gateway.handle_wall_clock(self.http.wall_clock);
        loop {
            gateway.advance(now);
            if !gateway.carry_answers() {
                break;
            }
        }
        if gateway.has_business() {
            self.http.waiting.push(socket);
        }
        let held_bytes = gateway.held_bytes();
        let mut queued_bytes = held_bytes;
        if let Some(connection) = gateway.grpc() {
            let http2 = connection.http2();
            while let Some(stream) = http2.poll_room() {
                let pending = http2.stream_pending_bytes(stream);
                if pending > 0 {
                    http2.want_room(stream);
                }
                let queued = http2.queued_bytes();
                self.desk.watches.handle_pending((socket, stream), pending, queued);
                self.desk.streams.handle_room((socket, stream));
            }
            queued_bytes += http2.queued_bytes();
        }
        if !*sending && !gateway.output().is_empty() {
            *output = std::mem::take(spare);
            std::mem::swap(output, gateway.output());
        }
        let (is_over, wants_pause) = (gateway.is_over(), gateway.wants_pause());
        self.desk.reading.handle_queued(client.queued_bytes, queued_bytes);
        client.queued_bytes = queued_bytes;
        let gate = Gate::for_queued(queued_bytes);
        if gate != client.gate {
            client.gate = gate;
            self.desk.reading.set_gate(socket, gate);
        }
        if wants_pause != client.paused {
            client.paused = wants_pause;
            let action = if wants_pause { SocketAction::Pause } else { SocketAction::Resume };
            self.actions.push_back(action(socket));
        }
        is_over
    }
}

impl Desk {
    /// What health checks and `/version` are told, as the services would tell it.
    fn facts(&mut self) -> Facts {
        let view = self.views.pin();
        let alarms = view.alarm_kinds(ALARM_KINDS_MAX).unwrap_or_default();
        let cluster_version = view.cluster_version().ok().flatten();
        drop(view);
        Facts {
            alarms: alarms.iter().map(|alarm| (alarm.member.0, kind_of(alarm.kind))).collect(),
            has_leader: self.node.leader.is_some(),
            is_learner: self.node.learner,
            server_version: ETCD_VERSION,
            storage_version: cluster_version.clone().filter(|version| !version.is_empty()),
            cluster_version,
        }
    }
}

fn count(notice: &Notice, health: &HealthCounts, now: Duration) {
    match notice {
        Notice::HealthAnswered(is_healthy) => health.note_answered(*is_healthy),
        Notice::CheckMade(path, check, succeeded) => {
            health.note_check(path, check.name(), *succeeded, now);
        }
        _ => {}
    }
}

fn kind_of(kind: engine::AlarmKind) -> AlarmKind {
    match kind {
        engine::AlarmKind::NO_SPACE => AlarmKind::NoSpace,
        engine::AlarmKind::CORRUPT => AlarmKind::Corrupt,
        engine::AlarmKind(other) => AlarmKind::Other(other),
    }
}

/// A page of metrics under the fields that etcd gives it.
fn metrics_page(page: Option<Page>) -> PageText {
    let Some(Page { body, gzip, .. }) = page else {
        let fields = vec![
            ("Content-Type", "text/plain; charset=utf-8".to_owned()),
            ("X-Content-Type-Options", "nosniff".to_owned()),
        ];
        let body = b"too many scrapes at once\n".to_vec();
        return PageText { status: 503, fields, body };
    };
    let text = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    let mut fields = vec![("Content-Type", text.to_owned())];
    if gzip {
        fields.insert(0, ("Content-Encoding", "gzip".to_owned()));
    }
    PageText { status: 200, fields, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_requests_are_bounded_by_the_second() {
        let mut budget = LogBudget::default();
        let admitted = (0..1000).filter(|_| budget.admits()).count();
        assert_eq!(admitted as u64, NOTICES_PER_SECOND_MAX);
        assert_eq!(budget.handle_time(Duration::from_millis(999)), 0);
        assert!(!budget.admits());
        let omitted = 1001 - NOTICES_PER_SECOND_MAX;
        assert_eq!(budget.handle_time(Duration::from_millis(1000)), omitted, "told once");
        assert_eq!(budget.handle_time(Duration::from_millis(2000)), 0);
        assert!(budget.admits());
    }
}
