//! One connection: requests in turn, and the bytes of their answers.

use std::time::Duration;

use super::body::{Body, Found};
use super::date::http_date;
use super::head::{Refused, Request, parse};
use super::websocket::{self, WebSocket};

/// The largest head, as Go's server has it.
pub const HEAD_BYTES_MAX: usize = 1 << 20;
/// Input that may wait for the end of an answer before the owner should stop reading.
pub const INPUT_BYTES_HIGH: usize = 64 << 10;
/// What is read of a body that nobody wanted, to get to the next request.
const DISCARD_BYTES_MAX: usize = 256 << 10;
/// How long a head may take, from its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Space in the input that is worth being given back.
const SPARE_BYTES_MAX: usize = 64 << 10;

/// Something that the client did.
#[derive(Debug)]
pub enum Event {
    /// A request; its body, if any, follows.
    Request(Box<Request>),
    /// A piece of its body, which may be empty.
    Body(Vec<u8>),
    /// Its body has come whole.
    BodyEnd,
    /// Its body is broken, in the words of Go; the connection ends with the answer.
    BodyBroken(&'static str),
}

/// How an answer's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// By its size.
    Known(usize),
    /// By chunks, or by the connection's end for a client that knows none.
    Unknown,
    /// There is no body and nothing is said about its size: the answer to HEAD.
    Untold,
}

/// What is known of the request being answered.
#[derive(Debug)]
struct Exchange {
    is_head: bool,
    is_modern: bool,
    wants_keep: bool,
    expects_continue: bool,
    body: Body,
    body_reported: bool,
    discarded: usize,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Awaited,
    Begun { is_chunked: bool },
    Ended,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Connection {
    input: Vec<u8>,
    at: usize,
    /// How much of the input holds no end of a head.
    searched: usize,
    exchange: Option<Exchange>,
    /// Since the present request, the last one, asked for it.
    socket: Option<WebSocket>,
    head_deadline: Option<Duration>,
    /// There was a request.
    has_spoken: bool,
    output: Vec<u8>,
    date: Option<(u64, String)>,
    wall_clock: Duration,
    ends: bool,
    input_ends: bool,
    is_over: bool,
}

impl Connection {
    /// Tells the time of day, for the answers' dates.
    pub fn handle_wall_clock(&mut self, since_epoch: Duration) {
        self.wall_clock = since_epoch;
    }

    /// Bytes came.
    pub fn handle_received(&mut self, bytes: &[u8], now: Duration) {
        if self.is_over {
            return;
        }
        self.input.extend_from_slice(bytes);
        if self.exchange.is_none() && self.head_deadline.is_none() {
            self.head_deadline = Some(now.saturating_add(HEAD_TIMEOUT));
        }
    }

    /// Time passed: who has not sent a head for so long is not waited for.
    pub fn handle_tick(&mut self, now: Duration) {
        if self.exchange.is_none() && self.head_deadline.is_some_and(|deadline| deadline <= now) {
            self.is_over = true;
        }
    }

    /// Nothing more comes: what has come is answered still.
    pub fn handle_half_closed(&mut self) {
        self.input_ends = true;
    }

    /// The connection ends with the present answer, or at once if there is none.
    pub fn shut_down(&mut self) {
        self.ends = true;
        self.is_over |= self.exchange.is_none();
    }

    /// Whether everything was said; the output should be written and the connection closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether what has come is the beginning of a head, whose rest is needed to go on.
    #[must_use]
    pub fn awaits_head(&self) -> bool {
        self.exchange.is_none() && self.searched > 0
    }

    /// Whether the client sends nothing more, and the present request was read to its end.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.input_ends && self.exchange.as_ref().is_some_and(|exchange| exchange.body_reported)
    }

    /// Bytes that wait to be looked at.
    #[must_use]
    pub fn input_bytes(&self) -> usize {
        self.input.len() - self.at
    }

