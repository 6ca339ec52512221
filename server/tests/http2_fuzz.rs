//! HTTP/2 and gRPC against clients that make no sense, by seed.
//!
//! - Any bytes at all: no panic, and no more output than the input accounts for.
//! - Conversations that are mostly sound, with damage here and there: the output is the same, byte
//!   for byte, however the network cuts the input.
//! - A client that plays with its windows: the server never sends beyond them, and everything
//!   arrives in the end, whole and in order.
//!
//! Every failure names its seed.

#[path = "transcript/wire.rs"]
#[allow(dead_code, reason = "the transcripts use the rest")]
mod wire;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use server::frontend::grpc::{
    self, Code, Input, Method, MethodId, MethodKind, MethodTable, Status,
};
use server::frontend::http2::frame::{FrameHead, FrameKind, HEAD_BYTES, flag};
use server::frontend::http2::hpack::encoder::STATUS_200;
use server::frontend::http2::keepalive::{KeepaliveConfig, PingPolicy};
use server::frontend::http2::limits::{FRAME_BYTES_MAX, OUTPUT_DIRECT_BYTES};
use server::frontend::http2::{Config, Connection, Event, Field, StreamKey};
use server::metrics::{CallCounts, MethodName, MethodType};

const METHODS: [Method; 3] = [
    Method { path: "/s/Unary", id: MethodId(0), kind: MethodKind::Unary },
    Method { path: "/s/Server", id: MethodId(1), kind: MethodKind::ServerStreaming },
    Method { path: "/s/Client", id: MethodId(2), kind: MethodKind::ClientStreaming },
];

/// A small generator: the runs must be the same everywhere and for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The methods with labels for what is counted.
fn names() -> Vec<MethodName> {
    let kinds = [MethodType::Unary, MethodType::ServerStream, MethodType::ClientStream];
    let name = |kind| MethodName { service: "s", method: "m", kind, request: None, bounds: None };
    kinds.map(name).to_vec()
}

/// Looks, once the connection is gone, whether every call that was counted as begun was counted as
/// ended, whatever the client did.
struct Balance(Arc<CallCounts>);

impl Drop for Balance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for (place, method) in METHODS.iter().enumerate() {
            let counts = self.0.method(place);
            let handled: u64 = counts.handled.iter().map(|count| count.get()).sum();
            assert_eq!(counts.started.get(), handled, "calls of {method:?}");
        }
    }
}

/// A connection whose owner's behaviour depends on nothing but what it is told.
struct Owner {
    connection: grpc::Connection,
    waiting: Vec<StreamKey>,
    told: Vec<String>,
    answered_bytes: usize,
    closed: bool,
    /// Behind the connection: fields are dropped in this order.
    _balance: Balance,
}

