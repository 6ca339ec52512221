//! What was promised of B against A, where A is etcd 3.7.1 and B is ringd.
//!
//! The bounds are ratios, B's figure over A's, taken from the table "It must show" of the issue
//! that laid the foundation: the same machine, the same run, values of 256 bytes, default flags and
//! the same durability on both sides.
//!
//! Invariants:
//! - A figure that is missing on either side fails: what was not measured was not shown.

use super::Case;

/// One promise.
pub struct Expectation {
    /// The case.
    pub case: Case,
    /// The figure's name.
    pub metric: &'static str,
    bound: Bound,
}

/// The bound of a ratio.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

/// Whether a promise was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Pass,
    /// It was not, or nothing shows that it was.
    Fail,
}

const fn expect(case: Case, metric: &'static str, bound: Bound) -> Expectation {
    Expectation { case, metric, bound }
}

/// All promises.
pub const EXPECTATIONS: &[Expectation] = &[
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
];

impl Expectation {
    /// Judges two medians.
    pub fn judge(&self, a: f64, b: f64) -> Verdict {
        let ratio = b / a;
        let kept = match self.bound {
            AtLeast(bound) => ratio >= bound,
            AtMost(bound) => ratio <= bound,
        };
        if kept { Verdict::Pass } else { Verdict::Fail }
    }

    /// The bound for people.
    pub fn bound_text(&self) -> String {
        match self.bound {
            AtLeast(bound) => format!(">= {bound}x"),
            AtMost(bound) => format!("<= {bound:.3}x"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_figure_fails() {
        for expectation in EXPECTATIONS {
            assert_eq!(expectation.judge(f64::NAN, 1.0), Verdict::Fail);
            assert_eq!(expectation.judge(1.0, f64::NAN), Verdict::Fail);
        }
    }

    #[test]
    fn bounds_are_judged_on_the_right_side() {
        let faster = expect(Case::Put8x8, "ops/s", AtLeast(5.0));
        assert_eq!(faster.judge(10.0, 50.0), Verdict::Pass);
        assert_eq!(faster.judge(10.0, 49.0), Verdict::Fail);
        let cheaper = expect(Case::Put8x8, "p99 us", AtMost(0.25));
        assert_eq!(cheaper.judge(100.0, 25.0), Verdict::Pass);
        assert_eq!(cheaper.judge(100.0, 26.0), Verdict::Fail);
    }

    #[test]
    fn every_promise_names_a_figure_that_is_taken() {
        for expectation in EXPECTATIONS {
            let metrics = super::super::cases::metrics(expectation.case);
            assert!(metrics.contains(&expectation.metric), "{}", expectation.metric);
        }
    }
}
