//! A small blocking gRPC client: enough HTTP/2 to call, to have many calls out, and to notice the
//! end of a connection.
//!
//! Invariants:
//! - What a call was answered is only told when its trailers came: `Ok` is an acknowledgement.
//! - The server's windows are kept; ours are opened so far that they never matter.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use server::frontend::http2::hpack::decoder::Decoder;
use server::service::proto::etcdserverpb as pb;

use crate::member::WAIT_MAX;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RESET: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const WINDOW_UPDATE: u8 = 8;
}

/// Flags of frames.
mod flag {
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
}

/// The head of a frame.
#[derive(Clone, Copy)]
struct Head {
    size_bytes: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn decode(bytes: [u8; 9]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let size_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { size_bytes, kind, flags, stream: u32::from_be_bytes(stream) }
    }
}

const WINDOW_MAX: u32 = (1 << 31) - 1;
const WINDOW_DEFAULT: i64 = 65_535;
const FRAME_BYTES_MAX: usize = 16_384;

/// How a call ended when it was not answered well.
#[derive(Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server's own refusal: its code and text.
    Status(u32, String),
    /// The connection ended first: what became of the call is unknown.
    Lost,
}

/// One connection.
pub struct Client {
    socket: TcpStream,
    decoder: Decoder,
    next_stream: u32,
    /// What the server lets us send: on the connection, and on a new stream.
    window: i64,
    window_initial: i64,
    windows: HashMap<u32, i64>,
    calls: HashMap<u32, Call>,
    is_lost: bool,
}

#[derive(Default)]
struct Call {
    body: Vec<u8>,
    status: Option<(u32, String)>,
    has_ended: bool,
}

impl Client {
    /// Connects and says hello.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Self::hello(socket)
    }

    /// The same through a socket of the file system.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        // A stream is a stream: what is used of it here is the same for both.
        Self::hello(TcpStream::from(OwnedFd::from(UnixStream::connect(path)?)))
    }

    fn hello(mut socket: TcpStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(WAIT_MAX))?;
        let mut hello = PREFACE.to_vec();
        // No dynamic table (setting 1), windows as large as they get (setting 4).
        let settings = [&[0, 1, 0, 0, 0, 0, 0, 4][..], &WINDOW_MAX.to_be_bytes()].concat();
        put_frame(&mut hello, kind::SETTINGS, 0, 0, &settings);
        let more = WINDOW_MAX - u32::try_from(WINDOW_DEFAULT).expect("it is 65535");
        put_frame(&mut hello, kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        socket.write_all(&hello)?;
        Ok(Self {
            socket,
            decoder: Decoder::new(0),
            next_stream: 1,
            window: WINDOW_DEFAULT,
            window_initial: WINDOW_DEFAULT,
            windows: HashMap::new(),
            calls: HashMap::new(),
            is_lost: false,
        })
    }

    /// Calls and waits for the answer.
    pub fn call<A: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
    ) -> Result<A, CallError> {
        let stream = self.begin(path, request);
        self.wait(stream)
    }

    /// Begins a call without waiting for its answer.
    pub fn begin(&mut self, path: &str, request: &impl Message) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.calls.insert(stream, Call::default());
        self.windows.insert(stream, self.window_initial);
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            // A literal that is not indexed, its name spelled out.
            block.push(0);
            put_string(&mut block, name);
            put_string(&mut block, value);
        }
        let mut frames = Vec::new();
        put_frame(&mut frames, kind::HEADERS, flag::END_HEADERS, stream, &block);
        self.send(&frames);
        let length = u32::try_from(request.encoded_len()).expect("requests are small");
        let mut body = [&[0][..], &length.to_be_bytes()].concat();
        request.encode(&mut body).expect("a vector grows");
        self.send_body(stream, &body);
        stream
    }

    /// Waits for a call's end.
    pub fn wait<A: Message + Default>(&mut self, stream: u32) -> Result<A, CallError> {
        while !self.calls[&stream].has_ended {
            if self.is_lost {
                return Err(CallError::Lost);
            }
            self.receive();
        }
        let call = self.calls.remove(&stream).expect("it was there just now");
        self.windows.remove(&stream);
        match call.status {
            Some((0, _)) => {
                let (prefix, message) = call.body.split_at_checked(5).expect("it has a prefix");
                let length = u32::try_from(message.len()).expect("answers are small");
                assert_eq!(prefix[1..], length.to_be_bytes());
                Ok(A::decode(message).expect("answers are messages"))
            }
            Some((code, text)) => Err(CallError::Status(code, text)),
            None => Err(CallError::Lost),
        }
    }

    /// Whether a call was answered by now, without waiting.
    pub fn is_answered(&self, stream: u32) -> bool {
        self.calls.get(&stream).is_some_and(|call| call.has_ended)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.is_lost |= self.socket.write_all(bytes).is_err();
    }

    fn send_body(&mut self, stream: u32, mut body: &[u8]) {
        while !body.is_empty() && !self.is_lost {
            let window = self.window.min(self.windows[&stream]).max(0);
            let size = body.len().min(FRAME_BYTES_MAX);
            let size = size.min(usize::try_from(window).expect("it is not negative"));
            if size == 0 {
                self.receive();
                continue;
            }
            let (piece, rest) = body.split_at(size);
            body = rest;
            let flags = if body.is_empty() { flag::END_STREAM } else { 0 };
            let mut frame = Vec::new();
            put_frame(&mut frame, kind::DATA, flags, stream, piece);
            let sent = i64::try_from(size).expect("frames are small");
            self.window -= sent;
            *self.windows.get_mut(&stream).expect("the stream is open") -= sent;
            self.send(&frame);
        }
    }

    /// Takes in one frame.
    fn receive(&mut self) {
        let mut head = [0; 9];
        let mut payload = Vec::new();
        let read = self.socket.read_exact(&mut head).and_then(|()| {
            payload.resize(Head::decode(head).size_bytes, 0);
            self.socket.read_exact(&mut payload)
        });
        if let Err(error) = read {
            assert!(
                error.kind() != io::ErrorKind::WouldBlock,
                "the server says nothing and is not gone"
            );
            self.is_lost = true;
            return;
        }
        self.handle_frame(Head::decode(head), &payload);
    }

    fn handle_frame(&mut self, head: Head, payload: &[u8]) {
        match head.kind {
            kind::SETTINGS if head.flags & flag::ACK == 0 => self.handle_settings(payload),
            kind::PING if head.flags & flag::ACK == 0 => {
                let mut frame = Vec::new();
                put_frame(&mut frame, kind::PING, flag::ACK, 0, payload);
                self.send(&frame);
            }
            kind::WINDOW_UPDATE => {
                let more = i64::from(u32::from_be_bytes(payload.try_into().expect("four bytes")));
                match self.windows.get_mut(&head.stream) {
                    _ if head.stream == 0 => self.window += more,
                    Some(window) => *window += more,
                    None => {}
                }
            }
            kind::DATA | kind::HEADERS => self.handle_answer(head, payload),
            kind::RESET => {
                if let Some(call) = self.calls.get_mut(&head.stream) {
                    call.has_ended = true;
                }
            }
            // A server that goes away answers what it has taken.
            _ => {}
        }
    }

    fn handle_settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks(6) {
            let value = u32::from_be_bytes(setting[2..].try_into().expect("six bytes each"));
            if setting[..2] == [0, 4] {
                let change = i64::from(value) - self.window_initial;
                self.window_initial += change;
                self.windows.values_mut().for_each(|window| *window += change);
            }
        }
        let mut frame = Vec::new();
        put_frame(&mut frame, kind::SETTINGS, flag::ACK, 0, &[]);
        self.send(&frame);
    }

    fn handle_answer(&mut self, head: Head, payload: &[u8]) {
        let call = self.calls.get_mut(&head.stream).expect("answers belong to calls");
        if head.kind == kind::DATA {
            call.body.extend_from_slice(payload);
        } else {
            assert!(head.flags & flag::END_HEADERS != 0, "header lists of ours are short");
            let (mut code, mut text) = (None, String::new());
            let decoded = self.decoder.decode(payload, |name, value| match name {
                b"grpc-status" => code = String::from_utf8_lossy(value).parse::<u32>().ok(),
                b"grpc-message" => text = String::from_utf8_lossy(value).into_owned(),
                _ => {}
            });
            decoded.expect("header blocks are well formed");
            if let Some(code) = code {
                call.status = Some((code, text));
            }
        }
        call.has_ended |= head.flags & flag::END_STREAM != 0;
    }
}

