//! The front-end's protocols. HTTP/2 and gRPC are sans-IO; their sockets are the reactor's.

pub mod grpc;
pub mod http2;
