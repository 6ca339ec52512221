//! `bench compare`: two servers side by side, on the same machine, in the same run.
//!
//! Rounds alternate: A, B, A, B and so on, each on a fresh data directory, with only one server
//! alive at a time, so that neither pays for the other's background work and a machine that grows
//! slower or faster meanwhile does it to both. A figure is the median of its rounds.
//!
//! Invariants:
//! - Both servers get the same requests: the seeds, keys and values of a round are the same.
//! - A wrong answer or a failed operation anywhere makes the whole comparison fail.
//! - Every sample is written to the output file as it is taken, so that a run that is cut short
//!   leaves what it had.

mod cases;
mod disturbed;
mod expect;
mod watchers;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::disk;
use crate::failure::Failure;
use crate::load::parse_duration;
use crate::report::{JsonLine, duration_text, median};
use crate::server_process::{Server, ServerSpec};
pub use cases::{Case, Sample};
use expect::{EXPECTATIONS, Verdict};

/// For how long the floor of the disk is measured, each time.
const FLOOR_DURATION: Duration = Duration::from_secs(1);
/// A sample during which others used more of a core than this is marked as disturbed. It leaves
/// room for the kernel's workers, which complete the server's writes on nobody's account.
const OTHERS_BUSY_PERCENT_MAX: f64 = 30.0;

/// What to compare.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// The server that is compared with.
    #[arg(long)]
    pub a: PathBuf,
    /// The server that is compared; without it, only A is measured.
    #[arg(long)]
    pub b: Option<PathBuf>,
    /// Further arguments of A, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub a_args: String,
    /// Further arguments of B, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub b_args: String,
    /// How often each case is measured on each server.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// How often the cases that fill servers of their own (keys, compaction, snapshot, defrag,
    /// lease-expiry, watch-crowd, watch-catch-up, watch-stopped) are measured on each server; each
    /// takes a minute or more.
    #[arg(long, default_value_t = 1)]
    pub keys_rounds: usize,
    /// The cases; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Case>,
    /// For how long a case is loaded.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub duration: Duration,
    /// The keys of the case of many keys.
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// The revisions that the compaction finds.
    #[arg(long, default_value_t = 1_000_000)]
    pub revisions: u64,
    /// How much is in the server of the snapshot, and was in that of the defragmentation.
    #[arg(long, default_value_t = 750)]
    pub megabytes: u64,
    /// The leases that run out at once.
    #[arg(long, default_value_t = 10_000)]
    pub leases: u64,
    /// The watchers of the crowd.
    #[arg(long, default_value_t = 10_000)]
    pub watchers: usize,
    /// Puts a second that the crowd is told, beside those that are timed.
    #[arg(long, default_value_t = 20.0)]
    pub watched_rate: f64,
    /// The revisions that a late watcher catches up with.
    #[arg(long, default_value_t = 500_000)]
    pub watch_revisions: u64,
    /// Puts a second (open loop) in the cases that disturb them.
    #[arg(long, default_value_t = 500.0)]
    pub put_rate: f64,
    /// For how long the case of many keys leaves the server alone before its second kill.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub quiet: Duration,
    /// Take a sample again, so often at most, if others kept the machine busy meanwhile.
    #[arg(long, default_value_t = 0)]
    pub retakes: usize,
    /// The directory under which the data directories are made, on the disk that counts.
    #[arg(long, default_value = ".")]
    pub data_dir: PathBuf,
    /// Append every sample to this file, one JSON object a line.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Judge B against A by the ratios that were promised.
    #[arg(long, requires = "b")]
    pub expect: bool,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    A,
    B,
}

/// One sample and where it comes from.
struct Taken {
    side: Side,
    case: Case,
    sample: Sample,
}

