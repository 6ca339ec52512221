//! Observing an election: the leader there is, and every one after it.

use std::collections::VecDeque;

use prost::Message;

use super::super::method::Method;
use super::super::proto::etcdserverpb as pb;
use super::super::proto::mvccpb::{Event, KeyValue, event::EventType};
use super::super::proto::v3electionpb as election_pb;
use super::recipe::{first_request, prefix_end, prefix_of, watch_step};
use super::{Failed, Step, decoded};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    /// Who leads?
    Asking,
    /// Nobody leads: the first put under the prefix.
    AwaitingPut,
    /// The leader's key, until it is deleted.
    Following,
}

/// An observer; it creates nothing.
#[derive(Debug)]
pub(super) struct Observer {
    doing: Doing,
    name: Vec<u8>,
    /// Messages that wait for those before them to be sent.
    messages: VecDeque<Vec<u8>>,
    /// What comes after them.
    then: Option<Step>,
}

impl Observer {
    pub(super) fn new(name: &[u8]) -> (Self, Step) {
        let observer = Self {
            doing: Doing::Asking,
            name: name.to_vec(),
            messages: VecDeque::new(),
            then: None,
        };
        let step = observer.ask();
        (observer, step)
    }

    fn ask(&self) -> Step {
        Step::Call(Method::Range, first_request(&self.name).encode_to_vec())
    }

    /// An error ends the observation without a word, as in etcd.
    pub(super) fn handle_answer(&mut self, answer: Result<&[u8], Failed>) -> Option<Step> {
        let Ok(range) = decoded::<pb::RangeResponse>(answer) else { return Some(Step::End) };
        let revision = range.header.as_ref().map_or(0, |header| header.revision);
        match range.kvs.into_iter().next() {
            Some(kv) => self.follow(range.header, kv, revision + 1),
            None => {
                self.doing = Doing::AwaitingPut;
                let prefix = prefix_of(&self.name);
                Some(watch_step(&prefix, prefix_end(&prefix), revision))
            }
        }
    }

    pub(super) fn handle_watched(&mut self, response: pb::WatchResponse) -> Option<Step> {
        if response.canceled {
            self.then = Some(Step::End);
            return self.next_step();
        }
        let header = response.header;
        match self.doing {
            Doing::Asking => None,
            Doing::AwaitingPut => {
                let is_put = |event: &Event| event.r#type() == EventType::Put;
                let kv = response.events.into_iter().find(is_put)?.kv?;
                // A response may hold several revisions; the leader is that of the first put.
                let revision = kv.mod_revision;
                let header = header.map(|header| pb::ResponseHeader { revision, ..header });
                self.follow(header, kv, revision + 1)
            }
            Doing::Following => {
                for event in response.events {
                    if event.r#type() == EventType::Delete {
                        self.doing = Doing::Asking;
                        self.then = Some(self.ask());
                        break;
                    }
                    self.push(header, event.kv);
                }
                self.next_step()
            }
        }
    }

    fn follow(
        &mut self,
        header: Option<pb::ResponseHeader>,
        kv: KeyValue,
        from: i64,
    ) -> Option<Step> {
        self.doing = Doing::Following;
        self.then = Some(watch_step(&kv.key, Vec::new(), from));
        self.push(header, Some(kv));
        self.next_step()
    }

    fn push(&mut self, header: Option<pb::ResponseHeader>, kv: Option<KeyValue>) {
        let response = election_pb::LeaderResponse { header, kv };
        self.messages.push_back(response.encode_to_vec());
    }

    /// The next message, or what comes when all are sent.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        self.messages.pop_front().map(Step::Send).or_else(|| self.then.take())
    }
}