/// What the tests ask for.
impl Client {
    /// Begins a put.
    pub fn begin_put(&mut self, key: &str, value: &[u8]) -> u32 {
        let request = pb::PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: value.to_vec().into(),
            ..Default::default()
        };
        self.begin("/etcdserverpb.KV/Put", &request)
    }

    /// Waits for a put: its revision.
    pub fn wait_put(&mut self, stream: u32) -> Result<i64, CallError> {
        let answer: pb::PutResponse = self.wait(stream)?;
        Ok(answer.header.expect("answers have a header").revision)
    }

    /// Puts.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<i64, CallError> {
        let stream = self.begin_put(key, value);
        self.wait_put(stream)
    }

    /// Reads a range, linearizably.
    pub fn range(&mut self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, CallError> {
        self.call("/etcdserverpb.KV/Range", request)
    }

    /// A key's value.
    pub fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, CallError> {
        let key = key.as_bytes().to_vec().into();
        let answer = self.range(&pb::RangeRequest { key, ..Default::default() })?;
        Ok(answer.kvs.into_iter().next().map(|pair| pair.value.to_vec()))
    }

    /// Every key with its value.
    pub fn all(&mut self) -> HashMap<String, Vec<u8>> {
        let answer = self.range(&everything()).expect("a list of everything");
        assert_eq!(answer.count, answer.kvs.len() as i64);
        let text = |key: Bytes| String::from_utf8(key.to_vec()).expect("keys of ours are text");
        answer.kvs.into_iter().map(|pair| (text(pair.key), pair.value.to_vec())).collect()
    }
}

/// A range of all keys there are.
pub fn everything() -> pb::RangeRequest {
    let zero = Bytes::from_static(&[0]);
    pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

/// Sends a request of HTTP/1.0, after whose answer the member closes, and takes all of that. Saying
/// that there are no more requests would give the call up, as in etcd.
pub fn http_answer(address: SocketAddr, request: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("a member that serves is connected to");
    socket.set_read_timeout(Some(WAIT_MAX)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    answer
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn put_string(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).ok().filter(|&n| n < 127).expect("names are short"));
    block.extend_from_slice(text.as_bytes());
}
