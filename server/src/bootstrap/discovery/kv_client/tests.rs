//! The client against a small server of its own kind of bytes; `tests/member` has it against ringd.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use engine::MemberId;

use super::super::service::tests::Noted;
use super::super::service::{DiscoveryError, join};
use super::*;
use crate::frontend::http2::frame::{
    FrameHead, FrameKind, HEAD_BYTES, PREFACE, flag, put_head, put_ping,
};
use crate::frontend::http2::hpack::decoder::Decoder;
use crate::service::proto::mvccpb::{Event, KeyValue};

/// What a call looked like: path, token, message.
type Asked = (String, String, Vec<u8>);

/// What is answered: messages, and a status unless the call stays open.
type Answered = (Vec<Vec<u8>>, Option<(u32, &'static str)>);

/// Serves one call after the other on a port of its own until the test ends.
fn serve(mut answer: impl FnMut(Asked) -> Answered + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(asked) = read_call(&mut stream) else { continue };
            let (messages, status) = answer(asked);
            let mut out = Vec::new();
            put_head(&mut out, FrameKind::Settings, 0, 0, 0);
            put_ping(&mut out, 0, [1; 8]);
            // Static table: ":status 200".
            put_head(&mut out, FrameKind::Headers, flag::END_HEADERS, 1, 1);
            out.push(0x88);
            for message in messages {
                let size = u32::try_from(message.len()).unwrap();
                put_head(&mut out, FrameKind::Data, 0, 1, 5);
                out.push(0);
                out.extend(size.to_be_bytes());
                put_head(&mut out, FrameKind::Data, 0, 1, message.len());
                out.extend(message);
            }
            if let Some((code, text)) = status {
                let mut block = Vec::new();
                for (name, value) in
                    [("grpc-status", code.to_string().as_str()), ("grpc-message", text)]
                {
                    block.push(0);
                    for part in [name, value] {
                        block.push(u8::try_from(part.len()).unwrap());
                        block.extend(part.as_bytes());
                    }
                }
                let flags = flag::END_HEADERS | flag::END_STREAM;
                put_head(&mut out, FrameKind::Headers, flags, 1, block.len());
                out.extend(block);
            }
            drop(stream.write_all(&out));
            open.push(stream);
        }
    });
    address
}

fn read_call(stream: &mut TcpStream) -> Option<Asked> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).ok()?;
    let (mut path, mut token, mut message) = (String::new(), String::new(), Vec::new());
    let mut decoder = Decoder::new(4096);
    while message.len() < 5 || message.len() < 5 + usize::from(message[4]) {
        let mut head = [0; HEAD_BYTES];
        stream.read_exact(&mut head).ok()?;
        let head = FrameHead::parse(head);
        let mut payload = vec![0; head.length];
        stream.read_exact(&mut payload).ok()?;
        match head.kind {
            FrameKind::Headers => decoder
                .decode(&payload, |name, value| match name {
                    b":path" => path = text(value),
                    b"token" => token = text(value),
                    _ => {}
                })
                .unwrap(),
            FrameKind::Data => message.extend(payload),
            _ => {}
        }
    }
    Some((path, token, message.split_off(5)))
}

fn client(endpoints: &[String]) -> KvClient {
    KvClient::new(KvClientConfig {
        endpoints: endpoints.to_vec(),
        dial_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(20),
        user: None,
    })
    .unwrap()
}

fn kv(key: &str, value: &str, create_revision: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision,
        ..KeyValue::default()
    }
}

fn range(kvs: Vec<KeyValue>, revision: i64) -> Answered {
    let header = Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() });
    let response = pb::RangeResponse { header, kvs, ..pb::RangeResponse::default() };
    (vec![response.encode_to_vec()], Some((0, "")))
}

