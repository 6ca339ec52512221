//! Which core plays which roles.
//!
//! On up to three cores all roles share executors: the log, the shard and a front-end on the first,
//! further front-ends on the others, because a hop to a parked core costs 20-60 us, as much as half
//! a sync. From four cores the log (with its shard) has a core of its own and the others are
//! front-ends. The affinity mask and the cgroup's CPU quota bound the cores that count.

use std::io;

/// The most cores that executors are started on: beyond it front-ends outnumber what one log core
/// can feed.
pub const CORES_MAX: usize = 64;

/// What the user asked for with `--placement`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementRequest {
    /// As many cores as the machine lends us, pinned when we have it to ourselves.
    Auto,
    /// As `Auto`, but never pinned: members that share a machine leave the choice to the kernel.
    Unpinned,
    /// Exactly these processors, pinned; the first one gets the log.
    Cores(Vec<usize>),
}

impl std::str::FromStr for PlacementRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "unpinned" => Ok(Self::Unpinned),
            list => {
                let cores = parse_cpu_list(list)
                    .ok_or_else(|| format!("want auto, unpinned or a list like 0-3,8: {list:?}"))?;
                Ok(Self::Cores(cores))
            }
        }
    }
}

/// One executor to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorePlan {
    /// The processor to pin to.
    pub processor: Option<usize>,
    /// Whether the log and the shard live here.
    pub log: bool,
    /// Whether a front-end lives here.
    pub frontend: bool,
}

/// Decides on the executors, given the processors we may run on and how many of them a CPU quota
/// lets us use.
#[must_use]
pub fn plan(request: &PlacementRequest, allowed: &[usize], quota: Option<usize>) -> Vec<CorePlan> {
    assert!(!allowed.is_empty(), "a running process may run somewhere");
    let (processors, pinned) = match request {
        PlacementRequest::Cores(cores) => (cores.as_slice(), true),
        PlacementRequest::Auto | PlacementRequest::Unpinned => (allowed, false),
    };
    let usable = quota.map_or(processors.len(), |quota| quota.max(1).min(processors.len()));
    let shared = usable < 4;
    processors
        .iter()
        .take(usable.min(CORES_MAX))
        .enumerate()
        .map(|(place, &processor)| CorePlan {
            processor: pinned.then_some(processor),
            log: place == 0,
            frontend: shared || place > 0,
        })
        .collect()
}

/// The processors that the affinity mask allows.
///
/// # Errors
/// The system's.
pub fn allowed_processors() -> io::Result<Vec<usize>> {
    // SAFETY: all zero is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the set is writable and of the size given.
    let result = unsafe { libc::sched_getaffinity(0, size, &raw mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let all = 0..usize::try_from(libc::CPU_SETSIZE).expect("a positive constant");
    // SAFETY: the index is below CPU_SETSIZE.
    Ok(all.filter(|&processor| unsafe { libc::CPU_ISSET(processor, &set) }).collect())
}

/// Whole processors' worth of the cgroup's CPU quota, rounded up; `None` without one.
#[must_use]
pub fn quota_processors() -> Option<usize> {
    let group = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = group.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/cpu.max")).ok()?;
    parse_quota(&limit)
}

fn parse_quota(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period))
}

fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last >= 4096 {
            return None;
        }
        cores.extend(first..=last);
    }
    let mut seen = std::collections::HashSet::new();
    cores.iter().all(|core| seen.insert(*core)).then_some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_shares_and_a_large_one_gives_the_log_its_core() {
        let two = plan(&PlacementRequest::Auto, &[4, 5], None);
        assert_eq!(two.len(), 2);
        assert!(two[0].log && two[0].frontend && !two[1].log && two[1].frontend);
        let eight = plan(&PlacementRequest::Auto, &[0, 1, 2, 3, 4, 5, 6, 7], None);
        assert!(eight[0].log && !eight[0].frontend);
        assert_eq!(eight.iter().filter(|core| core.frontend).count(), 7);
    }

    #[test]
    fn a_quota_bounds_the_cores() {
        assert_eq!(plan(&PlacementRequest::Auto, &[0, 1, 2, 3], Some(2)).len(), 2);
        assert_eq!(parse_quota("150000 100000\n"), Some(2));
        assert_eq!(parse_quota("max 100000\n"), None);
    }

    #[test]
    fn named_processors_are_pinned_in_their_order() {
        let request: PlacementRequest = "6,2-3".parse().unwrap();
        let cores = plan(&request, &[0, 1], None);
        let processors: Vec<_> = cores.iter().map(|core| core.processor).collect();
        assert_eq!(processors, [Some(6), Some(2), Some(3)]);
        assert!("3-1".parse::<PlacementRequest>().is_err());
        assert!("1,1".parse::<PlacementRequest>().is_err());
        assert!("pinned".parse::<PlacementRequest>().is_err());
    }
}
