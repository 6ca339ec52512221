//! Heads, well-formed and hostile.

use super::*;

fn head(text: &str) -> Result<Head, Refused> {
    parse(text.as_bytes())
}

#[test]
fn a_request_is_told_in_parts() {
    let head =
        head("POST /a%2Fb/c?x=%20&y HTTP/1.1\r\nHost: h:1\r\nX-One: a\r\nx-one:  b \r\n\r\n")
            .expect("a head");
    let request = head.request;
    assert_eq!((request.method.as_str(), &request.path[..]), ("POST", &b"/a/b/c"[..]));
    assert_eq!((request.query.as_str(), request.host.as_str()), ("x=%20&y", "h:1"));
    assert_eq!(request.field("x-one"), Some(&b"a"[..]));
    assert!(request.lists("x-one", "B") && !request.lists("x-one", "c"));
    assert!(head.is_modern && !head.wants_close && !head.expects_continue);
    assert!(head.body.is_ended());
}

#[test]
fn the_target_names_the_host_if_it_can() {
    let host = |target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: field\r\n\r\n");
        head(&text).map(|head| (head.request.host, head.request.path))
    };
    assert_eq!(host("/p"), Ok(("field".into(), b"/p".to_vec())));
    assert_eq!(host("http://other:1/p?q"), Ok(("other:1".into(), b"/p".to_vec())));
    assert_eq!(host("http://other"), Ok(("other".into(), Vec::new())));
    for target in ["p", "//"] {
        assert_eq!(host(target).is_ok(), target == "//", "{target}");
    }
}

#[test]
fn a_body_has_one_end() {
    let of = |fields: &str, version: &str| {
        let text = format!("POST / HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
        head(&text).map(|head| {
            let length = match head.body {
                Body::Sized(length) => Some(length),
                Body::Chunked(_) => None,
            };
            (length, head.wants_close)
        })
    };
    let bad = Err(Refused::BadRequest(""));
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let cases = [
        ("", "1.1", Ok((Some(0), false))),
        ("Content-Length: 3\r\n", "1.1", Ok((Some(3), false))),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", "1.1", Ok((Some(3), false))),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", "1.1", bad),
        ("Content-Length: 3, 3\r\n", "1.1", bad),
        ("Content-Length: +3\r\n", "1.1", bad),
        ("Content-Length:\r\n", "1.1", bad),
        ("Content-Length: 9223372036854775808\r\n", "1.1", bad),
        ("Transfer-Encoding: chunked\r\n", "1.1", Ok((None, false))),
        ("Transfer-Encoding: Chunked\r\n", "1.1", Ok((None, false))),
        (both, "1.1", Ok((None, true))),
        ("Transfer-Encoding: gzip, chunked\r\n", "1.1", Err(Refused::UnknownEncoding)),
        ("Transfer-Encoding: chunked, chunked\r\n", "1.1", Err(Refused::UnknownEncoding)),
        ("Transfer-Encoding: \r\n", "1.1", Err(Refused::UnknownEncoding)),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "1.1",
            Err(Refused::UnknownEncoding),
        ),
        ("Transfer-Encoding: chunked\r\n", "1.0", Ok((Some(0), true))),
    ];
    for (fields, version, expected) in cases {
        assert_eq!(of(fields, version), expected, "{fields}");
    }
}

#[test]
fn what_is_no_head_is_refused() {
    let bad = Refused::BadRequest("");
    let cases = [
        ("GET /\r\n\r\n", bad),
        ("GET / HTTP/2.0\r\n\r\n", Refused::UnknownVersion),
        ("GET / HTTP/1.1\r\n\r\n", Refused::BadRequest("missing required Host header")),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused::BadRequest("malformed Host header")),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", bad),
        ("GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        ("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", Refused::ExpectationFailed),
    ];
    for (text, expected) in cases {
        assert_eq!(head(text).map(|_| ()).unwrap_err(), expected, "{}", text.escape_debug());
    }
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(5000));
    assert_eq!(head(&many).map(|_| ()).unwrap_err(), Refused::TooLarge);
    let some = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(4000));
    assert!(head(&some).is_ok());
}
