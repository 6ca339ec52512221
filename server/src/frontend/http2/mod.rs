//! HTTP/2, the server's side, without input or output of its own.
//!
//! [`Connection`] is one client connection as a plain value: bytes from the socket go in through
//! [`Connection::poll_event`], what the client asked for comes out as [`Event`]s, answers are given
//! as commands and bytes for the socket leave through [`Connection::poll_output`]. Time is a
//! `Duration` since an origin of the owner's choice, so a simulator can drive it.
//!
//! Invariants:
//! - Nothing that a client sends panics, and everything that it can make grow has a bound here
//!   (see [`limits`]).
//! - The answer depends on the bytes received, never on how the network cut them into reads.
//! - Names follow RFC 9113 (HTTP/2) and RFC 7541 (HPACK); where a rule is held, its section is
//!   named.

mod body;
pub mod connection;
pub mod flow;
pub mod frame;
pub mod guard;
pub mod headers;
pub mod hpack;
mod input;
pub mod keepalive;
pub mod limits;
mod memo;
mod output;
pub mod settings;
pub mod sniff;
pub mod stream;

pub use body::Body;
pub use connection::{CloseReason, Config, Connection, Event};
pub use frame::ErrorCode;
pub use headers::HeaderList;
pub use hpack::encoder::Field;
pub use memo::ListRef;
pub use sniff::{Protocol, sniff};
pub use stream::StreamKey;
