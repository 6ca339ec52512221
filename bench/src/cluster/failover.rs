//! The leader is killed while the others are given puts: how long nobody can write.
//!
//! The puts come at a fixed rate and not one after the other: those that were under way to the
//! leader are lost and end only with a time-out, so that clients who wait for them would tell
//! nothing of the new leader.
//!
//! Invariants:
//! - The time runs from before the kill to the answer of the first put that was sent after the
//!   leader was gone, so that nothing it had accepted is counted.
//! - A put that fails is part of the case; a wrong answer is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ClusterArgs;
use super::members::Cluster;
use crate::client::HeaderStyle;
use crate::failure::Failure;
use crate::report::{Report, median};
use crate::run::{Group, RunConfig, run};
use crate::side_by_side::Sample;
use crate::workload::{Begun, Context, KeySpace, Op, Order, Put, Random, Workload};

/// How long the puts go on before the kill and after the first that is accepted then.
const AROUND: Duration = Duration::from_secs(1);
/// A cluster without a leader by then is broken.
const OUTAGE_TIME_MAX: Duration = Duration::from_secs(30);
/// On each connection: enough for all puts of the longest outage at the default rate.
const STREAMS: usize = 2000;
const CONNECTIONS: usize = 8;
const KEYS: u64 = 1000;

/// The figures.
#[cfg(test)]
pub const METRICS: [&str; 6] = [
    "first put ms",
    "first put min ms",
    "first put max ms",
    "kill took ms",
    "failed puts",
    "back after restart ms",
];

/// Kills the leader again and again.
pub fn measure(cluster: &mut Cluster, args: &ClusterArgs) -> Result<Sample, Failure> {
    let epoch = Instant::now();
    let mut sample = Sample { figures: Vec::new(), clean: true, complaints: Vec::new() };
    let (mut outages, mut kills, mut returns) = (Vec::new(), Vec::new(), Vec::new());
    let mut failed_count = 0;
    for _ in 0..args.failovers {
        let leader = cluster.settled_leader()?.member;
        let others = cluster.others(leader);
        let addresses = others.iter().map(|&member| cluster.address(member)).collect();
        let taken = kill(cluster, leader, addresses, args.put_rate, epoch)?;
        outages.push(taken.outage.as_secs_f64() * 1e3);
        kills.push(taken.kill.as_secs_f64() * 1e3);
        failed_count += taken.report.tallies[0].errors_count;
        sample.clean &= taken.report.wrong_count == 0;
        if taken.report.wrong_count > 0 {
            sample.complaints.extend(taken.report.complaints);
        }
        let start = Instant::now();
        cluster.spawn(leader)?;
        let successor = cluster.settled_leader()?.member;
        cluster.wait_level(leader, successor)?;
        returns.push(start.elapsed().as_secs_f64() * 1e3);
    }
    sample.figures = vec![
        ("first put ms", median(&outages)),
        ("first put min ms", outages.iter().copied().fold(f64::INFINITY, f64::min)),
        ("first put max ms", outages.iter().copied().fold(0.0, f64::max)),
        ("kill took ms", median(&kills)),
        ("failed puts", failed_count as f64 / args.failovers as f64),
        ("back after restart ms", median(&returns)),
    ];
    Ok(sample)
}

/// One kill.
struct Taken {
    report: Report,
    /// From before the kill to the first put that was accepted after it.
    outage: Duration,
    /// How long the process took to be gone.
    kill: Duration,
}

