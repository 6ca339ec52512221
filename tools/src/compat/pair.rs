//! Two servers in step: whatever one is asked, the other is asked too.
//!
//! Invariants:
//! - An RPC that ringd does not serve yet is sent to neither, so that the stores stay equal; a pair
//!   that found one partly unserved is not used further.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use server::service::proto::etcdserverpb as pb;
use tokio::runtime::{Builder, Runtime};

use super::client::{Answer, Client, Metadata, Stream};
use super::compare::Comparer;
use super::exchange::{Echo, Exchange, exchange, exchange_plain};
use super::missing::Missing;
use super::servers::{Binaries, Server, Side};

/// How often members are asked again before they count as unequal, or as without a leader.
const AGREE_ATTEMPTS_MAX: usize = 200;
const AGREE_INTERVAL: Duration = Duration::from_millis(50);
const MAINTENANCE: &str = "/etcdserverpb.Maintenance/";

async fn ask<A: Message + Default>(
    client: &Client,
    method: &str,
    request: &impl Message,
) -> Option<A> {
    let path = format!("{MAINTENANCE}{method}");
    let answer = client.call(&path, request.encode_to_vec().into(), &[]).await;
    A::decode(answer.messages.into_iter().next()?).ok()
}

/// Makes the second of the members lead, unless it does.
async fn lead(addresses: &[SocketAddr]) -> Result<(), String> {
    let mut clients = Vec::new();
    for address in addresses {
        clients.push(Client::connect(*address).await?);
    }
    for _ in 0..AGREE_ATTEMPTS_MAX {
        let mut ids = Vec::new();
        let mut leader = 0;
        let mut are_settled = true;
        for client in &clients {
            let status = ask(client, "Status", &pb::StatusRequest {}).await;
            let status: pb::StatusResponse = status.unwrap_or_default();
            ids.push(status.header.map_or(0, |header| header.member_id));
            leader = status.leader;
            // A new member of etcd's takes the cluster's version over some time after it serves.
            let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
            are_settled &= minor(&status.storage_version) == minor(&status.version);
        }
        if leader != 0 && leader == ids[1] && are_settled {
            return Ok(());
        }
        if let Some(place) = ids.iter().position(|id| *id == leader && leader != 0) {
            let request = pb::MoveLeaderRequest { target_id: ids[1] };
            let _: Option<pb::MoveLeaderResponse> =
                ask(&clients[place], "MoveLeader", &request).await;
        }
        tokio::time::sleep(AGREE_INTERVAL).await;
    }
    Err("the second member does not come to lead, or a version is not taken over".to_owned())
}

/// What each member says of the whole history, with its revision.
async fn hashes_of(addresses: &[SocketAddr]) -> Vec<Option<(i64, u32)>> {
    let mut hashes = Vec::new();
    for address in addresses {
        let hash: Option<pb::HashKvResponse> = match Client::connect(*address).await {
            Ok(client) => ask(&client, "HashKV", &pb::HashKvRequest::default()).await,
            Err(_) => None,
        };
        hashes.push(hash.map(|hash| (hash.hash_revision, hash.hash)));
    }
    hashes
}

/// What the compared calls share from one pair of servers to the next.
pub struct Session {
    /// The tolerance, and what of it was used.
    pub comparer: Comparer,
    /// What ringd does not serve.
    pub missing: Missing,
}

impl Session {
    /// For servers like these.
    #[must_use]
    pub fn new(binaries: &Binaries, missing: Missing) -> Self {
        let mut comparer = Comparer::default();
        comparer.are_followers = binaries.members > 1;
        Self { comparer, missing }
    }
}

/// Both servers, and a connection to each.
pub struct Pair {
    runtime: Runtime,
    clients: [Client; 2],
    servers: [Server; 2],
}

