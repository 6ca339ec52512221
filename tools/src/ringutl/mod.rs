//! `ringutl`: etcd's data into ringd and back, while no server runs on it.
//!
//! Commands, flags and outputs are etcdutl's where it has them. All the work is the server
//! library's; here are the command line and the printing.

mod command;
mod print;

pub use command::{Arguments, run};
