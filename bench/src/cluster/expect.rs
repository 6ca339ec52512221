//! What was promised of a cluster of B against one of A, where A is etcd 3.7.1 and B is ringd:
//! three members each on the same machine, with the same election settings and the same durability.

use super::Case;
use crate::side_by_side::Bound::{AtLeast, AtMost, OwnAtMost};
use crate::side_by_side::{Expectation, expect};

/// All promises.
pub const EXPECTATIONS: &[Expectation<Case>] = &[
    expect(Case::Put1000, "ops/s", AtLeast(4.0)),
    expect(Case::Put1000, "server CPU us/op", AtMost(1.0 / 4.0)),
    expect(Case::Put1x1, "p50 us", AtMost(0.75)),
    expect(Case::GetUnderPuts, "p99 us", AtMost(1.0 / 5.0)),
    expect(Case::Failover, "first put ms", AtMost(1.0)),
    expect(Case::CatchUp, "catch-up s", AtMost(1.0 / 3.0)),
    expect(Case::CatchUp, "p99 disturbed / quiet", OwnAtMost(1.5)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promise_names_a_figure_that_is_taken() {
        for expectation in EXPECTATIONS {
            let metrics = super::super::cases::metrics(expectation.case);
            assert!(metrics.contains(&expectation.metric), "{}", expectation.metric);
        }
    }
}
