//! The one door to the unary services. A front-end core owns a [`Service`] and drives it so:
//!
//! 1. A call arrives: [`Service::check_call`] refuses what needs no message to be refused.
//! 2. Its message arrives: the core pins a view and calls [`Service::handle_message`]. The
//!    [`Action`] says what to do:
//!    - `Answer`: `out` has the answer's bytes; send them and finish the call.
//!    - `Refuse`: finish the call with [`status_of`](super::status::status_of).
//!    - `Write`: a frame was appended to `frames`. Reserve the answer's slot, hand the frame to the
//!      sequencer; when its [`Answer`] comes, [`Service::encode_answer`].
//!    - `Read`: step it on a view. If [`Read::needs_read_index`], only on a view pinned after a
//!      read-index round that was *begun* after this call has been confirmed and applied.
//!    - `Stream`: `out` has the first message; send it and leave the call open.
//!    - `AskLease`: ask the log core. [`Service::begin_time_to_live`] or [`Service::begin_leases`]
//!      makes a read of its reply.
//! 3. [`Service::open_read`], then [`Service::step_read`] until it says `Done`; the answer is what
//!    the steps appended, unless [`Read::is_too_large`]. Each step may use a newer view, unless
//!    [`Read::needs_same_view`]; a read may say so only after its first step, and then it begins
//!    again with [`Read::restart`].
//! 4. [`Service::poll_fault`] after any of these: damage that was met on the way, to be logged.
//!
//! A budget is counted in keys looked at, and in bytes as well, which count as keys. It is lowered
//! by what was used, so that one can be shared by all reads of a turn. A read that finds none left
//! is an [`Action::Read`], to be stepped later.
//!
//! Messages of `Watch` streams do not come here: they go to [`WatchHub`](super::watch::WatchHub).
//!
//! Invariants:
//! - `frames` grows if and only if the action is `Write`, by exactly one frame.
//! - `out` grows only by a complete answer: a refusal leaves it as it was.
//! - A linearizable read runs at once only on a view that says [`View::local_reads`].

use std::sync::Arc;

use engine::answer::{Answer, ReadError};
use engine::command::FrameWriter;
use engine::hash::{KeyValueHashScan, StoreHashScan};
use engine::ids::{LeaseId, MemberId, Revision};
use engine::page::PageFault;
use engine::quota::Quota;
use engine::range::Progress;
use engine::txn::TxnScan;
use engine::view::View;
use prost::Message;

use super::cluster::{self, MemberAsk};
use super::decode;
use super::health;
use super::kv::{self, RangeRead, TxnAction};
use super::lease::{self, LeaseIds, LeasesRead, TimeToLive, TimeToLiveRead};
use super::maintenance::{self, MaintenanceAction, MaintenanceRead};
use super::method::Method;
use super::node_state::NodeState;
use super::proto::etcdserverpb as pb;
use super::quota;
use super::range_stream::RangeStream;
use super::sink::AnswerSink;
use super::status::{ClusterRefusal, Refusal};
use super::stream::{ServerStream, StreamJob, StreamProgress};
use super::validate::RequestSizer;
use super::wire::Header;
use crate::frontend::grpc::SEND_BYTES_MAX;

/// The bounds that flags set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
    /// `--max-request-bytes`.
    pub request_size_bytes_max: usize,
    /// `--quota-backend-bytes`.
    pub quota: Quota,
    /// No lease is granted for less.
    pub lease_ttl_min_seconds: i64,
    /// The largest answer that may be sent; what a range would answer beyond it is measured and
    /// not written.
    pub answer_size_bytes_max: u64,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            txn_ops_max: 128,
            request_size_bytes_max: 3 << 19,
            quota: Quota::from_flag(0),
            lease_ttl_min_seconds: 2,
            answer_size_bytes_max: SEND_BYTES_MAX as u64,
        }
    }
}

/// What is to be done about a message.
#[derive(Debug)]
pub enum Action {
    /// The answer was appended to `out`.
    Answer,
    /// The call ends with a status.
    Refuse(Refusal),
    /// A frame was appended to `frames`.
    Write,
    /// A read that could not be finished at once.
    Read(Box<Read>),
    /// The store is to be defragmented; the answer is empty, and comes when that is done.
    Defragment,
    /// The members are to be changed; [`Service::encode_change`] makes the answer.
    ChangeMembers(MemberAsk),
    /// Another member is to lead; the answer is empty.
    MoveLeader(MemberId),
    /// The first message of a stream was appended to `out`; no other follows for now.
    Stream,
    /// An answer of many messages, which are made step by step.
    Serve(Box<ServerStream>),
    /// Only the keeper of the leases' clocks knows.
    AskLease(LeaseQuestion),
}

