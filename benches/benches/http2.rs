//! The front-end's kernels: HTTP/2, gRPC and HPACK, from bytes to calls and back, without a
//! socket. Bytes are those of a grpc-go client that puts 256 byte values.
//!
//! - `calls`: reads that bring so many calls each, taken to complete requests. Without deadlines a
//!   client repeats one header block; with them every block is new.
//! - `answers`: put answers with headers and trailers, so many to one write, taken to the bytes of
//!   that write.
//! - `hpack`: one header block in or out, and the Huffman code alone.
//!
//! A connection lives for [`TURNS`] turns of [`CALLS`] calls; its first turn, in which buffers grow
//! and tables fill, is not counted.

use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use benches::draw::{Draw, pod};
use benches::grpc_client::{self, Client, PREFACE, push_window_update};
use benches::requests;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{Answer, Outcome, Revision};
use server::frontend::grpc::{
    Config, Connection, Event, Input, Method as GrpcMethod, MethodId, MethodKind, MethodTable,
};
use server::frontend::http2::hpack::decoder::Decoder;
use server::frontend::http2::hpack::encoder::{Encoder, STATUS_200};
use server::frontend::http2::hpack::huffman;
use server::frontend::http2::keepalive::{KeepaliveConfig, PingPolicy};
use server::frontend::http2::limits::HEADER_TABLE_BYTES;
use server::frontend::http2::{Field, StreamKey};
use server::service::dispatch::{Service, ServiceLimits};
use server::service::lease::LeaseIds;
use server::service::method::Method;
use server::service::node_state::NodeState;

const CALLS: usize = 1024;
const TURNS: usize = 8;
const NAMESPACES: u64 = 10_000;
const NOW: Duration = Duration::from_secs(1);
/// Enough for all that a connection is answered in its life.
const WINDOW_BYTES: u32 = 1 << 30;
const SEED: u64 = 4;

/// All that a client says in the life of a connection: turns of reads.
struct Script(Vec<Vec<Vec<u8>>>);

impl Script {
    fn new(deadlines: Option<Draw>, read_calls: usize) -> Self {
        let mut draw = Draw::new(SEED);
        let mut client = Client::new(deadlines);
        let mut read = || {
            let mut bytes = Vec::new();
            for _ in 0..read_calls {
                let message = requests::put(&pod(draw.below(NAMESPACES)), &draw.value());
                client.push_call(&mut bytes, Method::Put.path(), &message);
            }
            bytes
        };
        let mut turn = || (0..CALLS / read_calls).map(|_| read()).collect();
        Self((0..TURNS).map(|_| turn()).collect())
    }
}

struct Server {
    connection: Connection,
    service: Service,
    node: NodeState,
    streams: Vec<StreamKey>,
    output: Vec<u8>,
}

impl Server {
    fn new(methods: &Rc<MethodTable>) -> Self {
        let config = Config {
            message_bytes_max: 2 << 20,
            max_concurrent_streams: u32::MAX,
            ping_policy: PingPolicy::default(),
            keepalive: KeepaliveConfig::default(),
        };
        let node = NodeState::default();
        let mut server = Self {
            connection: Connection::new(&config, Rc::clone(methods), NOW),
            service: Service::new(ServiceLimits::default(), &node, LeaseIds::new(1, 1, 0, 1)),
            node,
            streams: Vec::new(),
            output: Vec::new(),
        };
        let mut opening = PREFACE.to_vec();
        push_window_update(&mut opening, WINDOW_BYTES);
        server.read(&opening);
        server
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        while let Some(event) = self.connection.poll_event(&mut input, NOW) {
            let Event::Request { stream, message, .. } = event else {
                panic!("a client that only puts causes {event:?}");
            };
            black_box(&message[..]);
            self.streams.push(stream);
        }
    }

    /// Answers all calls, so many to a write.
    fn answer(&mut self, write_calls: usize) {
        let Self { connection, service, node, streams, output } = self;
        let revision = Revision(1_000_000);
        let answer = Answer { revision, outcome: Outcome::Put { prev: None } };
        for streams in streams.chunks(write_calls) {
            for stream in streams {
                connection.answer_with(*stream, |out| {
                    service.encode_answer(&answer, node, out).expect("a put that was done");
                });
            }
            output.clear();
            connection.http2().swap_output(output);
            black_box(&output[..]);
        }
        streams.clear();
    }
}

/// Which half of a turn is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Calls,
    Answers,
}

/// Plays scripts to servers until so many turns are timed.
fn play(script: &Script, half: Half, group_calls: usize, turn_count: u64) -> Duration {
    let methods = Rc::new(method_table());
    let mut left = usize::try_from(turn_count).expect("usize is 64 bits wide");
    let mut taken = Duration::ZERO;
    while left > 0 {
        let mut server = Server::new(&methods);
        for (index, turn) in script.0.iter().enumerate().take(left + 1) {
            let start = Instant::now();
            for read in turn {
                server.read(read);
            }
            let calls = start.elapsed();
            assert_eq!(server.streams.len(), CALLS, "calls of one turn");
            let start = Instant::now();
            server.answer(group_calls);
            let answers = start.elapsed();
            if index > 0 {
                taken += if half == Half::Calls { calls } else { answers };
                left -= 1;
            }
        }
        assert_eq!(server.connection.http2().streams_open(), 0, "every call was answered");
    }
    taken
}

