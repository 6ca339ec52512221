//! HTTP/2 and gRPC as conversations that people can read: `http2/*.txt` and `grpc/*.txt`.
//!
//! What a server has to enforce, by the section of RFC 9113 and the file that shows it:
//!
//! | Section | Rule | File |
//! |---|---|---|
//! | 3.4 | preface, SETTINGS first | opening |
//! | 4.1 | unknown kinds and the reserved bit are ignored | frames |
//! | 4.2, 6 | sizes of frames | frames |
//! | 4.3, 6.10 | header blocks are contiguous; compression errors | headers |
//! | 5.1 | what each state of a stream allows | streams |
//! | 5.1.1 | numbers of streams | streams |
//! | 5.1.2 | concurrent streams | streams |
//! | 5.2, 6.9 | flow control both ways | flow |
//! | 5.3 | priority is ignored | frames |
//! | 5.4 | stream errors and connection errors | all |
//! | 5.5 | extensions are ignored | frames |
//! | 6.1 - 6.2 | padding | frames, headers |
//! | 6.4 | RST_STREAM | streams |
//! | 6.5 | settings | settings |
//! | 6.6 | PUSH_PROMISE from a client | frames |
//! | 6.7 | ping | ping |
//! | 6.8 | GOAWAY, graceful shutdown | shutdown |
//! | 8.1 | messages: trailers, content-length, early answers | headers, streams |
//! | 8.2 | fields: names, values, connection-specific ones | headers |
//! | 8.3 | pseudo-header fields | headers |
//! | 10.5 | floods | floods |

mod transcript;

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use server::frontend::grpc::{
    self, Code, Input, Method, MethodId, MethodKind, MethodTable, Status,
};
use server::frontend::http2::hpack::encoder::STATUS_200;
use server::frontend::http2::keepalive::{KeepaliveConfig, PingPolicy};
use server::frontend::http2::{Config, Connection, Event, Field, StreamKey};
use transcript::wire::{code, code_name, number, payload, show, text};
use transcript::{Subject, run};

#[test]
fn http2_transcripts_are_as_written() {
    run::<Http2>("http2");
}

#[test]
fn grpc_transcripts_are_as_written() {
    run::<Grpc>("grpc");
}

fn drain_output(connection: &mut Connection) -> Vec<u8> {
    let mut written = Vec::new();
    loop {
        let bytes = connection.poll_output();
        let count = bytes.len();
        if count == 0 {
            return written;
        }
        written.extend_from_slice(bytes);
        connection.consume_output(count);
    }
}

struct Http2 {
    connection: Connection,
    streams: Vec<StreamKey>,
}

impl Http2 {
    fn key(&self, word: &[u8]) -> StreamKey {
        let id = number(word);
        *self.streams.iter().find(|stream| stream.id == id).expect("the owner knows the stream")
    }
}

impl Subject for Http2 {
    fn new() -> Self {
        let config = Config {
            max_concurrent_streams: 4,
            ping_policy: PingPolicy::default(),
            keepalive: KeepaliveConfig::default(),
            pinned: &[],
        };
        Self { connection: Connection::new(&config, Duration::ZERO), streams: Vec::new() }
    }

    fn read(&mut self, mut bytes: &[u8], now: Duration) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = self.connection.poll_event(&mut bytes, now) {
            let end = |end_stream| if end_stream { " end" } else { "" };
            told.push(match event {
                Event::Headers { stream, list, end_stream } => {
                    self.streams.push(stream);
                    let mut line = format!("headers {}{}", stream.id, end(end_stream));
                    for (name, value) in self.connection.header_list(list).iter() {
                        let value = match value.len() {
                            0..100 => value.escape_ascii().to_string(),
                            _ => show(value),
                        };
                        line += &format!(" {}={value}", name.escape_ascii());
                    }
                    line
                }
                Event::Data { stream, bytes, end_stream } => {
                    format!("data {} {}{}", stream.id, show(bytes), end(end_stream))
                }
                Event::Reset { stream, code } => {
                    format!("reset {} {}", stream.id, code_name(code))
                }
                Event::Closed(reason) => {
                    format!("closed {} {:?}", code_name(reason.code), reason.text)
                }
            });
        }
        assert!(bytes.is_empty(), "input was left over");
        told
    }

    fn command(&mut self, words: &[Vec<u8>], now: Duration) -> Vec<String> {
        let trailer = [Field::Literal(b"grpc-status", b"0")];
        match text(&words[0]) {
            "respond" => {
                let body = payload(&words[2]);
                let key = self.key(&words[1]);
                self.connection.respond(key, &[STATUS_200], &trailer, |out| out.extend(&body));
            }
            "headers" => self.connection.send_headers(self.key(&words[1]), &[STATUS_200]),
            "data" => {
                let body = payload(&words[2]);
                self.connection.send_data(self.key(&words[1]), |out| out.extend(&body));
            }
            "trailers" => self.connection.send_trailers(self.key(&words[1]), &trailer),
            "reset" => self.connection.reset(self.key(&words[1]), code(&words[2])),
            "room" => self.connection.want_room(self.key(&words[1])),
            "shutdown" => self.connection.shut_down(now),
            other => panic!("unknown command {other}"),
        }
        Vec::new()
    }

    fn tick(&mut self, now: Duration) {
        self.connection.handle_tick(now);
    }

    fn written(&mut self) -> Vec<u8> {
        drain_output(&mut self.connection)
    }
}

