//! HTTP/1.x on the client port: the JSON gateway, the health checks and the server's own pages.
//!
//! ```text
//! socket ─► http1::Connection ─► Gateway ─► Link ═► grpc::Connection ─► the services
//!                  ◄── JSON ◄────────┘        ◄═
//! ```
//!
//! A JSON call is a gRPC call of our own, as in etcd. The [`Gateway`] translates and holds both
//! ends of the HTTP/2 connection between ([`Link`] and [`grpc::Connection`]); its owner serves the
//! latter as it serves a socket's, carrying the bytes over with [`Gateway::poll_request_bytes`] and
//! [`Gateway::carry_answers`]. What the gateway cannot know itself it asks for ([`Wish`]).
//!
//! Invariants:
//! - One request of a client is worked on at a time.
//! - Nothing is translated, and no request taken, for a client that does not read:
//!   [`OUTPUT_BYTES_HIGH`] bounds what waits for it, and the calls behind it are held up by their
//!   windows.
//! - A client that sends nothing more has gone: its call is given up, as Go's server does, and the
//!   services clean up as after any client that cancels.
//! - A turn does [`TURN_STEPS`] steps for a client, whatever it has sent.

mod access;
mod answer;
mod call;
mod coding;
mod health;
pub mod json;
mod link;
mod query;
mod route;
mod upgrade;

use std::rc::Rc;
use std::time::Duration;

use super::grpc::{self, MethodTable};
use super::http1::{self, Connection, INPUT_BYTES_HIGH, Length, Request};

pub use access::Access;
use answer::{Plain, json_error};
use call::{Call, Metadata};
pub use coding::prefers_gzip;
use health::Checks;
pub use health::{AlarmKind, Facts, Notice};
use link::Link;
use route::{Page, Rpc, Shape};

/// Output that may wait for a client before nothing more is made for it.
const OUTPUT_BYTES_HIGH: usize = 256 << 10;
/// What is translated in one go.
const STEP_BYTES: usize = 64 << 10;
/// Requests that are begun and steps of answers that are made in a turn: a fraction of a
/// millisecond of a core that others wait for.
const TURN_STEPS: usize = 16;
/// Requests of a stream that may wait for the services before no more are read.
const UNSENT_BYTES_HIGH: usize = 1 << 20;

/// What flags decide about HTTP/1.x, for all connections of a core.
#[derive(Debug)]
pub struct Setup {
    /// Who may ask.
    pub access: Access,
    /// `--enable-grpc-gateway`.
    pub serves_json: bool,
    /// The limits of the calls.
    pub grpc: grpc::Config,
    /// The RPCs that are served.
    pub methods: Rc<MethodTable>,
}

impl Setup {
    /// The largest JSON value of a request: base64 of the largest message, and as much again for
    /// what stands around it.
    fn json_bytes_max(&self) -> usize {
        self.grpc.message_bytes_max.saturating_mul(4).saturating_add(1 << 20)
    }
}

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A client address.
    Client,
    /// An address of `--listen-metrics-urls`.
    Metrics,
}

/// What the gateway asks its owner for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The state of the member: [`Gateway::handle_facts`].
    Facts,
    /// The metrics, for a client that takes these types: [`Gateway::handle_page`].
    Metrics {
        /// The field `accept`.
        accept: String,
        /// The field `accept-encoding`.
        accept_encoding: String,
    },
    /// What is told for debugging: [`Gateway::handle_page`].
    Vars,
}

/// A page that the owner made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageText {
    /// The status.
    pub status: u16,
    /// The fields, by name in ascending order.
    pub fields: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What is being done.
#[derive(Debug)]
enum Work {
    Idle,
    Call(Box<Call>),
    Checks(Box<Checks>),
    Version,
    /// Waits for a page of the owner's.
    Page,
    /// Answered; the rest of the request is passed over.
    Answered,
}

/// One client.
#[derive(Debug)]
pub struct Gateway {
    http: Connection,
    setup: Rc<Setup>,
    door: Door,
    services: Option<Services>,
    work: Work,
    /// Of the answers: what a browser may do with them.
    cors: Vec<(&'static str, String)>,
    wish: Option<Wish>,
    notices: Vec<Notice>,
    /// What may be done still in this turn.
    steps_left: usize,
}

/// Both ends of the connection to the services, and what was read from one for the other.
#[derive(Debug)]
struct Services {
    link: Link,
    grpc: Box<grpc::Connection>,
    carried: Vec<u8>,
}

impl Gateway {
    /// A client that has just connected.
    #[must_use]
    pub fn new(setup: Rc<Setup>, door: Door) -> Self {
        Self {
            http: Connection::default(),
            setup,
            door,
            services: None,
            work: Work::Idle,
            cors: Vec::new(),
            wish: None,
            notices: Vec::new(),
            steps_left: TURN_STEPS,
        }
    }

