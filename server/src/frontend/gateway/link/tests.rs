//! The link against the very type that it talks to.

use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::frontend::grpc::{
    self, Code, Event, Input, Method, MethodId, MethodKind, MethodTable, Status,
};
use crate::frontend::http2::StreamKey;
use crate::frontend::http2::keepalive::{KeepaliveConfig, PingPolicy};

const NOW: Duration = Duration::ZERO;

pub(in crate::frontend::gateway) fn config() -> grpc::Config {
    grpc::Config {
        message_bytes_max: 4 << 20,
        max_concurrent_streams: 1,
        ping_policy: PingPolicy {
            interval_min: Duration::from_secs(5),
            permit_without_stream: false,
        },
        keepalive: KeepaliveConfig::default(),
    }
}

fn server() -> grpc::Connection {
    let method = |path, number, kind| Method { path, id: MethodId(number), kind };
    let methods = MethodTable::new(&[
        method("/s/Unary", 0, MethodKind::Unary),
        method("/s/Both", 1, MethodKind::ClientStreaming),
    ]);
    grpc::Connection::new(&config(), Rc::new(methods), NOW)
}

/// What the server was told: where, and the messages.
#[derive(Default)]
struct Heard {
    streams: Vec<StreamKey>,
    messages: Vec<Vec<u8>>,
    token: Option<Vec<u8>>,
    half_closed: bool,
    cancelled: bool,
}

/// Carries bytes both ways until none are left.
fn carry(link: &mut Link, server: &mut grpc::Connection, heard: &mut Heard) {
    loop {
        let bytes = std::mem::take(link.output());
        let mut input = Input::new(&bytes);
        while let Some(event) = server.poll_event(&mut input, NOW) {
            match event {
                Event::Request { stream, metadata, message, .. } => {
                    heard.streams.push(stream);
                    heard.token = metadata.token.as_deref().map(<[u8]>::to_vec);
                    heard.messages.push(message.into_owned());
                }
                Event::Call { stream, .. } => heard.streams.push(stream),
                Event::Message { message, .. } => heard.messages.push(message.into_owned()),
                Event::HalfClose { .. } => heard.half_closed = true,
                Event::Cancelled { .. } => heard.cancelled = true,
                Event::Closed(reason) => panic!("the link broke a rule: {reason:?}"),
            }
        }
        if !server.http2().has_output() {
            if bytes.is_empty() {
                return;
            }
            continue;
        }
        let mut answers = Vec::new();
        server.http2().swap_output(&mut answers);
        link.handle_bytes(&answers);
    }
}

fn ended(code: u8, message: &str) -> LinkEvent {
    LinkEvent::Ended(Ended { code, message: message.into() })
}

#[test]
fn calls_of_any_size_go_both_ways_one_after_the_other() {
    let (mut link, mut server) = (Link::default(), server());
    for size in [0, 1, 16_380, 65_535, 70_000, 3 << 20] {
        let (message, mut heard) = (vec![b'm'; size], Heard::default());
        link.begin("/s/Unary", &[("token", b"secret")]);
        link.send(&message);
        link.close_send();
        carry(&mut link, &mut server, &mut heard);
        assert!(heard.messages == [message.clone()], "{size}");
        assert_eq!(heard.token.as_deref(), Some(&b"secret"[..]));
        server.answer(heard.streams[0], &message);
        let mut events = Vec::new();
        for _ in 0..20 {
            carry(&mut link, &mut server, &mut heard);
            events.extend(std::iter::from_fn(|| link.poll_event()));
            link.release();
        }
        let expected = [LinkEvent::Headers, LinkEvent::Message(message), ended(0, "")];
        assert!(events == expected, "{size}");
    }
}

#[test]
fn errors_have_their_text_whatever_stands_in_it() {
    let (mut link, mut server, mut heard) = (Link::default(), server(), Heard::default());
    link.begin("/s/Unary", &[]);
    link.send(b"x");
    link.close_send();
    carry(&mut link, &mut server, &mut heard);
    let text = "50% of é\n";
    server.finish(heard.streams[0], &Status::new(Code::NotFound, text));
    carry(&mut link, &mut server, &mut heard);
    let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).collect();
    assert_eq!(events, [ended(5, text)]);

    link.begin("/s/Missing", &[]);
    carry(&mut link, &mut server, &mut heard);
    let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).collect();
    assert_eq!(events, [ended(12, "unknown method Missing for service s")]);
}

#[test]
fn a_call_that_is_cut_off_for_its_deadline_was_late() {
    let (mut link, mut server, mut heard) = (Link::default(), server(), Heard::default());
    link.begin("/s/Both", &[]);
    carry(&mut link, &mut server, &mut heard);
    server.reset(heard.streams[0], ErrorCode::Cancel);
    carry(&mut link, &mut server, &mut heard);
    let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).collect();
    assert_eq!(events, [ended(4, "context deadline exceeded")]);
}

#[test]
fn a_stream_runs_until_either_side_has_enough() {
    let (mut link, mut server, mut heard) = (Link::default(), server(), Heard::default());
    link.begin("/s/Both", &[]);
    link.send(b"one");
    carry(&mut link, &mut server, &mut heard);
    let stream = heard.streams[0];
    server.send(stream, b"a");
    server.send(stream, b"b");
    carry(&mut link, &mut server, &mut heard);
    link.send(b"two");
    link.close_send();
    carry(&mut link, &mut server, &mut heard);
    assert_eq!(heard.messages, [b"one".to_vec(), b"two".to_vec()]);
    assert!(heard.half_closed && !heard.cancelled);
    let events: Vec<_> = std::iter::from_fn(|| link.poll_event()).collect();
    let message = |text: &[u8]| LinkEvent::Message(text.to_vec());
    assert_eq!(events, [LinkEvent::Headers, message(b"a"), message(b"b")]);
    link.cancel();
    carry(&mut link, &mut server, &mut heard);
    assert!(heard.cancelled && !server.is_open(stream));
    assert!(link.poll_event().is_none());
}

#[test]
fn what_is_not_taken_in_holds_the_services_up() {
    let (mut link, mut server, mut heard) = (Link::default(), server(), Heard::default());
    link.begin("/s/Both", &[]);
    carry(&mut link, &mut server, &mut heard);
    let stream = heard.streams[0];
    let message = vec![b'x'; 100_000];
    for _ in 0..100 {
        server.send(stream, &message);
        carry(&mut link, &mut server, &mut heard);
    }
    let pending = server.http2().stream_pending_bytes(stream);
    assert!(link.held_bytes() <= WINDOW_BYTES as usize, "{}", link.held_bytes());
    assert!(pending > 8 << 20, "{pending}");
    let mut count = 0;
    for _ in 0..1000 {
        count += std::iter::from_fn(|| link.poll_event()).count();
        link.release();
        carry(&mut link, &mut server, &mut heard);
    }
    assert_eq!(count, 101, "the headers and every message");
}
