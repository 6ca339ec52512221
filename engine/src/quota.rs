//! The quota: how much a store may hold before it refuses to grow. A policy, asked at admission.
//!
//! A quota is not a wall: it is compared with what the files hold before a command is admitted,
//! and what is admitted is applied. The costs are etcd's, so that clients are refused at the same
//! point: they are estimates and were never meant to be exact.

use crate::command::PutRef;

/// etcd's default.
pub const QUOTA_SIZE_BYTES_DEFAULT: u64 = 2 << 30;

/// What etcd adds for a record besides its bytes.
pub const RECORD_OVERHEAD_BYTES: u64 = 256;

/// What a lease may add, as etcd counts it.
pub const LEASE_COST_BYTES: u64 = 64;

/// The limit of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    size_bytes_max: Option<u64>,
}

impl Quota {
    /// A quota as the flag says it: zero means etcd's default, less than zero means none.
    #[must_use]
    pub fn from_flag(size_bytes: i64) -> Self {
        let size_bytes_max = match u64::try_from(size_bytes) {
            Ok(0) => Some(QUOTA_SIZE_BYTES_DEFAULT),
            Ok(size_bytes) => Some(size_bytes),
            Err(_) => None,
        };
        Self { size_bytes_max }
    }

    /// Whether a command of this cost may be added to a store of this size.
    #[must_use]
    pub fn admits(&self, size_bytes: u64, cost_bytes: u64) -> bool {
        self.size_bytes_max.is_none_or(|max| size_bytes.saturating_add(cost_bytes) < max)
    }

    /// The limit; `None` if there is none.
    #[must_use]
    pub fn size_bytes_max(&self) -> Option<u64> {
        self.size_bytes_max
    }
}

/// What a put may add.
#[must_use]
pub fn cost_of_put(put: &PutRef<'_>) -> u64 {
    RECORD_OVERHEAD_BYTES + (put.key.len() + put.value.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_costs_its_bytes_and_what_etcd_adds() {
        let put = PutRef { key: b"key", value: b"1", ..PutRef::default() };
        assert_eq!(cost_of_put(&put), 260);
    }

    #[test]
    fn the_limit_itself_is_refused() {
        let quota = Quota::from_flag(1000);
        assert!(quota.admits(700, 299));
        assert!(!quota.admits(700, 300));
        assert!(Quota::from_flag(-1).admits(u64::MAX, u64::MAX));
        assert_eq!(Quota::from_flag(0).size_bytes_max(), Some(2 << 30));
    }
}