fn kill(
    cluster: &mut Cluster,
    leader: usize,
    addresses: Vec<SocketAddr>,
    rate: f64,
    epoch: Instant,
) -> Result<Taken, Failure> {
    let signals = Arc::new(Signals::default());
    let (report, outcome) = std::thread::scope(|scope| {
        let puts = scope.spawn(|| puts(addresses, rate, epoch, &signals));
        let outcome = kill_beside(cluster, leader, epoch, &signals);
        signals.over.store(true, Ordering::Relaxed);
        match puts.join() {
            Ok(report) => (report, outcome),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let (outage, kill) = outcome?;
    Ok(Taken { report: report?, outage, kill })
}

/// Kills the leader once puts are under way, and waits for the first that a successor accepts.
fn kill_beside(
    cluster: &mut Cluster,
    leader: usize,
    epoch: Instant,
    signals: &Signals,
) -> Result<(Duration, Duration), Failure> {
    std::thread::sleep(AROUND);
    let killed = epoch.elapsed();
    cluster.kill(leader)?;
    let gone = epoch.elapsed();
    signals.gone_ns.store(nanoseconds(gone), Ordering::Relaxed);
    loop {
        let accepted_ns = signals.accepted_ns.load(Ordering::Relaxed);
        if accepted_ns > 0 {
            std::thread::sleep(AROUND);
            let outage = Duration::from_nanos(accepted_ns).saturating_sub(killed);
            return Ok((outage, gone.saturating_sub(killed)));
        }
        if epoch.elapsed() > gone + OUTAGE_TIME_MAX {
            return Err(Failure::new("no put is accepted after the leader was killed"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn puts(
    addresses: Vec<SocketAddr>,
    rate: f64,
    epoch: Instant,
    signals: &Arc<Signals>,
) -> Result<Report, Failure> {
    let space =
        KeySpace { prefix: "failover/".to_owned(), count: KEYS, seed: 1, value_size_bytes: 256 };
    let config = RunConfig {
        addresses,
        header_style: HeaderStyle::Indexed,
        duration: None,
        keys: KEYS,
        epoch,
        progress: None,
    };
    let inner = Put::new(space, Order::Random(Random::new(1)), None);
    let group = Group {
        name: "put".to_owned(),
        connections: CONNECTIONS,
        streams: STREAMS,
        rate: Some(rate),
        workload: Box::new(Probe::new(inner, Arc::clone(signals))),
    };
    run(&config, vec![vec![group]])
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a run is shorter than a century")
}

/// What the thread of the puts and that of the kill tell each other, in nanoseconds since the
/// epoch.
#[derive(Default)]
struct Signals {
    /// When the leader was gone.
    gone_ns: AtomicU64,
    /// When the first put that was sent after that was answered.
    accepted_ns: AtomicU64,
    /// No more puts are needed.
    over: AtomicBool,
}

/// Puts that look for the first that is accepted after the leader is gone.
struct Probe {
    inner: Put,
    signals: Arc<Signals>,
    /// By slot: when its put was sent.
    sent_ns: Vec<u64>,
}

impl Probe {
    fn new(inner: Put, signals: Arc<Signals>) -> Self {
        Self { inner, signals, sent_ns: vec![0; CONNECTIONS * STREAMS] }
    }
}

impl Workload for Probe {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        if self.signals.over.load(Ordering::Relaxed) {
            return None;
        }
        self.sent_ns[op.number] = context.now_ns;
        self.inner.begin(op, context, out)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
        let (gone_ns, accepted_ns) = (&self.signals.gone_ns, &self.signals.accepted_ns);
        let gone_ns = gone_ns.load(Ordering::Relaxed);
        let is_first = gone_ns > 0 && accepted_ns.load(Ordering::Relaxed) == 0;
        if is_first && self.sent_ns[op.number] >= gone_ns {
            accepted_ns.store(context.now_ns, Ordering::Relaxed);
        }
        self.inner.handle_message(op, context, payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;
    use crate::report::Tally;
    use crate::workload::Ledger;

    #[test]
    fn only_a_put_that_was_sent_after_the_end_counts() {
        let space = KeySpace { prefix: "p/".to_owned(), count: 4, seed: 1, value_size_bytes: 16 };
        let signals = Arc::new(Signals::default());
        let inner = Put::new(space, Order::Random(Random::new(1)), None);
        let mut probe = Probe::new(inner, Arc::clone(&signals));
        let (mut ledger, mut tally) = (Ledger::new(4), Tally::new("put"));
        let mut at = |now_ns, probe: &mut Probe, op: &mut Op, revision: Option<u64>| {
            let context = &mut Context { ledger: &mut ledger, tally: &mut tally, now_ns };
            match revision {
                None => probe.begin(op, context, &mut Vec::new()),
                Some(revision) => {
                    probe.handle_message(op, context, &proto::answers::header(revision));
                    None
                }
            }
        };
        let (mut early, mut late) = (Op::default(), Op { number: 1, ..Op::default() });
        let accepted = || signals.accepted_ns.load(Ordering::Relaxed);
        assert!(at(10, &mut probe, &mut early, None).is_some());
        signals.gone_ns.store(20, Ordering::Relaxed);
        assert!(at(30, &mut probe, &mut late, None).is_some());
        at(40, &mut probe, &mut early, Some(7));
        assert_eq!(accepted(), 0, "the old leader may have accepted it");
        at(50, &mut probe, &mut late, Some(8));
        assert_eq!(accepted(), 50);
        assert!(at(60, &mut probe, &mut early, None).is_some());
        at(70, &mut probe, &mut early, Some(9));
        assert_eq!(accepted(), 50, "the first one counts");
        signals.over.store(true, Ordering::Relaxed);
        assert!(at(80, &mut probe, &mut late, None).is_none());
    }
}
