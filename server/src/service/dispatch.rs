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
//! 3. [`Service::step_read`] until it says `Done`, then send [`Read::answer`]. Each step may use a
//!    newer view, unless [`Read::needs_same_view`].
//! 4. [`Service::poll_fault`] after any of these: damage that was met on the way, to be logged.
//!
//! Messages of `Watch` streams do not come here: they go to [`WatchHub`](super::watch::WatchHub).
//!
//! Invariants:
//! - `frames` grows if and only if the action is `Write`, by exactly one frame.
//! - `out` grows only by a complete answer: a refusal leaves it as it was.
//! - A linearizable read runs at once only on a view that says [`View::local_reads`].

use engine::answer::{Answer, ReadError};
use engine::command::FrameWriter;
use engine::hash::{KeyValueHashScan, StoreHashScan};
use engine::ids::Revision;
use engine::page::PageFault;
use engine::range::Progress;
use engine::txn::TxnScan;
use engine::view::View;
use prost::Message;

use super::cluster;
use super::decode;
use super::health;
use super::kv::{self, RangeRead, TxnAction};
use super::maintenance::{self, AlarmAction};
use super::method::Method;
use super::node_state::NodeState;
use super::proto::etcdserverpb as pb;
use super::status::Refusal;
use super::validate::RequestSizer;
use super::wire::Header;

/// The bounds that flags set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
    /// `--max-request-bytes`.
    pub request_size_bytes_max: usize,
    /// The keys a read may touch before others get their turn.
    pub read_budget_keys: usize,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            txn_ops_max: 128,
            request_size_bytes_max: 3 << 19,
            // About a quarter of a millisecond of encoding small records: short against the wait
            // for a sync, long against the cost of coming back.
            read_budget_keys: 1000,
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
    /// The first message of a stream was appended to `out`; no other follows for now.
    Stream,
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
    fault: Option<PageFault>,
}

/// A read on its way, with the answer so far.
pub struct Read {
    job: Job,
    read_index_needed: bool,
    answer: Vec<u8>,
}

enum Job {
    Range(RangeRead),
    Txn(Option<TxnScan>),
    Members,
    HashKv(KeyValueHashScan),
    Hash(StoreHashScan),
}

impl std::fmt::Debug for Read {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let job = match self.job {
            Job::Range(_) => "range",
            Job::Txn(_) => "txn",
            Job::Members => "members",
            Job::HashKv(_) => "hash of the keys",
            Job::Hash(_) => "hash of the store",
        };
        let index = self.read_index_needed;
        write!(formatter, "Read({job}, read index {index}, {} bytes)", self.answer.len())
    }
}

impl Read {
    /// The first step has to wait for a read-index round.
    pub fn needs_read_index(&self) -> bool {
        self.read_index_needed
    }

    /// All steps have to see one and the same view. An owner that cannot keep one pinned between
    /// its turns gives such a read the budget to finish in one step.
    pub fn needs_same_view(&self) -> bool {
        matches!(self.job, Job::HashKv(_) | Job::Hash(_))
    }

    /// The finished answer.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }
}

