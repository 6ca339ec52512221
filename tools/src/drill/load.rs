//! The clients and the watchers, in a thread of their own.
//!
//! What a client wants next is drawn as the simulator draws it; large values and puts that fill a
//! disk up come on top. One watcher at each member wants to know everything from the beginning, and
//! takes up where it was after every break.
//!
//! Invariants:
//! - Nothing is compacted that a watcher has not been told: then every watcher knows all history.
//! - The first thing that is wrong is kept, and ends nothing: what follows it may explain it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::sleep;

use super::calls::{ANSWER_TIME_MAX, Caller, NoAnswer, revision_of};
use super::record::Record;
use super::witness::{Told, Witness};
use crate::oracle::history::Request;
use crate::rpc::client::{Client, Stream, StreamEvent};
use crate::rpc::wire::etcdserverpb::{self as pb, watch_request::RequestUnion};
use crate::sim::clients::{self, Habits, Wish};
use crate::sim::random::Random;

/// What clients ask.
const HABITS: Habits = Habits { compact_once_in: 400, lease_once_in: 5, reads_mostly: false };
/// A client does nothing for so long at most.
const THINK_MICROS_MAX: u64 = 40_000;
/// Behind a failure it waits: a member that is down refuses in microseconds.
const PAUSE: Duration = Duration::from_millis(50);
/// What fills a disk up, beside all keys that anybody else writes or reads.
const FILLING_KEY: &[u8] = b"z";
const FILLING_BYTES: usize = 256 << 10;
/// More than a log has in store: 128 MiB.
const FILLING_PUTS_MAX: usize = 512;
/// Most values are small; one in so many is not.
const LARGE_ONCE_IN: u64 = 50;
const LARGE_BYTES_MAX: u64 = 40_000;
const SMALL_BYTES_MAX: u64 = 300;
/// A watcher that was told nothing for so long asks how far it is.
const QUIET: Duration = Duration::from_millis(700);
const WATCH_PATH: &str = "/etcdserverpb.Watch/Watch";

/// What clients, watchers and the drill share.
pub struct Shared {
    /// What was asked and answered.
    pub record: Record,
    /// By member: where its clients connect.
    pub addresses: Vec<SocketAddr>,
    /// By member: up to where its watcher was told.
    told: Vec<AtomicI64>,
    witness: Mutex<Witness>,
    clients_are_over: AtomicBool,
    /// How many clients have not ended yet.
    clients: AtomicU64,
    watchers_are_over: AtomicBool,
    is_filling: AtomicBool,
    wrong: Mutex<Option<String>>,
}

