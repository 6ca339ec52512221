//! `bench load`: one workload against a running server.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use clap::{Args, Parser, ValueEnum};

use crate::client::HeaderStyle;
use crate::failure::Failure;
use crate::report::Report;
use crate::run::{Group, RunConfig, run};
use crate::workload::{
    Grant, KeepAlive, KeySpace, Leases, List, Order, Put, Random, Read, Share, TxnUpdate,
    VALUE_BYTES_MIN, Watch, Workload,
};

/// More keys than this would not fit into the ten digits of a key or the memory of the checks.
const KEYS_MAX: u64 = 1 << 28;
/// A server may raise a shorter time to live, and then the answers could not be checked; a shorter
/// one might also run out between its grant and its first keep-alive.
const KEPT_ALIVE_TTL_SECONDS_MIN: u64 = 30;

/// What is done to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Put one key.
    Put,
    /// Read one key, linearizably.
    Get,
    /// Read one key from whatever state the member has.
    GetSerializable,
    /// Read --range-keys neighbouring keys.
    Range,
    /// Put a key if its mod_revision is the known one, else learn it and try again.
    TxnUpdate,
    /// Watch all keys while --put-connections put.
    Watch,
    /// Read keys while --put-connections put.
    Mixed,
    /// List all keys, --page-keys a page.
    List,
    /// Put every key once.
    Fill,
    /// Grant --leases leases, each with a key.
    Grant,
    /// Keep --leases leases alive, --in-flight at a time on each stream.
    KeepAlive,
}

/// The order in which keys are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OrderKind {
    /// Any key, evenly.
    Random,
    /// One after the other.
    Sequential,
}

/// How requests name their headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HeaderKind {
    /// By index in the server's dynamic table, as gRPC's own clients do.
    Indexed,
    /// In full, each time.
    Literal,
}

/// The keys, their values and the streams.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// The workload.
    #[arg(value_enum)]
    pub kind: Kind,
    /// The server's client address, host:port; the members of a cluster with commas between.
    #[arg(long, default_value = "127.0.0.1:2379")]
    pub endpoint: String,
    /// Connections to the server.
    #[arg(long, short = 'c', default_value_t = 8)]
    pub connections: usize,
    /// Streams that are kept busy on each connection.
    #[arg(long, short = 's', default_value_t = 8)]
    pub streams: usize,
    /// For how long operations are sent.
    #[arg(long, short = 'd', default_value = "5s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How many operations are sent, instead of a duration.
    #[arg(long, short = 'n')]
    pub operations: Option<u64>,
    /// Operations a second (open loop); without it each answer is followed by the next request.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Load for so long before measuring.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// The length of a value.
    #[arg(long, default_value_t = 256)]
    pub value_size: usize,
    /// What every key begins with.
    #[arg(long, default_value = "bench/")]
    pub prefix: String,
    /// The order of keys.
    #[arg(long, value_enum, default_value = "random")]
    pub order: OrderKind,
    /// What keys, order and values are derived from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keys of a range.
    #[arg(long, default_value_t = 1000)]
    pub range_keys: u64,
    /// Keys of a page.
    #[arg(long, default_value_t = 500)]
    pub page_keys: u64,
    /// Connections that put, beside those that watch or read.
    #[arg(long, default_value_t = 10)]
    pub put_connections: usize,
    /// Streams on each of the connections that put.
    #[arg(long, default_value_t = 100)]
    pub put_streams: usize,
    /// Puts a second (open loop), beside those that watch or read.
    #[arg(long)]
    pub put_rate: Option<f64>,
    /// Watches on each watch stream.
    #[arg(long, default_value_t = 10)]
    pub watches: usize,
    /// How many leases there are.
    #[arg(long, default_value_t = 1000)]
    pub leases: u64,
    /// How long a lease lives.
    #[arg(long, default_value_t = 3600)]
    pub ttl_seconds: u64,
    /// Keep-alives that are out on a stream at a time.
    #[arg(long, default_value_t = 8)]
    pub in_flight: usize,
    /// The keys or leases exist already: they need not be made before they are read or kept alive.
    #[arg(long)]
    pub no_fill: bool,
    /// Threads of the client.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// How requests name their headers.
    #[arg(long, value_enum, default_value = "indexed")]
    pub headers: HeaderKind,
}

impl LoadArgs {
    /// A workload against an endpoint with everything else at the command line's defaults.
    pub fn new(kind: Kind, endpoint: &str) -> Self {
        /// The arguments as a command line of their own.
        #[derive(Parser)]
        struct Defaults {
            #[command(flatten)]
            args: LoadArgs,
        }
        let kind_value = kind.to_possible_value().expect("no kind is skipped");
        let line = ["bench", kind_value.get_name(), "--endpoint", endpoint];
        Defaults::parse_from(line).args
    }
}

