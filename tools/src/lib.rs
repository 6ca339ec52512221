//! Tools: `ringutl` for those who run ringd; for developers what keeps the tree in order, ringd
//! like etcd, and clusters sound.
//!
//! Invariants:
//! - Only `ringutl` and the simulator use the server's library: the others read text and speak the
//!   wire.

pub mod compat;
pub mod oracle;
pub mod ringutl;
pub mod sim;
pub mod tidy;