    /// Bytes of answers that wait to be written.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// What is to be written.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What the client did next. Polled until `None`; the owner may stop at any event and go on
    /// later.
    pub fn poll_event(&mut self, now: Duration) -> Option<Event> {
        loop {
            if self.is_over {
                return None;
            }
            if self.exchange.is_none() {
                return self.poll_head();
            }
            if self.socket.is_some() {
                return self.poll_socket();
            }
            match self.poll_body() {
                Polled::Event(event) => return Some(event),
                Polled::Wait => return None,
                Polled::Next => self.begin_next(now),
            }
        }
    }

    fn poll_head(&mut self) -> Option<Event> {
        // Empty lines before a request are noise of old clients.
        while self.searched == 0 && matches!(self.input.get(self.at), Some(b'\r' | b'\n')) {
            self.at += 1;
        }
        let input = &self.input[self.at..];
        let Some(len) = head_len(input, self.searched) else {
            self.searched = input.len().saturating_sub(3);
            if input.len() > HEAD_BYTES_MAX {
                self.refuse(Refused::TooLarge);
            } else if self.input_ends && is_http(input, self.has_spoken) {
                // As long as no line has come, etcd does not know that HTTP is spoken.
                self.refuse(Refused::BadRequest(""));
            } else {
                self.is_over |= self.input_ends;
                self.compact();
            }
            return None;
        };
        let head = match parse(&input[..len]) {
            Ok(head) if len <= HEAD_BYTES_MAX => head,
            Ok(_) => {
                self.refuse(Refused::TooLarge);
                return None;
            }
            Err(refused) => {
                self.refuse(refused);
                return None;
            }
        };
        self.at += len;
        self.searched = 0;
        self.has_spoken = true;
        self.head_deadline = None;
        self.ends |= head.wants_close;
        self.exchange = Some(Exchange {
            is_head: head.request.method == "HEAD",
            is_modern: head.is_modern,
            wants_keep: head.wants_keep,
            expects_continue: head.expects_continue,
            body: head.body,
            body_reported: false,
            discarded: 0,
            answer: Answer::Awaited,
        });
        Some(Event::Request(Box::new(head.request)))
    }

    fn poll_body(&mut self) -> Polled {
        let exchange = self.exchange.as_mut().expect("the caller looked at it");
        let is_answered = exchange.answer == Answer::Ended;
        if exchange.body_reported {
            return if is_answered { Polled::Next } else { Polled::Wait };
        }
        loop {
            let input = &self.input[self.at..];
            let found = exchange.body.poll(input);
            match found {
                Found::Content(take) if is_answered => {
                    exchange.discarded += take;
                    self.at += take;
                    if exchange.discarded > DISCARD_BYTES_MAX {
                        self.is_over = true;
                        return Polled::Wait;
                    }
                }
                Found::Content(take) => {
                    let piece = input[..take].to_vec();
                    self.at += take;
                    return Polled::Event(Event::Body(piece));
                }
                Found::Skip(count) => self.at += count,
                Found::NeedMore if self.input_ends => {
                    exchange.body_reported = true;
                    // Nothing of it may be taken for a request. That the connection ends the
                    // client knows.
                    self.at = self.input.len();
                    if is_answered {
                        return Polled::Next;
                    }
                    return Polled::Event(Event::BodyBroken("unexpected EOF"));
                }
                Found::NeedMore => {
                    self.compact();
                    return Polled::Wait;
                }
                Found::End => {
                    exchange.body_reported = true;
                    if is_answered {
                        return Polled::Next;
                    }
                    return Polled::Event(Event::BodyEnd);
                }
                Found::Broken(what) => {
                    exchange.body_reported = true;
                    self.ends = true;
                    if is_answered {
                        self.is_over = true;
                        return Polled::Wait;
                    }
                    return Polled::Event(Event::BodyBroken(what));
                }
            }
        }
    }

