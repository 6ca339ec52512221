//! The messages and RPCs of the API, as the .proto files define them.
//!
//! Requests are built from generated types; answers are looked at through their descriptors, so
//! that a comparison covers every field there is and every field we do not know.

// The words stand in the .proto files; the generator's own items have none.
#![allow(missing_docs, clippy::all, clippy::cast_possible_truncation)]

include!(concat!(env!("OUT_DIR"), "/proto.rs"));

use std::sync::LazyLock;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(descriptors.as_slice()).expect("the build wrote what it had parsed")
});

/// The paths of all RPCs.
pub fn paths() -> Vec<String> {
    let services = POOL.services();
    services
        .flat_map(|service| {
            let name = service.full_name().to_owned();
            service
                .methods()
                .map(move |method| format!("/{name}/{}", method.name()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The RPC at a path, if the API has it.
pub fn method(path: &str) -> Option<MethodDescriptor> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    POOL.get_service_by_name(service)?.methods().find(|method| method.name() == name)
}

/// The message type of a name.
pub fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).expect("only names of our own .proto files are asked for")
}

/// A message as text of one line.
pub fn text(descriptor: MessageDescriptor, bytes: &Bytes) -> String {
    match DynamicMessage::decode(descriptor, bytes.clone()) {
        Ok(message) => message.to_text_format(),
        Err(error) => format!("{} bytes that are no message: {error}", bytes.len()),
    }
}
