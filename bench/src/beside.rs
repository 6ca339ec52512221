//! Puts at a fixed rate, at quiet times or beside something else that happens meanwhile.
//!
//! The puts go to keys of their own, in an open loop: a put that could not be sent in time waits as
//! much as one that was sent and not answered, so a server that stands still pays for all of it.
//!
//! Invariants:
//! - Quiet and disturbed puts differ in nothing but what else happens.
//! - The disturbance begins after the first disturbed put and they end with it, so that no quiet
//!   time is counted as disturbed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::HeaderStyle;
use crate::failure::Failure;
use crate::report::Report;
use crate::run::{Group, RunConfig, run};
use crate::workload::{Begun, Context, KeySpace, Op, Order, Put, Random, Workload};

/// How long puts go on before the quiet ones are measured: the server's work on what it was filled
/// with fades meanwhile.
const WARM_UP: Duration = Duration::from_secs(2);
/// The keys that the puts go to.
const PUT_KEYS: u64 = 1000;
const PUT_VALUE_BYTES: usize = 256;
/// What their keys begin with.
pub const PUT_PREFIX: &str = "put/";
const PUT_CONNECTIONS: usize = 10;
/// On each connection: enough for four seconds' puts on a server that stands still. A put that is
/// due and finds no stream before the disturbance is over would not be counted.
const PUT_STREAMS: usize = 200;

/// Where the puts go, and how many.
pub struct Puts {
    /// The server, or several members of a cluster.
    pub addresses: Vec<SocketAddr>,
    /// Puts a second.
    pub rate: f64,
    /// What the generations of values count from.
    pub epoch: Instant,
}

/// Puts beside a disturbance.
pub struct Beside<T> {
    /// The puts.
    pub report: Report,
    /// How long the disturbance took.
    pub taken: Duration,
    /// What it gave.
    pub outcome: T,
}

impl Puts {
    /// The puts of a quiet time.
    pub fn quiet(&self, duration: Duration) -> Result<Report, Failure> {
        let warm_up = self.run(Some(WARM_UP), &Arc::new(Signals::default()))?;
        let mut quiet = self.run(Some(duration), &Arc::new(Signals::default()))?;
        quiet.wrong_count += warm_up.wrong_count;
        quiet.complaints.extend(warm_up.complaints);
        Ok(quiet)
    }

    /// Puts until the disturbance is over.
    pub fn beside<T>(
        &self,
        disturbance: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Beside<T>, Failure> {
        let signals = Arc::new(Signals::default());
        let (report, outcome, taken) = std::thread::scope(|scope| {
            let puts = scope.spawn(|| self.run(None, &signals));
            while !signals.begun.load(Ordering::Relaxed) && !puts.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let start = Instant::now();
            let outcome = disturbance();
            let taken = start.elapsed();
            signals.over.store(true, Ordering::Relaxed);
            match puts.join() {
                Ok(report) => (report, outcome, taken),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        Ok(Beside { report: report?, taken, outcome: outcome? })
    }

    fn run(&self, duration: Option<Duration>, signals: &Arc<Signals>) -> Result<Report, Failure> {
        let space = KeySpace {
            prefix: PUT_PREFIX.to_owned(),
            count: PUT_KEYS,
            seed: 1,
            value_size_bytes: PUT_VALUE_BYTES,
        };
        let config = RunConfig {
            addresses: self.addresses.clone(),
            header_style: HeaderStyle::Indexed,
            duration,
            keys: PUT_KEYS,
            epoch: self.epoch,
            progress: None,
        };
        let inner = Put::new(space, Order::Random(Random::new(1)), None);
        let group = Group {
            name: "put".to_owned(),
            connections: PUT_CONNECTIONS,
            streams: PUT_STREAMS,
            rate: Some(self.rate),
            workload: Box::new(Until { inner, signals: Arc::clone(signals) }),
        };
        run(&config, vec![vec![group]])
    }
}

/// What the thread of the puts and that of the disturbance tell each other.
#[derive(Default)]
struct Signals {
    /// The first put was sent.
    begun: AtomicBool,
    /// The disturbance is over.
    over: AtomicBool,
}

/// Puts until they are told to end.
struct Until {
    inner: Put,
    signals: Arc<Signals>,
}

impl Workload for Until {
    fn begin(&mut self, op: &mut Op, context: &mut Context<'_>, out: &mut Vec<u8>) -> Begun {
        if self.signals.over.load(Ordering::Relaxed) {
            return None;
        }
        self.signals.begun.store(true, Ordering::Relaxed);
        self.inner.begin(op, context, out)
    }

    fn handle_message(&mut self, op: &mut Op, context: &mut Context<'_>, payload: &[u8]) {
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
    fn puts_say_that_they_began_and_end_when_they_are_told() {
        let space = KeySpace { prefix: "p/".to_owned(), count: 4, seed: 1, value_size_bytes: 16 };
        let signals = Arc::new(Signals::default());
        let inner = Put::new(space, Order::Random(Random::new(1)), None);
        let mut until = Until { inner, signals: Arc::clone(&signals) };
        let (mut ledger, mut tally) = (Ledger::new(4), Tally::new("put"));
        let context = &mut Context { ledger: &mut ledger, tally: &mut tally, now_ns: 1 };
        let (mut op, mut out) = (Op::default(), Vec::new());
        assert!(!signals.begun.load(Ordering::Relaxed));
        assert_eq!(until.begin(&mut op, context, &mut out), Some(proto::PUT));
        assert!(signals.begun.load(Ordering::Relaxed));
        let answer = proto::answers::header(7);
        until.handle_message(&mut op, context, &answer);
        assert_eq!((context.ledger.writes_count(), context.ledger.wrong_count), (1, 0));
        signals.over.store(true, Ordering::Relaxed);
        assert_eq!(until.begin(&mut op, context, &mut out), None);
    }
}
