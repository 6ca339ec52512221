//! The node: it alone knows all stages, and joins them.

pub mod checkpoint;
pub mod failure;
pub mod log_core;
pub mod shared;
