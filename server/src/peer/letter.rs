//! Everything that members tell each other once they have greeted: raft's messages, forwarded
//! batches, questions about leases, and the parts of a raft snapshot.
//!
//! ```text
//! Forward               a batch as engine::command has it, header and frames
//! ForwardRefused        boot nonce u64, first sequence u64, reason u8, seven zero bytes
//! LeaseQuestions        for each: number u64, lease i64, kind u8 (0 renew, 1 time to live), seven
//!                       zero bytes
//! LeaseAnswers          for each: number u64, seconds left i64, seconds granted i64, outcome u8,
//!                       seven zero bytes
//! SnapshotBegin         transfer u64, first chunk u64, raft's message
//! SnapshotChunk         transfer u64, number u64, records
//! SnapshotEnd           transfer u64, chunks u64, bytes u64
//! SnapshotAcknowledged  transfer u64, next chunk u64, state u8, seven zero bytes
//! HashQuestion          number u64, revision i64, wanted u8 (0 computed, 1 of a compaction), seven
//!                       zero bytes
//! HashAnswer            number u64, outcome u8, three zero bytes, hash u32, revision i64,
//!                       compacted i64, current i64
//! Probe, ProbeAnswer    the prober's clock u64
//! ```
//!
//! All little-endian and frozen by golden bytes. A batch and the records of a chunk are opaque
//! here: whoever applies them validates them.
//!
//! Invariants:
//! - Each letter belongs to one [`Lane`], the same on both sides ([`Letter::lane`]).

use std::fmt;

use bytes::Bytes;
use engine::ids::{LeaseId, Revision};
use engine::{KeyValueHash, Rejection};
use raft::eraftpb::{Message, MessageType};

use super::frame::{Body, FrameKind, FrameWriter, InFrame, OutFrame};
use super::hello::Lane;
use super::layout::Reader;
use super::message::{self, MessageError};

/// Questions or answers about leases in one frame. A turn's keep-alives go together; more wait.
pub const LEASES_PER_LETTER_MAX: usize = 4096;
/// Bytes of records in one chunk of a raft snapshot.
pub const CHUNK_SIZE_BYTES_MAX: usize = 256 << 10;

const FORWARD_REFUSED_SIZE_BYTES: usize = 24;
const LEASE_QUESTION_SIZE_BYTES: usize = 24;
const LEASE_ANSWER_SIZE_BYTES: usize = 32;

/// Why the leader did not propose a forwarded batch. It never happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ForwardReason {
    /// The member that got it does not lead.
    NotLeader = 1,
    /// Too much waits to be committed.
    TooManyRequests = 2,
    /// The leader's disk has no room for it.
    NoSpace = 3,
    /// It is no batch that a member makes.
    Invalid = 4,
    /// The leader is stopping, or hands leadership over.
    Stopping = 5,
    /// A change of members: too few of them have started.
    NotEnoughStarted = 6,
    /// A change of members: the leader has not been connected to enough of them.
    Unhealthy = 7,
    /// A promotion: the learner is too far behind.
    LearnerNotReady = 8,
    /// A change of members: there is no such member.
    MemberNotFound = 9,
    /// A promotion: the member is no learner.
    MemberNotLearner = 10,
    /// A change of members: another one is under way.
    ChangePending = 11,
}

impl ForwardReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::NotLeader,
        Self::TooManyRequests,
        Self::NoSpace,
        Self::Invalid,
        Self::Stopping,
        Self::NotEnoughStarted,
        Self::Unhealthy,
        Self::LearnerNotReady,
        Self::MemberNotFound,
        Self::MemberNotLearner,
        Self::ChangePending,
    ];
}

/// A forwarded batch that was not proposed, named as its header names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardRefused {
    /// Of the member that made the batch.
    pub boot_nonce: u64,
    /// Of its first command.
    pub sequence_first: u64,
    /// Why.
    pub reason: ForwardReason,
}

/// What is asked about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LeaseQuestionKind {
    /// Keep it alive.
    Renew = 0,
    /// How long it has left.
    TimeToLive = 1,
}

/// A question to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseQuestion {
    /// Names the question in the answer; the asker never uses it again.
    pub number: u64,
    /// The lease.
    pub lease: LeaseId,
    /// What is asked.
    pub kind: LeaseQuestionKind,
}

