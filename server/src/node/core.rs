//! A core: one executor's loop, with the roles that placement gave it.
//!
//! Every turn is the same three steps: wait for what happened, handle it, settle. Both roles of a
//! shared core take their turns in that order: front-end (requests become a letter), log (letters
//! become log writes, which begin before committed entries are applied), front-end again (answers
//! become bytes). Between cores the letters travel through [`post`](crate::runtime::post).

use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::failure::Failure;
use super::frontend_core::{Entrance, FrontendCore, SocketAction};
use super::log_role::LogRole;
use super::scrape::ScrapeDesk;
use super::switch::Switch;
use crate::mail::{Ask, Reply};
use crate::runtime::executor::CoreLoop;
use crate::runtime::notify;
use crate::runtime::post::{Bell, Inbox, Outbox};
use crate::runtime::reactor::{Event, Reactor};
use crate::runtime::sockets::Listener;
use crate::{log_event, log_lines};

/// The longest sleep: how late a core may notice what nobody woke it for.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// Turns in which the last answers leave: the send that was under way, theirs, and one to spare.
const LAST_TURNS: usize = 3;
/// A wait that took this long found nothing when it began; a look at a ring that has something
/// takes a few microseconds.
const SLEPT_FROM: Duration = Duration::from_micros(50);
/// How often a front-end looks at deadlines.
const FRONTEND_TICK: Duration = Duration::from_millis(100);

/// The front-end role's effects.
pub struct FrontendRole {
    /// The state machine.
    pub core: FrontendCore,
    /// Who makes `/metrics`.
    pub scrapes: ScrapeDesk,
    /// Post with the log core; `None` when it is this one.
    pub line: Option<FrontendLine>,
    /// Listeners, on the front-end that accepts.
    pub listeners: Vec<Listener>,
    /// What each of them serves, by the same place.
    pub entrances: Vec<Entrance>,
    /// The client addresses, for the log.
    pub announce: Vec<(String, Entrance)>,
    /// Connections this core takes; more are sent away, so that the log and the store never lack a
    /// descriptor.
    pub connections_max: usize,
    /// Where accepted connections go in turn; an accepting front-end counts itself as `None`.
    pub hand_off: Vec<Option<Outbox<(OwnedFd, Entrance)>>>,
    /// Connections that the accepting front-end hands over.
    pub handed: Option<Inbox<(OwnedFd, Entrance)>>,
}

/// Post between a front-end and the log core.
#[derive(Debug)]
pub struct FrontendLine {
    /// What it asks.
    pub asks: Outbox<Ask>,
    /// What it is told.
    pub replies: Inbox<Reply>,
}

/// One core.
pub struct Core {
    reactor: Reactor,
    bell: Arc<Bell>,
    switch: Arc<Switch>,
    origin: Instant,
    now: Duration,
    frontend: Option<FrontendRole>,
    log: Option<LogRole>,
    frontend_tick: Duration,
    hand_off_next: usize,
    /// Listeners of the reactor that are the log's, for other members: they come first.
    peer_listeners: usize,
    draining: bool,
}

impl Core {
    /// Joins the roles with a reactor made on this very thread.
    #[must_use]
    pub fn new(
        reactor: Reactor,
        bell: Arc<Bell>,
        switch: Arc<Switch>,
        origin: Instant,
        roles: (Option<FrontendRole>, Option<LogRole>),
    ) -> Self {
        bell.attach(reactor.descriptor());
        let mut reactor = reactor;
        let (mut frontend, mut log) = roles;
        // Other members are listened to from the start: without them nobody is elected.
        let peer_listeners = log.as_mut().map_or(0, |log| log.begin(&mut reactor));
        // The first answers of a quick start leave before the first tick, and have a date, too.
        if let Some(frontend) = &mut frontend {
            frontend.core.handle_wall_clock(wall_clock());
        }
        Self {
            reactor,
            bell,
            switch,
            origin,
            now: origin.elapsed(),
            frontend,
            log,
            frontend_tick: Duration::ZERO,
            hand_off_next: 0,
            peer_listeners,
            draining: false,
        }
    }

    fn run_turn(&mut self) -> Result<bool, Failure> {
        self.sleep()?;
        if let Some(frontend) = &mut self.frontend {
            frontend.core.set_now(self.now);
        }
        while let Some(event) = self.reactor.poll_event() {
            self.handle(event)?;
        }
        self.begin_serving();
        self.frontend_before_log();
        self.measure_frontend();
        if let Some(log) = &mut self.log {
            log.receive(self.now)?;
            if let Some(frontend) =
                self.frontend.as_mut().filter(|frontend| frontend.line.is_none())
            {
                let id = frontend.core.id();
                let ask = frontend.core.ask();
                if !ask.is_empty() {
                    log.core().handle_ask(id, ask, self.now);
                    ask.clear();
                }
            }
            log.settle(self.now, self.origin, &mut self.reactor)?;
        }
        self.frontend_after_log();
        Ok(!self.is_finished())
    }

