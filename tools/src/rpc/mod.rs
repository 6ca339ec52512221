//! What the tools that talk to servers share: a client of another hand than the server's, and the
//! messages.

pub mod client;
pub mod wire;
