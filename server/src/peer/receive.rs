//! The receiving end of one connection: who dialed, whether that is let in, and what it then says.
//!
//! The owner hands over what came ([`Receiver::handle_received`], which stops at the first letter
//! so that letters leave in order and one by one), sends what [`Receiver::poll_output`] gives, and
//! closes the connection after an error. Who is a member is the owner's to know: it is asked
//! through [`Members`] when the greeting has come.
//!
//! Invariants:
//! - Before the greeting was accepted nothing is held but a few kilobytes.
//! - A letter speaks for the member that greeted, to this member, and belongs to the connection's
//!   lane; anything else ends the connection.
//! - After an error there are no further letters.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use engine::ids::{ClusterId, MemberId};

use super::frame::{
    BULK_BODY_SIZE_BYTES_MAX, CONTROL_BODY_SIZE_BYTES_MAX, FrameError, FrameKind, FrameReader,
    HELLO_BODY_SIZE_BYTES_MAX,
};
use super::hello::{Hello, Lane, PREFACE, Refusal, VERSIONS, Welcome};
use super::letter::{CHUNK_SIZE_BYTES_MAX, Letter, SnapshotAcknowledged};

/// What a frame on the snapshot lane may hold: a chunk with its head, or raft's message.
const SNAPSHOT_BODY_SIZE_BYTES_MAX: usize = CHUNK_SIZE_BYTES_MAX + (128 << 10);

/// What this member knows of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A member.
    Member,
    /// Not a member, as far as this one has applied.
    Unknown,
    /// A member no more; its id is never used again.
    Removed,
}

/// Who is a member.
pub trait Members {
    /// What is known of this one.
    fn standing(&self, member: MemberId) -> Standing;
}

impl<F: Fn(MemberId) -> Standing> Members for F {
    fn standing(&self, member: MemberId) -> Standing {
        self(member)
    }
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Oneself {
    /// Our cluster.
    pub cluster: ClusterId,
    /// Us.
    pub member: MemberId,
    /// Of this start of ours.
    pub boot_nonce: u64,
    /// Our program's version.
    pub server_version: String,
}

/// Why a connection is at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiveError {
    /// It does not begin as a member's does.
    NoPeer,
    /// Its frames cannot be read.
    Frame(FrameError),
    /// It was refused, and told so.
    Refused {
        /// Who dialed.
        from: MemberId,
        /// Why not.
        refusal: Refusal,
    },
    /// What it says is not the protocol's, or not its to say.
    Wrong(&'static str),
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPeer => formatter.write_str("the connection is not a member's"),
            Self::Frame(error) => error.fmt(formatter),
            Self::Refused { from, refusal } => {
                let from = from.0;
                match refusal {
                    Refusal::Version(_) => {
                        write!(formatter, "member {from:x} speaks no version that we speak")
                    }
                    Refusal::Cluster(_) => {
                        write!(formatter, "member {from:x} belongs to another cluster")
                    }
                    Refusal::Recipient(_) => {
                        write!(formatter, "member {from:x} means to speak to another member")
                    }
                    Refusal::Removed => {
                        write!(formatter, "member {from:x} was removed from the cluster")
                    }
                    Refusal::Oneself => write!(formatter, "member {from:x} has our own id"),
                    Refusal::Unknown | Refusal::Other(_) => {
                        write!(formatter, "{from:x} is no member of the cluster")
                    }
                }
            }
            Self::Wrong(reason) => formatter.write_str(reason),
        }
    }
}

impl std::error::Error for ReceiveError {}

/// Who greeted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeted {
    /// The member.
    pub from: MemberId,
    /// What the connection is for.
    pub lane: Lane,
    /// Of the member's start.
    pub boot_nonce: u64,
    /// Its program's version.
    pub server_version: String,
    /// Where it is reached, if it is not known to be a member yet: this member may be the one that
    /// lags, and has to answer it to catch up. Empty of a member.
    pub guest_urls: Vec<String>,
}

