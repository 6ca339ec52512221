//! The wire's messages, generated from `proto/` when the crate is built.

// The words stand in the .proto files; the generator's own items have none.
#![allow(missing_docs, clippy::all, clippy::cast_possible_truncation)]

include!(concat!(env!("OUT_DIR"), "/proto.rs"));
