//! gRPC's counts, method by method, for one front-end.
//!
//! Counted as etcd's interceptors count: a unary call begins when its message is there, and its
//! answer counts as a message even when it is an error; a streaming call begins with its headers.
//! Calls are timed by the turns of their core: one that is answered in the turn in which it came
//! took no time.
//!
//! Invariants:
//! - A call that was counted as started is counted as handled once, when it ends.

use std::sync::OnceLock;
use std::time::Duration;

use super::cell::{Bounds, Counter, Distribution, nanos};

/// How many gRPC codes there are.
pub const CODES: usize = 17;
/// How many API versions of clients are told apart; what comes later counts as [`VERSION_OTHER`].
pub const CLIENT_VERSIONS_MAX: usize = 16;
/// The longest version that is told.
pub const CLIENT_VERSION_BYTES_MAX: usize = 64;
/// The label of versions beyond these bounds.
pub const VERSION_OTHER: &str = "other";
/// etcd's label for clients that do not say which version they speak.
const VERSION_UNKNOWN: &[u8] = b"unknown";

/// Prometheus' own bounds for what takes seconds, in nanoseconds.
pub const HANDLING_BOUNDS: Bounds = Bounds::Listed(&[
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
]);

/// etcd's bounds for requests, in nanoseconds.
pub const REQUEST_BOUNDS: Bounds = Bounds::Doubling { first: 1_000_000, count: 14 };

/// Who sends how many messages, as the label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodType {
    /// `unary`
    Unary,
    /// `client_stream`
    ClientStream,
    /// `server_stream`
    ServerStream,
    /// `bidi_stream`
    BidiStream,
}

/// A method, as its labels say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodName {
    /// `package.Service`
    pub service: &'static str,
    /// `Method`
    pub method: &'static str,
    /// Who sends how many messages.
    pub kind: MethodType,
    /// What etcd calls the request where it times requests; `None` for what it does not time.
    pub request: Option<&'static str>,
    /// The bounds of another histogram that times this method.
    pub bounds: Option<Bounds>,
}

/// One method's.
#[derive(Debug)]
#[repr(align(64))]
pub struct MethodCounts {
    is_unary: bool,
    /// Calls that began.
    pub started: Counter,
    /// Messages that came.
    pub received: Counter,
    /// Messages that went.
    pub sent: Counter,
    /// Calls that ended, by code.
    pub handled: [Counter; CODES],
    /// How long they took, if anybody wants to know.
    pub handling: Option<Distribution>,
    /// How long requests took: those that did not get through, those that did.
    pub requests: Option<[Distribution; 2]>,
    /// The same with other bounds.
    pub special: Option<[Distribution; 2]>,
}

impl MethodCounts {
    fn new(name: &MethodName, timed: bool) -> Self {
        let pair = |bounds| [Distribution::new(bounds), Distribution::new(bounds)];
        Self {
            is_unary: name.kind == MethodType::Unary,
            started: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            handled: Default::default(),
            handling: timed.then(|| Distribution::new(HANDLING_BOUNDS)),
            requests: name.request.map(|_| pair(REQUEST_BOUNDS)),
            special: name.bounds.map(pair),
        }
    }
}

#[derive(Debug, Default)]
struct ClientVersion {
    version: OnceLock<Box<str>>,
    unary: Counter,
    stream: Counter,
}

/// What is kept of a call that was counted, until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedCall {
    method: u16,
    begun_nanos: u64,
}

/// The calls of one front-end.
#[derive(Debug)]
#[repr(align(64))]
pub struct CallCounts {
    methods: Box<[MethodCounts]>,
    received_bytes: Counter,
    sent_bytes: Counter,
    now_nanos: Counter,
    versions: [ClientVersion; CLIENT_VERSIONS_MAX],
    version_other: ClientVersion,
}

impl CallCounts {
    /// For these methods, by their number; `timed` if the durations of all calls are wanted.
    #[must_use]
    pub fn new(methods: &[MethodName], timed: bool) -> Self {
        Self {
            methods: methods.iter().map(|name| MethodCounts::new(name, timed)).collect(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            now_nanos: Counter::default(),
            versions: Default::default(),
            version_other: ClientVersion::default(),
        }
    }

    /// The turn's time, by which calls are timed.
    #[inline]
    pub fn set_now(&self, now: Duration) {
        self.now_nanos.set(nanos(now));
    }

    /// A call begins, of a client that says it speaks this version of the API.
    #[inline]
    pub fn note_started(&self, method: u16, client_version: Option<&[u8]>) -> CountedCall {
        let counts = &self.methods[usize::from(method)];
        counts.started.add(1);
        let version = self.client_version(client_version.unwrap_or(VERSION_UNKNOWN));
        if counts.is_unary {
            version.unary.add(1)
        } else {
            version.stream.add(1)
        }
        CountedCall { method, begun_nanos: self.now_nanos.get() }
    }

    /// A message came.
    #[inline]
    pub fn note_received(&self, call: CountedCall, size_bytes: usize) {
        self.methods[usize::from(call.method)].received.add(1);
        self.received_bytes.add(size_bytes as u64);
    }

    /// A message goes.
    #[inline]
    pub fn note_sent(&self, call: CountedCall, size_bytes: u64) {
        self.methods[usize::from(call.method)].sent.add(1);
        self.sent_bytes.add(size_bytes);
    }

    /// A call ends with a code.
    #[inline]
    pub fn note_handled(&self, call: CountedCall, code: u8) {
        let counts = &self.methods[usize::from(call.method)];
        counts.handled[usize::from(code)].add(1);
        if code != 0 && counts.is_unary {
            // No message goes, and the interceptor counts one all the same.
            counts.sent.add(1);
        }
        let taken = self.now_nanos.get().saturating_sub(call.begun_nanos);
        if let Some(handling) = &counts.handling {
            handling.observe(taken, 1);
        }
        let Some(has_worked) = has_worked(code) else { return };
        for pair in [&counts.requests, &counts.special].into_iter().flatten() {
            pair[usize::from(has_worked)].observe(taken, 1);
        }
    }

    /// A method's counts.
    #[must_use]
    pub fn method(&self, method: usize) -> &MethodCounts {
        &self.methods[method]
    }

    /// Bytes of the messages that came.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.get()
    }

