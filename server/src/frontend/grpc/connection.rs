//! One gRPC connection: HTTP/2 streams in, calls out; answers in, HTTP/2 streams out.
//!
//! ```text
//! let mut input = Input::new(bytes_read);
//! while let Some(event) = connection.poll_event(&mut input, now) {
//!     match event { Request { stream, .. } => connection.answer(stream, ...), ... }
//! }
//! write(connection.http2().poll_output());
//! ```
//!
//! The owner may answer at once or keep the [`StreamKey`] and answer later; a key whose call is
//! over is simply ignored.
//!
//! Invariants:
//! - A unary call is handed out when its message is complete, as grpc-go does, without waiting for
//!   the client to half-close. A server-streaming one waits, because a second message refuses it.
//! - Bytes of incomplete requests are bounded by [`ASSEMBLY_BYTES_MAX`] for the connection.
//! - `calls` is parallel to the streams' slots; an entry is current if its `id` matches.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use super::super::http2::hpack::encoder::STATUS_200;
use super::super::http2::{
    self, Body, CloseReason, ErrorCode, Event as StreamEvent, Field, ListRef, StreamKey,
};
use super::message::{Assembler, MessageRules, PREFIX_BYTES};
use super::method::{MethodId, MethodKind, MethodTable};
use super::request::{Encoding, Metadata, Refusal, RequestHead, Subtype, parse};
use super::status::{Code, Status, encode_message};
use crate::metrics::CountedCall;

/// Bytes of incomplete requests that one connection may have us hold. HTTP/2 windows do not bound
/// them (see `http2::input`), since a message may be larger than a window.
pub const ASSEMBLY_BYTES_MAX: usize = 64 << 20;

/// The largest buffer that is kept for the next message in pieces.
const SPARE_BYTES_MAX: usize = 64 << 10;

/// The largest message that is sent, as etcd sets it; a larger answer becomes an error.
pub const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// Response fields worth a place in the client's table.
const PINNED: &[(&[u8], &[u8])] = &[
    (b"content-type", b"application/grpc"),
    (b"content-type", b"application/grpc+proto"),
    (b"grpc-status", b"0"),
];
const CONTENT_TYPE_PLAIN: Field<'static> = Field::Pinned(0);
const CONTENT_TYPE_PROTO: Field<'static> = Field::Pinned(1);
const STATUS_OK: Field<'static> = Field::Pinned(2);

/// What the owner decides about a connection.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The largest message that is received: `--max-request-bytes` and 512 KiB.
    pub message_bytes_max: usize,
    /// Streams that a client may have open.
    pub max_concurrent_streams: u32,
    /// How often a client may ping.
    pub ping_policy: http2::keepalive::PingPolicy,
    /// How often we ping.
    pub keepalive: http2::keepalive::KeepaliveConfig,
}

/// Bytes read from the socket, as far as they have not become events.
#[derive(Debug)]
pub struct Input<'i> {
    bytes: &'i [u8],
    body: Option<Piece<'i>>,
}

#[derive(Clone, Copy, Debug)]
struct Piece<'i> {
    stream: StreamKey,
    bytes: &'i [u8],
    end_stream: bool,
}

impl<'i> Input<'i> {
    /// All that one read brought. Poll until `None` before the next.
    pub fn new(bytes: &'i [u8]) -> Self {
        Self { bytes, body: None }
    }
}

/// Something that the client did.
#[derive(Debug)]
pub enum Event<'i> {
    /// A call with one request message, complete: unary or server-streaming.
    Request {
        /// Where the answer goes.
        stream: StreamKey,
        /// What is called.
        method: MethodId,
        /// How long the client waits.
        timeout: Option<Duration>,
        /// The fields that services read.
        metadata: Rc<Metadata>,
        /// The message.
        message: Cow<'i, [u8]>,
    },
    /// A call with a stream of request messages begins.
    Call {
        /// Where the answers go.
        stream: StreamKey,
        /// What is called.
        method: MethodId,
        /// How long the client waits.
        timeout: Option<Duration>,
        /// The fields that services read.
        metadata: Rc<Metadata>,
    },
    /// A further message of such a call.
    Message {
        /// Whose.
        stream: StreamKey,
        /// The message.
        message: Cow<'i, [u8]>,
    },
    /// Such a call has no further messages.
    HalfClose {
        /// Whose.
        stream: StreamKey,
    },
    /// A call that was handed out is over: the client left, or broke a rule and was answered here.
    Cancelled {
        /// Whose.
        stream: StreamKey,
    },
    /// The connection is over, and with it every call.
    Closed(CloseReason),
}