impl Service {
    /// The services of a member.
    pub fn new(limits: ServiceLimits, node: &NodeState) -> Self {
        Self {
            limits,
            sizer: RequestSizer::new(limits.request_size_bytes_max, node.member_id.0),
            writer: FrameWriter::new(),
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
        frames: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Action {
        let out_len = out.len();
        let result = match method {
            Method::Put => {
                kv::push_put(message, &self.sizer, &mut self.writer, frames).map(|()| Action::Write)
            }
            Method::Range => self.handle_range(message, node, view, out),
            Method::Txn => self.handle_txn(message, node, view, frames, out),
            Method::DeleteRange => {
                kv::push_delete_range(message, &self.sizer, &mut self.writer, frames)
                    .map(|()| Action::Write)
            }
            Method::Compact => {
                kv::push_compaction(message, &mut self.writer, frames).map(|()| Action::Write)
            }
            _ => self.handle_seldom(method, message, node, view, out),
        };
        result.unwrap_or_else(|refusal| {
            out.truncate(out_len);
            Action::Refuse(refusal)
        })
    }

    /// Goes on with a read, within the budget of keys.
    pub fn step_read(
        &mut self,
        read: &mut Read,
        node: &NodeState,
        view: &View,
        budget: usize,
    ) -> Result<Progress, Refusal> {
        let header = node.header();
        let out = &mut read.answer;
        let progress = match &mut read.job {
            Job::Range(range) => range.step(view, header, budget, out),
            Job::Txn(scan) => step_txn(scan, view, header, budget, out),
            Job::Members => {
                cluster::put_member_list(out, header, node, view).map(|()| Progress::Done)
            }
            Job::HashKv(scan) => scan.step(view, budget).inspect(|_| {
                if let Some(hash) = scan.result() {
                    maintenance::put_hash_kv(out, header, &hash);
                }
            }),
            Job::Hash(scan) => scan.step(view, budget).inspect(|_| {
                if let Some(hash) = scan.result() {
                    maintenance::put_hash(out, header, view, hash);
                }
            }),
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

    /// Damage that a read has met since the last call.
    pub fn poll_fault(&mut self) -> Option<PageFault> {
        self.fault.take()
    }

    fn handle_range(
        &mut self,
        message: &[u8],
        node: &NodeState,
        view: &View,
        out: &mut Vec<u8>,
    ) -> Result<Action, Refusal> {
        let request = decode::decode_range(message)?;
        let mut range = RangeRead::new(&request)?;
        if !(request.serializable || view.local_reads) {
            return Ok(Action::read_after_index(Job::Range(range)));
        }
        let start = out.len();
        let progress = range
            .step(view, node.header(), self.limits.read_budget_keys, out)
            .map_err(|error| self.refuse(&error))?;
        if progress == Progress::Done {
            return Ok(Action::Answer);
        }
        // What is long will be sent from a buffer of its own anyway.
        let answer = out.split_off(start);
        let job = Job::Range(range);
        Ok(Action::Read(Box::new(Read { job, read_index_needed: false, answer })))
    }

    fn handle_txn(
        &mut self,
        message: &[u8],
        node: &NodeState,
        view: &View,
        frames: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Action, Refusal> {
        let ops_max = self.limits.txn_ops_max;
        let action = kv::push_txn(message, ops_max, &self.sizer, &mut self.writer, frames)?;
        let TxnAction::Read { scan, serializable } = action else {
            return Ok(Action::Write);
        };
        let job = Job::Txn(Some(scan));
        if serializable || view.local_reads {
            self.begin_read(job, node, view, out)
        } else {
            Ok(Action::read_after_index(job))
        }
    }

    fn handle_seldom(
        &mut self,
        method: Method,
        message: &[u8],
        node: &NodeState,
        view: &View,
        out: &mut Vec<u8>,
    ) -> Result<Action, Refusal> {
        let header = node.header();
        match method {
            Method::MemberList => {
                let request = pb::MemberListRequest::decode(message).map_err(Refusal::from)?;
                if request.linearizable && !view.local_reads {
                    return Ok(Action::read_after_index(Job::Members));
                }
                return self.begin_read(Job::Members, node, view, out);
            }
            Method::Hash => return self.begin_read(Job::Hash(<_>::default()), node, view, out),
            Method::HashKv => {
                let revision = maintenance::decode_hash_kv(message)?;
                let job = Job::HashKv(KeyValueHashScan::new(Revision(revision)));
                return self.begin_read(job, node, view, out);
            }
            Method::Status => maintenance::put_status(out, header, node, view)
                .map_err(|error| self.refuse(&error))?,
            Method::Alarm => match maintenance::put_alarm(out, header, view, message)? {
                AlarmAction::Answered => {}
                AlarmAction::Unserved => return Err(Refusal::Unimplemented(method)),
            },
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

    /// Takes a read's first step.
    fn begin_read(
        &mut self,
        job: Job,
        node: &NodeState,
        view: &View,
        out: &mut Vec<u8>,
    ) -> Result<Action, Refusal> {
        let mut read = Read { job, read_index_needed: false, answer: Vec::new() };
        if read.needs_same_view() {
            // The owner decides about the pin, so nothing is begun under this one.
            return Ok(Action::Read(Box::new(read)));
        }
        match self.step_read(&mut read, node, view, self.limits.read_budget_keys)? {
            Progress::Done => {
                out.extend_from_slice(&read.answer);
                Ok(Action::Answer)
            }
            Progress::More => Ok(Action::Read(Box::new(read))),
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

impl Action {
    fn read_after_index(job: Job) -> Self {
        Self::Read(Box::new(Read { job, read_index_needed: true, answer: Vec::new() }))
    }
}

fn step_txn(
    job: &mut Option<TxnScan>,
    view: &View,
    header: Header,
    budget: usize,
    out: &mut Vec<u8>,
) -> Result<Progress, ReadError> {
    let mut scan = job.take().expect("a finished read is not stepped again");
    let progress = scan.step(view, budget)?;
    match progress {
        Progress::Done => kv::put_txn_read(out, header, scan),
        Progress::More => *job = Some(scan),
    }
    Ok(progress)
}

/// The methods this version answers.
const fn is_served(method: Method) -> bool {
    matches!(
        method,
        Method::Range
            | Method::Put
            | Method::DeleteRange
            | Method::Txn
            | Method::Compact
            | Method::Watch
            | Method::MemberList
            | Method::Alarm
            | Method::Status
            | Method::Hash
            | Method::HashKv
            | Method::HealthCheck
            | Method::HealthList
            | Method::HealthWatch
    )
}

#[cfg(test)]
mod tests;
