//! What members say to each other: an own protocol, versioned, over plain byte streams.
//!
//! Each member dials each other member for what it has to say itself, over up to three connections
//! ([`hello::Lane`]): control, which is never behind anything large; bulk, for appends and
//! forwarded batches; and a third for a raft snapshot while one is sent. A connection begins with
//! [`hello::Hello`] and an answer to it; from then on frames ([`frame`]) go one way, and only
//! acknowledgements of a raft snapshot come back.
//!
//! [`message`] is raft's messages, [`letter`] everything else that a frame may hold. [`link`] is
//! the sending end towards one member, [`receive`] the receiving end of one connection. All of it
//! only decides; sockets are the owner's.
//!
//! Invariants:
//! - What a peer sent never reaches an assertion: it is refused by value, with its reason.
//! - Nothing is allocated for a length that was not checked against a bound first.
//! - The payload of an entry is shared with raft's log on the way out, and copied once on the way
//!   in.

pub mod frame;
pub mod hello;
mod layout;
pub mod letter;
pub mod link;
pub mod message;
pub mod receive;

#[cfg(test)]
mod random;
