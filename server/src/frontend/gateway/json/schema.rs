//! What the messages of the API look like, from the .proto files.
//!
//! Invariants:
//! - A message's fields stand in the order of their declaration, in which JSON has them.

/// The place of a message in [`MESSAGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId(pub usize);

/// How a field is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are protobuf's")]
pub enum Kind {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Bool,
    String,
    Bytes,
    /// By the enum's place in [`ENUMS`].
    Enum(usize),
    /// By the message's place in [`MESSAGES`].
    Message(usize),
}

impl Kind {
    /// The name in Go's error texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Enum(_) => "enum",
            Self::Message(_) => "message",
        }
    }

    /// Whether values have a length before them on the wire, rather than being a varint.
    #[must_use]
    pub const fn is_delimited(self) -> bool {
        matches!(self, Self::String | Self::Bytes | Self::Message(_))
    }
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// Its name in the .proto file, which answers use.
    pub name: &'static str,
    /// Its name in JSON's own style, which requests may use.
    pub camel_name: &'static str,
    /// How it is encoded.
    pub kind: Kind,
    /// Whether it is a list.
    pub repeated: bool,
    /// The place of the oneof that it belongs to in [`Message::oneofs`].
    pub oneof: Option<usize>,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Its full name.
    pub name: &'static str,
    /// The full names of its oneofs.
    pub oneofs: &'static [&'static str],
    /// Its fields.
    pub fields: &'static [Field],
}

/// One enum.
#[derive(Debug)]
pub struct Enum {
    /// Names and numbers.
    pub values: &'static [(&'static str, i32)],
}

/// Request and answer of an RPC.
#[derive(Debug)]
pub struct Rpc {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// The request's place in [`MESSAGES`].
    pub request: usize,
    /// The answer's.
    pub answer: usize,
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// Request and answer of the RPC with this path.
#[must_use]
pub fn messages_of(path: &str) -> Option<(MessageId, MessageId)> {
    let rpc = RPCS.iter().find(|rpc| rpc.path == path)?;
    Some((MessageId(rpc.request), MessageId(rpc.answer)))
}

/// The message of this place.
#[must_use]
pub fn message(id: MessageId) -> &'static Message {
    &MESSAGES[id.0]
}