/// How a question about a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// It lives: the seconds that are left, and those it was granted for.
    Lives {
        /// Left.
        seconds_left: i64,
        /// Granted.
        seconds_granted: i64,
    },
    /// There is no such lease.
    NotFound,
    /// The member that was asked does not lead, or does no more.
    NotLeader,
    /// The lease has run out and its revoke did not come through in time.
    TimedOut,
}

/// An answer of the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// The question's.
    pub number: u64,
    /// How it ended.
    pub outcome: LeaseOutcome,
}

/// A raft snapshot begins, or goes on behind what has arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotBegin {
    /// Names the sender's pinned view: chunks of the same transfer and number hold the same bytes.
    pub transfer: u64,
    /// The chunk that follows.
    pub chunk_first: u64,
    /// What raft wants to be told when all is installed.
    pub message: Message,
}

/// A part of a raft snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The transfer.
    pub transfer: u64,
    /// Its place in it, from 0.
    pub number: u64,
    /// Records of the engine's.
    pub records: Bytes,
}

/// A raft snapshot is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// The transfer.
    pub transfer: u64,
    /// How many chunks there were.
    pub chunk_count: u64,
    /// How many bytes they had together.
    pub size_bytes: u64,
}

/// Where the receiver of a raft snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SnapshotState {
    /// It takes the chunk that it names.
    Taking = 0,
    /// It has all, and it is durable.
    Installed = 1,
    /// It has given up; the transfer is not to be gone on with.
    Failed = 2,
}

/// The receiver's acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotAcknowledged {
    /// The transfer.
    pub transfer: u64,
    /// The chunk that is wanted next: all before it have been taken.
    pub chunk_next: u64,
    /// Where the receiver stands.
    pub state: SnapshotState,
}

/// Which hash is meant. The two are different numbers where no key lives at the revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HashWanted {
    /// One that is computed now.
    Computed = 0,
    /// One that a compaction left behind.
    OfCompaction = 1,
}

/// Asks for the hash of a member's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashQuestion {
    /// Names the question in the answer.
    pub number: u64,
    /// Up to which revision; 0 for the newest.
    pub revision: Revision,
    /// Which hash.
    pub wanted: HashWanted,
}

/// What a member says about its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTold {
    /// Their hash.
    Hash(KeyValueHash),
    /// It has no hash of that revision: history begins later, or ends before.
    Rejected(Rejection),
    /// It has not answered, or could not.
    Nothing,
}

/// An answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashAnswer {
    /// The question's.
    pub number: u64,
    /// What came of it.
    pub told: HashTold,
}

/// Something that one member tells another.
#[derive(Debug, Clone, PartialEq)]
pub enum Letter {
    /// raft's.
    Raft(Message),
    /// A batch for the leader to propose as it is.
    Forward(Bytes),
    /// One that it did not propose.
    ForwardRefused(ForwardRefused),
    /// Questions about leases.
    LeaseQuestions(Vec<LeaseQuestion>),
    /// Answers about leases.
    LeaseAnswers(Vec<LeaseAnswer>),
    /// A raft snapshot begins.
    SnapshotBegin(SnapshotBegin),
    /// It goes on.
    SnapshotChunk(SnapshotChunk),
    /// It is complete.
    SnapshotEnd(SnapshotEnd),
    /// How far it has come.
    SnapshotAcknowledged(SnapshotAcknowledged),
    /// The keys are to be hashed.
    HashQuestion(HashQuestion),
    /// Their hash.
    HashAnswer(HashAnswer),
    /// To be answered with the same word, so that the way there and back is measured.
    Probe(u64),
    /// The answer.
    ProbeAnswer(u64),
}

/// A body that is no letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetterError {
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for LetterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reason)
    }
}

impl std::error::Error for LetterError {}

impl From<MessageError> for LetterError {
    fn from(error: MessageError) -> Self {
        Self { reason: error.reason }
    }
}

const WRONG: LetterError = LetterError { reason: "a letter of a peer's has a wrong layout" };

