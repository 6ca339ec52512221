//! The server library.

pub mod raft;
pub mod runtime;
