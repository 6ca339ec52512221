//! Watchers as a disturbance: many that are told much, one that has much to catch up with, and some
//! that do not read.
//!
//! Invariants:
//! - The crowd's keys are not those of the puts that are timed, so that both servers are asked for
//!   the same number of events however fast they put.
//! - Who catches up is told every revision of the history once, in order, or the sample fails.

use std::time::Instant;

use super::CompareArgs;
use super::disturbed::Extra;
use crate::client::blocking::Blocking;
use crate::failure::Failure;
use crate::load::{Kind, LoadArgs, measure};
use crate::proto::{self, WatchAnswer};
use crate::workload::KeySpace;

/// The connections of the crowd, each with one stream, as a client library has it.
pub const CROWD_CONNECTIONS: usize = 10;
/// The keys that the crowd is told of.
const CROWD_KEYS: u64 = 1000;
const CROWD_PREFIX: &str = "watched/";
/// Connections that do not read, each with one stream.
const DEAF_CONNECTIONS: usize = 10;
/// Watches on each of them: enough that what they are told fills every window and socket within
/// seconds, and would fill the memory.
const DEAF_WATCHES: u64 = 100;

/// The crowd and who puts for it.
pub fn crowd(endpoint: &str, args: &CompareArgs) -> LoadArgs {
    LoadArgs {
        connections: CROWD_CONNECTIONS,
        streams: 1,
        watches: args.watchers / CROWD_CONNECTIONS,
        put_connections: 1,
        put_streams: 10,
        put_rate: Some(args.watched_rate),
        duration: args.duration,
        keys: CROWD_KEYS,
        prefix: CROWD_PREFIX.to_owned(),
        ..LoadArgs::new(Kind::Watch, endpoint)
    }
}

/// Lets the crowd watch.
pub fn watch(crowd: &LoadArgs, epoch: Instant) -> Result<Extra, Failure> {
    let report = measure(crowd, epoch)?;
    if !report.is_clean() {
        return Err(Failure::new(format!("the crowd: {}", report.complaints.join("; "))));
    }
    let events = &report.tallies[0];
    Ok(vec![
        ("events", events.operations_count as f64),
        ("event p50 us", events.quantile_ns(0.5) as f64 / 1e3),
        ("event p99 us", events.quantile_ns(0.99) as f64 / 1e3),
    ])
}

/// Watches the keys of a load from one revision on until it was told another one.
pub fn catch_up(
    client: &mut Blocking,
    load: &LoadArgs,
    first: u64,
    last: u64,
) -> Result<Extra, Failure> {
    let space = KeySpace {
        prefix: load.prefix.clone(),
        count: load.keys,
        seed: load.seed,
        value_size_bytes: load.value_size,
    };
    let mut create = Vec::new();
    let prefix = space.prefix.as_bytes();
    proto::write_watch_create(&mut create, prefix, &space.range_end(), first, 1);
    let start = Instant::now();
    client.open_stream(proto::WATCH, &[create])?;
    let mut next = first;
    client.read_stream(proto::WATCH, |message| {
        let answer = WatchAnswer::read(message).map_err(|_| malformed())?;
        if answer.canceled {
            return Err(Failure::new("the late watch was cancelled"));
        }
        for event in answer.events() {
            let (_, record) = event.map_err(|_| malformed())?;
            if record.mod_revision != next {
                let told = record.mod_revision;
                return Err(Failure::new(format!("revision {told} was told in place of {next}")));
            }
            next += 1;
        }
        Ok(next > last)
    })?;
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    Ok(vec![("caught up events/s", (next - first) as f64 / seconds)])
}

/// Watchers of a prefix who have been created and then read nothing, until they are dropped.
pub fn deaf(
    connect: impl Fn() -> Result<Blocking, Failure>,
    prefix: &str,
) -> Result<Vec<Blocking>, Failure> {
    let range_end = [prefix.as_bytes(), b"~"].concat();
    let creates: Vec<Vec<u8>> = (1..=DEAF_WATCHES)
        .map(|watch_id| {
            let mut create = Vec::new();
            proto::write_watch_create(&mut create, prefix.as_bytes(), &range_end, 0, watch_id);
            create
        })
        .collect();
    let mut clients = Vec::new();
    for _ in 0..DEAF_CONNECTIONS {
        let mut client = connect()?;
        client.open_stream(proto::WATCH, &creates)?;
        let mut created = 0;
        client.read_stream(proto::WATCH, |message| {
            let answer = WatchAnswer::read(message).map_err(|_| malformed())?;
            created += u64::from(answer.created);
            Ok(created == DEAF_WATCHES)
        })?;
        clients.push(client);
    }
    Ok(clients)
}

fn malformed() -> Failure {
    Failure::new("a watch's answer is malformed")
}