impl Pair {
    /// Starts both servers with the same arguments.
    pub fn start(binaries: &Binaries, args: &[&str]) -> Result<Self, String> {
        let servers = Server::start_all(binaries, Side::BOTH, args)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start the client's runtime: {error}"))?;
        let [etcd, ringd] =
            [0, 1].map(|side| runtime.block_on(Client::connect(servers[side].address)));
        let pair = Self { clients: [etcd?, ringd?], runtime, servers };
        pair.make_another_lead()?;
        Ok(pair)
    }

    /// Of a cluster the second member is made to lead: so both sides are asked alike, and what the
    /// first is asked has to travel.
    fn make_another_lead(&self) -> Result<(), String> {
        for (side, server) in Side::BOTH.into_iter().zip(&self.servers) {
            let addresses = server.addresses();
            if addresses.len() < 2 {
                return Ok(());
            }
            let failed = |error: String| format!("{} has no leader: {error}", side.name());
            self.runtime.block_on(lead(&addresses)).map_err(failed)?;
        }
        Ok(())
    }

    /// Of clusters: whether all members of a side come to say the same of the whole history. What
    /// they say, if not.
    pub fn disagreement(&self) -> Option<String> {
        for (side, server) in Side::BOTH.into_iter().zip(&self.servers) {
            let addresses = server.addresses();
            let mut hashes = Vec::new();
            for _ in 0..AGREE_ATTEMPTS_MAX {
                hashes = self.runtime.block_on(hashes_of(&addresses));
                if hashes.windows(2).all(|two| two[0] == two[1] && two[0].is_some()) {
                    break;
                }
                std::thread::sleep(AGREE_INTERVAL);
            }
            if !hashes.windows(2).all(|two| two[0] == two[1] && two[0].is_some()) {
                return Some(format!("{}'s members disagree: {hashes:?}", side.name()));
            }
        }
        None
    }

    /// Asks both servers, each its own form of the request, at the same time.
    pub fn call(&self, path: &str, messages: [Bytes; 2], metadata: Metadata<'_>) -> [Answer; 2] {
        let [etcd, ringd] = messages;
        let [left, right] = &self.clients;
        self.runtime.block_on(async {
            let etcd = left.call(path, etcd, metadata);
            let ringd = right.call(path, ringd, metadata);
            let (etcd, ringd) = tokio::join!(etcd, ringd);
            [etcd, ringd]
        })
    }

    /// Opens a call on both servers.
    pub fn open(&self, path: &str, metadata: Metadata<'_>) -> Result<[Stream; 2], String> {
        let [left, right] = &self.clients;
        let open = |client: &Client| self.runtime.block_on(client.open(path, metadata));
        Ok([open(left)?, open(right)?])
    }

    /// Sends both servers the same request below gRPC.
    pub fn exchange(&self, request: &Exchange<'_>) -> [Echo; 2] {
        let [left, right] = &self.clients;
        self.runtime.block_on(async {
            let (etcd, ringd) = tokio::join!(exchange(left, request), exchange(right, request));
            [etcd, ringd]
        })
    }

    /// Sends both servers the same bytes, each on a connection of its own.
    pub fn exchange_plain(&self, request: &[u8]) -> [Echo; 2] {
        let [left, right] = &self.servers;
        self.runtime.block_on(async {
            let (etcd, ringd) = tokio::join!(
                exchange_plain(left.address, request),
                exchange_plain(right.address, request)
            );
            [etcd, ringd]
        })
    }

    /// Runs one step of a stream to its end.
    pub fn run<T>(&self, step: impl Future<Output = T>) -> T {
        self.runtime.block_on(step)
    }

    /// Asks ringd alone, which makes the stores unequal unless it refuses.
    pub fn call_ringd(&self, path: &str, message: Bytes) -> Answer {
        let [_, ringd] = &self.clients;
        self.runtime.block_on(ringd.call(path, message, &[]))
    }

    /// The end of a server's log, if its process has ended.
    pub fn ended(&mut self) -> Option<String> {
        Side::BOTH.into_iter().zip(&mut self.servers).find_map(|(side, server)| {
            server.has_ended().then(|| format!("{} has ended:\n{}", side.name(), server.log_tail()))
        })
    }
}
