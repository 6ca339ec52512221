//! What a case says to both servers, and what was unlike in their answers.
//!
//! A case never looks at differences itself: every call compares whole answers and notes what it
//! found. What a call returns is etcd's answer, for the next request to build on.
//!
//! Invariants:
//! - Once a case has asked for an RPC that ringd does not serve yet, it says nothing more: later
//!   calls return empty answers, and the case counts as missing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use prost_reflect::DynamicMessage;

use super::calling::Calling;
use super::client::{Answer, Metadata, Status};
use super::compare::Comparer;
use super::missing;
use super::pair::{Pair, Session};
use super::watching::Watching;
use super::wire::{self, etcdserverpb as pb};

/// What a server has not decided by then it never will.
const WANTED_TIME_MAX: Duration = Duration::from_secs(15);
const WANTED_INTERVAL: Duration = Duration::from_millis(50);

/// The paths of RPCs that have methods here.
mod path {
    pub const RANGE: &str = "/etcdserverpb.KV/Range";
    pub const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
    pub const PUT: &str = "/etcdserverpb.KV/Put";
    pub const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
    pub const TXN: &str = "/etcdserverpb.KV/Txn";
    pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
    pub const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
    pub const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
    pub const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
    pub const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    pub const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
    pub const LEASE_LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";
}

/// Something unlike, and what led to it.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What was asked.
    pub asked: String,
    /// What differs, a line each.
    pub lines: Vec<String>,
    /// Both whole answers, etcd's first.
    pub answers: [String; 2],
}

/// The two answers to a call.
#[derive(Clone, Debug)]
pub struct Reply<A> {
    /// How etcd ended the call.
    pub status: Status,
    /// What etcd and ringd answered.
    pub both: [A; 2],
}

impl<A: Default> Reply<A> {
    /// What a case gets that is over.
    fn none() -> Self {
        Self { status: Status { code: 0, text: String::new() }, both: Default::default() }
    }
}

impl<A> Reply<A> {
    /// What etcd answered.
    pub fn etcd(self) -> A {
        let [etcd, _] = self.both;
        etcd
    }
}

/// One case's talk with both servers.
pub struct Conversation<'a> {
    pub(super) pair: &'a mut Pair,
    pub(super) session: &'a mut Session,
    prefix: String,
    revision: i64,
    missing: Option<&'static str>,
    is_pair_spent: bool,
    /// A compaction that was ordered without waiting for its end, and is not known to be over.
    compacting: Option<i64>,
    /// What was unlike, in order.
    pub differences: Vec<Difference>,
    /// Calls compared.
    pub calls: u64,
    pub(super) watchings: Vec<Option<Watching>>,
    pub(super) callings: Vec<Option<Calling>>,
}

#[allow(clippy::needless_pass_by_value, reason = "a case makes a request to send it")]
impl<'a> Conversation<'a> {
    /// A talk whose keys begin with a prefix of their own.
    pub fn new(pair: &'a mut Pair, session: &'a mut Session, prefix: &str) -> Self {
        Self {
            pair,
            session,
            prefix: format!("{prefix}/"),
            revision: 0,
            missing: None,
            is_pair_spent: false,
            compacting: None,
            differences: Vec::new(),
            calls: 0,
            watchings: Vec::new(),
            callings: Vec::new(),
        }
    }

