//! The tree obeys the house style.

use std::fmt::Write as _;
use std::path::Path;

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let findings = tools::tidy::check_tree(&root).expect("the tree can be read");
    let mut listing = String::new();
    for finding in &findings {
        writeln!(listing, "{finding}").expect("a String takes every write");
    }
    assert!(findings.is_empty(), "{} findings:\n{listing}", findings.len());
}
