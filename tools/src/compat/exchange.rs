//! One request below gRPC, with everything in it the case's own choice, and all that came back.
//!
//! A call that is well-formed is asked through [`super::client`]; here are requests that are no
//! calls, or odd ones: another method or content type, compressed messages, none or two of them.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use h2::Reason;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::allowed::{ALLOWED_FIELDS, EMPTY_FIELD, HEAD_FIRST, SPACE_EITHER};
use super::client::{Client, DEADLINE_EXCEEDED, LATE};
use super::conversation::{Conversation, Difference};
use super::wire;

/// A request without an answer by then gets none.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
const MESSAGE_PREFIX_BYTES: usize = 5;
/// What a field of the trailers is shown with.
const TRAILER: &str = "trailer ";
/// No answer to a case unpacks to more.
const UNPACKED_BYTES_MAX: u64 = 1 << 26;

/// A request as it goes out.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:path`.
    pub path: &'a str,
    /// The other fields, in order.
    pub fields: Vec<(&'a str, &'a [u8])>,
    /// What follows them.
    pub body: Bytes,
    /// Whether the request ends with its body, or is left open.
    pub has_end: bool,
}

impl<'a> Exchange<'a> {
    /// What a gRPC client sends, to be changed.
    pub fn grpc(path: &'a str, body: Bytes) -> Self {
        let fields = vec![("content-type", &b"application/grpc"[..]), ("te", b"trailers")];
        Self { method: "POST", path, fields, body, has_end: true }
    }

    /// Sets a field, or takes it away.
    pub fn with(mut self, name: &'a str, value: Option<&'a [u8]>) -> Self {
        self.fields.retain(|(other, _)| *other != name);
        self.fields.extend(value.map(|value| (name, value)));
        self
    }
}

/// All that came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// The HTTP status, the fields and then the trailers, a line each.
    pub lines: Vec<String>,
    /// What lies between them.
    pub body: Vec<u8>,
}

impl Echo {
    /// Go's JSON of messages has a space after some commas or has none, by a hash of the binary, so
    /// that nobody relies on it.
    fn forget_spaces_of_json(&mut self) {
        let is_json = |line: &String| line.eq_ignore_ascii_case("content-type: application/json");
        if !self.lines.iter().any(is_json) {
            return;
        }
        self.lines.retain(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
        let text = String::from_utf8_lossy(&self.body).replace(SPACE_EITHER.0, " ");
        let (mut is_quoted, mut is_escaped) = (false, false);
        let is_kept = |letter: &char| {
            is_quoted ^= *letter == '"' && !is_escaped;
            is_escaped = *letter == '\\' && !is_escaped;
            is_quoted || *letter != ' '
        };
        self.body = text.chars().filter(is_kept).collect::<String>().into_bytes();
    }
}

/// A message with the prefix of gRPC; `flag` says whether it is compressed.
pub fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let size = u32::try_from(message.len()).expect("cases send no gigabytes");
    [&[flag], &size.to_be_bytes()[..], message].concat()
}

/// Sends a request on a connection's next stream and takes in all that comes back.
pub async fn exchange(client: &Client, request: &Exchange<'_>) -> Echo {
    let mut echo = Echo::default();
    match tokio::time::timeout(ANSWER_TIME_MAX, received(client, request, &mut echo)).await {
        Ok(Ok(())) => {}
        // The same race as in `client`: the reset says what the status would.
        Ok(Err(reason)) if reason == LATE => {
            echo.lines =
                ["HTTP status 200", "content-type: application/grpc"].map(str::to_owned).into();
            echo.lines.push(format!("grpc-message: {LATE}"));
            echo.lines.push(format!("grpc-status: {DEADLINE_EXCEEDED}"));
        }
        Ok(Err(reason)) => echo.lines.push(reason),
        Err(_) => echo.lines.push("no answer in time".to_owned()),
    }
    echo
}