    /// A key of this case.
    pub fn key(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.prefix).into_bytes()
    }

    /// What ends the range of all keys of this case that begin with `name`.
    pub fn end(&self, name: &str) -> Vec<u8> {
        let mut key = self.key(name);
        *key.last_mut().expect("the prefix ends with a slash") += 1;
        key
    }

    /// The store's revision by the newest answer that told one.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The RPC that ended this case early, if ringd does not serve it yet.
    pub fn missing(&self) -> Option<&'static str> {
        self.missing
    }

    /// Whether there is no sense in going on.
    pub fn is_over(&self) -> bool {
        self.missing.is_some()
    }

    /// Whether etcd has done something that ringd does not serve yet: their stores are unequal.
    pub fn is_pair_spent(&self) -> bool {
        self.is_pair_spent
    }

    /// Notes something unlike that no answer shows.
    pub fn note(&mut self, asked: &str, lines: Vec<String>) {
        let difference = Difference { asked: asked.to_owned(), lines, answers: Default::default() };
        self.differences.push(difference);
    }

    /// Asks both servers the same.
    pub fn ask<Q: Message, A: Message + Default>(&mut self, path: &str, request: &Q) -> Reply<A> {
        let bytes = Bytes::from(request.encode_to_vec());
        self.ask_with(path, [bytes.clone(), bytes], &[])
    }

    /// Asks the same again and again until etcd's and ringd's answers are as wanted, and compares
    /// these. For what a server decides some time after its start.
    pub fn ask_until<Q: Message, A: Message + Default>(
        &mut self,
        path: &str,
        request: &Q,
        is_wanted: &dyn Fn(&A) -> bool,
    ) {
        if self.stops_at(path) {
            return;
        }
        let bytes = Bytes::from(request.encode_to_vec());
        let end = Instant::now() + WANTED_TIME_MAX;
        let is_wanted = |answer: &Answer| A::decode(merged(answer)).is_ok_and(|it| is_wanted(&it));
        while Instant::now() < end {
            let answers = self.pair.call(path, [bytes.clone(), bytes.clone()], &[]);
            if answers.iter().all(is_wanted) {
                break;
            }
            self.pair.run(async { tokio::time::sleep(WANTED_INTERVAL).await });
        }
        self.ask::<Q, A>(path, request);
    }

    /// Asks each server its own form of the same, as when ids differ.
    pub fn ask_each<Q: Message, A: Message + Default>(
        &mut self,
        path: &str,
        requests: [Q; 2],
    ) -> Reply<A> {
        self.ask_with(path, requests.map(|request| Bytes::from(request.encode_to_vec())), &[])
    }

    /// Asks with bytes and header fields of the case's own choice.
    pub fn ask_with<A: Message + Default>(
        &mut self,
        path: &str,
        requests: [Bytes; 2],
        metadata: Metadata<'_>,
    ) -> Reply<A> {
        if self.stops_at(path) {
            return Reply::none();
        }
        let answers = self.pair.call(path, requests.clone(), metadata);
        if let Some(path) = missing::refused(path, &answers[1].status) {
            self.missing = Some(path);
            self.is_pair_spent = true;
            return Reply::none();
        }
        self.calls += 1;
        let merged = answers.each_ref().map(merged);
        let lines = self.unlike(path, &answers, &merged);
        if !lines.is_empty() {
            let asked = asked(path, &requests);
            let answers = [0, 1].map(|side| shown(path, &answers[side].status, &merged[side]));
            self.differences.push(Difference { asked, lines, answers });
        }
        self.learn_revision(path, &merged[0]);
        // What is no message of the type was reported above.
        let both = merged.map(|bytes| A::decode(bytes).unwrap_or_default());
        let [Answer { status, .. }, _] = answers;
        Reply { status, both }
    }

    /// Whether the case is over, or is now because of this RPC.
    pub(super) fn stops_at(&mut self, path: &str) -> bool {
        self.missing = self.missing.or_else(|| self.session.missing.rpc(path));
        self.missing.is_some()
    }

    fn unlike(&mut self, path: &str, answers: &[Answer; 2], merged: &[Bytes; 2]) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(Comparer::statuses(&answers[0].status, &answers[1].status));
        if let Some(method) = wire::method(path) {
            let counts = answers.each_ref().map(|answer| answer.messages.len());
            // How a long answer is cut into messages is the server's own affair, but not whether
            // there is one.
            if counts.map(|count| count.min(1)) != counts.map(|_| counts[0].min(1)) {
                lines.push(format!("messages: etcd {} | ringd {}", counts[0], counts[1]));
            }
            lines.extend(self.session.comparer.bytes(&method.output(), [&merged[0], &merged[1]]));
        }
        lines
    }

    pub(super) fn learn_revision(&mut self, path: &str, answer: &Bytes) {
        let Some(method) = wire::method(path) else { return };
        let Ok(message) = DynamicMessage::decode(method.output(), answer.clone()) else { return };
        let header = message.get_field_by_name("header");
        let header = header.as_ref().and_then(|header| header.as_message());
        let revision = header.and_then(|header| header.get_field_by_name("revision")?.as_i64());
        self.revision = self.revision.max(revision.unwrap_or(0));
    }

    /// Range.
    pub fn range(&mut self, request: pb::RangeRequest) -> Reply<pb::RangeResponse> {
        self.ask(path::RANGE, &request)
    }

    /// Range, once both servers count so many keys: for what a call that waits has done.
    pub fn range_until(&mut self, request: pb::RangeRequest, count: i64) {
        let is_wanted = |answer: &pb::RangeResponse| answer.count == count;
        self.ask_until(path::RANGE, &request, &is_wanted);
    }

    /// RangeStream, whose messages are merged into one.
    pub fn range_stream(&mut self, request: pb::RangeRequest) -> Reply<pb::RangeStreamResponse> {
        self.ask(path::RANGE_STREAM, &request)
    }

    /// Put.
    pub fn put(&mut self, request: pb::PutRequest) -> Reply<pb::PutResponse> {
        self.ask(path::PUT, &request)
    }

    /// DeleteRange.
    pub fn delete(&mut self, request: pb::DeleteRangeRequest) -> Reply<pb::DeleteRangeResponse> {
        self.ask(path::DELETE_RANGE, &request)
    }

    /// Txn.
    pub fn txn(&mut self, request: pb::TxnRequest) -> Reply<pb::TxnResponse> {
        self.ask(path::TXN, &request)
    }

    /// Compact.
    pub fn compact(&mut self, revision: i64, physical: bool) -> Reply<pb::CompactionResponse> {
        self.finish_compaction();
        let reply = self.ask(path::COMPACT, &pb::CompactionRequest { revision, physical });
        let is_begun = reply.status.code == 0 && !physical && !self.is_over();
        self.compacting = is_begun.then_some(revision);
        reply
    }

    /// Waits for the end of a compaction that was only ordered. Until then etcd tells the hash of
    /// what is left at its revision, and then the hash the compaction found; one that is ordered
    /// while another runs finds none. Which it is would be chance.
    fn finish_compaction(&mut self) {
        let Some(revision) = self.compacting.take() else { return };
        let request = pb::HashKvRequest { revision };
        self.ask_until(path::HASH_KV, &request, &|hash: &pb::HashKvResponse| {
            hash.compact_revision != revision
        });
    }

    /// HashKV.
    pub fn hash_kv(&mut self, revision: i64) -> Reply<pb::HashKvResponse> {
        self.finish_compaction();
        self.ask(path::HASH_KV, &pb::HashKvRequest { revision })
    }

    /// LeaseGrant.
    pub fn lease_grant(&mut self, id: i64, ttl: i64) -> Reply<pb::LeaseGrantResponse> {
        self.ask(path::LEASE_GRANT, &pb::LeaseGrantRequest { id, ttl })
    }

    /// LeaseRevoke of each server's id.
    pub fn lease_revoke(&mut self, ids: [i64; 2]) -> Reply<pb::LeaseRevokeResponse> {
        self.ask_each(path::LEASE_REVOKE, ids.map(|id| pb::LeaseRevokeRequest { id }))
    }

    /// LeaseKeepAlive, with one message on a stream that then ends.
    pub fn lease_keep_alive(&mut self, ids: [i64; 2]) -> Reply<pb::LeaseKeepAliveResponse> {
        self.ask_each(path::LEASE_KEEP_ALIVE, ids.map(|id| pb::LeaseKeepAliveRequest { id }))
    }

    /// LeaseTimeToLive of each server's id.
    pub fn lease_time_to_live(
        &mut self,
        ids: [i64; 2],
        keys: bool,
    ) -> Reply<pb::LeaseTimeToLiveResponse> {
        let requests = ids.map(|id| pb::LeaseTimeToLiveRequest { id, keys });
        self.ask_each(path::LEASE_TIME_TO_LIVE, requests)
    }

    /// LeaseLeases.
    pub fn lease_leases(&mut self) -> Reply<pb::LeaseLeasesResponse> {
        self.ask(path::LEASE_LEASES, &pb::LeaseLeasesRequest {})
    }
}

/// The messages of an answer as one: in protobuf, to concatenate is to merge.
fn merged(answer: &Answer) -> Bytes {
    match answer.messages.as_slice() {
        [one] => one.clone(),
        messages => Bytes::from(messages.concat()),
    }
}

/// A request in a report; both forms of it if they differ.
fn asked(path: &str, requests: &[Bytes; 2]) -> String {
    let text = |request: &Bytes| match wire::method(path) {
        Some(method) => wire::text(method.input(), request),
        None => format!("{} bytes", request.len()),
    };
    let [etcd, ringd] = requests.each_ref().map(text);
    let name = path.rsplit('/').next().unwrap_or(path);
    if etcd == ringd {
        format!("{name} {{{etcd}}}")
    } else {
        format!("{name} {{{etcd}}} | {{{ringd}}}")
    }
}

/// An answer in a report.
fn shown(path: &str, status: &Status, answer: &Bytes) -> String {
    let message = wire::method(path).map(|method| wire::text(method.output(), answer));
    let code = super::compare::code_name(status.code);
    format!("{code} {:?} {{{}}}", status.text, message.unwrap_or_default())
}
