//! Claiming a key and waiting for those who claimed before: what locks and campaigns share.

use prost::Message;
use prost::bytes::Bytes;

use super::super::method::Method;
use super::super::proto::etcdserverpb as pb;
use super::super::proto::mvccpb;
use super::super::proto::{v3electionpb as election_pb, v3lockpb as lock_pb};
use super::{Failed, NOT_LEADER, Step, decoded};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};

/// Deletes one key.
pub(super) fn delete_request(key: &[u8]) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: Bytes::copy_from_slice(key), ..pb::DeleteRangeRequest::default() }
}

/// Claims of a name lie under it and a slash.
pub(super) fn prefix_of(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// The first key behind such a prefix: the byte after the slash.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let (_, name) = prefix.split_last().expect("a prefix ends with a slash");
    [name, b"0"].concat()
}

/// The key under a name that was created first.
pub(super) fn first_request(name: &[u8]) -> pb::RangeRequest {
    ordered_request(&prefix_of(name), SortOrder::Ascend)
}

fn ordered_request(prefix: &[u8], order: SortOrder) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: prefix_end(prefix).into(),
        limit: 1,
        sort_order: order as i32,
        sort_target: SortTarget::Create as i32,
        ..pb::RangeRequest::default()
    }
}

fn get_request(key: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key), ..pb::RangeRequest::default() }
}

fn created_at(key: &[u8], revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: Bytes::copy_from_slice(key),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..pb::Compare::default()
    }
}

fn put_op(key: &[u8], value: &[u8], lease: i64) -> pb::RequestOp {
    let request = pb::PutRequest {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        lease,
        ..pb::PutRequest::default()
    };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(request)) }
}

fn range_op(request: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(request)) }
}

/// Gives a leader's key another value, if it is still that leader's.
pub(super) fn proclaim_request(
    key: &[u8],
    created: i64,
    value: &[u8],
    lease: i64,
) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![created_at(key, created)],
        success: vec![put_op(key, value, lease)],
        failure: Vec::new(),
    }
}

