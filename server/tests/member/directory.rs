//! A directory for a test, and what lies in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// A directory that is gone when the test is over.
pub struct Directory(PathBuf);

impl Directory {
    /// A new, empty one. `name` only helps whoever finds it.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringd-{name}-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What can be seen of a file or directory from outside. Access times are left out: the kernel
/// may or may not keep them.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    modified: SystemTime,
    permissions: fs::Permissions,
    /// `None` for a directory.
    content: Option<Vec<u8>>,
}

/// Everything below a path.
pub fn seen(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let content = metadata.is_file().then(|| fs::read(&path).unwrap());
        let (modified, permissions) = (metadata.modified().unwrap(), metadata.permissions());
        found.insert(path, Seen { modified, permissions, content });
    }
    found
}

/// Asserts that two looks saw the same, naming what differs instead of showing its bytes.
pub fn assert_untouched(before: &BTreeMap<PathBuf, Seen>, after: &BTreeMap<PathBuf, Seen>) {
    let names = |map: &BTreeMap<PathBuf, Seen>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after), "files came or went");
    for (path, seen) in before {
        assert!(after[path] == *seen, "{} was changed", path.display());
    }
}
