//! The reactor on real sockets and files.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::*;
use crate::runtime::sockets::listen;

struct Pair {
    reactor: Reactor,
    client: TcpStream,
    socket: SocketId,
}

/// Waits until `pick` finds what it looks for; a minute without it fails the test.
fn until<T>(reactor: &mut Reactor, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    for _ in 0..600 {
        reactor.wait(Duration::from_millis(100)).unwrap();
        while let Some(event) = reactor.poll_event() {
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }
    panic!("the event did not come");
}

fn pair() -> Pair {
    let mut reactor = Reactor::new().unwrap();
    let listener = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let client = TcpStream::connect(listener.address()).unwrap();
    let number = reactor.listen(listener);
    let descriptor = until(&mut reactor, |event| match event {
        Event::Accepted { listener, descriptor } => {
            assert_eq!(listener, number);
            Some(descriptor)
        }
        _ => None,
    });
    let socket = reactor.adopt(descriptor);
    Pair { reactor, client, socket }
}

fn receive(reactor: &mut Reactor) -> Vec<u8> {
    let received = until(reactor, |event| match event {
        Event::Received { received, .. } => Some(received),
        _ => None,
    });
    let bytes = reactor.received(&received).to_vec();
    reactor.recycle(received);
    bytes
}

#[test]
fn bytes_go_both_ways_and_the_buffer_returns() {
    let Pair { mut reactor, mut client, socket } = pair();
    client.write_all(b"ask").unwrap();
    assert_eq!(receive(&mut reactor), b"ask");
    reactor.send(socket, b"answer".to_vec());
    let buffer = until(&mut reactor, |event| match event {
        Event::Sent { socket: sent, buffer } => {
            assert_eq!(sent, socket);
            Some(buffer)
        }
        _ => None,
    });
    assert!(buffer.is_empty() && buffer.capacity() >= 6);
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn a_client_that_leaves_is_closed_once() {
    let Pair { mut reactor, client, socket } = pair();
    client.shutdown(Shutdown::Both).unwrap();
    let half_closed = until(&mut reactor, |event| match event {
        Event::HalfClosed { socket } => Some(socket),
        _ => None,
    });
    assert_eq!(half_closed, socket);
    reactor.close(socket);
    let closed = until(&mut reactor, |event| match event {
        Event::Closed { socket } => Some(socket),
        _ => None,
    });
    assert_eq!(closed, socket);
    assert_eq!(reactor.socket_count(), 0);
    // What comes late for a socket that is gone is not an error.
    reactor.close(socket);
    reactor.send(socket, b"late".to_vec());
    reactor.wait(Duration::ZERO).unwrap();
    assert!(reactor.poll_event().is_none());
}

#[test]
fn a_client_that_has_said_all_can_still_be_answered() {
    let Pair { mut reactor, mut client, socket } = pair();
    client.write_all(b"ask").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(receive(&mut reactor), b"ask");
    until(&mut reactor, |event| matches!(event, Event::HalfClosed { .. }).then_some(()));
    reactor.send(socket, b"answer".to_vec());
    until(&mut reactor, |event| matches!(event, Event::Sent { .. }).then_some(()));
    reactor.close(socket);
    until(&mut reactor, |event| matches!(event, Event::Closed { .. }).then_some(()));
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
}

#[test]
fn a_client_that_does_not_read_neither_loses_nor_mixes_bytes() {
    let Pair { mut reactor, mut client, socket } = pair();
    let size = 32 << 20;
    let bytes: Vec<u8> = (0..size).map(|place: u32| (place / 251).to_le_bytes()[0]).collect();
    reactor.send(socket, bytes.clone());
    reactor.wait(Duration::ZERO).unwrap();
    let reader = std::thread::spawn(move || {
        let mut read = vec![0; size as usize];
        client.read_exact(&mut read).unwrap();
        (client, read)
    });
    until(&mut reactor, |event| matches!(event, Event::Sent { .. }).then_some(()));
    assert!(reader.join().unwrap().1 == bytes);
}

/// A reader that begins late makes the kernel take only a part of what is sent.
#[test]
fn pieces_leave_in_order_and_what_has_left_is_told() {
    let Pair { mut reactor, mut client, socket } = pair();
    let piece = |place: usize| Bytes::from(vec![place.to_le_bytes()[0]; 1 + 40_000 * (place % 3)]);
    let mut pieces: VecDeque<Bytes> = (0..900).map(piece).collect();
    let expected = Vec::from(pieces.clone()).concat();
    let size = expected.len();
    reactor.send_vectored(socket, pieces.iter().cloned().collect());
    reactor.wait(Duration::ZERO).unwrap();
    let reader = std::thread::spawn(move || {
        let mut read = vec![0; size];
        client.read_exact(&mut read).unwrap();
        (client, read)
    });
    let (mut sends, mut left) = (0, size);
    while left > 0 {
        let mut count = until(&mut reactor, |event| match event {
            Event::SentVectored { socket: sent, count } => {
                assert_eq!(sent, socket);
                Some(count)
            }
            _ => None,
        });
        (sends, left) = (sends + 1, left - count);
        while let Some(first) = pieces.front_mut().filter(|first| first.len() <= count) {
            count -= first.len();
            pieces.pop_front();
        }
        if let Some(first) = pieces.front_mut() {
            *first = first.slice(count..);
            reactor.send_vectored(socket, pieces.iter().cloned().collect());
        }
    }
    assert!(sends > 1, "all of it fitted the socket's buffer");
    assert!(reader.join().unwrap().1 == expected);
    reactor.close(socket);
    until(&mut reactor, |event| matches!(event, Event::Closed { .. }).then_some(()));
    // What comes late for a socket that is gone is not an error.
    reactor.send_vectored(socket, vec![Bytes::from_static(b"late")]);
    reactor.wait(Duration::ZERO).unwrap();
    assert!(reactor.poll_event().is_none());
}

#[test]
fn pieces_for_one_who_has_gone_end_the_connection() {
    let Pair { mut reactor, client, socket } = pair();
    drop(client);
    let pieces = || vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
    reactor.send_vectored(socket, pieces());
    let closed = until(&mut reactor, |event| match event {
        // The first send may come before the other side's refusal; a later one does not.
        Event::SentVectored { .. } => {
            std::thread::yield_now();
            Some(false)
        }
        Event::Closed { socket: closed } => Some(closed == socket),
        _ => None,
    });
    if !closed {
        for _ in 0..10_000 {
            reactor.send_vectored(socket, pieces());
            let ended = until(&mut reactor, |event| match event {
                Event::SentVectored { .. } => Some(false),
                Event::Closed { .. } => Some(true),
                _ => None,
            });
            if ended {
                return;
            }
        }
        panic!("a connection that is gone took ten thousand sends");
    }
}

#[test]
fn a_paused_socket_is_not_read_and_goes_on_where_it_was() {
    let Pair { mut reactor, mut client, socket } = pair();
    reactor.pause(socket);
    reactor.wait(Duration::ZERO).unwrap();
    client.write_all(b"later").unwrap();
    // Bytes that arrived before the pause took hold are still delivered; none are lost.
    reactor.resume(socket);
    assert_eq!(receive(&mut reactor), b"later");
}

#[test]
fn more_bytes_than_buffers_arrive_in_order() {
    let Pair { mut reactor, mut client, .. } = pair();
    let size = 3 * usize::from(super::super::buffers::BUFFER_COUNT) * 32 * 1024;
    let bytes: Vec<u8> = (0..size).map(|place| (place / 253).to_le_bytes()[0]).collect();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client
    });
    let mut got = Vec::new();
    while got.len() < size {
        // Every buffer of a turn is held until the turn's end: the ring runs dry.
        reactor.wait(Duration::from_millis(100)).unwrap();
        let mut held = Vec::new();
        while let Some(event) = reactor.poll_event() {
            if let Event::Received { received, .. } = event {
                got.extend_from_slice(reactor.received(&received));
                held.push(received);
            }
        }
        held.into_iter().for_each(|received| reactor.recycle(received));
    }
    assert!(got == bytes);
    drop(writer.join().unwrap());
}

