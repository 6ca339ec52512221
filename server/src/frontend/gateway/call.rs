//! One JSON call: from the request's body to the answer's.
//!
//! Invariants:
//! - An RPC with one request is called when the body has ended, as etcd's gateway does; what stands
//!   behind the first JSON value is passed over.
//! - An answer begins when its status is known: with its first message, or with its end.

use std::collections::VecDeque;

use super::super::http1::{Connection, Length, Request};
use super::answer::{Plain, WHOLE_BYTES_MAX, http_status, join, json_error, write};
use super::json::{Encoder, Escape, Scanner, Step, decode};
use super::link::{Ended, Link, LinkEvent};
use super::route::{Rpc, Shape};
use super::{OUTPUT_BYTES_HIGH, STEP_BYTES};

/// Metadata of one request beyond which further fields are left out: the HTTP/2 end takes no more.
const METADATA_BYTES_MAX: usize = 48 << 10;
const JSON: (&str, &str) = ("Content-Type", "application/json");
const GRPC: (&str, &str) = ("Grpc-Metadata-Content-Type", "application/grpc");

/// What the fields of a request say to the services.
#[derive(Debug, Default)]
pub struct Metadata {
    /// Names in lower case, and values.
    fields: Vec<(String, Vec<u8>)>,
    /// The client's time was over before it began.
    pub is_late: bool,
}

/// What who is late is told.
pub const LATE: (u8, &str) = (4, "context deadline exceeded");

/// How far the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Values are expected.
    Values,
    /// The one value has come; the rest of the body is passed over.
    Rest,
    /// Nothing more is looked at.
    Done,
}

/// A call.
#[derive(Debug)]
pub struct Call {
    rpc: Rpc,
    metadata: Metadata,
    in_chunks: bool,
    json_bytes_max: usize,
    reading: Reading,
    scanner: Scanner,
    json: Vec<u8>,
    /// The one request, waiting for the end of the body.
    request: Vec<u8>,
    has_headers: bool,
    has_begun: bool,
    messages: VecDeque<Vec<u8>>,
    encoder: Option<Encoder>,
    /// Of an answer's body what has not been put out.
    text: Vec<u8>,
    ended: Option<Ended>,
    is_answered: bool,
}

impl Call {
    /// A call whose body is to come.
    #[must_use]
    pub fn new(rpc: Rpc, metadata: Metadata, in_chunks: bool, json_bytes_max: usize) -> Self {
        Self {
            rpc,
            metadata,
            in_chunks,
            json_bytes_max,
            reading: Reading::Values,
            scanner: Scanner::default(),
            json: Vec::new(),
            request: Vec::new(),
            has_headers: false,
            has_begun: false,
            messages: VecDeque::new(),
            encoder: None,
            text: Vec::new(),
            ended: None,
            is_answered: false,
        }
    }

