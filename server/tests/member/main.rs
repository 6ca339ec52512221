//! The real binary, from outside: how it starts, serves, is killed, refuses and fails.
//!
//! Every test has a directory and processes of its own, on ports that the system picks and the
//! member's log tells. Nothing is timed: waiting ends when something happened, and the bounds on it
//! only end what hangs.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod client;
mod cluster;
mod directory;
mod discovery;
mod faults;
mod json;
mod life;
mod member;
mod metrics;
mod quota;
mod refusals;
mod settings;
