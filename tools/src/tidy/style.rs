//! Rules that look at one file at a time: sizes, headers, words that do not belong.

use super::lexer::is_word;
use super::source::SourceFile;
use super::{Finding, TextFile};

/// As in rustfmt.toml.
const COLUMNS_MAX: usize = 100;
/// Lines of code in a function's body: blank lines and comments do not count.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 900;

/// Names that say nothing about what is in a file.
const NAMES_EMPTY: [&str; 7] = ["util", "utils", "common", "manager", "new", "helper", "helpers"];

/// Where `unsafe` may stand: effects, pages, aligned buffers, byte codecs, and what measures them.
const UNSAFE_ALLOWED: [&str; 6] = [
    "server/src/runtime/",
    "engine/src/page/",
    "engine/src/command/body.rs",
    "wal/src/disk.rs",
    "bench/",
    "benches/",
];

/// Words that mean unfinished work. Written apart, so that this file does not break its own rule.
const UNFINISHED: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X:")];
const MACROS_BANNED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Places of one machine that mean nothing on another.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tm", "p/")];

/// Rules for every text.
pub fn check_text(file: &TextFile, findings: &mut Vec<Finding>) {
    let is_code = [".rs", ".sh", ".go"].iter().any(|end| file.path.ends_with(end));
    for (index, line) in file.text.lines().enumerate() {
        let mut find = |what: String| {
            findings.push(Finding { path: file.path.clone(), line: index + 1, what });
        };
        // A link cannot be broken.
        if is_code && !line.contains("https://") {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                find(format!("{columns} columns; {COLUMNS_MAX} is the most"));
            }
        }
        for word in UNFINISHED {
            if line.contains(word) {
                find(format!("{word}: finish it before it is committed"));
            }
        }
        for path in MACHINE_PATHS {
            if line.contains(path) {
                find(format!("{path} is a place of one machine"));
            }
        }
        if line.ends_with([' ', '\t']) {
            find("blanks at the end of the line".to_owned());
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let (path, line) = (file.path.clone(), file.text.lines().count());
        findings.push(Finding { path, line, what: "no newline at the end".to_owned() });
    }
    let (stem, parents) = stem_and_parents(&file.path);
    if let Some(name) = NAMES_EMPTY.iter().find(|name| stem == **name || parents.contains(name)) {
        let what = format!("a file or directory named `{name}` says nothing about what is in it");
        findings.push(Finding { path: file.path.clone(), line: 1, what });
    }
}

fn stem_and_parents(path: &str) -> (&str, Vec<&str>) {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    (name.split('.').next().unwrap_or(name), parents.split('/').collect())
}

/// Rules for Rust.
pub fn check_source(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    if !file.text.starts_with("//!") {
        let what = "a file begins with a `//!` header: what it is for, and what is always true";
        findings.push(file.finding(0, what));
    }
    let lines = file.lines_outside_tests();
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines without tests; {FILE_LINES_MAX} is the most");
        findings.push(file.finding(0, what));
    }
    check_functions(file, findings);
    check_words(file, findings);
    check_attributes(file, findings);
}

/// Tests are exempt: their tables are data, and cutting a table in two helps nobody.
fn check_functions(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    for (at, body) in file.functions() {
        if file.is_test(at) {
            continue;
        }
        let lines = file.code[body].lines().filter(|line| !line.trim().is_empty()).count();
        if lines > FUNCTION_LINES_MAX {
            let what = format!("a function of {lines} lines; {FUNCTION_LINES_MAX} is the most");
            findings.push(file.finding(at, what));
        }
    }
}

