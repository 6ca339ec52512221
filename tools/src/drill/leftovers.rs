//! Removes what a drill left that was killed: members, namespaces, disks, control groups.
//!
//! Everything a drill makes is named after it and its process id. What belongs to a process that
//! lives is left alone.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::disk::{self, GROUP_PREFIX, GROUPS};
use super::network::NAMESPACE_PREFIX;
use super::shell::run_line;

/// What the directories of drills begin with.
pub const DIRECTORY_PREFIX: &str = "ringd-drill-";

/// Removes it all, where it can be. What cannot will be in nobody's way: names are not used twice.
pub fn remove(scratch: &Path) {
    for name in names("/run/netns".as_ref()) {
        if is_of_the_dead(&name, NAMESPACE_PREFIX) {
            end_processes(&name);
            let _ = run_line(&format!("ip netns del {name}"));
        }
    }
    for mount in mounts() {
        let of_the_dead = |part: &std::ffi::OsStr| {
            part.to_str().is_some_and(|name| is_of_the_dead(name, DIRECTORY_PREFIX))
        };
        if mount.iter().any(of_the_dead) {
            disk::remove(&mount);
        }
    }
    for groups in GROUPS {
        for name in names(groups.as_ref()) {
            if is_of_the_dead(&name, GROUP_PREFIX) {
                let _ = std::fs::remove_dir(Path::new(groups).join(name));
            }
        }
    }
    for name in names(scratch) {
        if is_of_the_dead(&name, DIRECTORY_PREFIX) {
            // Logs of a drill that failed stay: their directory says so.
            let directory = scratch.join(&name);
            if !directory.join(super::FAILED_FILE).exists() {
                let _ = std::fs::remove_dir_all(directory);
            }
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn mounts() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    table.lines().filter_map(|line| line.split_whitespace().nth(1)).map(PathBuf::from).collect()
}

/// Whether something is called after a drill that does not run any more.
fn is_of_the_dead(name: &str, prefix: &str) -> bool {
    let Some(pid) = maker_of(name, prefix) else { return false };
    !Path::new("/proc").join(pid.to_string()).exists()
}

fn maker_of(name: &str, prefix: &str) -> Option<u32> {
    let rest = name.strip_prefix(prefix)?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Members outlive a drill that is killed; nobody but them is in their namespaces.
fn end_processes(namespace: &str) {
    let listed = run_line(&format!("ip netns pids {namespace}")).unwrap_or_default();
    for pid in listed.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_who_made_it() {
        assert_eq!(maker_of("rdrill4711m2", NAMESPACE_PREFIX), Some(4711));
        assert_eq!(maker_of("ringd-drill-12", DIRECTORY_PREFIX), Some(12));
        assert_eq!(maker_of("ringd-drill-12-m1", GROUP_PREFIX), Some(12));
        assert_eq!(maker_of("rdrillm2", NAMESPACE_PREFIX), None);
        assert_eq!(maker_of("other", NAMESPACE_PREFIX), None);
        assert!(!is_of_the_dead(&format!("rdrill{}m1", std::process::id()), NAMESPACE_PREFIX));
    }
}