/// Runs the command.
pub fn command(args: &CompareArgs) -> Result<bool, Failure> {
    if [args.put_rate, args.watched_rate].iter().any(|rate| !rate.is_finite() || *rate <= 0.0) {
        return Err(Failure::new("--put-rate and --watched-rate must be above 0"));
    }
    if args.watchers < watchers::CROWD_CONNECTIONS || args.watch_revisions == 0 {
        return Err(Failure::new("--watchers must be at least 10, --watch-revisions above 0"));
    }
    if [args.keys, args.revisions, args.megabytes, args.leases].contains(&0) {
        return Err(Failure::new("--keys, --revisions, --megabytes and --leases must be above 0"));
    }
    let mut comparison = Comparison::new(args)?;
    comparison.print_machine();
    comparison.measure_floor()?;
    for round in 0..args.rounds.max(args.keys_rounds) {
        for side in [Side::A, Side::B] {
            if side == Side::A || args.b.is_some() {
                comparison.run_round(side, round)?;
            }
        }
    }
    comparison.measure_floor()?;
    let passed = comparison.print_table();
    Ok(passed && comparison.clean)
}

struct Comparison<'a> {
    args: &'a CompareArgs,
    dir: PathBuf,
    out: Option<File>,
    taken: Vec<Taken>,
    clean: bool,
}

