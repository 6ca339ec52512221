//! How members find each other before they know each other: DNS, and two discovery services.
//!
//! [`srv`] reads the members out of a domain's SRV records (`--discovery-srv`); [`service`]
//! registers this member with an etcd or a ringd and waits for the others
//! (`--discovery-endpoints`); [`registry`] does the same with the older service over HTTP
//! (`--discovery`). All of them end with the text that `--initial-cluster` would have had.
//!
//! What is decided is pure and stands behind traits; [`dns_client`], [`kv_client`] and the HTTP
//! client of the module above block, before the executors run.

pub mod dns;
pub mod dns_client;
mod grpc_call;
pub mod kv_client;
pub mod registry;
pub mod service;
pub mod srv;

use std::time::Duration;

/// The longest pause is two to this power, in seconds.
const PAUSE_DOUBLINGS_MAX: u32 = 8;

/// Waits, for whoever has a clock.
pub trait Pause {
    /// Lets so much time pass, because of this.
    fn pause(&mut self, time: Duration, reason: &str);
}

/// How long is waited before this retry, counted from 1: etcd's 2, 4, 8 ... 256 seconds.
fn pause_before(retry: u32) -> Duration {
    Duration::from_secs(1 << retry.min(PAUSE_DOUBLINGS_MAX))
}