struct Grpc {
    connection: grpc::Connection,
    streams: Vec<StreamKey>,
}

const METHODS: [Method; 4] = [
    Method { path: "/etcdserverpb.KV/Put", id: MethodId(0), kind: MethodKind::Unary },
    Method { path: "/etcdserverpb.KV/Range", id: MethodId(1), kind: MethodKind::Unary },
    Method {
        path: "/etcdserverpb.Maintenance/Snapshot",
        id: MethodId(2),
        kind: MethodKind::ServerStreaming,
    },
    Method {
        path: "/etcdserverpb.Watch/Watch",
        id: MethodId(3),
        kind: MethodKind::ClientStreaming,
    },
];

fn describe(
    stream: StreamKey,
    method: MethodId,
    timeout: Option<Duration>,
    metadata: &grpc::Metadata,
) -> String {
    let path = METHODS[usize::from(method.0)].path;
    let mut line = format!("{} {path}", stream.id);
    if let Some(timeout) = timeout {
        line += &format!(" timeout={timeout:?}");
    }
    let fields = [
        ("token", &metadata.token),
        ("authorization", &metadata.authorization),
        ("hasleader", &metadata.has_leader),
        ("client-api-version", &metadata.client_api_version),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            line += &format!(" {name}={}", show(value));
        }
    }
    line
}

impl Subject for Grpc {
    fn new() -> Self {
        let config = grpc::Config {
            message_bytes_max: 2 << 20,
            max_concurrent_streams: u32::MAX,
            ping_policy: PingPolicy::default(),
            keepalive: KeepaliveConfig::default(),
        };
        let methods = Rc::new(MethodTable::new(&METHODS));
        let connection = grpc::Connection::new(&config, methods, Duration::ZERO);
        Self { connection, streams: Vec::new() }
    }

    fn read(&mut self, bytes: &[u8], now: Duration) -> Vec<String> {
        let mut told = Vec::new();
        let mut input = Input::new(bytes);
        while let Some(event) = self.connection.poll_event(&mut input, now) {
            told.push(match event {
                grpc::Event::Request { stream, method, timeout, metadata, message } => {
                    self.streams.push(stream);
                    let call = describe(stream, method, timeout, &metadata);
                    format!("request {call} {}", show(&message))
                }
                grpc::Event::Call { stream, method, timeout, metadata } => {
                    self.streams.push(stream);
                    format!("call {}", describe(stream, method, timeout, &metadata))
                }
                grpc::Event::Message { stream, message } => {
                    let line = format!("message {} {}", stream.id, show(&message));
                    self.connection.recycle(Cow::clone(&message));
                    line
                }
                grpc::Event::HalfClose { stream } => format!("half-close {}", stream.id),
                grpc::Event::Cancelled { stream } => format!("cancelled {}", stream.id),
                grpc::Event::Closed(reason) => {
                    format!("closed {} {:?}", code_name(reason.code), reason.text)
                }
            });
        }
        told
    }

    fn command(&mut self, words: &[Vec<u8>], now: Duration) -> Vec<String> {
        if text(&words[0]) == "shutdown" {
            self.connection.http2().shut_down(now);
            return Vec::new();
        }
        let id = number(&words[1]);
        let key = *self.streams.iter().find(|key| key.id == id).expect("the owner knows the call");
        match text(&words[0]) {
            "answer" => self.connection.answer(key, &payload(&words[2])),
            "send" => self.connection.send(key, &payload(&words[2])),
            "begin" => self.connection.begin(key),
            "finish" => self.connection.finish(key, &Status::OK),
            "fail" => {
                let message = text(&words[2]).to_owned();
                self.connection.finish(key, &Status::new(Code::Unavailable, message));
            }
            "reset" => self.connection.reset(key, code(&words[2])),
            other => panic!("unknown command {other}"),
        }
        Vec::new()
    }

    fn tick(&mut self, now: Duration) {
        self.connection.http2().handle_tick(now);
    }

    fn written(&mut self) -> Vec<u8> {
        drain_output(self.connection.http2())
    }
}