/// What a call wants to know about leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseQuestion {
    /// How long one has left.
    TimeToLive(TimeToLive),
    /// Which ones there are.
    List,
}

/// What a call's metadata asks of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallMetadata<'a> {
    /// `hasleader: true`: rather fail than be answered by a member that knows no leader.
    pub leader_required: bool,
    /// `client-api-version`, as it came.
    pub client_api_version: Option<&'a [u8]>,
}

/// The unary services of one front-end core.
pub struct Service {
    limits: ServiceLimits,
    sizer: RequestSizer,
    writer: FrameWriter,
    lease_ids: LeaseIds,
    fault: Option<PageFault>,
}

/// A read on its way.
pub struct Read {
    job: Job,
    read_index_needed: bool,
    answer_size_bytes_max: u64,
}

enum Job {
    Range(RangeRead),
    Txn(TxnRead),
    Members,
    Maintenance(MaintenanceRead),
    TimeToLive(TimeToLiveRead),
    Leases(LeasesRead),
    HashKv(KeyValueHashScan),
    Hash(StoreHashScan),
}

/// A transaction of ranges in the course of being answered.
struct TxnRead {
    /// `None` once it is finished.
    scan: Option<TxnScan>,
    /// The answer's size; before it is finished, that of what was gathered.
    size_bytes: u64,
    /// How many ranges there were, once it is finished.
    ranges: u64,
}

impl std::fmt::Debug for Read {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let job = match self.job {
            Job::Range(_) => "range",
            Job::Txn(_) => "txn",
            Job::Members => "members",
            Job::Maintenance(_) => "maintenance",
            Job::TimeToLive(_) => "time to live",
            Job::Leases(_) => "leases",
            Job::HashKv(_) => "hash of the keys",
            Job::Hash(_) => "hash of the store",
        };
        let index = self.read_index_needed;
        write!(formatter, "Read({job}, read index {index})")
    }
}

impl Read {
    /// The first step has to wait for a read-index round.
    pub fn needs_read_index(&self) -> bool {
        self.read_index_needed
    }

    /// All steps have to see one and the same view, which the owner holds meanwhile.
    pub fn needs_same_view(&self) -> bool {
        match &self.job {
            Job::HashKv(_) | Job::Hash(_) => true,
            Job::TimeToLive(read) => read.is_long(),
            Job::Range(_) | Job::Txn(_) | Job::Members | Job::Maintenance(_) | Job::Leases(_) => {
                false
            }
        }
    }

    /// Whether it may go on in spite of a client that takes nothing: its answer is a few bytes.
    pub fn is_brief(&self) -> bool {
        matches!(self.job, Job::HashKv(_) | Job::Hash(_))
    }

    /// Forgets what a step has brought, because all have to see one view.
    pub fn restart(&mut self) {
        if let Job::TimeToLive(read) = &mut self.job {
            read.restart();
        }
    }

    /// About how many records the answer will have, once the read is open; 0 for what does not
    /// answer with records of its own.
    pub fn records_max(&self) -> i64 {
        match &self.job {
            Job::Range(range) if range.is_wide() => range.records_max(),
            _ => 0,
        }
    }

    /// The answer's size, if it is larger than may be sent. What was written of it is worth
    /// nothing; of a range, the size is that of the whole answer once the read is done. A
    /// transaction ends where it has gathered too much, since its answer's size is not known before
    /// all of it is there.
    pub fn is_too_large(&self) -> Option<u64> {
        let size_bytes = match &self.job {
            Job::Range(range) => range.size_bytes(),
            Job::Txn(txn) => txn.size_bytes,
            Job::Members
            | Job::TimeToLive(_)
            | Job::Leases(_)
            | Job::Maintenance(_)
            | Job::HashKv(_)
            | Job::Hash(_) => return None,
        };
        Some(size_bytes).filter(|size| *size > self.answer_size_bytes_max)
    }

