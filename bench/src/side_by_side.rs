//! Two sides measured alike: samples as they are taken, their medians in a table, and what was
//! promised of the one against the other.
//!
//! The cases are the owner's; here they are only named and compared.
//!
//! Invariants:
//! - Every sample is written to the output file as it is taken, so that a run that is cut short
//!   leaves what it had.
//! - A figure in the table is the median of its rounds.
//! - A figure that is missing, and that a bound is about, fails: what was not measured was not
//!   shown.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use crate::disk;
use crate::failure::Failure;
use crate::report::{JsonLine, duration_text, median};

/// For how long the floor of the disk is measured, each time.
const FLOOR_DURATION: Duration = Duration::from_secs(1);
/// A sample during which others used more of a core than this is marked as disturbed. It leaves
/// room for the kernel's workers, which complete the server's writes on nobody's account.
const OTHERS_BUSY_PERCENT_MAX: f64 = 30.0;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that is compared with.
    A,
    /// The one that is compared.
    B,
}

/// What one case gave in one round.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Figures by name.
    pub figures: Vec<(&'static str, f64)>,
    /// Whether every answer was right.
    pub clean: bool,
    /// The first that were not.
    pub complaints: Vec<String>,
}

impl Sample {
    /// A figure by name.
    pub fn figure(&self, metric: &str) -> Option<f64> {
        self.figures.iter().find(|(name, _)| *name == metric).map(|&(_, figure)| figure)
    }

    /// Adds what another part of the same case gave.
    pub fn merge(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.clean &= other.clean;
        self.complaints.extend(other.complaints);
    }

    /// The figures on one line.
    pub fn to_text(&self) -> String {
        let texts = self.figures.iter().map(|(name, figure)| format!("{name} {figure:.1}"));
        texts.collect::<Vec<_>>().join(", ")
    }

    /// Whether others kept the machine busy meanwhile.
    pub fn is_disturbed(&self) -> bool {
        let others = self.figure("others busy %");
        others.is_some_and(|percent| percent > OTHERS_BUSY_PERCENT_MAX)
    }
}

/// One promise.
pub struct Expectation<C> {
    /// The case.
    pub case: C,
    /// The figure's name.
    pub metric: &'static str,
    /// What it has to keep to.
    pub bound: Bound,
}

/// What a figure has to keep to.
#[derive(Clone, Copy)]
pub enum Bound {
    /// B's over A's.
    AtLeast(f64),
    /// B's over A's.
    AtMost(f64),
    /// B's own, whatever A's is.
    OwnAtMost(f64),
}

/// Whether a promise was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Pass,
    /// It was not, or nothing shows that it was.
    Fail,
}

/// A promise.
pub const fn expect<C: Copy>(case: C, metric: &'static str, bound: Bound) -> Expectation<C> {
    Expectation { case, metric, bound }
}

impl<C> Expectation<C> {
    /// Judges two medians.
    pub fn judge(&self, a: f64, b: f64) -> Verdict {
        let ratio = b / a;
        let kept = match self.bound {
            Bound::AtLeast(bound) => ratio >= bound,
            Bound::AtMost(bound) => ratio <= bound,
            Bound::OwnAtMost(bound) => b <= bound,
        };
        if kept { Verdict::Pass } else { Verdict::Fail }
    }

    /// The bound for people.
    pub fn bound_text(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!(">= {bound}x"),
            Bound::AtMost(bound) => format!("<= {bound:.3}x"),
            Bound::OwnAtMost(bound) => format!("B <= {bound}"),
        }
    }
}

/// One sample and where it comes from.
struct Taken<C> {
    side: Side,
    case: C,
    sample: Sample,
}

/// The samples of a run.
pub struct Samples<C> {
    out: Option<File>,
    taken: Vec<Taken<C>>,
    /// Whether every answer was right.
    pub clean: bool,
}

