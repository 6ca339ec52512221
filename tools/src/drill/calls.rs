//! What the oracle's words are on the wire, and what the wire's answers are in the oracle's.
//!
//! Invariants:
//! - A call that may have reached a member and has no answer leaves its fate open, and so does a
//!   refusal that does not say that nothing was done.
//! - After a call without an answer the connection is given up: the next one makes its own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::record::Record;
use crate::oracle::history::{Answer, Found, OpId, Request};
use crate::rpc::client::{Client, NO_STATUS, Status};
use crate::rpc::wire::etcdserverpb::{self as pb, compare, request_op, response_op};
use crate::rpc::wire::mvccpb;
use crate::sim::values;

/// What a member that runs needs to take a connection, and a hundred times more.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// A member that serves answers within its own time-out of seven seconds, if only with an error.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(9);
/// What the probes for life and leaders wait.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The question never left.
    NotAsked(String),
    /// The member said no.
    Refused(Status),
    /// Nothing is known.
    Unknown(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAsked(text) | Self::Unknown(text) => f.write_str(text),
            Self::Refused(status) => write!(f, "{}: {}", status.code, status.text),
        }
    }
}

/// Calls one member, one call at a time.
pub struct Caller {
    address: SocketAddr,
    client: Option<Client>,
}

impl Caller {
    /// One that is not connected yet.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, client: None }
    }

    /// Makes a call with one message each way.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn call<A: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
        limit: Duration,
    ) -> Result<A, NoAnswer> {
        if self.client.is_none() {
            let connected =
                tokio::time::timeout(CONNECT_TIME_MAX, Client::connect(self.address)).await;
            let client = connected
                .unwrap_or_else(|_| Err("no connection in time".to_owned()))
                .map_err(NoAnswer::NotAsked)?;
            self.client = Some(client);
        }
        let client = self.client.take().expect("it was just made");
        let message = Bytes::from(request.encode_to_vec());
        let called = tokio::time::timeout(limit, client.call(path, message, &[])).await;
        let answer = called.map_err(|_| NoAnswer::Unknown("no answer in time".to_owned()))?;
        match answer.status.code {
            0 => {}
            NO_STATUS => return Err(NoAnswer::Unknown(answer.status.text)),
            _ => {
                self.client = Some(client);
                return Err(NoAnswer::Refused(answer.status));
            }
        }
        self.client = Some(client);
        let message = answer.messages.into_iter().next();
        let message = message.ok_or_else(|| NoAnswer::Unknown("an empty answer".to_owned()))?;
        A::decode(message).map_err(|error| NoAnswer::Unknown(error.to_string()))
    }

    /// Does what a client wants and writes down how it went.
    ///
    /// # Errors
    /// It was answered with something else than what was asked for.
    pub async fn perform(
        &mut self,
        record: &Record,
        request: &Request,
        size_bytes: usize,
        limit: Duration,
    ) -> Result<Result<Answer, NoAnswer>, String> {
        let id = record.begin(request);
        let answer = match self.ask(id, request, size_bytes, limit).await {
            Ok(answer) => answer.ok_or_else(|| format!("{request:?} was answered wrongly"))?,
            Err(reason) if is_certain(&reason) => {
                record.end(id, Answer::Refused);
                return Ok(Err(reason));
            }
            Err(reason) => return Ok(Err(reason)),
        };
        record.end(id, answer.clone());
        Ok(Ok(answer))
    }

    async fn ask(
        &mut self,
        id: OpId,
        request: &Request,
        size_bytes: usize,
        limit: Duration,
    ) -> Result<Option<Answer>, NoAnswer> {
        let value = values::of(id, size_bytes);
        Ok(match request {
            Request::Put { key, lease } => {
                let put = pb::PutRequest {
                    key: key.clone(),
                    value,
                    lease: *lease,
                    ..pb::PutRequest::default()
                };
                let answer: pb::PutResponse =
                    self.call("/etcdserverpb.KV/Put", &put, limit).await?;
                revision_of(answer.header).map(|revision| Answer::Written { revision })
            }
            Request::Delete { from, to } => {
                let delete = pb::DeleteRangeRequest {
                    key: from.clone(),
                    range_end: to.clone(),
                    prev_kv: false,
                };
                let path = "/etcdserverpb.KV/DeleteRange";
                let answer: pb::DeleteRangeResponse = self.call(path, &delete, limit).await?;
                let count = answer.deleted;
                revision_of(answer.header).map(|revision| Answer::Deleted { revision, count })
            }
            Request::Swap { key, expected } => {
                let swap = swap(key, *expected, value);
                swapped(self.call("/etcdserverpb.KV/Txn", &swap, limit).await?)
            }
            Request::Read { from, to, may_be_stale } => {
                let range = pb::RangeRequest {
                    key: from.clone(),
                    range_end: to.clone(),
                    serializable: *may_be_stale,
                    ..pb::RangeRequest::default()
                };
                let path = "/etcdserverpb.KV/Range";
                let answer: pb::RangeResponse = self.call(path, &range, limit).await?;
                let found = found_in(answer.kvs);
                revision_of(answer.header).map(|revision| Answer::Read { revision, found })
            }
        })
    }
}