fn method_table() -> MethodTable {
    let methods = Method::ALL.iter().zip(0..).map(|(method, number)| GrpcMethod {
        path: method.path(),
        id: MethodId(number),
        kind: match (method.client_streams(), method.server_streams()) {
            (true, _) => MethodKind::ClientStreaming,
            (false, true) => MethodKind::ServerStreaming,
            (false, false) => MethodKind::Unary,
        },
    });
    MethodTable::new(&methods.collect::<Vec<_>>())
}

fn deadlines() -> Draw {
    Draw::new(SEED + 1)
}

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http2 calls");
    for (name, deadlines) in [("without deadlines", None), ("with deadlines", Some(deadlines()))] {
        for read_calls in [1, 64, CALLS] {
            let script = Script::new(deadlines.clone(), read_calls);
            let bytes: usize = script.0[1].iter().map(Vec::len).sum();
            group.throughput(Throughput::ElementsAndBytes {
                elements: CALLS as u64,
                bytes: bytes as u64,
            });
            group.bench_function(format!("{read_calls} a read, {name}"), |bencher| {
                bencher.iter_custom(|turns| play(&script, Half::Calls, CALLS, turns));
            });
        }
    }
    group.finish();
}

fn answers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http2 answers");
    group.throughput(Throughput::Elements(CALLS as u64));
    let script = Script::new(None, CALLS);
    for write_calls in [1, 64, CALLS] {
        group.bench_function(format!("{write_calls} a write"), |bencher| {
            bencher.iter_custom(|turns| play(&script, Half::Answers, write_calls, turns));
        });
    }
    group.finish();
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> usize {
    let mut size_bytes = 0;
    decoder
        .decode(block, |name, value| size_bytes += black_box(name).len() + black_box(value).len())
        .expect("the client's table is ours");
    size_bytes
}

fn new_decoder() -> Decoder {
    Decoder::new(HEADER_TABLE_BYTES as usize)
}

fn hpack_in(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hpack decode");
    let mut client = Client::new(None);
    let first = client.header_block(Method::Put.path());
    let second = client.header_block(Method::Put.path());
    group.throughput(Throughput::Bytes(first.len() as u64));
    group.bench_function("first block", |bencher| {
        bencher.iter_batched_ref(
            new_decoder,
            |decoder| decode(decoder, &first),
            BatchSize::SmallInput,
        );
    });
    let mut decoder = new_decoder();
    decode(&mut decoder, &first);
    group.throughput(Throughput::Bytes(second.len() as u64));
    group.bench_function("indexed block", |bencher| {
        bencher.iter(|| decode(&mut decoder, &second));
    });
    // Blocks differ in length: their table turns over.
    let mut client = Client::new(Some(deadlines()));
    let mut decoder = new_decoder();
    group.throughput(Throughput::Elements(1));
    group.bench_function("block with deadline", |bencher| {
        bencher.iter_batched(
            || client.header_block(Method::Put.path()),
            |block| decode(&mut decoder, &block),
            BatchSize::SmallInput,
        );
    });
    let text = Method::Put.path().as_bytes();
    let coded = grpc_client::huffman(text).expect("paths have short codes");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("huffman path", |bencher| {
        let mut decoded = Vec::new();
        bencher.iter(|| {
            decoded.clear();
            huffman::decode(&coded, &mut decoded).expect("coded just now");
            assert_eq!(decoded.len(), text.len());
        });
    });
    group.finish();
}

fn hpack_out(criterion: &mut Criterion) {
    const PINNED: &[(&[u8], &[u8])] =
        &[(b"content-type", b"application/grpc"), (b"grpc-status", b"0")];
    let mut group = criterion.benchmark_group("hpack encode");
    let head = [STATUS_200, Field::Pinned(0)];
    let trailers = [Field::Pinned(1)];
    group.throughput(Throughput::Elements(1));
    let mut out = Vec::new();
    group.bench_function("first answer", |bencher| {
        bencher.iter_batched_ref(
            || Encoder::new(PINNED, HEADER_TABLE_BYTES as usize),
            |encoder| {
                out.clear();
                encoder.encode(black_box(&head), &mut out);
                encoder.encode(black_box(&trailers), &mut out);
                black_box(out.len())
            },
            BatchSize::SmallInput,
        );
    });
    let mut encoder = Encoder::new(PINNED, HEADER_TABLE_BYTES as usize);
    group.bench_function("later answer", |bencher| {
        bencher.iter(|| {
            out.clear();
            encoder.encode(black_box(&head), &mut out);
            encoder.encode(black_box(&trailers), &mut out);
            black_box(out.len())
        });
    });
    let refusal = [
        STATUS_200,
        Field::Literal(b"content-type", b"application/grpc"),
        Field::Literal(b"grpc-status", b"3"),
        Field::Literal(b"grpc-message", b"etcdserver: key is not provided"),
    ];
    group.bench_function("refusal", |bencher| {
        bencher.iter(|| {
            out.clear();
            encoder.encode(black_box(&refusal), &mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(kernels, calls, answers, hpack_in, hpack_out);
criterion_main!(kernels);
