//! A client for single HTTP/1.1 requests that blocks: what a start asks other members and the older
//! discovery service.
//!
//! A connection serves one request and is closed. That is all that a start needs, and it runs
//! before the executors, where nobody is kept waiting by a thread that waits.
//!
//! Invariants:
//! - What comes is bounded in bytes, and every wait in time; the time is for the whole request.
//! - Redirects are not followed, as in etcd.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::config::Url;

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The longest answer: members of a large cluster are a few kilobytes.
const BODY_BYTES_MAX: usize = 8 << 20;
const HEADERS_MAX: usize = 128;
const READ_BYTES: usize = 16 << 10;

/// The content type of a form's fields.
pub const FORM: &str = "application/x-www-form-urlencoded";
/// That of a JSON document.
pub const JSON: &str = "application/json";

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'static str,
    /// Path and query.
    pub target: &'a str,
    /// A body and its content type, if there is one.
    pub body: Option<(&'a str, &'a str)>,
    /// Further header fields.
    pub fields: &'a [(&'a str, &'a str)],
    /// How long all of it may take.
    pub timeout: Duration,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The code.
    pub status: u16,
    /// Names in lower case, and values.
    headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Asks the server at a URL.
///
/// # Errors
/// It could not be asked, or its answer could not be read.
pub fn ask(url: &Url, request: Request<'_>) -> Result<Answer, String> {
    let deadline = Instant::now() + request.timeout;
    if url.scheme.is_secure() {
        return Err(format!("{url} needs TLS, which ringd does not speak yet"));
    }
    let mut stream = connect(url, deadline).map_err(|error| error.to_string())?;
    let host = if url.scheme.is_unix() { "localhost" } else { url.authority() };
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ringd\r\nConnection: close\r\n",
        request.method, request.target
    );
    for (name, value) in request.fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some((kind, body)) = request.body {
        let length = body.len();
        text.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"));
    } else {
        text.push_str("\r\n");
    }
    stream.limit(deadline).and_then(|()| stream.write_all(text.as_bytes())).map_err(io_text)?;
    read_answer(&mut stream, deadline)
}

/// A connection of either kind.
#[derive(Debug)]
pub enum Stream {
    /// To another machine, or this one.
    Tcp(TcpStream),
    /// To a socket of the file system.
    Unix(UnixStream),
}

impl Stream {
    /// No later read or write waits beyond this moment.
    ///
    /// # Errors
    /// It has passed, or the socket's.
    pub fn limit(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            }
        }
    }

    /// Says that nothing more is sent or read.
    pub fn close(&self) {
        // It is closed in any case when it is dropped.
        drop(match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        });
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connects to a URL's place, whatever it is called.
///
/// # Errors
/// The last of its addresses' errors.
pub fn connect(url: &Url, deadline: Instant) -> io::Result<Stream> {
    if url.scheme.is_unix() {
        return UnixStream::connect(&url.host).map(Stream::Unix);
    }
    let mut last =
        io::Error::new(ErrorKind::NotFound, format!("lookup {}: no such host", url.host));
    for address in url.authority().to_socket_addrs().map_err(|_| clone_error(&last))? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("dial tcp {address}: timeout"),
            ));
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(Stream::Tcp(stream));
            }
            Err(error) => {
                last = io::Error::new(error.kind(), format!("dial tcp {address}: {error}"));
            }
        }
    }
    Err(last)
}

fn clone_error(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "it is the shape that map_err wants")]
fn io_text(error: io::Error) -> String {
    match error.kind() {
        // A socket whose time is over says that it would block.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "context deadline exceeded".to_owned(),
        _ => error.to_string(),
    }
}

fn read_answer(stream: &mut Stream, deadline: Instant) -> Result<Answer, String> {
    let mut received = Vec::new();
    let mut is_over = false;
    loop {
        let head = parse_head(&received)?;
        if let Some((mut answer, framing, head_len)) = head
            && let Some(body) = framing.body(&received[head_len..], is_over)?
        {
            // An interim answer is followed by the one that counts.
            if (100..200).contains(&answer.status) {
                received.drain(..head_len);
                continue;
            }
            answer.body = body;
            return Ok(answer);
        }
        if is_over {
            return Err("unexpected EOF".to_owned());
        }
        let mut buffer = [0; READ_BYTES];
        stream.limit(deadline).map_err(io_text)?;
        match stream.read(&mut buffer) {
            Ok(0) => is_over = true,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io_text(error)),
        }
        if received.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX {
            return Err("the answer is too long".to_owned());
        }
    }
}

/// How a body's end is told.
#[derive(Clone, Copy, Debug)]
enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClosed,
}

type Head = (Answer, Framing, usize);

