//! The differential runner: real etcd and ringd are asked the same, and whole answers compared.
//!
//! `corpus` holds the scripted cases, `random` seeded sequences of operations on few keys. A case
//! talks through a [`conversation::Conversation`], which sends everything to both members of a
//! [`pair::Pair`] and compares what comes back by its descriptor. What may differ stands in
//! [`allowed`], and nowhere else.
//!
//! Invariants:
//! - Both servers have received the same requests in the same order, so that revisions are equal.

pub mod allowed;
pub mod calling;
pub mod compare;
pub mod conversation;
pub mod corpus;
pub mod exchange;
pub mod missing;
pub mod pair;
pub mod random;
pub mod report;
pub mod run;
pub mod servers;
pub mod watching;

use crate::rpc::{client, wire};