    /// A turn begins.
    pub fn handle_turn(&mut self) {
        self.steps_left = TURN_STEPS;
    }

    /// Tells the time of day.
    pub fn handle_wall_clock(&mut self, since_epoch: Duration) {
        self.http.handle_wall_clock(since_epoch);
    }

    /// Bytes came. [`Self::advance`] does something about them.
    pub fn handle_received(&mut self, bytes: &[u8], now: Duration) {
        self.http.handle_received(bytes, now);
    }

    /// Time passed.
    pub fn handle_tick(&mut self, now: Duration) {
        self.http.handle_tick(now);
        if let Some(services) = &mut self.services {
            services.grpc.http2().handle_tick(now);
        }
    }

    /// The client sends nothing more. Calls that are not answered are given up once they were read
    /// to their end, and it is told so: it may have closed one direction only.
    pub fn handle_half_closed(&mut self) {
        self.http.handle_half_closed();
    }

    /// The member goes away: the present request is answered, no other taken.
    pub fn shut_down(&mut self) {
        self.http.shut_down();
    }

    /// What the owner knows of the member.
    pub fn handle_facts(&mut self, facts: &Facts) {
        match std::mem::replace(&mut self.work, Work::Idle) {
            Work::Version => {
                let body = facts.version_json();
                let fields = [("Content-Type", "application/json")];
                self.answer(&Plain { status: 200, fields: &fields, late: &[], body: &body });
            }
            Work::Checks(mut checks) => {
                checks.handle_facts(facts, &mut self.notices);
                self.work = Work::Checks(checks);
            }
            other => self.work = other,
        }
    }

    /// A page that the owner made.
    pub fn handle_page(&mut self, page: &PageText) {
        if !matches!(self.work, Work::Page) {
            return;
        }
        let fields: Vec<(&str, &str)> =
            page.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = &page.body;
        self.answer(&Plain { status: page.status, fields: &fields, late: &[], body });
    }

    /// Does what can be done, until the client, the services or the owner have to do something, or
    /// the turn's steps are used up.
    pub fn advance(&mut self, now: Duration) {
        loop {
            let mut is_idle = true;
            while self.reads_on()
                && let Some(event) = self.http.poll_event(now)
            {
                is_idle = false;
                self.handle_event(event, now);
            }
            if self.http.is_deserted() {
                self.give_up();
            }
            if self.steps_left > 0 && self.step(now) {
                self.steps_left -= 1;
                is_idle = false;
            }
            if is_idle {
                return;
            }
        }
    }

    /// What the owner is asked for, once.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wish.take()
    }

