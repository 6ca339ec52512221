//! Requests of browsers that want to speak WebSocket, which have no streams of their own otherwise.

use sha1::{Digest, Sha1};

use super::super::http1::Request;
use super::json::base64;

/// What RFC 6455 has every server add to a client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;
const KEY_TEXT_BYTES: usize = 24;
const PROTOCOL: &str = "Bearer";
/// The fields of a refusal.
pub const ERROR_FIELDS: &[(&str, &str)] = &[
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Sec-Websocket-Version", "13"),
    ("X-Content-Type-Options", "nosniff"),
];

/// What a request that is granted is told, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The answer to its key.
    pub key: String,
    /// The protocol that it asked for and gets.
    pub protocol: Option<&'static str>,
    /// Its token.
    pub authorization: Option<Vec<u8>>,
}

/// Whether the request is one.
#[must_use]
pub fn is_wanted(request: &Request) -> bool {
    request.lists("connection", "upgrade") && request.lists("upgrade", "websocket")
}

/// What becomes of it.
///
/// # Errors
/// The status and the body of a refusal.
pub fn accepted(request: &Request) -> Result<Accepted, (u16, &'static str)> {
    if request.method != "GET" {
        return Err((405, "Method Not Allowed\n"));
    }
    let key = request.field("sec-websocket-key").unwrap_or_default();
    // Unlike values in JSON, keys have one alphabet and all of their padding.
    let is_strict = key.len() == KEY_TEXT_BYTES && !key.iter().any(|byte| b"-_".contains(byte));
    let decoded = str::from_utf8(key).ok().filter(|_| is_strict).and_then(base64::read);
    let is_key = decoded.is_some_and(|bytes| bytes.len() == KEY_BYTES);
    if !request.lists("sec-websocket-version", "13") || !is_key {
        return Err((400, "Bad Request\n"));
    }
    let mut answer = Vec::new();
    base64::put(&mut answer, &Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize());
    let key = String::from_utf8(answer).expect("base64 is text");
    let asked = request.field("sec-websocket-protocol").unwrap_or_default();
    let protocol = asked.starts_with(PROTOCOL.as_bytes()).then_some(PROTOCOL);
    Ok(Accepted { key, protocol, authorization: authorization(request, asked) })
}

/// Browsers cannot set the field `authorization`: the token comes as a protocol, or as a cookie.
fn authorization(request: &Request, asked: &[u8]) -> Option<Vec<u8>> {
    let cookies = request.field("cookie").unwrap_or_default();
    let cookie = cookies.split(|byte| *byte == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(b"token=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    });
    let marker = b"Bearer,";
    let at = asked.windows(marker.len()).position(|part| part == marker);
    let token = cookie.or_else(|| at.map(|at| asked[at + marker.len()..].trim_ascii()))?;
    Some([b"Bearer ", token].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request {
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let kept = usual.iter().filter(|(name, _)| fields.iter().all(|(other, _)| other != name));
        let fields =
            kept.chain(fields).map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        Request { method: "GET".into(), fields: fields.collect(), ..Request::default() }
    }

    #[test]
    fn a_handshake_is_answered_as_the_rfc_has_it() {
        let granted = |fields: &[(&str, &str)]| {
            let request = request(fields);
            assert!(is_wanted(&request));
            accepted(&request).expect("it is granted")
        };
        // The RFC's own example.
        let key = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        let plain = Accepted { key, protocol: None, authorization: None };
        assert_eq!(granted(&[]), plain);
        assert_eq!(granted(&[("sec-websocket-protocol", "chat")]), plain);
        let bearer = granted(&[("sec-websocket-protocol", "Bearer, token")]);
        assert_eq!(bearer.protocol, Some("Bearer"));
        assert_eq!(bearer.authorization.as_deref(), Some(&b"Bearer token"[..]));
        let cookie = granted(&[("cookie", "a=b; token=\"from a cookie\"")]);
        assert_eq!(cookie.authorization.as_deref(), Some(&b"Bearer from a cookie"[..]));
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        for (field, value) in [
            ("sec-websocket-version", "12"),
            ("sec-websocket-key", ""),
            ("sec-websocket-key", "YWJj"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ"),
        ] {
            assert_eq!(
                accepted(&request(&[(field, value)])),
                Err((400, "Bad Request\n")),
                "{value}"
            );
        }
        let post = Request { method: "POST".into(), ..request(&[]) };
        assert_eq!(accepted(&post), Err((405, "Method Not Allowed\n")));
        assert!(!is_wanted(&request(&[("upgrade", "h2c")])));
        assert!(!is_wanted(&request(&[("connection", "close")])));
    }
}