async fn received(client: &Client, request: &Exchange<'_>, echo: &mut Echo) -> Result<(), String> {
    let (response, mut body) =
        client.send_head(request.method, request.path, &request.fields).await?;
    if !request.body.is_empty() || request.has_end {
        // A server that refuses by the head alone takes no body.
        let _ = body.send_data(request.body.clone(), request.has_end);
    }
    let (head, mut body) = response.await.map_err(broken)?.into_parts();
    echo.lines.push(format!("HTTP status {}", head.status.as_u16()));
    push_fields(&mut echo.lines, "", &head.headers);
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        // The window was taken by the data whether or not anybody wants it.
        let _ = body.flow_control().release_capacity(data.len());
        echo.body.extend_from_slice(&data);
    }
    if let Some(trailers) = body.trailers().await.map_err(broken)? {
        push_fields(&mut echo.lines, TRAILER, &trailers);
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "an error's end")]
fn broken(error: h2::Error) -> String {
    let reason = error.reason().unwrap_or(Reason::INTERNAL_ERROR);
    if error.is_remote() && !error.is_go_away() && reason == Reason::CANCEL {
        return LATE.to_owned();
    }
    let whole = if error.is_go_away() { "connection" } else { "stream" };
    format!("the {whole} was ended with {reason:?}")
}

/// The fields of a block, sorted: their order means nothing.
fn push_fields(lines: &mut Vec<String>, kind: &str, fields: &HeaderMap) {
    let is_compared =
        |name: &str| !ALLOWED_FIELDS.iter().any(|(allowed, _)| name.eq_ignore_ascii_case(allowed));
    let fields = fields.iter().filter(|(name, _)| is_compared(name.as_str()));
    let mut shown: Vec<String> = fields
        .map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii()))
        .filter(|line| line != EMPTY_FIELD)
        .map(|line| format!("{kind}{line}"))
        .collect();
    shown.sort_unstable();
    lines.extend(shown);
}

/// Sends bytes on a connection of their own and takes in all until the server closes it.
pub async fn exchange_plain(address: SocketAddr, request: &[u8]) -> Echo {
    let talk = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(request).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match tokio::time::timeout(ANSWER_TIME_MAX, talk).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Echo { lines: vec![error.to_string()], body: Vec::new() },
        Err(_) => return Echo { lines: vec!["no end in time".to_owned()], body: Vec::new() },
    };
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(end) = end else { return Echo { lines: Vec::new(), body: answer } };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut fields = head.split("\r\n");
    let status = fields.next().unwrap_or_default().to_owned();
    let is_compared = |field: &&str| {
        let name = field.split(':').next().unwrap_or_default();
        !ALLOWED_FIELDS.iter().any(|(allowed, _)| name.eq_ignore_ascii_case(allowed))
    };
    let mut lines: Vec<String> = fields.filter(is_compared).map(str::to_owned).collect();
    lines.sort_unstable();
    lines.insert(0, status);
    Echo { lines, body: answer[end + 4..].to_vec() }
}

/// The messages of a body as one, unpacked where their flag says so.
fn unpacked(body: &[u8]) -> Result<Bytes, String> {
    let mut merged = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let prefix = rest.get(..MESSAGE_PREFIX_BYTES).ok_or("a body ends within a prefix")?;
        let size = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let end = MESSAGE_PREFIX_BYTES + size as usize;
        let message = rest.get(MESSAGE_PREFIX_BYTES..end).ok_or("a body ends within a message")?;
        match prefix[0] {
            0 => merged.extend_from_slice(message),
            1 => {
                let mut reader = GzDecoder::new(message).take(UNPACKED_BYTES_MAX);
                reader.read_to_end(&mut merged).map_err(|error| error.to_string())?;
            }
            flag => return Err(format!("a message has the flag {flag}")),
        }
        rest = &rest[end..];
    }
    Ok(Bytes::from(merged))
}

