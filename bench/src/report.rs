//! What a run has come to: counts, latencies, and how they are shown.
//!
//! Latencies are kept in nanoseconds with three digits; percentiles of several threads are those of
//! the merged histograms, never averages of percentiles.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told apart; longer ones count as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Three digits: finer than two runs ever agree.
const LATENCY_DIGITS: u8 = 3;

/// Counts and latencies of one group of streams.
#[derive(Clone)]
pub struct Tally {
    /// What the group does.
    pub name: String,
    /// Operations that ended well, or events that came.
    pub operations_count: u64,
    /// Operations that ended with another status than OK.
    pub errors_count: u64,
    /// Transactions that were refused and tried again.
    pub retries_count: u64,
    /// Keys that came in answers to ranges.
    pub keys_count: u64,
    /// Latencies in nanoseconds.
    pub histogram: Histogram<u64>,
}

impl Tally {
    /// An empty tally.
    pub fn new(name: &str) -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
            .expect("the bounds are those that the type allows");
        Self {
            name: name.to_owned(),
            operations_count: 0,
            errors_count: 0,
            retries_count: 0,
            keys_count: 0,
            histogram,
        }
    }

    /// One more operation, which took so long.
    pub fn record(&mut self, latency_ns: u64) {
        self.operations_count += 1;
        self.histogram.saturating_record(latency_ns);
    }

    /// Adds another thread's tally of the same group.
    pub fn merge(&mut self, other: &Self) {
        assert!(self.name == other.name, "{} is not {}", self.name, other.name);
        self.operations_count += other.operations_count;
        self.errors_count += other.errors_count;
        self.retries_count += other.retries_count;
        self.keys_count += other.keys_count;
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
    }

    /// The latency that this share of the operations does not exceed, in nanoseconds.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }
}

/// What one run has come to.
#[derive(Clone)]
pub struct Report {
    /// By group.
    pub tallies: Vec<Tally>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// The CPU time of the client's own threads.
    pub client_cpu: Duration,
    /// How many answers were wrong.
    pub wrong_count: u64,
    /// The first errors and wrong answers.
    pub complaints: Vec<String>,
}

impl Report {
    /// Operations a second of a group.
    pub fn rate(&self, group: usize) -> f64 {
        self.tallies[group].operations_count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// All operations of all groups.
    pub fn operations_count(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.operations_count).sum()
    }

    /// Whether every operation ended well and every answer was right.
    pub fn is_clean(&self) -> bool {
        self.wrong_count == 0 && self.tallies.iter().all(|tally| tally.errors_count == 0)
    }

    /// Adds the report of another thread of the same run.
    pub fn merge(&mut self, other: &Self) {
        for (mine, others) in self.tallies.iter_mut().zip(&other.tallies) {
            mine.merge(others);
        }
        self.elapsed = self.elapsed.max(other.elapsed);
        self.client_cpu += other.client_cpu;
        self.wrong_count += other.wrong_count;
        self.complaints.extend(other.complaints.iter().cloned());
    }

    /// The report as lines for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (group, tally) in self.tallies.iter().enumerate() {
            let quantile = |quantile| duration_text(tally.quantile_ns(quantile));
            write_line(
                &mut text,
                format_args!(
                    "{:<12} {:>10} ops in {:.2} s = {:>9.0}/s  \
                     p50 {} p90 {} p99 {} p99.9 {} max {}",
                    tally.name,
                    tally.operations_count,
                    self.elapsed.as_secs_f64(),
                    self.rate(group),
                    quantile(0.5),
                    quantile(0.9),
                    quantile(0.99),
                    quantile(0.999),
                    duration_text(tally.histogram.max()),
                ),
            );
            if tally.keys_count > tally.operations_count {
                let rate = tally.keys_count as f64 / self.elapsed.as_secs_f64();
                write_line(&mut text, format_args!("{:<12} {rate:>10.0} keys/s", ""));
            }
            if tally.retries_count + tally.errors_count > 0 {
                write_line(
                    &mut text,
                    format_args!(
                        "{:<12} {:>10} retries, {} errors",
                        "", tally.retries_count, tally.errors_count
                    ),
                );
            }
        }
        let operations = self.operations_count().max(1) as f64;
        let per_operation = self.client_cpu.as_secs_f64() * 1e6 / operations;
        write_line(&mut text, format_args!("client CPU   {per_operation:.2} us an operation"));
        if self.wrong_count > 0 {
            write_line(&mut text, format_args!("WRONG ANSWERS: {}", self.wrong_count));
        }
        for complaint in &self.complaints {
            write_line(&mut text, format_args!("  {complaint}"));
        }
        text
    }
}

fn write_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
}

/// Nanoseconds in the unit that suits them.
pub fn duration_text(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{ns:.0} ns"),
        _ if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        _ if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.3} s", ns / 1e9),
    }
}

/// The middle of some figures; of an even number of them, the mean of the two in the middle.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// One JSON object on one line, written field by field.
pub struct JsonLine(String);

impl JsonLine {
    /// An empty object.
    pub fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a text.
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        self.string(value);
        self
    }

    /// Adds a number; one that JSON does not have becomes null.
    pub fn number(mut self, name: &str, value: f64) -> Self {
        self.name(name);
        if value.is_finite() {
            write!(self.0, "{value}").expect("a string takes everything");
        } else {
            self.0.push_str("null");
        }
        self
    }

    /// The finished line.
    pub fn finish(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.string(name);
        self.0.push(':');
    }

    fn string(&mut self, text: &str) {
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                control if control < ' ' => {
                    write!(self.0, "\\u{:04x}", u32::from(control)).expect("a string takes it");
                }
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn threads_merge_into_one_distribution() {
        let mut first = Tally::new("put");
        let mut second = Tally::new("put");
        for _ in 0..99 {
            first.record(1_000);
        }
        second.record(1_000_000);
        first.merge(&second);
        assert_eq!(first.operations_count, 100);
        assert_eq!(first.quantile_ns(0.99) / 10, 100);
        assert_eq!(first.quantile_ns(1.0) / 1_000, 1_000);
    }

    #[test]
    fn json_escapes_what_it_must() {
        let line = JsonLine::new().text("a\"b", "c\\d\n").number("n", 1.5).number("x", f64::NAN);
        assert_eq!(line.finish(), "{\"a\\\"b\":\"c\\\\d\\u000a\",\"n\":1.5,\"x\":null}\n");
    }

    #[test]
    fn durations_choose_their_unit() {
        let texts = [999, 1_500, 2_345_678, 3_000_000_000].map(duration_text);
        assert_eq!(texts, ["999 ns", "1.5 us", "2.35 ms", "3.000 s"]);
    }
}