fn check_words(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    let follows = |at: usize, text: &str| file.code[at..].starts_with(text);
    for name in MACROS_BANNED {
        for at in file.words(name) {
            if follows(at + name.len(), "!") {
                findings.push(file.finding(at, format!("`{name}!` is not finished work")));
            }
        }
    }
    for at in file.words("unwrap") {
        let is_call = at > 0 && file.code[..at].ends_with('.') && follows(at + 6, "()");
        if is_call && !file.is_test(at) {
            let what = "`unwrap()` outside tests: `expect(\"why it holds\")`";
            findings.push(file.finding(at, what));
        }
    }
    let may_be_unsafe = UNSAFE_ALLOWED.iter().any(|prefix| file.path.starts_with(prefix));
    for at in file.words("unsafe") {
        if !may_be_unsafe {
            let what = "`unsafe` belongs to runtime, the page layer and byte codecs";
            findings.push(file.finding(at, what));
        }
    }
    for word in ["sleep", "sleep_until", "sleep_ms"] {
        for at in file.words(word) {
            if file.is_test(at) && follows(at + word.len(), "(") {
                findings.push(file.finding(at, "a test that sleeps: wait for what should happen"));
            }
        }
    }
}

fn check_attributes(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    for at in file.words("ignore") {
        let before = file.code[..at].trim_end();
        let after = file.code.as_bytes().get(at + 6).copied().unwrap_or(b' ');
        if (before.ends_with("#[") || before.ends_with(',') && in_cfg_attr(before))
            && !is_word(after)
        {
            findings.push(file.finding(at, "an ignored test tests nothing"));
        }
    }
}

/// Miri cannot map files or wait for hours; what it leaves out still runs everywhere else.
fn in_cfg_attr(before: &str) -> bool {
    before.rfind("#[").is_some_and(|open| {
        let attribute = &before[open..];
        attribute.starts_with("#[cfg_attr(") && !attribute.starts_with("#[cfg_attr(miri,")
    })
}

#[cfg(test)]
mod tests {
    use crate::tidy::samples::{findings, findings_in};

    const PATH: &str = "server/src/node/sample.rs";

    #[test]
    fn long_lines_are_found_and_links_are_not() {
        let (fits, long) = ("x".repeat(97), "é".repeat(98));
        assert_eq!(findings_in(PATH, &format!("// {fits}\n")), [""; 0]);
        assert_eq!(findings_in(PATH, &format!("// {long}\n")), ["1: 101 columns; 100 is the most"]);
        assert_eq!(findings_in(PATH, &format!("// https://{long}\n")), [""; 0]);
    }

    #[test]
    fn blanks_and_missing_newlines_are_found() {
        assert_eq!(findings_in(PATH, "fn a() {} \n"), ["1: blanks at the end of the line"]);
        assert_eq!(findings_in(PATH, "fn a() {}"), ["1: no newline at the end"]);
    }

    #[test]
    fn unfinished_work_is_found() {
        let word = super::UNFINISHED[0];
        let expected = [format!("1: {word}: finish it before it is committed")];
        assert_eq!(findings_in(PATH, &format!("// {word} later\n")), expected);
        for name in super::MACROS_BANNED {
            let sample = format!("fn a() {{ {name}!() }}\n// {name}!\n");
            assert_eq!(findings_in(PATH, &sample), [format!("1: `{name}!` is not finished work")]);
        }
        assert_eq!(findings_in(PATH, "fn todo() {}\n"), [""; 0]);
    }

    #[test]
    fn machine_paths_are_found_in_any_text() {
        let path = super::MACHINE_PATHS[0];
        let found = findings(&[("README.md", &format!("see {path}x\n"))]);
        assert_eq!(found, [format!("README.md:1: {path} is a place of one machine")]);
    }

    #[test]
    fn empty_names_are_found() {
        let text = "//! Sample.\n";
        for path in ["wal/src/util.rs", "wal/src/common/disk.rs", "wal/tests/helpers.rs"] {
            let found = findings(&[(path, text)]);
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert!(found[0].contains("says nothing"), "{found:?}");
        }
        assert_eq!(findings(&[("wal/src/renewal.rs", text)]), [""; 0]);
    }

