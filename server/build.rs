//! Compiles `proto/` into Rust types, and lists every RPC they define.
//!
//! protox parses in pure Rust, so that building needs no installed protoc. The list of RPCs is
//! what the table in `service/method.rs` is tested against; the schema, `build/schema.rs`, is what
//! the JSON gateway translates by.

#[path = "build/schema.rs"]
mod schema;

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build");
    let descriptors =
        protox::compile(["rpc.proto", "lock.proto", "election.proto", "health.proto"], ["proto"])?;
    let mut rpcs = String::from("[\n");
    for file in &descriptors.file {
        for service in &file.service {
            for rpc in &service.method {
                writeln!(
                    rpcs,
                    "    (\"/{}.{}/{}\", {}, {}),",
                    file.package(),
                    service.name(),
                    rpc.name(),
                    rpc.client_streaming(),
                    rpc.server_streaming(),
                )?;
            }
        }
    }
    rpcs.push(']');
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("rpcs.rs"), rpcs)?;
    fs::write(out_dir.join("schema.rs"), schema::render(&descriptors)?)?;
    prost_build::Config::new()
        // Keys and values share the buffer of the message they came in.
        .bytes(["."])
        .include_file("proto.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