impl Owner {
    fn new() -> Self {
        let config = grpc::Config {
            message_bytes_max: 20_000,
            max_concurrent_streams: 20,
            ping_policy: PingPolicy::default(),
            keepalive: KeepaliveConfig::default(),
        };
        let counts = Arc::new(CallCounts::new(&names(), true));
        let methods = Rc::new(MethodTable::new(&METHODS).counted(Arc::clone(&counts)));
        Self {
            connection: grpc::Connection::new(&config, methods, Duration::ZERO),
            waiting: Vec::new(),
            told: Vec::new(),
            answered_bytes: 0,
            closed: false,
            _balance: Balance(counts),
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        while let Some(event) = self.connection.poll_event(&mut input, Duration::ZERO) {
            assert!(!self.closed, "an event after the end: {event:?}");
            self.told.push(format!("{event:?}").replace("Borrowed", "").replace("Owned", ""));
            match event {
                grpc::Event::Request { stream, method, message, .. } => {
                    self.request(stream, method, message.len());
                    self.connection.recycle(message);
                }
                grpc::Event::Call { stream, .. } => self.connection.begin(stream),
                grpc::Event::Message { stream, message } => {
                    self.answered_bytes += message.len() + 100;
                    self.connection.send(stream, &message);
                }
                grpc::Event::HalfClose { stream } => self.connection.finish(stream, &Status::OK),
                grpc::Event::Cancelled { .. } => {}
                grpc::Event::Closed(_) => self.closed = true,
            }
        }
    }

    fn request(&mut self, stream: StreamKey, method: MethodId, size: usize) {
        let size = size * 3;
        self.answered_bytes += 2 * size + 200;
        if method == MethodId(1) {
            self.connection.send_with(stream, |out| out.resize(out.len() + size, 1));
            self.connection.send_with(stream, |out| out.resize(out.len() + size, 2));
            self.connection.finish(stream, &Status::OK);
            return;
        }
        match stream.id % 8 {
            1 | 3 => self.connection.answer_with(stream, |out| out.resize(out.len() + size, 3)),
            5 => self.waiting.push(stream),
            _ => self.connection.finish(stream, &Status::new(Code::Aborted, "no")),
        }
    }

    /// What follows every batch of reads.
    fn settle(&mut self) -> Vec<u8> {
        for stream in std::mem::take(&mut self.waiting) {
            self.connection.answer(stream, b"late");
        }
        let http2 = self.connection.http2();
        let mut written = Vec::new();
        while http2.has_output() {
            let count = http2.poll_output().len().div_ceil(2);
            written.extend_from_slice(&http2.poll_output()[..count]);
            http2.consume_output(count);
        }
        assert_eq!(http2.output_pending_bytes(), 0);
        written
    }
}

#[test]
fn any_bytes_are_survived() {
    for seed in 0..3000 {
        let mut random = Random(seed);
        let mut owner = Owner::new();
        let mut written = owner.settle().len();
        let mut sent = 0;
        let mut bytes = wire::encode("open");
        for _ in 0..10 {
            for _ in 0..random.below(20) {
                // Frames with believable headers reach deeper than noise does.
                let length = random.below(40);
                bytes.extend([0, 0, u8::try_from(length).expect("below 40")]);
                bytes.push(u8::try_from(random.below(11)).expect("a kind"));
                bytes.push(*random.pick(&[0, 1, 4, 5, 8, 32, 45, 255]));
                bytes.extend([0, 0, 0, u8::try_from(random.below(8)).expect("a stream")]);
                bytes.extend((0..length).map(|_| random.next().to_le_bytes()[0]));
            }
            if random.chance(20) {
                bytes.extend((0..random.below(200)).map(|_| random.next().to_le_bytes()[0]));
            }
            sent += bytes.len();
            owner.read(&bytes);
            bytes.clear();
            written += owner.settle().len();
            let queued = owner.connection.http2().queued_bytes();
            let bound = 2000 + 20 * sent + owner.answered_bytes;
            assert!(written + queued <= bound, "seed {seed}: {written} bytes for {sent}");
        }
    }
}

/// One chunk of a conversation that is mostly sound.
fn chunk(random: &mut Random, next_id: &mut u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + random.below(6) {
        let old = 1 + 2 * random.below((*next_id as usize / 2).max(1));
        let line = match random.below(20) {
            0..8 => {
                let id = *next_id;
                *next_id += 2;
                let path = random.pick(&["/s/Unary", "/s/Server", "/s/Client", "/s/None"]);
                let extra = random.pick(&[
                    "",
                    "+token=t",
                    "+grpc-timeout=5S",
                    "grpc-timeout=7S",
                    "pad=9",
                    "priority",
                    "grpc-encoding=gzip",
                    "content-length=8",
                    "x=y more",
                    "Bad=x",
                    "end",
                    "a-bin=!",
                    "x=5000b",
                    "+x=100b",
                ]);
                let mut line = format!(
                    "headers {id} :method=POST :scheme=http :path={path} \
                     content-type=application/grpc {extra}"
                );
                if extra.ends_with("more") {
                    line += &format!("; continuation {id} more; continuation {id} b=c");
                }
                if random.chance(80) {
                    line += &format!("; data {id} end msg:{}b", random.below(3000));
                }
                line
            }
            8 => format!("data {old} msg:{}b", random.below(12_000)),
            9 => format!("data {old} end \"\""),
            10 => format!("data {old} pad={} msg:\"x\"", random.below(256)),
            11 => format!("data {old} {}b", random.below(30)),
            12 => format!("reset {old} CANCEL"),
            13 => format!("window {old} {}", 1 + random.below(30_000)),
            14 => format!("window 0 {}", 1 + random.below(100_000)),
            15 => format!("settings INITIAL_WINDOW_SIZE={}", random.below(70_000)),
            16 => format!("settings HEADER_TABLE_SIZE={}", random.below(5000)),
            // On a closed stream this ends the connection, so it must stay rare.
            17 if random.chance(5) => format!("headers {old} end a=b"),
            18 => "frame 99 0 0 10b".to_owned(),
            _ => format!("priority {old}"),
        };
        for frame in line.split("; ") {
            bytes.extend(wire::encode(frame));
        }
    }
    if random.chance(2) {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn the_output_does_not_depend_on_how_the_input_is_cut() {
    let mut ended_by_damage = 0;
    let mut told = 0;
    for seed in 0..400 {
        let mut random = Random(seed);
        let mut next_id = 1;
        let mut chunks = vec![wire::encode("open")];
        chunks.extend((0..30).map(|_| chunk(&mut random, &mut next_id)));
        let mut owners = [Owner::new(), Owner::new(), Owner::new()];
        for (step, chunk) in chunks.iter().enumerate() {
            let [whole, bytes, odd] = &mut owners;
            whole.read(chunk);
            chunk.iter().for_each(|byte| bytes.read(&[*byte]));
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let (part, behind) = rest.split_at((1 + random.below(500)).min(rest.len()));
                odd.read(part);
                rest = behind;
            }
            let expected = whole.settle();
            for other in [bytes, odd] {
                assert!(other.settle() == expected, "seed {seed}, chunk {step}: output differs");
                assert_eq!(other.told, whole.told, "seed {seed}, chunk {step}");
            }
        }
        ended_by_damage += usize::from(owners[0].closed);
        told += owners[0].told.len();
    }
    // Both kinds of ending must occur, and calls on the way, or the generator has lost its point.
    assert!(told > 400 * 10, "only {told} events");
    assert!((40..360).contains(&ended_by_damage), "{ended_by_damage} of 400 ended early");
}

const NEW_INITIAL: &str = "settings INITIAL_WINDOW_SIZE=";

/// What a client with windows of its own knows about one stream.
#[derive(Default)]
struct Received {
    window: i64,
    body: usize,
    ended: bool,
}

/// A client that checks every frame against its windows.
struct Windows {
    connection: i64,
    initial: i64,
    streams: BTreeMap<u32, Received>,
    bytes: Vec<u8>,
}

impl Windows {
    fn take(&mut self, written: &[u8], seed: u64) {
        self.bytes.extend_from_slice(written);
        while let Some((head, rest)) = self.bytes.split_first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::parse(*head);
            if rest.len() < head.length {
                return;
            }
            let body: Vec<u8> = self.bytes.drain(..HEAD_BYTES + head.length).collect();
            let Some(stream) = self.streams.get_mut(&head.stream) else { continue };
            assert!(!stream.ended, "seed {seed}: {head:?} behind the end");
            if head.kind == FrameKind::Data {
                let length = i64::try_from(head.length).expect("a frame");
                stream.window -= length;
                self.connection -= length;
                assert!(stream.window >= 0, "seed {seed}: stream {} overrun", head.stream);
                assert!(self.connection >= 0, "seed {seed}: connection overrun");
                for byte in &body[HEAD_BYTES..] {
                    let expected = pattern(head.stream, stream.body);
                    assert_eq!(*byte, expected, "seed {seed}: stream {} is torn", head.stream);
                    stream.body += 1;
                }
            }
            assert_ne!(head.kind, FrameKind::ResetStream, "seed {seed}");
            stream.ended = head.has(flag::END_STREAM) && head.kind == FrameKind::Headers;
        }
    }
}

fn pattern(stream: u32, place: usize) -> u8 {
    (place as u64 * 31 + u64::from(stream)).to_le_bytes()[0]
}

/// A server and a client at the start of their connection.
fn window_pair() -> (Connection, Windows) {
    let config = Config {
        max_concurrent_streams: 100,
        ping_policy: PingPolicy::default(),
        keepalive: KeepaliveConfig::default(),
        pinned: &[],
    };
    let client = Windows {
        connection: 65_535,
        initial: 65_535,
        streams: BTreeMap::new(),
        bytes: Vec::new(),
    };
    (Connection::new(&config, Duration::ZERO), client)
}

#[test]
fn windows_are_kept_and_everything_arrives() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (mut server, mut client) = window_pair();
        let mut sizes = BTreeMap::new();
        let mut keys = Vec::new();
        let mut lines = vec!["open".to_owned()];
        for step in 0..200 {
            for line in lines.drain(..) {
                if let Some(amount) = line.strip_prefix(NEW_INITIAL) {
                    client.change_initial(amount.parse().expect("a number"), &mut server, seed);
                }
                let bytes = wire::encode(&line);
                let mut input = bytes.as_slice();
                while let Some(event) = server.poll_event(&mut input, Duration::ZERO) {
                    let Event::Headers { stream, .. } = event else {
                        panic!("seed {seed}: {event:?}")
                    };
                    server.send_headers(stream, &[STATUS_200]);
                    keys.push(stream);
                    sizes.insert(stream.id, 0);
                }
            }
            if !keys.is_empty() && random.chance(60) {
                let key = keys[random.below(keys.len())];
                let size = *random.pick(&[0, 1, 100, 16_384, 16_385, 50_000, 90_000]);
                let sent = sizes.get_mut(&key.id).expect("every key has a size");
                let start = *sent;
                *sent += size;
                server.send_data(key, |out| {
                    out.extend((start..start + size).map(|place| pattern(key.id, place)));
                });
            }
            if keys.len() > 1 && random.chance(10) {
                let key = keys.swap_remove(random.below(keys.len()));
                server.send_trailers(key, &[Field::Literal(b"grpc-status", b"0")]);
            }
            // A socket that takes what it likes.
            if random.chance(70) {
                let written = server.poll_output().to_vec();
                let count = random.below(written.len() + 1);
                client.take(&written[..count], seed);
                server.consume_output(count);
            }
            lines.extend(client.act(&mut random, step));
        }
        for key in keys {
            server.send_trailers(key, &[Field::Literal(b"grpc-status", b"0")]);
        }
        client.finish(&mut server, seed);
        for (id, size) in sizes {
            let received = &client.streams[&id];
            assert!(
                received.ended && received.body == size,
                "seed {seed}: stream {id} lacks bytes"
            );
        }
        assert_eq!(server.queued_bytes(), 0, "seed {seed}");
        assert_eq!(server.streams_open(), 0, "seed {seed}");
    }
}