    /// What the owner should write into its log.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        if self.notices.is_empty() { None } else { Some(self.notices.remove(0)) }
    }

    /// The services' end of the inner connection, if there is one.
    pub fn grpc(&mut self) -> Option<&mut grpc::Connection> {
        Some(&mut self.services.as_mut()?.grpc)
    }

    /// Whether the owner or the services have to do something.
    #[must_use]
    pub fn has_business(&self) -> bool {
        let has_bytes = self.services.as_ref().is_some_and(|services| services.link.has_output());
        has_bytes || self.wish.is_some() || !self.notices.is_empty() || self.has_more()
    }

    /// Bytes for [`Self::grpc`], as if from a socket. The buffer comes back with
    /// [`Self::recycle`].
    pub fn poll_request_bytes(&mut self) -> Option<Vec<u8>> {
        let services = self.services.as_mut()?;
        let output = services.link.output();
        if output.is_empty() {
            return None;
        }
        let spare = std::mem::take(&mut services.carried);
        Some(std::mem::replace(output, spare))
    }

    /// Takes the buffer of [`Self::poll_request_bytes`] back.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if let Some(services) = &mut self.services {
            buffer.clear();
            services.carried = buffer;
        }
    }

    /// Takes what [`Self::grpc`] has to write; `false` if there was nothing.
    pub fn carry_answers(&mut self) -> bool {
        let Some(services) = &mut self.services else { return false };
        let http2 = services.grpc.http2();
        if !http2.has_output() {
            return false;
        }
        services.carried.clear();
        http2.swap_output(&mut services.carried);
        let Services { link, carried, .. } = services;
        link.handle_bytes(carried);
        carried.clear();
        true
    }

    /// What is to be written to the socket.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.http.output()
    }

    /// Whether the client has sent more than is looked at for now.
    #[must_use]
    pub fn wants_pause(&self) -> bool {
        // A head has a bound of its own, and until it is there nothing else can be done.
        let is_ahead = self.http.input_bytes() > INPUT_BYTES_HIGH && !self.http.awaits_head();
        is_ahead || self.http.output_bytes() >= OUTPUT_BYTES_HIGH
    }

    /// Whether the connection is to be closed once its output has left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.http.is_over()
    }

    /// Bytes that are held for the client: of answers, and of a request that is not whole.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let link = self.services.as_ref().map_or(0, |services| services.link.held_bytes());
        let call = if let Work::Call(call) = &self.work { call.held_bytes() } else { 0 };
        link + call + self.http.output_bytes()
    }

    /// Whether the next bytes of the request are wanted.
    fn reads_on(&self) -> bool {
        match &self.work {
            // What comes next may be another request.
            Work::Idle | Work::Answered => self.steps_left > 0 && self.has_room(),
            Work::Call(_) => {
                let services = self.services.as_ref();
                // Pings are answered at once, so whoever sends them has to read.
                (self.has_room() || !self.http.is_upgraded())
                    && services
                        .is_none_or(|services| services.link.unsent_bytes() < UNSENT_BYTES_HIGH)
            }
            Work::Checks(_) | Work::Version | Work::Page => true,
        }
    }

    fn has_room(&self) -> bool {
        self.http.output_bytes() < OUTPUT_BYTES_HIGH
    }

    /// Whether the turn's steps were too few. A turn that finds nothing to do uses none, so this
    /// does not keep a core awake.
    fn has_more(&self) -> bool {
        let is_idle = matches!(self.work, Work::Idle) && self.http.input_bytes() == 0;
        self.steps_left == 0 && !is_idle
    }

    /// The client of a request that was read to its end is gone.
    fn give_up(&mut self) {
        let is_given_up = match &self.work {
            Work::Call(_) => true,
            Work::Checks(checks) => checks.awaits_others(),
            Work::Idle | Work::Version | Work::Page | Work::Answered => false,
        };
        if let (true, Some(services)) = (is_given_up, &mut self.services) {
            services.link.give_up();
        }
    }

    fn handle_event(&mut self, event: http1::Event, now: Duration) {
        match event {
            http1::Event::Request(request) => {
                self.steps_left -= 1;
                self.handle_request(&request, now);
            }
            http1::Event::Body(bytes) => {
                if let (Work::Call(call), Some(services)) = (&mut self.work, &mut self.services) {
                    call.handle_body(&bytes, &mut services.link);
                }
            }
            http1::Event::BodyEnd => {
                if let (Work::Call(call), Some(services)) = (&mut self.work, &mut self.services) {
                    call.handle_body_end(&mut services.link);
                }
            }
            http1::Event::BodyBroken(what) => {
                if let (Work::Call(call), Some(services)) = (&mut self.work, &mut self.services) {
                    call.handle_body_broken(what, &mut services.link);
                }
            }
        }
    }

    fn handle_request(&mut self, request: &Request, now: Duration) {
        self.cors.clear();
        self.work = Work::Answered;
        if request.raw_path == "*" && request.method == "OPTIONS" {
            // About the server, not about anything on it.
            return self.answer(&Plain { status: 200, fields: &[], late: &[], body: b"" });
        }
        let mut path = request.path.clone();
        if let Some(rest) = path.strip_prefix(b"/v3beta/") {
            path = [b"/v3/", rest].concat();
        }
        if self.door == Door::Client && !self.check_access(request) {
            return;
        }
        if request.method != "CONNECT" {
            let clean = route::cleaned(&path);
            if clean != path {
                return self.redirect(request, &clean);
            }
        }
        // Go's router cuts a path at its slashes before it resolves escapes.
        let mut parts = request.raw_path.split('/').skip(1);
        let is_cut = |part: &str| !part.to_ascii_lowercase().contains("%2f");
        let is_below = parts.next().is_some_and(is_cut);
        if self.door == Door::Client && self.setup.serves_json && is_below {
            if let Some(rest) = path.strip_prefix(b"/v3/") {
                if upgrade::is_wanted(request) {
                    return self.handle_upgrade(request, rest, now);
                }
                return self.handle_json(request, rest, now);
            }
            if path == b"/v3" {
                return self.redirect(request, b"/v3/");
            }
        }
        let page = route::find_page(&path).filter(|_| is_cut(&request.raw_path));
        match page {
            Some(Page::Version | Page::Vars) if self.door == Door::Metrics => self.not_found(),
            Some(page) => self.handle_page_request(request, page, now),
            None => self.not_found(),
        }
    }

    /// Whether the request is to be looked at any further.
    fn check_access(&mut self, request: &Request) -> bool {
        let host = access::host_name(&request.host);
        let setup = Rc::clone(&self.setup);
        if !setup.access.admits_host(host) {
            self.notices.push(Notice::HostRejected(host.to_owned()));
            self.error(421, &access::unknown_host_text(host));
            return false;
        }
        let origin = String::from_utf8_lossy(request.field("origin").unwrap_or_default());
        if let Some(origin) = setup.access.allowed_origin(&origin) {
            self.cors.push(("Access-Control-Allow-Headers", answer::CORS_FIELDS.into()));
            self.cors.push(("Access-Control-Allow-Methods", answer::CORS_METHODS.into()));
            self.cors.push(("Access-Control-Allow-Origin", origin.to_owned()));
        }
        if request.method == "OPTIONS" {
            self.answer(&Plain { status: 200, fields: &[], late: &[], body: b"" });
            return false;
        }
        true
    }

    fn handle_json(&mut self, request: &Request, path: &[u8], now: Duration) {
        let mut method = request.method.as_str();
        let overriding =
            String::from_utf8_lossy(request.field("x-http-method-override").unwrap_or_default())
                .to_ascii_uppercase();
        let is_form =
            request.field("content-type") == Some(b"application/x-www-form-urlencoded".as_slice());
        if method == "POST" && is_form && !overriding.is_empty() {
            method = &overriding;
        }
        let Some(rpc) = route::find_rpc(path) else {
            return self.json_answer(404, 5, "Not Found");
        };
        if method != "POST" {
            return self.json_answer(501, 12, "Method Not Allowed");
        }
        let metadata = match call::metadata(request) {
            Ok(metadata) => metadata,
            Err(text) => return self.json_answer(400, 3, &text),
        };
        if metadata.is_late && rpc.shape != Shape::Unary {
            let (code, text) = call::LATE;
            return self.json_answer(answer::http_status(code), code, text);
        }
        let takes_trailers = call::takes_trailers(request);
        self.begin_call(rpc, metadata, takes_trailers, now);
    }

    /// A client that wants to speak WebSocket: its messages are the body of a call, and the lines
    /// of the answer are messages to it.
    fn handle_upgrade(&mut self, request: &Request, path: &[u8], now: Duration) {
        let accepted = match upgrade::accepted(request) {
            Ok(accepted) => accepted,
            Err((status, text)) => {
                let (fields, body) = (upgrade::ERROR_FIELDS, text.as_bytes());
                return self.answer(&Plain { status, fields, late: &[], body });
            }
        };
        self.http.upgrade(&accepted.key, accepted.protocol);
        if self.http.is_over() {
            return;
        }
        // Whatever the method was, it counts as the one that calls have.
        match route::find_rpc(path) {
            Some(rpc) => {
                let metadata = call::authorized(accepted.authorization);
                self.begin_call(rpc, metadata, false, now);
            }
            None => self.json_answer(404, 5, "Not Found"),
        }
    }

    fn begin_call(&mut self, rpc: Rpc, metadata: Metadata, in_chunks: bool, now: Duration) {
        let json_bytes_max = self.setup.json_bytes_max();
        let mut call = Box::new(Call::new(rpc, metadata, in_chunks, json_bytes_max));
        let Some(services) = self.services(now) else { return };
        call.begin(&mut services.link);
        self.http.want_body();
        self.work = Work::Call(call);
    }

    fn handle_page_request(&mut self, request: &Request, page: Page, now: Duration) {
        if request.method != "GET" && page != Page::Metrics {
            let path = String::from_utf8_lossy(&request.path).into_owned();
            if !matches!(page, Page::Version | Page::Vars) {
                self.notices.push(Notice::MethodNotAllowed(path));
            }
            return self.method_not_allowed();
        }
        let text = |name| String::from_utf8_lossy(request.field(name).unwrap_or_default());
        match page {
            Page::Version => {
                self.work = Work::Version;
                self.wish = Some(Wish::Facts);
            }
            Page::Metrics => {
                self.work = Work::Page;
                let (accept, encoding) = (text("accept"), text("accept-encoding"));
                let (accept, accept_encoding) = (accept.into_owned(), encoding.into_owned());
                self.wish = Some(Wish::Metrics { accept, accept_encoding });
            }
            Page::Vars => {
                self.work = Work::Page;
                self.wish = Some(Wish::Vars);
            }
            Page::Health | Page::Livez(_) | Page::Readyz(_) => {
                let path = String::from_utf8_lossy(&request.path).into_owned();
                let checks = Checks::new(page, path, &request.query, &mut self.notices);
                if self.services(now).is_none() {
                    return;
                }
                self.work = Work::Checks(Box::new(checks));
                self.wish = Some(Wish::Facts);
            }
        }
    }

    /// The connection to the services, made when it is first needed. One that is used up is not
    /// replaced, because the owner knows its calls by their numbers, and there may be remains of
    /// them: the client is sent away, which it is used to, and comes back with a new one.
    fn services(&mut self, now: Duration) -> Option<&mut Services> {
        let setup = &self.setup;
        let services = self.services.get_or_insert_with(|| {
            let methods = Rc::clone(&setup.methods);
            let grpc = Box::new(grpc::Connection::new(&setup.grpc, methods, now));
            Services { link: Link::default(), grpc, carried: Vec::new() }
        });
        if !services.link.has_ids() {
            self.http.abort();
            return None;
        }
        Some(services)
    }

    /// Takes in what the services answered and says what can be said; `false` if there was nothing.
    fn step(&mut self, _now: Duration) -> bool {
        let has_room = self.has_room();
        match std::mem::replace(&mut self.work, Work::Idle) {
            Work::Call(mut call) => {
                let services = self.services.as_mut().expect("a call has a connection");
                if !services.link.has_ids() {
                    // The next request will find no connection to the services.
                    self.http.shut_down();
                }
                let mut has_moved = false;
                if has_room {
                    has_moved = call.step(&mut services.link, &mut self.http, &self.cors);
                }
                self.work = if call.is_answered() {
                    services.link.cancel();
                    Work::Answered
                } else {
                    Work::Call(call)
                };
                has_moved
            }
            Work::Checks(mut checks) => {
                let services = self.services.as_mut().expect("a check has a connection");
                let has_moved = checks.step(&mut services.link, &mut self.notices);
                if let Some(result) = checks.poll_result(&mut self.notices) {
                    let (fields, late) = (&result.fields, &result.late);
                    let body = result.body.as_bytes();
                    self.answer(&Plain { status: result.status, fields, late, body });
                } else {
                    self.work = Work::Checks(checks);
                }
                has_moved
            }
            other => {
                self.work = other;
                false
            }
        }
    }

    /// Answers with a body that is there.
    fn answer(&mut self, plain: &Plain<'_>) {
        answer::write(&mut self.http, &self.cors, plain, false);
        self.work = Work::Answered;
    }

    /// Answers as Go's `http.Error` does.
    fn error(&mut self, status: u16, text: &str) {
        let body = format!("{text}\n");
        let fields = answer::ERROR_FIELDS;
        self.answer(&Plain { status, fields, late: &[], body: body.as_bytes() });
    }

    fn not_found(&mut self) {
        self.error(404, "404 page not found");
    }

    fn method_not_allowed(&mut self) {
        let fields = answer::NOT_ALLOWED_FIELDS;
        let body = b"Method Not Allowed\n";
        self.answer(&Plain { status: 405, fields, late: &[], body });
    }

    fn json_answer(&mut self, status: u16, code: u8, message: &str) {
        let body = json_error(code, message, json::Escape::Json);
        let fields = [("Content-Type", "application/json")];
        self.answer(&Plain { status, fields: &fields, late: &[], body: &body });
    }

    fn redirect(&mut self, request: &Request, to: &[u8]) {
        let mut location = answer::escaped_path(to);
        if !request.query.is_empty() {
            location.push('?');
            location.push_str(&request.query);
        }
        let is_get = request.method == "GET";
        let has_page = is_get || request.method == "HEAD";
        let mut fields = vec![("Location", location.as_str())];
        if has_page {
            fields.insert(0, ("Content-Type", "text/html; charset=utf-8"));
        }
        let shown = answer::html_escaped(&location);
        let body = format!("<a href=\"{shown}\">Temporary Redirect</a>.\n\n");
        if request.method == "HEAD" {
            self.http.begin(307, &answer::join(&self.cors, &fields), &[], Length::Untold);
            return self.http.end();
        }
        let body = if is_get { body.as_bytes() } else { b"" };
        self.answer(&Plain { status: 307, fields: &fields, late: &[], body });
    }
}

#[cfg(test)]
mod tests;
