//! The front-end's protocols. HTTP/2, gRPC, HTTP/1 and the gateway are sans-IO; their sockets are
//! the reactor's.

pub mod gateway;
pub mod grpc;
pub mod http1;
pub mod http2;