/// Opens all windows as wide as the protocol lets them be; the streams 1, 3, ... of `count`.
fn open_wide(server: &mut Connection, client: &mut Windows, count: u32) -> Vec<StreamKey> {
    let largest = i64::from(i32::MAX);
    let mut lines = vec!["open".to_owned(), format!("{NEW_INITIAL}{largest}")];
    lines.push(format!("window 0 {}", largest - client.connection));
    (client.connection, client.initial) = (largest, largest);
    for place in 0..count {
        let id = 2 * place + 1;
        client.streams.insert(id, Received { window: largest, ..Received::default() });
        lines.push(format!("headers {id} end request"));
    }
    let mut keys = Vec::new();
    for line in lines {
        let bytes = wire::encode(&line);
        let mut input = bytes.as_slice();
        while let Some(event) = server.poll_event(&mut input, Duration::ZERO) {
            let Event::Headers { stream, .. } = event else { panic!("{event:?}") };
            server.send_headers(stream, &[STATUS_200]);
            keys.push(stream);
        }
    }
    keys
}

/// Wide windows were once all that bounded the output of a client that did not read: bodies of less
/// than a frame went past the streams' account, and the watcher behind them was never parked.
#[test]
fn what_a_client_with_wide_windows_does_not_read_waits_in_its_streams() {
    const HEADROOM_BYTES: usize = 1 << 10;
    for size in [100, 5000, 16_384, 300_000, 2_000_000] {
        let (mut server, mut client) = window_pair();
        let keys = open_wide(&mut server, &mut client, 2);
        let mut sizes = [0; 2];
        for turn in 0..8 * OUTPUT_DIRECT_BYTES / size {
            let which = turn % 2;
            let start = sizes[which];
            sizes[which] += size;
            let id = keys[which].id;
            server.send_data(keys[which], |out| {
                out.extend((start..start + size).map(|place| pattern(id, place)));
            });
            let heads = OUTPUT_DIRECT_BYTES / size.min(FRAME_BYTES_MAX) * HEAD_BYTES;
            let bound = OUTPUT_DIRECT_BYTES + heads + HEADROOM_BYTES;
            let waiting = server.output_pending_bytes();
            assert!(waiting <= bound, "{waiting} bytes wait for the socket, of {size} each");
        }
        let pending: usize = keys.iter().map(|key| server.stream_pending_bytes(*key)).sum();
        let beyond = sizes.iter().sum::<usize>().saturating_sub(OUTPUT_DIRECT_BYTES);
        assert!(pending >= beyond.saturating_sub(HEADROOM_BYTES), "{pending} of {beyond} counted");
        assert!(server.socket_pending_bytes() >= pending, "the socket is all that it waits for");
        for key in keys {
            server.send_trailers(key, &[Field::Literal(b"grpc-status", b"0")]);
        }
        client.read_all(&mut server, 0);
        for (stream, size) in client.streams.values().zip(sizes) {
            assert!(stream.ended && stream.body == size, "{} of {size}", stream.body);
        }
        assert_eq!((server.queued_bytes(), server.socket_pending_bytes()), (0, 0));
    }
}

