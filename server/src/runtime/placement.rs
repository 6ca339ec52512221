//! Which core plays which roles.
//!
//! On up to three cores all roles share executors: the log, the shard and a front-end on the first,
//! further front-ends on the others, because a hop to a parked core costs 20-60 us, as much as half
//! a sync. From four cores the log (with its shard) has a core of its own and the others are
//! front-ends. The affinity mask and the cgroup's CPU quota bound the cores that count.

use std::io;

use crate::config::Placement;

/// Below this many cores all roles share executors.
const SHARED_CORES_END: usize = 4;
/// The most cores that executors are started on: beyond it front-ends outnumber what one log core
/// can feed.
pub const CORES_MAX: usize = 64;

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
///
/// # Errors
/// A list that this version cannot follow.
pub fn plan(
    request: &Placement,
    allowed: &[usize],
    quota: Option<usize>,
) -> Result<Vec<CorePlan>, String> {
    assert!(!allowed.is_empty(), "a running process may run somewhere");
    match request {
        Placement::Auto => Ok(plan_auto(allowed, quota)),
        Placement::Cores { log, shards, frontends } => {
            plan_cores(usize::from(*log), shards, frontends, allowed)
        }
    }
}

/// Small machines are left to the kernel's scheduler: pinned, a core's loop would wait for whatever
/// else runs there while the other core idles. From four cores on they are pinned.
fn plan_auto(allowed: &[usize], quota: Option<usize>) -> Vec<CorePlan> {
    let usable = quota.map_or(allowed.len(), |quota| quota.max(1).min(allowed.len()));
    let shared = usable < SHARED_CORES_END;
    let pinned = !shared && usable == allowed.len();
    allowed
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

fn plan_cores(
    log: usize,
    shards: &[u16],
    frontends: &[u16],
    allowed: &[usize],
) -> Result<Vec<CorePlan>, String> {
    if shards.iter().any(|&shard| usize::from(shard) != log) {
        return Err("--placement: the shard runs on the log's core in this version".into());
    }
    let mut cores = vec![CorePlan { processor: Some(log), log: true, frontend: false }];
    for frontend in frontends.iter().map(|&core| usize::from(core)) {
        match cores.iter_mut().find(|core| core.processor == Some(frontend)) {
            Some(core) => core.frontend = true,
            None => cores.push(CorePlan { processor: Some(frontend), log: false, frontend: true }),
        }
    }
    let stranger = cores.iter().filter_map(|core| core.processor).find(|c| !allowed.contains(c));
    if let Some(core) = stranger {
        return Err(format!("--placement: core {core} is not among those we may run on"));
    }
    Ok(cores)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_shares_and_a_large_one_gives_the_log_its_core() {
        let two = plan(&Placement::Auto, &[4, 5], None).unwrap();
        assert_eq!(two.len(), 2);
        assert!(two[0].log && two[0].frontend && !two[1].log && two[1].frontend);
        assert_eq!(two[0].processor, None);
        let eight = plan(&Placement::Auto, &[0, 1, 2, 3, 4, 5, 6, 7], None).unwrap();
        assert!(eight[0].log && !eight[0].frontend);
        assert_eq!(eight.iter().filter(|core| core.frontend).count(), 7);
        assert_eq!(eight[3].processor, Some(3));
    }

    #[test]
    fn a_quota_bounds_the_cores() {
        assert_eq!(plan(&Placement::Auto, &[0, 1, 2, 3], Some(2)).unwrap().len(), 2);
        assert_eq!(parse_quota("150000 100000\n"), Some(2));
        assert_eq!(parse_quota("max 100000\n"), None);
    }

    #[test]
    fn named_cores_are_pinned_and_must_be_ours() {
        let request = Placement::Cores { log: 1, shards: vec![1], frontends: vec![1, 3] };
        let cores = plan(&request, &[0, 1, 2, 3], None).unwrap();
        let shared = CorePlan { processor: Some(1), log: true, frontend: true };
        let single = CorePlan { processor: Some(3), log: false, frontend: true };
        assert_eq!(cores, [shared, single]);
        assert!(plan(&request, &[0, 1], None).is_err());
        let apart = Placement::Cores { log: 1, shards: vec![2], frontends: vec![1] };
        assert!(plan(&apart, &[0, 1, 2], None).is_err());
    }
}