/// What was received, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// A member may speak from now on. Once, before all letters.
    Greeted(Greeted),
    /// A letter of its.
    Letter(Letter),
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver {
    oneself: Oneself,
    /// How much of the preface has come.
    preface_len: usize,
    reader: FrameReader,
    greeted: Option<(MemberId, Lane)>,
    output: VecDeque<Bytes>,
    failed: Option<ReceiveError>,
}

impl Receiver {
    /// For a connection that was just accepted.
    #[must_use]
    pub fn new(oneself: Oneself) -> Self {
        Self {
            oneself,
            preface_len: 0,
            reader: FrameReader::new(HELLO_BODY_SIZE_BYTES_MAX),
            greeted: None,
            output: VecDeque::new(),
            failed: None,
        }
    }

    /// Takes received bytes off the front of `input` until there is something to hand out, or
    /// nothing is left. Called until it answers `None`.
    ///
    /// # Errors
    /// The connection is at its end, once [`Receiver::poll_output`] has been sent.
    pub fn handle_received(
        &mut self,
        input: &mut &[u8],
        members: &impl Members,
    ) -> Result<Option<Received>, ReceiveError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let received = self.receive(input, members);
        self.failed = received.as_ref().err().cloned();
        received
    }

    /// Tells the sender of a raft snapshot how far it has come.
    pub fn acknowledge(&mut self, acknowledged: SnapshotAcknowledged) {
        let is_snapshot = matches!(self.greeted, Some((_, Lane::Snapshot)));
        assert!(is_snapshot, "only a raft snapshot is acknowledged");
        self.output.extend(Letter::SnapshotAcknowledged(acknowledged).encode().into_pieces());
    }

    /// What is to be sent.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// Who greeted, if that has happened.
    #[must_use]
    pub fn greeted(&self) -> Option<(MemberId, Lane)> {
        self.greeted
    }

    /// Bytes held of a frame that has not come whole.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.reader.held_bytes()
    }

    fn receive(
        &mut self,
        input: &mut &[u8],
        members: &impl Members,
    ) -> Result<Option<Received>, ReceiveError> {
        let rest = &PREFACE[self.preface_len..];
        if !rest.is_empty() {
            let (now, later) = input.split_at(rest.len().min(input.len()));
            if !rest.starts_with(now) {
                return Err(ReceiveError::NoPeer);
            }
            self.preface_len += now.len();
            *input = later;
        }
        let Some(frame) = self.reader.poll_frame(input).map_err(ReceiveError::Frame)? else {
            return Ok(None);
        };
        let Some((from, lane)) = self.greeted else {
            if frame.kind != FrameKind::Hello {
                return Err(ReceiveError::Wrong("a connection that does not begin with a hello"));
            }
            let hello = Hello::decode(frame.body.bytes())
                .map_err(|error| ReceiveError::Wrong(error.reason))?;
            return self.handle_hello(hello, members).map(Some);
        };
        let letter = Letter::decode(frame).map_err(|error| ReceiveError::Wrong(error.reason))?;
        if letter.lane() != lane || matches!(letter, Letter::SnapshotAcknowledged(_)) {
            return Err(ReceiveError::Wrong("a letter that does not belong on its connection"));
        }
        let message = match &letter {
            Letter::Raft(message) => Some(message),
            Letter::SnapshotBegin(begin) => Some(&begin.message),
            _ => None,
        };
        if message
            .is_some_and(|message| (message.from, message.to) != (from.0, self.oneself.member.0))
        {
            return Err(ReceiveError::Wrong("a raft message of or for another member"));
        }
        Ok(Some(Received::Letter(letter)))
    }

    fn handle_hello(
        &mut self,
        hello: Hello,
        members: &impl Members,
    ) -> Result<Received, ReceiveError> {
        let Some(version) = VERSIONS.common(hello.versions) else {
            return self.refuse(hello.from, Refusal::Version(VERSIONS));
        };
        // The cluster before all else that an id says: ids mean nothing outside of it.
        if hello.cluster != self.oneself.cluster {
            return self.refuse(hello.from, Refusal::Cluster(self.oneself.cluster));
        }
        if hello.from == self.oneself.member {
            return self.refuse(hello.from, Refusal::Oneself);
        }
        if hello.to != self.oneself.member {
            return self.refuse(hello.from, Refusal::Recipient(self.oneself.member));
        }
        let guest_urls = match members.standing(hello.from) {
            Standing::Member => Vec::new(),
            // Who names the cluster and where it is reached is let in: it may have been added
            // since this member last heard of anything, and may lead by now.
            Standing::Unknown if !hello.peer_urls.is_empty() => hello.peer_urls,
            Standing::Unknown => return self.refuse(hello.from, Refusal::Unknown),
            Standing::Removed => return self.refuse(hello.from, Refusal::Removed),
        };
        let welcome = Welcome {
            version,
            member: self.oneself.member,
            boot_nonce: self.oneself.boot_nonce,
            server_version: self.oneself.server_version.clone(),
        };
        self.output.extend(welcome.encode().into_pieces());
        self.greeted = Some((hello.from, hello.lane));
        self.reader.set_limit(match hello.lane {
            Lane::Control => CONTROL_BODY_SIZE_BYTES_MAX,
            Lane::Bulk => BULK_BODY_SIZE_BYTES_MAX,
            Lane::Snapshot => SNAPSHOT_BODY_SIZE_BYTES_MAX,
        });
        let Hello { from, lane, boot_nonce, server_version, .. } = hello;
        let greeted = Greeted { from, lane, boot_nonce, server_version, guest_urls };
        Ok(Received::Greeted(greeted))
    }

    fn refuse(&mut self, from: MemberId, refusal: Refusal) -> Result<Received, ReceiveError> {
        self.output.extend(refusal.encode().into_pieces());
        Err(ReceiveError::Refused { from, refusal })
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::{Message, MessageType};

    use super::super::frame::OutFrame;
    use super::super::hello::Versions;
    use super::super::letter::{SnapshotEnd, SnapshotState};
    use super::super::random::Random;
    use super::*;

    fn receiver() -> Receiver {
        Receiver::new(Oneself {
            cluster: ClusterId(1),
            member: MemberId(2),
            boot_nonce: 20,
            server_version: "0.1.0".to_owned(),
        })
    }

    fn members(member: MemberId) -> Standing {
        match member.0 {
            2 | 3 => Standing::Member,
            4 => Standing::Removed,
            _ => Standing::Unknown,
        }
    }

    fn hello(lane: Lane) -> Hello {
        Hello {
            versions: VERSIONS,
            lane,
            cluster: ClusterId(1),
            from: MemberId(3),
            to: MemberId(2),
            boot_nonce: 30,
            server_version: "0.2.0".to_owned(),
            peer_urls: Vec::new(),
        }
    }

    fn greeting(hello: &Hello) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        bytes.extend(hello.encode().to_vec());
        bytes
    }

    fn raft_letter(kind: MessageType, from: u64, to: u64) -> Letter {
        let mut message = Message { from, to, ..Message::default() };
        message.set_msg_type(kind);
        Letter::Raft(message)
    }

    fn receive_all(
        receiver: &mut Receiver,
        bytes: &[u8],
    ) -> (Vec<Received>, Result<(), ReceiveError>) {
        let (mut input, mut all) = (bytes, Vec::new());
        loop {
            match receiver.handle_received(&mut input, &members) {
                Ok(Some(received)) => all.push(received),
                Ok(None) => return (all, Ok(())),
                Err(error) => return (all, Err(error)),
            }
        }
    }

    fn output(receiver: &mut Receiver) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(piece) = receiver.poll_output() {
            bytes.extend_from_slice(&piece);
        }
        bytes
    }

    fn frame_bytes(frame: &OutFrame) -> Vec<u8> {
        frame.to_vec()
    }

    #[test]
    fn a_member_is_let_in_and_heard_however_its_bytes_are_cut() {
        let letters = [
            raft_letter(MessageType::MsgHeartbeat, 3, 2),
            Letter::LeaseQuestions(Vec::new()),
            raft_letter(MessageType::MsgRequestPreVote, 3, 2),
        ];
        let mut bytes = greeting(&hello(Lane::Control));
        for letter in &letters {
            bytes.extend(letter.encode().to_vec());
        }
        for cut in 0..=bytes.len() {
            let mut receiver = receiver();
            let (mut all, result) = receive_all(&mut receiver, &bytes[..cut]);
            result.unwrap();
            let (rest, result) = receive_all(&mut receiver, &bytes[cut..]);
            result.unwrap();
            all.extend(rest);
            assert_eq!(all.len(), 4, "cut at {cut}");
            let Received::Greeted(greeted) = &all[0] else { panic!("the greeting comes first") };
            assert_eq!((greeted.from, greeted.boot_nonce), (MemberId(3), 30));
            for (received, letter) in all[1..].iter().zip(&letters) {
                assert_eq!(received, &Received::Letter(letter.clone()), "cut at {cut}");
            }
            let welcome = Welcome {
                version: 1,
                member: MemberId(2),
                boot_nonce: 20,
                server_version: "0.1.0".to_owned(),
            };
            assert_eq!(output(&mut receiver), frame_bytes(&welcome.encode()));
        }
    }

    #[test]
    fn whoever_does_not_belong_is_told_why_not() {
        let base = hello(Lane::Bulk);
        let later = Versions { min: 2, max: 3 };
        for (hello, refusal) in [
            (Hello { versions: later, ..base.clone() }, Refusal::Version(VERSIONS)),
            (Hello { cluster: ClusterId(9), ..base.clone() }, Refusal::Cluster(ClusterId(1))),
            (Hello { from: MemberId(2), ..base.clone() }, Refusal::Oneself),
            (Hello { to: MemberId(3), ..base.clone() }, Refusal::Recipient(MemberId(2))),
            (Hello { from: MemberId(5), ..base.clone() }, Refusal::Unknown),
            (Hello { from: MemberId(4), ..base.clone() }, Refusal::Removed),
        ] {
            let mut receiver = receiver();
            let (all, result) = receive_all(&mut receiver, &greeting(&hello));
            let expected = ReceiveError::Refused { from: hello.from, refusal };
            assert_eq!((all, result), (vec![], Err(expected.clone())));
            assert_eq!(output(&mut receiver), frame_bytes(&refusal.encode()));
            assert!(!expected.to_string().is_empty());
            // Nothing that comes afterwards is listened to.
            let (all, result) = receive_all(&mut receiver, &greeting(&base));
            assert_eq!((all, result), (vec![], Err(expected)));
        }
    }

    #[test]
    fn a_member_that_is_not_known_yet_is_let_in_with_where_it_is_reached() {
        let urls = vec!["http://a:1".to_owned()];
        for (from, expected) in [(5, Some(&urls)), (3, Some(&Vec::new())), (4, None)] {
            let hello =
                Hello { from: MemberId(from), peer_urls: urls.clone(), ..hello(Lane::Control) };
            let (all, _) = receive_all(&mut receiver(), &greeting(&hello));
            let guest_urls = all.first().map(|received| match received {
                Received::Greeted(greeted) => &greeted.guest_urls,
                Received::Letter(_) => panic!("the greeting comes first"),
            });
            assert_eq!(guest_urls, expected, "{from}");
        }
    }

    #[test]
    fn a_letter_speaks_for_its_sender_on_its_own_connection() {
        let end = SnapshotEnd { transfer: 1, chunk_count: 0, size_bytes: 0 };
        let state = SnapshotState::Taking;
        let acknowledged = SnapshotAcknowledged { transfer: 1, chunk_next: 0, state };
        for (lane, letter, is_taken) in [
            (Lane::Control, raft_letter(MessageType::MsgHeartbeat, 3, 2), true),
            (Lane::Control, raft_letter(MessageType::MsgHeartbeat, 5, 2), false),
            (Lane::Control, raft_letter(MessageType::MsgHeartbeat, 3, 3), false),
            (Lane::Control, raft_letter(MessageType::MsgAppend, 3, 2), false),
            (Lane::Bulk, raft_letter(MessageType::MsgAppend, 3, 2), true),
            (Lane::Bulk, raft_letter(MessageType::MsgHeartbeat, 3, 2), false),
            (Lane::Bulk, Letter::SnapshotEnd(end), false),
            (Lane::Snapshot, Letter::SnapshotEnd(end), true),
            (Lane::Snapshot, Letter::SnapshotAcknowledged(acknowledged), false),
        ] {
            let mut receiver = receiver();
            receive_all(&mut receiver, &greeting(&hello(lane))).1.unwrap();
            let (all, result) = receive_all(&mut receiver, &letter.encode().to_vec());
            assert_eq!(all.len(), usize::from(is_taken), "{lane:?} {letter:?}");
            assert_eq!(result.is_ok(), is_taken, "{lane:?} {letter:?}");
        }
    }

    #[test]
    fn acknowledgements_go_back_on_the_same_connection() {
        let mut receiver = receiver();
        receive_all(&mut receiver, &greeting(&hello(Lane::Snapshot))).1.unwrap();
        output(&mut receiver);
        let state = SnapshotState::Taking;
        let acknowledged = SnapshotAcknowledged { transfer: 1, chunk_next: 4, state };
        receiver.acknowledge(acknowledged);
        let expected = Letter::SnapshotAcknowledged(acknowledged).encode();
        assert_eq!(output(&mut receiver), frame_bytes(&expected));
    }

    #[test]
    fn strangers_hold_no_memory() {
        let mut receiver = receiver();
        // A hello that claims to be long is refused by its head.
        let mut bytes = PREFACE.to_vec();
        bytes.extend([0, 64, 0, 0, FrameKind::Hello as u8, 0, 0, 0, 0, 0, 0, 0]);
        let (_, result) = receive_all(&mut receiver, &bytes);
        assert!(matches!(result, Err(ReceiveError::Frame(FrameError::TooLong { .. }))));
        for text in [&b"GET / HTTP/1.1\r\n"[..], b"\x93RINGD\n\n", b"\x93RINX"] {
            let (_, result) = receive_all(&mut self::receiver(), text);
            assert_eq!(result, Err(ReceiveError::NoPeer));
        }
        let letter = raft_letter(MessageType::MsgHeartbeat, 3, 2).encode();
        let mut bytes = PREFACE.to_vec();
        bytes.extend(letter.to_vec());
        assert!(receive_all(&mut self::receiver(), &bytes).1.is_err());
    }

    #[test]
    fn no_bytes_panic() {
        for seed in 0..5000 {
            let mut random = Random(seed);
            let mut receiver = receiver();
            let mut bytes = if random.once_in(3) { PREFACE.to_vec() } else { Vec::new() };
            if random.once_in(2) {
                bytes = greeting(&hello(Lane::ALL[random.below(3)]));
                bytes.extend(raft_letter(MessageType::MsgAppend, 3, 2).encode().to_vec());
            }
            bytes.extend(random.bytes(100));
            for _ in 0..random.below(4) {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len());
                    bytes[at] = random.next().to_le_bytes()[0];
                }
            }
            let cut = random.below(bytes.len() + 1);
            drop(receive_all(&mut receiver, &bytes[..cut]));
            drop(receive_all(&mut receiver, &bytes[cut..]));
        }
    }
}
