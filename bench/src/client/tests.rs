//! The connection against frames written by hand.

use super::*;

const PATH: &str = "/etcdserverpb.KV/Put";

fn connection() -> Connection {
    let mut connection = Connection::new("localhost", HeaderStyle::Literal, 4);
    let sent = connection.output().len();
    connection.handle_sent(sent);
    connection
}

fn receive(connection: &mut Connection, bytes: &[u8]) {
    // One byte at a time: no frame may depend on how the network cut the bytes.
    for &byte in bytes {
        connection.receive_space()[0] = byte;
        connection.handle_received(1);
        if connection.received_end - connection.received_start < FRAME_HEADER_BYTES {
            assert_eq!(connection.poll_event().unwrap(), None);
        }
    }
}

/// All events, as text.
fn events(connection: &mut Connection) -> Vec<String> {
    let mut events = Vec::new();
    while let Some(event) = connection.poll_event().unwrap() {
        events.push(match event {
            Event::Message { slot, payload } => {
                format!("{slot} message {}", String::from_utf8_lossy(payload))
            }
            Event::Ended { slot, code, message } => format!("{slot} ended {code} {message}"),
        });
    }
    events
}

fn message(text: &[u8]) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap();
    [&[0], len.to_be_bytes().as_slice(), text].concat()
}

/// `:status 200` and, for trailers, `grpc-status` as a literal that is not indexed.
fn headers(id: u32, status: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(status) = status else {
        frames::write_frame(&mut bytes, kind::HEADERS, flag::END_HEADERS, id, &[0x88]);
        return bytes;
    };
    let mut block = vec![0, 11];
    block.extend_from_slice(b"grpc-status");
    block.push(1);
    block.extend_from_slice(status.as_bytes());
    let flags = flag::END_HEADERS | flag::END_STREAM;
    frames::write_frame(&mut bytes, kind::HEADERS, flags, id, &block);
    bytes
}

fn data(id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames::write_frame(&mut bytes, kind::DATA, 0, id, payload);
    bytes
}

/// The frames of the output: kind, flags, stream, payload length.
fn sent(connection: &mut Connection) -> Vec<(u8, u8, u32, u32)> {
    let mut frames = Vec::new();
    let mut rest = connection.output().to_vec();
    connection.handle_sent(rest.len());
    while let Some(header) = FrameHeader::parse(&rest) {
        frames.push((header.kind, header.flags, header.stream_id, header.len));
        rest.drain(..FRAME_HEADER_BYTES + usize::try_from(header.len).unwrap());
    }
    assert!(rest.is_empty());
    frames
}

#[test]
fn answers_come_back_with_their_slots_in_any_order() {
    let mut connection = connection();
    assert_eq!(connection.open(70, PATH, b"x", true).unwrap(), 1);
    assert_eq!(connection.open(71, PATH, b"y", true).unwrap(), 3);
    let bytes = [
        headers(3, None),
        data(3, &message(b"second")),
        headers(3, Some("0")),
        headers(1, None),
        data(1, &message(b"first")),
        headers(1, Some("5")),
    ]
    .concat();
    connection.receive_space()[..bytes.len()].copy_from_slice(&bytes);
    connection.handle_received(bytes.len());
    let expected = ["71 message second", "71 ended 0 ", "70 message first", "70 ended 5 "];
    assert_eq!(events(&mut connection), expected);
}

#[test]
fn messages_are_cut_out_of_frames_however_they_lie() {
    let mut connection = connection();
    connection.open(7, PATH, b"", true).unwrap();
    let stream = [message(b"one"), message(b""), message(b"three"), message(b"4")].concat();
    for cut in 0..stream.len() {
        let bytes = [data(1, &stream[..cut]), data(1, &stream[cut..])].concat();
        connection.receive_space()[..bytes.len()].copy_from_slice(&bytes);
        connection.handle_received(bytes.len());
        let expected = ["7 message one", "7 message ", "7 message three", "7 message 4"];
        assert_eq!(events(&mut connection), expected, "cut at {cut}");
    }
}

#[test]
fn bytes_may_trickle() {
    let mut connection = connection();
    connection.open(7, PATH, b"", true).unwrap();
    let bytes = [headers(1, None), data(1, &message(b"slow")), headers(1, Some("0"))].concat();
    receive(&mut connection, &bytes);
    assert_eq!(events(&mut connection), ["7 message slow", "7 ended 0 "]);
}

