//! The node: it alone knows all stages, and joins them.

pub mod calls;
pub mod checkpoint;
pub mod core;
pub mod corruption;
pub mod failure;
pub mod frontend_core;
pub mod initial_check;
pub mod log_core;
pub mod log_role;
pub mod peer_role;
pub mod reads;
pub mod run;
pub mod scrape;
pub mod shared;
pub mod start;
pub mod streams;
pub mod switch;
pub mod watches;
