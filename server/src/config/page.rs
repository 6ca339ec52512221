//! docs/flags.md: the table of flags as a page. A test holds the page up to date, and writes it
//! when `RINGD_WRITE_PAGES` is set.

use std::fmt::Write as _;

use super::features::{GATES, GateStand, Stage};
use super::flag::{FileKey, Flag, Kind, Section, Stand};
use super::flags;

const HEAD: &str = "\
# Flags

Every flag of etcd 3.7 and what ringd makes of it. This page is made from the table in
`server/src/config/table`; after a change there run

    RINGD_WRITE_PAGES=1 cargo test -p server --lib the_page_of_flags

**On the command line** a flag is written `--name value`, `--name=value` or with one dash. A switch
never takes the next word: `--name=false`.

**In the environment** it is `ETCD_NAME`, in capitals and with `_` for `-`. A variable beside its
flag is an error.

**In a file** (`--config-file`, YAML or JSON) it stands under its own name unless the table names
another place. A file replaces flags and environment: with it, all of them are ignored. Times are
whole numbers of nanoseconds there, lists are lists, and `yes`, `no`, `on`, `off`, `y` and `n` are
switches unless they are quoted.

A flag is *served*; or it has *no effect* here, because there is nothing it could steer, and a line
at start says so when it is set; or it is *refused* when it is set to anything but its default.
";

/// The page.
pub fn text() -> String {
    let mut out = String::from(HEAD);
    for section in Section::ALL {
        let listed = flags().filter(|flag| flag.section == section && is_shown(flag));
        let _ = writeln!(
            out,
            "\n## {}\n\n| Flag | Default | In a file | What for | |",
            section.title()
        );
        out.push_str("|---|---|---|---|---|\n");
        for flag in listed {
            push_flag(&mut out, flag);
        }
    }
    push_gates(&mut out);
    push_legacy(&mut out);
    out
}

fn is_shown(flag: &Flag) -> bool {
    !matches!(flag.stand, Stand::Hidden) && flag.kind != Kind::Anything
}

fn push_flag(out: &mut String, flag: &Flag) {
    let default = match (flag.name, flag.default) {
        ("data-dir", _) => "`${name}.etcd`".to_owned(),
        (_, "") => String::new(),
        (_, default) => format!("`{}`", default.replace('|', "\\|")),
    };
    let place = match flag.file_key {
        FileKey::Name => String::new(),
        FileKey::Path(keys) => format!("`{}`", keys.join(".")),
        FileKey::Nowhere => "not there".to_owned(),
    };
    let stand = match flag.stand {
        Stand::Served | Stand::Special => String::new(),
        Stand::Pending(_) => "Refused: not there yet.".to_owned(),
        Stand::Moot(why) => format!("No effect: {why}."),
        Stand::Refused(why) => format!("Refused: {why}."),
        Stand::Ignored(_) => "No effect.".to_owned(),
        Stand::Hidden => unreachable!("hidden flags are not shown"),
    };
    // A String takes every write.
    let help = flag.help.replace('|', "\\|");
    let _ = writeln!(out, "| `--{}` | {default} | {place} | {help} | {stand} |", flag.name);
}

fn push_gates(out: &mut String) {
    out.push_str("\n## Feature gates\n\nSet by `--feature-gates A=true,B=false`.\n\n");
    out.push_str("| Gate | Stage | Default | |\n|---|---|---|---|\n");
    for gate in GATES {
        let stage = match gate.stage {
            Stage::Alpha => "alpha",
            Stage::Beta => "beta",
        };
        let stand = match gate.stand {
            GateStand::Served => String::new(),
            GateStand::Moot(why) => format!("No effect: {why}."),
        };
        let _ = writeln!(out, "| `{}` | {stage} | {} | {stand} |", gate.name, gate.default);
    }
}

fn push_legacy(out: &mut String) {
    out.push_str("\n## Names of old versions\n\nTaken and ignored with a warning, as in etcd: ");
    let names: Vec<String> = flags()
        .filter(|flag| flag.kind == Kind::Anything)
        .map(|flag| format!("`--{}`", flag.name))
        .collect();
    let _ = writeln!(out, "{}.", names.join(", "));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_page_of_flags_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flags.md");
        if std::env::var_os("RINGD_WRITE_PAGES").is_some() {
            std::fs::write(&path, super::text()).unwrap();
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(page == super::text(), "docs/flags.md is not what the table says; see its head");
    }
}