impl Shared {
    /// The history that watchers were told.
    pub fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong, if anything is.
    pub fn wrong(&self) -> Option<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complain(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    /// Whether values that fill a disk up are put.
    pub fn fill(&self, is_filling: bool) {
        self.is_filling.store(is_filling, Ordering::Relaxed);
    }

    /// Up to where every watcher was told.
    pub fn told_by_all(&self) -> i64 {
        let told = self.told.iter().map(|told| told.load(Ordering::Relaxed));
        told.min().unwrap_or(Told::NOTHING.0)
    }

    /// Whether all clients have ended.
    pub fn clients_have_ended(&self) -> bool {
        self.clients.load(Ordering::Relaxed) == 0
    }

    fn goes_on(over: &AtomicBool) -> bool {
        !over.load(Ordering::Relaxed)
    }
}

/// The running load.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts so many clients, and a watcher at each member.
    ///
    /// # Errors
    /// There is no runtime for them.
    pub fn start(addresses: &[SocketAddr], clients: u64, seed: u64) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            record: Record::new(),
            addresses: addresses.to_vec(),
            told: addresses.iter().map(|_| AtomicI64::new(Told::NOTHING.0)).collect(),
            witness: Mutex::default(),
            clients_are_over: AtomicBool::new(false),
            // The one that fills disks up is one more.
            clients: AtomicU64::new(clients + 1),
            watchers_are_over: AtomicBool::new(false),
            is_filling: AtomicBool::new(false),
            wrong: Mutex::new(None),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("runtime: {error}"))?;
        let used = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime.block_on(run(&used, clients, Random::new(seed)));
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What it shares.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Lets the clients end; watchers go on.
    pub fn end_clients(&self) {
        self.shared.clients_are_over.store(true, Ordering::Relaxed);
    }

    /// Lets all end and waits for it.
    pub fn end(&mut self) {
        self.end_clients();
        self.shared.watchers_are_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.shared.complain("a client panicked".to_owned());
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

async fn run(shared: &Arc<Shared>, clients: u64, mut random: Random) {
    let mut tasks = Vec::new();
    for number in 1..=clients {
        let client = clients::Client::new(number, random.split(number));
        tasks.push(tokio::spawn(ask(Arc::clone(shared), client, random.split(1000 + number))));
    }
    tasks.push(tokio::spawn(fill(Arc::clone(shared))));
    for place in 0..shared.addresses.len() {
        tasks.push(tokio::spawn(watch(Arc::clone(shared), place)));
    }
    for task in tasks {
        if task.await.is_err() {
            shared.complain("a client panicked".to_owned());
        }
    }
}

/// A client: one wish after the other.
async fn ask(shared: Arc<Shared>, mut client: clients::Client, mut random: Random) {
    let callers = || shared.addresses.iter().map(|&address| Caller::new(address));
    let mut callers: Vec<Caller> = callers().collect();
    let members = callers.len();
    client.place = random.place(members);
    while Shared::goes_on(&shared.clients_are_over) {
        sleep(Duration::from_micros(client.think(THINK_MICROS_MAX))).await;
        let wish = client.wish(members, shared.told_by_all(), HABITS);
        let caller = &mut callers[client.place];
        let is_answered = match wish {
            Wish::Operation(request) => {
                let most =
                    if random.once_in(LARGE_ONCE_IN) { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX };
                let size = usize::try_from(random.below(most)).expect("few bytes");
                let limit = ANSWER_TIME_MAX;
                match caller.perform(&shared.record, &request, size, limit).await {
                    Ok(Ok(answer)) => {
                        client.handle_answer(&request, &answer);
                        true
                    }
                    Ok(Err(reason)) => {
                        if matches!(request, Request::Put { lease, .. } if lease != 0) {
                            client.handle_lease_lost();
                        }
                        matches!(reason, NoAnswer::Refused(_))
                    }
                    Err(wrong) => {
                        shared.complain(wrong);
                        true
                    }
                }
            }
            Wish::Compact(revision) => {
                let compact = pb::CompactionRequest { revision, physical: false };
                let path = "/etcdserverpb.KV/Compact";
                let answer = caller.call(path, &compact, ANSWER_TIME_MAX).await;
                // Somebody else may have compacted more.
                !matches!(answer, Err::<pb::CompactionResponse, _>(NoAnswer::NotAsked(_)))
            }
            Wish::Grant(lease) => {
                let (id, ttl) = (lease.id.0, lease.ttl_seconds);
                let granted = grant(&shared.record, caller, id, ttl).await;
                if granted {
                    client.handle_granted(lease);
                }
                granted
            }
            Wish::Renew(lease) => {
                let renewed = renew(&shared.record, caller, lease.0).await;
                if renewed == Some(false) {
                    client.handle_lease_lost();
                }
                renewed.is_some()
            }
        };
        if !is_answered {
            client.place = random.place(members);
            sleep(PAUSE).await;
        }
    }
    shared.clients.fetch_sub(1, Ordering::Relaxed);
}

async fn grant(record: &Record, caller: &mut Caller, id: i64, ttl: i64) -> bool {
    let request = pb::LeaseGrantRequest { id, ttl };
    let asked = record.now();
    let path = "/etcdserverpb.Lease/LeaseGrant";
    let answer: Result<pb::LeaseGrantResponse, _> =
        caller.call(path, &request, ANSWER_TIME_MAX).await;
    let Ok(answer) = answer else { return false };
    record.promise(id, asked, answer.ttl);
    true
}

/// Whether the lease is there, if that was told.
async fn renew(record: &Record, caller: &mut Caller, id: i64) -> Option<bool> {
    let request = pb::LeaseKeepAliveRequest { id };
    let asked = record.now();
    let path = "/etcdserverpb.Lease/LeaseKeepAlive";
    let answer: Result<pb::LeaseKeepAliveResponse, _> =
        caller.call(path, &request, ANSWER_TIME_MAX).await;
    let answer = answer.ok()?;
    if answer.ttl > 0 {
        record.promise(id, asked, answer.ttl);
    }
    Some(answer.ttl > 0)
}

/// Puts large values while a disk is to be full.
async fn fill(shared: Arc<Shared>) {
    let callers = || shared.addresses.iter().map(|&address| Caller::new(address));
    let mut callers: Vec<Caller> = callers().collect();
    let (mut place, mut left) = (0, FILLING_PUTS_MAX);
    while Shared::goes_on(&shared.clients_are_over) {
        let is_filling = shared.is_filling.load(Ordering::Relaxed);
        if !is_filling || left == 0 {
            left = if is_filling { 0 } else { FILLING_PUTS_MAX };
            sleep(PAUSE).await;
            continue;
        }
        left -= 1;
        place = (place + 1) % callers.len();
        let put = Request::Put { key: FILLING_KEY.to_vec(), lease: 0 };
        let limit = ANSWER_TIME_MAX;
        match callers[place].perform(&shared.record, &put, FILLING_BYTES, limit).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => sleep(PAUSE).await,
            Err(wrong) => shared.complain(wrong),
        }
    }
    shared.clients.fetch_sub(1, Ordering::Relaxed);
}

