//! What the API means: validation, reads, answers, watches. Sans-IO.
//!
//! [`dispatch`] is the door for unary calls, [`watch`] for watch streams; both are owned by a
//! front-end core and see no socket, no clock and no other core. [`status`] is the only place that
//! knows the texts clients match on.

pub mod cluster;
pub mod concurrency;
pub mod decode;
pub mod dispatch;
pub mod lease;
pub mod method;
pub mod node_state;
pub mod proto;
pub mod replay;
pub mod sink;
pub mod status;
pub mod stream;
pub mod validate;
pub mod watch;
pub mod wire;

mod downgrade;
mod health;
mod kv;
mod maintenance;
mod quota;
mod range_stream;

#[cfg(test)]
pub(crate) mod test_store;
