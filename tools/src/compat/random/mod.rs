//! Seeded random operations on few keys, so that they collide.
//!
//! A sequence is generated as data, then run on new servers until the first difference. Then parts
//! of it are left out, each time on new servers, as long as a difference remains. Many operations
//! are several sequences, some of which run at the same time: a server mostly waits for its disk.
//!
//! Invariants:
//! - The seed and the number of operations determine a sequence; both are printed. The next
//!   sequence's seed is one more.

mod draw;
mod generate;
mod operation;
mod shrink;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::conversation::{Conversation, Difference};
use super::missing::Missing;
use super::pair::{Pair, Session};
use super::report::Report;
use super::servers::Binaries;
use draw::Draw;
use operation::{Operation, Runner};

/// Streams are compared this often, and at the end.
const SETTLE_INTERVAL: usize = 150;
/// Longer sequences are cut: their servers would only grow.
const SEQUENCE_OPERATIONS_MAX: usize = 5_000;
/// How many operations of which sequence.
#[derive(Clone, Copy, Debug)]
pub struct RandomPlan {
    /// Which sequence is the first.
    pub seed: u64,
    /// How many operations there are in all.
    pub operations: usize,
    /// How many sequences run at the same time, each on servers of its own.
    pub at_once: usize,
    /// How often a sequence that led to a difference is run again to make it shorter.
    pub shrink_runs: usize,
}

/// One sequence as data.
struct Sequence {
    seed: u64,
    operations: Vec<Operation>,
    /// What was drawn and left out, by the RPC that is missing.
    left_out: BTreeMap<&'static str, u64>,
}

/// What running one led to.
struct Outcome {
    session: Session,
    done: usize,
    calls: u64,
    /// What the last of them showed, if anything.
    differences: Vec<Difference>,
}

/// Runs the sequences and prints what came out unlike.
pub fn run(
    binaries: &Binaries,
    plan: &RandomPlan,
    session: &mut Session,
    report: &mut Report,
) -> Result<(), String> {
    if plan.operations == 0 {
        return Ok(());
    }
    println!("random: seed {}, {} operations", plan.seed, plan.operations);
    let sequences = sequences(plan, &session.missing);
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..plan.at_once {
            scope.spawn(|| {
                while let Some(sequence) = sequences.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = play(binaries, &sequence.operations, &session.missing);
                    let mut outcomes = outcomes.lock().expect("no holder of this lock panics");
                    outcomes.push((sequence, outcome));
                    report.progress("random sequences", outcomes.len(), sequences.len());
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no holder of this lock panics");
    outcomes.sort_by_key(|(sequence, _)| sequence.seed);
    let mut first_failed = None;
    for (sequence, outcome) in outcomes {
        let outcome = outcome?;
        report.operations += outcome.done as u64;
        report.calls += outcome.calls;
        for (path, count) in &sequence.left_out {
            *report.operations_missing.entry(path).or_default() += count;
        }
        for (used, more) in session.comparer.used.iter_mut().zip(outcome.session.comparer.used) {
            *used += more;
        }
        if outcome.differences.is_empty() {
            continue;
        }
        println!("random: seed {}: operation {} came out unlike", sequence.seed, outcome.done);
        for difference in &outcome.differences {
            report.difference("random operations", difference);
        }
        first_failed.get_or_insert((sequence, outcome));
    }
    match first_failed {
        Some((sequence, outcome)) => show_shortest(binaries, plan, sequence, outcome, report),
        None => Ok(()),
    }
}

/// Draws all sequences of a plan.
fn sequences(plan: &RandomPlan, missing: &Missing) -> Vec<Sequence> {
    let count = plan.operations.div_ceil(SEQUENCE_OPERATIONS_MAX);
    let sequence = |(index, seed): (usize, u64)| {
        let rest = plan.operations - index * SEQUENCE_OPERATIONS_MAX;
        let length = rest.min(SEQUENCE_OPERATIONS_MAX);
        let mut draw = Draw::new(seed);
        let mut left_out = BTreeMap::new();
        let mut operations = Vec::with_capacity(length);
        while operations.len() < length {
            let operation = generate::operation(&mut draw);
            match missing.rpc(operation.path()) {
                Some(path) => *left_out.entry(path).or_default() += 1,
                None => operations.push(operation),
            }
        }
        Sequence { seed, operations, left_out }
    };
    (0..count).zip(plan.seed..).map(sequence).collect()
}

/// Prints the shortest part of a sequence that still leads to a difference.
fn show_shortest(
    binaries: &Binaries,
    plan: &RandomPlan,
    sequence: &Sequence,
    outcome: Outcome,
    report: &mut Report,
) -> Result<(), String> {
    let operations = sequence.operations[..outcome.done].to_vec();
    let missing = outcome.session.missing;
    let attempts_max = plan.shrink_runs;
    let (shortest, differences) =
        shrink::shrink(operations, outcome.differences, attempts_max, &mut |shorter| {
            let Outcome { done, differences, .. } = play(binaries, shorter, &missing)?;
            Ok((!differences.is_empty()).then_some((done, differences)))
        })?;
    println!("random: seed {}: the shortest sequence found, new servers:", sequence.seed);
    for operation in &shortest {
        println!("  {operation}");
    }
    for difference in differences {
        report.difference("the shortest sequence", &difference);
    }
    Ok(())
}

/// Runs operations on new servers until the first difference.
fn play(
    binaries: &Binaries,
    operations: &[Operation],
    missing: &Missing,
) -> Result<Outcome, String> {
    let mut session = Session::new(binaries, missing.clone());
    let mut pair = Pair::start(binaries, &[])?;
    let mut conversation = Conversation::new(&mut pair, &mut session, "");
    let mut runner = Runner::default();
    let mut done = 0;
    for operation in operations {
        runner.run(&mut conversation, operation);
        done += 1;
        if done % SETTLE_INTERVAL == 0 || done == operations.len() {
            runner.settle(&mut conversation);
        }
        if !conversation.differences.is_empty() {
            break;
        }
    }
    let calls = conversation.calls;
    let mut differences = std::mem::take(&mut conversation.differences);
    drop(conversation);
    match (differences.first_mut(), pair.ended()) {
        (Some(first), Some(log)) => first.lines.push(log),
        (None, Some(log)) => return Err(log),
        (_, None) => {}
    }
    Ok(Outcome { session, done, calls, differences })
}
