//! Seeded random operations on few keys, so that they collide.
//!
//! A sequence is generated as data, then run on new servers until the first difference. Then parts
//! of it are left out, each time on new servers, as long as a difference remains.
//!
//! Invariants:
//! - The seed and the number of operations determine the sequence; both are printed.

mod draw;
mod generate;
mod operation;
mod shrink;

use super::conversation::{Conversation, Difference};
use super::pair::{Pair, Session};
use super::report::Report;
use super::servers::Binaries;
use draw::Draw;
use operation::{Operation, Runner};

/// Streams are compared this often, and at the end.
const SETTLE_INTERVAL: usize = 150;
/// Looks at the bar cost nothing at this distance.
const PROGRESS_INTERVAL: usize = 500;

/// How many operations of which sequence.
#[derive(Clone, Copy, Debug)]
pub struct RandomPlan {
    /// Which sequence.
    pub seed: u64,
    /// How long it is.
    pub operations: usize,
    /// How often a sequence that led to a difference is run again to make it shorter.
    pub shrink_runs: usize,
}

/// Runs the sequence and prints what came out unlike.
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
    let mut draw = Draw::new(plan.seed);
    let mut operations = Vec::new();
    while operations.len() < plan.operations {
        let operation = generate::operation(&mut draw);
        match session.missing.rpc(operation.path()) {
            Some(path) => *report.operations_missing.entry(path).or_default() += 1,
            None => operations.push(operation),
        }
    }
    let Some(failed) = first_difference(binaries, &operations, session, Some(report))? else {
        return Ok(());
    };
    operations.truncate(failed.done);
    println!("random: seed {}: operation {} came out unlike", plan.seed, failed.done);
    for difference in &failed.differences {
        report.difference("random operations", difference);
    }
    let (shortest, differences) =
        shrink::shrink(operations, failed.differences, plan.shrink_runs, &mut |shorter| {
            let failed = first_difference(binaries, shorter, session, None)?;
            Ok(failed.map(|failed| (failed.done, failed.differences)))
        })?;
    println!("random: seed {}: the shortest sequence found, new servers:", plan.seed);
    for operation in &shortest {
        println!("  {operation}");
    }
    for difference in differences {
        report.difference("the shortest sequence", &difference);
    }
    Ok(())
}

/// Where a sequence led to something unlike.
struct Failed {
    /// Operations done, the last of which showed it.
    done: usize,
    differences: Vec<Difference>,
}

fn first_difference(
    binaries: &Binaries,
    operations: &[Operation],
    session: &mut Session,
    mut report: Option<&mut Report>,
) -> Result<Option<Failed>, String> {
    session.comparer.forget_ids();
    let mut pair = Pair::start(binaries, &[])?;
    let mut conversation = Conversation::new(&mut pair, session, "");
    let mut runner = Runner::default();
    let mut failed = None;
    for (index, operation) in operations.iter().enumerate() {
        runner.run(&mut conversation, operation);
        let done = index + 1;
        if done % SETTLE_INTERVAL == 0 || done == operations.len() {
            runner.settle(&mut conversation);
        }
        if let Some(report) = &mut report {
            report.operations += 1;
            if done % PROGRESS_INTERVAL == 0 {
                report.progress("random operations", done, operations.len());
            }
        }
        if !conversation.differences.is_empty() {
            failed = Some(Failed { done, differences: conversation.differences.clone() });
            break;
        }
    }
    if let Some(report) = report {
        report.calls += conversation.calls;
    }
    drop(conversation);
    match (failed, pair.ended()) {
        (Some(mut failed), Some(log)) => {
            failed.differences[0].lines.push(log);
            Ok(Some(failed))
        }
        (None, Some(log)) => Err(log),
        (failed, None) => Ok(failed),
    }
}
