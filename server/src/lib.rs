//! The server library.

pub mod raft;
pub mod runtime;
pub mod mail;
pub mod node;
pub mod sequencer;