    /// Whether it may take many steps and answer with much; other reads look a key up.
    pub fn is_wide(&self) -> bool {
        match &self.job {
            Job::Range(range) => range.is_wide(),
            Job::Txn(_) | Job::HashKv(_) | Job::Hash(_) | Job::Leases(_) => true,
            Job::TimeToLive(read) => read.is_wide(),
            Job::Members | Job::Maintenance(_) => false,
        }
    }

    /// How many ranges a transaction was of, once it is done; 0 for every other read.
    pub fn txn_ranges(&self) -> u64 {
        if let Job::Txn(txn) = &self.job { txn.ranges } else { 0 }
    }

    /// Bytes that it holds besides what was written of the answer.
    pub fn held_bytes(&self) -> usize {
        match &self.job {
            Job::Range(range) => range.held_bytes(),
            Job::Txn(txn) => txn.scan.as_ref().map_or(0, TxnScan::held_bytes),
            Job::Leases(leases) => leases.held_bytes(),
            Job::Members
            | Job::TimeToLive(_)
            | Job::Maintenance(_)
            | Job::HashKv(_)
            | Job::Hash(_) => 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn of_test() -> Box<Self> {
        let answer_size_bytes_max = ServiceLimits::default().answer_size_bytes_max;
        Box::new(Self { job: Job::Members, read_index_needed: false, answer_size_bytes_max })
    }
}

impl Service {
    /// The services of a member.
    pub fn new(limits: ServiceLimits, node: &NodeState, lease_ids: LeaseIds) -> Self {
        Self {
            limits,
            sizer: RequestSizer::new(limits.request_size_bytes_max, node.member_id.0),
            writer: FrameWriter::new(),
            lease_ids,
            fault: None,
        }
    }

    /// Whether a call may go on, by what stands in its headers.
    pub fn check_call(
        &self,
        method: Method,
        metadata: &CallMetadata<'_>,
        node: &NodeState,
    ) -> Result<(), Refusal> {
        if metadata.client_api_version.is_some_and(|text| str::from_utf8(text).is_err()) {
            return Err(Refusal::InvalidClientApiVersion);
        }
        if node.learner && !is_for_learners(method) {
            return Err(Refusal::Cluster(ClusterRefusal::NotSupportedForLearner));
        }
        if metadata.leader_required && node.leader.is_none() {
            return Err(Refusal::NoLeader);
        }
        if is_served(method) { Ok(()) } else { Err(Refusal::Unimplemented(method)) }
    }

    /// Decides about the message of a call; see the module's header.
    #[allow(clippy::too_many_arguments, reason = "the owner keeps each of them in another place")]
    pub fn handle_message(
        &mut self,
        method: Method,
        message: &[u8],
        node: &NodeState,
        view: &View,
        budget: &mut usize,
        frames: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Action {
        let out_len = out.len();
        if !quota::admits(self.limits.quota, view.size_bytes, method, message) {
            return self.refuse_for_quota(node, view, frames);
        }
        let result = match method {
            Method::Put => {
                kv::push_put(message, &self.sizer, &mut self.writer, frames).map(|()| Action::Write)
            }
            Method::Range => self.handle_range(message, node, view, budget, out),
            Method::Txn => self.handle_txn(message, view, frames),
            Method::DeleteRange => {
                kv::push_delete_range(message, &self.sizer, &mut self.writer, frames)
                    .map(|()| Action::Write)
            }
            Method::Compact => {
                kv::push_compaction(message, &mut self.writer, frames).map(|()| Action::Write)
            }
            Method::LeaseGrant | Method::LeaseRevoke => {
                self.push_lease_change(method, message, view, frames).map(|()| Action::Write)
            }
            _ => self.handle_seldom(method, message, node, view, frames, out),
        };
        result.unwrap_or_else(|refusal| {
            out.truncate(out_len);
            Action::Refuse(refusal)
        })
    }

    /// Takes a read's first look at a view, which must be that of its first step: what can be
    /// refused is refused before there is an answer. Once is enough, again does nothing.
    pub fn open_read(&mut self, read: &mut Read, view: &View) -> Result<(), Refusal> {
        match &mut read.job {
            Job::Range(range) => range.open(view).map_err(|error| self.refuse(&error)),
            _ => Ok(()),
        }
    }

    /// Goes on with a read, within a budget that must not be empty.
    pub fn step_read(
        &mut self,
        read: &mut Read,
        node: &NodeState,
        view: &View,
        budget: &mut usize,
        out: &mut impl AnswerSink,
    ) -> Result<Progress, Refusal> {
        assert!(*budget > 0, "a step without a budget gets nowhere");
        let header = node.header();
        let size_bytes_max = read.answer_size_bytes_max;
        let progress = match &mut read.job {
            Job::Range(range) => range.step(view, header, budget, size_bytes_max, out),
            Job::Txn(txn) => txn.step(view, header, budget, size_bytes_max, out.bytes()),
            Job::Members => {
                *budget -= 1;
                let members = cluster::put_member_list(out.bytes(), header, node, view);
                members.map(|()| Progress::Done)
            }
            Job::Maintenance(read) => {
                *budget -= 1;
                read.answer(out.bytes(), header, view, budget).map(|()| Progress::Done)
            }
            Job::TimeToLive(read) => read.step(view, header, budget, out.bytes()),
            Job::Leases(leases) => Ok(leases.step(view, header, budget, out.bytes())),
            Job::HashKv(scan) => scan.step(view, std::mem::take(budget)).inspect(|_| {
                if let Some(hash) = scan.result() {
                    maintenance::put_hash_kv(out.bytes(), header, &hash);
                }
            }),
            Job::Hash(scan) => scan.step(view, std::mem::take(budget)).inspect(|_| {
                if let Some(hash) = scan.result() {
                    maintenance::put_hash(out.bytes(), header, view, hash);
                }
            }),
        };
        out.cut();
        progress.map_err(|error| self.refuse(&error))
    }

    /// Goes on with a streaming answer, within a budget that must not be empty.
    pub fn step_stream(
        &mut self,
        stream: &mut ServerStream,
        node: &NodeState,
        view: &View,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<StreamProgress, Refusal> {
        assert!(*budget > 0, "a step without a budget gets nowhere");
        let progress = match &mut stream.job {
            StreamJob::Backup(backup) => backup.step(view, budget, out),
            StreamJob::Range(range) => range.step(view, node.header(), budget, out),
        };
        progress.map_err(|error| self.refuse(&error))
    }

    /// Appends the answer to a command that came back from the log.
    pub fn encode_answer(
        &self,
        answer: &Answer,
        node: &NodeState,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        kv::put_answer(out, node.header(), answer)
    }

    /// Appends the answer to a change of members that came back from the log; `view` holds it.
    pub fn encode_change(
        &self,
        change: (Method, MemberId),
        answer: &Answer,
        node: &NodeState,
        view: &View,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        cluster::put_change(out, change, answer, node, view)
    }

    /// The read that answers how long a lease has left, with the seconds left and granted, if there
    /// is such a lease.
    pub fn begin_time_to_live(&self, asked: TimeToLive, times: Option<(i64, i64)>) -> Box<Read> {
        let job = Job::TimeToLive(TimeToLiveRead::new(asked, times));
        let answer_size_bytes_max = self.limits.answer_size_bytes_max;
        Box::new(Read { job, read_index_needed: false, answer_size_bytes_max })
    }

    /// The read that answers which leases there are.
    pub fn begin_leases(&self, leases: Arc<Vec<LeaseId>>) -> Box<Read> {
        let job = Job::Leases(LeasesRead::new(leases));
        let answer_size_bytes_max = self.limits.answer_size_bytes_max;
        Box::new(Read { job, read_index_needed: false, answer_size_bytes_max })
    }

    /// Damage that a read has met since the last call.
    pub fn poll_fault(&mut self) -> Option<PageFault> {
        self.fault.take()
    }

    fn handle_range(
        &mut self,
        message: &[u8],
        node: &NodeState,
        view: &View,
        budget: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<Action, Refusal> {
        let request = decode::decode_range(message)?;
        if node.learner && !request.serializable {
            return Err(Refusal::Cluster(ClusterRefusal::NotSupportedForLearner));
        }
        let mut range = RangeRead::new(&request)?;
        let read_index_needed = !(request.serializable || view.local_reads);
        if read_index_needed || range.is_wide() || *budget == 0 {
            return Ok(self.read(Job::Range(range), read_index_needed));
        }
        // One key is answered at once: the most frequent of all reads need not be kept anywhere.
        let size_bytes_max = self.limits.answer_size_bytes_max;
        let progress = range
            .step(view, node.header(), budget, size_bytes_max, out)
            .map_err(|error| self.refuse(&error))?;
        assert!(progress == Progress::Done, "a look-up is one step");
        Ok(Action::Answer)
    }

    fn push_lease_change(
        &mut self,
        method: Method,
        message: &[u8],
        view: &View,
        frames: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let Self { limits, lease_ids, writer, .. } = self;
        if method == Method::LeaseRevoke {
            return lease::push_revoke(message, writer, frames);
        }
        let ttl_min_seconds = limits.lease_ttl_min_seconds;
        match lease::push_grant(message, ttl_min_seconds, lease_ids, writer, frames) {
            // etcd looks at the time only when it applies the request, and at the alarms before.
            Err(Refusal::LeaseTtlTooLarge) => match view.refusal_of_grant() {
                Ok(None) => Err(Refusal::LeaseTtlTooLarge),
                Ok(Some(rejection)) => Err(Refusal::Rejected(rejection)),
                Err(error) => Err(self.refuse(&error)),
            },
            pushed => pushed,
        }
    }

    fn handle_txn(
        &mut self,
        message: &[u8],
        view: &View,
        frames: &mut Vec<u8>,
    ) -> Result<Action, Refusal> {
        let ops_max = self.limits.txn_ops_max;
        let action = kv::push_txn(message, ops_max, &self.sizer, &mut self.writer, frames)?;
        let TxnAction::Read { scan, serializable } = action else {
            return Ok(Action::Write);
        };
        let read_index_needed = !(serializable || view.local_reads);
        let txn = TxnRead { scan: Some(scan), size_bytes: 0, ranges: 0 };
        Ok(self.read(Job::Txn(txn), read_index_needed))
    }

    fn read(&self, job: Job, read_index_needed: bool) -> Action {
        let answer_size_bytes_max = self.limits.answer_size_bytes_max;
        Action::Read(Box::new(Read { job, read_index_needed, answer_size_bytes_max }))
    }

    #[allow(clippy::too_many_arguments, reason = "see `handle_message`")]
    fn handle_seldom(
        &mut self,
        method: Method,
        message: &[u8],
        node: &NodeState,
        view: &View,
        frames: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Action, Refusal> {
        let header = node.header();
        match method {
            Method::MemberList => {
                let request = pb::MemberListRequest::decode(message).map_err(Refusal::from)?;
                let read_index_needed = request.linearizable && !view.local_reads;
                return Ok(self.read(Job::Members, read_index_needed));
            }
            Method::LeaseTimeToLive => {
                let asked = lease::decode_time_to_live(message)?;
                return Ok(Action::AskLease(LeaseQuestion::TimeToLive(asked)));
            }
            Method::LeaseLeases => {
                pb::LeaseLeasesRequest::decode(message).map_err(Refusal::from)?;
                return Ok(Action::AskLease(LeaseQuestion::List));
            }
            Method::Hash => return Ok(self.read(Job::Hash(<_>::default()), false)),
            Method::HashKv => {
                let revision = maintenance::decode_hash_kv(message)?;
                let job = Job::HashKv(KeyValueHashScan::new(Revision(revision)));
                return Ok(self.read(job, false));
            }
            Method::Status => maintenance::put_status(out, header, node, view)
                .map_err(|error| self.refuse(&error))?,
            Method::Alarm => {
                let action = maintenance::handle_alarm(message, &mut self.writer, frames)?;
                return Ok(self.maintain(&action, view));
            }
            Method::Downgrade => {
                let action = maintenance::handle_downgrade(message, &mut self.writer, frames)?;
                return Ok(self.maintain(&action, view));
            }
            Method::Defragment => {
                pb::DefragmentRequest::decode(message)?;
                return Ok(Action::Defragment);
            }
            Method::MoveLeader => {
                let target = pb::MoveLeaderRequest::decode(message)?.target_id;
                return Ok(Action::MoveLeader(MemberId(target)));
            }
            Method::MemberAdd
            | Method::MemberRemove
            | Method::MemberUpdate
            | Method::MemberPromote => {
                return cluster::decode_change(method, message).map(Action::ChangeMembers);
            }
            Method::Snapshot => {
                pb::SnapshotRequest::decode(message)
                    .map_err(|error| Refusal::from(error).in_stream())?;
                return Ok(Action::Serve(Box::new(ServerStream::backup(node))));
            }
            Method::RangeStream => return self.begin_range_stream(message, view),
            // There are no users. A client that was given a name and a password asks this first,
            // and goes on without them only when it is told so.
            Method::Authenticate => {
                pb::AuthenticateRequest::decode(message)?;
                return Err(Refusal::AuthNotEnabled);
            }
            Method::HealthCheck => health::put_check(out, message)?,
            Method::HealthList => health::put_list(out),
            Method::HealthWatch => {
                health::put_watch(out, message)?;
                return Ok(Action::Stream);
            }
            _ => return Err(Refusal::Unimplemented(method)),
        }
        Ok(Action::Answer)
    }

    fn begin_range_stream(&self, message: &[u8], view: &View) -> Result<Action, Refusal> {
        let malformed = |error| Refusal::from(error).in_stream();
        let request = decode::decode_range(message).map_err(malformed)?;
        let range = RangeStream::new(&request, self.limits.request_size_bytes_max)?;
        let read_index_needed = !(request.serializable || view.local_reads);
        Ok(Action::Serve(Box::new(ServerStream::range(range, read_index_needed))))
    }

    fn maintain(&self, action: &MaintenanceAction, view: &View) -> Action {
        match *action {
            MaintenanceAction::Pushed => Action::Write,
            MaintenanceAction::Read(read) => self.read(Job::Maintenance(read), !view.local_reads),
        }
    }

    /// The request is not even looked at; what raises the alarm takes its place.
    fn refuse_for_quota(&mut self, node: &NodeState, view: &View, frames: &mut Vec<u8>) -> Action {
        match maintenance::refuse_for_quota(node, view, &mut self.writer, frames) {
            Ok(()) => Action::Write,
            Err(error) => Action::Refuse(self.refuse(&error)),
        }
    }

    fn refuse(&mut self, error: &ReadError) -> Refusal {
        match error {
            ReadError::Rejection(rejection) => Refusal::Rejected(*rejection),
            ReadError::Fault(fault) => {
                self.fault = Some(*fault);
                Refusal::Corrupt
            }
        }
    }
}

impl TxnRead {
    fn step(
        &mut self,
        view: &View,
        header: Header,
        budget: &mut usize,
        size_bytes_max: u64,
        out: &mut Vec<u8>,
    ) -> Result<Progress, ReadError> {
        let mut scan = self.scan.take().expect("a finished read is not stepped again");
        let progress = scan.step_within(view, budget)?;
        self.size_bytes = scan.held_bytes() as u64;
        if self.size_bytes > size_bytes_max {
            return Ok(Progress::Done);
        }
        match progress {
            Progress::Done => {
                let before = out.len();
                self.ranges = scan.range_count();
                kv::put_txn_read(out, header, scan);
                self.size_bytes = (out.len() - before) as u64;
            }
            Progress::More => self.scan = Some(scan),
        }
        Ok(progress)
    }
}

/// The methods that a member without a vote answers; of ranges only those that any member answers
/// by itself.
const fn is_for_learners(method: Method) -> bool {
    matches!(method, Method::Range | Method::Status | Method::Snapshot)
}

/// The methods this version answers.
const fn is_served(method: Method) -> bool {
    matches!(
        method,
        Method::Range
            | Method::RangeStream
            | Method::Put
            | Method::DeleteRange
            | Method::Txn
            | Method::Compact
            | Method::Watch
            | Method::LeaseGrant
            | Method::LeaseRevoke
            | Method::LeaseKeepAlive
            | Method::LeaseTimeToLive
            | Method::LeaseLeases
            | Method::MemberList
            | Method::MemberAdd
            | Method::MemberRemove
            | Method::MemberUpdate
            | Method::MemberPromote
            | Method::Alarm
            | Method::Status
            | Method::Defragment
            | Method::MoveLeader
            | Method::Downgrade
            | Method::Hash
            | Method::HashKv
            | Method::Snapshot
            | Method::Authenticate
            | Method::Lock
            | Method::Unlock
            | Method::Campaign
            | Method::Proclaim
            | Method::Leader
            | Method::Observe
            | Method::Resign
            | Method::HealthCheck
            | Method::HealthList
            | Method::HealthWatch
    )
}

#[cfg(test)]
mod tests;