impl<C: ValueEnum + Copy + PartialEq + 'static> Samples<C> {
    /// None yet; those that come are appended to a file, if there is one.
    pub fn new(out: Option<&Path>) -> Result<Self, Failure> {
        let open = |path: &Path| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(Failure::of(format!("open {}", path.display())))
        };
        Ok(Self { out: out.map(open).transpose()?, taken: Vec::new(), clean: true })
    }

    /// Keeps, shows and writes a sample.
    pub fn take(
        &mut self,
        side: Side,
        round: usize,
        case: C,
        sample: Sample,
    ) -> Result<(), Failure> {
        let name = case_name(case);
        let disturbed = if sample.is_disturbed() { " DISTURBED" } else { "" };
        println!("{side:?} round {} {name}:{disturbed} {}", round + 1, sample.to_text());
        for complaint in &sample.complaints {
            println!("  {complaint}");
        }
        if !sample.clean {
            println!("{side:?} round {} {name}: NOT CLEAN", round + 1);
        }
        self.clean &= sample.clean;
        if let Some(out) = &mut self.out {
            let mut line = JsonLine::new()
                .text("date", &date())
                .text("kernel", &kernel())
                .text("machine", &machine())
                .text("command", &std::env::args().collect::<Vec<_>>().join(" "))
                .text("side", &format!("{side:?}"))
                .text("case", &name)
                .number("round", round as f64)
                .number("clean", f64::from(u8::from(sample.clean)))
                .number("disturbed", f64::from(u8::from(sample.is_disturbed())));
            for (metric, figure) in &sample.figures {
                line = line.number(metric, *figure);
            }
            out.write_all(line.finish().as_bytes()).map_err(Failure::of("write the samples"))?;
        }
        self.taken.push(Taken { side, case, sample });
        Ok(())
    }

    /// The median of a figure over its rounds.
    fn figure(&self, side: Side, case: C, metric: &str) -> f64 {
        let of_case = self.taken.iter().filter(|taken| taken.side == side && taken.case == case);
        let figures: Vec<f64> = of_case.filter_map(|taken| taken.sample.figure(metric)).collect();
        median(&figures)
    }

    /// The figures that were taken of a case, and those that should have been.
    fn metrics(&self, case: C, expectations: &[&Expectation<C>]) -> Vec<&'static str> {
        let mut metrics: Vec<&'static str> = Vec::new();
        let taken = self.taken.iter().filter(|taken| taken.case == case);
        let figures = taken.flat_map(|taken| taken.sample.figures.iter().map(|(name, _)| *name));
        let wanted = expectations.iter().filter(|expected| expected.case == case);
        for metric in figures.chain(wanted.map(|expected| expected.metric)) {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        metrics
    }

    /// Prints the medians and says whether every expectation was met; none are of cases that were
    /// not to be measured.
    pub fn print_table(&self, expectations: &[&Expectation<C>]) -> bool {
        let mut passed = true;
        println!("\n| case | figure | A | B | B / A | |");
        println!("|---|---|---|---|---|---|");
        for &case in C::value_variants() {
            for metric in self.metrics(case, expectations) {
                let a = self.figure(Side::A, case, metric);
                let b = self.figure(Side::B, case, metric);
                let judged = expectations
                    .iter()
                    .find(|expected| expected.case == case && expected.metric == metric)
                    .map(|expected| (expected.judge(a, b), expected.bound_text()));
                let verdict = match &judged {
                    None => String::new(),
                    Some((Verdict::Pass, bound)) => format!("PASS ({bound})"),
                    Some((Verdict::Fail, bound)) => format!("FAIL ({bound})"),
                };
                passed &= !matches!(judged, Some((Verdict::Fail, _)));
                let name = case_name(case);
                let ratio = b / a;
                println!(
                    "| {name} | {metric} | {} | {} | {} | {verdict} |",
                    figure_text(a),
                    figure_text(b),
                    figure_text(ratio)
                );
            }
        }
        let disturbed = self.taken.iter().filter(|taken| taken.sample.is_disturbed()).count();
        if disturbed > 0 {
            let all = self.taken.len();
            println!(
                "\n{disturbed} of {all} samples were disturbed: others used more than \
                 {OTHERS_BUSY_PERCENT_MAX:.0} % of a core meanwhile."
            );
        }
        passed
    }
}

/// The name of a case on the command line.
pub fn case_name<C: ValueEnum + Copy>(case: C) -> String {
    let value = case.to_possible_value().expect("no case is skipped");
    value.get_name().to_owned()
}

/// Says what is compared, and where.
pub fn print_machine(sides: &[(&Path, &str)]) {
    println!("{} on {}, {}", date(), machine(), kernel());
    for (name, (binary, args)) in ["A", "B"].into_iter().zip(sides) {
        println!("{name} = {} {args}", binary.display());
    }
}

/// Says what a durable write costs on the disk that a directory is on.
pub fn measure_floor(dir: &Path) -> Result<(), Failure> {
    for (method, row) in disk::floor(dir, FLOOR_DURATION)? {
        println!(
            "disk floor: 4 KiB {method}: p50 {} p99 {}, {:.0} us CPU",
            duration_text(row.tally.quantile_ns(0.5)),
            duration_text(row.tally.quantile_ns(0.99)),
            row.cpu.as_secs_f64() * 1e6 / row.tally.operations_count.max(1) as f64,
        );
    }
    Ok(())
}

fn figure_text(figure: f64) -> String {
    match figure.abs() {
        _ if !figure.is_finite() => String::new(),
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{figure:.3}"),
        size if size < 1000.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(':').nth(1)).unwrap_or("?").trim();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {model}")
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

/// Today in UTC, from the days since 1970 (the usual civil calendar, counted in eras of 400 years
/// that begin in March so that the leap day is the last of its year).
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}Z")
}

fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(
            ["0.125", "52.0", "31000"].map(str::to_owned),
            [figure_text(0.125), figure_text(52.0), figure_text(31_000.4)]
        );
        assert_eq!(figure_text(f64::NAN), "");
    }

    #[test]
    fn bounds_are_judged_on_the_right_side() {
        let faster = expect((), "ops/s", Bound::AtLeast(5.0));
        assert_eq!(faster.judge(10.0, 50.0), Verdict::Pass);
        assert_eq!(faster.judge(10.0, 49.0), Verdict::Fail);
        let cheaper = expect((), "p99 us", Bound::AtMost(0.25));
        assert_eq!(cheaper.judge(100.0, 25.0), Verdict::Pass);
        assert_eq!(cheaper.judge(100.0, 26.0), Verdict::Fail);
    }

    #[test]
    fn a_bound_of_its_own_does_not_look_at_the_other_side() {
        let calm = expect((), "p99 disturbed / quiet", Bound::OwnAtMost(1.5));
        assert_eq!(calm.judge(17.0, 1.5), Verdict::Pass);
        assert_eq!(calm.judge(17.0, 1.6), Verdict::Fail);
        assert_eq!(calm.judge(f64::NAN, 1.0), Verdict::Pass);
    }
}