    /// The body of the last request are the messages that come, each with a line end.
    fn poll_socket(&mut self) -> Option<Event> {
        let socket = self.socket.as_mut()?;
        let (used, found) = socket.poll(&self.input[self.at..], &mut self.output);
        self.at += used;
        match found {
            websocket::Found::Payload(payload) => return Some(Event::Body(payload)),
            websocket::Found::Control => return Some(Event::Body(Vec::new())),
            websocket::Found::MessageEnd => return Some(Event::Body(b"\n".to_vec())),
            websocket::Found::NeedMore => {
                self.is_over |= self.input_ends;
                self.compact();
            }
            websocket::Found::Ended => self.is_over = true,
        }
        None
    }

    fn begin_next(&mut self, now: Duration) {
        self.exchange = None;
        if self.ends {
            self.is_over = true;
            return;
        }
        self.compact();
        if self.at < self.input.len() {
            self.head_deadline = Some(now.saturating_add(HEAD_TIMEOUT));
        }
    }

    /// Gives the room of what was read back. What is left moves only if it is the smaller part, so
    /// that requests behind each other do not move all that follows each time.
    fn compact(&mut self) {
        if self.at < self.input.len() - self.at {
            return;
        }
        self.input.drain(..self.at);
        self.at = 0;
        if self.input.is_empty() && self.input.capacity() > SPARE_BYTES_MAX {
            self.input = Vec::new();
        }
    }

