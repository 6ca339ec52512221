//! A Rust file as the rules see it: blanked code, lines, and which of them are tests.

use std::collections::BTreeSet;
use std::ops::Range;

use super::lexer::{blank, is_word, word_end};
use super::{Finding, TextFile};

/// A Rust file.
#[derive(Debug)]
pub struct SourceFile<'a> {
    /// From the tree's root.
    pub path: &'a str,
    /// As written.
    pub text: &'a str,
    /// With comments and literals blanked; the same length.
    pub code: String,
    line_starts: Vec<usize>,
    /// Byte ranges of test code.
    tests: Vec<Range<usize>>,
}

impl<'a> SourceFile<'a> {
    /// Reads a file; `test_modules` are the files that test-only declarations name.
    pub fn new(file: &'a TextFile, test_modules: &BTreeSet<String>) -> Self {
        let code = blank(&file.text);
        let newlines = file.text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        let tests = if is_test_file(&file.path, test_modules) || code.contains("#![cfg(test)]") {
            std::iter::once(0..code.len()).collect()
        } else {
            test_items(&code).into_iter().map(|item| item.range).collect()
        };
        Self { path: &file.path, text: &file.text, code, line_starts, tests }
    }

    /// The line of a byte, counted from 1.
    pub fn line_of(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// Whether a byte is test code.
    pub fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&at))
    }

    /// How many lines are not test code.
    pub fn lines_outside_tests(&self) -> usize {
        let lines = self.text.lines().count();
        let starts = self.line_starts.iter().take(lines);
        starts.filter(|start| !self.is_test(**start)).count()
    }

    /// A finding at a byte.
    pub fn finding(&self, at: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.to_owned(), line: self.line_of(at), what: what.into() }
    }

    /// Every place of a word, as a whole word, in code.
    pub fn words(&self, word: &str) -> Vec<usize> {
        let bytes = self.code.as_bytes();
        let is_whole = |at: &usize| {
            let before = at.checked_sub(1).is_none_or(|before| !is_word(bytes[before]));
            before && word_end(bytes, *at) == at + word.len()
        };
        self.code.match_indices(word).map(|(at, _)| at).filter(is_whole).collect()
    }

    /// Every function with a body: where its name is, and its body between the braces.
    pub fn functions(&self) -> Vec<(usize, Range<usize>)> {
        let bytes = self.code.as_bytes();
        let mut functions = Vec::new();
        for at in self.words("fn") {
            let name = at + 3;
            // What has no name here is a type or a macro's pattern.
            if !bytes.get(name).is_some_and(|byte| is_word(*byte)) {
                continue;
            }
            if let ItemEnd::Block(body) = item_end(&self.code, name) {
                functions.push((name, body));
            }
        }
        functions
    }
}

/// Files that only tests are built from, whatever is in them.
fn is_test_file(path: &str, test_modules: &BTreeSet<String>) -> bool {
    let in_directory = |name: &str| path.split('/').rev().skip(1).any(|part| part == name);
    if in_directory("tests") || path.ends_with("/tests.rs") {
        return true;
    }
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    test_modules.iter().any(|module| {
        stem == module || stem.strip_prefix(module.as_str()).is_some_and(|r| r.starts_with('/'))
    })
}

/// The modules that are declared for tests only, as paths without `.rs`.
pub fn test_modules(files: &[TextFile]) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let Some((directory, name)) = file.path.rsplit_once('/') else { continue };
        let base = match name {
            "mod.rs" | "lib.rs" | "main.rs" => directory.to_owned(),
            _ => file.path.trim_end_matches(".rs").to_owned(),
        };
        let code = blank(&file.text);
        for item in test_items(&code) {
            if let Some(module) = item.declares {
                modules.insert(format!("{base}/{module}"));
            }
        }
    }
    modules
}

struct TestItem {
    range: Range<usize>,
    /// The module of another file, if that is what the item is.
    declares: Option<String>,
}

/// The items that carry a test attribute.
fn test_items(code: &str) -> Vec<TestItem> {
    let bytes = code.as_bytes();
    let mut items = Vec::new();
    let mut covered = 0;
    for (start, _) in code.match_indices("#[") {
        let attribute = closing(bytes, start + 1);
        if start < covered || !is_test_attribute(&code[start + 2..attribute.inside_end]) {
            continue;
        }
        let mut at = attribute.end;
        // More attributes may stand between.
        loop {
            at += code[at..].len() - code[at..].trim_start().len();
            if !code[at..].starts_with("#[") {
                break;
            }
            at = closing(bytes, at + 1).end;
        }
        let (end, declares) = match item_end(code, at) {
            ItemEnd::Block(body) => ((body.end + 1).min(code.len()), None),
            ItemEnd::Semicolon(end) => (end, declared_module(&code[at..end])),
        };
        covered = end;
        items.push(TestItem { range: start..end, declares });
    }
    items
}

