//! A gRPC client that shows what came over the wire and judges nothing.
//!
//! It is built on bare HTTP/2 of another hand than the server's. Messages go out and come in as
//! bytes; a status is what the trailers say.
//!
//! Invariants:
//! - Every call ends with a status. What the server does not say itself (a broken connection, no
//!   answer in time) is a status with the code [`NO_STATUS`], which no server can send.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// The code of a call that ended without a status.
pub const NO_STATUS: u32 = u32::MAX;
/// The code of an RPC that a server does not serve.
pub const UNIMPLEMENTED: u32 = 12;
/// gRPC's code for a call whose time is over.
pub const DEADLINE_EXCEEDED: u32 = 4;
/// The text that goes with it.
pub const LATE: &str = "context deadline exceeded";
/// A call without an answer by then gets none.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// Flow control is not what is tested here: answers of any size come at once.
const WINDOW_BYTES: u32 = 1 << 30;
const MESSAGE_PREFIX_BYTES: usize = 5;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The gRPC code.
    pub code: u32,
    /// The gRPC message, percent-decoded.
    pub text: String,
}

impl Status {
    fn none(text: impl Into<String>) -> Self {
        Self { code: NO_STATUS, text: text.into() }
    }
}

/// All that came back for a call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The messages.
    pub messages: Vec<Bytes>,
    /// The end.
    pub status: Status,
}

/// Header fields of a call beside the necessary ones.
pub type Metadata<'a> = &'a [(&'static str, &'a [u8])];

/// One connection to a server.
pub struct Client {
    sender: SendRequest<Bytes>,
    authority: String,
}

impl Client {
    /// Connects; the connection is driven by the runtime it is made in.
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("cannot connect to {address}: {error}");
        let socket = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        socket.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await
            .map_err(|error| failed(&error))?;
        // Its end shows in every stream of the connection, where it is reported.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { sender, authority: address.to_string() })
    }

    /// Sends one message and waits for the end of the answer.
    pub async fn call(&self, path: &str, message: Bytes, metadata: Metadata<'_>) -> Answer {
        let mut messages = Vec::new();
        let answer = async {
            let (response, mut body) = self.begin(path, metadata).await?;
            send(&mut body, &message, true)?;
            Ok::<_, String>(receive(response, |message| messages.push(message)).await)
        };
        let status = match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => Status::none(error),
            Err(_) => Status::none("no answer in time"),
        };
        Answer { messages, status }
    }

    /// Opens a call whose messages come and go one by one.
    pub async fn open(&self, path: &str, metadata: Metadata<'_>) -> Result<Stream, String> {
        let (response, body) = self.begin(path, metadata).await?;
        let (events, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // Whoever no longer listens has no use for the rest.
            let on_message = |message| {
                let _ = events.send(StreamEvent::Message(message));
            };
            let status = receive(response, on_message).await;
            let _ = events.send(StreamEvent::Ended(status));
        });
        Ok(Stream { body, received })
    }

    async fn begin(
        &self,
        path: &str,
        metadata: Metadata<'_>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), String> {
        let necessary = [("content-type", &b"application/grpc"[..]), ("te", b"trailers")];
        let fields: Vec<_> = necessary.iter().chain(metadata).copied().collect();
        self.send_head("POST", path, &fields).await
    }

    /// Sends the head of a request with no fields but these, and leaves it open.
    pub async fn send_head(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &[u8])],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), String> {
        let uri = format!("http://{}{path}", self.authority);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).map_err(|error| error.to_string())?;
            request = request.header(*name, value);
        }
        let request = request.body(()).map_err(|error| error.to_string())?;
        let sender = self.sender.clone().ready().await.map_err(|error| error.to_string())?;
        let mut sender = sender;
        sender.send_request(request, false).map_err(|error| error.to_string())
    }
}

/// What comes over a stream.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// A message.
    Message(Bytes),
    /// The end.
    Ended(Status),
}

/// An open call.
pub struct Stream {
    body: SendStream<Bytes>,
    received: mpsc::UnboundedReceiver<StreamEvent>,
}

impl Stream {
    /// Sends a message. A stream that the server has ended takes none; its end says why.
    pub fn send(&mut self, message: &Bytes) {
        let _ = send(&mut self.body, message, false);
    }

