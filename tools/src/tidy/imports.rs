//! Imports point one way: who may use whom, and who may have effects.
//!
//! The table is the architecture. A module that is not in it is a finding, too: whoever adds one
//! decides here what it may see. Tests may use what they like.

use super::Finding;
use super::lexer::{is_word, word_end};
use super::source::SourceFile;

/// What a part of the tree may use.
struct Rule {
    /// Its files begin with this.
    place: &'static str,
    /// Modules of its own crate; itself is always allowed. `None` for everything.
    may_use: Option<&'static [&'static str]>,
    /// Crates of this repository; Cargo allows some of these, the design may not.
    crates: &'static [&'static str],
    /// Whether it only decides: no clock, socket, file, thread, lock or `async`.
    is_pure: bool,
}

/// What every driver may use: the log, its macro, which stands at the crate's root, and its lines.
const LOG: [&str; 3] = ["log", "log_event", "log_lines"];

/// The first rule whose place fits counts: the narrower come first.
const RULES: &[Rule] = &[
    pure("wal/src/", None, &[]),
    Rule { place: "engine/src/page/", may_use: None, crates: &[], is_pure: false },
    pure("engine/src/", None, &[]),
    pure("server/src/frontend/http2", Some(&[]), &[]),
    pure("server/src/frontend/grpc", Some(&["frontend::http2", "metrics"]), &[]),
    pure("server/src/frontend/http1", Some(&[]), &[]),
    pure(
        "server/src/frontend/gateway",
        Some(&["frontend::http1", "frontend::http2", "frontend::grpc"]),
        &[],
    ),
    // `frontend::grpc` for the codes and texts of an answer only.
    pure("server/src/service", Some(&["mail", "limits", "frontend::grpc"]), &["engine"]),
    pure("server/src/sequencer", Some(&["mail", "limits"]), &["engine"]),
    pure("server/src/raft", Some(&["mail", "limits"]), &["engine", "wal"]),
    // raft-rs' messages only; raft as we drive it is the owner's.
    pure("server/src/peer", Some(&[]), &["engine"]),
    pure("server/src/mail", Some(&["limits"]), &["engine"]),
    pure("server/src/limits", Some(&[]), &[]),
    drives("server/src/frontend", &["runtime", "service", "mail", "limits", "metrics", "config"]),
    drives("server/src/runtime", &["limits", "config"]),
    drives("server/src/metrics", &["limits"]),
    drives("server/src/config", &[]),
    pure("server/src/bootstrap/addresses", Some(&["config"]), &[]),
    pure("server/src/bootstrap/cluster", Some(&["config", "bootstrap::addresses"]), &["engine"]),
    pure("server/src/bootstrap/json", Some(&[]), &[]),
    pure("server/src/bootstrap/discovery/dns", Some(&[]), &[]),
    pure("server/src/bootstrap/discovery/grpc_call", Some(&["frontend::http2"]), &[]),
    pure(
        "server/src/bootstrap/discovery/service",
        Some(&["bootstrap::cluster", "bootstrap::discovery"]),
        &["engine"],
    ),
    pure(
        "server/src/bootstrap/discovery/srv",
        Some(&["config", "bootstrap::addresses", "bootstrap::discovery"]),
        &[],
    ),
    // Of HTTP/2 its frames and header blocks, for one call at a start; of the service its messages.
    drives("server/src/bootstrap", &["config", "frontend::http2", "service::proto"]),
    drives("server/src/log_lines", &["config", "frontend::gateway", "peer"]),
    // The log below everything knows nobody.
    Rule { place: "server/src/log", may_use: Some(&[]), crates: &[], is_pure: false },
    Rule { place: "server/src/node", may_use: None, crates: &["engine", "wal"], is_pure: false },
    // What ringutl is made of: it opens stores as a start does, and reads etcd's files.
    Rule {
        place: "server/src/interchange",
        may_use: None,
        crates: &["engine", "wal"],
        is_pure: false,
    },
    Rule { place: "server/src/lib.rs", may_use: None, crates: &[], is_pure: false },
    Rule { place: "server/src/main.rs", may_use: None, crates: &["server"], is_pure: false },
    Rule { place: "bench/src/", may_use: None, crates: &[], is_pure: false },
];

