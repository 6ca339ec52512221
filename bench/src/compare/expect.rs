//! What was promised of B against A, where A is etcd 3.7.1 and B is ringd.
//!
//! Most bounds are ratios, B's figure over A's, taken from the tables "It must show" of the issues
//! that laid the foundation and that completed the single member: the same machine, the same run,
//! values of 256 bytes, default flags and the same durability on both sides. Bounds of what a
//! disturbance may cost are on B's own figures, which are set against B's quiet times already.

use super::Case;
use crate::side_by_side::Bound::{AtLeast, AtMost, OwnAtMost};
use crate::side_by_side::{Expectation, expect};

/// All promises.
pub const EXPECTATIONS: &[Expectation<Case>] = &[
    expect(Case::Put100x10, "ops/s", AtLeast(5.0)),
    expect(Case::Put100x10, "server CPU us/op", AtMost(1.0 / 8.0)),
    expect(Case::Put100x10, "p99 us", AtMost(1.0 / 5.0)),
    expect(Case::Put8x8, "server CPU us/op", AtMost(1.0 / 5.0)),
    expect(Case::Put8x8, "p99 us", AtMost(1.0 / 4.0)),
    expect(Case::Put1x1, "p50 us", AtMost(0.75)),
    expect(Case::Put1x1, "server CPU us/op", AtMost(1.0 / 3.0)),
    expect(Case::Get8x8, "server CPU us/op", AtMost(1.0 / 8.0)),
    expect(Case::Range1000, "server CPU us/op", AtMost(1.0 / 8.0)),
    expect(Case::GetUnderPuts, "p99 us", AtMost(1.0 / 5.0)),
    expect(Case::Keys, "load s", AtMost(1.0 / 4.0)),
    expect(Case::Keys, "list keys/s", AtLeast(20.0)),
    expect(Case::Keys, "restart after load ms", AtMost(1.0 / 4.0)),
    expect(Case::Keys, "restart after rest ms", AtMost(1.0 / 10.0)),
    expect(Case::Keys, "anonymous MB", AtMost(1.0)),
    expect(Case::Keys, "data dir MB", AtMost(1.0)),
    expect(Case::TxnUpdate8x8, "server CPU us/op", AtMost(1.0 / 6.0)),
    expect(Case::WatchFanOut, "server CPU us/event", AtMost(1.0 / 4.0)),
    expect(Case::WatchFanOut, "put p99 us", AtMost(1.0 / 2.0)),
    expect(Case::KeepAlive, "server CPU us/op", AtMost(1.0 / 3.0)),
    expect(Case::Compaction, "disturbance s", AtMost(1.0 / 5.0)),
    expect(Case::Compaction, "p99 disturbed / quiet", OwnAtMost(1.3)),
    expect(Case::Snapshot, "p99 disturbed / quiet", OwnAtMost(1.5)),
    expect(Case::Defrag, "max beyond quiet ms", OwnAtMost(10.0)),
    expect(Case::LeaseExpiry, "p99 disturbed / quiet", OwnAtMost(1.3)),
    expect(Case::WatchCatchUp, "p99 disturbed / quiet", OwnAtMost(1.5)),
    expect(Case::WatchStopped, "p99 disturbed / quiet", OwnAtMost(1.5)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::Verdict;

    #[test]
    fn a_missing_figure_fails() {
        for expectation in EXPECTATIONS {
            if !matches!(expectation.bound, OwnAtMost(_)) {
                assert_eq!(expectation.judge(f64::NAN, 1.0), Verdict::Fail);
            }
            assert_eq!(expectation.judge(1.0, f64::NAN), Verdict::Fail);
        }
    }

    #[test]
    fn every_promise_names_a_figure_that_is_taken() {
        for expectation in EXPECTATIONS {
            let metrics = super::super::cases::metrics(expectation.case);
            assert!(metrics.contains(&expectation.metric), "{}", expectation.metric);
        }
    }
}