    fn sleep(&mut self) -> Result<(), Failure> {
        let mut timeout = SLEEP_MAX;
        if let Some(log) = &self.log {
            timeout = timeout.min(log.timeout(self.now));
        }
        if let Some(frontend) = &self.frontend {
            let tick = (self.frontend_tick + FRONTEND_TICK).saturating_sub(self.now);
            let work = frontend.core.work_due().map_or(tick, |due| due.saturating_sub(self.now));
            timeout = timeout.min(tick).min(work);
        }
        if self.log.as_ref().is_some_and(|log| log.has_only_background_work(self.now)) {
            // A thread that never sleeps is not interrupted before the scheduler's next tick, of
            // which there may be 250 a second: whoever syncs or flushes on a small machine, the
            // kernel's own threads among them, would wait for that.
            std::thread::yield_now();
        }
        self.bell.park();
        if self.has_mail() {
            timeout = Duration::ZERO;
        }
        let begun = self.origin.elapsed();
        let waited = self.reactor.wait(timeout);
        self.bell.unpark();
        self.now = self.origin.elapsed();
        if let Some(log) = &mut self.log {
            log.handle_wake(self.now, self.now.saturating_sub(begun) >= SLEPT_FROM);
        }
        Ok(waited?)
    }

    fn has_mail(&self) -> bool {
        let log = self.log.as_ref().is_some_and(LogRole::has_mail);
        let frontend = self.frontend.as_ref().is_some_and(|frontend| {
            frontend.line.as_ref().is_some_and(|line| !line.replies.is_empty())
                || frontend.handed.as_ref().is_some_and(|handed| !handed.is_empty())
        });
        log || frontend
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        if let Some(log) = &mut self.log
            && log.owns(&event)
        {
            return log.handle_peer_event(event, &mut self.reactor, self.now);
        }
        match event {
            Event::Accepted { listener, descriptor } => {
                self.place(descriptor, listener - self.peer_listeners);
            }
            Event::SentVectored { .. } => unreachable!("only the log role sends pieces"),
            Event::Received { socket, received } => {
                if let Some(frontend) = &mut self.frontend {
                    let bytes = self.reactor.received(&received);
                    frontend.core.handle_received(socket, bytes, self.now);
                }
                self.reactor.recycle(received);
            }
            Event::Sent { socket, buffer } => {
                if let Some(frontend) = &mut self.frontend {
                    frontend.core.handle_sent(socket, buffer);
                }
            }
            Event::HalfClosed { socket } => {
                if let Some(frontend) = &mut self.frontend {
                    frontend.core.handle_half_closed(socket);
                }
            }
            Event::Closed { socket } => {
                if let Some(frontend) = &mut self.frontend {
                    frontend.core.handle_closed(socket);
                }
            }
            Event::Written { token, result, buffer } => {
                if let Some(log) = &mut self.log {
                    log.handle_written(token, result, buffer, self.now)?;
                }
            }
            // What was left for us is looked for in every turn.
            Event::Woken => {}
        }
        Ok(())
    }

    /// Starts to accept once requests will be answered; until then clients wait in the backlog.
    fn begin_serving(&mut self) {
        let Some(frontend) = &mut self.frontend else { return };
        if !frontend.listeners.is_empty() && self.switch.is_serving() {
            for listener in frontend.listeners.drain(..) {
                self.reactor.listen(listener);
            }
            log_lines::ready_to_serve();
            for (address, entrance) in &frontend.announce {
                match entrance.traffic() {
                    Some(traffic) => {
                        log_lines::serving_client_traffic_insecurely(address, traffic);
                    }
                    None => log_lines::serving_metrics(address),
                }
            }
            log_lines::grpc_service_status_changed(true);
            log_lines::notifying_init_daemon(notify::tell(notify::News::Ready).as_ref().err());
        }
        if let Some(handed) = &mut frontend.handed {
            while let Some(descriptor) = handed.pop() {
                if self.reactor.socket_count() >= frontend.connections_max {
                    continue;
                }
                let (descriptor, entrance) = *descriptor;
                let socket = self.reactor.adopt(descriptor);
                frontend.core.handle_accepted_at(socket, entrance);
            }
        }
    }

    /// Connections go round: the first to the accepting front-end, which on a small machine is
    /// also the log core, so that a lone client meets no hop.
    fn place(&mut self, descriptor: OwnedFd, listener: usize) {
        let Some(frontend) = &mut self.frontend else { return };
        let entrance = frontend.entrances[listener];
        if self.reactor.socket_count() >= frontend.connections_max {
            return;
        }
        let count = frontend.hand_off.len().max(1);
        let place = self.hand_off_next % count;
        self.hand_off_next += 1;
        if let Some(Some(outbox)) = frontend.hand_off.get_mut(place)
            && outbox.has_room()
        {
            outbox.push(Box::new((descriptor, entrance)));
            if let Some(ring) = outbox.wants_wake() {
                self.reactor.wake(ring);
            }
            return;
        }
        let socket = self.reactor.adopt(descriptor);
        frontend.core.handle_accepted_at(socket, entrance);
    }

