//! Inputs drawn from a seed.
//!
//! Invariants:
//! - The same seed gives the same inputs on every machine, so that figures can be compared.

/// What the measurements store under each key.
pub const VALUE_SIZE_BYTES: usize = 256;

/// Seeded numbers.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Every seed gives its own sequence.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// A number below `bound`.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// A value of [`VALUE_SIZE_BYTES`] without pattern.
    pub fn value(&mut self) -> Vec<u8> {
        let mut value = Vec::with_capacity(VALUE_SIZE_BYTES);
        while value.len() < VALUE_SIZE_BYTES {
            value.extend_from_slice(&self.number().to_le_bytes());
        }
        value
    }
}

/// The prefix of all keys, up to which they have everything in common, as in Kubernetes.
pub const PODS: &str = "/registry/pods/";

/// The one pod of a namespace.
#[must_use]
pub fn pod(namespace: u64) -> Vec<u8> {
    format!("{PODS}namespace-{namespace:05}/web-0").into_bytes()
}

/// The range of all that is in a namespace: its first key, and the first one behind.
#[must_use]
pub fn pods_of(namespace: u64) -> (Vec<u8>, Vec<u8>) {
    let prefix = |last: char| format!("{PODS}namespace-{namespace:05}{last}").into_bytes();
    // '0' is the character behind '/'.
    (prefix('/'), prefix('0'))
}