impl Windows {
    /// Opens streams and turns the windows, as lines of the wire.
    fn act(&mut self, random: &mut Random, step: u32) -> Option<String> {
        if step < 20 && random.chance(50) {
            let id = u32::try_from(self.streams.len() * 2 + 1).expect("few streams");
            self.streams.insert(id, Received { window: self.initial, ..Received::default() });
            return Some(format!("headers {id} end request"));
        }
        let amount = i64::try_from(1 + random.below(40_000)).expect("small");
        match random.below(10) {
            0..3 => {
                self.connection += amount;
                Some(format!("window 0 {amount}"))
            }
            3..6 => {
                let open: Vec<_> = self
                    .streams
                    .iter()
                    .filter(|(_, stream)| !stream.ended)
                    .map(|(id, _)| *id)
                    .collect();
                if open.is_empty() {
                    return None;
                }
                let id = *random.pick(&open);
                self.streams.get_mut(&id).expect("just listed").window += amount;
                Some(format!("window {id} {amount}"))
            }
            6 => Some(format!("{NEW_INITIAL}{amount}")),
            _ => None,
        }
    }

    /// A new initial window. What the server wrote under the old one is read before, because it
    /// may exceed the new one and rightly so.
    fn change_initial(&mut self, amount: i64, server: &mut Connection, seed: u64) {
        self.read_all(server, seed);
        let change = amount - self.initial;
        self.initial = amount;
        self.streams.values_mut().for_each(|stream| stream.window += change);
    }

    fn read_all(&mut self, server: &mut Connection, seed: u64) {
        while server.has_output() {
            let written = server.poll_output().to_vec();
            self.take(&written, seed);
            server.consume_output(written.len());
        }
    }

    /// Opens all windows wide and reads to the end.
    fn finish(&mut self, server: &mut Connection, seed: u64) {
        let mut lines = vec!["window 0 100000000".to_owned()];
        self.connection += 100_000_000;
        for (id, stream) in &mut self.streams {
            if !stream.ended {
                stream.window += 10_000_000;
                lines.push(format!("window {id} 10000000"));
            }
        }
        for line in lines {
            let bytes = wire::encode(&line);
            let mut input = bytes.as_slice();
            let event = server.poll_event(&mut input, Duration::ZERO);
            assert!(event.is_none(), "seed {seed}: {event:?}");
        }
        self.read_all(server, seed);
    }
}
