//! `cargo tidy`: prints what is out of order in the tree, as `file:line: what`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tools::tidy::check_tree;

fn main() -> ExitCode {
    let root = match std::env::args_os().nth(1) {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
    };
    match check_tree(&root) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                println!("{finding}");
            }
            eprintln!("{} findings", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot read the tree at {}: {error}", root.display());
            ExitCode::FAILURE
        }
    }
}