#[test]
fn members_join_through_the_wire() {
    let (tell, told) = mpsc::channel();
    let address = serve(move |(path, token, message)| {
        assert_eq!(token, "");
        match path.as_str() {
            "/etcdserverpb.KV/Range" => {
                let request = pb::RangeRequest::decode(&message[..]).unwrap();
                let key = text(&request.key);
                if key.ends_with("size") {
                    assert!(request.range_end.is_empty());
                    return range(vec![kv(&key, "2", 3)], 7);
                }
                assert_eq!(text(&request.range_end), "/_etcd/registry/t/membert");
                range(vec![kv("/_etcd/registry/t/members/ab", "n1=http://a:1", 5)], 7)
            }
            "/etcdserverpb.KV/Put" => {
                let request = pb::PutRequest::decode(&message[..]).unwrap();
                tell.send((text(&request.key), text(&request.value))).unwrap();
                (vec![pb::PutResponse::default().encode_to_vec()], Some((0, "")))
            }
            "/etcdserverpb.Watch/Watch" => {
                let request = pb::WatchRequest::decode(&message[..]).unwrap();
                let Some(pb::watch_request::RequestUnion::CreateRequest(create)) =
                    request.request_union
                else {
                    panic!("it creates a watch")
                };
                assert_eq!(create.start_revision, 8);
                let kv = Some(kv("/_etcd/registry/t/members/cd", "n2=http://b:1", 8));
                let event = Event { kv, ..Event::default() };
                let created = pb::WatchResponse { created: true, ..pb::WatchResponse::default() };
                let events =
                    pb::WatchResponse { events: vec![event], ..pb::WatchResponse::default() };
                (vec![created.encode_to_vec(), events.encode_to_vec()], None)
            }
            other => panic!("nobody calls {other}"),
        }
    });
    let mut clock = Noted::default();
    let mut client = client(&[address]);
    let joined = join(&mut client, &mut clock, "t", MemberId(0xab), "n1=http://a:1");
    assert_eq!(joined, Ok("n1=http://a:1,n2=http://b:1".to_owned()));
    let put = ("/_etcd/registry/t/members/ab".to_owned(), "n1=http://a:1".to_owned());
    assert_eq!(told.try_recv(), Ok(put));
    assert!(clock.0.is_empty());
}

#[test]
fn the_next_endpoint_is_asked_when_one_is_gone() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let address = serve(|_| range(Vec::new(), 1));
    let mut client = client(&[gone.clone(), format!("http://{address}")]);
    let error = client.get("x").unwrap_err();
    assert!(error.starts_with(&format!("rpc error: code = Unavailable desc = http://{gone}: ")));
    assert_eq!(client.get("x"), Ok(None));
    let mut clock = Noted::default();
    client.next = 0;
    let joined = join(&mut client, &mut clock, "t", MemberId(1), "n=http://a:1");
    assert_eq!((joined, clock.0), (Err(DiscoveryError::SizeNotFound), vec![2]));
}

#[test]
fn errors_of_the_service_are_told() {
    let address = serve(|_| (Vec::new(), Some((8, "etcdserver: mvcc: database space exceeded"))));
    let text = "etcdserver: mvcc: database space exceeded".to_owned();
    assert_eq!(client(&[address]).put("a", "b"), Err(text));
    let address = serve(|_| (vec![b"\xff".to_vec()], Some((0, ""))));
    assert!(client(&[address]).get("a").unwrap_err().starts_with("the answer cannot be read"));
    let address = serve(|(path, ..)| {
        assert_eq!(path, "/etcdserverpb.Watch/Watch");
        let cancel_reason = "compacted".to_owned();
        let response =
            pb::WatchResponse { canceled: true, cancel_reason, ..pb::WatchResponse::default() };
        (vec![response.encode_to_vec()], None)
    });
    let watched = client(&[address]).watch("a", 1, &mut |_| true);
    assert_eq!(watched, Err("the watch was cancelled: compacted".to_owned()));
}

#[test]
fn a_user_shows_a_token_and_gets_another_after_a_failure() {
    let mut tokens = 0;
    let address = serve(move |(path, token, message)| {
        if path == "/etcdserverpb.Auth/Authenticate" {
            let request = pb::AuthenticateRequest::decode(&message[..]).unwrap();
            assert_eq!((request.name.as_str(), request.password.as_str()), ("me", "pw"));
            tokens += 1;
            let token = format!("token-{tokens}");
            let response =
                pb::AuthenticateResponse { token, ..pb::AuthenticateResponse::default() };
            return (vec![response.encode_to_vec()], Some((0, "")));
        }
        if token == "token-1" {
            return (Vec::new(), Some((16, "etcdserver: invalid auth token")));
        }
        assert_eq!(token, "token-2");
        range(vec![kv("k", "v", 1)], 1)
    });
    let mut client = client(&[address]);
    client.config.user = Some(("me".to_owned(), "pw".to_owned()));
    assert_eq!(client.get("k"), Err("etcdserver: invalid auth token".to_owned()));
    assert_eq!(client.get("k"), Ok(Some("v".to_owned())));
}

#[test]
fn endpoints_are_checked_before_they_are_asked() {
    let new = |endpoints: &[&str]| {
        let endpoints = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        let timeout = Duration::from_secs(1);
        KvClient::new(KvClientConfig {
            endpoints,
            dial_timeout: timeout,
            request_timeout: timeout,
            user: None,
        })
        .map(drop)
    };
    assert_eq!(new(&["127.0.0.1:2379", "http://a:1", "unix:///x"]), Ok(()));
    assert!(new(&["https://a:1"]).unwrap_err().contains("TLS"));
    assert!(new(&["a"]).is_err());
    assert!(new(&[]).is_err());
}

#[test]
fn a_prefix_ends_before_what_does_not_begin_so() {
    assert_eq!(prefix_end("ab"), b"ac");
    assert_eq!(prefix_end("a/"), b"a0");
    assert_eq!(prefix_end(""), b"\0");
}