/// What `write` says of the message it was to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it is there.
    Whole,
    /// It is not to be sent from here.
    Withdrawn,
}

/// A message, or the first part of one, that is gathered outside of the output.
#[derive(Debug)]
pub struct OwnedMessage {
    /// Behind room for the prefix.
    bytes: Vec<u8>,
}

impl OwnedMessage {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: vec![0; PREFIX_BYTES] }
    }

    /// Where its next bytes are to be appended.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What it holds so far.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.bytes[PREFIX_BYTES..]
    }

    /// Its size so far.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() - PREFIX_BYTES
    }
}

impl Default for OwnedMessage {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of a message.
enum Sent {
    Message,
    TooLarge(u64),
    Withdrawn(OwnedMessage),
}

/// How far a call is.
#[derive(Debug, Default)]
enum Progress {
    /// No such call, or answered.
    #[default]
    Over,
    /// Waits for its one request message.
    Awaiting(RequestHead),
    /// Has it, and waits for the client to confirm that there is no second one.
    Confirming(RequestHead, Vec<u8>),
    /// Handed out; nothing more is expected.
    Working,
    /// Handed out; further messages are.
    Streaming(Encoding),
}

#[derive(Debug)]
struct Call {
    id: u32,
    progress: Progress,
    subtype: Subtype,
    headers_sent: bool,
    /// Counted as begun, and not yet as ended.
    counted: Option<CountedCall>,
    assembler: Assembler,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            id: 0,
            progress: Progress::Over,
            subtype: Subtype::None,
            headers_sent: false,
            counted: None,
            assembler: Assembler::default(),
        }
    }
}

impl Call {
    /// Whether the owner knows of it.
    fn is_out(&self) -> bool {
        matches!(self.progress, Progress::Working | Progress::Streaming(_))
    }
}

/// One gRPC connection.
#[derive(Debug)]
pub struct Connection {
    http2: http2::Connection,
    methods: Rc<MethodTable>,
    message_bytes_max: usize,
    calls: Vec<Call>,
    /// Requests by the place of their header list, for lists that come again.
    heads: [Option<RequestHead>; ListRef::PLACES],
    metadata: Rc<Metadata>,
    assembly_bytes: usize,
    spare: Vec<u8>,
}

impl Connection {
    /// A new connection.
    pub fn new(config: &Config, methods: Rc<MethodTable>, now: Duration) -> Self {
        let http2_config = http2::Config {
            max_concurrent_streams: config.max_concurrent_streams,
            ping_policy: config.ping_policy,
            keepalive: config.keepalive,
            pinned: PINNED,
        };
        Self {
            http2: http2::Connection::new(&http2_config, now),
            methods,
            message_bytes_max: config.message_bytes_max,
            calls: Vec::new(),
            heads: Default::default(),
            metadata: Rc::default(),
            assembly_bytes: 0,
            spare: Vec::new(),
        }
    }

    /// The connection below: output, deadlines, room, shutdown.
    pub fn http2(&mut self) -> &mut http2::Connection {
        &mut self.http2
    }