/// `test`, `cfg(test)` and what is built for tests among others; not what tests exclude.
fn is_test_attribute(attribute: &str) -> bool {
    let attribute = attribute.trim();
    if attribute == "test" || attribute.ends_with("::test") {
        return true;
    }
    let Some(condition) = attribute.strip_prefix("cfg(") else { return false };
    let names_test = condition
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|word| word == "test");
    names_test && !condition.contains("not(")
}

fn declared_module(item: &str) -> Option<String> {
    let mut words = item.trim_end_matches(';').split_whitespace();
    while let Some(word) = words.next() {
        if word == "mod" {
            return words.next().map(str::to_owned);
        }
    }
    None
}

enum ItemEnd {
    /// The inside of its braces.
    Block(Range<usize>),
    /// Behind its semicolon.
    Semicolon(usize),
}

/// Where an item ends that starts at `at`.
fn item_end(code: &str, mut at: usize) -> ItemEnd {
    let bytes = code.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' => at = closing(bytes, at).end,
            b';' => return ItemEnd::Semicolon(at + 1),
            b'{' => {
                let end = closing(bytes, at).inside_end;
                return ItemEnd::Block(at + 1..end.max(at + 1));
            }
            _ => at += 1,
        }
    }
    ItemEnd::Semicolon(bytes.len())
}

struct Closing {
    /// Where the closing bracket is.
    inside_end: usize,
    /// Behind it.
    end: usize,
}

/// The bracket that closes the one at `open`, or the end of the text where none does.
fn closing(bytes: &[u8], open: usize) -> Closing {
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Closing { inside_end: at, end: at + 1 };
                }
            }
            _ => {}
        }
    }
    Closing { inside_end: bytes.len(), end: bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_lines(path: &str, text: &str, declared: &[&str]) -> Vec<usize> {
        let file = TextFile { path: path.to_owned(), text: text.to_owned() };
        let declared = declared.iter().map(|module| (*module).to_owned()).collect();
        let source = SourceFile::new(&file, &declared);
        let lines = source.line_starts.iter().enumerate();
        lines.filter(|(_, at)| source.is_test(**at)).map(|(index, _)| index + 1).collect()
    }

    #[test]
    fn test_code_is_found_and_nothing_else() {
        for (text, expected) in [
            ("fn a() {}\n#[cfg(test)]\nmod tests {\n{}\n}\nfn b() {}\n", vec![2, 3, 4, 5]),
            (
                "#[cfg(test)]\n#[allow(x)]\nfn a(b: [u8; 3]) -> u8 {\n0\n}\nfn c() {}",
                vec![1, 2, 3, 4, 5],
            ),
            ("#[cfg(test)]\nuse a::{b};\nuse c;\n", vec![1, 2]),
            ("#[cfg(any(test, feature = \"sim\"))]\npub mod sim {}\n\n", vec![1, 2]),
            ("#[cfg(all(test, unix))]\nmod a;\nmod b;\n", vec![1, 2]),
            ("#[cfg(not(test))]\nmod a {}\n", vec![]),
            ("#[cfg(feature = \"test\")]\nmod a {}\n", vec![]),
            ("#[test]\nfn a() {\n}\nfn b() {}\n", vec![1, 2, 3]),
            ("// #[cfg(test)]\nfn a() {}\n", vec![]),
            ("#[derive(A)]\nstruct B;\n", vec![]),
            ("#![cfg(test)]\nfn a() {}\n", vec![1, 2]),
        ] {
            assert_eq!(test_lines("server/src/a.rs", text, &[]), expected, "{text}");
        }
    }

    #[test]
    fn test_files_are_test_code_throughout() {
        for path in ["wal/tests/a.rs", "wal/src/tests.rs", "wal/src/sim/disk.rs", "wal/src/sim.rs"]
        {
            assert_eq!(test_lines(path, "fn a() {}", &["wal/src/sim"]), [1], "{path}");
        }
        for path in ["wal/src/simulated.rs", "wal/src/latests.rs"] {
            assert_eq!(test_lines(path, "fn a() {}", &["wal/src/sim"]), [0; 0], "{path}");
        }
    }

    #[test]
    fn declarations_name_the_files_they_mean() {
        let file = |path: &str| TextFile {
            path: path.to_owned(),
            text: "#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod sim;\nmod real;"
                .to_owned(),
        };
        let modules = test_modules(&[file("wal/src/lib.rs"), file("wal/src/disk.rs")]);
        let expected = ["wal/src/disk/sim", "wal/src/disk/tests", "wal/src/sim", "wal/src/tests"];
        assert_eq!(modules.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn unbalanced_code_does_not_panic() {
        for text in
            ["#[cfg(test", "#[cfg(test)]", "fn a(", "fn a() {", "}}}} fn a()", "#[", "fn é() {"]
        {
            let file = TextFile { path: "a/src/b.rs".to_owned(), text: text.to_owned() };
            let source = SourceFile::new(&file, &BTreeSet::new());
            source.functions();
        }
    }
}
