//! Whole conversations, byte for byte.

use super::*;

const NOW: Duration = Duration::ZERO;
const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

fn connection() -> Connection {
    let mut connection = Connection::default();
    connection.handle_wall_clock(Duration::from_secs(784_111_777));
    connection
}

/// All events, names only, and the bodies' bytes.
fn events(connection: &mut Connection) -> (Vec<String>, Vec<u8>) {
    let (mut names, mut body) = (Vec::new(), Vec::new());
    while let Some(event) = connection.poll_event(NOW) {
        match event {
            Event::Request(request) => {
                names.push(format!("{} {}", request.method, request.raw_path))
            }
            Event::Body(bytes) => body.extend_from_slice(&bytes),
            Event::BodyEnd => names.push("end".into()),
            Event::BodyBroken(what) => names.push(format!("broken: {what}")),
        }
    }
    (names, body)
}

fn answer(connection: &mut Connection, body: &[u8], length: Length) -> String {
    connection.begin(200, &[("A", "b")], &[("Late", "x")], length);
    connection.put(body);
    connection.end();
    output(connection)
}

fn output(connection: &mut Connection) -> String {
    String::from_utf8(std::mem::take(connection.output())).expect("answers are text")
}

#[test]
fn answers_are_those_of_go_to_the_byte() {
    let mut whole = connection();
    whole.handle_received(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", NOW);
    assert_eq!(events(&mut whole).0, ["GET /", "end"]);
    let text = answer(&mut whole, b"body", Length::Known(4));
    let expected =
        format!("HTTP/1.1 200 OK\r\nA: b\r\n{DATE}Content-Length: 4\r\nLate: x\r\n\r\nbody");
    assert_eq!(text, expected);
    assert_eq!(events(&mut whole).0, Vec::<String>::new());
    assert!(!whole.is_over());

    whole.handle_received(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n", NOW);
    events(&mut whole);
    let text = answer(&mut whole, b"0123456789abcdefgh", Length::Unknown);
    let expected = format!(
        "HTTP/1.1 200 OK\r\nA: b\r\n{DATE}Late: x\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n12\r\n0123456789abcdefgh\r\n0\r\n\r\n"
    );
    assert_eq!(text, expected);
    events(&mut whole);
    assert!(whole.is_over());

    let mut old = connection();
    old.handle_received(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", NOW);
    events(&mut old);
    let text = answer(&mut old, b"", Length::Known(0));
    let expected = format!(
        "HTTP/1.0 200 OK\r\nA: b\r\n{DATE}Content-Length: 0\r\nLate: x\r\n\
         Connection: keep-alive\r\n\r\n"
    );
    assert_eq!(text, expected);
    old.handle_received(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", NOW);
    events(&mut old);
    let text = answer(&mut old, b"x", Length::Unknown);
    assert_eq!(text, format!("HTTP/1.0 200 OK\r\nA: b\r\n{DATE}Late: x\r\n\r\nx"));
    events(&mut old);
    assert!(old.is_over(), "only its end tells an old client where this body ends");

    let mut head = connection();
    head.handle_received(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", NOW);
    events(&mut head);
    let text = answer(&mut head, b"body", Length::Known(4));
    assert!(text.ends_with("Content-Length: 4\r\nLate: x\r\n\r\n"), "{text}");
}

#[test]
fn requests_come_in_turn_however_they_are_cut() {
    let text = b"\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
        POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
        GET /c HTTP/1.1\nHost: h\n\n";
    for step in 1..=text.len() {
        let mut connection = connection();
        let (mut names, mut bodies) = (Vec::new(), Vec::new());
        for piece in text.chunks(step) {
            connection.handle_received(piece, NOW);
            loop {
                let (new, body) = events(&mut connection);
                bodies.extend_from_slice(&body);
                let is_whole = new.last().is_some_and(|name| name == "end");
                names.extend(new);
                if !is_whole {
                    break;
                }
                answer(&mut connection, b"", Length::Known(0));
            }
        }
        assert_eq!(names, ["POST /a", "end", "POST /b", "end", "GET /c", "end"], "step {step}");
        assert_eq!(bodies, b"helloabc", "step {step}");
        assert!(!connection.is_over() && connection.input_bytes() == 0);
    }
}

#[test]
fn no_second_request_is_looked_at_before_the_first_is_answered() {
    let mut connection = connection();
    connection.handle_received(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/9", NOW);
    assert_eq!(events(&mut connection).0, ["GET /a", "end"]);
    assert!(connection.output().is_empty() && !connection.is_over());
    connection.handle_received(b".9\r\n\r\n", NOW);
    assert!(events(&mut connection).0.is_empty());
    answer(&mut connection, b"", Length::Known(0));
    assert!(events(&mut connection).0.is_empty());
    assert!(output(&mut connection).starts_with("HTTP/1.1 505 "));
    assert!(connection.is_over());
}

#[test]
fn a_client_that_waits_for_a_word_gets_it_once() {
    let request =
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut told = connection();
    told.handle_received(request, NOW);
    assert_eq!(events(&mut told).0, ["POST /"]);
    told.want_body();
    told.want_body();
    assert_eq!(output(&mut told), "HTTP/1.1 100 Continue\r\n\r\n");
    told.handle_received(b"ok", NOW);
    assert_eq!(events(&mut told), (vec!["end".into()], b"ok".to_vec()));

    let mut untold = connection();
    untold.handle_received(request, NOW);
    events(&mut untold);
    let text = answer(&mut untold, b"", Length::Known(0));
    assert!(text.contains("\r\nConnection: close\r\n"), "its body may or may not come: {text}");
}

#[test]
fn a_body_that_nobody_wants_is_passed_over_up_to_a_bound() {
    let mut short = connection();
    short.handle_received(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", NOW);
    let Some(Event::Request(_)) = short.poll_event(NOW) else { panic!("a request") };
    answer(&mut short, b"", Length::Known(0));
    short.handle_received(b"defghiGET /n HTTP/1.1\r\nHost: h\r\n\r\n", NOW);
    assert_eq!(events(&mut short), (vec!["GET /n".into(), "end".into()], Vec::new()));

    let mut long = connection();
    long.handle_received(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\n\r\n", NOW);
    events(&mut long);
    answer(&mut long, b"", Length::Known(0));
    for _ in 0..5 {
        long.handle_received(&[b'x'; 64 << 10], NOW);
        events(&mut long);
    }
    assert!(long.is_over());
}

#[test]
fn what_is_no_request_ends_the_connection() {
    for (request, expected) in [
        ("x\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request: missing required Host header\r\n"),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\n\r\n", "HTTP/1.1 501 Not Impl"),
        ("GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n", "HTTP/1.1 417 Expectation Failed\r\n"),
    ] {
        let mut connection = connection();
        connection.handle_received(request.as_bytes(), NOW);
        assert!(events(&mut connection).0.is_empty(), "{request}");
        let text = output(&mut connection);
        assert!(text.starts_with(expected) && text.contains("Connection: close"), "{text}");
        assert!(connection.is_over());
        connection.handle_received(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", NOW);
        assert!(events(&mut connection).0.is_empty());
    }
    let mut broken = connection();
    let chunk = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    broken.handle_received(chunk, NOW);
    assert_eq!(events(&mut broken).0, ["POST /", "broken: invalid byte in chunk length"]);
    assert!(answer(&mut broken, b"", Length::Known(0)).contains("Connection: close"));
    events(&mut broken);
    assert!(broken.is_over());
}

#[test]
fn heads_have_a_size_and_a_time() {
    let mut large = connection();
    large.handle_received(b"GET / HTTP/1.1\r\nX: ", NOW);
    for _ in 0..HEAD_BYTES_MAX / 1024 {
        large.handle_received(&[b'x'; 1024], NOW);
        assert!(large.poll_event(NOW).is_none());
    }
    assert!(large.is_over());
    assert!(output(&mut large).starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));

    let mut slow = connection();
    slow.handle_tick(Duration::from_secs(10_000));
    assert!(!slow.is_over(), "who has sent nothing may stay");
    slow.handle_received(b"GET", NOW);
    slow.handle_tick(HEAD_TIMEOUT - Duration::from_millis(1));
    assert!(!slow.is_over());
    slow.handle_tick(HEAD_TIMEOUT);
    assert!(slow.is_over());
}

#[test]
fn whatever_comes_is_taken() {
    let pieces: [&[u8]; 16] = [
        b"GET / HTTP/1.1\r\n",
        b"POST /v3/kv/put HTTP/1.1\r\n",
        b"Host: h\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b" ",
        b":",
        b"\0\xff",
        b"HTTP/1.0\r\n",
    ];
    for seed in 0..20_000u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut connection = connection();
        for _ in 0..state % 30 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            connection.handle_received(pieces[usize::try_from(state % 16).unwrap()], NOW);
            while let Some(event) = connection.poll_event(NOW) {
                let is_end = matches!(event, Event::BodyEnd | Event::BodyBroken(_));
                if is_end || (matches!(event, Event::Request(_)) && state & 0x100 != 0) {
                    answer(&mut connection, b"x", Length::Known(1));
                }
            }
        }
        connection.output().clear();
    }
}