impl Conversation<'_> {
    /// Sends both servers the same request over HTTP/2 and compares all that comes back. The one
    /// message of an answer is compared field by field, if the path is an RPC's.
    pub fn exchange(&mut self, request: &Exchange<'_>) {
        let mut echoes = self.pair.exchange(request);
        if HEAD_FIRST.contains(&request.path) {
            let lines = echoes.iter_mut().flat_map(|echo| &mut echo.lines);
            lines.for_each(|line| *line = line.trim_start_matches(TRAILER).to_owned());
        }
        let asked = format!(
            "{} {} {:?}, {} bytes",
            request.method,
            request.path,
            request
                .fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.escape_ascii()))
                .collect::<Vec<_>>(),
            request.body.len()
        );
        let mut lines = unlike_heads(&echoes);
        match wire::method(request.path) {
            Some(method) => match echoes.each_ref().map(|echo| unpacked(&echo.body)) {
                [Ok(etcd), Ok(ringd)] => {
                    let found = self.session.comparer.bytes(&method.output(), [&etcd, &ringd]);
                    lines.extend(found);
                    self.learn_revision(request.path, &etcd);
                }
                [etcd, ringd] => lines.push(format!("etcd {etcd:?} | ringd {ringd:?}")),
            },
            None => lines.extend(unlike_bodies(&echoes)),
        }
        self.note_echoes(asked, lines, &echoes);
    }

    /// Sends both servers the same bytes, each on a new connection, and compares all they say
    /// until they close it.
    pub fn exchange_plain(&mut self, request: &str) {
        let mut echoes = self.pair.exchange_plain(request.as_bytes());
        echoes.iter_mut().for_each(Echo::forget_spaces_of_json);
        let mut lines = unlike_heads(&echoes);
        lines.extend(unlike_bodies(&echoes));
        self.note_echoes(request.to_owned(), lines, &echoes);
    }

    fn note_echoes(&mut self, asked: String, lines: Vec<String>, echoes: &[Echo; 2]) {
        self.calls += 1;
        if !lines.is_empty() {
            let answers = echoes
                .each_ref()
                .map(|echo| format!("{:?} {}", echo.lines, echo.body.escape_ascii()));
            self.differences.push(Difference { asked, lines, answers });
        }
    }
}

fn unlike_heads([etcd, ringd]: &[Echo; 2]) -> Vec<String> {
    let missing = |from: &Echo, name: &str, other: &Echo| -> Vec<String> {
        let lines = from.lines.iter().filter(|line| !other.lines.contains(line));
        lines.map(|line| format!("only {name}: {line}")).collect()
    };
    let mut found = [missing(etcd, "etcd", ringd), missing(ringd, "ringd", etcd)].concat();
    if found.is_empty() && etcd.lines.len() != ringd.lines.len() {
        found.push(format!("etcd {:?} | ringd {:?}", etcd.lines, ringd.lines));
    }
    found
}

fn unlike_bodies([etcd, ringd]: &[Echo; 2]) -> Option<String> {
    (etcd.body != ringd.body).then(|| {
        let shown = |echo: &Echo| echo.body.escape_ascii().to_string();
        format!("body: etcd {} | ringd {}", shown(etcd), shown(ringd))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn messages_are_joined_whether_packed_or_not() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"packed").unwrap();
        let body = [framed(0, b"plain "), framed(1, &encoder.finish().unwrap())].concat();
        assert_eq!(unpacked(&body).unwrap(), "plain packed");
        assert!(unpacked(&body[..body.len() - 1]).is_err());
        assert!(unpacked(&framed(2, b"odd")).is_err());
    }

    #[test]
    fn spaces_of_json_are_forgotten_only_between_its_words() {
        let json = |body: &str| {
            let lines = vec!["Content-Type: application/json".to_owned()];
            let mut echo = Echo { lines, body: body.as_bytes().to_vec() };
            echo.forget_spaces_of_json();
            String::from_utf8(echo.body).unwrap()
        };
        assert_eq!(json(r#"{"a": 1, "b c": "d \" e"}"#), r#"{"a":1,"b c":"d \" e"}"#);
    }

    #[test]
    fn a_field_that_only_one_sends_is_named() {
        let echo = |line: &str| Echo {
            lines: vec!["HTTP status 200".to_owned(), line.to_owned()],
            ..Echo::default()
        };
        let found = unlike_heads(&[echo("a: 1"), echo("a: 2")]);
        assert_eq!(found, ["only etcd: a: 1", "only ringd: a: 2"]);
        assert_eq!(unlike_heads(&[echo("a: 1"), echo("a: 1")]), [""; 0]);
    }
}
