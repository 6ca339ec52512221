//! A request's head: what is asked for, and how its body is delimited.
//!
//! Invariants:
//! - Of two ways to delimit a body the chunked one counts, and the connection ends with the answer:
//!   whoever sent both may have meant to smuggle a request past somebody (RFC 9112, 6.1).

use super::body::Body;

/// Header fields beyond which a head is too large.
const FIELDS_MAX: usize = 4096;
/// Fields that most requests stay below.
const FIELDS_USUAL: usize = 64;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// As it came: methods are told apart by case.
    pub method: String,
    /// The path, unescaped.
    pub path: Vec<u8>,
    /// The path as it came.
    pub raw_path: String,
    /// What stands behind the question mark, as it came.
    pub query: String,
    /// Whose request it is: of the target if it names a host, of the field otherwise.
    pub host: String,
    /// Names in lower case, and values.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// The first value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// Whether a field lists a token; both in any case.
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.fields.iter().filter(|(other, _)| other == name).any(|(_, value)| {
            value
                .split(|byte| *byte == b',')
                .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    }
}

/// What a head says about the connection.
#[derive(Debug)]
pub struct Head {
    /// The request.
    pub request: Request,
    /// Whether the client speaks 1.1, and so understands chunks.
    pub is_modern: bool,
    /// Whether the client wants the connection to end with the answer.
    pub wants_close: bool,
    /// An old client asked to keep the connection.
    pub wants_keep: bool,
    /// The client waits for a word before it sends the body.
    pub expects_continue: bool,
    /// How the body is delimited.
    pub body: Body,
}

/// Why a head is refused. The connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The head is none; the text says more if there is any.
    BadRequest(&'static str),
    /// The head is too large.
    TooLarge,
    /// The body is encoded in a way that nobody knows.
    UnknownEncoding,
    /// The client expects something unknown.
    ExpectationFailed,
    /// Another version of HTTP.
    UnknownVersion,
}

/// Parses a head, its empty line included.
pub fn parse(bytes: &[u8]) -> Result<Head, Refused> {
    for count in [FIELDS_USUAL, FIELDS_MAX] {
        let mut fields = vec![httparse::EMPTY_HEADER; count];
        let mut parsed = httparse::Request::new(&mut fields);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => return read(&parsed),
            Err(httparse::Error::TooManyHeaders) => {}
            Err(httparse::Error::Version) => return Err(Refused::UnknownVersion),
            Ok(httparse::Status::Partial) | Err(_) => return Err(Refused::BadRequest("")),
        }
    }
    Err(Refused::TooLarge)
}

fn read(parsed: &httparse::Request<'_, '_>) -> Result<Head, Refused> {
    let bad = Refused::BadRequest("");
    let method = parsed.method.ok_or(bad)?.to_owned();
    let target = parsed.path.ok_or(bad)?;
    let is_modern = parsed.version == Some(1);
    let mut fields = Vec::with_capacity(parsed.headers.len());
    for field in &*parsed.headers {
        fields.push((field.name.to_ascii_lowercase(), field.value.trim_ascii().to_vec()));
    }
    let Target { host, raw_path, query } = split_target(target, &method).ok_or(bad)?;
    let path = unescape(&raw_path).ok_or(bad)?;
    let mut request = Request { method, path, raw_path, query, host, fields };
    let hosts: Vec<_> = request.fields.iter().filter(|(name, _)| name == "host").collect();
    match hosts[..] {
        [] if is_modern && request.method != "CONNECT" => {
            return Err(Refused::BadRequest("missing required Host header"));
        }
        [] => {}
        [(_, value)] => {
            if !value.iter().all(|byte| is_host_byte(*byte)) {
                return Err(Refused::BadRequest("malformed Host header"));
            }
            if request.host.is_empty() {
                request.host = String::from_utf8_lossy(value).into_owned();
            }
        }
        _ => return Err(bad),
    }
    let (body, is_ambiguous) = body_of(&request, is_modern)?;
    let wants_keep = !is_modern && request.lists("connection", "keep-alive");
    let wants_close =
        is_ambiguous || request.lists("connection", "close") || !(is_modern || wants_keep);
    let expectation = request.field("expect").filter(|text| !text.is_empty());
    let is_known = expectation.is_none_or(|text| {
        let first = text.split(|byte| *byte == b',').next().unwrap_or_default();
        first.trim_ascii().eq_ignore_ascii_case(b"100-continue")
    });
    if !is_known {
        return Err(Refused::ExpectationFailed);
    }
    let expects_continue = expectation.is_some() && is_modern && !body.is_ended();
    Ok(Head { request, is_modern, wants_close, wants_keep, expects_continue, body })
}

struct Target {
    host: String,
    raw_path: String,
    query: String,
}

fn split_target(target: &str, method: &str) -> Option<Target> {
    let (host, rest) = if target.starts_with('/') || target == "*" {
        ("", target)
    } else if method == "CONNECT" {
        (target, "")
    } else {
        let (scheme, rest) = target.split_once("://")?;
        let is_scheme = scheme.starts_with(|letter: char| letter.is_ascii_alphabetic());
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        is_scheme.then(|| rest.split_at(end))?
    };
    let (raw_path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Some(Target { host: host.into(), raw_path: raw_path.into(), query: query.into() })
}

/// The body's delimiter, and whether there was another one.
fn body_of(request: &Request, is_modern: bool) -> Result<(Body, bool), Refused> {
    let of = |name| request.fields.iter().filter(move |(other, _)| other == name);
    let mut length = None;
    for (_, value) in of("content-length") {
        let digits = str::from_utf8(value)
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        let parsed = digits.and_then(|text| text.parse::<u64>().ok());
        let parsed = parsed.filter(|length| i64::try_from(*length).is_ok());
        let parsed = parsed.ok_or(Refused::BadRequest(""))?;
        if length.is_some_and(|other| other != parsed) {
            return Err(Refused::BadRequest(""));
        }
        length = Some(parsed);
    }
    let mut encodings = of("transfer-encoding");
    match (encodings.next(), encodings.next()) {
        // An old client cannot mean chunks; what it means nobody knows.
        (Some(_), _) if !is_modern => Ok((Body::sized(length.unwrap_or(0)), true)),
        (Some((_, value)), None) if value.eq_ignore_ascii_case(b"chunked") => {
            Ok((Body::chunked(), length.is_some()))
        }
        (Some(_), _) => Err(Refused::UnknownEncoding),
        (None, _) => Ok((Body::sized(length.unwrap_or(0)), false)),
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&()*+,-.:;=[]_~'\"".contains(&byte)
}

/// Resolves the escapes of a path; `None` if one is broken.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        out.push(u8::try_from(high << 4 | low).expect("two digits are a byte"));
    }
    Some(out)
}

#[cfg(test)]
mod tests;
