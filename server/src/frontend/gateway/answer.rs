//! Answers whose body is there when they begin.

use super::super::http1::{Connection, Length};
use super::json::{Escape, put_string};

/// What browsers are told that they may send.
pub const CORS_FIELDS: &str = "accept, content-type, authorization";
/// And how they may ask.
pub const CORS_METHODS: &str = "POST, GET, OPTIONS, PUT, DELETE";

/// The fields of an error that is a text.
pub const ERROR_FIELDS: &[(&str, &str)] =
    &[("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")];
/// The same of a page that can only be read.
pub const NOT_ALLOWED_FIELDS: &[(&str, &str)] = &[
    ("Allow", "GET"),
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
];

/// Bodies up to this size have a length; Go's server does not know that of larger ones.
pub const WHOLE_BYTES_MAX: usize = 2048;

/// An answer.
#[derive(Debug)]
pub struct Plain<'a> {
    /// The status.
    pub status: u16,
    /// The fields, by name in ascending order.
    pub fields: &'a [(&'a str, &'a str)],
    /// Fields that Go's server adds behind the date.
    pub late: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// The fields of an answer joined with those for browsers, in ascending order.
pub fn join<'f>(
    cors: &'f [(&'static str, String)],
    fields: &[(&'f str, &'f str)],
) -> Vec<(&'f str, &'f str)> {
    let cors = cors.iter().map(|(name, value)| (*name, value.as_str()));
    let mut all: Vec<_> = cors.chain(fields.iter().copied()).collect();
    all.sort_by_key(|(name, _)| *name);
    all
}

/// Writes an answer. `in_chunks`: whatever its size, because the client asked for trailers.
pub fn write(
    http: &mut Connection,
    cors: &[(&'static str, String)],
    plain: &Plain<'_>,
    in_chunks: bool,
) {
    let fields = join(cors, plain.fields);
    let size = plain.body.len();
    let is_whole = size <= WHOLE_BYTES_MAX && !in_chunks;
    let length = if is_whole { Length::Known(size) } else { Length::Unknown };
    http.begin(plain.status, &fields, plain.late, length);
    http.put(plain.body);
    http.end();
}

/// A status as JSON: what is the default is not there.
pub fn json_error(code: u8, message: &str, escape: Escape) -> Vec<u8> {
    let mut out = format!("{{\"code\":{code}").into_bytes();
    if !message.is_empty() {
        out.extend_from_slice(b",\"message\":");
        put_string(&mut out, message, escape);
    }
    out.push(b'}');
    out
}

/// The HTTP status of a gRPC code.
pub const fn http_status(code: u8) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// A path as it stands in a URL.
pub fn escaped_path(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(byte);
        if is_plain {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A text as it stands in HTML.
pub fn html_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