    /// Says that no message follows.
    pub fn send_end(&mut self) {
        let _ = self.body.send_data(Bytes::new(), true);
    }

    /// The next event, or `None` if there is none in time.
    pub async fn receive(&mut self, limit: Duration) -> Option<StreamEvent> {
        tokio::time::timeout(limit, self.received.recv()).await.ok().flatten()
    }
}

impl Drop for Stream {
    /// The server hears of it: without a reset it would go on for whoever no longer listens.
    fn drop(&mut self) {
        self.body.send_reset(Reason::CANCEL);
    }
}

fn send(body: &mut SendStream<Bytes>, message: &Bytes, end: bool) -> Result<(), String> {
    let size = u32::try_from(message.len()).map_err(|error| error.to_string())?;
    let mut framed = BytesMut::with_capacity(MESSAGE_PREFIX_BYTES + message.len());
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&size.to_be_bytes());
    framed.extend_from_slice(message);
    body.send_data(framed.freeze(), end).map_err(|error| error.to_string())
}

/// Hands out the messages of an answer as they come, and tells how it ended.
async fn receive(response: ResponseFuture, mut on_message: impl FnMut(Bytes)) -> Status {
    let response = match response.await {
        Ok(response) => response,
        Err(error) => return broken(&error),
    };
    let (head, mut body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Status::none(format!("HTTP status {}", head.status));
    }
    let mut partial = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = match data {
            Ok(data) => data,
            Err(error) => return broken(&error),
        };
        // The window was taken by the data whether or not it is a message.
        let _ = body.flow_control().release_capacity(data.len());
        partial.extend_from_slice(&data);
        while let Some(message) = split_message(&mut partial) {
            on_message(message);
        }
    }
    if !partial.is_empty() {
        return Status::none("the answer ends within a message");
    }
    let trailers = match trailers_of(&mut body, &head.headers).await {
        Ok(trailers) => trailers,
        Err(status) => return status,
    };
    status_of(&trailers)
}

/// Who ends a call whose time is over is a race in grpc-go's server: the handler with a status, or
/// the stream with a reset, which its client takes for the same.
fn broken(error: &h2::Error) -> Status {
    if error.is_remote() && error.reason() == Some(Reason::CANCEL) {
        return Status { code: DEADLINE_EXCEEDED, text: LATE.to_owned() };
    }
    Status::none(format!("the stream broke: {error}"))
}

/// A status without messages stands in the headers, any other in the trailers.
async fn trailers_of(body: &mut RecvStream, headers: &HeaderMap) -> Result<HeaderMap, Status> {
    match body.trailers().await {
        Ok(Some(trailers)) => Ok(trailers),
        Ok(None) if headers.contains_key("grpc-status") => Ok(headers.clone()),
        Ok(None) => Err(Status::none("neither headers nor trailers hold a status")),
        Err(error) => Err(broken(&error)),
    }
}

fn status_of(trailers: &HeaderMap) -> Status {
    let field = |name| trailers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(code) = field("grpc-status").and_then(|code| code.parse().ok()) else {
        return Status::none(format!("the status is no number: {trailers:?}"));
    };
    Status { code, text: percent_decoded(field("grpc-message").unwrap_or("")) }
}

fn split_message(partial: &mut BytesMut) -> Option<Bytes> {
    let size = u32::from_be_bytes(partial.get(1..MESSAGE_PREFIX_BYTES)?.try_into().ok()?);
    let size = usize::try_from(size).ok()?;
    if partial.len() < MESSAGE_PREFIX_BYTES + size {
        return None;
    }
    partial.advance(MESSAGE_PREFIX_BYTES);
    Some(partial.split_to(size).freeze())
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_split_off_only_when_it_is_whole() {
        let mut partial = BytesMut::from(&[0, 0, 0, 0, 2, 7][..]);
        assert_eq!(split_message(&mut partial), None);
        partial.extend_from_slice(&[8, 0, 0]);
        assert_eq!(split_message(&mut partial), Some(Bytes::from_static(&[7, 8])));
        assert_eq!(split_message(&mut partial), None);
        assert_eq!(partial.len(), 2);
    }

    #[test]
    fn a_status_text_is_percent_decoded() {
        assert_eq!(percent_decoded("a%20b%C3%A4"), "a bä");
        assert_eq!(percent_decoded("100%, %zz %4"), "100%, %zz %4");
    }
}