impl Letter {
    /// The connection that it goes over.
    ///
    /// Appends without entries go with the others: one that overtook those before it would be
    /// refused by the follower, and raft would go back to probing.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Raft(message) if message.get_msg_type() == MessageType::MsgAppend => Lane::Bulk,
            Self::Raft(_) | Self::LeaseQuestions(_) | Self::LeaseAnswers(_) => Lane::Control,
            Self::HashQuestion(_) | Self::HashAnswer(_) => Lane::Control,
            Self::Probe(_) | Self::ProbeAnswer(_) => Lane::Control,
            // A refusal travels against the batches, so nothing is gained by keeping it with them.
            Self::ForwardRefused(_) => Lane::Control,
            Self::Forward(_) => Lane::Bulk,
            Self::SnapshotBegin(_)
            | Self::SnapshotChunk(_)
            | Self::SnapshotEnd(_)
            | Self::SnapshotAcknowledged(_) => Lane::Snapshot,
        }
    }

    /// The letter as a frame. Payloads, batches and records are shared.
    #[must_use]
    pub fn encode(&self) -> OutFrame {
        match self {
            Self::Raft(message) => {
                let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
                assert!(!is_snapshot, "a raft snapshot is a transfer of its own");
                message::encode(message)
            }
            Self::Forward(batch) => {
                let mut writer = FrameWriter::new(FrameKind::Forward);
                writer.put_shared(batch);
                writer.finish()
            }
            Self::ForwardRefused(refused) => refused.encode(),
            Self::LeaseQuestions(questions) => encode_questions(questions),
            Self::LeaseAnswers(answers) => encode_answers(answers),
            Self::SnapshotBegin(begin) => {
                let mut writer = FrameWriter::new(FrameKind::SnapshotBegin);
                writer.put(&begin.transfer.to_le_bytes());
                writer.put(&begin.chunk_first.to_le_bytes());
                message::put(&mut writer, &begin.message);
                writer.finish()
            }
            Self::SnapshotChunk(chunk) => {
                assert!(chunk.records.len() <= CHUNK_SIZE_BYTES_MAX);
                let mut writer = FrameWriter::new(FrameKind::SnapshotChunk);
                writer.put(&chunk.transfer.to_le_bytes());
                writer.put(&chunk.number.to_le_bytes());
                writer.put_shared(&chunk.records);
                writer.finish()
            }
            Self::SnapshotEnd(end) => {
                let mut writer = FrameWriter::new(FrameKind::SnapshotEnd);
                for word in [end.transfer, end.chunk_count, end.size_bytes] {
                    writer.put(&word.to_le_bytes());
                }
                writer.finish()
            }
            Self::SnapshotAcknowledged(acknowledged) => {
                let mut writer = FrameWriter::new(FrameKind::SnapshotAcknowledged);
                writer.put(&acknowledged.transfer.to_le_bytes());
                writer.put(&acknowledged.chunk_next.to_le_bytes());
                writer.put(&[acknowledged.state as u8, 0, 0, 0, 0, 0, 0, 0]);
                writer.finish()
            }
            Self::HashQuestion(question) => {
                let mut writer = FrameWriter::new(FrameKind::HashQuestion);
                writer.put(&question.number.to_le_bytes());
                writer.put(&question.revision.0.to_le_bytes());
                writer.put(&[question.wanted as u8, 0, 0, 0, 0, 0, 0, 0]);
                writer.finish()
            }
            Self::HashAnswer(answer) => answer.encode(),
            Self::Probe(clock) => encode_probe(FrameKind::Probe, *clock),
            Self::ProbeAnswer(clock) => encode_probe(FrameKind::ProbeAnswer, *clock),
        }
    }

    /// Reads a letter. A body that was lent is copied only if parts of it are kept.
    ///
    /// # Errors
    /// The body is none, or the frame belongs to the greeting.
    pub fn decode(frame: InFrame<'_>) -> Result<Self, LetterError> {
        let InFrame { kind, body } = frame;
        Ok(match kind {
            FrameKind::Hello | FrameKind::Welcome | FrameKind::Refusal => {
                return Err(LetterError { reason: "a greeting where none belongs" });
            }
            FrameKind::Raft => {
                let message = message::decode(&body.into_shared())?;
                if message.get_msg_type() == MessageType::MsgSnapshot {
                    return Err(LetterError { reason: "a raft snapshot without its transfer" });
                }
                Self::Raft(message)
            }
            FrameKind::Forward => Self::Forward(body.into_shared()),
            FrameKind::ForwardRefused => {
                Self::ForwardRefused(ForwardRefused::decode(body.bytes()).ok_or(WRONG)?)
            }
            FrameKind::LeaseQuestions => {
                Self::LeaseQuestions(decode_questions(body.bytes()).ok_or(WRONG)?)
            }
            FrameKind::LeaseAnswers => {
                Self::LeaseAnswers(decode_answers(body.bytes()).ok_or(WRONG)?)
            }
            FrameKind::SnapshotBegin => Self::SnapshotBegin(decode_begin(body)?),
            FrameKind::SnapshotChunk => Self::SnapshotChunk(decode_chunk(body)?),
            FrameKind::SnapshotEnd => Self::SnapshotEnd(decode_end(body.bytes()).ok_or(WRONG)?),
            FrameKind::SnapshotAcknowledged => {
                Self::SnapshotAcknowledged(decode_acknowledged(body.bytes()).ok_or(WRONG)?)
            }
            FrameKind::HashQuestion => {
                Self::HashQuestion(decode_hash_question(body.bytes()).ok_or(WRONG)?)
            }
            FrameKind::HashAnswer => {
                Self::HashAnswer(HashAnswer::decode(body.bytes()).ok_or(WRONG)?)
            }
            FrameKind::Probe => Self::Probe(decode_probe(body.bytes()).ok_or(WRONG)?),
            FrameKind::ProbeAnswer => Self::ProbeAnswer(decode_probe(body.bytes()).ok_or(WRONG)?),
        })
    }
}

