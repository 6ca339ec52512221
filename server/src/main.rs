//! The ringd binary: one member.

use std::process::ExitCode;

fn main() -> ExitCode {
    match server::config::load() {
        Ok(config) => server::node::run::run(config),
        Err(code) => code,
    }
}