/// Runs the command; the result is whether all was clean.
pub fn command(args: &LoadArgs) -> Result<bool, Failure> {
    check(args)?;
    let epoch = Instant::now();
    let mut clean = true;
    let reads = [Kind::Get, Kind::GetSerializable, Kind::Range, Kind::List, Kind::Mixed];
    if reads.contains(&args.kind) && !args.no_fill {
        let report = fill(args, epoch)?;
        print!("{}", report.to_text());
        clean &= report.is_clean();
    }
    if args.kind == Kind::KeepAlive && !args.no_fill {
        let report = grant(args, epoch)?;
        print!("{}", report.to_text());
        clean &= report.is_clean();
    }
    if !args.warm_up.is_zero() {
        let warm_up = LoadArgs { duration: args.warm_up, operations: None, ..args.clone() };
        clean &= measure(&warm_up, epoch)?.is_clean();
    }
    let report = measure(args, epoch)?;
    print!("{}", report.to_text());
    Ok(clean && report.is_clean())
}

/// Puts every key once, on ten connections of a hundred streams.
pub fn fill(args: &LoadArgs, epoch: Instant) -> Result<Report, Failure> {
    let fill = LoadArgs {
        kind: Kind::Fill,
        connections: 10,
        streams: 100,
        rate: None,
        threads: 1,
        ..args.clone()
    };
    measure(&fill, epoch)
}

/// Grants every lease once, with its key, on ten connections of a hundred streams.
pub fn grant(args: &LoadArgs, epoch: Instant) -> Result<Report, Failure> {
    let grant = LoadArgs {
        kind: Kind::Grant,
        connections: 10,
        streams: 100,
        rate: None,
        threads: 1,
        ..args.clone()
    };
    measure(&grant, epoch)
}

/// Runs one workload.
pub fn measure(args: &LoadArgs, epoch: Instant) -> Result<Report, Failure> {
    let unlimited = args.operations.is_some() || matches!(args.kind, Kind::Fill | Kind::Grant);
    let config = RunConfig {
        addresses: resolve_all(&args.endpoint)?,
        header_style: header_style(args.headers),
        duration: (!unlimited).then_some(args.duration),
        keys: args.keys.max(args.leases),
        epoch,
        progress: Some(format!("{:?}", args.kind).to_lowercase()),
    };
    let threads = args.threads.min(args.connections);
    run(&config, (0..threads).map(|thread| groups(args, thread, threads)).collect())
}

/// The groups of one of several threads.
fn groups(args: &LoadArgs, thread: usize, threads: usize) -> Vec<Group> {
    let connections = share(args.connections, thread, threads);
    let slots = connections * args.streams;
    let group = |name: &str, workload| Group {
        name: name.to_owned(),
        connections,
        streams: args.streams,
        rate: args.rate.map(|rate| rate / threads as f64),
        workload,
    };
    let space = space(args);
    let order = order(args, thread, threads);
    let operations_max =
        args.operations.map(|operations| share_of_operations(operations, thread, threads));
    let read = |keys, serializable| {
        boxed(Read::new(space.clone(), order.clone(), operations_max, keys, serializable))
    };
    match args.kind {
        Kind::Put => vec![group("put", boxed(Put::new(space, order, operations_max)))],
        Kind::Fill => {
            let order = Order::Sequential { next: thread as u64, stride: threads as u64 };
            let operations = share_of_operations(args.keys, thread, threads);
            vec![group("fill", boxed(Put::new(space, order, Some(operations))))]
        }
        Kind::Get => vec![group("get", read(1, false))],
        Kind::GetSerializable => vec![group("get", read(1, true))],
        Kind::Range => vec![group("range", read(args.range_keys, false))],
        Kind::TxnUpdate => {
            vec![group("txn-update", boxed(TxnUpdate::new(space, order, operations_max)))]
        }
        Kind::List => {
            let list = List::new(space, args.page_keys, slots, args.operations);
            vec![group("list", boxed(list))]
        }
        Kind::Grant => {
            let grant = Grant::new(leases(args), lease_space(args), thread as u64, threads as u64);
            vec![group("grant", boxed(grant))]
        }
        Kind::KeepAlive => {
            let share = Share { slots, thread, threads };
            let keep_alive = KeepAlive::new(leases(args), share, args.in_flight, operations_max);
            vec![group("keep-alive", boxed(keep_alive))]
        }
        Kind::Mixed => vec![group("get", read(1, false)), puts(args, thread, threads)],
        Kind::Watch => {
            let watch = boxed(Watch::new(space, slots, args.watches));
            vec![Group { rate: None, ..group("watch", watch) }, puts(args, thread, threads)]
        }
    }
}

/// The group that puts while another reads or watches.
fn puts(args: &LoadArgs, thread: usize, threads: usize) -> Group {
    Group {
        name: "put".to_owned(),
        connections: share(args.put_connections, thread, threads),
        streams: args.put_streams,
        rate: args.put_rate.map(|rate| rate / threads as f64),
        workload: boxed(Put::new(space(args), order(args, thread, threads), args.operations)),
    }
}

fn boxed(workload: impl Workload + 'static) -> Box<dyn Workload> {
    Box::new(workload)
}