impl ForwardRefused {
    fn encode(&self) -> OutFrame {
        let mut writer = FrameWriter::new(FrameKind::ForwardRefused);
        writer.put(&self.boot_nonce.to_le_bytes());
        writer.put(&self.sequence_first.to_le_bytes());
        writer.put(&[self.reason as u8, 0, 0, 0, 0, 0, 0, 0]);
        writer.finish()
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let body: &[u8; FORWARD_REFUSED_SIZE_BYTES] = body.try_into().ok()?;
        let mut reader = Reader::new(body);
        let (boot_nonce, sequence_first) = (reader.word()?, reader.word()?);
        let reason = reader.byte()?;
        reader.zeros(7)?;
        let reason = ForwardReason::ALL.into_iter().find(|known| *known as u8 == reason)?;
        Some(Self { boot_nonce, sequence_first, reason })
    }
}

impl HashAnswer {
    fn encode(&self) -> OutFrame {
        let never = Revision(0);
        let nothing = KeyValueHash { hash: 0, revision: never, compacted: never, current: never };
        let (outcome, hash) = match self.told {
            HashTold::Hash(hash) => (0, hash),
            HashTold::Rejected(Rejection::Compacted) => (1, nothing),
            HashTold::Rejected(Rejection::FutureRevision) => (2, nothing),
            // No other rejection is about a revision.
            HashTold::Rejected(_) | HashTold::Nothing => (3, nothing),
        };
        let mut writer = FrameWriter::new(FrameKind::HashAnswer);
        writer.put(&self.number.to_le_bytes());
        writer.put(&[outcome, 0, 0, 0]);
        writer.put(&hash.hash.to_le_bytes());
        for revision in [hash.revision, hash.compacted, hash.current] {
            writer.put(&revision.0.to_le_bytes());
        }
        writer.finish()
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let number = reader.word()?;
        let outcome = reader.byte()?;
        reader.zeros(3)?;
        let hash = KeyValueHash {
            hash: reader.short()?,
            revision: Revision(reader.signed()?),
            compacted: Revision(reader.signed()?),
            current: Revision(reader.signed()?),
        };
        let is_empty =
            hash.hash == 0 && [hash.revision, hash.compacted, hash.current] == [Revision(0); 3];
        let told = match (outcome, is_empty) {
            (0, _) => HashTold::Hash(hash),
            (1, true) => HashTold::Rejected(Rejection::Compacted),
            (2, true) => HashTold::Rejected(Rejection::FutureRevision),
            (3, true) => HashTold::Nothing,
            _ => return None,
        };
        (reader.len() == 0).then_some(Self { number, told })
    }
}

fn encode_probe(kind: FrameKind, clock: u64) -> OutFrame {
    let mut writer = FrameWriter::new(kind);
    writer.put(&clock.to_le_bytes());
    writer.finish()
}

fn decode_probe(body: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(body.try_into().ok()?))
}