fn swap(key: &[u8], expected: i64, value: Vec<u8>) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: key.to_vec(),
        target_union: Some(compare::TargetUnion::ModRevision(expected)),
        ..pb::Compare::default()
    };
    let put = pb::PutRequest { key: key.to_vec(), value, ..pb::PutRequest::default() };
    let range = pb::RangeRequest { key: key.to_vec(), ..pb::RangeRequest::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
        failure: vec![pb::RequestOp { request: Some(request_op::Request::RequestRange(range)) }],
    }
}

/// `None` if the branch that was taken is not the one that was told.
fn swapped(answer: pb::TxnResponse) -> Option<Answer> {
    let revision = revision_of(answer.header)?;
    let response = answer.responses.into_iter().next()?.response?;
    let instead = match response {
        response_op::Response::ResponsePut(_) if answer.succeeded => None,
        response_op::Response::ResponseRange(range) if !answer.succeeded => {
            Some(found_in(range.kvs))
        }
        _ => return None,
    };
    Some(Answer::Swapped { revision, instead })
}

/// The revision that stands first in an answer.
#[must_use]
pub fn revision_of(header: Option<pb::ResponseHeader>) -> Option<i64> {
    header.map(|header| header.revision)
}

fn found_in(records: Vec<mvccpb::KeyValue>) -> Vec<Found> {
    let found = records.into_iter().map(|record| Found {
        value: values::brief(&record.value),
        key: record.key,
        created: record.create_revision,
        changed: record.mod_revision,
        version: record.version,
        lease: record.lease,
    });
    found.collect()
}

/// Whether nothing was done, and never will be.
fn is_certain(reason: &NoAnswer) -> bool {
    match reason {
        NoAnswer::NotAsked(_) => true,
        NoAnswer::Unknown(_) => false,
        // Refused by its form or for want of a lease, before anything was proposed or as what was
        // applied. A time-out and a lost leader are open; so is a quota that is used up: what was
        // applied is refused for it, too.
        NoAnswer::Refused(Status { code, text }) => match code {
            3 | 5 | 9 | 11 => true,
            _ => ["etcdserver: no leader", "etcdserver: too many requests"].contains(&&text[..]),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u32, text: &str) -> NoAnswer {
        NoAnswer::Refused(Status { code, text: text.to_owned() })
    }

    #[test]
    fn only_what_says_so_was_certainly_not_done() {
        assert!(is_certain(&NoAnswer::NotAsked(String::new())));
        assert!(is_certain(&refused(14, "etcdserver: no leader")));
        assert!(is_certain(&refused(5, "etcdserver: requested lease not found")));
        assert!(is_certain(&refused(8, "etcdserver: too many requests")));
        assert!(!is_certain(&refused(8, "etcdserver: mvcc: database space exceeded")));
        assert!(!is_certain(&refused(14, "etcdserver: request timed out")));
        assert!(!is_certain(&refused(14, "etcdserver: leader changed")));
        assert!(!is_certain(&refused(4, "context deadline exceeded")));
        assert!(!is_certain(&NoAnswer::Unknown(String::new())));
    }

    #[test]
    fn a_swap_must_be_answered_by_its_branch() {
        let header = Some(pb::ResponseHeader { revision: 9, ..pb::ResponseHeader::default() });
        let put = response_op::Response::ResponsePut(pb::PutResponse::default());
        let range = response_op::Response::ResponseRange(pb::RangeResponse::default());
        let answer = |succeeded, response| pb::TxnResponse {
            header,
            succeeded,
            responses: vec![pb::ResponseOp { response: Some(response) }],
        };
        let done = Some(Answer::Swapped { revision: 9, instead: None });
        assert_eq!(swapped(answer(true, put.clone())), done);
        let not = Some(Answer::Swapped { revision: 9, instead: Some(Vec::new()) });
        assert_eq!(swapped(answer(false, range.clone())), not);
        assert_eq!(swapped(answer(false, put)), None);
        assert_eq!(swapped(answer(true, range)), None);
    }
}
