//! Developer tools: what keeps the tree in order, and ringd like etcd.
//!
//! Invariants:
//! - Nothing here links the server: these tools read text and speak the wire.

pub mod compat;
pub mod tidy;
