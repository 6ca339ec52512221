//! Effects: everything that touches the kernel, and every `unsafe` of the server.
//!
//! A core's loop waits on its [`reactor`], drains what happened, and queues what its stages want
//! done. The stages themselves live elsewhere and see none of this.

pub mod buffers;
pub mod bus_error;
pub mod dialer;
pub mod disk_helper;
pub mod executor;
pub mod files;
pub mod hand;
pub mod log_disk;
pub mod notify;
pub mod placement;
pub mod post;
pub mod process_stats;
pub mod reactor;
pub mod signals;
pub mod slab;
pub mod sockets;
pub mod sync_method;
pub mod wake;
