//! HTTP/1.x, the server's side: bytes in, requests out; answers in, bytes out.
//!
//! ```text
//! connection.handle_received(bytes);
//! while let Some(event) = connection.poll_event(now) { ... }
//! connection.begin(status, &fields, length); connection.put(body); connection.end();
//! write(connection.take_output());
//! ```
//!
//! Heads are parsed by `httparse`; what a head means for the connection is decided here, as Go's
//! server decides it, with the stricter way wherever two readings of a request are possible.
//!
//! Invariants:
//! - One request is handed out at a time; the next when its answer has ended and its body is read.
//! - Where a body ends is never guessed at: what is not understood ends the connection.
//! - Everything a client can make grow has a bound: [`HEAD_BYTES_MAX`] and [`INPUT_BYTES_HIGH`].

mod body;
mod connection;
mod date;
mod head;
mod websocket;

pub use connection::{Connection, Event, HEAD_BYTES_MAX, INPUT_BYTES_HIGH, Length};
pub use head::{Request, unescape};
