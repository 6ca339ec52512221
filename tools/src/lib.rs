//! Tools: `ringutl` for those who run ringd; for developers what keeps the tree in order, ringd
//! like etcd, and clusters sound.
//!
//! Invariants:
//! - Only `ringutl` and the simulator use the server's library: the others read text and speak the
//!   wire. The drill draws what its clients want as the simulator does.

pub mod compat;
pub mod drill;
pub mod oracle;
pub mod ringutl;
pub mod rpc;
pub mod sim;
pub mod tidy;
