//! The Lock and Election services: small programs over KV, Lease and Watch, run by the server.
//!
//! etcd runs its own client inside the server for them, and so their rules are those of that
//! client's recipes: a claimant puts a key under the prefix, attached to its lease; whose key was
//! created first holds the lock or leads; who waits watches the key created last before its own.
//!
//! Sans-IO: a [`Procedure`] says through [`Procedure::poll_step`] what it wants next, as requests
//! that any client could have sent, and is told how each ended. Its owner runs them through the
//! same door as a client's own.
//!
//! Invariants:
//! - At most one request or one watch is under way.
//! - A claimant that is given up while it waits takes its key away again.
//! - Every error has etcd's text and, as etcd forgets to translate them here, no code of its own.

mod election;
mod recipe;
#[cfg(test)]
mod tests;

use prost::Message;

use super::method::Method;
use super::proto::etcdserverpb as pb;
use super::proto::{v3electionpb as election_pb, v3lockpb as lock_pb};
use super::status::Refusal;
use election::Observer;
use recipe::{Claim, delete_request, first_request, proclaim_request, resign_request};

/// Seconds of the lease that a caller without one is granted; nobody keeps it alive.
const SESSION_TTL_SECONDS: i64 = 60;

/// What a procedure wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Run this request; tell with [`Procedure::handle_answer`] how it ended.
    Call(Method, Vec<u8>),
    /// Watch; tell each response with [`Procedure::handle_watched`]. A watch before ends.
    Watch(Vec<u8>),
    /// Send this message and go on.
    Send(Vec<u8>),
    /// Answer with this message; it is over.
    Answer(Vec<u8>),
    /// Fail with this text under no code of its own; it is over.
    Fail(String),
    /// End well without a further message; it is over.
    End,
}

/// A failure's text.
type Failed = String;

/// What goes on once there is a lease.
#[derive(Debug)]
enum Job {
    Lock(lock_pb::LockRequest),
    Campaign(election_pb::CampaignRequest),
    Proclaim(election_pb::LeaderKey, Vec<u8>),
    Resign(election_pb::LeaderKey),
}

#[derive(Debug)]
enum State {
    /// A lease is being granted.
    Session(Job),
    /// A key is claimed, or waited for.
    Claim(Box<Claim>),
    Unlock,
    Proclaim,
    Resign,
    Leader,
    Observe(Observer),
    /// It was given up: what is under way is not answered any more.
    Over,
}

/// A call of one of the two services in the course of being answered.
#[derive(Debug)]
pub struct Procedure {
    state: State,
    step: Option<Step>,
}

impl Procedure {
    /// Whether a method is one of these.
    #[must_use]
    pub const fn serves(method: Method) -> bool {
        matches!(
            method,
            Method::Lock
                | Method::Unlock
                | Method::Campaign
                | Method::Proclaim
                | Method::Leader
                | Method::Observe
                | Method::Resign
        )
    }

    /// A call with its message.
    ///
    /// # Errors
    /// The message cannot be read.
    pub fn begin(method: Method, message: &[u8]) -> Result<Self, Refusal> {
        let mut procedure = Self { state: State::Over, step: None };
        match method {
            Method::Lock => {
                let request = lock_pb::LockRequest::decode(message)?;
                procedure.open_session(request.lease, Job::Lock(request));
            }
            Method::Unlock => {
                let request = lock_pb::UnlockRequest::decode(message)?;
                procedure.call(State::Unlock, Method::DeleteRange, &delete_request(&request.key));
            }
            Method::Campaign => {
                let request = election_pb::CampaignRequest::decode(message)?;
                procedure.open_session(request.lease, Job::Campaign(request));
            }
            Method::Proclaim => {
                let request = election_pb::ProclaimRequest::decode(message)?;
                let value = request.value.to_vec();
                procedure.speak(request.leader, |leader| Job::Proclaim(leader, value));
            }
            Method::Resign => {
                let request = election_pb::ResignRequest::decode(message)?;
                procedure.speak(request.leader, Job::Resign);
            }
            Method::Leader => {
                let request = election_pb::LeaderRequest::decode(message)?;
                procedure.call(State::Leader, Method::Range, &first_request(&request.name));
            }
            Method::Observe => {
                let request = election_pb::LeaderRequest::decode(message)?;
                let (observer, step) = Observer::new(&request.name);
                procedure.state = State::Observe(observer);
                procedure.step = Some(step);
            }
            _ => unreachable!("{} is served elsewhere", method.path()),
        }
        Ok(procedure)
    }

