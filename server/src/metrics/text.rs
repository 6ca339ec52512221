//! Prometheus' text format 0.0.4, as its Go library writes it.
//!
//! Invariants:
//! - Families come out in the order of their names, each once and whole.
//! - Numbers are in the shortest form that reads back the same, with an exponent where Go's `%g`
//!   has one.

use std::io::Write;
use std::ops::Range;

use super::cell::DistributionCopy;

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
    /// Quantiles, sum and count.
    Summary,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// Labels with their values, in the order of the labels' names.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Families on their way.
#[derive(Debug, Default)]
pub struct Text {
    bytes: Vec<u8>,
    families: Vec<(&'static str, Range<usize>)>,
}

impl Text {
    /// Begins a family; the samples that follow are its.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let start = self.bytes.len();
        self.families.push((name, start..start));
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind.name(), "\n"] {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self.end_family();
        Family { text: self, name }
    }

    /// A family with a single sample.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }

    fn end_family(&mut self) {
        self.families.last_mut().expect("a family was begun").1.end = self.bytes.len();
    }

    /// Appends all families in order.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.families.sort_by_key(|family| family.0);
        assert!(self.families.windows(2).all(|pair| pair[0].0 != pair[1].0), "a family twice");
        out.reserve(self.bytes.len());
        for (_, range) in self.families {
            out.extend_from_slice(&self.bytes[range]);
        }
    }
}

/// The family being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Family<'_> {
    /// A sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: f64) {
        self.line("", labels, None, value);
    }

    /// A sample of a number that is whole.
    pub fn count(&mut self, labels: Labels<'_>, value: u64) {
        self.line("", labels, None, whole(value));
    }

    /// A histogram; `unit` is how many of the numbers observed make one of the unit told.
    pub fn distribution(&mut self, labels: Labels<'_>, seen: &DistributionCopy, unit: f64) {
        let mut below = 0;
        for (place, count) in seen.buckets.iter().enumerate() {
            below += count;
            let bound = if place < seen.bounds.count() {
                whole(seen.bounds.bound(place)) / unit
            } else {
                f64::INFINITY
            };
            self.bucket(labels, bound, below);
        }
        self.sum_and_count(labels, whole(seen.sum) / unit, below);
    }

    /// One bucket: how many were at most `bound`.
    pub fn bucket(&mut self, labels: Labels<'_>, bound: f64, below: u64) {
        self.line("_bucket", labels, Some(("le", bound)), whole(below));
    }

    /// One quantile.
    pub fn quantile(&mut self, labels: Labels<'_>, quantile: f64, value: f64) {
        self.line("", labels, Some(("quantile", quantile)), value);
    }

    /// What ends a histogram or a summary.
    pub fn sum_and_count(&mut self, labels: Labels<'_>, sum: f64, count: u64) {
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, whole(count));
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, last: Option<(&str, f64)>, value: f64) {
        let out = &mut self.text.bytes;
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        let mut separator = b'{';
        for (label, value) in labels {
            out.push(separator);
            separator = b',';
            out.extend_from_slice(label.as_bytes());
            out.extend_from_slice(b"=\"");
            put_escaped(out, value);
            out.push(b'"');
        }
        if let Some((label, value)) = last {
            out.push(separator);
            separator = b',';
            out.extend_from_slice(label.as_bytes());
            out.extend_from_slice(b"=\"");
            put_number(out, value);
            out.push(b'"');
        }
        if separator == b',' {
            out.push(b'}');
        }
        out.push(b' ');
        put_number(out, value);
        out.push(b'\n');
        self.text.end_family();
    }
}

fn put_escaped(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            other => out.push(other),
        }
    }
}

/// As near as the format comes: its numbers are all of this type.
#[allow(clippy::cast_precision_loss, reason = "the format has no other numbers")]
pub fn whole(number: u64) -> f64 {
    number as f64
}

/// Appends a number.
pub fn put_number(out: &mut Vec<u8>, number: f64) {
    if number.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if number.is_infinite() {
        return out.extend_from_slice(if number > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    let start = out.len();
    write!(out, "{number:e}").expect("a vector takes everything");
    let written = &out[start..];
    let at = written.iter().position(|byte| *byte == b'e').expect("this form has an exponent");
    let exponent = str::from_utf8(&written[at + 1..]).ok().and_then(|text| text.parse().ok());
    let exponent: i32 = exponent.expect("what was written is a number");
    // Go's rule for the shortest form.
    if exponent < -4 || exponent >= 6 {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.truncate(start + at);
        write!(out, "e{sign}{:02}", exponent.abs()).expect("a vector takes everything");
    } else {
        out.truncate(start);
        write!(out, "{number}").expect("a vector takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Bounds, Distribution};
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        let cases = [
            (0.0, "0"),
            (-1.0, "-1"),
            (14.0, "14"),
            (20480.0, "20480"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (1.844_674_407_370_955_2e19, "1.8446744073709552e+19"),
            (0.001, "0.001"),
            (8.192, "8.192"),
            (0.0001, "0.0001"),
            (8.91e-7, "8.91e-07"),
            (1e-100, "1e-100"),
            (0.030_382_477_000_000_005, "0.030382477000000005"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ];
        for (number, text) in cases {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn families_come_in_order_with_their_labels_escaped() {
        let mut text = Text::default();
        text.family("b_total", Kind::Counter, "Second.").count(&[("x", "a\\\"\n")], 3);
        let seen = Distribution::new(Bounds::Doubling { first: 1_000_000, count: 2 });
        seen.observe(1_500_000, 2);
        seen.observe(9_000_000, 1);
        let mut family = text.family("a_seconds", Kind::Histogram, "First.");
        family.distribution(&[("op", "Put")], &seen.copy(), 1e9);
        let mut out = Vec::new();
        text.finish(&mut out);
        let expected = "\
# HELP a_seconds First.
# TYPE a_seconds histogram
a_seconds_bucket{op=\"Put\",le=\"0.001\"} 0
a_seconds_bucket{op=\"Put\",le=\"0.002\"} 2
a_seconds_bucket{op=\"Put\",le=\"+Inf\"} 3
a_seconds_sum{op=\"Put\"} 0.012
a_seconds_count{op=\"Put\"} 3
# HELP b_total Second.
# TYPE b_total counter
b_total{x=\"a\\\\\\\"\\n\"} 3
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
