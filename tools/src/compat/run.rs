//! A whole run: the corpus, then random operations, then the sum.

use super::allowed::MISSING_FLAGS;
use super::conversation::Conversation;
use super::corpus::{Case, Setting, corpus};
use super::pair::{Pair, Session};
use super::random::{self, RandomPlan};
use super::report::Report;
use super::servers::{Binaries, Server, Side};

/// What to run.
pub struct Plan {
    /// The servers.
    pub binaries: Binaries,
    /// Cases whose name contains this.
    pub filter: String,
    /// Whether the corpus runs at all.
    pub has_corpus: bool,
    /// The random operations.
    pub random: RandomPlan,
}

/// Runs everything, prints it, and says whether all was well.
pub fn run(plan: &Plan) -> Result<bool, String> {
    let mut report = Report::new();
    let mut session = Session::default();
    let mut is_true = true;
    let pair = Pair::start(&plan.binaries, &[])?;
    for path in pair.served_though_missing() {
        println!("WRONG TABLE: {path} is served and still in the table of missing RPCs");
        is_true = false;
    }
    for (flag, value) in MISSING_FLAGS {
        if Server::start(&plan.binaries, Side::Ringd, &[flag, value]).is_ok() {
            println!("WRONG TABLE: {flag} is taken and still in the table of missing flags");
            is_true = false;
        }
    }
    // Its stores are no longer equal: a missing RPC that is served may have changed ringd's.
    drop(pair);
    if plan.has_corpus {
        run_corpus(plan, &mut session, &mut report)?;
    }
    random::run(&plan.binaries, &plan.random, &mut session, &mut report)?;
    report.summary(&session.comparer.used);
    Ok(is_true && report.differences == 0)
}

fn run_corpus(plan: &Plan, session: &mut Session, report: &mut Report) -> Result<(), String> {
    let cases: Vec<Case> =
        corpus().into_iter().filter(|case| case.name.contains(&plan.filter)).collect();
    let mut shared = Pair::start(&plan.binaries, &[])?;
    for (index, case) in cases.iter().enumerate() {
        report.progress(&case.name, index, cases.len());
        match case.setting {
            Setting::Shared => {
                let ended = run_case(case, &mut shared, session, report);
                if ended {
                    session.comparer.forget_ids();
                    shared = Pair::start(&plan.binaries, &[])?;
                }
            }
            Setting::Alone(args) => {
                let is_missing = |(flag, _): &&(&'static str, _)| args.contains(flag);
                if let Some((flag, _)) = MISSING_FLAGS.iter().find(is_missing) {
                    *report.missing.entry(flag).or_default() += 1;
                    continue;
                }
                match Pair::start(&plan.binaries, args) {
                    Ok(mut pair) => {
                        run_case(case, &mut pair, session, report);
                    }
                    Err(error) => report.failed_case(&case.name, &error),
                }
            }
        }
    }
    report.progress("all cases", cases.len(), cases.len());
    Ok(())
}

/// Runs one case; true if the pair is of no use for the next: a server has ended, or the stores
/// may be unequal.
fn run_case(case: &Case, pair: &mut Pair, session: &mut Session, report: &mut Report) -> bool {
    let mut conversation = Conversation::new(pair, session, &case.name);
    (case.talk)(&mut conversation);
    let Conversation { differences, calls, .. } = &conversation;
    report.calls += calls;
    for difference in differences {
        report.difference(&case.name, difference);
    }
    let has_differed = !differences.is_empty();
    match conversation.missing() {
        Some(path) if !has_differed => *report.missing.entry(path).or_default() += 1,
        _ => report.cases += 1,
    }
    drop(conversation);
    match pair.ended() {
        Some(log) => {
            report.failed_case(&case.name, &log);
            true
        }
        None => has_differed,
    }
}
