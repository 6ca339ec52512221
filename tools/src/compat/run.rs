//! A whole run: the corpus, then random operations, then the sum.

use super::conversation::Conversation;
use super::corpus::{Case, Setting, corpus};
use super::missing::Missing;
use super::pair::{Pair, Session};
use super::random::{self, RandomPlan};
use super::report::Report;
use super::servers::Binaries;

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
    let missing = Missing::find(&plan.binaries)?;
    for name in missing.served() {
        println!("note: {name} is served, at least in part, and stands in the table of missing");
    }
    let mut session = Session::new(&plan.binaries, missing);
    if plan.has_corpus {
        run_corpus(plan, &mut session, &mut report)?;
    }
    random::run(&plan.binaries, &plan.random, &mut session, &mut report)?;
    report.summary(&session.comparer.used);
    Ok(report.differences == 0)
}

fn run_corpus(plan: &Plan, session: &mut Session, report: &mut Report) -> Result<(), String> {
    // In clusters that have just begun, what etcd says to a change of the members depends on
    // whether they have been connected for five seconds; tests/cluster waits for that.
    let is_asked = |case: &Case| {
        let has_servers = case.setting != Setting::Lone || plan.binaries.members == 1;
        has_servers && case.name.contains(&plan.filter)
    };
    let cases: Vec<Case> = corpus().into_iter().filter(is_asked).collect();
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
            Setting::Alone(_) | Setting::Lone => {
                let args = match case.setting {
                    Setting::Alone(args) => args,
                    Setting::Shared | Setting::Lone => &[],
                };
                if let Some(flag) = session.missing.flag(args) {
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
    if let Some(disagreement) = shared.disagreement() {
        report.failed_case("the members at the end", &disagreement);
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
    let is_pair_spent = has_differed || conversation.is_pair_spent();
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
        None => is_pair_spent,
    }
}
