//! gRPC over [`super::http2`], the server's side, as grpc-go answers it.
//!
//! [`Connection`] turns HTTP/2 streams into calls: it maps paths to methods, checks what a gRPC
//! request must look like, puts messages together, and refuses what grpc-go would refuse, with the
//! same codes and texts, because clients match on them. It decides nothing about the services.
//!
//! Invariants:
//! - A message that lies whole in the bytes read is handed out in place, without a copy.
//! - A call that the owner was told of ends in exactly one of: the owner's answer or `finish`,
//!   [`Event::Cancelled`], [`Event::Closed`].

pub mod connection;
mod gzip;
mod message;
pub mod method;
mod quote;
pub mod request;
pub mod status;

pub use connection::{Config, Connection, Event, Input, OwnedMessage, SEND_BYTES_MAX, Written};
pub use method::{Method, MethodId, MethodKind, MethodTable};
pub use request::Metadata;
pub use status::{Code, Status};
