//! Two servers in step: whatever one is asked, the other is asked too.
//!
//! Invariants:
//! - An RPC that ringd does not serve yet is sent to neither, so that the stores stay equal; a pair
//!   that found one partly unserved is not used further.

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::client::{Answer, Client, Metadata, Stream};
use super::compare::Comparer;
use super::exchange::{Echo, Exchange, exchange, exchange_plain};
use super::missing::Missing;
use super::servers::{Binaries, Server, Side};

/// What the compared calls share from one pair of servers to the next.
#[derive(Default)]
pub struct Session {
    /// The tolerance, and what of it was used.
    pub comparer: Comparer,
    /// What ringd does not serve.
    pub missing: Missing,
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
        Ok(Self { clients: [etcd?, ringd?], runtime, servers })
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
