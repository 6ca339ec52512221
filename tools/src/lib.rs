//! Tools: `ringutl` for those who run ringd; for developers what keeps the tree in order, and ringd
//! like etcd.
//!
//! Invariants:
//! - Only `ringutl` uses the server's library: the others read text and speak the wire.

pub mod compat;
pub mod ringutl;
pub mod tidy;
