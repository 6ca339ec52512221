//! Compiles the .proto files of the server, all of them.
//!
//! Beside the types, the descriptors are kept: `compat` finds every RPC in them and compares
//! answers by them.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../server/proto");
    let files = ["rpc.proto", "health.proto", "lock.proto", "election.proto"];
    let descriptors = protox::compile(files, ["../server/proto"])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new().include_file("proto.rs").compile_fds(descriptors)?;
    Ok(())
}
