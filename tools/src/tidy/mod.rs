//! House rules that a program can check: the rest is for readers.
//!
//! One pass over the tree, no compiler: a small lexer blanks comments and literals, and the rules
//! look at what is left. That is enough because the rules are about shape, not about meaning, and
//! it keeps the check fast enough to be a test like any other.
//!
//! Invariants:
//! - Every finding names a file and a line.
//! - Code under `#[cfg(test)]`, in `tests` directories and in files declared by a test-only `mod`
//!   is test code; rules say whether they mean it.
//! - A rule has a sample that breaks it among the tests, so none can fall silent.

mod imports;
mod lexer;
mod manifest;
mod source;
mod style;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use source::SourceFile;

/// Something out of order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the tree's root.
    pub path: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A text file of the tree.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// From the tree's root, parted by `/`.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// What is built or fetched, and version control's own.
const DIRECTORIES_SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];
/// What is text and written by hand.
const EXTENSIONS: [&str; 9] = ["rs", "toml", "md", "proto", "sh", "go", "mod", "yml", "yaml"];
/// Written by hand, without an extension.
const NAMES: [&str; 2] = ["run", "Procfile"];

/// Checks every text file below `root`.
///
/// # Errors
/// When a directory or a file cannot be read.
pub fn check_tree(root: &Path) -> io::Result<Vec<Finding>> {
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    Ok(check_files(&files))
}

/// Checks files that are already read.
pub fn check_files(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let test_modules = source::test_modules(files);
    for file in files {
        style::check_text(file, &mut findings);
        if file.path.ends_with("Cargo.toml") {
            manifest::check(file, &mut findings);
        }
        if file.path.ends_with(".rs") {
            let source = SourceFile::new(file, &test_modules);
            style::check_source(&source, &mut findings);
            imports::check(&source, &mut findings);
        }
    }
    findings.sort();
    findings
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<TextFile>) -> io::Result<()> {
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        entries.push(entry?.path());
    }
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !DIRECTORIES_SKIPPED.contains(&name.as_str()) {
                collect(root, &path, files)?;
            }
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        if !EXTENSIONS.contains(&&*extension) && !NAMES.contains(&name.as_str()) {
            continue;
        }
        // Another program may be saving the file right now; what is gone needs no check.
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let relative = path.strip_prefix(root).expect("the walk starts at the root");
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        files.push(TextFile { path: parts.join("/"), text });
    }
    Ok(())
}

/// What the tests of the rules share.
#[cfg(test)]
mod samples {
    use super::*;

    /// The findings about a tree of these files, as `path:line: what`.
    pub fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<TextFile> = files
            .iter()
            .map(|(path, text)| TextFile { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        check_files(&files).iter().map(Finding::to_string).collect()
    }

    /// The same for one file, with a header before it, so that only the sample's own faults show.
    /// Lines count from 1 after the header.
    pub fn findings_in(path: &str, text: &str) -> Vec<String> {
        let with_header = format!("//! Sample.\n{text}");
        let files = [TextFile { path: path.to_owned(), text: with_header }];
        check_files(&files).iter().map(|f| format!("{}: {}", f.line - 1, f.what)).collect()
    }
}
