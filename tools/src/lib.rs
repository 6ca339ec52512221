//! Developer tools: what keeps the tree in order.
//!
//! Invariants:
//! - Nothing here links the server; these tools read text.

pub mod tidy;