const fn pure(
    place: &'static str,
    may_use: Option<&'static [&'static str]>,
    crates: &'static [&'static str],
) -> Rule {
    Rule { place, may_use, crates, is_pure: true }
}

const fn drives(place: &'static str, may_use: &'static [&'static str]) -> Rule {
    Rule { place, may_use: Some(may_use), crates: &["engine", "wal"], is_pure: false }
}

const CRATES: [&str; 5] = ["engine", "wal", "server", "bench", "tools"];

/// What only drivers may name.
const EFFECTS: [&str; 13] = [
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::fs",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::time::SystemTime",
    "io_uring",
    "glommio",
    "tokio",
    "libc",
];
/// A file that is opened and handed on is a value, and so is an address; what would open it, or
/// connect to it, is an effect.
const EFFECT_EXEMPT: &[&str] = &["std::fs::File", "std::net::IpAddr", "std::net::SocketAddr"];

/// Checks every path that a file names outside its tests.
pub fn check(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    let is_governed = RULES.iter().any(|rule| rule.place.starts_with(crate_of(file.path)))
        && file.path.contains("/src/");
    if !is_governed {
        return;
    }
    let Some(rule) = RULES.iter().find(|rule| covers(rule.place, file.path)) else {
        let what = "the import table (tools, tidy) does not know this module";
        findings.push(file.finding(0, what));
        return;
    };
    for path in paths(file) {
        if !file.is_test(path.at) {
            check_path(file, rule, &path, findings);
        }
    }
    if rule.is_pure {
        for word in ["async", "await"] {
            for at in file.words(word).into_iter().filter(|at| !file.is_test(*at)) {
                findings.push(file.finding(at, format!("`{word}` in a part that only decides")));
            }
        }
    }
}

fn check_path(file: &SourceFile<'_>, rule: &Rule, path: &Path, findings: &mut Vec<Finding>) {
    let first = path.segments[0].as_str();
    if first == "crate" {
        let Some(may_use) = rule.may_use else { return };
        let own = rule.place.split_once("/src/").map_or("", |(_, module)| module);
        let own = own.trim_end_matches(".rs").replace('/', "::");
        let target = path.segments[1..].join("::");
        let is_allowed = |prefix: &str| {
            target == prefix
                || target.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"))
        };
        let may_log = !rule.is_pure && LOG.into_iter().any(is_allowed);
        if !is_allowed(&own) && !may_log && !may_use.iter().any(|prefix| is_allowed(prefix)) {
            let what = format!("`{own}` may not use `crate::{target}`: imports point one way");
            findings.push(file.finding(path.at, what));
        }
        return;
    }
    if CRATES.contains(&first) && !rule.crates.contains(&first) && first != crate_of(file.path) {
        let what = format!("the crate `{first}` may not be used here: imports point one way");
        findings.push(file.finding(path.at, what));
    }
    if rule.is_pure {
        let whole = path.segments.join("::");
        let begins = |prefix: &&str| {
            whole == **prefix
                || whole.strip_prefix(*prefix).is_some_and(|rest| rest.starts_with("::"))
        };
        let is_clock = whole.ends_with("Instant::now");
        if (EFFECTS.iter().any(begins) || is_clock) && !EFFECT_EXEMPT.iter().any(begins) {
            let what = format!("`{whole}` is an effect, and this part only decides");
            findings.push(file.finding(path.at, what));
        }
    }
}

fn crate_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// `server/src/log` covers `log.rs` and `log/`, but not `log_lines.rs`.
fn covers(place: &str, path: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| place.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '.']))
}

/// A path in code, from the crate's root where it is relative.
#[derive(Debug, PartialEq, Eq)]
struct Path {
    at: usize,
    segments: Vec<String>,
}

