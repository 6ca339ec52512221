//! Every dependency says why it is there.
//!
//! A comment covers the dependencies below it up to the next blank line. The crates of this
//! repository need none: the layout says why.

use super::{Finding, TextFile};

/// Crates of this repository.
const OWN: [&str; 6] = ["engine", "wal", "server", "bench", "tools", "benches"];

/// Checks the dependencies of one manifest.
pub fn check(file: &TextFile, findings: &mut Vec<Finding>) {
    let mut in_dependencies = false;
    let mut is_explained = false;
    let mut is_inside_list = false;
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') && !is_inside_list {
            // The workspace's table holds versions; the reasons stand beside each use.
            in_dependencies =
                line.contains("dependencies") && !line.starts_with("[workspace.dependencies");
            is_explained = false;
        } else if line.is_empty() {
            is_explained = false;
        } else if line.starts_with('#') {
            is_explained = true;
        } else if in_dependencies && !is_inside_list {
            let name: String = line.chars().take_while(|c| !"=. ".contains(*c)).collect();
            if !is_explained && !OWN.contains(&name.as_str()) {
                let what = format!("dependency `{name}` has no comment that says why it is there");
                findings.push(Finding { path: file.path.clone(), line: index + 1, what });
            }
        }
        if in_dependencies && !line.starts_with('#') {
            let opened = line.matches('[').count();
            let closed = line.matches(']').count();
            is_inside_list = match opened.cmp(&closed) {
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => is_inside_list,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tidy::samples::findings;

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let text = "[package]\nname = \"x\"\n\n[dependencies]\nwal.workspace = true\n\
                    # Why.\na = \"1\"\nb = { version = \"1\", features = [\n    \"c\",\n] }\n\n\
                    d = \"1\"\n\n[dev-dependencies]\ne.workspace = true\n\n[lib]\nf = 1\n";
        assert_eq!(
            findings(&[("server/Cargo.toml", text)]),
            [
                "server/Cargo.toml:12: dependency `d` has no comment that says why it is there",
                "server/Cargo.toml:15: dependency `e` has no comment that says why it is there",
            ]
        );
    }

    #[test]
    fn the_workspace_lists_versions_without_reasons() {
        let text = "[workspace.dependencies]\na = \"1\"\n";
        assert_eq!(findings(&[("Cargo.toml", text)]), [""; 0]);
    }
}
