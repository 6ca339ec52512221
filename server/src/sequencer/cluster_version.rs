//! Which version the cluster speaks: the servers' own, unless it is being downgraded.
//!
//! Invariant: the version goes up to what every server speaks, or one minor back to a downgrade's
//! target, and nowhere else.

use std::time::Duration;

use engine::ClusterVersion;

/// How often the leader looks; etcd's interval.
const INTERVAL: Duration = Duration::from_secs(4);

/// The leader's watch over the cluster's version.
#[derive(Debug)]
pub struct VersionMonitor {
    /// What all servers speak.
    own: ClusterVersion,
    look_next: Duration,
    is_proposed: bool,
}

impl VersionMonitor {
    /// For servers of this version.
    #[must_use]
    pub fn new(own: ClusterVersion) -> Self {
        Self { own, look_next: Duration::ZERO, is_proposed: false }
    }

    /// Whether it is time to look.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.look_next && !self.is_proposed
    }

    /// What the leader found; answers with the version to propose.
    pub fn handle_look(
        &mut self,
        now: Duration,
        cluster: ClusterVersion,
        downgrade: Option<ClusterVersion>,
    ) -> Option<ClusterVersion> {
        self.look_next = now + INTERVAL;
        let own = self.own;
        let wanted = match downgrade {
            Some(target) if target == cluster => None,
            Some(target) if target == cluster.one_before() && target == own.one_before() => {
                Some(target)
            }
            Some(_) => None,
            None => Some(own).filter(|own| cluster < *own && cluster.major == own.major),
        };
        self.is_proposed = wanted.is_some();
        wanted
    }

    /// What was proposed has ended, one way or another.
    pub fn handle_outcome(&mut self) {
        self.is_proposed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_follows_a_downgrade_and_comes_back() {
        let version = |minor| ClusterVersion { major: 3, minor };
        let mut monitor = VersionMonitor::new(version(7));
        let mut now = Duration::ZERO;
        let table = [
            (7, None, None),
            (7, Some(6), Some(6)),
            (6, Some(6), None),
            (6, None, Some(7)),
            (5, None, Some(7)),
            // Nothing that could have been asked for.
            (7, Some(5), None),
            (6, Some(5), None),
            (8, None, None),
        ];
        for (cluster, downgrade, wanted) in table {
            assert!(monitor.is_due(now));
            let found = monitor.handle_look(now, version(cluster), downgrade.map(version));
            assert_eq!(found, wanted.map(version), "{cluster} {downgrade:?}");
            assert!(!monitor.is_due(now + INTERVAL / 2));
            now += INTERVAL;
            assert_eq!(monitor.is_due(now), wanted.is_none(), "one proposal at a time");
            monitor.handle_outcome();
        }
    }
}
