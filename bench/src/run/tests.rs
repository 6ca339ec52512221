//! The event loop against a server of a few lines in a thread of the test.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::client::frames::{self, FRAME_HEADER_BYTES, FrameHeader, PREFACE, flag, kind};
use crate::proto::answers;
use crate::workload::{KeepAlive, KeySpace, Leases, Order, Put, Random, Share};

/// What the server does with a put.
#[derive(Clone, Copy)]
enum Manner {
    /// Gives it the next revision.
    Good,
    /// Gives all of them the same revision.
    SameRevision,
    /// Answers with a status alone.
    Refuse,
    /// Succeeds without a message.
    Empty,
    /// Closes the connection when so many have been answered on it.
    CloseAfter(u64),
    /// Keeps leases alive on streams that stay open, and closes the connection when so many
    /// keep-alives have been answered on it.
    KeepAlive(u64),
    /// Says goodbye when so many have been answered, and answers what was sent before.
    GoodbyeAfter(u64),
}

/// Serves connections until their clients close them.
fn serve(manner: Manner, connections: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let revision = Arc::new(AtomicU64::new(1));
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (socket, _) = listener.accept().unwrap();
            let revision = Arc::clone(&revision);
            std::thread::spawn(move || serve_connection(socket, manner, &revision));
        }
    });
    address
}

fn serve_connection(mut socket: TcpStream, manner: Manner, revision: &AtomicU64) {
    let mut received = Vec::new();
    let mut chunk = vec![0; 65_536];
    let mut greeted = false;
    let mut answered_count = 0;
    let mut opened = HashSet::new();
    let mut out = Vec::new();
    frames::write_settings(&mut out, &[]);
    loop {
        if socket.write_all(&out).is_err() {
            return;
        }
        out.clear();
        let limit = match manner {
            Manner::CloseAfter(limit) | Manner::KeepAlive(limit) => limit,
            _ => u64::MAX,
        };
        if answered_count >= limit {
            return;
        }
        match socket.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => received.extend_from_slice(&chunk[..count]),
        }
        if !greeted && received.len() >= PREFACE.len() {
            received.drain(..PREFACE.len());
            greeted = true;
        }
        while let Some(header) = FrameHeader::parse(&received).filter(|_| greeted) {
            let len = FRAME_HEADER_BYTES + usize::try_from(header.len).unwrap();
            if received.len() < len {
                break;
            }
            let frame: Vec<u8> = received.drain(..len).collect();
            if header.kind != kind::DATA {
                continue;
            }
            // The receiver's window is given back at once.
            frames::write_window_update(&mut out, 0, header.len);
            if matches!(manner, Manner::KeepAlive(_)) {
                let message = &frame[FRAME_HEADER_BYTES + 5..];
                keep_alive(&mut out, header.stream_id, opened.insert(header.stream_id), message);
                answered_count += 1;
            } else if header.has(flag::END_STREAM) {
                answer(&mut out, header.stream_id, manner, revision);
                answered_count += 1;
                if matches!(manner, Manner::GoodbyeAfter(limit) if answered_count == limit) {
                    let last = (1u32 << 31) - 1;
                    let payload = [last.to_be_bytes(), [0; 4]].concat();
                    frames::write_frame(&mut out, kind::GOAWAY, 0, 0, &payload);
                }
            }
        }
    }
}

fn answer(out: &mut Vec<u8>, id: u32, manner: Manner, revision: &AtomicU64) {
    let revision = match manner {
        Manner::SameRevision => 7,
        _ => revision.fetch_add(1, Ordering::Relaxed) + 1,
    };
    frames::write_frame(out, kind::HEADERS, flag::END_HEADERS, id, &[0x88]);
    if !matches!(manner, Manner::Refuse | Manner::Empty) {
        let message = answers::header(revision);
        let len = u32::try_from(message.len()).unwrap();
        let message = [&[0], len.to_be_bytes().as_slice(), &message].concat();
        frames::write_frame(out, kind::DATA, 0, id, &message);
    }
    let status = if matches!(manner, Manner::Refuse) { b'8' } else { b'0' };
    let trailers = [&[0, 11], b"grpc-status".as_slice(), &[1, status]].concat();
    let flags = flag::END_HEADERS | flag::END_STREAM;
    frames::write_frame(out, kind::HEADERS, flags, id, &trailers);
}

/// Answers a keep-alive with the id that it holds and a minute to live.
fn keep_alive(out: &mut Vec<u8>, id: u32, first: bool, request: &[u8]) {
    if first {
        frames::write_frame(out, kind::HEADERS, flag::END_HEADERS, id, &[0x88]);
    }
    let (tag, lease) = request.split_first().unwrap();
    assert_eq!(*tag, 0x08, "the id is the only field of a request");
    let message = [answers::header(5).as_slice(), &[0x10], lease, &[0x18, 60]].concat();
    let len = u32::try_from(message.len()).unwrap();
    let message = [&[0], len.to_be_bytes().as_slice(), &message].concat();
    frames::write_frame(out, kind::DATA, 0, id, &message);
}

