//! JSON to protobuf and back, as protobuf's own JSON mapping and its Go implementation have it.
//!
//! Requests are translated whole, because they are small; answers piece by piece, because a range
//! may be large and its client slow. No message is ever held in a third form between the two.
//!
//! Invariants:
//! - What [`decode`] makes of a value is valid protobuf of the message it was asked for.
//! - Depth is bounded on the way in, by [`scan`] and by [`decode`]; an answer is as deep as its
//!   message's type, and that of a transaction as deep as its request was.

pub mod base64;
pub mod decode;
pub mod encode;
pub mod scan;
pub mod schema;
mod text;

pub use decode::decode;
pub use encode::Encoder;
pub use scan::{Scanner, Step};
pub use schema::MessageId;
pub use text::{Escape, put_string};