fn parse_head(received: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_len = match response.parse(received) {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) if received.len() > HEAD_BYTES_MAX => {
            return Err("the head of the answer is too long".to_owned());
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("malformed HTTP response: {error}")),
    };
    let status = response.code.unwrap_or_default();
    let headers = response.headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value).trim().to_owned();
        (header.name.to_ascii_lowercase(), value)
    });
    let answer = Answer { status, headers: headers.collect(), body: Vec::new() };
    let framing = if matches!(status, 100..200 | 204 | 304) {
        Framing::None
    } else if answer.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        Framing::Chunked
    } else if let Some(length) = answer.header("content-length") {
        let length = length.parse().ok().filter(|length| *length <= BODY_BYTES_MAX);
        Framing::Length(length.ok_or("the answer has no length, or is too long")?)
    } else {
        Framing::UntilClosed
    };
    Ok(Some((answer, framing, head_len)))
}

impl Framing {
    /// The body, once all of it has come.
    fn body(self, received: &[u8], is_over: bool) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::None => Ok(Some(Vec::new())),
            Self::Length(length) => Ok(received.get(..length).map(<[u8]>::to_vec)),
            Self::UntilClosed => Ok(is_over.then(|| received.to_vec())),
            Self::Chunked => join_chunks(received),
        }
    }
}

fn join_chunks(received: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let (mut body, mut rest) = (Vec::new(), received);
    loop {
        let (begin, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("malformed chunked encoding".to_owned()),
        };
        // Trailers, if there are any, say nothing that is asked for here.
        if size == 0 {
            return Ok(Some(body));
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= BODY_BYTES_MAX);
        let size = size.ok_or("a chunk is too long")?;
        let Some(chunk) = rest.get(begin..begin + size) else { return Ok(None) };
        body.extend_from_slice(chunk);
        match rest.get(begin + size..begin + size + 2) {
            None => return Ok(None),
            Some(b"\r\n") => rest = &rest[begin + size + 2..],
            Some(_) => return Err("malformed chunked encoding".to_owned()),
        }
    }
}

#[cfg(test)]
pub mod test_server {
    //! A server that answers one request after the other with what it is told.

    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use crate::config::{Url, parse_urls};

    /// What came: method, target, body.
    pub type Asked = (String, String, String);

    /// Serves on a port of its own until the test ends.
    pub fn serve(mut answer: impl FnMut(Asked) -> Vec<u8> + Send + 'static) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let Some(asked) = read_request(&mut reader) else { continue };
                drop(stream.write_all(&answer(asked)));
            }
        });
        parse_urls(&format!("http://{address}")).unwrap().remove(0)
    }

    /// What comes on a connection; `None` if it is closed first.
    pub fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some((method, target, String::from_utf8(body).unwrap()))
    }

    /// An answer with a length.
    pub fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::test_server::{answer, serve};
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn get(url: &Url) -> Result<Answer, String> {
        ask(url, Request { method: "GET", target: "/x", body: None, fields: &[], timeout: SOON })
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        for (bytes, expected) in [
            (answer(200, "X-A: b\r\n", "body"), Ok((200, "body"))),
            (answer(404, "", ""), Ok((404, ""))),
            (b"HTTP/1.1 200 OK\r\n\r\nuntil closed".to_vec(), Ok((200, "until closed"))),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n\
                  0\r\n\r\n"
                    .to_vec(),
                Ok((200, "abcde")),
            ),
            (b"HTTP/1.1 204 No\r\n\r\n".to_vec(), Ok((204, ""))),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
                    .to_vec(),
                Ok((200, "x")),
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx".to_vec(), Err("unexpected EOF")),
            (b"".to_vec(), Err("unexpected EOF")),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n".to_vec(),
                Err("malformed chunked encoding"),
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
                Err("the answer has no length, or is too long"),
            ),
        ] {
            let sent = bytes.clone();
            let url = serve(move |_| sent.clone());
            let found =
                get(&url).map(|answer| (answer.status, String::from_utf8(answer.body).unwrap()));
            let expected = expected.map(|(status, body)| (status, body.to_owned()));
            assert_eq!(found, expected.map_err(str::to_owned), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_request_says_what_it_wants() {
        let url = serve(|(method, target, body)| {
            answer(200, "X-Etcd-Cluster-ID: ab\r\n", &format!("{method} {target} {body}"))
        });
        let (body, fields) = (Some((FORM, "value=d")), &[("X-Y", "z")][..]);
        let request = Request { method: "PUT", target: "/a?b=c", body, fields, timeout: SOON };
        let found = ask(&url, request).unwrap();
        assert_eq!(found.body, b"PUT /a?b=c value=d");
        assert_eq!(found.header("x-etcd-cluster-id"), Some("ab"));
    }

    #[test]
    fn nobody_there_and_tls_are_said() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let url = |text: String| crate::config::parse_urls(&text).unwrap().remove(0);
        let error = get(&url(format!("http://{address}"))).unwrap_err();
        assert!(error.starts_with(&format!("dial tcp {address}: ")), "{error}");
        assert!(get(&url("https://a:1".to_owned())).unwrap_err().contains("TLS"));
    }

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!("http://{}", listener.local_addr().unwrap());
        let url = crate::config::parse_urls(&text).unwrap().remove(0);
        let timeout = Duration::from_millis(20);
        let request = Request { method: "GET", target: "/", body: None, fields: &[], timeout };
        assert_eq!(ask(&url, request), Err("context deadline exceeded".to_owned()));
    }
}