    /// Whether the answer has ended.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let messages: usize = self.messages.iter().map(Vec::len).sum();
        let answer = self.encoder.as_ref().map_or(0, Encoder::held_bytes) + self.text.len();
        messages + answer + self.json.len() + self.request.len()
    }

    /// Begins the call if its requests are a stream.
    pub fn begin(&mut self, link: &mut Link) {
        if self.rpc.shape == Shape::BothStream {
            self.open(link);
        }
    }

    fn open(&self, link: &mut Link) {
        let fields: Vec<(&str, &[u8])> = self
            .metadata
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        link.begin(self.rpc.path, &fields);
    }

    /// A piece of the body came.
    pub fn handle_body(&mut self, mut bytes: &[u8], link: &mut Link) {
        while self.reading == Reading::Values && !bytes.is_empty() {
            match self.scanner.scan(bytes) {
                Step::More => {
                    self.json.extend_from_slice(bytes);
                    bytes = &[];
                    if self.json.len() > self.json_bytes_max {
                        let max = self.json_bytes_max;
                        let text = format!("ringd: a JSON request is larger than {max} bytes");
                        self.fail(8, &text, link);
                    }
                }
                Step::End(count) => {
                    self.json.extend_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                    self.handle_value(link);
                }
                Step::Failed(text) => self.fail(3, &text, link),
            }
        }
    }

    /// The body has ended.
    pub fn handle_body_end(&mut self, link: &mut Link) {
        if self.reading == Reading::Values && self.scanner.is_begun() {
            if self.scanner.may_end() {
                self.handle_value(link);
            } else {
                self.fail(3, "unexpected EOF", link);
            }
        }
        if self.reading == Reading::Done {
            return;
        }
        self.reading = Reading::Done;
        if self.rpc.shape == Shape::BothStream {
            return link.close_send();
        }
        if self.metadata.is_late {
            let (code, message) = LATE;
            self.ended = Some(Ended { code, message: message.to_owned() });
            return;
        }
        // No value at all is a request whose fields are all unset.
        self.open(link);
        link.send(&std::mem::take(&mut self.request));
        link.close_send();
    }

    /// The body is broken.
    pub fn handle_body_broken(&mut self, what: &str, link: &mut Link) {
        if self.reading == Reading::Values {
            self.fail(3, what, link);
        } else {
            self.handle_body_end(link);
        }
    }

    fn handle_value(&mut self, link: &mut Link) {
        let begin = self.json.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
        let decoded = decode(&self.json[begin..], self.rpc.request);
        self.json.clear();
        self.scanner.begin();
        match decoded {
            Ok(message) if self.rpc.shape == Shape::BothStream => link.send(&message),
            Ok(message) => {
                self.request = message;
                self.reading = Reading::Rest;
            }
            Err(text) => self.fail(3, &text, link),
        }
    }

    /// The request is none. A stream is not told: it only hears that there are no further requests.
    fn fail(&mut self, code: u8, text: &str, link: &mut Link) {
        self.reading = Reading::Done;
        self.json = Vec::new();
        if self.rpc.shape == Shape::BothStream && code == 3 {
            return link.close_send();
        }
        self.ended = Some(Ended { code, message: text.to_owned() });
    }

    /// Takes in what the services answered and writes what there is room for; `false` if nothing
    /// came of it.
    pub fn step(
        &mut self,
        link: &mut Link,
        http: &mut Connection,
        cors: &[(&'static str, String)],
    ) -> bool {
        let mut has_moved = false;
        while self.ended.is_none()
            && self.messages.is_empty()
            && let Some(event) = link.poll_event()
        {
            has_moved = true;
            match event {
                LinkEvent::Headers => self.has_headers = true,
                LinkEvent::Message(message) => self.messages.push_back(message),
                LinkEvent::Ended(ended) => self.ended = Some(ended),
            }
        }
        if self.rpc.shape == Shape::Unary {
            while self.ended.is_none()
                && let Some(event) = link.poll_event()
            {
                if let LinkEvent::Ended(ended) = event {
                    self.ended = Some(ended);
                }
            }
            has_moved |= self.step_unary(http, cors);
        } else {
            has_moved |= self.step_stream(http, cors);
        }
        if self.messages.is_empty() && self.encoder.is_none() {
            link.release();
        }
        has_moved
    }

    fn step_unary(&mut self, http: &mut Connection, cors: &[(&'static str, String)]) -> bool {
        let Some(ended) = &self.ended else { return false };
        if ended.code != 0 {
            let body = json_error(ended.code, &ended.message, Escape::Json);
            let status = http_status(ended.code);
            let mut fields = vec![JSON];
            if self.has_headers {
                fields.push(GRPC);
            }
            if ended.code == 16 {
                fields.push(("WWW-Authenticate", &ended.message));
            }
            let plain = Plain { status, fields: &fields, late: &[], body: &body };
            write(http, cors, &plain, self.in_chunks);
            self.is_answered = true;
            return true;
        }
        if let Some(message) = self.messages.pop_front() {
            self.encoder = Some(Encoder::new(message, self.rpc.answer, Escape::Json));
        }
        let Some(encoder) = &mut self.encoder else {
            http.abort();
            self.is_answered = true;
            return true;
        };
        let stepped = encoder.step(&mut self.text, STEP_BYTES);
        let is_done = stepped.expect("our own services encode what they send");
        if !self.has_begun {
            let fields = join(cors, &[JSON, GRPC]);
            let is_whole = is_done && self.text.len() <= WHOLE_BYTES_MAX && !self.in_chunks;
            let length = if is_whole { Length::Known(self.text.len()) } else { Length::Unknown };
            http.begin(200, &fields, &[], length);
            self.has_begun = true;
        }
        http.put(&self.text);
        self.text.clear();
        if is_done {
            http.end();
            self.is_answered = true;
        }
        true
    }

    fn step_stream(&mut self, http: &mut Connection, cors: &[(&'static str, String)]) -> bool {
        let mut has_moved = false;
        while http.output().len() < OUTPUT_BYTES_HIGH {
            if self.encoder.is_none() {
                let Some(message) = self.messages.pop_front() else { break };
                self.begin_stream(http, cors, &[JSON, GRPC], 200);
                self.text.extend_from_slice(b"{\"result\":");
                self.encoder = Some(Encoder::new(message, self.rpc.answer, Escape::Html));
            }
            has_moved = true;
            let encoder = self.encoder.as_mut().expect("set above");
            let stepped = encoder.step(&mut self.text, STEP_BYTES);
            if stepped.expect("our own services encode what they send") {
                self.text.extend_from_slice(b"}\n");
                self.encoder = None;
            }
            http.put(&self.text);
            self.text.clear();
        }
        if self.encoder.is_some() || !self.messages.is_empty() {
            return has_moved;
        }
        let Some(ended) = self.ended.take() else { return has_moved };
        if ended.code == 0 {
            let fields = if self.has_headers { &[GRPC][..] } else { &[][..] };
            self.begin_stream(http, cors, fields, 200);
        } else {
            let status = http_status(ended.code);
            let mut line = b"{\"error\":".to_vec();
            line.extend_from_slice(&json_error(ended.code, &ended.message, Escape::Html));
            line.extend_from_slice(b"}\n");
            let fields = if self.has_headers { &[JSON, GRPC][..] } else { &[JSON][..] };
            self.begin_stream(http, cors, fields, status);
            http.put(&line);
        }
        http.end();
        self.is_answered = true;
        true
    }

    fn begin_stream(
        &mut self,
        http: &mut Connection,
        cors: &[(&'static str, String)],
        fields: &[(&str, &str)],
        status: u16,
    ) {
        if !std::mem::replace(&mut self.has_begun, true) {
            http.begin(status, &join(cors, fields), &[], Length::Unknown);
        }
    }
}

/// Whether a client understands trailers.
#[must_use]
pub fn takes_trailers(request: &Request) -> bool {
    let te = request.field("te").unwrap_or_default().to_ascii_lowercase();
    te.windows(8).any(|part| part == b"trailers")
}

/// The metadata of a call whose request says nothing but who asks.
#[must_use]
pub fn authorized(token: Option<Vec<u8>>) -> Metadata {
    let fields = token.map(|token| ("authorization".to_owned(), token)).into_iter().collect();
    Metadata { fields, is_late: false }
}

/// What of a request's fields becomes metadata of the call.
///
/// # Errors
/// What is wrong with one of them, in the words of etcd's gateway.
pub fn metadata(request: &Request) -> Result<Metadata, String> {
    let mut metadata = Metadata::default();
    let mut size = 0;
    for (name, value) in &request.fields {
        let key = match name.strip_prefix("grpc-metadata-") {
            Some(key) => key,
            None if name == "authorization" => name,
            None => continue,
        };
        if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) {
            continue;
        }
        let is_binary = key.ends_with("-bin");
        if !is_binary && !value.iter().all(|byte| (0x20..=0x7e).contains(byte)) {
            continue;
        }
        // gRPC keeps these for itself.
        let is_reserved = key.is_empty()
            || key.starts_with("grpc-")
            || matches!(key, "content-type" | "user-agent" | "te" | "host" | "connection");
        size += key.len() + value.len() + 32;
        if is_reserved || size > METADATA_BYTES_MAX {
            continue;
        }
        metadata.fields.push((key.to_owned(), value.clone()));
    }
    if let Some(text) = request.field("grpc-timeout").filter(|text| !text.is_empty()) {
        let text = String::from_utf8_lossy(text);
        let timeout = timeout(&text).ok_or_else(|| format!("invalid grpc-timeout: {text}"))?;
        match timeout {
            Timeout::None => {}
            Timeout::Late => metadata.is_late = true,
            Timeout::Some(text) => {
                metadata.fields.push(("grpc-timeout".to_owned(), text.into_bytes()));
            }
        }
    }
    Ok(metadata)
}

/// How long a client waits.
#[derive(Debug, PartialEq, Eq)]
enum Timeout {
    /// As long as it takes.
    None,
    /// Its time is over.
    Late,
    /// As gRPC writes it.
    Some(String),
}

/// A time-out as the gateway takes it, in the eight digits that gRPC allows.
fn timeout(text: &str) -> Option<Timeout> {
    let unit = text.chars().next_back()?;
    let count: i64 = text[..text.len() - unit.len_utf8()].parse().ok()?;
    let (mut count, mut unit) = (count, unit);
    let larger = |unit| match unit {
        'n' => Some(('u', 1000)),
        'u' => Some(('m', 1000)),
        'm' => Some(('S', 1000)),
        'S' => Some(('M', 60)),
        'M' => Some(('H', 60)),
        _ => None,
    };
    if unit != 'H' && larger(unit).is_none() {
        return None;
    }
    if count <= 0 {
        return Some(if count < 0 { Timeout::Late } else { Timeout::None });
    }
    while count > 99_999_999 {
        let Some((next, factor)) = larger(unit) else {
            return Some(Timeout::Some("99999999H".to_owned()));
        };
        count = count / factor + i64::from(count % factor != 0);
        unit = next;
    }
    Some(Timeout::Some(format!("{count}{unit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_brought_into_eight_digits() {
        let some = |text: &str| Some(Timeout::Some(text.into()));
        let cases = [
            ("1S", some("1S")),
            ("0S", Some(Timeout::None)),
            ("-5m", Some(Timeout::Late)),
            ("100000000m", some("100000S")),
            ("9223372036854775807n", some("2562048H")),
            ("9223372036854775807H", some("99999999H")),
            ("1x", None),
            ("S", None),
            ("", None),
            ("1é", None),
            ("1.5S", None),
        ];
        for (text, expected) in cases {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }
}