fn keep_alives(manner: Manner, operations: u64) -> Report {
    let leases = Leases { count: 7, seed: 1, ttl_seconds: 60 };
    let share = Share { slots: 6, thread: 0, threads: 1 };
    let group = Group {
        name: "keep-alive".to_owned(),
        connections: 2,
        streams: 3,
        rate: None,
        workload: Box::new(KeepAlive::new(leases, share, 4, Some(operations))),
    };
    let config = RunConfig {
        addresses: vec![serve(manner, 2)],
        header_style: HeaderStyle::Indexed,
        duration: None,
        keys: 1,
        epoch: Instant::now(),
        progress: None,
    };
    run(&config, vec![vec![group]]).unwrap()
}

fn puts(manner: Manner, operations: u64, rate: Option<f64>) -> Report {
    let address = serve(manner, 2);
    let space = KeySpace { prefix: "k/".to_owned(), count: 50, seed: 1, value_size_bytes: 64 };
    let config = RunConfig {
        addresses: vec![address],
        header_style: HeaderStyle::Indexed,
        duration: None,
        keys: space.count,
        epoch: Instant::now(),
        progress: None,
    };
    let order = Order::Random(Random::new(1));
    let group = Group {
        name: "put".to_owned(),
        connections: 2,
        streams: 5,
        rate,
        workload: Box::new(Put::new(space, order, Some(operations))),
    };
    run(&config, vec![vec![group]]).unwrap()
}

#[test]
fn a_closed_loop_does_all_its_operations() {
    let report = puts(Manner::Good, 5000, None);
    assert!(report.is_clean(), "{:?}", report.complaints);
    assert_eq!(report.operations_count(), 5000);
    assert_eq!(report.tallies[0].histogram.len(), 5000);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let report = puts(Manner::Good, 200, Some(2000.0));
    assert!(report.is_clean(), "{:?}", report.complaints);
    assert_eq!(report.operations_count(), 200);
    // The last is due 199 intervals after the start; it may come later, never earlier.
    assert!(report.elapsed >= Duration::from_micros(199 * 500), "{:?}", report.elapsed);
}

#[test]
fn wrong_answers_are_counted_and_reported() {
    let report = puts(Manner::SameRevision, 100, None);
    assert!(!report.is_clean());
    assert!(report.wrong_count >= 99, "{}", report.wrong_count);
    assert!(report.to_text().contains("WRONG ANSWERS"));
    let report = puts(Manner::Empty, 100, None);
    assert_eq!(report.wrong_count, 100);
}

#[test]
fn refusals_are_errors_and_no_operations() {
    let report = puts(Manner::Refuse, 100, None);
    assert!(!report.is_clean());
    assert_eq!((report.operations_count(), report.tallies[0].errors_count), (0, 100));
    assert!(report.complaints[0].contains("status 8"), "{:?}", report.complaints);
}

#[test]
fn a_closed_connection_ends_its_operations_as_errors() {
    let report = puts(Manner::CloseAfter(20), 1000, None);
    assert!(!report.is_clean());
    assert_eq!(report.wrong_count, 0);
    assert!(report.operations_count() < 1000);
    assert!(report.tallies[0].errors_count > 0);
}

#[test]
fn long_lived_streams_do_all_their_operations() {
    let report = keep_alives(Manner::KeepAlive(u64::MAX), 3000);
    assert!(report.is_clean(), "{:?}", report.complaints);
    assert_eq!(report.operations_count(), 3000);
}

// What was out on the streams of a lost connection is not waited for.
#[test]
fn long_lived_streams_end_with_their_connections() {
    let report = keep_alives(Manner::KeepAlive(50), 3000);
    assert!(!report.is_clean());
    assert!(report.operations_count() < 3000);
    let stalled = report.complaints.iter().any(|text| text.contains("for a minute"));
    assert!(!stalled, "{:?}", report.complaints);
}

#[test]
fn a_goodbye_ends_the_run_without_losing_what_was_sent() {
    let report = puts(Manner::GoodbyeAfter(20), 1000, None);
    assert_eq!(report.wrong_count, 0);
    assert!(report.operations_count() >= 40, "{}", report.operations_count());
    // Each of the ten streams gives up at its next request, and at no other.
    assert_eq!(report.tallies[0].errors_count, 10, "{:?}", report.complaints);
}

#[test]
fn connections_take_the_members_in_turn() {
    let space = KeySpace { prefix: "k/".to_owned(), count: 50, seed: 1, value_size_bytes: 64 };
    let config = RunConfig {
        // Each of them accepts no more than its share.
        addresses: vec![serve(Manner::Good, 2), serve(Manner::Refuse, 1)],
        header_style: HeaderStyle::Indexed,
        duration: None,
        keys: space.count,
        epoch: Instant::now(),
        progress: None,
    };
    let order = Order::Random(Random::new(1));
    let group = Group {
        name: "put".to_owned(),
        connections: 3,
        streams: 1,
        rate: None,
        workload: Box::new(Put::new(space, order, Some(30))),
    };
    let report = run(&config, vec![vec![group]]).unwrap();
    let tally = &report.tallies[0];
    assert_eq!(tally.operations_count + tally.errors_count, 30);
    assert!(tally.operations_count > 0 && tally.errors_count > 0);
}