    /// Bytes of the messages that went.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// The versions that came, with their unary and streaming calls.
    pub fn clients(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let other = &self.version_other;
        let other = (VERSION_OTHER, other.unary.get(), other.stream.get());
        let known = self.versions.iter().filter_map(|known| {
            let version = known.version.get()?;
            Some((&**version, known.unary.get(), known.stream.get()))
        });
        known.chain(std::iter::once(other).filter(|other| other.1 + other.2 > 0))
    }

    #[inline]
    fn client_version(&self, version: &[u8]) -> &ClientVersion {
        // One client library after the other is upgraded, so the first place has nearly all.
        for known in &self.versions {
            match known.version.get() {
                Some(text) if text.as_bytes() == version => return known,
                Some(_) => {}
                None => return self.add_version(known, version),
            }
        }
        &self.version_other
    }

    #[cold]
    fn add_version<'a>(&'a self, place: &'a ClientVersion, version: &[u8]) -> &'a ClientVersion {
        match str::from_utf8(version) {
            Ok(text) if text.len() <= CLIENT_VERSION_BYTES_MAX => {
                place.version.get_or_init(|| text.into());
                place
            }
            _ => &self.version_other,
        }
    }
}

/// Whether a call that ended so came through to the store and back; what apply said does not
/// matter. `None` for what was refused before it went there: etcd does not time it.
fn has_worked(code: u8) -> Option<bool> {
    match code {
        // OK, not found, exists, out of space, failed precondition, out of range.
        0 | 5 | 6 | 8 | 9 | 11 => Some(true),
        // Canceled, unknown, too late, aborted, internal, unavailable, data lost.
        1 | 2 | 4 | 10 | 13 | 14 | 15 => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: MethodName = MethodName {
        service: "kv",
        method: "Put",
        kind: MethodType::Unary,
        request: Some("Put"),
        bounds: None,
    };
    const WATCH: MethodName =
        MethodName { method: "Watch", kind: MethodType::BidiStream, request: None, ..PUT };

    #[test]
    fn an_error_is_a_message_of_a_unary_call_and_none_of_a_stream() {
        let counts = CallCounts::new(&[PUT, WATCH], true);
        counts.set_now(Duration::from_millis(10));
        let (put, watch) = (counts.note_started(0, None), counts.note_started(1, Some(b"3.7")));
        counts.note_received(put, 40);
        counts.set_now(Duration::from_millis(13));
        counts.note_handled(put, 14);
        counts.note_handled(watch, 1);
        let method = counts.method(0);
        assert_eq!((method.started.get(), method.received.get(), method.sent.get()), (1, 1, 1));
        assert_eq!(method.handled[14].get(), 1);
        let [failed, done] = method.requests.as_ref().unwrap();
        assert_eq!((failed.copy().sum, done.count()), (3_000_000, 0));
        assert_eq!(method.handling.as_ref().unwrap().count(), 1);
        assert_eq!(counts.method(1).sent.get(), 0);
        let clients: Vec<_> = counts.clients().collect();
        assert_eq!(clients, [("unknown", 1, 0), ("3.7", 0, 1)]);
    }

    #[test]
    fn what_is_refused_before_the_log_is_not_timed() {
        let counts = CallCounts::new(&[PUT], false);
        let call = counts.note_started(0, None);
        counts.note_handled(call, 3);
        let requests = counts.method(0).requests.as_ref().unwrap();
        assert!(requests.iter().all(|seen| seen.count() == 0));
        assert!(counts.method(0).handling.is_none());
    }

    #[test]
    fn clients_cannot_make_the_list_of_versions_grow() {
        let counts = CallCounts::new(&[PUT], false);
        counts.note_started(0, Some(&[b'x'; CLIENT_VERSION_BYTES_MAX + 1]));
        for number in 0..CLIENT_VERSIONS_MAX + 5 {
            counts.note_started(0, Some(format!("v{number}").as_bytes()));
        }
        let clients: Vec<_> = counts.clients().collect();
        assert_eq!(clients.len(), CLIENT_VERSIONS_MAX + 1);
        assert_eq!(clients.last(), Some(&(VERSION_OTHER, 6, 0)));
    }
}