/// Every path of two segments and more, and every path that is imported.
fn paths(file: &SourceFile<'_>) -> Vec<Path> {
    let code = &file.code;
    let bytes = code.as_bytes();
    let mut paths = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let end = word_end(bytes, at);
        if &code[at..end] == "use" {
            let stop = code[end..].find(';').map_or(code.len(), |len| end + len);
            let mut leaves = Vec::new();
            expand(&code[end..stop], end, &[], &mut leaves);
            paths.extend(leaves);
            at = stop;
            continue;
        }
        let (segments, stop) = inline_path(code, at);
        if segments.len() > 1 {
            paths.push(Path { at, segments });
        }
        at = stop;
    }
    let module = module_of(file.path);
    for path in &mut paths {
        path.segments = from_root(std::mem::take(&mut path.segments), &module);
    }
    paths
}

/// `a::b::c`, without what stands in angle brackets.
fn inline_path(code: &str, start: usize) -> (Vec<String>, usize) {
    let bytes = code.as_bytes();
    let mut segments = Vec::new();
    let mut at = start;
    loop {
        let end = word_end(bytes, at);
        segments.push(code[at..end].to_owned());
        at = end;
        let next = end + 2;
        if !code[end..].starts_with("::") || !bytes.get(next).is_some_and(|byte| is_word(*byte)) {
            return (segments, at);
        }
        at = next;
    }
}

/// The leaves of a `use` tree.
fn expand(tree: &str, at: usize, prefix: &[String], leaves: &mut Vec<Path>) {
    let start = at + (tree.len() - tree.trim_start().len());
    let tree = tree.trim();
    let (head, inner) = match tree.split_once('{') {
        Some((head, rest)) => (head, Some(rest.rsplit_once('}').map_or(rest, |(inner, _)| inner))),
        None => (tree, None),
    };
    let head = head.split(" as ").next().unwrap_or(head);
    let named = head.split("::").map(str::trim).filter(|part| !part.is_empty());
    let mut segments = prefix.to_vec();
    segments.extend(named.filter(|part| *part != "*").map(str::to_owned));
    let Some(inner) = inner else {
        // `self` behind a prefix is the prefix; before one, it is this module.
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        if !segments.is_empty() {
            leaves.push(Path { at: start, segments });
        }
        return;
    };
    let inner_at = start + tree.find('{').map_or(0, |open| open + 1);
    let mut depth = 0_i32;
    let mut part_start = 0;
    for (offset, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = &inner[part_start..offset];
                if !part.trim().is_empty() {
                    expand(part, inner_at + part_start, &segments, leaves);
                }
                part_start = offset + 1;
            }
            _ => {}
        }
    }
}

/// The module that a file is, from its crate's root.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.split_once("/src/").map_or(path, |(_, inside)| inside);
    let stem = inside.strip_suffix(".rs").unwrap_or(inside);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if stem == "lib" || stem == "main" {
        return Vec::new();
    }
    stem.split('/').map(str::to_owned).collect()
}