impl<'a> Comparison<'a> {
    fn new(args: &'a CompareArgs) -> Result<Self, Failure> {
        let dir = args.data_dir.join(format!("bench-compare-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(Failure::of(format!("create {}", dir.display())))?;
        let open = |path: &PathBuf| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(Failure::of(format!("open {}", path.display())))
        };
        let out = args.out.as_ref().map(open).transpose()?;
        Ok(Self { args, dir, out, taken: Vec::new(), clean: true })
    }

    fn wants(&self, case: Case) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&case)
    }

    fn run_round(&mut self, side: Side, round: usize) -> Result<(), Failure> {
        let steady: Vec<Case> = Case::STEADY.into_iter().filter(|&case| self.wants(case)).collect();
        if round < self.args.rounds && !steady.is_empty() {
            let spec = self.spec(side, round, "steady")?;
            let mut server = Server::start(&spec)?;
            let measured = self.measure_steady(&server, side, round, &steady);
            measured.map_err(|failure| server.explain(failure))?;
            server.stop()?;
            spec.remove()?;
        }
        if round < self.args.keys_rounds && self.wants(Case::Keys) {
            // Killed at once on one data directory and after a rest on another: the first kill must
            // not leave its mark on the second.
            let spec = self.spec(side, round, "keys-killed")?;
            let mut sample = cases::keys_killed(&spec, self.args.keys)?;
            spec.remove()?;
            let spec = self.spec(side, round, "keys-rested")?;
            sample.merge(cases::keys_rested(&spec, self.args.keys, self.args.quiet)?);
            spec.remove()?;
            self.take(side, round, Case::Keys, sample)?;
        }
        for case in Case::DISTURBED {
            if round < self.args.keys_rounds && self.wants(case) {
                let spec = self.spec(side, round, &case.name())?;
                let sample = disturbed::measure_case(case, &spec, self.args)?;
                spec.remove()?;
                self.take(side, round, case, sample)?;
            }
        }
        Ok(())
    }

    fn measure_steady(
        &mut self,
        server: &Server,
        side: Side,
        round: usize,
        steady: &[Case],
    ) -> Result<(), Failure> {
        let epoch = Instant::now();
        self.clean &= cases::prepare(server, epoch, steady.contains(&Case::KeepAlive))?;
        for &case in steady {
            let mut sample = cases::measure(case, server, self.args.duration, epoch)?;
            for _ in 0..self.args.retakes {
                // What was wrong in a disturbed sample was wrong: only clean ones are retaken.
                if !is_disturbed(&sample) || !sample.clean {
                    break;
                }
                sample = cases::measure(case, server, self.args.duration, epoch)?;
            }
            self.take(side, round, case, sample)?;
        }
        Ok(())
    }

    fn spec(&self, side: Side, round: usize, name: &str) -> Result<ServerSpec, Failure> {
        let (binary, extra) = match side {
            Side::A => (&self.args.a, &self.args.a_args),
            Side::B => {
                let binary = self.args.b.as_ref().expect("B is run only when it is given");
                (binary, &self.args.b_args)
            }
        };
        let extra: Vec<String> = extra.split_whitespace().map(str::to_owned).collect();
        let dir = self.dir.join(format!("{side:?}-{round}-{name}"));
        ServerSpec::new(binary, &extra, &dir)
    }

    fn take(
        &mut self,
        side: Side,
        round: usize,
        case: Case,
        sample: Sample,
    ) -> Result<(), Failure> {
        let name = case.name();
        let disturbed = if is_disturbed(&sample) { " DISTURBED" } else { "" };
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
                .number("disturbed", f64::from(u8::from(is_disturbed(&sample))));
            for (metric, figure) in &sample.figures {
                line = line.number(metric, *figure);
            }
            out.write_all(line.finish().as_bytes()).map_err(Failure::of("write the samples"))?;
        }
        self.taken.push(Taken { side, case, sample });
        Ok(())
    }

    fn print_machine(&self) {
        println!("{} on {}, {}", date(), machine(), kernel());
        println!("A = {} {}", self.args.a.display(), self.args.a_args);
        if let Some(b) = &self.args.b {
            println!("B = {} {}", b.display(), self.args.b_args);
        }
    }

    fn measure_floor(&self) -> Result<(), Failure> {
        for (method, row) in disk::floor(&self.dir, FLOOR_DURATION)? {
            println!(
                "disk floor: 4 KiB {method}: p50 {} p99 {}, {:.0} us CPU",
                duration_text(row.tally.quantile_ns(0.5)),
                duration_text(row.tally.quantile_ns(0.99)),
                row.cpu.as_secs_f64() * 1e6 / row.tally.operations_count.max(1) as f64,
            );
        }
        Ok(())
    }

    /// The median of a figure over its rounds.
    fn figure(&self, side: Side, case: Case, metric: &str) -> f64 {
        let of_case = self.taken.iter().filter(|taken| taken.side == side && taken.case == case);
        let figures: Vec<f64> = of_case.filter_map(|taken| taken.sample.figure(metric)).collect();
        median(&figures)
    }

    /// The figures that were taken of a case, and those that should have been.
    fn metrics(&self, case: Case) -> Vec<&'static str> {
        let mut metrics: Vec<&'static str> = Vec::new();
        let taken = self.taken.iter().filter(|taken| taken.case == case);
        let figures = taken.flat_map(|taken| taken.sample.figures.iter().map(|(name, _)| *name));
        let wanted = EXPECTATIONS.iter().filter(|expected| expected.case == case);
        let wanted = wanted.filter(|_| self.args.expect && self.wants(case));
        for metric in figures.chain(wanted.map(|expected| expected.metric)) {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        metrics
    }

    /// Prints the medians and says whether every expectation was met.
    fn print_table(&self) -> bool {
        let mut passed = true;
        println!("\n| case | figure | A | B | B / A | |");
        println!("|---|---|---|---|---|---|");
        for case in Case::ALL {
            for metric in self.metrics(case) {
                let a = self.figure(Side::A, case, metric);
                let b = self.figure(Side::B, case, metric);
                let judged = EXPECTATIONS
                    .iter()
                    .find(|expected| expected.case == case && expected.metric == metric)
                    .filter(|_| self.args.expect)
                    .map(|expected| (expected.judge(a, b), expected.bound_text()));
                let verdict = match &judged {
                    None => String::new(),
                    Some((Verdict::Pass, bound)) => format!("PASS ({bound})"),
                    Some((Verdict::Fail, bound)) => format!("FAIL ({bound})"),
                };
                passed &= !matches!(judged, Some((Verdict::Fail, _)));
                let name = case.name();
                let ratio = b / a;
                println!(
                    "| {name} | {metric} | {} | {} | {} | {verdict} |",
                    figure_text(a),
                    figure_text(b),
                    figure_text(ratio)
                );
            }
        }
        let disturbed = self.taken.iter().filter(|taken| is_disturbed(&taken.sample)).count();
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

impl Drop for Comparison<'_> {
    fn drop(&mut self) {
        // The logs of servers that failed stay; an empty directory goes.
        let _ = std::fs::remove_dir(&self.dir);
    }
}

fn is_disturbed(sample: &Sample) -> bool {
    let others = sample.figure("others busy %");
    others.is_some_and(|percent| percent > OTHERS_BUSY_PERCENT_MAX)
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
}
