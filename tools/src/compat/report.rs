//! What a run tells its reader: progress on standard error, findings and the sum on standard
//! output.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use super::allowed::ALLOWED;
use super::conversation::Difference;

/// Nobody reads more of an answer.
const ANSWER_CHARS_MAX: usize = 1500;
/// Of one call, so many differing fields are enough to understand it.
const LINES_MAX: usize = 12;

/// Counts of a whole run.
#[derive(Default)]
pub struct Report {
    /// Cases that ran, those with differences included.
    pub cases: u64,
    /// Random operations.
    pub operations: u64,
    /// Calls whose answers were compared.
    pub calls: u64,
    /// Calls with unlike answers.
    pub differences: u64,
    /// Cases that ringd cannot answer yet, by the RPC or flag that is missing.
    pub missing: BTreeMap<&'static str, u64>,
    /// Random operations that were left out, by the RPC that is missing.
    pub operations_missing: BTreeMap<&'static str, u64>,
    shows_progress: bool,
}

impl Report {
    /// A report at the beginning of a run.
    pub fn new() -> Self {
        Self { shows_progress: std::io::stderr().is_terminal(), ..Self::default() }
    }

    /// Overwrites the line of progress, where somebody looks on.
    pub fn progress(&self, what: &str, done: usize, total: usize) {
        if self.shows_progress {
            const WIDTH: usize = 40;
            let filled = WIDTH * done / total.max(1);
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
            eprint!("\r[{bar}] {done}/{total} {what:<50.50}");
            if done == total {
                eprintln!();
            }
            // A terminal that takes nothing is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    }

    /// Prints a case that came out unlike.
    pub fn difference(&mut self, name: &str, difference: &Difference) {
        self.differences += 1;
        println!("DIFFERENCE in {name}");
        println!("  asked: {}", cut(&difference.asked));
        for line in difference.lines.iter().take(LINES_MAX) {
            println!("  {line}");
        }
        if let Some(more) = difference.lines.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
            println!("  and {more} more");
        }
        let [etcd, ringd] = &difference.answers;
        if !etcd.is_empty() || !ringd.is_empty() {
            println!("  etcd:  {}\n  ringd: {}", cut(etcd), cut(ringd));
        }
    }

    /// Prints a case that a server did not survive, or did not start for.
    pub fn failed_case(&mut self, name: &str, why: &str) {
        self.differences += 1;
        println!("DIFFERENCE in {name}\n  {why}");
    }

    /// Prints what ends every run.
    pub fn summary(&self, allowances_used: &[u64]) {
        for (allowed, count) in ALLOWED.iter().zip(allowances_used).filter(|(_, count)| **count > 0)
        {
            let Allowance { name, reason } = Allowance::of(allowed);
            println!("allowed: {name} in {count} answers: {reason}");
        }
        for (path, count) in &self.missing {
            println!("known missing: {path}: {count} cases");
        }
        for (path, count) in &self.operations_missing {
            println!("known missing: {path}: {count} random operations left out");
        }
        let missing: u64 = self.missing.values().sum();
        println!(
            "compat: {} cases, {} random operations, {} differences, {missing} known missing",
            self.cases, self.operations, self.differences
        );
    }
}

struct Allowance {
    name: String,
    reason: &'static str,
}

impl Allowance {
    fn of(allowed: &super::allowed::Allowed) -> Self {
        let message = allowed.message.rsplit('.').next().unwrap_or(allowed.message);
        Self { name: format!("{message}.{}", allowed.field), reason: allowed.reason }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(ANSWER_CHARS_MAX) {
        Some((end, _)) => format!("{}... ({} characters)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