/// A watcher at a member, from one connection to the next.
async fn watch(shared: Arc<Shared>, place: usize) {
    let mut told = Told::NOTHING;
    while Shared::goes_on(&shared.watchers_are_over) {
        match watch_once(&shared, place, &mut told).await {
            Ok(()) => sleep(PAUSE).await,
            Err(wrong) => {
                shared.complain(format!("watcher at member {}: {wrong}", place + 1));
                // Whatever it is told from here on would be wrong as well.
                return;
            }
        }
    }
}

async fn watch_once(shared: &Shared, place: usize, told: &mut Told) -> Result<(), String> {
    let connected = tokio::time::timeout(QUIET, Client::connect(shared.addresses[place])).await;
    let Ok(Ok(client)) = connected else { return Ok(()) };
    let opened = tokio::time::timeout(QUIET, client.open(WATCH_PATH, &[])).await;
    let Ok(Ok(mut stream)) = opened else { return Ok(()) };
    let create = pb::WatchCreateRequest {
        key: b"\0".to_vec(),
        range_end: b"\0".to_vec(),
        start_revision: told.0 + 1,
        ..pb::WatchCreateRequest::default()
    };
    send(&mut stream, RequestUnion::CreateRequest(create));
    while Shared::goes_on(&shared.watchers_are_over) {
        match stream.receive(QUIET).await {
            Some(StreamEvent::Message(message)) => {
                let response = pb::WatchResponse::decode(message)
                    .map_err(|error| format!("it was told what is no message: {error}"))?;
                take(shared, &response, told)?;
                shared.told[place].store(told.0, Ordering::Relaxed);
            }
            Some(StreamEvent::Ended(_)) => return Ok(()),
            None => send(&mut stream, RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
        }
    }
    Ok(())
}

fn send(stream: &mut Stream, request: RequestUnion) {
    let request = pb::WatchRequest { request_union: Some(request) };
    stream.send(&Bytes::from(request.encode_to_vec()));
}

fn take(shared: &Shared, response: &pb::WatchResponse, told: &mut Told) -> Result<(), String> {
    if response.canceled {
        let (reason, compacted) = (&response.cancel_reason, response.compact_revision);
        return Err(format!("it was ended at {}: {reason}, compacted {compacted}", told.0));
    }
    if response.events.is_empty() {
        // Progress: it has been told everything up to here. What is said at the beginning is not.
        let revision = revision_of(response.header).unwrap_or(0);
        if !response.created && revision > told.0 {
            return Err(format!("it is said to know {revision}, and knows {}", told.0));
        }
        return Ok(());
    }
    shared.witness().take(told, &response.events, shared.record.now())
}
