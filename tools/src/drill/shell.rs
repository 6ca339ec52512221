//! Commands of the system, run and waited for.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// Runs a command and answers with what it printed.
///
/// # Errors
/// It cannot be run, or says that it failed.
pub fn run<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Result<String, String> {
    let shown = || {
        let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        format!("{program} {}", args.join(" "))
    };
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", shown()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}, {}", shown(), output.status, text.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same for a command that is written as one line; no argument of it holds a space.
///
/// # Errors
/// As above.
pub fn run_line(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command has a name");
    run(program, &words.collect::<Vec<_>>())
}
