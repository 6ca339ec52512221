//! Requests in JSON, against what Go's protojson makes of them.

use prost::Message;

use super::super::schema::messages_of;
use super::*;
use crate::service::proto::etcdserverpb as pb;

fn decoded<M: Message + Default>(path: &str, json: &str) -> Result<M, String> {
    let (request, _) = messages_of(path).expect("it is in our .proto files");
    let bytes = decode(json.as_bytes(), request)?;
    Ok(M::decode(&bytes[..]).expect("what is translated is protobuf"))
}

fn range(json: &str) -> Result<pb::RangeRequest, String> {
    decoded("/etcdserverpb.KV/Range", json)
}

fn txn(json: &str) -> Result<pb::TxnRequest, String> {
    decoded("/etcdserverpb.KV/Txn", json)
}

#[test]
fn names_and_values_may_be_written_in_every_way_that_protobuf_allows() {
    let expected = pb::RangeRequest {
        key: b"foo".as_slice().into(),
        range_end: b"fop".as_slice().into(),
        limit: 100,
        sort_order: 2,
        serializable: true,
        ..pb::RangeRequest::default()
    };
    for json in [
        r#"{"key":"Zm9v","range_end":"Zm9w","limit":"100","sort_order":"DESCEND",
            "serializable":true}"#,
        r#"{"key":"Zm9v","rangeEnd":"Zm9w","limit":100,"sortOrder":2,"serializable":true}"#,
        " {\"serializable\" : true,\n\"limit\":1e2, \"key\":\"Zm9v\",\t\"rangeEnd\":\"Zm9w\",\
         \"sort_order\":2.0} ",
        r#"{"other":{"a":[1,"x",null,{"b":true}]},"key":"Zm\u0039v","range_end":"Zm9w",
            "limit":"10000e-2","sort_order":"DESCEND","serializable":true,"revision":null}"#,
    ] {
        assert_eq!(range(json), Ok(expected.clone()), "{json}");
    }
    assert_eq!(range("{}"), Ok(pb::RangeRequest::default()));
    let negative = range(r#"{"limit":-1,"revision":"-9223372036854775808"}"#)
        .map(|request| (request.limit, request.revision));
    assert_eq!(negative, Ok((-1, i64::MIN)));
}

