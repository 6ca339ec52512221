//! `ringutl`: etcd's data into ringd and back.

use std::process::ExitCode;

use clap::Parser;
use tools::ringutl::{Arguments, run};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}
