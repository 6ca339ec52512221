//! What `--help`, `--version` and a slip of the keyboard print. All from the table of flags.

use std::fmt::Write as _;

use super::flag::{Flag, Kind, Section, Stand};
use super::flags;

/// The version of etcd whose API is served. Clients compare it, so it is etcd's and not ours.
pub const ETCD_VERSION: &str = "3.7.1";

/// The four lines of `etcd --version`, which scripts cut at the colon, with ringd's version where
/// etcd names its build.
pub fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let (ringd, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    format!(
        "etcd Version: {ETCD_VERSION}\nringd Version: {ringd}\nGo Version: none (Rust)\n\
         Go OS/Arch: {os}/{arch}\n"
    )
}

/// How the program is called: printed on standard error with every slip, as etcd does.
pub fn usage() -> &'static str {
    "Usage:

  ringd [flags]
    Start a member. Every flag can be set as -flag, as --flag, and as ETCD_FLAG in the environment.

  ringd --config-file FILE
    Start a member as a YAML or JSON file says. All other flags and the environment are ignored;
    times are nanoseconds in the file (600000000000 for 10m).

  ringd --version
    Show the version.

  ringd -h | --help
    Show all flags.
"
}

/// All flags by section; etcd's two lines for each.
pub fn flags_text() -> String {
    let mut out = String::new();
    for section in Section::ALL {
        let of_section = |flag: &&&Flag| {
            flag.section == section
                && !matches!(flag.stand, Stand::Hidden)
                && flag.kind != Kind::Anything
        };
        let mut listed = flags().filter(|flag| of_section(&flag)).peekable();
        if listed.peek().is_some() {
            let _ = writeln!(out, "\n{}:", section.title());
        }
        for flag in listed {
            push_flag(&mut out, flag);
        }
    }
    out.push_str(
        "\nA flag that is not there yet or not served takes only its default, which asks for \
         nothing; any\nother value is refused.\n",
    );
    out
}

fn push_flag(out: &mut String, flag: &Flag) {
    let default = match flag.name {
        "data-dir" => "${name}.etcd",
        _ => flag.default,
    };
    // A String takes every write.
    let _ = writeln!(out, "  --{} '{default}'", flag.name);
    let _ = writeln!(out, "    {}", flag.help);
    let _ = match flag.stand {
        Stand::Pending(_) => writeln!(out, "    Not there yet."),
        Stand::Moot(why) => writeln!(out, "    No effect: {why}."),
        Stand::Refused(why) => writeln!(out, "    Not served: {why}."),
        _ => Ok(()),
    };
}