/// `super::x` and `self::x` as `crate::...`; other paths as they are.
fn from_root(segments: Vec<String>, module: &[String]) -> Vec<String> {
    let ups = segments.iter().take_while(|segment| *segment == "super").count();
    let is_self = segments.first().is_some_and(|first| first == "self");
    if ups == 0 && !is_self {
        return segments;
    }
    let kept = module.len().saturating_sub(ups);
    let mut absolute = vec!["crate".to_owned()];
    absolute.extend_from_slice(&module[..kept]);
    absolute.extend(segments.into_iter().skip(if is_self { 1 } else { ups }));
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::TextFile;
    use crate::tidy::samples::findings_in;

    fn named(path: &str, text: &str) -> Vec<String> {
        let file = TextFile { path: path.to_owned(), text: text.to_owned() };
        let source = SourceFile::new(&file, &std::collections::BTreeSet::new());
        paths(&source).into_iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn paths_are_named_from_the_root() {
        let path = "server/src/raft/storage.rs";
        for (text, expected) in [
            ("use a::b;", &["a::b"][..]),
            ("use a::{b, c::{d, e as f}, self};", &["a::b", "a::c::d", "a::c::e", "a"]),
            ("use super::x;", &["crate::raft::x"]),
            ("use super::super::x::*;", &["crate::x"]),
            ("use super::{x, super::y};", &["crate::raft::x", "crate::y"]),
            ("use self::x;", &["crate::raft::storage::x"]),
            ("fn a() { std::mem::take(b) }", &["std::mem::take"]),
            ("fn a() { super::b() }", &["crate::raft::b"]),
            ("fn a() -> crate::c::D<e::F> { g }", &["crate::c::D", "e::F"]),
            ("// use a::b;\nconst A: &str = \"c::d\";", &[]),
        ] {
            assert_eq!(named(path, text), expected, "{text}");
        }
        assert_eq!(named("server/src/raft/mod.rs", "use super::x;"), ["crate::x"]);
        assert_eq!(named("server/src/lib.rs", "use self::x;"), ["crate::x"]);
    }

    #[test]
    fn stages_do_not_see_each_other() {
        for (path, text, target) in [
            ("server/src/sequencer/batch.rs", "use crate::runtime::Ring;\n", "runtime::Ring"),
            ("server/src/service/kv.rs", "use super::super::raft::A;\n", "raft::A"),
            ("server/src/runtime/files.rs", "use crate::{node::A};\n", "node::A"),
            (
                "server/src/frontend/http2/flow.rs",
                "use super::super::grpc::A;\n",
                "frontend::grpc::A",
            ),
            ("server/src/raft/mod.rs", "fn a() { crate::log::write() }\n", "log::write"),
            ("server/src/log.rs", "use crate::config::A;\n", "config::A"),
        ] {
            let found = findings_in(path, text);
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert!(found[0].contains(&format!("may not use `crate::{target}`")), "{found:?}");
        }
        for (path, text) in [
            ("server/src/sequencer/batch.rs", "use super::number::A;\nuse crate::mail::B;\n"),
            ("server/src/node/log_core.rs", "use crate::raft::A;\nuse crate::sequencer::B;\n"),
            ("server/src/bootstrap/mod.rs", "use crate::log_event;\nuse crate::config::B;\n"),
            ("server/src/sequencer/a.rs", "#[cfg(test)]\nmod t { use crate::runtime::Ring; }\n"),
        ] {
            assert_eq!(findings_in(path, text), [""; 0], "{path}");
        }
    }

    #[test]
    fn crates_do_not_see_each_other() {
        for (path, text) in [
            ("wal/src/writer.rs", "use engine::Revision;\n"),
            ("engine/src/view.rs", "fn a(b: wal::Lsn) {}\n"),
            ("bench/src/main.rs", "use server::config;\n"),
            ("server/src/sequencer/batch.rs", "use wal::Lsn;\n"),
        ] {
            let found = findings_in(path, text);
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert!(found[0].contains("imports point one way"), "{found:?}");
        }
        assert_eq!(findings_in("server/src/raft/mod.rs", "use wal::Lsn;\n"), [""; 0]);
    }

    #[test]
    fn what_decides_has_no_effects() {
        for text in [
            "use std::net::TcpStream;\n",
            "use std::{fmt, thread};\n",
            "fn a() { let b = std::time::Instant::now(); }\n",
            "fn a() { let b = Instant::now(); }\n",
            "use io_uring::IoUring;\n",
            "use std::fs;\n",
            "async fn a() {}\n",
        ] {
            for path in ["wal/src/writer.rs", "engine/src/view.rs", "server/src/service/kv.rs"] {
                assert_eq!(findings_in(path, text).len(), 1, "{path}: {text}");
            }
            for path in ["engine/src/page/map.rs", "server/src/runtime/files.rs"] {
                assert_eq!(findings_in(path, text), [""; 0], "{path}: {text}");
            }
        }
        assert_eq!(findings_in("engine/src/engine.rs", "fn a(b: std::fs::File) {}\n"), [""; 0]);
    }

    #[test]
    fn unknown_modules_are_found() {
        let found = findings_in("server/src/surprise.rs", "");
        assert_eq!(found, ["0: the import table (tools, tidy) does not know this module"]);
    }
}