/// Takes a leader's key away, if it is still that leader's.
pub(super) fn resign_request(key: &[u8], created: i64) -> pb::TxnRequest {
    let request = pb::request_op::Request::RequestDeleteRange(delete_request(key));
    pb::TxnRequest {
        compare: vec![created_at(key, created)],
        success: vec![pb::RequestOp { request: Some(request) }],
        failure: Vec::new(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Lock,
    Leadership,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// The transaction that puts the key, or finds it.
    Claiming,
    /// A campaign found its key with another value.
    Proclaiming,
    /// Who came before?
    Asking,
    /// Until the key before is deleted.
    Watching,
    /// A lock that was waited for: is its key still there?
    Confirming,
    /// A proclamation failed: the key goes, then the call fails.
    Resigning,
    /// A wait failed: the key goes, then the call fails.
    Releasing,
}

/// A key under a prefix on its way to be the oldest.
#[derive(Debug)]
pub(super) struct Claim {
    wanted: Wanted,
    doing: Doing,
    name: Vec<u8>,
    prefix: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    lease: i64,
    /// When the key was created; 0 until that is known.
    created: i64,
    header: Option<pb::ResponseHeader>,
    /// What a call that cleans up before it fails will say.
    failed: Failed,
}

impl Claim {
    pub(super) fn lock(name: &[u8], lease: i64) -> (Self, Step) {
        let claim = Self::new(Wanted::Lock, name, b"", lease);
        let owner = || range_op(ordered_request(&claim.prefix, SortOrder::Ascend));
        let txn = pb::TxnRequest {
            compare: vec![created_at(&claim.key, 0)],
            success: vec![put_op(&claim.key, b"", lease), owner()],
            failure: vec![range_op(get_request(&claim.key)), owner()],
        };
        let step = Step::Call(Method::Txn, txn.encode_to_vec());
        (claim, step)
    }

    pub(super) fn campaign(name: &[u8], value: &[u8], lease: i64) -> (Self, Step) {
        let claim = Self::new(Wanted::Leadership, name, value, lease);
        let txn = pb::TxnRequest {
            compare: vec![created_at(&claim.key, 0)],
            success: vec![put_op(&claim.key, value, lease)],
            failure: vec![range_op(get_request(&claim.key))],
        };
        let step = Step::Call(Method::Txn, txn.encode_to_vec());
        (claim, step)
    }

    fn new(wanted: Wanted, name: &[u8], value: &[u8], lease: i64) -> Self {
        let prefix = prefix_of(name);
        let key = [&prefix[..], format!("{lease:x}").as_bytes()].concat();
        Self {
            wanted,
            doing: Doing::Claiming,
            name: name.to_vec(),
            prefix,
            key,
            value: value.to_vec(),
            lease,
            created: 0,
            header: None,
            failed: Failed::new(),
        }
    }

    pub(super) fn handle_answer(&mut self, answer: Result<&[u8], Failed>) -> Option<Step> {
        let next = match self.doing {
            Doing::Claiming => decoded(answer).map(|txn| self.handle_claimed(txn)),
            Doing::Proclaiming => self.handle_proclaimed(answer),
            Doing::Asking => self.handle_before(answer),
            Doing::Confirming => self.handle_confirmed(answer),
            // A watch answers through `handle_watched`.
            Doing::Watching => return None,
            Doing::Resigning | Doing::Releasing => {
                return Some(Step::Fail(std::mem::take(&mut self.failed)));
            }
        };
        Some(next.unwrap_or_else(Step::Fail))
    }

    pub(super) fn handle_watched(&mut self, response: &pb::WatchResponse) -> Option<Step> {
        if self.doing != Doing::Watching {
            return None;
        }
        let deleted = |event: &mvccpb::Event| event.r#type() == mvccpb::event::EventType::Delete;
        if response.events.iter().any(deleted) {
            return Some(self.ask_before());
        }
        if response.canceled {
            return Some(self.release(watch_failure(response)));
        }
        None
    }

    pub(super) fn give_up(self) -> Option<(Method, Vec<u8>)> {
        // Before the key's revision is known etcd's client has nothing to release either.
        if self.created == 0 {
            return None;
        }
        match (self.wanted, self.doing) {
            (_, Doing::Resigning | Doing::Releasing) => None,
            (Wanted::Lock, _) => {
                Some((Method::DeleteRange, delete_request(&self.key).encode_to_vec()))
            }
            (Wanted::Leadership, _) => {
                Some((Method::Txn, resign_request(&self.key, self.created).encode_to_vec()))
            }
        }
    }

    fn handle_claimed(&mut self, txn: pb::TxnResponse) -> Step {
        let revision = txn.header.as_ref().map_or(0, |header| header.revision);
        let mut found = txn.responses.into_iter().map(|response| match response.response {
            Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        let own = found.next().flatten();
        let owner = found.next().flatten();
        self.header = txn.header;
        self.created = match &own {
            Some(own) if !txn.succeeded => own.create_revision,
            _ => revision,
        };
        match self.wanted {
            Wanted::Lock => {
                let is_own = owner.is_none_or(|owner| owner.create_revision == self.created);
                if is_own { self.finish() } else { self.ask_before() }
            }
            Wanted::Leadership => match own {
                Some(own) if !txn.succeeded && own.value != self.value => {
                    self.doing = Doing::Proclaiming;
                    let Self { key, created, value, lease, .. } = self;
                    let request = proclaim_request(key, *created, value, *lease);
                    Step::Call(Method::Txn, request.encode_to_vec())
                }
                _ => self.ask_before(),
            },
        }
    }

    fn handle_proclaimed(&mut self, answer: Result<&[u8], Failed>) -> Result<Step, Failed> {
        let failed = match decoded::<pb::TxnResponse>(answer) {
            Ok(txn) if txn.succeeded => return Ok(self.ask_before()),
            Ok(_) => NOT_LEADER.to_owned(),
            Err(text) => text,
        };
        self.doing = Doing::Resigning;
        self.failed = failed;
        // etcd's client has forgotten its key by then, so that it resigns nothing; the compare of
        // ours finds the key of another, or none.
        let request = resign_request(&self.key, self.created);
        Ok(Step::Call(Method::Txn, request.encode_to_vec()))
    }

    fn ask_before(&mut self) -> Step {
        self.doing = Doing::Asking;
        let request = pb::RangeRequest {
            max_create_revision: self.created - 1,
            ..ordered_request(&self.prefix, SortOrder::Descend)
        };
        Step::Call(Method::Range, request.encode_to_vec())
    }

    fn handle_before(&mut self, answer: Result<&[u8], Failed>) -> Result<Step, Failed> {
        let range = match decoded::<pb::RangeResponse>(answer) {
            Ok(range) => range,
            Err(text) => return Ok(self.release(text)),
        };
        let Some(before) = range.kvs.into_iter().next() else {
            if self.wanted == Wanted::Leadership {
                return Ok(self.finish());
            }
            self.doing = Doing::Confirming;
            let request = get_request(&self.key);
            return Ok(Step::Call(Method::Range, request.encode_to_vec()));
        };
        self.doing = Doing::Watching;
        let revision = range.header.map_or(0, |header| header.revision);
        Ok(watch_step(&before.key, Vec::new(), revision))
    }

    fn handle_confirmed(&mut self, answer: Result<&[u8], Failed>) -> Result<Step, Failed> {
        let range = match decoded::<pb::RangeResponse>(answer) {
            Ok(range) => range,
            Err(text) => return Ok(self.release(text)),
        };
        if range.kvs.is_empty() {
            return Err("mutex: session is expired".to_owned());
        }
        self.header = range.header;
        Ok(self.finish())
    }

    /// A wait failed: a lock's key is released before the call fails; a candidate's stays.
    fn release(&mut self, text: Failed) -> Step {
        if self.wanted == Wanted::Leadership {
            return Step::Fail(text);
        }
        self.doing = Doing::Releasing;
        self.failed = text;
        Step::Call(Method::DeleteRange, delete_request(&self.key).encode_to_vec())
    }

    fn finish(&mut self) -> Step {
        let header = self.header.take();
        let key = Bytes::from(std::mem::take(&mut self.key));
        Step::Answer(match self.wanted {
            Wanted::Lock => lock_pb::LockResponse { header, key }.encode_to_vec(),
            Wanted::Leadership => {
                let name = Bytes::from(std::mem::take(&mut self.name));
                let leader =
                    election_pb::LeaderKey { name, key, rev: self.created, lease: self.lease };
                election_pb::CampaignResponse { header, leader: Some(leader) }.encode_to_vec()
            }
        })
    }
}

/// Watches a key, or a range of keys, from a revision on.
pub(super) fn watch_step(key: &[u8], range_end: Vec<u8>, revision: i64) -> Step {
    let create = pb::WatchCreateRequest {
        key: Bytes::copy_from_slice(key),
        range_end: range_end.into(),
        start_revision: revision,
        ..pb::WatchCreateRequest::default()
    };
    let request = pb::watch_request::RequestUnion::CreateRequest(create);
    Step::Watch(pb::WatchRequest { request_union: Some(request) }.encode_to_vec())
}

/// Why a watch ended, in the words of etcd's client.
fn watch_failure(response: &pb::WatchResponse) -> Failed {
    if response.compact_revision != 0 {
        return "etcdserver: mvcc: required revision has been compacted".to_owned();
    }
    if response.cancel_reason.is_empty() {
        return "lost watcher waiting for delete".to_owned();
    }
    response.cancel_reason.clone()
}
