//! Scrapes: `/metrics` made on a thread of its own.
//!
//! A page has two thousand lines and costs as much processor time as dozens of puts, and looking at
//! the process costs system calls; so no core does it. A front-end hands a [`Scrape`] over and is
//! woken when the page is there.
//!
//! Invariants:
//! - The thread pins a view only while it reads numbers out of it.
//! - What cores count is read from where they count it; they notice nothing.

use std::io;
use std::io::Write;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use engine::{Identity, ReadHandle};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::shared::Status;
use crate::config::{Config, ETCD_VERSION, MetricsDetail, Stage};
use crate::metrics::cell::Bounds;
use crate::metrics::{
    Fixed, MemberSample, MethodName, MethodType, Metrics, ProcessSample, Sample, StoreSample,
};
use crate::runtime::process_stats::ProcessStats;
use crate::runtime::reactor::SocketId;
use crate::runtime::wake::Waker;
use crate::service::method::Method;

/// Pages that may wait for the thread: who scrapes more often is told to come again.
const SCRAPES_MAX: usize = 64;
/// etcd's bounds for ranges.
const RANGES: Bounds = Bounds::Doubling { first: 100_000, count: 20 };
/// etcd's bounds for hashes.
const HASHES: Bounds = Bounds::Doubling { first: 10_000_000, count: 15 };

/// A page that somebody waits for.
#[derive(Debug)]
pub struct Scrape {
    /// Who asked.
    pub socket: SocketId,
    /// The client takes it compressed.
    pub gzip: bool,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Who asked.
    pub socket: SocketId,
    /// Its content, compressed if that was asked for.
    pub body: Vec<u8>,
    /// Whether it is compressed.
    pub gzip: bool,
}

/// What the thread reads.
#[derive(Debug)]
pub struct Sources {
    /// The counts.
    pub metrics: Metrics,
    /// The store.
    pub views: ReadHandle,
    /// The member.
    pub status: Arc<Status>,
    /// All members of a store that does not say.
    pub members: Vec<u64>,
    /// The moment that cores count time from.
    pub origin: Instant,
}

#[derive(Debug)]
struct Order {
    scrape: Scrape,
    pages: mpsc::Sender<Page>,
    waker: Waker,
}

/// Where scrapes are handed in; one for the process.
#[derive(Debug, Clone)]
pub struct Scraper(mpsc::SyncSender<Order>);

impl Scraper {
    /// Starts the thread. It ends when nobody can hand in a scrape any more.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(mut sources: Sources) -> io::Result<Self> {
        let (orders, inbox) = mpsc::sync_channel::<Order>(SCRAPES_MAX);
        let work = move || {
            for Order { scrape, pages, waker } in inbox {
                let body = sources.page(scrape.gzip);
                // Who asked may have stopped meanwhile.
                if pages.send(Page { socket: scrape.socket, body, gzip: scrape.gzip }).is_ok() {
                    waker.wake();
                }
            }
        };
        thread::Builder::new().name("metrics".into()).spawn(work)?;
        Ok(Self(orders))
    }

    /// A core's own end.
    #[must_use]
    pub fn desk(&self, waker: Waker) -> ScrapeDesk {
        let (sender, pages) = mpsc::channel();
        ScrapeDesk { scraper: self.clone(), sender, pages, waker }
    }
}

/// One core's end.
#[derive(Debug)]
pub struct ScrapeDesk {
    scraper: Scraper,
    sender: mpsc::Sender<Page>,
    pages: mpsc::Receiver<Page>,
    waker: Waker,
}

impl ScrapeDesk {
    /// Hands a scrape in; gives it back if too many wait.
    ///
    /// # Errors
    /// The scrape, if too many wait.
    pub fn submit(&self, scrape: Scrape) -> Result<(), Scrape> {
        let order = Order { scrape, pages: self.sender.clone(), waker: self.waker.clone() };
        self.scraper.0.try_send(order).map_err(|error| match error {
            mpsc::TrySendError::Full(order) | mpsc::TrySendError::Disconnected(order) => {
                order.scrape
            }
        })
    }

    /// The next page that is there.
    pub fn poll_page(&self) -> Option<Page> {
        self.pages.try_recv().ok()
    }
}

