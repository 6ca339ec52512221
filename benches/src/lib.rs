//! Micro-benchmarks of the kernels; they are under `benches/`. Here is what they are fed: inputs
//! drawn from a seed, requests as clients encode them, calls as clients frame them.

pub mod draw;
pub mod grpc_client;
pub mod requests;