fn decode_hash_question(body: &[u8]) -> Option<HashQuestion> {
    let mut reader = Reader::new(body);
    let (number, revision) = (reader.word()?, Revision(reader.signed()?));
    let wanted = match reader.byte()? {
        0 => HashWanted::Computed,
        1 => HashWanted::OfCompaction,
        _ => return None,
    };
    reader.zeros(7)?;
    (reader.len() == 0).then_some(HashQuestion { number, revision, wanted })
}

fn encode_questions(questions: &[LeaseQuestion]) -> OutFrame {
    assert!(questions.len() <= LEASES_PER_LETTER_MAX, "{} questions", questions.len());
    let mut writer = FrameWriter::new(FrameKind::LeaseQuestions);
    for question in questions {
        writer.put(&question.number.to_le_bytes());
        writer.put(&question.lease.0.to_le_bytes());
        writer.put(&[question.kind as u8, 0, 0, 0, 0, 0, 0, 0]);
    }
    writer.finish()
}

fn decode_questions(body: &[u8]) -> Option<Vec<LeaseQuestion>> {
    let count = count_of(body, LEASE_QUESTION_SIZE_BYTES)?;
    let mut reader = Reader::new(body);
    let mut questions = Vec::with_capacity(count);
    for _ in 0..count {
        let (number, lease) = (reader.word()?, LeaseId(reader.signed()?));
        let kind = match reader.byte()? {
            0 => LeaseQuestionKind::Renew,
            1 => LeaseQuestionKind::TimeToLive,
            _ => return None,
        };
        reader.zeros(7)?;
        questions.push(LeaseQuestion { number, lease, kind });
    }
    Some(questions)
}

fn encode_answers(answers: &[LeaseAnswer]) -> OutFrame {
    assert!(answers.len() <= LEASES_PER_LETTER_MAX, "{} answers", answers.len());
    let mut writer = FrameWriter::new(FrameKind::LeaseAnswers);
    for answer in answers {
        let (outcome, left, granted) = match answer.outcome {
            LeaseOutcome::Lives { seconds_left, seconds_granted } => {
                (0, seconds_left, seconds_granted)
            }
            LeaseOutcome::NotFound => (1, 0, 0),
            LeaseOutcome::NotLeader => (2, 0, 0),
            LeaseOutcome::TimedOut => (3, 0, 0),
        };
        writer.put(&answer.number.to_le_bytes());
        writer.put(&left.to_le_bytes());
        writer.put(&granted.to_le_bytes());
        writer.put(&[outcome, 0, 0, 0, 0, 0, 0, 0]);
    }
    writer.finish()
}

fn decode_answers(body: &[u8]) -> Option<Vec<LeaseAnswer>> {
    let count = count_of(body, LEASE_ANSWER_SIZE_BYTES)?;
    let mut reader = Reader::new(body);
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        let number = reader.word()?;
        let (seconds_left, seconds_granted) = (reader.signed()?, reader.signed()?);
        let outcome = match (reader.byte()?, seconds_left, seconds_granted) {
            (0, ..) => LeaseOutcome::Lives { seconds_left, seconds_granted },
            (1, 0, 0) => LeaseOutcome::NotFound,
            (2, 0, 0) => LeaseOutcome::NotLeader,
            (3, 0, 0) => LeaseOutcome::TimedOut,
            _ => return None,
        };
        reader.zeros(7)?;
        answers.push(LeaseAnswer { number, outcome });
    }
    Some(answers)
}

/// How many items of this size a body has, if it has nothing else and not too many.
fn count_of(body: &[u8], item_size_bytes: usize) -> Option<usize> {
    let count = body.len() / item_size_bytes;
    (body.len().is_multiple_of(item_size_bytes) && count <= LEASES_PER_LETTER_MAX).then_some(count)
}

fn decode_begin(body: Body<'_>) -> Result<SnapshotBegin, LetterError> {
    let body = body.into_shared();
    let mut reader = Reader::new(&body);
    let transfer = reader.word().ok_or(WRONG)?;
    let chunk_first = reader.word().ok_or(WRONG)?;
    let at = body.len() - reader.len();
    let message = message::decode(&body.slice(at..))?;
    if message.get_msg_type() != MessageType::MsgSnapshot || message.snapshot.is_none() {
        return Err(LetterError { reason: "a raft snapshot that begins with another message" });
    }
    Ok(SnapshotBegin { transfer, chunk_first, message })
}