#[test]
fn a_oneof_is_set_by_its_arm_even_to_the_default() {
    let request = txn(r#"{"compare":[{"target":"MOD","key":"YQ==","mod_revision":"0"}],
        "success":[{"request_put":{"key":"YQ=="}},{}],"failure":[{"requestRange":{}}]}"#)
    .expect("a transaction");
    let union = request.compare[0].target_union.clone();
    assert_eq!(union, Some(pb::compare::TargetUnion::ModRevision(0)));
    let put = pb::PutRequest { key: b"a".as_slice().into(), ..pb::PutRequest::default() };
    assert_eq!(request.success[0].request, Some(pb::request_op::Request::RequestPut(put)));
    assert_eq!(request.success[1].request, None);
    let arm = request.failure[0].request.clone();
    assert_eq!(arm, Some(pb::request_op::Request::RequestRange(pb::RangeRequest::default())));
    let empty = txn(r#"{"compare":[{"key":"YQ==","target":"VALUE","value":""}]}"#);
    let union = empty.map(|request| request.compare[0].target_union.clone());
    assert_eq!(union, Ok(Some(pb::compare::TargetUnion::Value(bytes::Bytes::new()))));
}

#[test]
fn mistakes_are_told_in_the_words_of_protojson() {
    let space = '\u{a0}';
    // Recorded from etcd 3.7.1.
    let cases = [
        ("[]", "syntax error (line 1:1): unexpected token ["),
        ("null", "syntax error (line 1:1): unexpected token null"),
        ("12", "syntax error (line 1:1): unexpected token 12"),
        (r#"{"key":5}"#, "(line 1:8): invalid value for bytes field key: 5"),
        ("{\n  \"key\": 5\n}", "(line 2:10): invalid value for bytes field key: 5"),
        (r#"{"key":{}}"#, "(line 1:8): invalid value for bytes field key: {"),
        (r#"{"key":"Zg=="  ,"key":"Zg=="}"#, "(line 1:17): duplicate field \"key\""),
        (r#"{"limit":1.5}"#, "(line 1:10): invalid value for int64 field limit: 1.5"),
        (r#"{"limit":"x"}"#, "(line 1:10): invalid value for int64 field limit: \"x\""),
        (r#"{"limit":"01"}"#, "(line 1:10): invalid value for int64 field limit: \"01\""),
        (r#"{"sort_order":true}"#, "(line 1:15): invalid value for enum field sortOrder: true"),
        (r#"{"x":"\ud800"}"#, "unexpected EOF"),
        (
            r#"{"x":"\ud800","y":1}"#,
            "syntax error (line 1:6): invalid escape code \"\\\",\\\"y\\\":\" in string",
        ),
    ];
    for (json, expected) in cases {
        assert_eq!(range(json).map(|_| ()), Err(format!("proto:{space}{expected}")), "{json}");
    }
    let both = r#"{"success":[{"request_put":{},"request_range":{}}]}"#;
    let expected = "(line 1:31): error parsing \"request_range\", oneof \
                    etcdserverpb.RequestOp.request is already set";
    assert_eq!(txn(both), Err(format!("proto:{space}{expected}")));
    let list = txn(r#"{"compare":{}}"#);
    assert_eq!(list, Err(format!("proto:{space}syntax error (line 1:12): unexpected token {{")));
}

#[test]
fn numbers_are_whole_and_fit() {
    let integer = |text: &str| integer(text.as_bytes(), Kind::Int64);
    for (text, expected) in [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("12", Some(12)),
        ("1.50e1", Some(15)),
        ("1200e-2", Some(12)),
        ("0.0", Some(0)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("1e20", None),
        ("1e2147483648", None),
        ("1.5", None),
        ("1e-1", None),
        ("", None),
        ("-", None),
        ("1.", None),
        ("01", None),
    ] {
        assert_eq!(integer(text), expected.map(sign_extended), "{text}");
    }
}

/// Requests of so many transactions, each the only operation of the one around it.
fn nested_txns(depth: usize) -> String {
    let (open, close) = ("{\"success\":[{\"requestTxn\":", "}]}");
    format!("{}{{}}{}", open.repeat(depth), close.repeat(depth))
}

/// Found by a reviewer: 50 KB of brackets overflowed the stack of a core, and with it the server.
/// The limit is the grammar's; the stack here is an eighth of a core's.
#[test]
fn nesting_takes_no_stack() {
    let (request, _) = messages_of("/etcdserverpb.KV/Txn").expect("it is in our .proto files");
    let deepest = 3333;
    let nested = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
        let json = nested_txns(deepest);
        let mut scanner = super::super::Scanner::default();
        let end = super::super::Step::End(json.len());
        assert_eq!(scanner.scan(json.as_bytes()), end, "the scanner lets this through");
        scanner.begin();
        let deeper = scanner.scan(nested_txns(deepest + 1).as_bytes());
        let text = "invalid character '[' exceeded max depth".to_owned();
        assert_eq!(deeper, super::super::Step::Failed(text));
        let bytes = decode(json.as_bytes(), request);
        let unknown = format!("{{\"x\":{}{}}}", "[".repeat(9_999), "]".repeat(9_999));
        (bytes, decode(unknown.as_bytes(), request))
    });
    let (bytes, unknown) = nested.unwrap().join().expect("the stack is large enough");
    let mut expected = Vec::new();
    for depth in 0..deepest {
        let mut op = Vec::new();
        if depth == 0 {
            op.extend_from_slice(b"\x22\x00");
        } else {
            put_delimited(&mut op, 4, &expected);
        }
        expected.clear();
        put_delimited(&mut expected, 2, &op);
    }
    assert!(bytes == Ok(expected), "every length is as short as it can be");
    assert_eq!(unknown, Ok(Vec::new()));
}

#[test]
fn lengths_of_every_size_stand_where_they_belong() {
    for size in [1usize, 2, 121, 122, 123, 124, 125, 126, 127, 128, 129, 16_380, 16_384, 40_000] {
        let put = |key: usize| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                key: vec![b'k'; key].into(),
                ..pb::PutRequest::default()
            })),
        };
        let json = |key: usize| {
            let key = "a2tr".repeat(key / 3) + ["", "aw==", "a2s="][key % 3];
            format!("{{\"request_put\":{{\"key\":\"{key}\"}}}}")
        };
        let expected = pb::TxnRequest {
            success: vec![put(1), put(size), put(2)],
            failure: vec![put(size), pb::RequestOp { request: None }],
            ..pb::TxnRequest::default()
        };
        let (one, many, two) = (json(1), json(size), json(2));
        let request = format!("{{\"success\":[{one},{many},{two}],\"failure\":[{many},{{}}]}}");
        let (id, _) = messages_of("/etcdserverpb.KV/Txn").expect("it is in our .proto files");
        assert_eq!(decode(request.as_bytes(), id), Ok(expected.encode_to_vec()), "{size}");
    }
}

#[test]
fn no_text_of_json_letters_breaks_the_decoder() {
    let (request, _) = messages_of("/etcdserverpb.KV/Txn").expect("it is in our .proto files");
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u",
        "d800",
        "1",
        "-",
        ".",
        "e",
        "null",
        "true",
        "\"key\"",
        "\"compare\"",
        "\"success\"",
        "\"request_txn\"",
        "\u{e9}",
        " ",
        "\n",
    ];
    for seed in 0..20_000u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut text = String::new();
        for _ in 0..state % 24 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(pieces[usize::try_from(state % pieces.len() as u64).unwrap()]);
        }
        let mut scanner = super::super::Scanner::default();
        let whole = match scanner.scan(text.as_bytes()) {
            super::super::Step::End(end) => &text.as_bytes()[..end],
            super::super::Step::More if scanner.may_end() => text.as_bytes(),
            _ => continue,
        };
        if let Ok(bytes) = decode(whole, request) {
            assert!(pb::TxnRequest::decode(&bytes[..]).is_ok(), "seed {seed}: {text}");
        }
    }
}