#[test]
fn continuations_are_joined_and_interruptions_refused() {
    let whole = headers(1, Some("0"));
    let block = &whole[FRAME_HEADER_BYTES..];
    let mut bytes = Vec::new();
    frames::write_frame(&mut bytes, kind::HEADERS, flag::END_STREAM, 1, &block[..4]);
    let begun = bytes.clone();
    frames::write_frame(&mut bytes, kind::CONTINUATION, flag::END_HEADERS, 1, &block[4..]);
    let mut joined = connection();
    joined.open(9, PATH, b"", true).unwrap();
    receive(&mut joined, &bytes);
    assert_eq!(events(&mut joined), ["9 ended 0 "]);

    let mut interrupted = connection();
    let bytes = [begun, data(1, b"")].concat();
    interrupted.receive_space()[..bytes.len()].copy_from_slice(&bytes);
    interrupted.handle_received(bytes.len());
    assert!(interrupted.poll_event().is_err());
}

#[test]
fn data_waits_for_the_peers_windows() {
    let mut connection = connection();
    let mut settings = Vec::new();
    frames::write_settings(&mut settings, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    receive(&mut connection, &settings);
    assert!(events(&mut connection).is_empty());
    assert_eq!(sent(&mut connection), [(kind::SETTINGS, flag::ACK, 0, 0)]);

    connection.open(1, PATH, &[b'x'; 20], true).unwrap();
    let frames = sent(&mut connection);
    assert_eq!(frames[1..], [(kind::DATA, 0, 1, 10)], "only the window is used");
    let mut update = Vec::new();
    frames::write_window_update(&mut update, 1, 100);
    receive(&mut connection, &update);
    assert!(events(&mut connection).is_empty());
    assert_eq!(sent(&mut connection), [(kind::DATA, flag::END_STREAM, 1, 15)]);
}

#[test]
fn pings_are_echoed() {
    let mut connection = connection();
    let mut ping = Vec::new();
    frames::write_frame(&mut ping, kind::PING, 0, 0, b"12345678");
    receive(&mut connection, &ping);
    assert!(events(&mut connection).is_empty());
    assert!(connection.output().ends_with(b"12345678"));
    assert_eq!(sent(&mut connection), [(kind::PING, flag::ACK, 0, 8)]);
}

#[test]
fn resets_and_goodbyes_end_what_they_touch() {
    let mut connection = connection();
    for slot in 0..3 {
        connection.open(slot, PATH, b"", true).unwrap();
    }
    let mut bytes = Vec::new();
    frames::write_frame(&mut bytes, kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    frames::write_frame(&mut bytes, kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    receive(&mut connection, &bytes);
    let expected = ["0 ended 14 RST_STREAM with error 8", "2 ended 14 GOAWAY with error 0"];
    assert_eq!(events(&mut connection), expected);
    assert!(connection.open(4, PATH, b"", true).is_err(), "no new streams after GOAWAY");
    connection.handle_closed("end of file");
    assert_eq!(events(&mut connection), ["1 ended 14 end of file"]);
}

#[test]
fn a_long_lived_stream_does_not_stop_the_others() {
    let mut connection = connection();
    connection.open(99, PATH, b"", false).unwrap();
    for round in 0..100 {
        let id = connection.open(round, PATH, b"", true).unwrap();
        let bytes = headers(id, Some("0"));
        connection.receive_space()[..bytes.len()].copy_from_slice(&bytes);
        connection.handle_received(bytes.len());
        assert_eq!(events(&mut connection), [format!("{round} ended 0 ")]);
    }
    connection.send_message(1, b"more", false);
    assert_eq!(sent(&mut connection).last(), Some(&(kind::DATA, 0, 1, 9)));
}

#[test]
fn more_streams_than_the_server_allows_are_refused() {
    let mut connection = connection();
    let mut settings = Vec::new();
    frames::write_settings(&mut settings, &[(setting::MAX_CONCURRENT_STREAMS, 1)]);
    receive(&mut connection, &settings);
    assert!(events(&mut connection).is_empty());
    connection.open(0, PATH, b"", true).unwrap();
    assert!(connection.open(1, PATH, b"", true).is_err());
}