    fn frontend_before_log(&mut self) {
        let Some(frontend) = &mut self.frontend else { return };
        if let Some(line) = &mut frontend.line {
            while let Some(mut reply) = line.replies.pop() {
                frontend.core.handle_reply(&mut reply);
            }
        }
        while let Some(page) = frontend.scrapes.poll_page() {
            frontend.core.handle_scraped(page.socket, Some(page));
        }
        if self.now >= self.frontend_tick + FRONTEND_TICK {
            self.frontend_tick = self.now;
            frontend.core.handle_wall_clock(wall_clock());
            frontend.core.handle_tick(self.now);
        }
        if self.switch.is_stopping() && !self.draining {
            self.draining = true;
            self.reactor.stop_listening();
            frontend.core.shut_down(self.now);
        }
        frontend.core.settle(self.now);
        while let Some(scrape) = frontend.core.poll_scrape() {
            if let Err(refused) = frontend.scrapes.submit(scrape) {
                frontend.core.handle_scraped(refused.socket, None);
            }
        }
        perform(&mut frontend.core, &mut self.reactor);
        if let Some(line) = &mut frontend.line {
            let ask = frontend.core.ask();
            if !ask.is_empty() && line.asks.has_room() {
                line.asks.push(Box::new(std::mem::take(ask)));
                if let Some(ring) = line.asks.wants_wake() {
                    self.reactor.wake(ring);
                }
            }
        }
    }

    /// One reading of the clock for all requests of a turn, and none for a turn without any.
    fn measure_frontend(&mut self) {
        let Some(frontend) = self.frontend.as_mut().filter(|each| each.core.has_requests()) else {
            return;
        };
        frontend.core.handle_turn_ended(self.origin.elapsed().saturating_sub(self.now));
    }

    fn frontend_after_log(&mut self) {
        let (Some(frontend), Some(log)) = (&mut self.frontend, &mut self.log) else { return };
        if frontend.line.is_some() {
            return;
        }
        let reply = log.core().reply(frontend.core.id());
        if !reply.is_empty() {
            // The log's part of the turn may have been the longer one.
            frontend.core.set_now(self.origin.elapsed());
            frontend.core.handle_reply(reply);
            frontend.core.settle(self.now);
            perform(&mut frontend.core, &mut self.reactor);
        }
    }

    /// Sends what there is. A client takes one send at a time, so the answers that came while its
    /// last one was under way need a further turn; who has stopped reading is not waited for.
    fn send_last(&mut self) -> Result<(), Failure> {
        for _ in 0..LAST_TURNS {
            self.reactor.wait(Duration::ZERO)?;
            while let Some(event) = self.reactor.poll_event() {
                self.handle(event)?;
            }
            if let Some(frontend) = &mut self.frontend {
                frontend.core.settle(self.now);
                perform(&mut frontend.core, &mut self.reactor);
            }
        }
        Ok(self.reactor.wait(Duration::ZERO)?)
    }

    fn is_finished(&self) -> bool {
        if !self.switch.is_stopping() {
            return false;
        }
        match &self.log {
            Some(log) => log.is_stopped(),
            // What the log core posted before it stopped is seen here at the latest, after the
            // switch: answers to durable writes still leave.
            None => self.switch.is_log_stopped() && !self.has_mail(),
        }
    }
}

impl CoreLoop for Core {
    fn turn(&mut self) -> bool {
        match self.run_turn() {
            Ok(true) => true,
            Ok(false) => {
                if self.log.is_some() {
                    self.switch.announce_log_stopped();
                }
                // Answers that are ready leave before the sockets close.
                if let Err(error) = self.send_last() {
                    let message = "answers were lost at the stop";
                    log_event!(Warn, message, "error" => &error as &dyn Display);
                }
                false
            }
            Err(failure) => {
                log_event!(Fatal, "the member cannot go on", "error" => &failure as &dyn Display);
                // At once and without unwinding: nothing may be acknowledged after a failed write.
                std::process::exit(1);
            }
        }
    }
}

/// The time of day, as far as this machine knows it.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn perform(core: &mut FrontendCore, reactor: &mut Reactor) {
    while let Some(action) = core.poll_action() {
        match action {
            SocketAction::Send(socket, buffer) => reactor.send(socket, buffer),
            SocketAction::Close(socket) => reactor.close(socket),
            SocketAction::Pause(socket) => reactor.pause(socket),
            SocketAction::Resume(socket) => reactor.resume(socket),
        }
    }
}
