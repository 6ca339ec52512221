//! The sequencer: who is next, in which batch, and whose reads may go on.
//!
//! It turns letters of the front-ends into batches ([`batch`]) and read-index rounds
//! ([`read_index`]), keeps the clocks of leases ([`lessor`]), and decides what the member proposes
//! by itself ([`auto_compaction`], [`cluster_version`]) and which changes of members it takes
//! ([`membership`]). It sees neither raft nor the log: its
//! owner proposes what [`batch::Batcher::take_batch`] gives and tells it where in the log that
//! landed.

pub mod auto_compaction;
pub mod batch;
pub mod cluster_version;
pub mod lessor;
pub mod membership;
pub mod read_index;
