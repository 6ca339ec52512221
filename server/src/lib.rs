//! The server library.

pub mod bootstrap;
pub mod config;
pub mod frontend;
pub mod interchange;
pub mod log;
pub mod log_lines;
pub mod mail;
pub mod metrics;
pub mod node;
pub mod peer;
pub mod raft;
pub mod runtime;
pub mod sequencer;
pub mod service;