    /// The next thing that the client did; call until `None`.
    pub fn poll_event<'i>(&mut self, input: &mut Input<'i>, now: Duration) -> Option<Event<'i>> {
        loop {
            if let Some(body) = input.body.take() {
                if let Some(event) = self.handle_body(body, input) {
                    return Some(event);
                }
                continue;
            }
            match self.http2.poll_event(&mut input.bytes, now)? {
                StreamEvent::Headers { stream, list, end_stream } => {
                    let call = self.handle_headers(stream, list);
                    if end_stream {
                        input.body = Some(Piece { stream, bytes: &[], end_stream });
                    }
                    if call.is_some() {
                        return call;
                    }
                }
                StreamEvent::Data { stream, bytes, end_stream } => {
                    input.body = Some(Piece { stream, bytes, end_stream });
                }
                StreamEvent::Reset { stream, .. } => {
                    let was_out = self.call(stream).is_some_and(|call| call.is_out());
                    self.count_end(stream, Code::Canceled);
                    self.forget(stream);
                    if was_out {
                        return Some(Event::Cancelled { stream });
                    }
                }
                StreamEvent::Closed(reason) => {
                    self.count_ends();
                    self.calls.clear();
                    self.assembly_bytes = 0;
                    return Some(Event::Closed(reason));
                }
            }
        }
    }

    #[inline]
    fn handle_headers<'i>(&mut self, stream: StreamKey, list: ListRef) -> Option<Event<'i>> {
        let known = if list.known() { self.heads[list.place()].clone() } else { None };
        let head = match known {
            Some(head) => head,
            None => match parse(self.http2.header_list(list), &self.methods, &self.metadata) {
                Ok(head) => {
                    self.metadata = Rc::clone(&head.metadata);
                    self.heads[list.place()] = Some(head.clone());
                    head
                }
                Err(refusal) => {
                    self.heads[list.place()] = None;
                    self.refuse(stream, &refusal);
                    return None;
                }
            },
        };
        if stream.slot() >= self.calls.len() {
            self.calls.resize_with(stream.slot() + 1, Call::default);
        }
        let call = &mut self.calls[stream.slot()];
        assert!(
            call.counted.is_none(),
            "a slot is used again before its call was counted as ended"
        );
        call.id = stream.id;
        call.headers_sent = false;
        call.subtype = head.subtype.clone();
        if head.kind == MethodKind::ClientStreaming {
            call.progress = Progress::Streaming(head.encoding);
            let RequestHead { method, timeout, metadata, .. } = head;
            if let Some(counts) = self.methods.counts() {
                let version = metadata.client_api_version.as_deref();
                call.counted = Some(counts.note_started(method.0, version));
            }
            return Some(Event::Call { stream, method, timeout, metadata });
        }
        call.progress = Progress::Awaiting(head);
        None
    }

    /// Answers a request that is no call.
    #[cold]
    fn refuse(&mut self, stream: StreamKey, refusal: &Refusal) {
        let Refusal { http_status, subtype, status } = refusal;
        let content_type = content_type(subtype);
        self.http2.respond_headers_only(
            stream,
            &[
                Field::Literal(b":status", http_status.as_bytes()),
                Field::Literal(b"content-type", &content_type),
                Field::Literal(b"grpc-status", status.code.header_value()),
                Field::Literal(b"grpc-message", &encode_message(&status.message)),
            ],
        );
    }

    #[inline]
    fn call(&self, stream: StreamKey) -> Option<&Call> {
        self.calls.get(stream.slot()).filter(|call| call.id == stream.id)
    }

    /// Takes one message off the body; what is left of the body goes back into the input.
    #[inline]
    fn handle_body<'i>(&mut self, body: Piece<'i>, input: &mut Input<'i>) -> Option<Event<'i>> {
        let Piece { stream, mut bytes, end_stream } = body;
        let bytes_max = self.message_bytes_max;
        let call = self.calls.get_mut(stream.slot()).filter(|call| call.id == stream.id)?;
        let encoding = match &call.progress {
            Progress::Awaiting(head) | Progress::Confirming(head, _) => &head.encoding,
            Progress::Streaming(encoding) => encoding,
            // What follows the one message of a unary call is not looked at.
            Progress::Over | Progress::Working => return None,
        };
        if bytes.is_empty() {
            return if end_stream { self.handle_end(stream) } else { None };
        }
        let before = call.assembler.gathered_bytes();
        let rules = MessageRules { bytes_max, encoding };
        let taken = call.assembler.take(&mut bytes, rules, &mut self.spare);
        self.assembly_bytes = self.assembly_bytes - before + call.assembler.gathered_bytes();
        let event = match taken {
            Ok(Some(message)) => {
                input.body = Some(Piece { stream, bytes, end_stream });
                self.handle_message(stream, message, end_stream && bytes.is_empty())
            }
            Ok(None) => None,
            Err(status) => return self.abort(stream, &status),
        };
        if self.assembly_bytes > ASSEMBLY_BYTES_MAX {
            input.body = None;
            let text = "grpc: too many bytes of incomplete requests on one connection";
            return self.abort(stream, &Status::new(Code::ResourceExhausted, text));
        }
        if event.is_none() && input.body.is_none() && end_stream {
            return self.handle_end(stream);
        }
        event
    }

    /// A message is complete.
    #[inline]
    fn handle_message<'i>(
        &mut self,
        stream: StreamKey,
        message: Cow<'i, [u8]>,
        is_last: bool,
    ) -> Option<Event<'i>> {
        let call = self.calls.get_mut(stream.slot()).expect("the caller looked it up");
        match std::mem::take(&mut call.progress) {
            Progress::Awaiting(head) if head.kind == MethodKind::Unary || is_last => {
                call.progress = Progress::Working;
                call.counted = begin_count(&self.methods, &head, &message);
                Some(request(stream, head, message))
            }
            Progress::Awaiting(head) => {
                let message = message.into_owned();
                self.assembly_bytes += message.len();
                call.progress = Progress::Confirming(head, message);
                None
            }
            Progress::Confirming(_, first) => {
                self.assembly_bytes -= first.len();
                let text = "cardinality violation: received multiple request messages for \
                            non-client-streaming RPC";
                self.abort(stream, &Status::new(Code::Internal, text))
            }
            Progress::Streaming(encoding) => {
                call.progress = Progress::Streaming(encoding);
                if let (Some(counts), Some(counted)) = (self.methods.counts(), call.counted) {
                    counts.note_received(counted, message.len());
                }
                Some(Event::Message { stream, message })
            }
            Progress::Over | Progress::Working => unreachable!("the caller looked at it"),
        }
    }

    /// The client has sent all.
    fn handle_end<'i>(&mut self, stream: StreamKey) -> Option<Event<'i>> {
        let call = self.calls.get_mut(stream.slot()).filter(|call| call.id == stream.id)?;
        let cut = call.assembler.inside_message();
        if let Progress::Confirming(_, message) = &call.progress {
            self.assembly_bytes -= message.len();
        }
        let (code, text) = match std::mem::take(&mut call.progress) {
            Progress::Streaming(_) if cut => {
                // Still the owner's call, so `abort` reports its end.
                call.progress = Progress::Working;
                (Code::Internal, "unexpected EOF")
            }
            Progress::Streaming(_) => {
                call.progress = Progress::Working;
                return Some(Event::HalfClose { stream });
            }
            Progress::Confirming(..) if cut => (Code::Internal, "unexpected EOF"),
            Progress::Confirming(head, message) => {
                call.progress = Progress::Working;
                call.counted = begin_count(&self.methods, &head, &message);
                return Some(request(stream, head, Cow::Owned(message)));
            }
            // The first two are what grpc-go lets slip out of its unary path.
            Progress::Awaiting(head) if head.kind == MethodKind::Unary && cut => {
                (Code::Unknown, "unexpected EOF")
            }
            Progress::Awaiting(head) if head.kind == MethodKind::Unary => (Code::Unknown, "EOF"),
            Progress::Awaiting(_) if cut => (Code::Internal, "unexpected EOF"),
            Progress::Awaiting(_) => (
                Code::Internal,
                "cardinality violation: received no request message from non-client-streaming RPC",
            ),
            Progress::Over | Progress::Working => {
                call.progress = Progress::Working;
                return None;
            }
        };
        self.abort(stream, &Status::new(code, text))
    }

    /// Ends a call from here; the owner hears of it if it knew of the call.
    #[cold]
    fn abort<'i>(&mut self, stream: StreamKey, status: &Status) -> Option<Event<'i>> {
        let was_out = self.call(stream).is_some_and(|call| call.is_out());
        self.finish(stream, status);
        was_out.then_some(Event::Cancelled { stream })
    }

    /// Takes a call off the table.
    fn forget(&mut self, stream: StreamKey) {
        let Some(call) = self.calls.get_mut(stream.slot()).filter(|call| call.id == stream.id)
        else {
            return;
        };
        call.id = 0;
        assert!(call.counted.is_none(), "a call is forgotten before it was counted as ended");
        if let Progress::Confirming(_, message) = std::mem::take(&mut call.progress) {
            self.assembly_bytes -= message.len();
        }
        self.assembly_bytes -= call.assembler.gathered_bytes();
        let buffer = call.assembler.reset();
        self.keep_spare(buffer);
    }

    /// A call is over.
    #[inline]
    fn count_end(&mut self, stream: StreamKey, code: Code) {
        let call = self.calls.get_mut(stream.slot()).filter(|call| call.id == stream.id);
        if let Some(counted) = call.and_then(|call| call.counted.take())
            && let Some(counts) = self.methods.counts()
        {
            counts.note_handled(counted, code.number());
        }
    }

    /// All calls are over, because their client is gone.
    fn count_ends(&mut self) {
        let Some(counts) = self.methods.counts() else { return };
        for counted in self.calls.iter_mut().filter_map(|call| call.counted.take()) {
            counts.note_handled(counted, Code::Canceled.number());
        }
    }

    #[inline]
    fn count_sent(&self, stream: StreamKey, size_bytes: u64) {
        if let Some(counts) = self.methods.counts()
            && let Some(counted) = self.call(stream).and_then(|call| call.counted)
        {
            counts.note_sent(counted, size_bytes);
        }
    }

    fn keep_spare(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > self.spare.capacity() && buffer.capacity() <= SPARE_BYTES_MAX {
            self.spare = buffer;
        }
    }

    /// Answers a unary call.
    pub fn answer(&mut self, stream: StreamKey, message: &[u8]) {
        self.answer_with(stream, |out| out.extend_from_slice(message));
    }

    /// Answers a unary call with the message that `encode` appends, straight into the output.
    #[inline]
    pub fn answer_with(&mut self, stream: StreamKey, encode: impl FnOnce(&mut Vec<u8>)) {
        self.answer_in_place(stream, |body| (Written::Whole, encode(body.bytes())));
    }

    /// Answers a unary call with the message that `write` makes in the output, cut into frames as
    /// it grows. What is not whole is taken out again and handed back as an [`OwnedMessage`].
    /// `None` if the call is over, and then `write` was not called.
    #[inline]
    pub fn answer_in_place<T>(
        &mut self,
        stream: StreamKey,
        write: impl FnOnce(&mut Body<'_>) -> (Written, T),
    ) -> Option<(Option<OwnedMessage>, T)> {
        let (sent, result) = self.write_message(stream, write)?;
        match sent {
            Sent::Message => {
                self.finish(stream, &Status::OK);
                Some((None, result))
            }
            Sent::TooLarge(size_bytes) => {
                self.finish(stream, &Status::message_too_large(size_bytes));
                Some((None, result))
            }
            Sent::Withdrawn(message) => Some((Some(message), result)),
        }
    }

    /// Answers a unary call with a message that was gathered before.
    pub fn answer_owned(&mut self, stream: StreamKey, message: OwnedMessage) {
        let size_bytes = message.size_bytes();
        if size_bytes > SEND_BYTES_MAX {
            return self.finish(stream, &Status::message_too_large(size_bytes as u64));
        }
        self.begin(stream);
        let OwnedMessage { mut bytes } = message;
        bytes[..PREFIX_BYTES].copy_from_slice(&prefix(size_bytes));
        self.http2.send_owned(stream, bytes);
        self.count_sent(stream, size_bytes as u64);
        self.finish(stream, &Status::OK);
    }

    /// Sends one message of a streaming answer.
    pub fn send(&mut self, stream: StreamKey, message: &[u8]) {
        self.send_with(stream, |out| out.extend_from_slice(message));
    }

    /// Sends one message of a streaming answer: what `encode` appends.
    #[inline]
    pub fn send_with(&mut self, stream: StreamKey, encode: impl FnOnce(&mut Vec<u8>)) {
        let written = self.write_message(stream, |body| (Written::Whole, encode(body.bytes())));
        if let Some((Sent::TooLarge(size_bytes), ())) = written {
            self.finish(stream, &Status::message_too_large(size_bytes));
        }
    }

    #[inline]
    fn write_message<T>(
        &mut self,
        stream: StreamKey,
        write: impl FnOnce(&mut Body<'_>) -> (Written, T),
    ) -> Option<(Sent, T)> {
        self.begin(stream);
        self.call(stream)?;
        let mut sent_bytes = None;
        let written = self.http2.send_body(stream, |body| {
            body.bytes().extend_from_slice(&[0; PREFIX_BYTES]);
            let (written, result) = write(body);
            let size_bytes = body.size_bytes() - PREFIX_BYTES;
            let sent = if written == Written::Withdrawn {
                Sent::Withdrawn(OwnedMessage { bytes: body.withdraw() })
            } else if size_bytes > SEND_BYTES_MAX {
                drop(body.withdraw());
                Sent::TooLarge(size_bytes as u64)
            } else {
                body.put_start(&prefix(size_bytes));
                sent_bytes = Some(size_bytes as u64);
                Sent::Message
            };
            (sent, result)
        });
        if let Some(size_bytes) = sent_bytes {
            self.count_sent(stream, size_bytes);
        }
        written
    }

    /// Sends the response headers of a streaming answer, if they have not been sent: a watcher
    /// waits for them before there is a message.
    #[inline]
    pub fn begin(&mut self, stream: StreamKey) {
        let Some(call) = self.calls.get_mut(stream.slot()).filter(|call| call.id == stream.id)
        else {
            return;
        };
        if std::mem::replace(&mut call.headers_sent, true) {
            return;
        }
        match &call.subtype {
            Subtype::None => self.http2.send_headers(stream, &[STATUS_200, CONTENT_TYPE_PLAIN]),
            Subtype::Proto => self.http2.send_headers(stream, &[STATUS_200, CONTENT_TYPE_PROTO]),
            Subtype::Other(_) => {
                let content_type = content_type(&call.subtype);
                let fields = [STATUS_200, Field::Literal(b"content-type", &content_type)];
                self.http2.send_headers(stream, &fields);
            }
        }
    }

    /// Ends a call.
    pub fn finish(&mut self, stream: StreamKey, status: &Status) {
        let Some(call) = self.call(stream) else { return };
        let message;
        let code_and_message = if status.code == Code::Ok && status.message.is_empty() {
            [STATUS_OK, STATUS_OK]
        } else {
            message = encode_message(&status.message);
            [
                Field::Literal(b"grpc-status", status.code.header_value()),
                Field::Literal(b"grpc-message", &message),
            ]
        };
        let count = if code_and_message[0] == STATUS_OK { 1 } else { 2 };
        if call.headers_sent {
            self.http2.send_trailers(stream, &code_and_message[..count]);
        } else {
            let [code, message] = code_and_message;
            let content_type = content_type(&call.subtype);
            let content_type = Field::Literal(b"content-type", &content_type);
            let fields = [STATUS_200, content_type, code, message];
            self.http2.respond_headers_only(stream, &fields[..2 + count]);
        }
        self.count_end(stream, status.code);
        self.forget(stream);
    }

    /// Ends a call without a status, as grpc-go does when its deadline has passed.
    pub fn reset(&mut self, stream: StreamKey, code: ErrorCode) {
        if self.call(stream).is_some() {
            self.http2.reset(stream, code);
            self.count_end(stream, Code::DeadlineExceeded);
            self.forget(stream);
        }
    }

    /// Whether a call still waits for the owner's answer.
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.call(stream).is_some()
    }

    /// Gives the buffer of an owned message back, for the next one that arrives in pieces.
    pub fn recycle(&mut self, message: Cow<'_, [u8]>) {
        if let Cow::Owned(buffer) = message {
            self.keep_spare(buffer);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.count_ends();
    }
}

/// The message of a call is there, with which grpc-go's interceptors see the call.
#[inline]
fn begin_count(methods: &MethodTable, head: &RequestHead, message: &[u8]) -> Option<CountedCall> {
    let counts = methods.counts()?;
    let version = head.metadata.client_api_version.as_deref();
    let counted = counts.note_started(head.method.0, version);
    counts.note_received(counted, message.len());
    Some(counted)
}

/// What stands before a message on the wire; none of ours is compressed.
fn prefix(size_bytes: usize) -> [u8; PREFIX_BYTES] {
    let size = u32::try_from(size_bytes).expect("larger messages are refused");
    let [l0, l1, l2, l3] = size.to_be_bytes();
    [0, l0, l1, l2, l3]
}

fn request(stream: StreamKey, head: RequestHead, message: Cow<'_, [u8]>) -> Event<'_> {
    let RequestHead { method, timeout, metadata, .. } = head;
    Event::Request { stream, method, timeout, metadata, message }
}

fn content_type(subtype: &Subtype) -> Cow<'static, [u8]> {
    match subtype {
        Subtype::None => Cow::Borrowed(b"application/grpc"),
        Subtype::Proto => Cow::Borrowed(b"application/grpc+proto"),
        Subtype::Other(other) => Cow::Owned([b"application/grpc+", &other[..]].concat()),
    }
}