impl Sources {
    fn page(&mut self, gzip: bool) -> Vec<u8> {
        let mut text = Vec::new();
        let sample = self.sample();
        self.metrics.render(&sample, &mut text);
        if !gzip {
            return text;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&text).expect("a vector takes everything");
        encoder.finish().expect("a vector takes everything")
    }

    fn sample(&mut self) -> Sample {
        let status = self.status.get();
        let view = self.views.pin();
        let store = StoreSample {
            revision: view.revision.0,
            compacted: view.compacted.0,
            keys: view.key_count(),
            size_bytes: view.size_bytes,
            in_use_bytes: view.counted_in_use_bytes(),
        };
        // A store that cannot be read says so elsewhere.
        let cluster_version = view.cluster_version().ok().flatten();
        let alarms = view.alarms().unwrap_or_default();
        let members: Vec<u64> =
            view.cluster_members().unwrap_or_default().iter().map(|member| member.id.0).collect();
        drop(view);
        let members = if members.is_empty() { self.members.clone() } else { members };
        let minor = |version: String| {
            version.rsplit_once('.').map_or_else(|| version.clone(), |parts| parts.0.to_owned())
        };
        Sample {
            now: self.origin.elapsed(),
            unix: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or(Duration::ZERO),
            store,
            member: MemberSample {
                leader: status.leader,
                committed: status.committed,
                applied: status.applied,
                is_learner: status.learner,
                cluster_version: cluster_version.map(minor),
                members,
                alarms,
            },
            process: process_sample(&ProcessStats::read()),
        }
    }
}

fn process_sample(stats: &ProcessStats) -> ProcessSample {
    ProcessSample {
        cpu_seconds: stats.cpu_seconds,
        start_seconds: stats.start_seconds,
        resident_bytes: stats.resident_bytes,
        virtual_bytes: stats.virtual_bytes,
        virtual_bytes_max: stats.virtual_bytes_max,
        descriptors: stats.descriptors,
        descriptors_max: stats.descriptors_max,
        network_received_bytes: stats.network_received_bytes,
        network_sent_bytes: stats.network_sent_bytes,
    }
}

/// What does not change while the process runs.
#[must_use]
pub fn fixed(config: &Config, identity: Identity, quota_bytes: u64) -> Fixed {
    Fixed {
        member: identity.member.0,
        server_version: ETCD_VERSION,
        toolchain: concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
        quota_bytes,
        features: config
            .features
            .all()
            .map(|(gate, is_on)| (gate.name, stage_of(gate.stage), is_on))
            .collect(),
        methods: method_names(),
        is_extensive: config.metrics == MetricsDetail::Extensive,
    }
}

const fn stage_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Alpha => "ALPHA",
        Stage::Beta => "BETA",
    }
}

/// All methods, by their number.
#[must_use]
pub fn method_names() -> Vec<MethodName> {
    Method::ALL.iter().map(|method| method_name(*method)).collect()
}

fn method_name(method: Method) -> MethodName {
    let mut parts = method.path()[1..].split('/');
    let (service, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    MethodName {
        service,
        method: name,
        kind: match (method.client_streams(), method.server_streams()) {
            (false, false) => MethodType::Unary,
            (true, false) => MethodType::ClientStream,
            (false, true) => MethodType::ServerStream,
            (true, true) => MethodType::BidiStream,
        },
        request: request_name(method),
        bounds: match method {
            Method::Range => Some(RANGES),
            Method::Hash | Method::HashKv => Some(HASHES),
            _ => None,
        },
    }
}

/// The requests that etcd times, by the names it has for them in its log.
fn request_name(method: Method) -> Option<&'static str> {
    Some(match method {
        Method::Range => "Range",
        Method::Put => "Put",
        Method::DeleteRange => "DeleteRange",
        Method::Txn => "Txn",
        Method::Compact => "Compaction",
        Method::LeaseGrant => "LeaseGrant",
        Method::LeaseRevoke => "LeaseRevoke",
        Method::Alarm => "Alarm",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_named_as_its_path_names_it() {
        let names = method_names();
        assert_eq!(names.len(), Method::ALL.len());
        let watch = names[Method::Watch.index()];
        assert_eq!((watch.service, watch.method), ("etcdserverpb.Watch", "Watch"));
        assert_eq!(watch.kind, MethodType::BidiStream);
        let hash = names[Method::HashKv.index()];
        assert_eq!((hash.method, hash.kind), ("HashKV", MethodType::Unary));
    }
}