#[test]
fn a_wake_from_another_core_or_thread_ends_the_wait() {
    let mut sleeper = Reactor::new().unwrap();
    let mut other = Reactor::new().unwrap();
    other.wake(sleeper.descriptor());
    other.wait(Duration::ZERO).unwrap();
    until(&mut sleeper, |event| matches!(event, Event::Woken).then_some(()));
    let waker = super::super::wake::Waker::new(sleeper.eventfd()).unwrap();
    std::thread::spawn(move || waker.wake()).join().unwrap();
    until(&mut sleeper, |event| matches!(event, Event::Woken).then_some(()));
}

#[test]
fn a_durable_write_reports_what_the_kernel_said() {
    for durability in [Durability::None, Durability::WriteThrough, Durability::WriteThenSync] {
        a_write_is_refused(durability);
    }
}

#[test]
fn a_write_then_sync_ends_once_and_whole() {
    let mut reactor = Reactor::new().unwrap();
    let path = std::env::temp_dir().join(format!("ringd-reactor-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    for (token, durability) in
        [(1, Durability::WriteThenSync), (2, Durability::WriteThrough), (3, Durability::None)]
    {
        let buffer = AlignedBuffer::new(8192);
        reactor.write(file.as_raw_fd(), (token - 1) * 8192, buffer, durability, token);
        let ended = until(&mut reactor, |event| match event {
            Event::Written { token, result, .. } => Some((token, result.unwrap())),
            _ => None,
        });
        assert_eq!(ended, (token, 8192));
    }
    assert_eq!(reactor.writes_in_flight(), 0);
    assert_eq!(file.metadata().unwrap().len(), 3 * 8192);
    std::fs::remove_file(path).unwrap();
}

fn a_write_is_refused(durability: Durability) {
    let mut reactor = Reactor::new().unwrap();
    let file = std::fs::File::open("/dev/full").unwrap();
    let buffer = AlignedBuffer::new(4096);
    reactor.write(file.as_raw_fd(), 0, buffer, durability, 7);
    let (token, result, buffer) = until(&mut reactor, |event| match event {
        Event::Written { token, result, buffer } => Some((token, result, buffer)),
        _ => None,
    });
    assert_eq!((token, buffer.as_slice().len()), (7, 4096));
    // Opened for reading only.
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EBADF));
}
