//! Requests below gRPC: methods, content types, deadlines, packed messages, none and two of them,
//! and what HTTP/1 gets on the same port.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::super::conversation::Conversation;
use super::super::exchange::{Exchange, framed};
use super::{Corpus, furnish, get, list, put};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_heads(corpus);
    add_timeouts(corpus);
    add_messages(corpus);
    add_packed(corpus);
    add_fields(corpus);
    add_plain(corpus);
}

/// A range of one key as a body.
fn range_body(c: &Conversation<'_>) -> Bytes {
    Bytes::from(framed(0, &get(c, "a").encode_to_vec()))
}

fn packed(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(message).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

fn add_heads(corpus: &mut Corpus) {
    const METHODS: [&str; 7] = ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "ODD"];
    for method in METHODS {
        corpus.case(format!("http/method-{}", method.to_lowercase()), move |c| {
            let body = range_body(c);
            c.exchange(&Exchange { method, ..Exchange::grpc(RANGE, body) });
        });
    }
    const TYPES: [(&str, Option<&[u8]>); 15] = [
        ("none", None),
        ("empty", Some(b"")),
        ("json", Some(b"application/json")),
        ("proto", Some(b"application/grpc+proto")),
        ("subtype-json", Some(b"application/grpc+json")),
        ("subtype-unknown", Some(b"application/grpc+odd")),
        ("subtype-empty", Some(b"application/grpc+")),
        ("parameter", Some(b"application/grpc;proto")),
        ("parameter-empty", Some(b"application/grpc;")),
        ("parameter-charset", Some(b"application/grpc; charset=utf-8")),
        ("longer-word", Some(b"application/grpcx")),
        ("web", Some(b"application/grpc-web")),
        ("upper-case", Some(b"APPLICATION/GRPC")),
        ("mixed-case-subtype", Some(b"application/grpc+Proto")),
        ("quotes", Some(b"text/\"plain\"")),
    ];
    for (name, content_type) in TYPES {
        corpus.case(format!("http/content-type-{name}"), move |c| {
            let body = range_body(c);
            c.exchange(&Exchange::grpc(RANGE, body.clone()).with("content-type", content_type));
            let request = Exchange::grpc("/nothing/Nothing", body);
            c.exchange(&request.with("content-type", content_type));
        });
    }
    corpus.case("http/two-wrongs-in-a-head", |c| {
        let body = range_body(c);
        let wrongs: [(&str, &[u8]); 4] = [
            ("content-type", b"text/plain"),
            ("grpc-timeout", b"soon"),
            ("grpc-encoding", b"odd"),
            ("some-bin", b"*"),
        ];
        for (index, (name, value)) in wrongs.iter().enumerate() {
            for (other_name, other) in &wrongs[index + 1..] {
                let request = Exchange::grpc(RANGE, body.clone());
                c.exchange(&request.with(name, Some(value)).with(other_name, Some(other)));
            }
            let wrong = || Exchange::grpc(RANGE, body.clone()).with(name, Some(value));
            c.exchange(&Exchange { method: "GET", ..wrong() });
            c.exchange(&Exchange { path: "/etcdserverpb.KV/Nothing", ..wrong() });
        }
    });
    const PATHS: [(&str, &str); 14] = [
        ("unknown-method", "/etcdserverpb.KV/Nothing"),
        ("unknown-service", "/etcdserverpb.Nothing/Range"),
        ("lower-case", "/etcdserverpb.kv/Range"),
        ("root", "/"),
        ("one-part", "/Range"),
        ("two-slashes", "//etcdserverpb.KV/Range"),
        ("three-parts", "/a/etcdserverpb.KV/Range"),
        ("empty-method", "/etcdserverpb.KV/"),
        ("empty-service", "//Range"),
        ("query", "/etcdserverpb.KV/Range?a=b"),
        ("escaped", "/etcdserverpb.KV/R%61nge"),
        ("quotes", "/etcdserverpb.KV/%22Range%22"),
        ("reflection", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        ("reflection-alpha", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    ];
    for (name, path) in PATHS {
        corpus.case(format!("http/path-{name}"), move |c| {
            let body = range_body(c);
            c.exchange(&Exchange::grpc(path, body));
        });
    }
    corpus.case("http/path-channelz", |c| {
        let path = "/grpc.channelz.v1.Channelz/GetTopChannels";
        c.exchange(&Exchange::grpc(path, Bytes::from(framed(0, &[]))));
    });
    corpus.case("http/te-is-no-matter", |c| {
        let body = range_body(c);
        c.exchange(&Exchange::grpc(RANGE, body.clone()).with("te", None));
    });
}

fn add_timeouts(corpus: &mut Corpus) {
    const TIMEOUTS: [(&str, &[u8]); 24] = [
        ("hours", b"1H"),
        ("minutes", b"1M"),
        ("seconds", b"30S"),
        ("milliseconds", b"30000m"),
        ("microseconds", b"30000000u"),
        ("one-nanosecond", b"1n"),
        ("zero-hours", b"0H"),
        ("zero-seconds", b"0S"),
        ("zero-nanoseconds", b"0n"),
        ("eight-digits-of-hours", b"99999999H"),
        ("nine-digits", b"999999999S"),
        ("unit-only", b"S"),
        ("number-only", b"10"),
        ("empty", b""),
        ("unit-unknown", b"10X"),
        ("unit-lower-case", b"10s"),
        ("negative", b"-1S"),
        ("plus", b"+1S"),
        ("fraction", b"1.5S"),
        ("space", b"1 S"),
        ("letters", b"abcS"),
        ("two-units", b"1SS"),
        ("hexadecimal", b"0x1S"),
        ("underscore", b"1_0S"),
    ];
    for (name, timeout) in TIMEOUTS {
        corpus.case(format!("timeout/{name}"), move |c| {
            let body = range_body(c);
            c.exchange(&Exchange::grpc(RANGE, body).with("grpc-timeout", Some(timeout)));
        });
    }
    corpus.case("timeout/before-the-first-message-of-a-stream", |c| {
        let request = Exchange { has_end: false, ..Exchange::grpc(KEEP_ALIVE, Bytes::new()) };
        c.exchange(&request.with("grpc-timeout", Some(b"100m")));
    });
}

fn add_messages(corpus: &mut Corpus) {
    for (name, path) in [
        ("unary", RANGE),
        ("server-stream", RANGE_STREAM),
        ("watch", WATCH),
        ("renewals", KEEP_ALIVE),
    ] {
        // A watch goes on when its client has no more to say, and so would the case.
        let sizes = if path == WATCH { &[5, 7][..] } else { &[0, 1, 4, 5, 7] };
        corpus.case(format!("http/message-flag-of-2-{name}"), move |c| {
            c.exchange(&Exchange::grpc(path, Bytes::from(framed(2, &[]))));
        });
        corpus.case(format!("http/message-packed-without-an-encoding-{name}"), move |c| {
            let body = Bytes::from(framed(1, &packed(&[])));
            c.exchange(&Exchange::grpc(path, body.clone()));
            c.exchange(&Exchange::grpc(path, body).with("grpc-encoding", Some(b"identity")));
        });
        corpus.case(format!("http/message-cut-{name}"), move |c| {
            let body = range_body(c);
            for size in sizes {
                c.exchange(&Exchange::grpc(path, body.slice(..*size)));
            }
        });
        corpus.case(format!("http/message-of-a-huge-size-{name}"), move |c| {
            for size in [u32::MAX, 1 << 31, 2_097_153] {
                let body = [&[0][..], &size.to_be_bytes(), b"x"].concat();
                c.exchange(&Exchange::grpc(path, Bytes::from(body)));
            }
        });
    }
    corpus.case("http/message-twice-unary", |c| {
        furnish(c);
        let body = range_body(c);
        c.exchange(&Exchange::grpc(RANGE, Bytes::from([body.clone(), body].concat())));
    });
    corpus.case("http/message-twice-put", |c| {
        let one = framed(0, &put(c, "a", "one").encode_to_vec());
        let two = framed(0, &put(c, "b", "two").encode_to_vec());
        c.exchange(&Exchange::grpc(PUT, Bytes::from([one, two].concat())));
        c.range(list(c, ""));
    });
    corpus.case("http/message-twice-server-stream", |c| {
        furnish(c);
        let body = framed(0, &list(c, "").encode_to_vec());
        c.exchange(&Exchange::grpc(RANGE_STREAM, Bytes::from([body.clone(), body].concat())));
    });
    corpus.case("http/message-and-bytes-after-it", |c| {
        let body = range_body(c);
        c.exchange(&Exchange::grpc(RANGE, Bytes::from([&body[..], &[0, 0]].concat())));
    });
    corpus.case("http/message-empty", |c| {
        for path in [RANGE, PUT, RANGE_STREAM] {
            c.exchange(&Exchange::grpc(path, Bytes::from(framed(0, &[]))));
        }
    });
}

fn add_packed(corpus: &mut Corpus) {
    type Pack = fn(&[u8]) -> Vec<u8>;
    const PACKS: [(&str, Pack); 8] = [
        ("whole", packed),
        ("in-two-members", |message| {
            let middle = message.len() / 2;
            [packed(&message[..middle]), packed(&message[middle..])].concat()
        }),
        ("cut", |message| {
            let packed = packed(message);
            packed[..packed.len() - 6].to_vec()
        }),
        ("cut-in-its-head", |message| packed(message)[..7].to_vec()),
        ("with-a-wrong-sum", |message| {
            let mut packed = packed(message);
            let at = packed.len() - 8;
            packed[at] ^= 1;
            packed
        }),
        ("with-a-wrong-size", |message| {
            let mut packed = packed(message);
            let at = packed.len() - 1;
            packed[at] ^= 1;
            packed
        }),
        ("not-at-all", |message| message.to_vec()),
        ("empty", |_| Vec::new()),
    ];
    for (name, pack) in PACKS {
        corpus.case(format!("gzip/request-{name}"), move |c| {
            furnish(c);
            let message = list(c, "").encode_to_vec();
            for path in [RANGE, RANGE_STREAM] {
                let body = Bytes::from(framed(1, &pack(&message)));
                c.exchange(&Exchange::grpc(path, body).with("grpc-encoding", Some(b"gzip")));
            }
        });
    }
    corpus.case("gzip/announced-but-plain", |c| {
        furnish(c);
        let body = Bytes::from(framed(0, &list(c, "").encode_to_vec()));
        c.exchange(&Exchange::grpc(RANGE, body).with("grpc-encoding", Some(b"gzip")));
    });
    corpus.case("gzip/a-put", |c| {
        let body = Bytes::from(framed(1, &packed(&put(c, "a", &"v".repeat(9000)).encode_to_vec())));
        c.exchange(&Exchange::grpc(PUT, body).with("grpc-encoding", Some(b"gzip")));
        c.range(list(c, ""));
    });
    corpus.case("gzip/that-unpacks-to-too-much", |c| {
        for size in [2_097_000, 2_097_152, 2_097_153, 9_000_000] {
            // An unknown field fills the message.
            let mut message = get(c, "a").encode_to_vec();
            let filler = size - message.len() - 6;
            message.extend([0x9a, 0x06]);
            prost::encoding::encode_varint(filler as u64, &mut message);
            message.resize(size, 0);
            let body = Bytes::from(framed(1, &packed(&message)));
            c.exchange(&Exchange::grpc(RANGE, body).with("grpc-encoding", Some(b"gzip")));
        }
    });
    for (name, encoding) in [
        ("upper-case", &b"GZIP"[..]),
        ("deflate", b"deflate"),
        ("empty", b""),
        ("two", b"gzip,identity"),
    ] {
        corpus.case(format!("gzip/encoding-{name}"), move |c| {
            let message = get(c, "a").encode_to_vec();
            for body in [framed(1, &packed(&message)), framed(0, &message)] {
                let request = Exchange::grpc(RANGE, Bytes::from(body));
                c.exchange(&request.with("grpc-encoding", Some(encoding)));
            }
        });
    }
    corpus.case("gzip/accepted-by-the-client", |c| {
        furnish(c);
        let body = Bytes::from(framed(0, &list(c, "").encode_to_vec()));
        c.exchange(&Exchange::grpc(RANGE, body).with("grpc-accept-encoding", Some(b"gzip")));
    });
}

fn add_fields(corpus: &mut Corpus) {
    const FIELDS: [(&str, &str, &[u8]); 12] = [
        ("binary-padded", "some-bin", b"AAEC"),
        ("binary-unpadded", "some-bin", b"AAE"),
        ("binary-wrong", "some-bin", b"A*"),
        ("binary-list", "some-bin", b"AAEC,AAEC"),
        ("binary-url-alphabet", "some-bin", b"-_-_"),
        ("binary-empty", "some-bin", b""),
        ("binary-reserved", "grpc-trace-bin", b"*"),
        ("user-agent", "user-agent", b"odd/1"),
        ("host-too", "host", b"elsewhere"),
        ("origin", "origin", b"http://elsewhere"),
        ("expect", "expect", b"100-continue"),
        ("cookie", "cookie", b"a=b"),
    ];
    for (name, field, value) in FIELDS {
        corpus.case(format!("http/field-{name}"), move |c| {
            let body = range_body(c);
            c.exchange(&Exchange::grpc(RANGE, body).with(field, Some(value)));
        });
    }
    // Only the first of these counts, or is it the last?
    const TWICE: [(&str, &str, [&[u8]; 2]); 5] = [
        ("has-leader", "hasleader", [b"true", b"false"]),
        ("version", "client-api-version", [b"3.7", b"\xff"]),
        ("version-wrong-first", "client-api-version", [b"\xff", b"3.7"]),
        ("timeout", "grpc-timeout", [b"30S", b"0S"]),
        ("encoding", "grpc-encoding", [b"odd", b"identity"]),
    ];
    for (name, field, values) in TWICE {
        corpus.case(format!("http/field-twice-{name}"), move |c| {
            let body = range_body(c);
            let mut request = Exchange::grpc(RANGE, body);
            request.fields.extend(values.map(|value| (field, value)));
            c.exchange(&request);
        });
    }
}

/// HTTP/1 on the same port. Answers that hold a term or a clock are another test's.
fn add_plain(corpus: &mut Corpus) {
    const ENDS: &str = "Host: localhost\r\nConnection: close\r\n";
    const GETS: [(&str, &str); 9] = [
        ("version", "/version"),
        ("health", "/health"),
        ("health-serializable", "/health?serializable=true"),
        ("live", "/livez"),
        ("ready", "/readyz"),
        ("ready-unknown-check", "/readyz/nothing"),
        ("unknown", "/nothing"),
        ("rpc", "/etcdserverpb.KV/Range"),
        ("gateway-by-get", "/v3/kv/range"),
    ];
    for (name, path) in GETS {
        corpus.case(format!("plain/get-{name}"), move |c| {
            c.exchange_plain(&format!("GET {path} HTTP/1.1\r\n{ENDS}\r\n"));
        });
    }
    const BODIES: [(&str, &str); 14] = [
        ("no-json", "nonsense"),
        ("empty", ""),
        ("cut", "{\"key\": \"YQ=="),
        ("empty-key", "{}"),
        ("key-no-base64", "{\"key\": \"***\"}"),
        ("key-a-number", "{\"key\": 5}"),
        ("key-an-object", "{\"key\": {}}"),
        ("limit-no-number", "{\"key\": \"YQ==\", \"limit\": \"many\"}"),
        ("limit-a-fraction", "{\"key\": \"YQ==\", \"limit\": 1.5}"),
        ("limit-too-large", "{\"key\": \"YQ==\", \"limit\": \"9223372036854775808\"}"),
        ("unknown-field", "{\"key\": \"YQ==\", \"nothing\": 1}"),
        ("key-twice", "{\"key\": \"YQ==\", \"key\": \"Yg==\"}"),
        ("enum-unknown", "{\"key\": \"YQ==\", \"sort_order\": \"ODD\"}"),
        ("future", "{\"key\": \"YQ==\", \"revision\": \"1099511627776\"}"),
    ];
    for (name, body) in BODIES {
        corpus.case(format!("plain/gateway-{name}"), move |c| {
            let size = body.len();
            c.exchange_plain(&format!(
                "POST /v3/kv/range HTTP/1.1\r\n{ENDS}Content-Type: application/json\r\n\
                 Content-Length: {size}\r\n\r\n{body}"
            ));
        });
    }
}