fn decode_chunk(body: Body<'_>) -> Result<SnapshotChunk, LetterError> {
    if body.bytes().len() > 16 + CHUNK_SIZE_BYTES_MAX {
        return Err(LetterError { reason: "a chunk of a raft snapshot is too large" });
    }
    let body = body.into_shared();
    let mut reader = Reader::new(&body);
    let transfer = reader.word().ok_or(WRONG)?;
    let number = reader.word().ok_or(WRONG)?;
    let at = body.len() - reader.len();
    Ok(SnapshotChunk { transfer, number, records: body.slice(at..) })
}

fn decode_end(body: &[u8]) -> Option<SnapshotEnd> {
    let mut reader = Reader::new(body);
    let end = SnapshotEnd {
        transfer: reader.word()?,
        chunk_count: reader.word()?,
        size_bytes: reader.word()?,
    };
    (reader.len() == 0).then_some(end)
}

fn decode_acknowledged(body: &[u8]) -> Option<SnapshotAcknowledged> {
    let mut reader = Reader::new(body);
    let (transfer, chunk_next) = (reader.word()?, reader.word()?);
    let state = match reader.byte()? {
        0 => SnapshotState::Taking,
        1 => SnapshotState::Installed,
        2 => SnapshotState::Failed,
        _ => return None,
    };
    reader.zeros(7)?;
    (reader.len() == 0).then_some(SnapshotAcknowledged { transfer, chunk_next, state })
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::{ConfState, Snapshot, SnapshotMetadata};

    use super::super::frame::{BULK_BODY_SIZE_BYTES_MAX, FrameReader, HEAD_SIZE_BYTES};
    use super::super::random::Random;
    use super::*;

    fn body(letter: &Letter) -> Vec<u8> {
        letter.encode().to_vec()[HEAD_SIZE_BYTES..].to_vec()
    }

    fn through_the_wire(letter: &Letter) -> Letter {
        let bytes = letter.encode().to_vec();
        let mut reader = FrameReader::new(BULK_BODY_SIZE_BYTES_MAX);
        let mut input = &bytes[..];
        Letter::decode(reader.poll_frame(&mut input).unwrap().unwrap()).unwrap()
    }

    fn snapshot_message() -> Message {
        let mut message = Message { from: 1, to: 2, ..Message::default() };
        message.set_msg_type(MessageType::MsgSnapshot);
        let mut metadata = SnapshotMetadata { index: 5, term: 6, ..SnapshotMetadata::default() };
        metadata.set_conf_state(ConfState { voters: vec![1, 2], ..ConfState::default() });
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(metadata);
        message.set_snapshot(snapshot);
        message
    }

    fn heartbeat() -> Message {
        let mut message = Message { index: 3, ..Message::default() };
        message.set_msg_type(MessageType::MsgHeartbeat);
        message
    }

    fn random_letter(random: &mut Random) -> Letter {
        match random.below(13) {
            0 => Letter::Raft(Message { from: random.next(), ..heartbeat() }),
            1 => Letter::Forward(random.bytes(2000).into()),
            2 => Letter::ForwardRefused(ForwardRefused {
                boot_nonce: random.next(),
                sequence_first: random.next(),
                reason: ForwardReason::ALL[random.below(ForwardReason::ALL.len())],
            }),
            3 => Letter::LeaseQuestions(
                (0..random.below(20))
                    .map(|_| LeaseQuestion {
                        number: random.next(),
                        lease: LeaseId(i64::from_le_bytes(random.next().to_le_bytes())),
                        kind: [LeaseQuestionKind::Renew, LeaseQuestionKind::TimeToLive]
                            [random.below(2)],
                    })
                    .collect(),
            ),
            4 => Letter::LeaseAnswers(
                (0..random.below(20))
                    .map(|_| LeaseAnswer {
                        number: random.next(),
                        outcome: match random.below(4) {
                            0 => LeaseOutcome::Lives { seconds_left: -1, seconds_granted: 60 },
                            1 => LeaseOutcome::NotFound,
                            2 => LeaseOutcome::NotLeader,
                            _ => LeaseOutcome::TimedOut,
                        },
                    })
                    .collect(),
            ),
            5 => Letter::SnapshotBegin(SnapshotBegin {
                transfer: random.next(),
                chunk_first: random.next(),
                message: snapshot_message(),
            }),
            6 => Letter::SnapshotChunk(SnapshotChunk {
                transfer: random.next(),
                number: random.next(),
                records: random.bytes(3000).into(),
            }),
            7 => Letter::SnapshotEnd(SnapshotEnd {
                transfer: random.next(),
                chunk_count: random.next(),
                size_bytes: random.next(),
            }),
            8 => Letter::HashQuestion(HashQuestion {
                number: random.next(),
                revision: Revision(random.next().cast_signed()),
                wanted: [HashWanted::Computed, HashWanted::OfCompaction][random.below(2)],
            }),
            10 => Letter::Probe(random.next()),
            11 => Letter::ProbeAnswer(random.next()),
            9 => Letter::HashAnswer(HashAnswer {
                number: random.next(),
                told: match random.below(4) {
                    0 => HashTold::Rejected(Rejection::Compacted),
                    1 => HashTold::Rejected(Rejection::FutureRevision),
                    2 => HashTold::Nothing,
                    _ => HashTold::Hash(KeyValueHash {
                        hash: u32::try_from(random.below(1 << 30)).unwrap(),
                        revision: Revision(random.next().cast_signed()),
                        compacted: Revision(-1),
                        current: Revision(random.next().cast_signed()),
                    }),
                },
            }),
            _ => Letter::SnapshotAcknowledged(SnapshotAcknowledged {
                transfer: random.next(),
                chunk_next: random.next(),
                state: [SnapshotState::Taking, SnapshotState::Installed, SnapshotState::Failed]
                    [random.below(3)],
            }),
        }
    }

    #[test]
    fn golden_bytes_freeze_the_letters() {
        let word = |word: u8| [word, 0, 0, 0, 0, 0, 0, 0];
        let minus = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let questions = [LeaseQuestionKind::Renew, LeaseQuestionKind::TimeToLive]
            .map(|kind| LeaseQuestion { number: 1, lease: LeaseId(-2), kind });
        let answers = [
            LeaseOutcome::Lives { seconds_left: 3, seconds_granted: -2 },
            LeaseOutcome::NotFound,
            LeaseOutcome::NotLeader,
            LeaseOutcome::TimedOut,
        ]
        .map(|outcome| LeaseAnswer { number: 1, outcome });
        let refused =
            ForwardRefused { boot_nonce: 1, sequence_first: 2, reason: ForwardReason::NotLeader };
        let chunk = SnapshotChunk { transfer: 1, number: 2, records: Bytes::from_static(b"r") };
        let end = SnapshotEnd { transfer: 1, chunk_count: 2, size_bytes: 3 };
        let state = SnapshotState::Installed;
        let (revision, wanted) = (Revision(-2), HashWanted::OfCompaction);
        let question = HashQuestion { number: 1, revision, wanted };
        let [revision, compacted, current] = [3, -2, 5].map(Revision);
        let hash = KeyValueHash { hash: 9, revision, compacted, current };
        let hashed = HashAnswer { number: 1, told: HashTold::Hash(hash) };
        let acknowledged = SnapshotAcknowledged { transfer: 1, chunk_next: 2, state };
        for (letter, golden) in [
            (Letter::Forward(Bytes::from_static(b"batch")), b"batch".to_vec()),
            (Letter::ForwardRefused(refused), [word(1), word(2), word(1)].concat()),
            (
                Letter::LeaseQuestions(questions.to_vec()),
                [word(1), minus, word(0), word(1), minus, word(1)].concat(),
            ),
            (
                Letter::LeaseAnswers(answers.to_vec()),
                [
                    [word(1), word(3), minus, word(0)],
                    [word(1), word(0), word(0), word(1)],
                    [word(1), word(0), word(0), word(2)],
                    [word(1), word(0), word(0), word(3)],
                ]
                .concat()
                .concat(),
            ),
            (Letter::SnapshotChunk(chunk), [&word(1)[..], &word(2), b"r"].concat()),
            (Letter::SnapshotEnd(end), [word(1), word(2), word(3)].concat()),
            (Letter::SnapshotAcknowledged(acknowledged), [word(1), word(2), word(1)].concat()),
            (Letter::HashQuestion(question), [word(1), minus, word(1)].concat()),
            (Letter::Probe(7), word(7).to_vec()),
            (Letter::ProbeAnswer(8), word(8).to_vec()),
            (
                Letter::HashAnswer(hashed),
                [word(1), [0, 0, 0, 0, 9, 0, 0, 0], word(3), minus, word(5)].concat(),
            ),
            (
                Letter::HashAnswer(HashAnswer { told: HashTold::Nothing, ..hashed }),
                [word(1), word(3), word(0), word(0), word(0)].concat(),
            ),
        ] {
            assert_eq!(body(&letter), golden, "{letter:?}");
        }
        let reasons: Vec<u8> = ForwardReason::ALL.iter().map(|reason| *reason as u8).collect();
        assert_eq!(reasons, (1..=11).collect::<Vec<u8>>());
        let begin = Letter::SnapshotBegin(SnapshotBegin {
            transfer: 1,
            chunk_first: 2,
            message: snapshot_message(),
        });
        let raft = message::encode(&snapshot_message()).to_vec().split_off(HEAD_SIZE_BYTES);
        assert_eq!(body(&begin), [&word(1)[..], &word(2), &raft].concat());
    }

    #[test]
    fn every_letter_survives_the_round_trip() {
        for seed in 0..2000 {
            let letter = random_letter(&mut Random(seed));
            assert_eq!(through_the_wire(&letter), letter, "seed {seed}");
            assert_eq!(through_the_wire(&letter).lane(), letter.lane());
        }
    }

    #[test]
    fn appends_and_batches_never_stand_before_what_must_not_wait() {
        let raft = |kind| {
            let mut message = Message::default();
            message.set_msg_type(kind);
            Letter::Raft(message).lane()
        };
        assert_eq!(raft(MessageType::MsgAppend), Lane::Bulk);
        assert_eq!(raft(MessageType::MsgHeartbeat), Lane::Control);
        assert_eq!(raft(MessageType::MsgAppendResponse), Lane::Control);
        assert_eq!(raft(MessageType::MsgTimeoutNow), Lane::Control);
        assert_eq!(Letter::Forward(Bytes::new()).lane(), Lane::Bulk);
    }

    #[test]
    fn bounds_hold_where_letters_come_in() {
        let questions = vec![0; LEASE_QUESTION_SIZE_BYTES * LEASES_PER_LETTER_MAX];
        assert_eq!(decode_questions(&questions).unwrap().len(), LEASES_PER_LETTER_MAX);
        let more = vec![0; LEASE_QUESTION_SIZE_BYTES * (LEASES_PER_LETTER_MAX + 1)];
        assert_eq!(decode_questions(&more), None);
        let chunk = |size_bytes: usize| decode_chunk(Body::Gathered(vec![0; size_bytes].into()));
        assert!(chunk(16 + CHUNK_SIZE_BYTES_MAX).is_ok());
        assert!(chunk(17 + CHUNK_SIZE_BYTES_MAX).is_err());
        assert!(chunk(15).is_err());
    }

    #[test]
    fn hostile_bytes_are_refused_or_read_but_never_panic() {
        for seed in 0..20_000 {
            let mut random = Random(seed);
            let kind = FrameKind::ALL[random.below(FrameKind::ALL.len())];
            let mut bytes = random.bytes(200);
            if random.once_in(2) {
                bytes = body(&random_letter(&mut random));
            }
            for _ in 0..random.below(4) {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len());
                    bytes[at] = random.next().to_le_bytes()[0];
                }
            }
            let frame = InFrame { kind, body: Body::Lent(&bytes) };
            if let Ok(letter) = Letter::decode(frame) {
                assert_eq!(body(&letter), bytes, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_snapshot_begins_with_its_message_only() {
        let begin = SnapshotBegin { transfer: 1, chunk_first: 0, message: heartbeat() };
        let bytes = body(&Letter::SnapshotBegin(begin));
        let frame = InFrame { kind: FrameKind::SnapshotBegin, body: Body::Lent(&bytes) };
        assert!(Letter::decode(frame).is_err());
        // Nor does one come without its transfer.
        let bytes = message::encode(&snapshot_message()).to_vec().split_off(HEAD_SIZE_BYTES);
        let frame = InFrame { kind: FrameKind::Raft, body: Body::Lent(&bytes) };
        assert!(Letter::decode(frame).is_err());
    }
}