    #[test]
    fn a_missing_header_is_found() {
        let found = findings(&[(PATH, "// not a header\n")]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("server/src/node/sample.rs:1: a file begins with"),
            "{found:?}"
        );
    }

    #[test]
    fn long_functions_are_found_by_their_code() {
        let function = |lines: usize, between: &str| {
            format!("fn a() {{\n{}}}\n", format!("x();\n{between}").repeat(lines))
        };
        assert_eq!(findings_in(PATH, &function(70, "\n// why\n")), [""; 0]);
        let found = findings_in(PATH, &function(71, ""));
        assert_eq!(found, ["1: a function of 71 lines; 70 is the most"]);
        // A string's lines are lines, a test's are not.
        let string = format!("fn a() {{\nf(\"{}\")\n}}\n", "a\n".repeat(70));
        assert_eq!(findings_in(PATH, &string).len(), 1);
        assert_eq!(findings_in(PATH, &format!("#[test]\n{}", function(71, ""))), [""; 0]);
    }

    #[test]
    fn long_files_are_found_without_their_tests() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(500));
        assert_eq!(findings_in(PATH, &format!("{}{tests}", "\n".repeat(899))), [""; 0]);
        let found = findings_in(PATH, &format!("{}{tests}", "\n".repeat(900)));
        assert_eq!(found, ["0: 901 lines without tests; 900 is the most"]);
    }

    #[test]
    fn unwraps_are_found_outside_tests() {
        let found = findings_in(PATH, "fn a() { b.unwrap() }\nfn c() { d.unwrap_or(0) }\n");
        assert_eq!(found, ["1: `unwrap()` outside tests: `expect(\"why it holds\")`"]);
        assert_eq!(findings_in(PATH, "#[cfg(test)]\nmod t {\nfn a() { b.unwrap() }\n}\n"), [""; 0]);
        assert_eq!(findings_in("wal/tests/a.rs", "fn a() { b.unwrap() }\n"), [""; 0]);
        assert_eq!(findings_in(PATH, "// b.unwrap()\nconst A: &str = \".unwrap()\";\n"), [""; 0]);
    }

    #[test]
    fn unsafe_is_found_where_it_does_not_belong() {
        let sample = "fn a() {\n    unsafe { b() }\n}\n";
        let expected = ["2: `unsafe` belongs to runtime, the page layer and byte codecs"];
        for path in [PATH, "engine/src/tree/node.rs", "wal/src/writer.rs"] {
            assert_eq!(findings_in(path, sample), expected, "{path}");
        }
        for path in ["server/src/runtime/files.rs", "engine/src/page/map.rs", "wal/src/disk.rs"] {
            assert_eq!(findings_in(path, sample), [""; 0], "{path}");
        }
        assert_eq!(findings_in(PATH, "#![deny(unsafe_code)]\n// unsafe\n"), [""; 0]);
    }

    #[test]
    fn tests_that_sleep_or_are_ignored_are_found() {
        let sample = "fn a() { thread::sleep(b) }\n#[test]\nfn c() { std::thread::sleep(b) }\n";
        assert_eq!(
            findings_in(PATH, sample),
            ["3: a test that sleeps: wait for what should happen"]
        );
        for attribute in ["#[ignore]", "#[ignore = \"slow\"]", "#[cfg_attr(debug, ignore)]"] {
            let sample = format!("#[test]\n{attribute}\nfn a() {{}}\n");
            assert_eq!(findings_in(PATH, &sample), ["2: an ignored test tests nothing"]);
        }
        assert_eq!(
            findings_in(PATH, "fn a(b: u8, ignore: bool) {}\n#[ignored]\nfn b() {}\n"),
            [""; 0]
        );
        let under_miri = "#[test]\n#[cfg_attr(miri, ignore = \"maps a file\")]\nfn a() {}\n";
        assert_eq!(findings_in(PATH, under_miri), [""; 0]);
    }
}