    /// What is to be done next.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.step.take()
    }

    /// How the request ended: with an answer's bytes, or with a text.
    pub fn handle_answer(&mut self, answer: Result<&[u8], Failed>) {
        assert!(self.step.is_none(), "an answer comes after its request was taken");
        self.step = match std::mem::replace(&mut self.state, State::Over) {
            State::Session(job) => self.handle_session(job, answer),
            State::Claim(mut claim) => {
                let step = claim.handle_answer(answer);
                self.state = State::Claim(claim);
                step
            }
            State::Unlock => Some(finish(answer, |deleted: pb::DeleteRangeResponse| {
                Ok(lock_pb::UnlockResponse { header: deleted.header })
            })),
            State::Proclaim => Some(finish(answer, |txn: pb::TxnResponse| match txn.succeeded {
                true => Ok(election_pb::ProclaimResponse { header: txn.header }),
                false => Err(NOT_LEADER.to_owned()),
            })),
            State::Resign => Some(finish(answer, |txn: pb::TxnResponse| {
                Ok(election_pb::ResignResponse { header: txn.header })
            })),
            State::Leader => Some(finish(answer, |range: pb::RangeResponse| {
                let kv = range.kvs.into_iter().next().ok_or_else(|| NO_LEADER.to_owned())?;
                Ok(election_pb::LeaderResponse { header: range.header, kv: Some(kv) })
            })),
            State::Observe(mut observer) => {
                let step = observer.handle_answer(answer);
                self.state = State::Observe(observer);
                step
            }
            State::Over => None,
        };
    }

    /// A response of the watch.
    pub fn handle_watched(&mut self, response: &[u8]) {
        // It is our own encoder's; were it damaged, the watch would be lost, and that has a text.
        let response = pb::WatchResponse::decode(response).unwrap_or_else(|_| pb::WatchResponse {
            canceled: true,
            ..pb::WatchResponse::default()
        });
        let step = match &mut self.state {
            State::Claim(claim) => claim.handle_watched(&response),
            State::Observe(observer) => observer.handle_watched(response),
            _ => None,
        };
        if step.is_some() {
            assert!(self.step.is_none(), "a watch is told of after its step was taken");
            self.step = step;
        }
    }

    /// What was sent has left: a procedure that sends goes on.
    pub fn handle_sent(&mut self) {
        if let State::Observe(observer) = &mut self.state {
            self.step = observer.next_step();
        }
    }

    /// The client is gone, or its time is over: the request that cleans up, if one is needed. Its
    /// answer is nobody's.
    pub fn give_up(self) -> Option<(Method, Vec<u8>)> {
        match self.state {
            State::Claim(claim) => claim.give_up(),
            _ => None,
        }
    }

    fn call(&mut self, state: State, method: Method, request: &impl Message) {
        self.state = state;
        self.step = Some(Step::Call(method, request.encode_to_vec()));
    }

    fn open_session(&mut self, lease: i64, job: Job) {
        if lease != 0 {
            self.begin_job(job, lease);
            return;
        }
        let grant = pb::LeaseGrantRequest { ttl: SESSION_TTL_SECONDS, id: 0 };
        self.call(State::Session(job), Method::LeaseGrant, &grant);
    }

    /// Begins what only a leader may ask for.
    fn speak(
        &mut self,
        leader: Option<election_pb::LeaderKey>,
        job: impl FnOnce(election_pb::LeaderKey) -> Job,
    ) {
        match leader {
            Some(leader) => self.open_session(leader.lease, job(leader)),
            None => self.step = Some(Step::Fail("\"leader\" field must be provided".to_owned())),
        }
    }

    fn handle_session(&mut self, job: Job, answer: Result<&[u8], Failed>) -> Option<Step> {
        match decoded::<pb::LeaseGrantResponse>(answer) {
            Ok(granted) => {
                self.begin_job(job, granted.id);
                self.step.take()
            }
            Err(text) => Some(Step::Fail(text)),
        }
    }

    fn begin_job(&mut self, job: Job, lease: i64) {
        match job {
            Job::Lock(request) => {
                let (claim, step) = Claim::lock(&request.name, lease);
                (self.state, self.step) = (State::Claim(Box::new(claim)), Some(step));
            }
            Job::Campaign(request) => {
                let (claim, step) = Claim::campaign(&request.name, &request.value, lease);
                (self.state, self.step) = (State::Claim(Box::new(claim)), Some(step));
            }
            Job::Proclaim(leader, value) => {
                let request = proclaim_request(&leader.key, leader.rev, &value, lease);
                self.call(State::Proclaim, Method::Txn, &request);
            }
            Job::Resign(leader) => {
                let request = resign_request(&leader.key, leader.rev);
                self.call(State::Resign, Method::Txn, &request);
            }
        }
    }
}

const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";

fn decoded<A: Message + Default>(answer: Result<&[u8], Failed>) -> Result<A, Failed> {
    A::decode(answer?).map_err(|error| error.to_string())
}

/// The last step of a procedure whose request has ended.
fn finish<A: Message + Default, R: Message>(
    answer: Result<&[u8], Failed>,
    respond: impl FnOnce(A) -> Result<R, Failed>,
) -> Step {
    match decoded(answer).and_then(respond) {
        Ok(response) => Step::Answer(response.encode_to_vec()),
        Err(text) => Step::Fail(text),
    }
}