fn space(args: &LoadArgs) -> KeySpace {
    KeySpace {
        prefix: args.prefix.clone(),
        count: args.keys,
        seed: args.seed,
        value_size_bytes: args.value_size,
    }
}

fn leases(args: &LoadArgs) -> Leases {
    Leases { count: args.leases, seed: args.seed, ttl_seconds: args.ttl_seconds }
}

/// The keys of the leases, outside of the prefix whose keys the other loads count.
pub fn lease_space(args: &LoadArgs) -> KeySpace {
    KeySpace { prefix: format!("lease-{}", args.prefix), count: args.leases, ..space(args) }
}

fn order(args: &LoadArgs, thread: usize, threads: usize) -> Order {
    match args.order {
        OrderKind::Random => Order::Random(Random::new(args.seed ^ (thread as u64) << 48)),
        OrderKind::Sequential => Order::Sequential { next: thread as u64, stride: threads as u64 },
    }
}

/// What one of several threads gets of a number, without remainder over all of them.
fn share(number: usize, thread: usize, threads: usize) -> usize {
    number / threads + usize::from(thread < number % threads)
}

fn share_of_operations(number: u64, thread: usize, threads: usize) -> u64 {
    number / threads as u64 + u64::from((thread as u64) < number % threads as u64)
}

/// Refuses what cannot be run.
pub fn check(args: &LoadArgs) -> Result<(), Failure> {
    let refuse = |text: &str| Err(Failure::new(text));
    let writers_only = [Kind::Watch].contains(&args.kind);
    if args.connections == 0 || args.streams == 0 || args.threads == 0 || args.watches == 0 {
        return refuse("there must be at least one connection, stream, thread and watch");
    }
    if args.connections * args.streams + args.put_connections * args.put_streams > 1 << 20 {
        return refuse("more than a million streams");
    }
    if args.keys == 0 || args.keys > KEYS_MAX {
        return refuse("--keys must be between 1 and 268435456");
    }
    if args.value_size < VALUE_BYTES_MIN {
        return refuse("--value-size must be at least 8: a value opens with its generation");
    }
    if args.kind == Kind::Range && !(1..=args.keys).contains(&args.range_keys) {
        return refuse("--range-keys must be between 1 and --keys");
    }
    if args.page_keys == 0 {
        return refuse("--page-keys must be above 0");
    }
    if args.rate.iter().chain(&args.put_rate).any(|&rate| !rate.is_finite() || rate <= 0.0) {
        return refuse("a rate must be above 0");
    }
    if args.leases == 0 || args.leases > KEYS_MAX || args.in_flight == 0 || args.ttl_seconds == 0 {
        return refuse("--leases, --in-flight and --ttl-seconds must be above 0");
    }
    if args.kind == Kind::KeepAlive {
        if args.ttl_seconds < KEPT_ALIVE_TTL_SECONDS_MIN {
            return refuse("--ttl-seconds must be at least 30 for leases that are kept alive");
        }
        if args.rate.is_some() {
            return refuse("keep-alives go as fast as they are answered; --in-flight bounds them");
        }
    }
    if writers_only && args.threads > 1 {
        return refuse("watch runs on one thread: its checks need to see every write");
    }
    Ok(())
}

fn header_style(kind: HeaderKind) -> HeaderStyle {
    match kind {
        HeaderKind::Indexed => HeaderStyle::Indexed,
        HeaderKind::Literal => HeaderStyle::Literal,
    }
}

/// The addresses of endpoints with commas between.
pub fn resolve_all(endpoints: &str) -> Result<Vec<SocketAddr>, Failure> {
    endpoints.split(',').map(resolve).collect()
}

/// The first address of an endpoint.
pub fn resolve(endpoint: &str) -> Result<SocketAddr, Failure> {
    let bare = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    let mut addresses =
        bare.to_socket_addrs().map_err(Failure::of(format!("look up {endpoint}")))?;
    addresses.next().ok_or_else(|| Failure::new(format!("{endpoint} has no address")))
}

/// A duration such as `250ms`, `5s` or `2m`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let number: f64 = number.parse().map_err(|_| format!("{text} is no duration"))?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        _ => return Err(format!("{text} is no duration: the units are us, ms, s and m")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert!(parse_duration("5h").is_err());
        assert!(parse_duration("ms").is_err());
    }

    #[test]
    fn endpoints_have_commas_between() {
        let ports = |text: &str| -> Vec<u16> {
            resolve_all(text).unwrap().iter().map(SocketAddr::port).collect()
        };
        assert_eq!(ports("127.0.0.1:1"), [1]);
        assert_eq!(ports("127.0.0.1:1,http://127.0.0.1:2"), [1, 2]);
        assert!(resolve_all("127.0.0.1:1,").is_err());
    }

    #[test]
    fn threads_share_everything_without_remainder() {
        for threads in 1..7 {
            let total: usize = (0..threads).map(|thread| share(10, thread, threads)).sum();
            assert_eq!(total, 10);
            let total: u64 =
                (0..threads).map(|thread| share_of_operations(11, thread, threads)).sum();
            assert_eq!(total, 11);
        }
    }
}
