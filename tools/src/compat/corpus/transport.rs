//! What lies below the API: bytes that are no message, methods that do not exist, header fields,
//! the size limits, grpc's health service.

use bytes::Bytes;
use prost::Message;

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb as pb;
use super::super::wire::grpc::health::v1 as health;
use super::{Corpus, get, put};

const RANGE: &str = "/etcdserverpb.KV/Range";

/// Sends bytes as they are.
fn send(c: &mut Conversation<'_>, path: &str, bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    c.ask_with::<()>(path, [bytes.clone(), bytes], &[]);
}

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_bytes(corpus);
    add_methods(corpus);
    add_metadata(corpus);
    add_limits(corpus);
    add_health(corpus);
}

fn add_bytes(corpus: &mut Corpus) {
    const BYTES: [(&str, &[u8]); 14] = [
        ("nothing", &[]),
        ("a-cut-tag", &[0xff]),
        ("a-cut-length", &[0x0a]),
        ("a-length-beyond-the-end", &[0x0a, 9, b'a']),
        ("a-huge-length", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        (
            "a-number-that-does-not-end",
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("field-zero", &[0x02, 1, b'a']),
        ("a-field-too-large", &[0xfa, 0xff, 0xff, 0xff, 0x7f, 0]),
        ("a-group-that-does-not-end", &[0x0b]),
        ("a-group-that-ends-only", &[0x0c]),
        ("wire-type-6", &[0x0e, 0]),
        ("an-unknown-field", &[0x9a, 0x06, 1, 7]),
        ("an-unknown-group", &[0x0a, 1, b'a', 0xa3, 0x06, 0xa4, 0x06]),
        ("a-key-twice", &[0x0a, 1, b'a', 0x0a, 1, b'b']),
    ];
    for (name, bytes) in BYTES {
        corpus.case(format!("bytes/{name}"), move |c| {
            for path in [RANGE, "/etcdserverpb.KV/Put", "/etcdserverpb.KV/DeleteRange"] {
                // A put of a short key would be seen by no other case, but need not be made.
                if path == RANGE || bytes.first() != Some(&0x0a) {
                    send(c, path, bytes);
                }
            }
            send(c, "/etcdserverpb.KV/Txn", bytes);
        });
    }
    const FIELDS: [(&str, &[u8]); 6] = [
        ("number-as-bytes", &[0x0a, 1, b'a', 0x1a, 1, 5]),
        ("bytes-as-number", &[0x08, 5]),
        ("number-as-fixed64", &[0x0a, 1, b'a', 0x19, 1, 0, 0, 0, 0, 0, 0, 0]),
        ("flag-beyond-one", &[0x0a, 1, b'a', 0x48, 5]),
        ("enum-beyond-32-bits", &[0x0a, 1, b'a', 0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("number-too-long", &[0x0a, 1, b'a', 0x18, 0x85, 0x80, 0x80, 0x00]),
    ];
    for (name, bytes) in FIELDS {
        corpus.case(format!("bytes/{name}"), move |c| send(c, RANGE, bytes));
    }
    corpus.case("bytes/the-last-kind-of-an-op-wins", |c| {
        let range =
            pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(get(c, "a"))) };
        let put =
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(c, "a", "v"))) };
        let both = [range.encode_to_vec(), put.encode_to_vec()].concat();
        let size = u8::try_from(both.len()).expect("two short requests");
        let txn = [vec![0x12, size], both].concat();
        send(c, "/etcdserverpb.KV/Txn", &txn);
        c.range(get(c, "a"));
    });
    corpus.case("bytes/text-that-is-no-utf-8", |c| {
        send(c, "/grpc.health.v1.Health/Check", &[0x0a, 2, 0xff, 0xfe]);
    });
}

fn add_methods(corpus: &mut Corpus) {
    const PATHS: [(&str, &str); 9] = [
        ("unknown-method", "/etcdserverpb.KV/Nothing"),
        ("unknown-service", "/etcdserverpb.Nothing/Range"),
        ("unknown-package", "/nothing.KV/Range"),
        ("lower-case", "/etcdserverpb.KV/range"),
        ("one-part", "/Range"),
        ("three-parts", "/etcdserverpb/KV/Range"),
        ("trailing-slash", "/etcdserverpb.KV/Range/"),
        ("root", "/"),
        ("reflection", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    ];
    for (name, path) in PATHS {
        corpus.case(format!("method/{name}"), move |c| send(c, path, &[]));
    }
}

fn add_metadata(corpus: &mut Corpus) {
    const FIELDS: [(&str, &str, &[u8]); 12] = [
        ("has-leader", "hasleader", b"true"),
        ("has-leader-false", "hasleader", b"false"),
        ("version", "client-api-version", b"3.7"),
        ("version-unknown", "client-api-version", b"one"),
        ("version-not-utf-8", "client-api-version", b"\xff\xfe"),
        ("token-while-auth-is-off", "token", b"nobody.1"),
        ("authorization-while-auth-is-off", "authorization", b"Bearer nobody.1"),
        ("encoding-unknown", "grpc-encoding", b"nonsense"),
        ("encoding-identity", "grpc-encoding", b"identity"),
        ("timeout-long", "grpc-timeout", b"10S"),
        ("timeout-nonsense", "grpc-timeout", b"soon"),
        ("binary", "anything-bin", b"AAEC"),
    ];
    for (name, field, value) in FIELDS {
        corpus.case(format!("metadata/{name}"), move |c| {
            let request = Bytes::from(get(c, "a").encode_to_vec());
            c.ask_with::<pb::RangeResponse>(RANGE, [request.clone(), request], &[(field, value)]);
        });
    }
}

fn add_limits(corpus: &mut Corpus) {
    for size in [2_097_151, 2_097_152, 2_097_153, 3_000_000] {
        corpus.case(format!("limits/message-of-{size}-bytes"), move |c| {
            // An unknown field fills the message, so that only its size matters.
            let mut bytes = get(c, "a").encode_to_vec();
            let filler = size - bytes.len() - 6;
            bytes.extend([0x9a, 0x06]);
            prost::encoding::encode_varint(u64::try_from(filler).unwrap_or(0), &mut bytes);
            bytes.resize(size, b'x');
            send(c, RANGE, &bytes);
        });
    }
    const SMALL: &[&str] = &["--max-request-bytes", "1000"];
    corpus.alone("limits/max-request-bytes-of-1000", SMALL, |c| {
        for size in [100, 800, 900, 940, 960, 980, 1000, 2000, 500_000, 530_000] {
            c.put(pb::PutRequest { value: vec![b'v'; size], ..put(c, "a", "") });
        }
    });
    corpus.case("limits/txn-larger-than-a-request-may-be", |c| {
        let puts = (0..8).map(|at| {
            let value = vec![b'v'; 200_000];
            super::op::put(pb::PutRequest { value, ..put(c, &at.to_string(), "") })
        });
        let request = super::then(puts.collect());
        c.txn(request);
    });
}

fn add_health(corpus: &mut Corpus) {
    for service in ["", "etcdserverpb.KV", "nothing"] {
        let name = if service.is_empty() { "the-server" } else { service };
        corpus.case(format!("health/check-{name}"), move |c| {
            let request = health::HealthCheckRequest { service: service.to_owned() };
            c.ask::<_, health::HealthCheckResponse>("/grpc.health.v1.Health/Check", &request);
        });
    }
    corpus.case("health/list", |c| {
        let request = health::HealthListRequest {};
        c.ask::<_, health::HealthListResponse>("/grpc.health.v1.Health/List", &request);
    });
}