    /// The owner wants the body: a client that waits for that word is given it.
    pub fn want_body(&mut self) {
        if let Some(exchange) = &mut self.exchange
            && exchange.answer == Answer::Awaited
            && std::mem::take(&mut exchange.expects_continue)
        {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Leaves HTTP for WebSocket; `accept` is the answer to the client's key. Who has sent
    /// something without waiting for that is sent away, as by the library that etcd uses.
    pub fn upgrade(&mut self, accept: &str, protocol: Option<&str>) {
        assert!(self.exchange.is_some() && self.socket.is_none(), "a request asks for it once");
        if self.input_bytes() > 0 {
            self.is_over = true;
            return;
        }
        self.socket = Some(WebSocket::default());
        let out = &mut self.output;
        put(out, &["HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"]);
        put(out, &["Connection: Upgrade\r\nSec-WebSocket-Accept: ", accept, "\r\n"]);
        if let Some(protocol) = protocol {
            put(out, &["Sec-WebSocket-Protocol: ", protocol, "\r\n"]);
        }
        put(out, &["\r\n"]);
    }

    /// Whether the connection has left HTTP.
    #[must_use]
    pub fn is_upgraded(&self) -> bool {
        self.socket.is_some()
    }

    /// Begins the answer. The fields of `late` stand behind the date, as Go has those that it adds
    /// itself.
    pub fn begin(
        &mut self,
        status: u16,
        fields: &[(&str, &str)],
        late: &[(&str, &str)],
        length: Length,
    ) {
        let date = self.date().to_owned();
        let Some(exchange) = &mut self.exchange else { return };
        assert!(exchange.answer == Answer::Awaited, "an answer was begun twice");
        if self.socket.is_some() {
            // There is no status and there are no fields any more; the lines say it all.
            exchange.answer = Answer::Begun { is_chunked: false };
            return;
        }
        // A client that was never told to send its body may or may not do so.
        self.ends |= exchange.expects_continue;
        let is_old = !exchange.is_modern;
        let is_chunked = length == Length::Unknown && exchange.is_modern && !exchange.is_head;
        let ends_body = length == Length::Unknown && is_old && !exchange.is_head;
        self.ends |= ends_body;
        exchange.answer = Answer::Begun { is_chunked };
        let out = &mut self.output;
        let version = if exchange.is_modern { "HTTP/1.1" } else { "HTTP/1.0" };
        put(out, &[version, " ", &status.to_string(), " ", reason(status), "\r\n"]);
        for (name, value) in fields {
            put(out, &[name, ": ", value, "\r\n"]);
        }
        put(out, &["Date: ", &date, "\r\n"]);
        if let Length::Known(size) = length {
            put(out, &["Content-Length: ", &size.to_string(), "\r\n"]);
        }
        for (name, value) in late {
            put(out, &[name, ": ", value, "\r\n"]);
        }
        if self.ends && exchange.is_modern {
            put(out, &["Connection: close\r\n"]);
        } else if !self.ends && exchange.wants_keep {
            put(out, &["Connection: keep-alive\r\n"]);
        }
        if is_chunked {
            put(out, &["Transfer-Encoding: chunked\r\n"]);
        }
        put(out, &["\r\n"]);
    }

    /// Goes on with the answer's body.
    pub fn put(&mut self, bytes: &[u8]) {
        let Some(exchange) = &self.exchange else { return };
        let Answer::Begun { is_chunked } = exchange.answer else { return };
        if let Some(socket) = &mut self.socket {
            return socket.put(&mut self.output, bytes);
        }
        if bytes.is_empty() || exchange.is_head {
            return;
        }
        if is_chunked {
            put(&mut self.output, &[&format!("{:x}", bytes.len()), "\r\n"]);
        }
        self.output.extend_from_slice(bytes);
        if is_chunked {
            self.output.extend_from_slice(b"\r\n");
        }
    }

    /// Ends the answer.
    pub fn end(&mut self) {
        let Some(exchange) = &mut self.exchange else { return };
        if let Some(socket) = &mut self.socket {
            socket.end(&mut self.output);
            self.is_over = true;
        }
        if let Answer::Begun { is_chunked: true } = exchange.answer {
            self.output.extend_from_slice(b"0\r\n\r\n");
        }
        exchange.answer = Answer::Ended;
    }

    /// Ends the connection in the middle of an answer, so that its client does not take what it has
    /// for all of it.
    pub fn abort(&mut self) {
        self.is_over = true;
    }

    /// Answers what is no request, as Go's server does, and ends.
    fn refuse(&mut self, refused: Refused) {
        self.is_over = true;
        let text = match refused {
            Refused::BadRequest("") => "400 Bad Request".into(),
            Refused::BadRequest(text) => format!("400 Bad Request: {text}"),
            Refused::TooLarge => "431 Request Header Fields Too Large".into(),
            Refused::UnknownVersion => {
                "505 HTTP Version Not Supported: unsupported protocol version".into()
            }
            Refused::UnknownEncoding => "501 Not Implemented".into(),
            Refused::ExpectationFailed => {
                let date = self.date().to_owned();
                let out = &mut self.output;
                put(out, &["HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nDate: "]);
                put(out, &[&date, "\r\nContent-Length: 0\r\n\r\n"]);
                return;
            }
        };
        let body = if refused == Refused::UnknownEncoding {
            "Unsupported transfer encoding"
        } else {
            &text
        };
        put(&mut self.output, &["HTTP/1.1 ", &text, "\r\nContent-Type: text/plain; "]);
        put(&mut self.output, &["charset=utf-8\r\nConnection: close\r\n\r\n", body]);
    }

    fn date(&mut self) -> &str {
        let second = self.wall_clock.as_secs();
        if self.date.as_ref().is_none_or(|(at, _)| *at != second) {
            self.date = Some((second, http_date(self.wall_clock)));
        }
        let (_, text) = self.date.as_ref().expect("set above");
        text
    }
}

enum Polled {
    Event(Event),
    Wait,
    Next,
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Whether what a client has sent before its end is the beginning of a request.
fn is_http(input: &[u8], has_spoken: bool) -> bool {
    if has_spoken { !input.is_empty() } else { input.contains(&b'\n') }
}

/// The length of the head, its empty line included.
fn head_len(input: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(place) = input[at..].iter().position(|byte| *byte == b'\n') {
        at += place + 1;
        match input[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// What Go calls a status.
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        499 => "status code 499",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests;
